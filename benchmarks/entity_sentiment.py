"""Runs of the chapters on sentiment: domains of reviews, entities of financial news.

    python benchmarks/entity_sentiment.py [--only reviews entities timing]
        [--seeds 0 1 2] [--outer N] [--episodes N]

Minutes for each training seed on one core. Every cell is stored in
results/benchmarks/entity_sentiment.json as soon as it is measured, and a restart goes
on with what is missing. Of FinEntity's passages nothing is stored but the answers, as
numbers of classes in the order of the test mentions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import resident_megabytes

from metalearn_book.book.results import load_results, save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.case_studies.entity_sentiment import EntitySentiment
from metalearn_book.case_studies.entity_sentiment import entity_mentions, macro_f1
from metalearn_book.case_studies.entity_sentiment import mention_vectors
from metalearn_book.case_studies.entity_sentiment import tune_mentions
from metalearn_book.case_studies.sentiment import DomainTasks, outer_optimizer
from metalearn_book.case_studies.sentiment import review_learners, short_sentences
from metalearn_book.case_studies.text_classification import draw_shots, fit_head
from metalearn_book.case_studies.text_meta_training import lower_states
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import Evaluation, evaluate, over_seeds
from metalearn_book.foundations.measuring import paired_difference
from metalearn_book.foundations.training import Update, meta_train
from metalearn_book.optimization.maml import AtSteps

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/entity_sentiment"
#: the defaults of the package; the chapters search around them, on source domains and
#: on validation texts
INNER_LR, INNER_STEPS, LR = 0.02, 5, 3e-4
SHOTS, BATCH, START_STEPS = (1, 5, 25), 2, 120
TRAINED = ("multi-task", "class means, meta-trained", "ridge, meta-trained", "MAML")
TUNED, FROM_REVIEWS = "tuned", "tuned, from reviews"
FROZEN = "vector of the text, frozen"
Cell = tuple[str, dict]


# ------------------------------------------------------------------ reviews


def reviews_of(seed: int, outer: int, episodes: int) -> Iterator[tuple[str, object]]:
    "Each domain as the new one: name of the cell, and what measures it."
    encoder = load_encoder("minilm")
    pool = short_sentences(load_dataset_by_name("uci_sentiment"), encoder)
    domains, made = sorted(set(pool.row_domains)), {}
    y = torch.tensor([int(v == "positive") for v in pool.labels])

    def measure(target: str, number: int) -> dict:
        if not made:  # states of all sentences, once
            made.update(lower_states(encoder, pool.texts, n_top=1))
        sources = [d for d in domains if d != target]
        tasks = lambda k, n, of: DomainTasks(made, y, pool.row_domains, k, n, of)
        torch.manual_seed(seed)
        learners = review_learners(encoder, INNER_LR, INNER_STEPS)
        for name in TRAINED:
            shares = (1, 9) if name == "multi-task" else (5, 5)
            update = Update(optimizer=outer_optimizer(learners[name], 1e-4, 0.05))
            some = {"steps": outer, "tasks_per_step": BATCH, "update": update}
            of = tasks(*shares, sources)
            meta_train(learners[name], of, seed=seed, progress=False, **some)
        one = learners.pop("multi-task")
        learners["multi-task, not adapted"] = AtSteps(one, 0)
        learners["multi-task, tuned"] = AtSteps(one, INNER_STEPS)
        at = 1000 + 10 * number + seed
        return {
            name: {
                str(k): evaluate(
                    learner,
                    tasks(k, 10, [target]),
                    episodes,
                    seed=at,
                    tasks_per_batch=BATCH,
                ).values.tolist()
                for k in SHOTS
            }
            for name, learner in learners.items()
        }

    for number, target in enumerate(domains):
        yield (
            f"reviews, {target}, seed {seed}",
            lambda t=target, n=number: measure(t, n),
        )


def of_reviews(cells: dict) -> dict:
    "Means over all runs, and paired differences to fine-tuning the pretrained top."
    runs = [v for k, v in cells.items() if k.startswith("reviews")]
    if len(runs) < 2:
        return {}

    def read(run: int, name: str, k: str) -> Evaluation:
        return Evaluation(torch.tensor(runs[run][name][k]), run, BATCH, (0, 1))

    names, every = list(runs[0]), range(len(runs))
    table = {
        n: {str(k): over_seeds([read(r, n, str(k)) for r in every]) for k in SHOTS}
        for n in names
    }
    ahead = {
        n: {
            str(k): over_seeds(
                [
                    paired_difference(read(r, n, str(k)), read(r, "tuned", str(k)))
                    for r in every
                ]
            )
            for k in SHOTS
        }
        for n in names
        if n != "tuned"
    }
    return {"reviews": table, "reviews ahead": ahead}


# ----------------------------------------------------------------- entities


class Entities:
    "The mentions of FinEntity, and what each method answers to those of the test part."

    def __init__(self):
        data = load_dataset_by_name("finentity")
        self.mentions, self.labels, self.owner = entity_mentions(data)
        part = [data.part[row] for row in self.owner]
        self.train, self.test = (
            [i for i, p in enumerate(part) if p == name] for name in ("train", "test")
        )
        self.classes, self.encoder = sorted(set(self.labels)), None
        self.starts, self.vectors = {}, {}
        self.gold = [self.labels[i] for i in self.test]
        self.documents = [self.owner[i] for i in self.test]

    def start(self, seed: int):
        "The encoder, its top tuned on sentences of all three kinds of reviews."
        if seed not in self.starts:
            pool = short_sentences(load_dataset_by_name("uci_sentiment"), self.encoder)
            y = torch.tensor([int(v == "positive") for v in pool.labels])
            more = {"steps": START_STEPS, "lr": LR, "seed": seed}
            self.starts = {
                seed: tune_mentions(self.encoder, pool.texts, y, 2, **more)[0]
            }
        return self.starts[seed]

    def frozen(self, alone: bool):
        "Vectors of all mentions by the pretrained encoder, read once."
        if alone not in self.vectors:
            asked = [m[0] if alone else m for m in self.mentions]
            self.vectors[alone] = mention_vectors(self.encoder, asked)
        return self.vectors[alone]

    def answers(self, method: str, k: int, seed: int) -> str:
        self.encoder = self.encoder or load_encoder("minilm")
        labels = [self.labels[i] for i in self.train]
        rows = [self.train[i] for i in draw_shots(labels, k, seed)]
        y = torch.tensor([self.classes.index(self.labels[i]) for i in rows])
        if "frozen" in method:  # what EntitySentiment does with tune="none"
            z = self.frozen(method == FROZEN)
            weight, bias = fit_head(z[rows], y, 3, "logistic", None, 1e-3)
            found = (z[self.test] @ weight.T + bias).argmax(1).tolist()
            return "".join(map(str, found))
        asked = lambda some: [self.mentions[i] for i in some]
        encoder = self.start(seed) if method == FROM_REVIEWS else self.encoder
        model = EntitySentiment(encoder, lr=LR, seed=seed)
        model.fit(asked(rows), [self.labels[i] for i in rows])
        found = model.predict(asked(self.test)).tolist()
        return "".join(str(self.classes.index(v)) for v in found)

    def cells(self, seed: int) -> Iterator[tuple[str, object]]:
        for k in (80, 20, 5):
            for method in (
                FROZEN,
                "text and surroundings, frozen",
                TUNED,
                FROM_REVIEWS,
            ):
                name = f"entities, {method} | {k} | seed {seed}"
                yield name, lambda m=method, k=k: self.answers(m, k, seed)

    def summary(self, cells: dict) -> dict:
        """Macro F1 of all seeds together, and paired differences on the seeds that both
        have, by resampling texts."""
        found = {}
        for name, said in cells.items():
            if name.startswith("entities, "):
                method, k, seed = name.removeprefix("entities, ").split(" | ")
                found.setdefault(method, {}).setdefault(k, {})[seed] = said
        most = str(self.classes.index(max(self.gold, key=self.gold.count)))
        always = {k: {"all": most * len(self.gold)} for k in found[FROZEN]}
        table = {
            method: {k: self.score(runs) for k, runs in row.items()}
            for method, row in ({"majority": always} | found).items()
        }
        ahead = {
            method: {
                k: self.score(runs, found[FROZEN][k])
                for k, runs in row.items()
                if runs.keys() & found[FROZEN].get(k, {}).keys()
            }
            for method, row in found.items()
            if method != FROZEN
        }
        return {"entities": table, "entities ahead": ahead}

    def score(self, runs: dict, minus: dict | None = None) -> dict:
        "F1 of the answers by seed, or its difference to that of others."
        seeds = sorted(runs if minus is None else runs.keys() & minus.keys())
        words = lambda of: [self.classes[int(c)] for s in seeds for c in of[s]]
        documents, gold = self.documents * len(seeds), self.gold * len(seeds)
        other = None if minus is None else words(minus)
        f1 = macro_f1(gold, words(runs), documents, minus=other)
        return {"mean": f1.mean, "ci95": f1.ci95, "seeds": len(seeds)}


# ------------------------------------------------------------------- timing


def timing() -> dict:
    "Seconds and memory of one fit and of a thousand answers."
    entities = Entities()
    labels = [entities.labels[i] for i in entities.train]
    rows = [entities.train[i] for i in draw_shots(labels, 20, 0)]
    began, model = time.process_time(), EntitySentiment()
    model.fit([entities.mentions[i] for i in rows], [entities.labels[i] for i in rows])
    fitted, thousand = time.process_time(), (entities.mentions * 2)[:1000]
    grown = resident_megabytes(lambda: model.predict(thousand))
    return {
        "fit on 60 mentions, with loading the encoder (processor seconds)": fitted
        - began,
        "answer 1,000 mentions (processor seconds)": time.process_time() - fitted,
        "answer 1,000 mentions: growth of peak memory (MB)": grown,
    }


# --------------------------------------------------------------------- main


def target(numbers: dict) -> list[Target]:
    goal = numbers.get("entities", {}).get(TUNED, {}).get("80")
    runs = [k for k in numbers["cells"] if k.startswith(f"entities, {TUNED} | 80")]
    if not goal:
        return []
    return [
        Target(
            NAME,
            "sentiment of an entity (FinEntity), macro F1 with 80 mentions of a class",
            "",
            "at least",
            0.75,
            goal["mean"],
            "python benchmarks/entity_sentiment.py",
            goal["ci95"],
            len(runs),
            ""
            if goal["mean"] >= 0.75
            else "an encoder of 23 million weights that was "
            "trained on sentences as wholes; where neutral ends",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("entities", "reviews", "timing")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--outer", type=int, default=40, help="steps of meta-training")
    parser.add_argument("--episodes", type=int, default=10, help="of each new domain")
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    stored = load_results(NAME, missing={"numbers": {}})
    cells, times = (
        stored["numbers"].get("cells", {}),
        stored["numbers"].get("timing", {}),
    )
    began, spent, entities = time.process_time(), stored.get("seconds", 0), Entities()

    def store() -> None:
        numbers = {"cells": cells} | of_reviews(cells) | {"timing": times}
        if any(name.startswith(f"entities, {FROZEN}") for name in cells):
            numbers |= entities.summary(cells)
        config = {"outer": args.outer, "episodes": args.episodes, "lr": LR}
        config |= {"inner_lr": INNER_LR, "inner_steps": INNER_STEPS}
        seconds = spent + time.process_time() - began
        save_results(NAME, numbers, seed=0, config=config, seconds=seconds)
        if reached := target(numbers):
            save_targets("case_studies", reached)

    for seed in args.seeds:
        todo = list(entities.cells(seed)) if "entities" in args.only else []
        if "reviews" in args.only:
            todo += list(reviews_of(seed, args.outer, args.episodes))
        for name, measure in todo:
            if name not in cells:
                cells[name] = measure()
                store()
                print(f"{time.process_time() - began:6.0f} s  {name}", flush=True)
    if "timing" in args.only and not times:
        times.update(timing())
    store()


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
