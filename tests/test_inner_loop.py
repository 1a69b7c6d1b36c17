"""Properties of the inner-loop engine: engine = per-task loop over the untouched model
= finite differences, for every layer type; and its errors."""

import copy
import functools
import math
import pickle
import random
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metalearn_book.foundations.bilevel import LinearTasks, QuadraticAnswer
from metalearn_book.foundations.bilevel import cross_entropy_per_task
from metalearn_book.foundations.bilevel import finite_differences, mse_per_task
from metalearn_book.foundations.bilevel import relative_difference
from metalearn_book.foundations.inner_loop import SGD, Adam, InnerLoop, PeakMemory
from metalearn_book.foundations.inner_loop import adapt_in_a_loop, rate_table
from metalearn_book.foundations.inner_loop import steps_to_walk
from metalearn_book.foundations.task_models import predict_one, prediction_of
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from layers import CASES, D, VECTORS, build, draw, flat, generator, network, sines
from shared import double, gen, sinusoids


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "These tensors are tiny: several threads would only wait for each other."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights_of(x):
    w = torch.ones(2, 4, dtype=torch.float64)
    if isinstance(x, dict) and "attention_mask" in x:
        w[x["attention_mask"].min(-1).values == 0] = (
            0.5  # padded sentences count, with another weight
        )
    return w


def loss_with(pad):
    """A loss that needs no labels; logits at padded positions, which no model promises,
    are left out."""

    def loss(prediction, y, mask=None):
        e = (prediction - 0.3) ** 2
        if pad is not None and e.dim() == 4:
            p = pad if len(pad) == len(e) else pad[: len(e)]
            e = e * p[..., None]
        return (e.flatten(2).mean(2) * y).mean(1)

    return loss


MODES = [
    {"memory": m, "tasks_at_once": n, "states": 1}
    for m in ("store", "checkpoint", "adjoint")
    for n in (1, 2)
]


def engine_objective(loop, tasks, loss):
    return loss(loop.adapt(tasks.support)(tasks.query.x), tasks.query.y).mean()


def engine_gradient(loop, tasks, loss):
    return flat(
        torch.autograd.grad(
            engine_objective(loop, tasks, loss),
            [p for p in loop.parameters() if p.requires_grad],
        )
    )


def loop_gradient(model, tasks, losses, **options):
    "Per-task Python loop; losses[b] is the loss of task b."
    total = 0.0
    for b in range(len(tasks)):
        (params,) = adapt_in_a_loop(model, losses[b], tasks.support[b], **options)
        q = tasks.query[b]
        total = total + losses[b](
            predict_one(model, params, q.x), q.y, q.mask
        ).sum() / len(tasks)
    return flat(
        torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad])
    )


def slope(fn, params, direction, step=1e-6):
    values = []
    for sign in (1, -2):
        for p, v in zip(params, direction):
            p.data.add_(v, alpha=sign * step)
        values.append(fn().item())
    for p, v in zip(params, direction):
        p.data.add_(v, alpha=step)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("name", CASES)
