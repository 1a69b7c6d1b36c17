"""Saved folders: whole or not at all, and every changed bit is noticed."""

import hashlib
import json

import pytest

from metalearn_book.data.files import checksum, file_sha256, read_saved, write_saved


def fill(part):
    (part / "inner").mkdir()
    (part / "inner" / "weights.bin").write_bytes(bytes(range(200)))
    (part / "notes.txt").write_text("öffnen")


@pytest.fixture
def saved(tmp_path):
    return write_saved(tmp_path / "bot", "model", {"name": "Ünal", "n": 3}, fill)


def test_checksums_are_those_of_hashlib(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert checksum({"b": 1, "a": "é"}) == checksum({"a": "é", "b": 1})
    assert checksum({"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert checksum({"a": 1}) != checksum({"a": 2})


def test_what_was_written_is_read(saved):
    about = read_saved(saved, "model")
    assert about["name"] == "Ünal" and about["n"] == 3 and about["format"] == 1
    assert about["files"] == {
        f: file_sha256(saved / f) for f in ("inner/weights.bin", "notes.txt")
    }
    assert [p.name for p in saved.parent.iterdir()] == ["bot"]  # no part is left


@pytest.mark.parametrize("file", ["inner/weights.bin", "notes.txt", "model.json"])
def test_every_flipped_bit_is_noticed(saved, file):
    content = (saved / file).read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (saved / file).write_bytes(damaged)
        with pytest.raises(RuntimeError, match="damaged|format"):
            read_saved(saved, "model")
    (saved / file).write_bytes(content)
    assert read_saved(saved, "model")["n"] == 3


def test_a_missing_file_is_named(saved):
    (saved / "notes.txt").unlink()
    with pytest.raises(RuntimeError, match="notes.txt is missing or has another"):
        read_saved(saved, "model")
    with pytest.raises(FileNotFoundError, match="holds no tagger.json"):
        read_saved(saved, "tagger")


def test_another_format_is_refused(saved):
    about = json.loads((saved / "model.json").read_text())
    about |= {"format": 2}
    about.pop("checksum")
    content = json.dumps(about | {"checksum": checksum(about)})
    (saved / "model.json").write_text(content)
    with pytest.raises(RuntimeError, match="format 2, this version reads format 1"):
        read_saved(saved, "model")


def test_a_failure_leaves_the_old_folder_whole(saved):
    def fails(part):
        (part / "weights.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_saved(saved, "model", {"n": 4}, fails)
    assert read_saved(saved, "model")["n"] == 3
    write_saved(saved, "model", {"n": 5}, fill)
    assert read_saved(saved, "model")["n"] == 5
    assert [p.name for p in saved.parent.iterdir()] == ["bot"]


def test_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    for place in ("mine", "file"):
        with pytest.raises(ValueError, match="is not a saved model"):
            write_saved(tmp_path / place, "model", {}, fill)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    assert (tmp_path / "file").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert read_saved(write_saved(tmp_path / "empty", "model", {}, fill), "model")
