"""Checks the markup of every chapter and of the worked solutions: that it reads well in
JupyterLab, on Colab, on GitHub and on the site, and that links arrive.

python tools/check_markdown.py [--hints] [notebook ...]
    ends with 1 and a list that names notebook and cell if something is wrong
"""

from __future__ import annotations

import argparse
import ast
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote as url_unquote

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import offline_site
import quarto_filter as qf

ROOT = qf.ROOT
FORBIDDEN_WORDS = ("simply", "obviously", "just")
KNOWN_OPTIONS = {
    "label",
    "fig-cap",
    "fig-alt",
    "code-fold",
    "eval",
    "echo",
    "output",
    "include",
    "warning",
}
KNOWN_WORDS = {"export", "exporti", "hide", "default_exp", "hide_input", "hide_output"}
LONGEST_CELL, LONGEST_SENTENCE = 40, 40
FENCES = re.compile(qf.FENCE, re.S | re.M)
CODE = re.compile(
    rf"{qf.FENCE}|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|<!--.*?-->", re.S | re.M
)

#: (pattern, message), looked for in Markdown with code taken out
RULES = [
    (
        r"\\(label|ref|eqref)\{",
        r"write \tag{NAME-1} in the equation and 'Eq. (NAME-1)' in the text; "
        r"\label, \ref and \eqref don't work everywhere",
    ),
    (
        r"^[ >]*:::",
        "a fenced div is shown raw outside Quarto; write '> **Note:** text'",
    ),
    (r"^> ?\[!", "JupyterLab does not render '> [!NOTE]'; write '> **Note:** text'"),
    (
        r"^(?:> ?)?[ \t]*=+[ \t]*$",
        "a line with nothing but '=' becomes a heading on Colab; "
        "put the '=' on a line with the formula",
    ),
    (
        r"^#{1,6} .*\{\.[^}]*\}[ \t]*$",
        "attributes of a heading are shown raw; link to its automatic anchor",
    ),
    (r"\{#[\w:-]+\}", "an attribute {#id} is shown raw outside Quarto"),
    (
        r"(?<![\w`])@(fig|eq|sec|tbl|lst|thm)-\w",
        "a cross-reference of Quarto is shown raw elsewhere; "
        "write a link or 'the figure below'",
    ),
    (
        r"\[-?@[\w:-]+",
        "a citation of pandoc is shown raw elsewhere; "
        "write [Finn et al., 2017](https://arxiv.org/abs/1703.03400)",
    ),
    (
        r"(?<!\\)\\\\(?=[A-Za-z]{2,})",
        "a doubled backslash in front of a word is a line break and not a command; "
        "write one (after a line break leave a space)",
    ),
    (
        r"^> ?\*\*[A-Za-z ]+\*\*:",
        "write the colon inside the bold text: '> **Note:** text'",
    ),
]


@dataclass(frozen=True)
class Cell:
    "A cell, and where it stands in words that an author finds."

    notebook: str
    number: int
    data: dict

    @property
    def text(self) -> str:
        return qf.text_of(self.data)

    @property
    def place(self) -> str:
        return f"{self.notebook}, cell {self.number}"


def without(text: str, pattern: re.Pattern) -> str:
    "The text with what matches blanked out; line breaks stay."
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def quote_problems(text: str) -> Iterator[str]:
    "Callouts of an unknown kind, and quotes that run into the text around them."
    lines = without(text, FENCES).split("\n")
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""]):
        if not line.startswith(">"):
            continue
        kind = re.match(r"> ?\*\*([^*:]+):\*\*", line)
        if kind and kind[1] not in qf.CALLOUTS:
            kinds = ", ".join(qf.CALLOUTS)
            yield f"unknown kind of note '{kind[1]}'; there are {kinds}"
        if kind and before.strip("> \t"):
            yield (
                f"leave an empty line before '> **{kind[1]}:**', "
                "or it becomes part of the text above"
            )
        if after.strip() and not after.startswith(">"):
            yield (
                f"the quote that ends with {line[:40]!r} runs into the next line; "
                "leave an empty line after it or start that line with '>'"
            )


