"""The appendix With learn2learn: its cells run without the library, its code works with
a stand-in of a few lines, and with the library itself the gradients are equal."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from notebooks import is_code, read, settings, source
from torch import nn

NOTEBOOK = read(ROOT / "nbs" / "appendices" / "with_learn2learn.ipynb")
RIVALS = Path(sys.prefix) / "rivals"
STAND_IN = """
import types

import torch
from torch import nn
from torch.func import functional_call

__version__ = "a stand-in"


class Clone:
    def __init__(self, module, params, rates, first_order):
        self.module, self.params, self.rates = module, params, rates
        self.first_order = first_order

    def __call__(self, x):
        return functional_call(self.module, self.params, (x,))

    def adapt(self, loss):
        told = {n: p for n, p in self.params.items() if p.requires_grad}
        exact = not self.first_order
        grads = torch.autograd.grad(loss, list(told.values()), create_graph=exact)
        self.params |= {
            n: p - self.rates[n] * g for (n, p), g in zip(told.items(), grads)
        }


class MAML(nn.Module):
    def __init__(self, model, lr, first_order=False, allow_nograd=False):
        super().__init__()
        self.module, self.lr, self.first_order = model, lr, first_order

    def forward(self, x):
        return self.module(x)

    def rates(self):
        return {n: self.lr for n, _ in self.module.named_parameters()}

    def clone(self):
        params = dict(self.module.named_parameters())
        return Clone(self.module, params, self.rates(), self.first_order)


class MetaSGD(MAML):
    def __init__(self, model, lr=1.0):
        super().__init__(model, lr)
        self.lrs = nn.ParameterList(torch.full_like(p, lr) for p in model.parameters())

    def rates(self):
        return dict(zip(dict(self.module.named_parameters()), self.lrs))


