"""Which definitions of the package a piece of code reaches, directly or through others.

Everything is read from the syntax; nothing is imported. The digest of a definition does
not change with format, comments, docstrings, or the module that it stands in, so that
moving a function to another room, or formatting the book, makes no chapter stale.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from notebooks import PACKAGE, ROOT

IMPORTS = (ast.Import, ast.ImportFrom)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (ast.ClassDef, *FUNCTIONS)
#: the decorator that gives a function to the class that its first parameter names
PATCH = "patch"
#: decorators that do nothing but wrap the method below them
WRAPPERS = {
    "abstractmethod",
    "cached_property",
    "classmethod",
    "inference_mode",
    "no_grad",
    "once_differentiable",
    "overload",
    "property",
    "staticmethod",
}
#: what differs between Python versions, or says nothing that a run could show
UNTOLD = {"ctx", "kind", "type_comment", "type_ignores"}
#: the annotation of a module-level dict of which only the entries count that are looked
#: up
TABLE = "ByName"
#: stands for the statements that a module runs when it is imported
ON_IMPORT = "(on import)"


# --- the syntax of a definition, the same under every version of Python ---------------


def without_magics(code: str) -> str:
    "Lines such as `%matplotlib inline` as blank lines."
    return re.sub(r"^[ \t]*[%!].*$", "", code, flags=re.M)


def _is_patch(node: ast.AST) -> bool:
    return any(isinstance(d, ast.Name) and d.id == PATCH for d in node.decorator_list)


def patched_class(node: ast.stmt) -> str | None:
    "`A` for `@patch def f(self: A)`, a method that is written outside of its class."
    if isinstance(node, ast.FunctionDef) and _is_patch(node) and node.args.args:
        kind = node.args.args[0].annotation
        if isinstance(kind, ast.Constant):  # "A"
            return str(kind.value)
        return kind.id if isinstance(kind, ast.Name) else None
    return None


def _inside(node: ast.FunctionDef) -> ast.FunctionDef:
    "A patched method as it would stand in its class."
    node = copy.deepcopy(node)
    node.args.args[0].annotation = None
    node.decorator_list = [
        d
        for d in node.decorator_list
        if not (isinstance(d, ast.Name) and d.id == PATCH)
    ]
    return node


def gathered(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements with patched methods in their classes, and methods in alphabetical
    order where theirs says nothing."""
    classes = {s.name for s in statements if isinstance(s, ast.ClassDef)}
    methods: dict[str, list[ast.stmt]] = {}
    rest = []
    for s in statements:
        if (of := patched_class(s)) in classes:
            methods.setdefault(of, []).append(_inside(s))
        else:
            rest.append(s)
    return [
        _ordered(s, methods.get(s.name, [])) if isinstance(s, ast.ClassDef) else s
        for s in rest
    ]


def _ordered(node: ast.ClassDef, more: list[ast.stmt]) -> ast.ClassDef:
    """A class with more methods; those whose order says nothing sorted by name.

    A method that builds on another one (`@x.setter`) stays behind it. Methods below a
    decorator that may do more than wrap them (one that counts or registers), and those
    that another statement of the class uses (`__str__ = __repr__`), stay as they stand.
    """
    body = _body(node, node.body) + more
    methods = [s for s in body if isinstance(s, FUNCTIONS)]
    homes: dict[str, str] = {}  # name of a method -> the one beside which it is sorted
    bound = {
        n.id
        for s in body
        if s not in methods
        for n in ast.walk(s)
        if isinstance(n, ast.Name)
    }
    for s in methods:
        if home := _home(s, homes):
            homes.setdefault(s.name, home)
        else:
            bound.add(s.name)
    free = [s for s in methods if not bound & {s.name, homes.get(s.name)}]
    node = copy.copy(node)
    node.body = [s for s in body if s not in free]
    node.body += sorted(free, key=lambda s: homes[s.name])
    return node


def _home(method: ast.FunctionDef, homes: dict[str, str]) -> str | None:
    """The name beside which a method is sorted: its own, or that of the method that a
    decorator of it names; None where its place may say something."""
    home = method.name
    for decorator in method.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(call, ast.Attribute) and _root_name(call) in homes:
            home = homes[_root_name(call)]
        elif (_dotted(call) or "").rpartition(".")[2] not in WRAPPERS:
            return None
    return home


def _body(node: ast.AST, statements: list) -> list:
    "The statements that do something: no docstring, no imports."
    first = statements[0] if statements else None
    if isinstance(node, (ast.Module, *DEFINITIONS)) and isinstance(first, ast.Expr):
        if isinstance(getattr(first.value, "value", None), str):
            statements = statements[1:]
    return [s for s in statements if not isinstance(s, IMPORTS)]


