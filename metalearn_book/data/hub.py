"""The Hugging Face hub, for the sets that it holds as plain tables (`datasets` 4 and
later runs no loading scripts).
"""

from __future__ import annotations

import functools
import os
import urllib.error
import urllib.request
from pathlib import Path

from ..book.arguments import check_arguments
from .labeled import LabeledTexts
from .rows import PARTS
from .spans import SpanTexts, finentity
from .texts import labeled_texts

__all__ = [
    "hub_address",
    "hub_is_off",
    "is_cached",
    "reachable",
    "hub_clinc150",
    "hub_banking77",
    "hub_hwu64",
    "hub_finentity",
]


def hub_is_off() -> bool:
    """True where the environment forbids asking the network (`HF_HUB_OFFLINE`,
    `HF_DATASETS_OFFLINE`).
    """
    return any(
        os.environ.get(v, "").lower() in ("1", "true", "yes", "on")
        for v in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )


@functools.lru_cache(maxsize=8)
def reachable(address: str) -> bool:
    "One short request per process and address; any answer counts."
    try:
        urllib.request.urlopen(
            urllib.request.Request(address, method="HEAD"), timeout=3
        )
    except urllib.error.HTTPError:
        return True
    except Exception:
        return False
    return True


def hub_address() -> str:
    "Where the hub is: `HF_ENDPOINT`, if it is set."
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def is_cached(repository: str) -> bool:
    "True if `datasets` keeps a copy of this repository."
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    return (cache / repository.replace("/", "___")).is_dir()


def _load(repository: str, config: str | None = None):
    from datasets import load_dataset

    return load_dataset(repository, config) if config else load_dataset(repository)


def _named(split, column: str) -> list[str]:
    "A label column as names, whether it holds names or numbers with names."
    feature = split.features[column]
    return [
        feature.int2str(v) if hasattr(feature, "int2str") else v for v in split[column]
    ]


def hub_clinc150() -> LabeledTexts:
    "CLINC150 as the hub has it: 250 out-of-scope rows for training, and no domains."
    rows = []
    for part, split in _load("clinc/clinc_oos", "plus").items():
        for text, label in zip(split["text"], _named(split, "intent")):
            rows.append((text, label, f"oos_{part}" if label == "oos" else part))
    rows.sort(key=lambda row: PARTS.index(row[2]))
    return labeled_texts("clinc150", rows, source="hub")


def hub_banking77() -> LabeledTexts:
    "Banking77 from the hub."
    data = _load("legacy-datasets/banking77")
    rows = [
        (text.strip(), label, part)
        for part, split in data.items()
        for text, label in zip(split["text"], _named(split, "label"))
    ]
    return labeled_texts("banking77", rows, source="hub")


def hub_hwu64() -> LabeledTexts:
    "HWU64 as the hub has it: 8,954 training rows."
    data, intents = (
        _load("DeepPavlov/hwu64"),
        _load("DeepPavlov/hwu64", "intents")["intents"],
    )
    names = dict(zip(intents["id"], intents["name"]))
    rows = [
        (text.strip(), names[label], part)
        for part, split in data.items()
        for text, label in zip(split["utterance"], split["label"])
    ]
    domains = {name: name.split("_")[0] for name in names.values()}
    return labeled_texts("hwu64", rows, domains=domains, source="hub")


def hub_finentity() -> SpanTexts:
    "FinEntity from the hub."
    split = _load("yixuantt/FinEntity")["train"]
    records = [
        {"content": content, "annotations": annotations}
        for content, annotations in zip(split["content"], split["annotations"])
    ]
    return finentity(records, "hub")


check_arguments(globals())
