"""ADWIN of river on the streams of the chapter "When is a surge a surge?".

    pip install river
    python benchmarks/alerts.py

It tests both ways; rings for a rise alone are counted, as all rules of the chapter look
for rises. Its significance `delta` is chosen such that quiet streams ring once in so
many days; then the streams with a doubled rate are read, and the days until the first
alarm are stored, stream by stream. It takes a few seconds of one core. The numbers go
to results/benchmarks/alerts.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from metalearn_book.book.results import save_results
from metalearn_book.case_studies.alerts import draw_counts

ROOT = Path(__file__).resolve().parent.parent
#: as in the chapter
SEED, DAY_RATE, START, RUNS = 0, 1.0, 200, (30, 90, 365, 1095)
DELTAS = (0.9, 0.5, 0.2, 0.05, 0.01, 1e-3, 1e-4)
LATEST = 400


def detector(delta: float):
    "ADWIN that looks every day. ModuleNotFoundError says how to get it."
    try:
        from river.drift import ADWIN
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            "this benchmark needs river; install it with: pip install river"
        ) from e
    return ADWIN(delta=delta, clock=1)


def rings(counts, delta: float):
    """Where ADWIN rings for a rise on each row, `(n, T)`: the mean of what it keeps is
    above that before. It starts afresh by itself, after a fall too."""
    found = np.zeros(counts.shape, bool)
    for i, row in enumerate(counts.tolist()):
        one = detector(delta)
        for t, v in enumerate(row):
            before = one.estimation
            one.update(v)
            found[i, t] = one.drift_detected and one.estimation > before
    return found


def delta_for(run: float, runs: dict[float, float]) -> float:
    "The delta with this run length, by interpolation of logarithms."
    x = np.log(list(runs.values()))
    return float(np.exp(np.interp(np.log(run), x, np.log(list(runs)))))


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    began = time.process_time()
    quiet = draw_counts(DAY_RATE, 60, 3650, np.random.default_rng(SEED + 3))
    runs = {}
    for delta in DELTAS:
        runs[delta] = quiet.size / max(int(rings(quiet, delta).sum()), 1)
        print(f"delta {delta:g}: a run of {runs[delta]:.0f} days", flush=True)
    rng = np.random.default_rng(SEED + 5)
    surged = draw_counts(DAY_RATE, 2000, START + LATEST, rng, 0, 2.0, START)
    adwin = {}
    for run in RUNS:
        if not min(runs.values()) <= run <= max(runs.values()):
            continue
        delta = delta_for(run, runs)
        inside = rings(surged, delta)[:, START:]
        days = np.where(inside.any(1), inside.argmax(1) + 1, LATEST)
        adwin[str(run)] = {"delta": delta, "delays": days.tolist()}
        print(f"run {run}: delta {delta:.2g}, {days.mean():.1f} days", flush=True)
    seconds = time.process_time() - began
    numbers = {"runs": {f"{k:g}": v for k, v in runs.items()}, "adwin": adwin}
    os.environ.setdefault("METALEARN_RESULTS", str(ROOT / "results"))
    config = {"clock": 1, "quiet_years": 600, "river": version("river")}
    save_results(
        "benchmarks/alerts", numbers, seed=SEED, config=config, seconds=seconds
    )
    return 0


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
