"""The look of the book's figures, and an interactive figure that needs no kernel, no
network and no library."""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.arguments import several, whole
from .display import Displayable

__all__ = [
    "OKABE",
    "LINE_STYLES",
    "MARKERS",
    "book_style",
    "Slider",
    "Axis",
    "Line",
    "Dots",
    "slider_figure",
]

#: Colours by Okabe and Ito, which colour-blind readers tell apart, ordered so that
#: neighbours differ in lightness too.
OKABE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
#: One line style and one marker for each colour: a figure stays readable in grey.
LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3))]
#: One marker for each colour.
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def book_style() -> None:
    """Set matplotlib's defaults to the look of the book: call it once, after the
    imports.

    Lines cycle through colours and line styles together. For points use
    `marker=MARKERS[k]` next to `color=OKABE[k]`.
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.prop_cycle": cycler(color=OKABE) + cycler(linestyle=LINE_STYLES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "font.size": 10,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "legend.handlelength": 2.8,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "errorbar.capsize": 3,
            "image.cmap": "cividis",
            "svg.hashsalt": "book",
        }
    )


# --- the parts of the interactive figure, as its caller names them --------------------


@dataclass(frozen=True)
class Slider:
    """What is moved.

    name: text beside the slider, such as `inner steps`.
    labels: what it shows at each position, such as the number of steps.
    start: the position shown first (default: the middle one).
    """

    name: str
    labels: Sequence
    start: int | None = None

    def __post_init__(self):
        _check_text(self.name, "name of a Slider")
        labels = several("labels of a Slider", self.labels, least=0)
        object.__setattr__(self, "labels", labels)
        if self.start is not None:
            whole("start of a Slider", self.start, 0)


@dataclass(frozen=True)
class Axis:
    """One axis of the figure.

    label: its text.
    log: logarithmic.
    range: (low, high); by default everything fits. Curves are clipped to it.
    """

    label: str
    log: bool = False
    range: tuple[float, float] | None = None

    def __post_init__(self):
        _check_text(self.label, "label of an Axis")
        _check(
            type(self.log) in (bool, np.bool_),
            f"log of an Axis must be True or False, got {self.log!r}",
        )


@dataclass(frozen=True)
class Line:
    """One more curve, which does not move and is drawn dotted.

    y: its values, `(len(x),)`.
    name: text of the legend.
    """

    y: object
    name: str | None = None

    def __post_init__(self):
        if self.name is not None:
            _check_text(self.name, "name of a Line")


@dataclass(frozen=True)
class Dots:
    """Points beside the curves.

    x, y: `(n_points,)`; `(n_positions, n_points)` lets them move with the slider.
    name: text of the legend.
    """

    x: object
    y: object
    name: str | None = None

    def __post_init__(self):
        if self.name is not None:
            _check_text(self.name, "name of Dots")


# --- the interactive figure: numbers -> paths -> one piece of HTML --------------------

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 320, 66, 12, 12, 54
_LIMIT = 56_000  # bytes of path data; a figure stays under 60 kB
_DASHES = ["", "7 4", "9 3 2 3", "2 3", "12 3", "4 2 1 2"]


def _array(value, name: str) -> np.ndarray:
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"slider_figure: {name} must be numbers of one rectangular shape ({e})"
        ) from None


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"slider_figure: {message}")


def _check_text(value, name: str) -> None:
    _check(isinstance(value, str), f"{name} must be a text, got {value!r}")


class _Scale:
    "The scale of one axis: data values -> picture units, and the ticks."

    def __init__(self, low: float, high: float, start: float, end: float, log: bool):
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def _value(self, v):
        return np.log10(v) if self.log else v

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Positions of values; what cannot be drawn (not finite, or not positive on a
        log axis) becomes nan."""
        values = np.where(
            np.isfinite(values) & ((values > 0) | (not self.log)), values, np.nan
        )
        low, high = self._value(self.low), self._value(self.high)
        at = self.start + (self._value(values) - low) / (high - low) * (
            self.end - self.start
        )
        return np.clip(at, -10 * _WIDTH, 10 * _WIDTH)

    def ticks(self) -> list[float]:
        return (
            _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)
        )


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    "Round numbers between low and high: steps of 1, 2, 2.5 or 5 times a power of ten."
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, every n-th where there are many, with 2 and 5 between them where
    there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, math.ceil((last - first) / 6))
    found = [f * 10.0**p for p in range(first, last + 1, every) for f in factors]
    return [float(f"{v:.10g}") for v in found if low * 0.999 <= v <= high * 1.001]


