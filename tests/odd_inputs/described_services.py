"""Recipes for `described_services` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.data.dialogues import Intent, Service, Slot
from metalearn_book.language_models import described_services, hypernetworks, small_gpt

PARTS = ("language_models",)
R = Recipe
GROUPS = {
    place: [f"<headline> {place} is {word}" for word in ("old", "new", "big", "low")]
    for place in ("rome", "oslo", "lima")
}
TOLD = {place: [f"about {place}", "a place"] for place in GROUPS}


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(sum(GROUPS.values(), []), 270)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 32, 8, 1, 2)).eval()


def tasks(reads: str = "both") -> described_services.DescribedTasks:
    return described_services.DescribedTasks(GROUPS, TOLD, tokenizer(), reads, 1, 1, 12)


def learner() -> hypernetworks.HyperLoRA:
    return hypernetworks.HyperLoRA(model(), tokenizer(), rank=2, length=12)


def batch():
    return tasks().sample(2, torch.Generator().manual_seed(0))


def service() -> Service:
    slot = Slot("city", "the city", True, ("rome", "oslo"))
    intent = Intent("Find", "find a place", False, ("city",), {}, ("city",))
    return Service("Places_1", "all places", {"city": slot}, {"Find": intent})


H = "language_models.described_services."
RECIPES = {
    H + "service_sentences": R(lambda: {"service": service()}),
    H + "service_descriptions": R(lambda: {"part": "train"}, fails=FileNotFoundError),
    H + "intent_groups": R(
        lambda: {"part": "train", "least": 24}, fails=FileNotFoundError
    ),
    H + "styled": R(
        lambda: {"text": "<dialogue><user> Hi", "style": "small"},
        kinds={"text": "leave"},
    ),
    H + "styled_tasks": R(
        lambda: {"groups": GROUPS, "descriptions": TOLD, "styles": ("plain", "small")},
        kinds={"groups": "choice", "descriptions": "choice", "styles": "leave"},
    ),
    H + "DescribedTasks": R(
        lambda: {
            "groups": GROUPS,
            "descriptions": TOLD,
            "tokenizer": tokenizer(),
            "reads": "both",
            "k_shot": 1,
            "n_query": 1,
            "length": 12,
        },
        use=lambda some: some.sample(2, torch.Generator().manual_seed(0)),
        kinds={"groups": "choice", "descriptions": "choice"},
    ),
    H + "hyper_training": R(
        lambda: {
            "model": model(),
            "tasks": tasks(),
            "basis": tasks(),
            "rank": 2,
            "step": 0.1,
            "steps": 1,
            "tasks_per_step": 1,
            "outer_lr": 1e-3,
            "seed": 0,
            "progress": False,
        },
        use=lambda made: made(batch()),
        kinds={"tasks": "leave", "basis": "leave", "progress": "leave"},
    ),
    H + "measure_described": R(
        lambda: {"learner": learner(), "tasks": tasks(), "seed": 0},
        kinds={"tasks": "leave"},
    ),
    H + "tuned_nats": R(
        lambda: {
            "model": model(),
            "tasks": tasks("texts"),
            "steps": (0, 1),
            "layers": "*blocks.*",
            "rank": 1,
            "lr": 0.01,
            "seed": 0,
        },
        use=lambda found: found[1],
        kinds={"tasks": "leave", "steps": "leave"},
        infinite=True,
    ),
}
