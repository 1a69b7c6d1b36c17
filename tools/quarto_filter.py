"""Notebook -> what the site shows. Quarto calls it for every chapter
(`ipynb-filters`); the offline edition uses its functions.

As a script it reads a notebook's JSON on standard input and writes it to standard
output. It needs the standard library only, and finds the rest of the book from its own
location, because Quarto's working folder is the notebook's own. Everything below `main`
is a pure function of its arguments.
"""

from __future__ import annotations

import ast
import configparser
import json
import posixpath
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import bibliography

ROOT = bibliography.ROOT
EXPORTS = {"export", "exporti", "exports"}
DROPPED = {"hide", "default_exp", "skip_showdoc"}
#: nbdev's word -> the option that Quarto and the offline edition know
OPTIONS = {"hide_input": ("echo", "false"), "hide_output": ("output", "false")}
CALLOUTS = {
    "Note": "note",
    "Tip": "tip",
    "Warning": "warning",
    "Important": "important",
    "Caution": "caution",
    "Common mistake": "caution",
}
TAG = r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*-\d+[a-z]?"


@dataclass(frozen=True)
class Context:
    "What the filter knows about the book around a notebook."

    flavour: str = "quarto"  # or "myst", for the offline edition
    folder: str = (
        "nbs"  # the notebook's folder, relative to the root, with forward slashes
    )
    cited: dict[str, str] = field(
        default_factory=dict
    )  # normal address -> key of references.bib
    tags: dict[str, str] = field(
        default_factory=dict
    )  # equation tag -> notebook, relative to the root
    repository: str = ""  # address of a file of the project = repository + path
    on_cite: Callable[[str], None] = lambda key: None


# --- directives -----------------------------------------------------------------------


def split_directives(source: str) -> tuple[list[tuple[str, str]], str]:
    """The leading `#|` lines as (name, value), and the code below them.

    Both forms are read: `#| export` and `#| default_exp x` (nbdev), `#| label: x`
    (Quarto). A line that is indented more continues the value above it.
    """
    found, lines = [], source.split("\n")
    while lines and lines[0].startswith("#|"):
        text = lines.pop(0)[2:]
        if re.match(r"\s{2,}\S", text) and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {text.strip()}".strip())
        elif m := re.match(r"\s*([\w.-]+)(?:\s*:(?:\s+(.*)|$)|\s+(.*)|$)", text):
            found.append((m[1], (m[2] or m[3] or "").strip()))
    return found, "\n".join(lines).strip("\n")