def _tick_text(value: float) -> str:
    return (
        f"{value:.6g}".replace("-", "−")
        .replace("e−0", "e−")
        .replace("e+0", "e")
        .replace("e+", "e")
    )


def _range(values: list[np.ndarray], log: bool, pad: float) -> tuple[float, float]:
    "The range of all values that can be drawn, a little wider than the data."
    flat = np.concatenate([v.ravel() for v in values])
    flat = flat[np.isfinite(flat) & ((flat > 0) | (not log))]
    _check(
        flat.size > 0,
        "no value can be drawn: all are not finite"
        + (" or not positive, which a log axis needs" if log else ""),
    )
    low, high = float(flat.min()), float(flat.max())
    if log:
        room = (high / low) ** pad if high > low else 2.0
        return low / room, high * room
    room = pad * (high - low) if high > low else max(abs(high), 1.0) / 2
    return low - room, high + room


def _runs(ok: np.ndarray) -> list[slice]:
    """Stretches of neighbouring True values: a curve with gaps is drawn as several
    lines."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ok.astype(int), [0]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2])]


def _simplify(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Ramer–Douglas–Peucker: drop points that lie closer than `tolerance` to the line
    through the kept ones."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    stack = [(0, len(points) - 1)]
    while stack:
        a, b = stack.pop()
        if b - a < 2:
            continue
        middle, chord = points[a + 1 : b] - points[a], points[b] - points[a]
        length = np.hypot(*chord)
        away = (
            np.abs(middle[:, 0] * chord[1] - middle[:, 1] * chord[0]) / length
            if length
            else np.hypot(*middle.T)
        )
        k = int(away.argmax())
        if away[k] > tolerance:
            keep[a + 1 + k] = True
            stack += [(a, a + 1 + k), (a + 1 + k, b)]
    return points[keep]


def _path(px: np.ndarray, py: np.ndarray, tolerance: float) -> str:
    """An SVG path in steps of a tenth of a unit, relative to the last point, which
    keeps it short."""
    pieces = []
    for run in _runs(np.isfinite(px) & np.isfinite(py)):
        points = _simplify(np.stack([px[run], py[run]], 1), tolerance)
        tenths = np.rint(points * 10).astype(int)
        steps = np.diff(tenths, axis=0) / 10
        pieces.append(
            "M{:g},{:g}".format(*tenths[0] / 10)
            + "".join(f"l{dx:g},{dy:g}" for dx, dy in steps)
            + ("h0" if len(tenths) == 1 else "")
        )
    return "".join(pieces)


def _dots(px: np.ndarray, py: np.ndarray) -> str:
    "Points as one path of small circles."
    ok = np.isfinite(px) & np.isfinite(py)
    return "".join(
        f"M{x - 4:.5g},{y:.5g}a4,4 0 1 0 8,0a4,4 0 1 0 -8,0"
        for x, y in zip(px[ok], py[ok])
    )


def _positions(
    curves: np.ndarray, x: np.ndarray, ax: _Scale, ay: _Scale
) -> list[list[str]]:
    "Path of each curve at each slider position, simplified until all of them fit."
    px = ax(x)
    for tolerance in (0.15, 0.3, 0.6, 1.2, 2.0):
        paths = [
            [_path(px, ay(curve), tolerance) for curve in position]
            for position in curves
        ]
        if len(json.dumps(paths)) <= _LIMIT:
            return paths
    raise ValueError(
        f"slider_figure: {len(curves)} positions of {curves.shape[1]} curves with "
        f"{len(x)} points take more than {_LIMIT // 1000} kB; "
        "use fewer positions, fewer curves or smoother ones"
    )


def _axes_svg(ax: _Scale, ay: _Scale, x_label: str, y_label: str) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    out = []
    for v in ax.ticks():
        at = float(ax(np.array(v)))
        out.append(
            f'<path class="g" d="M{at:.1f},{_TOP}V{bottom}"/><text x="{at:.1f}" '
            f'y="{bottom + 19}" text-anchor="middle">{_tick_text(v)}</text>'
        )
    for v in ay.ticks():
        at = float(ay(np.array(v)))
        out.append(
            f'<path class="g" d="M{_LEFT},{at:.1f}H{right}"/><text x="{_LEFT - 7}" '
            f'y="{at + 5:.1f}" text-anchor="end">{_tick_text(v)}</text>'
        )
    middle = (_TOP + bottom) / 2
    out.append(
        f'<path class="a" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>'
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}" '
        f'text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text transform="translate(15,{middle}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>'
    )
    return "".join(out)


def _legend(
    names: list[str | None], reference_name: str | None, points_name: str | None
) -> str:
    def line(style: str, name: str) -> str:
        return (
            '<span><svg width="34" height="10" aria-hidden="true">'
            f'<path {style} d="M1,5H33"/></svg> {html.escape(name)}</span>'
        )

    items = [line(f'class="c c{k}"', name) for k, name in enumerate(names) if name]
    if reference_name:
        items.append(line('class="r"', reference_name))
    if points_name:
        items.append(
            '<span><svg width="14" height="10" aria-hidden="true">'
            '<circle class="p" cx="7" cy="5" r="4"/></svg> '
            f"{html.escape(points_name)}</span>"
        )
    return f'<div class="k">{"".join(items)}</div>' if items else ""


_STYLE = """
#ID{margin:1em 0;max-width:640px;container-type:inline-size;color:inherit;\
background:none}
#ID .t{font-weight:600;margin:0 0 .3em}
#ID svg{overflow:hidden;background:none}
#ID .v{display:block;width:100%;height:auto}
#ID text{fill:currentColor;font:14px sans-serif}
#ID path{fill:none;stroke:currentColor}
#ID .g{stroke-opacity:.16}
#ID .a{stroke-opacity:.7}
#ID .c{stroke-width:2.4;stroke-linejoin:round;stroke-linecap:round}
#ID .r{stroke-width:1.8;stroke-dasharray:3 4;stroke-opacity:.75}
#ID .p{fill:currentColor;stroke:none}
#ID .k{display:flex;flex-wrap:wrap;gap:.1em 1.2em;font-size:.9em}
#ID .k span{overflow-wrap:anywhere}
#ID .s{display:flex;flex-wrap:wrap;gap:.2em .8em;align-items:center;margin:.4em 0}
#ID .s label{min-width:10em}
#ID output{font-weight:600;font-variant-numeric:tabular-nums}
#ID input{flex:1 1 12em;min-width:0;accent-color:#0072B2}
#ID figcaption{font-size:.9em;font-weight:400;text-align:left;color:inherit}
@container (max-width:460px){#ID .v text{font-size:19px}}
"""
_LIGHT = ["#0072B2", "#D55E00", "#009E73", "#B0558B", "#2F7FB5", "#9A6A00"]
_DARK = ["#56B4E9", "#FF8A3D", "#2CC79A", "#E39BC4", "#8CCBF0", "#E69F00"]
_DARK_PAGES = (
    "html[data-theme=dark] #ID,body.quarto-dark #ID,"
    "body[data-jp-theme-light=false] #ID,html[theme=dark] #ID"
)

_SCRIPT = """
(()=>{const d=DATA,l=LABELS,q=POINTS;
for(const f of document.querySelectorAll("[id='ID']")){\
if(f.dataset.ready)continue;f.dataset.ready=1;
const i=f.querySelector("input"),o=f.querySelector("output"),\
c=[...f.querySelectorAll(".v .c")],p=f.querySelector(".v .p");
const show=()=>{const k=+i.value;c.forEach((e,j)=>e.setAttribute("d",d[k][j]));\
if(q.length)p.setAttribute("d",q[k]);\
o.textContent=l[k];i.setAttribute("aria-valuetext",l[k])};
i.addEventListener("input",show);
i.addEventListener("keydown",e=>{if(/^(Arrow|Page|Home|End)/.test(e.key))e.stopPropagation()});
show()}})()
"""


def _style(ident: str, n: int) -> str:
    variables = [
        "".join(f"--c{k}:{colours[k]};" for k in range(n))
        for colours in (_LIGHT, _DARK)
    ]
    lines = "".join(
        f"#ID .c{k}{{stroke:var(--c{k});"
        f"{f'stroke-dasharray:{_DASHES[k]}' if _DASHES[k] else ''}}}\n"
        for k in range(n)
    )
    return (
        f"{_STYLE}{lines}#ID{{{variables[0]}}}\n{_DARK_PAGES}{{{variables[1]}}}\n"
    ).replace("#ID", "#" + ident)


def _check_curves(x: np.ndarray, curves: np.ndarray, labels: list[str]) -> np.ndarray:
    _check(
        x.ndim == 1 and len(x) >= 2,
        f"x must be one-dimensional with at least 2 values, its shape is {x.shape}",
    )
    _check(bool(np.isfinite(x).all()), "x has values that are not finite")
    _check(
        curves.ndim in (2, 3),
        "curves must be (n_positions, len(x)) or (n_positions, n_curves, len(x)), "
        f"its shape is {curves.shape}",
    )
    _check(
        curves.shape[-1] == len(x),
        f"each curve must have one value for each of the {len(x)} values of x, "
        f"the shape of curves is {curves.shape}",
    )
    curves = curves[:, None] if curves.ndim == 2 else curves
    _check(
        len(curves) >= 2,
        f"a slider needs at least 2 positions, curves has {len(curves)}",
    )
    _check(
        1 <= curves.shape[1] <= len(_LIGHT),
        f"a figure shows 1 to {len(_LIGHT)} curves at a time, not {curves.shape[1]}",
    )
    _check(
        len(labels) == len(curves),
        f"labels has {len(labels)} values for {len(curves)} positions; "
        "give one label for each position",
    )
    return curves


def _check_dots(dots: Dots | None, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    "The values of both axes: both `(n_points,)`, or both `(n_positions, n_points)`."
    if dots is None:
        return None
    _check_kind(dots, Dots, "dots")
    xs, ys = _array(dots.x, "dots.x"), _array(dots.y, "dots.y")
    _check(
        xs.ndim in (1, 2) and ys.ndim in (1, 2) and xs.shape[-1] == ys.shape[-1],
        f"x and y of dots must be of one length, their shapes are {xs.shape} and "
        f"{ys.shape}",
    )
    _check(
        all(v.ndim == 1 or len(v) == n for v in (xs, ys)),
        f"dots that move need {n} rows, one for each position; "
        f"their shapes are {xs.shape} and {ys.shape}",
    )
    if xs.ndim == ys.ndim == 1:
        return xs, ys
    return np.broadcast_to(xs, (n, xs.shape[-1])), np.broadcast_to(
        ys, (n, ys.shape[-1])
    )


def _check_kind(value, kind: type, name: str) -> None:
    _check(
        isinstance(value, kind),
        f"{name} must be {kind.__name__}(...), got {type(value).__name__}",
    )


def _check_line(line: Line | None, x: np.ndarray) -> np.ndarray | None:
    if line is None:
        return None
    _check_kind(line, Line, "line")
    y = _array(line.y, "line.y")
    _check(
        y.shape == x.shape,
        f"line must have the shape of x, {x.shape}, its shape is {y.shape}",
    )
    return y


def _check_axis(axis: Axis, name: str) -> None:
    _check_kind(axis, Axis, name)
    if axis.range is None:
        return
    _check(
        len(axis.range) == 2
        and axis.range[0] < axis.range[1]
        and all(map(math.isfinite, axis.range)),
        f"the range of {name} must be (low, high) with low < high, got {axis.range}",
    )
    _check(
        not axis.log or axis.range[0] > 0,
        f"a log axis needs a positive range, {name} has {axis.range}",
    )


def _start(slider: Slider, n: int) -> int:
    start = n // 2 if slider.start is None else slider.start
    _check(
        0 <= start < n,
        f"start={start} is not a position; there are {n}, counted from 0",
    )
    return start


def _scales(
    x_axis: Axis, y_axis: Axis, x_values: list, y_values: list
) -> tuple[_Scale, _Scale]:
    "Both axes, wide enough for all values where they have no range of their own."
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    across = x_axis.range or _range(x_values, x_axis.log, 0.0)
    up = y_axis.range or _range(y_values, y_axis.log, 0.05)
    return (
        _Scale(*across, _LEFT, right, x_axis.log),
        _Scale(*up, bottom, _TOP, y_axis.log),
    )


def slider_figure(
    x,
    curves,
    slider: Slider,
    *,
    x_axis: Axis,
    y_axis: Axis,
    title: str,
    caption: str,
    curve_names: Sequence[str] | None = None,
    line: Line | None = None,
    dots: Dots | None = None,
) -> Displayable:
    """A figure with a slider: position k of the slider shows `curves[k]`. It works
    wherever HTML does, without a kernel.

    x: values on the horizontal axis, `(len(x),)`.
    curves: `(n_positions, len(x))`, or `(n_positions, n_curves, len(x))` for several
    curves at a time. A value that is not finite leaves a gap.
    slider: its name, a label for each position, the position shown first.
    x_axis, y_axis: their labels, and whether they are logarithmic.
    title: stands above the figure.
    caption: must also say what a reader sees when the slider moves, because GitHub's
    viewer drops scripts.
    curve_names: texts of the legend, one for each curve.
    line: one more curve that does not move, drawn dotted.
    dots: points, which stay or move with the slider.
    """
    _check_kind(slider, Slider, "slider")
    for axis, name in ((x_axis, "x_axis"), (y_axis, "y_axis")):
        _check_axis(axis, name)
    x, labels = _array(x, "x"), [str(v) for v in slider.labels]
    curves = _check_curves(x, _array(curves, "curves"), labels)
    n, n_curves = curves.shape[:2]
    names = list(curve_names) if curve_names is not None else [None] * n_curves
    _check(
        len(names) == n_curves,
        f"curve_names has {len(names)} names for {n_curves} curves",
    )
    start, points, still_line = (
        _start(slider, n),
        _check_dots(dots, n),
        _check_line(line, x),
    )
    for text, name in ((title, "title"), (caption, "caption")):
        _check_text(text, name)
    _check(
        bool(caption.strip()) and bool(title.strip()),
        "title and caption must not be empty; "
        "the caption says what the reader would see",
    )

    across, up = points or (None, None)
    ax, ay = _scales(
        x_axis,
        y_axis,
        [v for v in (x, across) if v is not None],
        [v for v in (curves, still_line, up) if v is not None],
    )
    moves = points is not None and across.ndim == 2
    parts = dict(
        paths=_positions(curves, x, ax, ay),
        labels=labels,
        moving=[_dots(ax(a), ay(b)) for a, b in zip(*points)] if moves else [],
        still=_dots(ax(across), ay(up)) if points and not moves else "",
        start=start,
        names=names,
        reference_name=line.name if line else None,
        points_name=dots.name if dots else None,
        axes=_axes_svg(ax, ay, x_axis.label, y_axis.label),
        reference="" if still_line is None else _path(ax(x), ay(still_line), 0.15),
        slider_name=slider.name,
        title=title,
        caption=caption,
        about=f"{title}. Horizontal: {x_axis.label}. Vertical: {y_axis.label}.",
    )
    parts_hash = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Displayable(
        text_html=_page(f"slider-{parts_hash[:10]}", parts),
        text_plain=f"{title} (interactive figure). {caption}",
    )


def _page(ident: str, p: dict) -> str:
    "The HTML of the figure, in its start position before any script runs."
    esc, n_curves = html.escape, len(p["paths"][0])
    lines = "".join(
        f'<path class="c c{k}" d="{d}"/>' for k, d in enumerate(p["paths"][p["start"]])
    )
    dots = p["moving"][p["start"]] if p["moving"] else p["still"]
    data = {"ID": ident} | {
        name: json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace(
            "</", "<\\/"
        )
        for name, value in (
            ("DATA", p["paths"]),
            ("LABELS", p["labels"]),
            ("POINTS", p["moving"]),
        )
    }
    script = re.sub("ID|DATA|LABELS|POINTS", lambda m: data[m[0]], _SCRIPT)
    clip, first = f"{ident}-clip", esc(p["labels"][p["start"]])
    return f"""<figure class="book-slider" id="{ident}">\
<style>{_style(ident, n_curves)}</style>
<div class="t">{esc(p["title"])}</div>
<svg class="v" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" \
aria-label="{esc(p["about"])}">\
<clipPath id="{clip}"><rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" \
height="{_HEIGHT - _TOP - _BOTTOM}"/></clipPath>{p["axes"]}\
<g clip-path="url(#{clip})"><path class="r" d="{p["reference"]}"/>{lines}\
<path class="p" d="{dots}"/></g></svg>
{_legend(p["names"], p["reference_name"], p["points_name"])}
<div class="s"><label for="{ident}-in">{esc(p["slider_name"])} = \
<output for="{ident}-in" aria-live="polite">{first}</output></label>\
<input id="{ident}-in" type="range" min="0" max="{len(p["paths"]) - 1}" step="1" \
value="{p["start"]}" aria-valuetext="{first}" data-lm-suppress-shortcuts="true"></div>
<figcaption>{esc(p["caption"])}</figcaption></figure>
<script>{script}</script>"""
