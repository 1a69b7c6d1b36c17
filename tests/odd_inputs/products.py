"""Recipes for `case_studies`, `data`, `book` and `cli`."""

import copy
import functools
import io
import random
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from odd_inputs import ODD, Recipe
from torch import nn

from metalearn_book import data
from metalearn_book.book.targets import Target
from metalearn_book.book import figures
from metalearn_book.case_studies import entities, few_shot_tagger
from metalearn_book.case_studies import sequence_labels, starts, tuned_taggers
from metalearn_book.case_studies import word_vectors
from metalearn_book.data import dialogues, download, drawings, files, ratings, spans
from metalearn_book.foundations.encoders import load_encoder
from metalearn_book.foundations.tasks import Examples

PARTS = ("case_studies", "data", "book", "cli")
#: None, or no start at all, is right: it loads an encoder, which takes longer than an
#: answer may
ODD["start"] = [v for v in ODD["thing"] if v is not None]
R = Recipe
HERE = Path(tempfile.mkdtemp(prefix="odd"))  # what is written goes there


def vectors(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape, seed: int = 0) -> torch.Tensor:
    return nn.functional.normalize(vectors(*shape, seed=seed), dim=-1)


def y() -> torch.Tensor:
    return torch.tensor([0, 0, 1, 1, 2, 2])


# --- small things, made once ---------------------------------------------------------

encoder = functools.cache(lambda: load_encoder("tiny"))
model = functools.cache(lambda: word_vectors.WordModel(encoder(), 1))
#: four sentences of two types
SENTENCES = [
    (["in", "Rome", "it", "rains"], ["O", "B-city", "O", "O"]),
    (["Ann", "Lee", "left"], ["B-person", "I-person", "O"]),
    (["from", "Oslo", "."], ["O", "B-city", "O"]),
    (["ask", "Bob", "now"], ["O", "B-person", "O"]),
]
TYPES = ["city", "person"]
TEXTS = ["book a room", "a room please", "where is my card", "my card is lost"]
LABELS = ["room", "room", "card", "card"]


def sentences() -> list:
    return copy.deepcopy(SENTENCES)


def words() -> list[list[str]]:
    return [list(w) for w, _ in SENTENCES]


def tags() -> list[list[str]]:
    return [list(t) for _, t in SENTENCES]


def pool() -> data.LabeledTokens:
    return data.LabeledTokens("small", words(), tags(), ["train"] * 4)


def texts_of(n: int = 1) -> data.LabeledTexts:
    return data.LabeledTexts(
        "small", TEXTS * n, LABELS * n, ["train", "test", "train", "test"] * n
    )


def head(outputs: int | None = None) -> word_vectors.WordTop:
    return model().top.with_head(outputs and nn.Linear(model().dim, outputs))


@functools.cache
def prototypes() -> entities.TokenPrototypes:
    return entities.TokenPrototypes(head())


@functools.cache
def typing() -> entities.SpanTyping:
    return entities.SpanTyping(head())


@functools.cache
def start() -> few_shot_tagger.TaggerStart:
    return few_shot_tagger.TaggerStart.from_encoder(encoder(), 1)


def windows() -> list:
    return word_vectors.windows(model(), words())


def inputs() -> dict:
    return word_vectors.top_inputs(model(), windows())


@functools.cache
def support() -> Examples:
    return tuned_taggers.support_examples(
        model(), sentences(), sequence_labels.bio_labels(TYPES)
    )


SCORES = (sequence_labels.Score(1, 2, 3), sequence_labels.Score(2, 2, 2))


def f1_of(scores) -> torch.Tensor:
    return torch.tensor([s.f1 for s in scores])


def episode_f1(scores) -> sequence_labels.EpisodeF1:
    return sequence_labels.EpisodeF1(f1_of(scores), 0, scores=scores)


def adapts(method):
    "Learn the sentences, then tag them."
    return method.adapt(sentences(), TYPES)(words())


def folder(name: str = "a") -> Path:
    (HERE / name).mkdir(exist_ok=True)
    return HERE / name


def written(name: str, content: bytes = b"[1]") -> Path:
    (HERE / name).write_bytes(content)
    return HERE / name


@functools.cache
def saved_episodes() -> Path:
    episode = sequence_labels.Episode(TYPES, [0, 1], [2, 3])
    sequence_labels.save_episodes(HERE / "kept.json", [episode], pool())
    return HERE / "kept.json"


@functools.cache
def saved_folder() -> Path:
    def fill(part):
        (part / "x").write_text("x")

    return files.write_saved(HERE / "kept", "thing", {"a": 1}, fill)


@functools.cache
def sealed() -> Path:
    files.write_sealed(HERE / "kept.bin", b"content")
    return HERE / "kept.bin"


def filled(part: Path) -> None:
    (part / "x").write_text("x")


def asked(estimator):
    return estimator.fit(TEXTS, LABELS).predict_proba(TEXTS)


def tagged(estimator):
    return estimator.fit(SENTENCES).predict(["in Rome"])


def by_path(name: str, **kinds) -> Recipe:
    "A function of one file or folder."
    return R(lambda: {"path": written(name)})


ABSTRACT = {
    "start": torch.tensor([0.7, 0.3]),
    "O": torch.tensor([0.8, 0.2]),
    "I": torch.tensor([0.5, 0.4, 0.1]),
}

C = "case_studies.few_shot_classifier."
K = "case_studies.calibration."
A = "case_studies.words_and_marks."
T = "case_studies.few_shot_tagger."
S = "case_studies.sequence_labels."
X = "case_studies.text_classification."
M = "case_studies.text_meta_training."
U = "case_studies.tuned_taggers."
W = "case_studies.word_vectors."
E = "case_studies.entities."


def weights(shift: float = 0.0) -> dict[str, torch.Tensor]:
    return {"w": vectors(6, 5) + shift * unit(6, 5), "b": torch.full((3,), shift)}


