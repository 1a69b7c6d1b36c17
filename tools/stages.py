"""Runs the stages of `make book` and `make test`: named commands, their times, and a
table at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Stage:
    "A command that must end with 0."

    name: str
    command: list[str]
    quiet: bool = False  # show the output only if it fails
    log: Path | None = (
        None  # a file that gets all of the output, which is shown as well
    )


@dataclass(frozen=True)
class Outcome:
    name: str
    seconds: float
    passed: bool


def environment() -> dict[str, str]:
    """The environment of a stage: this Python's programs first, the checkout
    importable, tools found by each other."""
    path = os.pathsep.join(
        filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")])
    )
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": python,
        "PYTHONUNBUFFERED": "1",
        "QUARTO_PYTHON": sys.executable,
    }


def run(stage: Stage) -> Outcome:
    print(f"\n== {stage.name}", flush=True)
    start = time.perf_counter()
    code = _logged(stage) if stage.log else _shown(stage)
    return Outcome(stage.name, time.perf_counter() - start, code == 0)


def _shown(stage: Stage) -> int:
    pipe = subprocess.PIPE if stage.quiet else None
    running = subprocess.Popen(
        stage.command,
        cwd=ROOT,
        env=environment(),
        text=True,
        errors="replace",
        stdout=pipe,
        stderr=subprocess.STDOUT if stage.quiet else None,
    )
    with _ends_with_us(running):
        said, _ = running.communicate()
    if stage.quiet:
        lines = (said or "").rstrip().splitlines()
        print("\n".join(lines if running.returncode else lines[-1:]), flush=True)
    return running.returncode


@contextmanager
def _ends_with_us(running: subprocess.Popen) -> Iterator[None]:
    "Where we are told to end, the stage is told too, and has time to clean up."
    try:
        yield
    except BaseException:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
        raise


def _logged(stage: Stage) -> int:
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    with open(stage.log, "w", encoding="utf-8") as log:
        try:
            running = subprocess.Popen(
                stage.command,
                cwd=ROOT,
                env=environment(),
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as e:  # a program for another machine, or one that may not run
            log.write(f"{stage.command[0]} can't be started: {e.strerror}\n")
            return 126
        with running, _ends_with_us(running):
            for line in running.stdout:
                print(line, end="", flush=True)
                log.write(line)
    return running.returncode


def table(outcomes: list[Outcome]) -> str:
    width = max(len(o.name) for o in outcomes)
    lines = [
        f"{o.name:<{width}}  {o.seconds:7.1f} s  {'ok' if o.passed else 'FAILED'}"
        for o in outcomes
    ]
    failed = [o.name for o in outcomes if not o.passed]
    total = sum(o.seconds for o in outcomes)
    end = f"FAILED: {', '.join(failed)}" if failed else "all stages passed"
    return "\n".join([*lines, f"{'total':<{width}}  {total:7.1f} s  {end}"])


def run_all(stages: list[Stage]) -> int:
    "Run every stage, also after one failed; print the table; the exit status."
    return report([run(s) for s in stages])


def report(outcomes: list[Outcome]) -> int:
    "Print the table; the exit status."
    print("\n" + table(outcomes), flush=True)
    return 0 if all(o.passed for o in outcomes) else 1
