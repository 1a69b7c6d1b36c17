"""Checks a rendered edition of the book: the site of Quarto, the offline one, an EPUB.

python tools/check_site.py FOLDER [FILE.epub ...]
    ends with 1 and a list of what is wrong

Every local link leads to a file and an anchor that are there. No page asks another host
for anything. A page has one heading of the first level, and every picture says what it
shows. In an EPUB every page is well-formed, and every formula is MathML.
"""

from __future__ import annotations

import html.parser
import json
import posixpath
import re
import sys
import urllib.parse
import xml.etree.ElementTree
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending

#: attributes whose address the browser asks for at once
ASKED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "input": ("src",),
}
#: relations of a <link> that are addresses for machines or for a click, not requests
NOT_ASKED = {
    "canonical",
    "next",
    "prev",
    "search",
    "alternate",
    "license",
    "author",
    "help",
}
OTHER_HOST = re.compile(r"^(?:https?:)?//", re.I)
IN_STYLE = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s*[\"']([^\"']+)", re.I)
IN_SCRIPT = re.compile(
    r"(?:\.src\s*=|import\s*\(?|importScripts\(|fetch\()\s*[\"'`]((?:https?:)?//[^\"'`]+)"
)


@dataclass
class Page:
    "What a page has and asks for."

    ids: set[str] = field(default_factory=set)
    twice: list[str] = field(default_factory=list)  # anchors that two places have
    links: list[str] = field(
        default_factory=list
    )  # that a reader or the browser follows
    asked: list[str] = field(
        default_factory=list
    )  # that the browser asks for by itself
    titles: int = 0
    unsaid: list[str] = field(default_factory=list)  # pictures without a text
    tex: list[str] = field(default_factory=list)  # formulas that are no MathML


class Reader(html.parser.HTMLParser):
    "Reads one page."

    def __init__(self) -> None:
        super().__init__()
        self.page, self.inside, self.formula = Page(), "", False
        self.main = 0  # 1 in the main part of a page, 2 after it
        self.beside: list[str] = []  # pictures with an empty text outside of it: logos
        self.print_only = 0  # depth inside of a box that is shown on paper only

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        a, page = {k: v or "" for k, v in attributes}, self.page
        page.twice += [a["id"]] if a.get("id") in page.ids else []
        page.ids |= {
            a[k] for k in ("id", "name") if a.get(k) and (k == "id" or tag == "a")
        }
        if tag == "a":
            page.links += [a["href"]] if "href" in a else []
        for name in ASKED.get(tag, ()):
            if name == "srcset" and a.get(name):
                page.asked += [
                    part.split()[0] for part in a[name].split(",") if part.strip()
                ]
            elif a.get(name):
                page.asked.append(a[name])
        if tag == "link" and "href" in a:
            known = set(a.get("rel", "").lower().split()) & NOT_ASKED
            (page.links if known else page.asked).append(a["href"])
        self.main += tag == "main"
        if tag == "img" and not a.get("alt", "").strip() and not decoration(a):
            beside = self.main != 1 and "alt" in a
            (self.beside if beside else page.unsaid).append(a.get("src", "")[:80])
        if "style" in a:
            page.asked += in_style(a["style"])
        if tag == "div" and (
            self.print_only or "onlyprint" in a.get("class", "").split()
        ):
            self.print_only += 1
        page.titles += tag == "h1" and not self.print_only
        self.inside = tag if tag in ("script", "style") else self.inside
        self.formula = tag == "span" and "math" in a.get("class", "").split()

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""
        if tag == "div" and self.print_only:
            self.print_only -= 1
        self.main += tag == "main"

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.page.asked += in_style(data)
        elif self.inside == "script":
            self.page.asked += IN_SCRIPT.findall(data)
        if self.formula and data.strip():
            self.page.tex.append(data.strip()[:80])
        self.formula = False


def decoration(attributes: dict[str, str]) -> bool:
    "Is a picture declared as one that says nothing?"
    return (
        attributes.get("role") in ("presentation", "none")
        or attributes.get("aria-hidden") == "true"
    )


def in_style(css: str) -> list[str]:
    "The addresses in a style sheet."
    return [
        a or b for a, b in IN_STYLE.findall(re.sub(r"/\*.*?\*/", "", css, flags=re.S))
    ]


def read(text: str) -> Page:
    reader = Reader()
    reader.feed(text)
    reader.close()
    if not reader.main:  # a page without navigation is all main part
        reader.page.unsaid += reader.beside
    return reader.page


