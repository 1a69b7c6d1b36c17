"""The quadratic tasks, the losses for each task, and the two ways to hold a gradient
against an independent answer."""

import pytest
import torch
import torch.nn.functional as F

from metalearn_book.foundations.bilevel import LinearTasks, QuadraticAnswer
from metalearn_book.foundations.bilevel import binary_cross_entropy_per_task, compare
from metalearn_book.foundations.bilevel import cross_entropy_per_task
from metalearn_book.foundations.bilevel import finite_differences, mse_per_task
from metalearn_book.foundations.bilevel import quadratic_form, relative_difference
from metalearn_book.foundations.tasks import Examples
from shared import gen


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_closed_form_is_gradient_descent(steps):
    tasks, phi, rate = LinearTasks(dim=3).sample(7, gen(2)), draw(3), 0.2
    answer = QuadraticAnswer(tasks, rate, steps)

    def adapted(start):
        "Every task by plain gradient descent on its mean squared error."
        theta = start.expand(7, 3).unsqueeze(-1)
        x, y = tasks.support.x, tasks.support.y
        for _ in range(steps):
            theta = theta - rate * 2 * x.mT @ (x @ theta - y) / x.shape[1]
        return theta.squeeze(-1)

    def query_loss(start):
        return (
            (tasks.query.x @ adapted(start).unsqueeze(-1) - tasks.query.y) ** 2
        ).mean()

    assert torch.allclose(answer.adapted(phi), adapted(phi), rtol=1e-10)
    assert torch.allclose(
        answer.meta_gradient(phi),
        torch.autograd.grad(query_loss(phi.requires_grad_()), phi)[0],
        rtol=1e-10,
    )
    A, c = quadratic_form(tasks.query)
    first = (A @ (adapted(phi) - c).unsqueeze(-1)).squeeze(-1).mean(0)
    assert torch.allclose(answer.meta_gradient(phi, True), first, rtol=1e-10)
    for first_order in (False, True):
        assert (
            answer.meta_gradient(answer.optimum(first_order), first_order).abs().max()
            < 1e-10
        )


def test_the_minimizer_must_be_unique_and_the_examples_plain():
    with pytest.raises(ValueError, match="do not determine"):
        quadratic_form(LinearTasks(dim=3, k_shot=2).sample(1, gen()).support)
    whole = LinearTasks().sample(1, gen()).support
    with pytest.raises(ValueError, match="no mask"):
        quadratic_form(Examples(whole.x, whole.y, torch.ones(1, 10, dtype=torch.bool)))


def test_losses_are_means_over_the_valid_examples_of_each_task():
    logits, y = draw(2, 4, 3), torch.randint(0, 3, (2, 4), generator=gen())
    keep = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    expected = torch.stack(
        [F.cross_entropy(logits[0, :2], y[0, :2]), F.cross_entropy(logits[1], y[1])]
    )
    assert torch.allclose(cross_entropy_per_task(logits, y, keep), expected)
    assert torch.allclose(
        cross_entropy_per_task(logits[:1], y[:1]), F.cross_entropy(logits[0], y[0])
    )
    z = draw(2, 4, 1)
    assert torch.allclose(
        binary_cross_entropy_per_task(z, y > 0),
        torch.stack(
            [
                F.binary_cross_entropy_with_logits(z[b, :, 0], (y[b] > 0).double())
                for b in range(2)
            ]
        ),
    )
    answers, keep = (
        draw(2, 4, 2, seed=1),
        torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]).bool(),
    )
    predicted = draw(2, 4, 2, seed=2)
    error = (predicted - answers) ** 2
    assert torch.allclose(
        mse_per_task(predicted, answers, keep),
        torch.stack([error[0, :1].mean(), error[1, :2].mean()]),
    )
    with pytest.raises(ValueError, match="they must agree"):
        mse_per_task(predicted, answers[..., 0])


def test_relative_difference_and_finite_differences():
    assert (
        relative_difference(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0])) == 0.25
    )
    assert not relative_difference(torch.tensor([float("nan")]), torch.ones(1)) <= 1
    with pytest.raises(ValueError, match="shapes differ"):
        relative_difference(torch.ones(2), torch.ones(1))
    A = draw(3, 2)
    assert torch.allclose(finite_differences(lambda v: A @ v, draw(2)), A, atol=1e-8)


