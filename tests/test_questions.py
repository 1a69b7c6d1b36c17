"""Questions: sentences, overlap, fusion, and the retriever."""

import importlib.util
import math
import warnings

import pytest
import torch
from metalearn_book.case_studies import questions as qu
from metalearn_book.case_studies.questions import Overlap, fit_fusion, fusion_loss
from metalearn_book.case_studies.questions import pieces, question_features
from metalearn_book.case_studies.questions import sentence_places, sentence_pool
from metalearn_book.case_studies.questions import tiny_questions
from metalearn_book.case_studies.retriever import SentenceRetriever, risk_coverage
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder

PASSAGES = ["The X200 weighs 400 g. It has no radio.", "Returns take thirty days."]


def random_scores(n_questions=9, n_sentences=14, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.rand(n_questions, n_sentences, 3, generator=g, dtype=torch.float64)
    return X, torch.randint(n_sentences, (n_questions,), generator=g)


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    "text, cut",
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.5 m. of cloth.", ["It costs 3.5 m. of cloth."]),
        ("J. R. Smith met Dr. Ada. She ran.", ["J. R. Smith met Dr. Ada.", "She ran."]),
        ("Am 3. Oktober war es. Er kam.", ["Am 3. Oktober war es.", "Er kam."]),
        ("In 1990. He left.", ["In 1990.", "He left."]),
        ("她来了。他走了！好？", ["她来了。", "他走了！", "好？"]),
        ("He said “no.” She left.", ["He said “no.”", "She left."]),
        ("one line\n\nanother line", ["one line", "another line"]),
        ("", []),
        ("  ", []),
    ],
)
def test_sentences_are_cut_where_they_end(text, cut):
    assert [text[a:b] for a, b in sentence_places(text)] == cut


def test_places_cover_all_letters_and_never_overlap():
    for text in tiny_questions().contexts + ["A. b. C?? D... e! F 5. G"]:
        places = sentence_places(text)
        assert all(a < b for a, b in places)
        assert all(b <= c for (_, b), (c, _) in zip(places, places[1:]))
        kept = "".join(text[a:b] for a, b in places)
        assert "".join(kept.split()) == "".join(text.split())