def test_meta_gradient_of_every_layer(name):
    make, x = CASES[name]
    model = build(make)
    stock = copy.deepcopy(model)
    if hasattr(stock, "set_attn_implementation"):
        stock.set_attn_implementation("eager")
    if name == "encoder_inside":
        stock.encoder.set_attn_implementation("eager")
    examples = Examples(x, weights_of(x))
    tasks, pad = (
        TaskBatch(examples, examples),
        x.get("attention_mask") if isinstance(x, dict) else None,
    )
    reference = loop_gradient(
        stock,
        tasks,
        [loss_with(None if pad is None else pad[b : b + 1]) for b in range(2)],
        inner_lr=0.1,
        inner_steps=2,
    )
    loop, loss = (
        # this loss knows the padding of task b by its place in the batch, so that it
        # can't be compared with task b alone; the loops below are
        InnerLoop(
            model, loss_with(pad), inner_lr=0.1, inner_steps=2, check=pad is None
        ),
        loss_with(pad),
    )
    ours = engine_gradient(loop, tasks, loss)
    assert (ours - reference).norm() <= 1e-11 * reference.norm(), "engine and loop"

    params = list(model.parameters())
    direction = [torch.randn(p.shape, generator=generator(4)).double() for p in params]
    expected = slope(lambda: engine_objective(loop, tasks, loss), params, direction)
    assert torch.dot(ours, flat(direction)).item() == pytest.approx(
        expected, rel=1e-6
    ), "engine and finite differences"

    def loss_of_chunk(prediction, y, mask=None):
        """The same loss, with the padding handed over in y, so that it may see any of
        the tasks."""
        return loss_with(y[..., 1:] if y.shape[-1] > 1 else None)(prediction, y[..., 0])

    with_padding = (
        examples.y[..., None]
        if pad is None
        else torch.cat([examples.y[..., None], pad.double()], -1)
    )
    for mode in MODES:
        other, both = (
            InnerLoop(model, loss_of_chunk, inner_lr=0.1, inner_steps=2, **mode),
            TaskBatch(*[Examples(x, with_padding)] * 2),
        )
        found = flat(torch.autograd.grad(other.outer_loss(both), params))
        assert (found - ours).norm() <= 1e-10 * ours.norm(), mode
    loop.memory = "checkpoint"
    with torch.no_grad():
        quiet = loop.adapt(examples).params
    assert all(
        torch.allclose(quiet[n], p, rtol=1e-12, atol=1e-14)
        for n, p in loop.adapt(examples).params.items()
    )
    assert not any(p.requires_grad for p in quiet.values())


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9), Adam()], ids=str)
@pytest.mark.parametrize("adapt", [None, "2.*", ["0.weight", "2.bias"]], ids=str)
def test_optimizers_and_choice_of_parameters(optimizer, adapt):
    model, tasks = network(), sines()
    options = dict(adapt=adapt, inner_lr=0.05, inner_steps=4, optimizer=optimizer)
    ours = engine_gradient(
        InnerLoop(model, mse_per_task, **options), tasks, mse_per_task
    )
    reference = loop_gradient(model, tasks, [mse_per_task] * 3, **options)
    assert (ours - reference).norm() <= 1e-11 * reference.norm()


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (SGD(), lambda p: torch.optim.SGD(p, lr=0.05)),
        (SGD(0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        (Adam(), lambda p: torch.optim.Adam(p, lr=0.05)),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_forward_trajectory_is_that_of_torch_optim(ours, theirs):
    tasks, start = sines(), network()
    fitted = (
        InnerLoop(start, mse_per_task, inner_lr=0.05, inner_steps=10, optimizer=ours)
        .adapt(tasks.support)
        .params
    )
    for b in range(3):
        model = copy.deepcopy(start)
        opt = theirs(model.parameters())
        for _ in range(10):
            opt.zero_grad()
            F.mse_loss(model(tasks.support.x[b]), tasks.support.y[b]).backward()
            opt.step()
        for name, p in model.named_parameters():
            assert torch.allclose(fitted[name][b], p, rtol=1e-9, atol=1e-12)


def test_adam_has_a_finite_meta_gradient_where_a_unit_is_dead():
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    model[0].bias.data[0], model[0].weight.data[0] = -100.0, 0.0
    g = engine_gradient(
        InnerLoop(model, mse_per_task, inner_lr=0.01, inner_steps=3, optimizer=Adam()),
        sines(),
        mse_per_task,
    )
    assert torch.isfinite(g).all()


@pytest.mark.parametrize(
    "kind, shape",
    [
        (True, (1, 1)),
        ("scalar", (1, 1)),
        ("tensor", (1, 4)),
        ("step", (3, 1)),
        ("tensor_step", (3, 4)),
    ],
)
def test_learned_rates_have_the_gradient_of_finite_differences(kind, shape):
    loop, tasks = (
        InnerLoop(network(), mse_per_task, inner_lr=0.05, inner_steps=3, learn_lr=kind),
        sines(),
    )
    assert loop.inner_lr.shape == shape
    (ours,) = torch.autograd.grad(
        engine_objective(loop, tasks, mse_per_task), loop.inner_lr
    )

    def objective(rates):
        loop.inner_lr.data = rates
        return engine_objective(loop, tasks, mse_per_task)

    assert (
        relative_difference(
            ours, finite_differences(objective, loop.inner_lr.detach().clone())
        )
        < 1e-6
    )


def test_rates_given_by_step_and_by_tensor():
    tasks, model = sines(), network()
    by_step = (
        InnerLoop(model, mse_per_task, inner_lr=[0.1, 0.0, 0.02], inner_steps=3)
        .adapt(tasks.support)
        .params
    )
    first = InnerLoop(model, mse_per_task, inner_lr=0.1).adapt(tasks.support)
    second = {n: p.detach() for n, p in first.params.items()}
    params = {n: p.requires_grad_() for n, p in second.items()}
    loss = mse_per_task(
        first.loop.predict(params, tasks.support.x), tasks.support.y
    ).sum()
    for (n, p), g in zip(
        params.items(), torch.autograd.grad(loss, list(params.values()))
    ):
        assert torch.allclose(by_step[n], p - 0.02 * g)
    by_tensor = (
        InnerLoop(model, mse_per_task, inner_lr={"0.*": 0.0, "*": 0.1})
        .adapt(tasks.support)
        .params
    )
    assert torch.equal(by_tensor["0.weight"][1], model[0].weight) and torch.allclose(
        by_tensor["2.weight"], first.params["2.weight"]
    )
    with pytest.raises(ValueError, match="one for each step"):
        rate_table([0.1], ["a"], 2)
    with pytest.raises(ValueError, match="no rate for 'b'"):
        rate_table({"a": 0.1}, ["a", "b"], 2)
    with pytest.raises(ValueError, match="learn_lr='each'"):
        InnerLoop(model, mse_per_task, learn_lr="each")


def test_first_order_is_the_query_gradient_at_the_adapted_point():
    model, tasks = network(), sines()
    ours = engine_gradient(
        InnerLoop(model, mse_per_task, inner_lr=0.1, inner_steps=3, first_order=True),
        tasks,
        mse_per_task,
    )
    total = 0
    for b in range(3):
        (fit,) = adapt_in_a_loop(
            model, mse_per_task, tasks.support[b], inner_lr=0.1, inner_steps=3
        )
        fit = {n: p.detach().requires_grad_() for n, p in fit.items()}
        q = tasks.query[b]
        total = (
            total
            + flat(
                torch.autograd.grad(
                    mse_per_task(predict_one(model, fit, q.x), q.y).sum(),
                    list(fit.values()),
                )
            )
            / 3
        )
    assert torch.allclose(ours, total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_closed_form_of_quadratics(steps):
    tasks, phi = LinearTasks(dim=3).sample(7, generator(2)), draw(3)
    answer, model = (
        QuadraticAnswer(tasks, 0.2, steps),
        nn.Linear(3, 1, bias=False).double(),
    )
    model.weight.data = phi[None].clone()
    loop = InnerLoop(model, mse_per_task, inner_lr=0.2, inner_steps=steps)
    assert torch.allclose(
        loop.adapt(tasks.support).params["weight"][:, 0],
        answer.adapted(phi),
        rtol=1e-10,
    )
    assert torch.allclose(
        engine_gradient(loop, tasks, mse_per_task),
        answer.meta_gradient(phi),
        rtol=1e-10,
    )
    loop.first_order = True
    assert torch.allclose(
        engine_gradient(loop, tasks, mse_per_task),
        answer.meta_gradient(phi, True),
        rtol=1e-10,
    )


def test_masked_examples_do_not_count():
    model, tasks = network(), sines()
    s, mask = tasks.support, torch.tensor([[1, 1, 1, 0, 0]] * 3).bool()
    spoiled = Examples(s.x.clone(), s.y.clone(), mask)
    spoiled.y[:, 3:] = 1e6
    short = Examples(s.x[:, :3], s.y[:, :3])
    a, b = (
        InnerLoop(model, mse_per_task, inner_lr=0.1).adapt(e).params
        for e in (spoiled, short)
    )
    assert all(torch.allclose(a[n], b[n]) for n in a)


def test_dropout_differs_between_tasks_in_training_and_is_off_in_evaluation():
    model = nn.Sequential(nn.Linear(D, D), nn.Dropout(0.5), nn.Linear(D, 1)).double()
    same = Examples(
        VECTORS[:1].expand(2, -1, -1).contiguous(),
        draw(1, 4, 1).expand(2, -1, -1).contiguous(),
    )
    a, b = InnerLoop(model.train(), mse_per_task).adapt(same).losses[0]
    assert not torch.isclose(a, b)
    a, b = InnerLoop(model.eval(), mse_per_task).adapt(same).losses[0]
    assert torch.isclose(a, b)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.RReLU()], ids=["drop", "slope"])
def test_steps_that_are_walked_again_draw_the_same(layer):
    model = nn.Sequential(nn.Linear(1, 8), layer, nn.Linear(8, 1)).double().train()
    tasks, grads = sines(), []
    for memory in ("store", "checkpoint", "adjoint"):
        torch.manual_seed(5)
        options = {"inner_lr": 0.1, "inner_steps": 3, "memory": memory}
        loop = InnerLoop(model, mse_per_task, **options)
        grads.append(engine_gradient(loop, tasks, mse_per_task))
    for other in grads[1:]:
        assert torch.allclose(grads[0], other, rtol=1e-12)


def test_frozen_parameters_get_no_gradient():
    model = network()
    model[0].weight.requires_grad_(False)
    loop = InnerLoop(model, mse_per_task)
    assert "0.weight" not in loop.adapted
    engine_objective(loop, sines(), mse_per_task).backward()
    assert model[0].weight.grad is None and model[2].weight.grad is not None


def test_errors_say_what_to_do():
    model, tasks = network(), sines()
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        InnerLoop(model, mse_per_task, adapt="head.*")
    with pytest.raises(ValueError, match="inner_steps must be 0 or more"):
        InnerLoop(model, mse_per_task, inner_steps=-1)
    with pytest.raises(ValueError, match="unused='maybe'"):
        InnerLoop(model, mse_per_task, unused="maybe")
    spoiled = tasks.support.map(torch.clone)
    spoiled.y[2, 0] = float("inf")
    with pytest.raises(RuntimeError, match="task 2 is inf before inner step 0"):
        InnerLoop(model, mse_per_task).adapt(spoiled)
    assert not torch.isfinite(
        InnerLoop(model, mse_per_task, check_finite=False).adapt(spoiled).losses[0][2]
    )
    with pytest.raises(RuntimeError, match="before inner step [1-9]"):
        InnerLoop(model, mse_per_task, inner_lr=1e9, inner_steps=30).adapt(
            tasks.support
        )
    with pytest.raises(ValueError, match="one loss for each task"):
        InnerLoop(model, lambda p, y, m: ((p - y) ** 2).mean()).adapt(tasks.support)
    with pytest.raises(ValueError, match="they must agree"):
        InnerLoop(model, mse_per_task).adapt(
            Examples(tasks.support.x, tasks.support.y[..., 0])
        )
    with torch.inference_mode(), pytest.raises(RuntimeError, match="torch.no_grad"):
        InnerLoop(model, mse_per_task).adapt(tasks.support)
    with pytest.raises(ValueError, match="no vmap rule"):
        InnerLoop(nn.LSTM(3, 3), mse_per_task)
    with pytest.raises(ValueError, match="give predict_fn="):
        prediction_of((torch.zeros(1), torch.zeros(1)))


def test_parameters_without_gradient():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.used(x)

    model = Half().double()
    with pytest.raises(RuntimeError, match="idle.weight.*leave them out"):
        InnerLoop(model, mse_per_task).adapt(sines().support)
    params = InnerLoop(model, mse_per_task, unused="zero").adapt(sines().support).params
    assert torch.equal(params["idle.weight"][2], model.idle.weight)


def test_peak_memory_counts_views_once_and_repeats():
    def work():
        with PeakMemory() as m:
            engine_objective(
                InnerLoop(network(), mse_per_task, inner_steps=5), sines(), mse_per_task
            ).backward()
        return m.peak

    work()
    assert work() == work() > 0
    with PeakMemory() as m:
        a = torch.zeros(100)
        b = a[10:]
        assert m.live == 400
        del a
        assert m.live == 400
        del b
        assert m.live == 0


def test_an_engine_trains_moves_and_copies_like_any_module():
    loop = InnerLoop(network(), mse_per_task, learn_lr="tensor", inner_steps=2)
    other = InnerLoop(network(7), mse_per_task, learn_lr="tensor", inner_steps=2)
    other.load_state_dict(loop.state_dict())
    tasks = sines()
    assert torch.equal(
        engine_objective(loop, tasks, mse_per_task),
        engine_objective(other, tasks, mse_per_task),
    )
    twin = copy.deepcopy(loop).float()
    single = TaskBatch(
        tasks.support.map(lambda t: t.float()), tasks.query.map(lambda t: t.float())
    )
    assert (
        twin.inner_lr.dtype == torch.float32
        and engine_objective(twin, single, mse_per_task).dtype == torch.float32
    )
    assert functional_call(loop.model, {}, (tasks.query.x[0],)).shape == (5, 1)


@pytest.mark.parametrize("steps", [1, 2, 5, 13, 40])
@pytest.mark.parametrize("states", [1, 3, 10])
def test_the_sweep_equals_the_stored_graph(steps, states):
    model, tasks = network(), sines()
    expected = engine_gradient(
        InnerLoop(model, mse_per_task, inner_lr=0.05, inner_steps=steps),
        tasks,
        mse_per_task,
    )
    found = engine_gradient(
        InnerLoop(
            model,
            mse_per_task,
            inner_lr=0.05,
            inner_steps=steps,
            memory="adjoint",
            states=states,
        ),
        tasks,
        mse_per_task,
    )
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("optimizer", [SGD(0.9), Adam()], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"learn_lr": "tensor_step"},
        {"adapt": "2.*", "learn_lr": True},
        {"unused": "zero"},
    ],
    ids=str,
)
def test_the_sweep_reaches_optimizer_states_rates_and_shared_parameters(
    optimizer, options
):
    tasks, grads = sines(), []
    for memory in ("store", "adjoint"):
        loop = InnerLoop(
            network(),
            mse_per_task,
            inner_lr=0.05,
            inner_steps=6,
            optimizer=optimizer,
            memory=memory,
            states=2,
            **options,
        )
        grads.append(
            flat(
                torch.autograd.grad(
                    loop.outer_loss(tasks),
                    [p for p in loop.parameters() if p.requires_grad],
                )
            )
        )
    assert torch.allclose(*grads, rtol=1e-9, atol=1e-13)


