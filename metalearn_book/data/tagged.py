"""Sentences with entity tags: readers of CrossNER, WNUT17, Broad Twitter, GUM and SEC
filings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .arguments import several
from .reading import read_text
from .labeled import LabeledTokens

__all__ = [
    "Sentence",
    "SETS",
    "tagged_reader",
    "read_sentences",
    "bio_error",
    "bio_from_types",
]

#: a sentence as a row
Sentence = tuple[list[str], list[str], str, str]  # tokens, BIO tags, part, domain
DOMAINS = ("ai", "literature", "music", "politics", "science")
SECTIONS = {
    "a": "uk",
    "b": "uk-undirected",
    "e": "disaster",
    "f": "public-figures",
    "g": "news",
    "h": "world",
}

#: for each set: files as (path, part, domain); a path with a star stands for several.
SETS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "crossner": tuple(
        (f"{d}/{file}.txt", part, d)
        for d in DOMAINS
        for file, part in (("train", "train"), ("dev", "validation"), ("test", "test"))
    ),
    "wnut17": (
        ("wnut17train.conll", "train", "web"),
        ("emerging.dev.conll", "validation", "web"),
        ("emerging.test.annotated", "test", "web"),
    ),
    "btc": tuple(
        (f"{letter}.conll", "all", section) for letter, section in SECTIONS.items()
    ),
    "gum": tuple((f"{d}/*.tsv", "all", d) for d in ("interview", "news", "voyage")),
    "sec_filings": (
        ("FIN5.txt", "train", "agreements"),
        ("FIN3.txt", "test", "agreements"),
    ),
}


def bio_error(tags: list[str]) -> str | None:
    """What is wrong with a sequence of BIO tags; None for a good one. `I-city` has to
    follow `B-city` or `I-city`.
    """
    before, tags = "O", several("tags", tags, str, least=0)
    for i, tag in enumerate(tags):
        if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
            return f"tag {tag!r} at token {i} is neither O nor B-type nor I-type"
        if tag[:2] == "I-" and before[2:] != tag[2:]:
            return (
                f"tag {tag!r} at token {i} follows {before!r}, but an entity opens "
                "with B-"
            )
        before = tag
    return None


def bio_from_types(types: list[str]) -> list[str]:
    "BIO tags from one type per token (`O` outside): equal neighbours are one entity."
    types = several("types", types, str, least=0)
    return [
        t if t == "O" else ("I-" if i and types[i - 1] == t else "B-") + t
        for i, t in enumerate(types)
    ]


def _lines(
    text: str, where: str, columns: int, separator: str | None
) -> Iterator[tuple[list[str], list[str]]]:
    """Blocks of lines between blank lines; the first column is the token, the last one
    its tag.
    """
    tokens: list[str] = []
    tags: list[str] = []
    for n, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if tokens:
                yield tokens, tags
            tokens, tags = [], []
            continue
        fields = line.split(separator)
        if (
            len(fields) == columns
            and not fields[0].strip()
            and fields[-1].strip() == "O"
        ):
            continue  # white space that is no token: four lines of the tweets
        if len(fields) != columns or not fields[0].strip() or not fields[-1].strip():
            raise ValueError(
                f"{where}, line {n}: expected {columns} columns, got {line[:40]!r}"
            )
        tokens.append(fields[0].strip())
        tags.append(fields[-1].strip())
    if tokens:
        yield tokens, tags


def read_sentences(
    name: str,  # crossner, wnut17, btc, gum or sec_filings
    folder: Path,  # the folder of this set
    read: Callable[[Path], str] = read_text,  # reads one file
) -> list[Sentence]:
    """All sentences of a set with BIO tags, part and domain. ValueError names the file
    and the line of anything else.
    """
    if not isinstance(name, str) or name not in SETS:
        raise ValueError(f"no tagged set {name!r}; there are {', '.join(SETS)}")
    rows: list[Sentence] = []
    columns, separator = (4, None) if name == "sec_filings" else (2, "\t")
    for pattern, part, domain in SETS[name]:
        paths = sorted(folder.glob(pattern)) if "*" in pattern else [folder / pattern]
        for path in paths or [folder / pattern]:
            where = str(path.relative_to(folder))
            for k, (tokens, tags) in enumerate(
                _lines(read(path), where, columns, separator)
            ):
                if name in ("gum", "sec_filings"):  # types without B and I, or I only
                    tags = bio_from_types([t.removeprefix("I-") for t in tags])
                if error := bio_error(tags):
                    raise ValueError(f"{where}, sentence {k}: {error}")
                rows.append((tokens, tags, part, domain))
    return rows


def tagged_reader(name: str) -> Callable[[Path], LabeledTokens]:
    "The reader of one of the `SETS`: a folder in, tagged sentences out."

    def read(folder: Path) -> LabeledTokens:
        tokens, tags, part, domain = (
            list(c) for c in zip(*read_sentences(name, folder, read_text))
        )
        return LabeledTokens(name, tokens, tags, part, "folder", domain)

    return read
