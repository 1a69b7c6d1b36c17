"""A figure that computes again with a reader's own values: for readers with a kernel,
beside the figures that move without one (`figures.slider_figure`)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..data.arguments import function, real, shown, whole

__all__ = ["Value", "live"]


@dataclass(frozen=True)
class Value:
    """What a reader sets: a number between two bounds.

    start: the value at first. low, high: its bounds; both whole numbers, as `start`
    is, for a whole number. log: the slider moves by factors; low must be above 0.
    ValueError for bounds or a start that don't fit."""

    start: float
    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        check = whole if self.is_whole else real
        low = check("low", self.low, least=None)
        high = check("high", self.high, least=None)
        check("start", self.start, low, high)
        if low >= high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        if self.log and low <= 0:
            raise ValueError(f"low must be above 0 for log=True, got {low}")

    @property
    def is_whole(self) -> bool:
        "Is it a whole number?"
        return all(type(v) is int for v in (self.start, self.low, self.high))


def live(draw: Callable, **values: Value | tuple) -> None:
    """Show what `draw` plots, with a slider or a list for each of its arguments.

    draw: plots with matplotlib, and is called with the values by name whenever the
    reader sets one. values: `name=Value(start, low, high)`, or a tuple of choices, the
    first of which is taken at first; `_` in a name is shown as a space.

    It needs ipywidgets (7.7 or later) in a notebook with a kernel. Elsewhere `draw` is
    called once with the first values, so that it is tested, and nothing is shown."""
    function("draw", draw)
    first = {}
    for name, value in values.items():
        if isinstance(value, tuple) and value:
            first[name] = value[0]
        elif isinstance(value, Value):
            first[name] = value.start
        else:
            raise ValueError(
                f"{name} must be Value(start, low, high) or a tuple of choices, got "
                f"{shown(value)}"
            )
    try:
        inspect.signature(draw).bind(**first)
    except TypeError as e:
        names = ", ".join(first)
        raise ValueError(f"draw must take {names}, got {shown(draw)}: {e}") from None
    if widgets := _widgets():
        controls = {n: _control(widgets, n, v) for n, v in values.items()}
        widgets.interact(draw, **controls)
        return
    import matplotlib.pyplot as plt

    open_before, show = set(plt.get_fignums()), plt.show
    try:
        plt.show = lambda *_, **__: None  # a notebook would keep the picture
        draw(**first)
    finally:
        plt.show = show
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)


def _widgets():
    "ipywidgets, if it is installed and somebody may move its sliders; or None."
    try:
        import ipywidgets
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return ipywidgets if shell is not None and hasattr(shell, "kernel") else None


def _control(widgets, name: str, value: Value | tuple):
    "The control of one value. It computes when it is let go, not on the way."
    shared = {
        "description": name.replace("_", " "),
        "continuous_update": False,
        "style": {"description_width": "initial"},
    }
    if isinstance(value, tuple):
        shared.pop("continuous_update")
        return widgets.Dropdown(options=list(value), value=value[0], **shared)
    if value.log:
        return widgets.FloatLogSlider(
            value=value.start,
            min=math.log10(value.low),
            max=math.log10(value.high),
            readout_format=".2g",
            **shared,
        )
    bounds = {"value": value.start, "min": value.low, "max": value.high}
    if value.is_whole:
        return widgets.IntSlider(**bounds, **shared)
    step = (value.high - value.low) / 100
    return widgets.FloatSlider(**bounds, step=step, readout_format=".3g", **shared)