def start_of(rank: int = 1) -> dict[str, torch.Tensor]:
    return starts.compress(weights(), weights(0.1), rank)


P = "case_studies.starts."

STARTS = {
    P + "low_rank": R(lambda: {"change": vectors(4, 3), "rank": 2}),
    P + "compress": R(
        lambda: {"before": weights(), "after": weights(0.1), "rank": 1}
    ),
    P + "expand": R(lambda: {"stored": start_of()}),
    P + "Start": R(
        lambda: {"tensors": start_of(),
                 "about": {"name": "mine", "kind": "encoder", "encoder": "tiny",
                           "base_sha256": "0"}},
        use=repr,
    ),
    P + "weights_sha256": R(lambda: {"encoder": encoder()}),
    P + "load_start": R(lambda: {"start": "intents"}),
}  # fmt: skip

CLASSIFIER = {
    K + "auroc": R(lambda: {"inside": vectors(5), "outside": vectors(4, seed=1)}),
    K + "scope_scores": R(
        lambda: {"logits": vectors(4, 3), "z": unit(4, 5), "prototypes": vectors(3, 5)}
    ),
    K + "best_threshold": R(
        lambda: {"inside": vectors(5), "outside": vectors(4, seed=1)}
    ),
    K + "scope_report": R(
        lambda: {"inside": vectors(3), "right": torch.tensor([True, False, True]),
                 "outside": vectors(4), "threshold": 0.1}
    ),
    K + "confused_pairs": R(lambda: {"target": y(), "guess": y().flip(0), "n": 3}),
    C + "text_windows": R(lambda: {"encoder": encoder(), "texts": TEXTS}),
    C + "embed_texts": R(
        lambda: {"encoder": encoder(), "texts": TEXTS, "batch_size": 2, "at_once": 3}
    ),
    K + "share_threshold": R(lambda: {"scores": vectors(9), "share": 0.2}),
    K + "left_out_scores": R(
        lambda: {"z": unit(6, 4), "y": y(), "weight": torch.ones(6)}
    ),
    K + "own_threshold": R(
        lambda: {"z": unit(6, 4), "y": y(), "share": 0.1, "weight": torch.ones(6)}
    ),
    K + "left_out_rounds": R(lambda: {"y": y(), "most": 3}),
    K + "left_out_logits": R(
        lambda: {"z": unit(6, 4), "y": y(), "kind": "ridge", "weight": torch.ones(6),
                 "penalty": 0.3}
    ),
    K + "best_penalty": R(
        lambda: {"z": unit(6, 4), "y": y(), "kind": "ridge", "weight": torch.ones(6),
                 "grid": [0.3, 1.0]}
    ),
    K + "best_temperature": R(
        lambda: {"logits": vectors(6, 3), "y": y(), "weight": torch.ones(6)}
    ),
    C + "FewShotClassifier": R(
        lambda: {"encoder": encoder(), "head": "prototype", "tune": "none",
                 "reject_share": 0.1, "seed": 0, "batch_size": 8, "steps": 2,
                 "device": "cpu", "prompt": "", "on_empty": "reject",
                 "penalty": None},
        use=asked,
        kinds={"prompt": "text"},
    ),
    C + "text_key": R(lambda: {"text": "a text"}, kinds={"text": "text"}),
    C + "merge_examples": R(
        lambda: {"labels": list("aab"), "keys": [1, 1, 2], "weight": [1.0, 2.0, 0.0]}
    ),
    K + "tuning_folds": R(lambda: {"y": y(), "n_folds": 2}),
}  # fmt: skip
TAGGER = {
    A + "split_words": R(lambda: {"text": "in Rome."}, kinds={"text": "text"}),
    A + "from_characters": R(
        lambda: {"text": "in Rome", "mentions": [(3, 7, "city")]},
        kinds={"text": "text"},
    ),
    A + "cut_words": R(lambda: {"words": ["it's", "Rome"]}),
    A + "read_examples": R(
        lambda: {"examples": words(), "tags": tags(), "label_names": ["O", "B-city"]}
    ),
    T + "TaggerStart": R(
        lambda: {"model": model(), "detector": head(3), "typing": typing(),
                 "trained": False},
        use=lambda s: tagged(few_shot_tagger.FewShotTagger(s, steps=0)),
    ),
    T + "FewShotTagger": R(
        lambda: {"steps": 1, "start": start(), "lr": 0.1, "head_lr": 0.1, "lean": 1.0,
                 "trust": 1.0, "threshold": 0.0, "calibrate": False,
                 "on_empty": "warn", "device": "cpu", "seed": 0},
        use=tagged,
        kinds={"start": "start"},
    ),
    T + "fit_scores": R(
        lambda: {"scores": [0.2, 0.6, 0.9], "right": [False, True, True]}
    ),
    T + "calibrated": R(lambda: {"score": 0.5, "slope": 1.0, "shift": 0.0}),
    T + "show_entities": R(
        lambda: {"types": ["city"], "pairs": [
            ("in Rome", [few_shot_tagger.Entity(3, 7, "city", 0.5, "Rome")])]}
    ),
}  # fmt: skip
SEQUENCES = {
    S + "mentions_of": R(lambda: {"tags": ["O", "B-city", "I-city"]}),
    S + "tags_of": R(lambda: {"mentions": [(1, 2, "city")], "n_words": 3}),
    S + "split_tag": R(lambda: {"tag": "B-city"}),
    S + "repair_tags": R(lambda: {"tags": ["O", "I-city", None]}),
    S + "opening_error": R(lambda: {"tags": ["O", "I-city", "O"]}),
    S + "check_sentences": R(lambda: {"sentences": sentences()}),
    S + "bio_labels": R(lambda: {"types": TYPES}),
    S + "bio_transitions": R(
        lambda: {"labels": ["O", "B-a", "I-a"]}, infinite=True
    ),
    S + "viterbi": R(
        lambda: {"scores": vectors(4, 3), "transitions": vectors(3, 3),
                 "first": vectors(3)}
    ),
    S + "lean_to_mentions": R(lambda: {"logits": vectors(4, 3), "lean": 1.0}),
    S + "decode_bio": R(
        lambda: {"logits": [vectors(4, 3)], "labels": ["O", "B-a", "I-a"], "lean": 0.5}
    ),
    S + "decode_types": R(lambda: {"logits": [vectors(4, 3)], "types": TYPES}),
    S + "Score": R(
        lambda: {"right": 1, "predicted": 2, "true": 3},
        use=lambda s: (s.f1, s.precision, s.recall),
    ),
    S + "score_by_type": R(lambda: {"true": tags(), "predicted": tags()}),
    S + "score_mentions": R(lambda: {"true": tags(), "predicted": tags()}),
    S + "only_types": R(lambda: {"tags": ["O", "B-city"], "types": ["city"]}),
    S + "mention_counts": R(lambda: {"tags": ["O", "B-city"], "types": ["city"]}),
    S + "with_types_only": R(lambda: {"pool": pool(), "types": ["city"]}),
    S + "greedy_rows": R(
        lambda: {"counts": [Counter({"a": 1}), Counter({"b": 1})], "types": ["a", "b"],
                 "k": 1, "order": [1, 0]}
    ),
    S + "Episode": R(
        lambda: {"types": TYPES, "support": [0, 1], "query": [2, 3]},
        use=lambda e: e.sentences(pool()),
    ),
    S + "EpisodeSampler": R(
        lambda: {"pool": pool(), "n_way": 2, "leave_out": ["misc"]},
        use=lambda s: s.sample(1, 1, random.Random(0)),
    ),
    S + "f1_of_episodes": R(
        lambda: {"method": word_vectors.NNShot(model(), head()), "pool": pool(),
                 "episodes": [sequence_labels.Episode(TYPES, [0, 1], [2, 3])],
                 "seed": 0},
        use=lambda e: e.mean,
    ),
    S + "EpisodeF1": R(
        lambda: {"scores": SCORES, "values": f1_of(SCORES), "seed": 0},
        use=sequence_labels.pooled_f1,
        kinds={"values": "leave", "seed": "leave"},  # those of any Evaluation
    ),
    S + "PooledF1": R(
        lambda: {"mean": 0.5, "ci95": 0.1},
        kinds={"mean": "thing", "ci95": "thing"},  # it holds what it is given
    ),
    S + "pooled_f1": R(
        lambda: {"a": episode_f1(SCORES), "minus": episode_f1(SCORES[::-1]),
                 "n_boot": 20, "seed": 0},
        use=lambda f: f.ci95,
    ),
    S + "pool_checksum": R(lambda: {"pool": pool()}),
    S + "save_episodes": R(
        lambda: {"path": HERE / "e.json", "pool": pool(),
                 "episodes": [sequence_labels.Episode(TYPES, [0, 1], [2, 3])]}
    ),
    S + "load_episodes": R(lambda: {"path": saved_episodes(), "pool": pool()}),
}  # fmt: skip
CORPORA = {
    X + "corpus": R(lambda: {"name": "tiny_intents", "most": 2}),
    X + "draw_shots": R(
        lambda: {"labels": LABELS, "k": 1, "seed": 0, "exact": True}
    ),
    X + "prototype_loss": R(
        lambda: {"z": unit(6, 4), "y": y(), "temperature": 0.1}
    ),
    X + "contrastive_loss": R(
        lambda: {"z": unit(6, 4), "y": y(), "temperature": 0.1}
    ),
    X + "pair_loss": R(lambda: {"z": unit(6, 4), "y": y()}),
    X + "ClassBatches": R(
        lambda: {"sets": [(TEXTS, LABELS)], "n_classes": 2, "per_class": 2, "seed": 0},
        use=lambda b: b.draw(),
    ),
    X + "embed": R(
        lambda: {"encoder": encoder(), "ids": [[2, 5, 3], [2, 7, 8, 3]], "size": 2}
    ),
    X + "unfreeze": R(lambda: {"encoder": copy.deepcopy(encoder()), "layers": 1}),
    X + "train_encoder": R(
        lambda: {"encoder": encoder(), "sets": [(TEXTS, LABELS)], "steps": 1,
                 "n_classes": 2, "per_class": 2, "lr": 1e-3, "layers": 1, "seed": 0,
                 "bf16": False, "progress": False},
        use=lambda e: e.losses,
    ),
    X + "split_episodes": R(
        lambda: {"data": tiny_test(), "x": vectors(len(tiny_test()), 4), "k": 2,
                 "part": "test", "n_query": 3}
    ),
    X + "weighted_means": R(
        lambda: {"z": unit(6, 4), "y": y(), "n_classes": 3, "weight": torch.ones(6)}
    ),
    X + "fit_head": R(
        lambda: {"x": unit(6, 4), "y": y(), "n_classes": 3, "kind": "ridge",
                 "weight": torch.ones(6), "penalty": 0.3}
    ),
    X + "head_accuracies": R(
        lambda: {"x": unit(6, 4), "y": y(), "query": unit(6, 4, seed=1), "target": y(),
                 "kinds": ["prototype", "ridge"]}
    ),
    X + "full_way": R(lambda: {"data": texts_of()}),
    X + "drawn_rows": R(lambda: {"data": texts_of(2), "k": 1, "seed": 0}),
    X + "mean_and_range": R(lambda: {"shares": [0.2, 0.4]}),
    M + "TaskHeads": R(
        lambda: {"dim": 4, "sizes": [3, 2], "temperature": 0.1, "seed": 0},
        use=lambda h: h(unit(6, 4), y()),
    ),
    M + "without_copies": R(
        lambda: {"texts": TEXTS, "labels": LABELS, "of": ["Book a room!"]}
    ),
    M + "lower_states": R(
        lambda: {"encoder": encoder(), "texts": TEXTS, "n_top": 1, "batch_size": 2}
    ),
    M + "TopLayers": R(
        lambda: {"encoder": encoder(), "n_top": 1, "n_way": 3},
        use=lambda t: t({"hidden": vectors(2, 3, encoder().dim),
                         "mask": torch.ones(2, 3)}),
    ),
}  # fmt: skip


