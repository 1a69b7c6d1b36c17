"""Writes the API reference of the package from its source: signatures, docstrings and parameter comments. Nothing is imported.

`python tools/api_reference.py` writes nbs/appendices/api.md for Quarto (its `pre-render` step); the offline edition calls `page("myst")`.
"""
from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from quarto_filter import ROOT, api_anchor, repository

PACKAGE = "metalearn_book"
TARGET = ROOT / "nbs" / "appendices" / "api.md"
ORDER = ["foundations", "optimization", "metric", "model_based", "language_models", "practice", "case_studies", "deployment", "data", "book"]


def modules(root: Path = ROOT) -> list[tuple[str, Path]]:
    "(name below the package, file) of every module with an `__all__`, in the order of the book."
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and "__all__" in path.read_text(encoding="utf-8"):
            found.append((name, path))
    return sorted(found, key=lambda item: (ORDER.index(top) if (top := item[0].split(".")[0]) in ORDER else len(ORDER), item[0]))


def public_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [n for n in ast.literal_eval(node.value)]
    return []


def comments(source: str) -> dict[int, str]:
    "The comment at the end of each line: nbdev's way of documenting a parameter in place."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|%%|\|)", t.string)}


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    "`name(a, b=1) -> c`, one parameter on a line where it would be long."
    args = ast.unparse(node.args)
    args = re.sub(r"^(self|cls)(: \w+)?(, |$)", "", args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{name}({args}){returns}"
    if len(text) <= 88:
        return text
    lines, depth, start = [], 0, 0
    for i, ch in enumerate(args + ","):
        depth += (ch in "([{") - (ch in ")]}")
        if ch == "," and depth == 0:
            lines.append(args[start:i].strip())
            start = i + 1
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){returns}"


def parameters(node: ast.FunctionDef, notes: dict[int, str]) -> list[str]:
    "List items of the parameters that have a comment on their own line."
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] + [a for a in (node.args.vararg, node.args.kwarg) if a]
    lines = [a.lineno for a in every]
    return [f"- `{a.arg}`: {escaped(notes[a.lineno])}" for a in every if a.lineno in notes and lines.count(a.lineno) == 1]


def escaped(text: str) -> str:
    "Prose of a docstring as Markdown: only code in backticks is markup."
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(p if i % 2 else re.sub(r"([\\*_$\[\]#|])", r"\\\1", p.replace("<", "&lt;")) for i, p in enumerate(pieces))


def prose(doc: str | None) -> str:
    "A docstring as Markdown: `name: text` lines become a list, indented or fenced blocks stay code."
    out: list[str] = []
    for block in re.split(r"\n\s*\n", (doc or "").strip()):
        lines = block.split("\n")
        if all(re.match(r"\s{4}|>>>|\.\.\. ", line) for line in lines) or block.startswith("```"):
            out.append(block if block.startswith("```") else "```python\n" + "\n".join(line.removeprefix("    ") for line in lines) + "\n```")
            continue
        items: list[str] = []
        for line in lines:
            m = re.match(r"(?:[-*] )?(\*{0,2}\w+(?:, \*{0,2}\w+)*)\s?: (.+)$", line)
            if m and (items or line is lines[0]) and len(m[1]) < 60 and (len(lines) > 1 or line.islower()):
                items.append(f"- `{m[1]}`: {escaped(m[2])}")
            elif items:
                items[-1] += " " + escaped(line.strip())
            else:
                items = [escaped(" ".join(x.strip() for x in lines))]
                break
        out.append("\n".join(items))
    return "\n\n".join(x for x in out if x.strip())


def _fields(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and not n.target.id.startswith("_")]


