"""A client against servers that answer late, wrongly or not at all."""

import contextlib
import json
import math
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


@pytest.mark.parametrize(
    ("url", "words"),
    [
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
    with pytest.raises(RuntimeError, match="without a count"):
        made.usage.tokens_for(1)
    with pytest.raises(RuntimeError, match="of 0 answers"):
        ic.Usage().tokens_for(1)
    with pytest.raises(ValueError, match="must be different"):
        ic.match_label("a", ["a", "A"])
    server.answer = lambda h, b: h.say({"choices": [{}]})
    with pytest.raises(RuntimeError, match="holds no text"):
        made.write("ab")