def problems(
    pages: dict[str, Page], styles: dict[str, list[str]], there: Callable[[str], bool]
) -> list[str]:
    """What is wrong with a set of pages.

    pages: path from the root of the edition -> page.
    styles: path -> addresses in the style sheet.
    there: is there a file of this path?
    """
    found = []
    for name, page in sorted(pages.items()):
        found += [
            f"{name}: asks another host: {u}" for u in page.asked if OTHER_HOST.match(u)
        ]
        if page.titles != 1:
            found.append(f"{name}: {page.titles} headings of the first level")
        found += [f"{name}: a picture without a text: {src}" for src in page.unsaid]
        for url in page.links + page.asked:
            if (wrong := broken(name, url, pages, there)) is not None:
                found.append(f"{name}: {wrong}")
    for name, urls in sorted(styles.items()):
        found += [
            f"{name}: asks another host: {u}" for u in urls if OTHER_HOST.match(u)
        ]
        found += [
            f"{name}: {wrong}" for u in urls if (wrong := broken(name, u, pages, there))
        ]
    return list(dict.fromkeys(found))


def broken(
    name: str, url: str, pages: dict[str, Page], there: Callable[[str], bool]
) -> str | None:
    "Why a local link of the page `name` leads nowhere; None for one that is fine."
    if OTHER_HOST.match(url) or re.match(r"[a-z][a-z0-9+.-]*:", url, re.I):
        return None
    path, _, anchor = url.partition("#")
    path = urllib.parse.unquote(path.partition("?")[0])
    target = (
        posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if path
        else name
    )
    if path.endswith("/") or target == ".":
        target = posixpath.normpath(posixpath.join(target, "index.html"))
    if not there(target):
        return f"no such file: {url}"
    anchor = urllib.parse.unquote(anchor)
    if anchor and target in pages and anchor not in pages[target].ids:
        return f"no such place: {url}"
    return None


def check_site(site: Path) -> tuple[list[str], int]:
    "(problems, number of pages) of a folder of HTML."
    pages, styles, found = {}, {}, []
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        if path.suffix == ".html" and not name.startswith(("site_libs/", "_static/")):
            pages[name] = read(path.read_text(encoding="utf-8"))
        elif path.suffix == ".css":
            styles[name] = in_style(path.read_text(encoding="utf-8"))
    if not pages:
        return [f"{site}: there are no pages"], 0
    there = lambda target: (site / target).is_file()
    found += problems(pages, styles, there)
    if (index := site / "search.json").exists():
        for entry in json.loads(index.read_text(encoding="utf-8")):
            if (
                wrong := broken("search.json", entry["href"], pages, there)
            ) is not None:
                found.append(f"search.json: {wrong}")
    return found, len(pages)


def check_epub(file: Path) -> tuple[list[str], int]:
    "(problems, number of pages) of an EPUB."
    with zipfile.ZipFile(file) as book:
        names = set(book.namelist())
        texts = {
            n: book.read(n)
            for n in names
            if n.endswith((".xhtml", ".html", ".css", ".opf", ".ncx"))
        }
    found, pages, styles, formulas = [], {}, {}, 0
    for name, data in sorted(texts.items()):
        text = data.decode("utf-8")
        if name.endswith(".css"):
            styles[name] = in_style(text)
            continue
        try:
            xml.etree.ElementTree.fromstring(text)
        except xml.etree.ElementTree.ParseError as e:
            found.append(f"{name}: not well-formed: {e}")
        if name.endswith(("html", "xhtml")):
            pages[name] = page = read(text)
            formulas += text.count("<math")
            found += [f"{name}: a formula is not MathML: {tex}" for tex in page.tex]
            found += [f"{name}: a script"] * ("<script" in text)
            found += [
                f"{name}: two places are called {anchor}" for anchor in page.twice
            ]
            page.titles = 1  # a chapter may be split over several pages
    found += problems(pages, styles, names.__contains__)
    if not formulas:
        found.append(f"{file.name}: there are no formulas")
    return [f"{file.name}: {p}" for p in found], len(pages)


def main(arguments: Iterable[str]) -> int:
    files = [Path(a) for a in arguments]
    if not files:
        print(__doc__)
        return 2
    found, n = [], 0
    for file in files:
        if not file.exists():
            found.append(f"{file}: there is no such file or folder")
            continue
        wrong, pages = check_epub(file) if file.suffix == ".epub" else check_site(file)
        found, n = found + wrong, n + pages
    print(*found, f"site: {n} pages, {len(found)} problems", sep="\n")
    return bool(found)


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
