"""Sampling as properties: whatever the pool, episodes are fair, disjoint, repeatable
and uniform.
"""

import itertools
import math
import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metalearn_book.foundations import tasks as T
from metalearn_book.foundations.tasks import (
    ClassTasks,
    Examples,
    SinusoidTasks,
    TaskBatch,
    check_episode,
    check_split,
    count_episodes,
    hashed_ngrams,
    hashed_words,
    near_duplicates,
    take,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def requests(draw):
    """A pool with classes of different size, in shuffled order, and a request that it
    can serve.
    """
    n_way, lo, extra, n_query = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 2)),
        draw(st.integers(1, 4)),
    )
    k_shot = lo if extra == 0 else (lo, lo + extra)
    sizes = draw(
        st.lists(st.integers(lo + extra + n_query, 60), min_size=n_way, max_size=8)
    )
    labels = [f"c{c}" for c, m in enumerate(sizes) for _ in range(m)]
    order = torch.randperm(
        len(labels), generator=seeded(draw(st.integers(0, 99)))
    ).tolist()
    labels = [labels[i] for i in order]
    return (
        ClassTasks(torch.arange(len(labels)), labels, n_way, k_shot, n_query),
        draw(st.integers(0, 2**31)),
        draw(st.integers(1, 7)),
    )


@settings(max_examples=60, deadline=None)
@given(requests())
def test_every_episode_is_what_was_asked_for(request):
    tasks, seed, n_tasks = request
    n, (lo, hi), q = tasks.n_way, tasks.shots, tasks.n_query
    batch = tasks.sample(n_tasks, seeded(seed))
    assert (
        len(batch) == n_tasks
        and batch.support.y.shape == (n_tasks, n * hi)
        and batch.query.y.shape == (n_tasks, n * q)
    )
    assert torch.equal(batch.support.x, batch.info["support_items"]) and torch.equal(
        batch.query.x, batch.info["query_items"]
    )
    for b in range(n_tasks):
        real = (
            torch.ones(n * hi, dtype=torch.bool)
            if batch.support.mask is None
            else batch.support.mask[b]
        )
        rows, queries = batch.support.x[b][real].tolist(), batch.query.x[b].tolist()
        names = tasks.names(batch)[b]
        assert len(set(names)) == n  # no class twice
        assert (
            len(set(rows)) == len(rows) and len(set(queries)) == n * q
        )  # no item twice
        assert not set(rows) & set(queries)  # support and query are disjoint
        shots = Counter(batch.support.y[b][real].tolist())
        assert (
            set(shots) == set(range(n))
            and len(set(shots.values())) == 1
            and lo <= shots[0] <= hi
        )
        assert Counter(batch.query.y[b].tolist()) == {y: q for y in range(n)}
        for row, y in [
            *zip(rows, batch.support.y[b][real].tolist()),
            *zip(queries, batch.query.y[b].tolist()),
        ]:
            assert tasks.labels[row] == names[y]  # the label names the class
        for row, y in zip(
            batch.support.x[b][~real].tolist(), batch.support.y[b][~real].tolist()
        ):
            assert (
                row in rows and tasks.labels[row] == names[y]
            )  # padding is valid and shows no query item
    if n > 1:
        check_episode(batch[:2], labels=tasks.labels)


@settings(max_examples=25, deadline=None)
@given(requests())
def test_same_seed_same_episodes_and_another_seed_others(request):
    tasks, seed, _ = request
    one, two, other = (tasks.sample(6, seeded(s)) for s in (seed, seed, seed + 1))
    assert (
        torch.equal(one.support.x, two.support.x)
        and torch.equal(one.query.x, two.query.x)
        and torch.equal(one.support.y, two.support.y)
    )
    if (
        count_episodes(tasks.sizes.tolist(), tasks.n_way, tasks.shots[0], tasks.n_query)
        > 1000
    ):
        assert not (
            torch.equal(one.support.x, other.support.x)
            and torch.equal(one.query.x, other.query.x)
        )