def _functions(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _attached(name: str, tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    "Methods that a chapter gives to a class later: `C.a, C.b = f, classmethod(g)`."
    functions, found = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}, []
    for node in (n for n in tree.body if isinstance(n, ast.Assign)):
        left, right = ((x.elts if isinstance(x, ast.Tuple) else [x]) for x in (node.targets[0], node.value))
        for target, value in zip(left, right):
            value = value.args[0] if isinstance(value, ast.Call) and value.args else value
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == name and isinstance(value, ast.Name) and value.id in functions:
                found.append((target.attr, functions[value.id]))
    return found


def methods(node: ast.ClassDef, tree: ast.Module) -> dict[str, ast.FunctionDef]:
    "Public methods of a class, with those of its private base classes in the same module, which have no entry of their own, and those attached later."
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    found = {f.name: f for f in _functions(node)} | dict(_attached(node.name, tree))
    for base in (ast.unparse(b) for b in node.bases):
        if base.startswith("_") and base in classes:
            found |= {name: f for name, f in methods(classes[base], tree).items() if name not in found}
    return {name: f for name, f in found.items() if not name.startswith("_") or name == "__call__"}


def class_text(node: ast.ClassDef, notes: dict[int, str], tree: ast.Module) -> str:
    "Signature, docstring and public methods of a class."
    init = next((f for f in _functions(node) if f.name == "__init__"), None)
    bases = ", ".join(ast.unparse(b) for b in node.bases)
    if init:
        head = signature(init, node.name)
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list) or "NamedTuple" in bases:
        head = f"{node.name}({', '.join(_fields(node))})"
    else:
        head = node.name
    parts = [f"```python\nclass {head}\n```", prose(ast.get_docstring(node))]
    if init:
        parts += [prose(ast.get_docstring(init)), "\n".join(parameters(init, notes))]
    rows = []
    for name, f in methods(node, tree).items():
        is_property = any(ast.unparse(d).split(".")[-1] in ("property", "cached_property") for d in f.decorator_list)
        shown = name + (f" -> {ast.unparse(f.returns)}" if f.returns else "") if is_property else " ".join(signature(f, name).split())
        doc = (ast.get_docstring(f) or "").strip().split("\n\n")[0]
        rows.append(f"- `{shown}`" + (f": {escaped(' '.join(doc.split()))}" if doc else ""))
    return "\n\n".join(p for p in [*parts, "\n".join(rows)] if p.strip())


def symbol_text(node: ast.stmt, notes: dict[int, str], tree: ast.Module) -> str:
    if isinstance(node, ast.ClassDef):
        return class_text(node, notes, tree)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return "\n\n".join(p for p in (f"```python\n{signature(node, node.name)}\n```", prose(ast.get_docstring(node)), "\n".join(parameters(node, notes))) if p.strip())
    text = ast.unparse(node)
    return f"```python\n{text if len(text) <= 200 else text[:160] + ' ...'}\n```"


def _defined(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = node
    return found


def _heading(level: int, text: str, ident: str, flavour: str) -> str:
    return f"({ident})=\n{'#' * level} {text}" if flavour == "myst" else f"{'#' * level} {text} {{#{ident}}}"


def symbol_anchor(module: str, symbol: str, names: list[str]) -> str:
    "Anchors do not tell capitals apart: where a class and a function differ only in them, as `Score` and `score`, the class says so."
    twins = [n for n in names if n.lower() == symbol.lower()]
    return f"{api_anchor(module)}-{re.sub('_', '-', symbol.lower())}{'-class' if len(twins) > 1 and symbol != symbol.lower() else ''}"


def module_text(name: str, path: Path, flavour: str, root: Path = ROOT) -> str:
    "One section of the page."
    source = path.read_text(encoding="utf-8")
    tree, notes = ast.parse(source), comments(source)
    defined, address = _defined(tree), repository(root) + path.relative_to(root).as_posix()
    parts = [_heading(2, f"`{PACKAGE}.{name}`", api_anchor(name), flavour), prose(ast.get_docstring(tree)), f"[Source]({address})"]
    chapters = sorted(root.glob(f"nbs/{name.split('.')[0]}/[0-9]*_{name.split('.')[-1]}.ipynb"))
    if chapters:
        parts[-1] = f"[The chapter that builds it]({Path('..') / chapters[0].relative_to(root / 'nbs')}) · {parts[-1]}"
    names = public_names(tree)
    for symbol in names:
        if symbol in defined:
            parts.append(_heading(3, f"`{symbol}`", symbol_anchor(name, symbol, names), flavour))
            parts.append(symbol_text(defined[symbol], notes, tree))
    return "\n\n".join(p for p in parts if p.strip())


def page(flavour: str = "quarto", root: Path = ROOT) -> str:
    "The whole page."
    intro = (f"# API reference\n\nEverything that `{PACKAGE}` exports, module by module. "
             "Most modules are built step by step in the chapter of the same name; the signatures and descriptions here are read from the source.")
    return "\n\n".join([intro, *(module_text(name, path, flavour, root) for name, path in modules(root))]) + "\n"


def main() -> None:
    text = page()
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
