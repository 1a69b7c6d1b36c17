"""What to adapt: the searches, and the training runs beside the first one.

    python benchmarks/what_to_adapt.py [--seeds 1 2]

The chapter compares MAML, ANIL, BOIL, Meta-SGD and MAML++ on sinusoids, on characters
and on short texts. It trains everything with seed 0. This makes the searches for the
inner rates and trains with further seeds, by the chapter's own code. All of it takes
some 20 minutes of one core. What is stored is kept, unless the chapter has other
settings now. The searches, with the outer steps that each took, and the numbers of each
run go to results/benchmarks/what_to_adapt.json.
"""

from __future__ import annotations

import sys

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/what_to_adapt", "optimization/30_what_to_adapt"
SINE, PARTS = "Sinusoids", "MAML++, part by part"
# by experiment: the headings of the chapter whose cells it does not need
EXPERIMENTS = {
    "sine": ("Check it",),
    "part": ("Check it", SINE),
    "image": ("Check it", SINE, PARTS),
    "text": ("Check it", SINE, PARTS, "Characters"),
}


def main() -> None:
    seeds, runs, search, settings = seeds_of(__doc__), {}, {}, {}
    for name, without in EXPERIMENTS.items():
        own = vars(code_of(CHAPTER, f"{name}_run", without))
        runs[name], settings[name] = own[f"{name}_run"], own[f"{name}_settings"]
        scores = {
            m: {f"{rate:g}": score for rate, score in by_rate.items()}
            for m, by_rate in own[f"{name}_scores"].items()
        }
        search[name] = {"steps": settings[name]["search"], "scores": scores}
    store_runs(
        NAME,
        seeds,
        lambda seed: {name: run(seed)[1] for name, run in runs.items()},
        settings,
        search=search,
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
