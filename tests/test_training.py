"""Meta-training: resuming, crashes, processes, other settings, bad input."""

import enum
import errno
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    SinusoidTasks,
    TaskBatch,
)
from metalearn_book.foundations.training import Best, Checkpoint, NotFinite, Update
from metalearn_book.foundations.training import Validation, describe_run
from metalearn_book.foundations.training import hyperparameters, load_checkpoint
from metalearn_book.foundations.training import meta_step, meta_train, run_differences
from metalearn_book.foundations.training import save_checkpoint
from metalearn_book.optimization.maml import MAML


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


CHILDREN = """
    import os, signal, sys, torch
    sys.path.insert(0, {tests!r})
    from test_training import Learner, TASKS, SETTINGS
    from metalearn_book.foundations.tasks import SinusoidTasks
    from metalearn_book.foundations.training import Checkpoint, meta_train
    torch.set_num_threads(1)

    class Tasks(SinusoidTasks):
        _draws = 0
        def sample(self, n_tasks, generator):
            if n_tasks == 4:
                self._draws += 1
                if self._draws == 18:
                    os.kill(os.getpid(), signal.Signals[kind])
            return super().sample(n_tasks, generator)

    for kind in ("SIGKILL", "SIGINT"):
        if pid := os.fork():
            print(kind, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        try:
            kept = Checkpoint(os.path.join({folder!r}, kind), every=5)
            tasks = Tasks(k_shot=5, n_query=5)
            meta_train(Learner(1), tasks, steps=30, checkpoint=kept, **SETTINGS)
        except KeyboardInterrupt as e:
            print("interrupted:", e, flush=True)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with the checkpoints of two runs, one killed at step 18 and one
    interrupted, and what they printed; both forked from one new process, whose imports
    take longer than the runs."""
    folder = tmp_path_factory.mktemp("stopped")
    code = CHILDREN.format(tests=os.path.dirname(__file__), folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


def test_a_killed_run_loses_less_than_one_interval(stopped):
    folder, said = stopped
    assert f"SIGKILL {-signal.SIGKILL}" in said
    assert load_checkpoint(folder / "SIGKILL")["run"]["step"] == 15
    Tasks = type(
        "Tasks", (SinusoidTasks,), {}
    )  # the same name, because a checkpoint knows the type of its tasks
    resumed = Learner(9)
    history = meta_train(
        resumed,
        Tasks(k_shot=5, n_query=5),
        steps=30,
        checkpoint=Checkpoint(folder / "SIGKILL", every=5),
        **SETTINGS,
    )
    whole = Learner(1)
    assert history == meta_train(whole, TASKS, steps=30, **SETTINGS)
    assert torch.equal(weights(resumed), weights(whole))


def test_an_interrupt_finishes_the_step_and_saves_it(stopped):
    folder, said = stopped
    assert (
        "interrupted: interrupted after step 18 of 30; the next call with the same "
        "settings goes on from" in said
    ), said
    assert load_checkpoint(folder / "SIGINT")["run"]["step"] == 18


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


def test_every_flipped_bit_of_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"weights": torch.ones(3), "step": 1})
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 61):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RuntimeError, match="can't be read.*Delete or move it"):
            load_checkpoint(path)
    torch.save({"weights": torch.ones(3)}, path)
    with pytest.raises(RuntimeError, match="written by an earlier version"):
        load_checkpoint(path)


def test_a_checkpoint_on_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1})

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"disk is full while writing .*c.pt \(disk /"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


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


# What a run is: settings, learner, data and version of its checkpoint.


def tiny_maml(inner_lr=0.01, inner_steps=1, first_order=False, act=nn.Tanh):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), act(), nn.Linear(4, 1))
    return MAML(
        net,
        mse_per_task,
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        first_order=first_order,
    )


def short_run(path, learner=None, tasks=TASKS, **options):
    options = dict(steps=2, tasks_per_step=2, progress=False) | options
    learner = tiny_maml() if learner is None else learner
    return meta_train(learner, tasks, checkpoint=Checkpoint(path), **options)


X, LABELS = torch.arange(40.0).view(20, 2), [f"c{i % 4}" for i in range(20)]


class Linear(nn.Linear):
    "Trains on anything: the loss does not look at the tasks."

    def __init__(self, loss=None):
        super().__init__(2, 1)
        self._loss = loss

    def adapt(self, support):
        return lambda x: x

    def forward(self, tasks):
        return (self.weight**2).sum() if self._loss is None else self._loss(self)


