"""What was to be reached, and whether it was: one file for each part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..data.arguments import choice, real, several, shown, whole
from ..data.files import environment_folder, path_of
from .results import _add, _check_chapter, _plain, _read
from .scale import current_scale

__all__ = ["Target", "save_targets", "load_targets"]

SENSES = ("at least", "at most")


@dataclass(frozen=True)
class Target:
    """A measured number and the limit that it was to keep.

    chapter: where it is measured, `part/nn_module` or `benchmarks/name`. what, unit: in
    words. sense: "at least" or "at most" the limit. value: None: not measured. ci95:
    half-width of its 95 % interval, None where it has none. seeds: training runs behind
    it. command: what measures it. limits: what keeps a missed target from being
    reached. ValueError for what is none of these.
    """

    chapter: str
    what: str
    unit: str
    sense: str
    limit: float
    value: float | None
    command: str
    ci95: float | None = None
    seeds: int = 1
    limits: str = ""

    def __post_init__(self):
        _check_chapter(self.chapter)
        for name in ("what", "unit", "command", "limits"):
            if not isinstance(text := getattr(self, name), str) or (
                not text.strip() and name in ("what", "command")
            ):
                raise ValueError(f"{name} must be a text, got {shown(text)}")
        choice("sense", self.sense, SENSES)
        checked = {
            "limit": real("limit", self.limit),
            "seeds": whole("seeds", self.seeds),
        }
        for name, least in (("value", None), ("ci95", 0)):
            given = getattr(self, name)
            checked[name] = None if given is None else real(name, given, least)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def reached(self) -> bool | None:
        "Whether the value keeps the limit; None where it was not measured."
        if self.value is None:
            return None
        at_least = self.sense == SENSES[0]
        return self.value >= self.limit if at_least else self.value <= self.limit


def save_targets(part: str, targets: list[Target]) -> list[dict]:
    """Store targets of a part in `<METALEARN_RESULTS>/targets/<part>.json`, each in
    place of one of the same chapter and words; the entries.

    part: folder of chapters, such as "foundations". Nothing is written where
    METALEARN_RESULTS is not set, or at another scale than book. ValueError for what is
    no `Target`, and for two of one chapter with the same words."""
    _check_chapter(part)
    targets = several("targets", targets, Target)
    keys = [f"{t.chapter}: {t.what}" for t in targets]
    if twice := [k for i, k in enumerate(keys) if k in keys[:i]]:
        raise ValueError(f"targets has two of the same words: {twice[0]!r}")
    entries = [_plain(asdict(t) | {"reached": t.reached}) for t in targets]
    folder = environment_folder("METALEARN_RESULTS", "store nothing", must_exist=False)
    if folder and current_scale() == "book":
        _add(folder / "targets" / f"{part}.json", dict(zip(keys, entries)))
    return entries


def load_targets(folder: str | Path) -> dict[str, list[Target]]:
    """The stored targets by part, in the order of chapters and words.

    folder: of results. FileNotFoundError where there is none, ValueError for a damaged
    file."""
    found, folder = {}, path_of(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; results are in the folder `results` of the "
            "book's repository"
        )
    for path in sorted((folder / "targets").glob("*.json")):
        rows = [v for _, v in sorted(_read(path).items())]
        found[path.stem] = [
            Target(**{k: v for k, v in row.items() if k != "reached"}) for row in rows
        ]
    return found
