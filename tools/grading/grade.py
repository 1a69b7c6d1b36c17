"""Grade one submission: every question in a process of its own, against the reference
solution in another child, on inputs from a secret seed."""

from __future__ import annotations

import hashlib
import importlib.util
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
from grading.student import Submission, cells_of, parts, read, submission

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


class Reference:
    "Answers of the reference solution, kept for one seed."

    def __init__(self, assignment: Assignment, protected: Protections):
        cells = cells_of(read(assignment.folder / "solution.ipynb"))
        # it serves many submissions, so only a single call is limited
        limits = {"total": math.inf, "submission": math.inf, "processor": 10**6}
        self.box = open_box(assignment, protected, seconds=60.0, **limits)
        self.cells, self.question, self.known = cells, None, {}

    def lend(self, name: str, seconds: float, arguments: list):
        "An answer to arguments that student code has made; Failed where there is none."
        try:
            return self._ask(name, arguments, seconds)
        except Failed:
            if self.question.over:
                self.question = None
            raise

    def __call__(self, name: str, arguments: list):
        asked = wire.encode([name, arguments])
        key = hashlib.sha256(asked).digest()
        if key not in self.known:
            try:
                self.known[key] = self._ask(name, arguments)
            except Failed as e:
                raise RuntimeError(f"the reference solution fails: {e}") from None
        return self.known[key]

    def _ask(self, name: str, arguments: list, seconds: float | None = None):
        if self.question is None:
            self.question = self.box.start(self.cells)
            if self.question.problems:
                raise RuntimeError(f"the solution fails: {self.question.problems}")
        return self.question.call(name, arguments, seconds)

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
    except ValueError as e:
        student = Submission([])
        result.warnings.append(f"not read: {e}")
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
    "The mark of a question, at the second attempt with borrowed earlier functions."
    mark = Mark(question.name, question.title, 0.0, question.points, "")
    problem, mark.printed = _try(
        question, seed, box, student, reference, full, result, lend={}
    )
    if problem and question.needs:
        seconds = box.limits.seconds
        lend = {name: partial(reference.lend, name, seconds) for name in question.needs}
        again, _ = _try(question, seed, box, student, reference, full, result, lend)
        if not again:
            mark.points = question.points
            mark.message = (
                f"right, once correct versions of {', '.join(question.needs)} were put "
                f"in place of yours. With yours: {problem}"
            )
            return mark
    mark.message = problem or "right"
    if problem:
        mark.message += f". Read again: {question.hint}" if question.hint else ""
    else:
        mark.points = question.points
    return mark


def _try(question, seed, box, student, reference, full, result, lend):
    "What is wrong with an answer, and what was printed."
    process, problem = None, ""
    try:
        process = box.start(student.cells, student.files, lend)
        # a cell that never ended need not be tried again for the next question
        left_out = {c for c, why in process.problems.items() if "left out" in why}
        student.cells[:] = [c for c in student.cells if c[0] not in left_out]
        result.cells.update(process.problems)
        process.problems.update(result.cells)
        ask = q.Ask(process.call, reference, full)
        question.test(ask, np.random.default_rng(seed))
        if not ask.calls:
            raise RuntimeError(f"the hidden test of {question.name} calls nothing")
    except (Failed, q.Wrong) as e:
        problem = str(e)
    except RuntimeError:
        raise  # of the assignment itself
    except Exception as e:  # an answer of a form that the test did not expect
        problem = f"the answer has a form that can't be judged ({e!r:.200})"
    finally:
        printed = box.printed[:1000].decode(errors="replace")
        if process is not None:
            process.end()
    return problem or "", printed


def digest(assignment: Assignment, path: Path) -> str:
    "Of everything that a grade depends on: it is out of date when one of them changes."
    found = hashlib.sha256()
    here = Path(__file__).resolve().parent
    paths = [assignment.hidden, assignment.folder / "solution.ipynb"]
    paths += sorted(here.glob("*.py"))
    paths += parts(path)
    for p in paths:
        found.update(p.name.encode() + b"\0" + p.read_bytes() + b"\0")
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
