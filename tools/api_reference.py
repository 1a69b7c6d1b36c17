"""The API reference, read from the source by griffe: nothing is imported.

python tools/api_reference.py            write nbs/appendices/api.md, the index, and
                                         nbs/appendices/api/<part>.md, and list them in
                                         _quarto.yml
python tools/api_reference.py --check    exit status 1 and a list, where a page is not
                                         what the source says

The pages are committed, because Quarto looks for every file of `_quarto.yml` before it
runs anything. They are plain Markdown with anchors of their own, `api-<module>` and
`api-<module>-<name>`, and the offline edition reads the same files. Whether everything
is documented is asked by tools/check_api.py.
"""

from __future__ import annotations

import ast
import copy
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import griffe
import quarto_filter as qf
from notebooks import PACKAGE, ROOT, read, settings, source, title_of, write_atomically

FOLDER = "nbs/appendices"
INDEX = f"{FOLDER}/api.md"
ORDER = [
    "foundations",
    "optimization",
    "metric",
    "model_based",
    "language_models",
    "case_studies",
    "practice",
    "deployment",
    "data",
    "book",
]
TITLES = {"cli": "Command line"}
WIDTH = 88


# --- what the source says -------------------------------------------------------------


class Attached(griffe.Extension):
    """Methods that a module gives to its classes after their definition:
    `C.a, C.b = f, classmethod(g)`, or `@patch def a(self: C)`, as in fastcore."""

    def __init__(self) -> None:
        self.made: dict[ast.AST, griffe.Object] = {}  # two methods `a` are two of them

    def on_instance(self, *, node, obj, agent, **kwargs) -> None:
        self.made[node] = obj

    def on_module_members(self, *, node, mod, agent, **kwargs) -> None:
        functions = {
            n.name: n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)
        }
        for owner, name, function, wrapper in attached(node.body):
            cls = mod.members.get(owner)
            given = self.made.get(
                functions.get(function) if isinstance(function, str) else function
            )
            if (
                given is not None
                and cls is not None
                and not cls.is_alias
                and cls.is_class
            ):
                method = copy.copy(given)
                method.name, method.labels = name, given.labels | {wrapper}
                cls.set_member(name, method)


