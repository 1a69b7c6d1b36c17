"""Texts with marked spans: entities with a sentiment, the slots of a request. Container
and readers (SNIPS, NLU++, Restaurants-8k, FinEntity).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from .reading import broken, read_bytes, read_json
from .rows import Rows
from .splits import part_of

__all__ = [
    "Span",
    "SpanTexts",
    "DescribedTexts",
    "read_snips",
    "read_nlupp",
    "read_restaurant8k",
    "read_finentity",
]

INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
FOLDS = 20  # of each domain of NLU++


class Span(NamedTuple):
    """A marked piece of a text: `text[start:end]` is `text`; `end` is exclusive.

    label: what the piece is, such as the name of a slot.
    """

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True)
class SpanTexts(Rows):
    """Texts with labelled spans, and labels of the whole text where the set has them.

    texts: one text a row.
    labels: the labels of each text: one intent (SNIPS), several or none (NLU++); empty
    where only spans are labelled.
    spans: the spans of each text, by their start.
    part: the part of each row.
    source: `folder`, `upstream` or `hub`.
    row_domains: the domain of each row (NLU++: banking, hotels).
    asked: the slots that the system had asked for just before (Restaurants-8k).
    folds: the fold of each row, `0` to `19` (NLU++).

    ValueError: a span whose text is not what stands at its place.
    """

    texts: list[str]
    labels: list[tuple[str, ...]]
    spans: list[tuple[Span, ...]]
    part: list[str]
    source: str
    row_domains: list[str] | None = None
    asked: list[tuple[str, ...]] | None = None
    folds: list[str] | None = None
    COLUMNS: ClassVar = (
        "texts",
        "labels",
        "spans",
        "part",
        "row_domains",
        "asked",
        "folds",
    )

    def __post_init__(self):
        self._check_columns()
        for i, (text, spans) in enumerate(zip(self.texts, self.spans)):
            for span in spans:
                if not span.text or text[span.start : span.end] != span.text:
                    raise ValueError(
                        f"{self.name}, text {i}: the span from {span.start} to "
                        f"{span.end} ({span.label}) is not the text there"
                    )

    @property
    def classes(self) -> list[str]:
        "The labels of whole texts, sorted; empty where only spans are labelled."
        return sorted({label for labels in self.labels for label in labels})

    @property
    def span_classes(self) -> list[str]:
        "The labels of spans, sorted."
        return sorted({span.label for spans in self.spans for span in spans})

    def where(
        self, part=None, classes=None, span_classes=None, domain=None, fold=None
    ) -> SpanTexts:
        """The rows of these parts, with one of these labels, with a span of one of
        these labels (`span_classes`), of these domains, of these folds; the order is
        kept.
        """
        found = [{span.label for span in spans} for spans in self.spans]
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, self.labels, "classes"),
            ("span class", span_classes, found, "spans"),
            ("domain", domain, self.row_domains, "domains"),
            ("fold", fold, self.folds, "folds"),
        )


@dataclass(frozen=True)
class DescribedTexts(SpanTexts):
    """Texts whose labels come with a sentence each (NLU++).

    descriptions: what each label of a whole text means, as the set says it.
    """

    descriptions: dict[str, str] | None = None


def _columns(rows: Iterator[tuple]) -> list[list]:
    return [list(column) for column in zip(*rows)]


# ---------------------------------------------------------------- SNIPS


def _pieces(pieces: list[dict]) -> tuple[str, tuple[Span, ...]]:
    """The text of joined pieces, without white space around it, and the spans of the
    pieces that are slots.
    """
    whole = "".join(piece["text"] for piece in pieces)
    first = len(whole) - len(whole.lstrip())
    spans, at = [], 0
    for piece in pieces:
        value = piece["text"].strip()
        if "entity" in piece and value:
            start = at + piece["text"].index(value) - first
            spans.append(Span(start, start + len(value), piece["entity"], value))
        at += len(piece["text"])
    return whole.strip(), tuple(spans)


def _snips_json(path: Path):
    """The value of a JSON file. One text holds an emoji as a pair of surrogates in
    UTF-8, which strict decoding refuses.
    """
    try:
        text = read_bytes(path).decode("utf-8", "surrogatepass")
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16"))
    except ValueError as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e


def read_snips(folder: Path) -> SpanTexts:
    "Seven intents with slots; `train` and `validation`."

    def rows():
        for part, file in (("train", "train_{}_full"), ("validation", "validate_{}")):
            for intent in INTENTS:
                for item in _snips_json(folder / f"{file.format(intent)}.json.gz")[
                    intent
                ]:
                    text, spans = _pieces(item["data"])
                    yield text, (intent,), spans, part

    texts, labels, spans, part = _columns(rows())
    return SpanTexts("snips", texts, labels, spans, part, "folder")


# ---------------------------------------------------------------- NLU++


def read_nlupp(folder: Path) -> DescribedTexts:
    """Requests with several intents or none and with slots, of two domains in 20 folds
    each, and the descriptions of the intents.
    """

    def rows():
        for domain in ("banking", "hotels"):
            for fold in range(FOLDS):
                for item in read_json(folder / domain / f"fold{fold}.json"):
                    spans = [
                        Span(*slot["span"], name, slot["text"])
                        for name, slot in item.get("slots", {}).items()
                    ]
                    yield (
                        item["text"],
                        tuple(item.get("intents", ())),
                        tuple(sorted(spans)),
                        "all",
                        domain,
                        str(fold),
                    )

    texts, labels, spans, part, domains, folds = _columns(rows())
    about = read_json(folder / "ontology.json")["intents"]
    return DescribedTexts(
        "nlupp",
        texts,
        labels,
        spans,
        part,
        "folder",
        domains,
        folds=folds,
        descriptions={name: intent["description"] for name, intent in about.items()},
    )


# ---------------------------------------------------------------- Restaurants-8k


def read_restaurant8k(folder: Path) -> SpanTexts:
    "What a guest says when booking a table; five slots; `train` and `test`."

    def rows():
        for part, file in (("train", "train_0.json.gz"), ("test", "test.json.gz")):
            for item in read_json(folder / file):
                text, spans = item["userInput"]["text"], []
                for label in item.get("labels", []):
                    place = label["valueSpan"]  # a start of 0 is left out
                    start, end = place.get("startIndex", 0), place["endIndex"]
                    while text[start] == " ":  # five spans start too early
                        start += 1
                    spans.append(Span(start, end, label["slot"], text[start:end]))
                asked = item.get("context", {}).get("requestedSlots", ())
                yield text, (), tuple(sorted(spans)), part, tuple(asked)

    texts, labels, spans, part, asked = _columns(rows())
    return SpanTexts("restaurant8k", texts, labels, spans, part, "folder", asked=asked)


# ---------------------------------------------------------------- FinEntity


def _placed(text: str, start: int, value: str, taken: set[int]) -> int | None:
    """The start of the occurrence of a value nearest to a given start, if possible one
    that is not taken; None if there is none.
    """
    starts, at = [], text.find(value)
    while at >= 0:
        starts.append(at)
        at = text.find(value, at + 1)
    return min(starts, key=lambda s: (s in taken, abs(s - start)), default=None)


def finentity(records: list[dict], source: str) -> SpanTexts:
    """FinEntity from its records, in their order, which the fixed split counts by.

    Some offsets of the file are a few characters off; such a span is moved to the
    nearest occurrence of its text.
    """
    parts = part_of("finentity")
    texts, spans = [], []
    for i, record in enumerate(records):
        text, found = record["content"], []
        good = {
            a["start"]
            for a in record["annotations"]
            if text.startswith(a["value"], a["start"])
        }
        for a in record["annotations"]:
            start = a["start"]
            if start not in good:
                start = _placed(
                    text, start, a["value"], good | {s.start for s in found}
                )
            if start is None:
                raise ValueError(
                    f"record {i}: an annotated entity does not occur in the text"
                )
            found.append(Span(start, start + len(a["value"]), a["label"], a["value"]))
        texts.append(text)
        spans.append(tuple(sorted(found)))
    part = [parts[i] for i in range(len(texts))]
    return SpanTexts("finentity", texts, [()] * len(texts), spans, part, source)


def read_finentity(folder: Path) -> SpanTexts:
    "Sentiment towards each named company in passages of financial news."
    path = folder / "FinEntity.json.gz"
    records = read_json(path)
    if len(records) != len(part_of("finentity")):
        raise broken(
            path, f"{len(records):,} records, expected {len(part_of('finentity')):,}"
        )
    return finentity(records, "folder")
