"""The table of all methods: every learner and head of the package on the same episodes,
with the same encoder and the same budget.

    python benchmarks/leaderboard                     make what is missing; go on
    python benchmarks/leaderboard --bed 'omniglot 5w1s' --row ProtoNet     one cell
    python benchmarks/leaderboard --list              what there is, and what is missing
    python benchmarks/leaderboard --workers 2 | --ray

A cell is made where it is missing, unfinished, or of other code or settings. What is
done is stored after every training run under results/leaderboard; a killed run goes on
from there. Two processes of one checkout never make the same cell.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from beds import beds
from cells import ROOT, is_done, is_old, path_of, read_cell, what_decides
from jobs import by_ray, folders, in_processes
from rows import all_rows
from tqdm.auto import tqdm


def wanted(args) -> list[tuple[str, str, str]]:
    "Bed, row and reason of the cells to make, views behind the rows that they look at."
    rows, _ = all_rows()
    for name, known in (("bed", beds()), ("row", rows)):
        for asked in getattr(args, name) or []:
            if asked not in known:
                sys.exit(f"no {name} {asked!r}; there are: {', '.join(known)}")
    folder, jobs = folders()[0], []
    for bed in beds().values():
        for row in sorted(rows.values(), key=lambda r: bool(r.parent)):
            if args.bed and bed.name not in args.bed or not row.runs_on(bed):
                continue
            if args.row and row.name not in args.row:
                continue
            record = read_cell(path_of(bed, row, folder))
            old = record is not None and is_old(record, what_decides(bed, row, rows))
            if old or not is_done(record, bed):
                why = "made by older code or with other settings" if old else "missing"
                jobs.append((bed.name, row.name, why))
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bed", action="append", help="only this test bed")
    parser.add_argument("--row", action="append", help="only this method")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="on Ray, where installed")
    parser.add_argument("--list", action="store_true", help="say what is missing")
    args = parser.parse_args()
    jobs = wanted(args)
    if args.list:
        rows, none = all_rows()
        print(f"{len(rows)} rows, {len(beds())} test beds, {len(jobs)} cells to make")
        print(*(f"to make: {b}, {r} ({why})" for b, r, why in jobs), sep="\n")
        print(*(f"no row: {n} ({why})" for n, why in none.items()), sep="\n")
        return
    jobs = [job[:2] for job in jobs]
    views = [job for job in jobs if all_rows()[0][job[1]].parent]
    plain = [job for job in jobs if job not in views]
    run = by_ray if args.ray else lambda part: in_processes(part, args.workers)
    problems = []
    with tqdm(total=len(jobs), unit="cell") as bar:
        for part in (plain, views):
            for bed, row, said, seconds in run(part) if part else ():
                bar.update()
                bar.write(f"{bed}, {row}: {said} ({seconds:.0f} s)")
                if said.startswith(("waits", "stopped")):
                    problems.append(f"{bed}, {row}: {said}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tools"))
    import ending

    ending.run(main)
