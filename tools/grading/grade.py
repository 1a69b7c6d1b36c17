"""Grade one submission: every question in a process of its own, against the reference
solution in another child, on inputs from a secret seed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import secrets
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from grading import questions as q
from grading import wire
from grading.box import MB, PRIVATE, Box, Failed, Limits, Protections
from grading.student import (
    MOST_FILES,
    Submission,
    cells_of,
    content,
    parts,
    read,
    submission,
)

NUMPY = Limits()
TORCH = Limits(memory=8192 * MB, resident=3072 * MB)


@dataclass(frozen=True)
class Assignment:
    "What the grader knows of an assignment."

    name: str
    folder: Path
    questions: list[q.Question]
    preload: tuple[str, ...]
    tensors: bool
    hidden: Path

    @property
    def limits(self) -> Limits:
        return TORCH if "torch" in self.preload else NUMPY

    @property
    def points(self) -> float:
        return sum(question.points for question in self.questions)


def load(folder: Path) -> Assignment:
    "An assignment with its hidden tests: the private ones where there are some."
    hidden = folder / "hidden.py"
    if private := os.environ.get(PRIVATE):
        hidden = Path(private) / folder.name / "hidden.py"
        if not hidden.exists():
            raise FileNotFoundError(
                f"{PRIVATE}={private} has no {folder.name}/hidden.py; copy it from "
                f"{folder / 'hidden.py'} and change it, or unset {PRIVATE}"
            )
    spec = importlib.util.spec_from_file_location(f"hidden_{folder.name}", hidden)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    found = [v for v in vars(module).values() if isinstance(v, q.Question)]
    names = [question.name for question in found]
    if not found or len(set(names)) < len(names):
        raise ValueError(f"{hidden} has no questions, or two of one name: {names}")
    preload = tuple(getattr(module, "PRELOAD", ("numpy",)))
    tensors = bool(getattr(module, "TENSORS", False))
    return Assignment(folder.name, folder, found, preload, tensors, hidden)


class Unfit(RuntimeError):
    "The assignment itself fails, or the machine: nobody is to be graded by that."


@dataclass
class Mark:
    "What one question got."

    name: str
    title: str
    points: float
    of: float
    message: str
    printed: str = ""


@dataclass
class Result:
    assignment: str
    marks: list[Mark]
    warnings: list[str] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)  # cell -> what went wrong
    seconds: float = 0.0
    seed: int = 0
    slow: set[str] = field(default_factory=set)  # functions that met a limit of time

    @property
    def points(self) -> float:
        return sum(m.points for m in self.marks)

    @property
    def of(self) -> float:
        return sum(m.of for m in self.marks)


def open_box(assignment: Assignment, protected: Protections, **changed) -> Box:
    "A box for one submission of an assignment; it opens when it is first used."
    limits = replace(assignment.limits, **changed)
    return Box(limits, protected, assignment.preload, assignment.tensors)


ATTEMPTS = 2  # of the reference: a failure may be the machine's


class Reference:
    """Answers of the reference solution, kept for one seed. It serves many submissions,
    so every call has limits of its own, and a process that failed is replaced."""

    def __init__(self, assignment: Assignment, protected: Protections):
        cells = cells_of(read(assignment.folder / "solution.ipynb"))
        limits = {"total": math.inf, "submission": math.inf, "processor": 10**6}
        limits |= {"seconds": 60.0, "patience": 20.0}
        self.box = open_box(assignment, protected, **limits)
        self.cells, self.question, self.known = cells, None, {}

    def lend(
        self, name: str, seconds: float, arguments: list, named: dict | None = None
    ):
        "An answer to arguments that student code has made; Failed where there is none."
        return self._ask(name, arguments, seconds, named)

    def __call__(self, name: str, arguments: list):
        asked = wire.encode([name, arguments])
        key = hashlib.sha256(asked).digest()
        if key not in self.known:
            try:
                self.known[key] = self._ask(name, arguments)
            except Failed as e:
                raise Unfit(f"the reference solution fails: {e}") from None
        return self.known[key]

    def _ask(self, name, arguments, seconds=None, named=None):
        for attempt in range(ATTEMPTS):
            question = self._ready()
            try:
                return question.call(name, arguments, seconds, named)
            except Failed as e:
                theirs = seconds is not None and e.slow  # arguments that never end
                if not question.over or theirs or attempt + 1 == ATTEMPTS:
                    raise

    def _ready(self):
        "A process with the solution, which is still there."
        for attempt in range(ATTEMPTS):
            if self.question is not None and not self.question.over:
                break
            try:
                self.question = self.box.start(self.cells)
            except Failed as e:
                if attempt + 1 == ATTEMPTS:
                    raise Unfit(f"the solution can't be loaded: {e}") from None
                continue
            if problems := self.question.problems:
                self.question = None
                self.box.close()
                if attempt + 1 == ATTEMPTS:
                    raise Unfit(f"the solution fails: {problems}")
        return self.question

    def close(self) -> None:
        self.box.close()


def grade(
    assignment: Assignment,
    path: Path,
    protected: Protections,
    seed: int | None = None,
    full: bool = True,
    limits: dict | None = None,  # what differs from the assignment's own limits
    reference: Reference | None = None,
    box: Box | None = None,  # one that is open already, for code that is trusted
) -> Result:
    "The marks of a submission; what can't be read gets 0 with the reason."
    started = time.monotonic()
    seed = secrets.randbits(63) if seed is None else seed
    result = Result(assignment.name, [], list(protected.missing), seed=seed)
    try:
        student = submission(path)
    except (ValueError, OSError) as e:
        student = Submission([])
        result.warnings.append(f"not read: {str(e)[:300]}")
    own, given = reference or Reference(assignment, protected), box
    box = box or open_box(assignment, protected, **(limits or {}))
    try:
        for number, question in enumerate(assignment.questions):
            own_seed = [seed, number]
            mark = _one(question, own_seed, box, student, own, full, result)
            result.marks.append(mark)
    finally:
        if given is None:
            box.close()
        if reference is None:
            own.close()
    result.seconds = time.monotonic() - started
    return result


def _one(question, seed, box, student, reference, full, result) -> Mark:
    """The mark of a question; where it is wrong, after another attempt with borrowed
    earlier functions. These come first where a function of the student's met a limit of
    time before: to wait for it once more would tell nothing."""
    mark = Mark(question.name, question.title, 0.0, question.points, "")
    seconds = box.limits.seconds
    lent = {name: partial(reference.lend, name, seconds) for name in question.needs}
    slow = sorted(result.slow) if lent else []
    attempts = [lent, {}] if slow else [{}, lent] if lent else [{}]
    problem = f"{', '.join(slow)} took too long in an earlier question" if slow else ""
    for lend in attempts:
        wrong, printed, took_long = _try(
            question, seed, box, student, reference, full, result, lend
        )
        mark.printed = mark.printed or printed
        if not wrong:
            mark.points, mark.message = question.points, "right"
            if lend:
                mark.message = (
                    f"right, once correct versions of {', '.join(question.needs)} were "
                    f"put in place of yours. With yours: {problem}"
                )
            return mark
        if not lend or (slow and took_long):
            problem = wrong
        if slow and took_long:
            break
    mark.message = problem
    mark.message += f". Read again: {question.hint}" if question.hint else ""
    return mark


def _try(question, seed, box, student, reference, full, result, lend):
    "What is wrong with an answer, what was printed, and whether it took too long."
    process, problem, slow = None, "", False
    try:
        process = box.start(student.cells, student.files, lend)
        # a cell that never ended need not be tried again for the next question
        student.cells[:] = [c for c in student.cells if c[0] not in process.left_out]
        result.cells.update(process.problems)
        process.problems.update(result.cells)
        ask = q.Ask(process.call, reference, full)
        question.test(ask, np.random.default_rng(seed))
        if not ask.calls:
            raise Unfit(f"the hidden test of {question.name} calls nothing")
    except (Failed, q.Wrong) as e:
        problem = str(e)[:2000]
        if slow := bool(getattr(e, "slow", "")):
            result.slow.add(e.slow)
    except RuntimeError:
        raise  # of the assignment itself
    except Exception as e:  # an answer of a form that the test did not expect
        told = str(e)[:100] if isinstance(e, (TypeError, ValueError)) else ""
        problem = f"the answer has a form that can't be judged ({type(e).__name__}"
        problem += f": {told})" if told else ")"
    finally:
        printed = box.printed[:1000].decode(errors="replace")
        if process is not None:
            process.end()
    return problem, printed, slow


def digest(
    assignment: Assignment, path: Path, full: bool, protected: Protections
) -> str:
    "Of everything that a grade depends on: it is out of date when one of them changes."
    found = hashlib.sha256()
    here = Path(__file__).resolve().parent
    paths = [assignment.hidden, assignment.folder / "solution.ipynb"]
    files = {p.name.encode(): p.read_bytes() for p in paths + sorted(here.glob("*.py"))}
    has = [full, protected.bubblewrap, protected.filter, protected.own_user]
    files[b"scale and protections"] = json.dumps(has).encode()
    for p in parts(path)[: MOST_FILES + 1]:
        name = b"submission/" + os.fsencode(p.name)
        try:
            files[name] = content(p)
        except (ValueError, OSError) as e:  # it is graded as what can't be read
            files[name] = type(e).__name__.encode()
    for name, text in files.items():
        found.update(f"{len(name)} {len(text)} ".encode() + name + text)
    return found.hexdigest()[:20]


def visible_checks(path: Path, box: Box) -> tuple[list[str], dict[str, str]]:
    "All cells with visible asserts of a notebook, and those that fail."
    cells = cells_of(read(path), ("graded", "check"))
    question = box.start(cells)
    question.end()
    names = [name for name, _ in cells if name.startswith("check ")]
    return names, question.problems


if __name__ == "__main__":
    sys.exit("this is a part of tools/assign.py")
