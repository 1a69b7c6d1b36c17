"""Properties of the variants of MAML that the chapter does not have to show."""

import copy

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import finite_differences, mse_per_task
from metalearn_book.foundations.tasks import ClassTasks, Examples, SinusoidTasks
from metalearn_book.foundations.tasks import TaskBatch
from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.optimization.maml import MAML, TextNet, conv4
from metalearn_book.optimization.what_to_adapt import ANIL, BOIL, ElementRates, MAMLpp
from metalearn_book.optimization.what_to_adapt import MetaSGD, linear_cka
from metalearn_book.optimization.what_to_adapt import representations, split_names
from metalearn_book.optimization.what_to_adapt import step_weights
from shared import gen


def tasks(n=3, seed=0):
    batch = SinusoidTasks(6, 5).sample(n, gen(seed))
    return TaskBatch(
        batch.support.map(torch.Tensor.double), batch.query.map(torch.Tensor.double)
    )


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module(
        "body", nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
    )
    model.add_module("head", nn.Linear(4, 1))
    return model.double()


def gradient(learner, batch):
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(
                learner(batch), list(learner.loop.model.parameters())
            )
        ]
    )


OPTIONS = {"inner_lr": 0.1, "inner_steps": 3}


def test_names_are_split_without_loss_or_overlap():
    body, head = split_names(net())
    assert sorted(body + head) == sorted(
        n for n, _ in net().named_parameters()
    ) and not set(body) & set(head)
    assert split_names(TextNet(9))[1] == ["head.weight", "head.bias"]
    assert split_names(net(), ["head.weight"])[1] == ["head.weight"]
    assert split_names(net(), lambda n: n.endswith("bias"))[1] == [
        "body.0.bias",
        "body.2.bias",
        "head.bias",
    ]


@pytest.mark.parametrize("frozen", ["body.0.weight", "head.bias"])
def test_untrainable_parameters_belong_to_neither_part(frozen):
    model = net()
    model.get_parameter(frozen).requires_grad_(False)
    body, head = split_names(model)
    assert frozen not in body + head


@pytest.mark.parametrize("make, moving", [(ANIL, "head"), (BOIL, "body")])
def test_only_one_part_moves(make, moving):
    learner = make(net(), mse_per_task, **OPTIONS)
    assert {n.split(".")[0] for n in learner.adapt(tasks().support).params} == {moving}
    # both are learned outside
    assert all(
        g.abs().max() > 0
        for g in torch.autograd.grad(
            learner(tasks()), list(learner.loop.model.parameters())
        )
    )


@pytest.mark.parametrize("make, free", [(ANIL, "head.*"), (BOIL, "body.*")])
def test_a_frozen_part_is_a_rate_of_zero(make, free):
    everything = MAML(
        net(), mse_per_task, inner_steps=3, inner_lr={free: 0.1, "*": 0.0}
    )
    torch.testing.assert_close(
        gradient(make(net(), mse_per_task, **OPTIONS), tasks()),
        gradient(everything, tasks()),
        rtol=0,
        atol=1e-12,
    )


def test_anil_on_detached_features_has_the_gradient_of_a_head_alone():
    "The head of ANIL learns as MAML on fixed features does."
    model = net()
    anil, batch = ANIL(model, mse_per_task, **OPTIONS), tasks()
    with torch.no_grad():
        features = TaskBatch(
            *(Examples(model.body(e.x), e.y) for e in (batch.support, batch.query))
        )
    alone = MAML(copy.deepcopy(model.head), mse_per_task, **OPTIONS)
    head = torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(anil(batch), list(model.head.parameters()))
        ]
    )
    torch.testing.assert_close(head, gradient(alone, features), rtol=0, atol=1e-12)


