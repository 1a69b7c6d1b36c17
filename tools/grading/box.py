"""A closed place for one submission: a child process behind two pipes, in bubblewrap
where it works, with limits of its own everywhere.

    with Box(Limits(), protections()) as box:
        question = box.start([("cell 1", "def double(x): return 2 * x")])
        question.call("double", [3])        # 6, or Failed with the reason

Nothing but data comes out of it. Whatever goes wrong in it is a `Failed`.
"""

from __future__ import annotations

import math
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from grading import seccomp, wire

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHILD = ("child.py", "wire.py", "seccomp.py")
PACKAGE = "metalearn_book"
PRIVATE = "METALEARN_HIDDEN"  # a folder with <assignment>/hidden.py of one's own
MB = 1 << 20
LATE = 0.5  # seconds behind a deadline in which what lies in the pipe is still read
MOST_GRANTED = 300.0  # seconds that a busy machine may add to a whole submission
FIRST_USER = 1_000_000  # of the user numbers that children get
PREFIX = "submission-"  # of folders for boxes, with the grader's number
MANY_SLOW, HURRY = 3, 4  # so many time limits met: the next are a fourth as long
MOST_LENT = 2000  # calls of borrowed functions in a question
LENT_TIME = 3  # times the limit for a call, for all of them
LENDABLE = ("ValueError", "TypeError", "KeyError", "IndexError", "ZeroDivisionError")


class Failed(Exception):
    "Student code gave no answer; the text says why, for the student."

    def __init__(self, text: str, slow: str = "", kinds: tuple[str, ...] = ()):
        super().__init__(text)
        self.slow = slow  # the function that met a limit of time
        self.kinds = kinds  # the built-in classes of an error that was raised


@dataclass(frozen=True)
class Limits:
    "What one question may use."

    seconds: float = 10.0  # for one call, and for loading the cells
    total: float = 60.0  # for all calls of a question
    submission: float = 600.0  # for all questions; the rest gets no answer
    memory: int = 1536 * MB  # address space of the process
    resident: int = 768 * MB  # what is really used, by all processes together
    processor: int = 60  # seconds of processor time, for a question
    file: int = 8 * MB  # for a file
    folder: int = 32 * MB  # for all files
    entries: int = 1000  # files and folders
    output: int = 4 * MB  # printed in one question
    processes: int = 12  # and threads
    start: float = 60.0  # until the imports are done
    patience: float = 3.0  # times a limit of time, for what a busy machine has taken


@dataclass(frozen=True)
class Protections:
    "What this machine can do against hostile code."

    bubblewrap: tuple[str, ...] | None  # options that worked
    filter: bool  # of system calls
    own_user: bool  # each child under a user number that nothing else has
    missing: tuple[str, ...] = ()  # in words, for the report
    cover: tuple[str, ...] = ()  # files and folders that the box must not show


# ---------------------------------------------------------------- what is possible


def _environment() -> dict[str, str]:
    "Nothing of the grader's own environment goes into the box."
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }


def _needed() -> list[Path]:
    "Folders that Python and its libraries stand in."
    found = [Path("/usr"), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    found += [Path(np.__file__).resolve().parent.parent]
    found = list(dict.fromkeys(found))
    return [p for p in found if not any(p != q and p.is_relative_to(q) for q in found)]


LIBRARIES = ("lib", "lib32", "lib64", "bin", "sbin")


def _bubblewrap(
    options: tuple[str, ...],
    folder: int,
    root: Path = ROOT,
    cover: tuple[str, ...] = (),
) -> list[str]:
    """The command before the child's own: Python's folders and the package to read,
    one small empty folder to write, and nothing else of this machine."""
    command = ["bwrap", *options, "--die-with-parent", "--new-session", "--clearenv"]
    for name, value in {**_environment(), "HOME": "/home", "TMPDIR": "/home"}.items():
        command += ["--setenv", name, value]
    binds, hidden = _needed(), []
    for path in binds:
        for above in reversed(path.parents):
            if not any(above.is_relative_to(b) for b in binds) and above.name:
                command += ["--perms", "0755", "--dir", str(above)]
        command += ["--ro-bind", str(path), str(path)]
        if root.is_relative_to(path):
            hidden.append(path)
    for name in LIBRARIES:
        if (path := Path("/") / name).is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    if Path("/etc/ld.so.cache").exists():
        command += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if hidden:  # the checkout stands below one of them: cover it
        command += ["--tmpfs", str(root)]
        for path in binds:
            if path.is_relative_to(root):
                command += ["--ro-bind", str(path), str(path)]
    shown = [*binds, *(Path("/") / n for n in LIBRARIES)]
    for path in map(Path, cover):  # of ours, where Python's own folders are
        below = any(path.is_relative_to(b) for b in shown)
        if below and not any(b.is_relative_to(path) for b in shown):
            empty = ["--tmpfs"] if path.is_dir() else ["--ro-bind", "/dev/null"]
            command += [*empty, str(path)]
    for folder_of_ours in ("/grader", "/book"):
        command += ["--perms", "0755", "--dir", folder_of_ours]
    for name in CHILD:
        command += ["--ro-bind", str(HERE / name), f"/grader/{name}"]
    command += ["--ro-bind-try", str(root / PACKAGE), f"/book/{PACKAGE}"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    sized = ["--perms", "0777", "--size", str(folder), "--tmpfs"]
    command += [*sized, "/dev/shm", *sized, "/home"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/home"]
    return command


# as root the child takes a user number of its own, so that its processes are counted;
# everybody else, and root in a container, gets a name space of users
WAYS = {
    "root": (
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
    ),
    "user": ("--unshare-all", "--unshare-user", "--disable-userns"),
    "plain": ("--unshare-all", "--unshare-user"),
}
PROBE = """
def look():
    import os, socket, decimal
    seen = []
    for path, *there in %r:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if [found.st_dev, found.st_ino] == there:
            seen.append(path)
    found = {"seen": seen, "uid": os.getuid()}
    try:
        open("mine", "w").write("x"); found["writes"] = True
    except OSError as e:
        found["writes"] = str(e)
    return found
"""


def _own_rights() -> None:
    "What the grader itself does before it lets anybody in."
    seccomp.hide_memory()
    seccomp.adopt_orphans()


def _works(protections: Protections) -> dict | None:
    "What a trial child saw, or None where it does not start."
    # neither the checkout nor private tests, submissions and results may be seen
    secret = []
    for path in (str(ROOT / "settings.ini"), *protections.cover):
        try:
            told = os.stat(path)
        except OSError:
            continue
        secret.append([path, told.st_dev, told.st_ino])
    code = PROBE % secret
    limits = Limits(seconds=20, start=30)
    try:
        with Box(limits, protections) as box:
            return box.start([("probe", code)]).call("look", [])
    except (Failed, OSError):
        return None


def _private(paths: tuple[str, ...]) -> tuple[str, ...]:
    found = [*paths, *filter(None, [os.environ.get(PRIVATE)])]
    return tuple(dict.fromkeys(str(Path(p).resolve()) for p in found))


@cache
def protections(
    allow_bubblewrap: bool = True, private: tuple[str, ...] = ()
) -> Protections:
    """The strongest box that works here; found once, by trying. `private`: files and
    folders that it must not show, beside the checkout and private tests."""
    _own_rights()
    cover = _private(private)
    root = os.name == "posix" and os.getuid() == 0
    filtered = _filter_works()
    lacks = [] if filtered else ["no filter of system calls (needs Linux)"]
    if allow_bubblewrap and shutil.which("bwrap"):
        for name, options in WAYS.items():
            if name == "root" and not root:
                continue
            tried = Protections(options, filtered, name == "root", cover=cover)
            if (seen := _works(tried)) and not seen["seen"] and seen["writes"] is True:
                return replace(tried, missing=tuple(lacks))
    lacks.insert(
        0,
        "no bubblewrap: student code can read files that its user can read"
        + ("" if filtered else ", and reach the network"),
    )
    if root and _works(tried := Protections(None, filtered, True)):
        return replace(tried, missing=tuple(lacks))
    lacks.append("the child runs as the grader's own user, and can write its files")
    return Protections(None, filtered, False, tuple(lacks))


def _filter_works() -> bool:
    "Tried in a process of its own: some kernels and containers have no such filter."
    if not seccomp.available():
        return False
    code = "import seccomp, sys; sys.exit(0 if seccomp.refuse() else 1)"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=HERE, capture_output=True).returncode == 0


# ------------------------------------------------------------------------- the box


@dataclass
class Box:
    """A child that has imported what the assignment needs, and makes a process for each
    question. It is started when it is first needed, and again after a failure."""

    limits: Limits
    protected: Protections
    preload: tuple[str, ...] = ("numpy",)
    tensors: bool = False
    printed: bytes = b""
    _printed_now: int = 0
    _child: subprocess.Popen | None = None
    _folder: str | None = None
    _fds: list[int] = field(default_factory=list)
    _looked: float = 0.0
    _uid: int = 0
    _began: float = 0.0
    _asked: tuple[float, float] = (0.0, 0.0)  # what it had waited, and time allowed
    _known: list[int] = field(default_factory=list)  # numbers of its processes
    _extra: float = 0.0  # seconds that a busy machine has cost the child
    _paused: float = 0.0  # seconds that it has waited for what is lent
    _granted: float = 0.0  # both, since the submission began
    _slow: int = 0  # limits of time that it has met
    slow: set[str] = field(default_factory=set)  # functions that met one

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        "End everything that runs in the box, and remove its folder."
        if self._child is not None:
            _end(self._child, self.protected, self._uid)
            self._child = None
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self._folder:
            _remove(self._folder)
            self._folder = None

    def renew(self) -> None:
        "Another submission begins, of code that is trusted: its time is its own."
        self._began, self._granted, self._slow, self.slow = 0.0, 0.0, 0, set()

    def _open(self) -> None:
        to_child, give = os.pipe()
        take, from_child = os.pipe()
        shown, printed = os.pipe()
        self._fds = [give, take, shown]
        self._uid = 0
        if self.protected.own_user:
            self._uid = FIRST_USER + secrets.randbelow(1 << 30)
        if self.protected.bubblewrap is not None:
            before = _bubblewrap(
                self.protected.bubblewrap,
                self.limits.folder,
                cover=self.protected.cover,
            )
            child, folder, path = "/grader/child.py", "/home", ["/book"]
            environment, cwd = {"PATH": os.environ.get("PATH", "/usr/bin")}, "/"
        else:
            before, child, path = [], str(HERE / CHILD[0]), [str(ROOT)]
            self._folder = folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
            if self._uid:
                os.chown(folder, self._uid, self._uid)
            environment = {**_environment(), "HOME": folder, "TMPDIR": folder}
            cwd = folder
        python = str(Path(sys.prefix).resolve() / "bin" / Path(sys.executable).name)
        if not os.path.exists(python):
            python = sys.executable
        command = [*before, python, "-I", "-B", child, str(to_child), str(from_child)]
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=(to_child, from_child),
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            for fd in (to_child, from_child, printed):
                os.close(fd)
        for fd in self._fds:
            os.set_blocking(fd, False)
        limits = {
            "memory": self.limits.memory,
            "seconds": self.limits.processor,
            "file": self.limits.file,
            "processes": self.limits.processes,
        }
        if not self._uid:  # it shares its user's count of processes
            limits["processes"] += _processes_of(os.getuid())
        setting = {
            "uid": self._uid,
            "folder": folder,
            "path": path,
            "preload": list(self.preload),
            "tensors": self.tensors,
            "limits": limits,
            "entries": self.limits.entries if folder == "/home" else None,
        }
        deadline = self._allow(self.limits.start)
        self._send(setting, deadline)
        self._printed_now = 0
        if "ready" not in self._receive(deadline):
            raise Failed("the child did not start")

    def start(
        self,
        cells: list[tuple[str, str]],
        files: dict | None = None,
        lend: dict | None = None,  # functions that are answered from outside the box
    ) -> Question:
        """A process that has loaded these cells; `Question.problems` says which of them
        failed. A cell that never ends, or ends the process, is left out."""
        left, problems, left_out = list(cells), {}, set()
        self._began = self._began or time.monotonic()
        while True:
            own = time.monotonic() - self._began - self._granted
            if own > self.limits.submission:
                raise Failed(f"no time was left after {self.limits.submission:g} s")
            try:
                if self._child is None:
                    self.printed = b""
                    self._open()
            except Failed as e:
                text = self.printed.decode(errors="replace")[-300:]
                self.close()
                raise Failed(f"the box could not be opened: {e}. {text}") from None
            self._known = []
            question = Question(self, secrets.token_hex(8), problems, lend or {})
            question.left_out = left_out
            self.printed, self._printed_now = b"", 0
            try:
                question.load(left, files or {})
                return question
            except Failed as e:
                self.close()
                stuck = [c for c in left if c[0] == question.loading]
                if not stuck:
                    raise
                problems[stuck[0][0]] = f"left out: {e}"
                left_out.add(stuck[0][0])
                left.remove(stuck[0])

    # ---- frames, with a deadline

    def _tree(self) -> list[Process]:
        """The processes of the box. While a question is answered none can be added,
        where system calls are filtered: then only those that are known are looked at.
        """
        if self._child is None:
            return []
        if self._known and self.protected.filter:
            found = [_process(n) for n in self._known]
            return [p for p in found if p is not None]
        table = _table()
        return [table[n] for n in _below(self._child.pid, table) if n in table]

    def _know(self) -> None:
        self._known = list(_below(self._child.pid, _table()))

    def _delay(self) -> float:
        "Seconds in which the box's processes wanted a processor and had none."
        if self._child is None:
            return 0.0
        if self._known and self.protected.filter:
            return sum(map(_waited, self._known))
        return sum(map(_waited, _below(self._child.pid, _table())))

    def _allow(self, seconds: float) -> float:
        "The deadline of what begins now."
        self._asked, self._extra, self._paused = (self._delay(), seconds), 0.0, 0.0
        self._late = 0.0
        return time.monotonic() + seconds

    def _starved(self) -> bool:
        """Has the child waited for a processor longer than was made up for? Then the
        machine is busy, and it gets that time, up to a limit of its own."""
        before, seconds = self._asked
        lost = min(self._delay() - before, self.limits.patience * seconds)
        if self.limits.submission < math.inf:
            lost = min(lost, self._extra + MOST_GRANTED - self._granted)
        more = lost - self._extra
        if more < 0.01:
            return False
        self._extra += more
        self._granted += more
        return True

    def _make_up(self) -> float:
        "At the end of a call: what it has lost, for the limits on many calls."
        self._starved()
        return self._extra + self._paused

    def _pause(self, seconds: float) -> None:
        "It waited for us."
        self._paused += seconds
        self._granted += seconds

    @property
    def seconds(self) -> float:
        "For one call; less where several have met the limit."
        hurry = self._slow >= MANY_SLOW and self.limits.submission < math.inf
        return self.limits.seconds / (HURRY if hurry else 1)

    def _send(self, value, deadline: float) -> None:
        frame = memoryview(wire.encode(value))
        while frame:
            self._wait(self._fds[0], deadline, write=True)
            try:
                frame = frame[os.write(self._fds[0], frame[:65536]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Failed(self._why()) from None

    def _receive(self, deadline: float):
        told, data = wire.sizes(self._take(wire.HEAD.size, deadline))
        value = wire.decode(self._take(told, deadline), self._take(data, deadline))
        if not isinstance(value, dict):
            raise wire.BadFrame("no object")
        return value

    def _take(self, n: int, deadline: float) -> bytes:
        parts = []
        while n:
            self._wait(self._fds[1], deadline)
            try:
                part = os.read(self._fds[1], min(n, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise Failed(self._why())
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def _wait(self, fd: int, deadline: float, write: bool = False) -> None:
        "Until the pipe is ready; meanwhile take what is printed, and watch the memory."
        while True:
            rest = deadline + self._extra + self._paused - time.monotonic()
            if rest <= 0:
                # what came in time counts, also where we are late to look: for a
                # moment, so that nobody buys time by writing on and on
                self._late = self._late or time.monotonic()
                soon = time.monotonic() - self._late < LATE and not write
                if soon and select.select([fd], [], [], 0)[0]:
                    return
                if self._starved():
                    self._late = 0.0
                    continue
                self._slow += 1
                raise Failed("the time limit")
            watched = [self._fds[2]] + ([] if write else [fd])
            ready, writable, _ = select.select(
                watched, [fd] if write else [], [], min(rest, 0.1)
            )
            if self._fds[2] in ready:
                self._take_printed()
            if time.monotonic() - self._looked > 0.1:
                self._looked = time.monotonic()
                used = sum(p.memory for p in self._tree())
                if used > self.limits.resident:
                    raise Failed(
                        f"more than {self.limits.resident // MB} MB of memory were used"
                    )
                if self._folder:
                    self._look_at_files()
            if fd in ready or fd in writable:
                return

    def _look_at_files(self) -> None:
        size, entries = _size(self._folder, self.limits.entries)
        if size > self.limits.folder:
            raise Failed(
                f"files of more than {self.limits.folder // MB} MB were written"
            )
        if entries > self.limits.entries:
            raise Failed(f"more than {self.limits.entries} files were written")

    def _take_printed(self) -> None:
        try:
            part = os.read(self._fds[2], 1 << 16)
        except BlockingIOError:
            return
        if not part:  # nobody can print any more
            time.sleep(0.01)
        self._printed_now += len(part)
        self.printed = (self.printed + part)[:4000]
        if self._printed_now > self.limits.output:
            raise Failed(f"more than {self.limits.output // MB} MB were printed")

    def _why(self) -> str:
        code = self._child.poll()
        return "the process ended" + (f" with status {code}" if code else "")


@dataclass
class Question:
    "A process of the box that has loaded the cells, and answers calls."

    box: Box
    id: str
    problems: dict[str, str]  # cell -> what went wrong when it was loaded
    lend: dict = field(default_factory=dict)  # name -> function(arguments)
    left_out: set[str] = field(default_factory=set)  # cells that never ended
    lent: int = 0
    lent_seconds: float = 0.0
    loading: str | None = None
    over: bool = False
    until: float = 0.0  # when the time of the question is over
    allowed: float = 0.0  # seconds for what is done now

    def load(self, cells: list[tuple[str, str]], files: dict) -> None:
        started = {"cells": [list(c) for c in cells], "files": files, "id": self.id}
        started["borrow"] = list(self.lend)
        names = {name for name, _ in cells}
        self.allowed = self.box.seconds
        deadline = self.box._allow(self.allowed)
        self.box._send(started, deadline)
        while "loaded" not in (told := self._told(deadline, "loading the cells")):
            if "loading" in told:
                self.loading = str(told["loading"])
            elif "cell" in told:
                name = told["cell"]
                if isinstance(name, str) and name in names:
                    self.problems[name] = str(told.get("error"))[:700]
        self.loading = None
        self.box._know()
        self.until = time.monotonic() + self.box.limits.total

    def call(
        self,
        name: str,
        arguments: list,
        seconds: float | None = None,
        named: dict | None = None,
    ):
        "The answer, as plain objects and NumPy arrays; Failed where there is none."
        if self.over:
            raise Failed("the process of this question has ended")
        number = secrets.token_hex(8)
        asked = {"call": name, "arguments": arguments, "id": number}
        asked["named"] = named or {}
        now, told = time.monotonic(), None
        own = self.box.limits.seconds / HURRY if name in self.box.slow else math.inf
        self.allowed = min(seconds or self.box.seconds, own, self.until - now)
        if now >= self.until:
            limit = self.box.limits.total
            text = f"the calls of {name} took longer than {limit:g} s"
            self._broken(Failed(text, slow=name))
        deadline = self.box._allow(self.allowed)
        try:
            self.box._send(asked, deadline)
            while "borrow" in (told := self._told(deadline, f"{name}(...)")):
                self.box._send(self._answer(told, name), deadline)
        except Failed as e:
            if e.slow and self.box.limits.submission < math.inf:
                # in the next attempt it is not waited for as long again
                self.box.slow.add(name)
            e.slow = e.slow and name
            self._broken(e)
        self.until += self.box._make_up()
        if told.get("id") != number:
            self._broken(Failed(f"{name}(...) wrote something else than an answer"))
        if "missing" in told:
            raise Failed(_missing(name, self.problems))
        if "error" in told:
            kinds = told.get("kinds")
            kinds = kinds if isinstance(kinds, list) else []
            kinds = tuple(k for k in kinds[:20] if isinstance(k, str))
            said = f"{name}(...) raised {str(told['error'])[:700]}"
            raise Failed(said, kinds=kinds)
        if "answer" not in told:
            self._broken(Failed(f"{name}(...) wrote something else than an answer"))
        return told["answer"]

    def _answer(self, told: dict, caller: str) -> dict:
        "What a borrowed function answers; too many calls end the question."
        name, self.lent = told.get("borrow"), self.lent + 1
        arguments, named = told.get("arguments"), told.get("named")
        if not isinstance(name, str) or name not in self.lend:
            return {"refused": f"{name!s:.40} is not lent in this question"}
        if not isinstance(arguments, list) or not isinstance(named, dict):
            return {"refused": f"{name} was called with something else than arguments"}
        most = LENT_TIME * self.box.limits.seconds
        if self.lent > MOST_LENT or self.lent_seconds > most:
            raise Failed(
                f"{caller}(...) called other functions {self.lent} times, for "
                f"{self.lent_seconds:.0f} s; allowed are {MOST_LENT}, and {most:g} s"
            )
        began = time.monotonic()
        try:
            return {"lent": self.lend[name](arguments, named)}
        except Failed as e:
            kind = next((k for k in e.kinds if k in LENDABLE), "ValueError")
            return {"refused": str(e)[:300], "kind": kind}
        finally:
            self.lent_seconds += (spent := time.monotonic() - began)
            self.box._pause(spent)

    def _broken(self, error: Failed) -> None:
        self.over = True
        self.box.close()
        raise error

    def _told(self, deadline: float, what: str) -> dict:
        try:
            told = self.box._receive(deadline)
        except wire.BadFrame as e:
            raise Failed(f"{what} wrote something else than an answer: {e}") from None
        except Failed as e:
            if str(e) == "the time limit":
                over = self.until and time.monotonic() >= self.until
                limit = self.box.limits.total if over else self.allowed
                said = f"{what} took longer than {limit:.3g} s"
                raise Failed(said, slow=what) from None
            raise Failed(f"{what}: {e}") from None
        if "ended" in told:
            status = told["ended"]
            how = _ending(status) if isinstance(status, int) else ""
            if isinstance(told.get("why"), str):
                how = f": {told['why'][:100]}"
            raise Failed(f"{what} ended the process{how}")
        return told

    def end(self) -> None:
        "Let the process end, so that the next question begins."
        if self.over or self.box._child is None:
            return
        self.over = True
        deadline = self.box._allow(2)
        try:
            self.box._send({"end": True}, deadline)
            while True:
                told = self.box._receive(deadline)
                if "ended" in told and told.get("id") == self.id:
                    return
        except (Failed, wire.BadFrame):
            self.box.close()


def _missing(name: str, problems: dict[str, str]) -> str:
    text = f"no function {name} is defined in a graded cell"
    if problems:
        cell, wrong = next(iter(problems.items()))
        text += f"; {cell} failed: {wrong}"
    return text


def _ending(status: int) -> str:
    if status >= 0:
        return f" with status {status}"
    try:
        return f" by {signal.Signals(-status).name}"
    except ValueError:
        return f" by signal {-status}"


# ---------------------------------------------------------------- watch, and end


class Process(NamedTuple):
    parent: int
    user: int
    memory: int  # bytes in use
    state: str
    seconds: float  # of the processor


PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


def _process(number: int) -> Process | None:
    try:
        with open(f"/proc/{number}/stat", "rb") as f:
            told = f.read().rpartition(b")")[2].split()
        user = os.stat(f"/proc/{number}").st_uid
    except OSError:
        return None
    seconds = (int(told[11]) + int(told[12])) / TICK
    memory, state = int(told[21]) * PAGE, told[0].decode()
    return Process(int(told[1]), user, memory, state, seconds)


def _waited(number: int) -> float:
    "Seconds in which a process was ready to run and had no processor."
    try:
        with open(f"/proc/{number}/schedstat", "rb") as f:
            return int(f.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _table() -> dict[int, Process]:
    "Every process that can be seen, by number."
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    found = {int(n): _process(int(n)) for n in names if n.isdigit()}
    return {n: p for n, p in found.items() if p is not None}


def _below(root: int, table: dict[int, Process]) -> set[int]:
    "A process and all that descend from it."
    found, new = set(), {root}
    while new:
        found |= new
        new = {n for n, p in table.items() if p.parent in new} - found
    return found


def _processes_of(uid: int) -> int:
    "Processes and threads of a user: what a limit on them counts from."
    n = 0
    for pid, process in _table().items():
        if process.user == uid:
            try:
                n += len(os.listdir(f"/proc/{pid}/task"))
            except OSError:
                n += 1
    return n


def _size(folder: str, most: int) -> tuple[int, int]:
    "Bytes and number of what is in a folder; it stops where there is too much."
    total, entries, left = 0, 0, [folder]
    while left and entries <= most:
        try:
            with os.scandir(left.pop()) as found:
                for entry in found:
                    entries += 1
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            left.append(entry.path)
                    except OSError:
                        continue
                    if entries > most:
                        break
        except OSError:
            continue
    return total, entries


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _end(child: subprocess.Popen, protected: Protections, uid: int) -> None:
    """End the child and all that it has started. In bubblewrap the end of its first
    process ends all of them; otherwise they are looked for until none is left."""
    ours = _below(child.pid, _table())
    for pid in ours:
        _kill(pid)
    if protected.bubblewrap is None:
        for _ in range(50):
            table = _table()
            left = _below(child.pid, table) - {child.pid}
            if uid:
                left |= {n for n, p in table.items() if p.user == uid}
            left = {n for n in left if n in table and table[n].state != "Z"}
            left -= {child.pid}
            if not left:
                break
            ours |= left
            for pid in left:
                _kill(pid)
            time.sleep(0.02)
    child.wait()
    for pid in ours - {child.pid}:  # what has come to us when its parent ended
        try:
            for _ in range(50):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    break
                time.sleep(0.005)
        except OSError:
            continue


def _remove(folder: str) -> None:
    """Remove a folder, whatever student code has made of it: inner folders are moved to
    the top, so that no path is ever too long."""
    n, mark = 0, secrets.token_hex(4)
    try:
        os.chmod(folder, 0o700)
        while names := os.listdir(folder):
            for name in names:
                path = os.path.join(folder, name)
                if not os.path.isdir(path) or os.path.islink(path):
                    os.unlink(path)
                    continue
                os.chmod(path, 0o700)
                for inner in os.listdir(path):
                    n, moved = n + 1, os.path.join(path, inner)
                    if os.path.isdir(moved) and not os.path.islink(moved):
                        os.chmod(moved, 0o700)
                    os.rename(moved, os.path.join(folder, f"{mark}-{n}"))
                os.rmdir(path)
        os.rmdir(folder)
    except OSError:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except RecursionError:
            pass  # the next grader sweeps it up


def sweep() -> None:
    "Remove the folders of boxes whose grader was killed."
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = path.name.removeprefix(PREFIX).partition("-")[0]
        try:
            owner, root = path.lstat().st_uid, os.getuid() == 0
            mine = owner == os.getuid() or (root and owner >= FIRST_USER)
            mine = mine and path.is_dir()
            if number.isdigit() and mine and not path.is_symlink():
                os.kill(int(number), 0)
        except ProcessLookupError:
            _remove(str(path))
        except OSError:
            continue
