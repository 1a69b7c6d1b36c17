"""The course guide: its numbers are those of the files that it is made from, its plan
holds together, and what it tells a teacher to run can be run."""

import json
import re
import shlex
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT

sys.path.append(str(ROOT / "tools"))
import assign
import course_page
from grading.box import PRIVATE
from grading.grade import load

TEXT = (ROOT / course_page.PAGE).read_text(encoding="utf-8")


def test_the_page_and_the_list_are_made_from_the_files():
    assert course_page.main(["--check"]) == 0


def test_points_are_those_of_the_grader_and_of_the_questions():
    found = course_page.assignments()
    assert [a["name"] for a in found] == [p.name for p in assign.assignments()]
    for a in found:
        assert a["machine"] == load(ROOT / "assignments" / a["name"]).points
        person = [q for q in a["questions"] if "person" in q["points"]]
        of = lambda q: float(re.match(r"[\d.]+", q["points"])[0])
        assert sum(map(of, person)) == a["person"]
        assert sum(map(of, a["questions"])) == a["machine"] + a["person"]
        assert (
            bool(a["person"])
            == (ROOT / "assignments" / a["name"] / "rubric.md").exists()
        )
        start = "| [" + a["title"].split()[1].replace(":", ". ")
        rows = [r for r in TEXT.splitlines() if r.startswith(start) and "hours" in r]
        row = next(iter(rows))
        assert f"| {a['machine']} | {a['person'] or ''} | {a['time']} |" in row


def test_every_chapter_is_in_one_week():
    weeks = course_page.plan()
    assert len(weeks) == 10
    named = [c for w in weeks for c in w["lecture"] + w.get("read", [])]
    assert len(named) == len(set(named))
    for name, chapter in course_page.book().items():
        assert f"](../{name}.ipynb)" in TEXT, chapter.title


def test_slides():
    for week in course_page.plan():
        assert 8 <= len(week["slides"]) <= 12
        for given in week["slides"]:
            title, shown, came = course_page.slide(given)
            assert f"| {title} | {shown} | {came} |" in TEXT


def test_an_assignment_comes_back_after_it_is_out():
    weeks = course_page.plan()
    out = {w["out"]: n for n, w in enumerate(weeks) if w.get("out")}
    back = {w["due"]: n for n, w in enumerate(weeks) if w.get("due")}
    assert all(out[name] < n for name, n in back.items())
    assert set(out) - set(back) <= {weeks[-1]["out"]}


def test_every_common_mistake_of_the_chapters_is_there():
    n = 0
    for path in course_page.chapter_files(ROOT):
        name = course_page.chapter_name(path, ROOT)
        for cell in course_page.read(path)["cells"]:
            if cell["cell_type"] == "markdown" and not name.startswith("appendices/"):
                n += course_page.source(cell).count("> **Common mistake:**")
    part = TEXT.split("<!-- made: outlines -->")[1].split("<!-- end -->")[0]
    assert sum(line.startswith("- ") and line.endswith("))")
               for line in part.splitlines()) == n > 40  # fmt: skip


@pytest.mark.parametrize(
    "slide, says",
    [
        (["A", "NO-1"], "NO-1"),
        (["A", "fig-none"], "fig-none"),
        (["A", "foundations/20_tasks#nowhere", "x"], "nowhere"),
        (["A", "foundations/20_tasks#notation"], "notation"),  # shows nothing
    ],
)
def test_a_slide_of_what_is_not_there_is_an_error(slide, says):
    with pytest.raises(ValueError, match=says):
        course_page.slide(slide)


def copied(tmp_path, monkeypatch, change):
    "The plan with a change, in place of the real one."
    weeks = tomllib.loads((ROOT / course_page.PLAN).read_text(encoding="utf-8"))
    change(weeks["week"])
    monkeypatch.setattr(course_page.tomllib, "loads", lambda _: weeks)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda w: w[0]["lecture"].append("foundations/none"), "no chapters"),
        (lambda w: w[3]["read"].append("optimization/10_maml"), "in two weeks"),
        (lambda w: w[0].update(out="03_maml"), "come later"),
        (lambda w: w[0].pop("out"), "hands out no"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_an_error(
    tmp_path, monkeypatch, change, says
):
    copied(tmp_path, monkeypatch, change)
    with pytest.raises(ValueError, match=says):
        course_page.plan()


def test_the_time_of_a_chapter_is_that_of_its_results():
    stored = json.loads((ROOT / "results/optimization/10_maml.json").read_text())
    minutes = round(stored["book"]["seconds"] / 60)
    assert f"](../optimization/10_maml.ipynb) ({minutes} min)" in TEXT
    devices = set()
    for name in course_page.book():
        path = ROOT / "results" / f"{name}.json"
        if path.exists():
            devices.add(json.loads(path.read_text())["book"]["device"])
    assert {d.split(",")[0] for d in devices} == {"2 CPU cores"}  # as the page says


def test_the_workflow_reads_as_yaml_and_calls_what_is_there(monkeypatch):
    block = re.search(r"```yaml\n(.*?)```", TEXT, re.S)[1]
    job = yaml.safe_load(block)["jobs"]["grade"]
    runs = [s for s in job["steps"] if "assign.py" in s.get("run", "")]
    assert len(runs) == 1 and PRIVATE in runs[0]["env"]
    called = {}
    monkeypatch.setattr(
        assign, "grade_all", lambda *told: called.update(told=told) or 0
    )
    words = shlex.split(runs[0]["run"])
    assert words[:2] == ["python", "tools/assign.py"]
    assert assign.main(words[2:]) == 0
    assert called["told"][1] == "02" and called["told"][3] == 2


def test_the_commands_of_the_page_exist(capsys):
    from metalearn_book import cli

    code = re.findall(r"`(make [^`]*)`", TEXT) + re.findall(r"^make .*$", TEXT, re.M)
    targets = {words.split()[1] for words in code}
    makefile = (ROOT / "Makefile").read_text()
    assert {"grade", "assignments", "models", "book"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in set(re.findall(r"\btools/\w+\.py", TEXT)):
        assert (ROOT / path).exists(), path
    checks = re.findall(r"^metalearn-book course check .*$", TEXT, re.M)
    for line in checks:
        words = shlex.split(line, comments=True)[1:]
        words[2] = str(ROOT / "assignments" / "02_inner_loop" / "solution.ipynb")
        assert cli.main(words) == 0
    assert len(checks) == 2 and f"`{PRIVATE}`" in TEXT
