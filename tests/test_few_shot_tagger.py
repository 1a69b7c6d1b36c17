"""The tagger on good, bad and odd input, and its folder."""

import copy
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from metalearn_book.case_studies.few_shot_tagger import Entity, FewShotTagger
from metalearn_book.case_studies.few_shot_tagger import TaggerStart, calibrated
from metalearn_book.case_studies.few_shot_tagger import fit_scores, show_entities
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, mentions_of
from metalearn_book.case_studies.sequence_labels import only_types
from metalearn_book.case_studies.starts import Start, compress, weights_sha256
from metalearn_book.case_studies.word_vectors import WordModel
from metalearn_book.case_studies.words_and_marks import split_words
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
    return TaggerStart.from_sources(encoder, {"tiny": pool}, 60, lr=1e-3, head_lr=1e-2)


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


@pytest.fixture(scope="module")
def tagger(start, pool, episode):
    return FewShotTagger(start, lr=1e-3, head_lr=1e-2).fit(episode.sentences(pool))


IN_ROME = (["in", "Rome"], ["O", "B-city"])


# the tagger


def test_nested_mentions_are_refused(start):
    with pytest.raises(ValueError, match="can't nest"):
        FewShotTagger(start).fit(
            [("University of Oxford", [(0, 20, "org"), (14, 20, "city")])]
        )


def test_names_are_found_whatever_is_tied_to_them(encoder):
    "Fitted on a possessive, the tagger answers with names and not with what is tied."
    texts = ["france's economy", "a london-based bank from norway’s capital"]
    marks = [[(0, 6, "place")], [(2, 8, "place"), (25, 31, "place")]]
    with pytest.warns(UserWarning, match="TaggerStart.from_sources"):
        tagger = FewShotTagger(
            TaggerStart.from_encoder(encoder), lr=1e-2, head_lr=1e-1, calibrate=False
        ).fit(texts, marks)
    found = [[e.text for e in row] for row in tagger.predict(texts)]
    assert found == [["france"], ["london", "norway"]]
    words = [t.split() for t in texts]
    spans = [
        [words[i][a:b] for a, b, *_ in row] for i, row in enumerate(tagger.find(words))
    ]
    assert spans == [[["france's"]], [["london-based"], ["norway’s"]]]
    places = [split_words(t) for t in texts]
    cut = [[t[a:b] for a, b in row] for t, row in zip(texts, places)]
    for row, mentions, where in zip(tagger.predict(texts), tagger.find(cut), places):
        at = [(where[a][0], where[b - 1][1], k, p) for a, b, k, p in mentions]
        assert [(e.start, e.end, e.type, e.score) for e in row] == at
    assert tagger.score(texts, marks) == 1.0


def test_the_contract_of_estimators(start, tagger, pool, episode):
    "Arguments stay as they are, a copy has the same ones, and refitting forgets."
    texts = [" ".join(w) for w in pool.tokens[:20]]
    clone = type(tagger)(**tagger.get_params())
    assert clone.get_params() == tagger.get_params() and clone.types is None
    examples = episode.sentences(pool)
    other = clone.fit([IN_ROME]).fit(examples)
    assert other.predict(texts) == tagger.predict(texts)
    assert repr(FewShotTagger(start, lr=0.5)).endswith("lr=0.5)")
    with pytest.raises(ValueError, match="has no parameter 'rate'"):
        clone.set_params(rate=1)
    high = copy.copy(tagger).set_params(threshold=1.0)
    assert not any(high.predict(texts)) and any(tagger.predict(texts))
    p = sorted(e.score for row in tagger.predict(texts) for e in row)
    some = copy.copy(tagger).set_params(threshold=p[len(p) // 2]).predict(texts)
    assert sum(map(len, some)) == sum(v >= p[len(p) // 2] for v in p)
    assert 0 < tagger.score(examples) <= 1


def test_scikit_learn_searches(start, pool, episode, tmp_path):
    search = pytest.importorskip("sklearn.model_selection").GridSearchCV
    grid = {"seed": np.arange(2), "lr": np.array([0.0, 1e-3], dtype=np.float32)}
    examples = episode.sentences(pool)
    first = FewShotTagger(start, calibrate=False, steps=np.int64(1))
    words, tags = zip(*examples)
    best = search(first, grid, cv=2).fit(words, tags).best_estimator_
    best.save(tmp_path / "m")
    assert FewShotTagger.load(tmp_path / "m").steps == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"lr": -1}, "lr must be a finite number at least 0"),
        ({"head_lr": float("nan")}, "head_lr must be"),
        ({"lr": "fast"}, "lr must be"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"threshold": 2}, "threshold must be .* at most 1"),
        ({"lean": None}, "lean must be a finite number"),
        ({"seed": -1}, "seed must be"),
        ({"seed": "x"}, "seed must be"),
        ({"on_empty": "drop"}, "on_empty must be"),
    ],
)
def test_settings_out_of_range(start, settings, message):
    with pytest.raises(ValueError, match=message):
        FewShotTagger(start, **settings)
    later = FewShotTagger(start)
    for name, value in settings.items():
        setattr(later, name, value)
    with pytest.raises(ValueError, match=message):
        later.fit([IN_ROME])


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(start, device):
    with pytest.raises(ValueError, match="can't be used here"):
        FewShotTagger(start, device=device).fit([IN_ROME])


