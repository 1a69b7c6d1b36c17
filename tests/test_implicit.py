"""Properties of implicit gradients that the chapter does not have to show."""

import copy
import math

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import LinearTasks
from metalearn_book.foundations.inner_loop import SGD, Adam, InnerLoop
from metalearn_book.foundations.bilevel import cross_entropy_per_task
from metalearn_book.foundations.inner_loop import PeakMemory
from metalearn_book.foundations.bilevel import finite_differences, mse_per_task
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.optimization.implicit import ForwardProducts, ImplicitLoop
from metalearn_book.optimization.implicit import ImplicitMAML, MixedLoop, Proximal
from metalearn_book.optimization.implicit import ProximalAnswer, ReverseProducts
from metalearn_book.optimization.implicit import conjugate_gradient, forward_product
from metalearn_book.optimization.implicit import from_rows, inner_residual, neumann
from metalearn_book.optimization.implicit import solve_dense, to_rows
from metalearn_book.optimization.maml import MAML, AtSteps


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def sinusoids(n=3, seed=0, **options):
    drawn = SinusoidTasks(
        **{"k_shot": 6, "n_query": 5, "amplitude": (0.1, 1.0), **options}
    ).sample(n, gen(seed))
    return TaskBatch(
        drawn.support.map(torch.Tensor.double), drawn.query.map(torch.Tensor.double)
    )


def net(seed=0, width=4):
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Linear(1, width), nn.Tanh()))
    model.add_module("head", nn.Linear(width, 1))
    return model.double()


def linear(phi):
    model = nn.Linear(len(phi), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(phi[None])
    return model


def gradient(learner, tasks):
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(
                learner(tasks), [p for p in learner.parameters() if p.requires_grad]
            )
        ]
    )


def spd(n_rows, d, low=1.0, high=20.0, seed=0):
    Q = torch.linalg.qr(
        torch.randn(n_rows, d, d, generator=gen(seed), dtype=torch.float64)
    )[0]
    return Q * torch.linspace(low, high, d, dtype=torch.float64) @ Q.mT


SOLVED = {
    "lam": 3.0,
    "inner_lr": 0.08,
    "inner_steps": 120,
    "iterations": 20,
}  # 0.76 ** 120 is 5e-15


# ---- the closed form


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_closed_form_against_differences_and_its_optimum(lam):
    tasks, phi = (
        LinearTasks(dim=3).sample(5, gen()),
        torch.randn(3, generator=gen(1), dtype=torch.float64),
    )
    answer = ProximalAnswer(tasks, lam)

    def loss(v):
        return (
            (tasks.query.x @ answer.adapted(v)[..., None] - tasks.query.y) ** 2
        ).mean()

    torch.testing.assert_close(
        answer.meta_gradient(phi), finite_differences(loss, phi), rtol=1e-6, atol=1e-8
    )
    assert answer.meta_gradient(answer.optimum()).abs().max() < 1e-10
    stationarity = (
        2
        * tasks.support.x.mT
        @ (tasks.support.x @ answer.adapted(phi)[..., None] - tasks.support.y)
        / tasks.support.n_items
    )[..., 0] + lam * (answer.adapted(phi) - phi)
    assert stationarity.abs().max() < 1e-10  # Eq. (IM-2)


def test_limits_of_lam():
    """A huge weight: nothing adapts, joint training. A tiny one: the start does not
    matter.
    """
    tasks, phi = LinearTasks(dim=3).sample(4, gen()), torch.ones(3, dtype=torch.float64)
    held, free = ProximalAnswer(tasks, 1e9), ProximalAnswer(tasks, 1e-9)
    torch.testing.assert_close(held.adapted(phi), phi.expand(4, 3), rtol=0, atol=1e-7)
    joint = finite_differences(
        lambda v: ((tasks.query.x @ v[:, None] - tasks.query.y) ** 2).mean(), phi
    )
    torch.testing.assert_close(held.meta_gradient(phi), joint, rtol=1e-6, atol=1e-6)
    assert free.meta_gradient(phi).abs().max() < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "neumann", "iterations": 600},
        {"solver": "dense"},
        {"products": "forward"},
        {"optimizer": SGD(momentum=0.5)},
        {"tasks_at_once": 2},
    ],
)
def test_learner_against_the_closed_form(options):
    tasks, phi = (
        LinearTasks(dim=3).sample(5, gen()),
        torch.randn(3, generator=gen(1), dtype=torch.float64),
    )
    learner = ImplicitMAML(
        linear(phi),
        mse_per_task,
        **{
            "lam": 0.5,
            "inner_lr": 0.1,
            "inner_steps": 400,
            "iterations": 10,
            **options,
        },
    )
    torch.testing.assert_close(
        gradient(learner, tasks),
        ProximalAnswer(tasks, 0.5).meta_gradient(phi),
        rtol=1e-8,
        atol=1e-9,
    )
    assert learner.report.inner.max() < 1e-8


