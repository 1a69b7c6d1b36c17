"""The sets of the upstream repositories, at fixed commits, in a cache.

`upstream.json` says for each set which `files` it consists of and where they come
from; for a set with derived files also which `raw` files these are `made` from.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
import zlib
from functools import lru_cache
from importlib import resources
from pathlib import Path

from . import derived, drawings
from .download import FetchError, Item, fetch_items, no_room
from .files import environment_folder, made, path_of
from .reading import missing

__all__ = [
    "cache_folder",
    "cache_root",
    "address",
    "sets",
    "size",
    "at_hand",
    "ensure",
    "keep_sum",
]

ADDRESS = "https://raw.githubusercontent.com"  # METALEARN_UPSTREAM names another server
_MAKERS = {
    "hwu64": derived.make_hwu64,
    "fewrel": derived.make_fewrel,
    "omniglot": derived.make_omniglot,
    "emoji": drawings.make_emoji,
}


# ---------------------------------------------------------------- the manifest


def cache_root() -> Path:
    """Where everything is kept that can be fetched or computed again: METALEARN_CACHE,
    by default `~/.cache/metalearn_book`.
    """
    default = Path.home() / ".cache" / "metalearn_book"
    return (
        environment_folder("METALEARN_CACHE", f"use {default}", must_exist=False)
        or default
    )


def cache_folder() -> Path:
    """Where fetched sets are kept, in the layout of METALEARN_DATA:
    `METALEARN_CACHE/data`, by default below `~/.cache/metalearn_book`.
    """
    return cache_root() / "data"


def address() -> str:
    """The server of the repositories; a mirror has the layout
    `ADDRESS/owner/name/commit/path`.
    """
    return (os.environ.get("METALEARN_UPSTREAM") or ADDRESS).rstrip("/")


@lru_cache(maxsize=1)
def _manifest() -> dict:
    return json.loads(
        resources.files(__package__).joinpath("upstream.json").read_text("utf-8")
    )


def sets() -> list[str]:
    "The sets that this module can fetch."
    return list(_manifest()["sets"])


def _items(name: str, kind: str) -> list[Item]:
    "The items of a set: `files` and `raw` have an address, `made` have none."
    if name == "emoji" and kind == "raw":
        return [
            Item(
                f"emoji/.raw/{package.replace('/', '+')}.tgz",
                npm_address(package, version),
                *sums,
            )
            for package, (version, *sums) in _manifest()["packages"].items()
        ]
    if not isinstance(name, str) or name not in sets():
        raise ValueError(f"no set {name!r} to fetch; there are {', '.join(sets())}")
    entry = _manifest()["sets"][name].get(kind, {})
    if kind == "made":
        return [Item(path, "", *(sums or (None, None))) for path, sums in entry.items()]
    found = []
    for path, (source, base, length, sha256) in entry.items():
        repository, commit, folder = _manifest()["sources"][source]
        there = urllib.parse.quote(
            f"{repository}/{commit}/{folder}{base or Path(path).name}"
        )
        found.append(Item(path, f"{address()}/{there}", length, sha256))
    return found


def size(name: str) -> int:
    "Bytes to fetch for a set of which nothing is there."
    if name == "emoji":
        return sum(length for _, length, _ in _manifest()["packages"].values())
    return sum(i.size for kind in ("files", "raw") for i in _items(name, kind))


@lru_cache(maxsize=1)
def _asked_npm() -> str:
    "The package registry that npm is set up for; empty where there is no npm."
    try:
        return subprocess.run(
            ["npm", "config", "get", "registry"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def npm_address(package: str, version: str) -> str:
    "The address of a package in the registry that npm, or NPM_CONFIG_REGISTRY, names."
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or _asked_npm()
    if not registry.startswith("http"):
        raise FetchError(
            f"the address of the npm registry, which has {package}, is not known: "
            "install npm (Node.js), or let NPM_CONFIG_REGISTRY name it"
        )
    return (
        f"{registry.rstrip('/')}/{package}/-/{package.rsplit('/', 1)[-1]}-{version}.tgz"
    )


# ---------------------------------------------------------------- what is there

_checked: dict[
    Path, tuple[int, int]
] = {}  # files found good in this process: size, time


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_good(path: Path, item: Item) -> bool:
    "True if the file has the right content; each file is read once per process."
    try:
        stat = path.stat()
        if _checked.get(path) == (stat.st_size, stat.st_mtime_ns):
            return True
        data = _content(path)
        wanted = item.sha256 or _sum_file(path).read_text("ascii").strip()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False
    if item.size not in (None, len(data)) or hashlib.sha256(data).hexdigest() != wanted:
        return False
    _checked[path] = (stat.st_size, stat.st_mtime_ns)
    return True


def at_hand(name: str) -> bool:
    """True if all files of the set are in the cache; whether they are good is checked
    when they are read.
    """
    items = _items(name, "files") + _items(name, "made")
    return all((cache_folder() / item.path).is_file() for item in items)


def ensure(name: str, fetch: bool = True, progress: bool = True) -> Path:
    """The cache folder that holds the set, after every file was checked.

    What is missing or damaged is fetched, and derived files are made again. With
    `fetch=False` that is a FetchError instead, which names the first such file.
    """
    root = cache_folder()
    plain, raw, made = (_items(name, kind) for kind in ("files", "raw", "made"))
    wanted = [item for item in plain if not _is_good(root / item.path, item)]
    lacking = [item for item in made if not _is_good(root / item.path, item)]
    if not wanted and not lacking:
        return root
    if not fetch:
        path = root / (wanted + lacking)[0].path
        what = (
            "is damaged (its size or sha256 is wrong)"
            if path.exists()
            else "is missing"
        )
        raise FetchError(
            f"{path} {what}; fetch it again with: metalearn-book data fetch {name}"
        )
    if lacking:
        if name == "emoji":
            drawings.need_renderer()  # before 20 MB are fetched
        wanted += [item for item in raw if not _is_good(root / item.path, item)]
    fetch_items(wanted, root, name, progress)
    if lacking:
        _make(name, made, root)
    return root


def _make(name: str, made: list[Item], root: Path) -> None:
    folder = (root / made[0].path).parent
    try:
        _MAKERS[name](folder / ".raw", folder)
        for item in made:
            if item.sha256 is None:
                keep_sum(root / item.path)
    except OSError as e:
        raise no_room(folder, e) from e
    if bad := [item for item in made if not _is_good(root / item.path, item)]:
        raise FetchError(
            f"{root / bad[0].path}, made from the files of {folder / '.raw'}, is not "
            "what it has to be; please report it, with the versions of Python and of "
            "this package"
        )
    shutil.rmtree(folder / ".raw", ignore_errors=True)


def keep_sum(path: Path) -> None:
    "Store the sha256 of a file whose bytes differ from machine to machine beside it."
    path = path_of(path)
    if not path.is_file():
        raise missing(path)
    with made(_sum_file(path)) as target:
        target.write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n", "ascii")
