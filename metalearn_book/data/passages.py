"""Longer texts in pairs: questions on a passage, translations, summaries. Containers
and readers (XQuAD, NTREX, SciTLDR).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from .reading import broken, missing, read_json, read_lines_of_json, read_text
from .rows import Rows, checked_names
from .splits import part_of

__all__ = [
    "Answer",
    "QuestionAnswers",
    "Translations",
    "Summaries",
    "read_xquad",
    "read_ntrex",
    "read_scitldr",
]

XQUAD_LANGUAGES = (
    "en",
    "ar",
    "de",
    "el",
    "es",
    "hi",
    "ro",
    "ru",
    "th",
    "tr",
    "vi",
    "zh",
)


# ---------------------------------------------------------------- questions


class Answer(NamedTuple):
    "An answer as a piece of the passage: `context[start:start + len(text)]` is `text`."

    start: int
    text: str


@dataclass(frozen=True)
class QuestionAnswers(Rows):
    """Questions, each with a passage that holds the answer.

    contexts: the passage of each row; rows of one passage share the string.
    questions, answers: a question, and its accepted answers as pieces of the passage.
    ids: the same question has the same id in all languages.
    languages, articles: the language of each row, and the title of the article.
    part: the part of the article in the fixed split.
    source: `folder` or `upstream`: where the rows come from.

    ValueError: an answer that is not what stands at its place.
    """

    contexts: list[str]
    questions: list[str]
    answers: list[tuple[Answer, ...]]
    ids: list[str]
    languages: list[str]
    articles: list[str]
    part: list[str]
    source: str
    COLUMNS: ClassVar = (
        "contexts",
        "questions",
        "answers",
        "ids",
        "languages",
        "articles",
        "part",
    )

    def __post_init__(self):
        self._check_columns()
        for i, (context, answers) in enumerate(zip(self.contexts, self.answers)):
            for a in answers:
                if not a.text or not context.startswith(a.text, a.start):
                    raise ValueError(
                        f"{self.name}, question {i}: the answer at {a.start} is not "
                        "the text there"
                    )

    def where(self, part=None, language=None, article=None) -> QuestionAnswers:
        "The rows of these parts, languages and articles; the order is kept."
        return self._where(
            ("part", part, self.part, "parts"),
            ("language", language, self.languages, "languages"),
            ("article", article, self.articles, "articles"),
        )


def read_xquad(folder: Path) -> QuestionAnswers:
    "1,190 questions in each of 12 languages, English first."
    parts, rows = part_of("xquad"), []
    for language in XQUAD_LANGUAGES:
        for article in read_json(folder / f"xquad.{language}.json.gz")["data"]:
            title = article["title"]
            for paragraph in article["paragraphs"]:
                for q in paragraph["qas"]:
                    answers = tuple(
                        Answer(a["answer_start"], a["text"]) for a in q["answers"]
                    )
                    rows.append(
                        (
                            paragraph["context"],
                            q["question"],
                            answers,
                            q["id"],
                            language,
                            title,
                            parts[title],
                        )
                    )
    return QuestionAnswers("xquad", *map(list, zip(*rows)), "folder")


# ---------------------------------------------------------------- translations


@dataclass(frozen=True)
class Translations(Rows):
    """The same sentences in many languages: row `n` is one sentence.

    texts: language code -> the sentences in that language.
    documents: the document of each sentence; sentences of a document are in order.
    part: the part of the document in the fixed split.
    languages: language code -> its English name.
    source: `folder` or `upstream`: where the rows come from.
    """

    texts: dict[str, list[str]]
    documents: list[str]
    part: list[str]
    languages: dict[str, str]
    source: str
    COLUMNS: ClassVar = ("texts", "documents", "part")
    BY_LANGUAGE: ClassVar = ("texts",)

    def __post_init__(self):
        self._check_columns()

    def where(self, part=None, document=None) -> Translations:
        """The sentences of these parts and documents, in all languages; the order is
        kept.
        """
        return self._where(
            ("part", part, self.part, "parts"),
            ("document", document, self.documents, "documents"),
        )

    def pairs(self, source: str, target: str) -> list[tuple[str, str]]:
        "Each sentence in two languages, such as `pairs('eng', 'deu')`."
        for language in (source, target):
            checked_names(language, "language", self.texts)
        return list(zip(self.texts[source], self.texts[target]))


def read_ntrex(folder: Path) -> Translations:
    "1,997 sentences of news in English and in the 40 languages whose files are there."
    known = {}
    for line in read_text(folder / "LANGUAGES.tsv").split("\n"):
        code, _, name = line.strip().partition(" " if "\t" not in line else "\t")
        if name:
            known[code] = name.strip()
    paths = {"eng": folder / "newstest2019-src.eng.txt.gz"}
    paths |= {
        p.name.split(".")[1]: p
        for p in sorted(folder.glob("newstest2019-ref.*.txt.gz"))
    }
    if len(paths) != 41:
        raise missing(folder / "newstest2019-ref.<language>.txt.gz")
    texts = {
        code: read_text(p).removesuffix("\n").split("\n") for code, p in paths.items()
    }
    documents = read_text(folder / "DOCUMENT_IDS.tsv").split()
    for code, lines in texts.items():
        if len(lines) != len(documents):
            raise broken(
                paths[code], f"{len(lines):,} lines, expected {len(documents):,}"
            )
        texts[code] = [line.strip() for line in lines]
    parts = part_of("ntrex")
    return Translations(
        "ntrex",
        texts,
        documents,
        [parts[d] for d in documents],
        {code: known[code] for code in paths if code != "eng"} | {"eng": "English"},
        "folder",
    )


# ---------------------------------------------------------------- summaries


@dataclass(frozen=True)
class Summaries(Rows):
    """Abstracts with summaries of one sentence each, and titles.

    sentences: the sentences of each abstract.
    summaries: one summary in `train`, one or several in `validation` and `test`.
    titles, ids: the title of the paper, and its id on OpenReview.
    part: the official part.
    source: `folder` or `upstream`: where the rows come from.
    best: for each abstract the position of the sentence that is nearest to a summary.
    """

    sentences: list[tuple[str, ...]]
    summaries: list[tuple[str, ...]]
    titles: list[str]
    ids: list[str]
    best: list[int]
    part: list[str]
    source: str
    COLUMNS: ClassVar = ("sentences", "summaries", "titles", "ids", "best", "part")

    def __post_init__(self):
        self._check_columns()
        for i, (sentences, summaries) in enumerate(zip(self.sentences, self.summaries)):
            if not sentences or not summaries or not 0 <= self.best[i] < len(sentences):
                raise ValueError(
                    f"{self.name}, row {i}: no sentence, no summary, or the nearest "
                    f"sentence {self.best[i]} is not there"
                )

    @property
    def texts(self) -> list[str]:
        "The abstracts, sentences joined by spaces."
        return [" ".join(sentences) for sentences in self.sentences]

    def where(self, part=None) -> Summaries:
        "The rows of these parts; the order is kept."
        return self._where(("part", part, self.part, "parts"))


def read_scitldr(folder: Path) -> Summaries:
    "Abstracts of papers on computer science with their short summaries."
    rows = []
    for part, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        for r in read_lines_of_json(folder / f"{file}.jsonl.gz"):
            best = r["source_labels"].index(1)
            rows.append(
                (
                    tuple(s.strip() for s in r["source"]),
                    tuple(s.strip() for s in r["target"]),
                    r["title"].strip(),
                    r["paper_id"],
                    best,
                    part,
                )
            )
    return Summaries("scitldr", *map(list, zip(*rows)), "folder")
