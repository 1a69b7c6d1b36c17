"""Entity sets: counts by value, BIO tags, splits that fit the data, damaged files."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from metalearn_book import data
from metalearn_book.data import hub, sources, tagged

DATA = os.environ.get("METALEARN_DATA")
needs_data = pytest.mark.skipif(
    not DATA,
    reason="needs the real data: set METALEARN_DATA to the folder that holds them",
)
ENTITIES = {
    "crossner": 31_187,
    "wnut17": 3_890,
    "btc": 14_885,
    "gum": 8_606,
    "sec_filings": 1_486,
}
BY_DOMAIN = {
    "ai": (100, 350, 431, 14),
    "literature": (100, 400, 416, 12),
    "music": (100, 380, 465, 13),
    "politics": (200, 541, 651, 9),
    "science": (200, 450, 543, 17),
}


@pytest.fixture(autouse=True)
def fresh_cache():
    sources._load.cache_clear()
    yield
    sources._load.cache_clear()


# ---------------------------------------------------------------- by value


@needs_data
@pytest.mark.parametrize("name", ENTITIES)
def test_counts_types_and_tags(name):
    d, card = data.load_dataset_by_name(name), data.describe(name)
    assert (
        d.source == "folder"
        and Counter(d.part) == card.counts
        and len(d.classes) == card.n_classes
    )
    assert sum(tag[0] == "B" for tags in d.tags for tag in tags) == ENTITIES[name]
    assert all(tagged.bio_error(tags) is None for tags in d.tags)
    assert all(
        token and token == token.strip() for tokens in d.tokens for token in tokens
    ) and all(d.tokens)
    split = data.class_split(name)
    by_domain = name in ("crossner", "btc")
    assert sorted(sum(split.values(), [])) == (
        sorted(set(d.row_domains)) if by_domain else d.classes
    )
    assert {len(set(d.row_domains))} == {
        int(card.domains.split()[0]) if card.domains else 1
    }


@needs_data
def test_crossner_by_domain():
    d = data.load_dataset_by_name("crossner")
    for domain, counts in BY_DOMAIN.items():
        rows = d.where(domain=domain)
        parts = Counter(rows.part)
        assert (
            parts["train"],
            parts["validation"],
            parts["test"],
            len(rows.classes),
        ) == counts
    assert d.tokens[0][:6] == [
        "Popular",
        "approaches",
        "of",
        "opinion-based",
        "recommender",
        "system",
    ]
    assert d.tags[0][:6] == ["O", "O", "O", "B-product", "I-product", "I-product"]
    assert set(d.where(classes="enzyme").row_domains) == {"science"}
    with pytest.raises(
        ValueError, match="unknown domain 'musik'.*did you mean 'music'"
    ):
        d.where(domain="musik")


@needs_data
def test_other_sets_by_value():
    wnut = data.load_dataset_by_name("wnut17", part="train")
    i = next(i for i, t in enumerate(wnut.tokens) if "Empire" in t)
    at = wnut.tokens[i].index("Empire")
    assert wnut.tags[i][at : at + 4] == ["B-location", "I-location", "I-location", "O"]
    sec = data.load_dataset_by_name("sec_filings", part="test")
    assert sec.tokens[0][:11] == [
        "Subordinated",
        "Loan",
        "Agreement",
        "-",
        "Silicium",
        "de",
        "Provence",
        "SAS",
        "and",
        "Evergreen",
        "Solar",
    ]
    assert sec.tags[0][4:9] == ["B-ORG", "I-ORG", "I-ORG", "I-ORG", "O"]
    gum = data.load_dataset_by_name("gum").where(domain="news")
    assert gum.tokens[0][:4] == ["Over", "900", "asylum", "seekers"] and gum.tags[0][
        :5
    ] == ["B-person", "I-person", "I-person", "I-person", "O"]
    assert Counter(data.load_dataset_by_name("btc").row_domains)["disaster"] == 200


# ---------------------------------------------------------------- tags


@pytest.mark.parametrize(
    "tags,wrong",
    [
        ([], None),
        (["O", "B-a", "I-a", "B-a", "B-b", "O"], None),
        (["I-a"], "'I-a' at token 0 follows 'O'"),
        (["B-a", "I-b"], "'I-b' at token 1 follows 'B-a'"),
        (["O", "I-a"], "follows 'O'"),
        (["S-a"], "neither"),
        (["B-"], "neither"),
        (["B"], "neither"),
    ],
)
def test_bio_error(tags, wrong):
    error = tagged.bio_error(tags)
    assert error is None if wrong is None else wrong in error


def test_bio_from_types():
    assert tagged.bio_from_types(["a", "a", "O", "a", "b", "b"]) == [
        "B-a",
        "I-a",
        "O",
        "B-a",
        "B-b",
        "I-b",
    ]
    assert tagged.bio_from_types([]) == []


# ---------------------------------------------------------------- what can go wrong


@needs_data
@pytest.mark.parametrize(
    "name,file,damage,error,message",
    [
        ("crossner", "ai/dev.txt", None, FileNotFoundError, "ai/dev.txt is missing"),
        (
            "crossner",
            "music/test.txt",
            lambda b: b[: len(b) // 2].rsplit(b"\n\n", 1)[0],
            RuntimeError,
            "part 'test' has .* rows, expected 2,506",
        ),
        (
            "crossner",
            "ai/train.txt",
            lambda b: b.replace(b"B-product", b"I-product", 1),
            RuntimeError,
            "ai/train.txt, sentence 0: tag 'I-product' at token 3 follows 'O'",
        ),
        (
            "wnut17",
            "emerging.dev.conll",
            lambda b: b.replace(b"\t", b" ", 1),
            RuntimeError,
            "emerging.dev.conll, line 1: expected 2 columns",
        ),
        (
            "wnut17",
            "wnut17train.conll",
            lambda b: b"\xff\xfe" + b,
            RuntimeError,
            "wnut17train.conll.*UnicodeDecodeError",
        ),
        (
            "btc",
            "e.conll",
            lambda b: b.replace(b"\tO", b"\t", 1),
            RuntimeError,
            "e.conll, line 1",
        ),
        (
            "gum",
            "news/GUM_news_ie9.tsv",
            None,
            RuntimeError,
            "part 'all' has .* rows, expected 2,419",
        ),
        (
            "sec_filings",
            "FIN3.txt",
            lambda b: b.replace(b" NNP", b"", 1),
            RuntimeError,
            "FIN3.txt, line 3: expected 4 columns",
        ),
    ],
)
def test_damaged_file_is_named(
    name, file, damage, error, message, tmp_path, monkeypatch
):
    shutil.copytree(Path(DATA) / name, tmp_path / name)
    for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
        path.chmod(0o755)
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    path = tmp_path / name / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(error, match=message):
        data.load_dataset_by_name(name)


@pytest.mark.parametrize("name", ENTITIES)
def test_without_data_the_error_says_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "reachable", lambda address: False)
    assert not data.available(name)
    with pytest.raises(
        FileNotFoundError, match=f"{name}: METALEARN_DATA is not set.*github.com"
    ):
        data.load_dataset_by_name(name)
