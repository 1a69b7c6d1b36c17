"""A compiled model in the engine: its gradients are those of the model itself. The
backend that only traces needs no C compiler."""

import copy

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
