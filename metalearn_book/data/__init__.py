"""Data sets by name: real ones from a folder, a cache, the hub or their upstream
repository, tiny ones that the package generates itself.

The loaders need neither torch nor `datasets` until a data set is fetched from the hub.
"""

from .cards import DataCard
from .dialogues import Dialogues
from .drawings import NamedImages
from .images import tiny_glyphs
from .labeled import LabeledImages, LabeledTexts, LabeledTokens
from .passages import QuestionAnswers, Summaries, Translations
from .ratings import Ratings
from .sources import (
    at_hand,
    available,
    class_split,
    dataset_names,
    describe,
    fetch,
    load_dataset_by_name,
)
from .spans import DescribedTexts, SpanTexts
from .tiny import tiny_entities, tiny_intents, tiny_sentiment

__all__ = [
    "DataCard",
    "DescribedTexts",
    "Dialogues",
    "LabeledImages",
    "LabeledTexts",
    "LabeledTokens",
    "NamedImages",
    "QuestionAnswers",
    "Ratings",
    "SpanTexts",
    "Summaries",
    "Translations",
    "at_hand",
    "available",
    "class_split",
    "dataset_names",
    "describe",
    "fetch",
    "load_dataset_by_name",
    "tiny_entities",
    "tiny_glyphs",
    "tiny_intents",
    "tiny_sentiment",
]