def test_a_device_that_holds_no_numbers(start):
    with pytest.raises(ValueError, match="device='meta' holds no numbers"):
        FewShotTagger(start, device="meta").fit([IN_ROME])


def test_a_device_that_is_there(start):
    assert start.to("cpu") is start and start.to(None) is start
    assert FewShotTagger(start, device="cpu", steps=1).fit([IN_ROME]).types_ == ["city"]


def test_a_rate_of_zero_is_a_rate(start):
    still = FewShotTagger(start, lr=0, head_lr=0.0).fit([IN_ROME]).state_.detector
    parameters = zip(still.parameters(), start.detector.parameters())
    assert all(torch.equal(a, b) for a, b in parameters)


def test_nothing_is_made_without_saying_where(encoder, start, pool, episode, tmp_path):
    examples = episode.sentences(pool) * 3
    text = [" ".join(w) for w in pool.tokens[:5]]
    expected = FewShotTagger(start, steps=2).fit(examples).predict(text)
    with torch.device("meta"):
        tagger = FewShotTagger(start, steps=2).fit(examples)
        assert tagger.predict(text) == expected
        tagger.save(tmp_path / "t")
        assert FewShotTagger.load(tmp_path / "t").predict(text) == expected
        plain = FewShotTagger(TaggerStart.from_encoder(encoder), steps=1)
        plain.fit(examples).predict(text)


