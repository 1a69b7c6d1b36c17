"""The test beds of the table: which episodes, with which encoder, at which budget."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from metalearn_book.book.scale import current_scale
from metalearn_book.case_studies.relations import MarkerEncoder
from metalearn_book.case_studies.text_meta_training import TopLayers, lower_states
from metalearn_book.data import class_split, load_dataset_by_name
from metalearn_book.foundations.encoders import bag_of_words, cached_features
from metalearn_book.foundations.encoders import load_encoder, zero_head
from metalearn_book.foundations.measuring import accuracy, mse
from metalearn_book.foundations.tasks import ClassTasks, SinusoidTasks
from metalearn_book.metric.prototypes import ResidualMap
from metalearn_book.optimization.maml import conv4

#: rows of a class that are used at most, and tokens of a text where layers adapt
PER_CLASS, LONGEST = 100, 20
#: sets whose test classes are asked about with rows of their own test part only
JUDGED = {"clinc150", "banking77"}
CHANNELS = {"smoke": 4, "book": 32, "full": 64}


@dataclass(frozen=True)
class Bed:
    """Episodes of one kind, and the budget that every method has on them.

    kind: "numbers", "images", "text" (vectors of a frozen encoder) or "layers" (its top
    layer adapts). steps: outer steps, of `tasks_per_step` episodes each. search_steps:
    those of a candidate of the search. seeds: training runs.
    """

    name: str
    data: str
    kind: str
    n_way: int
    k_shot: int
    n_query: int
    steps: int
    search_steps: int
    inner_steps: int
    seeds: int = 3
    tasks_per_step: int = 4
    validation: int = 100
    episodes: int = 600

    @property
    def lower_is_better(self) -> bool:
        return self.kind == "numbers"

    @property
    def metric(self):
        return mse if self.lower_is_better else accuracy

    def settings(self) -> dict:
        "What a stored cell was measured with."
        return asdict(self) | {"per_class": PER_CLASS, "scale": current_scale()}


def _bed(data: str, kind: str, way: int, shot: int, query: int) -> Bed:
    end = " layers" if kind == "layers" else ""
    budget = {"numbers": (1000, 100, 5), "images": (600, 100, 3),
              "text": (120, 30, 5), "layers": (80, 20, 5)}[kind]  # fmt: skip
    name = data if kind == "numbers" else f"{data} {way}w{shot}s{end}"
    seeds = 1 if kind == "images" else 3
    return Bed(name, data, kind, way, shot, query, *budget, seeds=seeds)


ALL = (
    _bed("sinusoids", "numbers", 1, 10, 10),
    _bed("clinc150", "text", 20, 1, 5),
    _bed("clinc150", "text", 20, 5, 5),
    *(
        _bed(name, "text", 5, shot, 15)
        for name in ("banking77", "hwu64", "huffpost", "fewrel")
        for shot in (1, 5)
    ),
    _bed("banking77", "layers", 5, 1, 15),
    _bed("omniglot", "images", 5, 1, 15),
    _bed("omniglot", "images", 5, 5, 15),
    _bed("omniglot", "images", 20, 1, 5),
    _bed("emoji", "images", 5, 1, 4),
)


def beds() -> dict[str, Bed]:
    "The test beds by name, at the current scale."
    scale = current_scale()
    if scale == "smoke":
        small = {"steps": 4, "search_steps": 2, "validation": 4, "episodes": 8,
                 "seeds": 1, "inner_steps": 2, "tasks_per_step": 2}  # fmt: skip
        return {b.name: replace(b, **small) for b in ALL}
    if scale == "full":
        return {
            b.name: replace(b, steps=20 * b.steps, search_steps=20 * b.search_steps,
                            seeds=3)
            for b in ALL
        }  # fmt: skip
    return {b.name: b for b in ALL}


# --- rows and vectors ---------------------------------------------------------------


def first_rows(labels: Sequence[str], most: int) -> list[int]:
    "Row numbers of the first `most` rows of each class."
    seen: Counter = Counter()
    rows = []
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] <= most:
            rows.append(i)
    return rows


@functools.cache
def _texts(name: str):
    "Texts, labels and parts of the rows that are used: the first of a class and part."
    data = load_dataset_by_name(name)
    rows = first_rows(list(zip(data.labels, data.part)), PER_CLASS)
    return (
        [data.texts[i] for i in rows],
        [data.labels[i] for i in rows],
        [data.part[i] for i in rows],
    )


@functools.cache
def vectors(name: str, features: str = "encoder"):
    """What stands for each row: vectors of MiniLM, or "words", TF-IDF. Relations: the
    vectors at both entity markers, reduced to the width of one of them."""
    texts, labels, _ = _texts(name)
    if features == "words":
        return bag_of_words(texts)
    encoder = load_encoder("minilm")
    key = f"leaderboard-{name}-{PER_CLASS}"
    if name != "fewrel":
        return cached_features(encoder, texts, key=key)
    z = cached_features(MarkerEncoder(encoder), texts, key=key)
    known = set(class_split(name)["train"])
    return reduced(z, [i for i, y in enumerate(labels) if y in known], encoder.dim)


def reduced(z: Tensor, rows: list[int], n: int) -> Tensor:
    "The first n principal components of some rows, for all; vectors of length 1."
    centre = z[rows].double().mean(0)
    *_, axes = torch.linalg.svd(z[rows].double() - centre, full_matrices=False)
    return nn.functional.normalize((z.double() - centre) @ axes[:n].T, dim=-1).float()


@functools.cache
def _short_rows(name: str) -> tuple[list[int], dict[str, Tensor]]:
    "Rows that are not too long for a bed of layers, and the states below the top one."
    texts, encoder = _texts(name)[0], load_encoder("minilm")
    lengths = [len(ids) for ids in encoder.token_ids(texts)]
    rows = [i for i, n in enumerate(lengths) if n <= LONGEST]
    return rows, lower_states(encoder, [texts[i] for i in rows])


@functools.cache
def _pictures(name: str):
    data = load_dataset_by_name(name)
    images = torch.as_tensor(data.images).float() / 255
    if images.ndim == 4:  # the mean over the colours, ink on nothing as the characters
        images = 1 - images.mean(-1)
    return images[:, None], data.labels, data.part


def rows_of(bed: Bed, part: str, labels: Sequence[str], parts: Sequence[str]):
    "Rows of the classes of one part of the class split."
    if bed.kind == "images":
        return [i for i, p in enumerate(parts) if p == part]
    classes = set(class_split(bed.data)[part])
    only = "test" if bed.data in JUDGED and part == "test" else None
    return [
        i
        for i, (label, p) in enumerate(zip(labels, parts))
        if label in classes and only in (None, p)
    ]


def items(bed: Bed, part: str, features: str = "encoder"):
    "Inputs and labels of one part of the class split."
    if bed.kind == "images":
        x, labels, parts = _pictures(bed.data)
        x = x.flatten(1) if features == "pixels" else x
    else:
        _, labels, parts = _texts(bed.data)
        if bed.kind == "layers" and features == "encoder":
            kept, x = _short_rows(bed.data)
            labels, parts = [labels[i] for i in kept], [parts[i] for i in kept]
        else:
            x = vectors(bed.data, features)
    rows = rows_of(bed, part, labels, parts)
    inside = {k: v[rows] for k, v in x.items()} if isinstance(x, dict) else x[rows]
    return inside, [labels[i] for i in rows]


@functools.cache
def tasks(bed: Bed, part: str, features: str = "encoder"):
    """Episodes of one part of the class split: "train", "validation" or "test".

    features: "encoder", what methods see; "words" or "pixels" for baselines.
    """
    if bed.kind == "numbers":
        return SinusoidTasks(bed.k_shot, bed.n_query)
    few = part == "train" and bed.kind in ("images", "layers")
    n_query = 5 if few else bed.n_query
    if bed.data == "emoji":
        n_query = 4
    x, labels = items(bed, part, features)
    return ClassTasks(x, labels, bed.n_way, bed.k_shot, n_query)


# --- the networks -------------------------------------------------------------------


def width(bed: Bed) -> int:
    "Numbers in a vector of `body`."
    if bed.kind == "images":
        return CHANNELS[current_scale()]
    return 40 if bed.kind == "numbers" else vectors(bed.data).shape[-1]


def body(bed: Bed) -> nn.Module:
    "The network below every head; its weights come from torch's own generator."
    if bed.kind == "images":
        return conv4(channels=width(bed))
    if bed.kind == "layers":
        return TopLayers(load_encoder("minilm"))
    if bed.kind == "text":
        return ResidualMap(width(bed))
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU())


def model(bed: Bed, zero: bool = True) -> nn.Module:
    "`body` with a linear head; that of texts starts from zero."
    if bed.kind == "images":
        return conv4(bed.n_way, channels=width(bed))
    if bed.kind == "layers" and zero:
        return TopLayers(load_encoder("minilm"), n_way=bed.n_way)
    outputs = 1 if bed.kind == "numbers" else bed.n_way
    net = nn.Sequential()
    net.add_module("body", body(bed))
    new = zero_head if zero and bed.kind == "text" else nn.Linear
    net.add_module("head", new(width(bed), outputs))
    return net
