"""Export, quick start, site: what `make book` does once the environment is there.

python tools/book.py               build
python tools/book.py --serve 8000  show what was built on http://127.0.0.1:8000
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import absolute_environment
from stages import ROOT, Outcome, Stage, report, run

PY = sys.executable
QUICK_START = "foundations/10_learning_to_learn"
EPUB = "learning-to-learn.epub"
OFFLINE, QUARTO = ROOT / "_build" / "site", ROOT / "_book"
RELEASES = "https://github.com/quarto-dev/quarto-cli/releases"


def _reachable(address: str, seconds: float = 3) -> bool:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, method="HEAD"), timeout=seconds
        ):
            return True
    except (OSError, ValueError):
        return False


def find_quarto(wish: str) -> str | None:
    """The `quarto` program, or None.

    wish: "auto" takes an installed one, or gets it where its release page answers at
    once; "1" tries to get it in any case; "0" does without.
    """
    if wish == "0":
        return None
    beside = Path(PY).parent / "quarto"
    if found := shutil.which("quarto") or (str(beside) if beside.exists() else None):
        return found
    tried = Path(sys.prefix) / ".quarto-not-available"  # ask once for each environment
    if wish != "1" and (tried.exists() or not _reachable(RELEASES)):
        return None
    try:
        got = (
            subprocess.run(
                [PY, "-m", "pip", "install", "--quiet", "quarto-cli"],
                capture_output=True,
                timeout=300,
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        got = False
    if not (got and beside.exists()):
        tried.touch()
        return None
    return str(beside)


def quarto_stages(quarto: str = "quarto") -> list[list[str]]:
    """The commands that make and check the Quarto edition;
    .github/workflows/pages.yml has the same."""
    return [[quarto, "render"], [PY, "tools/check_site.py", "_book", f"_book/{EPUB}"]]


def why(log: Path) -> str:
    "The first error in what Quarto said, or else its last words."
    text = re.sub(
        r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace")
    )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?:\w*Error|ERROR)\b", line)]
    return (errors[:1] or lines[-1:] or ["it said nothing"])[0][:200]


def build_site(quarto: str | None) -> tuple[list[Outcome], Path, str]:
    """Render the site with Quarto, and the offline edition where there is none or it
    fails.

    Returns what was run, the folder of the site, and why it is the offline edition (""
    if it is not).
    """
    reason = "Quarto is not installed and could not be fetched"
    if quarto:
        log = ROOT / "_build" / "quarto.log"
        done = run(Stage("site with Quarto", quarto_stages(quarto)[0], log=log))
        if done.passed:
            return [done], QUARTO, ""
        reason = f"Quarto failed ({why(log)}; all of it: {log.relative_to(ROOT)})"
    offline = [PY, "tools/offline_site.py", "build"]
    return [run(Stage("site, offline edition", offline, quiet=True))], OFFLINE, reason


def build(wish: str) -> int:
    try:
        os.environ.update(absolute_environment())
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    quarto = find_quarto(wish)
    data = os.environ.get("METALEARN_DATA")
    name = f"quick start on {'the data in ' + data if data else 'the tiny data'}"
    outcomes = [
        run(
            Stage(
                "export the package", [PY, "tools/export.py", "--package"], quiet=True
            )
        ),
        run(
            Stage(
                name, [PY, "tools/execute.py", "run", QUICK_START, "--scale", "smoke"]
            )
        ),
    ]
    made, site, reason = build_site(quarto)
    status = report([*outcomes, *made])
    if status == 0:
        if reason:
            print(
                f"{reason}, so this" if wish != "0" else "This",
                "is the offline edition.",
            )
        print(f"The book is in {site / 'index.html'}\nRead it with: make serve")
    return status


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def serve(port: int) -> int:
    built = [folder for folder in (QUARTO, OFFLINE) if (folder / "index.html").exists()]
    if not built:
        print("There is no site yet: run make book first")
        return 1
    newest = max(built, key=lambda folder: (folder / "index.html").stat().st_mtime)
    try:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(_Quiet, directory=str(newest))
        )
    except OSError as e:
        print(
            f"Port {port} can't be used ({e.strerror}); "
            f"choose another: make serve PORT={port + 1}"
        )
        return 1
    print(
        f"{newest.relative_to(ROOT)} is at http://127.0.0.1:{server.server_port}/ "
        "until you press Ctrl-C",
        flush=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt as e:
        if getattr(e, "number", signal.SIGINT) != signal.SIGINT:
            raise
        print()  # Ctrl-C is how it is meant to end
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        ending.run(serve, int(sys.argv[2]))
    else:
        ending.run(build, os.environ.get("QUARTO") or "auto")
