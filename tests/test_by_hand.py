"""A copy for one task against the engine and against plain PyTorch loops; clipping,
decay and an early end, in every mode of the engine."""

import copy
import math

import pytest
import torch
from shared import gen
from torch import nn

from metalearn_book.foundations.bilevel import cross_entropy_per_task, mse_per_task
from metalearn_book.foundations.inner_loop import SGD, Adam, InnerLoop
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from metalearn_book.foundations.verification import verify
from metalearn_book.optimization.by_hand import (
    ByHand,
    Clipped,
    OneTask,
    StopWhenFlat,
    WithDecay,
)
from metalearn_book.optimization.maml import MAML


def net(dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)
    return nn.Sequential(*layers).to(dtype)


def batch(n=3):
    wide = lambda e: e.map(lambda v: v.double())
    t = SinusoidTasks(5, 5).sample(n, gen(0))
    return TaskBatch(wide(t.support), wide(t.query))


def squared(one, x, y):
    return (one(x) - y).square().mean()


def by_hand(learner, tasks, steps):
    total = 0.0
    for b in range(len(tasks)):
        one = OneTask(learner)
        for _ in range(steps):
            one.adapt(squared(one, tasks.support.x[b], tasks.support.y[b]))
        total = total + squared(one, tasks.query.x[b], tasks.query.y[b])
    return total / len(tasks)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("adapt", [None, "2.*"])
@pytest.mark.parametrize("optimizer", [SGD(0.9), Adam()])
def test_the_meta_gradient_is_that_of_the_engine(first_order, adapt, optimizer):
    options = dict(adapt=adapt, first_order=first_order, optimizer=optimizer)
    maml = MAML(net(), mse_per_task, inner_lr=[0.1, 0.03], inner_steps=2, **options)
    leaves, tasks = list(maml.parameters()), batch()
    ours = torch.autograd.grad(by_hand(maml, tasks, 2), leaves)
    theirs = torch.autograd.grad(maml(tasks), leaves)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_shared_weights_are_placed_everywhere():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    model, x = Tied().double(), torch.randn(6, 4, generator=gen(1)).double()
    one = OneTask(InnerLoop(model, mse_per_task, inner_lr=0.1))
    plain = copy.deepcopy(model)
    descent = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        one.adapt(one(x).square().mean())
        descent.zero_grad(), plain(x).square().mean().backward(), descent.step()
    torch.testing.assert_close(one(x), plain(x))


def test_nothing_of_the_start_changes():
    loop = InnerLoop(net(), mse_per_task, inner_lr=0.1)
    before = {n: p.clone() for n, p in loop.model.named_parameters()}
    one, tasks = OneTask(loop), batch()
    one.adapt(squared(one, tasks.support.x[0], tasks.support.y[0]))
    other = one.clone()
    other.adapt(squared(other, tasks.support.x[1], tasks.support.y[1]))
    assert (one.steps, other.steps) == (1, 2)
    for n, p in loop.model.named_parameters():
        assert torch.equal(p, before[n]) and p.grad is None
        assert not torch.equal(one.weights[n], other.weights[n])


def test_minibatches_are_those_of_a_plain_loop():
    tasks = batch(1)
    x, y = tasks.support.x[0], tasks.support.y[0]
    loop = InnerLoop(net(), mse_per_task, inner_lr=0.05, optimizer=SGD(0.9))
    one, plain = OneTask(loop), copy.deepcopy(loop.model)
    descent = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for rows in ([0, 1], [2, 3], [4, 0], [1, 2]):
        one.adapt(squared(one, x[rows], y[rows]))
        descent.zero_grad(), squared(plain, x[rows], y[rows]).backward()
        descent.step()
    for n, p in plain.named_parameters():
        torch.testing.assert_close(one.weights[n], p, rtol=1e-12, atol=1e-14)


