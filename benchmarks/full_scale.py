"""What the part on language models asks of one GPU at full scale: operations, launches.

    python benchmarks/full_scale.py [--microseconds 10]

No GPU is needed: one step of each training of the part (one task of it, where tasks are
taken one after another), and one group that is measured, is run on the CPU at its true
size and counted. Floating-point operations are those of
matrix products, by PyTorch's counter. Launches are calls of PyTorch's library that
compute something (views and new memory are none): a GPU gets at least one kernel for
each. The steps come from the `scale` calls of the chapters, or from `FITTED` of
`tools/full_kernel.py` where that names fewer. Models of this size leave a data-centre
GPU waiting for the processor that launches kernels. So the seconds are launches times
`--microseconds`, an assumption that nothing here has measured, and more where the
operations at 20 TFLOP/s would take longer.

Not counted: what stays on the CPU (tokenizers, counts of n-grams, regressions in
closed form, models below 100,000 weights), SmolLM2, and generated text. The numbers go
to results/benchmarks/full_scale.json, and as a table into the appendix *GPU set-up*.
Takes a minute.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from metalearn_book.book.results import save_results
from metalearn_book.foundations.tasks import Examples, TaskBatch
from metalearn_book.language_models.in_context import InContextRegressor, LinearPrompts
from metalearn_book.language_models.low_rank_services import with_adapter
from metalearn_book.language_models.meta_gpt2 import MetaGPT2, _trained_by
from metalearn_book.language_models.pretraining import language_optimizer
from metalearn_book.language_models.pretraining import RECIPES, language_step
from metalearn_book.language_models.small_gpt import GPTConfig, SmallGPT
from metalearn_book.language_models.small_gpt import train_tokenizer
from metalearn_book.language_models.stream_starts import StreamMAML, StreamTasks

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
import full_kernel  # noqa: E402
import notebooks  # noqa: E402

PART, NAME = "language_models", "benchmarks/full_scale"
KEPT = ROOT / "_build" / "full_scale.json"
FLOPS = 20e12  # a second: a small part of what such a GPU says that it can do
#: calls that make no kernel though they are no views
NO_KERNEL = ("empty", "new_empty", "_local_scalar_dense", "lift_fresh", "detach")


class Launches(TorchDispatchMode):
    "Counts calls of the library that compute something."

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        views = any(
            r.alias_info is not None and not r.alias_info.is_write
            for r in func._schema.returns
        )
        name = func._schema.name.split("::")[-1]
        self.count += not views and not name.startswith(NO_KERNEL)
        return func(*args, **(kwargs or {}))


def count(step: Callable) -> tuple[int, int]:
    """Operations and launches of a first step: the optimizer makes its state in it, and
    Reptile's engine checks itself. So later steps have fewer."""
    with Launches() as launches, FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops(), launches.count


def counted(make: Callable, *args, **kwargs) -> tuple[int, int]:
    "`count` of what `make` gives, once for the same; kept in _build, to go on there."
    key = repr((make.__name__, args, kwargs))
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if key not in known:
        known[key] = count(make(*args, **kwargs))
        KEPT.parent.mkdir(exist_ok=True)
        notebooks.write_atomically(KEPT, json.dumps(known))
    return tuple(known[key])


# ------------------------------------------------------------- one step of each


class Letters:
    "What `MetaGPT2` asks of a tokenizer."

    pad_token_id = eos_token_id = 0

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n


def text_tasks(n: int, k: int, q: int, length: int, vocabulary: int) -> TaskBatch:
    "Random token numbers: what a task costs does not depend on what it says."
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (n, k + q, length), generator=g)
    return TaskBatch(*(Examples(part, part) for part in ids.split([k, q], 1)))


def updating(module: nn.Module, batch: TaskBatch, clip: bool = True) -> Callable:
    "An outer step by Adam, as a GPU does it: all tensors of the optimizer at once."
    params = [p for p in module.parameters() if p.requires_grad]
    adam = torch.optim.Adam(params, lr=1e-4, foreach=True)

    def step():
        adam.zero_grad()
        module(batch).backward()
        if clip:
            nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()

    return step


def gpt_base() -> SmallGPT:
    torch.manual_seed(0)
    return SmallGPT(RECIPES["gpt-base"].config)


def language(method: str, n: int = 4, adapter: str | None = None, k=4, q=4):
    "An outer step of `meta_learning` on n tasks, one at a time."
    model, adapt = gpt_base(), "*"
    if adapter:
        more = {"rank": 4} if adapter == "lora" else {"start": torch.arange(8)}
        model, adapt = with_adapter(model, adapter, **more)
    options = {"inner_lr": 0.05, "inner_steps": 3, "tasks_at_once": 1, "adapt": adapt}
    learns = {"learn_lr": "tensor"} if method in ("maml", "fomaml") else {}
    tokens = Letters(RECIPES["gpt-base"].config.vocab_size)
    first = method != "maml"
    learner = MetaGPT2(
        model, tokens, length=64, first_order=first, check=False, **options, **learns
    )
    module = _trained_by(method, learner, 0, options)
    batch = text_tasks(n, k, q, 64, len(tokens))
    return updating(module, batch, method != "reptile")


