"""Recipes for `prompts` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import pretrained

PARTS = ("language_models",)
R = Recipe


@functools.cache
def pair():
    return pretrained.tiny_language_model(1, 16)


def drawn(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


M = "language_models.prompts."
RECIPES = {
    M + "PromptFormat": R(
        lambda: {"instruction": "Which?", "text_name": "Text", "label_name": "Label"},
        use=lambda made: made.front([("a", "b")]) + made.ask("c"),
        kinds=dict.fromkeys(("instruction", "text_name", "label_name"), "text"),
    ),
    M + "label_tokens": R(
        lambda: {"tokenizer": pair()[1], "labels": ["yes", "no"]},
        kinds={"tokenizer": "leave"},
    ),
    M + "scores_behind": R(
        lambda: {
            "model": pair()[0],
            "tokenizer": pair()[1],
            "front": "Text: a\nLabel: yes\n\n",
            "asks": ["Text: b\nLabel:"],
            "labels": ["yes", "no"],
            "batch_size": 2,
        },
        kinds={"tokenizer": "leave", "front": "text"},
    ),
    M + "calibrated": R(lambda: {"scores": drawn(4, 3), "empty": drawn(2, 3)}),
    M + "tie_accuracy": R(
        lambda: {"scores": drawn(4, 3), "y": torch.tensor([0, 1, 2, 0])}
    ),
}
