"""In-context regression: closed forms, a transformer that reads pairs, and layers that
are gradient steps."""

import copy
import math

import pytest
import torch

from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.language_models import in_context as ic


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(n=6, dim=3, points=7, **more):
    t = ic.LinearPrompts(dim, points, **more).sample(n, gen())
    parts = t.support, t.query
    return torch.cat([e.x for e in parts], 1), torch.cat([e.y for e in parts], 1)


def test_sequences_are_linear_tasks():
    x, y = (t.double() for t in sequences(points=9))
    w = torch.linalg.lstsq(x, y[..., None]).solution
    assert (x @ w - y[..., None]).abs().max() < 1e-4
    pool = torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    x, y = sequences(50, pool=pool)
    fits = torch.stack([(x @ w - y).abs().amax(1) < 1e-5 for w in pool])
    assert fits.any(0).all() and fits.any(1).all()


def test_least_squares_is_numpys_at_each_position():
    import numpy as np

    x, y = (t.double() for t in sequences())
    ours = ic.least_squares_answers(x, y)
    assert (ours[:, 0] == 0).all()
    for b in range(len(x)):
        for k in range(1, 7):
            w = np.linalg.lstsq(x[b, :k].numpy(), y[b, :k].numpy(), rcond=None)[0]
            assert abs(ours[b, k].item() - float(x[b, k].numpy() @ w)) < 1e-8


def test_ridge_is_the_mean_of_the_posterior():
    x, y = (t.double() for t in sequences(noise=0.5))
    ours = ic.least_squares_answers(x, y, ridge=0.25)
    for k in (1, 4):  # the mean of y_k given the others, by the joint covariance
        K = x[:, : k + 1] @ x[:, : k + 1].mT
        among = K[:, :k, :k] + 0.25 * torch.eye(k)
        mean = K[:, k, None, :k] @ torch.linalg.solve(among, y[:, :k, None])
        assert (mean[:, 0, 0] - ours[:, k]).abs().max() < 1e-10


def test_bayes_over_a_pool_is_bayes_rule():
    pool = torch.randn(4, 3, generator=gen(1)).double()
    x, y = (t.double() for t in sequences(noise=0.3))
    ours = ic.pool_answers(x, y, pool, 0.3)
    for b in range(len(x)):
        like = torch.ones(4).double()
        for k in range(x.shape[1]):
            p = like / like.sum()
            assert abs(ours[b, k] - (p * (pool @ x[b, k])).sum()) < 1e-9
            like = like * (-((y[b, k] - pool @ x[b, k]) ** 2) / 2 / 0.09).exp()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ic.LinearPrompts(0), "dim must be at least 1"),
        (lambda: ic.LinearPrompts(2, 1), "n_points must be at least 2"),
        (lambda: ic.LinearPrompts(2, noise=-1.0), "noise"),
        (lambda: ic.LinearPrompts(2, pool=torch.ones(3, 4)), r"weights \(M, 2\)"),
        (lambda: ic.LinearPrompts(2).sample(2, 0), "generator"),
        (lambda: ic.least_squares_answers(torch.ones(2, 3), torch.ones(2)), "x must"),
        (
            lambda: ic.least_squares_answers(
                torch.full((1, 2, 2), math.nan), torch.ones(1, 2)
            ),
            "finite",
        ),
        (
            lambda: ic.pool_answers(
                torch.ones(1, 2, 2), torch.ones(1, 2), torch.ones(3, 2), 0.0
            ),
            "noise",
        ),
    ],
)
def test_what_linear_tasks_refuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def regressor():
    torch.manual_seed(0)
    return ic.InContextRegressor(3, 7, width=16, n_layers=2, n_heads=2)