def canonical(node) -> str:
    "The syntax below a node as text; a module is taken for the body of a notebook."
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = gathered(_body(node, value))
        if name not in UNTOLD and value is not None and value != []:
            parts.append(f"{name}={canonical(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


# --- modules --------------------------------------------------------------------------


@dataclass
class Module:
    "What the top level of a module binds."

    name: str
    is_package: bool = False
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)  # run when it is imported


def module_file(name: str, root: Path = ROOT) -> Path | None:
    "The file of a module of the package."
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and name.split(".")[0] == PACKAGE:
            return path
    return None


def import_targets(
    node: ast.stmt, module: str = "", is_package: bool = False
) -> Iterator[tuple[str, str, str | None]]:
    "(local name, module, name in it or None) for everything that an import binds."
    if isinstance(node, ast.Import):
        for a in node.names:
            local = a.asname or a.name.split(".")[0]
            yield local, a.name if a.asname else local, None
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".")
            parents = parents[: len(parents) - node.level + is_package]
            base = ".".join([*parents, base] if base else parents)
        for a in node.names:
            yield a.asname or a.name, base, a.name


def _root_name(node: ast.AST) -> str | None:
    "`C` for `C`, `C.a`, `C.a[k]`."
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _registers(node: ast.stmt) -> list[str]:
    "`f` for `@f.register`."
    calls = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    names = [_root_name(d) for d in calls if isinstance(d, ast.Attribute)]
    return [name for name in names if name]


def _binds(node: ast.stmt) -> list[str]:
    "The names that a statement defines, or whose value it extends."
    if isinstance(node, DEFINITIONS):
        of = patched_class(node)
        return [of] if of else [node.name, *_registers(node)]
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    else:  # a block: whatever is bound somewhere in it
        return [
            name
            for inner in ast.walk(node)
            if inner is not node and isinstance(inner, (*DEFINITIONS, ast.Assign))
            for name in _binds(inner)
        ]
    flat: list[ast.AST] = []
    for t in targets:
        flat += t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t]
    return [name for t in flat if (name := _root_name(t))]


def parse(code: str, name: str = "", is_package: bool = False) -> Module:
    "The top level of a module, or of a notebook's cells put together."
    module = Module(name, is_package)
    for node in ast.parse(without_magics(code)).body:
        nested = [n for n in ast.walk(node) if isinstance(n, IMPORTS)]
        if not isinstance(node, DEFINITIONS):
            for n in nested:
                for local, base, what in import_targets(n, name, is_package):
                    module.imports[local] = (base, what)
        if isinstance(node, IMPORTS):
            continue
        names = _binds(node)
        for bound in names:
            if bound != "__all__":
                module.bound.setdefault(bound, []).append(node)
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not names and not text:
            module.always.append(node)
    return module


