"""Folders of saved models: written whole or not at all, and read only if nothing in
them has changed.

A saved folder holds the files of a model and one description in JSON, which lists the
SHA-256 checksum of every other file and ends in a checksum of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["checksum", "file_sha256", "read_saved", "write_saved"]


def file_sha256(path: str | Path) -> str:
    "The SHA-256 checksum of a file, as 64 hexadecimal digits."
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checksum(about: dict) -> str:
    """The SHA-256 checksum of what JSON can hold, as 64 hexadecimal digits.

    The order of the keys does not matter.
    """
    content = json.dumps(about, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def write_saved(
    folder: str | Path,  # to be written, in place of a saved model of this kind
    what: str,  # such as "classifier": the description is called classifier.json
    about: dict,  # of what JSON can hold
    fill: Callable[[Path], None],  # writes all other files into the folder given to it
) -> Path:  # the folder
    """A folder with checksums of all its files.

    It is written under another name and then renamed, so a kill leaves no half of it.
    ValueError for a folder that holds something else; nothing is touched then.
    """
    folder, name = Path(folder), f"{what}.json"
    if folder.exists() and not _is_saved(folder, name):
        raise ValueError(
            f"{folder} exists and is not a saved {what}; choose another name, or "
            "remove it first"
        )
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fill(part)
    about = {"format": 1, **about, "files": _checksums(part)}
    content = json.dumps(
        about | {"checksum": checksum(about)}, indent=1, ensure_ascii=False
    )
    (part / name).write_text(content, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return folder


def read_saved(folder: str | Path, what: str) -> dict:
    """The description of a saved model, after every checksum was found right.

    It holds what `write_saved` was given, `format`, and `files` with their checksums.
    FileNotFoundError where there is none, RuntimeError for a damaged one or one of a
    format that this version does not read.
    """
    folder, name = Path(folder), f"{what}.json"
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {name}; give a folder that a {what} was saved to"
        )
    about, found = _description(folder / name, what)
    wrong = [name] if found != checksum(about) else []
    wrong += [
        f for f, sha in about.get("files", {}).items() if not _is(folder / f, sha)
    ]
    if wrong:
        raise RuntimeError(
            f"the saved {what} {folder} is damaged: {wrong[0]} is missing or has "
            f"another checksum than when it was saved; save the {what} again, or take "
            "a good copy"
        )
    if about.get("format") != 1:
        raise RuntimeError(
            f"{folder} was saved in format {about.get('format')}, this version reads "
            "format 1; update the package, or fit and save again"
        )
    return about


def _is_saved(folder: Path, name: str) -> bool:
    "Is this an empty folder, or one with the description `name`?"
    return folder.is_dir() and (not any(folder.iterdir()) or (folder / name).exists())


def _checksums(folder: Path) -> dict[str, str]:
    "Checksum of every file below the folder, by its path there."
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {f.relative_to(folder).as_posix(): file_sha256(f) for f in files}


def _description(path: Path, what: str) -> tuple[dict, str]:
    "What a description says, and the checksum that it gives of itself."
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about, about.pop("checksum")
    except (ValueError, KeyError, AttributeError) as e:
        raise RuntimeError(
            f"{path} is damaged ({type(e).__name__}: {e}); save the {what} again, or "
            "take a good copy"
        ) from e


def _is(path: Path, sha: str) -> bool:
    return path.is_file() and file_sha256(path) == sha
