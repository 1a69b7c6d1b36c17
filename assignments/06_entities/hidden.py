"Hidden tests of assignment 6, on tags, scores and pools drawn for every grading."

from collections import Counter

import numpy as np
from grading import questions as q

PRELOAD = ("numpy",)
NAMES = "per", "loc", "film", "work-of-art", "org", "I-beam", "song", "team"
TAGS = ("faults", "repair", "mentions")
LADDER = "no_skipping", "each_word_once", "without_outside", "with_letters"


def kinds(rng, n):
    return rng.permutation(NAMES)[:n].tolist()


def any_tags(rng, n, types):
    "Tags of which many continue nothing."
    letters = [f"{a}-{t}" for a in "BIII" for t in types]
    return rng.choice([*letters, *["O"] * len(types)], size=n).tolist()


def valid_tags(rng, n, types):
    tags = ["O"] * n
    i = int(rng.integers(3))
    while i < n:
        size, kind = int(rng.integers(1, 4)), str(rng.choice(types))
        tags[i : i + size] = (["B-" + kind] + ["I-" + kind] * (size - 1))[: n - i]
        i += size + int(rng.choice([0, 1, 2, 4]))
    return tags


def pieces(rng, n_words):
    "Numbers of words as a tokenizer gives them; some words are dropped, or cut off."
    ids = [None]
    for word in range(n_words):
        ids += [word] * int(rng.choice([0, 1, 1, 2, 4]))
    ids = ids[: len(ids) - int(rng.integers(0, 4))]
    return [*ids, *[None] * int(rng.integers(1, 5))]


@q.question("piece_labels", 2, "1a. Labels of pieces", "Question 1a and the hint")
def piece_labels(ask, rng):
    for _ in range(ask.draws(5, 12)):
        n = int(rng.integers(4, 12))
        ask.same("piece_labels", pieces(rng, n), valid_tags(rng, n, kinds(rng, 3)))
    ask.refuses("piece_labels", [None, 0, 1, 2, None], ["O", "O"])


@q.question("word_scores", 2, "1b. Scores of words", "Question 1b and the hint")
def word_scores(ask, rng):
    for _ in range(ask.draws(5, 12)):
        n, n_labels = int(rng.integers(4, 12)), int(rng.integers(3, 8))
        ids = pieces(rng, n)
        scores, outside = rng.normal(size=(len(ids), n_labels)), rng.integers(n_labels)
        got = q.numbers(ask("word_scores", scores, ids, n, int(outside)))
        want = ask.reference("word_scores", scores, ids, n, int(outside))
        q.compare(np.maximum(got, -50), np.maximum(want, -50), 0, 1e-4, "the scores")
        q.compare(got, want, 1e-6, 0, "the scores")


@q.question("faults", 1, "2a. Tags that continue nothing", "Question 2a, and Tags")
def faults(ask, rng):
    for n in (0, 1, *rng.integers(2, 20, size=ask.draws(5, 12)).tolist()):
        ask.same("faults", any_tags(rng, n, kinds(rng, 2)))


@q.question("repair", 2, "2b. Repair", "Question 2b", ("faults",))
def repair(ask, rng):
    for n in (0, 1, *rng.integers(2, 20, size=ask.draws(5, 12)).tolist()):
        ask.same("repair", any_tags(rng, n, kinds(rng, 2)))


@q.question("mentions", 2, "2c. Mentions", "Question 2c", ("faults",))
def mentions(ask, rng):
    for n in (0, 1, *rng.integers(2, 25, size=ask.draws(5, 12)).tolist()):
        got = ask("mentions", tags := valid_tags(rng, n, kinds(rng, 2)))
        q.require(isinstance(got, list), "expected a list of mentions")
        got = [m.tolist() if isinstance(m, np.ndarray) else m for m in got]
        q.compare(got, ask.reference("mentions", tags), 0, 0, "mentions(...)")
    ask.refuses("mentions", ["O", "I-per"])
    ask.refuses("mentions", ["B-loc", "I-loc", "I-per"])


