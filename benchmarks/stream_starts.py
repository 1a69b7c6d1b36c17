"""Starts for streams at equal compute: three seeds, and other rows for the training.

    python benchmarks/stream_starts.py [--budgets 400] [--seeds 3] [--documents 1]
    python benchmarks/stream_starts.py --budgets 1200 --seeds 1 --rates-of 400

Small GPTs are trained from random weights on streams of the training services of the
Schema-Guided dialogues, each budget spent in all ways of `EqualCompute.run`. The outer
rate and the factor on it for the meta-training are chosen with the first seed, the
factor on the inner rates for each run, on the validation services; the unseen services
are measured once. What is measured is kept under _build/stream_starts after each seed,
so that a restart goes on with what is missing. The numbers go to
results/benchmarks/stream_starts.json. A budget of 400 units takes a minute of one core
for each seed. `documents` is the same comparison with the rows of the plain training
cut at the beginnings of dialogues, and the streams as they are: what a comparison of
unlike formats would have shown.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.foundations.measuring import (
    Evaluation,
    best_of,
    over_seeds,
    paired_difference,
)
from metalearn_book.language_models.pretraining import packed_rows
from metalearn_book.language_models.services import service_groups
from metalearn_book.language_models.small_gpt import document_ids
from metalearn_book.language_models.stream_starts import EqualCompute, equal_compute

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "stream_starts"
NAME = "benchmarks/stream_starts"
RATES, FACTORS = (4e-3, 8e-3, 1.6e-2), (0.3, 1.0)
SHARES, MIDDLE = (0.125, 0.25, 0.5), 0.25


def kept(name: str, make):
    "What `make` gives; read where it was made before."
    path = KEPT / f"{name}.pt"
    if path.is_file():
        return torch.load(path, weights_only=False)
    made = make()
    KEPT.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(made, part)
    part.replace(path)
    return made


def chosen(made: EqualCompute) -> dict:
    "The outer rate and the factor on it, by validation services and the first seed."
    place = round((made.budget - made.price["test"]) * (1 - MIDDLE))
    rates, places = {}, {}
    for lr in RATES:
        made.lr = lr
        path = made.path(0, [place])
        frozen = made.learner(path[made.budget][0], first_order=True)
        rates[lr] = made.bits(frozen, "validation", 0.0).mean
        places[lr] = path[place]
    made.lr = best_of(rates, higher_is_better=False)
    factors = {}
    for factor in FACTORS:
        model, optimizer = copy.deepcopy(places[made.lr])
        learner = made.meta(model, optimizer, place, 0, factor=factor)
        factors[factor] = made.at_best(learner)["validation"]
    best = best_of(factors, higher_is_better=False)
    return {"lr": made.lr, "factor": best, "rates": rates, "factors": factors}


def words(way) -> str:
    "The name of a way of spending."
    return way if isinstance(way, str) else f"{way[1]}, {way[0]:g}"


def summed(runs: list[Evaluation]) -> Evaluation:
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def told(found: list[dict]) -> dict:
    "Means and gains of each way, over seeds."
    out = {}
    for way in found[0]:
        stepped = [f[way]["stepped"] for f in found]
        pairs = {
            "gain at equal compute": [f["frozen"]["stepped"] for f in found],
            "over steps alone": [f["steps"]["stepped"] for f in found],
            "gain of the steps": [f[way]["frozen"] for f in found],
        }
        out[words(way)] = {
            "frozen": summed([f[way]["frozen"] for f in found]),
            "stepped": summed(stepped),
        } | {
            name: summed([paired_difference(a, b) for a, b in zip(others, stepped)])
            for name, others in pairs.items()
        }
    return out


def documents(made: EqualCompute, groups: dict) -> EqualCompute:
    "The same, with rows that begin where a dialogue begins."
    texts = [t for some in groups["train"].values() for t in some[:120]]
    rows = packed_rows(
        [document_ids(made.tokenizer, t) for t in texts],
        made.rows.shape[1],
        torch.Generator().manual_seed(0),
    )
    other = copy.copy(made)
    other.rows = rows
    return other


def target(budget, entry, way: str, what: str, name: str, sense: str, limit) -> Target:
    found = entry["ways"][way][name]
    reached = found["mean"] >= limit if sense == "at least" else found["mean"] <= limit
    wide = "the interval over seeds and services is wider than the limit"
    return Target(
        NAME,
        f"{what}, {budget} units",
        "bits per byte",
        sense,
        limit,
        found["mean"],
        f"python {NAME}.py",
        ci95=found["ci95"],
        seeds=entry["seeds"],
        limits="" if reached else wide,
    )


def targets(numbers: dict) -> list[Target]:
    "Gains against the range of the published ones, 0.001 to 0.02 bits per byte."
    found = []
    for budget, entry in numbers["budgets"].items():
        if entry["seeds"] < 3:
            continue
        what = "steps at the test ahead of a frozen model of the same compute"
        name = "gain at equal compute"
        found.append(target(budget, entry, "steps", what, name, "at least", 0.001))
        for way in entry["ways"]:
            if "order" in way:
                what = f"what meta-training ({way}) adds to steps at the test"
                name = "over steps alone"
                found.append(target(budget, entry, way, what, name, "at most", 0.02))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=[400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates-of", type=int, help="a budget that was measured")
    parser.add_argument("--documents", type=int, default=1, help="seeds, other rows")
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    parts = ("train", "validation", "test")
    groups, began = {part: service_groups(part) for part in parts}, time.perf_counter()
    numbers = dict(load_results(NAME, missing={"numbers": {}})["numbers"])
    for budget in args.budgets:
        made = equal_compute(groups, budget)
        of = args.rates_of or budget
        best = kept(f"chosen-{of}", lambda: chosen(made))
        made.lr = best["lr"]
        found = {"ways": [], "documents": []}
        for seed in range(args.seeds):
            run = kept(
                f"{budget}-{seed}",
                lambda: made.run(seed, SHARES, best["factor"], first_order=[MIDDLE]),
            )
            found["ways"].append(run)
            print(budget, seed, {words(w): str(e["stepped"]) for w, e in run.items()})
        for seed in range(args.documents):
            other = documents(made, groups)
            run = kept(
                f"documents-{budget}-{seed}",
                lambda: other.run(seed, [MIDDLE], best["factor"]),
            )
            found["documents"].append(run)
            print("documents", {words(w): str(e["stepped"]) for w, e in run.items()})
        entry = {k: told(runs) for k, runs in found.items() if runs}
        share = {
            words(w): (
                made.price["test"]
                + (0 if isinstance(w, str) else w[0]) * (budget - made.price["test"])
            )
            / budget
            for w in found["ways"][0]
            if w != "frozen"
        }
        numbers.setdefault("budgets", {})[str(budget)] = entry | {
            "seeds": args.seeds,
            "chosen": {
                "lr": best["lr"],
                "factor": best["factor"],
                "rates": {f"{k:g}": v for k, v in best["rates"].items()},
                "factors": {f"{k:g}": v for k, v in best["factors"].items()},
            },
            "price": made.price,
            "share": {"frozen": 0.0} | share,
        }
        save_results(
            NAME,
            numbers,
            seed=0,
            seconds=time.perf_counter() - began,
            config={"seeds": args.seeds, "shares": list(SHARES)},
        )
    save_targets("language_models", targets(load_results(NAME)["numbers"]))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