def unquote(value: str) -> str:
    r"""The text of a YAML scalar. A backslash is kept as it is, since captions quote
    mathematics: `"$\alpha$"` means what it looks like."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value


def yaml_value(value: str) -> str:
    """A value that every YAML reader takes for what is meant: plain words and numbers
    stay, everything else is quoted."""
    if re.fullmatch(r"[A-Za-z][\w-]*|-?\d+(\.\d+)?|\[[\w\s,.-]*\]", value):
        return value
    return "'" + unquote(value).replace("'", "''") + "'"


def options(directives: list[tuple[str, str]]) -> dict[str, str]:
    """The options that a site understands, each once (the first one counts), as raw
    values."""
    found: dict[str, str] = {}
    for name, value in directives:
        name, value = OPTIONS.get(name, (name, value))
        if value and name not in EXPORTS | DROPPED and name != "exec_doc":
            found.setdefault(name, value)
    return found


def default_exp(cells: list[dict]) -> str | None:
    "The module that the notebook exports to, such as `optimization.maml`."
    for cell in cells:
        if cell["cell_type"] == "code":
            for name, value in split_directives(text_of(cell))[0]:
                if name == "default_exp":
                    return value
    return None


# --- markdown -------------------------------------------------------------------------

FENCE = r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[ \t]*$"
PROTECTED = re.compile(
    rf"{FENCE}|(?<!\\)\$\$.*?\$\$|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|(?<![\\$])\$(?![\s$])(?:[^$\n]|\n(?!\n))*?(?<![\s\\])\$(?![\d$])|<!--.*?-->",
    re.S | re.M,
)
LINK = re.compile(
    r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*(<[^>]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(\s+\"[^\"]*\")?\s*\)"
)
IMAGE = re.compile(
    r"!\[([^\]]*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)"
)


class Shelf:
    "Keeps pieces of text out of the way of substitutions, and puts them back."

    def __init__(self, mark: str = "\ue000"):
        self.mark, self.kept = mark, []

    def put(self, text: str) -> str:
        self.kept.append(text)
        return f"{self.mark}{len(self.kept) - 1}\ue001"

    def restore(self, text: str) -> str:
        while self.mark in text:
            text = re.sub(
                rf"{self.mark}(\d+)\ue001", lambda m: self.kept[int(m[1])], text
            )
        return text


def outside_code(
    text: str, change: Callable[[str], str], pattern: re.Pattern = PROTECTED
) -> str:
    "Apply `change` to the text with code and mathematics taken out."
    shelf = Shelf()
    return shelf.restore(change(pattern.sub(lambda m: shelf.put(m[0]), text)))


def slug(heading: str) -> str:
    """The anchor that GitHub, JupyterLab's table of contents and the offline edition
    give to a heading."""
    text = re.sub(r"`([^`]*)`", r"\1", re.sub(LINK, r"\1", heading))
    text = re.sub(r"(?<!\w)[*_]+|[*_]+(?!\w)", "", text)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def pandoc_slug(heading: str) -> str:
    "The anchor that Quarto gives to a heading."
    text = re.sub(r"`([^`]*)`", r"\1", re.sub(LINK, r"\1", heading))
    text = re.sub(r"(?<!\w)[*_]+|[*_]+(?!\w)", "", text).strip().lower()
    return re.sub(
        r"^[^a-z\u00c0-\uffff]+",
        "",
        re.sub(r"\s+", "-", re.sub(r"[^\w\-. \n]", "", text)),
    )


def headings(text: str) -> list[tuple[int, str]]:
    "(level, text) of the headings of a markdown cell."
    found = []
    outside_code(
        text,
        lambda t: (
            found.extend(
                (len(m[1]), m[2].strip())
                for m in re.finditer(r"^(#{1,6})[ \t]+(.*?)[ \t#]*$", t, re.M)
            )
            or t
        ),
        re.compile(FENCE, re.S | re.M),
    )
    return found


def callouts(text: str, flavour: str) -> str:
    "`> **Note:** ...` -> a callout of the site."
    kinds = "|".join(CALLOUTS)
    head = rf">[ ]?\*\*(?:{kinds}):\*\*"
    block = re.compile(
        rf"^>[ ]?\*\*({kinds}):\*\*[ \t]*(.*(?:\n(?!{head})>.*)*)"
        rf"(?P<next>\n(?={head}))?",
        re.M,
    )

    def box(m: re.Match) -> str:
        kind, title = CALLOUTS[m[1]], m[1]
        body = re.sub(r"^>[ ]?", "", m[2], flags=re.M).strip("\n")
        gap = "\n\n" if m["next"] else ""  # two boxes in one quote
        own_title = title.lower() != kind
        if flavour == "quarto":
            attribute = f' title="{title}"' if own_title else ""
            return f"::: {{.callout-{kind}{attribute}}}\n{body}\n:::{gap}"
        first = (
            f":::{{admonition}} {title}\n:class: {kind}"
            if own_title
            else f":::{{{kind}}}"
        )
        return f"{first}\n{body}\n:::{gap}"

    return outside_code(
        text, lambda t: block.sub(box, t), re.compile(FENCE, re.S | re.M)
    )


def tags_in(text: str) -> list[str]:
    "The equation tags that a text defines."
    return re.findall(rf"\\tag\{{({TAG})\}}", text)


def anchor(tag: str) -> str:
    return f"tag-{tag.lower()}"


def equation_anchors(text: str, flavour: str) -> str:
    "An anchor in front of every displayed equation that has a tag."

    def mark(m: re.Match) -> str:
        names = [anchor(t) for t in tags_in(m["math"])]
        if not names:
            return m[0]
        if flavour == "quarto" or m["before"].strip():
            return m["before"] + "".join(f"[]{{#{n}}}" for n in names) + m["math"]
        indent = m["before"]
        return "\n" + "".join(f"{indent}({n})=\n" for n in names) + indent + m["math"]

    return outside_code(
        text,
        lambda t: re.sub(
            r"^(?P<before>[^\n$]*)(?P<math>(?<!\\)\$\$.*?\$\$)",
            mark,
            t,
            flags=re.M | re.S,
        ),
        re.compile(FENCE, re.S | re.M),
    )


def _equation_target(tag: str, ctx: Context, here: set[str]) -> str | None:
    if tag in here or (tag in ctx.tags and ctx.flavour == "myst"):
        return f"#{anchor(tag)}"
    if tag in ctx.tags:
        return f"{posixpath.relpath(ctx.tags[tag], ctx.folder)}#{anchor(tag)}"
    return None


def is_page(path: str) -> bool:
    "Is this file of the project (a path from the root) a page of the site?"
    return (
        path.startswith("nbs/") and path.endswith((".ipynb", ".qmd", ".md"))
    ) or path in ("index.qmd", "references.qmd")


def rewrite_url(url: str, ctx: Context) -> str:
    """A link to a file of the project that is no page of the site goes to the
    repository; everything else stays."""
    if re.match(r"[a-z][a-z0-9+.-]*:|#|//", url, re.I) or not url:
        return url
    path, hash_, fragment = url.partition("#")
    target = posixpath.normpath(posixpath.join(ctx.folder, path))
    if is_page(target) or target.startswith(".."):
        return url
    return f"{ctx.repository}{target}{hash_}{fragment}"


def _link(m: re.Match, ctx: Context, here: set[str], shelf: Shelf) -> str:
    text, url = m[1], m[2].strip("<>")
    key = ctx.cited.get(bibliography.normal(url)) if re.match("https?:", url) else None
    if key:
        ctx.on_cite(key)
        if ctx.flavour == "myst":
            return shelf.put(f"[{text}](#ref-{key.lower()})")
        by_name = re.search(r"\b(1[89]|20)\d\d[a-z]?\)?$", text)
        return f"\ue002{key}\ue003" if by_name else shelf.put(f"{m[0]} [@{key}]")
    tag = re.fullmatch(rf"(?:Eqs?\.\s)?\(({TAG})\)", text)
    if tag and (target := _equation_target(tag[1], ctx, here)):
        return shelf.put(f"[{text}]({target})")
    return shelf.put(f"[{text}]({rewrite_url(url, ctx)}{m[3] or ''})")


def links(text: str, ctx: Context, here: set[str]) -> str:
    """Links to works that references.bib knows become citations, `Eq. (MAML-2)` becomes
    a link, and so on.

    here: the tags that this notebook defines.
    """

    def change(t: str) -> str:
        shelf = Shelf("\ue004")
        if ctx.flavour == "myst":  # the offline edition asks no other host for pictures
            t = IMAGE.sub(lambda m: m[1] if re.match("https?:", m[2]) else m[0], t)
        t = LINK.sub(lambda m: _link(m, ctx, here, shelf), t)
        group = r"\ue002[^\ue003]*\ue003"
        t = re.sub(
            rf"\(({group}(?:[;,] {group})*)\)",
            lambda m: (
                "["
                + "; ".join(f"@{k}" for k in re.findall(r"\ue002([^\ue003]*)", m[1]))
                + "]"
            ),
            t,
        )
        t = re.sub(r"\ue002([^\ue003]*)\ue003", r"@\1", t)

        def equation(m: re.Match) -> str:
            target = _equation_target(m[1], ctx, here)
            return f"[{m[0]}]({target})" if target else m[0]

        return shelf.restore(re.sub(rf"(?:\bEqs?\.[ \u00a0])?\(({TAG})\)", equation, t))

    return outside_code(text, change)


def markdown(text: str, ctx: Context, here: set[str] = frozenset()) -> str:
    "One markdown cell as the site wants it."
    return links(equation_anchors(callouts(text, ctx.flavour), ctx.flavour), ctx, here)


# --- cells and notebooks --------------------------------------------------------------


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def as_lines(text: str | list[str]) -> list[str]:
    """A text of a notebook as a list of lines, each with its line break.

    Quarto joins what it gets without line breaks: a text in one piece loses all of
    them.
    """
    return re.findall(r"[^\n]*\n|[^\n]+", "".join(text))


def outputs(found: list[dict], flavour: str = "quarto") -> list[dict]:
    """Stored outputs without progress bars, their texts as lists of lines.

    Standard error and live widgets are not part of the book.
    """
    kept = [
        o
        for o in found
        if not (o.get("output_type") == "stream" and o.get("name") == "stderr")
        and "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
    ]
    return [output(o, flavour) for o in kept]


def output(found: dict, flavour: str = "quarto") -> dict:
    "One stored output as the site wants it."
    if "text" in found:
        return {**found, "text": as_lines(found["text"])}
    if "data" not in found:
        return found
    data = {
        kind: as_lines(value) if kind.startswith("text/") else value
        for kind, value in found["data"].items()
    }
    if flavour == "quarto" and "text/html" in data:
        data = {"text/markdown": as_lines(quarto_html("".join(data["text/html"])))}
    return {**found, "data": data}


def quarto_html(html: str) -> str:
    """HTML of an output as the Markdown that Quarto is given for it.

    For an output of the type `text/html` Quarto adds two scripts of another host to
    the page; a raw block in Markdown shows the same and adds nothing. An interactive
    figure is for pages with scripts only: an EPUB gets its picture as it stands, with
    the caption and without the control.
    """

    def raw(text: str) -> str:
        return f"```{{=html}}\n{text.strip()}\n```"

    if "<script" not in html:
        return raw(html)
    html_js = 'when-format="html:js"'
    return (
        f"::: {{.content-visible {html_js}}}\n{raw(html)}\n:::\n\n"
        f"::: {{.content-hidden {html_js}}}\n{raw(still(html))}\n:::"
    )


def still(html: str) -> str:
    "An interactive figure or table: well-formed, without script and controls."
    text = re.sub(r"<script\b.*?</script>|<p><label>.*?</p>", "", html, flags=re.S)
    text = re.sub(r"</?button\b[^>]*>", "", text)  # headings that sort a table
    text = re.sub(r"<input\b[^>]*>|<path\b[^>]*\bd=\"\"[^>]*>", "", text)
    return text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')


def module_line(module: str, ctx: Context) -> str:
    "The line under an exported cell."
    name, target = f"metalearn_book.{module}", api_anchor(module)
    if ctx.flavour == "myst":
        return f"{{.export-link}}\nin the package: [`{name}`](#{target})"
    page = f"nbs/appendices/api/{module.split('.')[0]}.md"
    url = f"{posixpath.relpath(page, ctx.folder)}#{target}"
    return f"::: {{.export-link}}\nin the package: [`{name}`]({url})\n:::"


def api_anchor(module: str) -> str:
    return "api-" + re.sub(r"[._]", "-", module)


def only_imports(code: str) -> bool:
    "Does a cell do nothing but import?"
    try:
        found = ast.parse(code).body
    except SyntaxError:  # magics
        return False
    return bool(found) and all(
        isinstance(n, (ast.Import, ast.ImportFrom)) for n in found
    )


def code_cell(cell: dict, module: str | None, ctx: Context) -> list[dict]:
    """A code cell without nbdev's words, followed by a line that names its module if it
    is exported; nothing if it is hidden."""
    directives, body = split_directives(text_of(cell))
    names = {name for name, _ in directives}
    if names & {"hide", "default_exp"} or not body.strip():
        return []
    found = options(directives)
    if found.get("include") == "false":
        return []
    imports = only_imports(body)
    if imports:  # folded: a reader opens them when they are wanted
        found = {"code-fold": "true", "code-summary": "Imports"} | found
    head = "".join(f"#| {name}: {yaml_value(value)}\n" for name, value in found.items())
    shown = {
        **cell,
        "source": (head if ctx.flavour == "quarto" else "") + body,
        "outputs": outputs(cell.get("outputs", []), ctx.flavour),
    }
    if ctx.flavour == "myst":
        shown["metadata"] = myst_metadata(cell.get("metadata", {}), found)
    if names & EXPORTS and module and not imports:
        return [
            shown,
            {
                "cell_type": "markdown",
                "id": f"{cell.get('id', 'cell')}-m"[-64:],
                "metadata": {},
                "source": module_line(module, ctx),
            },
        ]
    return [shown]


def myst_metadata(metadata: dict, found: dict[str, str]) -> dict:
    "The options of a cell in the words of MyST-NB."
    tags = list(metadata.get("tags", []))
    for name, value, tag in (
        ("echo", "false", "remove-input"),
        ("output", "false", "remove-output"),
        ("code-fold", "true", "hide-input"),
        ("code-fold", "show", "hide-input"),
    ):
        if found.get(name) == value:
            tags.append(tag)
    out: dict = {"tags": tags}
    own: dict = {}
    if "fig-alt" in found:
        own["image"] = {"alt": unquote(found["fig-alt"])}
    if "fig-cap" in found:
        own["figure"] = {"caption": unquote(found["fig-cap"])} | (
            {"name": unquote(found["label"])} if "label" in found else {}
        )
    return out | ({"mystnb": own} if own else {})


def convert(notebook: dict, ctx: Context) -> tuple[dict, list[int]]:
    """The notebook as the site wants it, and for each of its cells the number of the
    original cell."""
    cells, numbers = [], []
    here = {
        t
        for c in notebook["cells"]
        if c["cell_type"] == "markdown"
        for t in tags_in(text_of(c))
    }
    module = default_exp(notebook["cells"])
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            new = code_cell(cell, module, ctx)
        elif cell["cell_type"] == "markdown":
            new = [{**cell, "source": markdown(text_of(cell), ctx, here)}]
        else:
            new = [cell]
        cells += [{**c, "source": as_lines(c["source"])} for c in new]
        numbers += [number] * len(new)
    return {**notebook, "cells": cells}, numbers


# --- the book around the notebook (reads files) ---------------------------------------


def read_notebook(path: Path) -> dict:
    "A notebook's JSON; ValueError for a file that is none."
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"]
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(
            f"{path} is not a notebook ({type(e).__name__}: {e}); "
            "restore it with git checkout"
        ) from None
    return notebook


def repository(root: Path = ROOT) -> str:
    "Address at which the project's files can be read, from settings.ini."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(root / "settings.ini", encoding="utf-8")
    s = settings["DEFAULT"]
    return (
        f"https://github.com/{s.get('user', '')}/{s.get('repo', '')}/blob/"
        f"{s.get('branch', 'main')}/"
    )


def all_tags(root: Path = ROOT) -> dict[str, str]:
    "Every equation tag of the book and the notebook that defines it."
    found: dict[str, str] = {}
    for path in sorted(root.glob("nbs/**/*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            for tag in re.findall(
                rf"\\\\tag\{{({TAG})\}}", path.read_text(encoding="utf-8")
            ):
                found.setdefault(tag, path.relative_to(root).as_posix())
    return found


def book_context(folder: Path, flavour: str = "quarto", root: Path = ROOT) -> Context:
    "The context of the notebooks in a folder."
    try:
        relative = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        relative = "nbs"
    return Context(
        flavour=flavour,
        folder=relative,
        cited=bibliography.index(bibliography.load(root / "references.bib")),
        tags=all_tags(root),
        repository=repository(root),
    )


def main() -> None:
    notebook = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    converted, _ = convert(notebook, book_context(Path.cwd()))
    sys.stdout.buffer.write(json.dumps(converted, ensure_ascii=False).encode("utf-8"))


if __name__ == "__main__":
    ending.run(main)
