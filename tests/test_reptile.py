"""Properties of Reptile that the chapter does not have to show."""

import copy

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import LinearTasks, mse_per_task, quadratic_form
from metalearn_book.foundations.inner_loop import SGD, Adam, PeakMemory
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.training import Checkpoint, Update, meta_train
from metalearn_book.optimization.maml import MAML
from metalearn_book.optimization.reptile import (
    CarryingReptile,
    Reptile,
    all_examples,
    descend,
    inner_batches,
    minibatch_rows,
    resting_points,
    rows_of,
)
from shared import gen, sine_net, sinusoids


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def gradient(loss, model):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]
    )


def trained_one_by_one(model, data, rows, make_optimizer):
    "Parameters after training on each task, by deep copies and torch.optim, `(B, d)`."
    ends = []
    for i in range(data.n_tasks):
        net = copy.deepcopy(model)
        optimizer = make_optimizer(net.parameters())
        for batch in rows[i]:
            optimizer.zero_grad()
            ((net(data.x[i, batch]) - data.y[i, batch]) ** 2).mean().backward()
            optimizer.step()
        ends.append(vector(net))
    return torch.stack(ends)


OPTIMIZERS = {
    "sgd": (SGD(), lambda p: torch.optim.SGD(p, lr=0.03)),
    "momentum": (SGD(0.8), lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8)),
    "adam": (
        Adam((0.0, 0.99)),
        lambda p: torch.optim.Adam(p, lr=0.03, betas=(0.0, 0.99)),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_sgd_on_forward_is_the_interpolation(name, size, eps):
    ours, reference = OPTIMIZERS[name]
    tasks, model = sinusoids(), sine_net()
    start = vector(model)
    rows = (
        torch.arange(11).expand(4, 5, 11)
        if size is None
        else minibatch_rows(torch.ones(4, 11, dtype=torch.bool), 5, size, gen(7))
    )
    ends = trained_one_by_one(model, all_examples(tasks), rows, reference)
    learner = Reptile(
        model,
        mse_per_task,
        inner_steps=5,
        inner_batch_size=size,
        inner_lr=0.03,
        optimizer=ours,
        seed=7,
    )
    loss = learner(tasks)
    torch.testing.assert_close(
        loss.item(),
        (0.5 * (ends - start).square().sum(1).mean()).item(),
        rtol=1e-9,
        atol=1e-12,
    )
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=eps).step()
    torch.testing.assert_close(
        vector(model), start + eps * (ends.mean(0) - start), rtol=1e-9, atol=1e-11
    )


def test_any_optimizer_trains_it():
    for make in (
        lambda p: torch.optim.Adam(p, 1e-2),
        lambda p: torch.optim.AdamW(p, 1e-2),
        lambda p: torch.optim.RMSprop(p, 1e-3),
    ):
        learner = Reptile(
            sine_net().float(),
            mse_per_task,
            inner_steps=5,
            inner_batch_size=5,
            inner_lr=0.05,
        )
        tasks = SinusoidTasks(10, 10)
        before = evaluate(learner, tasks, 50, metric=mse)
        meta_train(
            learner,
            tasks,
            steps=60,
            tasks_per_step=8,
            update=Update(optimizer=make, clip_norm=None),
            progress=False,
        )
        assert evaluate(learner, tasks, 50, metric=mse).mean < before.mean


def test_one_step_is_joint_training():
    tasks, model = sinusoids(), sine_net()
    data = all_examples(tasks)
    joint = gradient(((model(data.x) - data.y) ** 2).mean(), model)
    learner = Reptile(model, mse_per_task, inner_steps=1, inner_lr=0.2)
    torch.testing.assert_close(
        gradient(learner(tasks), model),
        learner.loop.inner_lr.item() * joint,
        rtol=1e-9,
        atol=1e-12,
    )


def test_sum_of_fomaml_gradients_on_full_batches():
    tasks, model = sinusoids(), sine_net()
    whole = all_examples(tasks)
    total = sum(
        gradient(
            MAML(model, mse_per_task, inner_lr=0.1, inner_steps=j, first_order=True)(
                TaskBatch(whole, whole)
            ),
            model,
        )
        for j in range(4)
    )
    learner = Reptile(model, mse_per_task, inner_steps=4, inner_lr=0.1)
    torch.testing.assert_close(
        gradient(learner(tasks), model),
        learner.loop.inner_lr.item() * total,
        rtol=1e-9,
        atol=1e-12,
    )


def test_no_graph_and_memory_do_not_grow():
    tasks, peaks = sinusoids(25), []
    for steps in (2, 40):
        learner = Reptile(sine_net(), mse_per_task, inner_steps=steps, inner_lr=0.01)
        with PeakMemory() as memory:
            learner(tasks).backward()
        peaks.append(memory.peak)
    assert peaks[1] < 1.2 * peaks[0]
    predictor = learner.adapt(tasks.support)
    assert (
        not any(p.requires_grad for p in predictor.params.values())
        and len(predictor.losses) == 40
    )


