"""Named entity recognition: alignment, decoding, scores, episodes, the methods, and the tagger on bad and odd input."""
import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from metalearn_book.case_studies.ner import (MOST_PIECES, Decomposed, Entity, Episode, EpisodeSampler, Experts, FewShotTagger, FineTuned, NNShot, Prototypical, Score, SpanTyping, StructShot,
                                             TaggerStart, TagTasks, TokenPrototypes, WordModel, abstract_transitions, adapted, any_type, bio_labels, bio_transitions, by_word, check_sentences, combined,
                                             entities, expand_transitions, from_characters, greedy_rows, inputs, leaning, load_episodes, mention_counts, named_types, none_spans, only_types,
                                             piece_labels, repair, save_episodes, score, score_by_type, show_entities, span_inputs, spans_of_words, split_words, stacked,
                                             support_examples, tags_of, token_loss, train_on_sources, viterbi, windows, word_outputs, word_pieces, word_shape)
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.data.tagged import bio_error
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.training import meta_train


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
    return TaggerStart(model, model.top.with_head(model.detector), SpanTyping(model.top.with_head(None)))


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


@pytest.fixture(scope="module")
def tagger(start, pool, episode):
    return FewShotTagger(start, lr=1e-3, head_lr=1e-2).fit(episode.sentences(pool))


# words and pieces

def test_pieces_are_those_of_the_tokenizer(encoder, pool):
    for words in [*pool.tokens[:50], ["Ünï-cödé", "北京", "😀", "don't", "a\u0301"]]:
        assert sum(word_pieces(encoder.tokenizer, words), []) == encoder.tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("word", ["\u200b", "\ufe0f", "\x00", "x" * 5000, "😀" * 100, "ﷺ"])
def test_no_word_is_lost(encoder, word):
    pieces = word_pieces(encoder.tokenizer, ["a", word, "b"])
    assert len(pieces) == 3 and all(1 <= len(p) <= MOST_PIECES for p in pieces)


@pytest.mark.parametrize("sizes, room", [([1] * 500, 40), ([32] * 20, 126), ([5, 32, 1, 1, 32, 32, 7] * 9, 34), ([1], 32), ([3] * 13, 39)])
def test_each_word_is_answered_once(sizes, room):
    cover = spans_of_words(sizes, room)
    assert [i for *_, own in cover for i in own] == list(range(len(sizes)))
    for start, end, own in cover:
        assert sum(sizes[start:end]) <= room and start <= own.start and own.stop <= end


def test_labels_stand_at_first_pieces_of_own_words_only(encoder):
    model = WordModel(encoder)
    words = [f"word{i}" for i in range(100)]
    every = windows(model, [words])
    assert len(every) > 1
    y = piece_labels(every, [list(range(100))], max(len(w.ids) for w in every))
    assert sorted(y[y >= 0].tolist()) == list(range(100))
    into = [{}]
    by_word(every, y, into)
    assert {i: v.item() for i, v in into[0].items()} == {i: i for i in range(100)}


def test_windows_refuse_a_limit_that_a_word_may_exceed(encoder):
    with pytest.raises(ValueError, match="at least 32 are needed"):
        windows(WordModel(encoder), [["a"]], max_length=20)


def test_padding_and_company_change_nothing(encoder):
    model = WordModel(encoder)
    short, long = ["pay", "rent"], ["turn", "the", "lamp", "off", "in", "the", "kitchen"] * 3
    alone = word_outputs(model, [model.top], [short])[0][0]
    together = word_outputs(model, [model.top], [long, short, long])[0][1]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_word_shapes_start_without_effect_and_then_matter(encoder):
    model = WordModel(encoder)
    a, b = (word_outputs(model, [model.top], [[w]])[0][0] for w in ("apple", "Apple"))
    torch.testing.assert_close(a, b)
    with torch.no_grad():
        model.top.shapes.weight[word_shape("Apple")] = 1.0
    assert not torch.allclose(a, word_outputs(model, [model.top], [["Apple"]])[0][0])


@pytest.mark.parametrize("n_top", [0, 3])
def test_a_cut_outside_the_encoder(encoder, n_top):
    with pytest.raises(ValueError, match="give 1 to 2"):
        WordModel(encoder, n_top)


# tags