def test_the_sentence_before_stays_in_its_passage():
    pool = sentence_pool(PASSAGES)
    assert pool.around == (
        "The X200 weighs 400 g.",
        "The X200 weighs 400 g. It has no radio.",
        "Returns take thirty days.",
    )
    assert [pool.find(0, 3), pool.find(0, 30), pool.find(1, 0)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no sentence"):
        pool.find(0, 22)  # the space between two
    with pytest.raises(ValueError, match="passage"):
        pool.find(2, 0)


# ---------------------------------------------------------------- overlap


def test_pieces_of_letters_and_of_chinese():
    assert pieces("ab") == {" ab", "ab ", " ab "}
    assert pieces("河在北") == {"河", "在", "北", "河在", "在北"}
    assert pieces("ＡＢ") == pieces("ab")  # full width
    assert pieces("...") == set()
    assert {"x20", "200"} <= pieces("X200河") and "河" in pieces("X200河")


def test_marks_on_letters_are_part_of_a_word():
    "Hindi: 'kitāb' and 'kitāben' differ from 'kutub' in their vowel signs."
    book, books, other = (
        "\u0915\u093f\u0924\u093e\u092c",
        None,
        "\u0915\u0941\u0924\u092c",
    )
    books = book + "\u0947\u0902"
    assert f" {book[:4]}" in pieces(book) & pieces(books)
    assert not pieces(book) & pieces(other)
    assert pieces("cafe\u0301") == pieces("caf\u00e9")  # composed first


def test_signs_that_are_no_letters_part_words():
    assert pieces("1+1") == pieces("1 1") and pieces("# +") == set()
    assert pieces("snake_case") == pieces("snake case")


def test_overlap_is_the_share_of_information():
    texts = ["red fox", "red dog", "blue dog"]
    found = Overlap(texts).scores(["red fox", "blue", "???", "zebra"])
    assert found[0, 0].item() == pytest.approx(1.0)
    assert found[0, 0] > found[0, 1] > found[0, 2] == 0
    assert found[1, 2].item() == pytest.approx(1.0)
    assert found[2].tolist() == [0, 0, 0] and found[3].tolist() == [0, 0, 0]
    info = {g: math.log(4 / (sum(g in pieces(t) for t in texts) + 1))
            for g in pieces("red fox")}  # fmt: skip
    by_hand = sum(v for g, v in info.items() if g in pieces("red dog"))
    assert found[0, 1].item() == pytest.approx(by_hand / sum(info.values()), abs=1e-12)


def test_a_piece_of_all_sentences_tells_nothing():
    assert Overlap(["same text", "same text"]).scores(["same"]).tolist() == [[0, 0]]


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn")
def test_overlap_ranks_as_scikit_learn_does():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [t.replace(".", "") for t in tiny_questions().contexts]
    asked = [t.replace("?", "") for t in tiny_questions().questions]
    options = {"analyzer": "char_wb", "ngram_range": (3, 5), "norm": None}
    made = TfidfVectorizer(binary=True, **options).fit(texts)
    n, unseen = len(texts), math.log(len(texts) + 1)
    idf = torch.tensor(made.idf_) - 1  # scikit-learn adds one to Eq. (QU-1)
    has = torch.tensor(made.transform(texts).astype(bool).toarray()).double()
    ask = torch.tensor(made.transform(asked).astype(bool).toarray()).double()
    total = [sum(idf[made.vocabulary_[g]].item() if g in made.vocabulary_ else unseen
                 for g in pieces(q)) for q in asked]  # fmt: skip
    theirs = (ask * idf) @ has.T / torch.tensor(total)[:, None]
    ours = Overlap(texts).scores(asked)
    assert n == ours.shape[1] and torch.allclose(ours, theirs, atol=1e-12)


# ---------------------------------------------------------------- fusion


def test_gradient_by_finite_differences():
    X, gold = random_scores()
    w, prior = torch.tensor([[1.0, -1, 2], [0.5, 0, 0]], dtype=torch.float64)
    analytic = torch.func.grad(lambda v: fusion_loss(v, X, gold, prior, 0.7))(w)
    for i in range(3):
        d = torch.zeros(3, dtype=torch.float64)
        d[i] = 1e-6
        up, down = (fusion_loss(w + s * d, X, gold, prior, 0.7) for s in (1, -1))
        assert analytic[i].item() == pytest.approx(
            ((up - down) / 2e-6).item(), abs=1e-6
        )


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="SciPy")
def test_the_minimum_is_scipys():
    from scipy.optimize import minimize

    X, gold = random_scores(20, 30)
    found = fit_fusion(X, gold, strength=0.3)
    loss = lambda v: fusion_loss(torch.from_numpy(v), X, gold, strength=0.3).item()
    theirs = minimize(loss, [0.0, 0.0, 0.0], tol=1e-12)
    assert found.tolist() == pytest.approx(theirs.x.tolist(), abs=1e-4)


def test_a_far_start_and_a_weak_prior_reach_the_same_minimum():
    X, gold = random_scores(40, 6)
    near = fit_fusion(X, gold, strength=1e-9)
    far = fit_fusion(X, gold, torch.full((3,), 50.0, dtype=torch.float64), 1e-9)
    assert torch.allclose(near, far, atol=1e-5)


def test_two_sentences_are_a_logistic_regression():
    X, gold = random_scores(30, 2)
    w = fit_fusion(X, gold, strength=0.5)
    z = (X[:, 1] - X[:, 0]) @ w
    by_hand = torch.nn.functional.softplus(torch.where(gold == 1, -z, z)).sum()
    total = by_hand + 0.25 * w.square().sum()
    assert fusion_loss(w, X, gold, strength=0.5).item() == pytest.approx(total.item())


@pytest.mark.parametrize(
    "change, match",
    [
        ({"gold": torch.tensor([99] * 9)}, "gold"),
        ({"gold": torch.zeros(9)}, "gold"),
        ({"gold": torch.tensor([0])}, "gold"),
        ({"prior": torch.zeros(2, dtype=torch.float64)}, "prior"),
        ({"strength": 0.0}, "strength"),
        ({"strength": -1.0}, "strength"),
    ],
)
def test_fusions_that_cannot_be_fitted(change, match):
    X, gold = random_scores()
    with pytest.raises(ValueError, match=match):
        fit_fusion(**{"X": X, "gold": gold} | change)


def test_scores_need_a_vector_for_each_text():
    pool = sentence_pool(PASSAGES)
    z = torch.eye(3)
    X = question_features(pool, ["How heavy is the X200?"], z[:1], z)
    assert X.shape == (1, 3, 3) and X[0, :, 2].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="vectors"):
        question_features(pool, ["one", "two"], z[:1], z)


