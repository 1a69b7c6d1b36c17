"""A class that grows over several cells of a chapter."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable

__all__ = ["patch"]


def patch(method: Callable):
    """Give a function to the class that the annotation of its first parameter names.

    The class must stand in the same module (or notebook), above the function. The name
    of the function keeps the value that it had outside of the class (None without one).
    Decorators such as `property` stand below `@patch`. `super()` needs its two
    arguments here, since the function is written outside of the class.

    TypeError: no function, or its first parameter has no annotation that names a class.
    """
    inner = getattr(method, "fget", None) or getattr(method, "__func__", method)
    inner = inspect.unwrap(inner)  # below `@torch.no_grad()`
    if not inspect.isfunction(inner):
        raise TypeError(f"@patch needs a function, got {method!r}")
    names = inner.__code__.co_varnames[: inner.__code__.co_argcount]
    given = inner.__annotations__.get(names[0]) if names else None
    cls = inner.__globals__.get(given) if isinstance(given, str) else given
    if not isinstance(cls, type):
        raise TypeError(
            f"@patch needs a class: annotate the first parameter of {inner.__name__!r} "
            f"with a class that is defined above it, got {given!r}"
        )
    inner.__qualname__ = f"{cls.__qualname__}.{inner.__name__}"
    setattr(cls, inner.__name__, method)
    outside = getattr(builtins, inner.__name__, None)
    return inner.__globals__.get(inner.__name__, outside)
