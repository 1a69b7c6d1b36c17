"""Recipes for `in_context` of `language_models`."""

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import in_context

PARTS = ("language_models",)
R = Recipe


def drawn(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tasks():
    return in_context.LinearPrompts(2, 4).sample(2, torch.Generator().manual_seed(0))


M = "language_models.in_context."
RECIPES = {
    M + "LinearPrompts": R(
        lambda: {
            "dim": 2,
            "n_points": 4,
            "noise": 0.1,
            "pool": drawn(3, 2),
            "x_scale": 1.0,
            "w_scale": 1.0,
        },
        use=lambda made: made.sample(2, torch.Generator().manual_seed(0)),
    ),
    M + "least_squares_answers": R(
        lambda: {"x": drawn(2, 4, 3), "y": drawn(2, 4), "ridge": 0.1}
    ),
    M + "pool_answers": R(
        lambda: {
            "x": drawn(2, 4, 3),
            "y": drawn(2, 4),
            "pool": drawn(5, 3),
            "noise": 0.5,
        }
    ),
    M + "InContextRegressor": R(
        lambda: {"dim": 2, "n_points": 4, "width": 8, "n_layers": 1, "n_heads": 2},
        use=lambda made: made(tasks()),
    ),
    M + "LinearAttention": R(
        lambda: {"dim": 2}, use=lambda made: made(drawn(1, 3, made.dim + 1), 2)
    ),
    M + "gradient_attention": R(
        lambda: {"dim": 2, "inner_lr": 0.1},
        use=lambda made: made(drawn(1, 3, made.dim + 1).double(), 2),
    ),
    M + "attention_answers": R(
        lambda: {
            "layers": [in_context.gradient_attention(3).float()],
            "x": drawn(2, 4, 3),
            "y": drawn(2, 4),
            "x_query": drawn(2, 1, 3),
        },
        kinds={"layers": "leave"},
    ),
    M + "train_in_context": R(
        lambda: {
            "prompts": in_context.LinearPrompts(2, 4),
            "steps": 1,
            "tasks_per_step": 2,
            "peak_lr": 1e-3,
            "seed": 0,
            "checkpoint": None,
            "width": 8,
            "n_layers": 1,
            "n_heads": 2,
        },
        kinds={"checkpoint": "leave"},
    ),
}
