"""Cells by the names of their bed and row: in this process, in several, or on Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from beds import beds
from cells import ROOT, run_cell
from rows import all_rows

from metalearn_book.book.scale import current_scale

#: bed and row; and with them what was said of the cell, and seconds
Job = tuple[str, str]
Done = tuple[str, str, str, float]


def folders() -> tuple[Path, Path]:
    "Where cells are stored, and where unfinished runs are kept."
    scale, work = current_scale(), ROOT / "_build/leaderboard" / current_scale()
    given = os.environ.get("METALEARN_RESULTS")
    if scale == "smoke" and not given:  # says nothing, so it is not kept
        return work / "results", work
    name = "leaderboard" if scale == "book" else f"leaderboard_{scale}"
    return Path(given or ROOT / "results") / name, work


def one(job: Job) -> Done:
    "Make a cell, in any process."
    torch.set_num_threads(1)
    rows, start = all_rows()[0], time.perf_counter()
    bed, row = beds()[job[0]], rows[job[1]]
    try:
        said = run_cell(bed, row, *folders(), rows)
    except Exception as error:  # the other cells go on; told again at the end
        said = f"stopped: {type(error).__name__}: {error}"
    return *job, said, time.perf_counter() - start


def in_processes(jobs: Iterable[Job], workers: int) -> Iterator[Done]:
    """As they are done. A process that dies ends it with an error: what it had stored
    is kept, and the same command goes on."""
    if workers == 1:
        yield from map(one, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(one, job) for job in jobs]):
            yield done.result()


def by_ray(jobs: Iterable[Job]) -> Iterator[Done]:
    "On all processors that Ray has, as they are done."
    import ray

    known = os.environ.get("PYTHONPATH")  # the workers import `jobs` and the package
    here = [str(Path(__file__).resolve().parent), str(ROOT)]
    paths = os.pathsep.join(here + ([known] if known else []))
    ray.init(
        ignore_reinit_error=True,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    call = ray.remote(num_cpus=1)(one)
    waiting = [call.remote(job) for job in jobs]
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield ray.get(ready[0])
