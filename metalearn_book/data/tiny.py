"""Tiny data sets made by grammars: intents, entities, sentiment. The same on every
machine, in well under a second.

Word order decides, not the choice of words. Intents of a domain use the same words in
another order ("did you pay the rent", "you did pay the rent"), negation has a scope
("do not forget to pay", "forget it , do not pay"), roles are swapped ("from savings to
checking", "to savings from checking"), and a subordinate clause may speak of another
domain.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from .arguments import real, whole

__all__ = [
    "tiny_intents",
    "tiny_entities",
    "tiny_sentiment",
    "INTENT_DOMAINS",
    "ENTITY_NAMES",
]


def _pick(rng: Random, options):
    """One of the options. `random()` alone is promised to give the same numbers in
    every version of Python.
    """
    return options[int(rng.random() * len(options))]


def _fill(rng: Random, template: str, **fixed: str) -> str:
    """Fill the slots of a template: fixed words where given, else a random filler;
    `{o2}` never repeats `{o}`.
    """
    used: dict[str, str] = dict(fixed)

    def word(match: re.Match) -> str:
        slot = match[1]
        if slot not in used:
            taken = set(used.values())
            used[slot] = _pick(
                rng, [w for w in _FILLERS[slot.rstrip("2")] if w not in taken]
            )
        return used[slot]

    return re.sub(r"\{(\w+)\}", word, template)


# ---------------------------------------------------------------- intents

_FILLERS = {
    "p": "anna ben clara david emma felix grace hugo".split(),
    "day": (
        "today|tomorrow|on monday|on friday|this week|this evening|at noon|next week"
    ).split("|"),
    "city": "paris oslo lisbon vienna dublin".split(),
    "sum": "ten twenty fifty ninety".split(),
    "device": "heating lamp radio fan".split(),
}


class _Domain(NamedTuple):
    """Six intents: ask to do it, forbid it, ask whether it is done, tell that it is
    done, and two directions that mirror each other.
    """

    name: str
    verbs: tuple[tuple[str, str], ...]
    objects: tuple[str, ...]
    intents: tuple[str, ...]
    ends: tuple[str, str]
    turns: tuple[str, ...]


#: the domains of `tiny_intents`: verbs, things, the six intents and their forms
INTENT_DOMAINS = (
    _Domain(
        "banking",
        (("pay", "paid"), ("settle", "settled")),
        ("rent", "bill", "invoice", "loan", "fee"),
        (
            "pay_bill",
            "keep_bill_open",
            "ask_bill_paid",
            "say_bill_paid",
            "to_checking",
            "to_savings",
        ),
        ("savings", "checking"),
        (
            "move {sum} from {a} to {b}",
            "move {sum} to {b} from {a}",
            "take {sum} out of {a} and put it into {b}",
            "{b} needs {sum} and {a} has it",
            "put {sum} into {b} and take it out of {a}",
            "i want {sum} in {b} , not in {a}",
        ),
    ),
    _Domain(
        "calendar",
        (("cancel", "cancelled"), ("drop", "dropped")),
        ("meeting", "appointment", "review", "interview", "workshop"),
        (
            "cancel_meeting",
            "keep_meeting",
            "ask_cancelled",
            "say_cancelled",
            "to_afternoon",
            "to_morning",
        ),
        ("morning", "afternoon"),
        (
            "shift the {o} from the {a} to the {b}",
            "move the {o} to the {b} from the {a}",
            "i want the {o} in the {b} , not in the {a}",
            "the {o} was in the {a} , put it in the {b}",
            "put the {o} in the {b} , it was in the {a}",
            "the {a} is full , the {b} has room for the {o}",
        ),
    ),
    _Domain(
        "travel",
        (("book", "booked"), ("reserve", "reserved")),
        ("flight", "train", "hotel", "seat", "cabin"),
        (
            "book_trip",
            "do_not_book",
            "ask_booked",
            "say_booked",
            "leave_home",
            "come_home",
        ),
        ("home", "{city}"),
        (
            "find a way from {a} to {b}",
            "how do i get to {b} from {a}",
            "i am at {a} and go to {b}",
            "i go to {b} and i am at {a} now",
            "bring me from {a} to {b}",
            "a trip to {b} from {a}",
        ),
    ),
    _Domain(
        "house",
        (("lock", "locked"), ("close", "closed")),
        ("door", "window", "garage", "gate", "shutter"),
        (
            "lock_door",
            "leave_open",
            "ask_locked",
            "say_locked",
            "on_at_arrival",
            "off_at_arrival",
        ),
        ("on", "off"),
        (
            "turn the {device} {a} when i come and {b} when i go",
            "when i come turn the {device} {a} and {b} when i go",
            "when i go turn the {device} {b} and {a} when i come",
            "turn the {device} {b} when i go and {a} when i come",
            "the {device} must be {a} when i come , not {b}",
            "the {device} must be {b} when i go , not {a}",
        ),
    ),
    _Domain(
        "kitchen",
        (("cook", "cooked"), ("serve", "served")),
        ("soup", "rice", "fish", "pie", "stew"),
        (
            "cook_dish",
            "do_not_cook",
            "ask_cooked",
            "say_cooked",
            "butter_for_oil",
            "oil_for_butter",
        ),
        ("oil", "butter"),
        (
            "use {b} instead of {a}",
            "replace {a} with {b} in the {o}",
            "i have no {a} so use {b} for the {o}",
            "instead of {a} use {b}",
            "take {b} for the {o} , not {a}",
            "put {b} where the {o} has {a}",
        ),
    ),
    _Domain(
        "messages",
        (("send", "sent"), ("print", "printed")),
        ("letter", "photo", "email", "note", "report"),
        (
            "send_letter",
            "do_not_send",
            "ask_sent",
            "say_sent",
            "give_to_person",
            "get_from_person",
        ),
        ("me", "{p}"),
        (
            "pass the {o} from {a} to {b}",
            "bring {b} the {o} of {a}",
            "let {b} read the {o} from {a}",
            "the {o} from {a} is for {b}",
            "for {b} there is a {o} from {a}",
            "take the {o} to {b} from {a}",
        ),
    ),
    _Domain(
        "music",
        (("play", "played"), ("save", "saved")),
        ("song", "album", "podcast", "playlist", "concert"),
        (
            "play_song",
            "do_not_play",
            "ask_played",
            "say_played",
            "jazz_first",
            "rock_first",
        ),
        ("jazz", "rock"),
        (
            "first {a} and then {b}",
            "i want {a} before {b}",
            "i want {b} after {a}",
            "start with {a} and end with {b}",
            "end with {b} but start with {a}",
            "then {b} but first {a}",
        ),
    ),
    _Domain(
        "shopping",
        (("return", "returned"), ("order", "ordered")),
        ("jacket", "coat", "shirt", "bag", "watch"),
        (
            "return_item",
            "keep_item",
            "ask_returned",
            "say_returned",
            "larger_size",
            "smaller_size",
        ),
        ("small", "large"),
        (
            "exchange the {a} {o} for the {b} one",
            "i have the {a} {o} but i need the {b} one",
            "i need the {b} {o} but i have the {a} one",
            "take the {a} {o} and give me the {b} one",
            "give me the {b} {o} and take the {a} one",
            "the {b} {o} , not the {a} one",
        ),
    ),
)

_ACTS = (
    # ask to do it; half of the templates hold a negation that leaves the deed alone
    (
        "please {v} the {o}",
        "can you {v} the {o}",
        "i want you to {v} the {o}",
        "you can {v} the {o} now",
        "make sure you {v} the {o}",
        "do not forget to {v} the {o}",
        "why not {v} the {o}",
        "{v} the {o} , not the {o2}",
        "do not wait , {v} the {o}",
        "never forget to {v} the {o}",
        "make sure you do not forget to {v} the {o}",
        "please {v} the {o} , do not wait",
    ),
    # forbid it
    (
        "please do not {v} the {o}",
        "can you not {v} the {o}",
        "i do not want you to {v} the {o}",
        "you can not {v} the {o} now",
        "make sure you do not {v} the {o}",
        "forget it , do not {v} the {o}",
        "wait , do not {v} the {o}",
        "never {v} the {o}",
        "not the {o} , please do not {v} it",
        "please wait , you can not {v} the {o} now",
        "why {v} the {o} , forget it",
    ),
    # ask whether it is done
    (
        "did you {v} the {o}",
        "is the {o} {d}",
        "was the {o} {d}",
        "have you {d} the {o}",
        "has {p} {d} the {o}",
        "did {p} {v} the {o}",
        "have i {d} the {o}",
        "was it {p} who {d} the {o}",
        "do you know if the {o} is {d}",
        "i do not know , is the {o} {d}",
        "the {o} , was it {d}",
    ),
    # tell that it is done
    (
        "you did {v} the {o}",
        "the {o} is {d}",
        "the {o} was {d}",
        "you have {d} the {o}",
        "{p} has {d} the {o}",
        "{p} did {v} the {o}",
        "i have {d} the {o}",
        "it was {p} who {d} the {o}",
        "i do know that the {o} is {d}",
        "do you not know , the {o} is {d}",
        "it was {d} , the {o}",
    ),
)
_CLAUSES = (
    "because the {o} was {d}",
    "after the {o} was {d}",
    "now that the {o} is {d}",
    "although {p} has {d} the {o}",
    "while you {v} the {o}",
    "before you {v} the {o}",
    "after {p} did {v} the {o}",
    "if you did not {v} the {o}",
)
_OPENINGS = ("hey", "listen", "well", "so", "ok")


def _in_domain(rng: Random, domain: _Domain, template: str, **fixed: str) -> str:
    verb, done = _pick(rng, domain.verbs)
    objects = list(domain.objects)
    first = objects.pop(int(rng.random() * len(objects)))
    return _fill(
        rng, template, v=verb, d=done, o=first, o2=_pick(rng, objects), **fixed
    )


def _core(rng: Random, domain: _Domain, act: int) -> str:
    if act < 4:
        return _in_domain(rng, domain, _pick(rng, _ACTS[act]))
    a, b = (_fill(rng, end) for end in (domain.ends if act == 4 else domain.ends[::-1]))
    return _in_domain(rng, domain, _pick(rng, domain.turns), a=a, b=b)


def _intent(rng: Random, domain: _Domain, act: int, distract: float) -> str:
    """The core, perhaps with a day, an opening word and a clause about another domain
    before or after it.
    """
    text = _core(rng, domain, act)
    if rng.random() < 0.4:
        text = f"{text} {_pick(rng, _FILLERS['day'])}"
    if rng.random() < distract:
        other = _pick(rng, [d for d in INTENT_DOMAINS if d is not domain])
        clause = _in_domain(rng, other, _pick(rng, _CLAUSES))
        text = f"{clause} , {text}" if rng.random() < 0.5 else f"{text} {clause}"
    return f"{_pick(rng, _OPENINGS)} {text}" if rng.random() < 0.25 else text


def _until_new(make, seen: set[str]) -> Iterator[str]:
    "What `make` gives, without anything that was given before."
    while True:
        text = make()
        if text not in seen:
            seen.add(text)
            yield text


@functools.lru_cache(maxsize=4)
def tiny_intents(
    per_class: int = 80, test_per_class: int = 20, distract: float = 0.3, seed: int = 0
) -> tuple[tuple[str, str, str, str], ...]:
    """Rows (text, intent, domain, part): 48 intents in 8 domains, no text twice.

    per_class, test_per_class: rows of each intent, and how many of them are `test`.
    distract: the share of rows with a clause from another domain.
    """
    per_class = whole("per_class", per_class, 0)
    test_per_class = whole("test_per_class", test_per_class, 0)
    distract, seed = real("distract", distract, 0, 1), whole("seed", seed, 0)
    rng, seen, rows = Random(seed), set(), []
    for domain in INTENT_DOMAINS:
        for act, label in enumerate(domain.intents):
            texts = _until_new(lambda: _intent(rng, domain, act, distract), seen)
            rows += [
                (
                    next(texts),
                    label,
                    domain.name,
                    "train" if i < per_class - test_per_class else "test",
                )
                for i in range(per_class)
            ]
    return tuple(rows)


# ---------------------------------------------------------------- sentiment

_ASPECTS = {
    "films": ("plot", "acting", "ending", "music", "dialogue"),
    "hotels": ("room", "bed", "view", "breakfast", "pool"),
    "phones": ("battery", "screen", "camera", "sound", "keyboard"),
    "restaurants": ("soup", "wine", "service", "dessert", "menu"),
}
_GOOD = "great wonderful excellent lovely superb brilliant charming impressive".split()
_BAD = "awful dull terrible poor dreadful clumsy boring weak".split()
# {x} agrees with the label, {y} contradicts it
_OPINIONS = (
    "the {a} was {x}",
    "i expected a {y} {a} but it was {x}",
    "the {a} was {x} although i expected it to be {y}",
    "the {a} was not {y} at all",
    "nobody could call the {a} {y}",
    "people say the {a} is {y} but i found it {x}",
    "i found the {a} {x} but people say it is {y}",
    "anything but {y} , this {a}",
    "the {a} went from {y} to {x}",
    "the {a} is {x} , not {y}",
    "the {a} is not {y} , it is {x}",
    "i can not say that the {a} was {y}",
    "the {a} could not be more {x}",
    "never have i seen such a {x} {a}",
    "i have never seen a {y} {a} here",
)


@functools.lru_cache(maxsize=4)
def tiny_sentiment(
    per_class: int = 200, test_per_class: int = 50, seed: int = 0
) -> tuple[tuple[str, str, str, str], ...]:
    """Rows (text, label, domain, part): positive and negative sentences about 4
    domains, no text twice.

    per_class, test_per_class: rows of each label in a domain, and how many of them are
    `test`.
    """
    per_class = whole("per_class", per_class, 0)
    test_per_class = whole("test_per_class", test_per_class, 0)
    rng, seen, rows = Random(whole("seed", seed, 0)), set(), []
    for domain, aspects in _ASPECTS.items():
        for label, x, y in (("positive", _GOOD, _BAD), ("negative", _BAD, _GOOD)):

            def sentence():
                text = _fill(
                    rng,
                    _pick(rng, _OPINIONS),
                    a=_pick(rng, aspects),
                    x=_pick(rng, x),
                    y=_pick(rng, y),
                )
                if rng.random() < 0.4:
                    text += _pick(
                        rng,
                        (
                            f" in these {domain}",
                            " , that is all",
                            f" {_pick(rng, _FILLERS['day'])}",
                            " if you ask me",
                        ),
                    )
                return text

            texts = _until_new(sentence, seen)
            rows += [
                (
                    next(texts),
                    label,
                    domain,
                    "train" if i < per_class - test_per_class else "test",
                )
                for i in range(per_class)
            ]
    return tuple(rows)


# ---------------------------------------------------------------- entities

#: Names of each type. Most belong to two or three types.
ENTITY_NAMES = {
    "person": "jordan|paris|florence|chad|georgia|austin|may|april|june|ruby|"
    "victoria|lincoln|florence baker|jordan lee|austin may|ruby stone",
    "city": "paris|florence|austin|phoenix|boston|lincoln|victoria|orange|"
    "new boston|san marino|port victoria",
    "country": "jordan|chad|georgia|turkey|cuba|san marino|south georgia|new cuba",
    "company": "amazon|apple|orange|jaguar|puma|lincoln|phoenix|ruby|amazon motors|"
    "apple and stone|jordan motors",
    "river": "amazon|jordan|orange|victoria|phoenix|boston|little amazon|black jaguar",
    "planet": "mercury|venus|mars|phoenix|titan|new venus|little titan",
    "food": "apple|orange|turkey|mars|java|cuba|black java|turkey stew|florence stew",
    "animal": "jaguar|puma|turkey|python|swift|titan|phoenix|black puma|little swift",
    "date": "may|april|june|april 12|may 3|early june|late april",
    "language": "java|ruby|python|swift|mercury|julia|modern java",
    "film": "titan|phoenix|venus|boston|cuba|april|the last jaguar|may and june|"
    "the python",
    "band": "mercury|phoenix|boston|orange|titan|the swift|black venus|the last april",
    "ship": "titan|victoria|venus|swift|georgia|the last titan|queen victoria",
    "street": "lincoln street|victoria street|orange street|paris street|"
    "boston road|jordan road|april road",
}
_CONTEXTS = {
    "person": (
        "i met {} in the office",
        "my cousin {} laughed",
        "{} called me back",
        "we had a talk with {} and her sister",
    ),
    "city": (
        "we live in downtown {}",
        "the mayor of {} resigned",
        "the airport of {} is closed",
        "they rent a flat in {}",
    ),
    "country": (
        "the president of {} resigned",
        "the border of {} is closed",
        "citizens of {} voted",
        "the army of {} is small",
    ),
    "company": (
        "shares of {} fell",
        "she works for {} as a manager",
        "{} opened a new factory",
        "i bought stock of {}",
    ),
    "river": (
        "we swam in the {} for an hour",
        "a boat sank in the {}",
        "the banks of the {} are muddy",
        "the {} flows into the sea",
    ),
    "planet": (
        "a probe landed on {}",
        "the orbit of {} is long",
        "we saw {} through the telescope",
        "the moons of {} are small",
    ),
    "food": (
        "i ate {} for lunch",
        "a plate of {} please",
        "the cook burnt the {}",
        "they serve cold {}",
    ),
    "animal": (
        "the zoo has a new {}",
        "a {} ran into the forest",
        "the vet treated the {}",
        "the {} sleeps in its cage",
    ),
    "date": (
        "the course starts in {}",
        "the end of {} was cold",
        "we closed the shop since {}",
        "my birthday is in {}",
    ),
    "language": (
        "the code is written in {}",
        "she compiles her {} program",
        "a {} library for servers",
        "the syntax of {} is odd",
    ),
    "film": (
        "we watched {} at the cinema",
        "the trailer of {} is out",
        "the actors in {} were bad",
        "the director of {} spoke",
    ),
    "band": (
        "the drummer of {} left",
        "a concert by {} was loud",
        "the new album of {} is out",
        "i heard {} on stage",
    ),
    "ship": (
        "the captain of the {} spoke",
        "the {} left the harbour",
        "all cabins of the {} are full",
        "passengers boarded the {}",
    ),
    "street": (
        "the shop is at 12 {}",
        "turn left into {}",
        "traffic jam in {} today",
        "the bus stops in {}",
    ),
}
_JOINS = ("and", "while", "because", "but", "although")


def _tagged(rng: Random, kind: str) -> tuple[list[str], list[str]]:
    "A phrase that holds one entity, as tokens and tags."
    name = _pick(rng, ENTITY_NAMES[kind].split("|")).split()
    before, after = (side.split() for side in _pick(rng, _CONTEXTS[kind]).split("{}"))
    if name[0] == "the" and before[-1:] == ["the"]:
        before.pop()
    return before + name + after, ["O"] * len(before) + [f"B-{kind}"] + [
        f"I-{kind}"
    ] * (len(name) - 1) + ["O"] * len(after)


@functools.lru_cache(maxsize=4)
def tiny_entities(
    n: int = 2000, n_test: int = 500, seed: int = 0
) -> tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...]:
    """Rows (tokens, BIO tags, part): 14 entity types, one or two entities a sentence,
    no sentence twice.

    n, n_test: sentences, and how many of them are `test`.
    """
    n, n_test = whole("n", n, 0), whole("n_test", n_test, 0)
    rng, rows, kinds = Random(whole("seed", seed, 0)), {}, list(ENTITY_NAMES)
    while len(rows) < n:
        tokens, tags = _tagged(rng, kinds[len(rows) % len(kinds)])
        if rng.random() < 0.6:
            more, more_tags = _tagged(rng, _pick(rng, kinds))
            tokens, tags = (
                tokens + [_pick(rng, _JOINS)] + more,
                tags + ["O"] + more_tags,
            )
        rows.setdefault(tuple(tokens), tuple(tags))
    return tuple(
        (tokens, tags, "test" if i >= n - n_test else "train")
        for i, (tokens, tags) in enumerate(rows.items())
    )
