"""Properties of the inner-loop engine: engine = per-task loop over the untouched model = finite differences, for every layer type; and its errors."""
import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metalearn_book.foundations.bilevel import (SGD, Adam, BatchStatNorm, InnerLoop, LinearTasks, PeakMemory, QuadraticAnswer, adapt_in_a_loop, additive_mask,
                                                binary_cross_entropy_per_task, cross_entropy_per_task, elementary_attention, finite_differences, is_plain_stack,
                                                make_differentiable, matching_names, mse_per_task, parameter_slots, predict_one, prediction_of, quadratic_form, rate_table,
                                                relative_difference, steps_to_walk)
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from shared import double, gen

D = 6


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    "These tensors are tiny: several threads would only wait for each other."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.qkv = kind, nn.Linear(D, 3 * D)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.kind == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v


class MultiHead(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.need_weights, self.attend = need_weights, nn.MultiheadAttention(D, 2, batch_first=True)

    def forward(self, x):
        return self.attend(x, x, x, need_weights=self.need_weights)[0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, D), nn.Linear(D, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.embed(ids)))


class Shared(nn.Module):
    "One BatchNorm module used under two names."
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))
        self.second = nn.Sequential(nn.Linear(D, D), self.first[1])

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def stack(*layers):
    return nn.Sequential(nn.Linear(D, D), *layers, nn.Linear(D, D))


def conv(layer):
    return nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 3))


def bert_config():
    from transformers import BertConfig
    return BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8, num_labels=3)


def gpt2_config():
    from transformers import GPT2Config
    return GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2, n_positions=8, num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def hugging_face(name):
    import transformers
    return getattr(transformers, name)(bert_config() if name.startswith("Bert") else gpt2_config())


class Pooled(nn.Module):
    "A Hugging Face encoder inside a module of one's own."
    def __init__(self):
        super().__init__()
        from transformers import BertModel
        self.encoder, self.head = BertModel(bert_config(), add_pooling_layer=False), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        h, m = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state, attention_mask[..., None]
        return self.head((h * m).sum(1) / m.sum(1))


VECTORS, SEQUENCES, PICTURES = draw(2, 4, D), draw(2, 4, 3, D), draw(2, 4, 1, 6, 6)
IDS = torch.randint(1, 9, (2, 4, 5), generator=generator(3))
MASK = torch.ones(2, 4, 5, dtype=torch.long)
MASK[:, 1, 3:] = 0
MASK[0, 2, 4:] = 0
TEXT = {"input_ids": IDS * MASK, "attention_mask": MASK}
CASES = {
    "linear": (lambda: stack(nn.Tanh()), VECTORS), "layer_norm": (lambda: stack(nn.LayerNorm(D)), VECTORS), "rms_norm": (lambda: stack(nn.RMSNorm(D)), VECTORS),
    "batch_norm_1d": (lambda: stack(nn.BatchNorm1d(D)), VECTORS), "batch_norm_untracked": (lambda: stack(nn.BatchNorm1d(D, track_running_stats=False)), VECTORS),
    "batch_norm_not_affine": (lambda: stack(nn.BatchNorm1d(D, affine=False)), VECTORS), "batch_norm_shared": (Shared, VECTORS),
    "conv": (lambda: conv(nn.Identity()), PICTURES), "batch_norm_2d": (lambda: conv(nn.BatchNorm2d(4)), PICTURES), "group_norm": (lambda: conv(nn.GroupNorm(2, 4)), PICTURES),
    "instance_norm": (lambda: conv(nn.InstanceNorm2d(4, affine=True)), PICTURES), "max_pool": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)), PICTURES),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, D), nn.Linear(D, D)), IDS), "tied": (Tied, IDS), "dropout_off": (lambda: stack(nn.Dropout(0.5)), VECTORS),
    "hand_attention": (lambda: Attention("hand"), SEQUENCES), "sdpa": (lambda: Attention("sdpa"), SEQUENCES), "multi_head": (lambda: MultiHead(False), SEQUENCES),
    "multi_head_weights": (lambda: MultiHead(True), SEQUENCES), "encoder_layer": (lambda: nn.TransformerEncoderLayer(D, 2, 8, dropout=0.0, batch_first=True), SEQUENCES),
    "bert": (lambda: hugging_face("BertForSequenceClassification"), TEXT), "bert_tokens": (lambda: hugging_face("BertForTokenClassification"), TEXT), "encoder_inside": (Pooled, TEXT),
    "gpt2": (lambda: hugging_face("GPT2LMHeadModel"), TEXT), "gpt2_no_mask": (lambda: hugging_face("GPT2LMHeadModel"), {"input_ids": IDS}),
    "gpt2_classifier": (lambda: hugging_face("GPT2ForSequenceClassification"), TEXT)}


