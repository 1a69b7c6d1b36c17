"""From the instructor's notebook to the student's, and from a submission to the cells
that are graded.

Marks, each on the first line of a code cell: `#| graded` (run by the grader),
`#| check NAME` (visible asserts of a question), `#| instructor` (not in the student's
notebook). In code a line that says that something is missing replaces what stands
between `### BEGIN SOLUTION` and `### END SOLUTION`; in Markdown the marks are comments
of HTML, `<!-- BEGIN SOLUTION -->`. The word RUNTIME in Markdown becomes the stored time
of the reference solution.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from notebooks import ROOT, read, settings, source, text
from setup_cell import BADGE, badges, is_badges, is_setup, setup

FOLDER = ROOT / "assignments"
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n.*?^[ \t]*### END SOLUTION[ \t]*$\n?",
    re.S | re.M,
)
PROSE = re.compile(r"<!-- BEGIN SOLUTION -->.*?<!-- END SOLUTION -->\n?", re.S)
STUB = (
    "\\1# YOUR CODE HERE\n"
    '\\1raise NotImplementedError("replace this line by your solution")\n'
)
TIMES = "benchmarks/assignments"  # in results/: written by tools/run_as_colab.py
MOST_FILE, MOST_CODE = 32 << 20, 1 << 20  # bytes of a notebook, and of all code
MOST_FILES, MOST_CELLS = 100, 1000


def assignments(folder: Path = FOLDER) -> list[Path]:
    "The folders of all assignments, in order."
    return sorted(p.parent for p in folder.glob("*/solution.ipynb"))


def find(name: str, folder: Path = FOLDER) -> Path:
    "An assignment by number, name or folder; ValueError with the names there are."
    wanted = str(name).rstrip("/").split("/")[-1]
    there = assignments(folder)
    for path in there:
        number, _, rest = path.name.partition("_")
        if wanted in (path.name, number, str(int(number)), rest):
            return path
    names = ", ".join(p.name for p in there)
    raise ValueError(f"no assignment is called {name!r}; there are: {names}")


def mark(cell: dict) -> tuple[str, str]:
    "The mark of a code cell and what stands behind it: ('check', 'inner_step')."
    if cell.get("cell_type") != "code":
        return "", ""
    m = re.match(r"#\|[ \t]*(graded|check|instructor)\b[ \t]*(.*)", source(cell))
    return (m[1], m[2].strip()) if m else ("", "")


def stripped(code: str) -> str:
    "A code cell without its solution."
    left = SOLUTION.sub(STUB, code)
    if re.search(r"###\s*(BEGIN|END)", left):
        raise ValueError(f"a mark of a solution has no partner in: {left[:80]!r}")
    return left


def whole(nb: dict) -> dict:
    "The instructor's notebook with its setup cell filled in: what runs from the top."
    nb = copy.deepcopy(nb)
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and is_setup(source(cell)):
            cell["source"] = setup(settings(), []).splitlines(True)
    return nb


def runtime(name: str, root: Path = ROOT) -> str:
    """How long the reference solution of an assignment took, in words, with the
    machine, from the stored numbers. It is time of the processor, because the clock
    also counts what else the machine did. ValueError where there is none."""
    try:
        told = (root / "results" / f"{TIMES}.json").read_text(encoding="utf-8")
        stored = json.loads(told)["book"]
        seconds = stored["numbers"][name]["processor"]
    except (OSError, KeyError, ValueError):
        raise ValueError(
            f"{name}: RUNTIME stands in its notebook, and no time is stored. Run: "
            f"python tools/run_as_colab.py --python PATH --assignments {name} --store"
        ) from None
    took = f"{math.ceil(seconds)} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    return f"{took} of processor time ({stored['device']})"


def student_notebook(nb: dict, name: str, cfg: dict) -> dict:
    "The student's notebook from the instructor's."
    nb = copy.deepcopy(nb)
    cells = []
    for cell in nb["cells"]:
        if mark(cell)[0] == "instructor":
            continue
        code = source(cell)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            code = setup(cfg, []) if is_setup(code) else stripped(code)
        elif is_badges(cell):
            path = f"assignments/{name}/student.ipynb"
            code = badges(path, None, cfg)
        else:
            code = PROSE.sub("*Your answer goes here.*\n", code)
            if "RUNTIME" in code:
                code = code.replace("RUNTIME", runtime(name))
        cell["source"] = code.rstrip("\n").splitlines(True)
        cells.append(cell)
    nb["cells"] = cells
    nb["metadata"]["assignment"] = name
    return nb


def built(folder: Path) -> str:
    "The text that the student's notebook of an assignment should have."
    solution = read(folder / "solution.ipynb")
    if not any(BADGE in source(c) or is_badges(c) for c in solution["cells"]):
        raise ValueError(f"{folder.name}: put a cell with the word BADGES below title")
    return text(student_notebook(solution, folder.name, settings()))


@dataclass(frozen=True)
class Submission:
    "What the grader runs: graded cells, and files beside them."

    cells: list[tuple[str, str]]
    files: dict[str, str] = field(default_factory=dict)
    assignment: str = ""


def cells_of(nb: dict, marks: tuple[str, ...] = ("graded",)) -> list[tuple[str, str]]:
    "Cells with these marks, as (name, code); names count all cells from 1."
    found = []
    for i, cell in enumerate(nb["cells"], 1):
        kind, what = mark(cell)
        if kind in marks:
            name = f"check {what} (cell {i})" if kind == "check" else f"cell {i}"
            found.append((name, source(cell)))
    return found


def parts(path: Path) -> list[Path]:
    """The files of a submission that count: notebooks and .py files, and no links,
    devices or pipes."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if is_plain(p))
        return [p for p in files if p.suffix in (".ipynb", ".py") and p.name[0] != "."]
    return [path] if is_plain(path) else []


