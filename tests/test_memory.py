"""Memory: the protocol, what can be known in it, the memory by value, the learners."""

import math

import pytest
import torch
from shared import gen, randn
from torch import nn

from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.tasks import ClassTasks, Examples, TaskBatch
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.model_based import memory as mem

LEARNERS = {
    "LSTM": lambda **k: mem.RecurrentLearner(4, 3, width=8, **k),
    "LSTM, label alone": lambda **k: mem.RecurrentLearner(
        4, 3, width=8, pairs=False, **k
    ),
    "MANN": lambda **k: mem.MANN(4, 3, width=8, slots=5, size=4, **k),
    "MANN, feedback": lambda **k: mem.MANN(
        4, 3, width=8, slots=5, size=4, heads=2, feedback=True, own_write=False, **k
    ),
}
named = pytest.mark.parametrize("name", LEARNERS)


def made(name, **options):
    torch.manual_seed(0)
    learner = LEARNERS[name](**options).double()
    with torch.no_grad():
        for p in learner.parameters():
            p.mul_(1.5)
    return learner.eval()


def pool(classes=6, each=8, dim=4, noise=0.2):
    "Rows of clusters, and their labels."
    centers = randn(classes, dim, seed=1)
    x = centers.repeat_interleave(each, 0) + noise * randn(classes * each, dim, seed=2)
    return x, [i // each for i in range(classes * each)]


def sequences(n=5, per_class=4):
    return mem.OffsetTasks(*pool(), 3, per_class).sample(n, gen())


# --- the protocol --------------------------------------------------------------------


def test_sequences_hold_each_class_equally_often_in_an_order_of_their_own():
    s = sequences(300)
    assert s.x.shape == (300, 12, 4) and s.y.shape == (300, 12)
    assert (nn.functional.one_hot(s.y).sum(1) == 4).all()
    assert len({tuple(row) for row in s.y.tolist()}) > 250
    first = nn.functional.one_hot(s.y[:, 0]).double().mean(0)
    assert (first - 1 / 3).abs().max() < 0.1
    assert s[2:4].x.equal(s.x[2:4]) and len(s[1]) == 1
    assert s.to("cpu").y.equal(s.y)


def test_no_item_comes_twice_and_labels_are_drawn_anew():
    rows = torch.arange(48.0)[:, None]
    s = mem.OffsetTasks(rows, pool()[1], 3, 4).sample(200, gen())
    assert (s.x[..., 0].sort(1).values.diff(dim=1) > 0).all()
    of_class = (s.x[..., 0] // 8).long()
    for c in range(6):  # every class has every label
        assert set(s.y[of_class == c].tolist()) == {0, 1, 2}
    for row, y in zip(of_class, s.y):
        assert len(set(zip(row.tolist(), y.tolist()))) == 3


def test_the_same_generator_gives_the_same_sequences():
    tasks = mem.OffsetTasks(*pool(), 3, 4)
    a, b = tasks.sample(4, gen(5)), tasks.sample(4, gen(5))
    assert a.x.equal(b.x) and a.y.equal(b.y)


def test_appearances_by_counting():
    y = torch.randint(0, 4, (7, 20), generator=gen())
    for row, found in zip(y.tolist(), mem.appearances(y).tolist()):
        assert found == [row[: t + 1].count(c) for t, c in enumerate(row)]


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_the_bound_of_the_first_guess_is_met_by_naming_what_is_new(n):
    y = torch.arange(n).repeat_interleave(3).expand(20_000, -1)
    y = y.gather(1, torch.rand(y.shape, generator=gen()).argsort(1))
    told = nn.functional.one_hot(y).cumsum(1) - nn.functional.one_hot(y)
    right = ((told == 0).float().argmax(-1) == y)[mem.appearances(y) == 1]
    assert abs(right.float().mean().item() - mem.first_guess(n)) < 0.01


def test_accuracy_by_appearance_of_a_learner_that_is_known():
    class Second:
        "Right at every second appearance, wrong elsewhere."

        def answers(self, x, y):
            right = mem.appearances(y) % 2 == 0
            return nn.functional.one_hot(torch.where(right, y, (y + 1) % 3), 3).double()

    found = mem.by_appearance(Second(), mem.OffsetTasks(*pool(), 3, 4), 7)
    assert {k: e.mean for k, e in found.items()} == {0: 0, 1: 0, 2: 1, 3: 0, 4: 1}
    assert len(found[1]) == 7


def test_what_is_not_a_number_is_never_counted():
    class Broken:
        def answers(self, x, y):
            return torch.full((*y.shape, 3), math.nan)

    found = mem.by_appearance(Broken(), mem.OffsetTasks(*pool(), 3, 4), 5)
    assert all(math.isnan(e.mean) for e in found.values())


def test_a_frozen_body_keeps_its_mode():
    body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    learner = mem.RecurrentLearner(4, 3, body, width=8).double().train()
    body.eval()
    statistics = body[1].running_mean.clone()
    mem.by_appearance(learner, mem.OffsetTasks(*pool(), 3, 4), 4)
    modes = learner.training, learner.lstm.training, body.training, body[1].training
    assert modes == (True, True, False, False)
    assert body[1].running_mean.equal(statistics)


# --- the memory ----------------------------------------------------------------------


def test_weights_are_those_of_pytorchs_cosine():
    key, content = randn(3, 2, 5), randn(3, 6, 5, seed=1)
    cosine = nn.functional.cosine_similarity(key[:, :, None], content[:, None], dim=-1)
    ours = mem.content_weights(key, content, 7.0)
    torch.testing.assert_close(ours, (7 * cosine).softmax(-1))


@pytest.mark.parametrize("floor", [0.0, 0.5, 1e-20, 1e25])
@pytest.mark.parametrize("length", [1e-30, 1e-14, 1.0, 1e20])
def test_weights_of_keys_and_slots_of_any_length(length, floor):
    key = length * randn(2, 1, 5)
    sizes = torch.tensor([1e-30, 1e-14, 0.0, 1.0, 1e20, 1e30]).double()
    content = sizes[:, None] * randn(2, 6, 5, seed=1)
    want = mem.content_weights(key, content, 5.0, floor)
    unit = [
        nn.functional.normalize(v, dim=-1, eps=0).nan_to_num() for v in (key, content)
    ]
    norm = content.norm(dim=-1)
    shrunk = (norm / (norm.square() + floor**2).sqrt()).nan_to_num()
    cosine = (unit[0] @ unit[1].mT) * shrunk[:, None]
    torch.testing.assert_close(want, (5 * cosine).softmax(-1))
    got = mem.content_weights(key.float(), content.float(), 5.0, floor)
    torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_reads_as_float32_does(kind):
    key, content = (1e-3 * randn(2, n, 5, seed=n).to(kind) for n in (1, 6))
    content[0, 2] = 0
    for k in (key, 0 * key):
        got = mem.content_weights(k, content, 4.0)
        want = mem.content_weights(k.double(), content.double(), 4.0)
        assert got.dtype == kind
        torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-3)


def test_a_read_of_ordinary_numbers_is_that_of_the_memory():
    key, content = randn(2, 1, 5).float(), randn(2, 6, 5, seed=1).float()
    ours = mem.content_weights(key, content, 4.0, 0.5)
    assert ours.equal(mem._weights(key, content, 4.0, 0.5))


def test_a_strength_that_is_a_tensor_keeps_its_gradient_and_is_checked():
    key, content = randn(1, 1, 3), randn(1, 4, 3, seed=1)
    strength = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(
        mem.content_weights(key, content, strength)[0, 0, 0], strength
    )[0]
    up, down = (
        mem.content_weights(key, content, 2.0 + e)[0, 0, 0] for e in (1e-6, -1e-6)
    )
    assert abs(grad - (up - down) / 2e-6) < 1e-8
    for bad in (0.0, -1.0, math.nan, math.inf):
        for value in (bad, torch.tensor(bad)):
            with pytest.raises(ValueError, match="strength must be a finite number"):
                mem.content_weights(key, content, value)


def test_of_equal_usages_the_first_slot_is_taken():
    for n in (5, 32, 64, 200):
        usage = torch.zeros(2, n)
        usage[0, 0] = 1
        for heads in (1, 4):
            found = mem.least_used(usage, heads).argmax(-1).tolist()
            assert found == [list(range(1, heads + 1)), list(range(heads))]


def test_the_sharpest_read():
    for strength in (0.5, 1.0, 10.0):
        key, content = torch.ones(1, 1, 3), -torch.ones(1, 9, 3)
        content[0, 4] = 1
        got = mem.content_weights(key, content, strength)[0, 0, 4].item()
        assert abs(got - mem.sharpest_read(strength, 9)) < 1e-6
        content[0, :4] = content[0, 5:] = 0
        got = mem.content_weights(key, content, strength)[0, 0, 4].item()
        assert abs(got - mem.sharpest_read(strength, 9, empty=True)) < 1e-6


def test_empty_slots_have_finite_gradients():
    content = torch.zeros(1, 4, 3, dtype=torch.float64, requires_grad=True)
    for floor in (0.5, 0.01):
        mem.content_weights(randn(1, 1, 3), content, 5.0, floor)[0, 0, 0].backward()
        assert content.grad.isfinite().all()


def test_a_decay_up_to_a_half_is_least_recently_used():
    draw, usage, last = gen(), torch.zeros(1, 5, dtype=torch.float64), [-1] * 5
    for t in range(40):
        slot = int(torch.randint(0, 5, (), generator=draw))
        usage = 0.5 * usage
        usage[0, slot] += 1
        last[slot] = t
        if min(last) >= 0:
            assert mem.least_used(usage)[0, 0].argmax() == last.index(min(last))


def test_a_closed_gate_writes_where_nothing_is_and_clears_it():
    memory = mem.ExternalMemory(4, 3, decay=0.5, learn_strength=False).double()
    state = memory.start(1, randn(1))
    shut = torch.zeros(1, 1, 1, dtype=torch.float64)
    for t in range(6):  # more than there are slots: the oldest goes
        add = randn(1, 1, 3, seed=t)
        before = mem.least_used(state.usage)[0, 0].argmax()
        _, state = memory(add, add, shut, state)
        torch.testing.assert_close(state.content[0, before], add[0, 0])


# --- the learners --------------------------------------------------------------------


@named
def test_an_answer_is_that_of_adapt_with_what_came_before(name):
    learner, s = made(name), sequences()
    with torch.no_grad():
        whole = learner.answers(s.x, s.y)
        for t in range(1, 12):
            support = Examples(s.x[:, :t], s.y[:, :t])
            one = learner.adapt(support)(s.x[:, t : t + 1])[:, 0]
            torch.testing.assert_close(one, whole[:, t])


@named
def test_no_answer_looks_ahead(name):
    learner, s = made(name), sequences()
    x, y = s.x.clone(), s.y.clone()
    x[:, 7:] += 1
    y[:, 6:] = (y[:, 6:] + 1) % 3
    with torch.no_grad():
        a, b = learner.answers(s.x, s.y), learner.answers(x, y)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert (a[:, 7:] - b[:, 7:]).abs().max() > 1e-4


@named
def test_order_and_company_of_queries_do_not_matter_and_that_of_support_does(name):
    learner, s = made(name), sequences()
    support, asked = Examples(s.x[:, :6], s.y[:, :6]), s.x[:, 6:]
    with torch.no_grad():
        answers = learner.adapt(support)(asked)
        order = [3, 0, 5, 2]
        some = learner.adapt(support)(asked[:, order])
        torch.testing.assert_close(some, answers[:, order])
        turned = Examples(s.x[:, :6].flip(1), s.y[:, :6].flip(1))
        assert (learner.adapt(turned)(asked) - answers).abs().max() > 1e-4


@named
def test_an_average_over_orders_is_that_of_single_orders(name):
    learner, s = made(name), sequences(2)
    support, asked = Examples(s.x[:, :5], s.y[:, :5]), s.x[:, 5:]
    draw = torch.rand(5, 3, generator=gen(0)).T.argsort(1)
    with torch.no_grad():
        each = [
            learner.adapt(Examples(support.x[:, o], support.y[:, o]))(asked)
            for o in draw
        ]
        learner.orders = 3
        together = learner.adapt(support)(asked).softmax(-1)
        mean = sum(v.softmax(-1) for v in each) / 3
        torch.testing.assert_close(together, mean)
        holes = torch.tensor([True, False, True, True, False, True, True]).expand(2, -1)
        padded = Examples(s.x[:, :7], s.y[:, :7], holes)
        kept = [0, 2, 3, 5, 6]
        shorter = Examples(s.x[:, kept], s.y[:, kept])
        torch.testing.assert_close(
            learner.adapt(padded)(asked), learner.adapt(shorter)(asked)
        )


@named
def test_orders_that_change_after_adapt_are_for_later_calls(name):
    learner, s = made(name, orders=3), sequences(2)
    support, asked = Examples(s.x[:, :5], s.y[:, :5]), s.x[:, 5:]
    with torch.no_grad():
        answer = learner.adapt(support)
        want = answer(asked)
        for orders in (1, 2, 6):
            learner.orders = orders
            assert answer(asked).equal(want)
        with pytest.raises(ValueError, match="features must be those of 2 tasks"):
            answer(asked[:1])


@named
def test_labels_may_be_any_whole_numbers(name):
    learner, s = made(name), sequences(2)
    rule = mem.SeenSoFar(3, far=1.0)
    for kind in (torch.int32, torch.uint8):
        y = s.y.to(kind)
        assert learner.answers(s.x, y).equal(learner.answers(s.x, s.y))
        assert rule.answers(s.x, y).equal(rule.answers(s.x, s.y))


@named
def test_the_gradient_of_the_protocol(name):
    learner, s = made(name), sequences(3)
    parameters = list(learner.parameters())
    ways = [randn(p.numel(), seed=i).view_as(p) for i, p in enumerate(parameters)]
    grads = torch.autograd.grad(learner(s), parameters)
    ours, found = sum((g * w).sum() for g, w in zip(grads, ways)), []
    for sign in (1, -2):
        with torch.no_grad():
            for p, w in zip(parameters, ways):
                p += sign * 1e-6 * w
            found.append(learner(s).item())
    assert abs((found[0] - found[1]) / 2e-6 - ours.item()) < 1e-6 * ours.abs().item()


@pytest.mark.parametrize("name", ["LSTM", "MANN"])
def test_training_on_sequences_lowers_the_loss_and_resumes(name, tmp_path):
    tasks = mem.OffsetTasks(*pool(noise=0.05), 3, 4)

    def run(steps, path):
        torch.manual_seed(0)
        learner = LEARNERS[name]().double()
        where = Checkpoint(path, every=10)
        return learner, meta_train(
            learner, tasks, steps=steps, tasks_per_step=8, outer_lr=0.02, seed=1,
            checkpoint=where, progress=False,
        )  # fmt: skip

    learner, history = run(20, tmp_path / "a")
    assert sum(history.loss[-5:]) < sum(history.loss[:5])
    again, _ = run(20, tmp_path / "a")  # from the stored end
    for a, b in zip(learner.parameters(), again.parameters()):
        assert a.equal(b)


def test_what_is_written_starts_as_the_key_of_its_item():
    learner = mem.MANN(4, 3, width=8, slots=5, size=4, heads=2)
    key, write = learner.access.weight[:8], learner.access.weight[8:16]
    assert write[:, 8 + 4 + 3 :].equal(key[:, 8 : 8 + 4])
    free = mem.MANN(4, 3, width=8, slots=5, size=4, heads=2, tied_start=False)
    key, write = free.access.weight[:8], free.access.weight[8:16]
    assert (write[:, 8 + 4 + 3 :] != key[:, 8 : 8 + 4]).any()


def test_a_tied_start_is_asked_for_where_there_is_something_to_tie():
    def weights(**options):
        torch.manual_seed(0)
        return mem.MANN(4, 3, width=8, slots=5, size=4, **options).access.weight

    assert weights().equal(weights(tied_start=True))
    assert not weights().equal(weights(tied_start=False))
    for off in ("pairs", "own_write"):
        assert weights(**{off: False}).equal(weights(**{off: False}, tied_start=False))
        with pytest.raises(ValueError, match="tied_start=True needs pairs=True and"):
            weights(**{off: False}, tied_start=True)


def test_a_strength_that_is_not_learned_stays():
    learner = mem.MANN(
        4, 3, width=8, slots=5, size=4, strength=1.0, learn_strength=False
    )
    tasks = mem.OffsetTasks(pool()[0].float(), pool()[1], 3, 4)
    meta_train(
        learner, tasks, steps=3, tasks_per_step=2, outer_lr=0.1, progress=False, seed=0
    )
    assert learner.store.log_strength.item() == 0.0


def test_shuffling_the_support_leaves_the_episodes_as_they_are():
    x, labels = pool()
    plain = ClassTasks(x, labels, 3, 2, 2)
    again = [mem.ShuffledSupport(plain).sample(4, gen()).support.x for _ in range(2)]
    assert again[0].equal(again[1])  # the same state, the same orders
    one, two, orders = gen(), gen(), set()
    for _ in range(5):
        a, b = plain.sample(4, one), mem.ShuffledSupport(plain).sample(4, two)
        assert a.query.x.equal(b.query.x) and a.query.y.equal(b.query.y)
        assert one.get_state().equal(two.get_state())
        for key in ("classes", "query_items"):
            if key in a.info:
                assert torch.as_tensor(a.info[key]).equal(torch.as_tensor(b.info[key]))
        orders |= {tuple(row) for row in b.support.y.tolist()}
    assert len(orders) > 12

    class Prototypes:  # blind to the order of the support set
        def adapt(self, support):
            means = torch.stack(
                [
                    torch.stack([r[y == c].mean(0) for c in range(3)])
                    for r, y in zip(support.x, support.y)
                ]
            )
            return lambda q: -torch.cdist(q, means)

    found = [
        evaluate(Prototypes(), tasks, 60, tasks_per_batch=7).values
        for tasks in (plain, mem.ShuffledSupport(plain))
    ]
    assert found[0].equal(found[1])


def test_all_orders_of_a_support_set_are_equally_frequent():
    plain = ClassTasks(*pool(), 3, 1, 1)
    y = mem.ShuffledSupport(plain).sample(3000, gen()).support.y
    counts = torch.unique(y, dim=0, return_counts=True)[1]
    assert len(counts) == 6 and (counts - 500).abs().max() < 100


def test_the_shuffled_support_is_the_same_set():
    x, labels = pool()
    plain = ClassTasks(x, labels, 3, (1, 2), 2)
    a, b = plain.sample(20, gen()), mem.ShuffledSupport(plain).sample(20, gen())
    assert a.query.x.equal(b.query.x)
    for i in range(20):
        rows = [
            sorted(map(tuple, e.x[i][e.mask[i]].tolist()))
            for e in (a.support, b.support)
        ]
        assert rows[0] == rows[1]
    where = b.info["support_items"]
    assert b.support.x[b.support.mask].equal(x[where][b.support.mask])


@pytest.mark.parametrize("rule", ["nearest", "means"])
def test_the_rules_answer_as_if_they_had_no_future(rule):
    s, learner = sequences(), mem.SeenSoFar(3, rule, far=2.0)
    whole = learner.answers(s.x, s.y)
    for t in (1, 5, 9):
        torch.testing.assert_close(
            learner.answers(s.x[:, :t], s.y[:, :t]), whole[:, :t]
        )
    assert (whole[:, 0] == -2).all()
    found = mem.by_appearance(learner, mem.OffsetTasks(*pool(), 3, 4), 50)
    assert found[4].mean > 0.9


def test_counts_of_what_is_left_by_hand():
    s = sequences()
    plain = mem.SeenSoFar(3, far=2.0).answers(s.x, s.y)
    counted = mem.SeenSoFar(3, far=2.0, per_class=4, scale=5.0).answers(s.x, s.y)
    for i, row in enumerate(s.y.tolist()):
        for t in range(12):
            left = [4 - row[:t].count(c) for c in range(3)]
            want = [
                plain[i, t, c].item() / 5 + (math.log(n) if n else -math.inf)
                for c, n in enumerate(left)
            ]
            torch.testing.assert_close(counted[i, t], torch.tensor(want).double())


def test_counts_of_what_is_left_are_the_exact_probabilities_of_the_next_label():
    draws = torch.arange(3).repeat_interleave(2).expand(60_000, -1)
    y = draws.gather(1, torch.rand(draws.shape, generator=gen()).argsort(1))
    blank = torch.zeros(len(y), 6, 1, dtype=torch.float64)
    rule = mem.SeenSoFar(3, far=0.0, per_class=2)  # nothing to see: only counts
    told = rule.answers(blank, y).softmax(-1)
    for t in range(6):
        for past in {tuple(r) for r in y[:200, :t].tolist()}:
            here = (y[:, :t] == torch.tensor(past, dtype=torch.long)).all(1)
            share = nn.functional.one_hot(y[here, t], 3).double().mean(0)
            assert (share - told[here][0, t]).abs().max() < 0.05
    right = (told.argmax(-1)[:, -1] == y[:, -1]).double().mean()
    assert right == 1  # the last one is known


def test_a_learner_of_images_by_a_body():
    x, labels = torch.rand(24, 1, 4, 4, generator=gen()), [i // 8 for i in range(24)]
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    for learner in (
        mem.RecurrentLearner(5, 3, body, 8),
        mem.MANN(5, 3, body, 8, slots=4, size=4),
    ):
        learner(mem.OffsetTasks(x, labels, 3, 4).sample(2, gen())).backward()
        assert body[1].weight.grad.abs().max() > 0
        assert evaluate(learner, ClassTasks(x, labels, 3, 1, 2), 4).mean >= 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mem.OffsetTasks(*pool(), 7, 4), "n_way must be at most 6"),
        (lambda: mem.OffsetTasks(*pool(), 3, 9), "per_class must be at most 8"),
        (lambda: mem.OffsetTasks(*pool(), 3, 4).sample(2, 0), "generator must be"),
        (lambda: mem.Sequences(randn(2, 3, 4), torch.zeros(2, 4)), "leading dims"),
        (lambda: mem.Sequences(randn(2, 3, 4), torch.zeros(2, 3)), "whole numbers"),
        (lambda: mem.appearances(torch.zeros(3).long()), "must have the shape"),
        (lambda: mem.first_guess(0), "n_way must be at least 1"),
        (lambda: mem.ExternalMemory(slots=2, heads=3), "heads must be at most 2"),
        (lambda: mem.ExternalMemory(decay=1.0), "decay must be"),
        (lambda: mem.ExternalMemory(strength=0.0), "strength must be"),
        (lambda: mem.MANN(4, floor=-1.0), "floor must be"),
        (lambda: mem.MANN(4, orders=0), "orders must be at least 1"),
        (lambda: mem.RecurrentLearner(4, pairs=1), "pairs must be True or False"),
        (lambda: mem.SeenSoFar(rule="mean"), "rule must be one of"),
        (lambda: mem.ShuffledSupport(3), "tasks must have sample"),
        (lambda: mem.by_appearance(None, None), "answers"),
        (lambda: made("MANN").answers(randn(2, 3, 5), torch.zeros(2, 3).long()),
         r"features must be \(B, S, 4\)"),
        (lambda: made("LSTM").answers(randn(2, 3, 4), torch.full((2, 3), 3)),
         "labels run from 3 to 3, but there are logits for 3 classes"),
        (lambda: made("LSTM").adapt(sequences()), "support must be Examples"),
        (lambda: made("MANN").run(randn(2, 3, 4), torch.zeros(2, 3, 7).double(), None,
                                  torch.tensor([1, 4])),
         "lengths must be whole numbers from 1 to 3"),
        (lambda: made("LSTM").run(randn(2, 3, 4), torch.zeros(2, 3, 7).double(), None,
                                  torch.tensor([0, 3])),
         "lengths must be whole numbers from 1 to 3"),
        (lambda: made("LSTM").run(randn(2, 3, 4), torch.zeros(2, 3, 7).double(), None,
                                  torch.tensor([1.0, 3.0])),
         "lengths must be whole numbers from 1 to 3"),
        (lambda: mem.ShuffledSupport(mem.OffsetTasks(*pool(), 3, 4)).sample(2, gen()),
         "it returned Sequences. Sequences of OffsetTasks are in a random order"),
        (lambda: mem.ShuffledSupport(ClassTasks(*pool(), 3, 1, 1)).sample(2, 0),
         "generator must be a torch.Generator"),
        (lambda: mem.MANN(4, tied_start=1), "tied_start must be True or False"),
        (lambda: mem.MANN(4, learn_strength=None), "learn_strength must be True or"),
        (lambda: mem.SeenSoFar(scale=0.0), "scale must be"),
        (lambda: mem.SeenSoFar(per_class=0), "per_class must be at least 1"),
        (lambda: mem.SeenSoFar(3, per_class=3).answers(*vars(sequences()).values()),
         "a label comes 4 times, but per_class is 3"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_task_batch_is_a_loss_too():
    s = sequences()
    tasks = TaskBatch(
        Examples(s.x[:, :6], s.y[:, :6]), Examples(s.x[:, 6:], s.y[:, 6:])
    )
    for name in LEARNERS:
        learner = made(name)
        logits = learner.adapt(tasks.support)(tasks.query.x)
        want = nn.functional.cross_entropy(
            logits.flatten(0, 1), tasks.query.y.flatten()
        )
        torch.testing.assert_close(learner(tasks), want)
