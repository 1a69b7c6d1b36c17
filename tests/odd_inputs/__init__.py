"""Odd inputs for every public callable: what is odd, by kind of argument, and what is a
good answer to it. The recipes (valid arguments for each callable) are in the modules
beside this one; `tests/test_odd_inputs.py` runs them.

What comes of a call, one word each (`judge`):

- `fine`: an answer, finite where the arguments were finite, to something that can be
  meant;
- `error`: a `raise` of the package that tells what was given, or Python's own TypeError
  about the call (an argument that is missing, unknown, one too many);
- `python`: a value of another *Python type* than the argument takes (a string for a
  tensor, a list or 2.5 for a whole number), and Python's own TypeError, which names
  both types, or an AttributeError in a line of the package; or an OSError that holds
  the path. The annotations say what an argument takes, so this passes; how many there
  are is counted, and may only fall;
- `unclear`: any other error (of PyTorch about a shape, IndexError, KeyError, ...),
  an error below the package, one that does not tell what was given, a call that hangs;
- `nan`: not a number, or infinite, from finite arguments;
- `silent`: an answer to what can't be meant.

The last three fail."""

from __future__ import annotations


import contextlib
import dataclasses
import dis
import functools
import importlib
import inspect
import io
import math
import numbers as numbers_
import pkgutil
import random
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import metalearn_book
from metalearn_book.foundations.tasks import Examples, TaskBatch

ROOT = str(Path(metalearn_book.__file__).parent)


def warm_up() -> None:
    "Import what PyTorch and transformers import late: not while a clock is running."
    import matplotlib.pyplot

    from metalearn_book.foundations.encoders import load_encoder

    importlib.import_module("torch._dynamo")  # by a checkpoint; takes seconds
    matplotlib.pyplot.get_fignums()
    weights = nn.Linear(2, 2)
    weights(torch.zeros(1, 2)).sum().backward()
    torch.optim.AdamW(weights.parameters()).step()
    (torch.zeros(3, device="meta") - 1).abs().max()
    load_encoder("tiny").encode(["a"])


@dataclasses.dataclass
class Recipe:
    """Valid arguments of a public callable.

    make: gives them by name, fresh each time; `*` holds positional ones.
    use: what is done with the answer (a learner is made, then adapts); its result is
    judged. fails: the class of the error that is the right answer to the valid
    arguments too (a folder that holds nothing). kinds: the kind of an argument (a key
    of `ODD`) whose value doesn't tell;
    "leave" for one that stays as it is. infinite: infinity is a right answer.
    """

    make: Callable[[], dict]
    use: Callable | None = None
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    infinite: bool = False
    fails: type[Exception] | None = None


# --- which callables -----------------------------------------------------------------


def public_callables(parts: tuple[str, ...]) -> dict[str, Callable]:
    "`module.name` -> each callable in `__all__` of the modules of these parts."
    found = {}
    for part in parts:
        package = importlib.import_module(f"metalearn_book.{part}")
        modules = pkgutil.iter_modules(getattr(package, "__path__", []))
        names = [f"{package.__name__}.{m.name}" for m in modules]
        for name in [package.__name__, *names]:
            module = importlib.import_module(name)
            for key in getattr(module, "__all__", ()):
                value = getattr(module, key)
                # of a package: only what is its own
                if _is_called(value) and getattr(value, "__module__", name) == name:
                    found[f"{name.removeprefix('metalearn_book.')}.{key}"] = value
    return found


def _is_called(value) -> bool:
    "Exceptions are raised, not called; a type such as `Callable[...]` is neither."
    kind = inspect.isclass(value) and not issubclass(value, BaseException)
    return kind or inspect.isroutine(value) or isinstance(value, functools.partial)


# --- what is odd, by kind of argument ------------------------------------------------

