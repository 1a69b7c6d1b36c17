"""The command that runs a part at full scale, and what stands round the functions of
its chapters. All of it on the CPU, by the same code as on a GPU."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import full
import full_kernel
import notebooks
import pytest
import torch
from conftest import ROOT, write_chapter
from full_kernel import Kernel, Settings, Timed, Together, counting, mark_of
from full_kernel import compare_precisions, gradient_of, in_bf16
from torch import nn
from torch.nn import functional as F

from metalearn_book.foundations.tasks import Examples, SinusoidTasks, TaskBatch
from metalearn_book.foundations.training import meta_train
from metalearn_book.language_models.in_context import InContextRegressor, LinearPrompts
from metalearn_book.language_models.in_context import pool_answers, train_in_context
from metalearn_book.language_models.meta_gpt2 import MetaGPT2
from metalearn_book.language_models.pretraining import Recipe, pretrain
from metalearn_book.language_models.small_gpt import GPTConfig, SmallGPT
from metalearn_book.optimization.maml import MAML

sys.path.append(str(ROOT / "benchmarks"))
import full_scale

U = 2.0**-8  # the largest relative error of rounding to bfloat16


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------- devices

META = torch.device("meta")  # a second device that every machine has


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: torch.cat([a, b]),
        lambda a, b: F.embedding(torch.tensor([0, 1]), a[:, None]),
        lambda a, b: a[torch.tensor([True, False, True])],
        lambda a, b: a + b,
        lambda a, b: torch.where(torch.ones(3) > 0, a, b),
        lambda a, b: torch.stack([a, b], dim=1),
    ],
)
def test_tensors_that_meet_on_two_devices_go_to_the_larger_one(call):
    a, b = torch.ones(3, device=META), torch.ones(3)
    with Together(META):
        assert call(a, b).device == META
    assert b.device.type == "cpu"


def test_what_is_changed_stays_where_it_is():
    here, there = torch.zeros(3), torch.ones(3, device=META)
    with Together(META):
        there[torch.tensor([0])] = torch.ones(1)
        there += torch.ones(3)
        assert there.device == META
        here[1] = 2.0
        assert here.tolist() == [0, 2, 0]


def test_which_functions_change_their_first_tensor():
    T = torch.Tensor
    for changes in (T.add_, T.copy_, T.__setitem__, T.__iadd__, T.__ipow__, T.zero_):
        assert Together._changes(changes)
    for new in (T.add, T.__add__, T.__invert__, T.__getitem__, torch.cat, F.linear):
        assert not Together._changes(new)


def test_draws_are_made_where_the_generator_is():
    with Together(META):
        assert torch.randn(2, generator=gen(), device=META).device == META
    assert torch.equal(torch.randn(2, generator=gen()), torch.randn(2, generator=gen()))


def test_an_error_that_no_device_is_the_cause_of_is_passed_on():
    with Together(META):
        with pytest.raises(RuntimeError, match="size"):
            torch.ones(2) + torch.ones(3)
        with pytest.raises(RuntimeError, match="shape|size"):
            torch.ones(2, device=META) + torch.ones(3)
        with pytest.raises(TypeError):
            torch.ones("two")


def test_large_models_move_as_soon_as_they_are_made_and_small_ones_stay():
    kernel = Kernel(Settings(device="meta", least_weights=2000))

    class Made(SmallGPT):
        "A class of its own, so that the book's stays as it is."

    kernel.made(Made)
    large = Made(GPTConfig(300, 8, 8, 1, 2))
    assert {p.device.type for p in large.parameters()} == {"meta"}
    small = Made(GPTConfig(20, 8, 8, 1, 2))
    assert {p.device.type for p in small.parameters()} == {"cpu"}
    with Together("meta"):
        assert large(torch.zeros(1, 3, dtype=torch.int64)).device == META
    on_cpu = Kernel(Settings(device="cpu", least_weights=1))
    assert next(on_cpu.place(nn.Linear(9, 9)).parameters()).device.type == "cpu"


def test_a_function_of_rows_gives_the_same_in_parts():
    x, y, pool = torch.randn(7, 5, 3), torch.randn(7, 5), torch.randn(6, 3)
    parts = Kernel(Settings()).in_parts(pool_answers, 2)
    assert torch.equal(parts(x, y, pool, noise=0.3), pool_answers(x, y, pool, 0.3))
    with pytest.raises(ValueError, match="x must"):
        parts("no tensor", y, pool)


# ------------------------------------------------------------- tokens


def test_tokens_are_counted_in_all_passes_under_vmap_too():
    model = SmallGPT(GPTConfig(20, 12, 8, 1, 2))
    account = full_kernel.Account()
    ids = torch.randint(20, (3, 2, 7), generator=gen())
    with counting(account):
        model(ids[0])
        assert account.tokens == 2 * 7
        learner = MetaGPT2(model, _Letters(), length=8, inner_steps=3)
        tasks = TaskBatch(Examples(ids, ids), Examples(ids[:, :1], ids[:, :1]))
        learner(tasks)  # the first batch is also used by the engine to check itself
        account.tokens = 0
        learner(tasks)
        assert account.tokens == 3 * (3 * 2 * 7 + 1 * 7)
    model(ids[0])
    assert account.tokens == 3 * (3 * 2 * 7 + 7)


class _Letters:
    "What `MetaGPT2` asks of a tokenizer."

    pad_token_id = eos_token_id = 0

    def __len__(self):
        return 20


def test_a_pair_of_a_regression_counts_as_one_token():
    account = full_kernel.Account()
    with counting(account):
        model = InContextRegressor(3, 5, width=8)
        model.answers(torch.randn(4, 5, 3), torch.randn(4, 5))
    assert account.tokens == 4 * 5


# ------------------------------------------------------------- what is the same


def test_the_mark_is_the_same_for_what_is_the_same_and_no_other():
    def of(rate):
        return lambda x: rate * x

    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    values = {"net": net, "rows": [1, (2.5, "a")], "g": gen(3), "f": of(2)}
    first = mark_of(values)
    again = {"net": copy.deepcopy(net), "rows": [1, (2.5, "a")], "g": gen(3)}
    assert mark_of(again | {"f": of(2)}) == first
    for change in ({"rows": [1, (2.5, "b")]}, {"g": gen(4)}, {"f": of(3)}):
        assert mark_of(values | change) != first
    with torch.no_grad():
        net[0].weight[0, 0] += 1e-6
    assert mark_of(values) != first


def test_a_learner_that_has_checked_itself_is_the_same():
    torch.manual_seed(0)
    model = SmallGPT(GPTConfig(20, 12, 16, 2, 2))
    learner = MetaGPT2(model, _Letters(), length=8)
    ids, before = torch.randint(20, (2, 2, 7), generator=gen()), mark_of(learner)
    learner(TaskBatch(Examples(ids, ids), Examples(ids, ids)))
    assert mark_of(learner) == before
    learner.inner_steps = 7
    assert mark_of(learner) != before


def test_the_mark_is_the_same_in_another_process():
    code = (
        "import sys; sys.path[:0] = [{root!r}, {tools!r}]\n"
        "from test_full import _marked; print(_marked())"
    ).format(root=str(ROOT / "tests"), tools=str(ROOT / "tools"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert told.stdout.strip() == _marked(), told.stderr


def _marked() -> str:
    torch.manual_seed(0)
    learner = MAML(nn.Linear(1, 1), _mse, inner_lr=0.1)
    return mark_of(learner, SinusoidTasks(), {"a", "b"}, {"seed": 3})


def _mse(prediction, y, mask=None):
    return (prediction - y).square().flatten(1).mean(1)


# ------------------------------------------------------------- results that are kept


@pytest.fixture
def kernel_of(tmp_path):
    "Kernels of one chapter, as after kills: they have one folder."
    return lambda **more: Kernel(
        Settings(**{"keep": str(tmp_path / "keep"), "least_seconds": 0} | more)
    )


def test_a_long_result_is_read_again_and_the_clock_goes_on(kernel_of):
    calls = []

    def measured(n, scale=1.0):
        calls.append(n)
        time.sleep(0.2)
        return scale * torch.rand(n)

    torch.manual_seed(1)
    first = kernel_of().kept("measured", measured)(3, scale=2.0)
    after = torch.rand(1)

    torch.manual_seed(1)
    again = kernel_of()
    clock, true = again.clock(time.perf_counter), time.perf_counter
    begun = true(), clock(), true()
    found = again.kept("measured", measured)(3, scale=2.0)
    assert torch.equal(found, first) and calls == [3]
    assert torch.equal(torch.rand(1), after)  # the draws go on behind it
    ended = true(), clock(), true()
    gone, saved = ended[1] - begun[1], again.account.saved_seconds
    assert gone - (ended[2] - begun[0]) <= saved <= gone - (ended[0] - begun[2])
    assert 0.2 <= again.account.saved_seconds < 2 and again.account.kept == 1


def test_only_the_same_is_read_again(kernel_of):
    calls = []
    keep = lambda kernel: kernel.kept("f", lambda *a: calls.append(a) or len(calls))
    one = keep(kernel_of())
    torch.manual_seed(0)
    assert [one(1), one(1), one(2)] == [1, 2, 3]  # the same twice in a run: twice
    again = keep(kernel_of())
    assert [again(1), again(1), again(2)] == [1, 2, 3] and len(calls) == 3
    torch.manual_seed(1)  # another random state may give another result
    assert again(1) == 4
    assert again(gen()) == 5 and keep(kernel_of())(gen()) == 6  # it would have to move
    assert again(random.Random(0)) == 7


def test_short_results_are_written_together(kernel_of, tmp_path):
    calls = []

    def asked(n):
        calls.append(n)
        time.sleep(0.02)
        return torch.tensor(n)

    how = {"save_every": 0.15}
    first = kernel_of(**how, least_seconds=1.0)
    for n in range(15):
        first.kept("asked", asked)(n)
    files = sorted(p.name for p in (tmp_path / "keep").iterdir())
    assert files[0] == "small-1" and len(files) <= 4
    again = kernel_of(**how, least_seconds=1.0)
    assert [int(again.kept("asked", asked)(n)) for n in range(15)] == [*range(15)]
    lost = len(calls) - 15
    assert lost * 0.02 < 0.15 + 0.1 and again.account.kept == 15 - lost


def test_a_damaged_result_is_computed_again(kernel_of, tmp_path):
    calls = []
    keep = lambda kernel: kernel.kept("f", lambda n: calls.append(n) or 5)
    keep(kernel_of())(1)
    (path,) = (tmp_path / "keep").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert keep(kernel_of())(1) == 5 and len(calls) == 2
    unfit = kernel_of().kept("g", lambda n: lambda: n)  # can't be written
    assert unfit(1)() == 1


# ------------------------------------------------------------- trainings


class Killed(BaseException):
    "Nobody catches it on the way."


def _run(kernel, steps=40, stop=None):
    "A short training; `stop`: the step at which it is killed."
    torch.manual_seed(0)
    learner = InContextRegressor(2, 4, width=8, n_layers=1, n_heads=1)
    done = [0]

    def counted(module, given):
        done[0] += 1
        if done[0] == stop:
            raise Killed

    learner.register_forward_pre_hook(counted)
    try:
        kernel.meta_train(meta_train)(
            learner, LinearPrompts(2, 4), steps=steps, tasks_per_step=4, progress=False
        )
    except Killed:
        return None
    return learner


def _same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_a_killed_training_goes_on_where_it_was(kernel_of, tmp_path):
    whole = _run(kernel_of(precision="float32", save_every=1e9))
    path = tmp_path / "one training"  # the hook that kills would give it another name

    def at_path(kernel):
        kernel.path = lambda *about: path
        return kernel

    first = at_path(kernel_of(precision="float32", save_every=0))
    second = at_path(kernel_of(precision="bf16", save_every=0))
    with counting(first.account):
        assert _run(first, stop=25) is None
    assert first.account.tokens == 24 * 4 * 4
    with counting(second.account):
        resumed = _run(second)
    assert _same(resumed, whole)  # in the precision in which it began
    (row,) = second.account.trainings
    assert row["tokens"] == second.account.tokens == 40 * 4 * 4
    assert row["precision"] == "float32" and row["why"].endswith("(an earlier run)")
    assert row["done_before"] == 24 and row["steps"] == 40
    assert second.account.kept == 1 and second.account.saved_seconds > 0


def test_checkpoints_are_as_far_apart_as_was_asked_for(kernel_of, tmp_path):
    kernel, began = kernel_of(), full_kernel.now()
    timed = Timed(tmp_path / "run", 0.2, kernel, "a training", 10**9, precision="bf16")
    written = []
    while full_kernel.now() - began < 1.1:
        if timed.every == 1:
            written.append(full_kernel.now())
        time.sleep(0.01)
    apart = [b - a for a, b in zip([began, *written], written)]
    assert 4 <= len(written) <= 5 and max(apart) < 0.4
    told = kernel.account.training
    assert told["step"] > 50 and told["seconds_left"] > 0
    note = json.loads((tmp_path / "run.note").read_text())
    assert note["seconds"] > 0.8 and note["precision"] == "bf16"


def test_the_default_loses_less_than_a_minute():
    assert Settings().save_every <= 30


def test_short_trainings_and_those_with_an_accelerator_are_left_alone(kernel_of):
    given = {}

    def spy(learner, tasks, **more):
        given.update(more)

    kernel = kernel_of()
    kernel.meta_train(spy)(nn.Linear(1, 1), None, steps=19)
    assert given == {"steps": 19}
    kernel.meta_train(spy)(nn.Linear(1, 1), None, steps=90, accelerator="one")
    assert given == {"steps": 90, "accelerator": "one"}


def test_a_pretraining_gets_device_precision_and_a_checkpoint(kernel_of, tmp_path):
    recipe = Recipe(GPTConfig(20, 8, 8, 1, 2), n_tokens=30 * 32, tokens_per_step=32)
    documents = [[1 + i % 19 for i in range(k, k + 9)] for k in range(12)]
    kernel = kernel_of(precision="bf16")
    with counting(kernel.account):
        model, curve = kernel.pretrain(pretrain)(documents, recipe, progress=False)
    assert curve[-1]["step"] == 30 and next(model.parameters()).dtype == torch.float32
    (row,) = kernel.account.trainings
    assert row["tokens"] >= 30 * 32 and row["device"] == "cpu"


# ------------------------------------------------------------- precision


class OneStep(nn.Module):
    "A linear model after one step on the support, as a meta-learner of two matrices."

    def __init__(self, w, inner_lr):
        super().__init__()
        self.weight, self.inner_lr = nn.Parameter(w), inner_lr

    def loss(self, e, w):
        return F.mse_loss(F.linear(e.x[0], w), e.y[0])

    def forward(self, tasks):
        loss = self.loss(tasks.support, self.weight)
        (g,) = torch.autograd.grad(loss, self.weight, create_graph=True)
        return self.loss(tasks.query, self.weight - self.inner_lr * g)


def _linear_tasks(n=24, d=6):
    draw = lambda *size: torch.randn(*size, generator=g)
    g = gen(5)
    parts = [Examples(draw(1, n, d), draw(1, n, 1)) for _ in range(2)]
    return draw(1, d), TaskBatch(*parts)


def test_the_meta_gradient_in_bf16_is_within_its_rounding():
    """Each term of the meta-gradient is a product in which at most 24 factors are
    rounded: three for each of the six products of matrices on the way there and back
    (two inputs, one output), and six casts of gradients between them. So its error is
    at most ((1 + u)^24 - 1) times the sum of the sizes of the terms, in which all
    numbers are replaced by their sizes and no sign cancels."""
    inner_lr = 0.05
    w, tasks = _linear_tasks()
    learner = OneStep(w, inner_lr)
    exact = gradient_of(copy.deepcopy(learner).double(), _doubled(tasks))
    with in_bf16(learner, "cpu"):
        rough = gradient_of(learner, tasks)
    sizes = lambda e: (e.x[0].double().abs(), e.y[0, :, 0].double().abs())
    (x, y), (xq, yq) = sizes(tasks.support), sizes(tasks.query)
    size = w[0].double().abs()
    moved = size + inner_lr * 2 / len(x) * x.T @ (x @ size + y)
    outer = 2 / len(xq) * xq.T @ (xq @ moved + yq)
    terms = outer + inner_lr * 2 / len(x) * x.T @ (x @ outer)
    error = (rough - exact).abs()
    assert (error <= ((1 + U) ** 24 - 1) * terms).all()
    assert error.max() > 2**-14 * exact.abs().max()  # it was computed in bfloat16
    plain = gradient_of(learner, tasks)
    assert (plain - exact).abs().max() < 1e-5 * terms.max()  # and is left as it was


def _doubled(tasks):
    up = lambda e: Examples(e.x.double(), e.y.double())
    return TaskBatch(up(tasks.support), up(tasks.query))


def test_float64_is_never_touched():
    w, tasks = _linear_tasks()
    learner, tasks = OneStep(w, 0.05).double(), _doubled(tasks)
    exact = gradient_of(learner, tasks)
    with in_bf16(learner, "cpu"):
        assert torch.allclose(gradient_of(learner, tasks), exact, rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert learner.loss(tasks.query, learner.weight).dtype == torch.float64


def test_second_order_through_a_language_model_agrees_in_bf16():
    torch.manual_seed(0)
    model = SmallGPT(GPTConfig(20, 12, 16, 2, 2))
    learner = MetaGPT2(model, _Letters(), length=8, inner_steps=2, inner_lr=0.1)
    ids = torch.randint(20, (2, 2, 7), generator=gen())
    tasks = TaskBatch(Examples(ids, ids), Examples(ids.flip(1), ids.flip(1)))
    before = mark_of(list(learner.parameters()), torch.get_rng_state())
    found = compare_precisions(learner, tasks, "cpu")
    with in_bf16(learner, "cpu"):
        loss = learner(tasks)
    assert loss.dtype == torch.float32 and loss != loss.bfloat16()  # digits are kept
    assert abs(loss / learner(tasks) - 1) < 2 * U
    assert 0.99 < found["cosine"] < 0.9999999 and min(found["seconds"].values()) > 0
    assert mark_of(list(learner.parameters()), torch.get_rng_state()) == before
    assert "forward" not in vars(learner)


def test_the_precision_is_the_one_that_agrees_and_pays():
    choose = full_kernel.choose_precision
    quick, slow = {"float32": 1.0, "bf16": 0.5}, {"float32": 1.0, "bf16": 1.5}
    assert choose("auto", {"cosine": 1.0, "seconds": quick})[0] == "bf16"
    how, why = choose("auto", {"cosine": 1.0, "seconds": slow})
    assert how == "float32" and "not faster" in why
    assert choose("bf16", {"cosine": 1.0, "seconds": slow})[0] == "bf16"
    how, why = choose("bf16", {"cosine": 0.9, "seconds": quick})
    assert how == "float32" and "cosine 0.900" in why
    with pytest.raises(ValueError, match="auto, bf16, float32"):
        Settings(precision="half")


def test_a_training_in_bf16_keeps_its_weights_in_float32_and_learns(kernel_of):
    kernel = kernel_of(precision="bf16")
    model, losses = None, None

    def train(*args, **kwargs):
        return kernel.meta_train(meta_train)(*args, **kwargs)

    before = train_in_context.__globals__["meta_train"]
    train_in_context.__globals__["meta_train"] = train
    try:
        model, losses = train_in_context(
            LinearPrompts(2, 6), steps=60, width=16, n_layers=1, n_heads=1
        )
    finally:
        train_in_context.__globals__["meta_train"] = before
    (row,) = kernel.account.trainings
    assert row["precision"] == "bf16" and row["why"].startswith("cosine")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert sum(losses.loss[-10:]) < sum(losses.loss[:10])
    x = torch.randn(3, 6, 2, generator=gen())
    assert model.answers(x, x[..., 0]).dtype == torch.float32  # as it measures


# ------------------------------------------------------------- where these stand


def test_functions_are_exchanged_once_where_the_tables_name_them():
    kernel = Kernel(Settings(), "language_models/60_test_time_training")
    space = {"measured": lambda: 1, "other": lambda: 2, "evaluate": lambda: 3}
    before = dict(space)
    kernel.stand_round(space)
    assert space["other"] is before["other"]
    assert space["measured"] is not before["measured"] and space["measured"]() == 1
    once = dict(space)
    kernel.stand_round(space)
    assert space == once
    elsewhere = {"measured": lambda: 1}
    Kernel(Settings(), "language_models/70_hypernetworks").stand_round(elsewhere)
    assert not hasattr(elsewhere["measured"], "_stands_round")


def test_values_that_do_not_fit_are_taken_smaller_where_the_time_is_limited(
    monkeypatch,
):
    from metalearn_book.book.scale import scale

    monkeypatch.setenv("METALEARN_SCALE", "full")
    chapter = "language_models/50_in_context"
    kernel = Kernel(Settings(fitted=True), chapter)
    fitted = kernel.scaled(scale)
    assert fitted(30, 10_000, 100_000) == 40_000 and fitted(1, 2, 3) == 3
    assert kernel.account.fitted == [[100_000, 40_000]]
    assert Kernel(Settings(), chapter).scaled(scale)(30, 10_000, 100_000) == 100_000
    monkeypatch.setenv("METALEARN_SCALE", "book")
    assert fitted(30, 10_000, 100_000) == 10_000


def test_what_is_fitted_is_what_the_chapters_say():
    for chapter, values in full_kernel.FITTED.items():
        code = "\n".join(
            notebooks.source(cell)
            for cell in notebooks.read(
                ROOT / "nbs" / "language_models" / f"{chapter}.ipynb"
            )["cells"]
        ).replace("_", "")
        for (book, whole), value in values.items():
            assert f", {book}, {whole})" in code and book <= value < whole


def test_the_tables_name_what_there_is():
    "A function that gets another name must not fall out of the tables in silence."
    chapters = {Path(c).name: c for c in notebooks.chapters(ROOT)}
    for chapter, names in full_kernel.KEPT.items():
        some = [chapter] if chapter else [c for c in chapters]
        code = "\n".join(
            notebooks.source(cell)
            for c in some
            for cell in notebooks.read(ROOT / "nbs" / f"{chapters[c]}.ipynb")["cells"]
            if notebooks.is_code(cell)
        )
        for name in names:
            assert f"def {name.split('.')[-1]}(" in code, (chapter, name)


# ------------------------------------------------------------- the command


def _given(**more):
    found = {"chapters": [], "device": "cpu", "precision": "float32", "scale": "full"}
    found |= {"minutes": 2.0, "workers": 1, "again": False, "models": False}
    return Namespace(**found | {"options": '{"least_seconds": 0}'} | more)


SLOW = """>>> import os, pathlib, time
def measure_groups(n):
    with open(os.environ["FULL_LOG"], "a") as log:
        log.write(f"{n} begins\\n")
    time.sleep(WAIT[n])
    return n
