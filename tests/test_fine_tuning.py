"""Fine-tuning: what is trained, repeatability, bad input, adapters, second order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metalearn_book.foundations.encoders import TextEncoder, fingerprint, tiny_encoder
from metalearn_book.foundations.fine_tuning import (
    Adapter,
    TextClassifier,
    adapter_parameters,
    add_adapters,
    fine_tune,
    from_scratch,
    shuffled_batches,
    trainable,
    warmup_linear,
)
from metalearn_book.foundations.tasks import Examples

TEXTS = [
    "turn the lamp off",
    "move fifty from savings to checking",
    "hi",
    "did you pay the rent this week ?",
    "anna",
    "remind grace to call emma at noon please",
]


@pytest.fixture
def encoder() -> TextEncoder:
    return tiny_encoder(TEXTS)


LABELS = ["home", "money", "talk", "money", "talk", "home"]


@pytest.mark.parametrize("train", ["all", 1, "head"])
def test_fine_tuning_fits_and_leaves_the_encoder_alone(encoder, train):
    before = fingerprint(encoder)
    classifier = fine_tune(
        encoder, TEXTS, LABELS, train=train, steps=60, batch_size=3, lr=1e-3, l2=1e-4
    )
    assert fingerprint(encoder) == before and all(
        p.requires_grad for p in encoder.parameters()
    )
    assert (
        classifier.classes == ["home", "money", "talk"]
        and classifier.predict(TEXTS) == LABELS
    )
    assert classifier.logits(TEXTS).shape == (6, 3)
    if train != "head":
        assert (
            len(classifier.losses) == 60
            and classifier.losses[-1] < classifier.losses[0] / 2
        )
        moved = [
            n
            for (n, p), q in zip(
                classifier.encoder.model.named_parameters(), encoder.model.parameters()
            )
            if not torch.equal(p, q)
        ]
        assert (
            all("layer.1." in n for n in moved)
            if train == 1
            else any("embeddings" in n for n in moved)
        )


def test_fine_tuning_is_repeatable(encoder):
    def run(seed):
        return fine_tune(encoder, TEXTS, LABELS, steps=5, seed=seed).logits(TEXTS)

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    a = run(1)
    assert torch.equal(
        torch.rand(3), expected
    )  # the caller's random state is untouched
    assert torch.equal(a, run(1)) and not torch.allclose(a, run(2))


def test_fine_tuning_works_where_gradients_are_off(encoder):
    with torch.no_grad():
        assert len(fine_tune(encoder, TEXTS, LABELS, steps=2).losses) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"labels": LABELS[:-1]}, "6 texts but 5 labels"),
        ({"labels": ["a"] * 6}, "at least two classes"),
        ({"classes": ["home", "money"]}, "not among the classes"),
        (
            {"train": "some"},
            "'head', 'all', 'adapters' or a number of layers from 1 to 2",
        ),
        ({"train": 3}, "from 1 to 2"),
        ({"train": 0}, "from 1 to 2"),
        ({"train": True}, "from 1 to 2"),
        ({"steps": 0}, "at least 1"),
        ({"texts": TEXTS[:-1] + [""]}, "empty"),
    ],
)
def test_bad_fine_tuning(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        fine_tune(
            **{"encoder": encoder, "texts": TEXTS, "labels": LABELS, "steps": 1}
            | options
        )


def test_classes_without_examples_are_allowed(encoder):
    classifier = fine_tune(
        encoder, TEXTS, LABELS, classes=["home", "money", "talk", "weather"], steps=2
    )
    assert classifier.logits(TEXTS).shape == (6, 4)


def test_from_scratch_shares_the_shape_only(encoder):
    other = from_scratch(encoder, seed=9)
    assert [p.shape for p in other.parameters()] == [
        p.shape for p in encoder.parameters()
    ]
    assert fingerprint(other) != fingerprint(encoder) and fingerprint(
        other
    ) == fingerprint(from_scratch(encoder, seed=9))
    assert (other.pooling, other.max_length) == (encoder.pooling, encoder.max_length)


# ---------------------------------------------------------------- second order


def test_a_classifier_can_be_meta_learned():
    from metalearn_book.foundations.inner_loop import InnerLoop

    model = (
        TextClassifier(
            tiny_encoder(TEXTS, attention="eager"), torch.nn.Linear(48, 2), ["a", "b"]
        )
        .double()
        .eval()
    )
    loop = InnerLoop(model, inner_lr=0.1, inner_steps=1)
    tokens = {
        k: v.view(1, 6, -1).repeat(2, 1, 1)
        for k, v in model.encoder.tokenize(TEXTS).items()
    }
    y = torch.tensor([[0, 1] * 3, [1, 1, 1, 0, 0, 0]])

    def loss():
        return F.cross_entropy(
            loop.adapt(Examples(tokens, y))(tokens).flatten(0, 1), y.flatten()
        )

    weight = model.encoder.model.encoder.layer[0].attention.self.query.weight
    exact = torch.autograd.grad(loss(), weight)[0]
    direction = torch.randn(
        weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double
    )
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-5 * direction)
        values.append(loss().item())
        with torch.no_grad():
            weight.sub_(sign * 1e-5 * direction)
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(
        (exact * direction).sum().item(), rel=1e-4, abs=1e-9
    )


# ---------------------------------------------------------------- adapters


def test_adapter_by_hand():
    adapter, h = (
        Adapter(5, 2).double(),
        torch.randn(
            3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        ),
    )
    assert torch.equal(adapter(h), h)
    for p in adapter.parameters():
        p.data = torch.randn(
            p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype
        )
    low = h @ adapter.down.weight.T + adapter.down.bias
    gelu = low * 0.5 * (1 + torch.erf(low / 2**0.5))
    torch.testing.assert_close(
        adapter(h), h + gelu @ adapter.up.weight.T + adapter.up.bias
    )


def test_only_adapters_and_head_are_trained(encoder):
    before, adapted = encoder.encode(TEXTS), add_adapters(encoder, 3)
    torch.testing.assert_close(adapted.encode(TEXTS), before)
    assert fingerprint(adapted) != fingerprint(
        encoder
    )  # the cache must not take one for the other
    model = fine_tune(
        adapted, TEXTS[:4], ["a", "a", "b", "b"], train="adapters", steps=10, lr=1e-2
    )
    start, end = (dict(e.model.named_parameters()) for e in (adapted, model.encoder))
    changed = {n for n in start if not torch.equal(start[n], end[n])}
    assert (
        changed == {n for n in start if "dense.1." in n}
        and len(changed) == 2 * 4 * encoder.n_layers
    )
    assert torch.equal(encoder.encode(TEXTS), before) and torch.allclose(
        adapted.encode(TEXTS), before, atol=1e-6
    )


def test_adapters_ask_for_what_they_need(encoder):
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        add_adapters(encoder, 0)
    with pytest.raises(ValueError, match="pass add_adapters"):
        fine_tune(encoder, TEXTS[:2], ["a", "b"], train="adapters")
    with pytest.raises(
        ValueError, match="'adapters' or a number of layers from 1 to 2"
    ):
        fine_tune(encoder, TEXTS[:2], ["a", "b"], train="adapter")


def test_the_groups_of_the_optimizer(encoder):
    classifier = TextClassifier(encoder, torch.nn.Linear(48, 2), ["a", "b"])
    groups = trainable(classifier, "all", lr=1e-4, head_lr=1e-2, weight_decay=0.1)
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [
        (1e-4, 0.1),
        (1e-4, 0.0),
        (1e-2, 0.0),
    ]
    assert all(p.dim() > 1 for p in groups[0]["params"]) and all(
        p.dim() == 1 for p in groups[1]["params"]
    )
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(
        p.numel() for p in classifier.parameters()
    )


def test_the_number_of_adapter_parameters(encoder):
    assert adapter_parameters(encoder) == []
    new = sum(p.numel() for p in adapter_parameters(add_adapters(encoder, 5)))
    assert new == 2 * encoder.n_layers * (2 * 5 * 48 + 5 + 48)


def test_the_schedule_rises_and_falls():
    factors = [warmup_linear(s, 20) for s in range(20)]
    assert factors[:2] == [0.5, 1.0] and factors[1:] == sorted(
        factors[1:], reverse=True
    )
    assert min(factors) > 0 and warmup_linear(0, 1) == 1.0


def test_every_example_comes_once_before_any_comes_again():
    torch.manual_seed(0)
    batches = list(shuffled_batches(5, 2, 6))
    assert [len(b) for b in batches] == [2, 2, 1] * 2
    assert (
        sorted(sum(batches[:3], [])) == sorted(sum(batches[3:], [])) == [0, 1, 2, 3, 4]
    )
