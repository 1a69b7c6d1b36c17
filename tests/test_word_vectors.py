"""Words, pieces and windows; the encoder cut in two; nearest words."""

import random

import pytest
import torch

from metalearn_book.case_studies.sequence_labels import EpisodeSampler, repair_tags
from metalearn_book.case_studies.word_vectors import MOST_PIECES, NNShot, WordModel
from metalearn_book.case_studies.word_vectors import abstract_transitions
from metalearn_book.case_studies.word_vectors import expand_transitions, spans_of_words
from metalearn_book.case_studies.word_vectors import windows, word_outputs, word_pieces
from metalearn_book.case_studies.word_vectors import word_shape
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny")


@pytest.fixture(scope="module")
def pool():
    return load_dataset_by_name("tiny_entities").where(part="train")


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


# words and pieces


def test_pieces_are_those_of_the_tokenizer(encoder, pool):
    for words in [*pool.tokens[:50], ["Ünï-cödé", "北京", "😀", "don't", "a\u0301"]]:
        assert (
            sum(word_pieces(encoder.tokenizer, words), [])
            == encoder.tokenizer(
                words, is_split_into_words=True, add_special_tokens=False
            )["input_ids"]
        )


@pytest.mark.parametrize(
    "word", ["\u200b", "\ufe0f", "\x00", "x" * 5000, "😀" * 100, "ﷺ"]
)
def test_no_word_is_lost(encoder, word):
    pieces = word_pieces(encoder.tokenizer, ["a", word, "b"])
    assert len(pieces) == 3 and all(1 <= len(p) <= MOST_PIECES for p in pieces)


@pytest.mark.parametrize(
    "sizes, room",
    [
        ([1] * 500, 40),
        ([32] * 20, 126),
        ([5, 32, 1, 1, 32, 32, 7] * 9, 34),
        ([1], 32),
        ([3] * 13, 39),
    ],
)
def test_each_word_is_answered_once(sizes, room):
    cover = spans_of_words(sizes, room)
    assert [i for *_, own in cover for i in own] == list(range(len(sizes)))
    for start, end, own in cover:
        assert sum(sizes[start:end]) <= room and start <= own.start and own.stop <= end


def test_windows_refuse_a_limit_that_a_word_may_exceed(encoder):
    with pytest.raises(ValueError, match="at least 32 are needed"):
        windows(WordModel(encoder), [["a"]], max_length=20)


def test_padding_and_company_change_nothing(encoder):
    model = WordModel(encoder)
    short, long = (
        ["pay", "rent"],
        ["turn", "the", "lamp", "off", "in", "the", "kitchen"] * 3,
    )
    alone = word_outputs(model, [model.top], [short])[0][0]
    together = word_outputs(model, [model.top], [long, short, long])[0][1]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_word_shapes_start_without_effect_and_then_matter(encoder):
    model = WordModel(encoder)
    a, b = (word_outputs(model, [model.top], [[w]])[0][0] for w in ("apple", "Apple"))
    torch.testing.assert_close(a, b)
    with torch.no_grad():
        model.top.shapes.weight[word_shape("Apple")] = 1.0
    assert not torch.allclose(a, word_outputs(model, [model.top], [["Apple"]])[0][0])


@pytest.mark.parametrize("n_top", [0, 3])
def test_a_cut_outside_the_encoder(encoder, n_top):
    with pytest.raises(ValueError, match="give 1 to 2"):
        WordModel(encoder, n_top)


# nearest words


@pytest.mark.parametrize("n_types", [1, 2, 5])
def test_transitions_are_probabilities(n_types):
    abstract = abstract_transitions([["B-a", "I-a", "O", "B-b", "B-a"]] * 5)
    transitions, first = expand_transitions(abstract, n_types)
    assert torch.allclose(
        transitions.exp().sum(-1), torch.ones(n_types + 1)
    ) and first.exp().sum() == pytest.approx(1)


def test_nearest_neighbours_find_the_support_set_itself(encoder, pool, episode):
    model = WordModel(encoder)
    support = episode.sentences(pool)
    found = NNShot(model, model.top.with_head(None)).adapt(support, episode.types)(
        [w for w, _ in support]
    )
    merged = [
        repair_tags([t if t == "O" else "I-" + t[2:] for t in tags])
        for _, tags in support
    ]  # no B: neighbours of one type merge
    assert found == merged


@pytest.mark.parametrize("room", [2, 1, 0, -3, float("nan")])
def test_a_word_with_more_pieces_than_there_is_room_for_is_refused(room):
    with pytest.raises(
        ValueError, match="a word of 3 pieces does not fit|room must be"
    ):
        spans_of_words([1, 3, 2], room)
    assert spans_of_words([], 1) == [(0, 0, range(0))]
