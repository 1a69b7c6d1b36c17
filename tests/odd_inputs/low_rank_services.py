"""Recipes for `low_rank_services` of `language_models`."""

import torch
from odd_inputs import Recipe
from odd_inputs.meta_gpt2 import batch, learner, model, tasks

from metalearn_book.language_models import low_rank_services

PARTS = ("language_models",)
R = Recipe


def found() -> dict:
    return low_rank_services.by_factor(learner(), tasks(), (0.5, 1.0))


S = "language_models.low_rank_services."
RECIPES = {
    S + "with_adapter": R(
        lambda: {
            "model": model(),
            "kind": "prompt",
            "layers": "*qkv",
            "rank": 2,
            "start": torch.tensor([1, 2]),
            "seed": 0,
        },
        use=lambda made: made[0](torch.arange(6).view(2, 3)),
        kinds={"layers": "leave", "rank": "leave", "seed": "leave"},
    ),
    S + "by_factor": R(
        lambda: {
            "learner": learner(),
            "tasks": tasks(),
            "factors": [0.5, 1.0],
            "seed": 0,
        },
        kinds={"tasks": "leave"},
    ),
    S + "best_factor": R(lambda: {"found": found()}, kinds={"found": "choice"}),
    S + "adaptation_peak": R(
        lambda: {"learner": learner(), "tasks": batch()}, kinds={"tasks": "leave"}
    ),
    S + "meta_gradient_peak": R(
        lambda: {"learner": learner(), "tasks": batch()}, kinds={"tasks": "leave"}
    ),
}
