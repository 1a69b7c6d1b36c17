"""The worked solutions: every chapter's exercises have them, each with a check or with
what a good answer holds, and the chapter leads to them."""

import ast
import os
import re
import time

import execute
import notebooks
import pytest
import quarto_filter
import setup_cell
from check_notebooks import problems
from conftest import notebook

GOOD = "**A good answer holds"


def stars_of(cells: list[dict]) -> dict[int, str]:
    "Number -> stars of the exercises in a chapter; empty where it has none."
    found = {}
    for cell in cells:
        text = notebooks.source(cell)
        section = re.search(r"^## Exercises\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        if cell["cell_type"] == "markdown" and section:
            for number, stars in re.findall(r"^(\d+)\. (★+) ", section[1], re.M):
                found[int(number)] = stars
    return found


def sections(cells: list[dict]) -> dict[int, tuple[str, list[tuple[str, str]]]]:
    """Number -> (stars, [(kind, text)]) of the solutions in a notebook. A Markdown cell
    may end one section and begin the next."""
    found, here = {}, None
    for cell in cells:
        text, kind = notebooks.source(cell), cell["cell_type"]
        parts = re.split(r"^(## .*)$", text, flags=re.M) if kind == "markdown" else []
        for part in parts or [text]:
            if kind == "markdown" and part.startswith("## "):
                m = re.fullmatch(r"## Exercise (\d+) (★+): .+", part)
                assert m, f"{part!r} is not '## Exercise 1 ★: title'"
                here = int(m[1])
                assert here not in found, f"exercise {here} stands there twice"
                found[here] = m[2], []
            elif here is not None:
                found[here][1].append((kind, part))
    return found


def is_checked(code: str) -> bool:
    "Does a cell assert something, with a message, whatever the scale is?"
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assert) and node.msg is not None:
            return True
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
            scale = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("scale")
            if scale == "'smoke'":
                return True
    return False


def faults(chapter: list[dict], solutions: list[dict]) -> list[str]:
    "What is wrong with the solutions of a chapter."
    asked, solved, found = stars_of(chapter), sections(solutions), []
    if list(asked) != list(solved):
        found.append(f"exercises {list(asked)}, solutions {list(solved)}")
    for number in asked.keys() & solved.keys():
        stars, parts = solved[number]
        if stars != asked[number]:
            found.append(f"exercise {number} has {asked[number]}, its solution {stars}")
        checks = any(kind == "code" and is_checked(text) for kind, text in parts)
        told = any(kind == "markdown" and GOOD in text for kind, text in parts)
        if not checks and not told:
            found.append(f"exercise {number}: no check, and no '{GOOD} ...'")
    return found


def solutions() -> list[str]:
    return [name.removeprefix("exercises/") for name in notebooks.exercises()]


def cells(name: str) -> list[dict]:
    return notebooks.read(notebooks.notebook_path(name))["cells"]


@pytest.mark.parametrize("name", solutions())
def test_every_exercise_is_solved(name):
    assert notebooks.notebook_path(name).exists(), f"there is no chapter {name}"
    assert faults(cells(name), cells(f"exercises/{name}")) == []
    title = notebooks.source(cells(f"exercises/{name}")[0])
    chapter = notebooks.source(cells(name)[0]).splitlines()[0].removeprefix("# ")
    assert title.startswith(f"# Solutions: {chapter}\n"), title


def test_every_chapter_with_exercises_has_solutions():
    asked = {
        notebooks.chapter_name(p)
        for p in notebooks.chapter_files()
        if stars_of(notebooks.read(p)["cells"])
    }
    assert len(asked) > 50, "the exercises of the chapters were not found"
    assert asked <= set(solutions()), "a new chapter comes with its solutions"


