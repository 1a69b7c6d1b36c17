"""Old addresses of chapters lead to where their content is now."""

from __future__ import annotations

import json
import re

import pytest
import redirects
from notebooks import ROOT, chapters


def test_they_lead_to_chapters_that_exist_and_replace_none():
    known = set(chapters())
    for old, new in redirects.MOVED.items():
        assert old not in known and set(new) <= known
    found = [c for new in redirects.MOVED.values() for c in new]
    assert len(found) == len(set(found))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    made = redirects.write(site)
    return {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in made}


def test_every_old_chapter_has_a_page(pages):
    assert set(pages) == {f"nbs/{old}.html" for old in redirects.MOVED}
    text = pages["nbs/optimization/01_maml.html"]
    assert '|| "10_maml.html";' in text and 'content="3; url=10_maml.html"' in text


def test_headings_and_equations_of_a_divided_chapter_are_found(pages):
    text = pages["nbs/foundations/03_bilevel.html"]
    places = json.loads(re.search(r"places = (\{.*\});", text)[1])
    assert places["tag-tm-1"] == "40_task_models.html"
    assert places["tag-il-3"] == "50_inner_loop.html"
    assert "tag-bi-10" not in places, "its first part has it: the default"
    for chapter in redirects.MOVED["foundations/03_bilevel"][1:]:
        own = set(redirects.anchors(chapter))
        assert own & set(places), f"nothing leads to {chapter}"


def test_a_quick_start_that_was_divided_leads_to_its_rooms(pages):
    text = pages["nbs/foundations/01_learning_to_learn.html"]
    places = json.loads(re.search(r"places = (\{.*\});", text)[1])
    moved = {
        "tag-ltl-4": "13_next_token",
        "what-a-language-model-optimizes": "13_next_token",
        "tag-ltl-17": "15_paradigms",
        "one-notation": "15_paradigms",
        "each-paradigm-by-value": "15_paradigms",
        "pretraining-fine-tuning-meta-learning-three-starts": "15_paradigms",
        "transfer-a-shared-direction": "15_paradigms",
        "hyper-parameter-search-how-far-to-trust-the-start": "15_paradigms",
        "distillation-soft-targets": "15_paradigms",
        "a-meta-learning-project-in-five-steps": "18_project",
        "step-1-choose-a-start": "18_project",
        "step-2-define-the-objective": "18_project",
        "step-3-set-the-hyper-parameters-and-what-is-frozen": "18_project",
        "step-4-run-with-early-stopping": "18_project",
        "step-5-test-once-and-deploy": "18_project",
        "what-it-costs-and-when-it-loses": "18_project",
    }
    assert {a: places.get(a) for a in moved} == {
        a: f"{c}.html" for a, c in moved.items()
    }
    for kept in ("the-table", "tag-ltl-1", "three-families-of-meta-learning"):
        assert kept not in places


def test_a_chapter_that_kept_its_address_leads_on_to_what_it_no_longer_has(tmp_path):
    new = redirects.MOVED["foundations/01_learning_to_learn"]
    first = tmp_path / "nbs" / f"{new[0]}.html"
    first.parent.mkdir(parents=True)
    first.write_text("<html><head><title>x</title></head><body>y</body></html>")
    redirects.write(tmp_path)
    once = first.read_text(encoding="utf-8")
    places = json.loads(re.search(r"places = (\{.*\});", once)[1])
    assert places["tag-ltl-13"] == "15_paradigms.html"
    assert once.index("leads-on") < once.index("</head>") and "<body>y" in once
    redirects.write(tmp_path)  # a page that was not rendered again
    assert first.read_text(encoding="utf-8") == once


def test_a_book_without_these_chapters_gets_no_pages(tmp_path):
    assert redirects.write(tmp_path / "site", tmp_path) == []
    assert not (tmp_path / "site").exists()
    assert (ROOT / "nbs").is_dir()
