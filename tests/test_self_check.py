"""What a model for many tasks compares with itself, on a bare `CheckedModel`."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from shared import gen
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.self_check import CheckedModel, KeptState
from metalearn_book.foundations.self_check import largest_difference, leaves_of
from metalearn_book.foundations.self_check import other_padding
from metalearn_book.foundations.inner_loop import InnerLoop
from metalearn_book.foundations.tasks import Examples, SinusoidTasks
from metalearn_book.optimization.implicit import ImplicitLoop


class Table(nn.Module):
    "Looks words up by a function, which `make_differentiable` does not know."

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 1)

    def forward(self, ids):
        return self.head(F.embedding(ids, self.words, padding_idx=0).tanh().mean(-2))


def normed():
    torch.manual_seed(0)
    layers = nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)
    return nn.Sequential(*layers).double()


def padded(contents):
    "Two tasks, the second with three real examples of five."
    x = torch.randn(2, 5, 2, generator=gen()).double()
    y = torch.randn(2, 5, 1, generator=gen(1)).double()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    examples = Examples(x, y, mask)
    filled = torch.where(mask[..., None], x, contents)
    object.__setattr__(examples, "x", filled)  # `Examples` overwrites padding
    return examples


def test_a_wrong_gradient_behind_right_predictions_is_mended():
    torch.manual_seed(0)
    model = Table().double()
    ids = torch.randint(1, 9, (3, 4, 5), generator=gen())
    ids[:, ::2, 3:] = 0
    checked = CheckedModel(model, mse_per_task)
    with pytest.warns(UserWarning, match="inner gradients.*one after another"):
        checked.check_itself(
            Examples(ids, torch.zeros(3, 4, 1).double()), checked.initial(3)
        )
    assert checked.one_by_one


def test_what_was_found_for_old_parts_is_forgotten_with_them():
    checked = CheckedModel(normed(), mse_per_task)
    checked.predict(checked.initial(2), torch.randn(2, 4, 2).double())
    assert checked._checked
    checked.model[3] = nn.Linear(5, 1).double()
    checked.start()
    assert not checked._checked


def test_padding_is_other_contents_and_batch_norm_does_not_see_it():
    examples, checked = padded(0.0), CheckedModel(normed(), mse_per_task)
    other = other_padding(examples)
    assert not torch.equal(other.x[1, 3:], examples.x[1, 3:])
    assert torch.equal(other.x[1, :3], examples.x[1, :3])
    params = checked.initial(2)
    expected = checked.model(examples.x[1, :3])
    for contents in (0.0, 100.0):
        told = checked.predict(params, padded(contents).x, examples.mask)
        torch.testing.assert_close(told[1, :3], expected)


def test_the_implicit_gradient_does_not_see_padding():
    found = []
    for contents in (0.0, 100.0, None):
        net = normed()
        options = {"inner_lr": 0.1, "inner_steps": 5, "lam": 2.0, "iterations": 5}
        loop, e = ImplicitLoop(net, mse_per_task, **options), padded(contents or 0.0)
        if contents is None:  # tasks of their own size
            parts = [(e.x[:1], e.y[:1]), (e.x[1:, :3], e.y[1:, :3])]
        else:
            parts = [(e.x, e.y, e.mask)]
        for part in map(lambda p: Examples(*p), parts):
            predictor = loop.adapt(part)
            told = predictor(part.x, part.mask)
            (mse_per_task(told, part.y, part.mask).sum()).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=1e-9)


def test_differences_and_states():
    a = [torch.tensor([1.0, -4.0])]
    assert largest_difference([a[0] + 1], a) == 0.25
    assert largest_difference([a[0] * math.nan], a) == math.inf
    assert largest_difference([a[0][:1]], a) == math.inf
    net = normed()
    kept = KeptState(net)
    net[1](torch.randn(4, 5).double())
    assert "1.running_mean" in kept.changed(KeptState(net))
    kept.restore()
    assert not kept.changed(KeptState(net))
    twin = copy.deepcopy(net)
    assert len(leaves_of(twin(torch.ones(2, 2).double()).sum())) == 6


def test_a_unit_that_rounding_switches_is_no_fault():
    "Gradients that are off in float32 and right in float64 are let through."

    class Switches(CheckedModel):
        def losses_and_gradients(self, examples, params, model=None):
            loss, *grads = super().losses_and_gradients(examples, params, model)
            off = model is None and loss.dtype == torch.float32
            return [loss, *((1.2 if off else 1.0) * g for g in grads)]

    model = Switches(normed().float(), mse_per_task)
    tasks = Examples(torch.randn(3, 4, 2, generator=gen(1)), torch.zeros(3, 4, 1))
    params = {n: p.expand(3, *p.shape) for n, p in model.model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.check_itself(tasks, params) == []
    model._checked.clear()
    model.agrees_in_double = lambda *a: False  # without the second look: refused
    with pytest.raises(RuntimeError, match="inner gradient of task"):
        model.check_itself(tasks, params)


def test_a_wrong_gradient_does_not_pass_in_double_either():
    class Scaled(CheckedModel):
        def losses_and_gradients(self, examples, params, model=None):
            loss, *grads = super().losses_and_gradients(examples, params, model)
            return [loss, *(1.01 * g if model is None else g for g in grads)]

    wrong = Scaled(normed().float(), mse_per_task)
    right = CheckedModel(normed().float(), mse_per_task)
    tasks = Examples(torch.randn(3, 4, 2, generator=gen(1)), torch.zeros(3, 4, 1))
    params = {n: p.expand(3, *p.shape) for n, p in right.model.named_parameters()}
    assert right.agrees_in_double(1, tasks, params, right.keepers())
    params = {n: p.expand(3, *p.shape) for n, p in wrong.model.named_parameters()}
    assert not wrong.agrees_in_double(1, tasks, params, wrong.keepers())
    assert all(p.dtype == torch.float32 for p in right.parameters())


class Drifts(nn.Linear):
    "Answers more strongly with every call."

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))
        self.reads = True

    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x) * (1 + self.reads * 0.1 * self.calls)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("at_once", [None, 1])
def test_a_state_that_the_next_call_reads_is_said(reads, at_once):
    tasks = SinusoidTasks(k_shot=5, n_query=5).sample(
        3, torch.Generator().manual_seed(0)
    )
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), Drifts(4, 1))
    model[2].reads = reads
    loop = InnerLoop(model, mse_per_task, inner_steps=2, tasks_at_once=at_once)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.outer_loss(tasks)
        loop.outer_loss(tasks)
    said = [
        str(w.message) for w in caught if "there is no one result" in str(w.message)
    ]
    assert len(said) == reads and all("2.calls" in text for text in said)