# ---- networks


def test_against_unrolling_and_a_dense_solve():
    tasks, model = sinusoids(), net()
    ours = gradient(ImplicitMAML(model, mse_per_task, **SOLVED), tasks)
    unrolled = gradient(
        MAML(
            model, mse_per_task, inner_lr=0.08, inner_steps=120, optimizer=Proximal(3.0)
        ),
        tasks,
    )
    torch.testing.assert_close(ours, unrolled, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        ours,
        gradient(
            ImplicitMAML(model, mse_per_task, **SOLVED | {"solver": "dense"}), tasks
        ),
        rtol=1e-8,
        atol=1e-10,
    )


def test_the_way_to_the_solution_does_not_matter():
    tasks, model = sinusoids(), net()
    ways = [
        {"optimizer": SGD(momentum=0.5)},
        {"inner_lr": 0.04, "inner_steps": 250},
        {"optimizer": Adam(), "inner_lr": 0.01, "inner_steps": 500},
    ]
    plain = gradient(ImplicitMAML(model, mse_per_task, **SOLVED), tasks)
    for way, tolerance in zip(ways, (1e-7, 1e-7, 1e-2)):
        torch.testing.assert_close(
            gradient(ImplicitMAML(model, mse_per_task, **SOLVED | way), tasks),
            plain,
            rtol=tolerance,
            atol=tolerance,
        )


@pytest.mark.parametrize("adapt", ["head.*", "body.*"])
@pytest.mark.parametrize("products", ["reverse", "forward"])
def test_shared_parameters_against_unrolling(adapt, products):
    tasks, model = sinusoids(), net()
    ours = gradient(
        ImplicitMAML(model, mse_per_task, adapt=adapt, products=products, **SOLVED),
        tasks,
    )
    unrolled = gradient(
        MAML(
            model,
            mse_per_task,
            adapt=adapt,
            inner_lr=0.08,
            inner_steps=120,
            optimizer=Proximal(3.0),
        ),
        tasks,
    )
    torch.testing.assert_close(ours, unrolled, rtol=1e-6, atol=1e-9)


def test_identity_is_first_order_and_every_task_counts_once():
    tasks, model = sinusoids(4), net()
    identity = ImplicitMAML(
        model, mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=3, solver="identity"
    )
    first = MAML(
        model,
        mse_per_task,
        inner_lr=0.1,
        inner_steps=3,
        optimizer=Proximal(1.0),
        first_order=True,
    )
    torch.testing.assert_close(
        gradient(identity, tasks), gradient(first, tasks), rtol=1e-12, atol=1e-14
    )
    learner = ImplicitMAML(model, mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=3)
    torch.testing.assert_close(
        gradient(learner, tasks),
        torch.stack([gradient(learner, tasks[i]) for i in range(4)]).mean(0),
        rtol=1e-10,
        atol=1e-12,
    )


def test_masks_and_classification():
    g, model = gen(), nn.Linear(3, 2).double()
    x, y = (
        torch.randn(2, 5, 3, generator=g, dtype=torch.float64),
        torch.randint(0, 2, (2, 5), generator=g),
    )
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    full, cut = (
        TaskBatch(Examples(x, y, mask), Examples(x, y)),
        TaskBatch(Examples(x[1:, :3], y[1:, :3]), Examples(x[1:], y[1:])),
    )
    learner = ImplicitMAML(
        model,
        cross_entropy_per_task,
        lam=0.3,
        inner_lr=0.5,
        inner_steps=200,
        iterations=20,
    )
    torch.testing.assert_close(
        gradient(learner, full[1]), gradient(learner, cut), rtol=1e-9, atol=1e-12
    )


def test_unused_parameters_with_zero():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.used(x)

    tasks, model = sinusoids(), Half().double()
    learner = ImplicitMAML(
        model, mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=5, unused="zero"
    )
    learner(tasks).backward()
    assert model.idle.grad is None or model.idle.grad.abs().max() == 0
    assert model.used.weight.grad.abs().max() > 0


