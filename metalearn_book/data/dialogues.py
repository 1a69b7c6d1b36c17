"""Task dialogues with their services: container and reader (Schema-Guided Dialogue, the
part with one service each).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from .reading import missing, read_json
from .rows import Rows
from .spans import Span

__all__ = ["Action", "Turn", "Slot", "Intent", "Service", "Dialogues", "read_sgd"]

FILES = {"train": 42, "validation": 7, "test": 11}  # files of dialogues in each part


class Action(NamedTuple):
    """What a turn does: `INFORM`, `REQUEST`, `OFFER` ..., of which slot, with which
    values.

    act: the kind of action, in the words of the set.
    """

    act: str
    slot: str
    values: tuple[str, ...]


class Turn(NamedTuple):
    """One utterance and what it means.

    speaker: `user` or `system`.
    spans: slot values that are pieces of the text (`end` exclusive).
    actions: what the turn does, one entry for each slot.
    intent, requested, state: of a user's turn: the active intent (`NONE` without one),
    the slots asked for, and all slots set so far with their values.
    call, results: of a system's turn that asked the service: the intent with its
    parameters, and what the service answered.
    """

    speaker: str
    text: str
    spans: tuple[Span, ...]
    actions: tuple[Action, ...]
    intent: str | None = None
    requested: tuple[str, ...] = ()
    state: dict[str, tuple[str, ...]] | None = None
    call: tuple[str, dict[str, str]] | None = None
    results: tuple[dict[str, str], ...] = ()


class Slot(NamedTuple):
    """A slot of a service; `values` are the possible ones where `categorical`.

    description: one sentence, as the service gives it.
    """

    name: str
    description: str
    categorical: bool
    values: tuple[str, ...]


class Intent(NamedTuple):
    """An intent of a service: `required` slots, `optional` slots with their defaults,
    slots of the `results`.

    description: one sentence, as the service gives it.
    transactional: does a call change something (book, pay), or only ask?
    """

    name: str
    description: str
    transactional: bool
    required: tuple[str, ...]
    optional: dict[str, str]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """A service with its slots and intents by name.

    description: one sentence, as the service gives it.
    """

    name: str
    description: str
    slots: dict[str, Slot]
    intents: dict[str, Intent]


@dataclass(frozen=True)
class Dialogues(Rows):
    """Dialogues of one service each.

    turns: the turns of each dialogue, user first.
    services: the name of the service; `Hotels_2` is the second one of the domain
    Hotels.
    ids: dialogue ids, unique within a part.
    part: the official part. Many services of `validation` and `test` occur in `train`
    too; `class_split("sgd")` names the services that are new in each part.
    schema: all services by name.
    source: `folder` or `upstream`: where the rows come from.

    ValueError: a dialogue of a service without schema, or a span whose text is not
    what stands at its place.
    """

    turns: list[tuple[Turn, ...]]
    services: list[str]
    ids: list[str]
    part: list[str]
    schema: dict[str, Service]
    source: str
    COLUMNS: ClassVar = ("turns", "services", "ids", "part")

    def __post_init__(self):
        self._check_columns()
        if lacking := set(self.services) - set(self.schema):
            raise ValueError(
                f"{self.name}: no schema of service {sorted(lacking, key=str)[0]!r}, "
                "which services names"
            )
        for dialogue, turns in zip(self.ids, self.turns):
            for turn in turns:
                for span in turn.spans:
                    if not span.text or turn.text[span.start : span.end] != span.text:
                        raise ValueError(
                            f"{self.name}, dialogue {dialogue}: the span at "
                            f"{span.start} ({span.label}) is not the text there"
                        )

    @property
    def classes(self) -> list[str]:
        "The services that occur, sorted."
        return sorted(set(self.services))

    @property
    def domains(self) -> list[str]:
        "The domain of each row: the service without its number."
        return [service.rsplit("_", 1)[0] for service in self.services]

    def where(self, part=None, classes=None, domain=None) -> Dialogues:
        """The dialogues of these parts, services (`classes`) and domains; the order is
        kept.
        """
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, self.services, "classes"),
            ("domain", domain, self.domains, "domains"),
        )


def _service(s: dict) -> Service:
    slots = {
        x["name"]: Slot(
            x["name"],
            x["description"],
            x["is_categorical"],
            tuple(x["possible_values"]),
        )
        for x in s["slots"]
    }
    intents = {
        x["name"]: Intent(
            x["name"],
            x["description"],
            x["is_transactional"],
            tuple(x["required_slots"]),
            dict(x["optional_slots"]),
            tuple(x["result_slots"]),
        )
        for x in s["intents"]
    }
    return Service(s["service_name"], s["description"], slots, intents)


def _turn(t: dict) -> Turn:
    frame, text = t["frames"][0], t["utterance"]
    spans = tuple(
        Span(
            s["start"],
            s["exclusive_end"],
            s["slot"],
            text[s["start"] : s["exclusive_end"]],
        )
        for s in frame["slots"]
    )
    actions = tuple(
        Action(a["act"], a["slot"], tuple(a["values"])) for a in frame["actions"]
    )
    state, call = frame.get("state"), frame.get("service_call")
    if state is None:
        return Turn(
            "system",
            text,
            spans,
            actions,
            call=(call["method"], call["parameters"]) if call else None,
            results=tuple(frame.get("service_results", ())),
        )
    return Turn(
        "user",
        text,
        spans,
        actions,
        state["active_intent"],
        tuple(state["requested_slots"]),
        {slot: tuple(values) for slot, values in state["slot_values"].items()},
    )


def read_sgd(folder: Path) -> Dialogues:
    "All dialogues, part by part, and the schema of every service."
    rows, schema = [], {}
    for part, place in (("train", "train"), ("validation", "dev"), ("test", "test")):
        schema |= {
            s["service_name"]: _service(s)
            for s in read_json(folder / place / "schema.json")
        }
        paths = sorted((folder / place).glob("dialogues_*.json.gz"))
        if len(paths) != FILES[part]:
            raise missing(
                folder
                / place
                / f"dialogues_NNN.json.gz ({len(paths)} of {FILES[part]})"
            )
        for path in paths:
            rows += [
                (
                    tuple(map(_turn, d["turns"])),
                    d["services"][0],
                    d["dialogue_id"],
                    part,
                )
                for d in read_json(path)
            ]
    return Dialogues("sgd", *map(list, zip(*rows)), schema, "folder")
