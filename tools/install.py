"""Install the book and what it needs into this Python's environment, and show how far
it is.

python tools/install.py EXTRA [EXTRA...]
    what tools/environment.sh runs; only the standard library is used
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending

ROOT = Path(__file__).resolve().parent.parent
#: GB that the environment takes with the CPU build of PyTorch, and with the default
#: build for GPUs
SMALL, LARGE = 1.8, 5.6
MB = 1e6


@dataclass
class Progress:
    "What pip is doing, read from its lines."

    doing: str = "looking for packages"
    got: float = 0.0  # bytes of the downloads that are complete
    now: float = 0.0  # bytes of the one that runs
    size: float = 0.0  # its size
    count: int = 0  # packages to install, known when all are downloaded
    lines: list[str] = field(default_factory=list)

    def feed(self, line: str) -> None:
        "Take one line of `pip install --progress-bar raw`."
        text = line.strip()
        if m := re.fullmatch(r"Progress (\d+) of (\d+)", text):
            self.now, self.size = float(m[1]), float(m[2])
            return
        self.lines.append(line.rstrip("\n"))
        self.got, self.now, self.size = self.got + self.now, 0.0, 0.0
        if m := re.match(r"(Downloading|Using cached|Processing) (\S+)", text):
            verb = {
                "Downloading": "downloading",
                "Using cached": "using",
                "Processing": "using",
            }
            self.doing = f"{verb[m[1]]} {package(m[2])}"
        elif m := re.match(r"Collecting ([\w.\-\[\]]+)", text):
            self.doing = f"looking for {m[1]}"
        elif m := re.match(r"Installing collected packages: (.*)", text):
            self.count = len(m[1].split(","))
            self.doing = f"installing {self.count} packages"

    def line(self, seconds: float, on_disk: float) -> str:
        "One line for the reader; `on_disk` in bytes."
        part = (
            f", {self.now / MB:.0f} of {self.size / MB:.0f} MB"
            if self.size > 2 * MB
            else ""
        )
        total = (
            f"{on_disk / MB:.0f} MB on disk"
            if self.count
            else (f"{(self.got + self.now) / MB:.0f} MB downloaded")
        )
        clock = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        return f"{clock}  {self.doing}{part} ({total})"


def package(name: str) -> str:
    "`https://x/torch-2.13.0%2Bcpu-cp311-....whl` -> `torch 2.13.0+cpu`."
    name = name.rsplit("/", 1)[-1].replace("%2B", "+").removesuffix(".metadata")
    m = re.match(r"(.+?)-(\d[^-]*?)(?:-.*|\.tar\.gz|\.zip)$", name)
    return f"{m[1]} {m[2]}" if m else name


def size_of(folder: Path) -> float:
    "Bytes of all files below a folder."
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:  # pip has moved it in the meantime
                pass
    return float(total)


def space_problem(free_gb: float, new: bool) -> tuple[bool, str]:
    "(must it stop?, what to say) about the free space where the environment is made."
    cpu = (
        "set PIP_EXTRA_INDEX_URL to PyTorch's CPU index (README.md says where it "
        "stands)"
    )
    if not new:
        return False, ""
    if free_gb < SMALL:
        return True, (
            f"Only {free_gb:.1f} GB are free here, and the environment needs {SMALL} "
            f"GB with the CPU build of PyTorch, {LARGE} GB with the one for GPUs. Make "
            "room, or put the environment elsewhere: make book VENV=/path/to/folder"
        )
    if free_gb < LARGE and sys.platform == "linux":
        return False, (
            f"Note: {free_gb:.1f} GB are free, enough for the CPU build of PyTorch "
            f"only. To get that one, {cpu}."
        )
    return False, ""


def run(command: list[str], folder: Path, every: float | None = None, out=None) -> int:
    """Run pip with a line of progress every few seconds; if it fails, show the end of
    what it said."""
    out = out or sys.stdout
    live = out.isatty()
    every = every or (1.0 if live else 10.0)
    state, start = Progress(), time.monotonic()
    pip = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    reader = threading.Thread(
        target=lambda: [state.feed(line) for line in pip.stdout], daemon=True
    )
    reader.start()
    width = 0
    try:
        while True:
            try:
                status = pip.wait(timeout=every)
                break
            except subprocess.TimeoutExpired:
                disk = size_of(folder) if state.count else 0.0
                text = "  " + state.line(time.monotonic() - start, disk)
                if live:
                    text = text[: shutil.get_terminal_size().columns - 1]
                    print("\r" + text.ljust(width), end="", flush=True, file=out)
                    width = len(text)
                else:
                    print(text, flush=True, file=out)
    except KeyboardInterrupt as e:
        pip.terminate()
        pip.wait()
        print("\nInterrupted. The same command goes on where it stopped.", file=out)
        return 128 + getattr(e, "number", signal.SIGINT)
    reader.join()
    if live and width:
        print("\r" + " " * width + "\r", end="", file=out)
    if status:
        print("\n".join(state.lines[-30:]), file=out)
        print(
            f"pip ended with status {status}; its last lines are above. Without a "
            "network or with a full disk it cannot go on; otherwise run the same "
            "command again.",
            file=out,
        )
    return status


def main(extras: list[str]) -> int:
    folder = Path(sys.prefix)
    new = not any(folder.glob("lib/python*/site-packages/torch"))
    stop, said = space_problem(shutil.disk_usage(folder).free / 1e9, new)
    if said:
        print(said)
    if stop:
        return 1
    # --no-compile: Python compiles what is imported when it is imported, a small part
    # of it all
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--no-color",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "raw",
        "-c",
        "tools/constraints.txt",
        "-e",
        f".[{','.join(extras)}]",
    ]
    start = time.monotonic()
    status = run(command, folder)
    if status == 0:
        print(
            f"The environment is ready: {size_of(folder) / 1e9:.1f} GB in {folder}, "
            f"{time.monotonic() - start:.0f} s."
        )
    return status


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
