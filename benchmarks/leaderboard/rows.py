"""The rows of the table: which method, how it is made, and what its search tries.

A learner of the package that is not named here becomes a row by itself where its
arguments say how (`body`, `model`, `dim`, `inner_lr`), and is otherwise reported as
missing; `LEFT_OUT` says why a learner is no row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import torch
from beds import Bed, body, items, model, tasks, width
from learners import found_learners

from metalearn_book.foundations.bilevel import mse_per_task
from metalearn_book.foundations.encoders import LinearProbe, NearestPrototype
from metalearn_book.foundations.learning_to_learn import support_classifier
from metalearn_book.foundations.measuring import evaluate
from metalearn_book.foundations.tasks import Examples
from metalearn_book.metric.closed_form import LOORidge, RidgeHead
from metalearn_book.metric.graph import GraphNet, LabelPropagation
from metalearn_book.metric.matching import FullContext, MatchingNet
from metalearn_book.metric.prototypes import ProtoNet, Transductive
from metalearn_book.metric.relation import CompareRelation, RelationNet
from metalearn_book.model_based.memory import MANN, RecurrentLearner
from metalearn_book.model_based.neural_process import AttentiveNP, ConditionalNP
from metalearn_book.model_based.neural_process import ExactGP, LatentNP
from metalearn_book.model_based.prior_fitted import PFNClassifier, PFNRegressor
from metalearn_book.model_based.prior_fitted import bars_of
from metalearn_book.optimization.implicit import ImplicitMAML
from metalearn_book.optimization.latent import LEO
from metalearn_book.optimization.maml import MAML, BasisRegression, OneAtATime
from metalearn_book.optimization.maml import pretrain_classifier
from metalearn_book.optimization.proto_maml import ProtoMAML
from metalearn_book.optimization.what_to_adapt import BOIL

CLASSES = frozenset({"images", "text", "layers"})
NUMBERS = frozenset({"numbers"})
#: batch normalization of these takes its statistics from the queries too
BY_STEPS = {"MAML", "ANIL", "BOIL", "MetaSGD", "MAMLpp", "Reptile", "CarryingReptile",
            "ImplicitMAML", "ProtoMAML"}  # fmt: skip

#: graphs of pairs of vectors, sequences over the support set, an Adam for each task
SLOW = {"GraphNet", "MatchingNet, full context", "CarryingReptile"}

#: learners of the package that are no row, and why
LEFT_OUT = {
    "TokenPrototypes": "labels each word of a sentence",
    "SpanTyping": "labels spans of a sentence",
    "SourceHead": "needs labelled rows of other domains in each task",
    "HyperLoRA": "reads a description of the task with a language model",
    "hyper_training": "reads a description of the task with a language model",
    "MetaGPT2": "adapts a language model",
    "meta_learning": "adapts a language model",
    "StreamMAML": "adapts a language model along a stream",
    "InContextRegressor": "answers behind each pair of a sequence of fixed length",
    "Steps": "the base of inner loops",
    "InChunks": "the base of inner loops",
    "InnerLoop": "the engine of MAML; it has no outer loss of its own",
    "ElementRates": "the engine of Meta-SGD",
    "ImplicitLoop": "the engine of ImplicitMAML",
    "SolvesBackward": "a base of ImplicitLoop",
    "RunsForward": "a base of ImplicitLoop",
    "MixedLoop": "the engine of MAML with less memory: the same numbers",
    "ByHand": "the inner loop is the reader's; plain steps are MAML",
    "AtSteps": "a view of MAML with another number of steps",
    "ClosedFormHead": "the base of the heads",
    "LatentAdaptation": "the base of LEO",
    "LearnedPrototypes": "the quick start's ProtoNet without a bias of its own",
    "NearestPrototype": "row Nearest prototype, frozen",
    "LinearProbe": "row Logistic regression, frozen",
    "support_classifier": "row Fine-tuning per episode",
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    make: `(bed, options)` -> learner, after the seed was set. grid: options that the
    search tries, of the same number for all that are trained. trained: has it outer
    steps? kinds: the beds where it can run. features: what it sees. parent: the row
    whose trained learner it is another view of. transductive: do the answers to the
    queries of an episode depend on one another?
    """

    name: str
    learner: str
    make: Callable
    grid: Callable
    kinds: frozenset = CLASSES
    trained: bool = True
    features: dict = field(default_factory=dict)
    parent: str = ""
    transductive: Callable = lambda bed: False
    note: str = ""

    def runs_on(self, bed: Bed) -> bool:
        return bed.kind in self.kinds and not self.too_long(bed)

    def too_long(self, bed: Bed) -> bool:
        "Rows that take minutes for a cell of texts are measured on one bed of them."
        if bed.kind in ("images", "numbers"):
            return False
        slow = self.name in SLOW and bed.name != "banking77 5w1s"
        return slow or self.name == "GraphNet, queries together"