def build(make):
    torch.manual_seed(0)
    model = make().double().eval()
    for m in model.modules():
        m.training = isinstance(m, nn.modules.batchnorm._BatchNorm)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def weights_of(x):
    w = torch.ones(2, 4, dtype=torch.float64)
    if isinstance(x, dict) and "attention_mask" in x:
        w[x["attention_mask"].min(-1).values == 0] = 0.5            # padded sentences count, with another weight
    return w


def loss_with(pad):
    "A loss that needs no labels; logits at padded positions, which no model promises, are left out."
    def loss(prediction, y, mask=None):
        e = (prediction - 0.3) ** 2
        if pad is not None and e.dim() == 4:
            p = pad if len(pad) == len(e) else pad[:len(e)]
            e = e * p[..., None]
        return (e.flatten(2).mean(2) * y).mean(1)
    return loss


MODES = [{"memory": m, "tasks_at_once": n, "states": 1} for m in ("store", "checkpoint", "adjoint") for n in (1, 2)]


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def engine_objective(loop, tasks, loss):
    return loss(loop.adapt(tasks.support)(tasks.query.x), tasks.query.y).mean()


def engine_gradient(loop, tasks, loss):
    return flat(torch.autograd.grad(engine_objective(loop, tasks, loss), [p for p in loop.parameters() if p.requires_grad]))


def loop_gradient(model, tasks, losses, **options):
    "Per-task Python loop; losses[b] is the loss of task b."
    total = 0.0
    for b in range(len(tasks)):
        params, = adapt_in_a_loop(model, losses[b], tasks.support[b], **options)
        q = tasks.query[b]
        total = total + losses[b](predict_one(model, params, q.x), q.y, q.mask).sum() / len(tasks)
    return flat(torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad]))


def slope(fn, params, direction, step=1e-6):
    values = []
    for sign in (1, -2):
        for p, v in zip(params, direction):
            p.data.add_(v, alpha=sign * step)
        values.append(fn().item())
    for p, v in zip(params, direction):
        p.data.add_(v, alpha=step)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("name", CASES)
def test_meta_gradient_of_every_layer(name):
    make, x = CASES[name]
    model = build(make)
    stock = copy.deepcopy(model)
    if hasattr(stock, "set_attn_implementation"):
        stock.set_attn_implementation("eager")
    if name == "encoder_inside":
        stock.encoder.set_attn_implementation("eager")
    examples = Examples(x, weights_of(x))
    tasks, pad = TaskBatch(examples, examples), x.get("attention_mask") if isinstance(x, dict) else None
    reference = loop_gradient(stock, tasks, [loss_with(None if pad is None else pad[b:b + 1]) for b in range(2)], inner_lr=0.1, inner_steps=2)
    loop, loss = InnerLoop(model, loss_with(pad), inner_lr=0.1, inner_steps=2), loss_with(pad)
    ours = engine_gradient(loop, tasks, loss)
    assert (ours - reference).norm() <= 1e-11 * reference.norm(), "engine and loop"

    params = list(model.parameters())
    direction = [torch.randn(p.shape, generator=generator(4)).double() for p in params]
    expected = slope(lambda: engine_objective(loop, tasks, loss), params, direction)
    assert torch.dot(ours, flat(direction)).item() == pytest.approx(expected, rel=1e-6), "engine and finite differences"

    def loss_of_chunk(prediction, y, mask=None):
        "The same loss, with the padding handed over in y, so that it may see any of the tasks."
        return loss_with(y[..., 1:] if y.shape[-1] > 1 else None)(prediction, y[..., 0])
    with_padding = examples.y[..., None] if pad is None else torch.cat([examples.y[..., None], pad.double()], -1)
    for mode in MODES:
        other, both = InnerLoop(model, loss_of_chunk, inner_lr=0.1, inner_steps=2, **mode), TaskBatch(*[Examples(x, with_padding)] * 2)
        found = flat(torch.autograd.grad(other.outer_loss(both), params))
        assert (found - ours).norm() <= 1e-10 * ours.norm(), mode
    loop.memory = "checkpoint"
    with torch.no_grad():
        quiet = loop.adapt(examples).params
    assert all(torch.allclose(quiet[n], p, rtol=1e-12, atol=1e-14) for n, p in loop.adapt(examples).params.items())
    assert not any(p.requires_grad for p in quiet.values())


