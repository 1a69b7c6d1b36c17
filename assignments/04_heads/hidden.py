"Hidden tests of assignment 4, on points, scores and tables drawn for every grading."

import numpy as np
from grading import questions as q

PRELOAD = ("numpy",)
KINDS = "square", "kl", "itakura"
HEAD = "Eq. (A4-4)"


def positive(rng, n, dim):
    return rng.uniform(0.5, 4, size=dim) * rng.lognormal(0, 0.5, size=(n, dim))


def drawn(rng, n_way, n, dim):
    "Points and labels of which each class has at least one, not equally many."
    y = np.concatenate([np.arange(n_way), rng.integers(n_way, size=n - n_way)])
    return positive(rng, n, dim), rng.permutation(y)


@q.question("prototypes", 1, "1. Class means", "Question 1, Eq. (A4-1)")
def prototypes(ask, rng):
    for _ in range(ask.draws(2, 6)):
        n_way = int(rng.integers(2, 6))
        ask.same("prototypes", *drawn(rng, n_way, 17, 3), n_way)
    z, y = drawn(rng, 3, 9, 2)
    ask.refuses("prototypes", z, np.where(y == 1, 0, y), 3)
    ask.refuses("prototypes", z, y, 4)


@q.question("bregman", 3, "2. Bregman divergences", "Question 2, Eq. (A4-2)")
def bregman(ask, rng):
    for kind in KINDS * ask.draws(1, 3):
        n, m, dim = rng.integers(1, 7, size=3)
        ask.same("bregman", kind, positive(rng, n, dim), positive(rng, m, dim))
    ask.same("bregman", "square", rng.normal(size=(3, 4)), rng.normal(size=(5, 4)))
    z, c = positive(rng, 3, 2), positive(rng, 2, 2)
    for kind in KINDS[1:]:
        ask.refuses("bregman", kind, z, -c)
        ask.refuses("bregman", kind, z * [[1, 1], [1, 0], [1, 1]], c)
    ask.refuses("bregman", "cosine", z, c)


@q.question("centre", 3, "3a. Centres of divergences", "Question 3a and its hint")
def centre(ask, rng):
    for kind in KINDS * ask.draws(1, 3):
        for side in ("from", "to"):
            ask.same("centre", kind, positive(rng, 6, 3), side)


@q.question("plain_centre", 1, "3b. The plain distance", "Question 3b and its hint")
def plain_centre(ask, rng):
    for _ in range(ask.draws(2, 6)):
        z = rng.normal(size=(int(rng.integers(8, 12)), 3))
        z[0] += 20 * rng.choice([-1, 1], size=3)
        c = q.numbers(ask("plain_centre", z), "the centre", (3,))
        sums = lambda c: np.linalg.norm(z - c, axis=1).sum()
        q.compare(sums(c), sums(ask.reference("plain_centre", z)), 1e-6, 0, "the sum")


@q.question("posteriors", 2, "4. Probabilities", "Eq. (A4-3), its hint", ("bregman",))
def posteriors(ask, rng):
    for kind in KINDS * ask.draws(1, 3):
        z, p = positive(rng, 5, 3), positive(rng, 4, 3)
        ask.same("posteriors", z, p, kind, float(rng.uniform(0.3, 3)))
    z, p = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))
    ask.same("posteriors", 300 * z, 300 * p, "square", 1.0)
    ask.same("posteriors", z + 500, p - 500, "square", 700.0)


@q.question("linear_form", 2, "5. A linear classifier", "Question 5 and its hint")
def linear_form(ask, rng):
    for _ in range(ask.draws(3, 8)):
        (n_way, dim), tau = rng.integers(2, 6, size=2), float(rng.uniform(0.3, 4))
        p, z = rng.normal(size=(n_way, dim)), rng.normal(size=(9, dim))
        form = ask("linear_form", p, tau)
        fits = isinstance(form, dict) and {"weight", "bias"} <= set(form)
        q.require(fits, "expected a dict with weight and bias")
        w = q.numbers(form["weight"], "weight", (n_way, dim))
        logits = z @ w.T + q.numbers(form["bias"], "bias", (n_way,))
        want = -((z[:, None] - p[None]) ** 2).sum(-1) / tau
        apart = lambda f: f - f.mean(1, keepdims=True)
        q.compare(apart(logits), apart(want), 2e-4, 1e-6, "logits less their mean")


@q.question("ridge", 4, "6. Ridge regression", "Question 6, Eq. (A4-4), its hint")
def ridge(ask, rng):
    sizes = [
        (5, 3),
        (5, 40),
        (6, 6),
        *[tuple(rng.integers(4, 30, 2))] * ask.draws(1, 5),
    ]
    for n, d in (*sizes, (30, 20_000), (20_000, 8)):
        x = rng.normal(size=(n, d))
        lam = float(rng.uniform(0.05, 5))
        ask.same("ridge", x, rng.integers(3, size=n), 3, lam)
    x, y = rng.normal(size=(6, 4)), np.arange(6) % 3
    ask.same("ridge", x, np.zeros(6, int), 3, 1.0)  # classes without an example
    for lam in (0.0, -1.0):
        ask.refuses("ridge", x, y, 3, lam)


@q.question("leave_one_out", 3, "7. Leave one out", "Eq. (A4-5)", ("ridge",))
def leave_one_out(ask, rng):
    for _ in range(ask.draws(3, 8)):
        n, d = int(rng.integers(6, 14)), int(rng.integers(2, 20))
        args = (rng.normal(size=(n, d)), rng.permutation(np.arange(n) % 3), 3)
        ask.same("leave_one_out", *args, float(rng.uniform(0.1, 3)))


