"""Hypernetworks: the linear case by value, what is read of texts, the factors that are
written, their natural directions, and what is refused."""

import copy
import warnings

import pytest
import torch
from shared import gen, randn
from tiny_texts import GROUPS
from told_texts import TOKENIZER, TOLD, gpt
from torch import nn

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.hypernetworks import (
    HyperLoRA,
    ReadoutLoRA,
    expected_risk,
    linear_hypernetwork,
    natural_directions,
    step_statistics,
)
from metalearn_book.language_models.meta_gpt2 import text_batch
from metalearn_book.language_models.small_gpt import (
    bits_per_byte,
    causal_loss,
    causal_loss_per_task,
    generate,
)


def batch_of(texts, length=12):
    return text_batch(TOKENIZER, texts, length)


def support_of(*tasks, length=12):
    "Texts of tasks as a support, and as a query."
    rows = [batch_of(texts, length) for texts in tasks]
    return Examples(*(torch.stack(part) for part in zip(*rows)))


def task_of(place, k=3):
    one, other = GROUPS[place][:k], GROUPS[place][k : 2 * k]
    return TaskBatch(support_of(one), support_of(other))


def learner(model=None, moved=True, **options):
    given = {"rank": 3, "length": 12} | options
    made = HyperLoRA(gpt() if model is None else model, TOKENIZER, **given)
    if moved:
        with torch.no_grad():
            for p in (made.left, made.right, made.average):
                p.add_(0.2 * torch.randn(p.shape, generator=gen(1)))
    return made


# --- the linear case -----------------------------------------------------------------


def family(n, d=6, m=3, noise=0.4, seed=0):
    H, z = randn(d, m, seed=seed), randn(n, m, seed=seed + 1)
    return H, z, z @ H.mT + noise * randn(n, d, seed=seed + 2)


def test_least_squares_by_value():
    "Eq. (HYP-2), in both of its forms, and without noise the truth."
    H, z, theta = family(12)
    found = linear_hypernetwork(z, theta)
    torch.testing.assert_close(found, theta.mT @ z @ torch.linalg.inv(z.mT @ z))
    new = randn(3, seed=9)
    shares = z @ torch.linalg.inv(z.mT @ z) @ new
    torch.testing.assert_close(found @ new, shares @ theta)
    exact = linear_hypernetwork(z, z @ H.mT)
    torch.testing.assert_close(exact, H)


def test_with_fewer_tasks_than_features_the_map_of_least_norm():
    _, z, theta = family(2)
    found = linear_hypernetwork(z, theta)
    torch.testing.assert_close(z @ found.mT, theta)
    other = found + randn(6, 1) @ torch.linalg.svd(z).Vh[-1:]  # fits as well
    torch.testing.assert_close(z @ other.mT, theta)
    assert found.norm() < other.norm()


def test_without_a_limit_on_the_rank_the_metric_plays_no_part():
    _, z, theta = family(12)
    L = randn(6, 6, seed=4)
    plain = linear_hypernetwork(z, theta)
    torch.testing.assert_close(linear_hypernetwork(z, theta, L @ L.mT), plain)
    torch.testing.assert_close(linear_hypernetwork(z, theta, rank=3), plain)


@pytest.mark.parametrize("q", [1, 2])
def test_the_best_map_of_a_rank(q):
    "Eq. (HYP-5)."
    _, z, theta = family(12)
    L = randn(6, 6, seed=4)
    C = L @ L.mT + 0.1 * torch.eye(6, dtype=torch.float64)

    def loss(H):
        gap = theta - z @ H.mT
        return torch.einsum("nd,de,ne->", gap, C, gap)

    found = linear_hypernetwork(z, theta, C, q)
    assert torch.linalg.matrix_rank(found) == q
    U, full, S = randn(6, q, seed=8), linear_hypernetwork(z, theta), z.mT @ z
    for _ in range(300):  # least squares in turns
        V = torch.linalg.solve(U.mT @ C @ U, U.mT @ C @ full)
        U = full @ S @ V.mT @ torch.linalg.inv(V @ S @ V.mT)
    assert loss(found).item() == pytest.approx(loss(U @ V).item(), rel=1e-6)
    assert loss(found) < loss(linear_hypernetwork(z, theta, rank=q))


