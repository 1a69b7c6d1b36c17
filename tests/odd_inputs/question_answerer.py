"Recipes for `case_studies.question_answerer`."

import functools

import torch
from odd_inputs import Recipe

from metalearn_book.case_studies import question_answerer as qa
from metalearn_book.case_studies.questions import tiny_questions
from metalearn_book.foundations.encoders import tiny_encoder

R = Recipe
Q = "case_studies.question_answerer."
SENTENCE = "Arvo lies on the river Nairn."


@functools.cache
def toy():
    return tiny_questions(4)


@functools.cache
def plain():
    return tiny_encoder(toy().contexts + toy().questions)


@functools.cache
def reader():
    return qa.SpanReader(plain())


@functools.cache
def rows():
    return tuple(qa.span_examples(toy()))


@functools.cache
def start():
    return qa.reader_start(reader(), plain(), 2, {"encoder": "tiny"})


def example():
    return qa.SpanExample("Which river?", SENTENCE, 23, 28)


def scores(seed: int) -> torch.Tensor:
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))


def asked(answerer):
    return [a.score for a in answerer.add([SENTENCE]).candidates("Which river?")]


def read(found) -> list[float]:
    return [s.score for s in found.read(["Which river?"], [SENTENCE])]


FEW = {"lr": 1e-3, "layers": 1}

RECIPES = {
    Q + "normalized_answer": R(
        lambda: {"text": "The Nairn.", "by_character": False}, kinds={"text": "text"}
    ),
    Q + "exact_match": R(
        lambda: {"prediction": "Nairn", "answers": ["the Nairn"],
                 "by_character": False},
        kinds={"prediction": "text"},
    ),
    Q + "answer_f1": R(
        lambda: {"prediction": "Nairn", "answers": ["river Nairn"],
                 "by_character": False},
        kinds={"prediction": "text"},
    ),
    Q + "span_scores": R(
        lambda: {"predictions": ["Nairn"], "examples": [example()]},
    ),
    Q + "SpanExample": R(
        lambda: {"question": "Which river?", "sentence": SENTENCE, "start": 23,
                 "end": 28, "answers": ("Nairn",), "article": "Arvo",
                 "passage": SENTENCE},
        kinds={"question": "text", "sentence": "text", "article": "text",
               "passage": "text"},
    ),
    Q + "span_examples": R(lambda: {"data": toy()}, use=len),
    Q + "read_by_rule": R(
        lambda: {"question": "Which river?", "sentence": SENTENCE},
        kinds={"question": "text", "sentence": "text"},
    ),
    Q + "start_windows": R(
        lambda: {"start": scores(0), "max_tokens": 3}, infinite=True
    ),
    Q + "best_span": R(
        lambda: {"start": scores(0), "end": scores(1), "max_tokens": 3}, infinite=True
    ),
    Q + "span_normalizer": R(
        lambda: {"start": scores(0), "end": scores(1), "max_tokens": 3}, infinite=True
    ),
    Q + "SpanReader": R(lambda: {"encoder": plain(), "max_tokens": 5}, use=read),
    Q + "FoundSpan": R(
        lambda: {"start": 23, "end": 28, "text": "Nairn", "score": 0.5},
        kinds={"text": "text"},
    ),
    Q + "train_reader": R(
        lambda: {"reader": reader(), "examples": rows()[:4], "epochs": 1,
                 "batch_size": 2, "lr": 1e-3, "head_lr": 1e-3, "layers": 1, "seed": 0,
                 "bf16": False, "progress": False},
        use=read,
    ),
    Q + "adapt_reader": R(
        lambda: {"reader": reader(), "examples": rows()[:2], "steps": 1} | FEW,
        use=read,
    ),
    Q + "meta_train_reader": R(
        lambda: {"reader": reader(), "examples": rows()[:6], "k_shot": 1, "n_query": 2,
                 "inner_steps": 1, "inner_lr": 1e-3, "steps": 1, "head_lr": 1e-3,
                 "seed": 0} | FEW,
        use=read,
    ),
    Q + "reader_start": R(
        lambda: {"reader": reader(), "encoder": plain(), "rank": 2,
                 "about": {"encoder": "tiny"}},
        use=lambda s: list(s.tensors.values()),
    ),
    Q + "started_reader": R(
        lambda: {"encoder": plain(), "start": start()}, use=read
    ),
    Q + "question_start": R(lambda: {}, use=lambda s: list(s.tensors)),
    Q + "answer_threshold": R(
        lambda: {"scores": [0.9, 0.2], "worth": [1.0, 0.0],
                 "answerable": [True, False]},
    ),
    Q + "AnswerFound": R(
        lambda: {"text": "Nairn", "score": 0.5, "sentence": SENTENCE, "passage": 0,
                 "start": 23, "end": 28, "name": "Arvo"},
        kinds={"text": "text", "sentence": "text", "name": "text"},
    ),
    Q + "QuestionAnswerer": R(
        lambda: {"encoder": plain(), "reader": reader(), "threshold": 0.1,
                 "n_sentences": 2},
        use=asked,
    ),
}  # fmt: skip
