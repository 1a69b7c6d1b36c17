"""LEO and its rivals: the training runs beside the first one.

    python benchmarks/latent.py [--seeds 1 2]

The chapter on latent embeddings trains every learner with seed 0. This makes its search
on validation classes and trains with further seeds, by the chapter's own code. What is
stored is kept as long as the chapter's lists, steps and choices are the same. The
search and the means go to results/benchmarks/latent.json.
"""

from __future__ import annotations

import sys

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/latent", "optimization/50_latent"


def main() -> None:
    seeds, chapter = seeds_of(__doc__), code_of(CHAPTER, "one_run")
    store_runs(
        NAME,
        seeds,
        lambda seed: {key: v.mean for key, v in chapter.one_run(seed)[1].items()},
        chapter.settings,
        search=chapter.search,
        searched=chapter.SEARCHED,
    )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
