"""The stages of `make test` and `make book`: all of them run, and the exit status is
right."""

import socket
import sys

import book
import pytest
import stages
import test_all

PASS, FAIL = (
    [sys.executable, "-c", "print('one'); print('two')"],
    [sys.executable, "-c", "print('why it failed'); raise SystemExit(3)"],
)


def test_every_stage_runs_and_the_table_names_the_failed_one(capfd):
    status = stages.run_all(
        [
            stages.Stage("first", FAIL, quiet=True),
            stages.Stage("second", PASS, quiet=True),
        ]
    )
    out = capfd.readouterr().out
    assert status == 1
    assert "why it failed" in out and "two" in out and "one\n" not in out, (
        "a quiet stage shows its last line, or all of it when it fails"
    )
    assert out.rstrip().endswith("FAILED: first")
    assert stages.run_all([stages.Stage("second", PASS, quiet=True)]) == 0
    assert "all stages passed" in capfd.readouterr().out


def test_the_table():
    text = stages.table(
        [stages.Outcome("a", 1.25, True), stages.Outcome("longer", 10, False)]
    )
    assert text.splitlines() == [
        "a           1.2 s  ok",
        "longer     10.0 s  FAILED",
        "total      11.2 s  FAILED: longer",
    ]


def test_stages_by_name(capsys):
    assert test_all.main(["no such stage"]) == 2
    assert "there are: export, " in capsys.readouterr().out


def test_quarto_is_found_or_done_without(monkeypatch, tmp_path):
    monkeypatch.setattr(book.shutil, "which", lambda name: "/somewhere/quarto")
    assert (
        book.find_quarto("auto") == "/somewhere/quarto"
        and book.find_quarto("0") is None
    )
    monkeypatch.setattr(book.shutil, "which", lambda name: None)
    monkeypatch.setattr(book, "PY", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(book.sys, "prefix", str(tmp_path))
    # nothing listens there
    monkeypatch.setattr(book, "RELEASES", "http://127.0.0.1:9/")
    monkeypatch.setattr(
        book.subprocess,
        "run",
        lambda *a, **k: pytest.fail(
            "nothing may be installed where the release page does not answer"
        ),
    )
    assert book.find_quarto("auto") is None


def test_serving_says_what_is_wrong(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(book, "QUARTO", tmp_path / "none")
    monkeypatch.setattr(book, "OFFLINE", tmp_path)
    assert book.serve(0) == 1 and "make book" in capsys.readouterr().out
    (tmp_path / "index.html").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert book.serve(taken.getsockname()[1]) == 1
    assert "choose another" in capsys.readouterr().out
