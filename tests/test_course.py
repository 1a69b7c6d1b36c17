"""`metalearn-book course`: which questions of a student's notebook pass their visible
checks, whatever its cells do; and errors that say what to do."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from metalearn_book import cli
from metalearn_book.book import _course as course

ASSIGNMENTS = sorted(p.parent for p in (ROOT / "assignments").glob("*/student.ipynb"))
INNER = ROOT / "assignments" / "02_inner_loop"


def out(capsys, *arguments):
    status = cli.main(["course", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def cells(*codes, title="# Assignment 2: The inner loop by hand"):
    "A small notebook: Markdown begins with #, code with #| or anything else."
    found = [{"cell_type": "markdown", "source": title, "metadata": {}}]
    for code in codes:
        kind = "markdown" if code.startswith("## ") else "code"
        found.append({"cell_type": kind, "source": code, "metadata": {}})
    return {"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def written(path, nb):
    path.write_text(json.dumps(nb), encoding="utf-8")
    return path


TWO = (
    "## Question 1: one (1 point)",
    "#| graded\ndef one():\n    return 1",
    "#| check one\nassert one() == 1, 'one() is 1'",
    "## Question 2: two (2 points)",
    "#| graded\ndef two():\n    return 2",
    "#| check two\nassert two() == 2, f'expected 2, got {two()}'",
)


def states(nb, **more):
    outcomes, problems = course.run(nb, **more)
    return {c: o.state for c, o in outcomes.items()}, problems


@pytest.mark.parametrize("folder", ASSIGNMENTS, ids=lambda p: p.name)
def test_solutions_pass_and_unsolved_notebooks_pass_nothing(folder):
    solved = course.notebook(folder / "solution.ipynb")
    found, problems = states(solved)
    assert list(found) == list(solved.checks) and not problems
    assert set(found.values()) == {"passes"}
    found, problems = states(course.notebook(folder / "student.ipynb"))
    assert "passes" not in found.values() and not problems


@pytest.mark.parametrize("folder", ASSIGNMENTS, ids=lambda p: p.name)
def test_a_question_alone_passes_as_in_the_whole(folder):
    nb = course.notebook(folder / "solution.ipynb")
    last = [q for q in nb.questions if q.checks][-1]
    for names in (list(nb.checks)[-1:], last.checks):
        assert states(nb, wanted=names)[0] == dict.fromkeys(names, "passes")


def half_done(tmp_path):
    "The student's notebook with the solutions of questions 1, 2 and 4."
    nb = json.loads((INNER / "student.ipynb").read_text(encoding="utf-8"))
    solved = json.loads((INNER / "solution.ipynb").read_text(encoding="utf-8"))
    source = lambda c: "".join(c["source"])
    known = [source(c) for c in solved["cells"] if c["cell_type"] == "code"]
    for cell in nb["cells"]:
        for name in ("loss", "gradient", "hessian_vector"):
            if source(cell).startswith(f"#| graded\ndef {name}("):
                cell["source"] = next(
                    k for k in known if k.startswith(f"#| graded\ndef {name}(")
                )
    return written(tmp_path / "my_copy.ipynb", nb)


def test_a_half_done_notebook_gives_exactly_its_questions(tmp_path, capsys):
    path = half_done(tmp_path)
    found, problems = states(course.notebook(path))
    assert not problems
    assert [c for c, s in found.items() if s == "passes"] == [
        "loss", "gradient", "hessian_vector"]  # fmt: skip
    assert {s for c, s in found.items() if s != "passes"} == {"not done"}
    status, text, _ = out(capsys, "check", path)
    assert status == 1 and "3 of 8 questions pass" in text
    read = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cell = 1 + ["def inner_loop(" in "".join(c["source"]) for c in read].index(True)
    assert f"inner_loop has no solution yet (cell {cell})" in text
    status, text, _ = out(capsys, "progress", tmp_path)
    assert status == 0 and "3 of 8 questions pass" in text and "(1, 2, 4)" in text


@pytest.mark.parametrize("name", ["gradient", "2", "Question 2", "q2"])
def test_one_question_by_any_of_its_names(tmp_path, capsys, name):
    status, text, _ = out(capsys, "check", half_done(tmp_path), "--question", name)
    assert status == 0 and "the gradient (3 points)" in text and "the loss" not in text


def test_a_function_names_the_question_that_checks_it(capsys):
    path = ROOT / "assignments" / "03_maml" / "solution.ipynb"
    status, text, _ = out(capsys, "check", path, "--question", "fomaml_gradient")
    assert status == 0 and "the shadows" in text


def test_a_wrong_answer_shows_what_the_assert_says(tmp_path, capsys):
    codes = list(TWO)
    codes[4] = "#| graded\ndef two():\n    print('here')\n    return 3"
    path = written(tmp_path / "a.ipynb", cells(*codes))
    status, text, _ = out(capsys, "check", path, "--question", "two")
    assert status == 1 and "two: expected 2, got 3" in text and "here" in text
    assert states(course.notebook(path))[0] == {"one": "passes", "two": "fails"}


def test_a_check_uses_what_an_earlier_one_names(tmp_path):
    codes = list(TWO)
    codes[2] += "\nwanted = two()"
    codes[5] = "#| check two\nassert two() == wanted"
    nb = course.notebook(written(tmp_path / "a.ipynb", cells(*codes)))
    assert states(nb, wanted=["two"])[0] == {"two": "passes"}
    codes[1] = "#| graded\ndef one():\n    return 0"  # the check fails and goes on
    nb = course.notebook(written(tmp_path / "b.ipynb", cells(*codes)))
    assert states(nb)[0] == {"one": "fails", "two": "passes"}
    codes[2] = "#| check one\nwanted = one(1)"  # it can't make the name
    nb = course.notebook(written(tmp_path / "c.ipynb", cells(*codes)))
    outcomes, _ = course.run(nb)
    assert outcomes["two"].state == "not done"
    assert "'wanted' of the check one" in outcomes["two"].message


@pytest.mark.parametrize(
    "bad, says",
    [
        ("while True: pass", "longer than 1 s"),
        ("import os; os._exit(3)", "ended the process (status 3)"),
        ("import sys; sys.exit()", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("%matplotlib inline", "% or !"),
        ("1 / 0", "ZeroDivisionError: division by zero (cell 8, line 2: 1 / 0)"),
        ("print('x' * 10**7)", ""),
        ("import os; os.close(2)", ""),
        ("import os; os.close(1)", ""),
        ("input()", "EOFError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import threading, time\n"
         "threading.Thread(target=time.sleep, args=(99,)).start()", ""),
    ],
)  # fmt: skip
def test_a_bad_cell_costs_only_itself(tmp_path, bad, says):
    nb = cells(*TWO, f"#| graded\n{bad}")
    nb = course.notebook(written(tmp_path / "a.ipynb", nb))
    assert nb.cells[-1][0] == "cell 8"
    started = time.monotonic()
    found, problems = states(nb, seconds=1.0)
    assert found == {"one": "passes", "two": "passes"}
    assert list(problems) == (["cell 8"] if says else [])
    assert says in problems.get("cell 8", "")
    assert time.monotonic() - started < 20


def test_a_check_that_never_ends_costs_only_itself(tmp_path, capsys):
    codes = list(TWO)
    codes[1] = "#| graded\ndef one():\n    while True:\n        pass"
    path = written(tmp_path / "a.ipynb", cells(*codes))
    started = time.monotonic()
    status, text, _ = out(capsys, "check", path, "--seconds", "1")
    assert status == 1 and "longer than 1 s" in text and "1 of 2 questions" in text
    assert time.monotonic() - started < 20


@pytest.mark.skipif(os.name != "posix", reason="processes are looked for in /proc")
def test_nothing_is_left_behind(tmp_path):
    mark = f"left-{os.getpid()}-{time.time_ns()}"
    bad = f"#| graded\nimport subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'])"  # noqa: E501
    states(course.notebook(written(tmp_path / "a.ipynb", cells(*TWO, bad))))
    ps = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True)
    assert ps.returncode == 0 and mark not in ps.stdout


def test_files_of_ones_own(tmp_path):
    codes = list(TWO)
    codes[4] = "#| graded\nfrom mine import three as two"
    path = written(tmp_path / "a.ipynb", cells(*codes))
    (tmp_path / "mine.py").write_text("def three():\n    return 3\n")
    assert states(course.notebook(path))[0] == {"one": "passes", "two": "fails"}
    (tmp_path / "adapters.py").write_text("def two():\n    return 2\n")
    found, problems = states(course.notebook(tmp_path))
    assert found == {"one": "passes", "two": "passes"} and not problems


def test_it_works_on_the_notebook_alone(tmp_path):
    "From an empty folder, with the package and no checkout around."
    shutil.copy(INNER / "solution.ipynb", tmp_path / "mine.ipynb")
    command = [sys.executable, "-m", "metalearn_book.cli", "course", "progress"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "8 of 8 questions pass" in done.stdout and os.listdir(tmp_path) == [
        "mine.ipynb"
    ]


# ------------------------------------------------------------------ what can't be read


def test_no_notebook(tmp_path, capsys):
    (tmp_path / "my_copy.ipynb").write_text("{}")
    status, _, err = out(capsys, "check", tmp_path / "my_cpy.ipynb")
    assert status == 2 and "Did you mean my_copy.ipynb?" in err and "Colab" in err


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cells": [1]}', '{"cells": 1}']
)
def test_a_damaged_notebook(tmp_path, capsys, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    status, _, err = out(capsys, "check", path)
    assert status == 2 and "not a notebook, or it is damaged" in err
    assert "download it again" in err


def test_a_notebook_of_something_else(tmp_path, capsys):
    status, _, err = out(capsys, "check", ROOT / "nbs/optimization/10_maml.ipynb")
    assert status == 2 and "(Model-agnostic meta-learning (MAML))" in err
    assert "no assignment of the course" in err
    status, _, err = out(capsys, "progress", tmp_path)
    assert status == 2 and "no notebook of the course" in err
    status, _, err = out(capsys, "check", tmp_path)
    assert status == 2 and "has 0 (none)" in err


def test_an_unknown_question(capsys):
    path = INNER / "student.ipynb"
    status, _, err = out(capsys, "check", path, "--question", "gradiant")
    assert status == 2 and "Did you mean 'gradient'?" in err
    status, _, err = out(capsys, "check", path, "--question", "12")
    assert status == 2 and "There are: loss, gradient" in err


def test_a_question_of_another_assignment(capsys):
    path = ROOT / "assignments" / "01_episodes" / "student.ipynb"
    status, _, err = out(capsys, "check", path, "--question", "gradient")
    assert status == 2 and "is Assignment 1: Episodes" in err
    assert "one of Assignment 2: The inner loop by hand" in err


def test_a_question_for_a_person(capsys):
    path = ROOT / "assignments" / "03_maml" / "solution.ipynb"
    status, _, err = out(capsys, "check", path, "--question", "8")
    assert status == 2 and "a person grades it" in err


def test_bad_limits(capsys):
    for seconds in ("0", "-1", "inf", "nan"):
        path = INNER / "student.ipynb"
        status, _, err = out(capsys, "check", path, "--seconds", seconds)
        assert status == 2 and "--seconds must be a positive number" in err


def test_notes_on_cells_that_do_not_count(tmp_path, capsys):
    nb = json.loads((INNER / "solution.ipynb").read_text(encoding="utf-8"))
    text = lambda c: "".join(c["source"])
    nb["cells"] = [c for c in nb["cells"] if not text(c).startswith("#| check loss")]
    late = {"cell_type": "code", "source": "# mine\n#| graded\nx = 1", "metadata": {}}
    path = written(tmp_path / "a.ipynb", {**nb, "cells": [*nb["cells"], late]})
    status, said, _ = out(capsys, "check", path)
    assert "no check of loss" in said and "not as its first line" in said
    assert f"cell {len(nb['cells']) + 1} has" in said


# ------------------------------------------------------------------ the list


def test_the_list_names_every_assignment(capsys):
    status, text, _ = out(capsys)
    assert status == 0
    for folder in ASSIGNMENTS:
        nb = course.notebook(folder / "student.ipynb")
        assert nb.title in text and f"{folder.name}/student.ipynb" in text
        known = next(a for a in course.listed() if a["name"] == folder.name)
        assert [q["checks"] for q in known["questions"]] == [
            q.checks for q in nb.questions
        ]


TELLS = (
    "import os, json\n"
    "def tell(*what):\n"
    "    for fd in range(3, 20):\n"
    "        try: os.write(fd, b''.join(json.dumps(w).encode() + b'\\n' "
    "for w in what))\n"
    "        except OSError: pass\n"
)


def test_a_check_that_was_not_run_has_not_passed(tmp_path):
    code = "#| graded\nimport json\njson.dumps = lambda *a: '{\"over\": true}'"
    path = written(tmp_path / "a.ipynb", cells(code, "#| check one\nassert False"))
    passed, report = course.check(path, None, 10)
    assert not passed and "0 of 1" in report and "not run to its end" in report


def test_what_a_cell_writes_between_the_reports(tmp_path):
    code = f"#| graded\n{TELLS}tell(3, None, [1], 'over')"
    nb = course.notebook(written(tmp_path / "a.ipynb", cells(code, *TWO)))
    assert states(nb) == ({"one": "passes", "two": "passes"}, {})
    code = f"#| graded\n{TELLS}tell({{'begin': 'nothing'}})\nos._exit(0)"
    nb = course.notebook(written(tmp_path / "a.ipynb", cells(code, *TWO)))
    with pytest.raises(OSError, match="the channel on which the checks report"):
        course.run(nb)


def test_an_exception_that_has_no_words_ends_nothing(tmp_path):
    code = (
        "#| graded\nclass Mute(Exception):\n    def __str__(self):\n"
        "        raise RuntimeError\nraise Mute"
    )
    nb = course.notebook(written(tmp_path / "a.ipynb", cells(code, *TWO)))
    found, problems = states(nb)
    assert set(found.values()) == {"passes"}
    assert problems["cell 2"].startswith("Mute (cell 2, line 5")


def test_an_exit_has_its_own_status(tmp_path):
    code = "#| graded\nimport os\nos._exit(7)"
    nb = course.notebook(written(tmp_path / "a.ipynb", cells(code, *TWO)))
    assert states(nb)[1] == {"cell 2": "it ended the process (status 7)"}


def test_adapters_and_sources_that_are_no_text_are_named(tmp_path):
    path = written(tmp_path / "a.ipynb", cells(*TWO))
    (tmp_path / "adapters.py").write_bytes(b"# \xff")
    with pytest.raises(ValueError, match="adapters.py is no text in UTF-8"):
        course.run(course.notebook(tmp_path))
    nb = cells(*TWO)
    nb["cells"][1]["source"] = [1, 2]
    with pytest.raises(ValueError, match="damaged.*no text"):
        course.notebook(written(path, nb))
