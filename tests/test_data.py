"""Data sets: loaders by value, class splits, damaged files, and what the tiny grammars
promise."""

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from metalearn_book import data
from metalearn_book.data import hub, manifest, sources, tiny
from metalearn_book.foundations.tasks import ClassTasks, check_split, hashed_ngrams

DATA = os.environ.get("METALEARN_DATA")
needs_data = pytest.mark.skipif(
    not DATA,
    reason="needs the real data: set METALEARN_DATA to the folder that holds them",
)
REAL = [
    "clinc150",
    "banking77",
    "hwu64",
    "huffpost",
    "uci_sentiment",
    "fewrel",
]  # texts; images are in test_images.py
TINY = ["tiny_intents", "tiny_entities", "tiny_sentiment"]
IMAGES = ["omniglot", "tiny_glyphs"]
NER = [
    "crossner",
    "wnut17",
    "btc",
    "gum",
    "sec_filings",
]  # counts and damaged files: test_tagged.py
OTHERS = [
    "fewrel_pubmed",
    "fewrel_semeval",
    "snips",
    "nlupp",
    "restaurant8k",
    "finentity",
    "xquad",
    "ntrex",
    "scitldr",
    "sgd",
    "uci_restaurant",
    "emoji",
]  # test_loaders.py
DIGESTS = {
    "tiny_intents": "571f893f9d3c09e7",
    "tiny_entities": "d084b933ff045dca",
    "tiny_sentiment": "a787f9c99dba086b",
}


@pytest.fixture(autouse=True)
def fresh_cache():
    sources._load.cache_clear()
    yield
    sources._load.cache_clear()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """A machine without the real data, with an empty cache, and without a hub or an
    upstream server."""
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "reachable", lambda address: False)
    return monkeypatch


# --- real data, by value


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_counts_are_those_of_the_manifest(name):
    card = data.describe(name)
    whole = data.load_dataset_by_name(name, part=list(card.counts))
    assert whole.source == "folder"
    assert Counter(whole.part) == card.counts
    known = data.load_dataset_by_name(name)
    assert len(known.classes) == card.n_classes
    assert all(isinstance(t, str) and t for t in known.texts)


@needs_data
def test_rows_by_value():
    clinc = data.load_dataset_by_name("clinc150")
    assert ("how would you say fly in italian", "translate") in zip(
        clinc.texts, clinc.labels
    )
    assert clinc.domains["transfer"] == "banking" and set(
        Counter(clinc.domains.values()).values()
    ) == {15}
    per_class = Counter(clinc.where(part="train").labels)
    assert set(per_class.values()) == {100}
    oos = data.load_dataset_by_name("clinc150", part="oos_test")
    assert (
        set(oos.labels) == {"oos"}
        and "how much has the dow changed today"
        in oos.texts + data.load_dataset_by_name("clinc150", "oos_val").texts
    )
    assert "oos" not in clinc.classes
    banking = data.load_dataset_by_name("banking77", part="test")
    assert set(Counter(banking.labels).values()) == {40}
    hwu = data.load_dataset_by_name("hwu64")
    assert ("tell me time of alarm you set", "alarm_query", "test") in zip(
        hwu.texts, hwu.labels, hwu.part
    )
    assert len(set(hwu.domains.values())) == 18
    uci = data.load_dataset_by_name("uci_sentiment")
    assert Counter(zip(uci.row_domains, uci.labels)) == {
        (d, c): 500
        for d in ("amazon", "imdb", "yelp")
        for c in ("positive", "negative")
    }
    assert ("Crust is not good.", "negative", "yelp") in zip(
        uci.texts, uci.labels, uci.row_domains
    )
    assert set(Counter(data.load_dataset_by_name("huffpost").labels).values()) == {900}
    relations = data.load_dataset_by_name("fewrel", part="test")
    assert set(Counter(relations.labels).values()) == {700} and all(
        t.count(mark) == 1
        for t in relations.texts
        for mark in ("<h>", "</h>", "<t>", "</t>")
    )
    assert relations.texts[0].endswith(
        "<t> Mississippi River </t> bridge to replace the deteriorating "
        "<h> Cape Girardeau Bridge </h> ."
    )


