"""The chapter runner and the freshness stamp, on a small project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import execute
import freshness
import notebooks
import pytest
from conftest import ROOT, write_chapter

CHAPTER = "foundations/01_demo"


@pytest.fixture
def keep_environment(monkeypatch):
    "run_chapter sets variables for its kernel; put them back."
    for name in ("METALEARN_SCALE", "METALEARN_RESULTS", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def printed(path):
    return "".join(
        t
        for c in notebooks.read(path)["cells"]
        for o in c.get("outputs", [])
        for t in o.get("text", [])
    )


def test_a_run_stores_the_targets_of_its_chapter_and_no_others(tmp_path):
    def rows(**values):
        return {k: {"chapter": k.split(":")[0], "value": v} for k, v in values.items()}

    here, run = (tmp_path / n / "results" for n in ("book", "run"))
    name = Path("targets") / "metric.json"
    for folder, found in (
        (here, rows(**{"metric/a: old": 1, "metric/b: kept": 2})),
        (run, rows(**{"metric/a: new": 3, "metric/b: kept": 9})),
    ):
        (folder / "targets").mkdir(parents=True)
        (folder / name).write_text(json.dumps(found))
    execute._store_targets("metric/a", run, tmp_path / "book")
    stored = json.loads((here / name).read_text())
    assert stored == rows(**{"metric/a: new": 3, "metric/b: kept": 2})
    execute._store_targets("optimization/x", run, tmp_path / "book")
    assert [p.name for p in (here / "targets").iterdir()] == ["metric.json"]


def test_a_run_at_book_scale_stores_outputs_numbers_and_a_fresh_stamp(
    project, keep_environment
):
    path, stored = (
        project / "nbs" / f"{CHAPTER}.ipynb",
        project / "results" / f"{CHAPTER}.json",
    )
    stored.parent.mkdir(parents=True)
    stored.write_text('{"full": {"numbers": {"answer": 12}}}')
    assert "no stamp" in freshness.problem(CHAPTER, project)
    execute.run_chapter(CHAPTER, "book", project)
    assert printed(path) == "answer 8\n"
    entry = json.loads(stored.read_text())
    assert entry["book"]["numbers"] == {"answer": 8} and entry["full"]["numbers"] == {
        "answer": 12
    }
    assert (
        entry["stamp"]["scale"] == "book"
        and freshness.problem(CHAPTER, project) is None
    )
    before = path.read_bytes()
    subprocess.run(
        [sys.executable, "-c", "from nbdev.clean import nbdev_clean; nbdev_clean()"],
        cwd=project,
        check=True,
    )
    assert path.read_bytes() == before, (
        "nbdev_clean must not change what the runner wrote"
    )
    assert [p.name for p in (project / "_build").iterdir()] == [], (
        "the scratch folder is gone"
    )

    # what makes it stale, and what does not
    helper = project / "metalearn_book" / "foundations" / "helper.py"
    helper.write_text(
        helper.read_text()
        .replace("# no more", "# a comment")
        .replace("Two times", "Twice")
        + "\n\n# the end\n"
    )
    assert freshness.problem(CHAPTER, project) is None
    helper.write_text(helper.read_text().replace("2 * x", "3 * x"))
    assert "twice has changed" in freshness.problem(CHAPTER, project)
    helper.write_text(helper.read_text().replace("3 * x", "2 * x"))
    path.write_text(path.read_text().replace("answer 8", "answer 9"))
    assert "not those of the stamped run" in freshness.problem(CHAPTER, project)


@pytest.fixture
def quick_kernel(monkeypatch, keep_environment):
    "In place of a kernel: every code cell prints the scale."

    def run(nb, folder, cell_timeout=None):
        assert list(folder.iterdir()) == [], "a chapter runs in an empty folder"
        for cell in nb["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = [
                    {
                        "output_type": "stream",
                        "name": "stdout",
                        "text": [os.environ["METALEARN_SCALE"]],
                    }
                ]
        stored = Path(os.environ["METALEARN_RESULTS"], f"{CHAPTER}.json")
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps({os.environ["METALEARN_SCALE"]: {"numbers": 1}}))

    monkeypatch.setattr(execute, "run_kernel", run)


def test_smoke_and_full_leave_the_notebook_alone(project, quick_kernel):
    path = project / "nbs" / f"{CHAPTER}.ipynb"
    before = path.read_bytes()
    execute.run_chapter(CHAPTER, "smoke", project)
    assert path.read_bytes() == before and not (project / "results").exists()
    assert "smokesmoke" in printed(project / "_build" / "smoke" / f"{CHAPTER}.ipynb")
    execute.run_chapter(CHAPTER, "full", project)
    assert path.read_bytes() == before
    assert "fullfull" in printed(project / "_build" / "full" / f"{CHAPTER}.ipynb")
    assert json.loads((project / "results" / f"{CHAPTER}.json").read_text()) == {
        "full": {"numbers": 1}
    }


def test_a_failing_cell_changes_nothing_and_says_where(project, keep_environment):
    path = write_chapter(
        project, ">>> print('so far')\nraise ValueError('too many shots')"
    )
    before = path.read_bytes()
    with pytest.raises(
        execute.ChapterFailed,
        match="(?s)too many shots.*nothing was stored.*_build/failed",
    ):
        execute.run_chapter(CHAPTER, "book", project)
    assert path.read_bytes() == before and not (project / "results").exists()
    assert "so far" in printed(project / "_build" / "failed" / f"{CHAPTER}.ipynb")


def test_an_edit_during_the_run_is_not_overwritten(
    project, keep_environment, monkeypatch
):
    path = project / "nbs" / f"{CHAPTER}.ipynb"
    monkeypatch.setattr(
        execute,
        "run_kernel",
        lambda *a: (
            path.write_text(
                path.read_text().replace("One sentence", "Another sentence")
            )
            and None
        ),
    )
    with pytest.raises(execute.ChapterFailed, match="edited while it ran"):
        execute.run_chapter(CHAPTER, "book", project)
    assert "Another sentence" in path.read_text() and not (project / "results").exists()


@pytest.mark.slow
def test_an_interrupted_execution_loses_nothing_and_goes_on_where_it_stopped(project):
    shutil.copytree(
        ROOT / "tools", project / "tools", ignore=shutil.ignore_patterns("__pycache__")
    )
    waiting = (
        ">>> from pathlib import Path\n"
        f"root = Path({str(project)!r})\n"
        "(root / 'started').touch()\n"
        "import time; time.sleep(0 if (root / 'go').exists() else 300)"
    )
    second = write_chapter(project, waiting, "02_waits")
    before = second.read_bytes()
    command = [
        sys.executable,
        str(project / "tools" / "execute.py"),
        "all",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(2400):  # a loaded machine starts a kernel slowly
        if (project / "started").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, more = process.communicate(timeout=60)
    assert process.returncode == 143 and more == ""
    summary = (
        "Done: foundations/01_demo. Not done, and as they were: foundations/02_waits"
    )
    assert "[1/2] foundations/01_demo" in said and summary in said
    assert freshness.problem(CHAPTER, project) is None and second.read_bytes() == before
    assert not (project / "results" / "foundations" / "02_waits.json").exists()
    assert not list((project / "_build").glob("run-*")), (
        "the interrupted run removes its folder"
    )
    (project / "go").touch()
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    assert (
        "fresh: 1; to run at book scale, 1 at a time: 1" in said
        and "[1/1] foundations/02_waits" in said
    )
    assert freshness.problem("foundations/02_waits", project) is None


def test_in_process_runs_report_each_chapter(project, capfd, monkeypatch):
    write_chapter(
        project, ">>> print('before'); assert double_twice(1) == 5", "02_wrong"
    )
    write_chapter(project, ">>> import os; os._exit(3)", "04_exits")
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    monkeypatch.setenv("PYTHONPATH", str(project))
    code = f"""