def test_convolutions_task_by_task():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)
    ).double()
    x, y = (
        torch.randn(2, 4, 1, 5, 5, generator=gen(), dtype=torch.float64),
        torch.tensor([[0, 1, 0, 1]] * 2),
    )
    tasks = TaskBatch(Examples(x, y), Examples(x.flip(1), y.flip(1)))
    one, all_ = (
        gradient(
            ImplicitMAML(
                copy.deepcopy(model),
                lam=1.0,
                inner_lr=0.1,
                inner_steps=3,
                tasks_at_once=n,
            ),
            tasks,
        )
        for n in (None, 2)
    )
    torch.testing.assert_close(one, all_, rtol=1e-8, atol=1e-10)


# ---- products


@pytest.mark.parametrize(
    "layer",
    [nn.Tanh(), nn.GELU(), nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Softplus()],
    ids=lambda m: type(m).__name__,
)
def test_products_agree_with_the_dense_hessian(layer):
    torch.manual_seed(0)
    loop = InnerLoop(
        nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 1)).double(), mse_per_task
    )
    data = Examples(
        torch.randn(2, 6, 2, generator=gen(), dtype=torch.float64),
        torch.randn(2, 6, 1, generator=gen(1), dtype=torch.float64),
    )
    at = {n: p.detach().clone() for n, p in loop.initial(2).items()}
    v = torch.randn(to_rows(at).shape, generator=gen(2), dtype=torch.float64)

    def loss(row, b):
        return mse_per_task(
            loop.predict(
                from_rows(row[None], {n: p[:1] for n, p in at.items()}),
                data.x[b : b + 1],
            ),
            data.y[b : b + 1],
        ).sum()

    dense = torch.stack(
        [
            torch.autograd.functional.hessian(lambda r, b=b: loss(r, b), to_rows(at)[b])
            @ v[b]
            for b in range(2)
        ]
    )
    for kind in (ReverseProducts, ForwardProducts):
        torch.testing.assert_close(
            kind(loop, data, at).product(v), dense, rtol=1e-8, atol=1e-10
        )
    torch.testing.assert_close(
        to_rows(ForwardProducts(loop, data, at).gradient),
        to_rows(ReverseProducts(loop, data, at).gradient).detach(),
    )


def test_products_of_a_linear_loss_are_zero():
    loop = InnerLoop(nn.Linear(2, 1).double(), lambda p, y, m: p.mean((1, 2)))
    data = Examples(
        torch.randn(2, 3, 2, dtype=torch.float64),
        torch.zeros(2, 3, 1, dtype=torch.float64),
    )
    at = {n: p.detach() for n, p in loop.initial(2).items()}
    v = torch.ones_like(to_rows(at))
    assert (
        ReverseProducts(loop, data, at).product(v).abs().max() == 0
        and forward_product(loop, data, at, v)[0].abs().max() == 0
    )


# ---- solvers


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)]
)
def test_solvers_against_torch(dtype, tolerance):
    M, b = (
        spd(6, 5).to(dtype),
        torch.randn(6, 5, generator=gen(3), dtype=torch.float64).to(dtype),
    )
    exact = torch.linalg.solve(M, b)

    def matvec(v):
        return (M @ v[..., None])[..., 0]

    for found in (
        conjugate_gradient(matvec, b, 50),
        neumann(matvec, b, 600, 1 / 20),
        solve_dense(matvec, b),
    ):
        torch.testing.assert_close(found.x, exact, rtol=tolerance, atol=tolerance)
        assert not found.negative.any() and found.residual.max() < 10 * tolerance


def test_rows_do_not_mix():
    M, b = spd(4, 5), torch.randn(4, 5, generator=gen(3), dtype=torch.float64)
    M[2] = -M[2]
    together = conjugate_gradient(lambda v: (M @ v[..., None])[..., 0], b, 3)
    for i in range(4):
        alone = conjugate_gradient(
            lambda v, i=i: (M[i : i + 1] @ v[..., None])[..., 0], b[i : i + 1], 3
        )
        torch.testing.assert_close(together.x[i : i + 1], alone.x)
        assert (
            together.negative[i] == alone.negative[0]
            and together.products[i] == alone.products[0]
        )
    assert together.negative.tolist() == [False, False, True, False]


