"""The course guide for teachers, and the list of assignments that travels with the
package.

python tools/course_page.py --write   fill nbs/appendices/course.md, write the list
python tools/course_page.py --check   exit status 1 if one of them is not up to date

What stands between `<!-- made: NAME -->` and `<!-- end -->` is made from the plan in
tools/course.toml, the chapters, their results and assignments/*/student.ipynb. A
section, an equation or a figure that the plan names and the book has not is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending

import json
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache

import quarto_filter as qf
from notebooks import (
    PACKAGE,
    ROOT,
    chapter_files,
    chapter_name,
    filled,
    read,
    settings,
    source,
    title_of,
    write_atomically,
)

PAGE = Path("nbs/appendices/course.md")
LIST = Path(PACKAGE) / "book" / "assignments.json"
PLAN = Path("tools/course.toml")
MISTAKE = re.compile(
    r"^> ?\*\*Common mistake:\*\*(.*(?:\n(?!> ?\*\*Common mistake:)>.*)*)", re.M
)
LONG_ENOUGH = 150  # characters after which a mistake is cut at the end of a sentence


# ------------------------------------------------------------------ the chapters


@dataclass(frozen=True)
class Place:
    "A section of a chapter, and the caption of a figure."

    chapter: str
    section: str  # its heading
    text: str = ""

    @property
    def url(self) -> str:
        return f"../{self.chapter}.ipynb#{qf.slug(self.section)}"


@dataclass(frozen=True)
class Chapter:
    name: str
    title: str
    sections: dict[str, Place]  # anchor -> section
    marks: dict[str, Place]  # tag of an equation or label of a figure
    mistakes: list[Place]

    @property
    def link(self) -> str:
        return f"[{self.title}](../{self.name}.ipynb)"


def _sentences(text: str) -> list[str]:
    "The sentences of a text in one line; code, mathematics and links stay whole."
    shelf = qf.Shelf("\ue005")
    whole = r"\bEqs?\. |`[^`]*`|\$[^$]*\$|\[[^\]]*\]\([^)]*\)"
    safe = re.sub(whole, lambda m: shelf.put(m[0]), " ".join(text.split()))
    parts = re.split(r"(?<=[.?!])\s+|(?<=[.?!]\")\s+|(?<=[.?!]\*)\s+", safe)
    return [shelf.restore(p) for p in parts if p]


def _mistake(text: str, below: str, folder: str) -> str:
    """The first sentences of a box, at least two, in one line, with links as the page
    needs them. Where the box holds one alone, the first one below it says why."""
    found = _sentences(re.sub(r"^> ?", "", text.strip(), flags=re.M))
    if len(found) == 1:
        found += _sentences(below)[:2]
    kept = found[0]
    for n, part in enumerate(found[1:], 1):
        if n > 1 and len(kept) >= LONG_ENOUGH:
            break
        kept += " " + part
    kept = kept.replace("**", "").removesuffix(":")
    kept += "" if re.search(r"[.?!][\"*]?$", kept) else "."

    def moved(m: re.Match) -> str:
        url = m[2]
        if re.match(r"[a-z]+:|#", url):
            return m[0] if url[0] != "#" else m[1]
        return f"[{m[1]}](../{folder}/{url})" if "/" not in url else m[0]

    kept = re.sub(r"\[([^\]]*)\]\(([^)]*)\)", moved, kept)
    return kept[:1].upper() + kept[1:]


@lru_cache(maxsize=None)
def chapter(path: Path, root: Path = ROOT) -> Chapter:
    "What the page needs of a chapter."
    nb, name = read(path), chapter_name(path, root)
    heading = title_of(nb)[0]
    sections, marks, mistakes = {}, {}, []
    for cell in nb["cells"]:
        text = source(cell)
        if cell["cell_type"] == "code":
            words = qf.options(qf.split_directives(text)[0])
            if label := words.get("label"):
                caption = qf.unquote(words.get("fig-cap", ""))
                marks[qf.unquote(label)] = Place(name, heading, caption)
            continue
        events = [(m.start(), "tag", t) for m in re.finditer(r"\\tag\{[^}]*\}", text)
                  for t in qf.tags_in(m[0])]  # fmt: skip
        for m in MISTAKE.finditer(text):
            after = text[m.end() :].strip().split("\n\n")[0]
            plain = after if re.match(r"\w", after) else ""
            said = _mistake(m[1], plain, name.split("/")[0])
            events.append((m.start(), "mistake", said))
        at = 0
        for _, title in qf.headings(text):
            at = text.index(title, at)
            events.append((at, "heading", title))
        for _, kind, what in sorted(events, key=lambda e: e[0]):
            if kind == "heading":
                heading = what
                sections.setdefault(qf.slug(what), Place(name, what))
            elif kind == "tag":
                marks[what] = Place(name, heading)
            else:
                mistakes.append(Place(name, heading, what))
    return Chapter(name, title_of(nb)[0], sections, marks, mistakes)


def book(root: Path = ROOT) -> dict[str, Chapter]:
    "All chapters of the parts, by name, in order; no appendix."
    found = [chapter(p, root) for p in chapter_files(root)]
    return {c.name: c for c in found if not c.name.startswith("appendices/")}


def minutes(name: str, root: Path = ROOT) -> str:
    "The measured time of a chapter at book scale."
    path = root / "results" / f"{name}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seconds = stored.get("book", {}).get("seconds")
    if not seconds:
        return "no time stored"
    return f"{round(seconds / 60)} min" if seconds >= 60 else "under a minute"


# ------------------------------------------------------------------ the assignments


def _found(pattern: str, text: str, name: str, flags: int = 0) -> re.Match:
    if not (m := re.search(pattern, text, flags)):
        raise ValueError(f"assignments/{name}/student.ipynb has no {pattern}")
    return m


def assignment(folder: Path) -> dict:
    "What the first cells of a student's notebook say, and its questions."
    from metalearn_book.book._course import notebook

    path = folder / "student.ipynb"
    told, name = notebook(path), folder.name
    front = "\n".join(source(c) for c in read(path)["cells"][:4])
    points = _found(r"\*\*Points:\*\* (.+?)\.(?:\s|$)", front, name)[1]
    machine = int(_found(r"^(\d+),? by machine", points, name)[1])
    person = re.search(r"and (\d+) by a person", points)
    needed = _found(r"^\*\*Chapters needed:\*\* .+$", front, name, re.M)[0]
    return {
        "name": name,
        "title": told.title,
        "about": _found(r"^> (.+)$", front, name, re.M)[1],
        "goals": _found(r"\*\*You will be able to\*\* (.+)", front, name)[1],
        "machine": machine,
        "person": int(person[1]) if person else 0,
        "points": f"{machine}" + (f", and {person[1]} by a person" if person else ""),
        "time": _found(r"\*\*Time:\*\* (\d+ to \d+ hours)", front, name)[1],
        "chapters": re.findall(r"\(\.\./\.\./nbs/([\w/]+)\.ipynb", needed),
        "colab": _found(r"https://colab\.research[^\s)]+", front, name)[0],
        "questions": [
            {"number": q.number, "title": q.title, "points": q.points,
             "checks": q.checks} for q in told.questions
        ],
    }  # fmt: skip


def assignments(root: Path = ROOT) -> list[dict]:
    folders = sorted(p.parent for p in (root / "assignments").glob("*/student.ipynb"))
    return [assignment(folder) for folder in folders]


def list_text(root: Path = ROOT) -> str:
    return json.dumps(assignments(root), indent=1, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------ the plan


def plan(root: Path = ROOT) -> list[dict]:
    """The weeks. ValueError where a chapter is in two weeks or unknown, or an
    assignment comes before a chapter that it needs."""
    weeks = tomllib.loads((root / PLAN).read_text(encoding="utf-8"))["week"]
    known, seen = book(root), []
    works = {a["name"]: a for a in assignments(root)}
    for number, week in enumerate(weeks, 1):
        seen += _chapters(week)
        if unknown := [c for c in seen if c not in known]:
            raise ValueError(f"{PLAN}, week {number}: no chapters: {unknown}")
        needed = works.get(week.get("out"), {}).get("chapters", [])
        if early := [c for c in needed if c not in seen]:
            raise ValueError(
                f"{PLAN}: {week['out']} is handed out in week {number} and needs "
                f"{early}, which come later"
            )
    if twice := {c for c in seen if seen.count(c) > 1}:
        raise ValueError(f"{PLAN} has chapters in two weeks: {sorted(twice)}")
    out = [w["out"] for w in weeks if w.get("out")]
    if lost := [name for name in works if name not in out]:
        raise ValueError(f"{PLAN} hands out no {lost}")
    return weeks


def _chapters(week: dict) -> list[str]:
    return week["lecture"] + week.get("read", [])


def slide(given: list[str], root: Path = ROOT) -> tuple[str, str, str]:
    "A row: title, the picture or equation, and where it comes from."
    title, what, *shown = given
    known = book(root)
    if "#" in what:
        name, _, anchor = what.partition("#")
        place = known[name].sections.get(anchor) if name in known else None
        told = shown[0] if shown else ""
    else:
        there = [c.marks[what] for c in known.values() if what in c.marks]
        place = there[0] if len(there) == 1 else None
        told = f"Eq. ({what})"
        if place is not None and what.startswith("fig-"):
            told = "figure: " + re.split(r"(?<=[.:;?])\s", place.text)[0].rstrip(".:;")
    if place is None or not told:
        raise ValueError(f"{PLAN}: the book has not exactly one place {what!r}")
    came = f"[{known[place.chapter].title}: {place.section}]({place.url})"
    return title, told, came


# ------------------------------------------------------------------ what is made


def _short(a: dict) -> str:
    "`[2. The inner loop by hand](...)`."
    number, title = re.match(r"Assignment (\d+): (.+)", a["title"]).groups()
    return f"[{number}. {title}](../../assignments/{a['name']}/student.ipynb)"


def weeks_block(root: Path = ROOT) -> str:
    "The syllabus in one table."
    known, works = book(root), {a["name"]: a for a in assignments(root)}
    rows = ["| week | lecture, with the chapters | handed out | due |"]
    rows.append("|--:|:--|:--|:--|")
    for number, week in enumerate(plan(root), 1):
        chapters = " · ".join(known[c].link for c in week["lecture"])
        given = [
            _short(works[n]) if (n := week.get(k)) in works else ""
            for k in ("out", "due")
        ]
        rows.append(f"| {number} | **{week['title']}**<br>{chapters} | "
                    f"{given[0]} | {given[1]} |")  # fmt: skip
    needed = {c for a in works.values() for c in a["chapters"]}
    free = [n for n, w in enumerate(plan(root), 1) if not needed & {*_chapters(w)}]
    if free:
        told = ", ".join(map(str, free))
        rows += ["", "If you have fewer weeks: no assignment needs a chapter of week "
                 f"{told}."]  # fmt: skip
    return "\n".join(rows)


def assignments_block(root: Path = ROOT) -> str:
    "Points and time, and their sums."
    known, works = book(root), assignments(root)
    rows = ["| assignment | points by machine | by a person | time | chapters needed |"]
    rows.append("|:--|--:|--:|:--|:--|")
    for a in works:
        needed = ", ".join(known[c].link for c in a["chapters"])
        rows.append(f"| {_short(a)} | {a['machine']} | {a['person'] or ''} | "
                    f"{a['time']} | {needed} |")  # fmt: skip
    hours = [list(map(int, re.findall(r"\d+", a["time"]))) for a in works]
    low, high = (sum(h[i] for h in hours) for i in (0, 1))
    machine, person = (sum(a[k] for a in works) for k in ("machine", "person"))
    rows.append(
        f"| all {len(works)} | {machine} | {person} | {low} to {high} hours | |"
    )
    return "\n".join(rows)


def limits_block(root: Path = ROOT) -> str:
    "The limits of the grader, from its code."
    from grading.box import MB
    from grading.grade import NUMPY, TORCH

    said = {
        "one call": f"{NUMPY.seconds:g} s",
        "one question": f"{NUMPY.total:g} s",
        "one submission": f"{NUMPY.submission:g} s",
        "memory": f"{NUMPY.resident // MB} MB, with PyTorch {TORCH.resident // MB} MB",
    }
    rows = ["| what | limit |", "|:--|:--|"]
    return "\n".join(rows + [f"| {k} | {v} |" for k, v in said.items()])


WORKFLOW = """name: Grade
on: [workflow_dispatch]
permissions:
  contents: read