def measuring(k: int = 16, q: int = 8):
    "A group that is measured: three steps on k texts, and the loss of q others."
    tokens = Letters(RECIPES["gpt-base"].config.vocab_size)
    learner = MetaGPT2(gpt_base(), tokens, length=64, inner_steps=3, check=False).eval()
    task = text_tasks(1, k, q, 64, len(tokens))

    def step():
        with torch.no_grad():
            learner.adapt(task.support)(task.query.x)

    return step


def regression(dim: int, points: int, tasks: int, **sizes):
    "A step of `train_in_context`."
    torch.manual_seed(0)
    model = InContextRegressor(dim, points, **sizes)
    batch = LinearPrompts(dim, points).sample(tasks, torch.Generator().manual_seed(0))
    return updating(model, batch)


def plain(config: GPTConfig, rows: int, length: int):
    "A `language_step`."
    torch.manual_seed(0)
    model = SmallGPT(config)
    ids = torch.randint(config.vocab_size, (rows, length))
    optimizer = language_optimizer(model, 1e-3)
    for group in optimizer.param_groups:
        group["foreach"] = True
    return lambda: language_step(model, optimizer, ids)


def hyper(n: int):
    "An outer step of `hyper_training` on n tasks of 16 texts."
    from metalearn_book.language_models.hypernetworks import HyperLoRA

    tokens = Letters(RECIPES["gpt-base"].config.vocab_size)
    learner = HyperLoRA(gpt_base(), tokens, 32, length=64)
    return updating(learner, text_tasks(n, 16, 4, 64, len(tokens)))


def streams(width: int, vocabulary: int):
    "An outer step of `EqualCompute.meta` on two streams of six chunks of 48 tokens."
    torch.manual_seed(0)
    model = SmallGPT(GPTConfig(vocabulary, 64, width, 2, 4))
    learner = StreamMAML(model, inner_lr=0.1, learn_lr="tensor", check=False)
    g = torch.Generator().manual_seed(0)
    texts = ["".join(chr(97 + i) for i in torch.randint(26, (48,), generator=g))
             for _ in range(30)]  # fmt: skip
    tokens = train_tokenizer(texts, 300)
    tasks = StreamTasks({"one": texts}, tokens, n_chunks=6, chunk=48, memory=16)
    return updating(learner, tasks.sample(2, g))


# ------------------------------------------------------------- how many of each


def full_values(chapter: str) -> dict[str, object]:
    "What the `scale` calls of a chapter give at full scale, by the name that gets it."
    found, fitted = {}, full_kernel.fitted_of(chapter)

    def value(call: ast.AST):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "scale":
            return None
        try:
            book, full = map(ast.literal_eval, call.args[1:])
        except (ValueError, TypeError):
            return None
        return full_kernel.fit(fitted, book, full)

    nb = notebooks.read(ROOT / "nbs" / f"{chapter}.ipynb")
    for cell in filter(notebooks.is_code, nb["cells"]):
        for node in ast.walk(ast.parse(notebooks.source(cell))):
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts))
                for name, call in pairs:
                    if isinstance(name, ast.Name) and (v := value(call)) is not None:
                        found[name.id] = v
    return found


