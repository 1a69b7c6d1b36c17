"""MAML on sinusoids at the published length: 70,000 meta-iterations of 25 tasks.

    python benchmarks/maml_sinusoid.py [--iterations 70000] [--rates 0.01 0.001]
        [--shots 10 5] [--episodes 4000]

As in Finn et al., 2017, section 5.1: network 1-40-40-1, one inner step in training,
Adam 1e-3 outside. Each start is measured after 1 and 10 steps on fixed test tasks with
5 and 10 support points and 100 query points. A mean alone misleads here: on a few tasks
ten steps diverge, so medians, percentiles and the number of such tasks are stored with
it. A run keeps a checkpoint under _build/ and goes on from there; with checkpoints of
all runs only the measurement is made again. The numbers go to
results/benchmarks/maml_sinusoid.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from metalearn_book.book.results import load_results, save_results
from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.tasks import SinusoidTasks
from metalearn_book.foundations.training import Checkpoint
from metalearn_book.foundations.training import Evaluation, evaluate, meta_train, mse
from metalearn_book.optimization.maml import MAML, AtSteps

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/maml_sinusoid"
TASKS_PER_STEP, DIVERGED = (
    25,
    10.0,
)  # an error above 10 is more than twice what the best constant answer makes on average
STAGE = 1000  # meta-steps between two checkpoints


def sine_net(seed: int) -> nn.Sequential:
    """The network of the paper: one input, two hidden layers of 40 ReLU units, one
    output."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
    )


def summary(result: Evaluation) -> dict:
    """Mean with its 95 % interval, median, 90th and 99th percentile, and how many tasks
    diverged."""
    values = torch.nan_to_num(result.values.double(), nan=torch.inf)
    ranked = values.sort().values

    def percentile(
        p: int,
    ) -> float:  # an observed value: interpolation with an infinite one would give NaN
        return ranked[min(len(ranked) - 1, len(ranked) * p // 100)].item()

    return {
        "mean": result.mean,
        "ci95": result.ci95,
        "n": len(result),
        "seed": result.seed,
        "median": ranked.median().item(),
        "90th percentile": percentile(90),
        "99th percentile": percentile(99),
        f"error above {DIVERGED:g}": (values > DIVERGED).sum().item(),
    }


def train(
    rate: float, shots: int, iterations: int, seed: int, folder: Path
) -> tuple[MAML, float]:
    """The trained learner, and the seconds of training over all sittings; checkpoint
    and clock are written together after each stage."""
    learner = MAML(
        sine_net(seed), mse_per_task, inner_lr=rate, inner_steps=1, check_finite=False
    )
    path = folder / f"rate_{rate:g}_shots_{shots}_seed_{seed}.pt"
    clock, tasks = (
        path.with_suffix(".seconds"),
        SinusoidTasks(k_shot=shots, n_query=shots),
    )
    spent = float(clock.read_text()) if clock.exists() and path.exists() else 0.0

    def train_to(step: int) -> int:
        return len(
            meta_train(
                learner,
                tasks,
                steps=step,
                tasks_per_step=TASKS_PER_STEP,
                outer_lr=1e-3,
                seed=seed,
                checkpoint=Checkpoint(path, every=iterations),
                progress=False,
            ).loss
        )

    done = train_to(1)  # reads the checkpoint, if there is one
    if done > iterations:
        raise SystemExit(
            f"{path} has {done:,} meta-iterations, more than the {iterations:,} asked "
            "for; remove it to train anew"
        )
    with tqdm(total=iterations, initial=done, desc=path.stem, unit="iteration") as bar:
        while done < iterations:
            began, before = time.perf_counter(), done
            done = train_to(min(done + STAGE, iterations))
            spent += time.perf_counter() - began
            clock.write_text(f"{spent:.1f}")
            bar.update(done - before)
    return learner, spent


def measure(learner: MAML, episodes: int) -> dict:
    "The test error after 1 and 10 steps on 5 and on 10 support points."
    found = {}
    for shots in (10, 5):
        for steps in (1, 10):
            result = evaluate(
                AtSteps(learner, steps),
                SinusoidTasks(shots, 100),
                episodes,
                metric=mse,
                tasks_per_batch=250,
            )
            found[f"{shots} shots, {steps} step{'s'[: steps > 1]}"] = summary(result)
    return found


def show(name: str, found: dict) -> None:
    print(name)
    print(f"  {'':<20}{'mean ± 95 %':>20}{'median':>9}{'90 %':>9}{'99 %':>9}  diverged")
    for case, s in found.items():
        if isinstance(s, dict):
            print(
                f"  {case:<20}{s['mean']:>11.4g} ± {s['ci95']:<6.2g}{s['median']:>9.3f}"
                f"{s['90th percentile']:>9.3f}{s['99th percentile']:>9.3f}"
                f"{s[f'error above {DIVERGED:g}']:>6} of {s['n']}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.01, 0.001],
        help="inner learning rates, in training and at test time",
    )
    parser.add_argument(
        "--shots",
        type=int,
        nargs="+",
        default=[10, 5],
        help="support points in training",
    )
    parser.add_argument("--episodes", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are too small to share
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    folder = ROOT / "_build" / "maml_sinusoid"
    folder.mkdir(parents=True, exist_ok=True)
    for shots in args.shots:
        for rate in args.rates:
            name = f"inner rate {rate:g}, trained on {shots} shots"
            print(name, flush=True)
            learner, seconds = train(rate, shots, args.iterations, args.seed, folder)
            found = {
                **measure(learner, args.episodes),
                "meta-iterations": args.iterations,
                "seconds of training": seconds,
            }
            show(name, found)
            numbers = load_results(NAME, missing={"numbers": {}})["numbers"]
            numbers = {**numbers, name: found}
            save_results(
                NAME,
                numbers,
                seed=args.seed,
                config={
                    "iterations": args.iterations,
                    "episodes": args.episodes,
                    "tasks per step": TASKS_PER_STEP,
                },
                seconds=sum(run["seconds of training"] for run in numbers.values()),
            )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
