"""Meta-training and measuring: resuming, crashes, processes, intervals, bad input."""

import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    SinusoidTasks,
    TaskBatch,
)
from metalearn_book.foundations.training import (
    _T975,
    Best,
    Checkpoint,
    Evaluation,
    Update,
    Validation,
    accuracy,
    describe_run,
    evaluate,
    load_checkpoint,
    meta_step,
    meta_train,
    mse,
    over_seeds,
    paired_difference,
    run_differences,
    save_checkpoint,
)


class Learner(nn.Module):
    "A small network with dropout, adapted by one gradient step."

    def __init__(self, seed=0, dropout=0.2):
        super().__init__()
        torch.manual_seed(seed)
        self.loop = InnerLoop(
            nn.Sequential(
                nn.Linear(1, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)
            ),
            mse_per_task,
            inner_lr=0.05,
        )

    def adapt(self, support):
        return self.loop.adapt(support)

    def forward(self, tasks):
        return mse_per_task(
            self.adapt(tasks.support)(tasks.query.x), tasks.query.y
        ).mean()


TASKS = SinusoidTasks(k_shot=5, n_query=5)
ROUNDS = dict(every=4, episodes=8, metric=mse, higher_is_better=False)
SETTINGS = dict(
    tasks_per_step=4, validation=Validation(TASKS, **ROUNDS), progress=False
)


def weights(learner):
    return torch.cat([v.flatten() for v in learner.state_dict().values()])


@pytest.mark.parametrize("stop_at", [1, 4, 7, 12])
@pytest.mark.parametrize(
    "optimizer", [None, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)]
)
def test_a_resumed_run_gives_the_same_numbers(tmp_path, stop_at, optimizer):
    schedule = lambda o: torch.optim.lr_scheduler.StepLR(o, 5, gamma=0.5)
    whole, history = Learner(1), None
    update = Update(optimizer=optimizer, schedule=schedule)
    history = meta_train(whole, TASKS, steps=16, update=update, **SETTINGS)

    class Stop(SinusoidTasks):
        "Fails at the draw of one step, after the checkpoint of the step before."

        def sample(self, n_tasks, generator):
            self._count = getattr(self, "_count", 0) + 1
            if self._count == stop_at + 1:
                raise InterruptedError
            return super().sample(n_tasks, generator)

    tasks = Stop(k_shot=5, n_query=5)
    options = dict(
        steps=16,
        update=update,
        checkpoint=Checkpoint(tmp_path / "c.pt", every=1),
        **SETTINGS,
    )
    with pytest.raises(InterruptedError):
        meta_train(Learner(1), tasks, **options)
    assert load_checkpoint(tmp_path / "c.pt")["run"]["step"] == stop_at
    torch.manual_seed(777)
    resumed = Learner(5)
    assert meta_train(resumed, tasks, **options) == history
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_is_not_trained_again_and_can_be_made_longer(tmp_path):
    options = dict(
        checkpoint=Checkpoint(tmp_path / "c.pt"), tasks_per_step=4, progress=False
    )
    meta_train(Learner(1), TASKS, steps=6, **options)
    again = Learner(2)
    assert len(meta_train(again, TASKS, steps=6, **options).loss) == 6
    longer = Learner(3)
    history = meta_train(longer, TASKS, steps=9, **options)
    whole = Learner(1)  # made last: dropout draws from the random state that it leaves
    assert (
        history.loss
        == meta_train(whole, TASKS, steps=9, tasks_per_step=4, progress=False).loss
    )
    assert torch.equal(weights(longer), weights(whole))


def test_patience_stops_restores_the_best_weights_and_stays_stopped(tmp_path):
    learner = Learner(1)
    options = dict(
        steps=500,
        tasks_per_step=4,
        outer_lr=1.0,  # so large a rate ruins the start
        validation=Validation(TASKS, patience=2, **ROUNDS),
        checkpoint=Checkpoint(tmp_path / "c.pt"),
        progress=False,
    )
    history = meta_train(learner, TASKS, **options)
    assert len(history.loss) < 500 and "in 2 rounds" in history.stopped
    assert history.best_step == history.val_step[history.val.index(min(history.val))]
    assert history.val_step[-1] - history.best_step == 2 * ROUNDS["every"]
    assert evaluate(learner, TASKS, 8, seed=54321, metric=mse).mean == min(history.val)
    other = Learner(4)
    assert meta_train(other, TASKS, **options).loss == history.loss
    assert torch.equal(weights(other), weights(learner))


