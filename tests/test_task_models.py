"""A model for many tasks: what is made differentiable, which parameters adapt, and one
pass for all tasks."""

import copy

import pytest
import torch
from torch import nn

from metalearn_book.foundations.task_models import BatchStatNorm, TaskModel
from metalearn_book.foundations.task_models import additive_mask, call_with
from metalearn_book.foundations.task_models import elementary_attention, is_plain_stack
from metalearn_book.foundations.task_models import make_differentiable, matching_names
from metalearn_book.foundations.task_models import parameter_slots, predict_one
from metalearn_book.foundations.task_models import prediction_of, take_task
from layers import CASES, D, IDS, TEXT, VECTORS, Shared, Tied, build, generator
from layers import hugging_face, network, sines, stack
from shared import gen


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "These tensors are tiny: several threads would only wait for each other."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("at_once", [1, 2])
def test_one_pass_is_a_loop_over_the_untouched_model(name, at_once):
    """With other parameters for each task: predictions, and the gradient of the sum as
    the gradient of each task."""
    make, x = CASES[name]
    model = build(make)
    stock = copy.deepcopy(model)
    for part in stock.modules():
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation("eager")
    tasks = TaskModel(model, tasks_at_once=at_once)
    params = {
        n: (p + 0.1 * torch.randn(p.shape, generator=gen(3)).double())
        .detach()
        .requires_grad_()
        for n, p in tasks.initial(2).items()
    }
    together = tasks.predict(params, x)
    size = together.dim() - 2
    weight = torch.ones_like(together)
    if (
        isinstance(x, dict) and "attention_mask" in x and size == 2
    ):  # padded positions promise nothing
        weight = weight * x["attention_mask"][..., None]
    grads = torch.autograd.grad((together**2 * weight).sum(), list(params.values()))
    for b in range(2):
        alone = {n: p[b].detach().requires_grad_() for n, p in params.items()}
        expected = predict_one(stock, alone, take_task(x, slice(b, b + 1)))[0]
        torch.testing.assert_close(
            together[b] * weight[b], expected * weight[b], rtol=1e-11, atol=1e-12
        )
        own = torch.autograd.grad((expected**2 * weight[b]).sum(), list(alone.values()))
        for n, g, whole in zip(params, own, grads):
            torch.testing.assert_close(whole[b], g, rtol=1e-9, atol=1e-11, msg=n)


def test_batch_norm_statistics():
    model = stack(nn.BatchNorm1d(D)).double()
    model[1].running_mean.normal_(generator=generator())
    model[1].running_var.uniform_(0.5, 2, generator=generator())
    stock, before = copy.deepcopy(model), model[1].running_mean.clone()
    loop = TaskModel(model, batch_norm="running")
    x = VECTORS[:, :, :]
    assert torch.allclose(loop.predict(loop.initial(2), x)[1], stock.eval()(x[1]))
    loop.train().predict(loop.initial(2), x)
    assert torch.equal(model[1].running_mean, before) and loop.changes == [
        "1: BatchNorm1d -> BatchStatNorm, running statistics"
    ]
    with pytest.raises(ValueError, match="track_running_stats=False"):
        BatchStatNorm(nn.BatchNorm1d(3, track_running_stats=False), "running")
    with pytest.raises(ValueError, match="not 'batch' or 'running'"):
        BatchStatNorm(nn.BatchNorm1d(3), "both")
    with pytest.raises(ValueError, match="nn.Sequential"):
        make_differentiable(nn.BatchNorm1d(3))


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "GPT2LMHeadModel"])
def test_prepared_hugging_face_models_predict_as_before(name):
    model = build(lambda: hugging_face(name))
    stock = copy.deepcopy(model)
    changes = make_differentiable(model)
    assert (
        any("eager" in c for c in changes)
        and any("4-D" in c for c in changes)
        and make_differentiable(model) == []
    )
    one = {k: v[0] for k, v in TEXT.items()}
    ours, theirs = model(**one).logits, stock(**one).logits
    real = (
        one["attention_mask"].bool()
        if ours.dim() == 3
        else torch.ones(4, dtype=torch.bool)
    )
    assert torch.allclose(ours[real], theirs[real], atol=1e-10)
    positional = model(one["input_ids"]).logits
    assert torch.allclose(positional, stock(one["input_ids"]).logits, atol=1e-10)