def pairs(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    "(target, value) of an assignment, also of one to a tuple."
    if isinstance(node, ast.Assign):
        sides = (node.targets[0], node.value)
        yield from zip(*(s.elts if isinstance(s, ast.Tuple) else [s] for s in sides))


def attached(
    body: list[ast.stmt],
) -> Iterator[tuple[str, str, str | ast.FunctionDef, str]]:
    "(class, method, function or its name, wrapper) of every method that is attached."
    for node in body:
        for target, value in pairs(node):
            wrapper = ""
            if isinstance(value, ast.Call) and value.args:
                wrapper, value = ast.unparse(value.func), value.args[0]
            if isinstance(target, ast.Attribute) and isinstance(value, ast.Name):
                yield ast.unparse(target.value), target.attr, value.id, wrapper
        if isinstance(node, ast.FunctionDef) and node.args.args:
            words = [
                re.match(r"[\w.]+", ast.unparse(d))[0] for d in node.decorator_list
            ]
            owner = node.args.args[0].annotation
            if owner and any(w.split(".")[-1] == "patch" for w in words):
                yield ast.unparse(owner).strip("'\""), node.name, node, ""


class Module:
    "A public module: what griffe says of it, and what only its text tells."

    def __init__(self, obj: griffe.Module, root: Path):
        self.obj, self.name = obj, obj.path.removeprefix(f"{PACKAGE}.")
        self.part, _, last = self.name.partition(".")
        self.file = Path(obj.filepath).relative_to(root).as_posix()
        text = (root / self.file).read_text(encoding="utf-8")
        self.tree, self.comments = ast.parse(text), comments(text)
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        self.nodes = [n for n in ast.walk(self.tree) if isinstance(n, kinds)]
        self.exports = [str(n) for n in obj.exports or []]
        here = {n: m for n, m in obj.members.items() if not m.is_alias}
        #: public names that are defined here, in the order of the text
        self.names = sorted(set(self.exports) & set(here), key=lambda n: here[n].lineno)
        notebooks = sorted(
            (root / "nbs" / self.part).glob(f"[0-9]*_{last or '-'}.ipynb")
        )
        self.chapter = notebooks[0] if notebooks else None

    def node(self, obj: griffe.Object) -> ast.stmt:
        "The syntax of a function or a class; one inside it may end on the same line."
        same = [
            n
            for n in self.nodes
            if n.end_lineno == obj.endlineno and n.lineno >= obj.lineno
        ]
        return min(same, key=lambda n: n.lineno)

    def notes(self, function: griffe.Function) -> dict[str, str]:
        """Parameter, or `return` -> the comment on its line, if it has the line for
        itself."""
        node = self.node(function)
        a = node.args
        every = [
            *a.posonlyargs,
            *a.args,
            *a.kwonlyargs,
            *filter(None, (a.vararg, a.kwarg)),
        ]
        lines = [(x.arg, x.lineno) for x in every]
        if node.returns and node.returns.end_lineno < node.body[0].lineno:
            lines.append(("return", node.returns.end_lineno))
        rows = [line for _, line in lines]
        return {
            name: self.comments[line]
            for name, line in lines
            if line in self.comments and rows.count(line) == 1
        }

    def raised(self, functions: list[griffe.Function]) -> list[str]:
        "Errors that functions raise themselves, or through others of their module."
        helpers = {n.name: n for n in self.tree.body if isinstance(n, ast.FunctionDef)}
        todo, seen, found = [self.node(f) for f in functions], set(), set()
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            tried = {
                x
                for t in ast.walk(node)
                if isinstance(t, ast.Try) and t.handlers
                for line in t.body
                for x in ast.walk(line)
            }  # may be caught
            for n in set(ast.walk(node)) - tried:
                if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call):
                    found.add(ast.unparse(n.exc.func))
                elif isinstance(n, ast.Call) and isinstance(n.func, ast.Name):
                    todo.append(helpers.get(n.func.id))
        return sorted(e for e in found if e.endswith("Error"))

    def private_bases(self, cls: griffe.Class) -> list[griffe.Class]:
        "They have no entry of their own, so what they bring is shown with the class."
        found = [
            self.obj.members.get(str(b)) for b in cls.bases if str(b).startswith("_")
        ]
        return [c for c in found if c is not None and c.is_class]

    def methods(self, cls: griffe.Class) -> dict[str, griffe.Object]:
        "Public methods and properties of a class, in the order of the text."
        found = {}
        for base in self.private_bases(cls):
            found |= self.methods(base)
        found |= {
            n: m
            for n, m in cls.members.items()
            if not m.is_alias and m.lineno and (m.is_function or "property" in m.labels)
        }
        public = [n for n in found if not n.startswith("_") or n == "__call__"]
        return {n: found[n] for n in sorted(public, key=lambda n: found[n].lineno)}

    def fields(self, cls: griffe.Class) -> dict[str, griffe.Attribute]:
        "Public annotated attributes in the body of a class, but for `ClassVar`s."
        body = {
            n.lineno
            for n in self.node(cls).body
            if isinstance(n, ast.AnnAssign)
            and "ClassVar" not in ast.unparse(n.annotation)
        }
        return {
            n: m
            for n, m in cls.members.items()
            if not m.is_alias and m.lineno in body and not n.startswith("_")
        }

    def constructor(self, cls: griffe.Class) -> griffe.Function | None:
        """`__init__`, its own, that of a private base, or the one that `@dataclass`
        makes."""
        own = cls.members.get("__init__")
        return own or next(
            filter(None, map(self.constructor, self.private_bases(cls))), None
        )

    def borrowed(self, cls: griffe.Class) -> dict[str, list[str]]:
        """Class -> methods that are taken from it as they are, as in `adapt =
        Other.adapt`."""
        found: dict[str, list[str]] = {}
        for target, value in (p for n in self.node(cls).body for p in pairs(n)):
            if isinstance(value, ast.Attribute) and value.attr == ast.unparse(target):
                found.setdefault(ast.unparse(value.value), []).append(value.attr)
        return found


