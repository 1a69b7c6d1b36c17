"Hidden tests of assignment 3, on networks, tasks and runs drawn for every grading."

import numpy as np
from grading import questions as q

PRELOAD = ("numpy", "torch")
DIRECTIONS = ("maml_gradient", "fomaml_gradient", "reptile_direction")
TENSORS = True  # arrays arrive at the student's functions as PyTorch tensors


def weights(rng, width):
    "Weights of the network from 1 input to 1 output, in double precision."
    shapes = [(1, width), (width,), (width, width), (width,), (width, 1), (1,)]
    return [rng.normal(size=s) / np.sqrt(s[0]) for s in shapes]


def waves(rng, n_tasks, k_shot=4, n_query=5):
    tasks = []
    for _ in range(n_tasks):
        amplitude, phase = rng.uniform(0.5, 3), rng.uniform(0, np.pi)
        x = rng.uniform(-3, 3, size=(k_shot + n_query, 1))
        y = amplitude * np.sin(x - phase)
        tasks.append([x[:k_shot], y[:k_shot], x[k_shot:], y[k_shot:]])
    return tasks


def drawn(rng):
    "Weights, tasks, a rate and a number of steps."
    theta, tasks = weights(rng, int(rng.integers(3, 7))), waves(rng, 3)
    return theta, tasks, float(rng.uniform(0.03, 0.12)), int(rng.integers(1, 5))


@q.question("sinusoid_tasks", 2, "1. Sinusoids", "Question 1 and its hint")
def sinusoid_tasks(ask, rng):
    n, k_shot, n_query = ask.draws(600, 1500), 5, 7
    seed = int(rng.integers(2**31))
    tasks = ask("sinusoid_tasks", n, k_shot, n_query, seed)
    q.require(isinstance(tasks, list) and len(tasks) == n, f"expected {n} tasks")
    amplitudes, phases, inputs, both = [], [], [], 0
    for task in tasks:
        whole = isinstance(task, list) and len(task) == 4
        q.require(whole, "a task must be a tuple of four tensors")
        shapes = [(k_shot, 1)] * 2 + [(n_query, 1)] * 2
        xs, ys, xq, yq = (q.numbers(t, "a task", s) for t, s in zip(task, shapes))
        x, y = np.concatenate([xs, xq]), np.concatenate([ys, yq])
        basis = np.concatenate([np.sin(x), -np.cos(x)], 1)
        (a, b), *_ = np.linalg.lstsq(basis, y[:, 0], rcond=None)
        off = np.abs(basis @ np.array([a, b]) - y[:, 0]).max()
        told = f"the points of a task are {off:.2g} off one wave A sin(x - p)"
        q.require(off < 1e-3, told)
        amplitudes.append(np.hypot(a, b))
        phases.append(np.arctan2(b, a))
        inputs.append(x[:, 0])
        both += len(set(xs[:, 0]) & set(xq[:, 0]))
    _uniform(amplitudes, 0.1, 5.0, "amplitudes")
    _uniform(phases, 0.0, np.pi, "phases")
    _uniform(np.concatenate(inputs), -5.0, 5.0, "inputs")
    told = f"{both} points are in the support and in the query set of a task"
    q.require(both <= 5, told)  # single-precision numbers may meet by chance
    _independent(amplitudes, phases)
    first, again, other = (
        q.numbers(ask("sinusoid_tasks", 2, 3, 3, s)[0][0], "x", (3, 1))
        for s in (7, 7, 8)
    )
    q.require((first == again).all(), "the same seed gave other tasks")
    q.require((first != other).any(), "another seed gave the same tasks")


def _independent(amplitudes, phases):
    "Wrong where one tells of the other: a table of four by four, equally filled."
    at = [
        np.clip(4 * (np.array(v) - low) / (high - low), 0, 3).astype(int)
        for v, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, np.pi))
    ]
    table = np.bincount(4 * at[0] + at[1], minlength=16)
    told = "amplitude and phase must be drawn independently of each other; in a table "
    told += f"of 4 x 4 equal cells, tasks lie in {np.count_nonzero(table)} cells"
    fair = all(q.interval(int(n), len(phases), 1 / 16) for n in table)
    q.require(fair and np.count_nonzero(table) == 16, told)


def _uniform(values, low, high, what):
    "Wrong unless the values may be uniform: range, and largest gap of the quantiles."
    values = np.sort(values)
    told = f"{what} should be uniform in [{low:.3g}, {high:.3g}], got values from "
    told += f"{values[0]:.3g} to {values[-1]:.3g} with mean {np.mean(values):.3g}"
    edge = 1e-3 * (high - low)
    q.require(values[0] > low - edge and values[-1] < high + edge, told)
    n = len(values)
    gap = np.abs((values - low) / (high - low) - (np.arange(n) + 0.5) / n).max()
    # Kolmogorov: 2 exp(-2 n gap^2) is below 1e-8 beyond this
    q.require(gap < np.sqrt(np.log(2e8) / (2 * n)), told)


@q.question("adapt", 2, "2. Adapt", "Question 2 and its hint")
def adapt(ask, rng):
    for _ in range(ask.draws(3, 8)):
        theta, tasks, rate, steps = drawn(rng)
        ask.same("adapt", theta, *tasks[0][:2], rate, steps)


@q.question("maml_gradient", 4, "3. MAML", "Question 3 and its hint")
def maml_gradient(ask, rng):
    for _ in range(ask.draws(3, 8)):
        ask.same("maml_gradient", *drawn(rng))


