"""Are the stored outputs what the code of today would make?

python tools/freshness.py            a list of problems; exit status 1 if there are any
python tools/freshness.py --list     one line for each chapter
python tools/freshness.py --reach metalearn_book.foundations.tasks.SinusoidTasks
                                     the chapters that a change of this makes stale

Each executed chapter has a stamp in `results/`: a digest of the syntax of its code
cells, of every definition of the package that they reach (see reached.py), of the
stored results that they quote, of the data sets that they load, and of its outputs.
Format, comments, docstrings, the division into cells, the module that a definition
stands in, the numbers in chapters' names and the generated setup cell don't count.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
import reached
from notebooks import PACKAGE, ROOT, chapters, is_code, read, source
from setup_cell import is_setup


def code_of(nb: dict) -> str:
    "All code of a chapter, without the generated setup cell."
    cells = [source(c) for c in nb["cells"] if is_code(c) and not is_setup(source(c))]
    return "\n".join(cells)


def without_numbers(code: str) -> str:
    "`'part/05_name'` as `'part/name'`: a chapter may get another number."
    return re.sub(r"""(["'])([a-z_]+/)\d+_(\w+)\1""", r"\1\2\3\1", code)


#: folders of `results/` that a chapter reads as a whole
FOLDERS = {"leaderboard"}


def quoted_results(code: reached.Module, root: Path = ROOT) -> dict[str, str]:
    "Digest of each results file that the code names, without its stamp."
    found = {}
    for name in sorted(FOLDERS & reached.texts(code)):
        files = sorted((root / "results" / name).rglob("*.json"))
        found[name] = reached.digest(*(f.read_text(encoding="utf-8") for f in files))
    for name in sorted(reached.texts(code)):
        if "/" not in name or not re.fullmatch(r"[\w./-]{3,120}", name):
            continue  # a sentence, not a name
        path = root / "results" / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("stamp", None)
            found[name] = reached.digest(json.dumps(content, sort_keys=True))
    return found


#: what delivers data; how it does so does not count: `data_digests` holds what it gives
SOURCES = f"{PACKAGE}.data.sources"
DELIVER = {"load_dataset_by_name", "class_split", "describe", "available", "at_hand",
           "dataset_names", "fetch"}  # fmt: skip


def data_digests(reach: reached.Reach, root: Path = ROOT) -> dict[str, str]:
    "Digest of each data set that is named in what is reached, as far as it is used."
    if not reach.stopped or not reached.module_file(SOURCES, root):
        return {}
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    from metalearn_book.data import class_split, dataset_names, describe
    from metalearn_book.data.manifest import MANIFEST
    from metalearn_book.data.splits import has_split

    found = {}
    for name in sorted(reach.texts & set(dataset_names())):
        parts = [MANIFEST[name].digest]
        if has_split(name):
            parts.append(json.dumps(class_split(name)))
        if "describe" in reach.stopped:
            parts.append(str(describe(name)))
        found[name] = reached.digest(*parts)
    return found


def fingerprint(nb: dict, chapter: str, root: Path = ROOT) -> dict:
    "What the outputs of a chapter depend on."
    code = reached.parse(code_of(nb))
    reach = reached.Reach(code, root, {(SOURCES, name) for name in DELIVER})
    quoted = quoted_results(code, root)
    quoted.pop(chapter, None)  # what it stores itself is an output
    uses = sorted(f"{k}={v}" for k, v in reach.outside["", ""].items())
    own = reached.ast.parse(without_numbers(reached.without_magics(code_of(nb))))
    return {
        "code": reached.digest(*uses, reached.canonical(own)),
        "definitions": reach.digests(),
        "results": quoted,
        "data": data_digests(reach, root),
    }


def output_hash(nb: dict) -> str:
    """Everything that the chapter printed and drew, in order, whichever cell it stands
    in."""
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    shown = [
        {k: v for k, v in o.items() if k != "execution_count"}
        for c in code
        for o in c.get("outputs", [])
    ]
    return reached.digest(json.dumps(shown, sort_keys=True))


def results_file(chapter: str, root: Path = ROOT) -> Path:
    return root / "results" / f"{chapter}.json"


def stamp_of(chapter: str, root: Path = ROOT) -> dict | None:
    "The stored stamp of a chapter, or None."
    path = results_file(chapter, root)
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        return json.loads(text).get("stamp")
    except json.JSONDecodeError as e:
        raise ValueError(
            f"{path} is damaged ({e}); remove it and make it again with: "
            f"make run CHAPTER={chapter} SCALE=book"
        ) from e


def make_stamp(nb: dict, chapter: str, seconds: float, root: Path = ROOT) -> dict:
    own = fingerprint(nb, chapter, root)
    return own | {
        "outputs": output_hash(nb),
        "scale": "book",
        "seconds": round(seconds),
    }


def _names(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def changes(stamp: dict, now: dict) -> list[str]:
    "What differs between a stamp and the code of today, in words."
    found = ["its own code has changed"] if stamp.get("code") != now["code"] else []
    for kind, what in (
        ("definitions", ""),
        ("results", "the results "),
        ("data", "the data set "),
    ):
        old, new = stamp.get(kind, {}), now[kind]
        lists = {
            "changed": sorted(n for n in old.keys() & new.keys() if old[n] != new[n]),
            "new": sorted(new.keys() - old.keys()),
            "gone": sorted(old.keys() - new.keys()),
        }
        found += [f"{what}{_names(n)} {verb(how, n)}" for how, n in lists.items() if n]
    return found


def verb(how: str, names: list[str]) -> str:
    one = len(names) == 1
    if how == "changed":
        return "has changed" if one else "have changed"
    return f"is {how}" if one else f"are {how}"


def problem(chapter: str, root: Path = ROOT) -> str | None:
    "Why the stored outputs of a chapter can't be trusted, or None."
    nb, stamp = read(root / "nbs" / f"{chapter}.ipynb"), stamp_of(chapter, root)
    outputs = [o for c in nb["cells"] for o in c.get("outputs", [])]
    if any(o["output_type"] == "error" for o in outputs):
        return "its stored outputs hold an error"
    if stamp is None:
        return "it has no stamp: it has not been run at book scale by tools/execute.py"
    if why := changes(stamp, fingerprint(nb, chapter, root)):
        return "; ".join(why)
    if stamp.get("outputs") != output_hash(nb):
        return "its outputs are not those of the stamped run"
    return None


def reaching(name: str, root: Path = ROOT) -> list[str]:
    "The chapters that reach a definition, given as module.name or as name."
    base, _, last = name.rpartition(".")
    base = base if not base or base.startswith(PACKAGE) else f"{PACKAGE}.{base}"
    found = []
    for chapter in chapters(root):
        nb = read(root / "nbs" / f"{chapter}.ipynb")
        keys = reached.Reach(reached.parse(code_of(nb)), root).found
        if any(n == last and (not base or m == base) for m, n in keys):
            found.append(chapter)
    return found


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--reach"]:
        for name in arguments[1:]:
            found = reaching(name)
            print(
                f"{name}: {len(found)} of {len(chapters())} chapters",
                *found,
                sep="\n  ",
            )
        return 0
    names = chapters()
    found = {name: problem(name) for name in names}
    for name, why in found.items():
        if why or "--list" in arguments:
            again = f"; run: make run CHAPTER={name} SCALE=book" if why else ""
            print(f"{name}: {why or 'fresh'}{again}")
    stale = sum(why is not None for why in found.values())
    print(f"{len(names) - stale} of {len(names)} chapters are fresh")
    return 1 if stale else 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
