"""The appendix What did not work: its sentences are true of the stored results, a
changed result stops it, and it runs where there are none."""

import ast
import json
import shutil
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
from conftest import ROOT
from notebooks import is_code, read, source
from setup_cell import is_setup

from metalearn_book.book.claims import FalseClaim
from metalearn_book.book.display import Interval

CELLS = [
    source(c)
    for c in read(ROOT / "nbs" / "appendices" / "what_did_not_work.ipynb")["cells"]
    if is_code(c) and not is_setup(source(c))
]
TABLE = "metalearn_book.practice.which_method_when"


@pytest.fixture
def here(monkeypatch, tmp_path):
    "Smoke scale, in an empty folder, without the reader of the table of all methods."
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, TABLE, _module(list))
    (tmp_path / "leaderboard").mkdir()
    return tmp_path


def _module(read_cells):
    module = types.ModuleType(TABLE)
    module.__spec__ = ModuleSpec(TABLE, None)
    module.read_cells = lambda folder: read_cells()
    return module


def run(cells):
    "The namespace after some cells, and what they show."
    page, shown = {}, []
    for text in cells:
        *body, last = ast.parse(text).body
        exec(compile(ast.Module(body, []), "page", "exec"), page)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "page", "eval"), page)
            shown.append(str(value))
        else:
            exec(compile(ast.Module([last], []), "page", "exec"), page)
    return page, shown


def with_results(monkeypatch):
    monkeypatch.setenv("METALEARN_RESULTS", str(ROOT / "results"))


def test_every_sentence_is_true_of_the_stored_results(here, monkeypatch):
    with_results(monkeypatch)
    page, shown = run(CELLS)
    asked = sum("\nentry(" in text for text in CELLS)
    assert len(page["ROWS"]) == asked >= 25
    missing = ("this entry are not here", "targets are not here", " nan")
    assert not [s for s in shown for words in missing if words in s]
    ideas = [row["idea"] for row in page["ROWS"]]
    assert len(set(ideas)) == len(ideas)
    assert page["missed"] and all(t.reached is False for t in page["missed"])


def test_without_results_the_page_runs_and_says_so(here, monkeypatch, capsys):
    monkeypatch.setenv("METALEARN_RESULTS", str(here / "nothing"))
    page, shown = run(CELLS)
    assert not page["HERE"] and not page["ROWS"]
    assert sum("stored results of this entry are not here" in s for s in shown) >= 25
    assert capsys.readouterr().out.count("in the book's repository") == 1


def test_a_changed_result_stops_the_page(here, monkeypatch):
    shutil.copytree(ROOT / "results", here / "results")
    monkeypatch.setenv("METALEARN_RESULTS", str(here / "results"))
    path = here / "results" / "optimization" / "50_latent.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    lead = content["book"]["numbers"]["leo_minus"]["sentences, nearest prototypes"]
    lead["mean"] = -lead["mean"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FalseClaim, match="LEO minus class means"):
        run(CELLS)


class Cell:
    "A stand-in for a cell of the table of all methods."

    def __init__(self, row, value, bed="clinc150", trained=True):
        self.row, self.value, self.bed, self.trained = row, value, bed, trained

    def minus(self, other):
        return Interval(self.value - other.value, 0.01)


def test_rows_behind_the_best_frozen_baseline_are_listed(here, monkeypatch):
    cells = [
        Cell("Nearest prototype, frozen", 0.8, trained=False),
        Cell("Ridge regression, frozen", 0.85, trained=False),
        Cell("MAML", 0.82),
        Cell("ANIL", 0.845),
        Cell("Reptile", 0.9),
        Cell("MAML", 0.1, bed="sinusoids"),
    ]
    monkeypatch.setitem(sys.modules, TABLE, _module(lambda: cells))
    with_results(monkeypatch)
    monkeypatch.setenv("METALEARN_RESULTS", str(here))
    page, shown = run(CELLS)
    assert [(c.row, c.bed) for c in page["lost_to"]] == [("MAML", "clinc150")]
    assert page["best"]["clinc150"].row == "Ridge regression, frozen"
    assert "1 of 3 trained rows" in "".join(shown)