def test_cg_edge_cases():
    zero = conjugate_gradient(lambda v: 2 * v, torch.zeros(2, 3), 5)
    assert (
        zero.x.abs().max() == 0
        and zero.products.tolist() == [0, 0]
        and torch.isfinite(zero.residual).all()
    )
    # breakdown after one good product keeps what it has
    diagonal = torch.tensor([[5.0, -1.0]], dtype=torch.float64)
    found = conjugate_gradient(
        lambda v: diagonal * v, torch.tensor([[3.0, 1.0]], dtype=torch.float64), 10
    )
    assert (
        found.negative.all()
        and found.products.item() == 2
        and torch.isfinite(found.x).all()
    )
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        conjugate_gradient(lambda v: v, torch.ones(1, 2), 0)
    with pytest.raises(RuntimeError, match="product is not finite"):
        conjugate_gradient(lambda v: v * math.inf, torch.ones(1, 2), 2)
    with pytest.raises(RuntimeError, match="query gradient of 1 of 2 tasks"):
        conjugate_gradient(lambda v: v, torch.tensor([[1.0], [math.nan]]), 2)
    with pytest.raises(ValueError, match="step must be a finite number above 0"):
        neumann(lambda v: v, torch.ones(1, 2), 2, step=0.0)
    # overflows: falls back to b
    diverged = neumann(lambda v: v * 1e300, torch.ones(1, 2), 30, step=1.0)
    assert diverged.negative.all() and diverged.x.tolist() == [[1.0, 1.0]]


def test_neumann_is_truncated_backpropagation():
    tasks, model = sinusoids(), net()
    found = ImplicitMAML(model, mse_per_task, **SOLVED).loop
    with torch.no_grad():
        star = found.adapt(tasks.support).params
    anchors = {
        n: p.detach().clone().requires_grad_() for n, p in found.initial(3).items()
    }
    g = torch.randn(to_rows(star).shape, generator=gen(4), dtype=torch.float64)
    curvature = ReverseProducts(found, tasks.support, star)
    for terms in (1, 2, 6):
        params, state = (
            {n: p.detach().requires_grad_() for n, p in star.items()},
            found.optimizer.init(anchors),
        )
        for t in range(terms):
            params, state, _ = found.inner_step(tasks.support, t, params, state)
        truncated = torch.autograd.grad(to_rows(params), list(anchors.values()), g)
        series = neumann(
            lambda v: v + curvature.product(v) / found.lam,
            g,
            terms,
            found.inner_lr.item() * found.lam,
        ).x
        torch.testing.assert_close(
            torch.cat([t.flatten(1) for t in truncated], 1),
            series,
            rtol=1e-8,
            atol=1e-10,
        )


# ---- memory


def test_memory_does_not_grow_with_inner_steps():
    torch.manual_seed(0)
    model, tasks = (
        nn.Sequential(
            nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
        ),
        SinusoidTasks(20, 20).sample(3, gen()),
    )

    def peak(make, k):
        learner = make(k)
        learner(tasks).backward()
        with PeakMemory() as memory:
            torch.autograd.grad(learner(tasks), list(learner.parameters()))
        return memory.peak

    def implicit(k):
        return ImplicitMAML(model, mse_per_task, lam=1.0, inner_lr=0.01, inner_steps=k)

    assert peak(implicit, 40) <= 1.02 * peak(implicit, 4)
    assert peak(implicit, 40) < 0.2 * peak(
        lambda k: MAML(model, mse_per_task, inner_lr=0.01, inner_steps=k), 40
    )


@pytest.mark.parametrize("adapt", [None, "head.*", "body.*"])
@pytest.mark.parametrize("steps, states", [(1, 1), (5, 1), (9, 3)])
def test_mixed_sweep_equals_store(adapt, steps, states):
    tasks, model = sinusoids(), net()
    want = gradient(
        MAML(model, mse_per_task, adapt=adapt, inner_lr=0.1, inner_steps=steps), tasks
    )
    loop = MixedLoop(
        model, mse_per_task, adapt=adapt, inner_lr=0.1, inner_steps=steps, states=states
    )
    found = torch.autograd.grad(loop.outer_loss(tasks), list(model.parameters()))
    torch.testing.assert_close(
        torch.cat([g.flatten() for g in found]), want, rtol=1e-9, atol=1e-11
    )
    with torch.no_grad():
        assert torch.isfinite(loop.outer_loss(tasks))


# ---- contract


