"""Prior-fitted networks: the training runs beside the first one.

    python benchmarks/prior_fitted.py [--seeds 1 2]

The chapter on prior-fitted networks trains one network on draws of a Gaussian process
and one on drawn tables, with seed 0. This trains both with further seeds, by the
chapter's own functions and with the rate that its own search chooses. Of each run the
gap to the exact posterior is stored, on draws of its own, and the log loss on the real
tables; with seed 0 the first network is also trained for a third and a ninth of
the steps. A run takes about five minutes of one core. Runs that are stored are kept.
They go to results/benchmarks/prior_fitted.json.
"""

from __future__ import annotations

import sys

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/prior_fitted", "model_based/30_prior_fitted"


def main() -> None:
    seeds, chapter = seeds_of(__doc__), code_of(CHAPTER, "one_run")
    rate, _ = chapter.search_rates()

    def run(seed: int) -> dict:
        *_, scores, on_tables = chapter.one_run(seed, rate)
        return {what: e.mean for what, e in scores.items()} | {
            "log loss": {f"{t}, {n}": v["log loss"].mean
                         for (t, n), v in on_tables.items()}
        }  # fmt: skip

    settings = {
        "steps": chapter.STEPS,
        "table_steps": chapter.TABLE_STEPS,
        "batch": chapter.BATCH,
        "width": chapter.WIDTH,
        "bars": chapter.N_BARS,
        "test": chapter.TEST,
        "rate": rate,
    }
    curve = {}
    for steps in (chapter.STEPS // 9, chapter.STEPS // 3):
        made = chapter.function_net, chapter.functions, steps, rate, 0, chapter.BATCH
        short, _ = chapter.trained(*made)
        curve[str(steps)] = chapter.function_scores(short, 0)["gap"].mean
        print(f"{steps} steps: {curve[str(steps)]:.4f} nats", flush=True)
    store_runs(NAME, seeds, run, settings, over_steps=curve)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
