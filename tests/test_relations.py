"""Properties of the chapters on relations that they do not have to show: bad input,
scikit-learn's contract, files, and the command `metalearn-book demo`."""

import copy
import json
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from metalearn_book import cli
from metalearn_book.book.demos import DEMOS, run_demo
from metalearn_book.case_studies.knowledge_graph import KnowledgeGraph, Rule, Triple
from metalearn_book.case_studies.knowledge_graph import fused_triples, judge_triples
from metalearn_book.case_studies.knowledge_graph import labelled_sample
from metalearn_book.case_studies.knowledge_graph import learned_triples, recall_of
from metalearn_book.case_studies.knowledge_graph import rule_triples, sample_texts
from metalearn_book.case_studies.knowledge_graph import _each_once
from metalearn_book.case_studies.few_shot_tagger import Entity
from metalearn_book.case_studies.relations import EntityPair, MarkerEncoder
from metalearn_book.case_studies.relations import RelationExtractor, as_pairs
from metalearn_book.case_studies.relations import tiny_relations
from metalearn_book.case_studies.starts import Start, compress, weights_sha256
from metalearn_book.foundations.encoders import tiny_encoder
from metalearn_book.foundations.estimators import NotFittedError

TEXT = "Ada hired Bruno and Clara paid Dario ."


@pytest.fixture(scope="module")
def toy():
    return tiny_relations(6).where(part="test")


@pytest.fixture(scope="module")
def plain(toy):
    return tiny_encoder([p.text for p in as_pairs(toy.texts)])


@pytest.fixture(scope="module")
def marker(plain):
    return MarkerEncoder(plain)


@pytest.fixture(scope="module")
def fitted(marker, toy):
    return RelationExtractor(marker).fit(toy.texts, toy.labels)


# --- pairs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "tail", "words"),
    [
        ((0, 3), (0, 3), "same mention"),
        ((0, 9), (4, 15), "overlap"),
        ((0, 3), (10, 99), "38 characters"),
        ((-1, 3), (10, 15), "must lie in the text"),
        ((3, 0), (10, 15), "end after its start"),
        ((3, 4), (10, 15), "only spaces"),
        ((0, 3), (10.5, 15), "whole numbers"),
        ((0, 3), (10, 15, 16), "whole numbers"),
        ((0, 3), None, "whole numbers"),
    ],
)
def test_wrong_offsets_are_refused(head, tail, words):
    with pytest.raises(ValueError, match=words):
        EntityPair(TEXT, head, tail)


@pytest.mark.parametrize("text", ["", "  ", "\u200b", None, 3])
def test_blank_texts_are_refused(text):
    with pytest.raises(ValueError, match="blank"):
        EntityPair(text, (0, 1), (1, 2))
    with pytest.raises(ValueError, match="blank"):
        EntityPair.of(text, "a", "b")


@pytest.mark.parametrize(
    ("head", "tail", "words"),
    [
        ("Ada", "Zoe", "not in the text"),
        ("Ada", "Bru", "inside of a word"),
        ("Ada", "Ada", "other mention"),
        ("Ada", " ", "not blank"),
        ("Ada", None, "not blank"),
    ],
)
def test_names_that_are_not_there_are_refused(head, tail, words):
    with pytest.raises(ValueError, match=words):
        EntityPair.of(TEXT, head, tail)


def test_names_in_scripts_without_spaces():
    for text, head, tail in (
        ("张三在北京工作", "张三", "北京"),
        ("삼성은 서울에", "삼성", "서울"),
    ):
        assert EntityPair.of(text, head, tail).names == (head, tail)
    with pytest.raises(ValueError, match="inside of a word"):
        EntityPair.of("Ada hired Bé", "Ada", "B")


