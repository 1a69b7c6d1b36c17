"""Recipes for `meta_icl` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import meta_gpt2, meta_icl, small_gpt

PARTS = ("language_models",)
R = Recipe
PAIRS = {
    place: [(f"<headline> {place} is {w}", f"{w} it") for w in ("old", "new", "low")]
    for place in ("rome", "oslo")
}


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    texts = [part for pairs in PAIRS.values() for pair in pairs for part in pair]
    return small_gpt.train_tokenizer(texts, 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 64, 8, 1, 2)).eval()


def episodes() -> dict:
    return meta_icl.pair_episodes(PAIRS, 1, 1)


def learner() -> meta_gpt2.MetaGPT2:
    return meta_gpt2.MetaGPT2(model(), tokenizer(), length=30, inner_steps=1)


M = "language_models.meta_icl."
RECIPES = {
    M + "joined_batch": R(
        lambda: {
            "tokenizer": tokenizer(),
            "sequences": [PAIRS["rome"]],
            "length": 60,
            "counts": "last",
        },
        kinds={"sequences": "texts"},
    ),
    M + "tune_in_context": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "groups": PAIRS,
            "k_shot": 1,
            "steps": 1,
            "sequences_per_step": 1,
            "lr": 1e-3,
            "length": 60,
            "seed": 0,
        },
        kinds={"groups": "choice", "tokenizer": "leave"},
    ),
    M + "answer_nats": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "sequences": [PAIRS["rome"]],
            "batch_size": 2,
        },
        kinds={"sequences": "texts", "tokenizer": "leave"},
    ),
    M + "service_pairs": R(
        lambda: {
            "part": "train",
            "tokenizer": tokenizer(),
            "length": 40,
            "most": 3,
        },
        kinds={"tokenizer": "leave"},
        fails=FileNotFoundError,
    ),
    M + "pair_episodes": R(
        lambda: {"groups": PAIRS, "k_shot": 1, "n_query": 1, "seed": 0},
        kinds={"groups": "choice"},
    ),
    M + "nats_in_front": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "episodes": episodes(),
            "k_shot": 1,
        },
        kinds={"episodes": "choice", "tokenizer": "leave"},
    ),
    M + "nats_after_steps": R(
        lambda: {
            "learner": learner(),
            "episodes": episodes(),
            "factor": 1.0,
            "inner_steps": 1,
        },
        kinds={"episodes": "choice"},
    ),
}
