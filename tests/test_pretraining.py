"""Pretraining: texts, packed rows, a run that goes on, models by name, and what is
refused."""

from __future__ import annotations

import ast
import copy
import gc
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from metalearn_book.foundations.training import load_checkpoint, save_checkpoint
from metalearn_book.language_models import pretraining as S
from metalearn_book.language_models.small_gpt import (
    GPTConfig,
    SmallGPT,
    document_ids,
    train_tokenizer,
)

TEXTS = [t for d in S.DOMAINS for t in S.tiny_texts(d)[:60]]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


@pytest.fixture()
def model(tokenizer):
    torch.manual_seed(0)
    return SmallGPT(GPTConfig(len(tokenizer), 32, 16, 2, 2)).eval()


@pytest.fixture()
def documents(tokenizer):
    return [document_ids(tokenizer, t) for t in TEXTS]


# --- a run ----------------------------------------------------------------------------

SHORT = S.Recipe(GPTConfig(300, 32, 16, 1, 2), 10 * 128, 128)
QUIET = {"progress": False, "bf16": False}


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_killed_run_goes_on_to_the_same_weights(documents, tmp_path, at):
    path = tmp_path / "run"
    how = {"watch_every": 1, "save_every": 0, "checkpoint": path, **QUIET}
    seen = []

    def kill(model):
        seen.append(model)
        if len(seen) == at + 1:
            raise InterruptedError
        return {"n": len(seen)}

    with pytest.raises(InterruptedError):
        S.pretrain(documents, SHORT, watch=kill, **how)
    assert load_checkpoint(path)["step"] == at
    model, curve = S.pretrain(documents, SHORT, **how)
    straight, other = S.pretrain(documents, SHORT, watch_every=1, **QUIET)
    for a, b in zip(model.parameters(), straight.parameters()):
        assert torch.equal(a, b)
    losses = [[p["nats a token"] for p in c] for c in (curve, other)]
    assert losses[0] == losses[1] and len(curve) == 10


def test_tokens_are_counted_where_texts_fill_no_whole_batch(documents, tmp_path):
    wide = S.Recipe(SHORT.config, 6 * 4096, 4096)
    few = [d for d in documents if len(d) >= 8][:6]
    seen, path = [], tmp_path / "run"
    draw = S._Pretraining.draw

    def watch(model):
        if len(seen) == 4:
            raise InterruptedError
        seen.append(1)
        return {}

    how = {"watch_every": 1, "save_every": 0, "checkpoint": path, **QUIET}
    rows = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            S._Pretraining, "draw", lambda run: rows.append(draw(run)) or rows[-1]
        )
        with pytest.raises(InterruptedError):
            S.pretrain(few, wide, watch=watch, **how)
        _, curve = S.pretrain(few, wide, **how)
    at = [point["tokens"] for point in curve]
    assert len(at) == 6 and at[-1] < wide.n_tokens
    counts = [ids.numel() for ids in rows]
    del counts[4]  # the fifth step was made twice: the run was stopped in it
    assert at == [sum(counts[: i + 1]) for i in range(6)]


def test_a_checkpoint_without_a_count_of_tokens_is_refused(documents, tmp_path):
    run = S._Pretraining(documents, SHORT, torch.device("cpu"))
    run.write(tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    del state["tokens"]
    save_checkpoint(tmp_path / "run", state)
    with pytest.raises(ValueError, match="delete it"):
        run.read(tmp_path / "run")


def test_a_checkpoint_of_something_else_is_refused(documents, tmp_path):
    path = tmp_path / "run"
    how = {"checkpoint": path, "save_every": 0, **QUIET}
    S.pretrain(documents, SHORT, **how)
    other = S.Recipe(SHORT.config, SHORT.n_tokens, 128, lr=1e-3)
    for given in ((documents[1:], SHORT), (documents, other)):
        with pytest.raises(ValueError, match="another recipe or of other texts"):
            S.pretrain(*given, **how)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RuntimeError, match="checksum"):
        S.pretrain(documents, SHORT, **how)


def test_a_loss_that_is_not_finite_changes_nothing(model, documents):
    ids = torch.tensor([documents[0][:12]])
    optimizer = S.language_optimizer(model, 1e-2)
    model.positions.weight.data[3] = math.inf
    kept = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="the loss is nan: nothing was learned"):
        S.language_step(model, optimizer, ids)
    assert all(torch.equal(v, kept[n]) for n, v in model.state_dict().items())
    wild = S.Recipe(SHORT.config, SHORT.n_tokens, 128, lr=1e30)
    with pytest.raises(RuntimeError, match="nothing was learned"):
        S.pretrain(documents, wild, **QUIET)


