"""Tags, decoding, scores and episodes of sentences."""

import json
import math
import random
from collections import Counter

import pytest
import torch

from metalearn_book.case_studies.sequence_labels import Episode, EpisodeF1
from metalearn_book.case_studies.sequence_labels import EpisodeSampler, Score
from metalearn_book.case_studies.sequence_labels import bio_labels, bio_transitions
from metalearn_book.case_studies.sequence_labels import check_sentences, decode_bio
from metalearn_book.case_studies.sequence_labels import decode_types
from metalearn_book.case_studies.sequence_labels import f1_of_episodes, greedy_rows
from metalearn_book.case_studies.sequence_labels import lean_to_mentions, load_episodes
from metalearn_book.case_studies.sequence_labels import mention_counts, mentions_of
from metalearn_book.case_studies.sequence_labels import pooled_f1, repair_tags
from metalearn_book.case_studies.sequence_labels import save_episodes
from metalearn_book.case_studies.sequence_labels import score_by_type, score_mentions
from metalearn_book.case_studies.sequence_labels import tags_of, viterbi
from metalearn_book.data import available, load_dataset_by_name
from metalearn_book.data.tagged import bio_error


# tags


@pytest.mark.parametrize(
    "sentences, message",
    [
        ([], "there are no sentences"),
        ([(["a", "b"], ["O"])], "2 words but 1 tags"),
        ([([], [])], "no words"),
        ([(["a", " "], ["O", "O"])], "an empty word"),
        ([("ab", ["O", "O"])], "got a string"),
        ([(["a"], ["I-x"])], "token 0"),
        ([(["a", "b"], ["B-x", "I-y"])], "token 1"),
        ([(["a"], ["B-"])], "neither O nor B-type"),
        ([(["a"], ["x"])], "neither O nor B-type"),
    ],
)
def test_bad_sentences(sentences, message):
    with pytest.raises(ValueError, match=message):
        check_sentences([(["fine"], ["O"])] * bool(sentences) + sentences)


def random_tags(rng, n, types="abc"):
    return [
        rng.choice(["O", *(f"{m}-{t}" for t in types for m in "BI")]) for _ in range(n)
    ]


def test_repair_and_mentions_are_consistent():
    rng = random.Random(1)
    for _ in range(500):
        tags = random_tags(rng, rng.randint(1, 10))
        good = repair_tags(tags)
        assert bio_error(good) is None and repair_tags(good) == good
        assert tags_of(mentions_of(good), len(good)) == good
        assert [t == "O" for t in tags] == [t == "O" for t in good]


def test_seqeval_agrees_on_mentions_and_reports():
    pytest.importorskip("seqeval")
    from seqeval.metrics import classification_report, f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    rng = random.Random(2)
    for _ in range(1000):
        tags = random_tags(rng, rng.randint(1, 12))
        assert [(a, b - 1, t) for a, b, t in mentions_of(repair_tags(tags))] == [
            (a, b, t) for t, a, b in get_entities(tags)
        ]
    true = [repair_tags(random_tags(rng, 8)) for _ in range(200)]
    guess = [[t if rng.random() < 0.8 else "O" for t in tags] for tags in true]
    report = classification_report(true, guess, output_dict=True)
    for t, s in score_by_type(true, guess).items():
        assert (s.precision, s.recall, s.f1, s.true) == pytest.approx(
            (
                report[t]["precision"],
                report[t]["recall"],
                report[t]["f1-score"],
                report[t]["support"],
            )
        )
    assert score_mentions(true, guess).f1 == pytest.approx(f1_score(true, guess))


