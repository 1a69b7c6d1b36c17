"""Processes that end in the middle of their work, for the tests of what is saved."""

import os
import signal
import sys

import pytest

from metalearn_book.data import files

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks and exchanges")

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")


def killed_at(n: int, action) -> bool:
    """Run `action` in a process that ends without a word before the n-th time that it
    opens, makes, renames, removes or syncs something; True if there was such a time."""
    if pid := os.fork():
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        except BaseException:  # the test took too long: leave nothing that waits
            os.kill(pid, signal.SIGKILL)
            raise
    count = [0]

    def tick(event="open", arguments=()):
        if event in TOUCHES:
            count[0] += 1
            if count[0] == n:
                os._exit(9)

    def ticking(function):
        def call(*arguments):
            tick()
            value = function(*arguments)
            tick()
            return value

        return call

    try:
        os.fsync, files._exchange = ticking(os.fsync), ticking(files._exchange)
        sys.addaudithook(tick)
        action()
    finally:
        os._exit(0)