def test_trains_evaluates_and_resumes(tmp_path):
    tasks = SinusoidTasks(10, 10)

    def learner():
        torch.manual_seed(0)
        return ImplicitMAML(
            nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)),
            mse_per_task,
            lam=0.5,
            inner_lr=0.05,
            inner_steps=5,
        )

    whole, parts = learner(), learner()
    history = meta_train(
        whole, tasks, steps=40, tasks_per_step=8, outer_lr=1e-2, progress=False
    )
    for steps in (15, 40):
        meta_train(
            parts,
            tasks,
            steps=steps,
            tasks_per_step=8,
            outer_lr=1e-2,
            progress=False,
            checkpoint=Checkpoint(tmp_path / "run.pt", every=5),
        )
    for a, b in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert sum(history.loss[-10:]) < sum(history.loss[:10])
    result = evaluate(whole, tasks, 20, metric=mse)
    assert torch.isfinite(result.values).all()
    assert not torch.equal(
        result.values, evaluate(AtSteps(whole, 0), tasks, 20, metric=mse).values
    )


def test_tolerance_ends_the_inner_loop():
    tasks = sinusoids()
    loop = ImplicitLoop(
        net(), mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=1000, tolerance=1e-5
    )
    assert 10 < len(loop.adapt(tasks.support).losses) < 500
    assert (
        len(
            ImplicitLoop(net(), mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=30)
            .adapt(tasks.support)
            .losses
        )
        == 30
    )


def test_inner_residual():
    g, zero = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    assert inner_residual(g, zero, zero, 1.0).item() == 1  # nothing done yet
    assert inner_residual(g, -g / 2, zero, 2.0).item() == 0  # solved
    assert torch.isfinite(inner_residual(zero, zero, zero, 1.0)).all()


# ---- bad input