def test_scores_of_nothing_and_of_unequal_lengths():
    assert (
        score_mentions([["O"]], [["O"]]) == Score()
        and Score().f1 == Score().precision == Score().recall == 0
    )
    with pytest.raises(ValueError, match="1 sentences but 2"):
        score_mentions([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sentence 0 has 1 tags but 2"):
        score_mentions([["O"]], [["O", "O"]])


def test_viterbi_by_brute_force_with_any_transitions():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 4):
        for _ in range(30):
            scores, transitions, first = (
                torch.randn(*s, generator=generator, dtype=torch.float64)
                for s in ((n, 4), (4, 4), (4,))
            )
            every = torch.cartesian_prod(*[torch.arange(4)] * n).view(-1, n)
            total = (
                first[every[:, 0]]
                + scores[torch.arange(n), every].sum(1)
                + transitions[every[:, :-1], every[:, 1:]].sum(1)
            )
            path, value = viterbi(scores, transitions, first)
            assert path == every[total.argmax()].tolist() and value == pytest.approx(
                total.max().item()
            )


def test_viterbi_with_extreme_scores_stays_valid():
    labels = bio_labels(["a", "b"])
    scores = torch.full((6, 5), -1e9)
    scores[:, 2] = 0.0  # the network is sure of I-a everywhere
    assert (
        bio_error([labels[i] for i in viterbi(scores, *bio_transitions(labels))[0]])
        is None
    )
    with pytest.raises(ValueError, match="n = 0"):
        viterbi(torch.zeros(0, 5), *bio_transitions(labels))


def test_leaning_lowers_o_alone():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    moved = lean_to_mentions(logits, 1.5)
    assert torch.allclose(moved[:, 1] - moved[:, 2], logits[:, 1] - logits[:, 2]) and (
        moved - logits
    )[0, 1] - (moved - logits)[0, 0] == pytest.approx(1.5)
    assert torch.allclose(lean_to_mentions(logits, 0.0), logits.log_softmax(-1))


# episodes


@pytest.fixture(scope="module")
def pool():
    return load_dataset_by_name("tiny_entities").where(part="train")


@pytest.fixture(scope="module")
def episode(pool):
    return EpisodeSampler(pool, 3).sample(2, 2, random.Random(0))


def test_episodes_keep_their_promises(pool):
    sampler = EpisodeSampler(pool, 4)
    for seed in range(20):
        k = 1 + seed % 3
        e = sampler.sample(k, 2, random.Random(seed))
        assert len(set(e.types)) == 4 and not set(e.support) & set(e.query)
        for which, low in (("support", k), ("query", 2)):
            counts = sum(
                (mention_counts(tags, e.types) for _, tags in e.sentences(pool, which)),
                Counter(),
            )
            assert all(low <= counts[t] <= 2 * low for t in e.types) and set(
                counts
            ) == set(e.types)
        assert e == sampler.sample(k, 2, random.Random(seed))


def test_refused_rows_are_refused_for_good():
    rng = random.Random(0)
    for _ in range(200):
        counts = [
            Counter(
                {t: rng.randint(1, 3) for t in rng.sample("abcd", rng.randint(1, 3))}
            )
            for _ in range(12)
        ]
        once, twice = (
            greedy_rows(counts, list("abcd"), 2, order)
            for order in (list(range(12)), [i for i in range(12)] * 2)
        )
        assert twice is None or once == twice or once is None
        if once is None and twice is not None:
            assert len(set(twice)) < len(twice)  # only by taking a row a second time


def test_impossible_episodes(pool):
    with pytest.raises(ValueError, match="n_way=99"):
        EpisodeSampler(pool, 99)
    with pytest.raises(ValueError, match="lower k, k_query or n_way"):
        EpisodeSampler(pool, 2).sample(10_000, 1, random.Random(0), tries=3)


def test_episode_files(tmp_path, pool, episode):
    path = tmp_path / "e.json"
    save_episodes(path, [episode], pool, seed=0)
    assert (
        load_episodes(path, pool) == [episode]
        and json.loads(path.read_text())["seed"] == 0
    )
    for content, message in (
        ("{", "is no episode file"),
        ('{"episodes": [{"types": []}]}', "is no episode file"),
        (path.read_text().replace('"sha256": "', '"sha256": "0'), "are others"),
        (path.read_text().replace('"seed": 0', '"seed": 8'), "is damaged"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_episodes(path, pool)


# real data


@pytest.mark.skipif(not available("crossner"), reason="CrossNER is not available")
@pytest.mark.parametrize("domain", ["ai", "science"])
def test_episodes_of_crossner(domain):
    pool = load_dataset_by_name("crossner").where(domain=domain, part="test")
    for k in (1, 5):
        e = EpisodeSampler(pool, 5, ("misc",)).sample(k, 5, random.Random(0))
        assert "misc" not in e.types and isinstance(e, Episode) and len(e.support) >= 1


# other schemes


@pytest.mark.parametrize(
    "tags, bio",
    [
        ("O S-city", "O B-city"),
        ("B-a E-a S-a", "B-a I-a B-a"),
        ("B-a I-a L-a U-a O", "B-a I-a I-a B-a O"),
        ("B-a M-a E-a W-b", "B-a I-a I-a B-b"),
        ("B-a E-a I-a", "B-a I-a B-a"),  # an E closes
        ("E-a L-a O E-b", "B-a B-a O B-b"),
        ("S-a I-a", "B-a B-a"),
        ("B-a I-b", "B-a B-b"),
    ],
)
def test_other_schemes_become_bio(tags, bio):
    assert repair_tags(tags.split()) == bio.split()
    words = [f"w{i}" for i in range(len(bio.split()))]
    valid = all(
        t[0] in "OBSUW" or u[0] == "I" for t, u in zip(tags.split(), bio.split())
    )
    if valid:
        assert check_sentences([(words, tags.split())]) == [(words, bio.split())]
    else:  # repaired for a network's answers, refused as labels
        with pytest.raises(ValueError, match="an entity opens with B-"):
            check_sentences([(words, tags.split())])


def test_schemes_agree_with_seqeval():
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    rng = random.Random(3)
    for _ in range(500):
        marks = [m for m in "BIES"]
        tags = [
            rng.choice(["O", *(f"{m}-{t}" for t in "ab" for m in marks)])
            for _ in range(rng.randint(1, 8))
        ]
        found = [(a, b - 1, t) for a, b, t in mentions_of(repair_tags(tags))]
        assert found == [(a, b, t) for t, a, b in entities(tags)], tags


@pytest.mark.parametrize(
    "tag", ["city", "B", "B-", "X-city", "b-city", 3, "", "B_city"]
)
def test_what_is_no_tag_is_refused(tag):
    with pytest.raises(ValueError, match="neither O nor B-type"):
        repair_tags(["O", tag])


def test_words_without_a_label():
    assert repair_tags([None, "B-a", None, "I-a", None]) == [
        None,
        "B-a",
        "I-a",
        "I-a",
        None,
    ]
    assert repair_tags(["O", None, "I-a"]) == ["O", None, "B-a"]
    assert mentions_of([None, "B-a", None]) == [(1, 2, "a")]


@pytest.mark.parametrize(
    "sentence, message",
    [
        ("ab", "must be lists"),
        ((["a"], ["O"], ["x"]), "is no pair"),
        (None, "is no pair"),
        ((["a"], 3), "got a int"),
        (({"a": 1}, ["O"]), "got a dict"),
        ((["a", None], ["O", "O"]), "a word is the NoneType"),
        ((["a"], [3]), "names of the labels"),
    ],
)
def test_sentences_of_another_form(sentence, message):
    with pytest.raises(ValueError, match=f"sentence 0.*{message}"):
        check_sentences([sentence])


def test_no_label_sequence_is_the_best_of_nan():
    labels = bio_labels(["city"])
    transitions, first = bio_transitions(labels)
    scores = torch.zeros(2, len(labels))
    scores[1, 0] = torch.nan
    with pytest.raises(ValueError, match="scores hold NaN"):
        viterbi(scores, transitions, first)
    with pytest.raises(ValueError, match="lean must be a finite number"):
        decode_bio([torch.zeros(2, len(labels))], labels, lean=float("nan"))


def test_no_episodes_have_no_f1():
    with pytest.raises(ValueError, match="no episodes"):
        f1_of_episodes(None, None, [])


def episodes_f1(*scores):
    return EpisodeF1(torch.tensor([s.f1 for s in scores]), 0, scores=scores)


def test_pooled_f1_is_a_weighted_mean():
    rng = random.Random(0)
    scores = [
        Score(min(p, t, rng.randrange(5)), p, t)
        for p, t in ((rng.randrange(1, 20), rng.randrange(1, 9)) for _ in range(60))
    ]
    a, b = episodes_f1(*scores[:30]), episodes_f1(*scores[30:])
    total = sum(a.scores, Score())
    assert pooled_f1(a).mean == pytest.approx(total.f1)
    gap = pooled_f1(a, b)
    assert gap.is_difference and gap.ci95 > 0
    assert gap.mean == pytest.approx(pooled_f1(a).mean - pooled_f1(b).mean)
    same = episodes_f1(*[Score(1, 2, 3)] * 5)  # no episode differs
    assert pooled_f1(same).ci95 == pytest.approx(0, abs=1e-12)
    assert math.isnan(pooled_f1(episodes_f1(Score(1, 2, 3))).ci95)
    with pytest.raises(ValueError, match="not the same episodes"):
        pooled_f1(a, same)


def test_the_interval_of_pooled_f1_covers():
    "Episodes from a population whose pooled F1 is known."
    generator = torch.Generator().manual_seed(0)
    right, extra, true = (
        torch.randint(n, (400,), generator=generator).tolist() for n in (5, 30, 5)
    )
    world = [Score(r, r + e, r + t) for r, e, t in zip(right, extra, true)]
    truth, held = sum(world, Score()).f1, 0
    for _ in range(200):
        rows = torch.randint(400, (25,), generator=generator).tolist()
        one = pooled_f1(episodes_f1(*[world[i] for i in rows]), n_boot=200)
        held += abs(one.mean - truth) <= one.ci95
    assert 180 <= held <= 199


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Score(3, 2, 4), "right must be at most 2, got 3"),
        (lambda: Episode(["a"], [0.5], []), "support must be a whole number"),
        (lambda: Episode(["a"], [0], []).sentences([]), "support holds row 0"),
        (lambda: tags_of([(0, 1)], 2), "a mention must be"),
        (lambda: decode_types([torch.zeros(2, 2)], ["a", "b"]), "must have the shape"),
        (lambda: greedy_rows([Counter()], ["a"], 1, [3]), "order holds 3"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