@needs_data
@pytest.mark.parametrize(
    "name", ["clinc150", "banking77", "hwu64", "huffpost", "fewrel"]
)
def test_class_split_covers_the_classes_of_the_data(name):
    split = data.class_split(name)
    check_split(split)
    assert sorted(sum(split.values(), [])) == data.load_dataset_by_name(name).classes


# --- selection


def test_where_keeps_columns_together():
    d = data.LabeledTexts(
        "d",
        ["a", "b", "c"],
        ["x", "y", "x"],
        ["train", "test", "test"],
        {"x": "one", "y": "two"},
    )
    assert d.where(part="test").texts == ["b", "c"]
    assert d.where(classes="x", part="test").texts == ["c"]
    assert d.where(domain="two").labels == ["y"]
    assert d.where(part="train").row_domains == ["one"]
    with pytest.raises(ValueError, match="unknown part 'tset'.*did you mean 'test'"):
        d.where(part="tset")
    with pytest.raises(ValueError, match="unknown class"):
        d.where(classes=["z"])
    with pytest.raises(ValueError, match="columns of different lengths"):
        data.LabeledTexts("d", ["a"], [], [])
    with pytest.raises(ValueError, match="no domains"):
        data.LabeledTexts("d", ["a"], ["x"], ["all"]).where(domain="one")
    with pytest.raises(ValueError, match="sentence 0: 2 tokens but 1 tags"):
        data.LabeledTokens("d", [["a", "b"]], [["O"]], ["all"])


def test_loaded_data_is_a_copy():
    data.load_dataset_by_name("tiny_intents").texts.clear()
    data.load_dataset_by_name("tiny_entities").tokens[0].append("x")
    assert len(data.load_dataset_by_name("tiny_intents")) == 3840


# --- what can go wrong


@pytest.mark.parametrize(
    "call", [data.load_dataset_by_name, data.available, data.class_split, data.describe]
)
def test_unknown_name(call):
    with pytest.raises(
        ValueError, match="unknown data set 'clinc_150'.*did you mean 'clinc150'"
    ):
        call("clinc_150")


def test_no_data_and_no_network_fails_fast_and_names_all_ways(no_network):
    started = time.perf_counter()
    with pytest.raises(FileNotFoundError) as e:
        data.load_dataset_by_name("clinc150")
    assert time.perf_counter() - started < 2
    for word in (
        "METALEARN_DATA is not set",
        "data_full.json.gz",
        "github.com/clinc/oos-eval",
        "clinc/clinc_oos",
        "tiny_intents",
        "metalearn-book data fetch clinc150",
        "2.5 MB",
        "upstream: https://raw.githubusercontent.com can't be reached",
    ):
        assert word in str(e.value)
    assert not data.available("clinc150") and data.at_hand("clinc150") is None
    with pytest.raises(FileNotFoundError, match="fetch huffpost") as e:
        data.load_dataset_by_name("huffpost")
    assert "(3)" not in str(e.value), "the hub is no way to this set"
    with pytest.raises(
        FileNotFoundError, match="made by a command: metalearn-book data make emoji"
    ):
        data.load_dataset_by_name("emoji")
    assert all(data.available(n) for n in TINY)


def test_hub_offline_is_respected(no_network, tmp_path):
    no_network.setenv("HF_HUB_OFFLINE", "1")
    no_network.setenv("HF_DATASETS_CACHE", str(tmp_path))
    no_network.setattr(
        hub, "reachable", lambda address: pytest.fail("asked the network")
    )
    assert not data.available("clinc150")
    (tmp_path / "clinc___clinc_oos").mkdir()
    assert data.available("clinc150") and data.at_hand("clinc150") == "hub"

    def offline(repo, config=None):
        raise ConnectionError("offline")

    no_network.setattr(hub, "_load", offline)
    with pytest.raises(
        FileNotFoundError, match="ConnectionError: offline.*HF_HUB_OFFLINE is set"
    ):
        data.load_dataset_by_name("clinc150")