@pytest.mark.parametrize("sentences, message", [
    ([], "there are no sentences"), ([(["a", "b"], ["O"])], "2 words but 1 tags"), ([([], [])], "no words"), ([(["a", " "], ["O", "O"])], "an empty word"), ([("ab", ["O", "O"])], "got a string"),
    ([(["a"], ["I-x"])], "token 0"), ([(["a", "b"], ["B-x", "I-y"])], "token 1"), ([(["a"], ["B-"])], "neither O nor B-type"), ([(["a"], ["x"])], "neither O nor B-type")])
def test_bad_sentences(sentences, message):
    with pytest.raises(ValueError, match=message):
        check_sentences([(["fine"], ["O"])] * bool(sentences) + sentences)


def random_tags(rng, n, types="abc"):
    return [rng.choice(["O", *(f"{m}-{t}" for t in types for m in "BI")]) for _ in range(n)]


def test_repair_and_mentions_are_consistent():
    rng = random.Random(1)
    for _ in range(500):
        tags = random_tags(rng, rng.randint(1, 10))
        good = repair(tags)
        assert bio_error(good) is None and repair(good) == good
        assert tags_of(entities(good), len(good)) == good
        assert [t == "O" for t in tags] == [t == "O" for t in good]


def test_seqeval_agrees_on_mentions_and_reports():
    pytest.importorskip("seqeval")
    from seqeval.metrics import classification_report, f1_score
    from seqeval.metrics.sequence_labeling import get_entities
    rng = random.Random(2)
    for _ in range(1000):
        tags = random_tags(rng, rng.randint(1, 12))
        assert [(a, b - 1, t) for a, b, t in entities(repair(tags))] == [(a, b, t) for t, a, b in get_entities(tags)]
    true = [repair(random_tags(rng, 8)) for _ in range(200)]
    guess = [[t if rng.random() < 0.8 else "O" for t in tags] for tags in true]
    report = classification_report(true, guess, output_dict=True)
    for t, s in score_by_type(true, guess).items():
        assert (s.precision, s.recall, s.f1, s.true) == pytest.approx((report[t]["precision"], report[t]["recall"], report[t]["f1-score"], report[t]["support"]))
    assert score(true, guess).f1 == pytest.approx(f1_score(true, guess))


def test_scores_of_nothing_and_of_unequal_lengths():
    assert score([["O"]], [["O"]]) == Score() and Score().f1 == Score().precision == Score().recall == 0
    with pytest.raises(ValueError, match="1 sentences but 2"):
        score([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sentence 0 has 1 tags but 2"):
        score([["O"]], [["O", "O"]])


def test_viterbi_by_brute_force_with_any_transitions():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 4):
        for _ in range(30):
            scores, transitions, first = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((n, 4), (4, 4), (4,)))
            every = torch.cartesian_prod(*[torch.arange(4)] * n).view(-1, n)
            total = first[every[:, 0]] + scores[torch.arange(n), every].sum(1) + transitions[every[:, :-1], every[:, 1:]].sum(1)
            path, value = viterbi(scores, transitions, first)
            assert path == every[total.argmax()].tolist() and value == pytest.approx(total.max().item())


def test_viterbi_with_extreme_scores_stays_valid():
    labels = bio_labels(["a", "b"])
    scores = torch.full((6, 5), -1e9)
    scores[:, 2] = 0.0                                            # the network is sure of I-a everywhere
    assert bio_error([labels[i] for i in viterbi(scores, *bio_transitions(labels))[0]]) is None
    with pytest.raises(ValueError, match="at least one word"):
        viterbi(torch.zeros(0, 5), *bio_transitions(labels))


# episodes

def test_episodes_keep_their_promises(pool):
    sampler = EpisodeSampler(pool, 4)
    for seed in range(20):
        k = 1 + seed % 3
        e = sampler.sample(k, 2, random.Random(seed))
        assert len(set(e.types)) == 4 and not set(e.support) & set(e.query)
        for which, low in (("support", k), ("query", 2)):
            counts = sum((mention_counts(tags, e.types) for _, tags in e.sentences(pool, which)), Counter())
            assert all(low <= counts[t] <= 2 * low for t in e.types) and set(counts) == set(e.types)
        assert e == sampler.sample(k, 2, random.Random(seed))