"""


def test_a_part_is_run_once_killed_and_gone_on_with(project, tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    monkeypatch.setenv("FULL_LOG", str(log))
    path = write_chapter(project, SLOW)
    nb = notebooks.read(path)
    for n, code in enumerate((
        "WAIT = {1: 0.1, 2: 600}\nfirst = measure_groups(1)",
        "second = measure_groups(2)",
    )):  # fmt: skip
        cell = {"cell_type": "code", "id": f"slow{n}", "metadata": {}, "outputs": []}
        nb["cells"].append(cell | {"execution_count": None, "source": [code]})
    path.write_text(notebooks.text(nb))
    before = path.read_bytes()
    command = [sys.executable, "-c", RUN, str(project)]
    here = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=here)
    for _ in range(600):
        if log.exists() and "2 begins" in log.read_text():
            break
        time.sleep(0.1)
    time.sleep(0.3)  # the first result is on the disk
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert log.read_text() == "1 begins\n2 begins\n"
    assert not list((project / "_build" / "full" / "records").rglob("*.json"))

    states = list((project / "_build" / "full" / "states").rglob("measure_groups*"))
    assert len(states) == 1
    end = log.read_text() + "2 begins\n"  # the first is read again
    again = subprocess.Popen([*command, "minutes=1"], stdout=subprocess.PIPE,
                             text=True, env=here)  # fmt: skip
    for _ in range(600):
        if log.read_text() == end:
            break
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)
    again.communicate()
    assert log.read_text() == end and again.returncode == 143
    assert path.read_bytes() == before


RUN = """
import sys, full, ending
from argparse import Namespace
from pathlib import Path
given = dict(chapters=[], device="cpu", precision="float32", scale="full", minutes=2.0,
             workers=1, again=False, models=False, options='{"least_seconds": 0}')
