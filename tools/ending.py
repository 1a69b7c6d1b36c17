"""How every tool ends: with an exit status, and with one line where it is told to stop.

    if __name__ == "__main__":
        ending.run(main, sys.argv[1:])

Ctrl-C, a kill (SIGTERM) and a closed terminal raise `Ended`, a KeyboardInterrupt, so
that what is under way is cleaned up; the exit status is 130, 143 or 129, as shells have
it. While a tool still imports, nothing is under way and it ends at once, because a
library that is being imported may swallow an exception: import this module first. A
tool that another tool starts calls `end_with_parent`: it goes where its parent was
killed in a way that nobody can catch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

NAMES = {
    name: words
    for name, words in (
        ("SIGINT", "Ctrl-C"),
        ("SIGTERM", "a kill (SIGTERM)"),
        ("SIGHUP", "a closed terminal (SIGHUP)"),
    )
    if hasattr(signal, name)
}
PATIENCE = 2.0  # seconds after which a second signal ends the cleaning up as well


class Ended(KeyboardInterrupt):
    """A signal asked this process to end.

    number: of the signal. said: True where what was done has been printed already.
    """

    def __init__(self, number: int):
        self.number, self.said = number, False
        super().__init__(f"ended by {NAMES[signal.Signals(number).name]}")


_since: list[float] = []  # when the first signal came


def _end(number: int, frame) -> None:
    _since.append(time.monotonic())
    if len(_since) == 1:
        raise Ended(number)
    if time.monotonic() - _since[0] > PATIENCE:
        os._exit(128 + number)


def _told(why) -> str:
    return (
        f"{Path(sys.argv[0]).name}: {why}; files are as they were, or complete. Run it "
        "again to go on"
    )


def _end_at_once(number: int, frame) -> None:
    os.write(2, f"{_told(Ended(number))}\n".encode())
    os._exit(128 + number)


def _on_signals(handler: Callable) -> None:
    for name in NAMES:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def watch() -> None:
    "From now on signals raise `Ended`; those that are ignored (nohup, &) stay so."
    _on_signals(_end)


def _is_a_tool() -> bool:
    "Is this process one of the scripts beside this file, and not a test of them?"
    main = getattr(sys.modules["__main__"], "__file__", None)
    return bool(main) and Path(main).resolve().parent == Path(__file__).resolve().parent


if _is_a_tool():
    _on_signals(_end_at_once)


def run(main: Callable, *arguments) -> None:
    "Call a tool's `main`, and exit with the status that it returns."
    watch()
    try:
        status = main(*arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as e:
        if not getattr(e, "said", False):
            print(_told(str(e) or "ended by Ctrl-C"), file=sys.stderr)
        status = 128 + getattr(e, "number", signal.SIGINT)
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


_parent: list[int] = []


def parent_is_gone() -> bool:
    "Has the process that started this one ended? False where nobody was named."
    return bool(_parent) and os.getppid() != _parent[0]


def end_with_parent(parent: int, group: bool = False) -> None:
    """Get SIGTERM when the parent is gone, and SIGKILL 10 seconds later.

    group: with all processes of this one's group.
    """
    _parent[:] = [parent]
    kill = (lambda n: os.killpg(0, n)) if group else (lambda n: os.kill(os.getpid(), n))

    def look() -> None:
        while not parent_is_gone():
            time.sleep(0.2)
        kill(signal.SIGTERM)
        time.sleep(10)
        kill(signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()
