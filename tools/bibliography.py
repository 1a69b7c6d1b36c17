"""Reads references.bib: a small subset of BibTeX (`@type{key, name = {value}, ...}`),
standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIB = ROOT / "references.bib"

#: fields that an entry of each type must have, next to one of eprint, doi or url
NEEDED = {
    "article": ("author", "title", "journal", "year"),
    "inproceedings": ("author", "title", "booktitle", "year"),
    "misc": ("author", "title", "year"),
    "book": ("author", "title", "publisher", "year"),
    "phdthesis": ("author", "title", "school", "year"),
    "mastersthesis": ("author", "title", "school", "year"),
    "techreport": ("author", "title", "institution", "year"),
}
PARTICLES = {"van", "von", "de", "der", "den", "la", "le", "di", "da", "dos"}


@dataclass(frozen=True)
class Entry:
    "One work: its key, its type, its fields, and the line where it starts."

    key: str
    type: str
    fields: dict[str, str]
    line: int = 0

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")


def _closing(text: str, start: int) -> int:
    "Index of the brace that closes the one at `start`."
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    line = text.count("\n", 0, start) + 1
    raise ValueError(f"references.bib: the brace opened in line {line} is never closed")


def parse(text: str) -> list[Entry]:
    "All entries in order; ValueError for what is not an entry of the supported form."
    entries, at = [], 0
    while (
        head := re.compile(r"@(\w+)\s*\{\s*([^\s,]+)\s*,").search(text, at)
    ) is not None:
        line = text.count("\n", 0, head.start()) + 1
        end = _closing(text, text.index("{", head.start()))
        fields, i = {}, head.end()
        while (
            field := re.compile(r"\s*([\w-]+)\s*=\s*").match(text, i)
        ) is not None and field.end() < end:
            i, name = field.end(), field[1].lower()
            if text[i] == "{":
                stop = _closing(text, i)
                value = text[i + 1 : stop]
            elif (bare := re.compile(r"\w+").match(text, i)) is not None:
                value, stop = bare[0], bare.end() - 1
            else:
                raise ValueError(
                    f"references.bib, entry {head[2]}: "
                    f"field {name} must be written {{value}}"
                )
            if name in fields:
                raise ValueError(
                    f"references.bib, entry {head[2]}: field {name} is given twice"
                )
            fields[name] = " ".join(value.split())
            i = re.compile(r"\s*,?").match(text, stop + 1).end()
        if text[i:end].strip():
            raise ValueError(
                f"references.bib, entry {head[2]} (line {line}): "
                f"can't read {text[i:end].strip()[:40]!r}"
            )
        entries.append(Entry(head[2], head[1].lower(), fields, line))
        at = end + 1
    return entries


def load(path: Path = BIB) -> list[Entry]:
    return parse(path.read_text(encoding="utf-8")) if path.exists() else []


def normal(address: str) -> str:
    """One form for the many addresses of a work: `arxiv:1703.03400`, `doi:10.1/x`,
    `acl:P19-1542`, or the bare URL."""
    address = address.strip().rstrip("/")
    for pattern, prefix in (
        (
            r"^https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/([\w.\-/]+?)(?:v\d+)?(?:\.pdf)?$",
            "arxiv:",
        ),
        (r"^https?://(?:dx\.)?doi\.org/(.+)$", "doi:"),
        (
            r"^https?://(?:www\.)?acl(?:anthology\.org|web\.org/anthology)/([\w.\-]+?)(?:v\d+)?(?:\.pdf)?$",
            "acl:",
        ),
    ):
        if found := re.match(pattern, address, re.I):
            return prefix + found[1].lower()
    return re.sub(r"^https?://(www\.)?", "", address.split("#")[0].rstrip("/"))


def addresses(entry: Entry) -> list[str]:
    "Every normal address by which a chapter may link to the work."
    found = [normal(entry["url"])] if entry["url"] else []
    if entry["eprint"]:
        found.append("arxiv:" + entry["eprint"].lower())
    if entry["doi"]:
        doi = entry["doi"].lower()
        found.append("doi:" + doi)
        if doi.startswith("10.18653/v1/"):
            found.append("acl:" + doi.removeprefix("10.18653/v1/"))
        if doi.startswith("10.48550/arxiv."):
            found.append("arxiv:" + doi.removeprefix("10.48550/arxiv."))
    return list(dict.fromkeys(found))


def index(entries: list[Entry]) -> dict[str, str]:
    "Normal address -> key."
    return {address: entry.key for entry in entries for address in addresses(entry)}


def is_scholarly(url: str) -> bool:
    "Does this link look like a citation? Then references.bib must know it."
    return bool(
        re.match(
            r"^https?://(www\.|dx\.|export\.)?(arxiv\.org/(abs|pdf|html)/|doi\.org/|aclanthology\.org/[A-Z\d]|aclweb\.org/anthology/|openreview\.net/(forum|pdf)|"
            r"proceedings\.mlr\.press/v\d+/.|jmlr\.org/papers/.|papers\.nips\.cc/paper|proceedings\.neurips\.cc/paper)",
            url,
            re.I,
        )
    )


def plain(text: str) -> str:
    "A field without BibTeX's braces and escapes."
    return (
        text.replace("\\&", "&")
        .replace("{", "")
        .replace("}", "")
        .replace("--", "–")
        .replace("~", " ")
    )


def _name(author: str) -> tuple[str, str]:
    "(family, given) of `Family, Given` or `Given Family`."
    if "," in author:
        family, given = (part.strip() for part in author.split(",", 1))
        return family, given
    words = author.split()
    cut = next(
        (i for i, w in enumerate(words[:-1]) if i and w.lower() in PARTICLES),
        len(words) - 1,
    )
    return " ".join(words[cut:]), " ".join(words[:cut])


def authors(entry: Entry) -> list[tuple[str, str]]:
    return [_name(plain(a)) for a in re.split(r"\s+and\s+", entry["author"]) if a]


def short_authors(entry: Entry) -> str:
    "`Finn et al.`, `Naim and Asher`, `Schmidhuber`."
    names = [family for family, _ in authors(entry)]
    return (
        names[0]
        if len(names) == 1
        else f"{names[0]} and {names[1]}"
        if len(names) == 2 and names[1] != "others"
        else f"{names[0]} et al."
    )


def _long_author(family: str, given: str) -> str:
    if family == "others":
        return "et al."
    parts = given.replace("-", " ").split()
    initials = " ".join(g if g.endswith(".") else g[0] + "." for g in parts)
    return f"{family}, {initials}" if given else family


def long_authors(entry: Entry) -> str:
    names = [_long_author(family, given) for family, given in authors(entry)]
    return (
        names[0]
        if len(names) == 1
        else ", ".join(names[:-1])
        + (", " if names[-1] == "et al." else " and ")
        + names[-1]
    )


def where(entry: Entry) -> str:
    "Journal, proceedings, publisher or school, with volume and pages."
    place = plain(
        entry["journal"]
        or entry["booktitle"]
        or entry["publisher"]
        or entry["school"]
        or entry["institution"]
        or entry["howpublished"]
    )
    volume = entry["volume"] + (f"({entry['number']})" if entry["number"] else "")
    pages = (
        f"{':' if volume else 'pages '}{plain(entry['pages'])}"
        if entry["pages"]
        else ""
    )
    return ", ".join(x for x in (place, f"{volume}{pages}") if x)


def links(entry: Entry) -> list[tuple[str, str]]:
    "(text, address) of everywhere the work can be read."
    found = []
    if entry["eprint"]:
        found.append(
            (f"arXiv:{entry['eprint']}", f"https://arxiv.org/abs/{entry['eprint']}")
        )
    if entry["doi"]:
        found.append((f"doi:{entry['doi']}", f"https://doi.org/{entry['doi']}"))
    if entry["url"] and not found:
        found.append(
            (
                re.sub(r"^https?://(www\.)?", "", entry["url"]).split("/")[0],
                entry["url"],
            )
        )
    return found


def problems(entries: list[Entry]) -> list[str]:
    "What is missing or double in references.bib."
    found, seen, addressed = [], {}, {}
    for e in entries:
        place = f"references.bib:{e.line}: {e.key}"
        if e.key in seen:
            found.append(
                f"{place}: the key is used twice (first in line {seen[e.key]})"
            )
        seen.setdefault(e.key, e.line)
        if e.type not in NEEDED:
            found.append(
                f"{place}: unknown type @{e.type}; use one of {', '.join(NEEDED)}"
            )
            continue
        found += [
            f"{place}: @{e.type} needs the field {name}"
            for name in NEEDED[e.type]
            if not e[name]
        ]
        if not addresses(e) and e.type not in (
            "book",
            "phdthesis",
            "mastersthesis",
            "techreport",
        ):
            found.append(
                f"{place}: give eprint, doi or url, so that chapters can link to it"
            )
        if e["year"] and not re.fullmatch(r"(1[89]|20)\d\d", e["year"]):
            found.append(f"{place}: year {e['year']!r} is not a year")
        if e["eprint"] and not re.fullmatch(
            r"\d{4}\.\d{4,5}|[a-z\-]+(\.[A-Z]{2})?/\d{7}", e["eprint"]
        ):
            found.append(
                f"{place}: eprint {e['eprint']!r} is not an arXiv id such as 1703.03400"
            )
        if bool(e["eprint"]) != (
            e["eprinttype"] == "arxiv"
        ):  # citation styles print no address without it
            found.append(
                f"{place}: eprint needs eprinttype = {{arxiv}} beside it, "
                "and the other way round"
            )
        for address in addresses(e):
            if addressed.setdefault(address, e.key) != e.key:
                found.append(
                    f"{place}: the same work as {addressed[address]} ({address})"
                )
    return found
