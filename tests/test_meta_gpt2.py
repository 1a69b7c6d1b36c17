"""MAML on language models: tasks of texts, equal gradients by other ways, training by
each method, and what is refused."""

import copy
import math

import pytest
import torch
from shared import gen
from tiny_texts import GROUPS, TOKENIZER, WORDS, gpt, tasks
from torch.func import functional_call

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.verification import verify
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.meta_gpt2 import (
    METHODS,
    MetaGPT2,
    TextTasks,
    measure_groups,
    meta_learning,
    rates_times,
    text_batch,
    tiny_groups,
)
from metalearn_book.language_models.pretrained import byte_tokenizer
from metalearn_book.language_models.small_gpt import causal_loss, token_batch

RUN = {"steps": 2, "tasks_per_step": 2, "progress": False}


def learner(model=None, **options):
    given = {"length": 12, "inner_lr": 0.3, "inner_steps": 2} | options
    return MetaGPT2(gpt() if model is None else model, TOKENIZER, **given)


# --- tasks of texts ------------------------------------------------------------------


def test_texts_are_the_batches_of_the_small_gpt():
    texts = GROUPS["rome"][:3]
    for mine, theirs in zip(
        text_batch(TOKENIZER, texts, 9), token_batch(TOKENIZER, texts, 9)
    ):
        assert torch.equal(mine, theirs)


def test_of_a_pair_the_answer_alone_counts():
    ids, labels = text_batch(TOKENIZER, [("<headline> rome is", " old")], 20)
    counts = labels[0] != -100
    assert TOKENIZER.decode(ids[0][counts]) == " old<end>"
    assert torch.equal(ids[0][counts], labels[0][counts])
    before = ids[0][: int(counts.nonzero()[0])]
    assert TOKENIZER.decode(before) == "<headline> rome is"


def test_pairs_by_a_tokenizer_of_transformers():
    tokenizer = byte_tokenizer()
    ids, labels = text_batch(tokenizer, [("ab", "c")], 8)
    counts = labels[0] != -100
    assert tokenizer.decode(ids[0][counts][:1]) == "c" and counts.sum() == 2


def test_support_and_query_share_no_text_and_no_group_comes_twice():
    for seed in range(10):
        batch = tasks().sample(3, gen(seed))
        for b in range(3):
            sides = [
                {tuple(r.tolist()) for r in e.x[b]}
                for e in (batch.support, batch.query)
            ]
            assert not sides[0] & sides[1]
        places = {TOKENIZER.decode(x[0][:8]).split()[1] for x in batch.query.x}
        assert len(places) == 3


def test_texts_that_are_equal_after_the_cut_are_one():
    groups = {"a": ["<headline> old rome " + w for w in WORDS]}
    n = len(TOKENIZER.encode("<headline> old rome"))
    with pytest.raises(ValueError, match="has 1 different texts"):
        TextTasks(groups, TOKENIZER, 1, 1, length=n)
    TextTasks(groups, TOKENIZER, 1, 1, length=20)


def test_more_shots_keep_the_query_and_leave_small_groups_out():
    one, four = (tasks(1).with_shots(k).of_group("oslo", gen(3)) for k in (1, 4))
    assert torch.equal(one.query.x, four.query.x)
    assert torch.equal(one.support.x[:, 0], four.support.x[:, 0])
    uneven = TextTasks(GROUPS | {"few": GROUPS["rome"][:5]}, TOKENIZER, 2, 2, 12)
    assert uneven.with_shots(4).names == list(GROUPS)
    with pytest.raises(ValueError, match="largest group has 36"):
        tasks().with_shots(60)


class NoPadding:
    eos_token_id, pad_token_id = 1, None

    def encode(self, text, **_):
        return [2, 3]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TextTasks({}, TOKENIZER), "at least one"),
        (lambda: TextTasks(["a"], TOKENIZER), "must be a dict"),
        (lambda: TextTasks({"a": []}, TOKENIZER), "group 'a': items must hold"),
        (lambda: TextTasks({"a": ["b"]}, TOKENIZER, 1, 1), "1 different texts"),
        (lambda: TextTasks(GROUPS, NoPadding()), "no padding token"),
        (lambda: text_batch(NoPadding(), [("a", "b")]), "no padding token"),
        (lambda: text_batch(TOKENIZER, [("a " * 50, "b")], 20), "would be cut off"),
        (lambda: text_batch(TOKENIZER, [("a", " ")], 20), "empty answer"),
        (lambda: text_batch(TOKENIZER, ["a", ("b", "c")], 20), "all texts or all"),
        (lambda: text_batch(TOKENIZER, [("a", "b", "c")], 20), "pairs \\(prompt"),
        (lambda: text_batch(TOKENIZER, [3], 20), "must be texts, or pairs"),
        (lambda: tasks().of_group("bonn", gen()), "name must be one of"),
        (lambda: tasks().sample(2, 3), "must be a torch.Generator"),
        (lambda: tiny_groups("dev"), "part must be one of"),
    ],
)
def test_tasks_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- the gradient --------------------------------------------------------------------


