"""Everything that must hold, in one run: `make test`. Every stage runs, also after one
failed; the table at the end says which.

python tools/test_all.py [STAGE ...]
    only these stages, such as: python tools/test_all.py export ruff
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import absolute_environment
from stages import Stage, run_all

PY = sys.executable


def stages() -> list[Stage]:
    tool = lambda name, *arguments: [PY, f"tools/{name}.py", *arguments]
    return [
        Stage("export", tool("export", "--check"), quiet=True),
        Stage("API pages", tool("api_reference", "--check"), quiet=True),
        Stage("API documentation", tool("check_api"), quiet=True),
        Stage("notebooks", tool("check_notebooks"), quiet=True),
        Stage("setup cells", tool("setup_cell", "--check"), quiet=True),
        Stage("ruff", [PY, "-m", "ruff", "check", "--quiet", "."]),
        Stage("format", [PY, "-m", "ruff", "format", "--check", "--quiet", "."]),
        Stage("markdown", tool("check_markdown"), quiet=True),
        Stage("citations", tool("check_citations"), quiet=True),
        Stage("freshness", tool("freshness"), quiet=True),
        Stage("site links", tool("offline_site", "check"), quiet=True),
        Stage("assignments", tool("assign", "check")),
        Stage("chapters at smoke scale", tool("execute", "smoke", "--workers", "2")),
        Stage("solutions of exercises", tool("execute", "smoke", "--exercises")),
        Stage("pytest", [PY, "-m", "pytest", "-q"]),
    ]


def main(wanted: list[str]) -> int:
    chosen = [s for s in stages() if not wanted or s.name in wanted]
    if unknown := set(wanted) - {s.name for s in stages()}:
        names = ", ".join(s.name for s in stages())
        print(f"no stage is called {', '.join(sorted(unknown))}; there are: {names}")
        return 2
    try:
        os.environ.update(absolute_environment())
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    data = os.environ.get("METALEARN_DATA")
    print(
        f"real data: {data}"
        if data
        else "METALEARN_DATA is not set: chapters and tests use the tiny data, "
        "and tests of real data are skipped"
    )
    return run_all(chosen)


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
