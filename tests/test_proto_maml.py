"""Properties of Proto-MAML, of the implied prior and of the remedies against
memorization that the chapter does not have to show."""

import copy

import pytest
import torch
from torch import nn

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.inner_loop import Adam
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.tasks import ClassTasks, Examples, SinusoidTasks
from metalearn_book.foundations.tasks import TaskBatch
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.foundations.verification import verify
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.optimization.maml import MAML, AtSteps, FixedLabelTasks
from metalearn_book.optimization.proto_maml import BodyAndHead, ProtoMAML
from metalearn_book.optimization.proto_maml import RandomTargets, ShuffledLabels
from metalearn_book.optimization.proto_maml import implied_prior, map_estimate
from metalearn_book.optimization.proto_maml import open_head
from shared import gen


def batch(n_way=3, shots=2, n=3, seed=0):
    y = torch.arange(n_way).repeat(shots).expand(n, -1)
    draw = lambda s: torch.randn(*y.shape, 6, generator=gen(s), dtype=torch.float64)
    parts = [Examples(draw(seed + i) + 0.5 * y[..., None], y) for i in (0, 1)]
    return TaskBatch(*parts)


def body(layer=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh() if layer is None else layer)


def learner(layer=None, **options):
    options = {"inner_lr": 0.2, "inner_steps": 2} | options
    return ProtoMAML(body(layer), 5, **options).double()


class Named(nn.Module):
    "A body whose input has a name."

    def __init__(self):
        super().__init__()
        self.inner = body()

    def forward(self, vector):
        return self.inner(vector)


# --- Proto-MAML ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_without_steps_it_is_a_prototypical_network(temperature):
    tasks, ours = batch(), learner(temperature=temperature, learn_temperature=True)
    net = ProtoNet(ours.loop.model.body, temperature=temperature).double()
    with torch.no_grad():
        net.log_temperature.copy_(ours.log_temperature)
    mine = ours.adapt(tasks.support, 0)(tasks.query.x).log_softmax(-1)
    theirs = net.adapt(tasks.support)(tasks.query.x).log_softmax(-1)
    torch.testing.assert_close(mine, theirs)
    ours.loop.inner_steps = 0
    for a, b in zip(
        torch.autograd.grad(
            ours(tasks), [*net.body.parameters(), ours.log_temperature]
        ),
        torch.autograd.grad(net(tasks), [*net.body.parameters(), net.log_temperature]),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first_order": True},
        {"adapt": "head.*"},
        {"optimizer": Adam()},
        {"learn_lr": "tensor_step"},
        {"learn_temperature": True, "temperature": 0.3},
        {"layer": nn.LayerNorm(5)},
        {"layer": nn.BatchNorm1d(5)},
        {"inner_lr": {"body.*": 0.05, "head.*": 0.5}},
    ],
    ids=str,
)
def test_the_gradient_is_right(options):
    assert verify(learner(**options), batch()).ok


def test_a_frozen_body_stays_and_no_body_will_do():
    tasks, ours = batch(), learner(adapt="head.*")
    assert set(ours.adapt(tasks.support).params) == {"head.weight", "head.bias"}
    bare = ProtoMAML(nn.Identity(), 6, inner_lr=0.2, inner_steps=2).double()
    assert bare.adapt(tasks.support)(tasks.query.x).shape == (3, 6, 3)
    assert [p.numel() for p in bare.parameters() if p.requires_grad] == [0, 0]
    with torch.no_grad():
        bare.adapt(tasks.support)


def test_cut_gradients_leave_the_loss_alone():
    tasks = batch()
    whole, cut = learner(), learner(through_prototypes=False)
    torch.testing.assert_close(whole(tasks), cut(tasks))
    a, b = (
        torch.autograd.grad(x(tasks), list(x.loop.model.body.parameters()))[0]
        for x in (whole, cut)
    )
    assert (a - b).abs().max() > 1e-3


def test_inputs_with_names_and_masks():
    tasks, named = batch(), ProtoMAML(Named(), 5, inner_lr=0.2, inner_steps=2).double()
    assert type(named.loop.model) is BodyAndHead
    plain = learner()
    by_name = lambda e: Examples({"vector": e.x}, e.y)
    out = named.adapt(by_name(tasks.support))({"vector": tasks.query.x})
    torch.testing.assert_close(out, plain.adapt(tasks.support)(tasks.query.x))
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 5] = False
    support = Examples(tasks.support.x, tasks.support.y, mask)
    cut = Examples(tasks.support.x[1:2, :5], tasks.support.y[1:2, :5])
    torch.testing.assert_close(
        plain.adapt(support)(tasks.query.x)[1],
        plain.adapt(cut)(tasks.query.x[1:2])[0],
    )


def test_training_evaluating_and_saving(tmp_path):
    x = torch.randn(80, 6, generator=gen(0)) + torch.arange(80)[:, None] % 8
    tasks = ClassTasks(x, [i % 8 for i in range(80)], 4, 2, 3)
    runs = []
    for steps in ((6,), (3, 6)):
        one = ProtoMAML(body(), 5, inner_lr=0.1, inner_steps=2, learn_temperature=True)
        for n in steps:
            path = tmp_path / f"{len(steps)}.pt"
            meta_train(one, tasks, steps=n, tasks_per_step=2, seed=1, progress=False,
                       checkpoint=Checkpoint(path, every=3))  # fmt: skip
        runs.append(one)
    for a, b in zip(runs[0].parameters(), runs[1].parameters()):
        assert torch.equal(a, b)
    wider = ClassTasks(x, [i % 8 for i in range(80)], 8, 1, 3)
    assert len(evaluate(AtSteps(runs[0], 1), wider, 5)) == 5
    other = copy.deepcopy(runs[0])
    other.load_state_dict(runs[0].state_dict())


