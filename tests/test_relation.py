"""Properties of relation networks that the chapter does not have to show."""

import math

import pytest
import torch
import torch.nn.functional as F
from shared import gen
from torch import nn

from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.measuring import accuracy
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.metric.relation import (
    CompareRelation,
    ConcatRelation,
    MapRelation,
    PairLayer,
    RelationNet,
    relation_squares,
)
from metalearn_book.optimization.maml import conv_block


def episode(n=2, n_way=3, k_shot=2, shape=(6,), n_query=5):
    y = torch.arange(n_way).repeat_interleave(k_shot).expand(n, -1)
    x = torch.randn(n, n_way * k_shot, *shape, generator=gen())
    q = torch.randn(n, n_query, *shape, generator=gen(1))
    return Examples(x, y), q


def test_pairs_equal_a_loop():
    torch.manual_seed(0)
    p, z = torch.randn(2, 3, 6, generator=gen()), torch.randn(2, 5, 6, generator=gen(1))
    relation = ConcatRelation(6, 4)
    out, pair = relation(p, z), relation.pair
    for b in range(2):
        for q in range(5):
            for c in range(3):
                hidden = (pair.left(p[b, c]) + pair.right(z[b, q])).relu()
                torch.testing.assert_close(out[b, q, c], relation.out(hidden)[0])


def test_a_layer_of_one_bias_is_a_layer_on_joined_vectors():
    torch.manual_seed(0)
    p, z = torch.randn(1, 2, 4, generator=gen()), torch.randn(1, 3, 4, generator=gen(1))
    layer = PairLayer(nn.Linear(4, 5), nn.Linear(4, 5, bias=False))
    joined = torch.cat([p[0, 1], z[0, 2]])
    weight = torch.cat([layer.left.weight, layer.right.weight], 1)
    want = weight @ joined + layer.left.bias
    torch.testing.assert_close(layer(p, z)[0, 2, 1], want)


def test_comparison_starts_as_the_cosine_and_is_symmetric():
    support, q = episode()
    learner = RelationNet(None, CompareRelation(6, similarity=4.0))
    # the mean of a class, and the cosine with it
    p = torch.stack([support.x[:, support.y[0] == c].mean(1) for c in range(3)], 1)
    want = 4 * F.normalize(q, dim=-1) @ F.normalize(p, dim=-1).mT
    torch.testing.assert_close(learner.adapt(support)(q), want)
    one = Examples(support.x[:, ::2], support.y[:, ::2])
    fixed = NearestPrototype("cosine").adapt(one)(q).argmax(-1)
    assert torch.equal(learner.adapt(one)(q).argmax(-1), fixed)
    nn.init.normal_(learner.relation.net[2].weight)
    torch.testing.assert_close(learner.relation(p, q), learner.relation(q, p).mT)


def test_squares_by_hand_and_by_mask():
    scores = torch.tensor([[[0.0, 2.0], [1.0, -1.0]]])
    y = torch.tensor([[1, 0]])
    s = scores.sigmoid()[0]
    first = (s[0, 0] ** 2 + (s[0, 1] - 1) ** 2) / 2
    second = ((s[1, 0] - 1) ** 2 + s[1, 1] ** 2) / 2
    torch.testing.assert_close(relation_squares(scores, y)[0], (first + second) / 2)
    mask = torch.tensor([[True, False]])
    hidden = relation_squares(scores, torch.tensor([[1, 99]]), mask)[0]
    torch.testing.assert_close(hidden, first)
    with pytest.raises(ValueError, match="labels run from 0 to 2"):
        relation_squares(scores, torch.tensor([[2, 0]]))


@pytest.mark.parametrize("loss", ["squares", "softmax"])
def test_maps_and_their_gradients(loss):
    support, q = episode(shape=(1, 12, 12))
    torch.manual_seed(0)
    body = nn.Sequential(conv_block(1, 4, "max"), conv_block(4, 4, "max"))
    learner = RelationNet(body, MapRelation(4), loss)
    y = torch.randint(0, 3, (2, 5), generator=gen())
    value = learner(TaskBatch(support, Examples(q, y)))
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in learner.parameters())
    learner.eval()
    predict = learner.adapt(support)
    assert predict(q).shape == (2, 5, 3)
    torch.testing.assert_close(predict(q)[:, :2], predict(q[:, :2]))  # inductive


def test_renamed_classes_rename_the_answers():
    support, q = episode()
    torch.manual_seed(0)
    learner, order = RelationNet(None, ConcatRelation(6)), torch.tensor([2, 0, 1])
    renamed = Examples(support.x, order[support.y])
    torch.testing.assert_close(
        learner.adapt(renamed)(q)[..., order], learner.adapt(support)(q)
    )


def test_odd_episodes():
    support, q = episode()
    learner = RelationNet(None, CompareRelation(6))
    uneven = Examples(support.x[:, :5], support.y[:, :5])
    assert learner.adapt(uneven)(q).isfinite().all()
    single = Examples(support.x[:, :2], support.y[:, :2])
    assert learner.adapt(single)(q).shape == (2, 5, 1)
    double = Examples(torch.cat([support.x] * 2, 1), torch.cat([support.y] * 2, 1))
    torch.testing.assert_close(learner.adapt(double)(q), learner.adapt(support)(q))
    sick = support.x.clone()
    sick[1, 0, 0] = math.inf
    out = learner.adapt(Examples(sick, support.y))(q)
    right = accuracy(out, torch.zeros(2, 5, dtype=torch.long))
    assert right.isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RelationNet(None, len), "relation must be a module"),
        (lambda: RelationNet(None, nn.ReLU(), "hinge"), "'squares', 'softmax'"),
        (lambda: PairLayer(None, nn.ReLU()), "left must be a module"),
        (lambda: ConcatRelation(0), "at least 1, got 0"),
        (lambda: ConcatRelation(3)(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)),
         "PyTorch says"),
    ],
)  # fmt: skip
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
