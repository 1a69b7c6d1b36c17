"""Properties of the chapter "From frozen to tuned" that it does not have to show:
draws, batches, losses, training and heads."""

import json
import math
import os
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import few_intents, gen, unit

from metalearn_book.case_studies.text_classification import (
    ClassBatches,
    contrastive_loss,
)
from metalearn_book.case_studies.text_classification import (
    corpus,
    draw_shots,
    drawn_rows,
)
from metalearn_book.case_studies.text_classification import embed, fit_head, full_way
from metalearn_book.case_studies.text_classification import (
    head_accuracies,
    mean_and_range,
)
from metalearn_book.case_studies.text_classification import pair_loss, prototype_loss
from metalearn_book.case_studies.text_classification import (
    split_episodes,
    train_encoder,
)
from metalearn_book.case_studies.text_classification import unfreeze, weighted_means
from metalearn_book.data import class_split, load_dataset_by_name
from metalearn_book.foundations.encoders import fingerprint, load_encoder


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def few():
    return few_intents()


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=40),
    st.integers(1, 5),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_a_draw_has_k_of_each_class_or_all_there_are(labels, k, seed):
    rows = draw_shots(labels, k, seed, exact=False)
    assert len(set(rows)) == len(rows)
    for c in set(labels):
        assert sum(labels[r] == c for r in rows) == min(k, labels.count(c))
    assert rows == draw_shots(labels, k, seed, exact=False)


