"""Runs the chapters of a part at full scale on one GPU, within a time.

python tools/full.py PART [--device auto] [--precision auto] [--minutes 10]
    all chapters of the part, such as language_models: `make full PART=language_models`
    --device cpu     runs where there is no GPU, which takes hours
    --precision      auto: bfloat16 where it is faster and its gradient agrees with
                     float32; bf16: wherever it agrees; float32
    --minutes 0      without a limit, and without `FITTED`: a few numbers of steps and
                     tasks that would not fit into the time, named in full_kernel.py
    --scale smoke    tries the same way in the small
    --chapters A B   only these; --again: also those that are done

Each chapter runs in a kernel of its own that does what `full_kernel.py` says. Executed
notebooks go to `_build/full`, with a table of what each took: nothing that is stored
with the book is touched. Whoever stops the run, by a kill or because the time is up,
starts it again with the same command: chapters that are done stay done, and the others
go on from their checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import execute
import freshness
import reached
from notebooks import (
    ROOT,
    absolute_environment,
    chapters,
    clean,
    find_chapter,
    is_code,
    read,
    text,
    write_atomically,
)

#: what a kernel runs before the first cell
FIRST = """import sys
sys.path.insert(0, {tools!r})
import full_kernel
full_kernel.start()
"""
#: seconds between two lines about chapters that run
LINES = 20.0


@dataclass(frozen=True)
class Way:
    "How chapters are run; another way is another run."

    device: str = "cpu"
    precision: str = "auto"
    scale: str = "full"
    fitted: bool = False  # values that fit into ten minutes, where the table names them
    options: str = "{}"  # further settings of the kernel, for tests, as JSON

    def key(self, chapter: str, root: Path) -> str:
        "Digest of this way and of all that decides what the chapter computes."
        nb = read(root / "nbs" / f"{chapter}.ipynb")
        own = json.dumps(freshness.fingerprint(nb, chapter, root), sort_keys=True)
        return reached.digest(repr(self), own)[:16]


def choose_device(asked: str) -> str:
    "`auto` is the first GPU. RuntimeError where there is none, or not this one."
    import torch

    if asked == "cpu":
        return asked
    if not torch.cuda.is_available():
        built = torch.version.cuda or "no GPU (a build for CPUs)"
        raise RuntimeError(
            f"PyTorch {torch.__version__} finds no GPU; it was built for {built}. Full "
            "scale is meant for one. Install a build for your GPU (appendix GPU "
            "set-up), or run it on the CPU, which takes hours: make full "
            "PART=... DEVICE=cpu MINUTES=0"
        )
    if asked == "auto":
        return "cuda:0"
    name = torch.device(asked)  # RuntimeError for what names none
    if name.type != "cuda" or (name.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(
            f"there is no device {asked!r}; there are cpu and "
            + ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        )
    return asked


def chapters_of(part: str, names: list[str], root: Path = ROOT) -> list[str]:
    "Those of a part, or the given ones of it. ValueError for another part."
    there = chapters(root)
    parts = sorted({c.split("/")[0] for c in there})
    own = [c for c in there if c.split("/")[0] == part]
    if not own:
        raise ValueError(f"no part is called {part!r}; there are {', '.join(parts)}")
    wanted = [find_chapter(n, root) for n in names]
    if strange := [c for c in wanted if c not in own]:
        raise ValueError(f"{', '.join(strange)} does not belong to the part {part}")
    return wanted or own


# ------------------------------------------------------------- one chapter


def folder_of(root: Path) -> Path:
    return root / "_build" / "full"


def record_file(chapter: str, root: Path) -> Path:
    return folder_of(root) / "records" / f"{chapter}.json"


def record_of(chapter: str, way: Way, root: Path = ROOT) -> dict | None:
    "What the last run of this chapter in this way gave, if it came to its end."
    try:
        found = json.loads(record_file(chapter, root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = found.get("key") == way.key(chapter, root)
    return found if same else None


def run_one(chapter: str, way: Way, status: Path, root: Path = ROOT) -> dict:
    "Run a chapter and store what it took. ChapterFailed where a cell fails."
    nb, key = read(root / "nbs" / f"{chapter}.ipynb"), way.key(chapter, root)
    states = folder_of(root) / "states" / chapter / key
    folder_of(root).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=folder_of(root)))
    try:
        (work := scratch / "work").mkdir()
        if (root / "results").is_dir():
            shutil.copytree(root / "results", scratch / "results")
        first = scratch / "ipython" / "profile_default" / "startup" / "00-full.py"
        first.parent.mkdir(parents=True)
        first.write_text(FIRST.format(tools=str(Path(__file__).resolve().parent)))
        settings = {"device": way.device, "precision": way.precision}
        settings["fitted"] = way.fitted
        settings |= {"chapter": chapter, "keep": str(states), "status": str(status)}
        settings |= {"cells": sum(map(is_code, nb["cells"]))} | json.loads(way.options)
        os.environ.update(
            METALEARN_SCALE=way.scale,
            METALEARN_RESULTS=str(scratch / "results"),
            METALEARN_FULL=json.dumps(settings),
            IPYTHONDIR=str(scratch / "ipython"),
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(root), os.environ.get("PYTHONPATH")])
            ),
            PYTHONWARNINGS="ignore:IProgress not found",
        )
        began = time.perf_counter()
        failure = execute.run_kernel(nb, work)
        seconds = time.perf_counter() - began
        if ending.parent_is_gone():
            raise ending.Ended(signal.SIGTERM)
        if failure:
            copy = root / "_build" / "failed" / f"{chapter}.ipynb"
            write_atomically(copy, text(clean(nb)))
            raise execute.ChapterFailed(
                f"{failure}\n{chapter} stopped after {seconds:.0f} s; what it did is "
                f"in {copy.relative_to(root)}"
            )
        return _store(chapter, way, nb, key, seconds, status, scratch, root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _store(chapter, way, nb, key, seconds, status, scratch, root) -> dict:
    "The notebook, the numbers and the record; the states are needed no more."
    told = json.loads(status.read_text(encoding="utf-8"))
    record = {
        "chapter": chapter,
        "key": key,
        "scale": way.scale,
        "device": way.device,
        "precision": way.precision,
        "seconds": seconds + told["saved_seconds"],
        "of these before": told["saved_seconds"],
        "tokens": told["tokens"],
        "peak_memory": told["peak_memory"],
        "trainings": told["trainings"],
        "fitted": told["fitted"],
    }
    found = scratch / "results" / f"{chapter}.json"
    if found.exists():
        entries = json.loads(found.read_text(encoding="utf-8"))
        record["numbers"] = entries.get(way.scale)
    write_atomically(folder_of(root) / f"{chapter}.ipynb", text(clean(nb)))
    write_atomically(record_file(chapter, root), json.dumps(record, indent=1) + "\n")
    shutil.rmtree(folder_of(root) / "states" / chapter, ignore_errors=True)
    return record


# ------------------------------------------------------------- what is shown


def size(n: float) -> str:
    "1234567 -> 1.2 M."
    for unit, of in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= of:
            return f"{n / of:.1f} {unit}"
    return f"{n:.0f}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def line_of(record: dict) -> str:
    "One chapter that is done."
    per_second = record["tokens"] / max(record["seconds"], 1e-9)
    mixed = sum(t["precision"] == "bf16" for t in record["trainings"])
    return (
        f"{record['chapter']:<40} {record['seconds']:7.1f} s  "
        f"{size(record['tokens']):>8} tokens  {size(per_second):>8} a second  "
        f"{record['peak_memory'] / 1e6:7.0f} MB  {record['device']}, "
        f"{mixed} of {len(record['trainings'])} trainings in bf16"
    )


def progress(chapter: str, status: Path) -> str | None:
    "How far a chapter is, with the time that its training has left."
    try:
        told = json.loads(status.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = f"{chapter}: cell {told['cell']} of {told['cells']}"
    if now := told.get("training"):
        found += f", {now['what']}: step {now['step']:,} of {now['steps']:,}"
        if "seconds_left" in now:
            found += f", {duration(now['seconds_left'])} left"
    rate = told["tokens"] / max(told["seconds"], 1e-9)
    return found + f", {size(told['tokens'])} tokens, {size(rate)} a second"


COLUMNS = (
    *("chapter", "seconds", "tokens", "tokens a second", "peak MB", "trainings"),
    *("in bf16", "tokens a second in trainings"),
)


def table_of(records: list[dict], way: Way) -> str:
    "All chapters of a part, in Markdown."
    rows = []
    for r in records:
        trained = sum(t["tokens"] for t in r["trainings"])
        spent = sum(t["seconds"] for t in r["trainings"])
        rows.append(
            (
                r["chapter"],
                f"{r['seconds']:.1f}",
                f"{r['tokens']:,}",
                f"{r['tokens'] / max(r['seconds'], 1e-9):,.0f}",
                f"{r['peak_memory'] / 1e6:,.0f}",
                str(len(r["trainings"])),
                str(sum(t["precision"] == "bf16" for t in r["trainings"])),
                f"{trained / spent:,.0f}" if spent else "",
            )
        )
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    head = f"Scale {way.scale}, device {way.device}, precision {way.precision}.\n\n"
    fitted = "".join(
        f"\n{r['chapter']}: {told} in place of {full} of full scale, to fit in."
        for r in records
        for full, told in r["fitted"]
    )
    table = "".join(f"| {' | '.join(row)} |\n" for row in lines)
    return head + table + fitted + ("\n" if fitted else "")


# ------------------------------------------------------------- all chapters


class Runner:
    "Chapters in processes of their own, until they are done or the time is up."

    def __init__(self, way: Way, workers: int, minutes: float, root: Path = ROOT):
        self.way, self.workers, self.root = way, workers, root
        self.began = time.perf_counter()
        self.end = self.began + 60 * minutes if minutes else float("inf")
        self.folder = Path(tempfile.mkdtemp(prefix="full-"))
        self.running: list[execute.Job] = []
        self.failed: dict[str, str] = {}
        self.done: list[dict] = []

    def status(self, chapter: str) -> Path:
        return self.folder / f"{chapter.replace('/', '-')}.json"

    def start(self, chapter: str) -> None:
        log = self.folder / f"{chapter.replace('/', '-')}.txt"
        command = [sys.executable, __file__, "--one", chapter, "--root", str(self.root)]
        command += ["--way", json.dumps(vars(self.way)), "--parent", str(os.getpid())]
        command += ["--status", str(self.status(chapter))]
        with open(log, "w") as out:
            child = subprocess.Popen(
                command, cwd=self.root, stdout=out, stderr=out, start_new_session=True
            )
        execute._CHILDREN.append(child)
        now = time.perf_counter()
        self.running.append(execute.Job(chapter, child.pid, log, now, None))

    def look(self) -> None:
        "Take in what has ended."
        for job in list(self.running):
            if (said := job.poll()) is None:
                continue
            self.running.remove(job)
            record = record_of(job.chapter, self.way, self.root)
            if said or record is None:
                self.failed[job.chapter] = said or "it left no record"
                shown = re.sub(execute.ANSI, "", self.failed[job.chapter])[-3000:]
                print(f"{job.chapter:<40} FAILED\n    "
                      + "\n    ".join(shown.splitlines()), flush=True)  # fmt: skip
            else:
                self.done.append(record)
                print(line_of(record), flush=True)

    def all(self, names: list[str]) -> list[str]:
        "Run these; the names of those that were not finished in time."
        todo, told = list(names), time.perf_counter()
        try:
            while (todo or self.running) and time.perf_counter() < self.end:
                while todo and len(self.running) < self.workers:
                    self.start(todo.pop(0))
                time.sleep(0.1)
                self.look()
                if time.perf_counter() - told > LINES:
                    told = time.perf_counter()
                    self.tell(len(todo))
            return [job.chapter for job in self.running] + todo
        finally:
            for job in self.running:
                job.stop(patience=10)
            shutil.rmtree(self.folder, ignore_errors=True)

    def tell(self, waiting: int) -> None:
        "A line for each chapter that runs, and the time that is left."
        for job in self.running:
            if found := progress(job.chapter, self.status(job.chapter)):
                print(f"  {found}", flush=True)
        left = self.end - time.perf_counter()
        limit = f"; {duration(left)} of the time left" if left < float("inf") else ""
        print(f"  done: {len(self.done)}, waiting: {waiting}{limit}", flush=True)


def uses_models(chapter: str, root: Path) -> bool:
    "Does a chapter load a small model of the book?"
    return "small_model(" in (root / "nbs" / f"{chapter}.ipynb").read_text("utf-8")


def make_models(device: str) -> None:
    """The small models of the book, on the device, where they are not there: `make
    models`. This does not count in the minutes."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from metalearn_book.data import available
    from metalearn_book.language_models.pretraining import DOMAINS, RECIPES, build_model

    there = all(map(available, DOMAINS.values()))
    for name in RECIPES:
        if there or RECIPES[name].tiny:
            build_model(name, device=device)


