"""What is said of a data set: its entry in the manifest, the card that readers see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .rows import Rows

__all__ = ["Files", "HubCopy", "Entry", "DataCard"]


@dataclass(frozen=True)
class Files:
    """The files of a data set.

    origin: where they come from.
    names: the files of its folder.
    read: reads the folder; None for a generated set.
    by_command: made by a command of its own, never fetched while loading.
    """

    origin: str
    names: tuple[str, ...] = ()
    read: Callable[[Path], Rows] | None = None
    by_command: bool = False


@dataclass(frozen=True)
class HubCopy:
    """A data set on the Hugging Face hub, as plain tables.

    id: its name there.
    read: reads it.
    counts: the number of rows of each part, where they differ. Then the hub is asked
    last, and with a warning: numbers must not depend on the way in silence.
    """

    id: str
    read: Callable[[], Rows]
    counts: dict[str, int] | None = None


@dataclass(frozen=True)
class Entry:
    """One data set: what it is, where it lies, how it is read.

    task: what is done with it, in words.
    n_classes: 0 where rows have no class.
    counts: the number of rows of each part.
    licence, paper, url: under what terms, by whom, and where that can be read.
    files: where its files come from, and how they are read.
    hub: where the hub has the set too.
    note: what to know before using it.
    domains: how many domains there are, and which, in words.
    folder: the name of the folder, where it is not that of the set.
    digest: that of all rows. A hub's copy must have it, and the stamps of chapters hold
    it in place of the code of the loaders.
    """

    task: str
    n_classes: int
    counts: dict[str, int]
    licence: str
    paper: str
    url: str
    files: Files
    hub: HubCopy | None = None
    note: str = ""
    domains: str = ""
    folder: str = ""
    digest: str = ""


@dataclass(frozen=True, repr=False)
class DataCard:
    """What to know about a data set before using it. It prints as a list and shows as a
    table in a notebook.

    name, task: the name for `load_dataset_by_name`, and what is done with the set.
    n_classes: the number of classes; 0 where rows have none.
    counts: the number of rows of each part.
    split: the number of classes (or domains) of each part of the fixed split.
    domains: how many domains there are, and which, in words.
    licence, paper, url: under what terms, by whom, and where that can be read.
    origin: where the files come from.
    hub: the set's id on the Hugging Face hub, where it has it as plain tables.
    note: what to know before using it.
    """

    name: str
    task: str
    n_classes: int
    counts: dict[str, int]
    split: dict[str, int]
    domains: str
    licence: str
    paper: str
    url: str
    origin: str
    hub: str | None
    note: str
    bytes: int = 0  # to fetch from upstream

    @property
    def size(self) -> str:
        "What there is to fetch, such as `2.5 MB`; empty for a generated set."
        if not self.bytes:
            return ""
        return (
            f"{self.bytes / 1e6:.1f} MB"
            if self.bytes >= 1e6
            else f"{self.bytes / 1e3:.0f} kB"
        )

    def rows(self) -> list[tuple[str, str]]:
        "Pairs of a heading and its text, without those that are empty."
        counts = ", ".join(f"{part} {n:,}" for part, n in self.counts.items())
        split = ", ".join(f"{part} {n}" for part, n in self.split.items())
        rows = [
            ("task", self.task),
            ("items", counts),
            ("classes", str(self.n_classes) if self.n_classes else ""),
            ("domains", self.domains),
            ("fixed split", split),
            ("licence", self.licence),
            ("paper", f"{self.paper}" + (f", {self.url}" if self.url else "")),
            ("files from", self.origin),
            ("hub id", self.hub or ""),
            ("note", self.note),
        ]
        return [(key, value) for key, value in rows if value]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"Data card: {self.name}",
                *(f"  {key:<12}{value}" for key, value in self.rows()),
            ]
        )

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n".join(
            [
                f"| **{self.name}** | |",
                "|:--|:--|",
                *(
                    f"| {key} | {value.replace('|', '&#124;')} |"
                    for key, value in self.rows()
                ),
            ]
        )
