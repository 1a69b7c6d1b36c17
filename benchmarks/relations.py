"""Few-shot relations of FewRel: marks, meta-training, names, rejection, medicine.

    python benchmarks/relations.py [--seeds 0 1 2] [--search] [--ship]

--search trains one encoder for each entry of SEARCH and measures it on validation
relations; layers and steps of TRAIN were chosen by it. For each seed the encoder is
meta-trained on marked sentences of the training relations, of SemEval-2010 and of
invented sentences with two clauses; the penalty of ridge is chosen on validation
relations. Then every encoder is measured on the same episodes of the test relations.
Trained starts are kept under _build/relations/, vectors in the cache of features, and
each cell of the tables is stored as soon as it is measured: a restart goes on from
there. About 7 minutes of processor time for each seed, and 10 for the search. The
numbers go to results/benchmarks/relations.json; --ship writes the start of the first
seed, whatever it reached, to metalearn_book/starts/relations.safetensors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from functools import cache
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.relations import EntityPair, MarkerEncoder
from metalearn_book.case_studies.relations import measure_relations, scope_aurocs
from metalearn_book.case_studies.relations import tiny_relations
from metalearn_book.case_studies.starts import Start, compress, load_start
from metalearn_book.case_studies.starts import weights_sha256
from metalearn_book.case_studies.text_classification import corpus, train_encoder
from metalearn_book.data import LabeledTexts, class_split
from metalearn_book.foundations.encoders import cached_features, load_encoder
from metalearn_book.foundations.measuring import best_of
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.foundations.training import meta_train
from metalearn_book.metric.prototypes import ProtoNet, ResidualMap

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "relations"
TRAIN = {"n_classes": 12, "per_class": 4, "lr": 2e-4, "layers": 6, "steps": 300}
SHOTS, EPISODES, ROWS = (1, 5), 300, 60
RANKS = {3: 32, 6: 20}  # of a start, by the layers that it changes: below 2 MB
#: what was tried on validation relations, as changes to the first entry
SEARCH = {
    "3 layers, 120 steps": {"layers": 3, "steps": 120},
    "without SemEval": {"layers": 3, "steps": 120, "sets": ("fewrel",)},
    "24 relations, 2 sentences of each": {
        "layers": 3,
        "steps": 120,
        "n_classes": 24,
        "per_class": 2,
    },
    "3 layers, 300 steps": {"layers": 3, "steps": 300},
    "6 layers, 120 steps": {"layers": 6, "steps": 120},
}
#: seed of the start that comes with the package: the first, so that no test number
#: has a part in the choice
SHIPPED = 0
REAL_SETS = ("fewrel", "semeval")
SETS = (*REAL_SETS, "invented", "invented")  # a set is drawn by its number of classes
LAMS = (0.1, 1.0, 10.0)
SCOPE = "nearest class mean"


@cache
def part(name: str) -> LabeledTexts:
    "The rows of one part of FewRel, at most 60 of each relation."
    return corpus("fewrel", ROWS).where(part=name)


@cache
def training_set(name: str) -> tuple[list[str], list[str]]:
    "Marked sentences and relations of one set that the encoder is trained on."
    if name == "invented":
        data = tiny_relations(60).where(part="train")
    elif name == "semeval":
        data = corpus("fewrel_semeval", 400)
    else:
        data = corpus("fewrel", 400).where(part="train")
    return data.texts, data.labels


@cache
def minilm():
    return load_encoder("minilm")


@cache
def frozen() -> MarkerEncoder:
    return MarkerEncoder(minilm())


def entities_first(text: str) -> str:
    "The two names in front of the plain sentence, as the first baseline reads it."
    pair = EntityPair.from_marked(text)
    return f"{pair.names[0]}, {pair.names[1]}: " + pair.text


def names_alone(text: str) -> str:
    "The two names in marks, and no sentence around them."
    head, tail = EntityPair.from_marked(text).names
    return f"<h> {head} </h> , <t> {tail} </t>"


def names_hidden(text: str) -> str:
    "The sentence with a word in place of either name."
    return EntityPair.from_marked(text).replaced("it", "that").marked


def other_names(data: LabeledTexts) -> list[str]:
    "The sentences with the names of another relation's sentence."
    draw, names = (
        random.Random(0),
        [EntityPair.from_marked(t).names for t in data.texts],
    )
    rows = []
    for text, relation in zip(data.texts, data.labels):
        while data.labels[i := int(draw.random() * len(names))] == relation:
            pass
        rows.append(EntityPair.from_marked(text).replaced(*names[i]).marked)
    return rows


def trained(name: str, seed: int = 0, sets=SETS, **more) -> MarkerEncoder:
    "An encoder as its start gives it: trained, or read from _build."
    path, settings = FOLDER / f"{name}.safetensors", TRAIN | more
    if not path.exists():
        began = time.process_time()
        encoder = train_encoder(
            frozen(), [training_set(s) for s in sets], seed=seed, bf16=True, **settings
        )
        losses = encoder.losses
        seconds = time.process_time() - began
        last = sum(losses[-30:]) / len(losses[-30:])
        print(f"{name}: trained in {seconds:.0f} s, last losses {last:.3f}", flush=True)
        store(path, encoder, losses, seconds, settings | {"seed": seed, "sets": sets})
    return load_start(path).applied(frozen())


SOURCES = {
    "fewrel": "training relations of the split (MIT)",
    "semeval": "SemEval-2010 task 8 (MIT; CC BY 3.0)",
    "invented": "twelve invented relations of the package",
}


def store(path: Path, encoder, losses, seconds: float, training: dict) -> None:
    "Write the change of an encoder as a start."
    before, after = (e.model.state_dict() for e in (frozen(), encoder))
    about = {
        "name": "relations",
        "kind": "encoder",
        "encoder": "minilm",
        "base_sha256": weights_sha256(frozen()),
        "sources": {s: SOURCES[s] for s in training["sets"]},
        "training": training,
        "losses": losses,
        "seconds": seconds,
        "command": "python benchmarks/relations.py --ship",
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    Start(compress(before, after, RANKS[training["layers"]]), about).save(path)


def sentence_vectors(data: LabeledTexts, how=entities_first) -> torch.Tensor:
    # one key and one order of rows, so that other chapters' vectors are found again
    whole = corpus("fewrel", ROWS)
    if data.name == "fewrel" and how is entities_first:
        z = cached_features(minilm(), [how(t) for t in whole.texts], key="fewrel")
        rows = {t: i for i, t in enumerate(whole.texts)}
        return z[[rows[t] for t in data.texts]]
    return cached_features(minilm(), [how(t) for t in data.texts], key="fewrel")


def marked_vectors(encoder, data: LabeledTexts, how=str) -> torch.Tensor:
    return cached_features(encoder, [how(t) for t in data.texts], key="relations")


def mapped(seed: int) -> ResidualMap:
    "A linear map of sentence vectors, meta-trained on the training relations."
    torch.manual_seed(seed)
    learner = ProtoNet(ResidualMap(minilm().dim), temperature=0.1)
    data = part("train")
    z = sentence_vectors(data)
    tasks = ClassTasks(z, data.labels, 20, 1, 5)
    meta_train(
        learner,
        tasks,
        steps=100,
        tasks_per_step=4,
        outer_lr=1e-3,
        progress=False,
        seed=seed,
    )
    return learner.body.requires_grad_(False)


class Table:
    "Measured cells, stored one by one."

    def __init__(self):
        self.config = {"rows": ROWS, "episodes": EPISODES, "sets": SETS, **TRAIN}
        self.config = json.loads(json.dumps(self.config))
        try:
            stored = load_results("benchmarks/relations")
        except (FileNotFoundError, KeyError):
            stored = {"numbers": {}, "config": self.config}
        if stored["config"] != self.config:
            stored["numbers"] = {}
        self.cells = stored["numbers"].get("cells", {})
        self.more = stored["numbers"].get("more", {})
        self.began = time.perf_counter()

    def add(self, name: str, seed: int, make) -> None:
        "Measure a cell unless it is there."
        cell = self.cells.setdefault(name, {})
        if str(seed) not in cell:
            e = make()
            cell[str(seed)] = [round(v, 4) for v in e.values.tolist()]
            print(f"{name}, seed {seed}: {e}", flush=True)
            self.save()

    def save(self) -> None:
        save_results(
            "benchmarks/relations",
            {"cells": self.cells, "more": self.more},
            seed=0,
            seconds=time.perf_counter() - self.began,
            config=self.config,
        )


def on_test(table: Table, name: str, seed: int, z, data, asked=None, **more):
    for k in SHOTS:
        table.add(
            f"{name}/{k}",
            seed,
            lambda: measure_relations(
                z(),
                data.labels,
                k,
                n_episodes=EPISODES,
                asked=asked and asked(),
                **more,
            ),
        )


def choose(table: Table, z) -> float:
    "The penalty of ridge, by validation relations."
    if "lam" not in table.more:
        data = part("validation")
        z = z(data)
        scores = {
            lam: measure_relations(
                z, data.labels, 5, head="ridge", lam=lam, n_episodes=100
            ).mean
            for lam in LAMS
        }
        table.more |= {"lam": best_of(scores), "lam_scores": scores}
        table.save()
    return table.more["lam"]


def scope(table: Table, name: str, seed: int, z, data) -> None:
    for k in SHOTS:
        found = {}

        def one(score):
            found.update(
                found or scope_aurocs(z(), data.labels, k, n_episodes=EPISODES // 3)
            )
            return found[score]

        for score in ("largest probability", "energy", SCOPE):
            table.add(f"scope, {score}, {name}/{k}", seed, lambda: one(score))


def search(table: Table) -> None:
    "Every entry of SEARCH on validation relations, one training run of each."
    data, found = part("validation"), table.more.setdefault("search", {})
    for name, change in SEARCH.items():
        if name not in found:
            settings = TRAIN | {"sets": REAL_SETS} | change
            sets = [training_set(s) for s in settings.pop("sets")]
            encoder = train_encoder(frozen(), sets, seed=0, bf16=True, **settings)
            searched(table, name, encoder.encode(data.texts))


def searched(table: Table, name: str, z: torch.Tensor) -> None:
    "Store what the vectors of the validation sentences give."
    labels = part("validation").labels
    scores = {k: measure_relations(z, labels, k, n_episodes=EPISODES) for k in SHOTS}
    table.more["search"][name] = {
        str(k): [round(v, 4) for v in e.values.tolist()] for k, e in scores.items()
    }
    print(name, *(f"{k}-shot {e}" for k, e in scores.items()), flush=True)
    table.save()


def measure_seed(table: Table, seed: int) -> None:
    encoder = cache(lambda: trained(f"seed{seed}", seed))  # where a cell asks for it
    test, medicine = part("test"), corpus("fewrel_pubmed", ROWS)
    z = lambda data=test, how=str: marked_vectors(encoder(), data, how)
    lam, held = choose(table, z), part("validation")
    on_test(table, "validation, marks, trained", seed, lambda: z(held), held)
    on_test(table, "marks, trained", seed, z, test)
    on_test(table, "marks, trained, ridge", seed, z, test, head="ridge", lam=lam)
    scope(table, "marks, trained", seed, z, test)
    on_test(
        table, "marks, trained, names alone", seed, lambda: z(how=names_alone), test
    )
    on_test(
        table, "marks, trained, names hidden", seed, lambda: z(how=names_hidden), test
    )
    asked = lambda: cached_features(encoder(), other_names(test), key="relations")
    on_test(table, "marks, trained, other names", seed, z, test, asked=asked)
    on_test(table, "PubMed, marks, trained", seed, lambda: z(medicine), medicine)
    toy = invented()
    on_test(table, "invented, marks, trained", seed, lambda: z(toy), toy)


def invented() -> LabeledTexts:
    "The six invented relations that no encoder is trained on, two in each sentence."
    return tiny_relations(60).where(part="test")


def measure_frozen(table: Table, seeds: list[int]) -> None:
    test, medicine, toy = part("test"), corpus("fewrel_pubmed", ROWS), invented()
    assert not set(class_split("fewrel")["train"]) & set(test.labels)
    z = lambda: sentence_vectors(test)
    on_test(table, "sentence vectors", 0, z, test)
    scope(table, "sentence vectors", 0, z, test)
    for seed in seeds:
        on_test(table, "sentence vectors, map", seed, lambda: mapped(seed)(z()), test)
        on_test(
            table,
            "PubMed, sentence vectors, map",
            seed,
            lambda: mapped(seed)(sentence_vectors(medicine)),
            medicine,
        )
    on_test(table, "names alone", 0, lambda: sentence_vectors(test, plain_names), test)
    on_test(
        table,
        "PubMed, sentence vectors",
        0,
        lambda: sentence_vectors(medicine),
        medicine,
    )
    on_test(table, "invented, sentence vectors", 0, lambda: sentence_vectors(toy), toy)
    for name, data in (("", test), ("PubMed, ", medicine), ("invented, ", toy)):
        on_test(
            table,
            f"{name}marks, not trained",
            0,
            lambda: marked_vectors(frozen(), data),
            data,
        )


def plain_names(text: str) -> str:
    return "{}, {}".format(*EntityPair.from_marked(text).names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--search", action="store_true", help="layers and steps, once")
    parser.add_argument("--ship", action="store_true", help="write the package's start")
    given = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    table = Table()
    if given.search:
        search(table)
        return
    for place, seed in enumerate(given.seeds):
        measure_seed(table, seed)
        if place == 0:
            measure_frozen(table, given.seeds)
    if given.ship:
        start = load_start(FOLDER / f"seed{SHIPPED}.safetensors")
        start.save(ROOT / "metalearn_book/starts/relations.safetensors")


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
