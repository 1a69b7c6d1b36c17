"""Recipes for `personal_data`, `personal_finder` and `masker` of `case_studies`."""

import importlib.util

from odd_inputs import Recipe

from metalearn_book.case_studies.masker import Masker, MaskedSpan, new_key
from metalearn_book.case_studies.personal_data import PersonalSpan, personal_lines
from metalearn_book.case_studies.personal_finder import PersonalDataFinder

PARTS = ("case_studies",)
R = Recipe
D, F = "case_studies.personal_data.", "case_studies.personal_finder."
M = "case_studies.masker."
HAVE = {
    name: importlib.util.find_spec(name) is not None
    for name in ("phonenumbers", "cryptography")
}
KINDS = ("email", "card", "ip")
KEY = new_key()
SPANS = [PersonalSpan(0, 4, "card"), PersonalSpan(2, 9, "email")]
NEEDS_CIPHER = None if HAVE["cryptography"] else RuntimeError
TEXT = {"kinds": "leave", "regions": "sequence"}


def line() -> dict:
    return personal_lines("dev", "en")[0]


def finder() -> PersonalDataFinder:
    return PersonalDataFinder(KINDS, tagger=None)


RECIPES = {
    D + "fold": R(lambda: {"text": "a １"}, kinds={"text": "text"}),
    D + "luhn_ok": R(lambda: {"digits": "4111"}, kinds={"digits": "text"}),
    D + "is_card": R(lambda: {"digits": "4000001234567899"}, kinds={"digits": "text"}),
    D + "iban_ok": R(lambda: {"account": "DE89"}, kinds={"account": "text"}),
    D + "resident_id_ok": R(lambda: {"number": "1101"}, kinds={"number": "text"}),
    D + "PersonalSpan": R(
        lambda: {"start": 0, "end": 3, "kind": "card", "score": 1.0, "turn": 0},
        kinds={"kind": "leave", "score": "rate"},
    ),
    D + "resolve": R(
        lambda: {"spans": list(SPANS), "turns": ["x" * 20]},
        kinds={"spans": "sequence", "turns": "texts"},
    ),
    D + "find_patterns": R(
        lambda: {"text": "mail a@b.org", "kinds": KINDS, "regions": ("US",),
                 "strict": True},
        kinds={"text": "text", "kinds": "sequence", "regions": "sequence"},
    ),
    D + "find_in_turns": R(
        lambda: {"turns": ["mail a@", "b.org"], "kinds": KINDS, "regions": ("US",),
                 "strict": True},
        kinds={"turns": "texts", "kinds": "sequence", "regions": "sequence"},
    ),
    D + "personal_lines": R(
        lambda: {"part": "dev", "lang": "en"},
        kinds={"part": "choice", "lang": "choice"},
    ),
    D + "leaks": R(lambda: {"row": line(), "found": list(SPANS), "kinds": ["person"]},
                   kinds={"found": "sequence", "kinds": "sequence"}),
    D + "false_alarms": R(
        lambda: {"row": line(), "found": list(SPANS), "kinds": ["person"]},
        kinds={"found": "sequence", "kinds": "sequence"},
    ),
    D + "Share": R(
        lambda: {"value": 0.5, "low": 0.1, "high": 0.9, "n": 4, "groups": 2},
        use=str,
    ),
    D + "grouped_share": R(
        lambda: {"hits": [True, False], "groups": ["a", "b"]},
        use=lambda made: (made.low, made.high),
        kinds={"hits": "sequence", "groups": "sequence"},
    ),
    F + "code_pattern": R(lambda: {"values": ["KD12", "KF34"]},
                          kinds={"values": "texts"}),
    F + "PersonalDataFinder": R(
        lambda: {"kinds": KINDS, "regions": ("US",), "strict": True, "tagger": None,
                 "codes": True},
        use=lambda made: made.find("mail a@b.org"),
        kinds={"kinds": "sequence", "regions": "sequence", "tagger": "leave"},
    ),
    M + "new_key": R(dict, use=lambda key: len(key)),
    M + "key_id": R(lambda: {"key": KEY}, kinds={"key": "text"}),
    M + "seal": R(
        lambda: {"key": KEY, "label": "CARD", "value": "x", "linkable": True},
        fails=NEEDS_CIPHER,
        kinds={"key": "text", "label": "text", "value": "text"},
    ),
    M + "unseal": R(
        lambda: {"key": KEY, "mask": "[CARD:abcd.efgh]"}, fails=ValueError,
        kinds={"key": "text", "mask": "text"},
    ),
    M + "canonical": R(
        lambda: {"kind": "phone", "value": "212 555 0147", "region": "US"},
        kinds={"kind": "text", "value": "text", "region": "text"},
    ),
    M + "pseudonym": R(
        lambda: {"key": KEY, "label": "CARD", "value": "x"},
        kinds={"key": "text", "label": "text", "value": "text"},
    ),
    M + "MaskedSpan": R(
        lambda: {"kind": "card", "turn": 0, "start": 0, "end": 2, "at": 0, "to": 6,
                 "score": 1.0},
        kinds={"kind": "leave"},
    ),
    M + "Masked": R(
        lambda: {"text": "x", "spans": (MaskedSpan("card", 0, 0, 2, 0, 6),)},
        use=lambda made: made.counts, kinds={"text": "leave", "spans": "leave"},
    ),
    M + "Masker": R(
        lambda: {"finder": finder(), "form": "pseudonym", "key": KEY, "linkable": True,
                 "keep": ("ip",), "most": 1000},
        use=lambda made: made.mask("mail a@b.org").text,
        kinds={"finder": "leave", "key": "text", "keep": "sequence"},
    ),
    M + "MaskingFilter": R(
        lambda: {"masker": Masker(finder())}, use=lambda made: made.masker.form
    ),
}  # fmt: skip
REASONS = {M + "demo": "takes nothing, prints, and fits a tagger"}