def test_rows_of_other_libraries():
    pair = EntityPair.of(TEXT, "Ada", "Bruno")
    ends = {"h": {"pos": (0, 3), "name": "Ada"}, "t": {"pos": [10, 15]}}
    assert as_pairs([{"text": TEXT, **ends}]) == [pair]
    assert as_pairs(np.array([[TEXT, "Ada", "Bruno"]], dtype=object)) == [pair]
    if find_spec("pandas"):
        import pandas as pd

        table = pd.DataFrame([[TEXT, "Ada", "Bruno"]], columns=["text", "h", "t"])
        assert as_pairs(table.itertuples(index=False)) == [pair]
        assert as_pairs(pd.Series([pair.marked], index=[7])) == [pair]
    for row in ({}, {"text": TEXT}, {"text": TEXT, "h": {"pos": 3}, "t": {}}):
        with pytest.raises(ValueError, match=r"pairs\[0\]"):
            as_pairs([row])


@pytest.mark.parametrize(
    ("head", "tail", "n"),
    [
        ((0, 3), (10, 15), 0),
        ((0, 1), (2, 3), 2),  # numbers of tokens
        ((0, 2), (10, 15), 1),  # the end is the last character
        ((1, 3), (10, 16), 1),
    ],
)
def test_offsets_that_cut_a_word_are_warned_of(head, tail, n):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        as_pairs([EntityPair.of(TEXT, "Ada", "Bruno"), (TEXT, head, tail)])
    assert len(caught) == (n > 0)
    if n:
        assert f"word: {n}, the first in pairs[1]" in str(caught[0].message)


def test_words_without_spaces_between_them_are_not_cut():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_pairs(
            [("张三在北京工作", (0, 2), (3, 5)), ("O'Neil met R2D2", (0, 6), (11, 15))]
        )


def test_two_entities_of_one_name_are_two_mentions():
    pair = EntityPair("Victoria by Victoria", (0, 8), (12, 20))
    assert pair.names == ("Victoria", "Victoria")
    assert EntityPair.of("Victoria by Victoria", "Victoria", "Victoria") == pair


@pytest.mark.parametrize(
    "pair",
    [
        EntityPair("a b", (0, 1), (2, 3)),
        EntityPair("a b", (2, 3), (0, 1)),
        EntityPair("  a , b  ", (1, 4), (6, 9)),
        EntityPair("line\nbreak 🙂 日本", (0, 4), (13, 15)),
    ],
)
def test_marking_loses_nothing(pair):
    assert EntityPair.from_marked(pair.marked) == pair


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        "<h> a </h> only",
        "<h> a <t> b </t> </h>",
        "<h> a </h> <h> a </h> <t> b </t>",
        "</h> a <h> <t> b </t>",
        "<h> </h> <t> b </t>",
        7,
    ],
)
def test_wrong_marks_are_refused(text):
    with pytest.raises(ValueError):
        EntityPair.from_marked(text)


def test_a_text_that_holds_a_mark_is_refused():
    with pytest.raises(ValueError, match="which is a mark"):
        _ = EntityPair.of("a <h> b", "a", "b").marked


def test_the_row_with_a_mark_is_named(fitted):
    rows = [(TEXT, "Ada", "Bruno"), ("a <t> b", "a", "b")]
    with pytest.raises(ValueError, match=r"pairs\[1\]: the text holds"):
        fitted.predict(rows)


# --- the encoder ---------------------------------------------------------------------


def test_marks_are_no_words_of_any_text(marker, plain):
    ids = marker.config.marker_ids
    assert min(ids) >= len(plain.model.get_input_embeddings().weight)
    (row,) = marker.token_ids([EntityPair.of("$ hired #", "$", "#").marked])
    assert [row.count(i) for i in ids] == [1, 1, 1, 1]


