"""Measuring: metrics, fixed episodes, intervals against scipy, differences, bad input.

How often the intervals hold the truth is in test_intervals.py.
"""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from metalearn_book.book.display import show_table
from metalearn_book.foundations import measuring
from metalearn_book.foundations.measuring import _T975, Evaluation, OverSeeds, accuracy
from metalearn_book.foundations.measuring import best_of, evaluate, mse, over_seeds
from metalearn_book.foundations.measuring import paired_difference, t_quantile, verdict
from metalearn_book.foundations.tasks import ClassTasks, SinusoidTasks

TASKS = SinusoidTasks(k_shot=5, n_query=5)


class MeanTarget:
    "Answers the mean of the support targets."

    def adapt(self, support):
        return lambda x: support.y.mean(1, keepdim=True).expand(*x.shape[:2], 1)


class Dropping(nn.Module):
    "Dropout on the inputs, and a weight that gets no gradient here."

    def __init__(self):
        super().__init__()
        self.drop, self.weight = nn.Dropout(0.5), nn.Parameter(torch.ones(1))

    def adapt(self, support):
        return lambda x: self.drop(x) * self.weight


def test_evaluation_leaves_the_learner_as_it_was():
    learner = Dropping()
    learner.train()
    rng = torch.get_rng_state()
    first, second = (
        evaluate(learner, TASKS, 30, metric=mse, tasks_per_batch=7),
        evaluate(learner, TASKS, 30, metric=mse, tasks_per_batch=7),
    )
    assert torch.equal(first.values, second.values) and len(first) == 30
    assert all(m.training for m in learner.modules()) and torch.equal(
        rng, torch.get_rng_state()
    )
    assert all(p.grad is None for p in learner.parameters())


def test_intervals_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = torch.rand(
        50, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    low, high = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    assert Evaluation(values, 0).ci95 == pytest.approx((high - low) / 2, rel=1e-4)
    for freedom in (31, 40, 100, 599, 10_000):
        expected = stats.t.ppf(0.975, freedom)
        assert t_quantile(freedom) == pytest.approx(expected, rel=1e-5)
    assert _T975 == pytest.approx(
        [stats.t.ppf(0.975, df) for df in range(1, 31)], abs=6e-4
    )
    low, high = stats.t.interval(0.95, 4, values[:5].mean(), stats.sem(values[:5]))
    assert over_seeds(
        [Evaluation(v[None], seed) for seed, v in enumerate(values[:5])]
    ).ci95 == pytest.approx((high - low) / 2, rel=1e-3)
    a, b = Evaluation(values, 0), Evaluation(values.flip(0), 0)
    test = stats.ttest_rel(a.values, b.values)
    assert paired_difference(a, b).mean / (
        paired_difference(a, b).ci95 / t_quantile(49)
    ) == pytest.approx(test.statistic, abs=1e-6)


def test_metrics_with_masks_ignore_what_is_masked():
    g = torch.Generator().manual_seed(0)
    logits, y = (
        torch.randn(3, 6, 4, generator=g),
        torch.randint(0, 4, (3, 6), generator=g),
    )
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 3).bool()
    assert torch.allclose(accuracy(logits, y, mask), accuracy(logits[:, :4], y[:, :4]))
    target = torch.randn(3, 6, 2, generator=g)
    assert torch.allclose(
        mse(logits[..., :2], target, mask), mse(logits[:, :4, :2], target[:, :4])
    )
    assert torch.allclose(
        mse(logits[..., 0], target[..., 0]),
        ((logits[..., 0] - target[..., 0]) ** 2).mean(1),
    )


