"""Measured numbers, stored once and quoted from there."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..data.arguments import real
from ..data.files import environment_folder, locked, made
from .scale import current_scale

__all__ = ["save_results", "load_results", "results_folder", "versions"]

_PACKAGES = ("torch", "numpy", "transformers", "datasets", "accelerate")


def versions(*more: str) -> dict[str, str]:
    "Versions of Python and of the packages that the numbers depend on."
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _device() -> str:
    "The GPU that torch sees, if the chapter uses torch, or else the CPU."
    torch = sys.modules.get("torch")
    return (
        torch.cuda.get_device_name(0)
        if torch and torch.cuda.is_available()
        else f"{os.cpu_count()} CPU cores, {platform.machine()}"
    )


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as e:
        raise ValueError(
            f"{path} is damaged ({e}); remove it, and make it again with: "
            f"make run CHAPTER={path.parent.name}/{path.stem} SCALE=book"
        ) from e


def _add(path: Path, entries: dict) -> None:
    """Put entries into a file of results; others who do so at the same time wait, and
    whoever is killed leaves the old file whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        content = json.dumps(_read(path) | entries, indent=1, sort_keys=True)
        with made(path) as part:
            part.write_text(content + "\n", encoding="utf-8")


def _plain(value):
    """Evaluation objects become mean, ci95, n, seed; tensors and numpy numbers become
    Python numbers; floats keep 6 digits."""
    if hasattr(value, "ci95"):
        return {
            "mean": _plain(value.mean),
            "ci95": _plain(value.ci95),
            "n": len(value.values),
            "seed": value.seed,
        }
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _check_chapter(chapter: str) -> None:
    "ValueError for what can't be the name of a file of results."
    if not isinstance(chapter, str) or not re.fullmatch(r"[\w-]+(/[\w-]+)*", chapter):
        raise ValueError(
            f"chapter must be part/nn_module, such as 'optimization/10_maml', got "
            f"{chapter!r}"
        )


def save_results(
    chapter: str,
    numbers: dict,
    *,
    seed: int,
    config: dict,
    seconds: float | None = None,
) -> dict:
    """Store what a chapter measured under `<METALEARN_RESULTS>/<chapter>.json`, one
    entry for each scale.

    chapter: `part/nn_module`, such as `optimization/10_maml`. Values may be
    `Evaluation`s, numbers, lists or dicts of them. Nothing is written where
    METALEARN_RESULTS is not set, or at smoke scale; the entry is returned in any case.
    seed, config: what it takes to make the numbers again. seconds: how long that took.
    """
    _check_chapter(chapter)
    if seconds is not None:
        seconds = real("seconds", seconds, 0)
    entry = {
        "numbers": _plain(numbers),
        "seed": seed,
        "config": _plain(config),
        "device": _device(),
        "versions": versions(),
    }
    if seconds is not None:
        entry["seconds"] = round(seconds)
    folder = environment_folder("METALEARN_RESULTS", "store nothing", must_exist=False)
    if folder and current_scale() != "smoke":
        _add(folder / f"{chapter}.json", {current_scale(): entry})
    return entry


def load_results(chapter: str, at: str = "book", missing: dict | None = None) -> dict:
    """The stored numbers of a chapter, or of a long run under `benchmarks/`, at a
    scale.

    Where there are none, FileNotFoundError says how to make them; with `missing` given,
    that is returned instead, and one line says so.
    """
    _check_chapter(chapter)
    folder = environment_folder(
        "METALEARN_RESULTS", "read the folder results", must_exist=False
    ) or Path("results")
    path = folder / f"{chapter}.json"
    stored = _read(path)
    if at in stored:
        return stored[at]
    how = (
        f"python {chapter}.py"
        if chapter.startswith("benchmarks/")
        else f"make run CHAPTER={chapter} SCALE={at}"
    )
    if missing is None:
        raise FileNotFoundError(
            f"no {at}-scale results of {chapter} in {folder}; make them with: {how}"
        )
    print(
        f"The stored results of {chapter} are in the book's repository and not here; "
        f"to make them there: {how}"
    )
    return missing


def results_folder(name: str) -> Path:
    """A folder of stored numbers, such as `leaderboard`, which may not be there: in
    METALEARN_RESULTS, in the folder `results` where that is not set, or in the
    repository that this code lies in.
    """
    _check_chapter(name)
    folder = environment_folder(
        "METALEARN_RESULTS", "read the folder results", must_exist=False
    )
    beside = Path(__file__).resolve().parents[2] / "results"
    for place in (folder, Path("results"), beside):
        if place is not None and (place / name).is_dir():
            return place / name
    return (folder or Path("results")) / name