def test_default_type_and_inference_mode(start, encoder, pool, episode):
    examples, text = episode.sentences(pool), [" ".join(w) for w in pool.tokens[:5]]
    expected = FewShotTagger(start, steps=2).fit(examples).predict(text)
    with torch.inference_mode():
        assert FewShotTagger(start, steps=2).fit(examples).predict(text) == expected
        inside = TaggerStart.from_encoder(encoder)
    FewShotTagger(inside, steps=1).fit(examples).predict(text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FewShotTagger(start, steps=2).fit(examples).predict(text) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert FewShotTagger(start, steps=2).fit(examples).predict(text) == expected
        plain = TaggerStart.from_encoder(encoder)
        FewShotTagger(plain, steps=1).fit(examples).predict(text)
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_threads(encoder, tagger, pool):
    "One predicts while another encodes with the same encoder."
    texts, wrong = [" ".join(w) for w in pool.tokens[:8]], []
    expected, vectors = tagger.predict(texts), encoder.encode(texts)

    def often(act, right):
        try:
            wrong.extend(1 for _ in range(15) if not right(act(texts)))
        except Exception as error:  # whatever a shared state makes
            wrong.append(error)

    acts = [(tagger.predict, lambda found: found == expected)] * 2
    acts.append((encoder.encode, lambda z: torch.allclose(z, vectors, atol=1e-5)))
    threads = [threading.Thread(target=often, args=a) for a in acts]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong


def test_empty_texts_keep_the_rest(tagger):
    with pytest.warns(UserWarning, match=r"texts\[1\] is empty.*\(2 such of 3\)"):
        found = tagger.predict(["go to Rome", "", "\n"])
    assert len(found) == 3 and found[1:] == [[], []]
    strict = copy.copy(tagger).set_params(on_empty="raise")
    with pytest.raises(ValueError, match=r"texts\[1\] is empty"):
        strict.predict(["ok", ""])
    assert tagger.find([[], ["go"]])[0] == []


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\x00"])
def test_nothing_but_empty_texts(tagger, text):
    with pytest.warns(UserWarning, match=r"texts\[0\] is empty.*\(2 such of 2\)"):
        assert tagger.predict([text, text], chunk=1) == [[], []]
    strict = copy.copy(tagger).set_params(on_empty="raise")
    with pytest.raises(ValueError, match=r"texts\[0\] is empty"):
        strict.predict([text])
    assert tagger.find([[], []]) == [[], []] and tagger.find([]) == []


def test_a_plain_start_says_so_once(encoder):
    tagger = FewShotTagger(TaggerStart.from_encoder(encoder), steps=1)
    with pytest.warns(UserWarning, match=r"TaggerStart.from_sources"):
        tagger.fit([IN_ROME])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger.fit([IN_ROME])


def test_scores_are_fitted_by_two_numbers():
    "Against scores drawn from a known slope and shift."
    rng = np.random.default_rng(0)
    said = rng.uniform(0.05, 0.95, 20_000)
    truth = [calibrated(p, 0.7, -1.0) for p in said]
    slope, shift = fit_scores(said, rng.uniform(size=len(said)) < truth)
    assert slope == pytest.approx(0.7, abs=0.05) and shift == pytest.approx(
        -1, abs=0.05
    )
    assert fit_scores([0.9], [True])[1] > fit_scores([0.9], [False])[1]
    assert calibrated(0.3, 1, 0) == pytest.approx(0.3)


def test_calibration_leaves_the_order_alone(start, pool, episode):
    examples, text = episode.sentences(pool), [" ".join(w) for w in pool.tokens[:20]]
    raw = FewShotTagger(start, calibrate=False).fit(examples).predict(text)
    fair = FewShotTagger(start).fit(examples)
    both = list(zip(sum(raw, []), sum(fair.predict(text), [])))
    assert all(a.start == b.start and a.type == b.type for a, b in both)
    assert all(b.score == calibrated(a.score, *fair.calibration_) for a, b in both)


def test_only_what_changed_is_saved(tagger, tmp_path):
    tagger.save(tmp_path / "part")
    tagger.save(tmp_path / "whole", whole=True)
    size = lambda name: (tmp_path / name / "weights.safetensors").stat().st_size
    assert size("part") < 0.8 * size("whole")
    text = ["go to Rome now"]
    for name in ("part", "whole"):
        assert FewShotTagger.load(tmp_path / name).predict(text) == tagger.predict(text)


def test_a_saved_tagger_notices_another_encoder(tagger, tmp_path, monkeypatch):
    from metalearn_book.case_studies import few_shot_tagger
    from metalearn_book.foundations.encoders import tiny_encoder

    tagger.save(tmp_path / "t")
    monkeypatch.setattr(
        few_shot_tagger, "load_encoder", lambda *a, **k: tiny_encoder(seed=1)
    )
    with pytest.raises(RuntimeError, match="another encoder 'tiny'"):
        FewShotTagger.load(tmp_path / "t")


def test_a_loaded_tagger_learns_like_a_new_one(start, pool, episode, tmp_path):
    examples, text = episode.sentences(pool), [" ".join(w) for w in pool.tokens[:20]]
    FewShotTagger(start, steps=3).fit([IN_ROME]).save(tmp_path / "t")
    again = FewShotTagger.load(tmp_path / "t").fit(examples).predict(text)
    assert again == FewShotTagger(start, steps=3).fit(examples).predict(text)


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
            and e.type in tagger.types_
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


def bioes(tags):
    "The same mentions, with their last words marked."
    out = []
    for tag, after in zip(tags, [*tags[1:], "O"]):
        goes_on = after == "I-" + tag[2:]
        last = {"B": "S", "I": "E"}
        out.append(tag if tag == "O" or goes_on else last[tag[0]] + tag[1:])
    return out


@pytest.mark.parametrize("form", ["numbers", "columns", "BIOES", "spans of words"])
def test_all_forms_of_examples_fit_alike(start, pool, episode, form):
    examples = episode.sentences(pool)
    names = sorted(
        {t for _, tags in examples for t in tags}, key=lambda t: (t != "O", t)
    )
    numbers = [[names.index(t) for t in tags] for _, tags in examples]
    given, options = {
        "numbers": (
            [{"tokens": w, "ner_tags": n} for (w, _), n in zip(examples, numbers)],
            {"label_names": names},
        ),
        "columns": (
            {"tokens": [np.array(w) for w, _ in examples], "ner_tags": numbers},
            {"label_names": names},
        ),
        "BIOES": ([(w, bioes(t)) for w, t in examples], {}),
        "spans of words": ([(w, mentions_of(t)) for w, t in examples], {}),
    }[form]
    text = [" ".join(words) for words in pool.tokens[:10]]
    make = lambda: FewShotTagger(start, steps=2)
    expected = make().fit(examples).predict(text)
    assert make().fit(given, **options).predict(text) == expected


def test_one_type_only(start, pool):
    kind = pool.classes[0]
    one = pool.where(classes=kind)
    tagger = FewShotTagger(start, steps=2).fit(
        [(w, only_types(t, [kind])) for w, t in zip(one.tokens, one.tags)][:3]
    )
    assert tagger.types_ == [kind] and {
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
        ([("in Rome", [(3, 7, "\ud800")])], "half of a character"),
    ],
)
def test_bad_examples(start, examples, message):
    with pytest.raises(ValueError, match=message):
        FewShotTagger(start).fit(examples)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "texts is empty"),
        ({"text": ["a"]}, "pass one column"),
        ("one string", "put it in a list"),
        ([None], "not a string"),
        (np.array("one string"), "must be a list of strings"),
    ],
)
def test_bad_texts(tagger, texts, message):
    with pytest.raises(ValueError, match=message):
        tagger.predict(texts)


