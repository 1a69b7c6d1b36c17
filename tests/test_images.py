"""Character images: Omniglot by value, from a folder and from its zip files; damaged
files; generated glyphs."""

import hashlib
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from metalearn_book import data
from metalearn_book.data import images, sources
from metalearn_book.foundations.tasks import ClassTasks

DATA = os.environ.get("METALEARN_DATA")
needs_omniglot = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "omniglot").is_dir(),
    reason="needs Omniglot: set METALEARN_DATA to the folder that holds the data",
)
GLYPHS = "1ab74644325923b6"


@pytest.fixture(autouse=True)
def fresh_cache():
    sources._load.cache_clear()
    yield
    sources._load.cache_clear()


# ---------------------------------------------------------------- Omniglot


@needs_omniglot
def test_omniglot_by_value():
    d, card = data.load_dataset_by_name("omniglot"), data.describe("omniglot")
    assert (
        d.images.shape == (32_460, 28, 28)
        and d.images.dtype == np.uint8
        and d.source == "folder"
    )
    assert len(d.classes) == card.n_classes == 1623 and set(
        Counter(d.labels).values()
    ) == {20}
    assert Counter(d.part) == card.counts
    assert len(set(d.row_domains)) == 50
    assert sorted(sum(data.class_split("omniglot").values(), [])) == d.classes
    # ink is bright, and little of a drawing
    assert 0.02 < (d.images > 127).mean() < 0.2


@needs_omniglot
def test_parts_share_no_character():
    parts = [
        set(data.load_dataset_by_name("omniglot", part=p).labels)
        for p in ("train", "validation", "test")
    ]
    assert [len(p) for p in parts] == [1100, 100, 423]
    assert (
        not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    )


def drawing(seed: int) -> bytes:
    "A 105 x 105 PNG, black strokes on white, as in the original files."
    from PIL import Image

    pixels = np.full((105, 105), 255, np.uint8)
    pixels[20 + seed : 40 + seed, 30:60] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(out, "PNG")
    return out.getvalue()


def zip_of(names: list[str], drawings: int = 20) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in names:
            for i in range(drawings):
                z.writestr(f"{name}/{i:04}.png", drawing(i))
        z.writestr("__MACOSX/._x.png", b"no image")
    return out.getvalue()


def test_zip_files_become_small_inverted_images():
    stored, names = images.omniglot_from_zips(
        [zip_of(["a/Latin/character01"]), zip_of(["b/Greek/character02"])]
    )
    assert stored.shape == (2, 20, 28, 28) and names == [
        "a/Latin/character01",
        "b/Greek/character02",
    ]
    rows = np.flatnonzero(stored[0, 0].max(1) > 127)
    # 20..40 of 105 pixels
    assert (
        stored[0, 0, 0, 0] == 0
        and stored[0, 0, 8, 12] == 255
        and (rows[0], rows[-1]) == (5, 10)
    )
    with pytest.raises(
        ValueError,
        match="expected 20 drawings of each character, .*character01.* has 3",
    ):
        images.omniglot_from_zips([zip_of(["a/Latin/character01"], drawings=3)])
    with pytest.raises(ValueError, match="expected 20 drawings"):
        images.omniglot_from_zips([])


@needs_omniglot
def test_small_images_are_those_of_the_drawings():
    """The zip file with the drawings of five alphabets, scaled down, against the small
    images that the book uses."""
    content = (Path(DATA) / "omniglot" / "images_background_small1.zip").read_bytes()
    stored, names = images.omniglot_from_zips([content])
    d = data.load_dataset_by_name("omniglot")
    known = {label: i for i, label in reversed(list(enumerate(d.labels)))}
    first = np.array([known["/".join(name.split("/")[-2:])] for name in names])
    assert len(names) == 136 and np.array_equal(
        stored, d.images[first[:, None] + np.arange(20)]
    )


