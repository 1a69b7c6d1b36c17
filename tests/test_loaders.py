"""The sets of the later chapters by value: spans, questions, translations, summaries,
dialogues, ratings, emoji; and the files that are made again.
"""

import csv
import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn_book import data
from metalearn_book.data import (
    derived,
    dialogues,
    drawings,
    passages,
    ratings,
    sources,
    spans,
)

DATA = os.environ.get("METALEARN_DATA")
needs_data = pytest.mark.skipif(
    not DATA,
    reason="needs the real data: set METALEARN_DATA to the folder that holds them",
)
SETS = [
    "fewrel_pubmed",
    "fewrel_semeval",
    "snips",
    "nlupp",
    "restaurant8k",
    "finentity",
    "xquad",
    "ntrex",
    "scitldr",
    "uci_restaurant",
    "emoji",
    "sgd",
]
SPANS = {
    "snips": (7, 39, 37_542),
    "nlupp": (62, 17, 1_987),
    "restaurant8k": (0, 5, 11_112),
    "finentity": (0, 3, 2_131),
}


@pytest.fixture(scope="module")
def load():
    "Each set is read once for all tests of this file."
    sources._load.cache_clear()
    yield data.load_dataset_by_name
    sources._load.cache_clear()


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_counts_are_those_of_the_card(name, load):
    d, card = load(name), data.describe(name)
    assert d.source == "folder" and d.name == name and Counter(d.part) == card.counts
    if card.n_classes and (classes := getattr(d, "classes", None) or d.span_classes):
        assert len(classes) == card.n_classes
    if name in ("emoji", "sgd", "xquad", "ntrex", "finentity"):
        assert list(data.class_split(name)) == ["train", "validation", "test"]
    else:
        with pytest.raises(
            ValueError, match=f"{name} has no class split, its parts are"
        ):
            data.class_split(name)


# ------------------------------------------------ spans


@needs_data
@pytest.mark.parametrize("name", SPANS)
def test_spans_are_the_text_at_their_place(name, load):
    d, (classes, span_classes, n) = load(name), SPANS[name]
    found = [(t, s) for t, ss in zip(d.texts, d.spans) for s in ss]
    assert (len(d.classes), len(d.span_classes), len(found)) == (
        classes,
        span_classes,
        n,
    )
    assert all(
        text[s.start : s.end] == s.text == s.text.strip() != "" for text, s in found
    )
    assert all(list(ss) == sorted(ss) for ss in d.spans)


@needs_data
def test_spans_by_value(load):
    snips = load("snips")
    i = next(
        i
        for i, t in enumerate(snips.texts)
        if t.startswith("rate The Lotus and the Storm")
    )
    assert snips.labels[i] == ("RateBook",)
    assert [(s.label, s.text) for s in snips.spans[i]] == [
        ("object_name", "The Lotus and the Storm"),
        ("rating_value", "zero"),
        ("best_rating", "6"),
    ]
    music = snips.where(classes="PlayMusic", part="train").texts
    assert "play Té Para Tres" in music and not any("Ã" in text for text in snips.texts)
    assert sum("Pop Punk Perfection \N{SLICE OF PIZZA}" in text for text in music) == 1
    assert (
        len(
            {
                (labels[0], s.label)
                for labels, ss in zip(snips.labels, snips.spans)
                for s in ss
            }
        )
        == 53
    )
    nlu = load("nlupp")
    i = nlu.texts.index("how can I book the gym from 4 to 10")
    assert nlu.labels[i] == ("how", "booking", "gym") and nlu.row_domains[i] == "hotels"
    assert nlu.spans[i] == ((28, 29, "time_from", "4"), (33, 35, "time_to", "10"))
    hotels = nlu.where(domain="hotels")
    assert (len(hotels), len(hotels.classes), len(hotels.span_classes)) == (
        1009,
        40,
        14,
    )
    one = nlu.where(domain="banking", fold=["0", "3"])
    assert (
        set(one.folds) == {"0", "3"}
        and set(one.row_domains) == {"banking"}
        and 150 < len(one) < 300
    )
    table = load("restaurant8k")
    i = table.texts.index("There will be 5 adults and 1 child.")
    assert table.asked[i] == ("people",) and table.spans[i] == (
        (14, 34, "people", "5 adults and 1 child"),
    )
    assert any(s.start == 0 for ss in table.spans for s in ss)
    assert set(
        s.label for ss in table.where(span_classes="last_name").spans for s in ss
    ) > {"last_name"}
    labels = Counter(s.label for ss in load("finentity").spans for s in ss)
    assert labels == {"Neutral": 1130, "Positive": 503, "Negative": 498}