@pytest.mark.skipif(not available("xquad"), reason="needs XQuAD")
def test_few_answers_cross_the_end_of_a_sentence():
    rows = load_dataset_by_name("xquad")
    for language, most in (("en", 1), ("de", 4), ("zh", 1)):
        some, crossing = rows.where(language=language), 0
        for context, answers in zip(some.contexts, some.answers):
            a = answers[0]
            inside = [s for s, e in sentence_places(context)
                      if s <= a.start and a.start + len(a.text) <= e]  # fmt: skip
            crossing += not inside
        assert crossing <= most


# ---------------------------------------------------------------- retriever


@pytest.fixture
def finder():
    return SentenceRetriever(load_encoder("tiny")).add(PASSAGES, ["X200", "returns"])


def test_search_gives_places_and_probabilities(finder):
    found = finder.search("How much does the X200 weigh?", k=10)
    assert len(found) == 3 and found[0].text == "The X200 weighs 400 g."
    assert sum(f.score for f in found) == pytest.approx(1)
    for f in found:
        assert PASSAGES[f.passage][f.start : f.end] == f.text
    assert [f.name for f in found if f.passage] == ["returns"]
    evidence = torch.tensor([f.evidence for f in found], dtype=torch.float64)
    assert evidence.softmax(0).tolist() == pytest.approx([f.score for f in found])


def test_adding_in_two_steps_is_adding_at_once(finder):
    apart = SentenceRetriever(finder.encoder)
    apart.add(PASSAGES[:1], ["X200"]).add(PASSAGES[1:], ["returns"])
    asked = "When may I return it?"
    assert apart.search(asked, 3) == finder.search(asked, 3)


def test_copies_are_left_out_and_said(finder):
    before = finder.search("radio?", 3)
    with pytest.warns(UserWarning, match="2 of 3"):
        finder.add([PASSAGES[0], "New text here.", "New text here."], list("abc"))
    assert len(finder) == 4 and finder.names == ["X200", "returns", "b"]
    assert before[0].text in [f.text for f in finder.search("radio?", 4)]


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda f: f.search(" "), "question"),
        (lambda f: f.search(None), "question"),
        (lambda f: f.search("x", 0), "k"),
        (lambda f: f.add(["fine", " "]), "passages"),
        (lambda f: f.add(["a text"], ["one", "two"]), "names"),
        (lambda f: f.add("one text"), "passages"),
        (lambda f: f.adapt([("q", 9, 0)]), "passage"),
        (lambda f: f.adapt([("q", 0)]), "answered"),
        (lambda f: f.adapt([("q", 0, 1000)]), "at"),
    ],
)
def test_bad_input_leaves_the_collection_as_it_was(finder, call, match):
    before, weights = finder.search("radio?", 3), finder.weights
    with pytest.raises(ValueError, match=match):
        call(finder)
    assert finder.search("radio?", 3) == before and finder.weights == weights


def test_an_empty_collection_is_refused():
    empty = SentenceRetriever(load_encoder("tiny"))
    for call in (lambda: empty.search("x"), lambda: empty.adapt([("q", 0, 0)])):
        with pytest.raises(ValueError, match="empty"):
            call()


def test_saved_and_loaded_answers_alike(finder, tmp_path):
    finder.adapt([("Has it a radio?", 0, 25)])
    again = SentenceRetriever.load(finder.save(tmp_path / "kept"))
    assert again.weights == finder.weights and again.names == finder.names
    asked = "Has it a radio?"
    assert again.search(asked, 3) == finder.search(asked, 3)
    assert again.add(["More text."]).search("more?", 1)


@pytest.mark.parametrize("changed", [False, True])
def test_a_changed_encoder_is_saved_with_its_name(tmp_path, changed):
    finder = SentenceRetriever("tiny").add(PASSAGES)
    if changed:
        with torch.no_grad():
            next(finder.encoder.model.parameters()).mul_(2.0)
    again = SentenceRetriever.load(finder.save(tmp_path / "kept"))
    assert (tmp_path / "kept" / "encoder").exists() == changed
    for a, b in zip(again.encoder.parameters(), finder.encoder.parameters()):
        assert a.equal(b)


def test_a_collection_with_nothing_in_it_is_saved(tmp_path):
    empty = SentenceRetriever(load_encoder("tiny"))
    again = SentenceRetriever.load(empty.save(tmp_path / "kept"))
    assert len(again) == 0 and len(again.add(PASSAGES)) == 3


