"Hidden tests of assignment 7, on weights, texts and episodes drawn for every grading."

import math

import numpy as np
from grading import questions as q

PRELOAD = ("numpy", "torch", "metalearn_book.language_models.low_rank")
TENSORS = True  # arrays arrive at the student's functions as PyTorch tensors
BATCH = ("batch_of", "causal_loss")
LETTERS = list("abcdefgh") + ["é", "ß", "中", "🙂", " "]


def texts(rng, n):
    "Strings of letters that have one to four bytes."
    draw = lambda: "".join(rng.choice(LETTERS, size=int(rng.integers(1, 30))))
    return [draw() for _ in range(n)]


def losses(rng, some):
    return np.array([len(t.encode()) for t in some]) * rng.uniform(1, 3, size=len(some))


@q.question("bits_per_byte", 1, "1a. Bits per byte", "Question 1a, Eq. (A7-1)")
def bits_per_byte(ask, rng):
    for n in (1, 2, *rng.integers(3, 9, size=ask.draws(2, 6)).tolist()):
        some = texts(rng, n)
        ask.same("bits_per_byte", losses(rng, some), some)
    ask.refuses("bits_per_byte", losses(rng, some), some[:-1])


@q.question(
    "bits_interval",
    2,
    "1b. Its interval",
    "Question 1b, Eq. (A7-2)",
    ("bits_per_byte",),
)
def bits_interval(ask, rng):
    for n in (2, 3, *rng.integers(4, 40, size=ask.draws(2, 6)).tolist()):
        some = texts(rng, n)
        ask.same("bits_interval", losses(rng, some), some)
    ask.refuses("bits_interval", losses(rng, some), some[:-1])
    ask.refuses("bits_interval", losses(rng, some[:1]), some[:1])


def pair(rng, vocabulary=20):
    "A prompt and an answer; the end token, 1, may stand in the prompt."
    n, m = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    return [
        rng.integers(1, vocabulary, n).tolist(),
        rng.integers(2, vocabulary, m).tolist(),
    ]


def same_batch(ask, name, *arguments):
    "Wrong unless ids and counts are the reference's, of whatever type they come."
    want, got = ask.reference(name, *arguments), ask(name, *arguments)
    q.require(
        isinstance(got, dict) and {"ids", "counts"} <= set(got),
        f"{name} must give a dict with ids and counts, got {q.short(got)}",
    )
    for key in ("ids", "counts"):
        found = q.numbers(got[key], f"{name}: {key}", want[key].shape, whole=True)
        wrong = np.argwhere(found != want[key].astype(int))
        told = f"{name}: {key} differ at {len(wrong)} places; row by row, expected "
        told += (
            f"{q.short(want[key].astype(int).tolist())}, got {q.short(found.tolist())}"
        )
        q.require(not len(wrong), told)


@q.question("batch_of", 3, "2a. What counts", "Question 2a and its hint")
def batch_of(ask, rng):
    for n in (1, *rng.integers(2, 6, size=ask.draws(4, 12)).tolist()):
        same_batch(ask, "batch_of", [pair(rng) for _ in range(n)], 1)
    ask.refuses("batch_of", [pair(rng), [[4, 5], []]], 1)


@q.question("causal_loss", 3, "2b. The loss", "Question 2b and its hint")
def causal_loss(ask, rng):
    for infinite in (False, *[True] * ask.draws(3, 9)):
        n, length, v = rng.integers(2, 7, size=3) + [0, 2, 3]
        logits = 2 * rng.normal(size=(n, length, v))
        ids, counts = rng.integers(v, size=(n, length)), rng.random((n, length)) < 0.5
        counts[:, 0], counts[0, 1] = True, True
        if infinite:
            used = np.zeros_like(counts)
            used[:, :-1] = counts[:, 1:]
            logits[~used] = rng.choice([np.inf, -np.inf])
        ask.same("causal_loss", logits, ids, counts)
    counts[:, 1:] = False
    ask.refuses("causal_loss", logits, ids, counts)


@q.question("honest_loss", 1, "2c. An honest loss", "Question 2c")
def honest_loss(ask, rng):
    for _ in range(ask.draws(3, 8)):
        n, m = rng.integers(1, 200, size=2).tolist()
        honest, padding = rng.uniform(0.5, 4), rng.uniform(0, 0.5)
        reported = (honest * n + padding * m) / (n + m)
        ask.same("honest_loss", float(reported), float(padding), n, m)


def layer(rng):
    "x, W, A, B, alpha and the gradient by y, of sizes that differ."
    n, d_in, d_out = rng.integers(3, 8, size=3)
    r = int(rng.integers(2, min(d_in, d_out) + 1))  # at 1, alpha is the scale
    normal = lambda *shape: rng.normal(size=shape)
    args = normal(n, d_in), normal(d_out, d_in), normal(r, d_in), normal(d_out, r)
    return [*args, float(rng.uniform(0.5, 9)), normal(n, d_out)]


