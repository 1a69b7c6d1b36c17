"""Properties of the chapter "A classifier to ship" that it does not have to show:
scope, windows, and the classifier with bad input, on disk and under scikit-learn."""

import json
import pickle
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import few_intents, gen, unit

from metalearn_book.case_studies.few_shot_classifier import FewShotClassifier, auroc
from metalearn_book.case_studies.few_shot_classifier import (
    best_threshold,
    confused_pairs,
)
from metalearn_book.case_studies.few_shot_classifier import embed_texts, own_threshold
from metalearn_book.case_studies.few_shot_classifier import scope_report, scope_scores
from metalearn_book.case_studies.few_shot_classifier import text_windows
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


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_pairs(a, b):
    a, b = torch.tensor(a).float(), torch.tensor(b).float()
    brute = ((a[:, None] > b).double() + 0.5 * (a[:, None] == b).double()).mean().item()
    assert auroc(a, b) == pytest.approx(brute, abs=1e-12)
    assert auroc(b, a) == pytest.approx(1 - brute, abs=1e-12)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_no_threshold_is_better_than_the_best(a, b):
    a, b = torch.tensor(a).float(), torch.tensor(b).float()

    def value(t):
        return (a >= t).double().mean() + (b < t).double().mean()

    assert value(best_threshold(a, b)).item() == pytest.approx(
        max(value(float(t)).item() for t in np.arange(-0.5, 7)), abs=1e-9
    )


def test_scope_scores_and_report():
    z, p = unit(4, dtype=torch.float32), unit(3, seed=1, dtype=torch.float32)
    logits = 10 * z @ p.T
    scores = scope_scores(logits, z, 5 * p)
    torch.testing.assert_close(scores["nearest class mean"], logits.amax(-1) / 10)
    torch.testing.assert_close(scores["energy"], logits.exp().sum(-1).log())
    assert scope_report(
        torch.tensor([1.0, 2.0]), torch.tensor([False, True]), torch.tensor([0.0]), 0.5
    ) == {
        "in scope, right": 0.5,
        "in scope, kept": 1.0,
        "out of scope, turned away": 1.0,
    }
    with pytest.raises(ValueError, match="both kinds"):
        auroc(torch.ones(2), torch.ones(0))


def test_own_threshold_ignores_classes_with_one_example():
    z = unit(5, dtype=torch.float32)
    assert own_threshold(z, torch.tensor([0, 0, 1, 1, 2])) is not None
    assert own_threshold(z[:2], torch.tensor([0, 1])) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        own_threshold(z, torch.tensor([0, 0, 1, 1, 2]), 1.0)


def test_confused_pairs_count_both_directions():
    target, guess = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([1, 1, 0, 0, 2, 1])
    assert confused_pairs(target, guess) == [(0, 1, 2, 1), (0, 2, 0, 1), (1, 2, 0, 1)]
    with pytest.raises(ValueError, match="one shape"):
        confused_pairs(target, guess[:2])


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
        (["a", "b"], ["x"], "2 texts but 1 labels"),
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
        ({"head": "tree"}, "not one of"),
        ({"tune": "yes"}, "not one of 'none', 'contrastive'"),
        ({"reject_share": 0.0}, "between 0 and 1"),
        ({"encoder": "nowhere"}, "no encoder is called"),
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
    with pytest.raises(ValueError, match="2 texts but 1 labels"):
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
    }
    assert (
        vars(model) == model.get_params()
        and model.set_params(seed=5) is model
        and model.seed == 5
    )
    with pytest.raises(ValueError, match="no parameter 'depth'"):
        model.set_params(depth=1)


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
