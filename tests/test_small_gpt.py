"""A small language model: tokenizer, GPT, loss, bits per byte, generation, and what is
refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.verification import verify
from metalearn_book.foundations.measuring import t_quantile
from metalearn_book.language_models import small_gpt as S
from metalearn_book.language_models.pretraining import DOMAINS, tagged, tiny_texts
from metalearn_book.language_models.small_gpt import GPTConfig, SmallGPT
from metalearn_book.optimization.maml import MAML

TEXTS = [t for d in DOMAINS for t in tiny_texts(d)[:60]]


@pytest.fixture(scope="module")
def tokenizer():
    return S.train_tokenizer(TEXTS, 300)


@pytest.fixture()
def model(tokenizer):
    torch.manual_seed(0)
    net = SmallGPT(GPTConfig(len(tokenizer), 32, 16, 2, 2))
    for p in net.parameters():
        p.data.mul_(8 if p.ndim > 1 else 1)  # logits that are not all near zero
    return net.eval()


# --- tokenizer -----------------------------------------------------------------------

STRANGE = [
    "",
    " ",
    "a  b\t\n",
    "é日本🙂",
    "x" * 300,
    "1234567",
    "\0\x7f",
    "_a-b's",
    "ſß½²",
]


@pytest.mark.parametrize("text", [*STRANGE, "<user> hi<end>", "< user>", "<pad"])
def test_nothing_is_lost(tokenizer, text):
    for control in (True, False):
        assert tokenizer.decode(tokenizer.encode(text, control)) == text
    assert max(tokenizer.encode(text, False), default=9) >= len(S.CONTROL)


def test_control_tokens_of_a_stranger_are_letters(tokenizer):
    ids = tokenizer.encode("<end><user> a", control=False)
    assert not {tokenizer.eos_token_id, *tokenizer.encode("<user>")} & set(ids)
    assert tokenizer.encode("<end><user>") == [1, 5]  # and it is no lasting change


def test_bytes_are_those_of_the_text_alone(tokenizer):
    assert tokenizer.n_bytes("<headline> é<end>") == 3
    assert tokenizer.n_bytes("<user><system>") == 0


def test_tokenizer_is_the_same_after_saving(tokenizer, tmp_path):
    again = S.load_tokenizer(tokenizer.save(tmp_path / "a.json"))
    assert all(again.encode(t) == tokenizer.encode(t) for t in TEXTS)
    assert (again.pad_token_id, again.eos_token_id) == (0, 1)
    assert len(S.Tokenizer.load(tmp_path / "a.json")) == len(tokenizer)


def test_training_is_repeatable_and_sees_no_control_tokens():
    a, b = S.train_tokenizer(TEXTS, 300), S.train_tokenizer(TEXTS, 300)
    assert a._fast.to_str() == b._fast.to_str()
    plain = S.train_tokenizer([S.without_control(t) for t in TEXTS], 300)
    assert plain._fast.to_str() == a._fast.to_str()


@pytest.mark.parametrize("wrong", [None, 3, b"a", ["a"], "\ud800"])
def test_what_is_no_text_is_refused(tokenizer, wrong):
    for call in (
        lambda: tokenizer.encode(wrong),
        lambda: tokenizer.n_bytes(wrong),
        lambda: S.document_ids(tokenizer, wrong),
        lambda: S.train_tokenizer(["a", wrong]),
        lambda: tagged("headline", wrong),
    ):
        with pytest.raises(ValueError, match="must be|half a character"):
            call()


def test_empty_texts_are_refused(tokenizer, model):
    for empty in ("", "  \n", "<headline>", "<user> <end>"):
        with pytest.raises(ValueError, match="something to predict"):
            S.bits_per_byte(model, tokenizer, ["a", empty])
    with pytest.raises(ValueError, match="at least 1"):
        S.bits_per_byte(model, tokenizer, [])
    with pytest.raises(ValueError, match="must be a list"):
        S.bits_per_byte(model, tokenizer, "a text")


class OtherTokenizer:
    pad_token_id = None
    eos_token_id = 2

    def encode(self, text, add_special_tokens=True):
        return [3 + b % 7 for b in text.encode()]


def test_a_tokenizer_without_padding_is_refused():
    with pytest.raises(ValueError, match="has no padding token"):
        S.token_batch(OtherTokenizer(), ["a", "bc"])
    other = OtherTokenizer()
    other.eos_token_id = None
    with pytest.raises(ValueError, match="no token for the end"):
        S.document_ids(other, "a")


def test_labels_of_padding_do_not_count(tokenizer):
    ids, labels = S.token_batch(tokenizer, ["<headline> a", "<headline> a b c d e"])
    assert (labels[0] == S.IGNORED).sum() == (ids[0] == tokenizer.pad_token_id).sum()
    assert ((ids == labels) | (labels == S.IGNORED)).all()
    assert S.token_batch(tokenizer, TEXTS[:3], 7)[0].shape == (3, 7)


# --- model ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, allowed", [("float32", 1e-5), ("float64", 1e-10)])
def test_equal_to_gpt2_in_both_directions(model, dtype, allowed):
    model = model.to(getattr(torch, dtype))
    with torch.no_grad():  # a fresh model has biases of zero and gains of one
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    ids = torch.randint(0, model.config.vocab_size, (3, 32))
    theirs = S.to_gpt2(model)
    with torch.no_grad():
        gap = (theirs(ids).logits - model(ids)).abs().max()
        assert gap < allowed and model(ids).std() > 0.1
        assert torch.equal(S.from_gpt2(theirs)(ids), model(ids))
    (theirs(ids).logits.square().mean()).backward()
    model(ids).square().mean().backward()
    ours = model.blocks[0].attention.qkv.weight.grad
    other = theirs.transformer.h[0].attn.c_attn.weight.grad.T
    assert torch.allclose(ours, other, rtol=1e-3, atol=allowed)


def test_a_fresh_gpt2_becomes_ours():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 12, "n_head": 3, "n_layer": 1, "vocab_size": 50}
    theirs = GPT2LMHeadModel(GPT2Config(n_positions=16, **sizes)).eval()
    ids = torch.randint(0, 50, (2, 9))
    assert torch.allclose(S.from_gpt2(theirs)(ids), theirs(ids).logits, atol=1e-5)
    for name, value in (
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 1e-6),
        ("n_inner", 8),
        ("tie_word_embeddings", False),
    ):
        other = GPT2LMHeadModel(GPT2Config(n_positions=16, **sizes, **{name: value}))
        with pytest.raises(ValueError, match=name):
            S.from_gpt2(other)
    with pytest.raises(ValueError, match="must be a GPT2LMHeadModel"):
        S.from_gpt2(nn.Linear(2, 2))


def test_no_position_sees_later_ones(model):
    ids = torch.randint(0, model.config.vocab_size, (2, 10))
    for t in range(1, 10):
        other = ids.clone()
        other[:, t:] = (other[:, t:] + 1) % model.config.vocab_size
        assert torch.equal(model(ids)[:, :t], model(other)[:, :t])


def test_a_text_longer_than_the_context_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="33 tokens, more than the context of 32"):
        model(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match="over the model's context of 32"):
        S.generate(model, tokenizer, "<headline>" + " a" * 40, n_tokens=1)
    with pytest.raises(ValueError, match="ask for at most 31"):
        S.generate(model, tokenizer, "<headline>", n_tokens=40)


def tasks_of(tokenizer, length=24):
    def examples(a, b):
        pairs = [S.token_batch(tokenizer, tiny_texts(d)[a:b], length)
                 for d in ("headline", "abstract")]  # fmt: skip
        return Examples(*(torch.stack(v) for v in zip(*pairs)))

    return TaskBatch(examples(0, 2), examples(2, 4))


def test_second_order_through_the_inner_loop(tokenizer):
    torch.manual_seed(0)
    net = SmallGPT(GPTConfig(len(tokenizer), 60, 8, 1, 2))
    tasks = tasks_of(tokenizer, 60)
    assert (tasks.support.y == S.IGNORED).any()  # padding is among the labels
    learner = MAML(net, S.causal_loss_per_task, inner_lr=0.1, inner_steps=2)
    verify(learner, tasks, raise_if_wrong=True)


def test_the_inner_loop_is_plain_gradient_descent(model, tokenizer):
    tasks = tasks_of(tokenizer)
    loop = InnerLoop(model, S.causal_loss_per_task, inner_lr=0.05, inner_steps=1)
    adapted = loop.adapt(tasks.support)(tasks.query.x)
    for b in range(2):
        net = copy.deepcopy(model)
        loss = S.causal_loss(net(tasks.support.x[b]), tasks.support.y[b])
        grads = torch.autograd.grad(loss, list(net.parameters()))
        for p, g in zip(net.parameters(), grads):
            p.data.sub_(0.05 * g)
        assert torch.allclose(net(tasks.query.x[b]), adapted[b], atol=1e-3)


# --- loss and bits -------------------------------------------------------------------


def test_the_loss_by_hand():
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]).log()
    text = torch.tensor([[2, 0, 1]])
    both = -(math.log(0.5) + math.log(0.8)) / 2
    assert S.causal_loss(p, text).item() == pytest.approx(both)
    padded = torch.tensor([[2, 0, -100]])
    assert S.causal_loss(p, padded).item() == pytest.approx(-math.log(0.5))
    mask = torch.tensor([[1, 1, 0]])
    assert S.causal_loss(p, text, mask).item() == pytest.approx(-math.log(0.5))


def test_padding_moves_nothing(model, tokenizer):
    short = S.token_batch(tokenizer, TEXTS[:1], 8)
    long = S.token_batch(tokenizer, [tagged("headline", "a"), *TEXTS[:1]], 8)
    alone = S.causal_loss(model(short[0]), short[1])
    beside = S.causal_loss(model(long[0])[1:], long[1][1:])
    assert torch.allclose(alone, beside)
    changed = long[0].masked_fill(long[1] == S.IGNORED, 5)
    losses = [S.causal_loss(model(i), long[1]) for i in (long[0], changed)]
    assert torch.equal(*losses)


def test_the_loss_of_each_task(model, tokenizer):
    tasks, found = tasks_of(tokenizer), []
    logits = torch.stack([model(x) for x in tasks.support.x])
    for b in range(2):
        found.append(S.causal_loss(logits[b], tasks.support.y[b]))
    per_task = S.causal_loss_per_task(logits, tasks.support.y)
    assert torch.allclose(per_task, torch.stack(found))
    mask = torch.tensor([[True, False], [True, True]])
    first = S.causal_loss_per_task(logits, tasks.support.y, mask)[0]
    assert torch.allclose(first, S.causal_loss(logits[0, :1], tasks.support.y[0, :1]))


@pytest.mark.parametrize(
    "ids, words",
    [
        ([[0, -100, -100]], "no token counts"),
        ([[0, 1, 3]], "must be tokens from 0 to 2"),
        ([[0, -1, 1]], "must be tokens from 0 to 2"),
        ([[0.0, 1.0, 2.0]], "ids int64"),
        ([[0, 1]], "must have the shape"),
    ],
)
def test_ids_that_mean_nothing_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        S.causal_loss(torch.zeros(1, 3, 3), torch.tensor(ids))


def test_windows_count_every_token_once(model, tokenizer):
    for weights in model.parameters():
        weights.data.zero_()
    for n in (5, 31, 32, 33, 47, 48, 49, 200):
        text = "<headline>" + " a" * n
        count = len(S.document_ids(tokenizer, text)) - 1
        nats = S.text_nats(model, tokenizer, [text]).item()
        assert nats == pytest.approx(count * math.log(len(tokenizer)), rel=1e-6)


def test_bits_per_byte_do_not_depend_on_the_batch(model, tokenizer):
    texts = TEXTS[:7] + TEXTS[-7:]
    found = [S.bits_per_byte(model, tokenizer, texts, n) for n in (1, 3, 100)]
    assert max(found) - min(found) < 1e-4
    nats = S.text_nats(model, tokenizer, texts)
    alone = torch.cat([S.text_nats(model, tokenizer, [t]) for t in texts])
    assert torch.allclose(nats, alone, rtol=1e-4)


def test_bits_per_byte_of_a_model_of_transformers(model, tokenizer):
    ours = S.bits_per_byte(model, tokenizer, TEXTS[:5])
    theirs = S.bits_per_byte(S.to_gpt2(model).eval(), tokenizer, TEXTS[:5])
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_tokenizer_of_another_model_is_refused(model):
    other = S.train_tokenizer(TEXTS, 340)
    with pytest.raises(ValueError, match="take the tokenizer that the model was"):
        S.bits_per_byte(model, other, TEXTS[:20])


def test_logits_that_are_not_finite_are_refused(model, tokenizer):
    model.norm.weight.data[0] = math.nan
    with pytest.raises(RuntimeError, match="not finite"):
        S.bits_per_byte(model, tokenizer, TEXTS[:2])
    with pytest.raises(RuntimeError, match="not finite"):
        S.generate(model, tokenizer, "<headline>", n_tokens=3)


def test_the_mode_is_left_as_it_was(model, tokenizer):
    for mode in (True, False):
        model.train(mode)
        S.bits_per_byte(model, tokenizer, TEXTS[:1])
        assert model.training is mode


def test_the_interval_of_bits_per_byte(model, tokenizer):
    nats = S.text_nats(model, tokenizer, TEXTS[:9])
    n_bytes = [tokenizer.n_bytes(t) for t in TEXTS[:9]]
    found = S.bits_interval(nats.tolist(), n_bytes)
    assert found.mean == pytest.approx(S.bits_per_byte(model, tokenizer, TEXTS[:9]))
    same = S.bits_interval(nats, [50] * 9)  # texts of one length: that of a mean
    each = nats.numpy() / 50 / math.log(2)
    half = t_quantile(8) * each.std(ddof=1) / 3
    assert same.ci95 == pytest.approx(half) and same.mean == pytest.approx(each.mean())
    nothing = S.bits_interval([2.0 * n for n in n_bytes], n_bytes)
    assert nothing.ci95 == pytest.approx(0, abs=1e-12)  # all at the same ratio


def test_the_interval_of_bits_per_byte_covers():
    draw, hits = np.random.default_rng(0), 0
    for _ in range(400):  # the ratio of the means is 1 nat for each byte
        n_bytes = draw.integers(20, 200, 30)
        nats = n_bytes + 0.3 * n_bytes * draw.standard_normal(30)
        found = S.bits_interval(nats.tolist(), n_bytes.tolist())
        hits += abs(found.mean - 1 / math.log(2)) < found.ci95
    assert 0.91 < hits / 400 < 0.985


@pytest.mark.parametrize(
    "nats, n_bytes, words",
    [
        ([1.0], [3], "at least 2"),
        ([1.0, 2.0], [3, 4, 5], "must be of the same texts, got 2 and 3"),
        ([1.0, 2.0], [3, 0], r"n_bytes\[1\] must be at least 1"),
        ([1.0, math.nan], [3, 4], r"nats\[1\]"),
    ],
)
def test_an_interval_of_nothing_is_refused(nats, n_bytes, words):
    with pytest.raises(ValueError, match=words):
        S.bits_interval(nats, n_bytes)


# --- generation ----------------------------------------------------------------------

FOUR = torch.tensor([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    "how, expected",
    [
        ({}, FOUR),
        ({"temperature": 0.5}, torch.tensor([16, 9, 4, 1]) / 30),
        ({"temperature": 0}, torch.tensor([1.0, 0, 0, 0])),
        ({"top_p": 0.4}, torch.tensor([1.0, 0, 0, 0])),
        ({"top_p": 0.41}, torch.tensor([4, 3, 0, 0]) / 7),
        ({"top_p": 0.7}, torch.tensor([4, 3, 0, 0]) / 7),
        ({"temperature": 0.5, "top_p": 0.6}, torch.tensor([16, 9, 0, 0]) / 25),
        ({"temperature": 1e-30}, torch.tensor([1.0, 0, 0, 0])),
        ({"temperature": 1e30}, torch.full((4,), 0.25)),
    ],
)
def test_the_distribution_that_is_drawn_from(how, expected):
    for order in (torch.arange(4), torch.tensor([2, 0, 3, 1])):
        found = S.next_probabilities(FOUR.log()[order], **how)
        assert torch.allclose(found, expected[order], atol=1e-6)


class Fixed(nn.Module):
    "Always the same distribution over four tokens."

    def __init__(self, size):
        super().__init__()
        self.scores = nn.Parameter(torch.full((size,), -40.0))
        self.scores.data[40:44] = FOUR.log()
        self.config = GPTConfig(size, context=16)

    def forward(self, ids):
        return self.scores.expand(*ids.shape, -1)


@pytest.mark.parametrize("how", [{}, {"temperature": 0.5}, {"top_p": 0.65}])
def test_draws_have_the_frequencies(tokenizer, how):
    n, names = 2000, [tokenizer.decode([40 + i]) for i in range(4)]
    net = Fixed(len(tokenizer))
    written = S.generate(net, tokenizer, ["<headline>"] * n, n_tokens=1, **how)
    found = torch.tensor([written.count(w) / n for w in names])
    expected = S.next_probabilities(FOUR.log(), **how)
    allowed = 4 * (expected * (1 - expected) / n).sqrt() + 1e-9
    assert ((found - expected).abs() <= allowed).all()


def test_prompts_of_different_lengths_do_not_meet(model, tokenizer):
    prompts = ["<headline>", "<headline> a b c d", "<user> a"]
    how = {"n_tokens": 6, "temperature": 0, "stop": None}
    together = S.generate(model, tokenizer, prompts, **how)
    assert together == [S.generate(model, tokenizer, p, **how) for p in prompts]


def test_greedy_is_the_argmax_and_stops(model, tokenizer):
    row = S.document_ids(tokenizer, "<headline> a", end=False)
    for _ in range(4):
        row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    how = {"n_tokens": 4, "temperature": 0, "stop": None}
    written = S.generate(model, tokenizer, "<headline> a", **how)
    assert written == tokenizer.decode(row[-4:])
    net = Fixed(len(tokenizer))
    net.scores.data[tokenizer.eos_token_id] = 50.0
    assert S.generate(net, tokenizer, "<headline>", n_tokens=9) == ""


def test_the_same_seed_writes_the_same(model, tokenizer):
    a, b, c = (
        S.generate(model, tokenizer, "<user> a", n_tokens=20,
                   generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )  # fmt: skip
    assert a == b != c