def test_rows_begin_with_documents_and_have_no_holes(documents):
    starts = {tuple(d[:6]) for d in documents}
    rows = S.packed_rows(documents, 32, torch.Generator().manual_seed(0))
    assert all(tuple(r[:6]) in starts for r in rows.tolist())
    assert (rows > 0).all()  # no padding
    again = S.packed_rows(documents, 32, torch.Generator().manual_seed(0))
    other = S.packed_rows(documents, 32, torch.Generator().manual_seed(1))
    assert torch.equal(rows, again) and not torch.equal(rows[:5], other[:5])


def test_only_matrices_decay(model):
    groups = S.language_optimizer(model, 1e-3, 0.1).param_groups
    assert all(p.ndim == 2 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert groups[1]["weight_decay"] == 0


# --- models by name ------------------------------------------------------------------


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path))
    fast = S.Recipe(GPTConfig(280, 32, 8, 1, 1), 6 * 64, 64, tiny=True)
    monkeypatch.setitem(S.RECIPES, "gpt-tiny", fast)
    return tmp_path


def test_a_model_that_is_not_there_says_how_to_make_it(cache, monkeypatch):
    with pytest.raises(FileNotFoundError, match="make models"):
        S.small_model("gpt-base")
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    with pytest.raises(ValueError, match="must be one of 'gpt-base', 'gpt-tiny'"):
        S.small_model("gpt-2")


def test_tiny_is_made_once_and_each_caller_has_a_copy(cache):
    model, tokenizer = S.small_model("gpt-tiny")
    folder = S.model_folder("gpt-tiny")
    assert [p.name for p in (cache / "models").iterdir()] == [folder.name]
    made = (folder / "model.json").stat().st_mtime_ns
    model.norm.weight.data.zero_()
    again, _ = S.small_model("gpt-tiny")
    assert again.norm.weight.any() and not again.training
    assert (folder / "model.json").stat().st_mtime_ns == made
    about = S.model_about("gpt-tiny")
    assert about["recipe"]["tiny"] and set(S.DOMAINS) <= set(about["curve"][-1])


@pytest.mark.parametrize("file", ["weights.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_model_is_refused_and_made_again(cache, file, how):
    S.small_model("gpt-tiny")
    path = S.model_folder("gpt-tiny") / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-50] if how == "cut" else content)
    with pytest.raises(RuntimeError, match=f"{file}.*make models"):
        S.small_model("gpt-tiny")
    S.build_models(["gpt-tiny"], progress=False)
    S.small_model("gpt-tiny")


def test_the_key_of_a_model_is_found_while_finalizers_parse():
    "Python before 3.11.8 counts wrong where a parse begins inside another."
    key, parsed = S._model_key("gpt-tiny"), []

    def parses(phase, info, depth=6):
        if depth:
            return parses(phase, info, depth - 1)
        parsed.append(ast.parse("1"))

    kept = gc.get_threshold()
    gc.callbacks.append(parses)
    gc.set_threshold(50, 2, 2)
    try:
        again = S._model_key("gpt-tiny")
        junk = [[i] for i in range(1000)]
    finally:
        gc.callbacks.remove(parses)
        gc.set_threshold(*kept)
    assert again == key and parsed and junk and gc.isenabled()


def test_the_key_follows_recipe_code_and_data(cache, monkeypatch):
    key = S._model_key("gpt-tiny")
    other = S.Recipe(GPTConfig(280, 32, 8, 1, 1), 7 * 64, 64, tiny=True)
    monkeypatch.setitem(S.RECIPES, "gpt-tiny", other)
    assert S._model_key("gpt-tiny") != key
    base = S._model_key("gpt-base")
    monkeypatch.setattr(S, "_data_files", lambda: {"sgd": "other files"})
    assert S._model_key("gpt-base") != base
    monkeypatch.setattr(S, "_DECIDES", S._DECIDES[1:])
    assert S._model_key("gpt-tiny") != key


def definitions(module: str) -> list[str]:
    "The names of the definitions of a module, each as often as it is defined."
    source = Path(importlib.util.find_spec(module).origin).read_text("utf-8")
    names = []
    for node in ast.parse(source).body:
        names += [getattr(t, "id", "") for t in getattr(node, "targets", [])]
        names.append(getattr(node, "name", ""))
    return names


def test_all_that_decides_is_in_the_modules_once():
    names = [n for module in S._MODULES for n in definitions(module)]
    assert {n: names.count(n) for n in S._DECIDES} == dict.fromkeys(S._DECIDES, 1)
    for module in S._MODULES:
        assert set(definitions(module)) & set(S._DECIDES), f"nothing of {module} counts"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="Python writes the tree in its own way"
)
def test_stored_models_are_found_again():
    """A new key makes everybody train for half an hour. If what decides a model was
    changed on purpose, write the new keys here."""
    keys = {name: S._model_key(name) for name in S.RECIPES}
    assert keys == {"gpt-base": "736a74bc5a5d7649", "gpt-tiny": "2b53b4ec4e90d61f"}


