"""What all containers share: named columns of equal length, and a choice of rows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

import numpy as np

from .arguments import several, shown, whole

__all__ = ["PARTS", "Rows", "checked_names", "did_you_mean", "some"]

#: the names of parts, in the order in which they are listed
PARTS = ("train", "validation", "test", "oos_train", "oos_validation", "oos_test")
_ALIASES = {"val": "validation", "dev": "validation", "oos_val": "oos_validation"}


def checked_names(given, kind: str, allowed: Collection[str]) -> set[str]:
    """The given name or names as a set; ValueError with the nearest match for a wrong
    one.

    kind: what the names are of, for the message: `part` (whose short forms such as
    `val` and `dev` are known), `class`, `domain`.
    allowed: the names that exist.
    """
    names = {given} if isinstance(given, str) else set(given)
    if kind == "part":
        names = {_ALIASES.get(n, n) for n in names}
    for name in sorted(names - set(allowed), key=str):
        raise ValueError(
            f"unknown {kind} {name!r}{did_you_mean(name, allowed)}; there are "
            f"{some(allowed)}"
        )
    return names


def did_you_mean(name, allowed: Collection[str]) -> str:
    "A hint in brackets with the nearest of the allowed names; empty if none is near."
    near = difflib.get_close_matches(
        str(name), [str(a) for a in allowed], n=1, cutoff=0.5
    )
    return f" (did you mean {near[0]!r}?)" if near else ""


def some(names: Iterable[str], most: int = 12) -> str:
    "The first names of a sorted list, and how many more there are."
    names = names.keys() if isinstance(names, Mapping) else names
    names, most = sorted(several("names", names, least=0)), whole("most", most)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class Rows:
    """Rows with a part each. A subclass names its columns in `COLUMNS`.

    A column is a list, an array, or a dict of lists (one for each language).
    """

    name: str
    COLUMNS: ClassVar[tuple[str, ...]] = ("part",)
    BY_LANGUAGE: ClassVar[tuple[str, ...]] = ()  # columns that are dicts of lists

    def __len__(self) -> int:
        return len(self.part)

    def digest(self) -> str:
        "The sha256 of all columns: equal digests, equal rows in equal order."
        columns = self._columns()
        arrays = {c: v for c, v in columns.items() if isinstance(v, np.ndarray)}
        shapes = {c: (v.shape, str(v.dtype)) for c, v in arrays.items()}
        found = hashlib.sha256(repr(columns | shapes).encode())
        for values in arrays.values():
            found.update(np.ascontiguousarray(values))
        return found.hexdigest()

    def _columns(self) -> dict:
        return {c: v for c in self.COLUMNS if (v := getattr(self, c)) is not None}

    def _check_columns(self) -> None:
        lengths: dict[str, int] = {}
        for column, values in self._columns().items():
            if isinstance(values, dict) and column in self.BY_LANGUAGE:
                lengths |= {f"{column}[{key!r}]": len(v) for key, v in values.items()}
                continue
            row_by_row = hasattr(values, "__len__") and hasattr(values, "__getitem__")
            if not row_by_row or isinstance(values, (str, bytes, dict)):
                raise ValueError(
                    f"{self.name}: {column} must be a list, got {shown(values)}"
                )
            lengths[column] = len(values)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: columns of different lengths: {lengths}")

    def _keep(self, rows: Sequence[int]):
        "These rows of every column, in the given order."

        def take(values):
            if isinstance(values, dict):
                return {key: take(v) for key, v in values.items()}
            if isinstance(values, np.ndarray):
                return values[np.asarray(rows, dtype=int)]
            return [values[i] for i in rows]

        return replace(self, **{c: take(v) for c, v in self._columns().items()})

    def _where(self, *wishes: tuple[str, object, Sequence | None, str]):
        """The rows that fulfil every wish.

        A wish is what it is about (`part`), the wanted name or names (None: any), the
        values of the rows (a name each, or a collection of names of which one has to
        be wanted), and the plural for the error message of a set that has no such
        column.
        """
        rows: Sequence[int] = range(len(self))
        for kind, given, values, plural in wishes:
            if given is None:
                continue
            if values is None:
                raise ValueError(f"{self.name} has no {plural}")
            many = any(not isinstance(v, str) for v in values)
            allowed = set(chain.from_iterable(values)) if many else set(values)
            wanted = checked_names(given, kind, allowed)
            rows = [
                i
                for i in rows
                if (not wanted.isdisjoint(values[i]) if many else values[i] in wanted)
            ]
        return self._keep(rows)
