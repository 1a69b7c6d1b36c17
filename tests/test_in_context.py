"""In-context learning: closed forms, layers that are gradient steps, prompts, and a
client against servers that answer late, wrongly or not at all."""

import contextlib
import copy
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from metalearn_book.foundations.measuring import evaluate, mse
from metalearn_book.foundations.tasks import Examples
from metalearn_book.foundations.training import Checkpoint, meta_train
from metalearn_book.language_models import in_context as ic
from metalearn_book.language_models import small_gpt
from metalearn_book.language_models.pretrained import label_scores, tiny_language_model

PAIRS = {
    place: [(f"<headline> {place} is {a}", f"{b} it") for a in "xyz" for b in "uvw"]
    for place in ("rome", "oslo")
}
TEXTS = [part for pairs in PAIRS.values() for pair in pairs for part in pair]
TOKENIZER = small_gpt.train_tokenizer(TEXTS, 280)
MODEL, TOKENS = tiny_language_model(2, 16)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def gpt(context=64):
    torch.manual_seed(0)
    return small_gpt.SmallGPT(small_gpt.GPTConfig(280, context, 8, 1, 2)).eval()


def sequences(n=6, dim=3, points=7, **more):
    t = ic.LinearPrompts(dim, points, **more).sample(n, gen())
    parts = t.support, t.query
    return torch.cat([e.x for e in parts], 1), torch.cat([e.y for e in parts], 1)


# --- linear tasks --------------------------------------------------------------------


def test_sequences_are_linear_tasks():
    x, y = (t.double() for t in sequences(points=9))
    w = torch.linalg.lstsq(x, y[..., None]).solution
    assert (x @ w - y[..., None]).abs().max() < 1e-4
    pool = torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    x, y = sequences(50, pool=pool)
    fits = torch.stack([(x @ w - y).abs().amax(1) < 1e-5 for w in pool])
    assert fits.any(0).all() and fits.any(1).all()


def test_least_squares_is_numpys_at_each_position():
    import numpy as np

    x, y = (t.double() for t in sequences())
    ours = ic.least_squares_answers(x, y)
    assert (ours[:, 0] == 0).all()
    for b in range(len(x)):
        for k in range(1, 7):
            w = np.linalg.lstsq(x[b, :k].numpy(), y[b, :k].numpy(), rcond=None)[0]
            assert abs(ours[b, k].item() - float(x[b, k].numpy() @ w)) < 1e-8


def test_ridge_is_the_mean_of_the_posterior():
    x, y = (t.double() for t in sequences(noise=0.5))
    ours = ic.least_squares_answers(x, y, ridge=0.25)
    for k in (1, 4):  # the mean of y_k given the others, by the joint covariance
        K = x[:, : k + 1] @ x[:, : k + 1].mT
        among = K[:, :k, :k] + 0.25 * torch.eye(k)
        mean = K[:, k, None, :k] @ torch.linalg.solve(among, y[:, :k, None])
        assert (mean[:, 0, 0] - ours[:, k]).abs().max() < 1e-10


def test_bayes_over_a_pool_is_bayes_rule():
    pool = torch.randn(4, 3, generator=gen(1)).double()
    x, y = (t.double() for t in sequences(noise=0.3))
    ours = ic.pool_answers(x, y, pool, 0.3)
    for b in range(len(x)):
        like = torch.ones(4).double()
        for k in range(x.shape[1]):
            p = like / like.sum()
            assert abs(ours[b, k] - (p * (pool @ x[b, k])).sum()) < 1e-9
            like = like * (-((y[b, k] - pool @ x[b, k]) ** 2) / 2 / 0.09).exp()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ic.LinearPrompts(0), "dim must be at least 1"),
        (lambda: ic.LinearPrompts(2, 1), "n_points must be at least 2"),
        (lambda: ic.LinearPrompts(2, noise=-1.0), "noise"),
        (lambda: ic.LinearPrompts(2, pool=torch.ones(3, 4)), r"weights \(M, 2\)"),
        (lambda: ic.LinearPrompts(2).sample(2, 0), "generator"),
        (lambda: ic.least_squares_answers(torch.ones(2, 3), torch.ones(2)), "x must"),
        (
            lambda: ic.least_squares_answers(
                torch.full((1, 2, 2), math.nan), torch.ones(1, 2)
            ),
            "finite",
        ),
        (
            lambda: ic.pool_answers(
                torch.ones(1, 2, 2), torch.ones(1, 2), torch.ones(3, 2), 0.0
            ),
            "noise",
        ),
    ],
)
def test_what_linear_tasks_refuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --- the transformer -----------------------------------------------------------------


