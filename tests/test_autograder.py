"""The zip for Gradescope: its scripts run in a folder laid out as Gradescope's is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "tools"))
import autograder
from grading.box import PRIVATE
from grading.grade import load

BOOK = ROOT / "assignments"
NAME = "01_episodes"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="scripts of a shell")


@pytest.fixture(scope="module")
def place():
    "A folder like /autograder: the zip unpacked, and a Python in the place of its own."
    root = Path(tempfile.mkdtemp(prefix="autograder-"))
    root.chmod(0o755)  # student code may run as another user
    autograder.pack(NAME, root / "source.zip")
    with zipfile.ZipFile(root / "source.zip") as zipped:
        zipped.extractall(root / "source")
        for entry in zipped.infolist():
            (root / "source" / entry.filename).chmod(entry.external_attr >> 16 & 0o777)
    shutil.copy(root / "source" / "run_autograder", root)
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def graded(root, *files, **more):
    "What run_autograder makes of these files: its status, and results.json."
    for folder in ("submission", "results"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    for path in files:
        shutil.copy(path, root / "submission")
    environment = {**os.environ, "AUTOGRADER": str(root), **more}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(root / "run_autograder")], env=environment, capture_output=True, text=True
    )
    made = root / "results" / "results.json"
    found = json.loads(made.read_text()) if made.exists() else None
    return done.returncode, found, done.stdout + done.stderr


def test_the_solution_gets_full_points_and_the_unsolved_notebook_none(place):
    points = load(BOOK / NAME).points
    for file, score in (("solution.ipynb", points), ("student.ipynb", 0)):
        status, found, said = graded(place, BOOK / NAME / file)
        assert status == 0, said
        assert found["score"] == score and found["max_score"] == points
        assert sum(t["score"] for t in found["tests"]) == score
        assert {"name", "score", "max_score", "output"} <= set(found["tests"][0])


def test_without_a_bubblewrap_that_works(place, tmp_path):
    "As in a container that allows no name spaces; as root a first attempt is refused."
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\nexit 1\n")
    bwrap.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    status, found, said = graded(place, BOOK / NAME / "solution.ipynb", PATH=path)
    assert status == 0 and found["score"] == found["max_score"], said
    assert found["output"], "the report says what is missing"


def test_what_can_not_be_graded_is_told_to_the_student(place, tmp_path):
    one = shutil.copy(BOOK / NAME / "solution.ipynb", tmp_path / "b.ipynb")
    text = tmp_path / "notes.txt"
    text.write_text("my notes")
    for files in ([], [text], [BOOK / NAME / "student.ipynb", one]):
        status, found, said = graded(place, *files)
        assert status == 0 and found["score"] == 0, said
        assert "Hand in one notebook" in found["output"]


def test_the_machines_fault_gives_no_points_and_no_zero(place):
    tool = place / "source" / "book" / "tools" / "assign.py"
    kept = tool.read_text()
    try:
        tool.write_text("raise SystemExit(1)")
        status, found, said = graded(place, BOOK / NAME / "solution.ipynb")
    finally:
        tool.write_text(kept)
    assert status != 0 and found is None and "made no result" in said


def test_the_solution_is_readable_by_its_owner_alone(place):
    graded(place)
    for path in (place / "source" / "book" / "assignments").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_hidden_tests_of_ones_own_are_packed_in_place_of_the_open_ones(
    tmp_path, monkeypatch, place
):
    own = tmp_path / "hidden" / NAME
    own.mkdir(parents=True)
    text = (BOOK / NAME / "hidden.py").read_text().replace('"1. ', '"1. PRIVATE ')
    assert "PRIVATE" in text
    (own / "hidden.py").write_text(text)
    monkeypatch.setenv(PRIVATE, str(own.parent))
    autograder.pack(NAME, tmp_path / "own.zip")
    monkeypatch.delenv(PRIVATE)
    with zipfile.ZipFile(tmp_path / "own.zip") as zipped:
        names = zipped.namelist()
        assert zipped.read(f"hidden/{NAME}/hidden.py").decode() == text
    assert f"book/assignments/{NAME}/hidden.py" not in names
    shutil.copytree(own.parent, place / "source" / "hidden")
    try:
        _, found, said = graded(place, BOOK / NAME / "student.ipynb")
    finally:
        shutil.rmtree(place / "source" / "hidden")
    assert found["tests"][0]["name"].startswith("1. PRIVATE "), said


def test_the_same_files_make_the_same_zip(tmp_path):
    for name in ("a.zip", "b.zip"):
        autograder.pack("02", tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        modes = {i.filename: i.external_attr >> 16 for i in zipped.infolist()}
    assert {n for n, m in modes.items() if m & 0o111} == {"setup.sh", "run_autograder"}
    others = [n for n in modes if n.startswith("book/assignments/")]
    assert others and all("/02_inner_loop/" in n for n in others)


def test_a_wrong_name(capsys, tmp_path):
    assert autograder.main(["nothing", "--out", str(tmp_path / "a.zip")]) == 2
    assert "there are: 01_episodes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_setup_takes_a_python_that_fits_and_says_what_it_does(tmp_path):
    "With programs in place of apt-get and Python that write down how they were called."
    log, bin_ = tmp_path / "log", tmp_path / "bin"
    bin_.mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)

    def program(path, text):
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> "{log}"\n{text}\n')
        path.chmod(0o755)

    program(bin_ / "apt-get", 'case "$*" in *bubblewrap*|*3.12*) exit 100;; esac')
    program(bin_ / "python3.12", "exit 1")
    program(bin_ / "python3.13", "exit 1")
    program(bin_ / "python3.11", "exit 0")
    program(tmp_path / "venv" / "bin" / "python", "exit 0")
    script = tmp_path / "setup.sh"
    script.write_text(autograder.SETUP)
    environment = {"PATH": f"{bin_}:/usr/bin:/bin", "AUTOGRADER": str(tmp_path)}
    run = lambda: subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True
    )
    done = run()
    assert done.returncode == 0, done.stderr
    assert "student code gets a user of its own" in done.stdout
    said = log.read_text()
    assert f"python3.11 -m venv {tmp_path}/venv" in said
    book = f"{tmp_path}/source/book"
    assert f"-c {book}/tools/constraints.txt {book}\n" in said
    program(bin_ / "python3.11", "exit 1")
    done = run()
    assert done.returncode == 1 and "no Python 3.11, 3.12 or 3.13" in done.stdout
