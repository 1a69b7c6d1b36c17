"""Properties of the reader and the answerer that their chapter does not have to show:
the official scores, bad input, windows, files, and the demonstration."""

import copy
import itertools
import math
import random
import warnings

import pytest
import torch

from metalearn_book.book.demos import run_demo
from metalearn_book.book.results import load_results
from metalearn_book.case_studies.question_answerer import QUESTION_TOKENS
from metalearn_book.case_studies.question_answerer import QuestionAnswerer, SpanExample
from metalearn_book.case_studies.question_answerer import SpanReader, adapt_reader
from metalearn_book.case_studies.question_answerer import answer_f1, answer_threshold
from metalearn_book.case_studies.question_answerer import best_span, exact_match
from metalearn_book.case_studies.question_answerer import meta_train_reader
from metalearn_book.case_studies.question_answerer import normalized_answer
from metalearn_book.case_studies.question_answerer import question_start
from metalearn_book.case_studies.question_answerer import read_by_rule, reader_start
from metalearn_book.case_studies.question_answerer import span_examples, span_normalizer
from metalearn_book.case_studies.question_answerer import span_scores, start_windows
from metalearn_book.case_studies.question_answerer import started_reader, train_reader
from metalearn_book.case_studies.questions import tiny_questions
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder, tiny_encoder


@pytest.fixture(scope="module")
def toy():
    return tiny_questions()


@pytest.fixture(scope="module")
def encoder(toy):
    return tiny_encoder(toy.contexts + toy.questions)


@pytest.fixture(scope="module")
def rows(toy):
    return span_examples(toy.where(part="train"))


@pytest.fixture(scope="module")
def trained(encoder, rows):
    return train_reader(
        SpanReader(encoder), rows, epochs=12, lr=2e-3, head_lr=1e-2, seed=0
    )


@pytest.fixture
def answerer(encoder, trained, toy):
    passages = list(dict.fromkeys(toy.where(part="test").contexts))
    return QuestionAnswerer(encoder, reader=trained, n_sentences=3).add(passages)


# --- scores --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Cat", "cat"),
        ("an  a the", ""),
        ("Theory", "theory"),
        ("U.S.A.", "usa"),
        ("50%", "50"),
        ("$1,000", "1000"),
        ("naïve—café", "naïve—café"),  # only ASCII punctuation goes
        ("a-b", "ab"),
        ("\u00a0x\n", "x"),
    ],
)
def test_normalization(text, wanted):
    assert normalized_answer(text) == wanted
    assert normalized_answer(wanted) == wanted


def test_scores_agree_with_the_definition_on_random_words():
    draw = random.Random(0)
    for _ in range(300):
        p, a = ([draw.choice("xyz") for _ in range(draw.randint(1, 5))] for _ in "pa")
        same = sum(min(p.count(w), a.count(w)) for w in "xyz")
        f1 = 0.0
        if same:
            precision, recall = same / len(p), same / len(a)
            f1 = 2 * precision * recall / (precision + recall)
        assert answer_f1(" ".join(p), [" ".join(a)]) == pytest.approx(f1)
        exact = exact_match(" ".join(p), [" ".join(a)])
        assert exact == float(p == a) and f1 >= exact


def test_more_answers_never_lower_a_score():
    assert answer_f1("x y", ["z"]) == 0 < answer_f1("x y", ["z", "y"])


@pytest.mark.parametrize("bad", [None, 3, ["x"], b"x"])
def test_answers_that_are_no_text(bad):
    with pytest.raises(ValueError, match="must be a text"):
        normalized_answer(bad)


# --- spans ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
def test_best_span_is_the_best_of_all(limit):
    draw = torch.Generator().manual_seed(limit)
    start, end = torch.randn(2, 8, 9, dtype=torch.float64, generator=draw)
    first, last, score = best_span(start, end, limit)
    total = span_normalizer(start, end, limit)
    for b in range(8):
        spans = {
            (i, j): (start[b, i] + end[b, j]).item()
            for i, j in itertools.combinations_with_replacement(range(9), 2)
            if j - i < limit
        }
        assert (first[b].item(), last[b].item()) == max(spans, key=spans.get)
        assert score[b].item() == pytest.approx(max(spans.values()))
        shares = [math.exp(s - total[b].item()) for s in spans.values()]
        assert sum(shares) == pytest.approx(1)