@needs_data
def test_finentity_moves_spans_a_little(load):
    "70 offsets of the file are wrong; every other one is used as it is."
    records = json.loads(
        gzip.decompress((Path(DATA) / "finentity/FinEntity.json.gz").read_bytes())
    )
    rows, moved = load("finentity"), 0
    split = data.class_split("finentity")
    for i, (record, found) in enumerate(zip(records, rows.spans)):
        stated = Counter((a["start"], a["end"]) for a in record["annotations"])
        moved += (stated - Counter((s.start, s.end) for s in found)).total()
        assert i in split[rows.part[i]]
    assert moved == 70


def test_span_of_another_text_is_an_error():
    good = spans.Span(3, 6, "name", "Abc")
    d = spans.SpanTexts("d", ["An Abc."], [("x",)], [(good,)], ["all"], "folder")
    assert d.span_classes == ["name"] and d.where(classes="x").spans == [(good,)]
    for wrong in (
        good._replace(start=2),
        good._replace(end=9),
        good._replace(start=6, text=""),
    ):
        with pytest.raises(ValueError, match="d, text 0: the span from"):
            spans.SpanTexts("d", ["An Abc."], [()], [(wrong,)], ["all"], "folder")
    with pytest.raises(
        ValueError, match="unknown span class 'nam'.*did you mean 'name'"
    ):
        d.where(span_classes="nam")
    with pytest.raises(ValueError, match="d has no folds"):
        d.where(fold="0")
    with pytest.raises(ValueError, match="entity does not occur"):
        spans.finentity(
            [
                {
                    "content": "x",
                    "annotations": [{"start": 0, "value": "y", "label": "Neutral"}],
                }
            ],
            "hub",
        )


def test_snips_pieces():
    pieces = [
        {"text": "  play "},
        {"text": " Blue ", "entity": "song"},
        {"text": "\n"},
        {"text": "  ", "entity": "artist"},
        {"text": "now", "entity": "time"},
        {"text": "\n"},
    ]
    text, found = spans._pieces(pieces)
    assert text == "play  Blue \n  now"
    assert found == ((6, 10, "song", "Blue"), (14, 17, "time", "now"))


# ------------------------------------------------ relations


@needs_data
def test_relations_of_other_domains(load):
    medicine, nouns = load("fewrel_pubmed"), load("fewrel_semeval")
    assert set(Counter(medicine.labels).values()) == {100} and len(nouns.classes) == 17
    for d in (medicine, nouns):
        assert all(
            t.count(mark) == 1
            for t in d.texts
            for mark in ("<h>", "</h>", "<t>", "</t>")
        )
    assert not set(medicine.classes) & set(load("fewrel").classes)


# ------------------------------------------------ passages


@needs_data
def test_questions(load):
    d = load("xquad")
    assert all(
        c.startswith(a.text, a.start)
        for c, answers in zip(d.contexts, d.answers)
        for a in answers
    )
    assert set(Counter(d.languages).values()) == {1190} and len(set(d.languages)) == 12
    english, german = d.where(language="en"), d.where(language="de")
    assert (
        english.ids == german.ids
        and english.articles == german.articles
        and len(set(english.articles)) == 48
    )
    i = english.ids.index("56beb4343aeaaa14008c925b")
    assert english.questions[i] == "How many points did the Panthers defense surrender?"
    assert english.answers[i] == ((34, "308"),) and len(set(english.contexts)) == 240
    split = data.class_split("xquad")
    for part, articles in split.items():
        assert set(d.where(part=part).articles) == set(articles)
    assert set(d.where(article="Normans", language=["en", "zh"]).languages) == {
        "en",
        "zh",
    }
    with pytest.raises(ValueError, match="the answer at 3 is not the text there"):
        passages.QuestionAnswers(
            "q",
            ["An Abc."],
            ["?"],
            [(passages.Answer(3, "Abx"),)],
            ["1"],
            ["en"],
            ["a"],
            ["all"],
            "folder",
        )


