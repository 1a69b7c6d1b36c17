"""Arguments that can't be meant: refused at the call, by one rule for each kind.

The annotations of a function say what it takes. `check_arguments` at the end of a module
makes its public functions and constructors keep to them: another kind of value, or an
option that is not a number, is a ValueError that names the argument, and
what PyTorch says about forms that don't fit comes with the forms of the arguments.
"""

from __future__ import annotations

import dis
import functools
import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["check_arguments"]


def _is_index(value) -> bool:
    try:
        operator.index(value)
    except (TypeError, RuntimeError):
        return False
    return True


def _is_number(value) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, numbers.Real)


def _is_row(value) -> bool:
    return not isinstance(value, (str, bytes, Mapping)) and hasattr(value, "__len__")


def _named(name: str) -> Callable:
    "Is it of the class of this name, which may stand in a module above?"
    return lambda value: any(c.__name__ == name for c in type(value).__mro__)


#: annotation -> its test, and what is said
_KINDS: dict[str, tuple[Callable, str]] = {
    "Tensor": (lambda v: isinstance(v, Tensor), "a tensor"),
    "int": (_is_index, "a whole number"),
    "float": (_is_number, "a number"),
    "str": (lambda v: isinstance(v, str), "a string"),
    "bool": (lambda v: isinstance(v, (bool, np.bool_)), "True or False"),
    "None": (lambda v: v is None, "None"),
    "Module": (lambda v: isinstance(v, nn.Module), "an nn.Module"),
    "Generator": (lambda v: isinstance(v, torch.Generator), "a torch.Generator"),
    "Path": (lambda v: isinstance(v, Path), "a path"),
    "Callable": (callable, "a function"),
    "Mapping": (lambda v: isinstance(v, Mapping), "a mapping"),
    "dict": (lambda v: isinstance(v, Mapping), "a dict"),
    "Params": (lambda v: isinstance(v, Mapping), "a dict of tensors"),
    "Sequence": (_is_row, "a list"),
    "list": (_is_row, "a list"),
    "tuple": (_is_row, "a tuple"),
    "Examples": (_named("Examples"), "Examples"),
    "TaskBatch": (_named("TaskBatch"), "a TaskBatch"),
    "Evaluation": (_named("Evaluation"), "an Evaluation"),
}


def _kinds(annotation) -> list[tuple[Callable, str]]:
    "What an annotation allows; empty where it can't be told."
    if isinstance(annotation, type):
        annotation = annotation.__name__
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(annotation))  # torch.Tensor -> Tensor
    while re.search(r"\[[^\[\]]*\]", text):
        text = re.sub(r"\[[^\[\]]*\]", "", text)  # list[str] -> list
    names = [n.strip() for n in text.strip("'\"").split("|")]
    return [_KINDS[n] for n in names] if all(n in _KINDS for n in names) else []


def _shown(value) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (str, bytes, numbers.Number, type(None))):
        return f"{type(value).__name__} {value!r:.60}"
    return f"a {type(value).__name__}"


def _refuse(name: str, p: inspect.Parameter, kinds, value, where: str) -> None:
    "ValueError unless `value` is of one of the kinds."
    if value is p.default or p.default is not p.empty and value is None is p.default:
        return
    if not any(test(value) for test, _ in kinds):
        wanted = " or ".join(words for _, words in kinds)
        raise ValueError(f"{where}: {name} must be {wanted}, got {_shown(value)}")
    option = type(p.default) is float and not math.isnan(p.default)
    if option and isinstance(value, numbers.Real) and math.isnan(value):
        raise ValueError(f"{where}: {name} must be a number, got {value!r}")


def _by_accident(error: BaseException) -> bool:
    """Does it come from what the package does with the arguments, rather than from a
    `raise` that was meant, or from code of the caller?
    """
    here = str(Path(__file__).parent.parent)
    libraries = (str(Path(torch.__file__).parent), str(Path(np.__file__).parent))
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        ours = code.co_filename.startswith((here, *libraries))
        if not ours and not code.co_filename.startswith("<"):
            return False
        last, frame = frame, frame.tb_next
    opcode = last.tb_frame.f_code.co_code[last.tb_lasti]
    meant = dis.opname[opcode] in ("RAISE_VARARGS", "RERAISE")
    return not (meant and code.co_filename.startswith(here))


def _checked(fn: Callable, where: str) -> Callable:
    "`fn`, which looks at its arguments first; itself where there is nothing to look at."
    parameters = inspect.signature(fn).parameters
    order = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY,
             p.POSITIONAL_OR_KEYWORD)]  # fmt: skip
    rules = {
        n: (p, kinds)
        for n, p in parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and (kinds := _kinds(p.annotation))
    }
    if not rules:
        return fn

    @functools.wraps(fn)
    def checked(*args, **kwargs):
        for name, value in (*zip(order, args), *kwargs.items()):
            if name in rules:
                _refuse(name, *rules[name], value, where)
        try:
            return fn(*args, **kwargs)
        except (RuntimeError, TypeError, IndexError, AttributeError, KeyError) as error:
            if "memory" in str(error) or error.__traceback__.tb_next is None:
                raise  # the call itself, or no room
            if not _by_accident(error):
                raise
            text = str(error).strip().split("\n")[0]
            given = (*zip(order, args), *kwargs.items())
            forms = ", ".join(f"{n}: {_shown(v)}" for n, v in given if n != "self")
            raise ValueError(
                f"{where} does not take inputs of this form: {forms}. "
                f"Python says: {type(error).__name__}: {text}"
            ) from error

    return checked


def check_arguments(module: dict, leave: tuple[str, ...] = ()) -> None:
    """Let the public functions and constructors of a module check their arguments by
    their annotations.

    module: its `globals()`, when all stands. leave: names that stay as they are.
    """
    new, own = {}, module["__name__"]
    for name, value in list(module.items()):
        public = not name.startswith("_") and name not in leave
        if not public or getattr(value, "__module__", None) != own:
            continue
        if inspect.isfunction(value):
            new[value] = module[name] = _checked(value, name)
        elif inspect.isclass(value) and inspect.isfunction(vars(value).get("__init__")):
            value.__init__ = _checked(value.__init__, name)
    # a default that is one of these functions is the checked one too
    for value in list(module.values()):
        parts = vars(value).values() if inspect.isclass(value) else [value]
        if getattr(value, "__module__", None) != own:
            continue
        for fn in [inspect.unwrap(f) for f in parts if inspect.isfunction(f)]:
            swap = lambda v: new.get(v, v) if inspect.isfunction(v) else v  # noqa: E731
            fn.__defaults__ = fn.__defaults__ and tuple(map(swap, fn.__defaults__))
            if fn.__kwdefaults__:
                fn.__kwdefaults__ = {k: swap(v) for k, v in fn.__kwdefaults__.items()}
