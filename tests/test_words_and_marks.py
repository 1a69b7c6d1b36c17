"""Texts cut into words, marks, and examples in the forms in which people keep them."""

import enum
import random

import numpy as np
import pytest
import torch

from metalearn_book.case_studies.few_shot_tagger import Entity
from metalearn_book.case_studies.sequence_labels import mentions_of
from metalearn_book.case_studies.words_and_marks import cut_words, from_characters
from metalearn_book.case_studies.words_and_marks import label_names_of, read_examples
from metalearn_book.case_studies.words_and_marks import split_words


# texts and characters


@pytest.mark.parametrize(
    "text, words",
    [
        ("It's 3.5 m.", ["It", "'", "s", "3.5", "m", "."]),
        ("Rome.Oslo, U.S. 1.a", "Rome . Oslo , U.S . 1 . a".split()),
        ("我在北京", ["我", "在", "北", "京"]),
        ("👍🏽 ok", ["👍", "🏽", "ok"]),
        ("e-mail -x", ["e", "-", "mail", "-", "x"]),
        ("a\u200db\u00adc \u202bd\u202c", ["a\u200db\u00adc", "d"]),  # not seen
        ("\ufeffa\u2060b \ud800c", ["a\u2060b", "c"]),
        ("ภาษาไทยที่", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย", "ที่"]),
        ("កម្ពុជា", ["ក", "ម្", "ពុ", "ជា"]),
        ("ລາວ မြန်", ["ລ", "າ", "ວ", "မြ", "န်"]),
        ("人々か\u3099ｶﾅ", ["人", "々", "か\u3099", "ｶ", "ﾅ"]),
        ("\u845b\U000e0100x\U00031350", ["\u845b\U000e0100", "x", "\U00031350"]),
        ("👩\u200d🚀x", ["👩\u200d🚀", "x"]),
        ("BTS는", ["BTS", "는"]),
        ("  ", []),
        ("a\u0301b\u200bc", ["a\u0301b", "c"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("한국어 text", ["한국어", "text"]),
        ("\U00020000x", ["\U00020000", "x"]),
        ("מה?", ["מה", "?"]),
    ],
)
def test_split_words(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words


@pytest.mark.parametrize("before", ["", "¿", "(", "«", '"', "/", "—", "北", "l’"])
@pytest.mark.parametrize(
    "after",
    [
        "'s",
        "’s",
        "ʼs",
        "＇s",
        "′s",
        "´s",
        "`s",
        "-based",
        "‐based",
        "‑based",
        "–x",
        "—x",
    ]
    + [
        "−x",
        ")",
        "]",
        "»",
        "”",
        "/Oslo",
        "…",
        "·x",
        "_x",
        "@x",
        "&x",
        "|x",
        ":x",
        "是",
    ],
)
def test_a_name_is_a_word_whatever_is_tied_to_it(before, after):
    text = f"in {before}France{after} today"
    words = [text[a:b] for a, b in split_words(text)]
    assert "France" in words
    at = text.index("France")
    assert from_characters(text, [(at, at + 6, "country")])[1].count("B-country") == 1


def test_a_word_is_cut_no_further():
    "What a text is cut into stays as it is, so words and texts agree."
    rng = random.Random(0)
    alphabet = "aBé3.'’-ʼ \u200d\u00ad\u0301北ไที่កក្ក한👩🏽\ufe0f_,\u200b"
    for _ in range(2000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 9)))
        words = [text[a:b] for a, b in split_words(text)]
        assert all(split_words(w) == [(0, len(w))] for w in words), text
        cut, owner = cut_words(words)
        assert owner == list(range(len(words)))
        assert all(
            b <= c for (_, b), (c, _) in zip(split_words(text), split_words(text)[1:])
        )


@pytest.mark.parametrize(
    "text, mention",
    [
        ("Germany", (0, 3, "x")),
        ("a 한국어에서", (2, 5, "x")),
        ("e\u0301t", (0, 1, "x")),
    ],
)
def test_a_mark_inside_a_word_is_refused(text, mention):
    with pytest.raises(ValueError, match="begins or ends inside the word"):
        from_characters(text, [mention])


def test_from_characters_and_back():
    text = "李雷 flew to São Paulo 😀 today"
    at = text.index("São")
    words, tags = from_characters(text, [(0, 2, "person"), (at, at + 9, "city")])
    assert mentions_of(tags) == [(0, 2, "person"), (4, 6, "city")] and words[4:6] == [
        "São",
        "Paulo",
    ]
    words, tags = from_characters(
        "pre-London", [(4, 10, "city")]
    )  # a mention may end or begin inside a word
    assert words[-1] == "London" and tags[-1] == "B-city"


@pytest.mark.parametrize(
    "mention, message",
    [
        ((0, 99, "x"), "outside its 9"),
        ((3, 3, "x"), "is empty"),
        ((5, 2, "x"), "is empty"),
        ((3, 4, "x"), "is empty"),
        ((-1, 2, "x"), "outside"),
    ],
)
def test_bad_character_mentions(mention, message):
    with pytest.raises(ValueError, match=message):
        from_characters("abc d\u200b ef", [mention]) if mention != (
            0,
            99,
            "x",
        ) else from_characters("abc defgh", [mention])


# what people have


IN_ROME = (["in", "Rome"], ["O", "B-city"])


class Span:
    "As spaCy has them."

    start_char, end_char, label_ = 3, 7, "city"


@pytest.mark.parametrize(
    "example",
    [
        IN_ROME,
        ["in Rome", [[3, 7, "city"]]],
        ("in Rome", [(3, 7, "city")]),
        ("in Rome", {"entities": [(3, 7, "city")]}),
        ("in Rome", [Entity(3, 7, "city", 0.4, "Rome")]),
        ("in Rome", [Span()]),
        ("in Rome", np.array([(3, 7, "city")], dtype=object)),
        (np.str_("in Rome"), [(np.int64(3), np.int32(7), np.str_("city"))]),
        {"text": "in Rome", "entities": [{"start": 3, "end": 7, "label": "city"}]},
        {"text": "in Rome", "spans": [{"start": 3, "end": 7, "type": "city"}]},
        {"tokens": ["in", "Rome"], "tags": ["O", "U-city"]},
        {"tokens": ["in", "Rome"], "ner_tags": [0, 1]},
        {"tokens": np.array(["in", "Rome"]), "ner_tags": np.array([0, 1])},
        {"words": ("in", "Rome"), "labels": torch.tensor([0, 1])},
        (np.array(["in", "Rome"]), np.array(["O", "B-city"])),
        (["in", "Rome"], [(1, 2, "city", 0.9)]),
    ],
)
def test_forms_of_an_example(example):
    found = read_examples([example], label_names=["O", "B-city", "I-city"])
    assert found == [IN_ROME]
    assert all(type(w) is str for w in found[0][0] + found[0][1])


def test_members_of_an_enum_are_the_texts_that_they_stand_for():
    kind = enum.Enum(
        "Kind", {"CITY": "city", "TEXT": "in Rome", "WORD": "in"}, type=str
    )
    for example in (
        (kind.TEXT, [(3, 7, kind.CITY)]),
        ([kind.WORD, "Rome"], [(1, 2, kind.CITY)]),
        ([kind.WORD, "Rome"], ["O", "B-city"]),
    ):
        assert read_examples([example]) == [IN_ROME]


def test_names_of_numbers_have_an_order():
    numbered = [(["in", "Rome"], [0, 1])]
    numbers = {"I-city": 2, "B-city": 1, "O": 0}
    assert read_examples(numbered, label_names=numbers) == [IN_ROME]
    with pytest.raises(ValueError, match="label_names is a set"):
        read_examples(numbered, label_names={"O", "B-city"})


def test_examples_by_column_and_table():
    two = [IN_ROME, IN_ROME]
    columns = {"tokens": [IN_ROME[0]] * 2, "ner_tags": [[0, 1]] * 2}
    names = {0: "O", 1: "B-city"}
    assert read_examples(columns, label_names=names) == two
    assert read_examples([w for w, _ in two], [t for _, t in two]) == two
    assert read_examples(zip(["in Rome"] * 2, [[(3, 7, "city")]] * 2)) == two
    pandas = pytest.importorskip("pandas")
    assert read_examples(pandas.DataFrame(columns), label_names=names) == two

    class Rows(list):
        features = {"ner_tags": type("S", (), {"feature": type("L", (), {})})}

    Rows.features["ner_tags"].feature.names = ["O", "B-city"]
    rows = Rows({"tokens": w, "ner_tags": t} for w, t in zip(*columns.values()))
    assert read_examples(rows) == two


def test_words_without_a_label():
    names = ["O", "B-city", "I-city"]
    rows = [{"tokens": list("abcd"), "ner_tags": [-100, 1, -100, 2]}]
    assert read_examples(rows, label_names=names)[0][1] == [
        None,
        "B-city",
        *["I-city"] * 2,
    ]
    assert read_examples([(["a", "b"], ["B-x", None])])[0][1] == ["B-x", None]


def test_given_words_are_cut_like_texts():
    words, tags = ["Germany's", "St.-Malo", "\u200b"], ["B-c", "B-x", "O"]
    cut, labels = read_examples([(words, tags)])[0]
    assert cut == ["Germany", "'", "s", "St", ".", "-", "Malo", ""]
    assert labels == ["B-c", "I-c", "I-c", "B-x", *["I-x"] * 3, "O"]


@pytest.mark.parametrize(
    "example, message",
    [
        ("in Rome", "is no example"),
        (["in", "Rome", "O"], "is no example"),
        ([Entity(3, 7, "city", 0.4, "Rome")], "zip"),
        (("in Rome", {"cats": {}}), "without 'entities'"),
        ({"text": "in Rome"}, "it needs 'text' and"),
        (("in Rome", "B-city"), "must be a list"),
        (("in Rome", None), "must be a list"),
        (("in Rome", [("city", 3, 7)]), "must be a string"),
        (("in Rome", [(3, 7)]), "is no mention"),
        (("in Rome", [(3.0, 7.5, "city")]), "whole number"),
        (("in Rome", [(True, 7, "city")]), "whole number"),
        (("in Rome", [(-4, 7, "city")]), "start must be at least 0, got -4"),
        ((["in", "Rome"], [0, -101]), "must be at least -100, got -101"),
        (("in Rome", [(3, 7, "")]), "must be a string"),
        (("in Rome", [{"start": 3, "label": "x"}]), "whole number"),
        ((["in", "Rome"], [0, 7]), "none of the 3"),
        ((["in", "Rome"], [0, 1.5]), "whole number"),
        ((["in", "Rome"], [0, -1]), "none of the 3"),
        ((["in", 3], ["O", "O"]), "a word is the int"),
        ((["in", "Rome"], ["O", "city"]), "neither O nor B-type"),
        ((3, ["O"]), "a text or a list of words"),
    ],
)
def test_a_wrong_form_names_its_row(example, message):
    with pytest.raises(ValueError, match=message) as error:
        read_examples([IN_ROME, example], label_names=["O", "B-city", "I-city"])
    assert "[1]" in str(error.value) or "sentence 1" in str(error.value)


@pytest.mark.parametrize(
    "examples, message",
    [
        ("in Rome", "must be a list"),
        (None, "must be a list"),
        ({"text": "in Rome", "entities": []}, "put this one in a list"),
        ({"tokens": ["in", "Rome"], "ner_tags": [0, 1]}, "put this one in a list"),
        ([{"tokens": ["a"], "ner_tags": [1]}], "pass label_names"),
    ],
)
def test_wrong_examples(examples, message):
    with pytest.raises(ValueError, match=message):
        read_examples(examples)


def test_names_of_numbered_tags():
    assert label_names_of([], ("O", "B-x")) == ["O", "B-x"]
    assert label_names_of([], {"1": "B-x", "0": "O"}) == ["O", "B-x"]
    assert label_names_of([], None) is None
