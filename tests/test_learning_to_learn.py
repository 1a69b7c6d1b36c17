"""The quick start's code: stable features, class means, the two ways to use training
classes.
"""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalearn_book.foundations.learning_to_learn import (
    FeatureWeights,
    LearnedPrototypes,
    class_means,
    hashed_features,
    support_classifier,
    text_pieces,
    train_on_classes,
)
from metalearn_book.foundations.tasks import ClassTasks, Examples, TaskBatch
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.training import meta_train


def _pool(n_classes=8, per_class=12, d=20, noise=0.6, useful=8, seed=0):
    "Vectors whose first columns tell the class and whose other columns are noise."
    g = torch.Generator().manual_seed(seed)
    means = torch.zeros(n_classes, d)
    means[:, :useful] = torch.randn(n_classes, useful, generator=g)
    y = torch.arange(n_classes).repeat_interleave(per_class)
    return F.normalize(
        means[y] + noise * torch.randn(len(y), d, generator=g), dim=-1
    ), [f"c{i}" for i in y.tolist()]


# --- features -------------------------------------------------------------------------


def test_pieces_of_a_text():
    assert text_pieces("Go on") == [
        "w go",
        "w on",
        "b go on",
        "c  go",
        "c go ",
        "c o o",
        "c  on",
        "c on ",
        "c  go ",
        "c go o",
        "c o on",
        "c  on ",
    ]
    assert text_pieces("Go, ON!") == text_pieces("go on")
    assert text_pieces("e\u0301") == text_pieces(
        "\u00e9"
    )  # composed and decomposed accents are the same word
    assert text_pieces(" ...") == []


def test_features_are_signed_counts_of_length_one():
    x = hashed_features(["book a table", "", "book a table"], 64)
    assert x.shape == (3, 64) and x.dtype == torch.float32
    assert torch.equal(x[0], x[2]) and x[1].abs().sum() == 0
    assert abs(x[0].norm().item() - 1) < 1e-6
    import zlib

    by_hand = torch.zeros(64)
    for piece in text_pieces("book a table"):
        code = zlib.crc32(piece.encode())
        by_hand[code % 64] += -1.0 if code >= 2**31 else 1.0
    assert torch.allclose(x[0], by_hand / by_hand.norm(), atol=1e-6)


def test_features_are_the_same_in_another_process():
    code = (
        "from metalearn_book.foundations.learning_to_learn import hashed_features;"
        "print(hashed_features(['freeze my account, café'], 32).flatten().tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout
        == f"{hashed_features(['freeze my account, café'], 32).flatten().tolist()}\n"
    )


@pytest.mark.parametrize("bad", ["a text", []])
def test_features_ask_for_a_list_of_texts(bad):
    with pytest.raises(ValueError, match="list with at least one text"):
        hashed_features(bad)


def test_features_need_a_column():
    with pytest.raises(ValueError, match="n_features must be at least 1, got 0"):
        hashed_features(["a"], 0)


# --- prototypes -----------------------------------------------------------------------


def test_class_means_agree_with_a_loop_and_respect_the_mask():
    g = torch.Generator().manual_seed(1)
    z, y = (
        torch.randn(3, 8, 5, generator=g),
        torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1]] * 3),
    )
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, 6] = False
    got = class_means(z, y, mask)
    for b in range(3):
        for c in range(3):
            rows = (y[b] == c) & mask[b]
            assert torch.allclose(got[b, c], z[b][rows].mean(0), atol=1e-6)


def test_class_means_name_the_task_and_the_missing_label():
    with pytest.raises(ValueError, match="task 1 has no support example with label 0"):
        class_means(torch.zeros(2, 2, 3), torch.tensor([[0, 1], [1, 1]]))


def test_predictions_do_not_depend_on_the_order_of_the_support_set_or_on_other_tasks():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 4, 3).sample(5, torch.Generator().manual_seed(0))
    learner = LearnedPrototypes(FeatureWeights(20))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    want = learner.adapt(batch.support)(batch.query.x)
    shuffled = Examples(batch.support.x[:, order], batch.support.y[:, order])
    assert torch.allclose(learner.adapt(shuffled)(batch.query.x), want, atol=1e-5)
    assert torch.allclose(
        learner.adapt(batch.support[2])(batch.query[2].x)[0], want[2], atol=1e-5
    )


def test_logits_are_minus_temperature_times_squared_distance():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 2, 3).sample(2, torch.Generator().manual_seed(0))
    learner = LearnedPrototypes(nn.Identity(), temperature=3.0)
    want = (
        -3
        * torch.cdist(batch.query.x, class_means(batch.support.x, batch.support.y)) ** 2
    )
    assert torch.allclose(learner.adapt(batch.support)(batch.query.x), want, atol=1e-5)
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        LearnedPrototypes(nn.Identity(), temperature=0.0)


def test_gradient_of_the_outer_loss_agrees_with_finite_differences():
    x, labels = _pool(d=6, useful=3)
    batch = ClassTasks(x.double(), labels, 3, 2, 3).sample(
        2, torch.Generator().manual_seed(0)
    )
    learner = LearnedPrototypes(FeatureWeights(6)).double()
    exact = torch.autograd.grad(learner(batch), learner.body.log_weight)[0]
    with torch.no_grad():
        for i in range(6):
            ends = []
            for sign in (1, -1):
                learner.body.log_weight.zero_()
                learner.body.log_weight[i] = sign * 1e-6
                ends.append(learner(batch).item())
            assert abs((ends[0] - ends[1]) / 2e-6 - exact[i].item()) < 1e-8