@q.question("viterbi", 6, "3. The best valid sequence", "Question 3, Eq. (A6-1)")
def viterbi(ask, rng):
    sizes = [(1, 1), (2, 1), (6, 2), *[(12, 3)] * ask.draws(6, 15), (400, 10)]
    for n, n_types in sizes:
        types = kinds(rng, min(n_types, 8)) + [f"t{i}" for i in range(n_types - 8)]
        labels = ["O", *[f"{a}-{t}" for t in types for a in "BI"]]
        scores = rng.normal(size=(n, len(labels)))
        scores[:, [a[:2] == "I-" for a in labels]] += 1.0  # many would not be valid
        order = rng.permutation(len(labels))
        ask.same("viterbi", scores[:, order], [labels[i] for i in order])
    ask.refuses("viterbi", scores[:, :-1], labels)
    scores[n // 2, 3] = np.nan
    ask.refuses("viterbi", scores, labels)


def answers(rng, n_sentences, types):
    "True tags, and predicted ones that need not be valid."
    true, predicted = [], []
    for _ in range(n_sentences):
        n = int(rng.integers(3, 16))
        gold, other = valid_tags(rng, n, types), any_tags(rng, n, types)
        keep = rng.random(n) < rng.choice([0.5, 0.8, 1.0])
        true.append(gold)
        predicted.append([a if k else b for a, b, k in zip(gold, other, keep)])
        if rng.random() < 0.25:
            predicted[-1] = ["O"] * n
    return true, predicted


@q.question("entity_f1", 4, "4. The F1 of mentions", "Question 4, Eq. (A6-2)", TAGS)
def entity_f1(ask, rng):
    for n in (2, 9, *rng.integers(3, 20, size=ask.draws(3, 8)).tolist()):
        true, predicted = answers(rng, n, kinds(rng, 2))
        ask.same("entity_f1", true, predicted)
    silent = [["O"] * len(t) for t in true]
    for pair in ((true, silent), (silent, true), (silent, silent), ([], [])):
        ask.same("entity_f1", *pair)
    ask.refuses("entity_f1", [["I-per"], *true], [["O"], *predicted])
    ask.refuses("entity_f1", true, predicted[:-1])
    ask.refuses("entity_f1", true, [*predicted[:-1], [*predicted[-1], "O"]])


def rung(name, number, silence):
    def test(ask, rng):
        for n in rng.integers(3, 15, size=ask.draws(4, 10)).tolist():
            ask.same(name, *answers(rng, n, kinds(rng, 2)))
        true, _ = answers(rng, 4, kinds(rng, 2))
        if silence:
            true = [["O"] * len(t) for t in true]
        ask.same(name, true, [["O"] * len(t) for t in true])

    return q.question(name, 1, f"{number}. {name}", f"Question {number}")(test)


no_skipping = rung("no_skipping", "5a", False)
each_word_once = rung("each_word_once", "5b", False)
without_outside = rung("without_outside", "5c", True)
with_letters = rung("with_letters", "5d", True)


@q.question(
    "which_scorer",
    3,
    "6. Which scorer was it?",
    "Question 6",
    ("entity_f1", *LADDER),
)
def which_scorer(ask, rng):
    names = ["their_score", *LADDER, "entity_f1"]
    for name in rng.permutation(names * ask.draws(2, 4)).tolist():
        while True:  # until the six differ
            pair = answers(rng, 30, kinds(rng, 3))
            value = {n: ask.reference(n, *pair) for n in names[:-1]}
            value["entity_f1"] = 100 * ask.reference("entity_f1", *pair)["f1"]
            if np.diff(sorted(value.values())).min() > 0.25:
                break
        got = ask("which_scorer", *pair, round(value[name], 1))
        q.require(got == name, f"expected {name!r}, got {q.short(got)}")


@q.question("mask", 1, "8a. Mask", "Question 8a")
def mask(ask, rng):
    for _ in range(ask.draws(4, 10)):
        types = kinds(rng, 4)
        ask.same("mask", valid_tags(rng, 15, types), types[: int(rng.integers(1, 4))])


@q.question("greedy_rows", 3, "8b. A greedy pass", "Question 8b")
def greedy_rows(ask, rng):
    for _ in range(ask.draws(12, 30)):
        types, k = kinds(rng, int(rng.integers(1, 4))), int(rng.integers(1, 4))
        n, few = int(rng.integers(5, 40)), [0, 0, 0, 1, 1, 2, 3]
        counts = [{t: int(rng.choice(few)) for t in types} for _ in range(n)]
        order = rng.permutation(n)[: int(rng.integers(n // 2, n)) + 1]
        ask.same("greedy_rows", counts, k, order.tolist(), rtol=0, atol=0)
    ask.same("greedy_rows", [{"per": 0}], 1, [0])
    ask.same("greedy_rows", [{"per": 3}, {"per": 1}], 1, [0, 1])


def _passes(rows, tags, types, k):
    "Wrong unless a greedy pass takes just these rows in this order."
    have = Counter()
    for i in rows:
        full = types and all(have[t] >= k for t in types)
        q.require(not full, f"row {i} was taken after every type was complete")
        brings = Counter(t[2:] for t in tags[i] if t[:2] == "B-" and t[2:] in types)
        short = any(have[t] < k for t in brings)
        q.require(short, f"row {i} was taken, and brings nothing that was missing")
        have += brings
        most = max(have.values())
        q.require(most <= 2 * k, f"{most} mentions of a type, allowed are {2 * k}")
    fewest = min(have[t] for t in types)
    q.require(fewest >= k, f"{fewest} mentions of a type, wanted are {k}")


@q.question("sample_episode", 4, "8c. Episodes", "Question 8c", ("mask", "greedy_rows"))
def sample_episode(ask, rng):
    types = kinds(rng, 5)
    pool = [valid_tags(rng, int(rng.integers(4, 9)), types) for _ in range(70)]
    pool += [["O"] * 5] * 3
    n, drawn, first, others = ask.draws(25, 60), [], Counter(), 0
    for seed in rng.choice(2**31, size=n, replace=False).tolist():
        wanted = [str(t) for t in rng.permutation(types)[: int(rng.integers(2, 4))]]
        k, k_query = (int(v) for v in rng.integers(1, 4, size=2))
        args = (pool, wanted, k, k_query, seed)
        e = ask("sample_episode", *args)
        keys = {"support", "query", "support_tags", "query_tags"}
        q.require(isinstance(e, dict) and keys <= set(e), f"expected {sorted(keys)}")
        rows = {}
        for part, number in (("support", k), ("query", k_query)):
            told = q.numbers(e[part], part, (None,), whole=True).tolist()
            inside = all(0 <= i < len(pool) for i in told)
            q.require(inside, "a row that the pool does not have")
            q.require(len(set(told)) == len(told), f"a row is twice in {part}")
            _passes(told, pool, wanted, number)
            want = [[t if t[2:] in wanted else "O" for t in pool[i]] for i in told]
            q.compare(e[part + "_tags"], want, 0, 0, part + "_tags")
            rows[part] = told
        both = set(rows["support"]) & set(rows["query"])
        q.require(not both, f"rows {sorted(both)} are in support and query")
        first[rows["support"][0]] += 1
        drawn.append(rows["support"] + rows["query"])
        named = {t[2:] for i in drawn[-1] for t in pool[i] if t != "O"}
        others += bool(named - set(wanted))
    told = "sentences that hold other types too were left out"
    q.require(others > n / 3, told)
    most = max(first.values())
    told = f"{most} of {n} support sets begin with one row: is the order random?"
    q.require(most <= n / 3, told)
    again = ask("sample_episode", *args)
    same = [*again["support"], *again["query"]] == drawn[-1]
    q.require(same, "the same seed gave another episode")
    ask.refuses("sample_episode", pool, ["river"], 1, 1, 0)
    ask.refuses("sample_episode", pool[:3], [types[0]], 9, 9, 0)
