"""Dynamic evaluation: streams and windows, equal losses and gradients by other ways,
and what is refused."""

import copy
import math

import pytest
import torch
from shared import gen
from torch import nn

from metalearn_book.foundations.inner_loop import Adam
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.verification import verify
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.pretrained import byte_tokenizer
from metalearn_book.language_models.small_gpt import causal_loss
from metalearn_book.language_models.dynamic_evaluation import (
    StreamLosses,
    StreamMAML,
    dynamic_evaluation,
    stream_ids,
    stream_windows,
    token_bytes,
)
from metalearn_book.optimization.maml import MAML

TEXTS = [f"<headline> {a} is {b}" for a in ("rome", "oslo") for b in ("old", "new")]
TOKENIZER = small_gpt.train_tokenizer(TEXTS, 290)


def gpt(n=290, context=32):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(n, context, 8, 1, 2)).eval()


def stream(n=41, b=None):
    shape = (n,) if b is None else (b, n)
    return torch.randint(7, 290, shape, generator=gen())


def as_tasks(ids, chunk=8, memory=4):
    chunks = stream_windows(ids, chunk, memory)
    return TaskBatch(Examples(chunks.x[:, :-1], chunks.y[:, :-1]), chunks)


# --- streams and windows -------------------------------------------------------------


def test_a_stream_is_the_texts_one_after_another():
    ids = stream_ids(TOKENIZER, TEXTS)
    parts = [small_gpt.document_ids(TOKENIZER, t) for t in TEXTS]
    assert ids.tolist() == sum(parts, [])


@pytest.mark.parametrize("text", ["rome είναι", "罗马 is", "Рим", "🙂 a\u0301", "\0"])
def test_another_script_is_bytes_and_nothing_is_lost(text):
    ids = stream_ids(TOKENIZER, [text])
    assert TOKENIZER.decode(ids, control=False) == text
    assert int(token_bytes(TOKENIZER)[ids].sum()) == len(text.encode())


def test_a_character_without_a_token_is_refused():
    class Words:
        eos_token_id, unk_token_id = 0, 3
        encode = staticmethod(lambda t, **_: [1 if w == "a" else 3 for w in t.split()])

    assert stream_ids(Words(), ["a a"]).tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="has no token for"):
        stream_ids(Words(), ["a", "a Рим"])


def test_the_end_that_doubles_as_unknown_is_no_unknown_character():
    tokenizer = byte_tokenizer()
    assert len(stream_ids(tokenizer, ["ab", "c"])) > 3


@pytest.mark.parametrize("n", [2, 8, 9, 10, 17, 40])
@pytest.mark.parametrize("memory", [1, 3, 20])
def test_every_token_but_the_first_counts_once(n, memory):
    ids = stream(n, 2)
    chunks = stream_windows(ids, 8, memory)
    assert chunks.x.shape == (2, math.ceil((n - 1) / 8), memory + 8)
    for b in range(2):
        y = chunks.y[b]
        assert torch.equal(y[y != -100], ids[b, 1:])
        assert torch.equal(chunks.x[b][y != -100], ids[b, 1:])
        for x, labels in zip(chunks.x[b], y):  # what counts has its past before it
            first = int((labels != -100).nonzero()[0])
            assert 1 <= first <= memory


@pytest.mark.parametrize(
    "ids, message",
    [
        (torch.zeros(0, dtype=torch.int64), "length 0"),
        (torch.zeros(2, 0, dtype=torch.int64), "length 0"),
        (torch.zeros(0, 5, dtype=torch.int64), "B = 0"),
        (torch.tensor([3]), "length 1"),
        (torch.zeros(4), "token numbers"),
        (torch.zeros(4, dtype=torch.bool), "token numbers"),
        ([1, 2, 3], "must be a tensor"),
        ("text", "must be a tensor"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), "must have the shape"),
    ],
)
def test_streams_that_can_not_be_predicted(ids, message):
    for run in (stream_windows, lambda i: dynamic_evaluation(gpt(), i, chunk=8)):
        with pytest.raises(ValueError, match=message):
            run(ids)


def test_streams_of_no_text_are_refused():
    for texts, message in (([], "at least 1"), ([""], "something to predict")):
        with pytest.raises(ValueError, match=message):
            stream_ids(TOKENIZER, texts)
    with pytest.raises(ValueError, match="must be a Tokenizer of the book"):
        token_bytes(byte_tokenizer())


# --- predict, then step --------------------------------------------------------------


