"""Hidden tests of assignment 8, on logs that are made for every grading by the
reference's generator: with faults that are drawn, and with none."""

import numpy as np
from grading import questions as q

PRELOAD = ("numpy",)
FAULTS = (
    *("one seed", "no interval", "tuned on test", "unequal budgets"),
    "leaking split",
)
INTERVALS = ("interval_over_episodes",)
CHOICE = ("chosen_rate", "same_budget", "leaking_classes")


def some(rng, share=0.5):
    return [f for f in FAULTS if rng.random() < share]


def logs(ask, rng, faults):
    "Logs with these faults, made where the student can't see the seed."
    return ask.reference("make_logs", int(rng.integers(2**31)), list(faults))


@q.question("interval_over_episodes", 1, "1. Over episodes", "Question 1, Eq. (A8-1)")
def interval_over_episodes(ask, rng):
    for n in (2, 3, 30, *rng.integers(4, 200, size=ask.draws(2, 6)).tolist()):
        ask.same("interval_over_episodes", rng.uniform(size=n))
    ask.refuses("interval_over_episodes", rng.uniform(size=1))


@q.question(
    "spread_over_seeds", 3, "2. Over training runs", "Question 2, Eq. (A8-2)", INTERVALS
)
def spread_over_seeds(ask, rng):
    for _ in range(ask.draws(4, 10)):
        runs, n = int(rng.integers(2, 6)), int(rng.integers(2, 50))
        values = rng.uniform(size=(runs, n)) + rng.uniform(0, 1) * rng.normal(size=n)
        ask.same("spread_over_seeds", values + 0.2 * rng.normal(size=(runs, 1)))
    ask.refuses("spread_over_seeds", values[:1])
    ask.refuses("spread_over_seeds", values[:, :1])


@q.question("paired_difference", 2, "3. A paired difference", "Question 3", INTERVALS)
def paired_difference(ask, rng):
    for _ in range(ask.draws(3, 8)):
        n = int(rng.integers(3, 20))
        names, hard = rng.permutation(90)[:n], rng.uniform(0, 1, size=n)
        runs = []
        for _ in range(2):
            order = rng.permutation(n)
            told = (hard + 0.1 * rng.normal(size=n))[order]
            runs.append({"episodes": names[order], "accuracy": told})
        ask.same("paired_difference", *runs)
    other = {**runs[0], "episodes": np.append(runs[0]["episodes"][:-1], 99)}
    ask.refuses("paired_difference", other, runs[1])
    fewer = {k: v[:-1] for k, v in runs[0].items()}
    ask.refuses("paired_difference", runs[1], fewer)


def as_named(got, names, what):
    "The answer as a set of names; Wrong for other things, or a name that comes twice."
    ok = isinstance(got, list) and all(isinstance(n, str) for n in got)
    q.require(ok, f"{what} must be a list of names, got {q.short(got)}")
    strange = sorted(set(got) - set(names))
    q.require(not strange, f"{what} names {q.short(strange)}, which is not among them")
    q.require(
        len(set(got)) == len(got), f"{what} names something twice: {q.short(got)}"
    )
    return set(got)


@q.question("chosen_rate", 4, "4. The rate of validation", "Question 4 and its hint")
def chosen_rate(ask, rng):
    for faults in ([], ["tuned on test"], *(some(rng) for _ in range(ask.draws(1, 4)))):
        runs = logs(ask, rng, faults)["runs"]
        budgets = sorted({(r["method"], r["steps"]) for r in runs})
        for i in rng.permutation(len(budgets))[:4]:
            ask.same("chosen_rate", runs, *budgets[i], rtol=0, atol=1e-9)
    run = {"method": "a", "steps": 10, "part": "validation", "episodes": np.arange(2)}
    values = rng.permutation([0.25, 0.5, 0.75])  # whose sums are exact
    tie = [
        {**run, "rate": r, "seed": s, "accuracy": np.array([v, v])}
        for r, vs in ((0.3, values), (0.1, values[::-1]), (0.5, values - 0.125))
        for s, v in enumerate(vs)
    ]
    ask.same("chosen_rate", tie, "a", 10, rtol=0, atol=1e-9)
    ask.refuses("chosen_rate", tie, "a", 20)
    ask.refuses("chosen_rate", [{**r, "part": "test"} for r in tie], "a", 10)