@pytest.mark.parametrize("lam", [0, 0.0, -1.0, math.inf, math.nan, "1", True, None])
def test_bad_weight(lam):
    for make in (
        lambda: Proximal(lam),
        lambda: ProximalAnswer(LinearTasks().sample(2, gen()), lam),
        lambda: ImplicitMAML(net(), mse_per_task, lam=lam),
    ):
        with pytest.raises(ValueError, match="lam must be a finite number above 0"):
            make()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"solver": "gmres"}, "solver must be one of 'cg'"),
        ({"products": "mixed"}, "products must be one of"),
        ({"on_negative": "ignore"}, "on_negative must be one of"),
        ({"iterations": 0}, "iterations must be"),
        ({"tolerance": -1.0}, "tolerance must be a finite number at least 0"),
        ({"max_residual": 0.0}, "max_residual must be a finite number above 0"),
        ({"memory": "store"}, "memory is not an option"),
        ({"learn_lr": True}, "learn_lr is not an option"),
        ({"first_order": True}, "solver='identity'"),
        ({"states": 3}, "states is not an option"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImplicitMAML(net(), mse_per_task, **options)


def test_the_report_finds_a_saddle():
    """Adapting the hidden layer alone at a small weight: one task ends where M is not
    positive definite, and unrolling disagrees. The report says which.
    """
    tasks, model = sinusoids(), net()
    learner = ImplicitMAML(
        model,
        mse_per_task,
        adapt="body.*",
        lam=1.0,
        inner_lr=0.1,
        inner_steps=200,
        iterations=30,
    )
    ours = gradient(learner, tasks)
    assert (
        learner.report.negative.any()
        and learner.report.inner[learner.report.negative].min() > 1e-4
    )
    unrolled = gradient(
        MAML(
            model,
            mse_per_task,
            adapt="body.*",
            inner_lr=0.1,
            inner_steps=200,
            optimizer=Proximal(1.0),
        ),
        tasks,
    )
    assert (ours - unrolled).abs().max() > 0.1


def test_unsolved_inner_problem():
    learner = ImplicitMAML(
        net(), mse_per_task, lam=1.0, inner_lr=0.01, inner_steps=2, max_residual=0.1
    )
    with pytest.raises(
        RuntimeError,
        match=r"task \d is not solved: relative residual .* Take more inner_steps",
    ):
        learner(sinusoids()).backward()
    solved = ImplicitMAML(net(), mse_per_task, **SOLVED, max_residual=0.1)
    solved(sinusoids()).backward()
    assert solved.report.inner.max() < 1e-6 and solved.report.linear.max() < 1e-6


def test_negative_curvature():
    """The loss −(wx − y)² has negative curvature everywhere: the fallback is the
    first-order direction, or an error.
    """
    tasks, model = sinusoids(), nn.Linear(1, 1).double()

    def concave(p, y, m):
        return -mse_per_task(p, y, m)

    options = {"lam": 1e-3, "inner_lr": 0.01, "inner_steps": 2}

    def loss_of(learner):
        return mse_per_task(
            learner.adapt(tasks.support)(tasks.query.x), tasks.query.y
        ).mean()

    fallback, identity = (
        ImplicitMAML(model, concave, **options, solver=s) for s in ("cg", "identity")
    )
    found, first = (
        torch.autograd.grad(loss_of(learner), list(model.parameters()))
        for learner in (fallback, identity)
    )
    assert fallback.report.negative.all()
    torch.testing.assert_close(found, first)
    for solver in ("cg", "dense"):
        with pytest.raises(RuntimeError, match="not positive definite"):
            loss_of(
                ImplicitMAML(
                    model, concave, **options, solver=solver, on_negative="error"
                )
            ).backward()


def test_losses_that_are_not_finite():
    tasks = sinusoids()
    with pytest.raises(RuntimeError, match="lower inner_lr"):
        ImplicitMAML(net(), mse_per_task, lam=1.0, inner_lr=1e6, inner_steps=50)(tasks)
    bad = TaskBatch(tasks.support, Examples(tasks.query.x, tasks.query.y * math.nan))
    with pytest.raises(
        RuntimeError, match="query gradient of 3 of 3 tasks is not finite"
    ):
        ImplicitMAML(net(), mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=3)(
            bad
        ).backward()


def test_no_steps_dropout_and_a_lost_anchor():
    tasks = sinusoids()
    with pytest.raises(ValueError, match="inner_steps is 0"):
        ImplicitMAML(net(), mse_per_task, inner_steps=0)(tasks)
    with torch.no_grad():
        assert torch.isfinite(ImplicitMAML(net(), mse_per_task, inner_steps=0)(tasks))
    noisy = ImplicitMAML(
        nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double(),
        mse_per_task,
    )
    with pytest.raises(ValueError, match="active dropout"):
        noisy(tasks)
    noisy.eval()(tasks).backward()
    with pytest.raises(ValueError, match="lose a gradient"):
        InnerLoop(
            net(), mse_per_task, optimizer=Proximal(1.0), memory="adjoint"
        ).outer_loss(tasks)
    with pytest.raises(ValueError, match="too many for a dense solve"):
        solve_dense(lambda v: v, torch.ones(1, 3000))
    for unfit in ({"memory": "store"}, {"optimizer": SGD(0.9)}, {"learn_lr": True}):
        with pytest.raises(ValueError, match="plain gradient descent"):
            MixedLoop(net(), mse_per_task, **unfit)


def test_changed_parameters_are_noticed():
    """An in-place change of the start between forward and backward pass is an error and
    not a wrong gradient.
    """
    tasks, learner = (
        sinusoids(),
        ImplicitMAML(net(), mse_per_task, lam=1.0, inner_lr=0.1, inner_steps=3),
    )
    loss = learner(tasks)
    with torch.no_grad():
        next(learner.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("products", ["reverse", "forward"])
def test_inputs_and_parameters_of_a_loss_module_get_the_implicit_gradient(products):
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

        def forward(self, p, y, mask=None):
            return self.w.exp() * ((p - y) ** 2).mean((1, 2))

    tasks, loss = sinusoids(2), Loss()
    v = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    scaled = lambda p, y, m=None: v * loss(p, y)  # a closure too
    options = {"lam": 2.0, "inner_lr": 0.1, "inner_steps": 100, "iterations": 12}

    def objective(x, y, loss_fn):
        torch.manual_seed(0)
        loop = ImplicitLoop(net(), loss_fn, products=products, **options)
        batch = TaskBatch(Examples(x, y), tasks.query)
        return loop.outer_loss(batch, mse_per_task)

    x, y = (t.clone().requires_grad_() for t in (tasks.support.x, tasks.support.y))
    for loss_fn, leaves in ((loss, [x, y, loss.w]), (scaled, [v, loss.w])):
        value = objective(x, y, loss_fn)
        found = torch.autograd.grad(value, leaves)
        for leaf, g in zip(leaves, found):
            direction = torch.randn(leaf.shape, generator=gen(3), dtype=leaf.dtype)
            values = []
            for sign in (1, -1):
                leaf.data += sign * 1e-4 * direction
                with torch.no_grad():
                    values.append(objective(x, y, loss_fn).item())
                leaf.data -= sign * 1e-4 * direction
            slope = (values[0] - values[1]) / 2e-4
            assert (g * direction).sum().item() == pytest.approx(slope, rel=1e-4)
