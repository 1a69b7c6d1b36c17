"""Prior-fitted networks: priors, closed forms, bars, the transformer and bad tables."""

import math

import numpy as np
import pytest
import torch
from shared import gen

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.training import meta_train
from metalearn_book.model_based import prior_fitted as pf
from metalearn_book.model_based.neural_process import GPTasks


def classifier(dim=4, n_classes=3):
    torch.manual_seed(0)
    return pf.PFNClassifier(dim, n_classes, width=8, n_layers=2, heads=2).eval()


def regressor():
    torch.manual_seed(0)
    bars = pf.bars_of(torch.randn(500, generator=gen()), 10)
    return pf.PFNRegressor(bars, width=8, n_layers=2, heads=2).eval()


def test_coins_follow_the_closed_form():
    coins = pf.BetaBernoulliTasks(2.0, 3.0, (4, 4), 1)
    t = coins.sample(60_000, gen())
    ones = t.support.y.sum(1)
    for s in range(5):
        share = t.query.y[ones == s].double().mean().item()
        assert abs(share - coins.exact(torch.tensor(s), 4).item()) < 0.02
    # the shares of s: a Beta-binomial distribution
    for s in range(5):
        log_p = (math.lgamma(5) - math.lgamma(s + 1) - math.lgamma(5 - s)
                 + math.lgamma(2 + s) + math.lgamma(7 - s) - math.lgamma(9)
                 + math.lgamma(5) - math.lgamma(2) - math.lgamma(3))  # fmt: skip
        assert abs((ones == s).double().mean().item() - math.exp(log_p)) < 0.01


def test_bars_are_a_distribution():
    bars = pf.bars_of(torch.randn(4000, generator=gen()).double(), 9)
    logits = torch.randn(1, 1, 9, generator=gen(1)).double()
    y = torch.linspace(-20, 20, 100_001, dtype=torch.float64)
    told = pf.BarDensity(bars, logits.expand(1, len(y), 9))
    mass = told.log_prob(y[None, :, None]).exp()[0] * (y[1] - y[0])
    assert abs(mass.sum().item() - 1) < 1e-3
    up_to = told.cdf(y[None, :, None])[0]
    assert (mass.cumsum(0) - up_to).abs().max() < 1e-3 and (up_to.diff() >= 0).all()
    one = pf.BarDensity(bars, logits)
    assert abs((mass * y).sum().item() - one.average.item()) < 1e-2
    for share in (0.01, 0.5, 0.99):
        assert abs(one.cdf(one.quantile(share)[..., None]).item() - share) < 1e-9


def test_bars_at_the_borders_and_far_out():
    bars = pf.Bars(torch.tensor([0.0, 1.0, 2.0, 4.0]).double())
    told = pf.BarDensity(bars, torch.zeros(1, 1, 3).double())
    at = lambda y: told.log_prob(torch.tensor(y).double().view(1, 1, 1)).item()
    assert at(1.0) == at(1.9) == pytest.approx(-math.log(3))
    normal = torch.distributions.Normal(0.0, 1.0)
    assert at(-3.0) == pytest.approx(
        math.log(2 / 3) + normal.log_prob(torch.tensor(4.0)).item(), abs=1e-6
    )
    assert math.isfinite(at(1e3)) and at(1e3) < at(5.0)


