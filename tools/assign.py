"""The assignments of the course: build the students' notebooks, grade, report, check.

python tools/assign.py build [NAME ...]
    write assignments/<nn>_<name>/student.ipynb from solution.ipynb

python tools/assign.py check [NAME ...] [--scale smoke|full] [--no-bubblewrap]
    the students' notebooks are as the solutions make them; every solution gets full
    marks and passes its visible checks; every unsolved notebook gets 0; the hostile
    submissions of tests/zoo get what they deserve. At full scale solutions run whole.

python tools/assign.py grade SUBMISSION [--assignment NAME] [--out FOLDER] [--workers N]
    grade a notebook, a folder with an adapters.py, or a folder of such submissions,
    each into FOLDER/<assignment>/<name>/results.json (for Gradescope) and report.html,
    all into FOLDER/grades.csv. Interrupted, it goes on where it stopped.

python tools/assign.py report FOLDER
    write FOLDER/grades.csv again from the results there, and print it
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending

import argparse
import hashlib
import json
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from grading import report as reports
from grading.box import Box, Protections, protections, sweep
from grading.grade import (
    Assignment,
    Reference,
    Result,
    digest,
    grade,
    load,
    open_box,
    visible_checks,
)
from grading.student import (
    FOLDER,
    ROOT,
    assignments,
    built,
    find,
    is_plain,
    submission,
)
from notebooks import read, source, write_atomically

try:
    import fcntl
except ImportError:  # Windows, where nothing is graded
    fcntl = None

ZOO = ROOT / "tests" / "zoo"
WORKERS = 4
GRADED = "graded.json"  # beside results.json: what it was made from


def chosen(names: list[str], folder: Path = FOLDER) -> list[Path]:
    return [find(n, folder) for n in names] if names else assignments(folder)


def build(names: list[str], folder: Path = FOLDER) -> int:
    for path in chosen(names, folder):
        target, text = path / "student.ipynb", built(path)
        fresh = target.exists() and target.read_text(encoding="utf-8") == text
        if not fresh:
            write_atomically(target, text)
        print(f"{path.name}: student.ipynb {'is fresh' if fresh else 'written'}")
    return 0


# ------------------------------------------------------------------------- check


def _solved(assignment: Assignment, references: References, full: bool) -> Iterator:
    "What is wrong with a solution and its student notebook, as (subject, problem)."
    name, folder = assignment.name, assignment.folder
    student, solution = folder / "student.ipynb", folder / "solution.ipynb"
    fresh = student.exists() and student.read_text(encoding="utf-8") == built(folder)
    yield (
        f"{name}: student.ipynb is fresh",
        "" if fresh else "it is not as solution.ipynb makes it; run: make assignments",
    )
    protected, seed = references.protected, references.seed
    with references(assignment) as reference, references.honest(assignment) as box:
        args = dict(seed=seed, full=full, reference=reference, box=box)
        best = grade(assignment, solution, protected, **args)
        lost = [f"{m.name}: {m.message}" for m in best.marks if m.points < m.of]
        yield f"{name}: solution {best.points:g} of {best.of:g}", "; ".join(lost)
        checks, failed = visible_checks(solution, box)
        told = "; ".join(f"{c}: {w}" for c, w in failed.items()) or (
            "" if checks else "the notebook has no visible check"
        )
        yield f"{name}: solution passes {len(checks)} visible checks", told
        if not student.exists():
            return
        none = grade(assignment, student, protected, **args)
        won = [m.name for m in none.marks if m.points]
        told = f"the unsolved notebook gets points for {won}" if won else ""
        yield f"{name}: unsolved {none.points:g} of {none.of:g}", told
        checks, failed = visible_checks(student, box)
        passed = [c for c in checks if c not in failed]
        told = f"these pass: {', '.join(passed)}" if passed else ""
        yield f"{name}: unsolved fails all {len(checks)} visible checks", told


def _whole(folder: Path) -> Iterator:
    "Every cell of the solution, training cells too, in an empty folder."
    code = "\n\n".join(
        source(c)
        for c in read(folder / "solution.ipynb")["cells"]
        if c["cell_type"] == "code"
    )
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "solution.py").write_text(code, encoding="utf-8")
        command = [sys.executable, "solution.py"]
        done = subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True
        )
    seconds = time.monotonic() - start
    told = done.stderr.strip()[-500:] if done.returncode else ""
    if seconds > 900:
        told += f" it took {seconds:.0f} s, allowed are 900"
    yield f"{folder.name}: the whole solution runs, {seconds:.0f} s", told


def zoo(folder: Path = ZOO) -> dict[str, dict]:
    "The hostile submissions and what they deserve."
    path = folder / "expected.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def deserved(result: Result, expected: dict) -> str:
    "What is wrong with the marks of a hostile submission; empty where nothing is."
    lost, problems = expected.get("lost", {}), []
    for m in result.marks:
        says = lost.get("*") if "*" in lost else lost.get(m.name)
        if (m.points == 0) != (says is not None) or m.points not in (0, m.of):
            problems.append(f"{m.name} got {m.points:g} of {m.of:g}: {m.message}")
        elif says and says not in m.message:
            problems.append(f"{m.name} should say {says!r}: {m.message}")
    return "; ".join(problems)


def lacks(expected: dict, protected: Protections) -> str:
    "The protection that a hostile submission needs and this machine has not."
    has = {"bubblewrap": protected.bubblewrap is not None, "filter": protected.filter}
    needs = expected.get("needs", [])
    return "" if any(has[n] for n in needs) or not needs else " or ".join(needs)


class References:
    """Reference solutions, all of one seed: one is taken for each submission and given
    back, so that there are no more than are used at one time. They share what they have
    answered. `honest`: boxes for code that is no attack, opened once for many."""

    def __init__(self, protected: Protections):
        self.protected, self.seed = protected, secrets.randbits(63)
        self._idle, self._known, self._all = {}, {}, []
        self._lock = threading.Lock()

    @contextmanager
    def _one(self, key: tuple, make: Callable) -> Iterator:
        with self._lock:
            there = self._idle.setdefault(key, [])
            taken = there.pop() if there else None
            if taken is None:
                self._all.append(taken := make())
        yield taken
        with self._lock:  # after an error it is closed with the others, and not used
            there.append(taken)

    @contextmanager
    def __call__(self, assignment: Assignment) -> Iterator[Reference]:
        with self._one(
            (assignment.name, "reference"),
            lambda: Reference(assignment, self.protected),
        ) as reference:
            known = self._known.setdefault(assignment.name, reference.known)
            reference.known = known
            yield reference

    @contextmanager
    def honest(self, assignment: Assignment) -> Iterator[Box]:
        key = (assignment.preload, assignment.tensors, "box")
        limits = {"seconds": 60.0, "total": 600.0}
        make = lambda: open_box(assignment, self.protected, **limits)
        with self._one(key, make) as box:
            box.renew()
            yield box

    def __enter__(self) -> References:
        return self

    def __exit__(self, *_) -> None:
        for one in self._all:
            one.close()


def _animal(name: str, expected: dict, by_name: dict, references, full) -> Iterator:
    own, protected = by_name[expected["assignment"]], references.protected
    assignment = own
    if preload := expected.get("preload"):
        assignment = replace(own, preload=tuple(preload))
    if lacking := lacks(expected, protected):
        yield f"zoo: {name}", f"SKIPPED needs {lacking}, which does not work here"
        return
    path = next(p for p in (ZOO / f"{name}.ipynb", ZOO / name) if p.exists())
    args = dict(seed=references.seed, full=full)
    with ExitStack() as stack:
        args["reference"] = stack.enter_context(references(own))
        if expected.get("honest"):
            args["box"] = stack.enter_context(references.honest(assignment))
        else:
            args["limits"] = {"seconds": 5.0, "patience": 1.0}
            args["limits"] |= expected.get("limits", {})
        result = grade(assignment, path, protected, **args)
    told = f"zoo: {name} {result.points:g} of {result.of:g}, {result.seconds:.1f} s"
    yield told, deserved(result, expected)


def _long(expected: dict) -> int:
    "What takes long begins early, so that all workers end together."
    return sum(key in expected for key in ("preload", "limits"))


def check(names: list[str], scale: str, bubblewrap: bool) -> int:
    started, full, bad, n, left_out = time.monotonic(), scale == "full", 0, 0, 0
    protected = protections(bubblewrap)
    for missing in protected.missing:
        print(f"warning: {missing}")
    by_name = {p.name: load(p) for p in chosen(names)}
    jobs: list[Callable[[], list]] = []
    with References(protected) as references, ThreadPoolExecutor(WORKERS) as pool:
        for a in by_name.values():
            jobs.append(lambda a=a: list(_solved(a, references, full)))
            if full:
                jobs.append(lambda a=a: list(_whole(a.folder)))
        animals = zoo().items()
        for name, expected in sorted(animals, key=lambda a: -_long(a[1])):
            if expected["assignment"] in by_name:
                told = (name, expected, by_name, references, full)
                jobs.append(lambda told=told: list(_animal(*told)))
        for done in as_completed([pool.submit(job) for job in jobs]):
            for subject, problem in done.result():
                skipped = problem.startswith("SKIPPED ")
                n, bad = n + 1, bad + bool(problem and not skipped)
                left_out += skipped
                word = "skip" if skipped else "FAIL" if problem else "ok"
                told = problem.removeprefix("SKIPPED ")
                print(
                    f"{word:<4} {subject}" + (f": {told}" if told else ""), flush=True
                )
    print(
        f"assignments: {n - bad - left_out} passed, {bad} failed, {left_out} skipped, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if bad or not n else 0


# ------------------------------------------------------------------------- grade


def submissions(path: Path) -> dict[str, Path]:
    """Names and paths of the submissions below a path: itself, if it is one; otherwise
    each notebook and each folder in it. Links are not followed."""
    if not os.path.lexists(path):
        raise ValueError(f"there is no {path}")
    if not path.is_dir():
        return {path.stem: path}
    path = path.resolve()
    inside = sorted(p for p in path.iterdir() if p.name[0] not in "._")
    single = [p for p in inside if p.suffix == ".ipynb" and is_plain(p)]
    folders = [p for p in inside if p.is_dir() and not p.is_symlink()]
    for p in inside:
        if p.is_symlink() and (p.suffix == ".ipynb" or p.is_dir()):
            print(f"left out: {reports.clean(p.name, 80)} is a link", file=sys.stderr)
    here = is_plain(path / "adapters.py") if (path / "adapters.py").exists() else False
    handed_in = [p for p in folders if _holds_code(p)]
    if here or (len(single) == 1 and not handed_in):
        alone = single and not here and single[0].stem != "student"
        return {single[0].stem if alone else path.name: path}
    found = {p.name: p for p in folders if p in handed_in or not single}
    for p in folders:
        if p.name not in found:
            told = f"left out: {reports.clean(p.name, 80)} holds no notebook and no .py"
            print(told, file=sys.stderr)
    for p in single:
        found[p.name if p.stem in found or p.stem == "grades.csv" else p.stem] = p
    if not found:
        raise ValueError(f"{path} holds no notebook and no folder with one")
    return dict(sorted(found.items()))


def _holds_code(folder: Path) -> bool:
    "Is it a submission, and no folder of figures or data beside one?"
    return any(p.suffix in (".ipynb", ".py") for p in folder.iterdir())


def assignment_of(path: Path, name: str | None) -> Path:
    "The assignment of a submission: the one that is named, or that its notebook names."
    if name:
        return find(name)
    try:
        named = submission(path).assignment
        return find(named)
    except ValueError as e:
        raise ValueError(f"{path.name}: {e}; name it with --assignment") from None


def write_result(folder: Path, name: str, path: Path, result: Result, made_from: str):
    """results.json comes last, and says what it was made from: where it is and says the
    same as the file beside it, everything else is there and complete."""
    write_atomically(folder / "report.html", reports.page(name, result))
    told = {"digest": made_from, "source": str(path.resolve())}
    told["row"] = reports.csv_row(name, result)
    write_atomically(folder / GRADED, json.dumps(told, indent=1) + "\n")
    made = reports.gradescope_text(result, made_from)
    write_atomically(folder / "results.json", made)


def graded(folder: Path) -> dict | None:
    "What is known of a submission that has been graded; None where it has not been."
    try:
        made = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        told = json.loads((folder / GRADED).read_text(encoding="utf-8"))
        if made["extra_data"]["digest"] == told["digest"] and dict(told["row"]):
            return told
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def place(out: Path, key: str, path: Path, now: str) -> Path:
    """The folder for the results of a submission: another one where a different
    submission of this name has been graded into it."""
    folder, source = out / key, str(path.resolve())
    try:
        there = json.loads((folder / GRADED).read_text(encoding="utf-8"))
        other, digested = str(there["source"]), there["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder
    moved = digested == now and not os.path.exists(other)
    if other == source or moved:
        return folder
    told = hashlib.sha256(os.fsencode(source)).hexdigest()[:8]
    return out / f"{key}-{told}"


@contextmanager
def alone_in(out: Path) -> Iterator:
    "One grader at a time writes into a folder."
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another grader writes into {out}; wait for it, or take another --out"
            ) from None
        yield


def strong_enough(protected: Protections, asked: bool) -> None:
    "ValueError where root would run student code without bubblewrap, unasked."
    if protected.bubblewrap is None and not asked and os.getuid() == 0:
        raise ValueError(
            "the grader runs as root, and bubblewrap is not there or does not work: "
            f"{'; '.join(protected.missing)}. Install bubblewrap (Python and its "
            "packages must be readable by all users), or grade as another user; "
            "--no-bubblewrap grades all the same"
        )


def grade_all(
    path: Path, name: str | None, out: Path, workers: int, scale: str, bubblewrap: bool
) -> int:
    with alone_in(out):
        return _grade_all(path, name, out, workers, scale == "full", bubblewrap)


def _grade_all(
    path: Path, name: str | None, out: Path, workers: int, full: bool, bubblewrap: bool
) -> int:
    started, loaded = time.monotonic(), {}
    there = submissions(path)
    protected = protections(bubblewrap, (str(path.resolve()), str(out.resolve())))
    strong_enough(protected, asked=not bubblewrap)
    sweep()
    for missing in protected.missing:
        print(f"warning: {missing}")
    todo, refused = [], []
    for key, p in there.items():
        try:
            folder = assignment_of(p, name)
            if folder not in loaded:
                loaded[folder] = load(folder)
            now = digest(a := loaded[folder], p, full, protected)
        except (ValueError, OSError) as e:
            refused.append(str(e))
            continue
        target = place(out / a.name, key, p, now)
        if (before := graded(target)) is None or before.get("digest") != now:
            todo.append((target, p, a, now))
    if len(todo) + len(refused) < len(there):
        print(f"{len(there) - len(todo) - len(refused)} are graded already")

    def one(target: Path, p: Path, a: Assignment, now: str) -> tuple[str, Result]:
        args = dict(seed=references.seed, full=full)
        with references(a) as reference:
            result = grade(a, p, protected, reference=reference, **args)
        write_result(target, target.name, p, result, now)
        return target.name, result

    with References(protected) as references, ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(one, *job): job for job in todo}
        try:
            for done in as_completed(jobs):
                try:
                    key, r = done.result()
                except Exception as e:  # one failure is not the end of the others
                    key, why = jobs[done][0].name, f"{type(e).__name__}: {e}"
                    refused.append(f"{key}: {why}; it is graded by the next run")
                    continue
                told = f"{r.points:g} of {r.of:g}, {r.seconds:.1f} s"
                print(f"{reports.clean(key, 80)}: {told}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for why in refused:
        print(f"not graded: {reports.clean(why, 1000)}", file=sys.stderr)
    write_table(out)
    n = len(todo) - sum(bool(job.exception()) for job in jobs)
    print(f"{n} graded in {time.monotonic() - started:.0f} s, into {out}")
    return 1 if refused else 0


def write_table(out: Path) -> str:
    folders = sorted(p.parent for p in out.glob(f"*/*/{GRADED}"))
    rows = [told["row"] for p in folders if (told := graded(p))]
    write_atomically(out / "grades.csv", table := reports.csv_table(rows))
    return table


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("build", "check"):
        command = commands.add_parser(name)
        command.add_argument("names", nargs="*", help="assignments; none means all")
        if name == "check":
            command.add_argument("--scale", choices=["smoke", "full"], default="smoke")
            command.add_argument("--no-bubblewrap", action="store_true")
    command = commands.add_parser("grade")
    command.add_argument("submission", type=Path)
    command.add_argument("--assignment")
    command.add_argument("--out", type=Path, default=Path("_build/grades"))
    command.add_argument("--workers", type=int, default=WORKERS, choices=range(1, 65))
    command.add_argument("--scale", choices=["smoke", "full"], default="full")
    command.add_argument("--no-bubblewrap", action="store_true")
    command = commands.add_parser("report")
    command.add_argument("out", type=Path)
    told = parser.parse_args(arguments)
    try:
        if told.command == "build":
            return build(told.names)
        if told.command == "check":
            return check(told.names, told.scale, not told.no_bubblewrap)
        if told.command == "report":
            print(write_table(told.out), end="")
            return 0
        return grade_all(
            told.submission,
            told.assignment,
            told.out,
            told.workers,
            told.scale,
            not told.no_bubblewrap,
        )
    except (ValueError, FileNotFoundError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
