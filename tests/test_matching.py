"""Properties of matching networks that the chapter does not have to show."""

import math

import pytest
import torch
from shared import gen
from torch import nn

from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.measuring import accuracy
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.training import meta_train
from metalearn_book.metric.matching import (
    FullContext,
    MatchingNet,
    class_scores,
    similarities,
)
from metalearn_book.metric.prototypes import ProtoNet


def episode(n=3, n_way=4, k_shot=3, dim=6, dtype=torch.float64):
    y = torch.arange(n_way).repeat_interleave(k_shot).expand(n, -1)
    x = torch.randn(n, n_way * k_shot, dim, generator=gen(), dtype=dtype)
    q = torch.randn(n, 9, dim, generator=gen(1), dtype=dtype)
    return Examples(x, y), q


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_similarities_equal_a_loop(metric):
    support, q = episode(dtype=torch.float64)
    got = similarities(q, support.x, metric)
    for b in range(3):
        for j in range(9):
            for i in range(12):
                u, v = q[b, j], support.x[b, i]
                want = {
                    "cosine": u @ v / (u.norm() * v.norm()),
                    "euclidean": -(u - v).square().sum(),
                }[metric]
                torch.testing.assert_close(got[b, j, i], want)


def test_probabilities_are_sums_of_attention():
    support, q = episode()
    scores = similarities(q, support.x) / 0.2
    want = torch.stack(
        [scores.softmax(-1)[..., support.y[0] == c].sum(-1) for c in range(4)], -1
    )
    torch.testing.assert_close(class_scores(scores, support.y).softmax(-1), want)


def test_averaged_votes_do_not_see_a_copy_of_a_whole_class():
    support, q = episode()
    own = support.y[0] == 2
    twice = Examples(
        torch.cat([support.x, support.x[:, own]], 1),
        torch.cat([support.y, support.y[:, own]], 1),
    )
    plain, copied = (MatchingNet(votes="mean").double().adapt(s)(q)
                     for s in (support, twice))  # fmt: skip
    torch.testing.assert_close(plain, copied)
    by_sum = MatchingNet().double()
    change = by_sum.adapt(twice)(q) - by_sum.adapt(support)(q)
    torch.testing.assert_close(
        change[..., 2], torch.full_like(change[..., 2], math.log(2))
    )
    torch.testing.assert_close(change[..., 0], torch.zeros_like(change[..., 0]))


def test_one_shot_is_the_cosine_prototype_with_gradients():
    support, q = episode(k_shot=1, dtype=torch.float32)
    body = nn.Linear(6, 5)
    tasks = TaskBatch(
        support, Examples(q, torch.randint(0, 4, (3, 9), generator=gen()))
    )
    found = []
    for learner in (
        MatchingNet(body, temperature=0.3),
        ProtoNet(body, "cosine", temperature=0.6),
    ):
        loss = learner(tasks)
        found.append((loss, torch.autograd.grad(loss, body.weight)[0]))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_cold_is_the_nearest_neighbour_and_duplicates_tie():
    support, q = episode()
    cold = MatchingNet(metric="euclidean", temperature=1e-4).double().adapt(support)(q)
    nearest = torch.cdist(q, support.x).argmin(-1)
    assert torch.equal(cold.argmax(-1), support.y.gather(1, nearest))
    both = Examples(support.x[:, :1].expand(-1, 2, -1), torch.tensor([[0, 1]] * 3))
    p = MatchingNet().double().adapt(both)(q).softmax(-1)
    torch.testing.assert_close(p, torch.full_like(p, 0.5))


def test_unbalanced_and_single_class_episodes():
    x, y = torch.randn(1, 6, 4, generator=gen()), torch.tensor([[0, 0, 0, 0, 1, 2]])
    out = MatchingNet().adapt(Examples(x, y))(x)
    assert out.shape == (1, 6, 3) and out.isfinite().all()
    assert MatchingNet().adapt(Examples(x, y * 0))(x).shape == (1, 6, 1)
    with pytest.raises(ValueError, match="no support example with label 0"):
        MatchingNet().adapt(Examples(x, y + 1))


def test_not_a_number_stays_in_its_task():
    support, q = episode(dtype=torch.float32)
    x = support.x.clone()
    x[1, 2, 0] = math.nan
    out = MatchingNet().adapt(Examples(x, support.y))(q)
    right = accuracy(out, torch.zeros(3, 9, dtype=torch.long))
    assert right.isnan().tolist() == [False, True, False]


def test_full_context_starts_as_plain_matching_and_trains():
    support, q = episode(dtype=torch.float32)
    tasks = TaskBatch(
        support, Examples(q, torch.randint(0, 4, (3, 9), generator=gen()))
    )
    torch.manual_seed(0)
    learner = MatchingNet(context=FullContext(6, 3))
    torch.testing.assert_close(learner(tasks), MatchingNet()(tasks))

    class Same:
        def sample(self, n, generator):
            return tasks[:n]

    before = learner(tasks).item()
    history = meta_train(learner, Same(), steps=15, tasks_per_step=3, outer_lr=0.02,
                         progress=False)  # fmt: skip
    assert history.loss[-1] < before
    moved = learner.context.cell.weight_ih[12:18].abs().max()
    assert moved > 0  # the rows that started at zero


def test_full_context_skips_padding_wherever_it_stands():
    support, q = episode()
    torch.manual_seed(0)
    context = FullContext(6, 2).double()
    nn.init.normal_(context.both_ways.weight_ih_l0, std=0.3)
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[0, [0, 5]], mask[1, [11]], mask[2, [3, 4]] = False, False, False
    out = context.of_support(support.x, mask)
    for b in range(3):
        alone = context.of_support(support.x[b : b + 1, mask[b]])
        torch.testing.assert_close(out[b : b + 1, mask[b]], alone)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MatchingNet(metric="manhattan"), "'cosine', 'euclidean'"),
        (lambda: MatchingNet(votes="all"), "'sum', 'mean'"),
        (lambda: MatchingNet(context=nn.Linear(2, 2)), "must be a FullContext"),
        (lambda: FullContext(4, -1), "at least 0, got -1"),
        (lambda: FullContext(4).of_support(torch.zeros(1, 2, 3)), "B S"),
        (lambda: similarities(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)), "d = 3"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_nearest_prototype_is_not_the_hot_end():
    "Eq. (MN-3): at five shots the hot end is no cosine prototype."
    support, q = episode(n=1, n_way=5, k_shot=5)
    hot = MatchingNet(temperature=1e4).double().adapt(support)(q).argmax(-1)
    unit = nn.functional.normalize(support.x, dim=-1)
    means = torch.stack([unit[:, support.y[0] == c].mean(1) for c in range(5)], 1)
    assert torch.equal(hot, (q @ means.mT).argmax(-1))
    assert NearestPrototype("cosine").adapt(support)(q).shape == (1, 9, 5)