@pytest.mark.parametrize("n, m", [(12, 3), (20, 8)])
def test_risk_on_a_new_task(n, m):
    "Eq. (HYP-3) against a simulation: one H, many draws."
    H, d, noise = randn(5, m), 5, 0.7
    errors = []
    for seed in range(1500):
        z = randn(n + 1, m, seed=seed + 10)
        theta = z @ H.mT + noise * randn(n + 1, d, seed=seed + 50_000)
        guess = linear_hypernetwork(z[:n], theta[:n]) @ z[n]
        errors.append((guess - theta[n]).square().sum())
    mean = torch.stack(errors).mean().item()
    assert mean == pytest.approx(expected_risk(n, m, d, noise), rel=0.08)


def test_risk_by_value():
    assert expected_risk(24, 11, 20, 0.5) == pytest.approx(5 * (1 + 11 / 12))
    assert expected_risk(10**9, 4, 20, 0.5) == pytest.approx(5)
    with pytest.raises(ValueError, match="at least n_features . 2 = 6, got 5"):
        expected_risk(5, 4, 20, 0.5)


def test_metrics_that_are_none():
    _, z, theta = family(12)
    for metric in (-torch.eye(6), torch.ones(6, 6), torch.eye(6) + randn(6, 6).float()):
        with pytest.raises(ValueError, match="positive definite"):
            linear_hypernetwork(z, theta, metric.double())
    with pytest.raises(ValueError, match="rank must be at most 3"):
        linear_hypernetwork(z, theta, rank=4)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        linear_hypernetwork(z, theta, rank=0)


# --- what is read of a text ----------------------------------------------------------


def test_the_statistic_is_the_gradient_of_the_factors():
    "Eq. (HYP-8), by autograd and by hand."
    model, A = gpt().double(), randn(3, 8, seed=4)
    ids, labels = batch_of(["<headline> rome is red and blue"])
    wrapped = ReadoutLoRA(model, 3)
    with torch.no_grad():
        wrapped.lora_A.copy_(A)
    loss = causal_loss(wrapped(ids), labels)
    (gradient,) = torch.autograd.grad(loss, [wrapped.lora_B])
    S, n, nats = step_statistics(model, ids, labels, A)
    torch.testing.assert_close(S[0], -gradient)
    torch.testing.assert_close(nats[0], loss.detach())
    row, W = ids[0][labels[0] != -100], model.tokens.weight.detach()
    h = model.hidden(row[None])[0].detach()
    wrong = W[row[1:]] - (h @ W.mT).softmax(-1)[:-1] @ W
    torch.testing.assert_close(S[0], wrong.mT @ (h[:-1] @ A.mT) / n[0])
    assert n.item() == len(row) - 1


def test_padding_and_the_order_of_texts_change_nothing():
    model, texts, A = gpt().double(), GROUPS["rome"][:3], randn(3, 8)
    short, long = (step_statistics(model, *batch_of(texts, n), A) for n in (14, 30))
    for a, b in zip(short, long):
        torch.testing.assert_close(a, b)
    made = learner(model, length=30)
    a, b = (made.read(support_of(t, length=30))[0] for t in (texts, texts[::-1]))
    torch.testing.assert_close(a, b)


def test_a_task_is_the_mean_over_all_predictions():
    made = learner(gpt().double())
    some = ["<headline> rome is red", "all about oslo"]
    values, n, nats = step_statistics(made.model.base, *batch_of(some), made.A)
    found, surprise = made.read(support_of(some))
    share = n / n.sum()
    torch.testing.assert_close(found[0], (share[:, None, None] * values).sum(0))
    torch.testing.assert_close(surprise[0], (share * nats).sum())


def test_rows_that_are_masked_weigh_nothing():
    made = learner(gpt().double())
    two = support_of(["<headline> rome is red", "all about oslo"])
    masked = Examples(two.x, two.y, torch.tensor([[True, False]]))
    for a, b in zip(
        made.read(support_of(["<headline> rome is red"])), made.read(masked)
    ):
        torch.testing.assert_close(a, b)