def plain_loop(model, ids, chunk, memory, inner_lr, optimizer=torch.optim.SGD):
    model, found = copy.deepcopy(model), []
    optimizer = optimizer(model.parameters(), lr=inner_lr)
    for first in range(1, len(ids), chunk):
        begin, end = max(first - memory, 0), min(first + chunk, len(ids))
        window = ids[None, begin:end]
        labels = window.clone()
        labels[:, : first - begin] = -100
        loss = causal_loss(model(window), labels)
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(found)


def test_whole_chunks_are_exactly_those_of_a_plain_loop():
    model, ids = gpt(), stream(41)
    ours = dynamic_evaluation(model, ids, chunk=8, memory=1, inner_lr=0.3)
    theirs = plain_loop(model, ids, 8, 1, 0.3)
    assert torch.equal((ours.nats[0] / ours.tokens).float(), theirs)


@pytest.mark.parametrize("memory", [1, 5, 24])
@pytest.mark.parametrize("b", [1, 3])
def test_any_memory_and_a_last_chunk_that_is_shorter(memory, b):
    model, ids = gpt().double(), stream(38, b)
    ours = dynamic_evaluation(model, ids, chunk=8, memory=memory, inner_lr=0.3)
    assert ours.tokens.tolist() == [8, 8, 8, 8, 5]
    for row, nats in zip(ids, ours.nats):
        theirs = plain_loop(model, row, 8, memory, 0.3)
        assert torch.allclose((nats / ours.tokens).float(), theirs, atol=1e-6)


def test_adam_goes_on_over_chunks_as_the_optimizer_of_pytorch():
    model, ids = gpt().double(), stream(41)
    ours = dynamic_evaluation(model, ids, chunk=8, inner_lr=0.01, optimizer=Adam())
    theirs = plain_loop(model, ids, 8, 1, 0.01, torch.optim.Adam)
    assert torch.allclose((ours.nats[0] / ours.tokens).float(), theirs, atol=1e-5)


def test_no_steps_is_the_frozen_model_and_the_model_stays():
    model, ids = gpt(), stream(25)
    before = copy.deepcopy(model.state_dict())
    frozen = dynamic_evaluation(model, ids, chunk=24, inner_steps=0)
    with torch.no_grad():
        loss = causal_loss(model(ids[None]), ids[None])
    assert torch.allclose(frozen.per_token.float(), loss)
    dynamic_evaluation(model, ids, chunk=8, inner_lr=1.0)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert not model.training


def test_more_steps_on_a_chunk_count_the_loss_before_the_first():
    model, ids = gpt().double(), stream(17)
    one, two = (
        dynamic_evaluation(model, ids, chunk=8, inner_lr=0.2, inner_steps=k)
        for k in (1, 2)
    )
    assert torch.equal(one.nats[:, 0], two.nats[:, 0])
    assert not torch.equal(one.nats[:, 1], two.nats[:, 1])


def test_bits_per_byte_are_those_of_the_small_gpt():
    model, text = gpt(), "rome is old and oslo is new"
    ids = stream_ids(TOKENIZER, [text])
    found = dynamic_evaluation(model, ids, chunk=len(ids) - 1, inner_steps=0)
    expected = small_gpt.bits_per_byte(model, TOKENIZER, [text])
    assert found.bits_per_byte(ids, TOKENIZER).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="streams that were measured"):
        found.bits_per_byte(ids[:-1], TOKENIZER)
    with pytest.raises(ValueError, match="control tokens alone"):
        only = StreamLosses(torch.ones(1, 1).double(), torch.tensor([2]))
        only.bits_per_byte(torch.tensor([2, 1, 1]), TOKENIZER)


def test_a_chunk_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="windows of 33 tokens.*context of 32"):
        dynamic_evaluation(gpt(), stream(80), chunk=32)
    with pytest.raises(ValueError, match="windows of 40 tokens"):
        dynamic_evaluation(gpt(), stream(80), chunk=8, memory=32)
    dynamic_evaluation(gpt(), stream(80), chunk=31)


def test_tokens_that_the_model_has_not():
    with pytest.raises(ValueError, match="take the tokenizer"):
        dynamic_evaluation(gpt(100), stream(20), chunk=8)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_loss_that_is_not_finite_names_the_chunk(steps):
    broken = gpt()
    broken.norm.weight.data[0] = math.nan
    with pytest.raises(RuntimeError, match="chunk 0 is not finite"):
        dynamic_evaluation(broken, stream(20), chunk=8, inner_steps=steps)