def test_the_sweep_passes_a_gradient_to_the_inputs_and_leaves_the_random_state_alone():
    grads, tasks, model = (
        [],
        sines(),
        nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        .double()
        .train(),
    )
    for memory in ("store", "adjoint"):
        torch.manual_seed(3)
        x = tasks.support.x.clone().requires_grad_()
        loop = InnerLoop(
            model, mse_per_task, inner_lr=0.05, inner_steps=9, memory=memory, states=2
        )
        loss = mse_per_task(
            loop.adapt(Examples(x, tasks.support.y))(tasks.query.x), tasks.query.y
        ).mean()
        before = torch.get_rng_state()
        grads.append(torch.autograd.grad(loss, x)[0])
        assert torch.equal(before, torch.get_rng_state())
    assert torch.allclose(*grads, rtol=1e-10, atol=1e-14) and grads[0].abs().sum() > 0


def test_walks_are_planned_with_the_fewest_repeats():
    @functools.cache
    def fewest(n, s):
        "Steps walked forward in all, by trying every first stretch."
        if n == 1:
            return 0
        if s == 0:
            return n * (n - 1) // 2
        return min(m + fewest(n - m, s - 1) + fewest(m, s) for m in range(1, n))

    def undo(first, last, free, walked):
        while last - first > 1:
            middle = first + steps_to_walk(last - first, free)
            for t in range(first, middle):
                walked[t] += 1
            undo(middle, last, max(free - 1, 0), walked)
            last = middle

    for s in (0, 1, 3, 10):
        for n in range(2, 60):
            walked = [0] * n
            undo(0, n, s, walked)
            assert sum(walked) == fewest(n, s), (n, s)
            assert max(walked) <= next(
                r for r in range(n) if math.comb(s + r + 1, r) >= n
            ), (n, s)