# --- what the searches try: six candidates each -------------------------------------

OUTER = {
    "text": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "layers": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "images": (3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "numbers": (3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
}
INNER = {
    "text": ((0.5, 2.0, 8.0), (1e-4, 1e-3)),
    "layers": ((0.01, 0.1, 1.0), (3e-5, 3e-4)),
    "images": ((0.05, 0.2, 0.8), (1e-3, 4e-3)),
    "numbers": ((0.003, 0.01, 0.03), (1e-3, 5e-3)),
}


def outer_rates(bed: Bed) -> list[dict]:
    return [{"outer_lr": v} for v in OUTER[bed.kind]]


def both_rates(bed: Bed) -> list[dict]:
    inner, outer = INNER[bed.kind]
    return [{"inner_lr": a, "outer_lr": b} for a, b in product(inner, outer)]


#: inner rates of texts where they differ from INNER: those whose head alone moves bear
#: larger ones, an inner Adam wants smaller ones, and so on
OWN_INNER = {
    "ANIL": {"text": (10.0, 50.0, 250.0)},
    "BOIL": {"text": (10.0, 50.0, 250.0)},
    "CarryingReptile": {
        "text": (0.001, 0.003, 0.01),
        "layers": (0.0001, 0.0003, 0.001),
        "images": (0.0003, 0.001, 0.003),
        "numbers": (0.003, 0.01, 0.03),
    },
    "ProtoMAML": {"text": (0.05, 0.3, 2.0)},
    "LEO": {"text": (1.0, 3.0, 10.0)},
}


def own_rates(name: str) -> Callable:
    def grid(bed: Bed) -> list[dict]:
        inner, outer = INNER[bed.kind]
        inner = OWN_INNER[name].get(bed.kind, inner)
        return [{"inner_lr": a, "outer_lr": b} for a, b in product(inner, outer)]

    return grid


def proximal(bed: Bed) -> list[dict]:
    "Weights of the proximal term; the inner rate follows from them."
    weights = {"numbers": (0.1, 0.5, 2.0)}.get(bed.kind, (0.02, 0.1, 0.5))
    return [{"lam": a, "outer_lr": b} for a, b in product(weights, INNER[bed.kind][1])]


def values(name: str, *options) -> Callable:
    return lambda bed: [{name: v} for v in options]


def nothing(bed: Bed) -> list[dict]:
    return [{}]


# --- how learners are made ----------------------------------------------------------


def from_signature(learner: Callable) -> Callable | None:
    """How to make a learner of which the arguments say all: `body`, `model`, `dim` or
    `width` are of the bed, `inner_lr` is searched. None where others are needed."""
    parameters = inspect.signature(learner).parameters
    known = {"body", "model", "dim", "width"}
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
             inspect.Parameter.KEYWORD_ONLY)  # fmt: skip
    needed = {
        n for n, p in parameters.items() if p.default is p.empty and p.kind in plain
    }
    if needed - known or not {"body", "model"} & set(parameters):
        return None

    def make(bed: Bed, options: dict):
        given: dict = {}
        if "body" in parameters:
            given["body"] = body(bed)
        if "model" in parameters:
            given["model"] = model(bed, zero=learner is not BOIL)
        for name in needed & {"dim", "width"}:
            given[name] = width(bed)
        if "loss_fn" in parameters and bed.kind == "numbers":
            given["loss_fn"] = mse_per_task
        if has_inner_steps(learner):
            given |= {"inner_lr": options["inner_lr"], "inner_steps": bed.inner_steps}
        return learner(**given)

    return make


def has_inner_steps(learner: Callable) -> bool:
    parameters = inspect.signature(learner).parameters
    return "inner_lr" in parameters or (
        "model" in parameters
        and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    )


def by_itself(name: str, learner: Callable) -> list[Row]:
    make = from_signature(learner)
    if make is None:
        return []
    steps = has_inner_steps(learner)
    takes_model = "model" in inspect.signature(learner).parameters
    return [
        Row(
            name,
            name,
            make,
            (own_rates(name) if name in OWN_INNER else both_rates)
            if steps
            else outer_rates,
            kinds=CLASSES | NUMBERS if takes_model else CLASSES,
            transductive=lambda bed: name in BY_STEPS and bed.kind == "images",
        )
    ]


def pretrained(bed: Bed, options: dict, steps: int, seed: int) -> ProtoNet:
    """A body trained on all training classes at once, with as many items as episodes;
    of four lengths of training the one that is best on validation classes."""
    n_query, found = tasks(bed, "train").n_query, []
    x, labels = items(bed, "train")
    settings = {"width": width(bed), "lr": options["outer_lr"], "seed": seed}
    settings["batch_size"] = bed.tasks_per_step * bed.n_way * (bed.k_shot + n_query)
    for length in sorted({max(steps * k // 4, 1) for k in (1, 2, 3, 4)}):
        torch.manual_seed(seed)
        net = body(bed)
        pretrain_classifier(net, x, labels, steps=length, **settings)
        learner = ProtoNet(net.eval(), learn_temperature=False)
        value = evaluate(learner, tasks(bed, "validation"), bed.validation, seed=1)
        found.append((value.mean, -length, learner))
    return max(found, key=lambda f: f[:2])[2]


def bars(bed: Bed):
    draws = tasks(bed, "train").sample(500, torch.Generator().manual_seed(7))
    return bars_of(draws.query.y.flatten(), 100)


class MeanOfSupport:
    "Answers with the mean of the support set."

    def adapt(self, support: Examples):
        mean = support.y.mean(1, keepdim=True)
        return lambda x: mean.expand(-1, x.shape[1], -1)


def implicit(bed: Bed, options: dict) -> ImplicitMAML:
    "Half of the largest rate at which the proximal term alone is stable."
    loss = {"loss_fn": mse_per_task} if bed.kind == "numbers" else {}
    rate = min(0.5 / options["lam"], 0.02 if bed.kind == "numbers" else 10.0)
    return ImplicitMAML(model(bed), inner_lr=rate, lam=options["lam"],
                        inner_steps=bed.inner_steps, **loss)  # fmt: skip


def two_rates(bed: Bed, options: dict) -> MAML:
    "One rate for a head that starts at zero, a hundredth of it for the body."
    rate = options["inner_lr"]
    rates = {"head.*": rate, "body.*": rate / 100}
    return MAML(model(bed), inner_lr=rates, inner_steps=bed.inner_steps)


VECTORS = frozenset({"text"})
FLAT = {"images": "pixels"}
IN_ORDER = "reads the support set in the order of the episode, class by class"
_ROWS = {
    "NearestPrototype": [
        Row("Nearest prototype, frozen", "NearestPrototype",
            lambda bed, o: NearestPrototype(**o),
            values("metric", "euclidean", "cosine"),
            kinds=CLASSES - {"layers"}, trained=False, features=FLAT),
        Row("TF-IDF prototypes", "NearestPrototype",
            lambda bed, o: NearestPrototype(**o),
            values("metric", "euclidean", "cosine"),
            kinds=VECTORS, trained=False, features={"text": "words"}),
        Row("Pretrained body, prototypes", "NearestPrototype", pretrained, outer_rates,
            kinds=CLASSES, note="all training classes at once, as many items"),
    ],
    "LinearProbe": [
        Row("Logistic regression, frozen", "LinearProbe",
            lambda bed, o: LinearProbe(**o),
            values("l2", 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0),
            kinds=CLASSES - {"layers"}, trained=False, features=FLAT),
    ],
    "support_classifier": [
        Row("Fine-tuning per episode", "support_classifier",
            lambda bed, o: support_classifier(body(bed), width(bed), bed.n_way,
                                              train="all", inner_steps=20, **o),
            values("inner_lr", 0.003, 0.03, 0.1, 0.3, 1.0, 10.0), kinds=CLASSES,
            trained=False, transductive=lambda bed: bed.kind == "images"),
    ],
    "RidgeHead": [
        Row("Ridge regression, frozen", "RidgeHead", lambda bed, o: RidgeHead(**o),
            values("lam", 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0),
            kinds=CLASSES - {"layers"}, trained=False, features=FLAT),
    ],
    "LOORidge": [
        Row("Ridge regression, own penalty", "LOORidge", lambda bed, o: LOORidge(),
            nothing, kinds=CLASSES - {"layers"}, trained=False, features=FLAT,
            note="each task chooses its penalty by leaving one out"),
    ],
    "MatchingNet": [
        Row("MatchingNet, full context", "MatchingNet",
            lambda bed, o: MatchingNet(body(bed), context=FullContext(width(bed))),
            outer_rates, kinds=CLASSES),
    ],
    "RelationNet": [
        Row("RelationNet", "RelationNet",
            lambda bed, o: RelationNet(body(bed), CompareRelation(width(bed))),
            outer_rates),
    ],
    "LabelPropagation": [
        Row("LabelPropagation", "LabelPropagation",
            lambda bed, o: LabelPropagation(body(bed)),
            lambda bed: [{"outer_lr": v} for v in (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)],
            transductive=lambda bed: True),
    ],
    "GraphNet": [
        Row("GraphNet", "GraphNet", lambda bed, o: GraphNet(width(bed), body(bed)),
            outer_rates),
        Row("GraphNet, queries together", "GraphNet",
            lambda bed, o: GraphNet(width(bed), body(bed), together=True), outer_rates,
            transductive=lambda bed: True),
    ],
    "Transductive": [
        Row("ProtoNet, soft k-means", "Transductive",
            lambda learner, o: Transductive(learner, **o),
            values("steps", 1, 2, 5), parent="ProtoNet",
            transductive=lambda bed: True),
    ],
    "OneAtATime": [
        Row("MAML, one query at a time", "OneAtATime",
            lambda learner, o: OneAtATime(learner), nothing,
            kinds=frozenset({"images"}), parent="MAML"),
    ],
    "ProtoMAML": [
        Row("ProtoMAML", "ProtoMAML",
            lambda bed, o: ProtoMAML(body(bed), width(bed), inner_lr=o["inner_lr"],
                                     inner_steps=bed.inner_steps),
            own_rates("ProtoMAML"), transductive=lambda bed: bed.kind == "images"),
    ],
    "ImplicitMAML": [
        Row("ImplicitMAML", "ImplicitMAML", implicit, proximal,
            kinds=CLASSES | NUMBERS, transductive=lambda bed: bed.kind == "images"),
    ],
    "MAML": [
        Row("MAML, small rate for the body", "MAML", two_rates, own_rates("ANIL"),
            kinds=VECTORS, note="the body moves at a hundredth of the head's rate"),
    ],
    "LEO": [
        Row("LEO", "LEO",
            lambda bed, o: LEO(width(bed), 32, inner_lr=o["inner_lr"]),
            own_rates("LEO"),
            kinds=VECTORS),
    ],
    "PFNClassifier": [
        Row("PFNClassifier", "PFNClassifier",
            lambda bed, o: PFNClassifier(width(bed), bed.n_way), outer_rates,
            kinds=VECTORS, note="trained on episodes, not on drawn tables"),
    ],
    "MANN": [
        Row("MANN", "MANN", lambda bed, o: MANN(width(bed), bed.n_way, body(bed)),
            outer_rates, kinds=CLASSES - {"layers"}, note=IN_ORDER),
    ],
    "RecurrentLearner": [
        Row("RecurrentLearner", "RecurrentLearner",
            lambda bed, o: RecurrentLearner(width(bed), bed.n_way, body(bed)),
            outer_rates, kinds=CLASSES - {"layers"}, note=IN_ORDER),
    ],
    "ConditionalNP": [
        Row("ConditionalNP", "ConditionalNP", lambda bed, o: ConditionalNP(),
            outer_rates, kinds=NUMBERS),
    ],
    "AttentiveNP": [
        Row("AttentiveNP", "AttentiveNP", lambda bed, o: AttentiveNP(), outer_rates,
            kinds=NUMBERS),
    ],
    "LatentNP": [
        Row("LatentNP", "LatentNP", lambda bed, o: LatentNP(), outer_rates,
            kinds=NUMBERS),
    ],
    "PFNRegressor": [
        Row("PFNRegressor", "PFNRegressor", lambda bed, o: PFNRegressor(bars(bed)),
            outer_rates, kinds=NUMBERS, note="trained on the tasks themselves"),
    ],
    "ExactGP": [
        Row("Gaussian process", "ExactGP",
            lambda bed, o: ExactGP(scale=2.0, noise=0.01, **o),
            values("length", 0.25, 0.5, 1.0, 1.5, 2.0, 3.0), kinds=NUMBERS,
            trained=False),
    ],
    "BasisRegression": [
        Row("Least squares on sin and cos", "BasisRegression",
            lambda bed, o: BasisRegression(lambda x: torch.cat([x.sin(), x.cos()], -1)),
            nothing, kinds=NUMBERS, trained=False,
            note="is told the family of functions: nothing can be better"),
    ],
}  # fmt: skip
#: rows that are beside the one that a learner gets by itself
BESIDES = {"MAML", "RidgeHead", "MatchingNet"}
PLAIN = [
    Row("Mean of the support set", "MeanOfSupport", lambda bed, o: MeanOfSupport(),
        nothing, kinds=NUMBERS, trained=False),
]  # fmt: skip


def all_rows(found: dict | None = None) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows by name; and the learners of the package that are none, with the reason.

    found: learners by name; those of the package if None.
    """
    found = found_learners() if found is None else found
    rows, none = list(PLAIN), {}
    for name, learner in sorted(found.items()):
        own = list(_ROWS.get(name, []))
        if name not in _ROWS or name in BESIDES:
            own += [] if name in LEFT_OUT else by_itself(name, learner)
        rows += own
        if not own:
            none[name] = LEFT_OUT.get(
                name,
                "no row yet: its arguments don't say how to make it; add it to _ROWS "
                "or LEFT_OUT in benchmarks/leaderboard/rows.py",
            )
    return {row.name: row for row in rows}, none
