"""Recipes for `foundations`, `optimization` and `metric`."""

import torch
from odd_inputs import Recipe

PARTS = ("foundations", "optimization", "metric")
R = Recipe


def vectors(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RECIPES = {
    "foundations.bilevel.relative_difference": R(
        lambda: {"ours": vectors(3), "reference": vectors(3, seed=1)}
    ),
    "foundations.tasks.count_episodes": R(
        lambda: {"sizes": [4, 5, 6], "n_way": 2, "k_shot": 1, "n_query": 2}
    ),
}
REASONS: dict[str, str] = {}
EXCEPTIONS: dict[tuple[str, str], str] = {}
BUDGET: dict[str, int] = {}
