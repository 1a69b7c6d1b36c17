"""Customer service: intents, labels, answers, and the assistant."""

import importlib.util
import json
import math
import random
import threading
import time
import warnings

import pytest
import torch
import torch.nn.functional as F

from metalearn_book import cli
from metalearn_book.case_studies.answers import BM25, TurnVectors, answer_features
from metalearn_book.case_studies.answers import answer_kind, answer_pairs, best_of_kinds
from metalearn_book.case_studies.answers import fill_template, ranks, template_of
from metalearn_book.case_studies.answers import unfaithful
from metalearn_book.case_studies.dialogue_intents import DECAY, INTENT_WEIGHTS
from metalearn_book.case_studies.dialogue_intents import class_means, context_vectors
from metalearn_book.case_studies.dialogue_intents import intent_episode, intent_features
from metalearn_book.case_studies.dialogue_intents import service_dialogues
from metalearn_book.case_studies.dialogue_intents import tiny_dialogues, turn_table
from metalearn_book.case_studies.dialogue_intents import turn_vectors
from metalearn_book.case_studies.masker import Masker, new_key
from metalearn_book.case_studies.personal_finder import PersonalDataFinder
from metalearn_book.case_studies.service_assistant import (
    ServiceAssistant,
    _wants_person,
)
from metalearn_book.case_studies.several_intents import f1_threshold, fit_shared
from metalearn_book.case_studies.several_intents import label_features, label_report
from metalearn_book.case_studies.several_intents import label_scores
from metalearn_book.data import available, class_split, load_dataset_by_name
from metalearn_book.data.dialogues import Action, Turn
from metalearn_book.data.spans import Span
from metalearn_book.foundations.encoders import load_encoder

ASK = ["I am looking for a bakery for rye."]
VALUES = {"bread": "rye", "name": "Hill Bakery", "film": "Orbit", "plant": "roses",
          "model": "cargo"}  # fmt: skip


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def learned(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ServiceAssistant("tiny", **settings)
        return made.learn(tiny_dialogues().where(part="train"))


@pytest.fixture(scope="module")
def assistant():
    return learned()


# ---------------------------------------------------------------- turns and intents


def test_context_is_the_sum_that_the_equation_says():
    z = F.normalize(torch.randn(9, 5, generator=gen(), dtype=torch.float64), dim=-1)
    c = context_vectors(z, [0] * 4 + [1] * 5, 0.7)
    for t in range(9):
        first = 0 if t < 4 else 4
        by_hand = sum(0.7 ** (t - j) * z[j] for j in range(first, t + 1))
        torch.testing.assert_close(c[t], by_hand / by_hand.norm())


def test_a_turn_that_says_nothing_has_a_vector_of_zeros_and_breaks_nothing():
    data = tiny_dialogues(1)
    turns = [tuple(t._replace(text=" ", spans=()) if i == 2 else t
                   for i, t in enumerate(d)) for d in data.turns]  # fmt: skip
    table = turn_table(type(data)(**{**vars(data), "turns": turns}))
    z = turn_vectors(load_encoder("tiny"), table)
    assert z[2].abs().max() == 0 and len(z) == len(table)
    assert context_vectors(z, table.dialogue, 0.5).isfinite().all()


@pytest.mark.parametrize("k", [0, 1, 3])
def test_episodes_keep_dialogues_apart_and_nest(k):
    table = turn_table(tiny_dialogues(6))
    e, more = (intent_episode(table, n, 0, 3) for n in (k, k + 2))
    sides = [{table.dialogue[r] for r in rows} for rows in (e.support, e.query)]
    assert not sides[0] & sides[1]
    assert set(e.support) <= set(more.support) and e.query == more.query
    names = list(table.intents)
    assert all(table.labels[r] == names[i] for r, i in zip(e.support, e.of))
    assert all(e.of.count(i) <= k for i in range(len(names)))
    with pytest.raises(ValueError, match="at_hand"):
        intent_episode(table, k, 0, 99)


def test_features_are_cosines_whatever_the_lengths():
    z, b = torch.randn(4, 6, generator=gen()), torch.randn(3, 6, generator=gen(1))
    X = intent_features(z, 3 * z, b, 2 * b, b)
    expected = F.cosine_similarity(z[:, None].double(), b[None].double(), -1)
    for column in range(4):
        torch.testing.assert_close(X[..., column], expected)
    assert X[..., 2:].abs().max() <= 1 + 1e-9
    torch.testing.assert_close(class_means(z, [1, 1, 0, 1], 2)[1], z[[0, 1, 3]].mean(0))


@pytest.mark.parametrize("part", ["train", "validation", "test", "seen"])
def test_services_of_a_part_are_those_of_the_split(part):
    if not available("sgd"):
        pytest.skip("needs sgd")
    split = class_split("sgd")
    data = service_dialogues(part, most=2)
    own = split["train" if part == "seen" else part]
    assert set(data.services) <= set(own)
    assert part == "seen" or set(data.services) == set(own)
    if part == "seen":
        assert set(data.part) <= {"validation", "test"}
    assert data == service_dialogues(part, most=2)
    assert data != service_dialogues(part, most=2, seed=1)


# ---------------------------------------------------------------- several labels


def test_left_out_scores_are_those_of_a_fit_without_the_example():
    z, Y = torch.randn(12, 5, generator=gen()), torch.rand(12, 3, generator=gen()) > 0.6
    left = label_scores(z, Y.float(), 0.3)
    for i in range(12):
        keep = torch.arange(12) != i
        again = label_scores(z[keep], Y[keep].float(), 0.3, z[i : i + 1])[0]
        torch.testing.assert_close(left[i], again, rtol=1e-6, atol=1e-8)


def test_the_threshold_is_the_best_there_is_and_splits_no_ties():
    for seed in range(20):
        g = gen(seed)
        s = (torch.rand(9, 3, generator=g) * 5).round() / 5  # many ties
        Y = torch.rand(9, 3, generator=g) > 0.6
        if not Y.any():
            continue
        at = f1_threshold(s, Y)
        tried = max(label_report(s >= t, Y)["F1"] for t in s.unique().tolist())
        assert label_report(s >= at, Y)["F1"] == pytest.approx(tried)
        assert at not in s.double().flatten().tolist()


@pytest.mark.skipif(
    not importlib.util.find_spec("sklearn"), reason="needs scikit-learn"
)
def test_reports_and_shared_weights_agree_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    Y, guess = (torch.rand(30, 4, generator=gen(i)) > 0.5 for i in (1, 2))
    report = label_report(guess, Y)
    assert report["F1"] == pytest.approx(f1_score(Y, guess, average="micro"))
    assert report["exact"] == pytest.approx(accuracy_score(Y, guess))
    X = torch.randn(30, 4, 3, generator=gen(3), dtype=torch.float64)
    ours = fit_shared(X, Y, 2.0)
    other = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10)
    theirs = other.fit(X.flatten(0, 1), Y.flatten()).coef_[0]
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-4, atol=1e-5)