for more in sys.argv[2:]:
    name, _, value = more.partition("=")
    given[name] = type(given[name])(value)
ending.run(full.run_part, "foundations", Namespace(**given), Path(sys.argv[1]))
"""


def test_chapters_that_are_done_are_not_run_again(project, capfd):
    path = project / "nbs" / "foundations" / "01_demo.ipynb"
    before, stored = path.read_bytes(), project / "results"
    assert full.run_part("foundations", _given(), project) == 0
    told = capfd.readouterr().out
    assert "1 chapters to run" in told and "1 of 1 done" in told
    way = full.Way("cpu", "float32", "full", True, '{"least_seconds": 0}')
    record = full.record_of("foundations/01_demo", way, project)
    assert record["seconds"] > 0 and record["tokens"] == 0
    assert record["peak_memory"] > 1e6 and record["trainings"] == []
    assert record["numbers"]["numbers"] == {"answer": 8}
    assert path.read_bytes() == before and not stored.exists()
    made = notebooks.read(project / "_build" / "full" / "foundations" / "01_demo.ipynb")
    assert "answer 12" in json.dumps(made)  # what full scale gives
    table = (project / "_build" / "full" / "foundations.md").read_text()
    assert "| foundations/01_demo |" in table and "device cpu" in table
    assert not list((project / "_build" / "full").glob("run-*"))

    assert full.run_part("foundations", _given(), project) == 0
    assert "0 chapters to run" in capfd.readouterr().out
    write_chapter(project, ">>> raise ValueError('too many shots')")
    assert full.run_part("foundations", _given(), project) == 1
    told = capfd.readouterr().out
    assert "too many shots" in told and "Failed: foundations/01_demo" in told


def test_without_a_gpu_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked in ("auto", "cuda", "cuda:3"):
        with pytest.raises(RuntimeError, match="finds no GPU.*DEVICE=cpu"):
            full.choose_device(asked)
    assert full.choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert full.choose_device("auto") == "cuda:0"
    assert full.choose_device("cuda:1") == "cuda:1"
    for wrong in ("cuda:2", "mps"):
        with pytest.raises(RuntimeError, match="there are cpu and cuda:0, cuda:1"):
            full.choose_device(wrong)


def test_what_is_asked_for_is_checked(project, capsys):
    with pytest.raises(ValueError, match="no part is called 'models'; there are found"):
        full.chapters_of("models", [], project)
    with pytest.raises(ValueError, match="no chapter is called"):
        full.chapters_of("foundations", ["02_other"], project)
    assert full.main(["language_models", "--minutes", "-1"]) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_the_lines_say_how_fast_and_how_long(tmp_path):
    training = {"what": "meta_train of MAML", "step": 30, "steps": 120}
    told = {"cell": 4, "cells": 9, "tokens": 3_000_000, "seconds": 60.0}
    status = tmp_path / "status.json"
    assert full.progress("a/b", status) is None
    status.write_text(json.dumps(told | {"training": training | {"seconds_left": 200}}))
    assert full.progress("a/b", status) == (
        "a/b: cell 4 of 9, meta_train of MAML: step 30 of 120, 3.3 min left, "
        "3.0 M tokens, 50.0 k a second"
    )
    record = {"chapter": "a/b", "seconds": 60.0, "tokens": 3_000_000}
    record |= {"peak_memory": 2e9, "device": "cuda:0", "fitted": [[100, 40]]}
    record["trainings"] = [{"precision": "bf16", "tokens": 100, "seconds": 4.0}]
    line = full.line_of(record)
    for part in ("60.0 s", "3.0 M tokens", "50.0 k a second", "2000 MB", "cuda:0",
                 "1 of 1 trainings in bf16"):  # fmt: skip
        assert part in line
    table = full.table_of([record], full.Way("cuda:0")).splitlines()
    assert "| a/b | 60.0 | 3,000,000 | 50,000 | 2,000 | 1 | 1 | 25 |" in table
    assert table[-1] == "a/b: 40 in place of 100 of full scale, to fit in."


# ------------------------------------------------------------- what it asks of a GPU


def test_launches_and_operations_are_counted():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    flops, launches = full_scale.count(lambda: torch.relu(a.T.T @ b).sum())
    assert flops == 2 * 3 * 4 * 5 and launches == 3


def test_the_steps_are_those_of_the_chapters_or_fitted_ones():
    values = full_scale.full_values("language_models/50_in_context")
    assert values["STEPS"] == 40_000 and values["TASKS"] == 256 and values["DIM"] == 8
    values = full_scale.full_values("language_models/25_services")
    assert (values["STEPS"], values["PER_STEP"]) == (120, 4)


def test_the_appendix_has_the_table_that_was_counted():
    stored = ROOT / "results" / "benchmarks" / "full_scale.json"
    (entry,) = json.loads(stored.read_text(encoding="utf-8")).values()
    cells = notebooks.read(full_scale.APPENDIX)["cells"]
    (cell,) = [c for c in cells if c["id"] == full_scale.CELL]
    assert notebooks.source(cell) == full_scale.page(entry)
    counted = {(r["chapter"], r["what"]): r["times"] for r in entry["numbers"]["rows"]}
    key = "language_models/50_in_context", "step of the regression"
    assert counted[key] == 40_000  # as the chapter says today
    assert max(entry["numbers"]["chapters"].values()) < 600
