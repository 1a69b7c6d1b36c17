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
    return double(SinusoidTasks(**{"k_shot": 6, "n_query": 5, **options}).sample(n, gen(seed)))


def sine_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
