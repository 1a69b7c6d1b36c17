"""A model for many tasks: what is made differentiable, which parameters adapt, and one
pass for all tasks."""

import copy

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import cross_entropy_per_task
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.task_models import BatchStatNorm, Predictor, TaskModel
from metalearn_book.foundations.task_models import additive_mask, call_with
from metalearn_book.foundations.task_models import elementary_attention, is_plain_stack
from metalearn_book.foundations.task_models import make_differentiable, matching_names
from metalearn_book.foundations.task_models import parameter_slots, predict_one
from metalearn_book.foundations.task_models import prediction_of, take_task
from metalearn_book.foundations.tasks import Examples, TaskBatch
from layers import CASES, D, IDS, PICTURES, TEXT, VECTORS, Pooled, Shared, Tied, build
from layers import conv, flat, generator, hugging_face, network, sines, stack
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
    with pytest.raises(ValueError, match="one of 'batch', 'running'"):
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


def at_random(tasks, n_tasks=2, seed=3):
    "Other parameters for each task, as leaves."
    return {
        n: (p + 0.1 * torch.randn(p.shape, generator=gen(seed)).to(p))
        .detach()
        .requires_grad_()
        for n, p in tasks.initial(n_tasks).items()
    }


def meta_loss(predict, starts, x, steps=2, rate=0.1):
    "Loss of tasks after steps on the sum of their losses; predict(params) -> (B, ...)."
    params = starts
    for _ in range(steps):
        total = ((predict(params) - 0.3) ** 2).flatten(1).mean(1).sum()
        g = torch.autograd.grad(total, list(params.values()), create_graph=True)
        params = {n: p - rate * gi for (n, p), gi in zip(params.items(), g)}
    return ((predict(params) - 0.3) ** 2).flatten(1).mean(1).sum()


def meta_gradients(model, stock, x, at_once=2):
    """The meta-gradient of both tasks in one pass, and of the stock model task by
    task."""
    tasks, own = (
        TaskModel(model, tasks_at_once=at_once),
        dict(stock.named_parameters()),
    )
    loss = meta_loss(lambda p: tasks.predict(p, x), tasks.initial(2), x)
    ours = torch.autograd.grad(loss, list(tasks.start().values()))
    loop = sum(
        meta_loss(lambda p, b=b: predict_one(stock, p, x[b : b + 1]), own, x)
        for b in range(2)
    )
    theirs = torch.autograd.grad(loop, [own[n] for n in tasks.adapted])
    return ours, theirs


def linear():
    return nn.Linear(D, D)


def shared_activation():
    act = nn.ReLU()
    return nn.Sequential(linear(), act, linear(), act, linear())


def shared_linear():
    twice = linear()
    return nn.Sequential(twice, nn.Tanh(), linear(), nn.Tanh(), twice)


def shared_block():
    block = nn.Sequential(linear(), nn.Tanh())
    return nn.Sequential(block, nn.Sequential(linear(), block), block)


def tied_in_a_stack():
    net = nn.Sequential(linear(), nn.Tanh(), linear())
    net[2].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    "make", [shared_activation, shared_linear, shared_block, tied_in_a_stack]
)
def test_a_plain_stack_uses_modules_and_weights_in_several_places(make):
    model = build(make)
    assert is_plain_stack(model)
    ours, theirs = meta_gradients(model, copy.deepcopy(model), VECTORS)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    tasks = TaskModel(model)
    params = at_random(tasks)
    hook = model.register_forward_hook(lambda *args: None)  # now through vmap
    by_vmap = tasks.predict(params, VECTORS)
    hook.remove()
    torch.testing.assert_close(tasks.predict(params, VECTORS), by_vmap)


def test_what_a_plain_stack_must_not_leave_out():
    net = network()
    assert is_plain_stack(net)
    net[1].forward = torch.relu  # an instance's own
    x = sines().query.x
    assert not is_plain_stack(net)
    tasks = TaskModel(net)
    assert torch.allclose(tasks.predict(tasks.initial(3), x), net(x))
    seen, net = [], network()
    net[1].register_full_backward_hook(lambda *args: seen.append(args))
    assert not is_plain_stack(net)
    flat_x = torch.randn(3, 1, dtype=torch.float64)  # a task may be one vector
    tasks = TaskModel(network())
    out = tasks.predict(tasks.initial(3), flat_x)
    assert torch.allclose(out, network()(flat_x))


def padded_embedding():
    return nn.Sequential(nn.Embedding(9, D, padding_idx=3), nn.Tanh(), linear())


