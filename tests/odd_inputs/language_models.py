"""Recipes for `language_models`."""

import functools
import tempfile
from pathlib import Path

import torch
from odd_inputs import Recipe

from metalearn_book.language_models import pretraining, small_gpt

PARTS = ("language_models",)
R = Recipe
HERE = Path(tempfile.mkdtemp(prefix="odd"))
TEXTS = ["<headline> the swift left", "<user> pay the rent<system> that is paid"]


@functools.cache
def tokenizer() -> small_gpt.Tokenizer:
    return small_gpt.train_tokenizer(TEXTS, 270)


@functools.cache
def config() -> small_gpt.GPTConfig:
    return small_gpt.GPTConfig(270, 64, 8, 1, 2)


@functools.cache
def model() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(config()).eval()


def ids(*shape) -> torch.Tensor:
    return torch.randint(0, 270, shape, generator=torch.Generator().manual_seed(1))


def logits(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def documents() -> list[list[int]]:
    return [small_gpt.document_ids(tokenizer(), t) for t in TEXTS * 4]


@functools.cache
def saved() -> Path:
    return pretraining.save_small_gpt(HERE / "kept", model(), tokenizer())


@functools.cache
def saved_tokenizer() -> Path:
    return tokenizer().save(HERE / "tokenizer.json")


@functools.cache
def other():
    return small_gpt.to_gpt2(model())


def recipe() -> pretraining.Recipe:
    return pretraining.Recipe(config(), 128, 64)


def fresh() -> small_gpt.SmallGPT:
    torch.manual_seed(0)
    return small_gpt.SmallGPT(config())


def optimizer_of(net):
    return pretraining.language_optimizer(net, 1e-3)


def step() -> dict:
    net = fresh()
    return {"model": net, "optimizer": optimizer_of(net), "ids": ids(2, 9)}


S = "small_gpt."
L = "language_models." + S
P = "language_models.pretraining."
THINGS = {"model": "thing", "tokenizer": "thing"}
RECIPES = {
    L + "check_text": R(lambda: {"name": "text", "text": "a"},
                        kinds={"name": "leave", "text": "text"}),
    L + "without_control": R(lambda: {"text": "<user> a"}, kinds={"text": "text"}),
    L + "Tokenizer": R(lambda: {"fast": tokenizer()._fast}, kinds={"fast": "thing"}),
    L + "train_tokenizer": R(lambda: {"texts": list(TEXTS), "vocab_size": 270}),
    L + "load_tokenizer": R(lambda: {"path": saved_tokenizer()}),
    L + "document_ids": R(
        lambda: {"tokenizer": tokenizer(), "text": TEXTS[0]},
        kinds={"tokenizer": "thing", "text": "text"},
    ),
    L + "token_batch": R(
        lambda: {"tokenizer": tokenizer(), "texts": list(TEXTS), "length": 9},
        kinds={"tokenizer": "thing"},
    ),
    L + "GPTConfig": R(
        lambda: {"vocab_size": 30, "context": 8, "width": 8, "n_layers": 1,
                 "n_heads": 2}
    ),
    L + "CausalAttention": R(
        lambda: {"config": config()}, use=lambda m: m(logits(2, 5, 8))
    ),
    L + "Block": R(lambda: {"config": config()}, use=lambda m: m(logits(2, 5, 8))),
    L + "SmallGPT": R(lambda: {"config": config()}, use=lambda m: m(ids(2, 5))),
    L + "to_gpt2": R(lambda: {"model": model()}, kinds=THINGS),
    L + "from_gpt2": R(lambda: {"other": other()}, kinds={"other": "thing"}),
    L + "token_losses": R(lambda: {"logits": logits(2, 5, 270), "ids": ids(2, 5)}),
    L + "causal_loss": R(lambda: {"logits": logits(2, 5, 270), "ids": ids(2, 5)}),
    L + "causal_loss_per_task": R(
        lambda: {"logits": logits(2, 3, 5, 270), "ids": ids(2, 3, 5),
                 "mask": torch.ones(2, 3, dtype=torch.bool)}
    ),
    L + "next_probabilities": R(
        lambda: {"logits": logits(2, 9), "temperature": 0.7, "top_p": 0.9}
    ),
    L + "generate": R(
        lambda: {"model": model(), "tokenizer": tokenizer(), "prompt": "<user> a",
                 "n_tokens": 2, "temperature": 0.7, "top_p": 0.9,
                 "generator": torch.Generator().manual_seed(0), "stop": "<end>"},
        kinds=THINGS | {"prompt": "text", "stop": "text"},
    ),
    L + "text_nats": R(
        lambda: {"model": model(), "tokenizer": tokenizer(), "texts": list(TEXTS),
                 "batch_size": 2},
        kinds=THINGS,
    ),
    L + "bits_per_byte": R(
        lambda: {"model": model(), "tokenizer": tokenizer(), "texts": list(TEXTS),
                 "batch_size": 2},
        kinds=THINGS,
    ),
    L + "bits_interval": R(
        lambda: {"nats": [30.0, 41.0, 35.0], "n_bytes": [9, 12, 10]}
    ),
    P + "dialogue_text": R(lambda: {"turns": [("user", "a"), ("system", "b")]}),
    P + "tagged": R(lambda: {"domain": "headline", "text": "a"},
                    kinds={"text": "text"}),
    # no data here: the right answer names the ways to get them
    P + "domain_texts": R(
        lambda: {"domain": "headline", "part": "test"}, fails=Exception
    ),
    P + "tiny_texts": R(lambda: {"domain": "headline", "part": "test"}),
    P + "packed_rows": R(
        lambda: {"documents": documents(), "length": 12,
                 "generator": torch.Generator().manual_seed(0)}
    ),
    P + "Recipe": R(
        lambda: {"config": config(), "n_tokens": 128, "tokens_per_step": 64,
                 "lr": 1e-3, "weight_decay": 0.1, "tiny": False, "seed": 0},
        use=lambda r: r.rate(1),
    ),
    P + "language_step": R(step, kinds={"model": "thing", "optimizer": "thing"}),
    P + "language_optimizer": R(
        lambda: {"model": fresh(), "lr": 1e-3, "weight_decay": 0.1}, kinds=THINGS
    ),
    P + "pretrain": R(
        lambda: {"documents": documents(), "recipe": recipe(), "save_every": 30.0,
                 "watch_every": 1, "bf16": False, "progress": False, "device": "cpu"},
        kinds={"recipe": "thing"},
    ),
    P + "save_small_gpt": R(
        lambda: {"folder": HERE / "new", "model": model(), "tokenizer": tokenizer(),
                 "about": {"a": 1}},
        kinds=THINGS,
    ),
    P + "load_small_gpt": R(lambda: {"folder": saved()}),
    P + "model_folder": R(lambda: {"name": "gpt-tiny"}),
    # not made here, as the error says
    P + "small_model": R(lambda: {"name": "gpt-base"}, fails=FileNotFoundError),
    P + "model_about": R(lambda: {"name": "gpt-base"}, fails=FileNotFoundError),
    P + "build_model": R(
        lambda: {"name": "gpt-base", "progress": False}, fails=Exception
    ),
    P + "build_models": R(
        lambda: {"names": ["gpt-base"], "progress": False}, fails=Exception
    ),
}  # fmt: skip
