"""What the engine should reach on two CPU cores, and whether it does."""

from __future__ import annotations

from metalearn_book.book.targets import Target

NAME = "benchmarks/inner_loop"
COMMAND = f"python {NAME}.py"
SAME_KERNELS = (
    "with five steps the time is that of convolutions that are differentiated twice, "
    "by the same kernels of the library on both sides; the order of channels that "
    "helps where a pass is differentiated once is not taken there"
)


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


def _target(what: str, sense: str, limit: float, value, limits: str = "") -> Target:
    return Target(NAME, what, "times", sense, limit, value, COMMAND, limits=limits)


def _steps(k: int) -> str:
    return f"{k} step{'s'[: k > 1]}"


def targets(numbers: dict) -> list[Target]:
    "All targets of the engine; one that was not measured has no value."
    faster = "tasks per second over those of learn2learn"
    found = [
        _target(f"sinusoids, {_steps(k)}: {faster}", "at least", limit,
                speed(numbers, "sinusoids", k))
        for k, limit in ((1, 10.0), (5, 8.0))
    ]  # fmt: skip
    for k in (1, 5):
        limits = SAME_KERNELS if k == 5 else ""
        more = memory(numbers, "omniglot", (k, "engine"), (k, "learn2learn"))
        found += [
            _target(f"Omniglot, {_steps(k)}: {faster}", "at least", 1.15,
                    speed(numbers, "omniglot", k), limits),
            _target(f"Omniglot, {_steps(k)}: memory over that of learn2learn",
                    "at most", 1.2, more),
        ]  # fmt: skip
    part = memory(numbers, "gpt", (20, "engine, adjoint"), (20, "python loop"))
    growth = memory(numbers, "gpt", (100, "engine, adjoint"), (20, "engine, adjoint"))
    found += [
        _target("small GPT, 20 steps: memory of the adjoint mode over the naive unroll",
                "at most", 0.25, part),
        _target("small GPT, adjoint mode: memory at 100 steps over that at 20",
                "at most", 1.1, growth),
    ]  # fmt: skip
    return found + [
        _target(f"sinusoids, {_steps(k)}: processor time over one by hand", "at most",
                1.25, over_hand(numbers, k))
        for k in (1, 5)
    ]  # fmt: skip


def show_targets(found: list[Target]) -> None:
    print(f"\n{'target':<72}{'limit':>14}{'value':>9}  reached")
    for t in found:
        value = "-" if t.value is None else f"{t.value:.3g}"
        answer = {None: "not measured", True: "yes", False: "NO"}[t.reached]
        print(f"{t.what:<72}{f'{t.sense} {t.limit:g}':>14}{value:>9}  {answer}")
