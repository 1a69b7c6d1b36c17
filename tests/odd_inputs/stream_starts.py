"""Recipes for `stream_starts` of `language_models`."""

import torch
from odd_inputs import Recipe
from odd_inputs.dynamic_evaluation import TEXTS, tokenizer

from metalearn_book.language_models import small_gpt, stream_starts

PARTS = ("language_models",)
R = Recipe
GROUPS = {"a": TEXTS[:2] * 3, "b": TEXTS[2:] * 3}


def tasks() -> stream_starts.StreamTasks:
    return stream_starts.StreamTasks(GROUPS, tokenizer(), n_chunks=2, chunk=6, memory=2)


def make(seed: int) -> small_gpt.SmallGPT:
    torch.manual_seed(seed)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 8, 8, 1, 2))


def streams() -> dict:
    ids = tasks().sample(2, torch.Generator().manual_seed(0)).query.x
    ids = torch.cat([ids[:, 0, :2], ids[:, 1, 2:]], 1)[:, :7]
    return {"validation": ids, "test": ids}


M = "language_models.stream_starts."
RECIPES = {
    M + "StreamTasks": R(
        lambda: {
            "groups": GROUPS,
            "tokenizer": tokenizer(),
            "n_chunks": 2,
            "chunk": 6,
            "memory": 2,
        },
        use=lambda some: some.sample(2, torch.Generator().manual_seed(0)),
        kinds={"groups": "choice", "tokenizer": "leave"},
    ),
    M + "operations": R(lambda: {"run": lambda: torch.ones(2, 2) @ torch.ones(2, 2)}),
    M + "EqualCompute": R(
        lambda: {
            "make": make,
            "tokenizer": tokenizer(),
            "rows": tasks().rows(8, torch.Generator().manual_seed(0)),
            "tasks": tasks(),
            "streams": streams(),
            "budget": 12,
            "n_rows": 4,
            "per_step": 1,
            "lr": 1e-3,
            "inner_lr": 0.1,
            "rate_lr": 1e-3,
        },
        use=lambda made: made.price,
        kinds={"make": "leave", "tokenizer": "leave", "streams": "choice"},
    ),
    M + "equal_compute": R(
        lambda: {
            "groups": {p: GROUPS for p in ("train", "validation", "test")},
            "budget": 12,
            "width": 8,
            "vocabulary": 270,
            "chunk": 6,
            "memory": 2,
            "n_train": 2,
            "n_test": 2,
            "n_texts": 6,
        },
        use=lambda made: made.price,
        kinds={"groups": "choice"},
    ),
}
