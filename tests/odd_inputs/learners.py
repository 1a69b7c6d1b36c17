"""Recipes for `foundations`, `optimization` and `metric`.

Most callables get theirs by the names of their parameters (`VALUES`): one name means
one thing all over the package. `OTHER` holds what differs."""

import inspect
import tempfile
from pathlib import Path

import torch
from odd_inputs import Recipe, public_callables
from torch import nn

from metalearn_book.foundations import (
    bilevel,
    encoders,
    inner_loop,
    measuring,
    task_models,
    tasks,
    training,
)
from metalearn_book.metric import relation
from metalearn_book.metric.prototypes import ProtoNet
from metalearn_book.optimization import latent, learned_optimizer
from metalearn_book.optimization.maml import MAML

PARTS = ("foundations", "optimization", "metric")
R = Recipe
DIM, WAY = 4, 3
TEXTS = ["card lost today", "where is my card", "pay the bill", "bill is too high"]
LABELS = ["card", "card", "bill", "bill"]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=gen(seed))


def classes(n: int = 2, per_class: int = 2) -> torch.Tensor:
    return torch.arange(WAY).repeat(per_class).expand(n, -1).clone()


def examples(seed: int = 0) -> tasks.Examples:
    return tasks.Examples(vectors(2, 6, DIM, seed=seed), classes())


def batch() -> tasks.TaskBatch:
    return tasks.TaskBatch(examples(), examples(1))


def class_tasks() -> tasks.ClassTasks:
    return tasks.ClassTasks(vectors(24, DIM), [i % 4 for i in range(24)], WAY, 2, 2)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(DIM, WAY))


def body() -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh())


def loop(cls=inner_loop.InnerLoop, **options):
    return cls(net(), inner_lr=0.1, inner_steps=2, **options)


def evaluation(seed: int = 1) -> measuring.Evaluation:
    return measuring.Evaluation(torch.rand(30, generator=gen(seed)), seed=1)


_ENCODER = []


def encoder() -> encoders.TextEncoder:
    if not _ENCODER:
        _ENCODER.append(encoders.tiny_encoder(TEXTS, hidden=8, layers=1))
    return _ENCODER[0]


def params() -> dict:
    return {"w": vectors(2, 3), "b": vectors(2, seed=1)}


def quadratics():
    return learned_optimizer.QuadraticProblems(3).sample(2, gen())


def folder() -> Path:
    return Path(tempfile.mkdtemp())


def mean_loss(params):
    return params["w"].square().sum()