def test_the_padding_row_neither_adapts_nor_learns():
    model, stock = build(padded_embedding), build(padded_embedding)
    ours, theirs = meta_gradients(model, stock, IDS)
    assert (IDS == 3).any() and (ours[0][3] == 0).all()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    tasks = TaskModel(model)
    assert tasks.changes == []  # held already
    params = at_random(tasks)
    (g,) = torch.autograd.grad(
        tasks.predict(params, IDS).square().sum(), params["0.weight"]
    )
    assert (g[:, 3] == 0).all() and (g[:, IDS.unique()[0]] != 0).any()
    sparse = nn.Sequential(nn.Embedding(9, D, sparse=True), linear()).double()
    assert make_differentiable(sparse) == ["0: sparse gradients -> dense"]


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(9, D)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: nn.Sequential(nn.Embedding(9, D, max_norm=1.0)), "max_norm"),
        (
            lambda: nn.Sequential(nn.Embedding(9, D, scale_grad_by_freq=True)),
            "scale_grad_by_freq is wrong",
        ),
        (Bag, "bag: EmbeddingBag has no second derivative"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "run the model once"),
    ],
)
def test_layers_that_can_not_be_mended_are_refused(make, what):
    with pytest.raises(ValueError, match=what):
        TaskModel(make())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_normalization_is_written_out(dim):
    def make():
        normed = torch.nn.utils.parametrizations.weight_norm(linear(), dim=dim)
        return nn.Sequential(normed, nn.Tanh(), linear())

    model = build(make)
    stock = copy.deepcopy(model)
    tasks = TaskModel(model)
    assert tasks.changes == [
        "0.parametrizations.weight.0: _WeightNorm -> ElementaryWeightNorm"
    ]
    assert torch.allclose(model(VECTORS), stock(VECTORS), rtol=1e-12)
    start = tasks.start()
    at = flat(start.values()).detach()

    def loss(vector):
        parts = vector.split([p.numel() for p in start.values()])
        named = {n: v.view_as(p) for (n, p), v in zip(start.items(), parts)}
        params = {n: p.expand(2, *p.shape) for n, p in named.items()}
        return meta_loss(lambda p: tasks.predict(p, VECTORS), params, VECTORS)

    leaf = at.clone().requires_grad_()
    (ours,) = torch.autograd.grad(loss(leaf), leaf)
    way = torch.randn(at.shape, generator=gen(7), dtype=torch.float64)
    slope = (loss(leaf + 1e-6 * way) - loss(leaf - 1e-6 * way)) / 2e-6
    assert abs((ours @ way / slope).item() - 1) < 1e-7
    with pytest.raises(ValueError, match="parametrizations.weight_norm"):
        TaskModel(nn.Sequential(torch.nn.utils.weight_norm(linear())))


def tracked():
    return conv(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))


@pytest.mark.parametrize(
    "make, x",
    [
        (
            lambda: stack(torch.nn.utils.parametrizations.spectral_norm(linear())),
            VECTORS,
        ),
        (lambda: stack(torch.nn.utils.spectral_norm(linear())), VECTORS),
        (tracked, PICTURES),
    ],
)
def test_layers_that_change_as_they_run_are_for_evaluation(make, x):
    model = make().double()
    tasks = TaskModel(model, tasks_at_once=2)
    with pytest.raises(ValueError, match="changes itself with every forward pass"):
        tasks.predict(tasks.initial(2), x)
    tasks.eval()
    out = tasks.predict(tasks.initial(2), x)
    assert torch.allclose(out, torch.stack([model(one) for one in x]))


