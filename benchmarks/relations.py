"""Few-shot relations of FewRel: marks, meta-training, names, rejection, medicine.

    python benchmarks/relations.py [--seeds 0 1 2] [--steps 120]

For each seed the top layers of MiniLM are meta-trained on marked sentences of the
training relations (and of SemEval-2010); the penalty is chosen on validation
relations ("choose"). A run with another number of steps takes the place of the stored
one, and leaves its means in `more["budget"]`. Then every encoder is measured on the
same episodes of the test relations. Trained starts are kept under _build/relations/,
vectors in the cache of features, and each cell of the tables is stored as soon as it is
measured: a restart goes on from there. About 4 minutes of processor time for each seed.
The numbers go to results/benchmarks/relations.json; --ship writes the start of seed 0,
compressed, to metalearn_book/starts/relations.safetensors.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import cache
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.relations import EntityPair, MarkerEncoder
from metalearn_book.case_studies.relations import measure_relations, scope_aurocs
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
TRAIN = {"n_classes": 12, "per_class": 4, "lr": 2e-4, "layers": 3}
SHOTS, EPISODES, ROWS, RANK = (1, 5), 300, 60, 32
LAMS = (0.1, 1.0, 10.0)
SCOPE = "nearest class mean"


@cache
def part(name: str) -> LabeledTexts:
    "The rows of one part of FewRel, at most 60 of each relation."
    return corpus("fewrel", ROWS).where(part=name)


@cache
def training_sets() -> list[tuple[list[str], list[str]]]:
    "Marked sentences and relations that the encoder is trained on."
    every = [corpus("fewrel", 400).where(part="train"), corpus("fewrel_semeval", 400)]
    return [(d.texts, d.labels) for d in every]


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


def trained(seed: int, steps: int) -> MarkerEncoder:
    "The encoder of a seed: trained, or read from _build."
    path = FOLDER / f"seed{seed}-{steps}.safetensors"
    if not path.exists():
        began = time.process_time()
        encoder = train_encoder(
            frozen(), training_sets(), steps=steps, seed=seed, bf16=True, **TRAIN
        )
        losses = encoder.losses
        third = max(len(losses) // 4, 1)
        print(
            f"seed {seed}: trained in {time.process_time() - began:.0f} s, loss",
            [
                round(sum(losses[i : i + third]) / third, 3)
                for i in range(0, len(losses), third)
            ],
            flush=True,
        )
        before, after = (e.model.state_dict() for e in (frozen(), encoder))
        about = {
            "name": "relations",
            "kind": "encoder",
            "encoder": "minilm",
            "base_sha256": weights_sha256(frozen()),
            "sources": {
                "fewrel": "training relations of the split (MIT)",
                "fewrel_semeval": "SemEval-2010 task 8 (MIT; CC BY 3.0)",
            },
            "training": TRAIN | {"steps": steps, "seed": seed},
            "losses": losses,
            "seconds": time.process_time() - began,
            "command": "python benchmarks/relations.py --ship",
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        Start(compress(before, after, RANK), about).save(path)
    return load_start(path).applied(frozen())


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
        learner, tasks, steps=100, tasks_per_step=4, outer_lr=1e-3, progress=False
    )
    return learner.body.requires_grad_(False)


def _means(stored: dict) -> dict[str, dict[str, float]]:
    "Steps -> the mean accuracies of seed 0, of results that are replaced."
    cells = stored["numbers"].get("cells", {})
    names = [n for n in cells if "marks, trained/" in n and "0" in cells[n]]
    found = {n: sum(cells[n]["0"]) / len(cells[n]["0"]) for n in names}
    return {str(stored["config"].get("steps")): found} if found else {}


class Table:
    "Measured cells, stored one by one."

    def __init__(self, steps: int):
        self.config = {"steps": steps, "rows": ROWS, "episodes": EPISODES, **TRAIN}
        try:
            stored = load_results("benchmarks/relations")
        except (FileNotFoundError, KeyError):
            stored = {"numbers": {}, "config": self.config}
        same = stored["config"] == self.config
        self.cells = stored["numbers"].get("cells", {}) if same else {}
        self.more = stored["numbers"].get("more", {}) if same else {}
        if not same:  # a run with another budget leaves a point of the curve
            self.more["budget"] = stored["numbers"].get("more", {}).get("budget", {})
            self.more["budget"] |= _means(stored)
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


def on_test(table: Table, name: str, seed: int, z, data, head="prototype", lam=1.0):
    for k in SHOTS:
        table.add(
            f"{name}/{k}",
            seed,
            lambda: measure_relations(
                z(), data.labels, k, head=head, lam=lam, n_episodes=EPISODES
            ),
        )


def choose(table: Table, encoder: MarkerEncoder) -> float:
    "The penalty of ridge, by validation relations."
    if "lam" not in table.more:
        data = part("validation")
        z = marked_vectors(encoder, data)
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


def measure_seed(table: Table, seed: int, steps: int) -> None:
    encoder = trained(seed, steps)
    test, medicine = part("test"), corpus("fewrel_pubmed", ROWS)
    z = lambda data=test, how=str: marked_vectors(encoder, data, how)
    lam, held = choose(table, encoder), part("validation")
    on_test(table, "validation, marks, trained", seed, lambda: z(held), held)
    on_test(table, "marks, trained", seed, z, test)
    on_test(table, "marks, trained, ridge", seed, z, test, "ridge", lam)
    scope(table, "marks, trained", seed, z, test)
    on_test(
        table, "marks, trained, names alone", seed, lambda: z(how=names_alone), test
    )
    on_test(
        table, "marks, trained, names hidden", seed, lambda: z(how=names_hidden), test
    )
    on_test(table, "PubMed, marks, trained", seed, lambda: z(medicine), medicine)


def measure_frozen(table: Table, seeds: list[int]) -> None:
    test, medicine = part("test"), corpus("fewrel_pubmed", ROWS)
    assert not set(class_split("fewrel")["train"]) & set(test.labels)
    z = lambda: sentence_vectors(test)
    on_test(table, "sentence vectors", 0, z, test)
    scope(table, "sentence vectors", 0, z, test)
    for seed in seeds:
        on_test(table, "sentence vectors, map", seed, lambda: mapped(seed)(z()), test)
    on_test(table, "names alone", 0, lambda: sentence_vectors(test, plain_names), test)
    on_test(
        table,
        "PubMed, sentence vectors",
        0,
        lambda: sentence_vectors(medicine),
        medicine,
    )
    on_test(
        table, "marks, not trained", 0, lambda: marked_vectors(frozen(), test), test
    )


def plain_names(text: str) -> str:
    return "{}, {}".format(*EntityPair.from_marked(text).names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--ship", action="store_true", help="write the package's start")
    given = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    table = Table(given.steps)
    if given.ship:
        trained(0, given.steps)
        path = FOLDER / f"seed0-{given.steps}.safetensors"
        load_start(path).save(ROOT / "metalearn_book/starts/relations.safetensors")
        return
    for place, seed in enumerate(given.seeds):
        measure_seed(table, seed, given.steps)
        if place == 0:
            measure_frozen(table, given.seeds)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