def markdown_problems(text: str) -> Iterator[str]:
    "What is wrong with one Markdown cell by itself."
    if re.search(r"^[ >]*(`{3,}|~{3,})\s*\{?mermaid", text, re.M):
        yield "a mermaid diagram is not drawn everywhere; draw it in code"
    bare = without(text, CODE)
    for pattern, message in RULES:
        if found := re.search(pattern, bare, re.M):
            yield f"{message} (found {found[0].strip()[:40]!r})"
    if len(re.findall(r"(?<!\\)\$\$", bare)) % 2:
        yield "an odd number of $$: an equation is not closed"
    else:
        prose = without(bare, qf.PROTECTED)
        if found := re.search(r"\\begin\{\w+\*?\}", prose):
            yield f"{found[0]} outside $$ is dropped by Quarto; put $$ around it"
        words = re.sub(r"\]\([^)]*\)", "]", prose)
        for word in FORBIDDEN_WORDS:
            if found := re.search(rf"[^.!?\n]*\b{word}\b", words, re.I):
                yield f"the style does without '{word}' ({found[0].strip()[-60:]!r})"
    for tag in re.findall(r"\\tag\*?\{([^}]*)\}", bare):
        if not re.fullmatch(qf.TAG, tag):
            yield (
                f"\\tag{{{tag}}} must be named after its chapter and numbered, "
                "such as \\tag{MAML-2}"
            )
    yield from quote_problems(text)


def long_sentences(text: str) -> Iterator[str]:
    "A hint for each sentence that a reader must read twice."
    prose = re.sub(
        r"^\s*([|#>].*|[-*\d.]+ )", "", without(text, qf.PROTECTED), flags=re.M
    )
    for paragraph in re.split(r"\n\s*\n", prose):
        for sentence in re.split(
            r"(?<=[.!?:;])\s+", re.sub(r"\]\([^)]*\)", "]", paragraph)
        ):
            if (n := len(sentence.split())) > LONGEST_SENTENCE:
                yield f"a sentence of {n} words: {' '.join(sentence.split()[:8])} ..."


def code_problems(cell: dict) -> Iterator[str]:
    "What is wrong with one code cell by itself."
    source = qf.text_of(cell)
    directives, body = qf.split_directives(source)
    names = [name for name, _ in directives]
    if re.search(r"^#\|", body, re.M):
        yield "a '#|' line must stand at the top of its cell"
    for line in source.split("\n")[: len(directives) + 1]:
        if m := re.match(
            r"#\|\s*(exporti|exports|export|hide|default_exp)\s*(:.*|.+)?$", line
        ):
            if (m[2] or "").startswith(":"):
                yield f"write '#| {m[1]}' without a colon"
            elif m[2] and m[1] != "default_exp":
                yield f"'#| {m[1]}' must stand alone on its line"
    for name, value in directives:
        if name not in KNOWN_OPTIONS | KNOWN_WORDS:
            known = ", ".join(sorted(KNOWN_OPTIONS | KNOWN_WORDS))
            yield f"unknown directive '#| {name}'; there are {known}"
        elif name in KNOWN_OPTIONS and not value:
            yield f"'#| {name}:' has no value"
        if value.startswith('"') and "\\" in value:
            yield (
                f"'#| {name}' has a backslash in double quotes, "
                "which YAML reads as an escape; use single quotes"
            )
    if set(names) & qf.EXPORTS and len(names) > 1:
        yield f"an exported cell has no other directive (found {', '.join(names)})"
    if "default_exp" in names and (len(names) > 1 or body.strip()):
        yield "'#| default_exp' must be alone in its cell"
    if len(names) != len(set(names)):
        yield "the same directive is given twice"
    lines = [line for line in body.split("\n") if line.strip()]
    if len(lines) > LONGEST_CELL and "code-fold" not in names:
        yield (
            f"{len(lines)} lines of code in one cell; split it (at most {LONGEST_CELL})"
        )
    yield from output_problems(cell, dict(directives))


