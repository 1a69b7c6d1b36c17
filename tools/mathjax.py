"""MathJax 3 from the wheel `sphinx-mathjax-offline`, so that no page asks another host
for it."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

#: what a page asks for: the program and its fonts (under 3 MB)
PROGRAM = "tex-chtml-full.js"
PARTS = (PROGRAM, "output/chtml/fonts")


def folder() -> Path:
    """Where the wheel has put MathJax 3.

    Raises FileNotFoundError where it is not installed, or is of another version.
    """
    name = "sphinx-mathjax-offline"
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"MathJax is missing; install it with: pip install {name}"
        ) from None
    wanted = f"static/mathjax/{PROGRAM}"
    main = next((f for f in files if f.as_posix().endswith(wanted)), None)
    if main is None:
        raise FileNotFoundError(
            f"the installed {name} has no {PROGRAM}; version 0.0.2 has it"
        )
    return Path(str(main.locate())).parent


def copy(target: Path) -> None:
    "Put into the folder `target` what a page asks for, where it is not there yet."
    for part in PARTS:
        origin, place = folder() / part, target / part
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, place)
            else:
                shutil.copy(origin, place)
