"""Prototypes, matching and relation networks on Omniglot, on the same episodes: about a
quarter of an hour of one core.

    python benchmarks/metric_omniglot.py [--steps 500] [--runs 3] [--channels 32]
        [--n-way 30]

Each learner has the same body (four blocks with max-pooling; three for relation
networks, whose comparison is the fourth), the same number of training episodes of the
same kind, and an outer rate of its own, chosen on the validation characters from the
same list. What is done is kept under _build/metric_omniglot, and a restart goes on from
there. The numbers go to results/benchmarks/metric_omniglot.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from metalearn_book.book.results import save_results
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.data.files import made as whole_file
from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.measuring import Evaluation, evaluate, over_seeds
from metalearn_book.foundations.measuring import paired_difference
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.foundations.training import Checkpoint, Update, Validation
from metalearn_book.foundations.training import meta_train
from metalearn_book.metric.matching import MatchingNet
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.metric.relation import MapRelation, RelationNet
from metalearn_book.optimization.maml import conv4, conv_block

ROOT = Path(__file__).resolve().parent.parent
N_QUERY, WARM_UP, RATES, SEARCH_STEPS = 5, 30, (1e-3, 2e-3, 4e-3), 100
SETTINGS = [(5, 1), (5, 5), (20, 1), (20, 5)]
LEARNERS = ("prototypes", "matching", "relation")


def made(name: str, channels: int) -> nn.Module:
    if name == "relation":
        sizes = (1, channels, channels)
        body = nn.Sequential(*(conv_block(n, channels, "max") for n in sizes))
        body = body.to(memory_format=torch.channels_last)
        return RelationNet(body, MapRelation(channels))
    body = conv4(channels=channels, pool="max").to(memory_format=torch.channels_last)
    return ProtoNet(body) if name == "prototypes" else MatchingNet(body)


def train(name, data, args, rate: float, steps: int, seed: int, folder: Path):
    "A trained learner and its accuracy on validation characters during training."
    torch.manual_seed(seed)
    learner = made(name, args.channels)

    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: (
                min(1.0, (step + 1) / WARM_UP)
                * 0.5
                * (1 + math.cos(math.pi * step / steps))
            ),
        )

    history = meta_train(
        learner,
        ClassTasks(*data["train"], args.n_way, 1, N_QUERY),
        steps=steps,
        tasks_per_step=1,
        outer_lr=rate,
        update=Update(schedule=schedule),
        validation=Validation(
            ClassTasks(*data["validation"], 5, 1, N_QUERY),
            every=min(100, steps),
            episodes=60,
        ),
        checkpoint=Checkpoint(folder / f"{name}-{rate:g}-{steps}-{seed}.pt", every=100),
        seed=seed,
        progress=False,
    )
    return learner.eval(), dict(zip(history.val_step, history.val))


def measured(learner, data, seed: int) -> dict[str, Evaluation]:
    "Accuracy on test characters, whose embeddings are computed once."
    x, labels = data["test"]
    with torch.no_grad():
        z = torch.cat([learner.embed(part[None])[0] for part in x.split(256)])
    if isinstance(learner, RelationNet):
        rule = RelationNet(None, learner.relation)
    elif isinstance(learner, MatchingNet):
        tau = learner.log_temperature.exp().item()
        rule = MatchingNet(temperature=tau)
    else:
        rule = NearestPrototype()
    return {
        f"{n}-way {k}-shot": evaluate(
            rule,
            ClassTasks(z, labels, n, k, 15 if n == 5 else 5),
            600 if n == 5 else 200,
            seed=12345 + seed,
            tasks_per_batch=10,
        )
        for n, k in SETTINGS
    }


def once(path: Path, make):
    "What `make` gives, kept in a file."
    if not path.exists():
        text = json.dumps(make())
        with whole_file(path) as part:  # all of it, or nothing
            part.write_text(text)
    return json.loads(path.read_text())


def one_run(name, data, args, rate, seed, folder) -> dict:
    learner, curve = train(name, data, args, rate, args.steps, seed, folder)
    found = measured(learner, data, seed)
    print(name, seed, {s: str(v) for s, v in found.items()}, flush=True)
    return {"curve": curve, "values": {s: v.values.tolist() for s, v in found.items()}}


def chosen_rates(data, args, folder: Path) -> dict[str, dict[str, float]]:
    "Validation accuracy of each learner after a short run with each rate."
    found = {}
    for name in LEARNERS:
        for rate in RATES:
            path = folder / f"search-{name}-{rate:g}-{args.search_steps}.json"

            def make(name=name, rate=rate):
                got = train(name, data, args, rate, args.search_steps, 0, folder)
                return max(got[1].values())

            found.setdefault(name, {})[f"{rate:g}"] = once(path, make)
        print(name, found[name], flush=True)
    return found


def tables(runs: dict) -> tuple[list, list]:
    "Means over runs for each learner, and paired differences from prototypes."
    found = {}
    for (name, seed), run in runs.items():
        for setting, values in run["values"].items():
            one = Evaluation(torch.tensor(values), 12345 + seed, 10, (0.0, 1.0))
            found.setdefault((name, setting), []).append(one)
    table, gaps = [], []
    for (name, setting), some in found.items():
        v = over_seeds(some)
        row = {"learner": name, "setting": setting}
        table.append(row | {"mean": v.mean, "ci95": v.ci95})
        if name != "prototypes":
            pairs = zip(some, found["prototypes", setting])
            gap = over_seeds([paired_difference(a, b) for a, b in pairs])
            gaps.append(row | {"mean": gap.mean, "ci95": gap.ci95})
    return table, gaps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500, help="training episodes")
    parser.add_argument("--runs", type=int, default=3, help="training runs of each")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--n-way", type=int, default=30)
    parser.add_argument("--search-steps", type=int, default=SEARCH_STEPS)
    args = parser.parse_args()
    if not available("omniglot"):
        raise SystemExit(
            "Omniglot is not available: set METALEARN_DATA to the folder that holds "
            "it, or connect to the network"
        )
    torch.set_num_threads(1)
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    kind = f"{args.channels}-channels-{args.n_way}-way"
    folder = ROOT / "_build" / "metric_omniglot" / kind
    folder.mkdir(parents=True, exist_ok=True)
    images, began = load_dataset_by_name("omniglot"), time.process_time()
    data = {
        "train": images.where(part="train").tensors(rotations=(0, 90, 180, 270)),
        "validation": images.where(part="validation").tensors(),
        "test": images.where(part="test").tensors(),
    }
    search = chosen_rates(data, args, folder)
    rates = {name: float(max(v, key=v.get)) for name, v in search.items()}
    runs = {}
    for seed in range(args.runs):
        for name in LEARNERS:
            rate = rates[name]
            path = folder / f"run-{name}-{rate:g}-{args.steps}-{seed}.json"

            def make(name=name, rate=rate, seed=seed):
                return one_run(name, data, args, rate, seed, folder)

            runs[name, seed] = once(path, make)
    table, gaps = tables(runs)
    save_results(
        "benchmarks/metric_omniglot",
        {
            "table": table,
            "minus_prototypes": gaps,
            "search": search,
            "rates": rates,
            "curves": {
                name: [runs[name, s]["curve"] for s in range(args.runs)]
                for name in LEARNERS
            },
            "steps": args.steps,
            "runs": args.runs,
            "channels": args.channels,
            "n_way": args.n_way,
            "minutes": (time.process_time() - began) / 60,
        },
        seed=0,
        config=vars(args) | {"n_query": N_QUERY, "warm_up": WARM_UP},
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
