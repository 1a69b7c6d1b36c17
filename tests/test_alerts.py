"""Properties of the chapter "When is a surge a surge?" that it does not have to show:
the chain against a plain simulation of other laws, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from metalearn_book.case_studies.alerts import CountCusum, count_probabilities
from metalearn_book.case_studies.alerts import draw_counts, surge_score


def by_hand(chart: CountCusum, counts, weekday: int = 0) -> list[int]:
    "Days on which the chart rings, by floating-point sums and a loop."
    level, rings = 0.0, []
    for t, x in enumerate(counts):
        less = chart.references[(weekday + t) % len(chart.references)] / chart.grid
        level = max(0.0, level + x - less)
        if level >= chart.limit / chart.grid - 1e-9:
            rings.append(t)
            level = 0.0
    return rings


@pytest.mark.parametrize("surge, c", [(1.5, 0.0), (2.0, 0.3), (4.0, 2.0)])
def test_the_reference_lies_between_the_two_rates(surge, c):
    a, kappa = surge_score(surge, c)
    assert 1 < kappa < surge and 0 < a <= math.log(surge)


@pytest.mark.parametrize("rate, c", [(0.05, 0.0), (3.0, 0.0), (3.0, 2.5), (900.0, 1.0)])
def test_probabilities_have_their_mean_and_variance(rate, c):
    p = count_probabilities(rate, c)
    x = np.arange(len(p))
    assert p.sum() == pytest.approx(1) and p[-1] < 1e-10
    assert (p * x).sum() == pytest.approx(rate, rel=1e-6)
    assert (p * (x - rate) ** 2).sum() == pytest.approx(rate * (1 + c), rel=1e-5)


def test_levels_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    chart = CountCusum((2, 2, 2, 2, 2, 0.5, 0.5), 2.0, 0.5, limit=40)
    counts = rng.poisson(2.2, (3, 300))
    for weekday in (0, 5):
        rings = chart.levels(counts, weekday) >= chart.limit
        for row, found in zip(counts, rings):
            assert np.flatnonzero(found).tolist() == by_hand(chart, row, weekday)


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_the_run_length_is_that_of_a_simulation(c):
    chart = CountCusum.design((1.0,), 2.0, 60, c)
    rng = np.random.default_rng(1)
    rings = chart.levels(draw_counts(1.0, 400, 3000, rng, c)) >= chart.limit
    assert rings.size / rings.sum() == pytest.approx(chart.run_length(), rel=0.03)
    # from level 0 in the surge
    surged = chart.levels(draw_counts(1.0, 4000, 200, rng, c, 2.0)) >= chart.limit
    assert (surged.argmax(1) + 1).mean() == pytest.approx(chart.delay(), rel=0.04)


@pytest.mark.parametrize("surge", [1.3, 2.0, 5.0])
@pytest.mark.parametrize("rates", [0.05, 1.0, 40.0])
def test_a_design_is_the_smallest_limit_that_keeps_the_run(rates, surge):
    chart = CountCusum.design(rates, surge, 200)
    assert chart.run_length() >= 200
    assert chart.limit == 1 or replace(chart, limit=chart.limit - 1).run_length() < 200
    assert chart.run_length() < 200 * 1.1 or rates < 0.1
    assert chart.run_length() <= math.exp(1) * 200


def test_walds_bound_holds():
    for limit in (20, 60, 120):
        chart = CountCusum(1.0, 2.0, limit=limit)
        a, _ = surge_score(2.0)
        # the rounded reference is a hair off the log-likelihood ratio
        assert chart.run_length() >= 0.9 * math.exp(a * limit / chart.grid)


def test_a_short_history_asks_for_a_higher_limit():
    known = CountCusum.design(1.0, 2.0, 365)
    assert known.limit < CountCusum.design(1.0, 2.0, 365, history=365).limit
    assert known.limit < CountCusum.design(1.0, 2.0, 365, history=30).limit


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"rates": (1.0, 2.0)}, "1 or 7"),
        ({"rates": 0.01}, "at least 0.05"),
        ({"rates": math.nan}, "finite"),
        ({"surge": 1.0}, "above 1"),
        ({"dispersion": -0.1}, "at least 0"),
        ({"limit": 0}, "at least 1"),
        ({"limit": 1.5}, "whole number"),
    ],
)
def test_what_is_refused(wrong, word):
    with pytest.raises(ValueError, match=word):
        CountCusum(**({"rates": 1.0, "surge": 2.0} | wrong))


@pytest.mark.parametrize("counts", [[0.5], [-1], "abc", 3, [[math.nan]]])
def test_counts_are_whole_numbers(counts):
    with pytest.raises(ValueError, match="whole numbers"):
        CountCusum(1.0, 2.0).levels(counts)
