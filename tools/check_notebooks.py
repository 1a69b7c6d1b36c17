"""Checks the notebooks as files: that `nbdev_clean` would change nothing, that cell ids
are there and differ, and that no output holds an error or a path of the machine.

python tools/check_notebooks.py            exit status 1 and a list
python tools/check_notebooks.py --write    clean them
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import (
    ROOT,
    chapter_files,
    clean,
    exercise_files,
    read,
    text,
    write_atomically,
)

#: what only the machine that made an output knows
MACHINE = re.compile(
    r"site-packages/|/dist-packages/|/home/\w+/|/tmp/\w+/|/ipykernel_\d+/"
)
#: characters of one notebook; larger ones are slow on GitHub and on phones
LARGEST = 3_000_000


def is_figure(output: dict) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def problems(path: Path, solutions: bool = False) -> list[str]:
    """What is wrong with one notebook. solutions: it holds worked solutions, whose only
    stored outputs are figures."""
    nb, found = read(path), []
    ids = Counter(cell.get("id") for cell in nb["cells"])
    if None in ids or any(n > 1 for n in ids.values()):
        unclear = [i for i, n in ids.items() if i is None or n > 1][:5]
        found.append(f"cells without an id, or with one that is used twice: {unclear}")
    elif path.read_text(encoding="utf-8") != text(clean(nb)):
        found.append("it is not clean; run: python tools/check_notebooks.py --write")
    if (size := path.stat().st_size) > LARGEST:
        found.append(
            f"it has {size:,} bytes, at most {LARGEST:,} are allowed; "
            "draw fewer points, or show fewer figures"
        )
    for number, cell in enumerate(nb["cells"]):
        if any(o["output_type"] == "error" for o in cell.get("outputs", [])):
            found.append(f"cell {number} holds an error")
        if solutions and any(not is_figure(o) for o in cell.get("outputs", [])):
            found.append(
                f"cell {number} holds an output that is no figure; solutions are "
                "stored without outputs, so that none gets old: clear it"
            )
        shown = json.dumps(cell.get("outputs", []))
        if (path_of_machine := MACHINE.search(shown)) or str(ROOT) in shown:
            where = (
                path_of_machine.start() if path_of_machine else shown.index(str(ROOT))
            )
            found.append(
                f"the output of cell {number} holds a path of this machine, "
                f"{shown[max(where - 40, 0) : where + 60]!r}; "
                "silence the warning or print less"
            )
    return found


def main(arguments: list[str], root: Path = ROOT) -> int:
    files = chapter_files(root) + exercise_files(root)
    if arguments == ["--write"]:
        for path in files:
            content = text(clean(read(path)))
            if content != path.read_text(encoding="utf-8"):
                write_atomically(path, content)
                print(f"{path.relative_to(root)}: cleaned")
        return 0
    solutions = exercise_files(root)
    found = [
        f"{path.relative_to(root)}: {p}"
        for path in files
        for p in problems(path, path in solutions)
    ]
    print("\n".join(found) or f"{len(files)} notebooks are clean")
    return 1 if found else 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
