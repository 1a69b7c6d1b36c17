"""Recipes for `case_studies.sentiment` and `case_studies.entity_sentiment`."""

import functools

import torch
from odd_inputs import Recipe as R
from torch import nn

from metalearn_book import data
from metalearn_book.case_studies import entity_sentiment as es
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import Evaluation
from metalearn_book.foundations.tasks import Examples

encoder = functools.cache(lambda: load_encoder("tiny"))
TEXT = "Alda rose while Brint fell."
MENTIONS = [(TEXT, "Alda"), (TEXT, (16, 21)), ("Corvo fell.", "Corvo"), "a fine day"]
LABELS = ["good", "bad", "bad", "good"]


def y() -> torch.Tensor:
    return torch.tensor([0, 1, 1, 0])


def hidden() -> torch.Tensor:
    return torch.randn(2, 3, encoder().dim, generator=torch.Generator().manual_seed(0))


def states() -> dict[str, torch.Tensor]:
    return {"hidden": hidden(), "mask": torch.ones(2, 3), "near": torch.ones(2, 3)}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two() -> Examples:
    return Examples(torch.ones(1, 2, 3), torch.tensor([[0, 1]]))


def scores() -> Evaluation:
    return Evaluation(torch.tensor([0.5, 1.0]), 0)


def asked(model):
    return model.fit(MENTIONS, LABELS).predict_proba(MENTIONS)


S, E = "case_studies.sentiment.", "case_studies.entity_sentiment."

RECIPES = {
    S + "short_sentences": R(
        lambda: {"data": data.load_dataset_by_name("tiny_sentiment").where(
            part="test", domain="films"), "encoder": encoder(), "longest": 12,
            "most": 3, "seed": 0}
    ),
    S + "DomainTasks": R(
        lambda: {"x": torch.randn(12, 3), "y": torch.tensor([0, 1] * 6),
                 "domains": ["a"] * 6 + ["b"] * 6, "k_shot": 1, "n_query": 2,
                 "of": ["a"]},
        use=lambda t: t.sample(2, torch.Generator().manual_seed(0)).query.y,
    ),
    S + "SourceHead": R(
        lambda: {"body": nn.Identity(), "x": torch.randn(6, 3),
                 "y": torch.tensor([0, 1] * 3), "own": 1.0, "penalty": 0.1},
        use=lambda h: h.adapt(two())(torch.ones(1, 2, 3)),
    ),
    S + "DomainMethods": R(
        lambda: {"encoder": encoder(), "texts": ["good", "bad", "fine", "poor"],
                 "y": torch.tensor([0, 1, 0, 1]), "domains": ["a"] * 4,
                 "outer_steps": 1, "inner_steps": 1},
        use=lambda m: m.tasks(["a"], 1, 1).sample(1, generator()).query.y,
    ),
    S + "chosen_rates": R(lambda: {"found": {"ridge": {0.1: scores()}}}),
    S + "outer_optimizer": R(
        lambda: {"learner": nn.Linear(2, 2), "lr": 1e-3, "head_lr": 1e-2},
        use=lambda o: len(o.param_groups),
    ),
    E + "invented_news": R(lambda: {"n": 4, "seed": 0}, use=lambda d: d.texts),
    E + "entity_mentions": R(lambda: {"data": es.invented_news(4)}),
    E + "entity_places": R(
        lambda: {"text": TEXT, "entity": "Alda"},
        kinds={"text": "text", "entity": "text"},
    ),
    E + "read_mention": R(lambda: {"mention": TEXT}, kinds={"mention": "text"}),
    E + "text_answers": R(lambda: {"labels": list("aab"), "rows": [0, 0, 1]}),
    E + "mention_windows": R(
        lambda: {"encoder": encoder(), "mentions": MENTIONS, "window": 12}
    ),
    E + "near_weights": R(lambda: {"at": [[0, 1], [2]], "width": 4, "reach": 2.0}),
    E + "mention_pool": R(states),
    E + "mention_vectors": R(
        lambda: {"encoder": encoder(), "mentions": MENTIONS, "batch_size": 2,
                 "window": 12, "reach": 2.0}
    ),
    E + "MentionTop": R(
        lambda: {"encoder": encoder(), "n_top": 1, "n_classes": 2},
        use=lambda net: net(**states()),
    ),
    E + "tune_mentions": R(
        lambda: {"encoder": encoder(), "mentions": MENTIONS, "y": y(), "n_classes": 2,
                 "steps": 1, "n_top": 1, "lr": 1e-3, "head_lr": 1e-2, "stitched": 0.5,
                 "window": 12, "reach": 2.0, "seed": 0},
        use=lambda found: found[1:],
    ),
    E + "EntitySentiment": R(
        lambda: {"encoder": encoder(), "tune": "top", "n_top": 1, "steps": 1,
                 "lr": 1e-3, "head_lr": 1e-2, "stitched": 0.5, "window": 12,
                 "reach": 2.0, "penalty": 0.1, "batch_size": 2, "seed": 0,
                 "device": "cpu"},
        use=asked,
    ),
    E + "macro_f1": R(
        lambda: {"y": list("aabb"), "guess": list("abbb"), "groups": [0, 0, 1, 1],
                 "minus": list("aaab"), "n_boot": 20, "seed": 0},
        use=lambda f: (f.mean, f.ci95),
    ),
    E + "demo": R(  # without them: a pretrained encoder and all its steps
        lambda: {"encoder": encoder(), "steps": 1},
        kinds={"encoder": "leave", "steps": "leave"},
    ),
}  # fmt: skip
