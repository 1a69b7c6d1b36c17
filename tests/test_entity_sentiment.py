"""Sentiment of an entity: found or refused, pooled, tuned, scored, kept."""

import json
import warnings

import numpy as np
import pytest
import torch

from metalearn_book.case_studies import entity_sentiment as es
from metalearn_book.foundations.encoders import load_encoder

TEXT = "Alda rose while Brint fell."


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def few():
    return es.entity_mentions(es.invented_news(24))[:2]


@pytest.fixture(scope="module")
def fitted(tiny, few):
    return es.EntitySentiment(tiny, steps=3, n_top=1).fit(*few)


# --- what is a mention ---------------------------------------------------------------


@pytest.mark.parametrize(
    "mention, places",
    [
        ((TEXT, "Alda"), [(0, 4)]),
        ((TEXT, " Brint "), [(16, 21)]),
        ((TEXT, (16, 21)), [(16, 21)]),
        ([TEXT, 16, 21], [(16, 21)]),
        ((TEXT, np.int64(0), np.int64(4)), [(0, 4)]),
        (TEXT, []),
        (("AT&T fell, AT&T's debt rose", "AT&T"), [(0, 4), (11, 15)]),
        (("Ford sued Fordham", "Ford"), [(0, 4)]),
        (("トヨタは上昇", "トヨタ"), [(0, 3)]),
    ],
)
def test_a_mention_is_found(mention, places):
    assert es.read_mention(mention)[1] == places


@pytest.mark.parametrize(
    "mention, said",
    [
        ((TEXT, "Corvo"), "not at all in the text"),
        ((TEXT, "alda"), "in other letters"),
        (("Aldana rose", "Alda"), "inside of longer words"),
        ((TEXT, ""), "must be words"),
        ((TEXT, (5, 99)), "outside"),
        ((TEXT, (-4, 2)), "at least 0"),
        ((TEXT, (4, 4)), "empty"),
        ((TEXT, (9, 10)), "empty"),
        ((TEXT, (0, 3)), "inside the word 'Alda'"),
        ((TEXT, (2, 9)), "inside the word 'Alda'"),
        ((TEXT, (0.0, 4.0)), "whole number"),
        ((TEXT, (0, 4, 7)), "or offsets"),
        ((TEXT, None), "words of the text, or offsets"),
        ((TEXT, float("nan")), "words of the text, or offsets"),
        (("Café rose", "Cafe\u0301"), "another Unicode form"),
        (("", "Alda"), "must be words"),
        (("\u200b \n", (0, 1)), "must be words"),
        (("a \ud800", "a"), "half of a character"),
        ((TEXT,) * 4, "no mention"),
        (None, "no mention"),
        (7, "no mention"),
        ({"text": TEXT}, "no mention"),
    ],
)
def test_what_is_no_mention_is_refused(mention, said):
    with pytest.raises(ValueError, match=said):
        es.read_mention(mention)


def test_the_number_of_a_bad_mention_is_said(fitted):
    with pytest.raises(ValueError, match=r"mentions\[2\]: the entity 'Corvo'"):
        fitted.predict([TEXT, (TEXT, "Alda"), (TEXT, "Corvo")])


def test_one_mention_or_a_table_is_no_list_of_mentions(fitted):
    for one in (TEXT, (TEXT, "Alda")):
        with pytest.raises(ValueError, match="must be a list, got one"):
            fitted.predict(one)
    table = np.array([(TEXT, "Alda"), (TEXT, "Brint")])
    with pytest.raises(ValueError, match="list of pairs"):
        fitted.predict(table)
    assert len(fitted.predict([(TEXT, "Alda")])) == 1
    assert len(fitted.predict(list(map(tuple, table.tolist())))) == 2


def test_an_entity_of_no_token_is_refused(tiny):
    with pytest.raises(ValueError, match="must be words|holds no token|empty"):
        es.mention_windows(tiny, [("Alda \u200b rose", (5, 6))])