def class_tasks(x=X, labels=LABELS, classes=("c0", "c1", "c2")):
    return ClassTasks(x, labels, 2, 1, 1, classes=list(classes))


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(learner=lambda: tiny_maml(inner_steps=5)), "inner_steps: 1 then, 5 now"),
        (dict(learner=lambda: tiny_maml(inner_lr=0.1)), r"0.01\] then, \[0.1\] now"),
        (dict(learner=lambda: tiny_maml(first_order=True)), "first_order: False then"),
        (dict(learner=lambda: tiny_maml(act=nn.ReLU)), "Tanh then, ReLU now"),
        (
            dict(update=Update(optimizer=lambda p: torch.optim.SGD(p, lr=0.1))),
            "optimizer: Adam then, SGD now",
        ),
        (
            dict(
                update=Update(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 5))
            ),
            "schedule: None then",
        ),
        (dict(validation=Validation(TASKS, **ROUNDS)), "validation: None then"),
        (dict(seed=1), "seed: 0 then, 1 now"),
    ],
)
def test_another_setting_is_refused_by_name(tmp_path, changed, message):
    short_run(tmp_path / "c.pt")
    learner = changed.get("learner", tiny_maml)()
    options = {k: v for k, v in changed.items() if k != "learner"}
    with pytest.raises(ValueError, match=message):
        short_run(tmp_path / "c.pt", learner, steps=4, **options)


@pytest.mark.parametrize(
    "other, message",
    [
        (dict(classes=("c0", "c1", "c3")), r"tasks.classes: \['c0', 'c1', 'c2'\] then"),
        (dict(x=X + (torch.arange(40.0) == 7).view(20, 2)), "tasks.x: float32"),
        (dict(labels=LABELS[1:] + LABELS[:1]), "tasks.labels: "),
    ],
)
@pytest.mark.parametrize("where", ["tasks", "validation"])
def test_other_data_are_refused_by_name(tmp_path, other, message, where):
    def options(**changed):
        tasks = {"tasks": class_tasks(), "validation": class_tasks()}
        tasks[where] = class_tasks(**changed)
        validation = Validation(
            tasks["validation"], every=9, metric=lambda p, *_: p[:, 0, 0]
        )
        return dict(tasks=tasks["tasks"], validation=validation)

    short_run(tmp_path / "c.pt", Linear(), **options())
    short_run(tmp_path / "c.pt", Linear(), **options())
    message = (
        message if where == "tasks" else message.replace("tasks.", "validation.tasks.")
    )
    with pytest.raises(ValueError, match=message):
        short_run(tmp_path / "c.pt", Linear(), steps=4, **options(**other))


def test_a_schedule_of_another_length_is_refused(tmp_path):
    def cosine(total):
        return Update(
            schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total)
        )

    short_run(tmp_path / "c.pt", update=cosine(10))
    short_run(tmp_path / "c.pt", steps=3, update=cosine(10))
    with pytest.raises(ValueError, match="schedule.T_max: 10 then, 20 now"):
        short_run(tmp_path / "c.pt", steps=4, update=cosine(20))


def test_a_checkpoint_of_another_version_says_so(tmp_path):
    path = tmp_path / "c.pt"
    short_run(path)
    state = load_checkpoint(path)
    for version, named in (("0.1.7", "0.1.7"), (None, "0.2.0 or earlier")):
        state["version"] = version
        if version is None:
            del state["version"]
        save_checkpoint(path, state)
        with pytest.raises(ValueError, match=f"written by metalearn_book {named}"):
            short_run(path, steps=4)


def test_numpy_numbers_are_settings_and_can_be_read(tmp_path):
    options = dict(
        steps=np.int64(4),
        tasks_per_step=np.int32(2),
        seed=np.int64(0),
        outer_lr=np.float64(0.01),
        update=Update(
            clip_norm=np.float32(1.0),
            schedule=lambda o: torch.optim.lr_scheduler.StepLR(
                o, np.int64(2), gamma=np.float64(0.5)
            ),
        ),
        progress=False,
    )
    path = tmp_path / "c.pt"
    first = short_run(path, **options)
    assert short_run(path, **options) == first
    plain = dict(steps=6, tasks_per_step=2, seed=0, outer_lr=0.01, progress=False)
    assert len(short_run(path, **(options | plain)).loss) == 6

    own = Update(optimizer=lambda p: torch.optim.SGD(p, lr=np.logspace(-4, -3, 2)[0]))
    for _ in range(2):
        short_run(tmp_path / "own.pt", update=own)


