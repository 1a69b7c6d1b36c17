"""One contract for every data set and one for every estimator of the package. Both are
found by looking: the sets in the manifest, the estimators among the subclasses of
`Estimator`, so that a new one is in it by itself."""

import copy
import importlib
import inspect
import os
import pickle
import pkgutil
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

import metalearn_book
from metalearn_book import data
from metalearn_book.case_studies.entity_sentiment import entity_mentions, invented_news
from metalearn_book.case_studies.few_shot_tagger import TaggerStart
from metalearn_book.case_studies.relations import MarkerEncoder, as_pairs
from metalearn_book.case_studies.relations import tiny_relations
from metalearn_book.case_studies.sequence_labels import EpisodeSampler
from metalearn_book.case_studies.text_classification import draw_shots
from metalearn_book.data import manifest, sources
from metalearn_book.foundations.encoders import load_encoder, tiny_encoder
from metalearn_book.foundations.estimators import Classifier, Estimator, NotFittedError

DATA = os.environ.get("METALEARN_DATA")
SETS = data.dataset_names()
GENERATED = [n for n in SETS if manifest.MANIFEST[n].files.read is None]
REAL = [n for n in SETS if n not in GENERATED]


# --- every data set ------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few_sets_in_memory():
    yield
    sources._load.cache_clear()


def rows_of(name: str):
    if name in REAL and sources.at_hand(name) is None:
        pytest.skip(f"needs {name}: METALEARN_DATA={DATA} does not have it")
    return sources._load(name, sources._data_folder(name))


def by_part(name: str, whole) -> None:
    "Its parts are all of it, in the same order, each time a copy."
    known = data.load_dataset_by_name(name)
    assert len(known) == sum(not p.startswith("oos_") for p in whole.part)
    for part in dict.fromkeys(whole.part):
        rows = [i for i, p in enumerate(whole.part) if p == part]
        some = data.load_dataset_by_name(name, part=part)
        assert set(some.part) == {part} and len(some) == len(rows)
        first = some._keep(range(len(rows[:5])))
        assert first.digest() == whole._keep(rows[:5]).digest()
    assert known.part is not data.load_dataset_by_name(name).part
    wrong = str(whole.part[0])[:-1] + "x"
    with pytest.raises(ValueError, match=f"unknown part '{wrong}'.*there are"):
        data.load_dataset_by_name(name, part=wrong)
    with pytest.raises(ValueError, match="part must be"):
        data.load_dataset_by_name(name, part=3)


#: ten seconds; its rows are in test_loaders.py
LARGE = ("sgd",)


