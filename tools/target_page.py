"""The page of targets: what was to be reached, what was measured, and what limits it.

python tools/target_page.py --write   write nbs/appendices/targets.md
python tools/target_page.py --check   exit status 1 if it is not up to date

Everything on it is read from `results/targets/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import ROOT, write_atomically

from metalearn_book.book.targets import Target, load_targets

PAGE = "nbs/appendices/targets.md"
ANSWERS = {None: "not measured", True: "yes", False: "**no**"}
HEAD = (
    "| what | limit | measured | seeds | reached | by |",
    "|:--|:--|:--|:--|:--|:--|",
)


def said(target: Target) -> str:
    "The measured value in words, with its interval."
    if target.value is None:
        return "–"
    spread = "" if target.ci95 is None else f" ± {target.ci95:.2g}"
    return f"{target.value:.3g}{spread} {target.unit}".strip()


def row(target: Target, root: Path) -> str:
    "A row of the table, with a link to the chapter where there is one."
    limit = f"{target.sense} {target.limit:g} {target.unit}".strip()
    here = (root / "nbs" / f"{target.chapter}.ipynb").exists()
    what = f"[{target.what}](../{target.chapter}.ipynb)" if here else target.what
    cells = what, limit, said(target), target.seeds, ANSWERS[target.reached]
    return "| " + " | ".join(map(str, (*cells, f"`{target.command}`"))) + " |"


def page(root: Path = ROOT) -> str:
    "The whole page."
    found = load_targets(root / "results")
    every = [t for targets in found.values() for t in targets]
    n = {a: sum(t.reached is a for t in every) for a in ANSWERS}
    lines = [
        "# What was to be reached",
        "",
        "> Every number that a chapter or the engine set out to reach, with what was "
        "measured.",
        "",
        "A target is written down before it is measured, and stays here when it is "
        f"missed: of {len(every)} targets {n[True]} reached, {n[False]} missed "
        f"and {n[None]} not measured. Times are ratios of one run. The numbers are "
        "those of `results/targets/`; the last column says what makes them again.",
    ]
    for part, targets in found.items():
        lines += ["", f"## {part.replace('_', ' ').capitalize()}", "", *HEAD]
        lines += [row(t, root) for t in targets]
        missed = [t for t in targets if t.reached is False and t.limits]
        if missed:
            lines += ["", "What limits the missed ones:", ""]
            lines += [f"- *{t.what}*: {t.limits}" for t in missed]
    return "\n".join([*lines, ""])


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments not in (["--write"], ["--check"]):
        print(__doc__)
        return 2
    path, text = root / PAGE, page(root)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    if arguments == ["--write"]:
        write_atomically(path, text)
        return 0
    print(f"{PAGE} is not up to date; run make export")
    return 1


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
