"""Properties of the chapter on estimators: parameters, fitted state, labels, tags."""

import enum
import pickle
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalearn_book.foundations.estimators import Classifier, Estimator, NotFittedError
from metalearn_book.foundations.estimators import class_array, example_weights
from metalearn_book.foundations.estimators import label_numbers, own_modes, text_column
from metalearn_book.foundations.estimators import usable_device

sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn")


class Constant(Classifier):
    "Answers with the first class."

    def __init__(self, seed=0, table=None):
        self.seed, self.table = seed, table

    def fit(self, texts, labels):
        self.numbers_ = label_numbers(labels, len(texts))[1]
        if self.seed < 0:
            raise ValueError("seed must be 0 or more")
        self.classes_ = label_numbers(labels, len(texts))[0]
        return self

    def predict(self, texts):
        self.check_fitted()
        return np.repeat(self.classes_[:1], len(texts))


class Kept(Estimator):
    "An estimator that is no classifier, has no parameters, and can be loaded."

    _found_last = "mean_"

    def fit(self, values):
        self.mean_ = sum(values) / len(values)
        return self

    def load(self):
        return self


def test_parameters_come_from_the_signature():
    table = np.zeros(3)
    model = Constant(table=table)
    assert model.get_params() == {"seed": 0, "table": table} == vars(model)
    assert model.get_params()["table"] is table
    assert model.set_params(seed=2, table=None) is model and model.seed == 2


def test_a_wrong_parameter_changes_nothing_and_names_the_right_ones():
    model = Constant()
    with pytest.raises(ValueError, match="no parameter 'depth'; it has seed, table"):
        model.set_params(seed=5, depth=1)
    assert model.seed == 0


def test_repr_is_the_call_without_defaults():
    assert repr(Constant()) == "Constant()"
    assert repr(Constant(seed=3)) == "Constant(seed=3)"
    assert repr(Constant(table=[1])) == "Constant(table='<list>')"


def test_not_fitted_until_fit_has_come_to_its_end():
    model = Constant(seed=-1)
    with pytest.raises(ValueError, match="0 or more"):
        model.fit(["a", "b"], ["x", "y"])
    assert model.numbers_.tolist() == [0, 1] and not model.__sklearn_is_fitted__()
    with pytest.raises(NotFittedError, match=r"call fit\(texts, labels\) first$"):
        model.predict(["a"])
    assert list(model.set_params(seed=0).fit(["a", "b"], ["x", "y"]).predict("a")) == [
        "x"
    ]


def test_another_attribute_may_be_the_last():
    with pytest.raises(
        NotFittedError, match=r"fit\(values\) first, or load a saved one"
    ):
        Kept().check_fitted()
    assert Kept().fit([1, 3]).check_fitted() is None and repr(Kept()) == "Kept()"


@pytest.mark.parametrize("kind", [ValueError, AttributeError])
def test_the_error_is_of_both_kinds(kind):
    with pytest.raises(kind):
        Constant().predict(["a"])


@pytest.mark.parametrize(
    "labels, n, message",
    [
        (["a"], 2, "2 examples but 1 labels"),
        (["a", 1], 2, "got int, str"),
        (["a", None], 2, "remove rows without a label"),
        ([1.0, 2.0], 2, "got float"),
        ([True, 1], 2, "got bool, int"),
        (["a", "a", "a"], 3, "all 3 labels are 'a'"),
        ([0.0, 1.0], 2, r"labels.astype\(int\)"),
        ([0, float("nan")], 2, r"labels\[1\] is missing"),
        ([["a"], ["b"]], 2, "fit one classifier for each"),
        ("ab", 2, "got a str"),
        ({"a": 1, "b": 2}, 2, "is a table with the columns"),
        (np.eye(2), 2, r"the shape \(2, 2\)"),
        (["a", "b\ud800"], 2, "half of a character"),
    ],
)
def test_labels_that_cannot_be_used(labels, n, message):
    with pytest.raises(ValueError, match=message):
        label_numbers(labels, n)


