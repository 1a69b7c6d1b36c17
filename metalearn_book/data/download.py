"""Downloads that are whole or not used: size, sha256, attempts, time limits, progress.

A file is written beside its place under a name of its own and moved there when it is
right, so an interrupted download leaves nothing, and two processes do not disturb each
other.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .arguments import several
from .files import made, path_of

__all__ = ["FetchError", "Item", "fetch_items", "no_room"]

ATTEMPTS = 3  # of a file that arrives broken, or a server that is busy
PAUSE = 1.0  # seconds before the second attempt, doubled before the third
SLOWEST = 20_000  # bytes a second that a download has to reach on average
CHUNK = 1 << 16
AT_ONCE = 4  # files fetched at the same time


class FetchError(RuntimeError):
    "A file could not be fetched; the message says which, why, and what to do."


@dataclass(frozen=True)
class Item:
    """One file: its path below the cache, its address, and what it has to be.

    url: where it is fetched from.
    size, sha256: of the content as it is upstream; a file whose local name ends in
    `.gz` is compressed when it is stored. A sha256 of None: the sum is kept beside the
    file.
    """

    path: str
    url: str
    size: int | None
    sha256: str | None


def fetch_items(
    items: Iterable[Item], root: Path, name: str, progress: bool = True
) -> None:
    """Fetch files into `root`, a few at a time, with a progress bar in bytes.

    items: the files; `name` stands beside the bar.
    Files that arrived are kept, so that an interrupted call goes on where it stopped.
    FetchError: the first file that could not be fetched; the others are left.
    """
    from tqdm.auto import tqdm

    items, root = several("items", items, Item, least=0), path_of(root, "root")
    total = sum(item.size for item in items)
    _check_room(root, total)
    _remove_leftovers({(root / item.path).parent for item in items})
    stop, lock = threading.Event(), threading.Lock()
    with (
        tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc=name,
            disable=not progress,
            mininterval=0.5,
        ) as bar,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):

        def count(n: int) -> None:
            with lock:
                bar.update(n)

        jobs = [pool.submit(_fetch, item, root, count, stop) for item in items]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
            for job in jobs:
                if job.done():
                    job.result()
        finally:
            stop.set()
            for job in jobs:
                job.cancel()


def _remove_leftovers(folders: Iterable[Path]) -> None:
    "Temporary files of a process that was killed; those of a running one are younger."
    for folder in folders:
        for path in folder.glob(".*.part.*") if folder.is_dir() else ():
            try:
                if time.time() - path.stat().st_mtime > 3600:
                    path.unlink()
            except OSError:
                pass  # another process was faster


def _check_room(root: Path, total: int) -> None:
    near = next(p for p in (root, *root.parents) if p.exists())
    if (free := shutil.disk_usage(near).free) < total * 1.2:
        raise FetchError(
            f"{near} has {free / 1e6:.0f} MB free, but {total * 1.2 / 1e6:.0f} MB are "
            "needed. Free some space, or let METALEARN_CACHE name a folder on "
            "another disk"
        )


def no_room(path: Path, e: OSError) -> FetchError:
    "The error for a file that could not be written."
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(
            f"the disk is full while writing below {path}. Free some space, or let "
            "METALEARN_CACHE name a folder on another disk"
        )
    return FetchError(
        f"can't write below {path} ({e}). Let METALEARN_CACHE name a folder that you "
        "may write to"
    )


class _Broken(Exception):
    "What arrived is not the file, or the server is busy: worth another attempt."


def _fetch(
    item: Item, root: Path, report: Callable[[int], object], stop: threading.Event
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        got = 0

        def count(n: int) -> None:
            nonlocal got
            got += n
            report(n)

        try:
            return _fetch_once(item, root / item.path, count, stop)
        except _Broken as e:
            report(-got)
            if attempt == ATTEMPTS:
                raise FetchError(
                    f"{item.url} {e}, {ATTEMPTS} times. The file was not used. Try "
                    "again later, or from another network; METALEARN_UPSTREAM names "
                    "a mirror"
                ) from e
            if stop.wait(PAUSE * 2 ** (attempt - 1)):
                return None


def _timeout() -> float:
    """Seconds without an answer after which a download is given up (METALEARN_TIMEOUT,
    30).
    """
    given = os.environ.get("METALEARN_TIMEOUT") or "30"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise FetchError(
            f"METALEARN_TIMEOUT={given} is not a number of seconds above 0"
        )
    return seconds


def _too_slow(item: Item, seconds: float) -> FetchError:
    return FetchError(
        f"{item.url} is too slow: {item.size:,} bytes did not come within {seconds:g} "
        f"s and at {SLOWEST / 1000:g} kB a second. Try again later, or set "
        "METALEARN_TIMEOUT to more seconds"
    )


def _fetch_once(
    item: Item, path: Path, count: Callable[[int], None], stop: threading.Event
) -> None:
    "One attempt; nothing stands at `path` unless size and sha256 are right."
    seconds = _timeout()
    request = urllib.request.Request(
        item.url, headers={"Accept-Encoding": "gzip", "User-Agent": "metalearn_book"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            _store(answer, item, path, count, stop, seconds)
    except urllib.error.HTTPError as e:
        if e.code in (429, 500, 502, 503, 504):
            raise _Broken(
                f"could not be fetched (the server answered {e.code} {e.reason})"
            ) from e
        raise FetchError(
            f"{item.url} is not there (the server answered {e.code} {e.reason}). If "
            "this is a mirror (METALEARN_UPSTREAM), it lacks the file; otherwise "
            "update the package: the repository has moved"
        ) from e
    except TimeoutError as e:
        raise _too_slow(item, seconds) from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, TimeoutError):
            raise _too_slow(item, seconds) from e
        raise FetchError(
            f"{item.url} can't be reached ({e.reason}). Is there a network? A proxy "
            "is set by HTTPS_PROXY, a mirror by METALEARN_UPSTREAM"
        ) from e
    except (http.client.HTTPException, ConnectionError) as e:
        raise _Broken(f"was cut off ({type(e).__name__})") from e


def _blocks(answer, ends: float) -> Iterator[bytes]:
    """What a server sends, unpacked where it was packed for the way.

    An error of the connection is told from one of the disk; after the time `ends` it is
    a TimeoutError.
    """
    packed = answer.headers.get("Content-Encoding") == "gzip"
    unpack = zlib.decompressobj(wbits=31).decompress if packed else bytes
    while True:
        try:
            block = answer.read1(CHUNK)
        except TimeoutError:
            raise
        except OSError as e:
            raise _Broken(f"was cut off ({type(e).__name__})") from e
        if not block:
            return
        if time.monotonic() > ends:
            raise TimeoutError
        try:
            yield unpack(block)
        except zlib.error as e:
            raise _Broken("arrived altered (its compression is damaged)") from e


@contextlib.contextmanager
def _opened(path: Path, packed: bool) -> Iterator[IO[bytes]]:
    "A new file to write to; where `packed`, it is compressed, to the same bytes."
    with path.open("wb") as file:
        if not packed:
            yield file
        else:  # without the name and the time that gzip stores otherwise
            with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as out:
                yield out


def _store(answer, item: Item, path: Path, count, stop, seconds: float) -> None:
    "Read an answer, compare it with what is expected, and put it in its place."
    ends = time.monotonic() + seconds + item.size / SLOWEST
    digest, length = hashlib.sha256(), 0
    try:
        with made(path) as part:
            with _opened(part, path.suffix == ".gz") as out:
                for block in _blocks(answer, ends):
                    if stop.is_set():
                        raise FetchError(f"{item.url}: stopped, as another file failed")
                    length += len(block)
                    if length > item.size:
                        raise _Broken(
                            f"arrived altered (more than {item.size:,} bytes)"
                        )
                    digest.update(block)
                    out.write(block)
                    count(len(block))
            if length < item.size:
                raise _Broken(f"was cut off ({length:,} of {item.size:,} bytes)")
            if digest.hexdigest() != item.sha256:
                raise _Broken(
                    "arrived altered (its sha256 is not the one of the fixed commit)"
                )
    except TimeoutError:
        raise
    except OSError as e:
        raise no_room(path, e) from e