def test_memory_of_the_sweep_is_flat():
    torch.manual_seed(0)
    model, tasks, peaks = (
        nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1)),
        SinusoidTasks(k_shot=200).sample(4, generator(1)),
        {},
    )
    for memory, steps in (("store", 20), ("adjoint", 20), ("adjoint", 100)):
        loop = InnerLoop(model, mse_per_task, inner_steps=steps, memory=memory)
        with PeakMemory() as used:
            loop.outer_loss(tasks).backward()
        peaks[memory, steps] = used.peak
    assert (
        peaks["adjoint", 100] < 1.05 * peaks["adjoint", 20]
        and peaks["adjoint", 20] < peaks["store", 20] / 4
    )


@pytest.mark.parametrize("outside", [False, True])
def test_a_step_of_the_sweep_frees_its_graph(outside, monkeypatch):
    "Kept only where the loss took a tensor from outside; it cost a fifth of the peak."
    kept, grad = [], torch.autograd.grad

    def watched(*args, **options):
        if "retain_graph" in options:
            kept.append(options["retain_graph"])
        return grad(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    made = 2 * torch.ones((), requires_grad=True)
    scale = made if outside else 2.0
    loss = lambda p, y, m=None: scale * ((p - y) ** 2).mean((1, 2))
    loop = InnerLoop(plain(), loss, inner_steps=3, memory="adjoint")
    loop.outer_loss(SinusoidTasks().sample(4, generator(1))).backward()
    assert len(kept) >= 3 and set(kept) == {outside}


def test_chunks_hold_one_graph_at_a_time():
    torch.manual_seed(0)
    model, tasks = (
        nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 100, 3),
        ),
        None,
    )
    x, y = torch.randn(8, 6, 1, 12, 12), torch.randint(0, 3, (8, 6))
    tasks = TaskBatch(Examples(x, y), Examples(x, y))
    assert (
        InnerLoop(model).chunk_size(8) == 1
        and InnerLoop(network(), mse_per_task).chunk_size(8) == 8
        and InnerLoop(model, tasks_at_once=99).chunk_size(8) == 8
    )
    peaks, grads = [], []
    for size in (8, 1):
        loop = InnerLoop(model, inner_lr=0.1, tasks_at_once=size)
        with PeakMemory() as used:
            grads.append(
                flat(
                    torch.autograd.grad(
                        loop.outer_loss(tasks), list(model.parameters())
                    )
                )
            )
        peaks.append(used.peak)
    assert torch.allclose(*grads, atol=1e-5) and peaks[1] < peaks[0] / 4
    with torch.no_grad():
        assert loop.outer_loss(tasks).item() == pytest.approx(
            InnerLoop(model, inner_lr=0.1, tasks_at_once=8).outer_loss(tasks).item(),
            rel=1e-5,
        )