def test_damaged_files_are_named(finder, tmp_path):
    folder = finder.save(tmp_path / "kept")
    file = folder / "vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(RuntimeError):
        SentenceRetriever.load(folder)
    with pytest.raises(FileNotFoundError):
        SentenceRetriever.load(tmp_path / "nothing")


def test_numbers_are_names_after_copies_too():
    finder = SentenceRetriever(load_encoder("tiny"))
    with pytest.warns(UserWarning, match="1 of 3"):
        finder.add(["One text.", "One text.", "Another."])
    finder.add(["A third."])
    assert finder.names == ["0", "1", "2"]


def test_nothing_is_returned_below_a_probability(finder):
    best = finder.search("Has it a radio?", 1)[0]
    assert finder.search("Has it a radio?", 1, least=best.score * 0.99) == [best]
    assert finder.search("Has it a radio?", 1, least=min(best.score * 1.01, 1.0)) == []
    with pytest.raises(ValueError, match="least"):
        finder.search("Has it a radio?", 1, least=2.0)


def test_a_folder_of_another_collection_is_refused(finder, tmp_path):
    kept, z = finder.save(tmp_path / "kept"), finder._z
    finder._z = z[:2]
    other = finder.save(tmp_path / "other")
    assert len(SentenceRetriever.load(kept)) == 3
    with pytest.raises(RuntimeError, match="save the collection again"):
        SentenceRetriever.load(other)


def test_passages_that_are_cut_anew_are_encoded_anew(finder, tmp_path, monkeypatch):
    asked, folder = "Has it a radio?", finder.save(tmp_path / "kept")
    cut = lambda text: [(0, len(text))]
    monkeypatch.setattr(qu, "sentence_places", cut)
    again = SentenceRetriever.load(folder)
    fresh = SentenceRetriever(finder.encoder).add(PASSAGES, ["X200", "returns"])
    assert len(again) == 2 and again.search(asked, 2) == fresh.search(asked, 2)


def test_weights_must_fit():
    for weights in ((1.0, 2.0), (1.0, 2.0, math.nan), ("a", 1, 2)):
        with pytest.raises(ValueError, match="weights"):
            SentenceRetriever(load_encoder("tiny"), weights)


def test_long_collections_are_searched_exactly():
    passages = [f"Item {i} costs {3 * i} coins." for i in range(300)]
    finder = SentenceRetriever(load_encoder("tiny")).add(passages)
    assert finder.search("What does item 217 cost?", 1)[0].passage == 217


@pytest.mark.filterwarnings("error")
def test_two_hundred_questions_without_a_warning(finder):
    with warnings.catch_warnings():
        assert finder.features(["Radio?"] * 200).shape == (200, 3, 3)


# ---------------------------------------------------------------- risk


def test_risk_by_hand_and_with_ties():
    sure = torch.tensor([3.0, 2.0, 2.0, 1.0])
    right = torch.tensor([True, False, True, False])
    coverage, risk, area = risk_coverage(sure, right)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 0.25, 1 / 3, 0.5])
    assert area == pytest.approx((0.25 + 1 / 3 + 0.5) / 4)
    turned = risk_coverage(sure[[0, 2, 1, 3]], right[[0, 2, 1, 3]])
    assert turned[1].tolist() == pytest.approx(risk.tolist())


def test_the_best_order_has_the_least_risk():
    g = torch.Generator().manual_seed(0)
    right = torch.rand(50, generator=g) > 0.4
    best = risk_coverage(right.double(), right)[2]
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        assert risk_coverage(torch.rand(50, generator=g), right)[2] >= best - 1e-12


@pytest.mark.parametrize(
    "sure, right, match",
    [
        (torch.tensor([math.nan]), torch.tensor([True]), "nan"),
        (torch.tensor([1.0]), torch.tensor([1.0]), "True"),
        (torch.tensor([1]), torch.tensor([True]), "floating"),
        (torch.zeros(0), torch.zeros(0, dtype=torch.bool), "confidence"),
    ],
)
def test_risks_of_nothing(sure, right, match):
    with pytest.raises(ValueError, match=match):
        risk_coverage(sure, right)


def test_tiny_questions_hold_their_answers():
    data = tiny_questions(8, seed=3)
    assert len(data) == 48 and set(data.part) == {"train", "validation", "test"}
    titles = [set(data.where(part=p).articles) for p in ("train", "validation", "test")]
    assert [len(t) for t in titles] == [4, 2, 2]
    assert tiny_questions(8, seed=3) == data != tiny_questions(8, seed=4)
    assert qu.FEATURES[2] == "cosine" and len(qu.FUSION) == len(qu.FEATURES)