def sines():
    t = SinusoidTasks(k_shot=5, n_query=5).sample(3, generator(1))
    return TaskBatch(t.support.map(torch.Tensor.double), t.query.map(torch.Tensor.double))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9), Adam()], ids=str)
@pytest.mark.parametrize("adapt", [None, "2.*", ["0.weight", "2.bias"]], ids=str)
def test_optimizers_and_choice_of_parameters(optimizer, adapt):
    model, tasks = network(), sines()
    options = dict(adapt=adapt, inner_lr=0.05, inner_steps=4, optimizer=optimizer)
    ours = engine_gradient(InnerLoop(model, mse_per_task, **options), tasks, mse_per_task)
    reference = loop_gradient(model, tasks, [mse_per_task] * 3, **options)
    assert (ours - reference).norm() <= 1e-11 * reference.norm()


@pytest.mark.parametrize("ours, theirs", [(SGD(), lambda p: torch.optim.SGD(p, lr=0.05)), (SGD(0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
                                          (Adam(), lambda p: torch.optim.Adam(p, lr=0.05))], ids=["sgd", "momentum", "adam"])
def test_forward_trajectory_is_that_of_torch_optim(ours, theirs):
    tasks, start = sines(), network()
    fitted = InnerLoop(start, mse_per_task, inner_lr=0.05, inner_steps=10, optimizer=ours).adapt(tasks.support).params
    for b in range(3):
        model = copy.deepcopy(start)
        opt = theirs(model.parameters())
        for _ in range(10):
            opt.zero_grad()
            F.mse_loss(model(tasks.support.x[b]), tasks.support.y[b]).backward()
            opt.step()
        for name, p in model.named_parameters():
            assert torch.allclose(fitted[name][b], p, rtol=1e-9, atol=1e-12)


def test_adam_has_a_finite_meta_gradient_where_a_unit_is_dead():
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    model[0].bias.data[0], model[0].weight.data[0] = -100.0, 0.0
    g = engine_gradient(InnerLoop(model, mse_per_task, inner_lr=0.01, inner_steps=3, optimizer=Adam()), sines(), mse_per_task)
    assert torch.isfinite(g).all()


@pytest.mark.parametrize("kind, shape", [(True, (1, 1)), ("scalar", (1, 1)), ("tensor", (1, 4)), ("step", (3, 1)), ("tensor_step", (3, 4))])
def test_learned_rates_have_the_gradient_of_finite_differences(kind, shape):
    loop, tasks = InnerLoop(network(), mse_per_task, inner_lr=0.05, inner_steps=3, learn_lr=kind), sines()
    assert loop.inner_lr.shape == shape
    ours, = torch.autograd.grad(engine_objective(loop, tasks, mse_per_task), loop.inner_lr)

    def objective(rates):
        loop.inner_lr.data = rates
        return engine_objective(loop, tasks, mse_per_task)
    assert relative_difference(ours, finite_differences(objective, loop.inner_lr.detach().clone())) < 1e-6


def test_rates_given_by_step_and_by_tensor():
    tasks, model = sines(), network()
    by_step = InnerLoop(model, mse_per_task, inner_lr=[0.1, 0.0, 0.02], inner_steps=3).adapt(tasks.support).params
    first = InnerLoop(model, mse_per_task, inner_lr=0.1).adapt(tasks.support)
    second = {n: p.detach() for n, p in first.params.items()}
    params = {n: p.requires_grad_() for n, p in second.items()}
    loss = mse_per_task(first.loop.predict(params, tasks.support.x), tasks.support.y).sum()
    for (n, p), g in zip(params.items(), torch.autograd.grad(loss, list(params.values()))):
        assert torch.allclose(by_step[n], p - 0.02 * g)
    by_tensor = InnerLoop(model, mse_per_task, inner_lr={"0.*": 0.0, "*": 0.1}).adapt(tasks.support).params
    assert torch.equal(by_tensor["0.weight"][1], model[0].weight) and torch.allclose(by_tensor["2.weight"], first.params["2.weight"])
    with pytest.raises(ValueError, match="one for each step"):
        rate_table([0.1], ["a"], 2)
    with pytest.raises(ValueError, match="no rate for 'b'"):
        rate_table({"a": 0.1}, ["a", "b"], 2)
    with pytest.raises(ValueError, match="learn_lr='each'"):
        InnerLoop(model, mse_per_task, learn_lr="each")


def test_first_order_is_the_query_gradient_at_the_adapted_point():
    model, tasks = network(), sines()
    ours = engine_gradient(InnerLoop(model, mse_per_task, inner_lr=0.1, inner_steps=3, first_order=True), tasks, mse_per_task)
    total = 0
    for b in range(3):
        fit, = adapt_in_a_loop(model, mse_per_task, tasks.support[b], inner_lr=0.1, inner_steps=3)
        fit = {n: p.detach().requires_grad_() for n, p in fit.items()}
        q = tasks.query[b]
        total = total + flat(torch.autograd.grad(mse_per_task(predict_one(model, fit, q.x), q.y).sum(), list(fit.values()))) / 3
    assert torch.allclose(ours, total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_closed_form_of_quadratics(steps):
    tasks, phi = LinearTasks(dim=3).sample(7, generator(2)), draw(3)
    answer, model = QuadraticAnswer(tasks, 0.2, steps), nn.Linear(3, 1, bias=False).double()
    model.weight.data = phi[None].clone()
    loop = InnerLoop(model, mse_per_task, inner_lr=0.2, inner_steps=steps)
    assert torch.allclose(loop.adapt(tasks.support).params["weight"][:, 0], answer.adapted(phi), rtol=1e-10)
    assert torch.allclose(engine_gradient(loop, tasks, mse_per_task), answer.meta_gradient(phi), rtol=1e-10)
    loop.first_order = True
    assert torch.allclose(engine_gradient(loop, tasks, mse_per_task), answer.meta_gradient(phi, True), rtol=1e-10)
    for first_order in (False, True):
        assert answer.meta_gradient(answer.optimum(first_order), first_order).abs().max() < 1e-10
    with pytest.raises(ValueError, match="do not determine"):
        quadratic_form(LinearTasks(dim=3, k_shot=2).sample(1, generator()).support)


def test_masked_examples_do_not_count():
    model, tasks = network(), sines()
    s, mask = tasks.support, torch.tensor([[1, 1, 1, 0, 0]] * 3).bool()
    spoiled = Examples(s.x.clone(), s.y.clone(), mask)
    spoiled.y[:, 3:] = 1e6
    short = Examples(s.x[:, :3], s.y[:, :3])
    a, b = (InnerLoop(model, mse_per_task, inner_lr=0.1).adapt(e).params for e in (spoiled, short))
    assert all(torch.allclose(a[n], b[n]) for n in a)
    logits, y = draw(2, 4, 3), torch.randint(0, 3, (2, 4), generator=generator())
    keep = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    expected = torch.stack([F.cross_entropy(logits[0, :2], y[0, :2]), F.cross_entropy(logits[1], y[1])])
    assert torch.allclose(cross_entropy_per_task(logits, y, keep), expected)
    z = draw(2, 4, 1)
    assert torch.allclose(binary_cross_entropy_per_task(z, y > 0), torch.stack([F.binary_cross_entropy_with_logits(z[b, :, 0], (y[b] > 0).double()) for b in range(2)]))


def test_dropout_differs_between_tasks_in_training_and_is_off_in_evaluation():
    model = nn.Sequential(nn.Linear(D, D), nn.Dropout(0.5), nn.Linear(D, 1)).double()
    same = Examples(VECTORS[:1].expand(2, -1, -1).contiguous(), draw(1, 4, 1).expand(2, -1, -1).contiguous())
    a, b = InnerLoop(model.train(), mse_per_task).adapt(same).losses[0]
    assert not torch.isclose(a, b)
    a, b = InnerLoop(model.eval(), mse_per_task).adapt(same).losses[0]
    assert torch.isclose(a, b)


def test_checkpointing_draws_the_same_dropout_again():
    model, tasks = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double().train(), sines()
    grads = []
    for memory in ("store", "checkpoint", "adjoint"):
        torch.manual_seed(5)
        grads.append(engine_gradient(InnerLoop(model, mse_per_task, inner_lr=0.1, inner_steps=3, memory=memory), tasks, mse_per_task))
    assert torch.allclose(grads[0], grads[1], rtol=1e-12) and torch.allclose(grads[0], grads[2], rtol=1e-12)


def test_batch_norm_statistics():
    model = stack(nn.BatchNorm1d(D)).double()
    model[1].running_mean.normal_(generator=generator())
    model[1].running_var.uniform_(0.5, 2, generator=generator())
    stock, before = copy.deepcopy(model), model[1].running_mean.clone()
    loop = InnerLoop(model, loss_with(None), batch_norm="running")
    x = VECTORS[:, :, :]
    assert torch.allclose(loop.predict(loop.initial(2), x)[1], stock.eval()(x[1]))
    loop.train().adapt(Examples(x, torch.ones(2, 4).double()))
    assert torch.equal(model[1].running_mean, before) and loop.changes == ["1: BatchNorm1d -> BatchStatNorm, running statistics"]
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
    assert any("eager" in c for c in changes) and any("4-D" in c for c in changes) and make_differentiable(model) == []
    one = {k: v[0] for k, v in TEXT.items()}
    ours, theirs = model(**one).logits, stock(**one).logits
    real = one["attention_mask"].bool() if ours.dim() == 3 else torch.ones(4, dtype=torch.bool)
    assert torch.allclose(ours[real], theirs[real], atol=1e-10)
    positional = model(one["input_ids"]).logits
    assert torch.allclose(positional, stock(one["input_ids"]).logits, atol=1e-10)


def test_generation_still_works_after_the_change():
    model = build(lambda: hugging_face("GPT2LMHeadModel"))
    prompt = IDS[0, :, :3]
    before = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False)
    make_differentiable(model)
    assert torch.equal(model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False), before)


def test_masks():
    m = additive_mask(torch.tensor([[1, 1, 0]]), False, torch.float64)
    assert m.shape == (1, 1, 3, 3) and (m[0, 0, :, 2] < -1e300).all() and (m[0, 0, :, :2] == 0).all()
    with pytest.raises(ValueError, match="encoder-decoder"):
        from transformers import T5Config, T5ForConditionalGeneration
        make_differentiable(T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)))


