"""A client against servers that answer late, wrongly or not at all."""

import contextlib
import copy
import json
import math
import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from metalearn_book.language_models import remote_models as ic
from metalearn_book.language_models.pretrained import label_scores
from metalearn_book.language_models.pretrained import load_language_model
from metalearn_book.language_models.prompts import PromptFormat, scores_behind


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def say(self, found, status=200, promised=None, headers=()):
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(promised or len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers), None))
        self.say(self.server.models)

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), sent))
        with contextlib.suppress(OSError):
            self.server.answer(self, good(sent))


def good(sent):
    "One token for each letter, with log-probabilities -0.1, -0.2, ..."
    choices, prompts = [], sent["prompt"]
    for i, text in enumerate([prompts] if isinstance(prompts, str) else prompts):
        values = [None, *(-(j % 7) / 10 for j in range(1, len(text) + 1))]
        told = {"tokens": [*text, "!"], "token_logprobs": values}
        choices.append({"index": i, "text": text + "!", "logprobs": told})
    return {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 1}}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads, found.handle_error = True, lambda *_: None
    found.seen, found.models = [], {"data": [{"id": "m"}]}
    found.answer = lambda handler, body: handler.say(body)
    found.url = f"http://127.0.0.1:{found.server_port}/v1"
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def client(server, **more):
    given = {"timeout": 5.0, "retries": 1, "name": "m"} | more
    made = ic.RemoteModel(server.url, **given)
    made.pause = 0.01
    return made


def test_a_label_is_the_sum_of_its_tokens(server):
    made = client(server)
    scores = made.label_scores(["ab", "abcd"], ["xy", "z"])
    by_hand = lambda a, b: -sum((j % 7) / 10 for j in range(a, b))
    expected = [[by_hand(2, 4), by_hand(2, 3)], [by_hand(4, 6), by_hand(4, 5)]]
    assert scores.tolist() == [pytest.approx(row) for row in expected]
    path, _, sent = server.seen[0]
    assert path == "/v1/completions" and sent["prompt"] == ["abxy", "abz"]
    assert sent["echo"] is True and sent["model"] == "m"
    assert made.usage.requests == 2 and made.usage.prompt_tokens == 18
    assert made.usage.tokens_for(2) == (9000, 1000)
    assert made.usage.price(2, 1.0, 2.0) == pytest.approx(0.011)


def test_the_loader_finds_the_model_behind_an_address(server):
    made, tokenizer = load_language_model(f"openai:{server.url}")
    assert tokenizer is None and isinstance(made, ic.RemoteModel)
    assert label_scores(made, tokenizer, ["ab"], ["x", "y"]).shape == (1, 2)
    assert server.seen[0][0] == "/v1/models" and server.seen[1][2]["model"] == "m"
    named, _ = load_language_model(f"openai:{server.url}#other", offline=False)
    assert named.model_name() == "other"
    server.models = {"data": [{"id": "a"}, {"id": "b"}]}
    made, _ = load_language_model(f"openai:{server.url}")
    with pytest.raises(ValueError, match="'a', 'b'"):
        made.label_scores(["ab"], ["x", "y"])
    with pytest.raises(ValueError, match="offline=True asks no network"):
        load_language_model(f"openai:{server.url}", offline=True)
    for name in ("openai:", "openai:localhost", "openai:#m"):
        with pytest.raises(ValueError, match="http://"):
            load_language_model(name)


def test_the_options_of_a_client_reach_it(server):
    made = ic.model_at(f"openai:{server.url}#m", timeout=3, retries=0)
    assert (made.timeout, made.retries, made.model_name()) == (3.0, 0, "m")
    for name in (server.url, "openai", None, 3):
        with pytest.raises(ValueError, match="openai:URL|must be"):
            ic.model_at(name)


def test_prompts_with_a_front_go_out_whole(server):
    form, made = PromptFormat(), client(server)
    front = form.front([("pay Ann", "transfer")])
    scores = scores_behind(
        made, None, front, [form.ask("a"), form.ask("b")], ["x", "y"]
    )
    assert scores.shape == (2, 2)
    sent = [body["prompt"] for _, _, body in server.seen]
    assert sent[0] == [front + form.ask("a") + v for v in (" x", " y")]
    for bad in (["x"], ["x", " "], ["x", "x"]):
        with pytest.raises(ValueError, match="labels"):
            scores_behind(made, None, front, [form.ask("a")], bad)


