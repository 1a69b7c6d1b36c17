"""In-context regression: three seeds, and the gap to least squares over the steps.

    python benchmarks/in_context.py [--seeds 3] [--steps 10000]

The recipe of the chapter: sequences of 11 pairs of linear tasks with five inputs, four
layers of width 64, 64 sequences a step. Each seed is measured on the same 4,000 new
tasks, as the squared error above that of least squares, in units of prior variance. The
first seed is also trained for a quarter of the steps, and for a sixteenth. States are
kept where the chapter keeps its own, so that a restart goes on, and the chapter finds
the first seed trained. The numbers go to results/benchmarks/in_context.json, and the
targets to results/targets. A thousand steps take about 25 seconds of one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from metalearn_book.book.results import save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.data.upstream import cache_root
from metalearn_book.foundations.measuring import (
    Evaluation,
    over_seeds,
    paired_difference,
)
from metalearn_book.foundations.training import Checkpoint
from metalearn_book.language_models.in_context import (
    LinearPrompts,
    least_squares_answers,
    train_in_context,
)

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/in_context"
DIM, POINTS, TASKS, TESTS = 5, 11, 64, 4000
PROMPTS = LinearPrompts(DIM, POINTS)


def gaps(steps: int, seed: int) -> list[Evaluation]:
    "Error above least squares behind 0 to 10 pairs, of one seed after so many steps."
    folder = cache_root() / "in_context"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"linear-{DIM}-{POINTS}-{steps}-{TASKS}-{seed}.pt"
    model, _ = train_in_context(
        PROMPTS,
        steps=steps,
        tasks_per_step=TASKS,
        seed=seed,
        checkpoint=Checkpoint(path, every=500),
    )
    tasks = PROMPTS.sample(TESTS, torch.Generator().manual_seed(99))
    parts = tasks.support, tasks.query
    x, y = torch.cat([e.x for e in parts], 1), torch.cat([e.y for e in parts], 1)
    with torch.no_grad():
        errors = [
            (answers(x, y) - y).double().square() / DIM
            for answers in (model.answers, least_squares_answers)
        ]
    pairs = [[Evaluation(e[:, k], 0) for e in errors] for k in range(POINTS)]
    return [paired_difference(*pair) for pair in pairs]


def targets(found: dict, seeds: int) -> list[Target]:
    "The two of in-context regression."
    worst = max(range(DIM + 1), key=lambda k: found[k].mean)
    above = "error of in-context regression above least squares"
    limits = (
        "it is largest at k = d, where the matrix of the inputs is now and then nearly "
        "singular; it falls with the steps"
    )
    command = f"python {NAME}.py"
    return [
        Target(
            NAME, f"{above}, {what}", "prior variance", "at most", limit,
            found[k].mean, command, found[k].ci95, seeds, limits,
        )
        for what, limit, k in (("k = 2d", 0.05, 2 * DIM), ("k ≤ d", 0.1, worst))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    began, runs = time.perf_counter(), []
    for seed in range(args.seeds):
        runs.append(gaps(args.steps, seed))
        print(seed, *(f"{e.mean:.3f}" for e in runs[-1]), flush=True)
    found = {
        k: over_seeds([r[k] for r in runs]) if len(runs) > 1 else runs[0][k]
        for k in range(POINTS)
    }
    widest = max(range(DIM + 1), key=lambda k: found[k].mean)
    curve = {n: gaps(n, 0)[widest] for n in (args.steps // 16, args.steps // 4)}
    curve[args.steps] = runs[0][widest]
    plain = lambda e: {"mean": e.mean, "ci95": e.ci95}
    numbers = {
        "seeds": args.seeds,
        "gaps": {str(k): plain(e) for k, e in found.items()},
        "widest": str(widest),
        "over steps": {str(n): plain(e) for n, e in curve.items()},
    }
    save_results(
        NAME,
        numbers,
        seed=0,
        seconds=time.perf_counter() - began,
        config={"dim": DIM, "points": POINTS, "steps": args.steps, "tasks": TASKS},
    )
    save_targets("language_models", targets(found, args.seeds))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