class _Split(dict):
    "A split of a hub data set: columns, and label names where a column holds numbers."

    def __init__(self, columns, names=None):
        super().__init__(columns)
        self.features = {
            c: type(
                "ClassLabel",
                (),
                {"int2str": lambda self, v, n=(names or {}).get(c): n[v]},
            )()
            if c in (names or {})
            else object()
            for c in columns
        }


def on_the_hub(monkeypatch, content, **expected):
    "The hub answers and has this content; the manifest expects these counts."
    monkeypatch.setattr(hub, "reachable", lambda address: address == hub.hub_address())
    monkeypatch.setattr(
        hub,
        "_load",
        lambda repo, config=None: content[config] if config in content else content,
    )
    for name, fields in expected.items():
        entry, fields = manifest.MANIFEST[name], dict(fields)
        if counts := fields.pop("hub_counts", None):
            fields["hub"] = dataclasses.replace(entry.hub, counts=counts)
        entry = dataclasses.replace(entry, **fields)
        monkeypatch.setitem(manifest.MANIFEST, name, entry)


def test_hub_loader_reads_names_and_checks_them(no_network):
    split = _Split(
        {"text": [" hi", "what"], "label": [0, 1]},
        {"label": ["card_arrival", "age_limit"]},
    )
    wanted = data.LabeledTexts(
        "banking77", ["hi", "what"], ["card_arrival", "age_limit"], ["test", "test"]
    )
    on_the_hub(
        no_network,
        {"test": split},
        banking77={"counts": {"test": 2}, "digest": wanted.digest()},
    )
    d = data.load_dataset_by_name("banking77")
    assert (d.source, d.texts, d.labels, d.part) == (
        "hub",
        ["hi", "what"],
        ["card_arrival", "age_limit"],
        ["test", "test"],
    )
    sources._load.cache_clear()
    on_the_hub(no_network, {"test": split}, banking77={"counts": {"test": 3}})
    with pytest.raises(
        FileNotFoundError,
        match="legacy-datasets/banking77.*'test': 2} rows, expected {'test': 3}",
    ):
        data.load_dataset_by_name("banking77")
    on_the_hub(
        no_network,
        {"test": _Split({"text": ["hi"], "label": ["bonjour"]})},
        banking77={"counts": {"test": 1}},
    )
    with pytest.raises(
        FileNotFoundError, match="classes that the fixed split does not know: bonjour"
    ):
        data.load_dataset_by_name("banking77")


def test_a_copy_that_differs_is_the_last_way_and_says_so(no_network):
    content = {
        "test": _Split(
            {"text": ["hi", "what"], "intent": [0, 1]}, {"intent": ["greeting", "oos"]}
        )
    }
    on_the_hub(no_network, content, clinc150={"hub_counts": {"test": 1, "oos_test": 1}})
    with pytest.warns(
        UserWarning,
        match=(
            "the hub's copy, whose rows are not those of the book.*250 instead of 100.*"
            "raw.githubusercontent.com can't be reached"
        ),
    ):
        d = data.load_dataset_by_name("clinc150", part=["test", "oos_test"])
    assert (d.source, d.texts, d.labels, d.part) == (
        "hub",
        ["hi", "what"],
        ["greeting", "oos"],
        ["test", "oos_test"],
    )


def test_other_rows_in_equal_number_are_noticed(no_network):
    """The hub's Banking77 counts as the book's only if all rows are the same, in the
    same order."""
    split = _Split(
        {"text": ["hi", "what"], "label": [0, 1]},
        {"label": ["card_arrival", "age_limit"]},
    )
    on_the_hub(no_network, {"test": split}, banking77={"counts": {"test": 2}})
    with pytest.warns(
        UserWarning,
        match=(
            "whose rows are not those of the book.*"
            "githubusercontent.com can't be reached"
        ),
    ):
        assert data.load_dataset_by_name("banking77").source == "hub"


LARGE = ("sgd",)  # ten seconds


