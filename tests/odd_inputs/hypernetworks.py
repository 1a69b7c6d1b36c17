"""Recipes for `hypernetworks` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models import small_gpt

PARTS = ("language_models",)
R = Recipe


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(["rome is old", "oslo is new"], 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 32, 8, 1, 2)).eval()


def ids() -> torch.Tensor:
    return torch.arange(8, 16).view(2, 4)


def task(seed: int = 0) -> TaskBatch:
    x = torch.randint(8, 200, (1, 2, 6), generator=torch.Generator().manual_seed(seed))
    return TaskBatch(Examples(x, x), Examples(x + 1, x + 1))


def drawn(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


H = "language_models.hypernetworks."
RECIPES = {
    H + "linear_hypernetwork": R(
        lambda: {
            "codes": drawn(6, 2),
            "solutions": drawn(6, 3),
            "metric": torch.eye(3),
            "rank": 1,
        },
        kinds={"metric": "leave"},
    ),
    H + "expected_risk": R(
        lambda: {"n_tasks": 12, "n_features": 2, "n_numbers": 3, "noise": 0.5},
        infinite=True,
    ),
    H + "ReadoutLoRA": R(
        lambda: {"model": model(), "rank": 2}, use=lambda made: made(ids())
    ),
    H + "step_statistics": R(
        lambda: {"model": model(), "ids": ids(), "labels": ids(), "A": drawn(2, 8)},
    ),
    H + "natural_directions": R(
        lambda: {"model": model(), "tasks": [task(), task(1)], "rank": 2},
        kinds={"tasks": "leave"},
    ),
    H + "HyperLoRA": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "rank": 2,
            "step": 0.1,
            "length": 12,
        },
        use=lambda made: made(task()),
        kinds={"tokenizer": "leave"},
    ),
}
