"""Recipes for `alerts` and `alert_monitor` of `case_studies`."""

import functools
import tempfile
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from odd_inputs import Recipe

from metalearn_book.case_studies.alert_monitor import Item
from metalearn_book.case_studies.few_shot_classifier import FewShotClassifier
from metalearn_book.foundations.encoders import load_encoder

PARTS = ("case_studies",)
R = Recipe
HERE = Path(tempfile.mkdtemp(prefix="odd_alerts"))
A, M = "case_studies.alerts.", "case_studies.alert_monitor."
TEXTS = ["book a room", "a room please", "where is my card", "my card is lost"]


@functools.cache
def head() -> FewShotClassifier:
    encoder = load_encoder("tiny")
    return FewShotClassifier(encoder, head="prototype").fit(TEXTS, list("rrcc"))


def history() -> list[Item]:
    start = datetime(2026, 1, 5, tzinfo=timezone.utc)
    return [
        Item(start + timedelta(days=d), f"{d}", "Alder", f"{TEXTS[d % 4]} {d}")
        for d in range(20)
    ]


RECIPES = {
    A + "surge_score": R(lambda: {"surge": 2.0, "dispersion": 0.5}),
    A + "count_probabilities": R(lambda: {"rate": 2.0, "dispersion": 0.5}),
    A + "CountCusum": R(
        lambda: {"rates": (1.0,), "surge": 2.0, "dispersion": 0.0, "limit": 20},
        use=lambda made: made.references,
        kinds={"rates": "sequence"},
    ),
    A + "draw_counts": R(
        lambda: {
            "rates": (1.0,),
            "n_series": 2,
            "days": 5,
            "rng": np.random.default_rng(0),
            "dispersion": 0.5,
            "surge": 2.0,
            "start": 2,
        },
        kinds={"rates": "sequence"},
    ),
    M + "apparent_surge": R(lambda: {"surge": 2.0, "precision": 0.5}),
    M + "Item": R(
        lambda: {
            "time": datetime(2026, 1, 1, tzinfo=timezone.utc),
            "id": "1",
            "entity": "Alder",
            "text": "hello",
            "title": "a title",
        },
        kinds={n: "text" for n in ("id", "entity", "text", "title")},
    ),
    M + "Alert": R(
        lambda: {
            "id": "1",
            "entity": "Alder",
            "series": "cards",
            "time": "2026-01-01",
            "since": "2026-01-01",
            "count": 3,
            "expected": 1.0,
            "texts": (("1", "title"),),
            "previous": "",
        },
        use=str,
        kinds={
            n: "leave"
            for n in ("id", "entity", "series", "time", "since", "texts", "previous")
        },
    ),
    M + "AlertMonitor": R(
        lambda: {
            "heads": {"topic": head()},
            "watch": {"cards": {"topic": "c"}},
            "surge": 2.0,
            "false_alarms": 4.0,
            "timezone": "UTC",
            "weekdays": True,
            "repeat_days": 7,
            "hold_days": 7,
            "on_odd": "raise",
        },
        use=lambda made: made.fit(history()).charts_,
    ),
    M + "alert_files": R(lambda: {"folder": HERE / "alerts"}),
    M + "draw_items": R(
        lambda: {
            "texts": {"a": ["x", "y"]},
            "rates": {"a": 1.0},
            "entities": ["Alder"],
            "first": date(2026, 1, 5),
            "days": 3,
            "rng": np.random.default_rng(0),
            "surge": ("Alder", "a", 2.0, 1),
        },
        kinds={"surge": "leave", "texts": "leave"},
    ),
}
REASONS = {M + "demo": "takes nothing and prints"}
