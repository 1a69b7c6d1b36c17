"""Programs of others, each used as its own documentation does, with MiniLM as encoder.

A program is made once for a bed and a seed, and then answers one episode after the
other: it sees the support texts with their labels, and the query texts. Imports stand
inside, so that this module can be read where none of them is installed.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from beds import Bed, body, tasks
from cells import SEARCH_SEED, VALIDATION_SEED
from rows import OUTER
from torch import Tensor, nn

from metalearn_book.foundations.encoders import load_encoder

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path += [p for p in [str(BENCHMARKS)] if p not in sys.path]
from rivals import FOLDER, load_learn2learn  # noqa: E402


@dataclass(frozen=True)
class Episode:
    """One episode, as texts and as vectors of the frozen encoder.

    support, query: texts; x, query_x: their vectors, `(S, dim)` and `(Q, dim)`; y:
    labels `(S,)`; names: the class behind each label. The answers are kept apart.
    """

    support: list[str]
    y: Tensor
    query: list[str]
    x: Tensor
    query_x: Tensor
    names: list[str]


Answers = Callable[[Episode], Tensor]  # episode -> (Q,) labels


@dataclass(frozen=True)
class Program:
    """A program of others, or a line of ours beside it.

    make: `(bed, seed)` -> `answers(episode)`. packages: of the package index, that it
    needs. sees_names: does it read the names of the classes, which no row of the table
    does? trained: on episodes of other classes. settings: what was chosen, and where
    that is recommended.
    """

    name: str
    make: Callable[[Bed, int], Answers]
    packages: tuple[str, ...] = ()
    sees_names: bool = False
    trained: bool = False
    settings: str = ""

    def versions(self) -> dict[str, str]:
        "Versions of its packages. RuntimeError: some are not installed."
        sys.path += [p for p in [str(FOLDER)] if p not in sys.path]  # behind ours
        missing = [p for p in self.packages if not _there(p)]
        if missing:
            raise RuntimeError(
                f"{self.name} needs {' and '.join(missing)}, not installed here; "
                f"install with: benchmarks/rivals.sh .venv {' '.join(missing)}"
            )
        return {name: version(name) for name in self.packages}


def _there(package: str) -> bool:
    module = {"fast-fit": "fastfit", "sentence-transformers": "sentence_transformers"}
    return importlib.util.find_spec(module.get(package, package)) is not None


def folder_of_minilm() -> str:
    "The folder of MiniLM's weights, which every program loads by itself."
    return load_encoder("minilm").model.name_or_path


# --- SetFit ---------------------------------------------------------------------------


def setfit(bed: Bed, seed: int) -> Answers:
    """The body is tuned on pairs of texts, then a logistic regression on its vectors.
    All settings are the library's defaults (1.2.0): one epoch over its oversampled
    pairs, 16 at a time, rate 2e-5."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    start = SentenceTransformer(folder_of_minilm(), device="cpu")

    def answers(episode: Episode) -> Tensor:
        model = SetFitModel(copy.deepcopy(start), LogisticRegression())
        given = {"text": episode.support, "label": episode.y.tolist()}
        with tempfile.TemporaryDirectory() as folder, _silent():
            how = TrainingArguments(folder, report_to="none", save_strategy="no",
                                    show_progress_bar=False)  # fmt: skip
            Trainer(model, how, Dataset.from_dict(given)).train()
            return torch.as_tensor(model.predict(episode.query))

    return answers


# --- FastFit --------------------------------------------------------------------------


def _fastfit_trainer():
    """FastFit's trainer. Version 1.2.1 is of May 2024; three names that it uses are
    gone from datasets and transformers, and are put back here: `load_metric`, which is
    for `evaluate` alone, the argument `tokenizer` of `Trainer`, now called
    `processing_class`, and `overwrite_output_dir`, which asks for old checkpoints."""
    import datasets

    gone = not hasattr(datasets, "load_metric")
    if gone:
        datasets.load_metric = lambda *_, **__: None
    try:
        import fastfit.train as theirs
    finally:
        if gone:
            del datasets.load_metric
    theirs.load_metric = lambda *_, **__: None
    own = theirs.transformers.Trainer

    class Renamed(own):
        def __init__(self, *given, tokenizer=None, **named):
            super().__init__(*given, processing_class=tokenizer, **named)

    class Repaired(theirs.FastFitTrainer):
        def set_last_checkpoint(self):
            self.checkpoint = None

    theirs.Trainer = Renamed
    return Repaired


#: of FastFit's README, "Training with python", less `fp16`, which wants a GPU
FASTFIT = {
    "num_train_epochs": 40,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "max_text_length": 128,
    "dataloader_drop_last": False,
    "num_repeats": 4,
    "optim": "adafactor",
    "clf_loss_factor": 0.1,
}


