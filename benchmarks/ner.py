"""Few-shot named entity recognition on the five domains of CrossNER.

    python benchmarks/ner.py [--stages train settings episodes detector supervised]
        [--rounds 8] [--slow-rounds 8]

Training on sources, then episodes of all methods. Group A trains on literature and
music and is tested on politics (validation), ai and science; group B the other way
round. Settings are chosen on the validation part of politics ("settings"). Trained
parts are kept under _build/ner/; each cell of the tables is stored as soon as it is
measured, and a restart goes on from there. About half an hour of processor time for
training, and 9 minutes for each round of 5 episodes. The numbers go to
results/benchmarks/ner.json.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.entities import Decomposed, Experts, Prototypical
from metalearn_book.case_studies.entities import SpanTyping, TagTasks, TokenPrototypes
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, Score
from metalearn_book.case_studies.sequence_labels import score_by_type, score_mentions
from metalearn_book.case_studies.tuned_taggers import FineTuned, token_loss
from metalearn_book.case_studies.tuned_taggers import train_on_sources
from metalearn_book.case_studies.word_vectors import NNShot, StructShot, WordModel
from metalearn_book.case_studies.word_vectors import abstract_transitions
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.inner_loop import Adam
from metalearn_book.foundations.encoders import load_encoder, zero_head
from metalearn_book.foundations.fine_tuning import warmup_linear
from metalearn_book.foundations.training import Update, load_checkpoint, meta_train
from metalearn_book.foundations.training import save_checkpoint
from metalearn_book.optimization.maml import MAML

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "ner"
GROUPS = {
    "A": (["literature", "music"], ["politics", "ai", "science"]),
    "B": (["politics", "ai", "science"], ["literature", "music"]),
}
N_WAY, K_QUERY, ROUND = 5, 5, 5
SOURCE = {
    "steps": 700,
    "batch_size": 16,
    "lr": 1e-4,
    "head_lr": 2e-3,
    "bf16": True,
    "seed": 0,
}
META = {
    "span": {"steps": 120, "tasks_per_step": 2},
    "name": {"steps": 120, "tasks_per_step": 2},
    "word": {"steps": 80, "tasks_per_step": 1},
    "any": {"steps": 240, "tasks_per_step": 1},
    "bio": {"steps": 240, "tasks_per_step": 1},
}
INNER = {
    "any": {"lr": 1e-4, "head_lr": 1e-3, "steps": 3},
    "bio": {"lr": 3e-4, "head_lr": 1e-2, "steps": 3},
}
LEAN = 1.0
TUNED = {
    "decomposed": {"lr": 1e-4, "head_lr": 1e-3, "steps": 8, "lean": LEAN, "trust": 1.0},
    "decomposed, MAML detector": {
        "lr": 1e-4,
        "head_lr": 1e-3,
        "steps": 5,
        "lean": 2 * LEAN,
        "trust": 1.0,
    },
    "fine-tuning, source start": {
        "lr": 1e-4,
        "head_lr": 1e-2,
        "steps": 12,
        "lean": LEAN,
    },
    "fine-tuning, pretrained": {"lr": 3e-4, "head_lr": 1e-2, "steps": 12, "lean": LEAN},
    "fine-tuning, pretrained, 60 steps": {
        "lr": 3e-4,
        "head_lr": 1e-2,
        "steps": 60,
        "lean": LEAN,
    },
    "MAML tagger": {"lr": 1e-4, "head_lr": 1e-2, "steps": 8, "lean": LEAN},
}
DETECTOR = "decomposed, MAML detector"
PAIR = ("fine-tuning, source start", "two experts")  # they share the adapted tagger
SLOW = [
    PAIR[1],
    "decomposed",
    "decomposed, MAML detector",
    "MAML tagger",
    "fine-tuning, pretrained",
    "fine-tuning, pretrained, 60 steps",
]
MOST_ROUNDS = {"fine-tuning, pretrained, 60 steps": 2}  # five times as long as the rest
QUICK = ["ProtoBERT", "NNShot", "StructShot"]
TEMPERATURE = 0.05  # of StructShot
ONLY_VARIANTS = ("name",)  # trained for the table of variants, on group A


SPELLED = {
    "literarygenre": "literary genre",
    "politicalparty": "political party",
    "programlang": "programming language",
    "academicjournal": "academic journal",
    "per": "person",
    "astronomicalobject": "astronomical object",
    "chemicalcompound": "chemical compound",
    "chemicalelement": "chemical element",
    "musicalartist": "musical artist",
    "loc": "location",
    "musicgenre": "music genre",
    "musicalinstrument": "musical instrument",
    "org": "organisation",
    "misc": "other name",
}


def spell(name: str) -> str:
    "The name of a type in words."
    return SPELLED.get(name.lower(), name.lower().replace("-", " "))


@cache
def crossner():
    return load_dataset_by_name("crossner")


def sources(group: str) -> tuple[dict, list[float]]:
    "Pools of a group and their weights: 6 parts for its domains together."
    names = GROUPS[group][0]
    pools = {d: crossner().where(domain=d) for d in names}
    pools |= {
        "wnut17": load_dataset_by_name("wnut17").where(part=("train", "validation")),
        "btc": load_dataset_by_name("btc"),
        "gum": load_dataset_by_name("gum"),
        "sec_filings": load_dataset_by_name("sec_filings").where(part="train"),
    }
    return pools, [6 / len(names)] * len(names) + [1, 1, 0.7, 0.7]


def kept(name: str, module: torch.nn.Module, train) -> None:
    "Read the weights of `module` from _build/ner, or train it and keep them."
    path = FOLDER / f"{name}.pt"
    if path.exists():
        module.load_state_dict(load_checkpoint(path))
    else:
        began = time.process_time()
        train()
        save_checkpoint(path, module.state_dict())
        print(
            f"trained {name} in {(time.process_time() - began) / 60:.1f} CPU minutes",
            flush=True,
        )
    module.requires_grad_(False).eval()


def learner_of(kind: str, model: WordModel) -> torch.nn.Module:
    "What is meta-trained for one kind of episodes, from the source start."
    body = model.top.with_head(None)
    if kind in ("span", "name", "word"):
        return (TokenPrototypes if kind == "word" else SpanTyping)(body).requires_grad_(
            True
        )
    net = model.top.with_head(
        copy.deepcopy(model.detector)
        if kind == "any"
        else zero_head(model.dim, 2 * N_WAY + 1)
    ).requires_grad_(True)
    inner = INNER[kind]
    return MAML(
        net,
        token_loss,
        inner_lr={
            "head.*": inner["head_lr"],
            "layers.*": inner["lr"],
            "shapes.*": inner["lr"],
        },
        inner_steps=inner["steps"],
        optimizer=Adam(),
        first_order=True,
    )


def meta_trained(kind: str, group: str, model: WordModel) -> torch.nn.Module:
    learner, steps = learner_of(kind, model), META[kind]["steps"]

    def train():
        torch.manual_seed(0)
        pools, weights = sources(group)
        scalars = [
            {"params": [p for p in learner.parameters() if p.dim() > 0], "lr": 1e-4},
            {"params": [p for p in learner.parameters() if p.dim() == 0], "lr": 1e-2},
        ]
        optimizer = torch.optim.AdamW(
            [g for g in scalars if g["params"]], weight_decay=0.0
        )
        history = meta_train(
            learner,
            TagTasks(
                model,
                pools,
                "span" if kind == "name" else kind,
                N_WAY,
                (1, 2, 3),
                8,
                weights,
                spell if kind == "name" else None,
            ),
            steps=steps,
            tasks_per_step=META[kind]["tasks_per_step"],
            update=Update(
                optimizer=optimizer,
                schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(
                    o, lambda step: warmup_linear(step, steps)
                ),
            ),
            progress=False,
        )
        fifth = steps // 5
        print(
            f"{group} {kind}: outer loss",
            [
                round(sum(history.loss[i : i + fifth]) / fifth, 3)
                for i in range(0, steps, fifth)
            ],
            flush=True,
        )

    kept(f"{group}-{kind}", learner, train)
    return learner


class Lazy(dict):
    "Values that are made when they are first asked for, by functions of nothing."

    def __init__(self, makers: dict):
        super().__init__()
        self.makers = makers

    def __missing__(self, name: str):
        self[name] = self.makers[name]()
        return self[name]


@cache
def trained(group: str) -> Lazy:
    "Source start and meta-trained learners of a group, trained when asked for."
    model, steps = WordModel(load_encoder("minilm")), SOURCE["steps"]

    def train():
        losses, began = [], time.time()

        def report(step, loss):
            losses.append(loss)
            if step % 50 == 49:
                mean, took = sum(losses[-50:]) / 50, (time.time() - began) / 60
                print(
                    f"{group} source: step {step + 1} of {steps}, "
                    f"loss {mean:.3f}, {took:.1f} min",
                    flush=True,
                )

        pools, weights = sources(group)
        train_on_sources(model, pools, weights=weights, report=report, **SOURCE)

    kept(f"{group}-source", model, train)
    makers = {
        "model": lambda: model,
        "plain": lambda: WordModel(load_encoder("minilm")).requires_grad_(False),
    }
    for kind in META:
        if group == "A" or kind not in ONLY_VARIANTS:
            makers[kind] = lambda kind=kind: meta_trained(kind, group, model)
    return Lazy(makers)


@cache
def methods(group: str) -> Lazy:
    "Name -> method, for all methods of the table; made when they are asked for."
    t = trained(group)
    model = t["model"]
    body, detector = model.top.with_head(None), model.top.with_head(model.detector)

    def struct_shot():
        pools = sources(group)[0].values()
        abstract = abstract_transitions([tags for pool in pools for tags in pool.tags])
        return StructShot(model, body, abstract, TEMPERATURE)

    def pretrained(name):
        return FineTuned(t["plain"], t["plain"].top, **TUNED[name])

    tuned = FineTuned(model, model.top, **TUNED["fine-tuning, source start"])
    full = "decomposed"
    found = Lazy(
        {
            "two experts": lambda: Experts(tuned, t["word"], detector),
            "fine-tuning, source start": lambda: tuned,
            "ProtoBERT": lambda: Prototypical(model, t["word"]),
            "NNShot": lambda: NNShot(model, body),
            "StructShot": struct_shot,
            "MAML tagger": lambda: FineTuned(
                model, t["bio"].loop.model, **TUNED["MAML tagger"]
            ),
            full: lambda: Decomposed(
                model, detector, t["span"], detector, **TUNED[full]
            ),
            DETECTOR: lambda: replace(
                found[full], net=t["any"].loop.model, **TUNED[DETECTOR]
            ),
        }
    )
    for name in TUNED:
        if name.startswith("fine-tuning, pretrained"):
            found.makers[name] = lambda name=name: pretrained(name)
    return found


def variants(group: str) -> dict:
    """The decomposed tagger taken apart, and the baselines at other settings: what the
    settings were chosen from."""
    t, every = trained(group), methods(group)
    full, tuned = every["decomposed"], every["fine-tuning, source start"]
    found = {
        "two experts": every["two experts"],
        "decomposed, type names": replace(full, typing=t["name"], spell=spell),
        "decomposed": full,
        "decomposed, MAML detector": every["decomposed, MAML detector"],
        "decomposed, detector not adapted": replace(full, steps=0),
        "decomposed, no lean": replace(full, lean=0.0),
        "decomposed, no rejection": replace(full, scout=None, trust=0.0),
        "decomposed, typing not meta-trained": replace(
            full, typing=SpanTyping(t["model"].top.with_head(None))
        ),
        "ProtoBERT": every["ProtoBERT"],
        "ProtoBERT, not meta-trained": Prototypical(
            t["model"], TokenPrototypes(t["model"].top.with_head(None))
        ),
        "fine-tuning, source start": tuned,
        "fine-tuning, source start, no lean": replace(tuned, lean=0.0),
        "MAML tagger": every["MAML tagger"],
    }
    found |= {
        f"fine-tuning, pretrained, rate {rate:g}": replace(
            every["fine-tuning, pretrained"], lr=rate
        )
        for rate in (3e-4, 1e-3)
    }
    return found


@cache
def episodes(domain: str, part: str, k: int, n: int = 100):
    pool = crossner().where(domain=domain, part=part)
    sampler, rng = (
        EpisodeSampler(pool, N_WAY, ("misc",)),
        random.Random(f"{domain} {part} {k}"),
    )
    return pool, [sampler.sample(k, K_QUERY, rng) for _ in range(n)]


def run(method, pool, some) -> dict:
    """F1, counts (right, predicted, true) and seconds of processor time of each
    episode, and counts per type."""
    f1, counts, seconds, types = [], [], [], {}
    for e in some:
        began, query = time.process_time(), e.sentences(pool, "query")
        true, found = (
            [t for _, t in query],
            method.adapt(e.sentences(pool), e.types)([w for w, _ in query]),
        )
        seconds.append(time.process_time() - began)
        s = score_mentions(true, found)
        f1.append(s.f1), counts.append([s.right, s.predicted, s.true])
        per = score_by_type(true, found)
        for t in e.types:
            old, new = types.get(t, (0, Score())), per.get(t, Score())
            types[t] = (old[0] + 1, old[1] + new)
    return {"f1": f1, "counts": counts, "seconds": seconds, "types": types}


def run_pair(every: dict, pool, some) -> dict[str, dict]:
    "The tuned tagger alone and with the prototypes, with one adaptation for both."
    found = {m: {"f1": [], "counts": [], "seconds": [], "types": {}} for m in PAIR}
    for e in some:
        first, began = every[PAIR[0]], time.process_time()
        tuned = replace(
            first, net=first.adapted_net(e.sentences(pool), e.types)[0], steps=0
        )
        spent = time.process_time() - began
        for m, method in zip(PAIR, (tuned, replace(every[PAIR[1]], tagger=tuned))):
            one = run(method, pool, [e])
            found[m]["f1"] += one["f1"]
            found[m]["counts"] += one["counts"]
            found[m]["seconds"].append(one["seconds"][0] + spent)
            for t, (n, s) in one["types"].items():
                old = found[m]["types"].get(t, (0, Score()))
                found[m]["types"][t] = (old[0] + n, old[1] + s)
    return found


class Numbers:
    "The stored numbers: read once, written after every cell."

    def __init__(self):
        self.data = {
            "cells": {},
            "types": {},
            "ablation": {},
            "supervised": {},
            **load_results("benchmarks/ner", missing={"numbers": {}})["numbers"],
        }

    def save(self) -> None:
        config = {
            "source": SOURCE,
            "meta": META,
            "inner": INNER,
            "tuned": TUNED,
            "temperature": TEMPERATURE,
            "n_way": N_WAY,
            "k_query": K_QUERY,
            "groups": {g: list(map(list, v)) for g, v in GROUPS.items()},
        }
        save_results("benchmarks/ner", self.data, seed=0, config=config)

    def done(self, key: str) -> int:
        """Episodes of a cell whose counts are known; a cell of an older run, which has
        none, is measured anew."""
        return len(self.data["cells"].get(key, {}).get("counts", ()))

    def add(self, key: str, found: dict) -> None:
        if not self.done(key):
            self.data["cells"].pop(key, None)
        empty = {"f1": [], "counts": [], "seconds": 0.0}
        cell = self.data["cells"].setdefault(key, empty)
        before, after = len(cell["f1"]), len(cell["f1"]) + len(found["f1"])
        cell["seconds"] = (cell["seconds"] * before + sum(found["seconds"])) / after
        cell["f1"] += found["f1"]
        cell["counts"] += found["counts"]

    def add_types(self, k: int, domain: str, known: set, types: dict) -> None:
        table = self.data["types"].setdefault(str(k), {}).setdefault(domain, {})
        for t, (n, s) in types.items():
            c = table.setdefault(
                t,
                {
                    "episodes": 0,
                    "right": 0,
                    "predicted": 0,
                    "true": 0,
                    "known": t in known,
                },
            )
            c["episodes"] += n
            c["right"], c["predicted"], c["true"] = (
                c["right"] + s.right,
                c["predicted"] + s.predicted,
                c["true"] + s.true,
            )


def measure_episodes(
    numbers: Numbers,
    groups: list[str],
    chosen: list[str],
    rounds: int,
    slow_rounds: int,
) -> None:
    began, every = time.time(), {g: methods(g) for g in groups}
    plan = [
        (r, g, d, k, m)
        for r in range(rounds)
        for g in groups
        for d in GROUPS[g][1]
        for k in (1, 5)
        for m in chosen
        if r < min(slow_rounds, MOST_ROUNDS.get(m, slow_rounds)) or m in QUICK
    ]
    plan = [
        p for p in plan if numbers.done(f"{p[2]}/{p[3]}/{p[4]}") < (p[0] + 1) * ROUND
    ]
    for done, (r, group, d, k, m) in enumerate(plan, 1):
        pool, some = episodes(d, "test", k)
        some = some[r * ROUND : (r + 1) * ROUND]
        both = (
            run_pair(every[group], pool, some)
            if m == PAIR[1]
            else {m: run(every[group][m], pool, some)}
        )
        if m == PAIR[1] and not numbers.done(f"{d}/{k}/{m}"):
            numbers.data["types"].get(str(k), {}).pop(d, None)  # counted with the cell
        for name, cell in both.items():
            numbers.add(f"{d}/{k}/{name}", cell)
        found = both[m]
        if m == PAIR[1]:
            numbers.add_types(
                k,
                d,
                {t for p in sources(group)[0].values() for t in p.classes},
                found["types"],
            )
        numbers.save()
        spent = time.time() - began
        left = spent / done * (len(plan) - done)
        print(
            f"{done}/{len(plan)} round {r + 1} {d} {k}~{2 * k} {m}: "
            f"F1 {sum(found['f1']) / ROUND:.3f}, {spent / 60:.1f} min, "
            f"about {left / 60:.0f} left",
            flush=True,
        )


def measure_settings(numbers: Numbers, n: int) -> None:
    """Variants on the validation part of politics; what is measured is kept, and more
    episodes are added to it."""
    for name, method in variants("A").items():
        for k in (1, 5):
            done = numbers.data["ablation"].setdefault(name, {}).setdefault(str(k), [])
            if len(done) < n:
                pool, some = episodes("politics", "validation", k)
                done += run(method, pool, some[len(done) : n])["f1"]
                numbers.save()
                print(
                    f"settings: {name}, {k}~{2 * k}: F1 {sum(done) / n:.3f}", flush=True
                )


def measure_detector(numbers: Numbers, groups: list[str], rounds: int) -> None:
    """The winner of the settings on the episodes of the table, beside the same tagger
    with the detector of the source start; both of one training."""
    cells = numbers.data.setdefault("detector", {})
    plan = [(g, d, k) for g in groups for d in GROUPS[g][1] for k in (1, 5)]
    for group, d, k in plan:
        pool, some = episodes(d, "test", k)
        for name in ("decomposed", DETECTOR):
            cell = cells.setdefault(f"{d}/{k}/{name}", {"f1": [], "counts": []})
            missing = some[len(cell["f1"]) : rounds * ROUND]
            if missing:
                found = run(methods(group)[name], pool, missing)
                cell["f1"] += found["f1"]
                cell["counts"] += found["counts"]
                numbers.save()
        means = {n: cells[f"{d}/{k}/{n}"]["f1"] for n in ("decomposed", DETECTOR)}
        print(d, k, {n: f"{sum(v) / len(v):.3f}" for n, v in means.items()}, flush=True)


def measure_supervised(numbers: Numbers, groups: list[str], steps: int) -> None:
    for group in groups:
        for d in GROUPS[group][1]:
            train, test = (
                crossner().where(domain=d, part=p) for p in ("train", "test")
            )
            done = numbers.data["supervised"].setdefault(
                d,
                {
                    "train": len(train),
                    "test": len(test),
                    "types": len(train.classes),
                    "starts": {},
                },
            )
            for name in ("fine-tuning, pretrained",):
                if name not in done["starts"]:
                    t = trained(group)
                    model = t["plain" if "pretrained" in name else "model"]
                    tagger = FineTuned(
                        model,
                        model.top,
                        TUNED[name]["lr"],
                        TUNED[name]["head_lr"],
                        steps,
                    ).adapt(list(zip(train.tokens, train.tags)), train.classes)
                    s = score_mentions(test.tags, tagger(test.tokens))
                    done["starts"][name] = {
                        "f1": s.f1,
                        "precision": s.precision,
                        "recall": s.recall,
                        "steps": steps,
                    }
                    numbers.save()
                    print(f"supervised: {d}, {name}: F1 {s.f1:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        default=["train", "settings", "episodes", "detector", "supervised"],
        choices=["train", "settings", "episodes", "detector", "supervised"],
    )
    parser.add_argument(
        "--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS)
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=8,
        help=f"rounds of {ROUND} episodes of each domain and number of shots, "
        "for methods without gradient steps",
    )
    parser.add_argument(
        "--slow-rounds",
        type=int,
        default=8,
        help="the same for methods with gradient steps",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=QUICK + SLOW,
        choices=QUICK + SLOW,
        help=f"for the stage episodes; '{PAIR[1]}' measures '{PAIR[0]}' as well",
    )
    parser.add_argument("--setting-episodes", type=int, default=8)
    parser.add_argument("--supervised-steps", type=int, default=120)
    args = parser.parse_args()
    if missing := [
        n
        for n in ("crossner", "wnut17", "btc", "gum", "sec_filings")
        if not available(n)
    ]:
        raise SystemExit(
            f"{', '.join(missing)}: not available; "
            "set METALEARN_DATA to the folder that holds them"
        )
    torch.set_num_threads(1)
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    numbers = Numbers()
    if "train" in args.stages:
        for group in args.groups:
            for name in trained(group).makers:
                trained(group)[name]
    if "settings" in args.stages:
        measure_settings(numbers, args.setting_episodes)
    if "episodes" in args.stages:
        measure_episodes(
            numbers, args.groups, args.methods, args.rounds, args.slow_rounds
        )
    if "detector" in args.stages:
        measure_detector(numbers, args.groups, args.slow_rounds)
    if "supervised" in args.stages:
        measure_supervised(numbers, args.groups, args.supervised_steps)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
