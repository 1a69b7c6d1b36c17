"""Ways to compute the gradient of the mean query loss after adaptation with respect to
the start.

Each is a function (network, problem, tasks, steps) -> run, and `run()` leaves the
gradient in `.grad` of the network's parameters. The network is the way's own copy.
`WAYS` lists those of the book and of plain PyTorch; those of other libraries are in
rivals.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from problems import Problem
from torch import nn
from torch.func import functional_call, grad, vmap

from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import TaskBatch

Run = Callable[[], None]


@dataclass(frozen=True)
class Way:
    make: Callable[[nn.Module, Problem, TaskBatch, int], Run]
    exact: bool = True  # or first order: another gradient on purpose
    problems: tuple[str, ...] = ("sinusoids", "omniglot", "gpt")
    most_steps: int = 20  # more would take long, and tell nothing new


def engine(
    network: nn.Module, problem: Problem, tasks: TaskBatch, steps: int, **options
) -> Run:
    "The book's InnerLoop."
    loop = InnerLoop(
        network, problem.loss, inner_lr=problem.inner_lr, inner_steps=steps, **options
    ).to(tasks.support.y.device)

    def run():
        network.zero_grad()
        loop.outer_loss(tasks).backward()

    return run


def python_loop(
    network: nn.Module,
    problem: Problem,
    tasks: TaskBatch,
    steps: int,
    first_order: bool = False,
) -> Run:
    """One task after another with the graph of all steps, as most scripts do it;
    nothing of the package but the tasks."""
    s, q, loss = tasks.support, tasks.query, problem.loss_of_one

    def run():
        network.zero_grad()
        for b in range(len(tasks)):
            params = dict(network.named_parameters())
            for _ in range(steps):
                grads = torch.autograd.grad(
                    loss(functional_call(network, params, (s.x[b],)), s.y[b]),
                    list(params.values()),
                    create_graph=not first_order,
                )
                params = {
                    n: p - problem.inner_lr * g
                    for (n, p), g in zip(params.items(), grads)
                }
            (
                loss(functional_call(network, params, (q.x[b],)), q.y[b]) / len(tasks)
            ).backward()

    return run


def stacked_by_hand(
    network: nn.Module, problem: Problem, tasks: TaskBatch, steps: int
) -> Run:
    """What you would write for this one network: all tasks in one batched product for
    each layer, with the weights transposed once; no checks, no names, no options."""
    n, layers = len(tasks), [m for m in network if isinstance(m, nn.Linear)]

    def losses(params, x, y):
        for i in range(0, len(params), 2):
            x = torch.baddbmm(params[i + 1], x, params[i])
            x = torch.relu(x) if i < len(params) - 2 else x
        return ((x - y) ** 2).flatten(1).mean(1)

    def run():
        network.zero_grad()
        params = []
        for m in layers:
            params += [m.weight.mT.expand(n, -1, -1), m.bias.expand(n, 1, -1)]
        for _ in range(steps):
            loss = losses(params, tasks.support.x, tasks.support.y).sum()
            grads = torch.autograd.grad(loss, params, create_graph=True)
            params = [
                torch.sub(p, g, alpha=problem.inner_lr) for p, g in zip(params, grads)
            ]
        losses(params, tasks.query.x, tasks.query.y).mean().backward()

    return run


def vmap_of_grad(
    network: nn.Module, problem: Problem, tasks: TaskBatch, steps: int
) -> Run:
    """The recipe of PyTorch's own tutorials: vmap over a function of one task that
    calls torch.func.grad."""
    own, loss = dict(network.named_parameters()), problem.loss_of_one

    def inner_loss(params, x, y):
        return loss(functional_call(network, params, (x,)), y)

    def task_loss(params, sx, sy, qx, qy):
        for _ in range(steps):
            grads = grad(inner_loss)(params, sx, sy)
            params = {n: p - problem.inner_lr * grads[n] for n, p in params.items()}
        return inner_loss(params, qx, qy)

    def run():
        network.zero_grad()
        vmap(task_loss, in_dims=(None, 0, 0, 0, 0))(
            own, tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y
        ).mean().backward()

    return run


def floor(
    network: nn.Module,
    problem: Problem,
    tasks: TaskBatch,
    steps: int,
    first_order: bool = False,
) -> Run:
    """The same examples through one shared network, forward and backward, as often as
    the method needs.

    k passes of the support sets and one of the query sets; for the exact gradient k
    passes more, because each step is differentiated again.
    """
    (sx, sy), (qx, qy) = (
        (e.x.flatten(0, 1), e.y.flatten(0, 1)) for e in (tasks.support, tasks.query)
    )

    def run():
        network.zero_grad()
        for _ in range(steps if first_order else 2 * steps):
            problem.loss_of_one(network(sx), sy).backward()
        problem.loss_of_one(network(qx), qy).backward()

    return run


WAYS: dict[str, Way] = {
    "engine": Way(engine),
    "engine, checkpoint": Way(partial(engine, memory="checkpoint"), most_steps=100),
    "engine, adjoint": Way(
        partial(engine, memory="adjoint", states=10), most_steps=100
    ),
    "engine, one task at a time": Way(
        partial(engine, tasks_at_once=1), problems=("sinusoids",)
    ),
    "engine, all tasks at once": Way(
        partial(engine, tasks_at_once=10**6), problems=("omniglot",)
    ),
    "engine, first order": Way(partial(engine, first_order=True), exact=False),
    "python loop": Way(python_loop),
    "python loop, first order": Way(
        partial(python_loop, first_order=True), exact=False
    ),
    "all tasks, by hand": Way(stacked_by_hand, problems=("sinusoids",)),
    "vmap(grad)": Way(vmap_of_grad),
}
FLOORS: dict[str, Way] = {
    "floor": Way(floor),
    "floor, first order": Way(partial(floor, first_order=True), exact=False),
}
