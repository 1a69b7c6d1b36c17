"""Domains as tasks: what is drawn, and what trains."""

import pytest
import torch
from shared import gen

from metalearn_book.case_studies import sentiment
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.tasks import Examples, normalized_text


def tasks(**options):
    y = torch.arange(24) % 2
    domains = ["a"] * 12 + ["b"] * 12
    x = {"hidden": torch.arange(24.0)[:, None], "mask": torch.ones(24, 1)}
    return sentiment.DomainTasks(x, y, domains, **{"k_shot": 2, "n_query": 3} | options)


def test_a_task_is_of_one_domain_and_its_parts_are_apart():
    drawn = tasks().sample(100, gen())
    rows = [e.x["hidden"][..., 0].long() for e in (drawn.support, drawn.query)]
    both = torch.cat(rows, 1)
    assert ((both < 12).all(1) | (both >= 12).all(1)).all()
    assert (both < 12).all(1).any() and (both >= 12).all(1).any()
    assert all(len(set(row)) == len(row) == 10 for row in both.tolist())
    for row, e in zip(rows, (drawn.support, drawn.query)):
        assert torch.equal(e.y, row % 2)  # labels keep their meaning
        assert torch.equal(e.y.sum(1), torch.full((100,), e.y.shape[1] // 2))


def test_of_names_the_domains_and_the_seed_decides():
    only = tasks(of=["b"])
    a, b = (only.sample(5, gen(3)).query.x["hidden"] for _ in range(2))
    assert torch.equal(a, b) and a.min() >= 12


@pytest.mark.parametrize(
    "options, said",
    [({"k_shot": 4}, "6 rows of class 0, and a task needs 7"), ({"of": ["c"]}, "c")],
)
def test_what_cannot_be_drawn_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        tasks(**options)


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="4 labels but 5 domains"):
        sentiment.DomainTasks(torch.ones(4, 1), torch.tensor([0, 1] * 2), ["a"] * 5)


def test_sentences_come_once_and_are_short():
    data, encoder = load_dataset_by_name("tiny_sentiment"), load_encoder("tiny")
    some = sentiment.short_sentences(data, encoder, longest=12, most=5, seed=1)
    keys = [normalized_text(t) for t in some.texts]
    assert len(set(keys)) == len(keys)
    assert max(len(i) for i in encoder.token_ids(some.texts)) <= 12
    for domain in set(some.row_domains):
        labels = some.where(domain=domain).labels
        assert max(labels.count(c) for c in set(labels)) <= 5
    again = sentiment.short_sentences(data, encoder, longest=12, most=5, seed=1)
    assert again.texts == some.texts


@pytest.fixture(scope="module")
def methods():
    data, encoder = load_dataset_by_name("tiny_sentiment"), load_encoder("tiny")
    some = sentiment.short_sentences(data, encoder, 24, 20)
    y = torch.tensor([int(v == "positive") for v in some.labels])
    found = sentiment.DomainMethods(encoder, some.texts, y, some.row_domains, 2, 2)
    return found, sorted(set(some.row_domains))


RATES = {name: values[0] for name, values in sentiment.METHODS.items()}


@pytest.mark.parametrize("name", sentiment.METHODS)
def test_each_method_adapts_and_sees_no_label_of_the_query(methods, name):
    found, domains = methods
    learner = found.learner(name, domains[:-1], RATES)
    tasks = found.tasks(domains[-1:], 2, 3).sample(3, gen())
    logits = learner.adapt(tasks.support)(tasks.query.x)
    assert logits.shape == (3, 6, 2) and logits.isfinite().all()
    again = found.learner(name, domains[:-1], RATES).adapt(tasks.support)
    assert torch.allclose(again(tasks.query.x), logits, atol=1e-5)
    other = found.tasks(domains[-1:], 2, 3).sample(3, gen(9)).support
    same = torch.allclose(learner.adapt(other)(tasks.query.x), logits, atol=1e-6)
    assert same == (name in ("sources, frozen", "multi-task, not adapted"))


def test_sources_are_all_that_is_learned_from(methods):
    "With labels of the new domain turned round, what never saw them says the same."
    found, domains = methods
    turned = sentiment.DomainMethods.__new__(sentiment.DomainMethods)
    turned.__dict__.update(found.__dict__ | {"_known": {}, "seconds": {}})
    new = torch.tensor([d == domains[-1] for d in found.domains])
    turned.y = torch.where(new, 1 - found.y, found.y)
    x = found.tasks(domains[-1:], 2, 3).sample(1, gen()).query.x
    support = found.tasks(domains[:1], 2, 3).sample(1, gen()).support
    for name in sentiment.METHODS:
        a, b = (m.learner(name, domains[:-1], RATES) for m in (found, turned))
        assert torch.allclose(a.adapt(support)(x), b.adapt(support)(x), atol=1e-6), name


def test_the_search_tries_each_value_on_the_other_source(methods):
    found, domains = methods
    some = {
        n: sentiment.METHODS[n] for n in ("sources, frozen", "class means", "ridge")
    }
    rows = found.search(*domains[:2], some, n_episodes=3)
    assert {n: tuple(row) for n, row in rows.items()} == some
    rates = sentiment.chosen_rates(rows)
    for name, row in rows.items():
        assert row[rates[name]].mean == max(e.mean for e in row.values())


def test_a_weight_of_the_support_is_that_many_copies():
    rows = torch.nn.functional.normalize(torch.randn(40, 5, generator=gen()), dim=-1)
    y = (rows[:, 0] > 0).long()
    support = Examples(rows[None, 20:26], y[None, 20:26])
    body, fit = torch.nn.Identity(), sentiment.fit_head
    found = sentiment.SourceHead(body, rows[:20], y[:20], 3, 1e-2).adapt(support)
    some = [*range(20), *range(20, 26), *range(20, 26), *range(20, 26)]
    weight, bias = fit(rows[some], y[some], 2, "logistic", None, 1e-2)
    by_hand = rows[26:] @ weight.T + bias
    assert torch.allclose(found(rows[None, 26:])[0], by_hand, atol=1e-2)
    half = torch.tensor([[True] * 3 + [False] * 3])
    masked = sentiment.SourceHead(body, rows[:20], y[:20], 3, 1e-2).adapt(
        Examples(rows[None, 20:26], y[None, 20:26], half)
    )
    short = sentiment.SourceHead(body, rows[:20], y[:20], 3, 1e-2).adapt(
        Examples(rows[None, 20:23], y[None, 20:23])
    )
    x = rows[None, 26:]
    assert torch.allclose(masked(x), short(x), atol=1e-2)


def test_the_head_learns_at_its_own_rate(methods):
    learner = methods[0].learner("MAML", methods[1][:1], RATES)
    groups = sentiment.outer_optimizer(learner, 1e-4, 0.05).param_groups
    sizes = {g["lr"]: sum(p.numel() for p in g["params"]) for g in groups}
    head = learner.loop.model.head
    assert sizes[0.05] == sum(p.numel() for p in head.parameters())
    every = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    assert sum(sizes.values()) == every
    with pytest.raises(ValueError, match="no weights"):
        sentiment.outer_optimizer(torch.nn.Identity(), 0.1, 0.1)
