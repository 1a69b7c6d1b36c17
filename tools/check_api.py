"""Is every public name documented? Exit status 1 and a list where one is not.

What must be there, so that the API reference (tools/api_reference.py) answers a reader:

- a docstring of every module, public name, public method and property; for a constant,
  a comment on its line, or `#: ` above it;
- a word on every public field of a class, and, where a function, method or constructor
  takes three parameters or more, on each of them: a comment beside it, or its name in
  the docstring (of the class too). Left out are `PLAIN` names, which mean the same in
  the whole book. With one or two parameters, name and type say enough.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import griffe
from api_reference import ROOT, Module, docstring, load

#: names of the book's notation page, and PyTorch's own words
PLAIN = set(
    """
    n_way k_shot n_query n_tasks n_episodes inner_lr inner_steps outer_lr theta phi
    support query tasks examples x y mask batch params grads state lr steps loss_fn
    model encoder learner optimizer generator rng seed progress batch_size device texts
    labels classes n_classes dim temperature path folder title name metric
""".split()
)


def silent(names: list[str], *texts: str) -> str:
    "The names that no text has as a word."
    words = PLAIN | set(re.findall(r"\w+", " ".join(texts)))
    return ", ".join(n for n in names if n not in words)


def parameters(
    module: Module, where: str, function: griffe.Function, *docs: str
) -> Iterator[str]:
    names = [p.name for p in function.parameters if p.name not in ("self", "cls")]
    if len(names) >= 3 and function.lineno:  # line 0: written by `@dataclass`
        notes = module.notes(function)
        if lost := silent([n for n in names if n not in notes], *docs):
            yield f"{where}: nothing says what these parameters are: {lost}"


def undocumented(module: Module) -> Iterator[str]:
    "One line for each thing that a reader of the reference would miss."
    if not docstring(module.obj):
        yield f"{module.name}: no docstring"
    known = {n for n, m in module.obj.members.items()}
    if lost := [n for n in module.exports if n not in known]:
        yield (
            f"{module.name}: `__all__` has names that are not defined by themselves: "
            f"{', '.join(lost)}"
        )
    for name in module.names:
        obj, where = module.obj.members[name], f"{module.name}.{name}"
        doc = docstring(obj)
        if obj.is_attribute and not doc and obj.lineno not in module.comments:
            yield f"{where}: no comment on its line, or `#: ` above it"
        elif not obj.is_attribute and not doc:
            yield f"{where}: no docstring"
        if obj.is_function:
            yield from parameters(module, where, obj, doc)
        elif obj.is_class:
            yield from undocumented_members(module, obj, where, doc)


def undocumented_members(
    module: Module, cls: griffe.Class, where: str, doc: str
) -> Iterator[str]:
    fields = [
        n for n, m in module.fields(cls).items() if m.lineno not in module.comments
    ]
    if lost := silent(fields, doc):
        yield f"{where}: nothing says what these fields hold: {lost}"
    if init := module.constructor(cls):
        yield from parameters(module, where, init, doc, docstring(init))
    for key, method in module.methods(cls).items():
        if (
            not docstring(method) and key != "__call__"
        ):  # the class says what a call does
            yield f"{where}.{key}: no docstring"
        if method.is_function:
            yield from parameters(
                module, f"{where}.{key}", method, docstring(method), doc
            )


def check(root: Path = ROOT) -> list[str]:
    return [line for module in load(root) for line in undocumented(module)]


def main() -> int:
    found = check()
    print(*found, f"API documentation: {len(found)} gaps", sep="\n")
    return bool(found)


if __name__ == "__main__":
    ending.run(main)
