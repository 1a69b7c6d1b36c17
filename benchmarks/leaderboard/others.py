"""Programs of others on the first 60 test episodes of the table's beds.

    python benchmarks/leaderboard/others.py              make what is missing; go on
    python benchmarks/leaderboard/others.py --bed 'hwu64 5w1s' --program SetFit
    python benchmarks/leaderboard/others.py --list       what there is, and what it says

They tune an encoder for every episode, which takes seconds of each: hence 60 episodes
of the 600, and files of their own, results/leaderboard_others/<bed>/<program>.json, in
the form that `read_cells` reads. Before anything is measured, class means on the same
episodes are held against the stored row. A file is written after every episode; a
killed run goes on from there. benchmarks/rivals.sh installs the programs.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import jobs
import programs
import torch
from beds import Bed, _texts, beds, rows_of, tasks
from cells import TEST_SEED, _used, alone, commit, path_of, read_cell, short
from cells import write_cell
from programs import PROGRAMS, Episode, Program
from rows import all_rows
from tqdm.auto import tqdm
from transformers import set_seed

from metalearn_book.book.results import versions
from metalearn_book.foundations.encoders import NearestPrototype
from metalearn_book.foundations.tasks import Examples
from metalearn_book.practice.which_method_when import Cell, read_cells

import reached  # of tools/, which `cells` has put on the path

EPISODES, AT_ONCE = 60, 25  # the rows' episodes are drawn 25 at a time
MEASURED = ("banking77 5w1s", "hwu64 5w1s")
FROZEN = "Nearest prototype, frozen"


def folders() -> tuple[Path, Path, Path]:
    "Where the table's cells are, where these are stored, and where locks lie."
    table, work = jobs.folders()
    if table == work / "results":  # smoke scale: nothing is kept
        return table, work / "others", work
    name = table.name.replace("leaderboard", "leaderboard_others")
    return table, table.with_name(name), work


# --- the same episodes ----------------------------------------------------------------


def first_episodes(bed: Bed, n: int) -> Iterator[tuple[Episode, torch.Tensor]]:
    """The first `n` test episodes of a bed, as its rows meet them, with the answers.

    ValueError: a bed whose episodes are no texts, or are drawn in another way."""
    if bed.kind != "text" or bed.data == "fewrel" or bed.n_way * bed.k_shot > 20:
        raise ValueError(
            f"{bed.name}: programs of others are asked about plain texts in episodes "
            f"of 20 examples at most; take one of {', '.join(MEASURED)}"
        )
    texts, labels, parts = _texts(bed.data)
    pool = [texts[i] for i in rows_of(bed, "test", labels, parts)]
    given, generator = tasks(bed, "test"), torch.Generator().manual_seed(TEST_SEED)
    for done in range(0, n, AT_ONCE):
        batch = given.sample(min(AT_ONCE, bed.episodes - done), generator)
        names = given.names(batch)
        for b in range(min(AT_ONCE, n - done)):
            s, q = (batch.info[f"{part}_items"][b] for part in ("support", "query"))
            yield (
                Episode(
                    [pool[i] for i in s], batch.support.y[b], [pool[i] for i in q],
                    batch.support.x[b], batch.query.x[b], names[b],
                ),
                batch.query.y[b],
            )  # fmt: skip


def check_episodes(bed: Bed, n: int, table: Path) -> None:
    """RuntimeError unless class means on these episodes give the numbers that the
    table has stored; FileNotFoundError where it has none."""
    path = path_of(bed, all_rows()[0][FROZEN], table)
    stored = read_cell(path)
    if stored is None or not stored["seeds"]:
        raise FileNotFoundError(
            f"{path} is missing, and these episodes can't be held against it; make it: "
            f"python benchmarks/leaderboard --bed '{bed.name}' --row '{FROZEN}'"
        )
    head, right = NearestPrototype(**stored["chosen"]), []
    for episode, y in first_episodes(bed, n):
        support = Examples(episode.x[None], episode.y[None])
        logits = head.adapt(support)(episode.query_x[None])[0]
        right.append(int((logits.argmax(-1) == y).sum()))
    wanted = stored["seeds"]["0"]["values"][:n]
    if right != wanted:
        first = next(i for i, pair in enumerate(zip(right, wanted)) if len({*pair}) > 1)
        raise RuntimeError(
            f"{bed.name}: class means are right {right[first]} times in episode {first}"
            f", the table has {wanted[first]}: not the same episodes or vectors. Run "
            f"{stored['command']} again"
        )


# --- one file -------------------------------------------------------------------------


def code_of(program: Program) -> str:
    "A digest of what `programs` does to measure it; other programs play no part."
    tree = ast.parse(Path(programs.__file__).read_text("utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    made = [
        c.args[1]
        for c in calls
        if len(c.args) > 1
        and isinstance(c.args[0], ast.Constant)
        and c.args[0].value == program.name
    ]
    found, _ = _used(made, [tree])
    return reached.digest(*sorted(map(reached.canonical, found)))


def settings_of(bed: Bed, n: int) -> dict:
    return replace(bed, episodes=n).settings()


def measure(
    bed: Bed, program: Program, table: Path, folder: Path, work: Path, n: int = EPISODES
) -> str:
    """Make a file, or what is missing of it. "done", "there already" or "elsewhere"
    (another process is at it) is returned. RuntimeError: not installed."""
    path = folder / short(bed.name) / f"{short(program.name)}.json"
    with alone(work / "others" / f"{short(bed.name)}.{short(program.name)}.lock") as ok:
        if not ok:
            return "elsewhere"
        record = read_cell(path)
        made_of = {"settings": settings_of(bed, n), "code": code_of(program)}
        if record and any(record.get(k) != v for k, v in made_of.items()):
            record = None
        runs = bed.seeds if program.trained else 1
        if record and len(record["seeds"]) >= runs:
            return "there already"
        made_with = versions(*program.versions())
        if record is None or record["versions"] != made_with:
            record = new_record(bed, program, made_of | {"versions": made_with})
        check_episodes(bed, n, table)
        for seed in range(len(record["seeds"]), runs):
            run_seed(bed, program, seed, n, record, lambda: write_cell(path, record))
        return "done"


def new_record(bed: Bed, program: Program, made_of: dict) -> dict:
    "As a cell of the table; what is under way stands in `unfinished`."
    command = "python benchmarks/leaderboard/others.py --bed '{}' --program '{}'"
    return {
        "bed": bed.name, "row": program.name, "seeds": {}, "search": {},
        "unfinished": {}, "trained": program.trained, "parent": "",
        "transductive": False, "sees_names": program.sees_names,
        "note": program.settings, "commit": commit(),
        "device": f"{os.cpu_count()} CPU cores",
        "command": command.format(bed.name, program.name),
    } | made_of  # fmt: skip


def run_seed(bed: Bed, program: Program, seed: int, n: int, record, save) -> None:
    "All episodes of one seed; saved after each."
    start = time.process_time()
    torch.manual_seed(seed)
    answers = program.make(bed, seed)
    entry = record["unfinished"]
    if not entry:
        entry |= {"values": [], "cpu": []}
    entry["train_cpu_seconds"] = round(time.process_time() - start, 3)
    with tqdm(total=n, desc=program.name, initial=len(entry["values"])) as bar:
        for i, (episode, y) in enumerate(first_episodes(bed, n)):
            if i < len(entry["values"]):
                continue
            set_seed(1_000_000 * seed + i)  # of torch, NumPy and Python
            start = time.process_time()
            answer = answers(episode)
            entry["cpu"].append(round(time.process_time() - start, 4))
            if answer.shape != y.shape:
                raise RuntimeError(
                    f"{program.name}: {tuple(answer.shape)} answers to {len(y)} queries"
                )
            entry["values"].append(int((answer == y).sum()))
            save()
            bar.update()
    cpu = entry.pop("cpu")
    entry["cpu_seconds"] = round(sum(cpu) + entry["train_cpu_seconds"], 2)
    record["adapt_ms"] = round(1000 * statistics.median(cpu), 3)
    record["seeds"][str(seed)], record["unfinished"] = entry, {}
    save()


# --- what it says ---------------------------------------------------------------------


def best_row(table: list[Cell], bed: str) -> Cell:
    "The best row by all its episodes, of those that answer each query by itself."
    found = [c for c in table if c.bed == bed and not c.transductive]
    return max(found, key=lambda c: c.mean)


def report(table: list[Cell], others: list[Cell]) -> Iterator[str]:
    "A line for each program: its mean, and paired differences on the same episodes."
    for cell in sorted(others, key=lambda c: (c.bed, -c.mean)):
        n = cell.values.shape[1]
        frozen = next(c for c in table if c.bed == cell.bed and c.row == FROZEN)
        line = f"{cell.bed}, {cell.row}"
        if cell.about["sees_names"]:
            line += " (reads names of classes)"
        if n < (whole := cell.about["settings"]["episodes"]):
            line += f", {n} of {whole} episodes so far"
        line += f": {100 * cell.mean:.1f} ± {100 * cell.evaluation().ci95:.1f} %"
        for other in (frozen, best_row(table, cell.bed)):
            same = replace(other, values=other.values[:, :n])
            d = cell.minus(same)
            points = round(100 * d.mean, 1) + 0.0
            line += f"; minus {other.row} {points:+.1f} ± {100 * d.ci95:.1f}"
        yield f"{line}; {cell.about['adapt_ms'] / 1000:.2g} s an episode"


def under_way(folder: Path) -> Iterator[Cell]:
    "Files that are not finished, with the episodes that they have so far, two or more."
    for path in sorted(folder.glob("*/*.json")):
        record = read_cell(path)
        part, settings = record["unfinished"], record["settings"]
        if len(part.get("values", [])) > 1:
            right = torch.tensor([part["values"]], dtype=torch.float64)
            values = right / (settings["n_way"] * settings["n_query"])
            cost = {"adapt_ms": 1000 * statistics.median(part["cpu"])}
            yield Cell(record["bed"], record["row"], values, about=record | cost)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = {"bed": (list(beds()), MEASURED), "program": (list(PROGRAMS), PROGRAMS)}
    for name, (choices, made) in known.items():
        parser.add_argument(f"--{name}", action="append", choices=choices,
                            metavar=name.upper(),
                            help=f"instead of {', '.join(made)}")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what is stored")
    args = parser.parse_args()
    table, folder, work = folders()
    problems = []
    for bed in args.bed or MEASURED:
        for name in () if args.list else args.program or PROGRAMS:
            try:
                n = min(EPISODES, beds()[bed].episodes)
                said = measure(beds()[bed], PROGRAMS[name], table, folder, work, n)
            except Exception as error:  # the others go on; told again at the end
                said = f"stopped: {type(error).__name__}: {error}"
                problems.append(f"{bed}, {name}: {said}")
            print(f"{bed}, {name}: {said}", flush=True)
    if folder.is_dir():
        found = read_cells(folder) + list(under_way(folder))
        print(*report(read_cells(table), found), sep="\n")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    import ending

    torch.set_num_threads(1)
    ending.run(main)
