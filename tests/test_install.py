"""What `make` shows while it installs, what it says when it can't, and that `make lab`
starts."""

import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import execute
import install
import notebooks
import pytest
from conftest import ROOT, notebook

PIP = """Obtaining file:///book
Collecting torch==2.13.0
  Downloading https://host/torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl (200 MB)
Progress 0 of 200000000
Progress 150000000 of 200000000
"""


def test_progress_is_read_from_pip():
    state = install.Progress()
    for line in PIP.splitlines(True):
        state.feed(line)
    assert (
        state.line(75, 0)
        == "1:15  downloading torch 2.13.0+cpu, 150 of 200 MB (150 MB downloaded)"
    )
    state.feed("Progress 200000000 of 200000000\n")
    state.feed("Collecting numpy\n")
    assert state.line(80, 0) == "1:20  looking for numpy (200 MB downloaded)"
    state.feed("  Using cached numpy-2.4.6-cp311-cp311-manylinux.whl (16 MB)\n")
    assert state.doing == "using numpy 2.4.6"
    state.feed("Installing collected packages: numpy, torch, sphinx\n")
    assert state.line(90, 4.2e8) == "1:30  installing 3 packages (420 MB on disk)"


@pytest.mark.parametrize(
    "file, name",
    [
        ("a_b-1.0.tar.gz", "a_b 1.0"),
        ("sphinx_book_theme-1.4.0-py3-none-any.whl", "sphinx_book_theme 1.4.0"),
        ("torch-2.13.0-cp311-cp311-x.whl.metadata", "torch 2.13.0"),
        ("./some-folder", "some-folder"),
    ],
)
def test_names_of_packages(file, name):
    assert install.package(file) == name


def fake_pip(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_there_is_a_line_every_moment_and_nothing_else_when_all_goes_well(tmp_path):
    out = io.StringIO()
    slow = (
        "import time\n"
        "print('Collecting torch', flush=True)\n"
        "time.sleep(1)\n"
        "print('WARNING: x')"
    )
    assert install.run(fake_pip(slow), tmp_path, every=0.2, out=out) == 0
    lines = out.getvalue().splitlines()
    assert len(lines) >= 2 and all("looking for" in line for line in lines)


def test_a_failure_shows_what_pip_said(tmp_path):
    out = io.StringIO()
    assert (
        install.run(
            fake_pip("print('ERROR: no space'); raise SystemExit(3)"), tmp_path, out=out
        )
        == 3
    )
    assert (
        "ERROR: no space" in out.getvalue()
        and "run the same command again" in out.getvalue()
    )


def test_too_little_space_is_said_before(monkeypatch, capsys):
    stop, said = install.space_problem(1.2, new=True)
    assert stop and "1.2 GB" in said and "1.8 GB" in said and "VENV=" in said
    monkeypatch.setattr(sys, "platform", "linux")
    stop, said = install.space_problem(3.0, new=True)
    assert not stop and "PIP_EXTRA_INDEX_URL" in said
    assert (
        install.space_problem(50, new=True)
        == install.space_problem(0.1, new=False)
        == (False, "")
    )
    monkeypatch.setattr(
        install, "space_problem", lambda free, new: (True, "too little")
    )
    monkeypatch.setattr(
        install, "run", lambda *a, **k: pytest.fail("nothing may be installed")
    )
    assert install.main(["dev"]) == 1 and "too little" in capsys.readouterr().out


def environment(*arguments, **env):
    done = subprocess.run(
        ["tools/environment.sh", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_python_that_is_missing_is_named(tmp_path):
    status, said = environment(str(tmp_path / "env"), "dev", PYTHON="python-of-nobody")
    assert (
        status == 1
        and "python-of-nobody: not found" in said
        and "3.11, 3.12 or 3.13" in said
    )
    assert not (tmp_path / "env").exists()


def test_a_python_that_is_too_old_is_named_with_its_version(tmp_path):
    old = tmp_path / "old"
    old.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 && exit 0\nexit 1\n'
    )
    old.chmod(0o755)
    status, said = environment(str(tmp_path / "env"), PYTHON=str(old))
    assert status == 1 and f"{old}: Python 3.8.1" in said


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    status, said = environment(str(tmp_path), "dev", PYTHON=sys.executable)
    assert (
        status == 1
        and "left alone" in said
        and (tmp_path / "mine").read_text() == "precious"
    )


def test_a_kernel_starts_without_an_alarm(tmp_path, capfd):
    nb = notebook(">>> print(1 + 1)")
    assert execute.run_kernel(nb, tmp_path) is None
    assert notebooks.source({"source": nb["cells"][0]["outputs"][0]["text"]}) == "2\n"
    said = capfd.readouterr()
    assert "WARNING" not in said.out + said.err


@pytest.mark.parametrize("user, flag", [(0, True), (1000, False)])
def test_lab_allows_root_only_for_root(tmp_path, user, flag):
    who = tmp_path / "id"
    who.write_text(f"#!/bin/sh\necho {user}\n")
    who.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    done = subprocess.run(
        ["make", "-n", "lab", f"VENV={tmp_path}", "-o", f"{tmp_path}/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (
        "jupyterlab --allow-root --LabApp" in done.stdout
    ) == flag and "jupyterlab" in done.stdout, done


@pytest.mark.skipif(
    not importlib.util.find_spec("jupyterlab") or not shutil.which("make"),
    reason="needs jupyterlab: make lab installs it",
)
def test_lab_starts_and_answers(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    config = {
        "JUPYTER_PORT": str(port),
        "JUPYTER_TOKEN": "word",
        "BROWSER": "true",
        "HOME": str(tmp_path),
    }
    lab = subprocess.Popen(
        ["make", "lab", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **config},
    )
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and lab.poll() is None:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/lab?token=word", timeout=5
                ) as answer:
                    assert answer.status == 200 and b"JupyterLab" in answer.read()
                    break
            except OSError:
                time.sleep(0.5)
        else:
            ended = lab.poll() is not None
            pytest.fail(
                f"no answer: {lab.stdout.read() if ended else 'it still starts'}"
            )
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(20)
