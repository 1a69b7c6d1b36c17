"Claims: a false sentence fails the run, a true one is shown with its numbers."

import numpy as np
import pytest
import torch

from metalearn_book.book.claims import FalseClaim, claim
from metalearn_book.book.display import Interval, format_value, show_table, show_text


class Difference(Interval):
    is_difference = True


def test_a_true_claim_is_shown(monkeypatch):
    monkeypatch.setenv("METALEARN_SCALE", "book")
    shown = claim("A leads by {lead:%}", True, lead=Interval(0.051, 0.012))
    assert str(shown) == "A leads by 5.1 ± 1.2 %"
    assert shown.data["text/markdown"] == str(shown)


@pytest.mark.parametrize("no", [False, np.bool_(False), torch.tensor(False)])
def test_a_false_claim_fails_the_run(monkeypatch, no):
    monkeypatch.setenv("METALEARN_SCALE", "book")
    with pytest.raises(FalseClaim, match="not true of its own numbers: A leads"):
        claim("A leads", no)
    with pytest.raises(AssertionError):
        claim("A leads", no)


def test_short_runs_show_nothing_so_nothing_is_claimed(monkeypatch):
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    assert "Not checked at scale smoke" in str(claim("A leads", False))
    with pytest.raises(FalseClaim):
        claim("one plus one is three", 1 + 1 == 3, scale="smoke")


@pytest.mark.parametrize("what", [0.3, None, "yes", torch.ones(2) > 0, lambda: True])
def test_what_is_no_truth_value_is_refused(monkeypatch, what):
    monkeypatch.setenv("METALEARN_SCALE", "book")
    with pytest.raises(ValueError, match="needs True or False"):
        claim("A leads", what)


def test_a_claim_about_nan_is_refused(monkeypatch):
    monkeypatch.setenv("METALEARN_SCALE", "book")
    with pytest.raises(ValueError, match="quotes a, which is not a number"):
        claim("A is {a}", True, a=float("nan"))


def test_differences_of_shares_are_points():
    gain = Difference(0.051, 0.012)
    assert str(show_text("{g:%}", g=gain)) == "5.1 ± 1.2 points"
    assert str(show_text("{g:.1%}", g=gain)) == "5.1 ± 1.2 points"
    assert format_value(gain, percent=True) == "5.1 ± 1.2"
    rows = [
        {"a": Interval(0.9, 0.01), "a minus b": gain},
        {"a": 0.2, "a minus b": None},
    ]
    head = str(show_table(rows, percent=["a", "a minus b"])).splitlines()[0]
    assert "a (%)" in head and "a minus b (points)" in head
