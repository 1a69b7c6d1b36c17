"""Makes the starts that come with the package, and measures what their rank costs.

    python benchmarks/starts.py [intents] [entities] [--again]

`make starts` runs it. It needs the data sets, trains two encoders and compresses the
change of their weights, in about ten minutes of one core. What was
trained is kept under _build/starts, so that another rank costs no training; --again
trains anew. The files go to metalearn_book/starts, the numbers to
results/benchmarks/starts.json. The same versions on the same machine with one thread
give the same file; other machines round differently.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from metalearn_book import __version__
from metalearn_book.book.results import load_results, save_results, versions
from metalearn_book.case_studies.starts import Start, compress, weights_sha256
from metalearn_book.case_studies.text_classification import draw_shots, train_encoder
from metalearn_book.case_studies.text_meta_training import without_copies
from metalearn_book.case_studies.tuned_taggers import train_on_sources
from metalearn_book.case_studies.word_vectors import WordModel
from metalearn_book.data import class_split, load_dataset_by_name
from metalearn_book.data.files import checksum, made
from metalearn_book.foundations.encoders import NearestPrototype, TextEncoder
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.tasks import ClassTasks

ROOT = Path(__file__).resolve().parent.parent
KEPT, SHIPPED = ROOT / "_build" / "starts", ROOT / "metalearn_book" / "starts"
RANK, RANKS, N_EPISODES, PER_CLASS = 16, (1, 2, 4, 8, 16), 300, 25
INTENTS = ("banking77", "clinc150", "hwu64")
DOMAINS = ("literature", "music")
RECIPES = {
    "intents": {
        "steps": 200,
        "n_classes": 16,
        "per_class": 4,
        "lr": 1e-4,
        "layers": 3,
        "seed": 0,
    },
    "entities": {
        "steps": 160,
        "batch_size": 16,
        "lr": 1e-4,
        "head_lr": 2e-3,
        "seed": 0,
    },
}
#: licence of each source, as its authors give it, and whom to name
LICENCES = {
    "banking77": ("CC BY 4.0", "Casanueva et al. 2020"),
    "clinc150": ("CC BY 3.0", "Larson et al. 2019"),
    "hwu64": ("CC BY 4.0", "Liu et al. 2019"),
    "crossner": ("MIT; sentences from Wikipedia, CC BY-SA", "Liu et al. 2021"),
}


def source_of(data, name: str, left_out: int, **more) -> dict:
    "What the record of a start says about one set."
    licence, credit = LICENCES[name]
    rows = data.texts if hasattr(data, "texts") else data.tokens
    tags = data.labels if hasattr(data, "texts") else data.tags
    return {
        "texts": len(rows),
        "classes": len(data.classes),
        "classes_left_out": left_out,
        "licence": licence,
        "credit": credit,
        "sha256": checksum({"rows": list(rows), "labels": list(tags)}),
        **more,
    }


def intent_sets() -> dict:
    """Training classes of all sets, from their training parts, without copies of test
    texts of any of them."""
    test = [t for n in INTENTS for t in load_dataset_by_name(n, part="test").texts]
    found = {}
    for n in INTENTS:
        d = load_dataset_by_name(n, part="train")
        d = d.where(classes=class_split(n)["train"])
        found[n] = d, without_copies(d.texts, d.labels, test)
    return found


def train_intents(encoder: TextEncoder) -> dict[str, Tensor]:
    sets = [rows for _, rows in intent_sets().values()]
    return train_encoder(encoder, sets, **RECIPES["intents"]).model.state_dict()


def train_entities(encoder: TextEncoder) -> dict[str, Tensor]:
    data, model = load_dataset_by_name("crossner"), WordModel(encoder)
    pools = {d: data.where(domain=d) for d in DOMAINS}
    train_on_sources(model, pools, **RECIPES["entities"])
    return model.state_dict()


def sources_of(name: str) -> dict:
    "What the record of a start says about its data."
    if name == "intents":
        return {
            n: source_of(
                d, n, len(class_split(n)["test"] + class_split(n)["validation"])
            )
            | {"texts": len(rows[0]), "part": "train, without copies of test texts"}
            for n, (d, rows) in intent_sets().items()
        }
    data = load_dataset_by_name("crossner")
    every = set(data.classes)
    return {
        f"crossner, {d}": source_of(some, "crossner", len(every - set(some.classes)))
        | {"part": f"all sentences of the domain {d}"}
        for d in DOMAINS
        for some in [data.where(domain=d)]
    }


def trained(name: str, train: Callable, again: bool) -> dict[str, Tensor]:
    "Weights after training, kept in _build/starts."
    path, began = KEPT / f"{name}.pt", time.process_time()
    if again or not path.exists():
        print(f"{name}: training", flush=True)
        state = train(load_encoder("minilm"))
        minutes = (time.process_time() - began) / 60
        print(f"{name}: trained in {minutes:.1f} minutes of one core", flush=True)
        with made(path) as part:
            torch.save(state, part)
    return torch.load(path, weights_only=True)


def start_of(name: str, before: dict, after: dict, rank: int) -> Start:
    about = {
        "name": name,
        "kind": "encoder" if name == "intents" else "tagger",
        "encoder": "minilm",
        "base_sha256": weights_sha256(load_encoder("minilm")),
        "rank": rank,
        "recipe": RECIPES[name],
        "sources": sources_of(name),
        "splits": "metalearn_book/data/splits",
        "licence": "the package's; the sources ask for attribution, see `sources`",
        "command": f"python benchmarks/starts.py {name}",
        "package": __version__,
        "versions": versions(),
    }
    about["made"] = checksum(about)  # how it was made, apart from the tensors
    return Start(compress(before, after, rank), about)


def accuracies(encoder: TextEncoder) -> dict:
    "5-way 1-shot accuracy of class means on test classes, 25 texts of each."
    found = {}
    for n in INTENTS:
        d = load_dataset_by_name(n).where(classes=class_split(n)["test"])
        d = d.where(part="test") if n != "hwu64" else d
        d = d._keep(draw_shots(d.labels, PER_CLASS, 0, exact=False))
        tasks = ClassTasks(encoder.encode(d.texts, 32), d.labels, 5, 1, 15)
        found[n] = evaluate(NearestPrototype(), tasks, N_EPISODES)
    return found


def rank_curve(start: Callable[[int], Start], full: dict) -> dict:
    "Accuracy by rank, of the encoder as it is, and of the full change."
    plain, other = load_encoder("minilm"), load_encoder("minilm")
    numbers = {"episodes": N_EPISODES, "per_class": PER_CLASS, "ranks": {}}
    numbers["frozen"] = {"megabytes": 0.0, **accuracies(plain)}
    for rank in RANKS:
        one = start(rank)
        size = sum(t.nbytes for t in one.tensors.values()) / 1e6
        numbers["ranks"][str(rank)] = {"megabytes": size}
        numbers["ranks"][str(rank)] |= accuracies(one.applied(plain))
        print(f"rank {rank}: {size:.2f} MB", flush=True)
    other.model.load_state_dict(full)
    moved = [n for n, t in plain.model.state_dict().items() if not t.equal(full[n])]
    size = sum(full[n].nbytes for n in moved) / 1e6
    numbers["full"] = {"megabytes": size, **accuracies(other)}
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", choices=list(RECIPES), default=[])
    parser.add_argument("--again", action="store_true", help="train anew")
    options = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    numbers = load_results("benchmarks/starts", missing={"numbers": {}})["numbers"]
    for name in options.names or RECIPES:
        train = {"intents": train_intents, "entities": train_entities}[name]
        after = trained(name, train, options.again)
        encoder = load_encoder("minilm")
        base = encoder.model if name == "intents" else WordModel(encoder)
        before = {n: t.detach() for n, t in base.state_dict().items()}
        start = lambda rank: start_of(name, before, after, rank)
        path = start(RANK).save(SHIPPED / f"{name}.safetensors")
        print(
            f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB", flush=True
        )
        if name == "intents":
            numbers[name] = rank_curve(start, after)
        config = {"rank": RANK, "recipes": RECIPES}
        save_results("benchmarks/starts", numbers, seed=0, config=config)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
