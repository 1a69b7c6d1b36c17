"""Properties of the chapter "When is a surge a surge?" that it does not have to show:
the chain against a plain simulation of other laws, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from metalearn_book.case_studies.alerts import CountCusum, _alarm_rate, _mean_wait
from metalearn_book.case_studies.alerts import _solved_rate, count_probabilities
from metalearn_book.case_studies.alerts import draw_counts, surge_score

WEEK = (1.2, 1.3, 1.4, 1.3, 1.3, 0.25, 0.3)


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
    a, reference = surge_score(surge, c)
    assert 1 < reference < surge and 0 < a <= math.log(surge)


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


@pytest.mark.parametrize(
    "rates, surge", [(0.05, 2.0), (0.05, 5.0), (1.0, 1.3), (1.0, 2.0), (1.0, 5.0),
                     (40.0, 1.3), (40.0, 2.0), (40.0, 5.0)],
)  # fmt: skip
def test_a_design_is_the_smallest_limit_that_keeps_the_run(rates, surge):
    chart = CountCusum.design(rates, surge, 200)
    assert chart.run_length() >= 200
    assert chart.limit == 1 or replace(chart, limit=chart.limit - 1).run_length() < 200
    # counts are whole numbers: for large surges one day decides, and the run jumps
    assert chart.limit == 1 or surge > 2 or chart.run_length() < 200 * 1.1


@pytest.mark.parametrize("limit", [30, 150, 450])
@pytest.mark.parametrize("surge, c", [(1.3, 0.0), (2.0, 1.0), (4.0, 0.5)])
def test_three_ways_to_the_run_length(surge, c, limit):
    """Walking week after week (by a matrix up to 400 steps, by shifts above), the
    linear system, and without weekdays the mean wait."""
    for rates in (1.0, WEEK):
        chart = CountCusum(rates, surge, c, limit)
        given = chart._days(), chart.grid, limit
        rate = _alarm_rate(*given)
        assert rate == pytest.approx(_solved_rate(*given), rel=1e-6, abs=1e-12)
        if rates == 1.0 and rate > 1e-9:
            assert 1 / rate == pytest.approx(_mean_wait(*given), rel=1e-6)


@pytest.mark.parametrize("surge", [1.1, 1.5, 2.0, 8.0])
@pytest.mark.parametrize("rate", [0.05, 0.37, 1.1, 2 * math.log(2), 20.0])
def test_the_grid_keeps_the_reference(rate, surge):
    "Also where the reference is a whole number of texts: 2 log 2 and a surge of 2."
    for rates in (rate, tuple(max(rate * w, 0.05) for w in WEEK)):
        chart = CountCusum(rates, surge)
        exact, least = sum(chart.rates) * surge_score(surge)[1], sum(chart.rates)
        found = sum(chart.references) / chart.grid
        room = min(exact - least, surge * least - exact)
        assert abs(found - exact) <= room / 4
        assert math.gcd(chart.grid, *chart.references) == 1


def test_a_hold_adds_its_days():
    chart = CountCusum.design(WEEK, 2.0, 40)
    rng = np.random.default_rng(2)
    counts = draw_counts(WEEK, 300, 364 * 4, rng)
    for hold in (7, 14):
        levels = chart.levels(counts, hold=hold)
        rings = levels >= chart.limit
        run = rings.size / rings.sum()
        assert run == pytest.approx(chart.run_length() + hold, rel=0.03)
        for row, ring in zip(levels, rings):
            for t in np.flatnonzero(ring):
                assert not row[t + 1 : t + 1 + hold].any()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint64])
def test_small_integers_do_not_wrap(kind):
    counts = np.full((2, 30), 25)
    chart = CountCusum(3.0, 2.0, limit=500)
    assert (chart.levels(counts.astype(kind)) == chart.levels(counts)).all()


def test_what_never_rings_is_infinite():
    assert CountCusum(10.0, 1000.0, limit=5).run_length() == math.inf
    assert CountCusum(1.0, 2.0, limit=300).delay(0.01) == math.inf
    assert CountCusum(6000.0, 2.0, limit=5).delay() == pytest.approx(1)
    with pytest.raises(ValueError, match="surge must be"):
        CountCusum(6000.0, 2.0, limit=5).delay(900)


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


@pytest.mark.parametrize("counts", [[0.5], [-1], "abc", 3, [[math.nan]], [10**10]])
def test_counts_are_whole_numbers(counts):
    with pytest.raises(ValueError, match="whole numbers"):
        CountCusum(1.0, 2.0).levels(counts)