def test_windows_are_those_of_the_definition():
    windows = start_windows(torch.arange(3.0)[None], 2)
    assert windows.tolist() == [[[-math.inf, 0.0], [0.0, 1.0], [1.0, 2.0]]]
    for bad in (torch.zeros(3), torch.zeros(1, 0), torch.zeros(1, 3).long()):
        with pytest.raises(ValueError):
            start_windows(bad, 2)


# --- examples ------------------------------------------------------------------------


def test_every_answer_stands_where_it_is_said_to(toy):
    for e in span_examples(toy):
        assert e.sentence[e.start : e.end] == e.answers[0]
        assert e.sentence in e.passage


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": 5, "end": 5}, "end after its start"),
        ({"end": 99}, "8 characters"),
        ({"start": -1}, "at least 0"),
        ({"start": 3, "end": 4}, "only spaces"),
        ({"question": " "}, "question"),
        ({"sentence": ""}, "sentence"),
        ({"question": "\ud800"}, "half of a character"),
        ({"start": 0.5}, "whole number"),
    ],
)
def test_wrong_examples_are_refused(change, words):
    given = {"question": "Who?", "sentence": "Ada won.", "start": 0, "end": 3}
    with pytest.raises(ValueError, match=words):
        SpanExample(**given | change)


def test_the_rule_gives_a_place_in_the_sentence():
    for question, sentence in (
        ("When?", "In May."),
        ("How many?", "北京大学"),
        ("Who?", "$5 million, or 3."),
        ("What?", "…"),
    ):
        a, b = read_by_rule(question, sentence)
        assert 0 <= a < b <= len(sentence)


# --- reading -------------------------------------------------------------------------


def test_offsets_are_of_the_text_as_it_was_written(trained):
    sentence = "ÉLAN  (the\tRiver—Nairn)  …  lies 🙂 there"
    (found,) = trained.read(["On which river?"], [sentence])
    assert sentence[found.start : found.end] == found.text and found.text.strip()
    assert 0 < found.score <= 1


def test_a_batch_reads_as_one_alone(trained, rows):
    questions, sentences = [r.question for r in rows], [r.sentence for r in rows]
    at_once = trained.read(questions, sentences, batch_size=7)
    for q, s, found in list(zip(questions, sentences, at_once))[::9]:
        (alone,) = trained.read([q], [s])
        assert (alone.start, alone.end) == (found.start, found.end)
        assert alone.score == pytest.approx(found.score, abs=1e-4)


def test_questions_take_no_part(trained):
    pairs = trained._pairs(["x y z"], ["Ada won ."])
    start, end = trained.spans(trained.pair_batch(pairs))
    mask = trained.pair_batch(pairs)["sentence_mask"]
    assert start.isfinite().equal(mask) and end.isfinite().equal(mask)


@pytest.mark.parametrize("n", [1, 100, 400, 1500])
def test_long_sentences_are_read_whole(trained, rows, n):
    e = rows[0]
    long = "so " * n + e.sentence + " so" * n
    pairs = trained._pairs([e.question], [long])
    assert all(len(p.ids) <= trained.max_length for p in pairs)
    whole = trained.tokenizer.backend_tokenizer.encode(long, add_special_tokens=False)
    assert {x for p in pairs for x in p.places} == set(whole.offsets)
    moved = SpanExample(e.question, long, e.start + 3 * n, e.end + 3 * n)
    assert len(trained._targets([moved])) == 1
    (found,) = trained.read([e.question], [long])
    assert long[found.start : found.end] == found.text


def test_long_questions_are_cut_with_a_warning(trained):
    with pytest.warns(UserWarning, match=f"longer than {QUESTION_TOKENS} tokens"):
        trained.read(["why " * 500], ["Ada won."])


