"""The Quarto filter: pure functions, and the script as Quarto calls it."""

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import bibliography
import quarto_filter as qf

CITED = {"arxiv:1703.03400": "finn2017maml", "arxiv:1803.02999": "nichol2018"}
FINN, NICHOL = (
    "[Finn et al., 2017](https://arxiv.org/abs/1703.03400)",
    "[Nichol et al., 2018](https://arxiv.org/abs/1803.02999)",
)


def context(flavour="quarto", **more):
    return qf.Context(
        flavour=flavour,
        folder="nbs/optimization",
        cited=CITED,
        tags={"TASK-1": "nbs/foundations/20_tasks.ipynb"},
        repository="https://repo/",
        **more,
    )


def code(source, outputs=(), **more):
    return {
        "cell_type": "code",
        "id": "c1",
        "metadata": {},
        "source": source,
        "outputs": list(outputs),
        "execution_count": 1,
    } | more


def md(source):
    return {"cell_type": "markdown", "id": "m1", "metadata": {}, "source": source}


def convert(*cells, flavour="quarto"):
    return qf.convert(
        {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5},
        context(flavour),
    )[0]["cells"]


# --- directives


@pytest.mark.parametrize(
    "source, names",
    [
        ("#| export\nx = 1", [("export", "")]),
        ("#|export\nx = 1", [("export", "")]),
        ("#| default_exp optimization.maml", [("default_exp", "optimization.maml")]),
        (
            '#| label: fig-a\n#| fig-cap: "One: two"\nplot()',
            [("label", "fig-a"), ("fig-cap", '"One: two"')],
        ),
        ("#| fig-cap: long\n#|   caption\nplot()", [("fig-cap", "long caption")]),
        ("x = 1\n#| export", []),
        ("", []),
    ],
)
def test_directives_are_read_in_both_forms(source, names):
    assert qf.split_directives(source)[0] == names


@pytest.mark.parametrize(
    "source",
    [
        "#| hide\nassert True",
        "#| default_exp x.y",
        "#| export\n",
        "#| include: false\nx = 1",
        "   \n",
    ],
)
def test_cells_that_are_not_shown(source):
    assert convert(code(source)) == []


def test_exported_code_stays_and_names_its_module():
    cells = convert(
        code("#| default_exp optimization.maml"),
        code("#| export\ndef f():\n    return 1"),
    )
    assert [c["cell_type"] for c in cells] == ["code", "markdown"]
    assert cells[0]["source"] == ["def f():\n", "    return 1"]
    assert (
        "[`metalearn_book.optimization.maml`](../appendices/api/optimization.md#api-optimization-maml)"
        in qf.text_of(cells[1])
    )
    assert cells[1]["id"] != cells[0]["id"]


@pytest.mark.parametrize(
    "head",
    [
        (
            "#| label: fig-a\n"
            '#| fig-cap: "Loss: falling, for $\\alpha$ = 0.1"\n'
            "#| fig-alt: 'it''s a curve'"
        ),
        "#| fig-cap: a: b # c\n#| fig-cap: twice",
        "#| hide_input\n#| echo: false",
        "#| export\n#| label: fig-b",
        "#| fig-cap: yes, [and] {no}\n#| code-fold: true\n#| eval: false",
        '#| fig-cap: "a \\"quoted\\" word, 50 % of *all*"',
    ],
)
def test_what_is_left_is_a_yaml_mapping_without_duplicates(head):
    (cell, *_) = convert(code(head + "\nx = 1"))
    lines = [
        line[3:] for line in qf.text_of(cell).split("\n") if line.startswith("#| ")
    ]

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(k) for k, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key in {keys}"
        return {
            loader.construct_object(k): loader.construct_object(v)
            for k, v in node.value
        }

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    found = yaml.load("\n".join(lines), Strict)
    assert found is None or isinstance(found, dict)
    assert qf.text_of(cell).endswith("x = 1")
    assert "export" not in (found or {})


def test_a_caption_means_what_it_looks_like():
    (cell,) = convert(code('#| fig-cap: "step $\\alpha$"\nplot()'))
    assert yaml.safe_load(cell["source"][0][3:]) == {"fig-cap": "step $\\alpha$"}


def test_progress_bars_are_no_part_of_the_book():
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": "50%"},
        {
            "output_type": "display_data",
            "data": {"application/vnd.jupyter.widget-view+json": {}},
        },
        {"output_type": "stream", "name": "stdout", "text": "0.97"},
    ]
    assert [o["text"] for o in convert(code("run()", outputs))[0]["outputs"]] == [
        ["0.97"]
    ]


