"""Other libraries for the same meta-gradient, each used as its own documentation does.

benchmarks/rivals.sh installs them beside the environment's packages.
"""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import replace
from functools import partial
from importlib.metadata import distributions
from itertools import repeat
from pathlib import Path

import torch
from problems import Problem
from torch import nn
from ways import Run, Way

from metalearn_book.foundations.tasks import TaskBatch

FOLDER = Path(sys.prefix) / "rivals"
NAMES = ("learn2learn", "higher", "torchopt", "parallel-metalearn", "iteryne")


def load_learn2learn():
    """Its MAML. Three parts of the package import gym and torchvision, which MAML does
    not use and which do not fit every torch: they are left empty."""
    for part in ("gym", "text", "vision"):
        name = f"learn2learn.{part}"
        sys.modules.setdefault(name, types.ModuleType(name))
    return importlib.import_module("learn2learn.algorithms.maml")


def load_parallel_metalearn():
    "Its package has another name, and imports nothing by itself."
    for part in ("algorithms", "inner_optimizers", "loss", "model_wrappers"):
        importlib.import_module(f"metalearn.{part}")
    return sys.modules["metalearn"]


LOADERS = {
    "learn2learn": load_learn2learn,
    "parallel-metalearn": load_parallel_metalearn,
}


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


def parallel_metalearn_maml(
    library,
    network: nn.Module,
    problem: Problem,
    tasks: TaskBatch,
    steps: int,
    own_batch_norm: bool = False,
    first_order: bool = False,
    **options,
) -> Run:
    """Its MAML, all tasks at once under vmap unless `options` say otherwise.

    The wrapper and the loss are its own classes, extended as its notes tell: it calls
    the parts of a network with two more arguments, which layers of PyTorch refuse. It
    ends in a step of the outer optimizer: of length 0 here, so that the network stays.
    """

    class Whole(library.model_wrappers.MAML_Model):
        def forward(self, x, **_):
            logits = self.backbone(x)
            return {"logits": logits, "buffers": dict(self.named_buffers())}

    class Loss(library.loss.BaseLoss):
        def forward(self, out_dict, targets, model_states=None, **_):
            loss = problem.loss_of_one(out_dict["logits"], targets)
            return loss, loss.detach()

    if own_batch_norm:
        with_own_batch_norm(library, network)
    like = next(network.parameters())
    model = Whole(backbone=network)
    inner = library.inner_optimizers.InnerSGD(
        model.get_fast_weights(),
        first_order=first_order,
        inner_lr=problem.inner_lr,
        learn_lr=False,
    ).to(like.dtype)
    for rate in inner.parameters():  # it was rounded to float32
        rate.data.fill_(problem.inner_lr)
    maml = library.algorithms.MAML(
        model=model,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        inner_optimizer=inner,
        support_loss_fn=Loss(),
        inner_steps=steps,
        device=like.device,
        **options,
    )
    s, q = tasks.support, tasks.query
    batches = repeat((s.x, s.y, q.x, q.y))
    return lambda: maml.step(batches)


def with_own_batch_norm(library, network: nn.Module) -> None:
    """The library's BatchNorm with the same parameters in the place of PyTorch's. Its
    `ModelTranslator`, which should do this, fails in 0.5.6."""
    layers = importlib.import_module("metalearn.nn_models.basic_layers")
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                own = layers.BatchNorm(
                    child.num_features, eps=child.eps, track_running_stats=False
                )
                own.weight, own.bias = child.weight, child.bias
                setattr(parent, name, own)


def iteryne_maml(
    library,
    network: nn.Module,
    problem: Problem,
    tasks: TaskBatch,
    steps: int,
    first_order: bool = False,
) -> Run:
    maml = library.MAML(
        network, inner_lr=problem.inner_lr, inner_steps=steps, first_order=first_order
    )
    s, q, loss = tasks.support, tasks.query, problem.loss_of_one

    def run():
        network.zero_grad()
        for b in range(len(tasks)):
            learner = maml.clone()
            for _ in range(maml.inner_steps):
                learner.adapt(loss(learner(s.x[b]), s.y[b]))
            (loss(learner(q.x[b]), q.y[b]) / len(tasks)).backward()

    return run


MAKERS: dict[str, dict[str, Way]] = {  # library -> name of the way -> the way, whose
    # function takes the library first
    "learn2learn": {
        "learn2learn": Way(learn2learn_maml),
        "learn2learn, first order": Way(
            partial(learn2learn_maml, first_order=True), exact=False
        ),
    },
    "higher": {"higher": Way(higher_context)},
    "torchopt": {"TorchOpt": Way(torchopt_meta_sgd)},
    "parallel-metalearn": {
        "parallel-metalearn": Way(parallel_metalearn_maml),
        "parallel-metalearn, own norms": Way(
            partial(parallel_metalearn_maml, own_batch_norm=True),
            problems=("omniglot",),
        ),
        "parallel-metalearn, sequential": Way(
            partial(parallel_metalearn_maml, backend="sequential")
        ),
        "parallel-metalearn, first order": Way(
            partial(parallel_metalearn_maml, first_order=True), exact=False
        ),
    },
    "iteryne": {
        "iteryne": Way(iteryne_maml),
        "iteryne, first order": Way(
            partial(iteryne_maml, first_order=True), exact=False
        ),
    },
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
            library = LOADERS.get(name, partial(importlib.import_module, name))()
        # whatever an old library does on a new Python: say it, and go on without it
        except Exception as error:
            state[name] = f"not importable: {type(error).__name__}: {error}"
            continue
        state[name] = found[name]
        ways |= {
            name_of_way: replace(way, make=partial(way.make, library))
            for name_of_way, way in MAKERS[name].items()
        }
    return ways, state
