"""Runs of the chapter on sentiment across domains: each kind of reviews as the new one.

    python benchmarks/sentiment.py [--seeds 0 1 2] [--outer N] [--episodes N]

Minutes for each training seed on one core. Every cell is stored in
results/benchmarks/sentiment.json as soon as it is measured, and a restart goes on with
what is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.sentiment import METHODS, DomainMethods, chosen_rates
from metalearn_book.case_studies.sentiment import short_sentences
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import Evaluation, evaluate, over_seeds
from metalearn_book.foundations.measuring import paired_difference

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/sentiment"
SHOTS, N_QUERY, BATCH = (1, 5, 25), 25, 2
DOMAINS = ["amazon", "imdb", "yelp"]
Cell = tuple[str, Callable[[], object]]


class Reviews:
    "Each domain as the new one, by methods whose rates the two others chose."

    def __init__(self, outer: int, episodes: int):
        self.outer, self.episodes, self.methods = outer, episodes, None

    def prepare(self) -> DomainMethods:
        if self.methods is None:
            encoder = load_encoder("minilm")
            pool = short_sentences(load_dataset_by_name("uci_sentiment"), encoder)
            y = torch.tensor([int(v == "positive") for v in pool.labels])
            more = pool.texts, y, pool.row_domains, self.outer
            self.methods = DomainMethods(encoder, *more)
        return self.methods

    def rates(self, target: str) -> dict:
        "The best value of each method on one source, after it learned from the other."
        found = self.prepare().search(*self.sources(target), n_episodes=10)
        return chosen_rates(found)

    def sources(self, target: str) -> list[str]:
        return [d for d in DOMAINS if d != target]

    def measure(self, target: str, seed: int, rates: dict) -> dict:
        methods, sources = self.prepare(), self.sources(target)
        at, found = 1000 + 10 * DOMAINS.index(target) + seed, {}
        for name in METHODS:
            learner = methods.learner(name, sources, rates, seed)
            found[name] = {
                str(k): evaluate(
                    learner,
                    methods.tasks([target], k, N_QUERY),
                    self.episodes,
                    seed=at,
                    tasks_per_batch=BATCH,
                ).values.tolist()
                for k in SHOTS
            }
        return found

    def cells(self, cells: dict, seed: int) -> Iterator[Cell]:
        for target in DOMAINS:
            name = f"rates, {target}"
            yield name, lambda t=target: self.rates(t)
            yield (
                f"reviews, {target}, seed {seed}",
                lambda t=target, n=name: self.measure(t, seed, cells[n]),
            )


def of_reviews(cells: dict) -> dict:
    """Means over all runs, and paired differences to training on the sources without
    adaptation and to tuning the pretrained top."""
    runs = [v for k, v in cells.items() if k.startswith("reviews, ")]
    if len(runs) < 2:
        return {}

    def read(run: int, name: str, k: int) -> Evaluation:
        return Evaluation(torch.tensor(runs[run][name][str(k)]), run, BATCH, (0, 1))

    every = range(len(runs))

    def ahead(name: str, of: str, k: int):
        pairs = [paired_difference(read(r, name, k), read(r, of, k)) for r in every]
        return over_seeds(pairs)

    table = {
        n: {str(k): over_seeds([read(r, n, k) for r in every]) for k in SHOTS}
        for n in METHODS
    }
    differences = {
        of: {n: {str(k): ahead(n, of, k) for k in SHOTS} for n in METHODS if n != of}
        for of in ("multi-task, not adapted", "tuned", "sources and support, frozen")
    }
    return {"reviews": table, "reviews ahead of": differences}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--outer", type=int, default=25, help="steps of meta-training")
    parser.add_argument("--episodes", type=int, default=5, help="of each new domain")
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    stored = load_results(NAME, missing={"numbers": {}})
    cells = stored["numbers"].get("cells", {})
    began, spent = time.process_time(), stored.get("seconds", 0)
    reviews = Reviews(args.outer, args.episodes)
    config = {"outer": args.outer, "episodes": args.episodes, "shots": SHOTS}
    for seed in args.seeds:
        for name, measure in reviews.cells(cells, seed):
            if name not in cells:
                cells[name] = measure()
                numbers = {"cells": cells} | of_reviews(cells)
                seconds = spent + time.process_time() - began
                save_results(NAME, numbers, seed=0, config=config, seconds=seconds)
                print(f"{time.process_time() - began:6.0f} s  {name}", flush=True)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