jobs:
  grade:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
      - uses: actions/checkout@v4
        with:
          repository: {repository}
          ref: v{version}
          path: book
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: sudo apt-get update && sudo apt-get install -y bubblewrap
      # Ubuntu 24.04 allows bubblewrap its name spaces only where this is 0
      - run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 || true
      - run: pip install -c tools/constraints.txt .
        working-directory: book
      - run: >-
          python tools/assign.py grade ../submissions/02 --assignment 02
          --out ../grades --workers 2
        working-directory: book
        env:
          {private}: ${{{{ github.workspace }}}}/hidden
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: grades
          path: grades"""


def ci_block(root: Path = ROOT) -> str:
    "A workflow that grades, at the version of the book."
    from grading.box import PRIVATE

    cfg = settings(root)
    repository = cfg["url"].removeprefix("https://github.com/")
    told = dict(repository=repository, version=cfg["version"], private=PRIVATE)
    return f"```yaml\n{WORKFLOW.format(**told)}\n```"


def hidden_block(root: Path = ROOT) -> str:
    "One variable of the environment, as the code names it."
    from grading.box import PRIVATE

    first = assignments(root)[0]["name"]
    return (
        f"Set `{PRIVATE}` to a folder with `{first}/hidden.py` and so on, such as a "
        "checkout of a private repository. They replace the open ones, for `make "
        "grade`, for `tools/autograder.py`, which then packs them, and in CI. A folder "
        "that lacks the file of the assignment is an error: nobody is graded by the "
        "open tests unnoticed.\n\n"
        "```sh\n"
        f"mkdir -p ../hidden/{first}\n"
        f"cp assignments/{first}/hidden.py ../hidden/{first}/    # then change it\n"
        f"{PRIVATE}=../hidden python tools/assign.py check {first[:2]}\n"
        f"{PRIVATE}=../hidden make grade SUBMISSION=my_copy.ipynb\n"
        "```\n\n"
        "`check` grades the solution with your tests and must give it full points, and "
        "none to the unsolved notebook. How a hidden test is written is in the "
        "[README](../../assignments/README.md#write-one). Tests are not answers: what "
        "is secret are the seed, drawn for every run, and the cases that you add."
    )


def _week(number: int, week: dict, root: Path) -> list[str]:
    known, works = book(root), {a["name"]: a for a in assignments(root)}
    lines = [f"### Week {number}: {week['title']}", ""]
    lines += ["After this week a student can:", ""]
    lines += [f"- {goal};" for goal in week["goals"]]
    lines[-1] = lines[-1][:-1] + "."
    told = lambda names: ", ".join(
        f"{known[c].link} ({minutes(c, root)})" for c in names
    )
    lines += ["", f"**Lecture:** {told(week['lecture'])}."]
    if week.get("read"):
        lines += ["", f"**To read as well:** {told(week['read'])}."]
    if a := works.get(week.get("out")):
        lines += ["", f"**Handed out:** {_short(a)}. {a['about']}"]
    if a := works.get(week.get("due")):
        lines += ["", f"**Due:** {_short(a)}."]
    lines += ["", "| | slide | picture or equation | from |", "|--:|:--|:--|:--|"]
    for n, given in enumerate(week["slides"], 1):
        lines.append(f"| {n} | " + " | ".join(slide(given, root)) + " |")
    found = [
        m for c in week["lecture"] + week.get("read", []) for m in known[c].mistakes
    ]
    if found:
        lines += ["", "**What students get wrong**, from the chapters' boxes:", ""]
        for m in found:
            came = f"[{known[m.chapter].title}: {m.section}]({m.url})"
            lines.append(f"- {m.text} ({came})")
    return lines


def outlines_block(root: Path = ROOT) -> str:
    "Each week in full."
    lines: list[str] = []
    for number, week in enumerate(plan(root), 1):
        lines += [*_week(number, week, root), ""]
    named = {c for w in plan(root) for c in _chapters(w)}
    if left := [c for name, c in book(root).items() if name not in named]:
        lines += ["### Not in the ten weeks", ""]
        lines += [", ".join(c.link for c in left) + "."]
    return "\n".join(lines).rstrip()


BLOCKS = {
    "weeks": weeks_block,
    "assignments": assignments_block,
    "limits": limits_block,
    "ci": ci_block,
    "hidden": hidden_block,
    "outlines": outlines_block,
}


def fill(text: str, root: Path = ROOT) -> str:
    "The page with every made block as it should be."
    return filled(text, BLOCKS, PAGE, root)


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments not in (["--write"], ["--check"]):
        print(__doc__)
        return 2
    known = root / LIST
    if arguments == ["--write"] and not known.exists():
        write_atomically(known, "[]\n")  # the notebooks are read with it
    old = {PAGE: (root / PAGE).read_text(encoding="utf-8")}
    old[LIST] = known.read_text(encoding="utf-8") if known.exists() else ""
    new = {LIST: list_text(root), PAGE: fill(old[PAGE], root)}
    changed = [path for path in new if new[path] != old[path]]
    for path in changed:
        if arguments == ["--write"]:
            write_atomically(root / path, new[path])
        else:
            print(f"{path} is not up to date; run: make export")
    print(f"course guide: {len(changed)} of {len(new)} files were old")
    return 1 if changed and arguments == ["--check"] else 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
