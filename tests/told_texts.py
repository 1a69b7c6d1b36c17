"""Invented headlines whose places are described, and a GPT for them."""

import torch
from tiny_texts import GROUPS

from metalearn_book.language_models import small_gpt

TOLD = {
    "rome": ["all about rome", "an old place"],
    "oslo": ["all about oslo"],
    "lima": ["all about lima", "a new place", "and big"],
}
TOKENIZER = small_gpt.train_tokenizer(
    sum(GROUPS.values(), []) + sum(TOLD.values(), []) * 3, 330
)


def gpt(width=8, n_layers=2):
    torch.manual_seed(0)
    config = small_gpt.GPTConfig(330, 40, width, n_layers, 2)
    model = small_gpt.SmallGPT(config).eval()
    with torch.no_grad():  # as large as those of a trained model
        model.tokens.weight.mul_(20)
    return model