def chi_square(counts, expected):
    return sum((n - expected) ** 2 / expected for n in counts)


@pytest.mark.parametrize(
    "sizes,n",
    [((3, 7, 5), 3), ((50, 60), 4), ((9,), 3), ((4,), 2)],
    ids=["keys", "reject", "reject, smallest", "reject, n=2"],
)
def test_draws_are_uniform(sizes, n):
    """Every number in every place equally often, and neighbouring places independent:
    chi-square at four standard deviations, fixed seed.
    """
    repeats = 30_000
    drawn = T._draw_distinct(torch.tensor(sizes).expand(repeats, -1), n, seeded(7))
    assert drawn.shape == (repeats, len(sizes), n) and not T._repeated(drawn).any()
    for j, m in enumerate(sizes):
        assert drawn[:, j].min() == 0 and drawn[:, j].max() == m - 1
        for place in range(n):
            counts = torch.bincount(drawn[:, j, place], minlength=m).tolist()
            assert chi_square(counts, repeats / m) < (m - 1) + 4 * math.sqrt(
                2 * (m - 1)
            )
        pairs = Counter(zip(drawn[:, j, 0].tolist(), drawn[:, j, 1].tolist()))
        cells = m * (m - 1)
        counts = [pairs[p] for p in itertools.permutations(range(m), 2)]
        assert chi_square(counts, repeats / cells) < cells - 1 + 4 * math.sqrt(
            2 * (cells - 1)
        )


def test_the_chi_square_would_notice_a_bias():
    drawn = torch.cat(
        [
            T._draw_distinct(torch.full((27_000,), 9), 3, seeded(7)),
            torch.tensor([[0, 1, 2]]).expand(1000, 3),
        ]
    )
    counts = torch.bincount(drawn[:, 0], minlength=9).tolist()
    assert chi_square(counts, len(drawn) / 9) > 8 + 4 * math.sqrt(16)


@pytest.mark.parametrize("sizes", [(3, 4, 5), (20, 30, 40)], ids=["keys", "reject"])
def test_classes_and_items_are_marginally_uniform_in_episodes(sizes):
    labels = [c for c, m in enumerate(sizes) for _ in range(m)]
    tasks = ClassTasks(torch.arange(len(labels)), labels, n_way=2, k_shot=1, n_query=2)
    batch = tasks.sample(12_000, seeded(3))
    for place in range(2):
        counts = torch.bincount(batch.info["classes"][:, place], minlength=3).tolist()
        assert chi_square(counts, 4000) < 2 + 4 * 2
    for rows in (
        batch.support.x,
        batch.query.x[:, ::2],
    ):  # one row for each class of an episode
        counts = torch.bincount(rows.flatten(), minlength=len(labels)).tolist()
        for c, m in enumerate(sizes):
            mine = [counts[i] for i in range(len(labels)) if labels[i] == c]
            assert chi_square(mine, sum(mine) / m) < (m - 1) + 4 * math.sqrt(
                2 * (m - 1)
            )


def test_shots_of_a_range_are_uniform():
    tasks = ClassTasks(
        torch.arange(40), [0] * 20 + [1] * 20, n_way=2, k_shot=(1, 4), n_query=2
    )
    shots = tasks.sample(8000, seeded(5)).support.mask.sum(1) // 2
    assert chi_square(
        torch.bincount(shots, minlength=5)[1:].tolist(), 2000
    ) < 3 + 4 * math.sqrt(6)


# ----------------------------------------------------------------------------- counting


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_count_episodes_against_enumeration(sizes, n_way, k, q):
    def episodes_of(m):
        return [
            (s, r)
            for s in itertools.combinations(range(m), k)
            for r in itertools.combinations([i for i in range(m) if i not in s], q)
        ]

    enumerated = sum(
        math.prod(len(episodes_of(sizes[c])) for c in chosen)
        for chosen in itertools.permutations(range(len(sizes)), n_way)
    )
    assert count_episodes(sizes, n_way, k, q) == enumerated


