"""Files and saved folders: whole or not at all at every moment, every changed bit is
noticed, nothing that is not ours is touched, nothing is left over."""

import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kills import killed_at, linux

from metalearn_book.data import files
from metalearn_book.data.files import (
    SEAL_LENGTH,
    absolute_environment,
    checksum,
    environment_folder,
    file_sha256,
    locked,
    made,
    open_saved,
    read_saved,
    read_sealed,
    seal,
    write_saved,
    write_sealed,
)


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


# ------------------------------------------------------------------ kills


def fill_new(part):
    (part / "inner").mkdir()
    (part / "inner" / "weights.bin").write_bytes(bytes(range(99)))
    (part / "more.txt").write_text("more")


@linux
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_at_any_point_leaves_the_old_or_the_new_folder(
    tmp_path, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    found, n = [], 1
    write_saved(tmp_path / "bot", "model", {"n": 3}, fill)
    while killed_at(
        n, lambda: write_saved(tmp_path / "bot", "model", {"n": 4}, fill_new)
    ):
        about = read_saved(tmp_path / "bot", "model")
        found.append(about["n"])
        names = {"inner/weights.bin", "notes.txt" if about["n"] == 3 else "more.txt"}
        assert set(about["files"]) == names
        write_saved(tmp_path / "bot", "model", {"n": 3}, fill)
        assert os.listdir(tmp_path) == ["bot"], "the next writer cleans up"
        n += 1
    assert n > 24 and found == sorted(found) and {*found} == {3, 4}
    assert read_saved(tmp_path / "bot", "model")["n"] == 4


@linux
def test_a_kill_at_any_point_of_the_first_save_leaves_nothing_or_all(tmp_path):
    n = 1
    while killed_at(n, lambda: write_saved(tmp_path / "bot", "model", {"n": 4}, fill)):
        if (tmp_path / "bot").exists():
            assert read_saved(tmp_path / "bot", "model")["n"] == 4
            files._remove(tmp_path / "bot")
        n += 1
    assert os.listdir(tmp_path) == ["bot"] and n > 10


@linux
def test_a_kill_at_any_point_leaves_the_old_or_the_new_file(tmp_path):
    path, n, found = tmp_path / "c.bin", 1, []
    write_sealed(path, b"old")
    while killed_at(n, lambda: write_sealed(path, b"new")):
        found.append(read_sealed(path, "file", ""))
        write_sealed(path, b"old")
        assert os.listdir(tmp_path) == ["c.bin"]
        n += 1
    assert found == sorted(found, reverse=True) and {*found} == {b"old", b"new"}


# ------------------------------------------------------------------ flipped bits, cuts


def test_every_flipped_bit_and_every_cut_of_a_sealed_file_is_noticed(tmp_path):
    path = tmp_path / "c.bin"
    write_sealed(path, b"weights 1.0 2.0")
    whole = path.read_bytes()
    assert len(seal(b"")) == SEAL_LENGTH and len(whole) == 15 + SEAL_LENGTH
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RuntimeError, match="damaged|checksum|format"):
            read_sealed(path, "file", "Do that")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RuntimeError, match="empty|cut off"):
            read_sealed(path, "file", "Do that")
    path.write_bytes(whole)
    assert read_sealed(path, "file", "Do that") == b"weights 1.0 2.0"


def test_each_kind_of_damage_has_its_message(tmp_path, saved):
    path = tmp_path / "c.bin"
    cases = {
        b"": "it is empty. Do that",
        b"anything": "cut off, was written by an earlier version, or is no file",
        b"x" + seal(b"y"): "is damaged: its content",
        b"x" + seal(b"x").replace(b":1:", b":2:"): "of format 2, and this version",
    }
    for content, words in cases.items():
        path.write_bytes(content)
        with pytest.raises(RuntimeError, match=words):
            read_sealed(path, "file", "Do that")
    with pytest.raises(FileNotFoundError, match="there is no file at .*none"):
        read_sealed(tmp_path / "none", "file", "")
    with pytest.raises(RuntimeError, match="it is a folder"):
        read_sealed(tmp_path, "file", "")

    (saved / "notes.txt").write_text("")
    with pytest.raises(RuntimeError, match="notes.txt .*0 bytes in place of 7"):
        read_saved(saved, "model")
    (saved / "model.json").write_text('{"name": "of another program"}')
    with pytest.raises(RuntimeError, match="damaged, or was written by something else"):
        read_saved(saved, "model")
    (saved / "model.json").write_text("[1]")
    with pytest.raises(RuntimeError, match="damaged, or was written by something else"):
        read_saved(saved, "model")


