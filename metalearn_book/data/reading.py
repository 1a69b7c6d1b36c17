"""Reading data files: text, JSON and CSV, plain or gzip; every error names the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..book.arguments import check_arguments

__all__ = [
    "broken",
    "missing",
    "read_bytes",
    "read_text",
    "read_json",
    "read_lines_of_json",
    "read_csv",
    "csv_rows",
]


def broken(path: Path, what: str) -> RuntimeError:
    "The error for a file that is there and can't be used: where, why, what to do."
    return RuntimeError(
        f"{path} can't be used: {what}. Replace the file with a fresh copy; or remove "
        "it from the cache, or unset METALEARN_DATA, to fetch it"
    )


def missing(path: Path) -> FileNotFoundError:
    "The error for a file that its folder lacks."
    return FileNotFoundError(
        f"{path} is missing, although its folder is there; copy the whole folder again"
    )


def read_bytes(path: Path) -> bytes:
    "The content of a plain or gzip (`.gz`) file."
    if not path.is_file():
        raise missing(path)
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e


def read_text(path: Path) -> str:
    "The text of a plain or gzip file."
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e


def read_json(path: Path):
    "The value that a JSON file holds."
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise broken(path, f"no valid JSON ({e})") from e


def read_lines_of_json(path: Path) -> list:
    "The values of a file that holds one JSON value a line."
    values = []
    for n, line in enumerate(read_text(path).split("\n"), 1):
        if line:
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as e:
                raise broken(path, f"line {n} is no valid JSON ({e})") from e
    return values


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    "The records of a comma CSV file with a header that has these columns."
    return csv_rows(read_text(path), path, columns)


def csv_rows(text: str, path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    "The records of CSV text with these `columns`; `path` is for the error messages."
    reader = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [c for c in columns if c not in (reader.fieldnames or [])]
    if lacking:
        raise broken(
            path, f"column {lacking[0]!r} is missing, the header is {reader.fieldnames}"
        )
    rows = list(reader)
    for i, row in enumerate(rows, 2):
        if any(row[c] is None for c in columns):
            raise broken(path, f"record {i} is cut short")
    return rows


check_arguments(globals())
