"""The offline edition of the book: the same chapters as Quarto's, rendered by Sphinx
with MyST-NB. No other host is asked for anything.

python tools/offline_site.py build    writes _build/site/index.html
python tools/offline_site.py check    reads everything and writes nothing; ends with 1
                                      and a list if a link or an anchor is missing
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import bibliography
import mathjax
import quarto_filter as qf
import redirects

ROOT = qf.ROOT
HERE = Path(__file__).resolve().parent / "offline"


@dataclass(frozen=True)
class Contents:
    "What `_quarto.yml` says: the title and the pages in order."

    title: str
    author: str
    parts: list[
        tuple[str | None, list[str]]
    ]  # (name of the part, files); None for pages before the first part
    appendices: list[str]

    @property
    def pages(self) -> list[str]:
        return [f for _, files in self.parts for f in files] + self.appendices


def contents(root: Path = ROOT) -> Contents:
    "Read `_quarto.yml`; ValueError if a page of it does not exist."
    import yaml

    book = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    parts: list[tuple[str | None, list[str]]] = []
    for item in book["chapters"]:
        if isinstance(item, dict) and "chapters" in item:
            parts.append((item["part"], list(item["chapters"])))
        else:
            name = item if isinstance(item, str) else item["file"]
            if parts and parts[-1][0] is None:
                parts[-1][1].append(name)
            else:
                parts.append((None, [name]))
    found = Contents(
        book["title"], book.get("author", ""), parts, list(book.get("appendices", []))
    )
    missing = [f for f in found.pages if not (root / f).exists()]
    if missing:
        raise ValueError(
            f"_quarto.yml lists pages that do not exist: {', '.join(missing)}; "
            "write them or take them off the list"
        )
    return found


class Source:
    """The folder that Sphinx reads. A file is written only when its text changes, so
    that a second build is short."""

    def __init__(self, folder: Path):
        self.folder, self.written = folder, set()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        self.written.add(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def drop_old(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.written:
                path.unlink()


def page_name(file: str) -> str:
    "Sphinx's name of a page: no suffix."
    return str(Path(file).with_suffix(""))


def toctrees(book: Contents) -> str:
    "The sidebar: one list for each part, chapters numbered through, appendices not."
    out = []
    after = [
        f for name, files in book.parts[1:] if name is None for f in files
    ]  # such as the references
    for name, files in [
        *(p for p in book.parts if p[0] or p is book.parts[0]),
        ("Appendices", book.appendices + after),
    ]:
        files = [f for f in files if f != "index.qmd"]
        if files:
            numbered = ":numbered: 2\n" if name not in (None, "Appendices") else ""
            caption = f":caption: {name}\n" if name else ""
            out.append(
                "```{toctree}\n:hidden:\n"
                + numbered
                + caption
                + "\n"
                + "\n".join(page_name(f) for f in files)
                + "\n```"
            )
    return "\n\n".join(out)


def list_of_chapters(book: Contents, root: Path) -> str:
    "The table of contents of the front page, with the sentence under each title."
    out = []
    number = 0
    for name, files in book.parts:
        if name is None:
            continue
        out.append(f"### {name}\n")
        for f in files:
            number += 1
            title, summary = title_and_summary(root / f)
            out.append(
                f"{number}. [{title}]({f})" + (f"<br>{summary}" if summary else "")
            )
        out.append("")
    return "\n".join(out)


def title_and_summary(path: Path) -> tuple[str, str]:
    "The title and the `>` line of a notebook's first cell."
    if path.suffix != ".ipynb":
        return path.stem, ""
    first = next(
        (
            qf.text_of(c)
            for c in qf.read_notebook(path)["cells"]
            if c["cell_type"] == "markdown"
        ),
        "",
    )
    title = re.search(r"^# (.+)$", first, re.M)
    summary = re.search(r"^> (.+)$", first, re.M)
    return title[1].strip() if title else path.stem, summary[
        1
    ].strip() if summary else ""


def plain_markdown(text: str) -> str:
    """A page without Quarto's own words: front matter, attributes of headings, links to
    other .qmd pages.

    An anchor that a heading names (`{#api-x}`) becomes one of MyST, and so do links to
    it and to equations, which MyST finds by their name alone. Of what is meant for one
    format only, what is for web pages is kept.
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(
        r'^::: \{\.content-hidden when-format="html:js"\}\n.*?^:::\n',
        "",
        text,
        flags=re.M | re.S,
    )
    text = re.sub(
        r'^::: \{\.content-visible when-format="html:js"\}\n(.*?)^:::\n',
        r"\1",
        text,
        flags=re.M | re.S,
    )
    text = re.sub(r"^```\{=html\}\n(.*?)^```$", r"\1", text, flags=re.M | re.S)
    text = re.sub(
        r"^(#{1,6} .*?)[ \t]*\{#(api-[\w-]+)\}[ \t]*$", r"(\2)=\n\1", text, flags=re.M
    )
    text = re.sub(r"^(#{1,6} .*?)[ \t]*\{[^}\n]*\}[ \t]*$", r"\1", text, flags=re.M)
    text = re.sub(r"\]\([\w./-]*#((?:api|tag)-[\w-]+)\)", r"](#\1)", text)
    return re.sub(r"\]\(([\w./-]+)\.qmd(#[\w-]+)?\)", r"](\1.md\2)", text)