def test_enums_paths_and_types_are_described_alike():
    class Kind(enum.Enum):
        SMALL = 1

    class Set(nn.Module):
        def __init__(self, **settings):
            super().__init__()
            self.__dict__.update(settings)

    values = dict(kind=Kind.SMALL, dtype=torch.bfloat16, n=np.int64(3), where=TMP)
    found = hyperparameters(Set(**values, rule=SimpleNamespace(momentum=0.9)))
    assert found["kind"] == "Kind.SMALL" and found["dtype"] == "torch.bfloat16"
    assert found["n"] == 3 and type(found["n"]) is int and found["where"] == str(TMP)
    assert found["rule"] == {"type": "SimpleNamespace", "momentum": 0.9}
    a, b = (hyperparameters(Set(table=list(range(n)))) for n in (500, 501))
    assert run_differences(a, b)[0].startswith("table: 500 entries ")
    speaks = Set()
    speaks.hyperparameters = lambda: {"depth": np.int64(2)}
    assert hyperparameters(speaks)["depth"] == 2


TMP = Path("somewhere/else")


def test_what_changes_while_training_is_said_and_does_not_stop_a_run(tmp_path):
    class Counting(Linear):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, tasks):
            self.calls += 1
            return super().forward(tasks)

    learner = Counting()
    with pytest.warns(UserWarning, match="training changes calls of the learner"):
        short_run(tmp_path / "c.pt", learner)
    with pytest.warns(UserWarning):
        assert len(short_run(tmp_path / "c.pt", learner, steps=3).loss) == 3


def test_a_state_that_cannot_be_read_is_not_written(tmp_path):
    class Extra(Linear):
        def get_extra_state(self):
            return SimpleNamespace(a=1)

        def set_extra_state(self, state):
            pass

    with pytest.raises(RuntimeError, match="could not be read again"):
        short_run(tmp_path / "c.pt", Extra())
    assert not (tmp_path / "c.pt").exists()


# Numbers that are none.


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_never_applied_or_saved(tmp_path, clip_norm):
    steep = Linear(lambda self: self.weight.abs().sqrt().sum())
    nn.init.zeros_(steep.weight)
    path, update = tmp_path / "c.pt", Update(clip_norm=clip_norm)
    with pytest.raises(NotFinite, match=r"outer step 0: .*\(in weight\).*outer_lr"):
        meta_train(
            steep,
            TASKS,
            steps=3,
            update=update,
            checkpoint=Checkpoint(path, every=1),
            progress=False,
        )
    assert not steep.weight.any() and steep.weight.grad is None and not path.exists()


def test_weights_that_overflow_are_not_saved(tmp_path):
    huge = Linear(lambda self: self.weight.sum() * 1e30)
    update = Update(optimizer=lambda p: torch.optim.SGD(p, lr=1e30), clip_norm=None)
    with pytest.raises(NotFinite, match="after outer step 1 a weight is not finite"):
        short_run(tmp_path / "c.pt", huge, update=update, steps=1)
    assert not (tmp_path / "c.pt").exists()


def test_sizes_that_do_not_fit_are_named():
    wide = TASKS.sample(2, torch.Generator().manual_seed(0))
    wide = wide.support.map(lambda t: t.expand(*t.shape[:2], 3))

    class Wide(SinusoidTasks):
        def sample(self, n_tasks, generator):
            return TaskBatch(*[Examples(wide.x[:n_tasks], wide.y[:n_tasks, :, :1])] * 2)

    with pytest.raises(ValueError, match="inputs of this form: support x ") as caught:
        meta_train(tiny_maml(), Wide(), steps=1, tasks_per_step=2, progress=False)
    assert "(2, 5, 3)" in str(caught.value) and "remedy" not in str(caught.value)
    with pytest.raises((RuntimeError, ValueError), match=r"\(2, 5, 3\)"):
        evaluate(tiny_maml(), Wide(), 2, metric=mse)
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    three = ClassTasks(X, LABELS, 3, 1, 1)
    with pytest.raises((RuntimeError, ValueError), match="0 to 2|2 logits|2 classes"):
        meta_train(MAML(net), three, steps=1, tasks_per_step=2, progress=False)
    with pytest.raises(ValueError, match="one value for each of 2 tasks"):
        evaluate(tiny_maml(), TASKS, 2, metric=lambda p, y, m: ((p - y) ** 2).mean())


