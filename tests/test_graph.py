"""Properties of label propagation and graph networks that the chapter does not have to
show."""

import math

import pytest
import torch
from shared import gen
from torch import nn

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.metric.graph import (
    GraphNet,
    LabelPropagation,
    affinity,
    normalized,
    propagate,
)


def episode(n=3, n_way=3, k_shot=2, dim=5, n_query=8):
    y = torch.arange(n_way).repeat_interleave(k_shot).expand(n, -1)
    x = torch.randn(n, n_way * k_shot, dim, generator=gen(), dtype=torch.float64)
    q = torch.randn(n, n_query, dim, generator=gen(1), dtype=torch.float64)
    return Examples(x, y), q


def items(n=14, dim=4):
    return torch.randn(2, n, dim, generator=gen(), dtype=torch.float64)


def test_edges_equal_a_loop_and_have_no_loops():
    z = items()
    w = affinity(z, 0.9)
    torch.testing.assert_close(w, w.mT)
    assert (w.diagonal(dim1=1, dim2=2) == 0).all()
    want = math.exp(-0.5 * ((z[1, 3] - z[1, 7]) / 0.9).square().sum().item())
    assert w[1, 3, 7].item() == pytest.approx(want)


def test_widths_of_single_items():
    z = items()
    width = torch.rand(2, 14, generator=gen(2), dtype=torch.float64) + 0.5
    want = (-0.5 * (z[0, 1] / width[0, 1] - z[0, 2] / width[0, 2]).square().sum()).exp()
    torch.testing.assert_close(affinity(z, width)[0, 1, 2], want)
    same = affinity(z, torch.full((2, 14), 0.7, dtype=torch.float64))
    torch.testing.assert_close(same, affinity(z, 0.7))


def test_neighbours_keep_edges_of_either_end():
    w = affinity(items(), 1.0)
    few = affinity(items(), 1.0, neighbours=3)
    torch.testing.assert_close(few, few.mT)
    strongest = w.topk(3, -1).indices
    assert (few.gather(-1, strongest) > 0).all()
    kept = few > 0
    assert (kept.sum(-1) >= 3).all() and torch.equal(few[kept], w[kept])
    torch.testing.assert_close(affinity(items(), 1.0, neighbours=99), w)


def test_an_item_without_edges_believes_nothing():
    z = items()
    z[0, 5] = 1e3
    graph = normalized(affinity(z, 0.5))
    assert (graph[0, 5] == 0).all() and graph.isfinite().all()
    labels = torch.zeros(2, 14, 2, dtype=torch.float64)
    labels[:, 0, 0] = labels[:, 1, 1] = 1
    assert (propagate(graph, labels)[0, 5] == 0).all()
    far = Examples(z[:1, :2], torch.tensor([[0, 1]]))
    p = LabelPropagation(width=0.5).double().adapt(far)(z[:1, 5:6]).softmax(-1)
    torch.testing.assert_close(p, torch.full_like(p, 0.5))  # no opinion


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 0.99])
def test_rounds_arrive_at_the_solve(alpha):
    graph = normalized(affinity(items(), 1.0))
    labels = torch.zeros(2, 14, 3, dtype=torch.float64)
    labels[:, torch.arange(6), torch.arange(6) % 3] = 1
    limit = propagate(graph, labels, alpha)
    by_rounds = propagate(graph, labels, alpha, steps=5000)
    torch.testing.assert_close(by_rounds, limit, rtol=1e-9, atol=1e-12)
    assert (limit > 0).all()


def test_scikit_learn_arrives_at_the_same_beliefs():
    semi = pytest.importorskip("sklearn.semi_supervised")
    z, y = items(40)[0], torch.full((40,), -1)
    y[:6] = torch.arange(6) % 3
    labels = torch.zeros(1, 40, 3, dtype=torch.float64)
    labels[0, torch.arange(6), y[:6]] = 1

    def kernel(a, b):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return (-0.5 * torch.cdist(a, b).square()).exp().numpy()

    theirs = semi.LabelSpreading(kernel, alpha=0.7, max_iter=5000, tol=1e-13)
    theirs.fit(z.numpy(), y.numpy())
    ours = propagate(normalized(affinity(z[None], 1.0)), labels, 0.7)[0]
    want = torch.as_tensor(theirs.label_distributions_)
    torch.testing.assert_close(
        ours / ours.sum(-1, keepdim=True), want, atol=1e-9, rtol=0
    )


