"""A compiled model in the engine, and a compiled outer loss: the gradients are those of
the same without `torch.compile`. The backend that only traces needs no C compiler."""

import copy
import subprocess
import sys

import pytest
import torch
from shared import double, gen
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import SinusoidTasks

pytest.importorskip("torch._dynamo")


@pytest.fixture(autouse=True)
def from_the_start():
    "What was compiled before counts towards a limit of recompilations."
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network(norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    middle = nn.LayerNorm(8) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(1, 8), middle, nn.Tanh(), nn.Linear(8, 1)).double()


def tasks():
    return double(SinusoidTasks(5, 5).sample(3, gen(0)))


def loop(model, **options) -> InnerLoop:
    return InnerLoop(model, mse_per_task, inner_lr=0.1, inner_steps=2, **options)


def gradient(objective, learner, batch) -> list[torch.Tensor]:
    learner.zero_grad()
    objective(batch).backward()
    return [p.grad.clone() for p in learner.parameters() if p.requires_grad]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("memory", ["store", "checkpoint", "adjoint"])
def test_a_compiled_model_is_adapted_as_the_model_itself(norm, memory):
    model, batch = network(norm), tasks()
    plain = loop(copy.deepcopy(model), memory=memory)
    compiled = loop(torch.compile(model, backend="eager"), memory=memory)
    ours = gradient(compiled.outer_loss, compiled, batch)
    theirs = gradient(plain.outer_loss, plain, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("memory", ["store", "adjoint"])
def test_a_compiled_outer_loss_has_the_same_gradient(memory):
    model, batch = network(True), tasks()
    plain, other = (loop(copy.deepcopy(model), memory=memory) for _ in range(2))
    compiled = torch.compile(other.outer_loss, backend="eager")
    ours = gradient(compiled, other, batch)
    theirs = gradient(plain.outer_loss, plain, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_nothing_of_it_is_imported_where_nobody_compiles():
    "The import takes seconds, which the first adaptation would pay for."
    code = """
import sys, torch
from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import SinusoidTasks
model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.LayerNorm(1))
tasks = SinusoidTasks(2, 2).sample(2, torch.Generator().manual_seed(0))
before = "torch._dynamo" in sys.modules
for memory in ("store", "adjoint"):  # PyTorch imports it for checkpoints
    InnerLoop(model, mse_per_task, inner_lr=0.1, memory=memory).outer_loss(tasks)
print(before, "torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "False"], ran.stdout + ran.stderr
