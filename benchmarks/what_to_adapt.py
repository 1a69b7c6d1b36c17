"""What to adapt: the searches, and the training runs beside the first one.

    python benchmarks/what_to_adapt.py [--seeds 1 2]

The chapter compares MAML, ANIL, BOIL, Meta-SGD and MAML++ on sinusoids, on characters
and on short texts. It trains everything with seed 0. This makes the searches for the
inner rates and trains with further seeds, by the chapter's own code. All of it takes
some minutes of one core. What is stored is kept; remove the file to make it again. The
searches and the numbers of each run go to results/benchmarks/what_to_adapt.json.
"""

from __future__ import annotations

import sys

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/what_to_adapt", "optimization/30_what_to_adapt"
SINE, IMAGES = "Sinusoids", "Characters"
EXPERIMENTS = {
    "sine": ("sine_run", ("Check it",)),
    "images": ("image_run", ("Check it", SINE)),
    "text": ("text_run", ("Check it", SINE, IMAGES)),
}


def main() -> None:
    seeds, runs, search, rates = seeds_of(__doc__), {}, {}, {}
    for name, (until, without) in EXPERIMENTS.items():
        chapter = code_of(CHAPTER, until, without)
        own = vars(chapter)
        prefix = until.removesuffix("_run")
        runs[name], rates[name] = own[until], own[f"{prefix}_rates"]
        scores = own[f"{prefix}_scores"]
        search[name] = {m: list(by.values()) for m, by in scores.items()}
    store_runs(
        NAME,
        seeds,
        lambda seed: {name: run(seed)[1] for name, run in runs.items()},
        rates,
        search=search,
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
