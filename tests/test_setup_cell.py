"""The generated cells: what the setup cell does on Colab and elsewhere, and that
generating twice changes nothing."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import types

import notebooks
import pytest
import setup_cell
from conftest import notebook

CFG = notebooks.settings()
MODULE = "#| default_exp foundations.demo"


def run_cell(monkeypatch, tmp_path, extras=(), package_there=False, colab=False):
    "Execute the setup cell in an empty folder; the pip command that it ran, or None."
    ran = []
    real = importlib.util.find_spec
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: (
            (object() if package_there else None)
            if name == "metalearn_book"
            else real(name)
        ),
    )
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    if colab:
        monkeypatch.setitem(
            sys.modules, "google.colab", types.ModuleType("google.colab")
        )
    exec(setup_cell.setup(CFG, list(extras)), {})
    return ran[0] if ran else None


def test_nothing_happens_where_the_package_is(monkeypatch, tmp_path):
    assert run_cell(monkeypatch, tmp_path, package_there=True, colab=True) is None
    assert list(tmp_path.iterdir()) == []


def test_on_colab_the_tag_is_installed_and_what_is_there_is_kept(monkeypatch, tmp_path):
    command = run_cell(monkeypatch, tmp_path, colab=True)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == f"metalearn_book @ git+{CFG['url']}@v{CFG['version']}"
    assert command[command.index("-c") + 1] == "keep.txt"
    kept = dict(
        line.split("==") for line in (tmp_path / "keep.txt").read_text().split()
    )
    assert kept == {
        name: importlib.metadata.version(name)
        for name in ("torch", "numpy", "transformers", "datasets")
    }


def test_the_variable_of_colab_counts_too_and_extras_are_installed(
    monkeypatch, tmp_path
):
    real = os.environ.copy()
    monkeypatch.setattr(os, "environ", {**real, "COLAB_RELEASE_TAG": "release"})
    monkeypatch.setattr(monkeypatch, "delenv", lambda *a, **k: None)
    assert run_cell(monkeypatch, tmp_path, extras=["track"])[-1].startswith(
        "metalearn_book[track] @ git+https://"
    )


def test_elsewhere_an_error_says_what_to_install(monkeypatch, tmp_path):
    with pytest.raises(
        ModuleNotFoundError,
        match=r"pip install 'metalearn_book @ git\+https://github.com/.*@v\d",
    ):
        run_cell(monkeypatch, tmp_path)


def test_the_cell_is_short_and_hidden_on_the_site():
    lines = setup_cell.setup(CFG, []).splitlines()
    assert len(lines) <= 20 and lines[0] == "#| hide" and max(map(len, lines)) <= 88


def test_marks_are_replaced_and_a_second_time_changes_nothing():
    nb = notebook("# T\n\n> s", "BADGES", MODULE, "# SETUP track", ">>> import torch")
    assert setup_cell.generate(nb, "nbs/foundations/01_demo.ipynb", CFG) == []
    once = notebooks.text(nb)
    row, cell = notebooks.source(nb["cells"][1]), notebooks.source(nb["cells"][3])
    at = f"{CFG['user']}/{CFG['repo']}/blob/v{CFG['version']}"
    assert (
        f"https://colab.research.google.com/github/{at}/nbs/foundations/01_demo.ipynb"
        in row
    )
    assert (
        f"[Module `metalearn_book.foundations.demo`](https://github.com/{at}/metalearn_book/foundations/demo.py)"
        in row
    )
    assert "metalearn_book[track] @" in cell and setup_cell.is_setup(cell)
    assert (
        setup_cell.generate(nb, "nbs/foundations/01_demo.ipynb", CFG) == []
        and notebooks.text(nb) == once
    )


def test_a_new_version_reaches_the_cells():
    nb = notebook("# T", "BADGES", MODULE, "# SETUP")
    setup_cell.generate(nb, "nbs/a/01_b.ipynb", CFG)
    setup_cell.generate(nb, "nbs/a/01_b.ipynb", {**CFG, "version": "9.8.7"})
    assert "blob/v9.8.7/" in notebooks.source(
        nb["cells"][1]
    ) and "@v9.8.7" in notebooks.source(nb["cells"][3])
    assert CFG["version"] not in notebooks.source(nb["cells"][3])


def test_missing_marks_are_reported(project, capsys):
    nb = notebook("# T", MODULE)
    assert [m.split(":")[0] for m in setup_cell.generate(nb, "x", CFG)] == [
        "no row of badges",
        "no setup cell",
    ]
    assert setup_cell.main(["--check"], project) == 1
    assert "are not as settings.ini says" in capsys.readouterr().out
    assert (
        setup_cell.main(["--write"], project) == 0
        and setup_cell.main(["--check"], project) == 0
    )
