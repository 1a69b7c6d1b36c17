"""Few-shot entities: learners, decoding, and that every answer is valid."""

import importlib.util
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from metalearn_book.case_studies.entities import Decomposed, Experts, Prototypical
from metalearn_book.case_studies.entities import SpanTyping, TagTasks, TokenPrototypes
from metalearn_book.case_studies.entities import named_types, none_spans
from metalearn_book.case_studies.entities import product_of_experts, span_inputs
from metalearn_book.case_studies.entities import span_vectors, stack_tasks
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, bio_labels
from metalearn_book.case_studies.tuned_taggers import FineTuned, support_examples
from metalearn_book.case_studies.tuned_taggers import token_loss, train_on_sources
from metalearn_book.case_studies.tuned_taggers import with_one_type
from metalearn_book.case_studies.word_vectors import NNShot, StructShot, WordModel
from metalearn_book.case_studies.word_vectors import abstract_transitions, top_inputs
from metalearn_book.case_studies.word_vectors import windows
from metalearn_book.data import load_dataset_by_name
from metalearn_book.data.tagged import bio_error
from metalearn_book.foundations.encoders import load_encoder, zero_head
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.inner_loop import Adam
from metalearn_book.foundations.training import meta_train
from metalearn_book.optimization.maml import MAML


@pytest.fixture(scope="module")
def pool():
    return load_dataset_by_name("tiny_entities").where(part="train")


@pytest.fixture(scope="module")
def start(pool):
    "A start trained for a moment on generated sentences: model, detector, typing."
    model = WordModel(load_encoder("tiny"))
    train_on_sources(model, {"tiny": pool}, 60, lr=1e-3, head_lr=1e-2)
    return SimpleNamespace(
        model=model,
        detector=model.top.with_head(model.detector),
        typing=SpanTyping(model.top.with_head(None)),
    )


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


def test_stacked_tasks_have_the_loss_of_single_ones(start, pool):
    sampler, model, labels = EpisodeSampler(pool, 3), start.model, bio_labels(["any"])
    single = [
        support_examples(
            model,
            with_one_type(sampler.sample(k, 1, random.Random(k)).sentences(pool)),
            labels,
        )
        for k in (1, 3)
    ]
    together = stack_tasks(
        [({k: v[0] for k, v in e.x.items()}, e.y[0]) for e in single]
    )
    losses = [
        token_loss(start.detector(**{k: v[0] for k, v in e.x.items()})[None], e.y)
        for e in single
    ]
    flat = start.detector(
        **{k: v.flatten(0, 1) for k, v in together.x.items()}
    ).unflatten(0, together.y.shape[:2])
    torch.testing.assert_close(
        token_loss(flat, together.y, together.mask),
        torch.cat(losses),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "kind, learner", [("word", TokenPrototypes), ("span", SpanTyping)]
)
def test_prototype_learners_train(start, pool, kind, learner):
    tasks = TagTasks(start.model, {"a": pool, "b": pool}, kind, n_way=3, weights=[2, 1])
    history = meta_train(
        learner(start.model.top.with_head(None)).requires_grad_(True),
        tasks,
        steps=3,
        tasks_per_step=2,
        progress=False,
    )
    assert len(history.loss) == 3
    with pytest.raises(ValueError, match="kind must be one of"):
        TagTasks(start.model, {"a": pool}, "other")