# --- windows -------------------------------------------------------------------------


def test_an_entity_behind_the_cut_is_read(tiny):
    rest = "the weather was fine , " * 300
    alone = tiny.tokenizer("Alda", add_special_tokens=False)["input_ids"]
    for text in (rest + "Alda rose", "Alda rose " + rest, rest + "Alda rose " + rest):
        ids, at, _ = es.mention_windows(tiny, [(text, "Alda")])
        assert len(ids) == 1 and len(ids[0]) <= tiny.max_length
        assert [ids[0][j] for j in at[0]] == alone
    good, bad = (
        es.mention_vectors(tiny, [(rest + f"Alda {v} ." + rest, "Alda")])
        for v in ("rose", "fell")
    )
    assert (good - bad).norm() > 1e-4  # what stands beside it counts


def test_each_place_in_a_long_text_has_a_window(tiny):
    text = ("the weather was fine , " * 100 + "Alda rose . ") * 3
    ids, at, owner = es.mention_windows(tiny, [(text, "Alda"), TEXT])
    assert owner == [0, 0, 0, 1] and all(at)
    assert torch.allclose(es.mention_vectors(tiny, [text]).norm(), torch.tensor(1.0))


def test_an_entity_longer_than_a_window_is_refused(tiny):
    name = " ".join(["Alda"] * 40)
    with pytest.raises(ValueError, match="and a window holds"):
        es.mention_windows(tiny, [(f"{name} rose", name)], window=12)


def test_a_window_of_a_short_text_changes_nothing(tiny):
    asked = [(TEXT, "Alda"), (TEXT, "Brint"), TEXT]
    a, b = (es.mention_vectors(tiny, asked, window=w) for w in (None, 30))
    assert torch.equal(a, b)


# --- vectors -------------------------------------------------------------------------