def key_after(monkeypatch, folder, module, old, new) -> str:
    "The key of gpt-tiny where a word in one of the modules is another one."
    find = importlib.util.find_spec
    source = Path(find(module).origin).read_text("utf-8")
    assert old in source
    path = folder / "module.py"
    path.write_text(source.replace(old, new), "utf-8")
    with monkeypatch.context() as m:
        there = SimpleNamespace(origin=str(path))
        m.setattr(
            importlib.util, "find_spec", lambda n: there if n == module else find(n)
        )
        return S._model_key("gpt-tiny")


@pytest.mark.parametrize(
    "which, old, new, counts",
    [
        (0, "Logits `(B, T, V)` of ids `(B, T)`.", "What comes next.", False),
        (0, "must be whole numbers, got", "are no whole numbers:", False),
        (0, 'approximate="tanh"', 'approximate="none"', True),
        (0, "def bits_per_byte(", "def bits_of_bytes(", False),
        (1, "One step on a batch; its loss", "A step, and its loss", False),
        (1, "clip_grad_norm_(model.parameters(), 1.0)",
         "clip_grad_norm_(model.parameters(), 2.0)", True),
        (1, "1_000 * self.recipe.seed", "2_000 * self.recipe.seed", True),
        (1, "save_every: float = 30.0", "save_every: float = 60.0", False),
    ],
)  # fmt: skip
def test_what_counts_in_the_key(monkeypatch, tmp_path, which, old, new, counts):
    found = key_after(monkeypatch, tmp_path, S._MODULES[which], old, new)
    assert (found != S._model_key("gpt-tiny")) is counts


def test_it_does_not_matter_which_module_holds_a_definition(monkeypatch, tmp_path):
    key, both, find = S._model_key("gpt-tiny"), [], importlib.util.find_spec
    for module in S._MODULES:
        both.append(Path(find(module).origin).read_text("utf-8"))
    body = [n for s in both for n in ast.parse(s).body]
    one = tmp_path / "one.py"
    one.write_text(ast.unparse(ast.Module(body, [])), "utf-8")
    none = tmp_path / "none.py"
    none.write_text("", "utf-8")
    places = dict(zip(S._MODULES, (none, one)))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: SimpleNamespace(origin=str(places[n]))
    )
    assert S._model_key("gpt-tiny") == key


RUN = """
from metalearn_book.language_models import pretraining as S
config = S.GPTConfig(280, 32, 8, 1, 1)
S.RECIPES["gpt-tiny"] = S.Recipe(config, 4000 * 64, 64, tiny=True)
pretrain = S.pretrain
S.pretrain = lambda *a, **k: pretrain(*a, **k, save_every=0.2)
S.build_model("gpt-tiny", progress=False)
"""


def test_a_killed_build_leaves_a_checkpoint_and_no_model(tmp_path):
    env = {**os.environ, "METALEARN_CACHE": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-c", RUN], env=env)
    try:
        ends = time.monotonic() + 120
        while not list(tmp_path.glob("models/*.checkpoint")):
            assert time.monotonic() < ends and running.poll() is None
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    kept = list(tmp_path.glob("models/*.checkpoint"))
    assert load_checkpoint(kept[0])["step"] > 0
    assert not [p for p in tmp_path.glob("models/gpt-tiny-*") if p.is_dir()]


# --- texts ---------------------------------------------------------------------------


def test_unseen_services_and_topics_stay_unseen(monkeypatch):
    from metalearn_book.data import at_hand, class_split, load_dataset_by_name

    if not all(at_hand(n) for n in S.DOMAINS.values()):
        pytest.skip("needs the data sets")
    split = class_split("huffpost")
    data = load_dataset_by_name("huffpost")
    held = {S.tagged("headline", t) for t in data.where(classes=split["test"]).texts}
    train = S.domain_texts("headline")
    assert len(held & set(train)) < 0.002 * len(train)  # the same words, twice printed
    assert len(train) == len(data.where(classes=split["train"]).texts)
    parts = [set(S.domain_texts("abstract", p)) for p in ("train", "test")]
    # the set itself has some abstracts in two of its parts
    assert len(parts[0] & parts[1]) < 0.01 * len(parts[1])


def test_tiny_texts_need_no_data(monkeypatch):
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    for d in S.DOMAINS:
        for part in ("train", "test"):
            texts = S.tiny_texts(d, part)
            assert len(texts) > 100 and all(t.startswith(f"<{d}>") for t in texts)
    with pytest.raises(ValueError, match="must be one of"):
        S.tiny_texts("headline", "validation")


def test_ids_without_numbers_and_folders_without_a_name(model, tokenizer, documents):
    ids = torch.zeros(2, 9, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="ids must hold numbers"):
        S.language_step(model, S.language_optimizer(model, 1e-3), ids)
    with pytest.raises(ValueError, match="save_every must be"):
        S.pretrain(documents, SHORT, save_every=math.nan, **QUIET)
    with pytest.raises(ValueError, match="folder must be one that can be made"):
        S.save_small_gpt("/", model, tokenizer)