def test_a_label_without_examples_has_finite_features():
    scores = label_scores(torch.randn(5, 3, generator=gen()), torch.zeros(5, 2), 1.0)
    X = label_features(scores, scores, torch.zeros(2), 5)
    assert X.isfinite().all() and (scores.abs() < 1e-12).all()


def test_nlupp_says_what_its_intents_mean():
    if not available("nlupp"):
        pytest.skip("needs nlupp")
    data = load_dataset_by_name("nlupp")
    assert set(data.descriptions) == set(data.classes)
    assert data.descriptions["affirm"] == "is the intent to affirm something?"
    assert data.where(fold="0").descriptions == data.descriptions


# ---------------------------------------------------------------- answers


def test_templates_and_filling_are_inverse():
    for turns in tiny_dialogues().turns:
        for turn in turns:
            values = {s.label: s.text for s in turn.spans}
            assert fill_template(template_of(turn), values) == turn.text


def test_two_slots_at_one_place_give_one_gap():
    turn = Turn(
        "system", "At noon.", (Span(3, 7, "a", "noon"), Span(3, 7, "b", "noon")), ()
    )
    assert template_of(turn) == "At {a}."
    with pytest.raises(ValueError, match="no value for a"):
        fill_template("At {a}.", {"a": ""})


def test_a_value_with_braces_is_not_filled_again():
    assert fill_template("{a}", {"a": "{b}", "b": "x"}) == "{b}"


def test_kinds_are_of_a_service_but_for_goodbyes():
    bye = Turn("system", "Bye.", (), (Action("GOODBYE", "", ()),))
    ask = Turn("system", "Where?", (), (Action("REQUEST", "city", ()),))
    assert answer_kind(bye, "A_1") == answer_kind(bye, "B_1")
    assert answer_kind(ask, "A_1") != answer_kind(ask, "B_1")
    assert answer_kind(Turn("system", "Hm.", (), ()), "A_1") == "A_1: "