@given(
    st.one_of(
        st.lists(st.integers(), min_size=2, unique=True),
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True),
    )
)
def test_an_array_of_classes_gives_back_what_it_was_given(classes):
    assert class_array(classes).tolist() == classes


def test_a_column_of_texts():
    assert text_column(np.array(["play", "stop"])) == ["play", "stop"]
    assert type(text_column([np.str_("a")])[0]) is str
    word = enum.Enum("Word", {"A": "a"}, type=str)  # str(word.A) is "Word.A"
    assert text_column([word.A]) == ["a"] and type(text_column([word.A])[0]) is str
    assert text_column(["play", " \u200b"], blank=True) == ["play", " \u200b"]
    for texts, message in (
        (["play", "\u200b"], r"texts\[1\] is empty"),
        (["play", None], r"texts\[1\] is a NoneType"),
        ([], "texts is empty"),
        ("play", "must be a list of strings"),
        ({"play"}, "in their order"),
        (iter(()), "texts is empty"),
        (torch.zeros(2, 2), r"the shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            text_column(texts)


def test_weights():
    assert example_weights(None, 2).tolist() == [1, 1]
    assert example_weights(2, 2).tolist() == [2, 2]
    assert example_weights(np.array([1, 0]), 2).dtype == torch.float32
    assert example_weights([1e-60, 1], 2).tolist() == [0, 1]  # as float32 has them
    infinite = [1, float("inf")], [1, 1e39]
    for wrong in ([1], [1, -1], [0, 0], *infinite, ["a", "b"], {"a": 1}):
        with pytest.raises(ValueError, match="sample_weight"):
            example_weights(wrong, 2)


def test_inside_there_is_no_mode_of_the_outside():
    weight = torch.ones(4, 4, requires_grad=True)
    outside = torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)
    with outside[0], outside[1], torch.device("meta"):
        with own_modes():
            value = (torch.ones(4) @ weight).sum()
            assert value.dtype == torch.float32 and value.device.type == "cpu"
            value.backward()
        assert torch.is_inference_mode_enabled() and torch.ones(1).is_meta
    assert usable_device(None) is None and usable_device("cpu").type == "cpu"
    for wrong in ("meta", "nowhere", 1.5, "cuda:99"):
        with pytest.raises(ValueError, match="device="):
            usable_device(wrong)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=30))
def test_numbers_lead_back_to_the_labels(labels):
    if len(set(labels)) < 2:
        return
    for given_ in (labels, np.array(labels)):
        classes, y = label_numbers(given_, len(labels))
        assert classes.tolist() == sorted(set(labels))
        assert classes[y.numpy()].tolist() == labels


def test_fitted_state_survives_pickle():
    model = pickle.loads(pickle.dumps(Constant().fit(["a", "b"], [2, 1])))
    assert model.__sklearn_is_fitted__() and model.predict(["a"]).tolist() == [1]


@sklearn
def test_tags_clone_and_the_checks_of_scikit_learn():
    from sklearn.base import clone, is_classifier
    from sklearn.utils import estimator_checks, get_tags

    class OfVectors(Constant):
        _takes_texts = False

    tags = [get_tags(c()).input_tags for c in (Constant, OfVectors)]
    assert [t.string for t in tags] == [True, False]
    assert [t.one_d_array for t in tags] == [True, False]
    assert [t.two_d_array for t in tags] == [False, True]
    copied = clone(Constant(seed=4).fit(["a", "b"], ["x", "y"]))
    assert is_classifier(copied) and copied.seed == 4
    assert not copied.__sklearn_is_fitted__()
    for name in ("estimator_cloneable", "estimator_repr", "get_params_invariance"):
        getattr(estimator_checks, f"check_{name}")("Constant", Constant())


@sklearn
def test_the_error_is_caught_where_scikit_learns_is():
    from sklearn.exceptions import NotFittedError as Theirs

    assert NotFittedError.__mro__[1:3] == Theirs.__mro__[1:3]
