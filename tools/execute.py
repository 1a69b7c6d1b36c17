"""Runs chapters.

python tools/execute.py list
    what there is, and what is fresh
python tools/execute.py run CHAPTER [--scale book]
    one chapter in a Jupyter kernel
python tools/execute.py all [--workers 2] [--force]
    every chapter whose outputs are not fresh, at book scale
python tools/execute.py smoke [--workers 2] [CHAPTER ...]
    all chapters at smoke scale, in process, nothing is stored
python tools/execute.py smoke --exercises [exercises/PART/NN_NAME ...]
    the same for the worked solutions, which have 10 s of processor time each

A chapter runs in an empty folder. At book scale its outputs go into the notebook, its
numbers into `results/`, together with a stamp (see freshness.py); at smoke scale a copy
goes to `_build/smoke`; at full scale the numbers go into `results/` and a copy to
`_build/full`. A run that fails or is interrupted changes nothing, and a failed one
leaves what it did in `_build/failed`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import freshness
from notebooks import (
    ROOT,
    absolute_environment,
    chapters,
    clean,
    exercises,
    find_chapter,
    notebook_path,
    read,
    source,
    text,
    write_atomically,
)

SCALES = ("smoke", "book", "full")
EXERCISE_SECONDS = 10.0  # of processor time for all solutions of a chapter
_CHILDREN: list[
    subprocess.Popen
] = []  # kept, because Python collects the exit status of a Popen that nobody holds
ANSI = r"\x1b\[[0-9;]*m"


class ChapterFailed(RuntimeError):
    "A cell of a chapter raised an error, or took too long."


# ---------------------------------------------------------- one chapter, in a kernel


def _client_class() -> type:
    "nbclient's client, but that a signal ends the run and not only the kernel."
    from nbclient import NotebookClient

    class Client(NotebookClient):
        ended_by = None  # the number of a signal

        @asynccontextmanager
        async def async_setup_kernel(self, **options):
            loop, task = asyncio.get_running_loop(), asyncio.current_task()

            def end(number: int) -> None:
                self.ended_by = number
                task.cancel()

            add = loop.add_signal_handler
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    add(number, end, number)
            loop.add_signal_handler = lambda *a: None  # nbclient's own
            try:
                async with super().async_setup_kernel(**options):
                    yield
            finally:
                loop.add_signal_handler = add

    return Client


def run_kernel(nb: dict, folder: Path, cell_timeout: float | None = None) -> str | None:
    """Execute all cells of a notebook (in place) in a new kernel; the error's text
    where one failed."""
    import nbformat
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )
    from traitlets.config import Config

    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    node = nbformat.reads(json.dumps(nb), as_version=4)
    # code and outputs go through a port of this machine: encrypted, where the kernel
    # can, so that nobody else on it can read them
    client = _client_class()(
        node,
        timeout=cell_timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
    )
    said = tempfile.TemporaryFile()  # by the kernel's process, not by cells
    try:
        client.execute(stderr=said)
        failure = None
    except CellTimeoutError:
        failure = f"a cell took longer than {cell_timeout:.0f} s"
    except DeadKernelError:
        said.seek(0)
        words = said.read().decode(errors="replace").strip()[-2000:]
        failure = f"the kernel died; too little memory is the usual reason\n{words}"
    except CellExecutionError as e:
        failure = str(e)
    except asyncio.CancelledError:
        failure = "the run was cancelled"
    if client.ended_by is not None:  # nbclient takes it for a kernel that died
        raise ending.Ended(client.ended_by)
    nb.clear()
    nb.update(json.loads(nbformat.writes(node)))  # lists of lines, as in a file
    return failure


def run_chapter(
    chapter: str, scale: str, root: Path = ROOT, cell_timeout: float | None = None
) -> float:
    """Run one chapter and store what its scale says; seconds. ChapterFailed, with
    nothing changed, if a cell fails."""
    path = root / "nbs" / f"{chapter}.ipynb"
    nb, before = read(path), path.read_bytes()
    build = root / "_build"
    build.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=build))
    try:
        work, results = scratch / "work", scratch / "results"
        work.mkdir()
        if (root / "results").is_dir():
            shutil.copytree(root / "results", results)
        os.environ.update(
            METALEARN_SCALE=scale,
            METALEARN_RESULTS=str(results),
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(root), os.environ.get("PYTHONPATH")])
            ),
            PYTHONWARNINGS="ignore:IProgress not found",
        )  # plain progress bars are what a stored output should show
        start = time.perf_counter()
        failure = run_kernel(nb, work, cell_timeout)
        seconds = time.perf_counter() - start
        if ending.parent_is_gone():
            raise ending.Ended(signal.SIGTERM)
        if failure:
            copy = build / "failed" / f"{chapter}.ipynb"
            write_atomically(copy, text(clean(nb)))
            raise ChapterFailed(
                f"{failure}\n{chapter} stopped after {seconds:.0f} s; nothing was "
                f"stored, what it did is in {copy.relative_to(root)}"
            )
        if path.read_bytes() != before and scale == "book":
            raise ChapterFailed(
                f"{path.relative_to(root)} was edited while it ran; "
                "nothing was stored, run it again"
            )
        _store(chapter, scale, clean(nb), seconds, results, root)
        return seconds
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _store(
    chapter: str, scale: str, nb: dict, seconds: float, results: Path, root: Path
) -> None:
    "Outputs, numbers and stamp to where they belong."
    if scale != "book":
        write_atomically(root / "_build" / scale / f"{chapter}.ipynb", text(nb))
    if scale == "smoke":
        return
    new, stored = results / f"{chapter}.json", freshness.results_file(chapter, root)
    old = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    entries = json.loads(new.read_text(encoding="utf-8")) if new.exists() else {}
    if scale in entries:
        old[scale] = entries[scale]
    if scale == "book":
        old["stamp"] = freshness.make_stamp(nb, chapter, seconds, root)
        write_atomically(root / "nbs" / f"{chapter}.ipynb", text(nb))
        _store_targets(chapter, results, root)
    if old:
        write_atomically(stored, json.dumps(old, indent=1, sort_keys=True) + "\n")


def _store_targets(chapter: str, results: Path, root: Path) -> None:
    "What the chapter was to reach, in place of what it said before."
    name = Path("targets") / f"{chapter.split('/')[0]}.json"
    found, stored = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for path in (results / name, root / "results" / name)
    )
    own = {k: row for k, row in found.items() if row["chapter"] == chapter}
    others = {k: row for k, row in stored.items() if row["chapter"] != chapter}
    if others | own != stored:
        rows = json.dumps(others | own, indent=1, sort_keys=True)
        write_atomically(root / "results" / name, rows + "\n")


# -------------------------------------------------------- one chapter, in this process


def _run_here(path: Path, folder: Path) -> None:
    "Execute a notebook in this process; the error is raised."
    os.environ["IPYTHONDIR"] = str(folder / ".ipython")
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell

    os.chdir(folder)
    shell = CaptureShell(mpl_format="png")
    for number, cell in enumerate(read_nb(path).cells):
        if cell.cell_type == "code":
            shell.cell(cell)
            if shell.exc:
                printed = "".join(
                    line
                    for o in cell.get("outputs", [])
                    if o["output_type"] == "stream"
                    for line in o["text"]
                )
                first = source(cell).strip().splitlines()[0][:80]
                raise ChapterFailed(
                    f"cell {number}, {first!r}:\n{re.sub(ANSI, '', printed)[-3000:]}"
                ) from shell.exc


def _child(path: Path, log: Path) -> int:
    """What a worker process does: run, write what went wrong to `log`, and return the
    exit status."""
    folder = Path(tempfile.mkdtemp(prefix="chapter-"))
    try:
        _run_here(path, folder)
        return 0
    except ChapterFailed as e:  # what the shell printed holds the traceback
        log.write_text(str(e), encoding="utf-8")
        return 1
    except (
        BaseException
    ):  # whatever else happens, SystemExit included, is a failure of the chapter
        log.write_text(traceback.format_exc(), encoding="utf-8")
        return 1
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


def _preload() -> None:
    """Import the large libraries once: the workers are forked from this process.

    `transformers` and `torch` load most of themselves only when it is asked for, which
    costs seconds, so what chapters use is named here."""
    import matplotlib

    matplotlib.use("agg")
    import execnb.shell  # noqa: F401
    import matplotlib.pyplot
    import sklearn.model_selection
    import sklearn.svm  # noqa: F401
    import torch
    import torch._dynamo  # the first step of any optimizer imports it
    from transformers import BertModel, GPT2LMHeadModel  # noqa: F401

    torch.set_num_threads(1)


# ---------------------------------------------------------------- many chapters


@dataclass
class Job:
    "A chapter that runs in a process of its own."

    chapter: str
    pid: int
    log: Path
    start: float
    limit: float | None
    cpu: float = 0.0  # seconds of processor time, known when it has ended
    cpu_limit: float | None = None

    def stop(self, patience: float = 5) -> None:
        """Ask the process and its children to clean up and end; kill what is left after
        `patience` seconds."""
        for name, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 60)):
            try:
                os.killpg(self.pid, name)
            except ProcessLookupError:
                pass
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.02)

    def poll(self) -> str | None:
        "None while it runs; '' when it has passed; otherwise what went wrong."
        if self.limit and time.perf_counter() - self.start > self.limit:
            self.stop()
            return f"took longer than {self.limit:g} s and was stopped"
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.cpu = used.ru_utime + used.ru_stime
        if code := os.waitstatus_to_exitcode(status):
            said = (
                self.log.read_text(encoding="utf-8").strip()
                if self.log.exists()
                else ""
            )
            return said or (
                f"was killed by signal {-code}"
                if code < 0
                else f"ended with exit status {code}"
            )
        if self.cpu_limit and self.cpu > self.cpu_limit:
            return (
                f"took {self.cpu:.1f} s of processor time, allowed are "
                f"{self.cpu_limit:g}: make its runs smaller"
            )
        return ""


def _start_forked(chapter: str, log: Path, root: Path) -> int:
    sys.stdout.flush(), sys.stderr.flush()
    parent = os.getpid()
    if pid := os.fork():
        return pid
    os.setsid()
    ending.end_with_parent(parent, group=True)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1), os.dup2(nothing.fileno(), 2)
    os._exit(_child(notebook_path(chapter, root), log))


def _start_kernel(chapter: str, log: Path, root: Path) -> int:
    with open(log, "w") as out:
        _CHILDREN.append(
            subprocess.Popen(
                [
                    *(sys.executable, __file__, "run", chapter, "--scale", "book"),
                    *("--parent", str(os.getpid())),
                ],
                cwd=root,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        )
    return _CHILDREN[-1].pid


def run_many(
    names: list[str],
    start,
    workers: int,
    limit: float | None,
    expected: dict[str, float],
    root: Path = ROOT,
    cpu_limit: float | None = None,
) -> dict[str, tuple[float, str]]:
    """Run chapters, `workers` at a time, with a line for each that ends; chapter ->
    (seconds, '' or what went wrong).

    limit: seconds by the clock after which one is stopped. cpu_limit: seconds of
    processor time that fail it when it has ended."""
    logs = Path(tempfile.mkdtemp(prefix="logs-"))
    todo, running, done = list(names), [], {}
    began = time.perf_counter()
    try:
        while todo or running:
            while todo and len(running) < workers:
                chapter = todo.pop(0)
                log = logs / (chapter.replace("/", "-") + ".txt")
                running.append(
                    Job(
                        chapter,
                        start(chapter, log, root),
                        log,
                        time.perf_counter(),
                        limit,
                        cpu_limit=cpu_limit,
                    )
                )
            time.sleep(0.05)
            for job in list(running):
                if (said := job.poll()) is not None:
                    running.remove(job)
                    done[job.chapter] = (time.perf_counter() - job.start, said)
                    left = _left(
                        todo + [j.chapter for j in running], done, expected, workers
                    )
                    print(
                        f"[{len(done)}/{len(names)}] {job.chapter:<36} "
                        f"{done[job.chapter][0]:6.1f} s  (CPU {job.cpu:.1f} s)  "
                        f"{'FAILED' if said else 'ok'}{left}",
                        flush=True,
                    )
                    if said:
                        print(
                            "    " + "\n    ".join(said[-4000:].splitlines()),
                            flush=True,
                        )
    except KeyboardInterrupt as e:
        passed = [c for c, (_, said) in done.items() if not said]
        rest = [c for c in names if c not in passed]
        print(
            f"\nInterrupted after {time.perf_counter() - began:.0f} s. "
            f"Done: {', '.join(passed) or 'none'}. "
            f"Not done, and as they were: {', '.join(rest)}. Run it again to go on.",
            flush=True,
        )
        e.said = True
        raise
    finally:
        for job in running:
            job.stop()
        shutil.rmtree(logs, ignore_errors=True)
    return done


def _left(
    todo: list[str],
    done: dict[str, tuple[float, str]],
    expected: dict[str, float],
    workers: int,
) -> str:
    """About how long the rest takes, from stored times, or else from the mean of what
    has run."""
    if not todo:
        return ""
    mean = sum(s for s, _ in done.values()) / len(done)
    seconds = sum(expected.get(c, mean) for c in todo) / workers
    return (
        f"  (about {seconds / 60:.0f} min left)"
        if seconds > 90
        else f"  (about {seconds:.0f} s left)"
    )


def _threads(workers: int) -> None:
    "Share the cores among the workers."
    each = str(max(1, (os.cpu_count() or 1) // workers))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, each)


# ---------------------------------------------------------------- commands


def command_list() -> int:
    for chapter in chapters():
        stamp = freshness.stamp_of(chapter)
        print(
            f"{chapter:<36} {freshness.problem(chapter) or 'fresh'}"
            + (f", {stamp['seconds']} s" if stamp else "")
        )
    return 0


def command_run(name: str, scale: str) -> int:
    chapter = find_chapter(name)
    print(f"{chapter} at {scale} scale", flush=True)
    try:
        seconds = run_chapter(chapter, scale)
    except ChapterFailed as e:
        print(re.sub(ANSI, "", str(e)))
        return 1
    where = {
        "smoke": f"_build/smoke/{chapter}.ipynb",
        "book": f"nbs/{chapter}.ipynb and results/{chapter}.json",
        "full": f"results/{chapter}.json and _build/full/{chapter}.ipynb",
    }[scale]
    print(f"{seconds:.0f} s; stored in {where}")
    return 0


def command_all(workers: int, force: bool) -> int:
    why = {c: freshness.problem(c) or "asked for" for c in chapters()}
    names = [c for c in why if force or why[c] != "asked for"]
    stamps = {c: freshness.stamp_of(c) for c in names}
    expected = {c: stamp["seconds"] for c, stamp in stamps.items() if stamp}
    # the shortest first; a new one may fail early
    names.sort(key=lambda c: expected.get(c, 0))
    print(
        f"fresh: {len(why) - len(names)}; "
        f"to run at book scale, {workers} at a time: {len(names)}",
        flush=True,
    )
    for c in names:
        about = f"about {expected[c]} s" if c in expected else "new"
        print(f"  {c} ({about}): {why[c]}", flush=True)
    _threads(workers)
    done = run_many(names, _start_kernel, workers, None, expected)
    return 1 if any(said for _, said in done.values()) else 0


def _find_exercises(names: list[str]) -> list[str]:
    "The named notebooks of solutions, or all of them; ValueError for an unknown name."
    known = exercises()
    wanted = [re.sub(r"^(exercises/)?", "exercises/", n, count=1) for n in names]
    wanted = [n.removesuffix(".ipynb") for n in wanted]
    if unknown := sorted(set(wanted) - set(known)):
        raise ValueError(
            f"there are no solutions called {', '.join(unknown)}; "
            f"there are: {', '.join(known)}"
        )
    return wanted or known


def command_smoke(
    names: list[str], workers: int, limit: float, solutions: bool = False
) -> int:
    if solutions:
        names = _find_exercises(names)
    else:
        names = [find_chapter(n) for n in names] or chapters()
    _threads(workers)
    os.environ.update(
        METALEARN_SCALE="smoke",
        PYTHONPATH=os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        ),
    )
    os.environ.pop("METALEARN_RESULTS", None)
    sys.path.insert(0, str(ROOT))
    _preload()
    most = EXERCISE_SECONDS if solutions else None
    done = run_many(names, _start_forked, workers, limit, {}, cpu_limit=most)
    slow = sorted(done, key=lambda c: -done[c][0])[:5]
    print("slowest: " + ", ".join(f"{c} {done[c][0]:.1f} s" for c in slow))
    return 1 if any(said for _, said in done.values()) else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    run = commands.add_parser("run")
    run.add_argument("chapter")
    run.add_argument("--scale", choices=SCALES, default="book")
    run.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    everything = commands.add_parser("all")
    everything.add_argument("--workers", type=int, default=2)
    everything.add_argument(
        "--force", action="store_true", help="also the chapters that are fresh"
    )
    smoke = commands.add_parser("smoke")
    smoke.add_argument("chapters", nargs="*")
    smoke.add_argument("--workers", type=int, default=2)
    smoke.add_argument(
        "--exercises", action="store_true", help="the worked solutions, not chapters"
    )
    smoke.add_argument(
        "--limit", type=float, default=120, help="seconds that a chapter may take"
    )
    given = parser.parse_args(arguments)
    try:
        if given.command == "list":
            return command_list()
        os.environ.update(absolute_environment())  # chapters run in other folders
        if given.command == "run":
            if given.parent:
                ending.end_with_parent(given.parent)
            return command_run(given.chapter, given.scale)
        if given.command == "all":
            return command_all(given.workers, given.force)
        return command_smoke(
            given.chapters, given.workers, given.limit, given.exercises
        )
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    ending.run(main)
