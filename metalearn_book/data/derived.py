"""Files that no repository has as they are used here: made again from those that it
has.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from . import images
from .files import made
from .reading import read_bytes, read_json, read_text

__all__ = ["make_hwu64", "make_fewrel", "make_omniglot"]

HWU64_COLUMNS = (
    "answerid",
    "scenario",
    "intent",
    "answer_annotation",
    "answer_from_anno",
)
# the one relation that the task files call by an older name
FEWREL_OLD_NAMES = {"original language of work": "P364"}


def make_hwu64(raw: Path, folder: Path) -> None:
    "`train.csv` and `test.csv` from the 64 semicolon files of each part of fold 1."
    for part in ("train", "test"):
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*HWU64_COLUMNS[:-1], "text"))
        for path in sorted((raw / part).glob("*.csv")):
            reader = csv.DictReader(
                io.StringIO(read_text(path), newline=""), delimiter=";"
            )
            writer.writerows([row[c] for c in HWU64_COLUMNS] for row in reader)
        with made(folder / f"{part}.csv") as target:
            target.write_bytes(out.getvalue().encode())


def make_fewrel(raw: Path, folder: Path) -> None:
    """`train_wiki_sample.json.gz` from the task files of a study on continual learning.

    All different instances of the 64 training relations, in FewRel's layout, sorted in
    each relation; sentences that also stand in `val_wiki.json.gz` are left out.

    A line of a task file: number of the relation (from 1), candidates, sentence, head,
    its positions, tail, its positions, id of the head, id of the tail.
    """
    names = {
        n.lower(): pid
        for pid, (n, _) in reversed(read_json(folder / "pid2name.json").items())
    }
    names |= FEWREL_OLD_NAMES
    ids = [names[n] for n in read_text(raw / "relation_name.txt").split("\n") if n]
    held_out = read_json(folder / "val_wiki.json.gz")
    known = {
        " ".join(r["tokens"]).lower() for items in held_out.values() for r in items
    }
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path in sorted(raw.glob("*/*.txt")):
        for line in read_text(path).split("\n"):
            if line:
                number, _, *instance = line.split("\t")[:9]
                relation = ids[int(number) - 1]
                if relation not in held_out and instance[0] not in known:
                    found[relation].add(tuple(instance))

    def places(text: str) -> list[list[int]]:
        return [[int(i) for i in text.split()]]

    sample = {
        relation: [
            {
                "tokens": sentence.split(),
                "h": [head, head_id, places(at)],
                "t": [tail, tail_id, places(to)],
            }
            for sentence, head, at, tail, to, head_id, tail_id in sorted(
                found[relation]
            )
        ]
        for relation in dict.fromkeys(ids)
        if relation in found
    }
    with made(folder / "train_wiki_sample.json.gz") as target:
        target.write_bytes(
            gzip.compress(json.dumps(sample, ensure_ascii=False).encode(), mtime=0)
        )


def make_omniglot(raw: Path, folder: Path) -> None:
    "`omniglot_28x28.npz` from the drawings of 105 x 105 pixels in both zip files."
    stored, names = images.omniglot_from_zips(
        [read_bytes(raw / z) for z in images.ZIPS]
    )
    with made(folder / "omniglot_28x28.npz") as target:
        np.savez_compressed(target, X=stored, names=np.array(names))
