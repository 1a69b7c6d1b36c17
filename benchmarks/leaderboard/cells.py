"""One cell of the table: a row on a test bed, searched, trained, tested, stored.

A cell is one file, `results/leaderboard/<bed>/<row>.json`, written after every
candidate of the search and every training run, so that a kill loses one training run at
most, and that one goes on from its own checkpoint.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from beds import Bed, tasks
from learners import found_learners
from rows import Row

from metalearn_book.book.results import versions
from metalearn_book.data.files import made
from metalearn_book.foundations.inner_loop import PeakMemory
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.training import Checkpoint, NotFinite, Validation
from metalearn_book.foundations.training import load_checkpoint, meta_train
from metalearn_book.foundations.training import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
import reached  # noqa: E402

#: seed of the episodes that judge, the same for all; of those that choose; of a search
TEST_SEED, VALIDATION_SEED, SEARCH_SEED = 12345, 54321, 1000


def short(name: str) -> str:
    "A name as part of a path."
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def path_of(bed: Bed, row: Row, folder: Path) -> Path:
    return folder / short(bed.name) / f"{short(row.name)}.json"


# --- what a stored cell depends on --------------------------------------------------


#: functions below that decide about the numbers; compared apart: settings, candidates
DECIDE = {"trained", "search", "judged", "chosen", "compact"}
APART = {
    "ALL",
    "Bed",
    "INNER",
    "OUTER",
    "OWN_INNER",
    "Row",
    "_ROWS",
    "LEFT_OUT",
    "PLAIN",
}


def _makes(row: Row, tree: ast.Module) -> ast.AST | None:
    "The entry of a row in the tables of rows.py; None for one that made itself."
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Row":
            first = call.args[0]
            if isinstance(first, ast.Constant) and first.value == row.name:
                return call
    return None


def _used(start: list[ast.AST], trees: list[ast.Module]) -> tuple[list, list]:
    "The definitions that some code reaches in these modules, and the imports it uses."
    bound: dict[str, list[ast.stmt]] = {}
    imports: dict[str, str] = {}
    for node in (n for tree in trees for n in tree.body):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("metalearn"):
            for alias in node.names:
                imports[alias.name] = f"from {node.module} import {alias.name}"
        elif isinstance(node, reached.DEFINITIONS):
            bound.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign):
            for name in (n.id for n in ast.walk(node.targets[0]) if hasattr(n, "id")):
                bound.setdefault(name, []).append(node)
    found, lines, seen, todo = [], set(), set(APART), list(start)
    while todo:
        node = todo.pop()
        found.append(node)
        for name in (n.id for n in ast.walk(node) if isinstance(n, ast.Name)):
            if name in imports:
                lines.add(imports[name])
            elif name not in seen:
                todo += bound.get(name, [])
            seen.add(name)
    return found, sorted(lines)


@functools.cache
def _trees() -> list[ast.Module]:
    here = Path(__file__).parent
    return [ast.parse((here / f).read_text("utf-8"))
            for f in ("beds.py", "rows.py", "cells.py")]  # fmt: skip


_codes: dict[str, str] = {}


def code_of(row: Row) -> str:
    """A digest of all definitions that decide about a row's numbers: of the package, of
    the test beds, and of its own line in rows.py."""
    if row.name in _codes:
        return _codes[row.name]
    trees, learner = _trees(), found_learners().get(row.learner)
    makes = _makes(row, trees[1])
    start = [n for n in trees[2].body if getattr(n, "name", "") in DECIDE]
    start += [ast.parse("from_signature")] if makes is None else [makes]
    own, lines = _used(start, trees)
    if learner is not None:
        lines.append(f"from {learner.__module__} import {row.learner}")
    found = reached.Reach(reached.parse("\n".join(lines))).digests()
    texts = sorted(reached.canonical(node) for node in own)
    _codes[row.name] = reached.digest(json.dumps(found, sort_keys=True), *texts)
    return _codes[row.name]


def commit() -> str:
    "The commit of the working tree, with a + where files of the package differ."

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "metalearn_book", "benchmarks/leaderboard")
    return git("rev-parse", "HEAD")[:12] + ("+" if changed else "")


def command(bed: Bed, row: Row) -> str:
    return f"python benchmarks/leaderboard --bed '{bed.name}' --row '{row.name}'"


def read_cell(path: Path) -> dict | None:
    """A stored cell, None where there is none. ValueError for a damaged file."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["bed"], record["row"], record["seeds"], record["search"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}); remove it, and the "
            "next run of benchmarks/leaderboard makes it again"
        ) from error
    return record