VALUES = {
    "x": lambda: vectors(2, 6, DIM), "z": lambda: vectors(2, 6, DIM),
    "y": classes, "mask": lambda: torch.ones(2, 6, dtype=torch.bool),
    "logits": lambda: vectors(2, 6, WAY), "prediction": lambda: vectors(2, 6, WAY),
    "texts": lambda: list(TEXTS), "text": lambda: "pay the bill",
    "labels": lambda: list(LABELS), "n_classes": lambda: WAY, "n_way": lambda: WAY,
    "dim": lambda: DIM, "latent_dim": lambda: 2, "n_features": lambda: 16,
    "size": lambda: 3, "examples": examples, "support": examples, "tasks": batch,
    "batch": batch, "model": net, "body": body, "module": net, "learner": lambda:
    MAML(net(), inner_lr=0.1, inner_steps=2), "loop": loop, "params": params,
    "grads": params, "generator": gen, "n_tasks": lambda: 2, "encoder": encoder,
    "tokenizer": lambda: encoder().tokenizer, "max_length": lambda: 8,
    "batch_size": lambda: 2, "steps": lambda: 2, "inner_steps": lambda: 2,
    "inner_lr": lambda: 0.1, "lr": lambda: 0.1, "meta_lr": lambda: 0.1,
    "lam": lambda: 1.0, "k_shot": lambda: 1, "n_query": lambda: 2, "n": lambda: 4,
    "hidden": lambda: 4, "layers": lambda: 1, "weight_decay": lambda: 0.0,
    "head_lr": lambda: 0.1, "optimizer": inner_loop.SGD, "problems": quadratics,
    "matvec": lambda: lambda v: 2 * v, "b": lambda: vectors(2, 3),
    "gram": lambda: 2 * torch.eye(6).expand(2, 6, 6).contiguous(),
    "ours": lambda: vectors(3), "reference": lambda: vectors(3, seed=1),
    "config": lambda: {"model_type": "bert"}, "where": lambda: "here",
    "ids": lambda: [[1, 2], [3]], "name": lambda: "a", "seed": lambda: 0,
    "mean": lambda: vectors(2, 3), "log_std": lambda: vectors(2, 3, seed=1),
    "values": lambda: vectors(2, 3), "path": lambda: folder() / "a.pt",
    "width": lambda: 4, "progress": lambda: False, "n_steps": lambda: 2,
    "n_states": lambda: 1, "features": lambda: vectors(6, DIM),
    "others": lambda: [], "chars": lambda: (3, 4), "what": lambda: "a number",
    "sample_weight": lambda: [1.0, 2.0, 0.5, 1.0], "least": lambda: 1,
    "value": lambda: 3, "device": lambda: "cpu", "n_examples": lambda: 4,
    "task": lambda: 1, "total": lambda: 1.0, "step": lambda: 1,
    "names": lambda: ["w", "b"], "n_boot": lambda: 20, "max_iter": lambda: 20,
    "n_episodes": lambda: 4, "offline": lambda: True, "error": lambda: ValueError("a"),
    "leaves": lambda: [vectors(2), vectors(3)], "statistics": lambda: "batch",
    "batches": lambda: [examples(), examples(1)], "z_query": lambda: vectors(2, 5, DIM),
    "n_words": lambda: 9, "n_out": lambda: WAY, "vocabulary": lambda: {"card": 1},
    "start": params, "noise": lambda: None, "rates": lambda: [0.1, 0.2],
    "mu": lambda: 1.0, "L": lambda: 4.0, "g": lambda: vectors(3),
    "losses": lambda: vectors(2, 3).abs(), "X": lambda: vectors(6, 3),
    "Y": lambda: vectors(6, 4, seed=1), "head": lambda: "0.*",
    "teacher_logits": lambda: vectors(4, WAY), "student_logits": lambda: vectors(4, WAY,
    seed=1), "per_task": lambda: torch.rand(2), "run": lambda: lambda: torch.ones(()),
    "first_order": lambda: False, "tolerance": lambda: 1e-3, "norm": lambda:
    nn.BatchNorm1d(3), "sizes": lambda: [4, 5, 6],
    "parts": lambda: {"a": [1], "b": [2]},
    "lengths": lambda: [3, 1, 2], "share": lambda: 0.5, "freedom": lambda: 5,
    "a": lambda: vectors(2, 6, WAY), "classes": lambda: None, "shared": lambda: (),
    "curvature": lambda: torch.ones(2, 3, 3) + torch.eye(3), "minimizer": lambda:
    vectors(2, 3), "real": lambda: torch.ones(2, 6, dtype=torch.bool),
    "n_batches": lambda: 2, "rows": lambda: torch.tensor([[0, 1], [2, 3]]),
    "progress_": lambda: 0.5, "train_features": lambda: vectors(8, DIM),
    "squared": lambda: 4.0, "along": lambda: 1.0, "spread": lambda: 2.0,
    "n_keep": lambda: 2, "n_in": lambda: 1, "weight": lambda: vectors(2, WAY, DIM),
}  # fmt: skip


def labelled_params(n=2):
    return loop().initial(n)


def loss_of(weights):
    return weights.square().reshape(len(weights), -1).sum(1)


VEC = lambda *shape, seed=0: lambda: vectors(*shape, seed=seed)
SINE = tasks.SinusoidTasks
LINEAR = lambda: bilevel.LinearTasks(2, 3, 3).sample(2, gen())

