"""Pairs of text in a row: what counts, what is learned, what is refused."""

import copy

import pytest
import torch

from metalearn_book.language_models import meta_icl as ic
from metalearn_book.language_models import small_gpt

PAIRS = {
    place: [(f"<headline> {place} is {a}", f"{b} it") for a in "xyz" for b in "uvw"]
    for place in ("rome", "oslo")
}
TEXTS = [part for pairs in PAIRS.values() for pair in pairs for part in pair]
TOKENIZER = small_gpt.train_tokenizer(TEXTS, 280)


def gpt(context=64):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(280, context, 8, 1, 2)).eval()


def test_joined_pairs_are_the_rows_of_each_pair():
    from metalearn_book.language_models.meta_gpt2 import text_batch

    pairs = PAIRS["rome"][:3]
    single = text_batch(TOKENIZER, pairs, 20)
    ids, labels = ic.joined_batch(TOKENIZER, [pairs], 60)
    rows = [row[row != TOKENIZER.pad_token_id].tolist() for row in single[0]]
    flat = sum(rows, [])
    assert ids[0, : len(flat)].tolist() == flat
    kept = [t.tolist() for t in (single[1][single[1] != -100], labels[labels != -100])]
    assert kept[0] == kept[1]
    last = ic.joined_batch(TOKENIZER, [pairs], 60, "last")[1]
    assert last[last != -100].tolist() == single[1][2][single[1][2] != -100].tolist()


def test_answer_nats_are_those_of_label_scores():
    model, pairs = gpt(), PAIRS["rome"]
    ours = ic.answer_nats(model, TOKENIZER, [pairs[:1], pairs[:3]])
    ids, labels = ic.joined_batch(TOKENIZER, [pairs[:3]], 64, "last")
    logits = model(ids).log_softmax(-1)
    where = (labels[0] != -100).nonzero()[:, 0]
    by_hand = -torch.stack([logits[0, i - 1, ids[0, i]] for i in where]).mean()
    assert abs(ours[1].item() - by_hand.item()) < 1e-4
    assert abs(ours[0] - ours[1]) > 0


def test_tuning_in_context_learns_and_leaves_the_model():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    made = ic.tune_in_context(
        model, TOKENIZER, PAIRS, k_shot=2, steps=30, lr=1e-2, length=64
    )
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)
    assert sum(made.history[-5:]) < sum(made.history[:5])
    again = ic.tune_in_context(
        model, TOKENIZER, PAIRS, k_shot=2, steps=30, lr=1e-2, length=64
    )
    assert made.history == again.history


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ic.joined_batch(TOKENIZER, [PAIRS["rome"]], 20), "fewer or shorter"),
        (lambda: ic.joined_batch(TOKENIZER, [["a text"]], 20), "must hold pairs"),
        (lambda: ic.joined_batch(TOKENIZER, [[("a", " ")]], 20), "empty answer"),
        (lambda: ic.joined_batch(TOKENIZER, [[]], 20), "at least 1"),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, {}, length=60),
            "groups must be a dict",
        ),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, PAIRS, k_shot=20, length=60),
            "and 21 are needed",
        ),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, PAIRS, length=65),
            "length must be at most 64",
        ),
        (lambda: ic.answer_nats(gpt(40), TOKENIZER, [PAIRS["rome"]]), "length=40"),
    ],
)
def test_what_pairs_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- episodes ------------------------------------------------------------------------


def test_episodes_are_the_same_at_a_seed_and_share_no_pair():
    found = ic.pair_episodes(PAIRS, 3, 2)
    assert found == ic.pair_episodes(PAIRS, 3, 2) != ic.pair_episodes(PAIRS, 3, 2, 1)
    for name, (support, asked) in found.items():
        assert len(support) == 3 and len(asked) == 2
        assert len(set(support + asked)) == 5 and set(support) <= set(PAIRS[name])


def test_pairs_in_front_are_those_of_answer_nats():
    model, found = gpt(), ic.pair_episodes(PAIRS, 2, 2)
    told = ic.nats_in_front(model, TOKENIZER, found, 1)
    for i, (support, asked) in enumerate(found.values()):
        rows = [[support[0], q] for q in asked]
        by_hand = ic.answer_nats(model, TOKENIZER, rows).mean()
        assert told.values[i] == by_hand
    none = ic.nats_in_front(model, TOKENIZER, found, 0).values
    assert not torch.equal(none, told.values)


def test_after_no_step_the_model_is_as_before():
    from metalearn_book.language_models.meta_gpt2 import MetaGPT2

    model, found = gpt(), ic.pair_episodes(PAIRS, 2, 2)
    learner = MetaGPT2(model, TOKENIZER, length=30, inner_lr=0.1, inner_steps=2)
    none = ic.nats_after_steps(learner, found, inner_steps=0).values
    assert torch.allclose(none, ic.nats_in_front(model, TOKENIZER, found, 0).values)
    some = ic.nats_after_steps(learner, found).values
    assert (some < none).all()  # the same few words again and again
    assert torch.equal(ic.nats_after_steps(learner, found, 0.0).values, none)
    assert (ic.nats_after_steps(learner, found, 1e30).values == torch.inf).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ic.pair_episodes(PAIRS, 9, 1), "and 10 are needed"),
        (lambda: ic.pair_episodes([]), "groups must be a dict"),
        (lambda: ic.nats_in_front(gpt(), TOKENIZER, {}), "episodes must be"),
        (lambda: ic.nats_in_front(gpt(), TOKENIZER, {"a": 3}), "episodes must be"),
        (
            lambda: ic.nats_in_front(gpt(), TOKENIZER, {"a": (None, [])}),
            "episodes must be",
        ),
        (
            lambda: ic.nats_in_front(
                gpt(), TOKENIZER, {"a": (PAIRS["rome"][:2], PAIRS["rome"][2:4])}, 7
            ),
            "k_shot=7 is more than the 2 pairs",
        ),
        (lambda: ic.nats_after_steps(gpt(), {"a": ([], [])}), "inner loop"),
        (lambda: ic.service_pairs("dev", TOKENIZER), "part must be one of"),
    ],
)
def test_what_episodes_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_pairs_of_services_are_short_and_different(monkeypatch):
    from metalearn_book.data import available

    if not available("sgd"):
        pytest.skip("the Schema-Guided dialogues are not on this machine")
    found = {p: ic.service_pairs(p, TOKENIZER, 60, 20) for p in ("validation", "test")}
    assert not set(found["validation"]) & set(found["test"])
    for pairs in found["test"].values():
        assert len(pairs) == len(set(pairs)) <= 20
        for asked, said in pairs:
            assert asked.startswith("<dialogue><user> ") and "<" not in said[8:]
            assert len(TOKENIZER.encode(asked)) + len(TOKENIZER.encode(said)) < 60
