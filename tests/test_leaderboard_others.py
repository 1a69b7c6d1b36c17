"""Programs of others on the table's episodes: the same episodes by value, files that
survive a kill, and what each needs. What runs a program skips where it is missing."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from metalearn_book.data import class_split
from metalearn_book.practice.which_method_when import read_cells

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks/leaderboard"
FROZEN = "Nearest prototype, frozen"


@pytest.fixture(scope="module")
def others():
    "The module of the benchmark; the path is put back."
    before, threads = list(sys.path), torch.get_num_threads()
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)
    try:
        yield importlib.import_module("others")
    finally:
        sys.path[:] = before
        torch.set_num_threads(threads)


@pytest.fixture
def bed(others, monkeypatch):
    """A small bed of invented texts of Banking77's classes, with invented vectors that
    overlap; 30 episodes, so that they are drawn in two batches."""
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    beds = importlib.import_module("beds")
    classes = sorted(sum((class_split("banking77")[p] for p in
                          ("train", "validation", "test")), []))  # fmt: skip
    labels = [name for name in classes for _ in range(20)]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(len(classes), 8, generator=generator).repeat_interleave(20, 0)
    noise = torch.randn(len(labels), 8, generator=generator)
    texts = [f"text {i}" for i in range(len(labels))]
    rows = (texts, labels, ["test"] * len(labels))
    vectors = F.normalize(centres + noise, dim=-1)
    for module in (beds, others):
        monkeypatch.setattr(module, "_texts", lambda name: rows)
    monkeypatch.setattr(beds, "vectors", lambda name, features="encoder": vectors)
    beds.tasks.cache_clear()
    yield replace(beds.beds()["banking77 5w1s"], episodes=30, steps=2)
    beds.tasks.cache_clear()


@pytest.fixture
def table(others, bed, tmp_path):
    "The stored row of frozen prototypes on that bed."
    cells, rows = importlib.import_module("cells"), others.all_rows()[0]
    folder = tmp_path / "table"
    assert cells.run_cell(bed, rows[FROZEN], folder, tmp_path / "work", rows) == "done"
    return folder


def nearest(bed, seed):
    "Frozen prototypes once more, as a program."

    def answers(episode):
        means = torch.stack([episode.x[episode.y == c].mean(0) for c in range(5)])
        return torch.cdist(episode.query_x, means).argmin(-1)

    return answers


def stub(others, make=nearest, **how):
    return others.Program("Stub", make, **how)


def run(others, bed, program, table, n=28):
    folder, work = table.parent / "others", table.parent / "work"
    return others.measure(bed, program, table, folder, work, n)


def stored(table) -> Path:
    return table.parent / "others/banking77_5w1s/stub.json"


# --- the same episodes ----------------------------------------------------------------


def test_texts_vectors_and_names_belong_together(others, bed):
    beds = importlib.import_module("beds")
    texts, labels, _ = others._texts("banking77")
    for episode, y in others.first_episodes(bed, 28):
        for part, x, answers in (
            (episode.support, episode.x, episode.y),
            (episode.query, episode.query_x, y),
        ):
            rows = [texts.index(t) for t in part]
            assert torch.equal(beds.vectors("banking77")[rows], x)
            assert [labels[i] for i in rows] == [episode.names[c] for c in answers]
        assert not set(episode.support) & set(episode.query)


def test_class_means_give_the_stored_row(others, bed, table):
    others.check_episodes(bed, 28, table)
    path = next(table.glob("*/*.json"))
    record = json.loads(path.read_text())
    record["seeds"]["0"]["values"][26] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(RuntimeError, match="episode 26.*not the same episodes"):
        others.check_episodes(bed, 28, table)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="make it: python benchmarks"):
        run(others, bed, stub(others), table)


@pytest.mark.parametrize("change", [{"kind": "numbers"}, {"data": "fewrel"},
                                    {"k_shot": 5}])  # fmt: skip
def test_other_beds_are_refused(others, bed, change):
    with pytest.raises(ValueError, match="take one of banking77 5w1s"):
        next(others.first_episodes(replace(bed, **change), 1))


# --- files ----------------------------------------------------------------------------


def test_a_file_is_made_once_and_is_read_as_a_cell(others, bed, table):
    assert run(others, bed, stub(others), table) == "done"
    before = stored(table).read_bytes()
    assert run(others, bed, stub(others), table) == "there already"
    assert stored(table).read_bytes() == before
    cell, frozen = read_cells(table.parent / "others")[0], read_cells(table)[0]
    assert torch.equal(cell.values, frozen.values[:, :28])
    assert 0.3 < cell.mean < 0.95  # a bed that can tell methods apart
    said = list(others.report(read_cells(table), [cell]))
    assert len(said) == 1 and f"minus {FROZEN} +0.0 ±" in said[0]


def test_a_run_that_was_killed_goes_on_and_asks_nothing_twice(others, bed, table):
    asked = Counter()

    def breaks_at(last):
        def make(bed, seed):
            def answers(episode):
                if len(asked) == last:
                    raise KeyboardInterrupt
                asked[tuple(episode.support)] += 1
                return torch.randint(5, (len(episode.query),))  # by the seed alone

            return answers

        return make

    for last in (7, 26):  # in the first batch of episodes, and in the second
        with pytest.raises(KeyboardInterrupt):
            run(others, bed, stub(others, breaks_at(last)), table)
        record = json.loads(stored(table).read_text())
        assert len(record["unfinished"]["values"]) == last and not record["seeds"]
        assert not read_cells(table.parent / "others")  # unfinished is no cell
        part = next(others.under_way(table.parent / "others"))
        said = next(others.report(read_cells(table), [part]))
        assert f"Stub, {last} of 28 episodes so far: {100 * part.mean:.1f} ±" in said
    run(others, bed, stub(others, breaks_at(-1)), table)
    assert len(asked) == 28 and set(asked.values()) == {1}
    values = json.loads(stored(table).read_text())["seeds"]["0"]["values"]
    stored(table).unlink()
    run(others, bed, stub(others, breaks_at(-1)), table)
    assert json.loads(stored(table).read_text())["seeds"]["0"]["values"] == values


def test_what_is_trained_has_a_run_for_each_seed(others, bed, table):
    bed = replace(bed, seeds=2)
    seeds = []
    program = stub(others, lambda bed, seed: (seeds.append(seed), nearest(bed, 0))[1],
                   trained=True)  # fmt: skip
    assert run(others, bed, program, table) == "done" and seeds == [0, 1]
    assert read_cells(table.parent / "others")[0].values.shape == (2, 28)


def test_episodes_of_two_versions_are_never_mixed(others, bed, table, monkeypatch):
    run(others, bed, stub(others), table)
    whole = json.loads(stored(table).read_text())
    monkeypatch.setattr(others.Program, "versions", lambda self: {"stub": "2"})
    monkeypatch.setattr(others, "versions", lambda *names: {n: "2" for n in names})
    assert (
        run(others, bed, stub(others), table) == "there already"
    )  # a whole file stays
    part = {"seeds": {}, "unfinished": {"values": [75] * 9, "cpu": [0.0] * 9}}
    stored(table).write_text(json.dumps(whole | part))
    run(others, bed, stub(others), table)
    record = json.loads(stored(table).read_text())
    assert record["versions"] == {"stub": "2"}
    assert record["seeds"]["0"]["values"] == whole["seeds"]["0"]["values"]


@pytest.mark.parametrize("key", ["code", "settings"])
def test_other_code_or_settings_start_anew(others, bed, table, key):
    run(others, bed, stub(others), table)
    record = json.loads(stored(table).read_text())
    stored(table).write_text(json.dumps(record | {key: "older"}))
    assert run(others, bed, stub(others), table) == "done"
    assert json.loads(stored(table).read_text())[key] == record[key]


def test_two_processes_never_make_the_same_file(others, bed, table):
    lock = table.parent / "work/others/banking77_5w1s.stub.lock"
    with others.alone(lock) as mine:
        assert mine and run(others, bed, stub(others), table) == "elsewhere"


def test_answers_to_other_queries_are_refused(others, bed, table):
    few = stub(others, lambda bed, seed: lambda episode: torch.zeros(3))
    with pytest.raises(RuntimeError, match="answers to 75 queries"):
        run(others, bed, few, table)


def test_the_code_of_a_program_is_its_own(others):
    codes = {p.name: others.code_of(p) for p in others.PROGRAMS.values()}
    assert len(set(codes.values())) == len(codes)


# --- the programs ---------------------------------------------------------------------


def test_a_missing_program_says_what_to_install(others, bed, table):
    absent = stub(others, packages=("no-such-program",))
    with pytest.raises(RuntimeError, match="rivals.sh .venv no-such-program"):
        run(others, bed, absent, table)
    assert not stored(table).exists()


def test_the_script_installs_every_package(others):
    script = (ROOT / "benchmarks/rivals.sh").read_text()
    known = set(re.findall(r"^install (\S+)", script, re.M))
    assert {n for p in others.PROGRAMS.values() for n in p.packages} <= known


@pytest.fixture
def installed(others):
    def check(name):
        try:
            return others.PROGRAMS[name].versions()
        except RuntimeError as why:
            pytest.skip(str(why))

    return check


def test_names_alone_and_prototypes_alone(others, bed, monkeypatch):
    said = {}

    class Encoder:
        def encode(self, names):
            said["names"] = names
            return F.one_hot(torch.tensor([1, 2, 3, 4, 0]), 8).float()

    programs = others.programs
    monkeypatch.setattr(programs, "load_encoder", lambda name: Encoder())
    episode, _ = next(others.first_episodes(bed, 1))
    mine = programs.with_names(0.0)(bed, 0)(episode)
    assert torch.equal(mine, nearest(bed, 0)(episode))
    alone = programs.with_names(1.0)(bed, 0)(episode)  # unit vectors: largest product
    assert torch.equal(alone, episode.query_x[:, [1, 2, 3, 4, 0]].argmax(-1))
    assert said["names"] == [name.replace("_", " ") for name in episode.names]


def test_the_head_of_learn2learn_is_nearest_prototype(others, bed, table, installed):
    installed("learn2learn, frozen")
    program = replace(others.PROGRAMS["learn2learn, frozen"], name="Stub")
    assert run(others, bed, program, table) == "done"
    cell, frozen = read_cells(table.parent / "others")[0], read_cells(table)[0]
    assert torch.equal(cell.values, frozen.values[:, :28])


def test_protonet_of_learn2learn_learns(others, bed, installed, monkeypatch):
    installed("learn2learn, ProtoNet")
    body = torch.nn.Linear(8, 8)
    start = body.weight.detach().clone()
    monkeypatch.setattr(others.programs, "body", lambda bed: body)
    episode, y = next(others.first_episodes(bed, 1))
    answer = others.PROGRAMS["learn2learn, ProtoNet"].make(bed, 0)(episode)
    assert answer.shape == y.shape and not torch.equal(body.weight, start)


@pytest.mark.parametrize("name", ["SetFit", "FastFit"])
def test_a_program_answers(others, bed, installed, monkeypatch, name):
    installed(name)
    monkeypatch.setitem(others.programs.FASTFIT, "num_train_epochs", 1)
    try:
        others.programs.folder_of_minilm()
    except FileNotFoundError as why:
        pytest.skip(str(why).splitlines()[0])
    texts = ["my card was stolen", "what is the exchange rate", "where is my refund"]
    names = ["stolen_card", "exchange_rate", "refund_not_showing"]
    y, nothing = torch.tensor([2, 0, 1]), torch.zeros(0)
    shuffled = [names[1], names[2], names[0]]  # the class behind labels 0, 1 and 2
    episode = others.Episode(texts, y, texts, nothing, nothing, shuffled)
    assert others.PROGRAMS[name].make(bed, 0)(episode).tolist() == y.tolist()


# --- ray ------------------------------------------------------------------------------


@pytest.mark.timeout(1200)  # every worker of Ray imports torch anew
def test_ray_makes_the_same_cells(tmp_path):
    "The command on Ray and in one process: the same numbers, and no cell is left out."
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install ray")
    found = {}
    for how in (("--workers", "1"), ("--ray",)):
        root = tmp_path / how[0].strip("-")
        shutil.copytree(FOLDER, root / "benchmarks/leaderboard")
        shutil.copytree(ROOT / "tools", root / "tools")
        (root / "metalearn_book").symlink_to(ROOT / "metalearn_book")
        env = os.environ | {
            "METALEARN_SCALE": "smoke", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        names = ("ConditionalNP", "Gaussian process", "MAML")
        rows = [word for name in names for word in ("--row", name)]
        command = [sys.executable, "benchmarks/leaderboard", "--bed", "sinusoids"]
        done = subprocess.run([*command, *rows, *how], cwd=root, env=env,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        paths = (root / "_build/leaderboard/smoke/results").glob("*/*.json")
        cells = {p.name: json.loads(p.read_text()) for p in paths}
        found[how[0]] = {
            name: [cell["search"], [s["values"] for s in cell["seeds"].values()]]
            for name, cell in cells.items()
        }
        assert len(cells) == len(names)
    assert found["--ray"] == found["--workers"]