def test_refused_rows_are_refused_for_good():
    rng = random.Random(0)
    for _ in range(200):
        counts = [Counter({t: rng.randint(1, 3) for t in rng.sample("abcd", rng.randint(1, 3))}) for _ in range(12)]
        once, twice = (greedy_rows(counts, "abcd", 2, order) for order in (list(range(12)), [i for i in range(12)] * 2))
        assert twice is None or once == twice or once is None
        if once is None and twice is not None:
            assert len(set(twice)) < len(twice)                  # only by taking a row a second time


def test_impossible_episodes(pool):
    with pytest.raises(ValueError, match="n_way=99"):
        EpisodeSampler(pool, 99)
    with pytest.raises(ValueError, match="lower k, k_query or n_way"):
        EpisodeSampler(pool, 2).sample(10_000, 1, random.Random(0), tries=3)


def test_episode_files(tmp_path, pool, episode):
    path = tmp_path / "e.json"
    save_episodes(path, [episode], pool, seed=0)
    assert load_episodes(path, pool) == [episode] and json.loads(path.read_text())["seed"] == 0
    for content, message in (("{", "is no episode file"), ('{"episodes": [{"types": []}]}', "is no episode file"), (path.read_text().replace('"sha256": "', '"sha256": "0'), "are others")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_episodes(path, pool)


# losses and learners

def test_token_loss_ignores_padding_and_masked_sentences():
    logits, y = torch.randn(2, 3, 4, 5), torch.randint(0, 5, (2, 3, 4))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    by_hand = torch.stack([torch.nn.functional.cross_entropy(logits[b, :n].flatten(0, 1), y[b, :n].flatten()) for b, n in ((0, 2), (1, 1))])
    torch.testing.assert_close(token_loss(logits, y, mask), by_hand)


def test_stacked_tasks_have_the_loss_of_single_ones(start, pool):
    sampler, model, labels = EpisodeSampler(pool, 3), start.model, bio_labels(["any"])
    single = [support_examples(model, any_type(sampler.sample(k, 1, random.Random(k)).sentences(pool)), labels) for k in (1, 3)]
    together = stacked([({k: v[0] for k, v in e.x.items()}, e.y[0]) for e in single])
    losses = [token_loss(start.detector(**{k: v[0] for k, v in e.x.items()})[None], e.y) for e in single]
    flat = start.detector(**{k: v.flatten(0, 1) for k, v in together.x.items()}).unflatten(0, together.y.shape[:2])
    torch.testing.assert_close(token_loss(flat, together.y, together.mask), torch.cat(losses), atol=1e-5, rtol=1e-4)


def test_adaptation_learns_the_support_set_and_leaves_the_start_alone(start, pool, episode):
    task = support_examples(start.model, any_type(episode.sentences(pool)), bio_labels(["any"]))
    before = [p.clone() for p in start.detector.parameters()]
    after = adapted(start.detector, task, lr=1e-3, head_lr=1e-2, steps=40)
    x = {k: v[0] for k, v in task.x.items()}
    assert token_loss(after(**x)[None], task.y) < 0.5 * token_loss(start.detector(**x)[None], task.y)
    assert all(torch.equal(a, b) for a, b in zip(before, start.detector.parameters()))
    again = adapted(start.detector, task, lr=1e-3, head_lr=1e-2, steps=40)
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters()))


@pytest.mark.parametrize("kind, learner", [("word", TokenPrototypes), ("span", SpanTyping)])
def test_prototype_learners_train(start, pool, kind, learner):
    tasks = TagTasks(start.model, {"a": pool, "b": pool}, kind, n_way=3, weights=[2, 1])
    history = meta_train(learner(start.model.top.with_head(None)).requires_grad_(True), tasks, steps=3, tasks_per_step=2, progress=False)
    assert len(history.loss) == 3
    with pytest.raises(ValueError, match="not one of"):
        TagTasks(start.model, {"a": pool}, "other")


def test_span_inputs_mark_distractors_as_none(start):
    tags = [["B-a", "I-a", "O", "B-c"]]
    every = windows(start.model, [["w", "x", "y", "z"]])
    x, y = span_inputs(every, inputs(start.model, every), tags, ["a", "b"], more=[[(2, 3)]])
    assert y.tolist() == [[0, 2, 2]] and x["weights"].sum(-1).tolist() == [pytest.approx([1, 1, 1])]
    assert none_spans([["B-any", "O", "B-any", "I-any"]], [["B-a", "O", "O", "O"]]) == [[(2, 4)]]