@pytest.mark.parametrize("name", [n for n in manifest.MANIFEST if n not in LARGE])
def test_every_set_has_the_rows_of_its_digest(name):
    """Stamps of chapters hold the digests: with other rows, chapters have to be run
    again."""
    if manifest.MANIFEST[name].files.read and sources.at_hand(name) is None:
        pytest.skip(f"needs {name}")
    rows = sources._load(name, sources._data_folder(name))
    assert rows.digest() == manifest.MANIFEST[name].digest


def test_digest_of_rows():
    d = data.load_dataset_by_name("tiny_glyphs")
    other = dataclasses.replace(d, images=d.images.copy())
    assert d.digest() == other.digest() != d.where(part="test").digest()
    other.images[3, 4, 5] ^= 1
    assert d.digest() != other.digest()


def test_other_sets_of_the_hub(no_network):
    parts = {"train": _Split({"utterance": ["wake me "], "label": [1]})}
    intents = {"intents": {"id": [0, 1], "name": ["alarm_query", "alarm_set"]}}
    on_the_hub(
        no_network,
        {None: parts, "intents": intents},
        hwu64={"hub_counts": {"train": 1}},
    )
    with pytest.warns(UserWarning, match="8,954 training rows"):
        d = data.load_dataset_by_name("hwu64")
    assert (d.texts, d.labels, d.row_domains) == (["wake me"], ["alarm_set"], ["alarm"])
    rows = sorted(
        n for numbers in data.class_split("finentity").values() for n in numbers
    )
    entity = {
        "start": 2,
        "end": 5,
        "value": "Abc",
        "label": "Positive",
        "tag": "Positive",
    }  # one character off
    on_the_hub(
        no_network,
        {
            "train": {
                "content": ["An Abc."] * len(rows),
                "annotations": [[entity]] * len(rows),
            }
        },
    )
    with pytest.warns(UserWarning, match="finentity: this is the hub's copy"):
        d = data.load_dataset_by_name("finentity")
    assert (
        d.source == "hub"
        and d.spans[0] == ((3, 6, "Positive", "Abc"),)
        and Counter(d.part) == data.describe("finentity").counts
    )


def test_wrong_data_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "nowhere"))
    for call in (data.available, data.load_dataset_by_name):
        with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
            call("clinc150")
    assert data.available("tiny_intents")


def _copy(name, tmp_path, monkeypatch) -> Path:
    shutil.copytree(Path(DATA) / name, tmp_path / name)
    for file in (tmp_path / name).iterdir():
        file.chmod(0o644)
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    (tmp_path / name).chmod(0o755)
    return tmp_path / name