NOTHING = [None, [], {}, (), object(), b"x", 1j]
ODD = {
    "whole": [-1, 0, -7, 2.5, math.nan, math.inf, "3", [2], True, torch.tensor(-1),
              torch.tensor([1, 2]), np.int64(-2), np.float32(1.5), *NOTHING],
    "rate": [math.nan, math.inf, -math.inf, -1.0, -1e-9, 0.0, 1.0, 2.0, 1e30, 1e-30,
             "0.1", [0.1, 0.2], True, torch.tensor(math.nan), torch.tensor([0.1, 0.2]),
             np.float32("nan"), *NOTHING],
    "choice": ["nonsense", "", " ", "MEAN", 3, -1, 2.5, math.nan, True, ["mean"],
               b"mean", ("a", "b"), *NOTHING],
    "switch": ["False", "yes", 2, -1, math.nan, [True], torch.tensor([True, False]),
               *NOTHING],
    "text": ["", " ", "\n", "\u200b", "é\u0301 日本 🙂", "\ud800", "a" * 300, "\0", 3,
             math.nan, ["a"], True, *NOTHING],
    # a small number would be an open file of the tests
    "path": ["", "\0", "/nowhere/at/all", ".", 987_654, math.nan, ["a"], 2.5,
             Path("/nowhere/at/all"), Path("/"), Path("a" * 300), Path("\0"), *NOTHING],
    "texts": ["a text", [""], [" "], ["a", 3], ["a", None], [["a"]], [b"a"], ["\0"],
              np.array(["a", "b"]), {"a": 1}, ("a", "b"), 5, math.nan, ["🙂", "日本"],
              np.zeros((2, 2)), torch.zeros(2), iter(["a", "b"]), {"a", "b"},
              ["\ud800", "b"], *NOTHING],
    "callable": ["nonsense", 3, math.nan, lambda: None, lambda *a, **k: None,
                 lambda *a, **k: "text", lambda *a, **k: torch.tensor(math.nan),
                 lambda *a, **k: torch.zeros(0), lambda x, *a, **k: x, print, [],
                 nn.Linear, True, nn.Linear(99, 2), *NOTHING],
    "generator": [0, "seed", torch.Generator, math.nan, [1], True,
                  np.random.default_rng(0), random.Random(0), *NOTHING],
    "thing": ["nonsense", 3, -1, math.nan, True, [1, 2], torch.zeros(2),
              torch.zeros(2, 3, 4), np.zeros(3), lambda *a, **k: None, nn.Linear(2, 3),
              {"x": torch.zeros(2)}, int, *NOTHING],
}  # fmt: skip
#: a silent answer to these can't be right: it would be a number for no question
NEVER = {
    "whole": (2.5, math.nan, "3", [2], torch.tensor([1, 2]), b"x", 1j),
    "rate": (math.nan, "0.1", b"x", 1j),
    "choice": ("nonsense", "MEAN", " ", ["mean"]),
    "texts": ("a text", ["a", 3], ["a", None]),
}


def odd_tensors(t: Tensor, rng: random.Random) -> list:
    "Odd values in the place of tensor `t`: other forms, types and contents."
    labels = not t.is_floating_point()
    wide = torch.cat([t, t], -1) if t.dim() else t[None]
    out = [t[None], t[..., :0] if t.dim() else t[None][:0], t[:0] if t.dim() else t,
           t.flatten()[0] if t.numel() else t, t.flatten(), wide, t[..., None],
           t.tolist(), t.numpy(force=True), t.to(torch.complex64), t.bool(),
           t.long() if not labels else t.float(), t.half(), t.double(), "nonsense",
           3, math.nan, t.to("meta"), {"x": t}, *NOTHING]  # fmt: skip
    if t.dim() > 1:
        out += [t[0], t[:, :1], t.transpose(-1, -2), t[:1], t[..., :1]]
    if t.dtype == torch.bool:
        return [*out, torch.zeros_like(t), ~t]
    if labels:
        return [*out, t - 1, t + 7, torch.zeros_like(t), -t - 100, t * 1000, t.int(),
                torch.full_like(t, 2**40) if t.dtype == torch.int64 else t]  # fmt: skip
    out += [torch.zeros_like(t), t * 1e6, t * 1e-30, -t, torch.ones_like(t)]
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = t.detach().clone()
        if spoilt.numel():
            spoilt.view(-1)[rng.randrange(spoilt.numel())] = bad
        out.append(spoilt)
    return out