def comments(text: str) -> dict[int, str]:
    """The comment at the end of each line, nbdev's way of documenting in place. Lines
    that begin with `#: ` count for the line below them."""
    found, above = {}, []
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if t.type == tokenize.COMMENT:
            if t.line[: t.start[1]].strip():
                found[t.start[0]] = t.string.lstrip("#: ").strip()
            elif t.string.startswith("#: "):
                above.append(t.string[3:].strip())
        elif t.type not in (tokenize.NL, tokenize.NEWLINE) and above:
            found[t.start[0]], above = " ".join(above), []
    return {n: c for n, c in found.items() if not re.match(r"noqa|type:|pragma", c)}


def load(root: Path = ROOT) -> list[Module]:
    "Every module with an `__all__`, in the order of the book."
    package = griffe.load(
        PACKAGE,
        search_paths=[root],
        try_relative_path=False,
        allow_inspection=False,
        extensions=griffe.load_extensions(Attached),
    )
    found, todo = [], [m for m in package.members.values() if not m.is_alias]
    while todo:
        if (m := todo.pop()).is_module:
            todo += [x for x in m.members.values() if not x.is_alias]
            found += [Module(m, root)] if m.exports else []

    def place(m: Module) -> tuple[int, str, str]:
        at = ORDER.index(m.part) if m.part in ORDER else len(ORDER)
        return at, m.chapter.name if m.chapter else "~", m.name

    return sorted(found, key=place)


# --- anchors and text -----------------------------------------------------------------


def symbol_anchor(module: str, symbol: str, names: list[str]) -> str:
    """Anchors do not tell capitals apart: where a class and a function differ only in
    them, as `Score` and `score`, the class says so."""
    twins = [n for n in names if n.lower() == symbol.lower()]
    more = "-class" if len(twins) > 1 and symbol != symbol.lower() else ""
    return f"{qf.api_anchor(module)}-{symbol.lower().replace('_', '-')}{more}"


def escaped(text: str) -> str:
    "Prose of a docstring as Markdown: `code` and a single *word* are markup."
    pieces = re.split(r"(`[^`]+`|(?<![\w*])\*[a-z]+\*(?![\w*]))", text)
    return "".join(
        p if i % 2 else re.sub(r"([\\*_$\[\]#|@~^])", r"\\\1", p.replace("<", "&lt;"))
        for i, p in enumerate(pieces)
    )


def prose(doc: str) -> str:
    "A docstring as Markdown: indented and fenced blocks, and doctests, stay code."
    out = []
    for block in re.split(r"\n\s*\n", doc.strip("\n")):
        if all(re.match(r"\s{4}|>>>|\.\.\. ", line) for line in block.split("\n")):
            out.append(code(textwrap.dedent(block)))
        else:
            out.append(
                block if block.startswith("```") else escaped(" ".join(block.split()))
            )
    return "\n\n".join(x for x in out if x.strip())


def items_of(doc: str, known: set[str]) -> tuple[str, dict[str, str]]:
    """A docstring without its parameters, and the text of each: `lr: of the encoder.
    steps: how many`. Such a text begins a line or follows a full stop, and names only
    what is known. It ends at the next one, at a blank line, or at a sentence about
    errors or about what holds "After" a call."""
    name = r"\*{0,2}[a-z_]\w*"
    starts = [
        m
        for m in re.finditer(
            rf"(?:^|(?<=[.)] )|(?<=[.)]  ))[ ]*({name}(?:,\s{name})*): (?=\S)",
            doc,
            re.M,
        )
        if {n.strip("* \n") for n in m[1].split(",")} <= known
    ]
    found, rest, at = {}, "", 0
    for m, following in zip(starts, [*starts[1:], None]):
        end = following.start() if following else len(doc)
        stop = re.search(
            r"\n\s*\n|(?<=\.)\s+(?=(?:Raises|After|[A-Z]\w+Error)\b)",
            doc[m.end() : end],
        )
        end = m.end() + stop.start() if stop else end
        found[" ".join(m[1].split())] = " ".join(doc[m.end() : end].split())
        rest, at = rest + doc[at : m.start()], end
    return (rest + doc[at:]).strip(), found


def docstring(obj: griffe.Object) -> str:
    return obj.docstring.value if obj.docstring else ""


