"""Memory: the training runs beside the first one, and the variants.

    python benchmarks/memory.py [--seeds 1 2]

The chapter on memory trains an LSTM and a memory-augmented network, with a tied start
and with a free one, with seed 0. This chooses the outer rate of each by a search on
validation characters, trains further seeds by the chapter's own functions, and trains
variants, one seed each, with a third of the steps: fed with pixels, with labels alone,
as published. The searches take about four minutes of one core, a run about three, the
variants about four. What is done is kept under _build/memory and in
results/benchmarks/memory.json, and a restart goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable

from further_runs import ROOT, code_of, seeds_of, store_runs

from metalearn_book.data.files import made as whole_file

NAME, CHAPTER = "benchmarks/memory", "model_based/10_memory"
AS_PUBLISHED = {"pairs": False, "own_write": False, "feedback": True, "floor": 0.0}
AS_PUBLISHED |= {"strength": 1.0, "learn_strength": False, "heads": 4}
#: name -> learner, whether it reads pixels, and its options
VARIANTS = {
    "LSTM": ("LSTM", False, {}),
    "LSTM, label alone": ("LSTM", False, {"pairs": False}),
    "LSTM, pixels": ("LSTM", True, {}),
    "MANN": ("MANN", False, {}),
    "MANN, label alone": ("MANN", False, {"pairs": False}),
    "MANN, pixels": ("MANN", True, {}),
    "MANN, as published": ("MANN", False, AS_PUBLISHED),
}


def once(what: str, settings: dict, make: Callable[[], dict]) -> dict:
    "What `make` gives, kept in a file of these settings."
    text = json.dumps([what, settings], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = ROOT / "_build" / "memory" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        found = json.dumps(make())
        with whole_file(path) as part:  # all of it, or nothing
            part.write_text(found)
    return json.loads(path.read_text())


def rounded(values) -> list[float]:
    "Shares of a few answers, without the digits that single precision adds."
    return [round(v, 4) for v in values.tolist()]


def one_seed(chapter, rates: dict, seed: int) -> dict:
    "All learners: accuracies of the test sequences, validation curve, seconds."
    made = chapter.one_run(seed, rates)
    return {
        "values": {
            name: {str(k): rounded(e.values) for k, e in found.items()}
            for name, (_, _, _, found) in made.items()
        },
        "curve": {n: [h.val_step, h.val] for n, (_, h, _, _) in made.items()},
        "seconds": {n: took for n, (_, _, took, _) in made.items()},
    }


def variant(chapter, rates: dict, name: str) -> dict:
    "One seed of a variant: accuracies of the test sequences as means with intervals."
    kind, on_pixels, more = VARIANTS[name]
    what = chapter.pixel_rows if on_pixels else chapter.features
    more = more | {"dim": what["train"].shape[1]}
    steps, began = chapter.STEPS[kind] // 3, time.process_time()
    learner, history = chapter.trained(kind, steps, rates[kind], 0, what, **more)
    found = chapter.measured(learner, 0, what)
    return {
        "steps": steps,
        "accuracy": {str(k): [e.mean, e.ci95] for k, e in found.items()},
        "curve": [history.val_step, history.val],
        "seconds": time.process_time() - began,
    }


def main() -> None:
    seeds, chapter = seeds_of(__doc__), code_of(CHAPTER, "one_run")
    if chapter.image_name != "omniglot":
        raise SystemExit(
            "Omniglot is not available: set METALEARN_DATA to the folder that holds "
            "it, or connect to the network"
        )
    settings = {
        "steps": chapter.STEPS,
        "batch": chapter.BATCH,
        "width": chapter.WIDTH,
        "memory": chapter.MEMORY,
        "test": chapter.TEST,
    }
    tried = settings | {"rates": chapter.RATES}
    search = once("search", tried, chapter.search_rates)
    settings["rates"] = {n: chapter.chosen(f) for n, f in search.items()}
    print(search, settings["rates"], flush=True)

    def run(seed: int) -> dict:
        return one_seed(chapter, settings["rates"], seed)

    store_runs(NAME, seeds, run, settings, search=search)
    variants = {}
    for name in VARIANTS:
        variants[name] = once(
            name, settings, lambda name=name: variant(chapter, settings["rates"], name)
        )
        print(name, variants[name]["accuracy"]["2"], flush=True)
        store_runs(NAME, seeds, run, settings, search=search, variants=variants)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
