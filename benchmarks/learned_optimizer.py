"""LSTM optimizers: the training runs beside the first one.

    python benchmarks/learned_optimizer.py [--seeds 1 2]

The chapter on learned optimizers trains an LSTM with seed 0. This trains it with
further seeds, by the chapter's own function. What is stored is the weights, 5,301
numbers of 32 bits in base64, and the chapter puts each through everything that it
measures. A run takes about two minutes of one core. Runs that are stored are kept. They
go to results/benchmarks/learned_optimizer.json.
"""

from __future__ import annotations

import base64
import sys

from further_runs import ROOT, code_of, seeds_of, store_runs
from torch import nn

NAME, CHAPTER = "benchmarks/learned_optimizer", "optimization/60_learned_optimizer"


def packed(module: nn.Module) -> str:
    "The weights of a module as text."
    weights = nn.utils.parameters_to_vector(module.parameters()).detach()
    return base64.b64encode(weights.numpy().tobytes()).decode()


def main() -> None:
    seeds, chapter = seeds_of(__doc__), code_of(CHAPTER, "train_lstm")
    store_runs(
        NAME,
        seeds,
        lambda seed: packed(chapter.train_lstm(seed)[0]),
        {"meta_steps": chapter.STEPS},
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