@pytest.mark.skipif(not importlib.util.find_spec("bm25s"), reason="needs bm25s")
@pytest.mark.parametrize("k1, b", [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0)])
def test_bm25_agrees_with_the_library(k1, b):
    import bm25s

    draw = random.Random(0)
    words = "bus train fare seat city gate noon late ticket return".split()
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(40)]
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    ask = {"stopwords": [], "show_progress": False}
    index.index(bm25s.tokenize(texts, **ask), show_progress=False)
    ours = BM25(texts, k1, b)
    for query in ("late bus", "ticket ticket gate", "noon"):
        theirs = index.get_scores(query.split())
        torch.testing.assert_close(
            ours.scores([query])[0], torch.tensor(theirs).double(), rtol=1e-4, atol=1e-4
        )


def test_ranks_average_over_ties_and_agree_with_a_loop():
    s = (torch.rand(50, 6, generator=gen()) * 4).round()
    gold = torch.randint(6, (50,), generator=gen(1))
    for row, g, place in zip(s.tolist(), gold.tolist(), ranks(s, gold).tolist()):
        equal = [i for i, v in enumerate(sorted(row, reverse=True), 1) if v == row[g]]
        assert place == sum(equal) / len(equal)
    with pytest.raises(ValueError, match="gold"):
        ranks(s, gold + 6)


def test_more_past_pairs_never_lower_a_score():
    q, p = (TurnVectors(*torch.randn(3, n, 4, generator=gen(n))) for n in (2, 5))
    t, words = torch.randn(5, 4, generator=gen(9)), torch.rand(2, 5, generator=gen(8))
    kinds = [0, 1, 0, 1, 0]
    X = answer_features(q, p, words, t, kinds)
    fewer = answer_features(q, p[[0, 1]], words[:, :2], t[:2], kinds[:2])
    assert (X >= fewer - 1e-12).all()
    with pytest.raises(ValueError, match="each of 3 kinds"):
        best_of_kinds(words, [0, 2, 0, 2, 2], 3)


@pytest.mark.parametrize(
    "text, sources, wrong",
    [
        ("It leaves at 5:30 pm.", ["5:30 pm"], []),
        ("It leaves at 5:30 pm.", ["5:20 pm"], ["5:30"]),
        ("Call 408-247-8880.", ["408-247-8880"], []),
        ("It is $12.50.", ["12.50"], []),
        ("Good. I'm sure. Thanks.", [], []),
        ("The room is in Hall B.", ["hall b"], []),
        ("I'd take the Sino.", [], ["Sino"]),
        ("At {time}.", ["time"], ["{time}"]),
        ("您好，15 点", ["15"], []),
        ("", [], []),
    ],
)
def test_rules_of_faithful_answers(text, sources, wrong):
    assert unfaithful(text, sources) == wrong


def test_what_is_copied_is_faithful():
    for turns in tiny_dialogues().turns:
        for turn in turns:
            assert unfaithful(turn.text, [turn.text]) == []


# ---------------------------------------------------------------- the assistant


def test_an_empty_knowledge_base_hands_over_and_says_why(tmp_path):
    empty = ServiceAssistant("tiny")
    reply = empty.reply(["hello"])
    assert reply.handed_over and reply.why == "no past answers are known"
    assert empty.find_answers(["hello"]) == []
    with pytest.raises(ValueError, match="add_intents"):
        empty.find_intents(["hello"])
    again = ServiceAssistant.load(empty.save(tmp_path / "empty"))
    assert again.reply(["hello"]) == reply
    assert again.add_answers([(["is it open"], "Yes.")]).reply(["open?"]).text == "Yes."


def test_duplicate_answers_are_left_out_with_a_warning():
    made = ServiceAssistant("tiny")
    pair = (["is it open"], "Yes, until six.")
    with pytest.warns(UserWarning, match="1 past answers are there already"):
        made.add_answers([pair, pair])
    with pytest.warns(UserWarning, match="1 past answers"):
        made.add_answers([pair])
    assert made.templates == ["Yes, until six."] and len(made._of["z"]) == 1