@functools.lru_cache(maxsize=None)
def _parsed(path: Path, changed: int, name: str) -> Module:
    return parse(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")


def load(name: str, root: Path = ROOT) -> Module | None:
    path = module_file(name, root)
    return _parsed(path, path.stat().st_mtime_ns, name) if path else None


def imported_modules(path: Path, root: Path = ROOT) -> set[str]:
    """Names of the package's modules that a file of it imports, at the top or within
    functions."""
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    is_package = path.name == "__init__.py"
    module = module.removesuffix(".__init__")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for _, base, name in import_targets(node, module, is_package):
            found |= {base, f"{base}.{name}"} if name else {base}
    return {n for n in found if n != PACKAGE and module_file(n, root)}


def handed_on(module: Module) -> dict[str, str]:
    "Name -> module below, for what a package hands on lazily by a table `_NAMES`."
    table = module.bound.get("_NAMES", ())
    return {
        name: home
        for node in table
        for home, names in ast.literal_eval(node.value).items()
        for name in names
    }


# --- reaching -------------------------------------------------------------------------


def texts(module: Module) -> set[str]:
    "Every text that is written in a module's code."
    nodes = [s for every in module.bound.values() for s in every] + module.always
    return {
        n.value
        for node in nodes
        for n in ast.walk(node)
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def _is_table(node: ast.stmt) -> bool:
    "A dict that its annotation calls a table: `SETS: ByName[str, Set] = {...}`."
    kind = getattr(node, "annotation", None)
    return (
        isinstance(kind, ast.Subscript)
        and isinstance(getattr(node, "value", None), ast.Dict)
        and _root_name(kind) == TABLE
    )


class Reach:
    """Everything that some code reaches in the package.

    found: (module, name) -> the statements that define it.
    A table (a module-level dict that is annotated as `ByName[...]`) is reached by its
    keys: only the entries count whose key is written in code outside the table's own
    module.
    stop: (module, name) of definitions that are noted and not followed.
    """

    def __init__(self, code: Module, root: Path = ROOT, stop: Collection = ()):
        self.root, self._stop = root, stop
        self.stopped: set[str] = set()  # names of `stop` that were met
        self.found: dict[tuple[str, str], list[ast.stmt]] = {}
        self.outside: dict[tuple[str, str], dict[str, str]] = {}  # names from elsewhere
        self._texts: dict[str, set[str]] = {}  # module -> the texts in what was reached
        self._todo: list[tuple[str, str]] = []
        every = [s for nodes in code.bound.values() for s in nodes] + code.always
        self._follow(("", ""), every, code)
        for base, name in code.imports.values():  # imported is reached, used or not
            if name and module_file(base, root) and not self._is_module(base, name):
                self._todo.append((base, name))
        while self._todo or self._open_tables():
            self._visit(*self._todo.pop())

    def _is_module(self, base: str, name: str | None) -> bool:
        return module_file(f"{base}.{name}" if name else base, self.root) is not None

    def _visit(self, base: str, name: str) -> None:
        "Take in one definition, and note what it uses."
        module = load(base, self.root)
        if (base, name) in self._stop:
            self.stopped.add(name)
            return
        if (base, name) in self.found or not module:
            return
        self.found[base, name] = []
        if name in module.bound:
            self.found[base, name] = module.bound[name]
            if name != PATCH:  # it leaves no trace, nor does what it uses
                self._follow((base, name), module.bound[name], module)
        elif name in module.imports:  # a package that hands a name on
            to, what = module.imports[name]
            self._todo.append((to, what or "*"))
        elif name == "*":
            self._todo += [(base, n) for n in module.bound]
        elif home := handed_on(module).get(name):
            self._todo.append((f"{base}.{home}", name))
        if module.always and (base, ON_IMPORT) not in self.found:
            self.found[base, ON_IMPORT] = module.always
            self._follow((base, ON_IMPORT), module.always, module)

    def _follow(self, key: tuple[str, str], nodes: list, module: Module) -> None:
        "Put what these statements use on the list."
        nodes = [n for n in nodes if not _is_table(n) or not module.name]
        inner = [n for node in nodes for n in ast.walk(node)]
        self._texts.setdefault(module.name, set()).update(
            n.value
            for n in inner
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        )
        imports = dict(module.imports)
        for n in inner:
            if isinstance(n, IMPORTS):
                for local, *target in import_targets(n, module.name, module.is_package):
                    imports[local] = tuple(target)
        taken = {id(n.value): n.attr for n in inner if isinstance(n, ast.Attribute)}
        outside = self.outside.setdefault(key, {})
        for n in inner:
            if isinstance(n, ast.Attribute):
                base, _, name = (_dotted(n) or "").rpartition(".")
                if module_file(base, self.root) and not self._is_module(base, name):
                    self._todo.append((base, name))
            elif isinstance(n, ast.Name) and n.id in imports:
                base, name = imports[n.id]
                if base.split(".")[0] != PACKAGE:
                    outside[n.id] = f"{base}.{name}" if name else base
                elif self._is_module(base, name):
                    whole = f"{base}.{name}" if name else base
                    if whole != PACKAGE:
                        self._todo.append((whole, taken.get(id(n), "*")))
                else:
                    self._todo.append((base, name))
            elif isinstance(n, ast.Name) and n.id in module.bound and module.name:
                self._todo.append((module.name, n.id))

    def _open_tables(self) -> bool:
        "Follow the entries of tables that are looked up; is there something new to do?"
        for (base, name), nodes in list(self.found.items()):
            for node in filter(_is_table, nodes):
                for key, value in self.entries(base, node):
                    entry = (base, f"{name}[{key!r}]")
                    if entry not in self.found:
                        self.found[entry] = [value]
                        self._follow(entry, [value], load(base, self.root))
        done = {(base, n) for base, n in self._stop if n in self.stopped}
        self._todo = [t for t in self._todo if t not in self.found and t not in done]
        return bool(self._todo)

    @property
    def texts(self) -> set[str]:
        "Every text that is written in what is reached."
        return set().union(*self._texts.values())

    def entries(self, base: str, table: ast.stmt) -> list[tuple[str, ast.AST]]:
        "The entries of a table that count."
        texts = set().union(*(t for name, t in self._texts.items() if name != base))
        pairs = zip(table.value.keys, table.value.values)
        return [(k.value, v) for k, v in pairs if k.value in texts]

    def digests(self) -> dict[str, str]:
        "Name -> digest; the digests of definitions that share a name stand together."
        found: dict[str, list[str]] = {}
        for key, nodes in self.found.items():
            nodes = gathered([n for n in nodes if not _is_table(n)])
            texts = [canonical(n) for n in nodes]
            if texts and key[1] != PATCH:
                uses = [f"{k}={v}" for k, v in sorted(self.outside[key].items())]
                found.setdefault(key[1], []).append(digest(*uses, *texts))
        return {name: "+".join(sorted(d)) for name, d in sorted(found.items())}


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := _dotted(node.value)):
        return f"{left}.{node.attr}"
    return None
