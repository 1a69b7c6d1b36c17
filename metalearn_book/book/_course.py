"""What `metalearn-book course` does: the assignments of the course, and which questions
of a student's notebook pass the checks that stand in it.

Only the notebook is needed. Its marks are `#| graded` and `#| check NAME` on the first
line of a code cell, and headings `## Question 3: title (2 points)`. The code is the
student's own and runs in a process of its own, without any protection but a limit of
time; points are a matter of `make grade`.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

CHILD = Path(__file__).resolve().with_name("_course_child.py")
SECONDS = 60.0  # for one cell, or one check
MOST_PRINTED = 2000  # characters of what a check prints
MARK = re.compile(r"#\|[ \t]*(graded|check)\b[ \t]*(\S*)")
HEADING = re.compile(
    r"^## Question (\d+):[ \t]*(.+?)[ \t]*(?:\(([^()]*\bpoints?\b[^()]*)\))?[ \t]*$",
    re.M,
)
BY_PERSON = "by a person"
STUB = "replace this line by your solution"


def listed() -> list[dict]:
    "The assignments, as they were when the package was made."
    text = resources.files("metalearn_book.book").joinpath("assignments.json")
    return json.loads(text.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- a notebook


@dataclass
class Question:
    "A question of a notebook: its checks, and the functions that its cells define."

    number: int | None
    title: str
    points: str = ""
    checks: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)


@dataclass
class Notebook:
    "What counts in a student's notebook."

    path: Path
    assignment: str
    title: str
    cells: list[tuple[str, str]]  # graded, as (name, code)
    checks: dict[str, str]  # name -> code
    questions: list[Question]
    notes: list[str]
    files: list[Path] = field(default_factory=list)

    @property
    def named(self) -> str:
        "The assignment in words."
        return self.title or self.assignment or "an assignment without a title"


def _source(cell: dict) -> str:
    found = cell.get("source", "")
    return "".join(found) if isinstance(found, list) else str(found)


def _json(path: Path) -> dict:
    "The JSON of a notebook; ValueError and FileNotFoundError that say what to do."
    if not path.exists():
        there = [p.name for p in path.parent.glob("*.ipynb")] if path.parent else []
        near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(
            f"there is no notebook {path}.{hint} On Colab: File, Download, "
            "Download .ipynb; then name that file"
        )
    try:
        nb = json.loads(path.read_text(encoding="utf-8-sig"))
        cells = nb["cells"]
        if not all(isinstance(c, dict) for c in cells) or not isinstance(cells, list):
            raise TypeError("cells are no list of objects")
        for source in (c.get("source", "") for c in cells):
            if not all(isinstance(line, str) for line in source or ""):
                raise TypeError("the source of a cell is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        raise ValueError(
            f"{path} is not a notebook, or it is damaged ({what}). Save or download it "
            "again; `#| check` cells and your answers are read from it"
        ) from None
    return nb


def notebook(path: str | Path) -> Notebook:
    """A student's notebook, or the folder of one with an adapters.py. ValueError where
    it is none of the course."""
    path, files = Path(path), []
    if path.is_dir():
        there = sorted(p for p in path.glob("*.ipynb") if p.name[0] != ".")
        if len(there) != 1:
            names = ", ".join(p.name for p in there) or "none"
            raise ValueError(f"name one notebook: {path} has {len(there)} ({names})")
        files = [p for p in [path / "adapters.py"] if p.is_file()]
        path = there[0]
    nb = _json(path)
    title, cells, checks, questions, notes = "", [], {}, [], []
    for number, cell in enumerate(nb["cells"], 1):
        text = _source(cell)
        if cell.get("cell_type") == "markdown":
            if number < 5 and (m := re.search(r"^# (Assignment \d+: .+)$", text, re.M)):
                title = title or m[1].strip()
            for m in HEADING.finditer(text):
                questions.append(Question(int(m[1]), m[2], m[3] or ""))
        elif cell.get("cell_type") == "code":
            m = MARK.match(text)
            if m and m[1] == "graded":
                cells.append((f"cell {number}", text))
                if questions:
                    found = re.findall(r"^(?:async )?def (\w+)", text, re.M)
                    questions[-1].functions += found
            elif m:
                name = m[2] or f"cell_{number}"
                if name in checks:
                    notes.append(f"two cells check {name}; the second one counts")
                checks[name] = text
                if not questions:
                    questions.append(Question(None, name))
                if name not in questions[-1].checks:
                    questions[-1].checks.append(name)
            elif re.search(r"^\s*#\|\s*graded\b", text, re.M):
                notes.append(
                    f"cell {number} has `#| graded`, but not as its first line: "
                    "neither this command nor the grader runs it"
                )
    metadata = nb.get("metadata")
    name = metadata.get("assignment") if isinstance(metadata, dict) else None
    if not checks:
        first = re.search(r"^# (.+)$", "\n".join(map(_source, nb["cells"])), re.M)
        what = f"{path} ({first[1].strip()})" if first else str(path)
        raise ValueError(
            f"{what} is no assignment of the course: it has no cell that begins with "
            "`#| check`. `metalearn-book course` lists the assignments and where to "
            "get their notebooks"
        )
    if not isinstance(name, str) or not name:
        name = next((a["name"] for a in listed() if a["title"] == title), "")
    told = (path, name, title, cells, checks, questions, notes, files)
    return Notebook(*_with_missing(*told))


def _with_missing(path, name, title, cells, checks, questions, notes, files) -> tuple:
    "With a note on checks that the assignment has and this copy has not."
    known = next((a for a in listed() if a["name"] == name), None)
    wanted = [c for q in (known or {}).get("questions", []) for c in q["checks"]]
    if lost := [c for c in wanted if c not in checks]:
        notes.append(
            f"this copy has no check of {', '.join(lost)}: its cells were deleted, "
            "or it is of another version of the book"
        )
    return path, name, title, cells, checks, questions, notes, files


def chosen(nb: Notebook, wanted: str) -> list[str]:
    """The checks of a question by its number, a check, or a function; ValueError with
    the questions that there are."""
    name = re.sub(r"^(question|q)\s*", "", wanted.strip(), flags=re.I)
    if name in nb.checks:
        return [name]
    for q in nb.questions:
        if name == str(q.number) or name in q.functions:
            if q.checks:
                return q.checks
            raise ValueError(
                f"question {q.number} of {nb.named} has no visible check: "
                "a person grades it"
            )
    for other in listed():
        if other["name"] != nb.assignment and any(
            name in q["checks"] for q in other["questions"]
        ):
            raise ValueError(
                f"{nb.path} is {nb.named}; the question {name!r} is one of "
                f"{other['title']}. Here there are: {', '.join(nb.checks)}"
            )
    functions = [f for q in nb.questions for f in q.functions if q.checks]
    near = difflib.get_close_matches(name, [*nb.checks, *functions], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"there is no question {wanted!r} in {nb.path} ({nb.named}).{hint} "
        f"There are: {', '.join(nb.checks)}, or the numbers of the questions"
    )


# ---------------------------------------------------------------- run its checks


@dataclass
class Outcome:
    "What came of a check. state: `passes`, `fails` or `not done`."

    state: str
    message: str = ""
    printed: str = ""


class _Process:
    "The child, what it tells, and the beginning of what it prints."

    def __init__(self, job: dict):
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"}
        self.child = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=os.name == "posix",
        )
        self.told: queue.Queue = queue.Queue()
        self.parts: queue.Queue = queue.Queue()
        self.printed, self.mark = b"", f"<{secrets.token_hex(8)}>"
        for work in (self._listen, self._drain):
            threading.Thread(target=work, daemon=True).start()
        with suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps({**job, "mark": self.mark}).encode())
            self.child.stdin.close()

    def _listen(self) -> None:
        for line in self.child.stdout:
            with suppress(ValueError, RecursionError):
                if isinstance(told := json.loads(line), dict):
                    self.told.put(told)
        self.told.put({"gone": True})

    def _drain(self) -> None:
        "Cut what is printed where the child says that something ended."
        end, rest = self.mark.encode(), b""
        while part := self.child.stderr.read1(1 << 16):
            *whole, rest = (rest + part).split(end)
            for found in whole:
                self.parts.put(self.printed + found[:MOST_PRINTED])
                self.printed = b""
            if len(rest) > MOST_PRINTED:  # keep the beginning, and room for a mark
                self.printed = (self.printed + rest)[:MOST_PRINTED]
                rest = rest[-len(end) :]
        self.parts.put(self.printed + rest)

    def taken(self) -> str:
        "What was printed since the last time."
        found = b""
        with suppress(queue.Empty):  # of a child that has closed its own output
            found = self.parts.get(timeout=1.0)
        return found[:MOST_PRINTED].decode("utf-8", errors="replace").strip()

    def end(self, patience: float = 0.0) -> int:
        """Kill it with all that it has started; its exit status. patience: seconds in
        which one that says no more may end by itself."""
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(patience)
        with suppress(OSError):
            if os.name == "posix":
                os.killpg(self.child.pid, signal.SIGKILL)
            else:
                self.child.kill()
        return self.child.wait()


def _words(error: dict) -> str:
    "An error of a cell in words, with its place."
    kind, text = error["kind"], error["text"].strip()
    place = f"{error['cell']}, line {error['line']}" if error.get("cell") else ""
    if kind == "AssertionError":
        return text or f"the assert in {place} failed: {error.get('code', '')}"
    said = f"{kind}: {text}" if text else kind
    if place:
        said += f" ({place}: {error.get('code', '')})"
    if kind == "NameError":
        said += ". Is it defined in a cell whose first line is `#| graded`?"
    if kind == "SyntaxError" and error.get("code", "").startswith(("%", "!")):
        said += ". Lines with % or ! do not belong into graded cells"
    return said


def _not_done(error: dict) -> str:
    "What has no solution yet."
    cell, function = error.get("cell", ""), error.get("function", "")
    return f"{function or 'a function'} has no solution yet ({cell})"


def _names(code: str) -> tuple[set[str], set[str]]:
    "The names that a cell uses, and those that it makes."
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return set(), set()
    names = [n for n in nodes if isinstance(n, ast.Name)]
    used = {n.id for n in names if isinstance(n.ctx, ast.Load)}
    made = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
    made |= {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    return used, made


def earlier(nb: Notebook, wanted: Sequence[str]) -> set[str]:
    "The checks in front of these that make names which these use, and theirs in turn."
    order, found, open_ = list(nb.checks), set(), set()
    graded = set().union(*(_names(code)[1] for _, code in nb.cells))
    for c in reversed(order):
        used, made = _names(nb.checks[c])
        if c in wanted or made & open_:
            if c not in wanted:
                found.add(c)
            open_ = (open_ - made) | (used - made - graded)
    return found


def run(
    nb: Notebook, wanted: Sequence[str] | None = None, seconds: float = SECONDS
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Run the graded cells and then the checks: what came of each check that is wanted,
    and what is wrong with cells.

    A cell or check that takes longer than `seconds`, or ends the process, is left out,
    and the others run again without it.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds must be a positive number, not {seconds}")
    asked = list(nb.checks) if wanted is None else list(wanted)
    cells = list(nb.cells)
    for path in nb.files:
        try:
            cells.append((path.name, path.read_text(encoding="utf-8-sig")))
        except UnicodeDecodeError as e:
            raise ValueError(
                f"{path} is no text in UTF-8 ({e}); save it again"
            ) from None
    outcomes: dict[str, Outcome] = {}
    problems: dict[str, str] = {}
    broken: set[str] = set()  # checks that end the process, or never end
    while True:
        pending = [c for c in asked if c not in outcomes]
        behind = [c for c in earlier(nb, pending) if c not in broken]
        checks = [[f"check {c}", nb.checks[c]] for c in nb.checks
                  if c in pending or c in behind]  # fmt: skip
        left = [list(c) for c in cells if c[0] not in problems]
        folder = str(nb.path.resolve().parent)
        process = _Process({"folder": folder, "cells": left, "checks": checks})
        gone = False
        try:
            stopped = _follow(nb, process, seconds, pending, outcomes, problems)
            gone = stopped is not None and not stopped[1]
        finally:
            status = process.end(1.0 if gone else 0.0)
        if stopped is None:
            for c in asked:  # said to be over, and it is not
                outcomes.setdefault(c, Outcome("fails", "it was not run to its end"))
            return outcomes, problems
        name, why = stopped
        why = why or f"it ended the process (status {status})"
        if name.startswith("check "):
            broken.add(name[6:])
            if name[6:] in pending:
                outcomes[name[6:]] = Outcome("fails", why, process.taken())
        elif name:
            problems[name] = why
        else:
            raise OSError(f"the checks can't be run: {process.taken() or why}")


def waits(nb: Notebook, check: str, error: dict) -> str:
    "Does a check lack a name that an earlier check was to make?"
    m = re.match(r"name '(\w+)' is not defined", error["text"])
    if error["kind"] == "NameError" and m and error.get("cell") == f"check {check}":
        for other in list(nb.checks)[: list(nb.checks).index(check)]:
            if m[1] in _names(nb.checks[other])[1]:
                return (
                    f"it uses {m[1]!r} of the check {other}: make that one pass first"
                )
    return ""


def _follow(
    nb: Notebook,
    process: _Process,
    seconds: float,
    pending: list[str],
    outcomes: dict,
    problems: dict,
) -> tuple[str, str] | None:
    "Take what the child tells; what was under way, and why, where it did not finish."
    now, deadline = "", time.monotonic() + max(seconds, SECONDS)
    known = {c for c, _ in nb.cells} | {f"check {c}" for c in nb.checks}
    known |= {path.name for path in nb.files}
    while True:
        try:
            told = process.told.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return now, f"it took longer than {seconds:g} s. Does a loop never end?"
        if "over" in told:
            return None
        if "gone" in told:
            return now, ""
        if "begin" in told and told["begin"] not in known:
            raise OSError("a cell writes to the channel on which the checks report")
        if "begin" in told:
            now, deadline = told["begin"], time.monotonic() + seconds
            continue
        printed, error = process.taken(), told.get("error")
        if now.startswith("check "):
            if error is None:
                found = Outcome("passes", "", printed)
            elif error["kind"] == "NotImplementedError" and STUB in error["text"]:
                found = Outcome("not done", _not_done(error), printed)
            elif wait := waits(nb, now[6:], error):
                found = Outcome("not done", wait, printed)
            else:
                found = Outcome("fails", _words(error), printed)
            if now[6:] in pending:
                outcomes[now[6:]] = found
        elif error is not None:
            problems[now] = _words(error)
        now, deadline = "", time.monotonic() + seconds


# ---------------------------------------------------------------- in words


def state(q: Question, outcomes: dict[str, Outcome]) -> str:
    "The state of a question from those of its checks."
    found = [outcomes[c].state for c in q.checks if c in outcomes]
    if not found:
        return BY_PERSON if "person" in q.points else "no check"
    for word in ("fails", "not done"):
        if word in found:
            return word
    return "passes"


def list_assignments() -> Iterator[str]:
    "The lines that show all assignments."
    for a in listed():
        yield a["title"]
        yield f"    {a['about']}"
        yield f"    points: {a['points']}; time: {a['time']}"
        yield f"    {a['colab']}"
    yield ""
    yield "metalearn-book course progress              all notebooks in this folder"
    yield "metalearn-book course check MY_COPY.ipynb   all questions of one"
    yield "metalearn-book course check MY_COPY.ipynb --question 2"
    yield ""
    yield "The checks are those in the notebook. They are a help, not the grade."


def _indented(text: str) -> list[str]:
    return [f"      {line}" for line in text.splitlines()]


def check(path: str | Path, wanted: str | None, seconds: float) -> tuple[bool, str]:
    "Did all that was asked pass, and the report."
    nb = notebook(path)
    names = chosen(nb, wanted) if wanted is not None else None
    outcomes, problems = run(nb, names, seconds)
    lines = [f"{nb.named}: {nb.path}"]
    lines += [f"  note: {note}" for note in nb.notes]
    for cell, why in problems.items():
        lines.append(f"  {cell} does not run: {why}")
    for q in nb.questions:
        asked = [c for c in q.checks if c in outcomes]
        if wanted is not None and not asked:
            continue
        number = f"{q.number}." if q.number is not None else "-"
        points = f" ({q.points})" if q.points else ""
        lines.append(f"  {number:>3} {state(q, outcomes):<11} {q.title}{points}")
        for c in asked:
            o = outcomes[c]
            if o.message:
                lines += _indented(f"{c}: {o.message}")
            if o.printed and (wanted is not None or o.state == "fails"):
                lines += _indented(f"{c} printed:\n{o.printed}")
    if wanted is None:
        lines.append(f"  {_sum(nb, outcomes)}")
    return all(o.state == "passes" for o in outcomes.values()), "\n".join(lines)


def _sum(nb: Notebook, outcomes: dict[str, Outcome]) -> str:
    states = [state(q, outcomes) for q in nb.questions if q.checks]
    told = f"{states.count('passes')} of {len(states)} questions pass their visible "
    return told + "checks"


def found_in(paths: Sequence[str]) -> list[Path]:
    "The notebooks that are named, and those of the course in the folders that are."
    found = []
    for path in map(Path, paths or ["."]):
        if not path.is_dir():
            found.append(path)
            continue
        for p in sorted([*path.glob("*.ipynb"), *path.glob("*/*.ipynb")]):
            hidden = any(part[0] == "." for part in p.relative_to(path).parts)
            with suppress(ValueError, OSError):
                if not hidden:
                    notebook(p)
                    found.append(p)
    if not found:
        raise ValueError(
            f"no notebook of the course lies in {', '.join(paths or ['this folder'])}"
        )
    return found


def progress(paths: Sequence[str], seconds: float) -> Iterator[str]:
    "One line for each notebook."
    for path in found_in(paths):
        nb = notebook(path)
        outcomes, problems = run(nb, None, seconds)
        done = [q for q in nb.questions if state(q, outcomes) == "passes"]
        which = ", ".join(str(q.number or q.title) for q in done)
        told = f"{nb.named}: {_sum(nb, outcomes)}"
        told += f" ({which})" if which else ""
        told += f"; {len(problems)} cells do not run" if problems else ""
        yield f"{told}  [{path}]"