def test_the_loss_of_a_bar_is_cross_entropy_and_width():
    bars = pf.Bars(torch.tensor([-3.0, -1.0, 0.0, 0.5, 3.0]).double())
    logits = torch.randn(1, 2, 4, generator=gen()).double()
    y = torch.tensor([[[-0.5], [0.2]]]).double()
    ours = pf.BarDensity(bars, logits).log_prob(y)
    ce = torch.nn.functional.cross_entropy(logits[0], torch.tensor([1, 2]),
                                           reduction="none")  # fmt: skip
    want = -ce - torch.tensor([1.0, 0.5]).double().log()
    torch.testing.assert_close(ours[0], want)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_order_company_and_count(kind):
    if kind == "classes":
        model, t = (
            classifier(1, 2),
            pf.BetaBernoulliTasks(k_shot=(6, 6)).sample(3, gen()),
        )
    else:
        model, t = regressor(), GPTasks((6, 6), 8).sample(3, gen())
    order = torch.randperm(6, generator=gen(1))
    turned = t.support.map(lambda v: v[:, order])
    twice = t.support.map(lambda v: torch.cat([v, v], 1))
    with torch.no_grad():
        plain = model.adapt(t.support)(t.query.x)
        torch.testing.assert_close(model.adapt(turned)(t.query.x), plain)
        alone = model.adapt(t.support)(t.query.x[:, 3:4])
        torch.testing.assert_close(alone, plain[:, 3:4])
        assert (model.adapt(twice)(t.query.x) - plain).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_padding_is_not_read(kind):
    if kind == "classes":
        model, t = classifier(), pf.TableTasks(4, 3, (6, 6), 5).sample(3, gen())
    else:
        model, t = regressor(), GPTasks((6, 6), 5).sample(3, gen())
    longer = {k: torch.cat([getattr(t.support, k)] * 2, 1) for k in "xy"}
    mask = torch.arange(12).expand(3, 12) < 6
    with torch.no_grad():
        padded = model.adapt(Examples(**longer, mask=mask))(t.query.x)
        torch.testing.assert_close(padded, model.adapt(t.support)(t.query.x))


def test_training_on_draws_comes_near_the_coin():
    torch.manual_seed(0)
    model = pf.PFNClassifier(1, 2, width=16, n_layers=1, heads=2)
    coins = pf.BetaBernoulliTasks(k_shot=(1, 8))
    meta_train(
        model, coins, steps=250, tasks_per_step=64, outer_lr=5e-3, progress=False
    )
    gaps = []
    for n in range(1, 9):
        y = (torch.arange(n)[None] < torch.arange(n + 1)[:, None]).long()
        x = torch.zeros(n + 1, n, 1)
        with torch.no_grad():
            q = model.eval().adapt(Examples(x, y))(x[:, :1]).softmax(-1)[:, 0, 1]
        gaps.append((q - coins.exact(torch.arange(n + 1), n)).abs().mean().item())
    assert np.mean(gaps) < 0.05


def test_drawn_tables():
    tables = pf.TableTasks(6, 3, (5, 9), 7)
    seen = set()
    for seed in range(12):
        t = tables.sample(20, gen(seed))
        n = t.support.n_items
        assert 5 <= n <= 9 and t.query.x.shape == (20, 7, 6)
        assert t.support.x.isfinite().all() and t.query.x.abs().max() <= 6
        assert t.support.x.mean(1).abs().max() < 1
        assert 0 <= t.query.y.min() and t.query.y.max() <= 2
        seen.add(int(t.query.y.max()))
        again = tables.sample(20, gen(seed))
        assert torch.equal(again.support.x, t.support.x)
    assert seen == {1, 2}


def test_columns_are_scaled_by_the_support_set():
    x = torch.randn(2, 8, 3, generator=gen()) * 5 + 100
    x[:, :, 2] = 7.0
    z = pf.standardized(x, 5)
    torch.testing.assert_close(
        z[:, :5, :2].mean(1), torch.zeros(2, 2), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(z[:, :5, :2].std(1, correction=0), torch.ones(2, 2))
    assert (z[..., 2] == 0).all()


def table(n=20, d=3, seed=0):
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, d))
    return x, np.where(x[:, 0] > 0, "yes", "no")