@pytest.mark.parametrize("n_types", [1, 2, 5])
def test_transitions_are_probabilities(n_types):
    abstract = abstract_transitions([["B-a", "I-a", "O", "B-b", "B-a"]] * 5)
    transitions, first = expand_transitions(abstract, n_types)
    assert torch.allclose(transitions.exp().sum(-1), torch.ones(n_types + 1)) and first.exp().sum() == pytest.approx(1)


def test_every_method_answers_with_valid_tags(start, pool, episode):
    model, body = start.model, start.model.top.with_head(None)
    methods = [FineTuned(model, model.top, steps=3), Prototypical(model, TokenPrototypes(body)), NNShot(model, body), StructShot(model, body, abstract_transitions(pool.tags)),
               Decomposed(model, start.detector, start.typing, start.detector, steps=2), Decomposed(model, start.detector, start.typing, None, steps=0)]
    query = [w for w, _ in episode.sentences(pool, "query")] + [["one"], ["long"] * 300]
    for method in methods:
        found = method.adapt(episode.sentences(pool), episode.types)(query)
        assert [len(t) for t in found] == [len(w) for w in query]
        assert all(bio_error(t) is None and {x[2:] for x in t if x != "O"} <= set(episode.types) for t in found)


def test_leaning_lowers_o_alone():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    moved = leaning(logits, 1.5)
    assert torch.allclose(moved[:, 1] - moved[:, 2], logits[:, 1] - logits[:, 2]) and (moved - logits)[0, 1] - (moved - logits)[0, 0] == pytest.approx(1.5)
    assert torch.allclose(leaning(logits, 0.0), logits.log_softmax(-1))


def test_the_product_of_experts(start, pool, episode):
    a, b, c = (torch.randn(7, n) for n in (7, 4, 3))
    joint = combined(a, b, c, 0.7)
    assert torch.allclose(joint[:, 0], a.log_softmax(-1)[:, 0] + 0.7 * b.log_softmax(-1)[:, 0])
    assert torch.allclose(joint[:, 4], a.log_softmax(-1)[:, 4] + 0.7 * (b.log_softmax(-1)[:, 2] + c[:, 1:].log_softmax(-1)[:, 1]), atol=1e-6)
    tagger, learner = FineTuned(start.model, start.model.top, steps=2), TokenPrototypes(start.model.top.with_head(None))
    query = [w for w, _ in episode.sentences(pool, "query")]
    alone, none = (m.adapt(episode.sentences(pool), episode.types)(query) for m in (tagger, Experts(tagger, learner, start.detector, weight=0.0)))
    assert alone == none
    found = Experts(tagger, learner, start.detector).adapt(episode.sentences(pool), episode.types)(query)
    assert all(bio_error(t) is None for t in found)


def test_names_are_examples_of_the_typing_only(start, pool, episode):
    named = named_types(["band", "city"], lambda t: f"a {t}")
    assert named == [(["a", "band"], ["B-band", "I-band"]), (["a", "city"], ["B-city", "I-city"])]
    plain, with_names = (Decomposed(start.model, start.detector, start.typing, spell=s).span_examples(episode.sentences(pool), episode.types) for s in (None, str))
    assert len(with_names[1]) == len(plain[1]) + len(episode.types)
    tasks = TagTasks(start.model, {"a": pool}, "span", n_way=3, shots=(1,), spell=str)
    counts = tasks.sample(1, torch.Generator().manual_seed(0)).support.y
    assert all((counts == n).sum() >= 2 for n in range(3))


def test_nearest_neighbours_find_the_support_set_itself(start, pool, episode):
    support = episode.sentences(pool)
    found = NNShot(start.model, start.model.top.with_head(None)).adapt(support, episode.types)([w for w, _ in support])
    merged = [repair([t if t == "O" else "I-" + t[2:] for t in tags]) for _, tags in support]      # no B: neighbours of one type merge
    assert found == merged


# texts and characters

