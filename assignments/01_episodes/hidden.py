"Hidden tests of assignment 1, on pools that are drawn for every grading."

import math
import re
from collections import Counter
from itertools import combinations

import numpy as np
from grading import questions as q

PRELOAD = ("numpy",)
PARTS = ("split_classes", "clean_rows", "sample_episode")
WORDS = "pay book find lost card bill song rain road tea milk note desk lamp".split()


def words(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def names(rng, n):
    "Different class names, in no order that would help."
    found = set()
    while len(found) < n:
        found.add("".join(rng.choice(list("abcdefgh"), 5)))
    return rng.permutation(sorted(found)).tolist()


def rough(rng, text):
    "A copy of a text in other letters and marks."
    change = [str.upper, str.title, lambda t: t + "!", lambda t: t.replace(" ", ", ")]
    return change[rng.integers(len(change))](text) + rng.choice(["", "?", " ..."])


def pool(rng, n_classes, per_class, copies, contradictions=0):
    "Texts and labels; copies within a class, and copies with another label."
    classes, texts, labels, seen = names(rng, n_classes), [], [], set()
    for c in classes:
        while labels.count(c) < per_class:
            text = " ".join(rng.choice(WORDS, 4))
            if text not in seen:
                seen.add(text)
                texts.append(text)
                labels.append(c)
    for i in rng.choice(len(texts), copies, replace=False):
        texts.append(rough(rng, texts[i]))
        labels.append(labels[i])
    # one in a class, so that every class keeps enough rows for an episode
    for c in rng.choice(n_classes, contradictions, replace=False):
        i = c * per_class + rng.integers(per_class)
        others = [c for c in classes if c != labels[i]]
        texts.append(rough(rng, texts[i]))
        labels.append(str(rng.choice(others)))
    order = rng.permutation(len(texts))
    return [texts[i] for i in order], [labels[i] for i in order]


def seeds(rng, n):
    return rng.integers(2**31, size=n).tolist()


def listed(value, what):
    q.require(isinstance(value, list), f"{what} must be a list, got {q.short(value)}")
    return value


def in_dict(value, keys, what):
    good = isinstance(value, dict) and set(keys) <= set(value)
    q.require(good, f"{what} must be a dict with {sorted(keys)}, got {q.short(value)}")
    return value


@q.question("split_classes", 1, "1. Split by class", "Question 1 and its hint")
def split_classes(ask, rng):
    classes = names(rng, 9)
    labels = rng.choice(classes, 80).tolist() + classes
    sizes, counts = {"train": 4, "validation": 2, "test": 3}, Counter()
    pairs, tests, n = Counter(), set(), ask.draws(120, 400)
    for seed in seeds(rng, n):
        split = in_dict(ask("split_classes", labels, sizes, seed), sizes, "the split")
        for part, size in sizes.items():
            there = len(listed(split[part], f"split[{part!r}]"))
            q.require(there == size, f"{part}: expected {size} classes, got {there}")
        drawn = [c for part in sizes for c in split[part]]
        q.require(len(set(drawn)) == 9, f"a class is in two parts: {sorted(drawn)}")
        q.require(set(drawn) <= set(classes), "a name that is no class")
        counts.update(split["test"])
        tests.add(frozenset(split["test"]))
        pairs.update(frozenset(pair) for pair in combinations(split["test"], 2))
    again = ask("split_classes", labels, sizes, seed)
    q.require(again == split, "the same seed gave another split")
    for c in classes:
        fair = q.interval(counts[c], n, 3 / 9)
        q.require(fair, f"a class was in the test part {counts[c]} of {n} times")
    told = f"{n} seeds gave only {len(tests)} different test parts, of 84 possible"
    q.require(len(tests) > 30, told)
    for pair in combinations(classes, 2):
        there = pairs[frozenset(pair)]
        told = f"two classes were in the test part together {there} of {n} times, "
        told += f"expected are about {n / 12:.0f}: draw them independently"
        q.require(q.interval(there, n, 3 / 9 * 2 / 8), told)
    ask.refuses("split_classes", labels, {"train": 5, "test": 5}, 0)


@q.question("clean_rows", 2, "2. Clean the pool", "Question 2 and its hint")
def clean_rows(ask, rng):
    for _ in range(ask.draws(3, 8)):
        texts, labels = pool(rng, 6, 6, copies=9, contradictions=5)
        ask.same("clean_rows", texts, labels, rtol=0, atol=0)


@q.question("sample_episode", 3, "3. An episode", "Question 3 and its hints")
def sample_episode(ask, rng):
    classes, n = names(rng, 6), ask.draws(300, 900)
    labels = rng.permutation([c for c in classes for _ in range(7)]).tolist()
    first, any_place, rows_seen, queried = (Counter() for _ in range(4))
    orders, supports, alike = set(), {c: set() for c in classes[:5]}, 0
    places = {c: [i for i, x in enumerate(labels) if x == c] for c in classes}
    for seed in seeds(rng, n):
        e = ask("sample_episode", labels, classes[:5], 3, 2, 3, seed)
        _episode(e, labels, set(classes[:5]), 3, 2, 3)
        first[e["classes"][0]] += 1
        any_place.update(e["classes"])
        support = q.numbers(e["support"], whole=True).tolist()
        query = q.numbers(e["query"], whole=True)
        rows_seen.update(r for rows in support for r in rows)
        queried.update(query.ravel().tolist())
        orders.add(tuple(e["classes"]))
        at = [frozenset(map(places[c].index, r)) for c, r in zip(e["classes"], support)]
        for c, drawn in zip(e["classes"], at):
            supports[c].add(drawn)
        alike += at[0] == at[1]
    for c in classes[:5]:
        told = f"of {n} episodes, a class has label 0 in {first[c]}, and is in "
        told += f"{any_place[c]}; expected are about {n / 5:.0f} and {3 * n / 5:.0f}"
        q.require(q.interval(first[c], n, 1 / 5), told)
        q.require(q.interval(any_place[c], n, 3 / 5), told)
    for row, label in enumerate(labels):
        if label in classes[:5]:
            fair = q.interval(rows_seen[row], n, 3 / 5 * 2 / 7)
            told = f"a row was in the support set of {rows_seen[row]} of {n} episodes"
            q.require(fair, f"{told}, expected are about {n * 6 / 35:.0f}")
            fair = q.interval(queried[row], n, 3 / 5 * 3 / 7)
            told = f"a row was in the query set of {queried[row]} of {n} episodes"
            q.require(fair, f"{told}, expected are about {n * 9 / 35:.0f}")
    told = f"{n} episodes have only {len(orders)} different orders of classes, of 60"
    q.require(len(orders) > 30, told)
    for drawn in supports.values():
        told = f"a class has only {len(drawn)} different support sets in {n} episodes, "
        q.require(len(drawn) > 14, told + "of 21 possible: draw rows independently")
    told = (
        f"in {alike} of {n} episodes two classes have their rows at the same places, "
    )
    told += f"expected are about {n / 21:.0f}: draw rows anew for each class"
    q.require(q.interval(alike, n, 1 / 21), told)
    again = ask("sample_episode", labels, classes[:5], 3, 2, 3, seed)
    _episode(again, labels, set(classes[:5]), 3, 2, 3)
    same = np.array_equal(again["support"], e["support"])
    q.require(same and again["classes"] == e["classes"], "the same seed, another draw")
    ask.refuses("sample_episode", labels, classes[:2], 3, 2, 3, 0)
    ask.refuses("sample_episode", labels, classes, 3, 4, 4, 0)


def _episode(e, labels, allowed, n_way, k_shot, n_query):
    "Wrong unless `e` is an episode of this form, without a row or a class twice."
    in_dict(e, ("classes", "support", "query"), "an episode")
    classes = listed(e["classes"], "classes")
    different = len(set(classes)) == len(classes) == n_way
    q.require(different, f"expected {n_way} different classes, got {q.short(classes)}")
    q.require(set(classes) <= allowed, "a class that was not to be drawn from")
    support = q.numbers(e["support"], "support", (n_way, k_shot), whole=True)
    query = q.numbers(e["query"], "query", (n_way, n_query), whole=True)
    rows = np.concatenate([support, query], 1)
    inside = (rows >= 0).all() and (rows < len(labels)).all()
    q.require(inside, "a row number that the pool does not have")
    twice = len(set(rows.ravel().tolist())) < rows.size
    q.require(not twice, "a row is drawn twice")
    for y, name in enumerate(classes):
        fits = {labels[r] for r in rows[y]} == {name}
        q.require(fits, f"line {y} holds rows of another class")


@q.question("shared_classes", 1, "4a. Shared classes", "Question 4a")
def shared_classes(ask, rng):
    for _ in range(ask.draws(4, 12)):
        there = names(rng, 10)
        draw = lambda: [{"classes": rng.choice(there, 3, False).tolist()} for _ in "ab"]
        ask.same("shared_classes", draw(), draw())
    apart = [[{"classes": there[:3]}], [{"classes": there[3:6]}]]
    ask.same("shared_classes", *apart)


def mixed(rng, n_rows):
    "An episode that may have rows on both sides."
    rows = lambda k: rng.choice(n_rows, (3, k), replace=False)
    return {"classes": names(rng, 3), "support": rows(2), "query": rows(4)}


@q.question("shared_rows", 1, "4b. Shared rows", "Question 4b")
def shared_rows(ask, rng):
    for n_rows in (20, 24, 40, 400, *[30] * ask.draws(1, 8)):
        ask.same("shared_rows", mixed(rng, n_rows), rtol=0, atol=0)


@q.question("shared_texts", 1, "4c. Shared texts", "Question 4c")
def shared_texts(ask, rng):
    for _ in range(ask.draws(4, 12)):
        texts, _ = pool(rng, 5, 4, copies=18)
        ask.same("shared_texts", mixed(rng, len(texts)), texts, rtol=0, atol=0)


@q.question("order_chance", 2, "4d. The order of the labels", "Question 4d")
def order_chance(ask, rng):
    for n_way in (2, 3, 5, *rng.integers(2, 6, size=ask.draws(2, 8)).tolist()):
        episodes = []
        for _ in range(int(rng.integers(2, 30))):
            classes = names(rng, n_way)
            if rng.random() < rng.choice([0.1, 0.5, 1.0]):
                classes.sort()
            episodes.append({"classes": classes})
        want = ask.reference("order_chance", episodes)
        got = float(q.numbers(ask("order_chance", episodes), "the chance", ()))
        close = got > 0 and abs(math.log(got) - math.log(want)) < 1e-3
        q.require(close, f"order_chance(...): expected {want:.4g}, got {got:.4g}")


@q.question("fair_episodes", 3, "5. The repair", "Question 5, its hint, and 4", PARTS)
def fair_episodes(ask, rng):
    orders = []
    for seed in seeds(rng, ask.draws(6, 20)):
        texts, labels = pool(rng, 9, 8, copies=25, contradictions=4)
        args = (texts, labels, 3, 2, 3, 12, seed)
        parts = in_dict(ask("fair_episodes", *args), ("train", "test"), "the answer")
        seen = {}
        for part in ("train", "test"):
            there = len(listed(parts[part], part))
            q.require(there == 12, f"{part}: expected 12 episodes, got {there}")
            for e in parts[part]:
                _episode(e, labels, set(labels), 3, 2, 3)
                orders.append(e["classes"] == sorted(e["classes"]))
            seen[part] = {c for e in parts[part] for c in e["classes"]}
            both = ("support", "query")
            rows = {int(r) for e in parts[part] for k in both for r in np.ravel(e[k])}
            told = Counter(words(texts[r]) for r in rows)
            twice = [t for t, n in told.items() if n > 1]
            q.require(not twice, f"a text and its copy are both used: {twice[:2]}")
            every = {}
            for t, label in zip(texts, labels):
                every.setdefault(words(t), set()).add(label)
            torn = [t for t in told if len(every[t]) > 1]
            q.require(not torn, f"a text with two labels is used: {torn[:2]}")
        both = seen["train"] & seen["test"]
        q.require(not both, f"classes of training are in test: {sorted(both)[:3]}")
        different = len({str(e["classes"]) for e in parts["test"]})
        q.require(different > 3, "the test episodes are all alike")
        fewest = min(len(seen["train"]), len(seen["test"]))
        q.require(fewest >= 4, "each half of the classes should serve one part")
    told = f"{sum(orders)} of {len(orders)} episodes have their classes in order"
    q.require(q.interval(sum(orders), len(orders), 1 / 6), told)
    again = in_dict(ask("fair_episodes", *args), ("train", "test"), "the answer")
    q.require(len(listed(again["test"], "test")) == 12, "the same seed, another number")
    for e in again["test"]:
        _episode(e, labels, set(labels), 3, 2, 3)
    same = [e["classes"] for e in again["test"]] == [
        e["classes"] for e in parts["test"]
    ]
    q.require(same, "the same seed gave other episodes")
    ask.refuses("fair_episodes", texts, labels, 6, 2, 3, 2, 0)