@needs_data
def test_translations(load):
    d = load("ntrex")
    assert len(d.texts) == len(d.languages) == 41 and len(set(d.documents)) == 123
    assert d.pairs("eng", "deu")[0] == (
        "Welsh AMs worried about 'looking like muppets'",
        "Mitglieder der Nationalversammlung für Wales befürchten Verwechslungen mit "
        "den Muppets",
    )
    assert d.languages["zho-CN"] == "Chinese (Simplified)" and all(
        all(lines) for lines in d.texts.values()
    )
    for part, documents in data.class_split("ntrex").items():
        assert set(d.where(part=part).documents) == set(documents)
    one = d.where(document=d.documents[0])
    assert one.texts["eng"] == d.texts["eng"][: len(one)] and len(
        one.texts["jpn"]
    ) == len(one)
    with pytest.raises(ValueError, match="unknown language 'ger'.*deu"):
        d.pairs("eng", "ger")
    with pytest.raises(ValueError, match="columns of different lengths"):
        passages.Translations(
            "t", {"eng": ["a"], "deu": ["b", "c"]}, ["d"], ["all"], {}, "folder"
        )


@needs_data
def test_summaries(load):
    d = load("scitldr")
    assert [
        sum(map(len, d.where(part=p).summaries))
        for p in ("train", "validation", "test")
    ] == [1992, 1453, 1967]
    i = d.ids.index("rJlnfaNYvB")
    assert d.titles[i] == "Adaptive Loss Scaling for Mixed Precision Training"
    assert d.summaries[i][0].startswith("We devise adaptive loss scaling") and d.texts[
        i
    ].startswith("Mixed precision training (MPT)")
    assert all(
        0 <= best < len(sentences) for best, sentences in zip(d.best, d.sentences)
    )
    with pytest.raises(ValueError, match="row 0: no sentence"):
        passages.Summaries(
            "s", [("a",)], [("b",)], ["t"], ["1"], [1], ["all"], "folder"
        )


# ------------------------------------------------ dialogues


@needs_data
def test_dialogues(load):
    d = load("sgd")
    turns = [t for dialogue in d.turns for t in dialogue]
    assert [
        sum(map(len, d.where(part=p).turns)) for p in ("train", "validation", "test")
    ] == [79_708, 11_928, 16_850]
    assert [len(d.where(part=p).classes) for p in ("train", "validation", "test")] == [
        24,
        17,
        20,
    ]
    assert all(t.text[s.start : s.end] == s.text for t in turns for s in t.spans)
    assert all(
        [t.speaker for t in dialogue[:2]] == ["user", "system"] for dialogue in d.turns
    )
    assert all((t.state is None) == (t.speaker == "system") for t in turns)
    for dialogue, name in zip(d.turns, d.services):
        service = d.schema[name]
        for t in dialogue:
            assert t.intent in (None, "NONE", *service.intents) and set(
                t.state or ()
            ) <= set(service.slots)
    said = (
        "I want to make a restaurant reservation for 2 people at half past 11 in the "
        "morning."
    )
    t = next(t for t in turns if t.text == said)
    assert (
        t.spans == ((56, 83, "time", "half past 11 in the morning"),)
        and t.intent == "ReserveRestaurant"
    )
    assert t.state == {
        "number_of_seats": ("2",),
        "time": ("half past 11 in the morning",),
    }
    assert any(t.call and t.results for t in turns)
    split = data.class_split("sgd")
    train = set(d.where(part="train").classes)
    assert (
        set(split["train"]) == train
        and not train & set(split["test"])
        and not train & set(split["validation"])
    )
    new = d.where(part="test", classes=split["test"])
    assert set(new.classes) == set(split["test"]) and 0 < len(new) < 1331
    assert set(d.where(domain="Hotels").classes) == {
        "Hotels_1",
        "Hotels_2",
        "Hotels_3",
        "Hotels_4",
    }


def test_dialogue_that_does_not_fit():
    turn = dialogues.Turn("user", "a table", (spans.Span(2, 7, "what", "table"),), ())
    service = dialogues.Service("S_1", "", {}, {})
    assert (
        len(
            dialogues.Dialogues(
                "d", [(turn,)], ["S_1"], ["1"], ["all"], {"S_1": service}, "folder"
            )
        )
        == 1
    )
    with pytest.raises(ValueError, match="no schema of service 'S_1'"):
        dialogues.Dialogues("d", [(turn,)], ["S_1"], ["1"], ["all"], {}, "folder")
    wrong = turn._replace(spans=(spans.Span(1, 6, "what", "table"),))
    with pytest.raises(ValueError, match="dialogue 1: the span at 1"):
        dialogues.Dialogues(
            "d", [(wrong,)], ["S_1"], ["1"], ["all"], {"S_1": service}, "folder"
        )