def test_a_module_used_twice_is_left_as_it_was():
    model = build(Shared)
    before = {n: p for n, p in model.named_parameters()}
    InnerLoop(model, loss_with(None)).adapt(Examples(VECTORS, torch.ones(2, 4).double()))
    assert all(p is before[n] for n, p in model.named_parameters())
    assert sorted(parameter_slots(build(Tied))["embed.weight"]) == ["embed.weight", "out.weight"]


def test_frozen_and_tied_parameters():
    model = build(Tied)
    assert matching_names(model, "out.*") == ["embed.weight"] == matching_names(model)
    model = network()
    model[0].weight.requires_grad_(False)
    loop = InnerLoop(model, mse_per_task)
    assert "0.weight" not in loop.adapted
    engine_objective(loop, sines(), mse_per_task).backward()
    assert model[0].weight.grad is None and model[2].weight.grad is not None
    assert matching_names(model, lambda n: n.endswith("bias")) == ["0.bias", "2.bias"]


def test_errors_say_what_to_do():
    model, tasks = network(), sines()
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        InnerLoop(model, mse_per_task, adapt="head.*")
    with pytest.raises(ValueError, match="inner_steps must be 0 or more"):
        InnerLoop(model, mse_per_task, inner_steps=-1)
    with pytest.raises(ValueError, match="unused='maybe'"):
        InnerLoop(model, mse_per_task, unused="maybe")
    spoiled = tasks.support.map(torch.clone)
    spoiled.y[2, 0] = float("inf")
    with pytest.raises(RuntimeError, match="task 2 is inf before inner step 0"):
        InnerLoop(model, mse_per_task).adapt(spoiled)
    assert not torch.isfinite(InnerLoop(model, mse_per_task, check_finite=False).adapt(spoiled).losses[0][2])
    with pytest.raises(RuntimeError, match="before inner step [1-9]"):
        InnerLoop(model, mse_per_task, inner_lr=1e9, inner_steps=30).adapt(tasks.support)
    with pytest.raises(ValueError, match="one loss for each task"):
        InnerLoop(model, lambda p, y, m: ((p - y) ** 2).mean()).adapt(tasks.support)
    with pytest.raises(ValueError, match="they must agree"):
        InnerLoop(model, mse_per_task).adapt(Examples(tasks.support.x, tasks.support.y[..., 0]))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="torch.no_grad"):
        InnerLoop(model, mse_per_task).adapt(tasks.support)
    with pytest.raises(ValueError, match="no vmap rule"):
        InnerLoop(nn.LSTM(3, 3), mse_per_task)
    with pytest.raises(ValueError, match="give predict_fn="):
        prediction_of((torch.zeros(1), torch.zeros(1)))


