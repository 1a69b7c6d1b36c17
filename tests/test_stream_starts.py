"""Streams as tasks, operations counted, and one budget spent in several ways."""

import copy
import math

import pytest
import torch
from shared import gen

from metalearn_book.foundations.training import meta_train
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.dynamic_evaluation import (
    StreamMAML,
    dynamic_evaluation,
)
from metalearn_book.language_models.stream_starts import (
    EqualCompute,
    StreamTasks,
    equal_compute,
    operations,
)

TEXTS = [f"<headline> {a} is {b}" for a in ("rome", "oslo") for b in ("old", "new")]
TOKENIZER = small_gpt.train_tokenizer(TEXTS, 290)
GROUPS = {"a": TEXTS[:2] * 6, "b": TEXTS[2:] * 6}
PARTS = ("train", "validation", "test")
SIZES = {"width": 8, "vocabulary": 270, "chunk": 6, "memory": 2, "n_train": 2}
SIZES |= {"n_test": 3, "n_rows": 4, "per_step": 1}


def gpt(context=32):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(290, context, 8, 1, 2)).eval()


def spending(budget=12, **options) -> EqualCompute:
    return equal_compute({p: GROUPS for p in PARTS}, budget, **(SIZES | options))


# --- streams as tasks ----------------------------------------------------------------


def test_streams_are_drawn_by_the_generator_and_no_group_twice():
    groups = {w: [f"{w} {i} is old" for i in range(9)] for w in ("rome", "oslo")}
    tasks = StreamTasks(groups, TOKENIZER, n_chunks=3, chunk=6, memory=6)
    one, same = (tasks.sample(2, gen(1)).query.x for _ in range(2))
    assert torch.equal(one, same)
    names = {w for x in one for w in groups if w in TOKENIZER.decode(x[0])}
    assert names == set(groups)
    with pytest.raises(ValueError, match="torch.Generator"):
        tasks.sample(2, 3)
    with pytest.raises(ValueError, match="name must be one of"):
        tasks.stream("lima", gen())


def test_rows_are_cut_from_the_same_texts_and_nothing_comes_twice():
    groups = {w: [f"{w} number {i} is old" for i in range(9)] for w in ("rome", "oslo")}
    tasks = StreamTasks(groups, TOKENIZER, n_chunks=3, chunk=6, memory=6)
    rows = tasks.rows(10, gen())
    lengths = [sum(len(r) for r in some) for some in tasks._rows.values()]
    assert rows.shape == (sum(n // 10 for n in lengths), 10)
    text = [TOKENIZER.decode(r) for r in rows[: lengths[0] // 10]]
    assert not any("oslo" in t for t in text)
    with pytest.raises(ValueError, match="no group fills a row of length=5000"):
        tasks.rows(5000, gen())
    with pytest.raises(ValueError, match="torch.Generator"):
        tasks.rows(10, 0)


def test_training_lowers_the_loss_of_the_streams():
    tasks = StreamTasks(GROUPS, TOKENIZER, n_chunks=3, chunk=8, memory=8)
    learner = StreamMAML(gpt(), inner_lr=0.3)
    batch = tasks.sample(2, gen(9))
    before = learner(batch).item()
    meta_train(learner, tasks, steps=8, tasks_per_step=2, outer_lr=1e-2, progress=False)
    assert learner(batch).item() < before - 0.05


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: StreamTasks({}, TOKENIZER), "dict from names"),
        (lambda: StreamTasks([TEXTS], TOKENIZER), "dict from names"),
        (lambda: StreamTasks({"a": []}, TOKENIZER), "at least 1"),
        (lambda: StreamTasks({"a": [""]}, TOKENIZER), "something to predict"),
        (lambda: StreamTasks({"a": TEXTS[:1]}, TOKENIZER), "needs 257"),
        (lambda: StreamTasks({"a": TEXTS}, TOKENIZER, n_chunks=1), "at least 2"),
        (lambda: equal_compute({"train": GROUPS}, 12), "train, validation and test"),
        (
            lambda: equal_compute({"train": {}, "validation": GROUPS, "test": {}}, 12),
            "dict from names",
        ),
        (lambda: spending(0), "budget must be at least 1"),
        (lambda: spending(1), "more than half of budget=1"),
        (lambda: spending(lr=0), "lr must be a finite number above 0"),
        (lambda: operations("run"), "must be a function"),
    ],
)
def test_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- compute -------------------------------------------------------------------------


def test_operations_are_those_of_the_products():
    a, b = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 2 * 2 * 3 * 4 * 5
    assert operations(lambda: None) == 0


def test_prices_follow_the_number_of_passes():
    made = spending()
    price, windows = made.price, made.per_step * made.tasks.n_chunks / made.n_rows
    # first order: each window forth for its loss; all but the last forth and back
    # again for the step; and the backward pass of the outer loss
    assert 1 < price["first order"] / windows < price["second order"] / windows
    assert price["test"] == pytest.approx(price["stepping"] - price["frozen"])
    assert 2 < price["stepping"] / price["frozen"] < 3


def test_twice_the_rows_of_a_plain_step_halve_the_prices():
    one, two = spending(24), spending(24, n_rows=8)
    for name, value in one.price.items():
        assert value == pytest.approx(2 * two.price[name])


def test_the_path_leaves_the_model_as_it_was_at_each_place():
    made = spending()
    kept = made.path(0, [0, 5])
    assert set(kept) == {0, 5, 12}
    fresh = made.make(0).state_dict()
    assert all(torch.equal(fresh[n], p) for n, p in kept[0][0].state_dict().items())
    again = made.path(0, [5])
    for (a, _), (b, _) in ((kept[5], again[5]), (kept[12], again[12])):
        assert all(
            torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.parameters())
        )


