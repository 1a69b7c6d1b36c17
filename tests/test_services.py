"""Services as tasks: real groups, texts in front of a query, unseen names."""

import pytest
import torch
from shared import gen
from tiny_texts import gpt, tasks

from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.meta_gpt2 import (
    MetaGPT2,
    measure_groups,
    tiny_groups,
)
from metalearn_book.language_models.services import in_context_nats, service_groups
from metalearn_book.language_models.services import _with_rates
from metalearn_book.language_models.services import topic_groups


def test_texts_in_front_by_value():
    model, batch = gpt(), tasks(3, 1).of_group("lima", gen(5))
    rows = [
        x[y != -100].tolist() for x, y in zip(batch.support.x[0], batch.support.y[0])
    ]
    q = batch.query.x[0, 0][batch.query.y[0, 0] != -100].tolist()
    share = lambda r: len(set(r) & set(q)) / len(set(r) | set(q))
    order, chosen = sorted(rows, key=lambda r: -share(r)), []
    for row in order:
        if sum(map(len, chosen)) + len(row) > 40 - len(q):
            break
        chosen = [row, *chosen]
    whole = torch.tensor([sum(chosen, []) + q])
    with torch.no_grad():
        logits = model(whole)[0, -len(q) : -1]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(q[1:]))
    torch.testing.assert_close(in_context_nats(model, batch)[0].float(), nats)


def test_without_room_the_context_is_empty():
    model, batch = gpt(12), tasks().sample(2, gen(6))
    alone = small_gpt.causal_loss_per_task(
        torch.stack([model(x) for x in batch.query.x]), batch.query.y
    )
    found = in_context_nats(model, batch, 12)
    # a text shorter than the cut may leave room for nothing else either
    torch.testing.assert_close(found.float(), alone.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("context", [11, 41, 12.5, True])
def test_a_context_that_does_not_fit_is_refused(context):
    with pytest.raises(ValueError, match="context must be"):
        in_context_nats(gpt(), tasks().sample(1, gen()), context)


@pytest.mark.parametrize("groups", [service_groups, topic_groups])
def test_parts_that_are_none_are_refused(groups):
    with pytest.raises(ValueError, match="part must be one of"):
        groups("dev")


def test_real_services_of_the_parts_share_no_service_and_no_text(real_data):
    real_data("sgd")
    parts = {p: service_groups(p) for p in ("train", "validation", "test")}
    assert [len(found) for found in parts.values()] == [24, 4, 16]
    names = [set(found) for found in parts.values()]
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    texts = [{t for some in found.values() for t in some} for found in parts.values()]
    assert not texts[0] & texts[2]
    assert all(t.startswith("<dialogue>") for t in texts[2])


def test_generated_groups_are_dialogues_of_one_intent():
    found = tiny_groups("train")
    assert len(found) > 5 and all(len(some) > 1 for some in found.values())
    for name, some in found.items():
        assert all(name.replace("_", " ") in text for text in some)


def test_a_start_with_other_rates_is_the_same_start():
    some = tasks(2, 1)
    made = MetaGPT2(gpt(12), some.tokenizer, length=12, learn_lr="tensor")
    one = _with_rates(made, 0.05)
    assert one.loop.inner_lr.shape == made.loop.inner_lr.shape
    assert (one.loop.inner_lr == 0.05).all()
    with torch.no_grad():
        made.loop.inner_lr.mul_(torch.rand(made.loop.inner_lr.shape, generator=gen(7)))
    same, other = _with_rates(one, made.loop.inner_lr), _with_rates(made, 0.05)
    values = [measure_groups(m, some).values for m in (made, same, one, other)]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[2], values[3])
    assert not torch.allclose(values[0], values[2])
    assert one.loop.model is not made.loop.model  # a copy