def test_parameters_that_do_not_adapt_get_no_gradient():
    model = sine_net()
    Reptile(model, mse_per_task, inner_steps=2, inner_lr=0.1, adapt="2.*")(
        sinusoids()
    ).backward()
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False]


# -------------------------------------------------------------------------- minibatches


@pytest.mark.parametrize(
    ("n_batches", "size"), [(1, 1), (3, 4), (7, 5), (10, 2), (2, 9)]
)
def test_rows_go_through_all_examples_before_repeating(n_batches, size):
    real = torch.rand(6, 9, generator=gen(1)) > 0.3
    real[:, 0] = True
    rows = minibatch_rows(real, n_batches, size, gen(2))
    assert rows.shape == (6, n_batches, size)
    for i in range(6):
        n = int(real[i].sum())
        flat, want = rows[i].flatten(), real[i].nonzero().flatten()
        for part in flat.split(n):
            assert len(part.unique()) == len(part) and bool(real[i][part].all())
            assert len(part) < n or part.sort().values.equal(want)


def test_rows_differ_between_tasks_and_follow_the_seed():
    real = torch.ones(2, 30, dtype=torch.bool)
    assert not minibatch_rows(real, 3, 5, gen(0))[0].equal(
        minibatch_rows(real, 3, 5, gen(0))[1]
    )
    assert minibatch_rows(real, 3, 5, gen(0)).equal(minibatch_rows(real, 3, 5, gen(0)))
    assert not minibatch_rows(real, 3, 5, gen(0)).equal(
        minibatch_rows(real, 3, 5, gen(1))
    )


def test_dicts_and_masks_are_joined():
    def part(n, mask=None):
        return Examples(
            {
                "a": torch.randn(2, n, 3, generator=gen(n)),
                "b": torch.arange(2 * n).view(2, n),
            },
            torch.zeros(2, n, dtype=torch.long),
            mask,
        )

    mask = torch.tensor([[True, True, False], [True, False, False]])
    joined = all_examples(TaskBatch(part(3, mask), part(2)))
    assert joined.mask.tolist() == [
        [True, True, False, True, True],
        [True, False, False, True, True],
    ]
    # padding repeats a real example
    assert joined.x["b"].tolist() == [[0, 1, 1, 0, 1], [3, 3, 3, 2, 3]]
    assert all_examples(TaskBatch(part(3), part(2))).mask is None
    picked = rows_of(joined, torch.tensor([[4, 0], [3, 0]]))
    assert picked.x["b"].tolist() == [[1, 0], [2, 3]] and picked.mask is None


def test_masked_examples_are_never_seen():
    tasks = sinusoids()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 4:] = False
    spoiled = tasks.support.x.clone()
    spoiled[:, 4:] = 1e6
    for size in (None, 3, 5):
        ends = []
        for x in (tasks.support.x, spoiled):
            learner = Reptile(
                sine_net(),
                mse_per_task,
                inner_steps=4,
                inner_batch_size=size,
                inner_lr=0.05,
            )
            ends.append(
                learner.adapt(Examples(x, tasks.support.y, mask)).params["0.weight"]
            )
        torch.testing.assert_close(*ends)


def test_large_minibatches_mean_all_examples():
    support = sinusoids().support
    assert all(b is support for b in inner_batches(support, 3, 6, gen())) and all(
        b is support for b in inner_batches(support, 3, None, gen())
    )
    assert [b.n_items for b in inner_batches(support, 3, 5, gen())] == [5, 5, 5]


# ------------------------------------------------------------------- adapting, resuming


def test_adapt_is_a_function_of_the_support_set():
    tasks = sinusoids()
    learner = Reptile(
        sine_net(), mse_per_task, inner_steps=5, inner_batch_size=2, inner_lr=0.05
    )
    first = learner.adapt(tasks.support)(tasks.query.x)
    learner(tasks)  # moves the training generator on
    assert learner.adapt(tasks.support)(tasks.query.x).equal(first)
    torch.testing.assert_close(
        learner.adapt(tasks.support, 0)(tasks.query.x),
        learner.loop.model(tasks.query.x).detach(),
    )
    other = Reptile(
        sine_net(),
        mse_per_task,
        inner_steps=5,
        inner_batch_size=2,
        inner_lr=0.05,
        seed=1,
    )
    assert not other.adapt(tasks.support)(tasks.query.x).equal(first)


@pytest.mark.parametrize("kind", [Reptile, CarryingReptile])
def test_a_run_resumes_with_the_same_minibatches(tmp_path, kind):
    def learner():
        return kind(
            sine_net().float(),
            mse_per_task,
            inner_steps=3,
            inner_batch_size=4,
            inner_lr=0.01,
        )

    options = dict(
        tasks_per_step=4, seed=3, update=Update(clip_norm=None), progress=False
    )
    straight, stopped, resumed = learner(), learner(), learner()
    meta_train(straight, SinusoidTasks(5, 5), steps=12, **options)
    meta_train(
        stopped,
        SinusoidTasks(5, 5),
        steps=7,
        checkpoint=Checkpoint(tmp_path / "run.pt", every=7),
        **options,
    )
    meta_train(
        resumed,
        SinusoidTasks(5, 5),
        steps=12,
        checkpoint=Checkpoint(tmp_path / "run.pt", every=7),
        **options,
    )
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values()):
        assert a.equal(b)


