"""Runs each chapter, or each assignment's solution, as on Colab: alone in an empty
folder, from the built wheel, in a Jupyter kernel, with Colab's versions.

python tools/run_as_colab.py
    makes an environment with the versions in tools/colab.txt
python tools/run_as_colab.py --python PATH
    uses an existing environment as it is, and installs only the wheel, into a folder of
    its own
python tools/run_as_colab.py CHAPTER ...
    only these chapters (they run at smoke scale)
python tools/run_as_colab.py --assignments [NAME ...] [--store]
    the reference solution of each assignment, whole, in the same way; --store puts the
    times into results/benchmarks/assignments.json, from where the headers have them
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
from grading import student
from notebooks import ROOT, chapters, find_chapter, read, text

RUN = """
import sys, nbformat
from nbclient import NotebookClient
import metalearn_book
said = "the package comes from the checkout, not from the wheel"
assert not metalearn_book.__file__.startswith(sys.argv[2]), said
nb, here = nbformat.read(sys.argv[1], 4), {"metadata": {"path": "."}}
args = dict(timeout=int(sys.argv[3]), kernel_name="python3", resources=here)
NotebookClient(nb, **args).execute()
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
    written = (ROOT / "nbs" / f"{chapter}.ipynb").read_text(encoding="utf-8")
    name = chapter.split("/")[-1]
    return run_alone(python, name, written, target, 300, METALEARN_SCALE="smoke")


def run_alone(
    python: str,
    name: str,
    notebook: str,
    target: Path | None,
    most: int,
    **variables: str,
) -> tuple[float, str]:
    """Run a notebook, given as text, in an empty folder; (seconds, what went wrong).
    most: seconds that a cell may take. variables: of the environment."""
    folder = Path(tempfile.mkdtemp(prefix="colab-"))
    try:
        (folder / f"{name}.ipynb").write_text(notebook, encoding="utf-8")
        env = {
            k: v
            for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "METALEARN_RESULTS", "METALEARN_SCALE")
        }
        env.update(
            COLAB_RELEASE_TAG="local",
            **variables,
            **({"PYTHONPATH": str(target)} if target else {}),
        )
        start = time.perf_counter()
        done = subprocess.run(
            [python, "-c", RUN, f"{name}.ipynb", str(ROOT), str(most)],
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


LONGEST = 900  # seconds of the processor for a reference solution


def processor() -> float:
    "Seconds of the processor that ended processes took, and those that they made."
    import resource

    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


def run_assignment(python: str, folder: Path, target: Path | None) -> tuple[float, str]:
    """The whole reference solution, as `run` does with a chapter. What is limited is
    the time of the processor: it does not depend on what else the machine does, and the
    clock of an idle machine shows no more."""
    whole, before = text(student.whole(read(folder / "solution.ipynb"))), processor()
    seconds, said = run_alone(python, folder.name, whole, target, 8 * LONGEST)
    took = processor() - before
    if not said and took > LONGEST:
        said = f"it took {took:.0f} s of the processor; allowed are {LONGEST}"
    return seconds, said


def store(times: dict[str, dict[str, float]]) -> None:
    "The times of reference solutions, beside those that are stored already."
    sys.path.insert(0, str(ROOT))
    from metalearn_book.book.results import load_results, save_results

    os.environ["METALEARN_RESULTS"] = str(ROOT / "results")
    os.environ["METALEARN_SCALE"] = "book"
    there = (ROOT / "results" / f"{student.TIMES}.json").exists()
    before = load_results(student.TIMES)["numbers"] if there else {}
    numbers = {**before, **times}
    save_results(student.TIMES, numbers, seed=0, config={"longest": LONGEST})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*")
    parser.add_argument(
        "--python",
        help="the Python of an environment that has everything but the package",
    )
    parser.add_argument("--assignments", action="store_true")
    parser.add_argument("--store", action="store_true", help="the times, see above")
    given = parser.parse_args(arguments)
    if given.store and not given.assignments:
        parser.error("--store goes with --assignments: times of chapters are not kept")
    if given.assignments:
        folders = [student.find(c) for c in given.chapters] or student.assignments()
        jobs = {f.name: (run_assignment, f) for f in folders}
    else:
        names = [find_chapter(c) for c in given.chapters] or chapters()
        jobs = {c: (run, c) for c in names}
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
        failed, times = 0, {}
        for name, (how, what) in jobs.items():
            before = processor()
            seconds, said = how(python, what, target)
            took = processor() - before
            failed += bool(said)
            if not said:
                times[name] = {"seconds": seconds, "processor": took}
            print(
                f"{name:<36} {seconds:6.1f} s  {'FAILED' if said else 'ok'}"
                f"  ({took:.1f} s of the processor)" + (f"\n{said}" if said else ""),
                flush=True,
            )
    if given.store:
        store(times)
    print(f"{len(jobs) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    ending.run(main)