CHILD = """
    import os, signal, sys, torch
    sys.path.insert(0, {tests!r})
    from test_training import Learner, TASKS, SETTINGS
    from metalearn_book.foundations.tasks import SinusoidTasks
    from metalearn_book.foundations.training import Checkpoint, meta_train

    class Tasks(SinusoidTasks):
        _draws = 0
        def sample(self, n_tasks, generator):
            if n_tasks == 4:
                self._draws += 1
                if self._draws == {at}:
                    os.kill(os.getpid(), signal.{kind})
            return super().sample(n_tasks, generator)
    torch.set_num_threads(1)
    try:
        kept = Checkpoint({path!r}, every=5)
        tasks = Tasks(k_shot=5, n_query=5)
        meta_train(Learner(1), tasks, steps=30, checkpoint=kept, **SETTINGS)
    except KeyboardInterrupt as e:
        print("interrupted:", e)
"""


def child(tmp_path, at, kind):
    code = textwrap.dedent(
        CHILD.format(
            tests=os.path.dirname(__file__),
            at=at,
            kind=kind,
            path=str(tmp_path / "c.pt"),
        )
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_killed_run_loses_less_than_one_interval(tmp_path):
    done = child(tmp_path, 18, "SIGKILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_checkpoint(tmp_path / "c.pt")["run"]["step"] == 15
    Tasks = type(
        "Tasks", (SinusoidTasks,), {}
    )  # the same name, because a checkpoint knows the type of its tasks
    resumed = Learner(9)
    history = meta_train(
        resumed,
        Tasks(k_shot=5, n_query=5),
        steps=30,
        checkpoint=Checkpoint(tmp_path / "c.pt", every=5),
        **SETTINGS,
    )
    whole = Learner(1)
    assert history == meta_train(whole, TASKS, steps=30, **SETTINGS)
    assert torch.equal(weights(resumed), weights(whole))


def test_an_interrupt_finishes_the_step_and_saves_it(tmp_path):
    done = child(tmp_path, 18, "SIGINT")
    assert (
        "interrupted: interrupted after step 18 of 30; the next call with the same "
        "settings goes on from" in done.stdout
    ), done.stderr
    assert load_checkpoint(tmp_path / "c.pt")["run"]["step"] == 18


PAIR = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from accelerate import Accelerator
    from test_training import Learner, TASKS, Doubles
    from metalearn_book.foundations.training import Checkpoint, Update, meta_train
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    learner = Learner(1, dropout=0.0).double()
    update = Update(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), clip_norm=1.0)
    tasks, options = Doubles(k_shot=5, n_query=5), dict(steps=3, tasks_per_step=6)
    options |= dict(update=update, checkpoint=Checkpoint({path!r}), progress=False)
    history = meta_train(learner, tasks, accelerator=accelerator, **options)
    if accelerator.is_main_process:
        torch.save({{"loss": history.loss, "weights": learner.state_dict()}}, {out!r})
"""


class Doubles(SinusoidTasks):
    def sample(self, n_tasks, generator):
        b = super().sample(n_tasks, generator)
        return TaskBatch(
            b.support.map(torch.Tensor.double), b.query.map(torch.Tensor.double), b.info
        )


def test_two_processes_give_the_meta_gradient_of_one(tmp_path):
    script = tmp_path / "pair.py"
    script.write_text(
        textwrap.dedent(
            PAIR.format(
                tests=os.path.dirname(__file__),
                path=str(tmp_path / "c.pt"),
                out=str(tmp_path / "out.pt"),
            )
        )
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            str(script),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    single = Learner(1, dropout=0.0).double()
    start = weights(single).clone()
    history = meta_train(
        single,
        Doubles(k_shot=5, n_query=5),
        steps=3,
        tasks_per_step=6,
        update=Update(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), clip_norm=1.0),
        progress=False,
    )
    pair = torch.load(tmp_path / "out.pt")
    assert torch.tensor(pair["loss"]).double() == pytest.approx(
        torch.tensor(history.loss).double(), abs=1e-6
    )
    moved = (weights(single) - start).abs().max()
    apart = max(
        (pair["weights"][k] - v).abs().max() for k, v in single.state_dict().items()
    )
    assert moved > 1e-3 and apart < 1e-6 * moved
    assert load_checkpoint(tmp_path / "c.pt")["run"]["step"] == 3


def test_an_accelerator_in_one_process_changes_nothing():
    from accelerate import Accelerator

    plain, other = Learner(1), Learner(1)
    a = meta_train(plain, TASKS, steps=4, tasks_per_step=4, progress=False)
    torch.manual_seed(1)
    Learner(1)
    b = meta_train(
        other,
        TASKS,
        steps=4,
        tasks_per_step=4,
        accelerator=Accelerator(cpu=True),
        progress=False,
    )
    assert a.loss == b.loss and torch.equal(weights(plain), weights(other))


def test_checkpoints_refuse_what_is_not_theirs(tmp_path):
    path = tmp_path / "c.pt"
    meta_train(
        Learner(1),
        TASKS,
        steps=2,
        tasks_per_step=4,
        checkpoint=Checkpoint(path),
        progress=False,
    )
    with pytest.raises(ValueError, match="validation: None then, "):
        meta_train(Learner(1), TASKS, steps=4, checkpoint=Checkpoint(path), **SETTINGS)
    update = Update(clip_norm=1.0)
    with pytest.raises(ValueError, match="clip_norm: 10.0 then, 1.0 now"):
        meta_train(
            Learner(1),
            TASKS,
            steps=4,
            tasks_per_step=4,
            update=update,
            checkpoint=Checkpoint(path),
            progress=False,
        )
    with pytest.raises(ValueError, match="outer_lr: 0.001 then, 0.1 now"):
        meta_train(
            Learner(1),
            TASKS,
            steps=4,
            tasks_per_step=4,
            outer_lr=0.1,
            checkpoint=Checkpoint(path),
            progress=False,
        )
    with pytest.raises(ValueError, match="tasks.k_shot: 5 then, 7 now"):
        meta_train(
            Learner(1),
            SinusoidTasks(k_shot=7, n_query=5),
            steps=4,
            tasks_per_step=4,
            checkpoint=Checkpoint(path),
            progress=False,
        )
    save_checkpoint(path, {"something": 1})
    with pytest.raises(RuntimeError, match="not written by meta_train"):
        meta_train(
            Learner(1),
            TASKS,
            steps=4,
            tasks_per_step=4,
            checkpoint=Checkpoint(path),
            progress=False,
        )
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(RuntimeError, match="Delete or move it"):
        meta_train(
            Learner(1),
            TASKS,
            steps=4,
            tasks_per_step=4,
            checkpoint=Checkpoint(path),
            progress=False,
        )
    assert path.read_bytes() == b"not a checkpoint"  # nothing is overwritten


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_checkpoint(path, {"step": 2, "can't be stored": lambda: 0})
    assert load_checkpoint(path) == {"step": 1}


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(steps=0), "steps must be at least 1"),
        (dict(tasks_per_step=0), "tasks_per_step must be at least 1"),
        (
            dict(
                tasks_per_step=5,
                accelerator=SimpleNamespace(num_processes=2, process_index=0),
            ),
            "shared equally by 2",
        ),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        meta_train(Learner(), TASKS, **{"steps": 2, "progress": False, **settings})


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: Checkpoint("c.pt", every=0),
            "every of Checkpoint must be at least 1, got 0",
        ),
        (lambda: Validation(TASKS, every=0), "every of Validation must be at least 1"),
        (
            lambda: Validation(TASKS, episodes=0),
            "episodes of Validation must be at least 1",
        ),
        (
            lambda: Validation(TASKS, patience=0),
            "patience of Validation must be at least 1",
        ),
    ],
)
def test_options_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_options_cannot_be_changed():
    for options, name in (
        (Checkpoint("c.pt"), "every"),
        (Validation(TASKS), "every"),
        (Update(), "clip_norm"),
    ):
        with pytest.raises(AttributeError):
            setattr(options, name, 3)


def test_a_loss_that_is_not_a_scalar_or_not_finite():
    learner = Learner()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    before = weights(learner).clone()
    batch = TASKS.sample(2, torch.Generator().manual_seed(0))
    bad = TaskBatch(batch.support, Examples(batch.query.x, batch.query.y * math.inf))
    with pytest.raises(RuntimeError, match="outer loss is"):
        meta_step(learner, bad, optimizer)
    assert torch.equal(weights(learner), before)

    class Vector(nn.Linear):
        def forward(self, tasks):
            return self.weight.flatten()

    with pytest.raises(ValueError, match="must return a scalar"):
        meta_step(Vector(2, 2), batch, optimizer)


def test_training_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(
            meta_train(Learner(1), TASKS, steps=2, tasks_per_step=2, progress=False)
        )
    )
    thread.start()
    thread.join()
    assert len(found[0].loss) == 2


def test_tensorboard_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match="pip install tensorboard"):
        meta_train(Learner(), TASKS, steps=1, log_dir=tmp_path, progress=False)


def test_evaluation_leaves_the_learner_as_it_was():
    learner = Learner()
    learner.train()
    rng = torch.get_rng_state()
    first, second = (
        evaluate(learner, TASKS, 30, metric=mse, tasks_per_batch=7),
        evaluate(learner, TASKS, 30, metric=mse, tasks_per_batch=7),
    )
    assert torch.equal(first.values, second.values) and len(first) == 30
    assert all(m.training for m in learner.modules()) and torch.equal(
        rng, torch.get_rng_state()
    )
    assert all(p.grad is None for p in learner.parameters())


def test_intervals_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = torch.rand(
        50, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert Evaluation(values, 0).ci95 == pytest.approx((high - low) / 2, rel=1e-4)
    assert _T975 == pytest.approx(
        [stats.t.ppf(0.975, df) for df in range(1, 31)], abs=6e-4
    )
    low, high = stats.t.interval(0.95, 4, values[:5].mean(), stats.sem(values[:5]))
    assert over_seeds(
        [Evaluation(v[None], 0) for v in values[:5]]
    ).ci95 == pytest.approx((high - low) / 2, rel=1e-3)
    a, b = Evaluation(values, 0), Evaluation(values.flip(0), 0)
    test = stats.ttest_rel(a.values, b.values)
    assert paired_difference(a, b).mean / (
        paired_difference(a, b).ci95 / 1.96
    ) == pytest.approx(test.statistic, abs=1e-6)


def test_metrics_with_masks_ignore_what_is_masked():
    g = torch.Generator().manual_seed(0)
    logits, y = (
        torch.randn(3, 6, 4, generator=g),
        torch.randint(0, 4, (3, 6), generator=g),
    )
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 3).bool()
    assert torch.allclose(accuracy(logits, y, mask), accuracy(logits[:, :4], y[:, :4]))
    target = torch.randn(3, 6, 2, generator=g)
    assert torch.allclose(
        mse(logits[..., :2], target, mask), mse(logits[:, :4, :2], target[:, :4])
    )
    assert torch.allclose(
        mse(logits[..., 0], target[..., 0]),
        ((logits[..., 0] - target[..., 0]) ** 2).mean(1),
    )


def test_best_keeps_a_copy():
    layer, best = nn.Linear(1, 1), Best()
    best.update(1.0, layer)
    with torch.no_grad():
        layer.weight += 1
    assert not torch.equal(best.weights["weight"], layer.weight)


def test_descriptions_of_real_task_distributions():
    x, labels = torch.zeros(40, 3), [f"c{i % 4}" for i in range(40)]
    a = describe_run(nn.Linear(3, 1), ClassTasks(x, labels, 2, 1, 3), seed=0)
    b = describe_run(nn.Linear(3, 1), ClassTasks(x, labels, 2, 2, 3), seed=1)
    found = run_differences(a, b)
    assert (
        "seed: 0 then, 1 now" in found
        and any("k_shot" in f for f in found)
        and len(found) >= 2
    )
