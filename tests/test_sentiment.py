"""Domains as tasks: what is drawn, and what trains."""

import pytest
import torch
from shared import gen

from metalearn_book.case_studies import sentiment
from metalearn_book.data import load_dataset_by_name
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.tasks import normalized_text


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
    [({"k_shot": 4}, "6 rows of a class, and a task needs 7"), ({"of": ["c"]}, "c")],
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


def test_the_head_learns_at_its_own_rate():
    learners = sentiment.review_learners(load_encoder("tiny"), 0.02, 1)
    groups = sentiment.outer_optimizer(learners["MAML"], 1e-4, 0.05).param_groups
    sizes = {g["lr"]: sum(p.numel() for p in g["params"]) for g in groups}
    head = learners["MAML"].loop.model.head
    assert sizes[0.05] == sum(p.numel() for p in head.parameters())
    every = sum(p.numel() for p in learners["MAML"].parameters() if p.requires_grad)
    assert sum(sizes.values()) == every
    with pytest.raises(ValueError, match="no weights"):
        sentiment.outer_optimizer(torch.nn.Identity(), 0.1, 0.1)