def run_part(part: str, given, root: Path = ROOT) -> int:
    "What the command does; its exit status."
    names = chapters_of(part, given.chapters, root)
    device, fitted = choose_device(given.device), bool(given.minutes)
    way = Way(device, given.precision, given.scale, fitted, given.options)
    if given.models and any(uses_models(c, root) for c in names):
        make_models(way.device)
    records = {c: None if given.again else record_of(c, way, root) for c in names}
    if given.again:
        for c in names:
            record_file(c, root).unlink(missing_ok=True)
            shutil.rmtree(folder_of(root) / "states" / c, ignore_errors=True)
    stamps = {c: freshness.stamp_of(c, root) or {} for c in names}
    todo = sorted(
        (c for c in names if records[c] is None),
        key=lambda c: -stamps[c].get("seconds", 0),  # the longest first
    )
    workers = given.workers or max(1, min(8, (os.cpu_count() or 1) // 2))
    limit = f"at most {given.minutes:g} minutes" if given.minutes else "no limit"
    print(
        f"{part} at {way.scale} scale on {way.device}, precision {way.precision}: "
        f"{len(todo)} chapters to run, {workers} at a time, {limit}; done before: "
        f"{len(names) - len(todo)}",
        flush=True,
    )
    execute._threads(workers)
    runner = Runner(way, workers, given.minutes, root)
    left = runner.all(todo)
    seconds = time.perf_counter() - runner.began
    found = {c: record_of(c, way, root) for c in names}
    ready = [r for r in found.values() if r]
    write_atomically(folder_of(root) / f"{part}.md", table_of(ready, way))
    print(f"\n{table_of(ready, way)}")
    print(
        f"{len(runner.done)} chapters in {duration(seconds)}, {len(ready)} of "
        f"{len(names)} done; notebooks and this table are in _build/full"
    )
    if left:
        print(
            f"The time is up. Not finished: {', '.join(left)}. The same command goes "
            "on where each of them stopped."
        )
    if runner.failed:
        print(f"Failed: {', '.join(runner.failed)}")
    return 1 if left or runner.failed else 0


def run_child(given) -> int:
    "One chapter, in the process that `Runner.start` made."
    ending.end_with_parent(given.parent)
    root, way = Path(given.root), Way(**json.loads(given.way))
    try:
        run_one(given.one, way, Path(given.status), root)
    except execute.ChapterFailed as e:
        print(re.sub(execute.ANSI, "", str(e)))
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?")
    parser.add_argument("--chapters", nargs="*", default=[], metavar="CHAPTER")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, cpu")
    parser.add_argument("--precision", choices=("auto", "bf16", "float32"),
                        default="auto")  # fmt: skip
    parser.add_argument("--scale", choices=execute.SCALES, default="full")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=0, help="chapters at a time")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--no-models", dest="models", action="store_false",
                        help="do not make the small models first")  # fmt: skip
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    for name in ("one", "way", "status", "root"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        os.environ.update(absolute_environment())  # chapters run in other folders
        if given.one:
            return run_child(given)
        if not given.part:
            parser.error("which part? such as: full.py language_models")
        if given.minutes < 0 or given.workers < 0:
            raise ValueError("--minutes and --workers must not be negative")
        return run_part(given.part, given)
    except (ValueError, OSError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    ending.run(main)
