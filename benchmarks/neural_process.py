"""Neural processes: the training runs beside the first one.

    python benchmarks/neural_process.py [--seeds 1 2]

The chapter on neural processes trains its learners with seed 0. This trains them with
further seeds, by the chapter's own functions, and with rates that the chapter's own
search chooses. Of each learner the means over test tasks are stored, which are drawn
anew for each seed. A run takes about two minutes of one core. Runs that are stored are
kept. They go to results/benchmarks/neural_process.json.
"""

from __future__ import annotations

import sys

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/neural_process", "model_based/20_neural_process"


def main() -> None:
    seeds, chapter = seeds_of(__doc__), code_of(CHAPTER, "one_run")
    rates, _ = chapter.search_rates()

    def run(seed: int) -> dict:
        _, scores = chapter.one_run(seed, rates)
        return {
            "gp": {
                name: {what: e.mean for what, e in row.items()}
                for name, row in scores.items()
            }
        }

    settings = {
        "steps": chapter.STEPS,
        "batch": chapter.BATCH,
        "width": chapter.WIDTH,
        "test": chapter.TEST,
        "rates": rates,
    }
    store_runs(NAME, seeds, run, settings)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
