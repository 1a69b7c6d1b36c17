"""The benchmarks measure what they say: all ways give one gradient, a missing library
is named, and the numbers are stored."""

import ast
import importlib
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import inner_loop
import maml_sinusoid
import metric_omniglot
from measure import SAME, gradient, peak_megabytes, quartiles, ratios, time_in_turn
from problems import SMALL
from rivals import MAKERS, NAMES, load_rivals
from targets import show_targets, targets
from ways import FLOORS, WAYS

from metalearn_book.foundations.measuring import Evaluation
from metalearn_book.foundations.tasks import Examples

RIVALS, STATE = load_rivals()
OF_RIVALS = {way: library for library, ways in MAKERS.items() for way in ways}
# where these libraries or PyTorch's vmap differentiate wrongly; the benchmark says so
# in its table
WRONG = {
    ("omniglot", "vmap(grad)"): "batch statistics under vmap",
    ("gpt", "vmap(grad)"): "LayerNorm under vmap of grad",
    ("gpt", "TorchOpt"): "tied weights",
    ("omniglot", "parallel-metalearn"): "batch statistics under vmap",
    ("gpt", "parallel-metalearn"): "LayerNorm under vmap of grad",
}


@pytest.fixture(scope="module")
def small():
    made = {}

    def problem(name):
        if name not in made:
            p = SMALL[name]()
            made[name] = (
                p,
                {
                    exact: gradient(
                        WAYS["python loop" if exact else "python loop, first order"],
                        p,
                        p.tasks,
                        2,
                    )
                    for exact in (True, False)
                },
            )
        return made[name]

    return problem


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize(
    "way", [w for w in (*WAYS, *OF_RIVALS) if not w.startswith("python loop")]
)
def test_all_ways_give_one_gradient(small, name, way):
    if way in OF_RIVALS and way not in RIVALS:
        pytest.skip(f"{OF_RIVALS[way]} is {STATE[OF_RIVALS[way]]}")
    problem, reference = small(name)
    made = {**WAYS, **RIVALS}[way]
    if name not in made.problems:
        return
    found = gradient(made, problem, problem.tasks, 2)
    difference = (
        (found - reference[made.exact]).norm() / reference[made.exact].norm()
    ).item()
    if (name, way) in WRONG and difference > SAME:
        pytest.xfail(f"{WRONG[name, way]}: {difference:.1g}")
    assert difference < SAME


@pytest.mark.parametrize("name", ["omniglot", "gpt"])
def test_parallel_metalearn_is_wrong_where_vmap_of_grad_is(small, name):
    """PyTorch's, not the library's: the same gradient to the last digits. With all its
    other ways, its own normalization among them, it is right (above)."""
    if "parallel-metalearn" not in RIVALS:
        pytest.skip(f"parallel-metalearn is {STATE['parallel-metalearn']}")
    problem, _ = small(name)
    found, same = (
        gradient(way, problem, problem.tasks, 2)
        for way in (RIVALS["parallel-metalearn"], WAYS["vmap(grad)"])
    )
    assert (found - same).norm() < SAME * same.norm()


def test_parallel_metalearn_cannot_put_in_its_own_normalization():
    "Once it can, `with_own_batch_norm` of the benchmark may go."
    if "parallel-metalearn" not in RIVALS:
        pytest.skip(f"parallel-metalearn is {STATE['parallel-metalearn']}")
    models = importlib.import_module("metalearn.nn_models")
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    with pytest.raises(TypeError, match="learn_gamma"):
        models.ModelTranslator.convert_to_functional(network)


def test_first_order_is_another_gradient(small):
    _, reference = small("sinusoids")
    assert (reference[True] - reference[False]).norm() > 1e-3 * reference[True].norm()


def test_the_floor_makes_as_many_passes_as_the_method(small):
    problem, _ = small("sinusoids")
    seen = []
    for way in FLOORS.values():
        network = problem.network()
        calls = []
        network.register_forward_hook(lambda *_: calls.append(1))
        way.make(network, problem, problem.tasks, 3)()
        seen.append(len(calls))
    assert seen == [7, 4]