def test_texts_that_say_nothing():
    model, (ids, labels), A = gpt(), batch_of(["<headline> rome"]), torch.eye(8)
    with pytest.raises(ValueError, match="text 0 has no token to predict"):
        step_statistics(model, ids, torch.full_like(labels, -100), A)
    with pytest.raises(ValueError, match="must hold int64"):
        step_statistics(model, ids, labels.float(), A)
    with pytest.raises(ValueError, match="330 tokens"):
        step_statistics(model, ids + 400, labels, A)
    with pytest.raises(ValueError, match="A must have the shape"):
        step_statistics(model, ids, labels, torch.eye(7))


def test_what_was_read_is_kept_until_the_model_or_A_changes():
    made, support = learner(gpt().double()), support_of(GROUPS["rome"][:2])
    first = made.read(support)[0]
    assert torch.equal(made.read(support)[0], first)
    with torch.no_grad():
        made.A.mul_(2)
        torch.testing.assert_close(made.read(support)[0], 2 * first)
        made.model.base.tokens.weight.mul_(0.5)
    fresh = learner(made.model.base)
    with torch.no_grad():
        fresh.A.copy_(made.A)
    torch.testing.assert_close(made.read(support)[0], fresh.read(support)[0])
    made.model.base.tokens.weight.data.mul_(0.5)  # which counts no version
    fresh.model.base.tokens.weight.data.mul_(0.5)
    fresh._kept = {}
    torch.testing.assert_close(made.read(support)[0], fresh.read(support)[0])


def test_answers_to_different_prompts_are_not_taken_for_one_another():
    made = learner()
    ids, labels = batch_of([("<headline> rome", "rain")] * 2)
    ids[1, 0] += 1
    both = made.read(Examples(ids[:, None], labels[:, None]))[0]
    assert (both[0] - both[1]).abs().max() > 1e-4
    for i in range(2):
        S = step_statistics(made.model.base, ids[i : i + 1], labels[i : i + 1], made.A)
        torch.testing.assert_close(both[i], S[0][0])


def test_a_model_that_predicts_nan_is_not_read():
    broken = gpt()
    broken.norm.weight.data[0] = torch.nan
    made, task = learner(broken), task_of("rome")
    for call in (
        lambda: made.read(task.support),
        lambda: made.adapter("all about rome"),
        lambda: made.fit_statistics([task, task_of("oslo")]),
        lambda: natural_directions(broken, [task], 3),
    ):
        with pytest.raises(RuntimeError, match="predictions are no numbers"):
            call()


def test_what_is_no_statistic_and_no_batch():
    made, task = learner(), task_of("rome")
    f = made.read(task.support)[0]
    with pytest.raises(ValueError, match="torch.float32, as the network"):
        made.factors(f.double())
    with pytest.raises(ValueError, match="finite"):
        made.factors(f * torch.nan)
    with pytest.raises(ValueError, match="tasks must be a TaskBatch"):
        made(task.support)
    other = Examples(task.query.x + 1000, task.query.y)
    with pytest.raises(ValueError, match="the model has"):
        made(TaskBatch(task.support, other))
    ids, labels = batch_of(GROUPS["rome"][:2])
    with pytest.raises(ValueError, match="A must be of the model's type"):
        step_statistics(made.model.base, ids, labels, made.A.double())


# --- directions ----------------------------------------------------------------------


def test_natural_directions_by_value():
    "Eq. (HYP-9): the curvature of the table, whitening, and the order of directions."
    model, tasks = gpt().double(), [task_of(p) for p in GROUPS]
    natural, A = natural_directions(model, tasks, 8)
    W, states, said = model.tokens.weight.detach(), [], 0
    for t in tasks:
        h = model.hidden(t.query.x[0]).detach()[:, :-1]
        keep = t.query.y[0][:, 1:] != -100
        states.append(h[keep])
        said = said + (h @ W.mT).softmax(-1)[keep].sum(0)
    states = torch.cat(states)
    q = said / len(states) / 2 + 0.5 / len(W)
    H, eye = W.mT @ torch.diag(q) @ W, torch.eye(8, dtype=torch.float64)
    ridge = lambda M, s: M + s * M.trace() / 8 * eye
    torch.testing.assert_close(natural, torch.linalg.inv(ridge(H, 0.1)))
    second = states.mT @ states / len(states)
    torch.testing.assert_close(A @ ridge(second, 0.01) @ A.mT, eye)
    few = natural_directions(model, tasks, 2)[1]
    torch.testing.assert_close((few @ few.mT), (A[:2] @ A[:2].mT))
    root, gains = torch.linalg.cholesky(natural), 0
    for t in tasks:
        rows = t.query.x[0], t.query.y[0]
        S, n, _ = step_statistics(model, *rows, A)
        G = (n[:, None, None] * S).sum(0) / n.sum()
        gains = gains + (root.mT @ G).square().sum(0)
    assert (gains[:-1] >= gains[1:] - 1e-12).all()