def test_rrelu_draws_its_slopes():
    model = build(lambda: stack(nn.RReLU(0.1, 0.3)))
    stock = copy.deepcopy(model)
    tasks = TaskModel(model)
    assert torch.allclose(tasks.predict(tasks.initial(2), VECTORS), stock(VECTORS))
    x = -torch.ones(2, 500, 4, dtype=torch.float64)
    drawn = TaskModel(nn.Sequential(nn.RReLU(0.1, 0.3), nn.Linear(4, 4).double()))
    with torch.no_grad():
        drawn.model[1].weight.copy_(torch.eye(4)), drawn.model[1].bias.zero_()
    torch.manual_seed(1)
    slopes = -drawn.predict(drawn.initial(2), x)
    assert 0.1 <= slopes.min() < 0.11 < 0.29 < slopes.max() <= 0.3
    assert abs(slopes.mean() - 0.2) < 0.01 and not torch.equal(slopes[0], slopes[1])
    torch.manual_seed(1)  # the same state of the generator, the same slopes
    assert torch.equal(slopes, -drawn.predict(drawn.initial(2), x))


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_padding_has_no_part_in_batch_norm(kind, at_once):
    make, x = CASES[f"batch_norm_{kind}"]
    tasks = TaskModel(build(make), tasks_at_once=at_once)
    params, x = at_random(tasks), x.clone()
    keep = torch.tensor([[True, True, True, False], [True, True, False, False]])
    outs, grads = [], []
    for rubbish in (0.0, 100.0, float("nan")):
        x[~keep] = rubbish
        out = tasks.predict(params, x, keep)[keep]
        outs.append(out)
        grads.append(torch.autograd.grad(out.square().sum(), list(params.values())))
    for b, n in enumerate((3, 2)):  # as the task without its padding
        alone = tasks.predict_one(take_task(params, b), x[b, :n])
        ours = outs[1].split([3, 2])[b]
        torch.testing.assert_close(ours, alone, rtol=1e-9, atol=1e-10)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    for a, b in zip(grads[0], grads[1]):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert Predictor(tasks, params, [])(x, keep)[keep].equal(outs[2])
    all_real = torch.ones_like(keep)
    x = CASES[f"batch_norm_{kind}"][1]
    assert tasks.predict(params, x, all_real).equal(tasks.predict(params, x))


def test_batch_norm_refuses_what_it_can_not_do():
    class Scaled(nn.BatchNorm1d):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked = nn.BatchNorm1d(D)
    hooked.register_forward_hook(lambda m, args, out: 2 * out)
    for norm in (Scaled(D), hooked):
        with pytest.raises(ValueError, match="1: this .* would be lost"):
            TaskModel(stack(norm))
    for at_once in (1, 2):
        tasks = TaskModel(stack(nn.BatchNorm1d(D)).double(), tasks_at_once=at_once)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            tasks.predict(tasks.initial(2), VECTORS[:, :1])
        one_row = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()

        def regrouped(module, args):
            return (args[0][:2],)

        tasks.model[1].register_forward_pre_hook(regrouped)
        with pytest.raises(ValueError, match="2 rows of 4 examples"):
            tasks.predict(tasks.initial(2), VECTORS, one_row)


def test_parts_that_are_exchanged_after_wrapping():
    net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    tasks = TaskModel(net)
    net[2] = nn.Linear(8, 7).double()
    params = tasks.initial(2)
    out = tasks.predict(params, VECTORS)
    assert torch.equal(params["2.weight"][0], net[2].weight)
    assert torch.allclose(out, net(VECTORS)) and out.shape == (2, 4, 7)
    out.sum().backward()
    assert net[2].weight.grad is not None
    net[0].weight = nn.Parameter(torch.ones(8, D).double())
    assert torch.allclose(tasks.predict(tasks.initial(2), VECTORS), net(VECTORS))
    net[1] = nn.BatchNorm1d(8).double()
    with pytest.raises(ValueError, match=r"such as \['1.bias', '1.weight'\]; wrap it"):
        tasks.initial(2)
    with pytest.raises(ValueError, match="wrap it again"):
        tasks.initial(2)  # and not only the first time
    net[1] = nn.BatchNorm1d(8, affine=False).double()
    tasks.initial(2)
    written_out = "1: BatchNorm1d -> BatchStatNorm, batch statistics"
    assert tasks.changes == [written_out, written_out]
    net.append(nn.LSTM(7, 7))
    with pytest.raises(ValueError, match="no vmap rule"):
        tasks.initial(2)


def test_parameters_that_are_frozen_after_wrapping():
    net = network()
    tasks, head = TaskModel(net), TaskModel(net, adapt="2.*")
    net[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"\['0.weight'\]; wrap it again"):
        tasks.start()
    assert list(head.start()) == ["2.weight", "2.bias"]  # it was shared, not adapted
    again = copy.deepcopy(head)
    assert all(
        p is not q for p, q in zip(again.start().values(), head.start().values())
    )


