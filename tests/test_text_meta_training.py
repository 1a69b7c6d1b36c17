"""Properties of the chapter "Training on other sets" that it does not have to show:
modules of tasks, copies, the top layers."""

import pytest
import torch
from shared import few_intents, gen, unit

from metalearn_book.case_studies.text_classification import ClassBatches, train_encoder
from metalearn_book.case_studies.text_meta_training import TaskHeads, TopLayers
from metalearn_book.case_studies.text_meta_training import lower_states, without_copies
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.optimization.maml import MAML
from metalearn_book.optimization.reptile import Reptile
from metalearn_book.optimization.what_to_adapt import ANIL


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def few():
    return few_intents()


def test_copies_are_found_whatever_case_and_punctuation():
    assert without_copies(["Hello, you!", "other"], [1, 2], ["hello you"]) == (
        ["other"],
        [2],
    )
    with pytest.raises(ValueError, match="2 texts but 1 labels"):
        without_copies(["a", "b"], [1], [])


def test_task_heads_touch_their_own_task_only():
    heads = TaskHeads(6, [3, 2])
    heads(unit(4, dtype=torch.float32), torch.tensor([3, 4, 3, 4])).backward()
    assert heads.vectors[0].grad is None and heads.scales[0].log_weight.grad is None
    assert (
        heads.vectors[1].grad.abs().sum() > 0
        and heads.scales[1].log_weight.grad.abs().sum() > 0
    )


def test_class_vectors_start_at_the_means_of_the_right_classes():
    z, y = unit(6, dtype=torch.float32), torch.tensor([2, 0, 1, 2, 0, 1])
    heads = TaskHeads.from_means(z, y)
    for c in range(3):
        torch.testing.assert_close(heads.vectors[0][c].detach(), z[y == c].mean(0))
    numbers = ClassBatches(
        [(list("abcdef"), y.tolist())], 2, 2
    ).y  # numbered in sorted order, not by first appearance
    assert numbers.tolist() == y.tolist()


def test_a_loss_with_parameters_is_trained_too(tiny, few):
    heads = TaskHeads(tiny.dim, [4])
    before = heads.vectors[0].detach().clone()
    train_encoder(tiny, [(few.texts, few.labels)], heads, steps=2, layers=1)
    assert not torch.equal(heads.vectors[0], before)


@pytest.mark.parametrize("n_top", [1, 2])
def test_lower_part_and_top_make_the_encoder(tiny, few, n_top):
    states = lower_states(tiny, few.texts, n_top)
    torch.testing.assert_close(
        TopLayers(tiny, n_top).eval()(states), tiny.encode(few.texts), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda m: MAML(m, inner_lr=0.1, inner_steps=2),
        lambda m: MAML(m, inner_lr=0.1, first_order=True),
        lambda m: ANIL(m, inner_lr=1.0),
        lambda m: Reptile(m, inner_lr=0.1, inner_steps=2),
    ],
    ids=["MAML", "FOMAML", "ANIL", "Reptile"],
)
def test_learners_run_on_the_top_layer(tiny, few, make):
    tasks = ClassTasks(lower_states(tiny, few.texts), few.labels, 3, 2, 2).sample(
        2, gen()
    )
    learner = make(TopLayers(tiny, 1, 3).eval())
    learner(tasks).backward()
    assert all(
        p.grad is None or p.grad.isfinite().all() for p in learner.parameters()
    ) and any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters()
    )
    assert learner.adapt(tasks.support)(tasks.query.x).shape == (2, 6, 3)


def test_modules_of_tasks_refuse_what_no_task_has(tiny):
    heads = TaskHeads(6, [3, 2])
    with pytest.raises(ValueError, match="y must be below 5, got 7"):
        heads(unit(2, dtype=torch.float32), torch.tensor([7, 7]))
    with pytest.raises(ValueError, match="n_top must be at most"):
        lower_states(tiny, ["a"], n_top=99)
    with pytest.raises(ValueError, match="half of a character"):
        lower_states(tiny, ["a", "\ud800"])