@functools.cache
def tiny_test() -> data.LabeledTexts:
    d = data.load_dataset_by_name("tiny_intents", part="test")
    known = data.class_split("tiny_intents")["test"]
    rows = [i for i, v in enumerate(d.labels) if v in known]
    return d._keep(rows[:: max(1, len(rows) // 200)])


WORDS = {
    W + "word_pieces": R(
        lambda: {"tokenizer": model().tokenizer, "words": ["in", "Rome"]}
    ),
    W + "word_shape": R(lambda: {"word": "Rome"}, kinds={"word": "text"}),
    W + "Window": R(
        lambda: {"sentence": 0, "ids": [2, 5, 3], "first": [1], "shapes": [1],
                 "start": 0, "own": range(1)},
        use=lambda w: word_vectors.top_inputs(model(), [w]),
    ),
    W + "spans_of_words": R(lambda: {"sizes": [1, 2, 1, 3], "room": 4}),
    W + "WordTop": R(
        lambda: {"layers": list(model().top.layers), "dim": model().dim,
                 "head": nn.Linear(model().dim, 2)},
        use=lambda t: t(**inputs()),
    ),
    W + "WordModel": R(
        lambda: {"encoder": encoder(), "n_top": 1},
        use=lambda m: word_vectors.word_outputs(m, [m.top], words()),
    ),
    W + "windows": R(
        lambda: {"model": model(), "sentences": words(), "max_length": 40}
    ),
    W + "top_inputs": R(
        lambda: {"model": model(), "some": windows(), "train_below": False}
    ),
    W + "put_by_word": R(
        lambda: {"some": windows(), "values": vectors(4, 9, 3),
                 "into": [{} for _ in range(4)]}
    ),
    W + "word_outputs": R(
        lambda: {"model": model(), "nets": [head()], "sentences": words(),
                 "batch_size": 2}
    ),
    W + "NNShot": R(lambda: {"model": model(), "net": head()}, use=adapts),
    W + "abstract_transitions": R(lambda: {"tags": tags()}),
    W + "expand_transitions": R(
        lambda: {"abstract": dict(ABSTRACT), "n_types": 2, "power": 1.0}
    ),
    W + "StructShot": R(
        lambda: {"model": model(), "net": head(), "abstract": dict(ABSTRACT),
                 "temperature": 0.1, "power": 1.0},
        use=adapts,
    ),
    U + "piece_labels": R(
        lambda: {"some": windows(), "width": 9,
                 "labels": [[0] * len(w) for w in words()]}
    ),
    U + "tag_numbers": R(
        lambda: {"sentences": sentences(), "labels": sequence_labels.bio_labels(TYPES)}
    ),
    U + "with_one_type": R(lambda: {"sentences": sentences()}),
    U + "token_loss": R(
        lambda: {"logits": vectors(1, 2, 3, 4), "y": torch.zeros(1, 2, 3).long(),
                 "mask": torch.tensor([[True, False]])}
    ),
    U + "support_examples": R(
        lambda: {"model": model(), "sentences": sentences(),
                 "labels": sequence_labels.bio_labels(TYPES)}
    ),
    U + "adapt_top": R(
        lambda: {"net": head(5), "support": support(), "lr": 0.1, "head_lr": 0.1,
                 "steps": 1, "batch_size": 2, "seed": 0}
    ),
    U + "length_batch": R(
        lambda: {"lengths": [3, 5, 4], "batch_size": 2, "rng": random.Random(0)}
    ),
    U + "train_on_sources": R(
        lambda: {"model": copy.deepcopy(model()), "pools": {"small": pool()},
                 "steps": 1, "weights": [1.0], "batch_size": 2, "lr": 1e-3,
                 "head_lr": 1e-2, "seed": 0, "bf16": False}
    ),
    U + "FineTuned": R(
        lambda: {"model": model(), "net": head(), "lr": 0.1, "head_lr": 0.1,
                 "steps": 1, "batch_size": 2, "lean": 0.0},
        use=adapts,
    ),
}  # fmt: skip
ENTITIES = {
    E + "TokenPrototypes": R(
        lambda: {"body": head(), "temperature": 0.1},
        use=lambda t: adapts(entities.Prototypical(model(), t)),
    ),
    E + "token_classifier": R(
        lambda: {"model": model(), "learner": prototypes(), "support": sentences(),
                 "types": TYPES},
        use=lambda f: f(inputs()),
    ),
    E + "Prototypical": R(
        lambda: {"model": model(), "learner": prototypes()}, use=adapts
    ),
    E + "stack_tasks": R(lambda: {"rows": [(inputs(), torch.zeros(4, 6).long())]}),
    E + "named_types": R(lambda: {"types": TYPES, "spell": str.upper}),
    E + "TagTasks": R(
        lambda: {"model": model(), "pools": {"small": pool()}, "kind": "span",
                 "n_way": 2, "shots": [1], "most_query": 2, "weights": [1.0],
                 "spell": str.upper},
        use=lambda t: t.sample(1, torch.Generator().manual_seed(0)).support.x["hidden"],
    ),
    E + "span_weights": R(
        lambda: {"some": windows(), "spans": [[(0, 1)]] * 4, "width": 9, "most": 2}
    ),
    E + "SpanTyping": R(
        lambda: {"body": head(), "temperature": 0.1},
        use=lambda t: t.classify(unit(4, 6), torch.tensor([0, 1, 0, 2]), 2)(unit(3, 6)),
    ),
    E + "span_inputs": R(
        lambda: {"every": windows(), "x": inputs(), "tags": tags(), "types": TYPES}
    ),
    E + "none_spans": R(lambda: {"proposed": tags(), "tags": tags()}),
    E + "span_vectors": R(lambda: {"words": vectors(4, 3), "spans": [(0, 2)]}),
    E + "typed_spans": R(
        lambda: {"logits": vectors(4, 3), "vectors": vectors(4, 5), "types": TYPES,
                 "classify": lambda v: vectors(len(v), 3), "lean": 3.0, "trust": 0.0}
    ),
    E + "Decomposed": R(
        lambda: {"model": model(), "net": head(3), "typing": typing(), "lr": 0.1,
                 "head_lr": 0.1, "steps": 1, "batch_size": 2, "lean": 1.0,
                 "trust": 1.0, "spell": str.upper},
        use=adapts,
    ),
    E + "product_of_experts": R(
        lambda: {"tagger": vectors(4, 5), "prototypes": vectors(4, 3),
                 "detector": vectors(4, 3), "weight": 1.0}
    ),
    E + "Experts": R(
        lambda: {"tagger": tuned_taggers.FineTuned(model(), head(), steps=1),
                 "learner": prototypes(), "detector": head(3), "weight": 1.0},
        use=adapts,
    ),
}  # fmt: skip


# --- data ----------------------------------------------------------------------------


def images(n: int = 2) -> np.ndarray:
    return np.zeros((n, 28, 28), dtype=np.uint8)


def characters() -> list[str]:
    return data.class_split("omniglot")["train"][:2]


def stored_characters() -> Path:
    names = [f"images_background/{n}" for n in characters()]
    np.savez(HERE / "o.npz", X=np.zeros((2, 20, 28, 28), np.uint8), names=names)
    return HERE / "o.npz"


@functools.cache
def zipped(name: str = "a") -> bytes:
    "A character's twenty drawings."
    from PIL import Image

    drawing, file = io.BytesIO(), io.BytesIO()
    Image.new("L", (105, 105), 255).save(drawing, "png")
    with zipfile.ZipFile(file, "w") as z:
        for i in range(20):
            z.writestr(f"images/{name}/{i:02}.png", drawing.getvalue())
    return file.getvalue()


#: any name of a set, and of where it comes from, is right
NAMES = {"name": "text", "source": "text"}


def somewhere(container):
    "A choice of rows, and their digest."
    return container.where(part="train").digest()


READERS = {
    "dialogues": ("read_sgd",),
    "drawings": ("read_emoji",),
    "images": ("read_omniglot",),
    "passages": ("read_xquad", "read_ntrex", "read_scitldr"),
    "ratings": ("read_uci_restaurant",),
    "spans": ("read_snips", "read_nlupp", "read_restaurant8k", "read_finentity"),
    "texts": ("read_clinc150", "read_banking77", "read_hwu64", "read_huffpost",
              "read_uci_sentiment", "read_fewrel"),
}  # fmt: skip
NAMED = {
    "sources": ("available", "at_hand", "class_split", "describe", "fetch"),
    "manifest": ("entry_of",),
    "splits": ("has_split", "read_split", "part_of"),
    "upstream": ("size", "at_hand"),
    "tagged": ("tagged_reader",),
    "hub": ("is_cached",),
}
#: any name is answered: it is none of these, or the error comes with the files
ANY_NAME = {"splits": {"name": "text"}, "tagged": {"name": "text"},
            "hub": {"repository": "text"}}  # fmt: skip
KNOWN = {"tagged": "gum", "splits": "fewrel", "upstream": "fewrel", "hub": "a/b"}
FILES = {
    "reading": {"read_bytes": b"x", "read_text": b"x", "read_json": b"[1]",
                "read_lines_of_json": b"[1]\n", "missing": b""},
    "files": {"file_sha256": b"x"},
    "upstream": {"keep_sum": b"x"},
}  # fmt: skip
DATA = {
    f"data.{module}.{name}": R(
        lambda: {"folder": folder("empty")}, fails=FileNotFoundError
    )
    for module, names in READERS.items()
    for name in names
}
DATA |= {
    f"data.{module}.{name}": R(lambda name=KNOWN.get(module, "tiny_intents"), key=(
        "repository" if module == "hub" else "name"): {key: name}, kinds=ANY_NAME.get(
        module, {}))
    for module, names in NAMED.items()
    for name in names
    if name != "fetch"
}  # fmt: skip
DATA |= {
    f"data.{module}.{name}": R(lambda name=name, content=content: {
        "path": written(name, content)})
    for module, names in FILES.items()
    for name, content in names.items()
}  # fmt: skip
D = "data."
FIVE = {"name": "small", "texts": ["a", "b"], "labels": ["x", "y"]}
DATA |= {
    D + "sources.load_dataset_by_name": R(
        lambda: {"name": "tiny_intents", "part": "train"}
    ),
    D + "sources.dataset_names": R(dict),
    D + "labeled.LabeledTexts": R(
        lambda: {**FIVE, "part": ["train", "test"], "domains": {"x": "d", "y": "e"}},
        use=somewhere, kinds=NAMES,
    ),
    D + "labeled.LabeledTokens": R(
        lambda: {"name": "small", "tokens": words(), "tags": tags(),
                 "part": ["train"] * 4},
        use=lambda d: (d.classes, somewhere(d)), kinds=NAMES,
    ),
    D + "labeled.LabeledImages": R(
        lambda: {"name": "small", "images": images(), "labels": ["x", "y"],
                 "part": ["train", "test"]},
        use=lambda d: (somewhere(d), d.tensors()), kinds=NAMES,
    ),
    D + "sources.fetch": R(lambda: {"name": "tiny_intents"}, fails=ValueError),
    D + "images.labeled_images": R(
        lambda: {"name": "omniglot", "stored": np.zeros((2, 20, 28, 28), np.uint8),
                 "names": characters()}
    ),
    D + "images.stored_omniglot": R(lambda: {"path": stored_characters()}),
    D + "images.omniglot_from_zips": R(lambda: {"zips": [zipped(), zipped("b")]}),
    D + "images.tiny_glyphs": R(lambda: {"n_classes": 2, "per_class": 2, "seed": 0}),
    D + "tiny.tiny_intents": R(
        lambda: {"per_class": 2, "test_per_class": 1, "distract": 0.3, "seed": 0}
    ),
    D + "tiny.tiny_entities": R(lambda: {"n": 3, "n_test": 2, "seed": 0}),
    D + "tiny.tiny_sentiment": R(
        lambda: {"per_class": 2, "test_per_class": 1, "seed": 0}
    ),
    D + "texts.labeled_texts": R(
        lambda: {"name": "small", "rows": [("a", "x", "train")]}, use=somewhere,
        kinds=NAMES,
    ),
    D + "texts.relations_of": R(lambda: {"name": "fewrel", "file": "a.json"},
                                kinds={"name": "text", "file": "text"}),
    D + "tagged.read_sentences": R(
        lambda: {"name": "gum", "folder": folder("empty")}, fails=FileNotFoundError
    ),
    D + "tagged.bio_error": R(lambda: {"tags": ["O", "I-x"]}),
    D + "tagged.bio_from_types": R(lambda: {"types": ["O", "x", "x"]}),
    D + "rows.Rows": R(lambda: {"name": "small"}, kinds={"name": "text"}),
    D + "rows.checked_names": R(
        lambda: {"given": ["train"], "kind": "part", "allowed": ["train", "test"]},
        kinds={"kind": "text"},
    ),
    D + "rows.did_you_mean": R(
        lambda: {"name": "trian", "allowed": ["train", "test"]},
        kinds={"name": "text", "allowed": "sequence"},  # of anything: a hint
    ),
    D + "rows.some": R(lambda: {"names": ["a", "b"], "most": 1}),
    D + "reading.broken": R(lambda: {"path": HERE / "x", "what": "it is odd"},
                            kinds={"what": "text"}),
    D + "reading.read_csv": R(
        lambda: {"path": written("t.csv", b"a,b\n1,2\n"), "columns": ["a", "b"]}
    ),
    D + "reading.csv_rows": R(
        lambda: {"text": "a,b\n1,2\n", "path": HERE / "t.csv", "columns": ["a", "b"]},
        kinds={"text": "text"},
    ),
    D + "files.absolute_environment": R(dict),
    D + "files.checksum": R(lambda: {"about": {"a": 1}}),
    D + "files.environment_folder": R(
        lambda: {"variable": "METALEARN_CACHE", "otherwise": "x", "must_exist": False},
        kinds={"variable": "text", "otherwise": "text"},
    ),
    D + "files.locked": R(lambda: {"folder": folder(), "shared": True}),
    D + "files.open_saved": R(
        lambda: {"folder": saved_folder(), "what": "thing"}, kinds={"what": "text"}
    ),
    D + "files.read_saved": R(
        lambda: {"folder": saved_folder(), "what": "thing"}, kinds={"what": "text"}
    ),
    D + "files.read_sealed": R(
        lambda: {"path": sealed(), "what": "thing", "remedy": "make it again"},
        kinds={"what": "text", "remedy": "text"},
    ),
    D + "files.seal": R(lambda: {"content": b"x"}),
    D + "files.made": R(lambda: {"path": HERE / "made"},
                        use=lambda part: part),
    D + "files.write_saved": R(
        lambda: {"folder": HERE / "new", "what": "thing", "about": {"a": 1},
                 "fill": filled},
        kinds={"what": "text"},
    ),
    D + "files.write_sealed": R(lambda: {"path": HERE / "w", "content": b"x"}),
    D + "hub.hub_address": R(dict),
    D + "hub.hub_is_off": R(dict),
    D + "upstream.cache_folder": R(dict),
    D + "upstream.cache_root": R(dict),
    D + "upstream.address": R(dict),
    D + "upstream.sets": R(dict),
    D + "upstream.ensure": R(
        lambda: {"name": "fewrel", "fetch": False, "progress": False},
        kinds={"fetch": "leave"},
        fails=download.FetchError,
    ),
    D + "download.fetch_items": R(
        lambda: {"items": [], "root": folder("items"), "name": "x", "progress": False},
        kinds={"name": "text"},
    ),
    D + "download.no_room": R(lambda: {"path": HERE, "e": OSError(28, "full")}),
    D + "spans.SpanTexts": R(
        lambda: {"name": "small", "texts": ["ab"], "labels": [("x",)],
                 "spans": [(spans.Span(0, 2, "y", "ab"),)], "part": ["train"],
                 "source": "folder"},
        use=somewhere, kinds=NAMES,
    ),
    D + "spans.DescribedTexts": R(
        lambda: {"name": "small", "texts": ["ab"], "labels": [("x",)],
                 "spans": [(spans.Span(0, 2, "y", "ab"),)], "part": ["train"],
                 "source": "folder", "descriptions": {"x": "a label"}},
        use=somewhere, kinds=NAMES,
    ),
    D + "passages.Summaries": R(
        lambda: {"name": "small", "sentences": [("a", "b")], "summaries": [("a",)],
                 "titles": ["t"], "ids": ["1"], "best": [0], "part": ["train"],
                 "source": "folder"},
        use=somewhere, kinds=NAMES,
    ),
    D + "passages.Translations": R(
        lambda: {"name": "small", "texts": {"en": ["a"], "de": ["b"]},
                 "documents": ["d"], "part": ["train"],
                 "languages": {"en": "English", "de": "German"}, "source": "folder"},
        use=lambda d: (somewhere(d), d.pairs("en", "de")), kinds=NAMES,
    ),
    D + "passages.QuestionAnswers": R(
        lambda: {"name": "small", "contexts": ["a b"], "questions": ["q"],
                 "answers": [()], "ids": ["1"], "languages": ["en"],
                 "articles": ["x"], "part": ["train"], "source": "folder"},
        use=somewhere, kinds=NAMES,
    ),
    D + "ratings.Ratings": R(
        lambda: {"name": "small", "users": ["u"], "items": ["i"], "ratings": [1],
                 "food": [1], "service": [2], "part": ["train"], "source": "folder",
                 "places": {"i": ratings.Place(**RECORDS[D + "ratings.Place"])}},
        use=somewhere, kinds=NAMES,
    ),
    D + "dialogues.Dialogues": R(
        lambda: {"name": "small", "turns": [(dialogues.Turn("user", "t", (), ()),)],
                 "services": ["s"], "ids": ["1"], "part": ["train"],
                 "schema": {"s": dialogues.Service("s", "d", {}, {})},
                 "source": "folder"},
        use=somewhere, kinds=NAMES,
    ),
    D + "drawings.NamedImages": R(
        lambda: {"name": "small", "images": np.zeros((1, 32, 32, 3), np.uint8),
                 "labels": ["x"], "styles": ["s"], "row_domains": ["d"],
                 "part": ["train"], "source": "folder",
                 "concepts": {"x": drawings.Concept("x", "g", "s", {"en": ("x",)})}},
        use=somewhere, kinds=NAMES,
    ),
}  # fmt: skip


# --- the book ------------------------------------------------------------------------


def figure(**changed):
    return figures.slider_figure(**{
        "x": [0.0, 1.0, 2.0], "curves": np.ones((2, 1, 3)) * [0.0, 1.0, 2.0],
        "slider": figures.Slider("steps", [1, 2]), "x_axis": figures.Axis("x"),
        "y_axis": figures.Axis("y"), "title": "t", "caption": "c", **changed,
    })  # fmt: skip


B = "book."


def target_words() -> dict:
    return {"chapter": "metric/x", "what": "a lead", "unit": "points", "value": 1.0,
            "sense": "at least", "limit": 2.0, "command": "make", "ci95": 0.1,
            "seeds": 3, "limits": "time"}  # fmt: skip


BOOK = {
    B + "claims.claim": R(
        lambda: {"sentence": "{a} is more", "holds": True, "scale": "book", "a": 1.5},
        kinds={"sentence": "text"},
    ),
    B + "display.Displayable": R(lambda: {"text_plain": "x"}, use=str,
                                 kinds={"text_plain": "text"}),
    B + "display.format_value": R(
        lambda: {"value": 0.5, "percent": True, "digits": 3},
        kinds={"value": "leave"},  # anything: nan is shown as a dash
    ),
    B + "display.show_table": R(
        lambda: {"rows": [{"a": 1.0}], "caption": "c", "percent": ("a",), "digits": 3},
        kinds={"caption": "text"}, use=str,
    ),
    B + "tables.sortable_table": R(
        lambda: {"rows": [{"m": "x", "a": 1.0}], "caption": "c", "percent": ("a",),
                 "digits": 3, "tags": {"x": "word"}},
        kinds={"caption": "text"}, use=str,
    ),
    B + "results.results_folder": R(lambda: {"name": "leaderboard"}, use=str,
                                    kinds={"name": "text"}),
    B + "display.show_text": R(lambda: {"template": "{a}", "a": 1.0}, use=str,
                               kinds={"template": "text", "a": "thing"}),
    B + "targets.Target": R(lambda: target_words(),
        kinds={"command": "text", "what": "text"},
    ),
    B + "targets.save_targets": R(
        lambda: {"part": "metric", "targets": [Target(**target_words())]},
        kinds={"part": "text"},
    ),
    B + "targets.load_targets": R(
        lambda: {"folder": "results"}, fails=FileNotFoundError
    ),
    B + "live.Value": R(
        lambda: {"start": 2.0, "low": 1.0, "high": 3.0, "log": True}
    ),
    B + "live.live": R(lambda: {"draw": lambda k: k, "k": (1, 2)}),
    B + "figures.book_style": R(dict),
    B + "figures.Slider": R(
        lambda: {"name": "steps", "labels": [1, 2], "start": 1},
        use=lambda s: str(figure(slider=s)), kinds={"name": "text"},
    ),
    B + "figures.Axis": R(
        lambda: {"label": "x", "log": False, "range": (0.0, 3.0)},
        use=lambda a: str(figure(x_axis=a)), kinds={"label": "text"},
    ),
    B + "figures.Line": R(
        lambda: {"y": [0.0, 1.0, 2.0], "name": "l"},
        use=lambda a: str(figure(line=a)), kinds={"name": "text"},
    ),
    B + "figures.Dots": R(
        lambda: {"x": [0.0, 1.0], "y": [0.0, 1.0], "name": "d"},
        use=lambda a: str(figure(dots=a)), kinds={"name": "text"},
    ),
    B + "figures.slider_figure": R(
        lambda: {"x": [0.0, 1.0, 2.0], "curves": np.ones((2, 1, 3)),
                 "slider": figures.Slider("steps", [1, 2]),
                 "x_axis": figures.Axis("x"), "y_axis": figures.Axis("y"),
                 "title": "t", "caption": "c"},
        kinds={"title": "text", "caption": "text"}, use=str,
    ),
    B + "results.load_results": R(
        lambda: {"chapter": "no/such", "at": "book", "missing": {"a": 1}},
        kinds={"chapter": "text", "at": "text"},
    ),
    B + "results.versions": R(lambda: {"*": ("torch",)}, kinds={"*": "leave"}),
    B + "scale.current_scale": R(dict),
    B + "scale.scale": R(lambda: {"smoke": 1, "book": 2, "full": 3},
                         kinds={"smoke": "leave", "book": "leave", "full": "leave"}),
    B + "scale.at_least": R(lambda: {"name": "book"}),
    "cli.chapters": R(dict),
}  # fmt: skip


# --- records, and what asks the machine ----------------------------------------------

#: Records hold what they are given: what reads them is judged by its own recipe.
RECORDS = {
    D + "cards.Files": {"origin": "here", "names": ("a",)},
    D + "cards.HubCopy": {"id": "a/b", "read": list},
    D + "cards.Entry": {"task": "t", "n_classes": 2, "counts": {"train": 1},
                        "licence": "l", "paper": "p", "url": "u", "files": None},
    D + "cards.DataCard": {"name": "n", "task": "t", "n_classes": 2, "counts": {},
                           "split": {}, "domains": "", "licence": "l", "paper": "p",
                           "url": "u", "origin": "o", "hub": None, "note": ""},
    D + "download.Item": {"path": "a", "url": "u", "size": 1, "sha256": None},
    D + "ratings.Place": {k: "a" for k in """id name city price alcohol smoking dress
        accessibility ambience area services""".split()}
    | {"cuisines": ("a",), "payments": (), "parking": ()},
    D + "spans.Span": {"start": 0, "end": 2, "label": "y", "text": "ab"},
    D + "passages.Answer": {"start": 0, "text": "ab"},
    D + "dialogues.Action": {"act": "a", "slot": "s", "values": ("v",)},
    D + "dialogues.Turn": {"speaker": "user", "text": "t", "spans": (), "actions": ()},
    D + "dialogues.Slot": {"name": "n", "description": "d", "categorical": True,
                           "values": ("v",)},
    D + "dialogues.Intent": {"name": "n", "description": "d", "transactional": True,
                             "required": (), "optional": {}, "results": ()},
    D + "dialogues.Service": {"name": "n", "description": "d", "slots": {},
                              "intents": {}},
    D + "drawings.Concept": {"emoji": "x", "group": "g", "subgroup": "s",
                             "names": {"en": ("x",)}},
    T + "Entity": {"start": 0, "end": 2, "type": "city", "score": 0.5, "text": "ab"},
    B + "display.Interval": {"mean": 0.5, "ci95": 0.1},
}  # fmt: skip


def derived_from() -> dict:
    return {"raw": folder("raw"), "folder": folder("derived")}


OTHERS = {
    key: R(lambda v=v: dict(v), kinds={n: "thing" for n in v})
    for key, v in RECORDS.items()
} | {
    A + "label_names_of": R(lambda: {"examples": words(), "label_names": ["O", "B-a"]}),
    D + "derived.make_hwu64": R(derived_from),
    D + "derived.make_fewrel": R(
        derived_from, fails=FileNotFoundError
    ),
    D + "derived.make_omniglot": R(
        derived_from, fails=FileNotFoundError
    ),
    # a RuntimeError where its renderer is not installed
    D + "drawings.make_emoji": R(
        derived_from, fails=Exception
    ),
    D + "drawings.need_renderer": R(dict),
    # no address that another machine would answer
    D + "hub.reachable": R(lambda: {"address": "http://127.0.0.1:9"},
                           kinds={"address": "text"}),
    B + "patch.patch": R(lambda: {"method": patched}),
    B + "results.save_results": R(
        lambda: {"chapter": "no/such", "numbers": {"a": 0.5}, "seed": 0,
                 "config": {"steps": 1}, "seconds": 1.5},
        # what was used as a seed is noted as it is
        kinds={"chapter": "text", "seed": "thing"}, infinite=True,
    ),
}  # fmt: skip


A = "data.arguments."
NAME = {"name": "leave", "what": "leave"}
ARGUMENTS = {
    A + "whole": R(lambda: {"name": "n", "value": 3}, kinds=NAME),
    A + "real": R(lambda: {"name": "rate", "value": 0.5}, kinds=NAME),
    A + "low_high": R(
        lambda: {"name": "range", "values": (0.5, 2.0), "least": 0.0}, kinds=NAME
    ),
    A + "choice": R(
        lambda: {"name": "order", "value": "first", "allowed": ("first", "second")},
        kinds=NAME | {"allowed": "leave"},
    ),
    A + "switch": R(lambda: {"name": "on", "value": True}, kinds=NAME),
    A + "function": R(lambda: {"name": "fn", "value": len}, kinds=NAME),
    A + "several": R(
        lambda: {"name": "texts", "values": ["a", "b"], "kind": str},
        kinds=NAME | {"kind": "leave", "values": "texts"},
    ),
    A + "shapes": R(
        lambda: {"logits": (vectors(2, 6, 3), "B S C"), "y": (vectors(2, 6), "B S")}
    ),
    A + "floating": R(lambda: {"x": vectors(2), "y": vectors(3), "finite": True}),
}


class Grown:
    pass


def patched(self: Grown, a: int = 1) -> int:
    return a


RECIPES = (
    ARGUMENTS
    | CLASSIFIER
    | STARTS
    | TAGGER
    | SEQUENCES
    | CORPORA
    | WORDS
    | ENTITIES
    | DATA
    | BOOK
    | OTHERS
)
#: public, and not tried: name -> why. With the exceptions below at most ten.
REASONS: dict[str, str] = {
    D + "drawings.render": "needs a renderer that is not always installed",
    D + "hub.hub_clinc150": "has no arguments, and asks the network",
    D + "hub.hub_banking77": "has no arguments, and asks the network",
    D + "hub.hub_hwu64": "has no arguments, and asks the network",
    D + "hub.hub_finentity": "has no arguments, and asks the network",
    "cli.main": "its arguments are checked by argparse, which ends the process",
}
#: (callable, argument) -> why its odd answer is right
EXCEPTIONS: dict[tuple[str, str], str] = {}
