"""Small things that the tests of several chapters build on."""

import torch
from torch import nn

from metalearn_book.foundations.tasks import SinusoidTasks, TaskBatch


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(tasks: TaskBatch) -> TaskBatch:
    "The same tasks in double precision; labels stay whole numbers."

    def up(t):
        return t.double() if t.is_floating_point() else t

    return TaskBatch(tasks.support.map(up), tasks.query.map(up))


def sinusoids(n: int = 4, seed: int = 0, **options) -> TaskBatch:
    "n small sinusoid tasks in double precision."
    return double(
        SinusoidTasks(**{"k_shot": 6, "n_query": 5, **options}).sample(n, gen(seed))
    )


def sine_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def unit(n: int, d: int = 6, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    "n random vectors (n, d) of length 1."
    return nn.functional.normalize(
        torch.randn(n, d, generator=gen(seed), dtype=dtype), dim=-1
    )


def few_intents():
    "Four generated intents with six texts each."
    from metalearn_book.case_studies.text_classification import draw_shots
    from metalearn_book.data import load_dataset_by_name

    d = load_dataset_by_name("tiny_intents", part="train")
    d = d.where(classes=d.classes[:4])
    return d._keep(draw_shots(d.labels, 6, 0))


def randn(*size, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=gen(seed), dtype=torch.float64)
