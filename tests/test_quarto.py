"""What Quarto is given, and what is done to its site, tested without Quarto.

Pandoc, which Quarto reads and writes with, comes from the wheel `pypandoc_binary`.
"""

import base64
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import bibliography
import book
import check_site
import mathjax
import nbformat
import pytest
import quarto_filter as qf
import quarto_site
import stages
import yaml

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
FORMATS = SETTINGS["format"]


def every(value):
    "All texts in the settings."
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in every(v)] if isinstance(value, list) else [value]


CHAPTERS = [t for t in every(SETTINGS["book"]) if str(t).endswith(".ipynb")]


@pytest.fixture(scope="module")
def pandoc():
    "`pandoc(arguments, text) -> (what it wrote, what it warned of)`."
    pypandoc = pytest.importorskip(
        "pypandoc", reason="needs pip install pypandoc_binary"
    )

    def run(*arguments, text="", cwd=ROOT):
        done = subprocess.run(
            [pypandoc.get_pandoc_path(), *map(str, arguments)],
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=cwd,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


def given(file):
    "The notebook as Quarto is given it."
    notebook = qf.read_notebook(ROOT / file)
    return qf.convert(notebook, qf.book_context((ROOT / file).parent))[0]


# --- every chapter as a notebook


@pytest.mark.parametrize("file", CHAPTERS)
def test_every_chapter_is_a_valid_notebook_in_lines(file):
    notebook = given(file)
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        texts = [cell["source"]]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "text/html" not in data and "application/javascript" not in data
            texts += [output["text"]] if "text" in output else []
            texts += [value for kind, value in data.items() if kind.startswith("text/")]
        for lines in texts:
            assert isinstance(lines, list)
            assert all(
                line.endswith("\n") for line in lines[:-1]
            ) and "\n" not in "".join(line[:-1] for line in lines)


# --- every chapter as a document


def document(notebook):
    """The Markdown that Quarto makes of a notebook: a cell after the other, outputs in
    boxes."""
    parts = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            parts.append(qf.text_of(cell))
            continue
        code = qf.split_directives(qf.text_of(cell))[1]
        parts += ["::: {.cell}", f"````` {{.python .cell-code}}\n{code}\n`````"]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "text" in output:
                text, kind = f"`````\n{''.join(output['text'])}\n`````", "stdout"
            elif "text/markdown" in data:
                text, kind = "".join(data["text/markdown"]), "display"
            elif "image/png" in data:
                text, kind = "![](figure.png)", "display"
            else:
                text, kind = f"`````\n{''.join(data['text/plain'])}\n`````", "display"
            parts.append(f"::: {{.cell-output .cell-output-{kind}}}\n{text}\n:::")
        parts.append(":::")
    return "\n\n".join(parts) + "\n"


class Document(html.parser.HTMLParser):
    "What arrived in a document."

    def __init__(self):
        super().__init__()
        self.headings, self.codes, self.callouts, self.classes = [], [], [], []
        self.tables = self.equations = self.colons = 0
        self.into, self.anchors = None, set()

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        classes = (a.get("class") or "").split()
        self.classes += classes
        self.anchors.add(a.get("id"))
        self.tables += tag == "table"
        self.equations += tag == "math" and a.get("display") == "block"
        self.callouts += [c for c in classes if c.startswith("callout-")]
        if re.fullmatch("h[1-6]", tag):
            self.into = self.headings
        elif tag == "pre":
            self.into = self.codes
        if tag == "pre" or re.fullmatch("h[1-6]", tag):
            self.into.append("")

    def handle_endtag(self, tag):
        if tag == "pre" or re.fullmatch("h[1-6]", tag):
            self.into = None

    def handle_data(self, data):
        if self.into is not None:
            self.into[-1] += data
        else:
            self.colons += ":::" in data


@pytest.fixture(scope="module")
def documents(pandoc, tmp_path_factory):
    "chapter -> (the document, its HTML); and what pandoc warned of. One call for all."
    folder = tmp_path_factory.mktemp("documents")
    names = [f"{i}.md" for i in range(len(CHAPTERS))]
    for name, file in zip(names, CHAPTERS):
        text = f"<hr id=start />\n\n{document(given(file))}"
        (folder / name).write_text(text, encoding="utf-8")
    written, warned = pandoc(
        "--file-scope",
        "-f",
        SETTINGS["from"],
        "-t",
        "html",
        "--mathml",
        "--wrap=preserve",
        "--syntax-highlighting=none",
        f"--lua-filter={ROOT / FORMATS['epub']['filters'][0]}",
        *names,
        cwd=folder,
    )
    parts = written.split("<hr id=start />")[1:]
    assert len(parts) == len(CHAPTERS)
    read = {}
    for file, part in zip(CHAPTERS, parts):
        found = Document()
        found.feed(part)
        read[file] = found, part
    return read, warned


def outside(text):
    "Markdown without its fenced blocks, code in line and comments."
    text = re.sub(r"^(```+|~~~+).*?^\1[ \t]*$", "", text, flags=re.S | re.M)
    return re.sub(r"<!--.*?-->|`[^`\n]*`", "", text, flags=re.S)


@pytest.mark.parametrize("file", CHAPTERS)
def test_everything_in_a_chapter_arrives(documents, file):
    "Counted in the notebook as it is stored, by other means than the filter's."
    notebook = json.loads((ROOT / file).read_text(encoding="utf-8"))
    found, text = documents[0][file]
    prose = [
        "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"
    ]
    plain = "\n\n".join(map(outside, prose))
    fences = sum(
        len(re.findall(r"^(```+|~~~+).*?^\1[ \t]*$", t, re.S | re.M)) for t in prose
    )

    codes, tables, shown = [], 0, 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        body = "\n".join(
            x for x in source.split("\n") if not x.startswith("#|")
        ).strip()
        words = re.findall(r"^#\|\s*(hide|default_exp|include: false)\b", source, re.M)
        if cell["cell_type"] != "code" or not body or words:
            continue
        codes.append(body)
        for output in cell["outputs"]:
            data = output.get("data", {})
            page = "".join(data.get("text/html", ""))
            # one that is sorted by the reader comes twice: with and without scripts
            tables += ("<table" in page) * (2 if "<script" in page else 1)
            if "text/html" not in data and "text/markdown" in data:
                tables += len(
                    re.findall(r"^\|[\s:|-]+\|$", "".join(data["text/markdown"]), re.M)
                )
            shown += output.get("name") == "stdout" or list(data) == ["text/plain"]

    headings = re.findall(r"^#{1,6} +(.+?)[ #]*$", plain, re.M)
    assert len(found.headings) == len(headings)
    assert found.equations == len(re.findall(r"(?<!\\)\$\$.+?\$\$", plain, re.S))
    assert found.tables == tables + len(
        re.findall(r"^\|[\s:|-]+\|[ \t]*$", plain, re.M)
    )
    boxes = re.findall(
        r"^>[ ]?\*\*(Note|Tip|Warning|Important|Caution|Common mistake):\*\*",
        plain,
        re.M,
    )
    assert found.callouts == [f"callout-{qf.CALLOUTS[kind]}" for kind in boxes]
    arrived = [c.strip() for c in found.codes]
    assert [c for c in arrived if c in set(codes)] == codes, (
        "code, with its line breaks"
    )
    assert len(arrived) == len(codes) + shown + fences
    assert not found.colons, "a box that is not closed"
    assert "@@" not in text


def test_every_formula_can_be_mathml(documents):
    found, warned = documents
    assert warned == ""
    for file, (_, text) in found.items():
        assert 'class="math' not in text, f"{file}: a formula is left as TeX"


def test_equations_keep_their_names_in_an_epub(pandoc):
    lua = ROOT / FORMATS["epub"]["filters"][0]
    text = (
        "$$a = 1 \\tag{MAML-2}$$\n\n"
        "$$x \\text{ over tasks.} \\tag{ADAPT-1}$$\n\n"
        "$$b$$\n\n"
        "$\\max\\Bigl(c\\Bigr)$"
    )
    written, warned = pandoc("-t", "html", "--mathml", f"--lua-filter={lua}", text=text)
    assert warned == "" and written.count("<math") == 4
    assert "\\max\\bigl(c\\bigr)" in written, "pandoc 3.6 knows no \\Bigl"
    mtext = "".join(re.findall(r"<mtext[^>]*>([^<]*)</mtext>", written))
    assert "(MAML-2)" in mtext and "(ADAPT-1)" in mtext


def test_line_breaks_in_an_epub_are_well_formed(pandoc):
    lua = ROOT / FORMATS["epub"]["filters"][0]
    page, _ = pandoc(
        "-t", "html", f"--lua-filter={lua}", text="| a |\n|---|\n| b<br>c<br/>d |\n"
    )
    assert page.count("<br />") == 2 and "<br>" not in page


def mark(file):
    "How Quarto notes in the document of the whole book where a file begins."
    data = {"resourceDir": "x", "bookItemType": "chapter", "bookItemFile": file}
    text = base64.b64encode(json.dumps(data, separators=(",", ":")).encode()).decode()
    return f"```{{=html}}\n<!-- quarto-file-metadata: {text} -->\n```\n\n"


def test_links_of_an_epub_lead_to_the_right_chapter(pandoc):
    "All chapters are one document, so the second Summary has another anchor."
    text = (
        mark("index.qmd") + "# Preface\n\n"
        "[1](nbs/metric/01_p.ipynb) [2](./nbs/opt/01_m.ipynb#summary)\n\n"
        + mark("nbs/opt/01_m.ipynb")
        + "# MAML\n\n[3](../metric/01_p.ipynb) [4](#summary)"
        " [5](../metric/01_p.ipynb#summary) [6](../metric/01_p.ipynb#tag-x-1)"
        " [7](../metric/01_p.ipynb#step-1) [8](../../index.qmd)"
        " [9](https://x.org/p#summary)\n\n## Summary\n\n"
        + mark("nbs/metric/01_p.ipynb")
        + "# Prototypes\n\n::: {.box}\n[10](#summary) [11](#step-2)\n:::\n\n"
        "[]{#tag-x-1}$$x$$\n\n## Summary\n\n## Step 1\n\n## Step\n\n## Step\n"
    )
    lua = ROOT / FORMATS["epub"]["filters"][0]
    page, _ = pandoc(
        "-f",
        SETTINGS["from"],
        "-t",
        "html",
        "--mathml",
        f"--lua-filter={lua}",
        text=text,
    )
    links = {int(n): url for url, n in re.findall(r'<a\s+href="([^"]*)">(\d+)', page)}
    assert links == {
        1: "#prototypes",
        2: "#summary",
        3: "#prototypes",
        4: "#summary",
        5: "#summary-1",
        6: "#tag-x-1",
        7: "#step-1",
        8: "#preface",
        9: "https://x.org/p#summary",
        10: "#summary-1",
        11: "#step-2",
    }


def test_links_between_chapters_lead_to_headings(documents):
    "Links to a chapter's heading or equation, as the filter leaves them."
    found, wrong, n = documents[0], [], 0
    anchors = {
        file: {a.split("__")[-1] for a in d.anchors if a}
        for file, (d, _) in found.items()
    }
    for file in CHAPTERS:
        for url in re.findall(r'href="([^":]+\.ipynb)#([^"]+)"', found[file][1]):
            target = os.path.normpath(os.path.join(os.path.dirname(file), url[0]))
            n += 1
            if url[1] not in anchors.get(target, ()):
                wrong.append(f"{file}: {url[0]}#{url[1]}")
    assert not wrong and n > 40


# --- the settings


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs the git repository")
    return set(done.stdout.split("\n"))


def test_every_file_of_the_settings_is_in_a_fresh_clone():
    "Quarto looks for the chapters before it runs anything of ours."
    files = [
        t.split()[0]
        for t in map(str, every(SETTINGS))
        if re.match(r"[\w./-]+\.\w+( \w+)?$", t)
    ]
    files = [f for f in files if "/" in f or f.endswith((".qmd", ".bib"))]
    assert (
        len(CHAPTERS) > 15
        and set(CHAPTERS) < set(files)
        and "tools/quarto_filter.py" in files
    )
    assert set(files) <= tracked()


def test_no_program_of_another_host(pandoc, tmp_path):
    "Pandoc's own line for MathJax is switched off, and ours takes it from the site."
    options = FORMATS["html"]
    assert options["html-math-method"] == "mathjax" and options["variables"] == {
        "math": ""
    }
    page, _ = pandoc(
        "-s",
        "-t",
        "html",
        "--mathjax=https://elsewhere/x.js",
        "-Vmath=",
        "-Mtitle=T",
        "-H",
        options["include-in-header"],
        text="A formula $x$.",
    )
    read = check_site.read(page)
    assert read.asked == [] and r"\(x\)" in page
    path = f"{quarto_site.MATHJAX}/{mathjax.PROGRAM}"
    assert f'offset + "{path}"' in page
    mathjax.copy(tmp_path / quarto_site.MATHJAX)
    assert (tmp_path / path).stat().st_size > 10**6
    assert len(list((tmp_path / quarto_site.MATHJAX).rglob("*.woff"))) > 10


def test_every_reference_has_an_address(pandoc):
    text = '---\nnocite: "@*"\n---\n'
    page, warned = pandoc(
        "--citeproc",
        "-t",
        "html",
        f"--bibliography={ROOT / SETTINGS['bibliography']}",
        text=text,
    )
    assert warned == ""
    shown = dict(re.findall(r'<div id="ref-([\w:-]+)"(.*?)</div>', page, re.S))
    entries = bibliography.load()
    assert set(shown) == {e.key for e in entries}
    for entry in entries:
        links = re.findall(r'href="([^"]+)"', shown[entry.key])
        known = {bibliography.normal(url) for url in links}
        assert known & set(bibliography.addresses(entry)) or not bibliography.addresses(
            entry
        ), entry.key


# --- the workflows


def workflow(name):
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_workflows_run_what_is_run_here():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert workflow("test.yml") == ["make test PYTHON=python"] and "test" in targets
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")
    assert workflow("colab.yml") == ["python tools/run_as_colab.py"]
    install, *rest = workflow("pages.yml")
    ours = [" ".join(command) for command in book.quarto_stages()]
    assert rest == [c.replace(sys.executable, "python") for c in ours]
    settings = (ROOT / "settings.ini").read_text()
    wanted = install.removeprefix("pip install ").split()
    assert "sphinx-mathjax-offline==0.0.2" in wanted
    for package in set(wanted) - {"jupyter"}:  # Quarto's own requirement for notebooks
        assert re.search(rf"^ +{re.escape(package)}$", settings, re.M), package


# --- no stale pages


@pytest.fixture
def small(tmp_path):
    for name in ("tools/quarto_filter.py", "references.bib", "nbs/a/01_x.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".quarto" / "idx").mkdir(parents=True)
    return tmp_path


def second(path):
    "The date that Quarto compares."
    return int(path.stat().st_mtime)


def test_the_filter_looks_newer_when_anything_that_it_reads_has_changed(small):
    script, titles = small / quarto_site.FILTER, small / ".quarto" / "idx"
    assert quarto_site.forget_old_pages(small) and not titles.exists()
    for name in (
        "references.bib",
        "nbs/a/01_x.ipynb",
        "nbs/a/02_new.ipynb",
        quarto_site.FILTER,
    ):
        before, titles = second(script), small / ".quarto" / "idx"
        titles.mkdir()
        assert not quarto_site.forget_old_pages(small) and second(script) == before
        assert titles.exists()
        path = small / name
        dates = (path.stat().st_atime, path.stat().st_mtime) if path.exists() else None
        path.write_text("changed")
        if dates:
            os.utime(path, dates)  # as after a copy that keeps dates
        others = {p: p.stat().st_mtime_ns for p in small.rglob("*.ipynb")}
        assert quarto_site.forget_old_pages(small), name
        assert second(script) > before and not titles.exists()
        assert others == {p: p.stat().st_mtime_ns for p in small.rglob("*.ipynb")}


def test_the_filter_reads_nothing_else():
    """The files that are opened while a chapter is filtered are the ones that are
    watched."""
    program = """
import sys
seen = set()
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        seen.add(arguments[0])
sys.addaudithook(note)
sys.argv = ["quarto_filter.py"]
import runpy
try:
    runpy.run_path(sys.path.pop(0) + "/quarto_filter.py", run_name="__main__")
except SystemExit as end:
    assert not end.code
print(*seen, sep="\\n", file=sys.stderr)
"""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tools"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    program = program.replace("sys.path.pop(0)", repr(str(ROOT / "tools")))
    text = (ROOT / CHAPTERS[0]).read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=text,
        capture_output=True,
        text=True,
        cwd=(ROOT / CHAPTERS[0]).parent,
        env=env,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    ours = {
        Path(f).resolve() for f in done.stderr.split("\n") if f.startswith(str(ROOT))
    }
    ours = {
        f.relative_to(ROOT.resolve()).as_posix()
        for f in ours
        if ".venv" not in f.parts
        and "__pycache__" not in f.parts
        and f.is_relative_to(ROOT.resolve())
    }
    watched = {
        p.relative_to(ROOT).as_posix()
        for pattern in quarto_site.INPUTS
        for p in ROOT.glob(pattern)
    }
    assert "references.bib" in ours and ours <= watched


# --- after the render

PAGE = """<html><body>\
<header id="title-block-header"><h1 class="title">Book</h1></header>
<main><header id="title-block-header"><h1 class="title">T</h1></header>
<p>Before <code>adapt</code>.</p>
<section id="one" class="level2"><h2>One</h2><p>Prose of <em>one</em>&amp; <br>two.</p>
<div class="cell"><div class="sourceCode"><pre><code>secret = 1</code></pre></div>
<div class="cell-output"><pre>3.14</pre></div></div><p>After.</p>
<p><span class="math display">\\[x\\]</span><span class="math inline">\\(y\\)</span></p>
<section id="sub" class="level3"><h3>Deeper</h3><p>Down.</p></section></section>
<section id="two" class="level2"><h2>Two</h2><pre>only</pre></section></main>\
<footer>F</footer></body></html>"""


def test_the_search_index_has_prose_only(tmp_path):
    entries = [
        {"href": "a.html", "title": "T", "section": "", "text": "x secret"},
        {"href": "a.html#one", "title": "T", "section": "One", "text": "secret = 1"},
        {"href": "a.html#two", "title": "T", "section": "Two", "text": "only"},
        {"href": "gone.html#z", "title": "Z", "section": "Z", "text": "kept"},
    ]
    texts = [e["text"] for e in quarto_site.search_index(entries, {"a.html": PAGE})]
    assert texts == [
        "Before adapt.",
        "Prose of one&amp; two. After. \\(y\\) Deeper Down.",
        "",
        "kept",
    ]
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "search.json").write_text(json.dumps(entries))
    quarto_site.clean_search(tmp_path)
    once = (tmp_path / "search.json").read_text()
    quarto_site.clean_search(tmp_path)
    assert (tmp_path / "search.json").read_text() == once and "secret" not in once


def test_one_heading_of_the_first_level():
    front = (
        '<header id="title-block-header"><h1 class="title">Book</h1></header>'
        "<main><h1>Preface</h1></main>"
    )
    changed = quarto_site.one_heading(front)
    assert '<p class="title">Book</p>' in changed and "<h1>Preface</h1>" in changed
    alone = front.replace("<h1>Preface</h1>", "")
    assert quarto_site.one_heading(alone) == alone


def test_the_step_before_says_what_is_missing(monkeypatch, capsys):
    def missing():
        raise FileNotFoundError("MathJax is missing; install it with: pip install x")

    monkeypatch.setattr(mathjax, "folder", missing)
    assert (
        quarto_site.main(["before"]) == 1 and "pip install x" in capsys.readouterr().err
    )
    assert quarto_site.main([]) == 2


# --- the checker

GOOD = (
    '<html><head><link rel="canonical" href="https://x.org/a"><style>a{}</style></head>'
    '<body><h1>T</h1><a href="b.html#there">b</a><a href="#top" id="top">t</a>'
    '<a href="https://elsewhere.org">e</a><img src="p.png" alt="a line that falls">'
    "</body></html>"
)


def site(folder, page=GOOD, **more):
    files = {
        "a.html": page,
        "sub/b.html": "<h1>B</h1>",
        "b.html": '<h1 id="there">B</h1>',
        "p.png": "",
    }
    for name, text in (files | more).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_good_site_passes(tmp_path, capsys):
    index = json.dumps([{"href": "b.html#there"}])
    css = "/* https://x.org */ a{background:url(p.png)}"
    assert check_site.check_site(
        site(tmp_path, **{"search.json": index, "s.css": css})
    ) == ([], 3)
    assert (
        check_site.main([str(tmp_path)]) == 0
        and "3 pages, 0 problems" in capsys.readouterr().out
    )


def test_a_logo_beside_its_name_needs_no_text(tmp_path):
    page = GOOD.replace(
        "<h1>T</h1>", '<nav><img src="p.png" alt="">Book</nav><main><h1>T</h1></main>'
    )
    assert check_site.check_site(site(tmp_path, page))[0] == []


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("b.html#there", "c.html", "no such file: c.html"),
        ("b.html#there", "b.html#gone", "no such place: b.html#gone"),
        ("b.html#there", "sub/", "no such file: sub/"),
        ('#top"', '#bottom"', "no such place: #bottom"),
        ("p.png", "q.png", "no such file: q.png"),
        ("p.png", "//elsewhere.org/q.png", "asks another host: //elsewhere.org/q.png"),
        (
            "<style>a{}",
            "<style>@import 'https://fonts.org/f.css';",
            "asks another host: https://fonts.org/f.css",
        ),
        (
            "<style>a{}",
            '<style>@import"https://fonts.org/f.css";',
            "asks another host: https://fonts.org/f.css",
        ),
        (
            "<style>",
            '<link rel="stylesheet" href="https://x.org/s.css"><style>',
            "asks another host",
        ),
        (
            "<style>",
            '<script src="https://x.org/s.js"></script><style>',
            "asks another host",
        ),
        (
            "<style>",
            '<script>s.src = "https://x.org/s.js"</script><style>',
            "asks another host",
        ),
        (
            "<h1>T",
            '<p style="background:url(https://x.org/p)">x<h1>T',
            "asks another host",
        ),
        (
            "<h1>T</h1>",
            '<div class="onlyprint"><div></div><h1>T</h1></div>',
            "0 headings of the first level",
        ),
        ("<h1>T</h1>", "", "0 headings of the first level"),
        ("<h1>T</h1>", "<h1>T</h1><h1>U</h1>", "2 headings of the first level"),
        (' alt="a line that falls"', "", "a picture without a text: p.png"),
        ("a line that falls", " ", "a picture without a text: p.png"),
        (
            "<h1>T</h1>",
            '<main><h1>T</h1><img src="b.html" alt=""></main>',
            "a picture without a text: b.html",
        ),
    ],
)
def test_faults_of_a_site(tmp_path, old, new, message):
    assert old in GOOD
    found, _ = check_site.check_site(site(tmp_path, GOOD.replace(old, new)))
    assert (
        len(found) == 1 and message in found[0] and found[0].startswith("a.html: ")
    ), found


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "s.css",
            "@font-face{src:url('https://fonts.org/f.woff')}",
            "s.css: asks another host",
        ),
        ("s.css", "a{background:url(gone.png)}", "s.css: no such file: gone.png"),
        ("search.json", '[{"href": "b.html#gone"}]', "search.json: no such place"),
    ],
)
def test_faults_beside_the_pages(tmp_path, name, text, message):
    found, _ = check_site.check_site(site(tmp_path, **{name: text}))
    assert len(found) == 1 and message in found[0], found


