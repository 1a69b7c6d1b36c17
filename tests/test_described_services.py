"""Described tasks: their sentences, styles, supports and controls, training and
measuring, and what is refused."""

import copy
import math

import pytest
import torch
from shared import gen
from tiny_texts import GROUPS
from told_texts import TOKENIZER, TOLD, gpt
from torch import nn

from metalearn_book.data.dialogues import Intent, Service, Slot
from metalearn_book.foundations.inner_loop import Adam, InnerLoop
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models.described_services import (
    READS,
    STYLES,
    DescribedTasks,
    hyper_training,
    intent_groups,
    measure_described,
    service_descriptions,
    service_sentences,
    styled,
    styled_tasks,
    tuned_nats,
)
from metalearn_book.language_models.hypernetworks import HyperLoRA
from metalearn_book.language_models.low_rank import add_lora
from metalearn_book.language_models.meta_gpt2 import TextTasks, _each_group
from metalearn_book.language_models.small_gpt import causal_loss_per_task


def tasks(reads="both", **options):
    given = {"k_shot": 2, "n_query": 2, "length": 12} | options
    return DescribedTasks(GROUPS, TOLD, TOKENIZER, reads, **given)


def learner(model=None, **options):
    given = {"rank": 3, "length": 12} | options
    return HyperLoRA(gpt() if model is None else model, TOKENIZER, **given)


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


def test_a_source_that_was_left_out_is_named():
    few = dict(GROUPS)
    small = next(iter(few))
    few[small] = few[small][:4]
    given = DescribedTasks(few, TOLD, TOKENIZER, "both", 2, 2, length=12)
    wrong = given.shuffled().with_shots(3)
    reader = next(n for n, source in wrong.told_by.items() if source == small)
    with pytest.raises(ValueError, match="take with_shots first"):
        wrong.of_group(reader, torch.Generator().manual_seed(0))
    told = wrong.reading("description").of_group(reader, torch.Generator())
    assert torch.equal(told.support.x[0], given._told[small][0])
    right = given.with_shots(3).shuffled()
    assert all(len(right.of_group(n, torch.Generator())) == 1 for n in right.names)


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
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="one of 'train'"):
        service_descriptions("dev")
    with pytest.raises(ValueError, match="one of 'train'"):
        intent_groups("dev")
    with pytest.raises(FileNotFoundError):
        intent_groups("train")


# --- training and measuring ----------------------------------------------------------


def trained(some, steps=40, **options):
    given = {"rank": 4, "outer_lr": 3e-2, "tasks_per_step": 3} | options
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


def test_a_measurement_is_the_loss_of_each_group():
    some, made = tasks(), learner()
    found = measure_described(made, some, seed=3)
    assert len(found) == 3 and found.seed == 3
    again = measure_described(made, some, seed=3)
    assert torch.equal(found.values, again.values)
    plain = measure_described(gpt(), some, seed=3)
    start = measure_described(learner(step=0.0), some, seed=3)
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


def test_what_are_no_tasks():
    made, plain = learner(), TextTasks(GROUPS, TOKENIZER, 2, 2, 12)
    for call in (
        lambda: hyper_training(gpt(), plain),
        lambda: hyper_training(gpt(), tasks(), basis=plain),
        lambda: measure_described(made, plain),
    ):
        with pytest.raises(ValueError, match="must be DescribedTasks"):
            call()
    alone = DescribedTasks({"rome": GROUPS["rome"]}, TOLD, TOKENIZER, "both", 2, 2, 12)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        hyper_training(gpt(), alone, rank=2, progress=False)
    with pytest.raises(ValueError, match="HyperLoRA or a SmallGPT"):
        measure_described(nn.Linear(2, 2), plain)
    assert isinstance(plain.sample(1, gen()), TaskBatch)


def test_a_basis_of_its_own():
    some, other = tasks("texts"), tasks("description")
    made = hyper_training(gpt(), some, basis=other, rank=2, steps=0)
    whole = hyper_training(gpt(), other, rank=2, steps=0)
    assert torch.equal(made.A, whole.A) and torch.equal(made.center, whole.center)
    assert made.history is None


def test_the_model_stays_as_it_is():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    hyper_training(model, tasks(), rank=2, steps=2, progress=False)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