def bibliography_page(
    entries: list[bibliography.Entry], cited: dict[str, set[str]]
) -> str:
    "All works, by first author, each with the chapters that cite it."
    out = ["# References\n"]
    for e in sorted(
        entries, key=lambda e: (bibliography.short_authors(e).lower(), e["year"], e.key)
    ):
        title = bibliography.plain(e["title"])
        place = f" {bibliography.where(e)}." if bibliography.where(e) else ""
        read = ", ".join(f"[{text}]({url})" for text, url in bibliography.links(e))
        names = sorted(cited.get(e.key, ()))
        back = (
            " Cited in " + ", ".join(f"[](/{page})" for page in names) + "."
            if names
            else ""
        )
        out.append(
            f"(ref-{e.key.lower()})=\n{qf_escape(bibliography.long_authors(e))} "
            f"({e['year']}). *{qf_escape(title)}*.{qf_escape(place)} "
            f"{read}{'.' if read else ''}{back}\n"
        )
    return "\n".join(out)


def qf_escape(text: str) -> str:
    return re.sub(r"([*_`$\[\]<])", r"\\\1", text)


def write_sources(folder: Path, root: Path = ROOT) -> dict[str, list[int]]:
    """Everything that Sphinx reads; returns for each notebook the original number of
    each cell."""
    book, source = contents(root), Source(folder)
    cited: dict[str, set[str]] = defaultdict(set)
    entries = bibliography.load(root / "references.bib")
    base = qf.book_context(root / "nbs", "myst", root)
    cells: dict[str, list[int]] = {}

    def context(file: str) -> qf.Context:
        return qf.Context(
            "myst",
            str(Path(file).parent.as_posix()),
            base.cited,
            base.tags,
            base.repository,
            lambda key: cited[key].add(page_name(file)),
        )

    for file in book.pages:
        if file == "references.qmd":
            continue
        if file.endswith(".ipynb"):
            notebook, cells[file] = qf.convert(
                qf.read_notebook(root / file), context(file)
            )
            notebook["metadata"] = {
                "kernelspec": {
                    "display_name": "Python 3",
                    "language": "python",
                    "name": "python3",
                },
                "language_info": {"name": "python"},
            }
            source.write(file, json.dumps(notebook, ensure_ascii=False))
        else:
            text = plain_markdown(
                qf.markdown((root / file).read_text(encoding="utf-8"), context(file))
            )
            if file == "index.qmd":
                text += f"\n\n## Chapters\n\n{list_of_chapters(book, root)}\n\n"
                text += f"{toctrees(book)}\n"
            source.write(page_name(file) + ".md", text)
    if "references.qmd" in book.pages:
        source.write("references.md", bibliography_page(entries, cited))
    source.drop_old()
    return cells


