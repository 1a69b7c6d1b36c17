"""Runs of the chapter on the sentiment of an entity: mentions of financial news.

    python benchmarks/entity_sentiment.py [--only search entities timing]
        [--seeds 0 1 2] [--shots 80 20 5]

One more draw at 80 mentions of each class: --only entities --seeds 3 --shots 80.

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
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measure import resident_megabytes

from metalearn_book.book.results import load_results, save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.case_studies.entity_sentiment import EntitySentiment
from metalearn_book.case_studies.entity_sentiment import entity_mentions, macro_f1
from metalearn_book.case_studies.entity_sentiment import mention_vectors
from metalearn_book.case_studies.entity_sentiment import tune_mentions
from metalearn_book.case_studies.sentiment import short_sentences
from metalearn_book.case_studies.text_classification import draw_shots, fit_head
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import t_quantile

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/entity_sentiment"
START_STEPS = 120  # on reviews
PENALTIES = (1e-4, 1e-3, 1e-2)  # of a head on frozen vectors, on validation texts
TUNED, FROM_REVIEWS = "tuned", "tuned, from reviews"
FROZEN, NEAR = "vector of the text, frozen", "text and surroundings, frozen"
TEXT = "vector of the text, tuned"
RATES = (1e-4, 3e-4, 1e-3)
#: what is tried on validation texts and on training texts without an example: options,
#: and how many of each class. Stitched pairs come with steps of their own (36 in place
#: of 24, 138 in place of 90), so that what goes without them is tried with both.
SEARCH = [
    *((TUNED, {"lr": lr, "reach": 2.0, "stitched": 0.25}, 20) for lr in RATES),
    (TUNED, {"lr": 3e-4, "reach": 8.0, "stitched": 0.25}, 20),
    (TUNED, {"lr": 3e-4, "reach": 2.0, "stitched": 0.0}, 20),
    *((TEXT, {"lr": lr, "stitched": 0.0}, 20) for lr in RATES[:2]),
    *((TUNED, {"lr": 3e-4, "reach": 2.0, "stitched": s}, 80) for s in (0.25, 0.0)),
    (TUNED, {"lr": 1e-4, "reach": 2.0, "stitched": 0.25}, 80),
    (TEXT, {"lr": 3e-4, "stitched": 0.0}, 80),
    (TUNED, {"lr": 3e-4, "reach": 2.0, "stitched": 0.0, "steps": 36}, 20),
    (TUNED, {"lr": 3e-4, "reach": 2.0, "stitched": 0.0, "steps": 138}, 80),
    (TEXT, {"lr": 3e-4, "stitched": 0.0, "steps": 36}, 20),
    (TEXT, {"lr": 3e-4, "stitched": 0.0, "steps": 138}, 80),
]
#: what is measured, in this order: does the entity help, and does a start help where
#: examples are few?
ENTITIES = [
    *((FROZEN, k) for k in (80, 20, 5)),
    *((NEAR, k) for k in (80, 20, 5)),
    (TUNED, 80),
    (TEXT, 80),
    (TUNED, 20),
    (TUNED, 5),
    (FROM_REVIEWS, 5),
]
Cell = tuple[str, Callable[[], object]]


# ----------------------------------------------------------------- entities


#: what a method reads of a mention, where that is no mention
VIEWS = {FROZEN: lambda m: m[0], TEXT: lambda m: m[0]}


class Entities:
    "The mentions of FinEntity, and what each method answers to those of the test part."

    def __init__(self):
        data = load_dataset_by_name("finentity")
        self.mentions, self.labels, self.owner = entity_mentions(data)
        part = [data.part[row] for row in self.owner]
        of = lambda name: [i for i, p in enumerate(part) if p == name]
        self.train, self.asked, self.test = map(of, ("train", "validation", "test"))
        self.classes, self.encoder = sorted(set(self.labels)), None
        self.starts, self.vectors = {}, {}
        self.gold = [self.labels[i] for i in self.test]
        self.documents = [self.owner[i] for i in self.test]

    def start(self, seed: int):
        "The encoder, its top tuned on sentences of all three kinds of reviews."
        if seed not in self.starts:
            pool = short_sentences(load_dataset_by_name("uci_sentiment"), self.encoder)
            y = torch.tensor([int(v == "positive") for v in pool.labels])
            more = {"steps": START_STEPS, "seed": seed}
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

    def read(self, method: str, rows: list[int]) -> list:
        "These mentions as a method reads them."
        view = VIEWS.get(method, lambda m: m)
        return [view(self.mentions[i]) for i in rows]

    def setting(self, cells: dict, method: str, k: int) -> str:
        "The best that was tried for a method at as many examples; for 5 as for 20."
        begin = f"search at {max(k, 20)}, {TUNED if method == FROM_REVIEWS else method}"
        asked = self.others()
        of = [self.labels[i] for i in asked], [self.owner[i] for i in asked]
        tried = {
            name.partition(": ")[2]: self.score({"0": said}, of=of)["mean"]
            for name, said in cells.items()
            if name.startswith(f"{begin}: ")
        }
        if not tried and "frozen" not in method:
            raise SystemExit(f"nothing was tried for {method}: --only search first")
        return max(tried, key=tried.get, default="")

    def answers(self, method: str, k: int, seed: int, setting: str) -> str:
        self.encoder = self.encoder or load_encoder("minilm")
        rows = self.rows(k, seed)
        y = torch.tensor([self.classes.index(self.labels[i]) for i in rows])
        if "frozen" in method:  # what EntitySentiment does with tune="none"
            z, scores = self.frozen(method == FROZEN), {}
            gold = [self.labels[i] for i in self.asked]
            said = lambda head, some: (z[some] @ head[0].T + head[1]).argmax(1).tolist()
            for penalty in PENALTIES:
                head = fit_head(z[rows], y, 3, "logistic", None, penalty)
                guess = [self.classes[c] for c in said(head, self.asked)]
                groups = [self.owner[i] for i in self.asked]
                scores[penalty] = macro_f1(gold, guess, groups, n_boot=2).mean, head
            best = max(scores.values(), key=lambda found: found[0])[1]
            return "".join(map(str, said(best, self.test)))
        asked = lambda some: self.read(method, some)
        encoder = self.start(seed) if method == FROM_REVIEWS else self.encoder
        options = {n: float(v) for n, v in (o.split("=") for o in setting.split(", "))}
        steps = int(options.pop("steps", 0)) if k >= 20 else 0  # 5: the default for 20
        model = EntitySentiment(encoder, seed=seed, steps=steps or None, **options)
        model.fit(asked(rows), [self.labels[i] for i in rows])
        found = model.predict(asked(self.test)).tolist()
        return "".join(str(self.classes.index(v)) for v in found)

    def cells(self, cells: dict, settings: dict, seed: int, shots) -> Iterator[Cell]:
        "settings: what was chosen; what was measured by another choice is dropped."
        for method, k in [(m, k) for m, k in ENTITIES if k in shots]:
            name, of = f"entities, {method} | {k} | seed {seed}", f"{method} | {k}"
            chosen = self.setting(cells, method, k)
            if settings.get(of, chosen) != chosen:
                for old in [c for c in cells if c.startswith(f"entities, {of} |")]:
                    del cells[old]
            settings[of] = chosen
            yield name, lambda m=method, k=k, c=chosen: self.answers(m, k, seed, c)

    def rows(self, k: int, seed: int) -> list[int]:
        labels = [self.labels[i] for i in self.train]
        return [self.train[i] for i in draw_shots(labels, k, seed)]

    def others(self) -> list[int]:
        "Mentions of the validation part, and of training texts without an example."
        used = {self.owner[i] for k in (20, 80) for i in self.rows(k, 0)}
        return self.asked + [i for i in self.train if self.owner[i] not in used]

    def searched(self, method: str, options: dict, k: int) -> str:
        "Answers to mentions that are neither learned from nor tested on."
        self.encoder = self.encoder or load_encoder("minilm")
        rows = self.rows(k, 0)
        asked = lambda some: self.read(method, some)
        model = EntitySentiment(self.encoder, seed=0, **options)
        model.fit(asked(rows), [self.labels[i] for i in rows])
        found = model.predict(asked(self.others())).tolist()
        return "".join(str(self.classes.index(v)) for v in found)

    def search(self) -> Iterator[Cell]:
        for method, options, k in SEARCH:
            said = ", ".join(f"{name}={v:g}" for name, v in options.items())
            yield (
                f"search at {k}, {method}: {said}",
                lambda m=method, o=options, k=k: self.searched(m, o, k),
            )

    def of_search(self, cells: dict) -> dict:
        "Macro F1 by what was tried."
        asked = self.others()
        of = [self.labels[i] for i in asked], [self.owner[i] for i in asked]
        found = {
            name.removeprefix("search "): {"0": said}
            for name, said in cells.items()
            if name.startswith("search ")
        }
        table = {name: self.score(said, of=of) for name, said in found.items()}
        best = lambda name: max(
            (v["mean"], other)
            for other, v in table.items()
            if other.split(":")[0] == name.split(":")[0]
        )[1]  # of the same method, with as many examples
        behind = {
            name: self.score(found[best(name)], said, of=of)
            for name, said in found.items()
        }
        more = {"entities search, best ahead of": behind}
        return {"entities search": table} | more if table else {}

    def summary(self, cells: dict) -> dict:
        """Macro F1 of each method, paired differences on the seeds that both have, and
        the same on the mentions whose text has another label too."""
        found = {}
        for name, said in cells.items():
            if name.startswith("entities, "):
                method, k, seed = name.removeprefix("entities, ").split(" | ")
                found.setdefault(method, {}).setdefault(k, {})[seed] = said
        most = str(self.classes.index(max(self.gold, key=self.gold.count)))
        always = {k: {"all": most * len(self.gold)} for k in found[FROZEN]}
        order = lambda row: sorted(row.items(), key=lambda item: int(item[0]))
        table = {
            method: {k: self.score(runs) for k, runs in order(row)}
            for method, row in ({"majority": always} | found).items()
        }
        ahead = {
            of: {
                method: {
                    k: self.score(runs, found[of][k])
                    for k, runs in order(row)
                    if runs.keys() & found.get(of, {}).get(k, {}).keys()
                }
                for method, row in found.items()
                if method != of
            }
            for of in (FROZEN, TEXT, TUNED)
        }
        mixed, own = self.mixed(), found.get(TUNED, {}).get("80", {})
        within = {
            method: {k: self.score(runs, None, mixed) for k, runs in order(row)}
            for method, row in found.items()
        }
        rivals = {
            m: row["80"] for m, row in found.items() if m != TUNED and "80" in row
        }
        apart = {
            method: self.score(own, runs, mixed)
            for method, runs in rivals.items()
            if own.keys() & runs.keys()
        }
        more = {"entities mixed": within, "entities mixed, tuned ahead of": apart}
        return {"entities": table, "entities ahead of": ahead} | more

    def mixed(self) -> list[int]:
        "Places, in the test part, of mentions whose text holds another label too."
        known = {}
        for label, row in zip(self.labels, self.owner):
            known.setdefault(row, set()).add(label)
        return [i for i, row in enumerate(self.documents) if len(known[row]) > 1]

    def score(self, runs: dict, minus=None, some=None, of=None) -> dict:
        """F1 of the answers, or its difference to that of others: the mean over seeds,
        with an interval for other texts and other draws. some: of these mentions. of:
        labels and texts in place of those of the test part."""
        seeds = sorted(runs if minus is None else runs.keys() & minus.keys())
        gold, documents = of or (self.gold, self.documents)
        some = range(len(gold)) if some is None else some
        pick = lambda values: [values[i] for i in some]
        words = lambda said: [self.classes[int(c)] for c in pick(said)]
        gold, documents = pick(gold), pick(documents)
        one = lambda s: macro_f1(
            gold, words(runs[s]), documents, minus=minus and words(minus[s])
        )
        values = [one(s) for s in seeds]
        mean = sum(f.mean for f in values) / len(values)
        texts = sum(f.ci95 for f in values) / len(values)
        draws = 0.0
        if len(values) > 1:
            spread = torch.tensor([f.mean for f in values]).double().std().item()
            draws = t_quantile(len(values) - 1) * spread / len(values) ** 0.5
        found = {"mean": mean, "ci95": (texts**2 + draws**2) ** 0.5}
        return found | {"texts": texts, "draws": draws, "seeds": len(values)}


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
    kinds = ("search", "entities", "timing")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shots", nargs="+", type=int, default=[80, 20, 5])
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    stored = load_results(NAME, missing={"numbers": {}})
    cells = stored["numbers"].get("cells", {})
    times = stored["numbers"].get("timing", {})
    settings = stored["numbers"].get("entities settings", {})
    began, spent, entities = time.process_time(), stored.get("seconds", 0), Entities()

    def store() -> None:
        numbers = {"cells": cells, "timing": times}
        if any(name.startswith(f"entities, {FROZEN}") for name in cells):
            numbers |= entities.summary(cells) | {"entities settings": settings}
        numbers |= entities.of_search(cells)
        seconds = spent + time.process_time() - began
        config = {"penalties": PENALTIES, "start_steps": START_STEPS}
        save_results(NAME, numbers, seed=0, config=config, seconds=seconds)
        if reached := target(numbers):
            save_targets("case_studies", reached)

    def todo() -> Iterator[Cell]:
        if "search" in args.only:
            yield from entities.search()
        for seed in args.seeds:
            if "entities" in args.only:
                yield from entities.cells(cells, settings, seed, args.shots)

    for name, measure in todo():
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
