"""Memory: the training runs beside the first one, and the variants.

    python benchmarks/memory.py [--seeds 1 2] [--only seeds|variants]

The chapter on memory trains an LSTM and a memory-augmented network with seed 0. This
chooses the outer rate of each by a search on validation characters, trains further
seeds by the chapter's own functions, and trains variants of both, one seed each, with a
third of the steps: fed with pixels, with labels alone, as published. Searches, runs and
variants that are stored are kept. A run takes about five minutes of one core, the
variants about ten. They go to results/benchmarks/memory.json, the variants to
results/benchmarks/memory_variants.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from further_runs import ROOT, code_of, store_runs

from metalearn_book.data.files import made as whole_file

NAME, CHAPTER = "benchmarks/memory", "model_based/10_memory"


def searched(chapter) -> dict:
    "Validation accuracies by learner and rate; kept in a file between two calls."
    path = ROOT / "_build" / "memory" / f"search-{chapter.STEPS}-{chapter.RATES}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        text = json.dumps(chapter.search_rates())
        with whole_file(path) as part:
            part.write_text(text)
    return json.loads(path.read_text())


def further_seeds(chapter, search: dict, rates: dict, seeds: list[int]) -> None:
    "Both learners with each seed: accuracies of the test sequences, curve, seconds."

    def run(seed: int) -> dict:
        made = chapter.one_run(seed, rates)
        return {
            "values": {
                name: {str(k): e.values.tolist() for k, e in found.items()}
                for name, (_, _, _, found) in made.items()
            },
            "curve": {n: [h.val_step, h.val] for n, (_, h, _, _) in made.items()},
            "seconds": {n: took for n, (_, _, took, _) in made.items()},
        }

    settings = {
        "steps": chapter.STEPS,
        "batch": chapter.BATCH,
        "width": chapter.WIDTH,
        "memory": chapter.MEMORY,
        "test": chapter.TEST,
        "rates": rates,
    }
    store_runs(NAME, seeds, run, settings, search=search)


def variants(chapter, rates: dict) -> None:
    "One seed of each variant; the accuracies of the test sequences as means."
    as_published = {"pairs": False, "own_write": False, "feedback": True}
    as_published |= {"floor": 0.0, "strength": 1.0, "heads": 4}
    made = {
        "LSTM": ("LSTM", False, {}),
        "LSTM, label alone": ("LSTM", False, {"pairs": False}),
        "LSTM, pixels": ("LSTM", True, {}),
        "MANN": ("MANN", False, {}),
        "MANN, label alone": ("MANN", False, {"pairs": False}),
        "MANN, pixels": ("MANN", True, {}),
        "MANN, feedback": ("MANN", False, {"feedback": True}),
        "MANN, as published": ("MANN", False, as_published),
    }
    names = list(made)

    def run(number: int) -> dict:
        name, on_pixels, more = made[names[number]]
        what = chapter.pixel_rows if on_pixels else chapter.features
        more = more | {"dim": what["train"].shape[1]}
        steps, began = chapter.STEPS[name] // 3, time.process_time()
        learner, history = chapter.trained(name, steps, rates[name], 0, what, **more)
        found = chapter.measured(learner, 0, what)
        return {
            "name": names[number],
            "steps": steps,
            "accuracy": {str(k): [e.mean, e.ci95] for k, e in found.items()},
            "curve": [history.val_step, history.val],
            "seconds": time.process_time() - began,
        }

    settings = {"steps": chapter.STEPS, "rates": rates, "names": names}
    store_runs(f"{NAME}_variants", list(range(len(names))), run, settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", choices=["seeds", "variants"])
    args = parser.parse_args()
    chapter = code_of(CHAPTER, "one_run")
    if chapter.image_name != "omniglot":
        raise SystemExit(
            "Omniglot is not available: set METALEARN_DATA to the folder that holds "
            "it, or connect to the network"
        )
    search = searched(chapter)
    rates = {n: float(max(found, key=found.get)) for n, found in search.items()}
    print(search, rates, flush=True)
    if args.only != "variants":
        further_seeds(chapter, search, rates, args.seeds)
    if args.only != "seeds":
        variants(chapter, rates)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
