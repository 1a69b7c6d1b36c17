"""Check, time and weigh several ways of one computation, in turn and in one run."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from problems import Problem
from torch import Tensor
from tqdm.auto import tqdm
from ways import Run, Way

from metalearn_book.foundations.inner_loop import PeakMemory
from metalearn_book.foundations.tasks import Examples, TaskBatch

# relative difference of two exact meta-gradients in float64; rounding makes 1e-13, a
# wrong derivative 1e-4 and more
SAME = 1e-8


def doubled(tasks: TaskBatch) -> TaskBatch:
    def part(e: Examples) -> Examples:
        return e.map(lambda t: t.double() if t.is_floating_point() else t)

    return TaskBatch(part(tasks.support), part(tasks.query))


def gradient(way: Way, problem: Problem, tasks: TaskBatch, steps: int) -> Tensor:
    """The meta-gradient in float64, of the second call: the first must leave nothing
    behind."""
    network = problem.network().double()
    run = way.make(network, problem, doubled(tasks), steps)
    run(), run()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def compare_gradients(
    ways: dict[str, Way], problem: Problem, steps: int, n_tasks: int = 3
) -> dict[str, float | str]:
    """Relative difference of each way's meta-gradient from that of the plain loop,
    first order from first order; what failed says why.

    RuntimeError if a way of the book's own engine differs: its times would mean
    nothing.
    """
    tasks = problem.tasks[:n_tasks]
    reference = {
        exact: gradient(
            ways["python loop" if exact else "python loop, first order"],
            problem,
            tasks,
            steps,
        )
        for exact in (True, False)
    }
    found: dict[str, float | str] = {}
    for name, way in ways.items():
        try:
            found[name] = (
                (gradient(way, problem, tasks, steps) - reference[way.exact]).norm()
                / reference[way.exact].norm()
            ).item()
        except (
            Exception
        ) as error:  # a library that can't do it is a result of this comparison
            if name.startswith("engine"):
                raise
            said = str(error).splitlines()[0][:120] if str(error) else ""
            found[name] = f"fails: {type(error).__name__}: {said}"
        if name.startswith("engine") and not found[name] < SAME:
            raise RuntimeError(
                f"{problem.name}: {name} and the python loop disagree by "
                f"{found[name]:.1g} (relative, float64)"
            )
    return found


def built(ways: dict[str, Way], problem: Problem, steps: int) -> dict[str, Run]:
    """Each way on a network of its own, called once: first calls check more, and
    allocate."""
    runs = {
        name: way.make(problem.network(), problem, problem.tasks, steps)
        for name, way in ways.items()
    }
    for run in runs.values():
        run()
    return runs


Times = dict[str, list[float]]


def timed(run: Run, shortest: float) -> tuple[float, float]:
    """Milliseconds of one call, by the clock and of the processors: the mean over as
    many calls in a row as take `shortest` ms."""
    calls, start, start_cpu = 0, time.perf_counter(), time.process_time()
    while calls == 0 or 1000 * (time.perf_counter() - start) < shortest:
        run()
        calls += 1
    return 1000 * (time.perf_counter() - start) / calls, 1000 * (
        time.process_time() - start_cpu
    ) / calls


def time_in_turn(
    runs: dict[str, Run], most: int, seconds: float, label: str, shortest: float = 50.0
) -> tuple[Times, Times]:
    """Milliseconds of each way in each round: by the clock, and of the processors.

    As many rounds as fit into `seconds`, but 3 to `most`. A turn lasts at least
    `shortest` ms, with several calls in a row if one is faster: training repeats the
    same step, so its data are in the caches. Processor time, of all threads together,
    also counts where other programs take their share of the machine.
    """
    names, times, processor = (
        list(runs),
        {name: [] for name in runs},
        {name: [] for name in runs},
    )
    began, rounds = time.perf_counter(), most
    with tqdm(total=most * len(runs), desc=label, leave=False, unit="run") as bar:
        r = 0
        while r < rounds:
            gc.collect()
            for name in (
                names[r % len(names) :] + names[: r % len(names)]
            ):  # who comes first may pay for the pause
                by_clock, by_processor = timed(runs[name], shortest)
                times[name].append(by_clock)
                processor[name].append(by_processor)
                bar.update()
            r += 1
            rounds = min(
                most,
                max(min(3, most), int(seconds * r / (time.perf_counter() - began))),
            )
            bar.total = max(rounds, r) * len(runs)
    return times, processor


def quartiles(values: list[float]) -> dict[str, float]:
    "Median and the quartiles."
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive")
        if len(values) > 1
        else values * 3
    )
    return {"median": middle, "quartiles": [low, high]}


def ratios(times: Times, of: str, over: str) -> dict[str, float]:
    """Median and quartiles of the ratio within each round: what slows the machine for a
    while slows both."""
    return quartiles([a / b for a, b in zip(times[of], times[over])])


def peak_megabytes(run: Run) -> float:
    """Bytes of the tensors that are alive at once during one call, the same number each
    time; the network itself is not counted."""
    gc.collect()
    with PeakMemory() as memory:
        run()
    return memory.peak / 1e6


def _peak_resident() -> float:
    """Peak of this process's resident memory in MB: since the last reset on Linux,
    since its start elsewhere."""
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(
                int(line.split()[1])
                for line in status.read_text().splitlines()
                if line.startswith("VmHWM")
            )
            * 1024
            / 1e6
        )
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e6
    )


def resident_megabytes(run: Run) -> float:
    """How far one call raises the resident memory of this process at its peak; only the
    first call in a fresh process tells something."""
    try:
        # Linux: the peak starts again from what is resident now, not from that of the
        # imports
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    before = _peak_resident()
    run()
    return _peak_resident() - before


def resident_in_fresh_process(script: Path, *arguments: str) -> float | str:
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True
    )
    return (
        float(done.stdout.split()[-1])
        if done.returncode == 0
        else f"fails: {done.stderr.strip().splitlines()[-1][:120]}"
    )