# ------------------------------------------------------------------ strangers, links


@pytest.mark.parametrize(
    "stranger", ["my_notes.txt", "inner/mine.txt", "empty/", "link", "inner/link"]
)
def test_what_is_not_ours_is_named_and_kept(saved, stranger):
    place = saved / stranger
    if stranger.endswith("/"):
        place.mkdir()
    elif "link" in stranger:
        place.symlink_to(saved.parent, target_is_directory=True)
    else:
        place.write_text("keep me")
    with pytest.raises(ValueError, match=f"holds {stranger.strip('/')}, which is no"):
        write_saved(saved, "model", {"n": 4}, fill)
    assert place.is_symlink() or place.exists()
    assert read_saved(saved, "model")["n"] == 3
    assert os.listdir(saved.parent) == ["bot"]


def test_a_damaged_folder_can_be_saved_again(saved):
    for content in (b"{", (saved / "model.json").read_bytes()[:-90], b"[]"):
        (saved / "model.json").write_bytes(content)
        write_saved(saved, "model", {"n": 5}, fill)
        assert read_saved(saved, "model")["n"] == 5
    (saved / "notes.txt").unlink()
    (saved / "model.json").write_bytes(b"{")
    (saved / "other.txt").write_text("keep me")
    with pytest.raises(ValueError, match="holds other.txt"):
        write_saved(saved, "model", {"n": 5}, fill)


def test_a_link_is_followed_and_stays(tmp_path, saved):
    (tmp_path / "latest").symlink_to("bot", target_is_directory=True)
    (tmp_path / "new").symlink_to("not yet", target_is_directory=True)
    for name, real in (("latest", "bot"), ("new", "not yet")):
        write_saved(tmp_path / name, "model", {"n": 6}, fill)
        assert (tmp_path / name).is_symlink()
        assert read_saved(tmp_path / name, "model")["n"] == 6
        assert read_saved(tmp_path / real, "model")["n"] == 6
    (tmp_path / "c.pt").symlink_to("real.pt")
    write_sealed(tmp_path / "c.pt", b"x")
    assert (tmp_path / "c.pt").is_symlink() and (tmp_path / "real.pt").is_file()
    assert sorted(os.listdir(tmp_path)) == [
        *("bot", "c.pt", "latest", "new", "not yet", "real.pt")
    ]


def test_the_folder_where_we_are(saved, monkeypatch):
    monkeypatch.chdir(saved)
    for given in (".", Path("."), "../bot", saved):
        assert write_saved(given, "model", {"n": 7}, fill) == Path(given)
        assert read_saved(".", "model")["n"] == 7 and Path.cwd() == saved
    os.chdir("inner")  # below it
    write_saved("..", "model", {"n": 8}, fill)
    assert read_saved("..", "model")["n"] == 8
    os.chdir(saved)
    assert os.listdir("..") == ["bot"]


def test_no_device_and_no_folder_takes_the_place_of_a_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder; give the path of a file"):
        write_sealed(tmp_path, b"x")
    with pytest.raises(ValueError, match="not a regular file"):
        write_sealed("/dev/full", b"x")
    (tmp_path / "link").symlink_to("/dev/null")
    with pytest.raises(ValueError, match="not a regular file"):
        write_sealed(tmp_path / "link", b"x")
    assert not Path("/dev/null").is_file() and not Path("/dev/full").is_file()


def test_rights_of_the_old_file_stay(tmp_path):
    path = tmp_path / "c.bin"
    write_sealed(path, b"x")
    path.chmod(0o640)
    write_sealed(path, b"y")
    assert path.stat().st_mode & 0o777 == 0o640