@pytest.mark.parametrize("name", [n for n in SETS if n not in LARGE])
def test_rows_and_columns_of_a_set(name):
    d, card = rows_of(name), data.describe(name)
    by_part(name, d)
    assert d.name == card.name == name
    assert len(d) == len(d.part) == sum(card.counts.values())
    assert {p: d.part.count(p) for p in card.counts} == card.counts
    for column in d._columns().values():
        lists = column.values() if isinstance(column, dict) else [column]
        assert all(len(values) == len(d) for values in lists)
    some = d._keep(range(0, len(d), max(1, len(d) // 40)))
    same = pickle.loads(pickle.dumps(some))
    assert same.digest() == some.digest() == copy.deepcopy(some).digest()
    assert type(same) is type(d)
    with pytest.raises((AttributeError, TypeError)):  # frozen
        d.name = "other"


@pytest.mark.parametrize("name", SETS)
def test_a_name_with_a_slip_is_answered_with_the_right_one(name):
    for call in (
        data.load_dataset_by_name,
        data.available,
        data.at_hand,
        data.class_split,
        data.describe,
        data.fetch,
    ):
        slip = f"{name[:-1]}_{name[-1]}"
        with pytest.raises(ValueError, match=f"'{slip}'.*did you mean '{name}'"):
            call(slip)


@pytest.mark.parametrize("name", SETS)
def test_the_parts_of_a_split_share_nothing(name):
    try:
        split = data.class_split(name)
    except ValueError as e:
        assert name in str(e) and "no class split" in str(e)
        return
    assert list(split) == ["train", "validation", "test"]
    every = [c for part in split.values() for c in part]
    assert len(every) == len(set(every)) and all(split.values())
    split["train"].clear()
    assert data.class_split(name)["train"]  # a copy, every time


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_set_is_the_same_every_time(name):
    first = data.load_dataset_by_name(name)
    sources._load.cache_clear()
    assert data.load_dataset_by_name(name).digest() == first.digest()
    with pytest.raises(ValueError, match=f"{name} is generated"):
        data.fetch(name)


#: lie in the folder of a set, and are not read
UNREAD = ("ontology.json", "README.md", "LICENSE")


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("how", ["missing", "cut", "empty", "noise"])
def test_a_damaged_file_of_a_set_is_named(name, how, tmp_path, monkeypatch):
    if data.at_hand(name) != "folder":
        pytest.skip(f"needs {name}: METALEARN_DATA={DATA} does not have it")
    entry = manifest.MANIFEST[name]
    have = Path(DATA) / (entry.folder or name)
    files = sorted(p.relative_to(have) for p in have.rglob("*") if p.is_file())
    names = [f for f in files if str(f) in entry.files.names]
    names = names or [f for f in files if f.name not in UNREAD]
    file = random.Random(f"{name} {how}").choice(names)
    folder = tmp_path / (entry.folder or name)
    for f in files:
        (folder / f).parent.mkdir(parents=True, exist_ok=True)
        if f != file:
            (folder / f).symlink_to(have / f)
    content = (have / file).read_bytes()
    if how != "missing":
        new = {"cut": content[: len(content) // 2], "empty": b"", "noise": b"\xff\x00;"}
        (folder / file).write_bytes(new[how])
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    with pytest.raises((FileNotFoundError, RuntimeError)) as found:
        data.load_dataset_by_name(name)
    assert str(folder) in str(found.value), found.value
    if how == "missing":  # of many files only their number may be known
        named = (file.name, "*", "NNN")
        assert any(n in str(found.value) for n in named), found.value


# --- every estimator -----------------------------------------------------------------


def found_estimators() -> dict[str, type]:
    "The classes of the package that can be fitted."
    kinds = {}
    for module in pkgutil.walk_packages(metalearn_book.__path__, "metalearn_book."):
        if module.name == "metalearn_book.cli":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and issubclass(value, Estimator):
                if hasattr(value, "fit"):
                    kinds[name] = value
    return kinds


ESTIMATORS = found_estimators()
OTHER = ["a nice room", "where is my card", "please cancel it", "Rome in May"]
#: what is asked of estimators that read something else than plain texts
OTHER_OF = {
    "RelationExtractor": [
        "<h> Ada </h> hired <t> Bruno </t> .",
        "<t> Acme </t> was sued by <h> Helix </h> .",
        "<h> Lumen </h> bought <t> Quartz </t> .",
    ]
}


def of_classifier():
    d = data.load_dataset_by_name("tiny_intents", part="train")
    d = d.where(classes=d.classes[:3])
    rows = draw_shots(d.labels, 4, 0)
    texts, labels = ([v[i] for i in rows] for v in (d.texts, d.labels))
    return {"encoder": load_encoder("tiny")}, (texts, labels), {"seed": 3}


def of_tagger():
    pool = data.load_dataset_by_name("tiny_entities", part="train")
    episode = EpisodeSampler(pool, 2).sample(2, 2, random.Random(0))
    words, tags = zip(*episode.sentences(pool))
    start = TaggerStart.from_encoder(load_encoder("tiny"))
    settings = {"start": start, "steps": 3, "calibrate": False}
    return settings, (list(words), list(tags)), {"lean": 2.0}


def of_sentiment():
    mentions, labels, _ = entity_mentions(invented_news(24))
    settings = {"encoder": load_encoder("tiny"), "steps": 3, "n_top": 1}
    return settings, (mentions, labels), {"seed": 3}


def of_relations():
    toy = tiny_relations(3)
    some = toy.where(classes=toy.classes[:4])
    encoder = MarkerEncoder(tiny_encoder([p.text for p in as_pairs(toy.texts)]))
    return {"encoder": encoder}, (some.texts, some.labels), {"head": "ridge"}


#: name -> (constructor's arguments, fit's arguments, another setting)
FACTORIES = {
    "FewShotClassifier": of_classifier,
    "FewShotTagger": of_tagger,
    "EntitySentiment": of_sentiment,
    "RelationExtractor": of_relations,
}
MADE = {}


@pytest.fixture(params=sorted(ESTIMATORS))
def case(request):
    "Class, settings, examples, another setting, and one that was fitted."
    name = request.param
    assert name in FACTORIES, f"add a small {name} to FACTORIES in {__file__}"
    if name not in MADE:
        settings, examples, other = FACTORIES[name]()
        fitted = quietly(ESTIMATORS[name](**settings).fit, *examples)
        MADE[name] = ESTIMATORS[name], settings, examples, other, fitted
    return MADE[name]


def quietly(call, *given, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*given, **named)


def answers(estimator):
    asked = OTHER_OF.get(type(estimator).__name__, OTHER)
    found = quietly(estimator.predict, asked)
    more = getattr(estimator, "predict_proba", None)
    numbers = more(asked) if more else [[e.score for e in row] for row in found]
    return list(map(repr, found)), [np.asarray(row).tolist() for row in numbers]


def methods(kind: type) -> list[str]:
    "What can be asked of a fitted one."
    every = ("predict", "predict_proba", "predict_log_proba", "decision_function",
             "score", "reject", "scope_score", "find")  # fmt: skip
    return [n for n in every if hasattr(kind, n)]


def test_every_estimator_is_here():
    assert {"FewShotClassifier", "FewShotTagger"} <= set(ESTIMATORS)
    assert set(FACTORIES) == set(ESTIMATORS)


def test_parameters_are_those_of_the_constructor(case):
    kind, settings, _, other, _ = case
    one = kind(**settings)
    names = list(inspect.signature(kind).parameters)
    assert list(one.get_params()) == names == list(one.get_params(deep=False))
    for name, value in settings.items():
        assert one.get_params()[name] is value  # untouched
    assert one.set_params(**other) is one
    assert one.get_params() == kind(**settings, **other).get_params()
    with pytest.raises(ValueError, match="no parameter 'rate'"):
        one.set_params(rate=1, **settings)
    assert one.get_params() == kind(**settings, **other).get_params()
    (name, value), *_ = other.items()
    assert f"{name}={value!r}" in repr(one) and repr(one).startswith(kind.__name__)
    assert name not in repr(kind(**settings))


def test_a_clone_is_not_fitted(case):
    clone = pytest.importorskip("sklearn.base").clone
    kind, _, examples, _, fitted = case
    new = clone(fitted, safe=False)
    assert new is not fitted and repr(new) == repr(fitted)
    with pytest.raises(NotFittedError):
        new.predict(OTHER)


def test_nothing_is_answered_before_fit(case):
    kind, settings, examples, _, _ = case
    for name in methods(kind):
        given = {"score": examples, "find": ([["a"]],)}.get(name, (OTHER,))
        with pytest.raises(NotFittedError, match="fit"):
            getattr(kind(**settings), name)(*given)
    with pytest.raises(NotFittedError, match="fit"):
        kind(**settings).save("/nowhere/at/all")


def test_fit_returns_itself_and_leaves_its_input_alone(case):
    kind, settings, examples, _, _ = case
    before = copy.deepcopy(examples)
    new = kind(**settings)
    assert quietly(new.fit, *examples) is new and examples == before
    assert answers(new) == answers(new)


def test_the_same_seed_gives_the_same_answers(case):
    kind, settings, examples, _, fitted = case
    random.seed(5), np.random.seed(5)
    again = quietly(kind(**settings).fit, *examples)
    assert answers(again) == answers(fitted)


def test_a_second_fit_forgets_the_first(case):
    kind, settings, examples, _, fitted = case
    other = tuple(column[:8] for column in examples)
    new = quietly(kind(**settings).fit, *other)
    attributes = set(vars(quietly(new.fit, *examples)))
    assert answers(new) == answers(fitted) and attributes == set(vars(fitted))


def test_a_fit_that_fails_changes_nothing(case):
    _, _, examples, _, fitted = case
    before, state = answers(fitted), dict(vars(fitted))
    with pytest.raises(ValueError):
        quietly(fitted.fit, examples[0], examples[1][:-1])
    assert answers(fitted) == before and set(vars(fitted)) == set(state)


@pytest.mark.parametrize("how", ["pickle", "copy", "save"])
def test_a_copy_answers_alike(case, how, tmp_path):
    kind, _, examples, _, fitted = case
    if how == "pickle":
        new = pickle.loads(pickle.dumps(fitted))
    elif how == "copy":
        new = copy.deepcopy(fitted)
    else:
        fitted.save(tmp_path / "m")
        new = kind.load(tmp_path / "m")
        fitted.save(tmp_path / "m")  # over itself
        assert answers(kind.load(tmp_path / "m")) == answers(fitted)
    assert answers(new) == answers(fitted)
    assert quietly(new.score, *examples) == quietly(fitted.score, *examples)
    if how != "save":
        quietly(new.fit, *examples)  # and goes on by itself
        assert answers(new) == answers(fitted)


BAD_TEXTS = {
    "a text alone": "hello",
    "None": None,
    "a number": 3,
    "numbers": [1, 2],
    "None in it": ["a", None],
    "bytes": [b"a"],
    "a set": {"a", "b"},
    "two columns": [["a", "b"]],
    "not a number": [float("nan")],
    "half a character": ["a \ud800"],
    "a dictionary": {"text": ["a"]},
    "a matrix": np.array([["a", "b"]]),
}


@pytest.mark.parametrize("what", BAD_TEXTS)
def test_texts_that_are_none_are_refused(case, what):
    kind, _, examples, _, fitted = case
    names = [n for n in methods(kind) if n not in ("score", "find")]
    if what == "half a character" and not issubclass(kind, Classifier):
        assert quietly(fitted.predict, BAD_TEXTS[what]) == [[]]  # it is no word
        return
    for name in names:
        with pytest.raises(ValueError) as found:
            quietly(getattr(fitted, name), BAD_TEXTS[what])
        assert len(str(found.value)) > 15
    with pytest.raises(ValueError):
        quietly(fitted.fit, BAD_TEXTS[what], examples[1])


@pytest.mark.parametrize(
    "labels", [None, 3, [], "abc", ["a"], [None] * 12, [{}] * 12, [1.5] * 12, {"a": 1}]
)
def test_labels_that_are_none_are_refused(case, labels):
    kind, settings, examples, _, fitted = case
    if labels is None and not issubclass(kind, Classifier):
        labels = [None] * len(examples[0])
    before = answers(fitted)
    for call in (fitted.fit, fitted.score):
        with pytest.raises(ValueError) as found:
            quietly(call, examples[0], labels)
        assert len(str(found.value)) > 15
    assert answers(fitted) == before


def test_no_texts_are_no_answers(case):
    _, _, examples, _, fitted = case
    try:
        assert len(fitted.predict([])) == 0
    except ValueError as e:
        assert any(what in str(e) for what in ("text", "pairs"))


@pytest.mark.parametrize("where", [None, 3, "", "a\0b", b"m", [], "no/such/folder"])
def test_a_folder_that_is_none(case, where, tmp_path, monkeypatch):
    kind, _, _, _, fitted = case
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, RuntimeError)) as found:
        kind.load(where)
    assert "metalearn_book" in str(found.traceback[-1].path)