def write_cell(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with made(path) as part:
        part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")


def what_decides(bed: Bed, row: Row, rows: dict[str, Row]) -> dict:
    "What the numbers of a cell depend on; those of a view, on the row behind it too."
    found = {"settings": bed.settings(), "grid": row.grid(bed), "code": code_of(row)}
    if row.parent:
        found["behind"] = what_decides(bed, rows[row.parent], rows)
    return found


def is_old(record: dict, made_of: dict) -> bool:
    return any(record.get(k) != v for k, v in made_of.items())


def runs_of(bed: Bed, record: dict) -> int:
    "How many runs a cell has: one where there is nothing to train."
    return bed.seeds if record["trained"] or record["parent"] else 1


def is_done(record: dict | None, bed: Bed) -> bool:
    if record is None:
        return False
    return "failed" in record or len(record["seeds"]) >= runs_of(bed, record)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    "True while no other process works on the same cell; a kill ends it."
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


# --- training and testing -----------------------------------------------------------


def seen(bed: Bed, row: Row, part: str):
    return tasks(bed, part, row.features.get(bed.kind, "encoder"))


def judged(learner, bed: Bed, row: Row, part: str, episodes: int, seed: int):
    batch = 5 if bed.n_way * bed.k_shot > 20 or bed.kind == "layers" else 25
    given = seen(bed, row, part)
    options = {"seed": seed, "tasks_per_batch": batch, "metric": bed.metric}
    return evaluate(learner, given, episodes, **options)


def trained(bed: Bed, row: Row, options: dict, steps: int, seed: int, kept=None):
    """A learner after `steps` outer steps, and what the training says of itself."""
    torch.manual_seed(seed)
    if row.name == "Pretrained body, prototypes":
        return row.make(bed, options, steps, seed), {}
    learner = row.make(bed, options)
    if not row.trained:
        return learner, {}
    every = max(steps // 4, 1)
    higher = not bed.lower_is_better
    validation = Validation(seen(bed, row, "validation"), every, bed.validation,
                            metric=bed.metric, higher_is_better=higher)  # fmt: skip
    checkpoint = None if kept is None else Checkpoint(kept, every)
    history = meta_train(learner, seen(bed, row, "train"), steps=steps, seed=seed,
                         tasks_per_step=bed.tasks_per_step, validation=validation,
                         outer_lr=options["outer_lr"], checkpoint=checkpoint,
                         progress=False)  # fmt: skip
    return learner, {"best_step": history.best_step}


def search(bed: Bed, row: Row, record: dict, save, parent=None) -> None:
    "Fill `record['search']`: what each candidate reaches on validation classes."
    for options in row.grid(bed):
        key = json.dumps(options, sort_keys=True)
        if key in record["search"]:
            continue
        try:
            if parent is not None:
                learner = row.make(parent, options)
            else:
                learner, _ = trained(bed, row, options, bed.search_steps, SEARCH_SEED)
            value = judged(learner, bed, row, "validation", bed.validation,
                           VALIDATION_SEED).mean  # fmt: skip
            record["search"][key] = {"options": options, "value": round(value, 6)}
        except (RuntimeError, NotFinite) as error:  # a rate at which it runs away
            said = str(error).splitlines()[0][:160]
            record["search"][key] = {"options": options, "failed": said}
        save()


def chosen(bed: Bed, record: dict) -> dict | None:
    "The options with the best validation; None where every candidate failed."
    ran = [c for c in record["search"].values() if "value" in c]
    if not ran:
        return None
    sign = -1 if bed.lower_is_better else 1
    return max(ran, key=lambda c: sign * c["value"])["options"]


def at_edge(bed: Bed, row: Row, options: dict) -> list[str]:
    "Which of the chosen values are the least or the largest that were tried."
    grid, edge = row.grid(bed), []
    for name, value in options.items():
        tried = sorted({o[name] for o in grid if not isinstance(o[name], str)})
        if len(tried) > 2 and value in (tried[0], tried[-1]):
            edge.append(name)
    return edge


def compact(values: torch.Tensor, bed: Bed) -> list:
    "Right answers of each episode; numbers: the error, to six digits."
    if bed.lower_is_better:
        return [float(f"{v:.6g}") for v in values.tolist()]
    n = bed.n_way * tasks(bed, "test").n_query
    right = (values.double() * n).round()
    if (right / n - values.double()).abs().max() > 1e-5:
        raise RuntimeError(f"{bed.name}: accuracies are not multiples of 1/{n}")
    return [int(v) for v in right.tolist()]


def cost(learner, bed: Bed, row: Row) -> dict:
    "Milliseconds of one processor, and bytes: to adapt to an episode and answer."
    batch = seen(bed, row, "test").sample(1, torch.Generator().manual_seed(1))

    def once():
        with torch.no_grad():
            return learner.adapt(batch.support)(batch.query.x)

    once()
    times = []
    for _ in range(11):
        start = time.process_time()
        once()
        times.append(1000 * (time.process_time() - start))
    with PeakMemory() as memory:
        once()
    return {"adapt_ms": round(statistics.median(times), 3), "adapt_bytes": memory.peak}


def parameters(learner) -> int:
    if not isinstance(learner, torch.nn.Module):
        return 0
    return sum(p.numel() for p in learner.parameters() if p.requires_grad)


def trained_at_last(bed: Bed, row: Row, options: dict, seed: int, kept: Path):
    "A run that runs away starts again with a third of the outer rate, and says so."
    for restarts in range(4):
        rate = {"outer_lr": options["outer_lr"] / 3**restarts} if row.trained else {}
        try:
            learner, more = trained(bed, row, options | rate, bed.steps, seed, kept)
            return learner, more | ({"restarts": restarts} if restarts else {})
        except RuntimeError:  # NotFinite is one
            kept.unlink(missing_ok=True)
            if restarts == 3 or not row.trained:
                raise
    raise RuntimeError("unreachable")


def run_seed(bed, row, options, seed, kept: Path, parent=None) -> tuple[dict, object]:
    start, cpu = time.perf_counter(), time.process_time()
    if parent is not None:
        learner, more = row.make(parent, options), {}
    else:
        learner, more = trained_at_last(bed, row, options, seed, kept)
    train_seconds = time.perf_counter() - start
    if isinstance(learner, torch.nn.Module):
        learner.eval()
    result = judged(learner, bed, row, "test", bed.episodes, TEST_SEED)
    entry = {
        "values": compact(result.values, bed),
        "train_seconds": round(train_seconds, 2),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    return entry | more, learner


def weights_of(bed: Bed, row: Row, seed: int, work: Path) -> Path:
    return work / short(bed.name) / f"{short(row.name)}.{seed}.weights"


def trained_parent(bed: Bed, parent: Row, record: dict, seed: int, work: Path):
    "The learner of the row that a view looks at, from its stored weights."
    options = record["chosen"]
    learner = parent.make(bed, options)
    path = weights_of(bed, parent, seed, work)
    if path.exists():
        learner.load_state_dict(load_checkpoint(path)["weights"])
    else:
        kept = path.with_suffix(".checkpoint")
        learner, _ = trained_at_last(bed, parent, options, seed, kept)
        save_checkpoint(path, {"weights": learner.state_dict()})
    return learner.eval()


def run_cell(bed: Bed, row: Row, folder: Path, work: Path, rows: dict[str, Row]) -> str:
    """Make a cell, or what is missing of it. "done", "there already", "elsewhere"
    (another process is at it) or "failed: ..." is returned."""
    path = path_of(bed, row, folder)
    lock = work / short(bed.name) / f"{short(row.name)}.lock"
    with alone(lock) as mine:
        if not mine:
            return "elsewhere"
        record = read_cell(path)
        made_of = what_decides(bed, row, rows)
        old = record and is_old(record, made_of)
        if record is None or old:
            for kept in lock.parent.glob(f"{short(row.name)}.*.checkpoint"):
                kept.unlink()  # of other code or settings
            for kept in lock.parent.glob(f"{short(row.name)}.*.weights"):
                kept.unlink()
            record = {"bed": bed.name, "row": row.name, "learner": row.learner,
                      "search": {}, "seeds": {},
                      "transductive": row.transductive(bed), "trained": row.trained,
                      "note": row.note, "parent": row.parent,
                      "command": command(bed, row)} | made_of  # fmt: skip
        if is_done(record, bed):
            return "there already"

        def save():
            write_cell(path, record)

        parent_row = rows[row.parent] if row.parent else None
        parent_record = None
        if parent_row:
            parent_record = read_cell(path_of(bed, parent_row, folder))
            if not is_done(parent_record, bed) or "failed" in parent_record:
                return f"waits for {row.parent}"
        parent = (
            trained_parent(bed, parent_row, parent_record, 0, work)
            if parent_row
            else None
        )
        start, cpu = time.perf_counter(), time.process_time()
        search(bed, row, record, save, parent)
        options = chosen(bed, record)
        if options is None:
            record["failed"] = next(iter(record["search"].values()))["failed"]
            save()
            return f"failed: {record['failed']}"
        if "search_seconds" not in record:
            record["search_seconds"] = round(time.perf_counter() - start, 2)
            record["search_cpu_seconds"] = round(time.process_time() - cpu, 2)
        record["chosen"], record["at_edge"] = options, at_edge(bed, row, options)
        learner = None
        for seed in range(runs_of(bed, record)):
            if str(seed) in record["seeds"]:
                continue
            kept = lock.parent / f"{short(row.name)}.{seed}.checkpoint"
            if parent_row:
                parent = trained_parent(bed, parent_row, parent_record, seed, work)
            entry, learner = run_seed(bed, row, options, seed, kept, parent)
            if row.name in {r.parent for r in rows.values()}:
                save_checkpoint(weights_of(bed, row, seed, work),
                                {"weights": learner.state_dict()})  # fmt: skip
            record["seeds"][str(seed)] = entry
            if seed == 0:
                record |= cost(learner, bed, row) | {"parameters": parameters(learner)}
                record |= {"commit": commit(), "versions": versions(),
                           "device": f"{os.cpu_count()} CPU cores"}  # fmt: skip
            save()
            kept.unlink(missing_ok=True)
        return "done"
