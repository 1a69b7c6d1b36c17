"""Every public callable, at least 20 seeded odd inputs each: the answer is right, or a
clear error of the package's own. Recipes: `tests/odd_inputs/`."""

import importlib
import pkgutil
from collections import Counter

import odd_inputs
import pytest
from odd_inputs import answer_to_valid, judge, odd_calls, public_callables

#: the parts whose callables are tried; a module of recipes adds its own (`PARTS`)
PARTS: tuple[str, ...] = ()
RECIPES: dict = {}
#: public, but not called by hand: name -> why there is no recipe
REASONS: dict[str, str] = {}
#: at most ten calls whose odd answer is right: (callable, argument) -> why
EXCEPTIONS: dict[tuple[str, str], str] = {}
#: what is not good yet, by module: these numbers may only fall
BUDGET: dict[str, int] = {}

for _m in pkgutil.iter_modules(odd_inputs.__path__):
    _module = importlib.import_module(f"odd_inputs.{_m.name}")
    PARTS += _module.PARTS
    RECIPES |= _module.RECIPES
    REASONS |= _module.REASONS
    EXCEPTIONS |= _module.EXCEPTIONS
    BUDGET |= _module.BUDGET

PUBLIC = public_callables(PARTS)
MODULES = sorted({key.rpartition(".")[0] for key in PUBLIC})
COUNTS: Counter = Counter()


def test_every_public_callable_has_a_recipe_or_a_reason():
    missing = sorted(set(PUBLIC) - set(RECIPES) - set(REASONS))
    assert not missing, f"no recipe in tests/odd_inputs for {', '.join(missing)}"
    for table in (RECIPES, REASONS, dict(EXCEPTIONS)):
        names = {k if isinstance(k, str) else k[0] for k in table}
        assert not names - set(PUBLIC), f"not public: {sorted(names - set(PUBLIC))}"
    assert len(EXCEPTIONS) <= 10


@pytest.mark.parametrize("module", MODULES)
def test_odd_inputs(module):
    bad = []
    for key in [k for k in PUBLIC if k.rpartition(".")[0] == module and k in RECIPES]:
        answer_to_valid(PUBLIC[key], RECIPES[key])
        calls = list(odd_calls(key, RECIPES[key]))
        assert len(calls) >= 20, key
        for call in calls:
            if (key, call.name) in EXCEPTIONS:
                continue
            verdict, why = judge(PUBLIC[key], RECIPES[key], call)
            COUNTS[verdict] += 1
            COUNTS[f"{module}:{verdict}"] += 1
            if verdict not in ("error", "fine"):
                bad.append(f"{verdict} {key}({call}): {why}")
    allowed = BUDGET.get(module, 0)
    assert len(bad) <= allowed, f"{len(bad)} > {allowed}:\n" + "\n".join(bad)


def test_there_are_many():
    "Runs last."
    assert sum(v for k, v in COUNTS.items() if ":" not in k) >= 5000, COUNTS
