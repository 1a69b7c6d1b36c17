"""Tasks of invented headlines and a GPT for them, small enough for a test."""

import torch

from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.meta_gpt2 import TextTasks

WORDS = ["red", "blue", "old", "new", "big", "low"]
GROUPS = {
    place: [f"<headline> {place} is {a} and {b}" for a in WORDS for b in WORDS]
    for place in ("rome", "oslo", "lima")
}
TOKENIZER = small_gpt.train_tokenizer(sum(GROUPS.values(), []), 330)


def gpt(context=40):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(330, context, 8, 1, 2)).eval()


def tasks(k_shot=2, n_query=2, length=12):
    return TextTasks(GROUPS, TOKENIZER, k_shot, n_query, length)
