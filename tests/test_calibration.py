"""Properties of the chapter "Probabilities that mean something" that it does not have
to show: scores, thresholds and temperatures, against loops and on any numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import gen, unit

from metalearn_book.case_studies.calibration import (
    auroc,
    best_temperature,
    best_penalty,
    best_threshold,
    confused_pairs,
    left_out_logits,
    left_out_rounds,
    left_out_scores,
    own_threshold,
    scope_report,
    scope_scores,
    share_threshold,
    tuning_folds,
)
from metalearn_book.case_studies.text_classification import fit_head, weighted_means
from metalearn_book.metric.closed_form import calibration_error, reliability_bins


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_pairs(a, b):
    a, b = torch.tensor(a).float(), torch.tensor(b).float()
    brute = ((a[:, None] > b).double() + 0.5 * (a[:, None] == b).double()).mean().item()
    assert auroc(a, b) == pytest.approx(brute, abs=1e-12)
    assert auroc(b, a) == pytest.approx(1 - brute, abs=1e-12)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_no_threshold_is_better_than_the_best(a, b):
    a, b = torch.tensor(a).float(), torch.tensor(b).float()

    def value(t):
        return (a >= t).double().mean() + (b < t).double().mean()

    assert value(best_threshold(a, b)).item() == pytest.approx(
        max(value(float(t)).item() for t in np.arange(-0.5, 7)), abs=1e-9
    )


def test_scope_scores_and_report():
    z, p = unit(4, dtype=torch.float32), unit(3, seed=1, dtype=torch.float32)
    logits = 10 * z @ p.T
    scores = scope_scores(logits, z, 5 * p)
    torch.testing.assert_close(scores["nearest class mean"], logits.amax(-1) / 10)
    torch.testing.assert_close(scores["energy"], logits.exp().sum(-1).log())
    assert scope_report(
        torch.tensor([1.0, 2.0]), torch.tensor([False, True]), torch.tensor([0.0]), 0.5
    ) == {
        "in scope, right": 0.5,
        "in scope, kept": 1.0,
        "out of scope, turned away": 1.0,
    }
    with pytest.raises(ValueError, match="outside must have the shape"):
        auroc(torch.ones(2), torch.ones(0))


def test_own_threshold_ignores_classes_with_one_example():
    z = unit(5, dtype=torch.float32)
    assert own_threshold(z, torch.tensor([0, 0, 1, 1, 2])) is not None
    assert own_threshold(z[:2], torch.tensor([0, 1])) is None
    with pytest.raises(
        ValueError, match="share must be a finite number above 0 and below 1"
    ):
        own_threshold(z, torch.tensor([0, 0, 1, 1, 2]), 1.0)


def test_confused_pairs_count_both_directions():
    target, guess = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([1, 1, 0, 0, 2, 1])
    assert confused_pairs(target, guess) == [(0, 1, 2, 1), (0, 2, 0, 1), (1, 2, 0, 1)]
    with pytest.raises(ValueError, match="guess must have the shape"):
        confused_pairs(target, guess[:2])


def test_the_threshold_keeps_its_promise_for_any_scores():
    draws = torch.rand(4000, 41, generator=gen(1)) ** 3
    for share in (0.05, 0.1, 0.5):
        limit = torch.tensor([share_threshold(d[:40], share) for d in draws])
        below = (draws[:, 40] < limit).double().mean().item()
        assert (
            below == pytest.approx(int(share * 41) / 41, abs=0.02)
            and below < share + 0.01
        )


@pytest.mark.parametrize("kind", ["prototype", "ridge", "logistic"])
def test_left_out_logits_are_those_of_the_loop(kind):
    z, y = (
        unit(17, 5),
        torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 0, 2, 1, 0, 0, 2]),
    )
    w = torch.rand(17, generator=gen(1), dtype=torch.float64) + 0.5
    rounds = left_out_rounds(y, 5 if kind == "logistic" else 10)
    assert rounds[9] == -1 and rounds.max() == (4 if kind == "logistic" else 5)
    for weight in (None, w):
        found = left_out_logits(z, y, kind, weight)
        for r in range(int(rounds.max()) + 1):
            rest, out = rounds != r, rounds == r
            W, b = fit_head(
                z[rest], y[rest], 4, kind, None if weight is None else w[rest]
            )
            torch.testing.assert_close(found[out], (z[out] @ W.T + b).double())
        assert found.isnan().any(1).tolist() == (y == 3).tolist()


@pytest.mark.parametrize("kind, grid", [("ridge", (0.05, 1.0, 20.0)),
                                        ("logistic", (1e-4, 1e-2, 1.0))])  # fmt: skip
def test_the_penalty_is_that_of_a_search_fit_by_fit(kind, grid):
    "Noisy classes in many dimensions, where the penalties tell."
    y = torch.arange(4).repeat_interleave(5)
    means, noise = unit(4, 30), torch.randn(20, 30, generator=gen(2)).double()
    z = torch.nn.functional.normalize(means[y] + 0.25 * noise, dim=-1)
    w = torch.rand(20, generator=gen(1), dtype=torch.float64) + 0.5
    for weight in (None, w):
        losses = {}
        for penalty in grid:
            rounds = left_out_rounds(y, 5)
            logits = torch.empty(20, 4, dtype=torch.float64)
            for r in range(5):
                rest, out = rounds != r, rounds == r
                some = None if weight is None else w[rest]
                W, b = fit_head(z[rest], y[rest], 4, kind, some, penalty)
                logits[out] = (z[out] @ W.T + b).double()
            T = best_temperature(logits, y, weight)
            each = torch.nn.functional.cross_entropy(logits / T, y, reduction="none")
            own = torch.ones(20) if weight is None else w
            losses[penalty] = ((own * each).sum() / own.sum()).item()
        best = min(losses, key=losses.get)
        assert best_penalty(z, y, kind, weight, grid) == best
        assert best_penalty(z, y, kind, weight, reversed(grid)) == best
        assert len({round(v, 3) for v in losses.values()}) == 3


def test_penalties_without_a_choice():
    z = unit(4, 5)
    assert best_penalty(z, torch.arange(4)) == 1e-4  # nothing can be left out
    assert best_penalty(z, torch.arange(4), "ridge") == 1.0
    two = torch.tensor([0, 0, 1, 1])
    assert best_penalty(z, two, "ridge", grid=[2.0]) == 1.0  # judged by heads of one
    three = torch.tensor([0, 0, 0, 1, 1, 1])
    assert best_penalty(unit(6, 5), three, "ridge", grid=[2, 2.0]) == 2.0
    with pytest.raises(ValueError, match="kind must be one of"):
        best_penalty(z, two, "prototype")
    with pytest.raises(ValueError, match="grid must be a finite number above 0"):
        best_penalty(z, two, "ridge", grid=(0.0, 1.0))
    with pytest.raises(ValueError, match="None for class means"):
        left_out_logits(z, two, "prototype", penalty=1.0)


def test_scores_of_left_out_examples_take_weights():
    z, y = unit(6, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 2])
    w = torch.tensor([1.0, 2, 3, 1, 0.5, 1])
    found = left_out_scores(z, y, w)
    for i in range(5):
        keep = [j for j in range(6) if j != i]
        means = weighted_means(z[keep], y[keep], 3, w[keep])
        cosine = z[i] @ torch.nn.functional.normalize(means, dim=-1).T
        assert found[i].item() == pytest.approx(cosine.max().item(), abs=1e-9)
    assert found[5].isnan()


def test_the_temperature_of_logits_that_were_scaled_wrongly():
    logits = 2 * torch.randn(4000, 5, generator=gen(3), dtype=torch.float64)
    torch.manual_seed(0)
    y = torch.distributions.Categorical(logits=logits).sample()
    assert best_temperature(7 * logits, y) == pytest.approx(7, rel=0.1)
    before, after = (
        calibration_error(reliability_bins(s * logits[None], y[None], n_bins=15))[0]
        for s in (0.4, 0.4 * 2.5)
    )
    assert best_temperature(0.4 * logits, y) == pytest.approx(0.4, rel=0.1)
    assert after < 0.03 < before
    assert best_temperature(logits * float("nan"), y) == 1.0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_what_stays_outside_a_fold_can_be_tuned_on(y):
    y = torch.tensor(y).unique(return_inverse=True)[1]
    folds, size = tuning_folds(y), y.bincount()
    assert ((folds == -1) == (size[y] < 2)).all()
    if (size > 1).sum() > 1 or size.max() > 2:
        for fold in range(int(folds.max()) + 1):
            assert y[folds != fold].bincount().max() > 1


def test_what_cannot_be_left_out_is_refused():
    y = torch.tensor([0, 0, 1, 1])
    z = unit(4, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match="most must be at least 2"):
        left_out_rounds(y, 1)  # would leave out all examples at once
    with pytest.raises(ValueError, match="got none of class 1"):
        left_out_rounds(torch.tensor([0, 0, 2, 2]))
    with pytest.raises(ValueError, match="above 0 everywhere"):
        left_out_logits(z, y, "ridge", torch.tensor([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="not all 0"):
        best_temperature(torch.randn(4, 2), y, torch.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        left_out_scores(z * float("inf"), y)


def test_labels_of_another_whole_type_are_taken():
    y = torch.tensor([0, 0, 0, 1, 1])
    assert torch.equal(left_out_rounds(y.int()), left_out_rounds(y))
