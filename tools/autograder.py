"""An autograder for Gradescope, from an assignment: one zip to upload.

python tools/autograder.py ASSIGNMENT [--out FILE.zip]

The zip holds `setup.sh` and `run_autograder`, as Gradescope wants them, the grader, the
assignment with its solution and hidden tests, and the package of the book. Where
METALEARN_HIDDEN is set, the hidden tests are those of that folder. In the container the
grader runs as root: with bubblewrap where that works, and otherwise with a user of its
own for student code and the solution readable by root alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending

import argparse
import os
import tempfile
import zipfile

from grading.box import PRIVATE
from grading.grade import load
from grading.student import find
from notebooks import PACKAGE, ROOT

SETUP = """#!/usr/bin/env bash
# Runs once, as root, when Gradescope makes the image. The book needs Python 3.11 to
# 3.13: choose a base image of Ubuntu 22.04 or later.
set -euo pipefail
root=${AUTOGRADER:-/autograder}
export DEBIAN_FRONTEND=noninteractive
# CPU builds of PyTorch; set it to nothing for the default ones
export PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL-https://download.pytorch.org/whl/cpu}
apt-get update -qq
apt-get install -y -qq --no-install-recommends bubblewrap \\
    || echo "no bubblewrap: student code gets a user of its own"
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
python=
for version in 3.12 3.13 3.11; do
    apt-get install -y -qq --no-install-recommends "python$version" \\
        "python$version-venv" >/dev/null 2>&1 || true
    if "python$version" -c "$fits" 2>/dev/null; then python="python$version"; break; fi
done
[ -n "$python" ] || { echo "no Python 3.11, 3.12 or 3.13 in this image"; exit 1; }
"$python" -m venv "$root/venv"
"$root/venv/bin/python" -m pip install --quiet --upgrade pip
"$root/venv/bin/python" -m pip install --quiet --no-cache-dir \\
    -c "$root/source/book/tools/constraints.txt" "$root/source/book"
"""

RUN = """#!/usr/bin/env bash
# Runs for every submission.
set -euo pipefail
root=${AUTOGRADER:-/autograder}
exec "$root/venv/bin/python" "$root/source/run.py" "$root"
"""

RUN_PY = '''"""Grade ROOT/submission into ROOT/results/results.json."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ASSIGNMENT = "{name}"
root = Path(sys.argv[1])
source, results = root / "source", root / "results"


def say(problem):
    "Tell the student what is wrong with what was handed in."
    results.mkdir(exist_ok=True)
    told = {{"score": 0, "max_score": {points:g}, "output": problem}}
    (results / "results.json").write_text(json.dumps(told))
    sys.exit(0)


# student code may have a user of its own, which is to read nothing here
for folder in ("book/assignments", "hidden", "run.py"):
    for path in [source / folder, *(source / folder).rglob("*")]:
        if path.exists():
            path.chmod(path.stat().st_mode & 0o700)

there = [p for p in (root / "submission").iterdir() if p.name[0] not in "._"]
notebooks = [p for p in there if p.suffix == ".ipynb"]
if len(notebooks) > 1 or not any(p.suffix in (".ipynb", ".py") for p in there):
    names = ", ".join(sorted(p.name for p in there)) or "nothing"
    told = "Hand in one notebook, or your .py files with adapters.py. You sent: "
    say(told + names)

environment = dict(os.environ)
if (source / "hidden").is_dir():
    environment["{private}"] = str(source / "hidden")
out = Path(tempfile.mkdtemp())
command = [sys.executable, str(source / "book" / "tools" / "assign.py"), "grade"]
command += [str(root / "submission"), "--assignment", ASSIGNMENT, "--out", str(out)]
command += ["--workers", "1"]
for more in ([], ["--no-bubblewrap"]):
    done = subprocess.run(
        command + more, env=environment, capture_output=True, text=True
    )
    print(done.stdout, done.stderr)
    if done.returncode != 2 or "--no-bubblewrap" not in done.stderr:
        break
made = list(out.glob("*/*/results.json"))
if len(made) != 1:  # the machine's fault: no result is better than a wrong one
    sys.exit("the grader made no result; see above")
results.mkdir(exist_ok=True)
shutil.copyfile(made[0], results / "results.json")
shutil.rmtree(out)
'''
BOOK = ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
BOOK += ("LICENSE", "LICENSE-TEXT", "CITATION.cff", "tools/constraints.txt")
WANTED = ("solution.ipynb", "student.ipynb", "adapters.py")


def files(name: str, root: Path = ROOT) -> dict[str, bytes]:
    "Path in the zip -> content."
    folder = find(name, root / "assignments")
    assignment = load(folder)  # the hidden tests must be readable here, and not there
    told = dict(name=folder.name, points=assignment.points, private=PRIVATE)
    made = {"setup.sh": SETUP, "run_autograder": RUN, "run.py": RUN_PY.format(**told)}
    found = {k: v.encode() for k, v in made.items()}
    paths = [root / p for p in BOOK] + [folder / p for p in WANTED]
    paths += sorted((root / "tools").glob("*.py"))
    paths += sorted((root / "tools" / "grading").glob("*.py"))
    paths += sorted((root / PACKAGE).rglob("*"))
    if own := os.environ.get(PRIVATE):
        found[f"hidden/{folder.name}/hidden.py"] = assignment.hidden.read_bytes()
        print(f"hidden tests: those of {PRIVATE}={own}")
    else:
        paths.append(folder / "hidden.py")
    for path in paths:
        if path.is_file() and "__pycache__" not in path.parts:
            found[f"book/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return found


def pack(name: str, out: Path, root: Path = ROOT) -> None:
    "Write the zip, whole or not at all; the same files give the same bytes."
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=out.parent, suffix=".part")
    os.close(handle)
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path, content in sorted(files(name, root).items()):
                entry = zipfile.ZipInfo(path)
                mode = 0o755 if path in ("setup.sh", "run_autograder") else 0o644
                entry.external_attr = (0o100000 | mode) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                zipped.writestr(entry, content)
        os.replace(part, out)
    finally:
        Path(part).unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assignment", help="such as 02, or inner_loop")
    parser.add_argument("--out", type=Path, help="_build/autograders/NAME.zip")
    told = parser.parse_args(arguments)
    try:
        folder = find(told.assignment)
        out = told.out or ROOT / "_build" / "autograders" / f"{folder.name}.zip"
        pack(folder.name, out)
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, for Gradescope")
    return 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