def test_inputs_are_for_as_many_tasks_as_the_parameters():
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    for model, x in (
        (network(), sines().query.x),
        (stack(nn.LayerNorm(D)).double(), VECTORS),
        (convolution.double(), PICTURES),
        (build(lambda: hugging_face("BertForSequenceClassification")), TEXT),
    ):
        tasks = TaskModel(model)
        for have, given in ((3, 1), (1, 2), (3, 2)):
            with pytest.raises(ValueError, match=f"those of {have} tasks"):
                tasks.predict(tasks.initial(have), take_task(x, slice(0, given)))
        with pytest.raises(ValueError, match="those of 1 tasks"):
            tasks.predict(tasks.start(), take_task(x, slice(0, 2)))


def test_inputs_of_other_kinds_say_what_is_allowed():
    tasks = TaskModel(stack(nn.LayerNorm(D)).double())
    with pytest.raises(TypeError, match="got tuple"):
        tasks.predict(tasks.initial(2), (VECTORS, VECTORS))
    with pytest.raises(TypeError, match="got list"):
        tasks.predict(tasks.initial(2), {"input": VECTORS.tolist()})
    pooled = TaskModel(build(Pooled))
    for x in (IDS, {"input_ids": IDS}, {**TEXT, "weight": IDS}):
        with pytest.raises(TypeError, match="Pooled.forward.input_ids, attention_mask"):
            pooled.predict(pooled.initial(2), x)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear()

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


def test_a_branch_that_depends_on_data_runs_one_task_at_a_time():
    model = Branch().double()
    together, one = TaskModel(model), TaskModel(model, tasks_at_once=1)
    with pytest.raises(
        RuntimeError, match="tasks_at_once=1 runs it for one task after"
    ):
        together.predict(together.initial(2), VECTORS)
    out = one.predict(one.initial(2), VECTORS)
    assert torch.equal(out, torch.stack([model(x) for x in VECTORS]))


TINY = dict(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=40, pad_token_id=0, num_labels=3,
)  # fmt: skip
NAMED = dict(vocab_size=40, n_layer=2, pad_token_id=0)
LANGUAGE_MODELS = {
    # name: settings, and how its tasks run: our mask, its own, or one at a time
    "CLIPTextModelWithProjection": (TINY | dict(projection_dim=8), "its own"),
    "MptModel": (NAMED | dict(d_model=16, n_heads=2, max_seq_len=40), "its own"),
    "GPTNeoXJapaneseModel": (TINY, "its own"),
    "OPTForCausalLM": (
        TINY | dict(ffn_dim=16, word_embed_proj_dim=16),
        "4-D",
    ),
    "DebertaV2Model": (TINY, "its own"),
    "FalconModel": (TINY | dict(alibi=True), "its own"),
    "MistralModel": (TINY | dict(num_key_value_heads=2, sliding_window=5), "its own"),
    "ModernBertForSequenceClassification": (
        TINY | dict(classifier_pooling="mean", cls_token_id=1, sep_token_id=2),
        "4-D",
    ),
    "ModernBertModel": (TINY | dict(local_attention=4), "one task at a time"),
    "RobertaModel": (TINY, "4-D"),
    "T5EncoderModel": (
        dict(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2),
        "4-D",
    ),
    "BartDecoder": (
        dict(vocab_size=40, d_model=16, decoder_layers=2, decoder_attention_heads=2,
             decoder_ffn_dim=16, max_position_embeddings=40),
        "4-D",
    ),
    "EsmModel": (
        TINY | dict(position_embedding_type="rotary", mask_token_id=39),
        "one task at a time",
    ),
    "BloomModel": (NAMED | dict(hidden_size=16, n_head=2), "one task at a time"),
    "XLNetModel": (
        dict(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=16),
        "",
    ),
    "LongformerModel": (TINY | dict(attention_window=4), "one task at a time"),
}  # fmt: skip


def language_model(name):
    import transformers
    from transformers.models.bart.modeling_bart import BartDecoder

    kind = getattr(transformers, name) if name != "BartDecoder" else BartDecoder
    settings = LANGUAGE_MODELS[name][0]
    return build(lambda: kind(kind.config_class(**settings)))