algorithms = types.SimpleNamespace(MAML=MAML, MetaSGD=MetaSGD)
"""
#: what the stand-in has not: the data of learn2learn, and clones that change the module
NOT_OF_THE_STAND_IN = ("THEIRS = (", "their_tasks", "effect_of_training", "batch_norm)")


def cells():
    "The code of the page, without the generated setup cell."
    code = [source(c) for c in NOTEBOOK["cells"] if is_code(c)]
    return [text for text in code if "# Setup, the same" not in text]


def run(code):
    "Run cells in one namespace, and return that."
    page = {}
    for text in code:
        exec(compile(text, "<the page>", "exec"), page)
    return page


@pytest.fixture
def here(monkeypatch, tmp_path):
    "Smoke scale, an empty folder, and the module search path as it was afterwards."
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_it(here, monkeypatch):
    "As on a machine that does not have learn2learn."
    find = importlib.util.find_spec
    hidden = lambda name, *more: None if name == "learn2learn" else find(name, *more)
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    return here


@pytest.fixture
def library(here):
    "The namespace of the page where learn2learn is installed; skipped elsewhere."
    sys.path.append(str(RIVALS))
    if importlib.util.find_spec("learn2learn") is None:
        pytest.skip("needs learn2learn: run benchmarks/rivals.sh .venv learn2learn")
    page = run(cells())
    assert page["HAVE_L2L"]
    return page


def test_without_the_library_the_page_runs_and_shows_what_is_stored(
    without_it, monkeypatch
):
    monkeypatch.setenv("METALEARN_RESULTS", str(ROOT / "results"))
    page = run(cells())
    assert not page["HAVE_L2L"] and not page["measured"]
    assert page["differences"] and all(
        d is not None and d < 1e-10 for d in page["differences"].values()
    )
    for name in ("repeats", "apart", "moved", "predictions", "weights", "modes"):
        assert page[name] is not None, name


def test_without_the_library_and_without_results_the_page_runs(without_it, capsys):
    page = run(cells())
    assert set(page["differences"].values()) == {None}
    said = page["claim_with_l2l"]("{a} is small", lambda a: a < 1, a=None)
    assert "needs learn2learn" in str(said)
    assert "results of appendices/with_learn2learn" in capsys.readouterr().out


def test_what_needs_the_library_works_with_a_stand_in(here, monkeypatch):
    (here / "learn2learn").mkdir()
    (here / "learn2learn" / "__init__.py").write_text(STAND_IN)
    for name in [n for n in sys.modules if n.split(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(here))
    code = [t for t in cells() if not any(s in t for s in NOT_OF_THE_STAND_IN)]
    asked = []
    try:
        page = run(code)
        asked = list(page["measured"])
        with pytest.raises(AssertionError, match="not true of its own numbers"):
            page["claim_with_l2l"]("{a} is small", lambda a: a < 1, a=2)
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "learn2learn"]:
            del sys.modules[name]
    assert page["l2l"].__version__ == "a stand-in"
    assert len([n for n in asked if n.startswith("gradient, ")]) == 7
    assert all(page["measured"][n] < 1e-10 for n in asked if n.startswith("gradient"))
    assert page["measured"]["sum over mean"] == pytest.approx(4)


def test_a_wrong_gradient_of_the_library_would_be_seen(here, monkeypatch):
    (here / "learn2learn").mkdir()
    wrong = STAND_IN.replace("exact = not self.first_order", "exact = False")
    assert wrong != STAND_IN
    (here / "learn2learn" / "__init__.py").write_text(wrong)
    for name in [n for n in sys.modules if n.split(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(here))
    try:
        with pytest.raises(AssertionError, match="MAML, 1 step"):
            run([t for t in cells() if not any(s in t for s in NOT_OF_THE_STAND_IN)])
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "learn2learn"]:
            del sys.modules[name]


def test_with_the_library_the_gradients_are_equal(library):
    assert all(d < 1e-10 for d in library["differences"].values())
    assert library["modes"]["batch"] > 0.1 > 1e-10 > library["modes"]["running"]


def test_what_the_table_says_of_options(library):
    l2l = library["l2l"]

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.a(x)

    ours, theirs = library["MAML"], l2l.algorithms.MAML
    tasks, loss = library["tasks"], library["mse_per_task"]
    one = library["gradient_in_a_loop"]
    with pytest.raises(UnboundLocalError):  # after it has printed the true reason
        one(theirs(Unused().double(), lr=0.01), tasks)
    with pytest.raises(RuntimeError, match="unused='zero'"):
        ours(Unused().double(), loss)(tasks)
    assert ours(Unused().double(), loss, unused="zero")(tasks).isfinite()
    clone = theirs(Unused().double(), lr=0.01, allow_unused=True).clone()
    clone.adapt(clone(tasks.support.x[0]).sum())
    with pytest.raises(UnboundLocalError):
        one(theirs(library["network"](frozen=True), lr=0.01), tasks)
    # adapt returns nothing, and the default rates of Meta-SGD are 1
    clone = theirs(library["network"](), lr=0.01).clone()
    assert clone.adapt(clone(tasks.support.x[0]).sum()) is None
    rates = l2l.algorithms.MetaSGD(library["network"]()).lrs
    assert all((r == 1).all() for r in rates)
    with pytest.warns(DeprecationWarning):
        l2l.data.TaskDataset(torch.utils.data.TensorDataset(*torch.zeros(2, 4, 1)))


def test_the_page_checks_every_name_of_its_table():
    page = "\n".join(source(c) for c in NOTEBOOK["cells"])
    table = re.search(r"\| learn2learn \| this book \|.*?\n\n", page, re.S)[0]
    left = [row.split("|")[1] for row in table.splitlines()[2:] if row.strip()]
    named = {n for cell in left for n in re.findall(r"`l2l\.([\w.]+)", cell)}
    checked = next(t for t in cells() if "THEIRS = (" in t)
    assert named and named <= set(re.findall(r"[\w.]+", checked))


def test_the_names_of_the_book_in_the_table_exist():
    page = "\n".join(source(c) for c in NOTEBOOK["cells"])
    table = re.search(r"\| learn2learn \| this book \|.*?\n\n", page, re.S)[0]
    rows = [row for row in table.splitlines()[2:] if row.strip()]
    right = " ".join(row.split("|")[2] for row in rows)
    named = set(re.findall(r"`([A-Z]\w+)[(`]", right))
    modules = (
        "foundations.inner_loop foundations.task_models foundations.tasks "
        "metric.closed_form metric.prototypes optimization.by_hand "
        "optimization.maml optimization.what_to_adapt"
    ).split()
    there = set()
    for name in modules:
        there |= set(importlib.import_module(f"metalearn_book.{name}").__all__)
    assert len(named) >= 8 and named <= there, named - there


def test_the_extra_leaves_the_library_to_the_one_command():
    extra = settings()["l2l_requirements"].split()
    assert extra and not {"learn2learn", "torchvision", "gym"} & set(extra)
    page = "\n".join(source(c) for c in NOTEBOOK["cells"])
    assert "benchmarks/rivals.sh .venv learn2learn" in page
    assert "--no-binary" not in page  # the recipe stands in one place
    stored = json.loads(
        (ROOT / "results" / "appendices" / "with_learn2learn.json").read_text()
    )
    version = stored["book"]["numbers"]["learn2learn"]
    recipe = (ROOT / "benchmarks" / "rivals.sh").read_text()
    assert f"install learn2learn {version} " in recipe


@pytest.mark.parametrize(
    "names, status, installed",
    [
        (["learn2learn"], 0, ["learn2learn"]),
        (["higher", "optree"], 0, ["higher", "optree"]),
        (["no_such_library"], 2, []),
    ],
)
def test_the_command_installs_what_is_named(tmp_path, names, status, installed):
    "An environment whose pip writes down what it was asked for."
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -m ]; then echo "$@" >>{tmp_path}/asked; exit 0; fi\n'
        f"echo {tmp_path}\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "rivals.sh"), str(tmp_path), *names],
        capture_output=True,
        text=True,
    )
    asked = tmp_path / "asked"
    lines = asked.read_text().splitlines() if asked.exists() else []
    assert [line.split()[-1].split("==")[0] for line in lines] == installed
    assert done.returncode == status
    assert status == 0 or "none of: learn2learn higher" in done.stderr
