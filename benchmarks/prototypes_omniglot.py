"""A long run of prototypical networks on Omniglot, about half an hour of one core.

    python benchmarks/prototypes_omniglot.py [--episodes 6000] [--n-way 30]
        [--test-episodes 2000]

The network and the loss are those of the chapter (Snell et al., 2017); only the number
of training episodes is larger. A checkpoint under _build/ is written every 500
episodes, and a restart goes on from there. The numbers go to
results/benchmarks/prototypes_omniglot.json.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

import torch

from metalearn_book.book.results import save_results
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.foundations.training import Checkpoint, Update
from metalearn_book.foundations.training import evaluate, meta_train
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.optimization.maml import conv4

ROOT = Path(__file__).resolve().parent.parent
N_QUERY, OUTER_LR, WARM_UP = 5, 2e-3, 30
SETTINGS = [(5, 1), (5, 5), (20, 1), (20, 5)]
TURNS = {
    "upright": (0,),
    "turned": (0, 90, 180, 270),
}  # the paper counts turned test characters as classes of their own


def train(tasks: ClassTasks, episodes: int, checkpoint: Path) -> ProtoNet:
    torch.manual_seed(0)
    learner = ProtoNet(
        conv4(channels=64, pool="max").to(memory_format=torch.channels_last)
    )

    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: (
                min(1.0, (step + 1) / WARM_UP)
                * 0.5
                * (1 + math.cos(math.pi * step / episodes))
            ),
        )

    meta_train(
        learner,
        tasks,
        steps=episodes,
        tasks_per_step=1,
        outer_lr=OUTER_LR,
        update=Update(schedule=schedule),
        seed=0,
        checkpoint=Checkpoint(checkpoint, every=500),
    )
    return learner.eval()


def measure(learner: ProtoNet, images, test_episodes: int) -> dict:
    """Accuracy with each number of ways and shots, on test characters upright and with
    turned ones as further classes."""
    found = {}
    for name, turns in TURNS.items():
        x, labels = images.where(part="test").tensors(rotations=turns)
        with torch.no_grad():
            z = torch.cat([learner.embed(part[None])[0] for part in x.split(256)])
        found[name] = {
            f"{n}-way {k}-shot": evaluate(
                NearestPrototype(), ClassTasks(z, labels, n, k, 15), test_episodes
            )
            for n, k in SETTINGS
        }
        print(
            name,
            {setting: str(value) for setting, value in found[name].items()},
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=6000, help="training episodes")
    parser.add_argument(
        "--n-way",
        type=int,
        default=30,
        help="classes of a training episode; the paper takes 60",
    )
    parser.add_argument("--test-episodes", type=int, default=2000)
    args = parser.parse_args()
    if not available("omniglot"):
        raise SystemExit(
            "Omniglot is not available: set METALEARN_DATA to the folder that holds "
            "it, or connect to the network"
        )
    torch.set_num_threads(1)
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    folder = ROOT / "_build" / "prototypes_omniglot"
    folder.mkdir(parents=True, exist_ok=True)
    images, began = load_dataset_by_name("omniglot"), time.process_time()
    pool = images.where(part=("train", "validation")).tensors(
        rotations=(0, 90, 180, 270)
    )
    checkpoint = folder / f"{args.episodes}-of-{args.n_way}.pt"
    in_one_sitting = not checkpoint.exists()
    learner = train(
        ClassTasks(*pool, args.n_way, 1, N_QUERY), args.episodes, checkpoint
    )
    minutes = (
        (time.process_time() - began) / 60 if in_one_sitting else None
    )  # a resumed run does not know what came before
    save_results(
        "benchmarks/prototypes_omniglot",
        {
            **measure(learner, images, args.test_episodes),
            "episodes": args.episodes,
            "n_way": args.n_way,
            "minutes": minutes,
        },
        seed=0,
        config={
            **vars(args),
            "n_query": N_QUERY,
            "outer_lr": OUTER_LR,
            "warm_up": WARM_UP,
        },
        seconds=60 * minutes if in_one_sitting else None,
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
