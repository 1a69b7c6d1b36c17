"""Every learner of the package, found by looking through it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import metalearn_book
from metalearn_book.foundations.tasks import Examples


def _public() -> Iterator[tuple[str, object]]:
    for found in pkgutil.walk_packages(metalearn_book.__path__, "metalearn_book."):
        if found.name != "metalearn_book.cli":
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if getattr(value, "__module__", "") == found.name:
                    if not name.startswith("_"):
                        yield name, value


def found_learners() -> dict:
    "Classes whose `adapt` takes `Examples` alone, and functions that return one."
    kinds, functions = {}, {}
    for name, value in _public():
        if inspect.isclass(value) and callable(getattr(value, "adapt", None)):
            first, *rest = list(inspect.signature(value.adapt).parameters.values())[1:]
            needs_more = any(p.default is p.empty for p in rest)
            if first.annotation in (Examples, "Examples") and not needs_more:
                kinds[name] = value
        elif inspect.isfunction(value):
            functions[name] = value
    for name, fn in functions.items():
        result = fn.__annotations__.get("return")
        if getattr(result, "__name__", result) in kinds:
            kinds[name] = fn
    return kinds