@pytest.mark.parametrize(
    ("questions", "sentences"),
    [([], []), (["a"], []), ([""], ["a"]), (["a"], [" "]), ("a", "b"), ([1], ["a"])],
)
def test_wrong_pairs_are_refused(trained, questions, sentences):
    with pytest.raises(ValueError):
        trained.read(questions, sentences)


# --- training ------------------------------------------------------------------------


def test_training_is_repeatable_and_leaves_its_start(encoder, rows):
    plain = SpanReader(encoder)
    state = torch.random.get_rng_state()
    a, b = (train_reader(plain, rows, epochs=1, seed=3) for _ in range(2))
    assert a.losses == b.losses and torch.random.get_rng_state().equal(state)
    assert not plain.span_head.weight.any()
    assert a.losses != train_reader(plain, rows, epochs=1, seed=4).losses


def test_scores_alone_leave_the_encoder(encoder, rows):
    own = train_reader(SpanReader(encoder), rows, epochs=1, layers=0)
    for a, b in zip(own.model.parameters(), encoder.model.parameters()):
        assert a.equal(b)
    assert own.span_head.weight.any()


def test_adapting_changes_the_top_alone(trained, rows):
    own = adapt_reader(trained, rows[:3], steps=2, lr=1e-3, layers=1)
    changed = {
        n for n, w in own.state_dict().items() if not w.equal(trained.state_dict()[n])
    }
    assert changed and all("layer.1" in n or "span_head" in n for n in changed)
    same = adapt_reader(trained, rows[:3], steps=0)
    for a, b in zip(same.parameters(), trained.parameters()):
        assert a.equal(b)


def test_the_outer_gradient_is_taken_where_the_steps_end(encoder, rows):
    "Eq. (QA-6) by hand, for one outer step without dropout."
    plain = SpanReader(encoder)
    plain.config.hidden_dropout_prob = plain.config.attention_probs_dropout_prob = 0.0
    for m in plain.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    start = train_reader(plain, rows, epochs=2, lr=1e-3, head_lr=1e-2)
    one = [e for e in rows if e.article == rows[0].article]
    given = dict(k_shot=2, n_query=3, inner_steps=2, inner_lr=1e-3, steps=1, seed=5)
    moved = meta_train_reader(start, one, lr=1e-4, head_lr=1e-4, **given)
    draw = random.Random(5)
    targets = start._targets(one)
    draw.random()  # which article
    order = sorted(targets, key=lambda _: draw.random())
    inner = copy.deepcopy(start)
    from metalearn_book.case_studies.question_answerer import _inner_steps, _to_train

    _inner_steps(inner, order[:2], 2, 1e-3, 2)
    weights = _to_train(inner, None)
    value = inner.loss(order[2:5])
    assert value.item() == pytest.approx(moved.losses[0], rel=1e-5)
    gradients = torch.autograd.grad(value, weights)
    # the first step of Adam is the sign of the gradient, times the rate
    for new, old, g in zip(
        _to_train(moved, None), _to_train(copy.deepcopy(start), None), gradients
    ):
        big = g.abs() > 1e-4
        step = (new - old)[big]
        assert torch.equal(step.sign(), -g[big].sign())


def test_no_article_with_enough_examples(trained, rows):
    with pytest.raises(ValueError, match="no article has 100 examples"):
        meta_train_reader(trained, rows, k_shot=99, steps=1)


def test_starts_come_back(encoder, trained, rows, tmp_path):
    about = {"encoder": "tiny", "threshold": 0.25, "n_sentences": 2}
    path = reader_start(trained, encoder, 48, about).save(tmp_path / "a.safetensors")
    back = started_reader(encoder, path)
    asked = [r.question for r in rows], [r.sentence for r in rows]
    assert [f.text for f in back.read(*asked)] == [f.text for f in trained.read(*asked)]
    own = QuestionAnswerer(encoder, start=path)
    assert (own.threshold, own.n_sentences) == (0.25, 2)
    other = tiny_encoder(["other words"], seed=1)
    with pytest.raises(ValueError, match="other weights"):
        started_reader(other, path)