def test_an_empty_folder_is_no_site(tmp_path):
    assert (
        check_site.check_site(tmp_path)[0]
        and check_site.main([str(tmp_path / "none")]) == 1
    )


XHTML = (
    '<html xmlns="http://www.w3.org/1999/xhtml"><body><a href="two.xhtml#x">2</a>'
    '<math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi></math></body></html>'
)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("", "", None),
        ("#x", "#y", "no such place: two.xhtml#y"),
        ("two.xhtml#x", "01_maml.ipynb", "no such file: 01_maml.ipynb"),
        ("<body>", "<body><br>", "not well-formed"),
        (
            "<body>",
            '<body><span class="math inline">x^2</span>',
            "a formula is not MathML: x^2",
        ),
        ("<body>", "<body><script></script>", "a script"),
        ("<body>", '<body><p id="a"/><p id="a"/>', "two places are called a"),
        (
            "<body>",
            '<body><img src="https://x.org/p.png" alt="p"/>',
            "asks another host",
        ),
    ],
)
def test_faults_of_an_epub(tmp_path, old, new, message):
    file = tmp_path / "book.epub"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("EPUB/text/one.xhtml", XHTML.replace(old, new, 1))
        made.writestr("EPUB/text/two.xhtml", '<html><body id="x"/></html>')
        made.writestr("EPUB/styles/s.css", "a{}")
    found, n = check_site.check_epub(file)
    assert n == 2 and len(found) == (message is not None), found
    assert message is None or message in found[0]