# Tasks that draw from generators that no seed reaches.


class FromNumPy(SinusoidTasks):
    def sample(self, n_tasks, generator):
        np.random.rand()
        batch = super().sample(n_tasks, generator)
        y = batch.query.y + np.random.rand()
        return TaskBatch(batch.support, Examples(batch.query.x, y))


class FromPython(SinusoidTasks):
    def sample(self, n_tasks, generator):
        self.k_shot = random.choice([3, 4, 5, 6, 7])
        return super().sample(n_tasks, generator)


class FromTorch(SinusoidTasks):
    def sample(self, n_tasks, generator):
        batch = super().sample(n_tasks, generator)
        return TaskBatch(batch.support, batch.support.map(lambda t: t + torch.rand(1)))


class FromItsOwn(SinusoidTasks):
    def sample(self, n_tasks, generator):
        self.own = getattr(self, "own", None) or random.Random(0)
        batch = super().sample(n_tasks, generator)
        return TaskBatch(
            batch.support, batch.query.map(lambda t: t + self.own.random())
        )


class Seeding(SinusoidTasks):
    "Seeds NumPy's generator from its own: the same episodes for the same seed."

    def sample(self, n_tasks, generator):
        np.random.seed(int(torch.randint(1000, (1,), generator=generator)))
        batch = super().sample(n_tasks, generator)
        noise = np.random.rand()
        return TaskBatch(batch.support, batch.query.map(lambda t: t + noise))


@pytest.mark.parametrize(
    "kind, name",
    [(FromNumPy, "NumPy's"), (FromPython, "Python's"), (FromTorch, "torch's")],
)
def test_tasks_that_draw_from_elsewhere_are_noticed(tmp_path, kind, name):
    options = dict(steps=2, tasks_per_step=2, progress=False)
    with pytest.warns(UserWarning, match=f"draws from {name} global generator"):
        evaluate(tiny_maml(), kind(), 4, metric=mse)
    with pytest.warns(UserWarning, match=f"draws from {name} global generator"):
        meta_train(tiny_maml(), kind(), **options)
    if kind is not FromTorch:  # whose state is in the checkpoint
        learner = tiny_maml()
        before = weights(learner)
        with pytest.raises(RuntimeError, match="would go on with other numbers"):
            short_run(tmp_path / "c.pt", learner, kind())
        assert torch.equal(weights(learner), before)


def test_an_own_generator_is_noticed_and_seeding_is_not(tmp_path, recwarn):
    short_run(tmp_path / "c.pt", tasks=Seeding())
    evaluate(tiny_maml(), Seeding(), 4, metric=mse)
    assert not recwarn.list
    tasks = FromItsOwn()
    tasks.own = random.Random(0)
    with pytest.raises(RuntimeError, match="the generator FromItsOwn.own"):
        short_run(tmp_path / "own.pt", tasks=tasks)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Update(clip_norm=-1), "clip_norm of Update .* got -1"),
        (lambda: Update(clip_norm=math.nan), "clip_norm of Update .* got nan"),
        (lambda: Update(clip_norm=0), "a finite number above 0, got 0"),
        (lambda: Validation(TASKS, metric=mse), "higher_is_better=False"),
        (lambda: Checkpoint("c.pt", every=2.5), "whole number, got 2.5"),
        (lambda: meta_train(Learner(), TASKS, steps=1, outer_lr=math.nan), "outer_lr"),
        (lambda: meta_train(Learner(), TASKS, steps=1, outer_lr=-1), "got -1"),
        (lambda: meta_train(Learner(), TASKS, steps=1, outer_lr="fast"), "'fast'"),
        (lambda: meta_train(Learner(), TASKS, steps=1.5), "steps must be a whole"),
        (lambda: meta_train(Learner(), TASKS, steps=1, seed=None), "seed must be a"),
        (
            lambda: meta_train(
                Learner(),
                TASKS,
                steps=1,
                update=Update(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters())),
            ),
            "moves no parameter of this learner",
        ),
    ],
)
def test_numbers_that_make_no_run(make, message):
    with pytest.raises(ValueError, match=message):
        make()