def original_downloads(site: Path, root: Path = ROOT) -> None:
    """The download button gives the notebook of the repository, not the one prepared
    for the site."""
    for file in contents(root).pages:
        target = site / "_sources" / file
        if file.endswith(".ipynb") and target.exists():
            shutil.copy(root / file, target)


def run_sphinx(
    builder: str,
    source: Path,
    site: Path,
    doctrees: Path,
    root: Path = ROOT,
    quiet: bool = False,
) -> str:
    "Run Sphinx and return its warnings."
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    book, warnings = contents(root), io.StringIO()
    address = qf.repository(root).split("/blob/")
    settings = {
        "project": book.title,
        "author": book.author,
        "html_title": book.title,
        "repository": address[0],
        "branch": address[1].strip("/"),
    }
    os.environ["BOOK_SETTINGS"] = json.dumps(settings)
    with patch_docutils(str(HERE)), docutils_namespace():
        app = Sphinx(
            str(source),
            str(HERE),
            str(site),
            str(doctrees),
            builder,
            status=None if quiet else io.StringIO(),
            warning=warnings,
            parallel=1,
            freshenv=False,
        )
        app.build()
    return re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue())


def problems(warnings: str, source: Path, cells: dict[str, list[int]]) -> list[str]:
    "Sphinx's warnings with the notebook and the cell in the words of the author."
    found = []
    for line in warnings.splitlines():
        m = re.match(
            r"(?P<path>\S+?\.(?:ipynb|md))(?::(?P<line>\d+))?: "
            r"(?:WARNING|ERROR|CRITICAL): (?P<text>.*)",
            line,
        )
        if not m:
            if line.strip():
                found.append(line)
            continue
        file = Path(m["path"])
        name = (
            file.relative_to(source).as_posix()
            if file.is_relative_to(source)
            else m["path"]
        )
        at = int(m["line"] or 0)
        if name in cells:
            where = (
                f", cell {cells[name][min(at // 10000, len(cells[name])) - 1]}"
                if at >= 10000
                else ""
            )
            found.append(f"{name}{where}: {m['text']}")
        else:
            found.append(f"{name}{f':{at}' if at else ''}: {m['text']}")
    return list(dict.fromkeys(found))


def pages_in(source: Path) -> list[Path]:
    return sorted(source.rglob("*.*"))


def build(root: Path = ROOT, out: Path | None = None) -> tuple[Path, list[str]]:
    "Render the site; returns its folder and the problems met."
    folder = out or root / "_build"
    source, site = folder / "site_src", folder / "site"
    before = pages_in(source)
    cells = write_sources(source, root)
    if (
        pages_in(source) != before
    ):  # Sphinx keeps links of the other pages as it found them
        shutil.rmtree(folder / "doctrees", ignore_errors=True)
        shutil.rmtree(site, ignore_errors=True)
    warnings = run_sphinx("html", source, site, folder / "doctrees", root)
    mathjax.copy(site / "_static" / "mathjax")
    original_downloads(site, root)
    redirects.write(site, root)
    return site, problems(warnings, source, cells)


def check(root: Path = ROOT, out: Path | None = None) -> list[str]:
    "Read everything from scratch and resolve every link; returns the problems."
    folder = (out or root / "_build") / "check"
    shutil.rmtree(folder, ignore_errors=True)
    cells = write_sources(folder / "src", root)
    return problems(
        run_sphinx("dummy", folder / "src", folder / "out", folder / "doctrees", root),
        folder / "src",
        cells,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=["build", "check"])
    parser.add_argument("--out", type=Path, help="folder to work in (default: _build)")
    args = parser.parse_args()
    start = time.perf_counter()
    if args.command == "build":
        site, found = build(out=args.out)
        print(
            *(f"warning: {p}" for p in found),
            f"offline edition: {site / 'index.html'} "
            f"({time.perf_counter() - start:.0f} s)",
            sep="\n",
        )
        return 0
    found = check(out=args.out)
    print(
        *found,
        f"site: {len(found)} problems ({time.perf_counter() - start:.0f} s)",
        sep="\n",
    )
    return bool(found)


if __name__ == "__main__":
    ending.run(main)
