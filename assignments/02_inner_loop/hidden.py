"Hidden tests of assignment 2, on weights and data drawn for every grading."

import numpy as np
from grading import questions as q

PRELOAD = ("numpy",)
KEYS = "W", "b", "v", "c"
FAR = 1e7
BACK = ("gradient", "inner_loop", "hessian_vector")


def weights(rng, d, m, scale=1.0):
    shapes = {"W": (d, m), "b": (m,), "v": (m,), "c": ()}
    # arrays as in the notebook, of no dimension too
    return {k: np.asarray(scale * rng.normal(size=shapes[k])) for k in KEYS}


def drawn(rng):
    "Weights, a direction, support and query data, of sizes that differ."
    d, m = int(rng.integers(1, 5)), int(rng.integers(2, 7))
    data = lambda n: [rng.normal(size=(n, d)), rng.normal(size=n)]
    n_support, n_query = rng.integers(3, 9, size=2)
    return weights(rng, d, m), weights(rng, d, m), data(n_support), data(n_query)


def far(rng, theta, n=3):
    """Data at which differences of the loss tell nothing: each input is there with a
    target far above and one far below, so that the loss is huge and flat."""
    x = np.repeat(rng.normal(size=(n, len(theta["W"]))), 2, axis=0)
    f = np.tanh(x @ theta["W"] + theta["b"]) @ theta["v"] + theta["c"]
    return [x, f + rng.normal(size=2 * n) + np.tile([FAR, -FAR], n)]


def rate(rng):
    return float(rng.uniform(0.05, 0.25))


@q.question("loss", 1, "1. The loss", "Question 1, Eq. (A2-1)")
def loss(ask, rng):
    for _ in range(ask.draws(2, 6)):
        theta, _, (x, y), _ = drawn(rng)
        ask.same("loss", theta, x, y)


@q.question("gradient", 3, "2. The gradient", "Question 2, and its two hints")
def gradient(ask, rng):
    for _ in range(ask.draws(3, 8)):
        theta, _, (x, y), _ = drawn(rng)
        ask.same("gradient", theta, x, y)
        ask.same("gradient", theta, *far(rng, theta))


@q.question(
    "inner_loop", 2, "3. The inner loop", "Question 3, Eq. (A2-2)", ("gradient",)
)
def inner_loop(ask, rng):
    for steps in (0, 1, *rng.integers(2, 7, size=ask.draws(1, 4)).tolist()):
        theta, _, support, _ = drawn(rng)
        ask.same("inner_loop", theta, support, rate(rng), steps)


@q.question(
    "hessian_vector",
    4,
    "4. The Hessian times a vector",
    "Question 4, Eq. (A2-3)",
    ("gradient",),
)
def hessian_vector(ask, rng):
    for _ in range(ask.draws(3, 8)):
        theta, u, (x, y), _ = drawn(rng)
        ask.same("hessian_vector", theta, x, y, u)


@q.question("meta_gradient", 4, "5. The meta-gradient", "Question 5, Eq. (A2-4)", BACK)
def meta_gradient(ask, rng):
    for steps in (0, 1, *rng.integers(2, 6, size=ask.draws(2, 6)).tolist()):
        theta, _, support, query = drawn(rng)
        ask.same("meta_gradient", theta, support, query, rate(rng), steps)
    ask.same("meta_gradient", theta, support, far(rng, theta), rate(rng), 1)


@q.question("first_order", 1, "6. What first order drops", "Question 6", BACK[:2])
def first_order(ask, rng):
    for steps in rng.integers(1, 6, size=ask.draws(2, 6)).tolist():
        theta, _, support, query = drawn(rng)
        ask.same("first_order", theta, support, query, rate(rng), steps)


@q.question(
    "outer_slope",
    2,
    "7. A proof by finite differences",
    "Question 7",
    ("loss", "inner_loop"),
)
def outer_slope(ask, rng):
    # with a coarse eps a one-sided difference is far off, a central one is not; that
    # the answer comes from differences shows at an eps where these are visibly wrong
    for eps in (0.05, 0.3, 0.5):
        theta, u, support, query = drawn(rng)
        args = (theta, u, support, query, rate(rng), int(rng.integers(1, 5)), eps)
        rtol = 1e-3 if eps < 0.1 else 2e-4
        ask.same("outer_slope", *args, rtol=rtol, atol=1e-5)


@q.question("rate_gradient", 3, "8. The gradient of the inner rate", "Eq. (A2-5)", BACK)
def rate_gradient(ask, rng):
    for steps in (0, 1, *rng.integers(2, 6, size=ask.draws(2, 6)).tolist()):
        theta, _, support, query = drawn(rng)
        ask.same("rate_gradient", theta, support, query, rate(rng), steps)
    ask.same("rate_gradient", theta, support, far(rng, theta), rate(rng), 2)