MISTAKES = {
    "several numbers": (lambda one, loop, x: one(x), "shape"),
    "no tensor": (lambda one, loop, x: 0.5, "one number"),
    "of the model": (lambda one, loop, x: loop.model(x).mean(), "model itself"),
    "no graph": (lambda one, loop, x: one(x).mean().detach(), "no graph"),
    "nan": (lambda one, loop, x: one(x).mean() * math.nan, "nan before"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_loss_that_is_none_is_refused(name):
    loss, words = MISTAKES[name]
    loop = InnerLoop(net(), mse_per_task, inner_lr=0.1)
    one, x = OneTask(loop), batch().support.x[0]
    one.adapt(one(x).square().mean())
    with pytest.raises((ValueError, RuntimeError), match=words):
        one.adapt(loss(one, loop, x))
    assert one.steps == 1


def test_a_loss_from_before_the_last_step_is_refused():
    one, x = OneTask(InnerLoop(net(), mse_per_task)), batch().support.x[0]
    early = one(x).square().mean()
    one.adapt(early)
    with pytest.raises(RuntimeError, match="before the last call"):
        one.adapt(early)


def test_a_part_that_the_loss_does_not_reach_is_named_or_rests():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.a(x)

    x = torch.ones(3, 1)
    with pytest.raises(RuntimeError, match="b.weight"):
        one = OneTask(InnerLoop(Two(), mse_per_task, check=False))
        one.adapt(one(x).square().mean())
    one = OneTask(InnerLoop(Two(), mse_per_task, unused="zero", check=False))
    one.adapt(one(x).square().mean())
    assert torch.equal(one.weights["b.weight"], one.loop.model.b.weight)


class Number(nn.Module):
    "A model that is a number."

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self):
        return self.w


@pytest.mark.parametrize("graph", [True, False])
def test_a_loss_that_names_the_start_is_a_function_of_both(graph):
    loop = InnerLoop(Number(), inner_lr=0.1, check=False)
    with torch.set_grad_enabled(graph):
        one = OneTask(loop)
        with torch.enable_grad():
            one.adapt(one() * loop.model.w)  # d/dphi = theta: 2 - 0.1 * 2
    assert one().item() == pytest.approx(1.8)
    if graph:
        (slope,) = torch.autograd.grad(one(), loop.model.w)
        assert slope.item() == pytest.approx(0.9)


@pytest.mark.parametrize("graph", [True, False])
def test_a_clone_is_another_variable(graph):
    loop = InnerLoop(Number(), inner_lr=0.1, check=False)
    with torch.set_grad_enabled(graph), torch.enable_grad():
        one = OneTask(loop)
        one.adapt(one())  # 1.9
        other = one.clone()
        other.adapt(other() * one())  # 1.9 - 0.1 * 1.9
    assert (one().item(), other().item()) == pytest.approx((1.9, 1.71))


def test_a_copy_with_a_graph_takes_no_step_without_gradients():
    one, x = OneTask(InnerLoop(net(), mse_per_task)), batch().support.x[0]
    loss = one(x).square().mean()
    with torch.no_grad(), pytest.raises(RuntimeError, match="cut it from the start"):
        one.adapt(loss)


def test_test_time_steps_keep_no_graph():
    options = dict(inner_lr=0.01, optimizer=WithDecay(SGD(0.9), 0.1))
    loop, x = InnerLoop(net(), mse_per_task, **options), batch().support.x[0]
    with torch.no_grad():
        one = OneTask(loop)
        with torch.enable_grad():
            for _ in range(3):
                one.adapt(one(x).square().mean())
    kept = [*one.weights.values(), *one._state["v"].values()]
    assert all(v.grad_fn is None for v in kept)


def test_a_loss_may_be_looked_at_before_it_is_used():
    one, x = OneTask(InnerLoop(net(), mse_per_task)), batch().support.x[0]
    loss = one(x).square().mean()
    first = one.gradients(loss)
    one.adapt(loss)
    assert one.steps == 1 and set(first) == set(one.weights)


# --- a learner of an inner loop -----------------------------------------------------


def steps_of_two(one, x, y):
    for _ in range(2):
        one.adapt(squared(one, x, y))


def test_padding_reaches_neither_the_inner_loop_nor_the_loss():
    seen, tasks = [], batch()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    s, q = tasks.support, tasks.query
    padded = TaskBatch(Examples(s.x, s.y, mask), Examples(q.x, q.y, mask))

    def inner(one, x, y):
        seen.append(len(x))
        steps_of_two(one, x, y)

    learner = ByHand(net(), inner, mse_per_task, inner_lr=0.1)
    loss = learner(padded)
    assert seen == [5, 3, 1]
    parts = [
        learner(TaskBatch(Examples(s.x[b : b + 1, :n], s.y[b : b + 1, :n]),
                          Examples(q.x[b : b + 1, :n], q.y[b : b + 1, :n])))
        for b, n in enumerate(seen[:3])
    ]  # fmt: skip
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_options_that_the_function_decides_are_refused():
    for option in ("memory", "tasks_at_once", "states"):
        with pytest.raises(ValueError, match=option):
            ByHand(net(), steps_of_two, **{option: 1})
    with pytest.raises(ValueError, match="inner"):
        ByHand(net(), None)


def test_inputs_by_name_reach_the_model_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, left, right):
            return self.layer(left - right)

    def inner(one, x, y):
        one.adapt(nn.functional.cross_entropy(one(**x), y))

    g = gen(2)
    draw = lambda n: Examples(
        {k: torch.randn(2, n, 2, generator=g) for k in ("left", "right")},
        torch.randint(3, (2, n), generator=g),
    )
    tasks = TaskBatch(draw(4), draw(5))
    options = dict(inner_lr=0.3)
    torch.manual_seed(0)
    model = Named()
    ours = ByHand(model, inner, cross_entropy_per_task, **options)(tasks)
    engine = MAML(copy.deepcopy(model), cross_entropy_per_task, **options)(tasks)
    torch.testing.assert_close(ours, engine)


def test_the_outer_loss_has_one_value_for_each_task():
    mixed = lambda prediction, y, mask: (prediction - y).square().mean()
    learner = ByHand(net(), steps_of_two, mixed, inner_lr=0.1)
    with pytest.raises(ValueError, match="one loss for each task"):
        learner(batch())