def test_a_missing_library_is_named(tmp_path):
    ways, state = load_rivals(tmp_path / "nothing")
    assert ways == {} and set(state) == set(NAMES)
    assert all(
        "not installed" in why and "benchmarks/rivals.sh" in why
        for why in state.values()
    )


def test_the_script_runs_and_stores_its_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("METALEARN_RESULTS", str(tmp_path))
    monkeypatch.setattr(
        inner_loop, "load_rivals", lambda: load_rivals(tmp_path / "nothing")
    )
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "inner_loop.py",
            "--quick",
            "--problems",
            "sinusoids",
            "--threads",
            str(torch.get_num_threads()),
        ],
    )
    inner_loop.main()
    printed = capsys.readouterr().out
    assert (
        "learn2learn: not installed" in printed
        and "not measured" in printed
        and "x python loop" in printed
    )
    stored = json.loads(
        (tmp_path / "benchmarks" / "inner_loop_quick.json").read_text()
    )["book"]
    numbers = stored["numbers"]["sinusoids"]
    assert {
        "what",
        "libraries",
        "difference of the gradient",
        "steps",
        "threads",
        "seconds",
    } <= set(numbers)
    assert set(numbers["steps"]) == {"1", "5", "10"}
    row = numbers["steps"]["5"]["engine"]
    assert {
        "ms",
        "tasks per second",
        "processor ms",
        "times as fast as python loop",
        "times the floor",
        "peak MB",
        "rounds",
    } <= set(row) and row["rounds"] == 2
    assert numbers["difference of the gradient"]["engine"] < SAME
    reached = [t.reached for t in targets(stored["numbers"])]
    assert reached[:-2] == [None] * 8  # the last two need no other library
    assert all(isinstance(r, bool) for r in reached[-2:])


def test_medians_ratios_and_rounds():
    assert (
        quartiles([3.0, 1.0, 2.0]) == {"median": 2.0, "quartiles": [1.5, 2.5]}
        and quartiles([4.0])["median"] == 4.0
    )
    assert (
        ratios({"a": [1.0, 10.0, 3.0], "b": [2.0, 20.0, 3.0]}, "b", "a")["median"]
        == 2.0
    )
    calls = []
    times, processor = time_in_turn(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        4,
        60,
        "",
        shortest=0,
    )
    assert (
        calls == ["a", "b", "b", "a"] * 2
        and len(times["a"]) == len(processor["b"]) == 4
    )
    assert peak_megabytes(lambda: torch.ones(250_000).sum()) == pytest.approx(
        1.0, rel=1e-3
    )


def test_targets(capsys):
    def row(speed, mb):
        return {"times as fast as learn2learn": {"median": speed}, "peak MB": mb}

    numbers = {
        "sinusoids": {"steps": {"1": {"engine": row(12.0, 1)}}},
        "gpt": {
            "steps": {
                "20": {"engine, adjoint": row(1, 2.0), "python loop": row(1, 4.0)}
            }
        },
    }
    found = {t.what: t.reached for t in targets(numbers)}
    assert list(found.values()).count(None) == 8
    assert (
        found["sinusoids, 1 step: tasks per second over those of learn2learn"] is True
    )
    assert (
        found["small GPT, 20 steps: memory of the adjoint mode over the naive unroll"]
        is False
    )
    show_targets(targets(numbers))
    lines = capsys.readouterr().out.strip().splitlines()[1:]
    assert [line.rsplit("  ", 1)[1] for line in lines] == [
        "yes",
        *["not measured"] * 5,
        "NO",
        *["not measured"] * 3,
    ]


def test_summary_of_divergent_tasks():
    values = torch.cat(
        [torch.full((97,), 0.5), torch.tensor([11.0, math.inf, math.nan])]
    )
    found = maml_sinusoid.summary(Evaluation(values, seed=0))
    assert (
        found["median"] == found["90th percentile"] == 0.5
        and found["99th percentile"] == math.inf
        and found["error above 10"] == 3
    )


