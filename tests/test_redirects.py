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
    assert places["tag-bi-16"] == "50_inner_loop.html"
    assert "tag-bi-1" not in places, "its first part has it: the default"
    for chapter in redirects.MOVED["foundations/03_bilevel"][1:]:
        own = set(redirects.anchors(chapter))
        assert own & set(places), f"nothing leads to {chapter}"


def test_a_book_without_these_chapters_gets_no_pages(tmp_path):
    assert redirects.write(tmp_path / "site", tmp_path) == []
    assert not (tmp_path / "site").exists()
    assert (ROOT / "nbs").is_dir()