def test_compare_prints_a_verdict_and_stops_at_a_difference(capsys):
    one = torch.ones(2, dtype=torch.float64)
    compare("same", one, one)
    compare("near", one + 1e-12, one)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["same", "exact", "max", "difference", "0e+00"]
    assert lines[1].split()[:2] == ["near", "approximate"]
    with pytest.raises(AssertionError, match="far: 0.1 is more than 0.01"):
        compare("far", one + 0.1, one, 0.01)
    with pytest.raises(ValueError, match="shapes differ"):
        compare("shapes", one, one[:1])


@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_labels_do_not_count_in_a_batch_as_alone(weighted):
    "The library's mean over valid labels, its gradient too; words with labels as well."
    weight = torch.tensor([0.2, 1.0, 3.0]).double() if weighted else None
    for shape in ((3, 4), (3, 4, 3)):  # as many words as classes: no axis is mixed up
        logits = draw(*shape, 3).requires_grad_()
        y = torch.randint(0, 3, shape, generator=gen(1))
        y[0, 1:], y[1, 0] = -100, -100
        together = cross_entropy_per_task(logits, y, weight=weight)
        for b in range(3):
            library = F.cross_entropy(
                logits[b].reshape(-1, 3), y[b].flatten(), weight=weight
            )
            alone = cross_entropy_per_task(
                logits[b : b + 1], y[b : b + 1], None, weight
            )
            for ours in (together[b], alone[0]):
                assert torch.allclose(ours, library, rtol=1e-12)
                expected = torch.autograd.grad(library, logits, retain_graph=True)[0]
                ours = torch.autograd.grad(ours, logits, retain_graph=True)[0]
                assert torch.allclose(ours, expected, rtol=1e-12)


def test_a_mask_and_ignored_labels_together():
    logits, y = draw(3, 4, 3), torch.randint(0, 3, (3, 4), generator=gen())
    keep = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    y[0, 0], y[0, 3] = -100, 77  # what stands at a padded place does not matter
    losses = cross_entropy_per_task(logits, y, keep)
    assert torch.allclose(losses[0], F.cross_entropy(logits[0, 1:3], y[0, 1:3]))
    assert torch.allclose(losses[1], F.cross_entropy(logits[1, :2], y[1, :2]))
    assert losses[2] == 0
    y[1] = -100
    for nothing in (
        cross_entropy_per_task(logits, y, keep)[1],
        cross_entropy_per_task(logits[1:2], y[1:2])[0],
        cross_entropy_per_task(logits[1:], y[1:])[0],
    ):
        assert nothing.isnan()


def test_labels_of_every_whole_type_and_clear_errors_for_others():
    logits, y = draw(2, 4, 2), torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
    expected = cross_entropy_per_task(logits, y)
    for kind in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.bool):
        assert torch.equal(cross_entropy_per_task(logits, y.to(kind)), expected)
    for n in (1, 2):
        with pytest.raises(ValueError, match="y is torch.float32; say y.long()"):
            cross_entropy_per_task(logits[:n], y[:n].float())
        with pytest.raises(
            ValueError, match="labels run from 2 to 3, but there are logits for 2"
        ):
            cross_entropy_per_task(logits[:n], y[:n] + 2)
        with pytest.raises(ValueError, match="labels run from -1 to 0"):
            cross_entropy_per_task(logits[:n], y[:n] - 1)
        with pytest.raises(ValueError, match="one label for each row"):
            cross_entropy_per_task(logits[:n], y[:n, :3])


def test_a_padded_answer_may_be_anything():
    predicted, answers = draw(2, 3, 1).requires_grad_(), draw(2, 3, 1, seed=1)
    keep = torch.tensor([[True, True, False], [True, True, True]])
    expected = mse_per_task(predicted, answers, keep)
    answers[0, 2] = float("nan")
    loss = mse_per_task(predicted, answers, keep)
    assert torch.equal(loss, expected)
    assert torch.autograd.grad(loss.sum(), predicted)[0].isfinite().all()
