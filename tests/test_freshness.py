"""What makes a chapter stale, and what does not."""

from __future__ import annotations

import json
import re

import freshness
import notebooks
import pytest
import reached

CHAPTER = "foundations/01_demo"


def syntax(code: str) -> str:
    return reached.canonical(reached.ast.parse(reached.without_magics(code)))


@pytest.mark.parametrize(
    "one, other",
    [
        ("f(1,\n  2)  # why", "f(\n    1,\n    2,\n)"),
        ("'a' \"b\"", "'ab'"),
        ("x = (1)", "x = 1"),
        ("def f():\n    'Doc.'\n    return 1", "def f(): return 1"),
        ("class A:\n    'é'\n    n = 1", "class A:\n    n = 1"),
        ("a = 1; b = 2", "a = 1\n\n%timeit a\n!ls\nb = 2"),
        ("import json, os\nx = 1", "import os\nimport json\n\nx = 1"),
        ("def f():\n    from a import g\n    return 1", "def f():\n    return 1"),
    ],
)
def test_format_comments_docstrings_and_places_of_imports_do_not_count(one, other):
    assert syntax(one) == syntax(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = '# a'", "x = '# b'"),
        ("def f(a=1): return a", "def f(a=2): return a"),
        ("def f(): return 'a'", "def f(): return"),
        ("f(a, b)", "f(b, a)"),
        ("f'{x:.2f}'", "f'{x:.3f}'"),
        ("@g\ndef f(): pass", "def f(): pass"),
    ],
)
def test_everything_else_counts(one, other):
    assert syntax(one) != syntax(other)


@pytest.fixture
def package(tmp_path):
    "A package in files: `write(name, code)`, `reach(code)` -> names, `stamp(code)`."

    class Book:
        root = tmp_path

        def write(self, name: str, code: str) -> None:
            path = tmp_path.joinpath("metalearn_book", *name.split("."))
            path = (
                path / "__init__.py" if name.endswith("_") else path.with_suffix(".py")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)

        def digests(self, code: str) -> dict[str, str]:
            return reached.Reach(reached.parse(code), tmp_path).digests()

        def reach(self, code: str) -> list[str]:
            return list(self.digests(code))

    (tmp_path / "metalearn_book" / "part").mkdir(parents=True)
    (tmp_path / "metalearn_book" / "__init__.py").write_text("")
    (tmp_path / "metalearn_book" / "part" / "__init__.py").write_text("")
    return Book()


IMPORT = "from metalearn_book.part.a import f\nf()"


def test_what_is_reached_through_others_counts_and_the_rest_of_a_module_does_not(
    package,
):
    package.write(
        "part.a",
        (
            "from .b import g\n"
            "RATE = 1\n"
            "def f(): return g(RATE)\n"
            "def other(): return h()\n"
            "def h(): pass"
        ),
    )
    package.write(
        "part.b",
        (
            "import numpy as np\n"
            "def g(x): return np.exp(x) + Net().y\n"
            "class Net:\n"
            "    y = 1\n"
            "class Unused: pass"
        ),
    )
    assert package.reach(IMPORT) == ["Net", "RATE", "f", "g"]


@pytest.mark.parametrize(
    "code",
    [
        "import metalearn_book.part.a as a\na.f()",
        "from metalearn_book.part import a\na.f()",
        "import metalearn_book.part.a\nmetalearn_book.part.a.f()",
        "def run():\n    from metalearn_book.part.a import f\n    return f()",
        "from metalearn_book.part.hands_on import f as renamed\nrenamed()",
        "from metalearn_book import f\nf()",
        "from metalearn_book.part import a\nuse(a)",
    ],
)
def test_every_way_to_import_reaches(package, code):
    package.write("part.a", "def f(): return 1")
    package.write("part.hands_on", "from .a import f")
    top = "_NAMES = {'part.a': ('f',)}\ndef __getattr__(name): ..."
    (package.root / "metalearn_book" / "__init__.py").write_text(top)
    assert package.reach(code) == ["f"]


def test_what_is_added_to_a_class_later_belongs_to_it(package):
    body = (
        "class A: pass\ndef m(self): return {}\nA.m, A.n = m, 1\n"
        "@patch\ndef p(self: A): return {}\n"
    )
    one = "from metalearn_book.part.a import A\nA().m()"
    package.write("part.a", body.format(1, 1))
    first = package.digests(one)
    package.write("part.a", body.format(2, 1))
    assert package.digests(one)["m"] != first["m"]
    package.write("part.a", body.format(1, 2))
    assert package.digests(one)["A"] != first["A"]


