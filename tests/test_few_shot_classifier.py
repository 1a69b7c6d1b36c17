"""Properties of the chapter "A classifier to ship" that it does not have to show:
windows, and the classifier with bad input, on disk and under scikit-learn."""

import copy
import functools
import json
import pickle
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from shared import few_intents, gen

from metalearn_book.case_studies.calibration import best_penalty
from metalearn_book.case_studies.few_shot_classifier import FewShotClassifier
from metalearn_book.case_studies.few_shot_classifier import embed_texts, text_windows
from metalearn_book.case_studies.text_classification import PENALTIES, fit_head
from metalearn_book.data.files import checksum
from metalearn_book.foundations.encoders import fingerprint, load_encoder
from metalearn_book.foundations.estimators import NotFittedError

sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn")


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def few():
    return few_intents()


@pytest.fixture(scope="module")
def fitted(tiny, few):
    return FewShotClassifier(tiny).fit(few.texts, few.labels)


def test_no_token_of_a_long_text_is_lost(tiny):
    words = " ".join(f"word{i}" for i in range(300))
    windows, owner, size = text_windows(tiny, ["hello", words])
    inside = [t for w, o in zip(windows, owner) if o == 1 for t in w[1:-1]]
    assert (
        inside
        == tiny.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    )
    assert max(map(len, windows)) <= tiny.max_length and owner.count(1) > 2


