"""Recipes for `pretrained` and `low_rank` of `language_models`."""

import tempfile
from pathlib import Path

import torch
from odd_inputs import Recipe
from torch import nn

from metalearn_book.language_models import low_rank, pretrained
from metalearn_book.language_models.small_gpt import GPTConfig, SmallGPT

PARTS = ("language_models",)
R = Recipe
_PAIR = []


def pair():
    if not _PAIR:
        _PAIR.append(pretrained.tiny_language_model(2, 16))
    return _PAIR[0]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5))


def wrapped() -> nn.Module:
    model = net()
    low_rank.add_lora(model, "*", rank=2)
    return model


def gpt() -> SmallGPT:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "context": 12, "width": 8, "n_layers": 1, "n_heads": 2}
    return SmallGPT(GPTConfig(**sizes)).eval()


def ids() -> torch.Tensor:
    return torch.arange(6).view(2, 3)


def folder() -> Path:
    return Path(tempfile.mkdtemp())


P, L = "language_models.pretrained.", "language_models.low_rank."
RECIPES = {
    P + "find_language_model": R(
        lambda: {"name": "gpt2", "offline": True},
        kinds={"offline": "leave"},
        fails=FileNotFoundError,
    ),
    P + "byte_tokenizer": R(lambda: {}),
    P + "tiny_language_model": R(
        lambda: {"layers": 1, "hidden": 16, "seed": 0, "attention": "eager"},
        use=lambda found: found[0],
        kinds={"seed": "leave", "hidden": "whole"},
    ),
    P + "load_language_model": R(
        lambda: {"name": "tiny", "offline": True, "attention": "eager", "seed": 0},
        use=lambda found: found[0],
        kinds={"offline": "leave", "seed": "leave"},
    ),
    P + "label_scores": R(
        lambda: {
            "model": pair()[0],
            "tokenizer": pair()[1],
            "prompts": ["good", "bad film"],
            "labels": [" yes", " no"],
            "batch_size": 4,
        },
    ),
    P + "split_model": R(
        lambda: {"model": pair()[0], "n_top": 1}, use=lambda parts: list(parts)
    ),
    P + "lower_states": R(
        lambda: {
            "lower": pretrained.split_model(pair()[0], 1)[0],
            "tokenizer": pair()[1],
            "texts": ["one text", "two"],
            "batch_size": 2,
        },
    ),
    L + "linear_sizes": R(lambda: {"layer": nn.Linear(3, 2)}),
    L + "LoRALinear": R(
        lambda: {"base": nn.Linear(6, 4), "rank": 2, "alpha": 4.0, "seed": 0},
        use=lambda layer: layer(torch.ones(2, 6)),
    ),
    L + "add_lora": R(
        lambda: {"model": net(), "layers": "*", "rank": 2, "alpha": 4.0, "seed": 0},
    ),
    L + "merge_lora": R(lambda: {"model": wrapped()}),
    L + "SoftPrompt": R(
        lambda: {"model": gpt(), "start": torch.tensor([1, 2])},
        use=lambda model: model(ids()),
    ),
    L + "Prefix": R(
        lambda: {"model": gpt(), "start": torch.tensor([1, 2])},
        use=lambda model: model(ids()),
    ),
    L + "adapted_numbers": R(
        lambda: {"model": wrapped(), "adapt": "*lora_*"}, kinds={"adapt": "choice"}
    ),
}
