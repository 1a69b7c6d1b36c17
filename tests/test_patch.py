"""A class that grows by `@patch` is the class written in one piece."""

from __future__ import annotations

import functools
import inspect

import pytest
from metalearn_book.book.patch import patch


class Line:
    "y = slope · x."

    def __init__(self, slope: float):
        self.slope = slope


@patch
def at(self: Line, x: float) -> float:
    "The height at x."
    return self.slope * x


@patch
@property
def rises(self: Line) -> bool:
    "Does it go up?"
    return self.slope > 0


@patch
@classmethod
def flat(cls: Line) -> "Line":
    "The line without a slope."
    return cls(0.0)


def _logged(f):
    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        return "called", f(*args, **kwargs)

    return wrapper


@patch
@_logged
def twice(self: Line, x: float) -> float:
    "The height at 2x."
    return self.at(2 * x)


def test_below_a_decorator_that_wraps():
    assert Line(2.0).twice(3.0) == ("called", 12.0)
    assert Line.twice.__wrapped__.__qualname__ == "Line.twice"


def test_methods_properties_and_class_methods():
    line = Line(2.0)
    assert line.at(3.0) == 6.0 and line.rises and Line.flat().slope == 0.0
    assert (
        Line.at.__qualname__ == "Line.at"
        and inspect.getdoc(Line.at) == "The height at x."
    )
    assert list(inspect.signature(line.at).parameters) == ["x"]


def test_without_a_class():
    with pytest.raises(
        TypeError, match="annotate the first parameter of 'f'.*got None"
    ):
        patch(_plain())
    with pytest.raises(TypeError, match="got 'Nothing'"):

        @patch
        def g(self: Nothing):  # noqa: F821
            return self


def _plain():
    def f(self):
        return self

    return f


def test_names_outside_of_the_class_keep_their_value():
    @patch
    def sum(self: Line) -> float:
        return self.slope

    assert sum is __builtins__["sum"] and Line(3.0).sum() == 3.0
    assert at is None, "a name that had no value"