def test_direction_and_padding(marker):
    pair = EntityPair.of(TEXT, "Ada", "Bruno")
    alone = marker.encode([pair.marked])
    long = EntityPair.of(TEXT + " and so on" * 5, "Ada", "Bruno")
    among = marker.encode([pair.marked, pair.swapped.marked, long.marked])
    assert torch.allclose(alone[0], among[0], atol=1e-5)
    assert not torch.allclose(among[0], among[1], atol=1e-3)
    assert torch.allclose(among.norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("n", [200, 1000])
def test_long_texts_keep_both_mentions(marker, n):
    text = " ".join([*["so"] * n, "Ada", *["so"] * n, "Bruno", *["so"] * n])
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        (row,) = marker.token_ids([EntityPair.of(text, "Ada", "Bruno").marked])
    assert len(row) <= marker.max_length
    assert set(marker.config.marker_ids) <= set(row)
    huge = EntityPair("so " * n + "b", (0, 3 * n - 1), (3 * n, 3 * n + 1))
    with pytest.warns(UserWarning):
        (row,) = marker.token_ids([huge.marked])
    assert len(row) <= marker.max_length


# --- the extractor -------------------------------------------------------------------


def test_conventions(fitted, toy, marker):
    same = RelationExtractor(**fitted.get_params())
    assert same.get_params() == fitted.get_params()
    sure = fitted.predict_proba(toy.texts)
    assert sure.shape == (len(toy), len(toy.classes))
    assert np.allclose(sure.sum(1), 1)
    assert (fitted.classes_[sure.argmax(1)] == fitted.predict(toy.texts)).all()
    assert 0 <= fitted.score(toy.texts, toy.labels) <= 1
    with pytest.raises(NotFittedError, match="pairs, labels"):
        same.predict(toy.texts)
    if find_spec("sklearn"):
        from sklearn.base import clone

        with pytest.raises(NotFittedError):
            clone(fitted).predict(toy.texts)


@pytest.mark.parametrize("head", ["prototype", "ridge", "logistic"])
def test_the_order_of_examples_does_not_matter(marker, toy, head):
    one = RelationExtractor(marker, head=head).fit(toy.texts, toy.labels)
    two = RelationExtractor(marker, head=head).fit(toy.texts[::-1], toy.labels[::-1])
    a, b = one.predict_proba(toy.texts), two.predict_proba(toy.texts)
    assert np.allclose(a, b, atol=1e-3)


def test_wrong_supports_leave_what_was_fitted(fitted, toy):
    before = fitted.predict_proba(toy.texts)
    some = toy.texts[:2]
    for pairs, labels, words in (
        ([], [], "pairs"),
        (some, ["a", "a"], "two classes"),
        (some, ["a"], "one label for each"),
        (some, ["a", None], "label"),
        ([TEXT, TEXT], ["a", "b"], r"pairs\[0\]"),
        ([(TEXT, "Ada", "Zoe")] * 2, ["a", "b"], "not in the text"),
        ([(TEXT, (0, 3), (0, 3))] * 2, ["a", "b"], "same mention"),
        (["", ""], ["a", "b"], r"pairs\[0\]"),
        (some[0], ["a"], "list"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted.fit(pairs, labels)
    assert (fitted.predict_proba(toy.texts) == before).all()


def test_one_example_of_each_relation(marker, toy):
    rows = [toy.labels.index(r) for r in toy.classes]
    texts, labels = [toy.texts[i] for i in rows], [toy.labels[i] for i in rows]
    single = RelationExtractor(marker).fit(texts, labels)
    assert single.score(texts, labels) == 1 and single.threshold_ is None
    for ask in (single.reject, lambda t: single.predict(t, reject="none")):
        with pytest.raises(ValueError, match="no threshold"):
            ask(texts)
    single.set_threshold(texts, [EntityPair.from_marked(t).swapped for t in texts])
    assert not single.reject(texts).any()


def test_wrong_settings_are_refused(marker, toy):
    for settings in (
        {"head": "svm"},
        {"penalty": 1.0},
        {"reject_share": 0},
        {"batch_size": 0},
        {"device": "nowhere"},
        {"start": 3},
        {"encoder": 3},
    ):
        with pytest.raises(ValueError):
            RelationExtractor(**{"encoder": marker} | settings).fit(
                toy.texts, toy.labels
            )


def test_an_encoder_that_never_saw_marks_is_named(plain, toy):
    with pytest.warns(UserWarning, match="never trained"):
        RelationExtractor(plain).fit(toy.texts, toy.labels)


def test_save_and_load(fitted, toy, tmp_path):
    folder = fitted.save(tmp_path / "mine")
    again = RelationExtractor.load(folder)
    assert (again.predict_proba(toy.texts) == fitted.predict_proba(toy.texts)).all()
    assert again.threshold_ == fitted.threshold_
    again.save(folder)  # in place of itself
    assert RelationExtractor.load(folder).classes_.tolist() == toy.classes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(ValueError):
        fitted.save(tmp_path / "other")
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        RelationExtractor.load(tmp_path / "nowhere")


def test_every_damaged_file_is_refused(fitted, tmp_path):
    folder = fitted.save(tmp_path / "mine")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(RuntimeError):
            RelationExtractor.load(folder)
        path.write_bytes(content)
    RelationExtractor.load(folder)


def test_the_start_of_the_package_goes_with_minilm_alone(plain, marker, toy):
    from metalearn_book.case_studies.relations import _start_of, relation_start

    own = relation_start()
    for encoder in ("minilm", "sentence-transformers/all-MiniLM-L6-v2"):
        assert _start_of("auto", encoder).about == own.about
    for encoder in ("tiny", plain, marker):
        assert _start_of("auto", encoder) is None
    assert _start_of("relations", plain).about == own.about
    assert _start_of(None, "minilm") is None
    with pytest.raises(ValueError, match="other weights"):
        RelationExtractor(marker, start="relations").fit(toy.texts, toy.labels)


def test_a_start_is_added_and_saved_by_the_encoder(plain, marker, toy, tmp_path):
    changed = copy.deepcopy(marker)
    with torch.no_grad():
        for p in changed.model.encoder.layer[-1].parameters():
            p.add_(0.01 * torch.randn_like(p))
    about = {"name": "mine", "kind": "encoder", "encoder": "tiny"}
    about["base_sha256"] = weights_sha256(marker)
    both = (e.model.state_dict() for e in (marker, changed))
    start = Start(compress(*both, rank=64), about)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = RelationExtractor(plain, start=start).fit(toy.texts, toy.labels)
    direct = RelationExtractor(changed).fit(toy.texts, toy.labels)
    a, b = (m.predict_proba(toy.texts) for m in (mine, direct))
    assert np.allclose(a, b, atol=0.02)
    again = RelationExtractor.load(mine.save(tmp_path / "mine"))
    assert (again.predict_proba(toy.texts) == a).all()
    with pytest.raises(ValueError, match="other weights"):
        RelationExtractor(tiny_encoder(["a"]), start=start).fit(toy.texts, toy.labels)


# --- triples -------------------------------------------------------------------------


class Finds:
    "A tagger that finds capitalized words."

    def predict(self, texts):
        places = lambda t: [i for i, c in enumerate(t) if c.isupper()]
        ends = lambda t, i: t.find(" ", i) if " " in t[i:] else len(t)
        return [
            [Entity(i, ends(t, i), "person", 1.0, t[i : ends(t, i)]) for i in places(t)]
            for t in texts
        ]


def test_learned_triples_of_odd_texts(fitted):
    kinds = dict.fromkeys(fitted.classes_, ("person", "person"))
    assert learned_triples([], Finds(), fitted, kinds) == []
    assert learned_triples(["nobody here", "Ada alone"], Finds(), fitted, kinds) == []
    found = learned_triples([TEXT], Finds(), fitted, kinds)
    assert all(t.text == 0 and t.head != t.tail for t in found)
    with pytest.raises(ValueError, match="no types"):
        learned_triples([TEXT], Finds(), fitted, {})


def test_counting():
    rows = [
        {"stated": [["Queen Ada", "P25", "Bo"]], "also": [], "unclear": []},
        {
            "stated": [["Cy", "P26", "Di"]],
            "also": [["Cyrus Dee", "P26", "Di"]],
            "unclear": [["Ed", "P26", "Flo"]],
        },
    ]
    found = [
        Triple("ada", "P25", "Bo", text=0),  # right
        Triple("Bo", "P25", "Ada", text=0),  # the wrong direction
        Triple("Di", "P26", "Cy", text=1),  # right, in either direction
        Triple("Cyrus Dee", "P26", "Di", text=1),  # right, by another name
        Triple("Ed", "P26", "Flo", text=1),  # not counted
        Triple("Cy", "P26", "Di", text=0),  # another sentence
    ]
    judged = judge_triples(found, rows)
    assert judged == {"P25": [True, False], "P26": [True, True, False]}
    assert recall_of(found, rows) == 1 and recall_of([], rows) == 0
    with pytest.raises(ValueError, match="0 to 1"):
        judge_triples([Triple("a", "b", "c", text=2)], rows)
    with pytest.raises(ValueError, match="no triple"):
        recall_of(found, [])


def test_the_sample_is_what_it_says():
    sample = labelled_sample()
    assert len(sample["rows"]) == 100
    for row in sample["rows"]:
        for some in ("stated", "also", "unclear"):
            assert all(r in sample["relations"] for _, r, _ in row[some])
    with pytest.raises(ValueError, match="not the sentence"):
        sample_texts(["<h> a </h> <t> b </t>"], ["P177"], sample["rows"])
    assert "text" not in json.dumps(sample["rows"])  # texts are not committed


def test_fusion_and_graph():
    one, two = Triple("Ada", "P26", "Bo"), Triple("Bo", "P25", "Ada", 0.9)
    other = Triple("Bo", "P25", "Ada", 0.9, text=1)
    assert fused_triples([two, other], [one]) == [one, other]
    assert fused_triples([two], [], bar=0.95) == []
    graph = KnowledgeGraph([one, one, other])
    assert graph.about("ada")[0][3] == 1 and len(graph.edges) == 2
    assert graph.about("Zoe") == []
    assert KnowledgeGraph().about("Ada") == []


def test_a_triple_of_a_text_comes_once(fitted):
    class Twice(Finds):
        def predict(self, texts):
            return [2 * found for found in super().predict(texts)]

    kinds = dict.fromkeys(fitted.classes_, ("person", "person"))
    one, two = (learned_triples([TEXT], t, fitted, kinds) for t in (Finds(), Twice()))
    assert one == two and len({(t.head, t.tail) for t in one}) == len(one)
    said = [Triple("Ada", "P26", "Bo", 0.4), Triple("bo", "P26", "Ada", 0.6)]
    assert _each_once(said) == said[1:]
    assert (
        len(_each_once([Triple("Ada", "P25", "Bo"), Triple("Bo", "P25", "Ada")])) == 2
    )


def test_rules_of_odd_texts():
    rule = Rule("hired", r"(?P<h>\w+)? hired (?P<t>\w+)")
    assert rule_triples(["", " hired Bo", "Bo hired Bo"], [rule]) == []
    assert rule_triples(["Ada hired Bo"], []) == []


# --- the command ---------------------------------------------------------------------


def test_demo(capsys):
    assert cli.main(["demo"]) == 0 and "relations" in capsys.readouterr().out
    assert cli.main(["demo", "relatoins"]) == 2
    assert "Did you mean 'relations'" in capsys.readouterr().err
    run_demo("relations")
    said = capsys.readouterr().out
    share = float(said.split("right: ")[1].split("%")[0])
    # the sentence of the demonstration states two relations, and MiniLM reads which
    if "random weights" not in said:
        assert "Helix -> Tundra: lent to" in said and "Polaris -> Acme: bought" in said
        assert share > 2 * float(said.split("names: ")[1].split("%")[0])
    assert all(":" in where for where in DEMOS.values())