# --- make book where Quarto fails


def program(folder, text):
    path = folder / "quarto"
    path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def offline_only(monkeypatch, folder):
    "Stages run in earnest, but for the offline edition, which is noted."
    noted, real = [], stages.run

    def run(stage):
        if "offline" in stage.name:
            noted.append(stage)
            return stages.Outcome(stage.name, 0.0, True)
        return real(stage)

    monkeypatch.setattr(book, "run", run)
    monkeypatch.setattr(book, "ROOT", folder)
    return noted


@pytest.mark.parametrize(
    "text, reason",
    [
        (
            (
                "echo one; echo \"ERROR: Book chapter 'x.md' not found\"; "
                "echo at line 3; exit 1"
            ),
            "ERROR: Book chapter 'x.md' not found",
        ),
        ("echo 'GLIBC_2.38 is missing' >&2; exit 127", "GLIBC_2.38 is missing"),
        ("exit 1", "it said nothing"),
    ],
)
def test_where_quarto_fails_the_offline_edition_is_made(
    monkeypatch, tmp_path, capfd, text, reason
):
    noted = offline_only(monkeypatch, tmp_path)
    outcomes, folder, why = book.build_site(program(tmp_path, text))
    assert (
        folder == book.OFFLINE
        and len(noted) == 1
        and [o.passed for o in outcomes] == [True]
    )
    log = tmp_path / "_build" / "quarto.log"
    assert (
        why == f"Quarto failed ({reason}; all of it: _build/quarto.log)"
        and "\n" not in why
    )
    assert log.read_text() in capfd.readouterr().out


def test_a_quarto_that_cannot_start(monkeypatch, tmp_path):
    noted = offline_only(monkeypatch, tmp_path)
    (tmp_path / "quarto").write_text("no program")
    _, folder, why = book.build_site(str(tmp_path / "quarto"))
    assert (
        noted
        and folder == book.OFFLINE
        and "can't be started: Permission denied" in why
    )


def test_where_quarto_works_nothing_else_is_made(monkeypatch, tmp_path):
    noted = offline_only(monkeypatch, tmp_path)
    outcomes, folder, why = book.build_site(program(tmp_path, 'test "$1" = render'))
    assert not noted and folder == book.QUARTO and why == "" and outcomes[0].passed


def test_no_quarto_at_all(monkeypatch, tmp_path):
    noted = offline_only(monkeypatch, tmp_path)
    assert book.build_site(None)[1:] == (
        book.OFFLINE,
        "Quarto is not installed and could not be fetched",
    )
    assert len(noted) == 1