def test_parameters_without_gradient():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.used(x)
    model = Half().double()
    with pytest.raises(RuntimeError, match="idle.weight.*leave them out"):
        InnerLoop(model, mse_per_task).adapt(sines().support)
    params = InnerLoop(model, mse_per_task, unused="zero").adapt(sines().support).params
    assert torch.equal(params["idle.weight"][2], model.idle.weight)


def test_fused_attention_is_back_after_the_block():
    fast = torch.backends.mha.get_fastpath_enabled()
    flash = torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(KeyError), elementary_attention():
        assert not torch.backends.cuda.flash_sdp_enabled()
        raise KeyError
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.backends.cuda.flash_sdp_enabled() == flash


def test_relative_difference_and_finite_differences():
    assert relative_difference(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0])) == 0.25
    assert not relative_difference(torch.tensor([float("nan")]), torch.ones(1)) <= 1
    with pytest.raises(ValueError, match="shapes differ"):
        relative_difference(torch.ones(2), torch.ones(1))
    A = draw(3, 2)
    assert torch.allclose(finite_differences(lambda v: A @ v, draw(2)), A, atol=1e-8)


def test_peak_memory_counts_views_once_and_repeats():
    def work():
        with PeakMemory() as m:
            engine_objective(InnerLoop(network(), mse_per_task, inner_steps=5), sines(), mse_per_task).backward()
        return m.peak
    work()
    assert work() == work() > 0
    with PeakMemory() as m:
        a = torch.zeros(100)
        b = a[10:]
        assert m.live == 400
        del a
        assert m.live == 400
        del b
        assert m.live == 0