def test_errors_of_the_modes():
    with pytest.raises(ValueError, match="'store', 'checkpoint', 'adjoint'"):
        InnerLoop(network(), mse_per_task, memory="little")
    for option in ("states", "tasks_at_once"):
        with pytest.raises(ValueError, match="must be at least 1"):
            InnerLoop(network(), mse_per_task, **{option: 0})


def test_too_little_memory_says_what_needs_less():
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.weight + torch.empty(2**55)[0]

    with pytest.raises(RuntimeError, match="tasks_at_once=1 .* memory='adjoint'"):
        InnerLoop(Greedy(), mse_per_task).outer_loss(
            SinusoidTasks().sample(2, generator())
        )


def test_a_function_without_second_derivative_is_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return Once.apply(x * self.weight)

    task = SinusoidTasks().sample(1, generator())
    with pytest.raises(RuntimeError, match="no second derivative.*first_order=True"):
        InnerLoop(Layer(), mse_per_task).outer_loss(task)
    InnerLoop(Layer(), mse_per_task, first_order=True).outer_loss(task).backward()


def test_a_single_task_carries_no_task_axis_inside():
    """The parameters of a predictor have the task axis whether or not the inner loop
    needed it, and the numbers are those of a batch."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    ).double()
    loop = InnerLoop(net, cross_entropy_per_task, inner_lr=0.1, inner_steps=2)
    tasks = double(
        TaskBatch(
            *(
                Examples(
                    torch.randn(3, 4, 1, 6, 6, generator=gen(k)),
                    torch.arange(4).remainder(2).expand(3, -1),
                )
                for k in (1, 2)
            )
        )
    )
    together = loop.adapt(tasks.support)
    for b in range(3):
        alone = loop.adapt(tasks[b : b + 1].support)
        for n, p in alone.params.items():
            assert p.shape == (1, *net.get_parameter(n).shape)
            torch.testing.assert_close(p[0], together.params[n][b])
        torch.testing.assert_close(
            alone(tasks.query.x[b : b + 1])[0], together(tasks.query.x)[b]
        )


def test_adjoint_refuses_a_state_that_depends_on_the_start():
    @dataclass(frozen=True)
    class Remembers(SGD):
        def init(self, params):
            return {"start": params}

    loop = InnerLoop(
        nn.Linear(2, 1),
        mse_per_task,
        inner_steps=2,
        memory="adjoint",
        optimizer=Remembers(),
    )
    support = Examples(torch.randn(1, 3, 2), torch.randn(1, 3, 1))
    with pytest.raises(
        ValueError, match="first state of Remembers depends on the start"
    ):
        loop.adapt(support)
    with torch.no_grad():
        loop.adapt(support)


@pytest.mark.parametrize("options", [{"first_order": True}, {"inner_steps": 0}])
def test_parameters_that_share_a_gradient_tensor_are_summed_over_chunks_once(options):
    """PyTorch hands the same tensor to a and b in a + b; adding the next chunk to it in
    place would count each twice."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.w = (
                nn.Parameter(torch.ones(3)),
                nn.Parameter(torch.ones(3)),
                nn.Linear(2, 3),
            )

        def forward(self, x):
            return self.w(x) + (self.a + self.b)

    net = Sum().double()
    tasks = double(
        TaskBatch(
            *(
                Examples(
                    torch.randn(4, 5, 2, generator=gen(k)),
                    torch.randn(4, 5, 3, generator=gen(k + 2)),
                )
                for k in (0, 1)
            )
        )
    )
    found = []
    for at_once in (4, 1):
        net.zero_grad()
        InnerLoop(
            net,
            mse_per_task,
            inner_lr=0.1,
            adapt="w.*",
            tasks_at_once=at_once,
            **options,
        ).outer_loss(tasks).backward()
        found.append(torch.stack([net.a.grad, net.b.grad]))
    torch.testing.assert_close(found[1], found[0])


def texts(n_tasks=3):
    ids = torch.randint(0, 4, (n_tasks, 5, 6), generator=gen(1))
    examples = Examples(ids, torch.randn(n_tasks, 5, 1, generator=gen(2)).double())
    return TaskBatch(examples, examples)


class Texts(nn.Module):
    "The mean vector of a text whose padding is word 0."

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 1)

    def forward(self, ids):
        return self.head(self.words(ids).tanh().mean(-2))


class Branches(nn.Linear):
    "Its way depends on the values: not for all tasks at once."

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum() > 0 else 0.5)


class FewerDimensions(nn.Linear):
    "Another answer for a task axis that it can see; none for one that it can't."

    def forward(self, x):
        return super().forward(x) * (
            2.0 if torch._C._functorch.is_batchedtensor(self.weight) else 1.0
        )