@q.question("fomaml_gradient", 2, "4a. First-order MAML", "Question 4a", ("adapt",))
def fomaml_gradient(ask, rng):
    for _ in range(ask.draws(3, 8)):
        ask.same("fomaml_gradient", *drawn(rng))


@q.question("reptile_direction", 2, "4b. Reptile", "Question 4b", ("adapt",))
def reptile_direction(ask, rng):
    for _ in range(ask.draws(3, 8)):
        ask.same("reptile_direction", *drawn(rng))


@q.question("meta_train", 3, "5. Train", "Question 5 and its hint", DIRECTIONS)
def meta_train(ask, rng):
    for _ in range(ask.draws(1, 3)):
        for method in ("maml", "fomaml", "reptile"):
            theta, _, rate, steps = drawn(rng)
            batches = [waves(rng, int(rng.integers(1, 4))) for _ in range(3)]
            outer = float(rng.uniform(0.05, 0.2))
            ask.same("meta_train", theta, batches, method, rate, steps, outer)
    ask.refuses("meta_train", theta, batches, "newton", rate, steps, outer)


def quadratic(rng, d):
    h, e = rng.uniform(0.5, 4, size=(2, d))
    return [rng.normal(size=d), h, rng.normal(size=d), e, rng.normal(size=d)]


@q.question(
    "quadratic_directions", 3, "6a. Directions on quadratics", "Question 6, its hint"
)
def quadratic_directions(ask, rng):
    for d in (1, 2, *rng.integers(2, 6, size=ask.draws(3, 9)).tolist()):
        rate, steps = float(rng.uniform(0.05, 0.6)), int(rng.integers(0, 5))
        ask.same("quadratic_directions", *quadratic(rng, d), rate, steps)


@q.question(
    "first_wrong_rate",
    2,
    "6b. The first wrong rate",
    "Question 6, its hint",
    ("quadratic_directions",),
)
def first_wrong_rate(ask, rng):
    for _ in range(ask.draws(8, 20)):
        args = quadratic(rng, int(rng.integers(1, 4)))
        rates, steps = rng.permutation(np.linspace(0.02, 0.8, 14)), rng.integers(1, 4)
        ask.same("first_wrong_rate", *args, rates.tolist(), int(steps))


@q.question("interval", 1, "7a. An interval over runs", "Question 7a")
def interval(ask, rng):
    for n in (2, 3, 5, 10):
        ask.same("interval", rng.normal(3, 2, size=n).tolist())


@q.question("paired", 1, "7b. Paired runs", "Question 7b", ("interval",))
def paired(ask, rng):
    for n in (2, 3, 8):
        a, b = rng.normal(size=(2, n)).tolist()
        ask.same("paired", a, b)
    ask.refuses("paired", a, b[:-1])


def record(rng, cause):
    """A run of 12 outer steps on quadratics whose tasks differ by their centres; the
    rates are drawn so that `cause` is what happens."""
    d, steps = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    first_order = bool(rng.integers(2))
    low, high = {  # of the inner rate times the curvature
        "inner rate": (2.2, 2.9),
        "first order": (1.15, 1.85),
        "outer rate": (0.1, 0.6),
        "stable": (0.1, 0.8),
        "survives": (2.1, 2.4),
    }[cause]
    if cause == "first order":
        first_order, steps = True, int(rng.choice([1, 3]))
    if cause in ("inner rate", "survives"):
        first_order = False
    h, rate = rng.uniform(low, high, size=d), 1.0
    scale = rng.uniform(0.5, 3)
    h, rate = h * scale, rate / scale
    jacobian = (1 - rate * h) ** steps
    curvature = np.abs((jacobian if first_order else jacobian**2) * h).max()
    stretch = {
        "inner rate": (2.3, 2.6),
        "outer rate": (2.3, 2.6),
        "first order": (0.3, 0.6),
        "stable": (0.2, 0.9),
        "survives": (0.3, 0.9),
    }[cause]
    outer_lr = rng.uniform(*stretch) / curvature
    centre, theta = 0.3 * rng.normal(size=(20, d)), 4 * rng.choice([-1, 1], size=d)
    run = {"inner": [], "query": [], "cosine": []}
    for _ in range(12):
        path = [
            centre + (1 - rate * h) ** t * (theta - centre) for t in range(steps + 1)
        ]
        losses = [0.5 * (h * (p - centre) ** 2).sum(1).mean() for p in path]
        first = (h * (path[-1] - centre)).mean(0)
        exact = jacobian * first
        used = first if first_order else exact
        run["inner"].append(losses)
        run["query"].append(losses[-1])
        run["cosine"].append(
            used @ exact / np.linalg.norm(used) / np.linalg.norm(exact)
        )
        theta = theta - outer_lr * used
    return {key: np.array(values) for key, values in run.items()}


@q.question("diagnose", 4, "9. Why did it diverge?", "Question 9 and its hint")
def diagnose(ask, rng):
    causes = ["inner rate", "first order", "outer rate", "stable", "survives"]
    for cause in rng.permutation(causes * ask.draws(4, 10)).tolist():
        run = record(rng, cause)
        want = "stable" if cause == "survives" else cause
        got = ask("diagnose", run)
        if ask.reference("diagnose", run) != want:
            raise RuntimeError(f"the record drawn for {cause!r} is something else")
        q.require(got == want, f"diagnose(...): expected {want!r}, got {q.short(got)}")