def test_200_turns_cost_no_more_and_say_the_same(assistant):
    short = [f"turn {i}" for i in range(40)] + ASK
    long = [f"earlier {i}" for i in range(200)] + short
    assert len(long) > 200
    a, b = (assistant.find_answers(t, 3) for t in (short, long))
    assert [f.kind for f in a] == [f.kind for f in b]
    for x, y in zip(a, b):
        assert x.evidence == pytest.approx(y.evidence, abs=0.05)
    texts = []
    encode = assistant.encoder.encode
    assistant.encoder.encode = lambda t, *a, **k: texts.append(len(t)) or encode(t)
    try:
        assistant.reply(long)
    finally:
        del assistant.encoder.encode
    assert max(texts) < 100  # and not 241


def test_another_script_is_handed_over_and_its_own_is_not(assistant):
    for text in ("我想买面包", "Я хочу хлеба", "أريد خبزا"):
        assert "letters" in assistant.reply([text]).why
    own = ServiceAssistant("tiny").add_answers([(["我想买面包"], "好的。")])
    assert own.reply(["面包"]).text == "好的。"
    assert "letters" not in assistant.reply(["12 345 !"]).why


def test_questions_without_an_answer_can_be_turned_away():
    sure = learned(least=1.0)
    reply = sure.reply(ASK, VALUES)
    assert reply.handed_over and "below 1.00" in reply.why and reply.sure < 1


def test_no_gap_is_ever_sent(assistant):
    for turns in tiny_dialogues(seed=5).turns:
        texts = [t.text for t in turns]
        for i in range(0, len(texts), 2):
            reply = assistant.reply(texts[: i + 1])
            assert "{" not in reply.text
            assert not reply.handed_over or "no value for" in reply.why


def test_a_known_dialogue_is_answered_as_it_was(assistant):
    data = tiny_dialogues().where(part="train")
    right = n = 0
    for turns, service in zip(data.turns, data.services):
        texts = [t.text for t in turns]
        for i in range(0, len(texts) - 1, 2):
            found = assistant.find_answers(texts[: i + 1], 1)[0]
            right += found.kind == answer_kind(turns[i + 1], service)
            n += 1
    assert right / n > 0.7


def test_personal_data_over_two_turns_is_in_no_file(assistant, tmp_path):
    lines = ["My card starts with 4000 0012", "3456 7899, valid until 10/28",
             "write to ada@example.org"]  # fmt: skip
    left = iter([*lines, ""])
    masked = assistant.chat(lambda _: next(left), lambda _: None, tmp_path, VALUES)
    text = "".join(p.read_text() for p in tmp_path.glob("*.json"))
    for secret in ("4000", "0012", "3456", "7899", "ada@example.org"):
        assert secret not in text and secret not in "".join(masked)
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["turns"] == masked


def test_what_is_learned_is_masked_and_told_numbers_are_pointed_out():
    made = ServiceAssistant("tiny")
    with pytest.warns(UserWarning, match="holds personal data .email."):
        made.add_answers([(["I am ada@example.org"], "Write to bob@example.org.")])
    assert "ada@" not in "".join(made.asked)


@pytest.mark.parametrize("error", [RuntimeError("line is dead"), ValueError("bad")])
def test_a_dialogue_that_breaks_off_is_stored_masked(assistant, tmp_path, error):
    left = iter(["mail ada@example.org", error])

    def ask(_):
        line = next(left)
        if isinstance(line, Exception):
            raise line
        return line

    with pytest.raises(type(error)):
        assistant.chat(ask, lambda _: None, tmp_path, VALUES)
    (path,) = tmp_path.glob("*.json")
    assert "ada@" not in path.read_text() and "[EMAIL]" in path.read_text()


def test_a_person_can_be_asked_for_and_the_end_of_input_ends(assistant, tmp_path):
    said = []
    left = iter(["a human, please", "never read"])
    turns = assistant.chat(lambda _: next(left), said.append, tmp_path)
    assert said == [assistant.hand_over] and len(turns) == 2
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["handed_over"]

    def over(_):
        raise EOFError

    assert assistant.chat(over, said.append, tmp_path) == []
    assert len(list(tmp_path.glob("*.json"))) == 1  # an empty dialogue leaves none


def test_dialogues_do_not_overwrite_each_other(assistant, tmp_path):
    for i in range(3):
        left = iter([f"number {i}", ""])
        assistant.chat(lambda _: next(left), lambda _: None, tmp_path, VALUES)
    assert len(list(tmp_path.glob("dialogue-*.json"))) == 3