def test_an_engine_trains_moves_and_copies_like_any_module():
    loop = InnerLoop(network(), mse_per_task, learn_lr="tensor", inner_steps=2)
    other = InnerLoop(network(7), mse_per_task, learn_lr="tensor", inner_steps=2)
    other.load_state_dict(loop.state_dict())
    tasks = sines()
    assert torch.equal(engine_objective(loop, tasks, mse_per_task), engine_objective(other, tasks, mse_per_task))
    twin = copy.deepcopy(loop).float()
    single = TaskBatch(tasks.support.map(lambda t: t.float()), tasks.query.map(lambda t: t.float()))
    assert twin.inner_lr.dtype == torch.float32 and engine_objective(twin, single, mse_per_task).dtype == torch.float32
    assert functional_call(loop.model, {}, (tasks.query.x[0],)).shape == (5, 1)


# ---------------------------------------------------------------- the adjoint sweep, and a few tasks at a time

@pytest.mark.parametrize("steps", [1, 2, 5, 13, 40])
@pytest.mark.parametrize("states", [1, 3, 10])
def test_the_sweep_equals_the_stored_graph(steps, states):
    model, tasks = network(), sines()
    expected = engine_gradient(InnerLoop(model, mse_per_task, inner_lr=0.05, inner_steps=steps), tasks, mse_per_task)
    found = engine_gradient(InnerLoop(model, mse_per_task, inner_lr=0.05, inner_steps=steps, memory="adjoint", states=states), tasks, mse_per_task)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("optimizer", [SGD(0.9), Adam()], ids=str)