#: of some parameters by callable, where the name means something else
OTHER: dict[str, dict] = {
    "bilevel.finite_differences": {"fn": lambda: lambda v: v.square().sum(),
                                   "at": lambda: vectors(3).double()},
    "bilevel.compare": {"reference": VEC(3)},
    "bilevel.LinearTasks": {"noise": lambda: 0.1, "spread": lambda: 0.3,
                            "dim": lambda: 2, "dtype": lambda: torch.float64},
    "bilevel.quadratic_form": {"examples": lambda: LINEAR().support},
    "bilevel.QuadraticAnswer": {"tasks": LINEAR},
    "bilevel.binary_cross_entropy_per_task": {"logits": VEC(2, 6),
                                              "y": lambda: classes() % 2},
    "bilevel.mse_per_task": {"y": VEC(2, 6, WAY, seed=1)},
    "encoders.pool": {"hidden": VEC(2, 6, DIM)},
    "encoders.EncodeStats": {"texts": lambda: 1, "tokens": lambda: 2, "positions":
                             lambda: 3, "truncated": lambda: 0, "seconds": lambda: 0.1},
    "encoders.TextEncoder": {"model": lambda: encoder().model, "source": lambda: "a"},
    "encoders.tiny_encoder": {"hidden": lambda: 12},
    "encoders.load_encoder": {"name": lambda: "tiny"},
    "encoders.cached_features": {"key": lambda: "odd"},
    "encoders.LinearPredictor": {"weight": VEC(2, WAY, DIM), "bias": VEC(2, WAY)},
    "encoders.fit_linear_head": {"labels": lambda: classes()[0]},
    "estimators.one_column": {"values": lambda: [1, 2]},
    "estimators.class_array": {"classes": lambda: ["a", "b"]},
    "fine_tuning.TextClassifier": {"head": lambda: nn.Linear(8, 2), "classes":
                                   lambda: ["a", "b"]},
    "fine_tuning.trainable": {"classifier": lambda: classifier(), "train":
                              lambda: "all"},
    "fine_tuning.add_adapters": {"encoder": lambda: fresh()},
    "fine_tuning.fine_tune": {"steps": lambda: 1, "train": lambda: "all"},
    "inner_loop.rate_table": {"names": lambda: ["w", "b"]},
    "inner_loop.fill_unused": {"grads": lambda: [vectors(2, 3), vectors(2)],
                               "unused": lambda: "error"},
    "learning_to_learn.train_on_classes": {"x": VEC(6, DIM), "labels": lambda:
                                           [0, 1, 2, 0, 1, 2]},
    "learning_to_learn.support_classifier": {"n_features": lambda: DIM},
    "next_token.next_token_loss": {"logits": VEC(3, 3), "counts": lambda:
                                          torch.ones(3, 3)},
    "project.classify": {"learner": lambda: ProtoNet(), "examples": lambda:
                                   {"a": ["pay it"], "b": ["lost card"]}},
    "tasks.take": {"x": VEC(5, 2), "index": lambda: torch.tensor([[0, 1], [2, 4]])},
    "tasks.TaskBatch": {"query": lambda: examples(1), "info": dict},
    "tasks.ClassPool": {"x": VEC(4, DIM)},
    "tasks.ClassTasks": {"x": VEC(4, DIM), "n_way": lambda: 2, "n_query": lambda: 1},
    "tasks.check_episode": {"batch": lambda: class_tasks().sample(2, gen())},
    "measuring.mse": {"y": VEC(2, 6, WAY, seed=1)},
    "measuring.Evaluation": {"values": lambda: torch.rand(30)},
    "measuring.OverSeeds": {"shared": lambda: 0.0, "values": lambda: torch.rand(30)},
    "measuring.evaluate": {"tasks": class_tasks, "learner": lambda: ProtoNet()},
    "measuring.paired_difference": {"a": evaluation, "b": lambda: evaluation(2)},
    "measuring.verdict": {"difference": lambda: measuring.paired_difference(
        evaluation(), evaluation(2))},
    "measuring.over_seeds": {"runs": lambda: [evaluation(), evaluation(2)]},
    "training.meta_step": {"optimizer": lambda: torch.optim.SGD(net().parameters())},
    "training.save_checkpoint": {"state": lambda: {"a": 1}},
    "training.load_checkpoint": {"path": lambda: checkpoint()},
    "training.run_differences": {"then": lambda: {"a": 1}, "now": lambda: {"a": 2}},
    "training.describe_run": {"tasks": class_tasks},
    "training.Validation": {"tasks": class_tasks},
    "training.meta_train": {"tasks": class_tasks, "steps": lambda: 1,
                            "tasks_per_step": lambda: 2},
    "self_check.CheckedModel": {"loss_fn": lambda: inner_loop.cross_entropy_per_task},
    **{f"inner_loop.{name}": {
        "loss_fn": lambda: inner_loop.cross_entropy_per_task,
        "rates": lambda: lambda names: torch.full((1, len(names)), 0.1),
        "learn_lr": lambda: False, "check_finite": lambda: True,
        "unused": lambda: "error"} for name in ("InnerStep", "Steps", "InChunks")},
    "training.Run": {"optimizer": lambda: torch.optim.SGD(net().parameters()),
                     "schedule": lambda: None, "step": lambda: 0},
    "inner_loop.steps_to_walk": {"n": lambda: 10, "s": lambda: 3},
    "inner_loop.refuse_kept": {"names": lambda: [], "way": lambda: "adjoint"},
    "inner_loop.adapt_in_a_loop": {
        "loss_fn": lambda: inner_loop.cross_entropy_per_task},
    "measuring.generator_state": {"source": gen},
    "measuring.draw_watched": {"tasks": class_tasks, "watch": lambda: True},
    "measuring.drawn_elsewhere": {"moved": lambda: ["torch"], "then": lambda: "again"},
    "measuring.best_of": {"scores": lambda: {"a": 0.5, "b": 0.7}},
    "task_models.additive_mask": {"mask": lambda: torch.ones(2, 5, dtype=torch.bool),
                                  "causal": lambda: True,
                                  "dtype": lambda: torch.float32},
    "task_models.agree": {"ours": lambda: [vectors(3)], "theirs": lambda: [vectors(3)]},
    "task_models.never_compiled": {"call": lambda: len},
    "task_models.prediction_of": {"output": VEC(2, 3)},
    "verification.slope_along": {"fn": lambda: lambda: torch.ones(()),
                                 "leaves": lambda: [vectors(3)],
                                 "v": lambda: [vectors(3)], "step": lambda: 1e-3},
    "verification.gradient_gap": {"ours": lambda: [vectors(3)],
                                  "reference": lambda: [vectors(3, seed=1)],
                                  "names": lambda: ["w"]},
    "verification.verify": {"n_directions": lambda: 1, "steps": lambda: (1e-5, 1e-6)},
    "verification.difference_error": {"grads": VEC(2)},
    "verification.random_direction": {},
    "implicit.ProximalAnswer": {"tasks": LINEAR},
    "implicit.from_rows": {"rows": VEC(2, 4), "like": lambda: {"w": vectors(2, 3),
                                                              "b": vectors(2, 1)}},
    "implicit.Solution": {"x": VEC(2, 3), "residual": VEC(2), "products": VEC(2),
                          "negative": lambda: torch.zeros(2, dtype=torch.bool)},
    "implicit.ImplicitReport": {"inner": VEC(2), "linear": VEC(2), "negative": lambda:
                                torch.zeros(2, dtype=torch.bool),
                                "products": lambda: 3},
    "implicit.neumann": {"step": lambda: 0.2, "matvec": lambda: lambda v: 2 * v},
    "implicit.inner_residual": {"gradient": VEC(2, 3), "params": VEC(2, 3),
                                "start": VEC(2, 3, seed=2)},
    "latent.descend": {"start": VEC(2, WAY, DIM), "losses_of": lambda: loss_of,
                       "rate": lambda: 0.1},
    "latent.RelationEncoder": {},
    "latent.LatentAdaptation": {"encoder": lambda: latent.RelationEncoder(DIM, 2),
                                "decoder": lambda: latent.WeightDecoder(2, DIM),
                                "finetune_lr": lambda: 0.1, "finetune_steps": lambda: 1,
                                "dropout": lambda: 0.0},
    "latent.LEOPredictor": {"codes": lambda: [vectors(2, 3, 2)], "weights": lambda:
                            [vectors(2, 3, DIM)], "losses": lambda: [vectors(2)],
                            "prepare": lambda: lambda x: x},
    "learned_optimizer.apply_updates": {"updates": params},
    "learned_optimizer.QuadraticProblems": {},
    "learned_optimizer.Quadratics": {"W": VEC(2, 3, 3), "y": VEC(2, 3), "start":
                                     VEC(2, 3)},
    "learned_optimizer.unroll": {"optimizer": lambda: sgd()},
    "learned_optimizer.LearnToOptimize": {"optimizer": lambda:
                                          learned_optimizer.LSTMOptimizer(3, 1)},
    "learned_optimizer.NetworkProblems": {
        "model": lambda: task_models.TaskModel(net()),
        "start": lambda: task_models.TaskModel(net()).initial(2)},
    "learned_optimizer.HypergradientRates": {
        "params": lambda: list(net().parameters()), "base": inner_loop.SGD,
        "per": lambda: "tensor", "normalize": lambda: True},
    "learned_optimizer.MetaOptimizer": {"params": lambda: list(net().parameters())},
    "learned_optimizer.FunctionalOptimizer": {
        "params": lambda: list(net().parameters()), "optimizer": lambda: sgd()},
    "learned_optimizer.as_torch_optimizer": {"params": net, "optimizer": lambda: sgd()},
    "by_hand.ByHand": {"inner": lambda: lambda one, x, y: None},
    "by_hand.StopWhenFlat": {"norm": lambda: 0.1},
    "maml.pre_post": {},
    "maml.adaptation_curve": {"tasks": class_tasks, "steps": lambda: [0, 1]},
    "maml.spread": {"result": evaluation},
    "maml.BasisRegression": {"features": lambda: lambda x: x},
    "maml.pretrain_classifier": {"x": VEC(6, DIM), "y": lambda: [0, 1, 2, 0, 1, 2],
                                 "width": lambda: DIM},
    "maml.FixedLabelTasks": {"tasks": class_tasks},
    "maml.conv_block": {"n_out": lambda: 2},
    "maml.conv4": {"channels": lambda: 2},
    "maml.one_at_a_time": {"predictor": lambda: loop().adapt(examples())},
    "maml.word_ids": {"vocabulary": lambda: None},
    "what_to_adapt.ElementRates": {}, "what_to_adapt.step_weights": {
        "progress": lambda: 0.5},
    "what_to_adapt.representations": {"layers": lambda: ["0"]},
    "closed_form.ridge_weights": {"y": VEC(2, 6, WAY)},
    "closed_form.loo_predictions": {"y": VEC(2, 6, WAY), "lams": lambda:
                                    torch.tensor([0.1, 1.0])},
    "closed_form.newton_direction": {"p": lambda: torch.full((2, 6, WAY), 1 / 3),
                                     "v": VEC(2, 6, WAY)},
    "closed_form.logistic_objective": {"y": lambda: nn.functional.one_hot(
        classes(), WAY).float()},
    "closed_form.damped": {"y": lambda: nn.functional.one_hot(classes(), WAY).float(),
                           "direction": VEC(2, 6, WAY)},
    "closed_form.newton_logistic": {"y": lambda: nn.functional.one_hot(
        classes(), WAY).float()},
    "closed_form.solve_by_class": {"d": lambda: torch.ones(2, 6, WAY), "rhs":
                                   VEC(2, 6, WAY)},
    "closed_form.crammer_singer": {"y": lambda: nn.functional.one_hot(
        classes(), WAY).float(), "c": lambda: torch.tensor(0.1)},
    "closed_form.calibration_error": {"bins": lambda: torch.rand(4, 3, 10)},
    "prototypes.two_class_accuracy": {"k_shot": lambda: 5.0},
    "matching.similarities": {"support": VEC(2, 5, DIM, seed=1)},
    "matching.class_scores": {"scores": VEC(2, 5, 6)},
    "relation.PairLayer": {"left": lambda: nn.Linear(DIM, 3),
                           "right": lambda: nn.Linear(DIM, 3)},
    "relation.MapRelation": {"channels": lambda: 2},
    "relation.RelationNet": {"relation": lambda: relation.CompareRelation(DIM)},
    "relation.relation_squares": {"scores": VEC(2, 6, WAY)},
    "graph.affinity": {"width": lambda: 1.0},
    "graph.LabelPropagation": {"width": lambda: 0.5},
    "graph.normalized": {"weights": lambda: torch.rand(2, 6, 6, generator=gen())},
    "graph.propagate": {"graph": lambda: torch.full((2, 6, 6), 0.1),
                        "labels": VEC(2, 6, WAY)},
    "prototypes.refined_means": {"weights": lambda: torch.full((2, 5, WAY), 1 / 3)},
    "prototypes.Transductive": {"learner": lambda: ProtoNet()},
    "prototypes.UnbalancedQueries": {"tasks": class_tasks},
    "self_check.twice": {"run": lambda: lambda: [torch.ones(2)]},
    "inner_loop.adapt_by_adjoint": {"params": lambda: loop().initial(2)},
    "next_token.frequent_words": {"size": lambda: 6},
    "next_token.bigram_counts": {"vocabulary": lambda: [
        "<unk>", "<s>", "</s>", "card"]},
    "implicit.to_rows": {"params": lambda: loop().initial(2)},
    "implicit.ReverseProducts": {"params": lambda: loop().initial(2)},
    "implicit.ForwardProducts": {"params": lambda: loop().initial(2)},
    "learned_optimizer.optimize": {"batch": lambda: 2, "optimizer": lambda: sgd()},
    "learned_optimizer.tune": {"optimizer": inner_loop.SGD, "rates":
                               lambda: [0.01, 0.1, 0.2]},
    "what_to_adapt.split_names": {"head": lambda: "1.*", "model": lambda: two_layers()},
    "what_to_adapt.ANIL": {"head": lambda: "1.*", "model": lambda: two_layers()},
    "what_to_adapt.BOIL": {"head": lambda: "1.*", "model": lambda: two_layers()},
    "prototypes.bregman_divergence": {"phi": lambda: lambda v: v.square().sum(-1),
                                      "z": VEC(2, 5, DIM), "c": VEC(2, 5, DIM)},
    "proto_maml.ProtoMAML": {"temperature": lambda: 0.5},
    "proto_maml.implied_prior": {"hessian": lambda: torch.diag(torch.ones(3))},
    "proto_maml.map_estimate": {"x": VEC(6, 3), "y": VEC(6), "start": VEC(3),
                                "covariance": lambda: torch.eye(3),
                                "noise_variance": lambda: 0.5},
    "proto_maml.RandomTargets": {"tasks": lambda: SINE(2, 2)},
    "proto_maml.ShuffledLabels": {"tasks": class_tasks},
}  # fmt: skip