# ---------------------------------------------------------------------- carried moments


def test_carried_moments_equal_one_long_run_of_adam():
    """With a single task and eps = 1 the start follows the task: then one Adam that
    never forgets must do the same.
    """
    tasks = sinusoids(1)
    data, model = all_examples(tasks), sine_net()
    net = copy.deepcopy(model)
    adam = torch.optim.Adam(net.parameters(), lr=0.02, betas=(0.0, 0.999))
    for _ in range(9):
        adam.zero_grad()
        ((net(data.x[0]) - data.y[0]) ** 2).mean().backward()
        adam.step()
    learner = CarryingReptile(model, mse_per_task, inner_steps=3, inner_lr=0.02)
    outer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        outer.zero_grad()
        learner(tasks).backward()
        outer.step()
    assert int(learner.steps_so_far) == 9
    torch.testing.assert_close(vector(model), vector(net), rtol=1e-8, atol=1e-10)


def test_adapting_leaves_the_moments_alone():
    learner, tasks = (
        CarryingReptile(sine_net(), mse_per_task, inner_steps=3, inner_lr=0.02),
        sinusoids(),
    )
    learner(tasks)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    learner.adapt(tasks.support)
    assert all(v.equal(before[k]) for k, v in learner.state_dict().items())
    assert (
        learner.second_moment.shape == vector(learner.loop.model).shape
        and learner.second_moment.dtype == torch.float64
    )


# ----------------------------------------------------------------------- resting points


@pytest.mark.parametrize("k", [1, 2, 6])
def test_resting_points_are_where_the_updates_vanish(k):
    tasks = LinearTasks(dim=3).sample(20, gen(4))
    whole = all_examples(tasks)
    model = nn.Linear(3, 1, bias=False).double()
    points = resting_points(*quadratic_form(whole), 0.1, k)
    both = TaskBatch(whole, whole)
    learners = {
        "Reptile": Reptile(model, mse_per_task, inner_steps=k, inner_lr=0.1),
        "MAML": MAML(model, mse_per_task, inner_steps=k, inner_lr=0.1),
        "FOMAML": MAML(
            model, mse_per_task, inner_steps=k, inner_lr=0.1, first_order=True
        ),
        "joint training": MAML(model, mse_per_task, inner_steps=0),
    }
    for name, learner in learners.items():
        model.weight.data = points[name][None].clone()
        at_rest = gradient(learner(tasks if name == "Reptile" else both), model).norm()
        model.weight.data += 0.1
        away = gradient(learner(tasks if name == "Reptile" else both), model).norm()
        assert at_rest < 1e-10 < away, name


def test_many_steps_give_every_task_one_vote():
    A, c = quadratic_form(all_examples(LinearTasks().sample(30, gen(5))))
    torch.testing.assert_close(
        resting_points(A, c, 0.1, 5000)["Reptile"], c.mean(0), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(
        resting_points(A, c, 0.1, 1)["Reptile"],
        resting_points(A, c, 0.1, 1)["joint training"],
    )


# --------------------------------------------------------------- the inductive protocol

# ---------------------------------------------------------------------------- bad input


def test_bad_input():
    with pytest.raises(ValueError, match="inner_steps must be at least 1, got 0"):
        Reptile(sine_net(), inner_steps=0)
    with pytest.raises(ValueError, match="inner_batch_size must be at least 1"):
        Reptile(sine_net(), inner_batch_size=0)
    for option in (
        {"learn_lr": True},
        {"first_order": True},
        {"memory": "adjoint"},
        {"states": 3},
    ):
        with pytest.raises(ValueError, match=next(iter(option))):
            Reptile(sine_net(), **option)
    with pytest.raises(ValueError, match="momentum from one task"):
        CarryingReptile(sine_net(), optimizer=Adam())
    with pytest.raises(ValueError, match="momentum from one task"):
        CarryingReptile(sine_net(), optimizer=SGD(0.9))
    with pytest.raises(ValueError, match="inner_steps must be at least 0, got -2"):
        Reptile(sine_net(), mse_per_task).adapt(sinusoids().support, -2)
    with pytest.raises(ValueError, match="curvature must have the shape"):
        resting_points(torch.eye(2), torch.zeros(1, 2), 0.1, 1)


def test_an_inner_loss_that_is_not_finite_is_reported():
    learner = Reptile(sine_net(), mse_per_task, inner_steps=60, inner_lr=1e4)
    with pytest.raises(RuntimeError, match="inner loss of task"):
        learner(sinusoids())


def test_descend_takes_the_state_that_it_is_given():
    tasks, learner = (
        sinusoids(),
        Reptile(sine_net(), mse_per_task, inner_lr=0.05, optimizer=SGD(0.9)),
    )
    batches = inner_batches(tasks.support, 6, None, gen())
    params, state, losses = descend(learner.loop, batches[:1], 4)
    again, _, _ = descend(learner.loop, batches[:1], 4, state)
    assert len(losses) == 1 and not again["0.weight"].equal(params["0.weight"])