WHOLE = (
    "class A(B):\n"
    "    n = 1\n"
    "    def a(self): return h()\n"
    "    def b(self, x): return x\n"
)
GROWN = (
    "class A(B):\n"
    "    'Doc.'\n"
    "    n = 1\n"
    "    def b(self, x): return x\n\n"
    "@patch\n"
    "def a(self: A): return h()\n"
)


def test_a_class_may_grow_by_patches(package):
    assert syntax(WHOLE) == syntax(GROWN) != syntax(GROWN.replace("h()", "g()"))
    one = "from metalearn_book.part.a import A\nA()"
    rest = "class B: pass\ndef h(): return 1\n"
    package.write("part.a", rest + WHOLE)
    first = package.digests(one)
    assert list(first) == ["A", "B", "h"]
    patch = "from metalearn_book.part.b import patch\n"
    package.write("part.b", "T = int\ndef patch(f: T): return f")
    package.write("part.a", patch + rest + GROWN)
    assert package.digests(one) == first


@pytest.mark.parametrize(
    "one, other",
    [
        ("@property\ndef a(s): return 1", "@property\ndef b(s): return 2"),
        ("@property\ndef a(s): return 1", "def b(s): return 2"),
        ("@staticmethod\ndef b(): return 1", "@classmethod\ndef a(c): return 2"),
        ("@torch.no_grad()\ndef b(s): return 1", "@cached_property\ndef a(s): pass"),
        (
            "@property\ndef b(s): return 1\n@b.setter\ndef b(s, v): pass",
            "@property\ndef a(s): return 2",
        ),
        (
            "@singledispatchmethod\ndef b(s, x): pass",
            "@property\ndef a(s): return 2",
        ),
    ],
)
def test_the_order_of_methods_does_not_count_where_it_says_nothing(one, other):
    def body(*parts):
        return "class A:\n" + "\n".join(
            f"    {x}" for x in "\n".join(parts).split("\n")
        )

    def grown(*parts):
        parts = [p for part in parts for p in re.split(r"\n(?=@\w+\.setter)", part)]
        patched = [re.sub(r"(\(s)(?=[,)])", r"\1: A", "@patch\n" + p) for p in parts]
        return "class A: pass\n" + "\n".join(patched)

    assert syntax(body(one, other)) == syntax(body(other, one))
    assert syntax(body(one)) != syntax(body(one, other)) != syntax(body(other))
    if "(s" in one and "(s" in other and "setter" not in one:
        assert syntax(grown(one, other)) == syntax(grown(other, one))
        assert syntax("class A:\n    n = 1") != syntax(grown(one, other))


@pytest.mark.parametrize(
    "one, other",
    [
        # a setter belongs to the property above it, a later method replaces an earlier
        ("@property\ndef a(s): return 1", "@a.setter\ndef a(s, v): pass"),
        ("def a(s): return 1", "def a(s): return 2"),
        ("@f.register\ndef _(s, x: int): pass", "@f.register\ndef _(s, x: str): pass"),
        # whatever such a decorator does, it does in this order
        ("@counted\ndef a(s): return 1", "@counted\ndef b(s): return 2"),
        ("@counted\ndef a(s): return 1", "def a(s): return 2"),
        ("def a(s): return 1", "a = wrapped(a)"),
        ("@property\ndef a(s): return 1", "b = a"),
    ],
)
def test_the_order_of_methods_counts_where_it_may_say_something(one, other):
    first = "class A:\n    @g\n    def f(s): pass\n"

    def body(*parts):
        return first + "\n".join(f"    {x}" for x in "\n".join(parts).split("\n"))

    assert syntax(body(one, other)) != syntax(body(other, one))


def test_statements_that_run_on_import_count(package):
    package.write("part.a", "import torch\nx = 1\ntorch.manual_seed(0)\ndef f(): pass")
    first = package.digests(IMPORT)
    assert list(first) == ["(on import)", "f"]
    package.write("part.a", "import torch\nx = 1\ntorch.manual_seed(1)\ndef f(): pass")
    assert package.digests(IMPORT)["(on import)"] != first["(on import)"]


