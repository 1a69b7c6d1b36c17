"""MetaICL in the small: three seeds, against joint training and MAML.

    python benchmarks/meta_icl.py [--steps 40] [--seeds 3]

`gpt-base` (`make models`) is trained on pairs of turns of the training services of the
Schema-Guided dialogues, two tasks an outer step: on single pairs jointly, by MAML with
learned rates, and on rows of pairs. The rates are chosen with the first seed from four
candidates for each learner, on the validation services; the unseen services are
measured once. Trained weights are kept under _build/meta_icl, so that a restart goes on
with what is missing. The numbers go to results/benchmarks/meta_icl.json after each
budget. 40 steps with three seeds take six minutes of one core; time goes with steps.
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
from metalearn_book.foundations.measuring import over_seeds, paired_difference
from metalearn_book.language_models.meta_gpt2 import (
    MetaGPT2,
    TextTasks,
    meta_learning,
)
from metalearn_book.language_models.meta_icl import (
    nats_after_steps,
    nats_in_front,
    pair_episodes,
    service_pairs,
    tune_in_context,
)
from metalearn_book.language_models.pretraining import small_model

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "meta_icl"
NAME = "benchmarks/meta_icl"
PAIR, K, N_ASKED, PER_STEP = 44, 4, 6, 2
#: learner -> its candidates: outer rate, factor on the inner rates
CANDIDATES = {
    "joint": [(lr, f) for lr in (3e-4, 1e-3) for f in (0.25, 1.0)],
    "maml": [(lr, f) for lr in (3e-4, 1e-3) for f in (0.25, 1.0)],
    "metaicl": [(lr, 1.0) for lr in (1e-4, 3e-4, 1e-3, 3e-3)],
}
FRONT = "MetaICL, pairs in front"


def trained(base, tokenizer, groups, method: str, steps: int, lr: float, seed: int):
    "A learner after training; read where it was trained before."
    path = KEPT / f"{method}-{steps}-{lr:g}-{seed}.pt"
    rows = method == "metaicl"
    own = {"learn_lr": "tensor"} if method == "maml" else {}
    if path.is_file():
        made = copy.deepcopy(base)
        if not rows:
            made = MetaGPT2(
                made, tokenizer, length=PAIR, inner_lr=0.05, tasks_at_once=1, **own
            )
        made.load_state_dict(torch.load(path, weights_only=True))
        return made.eval()
    if rows:
        made = tune_in_context(
            base, tokenizer, groups, k_shot=K, steps=steps, lr=lr, seed=seed,
            sequences_per_step=PER_STEP, length=base.config.context,
        )  # fmt: skip
    else:
        tasks = TextTasks(groups, tokenizer, K, N_ASKED, PAIR)
        rate = {"rate_lr": 1e-3} if own else {}
        made = meta_learning(
            base, tasks, method=method, steps=steps, outer_lr=lr, seed=seed,
            tasks_per_step=PER_STEP, tasks_at_once=1, **own, **rate,
        )  # fmt: skip
    KEPT.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(made.state_dict(), part)
    part.replace(path)
    return made.eval()


def with_another(episodes: dict) -> dict:
    "The same queries, with the support of the next task."
    supports = [s for s, _ in episodes.values()]
    moved = supports[1:] + supports[:1]
    return {
        name: (other, asked)
        for (name, (_, asked)), other in zip(episodes.items(), moved)
    }


def measured(made: dict, tokenizer, factors: dict, episodes: dict) -> dict:
    "What each learner of one seed reaches on the episodes."
    joint, rows = made["joint"].loop.model, made["metaicl"]
    return {
        "joint, nothing in front": nats_in_front(joint, tokenizer, episodes, 0),
        "joint, pairs in front": nats_in_front(joint, tokenizer, episodes),
        "joint, then 3 steps": nats_after_steps(
            made["joint"], episodes, factors["joint"]
        ),
        "MAML, 3 steps": nats_after_steps(made["maml"], episodes, factors["maml"]),
        "MetaICL, nothing in front": nats_in_front(rows, tokenizer, episodes, 0),
        FRONT: nats_in_front(rows, tokenizer, episodes),
        "MetaICL, pairs of another service": nats_in_front(
            rows, tokenizer, with_another(episodes)
        ),
    }


def budget(base, tokenizer, groups: dict, steps: int, seeds: int) -> dict:
    "All learners after so many outer steps."
    episodes = {p: pair_episodes(groups[p], K, N_ASKED) for p in ("validation", "test")}
    chosen = {}
    for method, candidates in CANDIDATES.items():
        scores = {}
        for lr, f in candidates:
            made = trained(base, tokenizer, groups["train"], method, steps, lr, 0)
            on = episodes["validation"]
            found = (
                nats_in_front(made, tokenizer, on)
                if method == "metaicl"
                else nats_after_steps(made, on, f)
            )
            scores[lr, f] = found.mean
        chosen[method] = min(scores, key=scores.get)
        print(steps, method, chosen[method], scores, flush=True)
    factors = {m: f for m, (_, f) in chosen.items()}
    runs = []
    for seed in range(seeds):
        made = {
            m: trained(base, tokenizer, groups["train"], m, steps, lr, seed)
            for m, (lr, _) in chosen.items()
        }
        runs.append(measured(made, tokenizer, factors, episodes["test"]))
        print(steps, seed, {n: round(e.mean, 4) for n, e in runs[-1].items()})
    raw = nats_in_front(base, tokenizer, episodes["test"])
    for run in runs:
        run["pretrained, pairs in front"] = raw

    def summed(found):
        e = over_seeds(found) if len(found) > 1 else found[0]
        return {"mean": e.mean, "ci95": e.ci95}

    return {
        "means": {n: summed([r[n] for r in runs]) for n in runs[0]},
        "more": {
            n: summed([paired_difference(r[n], r[FRONT]) for r in runs])
            for n in runs[0]
            if n != FRONT
        },
        "chosen": {m: list(key) for m, key in chosen.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[40])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    base, tokenizer = small_model("gpt-base")
    groups = {
        p: {
            n: r
            for n, r in service_pairs(p, tokenizer, PAIR).items()
            if len(r) >= K + N_ASKED
        }
        for p in ("train", "validation", "test")
    }
    began = time.perf_counter()
    numbers = dict(load_results(NAME, missing={"numbers": {}})["numbers"])
    for steps in args.steps:
        done = budget(base, tokenizer, groups, steps, args.seeds)
        numbers.setdefault("budgets", {})[str(steps)] = done
        save_results(
            NAME,
            numbers,
            seed=0,
            seconds=time.perf_counter() - began,
            config={"seeds": args.seeds, "k_shot": K, "pair": PAIR},
        )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
