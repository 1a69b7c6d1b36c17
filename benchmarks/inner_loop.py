"""Speed of the inner-loop engine: one meta-step on sinusoids, against a per-task Python loop and against the floor, in one run.

    python benchmarks/inner_loop.py [--tasks 25] [--repeats 50] [--threads 2]

Prints medians and ratios, and stores them under METALEARN_RESULTS if it is set. All ways compute the same meta-gradient, which is checked first.
The floor is the same examples in one plain batch through one shared network, forward and backward, as often as the method needs:
k inner passes and one query pass, and for the exact gradient k passes more.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call

from metalearn_book.book.results import save_results
from metalearn_book.foundations.bilevel import InnerLoop, mse_per_task
from metalearn_book.foundations.tasks import SinusoidTasks, TaskBatch


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


def engine(tasks: TaskBatch, steps: int, **options) -> Callable[[], nn.Module]:
    net = network()
    loop = InnerLoop(net, mse_per_task, inner_lr=0.01, inner_steps=steps, **options)

    def run():
        net.zero_grad()
        mse_per_task(loop.adapt(tasks.support)(tasks.query.x), tasks.query.y).mean().backward()
        return net
    return run


def python_loop(tasks: TaskBatch, steps: int) -> Callable[[], nn.Module]:
    "One task after another, as most scripts do it; nothing of the package but the tasks."
    net = network()
    s, q = tasks.support, tasks.query

    def run():
        net.zero_grad()
        for b in range(len(tasks)):
            params = dict(net.named_parameters())
            for _ in range(steps):
                loss = nn.functional.mse_loss(functional_call(net, params, (s.x[b],)), s.y[b])
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                params = {n: p - 0.01 * g for (n, p), g in zip(params.items(), grads)}
            (nn.functional.mse_loss(functional_call(net, params, (q.x[b],)), q.y[b]) / len(tasks)).backward()
        return net
    return run


def floor(tasks: TaskBatch, passes: int) -> Callable[[], nn.Module]:
    net, x, y = network(), tasks.query.x.flatten(0, 1), tasks.query.y.flatten(0, 1)

    def run():
        net.zero_grad()
        for _ in range(passes):
            nn.functional.mse_loss(net(x), y).backward()
        return net
    return run


def median_ms(ways: dict[str, Callable], repeats: int) -> dict[str, float]:
    "Median milliseconds of each way, called in turn after two warm-up rounds."
    times = {name: [] for name in ways}
    for r in range(repeats + 2):
        for name, run in ways.items():
            begin = time.perf_counter()
            run()
            if r >= 2:
                times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(t) for name, t in times.items()}


def check_same_gradient(ways: dict[str, Callable]) -> None:
    found = {name: torch.cat([p.grad.flatten() for p in run().parameters()]) for name, run in ways.items()}
    reference = found["python loop"]
    for name in ("engine", "engine, checkpointed"):
        difference = ((found[name] - reference).norm() / reference.norm()).item()
        if not difference < 1e-4:
            raise RuntimeError(f"{name} and the loop disagree by {difference:.1g} (relative, float32)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began, numbers = time.perf_counter(), {}
    tasks = SinusoidTasks().sample(args.tasks, torch.Generator().manual_seed(0))
    print(f"{'steps':>5}  {'way':<22}{'ms':>9}{'tasks/s':>10}{'× loop':>9}{'floors':>9}")
    for k in (1, 5, 10):
        ways = {"python loop": python_loop(tasks, k), "engine": engine(tasks, k), "engine, checkpointed": engine(tasks, k, memory="checkpoint"),
                "engine, first order": engine(tasks, k, first_order=True), "floor": floor(tasks, 2 * k + 1), "floor, first order": floor(tasks, k + 1)}
        check_same_gradient(ways)
        ms = median_ms(ways, args.repeats)
        for name, value in ms.items():
            base = ms["floor, first order" if "first order" in name else "floor"]
            numbers[f"{k} steps, {name}"] = {"ms": value, "tasks per second": 1000 * args.tasks / value, "faster than the loop": ms["python loop"] / value, "times the floor": value / base}
            print(f"{k:>5}  {name:<22}{value:>9.2f}{1000 * args.tasks / value:>10.0f}{ms['python loop'] / value:>9.2f}{value / base:>9.2f}")
    save_results("benchmarks/inner_loop", numbers, seed=0, config=vars(args), seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
