"""Properties of MAML that the chapter does not have to show."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metalearn_book.foundations.bilevel import cross_entropy_per_task, mse_per_task
from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    SinusoidTasks,
    TaskBatch,
)
from metalearn_book.foundations.measuring import Evaluation, evaluate, mse
from metalearn_book.foundations.training import meta_train
from metalearn_book.optimization.maml import (
    MAML,
    AtSteps,
    BasisRegression,
    FixedLabelTasks,
    OneAtATime,
    TextNet,
    adaptation_curve,
    conv4,
    one_at_a_time,
    pre_post,
    pretrain_classifier,
    spread,
    word_ids,
)
from shared import gen, sine_net, sinusoids


def gradient(loss, model):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]
    )


def plain_loop(model, loss_fn, tasks, alpha, steps, first_order=False):
    "The outer loss by a loop over tasks, with functional_call and autograd only."
    losses = []
    for i in range(len(tasks)):
        w = dict(model.named_parameters())
        s, q = tasks.support[i], tasks.query[i]
        for _ in range(steps):
            loss = loss_fn(
                functional_call(model, w, (s.x[0],))[None], s.y, s.mask
            ).sum()
            grads = torch.autograd.grad(
                loss, list(w.values()), create_graph=not first_order
            )
            w = {n: p - alpha * g for (n, p), g in zip(w.items(), grads)}
        losses.append(
            loss_fn(functional_call(model, w, (q.x[0],))[None], q.y, q.mask).sum()
        )
    return torch.stack(losses).mean()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.1, 0.9, 2.5])
def test_one_parameter_by_hand(alpha, steps):
    """phi * x with squared loss: the meta-gradient is
    (1 - 2 alpha a)^k (2 a' theta - 2 b').
    """
    x, xq = torch.randn(2, 1, 7, 1, generator=gen(), dtype=torch.float64)
    tasks = TaskBatch(Examples(x, 3 * x), Examples(xq, 3 * xq))
    model = nn.Linear(1, 1, bias=False).double()
    a, b, a2, b2 = (
        (x * x).mean(),
        (x * 3 * x).mean(),
        (xq * xq).mean(),
        (xq * 3 * xq).mean(),
    )
    theta = model.weight.detach().item()
    for _ in range(steps):
        theta = theta - alpha * 2 * (a * theta - b)
    first = 2 * (a2 * theta - b2)
    for first_order, want in (
        (False, (1 - 2 * alpha * a) ** steps * first),
        (True, first),
    ):
        learner = MAML(
            model,
            mse_per_task,
            inner_lr=0.0,
            inner_steps=steps,
            first_order=first_order,
        ).double()
        learner.loop.inner_lr.fill_(alpha)  # a float32 buffer would round the rate
        torch.testing.assert_close(
            gradient(learner(tasks), model), want.view(1), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_equals_a_plain_loop(steps, first_order):
    tasks, model = sinusoids(), sine_net()
    learner = MAML(
        model, mse_per_task, inner_lr=0.05, inner_steps=steps, first_order=first_order
    ).double()
    alpha = learner.loop.inner_lr.item()
    ours, reference = (
        learner(tasks),
        plain_loop(model, mse_per_task, tasks, alpha, steps, first_order),
    )
    torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        gradient(ours, model), gradient(reference, model), rtol=1e-10, atol=1e-12
    )


def test_text_net_equals_a_plain_loop():
    torch.manual_seed(0)
    net = TextNet(12, n_out=3, dim=4, width=6).double()
    nn.init.normal_(net.head.weight)
    x = torch.randint(0, 12, (3, 6, 5), generator=gen())
    y = torch.randint(0, 3, (3, 6), generator=gen(1))
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 4:] = False
    tasks = TaskBatch(Examples(x, y, mask), Examples(x.flip(1), y.flip(1)))
    learner = MAML(net, cross_entropy_per_task, inner_lr=0.3, inner_steps=2).double()
    ours, reference = (
        learner(tasks),
        plain_loop(net, cross_entropy_per_task, tasks, learner.loop.inner_lr.item(), 2),
    )
    torch.testing.assert_close(
        gradient(ours, net), gradient(reference, net), rtol=1e-10, atol=1e-12
    )


def test_masked_support_examples_do_not_count():
    tasks, model = sinusoids(), sine_net()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 3:] = False
    learner = MAML(model, mse_per_task, inner_lr=0.1, inner_steps=2).double()
    masked = learner.adapt(Examples(tasks.support.x, tasks.support.y, mask))(
        tasks.query.x
    )
    cut = learner.adapt(Examples(tasks.support.x[:, :3], tasks.support.y[:, :3]))(
        tasks.query.x
    )
    torch.testing.assert_close(masked, cut)


def test_zero_steps_is_joint_training():
    tasks, model = sinusoids(), sine_net()
    joint = gradient(F.mse_loss(model(tasks.query.x), tasks.query.y), model)
    torch.testing.assert_close(
        gradient(MAML(model, mse_per_task, inner_steps=0).double()(tasks), model), joint
    )


@pytest.mark.parametrize("linear", [True, False])
def test_first_order_is_exact_where_the_loss_is_linear(linear):
    def linear_loss(prediction, y, mask=None):
        return (prediction * y).flatten(1).mean(1)

    tasks, model = sinusoids(), nn.Linear(1, 1).double()
    loss_fn = linear_loss if linear else mse_per_task
    exact, first = (
        gradient(
            MAML(model, loss_fn, inner_lr=0.1, inner_steps=3, first_order=f).double()(
                tasks
            ),
            model,
        )
        for f in (False, True)
    )
    assert torch.allclose(exact, first, rtol=1e-10) is linear


def test_checkpointing_changes_nothing():
    tasks, model = sinusoids(), sine_net()
    plain, saved = (
        gradient(
            MAML(model, mse_per_task, inner_lr=0.05, inner_steps=3, memory=m).double()(
                tasks
            ),
            model,
        )
        for m in ("store", "checkpoint")
    )
    torch.testing.assert_close(plain, saved, rtol=1e-12, atol=1e-14)


def test_one_step_from_zero_is_the_prototype_rule():
    x = F.normalize(torch.randn(60, 8, generator=gen(), dtype=torch.float64), dim=-1)
    tasks = ClassTasks(
        x, [i % 6 for i in range(60)], n_way=4, k_shot=1, n_query=5
    ).sample(30, gen(1))
    head = nn.Linear(8, 4).double()
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    for rate in (0.1, 50.0):
        ours = (
            MAML(head, inner_lr=rate, inner_steps=1)
            .double()
            .adapt(tasks.support)(tasks.query.x)
            .argmax(-1)
        )
        assert torch.equal(
            ours, NearestPrototype().adapt(tasks.support)(tasks.query.x).argmax(-1)
        )


def test_the_copied_code_is_joint_training():
    """Assigning to model.parameters neither changes a prediction nor lets the support
    set act on the gradient.
    """
    tasks, model = sinusoids(), sine_net()
    params = list(model.parameters())
    grads = torch.autograd.grad(
        F.mse_loss(model(tasks.support.x[0]), tasks.support.y[0]),
        params,
        create_graph=True,
    )
    before = model(tasks.query.x[0])
    model.parameters = [p - 0.1 * g for p, g in zip(params, grads)]
    after = model(tasks.query.x[0])
    assert torch.equal(before, after)
    assert not torch.equal(
        before,
        MAML(sine_net(), mse_per_task, inner_lr=0.1)
        .double()
        .adapt(tasks.support[0])(tasks.query.x[:1])[0],
    )


def test_pre_post_and_curve_agree():
    source, learner = (
        SinusoidTasks(6, 5),
        MAML(sine_net().float(), mse_per_task, inner_lr=0.05, inner_steps=3),
    )
    batch = source.sample(8, gen(5))
    moments = pre_post(learner, batch, metric=mse)
    assert set(moments) == {
        "pre_support",
        "pre_query",
        "post_support",
        "post_query",
    } and all(v.shape == (8,) for v in moments.values())
    assert not any(v.requires_grad for v in moments.values())
    curve = adaptation_curve(
        learner, source, (0, 3), 8, seed=5, tasks_per_batch=8, metric=mse
    )
    torch.testing.assert_close(curve[0].values, moments["pre_query"])
    torch.testing.assert_close(curve[3].values, moments["post_query"])


@pytest.mark.parametrize("training", [True, False])
def test_at_steps_leaves_the_mode_alone(training):
    learner = MAML(
        nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1)), mse_per_task
    ).train(training)
    first, second = (
        evaluate(AtSteps(learner, 2), SinusoidTasks(5, 5), 6, metric=mse).values
        for _ in range(2)
    )
    assert (
        torch.equal(first, second) and learner.training is training
    )  # no dropout while measuring


def test_spread_counts_what_diverged():
    result = spread(Evaluation(torch.tensor([1.0, 2.0, math.nan, math.inf, 500.0]), 0))
    assert result == {"median": 500.0, "diverged": pytest.approx(0.6)}
    assert spread(Evaluation(torch.tensor([1.0, 2.0, 3.0]), 0), limit=2.5)[
        "diverged"
    ] == pytest.approx(1 / 3)


def test_basis_regression_is_exact_on_its_family():
    oracle = BasisRegression(lambda x: torch.cat([torch.sin(x), torch.cos(x)], -1))
    tasks = sinusoids(n=20)
    torch.testing.assert_close(
        oracle.adapt(tasks.support)(tasks.query.x), tasks.query.y, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="1 support points cannot determine 2"):
        oracle.adapt(sinusoids(k_shot=1).support)


def blobs(n_classes=10, each=12, dim=6, seed=0):
    centres = 4 * torch.randn(n_classes, dim, generator=gen(seed))
    y = [i // each for i in range(n_classes * each)]
    return centres[y] + torch.randn(len(y), dim, generator=gen(seed + 1)), y


def test_pretraining_separates_blobs_and_repeats():
    x, y = blobs()
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        head = pretrain_classifier(body, x, y, width=16, steps=150, lr=1e-2, seed=3)
        results.append(head(body(x)))
    assert torch.equal(*results)
    assert (results[0].argmax(-1) == torch.tensor(y)).float().mean() > 0.95
    with pytest.raises(ValueError, match="at least 2 classes"):
        pretrain_classifier(nn.Identity(), x[:5], [0] * 5, width=6)


def test_fixed_label_tasks_fix_labels():
    x, y = blobs()
    tasks = ClassTasks(x, y, n_way=5, k_shot=2, n_query=4)
    of_row = {tuple(row.tolist()): label for row, label in zip(x, y)}
    slots = {}
    for seed in range(20):
        batch = FixedLabelTasks(tasks).sample(2, gen(seed))
        for part in (batch.support, batch.query):
            for row, label in zip(part.x.flatten(0, 1), part.y.flatten()):
                slots.setdefault(of_row[tuple(row.tolist())], set()).add(label.item())
        support, query = (
            {tuple(r.tolist()) for r in part.x[0]}
            for part in (batch.support, batch.query)
        )
        assert not support & query and len(support) == 10 and len(query) == 20
    assert len(slots) == 10 and all(len(s) == 1 for s in slots.values())


def test_word_ids():
    ids, vocabulary = word_ids(["B a", "c"])
    assert ids.tolist() == [[3, 2], [4, 0]] and vocabulary == {"a": 2, "b": 3, "c": 4}
    assert word_ids(["a x a a"], vocabulary, length=3)[0].tolist() == [[2, 1, 2]]


def test_text_net_sees_order_and_not_padding():
    torch.manual_seed(0)
    net = TextNet(10, n_out=2)
    nn.init.normal_(net.head.weight)
    a, b, c = net(torch.tensor([[3, 5, 0, 0], [5, 3, 0, 0], [3, 5, 0, 0]]))
    assert not torch.allclose(a, b) and torch.equal(a, c)
    torch.testing.assert_close(net(torch.tensor([[3, 5]]))[0], a)
    assert net(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()  # an empty text


def test_meta_training_makes_the_step_useful():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
    )
    start = copy.deepcopy(model)
    learner = MAML(model, mse_per_task, inner_lr=0.01)
    meta_train(
        learner,
        SinusoidTasks(10, 10),
        steps=250,
        tasks_per_step=10,
        outer_lr=3e-3,
        progress=False,
    )
    trained, before = (
        adaptation_curve(m, SinusoidTasks(10, 50), (0, 1), 100, metric=mse)
        for m in (learner, MAML(start, mse_per_task, inner_lr=0.01))
    )
    gain = trained[0].values - trained[1].values
    assert gain.mean() > 2 * (before[0].values - before[1].values).mean()
    assert trained[1].mean < 0.8 * before[1].mean


def test_errors_say_what_to_do():
    learner, tasks = MAML(sine_net(), mse_per_task).double(), sinusoids()
    with pytest.raises(ValueError, match="inner_steps must be at least 0, got -1"):
        learner.adapt(tasks.support, -1)
    with pytest.raises(ValueError, match="steps must hold at least 1"):
        adaptation_curve(learner, SinusoidTasks(), ())
    with pytest.raises(ValueError, match="matches no"):
        MAML(sine_net(), mse_per_task, adapt="nothing.*")


# -------------------------------------------- batch statistics and the Omniglot network


def test_one_at_a_time_does_not_depend_on_the_other_queries():
    x, y = torch.rand(60, 1, 28, 28, generator=gen(6)), [i // 6 for i in range(60)]
    tasks = ClassTasks(x, y, n_way=5, k_shot=1, n_query=3)
    batch = tasks.sample(2, gen())
    torch.manual_seed(0)
    learner = MAML(conv4(5, 4), inner_steps=1, inner_lr=0.1)
    alone = OneAtATime(learner).adapt(batch.support)
    whole, part = alone(batch.query.x), alone(batch.query.x[:, 4:7])
    torch.testing.assert_close(whole[:, 4:7], part)
    transductive = learner.adapt(batch.support)
    assert not torch.allclose(
        transductive(batch.query.x)[:, 4:7],
        transductive(batch.query.x[:, 4:7]),
        atol=1e-4,
    )
    assert whole.shape == (2, 15, 5)
    result = evaluate(OneAtATime(AtSteps(learner, 2)), tasks, 4)
    assert len(result) == 4


def test_one_at_a_time_changes_nothing_without_batch_statistics():
    tasks = sinusoids()
    learner = MAML(sine_net(), mse_per_task, inner_steps=2, inner_lr=0.05)
    torch.testing.assert_close(
        OneAtATime(learner).adapt(tasks.support)(tasks.query.x),
        learner.adapt(tasks.support)(tasks.query.x),
    )


def test_one_at_a_time_takes_no_mask():
    masked = Examples(
        torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)
    )
    with pytest.raises(ValueError, match="without a mask"):
        one_at_a_time(lambda x: x, masked, torch.zeros(1, 2, 1))


@pytest.mark.parametrize("pool", ["stride", "max"])
def test_the_omniglot_network(pool):
    x = torch.rand(6, 1, 28, 28, generator=gen(1))
    assert conv4(pool=pool)(x).shape == (6, 64) and conv4(20, 8, pool)(x).shape == (
        6,
        20,
    )
    assert {n.split(".")[0] for n, _ in conv4(5).named_parameters()} == {"body", "head"}
    with pytest.raises(
        ValueError, match="pool must be one of 'stride', 'max', got 'mean'"
    ):
        conv4(5, pool="mean")


def test_hidden_queries_do_not_change_the_accuracies():
    "Their inputs would enter the statistics of BatchNorm."
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    learner = MAML(model, inner_lr=0.1, inner_steps=1)
    x, y = torch.randn(2, 6, 3, generator=gen()), torch.tensor([[0, 1] * 3] * 2)
    mask = torch.arange(8).expand(2, -1) < 6
    full = Examples(x, y)
    junk = Examples(
        torch.cat([x, torch.full((2, 2, 3), 1e3)], 1),
        torch.cat([y, torch.full((2, 2), 9)], 1),
        mask,
    )
    plain = pre_post(learner, TaskBatch(full, full), cross_entropy_per_task)
    padded = pre_post(learner, TaskBatch(full, junk), cross_entropy_per_task)
    for name, value in plain.items():
        torch.testing.assert_close(padded[name], value)
