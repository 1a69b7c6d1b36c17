"""Further draws for the chapters on customer service.

    python benchmarks/dialogue.py [--draws 10]

The chapter on intents measures its fusion with three draws of the examples; here are
further ones, with the weights and the γ that it stored: for each draw the lead of
the fusion over both rivals without learned weights, service by service. The chapter on
several intents learns from three of twenty folds; here each fold is the marked one
once, and the lead of a line from the fold over one at 0.5 is measured. A draw that is
stored is not measured again. To results/benchmarks/dialogue.json. About two minutes of
one core once the vectors are stored.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.dialogue_intents import DECAY, INTENT_WEIGHTS
from metalearn_book.case_studies.dialogue_intents import class_means, context_vectors
from metalearn_book.case_studies.dialogue_intents import intent_episode, intent_features
from metalearn_book.case_studies.dialogue_intents import service_dialogues, turn_table
from metalearn_book.case_studies.dialogue_intents import turn_vectors
from metalearn_book.case_studies.several_intents import f1_threshold, label_report
from metalearn_book.case_studies.several_intents import label_scores
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import cached_features, load_encoder

ROOT = Path(__file__).resolve().parent.parent
NAME = "benchmarks/dialogue"
SHOTS = (1, 4, 16)
PENALTY = 1.0  # of the ridge regressions on requests


def mean_by_service(hits: torch.Tensor, services: list[str]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for hit, service in zip(hits.tolist(), services):
        found.setdefault(service, []).append(float(hit))
    return {s: sum(v) / len(v) for s, v in sorted(found.items())}


class Intents:
    "What all draws share: turns of the test services and their vectors."

    def __init__(self, encoder):
        self.table = turn_table(service_dialogues("test"))
        self.z = turn_vectors(encoder, self.table)
        self.c = context_vectors(self.z, self.table.dialogue, DECAY)
        self.described = encoder.encode(list(self.table.intents.values()))

    def draw(self, seed: int) -> dict:
        "Right intents by method, number of examples and service."
        found: dict[str, dict] = {}
        for k in SHOTS:
            e = intent_episode(self.table, k, seed)
            rows, kept, n = list(e.query), list(e.support), len(self.described)
            means = [class_means(v[kept], e.of, n) for v in (self.z, self.c)]
            X = intent_features(self.z[rows], self.c[rows], self.described, *means)
            w = torch.tensor(INTENT_WEIGHTS[k], dtype=X.dtype)
            guesses = {"description": X[..., 1], "examples": X[..., 3], "fusion": X @ w}
            gold = torch.tensor(e.gold)
            services = [self.table.services[r] for r in rows]
            for name, scores in guesses.items():
                hits = scores.argmax(1) == gold
                found.setdefault(name, {})[str(k)] = mean_by_service(hits, services)
        return found


class Requests:
    "What all folds share: requests, their vectors and marks."

    def __init__(self, encoder):
        self.rows = load_dataset_by_name("nlupp")
        self.z = cached_features(encoder, self.rows.texts, key="requests").double()
        labels = list(self.rows.descriptions)
        own = self.rows.labels
        self.Y = torch.tensor([[v in some for v in labels] for some in own]).double()

    def fold(self, number: int) -> dict:
        "F1 of both lines when this fold is marked and all others are asked."
        found = {}
        for domain in sorted(set(self.rows.row_domains)):
            here = torch.tensor([d == domain for d in self.rows.row_domains])
            mine = torch.tensor([f == str(number) for f in self.rows.folds])
            used = self.Y[here].sum(0) > 0
            s, q = here & mine, here & ~mine
            Y, Yq = self.Y[s][:, used], self.Y[q][:, used]
            scores = label_scores(self.z[s], Y, PENALTY, self.z[q])
            line = f1_threshold(label_scores(self.z[s], Y, PENALTY), Y)
            found[domain] = {
                "line at 0.5": label_report(scores >= 0.5, Yq)["F1"],
                "line from the fold": label_report(scores >= line, Yq)["F1"],
            }
        return found


def main() -> int:
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=10, help="draws of the examples")
    given = parser.parse_args()
    began, encoder = time.perf_counter(), load_encoder("minilm")
    config = {"weights": {str(k): v for k, v in INTENT_WEIGHTS.items()}, "decay": DECAY}
    stored = load_results(NAME, missing={"numbers": {}, "config": {}})
    same = stored["config"].get("decay") == DECAY and all(
        stored["config"].get("weights", {}).get(str(k)) == list(v)
        for k, v in INTENT_WEIGHTS.items()
    )
    numbers = stored["numbers"] if same else {}
    numbers = {"intents": {}, "requests": {}} | numbers
    intents, requests = Intents(encoder), Requests(encoder)
    for seed in range(given.draws):
        if str(seed) not in numbers["intents"]:
            numbers["intents"][str(seed)] = intents.draw(seed)
            save_results(NAME, numbers, seed=0, config=config)
            print(f"draw {seed + 1} of {given.draws}", flush=True)
    for number in range(20):
        if str(number) not in numbers["requests"]:
            numbers["requests"][str(number)] = requests.fold(number)
            save_results(NAME, numbers, seed=0, config=config)
    seconds = time.perf_counter() - began
    save_results(NAME, numbers, seed=0, seconds=seconds, config=config)
    for k in SHOTS:
        leads = [
            sum(d["fusion"][str(k)][s] - d["examples"][str(k)][s] for s in own)
            / len(own)
            for d in numbers["intents"].values()
            for own in [d["fusion"][str(k)]]
        ]
        print(f"k = {k}: fusion over examples {min(leads):.3f} to {max(leads):.3f}")
    return 0


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