def first_output(output):
    names = ("logits", "text_embeds", "last_hidden_state")
    return next(output[name] for name in names if name in output)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models_answer_as_before(name):
    "With a mask and without, for one task and two, at another length than was tried."
    model = language_model(name)
    ids = torch.randint(12, 27, (2, 3, 9), generator=gen(2))
    mask = torch.ones_like(ids)
    mask[0, 1, 5:] = mask[1, 2, 7:] = 0
    real = mask.bool()

    def each(**given):
        with torch.no_grad():
            outs = [first_output(model(**take_task(given, b))) for b in range(2)]
        return torch.stack(outs)

    texts = {"input_ids": ids, "attention_mask": mask}
    before, unmasked = each(**texts), each(input_ids=ids)
    tasks = TaskModel(model, predict_fn=first_output)
    assert LANGUAGE_MODELS[name][1] in tasks.changes[-1], tasks.changes
    assert make_differentiable(model) == []
    with torch.no_grad():
        ours = tasks.predict(tasks.initial(2), texts)
        ours_unmasked = tasks.predict(tasks.initial(2), {"input_ids": ids})
    after = each(**texts)
    if before.shape[:3] == real.shape:
        before, ours, after = before[real], ours[real], after[real]
    for theirs in (ours, after):  # some parts are computed in float32
        torch.testing.assert_close(theirs, before, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours_unmasked, unmasked, rtol=1e-5, atol=1e-6)


def test_trying_a_model_out_leaves_it_and_the_generator_alone():
    model = hugging_face("GPT2LMHeadModel").train()
    state = torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    make_differentiable(model)
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(after[n], v) for n, v in before.items())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_pictures_and_texts_is_prepared_by_its_parts():
    from transformers import CLIPConfig, CLIPModel

    vision = dict(TINY, image_size=8, patch_size=4)
    del vision["vocab_size"]
    config = CLIPConfig(text_config=TINY, vision_config=vision, projection_dim=8)
    model = build(lambda: CLIPModel(config))
    x = {"input_ids": torch.randint(12, 27, (3, 6), generator=gen(1))}
    before = model.get_text_features(**x)
    changes = make_differentiable(model)
    assert any("text_model" in c and "its own" in c for c in changes)
    after = model.get_text_features(**x)
    for a, b in zip(prediction_leaves(after), prediction_leaves(before)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def prediction_leaves(output):
    return [output] if isinstance(output, torch.Tensor) else list(output.to_tuple())


class Keyword(nn.Module):
    "An embedding that is called by the name of its argument."

    def __init__(self, kind=nn.Embedding):
        super().__init__()
        self.embed = kind(9, D, padding_idx=3)

    def forward(self, ids):
        return self.embed(input=ids)


class Summed(nn.Embedding):
    def forward(self, input):
        return super().forward(input).sum(1)


def test_padding_is_found_by_the_name_of_an_argument_or_refused():
    tasks = TaskModel(build(Keyword))
    params = at_random(tasks)
    total = tasks.predict(params, IDS).square().sum()
    (g,) = torch.autograd.grad(total, params["embed.weight"])
    assert (g[:, 3] == 0).all() and (g[:, 4] != 0).any()
    tasks = TaskModel(build(lambda: Keyword(Summed)))
    with pytest.raises(ValueError, match="padding can't be found"):
        tasks.predict(tasks.initial(2), IDS)


# --- the order of an image's numbers in memory --------------------------------------


def pictures(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, *more, nn.Flatten(), nn.Linear(16, 3))


def test_query_images_have_their_channels_last_and_the_same_gradient():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 6, 2, 6, 6, generator=g), torch.arange(6).expand(3, -1) % 3
    tasks, found = TaskBatch(Examples(x, y), Examples(x.flip(0), y)), {}
    for how in ("turned", "as it is"):
        loop = InnerLoop(pictures(), cross_entropy_per_task, inner_lr=0.1)
        if how == "as it is":
            loop.of_images = False
        strides = loop.channels_last(x)[0].stride()
        assert (strides[1] == 1) == (how == "turned")
        loop.outer_loss(tasks).backward()
        found[how] = [p.grad for p in loop.parameters()]
    for a, b in zip(*found.values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Viewed(nn.Module):
    "Relies on the usual order."

    def forward(self, x):
        return x.view(len(x), -1)


@pytest.mark.parametrize("part", ["view", "hook", "double", "one channel"])
def test_the_usual_order_stays_where_another_could_matter(part):
    x = torch.randn(3, 6, 1 if part == "one channel" else 2, 6, 6)
    model = pictures(*([Viewed()] if part == "view" else []))
    if part == "one channel":
        model[0] = nn.Conv2d(1, 4, 3)
    if part == "hook":
        model[2].register_forward_hook(lambda *seen: None)
    if part == "double":
        model, x = model.double(), x.double()
    wrapped = TaskModel(model)
    same = wrapped.channels_last(x)
    assert (same is x) == (part != "one channel")
    test = wrapped.predict(wrapped.initial(3), same)
    torch.testing.assert_close(test, wrapped.predict(wrapped.initial(3), x))
