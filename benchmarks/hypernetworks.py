"""Written adapters on unseen services: three seeds, and the number of training tasks.

    python benchmarks/hypernetworks.py [--steps 120] [--seeds 3] [--services 6 12 24]

A hypernetwork and its control, for which all tasks read one sentence, are trained on
`gpt-base` (`make models`) with each seed, and with the first seed on a part of the
services as well. What they gain over the model is measured on the unseen services, with
the right description, with a wrong one, and beside factors that are tuned 50 steps on
16 texts, whose rate the validation services choose. Trained networks are kept under
_build/hypernetworks, so that a restart goes on with what is missing. The numbers go to
results/benchmarks/hypernetworks.json after each run. A step takes about a second of one
core.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.foundations.measuring import (
    Evaluation,
    best_of,
    over_seeds,
    paired_difference,
)
from metalearn_book.language_models.hypernetworks import (
    DescribedTasks,
    HyperLoRA,
    hyper_training,
    measure_described,
    service_descriptions,
    styled_tasks,
    tuned_nats,
)
from metalearn_book.language_models.meta_gpt2 import service_groups, topic_groups
from metalearn_book.language_models.small_gpt import small_model

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "hypernetworks"
NAME = "benchmarks/hypernetworks"
LAYERS, LENGTH, SHOTS, N_QUERY = ["*blocks.2.*", "*blocks.3.*"], 64, 16, 8
RATES, OUTER = (3e-4, 1e-3, 3e-3), 3e-3
READS = ("description", "texts", "both")


def pool(groups: dict, told: dict, tokenizer) -> DescribedTasks:
    "Described tasks of the groups that have enough texts."
    few = DescribedTasks(groups, told, tokenizer, "any", 1, N_QUERY, LENGTH)
    return few.with_shots(SHOTS)


def trained(base, tasks: DescribedTasks, name: str, steps: int, seed: int) -> HyperLoRA:
    "A trained hypernetwork; read where it was trained before."
    path = KEPT / f"{name}-{steps}-{seed}.pt"
    if path.is_file():
        options = {"layers": LAYERS, "length": LENGTH, "seed": seed}
        learner = HyperLoRA(base, tasks.tokenizer, **options)
        learner.load_state_dict(torch.load(path, weights_only=True))
        return learner
    learner = hyper_training(
        base, tasks, layers=LAYERS, steps=steps, outer_lr=OUTER, seed=seed
    )
    KEPT.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(learner.state_dict(), part)
    part.replace(path)
    return learner


def gains_of(learner, constant, tests: DescribedTasks, plain: Evaluation) -> dict:
    "How far the loss on the unseen services is below that of the model, by name."
    found = {"one sentence for all": measure_described(constant, tests.constant())}
    for reads in READS:
        right = tests.reading(reads)
        found[f"written from {reads}"] = measure_described(learner, right)
        found[f"wrong {reads}"] = measure_described(learner, right.shuffled())
    return {name: paired_difference(plain, e) for name, e in found.items()}


def tuned_gain(base, pools: dict, plain: Evaluation) -> tuple[Evaluation, float]:
    "The gain of 50 tuned steps on the unseen services, and the rate that was chosen."
    options = {"layers": LAYERS, "rank": 4}
    scores = {
        lr: tuned_nats(base, pools["validation"], (50,), lr=lr, **options)[50].mean
        for lr in RATES
    }
    lr = best_of(scores, higher_is_better=False)
    tuned = tuned_nats(base, pools["test"], (50,), lr=lr, **options)[50]
    return paired_difference(plain, tuned), lr


def halves(runs: list[dict], tuned: Evaluation) -> dict:
    "Gain minus half, and wrong gain minus a tenth, of that of tuning; over seeds."
    part = lambda share: Evaluation(share * tuned.values, tuned.seed, tuned.batch)
    shares = {f"written from {r}": 0.5 for r in READS}
    shares |= {f"wrong {r}": 0.1 for r in READS}
    return {
        name: summed([paired_difference(run[name], part(s)) for run in runs])
        for name, s in shares.items()
    }


def summed(runs: list[Evaluation]) -> Evaluation:
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--services", type=int, nargs="+", default=[6, 12, 24])
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    base, tokenizer = small_model("gpt-base")
    parts = ("train", "validation", "test")
    groups = {part: service_groups(part) for part in parts}
    told = {part: service_descriptions(part) for part in parts}
    pools = {part: pool(groups[part], told[part], tokenizer) for part in parts}
    began = time.perf_counter()
    numbers = dict(load_results(NAME, missing={"numbers": {}})["numbers"])
    plain = measure_described(base, pools["test"])
    tuned, lr = tuned_gain(base, pools, plain)
    numbers |= {"model": plain, "tuned": tuned, "tuned rate": lr}

    def store() -> None:
        config = {"steps": args.steps, "seeds": args.seeds, "outer_lr": OUTER}
        seconds = time.perf_counter() - began
        save_results(NAME, numbers, seed=0, seconds=seconds, config=config)

    runs = []
    for seed in range(args.seeds):
        learner = trained(base, pools["train"], "services", args.steps, seed)
        constant = trained(
            base, pools["train"].constant(), "constant", args.steps, seed
        )
        runs.append(gains_of(learner, constant, pools["test"], plain))
        print(seed, {name: str(e) for name, e in runs[-1].items()})
        numbers["gains"] = {n: summed([r[n] for r in runs]) for n in runs[0]}
        numbers["gains"]["tuned, 50 steps"] = tuned
        numbers["against shares"] = halves(runs, tuned)
        store()
    every = [
        styled_tasks(groups["train"], told["train"]),
        styled_tasks(
            topics := topic_groups("train"),
            {n: [f"Headlines: {n.lower()}"] for n in topics},
            ("plain", "small"),
        ),
    ]
    both = [{k: v for part in every for k, v in part[i].items()} for i in (0, 1)]
    some = {str(n): sorted(groups["train"])[:: 24 // n][:n] for n in args.services}
    curve = {
        n: pool({k: groups["train"][k] for k in names}, told["train"], tokenizer)
        for n, names in some.items()
    }
    curve["with styles and topics"] = pool(*both, tokenizer)
    for name, tasks in curve.items():
        kept = "services" if name == "24" else f"curve {name}"
        learner = trained(base, tasks, kept, args.steps, 0)
        nats = measure_described(learner, pools["test"].reading("both"))
        key = "by tasks" if name.isdigit() else "more tasks"
        numbers.setdefault(key, {})[name] = paired_difference(plain, nats)
        print(name, numbers[key][name])
        store()


if __name__ == "__main__":
    main()