@pytest.mark.parametrize("text, words", [
    ("It's 3.5 m.", ["It's", "3.5", "m", "."]), ("我在北京", ["我", "在", "北", "京"]), ("👍🏽 ok", ["👍", "🏽", "ok"]), ("e-mail -x", ["e-mail", "-", "x"]), ("  ", []), ("a\u0301b\u200bc", ["a\u0301b", "c"]),
    ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]), ("한국어 text", ["한국어", "text"]), ("\U00020000x", ["\U00020000", "x"]), ("מה?", ["מה", "?"])])
def test_split_words(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words


def test_from_characters_and_back():
    text = "李雷 flew to São Paulo 😀 today"
    at = text.index("São")
    words, tags = from_characters(text, [(0, 2, "person"), (at, at + 9, "city")])
    assert entities(tags) == [(0, 2, "person"), (4, 6, "city")] and words[4:6] == ["São", "Paulo"]
    words, tags = from_characters("pre-London", [(4, 10, "city")])            # a mention may end or begin inside a word
    assert words[-1] == "London" and tags[-1] == "B-city"


@pytest.mark.parametrize("mention, message", [((0, 99, "x"), "outside its 9"), ((3, 3, "x"), "is empty"), ((5, 2, "x"), "is empty"), ((3, 4, "x"), "is empty"), ((-1, 2, "x"), "outside")])
def test_bad_character_mentions(mention, message):
    with pytest.raises(ValueError, match=message):
        from_characters("abc d\u200b ef", [mention]) if mention != (0, 99, "x") else from_characters("abc defgh", [mention])


def test_nested_mentions_are_refused(start):
    with pytest.raises(ValueError, match="can't nest"):
        FewShotTagger(start).fit([("University of Oxford", [(0, 20, "org"), (14, 20, "city")])])


# the tagger

def test_offsets_point_into_the_text(tagger, pool):
    texts = ["😀 " + " ".join(w) + " 北京\u200b " for w in pool.tokens[:30]] + ["\u200bfine", "¿?", "x" * 3000]
    found = tagger.predict(texts)
    assert len(found) == len(texts) and sum(map(len, found)) > 0
    for text, row in zip(texts, found):
        assert all(e.text == text[e.start:e.end] and e.type in tagger.types and 0 < e.score <= 1 for e in row)
        assert all(a.end <= b.start for a, b in zip(row, row[1:]))


def test_a_prediction_does_not_depend_on_the_batch(tagger, pool):
    texts = [" ".join(w) for w in pool.tokens[:40]]
    together, alone = tagger.predict(texts, chunk=7), [tagger.predict([t])[0] for t in texts[:10]]
    assert [[(e.start, e.end, e.type) for e in row] for row in together[:10]] == [[(e.start, e.end, e.type) for e in row] for row in alone]


def test_nothing_is_lost_in_a_long_text(tagger, pool):
    words = max(pool.tokens[:200], key=len)
    long = " . ".join([" ".join(words)] * 40)
    assert tagger.predict([long])[0][-1].start > 0.9 * len(long) or not tagger.predict([" ".join(words)])[0]


def test_characters_and_words_fit_alike(start, pool, episode):
    examples = episode.sentences(pool)
    as_text = []
    for words, tags in examples:
        at = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
        as_text.append((" ".join(words), [(at[a], at[b - 1] + len(words[b - 1]), t) for a, b, t in entities(tags)]))
    text = [" ".join(words) for words in pool.tokens[:20]]
    a, b = (FewShotTagger(start, steps=2).fit(e).predict(text) for e in (examples, as_text))
    assert a == b


def test_one_type_only(start, pool):
    kind = pool.classes[0]
    one = pool.where(classes=kind)
    tagger = FewShotTagger(start, steps=2).fit([(w, only_types(t, [kind])) for w, t in zip(one.tokens, one.tags)][:3])
    assert tagger.types == [kind] and {e.type for row in tagger.predict([" ".join(w) for w in one.tokens[:20]]) for e in row} <= {kind}


def test_a_plain_start_works(encoder, pool, episode):
    tagger = FewShotTagger(TaggerStart.from_encoder(encoder), steps=5).fit(episode.sentences(pool))
    assert len(tagger.predict(["hello there"])) == 1 and not tagger.start.trained


@pytest.mark.parametrize("examples, message", [
    ([], "there are no sentences"), ([(["a"], ["O"])], "no example holds a mention"), ([(["a", "b"], ["O"])], "2 words but 1 tags"), ([(["a"], ["I-x"])], "token 0"), ([("  ", [])], "no words")])
def test_bad_examples(start, examples, message):
    with pytest.raises(ValueError, match=message):
        FewShotTagger(start).fit(examples)


@pytest.mark.parametrize("texts, message", [([], "texts is empty"), (["ok", ""], r"texts\[1\] is empty"), (["\n\t "], r"texts\[0\] is empty"), ("one string", "put it in a list"), ([None], "not a string")])
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
    again.fit([(["in", "Rome"], ["O", "B-city"])])                           # a loaded tagger can learn another task
    assert again.types == ["city"]
    start.save(tmp_path / "s")
    fitted = FewShotTagger(tmp_path / "s", steps=2).fit([(["in", "Rome"], ["O", "B-city"])])
    assert fitted.start.trained
    with pytest.raises(RuntimeError, match="was not fitted"):
        FewShotTagger.load(tmp_path / "s")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "json", "other weights", "missing", "no tokenizer", "another type", "nothing"])
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
    with pytest.raises(FileNotFoundError if damage == "nothing" else RuntimeError, match="holds no tagger.json" if damage == "nothing" else "damaged"):
        FewShotTagger.load(folder)