@pytest.mark.parametrize(
    "kind, learner", [("word", TokenPrototypes), ("span", SpanTyping)]
)
def test_padded_sentences_do_not_count(start, pool, kind, learner):
    tasks = TagTasks(start.model, {"a": pool}, kind, n_way=3)
    draws = (tasks.sample(2, torch.Generator().manual_seed(s)) for s in range(50))
    batch = next(d for d in draws if not d.support.mask.all())
    b = (~batch.support.mask).any(1).nonzero()[0].item()

    def cut(e, b):  # one task, without padding
        n = int(e.mask[b].sum())
        return Examples({k: v[:, :n] for k, v in e[b].x.items()}, e.y[b : b + 1, :n])

    model = learner(start.model.top.with_head(None)).eval()
    info = {"n_types": batch.info["n_types"][b : b + 1]}
    query = cut(batch.query, b)
    alone = TaskBatch(cut(batch.support, b), query, info)
    as_real = Examples(batch.support[b].x, batch.support[b].y)  # counts it twice
    with torch.no_grad():
        found, right = model(batch[b]).item(), model(alone).item()
        wrong = model(TaskBatch(as_real, query, info)).item()
    assert found == pytest.approx(right, abs=1e-4)
    if kind == "word":
        assert abs(wrong - right) > 1e-3


def spoilt(e, mask):
    "The same examples with nonsense where the mask hides them."

    def fill(t):
        t, nonsense = t.clone(), float("nan") if t.is_floating_point() else 10**6
        t[~mask] = nonsense
        return t

    return Examples({k: fill(v) for k, v in e.x.items()}, fill(e.y), mask)


def learner_of(kind, model):
    if kind != "bio":
        learner = TokenPrototypes if kind == "word" else SpanTyping
        return learner(model.top.with_head(None)).requires_grad_(True)
    net = model.top.with_head(zero_head(model.dim, 7)).requires_grad_(True)
    return MAML(net, token_loss, inner_lr=1e-3, inner_steps=2, optimizer=Adam(),
                first_order=True)  # fmt: skip


@pytest.mark.parametrize("kind", ["word", "span", "bio"])
@pytest.mark.parametrize("hidden", [0, 1])
def test_hidden_queries_change_nothing(start, pool, kind, hidden):
    "Neither the loss, nor its gradient, nor the predictions of the others."
    tasks = TagTasks(start.model, {"a": pool}, kind, n_way=3)
    batch = tasks.sample(1, torch.Generator().manual_seed(3))
    rows = [i for i in range(batch.query.n_items) if i != hidden]
    mask = torch.ones(1, len(rows) + 1, dtype=torch.bool)
    mask[0, hidden] = False
    some = Examples({k: v[:, rows] for k, v in batch.query.x.items()},
                    batch.query.y[:, rows])  # fmt: skip
    found = []
    for query in (some, spoilt(batch.query, mask)):
        learner = learner_of(kind, start.model)
        loss = learner(TaskBatch(batch.support, query, batch.info))
        loss.backward()
        grads = [p.grad for p in learner.parameters() if p.grad is not None]
        found.append((loss, *grads))
        if kind == "word":
            answers = learner.adapt(batch.support)(query.x)
            seen = answers[mask] if query.mask is not None else answers[0]
            found[-1] += (seen,)
    assert len(found[0]) > 1
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


