"""The live figure: without ipywidgets, and with two of its versions' calls."""

import math
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from metalearn_book.book import live as room
from metalearn_book.book.live import Value, live


def test_without_widgets_it_draws_once_and_shows_nothing(monkeypatch):
    monkeypatch.setattr(room, "_widgets", lambda: None)
    kept, calls = plt.figure(), []

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))

    def draw(rate, steps, kind):
        plt.figure()
        plt.show()
        calls.append((rate, steps, kind))

    assert (
        live(draw, rate=Value(0.1, 0.0, 1.0), steps=Value(3, 1, 9), kind=("a", "b"))
        is None
    )
    assert calls == [(0.1, 3, "a")] and not shown
    plt.show()
    assert len(shown) == 1  # it is put back
    assert plt.get_fignums() == [kept.number]
    plt.close(kept)


def test_a_figure_that_fails_is_heard_and_closed(monkeypatch):
    monkeypatch.setattr(room, "_widgets", lambda: None)

    def draw(k):
        plt.figure()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        live(draw, k=Value(1, 0, 2))
    assert not plt.get_fignums()


def test_outside_of_a_kernel_there_are_no_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert room._widgets() is None


def control(kind):
    return lambda **options: SimpleNamespace(kind=kind, **options)


def test_each_value_gets_its_control(monkeypatch):
    made = {}
    kinds = ("IntSlider", "FloatSlider", "FloatLogSlider", "Dropdown")
    widgets = SimpleNamespace(
        interact=lambda draw, **controls: made.update(controls),
        **{kind: control(kind) for kind in kinds},
    )
    monkeypatch.setattr(room, "_widgets", lambda: widgets)
    live(
        lambda **values: None,
        inner_steps=Value(3, 1, 9),
        rate=Value(0.1, 0.0, 2.0),
        lam=Value(1.0, 0.01, 100.0, log=True),
        kind=("ridge", "prototypes"),
    )
    assert [made[n].kind for n in made] == list(kinds)
    assert made["inner_steps"].description == "inner steps"
    assert (made["inner_steps"].min, made["inner_steps"].max) == (1, 9)
    assert made["rate"].step == 0.02 and not made["rate"].continuous_update
    assert (made["lam"].min, made["lam"].max) == (-2, 2)
    assert made["kind"].value == "ridge"


def test_with_the_library():
    widgets = pytest.importorskip("ipywidgets")
    slider = room._control(widgets, "inner_lr", Value(0.1, 0.0, 1.0))
    assert slider.value == 0.1 and slider.max == 1.0
    log = room._control(widgets, "lam", Value(1.0, 0.01, 100.0, log=True))
    assert math.isclose(log.value, 1.0)
    assert room._control(widgets, "k", Value(2, 1, 5)).value == 2
    assert room._control(widgets, "kind", ("a", "b")).value == "a"


def test_bad_values():
    for arguments, words in [
        ((3, 5, 9), "start must be at least 5, got 3"),
        ((1, 4, 1), "start must be at least 4, got 1"),
        ((1, 1, 1), "low must be below high, got 1 and 1"),
        ((0.5, 0.0, 1.0, True), "low must be above 0 for log=True, got 0"),
        ((math.nan, 0.0, 1.0), "start must be a finite number"),
        (("1", 0.0, 1.0), "start must be a finite number"),
        ((np.float64(2.0), 0.0, 1.0), "at most 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            Value(*arguments)
    for odd in (3, [1, 2], (), None, "a"):
        with pytest.raises(ValueError, match="k must be Value"):
            live(print, k=odd)
    with pytest.raises(ValueError, match="draw must be a function, got 3"):
        live(3)
    with pytest.raises(ValueError, match="draw must take k, got .*missing a required"):
        live(lambda k, steps: None, k=(1, 2))
