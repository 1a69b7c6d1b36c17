"""How large a chapter runs: `smoke` for tests, `book` for the stored outputs, `full`
for a GPU and the paper's own setting."""

from __future__ import annotations

import os
from typing import TypeVar

__all__ = ["SCALES", "current_scale", "scale", "at_least"]

T = TypeVar("T")
#: The scales, smallest first.
SCALES = ("smoke", "book", "full")


def current_scale() -> str:
    """The scale named by the environment variable METALEARN_SCALE (default `book`);
    ValueError for an unknown name."""
    name = os.environ.get("METALEARN_SCALE") or "book"
    if name not in SCALES:
        raise ValueError(f"METALEARN_SCALE={name!r} is not one of {', '.join(SCALES)}")
    return name


def scale(smoke: T, book: T, full: T) -> T:
    "Choose by scale: `steps = scale(20, 2000, 60_000)`. smoke, book, full: the values."
    return (smoke, book, full)[SCALES.index(current_scale())]


def at_least(name: str) -> bool:
    """True if the chapter runs at this scale or a larger one: `if at_least('book'):
    assert accuracy > 0.9`."""
    if name not in SCALES:
        raise ValueError(f"{name!r} is not one of {', '.join(SCALES)}")
    return SCALES.index(current_scale()) >= SCALES.index(name)
