"""Runs of the chapters on text classification that train the encoder.

    python benchmarks/text_classification.py [--only episodes full-way ...] [--no-bf16]
        [--list] [--most N]

They take minutes each, hours of one core in all. Every cell of every table is
stored in results/benchmarks/text_classification.json as soon as it is measured, and a
restart goes on with what is missing. Trained encoders are kept under
_build/text_classification. Training uses bfloat16 where --no-bf16 is not given; what is
measured is encoded in float32. The section "library" runs the SetFit library itself,
where benchmarks/rivals.sh has installed it.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from measure import resident_megabytes
from rivals import FOLDER as RIVALS
from safetensors.torch import load_file, save_file

from metalearn_book.book.results import load_results, save_results
from metalearn_book.case_studies.few_shot_classifier import FewShotClassifier
from metalearn_book.case_studies.text_classification import contrastive_loss, draw_shots
from metalearn_book.case_studies.text_classification import fit_head, pair_loss
from metalearn_book.case_studies.text_classification import (
    prototype_loss,
    train_encoder,
)
from metalearn_book.case_studies.text_meta_training import TaskHeads, TopLayers
from metalearn_book.case_studies.text_meta_training import lower_states, without_copies
from metalearn_book.data import available, class_split, load_dataset_by_name
from metalearn_book.foundations.encoders import LinearProbe, NearestPrototype
from metalearn_book.foundations.encoders import TextEncoder
from metalearn_book.foundations.encoders import cached_features, load_encoder
from metalearn_book.foundations.fine_tuning import fine_tune
from metalearn_book.foundations.tasks import ClassTasks, Examples
from metalearn_book.foundations.measuring import Evaluation, evaluate
from metalearn_book.foundations.measuring import paired_difference
from metalearn_book.foundations.training import Update, Validation, meta_train
from metalearn_book.metric.closed_form import RidgeHead
from metalearn_book.metric.prototypes import ProtoNet, ResidualMap, Transductive
from metalearn_book.optimization.maml import MAML
from metalearn_book.optimization.reptile import Reptile
from metalearn_book.optimization.what_to_adapt import ANIL

ROOT = Path(__file__).resolve().parent.parent
INTENTS = ("banking77", "clinc150", "hwu64")
LOSSES: dict[str, Callable] = {
    "prototype": prototype_loss,
    "contrastive": contrastive_loss,
    "pair": pair_loss,
}
META_STEPS, N_EPISODES, SEED = 200, 600, 0
PASSES, MOST_STEPS = 12, 300  # of tuning on the examples
Labelled = tuple[list[str], list[str]]


TOP_SETTINGS = {
    "outer_lr": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "outer_lr, Reptile": (0.003, 0.01, 0.03, 0.1, 0.3),
    "head_lr, Reptile": (0.3, 1.0, 5.0, 20.0, 80.0),
    "temperature": (0.01, 0.03, 0.1, 0.3, 1.0),
    "lam": (0.03, 0.1, 0.3, 1.0, 3.0),
    "head_lr": (5.0, 20.0, 80.0, 320.0, 1280.0),
    "layer_lr": (0.02, 0.1, 0.5, 2.0, 8.0),
}
TOP_SEARCHED = {
    "class means": ("outer_lr", "temperature"),
    "ridge": ("outer_lr", "lam"),
    "MAML": ("head_lr", "outer_lr", "layer_lr"),
    "FOMAML": ("head_lr", "outer_lr", "layer_lr"),
    "ANIL": ("head_lr", "outer_lr"),
    "Reptile": ("head_lr", "outer_lr", "layer_lr"),
}


class ShortTop(TopLayers):
    "The top layers, computed in bfloat16 while `ShortTop.bf16` is set."

    bf16 = False

    def forward(self, x=None, **tensors):
        with torch.autocast("cpu", torch.bfloat16, enabled=ShortTop.bf16):
            return super().forward(x, **tensors).float()


def numbered(labels: list[str]) -> torch.Tensor:
    classes = sorted(set(labels))
    return torch.tensor([classes.index(v) for v in labels])


@dataclass
class Bench:
    """What the cells share: data, the pretrained encoder, and the encoders that were
    trained."""

    bf16: bool
    folder: Path

    def __post_init__(self):
        self.encoder, self.pools = load_encoder("minilm"), {}

    def features(
        self, encoder: TextEncoder, name: str, texts: list[str]
    ) -> torch.Tensor:
        """Vectors; those of the pretrained encoder come from the cache of the chapter
        where the texts are a whole set."""
        if encoder is not self.encoder:
            return encoder.encode(texts, 32)
        every = load_dataset_by_name(name).texts
        place = {t: i for i, t in enumerate(every)}
        return cached_features(encoder, every, key=name)[[place[t] for t in texts]]

    # ---------------------------------------------------------------- encoders

    def sets(self, target: str, kind: str) -> list[Labelled]:
        """Own training classes ("own"), all classes of the other intent sets
        ("others"), or both ("all"); copies of the target's test texts are taken out."""
        test = load_dataset_by_name(target, part="test").texts
        d = load_dataset_by_name(target, part="train").where(
            classes=class_split(target)["train"]
        )
        others = [load_dataset_by_name(n, part="train") for n in INTENTS if n != target]
        return [(d.texts, d.labels)] * (kind != "others") + [
            without_copies(d.texts, d.labels, test) for d in others
        ] * (kind != "own")

    def trained(self, target: str, kind: str, loss: str = "prototype") -> TextEncoder:
        "The encoder meta-trained for one target; made once."
        if kind == "frozen":
            return self.encoder
        path = self.folder / f"{target}-{kind}-{loss}.safetensors"
        if path.exists():
            made = load_encoder("minilm")
            made.model.load_state_dict(load_file(path), strict=True)
            return made.requires_grad_(False).eval()
        sets = self.sets(target, kind)
        function = (
            TaskHeads(self.encoder.dim, [len(set(labels)) for _, labels in sets])
            if loss == "multi-task"
            else LOSSES[loss]
        )
        made = train_encoder(
            self.encoder,
            sets,
            function,
            steps=META_STEPS,
            n_classes=16,
            per_class=4,
            lr=1e-4,
            layers=3,
            seed=SEED,
            bf16=self.bf16,
        )
        save_file({k: v.contiguous() for k, v in made.model.state_dict().items()}, path)
        return made

    # ---------------------------------------------------------------- episodes

    def beside(self, x: torch.Tensor, name: str, texts: list[str]) -> torch.Tensor:
        """Vectors of a trained encoder with those of the pretrained one beside them, of
        length 1 again."""
        return F.normalize(
            torch.cat([x, self.features(self.encoder, name, texts)], -1), dim=-1
        )

    def five_way(self, encoder: TextEncoder, name: str, shots=(1, 5)) -> dict:
        """Test episodes: class means; on vectors with the pretrained ones beside them
        class means, ridge, and means refined by all queries (transductive)."""
        d = load_dataset_by_name(name).where(classes=class_split(name)["test"])
        d = d.where(part="test") if name != "hwu64" else d
        x = self.features(encoder, name, d.texts)
        both = x if encoder is self.encoder else self.beside(x, name, d.texts)
        learners = {
            "": (NearestPrototype(), x),
            ", beside": (NearestPrototype(), both),
            ", beside, ridge": (RidgeHead(lam=0.3, free_bias=True), both),
            ", beside, transductive": (
                Transductive(ProtoNet(temperature=0.1), "soft", steps=2),
                both,
            ),
        }
        return {
            f"{k}-shot{what}": evaluate(
                learner, ClassTasks(z, d.labels, 5, k, 15), N_EPISODES
            )
            for k in shots
            for what, (learner, z) in learners.items()
        }

    def mapped(self, name: str, kind: str) -> dict:
        """A linear map, trained by episodes over own training classes and stopped by
        validation classes, on the pretrained vectors or on both vectors of each text.
        """
        d, classes = load_dataset_by_name(name), class_split(name)
        own, held, test = (
            d.where(part="train" if part == "train" else "test", classes=classes[part])
            for part in ("train", "validation", "test")
        )
        own = own._keep(draw_shots(own.labels, 60, SEED, exact=False))
        encoder = self.trained(name, kind)
        x, val, query = (
            self.features(self.encoder, name, some.texts)
            if kind == "frozen"
            else self.beside(self.features(encoder, name, some.texts), name, some.texts)
            for some in (own, held, test)
        )
        learner = ProtoNet(ResidualMap(x.shape[1]), temperature=0.1)
        meta_train(
            learner,
            ClassTasks(x, own.labels, 30, 1, 3),
            steps=150,
            tasks_per_step=4,
            outer_lr=1e-3,
            validation=Validation(
                ClassTasks(val, held.labels, 5, 1, 15), every=15, episodes=400
            ),
            seed=SEED,
            progress=False,
        )
        with torch.no_grad():
            z = learner.eval().body(query)
        return {
            f"{k}-shot{what}": evaluate(
                head, ClassTasks(z, test.labels, 5, k, 15), N_EPISODES
            )
            for k in (1, 5)
            for what, head in (
                ("", NearestPrototype()),
                (", ridge", RidgeHead(lam=0.3, free_bias=True)),
            )
        }

    # ---------------------------------------------------------------- full-way

    def full_way(self, name: str, k: int, way: str, draw: int) -> dict:
        """Accuracy on the whole test part with k examples of each class; of a tuned
        encoder also with the pretrained vectors beside its own."""
        train, test = (
            load_dataset_by_name(name, part="train"),
            load_dataset_by_name(name, part="test"),
        )
        rows = draw_shots(train.labels, k, draw, exact=False)
        texts, labels = [train.texts[i] for i in rows], [train.labels[i] for i in rows]
        start, how = way.split(", ")
        encoder = self.trained(name, "others" if start == "meta" else "frozen")
        steps = min(max(20, round(PASSES * len(texts) / 64)), MOST_STEPS)
        if how == "fine-tuned":
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                model = fine_tune(
                    encoder,
                    texts,
                    labels,
                    train=3,
                    steps=2 * steps,
                    batch_size=32,
                    lr=1e-4,
                    head_lr=1e-2,
                    seed=draw,
                )
            return {
                "": sum(a == b for a, b in zip(model.predict(test.texts), test.labels))
                / len(test)
            }
        if how != "as is":
            loss = (
                TaskHeads.from_means(
                    self.features(encoder, name, texts), numbered(labels)
                )
                if how == "vectors"
                else LOSSES[how]
            )
            encoder = train_encoder(
                encoder,
                [(texts, labels)],
                loss,
                steps=steps,
                n_classes=32,
                per_class=2,
                lr=1e-4,
                layers=3,
                seed=draw,
                bf16=self.bf16,
            )
        x, query = (
            self.features(encoder, name, texts),
            self.features(encoder, name, test.texts),
        )
        pairs = {"": (x, query)} | (
            {
                " + pretrained": (
                    self.beside(x, name, texts),
                    self.beside(query, name, test.texts),
                )
            }
            if encoder is not self.encoder
            else {}
        )
        return {
            what: self.full_head(*pair, labels, test.labels)
            for what, pair in pairs.items()
        }

    def full_head(
        self,
        x: torch.Tensor,
        query: torch.Tensor,
        labels: list[str],
        answers: list[str],
    ) -> float:
        y = numbered(labels)
        weight, bias = fit_head(x, y, int(y.max()) + 1)
        return (
            ((query @ weight.T + bias).argmax(-1) == numbered(answers))
            .float()
            .mean()
            .item()
        )

    # -------------------------------------------------------------- the SetFit library

    def library(self, name: str, k: int, iterations: int | None) -> dict:
        """Full-way accuracy and CPU minutes of the library's training.

        For each text it draws `iterations` pairs of one class and as many of two. None:
        this book's pair loss.
        """
        began = time.process_time()
        if iterations is None:
            found = self.full_way(name, k, "pretrained, pair", 0)[""]
        else:
            sys.path.append(str(RIVALS))  # at the end, as for the other libraries
            from datasets import Dataset
            from sentence_transformers import SentenceTransformer
            from setfit import SetFitModel, Trainer, TrainingArguments
            from sklearn.linear_model import LogisticRegression

            train, test = (
                load_dataset_by_name(name, part="train"),
                load_dataset_by_name(name, part="test"),
            )
            rows = draw_shots(train.labels, k, 0, exact=False)
            texts, labels = (
                [train.texts[i] for i in rows],
                [train.labels[i] for i in rows],
            )
            body = SentenceTransformer(self.encoder.model.name_or_path, device="cpu")
            with tempfile.TemporaryDirectory() as folder:
                how = TrainingArguments(
                    output_dir=folder,
                    num_epochs=1,
                    num_iterations=iterations,
                    batch_size=16,
                    seed=SEED,
                    report_to="none",
                    save_strategy="no",
                    show_progress_bar=False,
                )
                Trainer(
                    SetFitModel(body, LogisticRegression(), normalize_embeddings=True),
                    args=how,
                    train_dataset=Dataset.from_dict({"text": texts, "label": labels}),
                ).train()
            x, query = (
                torch.tensor(body.encode(some, normalize_embeddings=True))
                for some in (texts, test.texts)
            )
            found = self.full_head(
                x, query, labels, test.labels
            )  # the head is the same for all
        return {"accuracy": found, "minutes": (time.process_time() - began) / 60}

    def library_default(self, name: str, n_way: int, k: int, n: int) -> dict:
        """The library with all its defaults on `n` test episodes, and frozen class
        means and logistic regression on the same ones."""
        sys.path.append(str(RIVALS))
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer
        from setfit import SetFitModel, Trainer, TrainingArguments
        from sklearn.linear_model import LogisticRegression

        began, d = time.process_time(), load_dataset_by_name(name, part="test")
        d = d.where(classes=class_split(name)["test"])
        x = self.features(self.encoder, name, d.texts)
        rows = ClassTasks(torch.arange(len(d))[:, None].float(), d.labels, n_way, k, 5)
        body = SentenceTransformer(self.encoder.model.name_or_path, device="cpu")
        heads = {
            "class means": NearestPrototype(),
            "logistic regression": LinearProbe(),
        }
        found: dict[str, list] = {"library": [], **{head: [] for head in heads}}
        generator, steps = torch.Generator().manual_seed(SEED), 0
        for _ in range(n):
            task = rows.sample(1, generator)
            s, q = (part.x[0, :, 0].long() for part in (task.support, task.query))
            y, answers = task.support.y[0], task.query.y[0]
            model = SetFitModel(copy.deepcopy(body), LogisticRegression())
            given = {"text": [d.texts[i] for i in s], "label": y.tolist()}
            with tempfile.TemporaryDirectory() as folder:
                how = TrainingArguments(
                    output_dir=folder,
                    report_to="none",
                    save_strategy="no",
                    show_progress_bar=False,
                )  # nothing here changes what is learned
                trainer = Trainer(model, how, Dataset.from_dict(given))
                trainer.train()
                steps = trainer.st_trainer.state.global_step
            said = torch.as_tensor(model.predict([d.texts[i] for i in q]))
            found["library"].append((said == answers).float().mean())
            support = Examples(x[s][None], y[None])
            for head, learner in heads.items():
                logits = learner.adapt(support)(x[q][None])[0]
                found[head].append((logits.argmax(-1) == answers).float().mean())
        every = {name: Evaluation(torch.stack(v), SEED) for name, v in found.items()}
        return {
            "rows": every,
            "over": {
                head: paired_difference(every["library"], every[head]) for head in heads
            },
            "steps": steps,
            "n_episodes": n,
            "minutes": (time.process_time() - began) / 60,
        }

    # ---------------------------------------------------------------- losses

    def loss_cell(self, loss: str) -> dict:
        encoder = self.trained(
            "banking77", "frozen" if loss == "frozen" else "others", loss
        )
        train, test = (
            load_dataset_by_name("banking77", part="train"),
            load_dataset_by_name("banking77", part="test"),
        )
        rows = draw_shots(train.labels, 10, 0)
        x, query = (
            self.features(encoder, "banking77", [train.texts[i] for i in rows]),
            self.features(encoder, "banking77", test.texts),
        )
        return self.five_way(encoder, "banking77") | {
            "full-way": self.full_head(
                x, query, [train.labels[i] for i in rows], test.labels
            )
        }

    # -------------------------------------------------------- learners on the top layer

    MAX_TOKENS, WAYS, INNER_STEPS = 16, 15, 3
    OUTER, TASKS = 30, 2  # steps of each trial, and of each run of the chapter
    SEARCH_EPISODES, MOST_TRIALS = 40, 8

    def top_tasks(self, part: str, n_query: int) -> ClassTasks:
        """15-way 1-shot episodes of states below the top layer, from short Banking77
        texts of one part of the class split."""
        if part not in self.pools:
            d = load_dataset_by_name(
                "banking77", part="test" if part == "test" else "train"
            ).where(classes=class_split("banking77")[part])
            short = [len(i) <= self.MAX_TOKENS for i in self.encoder.token_ids(d.texts)]
            d = d._keep([i for i, fits in enumerate(short) if fits])
            d = d._keep(draw_shots(d.labels, 40, SEED, exact=False))
            self.pools[part] = lower_states(self.encoder, d.texts, 1), d.labels
        return ClassTasks(*self.pools[part], self.WAYS, 1, n_query)

    def top_learner(self, method: str, at: dict[str, float]) -> nn.Module:
        "One learner with its settings `at`."

        def top(n_way=None):
            return ShortTop(self.encoder, 1, n_way).eval()

        if method.startswith("class means"):
            return ProtoNet(top(), temperature=at["temperature"])
        if method == "ridge":
            return RidgeHead(top(), lam=at["lam"], scale=10.0, free_bias=True)
        # the engine's check of itself takes the rounding of bfloat16 for an error
        inner = {"inner_lr": at["head_lr"], "inner_steps": self.INNER_STEPS}
        inner["check"] = not self.bf16
        if method == "ANIL":
            return ANIL(top(self.WAYS), **inner)
        inner["inner_lr"] = {"layers.*": at["layer_lr"], "head.*": at["head_lr"]}
        if method == "Reptile":
            return Reptile(top(self.WAYS), **inner)
        return MAML(top(self.WAYS), first_order=method == "FOMAML", **inner)

    def top_trained(
        self, method: str, at: dict[str, float], steps: int, seed: int
    ) -> tuple[nn.Module, float]:
        "A learner after `steps` outer steps, and the CPU minutes that they took."
        learner, began = self.top_learner(method, at), time.process_time()
        kind = torch.optim.SGD if method == "Reptile" else torch.optim.AdamW
        ShortTop.bf16 = self.bf16
        meta_train(
            learner,
            self.top_tasks("train", 1),
            steps=steps,
            tasks_per_step=self.TASKS,
            update=Update(optimizer=kind(learner.parameters(), lr=at["outer_lr"])),
            seed=seed,
            progress=False,
        )
        return learner, (time.process_time() - began) / 60

    def top_search(self, method: str) -> dict:
        """Settings by short runs, judged on validation classes: from the middle of each
        list in turn, to the neighbour on either side as long as accuracy rises."""
        tried: list[dict] = []

        def score(at: dict[str, float]) -> float:
            if any(at == t["at"] for t in tried):
                return next(t["accuracy"].mean for t in tried if at == t["at"])
            if len(tried) == self.MOST_TRIALS:
                return -1.0
            learner, _ = self.top_trained(method, at, self.OUTER, SEED)
            found = evaluate(
                learner,
                self.top_tasks("validation", 5),
                self.SEARCH_EPISODES,
                tasks_per_batch=5,
            )
            tried.append({"at": at, "accuracy": found})
            print(f"  {method} {at}: {found}", flush=True)
            return found.mean

        lists = {name: TOP_SETTINGS[name] for name in TOP_SEARCHED[method]}
        lists |= {
            name: TOP_SETTINGS[f"{name}, {method}"]
            for name in lists
            if f"{name}, {method}" in TOP_SETTINGS
        }
        best = {name: values[len(values) // 2] for name, values in lists.items()}
        for name, values in lists.items():
            for way in (1, -1):
                while 0 <= (i := values.index(best[name]) + way) < len(values):
                    there = best | {name: values[i]}
                    if score(there) <= score(best):
                        break
                    best = there
        return {"tried": tried, "chosen": best}

    # ------------------------------------------- tasks of another kind, time and memory

    def away(self, target: str | None) -> dict:
        encoder = self.encoder if target is None else self.trained(target, "others")
        topics = load_dataset_by_name("huffpost").where(
            classes=class_split("huffpost")["test"]
        )
        topics = topics._keep(draw_shots(topics.labels, 50, 0))
        reviews = load_dataset_by_name("uci_sentiment").where(domain="yelp")
        reviews = reviews._keep(draw_shots(reviews.labels, 200, 0))
        return {
            "topics": evaluate(
                NearestPrototype(),
                ClassTasks(encoder.encode(topics.texts, 32), topics.labels, 5, 5, 15),
                N_EPISODES,
            ),
            "sentiment": evaluate(
                NearestPrototype(),
                ClassTasks(encoder.encode(reviews.texts, 32), reviews.labels, 2, 5, 15),
                N_EPISODES,
            ),
        }

    def timing(self) -> dict:
        """Seconds of fit and predict, and what 10,000 texts at once add to the memory
        of this process (MB)."""
        train, test = (
            load_dataset_by_name("clinc150", part="train"),
            load_dataset_by_name("clinc150", part="test"),
        )
        ten = train.where(classes=train.classes[:10])
        rows, found = draw_shots(ten.labels, 5, 0), {}
        texts, labels = [ten.texts[i] for i in rows], [ten.labels[i] for i in rows]
        for tune in ("none", "contrastive"):
            began = time.perf_counter()
            model = FewShotClassifier("minilm", tune=tune).fit(texts, labels)
            what = f'fit on 50 sentences, tune="{tune}", with loading the encoder'
            found[f"{what} (seconds)"] = time.perf_counter() - began
        began = time.perf_counter()
        model.predict(test.texts[:1000])
        found["predict 1,000 short texts (seconds)"] = time.perf_counter() - began
        found["predict 10,000 texts at once: growth of peak memory (MB)"] = (
            resident_megabytes(
                lambda: model.predict((train.texts + test.texts)[:10_000])
            )
        )
        return found


Job = tuple[
    str, str, float, Callable[[], object]
]  # section, key, CPU seconds (a guess, for the estimate), what to do


def jobs(b: Bench) -> list[Job]:
    "All cells, section by section."
    minutes = {
        "banking77": 1.2,
        "clinc150": 1.5,
        "hwu64": 0.6,
    }  # of tuning on ten examples of each class
    out = [
        (
            "episodes",
            f"{n}, {kind}",
            5 if kind == "frozen" else 100,
            lambda n=n, kind=kind: b.five_way(b.trained(n, kind), n),
        )
        for kind in ("frozen", "own", "others", "all")
        for n in INTENTS
    ]
    out += [
        (
            "transfer",
            f"clinc150 to {n}",
            20,
            lambda n=n: b.five_way(b.trained("clinc150", "own"), n),
        )
        for n in ("banking77", "hwu64")
    ]
    out += [
        ("map", f"{n}, {kind}", 40, lambda n=n, kind=kind: b.mapped(n, kind))
        for kind in ("own", "frozen")
        for n in ("banking77", "clinc150")
    ]
    out += [
        ("losses", loss, 70, lambda loss=loss: b.loss_cell(loss))
        for loss in ("frozen", "prototype", "multi-task", "contrastive", "pair")
    ]
    out += [
        ("top layer search", m, 60, lambda m=m: b.top_search(m)) for m in TOP_SEARCHED
    ]
    sources = {
        "encoder as it is": None,
        "meta-trained on CLINC150 and HWU64": "banking77",
        "meta-trained on Banking77 and HWU64": "clinc150",
    }
    out += [
        ("away", title, 20, lambda target=target: b.away(target))
        for title, target in sources.items()
    ] + [("timing", "all", 60, b.timing)]
    out += [
        ("library", title, cost, lambda n=n: b.library("banking77", 10, n))
        for title, n, cost in (
            ("this book", None, 80),
            ("setfit, 3 iterations", 3, 250),
        )
    ] + [
        (
            "library",
            "setfit, defaults, 15 classes",
            500,
            lambda: b.library_default("banking77", 15, 1, 60),
        )
    ]

    # the full-way tables: every way on three draws of the examples, all draws of a way
    # one after the other; more shots for the bank
    both, ten, more = (5, 10), (10,), (1, 2, 20, 50)
    cells = [(n, k, "pretrained, as is") for n in INTENTS for k in both]
    cells += [("banking77", k, "pretrained, as is") for k in more]
    for ways, shots in (
        (("pretrained, vectors",), both),
        (("pretrained, fine-tuned", "pretrained, contrastive"), ten),
        (("meta, as is", "meta, vectors"), both),
        (("pretrained, prototype", "pretrained, pair"), ten),
    ):
        cells += [(n, k, way) for way in ways for k in shots for n in INTENTS]
    cells += [("banking77", k, "pretrained, vectors") for k in more[1:]]
    cells += [("banking77", k, "pretrained, fine-tuned") for k in (5, *more)]
    full = [(*cell, draw) for cell in cells for draw in (0, 1, 2)]
    for n, k, way, draw in full:
        cost = 5 if way.endswith("as is") else 60 * minutes[n] * min(k, 25) / 10
        out.append(
            (
                "full-way",
                f"{n}, {k}, {way} #{draw}",
                cost,
                lambda n=n, k=k, way=way, draw=draw: b.full_way(n, k, way, draw),
            )
        )
    return out


def for_chapter(cells: dict, b: Bench) -> dict:
    """Measured cells in the form in which the chapters read them: draws of one cell in
    one list."""
    numbers: dict = {
        section: {}
        for section in (
            "episodes",
            "transfer",
            "map",
            "full-way",
            "losses",
            "library",
            "top layer",
            "away",
            "timing",
        )
    }
    for section, key, _, _ in jobs(b):
        if (value := cells.get(f"{section}: {key}")) is None:
            continue
        if section == "full-way":
            for what, share in value.items():
                numbers[section].setdefault(key.split(" #")[0] + what, []).append(share)
        elif section == "top layer search":
            numbers["top layer"].setdefault("search", {})[key] = value
        else:
            numbers[section] |= value if section == "timing" else {key: value}
    numbers["episodes"]["n_episodes"], numbers["losses"]["steps"] = (
        N_EPISODES,
        META_STEPS,
    )
    numbers["top layer"] |= (
        {
            "max_tokens": b.MAX_TOKENS,
            "ways": b.WAYS,
            "inner_steps": b.INNER_STEPS,
            "meta_steps": b.OUTER,
            "tasks_per_step": b.TASKS,
            "search_episodes": b.SEARCH_EPISODES,
            "most_trials": b.MOST_TRIALS,
            "lists": {name: list(values) for name, values in TOP_SETTINGS.items()},
        }
        if numbers["top layer"]
        else {}
    )
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", help="sections to measure, such as episodes or full-way"
    )
    parser.add_argument(
        "--no-bf16",
        action="store_true",
        help="train in float32: slower, for processors without bfloat16",
    )
    parser.add_argument(
        "--list", action="store_true", help="say what is missing, and stop"
    )
    parser.add_argument(
        "--most", type=int, help="cells to measure before it stops, such as 1"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    if missing := [
        n for n in (*INTENTS, "huffpost", "uci_sentiment") if not available(n)
    ]:
        raise SystemExit(
            f"not available: {', '.join(missing)}; "
            "set METALEARN_DATA to the folder that holds them"
        )
    folder = ROOT / "_build" / "text_classification"
    folder.mkdir(parents=True, exist_ok=True)
    b, at = Bench(not args.no_bf16, folder), "benchmarks/text_classification"
    entry = load_results(at, missing={"numbers": {}})
    cells, seconds = entry["numbers"].get("cells", {}), entry.get("seconds", 0)
    todo = [
        j
        for j in jobs(b)
        if f"{j[0]}: {j[1]}" not in cells and (not args.only or j[0] in args.only)
    ]
    if not any(RIVALS.glob("setfit-*")):  # what was measured with it stays
        todo = [j for j in todo if not j[1].startswith("setfit")]
    left = sum(j[2] for j in todo)
    print(
        f"{len(todo)} cells to measure, about {left / 60:.0f} CPU minutes", flush=True
    )
    if args.list:
        return print("\n".join(f"  {j[0]}: {j[1]}" for j in todo))
    for section, key, guess, work in todo[: args.most]:
        began = time.process_time()
        value = work()
        took, left = time.process_time() - began, left - guess
        seconds += took
        entry = save_results(
            at, {"cells": cells | {f"{section}: {key}": value}}, seed=SEED, config={}
        )  # plain numbers from `Evaluation`s
        cells = entry["numbers"]["cells"]
        save_results(
            at,
            {"cells": cells, **for_chapter(cells, b)},
            seed=SEED,
            seconds=seconds,
            config={
                "bf16": b.bf16,
                "meta steps": META_STEPS,
                "passes": PASSES,
                "most steps": MOST_STEPS,
                "episodes": N_EPISODES,
                "layers": 3,
                "lr": 1e-4,
            },
        )
        print(
            f"{section}: {key}: {took:.0f} s, about {left / 60:.0f} CPU minutes left: "
            f"{cells[f'{section}: {key}']}",
            flush=True,
        )


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
