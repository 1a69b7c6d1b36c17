"""Labels of pieces, the loss, adaptation and the source start."""

import random

import pytest
import torch

from metalearn_book.case_studies.sequence_labels import EpisodeSampler, bio_labels
from metalearn_book.case_studies.tuned_taggers import adapt_top, piece_labels
from metalearn_book.case_studies.tuned_taggers import support_examples, token_loss
from metalearn_book.case_studies.tuned_taggers import train_on_sources, with_one_type
from metalearn_book.case_studies.word_vectors import WordModel, put_by_word, windows
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


@pytest.fixture(scope="module")
def start(encoder, pool):
    "A source start that was trained for a moment on generated sentences."
    model = WordModel(encoder)
    train_on_sources(model, {"tiny": pool}, 60, lr=1e-3, head_lr=1e-2)
    return model


def test_labels_stand_at_first_pieces_of_own_words_only(encoder):
    model = WordModel(encoder)
    words = [f"word{i}" for i in range(100)]
    every = windows(model, [words])
    assert len(every) > 1
    y = piece_labels(every, [list(range(100))], max(len(w.ids) for w in every))
    assert sorted(y[y >= 0].tolist()) == list(range(100))
    into = [{}]
    put_by_word(every, y, into)
    assert {i: v.item() for i, v in into[0].items()} == {i: i for i in range(100)}


def test_token_loss_ignores_padding_and_masked_sentences():
    logits, y = torch.randn(2, 3, 4, 5), torch.randint(0, 5, (2, 3, 4))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    by_hand = torch.stack(
        [
            torch.nn.functional.cross_entropy(
                logits[b, :n].flatten(0, 1), y[b, :n].flatten()
            )
            for b, n in ((0, 2), (1, 1))
        ]
    )
    torch.testing.assert_close(token_loss(logits, y, mask), by_hand)


def test_adaptation_learns_the_support_set_and_leaves_the_start_alone(
    start, pool, episode
):
    task = support_examples(
        start, with_one_type(episode.sentences(pool)), bio_labels(["any"])
    )
    detector = start.top.with_head(start.detector)
    before = [p.clone() for p in detector.parameters()]
    after = adapt_top(detector, task, lr=1e-3, head_lr=1e-2, steps=40)
    x = {k: v[0] for k, v in task.x.items()}
    assert token_loss(after(**x)[None], task.y) < 0.5 * token_loss(
        detector(**x)[None], task.y
    )
    assert all(torch.equal(a, b) for a, b in zip(before, detector.parameters()))
    again = adapt_top(detector, task, lr=1e-3, head_lr=1e-2, steps=40)
    assert all(
        torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters())
    )