def work() -> list[dict]:
    "The work of the part: chapter, what, how often, and one of it."
    rows = []

    def add(chapter: str, what: str, times: int, *step, **sizes) -> None:
        flops, launches = counted(*step, **sizes)
        row = {"chapter": chapter, "what": what, "times": times}
        rows.append(row | {"flops": flops, "launches": launches})
        print(f"{chapter:<38} {what:<28} {times:>9,} × {flops / 1e9:8.2f} GFLOP, "
              f"{launches:>6,} launches", flush=True)  # fmt: skip

    def outer(chapter: str, method: str, steps: int, n: int, adapter=None) -> None:
        "Outer steps on n tasks; those with an inner loop take one after another."
        alone = method != "joint"
        what = f"{method}, {adapter or 'all weights'}, {'task' if alone else 'step'}"
        times = steps * (n if alone else 1)
        add(chapter, what, times, language, method, 1 if alone else n, adapter)

    c = f"{PART}/12_pretraining"
    v = full_values(c)
    tuned = 3 * len(v["RATES"]) + 2 * 3 * 3  # searched; with and without replay, seeds
    add(c, "step of fine-tuning", tuned * v["TUNE_STEPS"],
        plain, RECIPES["gpt-base"].config, v["TUNE_ROWS"], 256)  # fmt: skip
    c = f"{PART}/25_services"
    v = full_values(c)
    for method in ("maml", "fomaml", "reptile", "joint"):
        outer(c, method, len(v["OUTER"]) * v["STEPS"], v["PER_STEP"])
    validation, test, factors = 4, 16, 8
    groups = 10 * validation + 8 * factors * validation  # own steps; searched
    groups += 11 * factors * validation + 5 * 4 * test + 3 * (8 * validation + test)
    add(c, "measured group", groups, measuring)
    c = f"{PART}/45_low_rank_services"
    v = full_values(c)
    for what in ("all", "lora", "prompt"):
        for method in ("joint", "maml"):
            adapter = None if what == "all" else what
            outer(c, method, 2 * v["STEPS"], v["PER_STEP"], adapter)
    groups = 34 * validation + 12 * 3 * validation + 13 * 6 * validation + 13 * 4 * test
    add(c, "measured group", groups, measuring)
    c = f"{PART}/50_in_context"
    v = full_values(c)
    add(c, "step of the regression", v["STEPS"],
        regression, v["DIM"], v["POINTS"], v["TASKS"])  # fmt: skip
    add(c, "step with a pool", len(v["POOLS"]) * v["POOL_STEPS"],
        regression, v["d2"], v["n2"], v["POOL_TASKS"], width=64, n_layers=2,
        n_heads=2)  # fmt: skip
    c = f"{PART}/53_meta_icl"
    v = full_values(c)
    for method in ("maml", "joint"):
        outer(c, method, len(v["OUTER"]) * v["STEPS"], v["PER_STEP"])
    add(c, "step of MetaICL", len(v["ICT_OUTER"]) * v["STEPS"],
        plain, RECIPES["gpt-base"].config, v["PER_STEP"], 256)  # fmt: skip
    c = f"{PART}/66_stream_starts"
    v = full_values(c)
    config = GPTConfig(v["SIZES"]["vocabulary"], 64, v["SIZES"]["width"], 2, 4)
    add(c, "step on rows", v["BUDGET"], plain, config, 16, 64)
    meta = config.width, config.vocab_size
    price = counted(streams, *meta)[0] / rows[-1]["flops"]  # in steps on rows
    shares = sum(v["SHARES"]) + v["SHARES"][0]  # the first one also of first order
    add(c, "step on streams", round(shares * v["BUDGET"] / price), streams, *meta)
    c = f"{PART}/75_described_services"
    v = full_values(c)
    add(c, "outer step", 4 * v["STEPS"], hyper, v["PER_STEP"])
    return rows


# ------------------------------------------------------------- the appendix

APPENDIX, CELL = ROOT / "nbs" / "appendices" / "gpu.ipynb", "f0110005"


def page(entry: dict) -> str:
    "The table of the appendix, in Markdown."
    numbers, config = entry["numbers"], entry["config"]
    lines = [
        "| chapter | what | how often | GFLOP of one | launches of one | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for r in numbers["rows"]:
        name = r["chapter"].split("/")[1]
        lines.append(
            f"| [{name}](../{r['chapter']}.ipynb) | {r['what']} | {r['times']:,} | "
            f"{r['flops'] / 1e9:.2f} | {r['launches']:,} | {r['seconds']:.0f} |"
        )
    chapters = numbers["chapters"]
    longest = max(chapters, key=chapters.get)
    above = sum(r["launches"] * config["microseconds"] * 1e-6 < r["flops"] / FLOPS
                for r in numbers["rows"])  # fmt: skip
    lines += [
        "",
        f"What `benchmarks/full_scale.py` counted, with {config['microseconds']:g} "
        "microseconds for a launch, which is assumed. Together these take "
        f"{sum(chapters.values()) / 60:.1f} minutes one after another; the longest "
        f"chapter, {longest.split('/')[1]}, {chapters[longest] / 60:.1f}. In {above} "
        f"of {len(numbers['rows'])} rows the arithmetic, at "
        f"{FLOPS / 1e12:.0f} TFLOP/s, takes longer than the launches. A first step was "
        "counted, in which the optimizer also makes its state and Reptile's engine "
        "checks itself, so these are upper bounds. Not counted is what stays on the "
        "CPU, SmolLM2, and text that is written.",
    ]
    return "\n".join(lines)


def write_page(entry: dict) -> None:
    "Put the table into the appendix."
    nb = notebooks.read(APPENDIX)
    (cell,) = [c for c in nb["cells"] if c.get("id") == CELL]
    cell["source"] = page(entry).splitlines(keepends=True)
    notebooks.write_atomically(APPENDIX, notebooks.text(nb))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--microseconds", type=float, default=10.0)
    given, began, rows = parser.parse_args(), time.perf_counter(), []
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    for row in work():
        launched = row["launches"] * given.microseconds * 1e-6
        seconds = row["times"] * max(launched, row["flops"] / FLOPS)
        rows.append(row | {"seconds": seconds})
    chapters = {r["chapter"]: 0.0 for r in rows}
    for r in rows:
        chapters[r["chapter"]] += r["seconds"]
    print({c: round(s) for c, s in chapters.items()})
    entry = save_results(
        NAME,
        {"rows": rows, "chapters": chapters},
        seed=0,
        seconds=time.perf_counter() - began,
        config={"microseconds": given.microseconds, "flops": FLOPS},
    )
    write_page(entry)


if __name__ == "__main__":
    import ending

    ending.run(main)
