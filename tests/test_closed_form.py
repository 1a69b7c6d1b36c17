"""Properties of the closed-form heads that the chapter does not have to show."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metalearn_book.foundations.bilevel import (
    cross_entropy_per_task,
    relative_difference,
)
from metalearn_book.foundations.encoders import NearestPrototype, fit_linear_heads
from metalearn_book.foundations.tasks import ClassTasks, Examples, TaskBatch
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.training import meta_train
from metalearn_book.metric.closed_form import (
    ClosedFormHead,
    LOORidge,
    NewtonLogisticHead,
    RidgeHead,
    SVMHead,
    calibration_error,
    crammer_singer,
    damped,
    logistic_objective,
    loo_predictions,
    masked_targets,
    newton_direction,
    newton_logistic,
    reliability_bins,
    ridge_weights,
    solve_by_class,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(b=2, n_way=3, k=4, d=6, seed=0, noise=1.0):
    "Features (B, n, d), labels and one-hot targets, in double precision."
    g = gen(seed)
    centres = torch.randn(b, n_way, 1, d, generator=g, dtype=torch.float64)
    x = (
        centres + noise * torch.randn(b, n_way, k, d, generator=g, dtype=torch.float64)
    ).flatten(1, 2)
    labels = torch.arange(n_way).repeat_interleave(k).expand(b, -1)
    return x, labels, F.one_hot(labels).double()


def logistic_gram(x, l2, constant=100.0):
    return (x @ x.mT + constant**2) / (x.shape[1] * l2)


LEARNERS = {
    "ridge": lambda **o: RidgeHead(**o),
    "ridge, free bias": lambda **o: RidgeHead(free_bias=True, **o),
    "logistic": lambda **o: NewtonLogisticHead(**o),
    "logistic, unrolled": lambda **o: NewtonLogisticHead(gradient="unrolled", **o),
    "SVM": lambda **o: SVMHead(**o),
}


# ridge


@pytest.mark.parametrize("d", [3, 12, 40])
@pytest.mark.parametrize("lam", [1e-3, 1.0, 1e3])
def test_woodbury_and_the_normal_equations(d, lam):
    x, _, y = problem(d=d)
    primal, dual = (ridge_weights(x, y, lam, form) for form in ("primal", "dual"))
    assert relative_difference(primal, dual) < 1e-9
    for w in (primal, dual, ridge_weights(x, y, lam)):
        assert (x.mT @ (x @ w.mT - y) + lam * w.mT).abs().max() < 1e-9 * max(1, lam)


def test_a_penalty_for_each_task():
    x, _, y = problem(b=3)
    lam = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    together = ridge_weights(x, y, lam)
    for b in range(3):
        torch.testing.assert_close(
            together[b : b + 1], ridge_weights(x[b : b + 1], y[b : b + 1], lam[b])
        )


def test_a_free_bias_is_an_unpenalized_column_of_ones():
    x, labels, y = problem(d=9)
    head = RidgeHead(lam=0.3, free_bias=True).double()
    weight, bias = head.solve(x, y)
    lam = head.log_lam.exp()
    residual = x @ weight.mT + bias.unsqueeze(1) - y
    assert residual.sum(1).abs().max() < 1e-9  # derivative by the bias
    assert (
        x.mT @ residual + lam * weight.mT
    ).abs().max() < 1e-9  # derivative by the weights
    moved = head.adapt(Examples(x + 50, labels))(x + 50)
    torch.testing.assert_close(
        moved, head.adapt(Examples(x, labels))(x), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_ridge_gradcheck(form):
    x, _, y = problem(b=1, k=2, d=4)
    lam = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y, lam: ridge_weights(x, y, lam, form),
        (x.requires_grad_(), y.requires_grad_(), lam),
    )


def test_a_large_penalty_is_the_class_mean_rule():
    x, labels, y = problem(d=5)
    sums = y.mT @ x
    assert relative_difference(1e8 * ridge_weights(x, y, 1e8), sums) < 1e-5


# leave one out


def test_leave_one_out_by_brute_force():
    x, _, y = problem(k=3, d=10)
    lams = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    quick = loo_predictions(x, y, lams)
    for i in range(x.shape[1]):
        others = [j for j in range(x.shape[1]) if j != i]
        for j, lam in enumerate(lams):
            w = ridge_weights(x[:, others], y[:, others], lam)
            torch.testing.assert_close(
                quick[:, j, i],
                torch.einsum("bd,bnd->bn", x[:, i], w),
                atol=1e-9,
                rtol=1e-7,
            )


def test_leave_one_out_chooses_the_best_of_its_list_and_the_end_at_one_shot():
    x, labels, y = problem(k=5, d=20, noise=0.5)
    learner = LOORidge((0.01, 0.1, 1.0, 10.0)).double()
    error = (
        (loo_predictions(x, y, learner.lams) - y.unsqueeze(1)).square().sum((-1, -2))
    )
    assert torch.equal(learner.choose(x, y), learner.lams[error.argmin(-1)])
    assert (learner.choose(x[:, ::5], y[:, ::5]) == 10.0).all()


# logistic regression


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_logistic_optimality_and_lbfgs(l2):
    x, labels, y = problem(n_way=4, k=3, d=8)
    head = NewtonLogisticHead(l2=l2).double()
    weight, bias = head.solve(x, y)
    p = (x @ weight.mT + bias.unsqueeze(1)).softmax(-1)
    n, lam = x.shape[1], head.log_l2.exp()
    assert head.residual.shape == (2,) and head.residual.max() < 1e-8
    assert ((p - y).mT @ x / n + lam * weight).abs().max() < 1e-8
    if l2 >= 1e-2:
        w, b = fit_linear_heads(x, labels, 4, l2=l2, max_iter=2000)
        loss = [
            cross_entropy_per_task(x @ u.mT + c.unsqueeze(1), labels)
            + 0.5 * l2 * u.square().sum((1, 2))
            for u, c in ((weight, bias), (w, b))
        ]
        torch.testing.assert_close(loss[0], loss[1], atol=1e-5, rtol=0)
        assert relative_difference(weight.detach(), w) < 5e-3


def test_logistic_against_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels, y = problem(b=1, n_way=4, k=5, d=6)
    weight, bias = NewtonLogisticHead(l2=0.02).double().solve(x, y)
    reference = linear_model.LogisticRegression(
        C=1 / (0.02 * 20), tol=1e-10, max_iter=5000
    ).fit(x[0].numpy(), labels[0].numpy())  # C = 1 / (nλ)
    ours = (x[0] @ weight[0].T + bias[0]).softmax(-1).detach()
    torch.testing.assert_close(
        ours, torch.tensor(reference.predict_proba(x[0].numpy())), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("l2", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("seed", [0, 1])
def test_damped_newton_converges_where_whole_steps_run_in_circles(seed, l2):
    x, _, y = problem(b=2, n_way=15, k=5, d=40, seed=seed)
    gram = logistic_gram(F.normalize(x, dim=-1), l2)
    assert logistic_objective(gram, y, newton_logistic(gram, y))[1].abs().max() < 1e-8
    if l2 < 1e-2:
        whole = (
            logistic_objective(
                gram, y, newton_logistic(gram, y, damping=False, implicit=False)
            )[1]
            .abs()
            .amax((1, 2))
        )
        assert (whole > 0.1).any()  # the reason for damping


def test_damped_steps_never_raise_the_objective():
    x, _, y = problem(b=3, n_way=15, k=5, d=40)
    gram = logistic_gram(F.normalize(x, dim=-1), 1e-4)
    a = torch.zeros_like(y)
    for _ in range(12):
        value, r = logistic_objective(gram, y, a)
        direction = -newton_direction(gram, y - a + r, r)
        a = a + damped(gram, y, a, direction) * direction
        assert (
            logistic_objective(gram, y, a)[0] <= value + 1e-9 * (1 + value.abs())
        ).all()


def test_the_gradient_of_the_objective_is_gram_times_residual():
    x, _, y = problem()
    gram, a = (
        logistic_gram(x, 0.1, 1.0),
        torch.randn(2, 12, 3, generator=gen(), dtype=torch.float64, requires_grad=True),
    )
    value, r = logistic_objective(gram, y, a)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), a)[0], (gram @ r).detach()
    )


# the support vector machine


def kkt(gram, y, alpha, c):
    "Largest violation of Eq. (CF-19), with multipliers read off from alpha."
    slack, g = (
        c * y - alpha,
        y - gram @ alpha,
    )  # z + ν = g, with z = 0 where there is slack
    free = slack > 1e-6 * c
    nu = torch.where(free, g, torch.inf).amin(
        -1, keepdim=True
    )  # at a free entry z = 0, elsewhere z >= 0
    z = g - nu
    return {
        "rows": alpha.sum(-1).abs().max(),
        "bounds": (-slack).max(),
        "sign": (-z).max(),
        "complementary": (z * slack).abs().max() / c,
    }


@pytest.mark.parametrize("c", [0.01, 0.3, 5.0])
def test_svm_kkt_conditions(c):
    x, _, y = problem(n_way=4, k=3, d=15)
    gram = x @ x.mT
    alpha = crammer_singer(gram, y, torch.tensor(c, dtype=torch.float64))
    assert max(v.item() for v in kkt(gram, y, alpha, c).values()) < 1e-5


def test_svm_tasks_that_are_solved_wait_for_the_others():
    """An easy task is solved in fewer steps. Going on with it took its slack to 0 and
    its answer to nan."""
    x, _, y = problem(b=2, n_way=3, k=3, d=12)
    x[0] = 100 * y[0] @ torch.eye(3, 12, dtype=x.dtype) + 1e-3 * x[0]
    price = torch.tensor(0.1, dtype=torch.float64)
    gram = x @ x.mT
    together = crammer_singer(gram, y, price, steps=400)
    assert together.isfinite().all()
    for b in range(2):
        alone = crammer_singer(gram[b : b + 1], y[b : b + 1], price, steps=400)
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-6, atol=1e-9)


def test_svm_against_scikit_learn():
    svm = pytest.importorskip("sklearn.svm")
    x, labels, y = problem(b=1, n_way=4, k=4, d=20)
    weight, _ = SVMHead(c=0.05).double().solve(x, y)
    reference = svm.LinearSVC(
        multi_class="crammer_singer",
        fit_intercept=False,
        C=0.05,
        tol=1e-9,
        max_iter=500_000,
    ).fit(x[0].numpy(), labels[0].numpy())
    assert relative_difference(weight[0].detach(), torch.tensor(reference.coef_)) < 1e-4


def test_svm_has_the_least_objective():
    """No projected (sub)gradient run on the primal finds a smaller value, and a long
    one comes close.
    """
    x, labels, y = problem(b=1, n_way=3, k=3, d=12)
    c = 0.1

    def primal(w):
        logits = x[0] @ w.T
        margin = (logits + 1 - y[0] - (logits * y[0]).sum(-1, keepdim=True)).amax(-1)
        return 0.5 * w.square().sum() + c * margin.sum()

    best = primal(SVMHead(c=c).double().solve(x, y)[0][0].detach())
    w, lowest = torch.zeros(3, 12, dtype=torch.float64, requires_grad=True), math.inf
    for t in range(2000):
        value = primal(w)
        lowest = min(lowest, value.item())
        with torch.no_grad():
            w -= torch.autograd.grad(value, w)[0] / (
                t + 1
            )  # strongly convex with modulus 1
    assert best - 1e-8 <= lowest <= best * 1.01


def test_solve_by_class_solves_the_whole_system():
    x, _, y = problem(b=1, n_way=3, k=2, d=8)
    gram, d, rhs = (
        x @ x.mT,
        torch.rand(1, 6, 3, generator=gen(), dtype=torch.float64) + 0.1,
        torch.randn(1, 6, 3, generator=gen(1), dtype=torch.float64),
    )
    a, nu = solve_by_class(gram, d, rhs)
    assert (gram @ a + d * a + nu.unsqueeze(-1) - rhs).abs().max() < 1e-9 and a.sum(
        -1
    ).abs().max() < 1e-9


# all heads


@pytest.mark.parametrize("name", LEARNERS)
def test_gradcheck_through_the_head(name):
    "Outer loss by features and all meta-learned numbers, against finite differences."
    x, labels, _ = problem(b=1, n_way=3, k=2, d=5)
    query, asked = (
        torch.randn(1, 4, 5, generator=gen(3), dtype=torch.float64),
        torch.tensor([[0, 1, 2, 0]]),
    )
    learner = LEARNERS[name](scale=2.0).double()

    def loss(features, *numbers):
        names = [n for n, _ in learner.named_parameters()]
        return functional_call(
            learner,
            dict(zip(names, numbers)),
            (TaskBatch(Examples(features, labels), Examples(query, asked)),),
        )

    numbers = tuple(p.detach().clone().requires_grad_() for p in learner.parameters())
    assert torch.autograd.gradcheck(
        loss, (x.requires_grad_(), *numbers), eps=1e-6, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", [*LEARNERS, "LOO"])
def test_padding_and_other_tasks_change_nothing(name):
    x, labels, _ = problem(b=3, n_way=3, k=4, d=7)
    learner = (LOORidge() if name == "LOO" else LEARNERS[name]()).double()
    query, keep = (
        torch.randn(3, 5, 7, generator=gen(5), dtype=torch.float64),
        [i for i in range(12) if i not in (1, 6)],
    )
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[:, [1, 6]] = False
    torch.testing.assert_close(
        learner.adapt(Examples(x, labels, mask))(query),
        learner.adapt(Examples(x[:, keep], labels[:, keep]))(query),
        atol=1e-5,
        rtol=1e-4,
    )
    whole = learner.adapt(Examples(x, labels))(query)
    torch.testing.assert_close(
        whole[1:2],
        learner.adapt(Examples(x[1:2], labels[1:2]))(query[1:2]),
        atol=1e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_relabelling_permutes_the_answers(name):
    x, labels, _ = problem(b=1)
    order = torch.tensor([2, 0, 1])
    learner = LEARNERS[name]().double()
    torch.testing.assert_close(
        learner.adapt(Examples(x, order[labels]))(x)[..., order],
        learner.adapt(Examples(x, labels))(x),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_training_lowers_the_loss_and_single_precision_works(name):
    g = gen()
    centres = torch.randn(12, 8, generator=g)
    x = torch.cat([centres + 0.3 * torch.randn(12, 8, generator=g) for _ in range(12)])
    x = torch.cat(
        [x, 2 * torch.randn(len(x), 8, generator=g)], 1
    )  # eight features of noise
    tasks = ClassTasks(F.normalize(x, dim=-1), list(range(12)) * 12, 4, 3, 5)
    torch.manual_seed(0)
    body = nn.Linear(16, 16, bias=False)
    nn.init.eye_(body.weight)
    learner = LEARNERS[name](body=body)
    before = evaluate(learner, tasks, 30).mean
    history = meta_train(
        learner, tasks, steps=30, tasks_per_step=4, outer_lr=2e-2, progress=False
    )
    assert sum(history.loss[-10:]) < sum(history.loss[:10])
    assert evaluate(learner, tasks, 30).mean > before


def test_a_dict_of_inputs_reaches_the_body():
    class Body(nn.Module):
        def forward(self, x):
            return x["a"] + x["b"]

    x, labels, _ = problem()
    both = Examples({"a": x, "b": 2 * x}, labels)
    plain = RidgeHead().double().adapt(Examples(3 * x, labels))(3 * x)
    torch.testing.assert_close(RidgeHead(Body()).double().adapt(both)(both.x), plain)


# calibration


def test_reliability_bins_count_and_respect_the_mask():
    logits, y = (
        torch.randn(3, 7, 4, generator=gen()),
        torch.randint(4, (3, 7), generator=gen(1)),
    )
    bins = reliability_bins(logits, y)
    assert torch.equal(bins[:, 0].sum(-1), torch.full((3,), 7.0))
    assert torch.equal(bins[:, 1].sum(-1), (logits.argmax(-1) == y).float().sum(-1))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[:, 4:] = False
    torch.testing.assert_close(
        reliability_bins(logits, y, mask), reliability_bins(logits[:, :4], y[:, :4])
    )
    value, low, high = calibration_error(bins)
    assert 0 <= low <= high <= 1 and 0 <= value <= 1
    assert calibration_error(bins) == (value, low, high)  # the same draws each time


# bad input


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: ridge_weights(torch.ones(1, 2, 3), torch.ones(1, 2, 2), 0.0),
            "lam must be positive",
        ),
        (
            lambda: ridge_weights(
                torch.ones(1, 2, 3), torch.ones(1, 2, 2), 1.0, "both"
            ),
            "None, 'primal', 'dual', got 'both'",
        ),
        (lambda: RidgeHead(lam=-1.0), "lam must be a finite number above 0"),
        (lambda: RidgeHead(scale=0.0), "scale must be a finite number above 0"),
        (lambda: NewtonLogisticHead(l2=0.0), "l2 must be a finite number above 0"),
        (lambda: NewtonLogisticHead(steps=0), "steps must be at least 1"),
        (lambda: LOORidge([0.1, math.nan]), "lams must be a finite number above 0"),
        (lambda: NewtonLogisticHead(gradient="exact"), "one of 'implicit', 'unrolled'"),
        (lambda: SVMHead(c=0.0), "c must be a finite number above 0"),
        (
            lambda: loo_predictions(
                torch.ones(1, 2, 3), torch.ones(1, 2, 2), torch.tensor([0.0])
            ),
            "positive penalties",
        ),
        (
            lambda: masked_targets(
                torch.ones(1, 2, 3, 1),
                Examples(torch.ones(1, 2, 3), torch.tensor([[0, 1]])),
            ),
            "one vector for each example",
        ),
        (
            lambda: masked_targets(
                torch.ones(1, 2, 3),
                Examples(torch.ones(1, 2, 3), torch.tensor([[0.0, 1.0]])),
            ),
            "whole numbers",
        ),
        (
            lambda: masked_targets(
                torch.ones(1, 2, 3),
                Examples(torch.ones(1, 2, 3), torch.tensor([[0, 2]])),
            ),
            "no support example with label 1",
        ),
        (
            lambda: reliability_bins(torch.ones(1, 3, 2), torch.zeros(1, 2)),
            "y must have the shape",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_base_class_is_a_prototypical_network_with_another_head():
    class Means(ClosedFormHead):
        def solve(self, z, y, mask=None):
            c = y.mT @ z / y.sum(1).unsqueeze(-1)
            return 2 * c, -c.square().sum(-1)

    x, labels, _ = problem()
    torch.testing.assert_close(
        Means().double().adapt(Examples(x, labels))(x).log_softmax(-1),
        NearestPrototype().adapt(Examples(x, labels))(x).log_softmax(-1),
    )