def test_a_query_without_spans_has_no_loss(start, pool):
    tasks = TagTasks(start.model, {"a": pool}, "span", n_way=3)
    batch = tasks.sample(1, torch.Generator().manual_seed(3))
    nothing = Examples(batch.query.x, torch.full_like(batch.query.y, -100))
    learner = learner_of("span", start.model)
    loss = learner(TaskBatch(batch.support, nothing, batch.info))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: span_vectors(torch.zeros(3, 2), [(1, 1)]), "end of a span"),
        (lambda: span_vectors(torch.zeros(3, 2), [(0, 4)]), "at most 3"),
        (lambda: none_spans([["O"]], [["O", "O"]]), "same sentences"),
        (lambda: product_of_experts(*torch.zeros(3, 2, 3), 1.0), "tagger must have"),
        (lambda: named_types(["a"], lambda t: ""), "must give words"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_span_inputs_mark_distractors_as_none(start):
    tags = [["B-a", "I-a", "O", "B-c"]]
    every = windows(start.model, [["w", "x", "y", "z"]])
    x, y = span_inputs(
        every, top_inputs(start.model, every), tags, ["a", "b"], more=[[(2, 3)]]
    )
    assert y.tolist() == [[0, 2, 2]] and x["weights"].sum(-1).tolist() == [
        pytest.approx([1, 1, 1])
    ]
    assert none_spans([["B-any", "O", "B-any", "I-any"]], [["B-a", "O", "O", "O"]]) == [
        [(2, 4)]
    ]


def test_every_method_answers_with_valid_tags(start, pool, episode):
    model, body = start.model, start.model.top.with_head(None)
    methods = [
        FineTuned(model, model.top, steps=3),
        Prototypical(model, TokenPrototypes(body)),
        NNShot(model, body),
        StructShot(model, body, abstract_transitions(pool.tags)),
        Decomposed(model, start.detector, start.typing, start.detector, steps=2),
        Decomposed(model, start.detector, start.typing, None, steps=0),
    ]
    query = [w for w, _ in episode.sentences(pool, "query")] + [["one"], ["long"] * 300]
    for method in methods:
        found = method.adapt(episode.sentences(pool), episode.types)(query)
        assert [len(t) for t in found] == [len(w) for w in query]
        assert all(
            bio_error(t) is None
            and {x[2:] for x in t if x != "O"} <= set(episode.types)
            for t in found
        )


def test_the_product_of_experts(start, pool, episode):
    a, b, c = (torch.randn(7, n) for n in (7, 4, 3))
    joint = product_of_experts(a, b, c, 0.7)
    assert torch.allclose(
        joint[:, 0], a.log_softmax(-1)[:, 0] + 0.7 * b.log_softmax(-1)[:, 0]
    )
    assert torch.allclose(
        joint[:, 4],
        a.log_softmax(-1)[:, 4]
        + 0.7 * (b.log_softmax(-1)[:, 2] + c[:, 1:].log_softmax(-1)[:, 1]),
        atol=1e-6,
    )
    tagger, learner = (
        FineTuned(start.model, start.model.top, steps=2),
        TokenPrototypes(start.model.top.with_head(None)),
    )
    query = [w for w, _ in episode.sentences(pool, "query")]
    alone, none = (
        m.adapt(episode.sentences(pool), episode.types)(query)
        for m in (tagger, Experts(tagger, learner, start.detector, weight=0.0))
    )
    assert alone == none
    found = Experts(tagger, learner, start.detector).adapt(
        episode.sentences(pool), episode.types
    )(query)
    assert all(bio_error(t) is None for t in found)


def test_names_are_examples_of_the_typing_only(start, pool, episode):
    named = named_types(["band", "city"], lambda t: f"a {t}")
    assert named == [
        (["a", "band"], ["B-band", "I-band"]),
        (["a", "city"], ["B-city", "I-city"]),
    ]
    plain, with_names = (
        Decomposed(start.model, start.detector, start.typing, spell=s).span_examples(
            episode.sentences(pool), episode.types
        )
        for s in (None, str)
    )
    assert len(with_names[1]) == len(plain[1]) + len(episode.types)
    tasks = TagTasks(start.model, {"a": pool}, "span", n_way=3, shots=(1,), spell=str)
    counts = tasks.sample(1, torch.Generator().manual_seed(0)).support.y
    assert all((counts == n).sum() >= 2 for n in range(3))


def test_the_benchmark_imports():
    spec = importlib.util.spec_from_file_location(
        "ner_benchmark", Path(ROOT) / "benchmarks" / "ner.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["ner_benchmark"] = module
    spec.loader.exec_module(module)
    assert set(module.SLOW) - set(module.TUNED) == {"two experts"}
    numbers = module.Numbers()
    numbers.data = {"cells": {"a/1/b": {"f1": [0.5] * 40, "seconds": 2.0}}}
    found = {"f1": [0.4], "counts": [[1, 2, 3]], "seconds": [1.0]}
    assert numbers.done("a/1/b") == 0  # of a run that kept no counts
    numbers.add("a/1/b", found), numbers.add("a/1/b", found)
    assert numbers.done("a/1/b") == 2 == len(numbers.data["cells"]["a/1/b"]["f1"])
    del sys.modules["ner_benchmark"]