# ------------------------------------------------ ratings


@needs_data
def test_ratings_without_personal_traits(load):
    d = load("uci_restaurant")
    assert len(set(d.users)) == 138 and len(set(d.items)) == len(d.places) == 130
    assert (d.users[0], d.items[0], d.ratings[0], d.food[0], d.service[0]) == (
        "U1077",
        "135085",
        2,
        2,
        2,
    )
    assert set(d.ratings) == set(d.food) == set(d.service) == {0, 1, 2}
    kiku = next(p for p in d.places.values() if p.name == "Kiku Cuernavaca")
    assert kiku.cuisines == ("Japanese",) and kiku.text.startswith(
        "Kiku Cuernavaca. cuisine: Japanese; price: medium"
    )
    assert not any("?" in str(p) for p in d.places.values()), "a missing value is empty"
    text = repr(d)
    for word in (
        "Catholic",
        "religion",
        "weight",
        "birth",
        "single",
        "student",
        "latitude",
    ):
        assert word not in text
    mine = d.where(user="U1077")
    assert set(mine.users) == {"U1077"} and len(mine) == Counter(d.users)["U1077"]
    assert len(d.where(item=[])) == 0


def test_damaged_ratings(tmp_path):
    path = tmp_path / "restaurant-data-with-consumer-ratings.zip"
    with pytest.raises(FileNotFoundError, match="ratings.zip is missing"):
        ratings.read_uci_restaurant(tmp_path)
    path.write_bytes(b"no archive")
    with pytest.raises(RuntimeError, match="ratings.zip can't be used: BadZipFile"):
        ratings.read_uci_restaurant(tmp_path)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("rating_final.csv", "userID,placeID\n")
    with pytest.raises(
        RuntimeError, match="rating_final.csv can't be used: column 'rating' is missing"
    ):
        ratings.read_uci_restaurant(tmp_path)


# ------------------------------------------------ emoji


@needs_data
def test_emoji(load):
    d = load("emoji")
    assert d.images.shape == (7992, 32, 32, 3) and d.images.dtype == np.uint8
    assert set(d.styles) == set(drawings.STYLES) and len(set(d.row_domains)) == 96
    per_class = Counter(d.labels)
    assert set(per_class.values()) == {5, 6, 7}
    split = data.class_split("emoji")
    for part, subgroups in split.items():
        assert set(d.where(part=part).row_domains) == set(subgroups)
    cat = d.where(classes="grinning cat")
    assert (
        set(cat.row_domains) == {"cat faces"}
        and cat.names("de")[0] == "grinsende Katze"
    )
    assert cat.concepts["grinning cat"].emoji == "😺" and cat.names() == [
        "grinning cat"
    ] * len(cat)
    test = d.where(style="openmoji", part="test")
    assert set(test.styles) == {"openmoji"} and len(set(test.labels)) == len(test)
    x, labels = test.tensors()
    assert (
        x.shape == (len(test), 3, 32, 32)
        and x.dtype == torch.float32
        and x.is_contiguous()
        and labels == test.labels
    )
    assert (
        x[0, 1].mul(255).round().byte().equal(torch.from_numpy(test.images[0, :, :, 1]))
    )
    assert x[:, :, 0, 0].median() == 1, "drawn on white"
    with pytest.raises(ValueError, match="no names in 'la'; there are en, zh, de"):
        cat.names("la")
    with pytest.raises(
        ValueError, match="unknown style 'twemojis'.*did you mean 'twemoji'"
    ):
        d.where(style="twemojis")


BOX = '<path fill="#{}" d="M{} 0h16v16h-16z"/>'