def plain(act=None):
    torch.manual_seed(0)
    first, second = (act, act) if act else (nn.Tanh(), nn.Tanh())
    layers = nn.Linear(1, 8), first, nn.Linear(8, 8), second, nn.Linear(8, 1)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    "make, tasks",
    [
        (lambda: plain(nn.ReLU()), sines),
        (lambda: nn.Sequential(nn.Linear(1, 4), *[nn.Linear(4, 4)] * 2), sines),
        (Texts, texts),
        (lambda: nn.Sequential(Branches(1, 1)), sines),
        (lambda: nn.Sequential(nn.Linear(1, 4), FewerDimensions(4, 1)), sines),
    ],
    ids=["activation twice", "layer twice", "padding_idx", "branch", "looks at axis"],
)
def test_what_is_wrong_for_all_tasks_at_once_runs_for_one_after_another(make, tasks):
    torch.manual_seed(0)
    model, tasks = make().double(), tasks()
    loss = lambda p, y, m=None: ((p - y[..., :1]) ** 2).mean((1, 2))
    stock, b = copy.deepcopy(model), len(tasks)
    reference = loop_gradient(stock, tasks, [loss] * b, inner_lr=0.1, inner_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a repaired model needs no warning
        for mode in MODES:
            loop = InnerLoop(model, loss, inner_lr=0.1, inner_steps=2, **mode)
            found = torch.autograd.grad(
                loop.outer_loss(tasks), list(model.parameters())
            )
            assert (flat(found) - reference).norm() <= 1e-10 * reference.norm(), mode


def test_a_model_that_falls_back_says_why():
    with pytest.warns(UserWarning, match="Branches.*one after another"):
        loop = InnerLoop(Branches(1, 1).double(), mse_per_task)
        loop.adapt(sines().support)
    with pytest.warns(UserWarning, match="differ by.*one after another"):
        layers = nn.Linear(1, 4), FewerDimensions(4, 1)
        InnerLoop(nn.Sequential(*layers).double(), mse_per_task).outer_loss(sines())


class Calls(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Drifts(nn.Linear):
    def __init__(self, *size):
        super().__init__(*size)
        self.register_buffer("drift", torch.zeros(()))

    def forward(self, x):
        self.drift = self.drift + 1.0
        return super().forward(x) * (1 + self.drift / 10)


class OwnNoise(nn.Linear):
    def __init__(self, *size):
        super().__init__(*size)
        self.generator = torch.Generator()

    def forward(self, x):
        return super().forward(x) + torch.rand((), generator=self.generator)


class PythonNoise(nn.Linear):
    def forward(self, x):
        return super().forward(x) * random.random()


outside = [0]


class CountsOutside(nn.Linear):
    def forward(self, x):
        outside[0] += 1
        return super().forward(x) * (1 + 0.1 * outside[0])


def spectral(*size):
    return nn.utils.parametrizations.spectral_norm(nn.Linear(*size))


@pytest.mark.parametrize(
    "layer, name",
    [
        (Calls, "2.calls"),
        (Drifts, "2.drift"),
        (OwnNoise, "2.generator"),
        (PythonNoise, "Python's random"),
        (CountsOutside, "something outside"),
    ],
)
@pytest.mark.parametrize("memory", ["checkpoint", "adjoint"])
def test_a_step_that_can_not_be_walked_again_is_refused(layer, name, memory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), layer(6, 6), nn.Linear(6, 1))
    options = {"inner_steps": 2, "tasks_at_once": 1}
    loop = InnerLoop(model.double(), mse_per_task, memory=memory, **options)
    with pytest.raises(RuntimeError, match=f"{memory}.*{name}"):
        loop.outer_loss(sines())
    InnerLoop(model, mse_per_task, **options).outer_loss(sines()).backward()


def test_spectral_norm_is_refused_in_training_and_runs_in_evaluation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), spectral(6, 1)).double()
    for memory in ("store", "checkpoint", "adjoint"):
        with pytest.raises(ValueError, match="2.*changes itself with every forward"):
            InnerLoop(model.train(), mse_per_task, memory=memory).outer_loss(sines())
        InnerLoop(model.eval(), mse_per_task, memory=memory).outer_loss(sines())


def test_the_check_leaves_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 6), nn.Dropout(0.5), Drifts(6, 6), Calls(6, 1))
    model.double(), model.append(nn.BatchNorm1d(1).double())
    twin, results = copy.deepcopy(model), []
    for m, check in ((model, True), (twin, False)):
        torch.manual_seed(1), random.seed(1)
        loop = InnerLoop(m, mse_per_task, inner_steps=2, check=check)
        loop.outer_loss(sines()).backward()
        grads = [p.grad for p in m.parameters()]
        state = [m[2].drift, torch.tensor(m[3].calls), torch.get_rng_state()]
        results.append([*grads, *m.buffers(), *state])
    assert all(map(torch.equal, *results))
    for other in (copy.deepcopy(loop), pickle.loads(pickle.dumps(InnerLoop(plain())))):
        assert list(other.state_dict())
    assert "before_changes" not in "".join(InnerLoop(model).state_dict())


def test_each_kind_of_batch_is_checked_once(monkeypatch):
    seen = []
    check = InnerLoop.compare_predictions
    monkeypatch.setattr(
        InnerLoop, "compare_predictions", lambda s, *a: seen.append(0) or check(s, *a)
    )
    loop = InnerLoop(plain().double(), mse_per_task, inner_steps=2)
    for n in (3, 5):
        for k in (4, 6):
            loop.outer_loss(sinusoids(n, k_shot=k))
    with torch.no_grad():
        loop.adapt(sines().support)(sines().query.x)
    assert len(seen) == 1
    loop.outer_loss(sinusoids(1))
    loop.eval().outer_loss(sines())
    assert len(seen) == 3
    with torch.autocast("cpu", torch.bfloat16):
        InnerLoop(plain(), mse_per_task).outer_loss(SinusoidTasks().sample(3, gen()))
    InnerLoop(plain(), mse_per_task, check=False).outer_loss(
        SinusoidTasks().sample(3, gen())
    )
    assert len(seen) == 4


def test_a_loss_that_mixes_tasks_is_refused():
    loss = lambda p, y, m=None: ((p - y) ** 2).mean().expand(len(p))
    with pytest.raises(RuntimeError, match="own predictions and labels only"):
        InnerLoop(plain().double(), loss).adapt(sines().support)


class Centres(nn.Linear):
    "Subtracts the mean of all examples of a task, padded ones too."

    def forward(self, x):
        return super().forward(x - x.mean(0))


