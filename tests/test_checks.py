"""The checks of markup and citations: each rule finds its own fault, and a good book
has none."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import bibliography
import check_citations
import check_markdown as cm

PNG = {
    "output_type": "display_data",
    "metadata": {},
    "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"},
}
FIGURE = '#| label: fig-a\n#| fig-cap: "A curve"\n#| fig-alt: "It falls"\nplot()'
BIB = (
    "@inproceedings{finn2017maml, "
    "author={Finn, Chelsea and Abbeel, Pieter and Levine, Sergey}, title={MAML}, "
    "booktitle={ICML}, year={2017}, eprint={1703.03400}, eprinttype={arxiv}}"
)


def md(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, *outputs):
    return {
        "cell_type": "code",
        "metadata": {},
        "source": text,
        "outputs": list(outputs),
        "execution_count": None,
    }


def book(folder, **chapters):
    "A small book: file name without suffix -> cells after the title."
    for name, cells in chapters.items():
        path = folder / "nbs" / "part" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                {
                    "cells": [md(f"# {name}\n\n> A sentence."), *cells],
                    "metadata": {},
                    "nbformat": 4,
                    "nbformat_minor": 5,
                }
            ),
            encoding="utf-8",
        )
    (folder / "references.bib").write_text(BIB, encoding="utf-8")
    return folder


def problems(tmp_path, *cells, **more):
    return cm.check(book(tmp_path, a=list(cells), **more))[0]


GOOD = """## The step

> **Note:** text with $x = 1$.

