"""Starts for unseen services: three seeds, and the curve over the budget.

    python benchmarks/meta_gpt2.py [--steps 40 120] [--seeds 3]
    python benchmarks/meta_gpt2.py --steps 360 --seeds 1 --methods maml joint \\
        --rates-of 120

Each method of `meta_learning` trains `gpt-base` (`make models`) on the training
services of the Schema-Guided dialogues, four tasks an outer step, four support and four
query texts of 64 tokens. The outer rate is chosen with the first seed, the factor on
the inner rates for each seed and each number of texts, on the validation services; the
unseen services are measured once. Where both were trained, MAML and joint training are
put together crosswise, the start of one with the rates of the other. What is measured
joins what is stored of other methods with as many seeds. Trained starts are kept under
_build/meta_gpt2, so that a restart goes on with what is missing. The numbers go to
results/benchmarks/meta_gpt2.json after each budget. A second-order outer step takes two
to six seconds of one core, so that 40 and 120 steps with three seeds take an hour
or more. The second line prolongs the curve: one seed, two methods, the outer rates of
another budget.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from metalearn_book.book.results import load_results, save_results
from metalearn_book.book.targets import Target, save_targets
from metalearn_book.foundations.measuring import (
    Evaluation,
    best_of,
    over_seeds,
    paired_difference,
)
from metalearn_book.language_models.meta_gpt2 import (
    METHODS,
    MetaGPT2,
    TextTasks,
    measure_groups,
    meta_learning,
)
from metalearn_book.language_models.pretraining import small_model
from metalearn_book.language_models.services import _with_rates, service_groups

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "meta_gpt2"
NAME = "benchmarks/meta_gpt2"
LENGTH, N_QUERY, SHOTS = 64, 8, (1, 4, 16)
OUTER = (3e-4, 1e-3)
FACTORS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
ONE = 0.05  # the inner rate where none is learned
LIMITS = (
    "with one text the steps gain little; the lead is that of a start with its learned "
    "rates, and depends on the factor on these, which four validation services choose"
)
LEARNED = {"learn_lr": "tensor", "rate_lr": 1e-3}
OPTIONS = {"maml": LEARNED, "fomaml": LEARNED, "reptile": {}, "joint": {}}


def trained(base, tokenizer, pool, method: str, steps: int, lr: float, seed: int):
    "A start after training; read where it was trained before."
    path = KEPT / f"{method}-{steps}-{lr:g}-{seed}.pt"
    if path.is_file():
        options = {"learn_lr": OPTIONS[method].get("learn_lr", False)}
        fresh, _ = small_model("gpt-base")
        learner = MetaGPT2(fresh, tokenizer, length=LENGTH, **options)
        learner.load_state_dict(torch.load(path, weights_only=True))
        return learner
    learner = meta_learning(
        base,
        pool,
        method=method,
        steps=steps,
        outer_lr=lr,
        seed=seed,
        tasks_at_once=1,
        **OPTIONS[method],
    )
    KEPT.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(learner.state_dict(), part)
    part.replace(path)
    return learner


def searched(learner: nn.Module, tasks: TextTasks) -> dict[float, float]:
    "Nats a token on the validation services, by factor on the inner rates."
    return {f: measure_groups(learner, tasks, factor=f).mean for f in FACTORS}


def best(found: dict) -> float:
    return best_of(found, higher_is_better=False)


def on_unseen(learner: nn.Module, pools: dict) -> tuple[dict, dict]:
    "Evaluations on the unseen services by number of texts, and the factors chosen."
    tests, factors = {0: measure_groups(learner, pools["test"], inner_steps=0)}, {}
    for k in SHOTS:
        factors[k] = best(searched(learner, pools["validation"].with_shots(k)))
        tasks = pools["test"].with_shots(k)
        tests[k] = measure_groups(learner, tasks, factor=factors[k])
    return tests, factors


def halves(found: dict, made: dict, pools: dict, seeds: int) -> dict:
    """What MAML's start gives with one rate, and its rates on the start of joint
    training: leads over joint training with one rate by texts, what both give beyond
    the sum of these, and the factors."""
    leads, factors = {h: {} for h in ("start alone", "rates alone", "together")}, {}
    for seed in range(seeds):
        rates = made["maml", seed].loop.inner_lr.detach()
        start, factors[f"start alone, {seed}"] = on_unseen(
            _with_rates(made["maml", seed], ONE), pools
        )
        crossed, factors[f"rates alone, {seed}"] = on_unseen(
            _with_rates(made["joint", seed], rates), pools
        )
        for k in SHOTS:
            joint = found["joint", seed][k]
            on_own = paired_difference(start[k], found["maml", seed][k])
            on_other = paired_difference(joint, crossed[k])
            both = paired_difference(on_own, on_other)
            ahead = (paired_difference(joint, start[k]), on_other, both)
            for half, value in zip(leads, ahead):
                leads[half].setdefault(str(k), []).append(value)
    means = {h: {k: summed(runs) for k, runs in by.items()} for h, by in leads.items()}
    for half, by in means.items():
        print(half, {k: str(e) for k, e in by.items()})
    return means | {"factors": factors}


def merged(old: dict, new: dict) -> dict:
    "New numbers beside the old ones of other methods; none of another number of seeds."
    if old.get("seeds") != new["seeds"]:
        return new
    joined = {
        k: {**old.get(k, {}), **v} if isinstance(v, dict) else v for k, v in new.items()
    }
    return {**old, **joined}


def summed(runs: list[Evaluation]) -> Evaluation:
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def chosen_rate(base, tokenizer, pools: dict, method: str, steps: int) -> float:
    "The outer rate that is best on the validation services, with the first seed."
    scores = {}
    for lr in OUTER:
        made = trained(base, tokenizer, pools["train"], method, steps, lr, 0)
        scores[lr] = min(searched(made, pools["validation"]).values())
    return best(scores)


def budget(
    base, tokenizer, pools: dict, steps: int, seeds: int, methods, rates: dict
) -> dict:
    """Methods after so many outer steps.

    rates: outer rate of each method; one that is not there is searched for."""
    found, chosen, factors, starts = {}, {}, {}, {}
    for method in methods:
        lr = chosen[method] = rates.get(method) or chosen_rate(
            base, tokenizer, pools, method, steps
        )
        for seed in range(seeds):
            made = trained(base, tokenizer, pools["train"], method, steps, lr, seed)
            starts[method, seed] = made
            found[method, seed], factors[f"{method}, {seed}"] = on_unseen(made, pools)
            print(
                steps, method, seed, {k: str(e) for k, e in found[method, seed].items()}
            )
    shots = (0, *SHOTS)
    means = {
        m: {str(k): summed([found[m, s][k] for s in range(seeds)]) for k in shots}
        for m in methods
    }
    leads = {
        m: {
            str(k): summed(
                [
                    paired_difference(found[m, s][k], found["maml", s][k])
                    for s in range(seeds)
                ]
            )
            for k in shots
        }
        for m in methods
        if m != "maml" and "maml" in methods
    }
    done = {"means": means, "leads": leads, "outer": chosen, "factors": factors}
    if {"maml", "joint"} <= set(methods):
        done["halves"] = halves(found, starts, pools, seeds)
    return done | {"grid": list(FACTORS), "seeds": seeds}


def targets(numbers: dict) -> list[Target]:
    "The lead at each budget that was measured with three seeds."
    return [
        Target(
            NAME,
            f"MAML ahead of fine-tuning after the same further training, {k} "
            f"text{'s'[: k != '1']}, {steps} outer steps",
            "nats a token",
            "at least",
            0.04,
            value["mean"],
            f"python {NAME}.py",
            ci95=value["ci95"],
            seeds=numbers["budgets"][steps]["seeds"],
            limits=LIMITS,
        )
        for steps, found in numbers["leads"].items()
        for k, value in found.items()
        if numbers["budgets"][steps]["seeds"] == 3
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 120])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--rates-of", type=int, help="a budget that was measured")
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    base, tokenizer = small_model("gpt-base")
    sizes = {"train": 4, "validation": N_QUERY, "test": N_QUERY}
    pools = {
        part: TextTasks(service_groups(part), tokenizer, 4, n, LENGTH)
        for part, n in sizes.items()
    }
    began, numbers = time.perf_counter(), load_results(NAME, missing={"numbers": {}})
    numbers = dict(numbers["numbers"])
    for steps in args.steps:
        of = numbers.get("budgets", {}).get(str(args.rates_of), {})
        rates = of.get("outer", {}) if args.rates_of else {}
        done = budget(
            base, tokenizer, pools, steps, args.seeds, args.methods, dict(rates)
        )
        budgets = numbers.setdefault("budgets", {})
        done = budgets[str(steps)] = merged(budgets.get(str(steps), {}), done)
        if "joint" in done["leads"]:
            numbers.setdefault("leads", {})[str(steps)] = {
                k: e for k, e in done["leads"]["joint"].items() if k != "0"
            }
        save_results(
            NAME,
            numbers,
            seed=0,
            seconds=time.perf_counter() - began,
            config={"seeds": args.seeds, "shots": list(SHOTS), "length": LENGTH},
        )
    save_targets("language_models", targets(load_results(NAME)["numbers"]))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