# ------------------------------------------------------------------ disks


class Full:
    "In place of `open`: files that can be opened and not written."

    def __init__(self, number):
        self.number = number

    def __call__(self, path, mode="r", *more, **options):
        if "w" not in mode:
            return OPEN(path, mode, *more, **options)
        file = OPEN(path, mode, *more, **options)
        os.write(file.fileno(), b"half")
        raise OSError(self.number, os.strerror(self.number))


OPEN = open


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"the disk is full while writing .*c.bin \(disk /.* MB free\)"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "larger than this machine allows"),
        (errno.EACCES, "can't write .*c.bin .*you have no right to"),
        (errno.EROFS, "mounted for reading only"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path, monkeypatch, number, words):
    path = tmp_path / "new" / "c.bin"
    monkeypatch.setattr("builtins.open", Full(number))
    with pytest.raises(OSError, match=words) as e:
        write_sealed(path, b"x" * 1000)
    assert e.value.errno == number and os.listdir(tmp_path) == []
    monkeypatch.undo()
    write_sealed(path, b"old")
    monkeypatch.setattr("builtins.open", Full(number))
    with pytest.raises(OSError, match=words):
        write_sealed(path, b"new")
    monkeypatch.undo()
    assert read_sealed(path, "file", "") == b"old" and os.listdir(path.parent) == [
        "c.bin"
    ]


@pytest.mark.parametrize("error", ["os", "words", "full"])
def test_a_disk_that_is_full_during_a_save(saved, error):
    "Also where a library passes on the system's error as words only."

    def fails(part):
        (part / "notes.txt").write_text("half")
        if error == "os":
            raise OSError(errno.ENOSPC, "No space left on device")
        if error == "full":
            with open("/dev/full", "w") as f:
                f.write("x")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    words = r"the disk is full while writing .*bot \(disk /.* free\); nothing was"
    with pytest.raises(OSError, match=words) as e:
        write_saved(saved, "model", {"n": 4}, fails)
    assert e.value.errno == errno.ENOSPC
    assert os.listdir(saved.parent) == ["bot"] and read_saved(saved, "model")["n"] == 3


def test_a_folder_that_may_not_be_written(saved, monkeypatch):
    def denied(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(PermissionError, match="can't write .*bot .*no right to"):
        write_saved(saved, "model", {"n": 4}, fill)
    monkeypatch.undo()
    if os.geteuid():  # root may write everywhere
        saved.parent.chmod(0o500)
        with pytest.raises(PermissionError, match="no right to"):
            write_saved(saved, "model", {"n": 4}, fill)
        saved.parent.chmod(0o700)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionError, match="can't read .*c.bin .*no right to"):
        read_sealed(saved / "c.bin", "file", "")


def test_errors_of_the_caller_pass_as_they_are(saved):
    for error in (KeyError("k"), FileNotFoundError(2, "x"), RuntimeError("os error 2")):

        def fails(part):
            raise error

        with pytest.raises(type(error)) as e:
            write_saved(saved, "model", {}, fails)
        assert e.value is error
    with pytest.raises(TypeError):
        write_saved(saved, "model", {"not": {1, 2}}, fill)
    assert os.listdir(saved.parent) == ["bot"] and read_saved(saved, "model")["n"] == 3


# ------------------------------------------------------------------ several at once


def _save_often(folder, number):
    for _ in range(15):
        write_saved(folder, "model", {"n": number}, fill)


def _add_often(path, number):
    from metalearn_book.book.results import _add

    for i in range(10):
        _add(path, {f"{number}.{i}": i})


@linux
@pytest.mark.parametrize("can_exchange", [True, False])
def test_two_processes_save_one_folder_while_others_read(
    tmp_path, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    folder, fork = tmp_path / "bot", multiprocessing.get_context("fork")
    write_saved(folder, "model", {"n": 0}, fill)
    jobs = [
        fork.Process(target=_save_often, args=(folder, n), daemon=True) for n in (1, 2)
    ]
    for job in jobs:
        job.start()
    reads = 0
    while any(job.is_alive() for job in jobs):
        with open_saved(folder, "model") as about:
            sha = file_sha256(folder / "inner" / "weights.bin")
            assert sha == about["files"]["inner/weights.bin"]
        reads += 1
        time.sleep(0.001)
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0] and reads > 1
    assert read_saved(folder, "model")["n"] in (1, 2)
    assert os.listdir(tmp_path) == ["bot"]


