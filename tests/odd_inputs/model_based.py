"""Recipes for `model_based`."""

import numpy as np
import torch
from odd_inputs import Recipe

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.model_based import memory as mem
from metalearn_book.model_based import neural_process as npro
from metalearn_book.model_based import prior_fitted as pf

PARTS = ("model_based",)
R = Recipe


def gen(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=gen(seed))


def numbers(dim=2) -> TaskBatch:
    sets = (
        Examples(drawn(2, 4, dim, seed=s), drawn(2, 4, 1, seed=s + 1)) for s in (0, 2)
    )
    return TaskBatch(*sets)


def classes(dim=2) -> TaskBatch:
    y = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])
    return TaskBatch(*(Examples(drawn(2, 4, dim, seed=s), y) for s in (0, 2)))


def of_numbers(made):
    "What a learner of numbers does with tasks of its size."
    tasks = numbers(getattr(made, "dim", 2))
    return made(tasks), made.adapt(tasks.support)(tasks.query.x)


def of_classes(made):
    tasks = classes(made.reader.dim)
    return made(tasks), made.adapt(tasks.support)(tasks.query.x)


def bars() -> pf.Bars:
    return pf.bars_of(drawn(200), 6)


def table_model() -> pf.PFNClassifier:
    torch.manual_seed(0)
    return pf.PFNClassifier(3, 2, width=8, n_layers=1, heads=2)


def sequences() -> mem.Sequences:
    y = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])
    return mem.Sequences(drawn(2, 4, 2), y)


def offset_tasks() -> mem.OffsetTasks:
    return mem.OffsetTasks(drawn(12, 2), [0] * 4 + [1] * 4 + [2] * 4, 2, 3)


def of_sequences(made):
    "What a learner does with sequences, and with tasks."
    s, tasks = sequences(), classes()
    found = made(s), made.answers(s.x, s.y)
    return *found, made(tasks), made.adapt(tasks.support)(tasks.query.x)


def small_memory() -> mem.ExternalMemory:
    return mem.ExternalMemory(3, 2)


def of_memory(made):
    "A step of a memory."
    like = torch.zeros(2, made.heads, made.size)
    return made(like + 1, like + 1, like[..., :1] + 0.5, made.start(2, like))[0]


def mixed() -> npro.NormalMixture:
    return npro.NormalMixture(drawn(2, 3, 2), drawn(2, 3, 2, seed=1).exp())