def test_a_run_on_sinusoids_goes_on(tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    once.mkdir(), twice.mkdir()
    maml_sinusoid.train(0.01, 5, 3, 0, twice)
    whole, _ = maml_sinusoid.train(0.01, 5, 6, 0, twice)
    straight, _ = maml_sinusoid.train(0.01, 5, 6, 0, once)
    for a, b in zip(whole.parameters(), straight.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    found = maml_sinusoid.measure(whole, 10)
    assert set(found) == {
        "10 shots, 1 step",
        "10 shots, 10 steps",
        "5 shots, 1 step",
        "5 shots, 10 steps",
    }


def test_the_metric_learners_are_compared_run_by_run(tmp_path):
    runs = {
        (name, seed): {"values": {"5-way 1-shot": [0.1 * seed + lead, 0.5 + lead]}}
        for name, lead in (("prototypes", 0.0), ("matching", 0.25))
        for seed in range(3)
    }
    table, gaps = metric_omniglot.tables(runs)
    assert [r["learner"] for r in table] == ["prototypes", "matching"]
    assert table[0]["mean"] == pytest.approx(0.3)
    assert [r["learner"] for r in gaps] == ["matching"]
    assert gaps[0]["mean"] == pytest.approx(0.25)
    assert gaps[0]["ci95"] == pytest.approx(0, abs=1e-6)
    calls = []
    for _ in range(2):  # what is there is not made again
        made = metric_omniglot.once(tmp_path / "a.json", lambda: calls.append(1) or 7)
        assert made == 7 and len(calls) == 1


def test_the_metric_learners_take_images():
    x = torch.rand(1, 6, 1, 28, 28)
    y = torch.arange(3).repeat(2)[None]
    for name in metric_omniglot.LEARNERS:
        learner = metric_omniglot.made(name, 4).eval()
        assert learner.adapt(Examples(x, y))(x).shape == (1, 6, 3)


def test_what_cannot_be_installed_is_said(tmp_path):
    """An environment whose pip always fails: the script names each library and ends
    without an error."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -m ]; then echo no network; exit 1; fi\n'
        f"echo {tmp_path}\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "rivals.sh"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0
    assert (
        all(
            f"{name} " in done.stderr and "could not be installed" in done.stderr
            for name in NAMES
        )
        and "no network" in done.stderr
    )


def test_cells_of_the_text_benchmark_have_their_own_names():
    """A cell that two jobs write, or that no job writes any more, would be a number of
    unknown origin."""
    import text_classification

    # without the encoder: nothing is measured here
    bench = object.__new__(text_classification.Bench)
    names = [
        f"{section}: {key}" for section, key, _, _ in text_classification.jobs(bench)
    ]
    assert len(names) == len(set(names))
    stored = json.loads(
        (ROOT / "results" / "benchmarks" / "text_classification.json").read_text()
    )["book"]["numbers"]["cells"]
    assert set(stored) <= set(names)


def test_no_measured_cell_of_the_text_benchmark_is_left_out():
    "A run on a machine without a library once dropped what it had measured before."
    import text_classification

    bench = object.__new__(text_classification.Bench)
    numbers = json.loads(
        (ROOT / "results" / "benchmarks" / "text_classification.json").read_text()
    )["book"]["numbers"]
    made = text_classification.for_chapter(numbers["cells"], bench)
    assert json.loads(json.dumps(made)) == {
        k: v for k, v in numbers.items() if k != "cells"
    }
    assert set(made["library"]) == {
        "this book",
        "setfit, 3 iterations",
        "setfit, defaults, 15 classes",
    }


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem
)
def test_what_a_script_imports_of_the_package_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(
            "metalearn_book"
        ):
            module = importlib.import_module(node.module)
            missing = [a.name for a in node.names if not hasattr(module, a.name)]
            assert not missing, f"{node.module} has no {', '.join(missing)}"
