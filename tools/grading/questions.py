"""How hidden tests are written. They run in the grader, never beside student code.

    from grading import questions as q

    @q.question("inner_step", points=1, hint="Section 2, Eq. (A2-3)")
    def inner_step(ask, rng):
        for _ in range(ask.draws(smoke=2, full=6)):
            ask.same("inner_step", draw_weights(rng), rng.normal(size=(5, 3)), 0.1)

`ask.same` calls the student's function and the reference solution, each in its own
child, and compares; `ask(...)` calls the student's alone, for answers that have no
single right value. `rng` is drawn from a secret seed, new for every grading.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

NUMBERS = "biuf"
MOST_NUMBERS = 1 << 20  # in an answer
FEW = 8  # entries that a message shows


class Wrong(Exception):
    "The answer is not right; the text says what was expected and what came."


@dataclass(frozen=True)
class Question:
    name: str
    points: float
    test: Callable
    title: str = ""
    hint: str = ""  # the section to read again
    needs: tuple[str, ...] = ()  # functions of earlier questions that answers may call
    functions: tuple[str, ...] = ()  # what it asks for, where that is not its own name


def question(
    name: str,
    points: float,
    title: str = "",
    hint: str = "",
    needs: tuple[str, ...] = (),
    functions: tuple[str, ...] = (),
) -> Callable:
    """Make a hidden test of a function `test(ask, rng)`; it raises `Wrong`, or passes.

    needs: where the answer is wrong, it is tried once more with the reference's answers
    in place of the student's functions of these names, so that a fault in an earlier
    question costs nothing here. functions: what the test calls, where that is not one
    function of the question's name.
    """
    return lambda test: Question(
        name,
        float(points),
        test,
        title or name,
        hint,
        tuple(needs),
        tuple(functions) or (name,),
    )


def require(true, message: str) -> None:
    "Wrong, with this message, unless `true`."
    if not true:
        raise Wrong(message)


def short(value, most: int = 160) -> str:
    """A value as a reader of the report sees it. It looks at a few entries only: an
    answer may be of any size."""
    text = _shown(value, most)
    return text if len(text) <= most else text[:most] + "..."


def _shown(value, most: int, depth: int = 0) -> str:
    if isinstance(value, np.ndarray):
        few = np.array2string(value.flat[:5], precision=5, separator=", ")
        more = f"{few[:-1]}, ...]" if value.size > 5 else few
        text = f"{value.item():.6g}" if value.ndim == 0 else ""
        return text or f"array of shape {value.shape}: {more}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, str):
        return repr(value[:most])
    if isinstance(value, (list, tuple, dict)):
        if depth > 2:
            return "..."
        few = [_shown(v, 40, depth + 1) for v in islice(value, FEW)]
        if isinstance(value, dict):
            entries = islice(value.values(), FEW)
            few = [f"{k}: {_shown(v, 40, depth + 1)}" for k, v in zip(few, entries)]
        text = ", ".join(few) + (", ..." if len(value) > FEW else "")
        return f"{{{text}}}" if isinstance(value, dict) else f"[{text}]"
    return str(value)[:most]


def _all_numbers(value) -> bool:
    """Is an answer made of numbers and lists of them? Before NumPy sees it, which would
    make texts as long as the longest of them."""
    left, n = [value], 0
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, np.ndarray):
            if value.dtype.kind not in NUMBERS:
                return False
            n += value.size
        elif not isinstance(value, (bool, int, float, np.number, np.bool_)):
            return False
        if n > MOST_NUMBERS:
            raise Wrong(f"the answer holds more than {MOST_NUMBERS} numbers")
    return True


def numbers(
    value,
    what: str = "the answer",
    shape: tuple | None = None,  # None in it stands for any length
    whole: bool = False,
) -> np.ndarray:
    """The answer as an array of numbers, int64 or float64, whatever it came as; Wrong
    for anything else, for another shape, and for what is not finite."""
    try:
        found = np.asarray(value if _all_numbers(value) else None)
    except (ValueError, TypeError, OverflowError):
        found = np.asarray(None, dtype=object)
    if found.dtype.kind not in NUMBERS:
        raise Wrong(f"{what} must be numbers, got {short(value)}")
    if shape is not None and (
        found.ndim != len(shape)
        or any(n is not None and n != m for n, m in zip(shape, found.shape))
    ):
        wanted = str(tuple("any" if n is None else n for n in shape))
        raise Wrong(f"{what} must have shape {wanted}, got {found.shape}")
    if not np.isfinite(found).all():
        raise Wrong(f"{what} holds a number that is not finite (NaN or infinite)")
    if whole:
        if (found != np.round(found)).any() or (np.abs(found) > 2**53).any():
            raise Wrong(f"{what} must be whole numbers, got {short(found)}")
        return found.astype(np.int64)
    return found.astype(np.float64)


def compare(got, want, rtol: float, atol: float, what: str = "the answer") -> None:
    """Wrong unless `got` is `want`. Numbers may come as any type or as lists; an array
    may differ by `atol`, and by `rtol` of its largest entry."""
    if isinstance(want, (np.ndarray, np.generic, float, int)):  # bool is an int
        want = np.asarray(want)
        found = numbers(got, what, want.shape)
        scale = float(np.abs(want).max()) if want.size else 0.0
        difference = float(np.abs(found - want).max()) if want.size else 0.0
        if not difference <= atol + rtol * scale:
            raise Wrong(
                f"{what}: expected {short(want)}, got {short(found)}; the largest "
                f"difference is {difference:.3g}, allowed is {atol + rtol * scale:.3g}"
            )
    elif isinstance(want, dict):
        keys = sorted(want)
        if not isinstance(got, dict) or sorted(got) != keys:
            has = sorted(got) if isinstance(got, dict) else type(got).__name__
            raise Wrong(f"{what} must be a dict with keys {keys}, got {short(has)}")
        for key in keys:
            compare(got[key], want[key], rtol, atol, f"{what}[{key!r}]")
    elif isinstance(want, list):
        if isinstance(got, np.ndarray) and got.ndim and len(got) == len(want):
            got = list(got)
        if not isinstance(got, list) or len(got) != len(want):
            has = len(got) if isinstance(got, list) else type(got).__name__
            raise Wrong(f"{what} must be a list of {len(want)}, got {has}")
        for i, pair in enumerate(zip(got, want)):
            compare(*pair, rtol, atol, f"{what}[{i}]")
    elif type(got) is not type(want) or got != want:
        raise Wrong(f"{what}: expected {short(want)}, got {short(got)}")


class Ask:
    "Calls of the student's functions and of the reference's, for one question."

    def __init__(self, student: Callable, reference: Callable, full: bool):
        self._student, self._reference, self.full = student, reference, full
        self.calls = 0

    def draws(self, smoke: int, full: int) -> int:
        return full if self.full else smoke

    def __call__(self, name: str, *arguments):
        "The student's answer: plain objects and arrays, of whatever form."
        self.calls += 1
        return self._student(name, list(arguments))

    def reference(self, name: str, *arguments):
        return self._reference(name, list(arguments))

    def same(
        self, name: str, *arguments, rtol: float = 2e-4, atol: float = 1e-6
    ) -> None:
        "Wrong unless student and reference give the same answer."
        want = self.reference(name, *arguments)
        compare(self(name, *arguments), want, rtol, atol, f"{name}(...)")

    def refuses(self, name: str, *arguments, error: str = "ValueError") -> None:
        "Wrong unless the student's function raises this error."
        from grading.box import Failed

        try:
            answer = self(name, *arguments)
        except Failed as e:
            if error in e.kinds:  # or a subclass of it
                return
            raise Wrong(f"expected {error}; {e}") from None
        raise Wrong(f"{name}(...) should raise {error}, it returned {short(answer)}")


def interval(hits: int, n: int, p: float, sigmas: float = 6.0) -> bool:
    """Is a count of `hits` in `n` draws what probability `p` gives, to within this many
    standard deviations? Six let a right answer fail once in 500 million."""
    return abs(hits - n * p) <= sigmas * math.sqrt(n * p * (1 - p)) + 1
