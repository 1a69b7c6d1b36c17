"""The motif of the book, and the cover, the card and the icon that are made of it.

Seven tasks, each a quadratic loss with an optimum and a curvature of its own. One
start, the one with the smallest summed loss after four gradient steps. From it, the
steps that each task takes.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from metalearn_book.book.figures import OKABE

TITLE = ("Learning to Learn", "with Language Models")
SUBTITLE = (
    "Meta-learning for language models,",
    "in notebooks that derive, check and measure",
)
NIGHT, PAPER, MIST = "#12212e", "#f6f5f1", "#9fb4c4"
SEED = 280  # of 400, one whose start is near the middle and whose optima lie apart
#: the colours of the figures in the order of the tasks; the last, black, is white on a
#: dark ground
COLOURS = [OKABE[k] for k in (4, 5, 2, 3, 0, 1)] + ["#ffffff"]


@dataclass(frozen=True)
class Motif:
    "One start `(2,)`, the optima `(tasks, 2)`, and the steps from one to the others."

    start: np.ndarray
    optima: np.ndarray
    steps: np.ndarray  # (tasks, steps + 1, 2)
    curvature: np.ndarray  # (tasks, 2), along the axes of each loss
    tilt: np.ndarray  # (tasks,), angle of the first axis in radians


def motif(
    tasks: int = 7, steps: int = 4, rate: float = 0.55, seed: int = SEED
) -> Motif:
    """Solve for the start that `steps` gradient steps serve best, and take them; about
    the unit circle."""
    rng = np.random.default_rng(seed)
    turn = (
        2 * np.pi * (np.arange(tasks) + 0.35 * rng.uniform(-1, 1, tasks)) / tasks + 0.4
    )
    optima = rng.uniform(0.78, 1.08, (tasks, 1)) * np.stack(
        [np.cos(turn), np.sin(turn)], 1
    )
    tilt = turn + rng.choice([-1, 1], tasks) * rng.uniform(0.5, 0.9, tasks)
    axes = np.stack([np.cos(tilt), np.sin(tilt), -np.sin(tilt), np.cos(tilt)], 1)
    axes = axes.reshape(tasks, 2, 2)
    curvature = np.stack(
        [rng.uniform(1.1, 1.5, tasks), rng.uniform(0.5, 0.7, tasks)], 1
    )
    a = np.einsum("tki,tk,tkj->tij", axes, curvature, axes)
    shrink = np.linalg.matrix_power(
        np.eye(2) - rate * a, steps
    )  # θ - c after the steps, from φ - c
    weight = np.einsum("tki,tkl,tlj->tij", shrink, a, shrink)
    start = np.linalg.solve(weight.sum(0), np.einsum("tij,tj->i", weight, optima))
    path = [np.broadcast_to(start, optima.shape)]
    for _ in range(steps):
        path.append(path[-1] - rate * np.einsum("tij,tj->ti", a, path[-1] - optima))
    return Motif(start, optima, np.stack(path, 1), curvature, tilt)


def shapes(
    m: Motif, centre: tuple[float, float], radius: float
) -> tuple[np.ndarray, ...]:
    "Start, optima and steps in picture units; y points down, as in SVG."
    at = lambda p: np.asarray(centre) + radius * np.asarray(p) * [1, -1]
    return at(m.start), at(m.optima), at(m.steps)


def svg_motif(
    width: int, height: int, radius: float, line: float, colours: list[str]
) -> str:
    "The motif as the inside of an SVG element of this size."
    m = motif()
    middle = (m.optima.max(0) + m.optima.min(0)) / 2 * [1, -1] * radius
    centre = (width / 2 - middle[0], height / 2 - middle[1])
    start, optima, steps = shapes(m, centre, radius)
    out = []
    for path, goal, colour in zip(steps, optima, colours):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
        out.append(
            f'<g style="stroke:{colour}" fill="none" stroke-width="{line:g}">'
            f'<polyline points="{points}" stroke-linejoin="round" '
            'stroke-linecap="round"/>'
            f'<circle cx="{goal[0]:.1f}" cy="{goal[1]:.1f}" r="{3.2 * line:g}"/>'
            + "".join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{1.1 * line:g}" '
                f'style="fill:{colour};stroke:none"/>'
                for x, y in path[1:]
            )
            + "</g>"
        )
    out.append(
        f'<circle cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="{2.6 * line:g}" '
        'fill="currentColor"/>'
    )
    return "".join(out)


def favicon() -> str:
    "The motif with five arms, bold enough for 16 pixels."
    ends = 16 + 10.4 * np.stack(
        [np.cos(t := 2 * np.pi * np.arange(5) / 5 - np.pi / 2 + 0.2), np.sin(t)], 1
    )
    bends = 16 + 6 * np.stack([np.cos(t - 0.5), np.sin(t - 0.5)], 1)
    arms = "".join(
        f'<path d="M16,16Q{bx:.1f},{by:.1f} {x:.1f},{y:.1f}" stroke="{c}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{c}"/>'
        for (x, y), (bx, by), c in zip(
            ends, bends, [COLOURS[k] for k in (0, 1, 2, 3, 5)]
        )
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<rect width="32" height="32" rx="6" fill="{NIGHT}"/>'
        f'<g fill="none" stroke-width="2">{arms}</g>'
        '<circle cx="16" cy="16" r="3.2" fill="#fff"/></svg>\n'
    )


def _canvas(width: int, height: int):
    "A figure of this many pixels with one unit for each, y pointing down."
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=NIGHT)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return fig, ax


def _draw(ax, centre: tuple[float, float], radius: float, line: float) -> None:
    "The motif with contours of each task's loss around its optimum."
    from matplotlib.patches import Ellipse

    m = motif()
    start, optima, steps = shapes(m, centre, radius)
    for k, (path, goal, colour) in enumerate(zip(steps, optima, COLOURS)):
        for level in (1, 2, 3):
            wide, high = 0.14 * radius * level / np.sqrt(m.curvature[k])
            ax.add_patch(
                Ellipse(
                    goal,
                    wide,
                    high,
                    angle=-np.degrees(m.tilt[k]),
                    fill=False,
                    ec=colour,
                    lw=0.35 * line,
                    alpha=0.7 - 0.17 * level,
                )
            )
        ax.plot(*path.T, color=colour, lw=line, solid_joinstyle="round", zorder=2)
        ax.plot(
            *path[1:].T,
            "o",
            color=colour,
            ms=2.6 * line,
            mec=NIGHT,
            mew=0.5 * line,
            zorder=3,
        )
    ax.plot(*start, "o", color="white", ms=6.5 * line, mec=NIGHT, mew=line, zorder=4)


def _png(fig) -> bytes:
    "A PNG of 128 colours, the same bytes for the same versions of the libraries."
    from PIL import Image

    raw = io.BytesIO()
    fig.savefig(raw, format="png", dpi=100, facecolor=NIGHT)
    out = io.BytesIO()
    Image.open(raw).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        out, "PNG", optimize=True
    )
    return out.getvalue()


def _text(
    ax,
    x: float,
    y: float,
    lines: tuple[str, ...],
    size: float,
    colour: str,
    style: str = "normal",
    gap: float = 1.3,
) -> None:
    for k, line in enumerate(lines):
        ax.text(
            x,
            y + k * size * gap,
            line,
            family="STIXGeneral",
            size=size * 0.72,
            style=style,
            color=colour,
            va="baseline",
            ha="left",
        )


def cover() -> bytes:
    "The cover of the EPUB: 1200 x 1800 pixels."
    fig, ax = _canvas(1200, 1800)
    _draw(ax, (640, 1130), 440, 5)
    _text(ax, 96, 236, TITLE, 106, PAPER, gap=1.15)
    _text(ax, 98, 452, SUBTITLE, 44, MIST, "italic")
    ax.plot([98, 1104], [1706, 1706], color=MIST, lw=1)
    _text(
        ax, 98, 1750, ("A book in notebooks, and the package metalearn_book",), 30, MIST
    )
    return _png(fig)


def card() -> bytes:
    "The card that social sites show: 1200 x 630 pixels."
    fig, ax = _canvas(1200, 630)
    _draw(ax, (925, 318), 210, 3)
    _text(ax, 64, 244, TITLE, 58, PAPER, gap=1.2)
    _text(ax, 66, 378, SUBTITLE, 27, MIST, "italic")
    _text(
        ax, 66, 566, ("A book in notebooks, and the package metalearn_book",), 22, MIST
    )
    return _png(fig)
