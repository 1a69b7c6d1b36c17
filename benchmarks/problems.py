"""The problems of the inner-loop benchmark: a network, tasks, a loss, an inner rate and
the numbers of inner steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.bilevel import cross_entropy_per_task, mse_per_task
from metalearn_book.foundations.task_models import additive_mask
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    SinusoidTasks,
    TaskBatch,
)
from metalearn_book.optimization.maml import conv4


@dataclass(frozen=True)
class Problem:
    """`loss` takes all tasks and gives one value for each, `(B,)`; `loss_of_one` is the
    same loss as a script writes it for a single task."""

    name: str
    what: str
    network: Callable[[], nn.Module]  # the same start at each call
    tasks: TaskBatch
    loss: Callable[..., Tensor]
    loss_of_one: Callable[[Tensor, Tensor], Tensor]
    inner_lr: float
    steps: tuple[int, ...]


def sinusoids(n_tasks: int = 25) -> Problem:
    "25 tasks, 10 support and 10 query points, MLP 1-40-40-1."

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)
        )

    tasks = SinusoidTasks(10, 10).sample(n_tasks, torch.Generator().manual_seed(0))
    return Problem(
        "sinusoids",
        f"{n_tasks} tasks, MLP 1-40-40-1, 10 support and 10 query points",
        network,
        tasks,
        mse_per_task,
        F.mse_loss,
        0.01,
        (1, 5, 10),
    )


def without_running_statistics(network: nn.Module) -> nn.Module:
    """BatchNorm with the statistics of the batch alone, which is what MAML uses;
    torch.func can't update running ones either."""
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            (
                m.track_running_stats,
                m.running_mean,
                m.running_var,
                m.num_batches_tracked,
            ) = False, None, None, None
    return network


def omniglot(n_tasks: int = 16, n_query: int = 15, channels: int = 64) -> Problem:
    """16 tasks of 5 characters with one support image each, and the network of the
    paper."""
    source = "omniglot" if available("omniglot") else "tiny_glyphs"
    images = load_dataset_by_name(source).where(part="train")
    tasks = ClassTasks(*images.tensors(), n_way=5, k_shot=1, n_query=n_query).sample(
        n_tasks, torch.Generator().manual_seed(0)
    )

    def network() -> nn.Module:
        torch.manual_seed(0)
        return without_running_statistics(conv4(5, channels))

    what = (
        f"{n_tasks} tasks, 5-way 1-shot, {n_query} queries a class, "
        f"conv-4 with {channels} channels, images of {source}"
    )
    return Problem(
        "omniglot",
        what,
        network,
        tasks,
        cross_entropy_per_task,
        F.cross_entropy,
        0.4,
        (1, 5),
    )


class SmallGPT(nn.Module):
    """A GPT-2 of Hugging Face from random weights, token ids `(S, L)` -> logits
    `(S, L, V)`.

    Eager attention and a ready mask let every way differentiate it twice.
    """

    def __init__(self, layers: int, width: int, vocabulary: int, length: int):
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=length,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            attn_implementation="eager",
            bos_token_id=0,
            eos_token_id=0,
        )
        self.gpt = GPT2LMHeadModel(config)
        self.register_buffer(
            "mask", additive_mask(torch.ones(1, length), True, torch.float32)
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.gpt(
            input_ids=ids,
            attention_mask=self.mask.expand(len(ids), -1, -1, -1),
            use_cache=False,
        ).logits


def next_token_loss_of_one(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


def next_token_loss(logits: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    "logits `(B, S, L, V)`, y `(B, S, L)` -> `(B,)`."
    return (
        F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none")
        .view(len(y), -1)
        .mean(1)
    )


def byte_sequences(count: int, length: int) -> tuple[Tensor, str]:
    """Inputs and next bytes, `(count, length + 1)`, from consecutive text, and where it
    comes from."""
    source = "banking77" if available("banking77") else "tiny_intents"
    texts = iter(load_dataset_by_name(source).texts)
    data = b""
    while len(data) < count * (length + 1):
        data += next(texts).encode() + b"\n"
    return torch.tensor(list(data[: count * (length + 1)])).view(
        count, length + 1
    ), source


def gpt(
    sequences: int = 4,
    layers: int = 4,
    width: int = 128,
    length: int = 64,
    vocabulary: int = 512,
) -> Problem:
    "One task, a few sequences of text to adapt to and as many to judge by."
    rows, source = byte_sequences(2 * sequences, length)
    support, query = (
        Examples(part[None, :, :-1], part[None, :, 1:])
        for part in rows.split(sequences)
    )

    def network() -> nn.Module:
        torch.manual_seed(0)
        return SmallGPT(layers, width, vocabulary, length)

    what = (
        f"1 task, {sequences} support and {sequences} query sequences of {length} "
        f"bytes of {source}, GPT-2 with {layers} layers of width {width}"
    )
    return Problem(
        "gpt",
        what,
        network,
        TaskBatch(support, query),
        next_token_loss,
        next_token_loss_of_one,
        0.01,
        (1, 5, 20, 100),
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "sinusoids": sinusoids,
    "omniglot": omniglot,
    "gpt": gpt,
}
SMALL: dict[str, Callable[[], Problem]] = {  # for a quick look and for the tests
    "sinusoids": lambda: sinusoids(4),
    "omniglot": lambda: omniglot(2, 2, 4),
    "gpt": lambda: gpt(2, 2, 16, 8, 256),
}
