"""How often the intervals of the book hold the truth, by simulation.

Every kind is simulated: over episodes, paired, over training runs with shared and with
own episodes, paired over runs, pooled over domains, shares, and the calibration error.
A coverage from N repetitions is known to about 2 * sqrt(0.95 * 0.05 / N): 0.7 points
for N = 4000, 1.4 points for N = 1000.
"""

import math

import pytest
import torch

from metalearn_book.foundations.measuring import Evaluation, OverSeeds, accuracy
from metalearn_book.foundations.measuring import over_seeds, paired_difference
from metalearn_book.foundations.measuring import rule_of_three, t_quantile, verdict
from metalearn_book.foundations.measuring import wilson_interval
from metalearn_book.metric.closed_form import calibration_error


def gen(seed):
    return torch.Generator().manual_seed(seed)


def coverage(results, truth) -> float:
    inside = [abs(r.mean - truth) <= r.ci95 + 1e-12 for r in results]
    return sum(inside) / len(inside)


def episodes(repeats, n, p, n_query, spread=0.0, seed=0):
    "Accuracies `(repeats, n)`: shares of n_query right answers, some episodes harder."
    g = gen(seed)
    chance = torch.full((repeats, n), p, dtype=torch.float64)
    if spread:  # some episodes are easier, some harder
        chance += spread * (torch.rand(repeats, n, generator=g) * 2 - 1)
    draws = torch.rand(repeats, n, n_query, generator=g, dtype=torch.float64)
    return (draws < chance[..., None]).double().mean(2)


@pytest.mark.parametrize("n", [2, 3, 5, 25, 100])
@pytest.mark.parametrize("p, spread", [(0.5, 0.2), (0.8, 0.1)])
def test_over_episodes(n, p, spread):
    values = episodes(2000, n, p, 25, spread)
    found = coverage([Evaluation(v, 0, bounds=(0.0, 1.0)) for v in values], p)
    assert 0.925 <= found <= 0.985 if n > 2 else found >= 0.925


@pytest.mark.parametrize("n", [3, 10, 100])
@pytest.mark.parametrize("p", [0.99, 0.998, 0.002])
@pytest.mark.parametrize("n_query", [10, 75])
def test_near_all_right_and_near_none_right(n, p, n_query):
    values = episodes(1000, n, p, n_query)
    found = [Evaluation(v, 0, bounds=accuracy.bounds) for v in values]
    assert coverage(found, p) >= 0.91
    blind = coverage([Evaluation(v, 0) for v in values], p)
    assert blind <= coverage(found, p)


def test_values_without_spread():
    for n in (2, 5, 300):
        perfect = Evaluation(torch.ones(n), 0, bounds=accuracy.bounds)
        assert perfect.ci95 == pytest.approx(1 - 0.05 ** (1 / n))
        assert (1 - rule_of_three(n)) ** n == pytest.approx(0.05)
        same = paired_difference(perfect, perfect)
        assert same.ci95 == pytest.approx(perfect.ci95)
        assert verdict(same) == "cannot be told from"
    assert Evaluation(torch.ones(5), 0).ci95 == 0  # no bounds, nothing to go by
    assert math.isnan(Evaluation(torch.ones(1), 0, bounds=accuracy.bounds).ci95)
    runs = [Evaluation(torch.ones(100), s, bounds=accuracy.bounds) for s in range(3)]
    assert over_seeds(runs).ci95 == pytest.approx(1 - 0.05 ** (1 / 300))


@pytest.mark.parametrize("n", [5, 25, 100])
def test_paired(n):
    g = gen(1)
    hard = 0.1 * torch.randn(2000, n, generator=g)
    a, b = (
        mean + hard + 0.05 * torch.randn(2000, n, generator=g) for mean in (0.7, 0.68)
    )
    pairs = [(Evaluation(x, 0), Evaluation(y, 0)) for x, y in zip(a, b)]
    found = [paired_difference(*pair) for pair in pairs]
    assert 0.935 <= coverage(found, 0.02) <= 0.965
    apart = [math.hypot(x.ci95, y.ci95) for x, y in pairs]
    assert sum(d.ci95 for d in found) < 0.7 * sum(apart)


def runs_of(repeats, n_runs, n, shared, tau, sd_episode, sd_rest, seed):
    "Values `(repeats, n_runs, n)` around 0: luck of the run, of the episode, the rest."
    g = gen(seed)
    luck = tau * torch.randn(repeats, n_runs, 1, generator=g)
    hard = torch.randn(repeats, 1 if shared else n_runs, n, generator=g)
    rest = torch.randn(repeats, n_runs, n, generator=g)
    return luck + sd_episode * hard + sd_rest * rest


CASES = [  # luck of the run, of the episode, rest
    (0.0, 0.1, 0.02),
    (0.005, 0.1, 0.05),
    (0.05, 0.1, 0.05),
    (0.01, 0.0, 0.1),
]


def summed(values, shared):
    return [
        over_seeds([Evaluation(v, 0 if shared else r) for r, v in enumerate(runs)])
        for runs in values
    ]


@pytest.mark.parametrize("n_runs", [3, 5])
@pytest.mark.parametrize("case", CASES[1:3])
def test_over_runs_with_episodes_of_their_own(n_runs, case):
    values = runs_of(1000, n_runs, 50, False, *case, seed=n_runs)
    assert 0.93 <= coverage(summed(values, False), 0.0) <= 0.97