def test_masked_queries_do_not_count():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 2, 3).sample(2, torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, 6:] = False
    learner = LearnedPrototypes(FeatureWeights(20))
    cut = TaskBatch(batch.support, Examples(batch.query.x[:, :6], batch.query.y[:, :6]))
    assert torch.allclose(
        learner(TaskBatch(batch.support, Examples(batch.query.x, batch.query.y, mask))),
        learner(cut),
    )


def test_hidden_queries_may_be_anything_and_each_task_counts_alike():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 2, 3).sample(3, torch.Generator().manual_seed(0))
    keep = (9, 4, 1)
    mask = torch.arange(9) < torch.tensor(keep)[:, None]
    odd = batch.query.x.masked_fill(~mask[..., None], torch.nan)
    hidden = Examples(odd, batch.query.y.masked_fill(~mask, 77), mask)
    learner = LearnedPrototypes(FeatureWeights(20))
    got = learner(TaskBatch(batch.support, hidden))
    each = [
        learner(TaskBatch(b.support, b.query.map(lambda t: t[:, :n])))
        for b, n in zip((batch[i] for i in range(3)), keep)
    ]
    assert torch.allclose(got, torch.stack(each).mean())
    (slope,) = torch.autograd.grad(got, learner.body.log_weight)
    (mean,) = torch.autograd.grad(sum(each) / 3, learner.body.log_weight)
    assert torch.allclose(slope, mean, atol=1e-6)


# --- learning from other classes ------------------------------------------------------


def test_both_ways_find_the_useful_features_and_help_on_new_classes():
    x, labels = _pool(n_classes=30, per_class=20, d=60, noise=1.0)
    train, test = [f"c{i}" for i in range(20)], [f"c{i}" for i in range(20, 30)]
    episodes = ClassTasks(x, labels, 5, 1, 5, classes=test)
    raw = evaluate(LearnedPrototypes(nn.Identity()), episodes, 100)
    meta, transfer = LearnedPrototypes(FeatureWeights(60)), FeatureWeights(60)
    meta_train(
        meta,
        ClassTasks(x, labels, 5, 1, 5, classes=train),
        steps=40,
        tasks_per_step=8,
        outer_lr=0.03,
        seed=0,
        progress=False,
    )
    rows = [i for i, label in enumerate(labels) if label in train]
    losses = train_on_classes(
        transfer, x[rows], [labels[i] for i in rows], epochs=10, lr=0.03
    )
    assert len(losses) == 10 * math.ceil(400 / 128) and losses[-1] < losses[0]
    for learner in (meta, LearnedPrototypes(transfer)):
        w = learner.body.log_weight
        assert w[:8].mean() > w[8:].mean() + 0.2
        assert evaluate(learner, episodes, 100).mean > raw.mean + 0.03


def test_training_on_classes_is_reproducible_and_checks_its_input():
    x, labels = _pool()
    bodies = [FeatureWeights(20) for _ in range(2)]
    assert train_on_classes(bodies[0], x, labels, seed=3) == train_on_classes(
        bodies[1], x, labels, seed=3
    )
    assert torch.equal(bodies[0].log_weight, bodies[1].log_weight)
    with pytest.raises(ValueError, match="96 rows but there are 5 labels"):
        train_on_classes(bodies[0], x, labels[:5])


def test_support_classifier_fits_head_or_all():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 2, 3).sample(2, torch.Generator().manual_seed(0))
    head = support_classifier(FeatureWeights(20), 20, 3, train="head")
    everything = support_classifier(FeatureWeights(20), 20, 3, train="all")
    assert (
        head.adapted == ["head.weight", "head.bias"]
        and "body.log_weight" in everything.adapted
    )
    fitted = head.adapt(batch.support)
    assert (fitted(batch.support.x).argmax(-1) == batch.support.y).float().mean() > 0.9
    assert (
        head.adapt(batch.support, inner_steps=0)(batch.query.x).abs().max() == 0
    )  # the head starts at zero
    with pytest.raises(ValueError, match="'head', 'all'"):
        support_classifier(FeatureWeights(20), 20, 3, train="body")


def test_support_classifier_equals_plain_gradient_descent():
    x, labels = _pool()
    batch = ClassTasks(x, labels, 3, 2, 3).sample(1, torch.Generator().manual_seed(0))
    model = nn.Linear(20, 3)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(batch.support.x[0]), batch.support.y[0]).backward()
        optimizer.step()
    got = support_classifier(nn.Identity(), 20, 3).adapt(batch.support)(batch.query.x)[
        0
    ]
    assert torch.allclose(got, model(batch.query.x[0]), atol=1e-4)


def test_training_on_classes_needs_a_scale_and_labels_of_one_type():
    x, labels = _pool()
    for scale in (0, -1.0):
        with pytest.raises(ValueError, match="scale must be a finite number above 0"):
            train_on_classes(FeatureWeights(20), x, labels, scale=scale)
    mixed = [0, *labels[1:]]
    with pytest.raises(ValueError, match="labels must be of one type.* got int, str"):
        train_on_classes(FeatureWeights(20), x, mixed)
    with pytest.raises(ValueError, match="labels must be of one type.* got list"):
        train_on_classes(FeatureWeights(20), x, [[1]] * len(labels))
