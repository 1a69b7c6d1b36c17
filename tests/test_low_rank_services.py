"""Adapters on services: one model with any adapter, what its second inner step does,
what it costs, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from metalearn_book.foundations.measuring import Evaluation
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models.low_rank import Prefix, SoftPrompt
from metalearn_book.language_models.low_rank_services import (
    ADAPTERS,
    adaptation_peak,
    best_factor,
    by_factor,
    meta_gradient_peak,
    with_adapter,
)
from metalearn_book.language_models.meta_gpt2 import (
    MetaGPT2,
    TextTasks,
    measure_groups,
    meta_learning,
)
from metalearn_book.language_models.pretrained import tiny_language_model
from metalearn_book.language_models.pretraining import small_model
from metalearn_book.language_models.small_gpt import GPTConfig, SmallGPT, bits_per_byte
from metalearn_book.language_models.small_gpt import causal_loss, train_tokenizer

TEXTS = {
    place: [
        f"<headline> {place} is {word} today" for word in ("old", "new", "big", "low")
    ]
    for place in ("rome", "oslo", "lima")
}
START = torch.tensor([5, 9, 2])


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(sum(TEXTS.values(), []), 270)


def gpt(**sizes):
    torch.manual_seed(0)
    given = {"vocab_size": 270, "context": 32, "width": 16, "n_layers": 2, "n_heads": 2}
    return SmallGPT(GPTConfig(**given | sizes)).eval()


def learner(tokenizer, kind="lora", model=None, **options):
    net, adapt = with_adapter(gpt() if model is None else model, kind, start=START)
    how = {"length": 12, "inner_lr": 0.5, "inner_steps": 2, "adapt": adapt}
    return MetaGPT2(net, tokenizer, **how | options)


def tasks(tokenizer, k_shot=1):
    return TextTasks(TEXTS, tokenizer, k_shot, 2, 12)


# --- one model, four adapters --------------------------------------------------------


@pytest.mark.parametrize("kind", ADAPTERS)
def test_it_starts_as_the_model_or_as_tokens_in_front(kind):
    model, ids = gpt(), torch.arange(12).view(2, 6)
    expected = model(ids)
    if kind in ("prompt", "prefix"):
        expected = model(torch.cat([START.expand(2, -1), ids], 1))[:, 3:]
    net, adapt = with_adapter(model, kind, start=START)
    torch.testing.assert_close(net(ids), expected, rtol=1e-4, atol=1e-5)
    assert (adapt is None) == (kind == "all")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_model_stays_as_it_is(kind, tokenizer):
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    net, adapt = with_adapter(model, kind, start=START)
    with torch.no_grad():
        for p in net.parameters():
            p += 1
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", ["lora", "prompt", "prefix"])
def test_an_outer_loop_changes_the_adapter_alone(kind, tokenizer):
    net, adapt = with_adapter(gpt(), kind, start=START)
    made = meta_learning(
        net, tasks(tokenizer), steps=2, tasks_per_step=2, inner_lr=0.1, outer_lr=1e-2,
        adapt=adapt, learn_lr="tensor", progress=False,
    )  # fmt: skip
    after = dict(made.loop.model.named_parameters())
    for name, p in net.named_parameters():
        assert torch.equal(p, after[name]) == (name not in made.loop.adapted), name
    assert (made.loop.inner_lr != 0.1).all()  # the rates were learned


def test_what_with_adapter_refuses():
    with pytest.raises(ValueError, match="must be one of"):
        with_adapter(gpt(), "ia3")
    with pytest.raises(ValueError, match="a language model"):
        with_adapter("gpt2")
    for kind in ("prompt", "prefix"):
        with pytest.raises(ValueError, match="start must be a tensor"):
            with_adapter(gpt(), kind)
        with pytest.raises(ValueError, match="context of 32"):
            with_adapter(gpt(), kind, start=torch.arange(31))
    with pytest.raises(ValueError, match="must be a SmallGPT"):
        with_adapter(tiny_language_model(1, 16)[0], "prefix", start=START)
    with pytest.raises(ValueError, match="rank must be at most 16"):
        with_adapter(gpt(), rank=17)
    with pytest.raises(ValueError, match="chooses no linear layer"):
        with_adapter(gpt(), layers="*q_proj")


# --- prompts and prefixes are language models ----------------------------------------


@pytest.mark.parametrize("make", [SoftPrompt, Prefix])
def test_a_prompt_says_how_much_room_is_left(make, tokenizer):
    model = gpt()
    wrapped = make(model, START)
    assert wrapped.config.context == 29 and model.config.context == 32
    assert wrapped.config.vocab_size == 270
    with pytest.raises(ValueError, match="context of 29"):
        MetaGPT2(wrapped, tokenizer, length=30)
    assert math.isfinite(bits_per_byte(wrapped, tokenizer, sum(TEXTS.values(), [])))
    made = MetaGPT2(wrapped, tokenizer, length=12)
    assert isinstance(made.generate([], "<headline> rome", n_tokens=9), str)
    with pytest.raises(ValueError, match="context of 29"):
        made.generate([], "<headline> rome", n_tokens=40)


def test_a_prompt_on_a_model_of_transformers():
    model, _ = tiny_language_model(1, 16)
    most = model.config.max_position_embeddings
    wrapped = SoftPrompt(model, START)
    assert wrapped.config.max_position_embeddings == most - 3
    assert model.config.max_position_embeddings == most
    assert wrapped.config._attn_implementation == model.config._attn_implementation


# --- two steps on factors ------------------------------------------------------------


def test_the_second_step_of_the_factors(tokenizer):
    "Eqs. (LRS-1), (LRS-2) and (LRS-3), each factor with a rate of its own."
    a, b = 0.7, 0.4
    net, adapt = with_adapter(gpt().double(), "lora", rank=2)
    rates = {"*lora_A": a, "*lora_B": b}
    made = MetaGPT2(net, tokenizer, length=12, inner_lr=rates, adapt=adapt)
    support = tasks(tokenizer).of_group("rome", gen()).support
    layers = [n.removesuffix(".lora_A") for n in made.loop.adapted if "lora_A" in n]
    weights = [net.get_submodule(n).base.weight.requires_grad_() for n in layers]
    path, slopes = [made.adapt(support, k).params for k in (0, 1, 2)], []
    for params in path[:2]:
        for name, value in params.items():
            net.get_parameter(name).data.copy_(value[0])
        loss = causal_loss(net(support.x[0]), support.y[0])
        slopes.append(torch.autograd.grad(loss, weights))
    close = {"rtol": 1e-8, "atol": 1e-12}
    for n, G0, G1 in zip(layers, *slopes):
        A0, A1, A2 = (p[f"{n}.lora_A"][0] for p in path)
        B1 = path[1][f"{n}.lora_B"][0]
        torch.testing.assert_close(A1, A0)
        torch.testing.assert_close(B1, -b * G0 @ A0.T, **close)
        torch.testing.assert_close(A2, A0 + a * b * A0 @ G0.T @ G1, **close)
        bound = (
            a * b * torch.linalg.matrix_norm(G0, 2) * torch.linalg.matrix_norm(G1, 2)
        )
        assert (A2 - A0).norm() <= bound * A0.norm() * (1 + 1e-9)
        assert (A2 - A0).norm() > 0


def slopes_of(made, batch, eps=1e-5):
    "Relative errors of the slope along a direction: second order, first order."
    params = [p for p in made.parameters() if p.requires_grad]
    v = [torch.randn(p.shape, generator=gen(3), dtype=p.dtype) for p in params]
    errors, values = [], []
    for first in (False, True):
        made.loop.first_order = first
        grads = torch.autograd.grad(made(batch), params)
        errors.append(sum((g * d).sum().item() for g, d in zip(grads, v)))
    with torch.no_grad():
        for step in (eps, -2 * eps):
            for p, d in zip(params, v):
                p += step * d
            values.append(made(batch).item())
    slope = (values[0] - values[1]) / (2 * eps)
    return [abs(e / slope - 1) for e in errors]


@pytest.mark.parametrize("kind", ["lora", "prompt", "prefix"])
def test_second_order_through_an_adapter(kind, tokenizer):
    made = learner(tokenizer, kind, gpt().double())
    for name, p in made.loop.model.named_parameters():
        if name.endswith("lora_B"):
            p.data.normal_(std=0.1, generator=gen(1))
    second, first = slopes_of(made, tasks(tokenizer).sample(2, gen()))
    assert second < 1e-5 and first > 100 * second


def test_second_order_through_the_factors_of_gpt_base():
    try:
        model, words = small_model("gpt-base")
    except FileNotFoundError:
        pytest.skip("gpt-base is not there: make models")
    made = learner(words, "lora", model.double(), inner_lr=1.0)
    for name, p in made.loop.model.named_parameters():
        if name.endswith("lora_B"):
            p.data.normal_(std=0.02, generator=gen(1))
    ids = torch.randint(4, 4000, (2, 2, 12), generator=gen())
    batch = TaskBatch(*(Examples(part, part) for part in (ids[:, :1], ids[:, 1:])))
    second, first = slopes_of(made, batch, eps=1e-6)
    assert second < 1e-6 and first > 1000 * second


# --- the search ----------------------------------------------------------------------


def test_factors_are_those_of_measure_groups(tokenizer):
    made, some = learner(tokenizer), tasks(tokenizer)
    found = by_factor(made, some, (0, 0.5, 2), seed=3)
    assert list(found) == [0, 0.5, 2]
    for f, e in found.items():
        expected = measure_groups(made, some, factor=f, seed=3)
        assert torch.equal(e.values, expected.values) and len(e) == 3
    assert best_factor(found) == min(found, key=lambda f: found[f].mean)


def test_the_best_factor_of_losses_that_are_no_numbers():
    inf, nan = (Evaluation(torch.tensor([v, 1.0]), 0) for v in (math.inf, math.nan))
    fine = Evaluation(torch.tensor([2.0, 1.0]), 0)
    assert best_factor({0.5: inf, 1.0: fine, 2.0: nan}) == 1.0
    with pytest.raises(ValueError, match="is a number"):
        best_factor({1.0: nan})
    for wrong in ([1.0], {1.0: 2.0}, None):
        with pytest.raises(ValueError, match="what by_factor gives"):
            best_factor(wrong)


def test_what_by_factor_refuses(tokenizer):
    made, some = learner(tokenizer), tasks(tokenizer)
    with pytest.raises(ValueError, match="factors"):
        by_factor(made, some, (-1.0,))
    with pytest.raises(ValueError, match="factors"):
        by_factor(made, some, ())
    with pytest.raises(ValueError, match="inner loop"):
        by_factor(nn.Linear(2, 2), some)


# --- costs ---------------------------------------------------------------------------


def test_memory_is_counted_and_falls_with_what_adapts(tokenizer):
    batch = tasks(tokenizer).sample(2, gen())
    model = gpt(vocab_size=270, width=64, n_layers=2)
    made = {k: learner(tokenizer, k, model, check=False) for k in ("all", "lora")}
    for peak in (adaptation_peak, meta_gradient_peak):
        found = {k: peak(m, batch) for k, m in made.items()}
        assert found["lora"] < found["all"]
        assert peak(made["lora"], batch) == found["lora"]
    assert adaptation_peak(made["lora"], batch) < meta_gradient_peak(
        made["lora"], batch
    )


def test_the_adjoint_sweep_needs_less(tokenizer):
    batch = tasks(tokenizer).sample(2, gen())
    usual, swept = (
        learner(tokenizer, inner_steps=6, check=False, memory=m)
        for m in ("store", "adjoint")
    )
    assert meta_gradient_peak(swept, batch) < meta_gradient_peak(usual, batch)


def test_what_the_costs_refuse(tokenizer):
    batch = tasks(tokenizer).sample(1, gen())
    with pytest.raises(ValueError, match="module with adapt"):
        adaptation_peak(nn.Linear(2, 2), batch)
    with pytest.raises(ValueError, match="module with adapt"):
        meta_gradient_peak("maml", batch)
    made = learner(tokenizer).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        meta_gradient_peak(made, batch)