We follow [Finn et al., 2017](https://arxiv.org/abs/1703.03400) up to Eq. (A-1); \
see [above](#the-step) and [b](b.ipynb#other).

$$
x = y \\tag{A-1}
$$

> An ordinary quote.

`\\label{x}` and `simply` are code.
"""


def test_a_good_chapter_has_no_problem(tmp_path):
    cells = [
        md(GOOD),
        code("#| default_exp part.a"),
        code("#| export\ndef f():\n    return 1"),
        code(FIGURE, PNG),
        code("#| hide\nassert f() == 1"),
    ]
    assert problems(tmp_path, *cells, b=[md("## Other")]) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("$$ x \\label{eq:a} $$", "\\tag{NAME-1}"),
        ("see \\eqref{a}", "\\tag{NAME-1}"),
        ("::: {.callout-note}\nx\n:::", "fenced div"),
        ("> [!NOTE]\n> x", "does not render"),
        ("$$\nx\n=\ny\n$$", "becomes a heading"),
        ("## A {#sec-a}", "attribute"),
        ("$$ x $$ {#eq-a}", "attribute"),
        ("as @fig-a shows", "cross-reference"),
        ("as [@finn2017] shows", "citation of pandoc"),
        ("```mermaid\ngraph\n```", "mermaid"),
        ("> **Remark:** x", "unknown kind of note"),
        ("> **Note**: x", "colon inside"),
        ("Text\n> **Note:** x", "empty line before"),
        ("> **Note:** x\nmore", "runs into the next line"),
        ("We simply add", "'simply'"),
        ("It is just a sum.", "'just'"),
        ("This is Obviously true", "'obviously'"),
        ("\\begin{align}\nx\n\\end{align}", "outside $$"),
        ("$$ x", "odd number"),
        ("$\\\\alpha$", "doubled backslash"),
        ("$$ x \\tag{3.1} $$", "named after its chapter"),
        ("[x](missing.ipynb)", "does not exist"),
        ("[x](#nowhere)", "a heading that"),
        ("Eq. (NO-1)", "no equation has"),
        ("Eqs. (A-1) and (NO-2)\n\n$$ x \\tag{A-1} $$", "\\tag{NO-2}"),
        ("$$ x \\tag{A-1} $$\n\n$$ y \\tag{A-1} $$", "is used already"),
        ("# Another title", "second title"),
        ("## 2. Step\n\n[x](#2-step)", "another anchor from Quarto"),
        ("![x](picture.png)", "does not exist"),
    ],
)
def test_markdown_faults(tmp_path, text, message):
    found = problems(tmp_path, md(text))
    assert len(found) == 1 and message in found[0], found
    assert "nbs/part/a.ipynb, cell" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "adjust the rate",
        "`a just`",
        "$simply$",
        "unjust",
        "[x](https://just.example/simply)",
        "a == b in `=`",
        "```\n=\n```",
        "(see §2)",
        "x = y",
        "$$ a \\\\ \\alpha \\\\[2pt] b $$",
        "an e-mail a@b.c",
        "> **Note:** a\n>\n> **Tip:** b",
    ],
)
def test_no_false_alarm(tmp_path, text):
    assert problems(tmp_path, md(text)) == []


def test_an_internal_export_stands_alone_too(tmp_path):
    cell = "#| exporti\ndef f():\n    return 1"
    assert problems(tmp_path, code(cell)) == []
    (found,) = problems(tmp_path, code(cell.replace("exporti", "exporti part.b")))
    assert "'#| exporti' must stand alone" in found


@pytest.mark.parametrize(
    "cell, message",
    [
        (code("#| export: true\nx = 1"), "without a colon"),
        (code("#| export part.b\nx = 1"), "must stand alone"),
        (code("#| export\n#| label: fig-a\nx = 1"), "no other directive"),
        (code("#| default_exp a\nx = 1"), "alone in its cell"),
        (code("x = 1\n#| export"), "top of its cell"),
        (code("#| exprot\nx = 1"), "unknown directive"),
        (code("#| label:\nx = 1"), "has no value"),
        (code('#| fig-cap: "$\\alpha$"\nx = 1'), "single quotes"),
        (code("#| label: fig-a\n#| label: fig-b\nx = 1"), "given twice"),
        (code("\n".join(f"x{i} = 1" for i in range(41))), "split it"),
        (code("#| label: fig-a\n#| fig-cap: b\nplot()", PNG), "fig-alt"),
        (code(FIGURE.replace("fig-a", "a", 1), PNG), "starts with 'fig-'"),
        (
            code("x", {"output_type": "error", "ename": "ValueError", "evalue": "no"}),
            "stored output is an error",
        ),
        (
            code(
                "x",
                {
                    "output_type": "display_data",
                    "data": {"text/html": ['<script src="https://cdn/x.js">']},
                },
            ),
            "another host",
        ),
        ({"cell_type": "raw", "metadata": {}, "source": "x"}, "raw cell"),
    ],
)
def test_code_faults(tmp_path, cell, message):
    found = problems(tmp_path, cell)
    assert len(found) == 1 and message in found[0] and "cell 1" in found[0], found


def test_first_cell(tmp_path):
    path = book(tmp_path, a=[]) / "nbs/part/a.ipynb"
    for text in ("# a", "# a\n\n> b\n\nMore text.", "Text\n\n> b", "# a\n> b"):
        path.write_text(
            json.dumps(
                {
                    "cells": [md(text)],
                    "metadata": {},
                    "nbformat": 4,
                    "nbformat_minor": 5,
                }
            )
        )
        assert any("first cell must be" in p for p in cm.check(tmp_path)[0]), text


def test_a_broken_notebook_is_named(tmp_path):
    (book(tmp_path, a=[], b=[md("[x](a.ipynb#y)")]) / "nbs/part/a.ipynb").write_text(
        '{"cells": ['
    )
    assert (
        "a.ipynb is not a notebook" in cm.check(tmp_path)[0][0]
        and "a.ipynb is not a notebook" in check_citations.check(tmp_path)[0][0]
    )


def test_labels_and_tags_are_unique_in_the_book(tmp_path):
    found = problems(
        tmp_path,
        code(FIGURE, PNG),
        md("$$ x \\tag{A-1} $$"),
        b=[code(FIGURE, PNG), md("$$ x \\tag{A-1} $$")],
    )
    assert len(found) == 2 and all(
        "is used already in nbs/part/a.ipynb" in p for p in found
    )


def test_long_sentences_are_hints_only(tmp_path):
    errors, hints = cm.check(book(tmp_path, a=[md("word " * 44 + "word.")]))
    assert errors == [] and len(hints) == 1 and "45 words" in hints[0]


def test_a_notebook_that_is_not_listed(tmp_path):
    book(tmp_path, a=[], b=[])
    (tmp_path / "_quarto.yml").write_text(
        "book:\n  title: T\n  chapters:\n    - nbs/part/a.ipynb\n"
    )
    assert cm.check(tmp_path)[0] == ["nbs/part/b.ipynb: is not listed in _quarto.yml"]
    (tmp_path / "_quarto.yml").write_text(
        "book:\n  title: T\n  chapters:\n    - nbs/part/z.ipynb\n"
    )
    assert "do not exist: nbs/part/z.ipynb" in cm.check(tmp_path)[0][0]


# --- citations


@pytest.mark.parametrize(
    "text, message",
    [
        ("[Finn et al., 2017](https://arxiv.org/abs/1703.99999)", "does not know"),
        ("[Smith, 2020](https://aclanthology.org/P99-9999/)", "does not know"),
        ("[Nichol et al., 2017](https://arxiv.org/abs/1703.03400)", "another author"),
        ("[Finn et al., 2018](https://arxiv.org/abs/1703.03400)", "another year"),
    ],
)
def test_citation_faults(tmp_path, text, message):
    found, _ = check_citations.check(book(tmp_path, a=[md(text)]))
    assert (
        len(found) == 1
        and message in found[0]
        and "nbs/part/a.ipynb, cell 1" in found[0]
    )


@pytest.mark.parametrize(
    "text",
    [
        "[Finn et al. (2017)](https://arxiv.org/pdf/1703.03400v2)",
        "[MAML](https://arxiv.org/abs/1703.03400)",
        "[code](https://github.com/cbfinn/maml)",
        "`[x](https://arxiv.org/abs/9999.99999)`",
    ],
)
def test_citations_that_are_fine(tmp_path, text):
    assert check_citations.check(book(tmp_path, a=[md(text)]))[0] == []


@pytest.mark.parametrize(
    "entry, message",
    [
        (
            "@misc{a, title={T}, year={2020}, eprint={2001.00001}, eprinttype={arxiv}}",
            "needs the field author",
        ),
        (
            (
                "@misc{a, author={A B}, title={T}, year={20}, eprint={2001.00001}, "
                "eprinttype={arxiv}}"
            ),
            "is not a year",
        ),
        ("@misc{a, author={A B}, title={T}, year={2020}}", "give eprint, doi or url"),
        (
            "@misc{a, author={A B}, title={T}, year={2020}, eprint={12.3}}",
            "is not an arXiv id",
        ),
        (
            (
                "@paper{a, author={A B}, title={T}, year={2020}, eprint={2001.00001}, "
                "eprinttype={arxiv}}"
            ),
            "unknown type",
        ),
        (BIB.replace("finn2017maml", "again"), "the same work as finn2017maml"),
        (BIB, "used twice"),
    ],
)
def test_bibliography_faults(entry, message):
    found = bibliography.problems(bibliography.parse(BIB + "\n" + entry))
    assert any(message in p for p in found), found


# --- the real book


def test_the_import_example_runs():
    source = re.findall(
        r"```python\n(.*?)```", (ROOT / "index.qmd").read_text(encoding="utf-8"), re.S
    )[1]
    short = source.replace("steps=200", "steps=2").replace(
        "n_episodes=100", "n_episodes=10"
    )
    assert short != source
    names: dict = {}
    exec(compile(short, "index.qmd", "exec"), names)
    assert (
        names["learner"].adapt(
            names["tasks"].sample(2, names["torch"].Generator()).support
        )
        is not None
    )


def test_the_book_has_no_markup_problem():
    assert cm.check()[0] == []


def test_the_book_cites_only_what_it_lists():
    assert check_citations.check()[0] == []
