"""The cells that every chapter has in common: the row of badges and the Colab setup
cell. They are generated from settings.ini. Notebooks of worked solutions have them too,
and a chapter that has one gets a line below `## Exercises` that leads to it.

python tools/setup_cell.py --write    put them into the notebooks
python tools/setup_cell.py --check    exit status 1 and a list if a notebook has an old
                                      one, or none

A new chapter marks the places: a Markdown cell with the one word BADGES, and a code
cell with the one line `# SETUP` (or `# SETUP peft`, where the chapter needs extras of
the package).
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from notebooks import (
    PACKAGE,
    ROOT,
    chapter_files,
    exercise_files,
    module_of,
    read,
    settings,
    source,
    text,
    write_atomically,
)

BADGE = "[Open in Colab]("
SOLUTIONS = "Worked solutions: ["
MARK = "# Setup, the same in every chapter:"


def badges(path: str, module: str | None, cfg: dict[str, str]) -> str:
    "Links to Colab, to the notebook and to the module, at the chapter's own tag."
    at = f"{cfg['url'].removeprefix('https://github.com/')}/blob/v{cfg['version']}"
    row = [
        f"{BADGE}https://colab.research.google.com/github/{at}/{path})",
        f"[Notebook](https://github.com/{at}/{path})",
    ]
    if module:
        row.append(
            f"[Module `{PACKAGE}.{module}`](https://github.com/{at}/{PACKAGE}/"
            f"{module.replace('.', '/')}.py)"
        )
    return " · ".join(row)


def solutions_line(path: str, solutions: str, cfg: dict[str, str]) -> str:
    """The line in a chapter that leads to its worked solutions: by a path for
    JupyterLab and GitHub (the site makes it the repository's address), and to Colab.

    path, solutions: the two notebooks, relative to the root.
    """
    at = f"{cfg['url'].removeprefix('https://github.com/')}/blob/v{cfg['version']}"
    beside = posixpath.relpath(solutions, posixpath.dirname(path))
    return (
        f"{SOLUTIONS}notebook]({beside}) · "
        f"[on Colab](https://colab.research.google.com/github/{at}/{solutions}). "
        "Try the exercises first."
    )


def link_solutions(nb: dict, line: str | None) -> bool:
    """Put the line below `## Exercises` (in place), or take it away where it is None;
    False where the chapter has no exercises."""
    for cell in nb["cells"]:
        found = re.search(r"^## Exercises\n\n", source(cell), re.M)
        if cell["cell_type"] == "markdown" and found:
            before, after = source(cell)[: found.end()], source(cell)[found.end() :]
            after = re.sub(rf"\A{re.escape(SOLUTIONS)}.*\n\n", "", after)
            added = f"{line}\n\n" if line else ""
            cell["source"] = (before + added + after).splitlines(True)
            return True
    return False


def setup(cfg: dict[str, str], extras: list[str]) -> str:
    """The setup cell: it installs the package on Colab, and does nothing where the
    package is there."""
    name = PACKAGE + (f"[{','.join(extras)}]" if extras else "")
    return f'''#| hide
{MARK} on Colab it installs the
# book's package and keeps the torch, numpy, transformers and datasets that are there.
import importlib.metadata, importlib.util, os, subprocess, sys

if importlib.util.find_spec("{PACKAGE}") is None:
    book = "git+{cfg["url"]}"
    package = f"{name} @ {{book}}@v{cfg["version"]}"
    if "google.colab" not in sys.modules and "COLAB_RELEASE_TAG" not in os.environ:
        raise ModuleNotFoundError(
            "This chapter needs the package of the book. Install it with: "
            f"pip install '{{package}}'"
        )
    names = ("torch", "numpy", "transformers", "datasets")
    there = [n for n in names if importlib.util.find_spec(n)]
    with open("keep.txt", "w") as keep:
        keep.writelines(f"{{n}}=={{importlib.metadata.version(n)}}\\n" for n in there)
    command = [sys.executable, "-m", "pip", "install", "-q", "-c", "keep.txt", package]
    subprocess.run(command, check=True)'''


def is_setup(code: str) -> bool:
    "Is this the setup cell, or the mark that stands for it?"
    return MARK in code or bool(re.fullmatch(r"# SETUP( \w+)*", code.strip()))


def _extras(code: str) -> list[str]:
    if m := re.fullmatch(r"# SETUP((?: \w+)*)", code.strip()):
        return m[1].split()
    m = re.search(rf'"{PACKAGE}\[([\w,]+)\] @', code)
    return m[1].split(",") if m else []


def is_badges(cell: dict) -> bool:
    return cell["cell_type"] == "markdown" and (
        source(cell).strip() == "BADGES" or BADGE in source(cell)[:200]
    )


def generate(
    nb: dict, path: str, cfg: dict[str, str], solutions: str | None = None
) -> list[str]:
    """Put the cells into a notebook (in place); what it lacks is returned.

    path: of the notebook; solutions: of the one with worked solutions, if there is one.
    """
    missing = []
    line = solutions and solutions_line(path, solutions, cfg)
    if not link_solutions(nb, line) and solutions:
        missing.append(f"it has no '## Exercises', but there is {solutions}")
    module, found_badges, found_setup = module_of(nb), False, False
    for cell in nb["cells"]:
        if is_badges(cell):
            cell["source"], found_badges = (
                badges(path, module, cfg).splitlines(True),
                True,
            )
        elif cell["cell_type"] == "code" and is_setup(source(cell)):
            cell["source"], found_setup = (
                setup(cfg, _extras(source(cell))).splitlines(True),
                True,
            )
    if not found_badges:
        missing.append(
            "no row of badges: "
            "put a Markdown cell with the one word BADGES below the title"
        )
    if (module or path.startswith("exercises/")) and not found_setup:
        missing.append(
            "no setup cell: "
            "put a code cell with the one line `# SETUP` before the imports"
        )
    return missing


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments not in (["--write"], ["--check"]):
        print(__doc__)
        return 2
    cfg, problems = settings(root), []
    solved = {p.relative_to(root).as_posix() for p in exercise_files(root)}
    for path in chapter_files(root) + exercise_files(root):
        name, nb = path.relative_to(root).as_posix(), read(path)
        appendix = module_of(nb) is None and not any(map(is_badges, nb["cells"]))
        if appendix and name not in solved:
            continue  # nothing to run
        before, own = text(nb), re.sub("^nbs/", "exercises/", name)
        own = own if own in solved and own != name else None
        problems += [f"{name}: {m}" for m in generate(nb, name, cfg, own)]
        if text(nb) != before and arguments == ["--write"]:
            write_atomically(path, text(nb))
            print(f"{name}: badges and setup cell written")
        elif text(nb) != before:
            problems.append(
                f"{name}: badges or setup cell are not as settings.ini says; "
                "run: make export"
            )
    print("\n".join(problems) or "badges and setup cells: all as settings.ini says")
    return 1 if problems else 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
