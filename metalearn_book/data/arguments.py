"""What an argument may be. One place refuses numbers, choices and tensors that mean
nothing where they stand: with the name, what was given, and what is allowed.

Each function returns what it has checked, as Python's own type, so that NumPy's numbers
and tensors of one number are taken where they mean the same:

    n_way = whole("n_way", n_way, least=2)
    inner_lr = real("inner_lr", inner_lr, above=0)
    order = choice("order", order, ("first", "second"))
    sizes = shapes(logits=(logits, "B S C"), y=(y, "B S"), mask=(mask, "B S"))
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "whole",
    "real",
    "low_high",
    "choice",
    "switch",
    "function",
    "several",
    "shapes",
    "floating",
]


def _is_tensor(value) -> bool:
    "Without importing torch: nobody who has not imported it holds a tensor."
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def shown(value) -> str:
    "A value as a message names it: short, tensors by shape and type."
    if (_is_tensor(value) or isinstance(value, np.ndarray)) and value.ndim:
        return f"{type(value).__name__} {tuple(value.shape)} of {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:50]}... ({type(value).__name__})"


def whole(name: str, value, least: int | None = 1, most: int | None = None) -> int:
    """A whole number as Python's int; NumPy's and tensors of one number too.

    name: of the argument, for the message. value: what was given. least, most: the
    bounds, None for none.
    ValueError for anything else, True, False and 2.0 among it."""
    number = None
    if not isinstance(value, (bool, np.bool_)) and not _is_truth(value):
        try:
            number = operator.index(value)
        except (TypeError, RuntimeError):
            number = None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def real(
    name: str,
    value,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number as Python's float; NumPy's and tensors of one number too.

    value: what was given. least, most: bounds that are allowed. above, below: bounds
    that are not.
    ValueError for anything else: nan, inf, a text, True, several numbers."""
    number = math.nan
    single = isinstance(value, (numbers.Real, np.ndarray)) or (
        _is_tensor(value) and not value.is_meta and not value.is_complex()
    )
    single = single and getattr(value, "ndim", 0) == 0
    if single and not isinstance(value, (bool, np.bool_)) and not _is_truth(value):
        try:
            number = float(value.detach() if _is_tensor(value) else value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = math.nan
    bounds = [
        (least, "at least", lambda b: number >= b),
        (above, "above", lambda b: number > b),
        (most, "at most", lambda b: number <= b),
        (below, "below", lambda b: number < b),
    ]
    given = [(f"{word} {b:g}", holds(b)) for b, word, holds in bounds if b is not None]
    if math.isfinite(number) and all(holds for _, holds in given):
        return number
    words = " and ".join(word for word, _ in given)
    kind = f"a finite number {words}" if words else "a finite number"
    raise ValueError(f"{name} must be {kind}, got {shown(value)}")


def low_high(
    name: str, values, least: float | None = None, most: float | None = None
) -> tuple[float, float]:
    """Two finite numbers, the ends of a range, as Python's floats.

    values: what was given. least, most: bounds of both.
    ValueError for another number of ends, and where the first is above the second."""
    ends = several(name, values, least=2)
    if len(ends) != 2:
        raise ValueError(f"{name} must be (low, high), got {shown(values)}")
    low, high = (real(f"{name}[{i}]", end, least, most) for i, end in enumerate(ends))
    if low > high:
        raise ValueError(
            f"{name} must be (low, high) with low <= high, got {shown(values)}"
        )
    return low, high


def _is_truth(value) -> bool:
    "A truth value that a tensor or an array holds."
    return str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def choice(name: str, value, allowed: Collection):
    """One of a few values, of the same type. ValueError lists them.

    value: what was given. allowed: the values."""
    for one in allowed:
        if type(value) is type(one) and value == one:
            return one
    listed = ", ".join(repr(one) for one in allowed)
    raise ValueError(f"{name} must be one of {listed}, got {shown(value)}")


def switch(name: str, value) -> bool:
    "True or False, NumPy's too. ValueError for anything else, 0, 1 and texts among it."
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name} must be True or False, got {shown(value)}")