def sentence(doc: str) -> str:
    "The first sentence of a docstring."
    text = " ".join(re.split(r"\n\s*\n", doc.strip())[0].split())
    m = re.match(r".+?(?<!Eq)(?<!Eqs)(?<! al)[.?](?= |$)", text)
    return m[0] if m else text.rstrip(":;") + "." * bool(text)


def wrapped(line: str) -> str:
    "A signature, one parameter on a line where it would be long."
    if len(line) <= WIDTH or "(" not in line:
        return line
    start = at = line.index("(") + 1
    depth, rows = 1, []
    while depth:
        depth += (line[at] in "([{") - (line[at] in ")]}")
        if depth == 0 or depth == 1 and line[at] == ",":
            rows += textwrap.wrap(
                line[start:at].strip() + ",",
                WIDTH,
                initial_indent="    ",
                subsequent_indent=" " * 8,
                break_long_words=False,
            )
            start = at + 1
        at += 1
    return "\n".join([line[: line.index("(") + 1], *rows, line[at - 1 :]])


def quoted(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def code(text: str) -> str:
    return f"```python\n{text}\n```"


# --- the pages ------------------------------------------------------------------------


class Writer:
    "Pages of Markdown from the modules of a project."

    def __init__(self, root: Path = ROOT):
        self.root, self.modules, about = root, load(root), settings(root)
        self.version, self.tags = about["version"], qf.all_tags(root)
        self.address = f"{about['url']}/blob/v{about['version']}/"
        self.entries = {
            f"{PACKAGE}.{m.name}.{n}": (m, n) for m in self.modules for n in m.names
        }

    def pages(self) -> dict[str, str]:
        "File -> text, of every page."
        parts = dict.fromkeys(m.part for m in self.modules)
        return {INDEX: self.index(list(parts))} | {
            f"{FOLDER}/api/{p}.md": self.page(p) for p in parts
        }

    def index(self, parts: list[str]) -> str:
        "All public names, one table for each part."
        out = [
            "# API reference",
            f"Everything that `{PACKAGE}` {self.version} offers, read from its source. "
            "Most modules are built step by step in a chapter of the book; "
            "the entries link to it.",
        ]
        for part in parts:
            rows = ["| Name | What it is |", "|:---|:---|"]
            for module in (m for m in self.modules if m.part == part):
                link = f"api/{part}.md#{qf.api_anchor(module.name)}"
                text = escaped(sentence(docstring(module.obj)))
                rows.append(f"| **[`{module.name}`]({link})** | *{text}* |")
                for name in module.names:
                    text = sentence(self.split(module, name)[0])
                    rows.append(
                        f"| [`{name}`](api/{part}.md#{self.anchor(module, name)}) "
                        f"| {escaped(text)} |"
                    )
            out += [f"## {self.title(part)}", "\n".join(rows)]
        return self.finish(out, FOLDER)

    def page(self, part: str) -> str:
        "The page of a part."
        # the anchor that Markdown would make of the title may be that of a module
        out = [f"# API: {self.title(part)} {{#api-part-{part.replace('_', '-')}}}"]
        for module in (m for m in self.modules if m.part == part):
            out += self.section(module)
        return self.finish(out, f"{FOLDER}/api")

    def title(self, part: str) -> str:
        return TITLES.get(part, part.replace("_", " ").capitalize())

    def finish(self, blocks: list[str], folder: str) -> str:
        "One text, in which equations that the chapters number are links."
        text = "\n\n".join(b for b in blocks if b) + "\n"
        anchors = re.findall(r"^#+ .*\{#([\w-]+)\}$", text, re.M)
        if twice := {a for a in anchors if anchors.count(a) > 1}:
            raise ValueError(
                f"several public names have the anchor {', '.join(sorted(twice))}; "
                "rename one"
            )
        return qf.markdown(text, qf.Context("quarto", folder, {}, self.tags))

    def section(self, module: Module) -> list[str]:
        "A module with all its entries."
        links = [
            f"Module `{PACKAGE}.{module.name}`",
            f"[source]({self.address}{module.file})",
        ]
        if module.chapter:
            links.append(
                f"chapter [{title_of(read(module.chapter))[0]}]({self.up(module)})"
            )
        short = module.name.rpartition(".")[
            2
        ]  # a long heading does not fit beside the page
        out = [
            f"## `{short}` {{#{qf.api_anchor(module.name)}}}",
            prose(docstring(module.obj)),
            " · ".join(links),
        ]
        if others := [n for n in module.exports if n not in module.names]:
            links = ", ".join(self.linked(module, n) for n in others)
            out.append(f"Offers, from its modules: {links}.")
        built = self.built(module)
        for name in module.names:
            out += self.entry(module, name, built.get(name, ""))
        return out

    def entry(self, module: Module, name: str, built: str) -> list[str]:
        "A name with its methods."
        obj, anchor = module.obj.members[name], self.anchor(module, name)
        links = f"[Source]({self.address}{module.file}#L{obj.lineno}-L{obj.endlineno})"
        links += f" · built in {built}" if built else ""
        if obj.is_attribute:
            line = f"{name} = {obj.value}"
            head = line if len(line) <= 160 else f"{line[:120]} ..."
            head = "\n".join(textwrap.wrap(head, WIDTH, subsequent_indent="    "))
        else:
            head = self.head(obj)
        out = [
            f"### `{name}` {{#{anchor}}}",
            code(head),
            *self.text(module, name, obj),
            links,
        ]
        for key, method in (module.methods(obj) if obj.is_class else {}).items():
            out += [
                f"#### `{name}.{key}` "
                f"{{#{anchor}-{key.strip('_').lower().replace('_', '-')}}}",
                code(self.head(method)),
                *self.text(module, key, method),
            ]
        return out

    def head(self, obj: griffe.Object) -> str:
        "What one writes to call it."
        if "property" in obj.labels:
            return f"@property\n{obj.name}" + (
                f": {obj.annotation}" if obj.annotation else ""
            )
        kind = next(
            (f"@{w}\n" for w in ("classmethod", "staticmethod") if w in obj.labels), ""
        )
        if not obj.is_class:
            first = obj.parameters[0].name if len(obj.parameters) else ""
            line = obj.signature()
            if obj.parent.is_class and first in (
                "self",
                "cls",
            ):  # attached methods keep it
                line = re.sub(
                    r"^(\w+\()(?:self|cls)(?:: [\w'\"]+)?(?:, )?", r"\1", line
                )
            return kind + wrapped(re.sub(r"-> '(\w+)'$", r"-> \1", line))
        init = next(
            (m.constructor(obj) for m in self.modules if m.obj is obj.module), None
        )
        return wrapped(
            f"class {init.signature(return_type=False, name=obj.name)}"
            if init
            else f"class {obj.name}"
        )

    def split(
        self, module: Module, name: str, obj: griffe.Object | None = None
    ) -> tuple[str, dict[str, str], str]:
        """Text, described parameters and fields in the order of the signature, and what
        is returned."""
        obj = obj or module.obj.members[name]
        if obj.is_attribute:
            note = module.comments.get(obj.lineno, "")
            note = note[:1].upper() + note[1:] + "." * (note[-1:] not in (".", ""))
            return docstring(obj) or note, {}, ""
        init, fields = (
            (module.constructor(obj), module.fields(obj)) if obj.is_class else (obj, {})
        )
        doc, written = docstring(obj), init is not None and bool(init.lineno)
        if obj.is_class and written and docstring(init):
            doc += f"\n\n{docstring(init)}"
        order = [*([p.name for p in init.parameters] if init else []), *fields]
        text, items = items_of(doc, set(order))
        notes = module.notes(init) if written else {}
        notes |= {
            n: module.comments[m.lineno]
            for n, m in fields.items()
            if m.lineno in module.comments
        }
        returned, items = notes.pop("return", ""), notes | items
        place = {
            key: min(order.index(n.strip("* ")) for n in key.split(","))
            for key in items
        }
        return text, {key: items[key] for key in sorted(items, key=place.get)}, returned

    def text(self, module: Module, name: str, obj: griffe.Object) -> list[str]:
        "What is to be read under a signature."
        text, items, returned = self.split(module, name, obj)
        more, raising = [], [] if obj.is_attribute else [obj]
        if obj.is_class:
            raising = [module.constructor(obj), obj.members.get("__post_init__")]
            bases = [
                self.linked(module, str(b))
                for b in obj.bases
                if not str(b).startswith("_")
            ]
            more += [f"Extends {', '.join(bases)}."] if bases else []
            more += [
                f"Has {quoted(names)} of {self.linked(module, owner)}."
                for owner, names in module.borrowed(obj).items()
            ]
        said = set(re.findall(r"\w+Error", docstring(obj)))
        errors = [
            e
            for e in module.raised([f for f in raising if f and f.lineno])
            if e not in said
        ]
        more += [f"Returns {escaped(returned)}."] if returned else []
        more += (
            [f"{'Also raises' if said else 'Raises'} {quoted(errors)}."]
            if errors
            else []
        )
        return [
            prose(text),
            "\n".join(
                f"- {quoted(key.split(', '))}: {escaped(t)}" for key, t in items.items()
            ),
            " ".join(more),
        ]

    def anchor(self, module: Module, name: str) -> str:
        return symbol_anchor(module.name, name, module.names)

    def linked(self, module: Module, name: str) -> str:
        "A name as it is known in a module, with a link where the reference has it."
        member = module.obj.members.get(name)
        path = (
            getattr(member, "target_path", None)
            if member is not None and member.is_alias
            else getattr(member, "path", "")
        )
        if path not in self.entries:
            return f"`{name}`"
        home, own = self.entries[path]
        page = "" if home.part == module.part else f"{home.part}.md"
        return f"[`{name}`]({page}#{self.anchor(home, own)})"

    def up(self, module: Module) -> str:
        return f"../../{module.chapter.relative_to(self.root / 'nbs').as_posix()}"

    def built(self, module: Module) -> dict[str, str]:
        "Name -> link to the section of the chapter whose cell defines it."
        found, heading = {}, ""
        cells = read(module.chapter)["cells"] if module.chapter else []
        slugs = [
            qf.slug(h)
            for c in cells
            if c["cell_type"] == "markdown"
            for _, h in qf.headings(source(c))
        ]
        for cell in cells:
            if cell["cell_type"] == "markdown":
                heading = ([heading] + [h for _, h in qf.headings(source(cell))])[-1]
            elif re.search(r"^#\|\s*export", source(cell), re.M) and heading:
                slug = qf.slug(heading)
                sure = slug == qf.pandoc_slug(heading) and slugs.count(slug) == 1
                link = f"[{heading}]({self.up(module)}{'#' + slug if sure else ''})"
                names = re.findall(
                    r"^(?:(?:class|def) )?(\w+)(?=\(|:| =)", source(cell), re.M
                )
                found |= dict.fromkeys(names, link)
        return found


# --- files ----------------------------------------------------------------------------


def listing(text: str, pages: list[str]) -> str:
    "_quarto.yml with exactly these pages under the index."
    text = re.sub(rf"^ *- {FOLDER}/api/\w+\.md\n", "", text, flags=re.M)
    more = "".join(f"    - {p}\n" for p in pages if p != INDEX)
    return re.sub(rf"^ *- {INDEX}\n", lambda m: m[0] + more, text, flags=re.M)


def differences(root: Path = ROOT) -> dict[Path, str | None]:
    """Files that are not what the source says, with the text that they should have;
    None for the page of a part that is no more."""
    pages = Writer(root).pages()
    wanted = {root / name: text for name, text in pages.items()}
    if (book := root / "_quarto.yml").exists():
        wanted[book] = listing(book.read_text(encoding="utf-8"), list(pages))
    old = {
        p: None for p in sorted((root / FOLDER / "api").glob("*.md")) if p not in wanted
    }
    return old | {
        p: text
        for p, text in wanted.items()
        if not p.exists() or p.read_text(encoding="utf-8") != text
    }


def write(root: Path = ROOT) -> list[str]:
    "Write what differs; returns the names of the files."
    changed = differences(root)
    for path, text in changed.items():
        path.unlink() if text is None else write_atomically(path, text)
    return [p.relative_to(root).as_posix() for p in changed]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        if names := [p.relative_to(ROOT).as_posix() for p in differences()]:
            print(
                "the API reference is not what the source says; run: make export. "
                f"Files: {', '.join(names)}"
            )
        return bool(names)
    if arguments:
        print(__doc__)
        return 2
    print(f"API reference: {', '.join(write()) or 'nothing'} written")
    return 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