M = "model_based.memory."
N, P = "model_based.neural_process.", "model_based.prior_fitted."
RECIPES = {
    M + "appearances": R(lambda: {"y": sequences().y}),
    M + "Sequences": R(
        lambda: {"x": drawn(2, 4, 2), "y": sequences().y},
        use=lambda made: mem.SeenSoFar(2).answers(made.x, made.y),
        infinite=True,  # the score of a label that nothing was seen of
    ),
    M + "OffsetTasks": R(
        lambda: {
            "x": drawn(12, 2),
            "labels": [0] * 4 + [1] * 4 + [2] * 4,
            "n_way": 2,
            "per_class": 3,
            "classes": [0, 1, 2],
        },
        use=lambda made: made.sample(2, gen()),
    ),
    M + "first_guess": R(lambda: {"n_way": 5}),
    M + "by_appearance": R(
        lambda: {
            "learner": mem.SeenSoFar(2),
            "tasks": offset_tasks(),
            "n_episodes": 4,
            "seed": 0,
            "tasks_per_batch": 2,
        },
        use=lambda found: [e.values for e in found.values()],
    ),
    M + "RecurrentLearner": R(
        lambda: {
            "dim": 2,
            "n_way": 2,
            "body": None,
            "width": 4,
            "pairs": True,
            "orders": 2,
        },
        use=of_sequences,
    ),
    M + "content_weights": R(
        lambda: {
            "key": drawn(2, 1, 3),
            "content": drawn(2, 4, 3, seed=1),
            "strength": 2.0,
            "floor": 0.5,
        }
    ),
    M + "sharpest_read": R(lambda: {"strength": 2.0, "n_slots": 5, "empty": False}),
    M + "least_used": R(lambda: {"usage": drawn(2, 4), "heads": 2}),
    M + "MemoryState": R(
        lambda: small_memory().start(2, drawn(1))._asdict(),
        use=lambda made: small_memory()(
            drawn(2, 1, 2), drawn(2, 1, 2), torch.full((2, 1, 1), 0.5), made
        )[0],
    ),
    M + "ExternalMemory": R(
        lambda: {
            "slots": 3,
            "size": 2,
            "heads": 2,
            "decay": 0.9,
            "strength": 2.0,
            "learn_strength": True,
            "floor": 0.5,
        },
        use=of_memory,
    ),
    M + "MANN": R(
        lambda: {
            "dim": 2,
            "n_way": 2,
            "body": None,
            "width": 4,
            "slots": 3,
            "size": 2,
            "heads": 2,
            "decay": 0.9,
            "strength": 2.0,
            "learn_strength": True,
            "floor": 0.5,
            "own_write": True,
            "tied_start": True,
            "feedback": True,
            "pairs": True,
            "orders": 2,
        },
        use=of_sequences,
    ),
    M + "ShuffledSupport": R(
        lambda: {"tasks": npro.GPTasks((2, 2), 2)},
        use=lambda made: made.sample(2, gen()),
    ),
    M + "SeenSoFar": R(
        lambda: {
            "n_way": 2,
            "rule": "means",
            "far": 2.0,
            "body": None,
            "per_class": 4,
            "scale": 2.0,
        },
        use=lambda made: made.answers(sequences().x, sequences().y),
    ),
    N + "NormalMixture": R(
        lambda: {"mean": drawn(2, 3, 2), "std": drawn(2, 3, 2, seed=1).exp()},
        use=lambda made: made.log_prob(torch.zeros(*made.mean.shape[:2], 1)),
        infinite=True,  # a density that no floating-point number can hold
    ),
    N + "rbf_kernel": R(
        lambda: {
            "a": drawn(3, 2),
            "b": drawn(4, 2),
            "length": 1.0,
            "scale": 1.0,
            "offset": 0.5,
        }
    ),
    N + "GPTasks": R(
        lambda: {
            "k_shot": (1, 3),
            "n_query": 2,
            "length": 0.6,
            "scale": 1.0,
            "noise": 0.2,
            "x_range": (-2.0, 2.0),
        },
        use=lambda made: made.sample(2, gen()),
    ),
    N + "ExactGP": R(
        lambda: {"length": 1.0, "scale": 1.0, "noise": 0.1, "offset": 0.5},
        use=of_numbers,
    ),
    N + "ConditionalNP": R(
        lambda: {"dim": 2, "width": 4, "min_std": 0.01}, use=of_numbers
    ),
    N + "AttentiveNP": R(
        lambda: {"dim": 2, "width": 4, "heads": 2, "min_std": 0.01}, use=of_numbers
    ),
    N + "LatentNP": R(
        lambda: {
            "dim": 2,
            "width": 4,
            "latent_dim": 2,
            "attention": False,
            "objective": "elbo",
            "n_draws": 2,
            "answer_draws": 4,
            "min_std": 0.01,
            "seed": 0,
        },
        use=of_numbers,
    ),
    N + "normal_kl": R(
        lambda: {
            "mean": drawn(2, 3),
            "std": drawn(2, 3, seed=1).exp(),
            "mean2": drawn(2, 3, seed=2),
            "std2": drawn(2, 3, seed=3).exp(),
        },
        infinite=True,  # from a normal that is too narrow for floating-point numbers
    ),
    N + "predictive_scores": R(
        lambda: {
            "learner": npro.ExactGP(),
            "tasks": npro.GPTasks((2, 2), 3),
            "n_episodes": 4,
            "seed": 0,
            "tasks_per_batch": 2,
        },
        use=lambda found: [e.values for e in found.values()],
    ),
    P + "BetaBernoulliTasks": R(
        lambda: {"a": 1.0, "b": 2.0, "k_shot": (1, 3), "n_query": 2},
        use=lambda made: made.sample(2, gen()),
    ),
    P + "PFNClassifier": R(
        lambda: {"dim": 2, "n_classes": 2, "width": 8, "n_layers": 1, "heads": 2},
        use=of_classes,
    ),
    P + "Bars": R(
        lambda: {"borders": torch.tensor([-1.0, 0.0, 1.0, 2.0, 4.0])},
        use=lambda made: pf.BarDensity(made, torch.zeros(1, 1, len(made))).average,
    ),
    P + "bars_of": R(lambda: {"draws": drawn(200), "n_bars": 6}),
    P + "BarDensity": R(
        lambda: {"bars": bars(), "logits": drawn(2, 3, 6)},
        use=lambda made: made.log_prob(torch.zeros(*made.logits.shape[:2], 1)),
    ),
    P + "PFNRegressor": R(
        lambda: {"bars": bars(), "dim": 2, "width": 8, "n_layers": 1, "heads": 2},
        use=lambda made: made(numbers(made.reader.dim)),
    ),
    P + "TableTasks": R(
        lambda: {"dim": 4, "n_classes": 3, "k_shot": (4, 6), "n_query": 3},
        use=lambda made: made.sample(2, gen()),
    ),
    P + "standardized": R(lambda: {"x": drawn(2, 5, 3), "n": 4}),
    P + "table_probabilities": R(
        lambda: {
            "model": table_model(),
            "x": np.asarray(drawn(6, 3)),
            "y": ["a", "b", "a", "b", "a", "b"],
            "x_query": np.asarray(drawn(2, 3, seed=1)),
        }
    ),
}
