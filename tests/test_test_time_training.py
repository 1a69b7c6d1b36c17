"""Test-time training on one task: leave-one-out tasks, views and votes, factors that
are thrown away, and what is refused."""

import copy
import math

import pytest
import torch

from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.test_time_training import (
    AS_IT_IS,
    ThrowAwayLoRA,
    View,
    in_front,
    leave_one_out,
    vote,
)

PAIRS = [("ab>", "b"), ("cd>", "d"), ("ef>", "f")]
LETTERS = small_gpt.train_tokenizer(["a"], 263)


def gpt(n=263, context=32):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(n, context, 8, 1, 2)).eval()


def test_each_pair_is_asked_with_the_others_in_front():
    made = leave_one_out(PAIRS, 2, between=";")
    assert [a for _, a in made] == ["b", "b", "d", "d", "f", "f"]
    for prompt, answer in made:
        *front, asked = prompt.split(";")
        whole = [p + a for p, a in PAIRS]
        assert sorted([*front, asked + answer]) == sorted(whole)


def test_orders_are_those_of_the_seed():
    many = [(f"{i}>", str(i)) for i in range(8)]
    first = leave_one_out(many, seed=3)
    assert first == leave_one_out(many, seed=3) != leave_one_out(many, seed=4)


def test_of_a_single_pair_nothing_can_be_left_out():
    with pytest.raises(ValueError, match="two pairs or more, got 1.*MetaGPT2"):
        leave_one_out(PAIRS[:1])
    learner = made()
    with pytest.raises(ValueError, match="two pairs or more, got 1"):
        learner.answer(PAIRS[:1], ["gh>"], n_tokens=1)
    assert len(learner.answer(PAIRS[:1], ["gh>"], n_tokens=1, inner_steps=0)) == 1


@pytest.mark.parametrize("odd", [[], ["ab>b"], [("a", "b", "c")], [("a", 1)], "ab", 3])
def test_what_are_no_pairs(odd):
    with pytest.raises(ValueError, match="pairs|items"):
        leave_one_out(odd)


def test_votes_and_ties():
    assert vote(["b", "a", "a"]) == "a" and vote(["b", "a"]) == "b"
    for odd in ([], "ab", [1]):
        with pytest.raises(ValueError, match="answers"):
            vote(odd)


def test_in_front_is_the_text_that_is_read():
    assert in_front(PAIRS[:2], "gh>", ";") == "ab>b;cd>d;gh>"
    assert in_front([], "gh>") == "gh>"


def made(model=None, **options):
    given = {"length": 24, "rank": 2, "inner_steps": 3, "between": ";"} | options
    model = gpt(263) if model is None else model
    return ThrowAwayLoRA(model, LETTERS, **given)


def test_the_factors_are_thrown_away_and_the_next_task_finds_the_model():
    model = gpt(263)
    before, learner = copy.deepcopy(model.state_dict()), made(model)
    one = learner.answer(PAIRS, ["gh>", "ba>"], n_tokens=2)
    learner.answer([("hg>", "h"), ("fe>", "f")], ["dc>"], n_tokens=1)
    assert learner.answer(PAIRS, ["gh>", "ba>"], n_tokens=2) == one
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()


def test_no_steps_is_the_model_in_context():
    model = gpt(263)
    told = made(model).answer(PAIRS, ["gh>"], n_tokens=2, inner_steps=0)
    asked = in_front(PAIRS, "gh>", ";")
    more = {"n_tokens": 2, "temperature": 0.0, "stop": None}
    assert told == [small_gpt.generate(model, LETTERS, asked, **more)]


def test_steps_lower_the_loss_of_the_leave_one_out_tasks():
    learner = made(inner_steps=30, inner_lr=0.03)
    examples = learner.learner.examples(learner.items(PAIRS))
    with torch.no_grad():
        before, after = (
            small_gpt.causal_loss_per_task(
                learner.learner.adapt(examples, k)(examples.x), examples.y
            ).item()
            for k in (0, 30)
        )
    assert after < before - 0.05


def test_only_the_factors_move():
    learner = made()
    moved = learner.trained(learner.items(PAIRS))
    own = learner.learner.loop.model.state_dict()
    for name, value in moved.state_dict().items():
        assert torch.equal(value, own[name]) != ("lora_" in name)


def test_views_are_undone_before_the_vote():
    swap = View(
        lambda t: t.translate(str.maketrans("abcdefgh", "badcfehg")),
        lambda t: t.translate(str.maketrans("badcfehg", "abcdefgh")),
    )
    learner = made()
    items = learner.items(PAIRS, (AS_IT_IS, swap))
    assert len(items) == 6 and items[3][1] == "a"
    assert len(learner.answer(PAIRS, ["gh>"], n_tokens=1, views=(AS_IT_IS, swap))) == 1
    with pytest.raises(ValueError, match="does not undo"):
        learner.items(PAIRS, (View(str.upper, str),))
    with pytest.raises(ValueError, match="change must be a function"):
        View(3, str)
    with pytest.raises(ValueError, match="must make a text of a text"):
        View(lambda text: None, str).of(PAIRS)
    with pytest.raises(ValueError, match="back must make a text of a text"):
        View(str, len).of(PAIRS)


def test_an_error_in_a_view_names_it():
    learner = made()
    letters = dict(zip("abcdef>", "bcdefa>"))
    undone = {v: k for k, v in letters.items()}
    narrow = View(lambda t: "".join(letters[c] for c in t),
                  lambda t: "".join(undone[c] for c in t))  # fmt: skip
    assert len(learner.items(PAIRS, (AS_IT_IS, narrow))) == 6
    fails = View(lambda t: {}[t], str)
    with pytest.raises(ValueError, match=r"views\[1\]: change must take.*KeyError"):
        learner.items(PAIRS, (AS_IT_IS, fails))
    with pytest.raises(ValueError, match=r"views\[1\]: change must take.*KeyError"):
        learner.answer(PAIRS, ["gh>"], n_tokens=1, views=(AS_IT_IS, narrow))
    with pytest.raises(ValueError, match=r"views\[0\]: back does not undo"):
        learner.answer(PAIRS, ["ab>"], n_tokens=1, views=(View(str.upper, str),))
    with pytest.raises(ValueError, match="two pairs or more"):
        learner.items(PAIRS[:1], (AS_IT_IS,))


def test_prompts_over_the_context_are_refused():
    with pytest.raises(ValueError, match="over the model's context"):
        made(length=40)
    with pytest.raises(ValueError, match="more than length=10"):
        made(length=10).answer(PAIRS, ["gh>"], n_tokens=1)
    long = [(f"{'a' * 30}>", "a")]
    with pytest.raises(ValueError, match="over the model's context"):
        made().answer(long, ["gh>"], n_tokens=1, inner_steps=0)


def test_another_script_is_read_and_answered_as_bytes():
    pairs = [("мир>", "р"), ("дом>", "м")]
    items = made(length=32).items(pairs)
    assert items[0][0].endswith("мир>")
    made(length=32).trained(items)


def test_a_loss_of_the_factors_that_is_not_finite():
    broken = gpt(263)
    broken.norm.weight.data[0] = math.nan
    with pytest.raises(RuntimeError, match="finite"):
        made(broken).answer(PAIRS, ["gh>"], n_tokens=1)