def test_saving_keeps_the_settings_and_what_else_lies_there(start, tmp_path):
    tagger = FewShotTagger(start, steps=3, lr=2e-4, head_lr=3e-3, lean=0.5, trust=0.2, seed=4).fit([(["in", "Rome"], ["O", "B-city"])])
    tagger.save(tmp_path / "t")
    tagger.save(tmp_path / "t")                                              # in place of the first
    again = FewShotTagger.load(tmp_path / "t")
    assert [getattr(again, n) for n in ("steps", "lr", "head_lr", "lean", "trust", "seed")] == [3, 2e-4, 3e-3, 0.5, 0.2, 4]
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
    monkeypatch.setattr(FewShotTagger, "find", lambda self, sentences: seen.append(len(sentences)) or find(self, sentences))
    texts = ["move money", "go to Rome now"] * 5000
    found = tagger.predict(texts)
    assert len(found) == 10_000 and max(seen) <= 256 and found[:2] == found[-2:]


def test_show_entities_escapes_html():
    page = show_entities([("<b>Rome</b> & more", [Entity(3, 7, "<city>", 1.0, "Rome")])])
    assert "<b>" not in page.data["text/html"] and "&lt;city&gt;" in page.data["text/html"] and "&amp; more" in page.data["text/html"]
    assert str(page) == "<b>[Rome](<city>)</b> & more"


# real data

@pytest.mark.skipif(not available("crossner"), reason="CrossNER is not available")
@pytest.mark.parametrize("domain", ["ai", "science"])
def test_episodes_of_crossner(domain):
    pool = load_dataset_by_name("crossner").where(domain=domain, part="test")
    for k in (1, 5):
        e = EpisodeSampler(pool, 5, ("misc",)).sample(k, 5, random.Random(0))
        assert "misc" not in e.types and isinstance(e, Episode) and len(e.support) >= 1


def test_the_benchmark_imports():
    spec = importlib.util.spec_from_file_location("ner_benchmark", Path(ROOT) / "benchmarks" / "ner.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["ner_benchmark"] = module
    spec.loader.exec_module(module)
    assert set(module.SLOW) - set(module.TUNED) == {"two experts"}
    del sys.modules["ner_benchmark"]


def test_no_steps_is_an_answer_and_fewer_is_not(start, tmp_path):
    "0 leaves the detector as it was, and is not taken for 'not given'; a saved tagger keeps it."
    tagger = FewShotTagger(start, steps=0).fit([(["in", "Rome"], ["O", "B-city"])])
    assert all(torch.equal(a, b) for a, b in zip(tagger.detector.parameters(), start.detector.parameters()))
    moved = FewShotTagger(start, steps=2).fit([(["in", "Rome"], ["O", "B-city"])])
    assert not all(torch.equal(a, b) for a, b in zip(moved.detector.parameters(), start.detector.parameters()))
    tagger.save(tmp_path / "none")
    assert FewShotTagger.load(tmp_path / "none").steps == 0
    with pytest.raises(ValueError, match="more, or None, got -1"):
        FewShotTagger(start, steps=-1)
