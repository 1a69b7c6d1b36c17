"""The API reference of a small made-up package, by value, and that of the book."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import api_reference
import check_api
from offline_site import plain_markdown

SHAPES = '''"""Areas of things. And more."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .units import Length

__all__ = ["area", "SIDES", "Square", "Box", "box", "Bin"]
SIDES = 4  # of a square


def _checked(side):
    if side < 0:
        raise ValueError(f"side={side} must not be negative")
    return side


def area(
    side: float,  # in metres
    *,
    factor: float = 1.0,
    unit: str = "m",  # of the side
) -> float:  # in square metres
    """Square of a <b>side</b>, Eq. (SHAPE-1). It is *never* negative.

    factor: multiplies the area; see `Box`.

    A closing paragraph.
    """
    return _checked(side) ** 2 * factor


@dataclass(frozen=True)
class Square(Length):
    """A square.

    side: its length. After `grown`: a new square.
    """
    side: float
    colour: str = "red"  # of the line

    @property
    def area(self) -> float:
        "Its area."
        return self.side ** 2

    @cached_property
    def twice(self):
        "Both."
        return 2 * self.side


class _Base:
    def __init__(self, depth: int):
        "depth: how deep."

    def empty(self):
        "Empties it. RuntimeError if it is closed."
        raise RuntimeError("closed")

    def _secret(self):
        pass


class Box(_Base):
    "A box."

    def fill(self, items: list[str], how: dict[str, tuple[int, int]] | None = None, \
slow: bool = False) -> 'Box':
        "Fills it. items: what. how: in which way. slow: carefully."
        try:
            raise KeyError("caught")
        except KeyError:
            return self

    def __call__(self, x):
        return x


class Bin(Box):
    empty = Box.empty


def box():
    "A function like the class."


def _keep(self: Box, folder):
    "Keeps it."


def _find(cls, folder) -> Box:
    "Finds it."


Box.save, Box.load = _keep, classmethod(_find)


@patch
def open(self: Box, wide=True):
    "Opens the box."


@patch
def open(self: Bin):
    "Opens the bin."


@patch
@property
def full(self: Bin) -> bool:
    "Is it full?"
