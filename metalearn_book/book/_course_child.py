"""What `metalearn-book course` starts: it runs the graded cells of a notebook, then its
checks, and says what came of each. It is a program and imports nothing of the package.

From standard input it reads one JSON object: `folder`, `cells` and `checks` (lists of
name and code), `files` (paths of .py files that run behind the cells). To standard
output it writes a line of JSON when something begins and when it ends; what the code
prints goes to standard error.
"""

from __future__ import annotations

import ast
import contextlib
import json
import linecache
import os
import sys
import traceback


def text_of(error: BaseException) -> str:
    "What an exception says; nothing for one of the student's that can't say it."
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


def wrong(error: BaseException, known: dict[str, str]) -> dict:
    "An exception as plain words, with the place in the notebook."
    if isinstance(error, SyntaxError) and error.filename in known:
        place, line, code = error.filename, error.lineno or 0, error.text or ""
        where = {"cell": place, "line": line, "code": code.strip()}
        return {"kind": type(error).__name__, "text": error.msg, **where}
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.filename in known]
    where = inside[-1] if inside else None
    told = {"kind": type(error).__name__, "text": text_of(error)}
    if where is not None:
        told |= {"cell": where.filename, "line": where.lineno, "code": where.line or ""}
        told["function"] = where.name if where.name.isidentifier() else ""
    return told


def main() -> None:
    # what is told goes through a copy, so that a print can't get between
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def tell(**what) -> None:
        told.write(json.dumps(what) + "\n")
        told.flush()

    mark = job["mark"].encode()  # behind what a cell or check has printed
    os.chdir(job["folder"])
    sys.path[0] = job["folder"]
    sys.argv = [""]
    module = {"__name__": "__main__", "__builtins__": __builtins__}
    known = {}

    def run(name: str, code: str, names: dict, whole: bool) -> None:
        known[name] = code
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        error = None
        tell(begin=name)
        try:
            body = ast.parse(code, name).body
            parts = [body] if whole else [[node] for node in body]
            parts = [compile(ast.Module(p, []), name, "exec") for p in parts]
        except (SyntaxError, ValueError) as e:
            error, parts = wrong(e, known), []
        for part in parts:
            try:
                exec(part, names)
            except BaseException as e:  # also a SystemExit: it is no end of the checks
                error = error or wrong(e, known)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        with contextlib.suppress(OSError):
            os.write(2, mark)
        tell(end=name, error=error)

    for name, code in job["cells"]:
        run(name, code, module, True)
    # A check may use what an earlier one has named: it goes on behind an error, so that
    # the names are there. The student's functions see none of them.
    names = dict(module)
    for name, code in job["checks"]:
        run(name, code, names, False)
    tell(over=True)
    told.flush()
    os._exit(0)  # threads and handlers of the student's don't keep us


if __name__ == "__main__":
    main()