@q.question("lora_forward", 1, "3a. Forward", "Question 3a, Eq. (A7-3)")
def lora_forward(ask, rng):
    for _ in range(ask.draws(3, 8)):
        x, w, a, b, alpha, _ = layer(rng)
        ask.same("lora_forward", x, w, a, b, alpha)
        ask.same("lora_forward", np.stack([x, -2 * x]), w, a, b, alpha)
        ask.same("lora_forward", x[0], w, a, b, alpha)


@q.question("lora_merge", 1, "3b. Merge", "Question 3b, Eq. (A7-3)")
def lora_merge(ask, rng):
    for _ in range(ask.draws(3, 8)):
        ask.same("lora_merge", *layer(rng)[1:5])


@q.question("lora_gradients", 4, "3c. Gradients by hand", "Question 3c and its hint")
def lora_gradients(ask, rng):
    for zero in (True, *[False] * ask.draws(4, 12)):
        args = layer(rng)
        args[3] = 0 * args[3] if zero else args[3]
        ask.same("lora_gradients", *args)


@q.question("lora_start", 1, "3d. The start", "Question 3d")
def lora_start(ask, rng):
    d_out, d_in, rank = int(rng.integers(5, 9)), int(rng.integers(300, 900)), 4
    seed = int(rng.integers(2**31))
    got = ask("lora_start", d_out, d_in, rank, seed)
    ok = isinstance(got, dict) and {"a", "b"} <= set(got)
    q.require(ok, f"expected a dict with a and b, got {q.short(got)}")
    a = np.sort(q.numbers(got["a"], "a", (rank, d_in)).ravel()) * math.sqrt(d_in)
    q.compare(got["b"], np.zeros((d_out, rank)), 0, 0, "b")
    told = (
        "a should be uniform between -1 and 1 over the root of d_in; times that root "
    )
    told += f"it goes from {a[0]:.3g} to {a[-1]:.3g} with mean {a.mean():.3g}"
    q.require(-1.001 < a[0] and a[-1] < 1.001, told)
    gap = np.abs((a + 1) / 2 - (np.arange(len(a)) + 0.5) / len(a)).max()
    # Kolmogorov: 2 exp(-2 n gap^2) is below 1e-8 beyond this
    q.require(gap < np.sqrt(np.log(2e8) / (2 * len(a))), told)
    again, other = (ask("lora_start", d_out, d_in, rank, s) for s in (seed, seed + 1))
    q.compare(again["a"], q.numbers(got["a"]), 0, 0, "the same seed again: a")
    differ = (q.numbers(other["a"]) != q.numbers(got["a"])).any()
    q.require(differ, "another seed gave the same start")
    for shape in ((5, 9, 6, 1), (9, 5, 6, 1), (5, 9, 0, 1)):
        ask.refuses("lora_start", *shape)


@q.question("lora_count", 1, "3e. Counts", "Question 3e")
def lora_count(ask, rng):
    for n in (1, 1, *rng.integers(1, 5, size=ask.draws(4, 12)).tolist()):
        shapes = rng.integers(2, 12, size=(n, 2)).tolist()
        ask.same("lora_count", shapes, int(rng.integers(1, 5)), rtol=0, atol=0)
    for shapes in ([[8, 8]], [[4, 4], [4, 4]], [[12, 4], [4, 12]], [[1, 5]]):  # no rest
        ask.same("lora_count", shapes, 1, rtol=0, atol=0)


def gpt(rng):
    "Weights of a small GPT in double precision, and factors beside some of them."
    v, width, context, layers = int(rng.integers(7, 12)), 4, 9, int(rng.integers(1, 3))
    shapes = {"tokens.weight": (v, width), "positions.weight": (context, width)}
    linear = {"attention.qkv": (12, 4), "attention.out": (4, 4), "up": (16, 4)}
    linear["down"] = (4, 16)
    for i in range(layers):
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.{k}": (4,) for k in ("weight", "bias")}
        for name, shape in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    shapes |= {"norm.weight": (4,), "norm.bias": (4,)}
    weights = {n: 0.5 * rng.normal(size=s) for n, s in shapes.items()}
    names = [f"blocks.{i}.{name}.weight" for i in range(layers) for name in linear]
    zero, factors, r = rng.random() < 0.4, {}, int(rng.integers(1, 4))
    for name in rng.permutation(names)[:3].tolist():
        d_out, d_in = shapes[name]
        b = 0.4 * (not zero) * rng.normal(size=(d_out, r))
        factors[name] = {"a": 0.4 * rng.normal(size=(r, d_in)), "b": b}
    return weights, factors, v


