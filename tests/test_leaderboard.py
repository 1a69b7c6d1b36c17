"""The table of all methods: rows by introspection, cells that survive a kill, files
that are checked when read."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

FOLDER = ROOT / "benchmarks/leaderboard"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("METALEARN_SCALE", "smoke")


@pytest.fixture(scope="module")
def table():
    "The modules of the benchmark."
    sys.path.insert(0, str(FOLDER))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the benchmark: sums in the same order
    try:
        names = ("beds", "rows", "cells", "jobs", "learners")
        yield {n: importlib.import_module(n) for n in names}
    finally:
        sys.path.remove(str(FOLDER))
        torch.set_num_threads(threads)


def sinusoids(table):
    return table["beds"].beds()["sinusoids"]


def run(table, bed, name, folder):
    rows = table["rows"].all_rows()[0]
    return table["cells"].run_cell(
        bed, rows[name], folder / "results", folder / "work", rows
    )


def stored(table, bed, name, folder) -> Path:
    rows = table["rows"].all_rows()[0]
    return table["cells"].path_of(bed, rows[name], folder / "results")


# --- rows ----------------------------------------------------------------------------


def test_every_learner_is_a_row_or_says_why_not(table):
    rows, none = table["rows"].all_rows()
    named = {row.learner for row in rows.values()} | set(none)
    assert set(table["learners"].found_learners()) <= named
    assert not [n for n, why in none.items() if why.startswith("no row yet")]
    assert not set(table["rows"].LEFT_OUT) - set(table["learners"].found_learners())


def test_a_new_learner_becomes_a_row_by_itself(table):
    class New(torch.nn.Module):
        def __init__(self, body: torch.nn.Module):
            super().__init__()

    class Unclear(torch.nn.Module):
        def __init__(self, secret):
            super().__init__()

    rows, none = table["rows"].all_rows({"New": New, "Unclear": Unclear})
    assert rows["New"].make(sinusoids(table), {}).training
    assert "add it to _ROWS" in none["Unclear"]


def test_searches_have_the_same_size(table):
    rows = table["rows"].all_rows()[0].values()
    for bed in table["beds"].beds().values():
        sizes = {len(r.grid(bed)) for r in rows if r.trained and r.runs_on(bed)
                 and not r.parent}  # fmt: skip
        assert len(sizes) == 1, bed.name


# --- cells ---------------------------------------------------------------------------


def test_a_cell_is_made_once_and_is_the_same_again(table, tmp_path):
    bed = sinusoids(table)
    assert run(table, bed, "MAML", tmp_path / "a") == "done"
    assert run(table, bed, "MAML", tmp_path / "a") == "there already"
    assert run(table, bed, "MAML", tmp_path / "b") == "done"
    first, second = (
        json.loads(stored(table, bed, "MAML", tmp_path / f).read_text()) for f in "ab"
    )
    assert first["seeds"]["0"]["values"] == second["seeds"]["0"]["values"]
    assert len(first["seeds"]["0"]["values"]) == bed.episodes
    assert first["search"] == second["search"] and len(first["search"]) == 6


def test_a_row_that_trains_nothing_has_one_run(table, tmp_path):
    bed = replace(sinusoids(table), seeds=3)
    assert run(table, bed, "Gaussian process", tmp_path) == "done"
    assert run(table, bed, "Gaussian process", tmp_path) == "there already"
    path = stored(table, bed, "Gaussian process", tmp_path)
    assert list(json.loads(path.read_text())["seeds"]) == ["0"]


def test_a_killed_run_goes_on_and_counts_nothing_twice(table, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import cells; from beds import beds; from rows import all_rows\n"
        "from dataclasses import replace; from pathlib import Path\n"
        "b, rows = replace(beds()['sinusoids'], seeds=2, steps=40), all_rows()[0]\n"
        "f = Path(sys.argv[2]); print('start', flush=True)\n"
        "cells.run_cell(b, rows['MAML'], f / 'results', f / 'work', rows)"
    )
    env = os.environ | {"METALEARN_SCALE": "smoke", "OMP_NUM_THREADS": "1"}
    bed = replace(sinusoids(table), seeds=2, steps=40)
    path = stored(table, bed, "MAML", tmp_path)
    args = [sys.executable, "-c", code, str(FOLDER), str(tmp_path)]
    child = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    while not (path.exists() and len(json.loads(path.read_text())["search"]) >= 3):
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = json.loads(path.read_text())["search"]
    assert run(table, bed, "MAML", tmp_path) == "done"
    after = json.loads(path.read_text())
    assert {k: after["search"][k] for k in before} == before
    assert run(table, bed, "MAML", tmp_path / "whole") == "done"
    whole = json.loads(stored(table, bed, "MAML", tmp_path / "whole").read_text())
    for seed in ("0", "1"):
        assert after["seeds"][seed]["values"] == whole["seeds"][seed]["values"]


def test_two_processes_never_make_the_same_cell(table, tmp_path):
    bed, cells = sinusoids(table), table["cells"]
    lock = tmp_path / "work" / "sinusoids" / "maml.lock"
    with cells.alone(lock) as mine:
        assert mine
        assert run(table, bed, "MAML", tmp_path) == "elsewhere"
    assert run(table, bed, "MAML", tmp_path) == "done"


def test_two_processes_give_the_numbers_of_one(table, tmp_path):
    rows = (
        "Mean of the support set",
        "Gaussian process",
        "Least squares on sin and cos",
    )
    found = {}
    for workers in ("1", "2"):
        args = [f"--row={row}" for row in rows] + ["--bed=sinusoids", "--workers"]
        env = os.environ | {"METALEARN_RESULTS": str(tmp_path / workers)}
        done = subprocess.run([sys.executable, str(FOLDER), *args, workers], env=env,
                              capture_output=True, text=True, timeout=240)  # fmt: skip
        assert done.returncode == 0, done.stderr
        for row in rows:
            path = table["cells"].path_of(
                table["beds"].beds()["sinusoids"],
                table["rows"].all_rows()[0][row],
                tmp_path / workers / "leaderboard_smoke",
            )
            record = json.loads(path.read_text())
            found[workers, row] = {k: s["values"] for k, s in record["seeds"].items()}
    for row in rows:
        assert found["1", row] == found["2", row]


def test_a_process_that_dies_ends_the_command(table, tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os\n\ndef dies(job):\n    os._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(table["jobs"], "one", importlib.import_module("dies").dies)
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        list(table["jobs"].in_processes([("a", "b")] * 3, 2))


def test_a_cell_of_other_code_or_settings_is_made_again(table, tmp_path):
    bed = sinusoids(table)
    run(table, bed, "ConditionalNP", tmp_path)
    path = stored(table, bed, "ConditionalNP", tmp_path)
    for key, value in (("code", "of an older version"), ("grid", [])):
        old = json.loads(path.read_text())
        path.write_text(json.dumps(old | {key: value}))
        assert run(table, bed, "ConditionalNP", tmp_path) == "done"
        assert json.loads(path.read_text())[key] != value
    assert run(table, replace(bed, steps=5), "ConditionalNP", tmp_path) == "done"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"bed": 1}'])
def test_a_damaged_cell_is_refused(table, tmp_path, content):
    bed = sinusoids(table)
    path = stored(table, bed, "MAML", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match="damaged.*remove it"):
        run(table, bed, "MAML", tmp_path)


def test_a_rate_that_runs_away_loses_and_says_so(table, tmp_path):
    bed = sinusoids(table)
    rows = table["rows"].all_rows()[0]
    wild = replace(rows["MAML"], grid=lambda b: [{"inner_lr": 1e30, "outer_lr": 1e-3}])
    rows = rows | {"MAML": wild}
    said = table["cells"].run_cell(
        bed, wild, tmp_path / "results", tmp_path / "work", rows
    )
    assert said.startswith("failed")


def test_views_wait_for_the_row_that_they_look_at(table, tmp_path):
    bed = replace(sinusoids(table), kind="text")
    assert run(table, bed, "ProtoNet, soft k-means", tmp_path) == "waits for ProtoNet"


def test_edges_of_the_search_are_noted(table):
    bed, rows = sinusoids(table), table["rows"].all_rows()[0]
    edge = table["cells"].at_edge
    assert edge(bed, rows["MAML"], {"inner_lr": 0.03, "outer_lr": 1e-3}) == ["inner_lr"]
    assert edge(bed, rows["MAML"], {"inner_lr": 0.01, "outer_lr": 1e-3}) == []


def test_the_code_of_a_row_is_its_own(table):
    code_of, rows = table["cells"].code_of, table["rows"].all_rows()[0]
    assert code_of(rows["MAML"]) != code_of(rows["ConditionalNP"])


def test_accuracies_are_stored_as_counts(table):
    bed = replace(sinusoids(table), kind="text", n_way=5)
    fake = type("T", (), {"n_query": 15})()
    cells, tasks = table["cells"], table["cells"].tasks
    cells.tasks = lambda *_: fake
    try:
        assert cells.compact(torch.tensor([0.6, 1.0]), bed) == [45, 75]
        with pytest.raises(RuntimeError, match="multiples"):
            cells.compact(torch.tensor([0.61]), bed)
    finally:
        cells.tasks = tasks


def test_the_command_refuses_unknown_names():
    env = os.environ | {"METALEARN_SCALE": "smoke"}
    done = subprocess.run([sys.executable, str(FOLDER), "--bed", "nowhere"], env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode and "no bed 'nowhere'" in done.stderr