@q.question("same_budget", 4, "5. The same budget", "Question 5 and its hint")
def same_budget(ask, rng):
    for faults in ([], *[["unequal budgets"]] * ask.draws(2, 5)):
        ask.same("same_budget", logs(ask, rng, faults)["runs"], rtol=0, atol=0)
    for gone in (None, "rate", "seed", "part"):
        budgets = sorted(
            rng.choice(range(100, 900, 50), size=3, replace=False).tolist()
        )
        run = {"episodes": np.arange(1), "accuracy": np.array([0.5])}
        runs = [
            {**run, "method": m, "steps": n, "rate": rate, "seed": s, "part": part}
            for m, rates in (("a", [0.1]), ("b", [0.2, 0.4]), ("c", [0.1, 0.3]))
            for n in budgets + [1000] * (m == "a")
            for rate in rates
            for s in (3, 5)
            for part in ("validation", "test")
        ]
        if gone:  # at the largest that is there for all
            value = {"rate": 0.4, "seed": 5, "part": "validation"}[gone]
            lost = {"method": "b", "steps": budgets[-1], gone: value}
            runs = [r for r in runs if any(r[k] != v for k, v in lost.items())]
        runs = [runs[i] for i in rng.permutation(len(runs))]
        ask.same("same_budget", runs, rtol=0, atol=0)
    apart = [r for r in runs if (r["method"] == "b") == (r["steps"] == budgets[0])]
    ask.refuses("same_budget", apart)


@q.question("leaking_classes", 5, "6. Classes that leak", "Question 6 and its hint")
def leaking_classes(ask, rng):
    for faults in (["leaking split"], []) * ask.draws(4, 10):
        split = logs(ask, rng, faults)["split"]
        got = ask("leaking_classes", split)
        as_named(got, split["test"], "leaking_classes(...)")
        want = ask.reference("leaking_classes", split)
        q.compare(got, want, 0, 0, "leaking_classes(...)")


@q.question(
    "clean_episodes", 1, "7. Episodes that are left", "Question 7", ("leaking_classes",)
)
def clean_episodes(ask, rng):
    for faults in ([], *[["leaking split"]] * ask.draws(2, 5)):
        made = logs(ask, rng, faults)
        got = ask("clean_episodes", {k: made[k] for k in ("split", "episodes")})
        got = q.numbers(got, "clean_episodes(...)", (None,), whole=True)
        q.compare(got.tolist(), ask.reference("clean_episodes", made), 0, 0, "episodes")


def fault(name, letter):
    def test(ask, rng):
        rest = [f for f in FAULTS if f != name]
        draws = [[], rest, list(FAULTS), *[[name]] * ask.draws(3, 8)]
        draws += [some(rng) for _ in range(ask.draws(0, 8))]
        for faults in draws:
            got = ask("find_faults", logs(ask, rng, faults))
            named = name in as_named(got, FAULTS, "find_faults(...)")
            told = f"{name!r} is {'not ' * (name not in faults)}a fault of these logs, "
            q.require(
                named == (name in faults),
                told + f"and find_faults gave {q.short(got)}",
            )

    title = f"8{letter}. Fault: {name}"
    key = name.replace(" ", "_")
    return q.question(key, 1, title, "Question 8", CHOICE, ("find_faults",))(test)


one_seed, no_interval, tuned, unequal, leaking = map(fault, FAULTS, "abcde")
COUNTED = ("method", "rate", "steps", "episodes", "mean", "half")
GAINED = ("method", "gain", "gain_half", "verdict")


def rows(ask, made, keys):
    "The student's rows and the reference's, with these keys of each."
    want = ask.reference("repaired_table", made)
    got = ask("repaired_table", made)
    ok = isinstance(got, list) and all(isinstance(r, dict) for r in got)
    q.require(ok, f"repaired_table must be a list of dicts, got {q.short(got)}")
    for row in got:
        missing = [k for k in keys if k not in row]
        q.require(not missing, f"a row of repaired_table lacks {missing}")
    return [[{k: r[k] for k in keys} for r in table] for table in (got, want)]