def test_a_folder_that_is_away_at_one_look_is_there_at_the_next(saved, monkeypatch):
    away, looks = saved.with_name("away"), []

    def take_back(folder):  # two writers, one after the other
        looks.append(folder)
        if len(looks) == 2:
            away.rename(saved)
        return False

    saved.rename(away)
    monkeypatch.setattr(files, "_take_back", take_back)
    with open_saved(saved, "model") as about:
        assert about["n"] == 3 and len(looks) == 2


@linux
def test_results_of_two_processes_are_both_kept(tmp_path):
    path, fork = tmp_path / "r" / "x.json", multiprocessing.get_context("fork")
    jobs = [
        fork.Process(target=_add_often, args=(path, n), daemon=True) for n in (1, 2)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(json.loads(path.read_text())) == 20
    assert os.listdir(path.parent) == ["x.json"]


def test_a_folder_that_is_read_is_not_replaced(saved, monkeypatch):
    done = threading.Event()

    def write():
        write_saved(saved, "model", {"n": 4}, fill)
        done.set()

    with open_saved(saved, "model") as about:
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.2)
        assert about["n"] == 3 and read_saved(saved, "model")["n"] == 3
    thread.join()
    assert read_saved(saved, "model")["n"] == 4
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with open_saved(saved, "model"), pytest.raises(RuntimeError, match="by another"):
        write_saved(saved, "model", {"n": 5}, fill)
    assert os.listdir(saved.parent) == ["bot"]


def test_what_a_living_writer_has_begun_is_left_alone(tmp_path):
    path = tmp_path / "c.bin"
    with made(path) as first:
        first.write_bytes(b"1")
        with made(path) as second:
            second.write_bytes(b"2")
        assert first.read_bytes() == b"1" and path.read_bytes() == b"2"
    assert path.read_bytes() == b"1" and os.listdir(tmp_path) == ["c.bin"]
    stranger = tmp_path / ".1.part.c.bin"
    stranger.write_text("not of our pattern")
    left = tmp_path / ".12.0123abcd.part.c.bin"
    left.write_text("of a process that was killed")
    write_sealed(path, b"x")
    assert stranger.exists() and not left.exists()


def test_locked_folders(tmp_path):
    with locked(tmp_path, shared=True) as one, locked(tmp_path, shared=True) as two:
        assert one and two


# ------------------------------------------------------------------ the environment


def test_folders_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "my data").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in ("my data", "./my data/", "~/my data", str(tmp_path / "my data")):
        monkeypatch.setenv("METALEARN_DATA", value)
        assert environment_folder("METALEARN_DATA") == tmp_path / "my data"
        assert absolute_environment()["METALEARN_DATA"] == str(tmp_path / "my data")
    for value in ("nowhere", "~/nowhere", " "):
        monkeypatch.setenv("METALEARN_DATA", value)
        with pytest.raises(FileNotFoundError, match="is not a folder.*unset it to x"):
            environment_folder("METALEARN_DATA", "x")
        with pytest.raises(FileNotFoundError, match="METALEARN_DATA=.*is not a folder"):
            absolute_environment()
    monkeypatch.setenv("METALEARN_DATA", "")
    assert environment_folder("METALEARN_DATA") is None
    monkeypatch.setenv("METALEARN_CACHE", "~/made later")
    assert absolute_environment()["METALEARN_CACHE"] == str(tmp_path / "made later")


def test_a_process_that_was_killed_holds_no_lock(saved):
    code = (
        "import sys, time; from metalearn_book.data.files import locked\n"
        "with locked(sys.argv[1]):\n print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(saved)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        other.kill()
        assert write_saved(saved, "model", {"n": 4}, fill)