def test_an_answer_sees_only_the_pairs_before():
    model, (x, y) = regressor(), sequences()
    plain = model.answers(x, y)
    for k in range(7):
        other_y, other_x = y.clone(), x.clone()
        other_y[:, k] += 1
        other_x[:, k] += 1
        moved = (model.answers(x, other_y) - plain).abs().amax(0)
        assert moved[: k + 1].max() == 0 and (k == 6 or moved[k + 1 :].max() > 0)
        moved = (model.answers(other_x, y) - plain).abs().amax(0)
        assert k == 0 or moved[:k].max() == 0
        assert moved[k] > 0


def test_adapt_answers_as_the_row_does():
    model, tasks = regressor(), ic.LinearPrompts(3, 5).sample(4, gen())
    x = torch.randn(4, 3, 3, generator=gen(3))
    told = model.adapt(tasks.support)(x)
    assert told.shape == (4, 3)
    for q in range(3):
        row = torch.cat([tasks.support.x, x[:, q : q + 1]], 1)
        y = torch.cat([tasks.support.y, torch.zeros(4, 1)], 1)
        assert torch.allclose(model.answers(row, y)[:, -1], told[:, q], atol=1e-6)
    found = evaluate(model, ic.LinearPrompts(3, 5), 20, metric=mse)
    assert len(found) == 20 and math.isfinite(found.mean)


def test_training_lowers_the_loss_and_resumes(tmp_path):
    run = {"tasks_per_step": 16, "outer_lr": 3e-3, "progress": False}
    tasks = ic.LinearPrompts(2, 5)
    torch.manual_seed(1)
    whole = ic.InContextRegressor(2, 5, width=16, n_layers=1, n_heads=2)
    parted = copy.deepcopy(whole)
    history = meta_train(whole, tasks, steps=40, **run)
    assert sum(history.loss[-5:]) < sum(history.loss[:5])
    again = copy.deepcopy(parted)
    kept = Checkpoint(tmp_path / "run.pt", every=10)
    calls = 0

    class Killed(Exception):
        pass

    class Dies(type(tasks)):
        def sample(self, n, g):
            nonlocal calls
            calls += 1
            if calls == 26:
                raise Killed
            return super().sample(n, g)

    with pytest.raises(Killed):
        meta_train(parted, Dies(2, 5), steps=40, checkpoint=kept, **run)
    meta_train(again, Dies(2, 5), steps=40, checkpoint=kept, **run)
    for a, b in zip(whole.parameters(), again.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda m: m.answers(torch.ones(1, 8, 3), torch.ones(1, 8)),
            "at most n_points",
        ),
        (lambda m: m.answers(torch.ones(1, 4, 2), torch.ones(1, 4)), r"\(B, N, 3\)"),
        (lambda m: m.adapt(torch.ones(1, 4, 3)), "support must be Examples"),
        (
            lambda m: m.adapt(
                Examples(torch.ones(1, 2, 3), torch.ones(1, 2), torch.eye(2)[:1] > 0)
            ),
            "padding",
        ),
        (lambda m: ic.InContextRegressor(3, 7, width=10, n_heads=3), "n_heads"),
        (
            lambda m: m.answers(*(t.double() for t in sequences())),
            "x and y must be of the model's type, torch.float32, got torch.float64",
        ),
        (
            lambda m: m.adapt(Examples(torch.ones(1, 2, 3).double(), torch.ones(1, 2)))(
                torch.ones(1, 1, 3)
            ),
            "must be of one type|of the model's type",
        ),
    ],
)
def test_what_the_transformer_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call(regressor())