def by_hand(model, batch, inner_lr=0.3, steps=2, first_order=False):
    losses = []
    for b in range(len(batch)):
        weights = dict(model.named_parameters())
        x, y = batch.support.x[b], batch.support.y[b]
        for _ in range(steps):
            loss = causal_loss(functional_call(model, weights, (x,)), y)
            grads = torch.autograd.grad(
                loss, list(weights.values()), create_graph=not first_order
            )
            weights = {n: w - inner_lr * g for (n, w), g in zip(weights.items(), grads)}
        told = functional_call(model, weights, (batch.query.x[b],))
        losses.append(causal_loss(told, batch.query.y[b]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("first_order", [False, True])
def test_loss_and_gradient_are_those_of_a_loop_by_hand(first_order):
    model, batch = gpt().double(), tasks().sample(2, gen())
    losses = [
        learner(model, first_order=first_order)(batch),
        by_hand(model, batch, first_order=first_order),
    ]
    grads = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    torch.testing.assert_close(*losses, rtol=1e-11, atol=0)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)


def test_verified_in_every_mode():
    verify(
        learner(gpt(), length=8),
        tasks(1, 1, 8).sample(2, gen(1)),
        raise_if_wrong=True,
    )


def test_gpt2_of_transformers_has_the_same_meta_gradient():
    ours, batch = gpt().double(), tasks().sample(2, gen(2))
    theirs = small_gpt.to_gpt2(gpt()).double()
    losses = [learner(m)(batch) for m in (ours, theirs)]
    tables = ours.tokens.weight, theirs.transformer.wte.weight
    grads = [torch.autograd.grad(loss, w)[0] for loss, w in zip(losses, tables)]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-11)


def test_an_adapted_copy_is_what_the_engine_predicts_with():
    made, texts = learner(), GROUPS["rome"][:2]
    before = copy.deepcopy(made.loop.model.state_dict())
    model = made.adapted_model(texts, 3)
    part = made.examples(texts)
    with torch.no_grad():
        told = made.adapt(part, 3)(part.x)[0]
        torch.testing.assert_close(model(part.x[0]), told, rtol=1e-4, atol=1e-5)
    after = made.loop.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert isinstance(made.generate(texts, "<headline> rome", n_tokens=3), str)


# --- training ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_a_copy_and_repeats_itself(method):
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    made = [meta_learning(model, tasks(), method=method, **RUN) for _ in range(2)]
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    states = [m.loop.model.state_dict() for m in made]
    assert all(torch.equal(states[0][n], states[1][n]) for n in before)
    assert any(not torch.equal(before[n], states[0][n]) for n in before)
    assert isinstance(made[0], MetaGPT2) and made[0].history is not None


def test_joint_training_takes_the_gradient_of_all_texts():
    model, lr = gpt(), 1e-3
    made = meta_learning(
        model, tasks(), method="joint", outer_lr=lr, **RUN | {"steps": 1}
    )
    batch = tasks().sample(2, gen(0))
    x = torch.cat([batch.support.x, batch.query.x], 1).flatten(0, 1)
    y = torch.cat([batch.support.y, batch.query.y], 1).flatten(0, 1)
    other = copy.deepcopy(model)
    optimizer = torch.optim.Adam(other.parameters(), lr=lr)
    causal_loss(other(x), y).backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
    optimizer.step()
    for name, p in made.loop.model.named_parameters():
        torch.testing.assert_close(p, other.get_parameter(name), rtol=1e-4, atol=1e-6)


def test_learned_rates_have_a_rate_of_their_own():
    options = {"learn_lr": "tensor", "outer_lr": 1e-6, "rate_lr": 1e-2}
    made = meta_learning(gpt(), tasks(), **options, **RUN)
    assert (made.loop.inner_lr - 0.05).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_no_number_ends_the_run(method):
    model = gpt()
    model.norm.weight.data[0] = math.nan
    with pytest.raises(RuntimeError, match="finite"):
        meta_learning(model, tasks(), method=method, **RUN)


def test_what_is_refused():
    with pytest.raises(ValueError, match="context of 40"):
        learner(length=41)
    with pytest.raises(ValueError, match="must be one of"):
        meta_learning(gpt(), tasks(), method="anil")
    with pytest.raises(ValueError, match="over the model's context"):
        learner().generate([], "<headline>" + " rome" * 60)
    with pytest.raises(ValueError, match="language model|how many tokens"):
        MetaGPT2(torch.nn.Linear(2, 2), TOKENIZER)
    fused = small_gpt.to_gpt2(gpt())
    fused.config._attn_implementation = "sdpa"
    with pytest.raises(ValueError, match="no second derivative"):
        learner(fused)
    learner(fused, first_order=True)


# --- the measures --------------------------------------------------------------------


def test_one_value_for_each_group_and_none_of_them_moves_the_rates():
    made, some = learner(), tasks()
    found = measure_groups(made, some, seed=1)
    assert len(found) == 3 and torch.equal(
        found.values, measure_groups(made, some, seed=1).values
    )
    still = measure_groups(made, some, inner_steps=0)
    assert torch.equal(still.values, measure_groups(made, some, factor=0).values)
    assert torch.allclose(made.loop.inner_lr, torch.tensor(0.3))
    double = measure_groups(learner(inner_lr=0.6), some)
    torch.testing.assert_close(
        measure_groups(made, some, factor=2).values, double.values
    )
    with pytest.raises(ValueError, match="inner loop"), rates_times(gpt(), 2):
        pass


def test_a_loss_beyond_all_numbers_is_infinite():
    found = measure_groups(learner(inner_lr=1e30), tasks())
    assert found.values.isinf().all()


def test_masks_are_not_needed_since_padding_stands_behind():
    made, batch = learner(), tasks().sample(2, gen(7))
    wider = [
        Examples(
            torch.cat([e.x, torch.zeros_like(e.x[..., :2])], -1),
            torch.cat([e.y, torch.full_like(e.y[..., :2], -100)], -1),
        )
        for e in (batch.support, batch.query)
    ]
    torch.testing.assert_close(
        made(batch), made(TaskBatch(*wider)), rtol=1e-5, atol=1e-6
    )