# --- the answerer --------------------------------------------------------------------


def test_an_answer_says_where_it_stands(answerer, toy):
    for question in toy.where(part="test").questions[:5]:
        found = answerer.ask(question)
        text = answerer.passages_[found.passage]
        assert text[found.start : found.end] == found.text
        assert found.text in found.sentence and found.sentence in text
        scores = [found.score, *(a.score for a in found.alternatives)]
        assert scores == sorted(scores, reverse=True) and len(scores) == 3
        assert sum(scores) <= 1 + 1e-6


def test_nothing_is_said_below_the_threshold(answerer, toy):
    question = toy.where(part="test").questions[0]
    score = answerer.ask(question).score
    answerer.threshold = score
    assert answerer.ask(question) is not None
    answerer.threshold = math.nextafter(score, 1)
    assert answerer.ask(question) is None
    assert answerer.candidates(question)[0].score == score


def test_an_empty_collection(encoder, trained):
    empty = QuestionAnswerer(encoder, reader=trained)
    with pytest.raises(ValueError, match="call add first"):
        empty.ask("Who?")
    with pytest.raises(ValueError, match="passages"):
        empty.add([])


@pytest.mark.parametrize("bad", ["", "  ", "\u200b", None, 3, ["Who?"], "\ud800"])
def test_wrong_questions(answerer, bad):
    with pytest.raises(ValueError, match="question"):
        answerer.ask(bad)


def test_duplicates_are_kept_once(answerer):
    n, first = len(answerer), answerer.passages_[0]
    with pytest.warns(UserWarning, match="3 of 4 passages"):
        answerer.add([first, "Bo sang.", "Bo sang.", "Bo sang."], list("abcd"))
    assert len(answerer) == n + 1 and answerer.names_[-1] == "b"
    with pytest.warns(UserWarning, match="1 of 1"):
        answerer.add([first])
    assert len(answerer) == n + 1


def test_an_answer_that_stands_twice_is_cited_twice(encoder, trained, toy):
    own = QuestionAnswerer(encoder, reader=trained, n_sentences=2)
    told = toy.contexts[0].split(". ")[1] + "."
    own.add([told, told.replace("It was", "The town was")])
    found = own.candidates(toy.questions[1])
    assert {f.passage for f in found} == {0, 1}
    for f in found:
        assert own.passages_[f.passage][f.start : f.end] == f.text


def test_nothing_is_lost_when_passages_are_refused(answerer):
    before = list(answerer.passages_)
    for bad in (["Bo sang.", " "], ["Bo sang.", 3], "Bo sang."):
        with pytest.raises(ValueError, match="passages"):
            answerer.add(bad)
    with pytest.raises(ValueError, match="1 names for 2"):
        answerer.add(["Bo sang.", "Cy sang."], ["x"])
    assert answerer.passages_ == before


def test_other_scripts_are_warned_about(answerer):
    with pytest.warns(UserWarning, match="not in Latin letters"):
        answerer.add(["北京大学在北京。"])
    with pytest.warns(UserWarning, match="1 of 1 questions"):
        answerer.ask("北京大学在哪里？")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answerer.add(["Łódź liegt in Polen, 北京 nicht."])


def test_examples_of_a_user(answerer, toy):
    data = toy.where(part="test")
    rows = [
        (q, c, a[0].text)
        for q, c, a in zip(data.questions, data.contexts, data.answers)
    ]
    before = answerer.reader_
    for bad in ([("a", "b")], [("Who?", "Ada won.", "Bo")], [("", "a", "a")], []):
        with pytest.raises(ValueError, match="examples"):
            answerer.adapt(bad)
    assert answerer.reader_ is before and answerer.n_adapted_ == 0
    answerer.adapt(rows[:3], steps=1)
    assert answerer.n_adapted_ == 3 and answerer.reader_ is not before