def fastfit(bed: Bed, seed: int) -> Answers:
    """Texts and names of classes are drawn together token by token; a query goes to the
    class whose name is most similar. Settings of its README."""
    import datasets

    class Unhashed(datasets.Dataset):
        "Four seconds of an episode would go into names for a cache of no use here."

        def map(self, *given, **named):
            return super().map(*given, new_fingerprint=uuid.uuid4().hex[:16], **named)

    datasets.disable_progress_bars()
    trainer, folder = _fastfit_trainer(), folder_of_minilm()

    def answers(episode: Episode) -> Tensor:
        names = [episode.names[i] for i in episode.y.tolist()]
        train = Unhashed.from_dict({"text": episode.support, "label": names})
        with tempfile.TemporaryDirectory() as out, _silent():
            given = trainer(
                train_dataset=train, test_dataset=train,  # it insists on one
                model_name_or_path=folder, text_column_name="text",
                label_column_name="label", output_dir=out, save_strategy="no",
                report_to="none", use_cpu=True, disable_tqdm=True, log_level="error",
                **FASTFIT,
            )  # fmt: skip
            model = given.train().eval()
        ids = given.tokenizer(
            episode.query,
            padding=True,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        scores = model.inference_forward(ids["input_ids"], ids["attention_mask"])
        place = torch.tensor([episode.names.index(name) for name in given.labels])
        return place[scores.argmax(-1)]

    return answers


@contextlib.contextmanager
def _silent():
    "What a trainer prints at each episode is thrown away; errors are not."
    with contextlib.redirect_stdout(io.StringIO()):
        yield


# --- learn2learn ----------------------------------------------------------------------


def _prototypical(features: nn.Module):
    load_learn2learn()
    from learn2learn.nn import PrototypicalClassifier

    def answers(episode: Episode) -> Tensor:
        with torch.no_grad():
            head = PrototypicalClassifier(features(episode.x), episode.y)
            return head(features(episode.query_x)).argmax(-1)

    return answers


def l2l_frozen(bed: Bed, seed: int) -> Answers:
    "Its prototypical head on the vectors as they are."
    return _prototypical(nn.Identity())


def _l2l_trained(bed: Bed, seed: int, lr: float, episodes: int) -> nn.Module:
    """The body of the table's rows below its head, trained as its example for
    mini-ImageNet does: one episode a step, Adam, the last weights. The example halves
    the rate after 2,000 episodes, more than a bed has."""
    load_learn2learn()
    from learn2learn.nn import PrototypicalClassifier

    torch.manual_seed(seed)
    features, given = body(bed), tasks(bed, "train")
    optimizer = torch.optim.Adam(features.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(episodes):
        task = given.sample(1, generator)
        head = PrototypicalClassifier(features(task.support.x[0]), task.support.y[0])
        loss = F.cross_entropy(head(features(task.query.x[0])), task.query.y[0])
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return features.eval()


def l2l_protonet(bed: Bed, seed: int) -> Answers:
    "With the rate of the example, 0.001."
    episodes = bed.steps * bed.tasks_per_step
    return _prototypical(_l2l_trained(bed, seed, 0.001, episodes))


def l2l_searched(bed: Bed, seed: int) -> Answers:
    "With the best of the rates that the rows try, found as they find theirs."
    found = {}
    for lr in OUTER[bed.kind]:
        few = bed.search_steps * bed.tasks_per_step
        answers = _prototypical(_l2l_trained(bed, SEARCH_SEED, lr, few))
        batch = tasks(bed, "validation").sample(
            bed.validation, torch.Generator().manual_seed(VALIDATION_SEED)
        )
        s, q = batch.support, batch.query
        found[lr] = sum(
            int((answers(Episode([], s.y[b], [], s.x[b], q.x[b], [])) == q.y[b]).sum())
            for b in range(len(batch))
        )
    episodes = bed.steps * bed.tasks_per_step
    best = max(found, key=found.get)
    return _prototypical(_l2l_trained(bed, seed, best, episodes))


# --- ours, beside a program that reads names ------------------------------------------


def with_names(share: float) -> Callable:
    """Class means in which the vector of the class's name counts `share`: what names
    give without any training."""

    def make(bed: Bed, seed: int) -> Answers:
        encoder = load_encoder("minilm")

        def answers(episode: Episode) -> Tensor:
            said = encoder.encode([name.replace("_", " ") for name in episode.names])
            near = F.one_hot(episode.y).double()
            means = (near / near.sum(0)).T @ episode.x.double()
            middle = share * said.double() + (1 - share) * means
            return (-torch.cdist(episode.query_x.double(), middle)).argmax(-1)

        return answers

    return make


PROGRAMS = {
    p.name: p
    for p in (
        Program("SetFit", setfit, ("setfit", "evaluate"), settings="its defaults"),
        Program("FastFit", fastfit, ("fast-fit",), sees_names=True,
                settings="those of its README, in float32"),
        Program("learn2learn, frozen", l2l_frozen, ("learn2learn",),
                settings="its defaults"),
        Program("learn2learn, ProtoNet", l2l_protonet, ("learn2learn",), trained=True,
                settings="those of its example for mini-ImageNet, as many episodes as "
                "the rows"),
        Program("learn2learn, ProtoNet, own rate", l2l_searched, ("learn2learn",),
                trained=True, settings="its example's, with a rate searched as the "
                "rows search theirs"),
        Program("Names of classes alone, frozen", with_names(1.0), sees_names=True,
                settings="ours: the nearest name"),
        Program("Prototypes and names, frozen", with_names(0.5), sees_names=True,
                settings="ours: the mean of prototype and name"),
    )
}  # fmt: skip
