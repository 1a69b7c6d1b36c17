"""Properties of learned optimizers that the chapter does not have to show."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import SGD, Adam, InnerLoop
from metalearn_book.foundations.tasks import ClassTasks, Examples
from metalearn_book.foundations.tasks import SinusoidTasks, TaskBatch
from metalearn_book.foundations.training import meta_train
from metalearn_book.optimization.learned_optimizer import (
    FitNetworks,
    LearnedRates,
    LearnToOptimize,
    LSTMOptimizer,
    MetaOptimizer,
    Nesterov,
    Problems,
    QuadraticProblems,
    Quadratics,
    RMSprop,
    WithRate,
    as_torch_optimizer,
    chebyshev_rates,
    final_loss,
    optimize,
    preprocess_gradient,
    tune,
    unroll,
)
from shared import gen


def quadratics(n=5, dim=4, seed=0):
    return QuadraticProblems(dim).sample(n, gen(seed)).map(torch.Tensor.double)


def lstm(seed=0, **options):
    torch.manual_seed(seed)
    return LSTMOptimizer(**{"hidden": 4, **options}).double()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


X, Y = (
    torch.randn(20, 3, generator=gen(1), dtype=torch.float64),
    torch.randn(20, 2, generator=gen(2), dtype=torch.float64),
)


def loss_of(model):
    return ((model(X) - Y) ** 2).mean()


def run(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


# --------------------------------------------------------------- problems and unrolling


def test_quadratics_gradient_and_scale():
    problems = quadratics()
    theta = torch.randn(5, 4, generator=gen(3), dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(problems.loss({"theta": theta}).sum(), theta)
    W, y = problems.data["W"], problems.data["y"]
    by_hand = torch.stack([2 * W[b].T @ (W[b] @ theta[b] - y[b]) for b in range(5)])
    torch.testing.assert_close(g, by_hand.detach())
    big = QuadraticProblems(4, size=9.0).sample(5, gen()).map(torch.Tensor.double)
    torch.testing.assert_close(
        big.loss({"theta": theta}),
        9 * problems.loss({"theta": theta}),
        rtol=1e-5,
        atol=1e-5,
    )


def test_problems_slice_move_and_refuse():
    problems = quadratics()
    part = problems[1:3]
    assert len(part) == 2 and torch.equal(
        part.start()["theta"], problems.start()["theta"][1:3]
    )
    assert len(problems.to("cpu")) == 5
    start = problems.start()
    start["theta"] = None
    assert problems.start()["theta"] is not None
    with pytest.raises(
        ValueError, match="must have the shape .B ...., got .3,., while"
    ):
        Problems({"a": torch.zeros(2)}, b=torch.zeros(3))
    with pytest.raises(ValueError, match="dim must be at least 1"):
        QuadraticProblems(0)


@pytest.mark.parametrize("rule", [SGD(), SGD(0.9), Nesterov(0.9), RMSprop(), Adam()])
def test_problems_do_not_influence_each_other(rule):
    problems = quadratics()
    with torch.no_grad():
        together = unroll(WithRate(rule, 0.01), problems, 10)[0]
        alone = torch.cat(
            [unroll(WithRate(rule, 0.01), problems[i : i + 1], 10)[0] for i in range(5)]
        )
    torch.testing.assert_close(together, alone)


def test_unroll_in_two_parts_is_one_run():
    problems, optimizer = quadratics(), lstm()
    with torch.no_grad():
        whole, end, _ = unroll(optimizer, problems, 9)
        first, params, state = unroll(optimizer, problems, 4)
        second, params, _ = unroll(optimizer, problems, 5, params, state)
    torch.testing.assert_close(torch.cat([first[:, :-1], second], 1), whole)
    torch.testing.assert_close(params["theta"], end["theta"])
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        unroll(optimizer, problems, -1)


def test_cut_gradient_equals_replayed_gradients():
    """Without second derivatives the gradients are constants: replaying recorded ones
    gives the same meta-gradient.
    """
    problems, optimizer, recorded = quadratics(), lstm(), []

    class Recorder:
        init = optimizer.init

        def step(self, params, grads, state):
            recorded.append({k: g.detach().clone() for k, g in grads.items()})
            return optimizer.step(params, grads, state)

    loss = unroll(Recorder(), problems, 6)[0][:, 1:].mean()
    ours = torch.autograd.grad(loss, list(optimizer.parameters()))
    params, losses = problems.start(), []
    state = optimizer.init(params)
    for g in recorded:
        params, state = optimizer.step(params, g, state)
        losses.append(problems.loss(params))
    theirs = torch.autograd.grad(
        torch.stack(losses).mean(), list(optimizer.parameters())
    )
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


# ---------------------------------------------------------------- learned optimizers


def test_preprocessing_is_continuous_and_bounded():
    g = torch.cat(
        [
            torch.logspace(-30, 6, 400, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
        ]
    )
    out = preprocess_gradient(g)
    assert (
        torch.isfinite(out).all()
        and out[:, 0].min() >= -1 - 1e-12
        and out[:, 1].abs().max() <= 1
    )
    torch.testing.assert_close(preprocess_gradient(-g)[:, 0], out[:, 0])
    torch.testing.assert_close(preprocess_gradient(-g)[:, 1], -out[:, 1])


def test_lstm_equals_torch_lstm():
    "The two cells with the linear output, against nn.LSTM with the same weights."
    optimizer, reference = lstm(), nn.LSTM(2, 4, 2).double()
    with torch.no_grad():
        for i, cell in enumerate(optimizer.cells):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(reference, f"{name}_l{i}").copy_(getattr(cell, name))
        grads = torch.randn(5, 7, generator=gen(), dtype=torch.float64)
        out, _ = reference(preprocess_gradient(grads))
        expected = optimizer.scale * optimizer.head(out).squeeze(-1).sum(0)
        params = {"w": torch.zeros(7, dtype=torch.float64)}
        state = optimizer.init(params)
        for g in grads:
            params, state = optimizer.step(params, {"w": g}, state)
    torch.testing.assert_close(params["w"], expected)


def test_learned_rates_by_tensor_and_step():
    rates = LearnedRates(["a", "b"], lr=0.1, steps=2).double()
    with torch.no_grad():
        rates.log_rates.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]).log())
    params = {k: torch.zeros(2, dtype=torch.float64) for k in "ab"}
    ones, state = (
        {k: torch.ones(2, dtype=torch.float64) for k in "ab"},
        rates.init(params),
    )
    for _ in range(3):  # the last row serves the third step too
        params, state = rates.step(params, ones, state)
    torch.testing.assert_close(
        params["a"], torch.full((2,), -0.7, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        params["b"], torch.full((2,), -1.0, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(ValueError, match="no rate was learned for"):
        rates.step({"c": ones["a"]}, {"c": ones["a"]}, rates.init({}))
    with pytest.raises(ValueError, match="lr must be a finite number above 0"):
        LearnedRates(["a"], lr=-1)


@pytest.mark.parametrize("kappa", [2.0, 50.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_chebyshev_rates_reach_the_bound(kappa, steps):
    rates, bound = chebyshev_rates(0.5, 0.5 * kappa, steps)
    grid = torch.linspace(0.5, 0.5 * kappa, 5001, dtype=torch.float64)
    worst = (1 - rates[:, None] * grid).prod(0).abs().max().item()
    assert worst == pytest.approx(bound, rel=1e-9)
    # 1 / T_n
    assert bound == pytest.approx(
        1 / math.cosh(steps * math.acosh((kappa + 1) / (kappa - 1))), rel=1e-9
    )
    with pytest.raises(
        ValueError, match="L must be a finite number above|mu must be|steps must be"
    ):
        chebyshev_rates(2.0, 1.0, 3)


def test_inner_loop_takes_a_learned_optimizer():
    """Functional learned optimizers fit the book's inner-loop engine; their weights are
    part of it.
    """
    model, tasks = nn.Linear(1, 1).double(), SinusoidTasks(5, 5).sample(3, gen())
    support = tasks.support.map(lambda t: t.double() if t.is_floating_point() else t)
    optimizer = lstm()
    loop = InnerLoop(
        model,
        mse_per_task,
        inner_lr=1.0,
        inner_steps=2,
        first_order=True,
        optimizer=optimizer,
    ).double()
    loss = mse_per_task(loop.adapt(support)(support.x), support.y).mean()
    assert any(
        g.abs().max() > 0
        for g in torch.autograd.grad(loss, list(optimizer.parameters()))
    )
    assert {id(p) for p in optimizer.parameters()} <= {id(p) for p in loop.parameters()}


# --------------------------------------------------------------- training and measuring


def test_meta_training_improves_and_is_reproducible():
    def trained():
        torch.manual_seed(0)
        optimizer = LSTMOptimizer(hidden=8)
        meta_train(
            LearnToOptimize(optimizer, 20, 10),
            QuadraticProblems(3),
            steps=40,
            tasks_per_step=16,
            outer_lr=0.02,
            seed=1,
            progress=False,
        )
        return optimizer

    one, two = trained(), trained()
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values())
    )
    torch.manual_seed(0)
    problems = QuadraticProblems(3).sample(50, gen(9))
    assert (
        optimize(one, problems, 20)[:, -1].mean()
        < 0.8 * optimize(LSTMOptimizer(hidden=8), problems, 20)[:, -1].mean()
    )


def test_windows_carry_over_and_start_anew():
    learner, first, other = (
        LearnToOptimize(lstm(), 6, 3),
        quadratics(seed=1),
        quadratics(seed=2),
    )
    learner(first)
    continued = learner(other)  # the run of `first` goes on
    expected = unroll(learner.optimizer, first, 6)[0][:, 4:].mean()
    torch.testing.assert_close(continued, expected)
    torch.testing.assert_close(
        learner(other), unroll(learner.optimizer, other, 3)[0][:, 1:].mean()
    )
    end = LearnToOptimize(lstm(), 6, 3).adapt(first)
    assert end["theta"].shape == (5, 4)
    for bad in (
        {"horizon": 10, "window": 3},
        {"horizon": 10, "window": 0},
        {"horizon": 5, "window": 10},
    ):
        with pytest.raises(ValueError, match="multiple of the window|window must be"):
            LearnToOptimize(lstm(), **bad)


def test_batches_of_optimize_do_not_matter():
    problems = quadratics(7)
    torch.testing.assert_close(
        optimize(WithRate(Adam(), 0.1), problems, 5, batch=3),
        optimize(WithRate(Adam(), 0.1), problems, 5),
    )


def test_tune_finds_the_rate_of_a_known_problem():
    "One step on h/2 theta^2: the best rate is 1/h."
    one = Quadratics(
        torch.full((1, 1, 1), (4.0 / 2) ** 0.5), torch.zeros(1, 1), torch.ones(1, 1)
    )
    best, found = tune(SGD(), [0.1, 0.2, 0.25, 0.3, 0.4], one, 1)
    assert best == 0.25 and found[0.25] < 1e-10
    assert final_loss(torch.tensor([[1.0, math.inf], [1.0, 0.5]])).tolist() == [
        1.0,
        0.5,
    ]
    with pytest.raises(ValueError, match="lr must be a finite number above 0"):
        WithRate(SGD(), 0)


def test_fit_networks_is_an_ordinary_loss_with_decay():
    x, labels = torch.randn(60, 6, generator=gen()), [i // 10 for i in range(60)]
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    problems = FitNetworks(
        model, ClassTasks(x, labels, n_way=3, k_shot=4, n_query=2), l2=0.1
    ).sample(5, gen(1))
    copied = copy.deepcopy(model)
    copied.load_state_dict({k: v[2] for k, v in problems.start().items()})
    expected = nn.functional.cross_entropy(
        copied(problems.data["x"][2]), problems.data["y"][2]
    ) + 0.05 * sum(p.square().sum() for p in copied.parameters())
    torch.testing.assert_close(problems.loss(problems.start())[2], expected)
    assert (
        optimize(WithRate(Adam(), 0.05), problems, 30)[:, -1].mean()
        < problems.loss(problems.start()).mean()
    )
    assert not torch.equal(
        problems.start()["0.weight"][0], problems.start()["0.weight"][1]
    )


# --------------------------------------------------------------- optimizers for PyTorch


@pytest.mark.parametrize(
    "base,theirs",
    [
        (SGD(), {}),
        (SGD(0.9), {"momentum": 0.9}),
        (Nesterov(0.8), {"momentum": 0.8, "nesterov": True}),
    ],
)
def test_fixed_rates_are_torch_sgd(base, theirs):
    a, b, c = net(), net(), net()
    expected = run(b, torch.optim.SGD(b.parameters(), lr=0.05, **theirs), 10)
    torch.testing.assert_close(
        run(a, MetaOptimizer(a.parameters(), lr=0.05, meta_lr=0, base=base), 10),
        expected,
    )
    torch.testing.assert_close(
        run(c, as_torch_optimizer(base, c, lr=0.05), 10), expected
    )


def test_published_rule_by_hand():
    "SGD-HD of Baydin et al.: alpha += beta g_t . g_{t-1}, one rate for the group."
    model, by_hand = net(), net()
    ours = run(
        model,
        MetaOptimizer(
            model.parameters(), lr=0.01, meta_lr=0.001, per="group", normalize=False
        ),
        8,
    )
    alpha, last = 0.01, None
    for _ in range(8):
        grads = torch.autograd.grad(loss_of(by_hand), list(by_hand.parameters()))
        if last is not None:
            alpha = alpha + 0.001 * sum((g * d).sum() for g, d in zip(grads, last))
        with torch.no_grad():
            for p, g in zip(by_hand.parameters(), grads):
                p.sub_(alpha * g)
        last = grads
    torch.testing.assert_close(
        ours, nn.utils.parameters_to_vector(by_hand.parameters()).detach()
    )


@pytest.mark.parametrize("per", ["group", "tensor", "parameter"])
def test_rates_have_the_asked_shape_and_move_at_most_by_the_factor(per):
    model = net()
    optimizer = MetaOptimizer(model.parameters(), lr=0.01, meta_lr=0.1, per=per)
    run(model, optimizer, 5)
    rates = optimizer.rates()
    assert [r.shape for r in rates] == [
        p.shape if per == "parameter" else torch.Size([]) for p in model.parameters()
    ]
    # four steps learn
    low, high = (
        0.01 * math.exp(-0.4) * (1 - 1e-9),
        0.01 * math.exp(0.4) * (1 + 1e-9),
    )
    assert all(((r >= low) & (r <= high)).all() for r in rates)
    if per == "group":
        assert len({r.item() for r in rates}) == 1


def test_groups_closure_missing_gradients_and_state():
    model = net()
    groups = [
        {"params": model[0].parameters(), "lr": 0.5},
        {"params": model[2].parameters(), "meta_lr": 0.0},
    ]
    optimizer = MetaOptimizer(groups, lr=0.01, meta_lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    before = loss_of(model).item()
    assert optimizer.step(closure).item() == before
    optimizer.step(closure)
    rates = optimizer.rates()
    assert rates[0] != 0.5 and rates[2] == 0.01
    frozen = copy.deepcopy(model[0].weight.detach())
    optimizer.zero_grad()
    # the first layer gets no gradient
    model[2](torch.zeros(1, 5).double()).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, frozen)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: MetaOptimizer(m.parameters(), base=Adam(), per="tensor"),
        lambda m: as_torch_optimizer(lstm(), m),
        lambda m: MetaOptimizer(m.parameters(), lr=1.0, base=lstm()),
        lambda m: as_torch_optimizer(
            LearnedRates([n for n, _ in m.named_parameters()], steps=3).double(), m
        ),
    ],
)
def test_state_survives_a_file(make):
    straight, stopped, resumed = net(), net(), net()
    expected = run(straight, make(straight), 9)
    first = make(stopped)
    run(stopped, first, 4)
    file = io.BytesIO()
    torch.save({"model": stopped.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    resumed.load_state_dict(stored["model"])
    second = make(resumed)
    second.load_state_dict(stored["optimizer"])
    assert torch.equal(run(resumed, second, 5), expected)


def test_scheduler_scales_the_updates():
    a, b = net(), net()
    optimizer = as_torch_optimizer(SGD(), a, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    reference = torch.optim.SGD(b.parameters(), lr=0.1)
    halved = torch.optim.lr_scheduler.StepLR(reference, 1, 0.5)
    for _ in range(4):
        torch.testing.assert_close(run(a, optimizer, 1), run(b, reference, 1))
        schedule.step(), halved.step()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: MetaOptimizer(net().parameters(), lr=0.0),
            "lr must be a finite number above 0",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), lr=math.nan),
            "lr must be a finite number above 0",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), meta_lr=-1.0),
            "meta_lr must be a finite number at least 0",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), meta_lr=math.inf),
            "must be a finite number",
        ),
        (
            lambda: MetaOptimizer([{"params": net().parameters(), "lr": -0.1}]),
            "lr must be a finite number above 0",
        ),
        (
            lambda: MetaOptimizer(
                [{"params": net().parameters(), "meta_lr": math.nan}]
            ),
            "meta_lr must be a finite number at least 0",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), per="layer"),
            "per must be one of 'group'",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), base=torch.optim.SGD),
            "SGD is not a functional optimizer",
        ),
        (
            lambda: MetaOptimizer(net().parameters(), base="adam"),
            "str is not a functional optimizer",
        ),
        (lambda: MetaOptimizer([]), "params must hold at least 1"),
        (
            lambda: as_torch_optimizer(torch.optim.Adam(net().parameters()), net()),
            "Adam is not a functional optimizer",
        ),
        (
            lambda: as_torch_optimizer(LSTMOptimizer, net()),
            "LSTMOptimizer is not a functional optimizer",
        ),
        (
            lambda: as_torch_optimizer(SGD(), net(), lr=0.0),
            "lr must be a finite number above 0",
        ),
        (lambda: LSTMOptimizer(hidden=0), "hidden must be at least 1"),
        (lambda: LSTMOptimizer(p=-1), "p must be a finite number above 0"),
        (lambda: LearnedRates([]), "names must hold at least 1"),
        (lambda: LearnedRates(["a"], steps=0), "steps must be at least 1"),
        (
            lambda: RMSprop(decay=1.0),
            "decay must be a finite number at least 0 and below 1",
        ),
        (lambda: WithRate(SGD(), math.inf), "lr must be a finite number above 0"),
        (
            lambda: QuadraticProblems(3, size=0.0),
            "size must be a finite number above 0",
        ),
        (lambda: quadratics()[2], r"take a slice, such as problems\[2:3\]"),
        (lambda: LearnToOptimize(WithRate(SGD(), 0.1)), "nothing to learn"),
        (
            lambda: optimize(lstm(), quadratics(), 2, batch=0),
            "batch must be at least 1",
        ),
        (lambda: tune(SGD(), [0.1, 0.2], quadratics(), 2), "three different rates"),
        (lambda: tune(SGD(), [], quadratics(), 2), "three different rates"),
        (lambda: tune(SGD(), 0.1, quadratics(), 2), "rates must be a list"),
        (lambda: optimize(lstm(), quadratics()[:0], 2), "number of problems must be"),
        (
            lambda: as_torch_optimizer(SGD(), torch.ones(2)),
            "params must be a list of parameters",
        ),
        (
            lambda: FitNetworks(nn.Linear(2, 2), None, l2=-1.0),
            "l2 must be a finite number at least 0",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_scaled_loss_changes_the_steps_of_the_lstm_and_not_those_of_adam():
    small, big = quadratics(), quadratics().map(lambda v: v.clone())
    big.data = {k: 10 * v for k, v in big.data.items()}  # the loss times 100
    with torch.no_grad():
        for optimizer, same in (
            (WithRate(Adam(eps=1e-30), 0.1), True),
            (lstm(), False),
        ):
            a, b = (unroll(optimizer, p, 5)[1]["theta"] for p in (small, big))
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12) is same


def test_every_functional_optimizer_keeps_dtype_and_device():
    problems = quadratics()
    for optimizer in (
        WithRate(SGD(), 0.01),
        WithRate(Nesterov(0.9), 0.01),
        WithRate(RMSprop(), 0.01),
        LearnedRates(["theta"]).double(),
        lstm(),
    ):
        with torch.no_grad():
            losses, params, _ = unroll(optimizer, problems, 3)
        assert (
            losses.dtype == params["theta"].dtype == torch.float64
            and not losses.requires_grad
        )


def test_hidden_examples_of_a_support_set_are_not_fitted():
    class Padded:
        "Sinusoids with two rows of padding in each set."

        def __init__(self, junk):
            self.junk = junk

        def sample(self, n, generator):
            tasks = SinusoidTasks(k_shot=4).sample(n, generator)

            def padded(e):
                rows = torch.full((n, 2, 1), self.junk)
                mask = torch.arange(e.n_items + 2).expand(n, -1) < e.n_items
                return Examples(*(torch.cat([v, rows], 1) for v in (e.x, e.y)), mask)

            return TaskBatch(padded(tasks.support), padded(tasks.query))

    losses = [
        optimize(
            WithRate(SGD(), 0.01),
            FitNetworks(nn.Linear(1, 1), tasks, mse_per_task, l2=0.1).sample(3, gen()),
            4,
        )
        for tasks in (SinusoidTasks(k_shot=4), Padded(0.0), Padded(1e6))
    ]
    torch.testing.assert_close(losses[1], losses[2])
    torch.testing.assert_close(losses[0], losses[1])
