"""Speed and memory of the inner-loop engine against other ways, all in one run.

    benchmarks/rivals.sh && python benchmarks/inner_loop.py [--threads 2] [--quick]
        [--problems sinusoids omniglot gpt] [--steps 1 5] [--repeats 40] [--seconds 25]

The other ways are learn2learn, higher, TorchOpt, parallel-metalearn, iteryne, a plain
loop and vmap(grad). parallel-metalearn is called as it comes (all tasks under vmap),
one task after another ("sequential"), and with the batch normalization that it brings
("own norms"): through PyTorch's BatchNorm and LayerNorm its vmap gives the wrong
gradient of vmap(grad). Three problems: 25 sinusoid tasks on a small network, Omniglot
on a four-layer convolutional network, and a small GPT for memory against inner steps.
The meta-gradients of all ways are compared in float64 before anything is timed; a
library whose gradient is wrong is timed all the same, and marked. The ways are called
in turn, each round begins with another one, and a fast one is called several times in a
row until 50 ms are over, as training does; times are medians, ratios are medians of the
ratios within a round, with quartiles; the processor time of all threads is a second
opinion for a machine that is not idle. "MB" is the peak of the bytes of living tensors,
the same in each run; "RSS" how far the first call in a fresh process raises its
resident memory. The floor is the same examples through one shared network, forward and
backward, as often as the method needs: with k inner steps 2k + 1 times, in first order
k + 1 times. The numbers go to results/benchmarks/inner_loop.json; a run of some
problems leaves those of the others. A run with --quick is stored apart, and only where
METALEARN_RESULTS is set.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from measure import (
    SAME,
    Times,
    built,
    compare_gradients,
    peak_megabytes,
    quartiles,
    ratios,
    resident_in_fresh_process,
    resident_megabytes,
    time_in_turn,
)
from problems import PROBLEMS, SMALL, Problem
from rivals import load_rivals
from targets import show_targets, targets
from ways import FLOORS, WAYS, Way

from metalearn_book.book.results import load_results, save_results
from metalearn_book.book.targets import save_targets

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/inner_loop"
CHECKED_STEPS = 5
WEIGHED = (
    "engine",
    "engine, checkpoint",
    "engine, adjoint",
    "engine, all tasks at once",
    "python loop",
    "vmap(grad)",
    "learn2learn",
)
FASTER = "times as fast as "


def row_of(
    name: str,
    way: Way,
    times: Times,
    processor: Times,
    n_tasks: int,
    reference: str | None,
) -> dict:
    "What is stored of one way at one number of steps."
    by_clock = quartiles(times[name])
    row = {
        "ms": by_clock["median"],
        "ms, quartiles": by_clock["quartiles"],
        "tasks per second": 1000 * n_tasks / by_clock["median"],
        "processor ms": quartiles(processor[name])["median"],
        "rounds": len(times[name]),
    }
    if reference and name not in FLOORS:
        row[FASTER + reference] = ratios(times, reference, name)
        row[f"{FASTER}{reference}, by processor time"] = ratios(
            processor, reference, name
        )
    if name not in FLOORS:
        row["times the floor"] = ratios(
            times, name, "floor" if way.exact else "floor, first order"
        )
    return row


def measure(
    problem: Problem, steps: int, ways: dict[str, Way], most: int, seconds: float
) -> dict[str, dict]:
    "All ways at one number of inner steps."
    ways = {
        n: w
        for n, w in {**ways, **FLOORS}.items()
        if problem.name in w.problems and steps <= w.most_steps or n in FLOORS
    }
    runs = built(ways, problem, steps)
    megabytes = {name: peak_megabytes(run) for name, run in runs.items()}
    times, processor = time_in_turn(
        runs, most, seconds, f"{problem.name}, {steps} steps"
    )
    reference = next((n for n in ("learn2learn", "python loop") if n in runs), None)
    return {
        name: {
            **row_of(name, way, times, processor, len(problem.tasks), reference),
            "peak MB": megabytes[name],
        }
        for name, way in ways.items()
    }


def add_resident_memory(
    rows: dict[str, dict], problem: str, steps: int, threads: int
) -> None:
    "The second opinion on memory: one fresh process for each way."
    for name in rows:
        if name in WEIGHED:
            rows[name]["peak RSS, MB"] = resident_in_fresh_process(
                Path(__file__),
                "--one",
                problem,
                str(steps),
                name,
                "--threads",
                str(threads),
            )


def show(
    problem: str, steps: int, rows: dict[str, dict], gradients: dict[str, float | str]
) -> None:
    ratio = next((k for row in rows.values() for k in row if k.startswith(FASTER)), "")
    print(f"\n{problem}, {steps} inner step{'s'[: steps > 1]}")
    print(
        f"  {'way':<32}{'ms':>9}{'tasks/s':>9}  {ratio.replace(FASTER, 'x '):<22}"
        f"{'CPU ms':>9}{'x':>7}{'x floor':>9}{'MB':>9}{'RSS':>7}  gradient"
    )
    for name, row in rows.items():
        faster = (
            f"{row[ratio]['median']:.2f} ({row[ratio]['quartiles'][0]:.2f} to "
            f"{row[ratio]['quartiles'][1]:.2f})"
            if ratio in row
            else ""
        )
        by_processor = (
            f"{row[ratio + ', by processor time']['median']:.2f}"
            if ratio in row
            else ""
        )
        floors = (
            f"{row['times the floor']['median']:.2f}"
            if "times the floor" in row
            else ""
        )
        resident = row.get("peak RSS, MB", "")
        resident = resident if isinstance(resident, str) else f"{resident:.0f}"
        print(
            f"  {name:<32}{row['ms']:>9.2f}{row['tasks per second']:>9.1f}  "
            f"{faster:<22}{row['processor ms']:>9.2f}{by_processor:>7}{floors:>9}"
            f"{row['peak MB']:>9.2f}{resident:>7}  {verdict(gradients.get(name))}"
        )


def verdict(difference: float | str | None) -> str:
    if difference is None or isinstance(difference, str):
        return difference or ""
    return "same" if difference < SAME else f"WRONG by {100 * difference:.2g} %"


def run_problem(problem: Problem, args: argparse.Namespace, before: dict) -> dict:
    "The numbers of one problem; `before`, those of an earlier run."
    rivals, state = load_rivals()
    began, load = (
        time.perf_counter(),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )
    print(f"\n{problem.name}: {problem.what}", flush=True)
    for name, version in state.items():
        print(f"  {name}: {version}")
    gradients = compare_gradients({**WAYS, **rivals}, problem, CHECKED_STEPS)
    for name in [n for n, d in gradients.items() if isinstance(d, str)]:
        print(f"  {name} {gradients[name]}")
    working = {
        n: w for n, w in {**WAYS, **rivals}.items() if not isinstance(gradients[n], str)
    }
    numbers: dict = {
        "what": problem.what,
        "libraries": state,
        "difference of the gradient": gradients,
        "steps": dict(before.get("steps", {})) if args.steps else {},
    }
    for steps in args.steps or problem.steps:
        rows = measure(
            problem,
            steps,
            working,
            # beyond, few rounds: they are long, and it is memory that tells something
            args.repeats if steps <= 20 else min(args.repeats, 5),
            args.seconds,
        )
        if args.resident and (problem.name, steps) in (("omniglot", 5), ("gpt", 20)):
            add_resident_memory(rows, problem.name, steps, args.threads)
        show(problem.name, steps, rows, gradients)
        numbers["steps"][str(steps)] = rows
        sys.stdout.flush()
    return numbers | {
        "threads": args.threads,
        "load average at the start": load,
        "seconds": time.perf_counter() - began,
    }


def stored(name: str) -> dict:
    "The numbers of an earlier run, of which this one replaces a part."
    there = (
        os.environ.get("METALEARN_RESULTS")
        and Path(os.environ["METALEARN_RESULTS"], f"{name}.json").exists()
    )
    return load_results(name, missing={"numbers": {}})["numbers"] if there else {}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS)
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        help="inner steps to measure again; the rows of all others stay as they are",
    )
    parser.add_argument("--repeats", type=int, default=40, help="rounds at most")
    parser.add_argument(
        "--seconds",
        type=float,
        default=25,
        help="for the rounds of one problem with one number of steps; "
        "three rounds are made in any case",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny versions of the problems, two rounds, to see that everything runs",
    )
    parser.add_argument(
        "--no-resident",
        dest="resident",
        action="store_false",
        help="leave out the fresh processes that measure resident memory",
    )
    parser.add_argument(
        "--one",
        nargs=3,
        metavar=("PROBLEM", "STEPS", "WAY"),
        help="print by how many MB one call of one way raises resident memory",
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    if args.one:
        name, steps, way = args.one
        problem = PROBLEMS[name]()
        ways = {**WAYS, **load_rivals()[0]}
        print(
            resident_megabytes(
                ways[way].make(problem.network(), problem, problem.tasks, int(steps))
            )
        )
        return
    if args.quick:
        args.repeats, args.resident = min(args.repeats, 2), False
    else:
        os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    makers, name_of_results = (
        (SMALL, f"{NAME}_quick") if args.quick else (PROBLEMS, NAME)
    )
    numbers = stored(name_of_results)
    for name in args.problems:
        before = numbers.get(name, {})
        numbers[name] = run_problem(makers[name](), args, before)
        config = {k: v for k, v in vars(args).items() if k != "one"}
        save_results(
            name_of_results,
            numbers,
            seed=0,
            config=config,
            seconds=sum(numbers[n]["seconds"] for n in PROBLEMS if n in numbers),
        )
    if not args.quick:
        save_targets("foundations", targets(numbers))
    show_targets(targets(numbers))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