def test_before_fit(start, tmp_path):
    for act in (lambda t: t.predict(["x"]), lambda t: t.save(tmp_path / "t")):
        with pytest.raises(RuntimeError, match="call fit"):
            act(FewShotTagger(start))


def test_a_file_that_a_tokenizer_would_read_is_not_read(tagger, tmp_path):
    tagger.save(tmp_path / "t")
    (tmp_path / "t" / "notes.md").write_text("mine")
    FewShotTagger.load(tmp_path / "t")
    (tmp_path / "t" / "added_tokens.json").write_text('{"economy": 5}')
    with pytest.raises(RuntimeError, match="holds added_tokens.json, which was not"):
        FewShotTagger.load(tmp_path / "t")


def test_settings_that_can_not_be_saved(tagger, tmp_path):
    with pytest.raises(ValueError, match="threshold must be"):
        copy.copy(tagger).set_params(threshold=object()).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_save_and_load(tagger, start, pool, tmp_path):
    texts = [" ".join(w) for w in pool.tokens[:20]]
    tagger.save(tmp_path / "t")
    again = FewShotTagger.load(tmp_path / "t")
    assert (
        again.predict(texts) == tagger.predict(texts) and again.types_ == tagger.types_
    )
    again.fit(
        [(["in", "Rome"], ["O", "B-city"])]
    )  # a loaded tagger can learn another task
    assert again.types_ == ["city"]
    start.save(tmp_path / "s")
    fitted = FewShotTagger(tmp_path / "s", steps=2).fit(
        [(["in", "Rome"], ["O", "B-city"])]
    )
    assert fitted.state_.start.trained
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
        assert tagger.types_[0] in about.read_text()
        about.write_text(about.read_text().replace(tagger.types_[0], "changed"))
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
        for a, b in zip(
            tagger.state_.detector.parameters(), start.detector.parameters()
        )
    )
    moved = FewShotTagger(start, steps=2).fit([(["in", "Rome"], ["O", "B-city"])])
    assert not all(
        torch.equal(a, b)
        for a, b in zip(moved.state_.detector.parameters(), start.detector.parameters())
    )
    tagger.save(tmp_path / "none")
    assert FewShotTagger.load(tmp_path / "none").steps == 0
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
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


def test_a_start_in_a_file(encoder, pool, episode, tmp_path):
    "It is one argument, and a saved tagger refers to it in place of its weights."
    before = WordModel(encoder).state_dict()
    trained = TaggerStart.from_sources(encoder, {"toy": pool}, steps=3).model
    about = {"name": "toy", "kind": "tagger", "encoder": "tiny"}
    about["base_sha256"] = weights_sha256(encoder)
    file = Start(compress(before, trained.state_dict(), 4), about)
    path = file.save(tmp_path / "toy.safetensors")
    examples, text = episode.sentences(pool), [" ".join(pool.tokens[0])]
    expected = FewShotTagger(path, steps=2).fit(examples)
    for same in (file, TaggerStart.from_start(path)):
        assert FewShotTagger(same, steps=2).fit(examples).predict(
            text
        ) == expected.predict(text)
    expected.save(tmp_path / "t")
    path.unlink()  # the folder does not need it
    again = FewShotTagger.load(tmp_path / "t")
    assert again.predict(text) == expected.predict(text)
    assert again.fit(examples).predict(text) == expected.predict(text)
    kept = load_file(tmp_path / "t" / "weights.safetensors")
    own = {"z", "y", "fitted"}
    assert all(t.numel() == 1 for n, t in kept.items() if n.split(".")[0] not in own)
    again.save(tmp_path / "t")
    assert FewShotTagger.load(tmp_path / "t").predict(text) == expected.predict(text)
    again.save(tmp_path / "w", whole=True)
    assert FewShotTagger.load(tmp_path / "w").predict(text) == expected.predict(text)
    assert not (tmp_path / "w" / "start.safetensors").exists()


def test_a_start_that_does_not_fit():
    with pytest.raises(ValueError, match="is for FewShotClassifier"):
        FewShotTagger("intents").fit([IN_ROME])