def padded_tasks(part, content=0.0):
    "Two tasks, the second with three real examples of five in `part`."
    x, y = draw(2, 5, 4), torch.randint(0, 3, (2, 5), generator=gen())
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    full = Examples(x, y)
    padded = Examples(torch.where(mask[..., None], x, content), y, mask)
    # contents that `Examples` would overwrite
    object.__setattr__(padded, "x", torch.where(mask[..., None], x, content))
    return TaskBatch(*((padded, full) if part == "support" else (full, padded)))


@pytest.mark.parametrize("part", ["support", "query"])
def test_padding_that_is_seen_is_refused(part):
    tasks = padded_tasks(part)
    with pytest.raises(RuntimeError, match="masked examples change the predictions"):
        InnerLoop(Centres(4, 3).double()).outer_loss(tasks)
    deaf = lambda p, y, mask=None: cross_entropy_per_task(p, y)
    with pytest.raises(RuntimeError, match="masked examples change the loss"):
        InnerLoop(nn.Linear(4, 3).double(), deaf).outer_loss(tasks)


@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("mode", [{"tasks_at_once": 2}, {"tasks_at_once": 1},
                                  {"memory": "checkpoint"}, {"memory": "adjoint"}],
                         ids=str)  # fmt: skip
def test_batch_norm_does_not_see_padding(part, mode):
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    norm = nn.Sequential(*layers).double()
    loop = InnerLoop(norm, inner_lr=0.1, inner_steps=2, **mode)
    gradient = lambda losses: flat(torch.autograd.grad(losses, list(norm.parameters())))

    def cut(e, b):  # task b at its own size
        n = 5 if e.mask is None else int(e.mask[b].sum())
        return Examples(e.x[b : b + 1, :n], e.y[b : b + 1, :n])

    zero = padded_tasks(part)
    own = [TaskBatch(cut(zero.support, b), cut(zero.query, b)) for b in range(2)]
    reference = sum(loop.outer_loss(t) for t in own) / 2
    expected = gradient(reference)
    for content in (0.0, 100.0):
        loss = loop.outer_loss(padded_tasks(part, content))
        torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient(loss), expected, rtol=1e-9, atol=1e-12)


def test_a_change_of_the_model_by_make_differentiable_is_seen():
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=9, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=8, projection_dim=4,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(config).double().eval()
    ids = torch.randint(3, 9, (2, 3, 5), generator=gen())
    with torch.no_grad():
        before = torch.stack([model(input_ids=i).text_embeds for i in ids])
    loop = InnerLoop(
        model,
        mse_per_task,
        adapt="text_projection.*",
        predict_fn=lambda o: o.text_embeds,
    )
    try:
        after = loop.adapt(Examples({"input_ids": ids}, before), 0)({"input_ids": ids})
    except RuntimeError as error:
        assert "since it was made differentiable" in str(error)
    else:
        torch.testing.assert_close(after, before)


def test_whatever_the_loss_reaches_gets_its_gradient_in_every_mode():
    "A leaf, labels, inputs, a tensor made of a leaf outside, and an optimizer's."
    tasks, model, results = sines(), plain().double(), []
    for mode in [*MODES, {}]:
        w, z, s = (draw(1, seed=i).abs().requires_grad_() for i in (1, 2, 3))
        x, y = (t.clone().requires_grad_() for t in (tasks.support.x, tasks.support.y))
        q = tasks.query.y.clone().requires_grad_()
        made = 2 * z
        loss = lambda p, y, m=None: made * w.exp() * ((p - y) ** 2).mean((1, 2))

        class Scaled(SGD):
            def step(self, params, grads, state, lr):
                assert all(
                    len(g.shape) == len(params[k].shape) for k, g in grads.items()
                )
                own = [g.flatten(1).norm(dim=1) for g in grads.values()]
                scaled = {
                    k: s * g / (1 + n.view(-1, *[1] * (g.dim() - 1)))
                    for (k, g), n in zip(grads.items(), own)
                }
                return super().step(params, scaled, state, lr)

        options = {"inner_steps": 3, "inner_lr": 0.1, "optimizer": Scaled()} | mode
        batch = TaskBatch(Examples(x * z, y), Examples(tasks.query.x, q))
        value = InnerLoop(model, loss, **options).outer_loss(batch)
        leaves = [w, z, s, x, y, q, *model.parameters()]
        results.append(torch.autograd.grad(value, leaves))
    for grads in results:
        for found, expected in zip(grads, results[-1]):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    assert all(g.abs().sum() > 0 for g in results[-1])

    def objective(labels):
        batch = TaskBatch(Examples((x * z).detach(), labels), batch_query)
        return InnerLoop(model, loss, **options).outer_loss(batch)

    batch_query, y_grad = Examples(tasks.query.x, q.detach()), results[-1][4]
    differences = finite_differences(objective, y.detach())
    torch.testing.assert_close(y_grad, differences, rtol=1e-5, atol=1e-8)


def test_the_parameters_of_a_loss_module_and_of_a_query_loss_get_their_gradient():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, p, y, mask=None):
            return self.w.exp() * ((p - y) ** 2).mean((1, 2))

    results = []
    for mode in MODES:
        loss, v = Loss(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        loop = InnerLoop(plain().double(), loss, inner_lr=0.1, inner_steps=2, **mode)
        query_loss = lambda p, y, m=None: v * mse_per_task(p, y)
        loop.outer_loss(sines(), query_loss).backward()
        results.append(torch.stack([loss.w.grad, v.grad]))
        assert (results[-1] != 0).all()
        torch.testing.assert_close(results[-1], results[0], rtol=1e-10, atol=0)


def test_the_sweep_names_a_leaf_that_a_later_step_reaches():
    scales = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(3)]

    class ByStep:
        def init(self, params):
            return {"t": 0}

        def step(self, params, grads, state, lr):
            scale = scales[state["t"]]
            new = {k: p - lr[k] * scale * grads[k] for k, p in params.items()}
            return new, {"t": state["t"] + 1}

    options = {"inner_steps": 3, "optimizer": ByStep()}
    loop = InnerLoop(plain().double(), mse_per_task, memory="adjoint", **options)
    with pytest.raises(RuntimeError, match="inner step [12] depends on a tensor"):
        loop.outer_loss(sines()).backward()
    for mode in ({}, {"tasks_at_once": 1}, {"memory": "checkpoint"}):
        for scale in scales:
            scale.grad = None
        loop = InnerLoop(plain().double(), mse_per_task, **options, **mode)
        loop.outer_loss(sines()).backward()
        assert all(scale.grad.abs() > 0 for scale in scales)