def test_tasks_come_one_by_one_and_whole():
    two = TaskBatch(*(support_of(GROUPS["rome"][:2], GROUPS["oslo"][:2]),) * 2)
    task = task_of("rome")
    seen = torch.tensor([[True, False, True]])
    hidden = TaskBatch(task.support, Examples(task.query.x, task.query.y, seen))
    for wrong in (two, hidden):
        with pytest.raises(ValueError, match=r"tasks\[1\] must hold one task"):
            natural_directions(gpt(), [task, wrong], 3)
        with pytest.raises(ValueError, match=r"tasks\[1\] must hold one task"):
            learner().fit_statistics([task, wrong])


def test_natural_directions_refuse():
    with pytest.raises(ValueError, match="at least 1"):
        natural_directions(gpt(), [], 2)
    with pytest.raises(ValueError, match="rank must be at most 8"):
        natural_directions(gpt(), [task_of("rome")], 9)


# --- the network ---------------------------------------------------------------------


def pair():
    return TaskBatch(
        support_of(GROUPS["rome"][:2], GROUPS["oslo"][:2]),
        support_of(GROUPS["rome"][2:5], GROUPS["oslo"][2:5]),
    )


def test_without_a_step_it_is_the_model():
    model, batch = gpt(), pair()
    made = learner(model, moved=False, step=0.0)
    expected = torch.stack([model(x) for x in batch.query.x])
    found = made.adapt(batch.support)(batch.query.x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_it_begins_as_a_natural_step():
    made = learner(gpt().double(), moved=False, step=0.3)
    made.fit_statistics([task_of(p) for p in GROUPS])
    batch = pair()
    natural, A = natural_directions(gpt().double(), [task_of(p) for p in GROUPS], 3)
    for b in range(2):
        rows = batch.support.x[b], batch.support.y[b]
        S, n, _ = step_statistics(gpt().double(), *rows, A)
        mean = (n[:, None, None] * S).sum(0) / n.sum()
        expected = 0.3 * natural @ (mean - made.center)
        found = made.factors(made.read(batch.support)[0])
        torch.testing.assert_close(found["lora_B"][b], expected)
        torch.testing.assert_close(found["lora_A"][b], A)


def test_written_factors_in_a_plain_model():
    model, batch = gpt().double(), pair()
    made = learner(model)
    together = made.adapt(batch.support)(batch.query.x)
    factors = made.factors(made.read(batch.support)[0])
    for b in range(2):
        plain = ReadoutLoRA(copy.deepcopy(model), 3)
        with torch.no_grad():
            for name, value in factors.items():
                plain.get_parameter(name).copy_(value[b])
        torch.testing.assert_close(plain(batch.query.x[b]), together[b])
    loss = causal_loss_per_task(together, batch.query.y).mean()
    torch.testing.assert_close(made(batch), loss)


def test_changes_are_linear_in_what_is_read():
    made, f = learner(gpt().double()), randn(2, 8, 3)
    B = lambda f: made.factors(f)["lora_B"]
    torch.testing.assert_close(B(f.mean(0, keepdim=True))[0], B(f).mean(0))


def test_gradient_against_finite_differences():
    made, batch = learner(gpt().double()), pair()
    parts = [made.left, made.right, made.average]
    grads = torch.autograd.grad(made(batch), parts)
    assert all(p.grad is None for p in made.model.parameters())
    for part, grad in zip(parts, grads):
        way = randn(*part.shape, seed=5)
        losses = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                part.add_(step * way)
                losses.append(made(batch).item())
                part.sub_(step * way)
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx((grad * way).sum().item(), rel=1e-5, abs=1e-9)


def test_the_model_that_was_given_stays_as_it_is():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    made = learner(model)
    made.fit_statistics([task_of(p) for p in GROUPS])
    made(pair()).backward()
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert made.train().training and not made.model.training


def test_state_and_copy():
    made, batch = learner(), pair()
    made.fit_statistics([task_of(p) for p in GROUPS])
    other = learner(moved=False)
    other(batch)  # what it has read before must not stay
    other.load_state_dict(made.state_dict())
    for twin in (other, copy.deepcopy(made)):
        assert torch.equal(twin(batch), made(batch))
    assert torch.equal(other.limit, made.limit)


def test_centre_and_limit():
    tasks, made = [task_of(p) for p in GROUPS], learner(gpt().double())
    made.fit_statistics(tasks)
    found = [made.read(t.support) for t in tasks]
    mean = torch.cat([f for f, _ in found]).mean(0)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    most = max(nats.item() for _, nats in found)
    assert made.limit.item() == pytest.approx(1.05 * most, rel=1e-5)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        made.fit_statistics(tasks[:1])


# --- use, and what is refused --------------------------------------------------------


def test_a_sentence_gives_a_language_model():
    made = learner()
    model = made.adapted_model("all about rome")
    task = TaskBatch(support_of(["all about rome"]), support_of(GROUPS["rome"][:2]))
    expected = made.adapt(task.support)(task.query.x)[0]
    torch.testing.assert_close(model(task.query.x[0]), expected, rtol=1e-3, atol=1e-3)
    assert isinstance(generate(model, TOKENIZER, "rome", n_tokens=3), str)
    assert bits_per_byte(model, TOKENIZER, GROUPS["rome"][:2])


def test_empty_descriptions_are_refused():
    made = learner()
    for empty in ("", " \n", ["all", " "]):
        with pytest.raises(ValueError, match="is empty"):
            made.adapter(empty)
    for nothing in ([], None, 3, [3]):
        with pytest.raises(ValueError, match="description of 'the task'"):
            made.adapter(nothing)


def test_text_odder_than_any_that_was_trained_on():
    "Another script costs the model more than the limit: an error, or the average."
    torch.manual_seed(0)
    model = small_gpt.SmallGPT(small_gpt.GPTConfig(330, 40, 16, 1, 2))
    ids, labels = batch_of(sum(TOLD.values(), []))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):  # what it has read is no surprise
        optimizer.zero_grad()
        causal_loss(model(ids), labels).backward()
        optimizer.step()
    made = learner(model)
    told = [TaskBatch(support_of(TOLD[p]), support_of(GROUPS[p][:2])) for p in GROUPS]
    made.fit_statistics(told)
    for text in ("Ξενοδοχεία στην πόλη", "预订餐厅", "жжж ыыы"):
        with pytest.raises(ValueError, match="nats a token, above the limit"):
            made.adapter(text)
        with pytest.warns(UserWarning, match="average adapter is taken"):
            found = made.adapter(text, odd="average")
        torch.testing.assert_close(found["lora_B"], made.average.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.adapter("all about oslo")
    with pytest.raises(ValueError, match="one of 'error', 'average'"):
        made.adapter("all about oslo", odd="ignore")


def test_models_and_ranks_that_are_none():
    model = gpt()
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        HyperLoRA(model, TOKENIZER, rank=0, length=12)
    with pytest.raises(ValueError, match="rank must be at most 8"):
        HyperLoRA(model, TOKENIZER, rank=9, length=12)
    with pytest.raises(ValueError, match="length must be at most 40"):
        HyperLoRA(model, TOKENIZER, rank=2, length=41)
    for call in (lambda m: HyperLoRA(m, TOKENIZER), ReadoutLoRA):
        with pytest.raises(ValueError, match="model must be a SmallGPT"):
            call(nn.Linear(2, 2))


def test_what_is_no_support():
    made = learner()
    with pytest.raises(ValueError, match="support must be Examples"):
        made.adapt("all about rome")
    with pytest.raises(ValueError, match="x must have the shape"):
        made.adapt(Examples(torch.zeros(1, 2).long(), torch.zeros(1, 2).long()))
