"""Presidio's recognizers on the committed lines of the chapter "Personal data".

    pip install presidio-analyzer
    python benchmarks/personal_data.py

Nothing is fetched: the language pipeline is spaCy's blank one, which has no model, the
list of top-level domains is the one in tldextract's wheel, and the program refuses to
open a connection. Names are left out, since Presidio finds them with a model. Half a
minute, most of it for imports. The chapter reads the spans from results/benchmarks.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: entity of Presidio -> kind of the book
ENTITIES = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
}
#: which regions the telephone recognizer looks at; None: as it comes
REGIONS = {"as it comes": None, "same regions": ("US", "GB", "CN")}


def no_connection(*_, **__):
    raise OSError("this program opens no connection")


def analyzers(regions: tuple[str, ...] | None) -> dict:
    "An analyzer for English and one for Chinese, on blank pipelines."
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer import predefined_recognizers as known
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    found = {}
    for lang in ("en", "zh"):
        engine = SpacyNlpEngine(models=[{"lang_code": lang, "model_name": "blank"}])
        engine.nlp = {lang: spacy.blank(lang)}
        own = {"supported_language": lang}
        registry = RecognizerRegistry(supported_languages=[lang])
        for name in ("Email", "CreditCard", "Iban", "Ip"):
            registry.add_recognizer(getattr(known, f"{name}Recognizer")(**own))
        more = {} if regions is None else {"supported_regions": regions}
        registry.add_recognizer(known.PhoneRecognizer(**own, **more))
        found[lang] = AnalyzerEngine(
            registry=registry, nlp_engine=engine, supported_languages=[lang]
        )
    return found


def spans_of(engines: dict, row: dict) -> list[list]:
    "(turn, start, end, kind, score) of one line, each turn by itself."
    return [
        [turn, r.start, r.end, ENTITIES[r.entity_type], round(r.score, 3)]
        for turn, text in enumerate(row["turns"])
        for r in engines[row["lang"]].analyze(
            text, language=row["lang"], entities=list(ENTITIES)
        )
    ]


def main() -> int:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    from metalearn_book.book.results import save_results

    socket.socket.connect = socket.getaddrinfo = no_connection
    try:
        import presidio_analyzer  # noqa: F401
        import tldextract
    except ImportError:
        print(
            "this benchmark needs Presidio; install it with: "
            "pip install presidio-analyzer",
            file=sys.stderr,
        )
        return 1
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    place = ROOT / "metalearn_book" / "data" / "samples" / "personal_lines.json"
    rows = json.loads(place.read_text(encoding="utf-8"))["rows"]
    rows = [row for row in rows if row["part"] == "test"]
    found, seconds = {}, {}
    for name, regions in REGIONS.items():
        engines = analyzers(regions)
        spans_of(engines, rows[0])
        started = time.perf_counter()
        found[name] = {row["id"]: spans_of(engines, row) for row in rows}
        seconds[name] = time.perf_counter() - started
        n = sum(map(len, found[name].values()))
        print(f"{name}: {n} spans in {len(rows)} lines, {seconds[name]:.2f} s")
    packages = ("presidio-analyzer", "phonenumbers", "spacy", "tldextract")
    save_results(
        "benchmarks/personal_data",
        {"spans": found, "seconds": seconds},
        seed=0,
        config={
            "regions": REGIONS,
            "packages": {p: metadata.version(p) for p in packages},
        },
    )
    return 0


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
