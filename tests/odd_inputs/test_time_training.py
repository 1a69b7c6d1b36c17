"""Recipes for `test_time_training` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import small_gpt
from metalearn_book.language_models import test_time_training as ttt

PARTS = ("language_models",)
R = Recipe
TEXTS = [f"<headline> {a} is {b}" for a in ("rome", "oslo") for b in ("old", "new")]
PAIRS = [("ab>", "b"), ("cd>", "d"), ("ef>", "f")]


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(TEXTS, 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 32, 8, 1, 2)).eval()


def ids() -> torch.Tensor:
    return torch.randint(7, 270, (2, 17), generator=torch.Generator().manual_seed(0))


def batch():
    return tasks().sample(2, torch.Generator().manual_seed(0))


def tasks() -> ttt.StreamTasks:
    groups = {"a": TEXTS[:2] * 3, "b": TEXTS[2:] * 3}
    return ttt.StreamTasks(groups, tokenizer(), n_chunks=2, chunk=6, memory=2)


M = "language_models.test_time_training."
RECIPES = {
    M + "stream_ids": R(lambda: {"tokenizer": tokenizer(), "texts": TEXTS[:2]}),
    M + "token_bytes": R(lambda: {"tokenizer": tokenizer()}),
    M + "stream_windows": R(lambda: {"ids": ids(), "chunk": 4, "memory": 2}),
    M + "StreamMAML": R(
        lambda: {"model": model(), "inner_lr": 0.1, "inner_steps": 1},
        use=lambda made: made(batch()),
    ),
    M + "StreamLosses": R(
        lambda: {
            "nats": torch.ones(2, 1, dtype=torch.float64),
            "tokens": torch.tensor([16]),
        },
        use=lambda made: made.bits_per_byte(ids(), tokenizer()),
    ),
    M + "dynamic_evaluation": R(
        lambda: {
            "model": model(),
            "ids": ids(),
            "chunk": 8,
            "memory": 2,
            "inner_lr": 0.1,
            "inner_steps": 1,
        },
        use=lambda found: found.nats,
    ),
    M + "StreamTasks": R(
        lambda: {
            "groups": {"a": TEXTS[:2] * 3, "b": TEXTS[2:] * 3},
            "tokenizer": tokenizer(),
            "n_chunks": 2,
            "chunk": 6,
            "memory": 2,
        },
        use=lambda some: some.sample(2, torch.Generator().manual_seed(0)),
        kinds={"groups": "choice", "tokenizer": "leave"},
    ),
    M + "in_front": R(lambda: {"pairs": PAIRS, "prompt": "gh>", "between": ";"}),
    M + "leave_one_out": R(lambda: {"pairs": PAIRS, "n_orders": 2, "between": ";"}),
    M + "vote": R(lambda: {"answers": ["a", "b", "a"]}),
    M + "View": R(
        lambda: {"change": str.swapcase, "back": str.swapcase},
        use=lambda view: view.of(PAIRS),
    ),
    M + "ThrowAwayLoRA": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "rank": 2,
            "length": 24,
            "inner_lr": 0.01,
            "inner_steps": 1,
        },
        use=lambda made: made.answer(PAIRS, ["gh>"], n_tokens=1),
        kinds={"tokenizer": "leave"},
    ),
}