@pytest.mark.parametrize("adapted", [False, True])
def test_saved_and_loaded(answerer, toy, tmp_path, adapted):
    data = toy.where(part="test")
    if adapted:
        answerer.adapt([(data.questions[0], data.contexts[0], data.answers[0][0].text)])
    answerer.threshold = 0.125
    again = QuestionAnswerer.load(answerer.save(tmp_path / "a"))
    assert again.threshold == 0.125 and again.n_adapted_ == int(adapted)
    for question in data.questions[:3]:
        assert again.candidates(question) == answerer.candidates(question)
    again.add(["Bo sang."])
    assert again.save(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a" / "span_head.safetensors").unlink()
    with pytest.raises(RuntimeError, match="span_head"):
        QuestionAnswerer.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        QuestionAnswerer.load(tmp_path / "nothing")


def test_an_empty_one_is_saved_too(encoder, trained, tmp_path):
    empty = QuestionAnswerer(encoder, reader=trained)
    assert len(QuestionAnswerer.load(empty.save(tmp_path / "a"))) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reader": None}, "answers by chance"),
        ({"reader": "reader"}, "SpanReader"),
        ({"threshold": 2.0}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"n_sentences": 0}, "n_sentences"),
        ({"encoder": 3}, "no name or TextEncoder"),
    ],
)
def test_wrong_parameters(encoder, trained, change, words):
    with pytest.raises(ValueError, match=words):
        QuestionAnswerer(**{"encoder": encoder, "reader": trained} | change)


# --- what is shipped -----------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    try:
        return load_encoder("minilm", offline=True)
    except (FileNotFoundError, ValueError):
        pytest.skip("the encoder minilm is not at hand")


def test_the_start_of_the_package_says_where_it_is_from():
    start = question_start()  # its checksum is compared on reading
    size = sum(t.nbytes for t in start.tensors.values())
    assert size < 2e6 and start.about["name"] == "questions"
    for key in ("sources", "license", "command", "training", "base_sha256"):
        assert start.about[key]
    assert 0 <= start.about["threshold"] <= 1 and start.about["n_sentences"] >= 1


def test_the_start_answers_as_it_was_measured(minilm):
    if not available("xquad"):
        pytest.skip("needs XQuAD: set METALEARN_DATA")
    data = load_dataset_by_name("xquad").where(part="test", language="en")
    some = span_examples(data)[::4]
    stored = load_results("benchmarks/question_answerer")["numbers"]["cells"]
    stored = stored["test, tuned reader"]["0"]["F1"][::4]
    reader = started_reader(minilm, question_start())
    found = reader.read([e.question for e in some], [e.sentence for e in some])
    _, f1 = span_scores([f.text for f in found], some)
    assert sum(abs(a - b) > 1e-3 for a, b in zip(f1, stored, strict=True)) <= 1


def test_a_start_is_for_minilm_alone(encoder):
    with pytest.raises(ValueError, match="other weights"):
        QuestionAnswerer(encoder, start="questions")


def test_a_start_is_no_encoder_for_classifiers(minilm):
    with pytest.raises(ValueError, match="span_head"):
        question_start().applied(minilm)


# --- the threshold -------------------------------------------------------------------


def test_the_threshold_is_the_best_of_all():
    draw = random.Random(1)
    for _ in range(200):
        rows = [
            (round(draw.random(), 1), float(draw.random() < 0.5), draw.random() < 0.6)
            for _ in range(draw.randint(1, 9))
        ]
        rows = [(s, w * known, known) for s, w, known in rows]

        def value(t):
            return sum(w if s >= t else float(not k) for s, w, k in rows)

        found = answer_threshold(*zip(*rows))
        assert value(found) == max(value(t) for t in [s for s, *_ in rows] + [2.0])


def test_scores_need_one_prediction_each(rows):
    with pytest.raises(ValueError, match="1 predictions"):
        span_scores(["x"], rows[:2])


def test_demo(capsys):
    run_demo("questions")
    said = capsys.readouterr().out
    assert "always answered" in said and "a rule, sentence given" in said
    if "Random weights" not in said:
        assert said.split("chapel?")[1].split("\n")[0].strip() == "no answer"
