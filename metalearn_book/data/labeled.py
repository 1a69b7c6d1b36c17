"""Containers of examples with one kind of label: texts, sentences with tags, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .arguments import several
from .rows import Rows

__all__ = ["LabeledTexts", "LabeledTokens", "LabeledImages"]


@dataclass(frozen=True)
class LabeledTexts(Rows):
    """Texts with one label each.

    part: the part of each row (`train`, `validation`, `test`, or `all` where the set
    has no parts).
    domains: the domain of each label, where a label belongs to one domain.
    row_domains: the domain of each row, also where labels are shared by the domains
    (sentiment).
    source: `folder`, `upstream`, `hub` or `generated`: where the rows come from.
    """

    texts: list[str]
    labels: list[str]
    part: list[str]
    domains: dict[str, str] | None = None
    source: str = "generated"
    row_domains: list[str] | None = None
    COLUMNS: ClassVar = ("texts", "labels", "part", "row_domains")

    def __post_init__(self):
        for column in ("texts", "labels"):
            several(f"{self.name}: {column}", getattr(self, column), str, least=0)
        if self.row_domains is None and self.domains is not None:
            domains = [self.domains.get(label, "") for label in self.labels]
            object.__setattr__(self, "row_domains", domains)
        self._check_columns()

    @property
    def classes(self) -> list[str]:
        "The different labels, sorted."
        return sorted(set(self.labels))

    def where(self, part=None, classes=None, domain=None) -> LabeledTexts:
        """The rows of one part or several, of these classes, of one domain or several;
        the order is kept.
        """
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, self.labels, "classes"),
            ("domain", domain, self.row_domains, "domains"),
        )


@dataclass(frozen=True)
class LabeledTokens(Rows):
    """Sentences as tokens with one BIO tag each: `B-city` opens an entity, `I-city`
    goes on with it, `O` is outside.

    tokens, tags: the words of each sentence, and the tag of each word.
    part: the part of each sentence.
    source: `folder`, `upstream` or `generated`: where the rows come from.
    row_domains: the domain of each sentence, where the set has domains.

    ValueError: a sentence with another number of tags than tokens.
    """

    tokens: list[list[str]]
    tags: list[list[str]]
    part: list[str]
    source: str = "generated"
    row_domains: list[str] | None = None
    COLUMNS: ClassVar = ("tokens", "tags", "part", "row_domains")

    def __post_init__(self):
        self._check_columns()
        for i, (tokens, tags) in enumerate(zip(self.tokens, self.tags)):
            if len(tokens) != len(tags):
                raise ValueError(
                    f"{self.name}, sentence {i}: {len(tokens)} tokens but {len(tags)} "
                    "tags"
                )

    @property
    def classes(self) -> list[str]:
        "The entity types, sorted."
        return sorted({tag[2:] for tags in self.tags for tag in tags if tag != "O"})

    def where(self, part=None, classes=None, domain=None) -> LabeledTokens:
        """The sentences of one part or several that hold an entity of these types, of
        one domain or several; the order is kept and tags are left as they are.
        """
        types = classes and [{t[2:] for t in tags if t != "O"} for tags in self.tags]
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, types, "classes"),
            ("domain", domain, self.row_domains, "domains"),
        )


@dataclass(frozen=True, eq=False)
class LabeledImages(Rows):
    """Grey images `(N, side, side)`, uint8, ink 255 on 0, with one label each;
    `row_domains` are the alphabets.

    part: the part of each image.
    source: `folder`, `upstream` or `generated`: where the rows come from.
    """

    images: np.ndarray
    labels: list[str]
    part: list[str]
    source: str = "generated"
    row_domains: list[str] | None = None
    COLUMNS: ClassVar = ("images", "labels", "part", "row_domains")

    def __post_init__(self):
        several(f"{self.name}: labels", self.labels, str, least=0)
        self._check_columns()

    @property
    def classes(self) -> list[str]:
        "The different labels, sorted."
        return sorted(set(self.labels))

    def where(self, part=None, classes=None, domain=None) -> LabeledImages:
        """The rows of one part or several, of these classes, of one alphabet
        (`domain`) or several; the order is kept.
        """
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, self.labels, "classes"),
            ("domain", domain, self.row_domains, "domains"),
        )

    def tensors(self, rotations: Sequence[int] = (0,)):
        """Images `(N · len(rotations), 1, side, side)` as floats from 0 to 1, and their
        labels.

        rotations: degrees, multiples of 90. A turned character is a class of its own,
        `label@90`, as in Santoro et al. (2016).
        """
        import torch

        if wrong := [r for r in rotations if r % 90]:
            raise ValueError(
                f"rotations must be multiples of 90 degrees, got {wrong[0]}"
            )
        x = torch.from_numpy(self.images).float().div_(255)[:, None]
        turned = [x if r % 360 == 0 else x.rot90(r // 90, (2, 3)) for r in rotations]
        labels = [
            label if r % 360 == 0 else f"{label}@{r % 360}"
            for r in rotations
            for label in self.labels
        ]
        return torch.cat(turned), labels