def test_a_draw_that_cannot_be_made():
    with pytest.raises(ValueError, match="has 1 rows, 2 are asked for"):
        draw_shots(["a", "b", "b"], 2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        draw_shots(["a"], 0, 0)


def test_batches_keep_to_one_set_and_to_the_numbers_asked_for():
    batches = ClassBatches(
        [
            ([f"a{i}" for i in range(30)], [i % 6 for i in range(30)]),
            ([f"b{i}" for i in range(20)], [i % 4 for i in range(20)]),
        ],
        3,
        2,
        seed=1,
    )
    for _ in range(30):
        y = batches.y[batches.draw()]
        assert (
            len(y) == 6
            and (y.bincount()[y.unique()] == 2).all()
            and (y.max() < 6 or y.min() >= 6)
        )


def test_a_class_with_one_text_never_makes_a_batch_alone():
    batches = ClassBatches([(["a", "b", "c", "d"], [0, 1, 2, 2])], 2, 2)
    for _ in range(20):
        assert (batches.y[batches.draw()].bincount() > 1).any()
    with pytest.raises(ValueError, match="2 texts, 1 labels"):
        ClassBatches([(["a", "b"], [0])])


@pytest.mark.parametrize("loss", [prototype_loss, contrastive_loss, pair_loss])
def test_losses_do_not_depend_on_order_or_on_the_names_of_classes(loss):
    z, y = unit(9), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    order = torch.randperm(9, generator=gen(3))
    torch.testing.assert_close(loss(z[order], y[order]), loss(z, y))
    torch.testing.assert_close(loss(z, 7 * (2 - y)), loss(z, y))


@pytest.mark.parametrize("loss", [prototype_loss, contrastive_loss, pair_loss])
def test_losses_have_the_right_gradient_and_fall_when_classes_part(loss):
    z, y = unit(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert torch.autograd.gradcheck(lambda v: loss(v, y), (z.requires_grad_(),))
    apart = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0)
    assert loss(apart, y) < loss(z.detach(), y)
    assert pair_loss(apart, y) == 0


def test_a_text_alone_in_its_class_is_only_a_mean_for_others():
    z, y = unit(5), torch.tensor([0, 0, 1, 1, 2])
    others = []
    for i in range(4):
        means = {
            c: z[[j for j in range(5) if y[j] == c and j != i]].mean(0)
            for c in range(3)
        }
        logits = torch.stack(
            [-(z[i] - means[c]).square().sum() / 0.2 for c in range(3)]
        )
        others.append(F.cross_entropy(logits[None], y[i : i + 1]))
    torch.testing.assert_close(prototype_loss(z, y, 0.1), torch.stack(others).mean())


@pytest.mark.parametrize("loss", [prototype_loss, contrastive_loss, pair_loss])
def test_a_loss_without_pairs_is_an_error(loss):
    with pytest.raises(ValueError):
        loss(unit(3), torch.tensor([0, 1, 2]))


def test_contrastive_loss_agrees_with_a_loop():
    z, y, tau = unit(7), torch.tensor([0, 0, 0, 1, 1, 2, 2]), 0.3
    total = []
    for i in range(7):
        denominator = torch.stack(
            [z[i] @ z[a] / tau for a in range(7) if a != i]
        ).logsumexp(0)
        total.append(
            -torch.stack(
                [
                    z[i] @ z[j] / tau - denominator
                    for j in range(7)
                    if j != i and y[j] == y[i]
                ]
            ).mean()
        )
    torch.testing.assert_close(contrastive_loss(z, y, tau), torch.stack(total).mean())


def test_training_leaves_the_start_and_the_global_random_state_alone(tiny, few):
    before, state = fingerprint(tiny), torch.get_rng_state()
    a, b = (
        train_encoder(
            tiny,
            [(few.texts, few.labels)],
            steps=3,
            n_classes=4,
            lr=1e-3,
            layers=1,
            seed=5,
        )
        for _ in range(2)
    )
    assert fingerprint(tiny) == before and torch.equal(torch.get_rng_state(), state)
    assert fingerprint(a) == fingerprint(b) != before and a.losses == b.losses
    assert not a.training and not any(p.requires_grad for p in a.parameters())


@pytest.mark.parametrize(
    "layers, moved", [(1, {"1"}), (2, {"0", "1"}), (None, {"0", "1"})]
)
def test_which_layers_are_trained(tiny, layers, moved):
    copied = load_encoder("tiny")
    unfreeze(copied, layers)
    assert {
        n.split(".")[3] for n, p in copied.named_parameters() if p.requires_grad
    } == moved
    with pytest.raises(ValueError, match="layers must be at (most 2|least 1)"):
        unfreeze(copied, 3)


def test_embedding_in_pieces_is_encoding(tiny, few):
    torch.testing.assert_close(
        embed(tiny, tiny.token_ids(few.texts), 5),
        tiny.encode(few.texts),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("kind", ["logistic", "prototype", "ridge"])
def test_every_head_separates_what_is_apart(kind):
    centres = unit(5, 16, dtype=torch.float32)
    y = torch.arange(5).repeat_interleave(4)
    x = F.normalize(centres[y] + 0.02 * torch.randn(20, 16, generator=gen(1)), dim=-1)
    assert head_accuracies(x, y, centres, torch.arange(5), [kind]) == {kind: 1.0}
    with pytest.raises(ValueError, match="kind must be one of"):
        fit_head(x, y, 5, "tree")


@pytest.mark.parametrize("name", ["banking77", "clinc150", "hwu64"])
def test_real_draws_are_of_the_training_part(real_data, name):
    real_data(name)
    train = load_dataset_by_name(name, part="train")
    rows = draw_shots(train.labels, 10, 0)
    assert len(rows) == 10 * len(train.classes) and len(set(rows)) == len(rows)


def test_published_numbers_are_those_of_the_notes():
    "A table that was typed must at least be of the right shape and range."
    path = os.path.join(
        os.path.dirname(__file__),
        "..",
        "nbs",
        "case_studies",
        "10_text_classification.ipynb",
    )
    source = next(
        "".join(c["source"])
        for c in json.load(open(path, encoding="utf-8"))["cells"]
        if "PUBLISHED = {" in "".join(c["source"])
    )
    found = {}
    exec(source.split("heading =")[0], {}, found)
    assert all(
        len(v) == 6 and all(60 < x < 100 for x in v)
        for v in found["PUBLISHED"].values()
    )
    assert all(
        v[3] > v[0] and v[4] > v[1] and v[5] > v[2] for v in found["PUBLISHED"].values()
    ) and not math.isnan(sum(map(sum, found["PUBLISHED"].values())))


def test_a_corpus_keeps_the_first_rows_of_each_class_and_part():
    whole, cut = load_dataset_by_name("tiny_intents"), corpus("tiny_intents", 3)
    count = Counter(zip(cut.labels, cut.part))
    assert set(count.values()) == {3}
    assert set(count) == set(zip(whole.labels, whole.part))
    for key in count:
        rows = [
            [t for t, *own in zip(d.texts, d.labels, d.part) if tuple(own) == key]
            for d in (whole, cut)
        ]
        assert rows[1] == rows[0][:3]


def test_episodes_hold_classes_of_one_part_only(few):
    d = load_dataset_by_name("tiny_intents")
    x = torch.arange(len(d)).float()[:, None]  # a text's vector is its row
    for part in ("train", "test"):
        classes = class_split("tiny_intents")[part]
        tasks = split_episodes(d, x, 1, part, 2).sample(5, gen())
        rows = torch.cat([tasks.support.x.flatten(), tasks.query.x.flatten()])
        assert {d.labels[int(r)] for r in rows} <= set(classes)


def test_full_way_rows_are_of_their_parts():
    d = load_dataset_by_name("tiny_intents")
    labels, train, test = full_way(d)
    assert {d.part[i] for i in train} == {"train"} and {d.part[i] for i in test} == {
        "test"
    }
    assert [d.classes[int(v)] for v in labels] == list(d.labels)
    rows = drawn_rows(d, 2, 0)
    assert set(rows) <= set(train) and len(rows) == 2 * len(d.classes)
    assert drawn_rows(d, 2, 0) == rows != drawn_rows(d, 2, 1)


def test_mean_and_range_in_percent():
    assert mean_and_range([0.5]) == "50.0"
    assert mean_and_range([0.5, 0.75, 0.6]) == "61.7 (50.0–75.0)"


@pytest.mark.parametrize("kind", ["prototype", "ridge"])
def test_a_head_of_a_class_without_examples_is_refused(kind):
    x, y = torch.eye(4), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="each of 3 classes must have an example"):
        fit_head(x, y, 3, kind)
    with pytest.raises(ValueError, match="0..0, got 0 to 1"):
        fit_head(x, y, 1, kind)
    with pytest.raises(ValueError, match="weight must hold 0 or more"):
        fit_head(x, y, 2, kind, torch.tensor([1.0, 1.0, 1.0, -1.0]))


def test_a_class_without_weight_has_no_mean():
    with pytest.raises(ValueError, match="got none of class 1"):
        weighted_means(
            torch.eye(3), torch.tensor([0, 1, 1]), 2, torch.tensor([1.0, 0, 0])
        )