def test_losses_and_optimizers_of_pytorch_are_refused():
    for loss in (nn.MSELoss(), F.mse_loss, nn.CrossEntropyLoss(), None):
        with pytest.raises(ValueError, match="one value for each task"):
            InnerLoop(network(), loss)
    own = torch.optim.SGD(network().parameters(), lr=0.1)
    for optimizer in (torch.optim.SGD, own, SGD, None):
        with pytest.raises(ValueError, match="inner optimizer is an object with"):
            InnerLoop(network(), mse_per_task, optimizer=optimizer)


def test_rates_steps_and_sets_that_make_no_sense():
    tasks = sines()
    for rate in (-0.1, float("nan"), float("inf"), [0.1, -1.0], {"*": -1.0}):
        with pytest.raises(ValueError, match="finite and 0 or more"):
            InnerLoop(network(), mse_per_task, inner_lr=rate, inner_steps=2)
    with pytest.raises(ValueError, match="'head.*' matches no parameter|'head"):
        InnerLoop(network(), mse_per_task, inner_lr={"head.*": 0.1, "*": 0.1})
    loop = InnerLoop(network(), mse_per_task)
    for steps in (-2, 1.5, True):
        with pytest.raises(ValueError, match="inner_steps must be 0 or more"):
            loop.adapt(tasks.support, steps)
    with pytest.raises(ValueError, match="one example in each"):
        Examples(torch.zeros(3, 0, 1), torch.zeros(3, 0, 1))
    with pytest.raises(ValueError, match="x is a tuple"):
        Examples((tasks.support.x,), tasks.support.y)
    with pytest.raises(ValueError, match="inputs are a tuple"):
        loop.adapt(tasks.support)((tasks.query.x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adam_in_half_precision_with_a_zero_gradient(dtype):
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).to(dtype)
    model[0].bias.data[0], model[0].weight.data[0] = -100.0, 0.0
    tasks = SinusoidTasks().sample(2, gen())
    half = [e.map(lambda t: t.to(dtype)) for e in (tasks.support, tasks.query)]
    loop = InnerLoop(model, mse_per_task, inner_steps=2, optimizer=Adam())
    loop.outer_loss(TaskBatch(*half)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_fixed_rate_is_not_overwritten_by_loaded_weights():
    first = InnerLoop(network(), mse_per_task, inner_lr=0.1)
    second = InnerLoop(network(1), mse_per_task, inner_lr=0.01)
    with pytest.raises(RuntimeError, match="was 0.1 where.*made with 0.01"):
        second.load_state_dict(first.state_dict())
    assert second.inner_lr.item() == pytest.approx(0.01)
    same = InnerLoop(network(1), mse_per_task, inner_lr=0.1)
    same.load_state_dict(first.state_dict())
    learned = InnerLoop(network(1), mse_per_task, inner_lr=0.01, learn_lr=True)
    learned.load_state_dict(first.state_dict())
    assert learned.inner_lr.item() == pytest.approx(0.1)


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9), Adam()])
@pytest.mark.parametrize("n_tasks", [1, 4])
@pytest.mark.parametrize("adapt", [None, "2.*", "*.bias"])
def test_weights_laid_out_are_the_same_weights(optimizer, n_tasks, adapt):
    "A plain stack adapts transposed weights; what comes out has the model's shapes."

    class Looks(InnerLoop):
        "Sees the parameters, so that they keep their shapes."

        def predict_all(self, params, x, mask=None):
            assert all(p.shape[1:] == own[n].shape for n, p in params.items())
            return super().predict_all(params, x, mask)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    own = dict(model.named_parameters())
    x, y = torch.randn(2, n_tasks, 5, 3, dtype=torch.float64)
    tasks = TaskBatch(Examples(x, y), Examples(y, x))
    options = dict(inner_lr=0.1, inner_steps=3, optimizer=optimizer, adapt=adapt)
    loops = [cls(model, mse_per_task, **options) for cls in (InnerLoop, Looks)]
    assert [loop.lays_out(x) for loop in loops] == [True, False]
    own_rule = dataclass(frozen=True)(type("OwnRule", (SGD,), {}))()
    assert not InnerLoop(model, mse_per_task, optimizer=own_rule).lays_out(x)
    laid, kept = (loop.adapt(tasks.support) for loop in loops)
    for n, p in laid.params.items():
        assert p.shape == (n_tasks, *own[n].shape)
        torch.testing.assert_close(p, kept.params[n], rtol=1e-12, atol=1e-14)
    deep = x[:, :, None]  # one axis more, and by one task after another
    torch.testing.assert_close(laid(deep)[:, :, 0], kept(x), rtol=1e-12, atol=1e-14)
    loops[0].one_by_one = True
    torch.testing.assert_close(laid(x), kept(x), rtol=1e-12, atol=1e-14)
    loops[0].one_by_one = False
    ours, theirs = (
        torch.autograd.grad(loop.outer_loss(tasks), list(own.values()))
        for loop in loops
    )
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    hook = model[0].register_forward_hook(lambda module, args, out: 2 * out)
    doubled = [kind(x) for kind in (laid, kept)]
    hook.remove()
    torch.testing.assert_close(*doubled, rtol=1e-12, atol=1e-14)
