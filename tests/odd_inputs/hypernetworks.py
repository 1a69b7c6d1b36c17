"""Recipes for `hypernetworks` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.data.dialogues import Intent, Service, Slot
from metalearn_book.language_models import hypernetworks, low_rank, small_gpt

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


def tasks(reads: str = "both") -> hypernetworks.DescribedTasks:
    return hypernetworks.DescribedTasks(GROUPS, TOLD, tokenizer(), reads, 1, 1, 12)


def learner() -> hypernetworks.HyperLoRA:
    return hypernetworks.HyperLoRA(model(), tokenizer(), rank=1, code=2, length=12)


def batch():
    return tasks().sample(2, torch.Generator().manual_seed(0))


def ids() -> torch.Tensor:
    return torch.arange(8, 16).view(2, 4)


def layer() -> low_rank.LoRALinear:
    return low_rank.LoRALinear(torch.nn.Linear(6, 8), rank=2)


def service() -> Service:
    slot = Slot("city", "the city", True, ("rome", "oslo"))
    intent = Intent("Find", "find a place", False, ("city",), {}, ("city",))
    return Service("Places_1", "all places", {"city": slot}, {"Find": intent})


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
    H + "text_statistics": R(
        lambda: {"model": model(), "ids": ids(), "labels": ids()},
    ),
    H + "service_sentences": R(lambda: {"service": service()}),
    H + "service_descriptions": R(lambda: {"part": "train"}, fails=FileNotFoundError),
    H + "styled": R(lambda: {"text": "<dialogue><user> Hi", "style": "small"}),
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
    H + "FactorWriter": R(
        lambda: {"layer": layer(), "code": 2, "width": 8, "both": True},
        use=lambda writer: writer(drawn(3, 4, 8), drawn(3, 2)),
    ),
    H + "HyperLoRA": R(
        lambda: {
            "model": model(),
            "tokenizer": tokenizer(),
            "layers": "*blocks.*",
            "rank": 1,
            "code": 2,
            "length": 12,
            "both": False,
            "seed": 0,
        },
        use=lambda made: made(batch()),
        kinds={"tokenizer": "leave"},
    ),
    H + "hyper_training": R(
        lambda: {
            "model": model(),
            "tasks": tasks(),
            "layers": "*blocks.*",
            "rank": 1,
            "code": 2,
            "both": False,
            "steps": 1,
            "tasks_per_step": 1,
            "outer_lr": 1e-3,
            "seed": 0,
            "progress": False,
        },
        use=lambda made: made(batch()),
        kinds={"tasks": "leave", "progress": "leave"},
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