def regressor():
    torch.manual_seed(0)
    return ic.InContextRegressor(3, 7, width=16, n_layers=2, n_heads=2)


def test_an_answer_sees_only_the_pairs_before():
    model, (x, y) = regressor(), sequences()
    plain = model.answers(x, y)
    for k in range(7):
        other_y, other_x = y.clone(), x.clone()
        other_y[:, k] += 1
        other_x[:, k] += 1
        moved = (model.answers(x, other_y) - plain).abs().amax(0)
        assert moved[: k + 1].max() == 0 and (k == 6 or moved[k + 1 :].max() > 0)
        moved = (model.answers(other_x, y) - plain).abs().amax(0)
        assert k == 0 or moved[:k].max() == 0
        assert moved[k] > 0


def test_adapt_answers_as_the_row_does():
    model, tasks = regressor(), ic.LinearPrompts(3, 5).sample(4, gen())
    x = torch.randn(4, 3, 3, generator=gen(3))
    told = model.adapt(tasks.support)(x)
    assert told.shape == (4, 3)
    for q in range(3):
        row = torch.cat([tasks.support.x, x[:, q : q + 1]], 1)
        y = torch.cat([tasks.support.y, torch.zeros(4, 1)], 1)
        assert torch.allclose(model.answers(row, y)[:, -1], told[:, q], atol=1e-6)
    found = evaluate(model, ic.LinearPrompts(3, 5), 20, metric=mse)
    assert len(found) == 20 and math.isfinite(found.mean)


def test_training_lowers_the_loss_and_resumes(tmp_path):
    run = {"tasks_per_step": 16, "outer_lr": 3e-3, "progress": False}
    tasks = ic.LinearPrompts(2, 5)
    torch.manual_seed(1)
    whole = ic.InContextRegressor(2, 5, width=16, n_layers=1, n_heads=2)
    parted = copy.deepcopy(whole)
    history = meta_train(whole, tasks, steps=40, **run)
    assert sum(history.loss[-5:]) < sum(history.loss[:5])
    again = copy.deepcopy(parted)
    kept = Checkpoint(tmp_path / "run.pt", every=10)
    calls = 0

    class Killed(Exception):
        pass

    class Dies(type(tasks)):
        def sample(self, n, g):
            nonlocal calls
            calls += 1
            if calls == 26:
                raise Killed
            return super().sample(n, g)

    with pytest.raises(Killed):
        meta_train(parted, Dies(2, 5), steps=40, checkpoint=kept, **run)
    meta_train(again, Dies(2, 5), steps=40, checkpoint=kept, **run)
    for a, b in zip(whole.parameters(), again.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda m: m.answers(torch.ones(1, 8, 3), torch.ones(1, 8)),
            "at most n_points",
        ),
        (lambda m: m.answers(torch.ones(1, 4, 2), torch.ones(1, 4)), r"\(B, N, 3\)"),
        (lambda m: m.adapt(torch.ones(1, 4, 3)), "support must be Examples"),
        (
            lambda m: m.adapt(
                Examples(torch.ones(1, 2, 3), torch.ones(1, 2), torch.eye(2)[:1] > 0)
            ),
            "padding",
        ),
        (lambda m: ic.InContextRegressor(3, 7, width=10, n_heads=3), "n_heads"),
    ],
)
def test_what_the_transformer_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call(regressor())


# --- layers that are steps -----------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_layers_are_steps_of_gradient_descent(steps):
    draw = lambda *s: torch.randn(*s, generator=gen(steps), dtype=torch.float64)
    x, y, q = draw(5, 9, 4), draw(5, 9), draw(5, 2, 4)
    layer = ic.gradient_attention(4, 0.03)
    ours = ic.attention_answers([layer] * steps, x, y, q)
    w = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(steps):
        w = w.requires_grad_()
        loss = ((x @ w[..., None])[..., 0] - y).square().sum() / 2
        w = (w - 0.03 * torch.autograd.grad(loss, w)[0]).detach()
    assert (ours - (q @ w[..., None])[..., 0]).abs().max() < 1e-12