@needs_data
@pytest.mark.parametrize(
    "name,file,damage,error,message",
    [
        (
            "clinc150",
            "data_full.json.gz",
            lambda b: b[:1000],
            RuntimeError,
            "data_full.json.gz can't be used",
        ),
        (
            "clinc150",
            "data_full.json.gz",
            lambda b: gzip.compress(b"{]"),
            RuntimeError,
            "no valid JSON",
        ),
        (
            "clinc150",
            "data_full.json.gz",
            lambda b: gzip.compress(
                json.dumps(
                    {
                        k: v
                        for k, v in json.loads(gzip.decompress(b)).items()
                        if k != "oos_val"
                    }
                ).encode()
            ),
            RuntimeError,
            "key 'oos_val' is missing",
        ),
        (
            "clinc150",
            "domains.json",
            None,
            FileNotFoundError,
            "domains.json is missing",
        ),
        (
            "banking77",
            "train.csv",
            lambda b: b[: len(b) // 2].rsplit(b"\n", 1)[0] + b"\n",
            RuntimeError,
            "part 'train' has .* rows, expected 10,003",
        ),
        (
            "banking77",
            "test.csv",
            lambda b: b.replace(b"text,category", b"text,kategorie", 1),
            RuntimeError,
            "test.csv.*column 'category' is missing",
        ),
        (
            "hwu64",
            "train.csv",
            lambda b: b"\xff\xfe" + b,
            RuntimeError,
            "train.csv.*UnicodeDecodeError",
        ),
        (
            "huffpost",
            "huffpost.json.gz",
            lambda b: gzip.compress(b'{"raw": "x", "label": 99}\n'),
            RuntimeError,
            "huffpost.json.gz.*not a headline",
        ),
        (
            "fewrel",
            "val_wiki.json.gz",
            lambda b: gzip.compress(
                json.dumps(
                    {"P0": next(iter(json.loads(gzip.decompress(b)).values()))}
                ).encode()
            ),
            RuntimeError,
            "relation 'P0'",
        ),
        (
            "uci_sentiment",
            "yelp_labelled.txt",
            lambda b: b.replace(b"\t0", b" 0", 1),
            RuntimeError,
            "yelp_labelled.txt.*line .* is not",
        ),
    ],
)
def test_damaged_file_is_named(
    name, file, damage, error, message, tmp_path, monkeypatch
):
    path = _copy(name, tmp_path, monkeypatch) / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(error, match=message):
        data.load_dataset_by_name(name)


# --- cards, splits, imports


@pytest.mark.parametrize("name", REAL + TINY + IMAGES + NER)
def test_card_and_split_need_no_data(name, no_network):
    card = data.describe(name)
    assert card.licence and card.task and sum(card.counts.values()) > 0
    assert name in str(card) and f"**{name}**" in card._repr_markdown_()
    split = data.class_split(name)
    assert list(split) == ["train", "validation", "test"]
    check_split(split)
    assert set(data.dataset_names()) == {*REAL, *TINY, *IMAGES, *NER, *OTHERS}


def test_import_needs_neither_torch_nor_datasets():
    code = (
        "import sys, metalearn_book.data as d; "
        "d.load_dataset_by_name('tiny_intents'); "
        "print([m for m in ('torch', 'datasets', 'transformers', 'PIL')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"


# --- the tiny sets


def test_tiny_sets_are_fast_and_the_same_everywhere():
    makers = {
        "tiny_intents": tiny.tiny_intents,
        "tiny_entities": tiny.tiny_entities,
        "tiny_sentiment": tiny.tiny_sentiment,
    }
    for maker in makers.values():
        maker.cache_clear()
    started = time.process_time()
    digests = {
        name: hashlib.sha256(repr(maker()).encode()).hexdigest()[:16]
        for name, maker in makers.items()
    }
    assert time.process_time() - started < 3  # below 0.3 s on a free machine
    assert digests == DIGESTS, (
        "the grammars changed: results on the tiny sets have to be made again, "
        "then update the digests"
    )
    assert tiny.tiny_intents(seed=1) != tiny.tiny_intents()


@pytest.mark.parametrize("name", TINY)
def test_tiny_cards_tell_the_truth(name):
    d, card = data.load_dataset_by_name(name), data.describe(name)
    assert (
        Counter(d.part) == card.counts
        and len(d.classes) == card.n_classes
        and d.source == "generated"
    )


def test_tiny_intents_have_enough_different_items():
    d = data.load_dataset_by_name("tiny_intents")
    assert len(set(d.texts)) == len(d)
    assert (
        min(Counter(d.labels).values()) >= 60
        and len(d.classes) >= 40
        and len(set(d.domains.values())) == 8
    )
    assert sorted(sum(data.class_split("tiny_intents").values(), [])) == d.classes
    # 5 shots and 15 query items
    assert min(Counter(d.where(part="test").labels).values()) >= 20


def test_the_two_directions_of_a_domain_share_their_words():
    d = data.load_dataset_by_name("tiny_intents")

    def frequent(intent):
        texts = d.where(classes=intent).texts
        return {
            w
            for w, n in Counter(w for t in texts for w in set(t.split())).items()
            if n > len(texts) / 8
        }

    for domain in tiny.INTENT_DOMAINS:
        one, other = (frequent(c) for c in domain.intents[4:])
        assert len(one & other) / len(one | other) > 0.55, (domain.name, one ^ other)


def test_tiny_entities_are_well_formed():
    d = data.load_dataset_by_name("tiny_entities")
    assert len(d.classes) == 14 and len(set(map(tuple, d.tokens))) == len(d)
    for tags in d.tags:
        for before, tag in zip(["O"] + tags, tags):
            assert tag == "O" or tag[:2] == "B-" or before[2:] == tag[2:]
    assert (
        min(Counter(t[2:] for tags in d.tags for t in tags if t[:2] == "B-").values())
        > 100
    )
    assert set(d.where(classes="ship").classes) >= {"ship"}
    assert sorted(sum(data.class_split("tiny_entities").values(), [])) == d.classes


def fitted_accuracy(x, y, x_new, y_new, steps=20, strength=1e-3):
    "Multinomial logistic regression, fitted to convergence with L-BFGS."
    w = torch.zeros(x.shape[1], int(y.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=steps, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ w, y) + strength * (w**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return (
        ((x @ w).argmax(1) == y).float().mean().item(),
        ((x_new @ w).argmax(1) == y_new).float().mean().item(),
    )


def accuracy_by_ngrams(d, longest, dim=4096):
    codes = {c: i for i, c in enumerate(d.classes)}
    parts = [d.where(part=p) for p in ("train", "test")]
    (x, y), (x_new, y_new) = (
        (
            hashed_ngrams(p.texts, dim, longest, normalize=False),
            torch.tensor([codes[v] for v in p.labels]),
        )
        for p in parts
    )
    used = (x > 0).sum(0) > 1  # a column that occurs once can only be learned by heart
    return fitted_accuracy(x[:, used], y, x_new[:, used], y_new)


@pytest.mark.parametrize(
    "name,ceiling,gain", [("tiny_intents", 0.70, 0.15), ("tiny_sentiment", 0.70, 0.15)]
)
def test_a_bag_of_words_does_not_solve_it_and_word_order_helps(name, ceiling, gain):
    d = data.load_dataset_by_name(name)
    (_, words), (fit, pairs) = accuracy_by_ngrams(d, 1), accuracy_by_ngrams(d, 2)
    print(
        f"{name}: words {words:.3f}, words and pairs {pairs:.3f} "
        f"(on the training items {fit:.3f})"
    )
    assert words < ceiling
    assert pairs > words + gain
    assert fit > 0.9


def test_entities_depend_on_the_words_around_them():
    d = data.load_dataset_by_name("tiny_entities")
    train, test = d.where(part="train"), d.where(part="test")

    def windows(rows, width):
        for tokens, tags in zip(rows.tokens, rows.tags):
            padded = ["^"] * width + tokens + ["$"] * width
            for i, tag in enumerate(tags):
                yield tuple(padded[i : i + 2 * width + 1]), tag

    def most_frequent(width):
        """Accuracy on entity tokens of the most frequent tag of each window; smaller
        windows where a window is new."""
        tables = []
        for w in range(width, -1, -1):
            table = {}
            for window, tag in windows(train, w):
                table.setdefault(window, Counter())[tag] += 1
            tables.append((w, {k: c.most_common(1)[0][0] for k, c in table.items()}))
        right = []
        for window, tag in windows(test, width):
            guess = next(
                (
                    t[window[width - w : len(window) - (width - w)]]
                    for w, t in tables
                    if window[width - w : len(window) - (width - w)] in t
                ),
                "O",
            )
            if tag != "O":
                right.append(guess == tag)
        return sum(right) / len(right)

    alone, around = most_frequent(0), most_frequent(2)
    print(
        f"entity tokens: by the word alone {alone:.3f}, "
        f"with two neighbours on each side {around:.3f}"
    )
    assert alone < 0.65 and around > alone + 0.2


def test_tiny_intents_can_be_learned_from_few_examples():
    "The baseline of the chapter: far above chance, far from perfect."
    d = data.load_dataset_by_name("tiny_intents", part="test")
    tasks = ClassTasks(
        hashed_ngrams(d.texts, 512),
        d.labels,
        5,
        5,
        15,
        data.class_split("tiny_intents")["test"],
    )
    b = tasks.sample(200, torch.Generator().manual_seed(0))
    means = b.support.x.view(200, 5, 5, -1).mean(2)
    accuracy = (
        (torch.cdist(b.query.x, means).argmin(-1) == b.query.y).float().mean().item()
    )
    assert 0.6 < accuracy < 0.9