def _package(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name.replace('__', '/')}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _packages(raw):
    """Icon packages of three emoji: a cat that all styles have, a dog in four of them,
    a flag; and their names.
    """
    raw.mkdir()
    for number, style in enumerate(drawings.STYLES):
        coded = not style.endswith("v1") and style != "emojione"
        icons = {
            "cat": {"body": BOX.format("f00", 0)},
            "flag": {"body": BOX.format("0f0", 0)},
        }
        if number < 4:
            icons["dog"] = {"body": BOX.format("00f", 16)}
        aliases = {"kitten": {"parent": "cat"}} if style == "noto" else {}
        chars = (
            {
                "1f431": "kitten" if style == "noto" else "cat",
                "1f436": "dog",
                "1f3f3-fe0f": "flag",
            }
            if coded
            else {}
        )
        _package(
            raw / f"@iconify-json+{style}.tgz",
            chars=chars,
            icons={"icons": icons, "aliases": aliases, "width": 32, "height": 32},
        )
    emoji = [
        {
            "label": "cat face",
            "hexcode": "1F431-FE0F",
            "emoji": "🐱",
            "tags": ["cat"],
            "order": 2,
            "group": 3,
            "subgroup": 0,
        },
        {
            "label": "dog face",
            "hexcode": "1F436",
            "emoji": "🐶",
            "tags": ["dog"],
            "order": 1,
            "group": 3,
            "subgroup": 0,
        },
        {
            "label": "flag",
            "hexcode": "1F3F3",
            "emoji": "🏳",
            "tags": [],
            "order": 3,
            "group": 9,
            "subgroup": 1,
        },
        {
            "label": "light skin",
            "hexcode": "1F3FB",
            "emoji": "🏻",
            "tags": [],
            "order": 4,
            "group": 2,
            "subgroup": 0,
        },
        {"label": "regional indicator", "hexcode": "1F1E6", "emoji": "🇦"},
    ]
    messages = {
        "groups": [
            {"order": 3, "message": "animals"},
            {"order": 9, "message": "flags"},
        ],
        "subgroups": [
            {"order": 0, "message": "cat faces", "key": "cat-face"},
            {"order": 1, "message": "countries", "key": "country-flag"},
        ],
    }
    languages = {
        f"{lang}__data": [
            {"hexcode": e["hexcode"], "label": f"{lang} {e['label']}"} for e in emoji
        ]
        for lang in drawings.LANGUAGES
    }
    _package(
        raw / "emojibase-data.tgz", en__data=emoji, en__messages=messages, **languages
    )


def test_emoji_from_small_packages(tmp_path):
    pytest.importorskip("resvg")
    _packages(tmp_path / "raw")
    drawings.make_emoji(tmp_path / "raw", tmp_path)
    d = drawings.read_emoji(tmp_path)
    assert d.labels == ["cat face"] * 7 and d.styles == list(drawings.STYLES), (
        "the dog has four styles only, the flag is a country's"
    )
    left, right = d.images[:, :16, :16], d.images[:, :, 16:]
    assert (
        (left == [255, 0, 0]).all()
        and (right == 255).all()
        and (d.images[:, 16:] == 255).all()
    )
    assert d.concepts["cat face"].names["de"] == ("de cat face",) and d.concepts[
        "cat face"
    ].names["en"] == ("cat face", "cat")
    assert (
        d.part
        == [
            sources.read_split("emoji")
            and next(
                p for p, s in data.class_split("emoji").items() if "cat faces" in s
            )
        ]
        * 7
    )


def test_emoji_needs_its_renderer(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RuntimeError,
        match=r"needs resvg; install it with: pip install 'metalearn_book\[emoji\]'",
    ):
        drawings.make_emoji(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "arrays,message",
    [
        (
            {"X": np.zeros((2, 32, 32), np.uint8)},
            "expected uint8 images .2, 32, 32, 3., got uint8 .2, 32, 32.",
        ),
        ({"X": np.zeros((2, 32, 32, 3))}, "got float64"),
        ({"Z": np.zeros(1)}, "KeyError"),
        (None, "emoji_32x32.npz"),
    ],
)
def test_damaged_emoji(arrays, message, tmp_path):
    (tmp_path / "emoji_names.json.gz").write_bytes(
        gzip.compress(b'{"styles": [], "classes": []}')
    )
    path = tmp_path / "emoji_32x32.npz"
    if arrays is not None:
        np.savez(path, y=np.zeros(2, np.int16), style=np.zeros(2, np.int8), **arrays)
    with pytest.raises((RuntimeError, FileNotFoundError), match=message):
        drawings.read_emoji(tmp_path)


# ------------------------------------------------ files that are made again


