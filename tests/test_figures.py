"""The book's helpers for figures, tables and sentences."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from metalearn_book.book.display import format_value, show_table, show_text
from metalearn_book.book.figures import (
    LINE_STYLES,
    MARKERS,
    OKABE,
    Axis,
    Dots,
    Line,
    Slider,
    book_style,
    slider_figure,
)

X = np.linspace(-3, 3, 61)
CURVES = np.stack([np.sin(X + s) for s in np.linspace(0, 2, 7)])
WORDS = {
    "x_axis": Axis("x"),
    "y_axis": Axis("loss"),
    "title": "A title",
    "caption": "At 0 it is flat.",
}


class Interval:
    "What `Evaluation` looks like from outside."

    def __init__(self, mean, ci95, n=600):
        self.mean, self.ci95, self.values, self.seed = mean, ci95, [0] * n, 1


def figure(curves=CURVES, labels=None, x=X, start=None, **more):
    labels = range(len(curves)) if labels is None else labels
    return slider_figure(
        x, curves, Slider("steps", labels, start), **{**WORDS, **more}
    ).data["text/html"]


def paths(page):
    "Path data of every position, as the script sees it."
    return json.loads(re.search(r"const d=(\[\[.*?\]\]),l=", page)[1])


def points(path):
    "Absolute points of a path of M and l steps."
    found, at = [], np.zeros(2)
    for kind, numbers in re.findall(r"([Ml])(-?[\d.e-]+,-?[\d.e-]+)", path):
        step = np.array(list(map(float, numbers.split(","))))
        at = step if kind == "M" else at + step
        found.append(at.copy())
    return np.array(found)


# --- the slider


def test_the_figure_is_well_formed_and_says_what_it_is():
    page = figure(
        line=Line(np.cos(X), "truth"),
        dots=Dots([-1, 0], [0.2, 0.4], "support"),
        curve_names=["adapted"],
    )
    open_tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("input", "path", "circle", "rect"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(
        re.sub(
            r"<(\w+)([^<>]*)/>",
            lambda m: (
                m[0]
                if m[1] in ("path", "circle", "rect")
                else f"<{m[1]}{m[2]}></{m[1]}>"
            ),
            page,
        ).replace("/>", ">")
    )
    assert not open_tags
    ident = re.search(r'<figure class="book-slider" id="([\w-]+)"', page)[1]
    assert (
        'role="img"' in page
        and f'aria-label="{WORDS["title"]}.' in page
        and f'<output for="{ident}-in" aria-live="polite">3</output>' in page
    )
    assert (
        f"<figcaption>{WORDS['caption']}</figcaption>" in page
        and "adapted" in page
        and "truth" in page
        and "support" in page
    )
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_the_same_figure_has_the_same_text_and_another_one_another_id():
    assert figure() == figure()
    ids = {
        re.search(r'id="(slider-\w+)"', page)[1]
        for page in (figure(), figure(title="Other"), figure(curves=CURVES * 2))
    }
    assert len(ids) == 3


def test_the_drawn_curve_is_the_given_curve():
    page = figure()
    height = 320 - 54 - 12
    low, high = (
        CURVES.min() - 0.05 * np.ptp(CURVES),
        CURVES.max() + 0.05 * np.ptp(CURVES),
    )
    for drawn, curve in zip(paths(page), CURVES, strict=True):
        p = points(drawn[0])
        x = (p[:, 0] - 66) / (560 - 12 - 66) * (X[-1] - X[0]) + X[0]
        y = (12 + height - p[:, 1]) / height * (high - low) + low
        assert np.abs(y - np.interp(x, X, curve)).max() < 0.01 * (high - low)
        assert np.isclose(x[[0, -1]], X[[0, -1]], atol=0.02).all()


def test_several_curves_and_the_start_position():
    page = figure(
        curves=np.stack([CURVES, CURVES**2], 1), curve_names=["a", "b"], start=2
    )
    assert all(len(position) == 2 for position in paths(page)) and len(paths(page)) == 7
    assert 'value="2"' in page and f'd="{paths(page)[2][1]}"' in page


def test_gaps_where_a_value_is_not_finite():
    curves = CURVES.copy()
    curves[0, 20:30] = np.nan
    curves[1, 5] = np.inf
    drawn = paths(figure(curves=curves))
    assert [p[0].count("M") for p in drawn] == [2, 2, 1, 1, 1, 1, 1]


def test_log_axes_skip_what_is_not_positive():
    curves = np.abs(CURVES) + 1e-3
    curves[0, :10] = 0
    page = figure(
        curves=curves,
        x=X + 4,
        x_axis=Axis("x", log=True),
        y_axis=Axis("loss", log=True),
    )
    assert "NaN" not in page and "nan" not in page and "0.01" in page


def test_values_outside_the_range_are_clipped_not_dropped():
    page = figure(curves=CURVES * 1e9, y_axis=Axis("loss", range=(-1, 1)))
    assert (
        "clip-path" in page
        and max(np.abs(points(p[0])).max() for p in paths(page)) < 1e4
    )


def test_points_can_move():
    page = figure(dots=Dots(np.zeros((7, 1)), np.linspace(0, 1, 7)[:, None]))
    moved = json.loads(re.search(r",q=(\[.*?\]);", page)[1])
    assert len(set(moved)) == 7
    assert len(re.search(r",q=(\[.*?\]);", figure(dots=Dots([0.0], [1.0])))[1]) == 2


def test_the_size_is_bounded():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 400)
    smooth = np.stack(
        [
            np.stack([np.sin(9 * x * s), np.cos(7 * x * s)])
            for s in np.linspace(1, 3, 40)
        ]
    )
    assert len(figure(curves=smooth, x=x)) < 70_000
    assert len(figure()) < 15_000
    with pytest.raises(ValueError, match="fewer positions"):
        figure(curves=rng.normal(size=(40, 400)), x=x)


def test_tensors_and_text_with_markup():
    page = slider_figure(
        torch.tensor(X),
        torch.tensor(CURVES, requires_grad=True),
        Slider("steps", [f"<{k}>" for k in range(7)]),
        **{**WORDS, "title": 'a < b & "c"', "y_axis": Axis("</script>")},
    ).data["text/html"]
    assert (
        "a &lt; b &amp; &quot;c&quot;" in page
        and page.count("</script>") == 1
        and "&lt;3&gt;" in page
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"curves": CURVES[:, :5]}, "one value for each of the 61"),
        ({"curves": CURVES[0]}, r"\(n_positions, len\(x\)\)"),
        ({"curves": CURVES[:1]}, "at least 2 positions"),
        ({"labels": [1, 2]}, "2 values for 7 positions"),
        ({"line": Line(X[:4])}, "line must have the shape"),
        ({"line": X}, r"line must be Line\(...\), got ndarray"),
        ({"start": 7}, "not a position"),
        ({"y_axis": Axis("loss", range=(1, 0))}, "low < high"),
        ({"x_axis": "x"}, r"x_axis must be Axis\(...\), got str"),
        ({"y_axis": Axis("loss", log=True, range=(0, 1))}, "positive range"),
        ({"dots": Dots([1, 2], [1])}, "of one length"),
        ({"dots": Dots(np.zeros((3, 1)), np.zeros((3, 1)))}, "7 rows"),
        ({"curve_names": ["a", "b"]}, "2 names for 1 curves"),
        ({"curves": CURVES * np.nan}, "no value can be drawn"),
        ({"curves": [[1, 2], [3]]}, "rectangular"),
        ({"x": X * np.nan}, "not finite"),
        ({"caption": " "}, "must not be empty"),
        ({"curves": np.zeros((7, 9, 61))}, "1 to 6 curves"),
    ],
)
def test_wrong_input_is_refused_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        figure(**change)


# --- the style of figures


def test_the_style_differs_without_colour():
    import matplotlib
    import matplotlib.pyplot as plt

    before = matplotlib.rcParams.copy()
    try:
        book_style()
        cycle = list(plt.rcParams["axes.prop_cycle"])
        assert (
            len({str(c["linestyle"]) for c in cycle})
            == len(cycle)
            == len(OKABE)
            == len(LINE_STYLES)
            == len(MARKERS)
            == len(set(MARKERS))
        )
        assert (
            plt.rcParams["figure.constrained_layout.use"]
            and plt.rcParams["figure.dpi"] <= 120
            and plt.rcParams["figure.facecolor"] == "white"
        )
    finally:
        matplotlib.rcParams.update(before)


# --- tables and sentences


@pytest.mark.parametrize(
    "value, percent, wanted",
    [
        (Interval(0.96912, 0.0031), True, "96.9 ± 0.3"),
        (Interval(0.96912, 0.00131), True, "96.91 ± 0.13"),
        (Interval(0.5, 0.0), True, "50.0 ± 0.0"),
        (Interval(0.123456, 0.0123), False, "0.123 ± 0.012"),
        (Interval(-12.3, 3.0), False, "−12 ± 3"),
        (Interval(0.5, float("nan"), 1), False, "0.5"),
        (0.123456, False, "0.1235"),
        (0.5, True, "50.0"),
        (1, True, "100.0"),
        (12345, False, "12,345"),
        (-2, False, "−2"),
        (float("nan"), False, "–"),
        (float("-inf"), False, "−∞"),
        (None, False, "–"),
        (True, False, "yes"),
        ("text", False, "text"),
        (torch.tensor(0.25), False, "0.25"),
        (np.float32(0.25), True, "25.0"),
    ],
)
def test_format_value(value, percent, wanted):
    assert format_value(value, percent=percent) == wanted


def test_show_table_in_all_its_forms():
    table = show_table(
        [
            {"method": "MAML", "accuracy": Interval(0.9, 0.01)},
            {"method": "a|b <c> `d`", "note": "new"},
        ],
        caption="Title",
        percent={"accuracy"},
    )
    page, markdown, plain = (
        table.data[k] for k in ("text/html", "text/markdown", "text/plain")
    )
    assert (
        "<caption" in page
        and "accuracy (%)" in page
        and "90.0 ± 1.0" in page
        and "a|b &lt;c&gt; <code>d</code>" in page
    )
    assert "a\\|b" in markdown and markdown.split("\n")[2:4] == [
        "| method | accuracy (%) | note |",
        "|:---|---:|:---|",
    ]
    assert (
        plain.split("\n")[0] == "Title"
        and len({line.index("90.0") for line in plain.split("\n") if "90.0" in line})
        == 1
    )
    assert repr(table) == plain and set(table._repr_mimebundle_()) == {
        "text/html",
        "text/markdown",
        "text/plain",
    }
    assert set(table._repr_mimebundle_(include=["text/plain"])) == {"text/plain"}


@pytest.mark.parametrize(
    "rows, more, message",
    [([], {}, "no rows"), ([{"a": 1}], {"percent": {"b"}}, "does not have: b")],
)
def test_show_table_refuses(rows, more, message):
    with pytest.raises(ValueError, match=message):
        show_table(rows, **more)


def test_show_text():
    text = show_text(
        (
            "{m:%}, {m}, {m.mean:.2f}, {m:.2f}, {m:.2%}, {x:.1f}, {x}, "
            "{n} of {name}, $a_{{i}}$"
        ),
        m=Interval(0.9123, 0.021),
        x=-0.5,
        n=600,
        name="CLINC150",
    )
    assert text.data["text/markdown"] == (
        "91.2 ± 2.1 %, 0.91 ± 0.02, 0.91, 0.91 ± 0.02, 91.23 ± 2.10 %, -0.5, −0.5, "
        "600 of CLINC150, $a_{i}$"
    )


@pytest.mark.parametrize(
    "template, numbers, message",
    [
        ("{a} {b}", {"a": 1}, r"no value for \{b\}"),
        ("{a}", {"a": 1, "c": 2}, "given c"),
        ("$x_{i}$", {}, "double braces"),
    ],
)
def test_show_text_refuses(template, numbers, message):
    with pytest.raises(ValueError, match=message):
        show_text(template, **numbers)