@pytest.mark.parametrize("options", [{"learn_lr": "tensor_step"}, {"adapt": "2.*", "learn_lr": True}, {"unused": "zero"}], ids=str)
def test_the_sweep_reaches_optimizer_states_rates_and_shared_parameters(optimizer, options):
    tasks, grads = sines(), []
    for memory in ("store", "adjoint"):
        loop = InnerLoop(network(), mse_per_task, inner_lr=0.05, inner_steps=6, optimizer=optimizer, memory=memory, states=2, **options)
        grads.append(flat(torch.autograd.grad(loop.outer_loss(tasks), [p for p in loop.parameters() if p.requires_grad])))
    assert torch.allclose(*grads, rtol=1e-9, atol=1e-13)


def test_the_sweep_passes_a_gradient_to_the_inputs_and_leaves_the_random_state_alone():
    grads, tasks, model = [], sines(), nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double().train()
    for memory in ("store", "adjoint"):
        torch.manual_seed(3)
        x = tasks.support.x.clone().requires_grad_()
        loop = InnerLoop(model, mse_per_task, inner_lr=0.05, inner_steps=9, memory=memory, states=2)
        loss = mse_per_task(loop.adapt(Examples(x, tasks.support.y))(tasks.query.x), tasks.query.y).mean()
        before = torch.get_rng_state()
        grads.append(torch.autograd.grad(loss, x)[0])
        assert torch.equal(before, torch.get_rng_state())
    assert torch.allclose(*grads, rtol=1e-10, atol=1e-14) and grads[0].abs().sum() > 0


def test_walks_are_planned_with_the_fewest_repeats():
    import functools
    import math

    @functools.cache
    def fewest(n, s):
        "Steps walked forward in all, by trying every first stretch."
        if n == 1:
            return 0
        if s == 0:
            return n * (n - 1) // 2
        return min(m + fewest(n - m, s - 1) + fewest(m, s) for m in range(1, n))

    def undo(first, last, free, walked):
        while last - first > 1:
            middle = first + steps_to_walk(last - first, free)
            for t in range(first, middle):
                walked[t] += 1
            undo(middle, last, max(free - 1, 0), walked)
            last = middle
    for s in (0, 1, 3, 10):
        for n in range(2, 60):
            walked = [0] * n
            undo(0, n, s, walked)
            assert sum(walked) == fewest(n, s), (n, s)
            assert max(walked) <= next(r for r in range(n) if math.comb(s + r + 1, r) >= n), (n, s)


def test_memory_of_the_sweep_is_flat():
    torch.manual_seed(0)
    model, tasks, peaks = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1)), SinusoidTasks(k_shot=200).sample(4, generator(1)), {}
    for memory, steps in (("store", 20), ("adjoint", 20), ("adjoint", 100)):
        loop = InnerLoop(model, mse_per_task, inner_steps=steps, memory=memory)
        with PeakMemory() as used:
            loop.outer_loss(tasks).backward()
        peaks[memory, steps] = used.peak
    assert peaks["adjoint", 100] < 1.05 * peaks["adjoint", 20] and peaks["adjoint", 20] < peaks["store", 20] / 4


def test_chunks_hold_one_graph_at_a_time():
    torch.manual_seed(0)
    model, tasks = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 3)), None
    x, y = torch.randn(8, 6, 1, 12, 12), torch.randint(0, 3, (8, 6))
    tasks = TaskBatch(Examples(x, y), Examples(x, y))
    assert InnerLoop(model).chunk_size(8) == 1 and InnerLoop(network(), mse_per_task).chunk_size(8) == 8 and InnerLoop(model, tasks_at_once=99).chunk_size(8) == 8
    peaks, grads = [], []
    for size in (8, 1):
        loop = InnerLoop(model, inner_lr=0.1, tasks_at_once=size)
        with PeakMemory() as used:
            grads.append(flat(torch.autograd.grad(loop.outer_loss(tasks), list(model.parameters()))))
        peaks.append(used.peak)
    assert torch.allclose(*grads, atol=1e-5) and peaks[1] < peaks[0] / 4
    with torch.no_grad():
        assert loop.outer_loss(tasks).item() == pytest.approx(InnerLoop(model, inner_lr=0.1, tasks_at_once=8).outer_loss(tasks).item(), rel=1e-5)


