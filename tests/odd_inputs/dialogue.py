"""Recipes for `dialogue_intents`, `several_intents`, `answers` and `service_assistant`
of `case_studies`."""

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.case_studies import answers, dialogue_intents
from metalearn_book.data.dialogues import Turn
from metalearn_book.data.spans import Span
from metalearn_book.foundations.encoders import load_encoder

R = Recipe
I, L = "case_studies.dialogue_intents.", "case_studies.several_intents."
A, S = "case_studies.answers.", "case_studies.service_assistant."


@functools.cache
def tiny():
    return load_encoder("tiny")


def toy():
    return dialogue_intents.tiny_dialogues(2)


def table():
    return dialogue_intents.turn_table(toy())


def vectors(n: int, d: int = 4) -> torch.Tensor:
    g = torch.Generator().manual_seed(n)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=-1)


def marks(n: int = 6, labels: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return (torch.rand(n, labels, generator=g) > 0.5).double()


def turn() -> Turn:
    return Turn("system", "At noon.", (Span(3, 7, "time", "noon"),), ())


def turn_vectors(n: int) -> answers.TurnVectors:
    return answers.TurnVectors(vectors(n), vectors(n), vectors(n))


RECIPES = {
    I + "tiny_dialogues": R(
        lambda: {"n_dialogues": 2, "seed": 0}, use=lambda d: d.services
    ),
    I + "TurnTable": R(
        lambda: {"texts": ("a",), "speakers": ("user",), "dialogue": (0,),
                 "labels": ("s: i",), "services": ("s",), "intents": {"s: i": "b"}},
        use=len,
        kinds={n: "sequence" for n in ("texts", "speakers", "dialogue", "labels",
                                       "services")} | {"intents": "leave"},
    ),
    I + "turn_table": R(lambda: {"data": toy()}, use=len, kinds={"data": "leave"}),
    I + "context_vectors": R(
        lambda: {"z": vectors(4), "dialogue": [0, 0, 1, 1], "decay": 0.5}
    ),
    I + "intent_features": R(
        lambda: {"z": vectors(2), "c": vectors(2), "described": vectors(3),
                 "examples": vectors(3), "contexts": vectors(3)}
    ),
    I + "class_means": R(lambda: {"z": vectors(3), "y": [0, 1, 1], "n": 2}),
    I + "service_dialogues": R(
        lambda: {"part": "test", "most": 1, "seed": 0, "data": toy()}, use=len,
        kinds={"part": "choice", "data": "leave"},
    ),
    I + "turn_vectors": R(lambda: {"encoder": tiny(), "table": table()},
                          kinds={"encoder": "leave", "table": "leave"}),
    I + "IntentEpisode": R(
        lambda: {"query": (3,), "gold": (0,), "support": (1,), "of": (0,)},
        use=lambda e: e.query,
    ),
    I + "intent_episode": R(
        lambda: {"table": table(), "k": 1, "seed": 0, "at_hand": 1},
        use=lambda e: e.gold, kinds={"table": "leave"},
    ),
    L + "label_scores": R(
        lambda: {"z": vectors(6), "Y": marks(), "penalty": 1.0, "z_query": vectors(2)}
    ),
    L + "label_report": R(lambda: {"guess": marks() > 0, "Y": marks() > 0}),
    L + "f1_threshold": R(lambda: {"scores": vectors(6, 3).double(), "Y": marks()}),
    L + "label_features": R(
        lambda: {"scores": marks(), "near": marks(), "counts": torch.tensor([1, 0, 2]),
                 "n": 6}
    ),
    L + "fit_shared": R(
        lambda: {"X": vectors(6, 6).reshape(6, 3, 2).double(), "Y": marks(),
                 "strength": 1.0, "steps": 50}
    ),
    A + "template_of": R(lambda: {"turn": turn()}, kinds={"turn": "leave"}),
    A + "fill_template": R(
        lambda: {"template": "At {time}.", "values": {"time": "noon"}},
        kinds={"template": "text", "values": "leave"},
    ),
    A + "answer_kind": R(lambda: {"turn": turn(), "service": "Shop_1"},
                         kinds={"turn": "leave", "service": "text"}),
    A + "AnswerPairs": R(
        lambda: {"rows": (0,), "asked": ("a",), "templates": ("b",), "kinds": ("c",),
                 "services": ("d",)},
        use=len, kinds={n: "sequence" for n in ("rows", "asked", "templates", "kinds",
                                                "services")},
    ),
    A + "answer_pairs": R(lambda: {"data": toy()}, use=len, kinds={"data": "leave"}),
    A + "BM25": R(
        lambda: {"texts": ["a bus", "a train"], "k1": 1.5, "b": 0.75},
        use=lambda b: b.scores(["the bus"]),
    ),
    A + "best_of_kinds": R(lambda: {"scores": vectors(3, 4), "kinds": [0, 1, 1, 0],
                                    "n": 2}),
    A + "TurnVectors": R(
        lambda: {"z": vectors(2), "c": vectors(2), "o": vectors(2)}, use=len
    ),
    A + "answer_features": R(
        lambda: {"query": turn_vectors(2), "past": turn_vectors(3),
                 "words": vectors(2, 3), "templates": vectors(3), "kinds": [0, 1, 1]},
        kinds={"query": "leave", "past": "leave"},
    ),
    A + "ranks": R(lambda: {"scores": vectors(3), "gold": torch.tensor([0, 1, 2])}),
    A + "recall_at": R(lambda: {"places": torch.tensor([1.0, 3.0]), "k": 2}),
    A + "unfaithful": R(
        lambda: {"text": "At noon, Ada.", "sources": ["noon"]},
        kinds={"text": "text", "sources": "texts"},
    ),
    S + "Reply": R(
        lambda: {"text": "Yes.", "handed_over": False, "why": "", "intent": "i",
                 "intent_sure": 0.5, "template": "Yes.", "kind": "k", "sure": 0.5,
                 "values": {"a": "b"}},
        use=lambda r: r.text,
        kinds={n: "leave" for n in ("handed_over", "intent", "template", "kind",
                                    "values")} | {"text": "text", "why": "text"},
    ),
    S + "FoundAnswer": R(
        lambda: {"kind": "k", "templates": ("t",), "score": 0.5, "evidence": 1.0},
        use=lambda f: f.score, kinds={"kind": "text", "templates": "texts"},
    ),
    S + "ServiceAssistant": R(
        lambda: {"encoder": tiny(), "tagger": None, "masker": None, "least": 0.1,
                 "hand_over": "Wait."},
        use=lambda a: a.add_answers([(["is it open"], "Yes.")]).reply(["open?"]).text,
        kinds={"encoder": "leave", "tagger": "leave", "masker": "leave",
               "hand_over": "text"},
    ),
    S + "pattern_masker": R(dict, use=lambda m: m.form),
}  # fmt: skip
