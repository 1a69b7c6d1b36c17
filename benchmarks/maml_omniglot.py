"""Long runs of MAML on Omniglot with the settings of the paper, an hour or two of CPU.

    python benchmarks/maml_omniglot.py [--ways 5 20] [--hours 1.0] [--channels 32]
        [--episodes 600]

The settings are those of Finn et al., 2017, appendix A.1. 5-way 1-shot: one inner step
of rate 0.4 in training, three at test time. 20-way 1-shot: five steps of rate 0.1 in
both. Each setting trains until its processor time is used up, keeps a checkpoint under
_build/, and goes on from there when it is started again. The numbers go to
results/benchmarks/maml_omniglot.json, with the budget that was reached.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.foundations.training import Checkpoint
from metalearn_book.foundations.training import evaluate, meta_train
from metalearn_book.optimization.maml import MAML, AtSteps, OneAtATime, conv4

ROOT = Path(__file__).resolve().parent.parent
STAGE = 100  # meta-steps between two looks at the clock


@dataclass(frozen=True)
class Setting:
    n_way: int
    inner_lr: float
    inner_steps: int
    test_steps: int
    tasks_per_step: int  # the paper: 32 for 5-way and 16 for 20-way
    n_query: int  # in training, for each class
    test_queries: int


SETTINGS = {5: Setting(5, 0.4, 1, 3, 16, 2, 15), 20: Setting(20, 0.1, 5, 5, 4, 1, 5)}


def pools() -> tuple[tuple, tuple]:
    "Training and test drawings: 1,200 characters turned four ways, and 423 new ones."
    if not available("omniglot"):
        raise SystemExit(
            "Omniglot is not available: set METALEARN_DATA to the folder that holds "
            "it, or connect to the network"
        )
    images = load_dataset_by_name("omniglot")
    return images.where(part=("train", "validation")).tensors(
        rotations=(0, 90, 180, 270)
    ), images.where(part="test").tensors()


def train(
    learner: MAML, tasks: ClassTasks, s: Setting, hours: float, folder: Path
) -> tuple[int, float]:
    """Train in stages until the time is over; (meta-steps, hours of processor time) of
    all sittings together."""
    clock, path = folder / f"{s.n_way}-way.seconds", folder / f"{s.n_way}-way.pt"
    spent, done = (float(clock.read_text()) if clock.exists() else 0.0), 0
    while True:
        began, before = time.process_time(), done
        history = meta_train(
            learner,
            tasks,
            steps=done + STAGE,
            tasks_per_step=s.tasks_per_step,
            outer_lr=1e-3,
            checkpoint=Checkpoint(path, every=STAGE),
            progress=False,
        )
        done = len(history.loss)
        if (
            done > before + STAGE or before == done
        ):  # the first stage reads the checkpoint and trains nothing
            continue
        spent += time.process_time() - began
        clock.write_text(f"{spent:.1f}")
        loss = sum(history.loss[-STAGE:]) / STAGE
        print(
            f"{s.n_way}-way: {done:,} meta-steps, outer loss {loss:.3f}, "
            f"{spent / 60:.1f} of {60 * hours:.0f} CPU minutes",
            flush=True,
        )
        if spent > 3600 * hours:
            return done, spent / 3600


def run(
    s: Setting,
    train_pool: tuple,
    test_pool: tuple,
    channels: int,
    hours: float,
    episodes: int,
    folder: Path,
) -> dict:
    "Train one setting and measure it, transductive and inductive."
    torch.manual_seed(0)
    learner = MAML(
        conv4(s.n_way, channels), inner_lr=s.inner_lr, inner_steps=s.inner_steps
    )
    steps, took = train(
        learner, ClassTasks(*train_pool, s.n_way, 1, s.n_query), s, hours, folder
    )
    test = ClassTasks(*test_pool, s.n_way, 1, s.test_queries)
    view = AtSteps(learner, s.test_steps)
    found = {
        name: evaluate(v, test, episodes, tasks_per_batch=10)
        for name, v in (("transductive", view), ("inductive", OneAtATime(view)))
    }
    print(
        f"{s.n_way}-way 1-shot after {steps:,} meta-steps:",
        {name: str(value) for name, value in found.items()},
        flush=True,
    )
    return {
        **found,
        "meta-steps": steps,
        "tasks per step": s.tasks_per_step,
        "channels": channels,
        "hours": took,
        "inner rate": s.inner_lr,
        "inner steps": s.inner_steps,
        "steps at test time": s.test_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ways",
        type=int,
        nargs="+",
        default=sorted(SETTINGS),
        choices=sorted(SETTINGS),
    )
    parser.add_argument(
        "--hours",
        type=float,
        default=1.0,
        help="processor time of training for each setting, over all sittings",
    )
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    folder = ROOT / "_build" / f"maml_omniglot_{args.channels}"
    folder.mkdir(parents=True, exist_ok=True)
    train_pool, test_pool = pools()
    for ways in args.ways:
        found = run(
            SETTINGS[ways],
            train_pool,
            test_pool,
            args.channels,
            args.hours,
            args.episodes,
            folder,
        )
        numbers = load_results("benchmarks/maml_omniglot", missing={"numbers": {}})[
            "numbers"
        ]
        save_results(
            "benchmarks/maml_omniglot",
            {**numbers, f"{ways}-way": found},
            seed=0,
            config={k: v for k, v in vars(args).items() if k != "ways"},
            seconds=3600 * found["hours"],
        )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
