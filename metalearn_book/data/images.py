"""Character images: Omniglot from its files, and generated glyphs that need none. Arrays only; `sources` gives them names and parts."""
from __future__ import annotations

import io
import os
import urllib.request
import zipfile
from pathlib import Path
from random import Random

import numpy as np

__all__ = ["SIDE", "read_omniglot", "omniglot_from_zips", "download_omniglot", "omniglot_cache", "tiny_glyphs"]

SIDE = 28          # pixels of a side
DRAWINGS = 20      # of each character of Omniglot
OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python/"
ZIPS = ("images_background.zip", "images_evaluation.zip")


def read_omniglot(path: Path) -> tuple[np.ndarray, list[str]]:
    "Images `(characters, 20, 28, 28)`, uint8, ink 255 on 0, and a name `folder/alphabet/character` for each character. ValueError for another layout."
    with np.load(path) as stored:
        images, names = stored["X"], [str(n) for n in stored["names"]]
    if images.shape != (len(names), DRAWINGS, SIDE, SIDE) or images.dtype != np.uint8:
        raise ValueError(f"expected uint8 images ({len(names)}, {DRAWINGS}, {SIDE}, {SIDE}), got {images.dtype} {images.shape}")
    return images, names


def omniglot_from_zips(zips: list[bytes]) -> tuple[np.ndarray, list[str]]:
    "The same from the original zip files, whose drawings are 105 x 105 pixels, black on white; scaled down bilinearly."
    from PIL import Image
    drawings: dict[str, list[np.ndarray]] = {}
    for content in zips:
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            for member in sorted(n for n in z.namelist() if n.endswith(".png") and not n.startswith("__MACOSX")):
                with z.open(member) as f:
                    small = Image.open(f).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                drawings.setdefault(member.rsplit("/", 1)[0], []).append(255 - np.asarray(small))
    wrong = [name for name, d in drawings.items() if len(d) != DRAWINGS]
    if wrong or not drawings:
        raise ValueError(f"expected {DRAWINGS} drawings of each character, {wrong[:1] or 'the zip files'} has {len(drawings[wrong[0]]) if wrong else 0}")
    return np.stack([np.stack(d) for d in drawings.values()]), list(drawings)


def omniglot_cache() -> Path:
    "Where a downloaded copy is kept."
    return Path(os.environ.get("METALEARN_CACHE") or Path.home() / ".cache" / "metalearn_book") / "omniglot_28x28.npz"


def download_omniglot(address: str = OMNIGLOT) -> Path:
    "Fetch both zip files (20 MB), scale the drawings down and store them as one file; does nothing where that file is there already."
    path = omniglot_cache()
    if not path.exists():
        contents = []
        for name in ZIPS:
            with urllib.request.urlopen(address + name, timeout=60) as f:
                contents.append(f.read())
        images, names = omniglot_from_zips(contents)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
        np.savez_compressed(part, X=images, names=np.array(names))
        os.replace(part, path)
    return path


def _curve(points: np.ndarray, n: int = 24) -> np.ndarray:
    "`n` points of the quadratic Bézier curve with three control points."
    t = np.linspace(0.0, 1.0, n)[:, None]
    return (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t ** 2 * points[2]


def _draw(strokes: np.ndarray, width: float) -> np.ndarray:
    "Ink on a grid of 28 x 28: strokes `(n, 3, 2)` are curves in the unit square, `width` is the pen's radius in pixels."
    path, pixels = np.concatenate([_curve(s) for s in strokes]) * SIDE, np.arange(SIDE) + 0.5
    x, y = (pixels[:, None] - path[:, 0]) ** 2, (pixels[:, None] - path[:, 1]) ** 2
    distance = np.sqrt((x[None] + y[:, None]).min(-1))
    return np.round(255 * np.clip(width + 0.5 - distance, 0.0, 1.0)).astype(np.uint8)


def tiny_glyphs(n_classes: int = 60, per_class: int = 20, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Generated characters: `(n_classes, per_class, 28, 28)` and their names `glyphNN`.

    A class is two to four curved strokes; a drawing of it moves every control point, shifts, scales, slants and turns the whole, and takes a pen of another width.
    """
    rng = Random(seed)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return np.array([low + (high - low) * rng.random() for _ in range(int(np.prod(shape)))]).reshape(shape)
    images = np.zeros((n_classes, per_class, SIDE, SIDE), np.uint8)
    for c in range(n_classes):
        strokes = uniform(0.1, 0.9, 2 + int(rng.random() * 3), 3, 2)
        for i in range(per_class):
            moved = strokes + uniform(-0.06, 0.06, *strokes.shape) - 0.5
            turn, slant, size = uniform(-0.25, 0.25, 1)[0], uniform(-0.2, 0.2, 1)[0], uniform(0.75, 1.0, 1)[0]
            matrix = size * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ np.array([[1.0, slant], [0.0, 1.0]])
            images[c, i] = _draw(moved @ matrix + 0.5 + uniform(-0.05, 0.05, 2), uniform(0.6, 1.2, 1)[0])
    return images, [f"glyph{c:02}" for c in range(n_classes)]