def odd_examples(e: Examples, rng: random.Random) -> list:
    "Odd labelled examples (those that can be made at all)."
    out = [e.x, e.y, (e.x, e.y), {"x": e.x, "y": e.y}, e[:1], "nonsense", 3, *NOTHING]
    for part in ("x", "y"):
        value = getattr(e, part)
        if isinstance(value, Tensor):
            for odd in odd_tensors(value, rng):
                with contextlib.suppress(Exception):
                    out.append(dataclasses.replace(e, **{part: odd}))
    for mask in (torch.ones(e.y.shape[:2], dtype=torch.bool),
                 torch.arange(e.n_items).expand(e.n_tasks, -1) < 1):  # fmt: skip
        with contextlib.suppress(Exception):
            out.append(dataclasses.replace(e, mask=mask))
    return out


def odd_batches(b: TaskBatch, rng: random.Random) -> list:
    "Odd batches of tasks."
    out = [b.support, b.query, (b.support, b.query), b[:1], "nonsense", 3, *NOTHING]
    for part in ("support", "query"):
        for odd in odd_examples(getattr(b, part), rng):
            with contextlib.suppress(Exception):
                out.append(dataclasses.replace(b, **{part: odd}))
    return out


def kind_of(value) -> str:
    "The kind of a valid argument, by its type."
    if isinstance(value, (bool, np.bool_)):
        return "switch"
    if isinstance(value, (int, np.integer)):
        return "whole"
    if isinstance(value, (float, np.floating)):
        return "rate"
    if isinstance(value, Path):
        return "path"
    if isinstance(value, str):
        return "choice"
    if isinstance(value, torch.Generator):
        return "generator"
    if isinstance(value, (list, tuple)):
        text = value and all(isinstance(v, str) for v in value)
        return "texts" if text else "sequence"
    if inspect.isroutine(value):
        return "callable"
    return "thing"


def odd_values(value, kind: str | None, rng: random.Random) -> list:
    "Odd values in the place of a valid `value`."
    if kind is None and isinstance(value, TaskBatch):
        return odd_batches(value, rng)
    if kind is None and isinstance(value, Examples):
        return odd_examples(value, rng)
    if kind is None and isinstance(value, Tensor):
        return odd_tensors(value, rng)
    if (kind or kind_of(value)) == "sequence":
        whole = list(value)
        out = [whole[:0], whole[:1], whole * 2, whole[::-1], [*whole, None],
               iter(whole),
               [*whole, "x"], [math.nan] * len(whole), "nonsense", 3, math.nan,
               {i: v for i, v in enumerate(whole)}, [whole], -1, *NOTHING]  # fmt: skip
        return out
    if kind is None and isinstance(value, Mapping):
        some = dict(list(value.items())[1:])
        out = [some, {**value, "other": 1}, dict.fromkeys(value), list(value), {1: 2},
               dict.fromkeys(value, math.nan), "nonsense", 3, *NOTHING]  # fmt: skip
        for k, v in value.items():
            if isinstance(v, Tensor):
                out += [{**value, k: odd} for odd in odd_tensors(v, rng)]
        return out
    return ODD[kind or kind_of(value)]


def same_value(a, b) -> bool:
    with contextlib.suppress(Exception):
        if type(a) is not type(b):
            return False
        if isinstance(a, float) and math.isnan(a):
            return math.isnan(b)
        return bool((a == b).all()) if isinstance(a, Tensor) else a == b
    return False


@dataclasses.dataclass
class Call:
    "One odd call: the arguments, which of them is odd, and of which kind it is."

    arguments: dict
    name: str
    kind: str
    value: object
    another_type: bool = False

    def __str__(self):
        if isinstance(self.value, Tensor):
            return f"{self.name}=tensor{tuple(self.value.shape)} {self.value.dtype}"
        return f"{self.name}={_short(self.value)}"


def _short(value) -> str:
    try:
        return " ".join(repr(value).split())[:60]
    except Exception:
        return type(value).__name__