def test_saved_and_loaded_it_says_the_same(tmp_path):
    made = learned(
        least=0.02, masker=Masker(PersonalDataFinder(("email",), tagger=None))
    )
    made.encoder = load_encoder("tiny")
    again = ServiceAssistant.load(made.save(tmp_path / "a"))
    assert again.find_intents(ASK) == made.find_intents(ASK)
    assert again.find_answers(ASK) == made.find_answers(ASK)
    assert (again.least, again.masker.finder.kinds) == (0.02, made.masker.finder.kinds)
    (tmp_path / "a" / "vectors.safetensors").write_bytes(b"x")
    with pytest.raises(RuntimeError):
        ServiceAssistant.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        ServiceAssistant.load(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError):
        made.save(tmp_path / "other")


def test_the_key_of_a_masker_is_not_saved(tmp_path):
    key = new_key()
    masker = Masker(PersonalDataFinder(("email",), tagger=None), "pseudonym", key)
    made = ServiceAssistant("tiny", masker=masker).add_answers([(["open"], "Yes.")])
    made.save(tmp_path / "a")
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes()
    again = ServiceAssistant.load(tmp_path / "a", key)
    assert (
        again.masker.mask("ada@example.org").text == masker.mask("ada@example.org").text
    )


def test_nothing_is_added_where_something_is_wrong(assistant):
    made = ServiceAssistant("tiny").add_intents({"open": "Ask for opening hours"})
    before = {n: len(t) for n, t in made._of.items()}
    for call in (
        lambda: made.add_intents({"b": "x"}, [(["hi"], "c")]),
        lambda: made.add_intents({"open": "again"}),
        lambda: made.add_answers([(["a"], "b"), (["a"], "")]),
        lambda: made.add_answers([(["a"], "b")], ["k", "l"]),
        lambda: made.add_answers([([], "b")]),
        lambda: made.add_answers([(["a", " "], "b")]),
        lambda: made.reply([]),
        lambda: made.reply(["\ud800"]),
        lambda: made.reply("   "),
        lambda: made.learn([]),
    ):
        with pytest.raises(ValueError):
            call()
    assert {n: len(t) for n, t in made._of.items()} == before
    assert list(made.intents) == ["open"]


def test_weights_by_the_fewest_examples_of_an_intent():
    made = ServiceAssistant("tiny").add_intents(
        {"a": "Ask for a bus", "b": "Ask for a train"}, [(["a bus"], "a")]
    )
    v = made._vectors([["a bus"]])
    X = intent_features(v["z"], v["intent_c"], made._of["described"])
    w = torch.tensor(INTENT_WEIGHTS[0], dtype=X.dtype)  # b has no example
    expected = dict(zip("ab", (X @ w)[0].softmax(-1).tolist()))
    assert dict(made.find_intents(["a bus"])) == pytest.approx(expected, abs=1e-6)
    assert 0 < DECAY < 1


def test_threads_may_ask_at_the_same_time(assistant):
    expected, found = assistant.reply(ASK, VALUES), []
    work = lambda: found.append(assistant.reply(ASK, VALUES))
    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert found == [expected] * 4


def test_pairs_of_dialogues_are_those_of_the_turns():
    data = tiny_dialogues()
    pairs, table = answer_pairs(data), turn_table(data)
    assert len(pairs) == sum(s == "user" for s in table.speakers)
    assert all(table.texts[r] == a for r, a in zip(pairs.rows, pairs.asked))
    assert math.isclose(sum(map(len, data.turns)), len(table))


def test_the_demonstration(capsys):
    began = time.perf_counter()
    assert cli.main(["demo", "service"]) == 0
    out = capsys.readouterr().out
    assert time.perf_counter() - began < 60
    assert "learned 8 intents" in out and "stored:" in out and "3456 7899" in out
    stored = [line for line in out.splitlines() if line.startswith("stored:")]
    assert len(stored) == 3 and not any("3456" in line for line in stored)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("talk to an agent", True),
        ("Human, please!", True),
        ("I want to speak with a real person", True),
        ("Could you connect me with a colleague of yours?", True),
        ("for 1 person", False),
        ("a table for one person", False),
        ("tickets for a single person on Friday", False),
        ("my insurance agent told me to book at seven", False),
        ("", False),
    ],
)
def test_who_asks_for_a_person(text, asked):
    assert _wants_person(text) is asked