def test_train_in_context_is_the_same_at_a_seed_and_resumes(tmp_path):
    prompts = ic.LinearPrompts(2, 4)
    run = {"tasks_per_step": 4, "width": 8, "n_layers": 1, "n_heads": 2}
    before = torch.random.get_rng_state()
    a, history = ic.train_in_context(prompts, steps=12, seed=1, **run)
    assert torch.equal(before, torch.random.get_rng_state())
    kept = Checkpoint(tmp_path / "run.pt", every=4)
    b, _ = ic.train_in_context(prompts, steps=12, seed=1, checkpoint=kept, **run)
    c, _ = ic.train_in_context(prompts, steps=12, seed=1, checkpoint=kept, **run)
    for p, q, r in zip(a.parameters(), b.parameters(), c.parameters()):
        assert torch.equal(p, q) and torch.equal(q, r)
    assert len(history.loss) == 12 and not a.training
    with pytest.raises(ValueError, match="prompts must be LinearPrompts"):
        ic.train_in_context(None)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_layers_are_steps_of_gradient_descent(steps):
    draw = lambda *s: torch.randn(*s, generator=gen(steps), dtype=torch.float64)
    x, y, q = draw(5, 9, 4), draw(5, 9), draw(5, 2, 4)
    layer = ic.gradient_attention(4, 0.03)
    ours = ic.attention_answers([layer] * steps, x, y, q)
    w = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(steps):
        w = w.requires_grad_()
        loss = ((x @ w[..., None])[..., 0] - y).square().sum() / 2
        w = (w - 0.03 * torch.autograd.grad(loss, w)[0]).detach()
    assert (ours - (q @ w[..., None])[..., 0]).abs().max() < 1e-12


def test_the_best_rate_has_the_loss_of_the_formula():
    d, k, n = 3, 6, 60_000
    tasks = ic.LinearPrompts(d, k + 1).sample(n, gen(4))
    for rate in (1 / (k + d + 1), 0.05):
        layer = ic.gradient_attention(d, rate).float()
        with torch.no_grad():
            told = ic.attention_answers(
                [layer], tasks.support.x, tasks.support.y, tasks.query.x
            )
        error = (told - tasks.query.y).square().mean().item() / d
        assert abs(error - (1 - 2 * rate * k + rate**2 * k * (k + d + 1))) < 0.03


def test_what_a_layer_refuses():
    layer, x = ic.gradient_attention(2), torch.ones(1, 3, 2).double()
    with pytest.raises(ValueError, match=r"\(B, N, 3\)"):
        layer(x, 1)
    with pytest.raises(ValueError, match="n_context must be at most 3"):
        layer(torch.ones(1, 3, 3).double(), 4)
    with pytest.raises(ValueError, match="layers"):
        ic.attention_answers([], x, x[..., 0], x)
    with pytest.raises(ValueError, match="tokens must be of the model's type"):
        layer(torch.ones(1, 3, 3), 1)
    with pytest.raises(ValueError, match="must be of one type"):
        ic.attention_answers([layer, ic.LinearAttention(2)], x, x[..., 0], x)


def test_the_answer_of_a_pool_knows_only_the_pairs_before():
    "Far targets do not leak into the answer at their own place."
    x, y = torch.randn(3, 9, 4, generator=gen(1)).double(), torch.randn(3, 9).double()
    pool = torch.randn(6, 4, generator=gen(2)).double()
    changed = y.clone()
    changed[:, 4] = 1e9
    same = ic.pool_answers(x, y, pool)[:, :5]
    assert torch.equal(ic.pool_answers(x, changed, pool)[:, :5], same)
    with pytest.raises(ValueError, match="leave the numbers"):
        ic.pool_answers(x, torch.full_like(y, 1e160), pool)


def test_least_squares_of_very_large_and_very_small_inputs():
    for size in (1e200, 1e-170):
        x = torch.full((1, 2, 1), size, dtype=torch.float64)
        found = ic.least_squares_answers(x, x[..., 0])
        torch.testing.assert_close(found[0, 1] / size, torch.tensor(1.0).double())


def test_padding_is_not_read_as_pairs():
    model = ic.InContextRegressor(dim=2, n_points=5)
    x, y = torch.randn(1, 3, 2, generator=gen(3)), torch.randn(1, 3, generator=gen(4))
    mask = torch.tensor([[True, False, False]])
    tasks = TaskBatch(Examples(x, y, mask), Examples(x[:, :2], y[:, :2]))
    with pytest.raises(ValueError, match="tasks have padding"):
        model(tasks)