def output_problems(cell: dict, options: dict[str, str]) -> Iterator[str]:
    """Figures without caption or text for the blind, errors, and requests to other
    hosts in stored outputs."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.get("output_type") == "error":
            error = f"{output.get('ename')}: {str(output.get('evalue'))[:80]}"
            yield f"the stored output is an error: {error}"
        if {"image/png", "image/svg+xml", "image/jpeg"} & set(data):
            for name in ("label", "fig-cap", "fig-alt"):
                if not options.get(name):
                    yield f"the output is a figure: the cell needs '#| {name}: ...'"
            if options.get("label") and not options["label"].startswith("fig-"):
                yield (
                    "the label of a figure starts with 'fig-', "
                    f"not {options['label']!r}"
                )
        page = "".join(data.get("text/html", ""))
        if found := re.search(
            r"<(?:script|img|iframe|link)[^>]+(?:src|href)\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)",
            page,
        ):
            yield f"the output asks another host for {found[1][:80]}"


def mixed_imports(source: str) -> bool:
    "Does a cell import and do something else as well?"
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in body}
    return kinds == {True, False}


# --- the whole book -------------------------------------------------------------------


def load(path: Path, root: Path) -> list[Cell]:
    name = path.relative_to(root).as_posix()
    return [Cell(name, i, c) for i, c in enumerate(qf.read_notebook(path)["cells"])]


def notebooks(root: Path) -> list[Path]:
    return [
        p
        for folder in ("nbs", "exercises")
        for p in sorted(root.glob(f"{folder}/**/*.ipynb"))
        if ".ipynb_checkpoints" not in p.parts
    ]


def first_cell_problems(cells: list[Cell]) -> Iterator[str]:
    "Title and one sentence, nothing else; no other title in the notebook."
    if not cells:
        yield "cell 0: the notebook is empty"
        return
    if cells[0].data["cell_type"] != "markdown" or not re.fullmatch(
        r"# [^\n]+\n\n> [^\n]+\n*", cells[0].text
    ):
        yield (
            "cell 0: the first cell must be '# Title', an empty line and one line "
            "'> one sentence', and nothing else"
        )
    for cell in cells[1:]:
        if cell.data["cell_type"] == "markdown" and any(
            level == 1 for level, _ in qf.headings(cell.text)
        ):
            yield f"cell {cell.number}: a second title; start sections with ##"


def anchors(texts: list[str]) -> dict[str, str]:
    "Anchor -> heading of a page, repeated headings numbered as GitHub does."
    found: dict[str, str] = {}
    for text in texts:
        for _, heading in qf.headings(text):
            base = name = qf.slug(heading)
            n = 0
            while name in found:
                n += 1
                name = f"{base}-{n}"
            found[name] = heading
    return found


class Targets:
    "What a link may lead to: pages of the project and their anchors."

    def __init__(self, root: Path):
        self.root = root
        self.anchors = lru_cache(maxsize=None)(self._anchors)

    def _anchors(self, file: str) -> dict[str, str]:
        path = self.root / file
        if not file.endswith(".ipynb"):
            text = path.read_text(encoding="utf-8")
            own = re.findall(r"^#+ .*\{#([\w-]+)\}[ \t]*$", text, re.M)
            return anchors([text]) | dict.fromkeys(own, "")
        try:
            return anchors(
                [
                    qf.text_of(c)
                    for c in qf.read_notebook(path)["cells"]
                    if c["cell_type"] == "markdown"
                ]
            )
        except ValueError:  # reported for the notebook itself
            return {}

    def problem(self, url: str, here: str) -> str | None:
        "Why a link of the page `here` leads nowhere, or None."
        if re.match(r"[a-z][a-z0-9+.-]*:|//", url, re.I):
            return None
        path, _, fragment = url_unquote(url).partition("#")
        file = (
            posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
            if path
            else here
        )
        if not (self.root / file).exists():
            return f"the link {url} leads to {file}, which does not exist"
        if not fragment or not file.endswith((".ipynb", ".md", ".qmd")):
            return None
        known = self.anchors(file)
        if fragment not in known:
            near = [a for a in known if fragment.split("-")[0] in a][:4]
            return f"the link {url} leads to a heading that {file} does not have" + (
                f"; it has {', '.join(near)}" if near else ""
            )
        heading = known[fragment]
        if (
            heading
            and not re.search(r"-\d+$", fragment)
            and qf.pandoc_slug(heading) != fragment
        ):
            return (
                f"the heading {heading!r} in {file} gets another anchor from Quarto "
                f"({qf.pandoc_slug(heading)}); "
                "use words without digits in front, dots or formulas"
            )
        return None


def link_problems(cell: Cell, targets: Targets) -> Iterator[str]:
    bare = without(
        cell.text, re.compile(rf"{qf.FENCE}|(?<!\\)\$\$.*?\$\$", re.S | re.M)
    )
    for pattern in (qf.LINK, qf.IMAGE):
        for m in pattern.finditer(bare):
            if problem := targets.problem(m[2].strip("<>"), cell.notebook):
                yield problem


def tag_problems(cells: list[Cell]) -> Iterator[str]:
    "Tags that are given twice, and references to tags that do not exist."
    defined: dict[str, str] = {}
    for cell in cells:
        for tag in qf.tags_in(without(cell.text, FENCES)):
            if tag in defined:
                yield f"{cell.place}: \\tag{{{tag}}} is used already in {defined[tag]}"
            defined.setdefault(tag, cell.place)
    for cell in cells:
        prose = without(cell.text, CODE)
        for m in re.finditer(
            rf"\bEqs?\.[ \u00a0\n]\(({qf.TAG})\)"
            rf"((?:(?:,| and|,? to|–)[ \u00a0\n]\({qf.TAG}\))*)",
            prose,
        ):
            for tag in [m[1], *re.findall(rf"\(({qf.TAG})\)", m[2])]:
                if tag not in defined:
                    yield f"{cell.place}: no equation has \\tag{{{tag}}}"


def label_problems(cells: list[Cell]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for cell in cells:
        label = dict(qf.split_directives(cell.text)[0]).get("label")
        if label and label in seen:
            yield f"{cell.place}: the label {label} is used already in {seen[label]}"
        elif label:
            seen[label] = cell.place


def check(
    root: Path = ROOT, only: list[Path] | None = None
) -> tuple[list[str], list[str]]:
    """(problems, hints) of the book; `only` restricts what is reported about single
    cells."""
    problems, hints, targets = [], [], Targets(root)
    files = notebooks(root)
    book: dict[Path, list[Cell]] = {}
    for path in files:
        try:
            book[path] = load(path, root)
        except ValueError as e:
            problems.append(str(e))
    listed = None
    if (root / "_quarto.yml").exists():
        try:
            listed = offline_site.contents(root).pages
        except ValueError as e:
            problems.append(str(e))
    for path, cells in book.items():
        if only and path.resolve() not in [p.resolve() for p in only]:
            continue
        name = path.relative_to(root).as_posix()
        in_book = not name.startswith("exercises/")  # solutions are no pages
        if listed is not None and in_book and name not in listed:
            problems.append(f"{name}: is not listed in _quarto.yml")
        problems += [f"{name}, {p}" for p in first_cell_problems(cells)]
        for cell in cells:
            if cell.data["cell_type"] == "markdown":
                problems += [
                    f"{cell.place}: {p}"
                    for p in [
                        *markdown_problems(cell.text),
                        *link_problems(cell, targets),
                    ]
                ]
                hints += [f"{cell.place}: {h}" for h in long_sentences(cell.text)]
            elif cell.data["cell_type"] == "code":
                problems += [f"{cell.place}: {p}" for p in code_problems(cell.data)]
                if mixed_imports(cell.text):
                    hints.append(f"{cell.place}: imports stand in a cell of their own")
            else:
                problems.append(f"{cell.place}: a raw cell is not shown; use Markdown")
    every = [c for cells in book.values() for c in cells]
    problems += tag_problems([c for c in every if c.data["cell_type"] == "markdown"])
    problems += label_problems([c for c in every if c.data["cell_type"] == "code"])
    for name in ("index.qmd",):
        if (root / name).exists():
            cell = Cell(name, 0, {"source": (root / name).read_text(encoding="utf-8")})
            problems += [f"{name}: {p}" for p in link_problems(cell, targets)]
    return problems, hints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument(
        "--hints", action="store_true", help="also print hints, which are no errors"
    )
    args = parser.parse_args()
    problems, hints = check(only=args.notebooks or None)
    print(
        *problems,
        *(f"hint: {h}" for h in hints if args.hints),
        f"markdown: {len(problems)} problems, {len(hints)} hints",
        sep="\n",
    )
    return bool(problems)


if __name__ == "__main__":
    ending.run(main)