def test_first_order_body_gradient_of_anil_is_the_direct_path():
    "With the head's adaptation detached, first-order ANIL is what is left."
    batch, model = tasks(), net()
    params = (
        ANIL(copy.deepcopy(model), mse_per_task, **OPTIONS).adapt(batch.support).params
    )
    loss = (
        sum(
            (
                (
                    model.body(batch.query.x[i]) @ params["head.weight"][i].detach().T
                    + params["head.bias"][i].detach()
                    - batch.query.y[i]
                )
                ** 2
            ).mean()
            for i in range(3)
        )
        / 3
    )
    direct = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.body.parameters()))]
    )
    first = ANIL(copy.deepcopy(model), mse_per_task, first_order=True, **OPTIONS)
    ours = torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(
                first(batch), list(first.loop.model.body.parameters())
            )
        ]
    )
    torch.testing.assert_close(ours, direct, rtol=0, atol=1e-12)


def test_equal_element_rates_are_maml():
    torch.testing.assert_close(
        gradient(MetaSGD(net(), mse_per_task, **OPTIONS), tasks()),
        gradient(MAML(net(), mse_per_task, **OPTIONS), tasks()),
        rtol=0,
        atol=1e-13,
    )


def test_element_rates_by_finite_differences_and_their_sums_by_tensor():
    learner = MetaSGD(net(), mse_per_task, **OPTIONS)
    exact = torch.autograd.grad(learner(tasks()), list(learner.loop.alpha))
    alpha = learner.loop.alpha[4]

    def value(v):
        with torch.no_grad():
            alpha.copy_(v)
        return learner(tasks()).detach()

    torch.testing.assert_close(
        exact[4], finite_differences(value, alpha.detach().clone()), rtol=0, atol=1e-8
    )
    by_tensor = MAML(net(), mse_per_task, learn_lr="tensor", **OPTIONS)
    table = torch.autograd.grad(by_tensor(tasks()), by_tensor.loop.inner_lr)[0][0]
    torch.testing.assert_close(
        torch.stack([g.sum() for g in MetaSGD_gradients()]), table, rtol=0, atol=1e-12
    )


def MetaSGD_gradients():
    learner = MetaSGD(net(), mse_per_task, **OPTIONS)
    return torch.autograd.grad(learner(tasks()), list(learner.loop.alpha))


def test_element_rates_of_some_layers_only():
    learner = MetaSGD(
        net(), mse_per_task, adapt="head.*", inner_lr={"*.weight": 0.2, "*": 0.05}
    )
    assert [a.unique().tolist() for a in learner.loop.alpha] == [[0.2], [0.05]]
    assert len(learner.adapt(tasks().support).params) == 2