def test_what_is_refused():
    for options, words in (
        ({"memory": "adjoint"}, "memory is not an option"),
        ({"states": 3}, "states is not an option"),
        ({"adapt": "body.*"}, "the head of Proto-MAML adapts"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"through_prototypes": 1}, "through_prototypes must be True or False"),
        (
            {"learn_temperature": True, "through_prototypes": False},
            "learn_temperature=True needs through_prototypes=True",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            learner(**options)
    tasks = batch()
    with pytest.raises(ValueError, match="inner_steps"):
        learner().adapt(tasks.support, -1)
    with pytest.raises(ValueError, match="label 1"):
        learner().adapt(Examples(tasks.support.x, 2 * tasks.support.y))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        learner().adapt(tasks.support)
    with pytest.raises(ValueError, match="width"):
        open_head(2.5)


# --- the prior of a few steps ---------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_steps_are_a_map_estimate(n, steps):
    x = torch.randn(n, 5, generator=gen(n), dtype=torch.float64)
    y = torch.randn(n, generator=gen(1), dtype=torch.float64)
    start = torch.randn(5, generator=gen(2), dtype=torch.float64)
    hessian = 2 * x.mT @ x / n
    rate = 0.4 / torch.linalg.eigvalsh(hessian).max().item()
    line = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    line.weight.data.copy_(start)
    maml = MAML(line, mse_per_task, inner_lr=rate, inner_steps=steps).double()
    found = maml.adapt(Examples(x[None], y[None, :, None])).params["weight"].flatten()
    prior = implied_prior(hessian, rate, steps)
    theirs = map_estimate(x, y, start, prior, noise_variance=n / 2)
    assert (found - theirs).abs().max() < 1e-10
    assert torch.linalg.eigvalsh(prior).min() > 0


def test_more_steps_are_a_weaker_prior():
    hessian = torch.diag(torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64))
    variances = torch.stack(
        [implied_prior(hessian, 0.3, k).diag() for k in range(1, 9)]
    )
    assert (variances.diff(dim=0) > 0).all()
    torch.testing.assert_close(
        variances[:, 0], 0.3 * torch.arange(1, 9, dtype=torch.float64)
    )
    assert (variances[:, 2] >= variances[:, 1]).all()


def test_priors_that_do_not_exist():
    eye = torch.eye(2, dtype=torch.float64)
    for hessian, rate, words in (
        (eye, 1.0, "jump over"),
        (-eye, 0.1, "semidefinite"),
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 0.1, "symmetric"),
        (eye * torch.nan, 0.1, "finite"),
        (torch.ones(2, 3), 0.1, "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            implied_prior(hessian, rate, 2)
    x, y = torch.ones(3, 2).double(), torch.ones(3).double()
    with pytest.raises(ValueError, match="positive definite"):
        map_estimate(x, y, y[:2], -eye, 1.0)


# --- tasks that can't be memorized ----------------------------------------------------


def test_random_targets():
    plain = SinusoidTasks(5, 5).sample(400, gen(0))
    changed = RandomTargets(SinusoidTasks(5, 5), factor=0.5, shift=2.0).sample(
        400, gen(0)
    )
    new, old = (
        torch.cat([t.support.y, t.query.y], 1)[..., 0] for t in (changed, plain)
    )
    design = torch.stack([old, torch.ones_like(old)], -1)
    fit = torch.linalg.lstsq(design.double(), new.double()[..., None]).solution
    assert ((design.double() @ fit)[..., 0] - new).abs().max() < 1e-3
    shift, factor = fit[:, 1, 0], fit[:, 0, 0]
    assert 1.7 < shift.std() < 2.3 and 0.4 < factor.std() < 0.6
    only = RandomTargets(SinusoidTasks(5, 5), factor=0).sample(3, gen(0))
    same = SinusoidTasks(5, 5).sample(3, gen(0))
    assert ((only.support.y - same.support.y).std(1) < 1e-5).all()
    assert (only.info["factor"] == 1).all()
    with pytest.raises(ValueError, match="floating-point"):
        RandomTargets(ClassTasks(torch.randn(8, 2), [0, 1] * 4, 2, 1, 1)).sample(
            1, gen()
        )
    with pytest.raises(ValueError, match="shift"):
        RandomTargets(SinusoidTasks(), shift=-1)


def test_shuffled_labels():
    labels = [i % 6 for i in range(60)]
    tasks = ClassTasks(torch.arange(60.0)[:, None], labels, 4, 2, 3)
    shuffled = ShuffledLabels(tasks, 4)
    drawn = shuffled.sample(50, gen(3))
    for part in (drawn.support, drawn.query):
        of_item = part.x[..., 0].long() % 6
        named = drawn.info["classes"].gather(1, part.y)
        assert torch.equal(named, of_item)  # the class behind each number
    assert (
        drawn.support.y.sort(1).values == torch.arange(4).repeat_interleave(2)
    ).all()
    numbers = ShuffledLabels(FixedLabelTasks(tasks), 4).sample(400, gen(3)).support.y
    assert abs((numbers[:, 0] == 0).double().mean() - 0.25) < 0.08
    with pytest.raises(ValueError, match="below n_way = 3"):
        ShuffledLabels(tasks, 3).sample(1, gen())
    with pytest.raises(ValueError, match="whole numbers"):
        ShuffledLabels(SinusoidTasks(), 3).sample(1, gen())
