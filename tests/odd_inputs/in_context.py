"""Recipes for `in_context` of `language_models`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import in_context, pretrained, small_gpt

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


@functools.cache
def pair():
    return pretrained.tiny_language_model(1, 16)


def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(270, 64, 8, 1, 2)).eval()


def drawn(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tasks():
    return in_context.LinearPrompts(2, 4).sample(2, torch.Generator().manual_seed(0))


M = "language_models.in_context."
RECIPES = {
    M + "LinearPrompts": R(
        lambda: {
            "dim": 2,
            "n_points": 4,
            "noise": 0.1,
            "pool": drawn(3, 2),
            "x_scale": 1.0,
            "w_scale": 1.0,
        },
        use=lambda made: made.sample(2, torch.Generator().manual_seed(0)),
    ),
    M + "least_squares_answers": R(
        lambda: {"x": drawn(2, 4, 3), "y": drawn(2, 4), "ridge": 0.1}
    ),
    M + "pool_answers": R(
        lambda: {
            "x": drawn(2, 4, 3),
            "y": drawn(2, 4),
            "pool": drawn(5, 3),
            "noise": 0.5,
        }
    ),
    M + "InContextRegressor": R(
        lambda: {"dim": 2, "n_points": 4, "width": 8, "n_layers": 1, "n_heads": 2},
        use=lambda made: made(tasks()),
    ),
    M + "LinearAttention": R(
        lambda: {"dim": 2}, use=lambda made: made(drawn(1, 3, made.dim + 1), 2)
    ),
    M + "gradient_attention": R(
        lambda: {"dim": 2, "inner_lr": 0.1},
        use=lambda made: made(drawn(1, 3, made.dim + 1).double(), 2),
    ),
    M + "attention_answers": R(
        lambda: {
            "layers": [in_context.gradient_attention(3).float()],
            "x": drawn(2, 4, 3),
            "y": drawn(2, 4),
            "x_query": drawn(2, 1, 3),
        },
        kinds={"layers": "leave"},
    ),
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
    M + "Usage": R(
        lambda: {
            "requests": 2,
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "uncounted": 0,
            "seconds": 0.1,
        },
        use=lambda made: made.tokens_for(2),
    ),
    M + "RemoteModel": R(
        lambda: {
            "url": "http://127.0.0.1:9/v1",
            "name": "m",
            "timeout": 1.0,
            "retries": 0,
            "key_variable": "NO_SUCH_KEY",
        },
        use=repr,
        kinds=dict.fromkeys(("url", "name", "key_variable"), "text"),
    ),
    M + "match_label": R(
        lambda: {"text": "yes, it is", "labels": ["yes", "no"]}, kinds={"text": "text"}
    ),
    M + "LocalModel": R(
        lambda: {"model": pair()[0], "tokenizer": pair()[1]},
        use=lambda made: made.label_scores(["a"], [" b", " c"]),
    ),
    M + "load_prompted": R(lambda: {"name": "tiny"}, use=lambda made: made.model),
}
