"""What an argument may be: each answer and each refusal, by value."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from metalearn_book.data.arguments import (
    choice,
    floating,
    function,
    low_high,
    real,
    several,
    shapes,
    switch,
    whole,
)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers(value):
    got = whole("n", value)
    assert got == 3 and type(got) is int


@pytest.mark.parametrize(
    "value",
    [2.0, "3", None, True, np.True_, torch.tensor(True), [3], math.nan, 1j, b"3",
     torch.tensor([3, 4]), torch.tensor(2.0), np.float32(3), {}, object()],
)  # fmt: skip
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="n must be a whole number, got"):
        whole("n", value)


def test_bounds_of_whole_numbers():
    assert whole("n", -5, least=None) == -5 and whole("n", 4, 1, 4) == 4
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        whole("n", 0)
    with pytest.raises(ValueError, match="n must be at most 4, got 5"):
        whole("n", 5, 1, 4)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5)]
)
def test_real_numbers(value):
    got = real("rate", value, 0, 1)
    assert got == 0.5 and type(got) is float
    assert real("rate", 2) == 2.0


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, "0.1", None, True, np.False_, [0.1], 1j, b"x",
     torch.tensor([0.1, 0.2]), torch.tensor(math.nan), torch.tensor(True),
     torch.empty((), device="meta"), np.zeros(2), 10**400, object()],
)  # fmt: skip
def test_what_is_no_real_number(value):
    with pytest.raises(ValueError, match="rate must be a finite number, got"):
        real("rate", value)


def test_bounds_of_real_numbers():
    assert real("rate", 0, least=0) == 0 and real("rate", 1, most=1) == 1
    for bounds, value, words in [
        ({"least": 0}, -1e-9, "at least 0"),
        ({"above": 0}, 0, "above 0"),
        ({"above": 0, "below": 1}, 1, "above 0 and below 1"),
        ({"least": 0, "most": 1}, 2, "at least 0 and at most 1"),
    ]:
        with pytest.raises(ValueError, match=f"a finite number {words}, got"):
            real("rate", value, **bounds)


def test_choices_and_switches():
    assert choice("order", "first", ("first", "second")) == "first"
    assert choice("order", 1, (1, 2)) == 1
    for odd in ("FIRST", "", None, ["first"], b"first", torch.zeros(2)):
        with pytest.raises(ValueError, match="order must be one of 'first', 'second'"):
            choice("order", odd, ("first", "second"))
    with pytest.raises(ValueError, match="must be one of 1, 2"):
        choice("order", True, (1, 2))
    assert switch("on", np.True_) is True and switch("on", False) is False
    for odd in (1, 0, "False", None, torch.tensor(True)):
        with pytest.raises(ValueError, match="on must be True or False, got"):
            switch("on", odd)


def test_functions_and_lists():
    assert function("fn", print) is print
    with pytest.raises(ValueError, match="fn must be a function, got 'print'"):
        function("fn", "print")
    assert several("texts", ("a", "b"), str) == ["a", "b"]
    assert several("texts", iter("ab"), str) == ["a", "b"]
    assert several("texts", np.array(["a"]), str) == ["a"]
    assert several("texts", [], least=0) == []
    for odd in ("ab", b"ab", {"a": 1}, 3, None, torch.tensor(3)):
        with pytest.raises(ValueError, match="texts must be a list, got"):
            several("texts", odd)
    with pytest.raises(ValueError, match="texts must hold at least 1, got 0"):
        several("texts", [])
    with pytest.raises(ValueError, match=r"texts\[1\] must be str, got int 3"):
        several("texts", ["a", 3], str)


def test_shapes_that_fit():
    logits, y = torch.zeros(2, 6, 3), torch.zeros(2, 6)
    both = shapes(logits=(logits, "B S C"), y=(y, "B S"), mask=(None, "B S"))
    assert both == {"B": 2, "S": 6, "C": 3}
    assert shapes(x=(logits, "B ...")) == {"B": 2}
    assert shapes(x=(y, "B 6")) == {"B": 2}


def test_shapes_that_do_not():
    logits = torch.zeros(2, 6, 3)
    for odd, words in [
        (torch.zeros(2, 5), r"y must have the shape \(B S\), got \(2, 5\), while logits"
         " has S = 6"),
        (torch.zeros(6), r"y must have the shape \(B S\), got \(6,\)"),
        ([[1.0]], r"y must be a tensor \(B S\), got \[\[1.0\]\]"),
        (torch.zeros(2, 6, device="meta"), "on one device, got logits on cpu and y on"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            shapes(logits=(logits, "B S C"), y=(odd, "B S"))
    with pytest.raises(ValueError, match=r"\(B S\+\), got \(2, 0\) and S = 0"):
        shapes(y=(torch.zeros(2, 0), "B S+"))
    with pytest.raises(ValueError, match=r"x must have the shape \(B 2\), got \(1, 3"):
        shapes(x=(torch.zeros(1, 3), "B 2"))


def test_floating_point():
    floating(x=torch.zeros(2), y=None)
    floating(finite=True, x=torch.zeros(2, device="meta"))
    for odd in (torch.zeros(2).long(), torch.zeros(2).to(torch.complex64), [0.5]):
        with pytest.raises(ValueError, match="x must hold floating-point numbers"):
            floating(x=odd)
    with pytest.raises(ValueError, match="x must hold finite numbers, got 1 of 2"):
        floating(finite=True, x=torch.tensor([math.nan, 1]))


def test_it_needs_no_torch():
    code = (
        "import sys; from metalearn_book.data.arguments import whole; whole('n', 3); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rate_that_is_learned_is_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert real("rate", torch.tensor(0.5, requires_grad=True), above=0) == 0.5


def test_ranges():
    assert low_high("amplitude", [1, np.float32(2.5)]) == (1.0, 2.5)
    assert low_high("share", (0, 0), 0, 1) == (0.0, 0.0)
    for wrong, words in (
        ((2, 1), "low <= high"),
        ((1,), "at least 2"),
        ((1, 2, 3), r"must be \(low, high\), got"),
        ((0, math.nan), r"amplitude\[1\] must be a finite number"),
        ("12", "must be a list"),
        (3.0, "must be a list"),
    ):
        with pytest.raises(ValueError, match=words):
            low_high("amplitude", wrong)
