"""Targets: stored once, judged by value, shown on a page that says nothing else."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from metalearn_book.book.targets import Target, load_targets, save_targets

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "benchmarks"):
    sys.path.append(str(ROOT / folder))
import target_page
import targets as of_the_engine

ONE = Target("optimization/10_maml", "a lead", "points", "at least", 2, 2.5, "make run",
             ci95=0.3, seeds=3)  # fmt: skip


@pytest.mark.parametrize(
    "sense, value, reached",
    [("at least", 2.0, True), ("at least", 1.99, False), ("at most", 2.0, True),
     ("at most", 2.01, False), ("at most", None, None)],
)  # fmt: skip
def test_reached_is_the_value_against_the_limit(sense, value, reached):
    assert replace(ONE, sense=sense, value=value).reached is reached


def test_stored_in_place_of_the_same_words(tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_RESULTS", str(tmp_path))
    other = replace(ONE, what="another", value=None)
    for scale in ("smoke", "full"):
        monkeypatch.setenv("METALEARN_SCALE", scale)
        save_targets("optimization", [ONE])
    assert not (tmp_path / "targets").exists()
    monkeypatch.setenv("METALEARN_SCALE", "book")
    save_targets("optimization", [ONE, other])
    save_targets("optimization", [replace(ONE, value=1.5, limits="the budget")])
    found = load_targets(tmp_path)["optimization"]
    assert found == [replace(ONE, value=1.5, limits="the budget"), other]
    stored = json.loads((tmp_path / "targets" / "optimization.json").read_text())
    assert [row["reached"] for row in stored.values()] == [False, None]


@pytest.mark.parametrize(
    "change, message",
    [({"sense": "below"}, "sense"), ({"limit": float("nan")}, "limit"),
     ({"value": "2"}, "value"), ({"ci95": -1.0}, "ci95"), ({"what": " "}, "what"),
     ({"seeds": 0}, "seeds"), ({"chapter": "../x"}, "chapter")],
)  # fmt: skip
def test_what_is_no_target_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ONE, **change)


def test_two_of_the_same_words_are_refused():
    with pytest.raises(ValueError, match="two of the same words"):
        save_targets("optimization", [ONE, ONE])
    with pytest.raises(ValueError, match="targets"):
        save_targets("optimization", ["a lead"])


def test_the_page_is_made_from_what_is_stored():
    assert target_page.main(["--check"]) == 0
    text = (ROOT / target_page.PAGE).read_text(encoding="utf-8")
    for part, found in load_targets(ROOT / "results").items():
        for t in found:
            assert t.what in text
            missed = t.reached is False
            assert not missed or t.limits and t.limits in text, (part, t.what)


def test_the_engines_targets_are_those_of_its_stored_rounds():
    path = ROOT / "results" / "benchmarks" / "inner_loop.json"
    numbers = json.loads(path.read_text())["book"]["numbers"]
    found = {t.what: t for t in of_the_engine.targets(numbers)}
    stored = {
        t.what: t
        for t in load_targets(ROOT / "results")["foundations"]
        if t.chapter == of_the_engine.NAME
    }
    assert set(found) == set(stored)
    for what, t in found.items():
        assert stored[what].reached == t.reached
        assert stored[what].value == pytest.approx(t.value, rel=1e-5)


def test_a_row_links_to_its_chapter_and_says_what_was_measured(tmp_path):
    cells = [c.strip() for c in target_page.row(ONE, ROOT).split("|")[1:-1]]
    assert cells == [
        "[a lead](../optimization/10_maml.ipynb)", "at least 2 points",
        "2.5 ± 0.3 points", "3", "yes", "`make run`",
    ]  # fmt: skip
    assert target_page.said(replace(ONE, value=None)) == "–"