@pytest.mark.parametrize("flavour", ["quarto", "myst"])
def test_every_text_is_a_list_of_lines(flavour):
    "Quarto joins the lines of a text in one piece without their line breaks."
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "one\n\ntwo\n"},
        {
            "output_type": "execute_result",
            "data": {"text/plain": "a\nb"},
            "metadata": {},
            "execution_count": 1,
        },
    ]
    cell, text = convert(code("x = 1\n\nx", outputs), md("a\n\nb\n"), flavour=flavour)
    assert cell["source"] == ["x = 1\n", "\n", "x"] and text["source"] == [
        "a\n",
        "\n",
        "b\n",
    ]
    assert cell["outputs"][0]["text"] == ["one\n", "\n", "two\n"]
    assert cell["outputs"][1]["data"] == {"text/plain": ["a\n", "b"]}


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(separator):
    assert qf.as_lines(f"a{separator}b\nc") == [f"a{separator}b\n", "c"]


def shown(html):
    "The data that Quarto is given for an output with HTML."
    data = {"text/html": html, "text/markdown": "| a |", "text/plain": "in words"}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    return convert(code("show()", [output]))[0]["outputs"][0]["data"]


def test_html_is_handed_over_as_a_raw_block():
    "For `text/html` Quarto adds RequireJS and jQuery of another host to the page."
    data = shown("<table>\n<tr><td>1</td></tr>\n</table>")
    assert data == {
        "text/markdown": [
            "```{=html}\n",
            "<table>\n",
            "<tr><td>1</td></tr>\n",
            "</table>\n",
            "```",
        ]
    }


def test_an_interactive_figure_stands_still_in_an_epub():
    html = (
        '<figure><svg class="v" viewBox="0 0 1 1">'
        '<path d="M0,0"/><path class="p" d=""/></svg>'
        '<input type="range" max="3"><figcaption>c</figcaption></figure>'
        "\n<script>move()</script>"
    )
    text = "".join(shown(html)["text/markdown"])
    live, picture = text.split("\n:::\n\n")
    assert (
        live.startswith('::: {.content-visible when-format="html:js"}') and html in live
    )
    assert picture.startswith('::: {.content-hidden when-format="html:js"}')
    assert (
        "<script" not in picture
        and "<input" not in picture
        and "<figcaption>c<" in picture
    )
    assert 'd="M0,0"' in picture and 'd=""' not in picture, (
        "Quarto would write the second one as `d`"
    )
    xml.etree.ElementTree.fromstring(picture.split("```{=html}\n")[1].split("\n```")[0])


# --- markdown


@pytest.mark.parametrize(
    "kind, quarto, myst",
    [
        ("Note", "::: {.callout-note}", ":::{note}"),
        (
            "Common mistake",
            '::: {.callout-caution title="Common mistake"}',
            ":::{admonition} Common mistake\n:class: caution",
        ),
    ],
)
def test_callouts(kind, quarto, myst):
    text = f"Before.\n\n> **{kind}:** one\n> two\n>\n> - three\n\nAfter."
    for flavour, head in (("quarto", quarto), ("myst", myst)):
        assert (
            qf.callouts(text, flavour)
            == f"Before.\n\n{head}\none\ntwo\n\n- three\n:::\n\nAfter."
        )


def test_two_boxes_in_one_quote_become_two():
    out = qf.callouts("> **Note:** one\n>\n> **Tip:** two", "quarto")
    assert out == "::: {.callout-note}\none\n:::\n\n::: {.callout-tip}\ntwo\n:::"


@pytest.mark.parametrize(
    "text",
    [
        "> an ordinary quote",
        "> **Bold** start",
        "```\n> **Note:** code\n```",
        "> **Remark:** unknown kind",
    ],
)
def test_other_quotes_stay(text):
    assert qf.callouts(text, "quarto") == text


