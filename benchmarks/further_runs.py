"""Further training runs of a chapter, by the chapter's own code.

A chapter trains its first run itself and reads the others from here. So that both do
the same, a benchmark does not write the experiment a second time: `code_of` executes
the cells of the notebook up to the definition that makes one run, and `store_runs`
calls that with further seeds.
"""

from __future__ import annotations

import __future__
import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

from notebooks import is_code, read, source  # noqa: E402
from setup_cell import is_setup  # noqa: E402

from metalearn_book.book.results import load_results, save_results  # noqa: E402


def code_of(chapter: str, until: str, without: tuple[str, ...] = ()) -> ModuleType:
    """The cells of a chapter, executed one after another until they define `until`.

    without: second-level headings whose cells are left out. RuntimeError if `until` is
    never defined.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    module = ModuleType(f"chapter_{chapter.replace('/', '_')}")
    sys.modules[module.__name__] = module
    section = ""
    for number, cell in enumerate(read(ROOT / "nbs" / f"{chapter}.ipynb")["cells"]):
        code = source(cell)
        if not is_code(cell):
            headings = [line[3:] for line in code.splitlines() if line[:3] == "## "]
            section = headings[-1].strip() if headings else section
        if not is_code(cell) or is_setup(code) or section in without:
            continue
        flags = __future__.annotations.compiler_flag  # as a notebook keeps it
        exec(compile(code, f"{chapter}, cell {number}", "exec", flags), vars(module))
        plt.close("all")
        if hasattr(module, until):
            return module
    raise RuntimeError(f"no cell of nbs/{chapter}.ipynb defines {until!r}")


def store_runs(
    name: str,
    seeds: list[int],
    run: Callable[[int], dict | str],
    settings: dict,
    **more: dict,
) -> None:
    """`run(seed)` for each seed, stored as soon as it is there; one that is stored with
    the same settings is not made again.

    name: `benchmarks/...`. settings: what the chapter compares before it reads a run.
    more: what else is stored, by name.
    """
    old = load_results(name, missing={"numbers": {}})["numbers"]
    runs = old.get("runs", {}) if old.get("settings") == settings else {}

    def save() -> None:
        done = sorted(map(int, runs))
        numbers = {"settings": settings, "runs": runs} | more
        save_results(name, numbers, seed=done[0] if done else 0, config={"seeds": done})

    save()
    for seed in seeds:
        if str(seed) in runs:
            print(f"seed {seed} is stored already")
            continue
        began = time.perf_counter()
        runs[str(seed)] = run(seed)
        save()
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)


def seeds_of(doc: str | None) -> list[int]:
    "The seeds that the command line asks for."
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    return parser.parse_args().seeds