@needs_data
def test_hwu64_from_files_by_intent(tmp_path):
    "The files of a fold, in the form that upstream has, give the same bytes again."
    for part in ("train", "test"):
        by_intent = defaultdict(list)
        with (Path(DATA) / f"hwu64/{part}.csv").open(encoding="utf-8", newline="") as f:
            for r in csv.DictReader(f):
                by_intent[f"{r['scenario']}_{r['intent']}"].append(r)
        assert len(by_intent) == 64
        (tmp_path / "raw" / part).mkdir(parents=True)
        for name, rows in by_intent.items():
            with (tmp_path / "raw" / part / f"{name}.csv").open(
                "w", encoding="utf-8", newline=""
            ) as f:
                writer = csv.writer(f, delimiter=";", quoting=csv.QUOTE_ALL)
                writer.writerow([*derived.HWU64_COLUMNS, "answer_from_user"])
                writer.writerows([*r.values(), "As it was said."] for r in rows)
    derived.make_hwu64(tmp_path / "raw", tmp_path)
    for part in ("train", "test"):
        assert (tmp_path / f"{part}.csv").read_bytes() == (
            Path(DATA) / f"hwu64/{part}.csv"
        ).read_bytes()


@needs_data
def test_fewrel_sample_from_task_files(tmp_path):
    """The training sample, written as task files in another order, with doubles and
    held-out rows, gives the same content again.
    """
    folder = Path(DATA) / "fewrel"
    for name in ("pid2name.json", "val_wiki.json.gz"):
        shutil.copy(folder / name, tmp_path)
    wanted = json.loads(
        gzip.decompress((folder / "train_wiki_sample.json.gz").read_bytes())
    )
    wanted = {
        r: items for r, items in wanted.items() if r == "P364" or len(items) < 150
    }  # a part is enough
    held_out = json.loads(gzip.decompress((folder / "val_wiki.json.gz").read_bytes()))
    names = json.loads((folder / "pid2name.json").read_text())
    raw = tmp_path / "raw"
    raw.mkdir()
    relations = [*wanted, *held_out]
    called = [
        "original language of work" if r == "P364" else names[r][0].lower()
        for r in relations
    ]
    (raw / "relation_name.txt").write_text("\n".join(called) + "\n")
    assert "P364" in relations

    def line(relation, item):
        (h, h_id, (h_at, *_)), (t, t_id, (t_at, *_)) = item["h"], item["t"]
        at, to = (" ".join(map(str, places)) for places in (h_at, t_at))
        return "\t".join(
            [
                str(relations.index(relation) + 1),
                "1 2",
                " ".join(item["tokens"]).lower(),
                h,
                at,
                t,
                to,
                h_id,
                t_id,
            ]
        )

    lines = [line(r, item) for r, items in wanted.items() for item in reversed(items)]
    lines += [line(r, items[0]) for r, items in held_out.items()] + lines[::7]
    lines.append(
        line(next(iter(wanted)), next(iter(held_out.values()))[1])
    )  # a held-out sentence under a training relation
    for number in range(2):
        (raw / str(number)).mkdir()
        (raw / str(number) / "train_0.txt").write_text(
            "\n".join(lines[number::2]) + "\n"
        )
    derived.make_fewrel(raw, tmp_path)
    made = json.loads(
        gzip.decompress((tmp_path / "train_wiki_sample.json.gz").read_bytes())
    )
    assert made == wanted and list(made) == list(wanted)


def test_omniglot_from_zip_files(tmp_path):
    "The drawings themselves are compared in test_images.py."
    (tmp_path / "raw").mkdir()
    drawing = io.BytesIO()
    Image.new("1", (105, 105)).save(drawing, "PNG")
    for target in derived.images.ZIPS:
        with zipfile.ZipFile(tmp_path / "raw" / target, "w") as z:
            for i in range(20):
                z.writestr(
                    f"{target[:-4]}/Latin/character01/{i:04}.png", drawing.getvalue()
                )
    derived.make_omniglot(tmp_path / "raw", tmp_path)
    stored, names = derived.images.stored_omniglot(tmp_path / "omniglot_28x28.npz")
    assert stored.shape == (2, 20, 28, 28) and (stored == 255).all()
    assert names == [
        "images_background/Latin/character01",
        "images_evaluation/Latin/character01",
    ]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["omniglot_28x28.npz"]