import sys; sys.path[:0] = [{str(project)!r}, {str(ROOT / "tools")!r}]
import execute, json
import execnb.shell
from pathlib import Path
root = Path({str(project)!r})
done = execute.run_many(execute.chapters(root), execute._start_forked, \
2, 60, {{}}, root)
Path(root, 'done.json').write_text(json.dumps(done))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
    done = {
        name.split("_")[-1]: said
        for name, (_, said) in json.loads((project / "done.json").read_text()).items()
    }
    assert done["demo"] == ""
    assert (
        "AssertionError" in done["wrong"]
        and "before" in done["wrong"]
        and "double_twice(1) == 5" in done["wrong"]
    )
    assert "exit status 3" in done["exits"]
    out = capfd.readouterr().out
    assert "[3/3]" in out and out.count("FAILED") == 2


def started(project, process):
    for _ in range(2400):  # a loaded machine starts a kernel slowly
        if (project / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    return int((project / "started").read_text())


@pytest.fixture
def slow_project(project):
    "Its second chapter says which process it runs in, and then waits."
    shutil.copytree(
        ROOT / "tools", project / "tools", ignore=shutil.ignore_patterns("__pycache__")
    )
    waiting = (
        ">>> import os, time\nfrom pathlib import Path\n"
        f"part = Path({str(project / 'part')!r})\n"
        "part.write_text(str(os.getpid()))\n"
        f"part.rename({str(project / 'started')!r})\n"
        "time.sleep(300)"
    )
    write_chapter(project, waiting, "02_waits")
    return project


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "ended by Ctrl-C"),
        (signal.SIGTERM, 143, "ended by a kill"),
    ],
)
def test_a_signal_ends_a_run_with_one_line(slow_project, number, status, words):
    command = [sys.executable, str(slow_project / "tools" / "execute.py")]
    process = subprocess.Popen(
        [*command, "run", "02_waits"], stderr=subprocess.PIPE, text=True
    )
    kernel = started(slow_project, process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status and said.count("\n") == 1 and words in said
    assert not is_running(kernel)
    assert not list((slow_project / "_build").glob("run-*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_kill_9_nothing_lives_on_and_nothing_is_stored(slow_project):
    second = slow_project / "nbs" / "foundations" / "02_waits.ipynb"
    before = second.read_bytes()
    command = [sys.executable, str(slow_project / "tools" / "execute.py"), "all"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    kernel = started(slow_project, process)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    runner = [int(pid) for pid in Path(children).read_text().split()]
    assert runner
    process.kill()
    process.wait()
    for _ in range(1200):
        if not any(map(is_running, [kernel, *runner])):
            break
        time.sleep(0.05)
    assert not any(map(is_running, [kernel, *runner]))
    assert second.read_bytes() == before
    assert not (slow_project / "results" / "foundations" / "02_waits.json").exists()
    assert not list((slow_project / "_build").glob("run-*"))


def test_nothing_is_stored_once_the_parent_is_gone(project, monkeypatch, quick_kernel):
    path = project / "nbs" / f"{CHAPTER}.ipynb"
    before = path.read_bytes()
    monkeypatch.setattr(execute.ending, "_parent", [1_000_000_000])
    with pytest.raises(execute.ending.Ended):
        execute.run_chapter(CHAPTER, "book", project)
    assert path.read_bytes() == before and not (project / "results").exists()


TOOL = """
import sys, time
sys.path.insert(0, {tools!r})
import ending
def main():
    print("in", flush=True)
    time.sleep(60)
ending.run(main)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_every_tool_ends_with_one_line(tmp_path, number, status):
    path = tmp_path / "tool.py"
    path.write_text(TOOL.format(tools=str(ROOT / "tools")))
    process = subprocess.Popen(
        [sys.executable, path], stdout=-1, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert said.startswith("tool.py: ended by") and said.count("\n") == 1


#: what imports it in vain: the signal is swallowed, as by libraries written in C
SWALLOWS = """
import time
print("importing", flush=True)
for _ in range(300):
    try:
        time.sleep(0.2)
    except BaseException:
        pass
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("griffe", ["tools/check_api.py"]),
        ("torch", ["-m", "metalearn_book.cli", "doctor"]),
    ],
)
def test_a_signal_during_imports_is_heard(tmp_path, library, command, number, status):
    (tmp_path / f"{library}.py").write_text(SWALLOWS)
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "importing\n" in process.stdout
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert "ended by" in said and said.count("\n") == 1, said


def test_every_tool_is_run_by_ending():
    for folder in ("tools", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            code = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' in code and path.name != "ending.py":
                assert "ending.run(" in code, path


@pytest.mark.parametrize("name", ["METALEARN_DATA", "METALEARN_ENCODERS"])
@pytest.mark.parametrize("value", ["no such folder", "~/no such folder"])
def test_a_folder_that_is_not_there_stops_a_tool(
    monkeypatch, capsys, name, value, keep_environment
):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(execute, "run_chapter", None)
    assert execute.main(["run", "foundations/20_tasks", "--scale", "smoke"]) == 2
    assert f"{name}={value} (that is /" in capsys.readouterr().err


def test_paths_are_resolved_before_a_chapter_runs_elsewhere(
    monkeypatch, tmp_path, keep_environment
):
    (tmp_path / "data rel").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALEARN_DATA", "../" + tmp_path.name + "/data rel")
    monkeypatch.setenv("METALEARN_CACHE", "~/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    monkeypatch.setattr(
        execute, "run_chapter", lambda *a: seen.append(dict(os.environ)) or 1.0
    )
    assert execute.main(["run", "foundations/20_tasks", "--scale", "smoke"]) == 0
    assert seen[0]["METALEARN_DATA"] == str(tmp_path / "data rel")
    assert seen[0]["METALEARN_CACHE"] == str(tmp_path / "cache")


def test_a_chapter_that_takes_too_long_is_stopped(project):
    def start(chapter, log, root):
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

    done = execute.run_many([CHAPTER], start, 1, 0.2, {}, project)
    assert (
        done[CHAPTER][1] == "took longer than 0.2 s and was stopped"
        and done[CHAPTER][0] < 30
    )


def test_an_interrupt_says_what_is_done(project, capsys):
    calls = []

    def start(chapter, log, root):
        if calls:
            raise KeyboardInterrupt
        calls.append(chapter)
        return subprocess.Popen(
            [sys.executable, "-c", "pass"], start_new_session=True
        ).pid

    with pytest.raises(KeyboardInterrupt):
        execute.run_many(["a/01_x", "a/02_y"], start, 1, None, {}, project)
    assert "Done: a/01_x. Not done, and as they were: a/02_y" in capsys.readouterr().out


def test_estimates():
    done = {"a": (100.0, ""), "b": (50.0, "")}
    # (300 + mean 75) / 2 = 187 s
    assert execute._left(["c", "d"], done, {"c": 300.0}, 2) == "  (about 3 min left)"
    assert execute._left(["c"], done, {}, 1) == "  (about 75 s left)"
    assert execute._left([], done, {}, 2) == ""


@pytest.mark.parametrize(
    "given", ["foundations/01_demo", "01_demo", "demo", "nbs/foundations/01_demo.ipynb"]
)
def test_names_of_chapters(project, given):
    assert notebooks.find_chapter(given, project) == CHAPTER


def test_unknown_names_and_damaged_files(project):
    with pytest.raises(ValueError, match="did you mean foundations/01_demo"):
        notebooks.find_chapter("demos", project)
    path = project / "nbs" / f"{CHAPTER}.ipynb"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ValueError, match="is not a notebook.*git checkout"):
        notebooks.read(path)
    stored = freshness.results_file(CHAPTER, project)
    stored.parent.mkdir(parents=True)
    stored.write_text("{")
    with pytest.raises(ValueError, match="damaged.*make run"):
        freshness.stamp_of(CHAPTER, project)


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")
    monkeypatch.setattr(
        Path,
        "write_text",
        lambda self, *a, **k: (_ for _ in ()).throw(OSError("disk full")),
    )
    with pytest.raises(OSError):
        notebooks.write_atomically(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_errors_in_stored_outputs_are_found(project):
    import check_notebooks

    path = project / "nbs" / f"{CHAPTER}.ipynb"
    assert check_notebooks.problems(path) == []
    nb = notebooks.read(path)
    nb["cells"][-1]["outputs"] = [
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    ]
    path.write_text(notebooks.text(nb))
    assert check_notebooks.problems(path) == [
        f"cell {len(nb['cells']) - 1} holds an error"
    ]
    assert "hold an error" in freshness.problem(CHAPTER, project)
    nb["cells"][0]["id"] = nb["cells"][1]["id"]
    path.write_text(notebooks.text(nb))
    assert "used twice" in check_notebooks.problems(path)[0]
