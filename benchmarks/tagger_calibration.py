"""Are the scores of `FewShotTagger` right as often as they say?

    python benchmarks/tagger_calibration.py [--episodes 3]

5-way episodes with five to ten mentions of each type, from the test parts of three
domains of CrossNER that the shipped start was not trained on. A mention that was found
counts with its score, as it comes and calibrated by its own support set, and with
whether it is right in place and type. The expected calibration error is Eq. (CF-22) of
the book, its interval a bootstrap over episodes. It needs the data sets and about half
a minute of one core for each episode. The numbers go to
results/benchmarks/tagger_calibration.json.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from metalearn_book.book.results import save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.case_studies.few_shot_tagger import FewShotTagger, calibrated
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, mentions_of
from metalearn_book.data import load_dataset_by_name
from metalearn_book.metric.closed_form import calibration_error

ROOT = Path(__file__).resolve().parent.parent
DOMAINS = ("politics", "ai", "science")
N_WAY, K, N_QUERY, N_BINS = 5, 5, 10, 10


def target(numbers: dict) -> Target:
    "What the calibrated scores of the tagger are to reach."
    return Target(
        "benchmarks/tagger_calibration",
        "calibration error of the tagger's calibrated scores, three unseen domains",
        "",
        "at most",
        0.08,
        numbers["calibrated"]["ece"],
        "python benchmarks/tagger_calibration.py",
    )


def score_table(scores: list[float], right: list[bool]) -> Tensor:
    "Of each bin of scores: mentions, right ones and the sum of scores, `(3, n_bins)`."
    p = torch.tensor(scores, dtype=torch.float64)
    rows = torch.stack([torch.ones_like(p), torch.tensor(right).to(p), p])
    at = (p * N_BINS).long().clamp(max=N_BINS - 1)
    return torch.zeros(3, N_BINS, dtype=p.dtype).index_add_(1, at, rows)


def episode(pool, seed: str) -> tuple[list[float], list[float], list[bool]]:
    """Scores of the mentions found in a query set, as they come and calibrated, and
    which of the mentions are right."""
    sampler = EpisodeSampler(pool, N_WAY, ["misc"])
    task = sampler.sample(K, N_QUERY, random.Random(seed))
    tagger = FewShotTagger("entities").fit(task.sentences(pool))
    numbers, tagger.calibration_ = tagger.calibration_, None  # scores as they come
    asked = task.sentences(pool, "query")
    came, right = [], []
    for (_, tags), row in zip(asked, tagger.find([words for words, _ in asked])):
        true = set(mentions_of(tags))
        came += [m[3] for m in row]
        right += [tuple(m[:3]) in true for m in row]
    return came, [calibrated(p, *numbers) for p in came], right


def summary(tables: list[Tensor]) -> dict:
    "The error with its interval, and what it stands on."
    bins = torch.stack(tables)
    error, low, high = calibration_error(bins)
    n, right, said = bins.sum((0, 2)).tolist()
    return {
        "ece": error,
        "interval": [low, high],
        "mean score": said / n,
        "share right": right / n,
        "mentions": int(n),
        "episodes": len(tables),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=3, help="of each domain")
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    began, crossner = time.perf_counter(), load_dataset_by_name("crossner")
    tables = {"as they come": [], "calibrated": []}
    todo = [(d, i) for i in range(args.episodes) for d in DOMAINS]
    for domain, i in tqdm(todo, unit="episode"):
        pool = crossner.where(domain=domain, part="test")
        came, after, right = episode(pool, f"{domain} {i}")
        tables["as they come"].append(score_table(came, right))
        tables["calibrated"].append(score_table(after, right))
    numbers = {name: summary(some) for name, some in tables.items()}
    numbers["by domain"] = {
        d: summary([t for t, (e, _) in zip(tables["calibrated"], todo) if e == d])
        for d in DOMAINS
    }
    save_results(
        "benchmarks/tagger_calibration",
        numbers,
        seed=0,
        config={"start": "entities", "n_way": N_WAY, "k_shot": f"{K} to {2 * K}"}
        | {"episodes": args.episodes, "domains": list(DOMAINS)},
        seconds=time.perf_counter() - began,
    )
    save_targets("case_studies", [target(numbers)])
    for name in ("as they come", "calibrated"):
        found = numbers[name]
        low, high = found["interval"]
        print(
            f"{name}: error {found['ece']:.3f} ({low:.3f} to {high:.3f}), mean score "
            f"{found['mean score']:.3f}, right {found['share right']:.3f}, "
            f"{found['mentions']} mentions"
        )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