@pytest.mark.parametrize("n_runs", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_over_runs_on_the_same_episodes(n_runs, case):
    values = runs_of(1000, n_runs, 50, True, *case, seed=n_runs)
    assert coverage(summed(values, True), 0.0) >= 0.94  # too wide, never too narrow


def test_run_means_alone_miss_the_luck_of_the_episodes():
    values = runs_of(1000, 3, 100, True, 0.0, 0.1, 0.02, seed=0)
    naive = [OverSeeds(v.mean(1), 0) for v in values]
    assert coverage(naive, 0.0) < 0.4  # about a third
    assert coverage(summed(values, True), 0.0) > 0.94


@pytest.mark.parametrize("shared", [False, True])
def test_paired_over_runs(shared):
    "Two learners on the same episodes within a run; the effect differs by episode."
    repeats, n_runs, n, effect = 1000, 3, 50, 0.01
    b = runs_of(repeats, n_runs, n, shared, 0.02, 0.2, 0.05, seed=1)
    gap = runs_of(repeats, n_runs, n, shared, 0.005, 0.05, 0.05, seed=2)
    a = b + effect + gap
    found = []
    for runs_a, runs_b in zip(a, b):
        seeds = [0] * n_runs if shared else range(n_runs)
        each = zip(runs_a, runs_b, seeds)
        differences = [
            paired_difference(Evaluation(x, s), Evaluation(y, s)) for x, y, s in each
        ]
        found.append(over_seeds(differences))
    assert 0.925 <= coverage(found, effect) <= (1 if shared else 0.975)


def test_runs_that_share_some_episodes_are_refused():
    v = torch.rand(20, generator=gen(0))
    with pytest.raises(ValueError, match="some runs share episodes"):
        over_seeds([Evaluation(v, s) for s in (0, 0, 1)])
    with pytest.raises(ValueError, match="some runs share episodes"):
        over_seeds([Evaluation(v, 0, 25), Evaluation(v, 0, 10)])
    with pytest.raises(ValueError, match="some runs share episodes"):
        over_seeds([Evaluation(v, 0), Evaluation(v[:10], 0)])
    whole = over_seeds([Evaluation(v, 0), Evaluation(v, 1)])
    for wrong in (
        lambda: over_seeds([whole, whole]),
        lambda: paired_difference(whole, whole),
    ):
        with pytest.raises(ValueError, match="runs"):
            wrong()
    broken = over_seeds([Evaluation(v, 0), Evaluation(v * math.nan, 1)])
    assert math.isnan(broken.ci95)


def test_pooled_over_domains():
    "Equally many episodes of fixed domains: the mean over domains, a little too wide."
    g, at = gen(3), torch.tensor([0.4, 0.5, 0.6, 0.7])
    values = (at[:, None] + 0.15 * torch.randn(2000, 4, 25, generator=g)).flatten(1)
    assert 0.94 <= coverage([Evaluation(v, 0) for v in values], 0.55) <= 1


def test_means_of_an_f1_with_many_zeros():
    "One F1 for each episode, zero in a third of them."
    g = gen(4)
    found = torch.rand(2000, 50, generator=g) * (
        torch.rand(2000, 50, generator=g) > 1 / 3
    )
    scores = [Evaluation(v, 0, bounds=(0.0, 1.0)) for v in found]
    assert 0.93 <= coverage(scores, 1 / 3) <= 0.965


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99, 0.002])
@pytest.mark.parametrize("n", [20, 500])
def test_shares(p, n):
    right = (torch.rand(4000, n, generator=gen(5)) < p).double().mean(1)
    ends = [wilson_interval(share, n) for share in right.tolist()]
    assert sum(low <= p <= high for low, high in ends) / 4000 >= 0.92
    with pytest.raises(ValueError, match="at least 0 and at most 1"):
        wilson_interval(1.2, n)


def test_wilson_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for right, n in ((0, 5), (3, 10), (499, 500), (500, 500)):
        low, high = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
        assert wilson_interval(right / n, n) == pytest.approx((low, high), abs=1e-6)


def test_draws_of_the_examples_few_in_number():
    "Shares turned away, over five draws: Student's t over draws."
    rates = 0.05 + 0.02 * torch.randn(2000, 5, generator=gen(6))
    assert 0.935 <= coverage([OverSeeds(v, 0) for v in rates], 0.05) <= 0.965
    assert t_quantile(4) == 2.776


def tables(repeats, tasks, n_query, shift, g, n_bins=10):
    "Reliability tables of answers whose confidence is off by `shift` on logit scale."
    confidence = 0.2 + 0.7999 * torch.rand(repeats, tasks, n_query, generator=g)
    p = torch.sigmoid(torch.logit(confidence.double()) + shift)
    right = torch.rand(p.shape, generator=g, dtype=torch.float64) < p
    bins = torch.nn.functional.one_hot((confidence * n_bins).long(), n_bins).double()
    each = torch.stack([torch.ones_like(p), right.double(), confidence.double()], 2)
    return each @ bins


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_calibration_error(shift):
    g = gen(7)
    found = [calibration_error(t, n_boot=100) for t in tables(100, 40, 25, shift, g)]
    total = tables(1, 30_000, 25, shift, g).sum(1)[0]
    truth = 0.0 if not shift else (total[1] - total[2]).abs().sum() / total[0].sum()
    inside = [low <= truth <= high for _, low, high in found]
    assert sum(inside) / len(inside) >= 0.9
