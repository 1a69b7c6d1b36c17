"""Recipes for `case_studies.questions` and `case_studies.retriever`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.case_studies import questions
from metalearn_book.foundations.encoders import load_encoder

R = Recipe
L, S = "case_studies.questions.", "case_studies.retriever."
PASSAGES = ["The X200 weighs 400 g. It has no radio.", "Returns take thirty days."]


@functools.cache
def tiny():
    return load_encoder("tiny")


def vectors(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.ones(n, 4).cumsum(0), dim=-1)


def scores(n: int = 5) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 6, 3, generator=g, dtype=torch.float64)


def fusion() -> dict:
    prior = torch.zeros(3, dtype=torch.float64)
    return {"X": scores(), "gold": torch.arange(5), "prior": prior, "strength": 1.0}


RECIPES = {
    L + "sentence_places": R(lambda: {"text": PASSAGES[0]}, kinds={"text": "text"}),
    L + "SentencePool": R(
        lambda: {"passages": ("A b.",), "texts": ("A b.",), "around": ("A b.",),
                 "passage": (0,), "start": (0,), "end": (4,)},
        use=len,
    ),
    L + "sentence_pool": R(
        lambda: {"passages": list(PASSAGES)}, use=lambda p: p.find(0, 3)
    ),
    L + "pieces": R(lambda: {"text": PASSAGES[0]}, use=sorted, kinds={"text": "text"}),
    L + "Overlap": R(
        lambda: {"texts": list(PASSAGES)}, use=lambda o: o.scores(["Has it a radio?"])
    ),
    L + "fusion_loss": R(
        lambda: {"weights": torch.ones(3, dtype=torch.float64)} | fusion()
    ),
    L + "fit_fusion": R(lambda: fusion() | {"max_steps": 50}),
    L + "question_features": R(
        lambda: {"pool": questions.sentence_pool(PASSAGES), "questions": ["A radio?"],
                 "z_questions": vectors(1), "z": vectors(3)}
    ),
    L + "tiny_questions": R(
        lambda: {"n_towns": 4, "seed": 0}, use=lambda d: d.questions
    ),
    S + "risk_coverage": R(
        lambda: {"confidence": torch.tensor([3.0, 2.0]),
                 "right": torch.tensor([True, False])}
    ),
    S + "FoundSentence": R(
        lambda: {"passage": 0, "name": "a", "start": 0, "end": 3, "text": "abc",
                 "score": 0.5, "evidence": 1.0}
    ),
    S + "SentenceRetriever": R(
        lambda: {"encoder": tiny(), "weights": [1.0, 2.0, 3.0], "batch_size": 4},
        use=lambda r: r.add(PASSAGES).search("Has it a radio?", 2),
    ),
}  # fmt: skip
