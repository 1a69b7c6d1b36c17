"""Recipes for `case_studies.relations`, `case_studies.knowledge_graph` and
`book.demos`."""

import functools
import hashlib

import torch
from odd_inputs import Recipe
from torch import nn

from metalearn_book.case_studies import knowledge_graph, relations
from metalearn_book.case_studies.few_shot_tagger import Entity
from metalearn_book.foundations.encoders import tiny_encoder

R = Recipe
L, G = "case_studies.relations.", "case_studies.knowledge_graph."
TEXT = "Ada hired Bruno and Clara paid Dario ."
SHA = hashlib.sha256(TEXT.encode()).hexdigest()[:16]
PAIR = relations.EntityPair.of(TEXT, "Ada", "Bruno")
RULE = knowledge_graph.Rule("hired", r"(?P<h>\w+) hired (?P<t>\w+)")
KINDS = {"hired": ("person", "person")}
SPANS = [Entity(0, 3, "person", 1.0, "Ada"), Entity(10, 15, "person", 1.0, "Bruno")]


@functools.cache
def toy():
    return relations.tiny_relations(3)


@functools.cache
def plain():
    return tiny_encoder([p.text for p in relations.as_pairs(toy().texts)])


def asked(estimator):
    texts, labels = toy().texts[:6], toy().labels[:6]
    return estimator.fit(texts, labels).predict_proba(texts)


def vectors(n: int = 12) -> torch.Tensor:
    z = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.normalize(z, dim=-1)


def labels(n: int = 12) -> list[str]:
    return ["abc"[i % 3] for i in range(n)]


class Silent:
    "A tagger that finds the two names."

    def predict(self, texts):
        return [SPANS if t == TEXT else [] for t in texts]


@functools.cache
def extractor():
    some = toy().where(classes=["hired", "joined"])
    encoder = relations.MarkerEncoder(plain())
    return relations.RelationExtractor(encoder).fit(some.texts, some.labels)


def triple(**more) -> knowledge_graph.Triple:
    return knowledge_graph.Triple("Ada", "hired", "Bruno", **more)


ROWS = [{"stated": [["Ada", "hired", "Bruno"]], "also": [], "unclear": []}]

RECIPES = {
    L + "EntityPair": R(
        lambda: {"text": TEXT, "head": (0, 3), "tail": (10, 15)},
        use=lambda p: p.marked,
        kinds={"text": "text"},
    ),
    L + "relation_start": R(lambda: {}, use=lambda s: list(s.tensors)),
    L + "as_pairs": R(lambda: {"rows": [PAIR, PAIR.marked]}),
    L + "MarkerEncoder": R(
        lambda: {"encoder": plain()}, use=lambda e: e.encode([PAIR.marked])
    ),
    L + "tiny_relations": R(lambda: {"n": 2, "seed": 0}, use=lambda d: d.texts),
    L + "measure_relations": R(
        lambda: {"z": vectors(), "labels": labels(), "k": 1, "asked": vectors(),
                 "head": "ridge", "lam": 1.0, "n_way": 3, "n_query": 2, "n_episodes": 3,
                 "seed": 0},
        use=lambda e: e.values,
    ),
    L + "scope_aurocs": R(
        lambda: {"z": vectors(24), "labels": ["abcd"[i % 4] for i in range(24)], "k": 1,
                 "n_way": 2, "n_query": 2, "n_episodes": 3, "seed": 0},
        use=lambda d: [e.values for e in d.values()],
    ),
    L + "RelationExtractor": R(
        lambda: {"encoder": relations.MarkerEncoder(plain()), "head": "prototype",
                 "penalty": None, "reject_share": 0.1, "batch_size": 8,
                 "device": "cpu"},
        use=asked,
    ),
    G + "Triple": R(
        lambda: {"head": "Ada", "relation": "hired", "tail": "Bruno", "score": 0.5,
                 "text": 0},
        kinds={"head": "text", "relation": "text", "tail": "text"},
    ),
    G + "mention_pairs": R(
        lambda: {"text": TEXT, "entities": SPANS, "kinds": KINDS},
        kinds={"text": "text"},
    ),
    G + "fits": R(
        lambda: {"relation": "hired", "pair": PAIR, "entities": SPANS, "kinds": KINDS},
        kinds={"relation": "choice"},
    ),
    G + "learned_triples": R(
        lambda: {"texts": [TEXT], "tagger": Silent(), "extractor": extractor(),
                 "kinds": dict.fromkeys(["hired", "joined"], KINDS["hired"])},
    ),
    G + "Rule": R(
        lambda: {"relation": "hired", "pattern": "(?P<h>A) (?P<t>B)"},
        kinds={"relation": "text", "pattern": "text"},
    ),
    G + "rule_triples": R(
        lambda: {"texts": [TEXT],
                 "rules": [RULE]}
    ),
    G + "name_words": R(lambda: {"name": "Queen Ada"}, kinds={"name": "text"}),
    G + "same_name": R(
        lambda: {"a": "Ada", "b": "Queen Ada"}, kinds={"a": "text", "b": "text"}
    ),
    G + "says_the_same": R(
        lambda: {"triple": triple(), "other": ["Ada", "hired", "Bruno"]}
    ),
    G + "judge_triples": R(lambda: {"found": [triple()], "rows": ROWS}),
    G + "recall_of": R(lambda: {"found": [triple()], "rows": ROWS}),
    G + "labelled_sample": R(lambda: {}, use=len),
    G + "sample_texts": R(
        lambda: {"marked": [PAIR.marked], "labels": ["hired"],
                 "rows": [{"relation": "hired", "row": 0, "sha256": SHA}]}
    ),
    G + "fused_triples": R(
        lambda: {"learned": [triple(score=0.9)], "ruled": [triple()], "bar": 0.5}
    ),
    G + "KnowledgeGraph": R(
        lambda: {"triples": [triple()]}, use=lambda g: g.about("Ada")
    ),
    "book.demos.run_demo": R(lambda: {"name": "relations"}, kinds={"name": "choice"}),
}  # fmt: skip
