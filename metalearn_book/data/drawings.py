"""Emoji in seven drawing styles with names in 15 languages: container, reader, and how
the set is made from the icon packages.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from .files import made
from .reading import broken, missing, read_json
from .rows import Rows
from .splits import part_of

__all__ = [
    "Concept",
    "NamedImages",
    "STYLES",
    "read_emoji",
    "make_emoji",
    "need_renderer",
    "render",
]

#: who drew the emoji, in the order of `NamedImages.styles`
STYLES = (
    "noto",
    "noto-v1",
    "twemoji",
    "openmoji",
    "fluent-emoji-flat",
    "emojione",
    "emojione-v1",
)
LANGUAGES = (
    "zh",
    "de",
    "es",
    "fr",
    "it",
    "ja",
    "ko",
    "pt",
    "ru",
    "hi",
    "vi",
    "th",
    "sv",
    "pl",
)
SIDE = 32  # pixels of a side
FEWEST = 5  # styles that an emoji has to have
UNSEEN = {"2B1C"}  # the white large square: nothing to see on white
# Drawings that the set leaves out: their paths reach far beyond the canvas.
LEFT_OUT = {
    ("noto", "package"),
    *(
        ("noto-v1", icon)
        for icon in (
            "person-lifting-weights",
            "man-lifting-weights",
            "lady-beetle",
            "hot-beverage",
            "cocktail-glass",
            "bullet-train",
            "ambulance",
        )
    ),
}


class Concept(NamedTuple):
    """What an emoji stands for; `names` are, in each language, its label and then
    keywords.

    group, subgroup: Unicode's, such as `animals & nature` and `cat faces`.
    """

    emoji: str
    group: str
    subgroup: str
    names: dict[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class NamedImages(Rows):
    """Pictures of emoji, one row for each drawing.

    images: `(N, 32, 32, 3)`, uint8, RGB on white.
    labels: the English label, the same for all drawings of an emoji.
    styles: who drew it, such as `twemoji`; a style is a domain.
    row_domains: the subgroup, such as `cat faces`; the fixed split is by subgroup, so
    that test classes are new in kind.
    part: the part of the subgroup in the fixed split.
    concepts: label -> emoji, group, subgroup, names in 15 languages.
    source: `folder` or `upstream` (drawn on this machine): where the rows come from.
    """

    images: np.ndarray
    labels: list[str]
    styles: list[str]
    row_domains: list[str]
    part: list[str]
    concepts: dict[str, Concept]
    source: str
    COLUMNS: ClassVar = ("images", "labels", "styles", "row_domains", "part")

    def __post_init__(self):
        self._check_columns()
        if lacking := set(self.labels) - set(self.concepts):
            first = sorted(lacking, key=str)[0]
            raise ValueError(
                f"{self.name}: labels holds {first!r}, of which concepts has no names"
            )

    @property
    def classes(self) -> list[str]:
        "The different labels, sorted."
        return sorted(set(self.labels))

    def where(self, part=None, classes=None, style=None, domain=None) -> NamedImages:
        """The drawings of these parts (`part`), labels (`classes`), styles and
        subgroups (`domain`); the order is kept.
        """
        return self._where(
            ("part", part, self.part, "parts"),
            ("class", classes, self.labels, "classes"),
            ("style", style, self.styles, "styles"),
            ("domain", domain, self.row_domains, "domains"),
        )

    def names(self, language: str = "en") -> list[str]:
        "The name of each row in a language; ValueError for one that is not there."
        for label in set(self.labels):
            if language not in (known := self.concepts[label].names):
                raise ValueError(
                    f"{self.name} has no names in {language!r}; there are "
                    f"{', '.join(known)}"
                )
        return [self.concepts[label].names[language][0] for label in self.labels]

    def tensors(self):
        "Images `(N, 3, 32, 32)` as floats from 0 to 1, and their labels."
        import torch

        x = torch.from_numpy(self.images).permute(0, 3, 1, 2).float().div_(255)
        return x.contiguous(), list(self.labels)


def read_emoji(folder: Path) -> NamedImages:
    "All drawings, class by class."
    path, known = folder / "emoji_32x32.npz", read_json(folder / "emoji_names.json.gz")
    if not path.is_file():
        raise missing(path)
    try:
        with np.load(path) as stored:
            images, y, style = stored["X"], stored["y"], stored["style"]
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
    ) as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e
    if (
        images.dtype != np.uint8
        or images.shape != (len(y), SIDE, SIDE, 3)
        or len(style) != len(y)
    ):
        raise broken(
            path,
            f"expected uint8 images ({len(y)}, {SIDE}, {SIDE}, 3), got "
            f"{images.dtype} {images.shape}",
        )
    concepts = {
        c["label"]: Concept(
            c["emoji"],
            c["group"],
            c["subgroup"],
            {
                "en": (c["label"], *c["tags"]),
                **{k: tuple(v) for k, v in c["names"].items()},
            },
        )
        for c in known["classes"]
    }
    labels = [known["classes"][i]["label"] for i in y]
    parts, domains = part_of("emoji"), [concepts[label].subgroup for label in labels]
    return NamedImages(
        "emoji",
        images,
        labels,
        [known["styles"][i] for i in style],
        domains,
        [parts[d] for d in domains],
        concepts,
        "folder",
    )


# ---------------------------------------------------------------- making it


def _member(package: Path, path: str):
    if not package.is_file():
        raise missing(package)
    with tarfile.open(package) as archive:
        return json.load(archive.extractfile(f"package/{path}"))


def _code(hexcode: str) -> str:
    """A code point sequence without variation selectors, which packages set or leave
    out.
    """
    return "-".join(c for c in hexcode.lower().split("-") if c != "fe0f")


class _Icons:
    "The icons of one style: by name, and where the package says so by code points."

    def __init__(self, package: Path):
        self.set = _member(package, "icons.json")
        self.by_code = {
            _code(c): name for c, name in _member(package, "chars.json").items()
        }

    def own_name(self, name: str) -> str:
        "The name that an alias stands for."
        while (alias := self.set.get("aliases", {}).get(name)) is not None:
            name = alias["parent"]
        return name

    def svg(self, name: str) -> str | None:
        "The drawing as an SVG of 32 x 32 pixels; None for a name that is not there."
        if (icon := self.set["icons"].get(self.own_name(name))) is None:
            return None
        box = [
            icon.get(k, self.set.get(k, default))
            for k, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        ]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{SIDE}" height="{SIDE}" '
            f'viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
        )


def render(svg: str) -> np.ndarray:
    "An SVG on white, `(height, width, 3)`, uint8."
    import resvg
    from PIL import Image

    tree = resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
    png = resvg.render(tree, (1, 0, 0, 0, 1, 0), bg_color=(255, 255, 255, 255))
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _drawings(code: str, icons: dict[str, _Icons]) -> dict[int, str]:
    """Style number -> SVG. A package without code points is asked for the names that
    the others use.
    """
    names = list(
        dict.fromkeys(i.by_code[code] for i in icons.values() if code in i.by_code)
    )
    found = {}
    for number, (style, i) in enumerate(icons.items()):
        for name in [i.by_code.get(code)] if i.by_code else names:
            if name is not None and (svg := i.svg(name)) is not None:
                if (style, i.own_name(name)) not in LEFT_OUT:
                    found[number] = svg
                break
    return found


def _emoji(package: Path) -> list[tuple[dict, str, str]]:
    """Every emoji without skin tone that is no country's flag, in the order of Unicode,
    with group and subgroup.
    """
    messages = _member(package, "en/messages.json")
    groups, subgroups = (
        {m["order"]: m["message"] for m in messages[k]} for k in ("groups", "subgroups")
    )
    country = next(
        m["order"] for m in messages["subgroups"] if m["key"] == "country-flag"
    )
    kept = [
        e
        for e in _member(package, "en/data.json")
        if e.get("group") not in (None, 2)
        and e["subgroup"] != country
        and e["hexcode"] not in UNSEEN
    ]  # 2: components
    return [
        (e, groups[e["group"]], subgroups[e["subgroup"]])
        for e in sorted(kept, key=lambda e: e["order"])
    ]


def need_renderer() -> None:
    "RuntimeError: the renderer of the emoji is not installed."
    if importlib.util.find_spec("resvg") is None:
        raise RuntimeError(
            "drawing the emoji needs resvg; install it with: pip install "
            "'metalearn_book[emoji]'"
        )


def make_emoji(raw: Path, folder: Path) -> None:
    """`emoji_32x32.npz` and `emoji_names.json.gz` from the packages in `raw`.

    An emoji that fewer than five styles have is left out. RuntimeError: the renderer
    `resvg` is not installed.
    """
    need_renderer()
    icons = {style: _Icons(raw / f"@iconify-json+{style}.tgz") for style in STYLES}
    base = raw / "emojibase-data.tgz"
    translated = {
        lang: {e["hexcode"]: e for e in _member(base, f"{lang}/data.json")}
        for lang in LANGUAGES
    }
    images: list[np.ndarray] = []
    y: list[int] = []
    style: list[int] = []
    classes: list[dict] = []
    for e, group, subgroup in _emoji(base):
        found = _drawings(_code(e["hexcode"]), icons)
        if len(found) < FEWEST:
            continue
        images += [render(svg) for svg in found.values()]
        y += [len(classes)] * len(found)
        style += list(found)
        names = {
            lang: _names(known[e["hexcode"]]) for lang, known in translated.items()
        }
        classes.append(
            {
                "hex": e["hexcode"],
                "emoji": e["emoji"],
                "label": e["label"],
                "tags": e["tags"],
                "group": group,
                "subgroup": subgroup,
                "names": names,
            }
        )
    _write(folder, images, y, style, classes)


def _names(e: dict) -> list[str]:
    return [e["label"], *e.get("tags", [])]


def _write(
    folder: Path,
    images: Sequence[np.ndarray],
    y: list[int],
    style: list[int],
    classes: list[dict],
) -> None:
    text = json.dumps(
        {"styles": STYLES, "classes": classes},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    with made(folder / "emoji_names.json.gz") as target:
        target.write_bytes(gzip.compress(text.encode(), mtime=0))
    with made(folder / "emoji_32x32.npz") as target:
        np.savez_compressed(
            target,
            X=np.stack(images),
            y=np.array(y, np.int16),
            style=np.array(style, np.int8),
        )