def odd_calls(key: str, recipe: Recipe, most: int = 20) -> Iterator[Call]:
    """Seeded odd calls of a recipe: one argument odd, one left out, one too many; when
    there are few of these, two odd arguments at once. At most `most`.
    """
    rng = random.Random(key)
    valid = recipe.make()
    names = [n for n in valid if recipe.kinds.get(n) != "leave"]
    values = {n: odd_values(valid[n], recipe.kinds.get(n), rng) for n in names}
    plan = [(n, i) for n in names for i in range(len(values[n]))]
    rng.shuffle(plan)
    # one of each argument in turn
    turn = {n: 0 for n in names}
    rank = {}
    for n, i in plan:
        rank[n, i] = turn[n]
        turn[n] += 1
    plan.sort(key=lambda p: rank[p])
    plan = plan[: most - 2]
    for n, i in plan:
        arguments = recipe.make()
        odd = odd_values(arguments[n], recipe.kinds.get(n), random.Random(key))[i]
        kind = recipe.kinds.get(n) or (
            "tensor" if isinstance(arguments[n], Tensor) else kind_of(arguments[n])
        )
        other = another_type(valid[n], odd)
        yield Call({**arguments, n: odd}, n, kind, odd, other)
    yield Call({**recipe.make(), "no_such_option": 1}, "no_such_option", "extra", 1)
    if names:
        arguments = recipe.make()
        arguments.pop(names[0])
        yield Call(arguments, names[0], "missing", None)
    for _ in range(max(0, 20 - len(plan) - 1 - bool(names))):
        arguments, name, other = recipe.make(), "nothing", False
        for name in rng.sample(names, min(2, len(names))):
            odd = odd_values(arguments[name], recipe.kinds.get(name), rng)
            arguments[name] = rng.choice(odd)
            other = other or another_type(valid[name], arguments[name])
        yield Call(arguments, name, "two", arguments.get(name), other)


# --- the judge -----------------------------------------------------------------------


def numbers(value, depth: int = 0) -> Iterator[Tensor]:
    "All tensors of floating-point numbers in a value."
    if depth > 4 or isinstance(value, (str, bytes, int)) or value is None:
        return
    if isinstance(value, (float, np.floating)):
        yield torch.tensor(float(value), dtype=torch.float64)
    elif isinstance(value, Tensor):
        if value.is_floating_point() and not value.is_meta and not value.is_sparse:
            yield value.detach()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield torch.as_tensor(np.ascontiguousarray(value))
    elif isinstance(value, nn.Module):
        yield from (p.detach() for p in value.parameters() if p.is_floating_point())
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from numbers(v, depth + 1)
    elif isinstance(value, (list, tuple, set)):
        for v in list(value)[:50]:
            yield from numbers(v, depth + 1)
    elif dataclasses.is_dataclass(value) and not inspect.isclass(value):
        for f in dataclasses.fields(value):
            yield from numbers(getattr(value, f.name, None), depth + 1)


def finite(value, most: float = math.inf) -> bool:
    "Only numbers, and none of `most` or more (whose squares may be infinite)."
    with contextlib.suppress(Exception):
        return all(bool((t.abs() < most).all()) for t in numbers(value))
    return True


_RAISE = dis.opmap["RAISE_VARARGS"]


def own_error(error: BaseException) -> bool:
    """Was it raised on purpose: by a `raise` of the package, or by Python because an
    argument of the call itself is missing, unknown or one too many?
    """
    frame = error.__traceback__
    depth = 0
    while frame.tb_next is not None:
        frame, depth = frame.tb_next, depth + 1
    path = frame.tb_frame.f_code.co_filename
    if path.startswith(ROOT):
        code, at = frame.tb_frame.f_code.co_code, frame.tb_lasti
        return code[at] == _RAISE or _at_the_call(error)
    return not path.startswith("<") and depth == 1 and _at_the_call(error)


def in_pythons_words(error: BaseException, call: Call) -> bool:
    "Another Python type than the argument takes, refused in a line of the package?"
    frame = error.__traceback__
    while frame.tb_next is not None:
        if frame.tb_next.tb_frame.f_code.co_name == "__getattr__":
            break  # a module's own, in place of Python's
        frame = frame.tb_next
    path = frame.tb_frame.f_code.co_filename
    if isinstance(error, OSError) and error.filename:
        return True
    if "is ambiguous" in str(error):  # several numbers where there is room for one
        return call.another_type
    at_home = isinstance(error, AttributeError) and path.startswith(ROOT)
    return call.another_type and (at_home or isinstance(error, TypeError))