def test_errors_of_the_modes():
    with pytest.raises(ValueError, match="'store', 'checkpoint', 'adjoint'"):
        InnerLoop(network(), mse_per_task, memory="little")
    for option in ("states", "tasks_at_once"):
        with pytest.raises(ValueError, match="must be at least 1"):
            InnerLoop(network(), mse_per_task, **{option: 0})
    tasks = sines()
    tasks.support.x.requires_grad_()
    with pytest.raises(ValueError, match="say tasks_at_once=3"):
        InnerLoop(network(), mse_per_task, tasks_at_once=1).outer_loss(tasks)


def test_too_little_memory_says_what_needs_less():
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.weight + torch.empty(2 ** 55)[0]
    with pytest.raises(RuntimeError, match="tasks_at_once=1 .* memory='adjoint'"):
        InnerLoop(Greedy(), mse_per_task).outer_loss(SinusoidTasks().sample(2, generator()))


def test_a_function_without_second_derivative_is_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return Once.apply(x * self.weight)
    task = SinusoidTasks().sample(1, generator())
    with pytest.raises(RuntimeError, match="no second derivative.*first_order=True"):
        InnerLoop(Layer(), mse_per_task).outer_loss(task)
    InnerLoop(Layer(), mse_per_task, first_order=True).outer_loss(task).backward()


def test_plain_stacks_run_without_vmap_and_agree_with_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 5, bias=False), nn.GELU()), nn.Linear(5, 2)).double()
    x = torch.randn(4, 6, 7, 3, dtype=torch.float64)
    for adapt in (None, "0.*", "2.*", ["0.bias", "3.weight"]):
        loop = InnerLoop(model, adapt=adapt)
        params = {n: p + 0.1 * torch.randn_like(p) for n, p in loop.initial(4).items()}
        assert is_plain_stack(model)
        fast = loop.predict(params, x)
        hook = model[1].register_forward_hook(lambda *args: None)                # a hook must be called: vmap
        assert not is_plain_stack(model)
        assert torch.allclose(fast, loop.predict(params, x), rtol=1e-13)
        hook.remove()


def test_a_single_task_carries_no_task_axis_inside():
    "The parameters of a predictor have the task axis whether or not the inner loop needed it, and the numbers are those of a batch."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).double()
    loop = InnerLoop(net, cross_entropy_per_task, inner_lr=0.1, inner_steps=2)
    tasks = double(TaskBatch(*(Examples(torch.randn(3, 4, 1, 6, 6, generator=gen(k)), torch.arange(4).remainder(2).expand(3, -1)) for k in (1, 2))))
    together = loop.adapt(tasks.support)
    for b in range(3):
        alone = loop.adapt(tasks[b:b + 1].support)
        for n, p in alone.params.items():
            assert p.shape == (1, *net.get_parameter(n).shape)
            torch.testing.assert_close(p[0], together.params[n][b])
        torch.testing.assert_close(alone(tasks.query.x[b:b + 1])[0], together(tasks.query.x)[b])


def test_adjoint_refuses_a_state_that_depends_on_the_start():
    @dataclass(frozen=True)
    class Remembers(SGD):
        def init(self, params):
            return {"start": params}
    loop = InnerLoop(nn.Linear(2, 1), mse_per_task, inner_steps=2, memory="adjoint", optimizer=Remembers())
    support = Examples(torch.randn(1, 3, 2), torch.randn(1, 3, 1))
    with pytest.raises(ValueError, match="first state of Remembers depends on the start"):
        loop.adapt(support)
    with torch.no_grad():
        loop.adapt(support)


@pytest.mark.parametrize("options", [{"first_order": True}, {"inner_steps": 0}])
def test_parameters_that_share_a_gradient_tensor_are_summed_over_chunks_once(options):
    "PyTorch hands the same tensor to a and b in a + b; adding the next chunk to it in place would count each twice."
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.w = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3)), nn.Linear(2, 3)

        def forward(self, x):
            return self.w(x) + (self.a + self.b)
    net = Sum().double()
    tasks = double(TaskBatch(*(Examples(torch.randn(4, 5, 2, generator=gen(k)), torch.randn(4, 5, 3, generator=gen(k + 2))) for k in (0, 1))))
    found = []
    for at_once in (4, 1):
        net.zero_grad()
        InnerLoop(net, mse_per_task, inner_lr=0.1, adapt="w.*", tasks_at_once=at_once, **options).outer_loss(tasks).backward()
        found.append(torch.stack([net.a.grad, net.b.grad]))
    torch.testing.assert_close(found[1], found[0])
