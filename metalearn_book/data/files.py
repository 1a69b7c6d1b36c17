"""Files and folders that are written whole or not at all, and read only if nothing in
them has changed.

Whoever reads while another process writes, or after it was killed at any moment, finds
the old version or the new one:

- `made`: one file. It is written beside its place and then renamed.
- `write_sealed`, `read_sealed`: one file that ends in the SHA-256 checksum of what
  stands before (checkpoints, stored features).
- `write_saved`, `open_saved`, `read_saved`: the folder of a model with one description
  in JSON, which lists the checksum of every other file and ends in a checksum of
  itself. A complete folder is written beside the old one and the two change names in
  one step (`renameat2` on Linux, `renamex_np` on macOS). Where a file system can't do
  that, the old folder is called `.NAME.before` for the moment between two renames; if
  the process is killed in it, the next reader or writer takes it back.
- `environment_folder`: a folder that an environment variable names.

What is written lies under a name with `.part.` in it. Its writer holds a lock on it, so
the next writer can tell what a killed one left, and removes that.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing left over is removed
    fcntl = None

__all__ = [
    "absolute_environment",
    "checksum",
    "environment_folder",
    "file_sha256",
    "locked",
    "open_saved",
    "read_saved",
    "read_sealed",
    "seal",
    "SEAL_LENGTH",
    "made",
    "write_saved",
    "write_sealed",
]

#: variables that name folders: must the folder be there?
FOLDERS = {
    "METALEARN_DATA": True,
    "METALEARN_ENCODERS": True,
    "METALEARN_CACHE": False,
    "METALEARN_RESULTS": False,
}
FORMAT = 1
SEAL_LENGTH = 90  # bytes that a checksum at the end of a file takes
_SEAL = re.compile(rb"\nmetalearn_book:(\d):sha256:([0-9a-f]{64})\n")
PATIENCE = 60.0  # seconds to wait for others who read or write the same folder


def file_sha256(path: str | Path) -> str:
    "The SHA-256 checksum of a file, as 64 hexadecimal digits."
    with open(path_of(path), "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checksum(about: dict) -> str:
    """The SHA-256 checksum of what JSON can hold, as 64 hexadecimal digits.

    The order of the keys does not matter.
    """
    content = json.dumps(about, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def path_of(folder, name: str = "a path") -> Path:
    """A path from what a caller gave as a folder or file.

    ValueError, under this name, for what names none: None, a number, bytes, an empty
    text, a null character, half a character."""
    try:
        text = b"" if isinstance(folder, bytes) else os.fsencode(folder)
    except (TypeError, UnicodeError):  # no path, or a lone surrogate
        text = b""
    if b"\0" in text or not text.strip():
        raise ValueError(f"{name} must be a text or a pathlib.Path, got {folder!r}")
    return Path(folder)


# ------------------------------------------------- folders that the environment names


def environment_folder(
    variable: str,  # such as "METALEARN_DATA"
    otherwise: str = "do without",  # what happens where it is not set, for the message
    must_exist: bool = True,  # False: it is made when something is written there
) -> Path | None:  # absolute; None where the variable is not set
    """The folder that an environment variable names, with `~` and relative paths
    resolved.

    FileNotFoundError where it is no folder, PermissionError where it can't be read.
    """
    if not isinstance(variable, str) or not re.fullmatch(r"[A-Z0-9_]+", variable):
        raise ValueError(f"variable must be a name in capitals, got {variable!r}")
    value = os.environ.get(variable)
    if not value:
        return None
    folder = Path(os.path.abspath(os.path.expanduser(value)))
    named = f"{variable}={value}"
    if str(folder) != value:
        named += f" (that is {folder})"
    advice = f"correct it, or unset it to {otherwise}"
    if must_exist and not folder.is_dir():
        raise FileNotFoundError(f"{named} is not a folder; {advice}")
    if must_exist and not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{named} is a folder that you may not read; {advice}")
    return folder


def absolute_environment() -> dict[str, str]:
    """The environment with all folders of this package as absolute paths, for a process
    that is started in another folder.

    FileNotFoundError or PermissionError, as from `environment_folder`, where one has to
    exist and does not.
    """
    found = dict(os.environ)
    for variable, must_exist in FOLDERS.items():
        if folder := environment_folder(variable, must_exist=must_exist):
            found[variable] = str(folder)
    return found


# ------------------------------------------------- errors that name path and disk

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_TOLD = {
    errno.EFBIG: "the file would be larger than this machine allows",
    errno.EROFS: "the disk is mounted for reading only",
    errno.EACCES: "you have no right to",
    errno.EPERM: "you have no right to",
    errno.EIO: "the disk reports an error",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EBUSY: "it is in use, or a disk is mounted there",
    errno.EXDEV: "what is there lies on another disk, or in a container's image",
    errno.ENXIO: "the disk is not there",
    errno.ESTALE: "the disk is not there any more",
}


def _disk(path: Path) -> str:
    "The disk on which `path` lies or would lie, and the room on it."
    path = Path(os.path.abspath(path))
    near = next(p for p in (path, *path.parents) if os.path.exists(p))
    mount = next((p for p in (near, *near.parents) if os.path.ismount(p)), near)
    try:
        room = shutil.disk_usage(near)
        return f"{mount}, {room.free / 1e6:.0f} MB of {room.total / 1e6:.0f} MB free"
    except OSError:
        return str(mount)


@contextmanager
def _told(path: Path, what: str = "write") -> Iterator[None]:
    """An error of the system, also one that a library passes on as words, as one that
    names path, disk and what to do. The number of the error stays.
    """
    try:
        yield
    except Exception as e:
        number = e.errno if isinstance(e, OSError) else None
        if number is None and (found := re.search(r"os error (\d+)", str(e))):
            number = int(found[1])
        if number in _NO_ROOM:
            why = (
                f"the disk is full while writing {path} (disk {_disk(path)}); nothing "
                "was changed. Free some space, or choose a path on another disk"
            )
        elif number in _TOLD:
            why = (
                f"can't {what} {path} (disk {_disk(path)}): {_TOLD[number]}. Choose "
                "another path, or change what is in the way"
            )
        else:
            raise
        if hasattr(e, "__notes__"):
            raise  # told already, by a block inside of this one
        error = OSError(number, why)  # of the class that belongs to the number
        error.add_note(f"where: {path}")
        raise error from e


# ------------------------------------------------- locks, and what killed writers left


def _lock(fd: int, kind: int) -> bool:
    "Lock an open file or folder now; False if another holds it."
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: go on without
        pass
    return True


def _is_still(fd: int, path: Path) -> bool:
    "Is `path` what was opened as `fd`, and not another of the same name by now?"
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def locked(
    folder: str | Path,  # an existing folder
    shared: bool = False,  # True: for reading, together with other readers
) -> Iterator[bool]:  # False: another folder took this name while we waited
    """Alone with a folder among all who ask by this function; a kill ends it.

    RuntimeError after a minute of waiting.
    """
    if fcntl is None:
        yield True
        return
    fd = os.open(path_of(folder), os.O_RDONLY)
    try:
        ends = time.monotonic() + PATIENCE
        while not _lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > ends:
                raise RuntimeError(
                    f"{folder} has been read or written by another process for "
                    f"{PATIENCE:.0f} s; end that one, or choose another name"
                )
            time.sleep(0.005)
        yield _is_still(fd, Path(folder))
    finally:
        os.close(fd)


def _part_name(path: Path, mark: str) -> str:
    "Ends as the name of `path`, because some writers go by the suffix."
    return f".{mark}.part.{path.name[-150:]}"


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_leftovers(path: Path) -> None:
    "Parts of `path` whose writers were killed: nobody holds their lock any more."
    pattern = re.compile(rf"\.\d+\.[0-9a-f]{{8}}{re.escape(_part_name(path, ''))[2:]}")
    names = os.listdir(path.parent) if fcntl else []
    for part in (path.parent / n for n in names if pattern.fullmatch(n)):
        with suppress(OSError):
            fd = os.open(part, os.O_RDONLY)
            try:
                if _lock(fd, fcntl.LOCK_EX):
                    _remove(part)
            finally:
                os.close(fd)


@contextmanager
def _new_part(path: Path, folder: bool = False) -> Iterator[Path]:
    """A new file or folder beside `path`, locked, and gone at the end unless it was
    renamed. Folders above that had to be made go too if the block fails.
    """
    made = [p for p in path.parents if not p.exists()]
    part = fd = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        while fd is None or not _is_still(fd, part):
            if fd is not None:
                os.close(fd)
            mark = f"{os.getpid()}.{secrets.token_hex(4)}"
            part = path.with_name(_part_name(path, mark))
            if folder:
                part.mkdir()
                fd = os.open(part, os.O_RDONLY) if fcntl else -1
            else:
                fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if fcntl is None:
                break
            _lock(fd, fcntl.LOCK_EX)
        yield part
    except BaseException:
        if part is not None:
            _remove(part)
        for p in made:
            with suppress(OSError):
                p.rmdir()
        raise
    finally:
        if fd is not None and fd >= 0:
            os.close(fd)


def _sync(path: Path) -> None:
    "Onto the disk, so that a power cut after a rename finds the content too."
    try:
        fd = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # folders on Windows
        return
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno in (*_NO_ROOM, errno.EIO):
            raise
    finally:
        os.close(fd)


# ------------------------------------------------- one file


@contextmanager
def made(
    path: str | Path,  # of the file; a link is followed, and stays
) -> Iterator[Path]:  # where to write
    """A new file beside `path` to write to. It takes the place of `path` when all went
    well, and is removed otherwise.

    ValueError where `path` is no file. OSError, which names path and disk, where it
    can't be written: the old file is as it was then, and nothing is left over.
    """
    path = path_of(path)
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise ValueError(f"{path} is {kind}; give the path of a file")
    with _told(path), _new_part(target) as part:
        yield part
        _sync(part)
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
        _sync(target.parent)


def seal(content: bytes) -> bytes:
    """The last `SEAL_LENGTH` bytes of a file whose other bytes are `content`: their
    SHA-256 checksum.
    """
    digest = hashlib.sha256(content).hexdigest()
    return f"\nmetalearn_book:{FORMAT}:sha256:{digest}\n".encode()


def write_sealed(path: str | Path, content: bytes) -> None:
    """Write a file that ends in a checksum of its `content`, as `made` does."""
    with made(path) as part, open(part, "wb") as f:
        f.write(content)
        f.write(seal(content))


def read_sealed(
    path: str | Path,  # of a file that `write_sealed` wrote
    what: str,  # such as "checkpoint", for messages
    remedy: str,  # what to do with one that can't be used, for messages
) -> bytes:  # the content, without the checksum
    """The content of a file, after its checksum was found right.

    FileNotFoundError where there is none; RuntimeError where a bit has changed, where
    it is cut off, or of another kind or version. OSError where it can't be read.
    """
    path = path_of(path)
    try:
        with _told(path, "read"):
            whole = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {what} at {path}") from None
    except IsADirectoryError:
        raise RuntimeError(f"{what} {path} can't be read: it is a folder") from None
    content, found = whole[:-SEAL_LENGTH], _SEAL.fullmatch(whole[-SEAL_LENGTH:])
    if not whole:
        why = "it is empty"
    elif not found:
        why = (
            "it does not end in a checksum, so it is damaged or cut off, was written "
            f"by an earlier version, or is no {what}"
        )
    elif int(found[1]) != FORMAT:
        why = f"it is of format {int(found[1])}, and this version reads {FORMAT}"
    elif seal(content) != found[0]:
        why = "it is damaged: its content is not the one that its checksum is of"
    else:
        return content
    raise RuntimeError(f"{what} {path} can't be read: {why}. {remedy}")


# ------------------------------------------------- the folder of a model


def _kind(what: str) -> str:
    "A kind of saved model; ValueError for what can't be the name of its description."
    if not isinstance(what, str) or not re.fullmatch(r"[\w-]+", what):
        raise ValueError(f"what must be a word, such as 'classifier', got {what!r}")
    return what


def write_saved(
    folder: str | Path,  # to be written, in place of a saved model of this kind
    what: str,  # such as "classifier": the description is called classifier.json
    about: dict,  # of what JSON can hold
    fill: Callable[[Path], None],  # writes all other files into the folder given to it
) -> Path:  # the folder
    """A folder with checksums of all its files, in place of an older one.

    A link is followed, and stays. ValueError for a folder that holds anything that is
    no part of a saved `what`: nothing is touched then. OSError, which names path and
    disk, where it can't be written.
    """
    folder, name = path_of(folder), f"{_kind(what)}.json"
    target = Path(os.path.realpath(folder))
    about = json.loads(json.dumps(about))  # fails before anything is written
    with _told(folder), _new_part(target, folder=True) as part:
        fill(part)
        files = {f: part / f for f in _contents(part)}
        about |= {
            "format": FORMAT,
            **about,
            "files": {f: file_sha256(path) for f, path in files.items()},
            "sizes": {f: path.stat().st_size for f, path in files.items()},
        }
        content = json.dumps(
            about | {"checksum": checksum(about)}, indent=1, ensure_ascii=False
        )
        (part / name).write_text(content, encoding="utf-8")
        for path in (*files.values(), part / name):
            _sync(path)
        _take_place(part, target, folder, what)
        _sync(target.parent)
    return folder


@contextmanager
def open_saved(
    folder: str | Path,  # that `write_saved` wrote
    what: str,  # its kind
) -> Iterator[dict]:
    """The description of a saved model, after every checksum was found right. Inside
    the block no `write_saved` takes the place of the folder.

    It holds what `write_saved` was given, `format`, and `files` with their checksums.
    FileNotFoundError where there is none, RuntimeError for a damaged one or one of a
    format that this version does not read. OSError where it can't be read.
    """
    folder, what = path_of(folder), _kind(what)
    with _told(folder, "read"), ExitStack() as stack:
        _hold(folder, what, stack)
        yield _checked(folder, what)


def read_saved(folder: str | Path, what: str) -> dict:
    """The description of a saved model, as `open_saved` gives it, for whoever reads no
    other file of the folder.
    """
    with open_saved(folder, what) as about:
        return about


def _hold(folder: Path, what: str, stack: ExitStack) -> None:
    "Lock a folder for reading until `stack` ends; another may get its name meanwhile."
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if _is_nowhere(folder):
            raise _nothing_saved(folder, what)
        try:
            if stack.enter_context(locked(folder, shared=True)):
                return
        except FileNotFoundError:  # a moment between two renames
            time.sleep(0.005)
        stack.pop_all().close()
    raise RuntimeError(f"{folder} is being written by other processes all the time")


def _is_nowhere(folder: Path) -> bool:
    """Whether no folder has this name, nor is one on its way to it. Looked at more than
    once: between two looks a writer may have begun or ended to replace it."""
    for _ in range(8):
        if folder.is_dir() or _take_back(Path(os.path.realpath(folder))):
            return False
        time.sleep(0.002)
    return True


def _nothing_saved(folder: Path, what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{folder} holds no {what}.json; give a folder that a {what} was saved to"
    )


def _checked(folder: Path, what: str) -> dict:
    "The description of a folder in which everything is as it was saved."
    name = f"{what}.json"
    if not (folder / name).is_file():
        raise _nothing_saved(folder, what)
    about, found = _description(folder / name, what)
    wrong = [f"{name} has another checksum"] if found != checksum(about) else []
    sizes = about.get("sizes", {})
    for file, sha in about.get("files", {}).items():
        if why := _difference(folder / file, sha, sizes.get(file)):
            wrong.append(f"{file} is missing or has another checksum{why}")
    if wrong:
        raise RuntimeError(
            f"the saved {what} {folder} is damaged: {wrong[0]} than when it was saved; "
            f"save the {what} again, or take a good copy"
        )
    if about.get("format") != FORMAT:
        raise RuntimeError(
            f"{folder} was saved in format {about.get('format')}, this version reads "
            f"format {FORMAT}; update the package, or fit and save again"
        )
    return about


def _difference(path: Path, sha: str, size: int | None) -> str | None:
    "In which way a file is not as it was saved; None if it is."
    if not path.is_file():
        return " (there is none)"
    now = path.stat().st_size
    if size is not None and now != size:
        return f" ({now:,} bytes in place of {size:,})"
    return None if file_sha256(path) == sha else " (of the same length)"


def _description(path: Path, what: str) -> tuple[dict, str]:
    "What a description says, and the checksum that it gives of itself."
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about, about.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        raise RuntimeError(
            f"{path} is damaged, or was written by something else "
            f"({type(e).__name__}: {e}); save the {what} again, or take a good copy"
        ) from e


# ------------------------------------------------- one folder in place of another


def _contents(folder: Path) -> list[str]:
    "Files, links and empty folders below a folder, by their paths there."
    found = []
    for at, folders, files in os.walk(folder):
        links = [f for f in folders if os.path.islink(os.path.join(at, f))]
        if not (folders or files) and Path(at) != folder:
            found.append(at)
        found += [os.path.join(at, f) for f in (*files, *links)]
    return sorted(Path(f).relative_to(folder).as_posix() for f in found)


def _known(folder: Path, what: str, ours: Iterable[str]) -> set[str]:
    """What of a folder may be replaced: what its description lists, and what has the
    name of a file that is written now.
    """
    known = {f"{what}.json", *ours}
    with suppress(OSError, RuntimeError, TypeError, AttributeError):
        known |= set(_description(folder / f"{what}.json", what)[0].get("files", {}))
    return known


def _strangers(folder: Path, known: set[str]) -> list[str]:
    return [f for f in _contents(folder) if f not in known]


def _check_replaceable(
    folder: Path, given: Path, what: str, ours: Iterable[str]
) -> None:
    "ValueError unless the folder is empty or holds a saved `what` and nothing else."
    there = _contents(folder) if folder.is_dir() else []
    if not folder.is_dir() or (there and f"{what}.json" not in there):
        holds = f" (it holds {there[0]})" if there else ""
        raise ValueError(
            f"{given} exists and is not a saved {what}{holds}; choose another name, or "
            "remove it first"
        )
    if strangers := _strangers(folder, _known(folder, what, ours)):
        raise ValueError(
            f"{given} holds {strangers[0]}, which is no part of the saved {what} and "
            f"would be lost ({len(strangers)} such); move it elsewhere, or choose "
            "another name"
        )


def _before(folder: Path) -> Path:
    "Where the old folder is between two renames."
    return folder.with_name(f".{folder.name}.before")


def _take_back(folder: Path) -> bool:
    """After a kill between two renames the old folder gets its name again; True where
    its writer is alive, so that it is worth to look again.
    """
    before = _before(folder)
    if os.path.lexists(folder) or not before.is_dir():
        return False
    with suppress(OSError):
        fd = os.open(before, os.O_RDONLY) if fcntl else None
        try:
            if fd is None or _lock(fd, fcntl.LOCK_EX):
                os.rename(before, folder)
        finally:
            if fd is not None:
                os.close(fd)
    return not os.path.lexists(folder)


def _exchange(a: Path, b: Path) -> bool:
    "Let two paths change names in one step; False where the system can't."
    if os.name != "posix":
        return False
    libc, paths = ctypes.CDLL(None, use_errno=True), (os.fsencode(a), os.fsencode(b))
    swap = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    here = -100  # AT_FDCWD
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(*paths, swap)
        else:
            failed = libc.renameat2(here, paths[0], here, paths[1], swap)
    except AttributeError:
        return False
    number = ctypes.get_errno()
    if failed and number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(b))
    return not failed


def _take_place(part: Path, folder: Path, given: Path, what: str) -> None:
    "Let `part` be called `folder`, and remove what had this name."
    ours, ends = _contents(part), time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        _take_back(folder)
        try:
            if not os.path.lexists(folder):
                return os.rename(part, folder)
            if not folder.is_dir():
                _check_replaceable(folder, given, what, ours)
            with locked(folder) as same:
                if same:
                    _check_replaceable(folder, given, what, ours)
                    return _replace(part, folder, _known(folder, what, ours))
        except OSError as e:  # another process was faster: look again
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            if not part.exists():
                raise
    raise RuntimeError(f"{given} is being written by other processes all the time")


def _replace(part: Path, folder: Path, known: set[str]) -> None:
    "The step itself, for whoever holds the lock on `folder`."
    inside = False
    with suppress(FileNotFoundError):  # the folder where we are was removed
        at = Path.cwd()
        inside = at == folder or folder in at.parents
    if _exchange(part, folder):
        old = part
    else:
        old = _before(folder)
        _remove(old)
        os.rename(folder, old)
        os.rename(part, folder)
    if inside:  # this process stands in it: save(".")
        os.chdir(at if at.is_dir() else folder)
    if _strangers(old, known):  # came in the last moment, and is nobody's to delete
        kept = folder.with_name(f"{folder.name}.kept-{secrets.token_hex(4)}")
        os.rename(old, kept)
        warnings.warn(f"{kept} holds a file that was put into {folder}", stacklevel=4)
    else:
        _remove(old)
