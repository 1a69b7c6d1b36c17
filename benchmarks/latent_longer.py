"""LEO and its rivals: trainings that are too long for the chapter.

    python benchmarks/latent_longer.py [--seeds 0 1 2]

By the code and with the choices of the chapter on latent embeddings: every
meta-learner with three times the outer steps, and LEO on sentences with a code twice as
long as the longest of its list. A seed takes some minutes of one core. What is stored
is kept as long as the chapter's choices are the same. The means go to
results/benchmarks/latent_longer.json.
"""

from __future__ import annotations

import sys
from types import ModuleType

from further_runs import ROOT, code_of, seeds_of, store_runs

NAME, CHAPTER = "benchmarks/latent_longer", "optimization/50_latent"
TIMES, LENGTH = 3, 256


def longer(chapter: ModuleType, seed: int) -> dict[str, float]:
    "Accuracies on new classes, by name."
    steps, found = TIMES * chapter.META_STEPS, {}
    before = len(chapter.STARTED_AGAIN)
    for bed, tasks in chapter.beds.items():
        for name in chapter.META_LEARNERS:
            key, dim = f"{bed}, {name}", chapter.DIMS[bed]
            # looked at on validation classes as often as in the chapter
            rounds = {"steps": steps, "rounds": 4 * TIMES}
            options = rounds | chapter.chosen[key]
            learner = chapter.trained(name, tasks, dim, seed, **options)
            accuracy = chapter.accuracy_of(learner, tasks, "test", seed)
            found[f"{key}, {steps} steps"] = accuracy.mean
    tasks, dim = chapter.beds["sentences"], chapter.DIMS["sentences"]
    options = chapter.chosen["sentences, LEO"] | {"latent_dim": LENGTH}
    leo = chapter.trained("LEO", tasks, dim, seed, **options)
    accuracy = chapter.accuracy_of(leo, tasks, "test", seed)
    found[f"sentences, LEO, length {LENGTH}"] = accuracy.mean
    found["started again"] = len(chapter.STARTED_AGAIN) - before
    return found


def main() -> None:
    seeds, chapter = seeds_of(__doc__, [0, 1, 2]), code_of(CHAPTER, "one_run")
    store_runs(NAME, seeds, lambda seed: longer(chapter, seed), chapter.settings)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