# --------------------------------------------------------------------------- containers


def test_dict_inputs_and_devices():
    pool = hashed_words(
        [
            "move ten to savings",
            "hello",
            "book a flight",
            "good bye",
            "pay rent",
            "stop it",
        ]
    )
    tasks = ClassTasks(
        pool, ["a", "a", "b", "b", "c", "c"], n_way=2, k_shot=1, n_query=1
    )
    batch = tasks.sample(3, seeded())
    assert (
        batch.support.x["input_ids"].shape
        == batch.support.x["attention_mask"].shape
        == (3, 2, 4)
    )
    assert torch.equal(
        batch[1].query.x["input_ids"][0],
        take(pool, batch.info["query_items"][1])["input_ids"],
    )
    assert torch.equal(batch[1:].query.y, batch.query.y[1:])
    moved = batch.to("meta")
    assert (
        moved.support.x["input_ids"].is_meta
        and moved.query.y.is_meta
        and moved.info["classes"].device.type == "cpu"
    )
    doubled = batch.support.map(lambda t: t.repeat(2, 1, *[1] * (t.dim() - 2)))
    assert doubled.n_tasks == 6 and doubled.n_items == 2


def test_a_batch_that_fills_the_memory_says_so():
    "80 examples of 4 + 16 bytes are a gigabyte at 625,000 tasks."
    pool = ClassTasks(torch.zeros(200, 1), list(range(5)) * 40, n_way=5, k_shot=1)
    with pytest.warns(UserWarning, match=r"n_tasks=625,000 is one batch of 1.0 GB"):
        T._warn_of_size(625_000, 80 * 20)
    stopped = pytest.raises(RuntimeError, match="before anything is drawn")

    def stop(*args):
        raise RuntimeError("before anything is drawn")

    pool.draw_classes = stop
    with stopped, pytest.warns(UserWarning, match=r"n_tasks=1,000,000 .* 1.6 GB"):
        pool.sample(10**6, seeded())
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="before any"):
        warnings.simplefilter("error")
        pool.sample(600_000, seeded())
    sines = SinusoidTasks()
    sines.amplitude = None
    with pytest.raises(TypeError), pytest.warns(UserWarning, match=r"1.1 GB"):
        sines.sample(7_000_000, seeded())


