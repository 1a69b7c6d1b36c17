"""Character images: Omniglot from its files, and generated glyphs that need none."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np

from .arguments import whole
from .files import path_of
from .reading import broken, missing
from .labeled import LabeledImages
from .splits import part_of

__all__ = [
    "SIDE",
    "ZIPS",
    "labeled_images",
    "stored_omniglot",
    "read_omniglot",
    "omniglot_from_zips",
    "tiny_glyphs",
]

SIDE = 28  # pixels of a side
DRAWINGS = 20  # of each character of Omniglot
#: the archives of Omniglot: 964 characters, and 659
ZIPS = ("images_background.zip", "images_evaluation.zip")


#: what NumPy raises for a file that it can't read, or that holds something else
_UNREADABLE = (
    *(OSError, EOFError, zlib.error, zipfile.BadZipFile),
    *(ValueError, KeyError, TypeError, AttributeError),
)


def labeled_images(
    name: str,
    stored: np.ndarray,  # (classes, drawings, side, side)
    names: Sequence[str],  # one for each class
    domains: Sequence[str] | None = None,  # such as alphabets, one for each class
    source: str = "generated",  # where the rows come from
) -> LabeledImages:
    "Images of each class as rows; the part is that of the fixed class split."
    parts = part_of(name)
    if strange := [n for n in names if n not in parts]:
        raise ValueError(
            f"character {strange[0]!r} is not in the fixed split ({len(strange)} such)"
        )
    per_class = stored.shape[1]
    labels = [n for n in names for _ in range(per_class)]
    return LabeledImages(
        name,
        stored.reshape(-1, *stored.shape[2:]),
        labels,
        [parts[label] for label in labels],
        source,
        None if domains is None else [d for d in domains for _ in range(per_class)],
    )


def stored_omniglot(path: Path) -> tuple[np.ndarray, list[str]]:
    """Images `(characters, 20, 28, 28)`, uint8, ink 255 on 0, and a name
    `folder/alphabet/character` for each character. ValueError for another layout,
    RuntimeError for a file that holds no such arrays.
    """
    path = path_of(path)
    if not path.is_file():
        raise missing(path)
    try:
        with np.load(path) as stored:
            images, names = stored["X"], [str(n) for n in stored["names"]]
    except _UNREADABLE as e:
        raise broken(path, f"{type(e).__name__}: {e}") from e
    if images.shape != (len(names), DRAWINGS, SIDE, SIDE) or images.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 images ({len(names)}, {DRAWINGS}, {SIDE}, {SIDE}), got "
            f"{images.dtype} {images.shape}"
        )
    return images, names


def read_omniglot(folder: Path) -> LabeledImages:
    "All characters; a label is `alphabet/character`, the alphabets are the domains."
    path = folder / "omniglot_28x28.npz"
    if not path.is_file():
        raise missing(path)
    stored, names = stored_omniglot(path)
    short = ["/".join(n.split("/")[-2:]) for n in names]
    return labeled_images(
        "omniglot", stored, short, [n.split("/")[0] for n in short], "folder"
    )


def omniglot_from_zips(zips: list[bytes]) -> tuple[np.ndarray, list[str]]:
    """The same from the original zip files, whose drawings are 105 x 105 pixels, black
    on white; scaled down bilinearly.
    """
    from PIL import Image

    drawings: dict[str, list[np.ndarray]] = {}
    for content in zips:
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            for member in sorted(
                n
                for n in z.namelist()
                if n.endswith(".png") and not n.startswith("__MACOSX")
            ):
                with z.open(member) as f:
                    small = (
                        Image.open(f)
                        .convert("L")
                        .resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                    )
                drawings.setdefault(member.rsplit("/", 1)[0], []).append(
                    255 - np.asarray(small)
                )
    wrong = [name for name, d in drawings.items() if len(d) != DRAWINGS]
    if wrong or not drawings:
        raise ValueError(
            f"expected {DRAWINGS} drawings of each character, "
            f"{wrong[:1] or 'the zip files'} has "
            f"{len(drawings[wrong[0]]) if wrong else 0}"
        )
    return np.stack([np.stack(d) for d in drawings.values()]), list(drawings)


def _curve(points: np.ndarray, n: int = 24) -> np.ndarray:
    "`n` points of the quadratic Bézier curve with three control points."
    t = np.linspace(0.0, 1.0, n)[:, None]
    return (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]


def _draw(strokes: np.ndarray, width: float) -> np.ndarray:
    """Ink on a grid of 28 x 28: strokes `(n, 3, 2)` are curves in the unit square,
    `width` is the pen's radius in pixels.
    """
    path, pixels = (
        np.concatenate([_curve(s) for s in strokes]) * SIDE,
        np.arange(SIDE) + 0.5,
    )
    x, y = (pixels[:, None] - path[:, 0]) ** 2, (pixels[:, None] - path[:, 1]) ** 2
    distance = np.sqrt((x[None] + y[:, None]).min(-1))
    return np.round(255 * np.clip(width + 0.5 - distance, 0.0, 1.0)).astype(np.uint8)


def tiny_glyphs(
    n_classes: int = 60, per_class: int = 20, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Generated characters: `(n_classes, per_class, 28, 28)` and their names `glyphNN`.

    A class is two to four curved strokes; a drawing of it moves every control point,
    shifts, scales, slants and turns the whole, and takes a pen of another width.
    """
    n_classes = whole("n_classes", n_classes, 0)
    per_class = whole("per_class", per_class, 0)
    rng = Random(whole("seed", seed, 0))

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return np.array(
            [low + (high - low) * rng.random() for _ in range(int(np.prod(shape)))]
        ).reshape(shape)

    images = np.zeros((n_classes, per_class, SIDE, SIDE), np.uint8)
    for c in range(n_classes):
        strokes = uniform(0.1, 0.9, 2 + int(rng.random() * 3), 3, 2)
        for i in range(per_class):
            moved = strokes + uniform(-0.06, 0.06, *strokes.shape) - 0.5
            turn, slant, size = (
                uniform(-0.25, 0.25, 1)[0],
                uniform(-0.2, 0.2, 1)[0],
                uniform(0.75, 1.0, 1)[0],
            )
            matrix = (
                size
                * np.array(
                    [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
                )
                @ np.array([[1.0, slant], [0.0, 1.0]])
            )
            images[c, i] = _draw(
                moved @ matrix + 0.5 + uniform(-0.05, 0.05, 2), uniform(0.6, 1.2, 1)[0]
            )
    return images, [f"glyph{c:02}" for c in range(n_classes)]
