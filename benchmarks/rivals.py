"""Other libraries for the same meta-gradient, each used as its own documentation does.

benchmarks/rivals.sh installs them beside the environment's packages.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import torch
from problems import Problem
from torch import nn
from ways import Run, Way

from metalearn_book.foundations.tasks import TaskBatch

FOLDER = Path(sys.prefix) / "rivals"
NAMES = ("learn2learn", "higher", "torchopt")


def load_learn2learn():
    """Its MAML. Three parts of the package import gym and torchvision, which MAML does
    not use and which do not fit every torch: they are left empty."""
    for part in ("gym", "text", "vision"):
        name = f"learn2learn.{part}"
        sys.modules.setdefault(name, types.ModuleType(name))
    return importlib.import_module("learn2learn.algorithms.maml")


def learn2learn_maml(
    library,
    network: nn.Module,
    problem: Problem,
    tasks: TaskBatch,
    steps: int,
    first_order: bool = False,
) -> Run:
    maml = library.MAML(network, lr=problem.inner_lr, first_order=first_order)
    s, q, loss = tasks.support, tasks.query, problem.loss_of_one

    def run():
        network.zero_grad()
        for b in range(len(tasks)):
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(loss(learner(s.x[b]), s.y[b]))
            (loss(learner(q.x[b]), q.y[b]) / len(tasks)).backward()

    return run


def higher_context(
    library, network: nn.Module, problem: Problem, tasks: TaskBatch, steps: int
) -> Run:
    optimizer = torch.optim.SGD(network.parameters(), lr=problem.inner_lr)
    s, q, loss = tasks.support, tasks.query, problem.loss_of_one

    def run():
        network.zero_grad()
        for b in range(len(tasks)):
            with library.innerloop_ctx(
                network, optimizer, copy_initial_weights=False
            ) as (learner, differentiable):
                for _ in range(steps):
                    differentiable.step(loss(learner(s.x[b]), s.y[b]))
                (loss(learner(q.x[b]), q.y[b]) / len(tasks)).backward()

    return run


def torchopt_meta_sgd(
    library, network: nn.Module, problem: Problem, tasks: TaskBatch, steps: int
) -> Run:
    optimizer = library.MetaSGD(network, lr=problem.inner_lr)
    start, start_of_optimizer = (
        library.extract_state_dict(part, by="reference")
        for part in (network, optimizer)
    )
    s, q, loss = tasks.support, tasks.query, problem.loss_of_one

    def run():
        network.zero_grad()
        for b in range(len(tasks)):
            for _ in range(steps):
                optimizer.step(loss(network(s.x[b]), s.y[b]))
            (loss(network(q.x[b]), q.y[b]) / len(tasks)).backward()
            library.recover_state_dict(network, start)
            library.recover_state_dict(optimizer, start_of_optimizer)

    return run


MAKERS: dict[
    str, dict[str, tuple[Callable, bool]]
] = {  # library -> name of the way -> function, exact
    "learn2learn": {
        "learn2learn": (learn2learn_maml, True),
        "learn2learn, first order": (
            partial(learn2learn_maml, first_order=True),
            False,
        ),
    },
    "higher": {"higher": (higher_context, True)},
    "torchopt": {"TorchOpt": (torchopt_meta_sgd, True)},
}


def load_rivals(
    folder: Path = FOLDER, names: tuple[str, ...] = NAMES
) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways of the libraries that can be imported; and for each library its version,
    or why it is missing."""
    if str(folder) not in sys.path:
        sys.path.append(
            str(folder)
        )  # at the end: nothing there may come before the packages of the book
    ways, state = {}, {}
    found = (
        {
            d.metadata["Name"].lower(): d.version
            for d in distributions(path=[str(folder)])
        }
        if folder.is_dir()
        else {}
    )
    for name in names:
        if name not in found:
            state[name] = (
                f"not installed: there is no {name} in {folder.name}/ of the "
                "environment; run benchmarks/rivals.sh"
            )
            continue
        try:
            library = (
                load_learn2learn()
                if name == "learn2learn"
                else importlib.import_module(name)
            )
        # whatever an old library does on a new Python: say it, and go on without it
        except Exception as error:
            state[name] = f"not importable: {type(error).__name__}: {error}"
            continue
        state[name] = found[name]
        ways |= {
            way: Way(partial(make, library), exact=exact)
            for way, (make, exact) in MAKERS[name].items()
        }
    return ways, state
