"""Properties of prototypical networks that the chapter does not have to show."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.learning_to_learn import LearnedPrototypes, class_means
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    TaskBatch,
    check_episode,
)
from metalearn_book.foundations.measuring import evaluate, paired_difference
from metalearn_book.foundations.training import meta_train
from metalearn_book.metric.prototypes import (
    Centred,
    DiagonalScale,
    ProtoNet,
    ResidualMap,
    Transductive,
    UnbalancedQueries,
    balanced_assignment,
    bregman_divergence,
    refined_means,
    soft_kmeans_prototypes,
    two_class_accuracy,
)
from metalearn_book.optimization.maml import conv4
from shared import gen


def blobs(n_classes=12, each=40, dim=6, spread=1.0, seed=0):
    centres = 2 * torch.randn(n_classes, dim, generator=gen(seed))
    y = [i // each for i in range(n_classes * each)]
    return centres[y] + spread * torch.randn(len(y), dim, generator=gen(seed + 1)), y


def batch(n_way=4, k_shot=3, n_query=5, n=3, seed=0, **options):
    return ClassTasks(
        *blobs(**options), n_way=n_way, k_shot=k_shot, n_query=n_query
    ).sample(n, gen(seed))


def test_bregman_is_positive_and_zero_only_at_the_same_point():
    z, c = (
        torch.rand(50, 4, generator=gen(s), dtype=torch.float64) + 0.1 for s in (0, 1)
    )
    for phi in (
        lambda v: v.square().sum(-1),
        lambda v: (v * v.log()).sum(-1),
        lambda v: -v.log().sum(-1),
        lambda v: v.exp().sum(-1),
    ):
        assert (bregman_divergence(phi, z, c) > 0).all()
        torch.testing.assert_close(
            bregman_divergence(phi, z, z), torch.zeros(50, dtype=torch.float64)
        )


def test_bregman_gradients_in_both_arguments():
    z = torch.rand(5, 3, generator=gen(), dtype=torch.float64).add(0.1).requires_grad_()
    c = (
        torch.rand(5, 3, generator=gen(1), dtype=torch.float64)
        .add(0.1)
        .requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda a, b: bregman_divergence(lambda v: (v * v.log()).sum(-1), a, b), (z, c)
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equals_the_frozen_learner(metric):
    tasks = batch()
    ours = ProtoNet(metric=metric, temperature=0.3).adapt(tasks.support)(tasks.query.x)
    torch.testing.assert_close(
        ours,
        NearestPrototype(metric, 0.3).adapt(tasks.support)(tasks.query.x),
        rtol=1e-4,
        atol=1e-3,
    )


def test_equals_learned_prototypes_with_gradients():
    tasks, torch_body = batch(), nn.Linear(6, 4)
    ours, theirs = (
        ProtoNet(torch_body, temperature=0.2),
        LearnedPrototypes(copy.deepcopy(torch_body), temperature=5.0),
    )
    a, b = ours(tasks), theirs(tasks)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    a.backward(), b.backward()
    torch.testing.assert_close(
        ours.body.weight.grad, theirs.body.weight.grad, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        ours.log_temperature.grad, -theirs.log_temperature.grad, rtol=1e-3, atol=1e-4
    )  # 1/tau there


def test_equals_a_loop_over_tasks():
    tasks, learner = batch(), ProtoNet(nn.Linear(6, 4), temperature=0.7)
    for i in range(len(tasks)):
        s, q = tasks.support[i], tasks.query[i]
        z, zq = learner.body(s.x[0]), learner.body(q.x[0])
        p = torch.stack([z[s.y[0] == c].mean(0) for c in range(4)])
        want = -(torch.cdist(zq, p) ** 2) / 0.7
        torch.testing.assert_close(learner.adapt(s)(q.x)[0], want, rtol=1e-3, atol=1e-3)


def test_permuting_labels_permutes_logits():
    tasks, order = batch(), torch.tensor([2, 0, 3, 1])
    learner = ProtoNet()
    renamed = Examples(tasks.support.x, order[tasks.support.y])
    torch.testing.assert_close(
        learner.adapt(renamed)(tasks.query.x)[..., order],
        learner.adapt(tasks.support)(tasks.query.x),
    )


def test_images_dicts_and_masks():
    x = torch.rand(2, 6, 1, 28, 28, generator=gen())
    y = torch.arange(3).repeat_interleave(2).expand(2, -1)
    learner = ProtoNet(conv4(channels=4)).eval()
    assert learner.adapt(Examples(x, y))(x[:, :2]).shape == (2, 2, 3)
    single = learner.adapt(Examples(x, y))(x[:, :1])
    torch.testing.assert_close(
        single, learner.adapt(Examples(x, y))(x)[:, :1], rtol=1e-4, atol=1e-4
    )  # inductive in eval mode

    class OfDict(nn.Module):
        def forward(self, batch):
            return batch["a"] + batch["b"]

    a, b = torch.randn(2, 2, 6, 5, generator=gen())
    q = {"a": a[:, :3], "b": b[:, :3]}
    tasks = TaskBatch(Examples({"a": a, "b": b}, y), Examples(q, y[:, :3]))
    plain = TaskBatch(Examples(a + b, y), Examples(a[:, :3] + b[:, :3], y[:, :3]))
    torch.testing.assert_close(ProtoNet(OfDict())(tasks), ProtoNet()(plain))


def test_query_mask_leaves_padding_out_of_the_loss():
    tasks = batch()
    mask = torch.ones_like(tasks.query.y, dtype=torch.bool)
    mask[:, -4:] = False
    spoiled = torch.where(mask[..., None], tasks.query.x, 50.0)
    masked = ProtoNet()(
        TaskBatch(tasks.support, Examples(spoiled, tasks.query.y, mask))
    )
    cut = ProtoNet()(
        TaskBatch(tasks.support, Examples(tasks.query.x[:, :-4], tasks.query.y[:, :-4]))
    )
    torch.testing.assert_close(masked, cut)


def test_training_uses_one_batch_for_support_and_query():
    body = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, momentum=1.0))
    tasks = batch()
    ProtoNet(body).train()(tasks)
    together = (
        body[0](torch.cat([tasks.support.x, tasks.query.x], 1)).flatten(0, 1).mean(0)
    )
    torch.testing.assert_close(
        body[1].running_mean, together.detach(), rtol=1e-4, atol=1e-5
    )


def test_frozen_temperature_and_device_contract():
    learner = ProtoNet(nn.Linear(6, 3), learn_temperature=False)
    assert not learner.log_temperature.requires_grad and set(
        dict(learner.named_parameters())
    ) == {"body.weight", "body.bias", "log_temperature"}
    assert copy.deepcopy(learner).state_dict().keys() == learner.state_dict().keys()


def test_meta_training_finds_the_informative_features():
    """Four of twelve features carry the classes; weights learned on other classes must
    help on new ones.
    """
    x, y = blobs(n_classes=30, each=20, dim=4, spread=0.5)
    x = torch.cat([x, 3 * torch.randn(len(x), 8, generator=gen(9))], 1)
    train, test = (
        ClassTasks(x, y, 5, 1, 5, classes=part)
        for part in (list(range(20)), list(range(20, 30)))
    )
    learner = ProtoNet(DiagonalScale(12))
    meta_train(
        learner, train, steps=80, tasks_per_step=8, outer_lr=5e-2, progress=False
    )
    gain = paired_difference(
        evaluate(learner, test, 200), evaluate(NearestPrototype(), test, 200)
    )
    assert (
        gain.mean > 0.1
        and learner.body.log_weight[:4].min() > learner.body.log_weight[4:].max()
    )


def test_bodies_start_as_the_identity():
    x = F.normalize(torch.randn(7, 5, generator=gen()), dim=-1)
    torch.testing.assert_close(ResidualMap(5)(x), x)
    torch.testing.assert_close(DiagonalScale(5)(x), x)
    centred = Centred(x)
    assert not list(centred.parameters()) and "mean" in centred.state_dict()
    torch.testing.assert_close(centred(x), F.normalize(x - x.mean(0), dim=-1))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_accuracy_formula_against_simulation_in_many_dimensions(k):
    dim, ratio, n = 60, 4.0, 20_000
    scale = torch.linspace(0.5, 1.5, dim)  # a diagonal covariance
    delta = torch.zeros(dim)
    delta[:3] = ratio / 3**0.5
    g = gen(k)
    p1 = scale * torch.randn(n, dim, generator=g) / k**0.5
    p2 = delta + scale * torch.randn(n, dim, generator=g) / k**0.5
    z = scale * torch.randn(n, dim, generator=g)
    measured = (
        ((z - p1).square().sum(-1) < (z - p2).square().sum(-1)).double().mean().item()
    )
    formula = two_class_accuracy(
        k, delta.square().sum(), (delta * scale).square().sum(), scale.pow(4).sum()
    ).item()
    assert abs(measured - formula) < 0.015


def test_accuracy_formula_limits():
    assert two_class_accuracy(math.inf, 4.0, 4.0, 1e6).item() == pytest.approx(
        0.5 * (1 + math.erf(1 / 2**0.5)), abs=1e-6
    )
    values = two_class_accuracy(torch.tensor([1.0, 2, 5, 20]), 4.0, 4.0, 50.0)
    assert (values.diff() > 0).all() and values[0] > 0.5
    with pytest.raises(ValueError, match="must be positive"):
        two_class_accuracy(0, 1.0, 1.0, 1.0)


def test_one_dimension_is_a_product_of_two_signs():
    """Exact accuracy for d = 1: (z - m) and u are independent Gaussians, and their
    product must be positive.
    """
    ratio, k, n = 2.0, 1, 200_000
    z, p = (
        torch.randn(n, generator=gen()),
        torch.randn(n, 2, generator=gen(1)) / k**0.5 + torch.tensor([0.0, ratio]),
    )
    measured = ((z - p[:, 0]).abs() < (z - p[:, 1]).abs()).double().mean().item()
    a, b = (
        torch.special.ndtr(torch.tensor(v)).item()
        for v in (ratio / 2 / (1 + 1 / (2 * k)) ** 0.5, ratio / (2 / k) ** 0.5)
    )
    assert measured == pytest.approx(a * b + (1 - a) * (1 - b), abs=0.004)


def test_soft_kmeans_agrees_with_a_loop_and_counts_masks():
    tasks = batch()
    s, z = tasks.support, tasks.query.x
    mask = torch.rand(s.y.shape, generator=gen(4)) < 0.7
    mask[:, ::3] = True  # one real shot of each class at least
    got = soft_kmeans_prototypes(Examples(s.x, s.y, mask), z, temperature=2.0, steps=2)
    for i in range(3):
        real, p = mask[i], class_means(s.x, s.y, mask)[i]
        for _ in range(2):
            w = (-(torch.cdist(z[i], p) ** 2) / 2.0).softmax(-1)
            p = torch.stack(
                [
                    (s.x[i][real & (s.y[i] == c)].sum(0) + w[:, c] @ z[i])
                    / ((real & (s.y[i] == c)).sum() + w[:, c].sum())
                    for c in range(4)
                ]
            )
        torch.testing.assert_close(got[i], p, rtol=1e-3, atol=1e-3)


def test_zero_weights_give_class_means():
    tasks = batch()
    torch.testing.assert_close(
        refined_means(tasks.support, tasks.query.x, torch.zeros(3, 20, 4)),
        class_means(tasks.support.x, tasks.support.y),
    )
    with pytest.raises(ValueError, match="steps=-1"):
        soft_kmeans_prototypes(tasks.support, tasks.query.x, steps=-1)


def test_balanced_assignment_meets_given_shares():
    logits, shares = (
        torch.randn(3, 40, 4, generator=gen(), dtype=torch.float64),
        torch.tensor([0.1, 0.2, 0.3, 0.4]),
    )
    w = balanced_assignment(logits, shares, steps=500)
    torch.testing.assert_close(w.sum(-1), torch.ones(3, 40, dtype=torch.float64))
    torch.testing.assert_close(
        w.sum(1), (40 * shares).double().expand(3, -1), rtol=1e-6, atol=1e-6
    )
    per_task = torch.stack([shares, shares.flip(0), torch.full((4,), 0.25)])
    torch.testing.assert_close(
        balanced_assignment(logits, per_task, steps=500)[0], w[0]
    )


def test_balanced_assignment_is_stable_and_unmoved_by_offsets():
    logits = torch.randn(2, 20, 5, generator=gen())
    moved = (
        logits
        + 100 * torch.randn(2, 20, 1, generator=gen(1))
        + 100 * torch.randn(2, 1, 5, generator=gen(2))
    )
    torch.testing.assert_close(
        balanced_assignment(logits, steps=200),
        balanced_assignment(moved, steps=200),
        rtol=1e-2,
        atol=1e-3,
    )
    assert balanced_assignment(1e4 * logits).isfinite().all()
    for shares in (
        torch.tensor([0.5, 0.5]),
        torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25]),
        torch.full((5,), 0.3),
    ):
        with pytest.raises(ValueError, match="sum to 1"):
            balanced_assignment(logits, shares)


@pytest.mark.parametrize("how", ["soft", "balanced"])
def test_transductive_helps_on_balanced_queries(how):
    tasks = ClassTasks(*blobs(spread=1.5), n_way=4, k_shot=1, n_query=15)
    base = ProtoNet()
    gain = paired_difference(
        evaluate(Transductive(base, how, temperature=4.0, steps=3), tasks, 200),
        evaluate(base, tasks, 200),
    )
    assert gain.mean > gain.ci95


def test_transductive_does_not_depend_on_the_order_of_queries():
    tasks = batch()
    order = torch.randperm(20, generator=gen())
    for how in ("soft", "balanced"):
        predict = Transductive(ProtoNet(), how, temperature=3.0).adapt(tasks.support)
        torch.testing.assert_close(
            predict(tasks.query.x[:, order]),
            predict(tasks.query.x)[:, order],
            rtol=1e-3,
            atol=1e-3,
        )


def test_transductive_refuses():
    with pytest.raises(ValueError, match="not one of 'soft', 'balanced'"):
        Transductive(ProtoNet(), "hard")
    with pytest.raises(ValueError, match="metric='cosine'"):
        Transductive(ProtoNet(metric="cosine"))


def test_unbalanced_queries_keep_episodes_clean():
    x, y = blobs()
    tasks = UnbalancedQueries(ClassTasks(x, y, 5, 2, 30), 30)
    drawn = tasks.sample(60, gen())
    check_episode(drawn, labels=y)
    assert drawn.query.y.shape == (60, 30) and torch.equal(
        x[drawn.info["query_items"]], drawn.query.x
    )
    again = tasks.sample(60, gen())
    assert torch.equal(drawn.query.y, again.query.y) and torch.equal(
        drawn.support.x, again.support.x
    )
    spread = {
        c: F.one_hot(
            UnbalancedQueries(ClassTasks(x, y, 5, 2, 30), 30, c)
            .sample(200, gen())
            .query.y,
            5,
        )
        .float()
        .mean(1)
        .std(1)
        .mean()
        for c in (1, 2, 50)
    }
    assert spread[1] > spread[2] > spread[50]


def test_unbalanced_queries_refuse():
    tasks = ClassTasks(*blobs(), n_way=5, k_shot=1, n_query=10)
    with pytest.raises(ValueError, match="positive integer"):
        UnbalancedQueries(tasks, 5, 0.5)
    with pytest.raises(ValueError, match="n_keep=11"):
        UnbalancedQueries(tasks, 11)


def test_bad_settings_say_what_is_allowed():
    with pytest.raises(ValueError, match="must be one of 'euclidean', 'cosine'"):
        ProtoNet(metric="l1")
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        ProtoNet(temperature=-1.0)
    tasks = batch()
    empty = torch.ones_like(tasks.support.y, dtype=torch.bool)
    empty[0, :3] = False
    with pytest.raises(ValueError, match="no support example"):
        ProtoNet().adapt(Examples(tasks.support.x, tasks.support.y, empty))
