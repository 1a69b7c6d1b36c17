"""The tagger on good, bad and odd input, and its folder."""

import random

import pytest
import torch

from metalearn_book.case_studies.entities import SpanTyping
from metalearn_book.case_studies.few_shot_tagger import Entity, FewShotTagger
from metalearn_book.case_studies.few_shot_tagger import TaggerStart, from_characters
from metalearn_book.case_studies.few_shot_tagger import show_entities, split_words
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, mentions_of
from metalearn_book.case_studies.sequence_labels import only_types
from metalearn_book.case_studies.tuned_taggers import train_on_sources
from metalearn_book.case_studies.word_vectors import WordModel
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def pool():
    return load_dataset_by_name("tiny_entities").where(part="train")


@pytest.fixture(scope="module")
def start(encoder, pool):
    "A start that was trained for a moment on generated sentences."
    model = WordModel(encoder)
    train_on_sources(model, {"tiny": pool}, 60, lr=1e-3, head_lr=1e-2)
    return TaggerStart(
        model,
        model.top.with_head(model.detector),
        SpanTyping(model.top.with_head(None)),
    )


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


@pytest.fixture(scope="module")
def tagger(start, pool, episode):
    return FewShotTagger(start, lr=1e-3, head_lr=1e-2).fit(episode.sentences(pool))


# texts and characters


@pytest.mark.parametrize(
    "text, words",
    [
        ("It's 3.5 m.", ["It's", "3.5", "m", "."]),
        ("我在北京", ["我", "在", "北", "京"]),
        ("👍🏽 ok", ["👍", "🏽", "ok"]),
        ("e-mail -x", ["e-mail", "-", "x"]),
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


def test_nested_mentions_are_refused(start):
    with pytest.raises(ValueError, match="can't nest"):
        FewShotTagger(start).fit(
            [("University of Oxford", [(0, 20, "org"), (14, 20, "city")])]
        )


# the tagger


def test_offsets_point_into_the_text(tagger, pool):
    texts = ["😀 " + " ".join(w) + " 北京\u200b " for w in pool.tokens[:30]] + [
        "\u200bfine",
        "¿?",
        "x" * 3000,
    ]
    found = tagger.predict(texts)
    assert len(found) == len(texts) and sum(map(len, found)) > 0
    for text, row in zip(texts, found):
        assert all(
            e.text == text[e.start : e.end]
            and e.type in tagger.types
            and 0 < e.score <= 1
            for e in row
        )
        assert all(a.end <= b.start for a, b in zip(row, row[1:]))


def test_a_prediction_does_not_depend_on_the_batch(tagger, pool):
    texts = [" ".join(w) for w in pool.tokens[:40]]
    together, alone = (
        tagger.predict(texts, chunk=7),
        [tagger.predict([t])[0] for t in texts[:10]],
    )
    assert [[(e.start, e.end, e.type) for e in row] for row in together[:10]] == [
        [(e.start, e.end, e.type) for e in row] for row in alone
    ]


def test_nothing_is_lost_in_a_long_text(tagger, pool):
    words = max(pool.tokens[:200], key=len)
    long = " . ".join([" ".join(words)] * 40)
    assert (
        tagger.predict([long])[0][-1].start > 0.9 * len(long)
        or not tagger.predict([" ".join(words)])[0]
    )


def test_characters_and_words_fit_alike(start, pool, episode):
    examples = episode.sentences(pool)
    as_text = []
    for words, tags in examples:
        at = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
        as_text.append(
            (
                " ".join(words),
                [
                    (at[a], at[b - 1] + len(words[b - 1]), t)
                    for a, b, t in mentions_of(tags)
                ],
            )
        )
    text = [" ".join(words) for words in pool.tokens[:20]]
    a, b = (
        FewShotTagger(start, steps=2).fit(e).predict(text) for e in (examples, as_text)
    )
    assert a == b


def test_one_type_only(start, pool):
    kind = pool.classes[0]
    one = pool.where(classes=kind)
    tagger = FewShotTagger(start, steps=2).fit(
        [(w, only_types(t, [kind])) for w, t in zip(one.tokens, one.tags)][:3]
    )
    assert tagger.types == [kind] and {
        e.type
        for row in tagger.predict([" ".join(w) for w in one.tokens[:20]])
        for e in row
    } <= {kind}


def test_a_plain_start_works(encoder, pool, episode):
    tagger = FewShotTagger(TaggerStart.from_encoder(encoder), steps=5).fit(
        episode.sentences(pool)
    )
    assert len(tagger.predict(["hello there"])) == 1 and not tagger.start.trained


@pytest.mark.parametrize(
    "examples, message",
    [
        ([], "there are no sentences"),
        ([(["a"], ["O"])], "no example holds a mention"),
        ([(["a", "b"], ["O"])], "2 words but 1 tags"),
        ([(["a"], ["I-x"])], "token 0"),
        ([("  ", [])], "no words"),
    ],
)
def test_bad_examples(start, examples, message):
    with pytest.raises(ValueError, match=message):
        FewShotTagger(start).fit(examples)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "texts is empty"),
        (["ok", ""], r"texts\[1\] is empty"),
        (["\n\t "], r"texts\[0\] is empty"),
        ("one string", "put it in a list"),
        ([None], "not a string"),
    ],
)
def test_bad_texts(tagger, texts, message):
    with pytest.raises(ValueError, match=message):
        tagger.predict(texts)


