"""Files from upstream repositories: a server on loopback with their layout, and
everything that can go wrong on the way.
"""

import contextlib
import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metalearn_book import cli, data
from metalearn_book.data import (
    download,
    drawings,
    hub,
    images,
    manifest,
    sources,
    upstream,
)
from metalearn_book.data.download import FetchError

DATA = os.environ.get("METALEARN_DATA")
needs_data = pytest.mark.skipif(
    not DATA,
    reason="needs the real data: set METALEARN_DATA to the folder that holds them",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = "".join(
    f"line {i} of a small file\n" for i in range(4000)
).encode()  # more than one block
FILES = {"a.txt": b"one\n", "b.json.gz": TEXT, "sub/c d.txt": b"\xff\x00 bytes"}
# sets whose files are all upstream as they are; sgd (136 MB) by its sums only
WHOLE = [
    "clinc150",
    "banking77",
    "huffpost",
    "uci_sentiment",
    "fewrel_pubmed",
    "crossner",
    "wnut17",
    "btc",
    "gum",
    "sec_filings",
    "snips",
    "nlupp",
    "restaurant8k",
    "finentity",
    "ntrex",
    "scitldr",
    "uci_restaurant",
]


class Server(ThreadingHTTPServer):
    """Serves `content`: address -> bytes. `faults`: address -> what goes wrong, used up
    one by one.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.asked = {}, {}, Counter()
        self.started, self.go_on, self.packed = (
            threading.Event(),
            threading.Event(),
            False,
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # a client that went away is part of some tests


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        server = self.server
        server.asked[self.path] += 1
        faults = server.faults.get(self.path, [])
        fault = faults.pop(0) if len(faults) > 1 else faults[0] if faults else ""
        if fault.isdigit() or self.path not in server.content:
            self.send_error(int(fault) if fault.isdigit() else 404)
            return
        body = server.content[self.path]
        if fault == "stall":
            server.started.set()
            server.go_on.wait(20)
        self.send_response(200)
        if server.packed:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        match fault:
            case "truncated":
                body = body[:half]
            case "altered":
                body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
            case "longer":
                self.close_connection = True
                body = body + b"more"
            case "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.02)
                return
            case "hang":
                self.wfile.write(body[:half])
                self.wfile.flush()
                server.started.set()
                server.go_on.wait(20)
                body = body[half:]
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on loopback that the package takes for upstream; an empty cache, no data
    folder, no hub.
    """
    with Server() as s:
        threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("METALEARN_UPSTREAM", s.address)
        monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for name in (
            "METALEARN_DATA",
            "HF_HUB_OFFLINE",
            "HF_DATASETS_OFFLINE",
            "METALEARN_TIMEOUT",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(download, "PAUSE", 0.01)
        _forget()
        yield s
        s.go_on.set()
        s.shutdown()
    _forget()


def _forget():
    "What a new process does not know."
    sources._load.cache_clear()
    hub.reachable.cache_clear()
    upstream._checked.clear()


def _item(path, content, source=0):
    name = Path(path).name
    return [
        source,
        name.removesuffix(".gz") if name.endswith(".gz") else "",
        len(content),
        hashlib.sha256(content).hexdigest(),
    ]


def _manifest(**sets):
    """A manifest with these sets, files below a folder of their name, all from one
    repository.
    """
    return {
        "sources": [["owner/repo", COMMIT, "some folder/"]],
        "packages": {},
        "sets": {
            n: {"files": {f"{n}/{p}": _item(p, c) for p, c in files.items()}}
            for n, files in sets.items()
        },
    }


def _serve(server, files):
    for path, content in files.items():
        name = (
            Path(path).name.removesuffix(".gz")
            if path.endswith(".gz")
            else Path(path).name
        )
        server.content[
            f"/owner/repo/{COMMIT}/some%20folder/{name.replace(' ', '%20')}"
        ] = content


@pytest.fixture
def demo(server, monkeypatch):
    "A set `demo` of three files on the server; `demo.asked` counts the requests."
    made = _manifest(demo=FILES)
    monkeypatch.setattr(upstream, "_manifest", lambda: made)
    _serve(server, FILES)
    return server


def _address(name):
    return f"/owner/repo/{COMMIT}/some%20folder/{name}"


def _stored() -> dict[str, bytes]:
    root = upstream.cache_folder() / "demo"
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


# ------------------------------------------------ all is well


@pytest.mark.parametrize("packed", [False, True])
def test_files_arrive_once(demo, packed, capfd):
    demo.packed = packed
    assert not upstream.at_hand("demo") and upstream.size("demo") == sum(
        map(len, FILES.values())
    )
    root = upstream.ensure("demo")
    assert root == upstream.cache_folder() and upstream.at_hand("demo")
    stored = _stored()
    assert set(stored) == set(FILES), "no temporary file is left"
    assert (
        stored["a.txt"] == FILES["a.txt"]
        and stored["sub/c d.txt"] == FILES["sub/c d.txt"]
    )
    assert (
        gzip.decompress(stored["b.json.gz"]) == TEXT
        and len(stored["b.json.gz"]) < len(TEXT) / 2
    )
    assert (
        "demo" in (shown := capfd.readouterr().err)
        and "100%" in shown
        and "103k/103k" in shown
    )
    _forget()
    upstream.ensure("demo")
    assert sum(demo.asked.values()) == 3


def test_quiet_on_demand(demo, capfd):
    upstream.ensure("demo", progress=False)
    assert capfd.readouterr().err == ""


# ------------------------------------------------ what can go wrong on the way


@pytest.mark.parametrize(
    "fault,message",
    [
        ("truncated", r"was cut off \(.* of 102,890 bytes\), 3 times"),
        ("altered", "arrived altered .its sha256.*3 times"),
        ("503", "could not be fetched .the server answered 503.*3 times"),
    ],
)
def test_bad_file_is_never_used(demo, fault, message):
    demo.faults[_address("b.json")] = [fault]
    with pytest.raises(FetchError, match=message) as e:
        upstream.ensure("demo", progress=False)
    assert "/b.json" in str(e.value) and "METALEARN_UPSTREAM" in str(e.value)
    assert "b.json.gz" not in _stored() and not any(
        "part" in name for name in _stored()
    )
    assert demo.asked[_address("b.json")] == download.ATTEMPTS


@pytest.mark.parametrize("fault", ["truncated", "altered", "503"])
def test_second_attempt_helps(demo, fault):
    demo.faults[_address("b.json")] = [fault, fault, ""]
    upstream.ensure("demo", progress=False)
    assert (
        demo.asked[_address("b.json")] == 3
        and gzip.decompress(_stored()["b.json.gz"]) == TEXT
    )


@pytest.mark.parametrize(
    "content,message",
    [
        (TEXT + b"x", "more than 102,890 bytes"),
        (TEXT[:-1], "cut off"),
        (TEXT[:-1] + b"x", "sha256"),
    ],
)
def test_another_file_under_the_same_address(demo, content, message):
    demo.content[_address("b.json")] = content
    with pytest.raises(FetchError, match=message):
        upstream.ensure("demo", progress=False)
    assert "b.json.gz" not in _stored()


def test_damaged_compression_on_the_way(demo):
    demo.packed, demo.faults[_address("b.json")] = True, ["altered"]
    with pytest.raises(FetchError, match="arrived altered|cut off"):
        upstream.ensure("demo", progress=False)


def test_missing_file(demo):
    del demo.content[_address("a.txt")]
    with pytest.raises(
        FetchError,
        match="a.txt is not there .the server answered 404.*update the package",
    ):
        upstream.ensure("demo", progress=False)
    assert demo.asked[_address("a.txt")] == 1, "no second attempt"


@pytest.mark.parametrize("fault", ["drip", "stall"])
def test_slow_server(demo, monkeypatch, fault):
    monkeypatch.setenv("METALEARN_TIMEOUT", "0.3")
    demo.faults[_address("b.json")] = [fault]
    started = time.perf_counter()
    with pytest.raises(FetchError, match="b.json is too slow.*METALEARN_TIMEOUT"):
        monkeypatch.setattr(download, "SLOWEST", 10**9)
        upstream.ensure("demo", progress=False)
    assert time.perf_counter() - started < 5
    demo.faults.clear()
    upstream.ensure("demo", progress=False)
    assert set(_stored()) == set(FILES)


@pytest.mark.parametrize("given", ["fast", "0", "-1", "nan"])
def test_wrong_timeout(demo, monkeypatch, given):
    monkeypatch.setenv("METALEARN_TIMEOUT", given)
    with pytest.raises(
        FetchError,
        match=f"METALEARN_TIMEOUT={given} is not a number of seconds",
    ):
        upstream.ensure("demo", progress=False)


def test_no_network(demo, monkeypatch):
    monkeypatch.setenv("METALEARN_UPSTREAM", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(
        FetchError,
        match="http://127.0.0.1:9/owner/repo.* can't be reached.*HTTPS_PROXY",
    ):
        upstream.ensure("demo", progress=False)
    assert time.perf_counter() - started < 2


def test_little_room_is_noticed_before(demo, monkeypatch):
    monkeypatch.setattr(
        download.shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000),
    )
    with pytest.raises(FetchError, match="0 MB free.*METALEARN_CACHE"):
        upstream.ensure("demo", progress=False)
    assert not demo.asked


def test_full_disk(demo, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(download, "made", full)
    with pytest.raises(
        FetchError,
        match="the disk is full while writing below .*demo/.*METALEARN_CACHE",
    ):
        upstream.ensure("demo", progress=False)


def test_cache_that_can_not_be_written(demo, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("METALEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        FetchError, match="can't write below .*file/data/demo.*METALEARN_CACHE"
    ):
        upstream.ensure("demo", progress=False)


# ------------------------------------------ interrupted, two at once, damaged later

SCRIPT = """
import json, sys
from metalearn_book.data import upstream
made = json.loads(sys.argv[1])
upstream._manifest = lambda: made
upstream.ensure("demo", progress=False)
print("done")
"""


def _process():
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(_manifest(demo=FILES))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_in_the_middle(demo):
    demo.faults[_address("b.json")] = ["hang", ""]
    process = _process()
    assert demo.started.wait(30)
    deadline = time.monotonic() + 10
    while (
        time.monotonic() < deadline
        and len([n for n in _stored() if "part" not in n]) < 2
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = [name for name in _stored() if "part" in name]
    assert set(_stored()) - set(left) == {"a.txt", "sub/c d.txt"} and len(left) == 1
    demo.go_on.set()
    upstream.ensure("demo", progress=False)
    assert demo.asked == {
        _address("b.json"): 2,
        _address("a.txt"): 1,
        _address("c%20d.txt"): 1,
    }, "what had arrived was kept"
    assert gzip.decompress(_stored()["b.json.gz"]) == TEXT
    assert not [n for n in _stored() if "part" in n], "what a killed one left is gone"
    old = upstream.cache_folder() / "demo" / ".an.older.version.part.b.json.gz"
    old.touch()
    os.utime(old, (0, 0))
    (upstream.cache_folder() / "demo" / "b.json.gz").unlink()
    upstream.ensure("demo", progress=False)
    assert not old.exists(), "leftovers go when they are old"


def test_two_processes_at_once(demo):
    demo.faults[_address("b.json")] = ["stall"]
    processes = [_process(), _process()]
    deadline = time.monotonic() + 30
    while demo.asked[_address("b.json")] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    demo.go_on.set()
    outcomes = [p.communicate(timeout=30) for p in processes]
    assert [out for out, _ in outcomes] == ["done\n"] * 2, outcomes
    assert (
        set(_stored()) == set(FILES) and gzip.decompress(_stored()["b.json.gz"]) == TEXT
    )


def _flip(content: bytes) -> bytes:
    return content[:20] + bytes([content[20] ^ 4]) + content[21:]


@pytest.mark.parametrize(
    "name,damage",
    [
        ("b.json.gz", _flip),
        ("b.json.gz", lambda b: b[:-30]),
        ("b.json.gz", lambda b: b""),
        ("sub/c d.txt", lambda b: b[::-1]),
        ("a.txt", lambda b: b + b"x"),
    ],
)
def test_cache_damaged_later(demo, name, damage):
    upstream.ensure("demo", progress=False)
    path = upstream.cache_folder() / "demo" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        FetchError,
        match=f"{path.name} is damaged.*metalearn-book data fetch demo",
    ):
        upstream.ensure("demo", fetch=False)
    upstream.ensure("demo", progress=False)
    assert sum(demo.asked.values()) == 4, "only the damaged file came again"
    assert (
        gzip.decompress(_stored()["b.json.gz"]) == TEXT
        and _stored()["sub/c d.txt"] == FILES["sub/c d.txt"]
    )


# ------------------------------------------------ derived files


@pytest.fixture
def derived_set(server, monkeypatch):
    "A set with one file that is made from another one."
    made = _manifest(demo={"a.txt": b"one\n"})
    made["sets"]["demo"]["raw"] = {"demo/.raw/r.txt": _item("r.txt", b"raw\n")}
    made["sets"]["demo"]["made"] = {
        "demo/m.txt": [4, hashlib.sha256(b"RAW\n").hexdigest()],
        "demo/n.bin": [],
    }
    monkeypatch.setattr(upstream, "_manifest", lambda: made)
    _serve(server, {"a.txt": b"one\n", "r.txt": b"raw\n"})

    def maker(raw, folder):
        with upstream.derived.made(folder / "m.txt") as target:
            target.write_bytes((raw / "r.txt").read_bytes().upper())
        with upstream.derived.made(folder / "n.bin") as target:
            target.write_bytes(os.urandom(100))

    monkeypatch.setitem(upstream._MAKERS, "demo", maker)
    return server


def test_derived_files_are_made_and_checked(derived_set):
    upstream.ensure("demo", progress=False)
    stored = _stored()
    assert (
        set(stored) == {"a.txt", "m.txt", "n.bin", "n.bin.sha256"}
        and stored["m.txt"] == b"RAW\n"
    ), "the raw file is gone"
    _forget()
    upstream.ensure("demo", progress=False)
    assert sum(derived_set.asked.values()) == 2
    for name in ("m.txt", "n.bin"):
        path = upstream.cache_folder() / "demo" / name
        path.write_bytes(b"XXXX")
        with pytest.raises(FetchError, match=f"{name} is damaged"):
            upstream.ensure("demo", fetch=False)
        upstream.ensure("demo", progress=False)
        assert _stored()["m.txt"] == b"RAW\n" and path.read_bytes() != b"XXXX"


def test_derived_file_that_comes_out_wrong(derived_set, monkeypatch):
    monkeypatch.setitem(
        upstream._MAKERS,
        "demo",
        lambda raw, folder: (folder / "m.txt").write_bytes(b"raw\n"),
    )
    with pytest.raises((FetchError, FileNotFoundError), match="m.txt|n.bin"):
        upstream.ensure("demo", progress=False)
    monkeypatch.setitem(
        upstream._MAKERS,
        "demo",
        lambda raw, folder: [
            (folder / n).write_bytes(b"raw\n") for n in ("m.txt", "n.bin")
        ],
    )
    with pytest.raises(
        FetchError,
        match="m.txt, made from the files of .*raw, is not what it has to be",
    ):
        upstream.ensure("demo", progress=False)


# ------------------------------------------------ the order of ways

SENTENCES = {
    f"{d}_labelled.txt": f"Good {d}.\t1\nBad {d}.\t0\n".encode()
    for d in ("amazon_cells", "imdb", "yelp")
}


@pytest.fixture
def sentences(server, monkeypatch):
    "uci_sentiment with six sentences on the server."
    made = _manifest(uci_sentiment=SENTENCES)
    monkeypatch.setattr(upstream, "_manifest", lambda: made)
    monkeypatch.setitem(
        manifest.MANIFEST,
        "uci_sentiment",
        dataclasses.replace(manifest.MANIFEST["uci_sentiment"], counts={"all": 6}),
    )
    _serve(server, SENTENCES)
    return server


def test_folder_then_cache_then_upstream(sentences, monkeypatch, tmp_path):
    assert data.at_hand("uci_sentiment") is None and data.available("uci_sentiment")
    d = data.load_dataset_by_name("uci_sentiment")
    assert (d.source, d.texts[:2], d.labels[:2]) == (
        "upstream",
        ["Good amazon_cells.", "Bad amazon_cells."],
        ["positive", "negative"],
    )
    _forget()
    monkeypatch.setenv("METALEARN_UPSTREAM", "http://127.0.0.1:9")
    assert (
        data.at_hand("uci_sentiment") == "cache"
        and data.load_dataset_by_name("uci_sentiment").texts == d.texts
    )
    monkeypatch.setenv(
        "METALEARN_DATA", str(tmp_path / "cache" / "data")
    )  # the cache has the layout of a data folder
    assert (
        data.at_hand("uci_sentiment") == "folder"
        and data.load_dataset_by_name("uci_sentiment").source == "folder"
    )


def test_damaged_cache_is_fetched_again_or_named(sentences, monkeypatch):
    data.load_dataset_by_name("uci_sentiment")
    path = upstream.cache_folder() / "uci_sentiment" / "yelp_labelled.txt"
    for _ in range(2):
        _forget()
        path.write_bytes(b"Altered.\t1\n")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(
            FileNotFoundError, match="the cache: .*yelp_labelled.txt is damaged"
        ):
            data.load_dataset_by_name("uci_sentiment")
        assert path.read_bytes() == b"Altered.\t1\n"
        monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "Altered." not in data.load_dataset_by_name("uci_sentiment").texts


def test_offline_asks_nobody(sentences, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not data.available("uci_sentiment")
    with pytest.raises(
        FileNotFoundError,
        match="HF_HUB_OFFLINE is set: nothing is fetched.*fetch uci_sentiment",
    ):
        data.load_dataset_by_name("uci_sentiment")
    assert not sentences.asked


def test_failed_fetch_is_told_with_all_ways(sentences):
    sentences.faults[_address("imdb_labelled.txt")] = ["altered"]
    with pytest.raises(
        FileNotFoundError,
        match="upstream: .*imdb_labelled.txt arrived altered.*Ways to get it",
    ):
        data.load_dataset_by_name("uci_sentiment")


def test_upstream_goes_before_a_hub_copy_that_differs(server, monkeypatch):
    files = {
        "data_full.json.gz": json.dumps(
            {k: [["hi", "greeting"]] for k in ("train", "val", "test")}
            | {k: [] for k in ("oos_train", "oos_val", "oos_test")}
        ).encode(),
        "domains.json": b'{"small_talk": ["greeting"]}',
    }
    made = _manifest(clinc150=files)
    monkeypatch.setattr(upstream, "_manifest", lambda: made)
    monkeypatch.setitem(
        manifest.MANIFEST,
        "clinc150",
        dataclasses.replace(
            manifest.MANIFEST["clinc150"],
            counts={"train": 1, "validation": 1, "test": 1},
            hub=dataclasses.replace(
                manifest.MANIFEST["clinc150"].hub,
                read=lambda: pytest.fail("asked the hub"),
            ),
        ),
    )
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    _serve(server, files)
    d = data.load_dataset_by_name("clinc150")
    assert d.source == "upstream" and d.row_domains == ["small_talk"] * 3


def test_same_hub_copy_goes_before_upstream(server, monkeypatch):
    rows = data.LabeledTexts("banking77", ["hi"], ["age_limit"], ["test"], source="hub")
    monkeypatch.setitem(
        manifest.MANIFEST,
        "banking77",
        dataclasses.replace(
            manifest.MANIFEST["banking77"],
            counts={"test": 1},
            digest=rows.digest(),
            hub=dataclasses.replace(
                manifest.MANIFEST["banking77"].hub, read=lambda: rows
            ),
        ),
    )
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    assert data.load_dataset_by_name("banking77").source == "hub" and not server.asked


def drawing(seed: int) -> bytes:
    "A 105 x 105 PNG, black strokes on white, as in the original files."
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[20 + seed : 40 + seed, 30:60] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(out, "PNG")
    return out.getvalue()


def test_omniglot_is_made_from_its_zip_files(server, monkeypatch):
    split, raw = data.class_split("omniglot"), {}
    for target, labels in zip(images.ZIPS, (split["train"][:2], split["test"][:1])):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as z:
            for label in labels:
                for i in range(20):
                    z.writestr(f"{target[:-4]}/{label}/{i:04}.png", drawing(i))
        raw[target] = out.getvalue()
    made = _manifest(omniglot={"LICENSE": b"MIT\n"})
    made["sets"]["omniglot"] |= {
        "raw": {f"omniglot/.raw/{z}": _item(z, content) for z, content in raw.items()},
        "made": {"omniglot/omniglot_28x28.npz": []},
    }
    monkeypatch.setattr(upstream, "_manifest", lambda: made)
    entry = dataclasses.replace(
        manifest.MANIFEST["omniglot"], counts={"train": 40, "test": 20}
    )
    monkeypatch.setitem(manifest.MANIFEST, "omniglot", entry)
    _serve(server, raw | {"LICENSE": b"MIT\n"})
    d = data.load_dataset_by_name("omniglot")
    assert d.source == "upstream" and Counter(d.part) == entry.counts
    assert d.labels[::20] == [*split["train"][:2], split["test"][0]]
    assert d.images[0, 8, 12] == 255 and d.images[0, 0, 0] == 0
    _forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert data.load_dataset_by_name("omniglot").digest() == d.digest()
    path = upstream.cache_folder() / "omniglot" / "omniglot_28x28.npz"
    path.write_bytes(_flip(path.read_bytes()))
    _forget()
    with pytest.raises(FileNotFoundError, match="omniglot_28x28.npz is damaged"):
        data.load_dataset_by_name("omniglot")


def test_renderer_is_asked_for_before_packages_are_fetched(server, monkeypatch):
    monkeypatch.setattr(drawings.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", server.address)
    with pytest.raises(RuntimeError, match="needs resvg"):
        data.fetch("emoji")
    assert not server.asked


def test_emoji_packages_come_from_the_registry_that_npm_names(server, monkeypatch):
    monkeypatch.setattr(drawings, "need_renderer", lambda: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", server.address + "/")
    with pytest.raises(FetchError, match="emoji|iconify|data-17.0.0.tgz is not there"):
        data.fetch("emoji", progress=False)
    assert set(server.asked) <= {
        f"/{name}/-/{name.split('/')[-1]}-{version}.tgz"
        for name, (version, *_) in upstream._manifest()["packages"].items()
    }
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    monkeypatch.setattr(upstream, "_asked_npm", lambda: "")
    with pytest.raises(FetchError, match="npm registry.* install npm .*NPM_CONFIG_REG"):
        data.fetch("emoji", progress=False)


# ------------------------------------------------ the command


def test_command_fetches(sentences, capsys, monkeypatch):
    assert cli.main(["data", "uci_sentiment"]) == 0
    assert "not at hand, 0 kB" in capsys.readouterr().out
    assert cli.main(["data", "fetch", "uci_sentiment"]) == 0
    assert str(upstream.cache_folder() / "uci_sentiment") in capsys.readouterr().out
    assert (
        cli.main(["data", "uci_sentiment"]) == 0
        and "at hand: cache" in capsys.readouterr().out
    )
    sentences.faults[_address("imdb_labelled.txt")] = ["404"]
    (upstream.cache_folder() / "uci_sentiment" / "imdb_labelled.txt").unlink()
    assert cli.main(["data", "fetch", "uci_sentiment"]) == 1
    assert "imdb_labelled.txt is not there" in capsys.readouterr().err
    monkeypatch.setattr(cli, "_fetch_data", lambda names: print(*names) or 0)
    assert cli.main(["data", "fetch", "--all"]) == 0
    assert capsys.readouterr().out.split() == [
        n for n in data.dataset_names() if not n.startswith("tiny_")
    ]


@pytest.mark.parametrize(
    "words,message",
    [
        (["fetch"], "name the sets to fetch"),
        (["fetch", "uci"], "unknown data set 'uci'"),
        (["make", "gum"], "only emoji is made"),
        (["gum", "btc"], "use: "),
        (["--all"], "use: "),
        (["fetch", "tiny_intents"], "nothing to fetch"),
    ],
)
def test_command_used_wrongly(words, message, capsys):
    assert cli.main(["data", *words]) == 2
    assert message in capsys.readouterr().err


# ------------------------------------------------ the real manifest


def test_manifest_is_whole():
    known = upstream._manifest()
    assert set(known["sets"]) == {
        n for n in data.dataset_names() if not n.startswith("tiny_")
    }
    for repository, commit, folder in known["sources"]:
        assert (
            repository.count("/") == 1
            and len(commit) == 40
            and (not folder or folder.endswith("/"))
        )
    for name in known["sets"]:
        if name != "emoji":
            for item in upstream._items(name, "files") + upstream._items(name, "raw"):
                assert (
                    item.size > 0
                    and len(item.sha256) == 64
                    and item.path.startswith(
                        (manifest.MANIFEST[name].folder or name) + "/"
                    )
                )
                assert not item.url.endswith(".gz"), (
                    "a file that is compressed upstream would be stored twice "
                    "compressed"
                )
    assert {n for n, e in known["sets"].items() if "made" in e} == set(upstream._MAKERS)


@needs_data
def test_sums_are_those_of_the_real_files():
    checked = 0
    for name in upstream.sets():
        for item in upstream._items(name, "files") + [
            i for i in upstream._items(name, "made") if i.sha256
        ]:
            content = upstream._content(Path(DATA) / item.path)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (
                item.size,
                item.sha256,
            ), item.path
            checked += 1
    assert checked > 280


@needs_data
@pytest.mark.parametrize("name", WHOLE)
def test_real_set_from_a_server(name, server, monkeypatch):
    for item in upstream._items(name, "files"):
        server.content[item.url.removeprefix(server.address)] = upstream._content(
            Path(DATA) / item.path
        )
    parts = list(data.describe(name).counts)
    fetched = data.load_dataset_by_name(name, part=parts)
    monkeypatch.setenv("METALEARN_DATA", DATA)
    read = data.load_dataset_by_name(name, part=parts)
    assert (fetched.source, read.source) == ("upstream", "folder")
    assert dataclasses.replace(fetched, source="") == dataclasses.replace(
        read, source=""
    )