@pytest.mark.parametrize(
    "content,error,message",
    [
        (b"no archive", RuntimeError, "omniglot_28x28.npz can't be used"),
        ("half", RuntimeError, "omniglot_28x28.npz can't be used"),
        (
            np.zeros((2, 20, 28, 28), np.float32),
            RuntimeError,
            "expected uint8 images .2, 20, 28, 28., got float32",
        ),
        (
            np.zeros((2, 19, 28, 28), np.uint8),
            RuntimeError,
            "got uint8 .2, 19, 28, 28.",
        ),
        (
            np.zeros((2, 20, 28, 28), np.uint8),
            RuntimeError,
            "character 'x/unknown0' is not in the fixed split",
        ),
        (None, FileNotFoundError, "omniglot_28x28.npz is missing"),
    ],
)
def test_damaged_omniglot(content, error, message, tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    path = tmp_path / "omniglot" / "omniglot_28x28.npz"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        array = (
            np.zeros((2, 20, 28, 28), np.uint8) if isinstance(content, str) else content
        )
        np.savez_compressed(
            path, X=array, names=np.array(["folder/x/unknown0", "folder/x/unknown1"])
        )
        if isinstance(content, str):
            path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(error, match=message):
        data.load_dataset_by_name("omniglot")


# ---------------------------------------------------------------- labelled images


def test_selection_and_turned_characters():
    d = data.load_dataset_by_name("tiny_glyphs")
    part = d.where(part="test", classes=data.class_split("tiny_glyphs")["test"][:2])
    assert (
        len(part) == 40 and part.images.shape == (40, 28, 28) and len(part.classes) == 2
    )
    x, labels = part.tensors(rotations=(0, 90, 180, 270))
    assert (
        x.shape == (160, 1, 28, 28)
        and x.dtype == torch.float32
        and 0 <= x.min()
        and x.max() == 1
    )
    assert len(set(labels)) == 8 and labels[40] == labels[0] + "@90"
    assert x[40, 0].equal(x[0, 0].rot90(1)) and x[80].equal(x[0].flip(1, 2))
    assert x.mul(255).round().byte()[:40, 0].equal(torch.from_numpy(part.images))
    batch = ClassTasks(x, labels, 5, 1, 3).sample(4, torch.Generator().manual_seed(0))
    assert batch.support.x.shape == (4, 5, 1, 28, 28) and batch.query.y.shape == (4, 15)
    with pytest.raises(ValueError, match="multiples of 90 degrees, got 45"):
        part.tensors(rotations=(0, 45))
    with pytest.raises(ValueError, match="unknown part 'trian'.*did you mean 'train'"):
        d.where(part="trian")
    with pytest.raises(ValueError, match="columns of different lengths"):
        data.LabeledImages("x", np.zeros((2, 28, 28), np.uint8), ["a"], ["train"])
    assert len(d.where(classes=[])) == 0


def test_glyphs_are_the_same_everywhere():
    stored, names = images.tiny_glyphs()
    assert stored.shape == (60, 20, 28, 28) and len(set(names)) == 60
    assert hashlib.sha256((stored > 127).tobytes()).hexdigest()[:16] == GLYPHS, (
        "the glyphs changed: results on them have to be made again, "
        "then update the digest"
    )
    assert not np.array_equal(
        images.tiny_glyphs(5, 2, seed=1)[0], images.tiny_glyphs(5, 2)[0]
    )


def test_glyphs_can_be_told_apart_but_not_by_pixels_alone():
    """One drawing of each of five characters: the nearest in pixels is far above
    chance, far from perfect."""
    x, labels = data.load_dataset_by_name("tiny_glyphs").tensors()
    b = ClassTasks(x, labels, 5, 1, 5).sample(300, torch.Generator().manual_seed(0))
    distance = torch.cdist(b.query.x.flatten(2), b.support.x.flatten(2))
    accuracy = (
        (b.support.y.gather(1, distance.argmin(-1)) == b.query.y).float().mean().item()
    )
    assert 0.35 < accuracy < 0.85