def test_nan_is_no_accuracy():
    y = torch.tensor([[0, 1, 2]] * 2)
    logits = torch.eye(3).expand(2, 3, 3).clone()
    logits[1, 2, 1] = math.nan
    assert accuracy(logits, y)[0] == 1 and accuracy(logits, y)[1].isnan()
    mask = torch.tensor([[True, True, False]] * 2)
    assert accuracy(logits, y, mask).tolist() == [1, 1]
    targets = torch.zeros(2, 3)
    assert mse(logits[..., 1], targets, mask).isfinite().all()
    with pytest.raises(ValueError, match="task 1 has no query that counts"):
        accuracy(logits, y, mask & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="labels go from 0 to 2, but there are 2"):
        accuracy(logits[..., :2], y)
    half = accuracy(logits[:1].bfloat16(), torch.tensor([[0, 1, 1]]))
    assert half.dtype == torch.float32 and half.item() == pytest.approx(2 / 3)

    class Broken:
        def adapt(self, support):
            return lambda x: x.new_full((*x.shape[:2], 2), math.nan)

    labels = ["a", "b"] * 4
    found = evaluate(Broken(), ClassTasks(torch.rand(8, 2), labels, 2, 1, 2), 10)
    assert math.isnan(found.mean) and math.isnan(found.ci95)
    with pytest.raises(ValueError, match="10 of 10 values are no numbers"):
        verdict(found)


def test_a_very_long_evaluation_announces_itself(monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    with pytest.warns(UserWarning, match="1,000 episodes will take about 39 more"):
        evaluate(MeanTarget(), TASKS, np.int64(1000), metric=mse)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(n_episodes=-1), "n_episodes must be at least 1"),
        (dict(n_episodes=2.5), "n_episodes must be a whole number, got 2.5"),
        (dict(n_episodes=5, tasks_per_batch=0), "tasks_per_batch must be at least 1"),
        (dict(n_episodes=5, seed=None), "seed must be a whole number, got None"),
    ],
)
def test_numbers_that_measure_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(MeanTarget(), TASKS, metric=mse, **options)


def test_a_difference_is_shown_in_points():
    a, b = (
        Evaluation(torch.tensor(v), 0, bounds=accuracy.bounds)
        for v in ([0.5, 0.75, 1.0], [0.25, 0.75, 0.5])
    )
    gain = paired_difference(a, b)
    over = over_seeds([gain, Evaluation(gain.values, 1, is_difference=True)])
    assert gain.is_difference and over.is_difference
    assert not a.is_difference and not over_seeds([a, b]).is_difference
    header = str(show_table([{"gain": gain}, {"gain": over}], percent={"gain"}))
    assert "points" in header and "%" not in header
    assert "%" in str(show_table([{"accuracy": a}], percent={"accuracy"}))


def test_the_mark_of_a_difference_changes_nothing_else():
    value = torch.tensor([0.5])  # one value, so that == of tensors is a truth value
    plain = Evaluation(value, 0, None, (0.0, 1.0))
    marked = Evaluation(value, 0, None, (0.0, 1.0), is_difference=True)
    assert plain == marked and repr(plain) == repr(marked)
    again = pickle.loads(pickle.dumps(marked))
    assert again == marked and again.is_difference
    old = Evaluation.__new__(Evaluation)  # stored before there was such a field
    old.__dict__.update({k: v for k, v in vars(plain).items() if k != "is_difference"})
    assert not old.is_difference and old == plain
    assert OverSeeds(value, 0, None, None, 0.25).shared == 0.25  # in its place


def test_differences_of_some_runs_only_are_refused():
    a = Evaluation(torch.tensor([0.5, 0.75]), 0)
    b = Evaluation(torch.tensor([0.1, 0.2]), 1, is_difference=True)
    with pytest.raises(ValueError, match="differences"):
        over_seeds([a, b])


def test_a_score_that_is_no_number_is_never_the_best():
    nan = float("nan")
    for order in ([("a", nan), ("b", 0.2), ("c", 0.9)], [("c", 0.9), ("b", 0.2)]):
        scores = dict(order)
        assert best_of(scores) == "c" and best_of(scores, False) == "b"
    assert best_of({1: torch.tensor(nan), 2: torch.tensor(0.1)}) == 2
    with pytest.raises(ValueError, match="none of the 2 scores is a number"):
        best_of({1: nan, 2: nan})