def family(value) -> str:
    "The Python type of a value, as far as the difference matters."
    kinds = {
        "text": (str,),
        "number": (numbers_.Number, np.generic),
        "tensor": (Tensor,),
        "array": (np.ndarray,),
        "path": (Path,),
        "mapping": (Mapping,),
        "row": (list, tuple, range),
        "module": (nn.Module,),
    }
    for name, types in kinds.items():
        if isinstance(value, types):
            return name
    return "function" if inspect.isroutine(value) else type(value).__name__


def another_type(valid, odd) -> bool:
    "Is `odd` of another Python type than `valid`, itself or in what it holds?"
    if family(valid) != family(odd):
        return True
    if family(valid) == "module":
        return not isinstance(odd, type(valid))
    if family(valid) == "number":
        whole = isinstance(valid, int) and not isinstance(odd, (int, np.integer))
        return whole or isinstance(odd, complex)
    if family(valid) == "row" and len(valid) and len(odd):
        return any(all(another_type(v, o) for v in valid[:3]) for o in odd)
    if family(valid) == "mapping":
        keys = {family(k) for k in odd} - {family(k) for k in valid}
        values = (another_type(valid[k], v) for k, v in odd.items() if k in valid)
        return bool(keys) or any(values)
    return False


def _at_the_call(error) -> bool:
    words = ("required positional", "unexpected keyword", "required keyword",
             "positional argument", "multiple values for",
             "takes no arguments")  # fmt: skip
    return isinstance(error, TypeError) and any(w in str(error) for w in words)


def says(error, call: Call) -> bool:
    """Does the message tell what was given: the argument, its type, the value, another
    name in quotes, or a number?
    """
    text, value = str(error).lower(), call.value
    hints = [*call.name.split("_"), type(value).__name__, "got", "given", "shape"]
    hints.append(_short(value)[:15])
    if isinstance(value, (str, Path)) and str(value).strip():
        hints.append(str(value))
    if isinstance(value, Tensor):
        hints += [str(tuple(value.shape)), str(value.dtype)]
    told = any(re.search(rf"(?<!\w){re.escape(h.lower())}(?!\w)", text) for h in hints)
    return len(text) > 15 and (told or bool(re.search(r"'[^']+'|\d", text)))


class Hangs(Exception):
    pass


def _too_long(*_):
    raise Hangs("no answer in a second of computing")


def judge(fn: Callable, recipe: Recipe, call: Call) -> tuple[str, str]:
    "What comes of a call, in a word of the above; with the details."
    arguments = dict(call.arguments)
    clean = finite(call.arguments, 1e15)
    positional = arguments.pop("*", ())
    old = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, 1)
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            answer = _call(fn, recipe, positional, arguments)
    except Exception as error:
        where = error.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        text = f"{type(error).__name__} at {place}: {str(error)[:110]!r}"
        if isinstance(error, (KeyboardInterrupt, MemoryError, AssertionError, Hangs)):
            return "unclear", text
        if call.kind in ("extra", "missing") and _at_the_call(error):
            return "error", text
        if recipe.fails and isinstance(error, recipe.fails) and own_error(error):
            return "error", text
        if not own_error(error):
            return ("python" if in_pythons_words(error, call) else "unclear"), text
        return (
            "error" if _at_the_call(error) or says(error, call) else "unclear"
        ), text
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    if clean and not recipe.infinite and not finite(answer):
        return "nan", f"-> {_short(answer)}"
    if any(same_value(call.value, bad) for bad in NEVER.get(call.kind, ())):
        return "silent", f"-> {_short(answer)}"
    return "fine", ""


def answer_to_valid(fn: Callable, recipe: Recipe) -> None:
    "A recipe must be valid: its own call is answered, with finite numbers."
    arguments = recipe.make()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            answer = _call(fn, recipe, arguments.pop("*", ()), arguments)
        except Exception as error:
            if recipe.fails is None or not isinstance(error, recipe.fails):
                raise
            assert own_error(error), error
            return
    assert recipe.fails is None
    assert recipe.infinite or finite(answer), "not a number from valid arguments"


def _call(fn, recipe, positional, arguments):
    answer = fn(*positional, **arguments)
    if inspect.isgenerator(answer):
        answer = [v for _, v in zip(range(20), answer)]
    elif hasattr(answer, "__enter__") and not isinstance(
        answer, (nn.Module, io.IOBase)
    ):
        with answer as inside:
            return inside
    return answer if recipe.use is None else recipe.use(answer)