def test_a_copy_on_the_path_goes_on_with_its_own_optimizer():
    made = spending()
    model, optimizer = made.path(0, [5])[5]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert len(optimizer.state) == len(list(model.parameters()))


def test_meta_training_ends_where_the_training_ends():
    made = spending(40)
    spent, calls = (
        made.budget - made.price["test"] - 3.5 * made.price["second order"],
        [],
    )
    model, optimizer = made.path(0, [20])[20]
    step = optimizer.step
    optimizer.step = lambda *a, **k: calls.append(1) or step(*a, **k)
    made.meta(model, optimizer, spent, 0)
    assert len(calls) == 3


def test_the_rate_rises_and_falls():
    made = spending(100)
    rates = [made.rate_at(s) for s in range(101)]
    top = rates.index(max(rates))
    assert top <= 5 and rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.05 * made.lr)


def test_bits_are_those_of_dynamic_evaluation_and_rates_come_back():
    made = spending()
    model = made.make(0)
    learner = made.learner(model, first_order=True)
    for factor, options in ((0.0, {"inner_steps": 0}), (2.0, {"inner_lr": 0.2})):
        found = made.bits(learner, "test", factor)
        ids = made.streams["test"]
        theirs = dynamic_evaluation(model, ids, chunk=6, memory=2, **options)
        expected = theirs.bits_per_byte(ids, made.tokenizer)
        assert torch.allclose(found.values, expected, atol=1e-6)
    assert learner.inner_steps == 1
    assert torch.allclose(learner.loop.inner_lr, torch.tensor(0.1))
    with pytest.raises(ValueError, match="part must be one of"):
        made.bits(learner, "train")


def test_a_walk_that_leaves_the_numbers_is_infinite_and_not_left_out():
    made = spending()
    broken = made.make(0)
    broken.norm.weight.data[0] = math.nan
    found = made.bits(made.learner(broken, first_order=True), "test")
    assert found.values.isinf().all()


def test_all_ways_of_a_seed():
    made = spending(30)
    found = made.run(0, [0.5], first_order=[0.5], factor=0.5)
    assert set(found) == {
        "frozen",
        "steps",
        (0.5, "second order"),
        (0.5, "first order"),
    }
    for way in found.values():
        assert way["frozen"].values.isfinite().all()
        assert len(way["stepped"]) == len(GROUPS)
    assert torch.equal(
        found["frozen"]["frozen"].values, found["frozen"]["stepped"].values
    )
    same = made.run(0, [0.5])
    key = (0.5, "second order")
    again = copy.deepcopy(made).run(0, [0.5])
    assert torch.equal(same[key]["stepped"].values, again[key]["stepped"].values)
    for share in (0, 1, -0.5, math.nan):
        with pytest.raises(ValueError, match="shares must be"):
            made.run(0, [share])


@pytest.mark.parametrize("wrong", [None, 1.5, "far", "floating"])
def test_streams_that_can_not_be_walked_are_refused_before_training(wrong):
    made = spending()
    ids = made.streams["test"]
    made.streams["test"] = (
        ids + 5000 if wrong == "far" else ids.float() if wrong == "floating" else wrong
    )
    with pytest.raises(ValueError):
        made.__post_init__()