def function(name: str, value, what: str = "a function") -> Callable:
    """Something that can be called. ValueError for anything else.

    value: what was given. what: it should be, for the message."""
    if not callable(value):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value


def several(
    name: str, values, kind: type | tuple[type, ...] | None = None, least: int = 1
) -> list:
    """The items of a list, tuple, iterator, array or column, as a list.

    values: what was given. kind: what each must be, None for anything. least: how
    many, at least.
    ValueError for a text, bytes, a dict, and for items of another kind."""
    wrong = isinstance(values, (str, bytes, Mapping)) or not isinstance(
        values, Iterable
    )
    if not wrong:
        try:
            values = list(values)
        except TypeError:  # a tensor of one number
            wrong = True
    if wrong:
        raise ValueError(f"{name} must be a list, got {shown(values)}")
    if len(values) < least:
        raise ValueError(f"{name} must hold at least {least}, got {len(values)}")
    for i, value in enumerate(values):
        if kind is not None and not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(k.__name__ for k in kinds)
            raise ValueError(
                f"{name}[{i}] must be {wanted}, got {type(value).__name__} "
                f"{shown(value)}"
            )
    return values


def shapes(**tensors: tuple[Tensor | None, str]) -> dict[str, int]:
    """The sizes of the dimensions that tensors share, by letter.

    tensors: name=(tensor, form), such as logits=(logits, "B S C"): a letter names a
    size, the same letter the same size everywhere, a number that very size; "..." at
    the end stands for any further ones. An argument that is None is left out.
    ValueError for what is no tensor, has other dimensions, lies on another device
    or holds none where the form says a letter with "+" ("S+": one or more)."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    devices: dict[torch.device, str] = {}
    for name, pair in tensors.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or type(pair[1]) is not str:
            raise ValueError(f"{name} must be (tensor, form), got {shown(pair)}")
        tensor, form = pair
        if tensor is None:
            continue
        if not _is_tensor(tensor):
            raise ValueError(f"{name} must be a tensor ({form}), got {shown(tensor)}")
        letters = form.split()
        open_ended = letters[-1:] == ["..."]
        letters = letters[:-1] if open_ended else letters
        fits = tensor.ndim == len(letters) or open_ended and tensor.ndim > len(letters)
        if not fits:
            raise ValueError(
                f"{name} must have the shape ({form}), got {tuple(tensor.shape)}"
            )
        for letter, size in zip(letters, tensor.shape):
            letter, filled = letter.rstrip("+"), letter.endswith("+")
            wanted = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            if size != wanted or filled and not size:
                other = first.get(letter)
                rest = f", while {other} has {letter} = {wanted}" if other else ""
                rest = rest or (f" and {letter} = 0" if filled and not size else "")
                raise ValueError(
                    f"{name} must have the shape ({form}), got "
                    f"{tuple(tensor.shape)}{rest}"
                )
            if not letter.isdigit():
                first.setdefault(letter, name)
        devices.setdefault(tensor.device, name)
        if len(devices) > 1:
            places = " and ".join(f"{n} on {d}" for d, n in devices.items())
            raise ValueError(f"all tensors must be on one device, got {places}")
    return sizes


def floating(finite: bool = False, **tensors: Tensor | None) -> None:
    """ValueError for a tensor whose numbers are not floating-point.

    finite: and for one that holds nan or an infinity. None is left out."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not _is_tensor(tensor) or not tensor.is_floating_point():
            got = tensor.dtype if _is_tensor(tensor) else shown(tensor)
            raise ValueError(
                f"{name} must hold floating-point numbers, got {got}; use .float()"
            )
        if finite and not tensor.is_meta and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(
                f"{name} must hold finite numbers, got {bad} of {tensor.numel()} that "
                "are nan or infinite"
            )