@q.question("calibration_error", 2, "8a. Calibration error", "Question 8a, its hint")
def calibration_error(ask, rng):
    for n_bins in (1, 5, 10, 15, *[7] * ask.draws(1, 5)):
        p = rng.dirichlet(np.full(4, 0.4), size=60)
        y = np.where(rng.random(60) < 0.6, p.argmax(1), rng.integers(4, size=60))
        p[0] = np.eye(4)[2]  # a confidence of 1 belongs to the last bin
        ask.same("calibration_error", p, y, n_bins)


def loss(s, logits, y):
    f = s * (logits - logits.max(1, keepdims=True))
    return np.mean(np.log(np.exp(f).sum(1)) - f[np.arange(len(y)), y])


def as_good(got, want, logits, y):
    "Wrong unless the scale is allowed, and its loss within 1e-6 of the best."
    s = float(q.numbers(got, "the scale", ()))
    q.require(0.000999 <= s <= 1000.001, f"expected 0.001 to 1000, got {s:.4g}")
    here, best = loss(s, logits, y), loss(float(want), logits, y)
    told = f"the loss at {s:.6g} is {here:.8f}; at {float(want):.6g} it is {best:.8f}"
    q.require(here <= best + 2e-6, told)


@q.question("best_scale", 2, "8b. The best scale", "Question 8b and the hint")
def best_scale(ask, rng):
    for size in (0.02, 1.0, 8.0, *rng.uniform(0.1, 5, size=ask.draws(1, 6))):
        logits = size * rng.normal(size=(40, 4))
        y = np.where(rng.random(40) < 0.6, logits.argmax(1), rng.integers(4, size=40))
        got, want = ask("best_scale", logits, y), ask.reference("best_scale", logits, y)
        as_good(got, want, logits, y)
    for y in (logits.argmax(1), logits.argmin(1)):  # the limits of the interval
        got, want = ask("best_scale", logits, y), ask.reference("best_scale", logits, y)
        as_good(got, want, logits, y)


@q.question(
    "honest_scale",
    1,
    "8c. An honest scale",
    "Question 8c",
    ("ridge", "leave_one_out", "best_scale"),
)
def honest_scale(ask, rng):
    for _ in range(ask.draws(2, 6)):
        y = rng.permutation(np.arange(20) % 4)
        x = np.eye(4, 30)[y] + 0.5 * rng.normal(size=(20, 30))
        args = (x, y, 4, float(rng.uniform(0.5, 2)))
        logits = ask.reference("leave_one_out", *args)
        want = ask.reference("honest_scale", *args)
        as_good(ask("honest_scale", *args), want, logits, y)


@q.question("balanced", 2, "9a. Balanced assignment", "Question 9a and its hint")
def balanced(ask, rng):
    for rounds in (0, 1, 3, 60, *[7] * ask.draws(1, 5)):
        n_query, n_way = int(rng.integers(4, 15)), int(rng.integers(2, 6))
        ask.same("balanced", 2 * rng.normal(size=(n_query, n_way)), rounds)
    steep = rng.normal(size=(9, 3)) - [0, 800, 1500]
    ask.same("balanced", steep, 4)
    ask.same("balanced", steep[:1], 2)


@q.question("transductive", 1, "9b. Who depends on whom", "Question 9b")
def transductive(ask, rng):
    for _ in range(ask.draws(4, 10)):
        table = {}
        for method in rng.permutation(["graph", "means", "ridge", "paths", "svm"]):
            together = rng.integers(4, size=(6, 9))
            alone = together.copy()
            if rng.random() < 0.5:  # two answers change places: as many are right
                e = int(rng.integers(6))
                alone[e, :2], together[e, :2] = [1, 2], [2, 1]
            table[str(method)] = {"together": together, "alone": alone}
        ask.same("transductive", table)


def results(rng, n_episodes):
    labels, table = {}, {m: {} for m in ("means", "graph", "ridge", "svm")}
    for kind, n_query in (("even", 12), ("uneven", 9), ("alone", 7)):
        labels[kind] = rng.integers(4, size=(n_episodes, n_query))
        hard = rng.random((n_episodes, 1))  # episodes differ: pairing matters
        for told in table.values():
            right = rng.random(labels[kind].shape) < hard
            told[kind] = np.where(right, labels[kind], (labels[kind] + 1) % 4)
    return table, labels


@q.question("gains", 2, "9c. Paired gains", "Question 9c")
def gains(ask, rng):
    for n_episodes in (2, 5, *[20] * ask.draws(1, 4)):
        ask.same("gains", *results(rng, n_episodes), str(rng.choice(["means", "svm"])))


@q.question("real_gains", 1, "9d. Gains that stay", "Question 9d")
def real_gains(ask, rng):
    for _ in range(ask.draws(6, 15)):
        lead = lambda: float(rng.choice([0.2, 0.2, 0.2, 0.2, 0.05, -0.2]))
        row = lambda: {m: [lead(), 0.1] for m in ("svm", "graph", "ridge")}
        ask.same("real_gains", {kind: row() for kind in ("even", "uneven", "alone")})
    row = lambda a, b: {"graph": [a, 0.1], "svm": [b, 0.1]}  # a mean hides a loss
    ask.same("real_gains", {"even": row(0.9, 0.2), "uneven": row(-0.2, 0.3)})