'''
UNITS = (
    '"Units."\n'
    '__all__ = ["Length"]\n\n\n'
    "class Length:\n"
    '    "A length."\n\n'
    "    def to(self, unit):\n"
    "        return self\n"
)
CHAPTER = """{"cells": [
 {"cell_type": "markdown", "source": ["# Shapes\\n", "\\n", "> All of them.\\n"]},
 {"cell_type": "markdown", "source": ["## What an area is\\n", \
"$$ A = s^2 \\\\tag{SHAPE-1} $$"]},
 {"cell_type": "code", "source": ["#| export\\n", \
"def area(side): pass\\n", "SIDES = 4"]},
 {"cell_type": "markdown", "source": ["## 3 boxes\\n"]},
 {"cell_type": "code", "source": ["#| export\\n", "class Box: pass"]}],
 "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"""
BOOK = (
    "book:\n"
    "  appendices:\n"
    "    - nbs/appendices/glossary.ipynb\n"
    "    - nbs/appendices/api.md\n"
    "    - nbs/appendices/api/gone.md\n"
    "format: x\n"
)


@pytest.fixture
def project(tmp_path):
    "A package with two parts: `geometry`, which has a chapter, and `plain`."
    package = tmp_path / "metalearn_book"
    for name, text in {
        "__init__.py": "",
        "geometry/__init__.py": "",
        "geometry/shapes.py": SHAPES,
        "geometry/units.py": UNITS,
        "plain/__init__.py": (
            '"Plain things."\nfrom .things import go\n__all__ = ["go"]\n'
        ),
        "plain/things.py": '"Things."\n__all__ = ["go"]\n\n\ndef go(n):\n    "Goes."\n',
        "plain/empty.py": "x = 1\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    (tmp_path / "nbs" / "geometry").mkdir(parents=True)
    (tmp_path / "nbs" / "geometry" / "01_shapes.ipynb").write_text(
        CHAPTER, encoding="utf-8"
    )
    (tmp_path / "settings.ini").write_text(
        "[DEFAULT]\nuser = u\nrepo = r\nversion = 2.5\n"
    )
    (tmp_path / "_quarto.yml").write_text(BOOK)
    return tmp_path


def entry(page, name):
    "One entry of a page, without its heading."
    return re.search(
        rf"^#+ `{re.escape(name)}` \{{#[\w-]+\}}\n\n(.*?)(?=\n\n#|\Z)",
        page,
        re.M | re.S,
    )[1]


def page(project, part="geometry"):
    return api_reference.Writer(project).page(part)


def test_a_function_has_signature_text_parameters_errors_and_links(project):
    line = SHAPES[: SHAPES.index("def area(")].count("\n") + 1
    assert entry(page(project), "area") == (
        "```python\n"
        "area(side: float, *, factor: float = 1.0, unit: str = 'm') -> float\n"
        "```\n\n"
        "Square of a &lt;b>side&lt;/b>, "
        "[Eq. (SHAPE-1)](../../geometry/01_shapes.ipynb#tag-shape-1). "
        "It is *never* negative.\n\n"
        "A closing paragraph.\n\n"
        "- `side`: in metres\n"
        "- `factor`: multiplies the area; see `Box`.\n"
        "- `unit`: of the side\n\n"
        "Returns in square metres. Raises `ValueError`.\n\n"
        "[Source](https://github.com/u/r/blob/v2.5/metalearn_book/geometry/shapes.py"
        f"#L{line}-L{line + 12})"
        " · built in [What an area is](../../geometry/01_shapes.ipynb#what-an-area-is)"
    )


def test_a_dataclass_has_its_fields_and_its_base(project):
    text = entry(page(project), "Square")
    assert text.startswith(
        "```python\n"
        "class Square(side: float, colour: str = 'red')\n"
        "```\n\n"
        "A square.\n\n"
        "After `grown`: a new square.\n\n"
        "- `side`: its length.\n"
        "- `colour`: of the line\n\n"
        "Extends [`Length`](#api-geometry-units-length).\n\n"
        "[Source]"
    )
    assert "built in" not in text, "no cell of the chapter defines it"


def test_methods_have_entries_of_their_own(project):
    text = page(project)
    assert entry(text, "Box").startswith(
        "```python\nclass Box(depth: int)\n```\n\nA box.\n\n- `depth`: how deep.\n\n"
    )
    assert "built in [3 boxes](../../geometry/01_shapes.ipynb)" in entry(text, "Box"), (
        "an anchor that begins with a digit is not the same everywhere"
    )
    assert (
        entry(text, "Square.area")
        == "```python\n@property\narea: float\n```\n\nIts area."
    )
    assert entry(text, "Square.twice") == "```python\n@property\ntwice\n```\n\nBoth."
    assert entry(text, "Box.fill") == (
        "```python\n"
        "fill(\n"
        "    items: list[str],\n"
        "    how: dict[str, tuple[int, int]] | None = None,\n"
        "    slow: bool = False,\n"
        ") -> Box\n"
        "```\n\n"
        "Fills it.\n\n- `items`: what.\n- `how`: in which way.\n- `slow`: carefully."
    ), "an error that is caught is none"
    assert (
        entry(text, "Box.empty")
        == "```python\nempty()\n```\n\nEmpties it. RuntimeError if it is closed."
    ), "the text names the error already"
    assert entry(text, "Box.__call__") == "```python\n__call__(x)\n```"
    assert "_secret" not in text and "_Base" not in text and "__init__" not in text


def test_methods_that_are_attached_later(project):
    text = page(project)
    assert entry(text, "Box.save") == "```python\nsave(folder)\n```\n\nKeeps it."
    assert (
        entry(text, "Box.load")
        == "```python\n@classmethod\nload(folder) -> Box\n```\n\nFinds it."
    )
    assert (
        entry(text, "Box.open") == "```python\nopen(wide=True)\n```\n\nOpens the box."
    )
    assert entry(text, "Bin.open") == "```python\nopen()\n```\n\nOpens the bin."
    assert (
        entry(text, "Bin.full")
        == "```python\n@property\nfull: bool\n```\n\nIs it full?"
    )
    assert "Has `empty` of [`Box`](#api-geometry-shapes-box-class)." in entry(
        text, "Bin"
    )


def test_anchors_are_stable_and_tell_capitals_apart(project):
    text = page(project)
    for heading in (
        "## `shapes` {#api-geometry-shapes}",
        "### `Box` {#api-geometry-shapes-box-class}",
        "### `box` {#api-geometry-shapes-box}",
        "### `SIDES` {#api-geometry-shapes-sides}",
        "#### `Box.fill` {#api-geometry-shapes-box-class-fill}",
    ):
        assert f"\n{heading}\n" in text, heading
    assert (
        api_reference.symbol_anchor("a.b", "My_Class", ["My_Class"])
        == "api-a-b-my-class"
    )


def test_two_names_with_one_anchor_are_refused(project):
    (project / "metalearn_book/plain/things.py").write_text(
        '"Things."\n'
        '__all__ = ["A", "a_go"]\n\n\n'
        "def a_go():\n"
        '    "Goes."\n\n\n'
        "class A:\n"
        '    "A."\n\n'
        "    def go(self):\n"
        '        "Goes."\n'
    )
    with pytest.raises(ValueError, match="api-plain-things-a-go"):
        page(project, "plain")


def test_a_constant_has_its_value_and_its_comment(project):
    assert entry(page(project), "SIDES").startswith(
        "```python\nSIDES = 4\n```\n\nOf a square.\n\n[Source]"
    )


def test_a_module_says_where_it_is_and_what_it_passes_on(project):
    assert (
        "Areas of things. And more.\n\n"
        "Module `metalearn_book.geometry.shapes`"
        " · [source](https://github.com/u/r/blob/v2.5/metalearn_book/geometry/shapes.py)"
        " · chapter [Shapes](../../geometry/01_shapes.ipynb)\n"
    ) in page(project)
    assert "Offers, from its modules: [`go`](#api-plain-things-go)." in page(
        project, "plain"
    )


def test_the_index_links_every_name_with_one_sentence(project):
    text = api_reference.Writer(project).pages()["nbs/appendices/api.md"]
    assert text.startswith(
        "# API reference\n\nEverything that `metalearn_book` 2.5 offers"
    )
    assert (
        "## Geometry\n\n"
        "| Name | What it is |\n"
        "|:---|:---|\n"
        "| **[`geometry.shapes`](api/geometry.md#api-geometry-shapes)** | "
        "*Areas of things.* |\n"
    ) in text
    assert (
        "| [`area`](api/geometry.md#api-geometry-shapes-area) | "
        "Square of a &lt;b>side&lt;/b>, "
        "[Eq. (SHAPE-1)](../geometry/01_shapes.ipynb#tag-shape-1). |"
    ) in text
    assert (
        "| [`Square`](api/geometry.md#api-geometry-shapes-square) | A square. |" in text
    )
    assert "empty" not in text, "a module without __all__ is not part of the reference"


def test_write_makes_the_pages_and_lists_them(project):
    (project / "nbs/appendices/api").mkdir(parents=True)
    (project / "nbs/appendices/api/gone.md").write_text("of a part that is no more")
    changed = api_reference.write(project)
    assert set(changed) == {
        "nbs/appendices/api.md",
        "nbs/appendices/api/geometry.md",
        "nbs/appendices/api/plain.md",
        "nbs/appendices/api/gone.md",
        "_quarto.yml",
    }
    assert not (project / "nbs/appendices/api/gone.md").exists()
    assert (project / "_quarto.yml").read_text() == BOOK.replace(
        "    - nbs/appendices/api/gone.md\n",
        "    - nbs/appendices/api/geometry.md\n    - nbs/appendices/api/plain.md\n",
    )
    assert (
        api_reference.write(project) == [] and api_reference.differences(project) == {}
    )
    source = project / "metalearn_book/plain/things.py"
    source.write_text(source.read_text().replace("Goes.", "Runs."))
    assert [p.name for p in api_reference.differences(project)] == [
        "api.md",
        "plain.md",
    ]


def test_the_offline_edition_gets_anchors_and_links_of_its_own_kind(project):
    text = plain_markdown(page(project))
    assert (
        "\n(api-geometry-shapes-box-class-fill)=\n#### `Box.fill`\n" in text
        and "{#" not in text
    )
    assert (
        "[Eq. (SHAPE-1)](#tag-shape-1)" in text
        and "(../../geometry/01_shapes.ipynb#what-an-area-is)" in text
    )
    assert (
        plain_markdown("[a](api/geometry.md#api-geometry-shapes)")
        == "[a](#api-geometry-shapes)"
    )


@pytest.mark.parametrize(
    "line, shown",
    [
        ("f(a, b=1) -> int", "f(a, b=1) -> int"),
        (
            f"f(a: dict[str, int], b: tuple[int, ...] = (1, 2), *, {'c' * 40}) -> int",
            (
                "f(\n"
                "    a: dict[str, int],\n"
                "    b: tuple[int, ...] = (1, 2),\n"
                "    *,\n"
                f"    {'c' * 40},\n"
                ") -> int"
            ),
        ),
        (
            "f(a: " + " | ".join(["Callable[[int], str]"] * 5) + ")",
            (
                "f(\n"
                "    a: Callable[[int], str] | Callable[[int], str] | "
                "Callable[[int], str] |\n"
                "        Callable[[int], str] | Callable[[int], str],\n"
                ")"
            ),
        ),
    ],
)
def test_long_signatures_are_broken(line, shown):
    assert api_reference.wrapped(line) == shown
    assert max(map(len, shown.split("\n"))) <= 88


@pytest.mark.parametrize(
    "doc, text, items",
    [
        (
            "Does it. lr: the rate. steps: how many; None: all.",
            "Does it.",
            {"lr": "the rate.", "steps": "how many; None: all."},
        ),
        ("Does it: lr is the rate.", "Does it: lr is the rate.", {}),
        (
            "Does it.\n\nlr, steps: as for\n`f`. ValueError for others.",
            "Does it.\n\n ValueError for others.",
            {"lr, steps": "as for `f`."},
        ),
        (
            "A note: of steps. unknown: of nothing.",
            "A note: of steps. unknown: of nothing.",
            {},
        ),
    ],
)
def test_parameters_in_a_docstring(doc, text, items):
    assert api_reference.items_of(doc, {"lr", "steps"}) == (text, items)


@pytest.mark.parametrize(
    "doc, first",
    [
        (
            "The root of Eq. (A-1), see Finn et al. (2017). More.",
            "The root of Eq. (A-1), see Finn et al. (2017).",
        ),
        ("Without a stop\nin two lines\n\nMore.", "Without a stop in two lines."),
        ("About 0.5 of `a.b`. More.", "About 0.5 of `a.b`."),
        ("", ""),
    ],
)
def test_first_sentences(doc, first):
    assert api_reference.sentence(doc) == first


# --- is everything documented?

GAPS = """__all__ = ["A", "f", "g", "N", "M", "gone"]
N = 1
#: Above it.
M = 2


def f(x, lam, mu):
    "Of lam."


def g(a, b):
    "Two parameters speak for themselves."


class A:
    "About size."
    size: int
    colour: str
    _own: int
    shared: ClassVar[int] = 1

    def __init__(self, size, colour, n_way):
        pass

    def go(self):
        pass

    @property
    def p(self):
        return 1

    def __call__(self, x):
        return x
"""


def test_gaps_are_found(project):
    (project / "metalearn_book/plain/things.py").write_text(GAPS)
    (project / "metalearn_book/plain/__init__.py").write_text("")
    assert [
        p.removeprefix("plain.things")
        for p in check_api.check(project)
        if p.startswith("plain")
    ] == [
        ": no docstring",
        ": `__all__` has names that are not defined by themselves: gone",
        ".N: no comment on its line, or `#: ` above it",
        ".f: nothing says what these parameters are: mu",
        ".A: nothing says what these fields hold: colour",
        ".A: nothing says what these parameters are: colour",
        ".A.go: no docstring",
        ".A.p: no docstring",
    ]


def test_a_complete_module_has_no_gap(project):
    assert [
        p
        for p in check_api.check(project)
        if p.startswith(("geometry.shapes", "plain"))
    ] == ["geometry.shapes.Bin: no docstring"]


# --- the book itself


def test_the_pages_of_the_book_are_what_its_source_says():
    assert list(api_reference.differences()) == [], "run: make export"


def test_every_public_name_of_the_book_has_its_entry():
    pages = api_reference.Writer().pages()
    for module in api_reference.load():
        text = pages[f"nbs/appendices/api/{module.part}.md"]
        assert f"metalearn_book.{module.name}" in text
        assert [n for n in module.names if f"\n### `{n}` {{#api-" not in text] == []
        assert set(module.exports) == set(module.names) or module.name == "data", (
            "what is exported is defined there"
        )


def test_every_public_name_of_the_book_is_documented():
    assert [p for p in check_api.check() if not p.startswith("data.")] == []


@pytest.mark.xfail(
    strict=True,
    reason="the loaders are being rewritten; take this mark away with the last gap",
)
def test_every_public_name_of_the_data_package_is_documented():
    assert [p for p in check_api.check() if p.startswith("data.")] == []