def test_alone_a_query_does_not_know_its_company():
    support, q = episode()
    for learner in (LabelPropagation(together=False), GraphNet(5)):
        predict = learner.double().adapt(support)
        torch.testing.assert_close(predict(q)[:, :2], predict(q[:, :2]))
    for learner in (LabelPropagation(width=1.0), GraphNet(5, together=True)):
        predict = learner.double().adapt(support)
        assert (predict(q)[:, :2] - predict(q[:, :2])).abs().max() > 1e-3


def test_order_of_queries_and_names_of_classes_do_not_matter():
    support, q = episode()
    order, names = torch.randperm(8, generator=gen(3)), torch.tensor([2, 0, 1])
    for learner in (LabelPropagation(width=1.0), GraphNet(5, together=True)):
        learner = learner.double()
        plain = learner.adapt(support)(q)
        torch.testing.assert_close(learner.adapt(support)(q[:, order]), plain[:, order])
        renamed = learner.adapt(Examples(support.x, names[support.y]))(q)
        torch.testing.assert_close(renamed[..., names], plain)


def test_padded_queries_take_no_part():
    support, q = episode()
    y = torch.randint(0, 3, (3, 8), generator=gen())
    for learner in (LabelPropagation(width=1.0), GraphNet(5, together=True)):
        learner = learner.double()
        mask = torch.ones(3, 8, dtype=torch.bool)
        mask[:, 5:] = False
        padded = TaskBatch(support, Examples(q, y, mask))
        short = TaskBatch(support, Examples(q[:, :5], y[:, :5]))
        torch.testing.assert_close(learner(padded), learner(short))
        answers = learner.adapt(support)(padded.query.x, mask)[:, :5]
        torch.testing.assert_close(answers, learner.adapt(support)(q[:, :5]))


def test_odd_episodes():
    support, q = episode()
    single = Examples(support.x[:, :2], support.y[:, :2])
    uneven = Examples(support.x[:, :5], support.y[:, :5])
    for learner in (LabelPropagation(), GraphNet(5), GraphNet(5, together=True)):
        learner = learner.double()
        assert learner.adapt(single)(q).shape == (3, 8, 1)
        assert learner.adapt(uneven)(q).isfinite().all()
        lonely = Examples(support.x[:, :1], support.y[:, :1])
        assert learner.adapt(lonely)(q[:, :1]).isfinite().all()
        twins = learner.adapt(support)(torch.cat([q[:, :1], q[:, :1]], 1))
        torch.testing.assert_close(twins[:, 0], twins[:, 1])
        sick = q.clone()
        sick[2, 1, 0] = math.inf
        with pytest.raises(RuntimeError, match="task 2 are not finite"):
            learner.adapt(support)(sick)


def test_gradients_stay_finite_where_an_item_hears_nobody():
    support, q = episode(n_way=1, k_shot=1)
    learner = GraphNet(5).double()
    tasks = TaskBatch(support, Examples(q, torch.zeros(3, 8, dtype=torch.long)))
    learner(tasks).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


def test_messages_are_shares():
    z = items()
    net = GraphNet(4, layers=2).double()
    nn.init.normal_(net.edges[2].weight, std=0.5)
    sends = torch.ones(2, 14, dtype=torch.bool)
    sends[:, 9:] = False
    a = net.messages(z, sends)
    torch.testing.assert_close(a.sum(-1), torch.ones_like(a[..., 0]))
    assert (a[..., 9:] == 0).all() and (a.diagonal(dim1=-2, dim2=-1) == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelPropagation(alpha=1.0), "above 0 and below 1"),
        (lambda: LabelPropagation(width=0.0), "above 0"),
        (lambda: LabelPropagation(neighbours=0), "at least 1"),
        (lambda: LabelPropagation(together=1), "True or False"),
        (lambda: GraphNet(4, layers=0), "at least 1"),
        (lambda: propagate(torch.zeros(1, 3, 3), torch.zeros(1, 3, 2), 0.0), "above 0"),
        (lambda: propagate(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2)), "n = 3"),
        (lambda: affinity(torch.zeros(3, 2)), "B n"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