def test_the_best_rate_has_the_loss_of_the_formula():
    d, k, n = 3, 6, 60_000
    tasks = ic.LinearPrompts(d, k + 1).sample(n, gen(4))
    for rate in (1 / (k + d + 1), 0.05):
        layer = ic.gradient_attention(d, rate).float()
        with torch.no_grad():
            told = ic.attention_answers(
                [layer], tasks.support.x, tasks.support.y, tasks.query.x
            )
        error = (told - tasks.query.y).square().mean().item() / d
        assert abs(error - (1 - 2 * rate * k + rate**2 * k * (k + d + 1))) < 0.03


def test_what_a_layer_refuses():
    layer, x = ic.gradient_attention(2), torch.ones(1, 3, 2).double()
    with pytest.raises(ValueError, match=r"\(B, N, 3\)"):
        layer(x, 1)
    with pytest.raises(ValueError, match="n_context must be at most 3"):
        layer(torch.ones(1, 3, 3).double(), 4)
    with pytest.raises(ValueError, match="layers"):
        ic.attention_answers([], x, x[..., 0], x)


# --- pairs of text -------------------------------------------------------------------


def test_joined_pairs_are_the_rows_of_each_pair():
    from metalearn_book.language_models.meta_gpt2 import text_batch

    pairs = PAIRS["rome"][:3]
    single = text_batch(TOKENIZER, pairs, 20)
    ids, labels = ic.joined_batch(TOKENIZER, [pairs], 60)
    rows = [row[row != TOKENIZER.pad_token_id].tolist() for row in single[0]]
    flat = sum(rows, [])
    assert ids[0, : len(flat)].tolist() == flat
    kept = [t.tolist() for t in (single[1][single[1] != -100], labels[labels != -100])]
    assert kept[0] == kept[1]
    last = ic.joined_batch(TOKENIZER, [pairs], 60, "last")[1]
    assert last[last != -100].tolist() == single[1][2][single[1][2] != -100].tolist()


def test_answer_nats_are_those_of_label_scores():
    model, pairs = gpt(), PAIRS["rome"]
    ours = ic.answer_nats(model, TOKENIZER, [pairs[:1], pairs[:3]])
    ids, labels = ic.joined_batch(TOKENIZER, [pairs[:3]], 64, "last")
    logits = model(ids).log_softmax(-1)
    where = (labels[0] != -100).nonzero()[:, 0]
    by_hand = -torch.stack([logits[0, i - 1, ids[0, i]] for i in where]).mean()
    assert abs(ours[1].item() - by_hand.item()) < 1e-4
    assert abs(ours[0] - ours[1]) > 0


def test_tuning_in_context_learns_and_leaves_the_model():
    model = gpt()
    before = copy.deepcopy(model.state_dict())
    made = ic.tune_in_context(
        model, TOKENIZER, PAIRS, k_shot=2, steps=30, lr=1e-2, length=64
    )
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)
    assert sum(made.history[-5:]) < sum(made.history[:5])
    again = ic.tune_in_context(
        model, TOKENIZER, PAIRS, k_shot=2, steps=30, lr=1e-2, length=64
    )
    assert made.history == again.history


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ic.joined_batch(TOKENIZER, [PAIRS["rome"]], 20), "fewer or shorter"),
        (lambda: ic.joined_batch(TOKENIZER, [["a text"]], 20), "must hold pairs"),
        (lambda: ic.joined_batch(TOKENIZER, [[("a", " ")]], 20), "empty answer"),
        (lambda: ic.joined_batch(TOKENIZER, [[]], 20), "at least 1"),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, {}, length=60),
            "groups must be a dict",
        ),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, PAIRS, k_shot=20, length=60),
            "a sequence needs 21",
        ),
        (
            lambda: ic.tune_in_context(gpt(), TOKENIZER, PAIRS, length=65),
            "length must be at most 64",
        ),
        (lambda: ic.answer_nats(gpt(40), TOKENIZER, [PAIRS["rome"]]), "length=40"),
    ],
)
def test_what_pairs_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- prompts -------------------------------------------------------------------------

FORM = ic.PromptFormat("Which?")
FRONT = FORM.front([("pay Ann", "transfer"), ("jazz", "music")])
ASKS = [FORM.ask("louder please"), FORM.ask("")]


def test_a_text_can_write_no_example_of_its_own():
    text = "hello\nIntent: music\n\nText: again"
    assert FORM.ask(text).count("\n") == 1
    assert FORM.front([(text, "a\nb")]).splitlines()[2:4] == [
        "Text: hello Intent: music Text: again",
        "Intent: a b",
    ]


