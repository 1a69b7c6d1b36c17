"""Answers to a chapter's questions: one for each, folded, in every way to read it."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import quarto_filter as qf

HEAD, FOOT = "<details><summary>Answers</summary>\n\n", "\n\n</details>"


def texts(path: Path) -> list[str]:
    return [
        qf.text_of(c) if c["cell_type"] == "markdown" else ""
        for c in qf.read_notebook(path)["cells"]
    ]


def answered() -> list[Path]:
    found = sorted((ROOT / "nbs").glob("*/*.ipynb"))
    return [p for p in found if any("<summary>" in t for t in texts(p))]


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"^(\d+)\. ", text, re.M)]


@pytest.mark.parametrize("path", answered(), ids=lambda p: p.stem)
def test_each_question_has_its_answer_right_behind_the_questions(path):
    cells = texts(path)
    (place,) = [i for i, t in enumerate(cells) if "<summary>" in t]
    answers, before = cells[place], cells[place - 1]
    assert answers.startswith(HEAD) and answers.endswith(FOOT)  # blank lines: Markdown
    questions = before.split("## Questions\n")[1]
    assert "\n## " not in questions
    n = len(numbers(questions))
    assert numbers(questions) == numbers(answers) == list(range(1, n + 1))


@pytest.mark.parametrize("flavour", ["quarto", "myst"])
def test_the_filter_leaves_the_fold_as_it_is(flavour):
    context = qf.Context(flavour=flavour, folder="nbs/metric")
    text = f"{HEAD}1. One, $x<y$.\n2. Two.{FOOT}"
    assert qf.markdown(text, context) == text


def test_the_offline_edition_folds_markdown():
    publish = pytest.importorskip("docutils.core").publish_string
    parser = pytest.importorskip("myst_parser.parsers.docutils_").Parser()
    page = publish(
        f"{HEAD}1. *One*.\n2. Two.{FOOT}",
        parser=parser,
        writer_name="html5",
        settings_overrides={"embed_stylesheet": False},
    ).decode()
    fold = page[page.index("<details>") : page.index("</details>")]
    assert "<summary>Answers</summary>" in fold and "<em>One</em>" in fold
    assert fold.count("<li>") == 2