def test_equations_get_anchors_and_references_link_to_them():
    text = (
        "So\n"
        "$$\n"
        "x = 1 \\tag{MAML-2}\n"
        "$$\n"
        "and Eq. (MAML-2) with Eq. (TASK-1), (f) and `Eq. (MAML-2)`."
    )
    quarto = qf.markdown(text, context(), {"MAML-2"})
    assert "[]{#tag-maml-2}$$\nx = 1 \\tag{MAML-2}\n$$" in quarto
    assert (
        "[Eq. (MAML-2)](#tag-maml-2) with "
        "[Eq. (TASK-1)](../foundations/20_tasks.ipynb#tag-task-1), "
        "(f) and `Eq. (MAML-2)`."
    ) in quarto
    myst = qf.markdown(text, context("myst"), {"MAML-2"})
    assert "\n(tag-maml-2)=\n$$" in myst and "[Eq. (TASK-1)](#tag-task-1)" in myst


def test_a_written_link_to_an_equation_is_led_to_it():
    assert (
        qf.markdown("[Eq. (TASK-1)](../foundations/20_tasks.ipynb#a-task)", context())
        == "[Eq. (TASK-1)](../foundations/20_tasks.ipynb#tag-task-1)"
    )


def test_unknown_equations_stay_as_they_are():
    assert qf.markdown("Eq. (NONE-7)", context()) == "Eq. (NONE-7)"


@pytest.mark.parametrize(
    "text, wanted",
    [
        (f"We follow {FINN}.", "We follow @finn2017maml."),
        (f"known ({FINN}; {NICHOL})", "known [@finn2017maml; @nichol2018]"),
        (
            "see [the paper](https://arxiv.org/pdf/1703.03400v3)",
            "see [the paper](https://arxiv.org/pdf/1703.03400v3) [@finn2017maml]",
        ),
        (
            "[Other, 2020](https://arxiv.org/abs/2001.00001)",
            "[Other, 2020](https://arxiv.org/abs/2001.00001)",
        ),
        (f"`{FINN}` and ```\n{FINN}```", f"`{FINN}` and ```\n{FINN}```"),
    ],
)
def test_citations_for_quarto(text, wanted):
    assert qf.markdown(text, context()) == wanted


def test_citations_of_the_offline_edition_lead_to_its_bibliography():
    seen = []
    assert (
        qf.markdown(FINN, context("myst", on_cite=seen.append))
        == "[Finn et al., 2017](#ref-finn2017maml)"
    )
    assert seen == ["finn2017maml"]


@pytest.mark.parametrize(
    "url, wanted",
    [
        (
            "../foundations/20_tasks.ipynb#episodes",
            "../foundations/20_tasks.ipynb#episodes",
        ),
        ("#here", "#here"),
        ("https://example.org/a", "https://example.org/a"),
        (
            "../../results/optimization/10_maml.json",
            "https://repo/results/optimization/10_maml.json",
        ),
        (
            "../../metalearn_book/optimization/maml.py",
            "https://repo/metalearn_book/optimization/maml.py",
        ),
        ("../../index.qmd", "../../index.qmd"),
    ],
)
def test_links_to_files_that_are_no_pages_go_to_the_repository(url, wanted):
    assert qf.rewrite_url(url, context()) == wanted


def test_the_offline_edition_asks_no_host_for_badges():
    badge = "[![Open in Colab](https://host/badge.svg)](https://colab.research.google.com/x)"
    assert (
        qf.markdown(badge, context("myst"))
        == "[Open in Colab](https://colab.research.google.com/x)"
    )
    assert qf.markdown(badge, context()) == badge


@pytest.mark.parametrize(
    "text",
    [
        "$a$ and \\$5 (x) $b_{i}$",
        "Cost: 5$ or 6$",
        "| a | $|x|$ |\n|---|---|\n| b | c |",
        "<!-- [x](y) -->",
        "a\n\n- b\n  - c\n",
    ],
)
def test_other_text_is_untouched(text):
    assert qf.markdown(text, context()) == text


@pytest.mark.parametrize(
    "heading, slug, pandoc",
    [
        ("The meta-gradient", "the-meta-gradient", "the-meta-gradient"),
        ("What does `MAML` cost?", "what-does-maml-cost", "what-does-maml-cost"),
        ("A & B: *why*", "a--b-why", "a-b-why"),
        ("2. Step", "2-step", "step"),
        (
            "Assigning to `model.parameters`",
            "assigning-to-modelparameters",
            "assigning-to-model.parameters",
        ),
    ],
)
def test_anchors_of_headings(heading, slug, pandoc):
    assert qf.slug(heading) == slug
    assert qf.pandoc_slug(heading) == pandoc


# --- the script