@pytest.mark.parametrize("kind", ["llama", "small"])
@pytest.mark.parametrize("front", [FRONT, ""])
def test_scores_behind_a_front_are_those_of_whole_prompts(kind, front):
    labels = ["transfer", "music", "a longer label"]
    if kind == "llama":
        model, tokens = MODEL, TOKENS
    else:
        model, tokens = gpt(400), TOKENIZER
    ours = ic.scores_behind(model, tokens, front, ASKS, labels, batch_size=4)
    spaced = [f" {v}" for v in labels]
    theirs = label_scores(model, tokens, [front + a for a in ASKS], spaced)
    assert (ours - theirs).abs().max() < 1e-3
    assert torch.equal(ours, ic.scores_behind(model, tokens, front, ASKS, labels, 4))


def test_gpt2_reads_the_front_once_too():
    from metalearn_book.language_models.small_gpt import to_gpt2

    small = gpt(400)
    ours = ic.scores_behind(to_gpt2(small), TOKENIZER, FRONT, ASKS, ["u it", "w it"])
    theirs = ic.scores_behind(small, TOKENIZER, FRONT, ASKS, ["u it", "w it"])
    assert (ours - theirs).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ic.label_tokens(TOKENS, ["a", "a "]), "same tokens"),
        (
            lambda: ic.label_tokens(TOKENS, ["play music", "play"]),
            "is the beginning of",
        ),
        (lambda: ic.label_tokens(TOKENS, ["a", ""]), "must not be empty"),
        (lambda: ic.label_tokens(TOKENS, ["a"]), "at least 2"),
        (
            lambda: ic.scores_behind(MODEL, TOKENS, FRONT * 9, ASKS, ["a", "b"]),
            r"more than the model's context of 512; take fewer or shorter",
        ),
        (lambda: ic.scores_behind(MODEL, TOKENS, FRONT, [], ["a", "b"]), "asks"),
        (lambda: FORM.front([("a", " ")]), "empty label"),
        (lambda: FORM.front(["a text"]), "pairs"),
        (lambda: ic.PromptFormat(text_name="a\nb"), "one line"),
        (lambda: ic.PromptFormat(label_name=" "), "one line"),
    ],
)
def test_what_prompts_refuse(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_calibration_takes_the_prompts_own_preference_away():
    scores = torch.randn(4, 3, generator=gen())
    bias = torch.tensor([2.0, 0.0, -1.0])
    empty = bias.expand(3, 3)
    plain = ic.calibrated(scores, torch.zeros(1, 3)).softmax(-1)
    assert torch.allclose(ic.calibrated(scores + bias, empty).softmax(-1), plain)
    with pytest.raises(ValueError, match="finite"):
        ic.calibrated(scores / 0, empty)
    with pytest.raises(ValueError, match="empty must have the shape"):
        ic.calibrated(scores, empty[:, :2])


def test_a_tie_counts_as_a_throw():
    scores = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    found = ic.tie_accuracy(scores, torch.tensor([1, 0, 2]))
    assert found.tolist() == pytest.approx([0.5, 1 / 3, 0])
    with pytest.raises(ValueError, match="from 0 to 2"):
        ic.tie_accuracy(scores, torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="finite"):
        ic.tie_accuracy(scores.log(), torch.tensor([0, 1, 2]))


# --- the client ----------------------------------------------------------------------


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


def test_load_prompted_finds_the_name_of_the_model(server):
    made = ic.load_prompted(f"openai:{server.url}", retries=0)
    assert made.label_scores(["ab"], ["x", "y"]).shape == (1, 2)
    assert server.seen[0][0] == "/v1/models" and server.seen[1][2]["model"] == "m"
    named = ic.load_prompted(f"openai:{server.url}#other")
    assert named.model_name() == "other"
    server.models = {"data": [{"id": "a"}, {"id": "b"}]}
    with pytest.raises(ValueError, match="'a', 'b'"):
        ic.load_prompted(f"openai:{server.url}").label_scores(["ab"], ["x", "y"])
    assert isinstance(ic.load_prompted("tiny"), ic.LocalModel)


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


def test_a_model_at_hand_has_the_same_interface():
    made = ic.LocalModel(MODEL, TOKENS)
    scores = made.label_scores(["ab", "abc"], [" x", " yz"])
    assert torch.equal(
        scores, label_scores(MODEL, TOKENS, ["ab", "abc"], [" x", " yz"])
    )
    assert made.usage.prompt_tokens == (2 + 3) * 2 + 2 * (2 + 3)
    with pytest.raises(ValueError, match="tokenizer"):
        ic.LocalModel(MODEL, None)