def fresh():
    return encoders.tiny_encoder(TEXTS, hidden=12, layers=1)


def classifier():
    from metalearn_book.foundations.fine_tuning import TextClassifier

    return TextClassifier(fresh(), nn.Linear(12, 2), ["a", "b"])


def checkpoint() -> Path:
    training.save_checkpoint(folder_ := folder() / "a.pt", {"a": 1})
    return folder_


#: learners whose use needs more than `examples()`
NOT_USED = ("LearnToOptimize", "ClosedFormHead", "LatentAdaptation", "InnerStep",
            "Steps", "InChunks")  # fmt: skip


def sgd():
    return learned_optimizer.WithRate(inner_loop.SGD(), 0.1)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, DIM), nn.Linear(DIM, WAY))


def losses_of(tasks):
    return tasks.query.x.square().mean((1, 2))


def adapts(learner):
    "What a learner is made for."
    if type(learner).__name__ in NOT_USED:
        return None
    return learner.adapt(examples())(vectors(2, 5, DIM, seed=3))


RECORDS = {"foundations.encoders.EncodeStats", "foundations.training.History",
           "foundations.training.Best", "foundations.training.Run",
           "optimization.implicit.ImplicitReport",
           "optimization.implicit.Solution"}  # fmt: skip


def by_names(key: str, fn) -> Recipe:
    "A recipe from the names of the parameters; KeyError for a name without a value."
    other, makers = OTHER.get(key.split(".", 1)[1], {}), {}
    for name, p in inspect.signature(fn).parameters.items():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if name in other:
            makers[name] = other[name]
        elif p.default is p.empty or (p.default is None and name == "mask"):
            makers[name] = VALUES[name]
        elif name in VALUES and isinstance(p.default, (int, float)):
            makers[name] = VALUES[name]
        else:
            makers[name] = lambda d=p.default: d
    free = ("what", "name", "text", "where", "prefix", "key", "kind", "way", "then")
    kinds = {n: "text" for n in free if n in makers}
    if key in RECORDS:  # it holds what it is given
        kinds = {n: "thing" for n in makers}
    kinds |= {n: "texts" for n in ("texts",) if n in makers and makers[n]() is not None}
    if key == "foundations.verification.wide":  # leaves what is no tensor as it is
        kinds["value"] = "leave"
    learner = inspect.isclass(fn) and issubclass(fn, nn.Module) and hasattr(fn, "adapt")
    return R(lambda: {n: m() for n, m in makers.items()}, adapts if learner else None,
             kinds, "two_class" in key)  # fmt: skip


REASONS: dict[str, str] = {}
RECIPES: dict[str, Recipe] = {}
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("foundations.bilevel.compare", "ours"): "an AssertionError is what it is for",
    ("foundations.self_check.largest_difference", "reference"): "tells by infinity "
    "that the shapes differ",
}

for _key, _fn in public_callables(PARTS).items():
    RECIPES[_key] = by_names(_key, _fn)
