"""Neural processes: densities, the exact process, symmetries, bounds and bad input."""

import math

import numpy as np
import pytest
import torch
from shared import gen

from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.foundations.training import meta_train
from metalearn_book.model_based import neural_process as npro


def drawn(*size, seed=0):
    return torch.randn(*size, generator=gen(seed), dtype=torch.float64)


def few(n=3, k=5, q=4, seed=0, dtype=torch.float64) -> TaskBatch:
    t = npro.GPTasks((k, k), q).sample(n, gen(seed))
    return TaskBatch(*(Examples(e.x.to(dtype), e.y.to(dtype))
                       for e in (t.support, t.query)))  # fmt: skip


def learners():
    torch.manual_seed(0)
    small = {"dim": 1, "width": 8}
    return {
        "conditional": npro.ConditionalNP(**small),
        "attentive": npro.AttentiveNP(**small, heads=2),
        "latent": npro.LatentNP(**small, latent_dim=3),
        "both": npro.LatentNP(**small, latent_dim=3, attention=True),
        "likelihood": npro.LatentNP(**small, latent_dim=3, objective="likelihood"),
    }


def test_a_mixture_is_pytorchs():
    mean, std = drawn(2, 3, 4), drawn(2, 3, 4, seed=1).exp()
    ours, y = npro.NormalMixture(mean, std), drawn(2, 3, 1, seed=2)
    weights = torch.distributions.Categorical(torch.ones_like(mean))
    theirs = torch.distributions.MixtureSameFamily(
        weights, torch.distributions.Normal(mean, std)
    )
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y[..., 0]))
    torch.testing.assert_close(ours.cdf(y), theirs.cdf(y[..., 0]))
    torch.testing.assert_close(ours.average[..., 0], theirs.mean)
    for share in (0.025, 0.5, 0.999):
        back = ours.cdf(ours.quantile(share)[..., None])
        torch.testing.assert_close(back, torch.full_like(back, share))
    together = ours.each_log_prob(y).sum(1).exp().mean(-1).log()
    torch.testing.assert_close(ours.joint_log_prob(y), together)


def test_the_kernel_is_scikit_learns():
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    a, b = drawn(5, 2), drawn(4, 2, seed=1)
    theirs = kernels.ConstantKernel(4.0) * kernels.RBF(0.7) + kernels.ConstantKernel(9)
    ours = npro.rbf_kernel(a, b, 0.7, 2.0, 3.0)
    assert np.abs(ours.numpy() - theirs(a.numpy(), b.numpy())).max() < 1e-12


def test_the_posterior_is_that_of_the_joint_normal():
    "Conditioning by hand, and the chain rule over single observations."
    t, gp = few(), npro.ExactGP(0.6, 1.3, 0.2, 0.5).double()
    told = gp.adapt(t.support).density(t.query.x)
    x = torch.cat([t.support.x, t.query.x], 1)
    K = gp.kernel(x, x) + 0.04 * torch.eye(9)
    A = K[:, :5, :5].inverse()
    mean = K[:, 5:, :5] @ A @ t.support.y
    var = (K - K[:, :, :5] @ A @ K[:, :5, :])[:, 5:, 5:].diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(told.mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(told.std[..., 0], var.sqrt(), rtol=1e-6, atol=1e-6)
    total = torch.zeros(3, dtype=torch.float64)
    for i in range(1, 5):
        one = gp.adapt(Examples(t.support.x[:, :i], t.support.y[:, :i]))
        at = one.density(t.support.x[:, i : i + 1])
        total = total + at.log_prob(t.support.y[:, i : i + 1])[:, 0]
    first = Examples(t.support.x[:, :1], t.support.y[:, :1])
    chained = gp.log_marginal(first) + total
    torch.testing.assert_close(chained, gp.log_marginal(t.support))


def test_draws_have_the_covariance_of_the_kernel():
    t = npro.GPTasks((1, 1), 1, length=0.5, scale=2.0, noise=0.1).sample(40_000, gen())
    near = (t.support.x - t.query.x).abs()[:, 0, 0] < 0.1
    a, b = t.support.y[:, 0, 0], t.query.y[:, 0, 0]
    assert abs(a.var().item() - 4.01) < 0.15
    assert abs((a * b)[near].mean().item() - 4) < 0.3


@pytest.mark.parametrize("name", learners())
def test_order_and_company_do_not_matter(name):
    learner, t = learners()[name].double().eval(), few()
    order = torch.randperm(5, generator=gen(3))
    turned = t.support.map(lambda v: v[:, order])
    with torch.no_grad():
        plain = learner.adapt(t.support)(t.query.x)
        torch.testing.assert_close(learner.adapt(turned)(t.query.x), plain)
        alone = learner.adapt(t.support)(t.query.x[:, 2:3])
        torch.testing.assert_close(alone, plain[:, 2:3])
        twice = t.support.map(lambda v: torch.cat([v, v], 1))
        torch.testing.assert_close(learner.adapt(twice)(t.query.x), plain)


@pytest.mark.parametrize("name", learners())
def test_training_lowers_the_loss(name):
    "Functions that hardly vary: a learner has to find that queries are like pairs."
    learner, tasks = learners()[name], npro.GPTasks((3, 8), 8, length=9.0, noise=0.1)
    h = meta_train(learner, tasks, steps=120, outer_lr=1e-2, tasks_per_step=8,
                   progress=False)  # fmt: skip
    assert np.mean(h.loss[-20:]) < np.mean(h.loss[:20]) - 0.3


def test_the_bound_is_below_the_likelihood_and_tight_for_the_exact_code():
    """In expectation over draws. With a decoder that does not look at z the model's
    posterior is its prior, so a code that reads nothing is exact."""
    learner = learners()["latent"].double().eval()
    t = few(6, 4, 5)
    learner.noise = torch.randn(4000, 1, 3, generator=gen(2), dtype=torch.float64)
    learner.n_draws = 4000
    with torch.no_grad():
        elbo = learner.bound(t)
        exact = learner.adapt(t.support).density(t.query.x).joint_log_prob(t.query.y)
        assert (elbo < exact + 0.05).all()
        learner.decoder[0].weight[:, 1:] = 0  # x is the first input, z the others
        learner.code[-1].weight.zero_()
        elbo = learner.bound(t)
        exact = learner.adapt(t.support).density(t.query.x).joint_log_prob(t.query.y)
    torch.testing.assert_close(elbo, exact)


def test_divergence_of_normals():
    a, b = drawn(2, 5, 3), drawn(2, 5, 3, seed=1).exp()
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(a[0], b[0]), normal(a[1], b[1]))
    torch.testing.assert_close(npro.normal_kl(a[0], b[0], a[1], b[1]), theirs.sum(-1))


