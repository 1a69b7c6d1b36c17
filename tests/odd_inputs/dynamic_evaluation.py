"""Recipes for `dynamic_evaluation` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models import dynamic_evaluation, small_gpt

PARTS = ("language_models",)
R = Recipe
TEXTS = [f"<headline> {a} is {b}" for a in ("rome", "oslo") for b in ("old", "new")]


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(TEXTS, 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 32, 8, 1, 2)).eval()


def ids() -> torch.Tensor:
    return torch.randint(7, 270, (2, 17), generator=torch.Generator().manual_seed(0))


def batch() -> TaskBatch:
    chunks = dynamic_evaluation.stream_windows(ids(), 8, 2)
    return TaskBatch(Examples(chunks.x[:, :-1], chunks.y[:, :-1]), chunks)


M = "language_models.dynamic_evaluation."
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
}
