"""Prompts as classifiers: form, labels, scores behind a front, calibration."""

import pytest
import torch

from metalearn_book.language_models import prompts as ic
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


def test_asks_that_begin_in_two_ways_are_scored_apart():
    "The start of a text is not that of the first ask alone."
    asks = ["the cat", "<dialogue> the cat"]
    with pytest.raises(ValueError, match="all asks or none must begin with a control"):
        ic.scores_behind(gpt(400), TOKENIZER, "", asks, ["u it", "w it"])
    for ask in asks:
        ours = ic.scores_behind(gpt(400), TOKENIZER, "", [ask], ["u it", "w it"])
        theirs = label_scores(gpt(400), TOKENIZER, [ask], [" u it", " w it"])
        assert (ours - theirs).abs().max() < 1e-3


def test_a_broken_model_gives_no_scores():
    broken = gpt(400)
    torch.nn.init.constant_(broken.tokens.weight, float("nan"))
    for front in ("", FRONT):
        with pytest.raises(RuntimeError, match="no numbers"):
            ic.scores_behind(broken, TOKENIZER, front, ASKS, ["u it", "w it"])
