"""Every public callable, at least 20 seeded odd inputs each: the answer is right, or a
clear error of the package's own. What is odd, and what is clear: tests/odd_inputs."""

import importlib
import os
import pkgutil
from collections import Counter

import odd_inputs
import pytest
import torch
from odd_inputs import answer_to_valid, judge, odd_calls, public_callables, warm_up

#: the share of all calls, at most, that have a value of another Python type and get
#: Python's own TypeError or AttributeError: 3,700 of the first 10,460
IN_PYTHONS_WORDS = 3700 / 10_460
#: the parts whose callables are tried; a module of recipes adds its own (`PARTS`)
PARTS: tuple[str, ...] = ()
RECIPES: dict = {}
#: public and not tried: name -> why
REASONS: dict[str, str] = {}
#: calls whose odd answer is right: (callable, argument) -> why
EXCEPTIONS: dict[tuple[str, str], str] = {}

for _m in pkgutil.iter_modules(odd_inputs.__path__):
    _module = importlib.import_module(f"odd_inputs.{_m.name}")
    PARTS += getattr(_module, "PARTS", ())
    RECIPES |= getattr(_module, "RECIPES", {})
    REASONS |= getattr(_module, "REASONS", {})
    EXCEPTIONS |= getattr(_module, "EXCEPTIONS", {})

PUBLIC = public_callables(PARTS)
MODULES = sorted({key.rpartition(".")[0] for key in PUBLIC})
COUNTS: Counter = Counter()


@pytest.fixture(autouse=True, scope="module")
def ready():
    "One thread: the second that a call may compute is counted over all of them."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warm_up()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch, tmp_path):
    "No data, no network, and nothing is written into a cache."
    for name in ("METALEARN_DATA", "METALEARN_ENCODERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def test_every_public_callable_is_here():
    listed = set(RECIPES) | set(REASONS)
    missing = sorted(set(PUBLIC) - listed)
    assert not missing, f"no recipe in tests/odd_inputs for {', '.join(missing)}"
    for table in (RECIPES, REASONS, {k: 0 for k, _ in EXCEPTIONS}):
        assert not set(table) - set(PUBLIC), f"not public: {set(table) - set(PUBLIC)}"
    assert len(EXCEPTIONS) + len(REASONS) <= 10


@pytest.mark.parametrize("module", MODULES)
def test_odd_inputs(module):
    wrong = []
    for key in [k for k in PUBLIC if k.rpartition(".")[0] == module and k in RECIPES]:
        answer_to_valid(PUBLIC[key], RECIPES[key])
        calls, bad = list(odd_calls(key, RECIPES[key])), []
        assert len(calls) >= 20, key
        for call in calls:
            if (key, call.name) in EXCEPTIONS:
                continue
            verdict, why = judge(PUBLIC[key], RECIPES[key], call)
            COUNTS[verdict] += 1
            if verdict not in ("error", "fine", "python"):
                bad.append(f"{verdict} {key}({call}): {why}")
        wrong += bad
    assert not wrong, "\n".join(wrong)


def test_how_many_there_are():
    "Runs last."
    if os.environ.get("PYTEST_XDIST_WORKER") or not COUNTS:
        pytest.skip("the calls were made elsewhere")
    print(dict(COUNTS))
    assert COUNTS.total() >= 5000
    assert COUNTS["python"] <= IN_PYTHONS_WORDS * COUNTS.total()
