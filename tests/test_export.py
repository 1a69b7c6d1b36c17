"""Notebooks -> package: the export, the check that nobody edited the package by hand,
and the list of chapters."""

import json

import export
from conftest import ROOT, write_chapter


def test_a_notebook_becomes_its_module_and_hand_written_code_stays(project):
    helper = (project / "metalearn_book" / "foundations" / "helper.py").read_text()
    export.export(project)
    module = (project / "metalearn_book" / "foundations" / "demo.py").read_text()
    code = [
        line for line in module.splitlines() if line and not line.startswith(("#", '"'))
    ]
    assert code[0] == "from __future__ import annotations"
    assert (
        "__all__ = ['double_twice']" in module
        and "One sentence." in module.splitlines()[0]
    )
    assert (
        project / "metalearn_book" / "foundations" / "helper.py"
    ).read_text() == helper
    assert (
        "'metalearn_book.foundations.demo.double_twice'"
        in (project / "metalearn_book" / "_modidx.py").read_text()
    )
    assert (
        "def __getattr__" in (project / "metalearn_book" / "__init__.py").read_text()
    ), "the version is updated in place"
    assert json.loads((project / export.LIST).read_text()) == [
        {
            "chapter": "foundations/01_demo",
            "part": "Foundations",
            "title": "A demo",
            "about": "One sentence.",
            "module": "metalearn_book.foundations.demo",
        }
    ]

    (project / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    before = {p: p.read_bytes() for p in project.rglob("*") if p.is_file()}
    assert export.differences(project) == []
    assert {p: p.read_bytes() for p in project.rglob("*") if p.is_file()} == before, (
        "the check writes nothing"
    )

    path = project / "metalearn_book" / "foundations" / "demo.py"
    path.write_text(module.replace("twice(twice(x))", "4 * x"))
    assert export.differences(project) == ["metalearn_book/foundations/demo.py"], (
        "an edit by hand is found"
    )
    path.write_text(module)
    write_chapter(project).rename(project / "nbs" / "foundations" / "_draft.ipynb")
    assert "metalearn_book/foundations/demo.py" in export.differences(project), (
        "a module whose notebook is gone is found"
    )