def test_choices_may_come_in_another_order_and_behind_a_start_token(server):
    def answer(handler, body):
        body["choices"].reverse()
        for c in body["choices"]:
            c["logprobs"]["tokens"].insert(0, "<s>")
            c["logprobs"]["token_logprobs"].insert(0, None)
            c["logprobs"]["token_logprobs"][1] = -3.0
        handler.say(body)

    plain = client(server).label_scores(["ab"], ["xy", "z"])
    server.answer = answer
    assert torch.equal(client(server).label_scores(["ab"], ["xy", "z"]), plain)


def test_what_passes_by_itself_is_tried_again(server):
    calls = []

    def answer(handler, body):
        calls.append(1)
        handler.say({"error": "busy"}, 503) if len(calls) == 1 else handler.say(body)

    server.answer = answer
    assert client(server).label_scores(["ab"], ["x", "y"]).isfinite().all()
    assert len(calls) == 2


def late(handler, body):
    time.sleep(0.5)
    handler.say(body)


def dripping(handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def spoil(change):
    def answer(handler, body):
        change(body)
        handler.say(body)

    return answer


def first(body):
    return body["choices"][0]["logprobs"]


BAD = {
    "late": (late, "no answer within 0.2 seconds"),
    "dripping": (dripping, "not complete in time|no answer within"),
    "cut off": (
        lambda h, b: h.say(json.dumps(b).encode()[:50], promised=999),
        "cut off",
    ),
    "half": (lambda h, b: h.say(json.dumps(b).encode()[:50]), "no JSON, or half of it"),
    "nothing": (lambda h, b: h.say(b""), "no JSON"),
    "closed": (
        lambda h, b: h.connection.close(),
        "RemoteDisconnected|no answer|Connection",
    ),
    "its own error": (
        lambda h, b: h.say({"error": "no memory"}, 500),
        "500.*no memory",
    ),
    "a wrong key": (lambda h, b: h.say({"error": "who"}, 401), "401.*key is missing"),
    "nothing there": (lambda h, b: h.say({}, 404), "404.*ends in /v1"),
    "elsewhere": (
        lambda h, b: h.say(b"", 302, headers=[("Location", "http://127.0.0.1:9/")]),
        "302.*no redirection",
    ),
    "a list": (lambda h, b: h.say([1, 2]), "JSON object"),
    "no choices": (spoil(lambda b: b.pop("choices")), "answered 0 choices for 2"),
    "one choice": (spoil(lambda b: b["choices"].pop()), "answered 1 choices for 2"),
    "twice the same": (
        spoil(lambda b: b["choices"][1].update(index=0)),
        "each needs its own",
    ),
    "numbers twice": (
        spoil(lambda b: b["choices"].append(b["choices"][0])),
        "answered 3 choices for 2.*each needs its own",
    ),
    "numbers as texts": (
        spoil(lambda b: [c.update(index=str(c["index"])) for c in b["choices"]]),
        "each needs its own",
    ),
    "no numbers": (
        spoil(lambda b: [c.pop("index") for c in b["choices"]]),
        "each needs its own",
    ),
    "true and false": (
        spoil(lambda b: [c.update(index=bool(c["index"])) for c in b["choices"]]),
        "each needs its own",
    ),
    "no logprobs": (
        spoil(lambda b: b["choices"][0].pop("logprobs")),
        "must know `echo`",
    ),
    "lists that differ": (
        spoil(lambda b: first(b)["tokens"].pop()),
        "no list of tokens",
    ),
    "no echo": (
        spoil(lambda b: first(b).update(tokens=["!"], token_logprobs=[-1.0])),
        "did not echo",
    ),
    "another text": (
        spoil(lambda b: first(b)["tokens"].__setitem__(1, "?")),
        "not echo",
    ),
    "above zero": (
        spoil(lambda b: first(b)["token_logprobs"].__setitem__(2, 0.5)),
        "at most 0",
    ),
    "not a number": (
        spoil(lambda b: first(b)["token_logprobs"].__setitem__(2, None)),
        "gave None",
    ),
    "huge": (
        lambda h, b: h.say(json.dumps(b).replace("-0.3", "-1" + "0" * 400).encode()),
        "finite number",
    ),
    "5,000 digits": (
        lambda h, b: h.say(json.dumps(b).replace("-0.3", "-1" + "0" * 5000).encode()),
        "no JSON",
    ),
    "true": (
        spoil(lambda b: first(b)["token_logprobs"].__setitem__(2, False)),
        "gave False",
    ),
    "nested": (
        lambda h, b: h.say(b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "no JSON",
    ),
    "infinite": (
        spoil(lambda b: first(b)["token_logprobs"].__setitem__(2, -math.inf)),
        "finite number",
    ),
    "joined tokens": (
        spoil(
            lambda b: first(b).update(
                tokens=["a", "bx", "y", "!"], token_logprobs=[None, -1, -1, -1]
            )
        ),
        "joins the end of the prompt",
    ),
    "a label that goes on": (
        spoil(
            lambda b: first(b).update(
                tokens=["a", "b", "x", "y!"], token_logprobs=[None, -1, -1, -1]
            )
        ),
        "joins the end of the label 'xy'",
    ),
}


@pytest.mark.parametrize("manner", BAD)
def test_a_bad_answer_is_an_error_and_no_number(server, manner):
    server.answer, words = BAD[manner]
    slow = manner in ("late", "dripping")
    made = client(server, timeout=0.2 if slow else 5.0, retries=0)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=words):
        made.label_scores(["ab"], ["xy", "z"])
    assert time.monotonic() - began < 4


def test_no_server_at_all():
    made = ic.RemoteModel("http://127.0.0.1:9/v1", "m", timeout=1, retries=0)
    with pytest.raises(
        RuntimeError, match="gave no answer in 1 attempts.*Is it running"
    ):
        made.label_scores(["ab"], ["x", "y"])


def test_the_key_travels_over_https_or_to_this_machine_only(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    made = client(server)
    made.label_scores(["ab"], ["x", "y"])
    assert server.seen[0][1]["Authorization"] == "Bearer sk-secret"
    assert "secret" not in repr(made)
    with pytest.raises(ValueError, match="take https, or key_variable=None"):
        ic.RemoteModel("http://example.org/v1", "m")
    ic.RemoteModel("https://example.org/v1", "m")
    ic.RemoteModel("http://example.org/v1", "m", key_variable=None)
    monkeypatch.setenv("OPENAI_API_KEY", "a\nb")
    with pytest.raises(ValueError, match="no key that a header can carry"):
        client(server)


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("key", ["sk-secret", "sk/se+cret=="])
def test_no_message_repeats_the_key(server, monkeypatch, status, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    made = client(server, retries=0)
    spelled = json.dumps({"error": f"{'x' * 30} bad key {key} and {key}"})
    for text in (spelled, spelled.replace("/", "\\/"), "bad key " + key):
        server.answer = lambda h, b: h.say(text.encode(), status)
        for ask in (lambda: made.label_scores(["ab"], ["x", "y"]), made.write):
            with pytest.raises(RuntimeError) as error:
                ask("ab") if ask == made.write else ask()
            words = str(error.value)
            assert "cret" not in words
            assert "***" in words or status == 200
    server.answer = lambda h, b: h.wfile.write(f"HTTP/1.1 {key}\r\n\r\n".encode())
    with pytest.raises(RuntimeError, match=r"\*\*\*") as error:
        made.write("ab")
    assert "cret" not in str(error.value)


@pytest.mark.parametrize("key", ["null", "0", "text", "index"])
def test_a_key_that_is_none_spoils_no_answer(server, monkeypatch, key):
    plain = client(server).label_scores(["ab"], ["xy", "z"])
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert torch.equal(client(server).label_scores(["ab"], ["xy", "z"]), plain)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    scores = client(server).label_scores(["sk-secret"], ["xy", "z"])
    assert scores.isfinite().all()  # a text that was sent comes back as it is


def test_pickles_and_copies_hold_no_key(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    made = client(server, key_variable="SOME_KEY")
    far = ic.RemoteModel("https://example.org/v1", "m", key_variable="SOME_KEY")
    stored = [pickle.dumps(m) for m in (made, far)]
    assert all(b"secret" not in s and b"SOME_KEY" in s for s in stored)
    for again in (pickle.loads(stored[0]), copy.copy(made), copy.deepcopy(made)):
        again.write("ab")
        assert server.seen[-1][1]["Authorization"] == "Bearer sk-secret"
        assert again.timeout == 5.0 and again.model_name() == "m"
    monkeypatch.setenv("SOME_KEY", "sk-other")
    pickle.loads(stored[0]).write("ab")
    assert server.seen[-1][1]["Authorization"] == "Bearer sk-other"
    monkeypatch.setenv("SOME_KEY", "two words")
    with pytest.raises(ValueError, match="SOME_KEY holds no key"):
        pickle.loads(stored[1])
    monkeypatch.delenv("SOME_KEY")
    pickle.loads(stored[0]).write("ab")
    assert "Authorization" not in server.seen[-1][1]
    readable = ic.RemoteModel("http://example.org/v1", "m", key_variable="SOME_KEY")
    stored = pickle.dumps(readable)
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with pytest.raises(ValueError, match="asked over http"):
        pickle.loads(stored)


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, "x", "-1", "+5"])
def test_lengths_that_are_none(server, length):
    def answer(handler, body):
        handler.wfile.write(
            f"HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
            + json.dumps(body).encode()
        )

    server.answer = answer
    made = client(server, retries=0)
    if length[0] in "9+":  # what http.client reads as 5 cuts the answer
        with pytest.raises(RuntimeError, match="cut off|half of it"):
            made.label_scores(["ab"], ["x", "y"])
    else:
        assert made.label_scores(["ab"], ["x", "y"]).isfinite().all()


SECRETS = [
    "http://me:hunter2@host/v1",
    "http://me:hunter2@host:port/v1",
    "http://me:hunter2@[host/v1",
    "http://me:hunter2@ho st/v1",
    "http://me:hun/ter2@host/v1",
    "http://me:1/hunter2@host/v1",
    "http://me:hunter2\uff20host/v1",
    "ftp://me:hunter2@host/v1",
    "me:hunter2@host",
    "http://host/v1?key=hunter2",
    "ftp://host/v1?key=hunter2",
    b"http://me:hunter2@host/v1",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_message_repeats_a_password(url):
    text = url.decode() if isinstance(url, bytes) else url
    for make in (
        lambda: ic.RemoteModel(url, "m"),
        lambda: ic.model_at(url),
        lambda: ic.model_at(f"openai:{text}#m"),
        lambda: load_language_model(text, offline=True),
        lambda: load_language_model(f"openai:{text}", offline=True),
        lambda: load_language_model(f"openai:{text}"),
    ):
        with pytest.raises(ValueError) as error:
            make()
        words = str(error.value)
        assert "hun" not in words and "ter2" not in words


def test_a_password_with_a_number_sign_is_no_models_name():
    for word in ("12", "s3"):
        with pytest.raises(ValueError, match="no user, password") as error:
            ic.model_at(f"openai:http://me:{word}#word@host/v1")
        assert word not in str(error.value) and "word@" not in str(error.value)
    assert ic.model_at("openai:http://host/v1#@cf/m").model_name() == "@cf/m"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a..b/v1", "can be looked up"),
        (f"http://{'a' * 64}.org/v1", "can be looked up"),
        ("http://host/caf\u00e9", "ASCII"),
        ("http://host/v1#m", "no #"),
        ("http://host/@team/v1", "no @"),
        ("localhost:8000", "http://"),
        ("ftp://host/v1", "http://"),
        ("http://", "name a host"),
        ("http://user:word@host/v1", "no user, password"),
        ("http://host/v1?key=3", "no user, password or query"),
        ("http://host:port/v1", "http://host:port/path"),
        ("http://ho st/v1", "http://"),
        ("http://host/v1\r\nX: y", "http://"),
    ],
)
def test_addresses_that_are_none(url, words):
    with pytest.raises(ValueError, match=words):
        ic.RemoteModel(url, "m")


def test_writing_and_matching(server):
    server.answer = lambda h, b: h.say(
        {"choices": [{"text": " Play Music, of course"}], "usage": None}
    )
    made = client(server)
    text = made.write("ab", 5)
    assert server.seen[0][2]["max_tokens"] == 5 and server.seen[0][2]["stop"] == ["\n"]
    assert ic.match_label(text, ["play", "play music", "pay"]) == 1
    assert ic.match_label("player", ["play", "pay"]) is None
    assert ic.match_label("", ["play", "pay"]) is None
    apart, joined = "cafe\u0301", "caf\u00e9"
    for said, label in ((apart, joined), (joined, apart)):
        assert ic.match_label(said, [label, "tea"]) == 0
        assert ic.match_label(said, ["cafe", "tea"]) is None
    assert ic.match_label("q\u0307", ["q", "tea"]) is None  # has no single letter
    assert ic.match_label("tea\u00b2", ["q", "tea"]) is None
    assert ic.match_label("STRASSE!", ["straße", "tea"]) == 0
    with pytest.raises(RuntimeError, match="without a count"):
        made.usage.tokens_for(1)
    with pytest.raises(RuntimeError, match="of 0 answers"):
        ic.Usage().tokens_for(1)
    with pytest.raises(ValueError, match="must be different"):
        ic.match_label("a", ["a", "A"])
    server.answer = lambda h, b: h.say({"choices": [{}]})
    with pytest.raises(RuntimeError, match="holds no text"):
        made.write("ab")
