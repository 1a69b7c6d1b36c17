"""What runs in the box: it loads the graded cells of one submission and answers calls.

It knows no test and no solution. It imports NumPy (and PyTorch, where an assignment
says so) once, and then makes a new process for each question, so that what student code
breaks in one question is whole in the next. That process gives up the right to make
processes, sockets and signals before it reads a line of student code.

python child.py IN OUT   (numbers of two open pipes; frames of wire.py)
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import linecache
import os
import resource
import signal
import sys
import traceback
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import seccomp
import wire

sys.path.pop(0)
_exit = os._exit  # student code may put something else in its place


class Pipe:
    def __init__(self, fd_in: int, fd_out: int):
        self.fd_in, self.fd_out = fd_in, fd_out

    def _take(self, n: int) -> bytes:
        parts = []
        while n:
            part = os.read(self.fd_in, min(n, 1 << 20))
            if not part:
                _exit(0)  # the grader has gone
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def receive(self):
        told, data = wire.sizes(self._take(wire.HEAD.size))
        return wire.decode(self._take(told), self._take(data))

    def send(self, value) -> None:
        self.write(wire.encode(value))

    def write(self, frame: bytes) -> None:
        frame = memoryview(frame)
        while frame:
            frame = frame[os.write(self.fd_out, frame) :]


def become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def limit(memory: int, seconds: int, file: int, processes: int) -> None:
    "Limits that can't be raised again."
    for name, value in (
        ("RLIMIT_AS", memory),
        ("RLIMIT_DATA", memory),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", file),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", processes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
    ):
        if hasattr(resource, name):
            try:
                resource.setrlimit(getattr(resource, name), (value, value))
            except (ValueError, OSError):
                pass  # a lower one is set already, or the system has no such limit


def said(error: BaseException, names: dict[str, str]) -> str:
    "The error in one line, with the cell and the line of student code."
    try:
        text = f"{type(error).__name__}: {error}"[:600]
    except BaseException:
        text = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename in names:
        return f"{text} ({names[error.filename]}, line {error.lineno})"
    places = [
        f"{names[f.filename]}, line {f.lineno}"
        for f in traceback.extract_tb(error.__traceback__)
        if f.filename in names
    ]
    return text + (f" ({places[-1]})" if places else "")


class Submission:
    "Student code in a module of its own."

    def __init__(self, cells: list, files: dict, tensors: bool):
        self.module = types.ModuleType("submission")
        self.module.__dict__["__builtins__"] = builtins
        sys.modules["submission"] = self.module
        self.tensors, self.names = tensors, {}
        for name, text in files.items():
            with open(name, "w", encoding="utf-8") as f:
                f.write(text)
            self.names[os.path.abspath(name)] = name
        self.cells = cells

    def load(self, name: str, code: str) -> str | None:
        "Run one cell; what went wrong, or None."
        file = f"<{name}>"
        self.names[file] = name
        linecache.cache[file] = (len(code), None, code.splitlines(True), file)
        try:
            exec(compile(code, file, "exec"), self.module.__dict__)
        except BaseException as e:
            return said(e, self.names)
        return None

    def call(self, name: str, arguments: list, named: dict, number: str) -> bytes:
        "The frame that answers a call."
        function = self.module.__dict__.get(name)
        if not callable(function):
            return wire.encode({"missing": name, "id": number})
        try:
            answer = function(*self.given(arguments), **self.given(named))
            return wire.encode({"answer": answer, "id": number})
        except BaseException as e:
            classes = type.mro(type(e))
            kinds = [c.__name__ for c in classes if c.__module__ == "builtins"]
            told = {"error": said(e, self.names), "kinds": kinds, "id": number}
            return wire.encode(told)

    def borrow(self, names: list, pipe: Pipe) -> None:
        """Functions that the grader answers, in place of the student's own of earlier
        questions, in all modules of the student where these have a name: what is
        passed and what comes back is data."""
        for name in names:
            own = self.module.__dict__.get(name)
            lent = self.borrowed(name, own, pipe)
            self.module.__dict__[name] = lent
            for module in self.modules():
                for key, value in list(module.items()):
                    if callable(own) and value is own:
                        module[key] = lent

    def modules(self) -> list[dict]:
        "The names in the modules that are the student's own."
        here, found = os.getcwd() + os.sep, [self.module.__dict__]
        for module in list(sys.modules.values()):
            try:
                if os.path.abspath(module.__file__).startswith(here):
                    found.append(module.__dict__)
            except BaseException:
                continue
        return found

    def borrowed(self, name: str, own, pipe: Pipe):
        try:
            signature = inspect.signature(own)
        except BaseException:
            signature = None

        def function(*arguments, **named):
            if named and signature is not None:
                # by the places that these names have in the student's own function;
                # what can't be placed goes by its name, as in the notebook
                try:
                    bound = signature.bind(*arguments, **named)
                    arguments, named = bound.args, bound.kwargs
                except TypeError:
                    pass
            asked = {"borrow": name, "arguments": list(arguments), "named": named}
            pipe.send(asked)
            told = pipe.receive()
            if "refused" in told:
                raise getattr(builtins, told.get("kind", "ValueError"))(told["refused"])
            return self.given(told["lent"])

        try:  # who asks for its name is told that of the student's own
            function.__name__ = function.__qualname__ = own.__name__
        except BaseException:
            function.__name__ = function.__qualname__ = name
        return function

    def given(self, value):
        "Arguments as the assignment has them: PyTorch tensors, or NumPy arrays."
        if isinstance(value, dict):
            return {k: self.given(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.given(v) for v in value]
        if isinstance(value, np.ndarray) and self.tensors:
            return sys.modules["torch"].from_numpy(value)
        if isinstance(value, np.generic) and self.tensors:
            return value.item()
        return value


def answer_one_question(pipe: Pipe, start: dict, setting: dict, parent: int) -> None:
    seccomp.end_with_parent()
    if os.getppid() != parent:
        _exit(1)
    limit(**setting["limits"])
    closed = seccomp.refuse()
    student = Submission(start["cells"], start["files"], setting["tensors"])
    for name, code in start["cells"]:
        pipe.send({"loading": name})
        if wrong := student.load(name, code):
            pipe.send({"cell": name, "error": wrong})
    student.borrow(start["borrow"], pipe)
    pipe.send({"loaded": True, "closed": closed})
    while True:
        asked = pipe.receive()
        if "end" in asked:
            _exit(0)
        reply = student.call(
            asked["call"], asked["arguments"], asked["named"], asked["id"]
        )
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                pass
        pipe.write(reply)


def main(fd_in: int, fd_out: int) -> None:
    seccomp.end_with_parent()
    pipe = Pipe(fd_in, fd_out)
    setting = pipe.receive()
    if setting["uid"]:
        become(setting["uid"])
        seccomp.end_with_parent()  # a change of user takes it back
    seccomp.drop_rights()
    seccomp.hide_memory()  # also from the processes that it makes
    os.chdir(setting["folder"])
    sys.path[:0] = [setting["folder"], *setting["path"]]
    for name in setting["preload"]:
        module = importlib.import_module(name)
        if name == "torch":
            module.set_num_threads(1)
    if setting["entries"] is not None:  # so that the end of a question wakes us
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    pipe.send({"ready": [sys.version.split()[0], np.__version__]})
    while True:
        start = pipe.receive()
        parent, pid = os.getpid(), os.fork()
        if not pid:
            try:
                answer_one_question(pipe, start, setting, parent)
            finally:
                _exit(70)
        status, why = wait(pid, setting["entries"])
        told = {"ended": status, "id": start["id"]}
        pipe.send({**told, "why": why} if why else told)


def wait(pid: int, entries: int | None) -> tuple[int, str]:
    """Until a question is over, and how it ended. `entries`: the most files that the
    small file systems of the box may hold; only from inside can they be counted."""
    why = ""
    if entries is not None:
        at_first = _files()
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            if _files() - at_first > entries:
                why = f"more than {entries} files were written"
                os.kill(pid, signal.SIGKILL)
                break
            _pause(0.1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), why


def _files() -> int:
    there = map(os.statvfs, ("/home", "/dev/shm"))
    return sum(found.f_files - found.f_ffree for found in there)


def _pause(seconds: float) -> None:
    "Less, where a process ends meanwhile."
    signal.sigtimedwait([signal.SIGCHLD], seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
