"""What the engine should reach on two CPU cores, and whether it does."""

from __future__ import annotations


def _row(numbers: dict, problem: str, steps: int, way: str) -> dict | None:
    return numbers.get(problem, {}).get("steps", {}).get(str(steps), {}).get(way)


def speed(numbers: dict, problem: str, steps: int) -> float | None:
    "How many times as many tasks per second as learn2learn."
    row = _row(numbers, problem, steps, "engine") or {}
    return row.get("times as fast as learn2learn", {}).get("median")


def over_hand(numbers: dict, steps: int) -> float | None:
    "The engine's processor time over that of a loop written for the one network."
    names = "engine", "all tasks, by hand"
    ours, theirs = (_row(numbers, "sinusoids", steps, n) or {} for n in names)
    key = "processor ms"
    return ours[key] / theirs[key] if key in ours and key in theirs else None


def memory(
    numbers: dict, problem: str, ours: tuple[int, str], theirs: tuple[int, str]
) -> float | None:
    "Peak bytes of one (steps, way) over those of another."
    a, b = _row(numbers, problem, *ours), _row(numbers, problem, *theirs)
    return a["peak MB"] / b["peak MB"] if a and b else None


def entry(what: str, sense: str, limit: float, value: float | None) -> dict:
    reached = (
        None
        if value is None
        else value >= limit
        if sense == "at least"
        else value <= limit
    )
    return {
        "target": what,
        "limit": f"{sense} {limit:g}",
        "value": value,
        "reached": reached,
    }


def targets(numbers: dict) -> list[dict]:
    "One entry for each target; `reached` is None where a part of it was not measured."
    faster = "as many tasks per second as learn2learn, times"
    found = [
        entry(
            f"sinusoids, {k} step{'s'[: k > 1]}: {faster}",
            "at least",
            limit,
            speed(numbers, "sinusoids", k),
        )
        for k, limit in ((1, 10.0), (5, 8.0))
    ]
    for k in (1, 5):
        found.append(
            entry(
                f"Omniglot, {k} step{'s'[: k > 1]}: {faster}",
                "at least",
                1.15,
                speed(numbers, "omniglot", k),
            )
        )
        more = memory(numbers, "omniglot", (k, "engine"), (k, "learn2learn"))
        found.append(
            entry(
                f"Omniglot, {k} step{'s'[: k > 1]}: memory over that of learn2learn",
                "at most",
                1.2,
                more,
            )
        )
    part = memory(numbers, "gpt", (20, "engine, adjoint"), (20, "python loop"))
    growth = memory(numbers, "gpt", (100, "engine, adjoint"), (20, "engine, adjoint"))
    return [
        *found,
        entry(
            "small GPT, 20 steps: memory of the adjoint mode over the naive unroll",
            "at most",
            0.25,
            part,
        ),
        entry(
            "small GPT, adjoint mode: memory at 100 steps over that at 20",
            "at most",
            1.1,
            growth,
        ),
        *(
            entry(
                f"sinusoids, {k} step{'s'[: k > 1]}: processor time over one by hand",
                "at most",
                1.25,
                over_hand(numbers, k),
            )
            for k in (1, 5)
        ),
    ]


def show_targets(entries: list[dict]) -> None:
    print(f"\n{'target':<72}{'limit':>14}{'value':>9}  reached")
    for e in entries:
        value = "-" if e["value"] is None else f"{e['value']:.3g}"
        answer = {None: "not measured", True: "yes", False: "NO"}[e["reached"]]
        print(f"{e['target']:<72}{e['limit']:>14}{value:>9}  {answer}")