@pytest.mark.parametrize(
    "make,message",
    [
        (
            lambda: Examples(torch.zeros(3), torch.zeros(3)),
            r"y must have leading dims \(tasks, examples\), got shape \(3,\)",
        ),
        (
            lambda: Examples(torch.zeros(2, 3, 1), torch.zeros(2, 4)),
            r"x has leading dims \(2, 3\) but y has \(2, 4\)",
        ),
        (
            lambda: Examples(
                {"a": torch.zeros(2, 3), "b": torch.zeros(2, 2)}, torch.zeros(2, 3)
            ),
            r"x has leading dims \(2, 2\)",
        ),
        (lambda: Examples({}, torch.zeros(2, 3)), "empty dict"),
        (
            lambda: Examples(
                torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool)
            ),
            r"mask has shape \(2, 2\), expected \(2, 3\)",
        ),
        (
            lambda: Examples(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)),
            "mask must be boolean",
        ),
        (
            lambda: TaskBatch(
                Examples(torch.zeros(2, 3), torch.zeros(2, 3)),
                Examples(torch.zeros(1, 3), torch.zeros(1, 3)),
            ),
            "support holds 2 tasks, query 1",
        ),
        (lambda: SinusoidTasks(n_query=0), "at least 1"),
        (lambda: SinusoidTasks(amplitude=(2, 1)), "amplitude must be"),
        (
            lambda: ClassTasks(torch.zeros(3), [0, 1]),
            "x has 3 rows but there are 2 labels",
        ),
        (lambda: ClassTasks(torch.zeros(0), []), "pool is empty"),
        (
            lambda: ClassTasks(torch.zeros(4), [0, 0, 1, 1], n_way=3, n_query=1),
            "n_way=3 asks for more classes than the 2 there are",
        ),
        (
            lambda: ClassTasks(torch.zeros(4), [0, 0, 1, 1], n_way=2, n_query=2),
            "class 0 has 2 items, but k_shot \\+ n_query = 3.*2 of 2 classes",
        ),
        (
            lambda: ClassTasks(
                torch.zeros(4), [0, 0, 1, 1], n_way=2, n_query=1, classes=[0, 5]
            ),
            r"classes without any item: \[5\]",
        ),
        (
            lambda: ClassTasks(
                torch.zeros(4), [0, 0, 1, 1], n_way=2, n_query=1, classes=[0, 0]
            ),
            "repeated names",
        ),
        (
            lambda: ClassTasks(
                torch.zeros(4), [0, 0, 1, 1], n_way=2, n_query=1, classes=[]
            ),
            "classes is empty",
        ),
        (
            lambda: ClassTasks(torch.zeros(4), [0, 0, 1, 1], n_way=0, n_query=1),
            "at least 1",
        ),
        (
            lambda: ClassTasks(
                torch.zeros(4), [0, 0, 1, 1], n_way=2, k_shot=0, n_query=1
            ),
            "at least 1",
        ),
        (lambda: hashed_ngrams("one string"), "texts must be a list"),
        (lambda: hashed_ngrams(["a"], dim=0), "at least 1"),
        (lambda: hashed_words(["a", "  "]), "text 1 has no word"),
        (
            lambda: check_split({"train": ["a"], "test": []}),
            "part 'test' of the split has no class",
        ),
    ],
)
def test_wrong_requests_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------- checks


@pytest.fixture
def honest():
    tasks = ClassTasks(
        torch.arange(60), [i // 10 for i in range(60)], n_way=3, k_shot=2, n_query=3
    )
    return tasks, tasks.sample(50, seeded())


def changed(batch, **info):
    return TaskBatch(batch.support, batch.query, {**batch.info, **info})


def test_checks_pass_an_honest_batch_and_catch_each_leak_in_any_episode(honest):
    tasks, batch = honest
    texts = [f"text number {i}" for i in range(60)]
    check_episode(batch, labels=tasks.labels, texts=texts)
    s, q, c = (
        batch.info[k].clone() for k in ("support_items", "query_items", "classes")
    )
    c[41, 2] = c[41, 0]
    with pytest.raises(ValueError, match="episode 41: a class is drawn twice"):
        check_episode(changed(batch, classes=c))
    q[49, 8] = s[49, 5]
    with pytest.raises(
        ValueError,
        match=f"episode 49: items \\[{int(s[49, 5])}\\] are in support and in query",
    ):
        check_episode(changed(batch, query_items=q))
    s[7, 1] = s[7, 0]
    with pytest.raises(ValueError, match="episode 7: an item is drawn twice"):
        check_episode(changed(batch, support_items=s))
    wrong = list(tasks.labels)
    row = int(batch.info["query_items"][3, 0])
    wrong[row] = (wrong[row] + 1) % 6
    with pytest.raises(ValueError, match="a label stands for several classes"):
        check_episode(batch, labels=wrong)
    a, b = int(batch.info["support_items"][0, 0]), int(batch.info["query_items"][0, 0])
    texts[a], texts[b] = "Pay the rent!", "pay  the rent"
    with pytest.raises(
        ValueError, match="is in support and in query under different row numbers"
    ):
        check_episode(batch, texts=texts)
    with pytest.raises(ValueError, match=r"lacks \['classes'"):
        check_episode(changed(SinusoidTasks().sample(2, seeded())))


def test_sorted_labels_are_noticed_only_when_it_is_no_chance(honest):
    tasks, _ = honest
    classes = tasks.draw_classes(50, 3, seeded()).sort(1).values
    items = tasks.draw_items(classes, 5, seeded())
    batch = tasks.batch(classes, items[..., :2], items[..., 2:])
    check_episode(batch[:5])  # (1/6)^5 is not yet one in a million
    with pytest.raises(ValueError, match="ascending order"):
        check_episode(batch)


def test_padding_is_no_repetition():
    tasks = ClassTasks(
        torch.arange(60),
        [i // 10 for i in range(60)],
        n_way=3,
        k_shot=(1, 5),
        n_query=3,
    )
    batch = tasks.sample(100, seeded())
    assert batch.support.mask.sum() < batch.support.mask.numel()
    check_episode(batch, labels=tasks.labels)
    unmasked = TaskBatch(
        Examples(batch.support.x, batch.support.y), batch.query, batch.info
    )
    with pytest.raises(ValueError, match="an item is drawn twice"):
        check_episode(unmasked)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("a b c d e f".split()), min_size=1, max_size=5),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_near_duplicates_against_sets(words, threshold):
    texts = [" ".join(w) for w in words]
    found = {(i, j) for i, j, _ in near_duplicates(texts, threshold=threshold)}
    sets = [set(w) for w in words]
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9
    }
    margin = {
        (i, j)
        for i, j in expected
        if abs(len(sets[i] & sets[j]) / len(sets[i] | sets[j]) - threshold) < 1e-6
    }
    assert expected - margin <= found <= expected