def test_moving_a_definition_to_another_module_changes_nothing(package):
    package.write(
        "part.a",
        "import numpy as np\nC = 3\ndef f(): return g()\ndef g(): return np.ones(C)",
    )
    first = package.digests(IMPORT)
    package.write(
        "part.b",
        "import numpy as np\nC = 3\ndef g():\n    'Doc.'\n    return np.ones(C)",
    )
    package.write("part.a", "from metalearn_book.part.b import g\ndef f(): return g()")
    assert package.digests(IMPORT) == first
    package.write("part.b", "import torch as np\nC = 3\ndef g(): return np.ones(C)")
    assert package.digests(IMPORT) != first, "the same words, but another library"


def test_of_a_table_the_entries_count_that_are_looked_up(package):
    table = (
        "ByName = dict\n"
        "def one(): return {}\n"
        "def two(): return {}\n"
        "SETS: ByName[str, object] = {{'one': one, 'two': two}}\n"
        "def load(name): return SETS[name]()"
    )
    code = "from metalearn_book.part.a import load\nload('one')"
    package.write("part.a", table.format(1, 1))
    first = package.digests(code)
    assert list(first) == ["ByName", "SETS['one']", "load", "one"] or list(first) == [
        "SETS['one']",
        "load",
        "one",
    ]
    package.write("part.a", table.format(1, 2))
    assert package.digests(code) == first
    package.write("part.a", table.format(2, 1))
    assert package.digests(code) != first


def test_reasons_in_words(project):
    nb = notebooks.read(project / "nbs" / f"{CHAPTER}.ipynb")
    stamp = freshness.make_stamp(nb, CHAPTER, 1, project)
    helper = project / "metalearn_book" / "foundations" / "helper.py"
    helper.write_text(
        helper.read_text().replace("2 * x", "more(x)")
        + "\n\ndef more(x):\n    return 2 * x\n"
    )
    now = freshness.fingerprint(nb, CHAPTER, project)
    assert freshness.changes(stamp, now) == ["twice has changed", "more is new"]
    assert freshness.changes(now, stamp) == ["twice has changed", "more is gone"]
    nb["cells"][-2]["source"] = ["answer = 1"]
    now = freshness.fingerprint(nb, CHAPTER, project)
    assert freshness.changes(stamp, now)[0] == "its own code has changed"


def test_a_cell_can_be_split_and_the_setup_cell_is_not_counted(project):
    import setup_cell

    nb = notebooks.read(project / "nbs" / f"{CHAPTER}.ipynb")
    first = freshness.make_stamp(nb, CHAPTER, 1, project)
    address = f"nbs/{CHAPTER}.ipynb"
    assert setup_cell.generate(nb, address, notebooks.settings()) == []
    last = nb["cells"][-2]
    lines = notebooks.source(last).splitlines(True)
    nb["cells"][-2:-1] = [last | {"source": [line]} for line in lines]
    assert freshness.make_stamp(nb, CHAPTER, 1, project) == first


def test_a_chapter_can_get_another_number(project):
    nb = notebooks.read(project / "nbs" / f"{CHAPTER}.ipynb")
    first = freshness.fingerprint(nb, CHAPTER, project)
    last = nb["cells"][-1]
    last["source"] = [notebooks.source(last).replace("01_demo", "20_demo")]
    assert freshness.fingerprint(nb, CHAPTER, project) == first
    last["source"] = [notebooks.source(last).replace("20_demo", "20_demon")]
    assert freshness.fingerprint(nb, CHAPTER, project) != first


def test_stored_results_that_a_chapter_quotes_count(project):
    nb = notebooks.read(project / "nbs" / f"{CHAPTER}.ipynb")
    nb["cells"][-2]["source"] = ["load_results('benchmarks/speed')"]
    assert freshness.fingerprint(nb, CHAPTER, project)["results"] == {}
    stored = project / "results" / "benchmarks" / "speed.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps({"book": 1, "stamp": {"code": "x"}}))
    first = freshness.fingerprint(nb, CHAPTER, project)
    stored.write_text(json.dumps({"book": 1}))
    assert freshness.fingerprint(nb, CHAPTER, project) == first
    stored.write_text(json.dumps({"book": 2}))
    now = freshness.fingerprint(nb, CHAPTER, project)
    assert freshness.changes(first, now) == ["the results benchmarks/speed has changed"]


def test_the_chapters_that_a_definition_reaches(project):
    assert freshness.reaching("foundations.helper.twice", project) == [CHAPTER]
    assert freshness.reaching("twice", project) == [CHAPTER]
    assert freshness.reaching("foundations.scale.twice", project) == []
