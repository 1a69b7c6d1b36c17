"""What the tests share: the path of the tools, real data where they are, and a small
project to run the tools on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

# before torch is imported: the tests are many small computations
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import pytest

QUARTO = """
book:
  chapters:
    - index.qmd
    - part: Foundations
      chapters:
        - nbs/foundations/01_demo.ipynb
"""


@pytest.fixture(autouse=True)
def _no_stored_results(monkeypatch):
    """No test writes into the project's results, or depends on a scale that is set
    outside."""
    monkeypatch.delenv("METALEARN_RESULTS", raising=False)
    monkeypatch.delenv("METALEARN_SCALE", raising=False)


@pytest.fixture
def real_data():
    """`real_data('clinc150')` -> the folder of a real data set; the test is skipped,
    with the reason, where it is not at hand."""

    def find(name: str) -> Path:
        folder = os.environ.get("METALEARN_DATA")
        if not folder:
            pytest.skip(f"needs {name}: METALEARN_DATA is not set")
        if not (path := Path(folder) / name).is_dir():
            pytest.skip(f"needs {name}: METALEARN_DATA={folder} does not have it")
        return path

    return find


def notebook(*cells: str) -> dict:
    """A notebook from texts; one that begins with '#| ' or '>>>' is code, and
    everything else is Markdown."""
    made = []
    for i, text in enumerate(cells):
        code = text.startswith(("#| ", "# SETUP", ">>>"))
        cell = {
            "cell_type": "code" if code else "markdown",
            "id": f"cell{i}",
            "metadata": {},
            "source": text.removeprefix(">>>").lstrip().splitlines(True),
        }
        made.append(cell | ({"outputs": [], "execution_count": None} if code else {}))
    return {
        "cells": made,
        "metadata": {
            "kernelspec": {
                "display_name": "python3",
                "language": "python",
                "name": "python3",
            }
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


@pytest.fixture
def project(tmp_path):
    """A small book: one chapter, foundations/01_demo, that exports one function, uses a
    hand-written module and stores a result."""
    root = tmp_path / "project"
    for name in ("book", "foundations"):
        (root / "metalearn_book" / name).mkdir(parents=True)
        (root / "metalearn_book" / name / "__init__.py").touch()
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copy(ROOT / "metalearn_book" / "__init__.py", root / "metalearn_book")
    (root / "metalearn_book" / "data").mkdir()
    (root / "metalearn_book" / "data" / "__init__.py").touch()
    for name in ("arguments.py", "files.py"):
        shutil.copy(
            ROOT / "metalearn_book" / "data" / name, root / "metalearn_book" / "data"
        )
    for name in ("scale.py", "results.py"):
        shutil.copy(
            ROOT / "metalearn_book" / "book" / name, root / "metalearn_book" / "book"
        )
    (root / "_quarto.yml").write_text(QUARTO)
    (root / "metalearn_book" / "foundations" / "helper.py").write_text(
        '"A helper."\n\n\n'
        "def twice(x):\n"
        '    "Two times x."\n'
        "    return 2 * x  # no more\n"
    )
    write_chapter(root)
    return root


def write_chapter(
    root: Path,
    last: str = ">>> answer = double_twice(scale(1, 2, 3))\nprint('answer', answer)",
    name: str = "01_demo",
) -> Path:
    "Write the demo chapter with a last cell of your own."
    nb = notebook(
        "# A demo\n\n> One sentence.",
        "BADGES",
        "#| default_exp foundations.demo",
        "# SETUP",
        (
            "#| export\n"
            "from __future__ import annotations\n\n"
            "from metalearn_book.foundations.helper import twice"
        ),
        (
            ">>> from metalearn_book.book.results import save_results\n"
            "from metalearn_book.book.scale import scale"
        ),
        "## Double it\n\nText.",
        (
            "#| export\n"
            "def double_twice(x: int) -> int:\n"
            '    "Four times x."\n'
            "    return twice(twice(x))"
        ),
        last,
        ">>> save_results('foundations/01_demo', {'answer': 8}, seed=0, config={})",
    )
    path = root / "nbs" / "foundations" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
    return path