def test_element_rates_one_step_by_hand():
    learner, batch = MetaSGD(net(), mse_per_task, inner_lr=0.1), tasks(1)
    with torch.no_grad():
        for a in learner.loop.alpha:
            a.copy_(torch.randn(a.shape, generator=gen(), dtype=a.dtype))
    model = learner.loop.model
    grads = torch.autograd.grad(
        ((model(batch.support.x[0]) - batch.support.y[0]) ** 2).mean(),
        list(model.parameters()),
    )
    adapted = learner.adapt(batch.support).params
    for (name, p), g, a in zip(model.named_parameters(), grads, learner.loop.alpha):
        torch.testing.assert_close(adapted[name][0], p - a * g)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"learn_lr": True}, "leave learn_lr out"),
        ({"inner_lr": [0.1, 0.2], "inner_steps": 2}, "one for each step"),
    ],
)
def test_element_rates_refuse_other_learned_rates(options, words):
    with pytest.raises(ValueError, match=words):
        ElementRates(net(), mse_per_task, **options)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_step_weights(k):
    for p in (0.0, 0.25, 0.9, 1.0):
        w = step_weights(k, p)
        assert w.min() >= 0 and abs(w.sum() - 1) < 1e-12 and w[-1] >= w.max() - 1e-12
    assert step_weights(k, 1.0)[:-1].abs().sum() == 0
    torch.testing.assert_close(
        step_weights(k, 0.0), torch.full((k,), 1 / k, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="progress must be|inner_steps must be"):
        step_weights(k, -0.1)


def test_plus_without_annealing_is_maml():
    a, b = MAMLpp(net(), mse_per_task, **OPTIONS), MAML(net(), mse_per_task, **OPTIONS)
    torch.testing.assert_close(
        gradient(a, tasks()), gradient(b, tasks()), rtol=0, atol=1e-13
    )


def test_plus_first_order_gradient_is_the_weighted_sum_of_query_gradients():
    learner = MAMLpp(
        net(), mse_per_task, anneal_steps=10, first_order_until=10, **OPTIONS
    )
    maml = [
        MAML(net(), mse_per_task, inner_lr=0.1, inner_steps=k, first_order=True)
        for k in (1, 2, 3)
    ]
    torch.testing.assert_close(
        gradient(learner, tasks()),
        sum(gradient(m, tasks()) for m in maml) / 3,
        rtol=0,
        atol=1e-12,
    )


def test_plus_second_order_gradient_is_the_weighted_sum_of_maml_gradients():
    learner = MAMLpp(net(), mse_per_task, anneal_steps=10, **OPTIONS)
    learner.outer_step += 4
    w = learner.weights().tolist()
    maml = [MAML(net(), mse_per_task, inner_lr=0.1, inner_steps=k) for k in (1, 2, 3)]
    torch.testing.assert_close(
        gradient(learner, tasks()),
        sum(v * gradient(m, tasks()) for v, m in zip(w, maml)),
        rtol=0,
        atol=1e-12,
    )


def test_plus_counts_training_steps_only_and_keeps_the_count():
    learner = MAMLpp(
        net(), mse_per_task, anneal_steps=4, first_order_until=2, **OPTIONS
    )
    learner(tasks())
    with torch.no_grad():
        learner(tasks())
    learner.eval()(tasks())
    assert learner.outer_step.item() == 1
    other = MAMLpp(net(), mse_per_task, anneal_steps=4, first_order_until=2, **OPTIONS)
    other.load_state_dict(learner.state_dict())
    assert (
        other.weights().tolist()
        == learner.weights().tolist()
        == step_weights(3, 0.25).tolist()
    )
    for _ in range(3):
        other.train()(tasks())
    assert not other.loop.first_order and other.outer_step.item() == 4


def test_plus_resumes_from_a_checkpoint_with_the_same_numbers(tmp_path):
    def fresh():
        return MAMLpp(
            net(), mse_per_task, anneal_steps=4, first_order_until=2, **OPTIONS
        )

    whole, parts = fresh(), fresh()
    double = type(
        "Double",
        (),
        {
            "sample": lambda self, n, g: tasks(
                n, int(torch.randint(1000, (1,), generator=g))
            )
        },
    )()
    common = {"tasks_per_step": 2, "progress": False}
    meta_train(whole, double, steps=6, **common)
    meta_train(
        parts,
        double,
        steps=3,
        checkpoint=Checkpoint(tmp_path / "run.pt", every=1),
        **common,
    )
    again = fresh()
    meta_train(
        again,
        double,
        steps=6,
        checkpoint=Checkpoint(tmp_path / "run.pt", every=1),
        **common,
    )
    for (n, a), b in zip(whole.state_dict().items(), again.state_dict().values()):
        assert torch.equal(a, b), n


@pytest.mark.parametrize(
    "options",
    [
        {"inner_steps": 0},
        {"anneal_steps": -1},
        {"first_order_until": -1},
        {"first_order": True},
        {"memory": "adjoint"},
    ],
)
def test_plus_refuses(options):
    with pytest.raises(ValueError):
        MAMLpp(net(), mse_per_task, **options)


def test_path_ends_where_adapt_does():
    learner = MAMLpp(net(), mse_per_task, **OPTIONS)
    *_, last = learner.path(tasks().support)
    for name, p in learner.adapt(tasks().support).params.items():
        assert torch.equal(p, last.params[name])
    assert len(last.losses) == 3


@pytest.mark.parametrize("d, e", [(4, 7), (60, 5), (80, 90)])
def test_cka_gram_form_and_invariances(d, e):
    X, Y = (
        torch.randn(20, d, generator=gen(), dtype=torch.float64),
        torch.randn(20, e, generator=gen(1), dtype=torch.float64),
    )
    C = torch.eye(20, dtype=torch.float64) - 1 / 20
    K, L = C @ X @ X.T @ C, C @ Y @ Y.T @ C
    value = linear_cka(X, Y)
    torch.testing.assert_close(value, (K * L).sum() / (K.norm() * L.norm()))
    Q = torch.linalg.qr(torch.randn(d, d, generator=gen(2), dtype=torch.float64)).Q
    torch.testing.assert_close(linear_cka(-3 * X @ Q + 2, Y), value)
    torch.testing.assert_close(linear_cka(Y, X), value)
    torch.testing.assert_close(
        linear_cka(torch.stack([X, X]), torch.stack([Y, X[:, :1].expand(-1, e)]))[0],
        value,
    )
    assert 0 <= value <= 1


def test_cka_limits():
    X = torch.eye(6, dtype=torch.float64)[:, :2]
    assert (
        linear_cka(
            torch.tensor([[1.0], [-1.0], [0.0], [0.0]]),
            torch.tensor([[0.0], [0.0], [1.0], [-1.0]]),
        )
        == 0
    )
    torch.testing.assert_close(linear_cka(X, X), torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="the same for all inputs"):
        linear_cka(torch.ones(4, 2), torch.randn(4, 2))
    for bad in (
        (torch.ones(3), torch.ones(3)),
        (torch.ones(3, 2), torch.ones(4, 2)),
        (torch.ones(1, 2), torch.ones(1, 2)),
    ):
        with pytest.raises(ValueError, match="same inputs"):
            linear_cka(*bad)


def test_representations_of_convolutions_against_a_plain_forward_pass():
    torch.manual_seed(0)
    x, y = torch.rand(40, 1, 28, 28), [i // 8 for i in range(40)]
    batch = ClassTasks(x, y, 3, 1, 2).sample(2, gen())
    learner = BOIL(conv4(3, 4), inner_lr=0.5, inner_steps=2)
    found = representations(learner, batch, ["body.1", "body.5", "head"])
    assert found["body.1"][0].shape == (2, 6, 4) and found["head"][1].shape == (2, 6, 3)
    body = learner.loop.model.body
    torch.testing.assert_close(
        found["body.1"][0][1], body[:2](batch.query.x[1]).flatten(2).mean(2)
    )
    torch.testing.assert_close(
        found["head"][1],
        learner.adapt(batch.support)(batch.query.x),
        rtol=1e-4,
        atol=1e-5,
    )
    assert not any(m._forward_hooks for m in learner.loop.model.modules())


def test_representations_clean_up_after_an_error():
    learner = MAML(net(), mse_per_task)
    batch = tasks()
    broken = TaskBatch(
        batch.support, Examples(batch.query.x.repeat(1, 1, 2), batch.query.y)
    )
    with pytest.raises(RuntimeError):
        representations(learner, broken, ["body"])
    assert not any(m._forward_hooks for m in learner.loop.model.modules())
    with pytest.raises(ValueError, match="no layer"):
        representations(learner, batch, ["nothing"])
    query, real = batch.query, torch.ones(batch.query.y.shape[:2], dtype=torch.bool)
    real[0, 0] = False
    hidden = TaskBatch(batch.support, Examples(query.x, query.y, real))
    with pytest.raises(ValueError, match="hides examples"):
        representations(learner, hidden, ["body"])


@pytest.mark.parametrize("make", [ANIL, BOIL, MetaSGD, MAMLpp])
def test_every_variant_trains(make):
    torch.manual_seed(0)
    learner = make(net().float(), mse_per_task, inner_lr=0.05, inner_steps=2)
    before = evaluate(learner, SinusoidTasks(6, 10), 50, metric=mse).mean
    meta_train(
        learner,
        SinusoidTasks(6, 10),
        steps=60,
        tasks_per_step=8,
        outer_lr=1e-2,
        progress=False,
    )
    assert evaluate(learner, SinusoidTasks(6, 10), 50, metric=mse).mean < before
