"""Tables and sentences made of computed numbers: the same in Jupyter, on the site and
on GitHub."""

from __future__ import annotations

import html
import math
import re
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..data.arguments import whole

__all__ = ["Displayable", "Interval", "format_value", "show_table", "show_text"]


class Displayable:
    """Something that a notebook shows: one text for each media type, the richest one is
    used.

    It needs no IPython. As the last line of a cell it shows itself; inside a loop use
    IPython's `display(...)`.
    """

    def __init__(self, **data: str):
        if "text_plain" not in data:
            raise ValueError(f"text_plain is missing, got {', '.join(data)}")
        for name, text in data.items():
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a text, got {text!r}")
        self.data = {name.replace("_", "/", 1): text for name, text in data.items()}

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        kept = {
            name: text
            for name, text in self.data.items()
            if include is None or name in include
        }
        return {
            name: text
            for name, text in kept.items()
            if not exclude or name not in exclude
        }

    def __repr__(self) -> str:
        return self.data["text/plain"]

    def __str__(self) -> str:
        return self.data["text/plain"]


@dataclass(frozen=True)
class Interval:
    """A mean with the half-width of its 95 % interval `ci95` that was published or
    stored; it is shown as an `Evaluation` is.
    """

    mean: float
    ci95: float


def _is_interval(value) -> bool:
    return hasattr(value, "mean") and hasattr(value, "ci95")


def _is_difference(value) -> bool:
    "Whether it is a difference, which of shares is counted in points, not in percent."
    return bool(getattr(value, "is_difference", False))


def _plain_number(value):
    "A tensor or numpy scalar as a Python number; anything else unchanged."
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return value


def _minus(text: str) -> str:
    return re.sub(r"^-(?=[\d.i])", "−", text)


def _decimals(width: float, least: int, most: int) -> int:
    """Decimals that show an interval's half-width to one figure, or to two where it
    starts with 1."""
    if not width > 0 or math.isinf(width):
        return least
    exponent = math.floor(math.log10(width))
    return min(max(-exponent + (width / 10**exponent < 2), least), most)


def _interval(mean: float, width: float, percent: bool) -> str:
    mean, width = (100 * mean, 100 * width) if percent else (mean, width)
    if math.isnan(width):  # one episode: there is no interval
        return _minus(f"{mean:.1f}" if percent else f"{mean:.4g}")
    d = _decimals(width, 1, 2) if percent else _decimals(width, 0, 6) if width else 3
    return f"{_minus(f'{mean:.{d}f}')} ± {width:.{d}f}"


