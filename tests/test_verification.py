"""`verify`: passes what is right, sees what is wrong, leaves everything as it was."""

import copy
import random

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import cross_entropy_per_task, mse_per_task
from metalearn_book.foundations.inner_loop import SGD, Adam, InnerLoop
from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from metalearn_book.foundations.verification import Verification, verify
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.optimization.implicit import ImplicitMAML
from metalearn_book.optimization.maml import MAML
from metalearn_book.optimization.reptile import Reptile
from metalearn_book.optimization.what_to_adapt import MAMLpp, MetaSGD
from shared import gen


def few(n=2):
    return SinusoidTasks(k_shot=4, n_query=3).sample(n, gen())


def net(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), *(last or [nn.Linear(6, 1)]))


def loop(model=None, loss=mse_per_task, **options):
    return InnerLoop(
        model or net(), loss, inner_lr=0.1, inner_steps=2, check=False, **options
    )


RIGHT = {
    "maml": lambda: MAML(net(), mse_per_task, inner_steps=2, learn_lr="tensor_step"),
    "adam": lambda: loop(optimizer=Adam()),
    "first order": lambda: loop(first_order=True),
    "meta-sgd": lambda: MetaSGD(net(), mse_per_task, inner_lr=0.1),
    "maml++": lambda: MAMLpp(net(), mse_per_task, inner_lr=0.1, anneal_steps=9),
    "reptile": lambda: Reptile(net(), mse_per_task, inner_lr=0.1, inner_steps=2),
    "implicit": lambda: ImplicitMAML(
        net(), mse_per_task, inner_steps=80, inner_lr=0.05, lam=2.0, iterations=20
    ),
    "dropout": lambda: loop(net(nn.Dropout(0.5), nn.Linear(6, 1))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name):
    found = verify(RIGHT[name](), few())
    assert found.ok, str(found)
    assert {r["check"] for r in found.rows} >= {"same again", "predictions alone"}
    if name in ("maml", "adam"):
        modes = {r["mode"] for r in found.rows}
        assert modes >= {"adjoint, one at a time", "store, all at once", "first order"}


def test_a_learner_without_an_engine():
    torch.manual_seed(0)
    x, y = torch.randn(3, 4, 5), torch.tensor([[0, 1, 0, 1]] * 3)
    found = verify(ProtoNet(nn.Linear(5, 3)), TaskBatch(Examples(x, y), Examples(x, y)))
    assert found.ok and len(found.rows) == 4, str(found)


class Axis(nn.Linear):
    def forward(self, x):
        together = torch._C._functorch.is_batchedtensor(self.weight)
        return super().forward(x) * (2.0 if together else 1.0)


class Calls(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Detaches(InnerLoop):
    def initial(self, n_tasks):
        start = super().initial(n_tasks)
        return start | {"0.bias": start["0.bias"].detach().requires_grad_()}


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g):
        return g.clone()

    @staticmethod
    def backward(ctx, g):
        return 0.9 * g


class CutSGD(SGD):
    def step(self, params, grads, state, lr):
        cut = {n: Cut.apply(g) for n, g in grads.items()}
        return super().step(params, cut, state, lr)


class Bidirectional(nn.Module):
    "Causal once, until a flag is turned over, as a wrong mask would."

    def __init__(self):
        super().__init__()
        self.linear, self.causal = nn.Linear(1, 1), True

    def forward(self, x):
        h = self.linear(x).tanh()
        return h.cumsum(0) if self.causal else h.sum(0, keepdim=True).expand_as(h)


def turned():
    learner = loop(Bidirectional())
    learner.model.before_changes = (copy.deepcopy(learner.model),)
    learner.model.causal = False
    return learner


def replaced():
    learner = loop()
    learner.model[2] = nn.Linear(6, 1)
    learner.homes = dict(loop().homes)  # what the engine has taken note of
    return learner


def mixes(p, y, mask=None):
    valid = (y.abs() < y.abs().mean()).to(p.dtype)
    return len(y) * ((p - y) ** 2 * valid).flatten(1).sum(1) / valid.sum()


def masked():
    tasks = few()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    return TaskBatch(Examples(tasks.support.x, tasks.support.y, mask), tasks.query)


def single():
    x, y = torch.randn(2, 1, 1, generator=gen()), torch.randn(2, 1, 1, generator=gen(1))
    return TaskBatch(Examples(x, y), Examples(x, y))


norm = lambda **o: loop(net(nn.BatchNorm1d(6), nn.Linear(6, 1)), **o)
WRONG = {
    "task axis": (lambda: loop(net(Axis(6, 1))), few, "plain loop"),
    "mixed tasks": (lambda: loop(loss=mixes), few, "plain loop"),
    "counter": (lambda: loop(net(Calls(6, 1))), few, "plain loop"),
    "cut start": (lambda: Detaches(net(), mse_per_task), few, "plain loop"),
    "cut gradient": (lambda: loop(optimizer=CutSGD()), few, "differences"),
    "bidirectional": (turned, few, "plain loop"),
    "replaced head": (replaced, few, "plain loop"),
    "padding": (norm, masked, "other padding"),
    "one item": (norm, single, "plain loop"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name):
    make, tasks, check = WRONG[name]
    found = verify(make(), tasks())
    seen = {r["check"] for r in found.rows if r["ok"] is False}
    assert not found.ok and seen & {check, "runs"}, str(found)
    with pytest.raises(RuntimeError, match="checks failed"):
        found.raise_if_wrong()


@pytest.mark.parametrize("make", [lambda: nn.ReLU(), lambda: nn.Linear(6, 6)])
def test_a_module_that_is_used_twice_is_right_or_seen(make):
    part = make()
    torch.manual_seed(0)
    layers = nn.Linear(1, 6), part, nn.Linear(6, 6), part, nn.Linear(6, 1)
    checked = InnerLoop(nn.Sequential(*layers), mse_per_task, inner_lr=0.1)
    assert verify(checked, few()).ok


def test_a_leaf_of_the_loss_is_in_the_proof_and_comes_back_as_it_was():
    w = torch.tensor(1.2, requires_grad=True)
    value = w.data.clone()
    loss = lambda p, y, m=None: w * ((p - y) ** 2).mean((1, 2))
    assert verify(loop(loss=loss), few()).ok
    assert w.dtype == torch.float32 and torch.equal(w.data, value) and w.grad is None
    lost = lambda p, y, m=None: w.detach() * ((p - y) ** 2).mean((1, 2))
    assert verify(loop(loss=lost), few()).ok  # not learned: nothing is lost


def test_the_learner_is_left_as_it_was():
    learner = MAML(
        net(Calls(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)),
        mse_per_task,
        learn_lr=True,
    )
    learner(few()).backward()
    learner.loop.model[2].calls = 3
    before, grads = copy.deepcopy(learner), [p.grad for p in learner.parameters()]
    torch.manual_seed(5), random.seed(5)
    states = torch.get_rng_state(), random.getstate()
    verify(learner, few())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate() and learner.loop.model[2].calls == 3
    for p, q, g in zip(learner.parameters(), before.parameters(), grads, strict=True):
        assert torch.equal(p, q) and p.grad is g
    for a, b in zip(learner.buffers(), before.buffers(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    assert all(m.training for m in learner.modules())


def test_a_table_that_can_be_read_and_raises():
    row = {"mode": "store", "check": "plain loop", "difference": 0.5, "allowed": 1e-7}
    found = Verification([row | {"ok": False, "note": "most for w"}])
    assert "WRONG" in str(found) and "WRONG" in found._repr_mimebundle_()["text/html"]
    with pytest.raises(RuntimeError, match="1 of 1 checks failed: store.*most for w"):
        found.raise_if_wrong()
    with pytest.raises(ValueError, match="TaskBatch"):
        verify(loop(), few().support)
    with pytest.raises(RuntimeError, match="checks failed"):
        verify(loop(net(Axis(6, 1))), few(), raise_if_wrong=True)


def test_classes_with_a_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(1), nn.Linear(12, 2))
    x, y = torch.randn(2, 4, 3, 4), torch.tensor([[0, 1, 0, 1]] * 2)
    learner = MAML(model, cross_entropy_per_task, inner_lr=0.1)
    assert verify(learner, TaskBatch(Examples(x, y), Examples(x, y))).ok