def test_generation_still_works_after_the_change():
    model = build(lambda: hugging_face("GPT2LMHeadModel"))
    prompt = IDS[0, :, :3]
    before = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=3,
        do_sample=False,
    )
    make_differentiable(model)
    assert torch.equal(
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=3,
            do_sample=False,
        ),
        before,
    )


def test_masks():
    m = additive_mask(torch.tensor([[1, 1, 0]]), False, torch.float64)
    assert (
        m.shape == (1, 1, 3, 3)
        and (m[0, 0, :, 2] < -1e300).all()
        and (m[0, 0, :, :2] == 0).all()
    )
    with pytest.raises(ValueError, match="encoder-decoder"):
        from transformers import T5Config, T5ForConditionalGeneration

        make_differentiable(
            T5ForConditionalGeneration(
                T5Config(
                    vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
                )
            )
        )


def test_a_module_used_twice_is_left_as_it_was():
    model = build(Shared)
    before = {n: p for n, p in model.named_parameters()}
    tasks = TaskModel(model)
    tasks.predict(tasks.initial(2), VECTORS).sum().backward()
    call_with(model, tasks.start(), tasks.slots, VECTORS[0])
    assert all(p is before[n] for n, p in model.named_parameters())
    assert sorted(parameter_slots(build(Tied))["embed.weight"]) == [
        "embed.weight",
        "out.weight",
    ]


def test_frozen_and_tied_parameters():
    model = build(Tied)
    assert matching_names(model, "out.*") == ["embed.weight"] == matching_names(model)
    model = network()
    model[0].weight.requires_grad_(False)
    loop = TaskModel(model)
    assert "0.weight" not in loop.adapted
    loop.predict(loop.initial(3), sines().query.x).sum().backward()
    assert model[0].weight.grad is None and model[2].weight.grad is not None
    assert matching_names(model, lambda n: n.endswith("bias")) == ["0.bias", "2.bias"]


def test_fused_attention_is_back_after_the_block():
    fast = torch.backends.mha.get_fastpath_enabled()
    flash = torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(KeyError), elementary_attention():
        assert not torch.backends.cuda.flash_sdp_enabled()
        raise KeyError
    assert (
        torch.backends.mha.get_fastpath_enabled() == fast
        and torch.backends.cuda.flash_sdp_enabled() == flash
    )


def test_plain_stacks_run_without_vmap_and_agree_with_it():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 5),
        nn.Tanh(),
        nn.Sequential(nn.Linear(5, 5, bias=False), nn.GELU()),
        nn.Linear(5, 2),
    ).double()
    x = torch.randn(4, 6, 7, 3, dtype=torch.float64)
    for adapt in (None, "0.*", "2.*", ["0.bias", "3.weight"]):
        loop = TaskModel(model, adapt=adapt)
        params = {n: p + 0.1 * torch.randn_like(p) for n, p in loop.initial(4).items()}
        assert is_plain_stack(model)
        fast = loop.predict(params, x)
        hook = model[1].register_forward_hook(
            lambda *args: None
        )  # a hook must be called: vmap
        assert not is_plain_stack(model)
        assert torch.allclose(fast, loop.predict(params, x), rtol=1e-13)
        hook.remove()


def test_how_many_tasks_run_together():
    convolutions = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 100, 3),
    )
    assert (
        TaskModel(convolutions).chunk_size(8) == 1
        and TaskModel(network()).chunk_size(8) == 8
        and TaskModel(convolutions, tasks_at_once=99).chunk_size(8) == 8
    )


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        TaskModel(network(), adapt="head.*")
    with pytest.raises(ValueError, match="must be at least 1"):
        TaskModel(network(), tasks_at_once=0)
    with pytest.raises(ValueError, match="no vmap rule"):
        TaskModel(nn.LSTM(3, 3))
    with pytest.raises(ValueError, match="give predict_fn="):
        prediction_of((torch.zeros(1), torch.zeros(1)))
