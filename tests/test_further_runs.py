"""Benchmarks that train a chapter's further runs do it by the chapter's own code, and
make nothing twice."""

import base64
import json
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import further_runs
import latent
import learned_optimizer
import what_to_adapt
from notebooks import read, source

from metalearn_book.book.results import load_results

CELLS = [
    ("markdown", "# A chapter"),
    ("code", "scale = 2"),
    ("markdown", "Text.\n\n## Results\n\n### Of the first run"),
    ("code", "raise RuntimeError('this section is left out')"),
    ("markdown", "## Experiments"),
    ("code", "class Box:\n    def same(self) -> Box:\n        return self"),
    ("code", "def one_run(seed):\n    return scale * seed"),
    ("code", "raise RuntimeError('this cell comes later')"),
]


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    cells = [{"cell_type": kind, "source": [text]} for kind, text in CELLS]
    path = tmp_path / "nbs" / "part" / "10_small.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}}))
    monkeypatch.setattr(further_runs, "ROOT", tmp_path)
    monkeypatch.setenv("METALEARN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("METALEARN_SCALE", "book")
    return "part/10_small"


def test_the_cells_are_executed_up_to_the_definition(chapter):
    module = further_runs.code_of(chapter, "one_run", without=("Results",))
    assert module.one_run(3) == 6 and module.Box().same().__class__ is module.Box


def test_a_cell_that_fails_is_not_passed_over(chapter):
    with pytest.raises(RuntimeError, match="left out"):
        further_runs.code_of(chapter, "one_run")


def test_a_definition_that_is_not_there_is_named(chapter):
    with pytest.raises(RuntimeError, match="defines 'two_runs'"):
        further_runs.code_of(chapter, "two_runs", ("Results", "Experiments"))


def test_stored_runs_are_kept_while_the_settings_are_the_same(chapter):
    made = []

    def run(seed):
        made.append(seed)
        return {"accuracy": 0.5 + seed / 100}

    name = "benchmarks/small"
    further_runs.store_runs(name, [1], run, {"rate": 0.1}, search={"a": [1.0]})
    further_runs.store_runs(name, [1, 2], run, {"rate": 0.1}, search={"a": [1.0]})
    assert made == [1, 2]
    stored = load_results(name)
    assert stored["numbers"] == {
        "settings": {"rate": 0.1},
        "runs": {"1": {"accuracy": 0.51}, "2": {"accuracy": 0.52}},
        "search": {"a": [1.0]},
    }
    assert stored["config"] == {"seeds": [1, 2]}
    further_runs.store_runs(name, [2], run, {"rate": 0.3})
    assert made == [1, 2, 2]
    assert list(load_results(name)["numbers"]["runs"]) == ["2"]


def test_weights_come_back_from_text():
    net = torch.nn.Linear(3, 2)
    text = learned_optimizer.packed(net)
    weights = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32)
    assert torch.equal(weights, torch.nn.utils.parameters_to_vector(net.parameters()))


@pytest.mark.parametrize("script", [latent, learned_optimizer, what_to_adapt])
def test_the_chapter_reads_what_its_benchmark_stores(script):
    notebook = (ROOT / "nbs" / f"{script.CHAPTER}.ipynb").read_text(encoding="utf-8")
    assert f'load_results(\\"{script.NAME}\\"' in notebook
    stored = json.loads((ROOT / "results" / f"{script.NAME}.json").read_text())
    assert set(stored["book"]["numbers"]["runs"]) == {"1", "2"}


def test_what_is_left_out_is_a_heading_and_every_experiment_is_defined():
    cells = read(ROOT / "nbs" / f"{what_to_adapt.CHAPTER}.ipynb")["cells"]
    text = "\n".join(source(cell) for cell in cells)
    for name, without in what_to_adapt.EXPERIMENTS.items():
        assert f"\ndef {name}_run(seed):" in text and f"{name}_settings = " in text
        assert f"\n{name}_scores = searched(" in text
        assert all(f"\n## {heading}\n" in f"\n{text}\n" for heading in without)


def test_the_search_that_is_stored_is_the_one_of_the_settings():
    path = ROOT / "results" / f"{what_to_adapt.NAME}.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["book"]["numbers"]
    assert set(stored["search"]) == set(what_to_adapt.EXPERIMENTS)
    for name, found in stored["search"].items():
        settings = stored["settings"][name]
        assert found["steps"] == settings["search"]
        for learner, by_rate in found["scores"].items():
            # sinusoids are scored by an error, the others by an accuracy
            best = min if name in ("sine", "part") else max
            assert settings["rates"][learner] == float(best(by_rate, key=by_rate.get))
