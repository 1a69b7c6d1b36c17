"""The fixed splits, one file each in `splits/`: the same classes for everybody."""

from __future__ import annotations

import json
import re
from importlib import resources

__all__ = ["has_split", "read_split", "part_of"]


def _file(name: str):
    return resources.files(__package__).joinpath(f"splits/{name}.json")


def has_split(name: str) -> bool:
    "True if the set has a fixed split."
    word = isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)
    return bool(word) and _file(name).is_file()


def read_split(name: str) -> dict[str, list]:
    """`train`, `validation` and `test`, each a list of names (FinEntity: of row
    numbers). ValueError for a set without one.
    """
    if not has_split(name):
        known = sorted(f.name[:-5] for f in _file("x").parent.iterdir())
        raise ValueError(f"no fixed split {name!r}; there are {', '.join(known)}")
    return json.loads(_file(name).read_text(encoding="utf-8"))


def part_of(name: str) -> dict:
    "The part of each name of the split."
    return {n: part for part, names in read_split(name).items() for n in names}
