"""Hypernetworks: the linear case by value, what is read of texts, tasks that are
described, the factors that are written, training, controls, and what is refused."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from metalearn_book.data.dialogues import Intent, Service, Slot
from metalearn_book.foundations.inner_loop import Adam, InnerLoop
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.hypernetworks import (
    READS,
    STYLES,
    DescribedTasks,
    FactorWriter,
    HyperLoRA,
    expected_risk,
    hyper_training,
    linear_hypernetwork,
    measure_described,
    service_descriptions,
    service_sentences,
    styled,
    styled_tasks,
    text_statistics,
    tuned_nats,
)
from metalearn_book.language_models.low_rank import LoRALinear, add_lora
from metalearn_book.language_models.meta_gpt2 import TextTasks, text_batch
from metalearn_book.language_models.small_gpt import causal_loss, causal_loss_per_task

WORDS = ["red", "blue", "old", "new", "big", "low"]
GROUPS = {
    place: [f"<headline> {place} is {a} and {b}" for a in WORDS for b in WORDS]
    for place in ("rome", "oslo", "lima")
}
TOLD = {
    "rome": ["all about rome", "an old place"],
    "oslo": ["all about oslo"],
    "lima": ["all about lima", "a new place", "and big"],
}
TOKENIZER = small_gpt.train_tokenizer(
    sum(GROUPS.values(), []) + sum(TOLD.values(), []) * 3, 330
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*size, seed=0):
    return torch.randn(*size, generator=gen(seed), dtype=torch.float64)


def gpt(width=8, n_layers=2):
    torch.manual_seed(0)
    config = small_gpt.GPTConfig(330, 40, width, n_layers, 2)
    model = small_gpt.SmallGPT(config).eval()
    with torch.no_grad():  # as large as those of a trained model
        model.tokens.weight.mul_(20)
    return model


def tasks(reads="both", **options):
    given = {"k_shot": 2, "n_query": 2, "length": 12} | options
    return DescribedTasks(GROUPS, TOLD, TOKENIZER, reads, **given)


def learner(model=None, moved=True, **options):
    given = {"rank": 2, "code": 3, "length": 12} | options
    made = HyperLoRA(gpt() if model is None else model, TOKENIZER, **given)
    if moved:
        with torch.no_grad():
            for p in made.writers.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=gen(1)))
    return made


# --- the linear case -----------------------------------------------------------------


def family(n, d=6, m=3, noise=0.4, seed=0):
    H, z = randn(d, m, seed=seed), randn(n, m, seed=seed + 1)
    return H, z, z @ H.mT + noise * randn(n, d, seed=seed + 2)


def test_least_squares_by_value():
    "Eq. (HYP-2), in both of its forms, and without noise the truth."
    H, z, theta = family(12)
    found = linear_hypernetwork(z, theta)
    torch.testing.assert_close(found, theta.mT @ z @ torch.linalg.inv(z.mT @ z))
    new = randn(3, seed=9)
    shares = z @ torch.linalg.inv(z.mT @ z) @ new
    torch.testing.assert_close(found @ new, shares @ theta)
    exact = linear_hypernetwork(z, z @ H.mT)
    torch.testing.assert_close(exact, H)


def test_with_fewer_tasks_than_features_the_map_of_least_norm():
    _, z, theta = family(2)
    found = linear_hypernetwork(z, theta)
    torch.testing.assert_close(z @ found.mT, theta)
    other = found + randn(6, 1) @ torch.linalg.svd(z).Vh[-1:]  # fits as well
    torch.testing.assert_close(z @ other.mT, theta)
    assert found.norm() < other.norm()


def test_without_a_limit_on_the_rank_the_metric_plays_no_part():
    _, z, theta = family(12)
    L = randn(6, 6, seed=4)
    plain = linear_hypernetwork(z, theta)
    torch.testing.assert_close(linear_hypernetwork(z, theta, L @ L.mT), plain)
    torch.testing.assert_close(linear_hypernetwork(z, theta, rank=3), plain)


@pytest.mark.parametrize("q", [1, 2])
def test_the_best_map_of_a_rank(q):
    "Eq. (HYP-5)."
    _, z, theta = family(12)
    L = randn(6, 6, seed=4)
    C = L @ L.mT + 0.1 * torch.eye(6, dtype=torch.float64)

    def loss(H):
        gap = theta - z @ H.mT
        return torch.einsum("nd,de,ne->", gap, C, gap)

    found = linear_hypernetwork(z, theta, C, q)
    assert torch.linalg.matrix_rank(found) == q
    U, full, S = randn(6, q, seed=8), linear_hypernetwork(z, theta), z.mT @ z
    for _ in range(300):  # least squares in turns
        V = torch.linalg.solve(U.mT @ C @ U, U.mT @ C @ full)
        U = full @ S @ V.mT @ torch.linalg.inv(V @ S @ V.mT)
    assert loss(found).item() == pytest.approx(loss(U @ V).item(), rel=1e-6)
    assert loss(found) < loss(linear_hypernetwork(z, theta, rank=q))


@pytest.mark.parametrize("n, m", [(12, 3), (20, 8)])
def test_risk_on_a_new_task(n, m):
    "Eq. (HYP-3) against a simulation: one H, many draws."
    H, d, noise = randn(5, m), 5, 0.7
    errors = []
    for seed in range(1500):
        z = randn(n + 1, m, seed=seed + 10)
        theta = z @ H.mT + noise * randn(n + 1, d, seed=seed + 50_000)
        guess = linear_hypernetwork(z[:n], theta[:n]) @ z[n]
        errors.append((guess - theta[n]).square().sum())
    mean = torch.stack(errors).mean().item()
    assert mean == pytest.approx(expected_risk(n, m, d, noise), rel=0.08)


def test_risk_by_value():
    assert expected_risk(24, 11, 20, 0.5) == pytest.approx(5 * (1 + 11 / 12))
    assert expected_risk(10**9, 4, 20, 0.5) == pytest.approx(5)
    with pytest.raises(ValueError, match="at least n_features . 2 = 6, got 5"):
        expected_risk(5, 4, 20, 0.5)


def test_metrics_that_are_none():
    _, z, theta = family(12)
    for metric in (-torch.eye(6), torch.ones(6, 6), torch.eye(6) + randn(6, 6).float()):
        with pytest.raises(ValueError, match="positive definite"):
            linear_hypernetwork(z, theta, metric.double())
    with pytest.raises(ValueError, match="rank must be at most 3"):
        linear_hypernetwork(z, theta, rank=4)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        linear_hypernetwork(z, theta, rank=0)


# --- what is read of a text ----------------------------------------------------------


def batch_of(texts, length=12):
    return text_batch(TOKENIZER, texts, length)


def test_statistics_by_hand():
    "Eq. (HYP-7), for one text without padding."
    model, text = gpt().double(), "<headline> rome is red and blue"
    (ids, labels), W = batch_of([text]), model.tokens.weight
    row = ids[0][labels[0] != -100]
    values, n, nats = text_statistics(model, ids, labels)
    logits, T = model(row[None])[0], len(row)
    p = logits.softmax(-1)
    surprise = -p.log()[torch.arange(T - 1), row[1:]]
    words = (surprise[:, None] * W[row[1:]]).sum(0) / surprise.sum()
    error = (W[row[1:]] - p[:-1] @ W).mean(0)
    by_hand = [W[row].mean(0), words, model.hidden(row[None])[0].mean(0), error]
    torch.testing.assert_close(values[0], torch.stack(by_hand).detach())
    assert n.item() == T - 1
    torch.testing.assert_close(nats[0], causal_loss(logits[None], row[None]).detach())


def test_the_error_is_the_gradient_by_a_vector():
    "Eq. (HYP-8)."
    model = gpt().double()
    ids, labels = batch_of(["<headline> rome is red and blue"])
    b = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    logits = (model.hidden(ids) + b) @ model.tokens.weight.mT
    (gradient,) = torch.autograd.grad(causal_loss(logits, labels), b)
    values, *_ = text_statistics(model, ids, labels)
    torch.testing.assert_close(values[0, 3], -gradient)


def test_padding_and_the_order_of_texts_change_nothing():
    model, texts = gpt().double(), GROUPS["rome"][:3]
    short, long = (text_statistics(model, *batch_of(texts, n)) for n in (14, 30))
    for a, b in zip(short, long):
        torch.testing.assert_close(a, b)
    made = learner(model, length=30)
    support = lambda some: Examples(*(part[None] for part in batch_of(some, 30)))
    a, b = (made.read(support(t))[0] for t in (texts, texts[::-1]))
    torch.testing.assert_close(a, b)


def test_a_task_is_the_mean_over_all_predictions():
    made = learner(gpt().double())
    ids, labels = batch_of(["<headline> rome is red", "all about oslo"])
    values, n, nats = text_statistics(made.model, ids, labels)
    found, surprise = made.read(Examples(ids[None], labels[None]))
    share = n / n.sum()
    torch.testing.assert_close(found[0], (share[:, None, None] * values).sum(0))
    torch.testing.assert_close(surprise[0], (share * nats).sum())


def test_rows_that_are_masked_weigh_nothing():
    made = learner(gpt().double())
    ids, labels = batch_of(["<headline> rome is red", "all about oslo"])
    mask = torch.tensor([[True, False]])
    one = made.read(Examples(ids[None, :1], labels[None, :1]))
    two = made.read(Examples(ids[None], labels[None], mask))
    for a, b in zip(one, two):
        torch.testing.assert_close(a, b)


def test_texts_that_say_nothing():
    model, (ids, labels) = gpt(), batch_of(["<headline> rome"])
    with pytest.raises(ValueError, match="text 0 has no token to predict"):
        text_statistics(model, ids, torch.full_like(labels, -100))
    with pytest.raises(ValueError, match="must hold int64"):
        text_statistics(model, ids, labels.float())
    with pytest.raises(ValueError, match="330 tokens"):
        text_statistics(model, ids + 400, labels)


# --- tasks that are described --------------------------------------------------------


def service(name="RentalCars_2"):
    slots = {
        "kind": Slot("kind", "Kind of car", True, ("small", "big")),
        "seats": Slot("seats", "How many seats", True, ("2", "4")),
        "city": Slot("city", "Where to get it", False, ("rome",)),
        "roof": Slot("roof", "Whether it opens", True, ("True", "False")),
    }
    intents = {"Find": Intent("Find", "Find a car", False, ("city",), {}, ("kind",))}
    return Service(name, "Cars for a day", slots, intents)


def test_the_sentences_of_a_service():
    assert service_sentences(service()) == [
        "Rental Cars: Cars for a day",
        "Find a car",
        "Kind of car: small, big",
        "How many seats",
        "Where to get it",
        "Whether it opens",
    ]
    with pytest.raises(ValueError, match="service must be a Service"):
        service_sentences("RentalCars_2")


def test_styles():
    one = "<dialogue><user> Hello there<system> Good day<user> Bye"
    assert styled(one, "plain") == one
    assert styled(one, "small") == one.lower()
    assert styled(one, "user") == "<dialogue><user> Hello there<user> Bye"
    assert styled(one, "system") == "<dialogue><system> Good day"
    assert styled("<headline> Rain", "system") == "<headline> Rain"
    texts, told = styled_tasks({"a": [one]}, {"a": ["A greeting."], "b": ["more"]})
    assert list(texts) == list(told) == ["a", "a, small", "a, user", "a, system"]
    assert told["a, user"] == ["A greeting.", STYLES["user"]]
    assert told["a"] == ["A greeting."]


@pytest.mark.parametrize("reads", READS)
def test_the_query_does_not_depend_on_what_is_read(reads):
    whole = tasks()
    for other in (whole.reading(reads), whole.shuffled(), whole.constant()):
        for name in GROUPS:
            a, b = (t.of_group(name, gen(4)).query for t in (whole, other))
            assert torch.equal(a.x, b.x)


def test_what_is_in_the_support():
    description, texts, both = (
        tasks(r).of_group("lima", gen(1)).support for r in READS[:3]
    )
    assert description.n_items == 3 and texts.n_items == 2 and both.n_items == 5
    assert torch.equal(both.x, torch.cat([description.x, texts.x], 1))
    said = [TOKENIZER.decode(r[y != -100], control=False) for r, y in
            zip(description.x[0], description.y[0])]  # fmt: skip
    assert said == TOLD["lima"]
    plain = TextTasks(GROUPS, TOKENIZER, 2, 2, 12).of_group("lima", gen(1))
    assert torch.equal(plain.support.x, texts.x)


def test_tasks_of_different_sizes_are_filled_up():
    batch = tasks("description").sample(3, gen(2))
    assert batch.support.x.shape[:2] == (3, 3)
    assert sorted(batch.support.mask.sum(1).tolist()) == [1, 2, 3]
    made = learner(gpt().double())
    together = made.read(batch.support)[0]
    for b in range(3):
        e = batch.support[b]
        keep = e.mask[0]
        alone = made.read(Examples(e.x[:, keep], e.y[:, keep]))[0]
        torch.testing.assert_close(together[b : b + 1], alone)


def test_nobody_keeps_their_own_when_shuffled():
    whole = tasks()
    for seed in range(10):
        source = whole.shuffled(seed).told_by
        assert set(source) == set(source.values()) == set(GROUPS)
        assert all(a != b for a, b in source.items())
    wrong = whole.shuffled()
    support = wrong.of_group("rome", gen(3)).support
    place = wrong.told_by["rome"]
    said = " ".join(TOKENIZER.decode(r) for r in support.x[0])
    assert place in said and "rome" not in said
    alone = DescribedTasks({"rome": GROUPS["rome"]}, TOLD, TOKENIZER, "both", 2, 2, 12)
    with pytest.raises(ValueError, match="at least 2 groups"):
        alone.shuffled()


def test_a_constant_description():
    batch = tasks("both").constant("A place.").sample(3, gen())
    assert batch.support.x.shape[1] == 1
    assert torch.equal(batch.support.x, batch.support.x[:1].expand(3, -1, -1))


def test_descriptions_that_are_missing_or_empty():
    with pytest.raises(ValueError, match="nothing about 'lima'"):
        DescribedTasks(GROUPS, {"rome": ["x"], "oslo": ["y"]}, TOKENIZER)
    for empty in ("", "   ", ["all", ""]):
        with pytest.raises(ValueError, match="description of 'rome' is empty"):
            DescribedTasks(GROUPS, TOLD | {"rome": empty}, TOKENIZER)
    with pytest.raises(ValueError, match="must hold at least 1"):
        DescribedTasks(GROUPS, TOLD | {"rome": []}, TOKENIZER)
    with pytest.raises(ValueError, match="one of 'description'"):
        tasks("title")
    with pytest.raises(ValueError, match="descriptions must be a dict"):
        DescribedTasks(GROUPS, {}, TOKENIZER)


def test_descriptions_need_the_data(monkeypatch, tmp_path):
    for name in ("METALEARN_DATA", "METALEARN_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="one of 'train'"):
        service_descriptions("dev")


# --- the network ---------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
def test_it_starts_as_the_model(both):
    model, batch = gpt(), tasks().sample(3, gen())
    made = learner(model, moved=False, both=both)
    found = made.adapt(batch.support)(batch.query.x)
    expected = torch.stack([model(x) for x in batch.query.x])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("both", [False, True])
def test_written_factors_in_plain_layers(both):
    model, batch = gpt().double(), tasks().sample(3, gen())
    made = learner(model, both=both)
    together = made.adapt(batch.support)(batch.query.x)
    factors = made.factors(made.read(batch.support)[0])
    for b in range(3):
        plain = copy.deepcopy(model)
        assert add_lora(plain, "*blocks.*", 2) == made.layers
        with torch.no_grad():
            for name, value in factors.items():
                plain.get_parameter(name).copy_(value[b])
        torch.testing.assert_close(plain(batch.query.x[b]), together[b])
    loss = causal_loss_per_task(together, batch.query.y).mean()
    torch.testing.assert_close(made(batch), loss)


def test_factors_by_hand():
    "Eq. (HYP-9), a layer that copies and one that doesn't."
    for d_out in (8, 5):
        layer = LoRALinear(nn.Linear(6, d_out).double(), 2)
        writer = FactorWriter(layer, 3, 8, both=True)
        with torch.no_grad():
            for p in writer.parameters():
                p.copy_(torch.randn(p.shape, generator=gen(2)))
        f, e = randn(2, 4, 8), randn(2, 3)
        A, B = writer(f, e)
        assert (writer.copies is None) == (d_out == 5)
        for b in range(2):
            expected = writer.B + writer.to_B @ e[b]
            if d_out == 8:
                expected = expected + f[b].mT @ writer.copies.mT
            torch.testing.assert_close(B[b], expected)
            torch.testing.assert_close(A[b], writer.A + writer.to_A @ e[b])


def test_with_a_shared_factor_changes_are_linear():
    for both in (False, True):
        made = learner(gpt().double(), both=both)
        f, name = randn(2, 4, 8), made.layers[0]

        def change(statistics):
            found = made.factors(statistics)
            return found[f"{name}.lora_B"] @ found[f"{name}.lora_A"]

        gap = change(f.mean(0, keepdim=True))[0] - change(f).mean(0)
        assert (gap.norm() < 1e-12) == (not both)


def test_gradients_reach_the_writers_and_nothing_of_the_model():
    made, batch = learner(), tasks().sample(2, gen())
    made(batch).backward()
    assert all(p.grad is None for p in made.model.parameters())
    for name, p in [*made.writers.named_parameters(), ("code", made.encode.weight)]:
        assert p.grad.abs().max() > 0, name


def test_gradient_against_finite_differences():
    made, batch = learner(gpt().double()), tasks().sample(2, gen())
    writer = made.writers[-1]
    parts = [made.encode.weight, writer.to_B, writer.copies, writer.A]
    grads = torch.autograd.grad(made(batch), parts)
    for part, grad in zip(parts, grads):
        way = randn(*part.shape, seed=5)
        losses = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                part.add_(step * way)
                losses.append(made(batch).item())
                part.sub_(step * way)
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx((grad * way).sum().item(), rel=1e-5, abs=1e-9)


def test_the_model_that_was_given_stays_as_it_is():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    made = hyper_training(model, tasks(), rank=2, code=2, steps=2, progress=False)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not made.model.training and made.train().training
    assert not made.model.training


def test_state_and_copy():
    made, batch = learner(), tasks().sample(2, gen())
    made.fit_statistics(tasks())
    other = learner(moved=False)
    other.load_state_dict(made.state_dict())
    for twin in (other, copy.deepcopy(made)):
        assert torch.equal(twin(batch), made(batch))
    assert torch.equal(other.limit, made.limit)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    model = gpt()
    torch.manual_seed(3)
    learner(model, moved=False)
    assert torch.equal(torch.rand(2), expected)
    a, b, c = (learner(model, moved=False, seed=s).encode.weight for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


# --- training and measuring ----------------------------------------------------------


def trained(some, steps=40, **options):
    given = {"rank": 2, "code": 3, "outer_lr": 3e-2, "tasks_per_step": 3} | options
    return hyper_training(gpt(16), some, steps=steps, progress=False, **given)


def test_it_learns_to_believe_what_it_reads():
    some = tasks("description")
    made = trained(some)
    model = measure_described(gpt(16), some).mean
    right, wrong = (measure_described(made, t).mean for t in (some, some.shuffled()))
    fixed = trained(some.constant())
    always = measure_described(fixed, some.constant()).mean
    assert right < model and right < wrong and right < always < model
    assert made.history is not None


def test_training_again_gives_the_same_numbers():
    a, b = (trained(tasks("any"), 3).state_dict() for _ in range(2))
    assert all(torch.equal(v, b[n]) for n, v in a.items())


def test_centre_and_spread():
    some, made = tasks("description"), learner(gpt().double())
    made.fit_statistics(some)
    found = torch.cat(
        [made.read(some.of_group(n, gen()).support)[0] for n in some.names]
    )
    torch.testing.assert_close(found.mean(0), torch.zeros(4, 8).double())
    torch.testing.assert_close(found.square().mean((0, 2)), torch.ones(4).double())
    nats = [made.read(some.of_group(n, gen()).support)[1].item() for n in some.names]
    assert made.limit.item() == pytest.approx(1.25 * max(nats), rel=1e-5)


def test_a_measurement_is_the_loss_of_each_group():
    some, made = tasks(), learner()
    found = measure_described(made, some, seed=3)
    assert len(found) == 3 and found.seed == 3
    again = measure_described(made, some, seed=3)
    assert torch.equal(found.values, again.values)
    plain = measure_described(gpt(), some, seed=3)
    start = measure_described(learner(moved=False), some, seed=3)
    torch.testing.assert_close(plain.values, start.values, rtol=1e-5, atol=1e-5)


def test_tuned_factors_are_those_of_the_engine():
    model, some = gpt(), tasks("texts")
    found = tuned_nats(model, some, (0, 3), rank=2, lr=0.03)
    plain = measure_described(model, some)
    torch.testing.assert_close(found[0].values, plain.values, rtol=1e-5, atol=1e-5)
    wrapped = copy.deepcopy(model)
    add_lora(wrapped, "*blocks.*", 2)
    loop = InnerLoop(
        wrapped, causal_loss_per_task, adapt="*lora_*", inner_lr=0.03, inner_steps=3,
        optimizer=Adam(),
    )  # fmt: skip
    from metalearn_book.language_models.meta_gpt2 import _each_group

    for task, value in zip(_each_group(some, 0), found[3].values):
        told = loop.adapt(task.support)(task.query.x)
        nats = causal_loss_per_task(told, task.query.y)
        torch.testing.assert_close(nats.item(), value.item(), rtol=1e-4, atol=1e-4)


def test_tuning_reads_the_texts_and_not_the_description():
    model = gpt()
    a, b = (tuned_nats(model, tasks(r), (2,), rank=1)[2] for r in ("texts", "both"))
    assert torch.equal(a.values, b.values)


def test_tuning_that_leaves_the_numbers_is_infinite():
    values = tuned_nats(gpt(), tasks("texts"), (2,), rank=1, lr=1e30)[2].values
    assert not values.isnan().any() and math.isinf(values.max().item())


# --- use, and what is refused --------------------------------------------------------


def test_a_sentence_gives_a_plain_model():
    made = learner()
    model = made.adapted_model("all about rome")
    kinds = {type(m) for m in model.modules()}
    assert LoRALinear not in kinds
    told = DescribedTasks(GROUPS, TOLD | {"rome": "all about rome"}, TOKENIZER,
                          "description", 2, 2, 12)  # fmt: skip
    task = told.of_group("rome", gen())
    expected = made.adapt(task.support)(task.query.x)[0]
    torch.testing.assert_close(model(task.query.x[0]), expected, rtol=1e-3, atol=1e-3)


def test_empty_descriptions_are_refused():
    made = learner()
    for empty in ("", " \n", ["all", " "]):
        with pytest.raises(ValueError, match="is empty"):
            made.adapter(empty)
    for nothing in ([], None, 3, [3]):
        with pytest.raises(ValueError, match="description of 'the task'"):
            made.adapter(nothing)


def test_text_odder_than_any_that_was_trained_on():
    "Another script costs the model more than the limit: an error, or the average."
    torch.manual_seed(0)
    model = small_gpt.SmallGPT(small_gpt.GPTConfig(330, 40, 16, 1, 2))
    ids, labels = batch_of(sum(TOLD.values(), []))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):  # what it has read is no surprise
        optimizer.zero_grad()
        causal_loss(model(ids), labels).backward()
        optimizer.step()
    made = learner(model)
    made.fit_statistics(tasks("description"))
    for text in ("Ξενοδοχεία στην πόλη", "预订餐厅", "жжж ыыы"):
        with pytest.raises(ValueError, match="nats a token, above the limit"):
            made.adapter(text)
        with pytest.warns(UserWarning, match="average adapter is taken"):
            found = made.adapter(text, odd="average")
        average = made.factors(torch.zeros(1, 4, 16))
        assert all(torch.equal(found[n], v[0]) for n, v in average.items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.adapter("all about oslo")
    with pytest.raises(ValueError, match="one of 'error', 'average'"):
        made.adapter("all about oslo", odd="ignore")


def test_layers_and_ranks_that_are_not_there():
    model = gpt()
    with pytest.raises(ValueError, match="chooses no linear layer"):
        HyperLoRA(model, TOKENIZER, "*layer.9*", length=12)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        HyperLoRA(model, TOKENIZER, rank=0, length=12)
    with pytest.raises(ValueError, match="rank must be at most 8"):
        HyperLoRA(model, TOKENIZER, rank=9, length=12)
    with pytest.raises(ValueError, match="code must be at least 1"):
        HyperLoRA(model, TOKENIZER, code=0)
    with pytest.raises(ValueError, match="length must be at most 40"):
        HyperLoRA(model, TOKENIZER, length=41)
    with pytest.raises(ValueError, match="model must be a SmallGPT"):
        HyperLoRA(nn.Linear(2, 2), TOKENIZER)
    assert not any(isinstance(m, LoRALinear) for m in model.modules())


def test_what_is_no_support_and_what_are_no_tasks():
    made = learner()
    with pytest.raises(ValueError, match="support must be Examples"):
        made.adapt("all about rome")
    with pytest.raises(ValueError, match="x must have the shape"):
        made.adapt(Examples(torch.zeros(1, 2).long(), torch.zeros(1, 2).long()))
    plain = TextTasks(GROUPS, TOKENIZER, 2, 2, 12)
    for call in (
        lambda: hyper_training(gpt(), plain),
        lambda: made.fit_statistics(plain),
        lambda: measure_described(made, plain),
    ):
        with pytest.raises(ValueError, match="must be DescribedTasks"):
            call()
    alone = DescribedTasks({"rome": GROUPS["rome"]}, TOLD, TOKENIZER, "both", 2, 2, 12)
    with pytest.raises(ValueError, match="at least 2 groups"):
        made.fit_statistics(alone)
    with pytest.raises(ValueError, match="HyperLoRA or a SmallGPT"):
        measure_described(nn.Linear(2, 2), plain)
    assert isinstance(plain.sample(1, gen()), TaskBatch)
