from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metalearn_book.book.patch import patch
from metalearn_book.case_studies.text_classification import _class_numbers
from metalearn_book.case_studies.text_meta_training import TopLayers
from metalearn_book.data import LabeledTexts
from metalearn_book.data.arguments import choice, real, several, shapes, shown
from metalearn_book.data.arguments import whole
from metalearn_book.foundations.encoders import TextEncoder
from metalearn_book.foundations.tasks import Examples, TaskBatch, normalized_text
from metalearn_book.foundations.tasks import take
from metalearn_book.metric.closed_form import RidgeHead
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.optimization.maml import MAML

def _check_encoder(encoder) -> None:
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"encoder must be a TextEncoder, got {shown(encoder)}")


def short_sentences(
    data: LabeledTexts,  # sentences with their domains
    encoder: TextEncoder,  # whose tokens are counted
    longest: int = 24,  # tokens, special ones included
    most: int = 150,  # sentences of each label in a domain, drawn at random
    seed: int = 0,
) -> LabeledTexts:
    "The sentences that are not too long, each once, case and punctuation aside."
    longest, most = whole("longest", longest), whole("most", most)
    generator = torch.Generator().manual_seed(whole("seed", seed, None))
    if not isinstance(data, LabeledTexts) or data.row_domains is None:
        raise ValueError(f"data must be LabeledTexts with domains, got {shown(data)}")
    _check_encoder(encoder)
    kept, count, known = [], Counter(), set()
    for i in torch.randperm(len(data), generator=generator).tolist():
        key, text = (data.row_domains[i], data.labels[i]), normalized_text(data.texts[i])
        if text in known or count[key] >= most:
            continue
        if len(encoder.tokenizer(data.texts[i], verbose=False)["input_ids"]) <= longest:
            kept.append(i), known.add(text)
            count[key] += 1
    return data._keep(sorted(kept))

class DomainTasks:
    """Tasks of domains that share their labels: each task draws from one domain, and
    label c means the same in all.

    x: `(N, ...)`, or a dict of such tensors. y: labels `(N,)`, from 0. domains: of each
    row. k_shot, n_query: examples of each class in support and query. of: the domains
    that tasks are drawn from; None: all. ValueError where one has too few of a class.
    """

    def __init__(
        self, x, y: Tensor, domains: Sequence, k_shot: int = 5, n_query: int = 5, of=None
    ):
        self.k_shot, self.n_query = whole("k_shot", k_shot), whole("n_query", n_query)
        parts = x if isinstance(x, dict) else {"x": x}
        shapes(y=(y, "N+"), **{name: (v, "N ...") for name, v in parts.items()})
        self.x, self.y = x, _class_numbers(y, len(y))
        domains = several("domains", domains, least=len(y))
        if len(domains) != len(y):
            raise ValueError(f"{len(y)} labels but {len(domains)} domains")
        known = sorted(set(domains), key=str)
        of = known if of is None else several("of", of)
        self.groups = {choice("of", d, known): self._rows(domains, d) for d in of}

@patch
def _rows(self: DomainTasks, domains: list, domain) -> list[Tensor]:
    "The rows of each class in a domain."
    own = torch.tensor([d == domain for d in domains])
    rows = [(own & (self.y == c)).nonzero()[:, 0] for c in range(int(self.y.max()) + 1)]
    need, least = self.k_shot + self.n_query, min(map(len, rows))
    if least < need:
        raise ValueError(
            f"domain {domain!r} has {least} rows of a class, and a task needs {need}; "
            "lower k_shot or n_query"
        )
    return rows


@patch
def sample(self: DomainTasks, n_tasks: int, generator: torch.Generator) -> TaskBatch:
    "Tasks of domains drawn at random, support and query apart."
    names, k, drawn = list(self.groups), self.k_shot, []
    n_tasks = whole("n_tasks", n_tasks)
    for i in torch.randint(len(names), (n_tasks,), generator=generator).tolist():
        some = [
            rows[torch.randperm(len(rows), generator=generator)[: k + self.n_query]]
            for rows in self.groups[names[i]]
        ]
        support, query = ([r[:k] for r in some], [r[k:] for r in some])
        drawn.append([torch.cat(support), torch.cat(query)])
    parts = [torch.stack(rows) for rows in zip(*drawn)]
    return TaskBatch(*(Examples(take(self.x, r), self.y[r]) for r in parts))

def review_learners(
    encoder: TextEncoder,  # its top layer is copied, once for each learner
    inner_lr: float = 0.02,  # of the layer; learned in MAML
    inner_steps: int = 5,  # on the support set
    head_lr: float = 5.0,  # of the head, which starts from zero
) -> dict[str, nn.Module]:
    "Learners of two labels on the `lower_states` of sentences, by name."
    _check_encoder(encoder)
    inner_lr, head_lr = real("inner_lr", inner_lr, 0), real("head_lr", head_lr, 0)
    rates = {"layers.*": inner_lr, "head.*": head_lr}
    steps = whole("inner_steps", inner_steps, 0)
    body = lambda: TopLayers(encoder, 1).eval()
    top = lambda n, **more: MAML(
        TopLayers(encoder, 1, 2).eval(),
        inner_lr=rates,
        inner_steps=n,
        first_order=True,
        **more,
    )
    return {
        "class means": ProtoNet(body(), temperature=0.1),
        "ridge": RidgeHead(body(), lam=0.3, scale=10.0, free_bias=True),
        "tuned": top(steps),
        "multi-task": top(0),
        "class means, meta-trained": ProtoNet(body(), temperature=0.1),
        "ridge, meta-trained": RidgeHead(body(), lam=0.3, scale=10.0, free_bias=True),
        "MAML": top(steps, learn_lr="tensor"),
    }

def outer_optimizer(learner: nn.Module, lr: float, head_lr: float):
    """AdamW for a learner on the top of an encoder: `lr` for the layers and the rest,
    `head_lr` for the weights of a linear head, which start from zero.
    """
    lr, head_lr = real("lr", lr, 0), real("head_lr", head_lr, 0)
    if not isinstance(learner, nn.Module):
        raise ValueError(f"learner must be a module, got {shown(learner)}")
    groups = {lr: [], head_lr: []} if lr != head_lr else {lr: []}
    for name, p in learner.named_parameters():
        groups[head_lr if ".head." in f".{name}" else lr].append(p)
    groups = [{"params": some, "lr": rate} for rate, some in groups.items() if some]
    if not groups:
        raise ValueError(f"learner has no weights to train, got {shown(learner)}")
    return torch.optim.AdamW(groups, weight_decay=0.01)