@pytest.mark.parametrize(
    "solution, told",
    [
        (["## Exercise 1 ★: a", ">>> assert 1 == 1, 'one'"], ""),
        (["## Exercise 1 ★: a\n\n**A good answer holds:** two rows."], ""),
        (["## Exercise 1 ★: a", ">>> assert 1 == 1"], "no check"),
        (["## Exercise 1 ★: a", ">>> claim('a', True)"], "no check"),
        (["## Exercise 1 ★: a", ">>> claim('a', True, scale='smoke')"], ""),
        (["## Exercise 1 ★★: a", ">>> assert 1, 'one'"], "its solution ★★"),
        (["## Exercise 2 ★: a", ">>> assert 1, 'one'"], "solutions [2]"),
    ],
)
def test_what_is_missing_is_found(solution, told):
    chapter = notebook("# T", "## Exercises\n\n1. ★ Do it.\n\n## Notes\n\n2. ★ no")
    found = faults(chapter["cells"], notebook(*solution)["cells"])
    assert (told in found[0]) if told else not found, found


def test_a_chapter_gets_one_line_that_leads_to_its_solutions():
    cfg = notebooks.settings()
    nb = notebook("# T\n\n> s", "BADGES", "## Exercises\n\n1. ★ Do it.\n")
    path, solved = "nbs/a/01_b.ipynb", "exercises/a/01_b.ipynb"
    for version in ("0.1", "0.2"):
        assert not setup_cell.generate(nb, path, cfg | {"version": version}, solved)
    text = notebooks.source(nb["cells"][2])
    assert text.count(setup_cell.SOLUTIONS) == 1 and "../../exercises/a/01_b" in text
    assert "blob/v0.2/exercises/a/01_b.ipynb" in text and text.endswith("1. ★ Do it.\n")
    assert not setup_cell.generate(nb, path, cfg)
    assert notebooks.source(nb["cells"][2]) == "## Exercises\n\n1. ★ Do it.\n"


def test_on_the_site_the_line_leads_to_the_repository():
    context = quarto_filter.Context(folder="nbs/a", repository="https://host/blob/")
    found = quarto_filter.rewrite_url("../../exercises/a/01_b.ipynb", context)
    assert found == "https://host/blob/exercises/a/01_b.ipynb"


def test_solutions_without_exercises_and_without_a_setup_cell_are_reported():
    cfg = notebooks.settings()
    [told] = setup_cell.generate(notebook("# T", "BADGES"), "nbs/a.ipynb", cfg, "e")
    assert "no '## Exercises'" in told
    [told] = setup_cell.generate(notebook("# T", "BADGES"), "exercises/a.ipynb", cfg)
    assert "no setup cell" in told


def test_solutions_are_stored_without_outputs_but_for_figures(tmp_path):
    nb = notebook("# T", ">>> 1", ">>> 2")
    nb["cells"][1]["outputs"] = [
        {"output_type": "display_data", "data": {"image/png": "aa"}, "metadata": {}}
    ]
    nb["cells"][2]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["2\n"]}
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(notebooks.text(notebooks.clean(nb)))
    assert problems(path) == []
    [told] = problems(path, solutions=True)
    assert told.startswith("cell 2 holds an output that is no figure")


def test_solutions_that_use_too_much_time_fail(tmp_path):
    def run(limit):
        pid = os.fork()
        if not pid:
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
            os._exit(0)
        log = tmp_path / "log"
        job = execute.Job("a", pid, log, time.perf_counter(), None, cpu_limit=limit)
        while (said := job.poll()) is None:
            time.sleep(0.01)
        return said

    assert run(limit=60) == ""
    assert "of processor time, allowed are 0.01" in run(limit=0.01)


def test_unknown_solutions_are_named(capsys):
    done = execute.main(["smoke", "--exercises", "metric/99_none"])
    assert done == 2 and "exercises/metric/99_none" in capsys.readouterr().err


def test_solutions_can_be_named_as_their_chapter():
    first = solutions()[0]
    wanted = [f"exercises/{first}"]
    assert execute._find_exercises([first]) == wanted
    assert execute._find_exercises([f"exercises/{first}.ipynb"]) == wanted