def test_a_returned_clone_predicts():
    def tries(one, x, y):
        branch = one.clone()
        branch.adapt(squared(branch, x, y))
        return branch

    plain = lambda one, x, y: one.adapt(squared(one, x, y))
    pair = [
        ByHand(net(), f, mse_per_task, inner_lr=0.1)(batch()) for f in (tries, plain)
    ]
    torch.testing.assert_close(*pair)


def test_rates_by_step_have_a_row_for_each():
    options = dict(inner_lr=[0.1, 0.03], inner_steps=2, learn_lr="step")
    pair = [
        ByHand(net(), steps_of_two, mse_per_task, **options),
        MAML(net(), mse_per_task, **options),
    ]
    leaves = [torch.autograd.grad(m(batch()), list(m.parameters())) for m in pair]
    assert pair[0].loop.inner_lr.shape == (2, 1)
    for a, b in zip(*leaves):
        torch.testing.assert_close(a, b)


# --- options of inner optimizers -----------------------------------------------------

WRAPPED = [
    Clipped(SGD(0.9), 0.3),
    WithDecay(SGD(), 0.1),
    WithDecay(Adam(), 0.1, decoupled=True),
    StopWhenFlat(SGD(), 0.4),
    StopWhenFlat(Clipped(WithDecay(Adam(), 0.1), 0.5), 1e-3),
]


@pytest.mark.parametrize("optimizer", WRAPPED, ids=str)
def test_every_mode_has_the_gradient_of_differences(optimizer):
    loop = InnerLoop(net(torch.float32), mse_per_task, inner_lr=0.05, inner_steps=3,
                     learn_lr="tensor", optimizer=optimizer)  # fmt: skip
    verify(loop, SinusoidTasks(5, 5).sample(3, gen(0))).raise_if_wrong()


@pytest.mark.parametrize("optimizer", WRAPPED, ids=str)
def test_a_task_does_not_depend_on_its_company(optimizer):
    loop = InnerLoop(net(), mse_per_task, inner_lr=0.05, inner_steps=3,
                     optimizer=optimizer)  # fmt: skip
    tasks = batch(4)
    together = loop.adapt(tasks.support).params
    for b in range(4):
        alone = loop.adapt(tasks.support[b]).params
        for n in alone:
            torch.testing.assert_close(together[n][b], alone[n][0])


def test_a_flat_task_rests():
    params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    grads = {"w": torch.tensor([[0.0, 0.0], [3.0, 0.0]]), "b": torch.tensor([0.1, 4.0])}
    rates = {"w": 0.5, "b": torch.tensor(0.25)}
    new, _ = StopWhenFlat(Clipped(SGD(), 1.0), 0.2).step(params, grads, {}, rates)
    expected = torch.tensor([[1.0, 1.0], [1 - 0.5 * 0.6, 1.0]])
    torch.testing.assert_close(new["w"], expected)
    torch.testing.assert_close(new["b"], torch.tensor([1.0, 1 - 0.25 * 0.8]))


def test_nothing_that_is_no_number_rests():
    params, rates = {"w": torch.ones(2, 2)}, {"w": 0.5}
    grads = {"w": torch.tensor([[math.nan, 0.0], [0.0, 0.0]])}
    new, _ = StopWhenFlat(SGD(), 0.2).step(params, grads, {}, rates)
    assert new["w"][0].isnan().any() and torch.equal(new["w"][1], params["w"][1])


def test_half_precision_has_room_for_the_norm():
    half = dict(dtype=torch.float16)
    params, grads = (
        {"w": torch.zeros(1, 4, **half)},
        {"w": torch.full((1, 4), 200.0, **half)},
    )
    new, _ = Clipped(SGD(), 1.0).step(params, grads, {}, {"w": 1.0})
    torch.testing.assert_close(new["w"], torch.full((1, 4), -0.5, **half))
    small = {"w": torch.full((1, 10_000), 1e-4, **half)}
    wide = {"w": torch.zeros(1, 10_000, **half)}
    new, _ = StopWhenFlat(SGD(), 1e-3).step(wide, small, {}, {"w": 1.0})
    assert (new["w"] != 0).all()


def test_what_is_inside_must_be_an_optimizer_that_does_not_rest():
    for kind in (Clipped, WithDecay):
        with pytest.raises(ValueError, match="put StopWhenFlat outside"):
            kind(StopWhenFlat())
    for kind in (Clipped, WithDecay, StopWhenFlat):
        for inside in (0.5, SGD, None):
            with pytest.raises(ValueError, match="inner optimizer, such as"):
                kind(inside)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_odd_numbers_are_refused(value):
    for make in (
        lambda v: Clipped(SGD(), v),
        lambda v: WithDecay(SGD(), v),
        lambda v: StopWhenFlat(SGD(), v),
    ):
        with pytest.raises(ValueError, match="above 0"):
            make(value)
