"""Properties of LEO that the chapter does not have to show."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalearn_book.foundations.bilevel import finite_differences, relative_difference
from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.tasks import ClassTasks, Examples
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.training import meta_train
from metalearn_book.optimization.latent import (
    LEO,
    RelationEncoder,
    WeightDecoder,
    by_class,
    descend,
    kl_to_standard,
    reparameterize,
    softmax_losses,
)
from shared import double, gen

DIM = 6


def clusters(n_classes=12, per_class=12, noise=0.3, seed=0):
    g = gen(seed)
    centres = torch.randn(n_classes, DIM, generator=g)
    x = centres.repeat_interleave(per_class, 0) + noise * torch.randn(
        n_classes * per_class, DIM, generator=g
    )
    return F.normalize(x, dim=-1), [
        i // per_class for i in range(n_classes * per_class)
    ]


def tasks(n_way=3, k_shot=2, n_query=4, seed=0):
    return ClassTasks(*clusters(seed=seed), n_way=n_way, k_shot=k_shot, n_query=n_query)


def leo(seed=0, **options):
    torch.manual_seed(seed)
    return LEO(
        DIM, **{"latent_dim": 2, "inner_steps": 2, "finetune_steps": 2, **options}
    ).double()


def gradient(loss, model):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(model.parameters(), found)
        ]
    )


def batch(n=3, seed=1, **options):
    return double(tasks(**options).sample(n, gen(seed)))


# ---------------------------------------------------------------- the formulas


def test_by_class_sorts_every_task_by_itself():
    x = torch.arange(12.0).view(2, 6, 1)
    y = torch.tensor([[0, 1, 2, 2, 1, 0], [2, 2, 0, 0, 1, 1]])
    assert by_class(Examples(x, y))[..., 0].tolist() == [
        [[0, 5], [1, 4], [2, 3]],
        [[8, 9], [10, 11], [6, 7]],
    ]


@pytest.mark.parametrize(
    "y, mask",
    [
        ([[0, 0, 0, 1]], None),
        ([[0, 0, 2, 2]], None),
        ([[0, 1, 2, 0]], None),
        ([[1, 1, 2, 2]], None),
        ([[0, 0, 1, 1]], [[True, True, True, False]]),
    ],
)
def test_unequal_shots_and_missing_labels_are_refused(y, mask):
    support = Examples(
        torch.randn(1, 4, DIM, dtype=torch.float64),
        torch.tensor(y),
        None if mask is None else torch.tensor(mask),
    )
    with pytest.raises(ValueError, match="equal"):
        leo().adapt(support)


def test_one_uneven_task_in_a_batch_is_refused():
    y = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match=r"\[2, 2\], \[3, 1\]"):
        by_class(Examples(torch.randn(2, 4, DIM), y))


def test_a_mask_that_hides_nothing_is_fine():
    b = batch()
    full = Examples(
        b.support.x, b.support.y, torch.ones_like(b.support.y, dtype=torch.bool)
    )
    m = leo().eval()
    assert torch.equal(m.adapt(full).weights[-1], m.adapt(b.support).weights[-1])


def test_other_bad_input():
    b = batch()
    with pytest.raises(ValueError, match=f"dim={DIM}"):
        leo().adapt(Examples(b.support.x[..., :-1], b.support.y))
    with pytest.raises(ValueError, match="dict"):
        leo().adapt(Examples({"x": b.support.x}, b.support.y))
    with pytest.raises(ValueError, match="features"):
        leo().adapt(Examples(b.support.x[..., None], b.support.y))
    with pytest.raises(ValueError, match="steps must be at least 0"):
        leo().adapt(b.support, inner_steps=-1)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        leo().adapt(b.support)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"latent_dim": 0}, "at least 1"),
        ({"inner_steps": -1}, "inner_steps must be at least 0"),
        ({"finetune_steps": -2}, "finetune_steps must be at least 0"),
        ({"dropout": 1.0}, "dropout must be a finite number at least 0 and below 1"),
        ({"start_std": 0.0}, "start_std must be a finite number above 0"),
        ({"kl_weight": -0.1}, "kl_weight must be a finite number at least 0"),
        ({"encoder_penalty": -1.0}, "encoder_penalty must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LEO(DIM, **options)


def test_kl_equals_torch_and_is_zero_only_at_the_prior():
    mean, log_std = torch.randn(2, 50, 4, generator=gen(), dtype=torch.float64)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()),
        torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean)),
    ).sum(-1)
    torch.testing.assert_close(
        kl_to_standard(mean, log_std), reference, rtol=1e-12, atol=1e-12
    )
    assert (
        kl_to_standard(mean, log_std).min() > 0
        and kl_to_standard(torch.zeros(4), torch.zeros(4)) == 0
    )


def test_reparameterized_samples_have_the_right_moments_and_gradients():
    mean, log_std = (
        torch.tensor([1.0, -2.0]).double().requires_grad_(),
        torch.tensor([0.2, -1.0]).double().requires_grad_(),
    )
    z = reparameterize(
        mean, log_std, torch.randn(200_000, 2, generator=gen(), dtype=torch.float64)
    )
    torch.testing.assert_close(z.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), log_std.exp(), atol=0.02, rtol=0)
    g_mean, g_log = torch.autograd.grad(z.square().mean(0).sum(), (mean, log_std))
    torch.testing.assert_close(g_mean, 2 * mean, atol=0.03, rtol=0)
    torch.testing.assert_close(g_log, 2 * (2 * log_std).exp(), atol=0.05, rtol=0)


# ---------------------------------------------------------------- encoder and decoder


@pytest.mark.parametrize("relation", [True, False])
def test_encoder_is_equivariant(relation):
    torch.manual_seed(0)
    encoder, x = (
        RelationEncoder(DIM, 3, relation).double(),
        torch.randn(2, 4, 3, DIM, generator=gen(), dtype=torch.float64),
    )
    mean, log_std = encoder(x)
    order = torch.tensor([3, 0, 2, 1])
    for got, want in zip(encoder(x[:, order]), (mean[:, order], log_std[:, order])):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(encoder(x.flip(2))[0], mean)
    # tasks do not see each other
    torch.testing.assert_close(encoder(x[:1])[0], mean[:1])
    other = x.clone()
    other[:, 1] += 1
    # classes see each other through the relation network only
    assert torch.allclose(encoder(other)[0][:, 0], mean[:, 0]) is not relation


def test_relation_codes_pair_by_pair():
    torch.manual_seed(0)
    encoder, x = (
        RelationEncoder(DIM, 3).double(),
        torch.randn(1, 2, 3, DIM, generator=gen(), dtype=torch.float64),
    )
    e = encoder.embed(x[0]).flatten(0, 1)
    for n in range(2):
        pairs = torch.stack(
            [
                encoder.relation(torch.cat([e[3 * n + k], e[m]]))
                for k in range(3)
                for m in range(6)
            ]
        )
        torch.testing.assert_close(
            torch.cat([encoder(x)[0][0, n], encoder(x)[1][0, n] - encoder.offset]),
            pairs.mean(0),
        )


def test_decoder_without_noise_is_linear_and_correlation_by_hand():
    torch.manual_seed(0)
    for stochastic in (True, False):
        decoder = WeightDecoder(3, DIM, stochastic).double()
        z = torch.randn(2, 4, 3, generator=gen(), dtype=torch.float64)
        torch.testing.assert_close(decoder(z), z @ decoder.matrix.T)
        v = decoder.linear.weight.T
        c = torch.tensor(
            [
                [
                    F.cosine_similarity(v[i], v[j], dim=0).item() - (i == j)
                    for j in range(3)
                ]
                for i in range(3)
            ],
            dtype=torch.float64,
        )
        torch.testing.assert_close(decoder.correlation(), c.square().mean())
        noise = torch.randn(2, 4, DIM, generator=gen(), dtype=torch.float64)
        assert torch.equal(decoder(z, noise), decoder(z)) is not stochastic


# ---------------------------------------------------------------- adaptation


def test_descend_equals_a_plain_optimizer():
    x, y = batch().support.x, batch().support.y
    start = torch.randn(3, 3, DIM, generator=gen(), dtype=torch.float64)
    points, losses = descend(start, lambda w: softmax_losses(w, x, y), 0.3, 4)
    w = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([w], lr=0.3)
    for t in range(4):
        loss = torch.stack([F.cross_entropy(x[b] @ w[b].T, y[b]) for b in range(3)])
        torch.testing.assert_close(losses[t], loss.detach())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        torch.testing.assert_close(points[t + 1], w.detach())


def test_descend_without_gradients_from_a_view_of_a_parameter():
    x, y, shared = (
        batch().support.x,
        batch().support.y,
        nn.Parameter(torch.zeros(3, DIM, dtype=torch.float64)),
    )
    with torch.no_grad():
        points, _ = descend(
            shared.expand(3, -1, -1), lambda w: softmax_losses(w, x, y), 0.3, 2
        )
    assert not points[-1].requires_grad
    torch.testing.assert_close(
        points[-1],
        descend(shared.expand(3, -1, -1), lambda w: softmax_losses(w, x, y), 0.3, 2)[0][
            -1
        ].detach(),
    )


def test_descend_stops_at_a_loss_that_is_not_finite():
    with pytest.raises(RuntimeError, match="not finite"):
        descend(torch.full((2, 1), torch.inf), lambda w: w.sum(1), 0.1, 1)


@pytest.mark.parametrize("latent_dim", [1, 2, 9])
def test_latent_steps_are_steps_in_the_learned_metric(latent_dim):
    m, b = leo(latent_dim=latent_dim, inner_steps=6, finetune_steps=0).eval(), batch()
    with torch.no_grad():
        adapted, D = m.adapt(b.support), m.decoder.matrix
        start = adapted.weights[0]
    w = start.clone().requires_grad_()
    for _ in range(6):
        (g,) = torch.autograd.grad(softmax_losses(w, b.support.x, b.support.y).sum(), w)
        w = (w - m.inner_lr * g @ D @ D.T).detach().requires_grad_()
    torch.testing.assert_close(adapted.weights[-1], w.detach(), rtol=1e-10, atol=1e-12)


def test_tasks_do_not_influence_each_other_and_grad_mode_changes_nothing():
    m, b = leo().eval(), batch()
    together = m.adapt(b.support).weights[-1]
    alone = torch.cat([m.adapt(b.support[i]).weights[-1] for i in range(3)])
    torch.testing.assert_close(together, alone)
    with torch.no_grad():
        assert torch.equal(m.adapt(b.support).weights[-1], together)


def test_renumbered_classes_give_renumbered_logits():
    m, b, order = leo().eval(), batch(), torch.tensor([2, 0, 1])
    other = Examples(b.support.x, order[b.support.y])
    torch.testing.assert_close(
        m.adapt(other)(b.query.x)[..., order], m.adapt(b.support)(b.query.x)
    )


def test_number_of_ways_and_shots_is_free():
    m = leo().eval()
    for n_way, k_shot in ((2, 1), (5, 3)):
        b = batch(n_way=n_way, k_shot=k_shot)
        assert m.adapt(b.support)(b.query.x).shape == (3, n_way * 4, n_way)


def test_steps_are_counted_and_may_be_overridden():
    m, b = leo().eval(), batch()
    p = m.adapt(b.support, inner_steps=4, finetune_steps=0)
    assert (len(p.codes), len(p.weights), len(p.losses)) == (5, 5, 4)
    none = m.adapt(b.support, 0, 0)
    torch.testing.assert_close(none.weight, none.mean @ m.decoder.matrix.T)
    assert none.losses == []


def test_sampling_in_training_only():
    m, b = leo(), batch()
    torch.manual_seed(0)
    assert not torch.equal(
        m.train().adapt(b.support).codes[0], m.adapt(b.support).codes[0]
    )
    assert torch.equal(m.eval().adapt(b.support).weight, m.adapt(b.support).weight)


# ---------------------------------------------------------------- the outer loss


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relation": False},
        {"stochastic_decoder": False},
        {"inner_steps": 0},
        {"finetune_steps": 0},
    ],
)
def test_meta_gradient_by_finite_differences(options):
    m, b = (
        leo(
            encoder_penalty=0.0, kl_weight=0.1, orthogonality=0.1, l2=0.01, **options
        ).train(),
        batch(2),
    )
    at = nn.utils.parameters_to_vector(m.parameters()).detach()

    def loss(v):
        nn.utils.vector_to_parameters(v, m.parameters())
        torch.manual_seed(5)
        return m(b)

    automatic = gradient(loss(at), m)
    assert (
        relative_difference(
            automatic, finite_differences(lambda v: loss(v).detach(), at)
        )
        < 1e-6
    )


def test_encoder_penalty_moves_the_encoder_only():
    m, b = leo().train(), batch()
    torch.manual_seed(0)
    pull = m.penalties(m.adapt(b.support))["encoder"]
    found = dict(
        zip(
            (n for n, _ in m.named_parameters()),
            torch.autograd.grad(pull, list(m.parameters()), allow_unused=True),
        )
    )
    for name, g in found.items():
        assert (g is not None and g.abs().max().item() > 0) is name.startswith(
            "encoder."
        )


def test_forward_is_the_weighted_sum():
    b, weights = (
        batch(),
        {"kl_weight": 0.3, "encoder_penalty": 0.2, "orthogonality": 0.1, "l2": 0.01},
    )
    m = leo(**weights).train()
    torch.manual_seed(0)
    total = m(b)
    torch.manual_seed(0)
    p = m.adapt(b.support)
    parts = m.penalties(p)
    query = torch.stack(
        [F.cross_entropy(b.query.x[i] @ p.weight[i].T, b.query.y[i]) for i in range(3)]
    ).mean()
    by_hand = (
        query
        + 0.3 * parts["kl"]
        + 0.2 * parts["encoder"]
        + 0.1 * parts["orthogonality"]
        + 0.01 * parts["l2"]
    )
    torch.testing.assert_close(total, by_hand)
    assert total.dim() == 0


def test_dropout_acts_in_training_only():
    m, b = leo(dropout=0.5), batch()
    assert torch.equal(m.eval()(b), m(b))
    x = torch.ones(1, 4, DIM, dtype=torch.float64)
    assert torch.equal(m.adapt(b.support).prepare(x), x) and not torch.equal(
        m.train().adapt(b.support).prepare(x), x
    )


def test_hand_set_leo_is_the_prototype_rule():
    m = LEO(
        DIM,
        DIM,
        inner_steps=0,
        finetune_steps=0,
        relation=False,
        stochastic_decoder=False,
    ).eval()
    with torch.no_grad():
        m.encoder.embed.weight.copy_(torch.eye(DIM))
        m.encoder.alone.weight.copy_(F.pad(torch.eye(DIM), (0, 0, 0, DIM)))
        m.decoder.linear.weight.copy_(torch.eye(DIM))
    few = tasks(n_way=4, k_shot=1)
    ours, prototypes = evaluate(m, few, 50), evaluate(NearestPrototype(), few, 50)
    torch.testing.assert_close(ours.values, prototypes.values, atol=0.01, rtol=0)


def test_meta_training_learns_and_state_dict_round_trip():
    few = tasks(n_way=3, k_shot=1)
    torch.manual_seed(0)
    m = LEO(DIM, 4)
    before = evaluate(m, few, 60).mean
    meta_train(m, few, steps=60, tasks_per_step=8, outer_lr=5e-3, progress=False)
    after = evaluate(m, few, 60)
    assert (
        after.mean > before + 0.02
        and m.inner_lr.item() != 1.0
        and m.finetune_lr.item() != 0.3
    )
    other = LEO(DIM, 4)
    other.load_state_dict(copy.deepcopy(m.state_dict()))
    assert torch.equal(evaluate(other, few, 60).values, after.values)