def is_plain(path: Path) -> bool:
    "A file itself, and no link to one."
    return stat.S_ISREG(path.lstat().st_mode)


def content(path: Path) -> bytes:
    "The bytes of a file of a submission; ValueError where it is none, or too large."
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as f:
        told = os.fstat(f.fileno())
        most = MOST_FILE if path.suffix == ".ipynb" else MOST_CODE
        if not stat.S_ISREG(told.st_mode):
            raise ValueError(f"{path.name} is no plain file")
        found = f.read(most + 1) if told.st_size <= most else b""
    if told.st_size > most or len(found) > most:
        raise ValueError(f"{path.name} is larger than {most >> 20} MB")
    return found


def submission(path: Path) -> Submission:
    """A submission from a notebook, a .py file, or a folder with a notebook, .py files,
    or both. `adapters.py` runs last, in the same module. ValueError: it can't be read.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise ValueError(f"there is no {path}")
    if not path.is_dir() and not is_plain(path):
        raise ValueError(f"{path.name} is no plain file: hand in the file itself")
    files = parts(path)
    notebooks = [p for p in files if p.suffix == ".ipynb"]
    if len(files) > MOST_FILES:
        raise ValueError(f"{path.name} holds more than {MOST_FILES} files of code")
    if not files or len(notebooks) > 1:
        raise ValueError(
            f"{path.name} holds {len(notebooks)} notebooks and "
            f"{len(files) - len(notebooks)} .py files; a submission is one notebook, "
            "or .py files with an adapters.py, or both"
        )
    cells, assignment = [], ""
    for p in notebooks:
        raw = content(p)
        try:
            nb = json.loads(raw.decode("utf-8-sig"))
            cells = cells_of(nb)
            assignment = str(nb["metadata"].get("assignment", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ValueError(f"{p.name} can't be read ({type(e).__name__})") from None
    if len(cells) > MOST_CELLS:
        raise ValueError(f"{path.name} holds more than {MOST_CELLS} graded cells")
    code = {
        p.name: content(p).decode("utf-8-sig", errors="replace")
        for p in files
        if p.suffix == ".py"
    }
    last = "adapters.py" if "adapters.py" in code else next(iter(code), None)
    if last and (last == "adapters.py" or not notebooks):
        cells.append((last, code[last]))
    if sum(len(c) for _, c in cells) + sum(map(len, code.values())) > MOST_CODE:
        raise ValueError(f"{path.name} holds more than {MOST_CODE >> 20} MB of code")
    return Submission(cells, code, assignment)