def test_scores_of_the_exact_process():
    "Its bands hold 95 %, and its log density is the best on average."
    tasks = npro.GPTasks((4, 4), 10)
    right = npro.predictive_scores(npro.ExactGP(0.6, 1.0, 0.2), tasks, 400)
    assert abs(right["covered"].mean - 0.95) < 0.02
    for other in (npro.ExactGP(0.3, 1.0, 0.2), npro.ExactGP(0.6, 1.0, 0.5)):
        wrong = npro.predictive_scores(other, tasks, 400)
        assert wrong["log density"].mean < right["log density"].mean - 0.02


def spoilt(part, key, value):
    t = few(2, dtype=torch.float32)
    e = getattr(t, part)
    new = {k: getattr(e, k).clone() for k in "xy"}
    new[key][0, 1] = value
    bad = Examples(**new)
    return TaskBatch(
        *(bad if p == part else getattr(t, p) for p in ("support", "query"))
    )


@pytest.mark.parametrize("name", [*learners(), "exact"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_refused(name, value):
    learner = npro.ExactGP() if name == "exact" else learners()[name]
    for part in ("support", "query"):
        for key in "xy":
            with pytest.raises(ValueError, match="must hold finite numbers, got 1 of"):
                learner(spoilt(part, key, value))


@pytest.mark.parametrize("name", [*learners(), "exact"])
def test_what_is_no_regression_task_is_refused(name):
    learner = npro.ExactGP() if name == "exact" else learners()[name]
    t = few(2, dtype=torch.float32)
    with pytest.raises(ValueError, match="support must be Examples"):
        learner.adapt(t.support.x)
    with pytest.raises(ValueError, match="one number for each example"):
        learner.adapt(Examples(t.support.x, t.support.y[..., 0]))
    with pytest.raises(ValueError, match="y must hold floating-point"):
        learner.adapt(Examples(t.support.x, t.support.y.long()))
    with pytest.raises(ValueError, match="features must be those of 2 tasks, got 1"):
        learner.adapt(t.support)(t.query.x[:1])
    with pytest.raises(ValueError, match=r"features must be \(B, S, 1\)"):
        learner.adapt(t.support)(torch.ones(2, 3, 2))
    with pytest.raises(ValueError, match="at least one task, and one example"):
        learner.adapt(Examples(t.support.x[:, :0], t.support.y[:, :0]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: npro.GPTasks((0, 3)), r"k_shot\[0\] must be at least 1"),
        (lambda: npro.GPTasks((5, 3)), r"\(fewest, most\)"),
        (lambda: npro.GPTasks((1.5, 3)), "whole number"),
        (lambda: npro.GPTasks(noise=0.0), "noise"),
        (lambda: npro.GPTasks().sample(2, 0), "generator must be"),
        (lambda: npro.ExactGP(length=0.0), "length"),
        (lambda: npro.LatentNP(objective="mean"), "objective must be one of"),
        (lambda: npro.LatentNP(n_draws=8, answer_draws=4), "answer_draws"),
        (lambda: npro.AttentiveNP(width=10, heads=4), "multiple of heads"),
        (lambda: npro.predictive_scores(None, npro.GPTasks()), "adapt"),
        (
            lambda: npro.ExactGP(noise=1e-12).adapt(
                Examples(torch.ones(1, 3, 1), torch.ones(1, 3, 1))
            ),
            "not positive definite",
        ),
    ],
)
def test_settings_that_mean_nothing(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_answers_without_densities_are_named():
    from metalearn_book.foundations.bilevel import mse_per_task
    from metalearn_book.foundations.inner_loop import InnerLoop

    loop = InnerLoop(torch.nn.Linear(1, 1), mse_per_task, inner_lr=0.1, inner_steps=1)
    with pytest.raises(ValueError, match="values, not densities"):
        npro.predictive_scores(loop, npro.GPTasks(), 4)