def format_value(value, *, percent: bool = False, digits: int = 4) -> str:
    """One value as text: `mean ± ci95` for an `Evaluation`, `digits` figures for a
    float, everything else as `str` writes it.

    percent: multiply by 100 and show one decimal (two where an interval is that
    narrow); the `%` sign is left to the caller.
    """
    digits = whole("digits", digits, 0)
    if _is_interval(value):
        return _interval(float(value.mean), float(value.ci95), percent)
    value = _plain_number(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and not percent:
        return _minus(f"{value:,}" if abs(value) >= 10_000 else f"{value}")
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else _minus(f"{value}").replace("inf", "∞")
        return _minus(f"{100 * value:.1f}" if percent else f"{value:.{digits}g}")
    return str(value)


def _columns(rows: list[Mapping]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _is_number(value) -> bool:
    return (
        _is_interval(value)
        or isinstance(_plain_number(value), (int, float))
        or value is None
    )


def _unit(rows: list[Mapping], name: str) -> str:
    "Of a column in percent: points, if its intervals are those of differences."
    intervals = [row[name] for row in rows if _is_interval(row.get(name))]
    return "points" if intervals and all(map(_is_difference, intervals)) else "%"


def _html_text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _html_table(
    header: list[str], body: list[list[str]], right: list[bool], caption: str | None
) -> str:
    align = ["text-align:right" if r else "text-align:left" for r in right]
    head = "".join(
        f'<th scope="col" style="{a}">{_html_text(name)}</th>'
        for name, a in zip(header, align)
    )
    keep = [a + ";white-space:nowrap" if r else a for a, r in zip(align, right)]
    lines = [
        "<tr>"
        + "".join(
            f'<td style="{a}">{_html_text(cell)}</td>' for cell, a in zip(row, keep)
        )
        + "</tr>"
        for row in body
    ]
    top = (
        '<caption style="caption-side:top;text-align:left">'
        f"{_html_text(caption)}</caption>\n"
        if caption
        else ""
    )
    return (
        f'<table class="book-table">\n{top}<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table>"
    )


def _markdown_table(
    header: list[str], body: list[list[str]], right: list[bool], caption: str | None
) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = "|" + "|".join("---:" if r else ":---" for r in right) + "|"
    top = f"{caption}\n\n" if caption else ""
    return top + "\n".join([line(header), rule, *map(line, body)])


def _plain_table(
    header: list[str], body: list[list[str]], right: list[bool], caption: str | None
) -> str:
    widths = [max(map(len, column)) for column in zip(header, *body)]

    def line(cells: list[str]) -> str:
        return "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right)
        ).rstrip()

    top = f"{caption}\n" if caption else ""
    return top + "\n".join(
        [line(header), "  ".join("-" * w for w in widths), *map(line, body)]
    )


def show_table(
    rows: Iterable[Mapping],
    caption: str | None = None,
    *,
    percent: Collection[str] = (),
    digits: int = 4,
) -> Displayable:
    """A table of dicts, one per row; the columns are the keys in order of first
    appearance.

    rows: values may be `Evaluation`s (shown as `mean ± ci95`), numbers, tensors of one
    element, text, or None for an empty cell.
    caption: one line above the table.
    percent: names of columns that hold shares; they are multiplied by 100 and their
    heading says `(%)`, or `(points)` where all their intervals are of differences.
    digits: significant figures of plain floats.
    """
    rows = [dict(row) for row in rows]
    if not rows:
        raise ValueError(
            "show_table was given no rows; pass a list with at least one dict, "
            "such as [{'method': 'MAML', 'accuracy': 0.97}]"
        )
    if caption is not None and not isinstance(caption, str):
        raise ValueError(f"caption must be a text, got {caption!r}")
    names, digits = _columns(rows), whole("digits", digits, 0)
    percent = {percent} if isinstance(percent, str) else set(percent)
    if unknown := sorted(percent - set(names)):
        raise ValueError(
            "percent names columns that the table does not have: "
            f"{', '.join(unknown)}; it has {', '.join(names)}"
        )
    body = [
        [
            format_value(
                row.get(n),
                percent=n in percent and _is_number(row.get(n)),
                digits=digits,
            )
            for n in names
        ]
        for row in rows
    ]
    header = [f"{n} ({_unit(rows, n)})" if n in percent else str(n) for n in names]
    right = [all(_is_number(row.get(n)) for row in rows) for n in names]
    parts = header, body, right, caption
    return Displayable(
        text_html=_html_table(*parts),
        text_markdown=_markdown_table(*parts),
        text_plain=_plain_table(*parts),
    )


class _Number:
    """What a template sees: an `Evaluation` can be formatted as a whole (`{maml}`,
    `{maml:%}`) or by attribute (`{maml.mean:.3f}`)."""

    def __init__(self, value):
        self._value = value

    def __getattr__(self, name: str):
        return getattr(self._value, name)

    def __getitem__(self, key):
        return self._value[key]

    def __str__(self) -> str:
        return format_value(self._value)

    def __format__(self, spec: str) -> str:
        value = _plain_number(self._value)
        unit = " points" if _is_difference(value) else " %"
        if spec in ("", "%") and (spec or not isinstance(value, str)):
            return format_value(value, percent=bool(spec)) + (unit if spec else "")
        if _is_interval(value):
            part = spec[:-1] + "f" if spec.endswith("%") else spec
            scale, sign = (100, unit) if spec.endswith("%") else (1, "")
            return (
                f"{_minus(format(scale * float(value.mean), part))} ± "
                f"{format(scale * float(value.ci95), part)}{sign}"
            )
        return format(value, spec)


def show_text(template: str, **numbers) -> Displayable:
    """A sentence in Markdown that quotes computed numbers: `show_text("MAML reaches
    {maml:%} on {n} episodes.", maml=result, n=600)`.

    `{name}` writes four figures, or `mean ± ci95` for an `Evaluation`; `{name:%}` the
    same in percent, in points if it is a difference of two; every other format of
    Python works too. Write `{{` and `}}` for braces that are part of the text.
    """
    wanted = {
        re.split(r"[.\[]", name)[0]
        for _, name, _, _ in string.Formatter().parse(template)
        if name is not None
    }
    if missing := sorted(wanted - set(numbers)):
        raise ValueError(
            f"show_text has no value for {', '.join('{' + m + '}' for m in missing)}; "
            f"given: {', '.join(numbers) or 'nothing'}. "
            "Pass it by name, or double braces that belong to the text"
        )
    if unused := sorted(set(numbers) - wanted):
        raise ValueError(
            f"show_text was given {', '.join(unused)}, which the sentence does not "
            f"use; quote it as {{{unused[0]}}} or leave it out"
        )
    text = template.format(**{name: _Number(value) for name, value in numbers.items()})
    return Displayable(text_markdown=text, text_plain=text)
