"""Recipes for `meta_gpt2` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import meta_gpt2, small_gpt

PARTS = ("language_models",)
R = Recipe
GROUPS = {
    place: [f"<headline> {place} is {word}" for word in ("old", "new", "big", "low")]
    for place in ("rome", "oslo")
}


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(sum(GROUPS.values(), []), 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 32, 8, 1, 2)).eval()


def tasks() -> meta_gpt2.TextTasks:
    return meta_gpt2.TextTasks(GROUPS, tokenizer(), 1, 1, 10)


def learner() -> meta_gpt2.MetaGPT2:
    return meta_gpt2.MetaGPT2(model(), tokenizer(), length=10, inner_lr=0.1)


def batch():
    return tasks().sample(2, torch.Generator().manual_seed(0))


M = "language_models.meta_gpt2."
RECIPES = {
    M + "text_batch": R(
        lambda: {"tokenizer": tokenizer(), "items": GROUPS["rome"], "length": 9}
    ),
    M + "TextTasks": R(
        lambda: {
            "groups": GROUPS,
            "tokenizer": tokenizer(),
            "k_shot": 1,
            "n_query": 1,
            "length": 9,
        },
        use=lambda some: some.sample(2, torch.Generator().manual_seed(0)),
        kinds={"groups": "choice"},
    ),
    M + "MetaGPT2": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "length": 10,
            "inner_lr": 0.1,
            "inner_steps": 1,
        },
        use=lambda made: made(batch()),
        kinds={"tokenizer": "leave"},
    ),
    M + "meta_learning": R(
        lambda: {
            "model": model(),
            "tasks": tasks(),
            "tokenizer": tokenizer(),
            "method": "maml",
            "steps": 1,
            "tasks_per_step": 1,
            "inner_lr": 0.1,
            "inner_steps": 1,
            "outer_lr": 1e-3,
            "seed": 0,
            "progress": False,
        },
        use=lambda made: made(batch()),
        kinds={"tokenizer": "leave", "tasks": "leave", "progress": "leave"},
    ),
    M + "rates_times": R(
        lambda: {"learner": learner(), "factor": 2.0}, use=lambda ctx: ctx.__enter__()
    ),
    M + "measure_groups": R(
        lambda: {
            "learner": learner(),
            "tasks": tasks(),
            "inner_steps": 1,
            "factor": 1.0,
            "seed": 0,
        },
        kinds={"tasks": "leave"},
    ),
    M + "tiny_groups": R(lambda: {"part": "train"}),
}
