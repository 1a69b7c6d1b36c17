"""The language model that counts: its vocabulary, its counts and their optimum."""

import math

import pytest
import torch

from metalearn_book.foundations.next_token import (
    bigram_counts,
    frequent_words,
    next_token_loss,
)


def test_vocabulary_is_sorted_by_frequency_then_alphabet():
    assert frequent_words(["b a b", "c a"], 5) == ["<s>", "</s>", "<unk>", "a", "b"]
    with pytest.raises(ValueError, match="at least 4"):
        frequent_words(["a"], 3)


def test_counts_and_their_optimum():
    vocabulary = ["<s>", "</s>", "<unk>", "a"]
    counts = bigram_counts(["a a z", "a"], vocabulary)
    assert (
        counts.sum() == 6
        and counts[0, 3] == 2
        and counts[3, 3] == 1
        and counts[3, 2] == 1
        and counts[2, 1] == 1
        and counts[3, 1] == 1
    )
    smooth = counts + 0.5
    best = (smooth / smooth.sum(1, keepdim=True)).log()
    lowest = next_token_loss(best, smooth)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = best + 0.3 * torch.randn(best.shape, generator=g, dtype=torch.float64)
        assert next_token_loss(other, smooth) > lowest
    with pytest.raises(ValueError, match="counts are all zero"):
        next_token_loss(best, torch.zeros(4, 4))


def test_what_was_never_counted_adds_nothing_whatever_its_logit():
    counts = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    logits = torch.tensor([[0.0, -math.inf], [0.0, 0.0]], requires_grad=True)
    loss = next_token_loss(logits, counts)
    assert loss.item() == pytest.approx(2 * math.log(2) / 4)
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isfinite().all() and grad[0].abs().max() == 0
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="counts must be finite, got 1 of 4"):
            next_token_loss(logits, torch.tensor([[bad, 0.0], [1.0, 1.0]]))
