"""What happens inside a chapter that `full.py` runs, beside its own cells.

The chapters name no device and no precision, and few of them a checkpoint. So that they
stay as they are, the kernel starts with `start()`, which stands round some functions:

- models of 100,000 weights or more go to the device as soon as they are made; smaller
  ones stay on the CPU, where their checks give what they give at book scale. Tensors
  that meet on two devices are brought together on the larger one (`Together`);
- a training by `meta_train` or `pretrain` multiplies matrices in bfloat16 where its
  first meta-gradient agrees with that of float32, and, if so asked, where it is faster;
  everything that measures stays in float32, and float64 is never touched;
- these trainings are resumed from a checkpoint that is at most half a minute old, and
  long results of the functions in `KEPT` are read again after a kill. The clock that
  the chapter sees goes on by the seconds that this saved, so that its times are right;
- tokens that models read are counted, and a small file says how far the chapter is.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import json
import math
import os
import pickle
import random
import resource
import sys
import threading
import time
import weakref
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name

#: the variable by which `full.py` tells the kernel what to do
VARIABLE = "METALEARN_FULL"
PRECISIONS = ("auto", "bf16", "float32")
#: of the true `perf_counter`; the one in `time` may go on by what a checkpoint saved
now = time.perf_counter
#: a meta-gradient in bfloat16 must point where that of float32 does, to this cosine
AGREES = 0.99
NEVER = 2**62  # steps between two checkpoints


@dataclass
class Settings:
    """What `full.py` asks for.

    device: of models. precision: of trainings. keep: folder for states; None: none.
    status: a file that says how far the chapter is. cells: of the chapter. least_steps:
    of a training that counts as one. least_weights: of a model that moves.
    save_every: seconds between two checkpoints. least_seconds: of a result that is
    kept. fitted: take the values of `FITTED`."""

    device: str = "cpu"
    precision: str = "auto"
    keep: str | None = None
    status: str | None = None
    cells: int = 0
    least_steps: int = 20
    least_weights: int = 100_000
    save_every: float = 20.0
    least_seconds: float = 2.0
    fitted: bool = False

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got "
                f"{self.precision!r}"
            )


@dataclass
class Account:
    "What a chapter has done so far."

    cell: int = 0  # that runs, from 1
    tokens: int = 0  # read by models, in all
    training: dict | None = None  # that runs: what, step, steps, seconds_left
    trainings: list = field(default_factory=list)  # that have ended
    kept: int = 0  # results and trainings that an earlier run had made
    saved_seconds: float = 0.0  # that they took then
    fitted: list = field(default_factory=list)  # [full value, what was taken]

    def peak_memory(self, device: str) -> int:
        "Bytes: of the device's tensors, or of the process where it is the CPU."
        if torch.device(device).type == "cuda" and torch.cuda.is_available():
            return torch.cuda.max_memory_allocated(device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ------------------------------------------------------------- where tensors are


def _tensors(value, depth: int = 0):
    "The tensors among the arguments of a function of torch."
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)) and depth < 4:
        for v in value:
            yield from _tensors(v, depth + 1)
    elif isinstance(value, dict) and depth < 4:
        for v in value.values():
            yield from _tensors(v, depth + 1)


def _moved(value, device: torch.device, depth: int = 0):
    "The same arguments with their tensors on a device."
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device)
    if isinstance(value, (list, tuple)) and depth < 4:
        some = [_moved(v, device, depth + 1) for v in value]
        return some if isinstance(value, list) else _like(value, some)
    if isinstance(value, dict) and depth < 4:
        return {k: _moved(v, device, depth + 1) for k, v in value.items()}
    return value


def _like(value: tuple, some: list) -> tuple:
    return type(value)(*some) if hasattr(value, "_fields") else tuple(some)


#: `a += b` is `a.__iadd__(b)`
OPERATORS = {"add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or",
             "xor", "lshift", "rshift"}  # fmt: skip


class Together(TorchFunctionMode):
    """Inside, a function of torch that fails because its tensors are on two devices is
    called again with all of them on one: that of the tensor which it changes, or
    `device`. Draws from a generator are made where the generator is, and NumPy gets
    tensors from the CPU.

    Nothing is looked at before a call has failed, so that right calls cost nothing."""

    TO_NUMPY = (Tensor.numpy, Tensor.__array__)

    def __init__(self, device: str | torch.device):
        super().__init__()
        self.device = torch.device(device)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.TO_NUMPY and args[0].device == self.device:
            args = (args[0].detach().cpu(), *args[1:])
        try:
            return func(*args, **kwargs)
        except (RuntimeError, TypeError, IndexError, ValueError):
            where = {t.device for t in _tensors((args, kwargs))}
            draws = isinstance(kwargs.get("generator"), torch.Generator)
            if len(where) < 2 and not (draws and self._elsewhere(where, kwargs)):
                raise
        if draws:
            return self._drawn(func, args, kwargs)
        changes = self._changes(func)
        target = args[0].device if changes else self.device
        rest = _moved(args[1:] if changes else args, target)
        given = (args[0], *rest) if changes else rest
        return func(*given, **_moved(kwargs, target))

    @staticmethod
    def _changes(func) -> bool:
        "Does a function change its first argument?"
        name = (resolve_name(func) or getattr(func, "__name__", "")).split(".")[-1]
        if name.startswith("__"):
            return name == "__setitem__" or name[3:-2] in OPERATORS and name[2] == "i"
        return name.endswith("_")

    @staticmethod
    def _elsewhere(where: set, kwargs: dict) -> bool:
        "Is the generator on another device than what is asked for?"
        asked = kwargs.get("device")
        where = where | ({torch.device(asked)} if asked is not None else set())
        return any(d.type != kwargs["generator"].device.type for d in where)

    def _drawn(self, func, args, kwargs):
        "The draw, made on the generator's device."
        at = kwargs["generator"].device
        if self._changes(func):
            args[0].copy_(func(args[0].to(at), *_moved(args[1:], at), **kwargs))
            return args[0]
        if "device" in kwargs:
            kwargs = kwargs | {"device": at}
        return _moved(func(*_moved(args, at), **_moved(kwargs, at)), self.device)


# ------------------------------------------------------------- tokens

#: the module that reads the tokens, by the class of the model that it is a part of
READERS = {
    "SmallGPT": "tokens",
    "GPT2Model": "wte",
    "LlamaModel": "embed_tokens",
    "BertEmbeddings": "word_embeddings",
    "InContextRegressor": "read",
}


def _all_of(x: Tensor) -> int:
    "Elements of a tensor, those of all tasks under `vmap`."
    functorch = torch._C._functorch
    while functorch.is_batchedtensor(x) or functorch.is_gradtrackingtensor(x):
        x = functorch.get_unwrapped(x)
    return x.numel()


@contextlib.contextmanager
def counting(account: Account):
    """Inside, the tokens that models read in forward passes are counted: one for each
    number that goes into a table of tokens, one for each pair of `InContextRegressor`.
    What is padding counts too: it is computed."""
    known, readers = weakref.WeakSet(), weakref.WeakSet()

    def look(module, given):
        if module not in known:
            known.add(module)
            if name := READERS.get(type(module).__name__):
                readers.add(part := getattr(module, name))
                known.add(part)
        if module in readers and given and isinstance(given[0], Tensor):
            n = _all_of(given[0])
            account.tokens += n // (1 if type(module) is nn.Embedding
                                    else module.in_features)  # fmt: skip

    def note(module, name, part):  # for models that are not called by `forward`
        if part is not None and READERS.get(type(module).__name__) == name:
            readers.add(part)
            known.add(part)

    own = nn.modules.module
    hooks = [own.register_module_forward_pre_hook(look)]
    hooks.append(own.register_module_module_registration_hook(note))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ------------------------------------------------------------- what is the same


PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: what the engine notes when it has checked itself: no number depends on it
NOTES = ("_checked", "_second_order_checked")
#: of the names with `_` of a module, those that say what it is
PARTS_OF = ("_parameters", "_buffers", "_modules")


def _mark(h, value, depth: int, seen: dict) -> None:
    "Put into a hash what a value is."
    put = lambda *texts: h.update(("|".join(map(str, texts)) + ";").encode())
    if isinstance(value, PLAIN):
        return put(type(value).__name__, repr(value))
    if type(value) in (list, tuple) and all(isinstance(v, PLAIN) for v in value):
        return put(type(value).__name__, repr(value))
    if id(value) in seen:
        return put("again", seen[id(value)][0])
    seen[id(value)] = len(seen), value  # held: its id must stay its own
    put(type(value).__module__, type(value).__qualname__)
    if hasattr(value, "_stands_round"):
        return put(value.__qualname__)
    if isinstance(value, Tensor):
        flat = value.detach().to_dense().cpu().contiguous().reshape(-1)
        put(value.dtype, tuple(value.shape), value.requires_grad)
        return h.update(flat.view(torch.uint8).numpy().tobytes())
    if isinstance(value, torch.Generator):
        return h.update(value.get_state().numpy().tobytes())
    if isinstance(value, random.Random):
        return put(value.getstate())
    if depth > 12:
        return None
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, (list, tuple)):
        inside = [("", v) for v in value]
    elif isinstance(value, (set, frozenset)):
        inside = [("", v) for v in sorted(value, key=repr)]
    elif isinstance(value, type) or hasattr(value, "__code__"):
        put(value.__qualname__)
        cells = getattr(value, "__closure__", None) or ()
        inside = [("closure", c.cell_contents) for c in cells]
        inside += [("default", d) for d in getattr(value, "__defaults__", None) or ()]
        inside.append(("of", getattr(value, "__self__", None)))
    elif isinstance(value, functools.partial):
        inside = [("", [value.func, value.args, value.keywords])]
    else:
        slots = [s for c in type(value).__mro__ for s in getattr(c, "__slots__", ())]
        inside = [(s, getattr(value, s)) for s in slots if hasattr(value, s)]
        inside += [
            (n, v)
            for n, v in getattr(value, "__dict__", {}).items()
            if n not in NOTES
            and (not isinstance(value, nn.Module) or n[:1] != "_" or n in PARTS_OF)
        ]
    for name, v in inside:
        _mark(h, name, depth + 1, seen)
        _mark(h, v, depth + 1, seen)


def mark_of(*values) -> str:
    """16 hexadecimal digits for values, weights of modules and states of generators
    among them: the same for what is the same, in this process and the next."""
    h = hashlib.sha256()
    _mark(h, values, 0, {})
    return h.hexdigest()[:16]


# ------------------------------------------------------------- checkpoints


class Timed:
    """A `Checkpoint` for `meta_train` in seconds in place of steps, which also notes
    how far the training is.

    `every` is asked for once a step: it is 1 where a checkpoint is due."""

    def __init__(
        self, path: Path, seconds: float, kernel: Kernel, what: str, steps: int, **about
    ):
        self.path, self.seconds, self.kernel = Path(path), seconds, kernel
        self.step = self.first = _step_of(self.path)
        self.steps, self.before, self.about = steps, _note_of(self.path), about
        self.tokens = kernel.account.tokens
        self.began = self.saved = now()
        kernel.account.training = {"what": what, "step": self.step, "steps": steps}

    @property
    def every(self) -> int:
        self.step += 1
        took = now() - self.began
        left = took / (self.step - self.first) * (self.steps - self.step)
        self.kernel.account.training |= {"step": self.step, "seconds_left": left}
        if now() - self.saved < self.seconds and self.step < self.steps:
            return NEVER
        self.saved = now()
        self.note()
        return 1

    def note(self) -> None:
        "Keep what the training took so far, for the clock of a later run."
        told = dict(self.about)
        told["seconds"] = self.before["seconds"] + now() - self.began
        tokens = self.kernel.account.tokens - self.tokens
        told["tokens"] = self.before["tokens"] + tokens
        _note_file(self.path).write_text(json.dumps(told), encoding="utf-8")


def _note_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.note")


def _note_of(path: Path | None) -> dict:
    "Seconds and tokens that went into a checkpoint, and its precision."
    nothing = {"seconds": 0.0, "tokens": 0}
    if path is None or not _step_of(path):
        return nothing
    try:
        return nothing | json.loads(_note_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return nothing


def _step_of(path: Path) -> int:
    "The step of a checkpoint, 0 where there is none that can be read."
    from metalearn_book.foundations.training import load_checkpoint

    try:
        state = load_checkpoint(path)
    except (OSError, RuntimeError):
        return 0
    return int(state.get("run", state).get("step", 0))


# ------------------------------------------------------------- precision


class Wide(TorchFunctionMode):
    """Inside, softmax, norms and losses get float32. Autocast does this by itself on a
    GPU; on a CPU it leaves them to bfloat16, and a loss would have three digits."""

    FUNCTIONS = {F.softmax, F.log_softmax, F.cross_entropy, F.nll_loss, F.layer_norm,
                 F.mse_loss, torch.softmax, torch.log_softmax, Tensor.softmax,
                 Tensor.log_softmax}  # fmt: skip

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.FUNCTIONS:
            up = lambda t: t.float() if t.dtype == torch.bfloat16 else t
            args = [up(a) if isinstance(a, Tensor) else a for a in args]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def in_bf16(learner: nn.Module, device: str):
    """Inside, the outer loss of a learner is computed with matrices in bfloat16 and
    returned in float32. Its weights, and what it measures by `adapt`, stay as they
    are."""
    forward, kind = learner.forward, torch.device(device).type

    def mixed(*args, **kwargs):
        wide = Wide() if kind == "cpu" else contextlib.nullcontext()
        with torch.autocast(kind, torch.bfloat16), wide:
            loss = forward(*args, **kwargs)
        return loss.float()

    learner.forward = mixed
    try:
        yield
    finally:
        del learner.forward


def gradient_of(learner: nn.Module, batch) -> Tensor:
    "The meta-gradient of a batch in one row; a parameter without one counts zero."
    params = [p for p in learner.parameters() if p.requires_grad]
    loss = learner(batch)
    found = torch.autograd.grad(loss, params, allow_unused=True)
    pairs = zip(found, params)
    rows = [torch.zeros_like(p) if g is None else g for g, p in pairs]
    return torch.cat([r.detach().double().reshape(-1) for r in rows])


def compare_precisions(learner: nn.Module, batch, device: str) -> dict:
    """The meta-gradient of a batch in both precisions: `cosine` of the angle between
    them, and `seconds` of one, {"float32": …, "bf16": …}. The learner stays as it is.

    Each is computed twice and the second time counts."""
    learner = copy.deepcopy(learner)
    gradients, seconds = {}, {}
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        for name in ("float32", "bf16"):
            with (
                in_bf16(learner, device) if name == "bf16" else contextlib.nullcontext()
            ):
                for _ in range(2):
                    torch.set_rng_state(state)
                    began = now()
                    gradients[name] = gradient_of(learner, batch).cpu()  # waits
                    seconds[name] = now() - began
    a, b = gradients.values()
    cosine = (a @ b / (a.norm() * b.norm())).item()
    return {"cosine": cosine if math.isfinite(cosine) else 0.0, "seconds": seconds}


def choose_precision(precision: str, compared: dict) -> tuple[str, str]:
    "Of a training, and why."
    cosine, seconds = compared["cosine"], compared["seconds"]
    if cosine < AGREES:
        return "float32", f"the gradients differ: cosine {cosine:.3f}"
    if precision == "auto" and seconds["bf16"] > 0.9 * seconds["float32"]:
        return "float32", "bfloat16 is not faster here"
    return "bf16", f"cosine {cosine:.5f} to float32"


# ------------------------------------------------------------- round the functions

#: results that are kept where they took long: functions that return the same for the
#: same arguments and change none of them, by the chapter that defines them ("": all)
KEPT = {
    "": (
        *("measure_groups", "measure_described", "tuned_nats", "tune_in_context"),
        *("bits_per_byte", "text_nats", "evaluate", "train_layer", "train_tokenizer"),
        *("dynamic_evaluation", "in_context_nats"),
    ),
    "12_pretraining": ("fine_tuned", "packed_size"),
    "40_low_rank": ("meta_train_linear", "pool_of"),
    "53_meta_icl": ("nats_in_front", "nats_after_steps", "spreads"),
    "55_prompts": ("asked_by_prompt",),
    "60_test_time_training": ("solver_of", "reading", "measured", "on_tripled"),
    "66_stream_starts": (
        *("EqualCompute.path", "EqualCompute.meta", "EqualCompute.at_best"),
        *("EqualCompute.bits",),
    ),
}
#: values of `scale(smoke, book, full)` that do not fit into ten minutes, by chapter:
#: (book, full) -> what is taken in place of full. `--minutes 0` takes full.
FITTED = {
    "40_low_rank": {(3, 10): 5, (4, 10): 6},  # families and starts of linear tasks
    "50_in_context": {(10_000, 100_000): 40_000, (3000, 30_000): 8000},  # steps
    "53_meta_icl": {(40, 400): 200},  # outer steps
    "60_test_time_training": {(15, 50): 30, (6, 20): 12, (8, 40): 16},  # tasks
}


def fitted_of(chapter: str) -> dict:
    "What is taken in place of full values of a chapter."
    return FITTED.get(chapter.split("/")[-1], {})


def fit(fitted: dict, book, full):
    "A value of full scale, or what is taken in its place."
    for (of_book, of_full), value in fitted.items():
        if type(book) is type(of_book) and (book, full) == (of_book, of_full):
            return value
    return full


#: rows of the first two arguments that a function gets at a time: as many as fit
PARTS = {"pool_answers": 500}
#: classes whose objects go to the device as soon as they are made
MADE = ("SmallGPT", "InContextRegressor")
#: functions that return a model, alone or first in a tuple
LOADED = ("load_language_model", "load_encoder")


EARLIER = " (an earlier run)"


class Kernel:
    "What stands round the functions of one chapter."

    def __init__(self, settings: Settings, chapter: str = ""):
        self.settings, self.chapter = settings, chapter.split("/")[-1]
        self.account, self.began = Account(), now()
        self.keep = None if settings.keep is None else Path(settings.keep)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
        self.pending: dict[str, bytes] = {}  # small results that are not written yet
        self.small: dict[str, bytes] = {}  # those of earlier runs
        self.flushed, self.batches = now(), 0
        if self.keep is not None:
            self._read_small()
        self.calls: dict[str, int] = {}  # how often the same has been asked for
        self.round: dict[int, tuple] = {}  # function -> (itself, what stands round it)
        self.moves = torch.device(settings.device).type != "cpu"

    # ---- the clock

    def skip(self, seconds: float, tokens: int) -> None:
        "What an earlier run has done takes no time now, and did then."
        self.account.kept += 1
        self.account.saved_seconds += seconds
        self.account.tokens += tokens

    def clock(self, of):
        "A clock that goes on by what was skipped."
        return functools.wraps(of)(lambda: of() + self.account.saved_seconds)

    # ---- devices

    def place(self, module):
        "A large module to the device, a small one and anything else as it is."
        inner = getattr(module, "model", module)
        if self.moves and isinstance(inner, nn.Module):
            n = sum(p.numel() for p in inner.parameters())
            if n >= self.settings.least_weights:
                inner.to(self.settings.device)
        return module

    def loaded(self, load):
        @functools.wraps(load)
        def call(*args, **kwargs):
            found = load(*args, **kwargs)
            self.place(found[0] if isinstance(found, tuple) else found)
            return found

        return call

    def made(self, kind: type) -> None:
        "Let the objects of a class go to the device."
        make = kind.__init__

        @functools.wraps(make)
        def init(module, *args, **kwargs):
            make(module, *args, **kwargs)
            if type(module) is kind:
                self.place(module)

        kind.__init__ = init

    def scaled(self, scale):
        "Round `scale`: values that fit into the time."
        fitted = fitted_of(self.chapter) if self.settings.fitted else {}

        @functools.wraps(scale)
        def call(smoke, book, full):
            found = fit(fitted, book, full)
            if found is not full and os.environ.get("METALEARN_SCALE") == "full":
                self.account.fitted.append([full, found])
            return scale(smoke, book, found)

        return call

    def in_parts(self, function, rows: int):
        "A function of rows, some at a time."

        @functools.wraps(function)
        def call(x, y, *args, **kwargs):
            if not isinstance(x, Tensor) or not x.dim() or len(x) <= rows:
                return function(x, y, *args, **kwargs)
            if self.moves:
                x, y, args, kwargs = _moved(
                    [x, y, args, kwargs], torch.device(self.settings.device)
                )
            pairs = zip(x.split(rows), y.split(rows))
            return torch.cat([function(a, b, *args, **kwargs) for a, b in pairs])

        return call

    # ---- results

    def path(self, name: str, *about) -> Path | None:
        "Where the state of this call is kept: the n-th one of the same."
        if self.keep is None:
            return None
        try:
            mark = mark_of(name, torch.get_rng_state(), *about)
        except Exception:  # of values that can't be read; the call says what is wrong
            return None
        self.calls[mark] = self.calls.get(mark, 0) + 1
        return self.keep / f"{name}-{mark}-{self.calls[mark]}"

    def kept(self, name: str, function):
        "A function whose long results are read again after a kill."

        @functools.wraps(function)
        def call(*args, **kwargs):
            draws = [*args, *kwargs.values()]
            if any(isinstance(v, (torch.Generator, random.Random)) for v in draws):
                return function(*args, **kwargs)  # they would have to go on
            path = self.path(name, args, kwargs)
            if path is not None and (found := self.read(path)) is not None:
                return found["value"]
            began, before = now(), self.account.saved_seconds
            tokens = self.account.tokens
            value = function(*args, **kwargs)
            seconds = now() - began + self.account.saved_seconds - before
            if path is not None and seconds >= self.settings.least_seconds / 100:
                took = {"seconds": seconds, "tokens": self.account.tokens - tokens}
                self.write(path, {"value": value, **took})
            return value

        return call

    def write(self, path: Path, state: dict) -> None:
        """A result, sealed: a long one at once, others together when a checkpoint is
        due. One that can't be written is computed again."""
        from metalearn_book.data.files import write_sealed

        content = io.BytesIO()
        try:
            torch.save(state | {"torch": torch.get_rng_state()}, content)
        except (pickle.PicklingError, AttributeError, TypeError):
            return
        if state["seconds"] >= self.settings.least_seconds:
            return write_sealed(path, content.getvalue())
        self.pending[path.name] = content.getvalue()
        if now() - self.flushed >= self.settings.save_every:
            self.flush()

    def flush(self) -> None:
        "Write the small results that have come together."
        from metalearn_book.data.files import write_sealed

        if self.pending:
            self.batches += 1
            name = f"small-{self.batches}"
            write_sealed(self.keep / name, pickle.dumps(self.pending))
        self.pending, self.flushed = {}, now()

    def _read_small(self) -> None:
        for path in sorted(self.keep.glob("small-*")):
            self.batches = max(self.batches, int(path.name.split("-")[1]))
            if (content := self._sealed(path)) is not None:
                self.small |= pickle.loads(content)  # written by `flush`

    def _sealed(self, path: Path) -> bytes | None:
        "The content of a file; None where there is none, or a damaged one."
        from metalearn_book.data.files import read_sealed

        try:
            return read_sealed(path, "kept result", "It is computed again")
        except (FileNotFoundError, RuntimeError):
            return None

    def read(self, path: Path) -> dict | None:
        "A result of an earlier run of this chapter, and the random state after it."
        content = self.small.pop(path.name, None) or self._sealed(path)
        if content is None:
            return None
        # written by `write`, in the folder of this chapter
        state = torch.load(io.BytesIO(content), weights_only=False)
        torch.set_rng_state(state["torch"])
        self.skip(state["seconds"], state["tokens"])
        return state

    # ---- trainings

    @contextlib.contextmanager
    def training(self, what: str, steps: int, path: Path | None):
        "Note a training, and what an earlier run has done of it."
        tokens, began = self.account.tokens, now()
        row = {"what": what, "steps": steps, "done_before": 0}
        before = _note_of(path)["seconds"]
        if path is not None and (first := _step_of(path)):
            row["done_before"] = first
            self.skip(before, _note_of(path)["tokens"])
        try:
            yield row
        finally:
            row["seconds"] = now() - began + before
            row["tokens"] = self.account.tokens - tokens
            self.account.trainings.append(row)
            self.account.training = None

    def precision_of(self, path, learner, tasks, given) -> tuple[str, str]:
        """Of a `meta_train`: compared on the first batch that it will see; that of the
        checkpoint where there is one."""
        if "precision" in (told := _note_of(path)):
            return told["precision"], f"{told['why']}{EARLIER}"
        n, seed = given.get("tasks_per_step", 16), given.get("seed", 0)
        tokens = self.account.tokens
        try:
            return self._compared(learner, tasks, n, seed)
        finally:
            self.account.tokens = tokens  # no work of the chapter

    def _compared(self, learner, tasks, n: int, seed: int) -> tuple[str, str]:
        if self.settings.precision == "float32":
            return "float32", "asked for"
        try:
            batch = tasks.sample(n, torch.Generator().manual_seed(seed))
            device = next(learner.parameters()).device
            compared = compare_precisions(learner, batch.to(device), str(device))
            how, why = choose_precision(self.settings.precision, compared)
            if how == "bf16":  # the engine checks itself at a first batch: in float32
                with torch.random.fork_rng():
                    learner(batch.to(device))
        except Exception as e:  # what is wrong with the run is said by the run
            return "float32", f"not compared: {type(e).__name__}: {str(e)[:120]}"
        return how, why

    def meta_train(self, function):
        "Round `meta_train`: device, precision, checkpoint, progress."

        @functools.wraps(function)
        def call(learner, tasks, *, steps, **given):
            long = isinstance(steps, int) and steps >= self.settings.least_steps
            if not long or given.get("accelerator") is not None:
                return function(learner, tasks, steps=steps, **given)
            self.place(learner)
            own = given.get("checkpoint")
            path = Path(own.path) if own else self.path(
                "meta_train", learner, tasks, steps, given)  # fmt: skip
            how, why = self.precision_of(path, learner, tasks, given)
            device = str(next(learner.parameters()).device)
            kind = type(learner).__name__
            with self.training(f"meta_train of {kind}", steps, path) as row:
                row |= {"device": device, "precision": how, "why": why}
                if path is not None:
                    every, what = self.settings.save_every, row["what"]
                    about = {"precision": how, "why": why.removesuffix(EARLIER)}
                    given["checkpoint"] = Timed(path, every, self, what, steps, **about)
                mixed = in_bf16(learner, device) if how == "bf16" else None
                with mixed or contextlib.nullcontext():
                    return function(learner, tasks, steps=steps, **given)

        return call

    def pretrain(self, function):
        "Round `pretrain`, which knows devices, precisions and checkpoints itself."

        @functools.wraps(function)
        def call(documents, recipe, **given):
            steps = getattr(recipe, "steps", 0)
            if steps < self.settings.least_steps:
                return function(documents, recipe, **given)
            path = given.get("checkpoint") or self.path("pretrain", documents, recipe)
            given |= {"checkpoint": path} if path is not None else {}
            given.setdefault("save_every", self.settings.save_every)
            given.setdefault("device", self.settings.device)
            if given.get("bf16") is None and self.settings.precision != "auto":
                given["bf16"] = self.settings.precision == "bf16"
            path = None if path is None else Path(path)
            with self.training("pretrain", steps, path) as row:
                bf16 = {True: "bf16", False: "float32", None: "auto"}[given.get("bf16")]
                row |= {"device": str(given["device"]), "precision": bf16}
                found = function(documents, recipe, **given)
                row["why"] = "by `pretrain` itself"
                return found

        return call

    # ---- where these stand

    def round_of(self, name: str, value):
        "What stands round a function of this name, or None."
        if name in ("meta_train", "pretrain"):
            return getattr(self, name)(value)
        if name == "scale" and value.__module__ == "metalearn_book.book.scale":
            return self.scaled(value)
        if name in PARTS:
            return self.in_parts(value, PARTS[name])
        if name in LOADED:
            return self.loaded(value)
        if name in (*KEPT[""], *KEPT.get(self.chapter, ())):
            return self.kept(name, value)
        return None

    def stand_round(self, namespace: dict) -> None:
        "Exchange the functions of a module or of the notebook that are in the tables."
        for name, value in list(namespace.items()):
            if isinstance(value, type):
                self._class(name, value)
            elif callable(value) and hasattr(value, "__code__"):
                if getattr(value, "_stands_round", None) is self:
                    continue
                if (known := self.round.get(id(value))) is None:
                    made = self.round_of(name, value)
                    if made is None:
                        continue
                    made._stands_round = self
                    known = self.round[id(value)] = value, made
                namespace[name] = known[1]

    def _class(self, name: str, kind: type) -> None:
        if self.moves and name in MADE and kind.__name__ == name:
            if not getattr(kind.__init__, "_stands_round", None):
                self.made(kind)
                kind.__init__._stands_round = self
        for full in KEPT.get(self.chapter, ()):
            of, _, method = full.partition(".")
            function = vars(kind).get(method) if of == name else None
            if function is not None and not hasattr(function, "_stands_round"):
                round_it = self.kept(full, function)
                round_it._stands_round = self
                setattr(kind, method, round_it)

    def everywhere(self, notebook: dict | None = None) -> None:
        "In the modules of the book that are loaded, and in the notebook."
        for name, module in list(sys.modules.items()):
            if name.startswith("metalearn_book.") and module is not None:
                self.stand_round(vars(module))
        if notebook is not None:
            self.stand_round(notebook)

    # ---- how far it is

    def status(self) -> dict:
        "For the status file."
        seconds = now() - self.began
        peak = self.account.peak_memory(self.settings.device)
        found = asdict(self.account) | {"seconds": seconds, "peak_memory": peak}
        found["cells"] = self.settings.cells
        return found

    def tell(self) -> None:
        "Write the status file, whole or not at all."
        if self.settings.status is None:
            return
        path = Path(self.settings.status)
        part = path.with_name(f"{path.name}.{threading.get_ident()}.part")
        part.write_text(json.dumps(self.status()), encoding="utf-8")
        os.replace(part, path)

    def keep_telling(self, seconds: float = 2.0) -> None:
        def loop():
            while True:
                time.sleep(seconds)
                with contextlib.suppress(
                    Exception
                ):  # tables change while they are read
                    self.tell()

        threading.Thread(target=loop, daemon=True).start()


def start() -> None:
    "Called once by the kernel before the first cell."
    from IPython import get_ipython

    given = json.loads(os.environ[VARIABLE])
    chapter = given.pop("chapter")
    kernel, shell = Kernel(Settings(**given), chapter), get_ipython()
    torch.manual_seed(0)  # else each process begins in a random state of its own
    for name in ("time", "perf_counter"):
        setattr(time, name, kernel.clock(getattr(time, name)))
    stay = contextlib.ExitStack()  # until the kernel ends
    stay.enter_context(counting(kernel.account))
    if kernel.moves:
        # the same bits in every run, so that a resumed one finds what was kept
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        stay.enter_context(Together(kernel.settings.device))
    shell._full_scale = kernel, stay

    def before(info) -> None:
        kernel.account.cell += 1
        kernel.everywhere(shell.user_ns)

    def after(result) -> None:
        kernel.everywhere(shell.user_ns)
        kernel.tell()

    shell.events.register("pre_run_cell", before)
    shell.events.register("post_run_cell", after)
    kernel.keep_telling()