def test_a_rate_that_leaves_the_numbers_is_found_behind_the_last_step_too():
    for n in (17, 41):  # the last chunk is predicted without a step
        with pytest.raises(RuntimeError, match="chunk 1 is not finite"):
            dynamic_evaluation(gpt(), stream(n), chunk=8, inner_lr=1e30)


def test_fused_attention_is_refused_under_second_order_only():
    model = small_gpt.to_gpt2(gpt())
    model.config._attn_implementation = "sdpa"
    with pytest.raises(ValueError, match="attn_implementation="):
        StreamMAML(model)
    StreamMAML(model, first_order=True)


# --- the start -----------------------------------------------------------------------
def outer_by_hand(model, tasks, inner_lr, first_order):
    total = 0.0
    for b in range(len(tasks)):
        weights = dict(model.named_parameters())
        losses = []
        for c in range(tasks.query.x.shape[1]):
            x, y = tasks.query.x[b, c : c + 1], tasks.query.y[b, c : c + 1]
            told = torch.func.functional_call(model, weights, (x,))
            losses.append(causal_loss(told, y))
            graph = {"create_graph": not first_order, "retain_graph": True}
            grads = torch.autograd.grad(losses[-1], list(weights.values()), **graph)
            weights = {n: w - inner_lr * g for (n, w), g in zip(weights.items(), grads)}
        total = total + torch.stack(losses).mean()
    return total / len(tasks)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: StreamMAML(nn.Linear(2, 2)), "must say in its config"),
        (lambda: StreamMAML(gpt(), inner_steps=-1), "inner_steps must be at least 0"),
        (lambda: StreamMAML(gpt(), memory="adjoint"), "one task's steps"),
        (lambda: StreamMAML(gpt(), inner_lr=b"x"), "inner_lr must be a finite number"),
        (lambda: StreamMAML(gpt(), inner_lr=[0.1]), "inner_lr must be a finite number"),
    ],
)
def test_learners_and_tasks_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_support_and_query_that_do_not_follow_each_other():
    learner, tasks = StreamMAML(gpt()), as_tasks(stream(33, 2))
    with pytest.raises(ValueError, match="one chunk more than support"):
        learner(TaskBatch(tasks.query, tasks.query))
    with pytest.raises(ValueError, match="Examples of chunks"):
        learner.adapt(tasks.query.x)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_a_plain_loop(first_order):
    model, tasks = gpt().double(), as_tasks(stream(33, 2))
    learner = StreamMAML(model, inner_lr=0.5, first_order=first_order)
    grads = []
    for loss in (learner(tasks), outer_by_hand(model, tasks, 0.5, first_order)):
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
    for a, b in zip(*grads):
        assert torch.allclose(a, b, atol=1e-10)


def test_verify_proves_it_with_rates_that_are_learned():
    learner = StreamMAML(gpt(), inner_lr=0.5, learn_lr="tensor")
    assert verify(learner, as_tasks(stream(25, 2)), raise_if_wrong=True)


def test_two_chunks_are_maml():
    model, tasks = gpt().double(), as_tasks(stream(17))
    query = Examples(tasks.query.x[:, 1:], tasks.query.y[:, 1:])
    maml = MAML(model, small_gpt.causal_loss_per_task, inner_lr=0.4)
    whole = StreamMAML(model, inner_lr=0.4)(tasks)
    first = causal_loss(model(tasks.query.x[0, :1]), tasks.query.y[0, :1])
    assert torch.allclose(
        whole, (first + maml(TaskBatch(tasks.support, query))) / 2, atol=1e-12
    )


def test_the_loss_of_training_is_the_one_that_is_measured():
    model, ids = gpt().double(), stream(33, 3)
    learner = StreamMAML(model, inner_lr=0.3)
    found = learner.measure(ids, chunk=8, memory=4)
    outer = learner(as_tasks(ids))
    assert outer.item() == pytest.approx(found.per_token.mean().item(), abs=1e-9)


def test_adapted_on_a_stream_is_the_walk_without_its_last_step():
    model, tasks = gpt().double(), as_tasks(stream(33, 2))
    learner = StreamMAML(model, inner_lr=0.3)
    with torch.no_grad():
        told = learner.adapt(tasks.support)(tasks.query.x[:, -1:])
    nats = small_gpt.causal_loss_per_task(told, tasks.query.y[:, -1:])
    ids = stream(33, 2)
    found = learner.measure(ids, chunk=8, memory=4)
    assert torch.allclose(nats, found.nats[:, -1] / found.tokens[-1])