OWN = ("repaired_table",)
TABLE = ("interval_over_episodes", "spread_over_seeds", "clean_episodes", *CHOICE)


@q.question("repaired_rows", 5, "9a. The table", "Question 9, 1 to 4", TABLE, OWN)
def repaired_rows(ask, rng):
    for faults in (FAULTS, *(some(rng) for _ in range(ask.draws(1, 5)))):
        got, want = rows(ask, logs(ask, rng, faults), COUNTED)
        q.compare(got, want, 2e-4, 1e-6, "repaired_table(...)")


@q.question("repaired_gains", 3, "9b. Gains", "Question 9, 5 and 6", TABLE, OWN)
def repaired_gains(ask, rng):
    for faults in (FAULTS, [], *(some(rng) for _ in range(ask.draws(2, 10)))):
        got, want = rows(ask, logs(ask, rng, faults), GAINED)
        by_name = lambda table: {str(r["method"]): r for r in table}
        # the order of the rows belongs to 9a
        q.compare(by_name(got), by_name(want), 2e-4, 1e-6, "gains")


def pool(rng):
    "Features of a few classes that are near each other and of others that are far."
    names = [f"c{i:02}" for i in rng.permutation(14)]
    centres = 0.45 * rng.normal(size=(14, 12))
    centres[7:] *= 8
    labels = [c for c in names for _ in range(9)]
    x = np.repeat(centres, 9, axis=0) + rng.normal(size=(126, 12)) + 0.5
    order = rng.permutation(126)
    return x[order], [labels[i] for i in order], names[:7]


@q.question("rerun", 4, "10a. Run it again", "Question 10a and its hints", INTERVALS)
def rerun(ask, rng):
    n = ask.draws(200, 600)
    for head in ("prototypes", "ridge"):
        sizes = int(rng.integers(3, 6)), 3, 6
        args, seed = (*pool(rng), head, *sizes, n), int(rng.integers(1000))
        got, want = ask("rerun", *args, seed), ask.reference("rerun", *args, seed + 1)
        ok = isinstance(got, dict) and {"mean", "half"} <= set(got)
        q.require(ok, f"rerun must give a dict with mean and half, got {q.short(got)}")
        mean, half = (float(q.numbers(got[k], k, ())) for k in ("mean", "half"))
        # two draws of the same quantity: six standard errors
        most = 6 / 1.97 * np.sqrt(2) * want["half"]
        told = (
            f"{head}, {n} episodes: expected {want['mean']:.3f}, with other episodes "
        )
        told += f"within {most:.3f}, got {mean:.3f}"
        q.require(abs(mean - want["mean"]) <= most, told)
        ratio = half / want["half"]
        told = (
            f"{head}: the half-width is {half:.4f}, expected about {want['half']:.4f}"
        )
        q.require(0.6 < ratio < 1.6, told)
    again = ask("rerun", *args, seed)
    q.compare(again, {k: got[k] for k in again}, 0, 1e-9, "the same seed again")
    other = [ask("rerun", *args, seed + i)["mean"] for i in (2, 3)]
    q.require(
        any(abs(float(v) - mean) > 1e-9 for v in other), "all seeds give one number"
    )
    ask.refuses("rerun", *args[:3], "svm", *sizes, 5, 0)


@q.question("agree", 1, "10b. Do they agree?", "Question 10b")
def agree(ask, rng):
    for i in range(ask.draws(12, 30)):
        a, h, k = rng.uniform(0.3, 0.7), *rng.uniform(0.01, 0.1, size=2)
        # on both sides of the root, and of the sum, the larger, and the smaller
        far = np.hypot(h, k) * (0.93, 1.07)[i % 2]
        far = far if i % 3 else 0.99 * (h + k)
        b = a + far * rng.choice([-1, 1])
        both = {"mean": a, "half": h}, {"mean": b, "half": k}
        got = ask("agree", *both)
        want = ask.reference("agree", *both)
        q.compare(int(q.numbers(got, "agree(...)", ())), int(want), 0, 0, "agree(...)")