def test_before_fit(start, tmp_path):
    for act in (lambda t: t.predict(["x"]), lambda t: t.save(tmp_path / "t")):
        with pytest.raises(RuntimeError, match="call fit"):
            act(FewShotTagger(start))


def test_save_and_load(tagger, start, pool, tmp_path):
    texts = [" ".join(w) for w in pool.tokens[:20]]
    tagger.save(tmp_path / "t")
    again = FewShotTagger.load(tmp_path / "t")
    assert again.predict(texts) == tagger.predict(texts) and again.types == tagger.types
    again.fit(
        [(["in", "Rome"], ["O", "B-city"])]
    )  # a loaded tagger can learn another task
    assert again.types == ["city"]
    start.save(tmp_path / "s")
    fitted = FewShotTagger(tmp_path / "s", steps=2).fit(
        [(["in", "Rome"], ["O", "B-city"])]
    )
    assert fitted.start.trained
    with pytest.raises(RuntimeError, match="was not fitted"):
        FewShotTagger.load(tmp_path / "s")


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "flipped",
        "json",
        "other weights",
        "missing",
        "no tokenizer",
        "another type",
        "nothing",
    ],
)
def test_a_damaged_folder(tagger, start, tmp_path, damage):
    folder = tmp_path / "t"
    tagger.save(folder)
    weights, about = folder / "weights.safetensors", folder / "tagger.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "flipped":
        content = bytearray(weights.read_bytes())
        content[-10] ^= 255
        weights.write_bytes(bytes(content))
    elif damage == "json":
        about.write_text(about.read_text()[:50])
    elif damage == "other weights":
        start.save(tmp_path / "s")
        weights.write_bytes((tmp_path / "s" / "weights.safetensors").read_bytes())
    elif damage == "missing":
        weights.unlink()
    elif damage == "another type":
        assert tagger.types[0] in about.read_text()
        about.write_text(about.read_text().replace(tagger.types[0], "changed"))
    elif damage == "nothing":
        about.unlink()
    else:
        for path in folder.glob("tokenizer*"):
            path.unlink()
    with pytest.raises(
        FileNotFoundError if damage == "nothing" else RuntimeError,
        match="holds no tagger.json" if damage == "nothing" else "damaged",
    ):
        FewShotTagger.load(folder)


def test_saving_keeps_the_settings_and_what_else_lies_there(start, tmp_path):
    tagger = FewShotTagger(
        start, steps=3, lr=2e-4, head_lr=3e-3, lean=0.5, trust=0.2, seed=4
    ).fit([(["in", "Rome"], ["O", "B-city"])])
    tagger.save(tmp_path / "t")
    tagger.save(tmp_path / "t")  # in place of the first
    again = FewShotTagger.load(tmp_path / "t")
    assert [
        getattr(again, n) for n in ("steps", "lr", "head_lr", "lean", "trust", "seed")
    ] == [3, 2e-4, 3e-3, 0.5, 0.2, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="is not a saved tagger"):
        tagger.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_ten_thousand_texts_in_bounded_memory(tagger, monkeypatch):
    "No call of the network sees more than one chunk."
    seen = []
    find = FewShotTagger.find
    monkeypatch.setattr(
        FewShotTagger,
        "find",
        lambda self, sentences: seen.append(len(sentences)) or find(self, sentences),
    )
    texts = ["move money", "go to Rome now"] * 5000
    found = tagger.predict(texts)
    assert len(found) == 10_000 and max(seen) <= 256 and found[:2] == found[-2:]


def test_no_steps_is_an_answer_and_fewer_is_not(start, tmp_path):
    """0 leaves the detector as it was, and is not taken for 'not given'; a saved tagger
    keeps it."""
    tagger = FewShotTagger(start, steps=0).fit([(["in", "Rome"], ["O", "B-city"])])
    assert all(
        torch.equal(a, b)
        for a, b in zip(tagger.detector.parameters(), start.detector.parameters())
    )
    moved = FewShotTagger(start, steps=2).fit([(["in", "Rome"], ["O", "B-city"])])
    assert not all(
        torch.equal(a, b)
        for a, b in zip(moved.detector.parameters(), start.detector.parameters())
    )
    tagger.save(tmp_path / "none")
    assert FewShotTagger.load(tmp_path / "none").steps == 0
    with pytest.raises(ValueError, match="more, or None, got -1"):
        FewShotTagger(start, steps=-1)


def test_show_entities_escapes_html():
    page = show_entities(
        [("<b>Rome</b> & more", [Entity(3, 7, "<city>", 1.0, "Rome")])]
    )
    assert (
        "<b>" not in page.data["text/html"]
        and "&lt;city&gt;" in page.data["text/html"]
        and "&amp; more" in page.data["text/html"]
    )
    assert str(page) == "<b>[Rome](<city>)</b> & more"