# --------------------------------------------------------------- features and sinusoids


def test_hashing_by_value():
    x = hashed_ngrams(["Pay, pay the rent", ""], dim=64, normalize=False)
    import zlib

    expected = torch.zeros(64)
    for word in ("pay", ",", "pay", "the", "rent"):
        expected[zlib.crc32(word.encode()) % 64] += 1
    assert torch.equal(x[0], expected) and x[1].sum() == 0
    assert torch.allclose(hashed_ngrams(["a b", "c"], 64).norm(dim=1), torch.ones(2))
    assert hashed_ngrams(["a b c"], 999, 3, normalize=False).sum() == 6
    ids = hashed_words(["a b", "a"], n_ids=50, max_length=1)["input_ids"]
    assert ids.shape == (2, 1) and ids[0] == ids[1] == 1 + zlib.crc32(b"a") % 49


def test_sinusoids_by_value():
    batch = SinusoidTasks(k_shot=3, n_query=4).sample(2000, seeded())
    a, p = batch.info["amplitude"], batch.info["phase"]
    assert (
        a.min() >= 0.1
        and a.max() <= 5
        and p.min() >= 0
        and p.max() <= math.pi
        and batch.query.x.abs().max() <= 5
    )
    for part in (batch.support, batch.query):
        assert torch.allclose(
            part.y[..., 0],
            a[:, None] * torch.sin(part.x[..., 0] - p[:, None]),
            atol=1e-6,
        )
    assert abs(a.mean() - 2.55) < 0.1 and abs(p.mean() - math.pi / 2) < 0.07
    assert torch.equal(
        batch.support.x,
        SinusoidTasks(k_shot=3, n_query=4).sample(2000, seeded()).support.x,
    )


@pytest.mark.parametrize(
    "ranges",
    [
        {},
        {"amplitude": (1.0, 1.0), "phase": (0.5, 0.5)},
        {"amplitude": (0.5, 2.0), "phase": (-1.0, 2.5)},
    ],
)
def test_the_average_wave_is_that_of_many_tasks(ranges):
    tasks = SinusoidTasks(**ranges)
    info = tasks.sample(20_000, seeded()).info
    x = torch.linspace(-4, 4, 9)
    waves = info["amplitude"][:, None] * torch.sin(x - info["phase"][:, None])
    error = (tasks.average(x) - waves.mean(0)).abs()
    assert (error <= 5 * waves.std(0) / len(waves) ** 0.5 + 1e-5).all()
