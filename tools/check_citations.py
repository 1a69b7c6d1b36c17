"""Checks references.bib, and that it knows every work that a chapter links to.

python tools/check_citations.py    ends with 1 and a list that names notebook and cell
                                   if something is wrong
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import bibliography
import quarto_filter as qf

ROOT = qf.ROOT


def cited(text: str) -> Iterator[tuple[str, str]]:
    "(text, address) of every link of a Markdown text that looks like a citation."
    found: list[tuple[str, str]] = []
    qf.outside_code(
        text,
        lambda t: (
            found.extend((m[1], m[2].strip("<>")) for m in qf.LINK.finditer(t)) or t
        ),
    )
    return ((label, url) for label, url in found if bibliography.is_scholarly(url))


def name_problem(label: str, entry: bibliography.Entry) -> str | None:
    "Does the text of a citation such as `Finn et al., 2017` agree with the entry?"
    m = re.fullmatch(r"(.+?),? \(?((?:1[89]|20)\d\d)[a-z]?\)?", label)
    if not m:
        return None
    right = f"{bibliography.short_authors(entry)}, {entry['year']}"
    family = re.split(r" et al\.?| and | & |,", m[1])[0].strip()
    if (
        family.lower() != bibliography.authors(entry)[0][0].lower()
        and family.lower().split()[-1]
        != bibliography.authors(entry)[0][0].lower().split()[-1]
    ):
        return (
            f"the citation '{label}' names another author than references.bib: "
            f"'{right}'"
        )
    if m[2] != entry["year"]:
        return f"the citation '{label}' has another year than references.bib: '{right}'"
    return None


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """(place, Markdown) of everything that may cite: Markdown cells, and captions are
    part of code cells, which cite nothing."""
    for path in sorted(root.glob("nbs/**/*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for i, cell in enumerate(qf.read_notebook(path)["cells"]):
            if cell["cell_type"] == "markdown":
                yield f"{path.relative_to(root).as_posix()}, cell {i}", qf.text_of(cell)
    for path in sorted(root.glob("*.qmd")):
        yield path.name, path.read_text(encoding="utf-8")


def check(root: Path = ROOT) -> tuple[list[str], list[str]]:
    "(problems, keys that nothing cites)."
    try:
        entries = bibliography.load(root / "references.bib")
    except ValueError as e:
        return [str(e)], []
    problems, known, by_key, used = (
        bibliography.problems(entries),
        bibliography.index(entries),
        {e.key: e for e in entries},
        set(),
    )
    try:
        every = list(texts(root))
    except ValueError as e:
        return [str(e)], []
    for place, text in every:
        for label, url in cited(text):
            key = known.get(bibliography.normal(url))
            if key is None:
                problems.append(
                    f"{place}: references.bib does not know {url} ('{label}')"
                )
                continue
            used.add(key)
            if problem := name_problem(label, by_key[key]):
                problems.append(f"{place}: {problem}")
    return problems, [e.key for e in entries if e.key not in used]


def main() -> int:
    problems, unused = check()
    print(
        *problems,
        f"citations: {len(problems)} problems, "
        f"{len(unused)} works that no chapter cites yet",
        sep="\n",
    )
    return bool(problems)


if __name__ == "__main__":
    ending.run(main)