def test_vectors_do_not_depend_on_what_is_embedded_with_them(tiny, few):
    texts = [
        *few.texts[:5],
        " ".join(few.texts * 8),
        "\u200b",
        "🙂🙃",
        "你好，世界 hello",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is cut, so nothing is warned of
        together = embed_texts(tiny, texts, at_once=4)
    alone = torch.cat([embed_texts(tiny, [t]) for t in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.isfinite().all()


@pytest.mark.parametrize("head", ["logistic", "prototype", "ridge"])
def test_fit_and_predict(tiny, few, head):
    model = FewShotClassifier(tiny, head=head)
    assert model.fit(few.texts, few.labels) is model
    assert list(model.classes_) == sorted(set(few.labels))
    p = model.predict_proba(few.texts)
    assert p.shape == (24, 4) and np.allclose(p.sum(1), 1)
    assert (model.classes_[p.argmax(1)] == model.predict(few.texts)).all()
    assert model.score(few.texts, few.labels) > 0.5


def test_labels_may_be_numbers_and_come_back_as_numbers(tiny, few):
    y = [10 * few.classes.index(v) for v in few.labels]
    model = FewShotClassifier(tiny).fit(np.array(few.texts), np.array(y))
    assert (
        model.classes_.dtype.kind == "i"
        and model.predict(few.texts[:2]).dtype.kind == "i"
    )


def test_order_of_the_examples_does_not_matter(tiny, few):
    order = torch.randperm(len(few), generator=gen(2)).tolist()
    a = FewShotClassifier(tiny, head="prototype").fit(few.texts, few.labels)
    b = FewShotClassifier(tiny, head="prototype").fit(
        [few.texts[i] for i in order], [few.labels[i] for i in order]
    )
    np.testing.assert_allclose(
        a.predict_proba(few.texts), b.predict_proba(few.texts), atol=1e-5
    )


@pytest.mark.parametrize("tune", ["contrastive", "softmax"])
def test_tuning_changes_a_copy(tiny, few, tmp_path, tune):
    before = fingerprint(tiny)
    model = FewShotClassifier(tiny, tune=tune, steps=2).fit(few.texts, few.labels)
    assert fingerprint(tiny) == before != fingerprint(model.encoder_)
    again = FewShotClassifier.load(model.save(tmp_path / "tuned"))  # with its encoder
    np.testing.assert_allclose(
        again.predict_proba(few.texts), model.predict_proba(few.texts), atol=1e-6
    )
    with pytest.raises(ValueError, match="two texts of one class"):
        model.fit(["play music", "set alarm"], ["a", "b"])


def test_reject_puts_a_label_where_no_class_fits(fitted, few):
    far = ["zzz qqq xxx 42", "?!", "🙂"]
    assert fitted.reject(few.texts).mean() < 0.3
    labels = fitted.predict(few.texts + far, reject="none")
    assert (labels == "none").tolist() == fitted.reject(few.texts + far).tolist()
    assert set(fitted.predict(few.texts + far)) <= set(few.labels)


def test_a_threshold_from_texts_out_of_scope(tiny, few):
    model = FewShotClassifier(tiny).fit(few.texts[::2], few.labels[::2])
    before = model.threshold_
    assert (
        model.set_threshold(few.texts[1::2], ["zzz qqq", "1 2 3 4"]) is model
        and model.threshold_ != before
    )


@pytest.mark.parametrize(
    "texts, labels, message",
    [
        ([], [], "texts is empty"),
        (["a", " \n"], ["x", "y"], "empty or only white space"),
        ("abc", ["x", "y", "z"], "must be a list of strings"),
        (["a", None], ["x", "y"], "is a NoneType"),
        (["a", "b"], ["x"], "2 examples but 1 labels"),
        (["a", "b"], ["x", "x"], "at least two classes"),
        (["a", "b"], ["x", 3], "all strings or all whole numbers"),
        (["a", "b"], ["x", None], "all strings or all whole numbers"),
        (["a", "b"], [1.5, 2.5], "all strings or all whole numbers"),
    ],
)
def test_what_cannot_be_fitted_says_why(tiny, texts, labels, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(tiny).fit(texts, labels)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"head": "tree"}, "must be one of"),
        ({"tune": "yes"}, "one of 'none', 'contrastive'"),
        ({"reject_share": 0.0}, "reject_share must be a finite number above 0"),
        ({"encoder": "nowhere"}, "no encoder is called"),
        ({"penalty": 0}, "penalty must be a finite number above 0"),
        ({"penalty": 1e30}, r"penalty must be .* at most 1e\+12"),
        ({"prompt": "\ud800"}, "prompt holds"),
        ({"penalty": "auto"}, "or 'left-out'"),
        ({"penalty": "left-out", "head": "prototype"}, "None for 'prototype'"),
        ({"penalty": 1.0, "head": "prototype"}, "None for class means"),
        ({"penalty": "left-out", "tune": "softmax"}, "the encoder has not seen"),
    ],
)
def test_wrong_options_are_found_by_fit(tiny, few, options, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(**{"encoder": tiny} | options).fit(few.texts, few.labels)


def test_asking_before_fitting(tiny):
    for ask in (
        "predict",
        "predict_proba",
        "reject",
        "scope_score",
        "decision_function",
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(FewShotClassifier(tiny), ask)(["a"])


def test_one_shot_has_no_threshold_and_says_so(tiny):
    model = FewShotClassifier(tiny).fit(["play music", "set alarm"], ["a", "b"])
    assert model.threshold_ is None and list(model.predict(["play music"])) == ["a"]
    with pytest.raises(ValueError, match="there is no threshold"):
        model.predict(["play"], reject="none")


def test_unseen_labels_count_as_wrong_with_a_warning(fitted, few):
    with pytest.warns(UserWarning, match="were not seen by fit"):
        assert fitted.score(few.texts[:2], ["new", "new"]) == 0.0
    with pytest.raises(ValueError, match="2 examples but 1 labels"):
        fitted.score(few.texts[:2], few.labels[:1])


@pytest.mark.parametrize(
    "text",
    [
        "🙂" * 50,
        "请帮我取消明天的会议",
        "مرحبا play müzik 音乐 🎵",
        "a",
        "\u200b\u200b",
        "!" * 3000,
    ],
)
def test_odd_texts_get_an_answer(fitted, text):
    p = fitted.predict_proba([text])
    assert np.isfinite(p).all() and p.shape == (1, 4)


def test_the_end_of_a_long_text_counts(fitted, few):
    long = " ".join(few.texts * 10)
    assert (
        abs(
            fitted.decision_function([long])
            - fitted.decision_function([long + " " + few.texts[0] * 20])
        ).max()
        > 1e-5
    )


def test_ten_thousand_texts_at_once(fitted, few):
    many = (few.texts * 420)[:10_000]
    answers = fitted.predict(many)
    assert len(answers) == 10_000 and (answers[:24] == answers[24:48]).all()


def test_saved_and_loaded_it_answers_alike(fitted, few, tmp_path):
    model = FewShotClassifier.load(fitted.save(tmp_path / "bot"))
    np.testing.assert_array_equal(
        model.predict_proba(few.texts), fitted.predict_proba(few.texts)
    )
    assert model.threshold_ == fitted.threshold_ and list(model.classes_) == list(
        fitted.classes_
    )
    assert (model.reject(few.texts) == fitted.reject(few.texts)).all()
    again = FewShotClassifier.load(model.save(tmp_path / "bot"))  # over itself
    np.testing.assert_array_equal(again.predict(few.texts), fitted.predict(few.texts))


def test_an_encoder_known_by_name_is_not_stored_but_checked(few, tmp_path):
    model = FewShotClassifier("tiny").fit(few.texts, few.labels)
    folder = model.save(tmp_path / "bot")
    assert not (folder / "encoder").exists()
    assert FewShotClassifier.load(folder).encoder == "tiny"
    np.testing.assert_array_equal(
        FewShotClassifier.load(folder).predict(few.texts), model.predict(few.texts)
    )


@pytest.mark.parametrize(
    "file",
    [
        "head.safetensors",
        "classifier.json",
        "encoder/model.safetensors",
        "encoder/tokenizer.json",
    ],
)
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_model_is_noticed(fitted, tmp_path, file, how):
    path = fitted.save(tmp_path / "bot") / file
    if how == "remove":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        if how == "flip":
            place = len(content) // 2
            content[place] ^= 1
        path.write_bytes(content if how == "flip" else content[: len(content) // 2])
    with pytest.raises(
        (RuntimeError, FileNotFoundError), match="damaged|classifier.json"
    ):
        FewShotClassifier.load(tmp_path / "bot")


def test_where_nothing_or_something_else_is(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no classifier.json"):
        FewShotClassifier.load(tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="is not a saved classifier"):
        fitted.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    with pytest.raises(NotFittedError):
        FewShotClassifier().save(tmp_path / "new")


def test_a_model_of_another_format_is_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "bot") / "classifier.json"
    about = json.loads(path.read_text())
    about.pop("checksum")
    about["format"] = 2
    path.write_text(json.dumps(about | {"checksum": checksum(about)}))
    with pytest.raises(RuntimeError, match="format 2"):
        FewShotClassifier.load(tmp_path / "bot")


def test_parameters_are_stored_untouched():
    model = FewShotClassifier(head="ridge", seed=4)
    assert model.get_params() == {
        "encoder": "minilm",
        "head": "ridge",
        "tune": "none",
        "steps": None,
        "reject_share": 0.05,
        "seed": 4,
        "batch_size": 32,
        "device": None,
        "prompt": "",
        "on_empty": "reject",
        "start": None,
        "penalty": None,
    }
    assert (
        vars(model) == model.get_params()
        and model.set_params(seed=5) is model
        and model.seed == 5
    )
    with pytest.raises(ValueError, match="no parameter 'depth'"):
        model.set_params(depth=1)


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_the_penalty_is_given_or_chosen_and_kept(tiny, few, head, tmp_path):
    plain = FewShotClassifier(tiny, head).fit(few.texts, few.labels)
    fixed = PENALTIES[head]
    assert plain.penalty_ == fixed
    named = FewShotClassifier(tiny, head, penalty=fixed).fit(few.texts, few.labels)
    torch.testing.assert_close(named.weight_, plain.weight_, rtol=0, atol=0)
    other = FewShotClassifier(tiny, head, penalty=5).fit(few.texts, few.labels)
    assert other.penalty_ == 5.0 and other.weight_.norm() < plain.weight_.norm()
    chosen = FewShotClassifier(tiny, head, penalty="left-out")
    chosen.fit(few.texts, few.labels)
    z, y = plain.vectors_, plain.numbers_
    assert chosen.penalty_ == best_penalty(z, y, head)
    expected, _ = fit_head(z, y, len(few.classes), head, penalty=chosen.penalty_)
    torch.testing.assert_close(chosen.weight_, expected)
    again = FewShotClassifier.load(chosen.save(tmp_path / "bot"))
    assert again.penalty_ == chosen.penalty_ and again.penalty == "left-out"
    more = again.partial_fit(["one more of them"], [few.labels[0]])
    assert more.penalty_ == best_penalty(more.vectors_, more.numbers_, head)
    assert FewShotClassifier(tiny, "prototype").fit(few.texts, few.labels).penalty_ is (
        None
    )


def test_it_can_be_pickled(few):
    model = FewShotClassifier("tiny").fit(few.texts, few.labels)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict(few.texts), model.predict(few.texts)
    )


@sklearn
def test_clone_pipeline_cross_validation_and_grid_search(few):
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = FewShotClassifier("tiny", head="prototype")
    assert is_classifier(model) and clone(model).get_params() == model.get_params()
    assert cross_val_score(model, few.texts, few.labels, cv=3).shape == (3,)
    lower = Pipeline(
        [
            ("lower", FunctionTransformer(lambda texts: [t.lower() for t in texts])),
            ("classify", model),
        ]
    )
    assert lower.fit(few.texts, few.labels).predict(few.texts).shape == (24,)
    search = GridSearchCV(
        model, {"head": ["prototype", "ridge", "logistic"]}, cv=2
    ).fit(few.texts, few.labels)
    assert (
        search.best_params_["head"] in ("prototype", "ridge", "logistic")
        and len(search.predict(few.texts[:3])) == 3
    )


@sklearn
@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_parameters_default_constructible",
        "check_do_not_raise_errors_in_init_or_set_param",
        "check_valid_tag_types",
        "check_estimator_tags_renamed",
    ],
)
def test_the_estimator_checks_that_make_sense_for_text(check):
    from sklearn.utils import estimator_checks

    if not hasattr(estimator_checks, check):
        pytest.skip(f"this scikit-learn has no {check}")
    getattr(estimator_checks, check)("FewShotClassifier", FewShotClassifier("tiny"))


def test_a_saved_folder_loses_nothing(fitted, tmp_path, monkeypatch):
    "A stranger's file, a link, the folder where we are, a disk that is full."
    folder = fitted.save(tmp_path / "bot")
    (folder / "my_notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="holds my_notes.txt"):
        fitted.save(folder)
    assert (folder / "my_notes.txt").read_text() == "keep me"
    (folder / "my_notes.txt").unlink()
    (tmp_path / "latest").symlink_to("bot", target_is_directory=True)
    fitted.save(tmp_path / "latest")
    monkeypatch.chdir(folder)
    fitted.save(".")
    assert (tmp_path / "latest").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bot", "latest"]

    def full(*a, **k):
        raise OSError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="disk is full while writing .*bot"):
        fitted.save(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bot", "latest"]
    assert FewShotClassifier.load(folder).classes_.tolist() == fitted.classes_.tolist()


# --- scikit-learn's contract


def of(few, *classes):
    "Texts and labels of some of the classes."
    some = [
        i for i, v in enumerate(few.labels) if v in [few.classes[c] for c in classes]
    ]
    return [few.texts[i] for i in some], [few.labels[i] for i in some]


def proba(model, few):
    return model.predict_proba(few.texts)


def test_two_classes_have_one_decision_value(tiny, few):
    texts, labels = of(few, 0, 1)
    model = FewShotClassifier(tiny).fit(texts, labels)
    value, p = model.decision_function(texts), model.predict_proba(texts)
    assert value.shape == (12,)
    np.testing.assert_allclose(1 / (1 + np.exp(-value)), p[:, 1], atol=1e-9)
    assert (model.predict(texts) == model.classes_[(value > 0).astype(int)]).all()


@sklearn
def test_the_tools_that_need_one_decision_value(tiny, few):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import cross_val_score
    from sklearn.multiclass import OneVsRestClassifier

    texts, labels = of(few, 0, 1)
    model = FewShotClassifier(tiny)
    auc = cross_val_score(model, texts, labels, cv=2, scoring="roc_auc")
    assert np.isfinite(auc).all()
    several = np.array([[v == c for c in few.classes] for v in few.labels]).astype(int)
    several[::5, 0] = 1
    found = OneVsRestClassifier(model).fit(few.texts, several).predict(few.texts)
    assert found.shape == (24, 4) and set(np.unique(found)) <= {0, 1}
    assert (found == several).mean() > 0.8
    p = CalibratedClassifierCV(model, cv=2).fit(texts, labels).predict_proba(texts)
    assert p.shape == (12, 2) and np.allclose(p.sum(1), 1)


@pytest.mark.parametrize("head", ["logistic", "prototype", "ridge"])
def test_a_weight_of_two_is_two_examples_and_of_zero_none(tiny, few, head):
    weight = np.ones(24)
    weight[[1, 8]], weight[20] = 2, 0
    ours = FewShotClassifier(tiny, head=head).fit(few.texts, few.labels, weight)
    rows = [*[i for i in range(24) if i != 20], 1, 8]
    theirs = FewShotClassifier(tiny, head=head).fit(
        [few.texts[i] for i in rows], [few.labels[i] for i in rows]
    )
    np.testing.assert_allclose(proba(ours, few), proba(theirs, few), atol=1e-4)
    assert ours.threshold_ == pytest.approx(theirs.threshold_, abs=1e-5)
    assert ours.temperature_ == pytest.approx(theirs.temperature_, rel=1e-3)
    plain = FewShotClassifier(tiny, head=head).fit(few.texts, few.labels)
    assert np.abs(proba(plain, few) - proba(ours, few)).max() > 1e-3
    assert plain.score(few.texts, ["x"] * 6 + few.labels[6:], weight) < 1


@pytest.mark.parametrize(
    "weight", [[1.0], [-1] * 24, [float("nan")] * 24, [0] * 24, ["a"] * 24, np.eye(24)]
)
def test_weights_that_are_none(tiny, few, weight):
    with pytest.raises(ValueError, match="sample_weight"):
        FewShotClassifier(tiny).fit(few.texts, few.labels, weight)


@pytest.mark.parametrize("head", ["logistic", "prototype", "ridge"])
def test_partial_fit_is_a_fit_on_all(tiny, few, head):
    whole = FewShotClassifier(tiny, head=head).fit(few.texts, few.labels)
    parts = FewShotClassifier(tiny, head=head)
    known = sorted({*few.labels})
    for texts, labels in (of(few, 0, 3), of(few, 2), of(few, 1, 2)):
        assert parts.partial_fit(texts, labels, classes=known) is parts
    # class 2 came twice
    texts, labels = of(few, 2)
    whole.fit(few.texts + texts, few.labels + labels)
    np.testing.assert_allclose(proba(parts, few), proba(whole, few), atol=1e-4)
    assert list(parts.classes_) == known
    assert parts.threshold_ == pytest.approx(whole.threshold_, abs=1e-5)
    assert parts.partial_fit(texts, labels, classes=(c for c in known)) is parts
    for classes, message in ((3, "classes must be a list"), ([-1], "is not one of")):
        with pytest.raises(ValueError, match=message):
            parts.partial_fit(texts, labels, classes=classes)


def test_partial_fit_encodes_new_texts_only_and_keeps_what_was_tuned(
    tiny, few, monkeypatch
):
    from metalearn_book.case_studies import few_shot_classifier as module

    model = FewShotClassifier(tiny, tune="softmax", steps=1).fit(*of(few, 0, 1, 2))
    encoder, kept = model.encoder_, (model.temperature_, model.threshold_)
    seen = []
    embed = module.embed_texts
    monkeypatch.setattr(
        module, "embed_texts", lambda e, t, *a: seen.append(list(t)) or embed(e, t, *a)
    )
    model.partial_fit(*of(few, 3))
    assert [sorted(t) for t in seen] == [sorted(of(few, 3)[0])]
    assert model.encoder_ is encoder
    assert (model.temperature_, model.threshold_) == kept and len(model.classes_) == 4
    with pytest.raises(ValueError, match="all strings or all whole numbers"):
        model.partial_fit(["x y"], [3])
    with pytest.raises(ValueError, match="is not one of classes"):
        model.partial_fit(["x y"], ["new"], classes=["old"])
    assert len(model.classes_) == 4


def test_a_given_threshold_stays_until_the_next_fit(tiny, few):
    model = FewShotClassifier(tiny).fit(*of(few, 0, 1))
    found = model.threshold_
    given = model.set_threshold(few.texts, ["zzz qqq"]).threshold_
    assert model.partial_fit(*of(few, 2)).threshold_ == given != found
    assert model.fit(*of(few, 0, 1)).threshold_ == found


def test_logarithms_of_probabilities(fitted, few):
    log_p = fitted.predict_log_proba(few.texts)
    np.testing.assert_allclose(np.exp(log_p), proba(fitted, few), atol=1e-12)
    far = copy.copy(fitted)
    far.temperature_ = 1e-6
    assert np.isfinite(far.predict_log_proba(few.texts)).all()


@pytest.mark.parametrize(
    "options, texts, labels",
    [
        ({"head": "tree"}, ["a", "b"], ["x", "y"]),
        ({"head": ["ridge"]}, ["a", "b"], ["x", "y"]),
        ({"tune": "softmax", "steps": 0}, ["a", "b"], ["x", "y"]),
        ({"steps": -3}, ["a", "b"], ["x", "y"]),
        ({"steps": 2.5}, ["a", "b"], ["x", "y"]),
        ({"steps": True}, ["a", "b"], ["x", "y"]),
        ({"batch_size": 0}, ["a", "b"], ["x", "y"]),
        ({"seed": -1}, ["a", "b"], ["x", "y"]),
        ({"seed": None}, ["a", "b"], ["x", "y"]),
        ({"reject_share": "a"}, ["a", "b"], ["x", "y"]),
        ({"reject_share": float("nan")}, ["a", "b"], ["x", "y"]),
        ({"device": "nowhere"}, ["a", "b"], ["x", "y"]),
        ({"device": "meta"}, ["a", "b"], ["x", "y"]),
        ({"prompt": None}, ["a", "b"], ["x", "y"]),
        ({"on_empty": ""}, ["a", "b"], ["x", "y"]),
        ({"encoder": None}, ["a", "b"], ["x", "y"]),
        ({"tune": "contrastive"}, ["a", "b"], ["x", "y"]),
        ({}, ["a", "\u200b"], ["x", "y"]),
        ({}, ["a", "b\ud800"], ["x", "y"]),
        ({}, ["a", "b"], ["x", "y\ud800"]),
        ({}, ["a", b"b"], ["x", "y"]),
        ({}, {"a", "b"}, ["x", "y"]),
        ({}, ["a", "b"], "xy"),
        ({}, ["a", "b"], [0.0, 1.0]),
        ({}, ["a", "b"], [0, float("nan")]),
        ({}, ["a", "b"], np.eye(2)),
        ({}, ["a", "b"], [["x"], ["x", "y"]]),
        ({}, np.array([["a"], ["b"]]), ["x", "y"]),
        ({}, 3, ["x", "y"]),
    ],
)
def test_what_is_wrong_is_found_before_the_encoder_runs(
    monkeypatch, options, texts, labels
):
    from metalearn_book.case_studies import few_shot_classifier as module

    def used(*args, **kwargs):
        raise AssertionError("the encoder was used")

    monkeypatch.setattr(module, "load_encoder", used)
    with pytest.raises(ValueError):
        FewShotClassifier(**{"encoder": "tiny"} | options).fit(texts, labels)


def test_tuning_at_one_shot_names_the_way_out(tiny):
    twice = ["play music", "play music", "set alarm"]  # one text, written twice
    with pytest.raises(ValueError, match="tune='softmax'.*or take tune='none'"):
        FewShotClassifier(tiny, tune="softmax").fit(twice, ["a", "a", "b"])


def test_a_table_is_no_list_of_texts(fitted, few):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": few.texts, "intent": few.labels})
    for texts in (table, {"text": few.texts}, table[["text"]]):
        for call in (fitted.predict, fitted.reject, fitted.predict_proba):
            with pytest.raises(ValueError, match=r"data\['text'\]"):
                call(texts)
    with pytest.raises(ValueError, match=r"labels is a table .*data\['intent'\]"):
        FewShotClassifier("tiny").fit(few.texts, table[["intent"]])
    assert (fitted.predict(table["text"]) == fitted.predict(few.texts)).all()


# --- what is saved is what was fitted


@sklearn
def test_parameters_of_a_search_can_be_saved(few, tmp_path):
    from sklearn.model_selection import GridSearchCV

    grid = {"seed": np.arange(2), "reject_share": np.array([0.1]), "steps": [None]}
    search = GridSearchCV(FewShotClassifier("tiny"), grid, cv=2)
    best = search.fit(few.texts, few.labels).best_estimator_
    again = FewShotClassifier.load(best.save(tmp_path / "m"))
    assert type(again.seed) is int and again.reject_share == 0.1


@pytest.mark.parametrize("by_name", [True, False])
def test_saved_is_what_was_fitted_and_a_new_fit_starts_afresh(
    tiny, few, tmp_path, by_name
):
    encoder = "tiny" if by_name else tiny
    model = FewShotClassifier(encoder, tune="softmax", steps=np.int64(2), prompt="say ")
    first = proba(model.fit(few.texts, few.labels), few)
    model.set_params(tune="none", prompt="", head="ridge")
    np.testing.assert_array_equal(proba(model, few), first)
    again = FewShotClassifier.load(model.save(tmp_path / "m"))
    np.testing.assert_allclose(proba(again, few), first, atol=1e-6)
    assert (again.tune, again.prompt, again.head) == ("softmax", "say ", "logistic")
    twice = FewShotClassifier.load(again.save(tmp_path / "m"))  # loaded, saved, loaded
    np.testing.assert_allclose(proba(twice, few), first, atol=1e-6)
    np.testing.assert_array_equal(twice.reject(few.texts), again.reject(few.texts))
    fresh = FewShotClassifier(encoder, tune="softmax", steps=2, prompt="say ")
    fresh.fit(*of(few, 0, 1, 2)), twice.fit(*of(few, 0, 1, 2))
    np.testing.assert_allclose(proba(twice, few), proba(fresh, few), atol=1e-6)


def test_examples_can_be_added_after_loading(tiny, few, tmp_path):
    model = FewShotClassifier(tiny).fit(*of(few, 0, 1))
    again = FewShotClassifier.load(model.save(tmp_path / "m"))
    for m in (model, again):
        m.partial_fit(*of(few, 1, 2))  # class 1 is known already
    np.testing.assert_allclose(proba(again, few), proba(model, few), atol=1e-6)


# --- words and labels as people have them


def test_on_empty_is_looked_at_when_it_is_used(fitted):
    changed = copy.copy(fitted).set_params(on_empty="drop")
    with pytest.raises(ValueError, match="on_empty must be one of 'reject', 'raise'"):
        changed.predict(["play", ""])


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_the_largest_penalty_leaves_nothing_but_the_bias(tiny, few, head):
    fitted = FewShotClassifier(tiny, head=head, penalty=1e12).fit(few.texts, few.labels)
    assert fitted.weight_.abs().max() < 1e-6
    assert np.isfinite(fitted.predict_proba(few.texts)).all()


def test_a_blank_text_is_rejected_and_the_batch_is_kept(fitted, few):
    texts = [few.texts[0], "", " \n", "\u200b", few.texts[1]]
    with pytest.warns(UserWarning, match=r"texts\[1\] is blank \(3 such of 5\)"):
        assert fitted.reject(texts).tolist()[1:4] == [True] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = fitted.predict_proba(texts)
        np.testing.assert_allclose(p[[0, 4]], proba(fitted, few)[:2], atol=1e-6)
        np.testing.assert_array_equal(p[1:4], 0.25)
        assert fitted.predict(texts, reject="none").tolist()[1:4] == ["none"] * 3
        assert len(fitted.predict(["", " "])) == 2
        assert fitted.scope_score(["", few.texts[0]])[0] == -1
    strict = copy.copy(fitted).set_params(on_empty="raise")
    with pytest.raises(ValueError, match=r"texts\[1\] is empty"):
        strict.predict(texts)


@pytest.mark.parametrize(
    "labels", [["a\x00", "a"], [-1, 2**63], [0, 2**70], [True, False], ["", "b"]]
)
def test_labels_come_back_as_they_were(tiny, few, tmp_path, labels):
    texts, names = of(few, 0, 1)
    y = [labels[n == names[0]] for n in names]
    model = FewShotClassifier(tiny).fit(texts, y)
    assert model.classes_.tolist() == sorted(labels)
    again = FewShotClassifier.load(model.save(tmp_path / "m"))
    assert again.predict(texts).tolist() == model.predict(texts).tolist()
    assert set(again.predict(texts).tolist()) <= set(labels)
    assert again.score(texts, y) == np.mean(
        np.array(model.predict(texts) == np.array(y, object))
    )


def test_a_prompt_is_put_before_every_text(tiny, few):
    # class means: their sum does not depend on the order, which a text's checksum gives
    kind = {"head": "prototype"}
    ours = FewShotClassifier(tiny, prompt="query: ", **kind).fit(few.texts, few.labels)
    by_hand = [f"query: {t}" for t in few.texts]
    theirs = FewShotClassifier(tiny, **kind).fit(by_hand, few.labels)
    # the folds are drawn by the texts, so the temperatures may differ
    ours.temperature_ = theirs.temperature_
    np.testing.assert_allclose(
        ours.predict_proba(few.texts), theirs.predict_proba(by_hand), atol=1e-5
    )


def test_the_order_of_the_examples_does_not_matter_after_tuning_either(tiny, few):
    order = torch.randperm(len(few), generator=gen(2)).tolist()
    texts, labels = ([v[i] for i in order] for v in (few.texts, few.labels))
    for tune in ("softmax", "contrastive"):
        a, b = (FewShotClassifier(tiny, tune=tune, steps=2) for _ in range(2))
        a.fit(few.texts, few.labels), b.fit(texts, labels)
        np.testing.assert_array_equal(proba(a, few), proba(b, few))


# --- whatever is set around it


@pytest.mark.parametrize("tune", ["none", "softmax"])
def test_nothing_set_around_it_changes_it(few, tmp_path, tune):
    def run(place):
        model = FewShotClassifier("tiny", tune=tune, steps=1)
        model.fit(*of(few, 0, 1, 2)).partial_fit(*of(few, 3))
        model.reject(few.texts)
        return proba(FewShotClassifier.load(model.save(tmp_path / place)), few)

    plain = run("plain")
    with torch.device("meta"):  # what is created without a device can't be computed
        np.testing.assert_array_equal(run("meta"), plain)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(run("modes"), plain)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_allclose(run("float64"), plain, atol=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_encoder_in_training_mode_answers_alike_and_stays_in_it(few):
    encoder = load_encoder("tiny")
    model = FewShotClassifier(encoder).fit(few.texts, few.labels)
    first = proba(model, few)
    encoder.train()
    np.testing.assert_array_equal(proba(model, few), first)
    assert encoder.training


def test_one_encoder_in_several_threads(fitted, few):
    from concurrent.futures import ThreadPoolExecutor

    encoder, answers = fitted.encoder_, proba(fitted, few)
    features = encoder.encode(few.texts)
    long = " ".join(few.texts * 4)  # is cut by `encode`, and is not by `predict`

    def work(i):
        if i % 2:
            return np.array_equal(fitted.predict_proba(few.texts), answers)
        with warnings.catch_warnings():
            encoder.encode([long])
        return torch.equal(encoder.encode(few.texts), features)

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")
        assert all(pool.map(work, range(24)))


# --- probabilities and the threshold


def test_all_right_is_not_quite_sure(tiny):
    texts = ["play some music", "play a song", "set an alarm", "set the alarm"]
    model = FewShotClassifier(tiny).fit(texts, ["a", "a", "b", "b"])
    assert 0.5 < model.predict_proba(texts).max() < 0.999


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_no_example_is_judged_by_an_encoder_that_it_tuned(tiny, few, monkeypatch, k):
    from metalearn_book.case_studies import few_shot_classifier as module

    tuned, judged, tune, embed = [], [], module._tuned, module.embed_texts

    def spy_tune(encoder, texts, y, options):
        tuned.append(set(texts))
        found = tune(encoder, texts, y, options)
        found.seen = tuned[-1]
        return found

    def spy_embed(encoder, texts, *more):
        if hasattr(encoder, "seen") and not set(texts) <= encoder.seen:
            assert not set(texts) & encoder.seen
            judged.extend(texts)
        return embed(encoder, texts, *more)

    monkeypatch.setattr(module, "_tuned", spy_tune)
    monkeypatch.setattr(module, "embed_texts", spy_embed)
    rows = [6 * c + i for c in range(4) for i in range(k)]
    texts, labels = ([v[i] for i in rows] for v in (few.texts, few.labels))
    model = FewShotClassifier(tiny, tune="contrastive", steps=1).fit(texts, labels)
    assert sorted(judged) == sorted(texts) and model.threshold_ is not None


# --- encoders by other names


def test_an_encoder_of_the_hub_and_what_is_not_read_is_refused(
    tiny, few, tmp_path, monkeypatch
):
    import huggingface_hub

    from metalearn_book.case_studies.few_shot_classifier import _save_encoder
    from metalearn_book.foundations import encoders

    folder, asked = tmp_path / "snapshot", []

    def snapshot(name, local_files_only, **options):
        asked.append((name, local_files_only))
        if name != "someone/small":
            raise FileNotFoundError("not in the cache")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    _save_encoder(tiny, folder)
    model = FewShotClassifier("someone/small").fit(few.texts, few.labels)
    assert fingerprint(model.encoder_) == fingerprint(tiny)
    assert asked == [("someone/small", True)]  # what is on the disk needs no network
    model.save(tmp_path / "m")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)  # its own copy
    again = FewShotClassifier.load(tmp_path / "m")
    np.testing.assert_allclose(proba(again, few), proba(model, few), atol=1e-6)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(
        FileNotFoundError, match="'someone/other'.*no network was asked"
    ):
        load_encoder("someone/other", offline=True)
    (folder / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Dense"}])
    )
    with pytest.raises(ValueError, match="has the part 'Dense', which is not read"):
        load_encoder(folder)
    (folder / "modules.json").unlink()
    pooling = json.dumps({"pooling_mode_lasttoken": True})
    (folder / "1_Pooling" / "config.json").write_text(pooling)
    with pytest.raises(ValueError, match="pooling_mode_lasttoken"):
        load_encoder("someone/small")
    monkeypatch.setattr(encoders, "_load_minilm", lambda *a: "MiniLM")
    assert load_encoder("sentence-transformers/all-MiniLM-L6-v2") == "MiniLM"


def test_a_model_that_was_fitted_on_another_device(fitted, few, tmp_path):
    model = copy.copy(fitted)
    model.params_ = model.params_ | {"device": "cuda:77"}
    folder = model.save(tmp_path / "m")
    with pytest.warns(UserWarning, match="runs on the CPU"):
        again = FewShotClassifier.load(folder)
    again.partial_fit(*of(few, 1))
    assert again.device == "cuda:77" and len(again.predict(few.texts)) == 24
    assert (
        FewShotClassifier.load(folder, device="cpu").encoder_.model.device.type == "cpu"
    )
    with pytest.raises(ValueError, match="device='cuda:77' can't be used here"):
        again.fit(few.texts, few.labels)


# --- the checks of scikit-learn, on a text fixture

#: What is not run on the fixture, and why.
SKIPPED = {
    "check_estimators_unfitted": "the error is of the same two kinds as scikit-learn's "
    "own, but no subclass of it: the package does not depend on scikit-learn",
    "check_estimators_nan_inf": "its labels are floats, which are refused",
    "check_classifiers_one_label": "its labels are floats, which are refused",
    "check_classifiers_regression_target": "floats are refused in other words",
    "check_supervised_y_2d": "a column of shape (n, 1) is refused, with the way out",
    "check_requires_y_none": "the error for missing labels is put in other words",
    "check_methods_subset_invariance": "asks for 1e-7; in float32, what else is in a "
    "batch of the encoder changes the last digits",
}


@functools.cache
def row_words():
    "Words of one token each."
    words = load_encoder("tiny").tokenizer.get_vocab()
    return sorted(w for w in words if w.isalpha() and len(w) > 2)


class OfRows(FewShotClassifier):
    "Rows of numbers are written as words, one for each feature and value."

    _takes_texts = False

    def _texts(self, X, reset=False):
        from sklearn.utils.validation import validate_data

        words = row_words()
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        cell = np.floor(2 * np.arcsinh(X)).astype(int) + 40
        return [
            " ".join(words[(17 * j + c) % len(words)] for j, c in enumerate(row))
            for row in cell
        ]

    def fit(self, X, y, sample_weight=None):
        return super().fit(self._texts(X, True), y, sample_weight)

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        texts = self._texts(X, not self.__sklearn_is_fitted__())
        if not self.__sklearn_is_fitted__():
            return FewShotClassifier.fit(self, texts, y, sample_weight)
        return super().partial_fit(texts, y, classes, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(self._texts(X), y, sample_weight)

    def _vectors(self, X):
        self.check_fitted()
        texts = isinstance(X, list) and isinstance(X[0], str)
        return super()._vectors(X if texts else self._texts(X))


@sklearn
def test_check_estimator_of_scikit_learn(tiny, monkeypatch):
    from metalearn_book.case_studies import few_shot_classifier as module
    from sklearn.utils.estimator_checks import check_estimator

    # one encoder for the hundreds of fits
    monkeypatch.setattr(module, "load_encoder", lambda name: tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            OfRows("tiny", head="prototype"),
            expected_failed_checks=SKIPPED,
            on_fail=None,
            on_skip=None,
        )
    failed = {
        r["check_name"]: r["exception"] for r in results if r["status"] == "failed"
    }
    assert not failed, "\n".join(
        f"{k}: {type(v).__name__} {v}" for k, v in failed.items()
    )
    assert {r["check_name"] for r in results if r["status"] == "xfail"} <= set(SKIPPED)
    assert len(results) > 40


@pytest.mark.parametrize("size", [0, -7, 2.5, True])
@pytest.mark.parametrize("name", ["batch_size", "at_once"])
def test_embed_texts_takes_batches_of_one_or_more(tiny, name, size):
    with pytest.raises(ValueError, match=f"{name} must be a(t least 1| whole number)"):
        embed_texts(tiny, ["a", "b"], **{name: size})
