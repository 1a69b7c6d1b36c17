"""Readers of the sets that are texts with one label each: intents, topics, sentiment,
relations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .arguments import several
from .reading import broken, read_csv, read_json, read_lines_of_json, read_text
from .labeled import LabeledTexts
from .splits import part_of, read_split

__all__ = [
    "labeled_texts",
    "read_clinc150",
    "read_banking77",
    "read_hwu64",
    "read_huffpost",
    "read_uci_sentiment",
    "read_fewrel",
    "relations_of",
]

UCI_FILES = {
    "amazon": "amazon_cells_labelled.txt",
    "imdb": "imdb_labelled.txt",
    "yelp": "yelp_labelled.txt",
}
_CLINC_PARTS = {
    "train": "train",
    "val": "validation",
    "test": "test",
    "oos_train": "oos_train",
    "oos_val": "oos_validation",
    "oos_test": "oos_test",
}


def labeled_texts(
    name: str, rows: Sequence[tuple[str, str, str]], **more
) -> LabeledTexts:
    "`LabeledTexts` from rows of text, label and part; `more` are its other fields."
    rows = several("rows", rows, (tuple, list), least=0)
    for i, row in enumerate(rows):
        if len(row) != 3:
            raise ValueError(f"rows[{i}] must be (text, label, part), got {row!r}")
    texts, labels, part = (list(c) for c in zip(*rows)) if rows else ([], [], [])
    return LabeledTexts(name, texts, labels, part, **more)


def read_clinc150(folder: Path) -> LabeledTexts:
    "150 intents with their domains, and out-of-scope rows in parts of their own."
    path, data = folder / "data_full.json.gz", read_json(folder / "data_full.json.gz")
    lacking = [
        key for key in _CLINC_PARTS if not isinstance(data, dict) or key not in data
    ]
    if lacking:
        raise broken(path, f"key {lacking[0]!r} is missing")
    rows = [
        (text, label, part)
        for key, part in _CLINC_PARTS.items()
        for text, label in data[key]
    ]
    by_domain = read_json(folder / "domains.json")
    domains = {
        label: domain for domain, labels in by_domain.items() for label in labels
    }
    return labeled_texts("clinc150", rows, domains=domains, source="folder")


def read_banking77(folder: Path) -> LabeledTexts:
    "77 intents of a bank's customers."
    rows = [
        (r["text"].strip(), r["category"], part)
        for part in ("train", "test")
        for r in read_csv(folder / f"{part}.csv", ("text", "category"))
    ]
    return labeled_texts("banking77", rows, source="folder")


def read_hwu64(folder: Path) -> LabeledTexts:
    "64 intents of a home assistant; a label is `scenario_intent`."
    read = {
        part: read_csv(folder / f"{part}.csv", ("scenario", "intent", "text"))
        for part in ("train", "test")
    }
    rows = [
        (r["text"].strip(), f"{r['scenario']}_{r['intent']}", part)
        for part, records in read.items()
        for r in records
    ]
    domains = {
        f"{r['scenario']}_{r['intent']}": r["scenario"]
        for records in read.values()
        for r in records
    }
    return labeled_texts("hwu64", rows, domains=domains, source="folder")


def read_huffpost(folder: Path) -> LabeledTexts:
    """Headlines of 41 topics. The file numbers the topics in the order of the fixed
    split.
    """
    names, path = sum(read_split("huffpost").values(), []), folder / "huffpost.json.gz"
    try:
        rows = [(r["raw"], names[r["label"]], "all") for r in read_lines_of_json(path)]
    except (KeyError, IndexError, TypeError) as e:
        raise broken(
            path, f"a line is not a headline with a label ({type(e).__name__}: {e})"
        ) from e
    return labeled_texts("huffpost", rows, source="folder")


def read_uci_sentiment(folder: Path) -> LabeledTexts:
    "Review sentences of three domains, `positive` or `negative`."
    rows, domains = [], []
    for domain, file in UCI_FILES.items():
        for i, line in enumerate(read_text(folder / file).split("\n"), 1):
            if not line:
                continue
            text, tab, label = line.rpartition("\t")
            if not tab or label.strip() not in ("0", "1"):
                raise broken(folder / file, f"line {i} is not 'sentence<TAB>0 or 1'")
            rows.append(
                (
                    text.strip(),
                    "positive" if label.strip() == "1" else "negative",
                    "all",
                )
            )
            domains.append(domain)
    return labeled_texts("uci_sentiment", rows, source="folder", row_domains=domains)


# ---------------------------------------------------------------- relations


def _marked(tokens: list[str], head: list[int], tail: list[int]) -> str:
    "The sentence with its two entities between <h> </h> and <t> </t>."
    before = {head[0]: "<h> ", tail[0]: "<t> "}
    after = {head[-1]: " </h>", tail[-1]: " </t>"}
    return " ".join(
        before.get(i, "") + token + after.get(i, "") for i, token in enumerate(tokens)
    )


def _sentence(item: dict) -> str:
    "An instance of a relation; an entity's first mention is marked."
    return _marked(item["tokens"], item["h"][2][0], item["t"][2][0])


def read_fewrel(folder: Path) -> LabeledTexts:
    """Relations by their Wikidata id. Training and validation relations are in one
    file, the test relations in the other.
    """
    rows, parts = [], part_of("fewrel")
    for file in ("train_wiki_sample.json.gz", "val_wiki.json.gz"):
        for relation, items in read_json(folder / file).items():
            if relation not in parts:
                raise ValueError(
                    f"relation {relation!r} in {file} is not in the fixed split"
                )
            rows += [(_sentence(item), relation, parts[relation]) for item in items]
    return labeled_texts("fewrel", rows, source="folder")


def relations_of(name: str, file: str) -> Callable[[Path], LabeledTexts]:
    """A reader of another file of the FewRel collection, whose relations have names of
    their own.
    """

    def read(folder: Path) -> LabeledTexts:
        rows = [
            (_sentence(item), relation, "all")
            for relation, items in read_json(folder / file).items()
            for item in items
        ]
        return labeled_texts(name, rows, source="folder")

    return read