def test_the_script_works_from_any_folder(tmp_path):
    notebook = {
        "cells": [md(f"# T\n\n{FINN}"), code("#| hide\nx = 1")],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "quarto_filter.py")],
        input=json.dumps(notebook),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert [c["source"] for c in json.loads(run.stdout)["cells"]] == [
        ["# T\n", "\n", "@finn2017maml"]
    ]


def test_the_script_needs_the_standard_library_only(tmp_path):
    notebook = {
        "cells": [md("ä 中文")],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    run = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "tools" / "quarto_filter.py")],
        input=json.dumps(notebook).encode(),
        capture_output=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert json.loads(run.stdout.decode("utf-8"))["cells"][0]["source"] == ["ä 中文"]


def chapters():
    return sorted(
        p.relative_to(ROOT).as_posix()
        for p in ROOT.glob("nbs/**/*.ipynb")
        if ".ipynb_checkpoints" not in p.parts
    )


@pytest.mark.parametrize("file", chapters())
def test_every_chapter_goes_through(file):
    notebook = json.loads((ROOT / file).read_text(encoding="utf-8"))
    ctx = qf.book_context((ROOT / file).parent)
    cells, numbers = qf.convert(notebook, ctx)
    assert len(cells["cells"]) == len(numbers)
    for cell in cells["cells"]:
        head = (
            [
                line[3:]
                for line in qf.text_of(cell).split("\n")
                if line.startswith("#| ")
            ]
            if cell["cell_type"] == "code"
            else []
        )
        found = yaml.safe_load("\n".join(head))
        assert found is None or (isinstance(found, dict) and len(found) == len(head))
        assert "\ue000" not in qf.text_of(cell) and "\ue002" not in qf.text_of(cell)


# --- the bibliography


def test_addresses_of_one_work_are_one():
    for url in (
        "https://arxiv.org/abs/1703.03400",
        "http://arxiv.org/pdf/1703.03400v3",
        "https://www.arxiv.org/pdf/1703.03400.pdf",
    ):
        assert bibliography.normal(url) == "arxiv:1703.03400"
    assert (
        bibliography.normal("https://aclanthology.org/D19-1131/")
        == bibliography.normal("https://www.aclweb.org/anthology/D19-1131.pdf")
        == "acl:d19-1131"
    )
    assert bibliography.normal("https://doi.org/10.1145/1.2") == "doi:10.1145/1.2"


def test_a_doi_of_the_anthology_is_known_by_its_page():
    (entry,) = bibliography.parse(
        "@inproceedings{larson, author={Larson, Stefan}, title={A {B}}, "
        "booktitle={E}, year=2019, doi={10.18653/v1/D19-1131}}"
    )
    assert (
        bibliography.index([entry])["acl:d19-1131"] == "larson"
        and entry["year"] == "2019"
        and bibliography.plain(entry["title"]) == "A B"
    )


def test_names():
    (e,) = bibliography.parse(
        "@misc{k, "
        "author={Arnold, Sébastien M. R. and van der Berg, Jan and Oswald, Eve}, "
        "title={T}, year={2020}, eprint={2001.00001}}"
    )
    assert (
        bibliography.long_authors(e)
        == "Arnold, S. M. R., van der Berg, J. and Oswald, E."
    )
    assert bibliography.short_authors(e) == "Arnold et al."


@pytest.mark.parametrize(
    "text, message",
    [
        ("@misc{a, title={x}", "never closed"),
        ("@misc{a, title={x} title={y}}", "given twice"),
        ("@misc{a, title=#}", "must be written"),
    ],
)
def test_a_broken_bibliography_says_where(text, message):
    with pytest.raises(ValueError, match=message):
        bibliography.parse(text)


@pytest.mark.parametrize(
    "code",
    ["import torch\nfrom torch import nn", "#| export\nfrom x import (\n    a,\n)"],
)
def test_cells_of_imports_are_folded_and_no_part_of_the_package(code):
    for flavour in ("quarto", "myst"):
        shown = qf.code_cell(
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {},
                "source": code,
                "outputs": [],
            },
            "part.x",
            qf.Context(flavour),
        )
        assert len(shown) == 1
        folded = (
            "#| code-fold: true" in qf.text_of(shown[0])
            if flavour == "quarto"
            else "hide-input" in shown[0]["metadata"]["tags"]
        )
        assert folded
    assert not qf.only_imports("import torch\nx = 1") and not qf.only_imports(
        "%matplotlib inline"
    )
