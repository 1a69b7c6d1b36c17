"""What the Quarto edition needs before and after a render; `_quarto.yml` calls it.

python tools/quarto_site.py before    no page of an older state, MathJax at hand
python tools/quarto_site.py after     MathJax in the site, one title a page, prose in
                                       the search, pages at old addresses
"""

from __future__ import annotations

import hashlib
import html
import html.parser
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import mathjax
import quarto_filter as qf
import redirects
from notebooks import write_atomically

ROOT = qf.ROOT
FILTER = "tools/quarto_filter.py"
#: what the filter reads beside the notebook; patterns from the root
INPUTS = (
    FILTER,
    "tools/bibliography.py",
    "tools/ending.py",
    "references.bib",
    "settings.ini",
    "_quarto.yml",
    "nbs/**/*.ipynb",
)
MATHJAX = "site_libs/mathjax"


# --- before: no page of an older state


def digest(root: Path = ROOT) -> str:
    "One value for all that the filter's output depends on."
    found = hashlib.sha256()
    for path in sorted({p for pattern in INPUTS for p in root.glob(pattern)}):
        if ".ipynb_checkpoints" not in path.parts:
            found.update(path.relative_to(root).as_posix().encode() + b"\0")
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def forget_old_pages(root: Path = ROOT) -> bool:
    """Make Quarto call the filter again if anything that it reads has changed.

    Quarto keeps the filter's output of a notebook as long as the notebook and the
    filter have the same dates, to the second. A changed bibliography, or an equation
    that moved to another chapter, would not reach the pages. So the filter gets a new
    date, and what Quarto has noted about titles and targets is dropped. Notebooks are
    left alone, since JupyterLab would report a change of a file that is open there.

    Returns whether anything was forgotten.
    """
    note, now = root / ".quarto" / "filter-inputs", digest(root)
    if note.exists() and note.read_text(encoding="utf-8") == now:
        return False
    script = root / FILTER
    second = max(int(time.time()), int(script.stat().st_mtime) + 1)
    os.utime(script, (second, second))
    shutil.rmtree(root / ".quarto" / "idx", ignore_errors=True)
    note.parent.mkdir(exist_ok=True)
    note.write_text(now, encoding="utf-8")
    return True


# --- after: the search index


class Prose(html.parser.HTMLParser):
    """The prose of a page, by section.

    texts: address of a section of the second level (its `id`; "" for the text before
    the first one) -> its words, without headings of that level, code cells, outputs
    and displayed equations.
    """

    VOID = {
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
    }
    LEFT_OUT = {
        "script",
        "style",
        "pre",
        "svg",
        "nav",
        "header",
        "h1",
        "h2",
        "table",
        "button",
    }
    INLINE = {"a", "abbr", "b", "code", "em", "i", "q", "span", "strong", "sub", "sup"}
    #: a cell and its outputs, the line under an exported cell, a displayed equation
    CLASSES = {
        "cell",
        "export-link",
        "display",
        "code-copy-outer-scaffold",
        "csl-entry",
    }

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {"": ""}
        self.open: list[tuple[str, str | None, bool]] = []  # tag, section, left out

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        if tag in self.VOID:
            return
        found = dict(attributes)
        classes = set((found.get("class") or "").split())
        section = found.get("id") if tag == "section" and "level2" in classes else None
        if section:
            self.texts.setdefault(section, "")
        out = tag in self.LEFT_OUT or bool(classes & self.CLASSES)
        self.open.append((tag, section, out))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.INLINE:
            self.handle_data(" ")
        while any(t == tag for t, *_ in self.open):
            if self.open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if not any(t == "main" for t, *_ in self.open) or any(o for *_, o in self.open):
            return
        section = next((s for _, s, _ in reversed(self.open) if s), "")
        self.texts[section] += data

    @classmethod
    def of(cls, page: str) -> dict[str, str]:
        parser = cls()
        parser.feed(page)
        parser.close()
        return {s: " ".join(text.split()) for s, text in parser.texts.items()}


def search_index(entries: list[dict], pages: dict[str, str]) -> list[dict]:
    """Quarto's search index with the prose of the pages only.

    entries: as in `search.json`; their texts are HTML-escaped.
    pages: address -> HTML.
    """
    prose = {href: Prose.of(page) for href, page in pages.items()}
    found = []
    for entry in entries:
        href, _, section = entry["href"].partition("#")
        text = prose.get(href, {}).get(section)
        kept = entry["text"] if text is None else html.escape(text)
        found.append({**entry, "text": kept})
    return found


def clean_search(site: Path) -> None:
    path = site / "search.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    names = {e["href"].partition("#")[0] for e in entries}
    pages = {
        n: (site / n).read_text(encoding="utf-8") for n in names if (site / n).exists()
    }
    text = json.dumps(search_index(entries, pages), ensure_ascii=False, indent=1)
    write_atomically(path, text)


# --- after: one heading of the first level

TITLE = re.compile(
    r'(<header id="title-block-header".*?)<h1 class="title">(.*?)</h1>', re.S
)


def one_heading(page: str) -> str:
    """A page whose text has a heading of the first level needs none in its title block.

    Quarto writes the title of the book over the front page, which has its own.
    """
    if len(re.findall(r"<h1[\s>]", page)) < 2:
        return page
    return TITLE.sub(r'\1<p class="title">\2</p>', page, count=1)


def change_pages(site: Path) -> None:
    for path in site.rglob("*.html"):
        if "site_libs" in path.parts:
            continue
        page = path.read_text(encoding="utf-8")
        if (changed := one_heading(page)) != page:
            write_atomically(path, changed)


def main(arguments: list[str]) -> int:
    site = Path(os.environ.get("QUARTO_PROJECT_OUTPUT_DIR") or ROOT / "_book")
    site = site if site.is_absolute() else ROOT / site
    if arguments == ["before"]:
        try:
            mathjax.folder()
        except FileNotFoundError as e:
            print(e, file=sys.stderr)
            return 1
        forget_old_pages()
    elif arguments == ["after"]:
        if (site / "search.json").exists():  # a render to EPUB alone has none
            mathjax.copy(site / MATHJAX)
            change_pages(site)
            clean_search(site)
            redirects.write(site)
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
