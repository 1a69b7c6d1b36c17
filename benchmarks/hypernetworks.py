"""Written adapters on unseen services: three seeds, and the number of training tasks.

    python benchmarks/hypernetworks.py [--steps 30] [--seeds 3] [--curve 6 12 24]

Hypernetworks that read 16 texts or the description of a task, their control, for which
all tasks read one sentence, and MAML on the same factors are trained on `gpt-base`
(`make models`) with each seed, on services and intents; with the first seed also on
parts of the services, and on services with styles and topics. What they gain over the
model is measured on the unseen services, with the right texts or description and with
wrong ones, beside factors that are tuned 50 steps on 16 texts. The size of the start,
the rates of tuning and the factor on MAML's rates are chosen on the validation
services. Networks and tuned losses are kept under _build/hypernetworks, so that a
restart goes on with what is missing. The numbers go to
results/benchmarks/hypernetworks.json after each run. The tuned factors take six
minutes of one core, everything else about ten.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
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
from metalearn_book.language_models.described_services import (
    DescribedTasks,
    hyper_training,
    intent_groups,
    measure_described,
    service_descriptions,
    styled_tasks,
    tuned_nats,
)
from metalearn_book.language_models.hypernetworks import HyperLoRA, ReadoutLoRA
from metalearn_book.language_models.low_rank_services import best_factor, by_factor
from metalearn_book.language_models.meta_gpt2 import (
    MetaGPT2,
    _each_group,
    measure_groups,
    meta_learning,
)
from metalearn_book.language_models.pretraining import small_model
from metalearn_book.language_models.services import (
    in_context_nats,
    service_groups,
    topic_groups,
)

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "hypernetworks"
NAME = "benchmarks/hypernetworks"
LENGTH, SHOTS, N_QUERY, MOST = 64, 16, 8, 48
TUNED = (1, 3, 10, 50)
RATES, LAYERS = (3e-4, 1e-3, 3e-3), ["*blocks.2.*", "*blocks.3.*"]
SIZES = {"texts": (0.03, 0.1, 0.2), "description": (0.01, 0.02, 0.05)}
OUTER = 1e-3
MAML = {"inner_lr": 1.0, "learn_lr": "tensor", "adapt": "lora_*", "tasks_at_once": 1}
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def pool(groups: dict, told: dict, tokenizer, most=None, n_query=4) -> DescribedTasks:
    "Described tasks of the groups that have enough texts."
    some = {n: rows[:most] for n, rows in groups.items()}
    few = DescribedTasks(some, told, tokenizer, "texts", 1, n_query, LENGTH)
    return few.with_shots(SHOTS)


def kept(path: Path, make):
    "What `make` gives, written whole; read where it was made before."
    if not path.is_file():
        found = make()
        KEPT.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(found, part)
        part.replace(path)
    return torch.load(path, weights_only=True)


def trained(base, tasks, basis, name: str, begun: float, steps, seed) -> HyperLoRA:
    "A trained hypernetwork."
    options = {"basis": basis, "step": begun, "steps": steps, "seed": seed}
    make = lambda: hyper_training(base, tasks, outer_lr=OUTER, **options).state_dict()
    name = name.replace(" ", "_")
    learner = HyperLoRA(base, tasks.tokenizer, length=LENGTH)
    learner.load_state_dict(kept(KEPT / f"{name}-{begun:g}-{steps}-{seed}.pt", make))
    return learner


def sized(fitted: HyperLoRA, size: float) -> HyperLoRA:
    "A start with a step of this size, of one with a step of 1."
    made = copy.deepcopy(fitted)
    with torch.no_grad():
        made.left.mul_(size)
    return made


def maml(base, tasks, inner_steps: int, steps: int, seed: int, start) -> MetaGPT2:
    "A meta-learned start of factors at the readout, A first that of a hypernetwork."
    net = ReadoutLoRA(base, len(start.A)).requires_grad_(False)
    with torch.no_grad():
        net.lora_A.copy_(start.A)
    for p in (net.lora_A, net.lora_B):
        p.requires_grad_(True)
    options = {**MAML, "inner_steps": inner_steps}
    training = {
        "method": "maml",
        "steps": 2 * steps // 3,
        "tasks_per_step": 2,
        "seed": seed,
    }
    make = lambda: meta_learning(
        net, tasks, outer_lr=3e-3, rate_lr=0.03, **training, **options
    ).state_dict()
    learner = MetaGPT2(net, tasks.tokenizer, length=LENGTH, **options)
    learner.load_state_dict(kept(KEPT / f"maml-{inner_steps}-{steps}-{seed}.pt", make))
    return learner


def tuned(base, tasks, part: str, lr: float, steps) -> dict[int, Evaluation]:
    "Losses after tuning, one service after the other."
    path, found = KEPT / f"tuned-{part}-{lr:g}.json", {}
    if not path.is_file():
        told = tuned_nats(base, tasks, steps, layers=LAYERS, rank=4, lr=lr)
        KEPT.mkdir(parents=True, exist_ok=True)
        text = json.dumps({str(n): e.values.tolist() for n, e in told.items()})
        part_of = path.with_suffix(".part")
        part_of.write_text(text)
        part_of.replace(path)
    for n, values in json.loads(path.read_text()).items():
        found[int(n)] = Evaluation(torch.tensor(values, dtype=torch.float64), 0, 1)
    return found


def summed(runs: list[Evaluation]) -> Evaluation:
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curve", type=int, nargs="+", default=[6, 12, 24])
    args = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    base, tokenizer = small_model("gpt-base")
    parts = ("train", "validation", "test")
    groups = {part: service_groups(part) for part in parts}
    told = {part: service_descriptions(part) for part in parts}
    intents, said = intent_groups("train")
    tests, valid = (
        pool(groups[p], told[p], tokenizer, None, N_QUERY)
        for p in ("test", "validation")
    )
    services = pool(groups["train"], told["train"], tokenizer, MOST)
    together = groups["train"] | intents, told["train"] | said
    every = pool(*together, tokenizer, MOST)
    began = time.perf_counter()
    plain, plain_valid = (measure_described(base, t) for t in (tests, valid))
    numbers = dict(load_results(NAME, missing={"numbers": {}})["numbers"])
    numbers["model"] = plain

    def store() -> None:
        config = {"steps": args.steps, "seeds": args.seeds, "outer_lr": OUTER}
        seconds = time.perf_counter() - began
        save_results(NAME, numbers, seed=0, seconds=seconds, config=config)

    def gain(learner, tasks) -> Evaluation:
        return paired_difference(plain, measure_described(learner, tasks))

    scores = {lr: tuned(base, valid, "validation", lr, (50,))[50].mean for lr in RATES}
    lr = best_of(scores, higher_is_better=False)
    found = tuned(base, tests, "test", lr, TUNED)
    steps_gain = {n: paired_difference(plain, e) for n, e in found.items()}
    context = [in_context_nats(base, t) for t in _each_group(tests, 0)]
    context = paired_difference(plain, Evaluation(torch.cat(context), 0, 1))
    numbers["tuned rate"] = lr
    numbers["tuned on validation"] = {f"{k:g}": v for k, v in scores.items()}

    begun, starts, tried = {}, {}, {}
    for reads, sizes in SIZES.items():
        fitted = hyper_training(base, services.reading(reads), step=1.0, steps=0)
        made = {s: sized(fitted, s) for s in sizes}
        right = valid.reading(reads)
        tried[reads] = {
            s: paired_difference(plain_valid, measure_described(m, right)).mean
            for s, m in made.items()
        }
        begun[reads] = best_of(tried[reads])
        starts[reads] = made[begun[reads]]
    numbers["sizes"] = {
        r: {f"{s:g}": v for s, v in found.items()} for r, found in tried.items()
    }

    once = {}
    for reads, learner in starts.items():
        right = tests.reading(reads)
        once[f"start, {reads}"] = gain(learner, right)
        once[f"start, wrong {reads}"] = gain(learner, right.shuffled())
    runs: list[dict] = []

    def note() -> None:
        "What is there of the runs, summed."
        over = lambda n: summed([r[n] for r in runs])
        numbers["gains"] = {
            **once,
            **{n: over(n) for n in runs[0]},
            "texts in the context": context,
            **{f"tuned, {n} steps": e for n, e in steps_gain.items()},
        }
        last = steps_gain[50]

        def beside(name: str, share: float):
            part = Evaluation(share * last.values, last.seed, last.batch)
            some = [once[name]] if name in once else [r[name] for r in runs]
            return summed([paired_difference(e, part) for e in some])

        numbers["against shares"] = {
            n: beside(n, 0.1 if "wrong" in n else 0.5)
            for n in (*once, *runs[0])
            if n.startswith(("start", "trained"))
        }
        numbers["parts"] = {}
        for reads in SIZES:
            at = lambda a, b: summed([paired_difference(r[a], r[b]) for r in runs])
            numbers["parts"][reads] = {
                "further training": over("one sentence for all"),
                "what reading adds": at(f"trained, {reads}", "one sentence for all"),
                "right against wrong": at(
                    f"trained, {reads}", f"trained, wrong {reads}"
                ),  # fmt: skip
            }
        beside_maml = {}
        for name in ("MAML, 1 step", "MAML, 3 steps"):
            beside_maml[name] = summed(
                [paired_difference(once["start, texts"], r[name]) for r in runs]
            )
        numbers["start ahead of"] = beside_maml | {
            "tuned, 1 step": paired_difference(once["start, texts"], steps_gain[1]),
            "texts in the context": paired_difference(once["start, texts"], context),
        }
        numbers["training adds"] = {
            r: summed(
                [paired_difference(x[f"trained, {r}"], once[f"start, {r}"])
                 for x in runs]
            )
            for r in SIZES
        }  # fmt: skip
        store()

    for seed in range(args.seeds):
        run = {}
        for reads in SIZES:
            learner = trained(
                base, every.reading(reads), services.reading(reads),
                f"all-{reads}", begun[reads], args.steps, seed,
            )  # fmt: skip
            right = tests.reading(reads)
            run[f"trained, {reads}"] = gain(learner, right)
            run[f"trained, wrong {reads}"] = gain(learner, right.shuffled())
        always = trained(
            base, every.constant(), services.reading("description"), "constant",
            begun["description"], args.steps, seed,
        )  # fmt: skip
        run["one sentence for all"] = gain(always, tests.constant())
        for n in (1, 3):
            made = maml(base, every, n, args.steps, seed, starts["texts"])
            factor = best_factor(by_factor(made, valid, FACTORS))
            nats = measure_groups(made, tests, factor=factor)
            run[f"MAML, {n} step{'s' * (n > 1)}"] = paired_difference(plain, nats)
        runs.append(run)
        print(seed, {name: str(e) for name, e in run.items()}, flush=True)
        note()

    topics = topic_groups("train")
    more = [
        styled_tasks(groups["train"], told["train"]),
        styled_tasks(
            topics, {n: [f"Headlines: {n.lower()}"] for n in topics}, ("plain", "small")
        ),
    ]
    both = [{k: v for part in more for k, v in part[i].items()} for i in (0, 1)]
    curve = {}
    for n in args.curve:
        names = sorted(groups["train"])[:: 24 // n][:n]
        some = {k: groups["train"][k] for k in names}
        curve[f"{n} services"] = pool(some, told["train"], tokenizer, MOST)
    curve["services, styles, topics"] = pool(*both, tokenizer, MOST)
    curve["services and intents"] = every
    for name, tasks in curve.items():
        numbers.setdefault("by tasks", {})[name] = {"tasks": len(tasks.names)} | {
            reads: gain(
                trained(
                    base, tasks.reading(reads), services.reading(reads),
                    f"all-{reads}" if tasks is every else f"{name}-{reads}",
                    begun[reads], args.steps, 0,
                ),
                tests.reading(reads),
            )
            for reads in SIZES
        }  # fmt: skip
        print(name, {k: str(v) for k, v in numbers["by tasks"][name].items()})
        store()


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