def test_weights_fall_with_the_distance():
    near = es.near_weights([[2, 3], [0]], 5, reach=2.0)
    away = torch.tensor([[2.0, 1, 0, 0, 1], [0, 1, 2, 3, 4]])
    assert torch.allclose(near, torch.exp(-away / 2))
    assert es.near_weights([[1]], 3, 0.0).tolist() == [[0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match="at most 2"):
        es.near_weights([[3]], 3)


def test_order_batches_and_copies_do_not_matter(tiny):
    asked = [(TEXT, "Alda"), TEXT, ("Corvo fell.", "Corvo"), (TEXT, "Brint")]
    z = es.mention_vectors(tiny, asked)
    for size in (1, 3):
        again = es.mention_vectors(tiny, [*asked[::-1], *asked], size)
        assert torch.allclose(again[4:], z, atol=1e-5)
        assert torch.allclose(again[:4], z.flip(0), atol=1e-5)


def test_a_text_alone_is_its_mean_twice(tiny):
    z = es.mention_vectors(tiny, [TEXT])[0]
    whole = tiny.encode([TEXT])[0] / 2**0.5
    assert torch.allclose(z, torch.cat([whole, whole]), atol=1e-5)


def test_a_mask_of_nothing_is_refused():
    hidden, ones = torch.ones(1, 2, 3), torch.ones(1, 2)
    with pytest.raises(ValueError, match="near must hold weights"):
        es.mention_pool(hidden, ones, 0 * ones)


# --- two texts in one -----------------------------------------------------------------


def stitched(tiny, mentions, y, n_pairs=20, window=None, seed=0):
    ids, at, _ = es.mention_windows(tiny, mentions)
    found = es._stitched(tiny, ids, at, torch.tensor(y), n_pairs, window, seed)
    return ids, at, found


def test_a_stitched_pair_is_both_texts_and_asks_about_both(tiny):
    asked = [(TEXT, "Alda"), (TEXT, "Brint"), ("Corvo fell.", "Corvo"), "a fine day"]
    y = [0, 1, 1, 0]
    ids, at, (rows, places, of) = stitched(tiny, asked, y)
    assert len(rows) == len(places) == len(of) == 40
    assert {tuple(sorted(of[i : i + 2])) for i in range(0, 40, 2)} == {
        (0, 1), (0, 2), (1, 3), (2, 3)
    }  # fmt: skip
    for row, place, i, j in zip(rows, places, of, range(40)):
        assert rows[j ^ 1] == row and y[of[j ^ 1]] != y[i]
        own = [ids[i][k] for k in at[i] if 0 < k < len(ids[i]) - 1]  # no special ones
        assert [row[k] for k in place] == own
        left, right = (ids[of[k]][1:-1] for k in (j - j % 2, j - j % 2 + 1))
        assert row == [ids[0][0], *left, *right, ids[0][-1]]
    again = stitched(tiny, asked, y)[2]
    assert again == (rows, places, of) != stitched(tiny, asked, y, seed=1)[2]


def test_long_texts_are_stitched_by_the_halves_that_hold_the_entity(tiny):
    rest = "the weather was fine , " * 40
    asked = [(f"{rest} Alda rose {rest}", "Alda"), (f"Brint fell {rest}", "Brint"),
             rest]  # fmt: skip
    ids, at, (rows, places, of) = stitched(tiny, asked, [0, 1, 2], 30, window=40)
    assert max(map(len, rows)) <= 40
    for row, place, i in zip(rows, places, of):
        if i < 2:
            assert [row[k] for k in place] == [ids[i][k] for k in at[i]]
        else:
            assert len(place) == 19  # half of the window, without the special ones


def test_nothing_is_stitched_where_all_labels_are_the_same(tiny):
    assert stitched(tiny, [(TEXT, "Alda")] * 3, [1, 1, 1])[2] == ([], [], [])
    assert stitched(tiny, [(TEXT, "Alda")] * 3, [1, 0, 1], 0)[2] == ([], [], [])


def test_pairs_are_stitched_by_default_where_mentions_are_many(tiny, few):
    assert [es._pairs_of(n) for n in (60, 119, 120, 240)] == [0.0, 0.0, 0.25, 0.25]
    y = torch.tensor([len(v) % 3 for v in few[1]])

    def weights(mentions, y, stitched):
        more = {"steps": 2, "n_top": 1, "stitched": stitched}
        return es.tune_mentions(tiny, mentions, y, 3, **more)[1]

    assert len(y) < 60
    assert torch.equal(weights(few[0], y, None), weights(few[0], y, 0.0))
    many, of_many = few[0] * 5, torch.cat([y] * 5)
    assert len(of_many) >= 120
    assert torch.equal(weights(many, of_many, None), weights(many, of_many, 0.25))
    assert not torch.equal(weights(many, of_many, None), weights(many, of_many, 0.0))


@pytest.mark.parametrize("n, steps", [(15, 7), (16, 4), (50, 11), (200, 30)])
def test_batches_of_a_length_hold_each_row_once_in_a_pass(n, steps):
    lengths = torch.randint(5, 90, (n,), generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = list(es.shuffled_batches(n, 16, steps))
        after = es._alike(before, lengths.tolist())
    a_pass = -(-n // 16)
    assert len(after) == steps
    for i in range(0, steps, a_pass):
        one = [sum(batches[i : i + a_pass], []) for batches in (before, after)]
        assert sorted(one[0]) == sorted(one[1])


def test_labels_must_be_as_many_as_mentions(tiny):
    for y in ([0], [0, 1, 0]):
        with pytest.raises(ValueError, match="y"):
            es.tune_mentions(tiny, [(TEXT, "Alda"), TEXT], torch.tensor(y), 2, steps=1)


# --- the classifier ------------------------------------------------------------------


def test_it_learns_what_stands_beside_the_name(tiny):
    "Separable by the word next to the entity: a head on frozen vectors is enough."
    texts = [
        f"{a} rose while {b} fell" for a in ("Alda", "Corvo") for b in ("Brint", "X")
    ]
    mentions = [(t, t.split()[i]) for t in texts for i in (0, 3)]
    labels = ["good", "bad"] * len(texts)
    model = es.EntitySentiment(tiny, "none", penalty=1e-6, reach=1.0)
    assert model.fit(mentions, labels).score(mentions, labels) == 1.0


def test_supports_of_one_class_or_none_are_refused(tiny, few):
    with pytest.raises(ValueError, match="at least two classes"):
        es.EntitySentiment(tiny).fit(few[0], ["good"] * len(few[0]))
    with pytest.raises(ValueError, match="mentions is empty"):
        es.EntitySentiment(tiny).fit([], [])
    with pytest.raises(ValueError, match="labels"):
        es.EntitySentiment(tiny).fit(few[0], few[1][:-1])


@pytest.mark.parametrize(
    "options",
    [{"tune": "all"}, {"n_top": 0}, {"n_top": 99}, {"steps": 0}, {"lr": -1.0},
     {"reach": float("nan")}, {"window": 3}, {"window": 10**6}, {"seed": -1},
     {"penalty": 0.0, "tune": "none"}, {"penalty": -1.0}, {"batch_size": 0},
     {"device": "nowhere"}, {"encoder": 7}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(tiny, few, options):
    with pytest.raises(ValueError):
        es.EntitySentiment(**{"encoder": tiny, "steps": 1} | options).fit(*few)


def test_whole_numbers_are_labels_too(tiny, few):
    numbers = [len(v) for v in few[1]]
    model = es.EntitySentiment(tiny, "none").fit(few[0], np.array(numbers))
    assert set(model.predict(few[0]).tolist()) <= set(numbers)
    p = model.predict_proba(few[0])
    assert p.shape == (len(numbers), len(set(numbers))) and np.allclose(p.sum(1), 1)


def test_in_tools_of_scikit_learn(tiny, few):
    selection = pytest.importorskip("sklearn.model_selection")
    model = es.EntitySentiment(tiny, "none")
    found = selection.cross_val_score(model, list(few[0]), few[1], cv=2)
    assert len(found) == 2 and np.isfinite(found).all()


def test_saved_and_loaded(fitted, few, tmp_path):
    before = fitted.predict_proba(few[0])
    folder = fitted.save(tmp_path / "model")
    again = es.EntitySentiment.load(folder)
    assert np.array_equal(again.predict_proba(few[0]), before)
    assert again.get_params()["steps"] == 3
    assert again.save(folder) == folder  # over itself
    part = folder / "head.safetensors"
    damaged = bytearray(part.read_bytes())
    damaged[-1] ^= 1
    part.write_bytes(bytes(damaged))
    with pytest.raises(RuntimeError, match="damaged"):
        es.EntitySentiment.load(folder)
    with pytest.raises(FileNotFoundError):
        es.EntitySentiment.load(tmp_path / "none")


def test_no_text_of_the_examples_is_saved(fitted, few, tmp_path):
    folder = fitted.save(tmp_path / "model")
    about = json.loads((folder / "entity_sentiment.json").read_text())
    assert not any(t in json.dumps(about) for t, _ in few[0])


def test_a_rate_that_ruins_it_is_refused(tiny, few):
    model = es.EntitySentiment(tiny, n_top=1, steps=30, lr=1e6)
    with pytest.raises(RuntimeError, match="lower"):
        model.fit(*few)
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(few[0])


def test_modes_dtypes_and_threads_change_nothing(tiny, few):
    import copy
    import threading

    make = lambda encoder: es.EntitySentiment(encoder, n_top=1, steps=4, seed=3)
    want = make(tiny).fit(*few).predict_proba(few[0])
    noisy = copy.deepcopy(tiny)
    noisy.model.train()
    found = make(noisy).fit(*few)
    found.encoder_.model.train()
    assert np.array_equal(found.predict_proba(few[0]), want)
    torch.set_default_dtype(torch.float64)
    try:
        again = make(tiny).fit(*few).predict_proba(few[0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.abs(again - want).max() < 1e-5
    small = copy.deepcopy(tiny)
    small.model.half()
    assert np.abs(make(small).fit(*few).predict_proba(few[0]) - want).max() < 0.02
    answers = [None] * 3

    def one(i):
        answers[i] = make(tiny).fit(*few).predict_proba(few[0])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert all(np.array_equal(a, want) for a in answers)


# --- data and scores -----------------------------------------------------------------


def test_invented_news_is_the_same_and_its_names_are_apart():
    data = es.invented_news(90)
    assert data.digest() == es.invented_news(90).digest()
    names = {
        p: {s.text for row, q in zip(data.spans, data.part) if q == p for s in row}
        for p in ("train", "test")
    }
    assert names["train"] and names["test"] and not names["train"] & names["test"]
    mixed = [len({s.label for s in row}) > 1 for row in data.spans]
    assert 0.3 < np.mean(mixed) < 0.8


def test_places_with_two_labels_are_left_out():
    from metalearn_book.data import SpanTexts
    from metalearn_book.data.spans import Span

    spans = (Span(0, 4, "good", "Alda"), Span(0, 4, "good", "Alda"),
             Span(16, 21, "bad", "Brint"), Span(16, 21, "good", "Brint"))  # fmt: skip
    data = SpanTexts("small", [TEXT], [()], [spans], ["train"], "generated")
    assert es.entity_mentions(data) == ([(TEXT, (0, 4))], ["good"], [0])


def test_macro_f1_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, a, b = rng.integers(0, 3, (3, 200))
    groups = rng.integers(0, 60, 200)
    score = lambda v: metrics.f1_score(y, v, average="macro")
    assert es.macro_f1(y, a, groups).mean == pytest.approx(score(a))
    both = es.macro_f1(y, a, groups, minus=b)
    assert both.mean == pytest.approx(score(a) - score(b)) and both.is_difference


def test_the_interval_counts_texts_and_not_mentions():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    guess = np.where(rng.random(100) < 0.8, y, 1 - y)
    alone = es.macro_f1(y, guess, range(100)).ci95
    copies = es.macro_f1(np.repeat(y, 4), np.repeat(guess, 4), np.repeat(range(100), 4))
    assert copies.ci95 == pytest.approx(alone, rel=0.05)


def test_the_interval_of_macro_f1_covers():
    "Of 200 sets of 60 texts, those whose interval holds the F1 of endless ones."
    rng = np.random.default_rng(0)

    def texts(n):
        group = np.repeat(np.arange(n), rng.integers(1, 5, n))
        mood, hard = rng.integers(0, 3, n), rng.random(n) < 0.3
        y = mood[group]
        miss = rng.random(len(y)) < np.where(hard[group], 0.8, 0.1)
        return y, np.where(miss, rng.integers(0, 3, len(y)), y), group

    truth, held = es.macro_f1(*texts(20_000), n_boot=2).mean, 0
    for _ in range(200):
        f = es.macro_f1(*texts(60), n_boot=300)
        held += abs(f.mean - truth) <= f.ci95
    assert 183 <= held <= 197  # 190 expected; a binomial's 1 % and 99 %


def test_one_text_has_no_interval_and_other_kinds_are_refused():
    assert np.isnan(es.macro_f1([0, 1], [0, 1], ["a", "a"]).ci95)
    for columns in (
        (["0"], [0], [0]),
        ([0], [0, 1], [0]),
        ([0], [0], []),
        ([], [], []),
    ):
        with pytest.raises(ValueError):
            es.macro_f1(*columns)


def test_the_demo_runs(tiny, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = es.demo(tiny, steps=2)
    assert (
        0 <= right <= 1
        and "mentions of companies that are new" in capsys.readouterr().out
    )
