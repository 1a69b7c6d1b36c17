"""Runs each chapter as on Colab: alone in an empty folder, from the built wheel, in a
Jupyter kernel, with Colab's versions.

python tools/run_as_colab.py
    makes an environment with the versions in tools/colab.txt
python tools/run_as_colab.py --python PATH
    uses an existing environment as it is, and installs only the wheel, into a folder of
    its own
python tools/run_as_colab.py CHAPTER ...
    only these chapters (they run at smoke scale)
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import ROOT, chapters, find_chapter

RUN = """
import sys, nbformat
from nbclient import NotebookClient
import metalearn_book
said = "the package comes from the checkout, not from the wheel"
assert not metalearn_book.__file__.startswith(sys.argv[2]), said
nb, here = nbformat.read(sys.argv[1], 4), {"metadata": {"path": "."}}
NotebookClient(nb, timeout=300, kernel_name="python3", resources=here).execute()
"""


def build_wheel(folder: Path, isolated: bool = True) -> Path:
    """The wheel of the package, built from a copy of the checkout, because setuptools
    leaves folders behind where it builds."""
    copy = folder / "source"
    copy.mkdir(parents=True)
    for name in (
        "settings.ini",
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "LICENSE-TEXT",
    ):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(
        ROOT / "metalearn_book",
        copy / "metalearn_book",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            *([] if isolated else ["--no-build-isolation"]),
            "--wheel-dir",
            str(folder),
            str(copy),
        ],
        check=True,
    )
    return next(folder.glob("metalearn_book-*.whl"))


def make_environment(folder: Path, wheel: Path) -> str:
    "A virtual environment with Colab's versions and the wheel; its Python."
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-r",
            str(ROOT / "tools" / "colab.txt"),
        ],
        check=True,
    )
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            str(ROOT / "tools" / "colab.txt"),
            f"metalearn_book[offline] @ {wheel.as_uri()}",
        ],
        check=True,
    )
    return python


def run(python: str, chapter: str, target: Path | None) -> tuple[float, str]:
    "Run one chapter in an empty folder; (seconds, what went wrong)."
    folder = Path(tempfile.mkdtemp(prefix="colab-"))
    try:
        name = chapter.split("/")[-1] + ".ipynb"
        shutil.copy(ROOT / "nbs" / f"{chapter}.ipynb", folder / name)
        env = {
            k: v
            for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "METALEARN_RESULTS")
        }
        env.update(
            METALEARN_SCALE="smoke",
            COLAB_RELEASE_TAG="local",
            **({"PYTHONPATH": str(target)} if target else {}),
        )
        start = time.perf_counter()
        done = subprocess.run(
            [python, "-c", RUN, name, str(ROOT)],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
        )
        return time.perf_counter() - start, re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)[
            -3000:
        ] if done.returncode else ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*")
    parser.add_argument(
        "--python",
        help="the Python of an environment that has everything but the package",
    )
    given = parser.parse_args(arguments)
    names = [find_chapter(c) for c in given.chapters] or chapters()
    if given.python and not shutil.which(given.python):
        parser.error(f"--python {given.python}: there is no such program")
    if given.python:
        given.python = os.path.abspath(shutil.which(given.python))
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder) / "wheel")
        target = None
        if given.python:
            target = Path(folder) / "package"
            subprocess.run(
                [
                    given.python,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--target",
                    str(target),
                    str(wheel),
                ],
                check=True,
            )
        python = given.python or make_environment(Path(folder) / "environment", wheel)
        failed = 0
        for chapter in names:
            seconds, said = run(python, chapter, target)
            failed += bool(said)
            print(
                f"{chapter:<36} {seconds:6.1f} s  {'FAILED' if said else 'ok'}"
                + (f"\n{said}" if said else ""),
                flush=True,
            )
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    ending.run(main)