def rows(rng, v):
    "Ids and counts of three rows; something counts."
    ids, counts = rng.integers(v, size=(3, 7)), rng.random((3, 7)) < 0.6
    counts[0, 3] = True
    return [ids, counts]


def inner(rng):
    "alpha and inner_lr"
    return float(rng.uniform(1, 5)), float(rng.uniform(0.1, 0.5))


@q.question("with_factors", 1, "4a. Weights with factors", "4a", ("lora_merge",))
def with_factors(ask, rng):
    for _ in range(ask.draws(2, 6)):
        weights, factors, _ = gpt(rng)
        ask.same("with_factors", weights, factors, float(rng.uniform(1, 5)))


@q.question("adapt", 4, "4b. Adapt", "Question 4b and its first hint")
def adapt(ask, rng):
    for steps in (1, 3, 0, *rng.integers(2, 5, size=ask.draws(1, 7)).tolist()):
        weights, factors, v = gpt(rng)
        args = weights, factors, *rows(rng, v), *inner(rng), steps
        ask.same("adapt", *args, rtol=1e-4, atol=1e-7)


@q.question("meta_gradient", 5, "4c. The meta-gradient", "Question 4c, second hint")
def meta_gradient(ask, rng):
    for steps in (1, 3, *rng.integers(2, 4, size=ask.draws(1, 6)).tolist()):
        weights, factors, v = gpt(rng)
        tasks = [[*rows(rng, v), *rows(rng, v)] for _ in range(int(rng.integers(1, 4)))]
        args = weights, factors, tasks, *inner(rng), steps
        ask.same("meta_gradient", *args, rtol=1e-4, atol=1e-7)


@q.question("context_rows", 3, "5a. Rows", "Question 5a", BATCH[:1])
def context_rows(ask, rng):
    for n in (0, 1, *rng.integers(2, 5, size=ask.draws(3, 10)).tolist()):
        support = [pair(rng) for _ in range(n)]
        queries = [pair(rng) for _ in range(int(rng.integers(1, 5)))]
        same_batch(ask, "context_rows", support, queries, 1)
    ask.refuses("context_rows", support, [*queries, [[3], []]], 1)
    ask.refuses("context_rows", [*support, [[3], []]], queries, 1)


def episode(rng, faulty):
    """An episode of one answer that most pairs share, as tasks have it; `faulty` is the
    chance of each fault."""
    letters, answer = rng.permutation(40), rng.integers(40, 50, size=2).tolist()
    prompts = [letters[4 * i : 4 * i + 4].tolist() for i in range(8)]
    turned = answer[::-1] if answer[0] != answer[1] else [answer[0], 50]
    pairs = [[p, list(answer if rng.random() < 0.8 else turned)] for p in prompts]
    support, queries = pairs[:4], pairs[4:]
    contexts = [[*support[: int(rng.integers(1, 5))]] for _ in queries]
    for j, (query, front) in enumerate(zip(queries, contexts)):
        if rng.random() < faulty:
            front.insert(int(rng.integers(len(front) + 1)), list(query))
        if rng.random() < faulty:  # the answer of somebody else
            front.append([queries[j - 1][0], list(query[1])])
        if rng.random() < faulty:  # a support pair with another answer
            front[0] = [list(support[0][0]), [51]]
        if rng.random() < faulty:
            at = int(rng.integers(3))
            query[0] = query[0][:at] + query[1] + query[0][at:]
        elif rng.random() < 0.3:  # its tokens, but not one behind another
            query[0] = [query[1][0], *query[0], *query[1][1:]]
    return {"support": support, "queries": queries, "contexts": contexts}


@q.question("leaks", 3, "5b. Leaks", "Question 5b, the table")
def leaks(ask, rng):
    for faulty in (0.0, 0.15, 0.5, *[0.2] * ask.draws(5, 15)):
        episodes = [episode(rng, faulty * (i != 1)) for i in range(3)]
        got, want = ask("leaks", episodes), ask.reference("leaks", episodes)
        q.require(isinstance(got, list), f"leaks must be a list, got {q.short(got)}")
        q.compare(got, want, 0, 0, "leaks(...)")


@q.question("compare", 3, "6. Compare", "Question 6 and its hint")
def compare(ask, rng):
    for n in (2, 3, *rng.integers(4, 30, size=ask.draws(3, 9)).tolist()):
        m = int(rng.integers(1, 6))
        n_bytes = rng.integers(5, 30, size=(n, m)).astype(float)
        hard, shift = rng.normal(size=(n, 1)), rng.normal(0, 2, size=(n, 1))
        a = n_bytes + hard + rng.normal(size=(n, m))
        ask.same("compare", a, a + shift + 0.3 * rng.normal(size=(n, m)), n_bytes)
    ask.refuses("compare", a, a[:, :0], n_bytes)
    ask.refuses("compare", a[:1], a[:1], n_bytes[:1])
