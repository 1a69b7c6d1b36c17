"""Starts of adapters for unseen services: three seeds, and the curve over the budget.

    python benchmarks/low_rank_services.py [--steps 24 120] [--seeds 3]

All weights of `gpt-base` (`make models`), LoRA of rank 4 and a prompt of eight places,
each with a joint and a meta-learned start, are trained by `meta_learning` on the
training services of the Schema-Guided dialogues: four tasks an outer step, four support
and four query texts of 64 tokens. The outer rate is chosen with the first seed, the
factor on the inner rates for each seed and each number of texts, on the validation
services; the unseen services are measured once. Trained starts are kept under
_build/low_rank_services, so that a restart goes on with what is missing. The numbers go
to results/benchmarks/low_rank_services.json after each budget. An outer step takes one
to two seconds of one core, so that 24 and 120 steps with three seeds take about an hour
and a quarter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.foundations.measuring import (
    Evaluation,
    over_seeds,
    paired_difference,
)
from metalearn_book.language_models.low_rank_services import (
    best_factor,
    by_factor,
    with_adapter,
)
from metalearn_book.language_models.meta_gpt2 import (
    MetaGPT2,
    TextTasks,
    measure_groups,
    meta_learning,
)
from metalearn_book.language_models.services import service_groups
from metalearn_book.language_models.pretraining import small_model
from metalearn_book.language_models.small_gpt import document_ids

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "low_rank_services"
NAME = "benchmarks/low_rank_services"
LENGTH, N_QUERY, SHOTS, PLACES = 64, 8, (1, 4, 16), 8
#: what adapts -> its kind, its inner rate, its outer rates, and that of learned rates
KINDS = {
    "all weights": ("all", 0.05, (3e-4, 1e-3), 1e-3),
    "LoRA, rank 4": ("lora", 3.0, (3e-3, 1e-2, 3e-2), 0.1),
    "prompt": ("prompt", 3.0, (3e-3, 1e-2, 3e-2), 0.1),
}
METHODS = ("joint", "maml")
#: which pairs are compared: kind and start, with kind and start
PAIRS = [
    *(((what, "maml"), (what, "joint")) for what in KINDS),
    *(((what, "maml"), (what, "plain")) for what in KINDS),
    (("LoRA, rank 4", "maml"), ("all weights", "maml")),
    (("LoRA, rank 4", "maml"), ("all weights", "joint")),
    (("LoRA, rank 4", "maml"), ("prompt", "maml")),
]


def trained(base, pools: dict, prompt, what: str, method: str, steps, lr, seed: int):
    "A start after training; read where it was trained before."
    kind, inner_lr, _, rate_lr = KINDS[what]
    net, adapt = with_adapter(base, kind, start=prompt)
    own = {"learn_lr": "tensor"} if method == "maml" else {}
    options = {"inner_lr": inner_lr, "adapt": adapt, "tasks_at_once": 1, **own}
    path = KEPT / f"{kind}-{method}-{steps}-{lr:g}-{seed}.pt"
    tasks = pools["train"]
    if path.is_file():
        learner = MetaGPT2(net, tasks.tokenizer, length=tasks.length, **options)
        learner.load_state_dict(torch.load(path, weights_only=True))
        return learner
    rate = {"rate_lr": rate_lr} if own else {}
    training = {"method": method, "steps": steps, "outer_lr": lr, "seed": seed}
    learner = meta_learning(net, tasks, **training, **rate, **options)
    KEPT.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(learner.state_dict(), part)
    part.replace(path)
    return learner


def on_unseen(learner, pools: dict) -> tuple[dict, dict]:
    "Evaluations on the unseen services by number of texts, and the factors chosen."
    tests, factors = {0: measure_groups(learner, pools["test"], inner_steps=0)}, {}
    for k in SHOTS:
        found = by_factor(learner, pools["validation"].with_shots(k))
        factors[k] = best_factor(found)
        tasks = pools["test"].with_shots(k)
        tests[k] = measure_groups(learner, tasks, factor=factors[k])
    return tests, factors


def summed(runs: list[Evaluation]) -> Evaluation:
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def plain(base, pools: dict, prompt) -> dict:
    "What each adapter reaches from the model as it is; nothing here has a seed."
    found = {}
    for what, (kind, inner_lr, *_) in KINDS.items():
        net, adapt = with_adapter(base, kind, start=prompt)
        options = {"length": pools["train"].length, "inner_lr": inner_lr}
        learner = MetaGPT2(net, pools["train"].tokenizer, adapt=adapt, **options)
        found[what, "plain"] = on_unseen(learner, pools)[0]
    return found


def budget(base, pools: dict, prompt, steps: int, seeds: int, without: dict) -> dict:
    "All starts after so many outer steps."
    found, chosen, factors = {}, {}, {}
    for what, (_, _, rates, _) in KINDS.items():
        for method in METHODS:
            scores = {}
            for lr in rates:
                made = trained(base, pools, prompt, what, method, steps, lr, 0)
                tried = by_factor(made, pools["validation"])
                scores[lr] = min(e.mean for e in tried.values())
            lr = chosen[f"{what}, {method}"] = min(scores, key=scores.get)
            for seed in range(seeds):
                made = trained(base, pools, prompt, what, method, steps, lr, seed)
                found[what, method, seed], own = on_unseen(made, pools)
                factors[f"{what}, {method}, {seed}"] = own
                print(steps, what, method, seed, found[what, method, seed], flush=True)

    def at(key, seed, k):
        return without[key][k] if key in without else found[*key, seed][k]

    def over(a, b, k):
        runs = [paired_difference(at(b, s, k), at(a, s, k)) for s in range(seeds)]
        return summed(runs)

    shots = (0, *SHOTS)
    return {
        "means": {
            f"{what}, {m}": {
                str(k): summed([found[what, m, s][k] for s in range(seeds)])
                for k in shots
            }
            for what in KINDS
            for m in METHODS
        },
        "leads": {
            f"{', '.join(a)} | {', '.join(b)}": {str(k): over(a, b, k) for k in SHOTS}
            for a, b in PAIRS
        },
        "outer": chosen,
        "factors": factors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[24, 120])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    base, tokenizer = small_model("gpt-base")
    groups = {part: service_groups(part) for part in ("train", "validation", "test")}
    sizes = {"train": 4, "validation": N_QUERY, "test": N_QUERY}
    pools = {p: TextTasks(groups[p], tokenizer, 4, n, LENGTH) for p, n in sizes.items()}
    first = groups["train"][min(groups["train"])][0]
    prompt = torch.tensor(document_ids(tokenizer, first, end=False)[:PLACES])
    began, numbers = time.perf_counter(), load_results(NAME, missing={"numbers": {}})
    numbers = dict(numbers["numbers"])
    without = plain(base, pools, prompt)
    numbers["plain"] = {
        what: {str(k): e for k, e in found.items()}
        for (what, _), found in without.items()
    }
    for steps in args.steps:
        done = budget(base, pools, prompt, steps, args.seeds, without)
        numbers.setdefault("budgets", {})[str(steps)] = done
        numbers.setdefault("leads", {})[str(steps)] = done["leads"]
        save_results(
            NAME,
            numbers,
            seed=0,
            seconds=time.perf_counter() - began,
            config={"seeds": args.seeds, "shots": list(SHOTS), "length": LENGTH},
        )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