def test_probabilities_of_a_table():
    x, y = table()
    model = classifier(5, 3)
    p, classes = pf.table_probabilities(model, x[:15], y[:15], x[15:])
    assert classes == ["no", "yes"] and p.shape == (5, 2)
    np.testing.assert_allclose(p.sum(1), 1)
    moved, _ = pf.table_probabilities(
        model, 1000 * x[:15] + 7, y[:15], 1000 * x[15:] + 7
    )
    np.testing.assert_allclose(moved, p, atol=1e-4)
    one, _ = pf.table_probabilities(model, x[:15], y[:15], x[15:16])
    np.testing.assert_allclose(one[0], p[0], atol=1e-5)
    assert not model.training
    numbers = pf.table_probabilities(model, x[:15], (y[:15] == "yes").tolist(), x[15:])
    assert numbers[1] == [False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y, q: (x, np.repeat("no", len(y)), q), "y must have 2 to 3 classes"),
        (lambda x, y, q: (x, np.arange(len(y)), q), "y must have 2 to 3 classes"),
        (lambda x, y, q: (x[:0], y[:0], q), "one row or more"),
        (lambda x, y, q: (x, y, q[:0]), "one row or more"),
        (lambda x, y, q: (np.tile(x, 3), y, np.tile(q, 3)), "1 to 5 columns"),
        (lambda x, y, q: (x[0], y, q), "one row or more and 1 to 5 columns"),
        (lambda x, y, q: (np.where(x > 2, np.nan, x * np.nan), y, q), "missing or inf"),
        (lambda x, y, q: (x, y, q + np.inf), "missing or infinite"),
        (lambda x, y, q: (x, y[:-1], q), "must agree"),
        (lambda x, y, q: (x, y, q[:, :2]), "must agree"),
        (lambda x, y, q: ([["a", "b"]], ["c"], q), "array of numbers"),
        (lambda x, y, q: (x, [None] * len(y), q), "texts or numbers"),
    ],
)
def test_tables_that_are_refused(change, words):
    x, y = table()
    with pytest.raises(ValueError, match=words):
        pf.table_probabilities(classifier(5, 3), *change(x[:15], y[:15], x[15:]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pf.BetaBernoulliTasks(a=0.0), "a must be"),
        (lambda: pf.BetaBernoulliTasks(k_shot=(0, 2)), "k_shot"),
        (lambda: pf.BetaBernoulliTasks().exact(torch.tensor(3), 2), "0 to n"),
        (lambda: pf.BetaBernoulliTasks().sample(2, None), "generator"),
        (lambda: pf.TableTasks(n_classes=1), "n_classes"),
        (lambda: pf.TableTasks(k_shot=(1, 5)), "k_shot"),
        (lambda: pf.Bars(torch.tensor([0.0, 1.0])), "at least 4"),
        (lambda: pf.Bars(torch.tensor([0.0, 2.0, 1.0, 3.0])), "must rise"),
        (lambda: pf.bars_of(torch.zeros(500), 10), "must rise"),
        (lambda: pf.bars_of(torch.randn(5), 10), "more than n_bars"),
        (lambda: pf.bars_of(torch.tensor([math.nan] * 50), 10), "finite"),
        (lambda: pf.PFNClassifier(2, 2, width=6, heads=4), "multiple of heads"),
        (lambda: pf.PFNRegressor(None), "bars must be Bars"),
        (lambda: pf.table_probabilities(None, *table(), table()[0]), "PFNClassifier"),
    ],
)
def test_settings_that_mean_nothing(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_is_no_support_set_is_refused():
    model, t = classifier(), pf.TableTasks(4, 3, (6, 6), 5).sample(2, gen())
    bad = t.support.x.clone()
    bad[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="must hold finite numbers"):
        model.adapt(Examples(bad, t.support.y))
    with pytest.raises(ValueError, match="labels run from 0 to 7"):
        model.adapt(Examples(t.support.x, t.support.y.clamp_max(0) + 7 * (
            torch.arange(6) == 2)))  # fmt: skip
    with pytest.raises(ValueError, match=r"features must be \(B, S, 4\)"):
        model.adapt(t.support)(torch.ones(2, 3, 2))
    with pytest.raises(ValueError, match="one example in each"):
        model.adapt(Examples(t.support.x[:, :0], t.support.y[:, :0]))
    numbers, world = regressor(), GPTasks((3, 3), 2).sample(2, gen())
    with pytest.raises(ValueError, match="y must be .* one number"):
        numbers.adapt(Examples(world.support.x, world.support.y[..., 0]))
    with pytest.raises(ValueError, match="must hold finite numbers"):
        numbers(TaskBatch(world.support, Examples(
            world.query.x, world.query.y * math.inf)))  # fmt: skip


def test_the_gradient_of_the_regressor_is_right():
    "Central differences, in float64, along a random direction."
    model = regressor().double()
    t = GPTasks((4, 4), 3).sample(2, gen())
    t = TaskBatch(*(e.map(lambda v: v.double()) for e in (t.support, t.query)))
    named = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(model(t), named)
    way = [torch.randn(p.shape, generator=gen(i)).double() for i, p in enumerate(named)]
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, v in zip(named, way):
                p += sign * 1e-6 * v
            ends.append(model(t).item())
    slope = sum((g * v).sum() for g, v in zip(grads, way)).item()
    size = sum(g.square().sum() for g in grads).sqrt().item()
    assert abs((ends[0] - ends[1]) / 2e-6 - slope) < 1e-6 * size
