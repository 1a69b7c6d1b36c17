"""Are the stored outputs what the code of today would make? Each executed chapter has a stamp in `results/`; this compares it.

python tools/freshness.py          a list of problems, and exit status 1 if there are any
python tools/freshness.py --list   one line for each chapter

The stamp holds a hash of the chapter's code cells together with the source of every module of the package that they import, directly or
not, and a hash of the outputs. Comments, docstrings, blank lines and the generated setup cell don't count.
"""
from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import sys
import tokenize
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import PACKAGE, ROOT, chapters, is_code, read, source
from setup_cell import is_setup


def _blank(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> None:
    "Remove the text between two (line, column) positions; lines count from 1."
    (r0, c0), (r1, c1) = start, end
    first, last = lines[r0 - 1][:c0], lines[r1 - 1][c1:]
    lines[r0 - 1:r1] = [first + last] + [""] * (r1 - r0)


def _without_magics(code: str) -> str:
    return "\n".join("" if re.match(r"\s*[%!]", line) else line for line in code.split("\n"))


def normalize(code: str) -> str:
    "Code without comments, docstrings, blank lines and trailing space, the same under every version of Python."
    code = _without_magics(code)
    spans = [(t.start, t.end) for t in tokenize.generate_tokens(io.StringIO(code).readline) if t.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(code)):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0], "value", None), ast.Constant) and isinstance(body[0].value.value, str):
                if len(body) > 1 or not isinstance(node, ast.Module):
                    spans.append(_in_characters(code, body[0]))
    lines = code.split("\n")
    for start, end in sorted(spans, reverse=True):
        _blank(lines, start, end)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _in_characters(code: str, node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    "Where a node begins and ends; ast counts bytes, this counts characters."
    lines = code.split("\n")
    def column(row: int, offset: int) -> int:
        return len(lines[row - 1].encode()[:offset].decode())
    return (node.lineno, column(node.lineno, node.col_offset)), (node.end_lineno, column(node.end_lineno, node.end_col_offset))


def _module_file(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(code: str, root: Path = ROOT, module: str = "", is_package: bool = False) -> set[str]:
    "Names of the package's modules that this code imports; `module` is the name of the code's own module, for relative imports."
    names = set()
    for node in ast.walk(ast.parse(_without_magics(code))):
        if isinstance(node, ast.Import):
            names.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[:len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            names.update([base, *(f"{base}.{a.name}" for a in node.names)])
    # a package's own __init__ runs too when one of its modules is imported; the top one holds the version and is left out
    names |= {".".join(n.split(".")[:k]) for n in names for k in range(2, len(n.split(".")))}
    return {n for n in names if n.startswith(f"{PACKAGE}.") and _module_file(n, root)}


def used_modules(code: str, root: Path = ROOT) -> dict[str, Path]:
    "Every module of the package that the code imports, directly or through another one."
    found: dict[str, Path] = {}
    todo = imported(code, root)
    while todo:
        name = todo.pop()
        path = _module_file(name, root)
        found[name] = path
        todo |= imported(path.read_text(encoding="utf-8"), root, name, path.name == "__init__.py") - set(found)
    return dict(sorted(found.items()))


def code_cells(nb: dict) -> list[str]:
    "The code of a chapter, cell by cell, without the generated setup cell."
    return [source(c) for c in nb["cells"] if is_code(c) and not is_setup(source(c))]


def code_hash(nb: dict, root: Path = ROOT) -> str:
    "One hash of the chapter's code and of all modules that it uses."
    cells = code_cells(nb)
    parts = [normalize(c) for c in cells]
    modules = used_modules("\n".join(map(_without_magics, cells)), root)
    parts += [f"{name}\n{normalize(path.read_text(encoding='utf-8'))}" for name, path in modules.items()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def output_hash(nb: dict) -> str:
    "One hash of everything that the chapter printed and drew."
    shown = [c.get("outputs", []) for c in nb["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def results_file(chapter: str, root: Path = ROOT) -> Path:
    return root / "results" / f"{chapter}.json"


def stamp_of(chapter: str, root: Path = ROOT) -> dict | None:
    "The stored stamp of a chapter, or None."
    path = results_file(chapter, root)
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("stamp") if path.exists() else None
    except json.JSONDecodeError as e:
        raise ValueError(f"{path} is damaged ({e}); remove it and make it again with: make run CHAPTER={chapter} SCALE=book") from e


def make_stamp(nb: dict, seconds: float, root: Path = ROOT) -> dict:
    return {"code": code_hash(nb, root), "outputs": output_hash(nb), "scale": "book", "seconds": round(seconds)}


def problem(chapter: str, root: Path = ROOT) -> str | None:
    "Why the stored outputs of a chapter can't be trusted, or None."
    nb, stamp = read(root / "nbs" / f"{chapter}.ipynb"), stamp_of(chapter, root)
    if any(o["output_type"] == "error" for c in nb["cells"] for o in c.get("outputs", [])):
        return "its stored outputs hold an error"
    if stamp is None:
        return "it has no stamp: it has not been run at book scale by tools/execute.py"
    if stamp.get("code") != code_hash(nb, root):
        return "its code, or a module that it uses, has changed since it was run"
    if stamp.get("outputs") != output_hash(nb):
        return "its outputs are not those of the stamped run"
    return None


def main(arguments: list[str]) -> int:
    names = chapters()
    found = {name: problem(name) for name in names}
    for name, why in found.items():
        if why or "--list" in arguments:
            print(f"{name}: {why or 'fresh'}" + (f"; run: make run CHAPTER={name} SCALE=book" if why else ""))
    stale = sum(why is not None for why in found.values())
    print(f"{len(names) - stale} of {len(names)} chapters are fresh")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
