"""Data sets by name: real ones from a folder or from the hub, tiny ones that the package generates itself.

The loaders need neither torch nor `datasets` until a data set is fetched from the hub.
"""
from .sources import (DataCard, LabeledImages, LabeledTexts, LabeledTokens, available, class_split, dataset_names, describe,
                      load_dataset_by_name)
from .images import tiny_glyphs
from .tiny import tiny_entities, tiny_intents, tiny_sentiment

__all__ = ["DataCard", "LabeledImages", "LabeledTexts", "LabeledTokens", "available", "class_split", "dataset_names", "describe", "load_dataset_by_name",
           "tiny_entities", "tiny_glyphs", "tiny_intents", "tiny_sentiment"]
