"""The offline edition, as Sphinx builds it and as a browser shows it."""

import base64
import functools
import http.server
import json
import os
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import redirects

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import api_reference
import check_site
import offline_site
from metalearn_book.book.display import show_table, show_text
from metalearn_book.book.figures import Axis, Line, Slider, slider_figure

# of the extensions, not ours
pytestmark = pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API:Warning")
PHONE, DESKTOP = 390, 1280
CHROMIUM, DRIVER = (
    shutil.which("chromium") or shutil.which("chromium-browser"),
    shutil.which("chromedriver"),
)


# --- a small book that uses every kind of markup


def md(text):
    return {
        "cell_type": "markdown",
        "id": f"m{zlib.crc32(text.encode())}",
        "metadata": {},
        "source": text,
    }


def code(source, *data):
    outputs = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": d._repr_mimebundle_() if hasattr(d, "_repr_mimebundle_") else d,
        }
        for d in data
    ]
    return {
        "cell_type": "code",
        "id": f"c{zlib.crc32(source.encode())}",
        "metadata": {},
        "source": source,
        "outputs": outputs,
        "execution_count": 1,
    }


def png(width=600, height=300):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + b"\xff" * width for _ in range(height))
    return {
        "image/png": base64.b64encode(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        ).decode(),
        "text/plain": "<Figure>",
    }


def slider(name):
    x = np.linspace(-3, 3, 50)
    curves = np.stack(
        [np.stack([np.sin(x * s), np.cos(x) * s]) for s in np.linspace(0.5, 2, 11)]
    )
    return slider_figure(
        x,
        curves,
        Slider(name, [f"{s:.2f}" for s in np.linspace(0.5, 2, 11)], start=5),
        x_axis=Axis("x"),
        y_axis=Axis("loss"),
        title=f"Drag the {name}",
        caption="At 0.50 the curve is flat.",
        curve_names=["adapted", "other"],
        line=Line(x / 3, "truth"),
    )


MAML = [
    md("# MAML\n\n> A start from which one step goes far."),
    md(
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/metalearn-book/metalearn_book"
        "/blob/main/nbs/optimization/10_maml.ipynb)"
    ),
    code("#| default_exp optimization.maml"),
    code("#| eval: false\n#| code-fold: true\nimport sys"),
    md(
        (
            "## The meta-gradient\n\n"
            "We follow [Finn et al., 2017](https://arxiv.org/abs/1703.03400).\n\n"
            "$$\n"
            "\\theta = \\phi - \\alpha \\nabla L^s(\\phi) + "
        )
        + " + ".join(f"\\beta_{{{k}}} x^{{{k}}}" for k in range(30))
        + " \\tag{MAML-1}\n"
        "$$\n\n"
        "Eq. (MAML-1) needs Eq. (TASK-1) and $\\sum_i x_i$; "
        "see [tasks](../foundations/20_tasks.ipynb#a-batch).\n\n"
        "> **Common mistake:** `model.parameters = fast_weights` hides a *method*.\n"
        ">\n"
        "> $$ a = b $$\n\n"
        "> **Note:** short.\n\n"
        "> **Tip:** try.\n\n"
        "> **Warning:** hot.\n\n"
        "> **Important:** read."
    ),
    md(
        "| symbol | meaning | in the code | a long heading that needs room | "
        "another long heading that needs room |\n"
        "|---|---|---|---|---|\n"
        "| $\\alpha$ | inner learning rate | `inner_lr` | a number for all | "
        "or one each |"
    ),
    code(
        "#| export\n"
        "def step(theta, gradient, inner_lr=0.1):\n"
        "    return theta - inner_lr * gradient"
    ),
    code("#| hide\nassert hidden_word"),
    code(
        "x = 'a long line of code that must scroll inside its own box on a phone'"
        " + 'and not make the whole page wider than the screen of the reader'"
    ),
    code(
        (
            "#| label: fig-white\n"
            "#| fig-cap: 'The rate $\\alpha$: a white figure'\n"
            "#| fig-alt: 'A white rectangle'\n"
            "plot()"
        ),
        png(),
    ),
    code("slider(1)", slider("first rate")),
    code("slider(2)", slider("second rate")),
    code(
        "table",
        show_table(
            [
                {
                    "method": "MAML",
                    "accuracy": 0.97,
                    "a long column": 123456,
                    "another long column": "with text that does not wrap well",
                }
            ],
            caption="Results",
            percent={"accuracy"},
        ),
    ),
    code("text", show_text("It reaches {a:%} at $\\alpha$ = {b}.", a=0.97, b=0.1)),
    code("print(1)", {"text/plain": "a very long line of plain output " * 6}),
]
MAML.append(
    md(
        "$$ M = \\begin{cases} 0 & m = 1 \\\\ 1 & m = 0 \\end{cases}"
        " \\tag{MAML-2} $$\n\n"
        "$$\n"
        "\\begin{aligned} a &= b \\\\ &= c \\end{aligned} \\tag{MAML-3}\n"
        "$$"
    )
)
TASKS = [
    md("# Tasks\n\n> What a task is."),
    md(
        "## A batch\n\n"
        "$$ B = 4 \\tag{TASK-1} $$\n\n"
        "Back to [MAML](../optimization/10_maml.ipynb#the-meta-gradient). "
        "A *zyzzyva* is a word to search for."
    ),
]


def write_book(root, **changes):
    "A book with two chapters; `changes` adds cells to one of them."
    chapters = {
        "nbs/foundations/20_tasks.ipynb": [*TASKS, *changes.get("tasks", [])],
        "nbs/optimization/10_maml.ipynb": [*MAML, *changes.get("maml", [])],
    }
    for name, cells in chapters.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(
            json.dumps(
                {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
            ),
            encoding="utf-8",
        )
    (root / "index.qmd").write_text(
        "# Preface {.unnumbered}\n\n"
        "See [MAML](nbs/optimization/10_maml.ipynb)"
        " and the [references](references.qmd).\n"
    )
    (root / "references.qmd").write_text(
        "# References {.unnumbered}\n\n::: {#refs}\n:::\n"
    )
    (root / "references.bib").write_text(
        "@misc{finn2017maml, author={Finn, Chelsea and Levine, Sergey}, title={MAML}, "
        "year={2017}, eprint={1703.03400}, eprinttype={arxiv}}"
    )
    for name in ("settings.ini",):
        shutil.copy(ROOT / name, root / name)
    package = root / "metalearn_book" / "optimization"
    package.mkdir(parents=True, exist_ok=True)
    (package / "maml.py").write_text(
        '"""MAML."""\n'
        '__all__ = ["step"]\n\n'
        "def step(theta, gradient, inner_lr=0.1):\n"
        '    "One step."\n'
        "    return theta\n"
    )
    (root / "_quarto.yml").write_text(
        "book:\n"
        "  title: A Small Book\n"
        "  author: nobody\n"
        "  chapters:\n"
        "    - index.qmd\n"
        "    - part: First part\n"
        "      chapters: [nbs/foundations/20_tasks.ipynb]\n"
        "    - part: Second part\n"
        "      chapters: [nbs/optimization/10_maml.ipynb]\n"
        "    - references.qmd\n"
        "  appendices:\n"
        "    - nbs/appendices/api.md\n"
    )
    api_reference.write(root)
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "The small book, built: (root, folder of the site)."
    root = write_book(tmp_path_factory.mktemp("small"))
    site, found = offline_site.build(root, root / "_build")
    assert found == []
    return root, site


@pytest.fixture(scope="module")
def real():
    "The book itself, built into the folder that `make book` uses."
    site, found = offline_site.build(ROOT, ROOT / "_build")
    assert found == []
    return site


# --- without a browser


def page(site, name):
    return (site / name).read_text(encoding="utf-8")


def test_numbers_run_through_the_parts(small):
    text = page(small[1], "nbs/optimization/10_maml.html")
    assert (
        '<span class="section-number">2. </span>MAML' in text
        and "2.1. " in text
        and "Figure 2.1" in text
    )
    assert "First part" in text and "Second part" in text and "Appendices" in text


def test_cells_on_the_page(small):
    text = page(small[1], "nbs/optimization/10_maml.html")
    assert "hidden_word" not in text and "default_exp" not in text and "#| " not in text
    assert 'alt="A white rectangle"' in text and "a white figure" in text
    assert 'href="../appendices/api/optimization.html#api-optimization-maml"' in text
    assert 'href="../../references.html#ref-finn2017maml"' in text
    assert (
        'href="../foundations/20_tasks.html#tag-task-1"' in text
        and 'href="#tag-maml-1"' in text
        and 'id="tag-maml-1"' in text
    )
    assert "admonition-common-mistake" in text or "caution" in text


def test_bibliography_says_who_cites(small):
    text = page(small[1], "references.html")
    assert (
        "Finn, C. and Levine, S." in text
        and "https://arxiv.org/abs/1703.03400" in text
        and 'href="nbs/optimization/10_maml.html"' in text
    )


def test_download_is_the_notebook_of_the_repository_and_colab_opens_it(small):
    root, site = small
    name = "nbs/optimization/10_maml.ipynb"
    assert (site / "_sources" / name).read_bytes() == (root / name).read_bytes()
    text = page(site, "nbs/optimization/10_maml.html")
    assert (
        f"https://colab.research.google.com/github/metalearn-book/metalearn_book/blob/main/{name}"
        in text
    )
    assert f"_sources/{name}" in text


def test_the_small_book_passes_the_checker(small):
    assert check_site.check_site(small[1])[0] == []


def test_a_second_build_changes_nothing(small):
    root, site = small
    before = (
        (root / "_build/site_src/nbs/optimization/10_maml.ipynb").stat().st_mtime_ns
    )
    start = time.perf_counter()
    assert offline_site.build(root, root / "_build")[1] == []
    assert (
        root / "_build/site_src/nbs/optimization/10_maml.ipynb"
    ).stat().st_mtime_ns == before
    assert time.perf_counter() - start < 30


def test_a_good_book_passes_the_check(small):
    assert offline_site.check(small[0], small[0] / "_build") == []


@pytest.mark.parametrize(
    "link, word",
    [
        ("[x](../optimization/09_no.ipynb)", "09_no"),
        ("[x](../optimization/10_maml.ipynb#nowhere)", "nowhere"),
        ("[x](#nothing)", "nothing"),
    ],
)
def test_the_check_finds_links_that_lead_nowhere(tmp_path, link, word):
    found = offline_site.check(
        write_book(tmp_path, tasks=[md("Good text."), md(link)]), tmp_path / "_build"
    )
    assert (
        len(found) == 1
        and word in found[0]
        and found[0].startswith("nbs/foundations/20_tasks.ipynb, cell 3: ")
    ), found


def test_a_page_that_does_not_exist_is_named(tmp_path):
    root = write_book(tmp_path)
    (root / "nbs/foundations/20_tasks.ipynb").unlink()
    with pytest.raises(ValueError, match="nbs/foundations/20_tasks.ipynb"):
        offline_site.contents(root)


def test_quarto_settings_of_the_book():
    import yaml

    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert settings["project"]["type"] == "book" and settings["execute"] == {
        "enabled": False
    }
    assert (
        settings["ipynb-filters"] == ["tools/quarto_filter.py"]
        and settings["bibliography"] == "references.bib"
    )
    book = offline_site.contents()
    assert book.pages[0] == "index.qmd" and len(book.pages) == len(set(book.pages))


# --- in a browser


class Browser:
    """Headless Chromium with a local server for several sites; collects script errors
    and requests to other hosts."""

    def __init__(self):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        self.profile = tempfile.mkdtemp()
        self.root = Path(tempfile.mkdtemp())
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(self.root))
        )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"user-data-dir={self.profile}",
        ):
            options.add_argument(f"--{flag}")
        options.set_capability(
            "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
        )
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_page_load_timeout(60)
        # leave the new-tab page, whose own requests come late
        self.driver.get("about:blank")

    def serve(self, name, site):
        (self.root / name).symlink_to(site)
        return f"{self.origin}/{name}/"

    def open(self, url, width=DESKTOP, theme="light"):
        """Load a page, wait for its mathematics, and return (script errors, requests to
        other hosts)."""
        d = self.driver
        self.width(width)
        d.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument",
            {
                "source": (
                    f"try{{localStorage.mode='{theme}';localStorage.theme='{theme}'}}"
                    "catch(e){}"
                )
            },
        )
        d.get_log("browser"), d.get_log("performance")
        d.get(url)
        d.set_script_timeout(30)
        d.execute_async_script(
            "const done=arguments[0];"
            "const m=window.MathJax&&MathJax.startup&&MathJax.startup.promise;"
            "(m||Promise.resolve()).then(()=>requestAnimationFrame(()=>done(1)))"
        )
        errors = [e["message"] for e in d.get_log("browser") if e["level"] == "SEVERE"]
        asked = [json.loads(e["message"])["message"] for e in d.get_log("performance")]
        urls = [
            m["params"]["request"]["url"]
            for m in asked
            if m["method"] == "Network.requestWillBeSent"
        ]
        return errors, [
            u
            for u in urls
            if not u.startswith(
                (
                    self.origin,
                    "data:",
                    "blob:",
                    "about:",
                    "chrome:",
                    "chrome-untrusted:",
                )
            )
        ]

    def width(self, width):
        "Change the width of the window without loading the page again."
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )

    def js(self, source, *args):
        return self.driver.execute_script(source, *args)

    def close(self):
        self.driver.quit()
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.profile, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def browser():
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver on the PATH")
    pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")
    b = Browser()
    yield b
    b.close()


@pytest.fixture(scope="module")
def small_url(browser, small):
    return browser.serve("small", small[1])


@pytest.fixture(scope="module")
def real_url(browser, real):
    return browser.serve("real", real)


CONTRAST = """
const lum=c=>{const f=c.slice(0,3).map(v=>{v/=255;\
return v<=.03928?v/12.92:((v+.055)/1.055)**2.4});\
return .2126*f[0]+.7152*f[1]+.0722*f[2]};
const rgb=s=>{const m=s.match(/[\\d.]+/g).map(Number);return m.length<4?[...m,1]:m};
const over=(a,b)=>[0,1,2].map(i=>a[i]*a[3]+b[i]*(1-a[3])).concat(1);
const ground=e=>{const stack=[];for(let n=e;n;n=n.parentElement){\
const c=rgb(getComputedStyle(n).backgroundColor);stack.push(c);if(c[3]===1)break}
  let g=[255,255,255,1];for(const c of stack.reverse())g=over(c,g);return g};
const bad=[],walker=document.createTreeWalker(document.body,NodeFilter.SHOW_TEXT);\
let n=0;
while(walker.nextNode()){const t=walker.currentNode,e=t.parentElement;\
if(!t.data.trim()||e.closest("script,style,[aria-hidden=true],mjx-assistive-mml,\
.visually-hidden,title"))continue;
  const s=getComputedStyle(e),r=e.getBoundingClientRect();\
if(s.visibility!=="visible"||s.display==="none"||!r.width||!r.height)continue;n++;
  const g=ground(e),c=over(rgb(e.closest("svg")?s.fill:s.color),g),\
a=lum(c),b=lum(g),k=(Math.max(a,b)+.05)/(Math.min(a,b)+.05);
  const large=parseFloat(s.fontSize)>=24||\
(parseFloat(s.fontSize)>=18.6&&+s.fontWeight>=700);
  if(k<(large?3:4.5))bad.push(`${k.toFixed(2)} ${s.color} \
on ${g.slice(0,3).map(Math.round)} \
<${e.tagName.toLowerCase()} class="${e.className.baseVal??e.className}"> \
${t.data.trim().slice(0,40)}`)}
return [n,[...new Set(bad)].slice(0,20)];
"""
TOO_WIDE = """
const w=document.documentElement.clientWidth;\
if(document.documentElement.scrollWidth<=w)return [];
return [...document.querySelectorAll("body *")].filter(e=>{\
if(e.getBoundingClientRect().right<=w+1)return false;\
for(let p=e.parentElement;p;p=p.parentElement){\
if(/auto|scroll|hidden|clip/.test(getComputedStyle(p).overflowX))return false}\
return true})
  .slice(0,5).map(e=>e.tagName+"."+e.className)\
.concat("page "+document.documentElement.scrollWidth+" > "+w);
"""


def pages(site):
    "The pages that a reader reads: not those at old addresses, which lead on at once."
    moved = {site / "nbs" / f"{old}.html" for old in redirects.MOVED}
    return sorted(
        p.relative_to(site).as_posix()
        for p in set(site.rglob("*.html")) - moved
        if "_static" not in p.parts and p.name not in ("genindex.html",)
    )


def look_at_every_page(browser, base, site, part=0, parts=1):
    """Script errors, other hosts, mathematics, width on a phone and contrast in both
    themes, page by page; of several parts the one with this number."""
    found = []
    for name in pages(site)[part::parts]:
        errors, hosts = browser.open(base + name, PHONE, "dark")
        found += [f"{name}: script error: {e}" for e in errors] + [
            f"{name}: asks {h}" for h in hosts
        ]
        found += [f"{name}: too wide for a phone: {w}" for w in browser.js(TOO_WIDE)]
        raw, typeset, wrong = browser.js(
            "return [document.querySelectorAll('.math').length, "
            "document.querySelectorAll('mjx-container').length, "
            "document.querySelectorAll('mjx-merror,[data-mjx-error]').length]"
        )
        if raw > typeset or wrong:
            found.append(
                f"{name}: {raw} formulas, {typeset} typeset, {wrong} with errors"
            )
        assert browser.js("return document.documentElement.dataset.theme") == "dark"
        n, bad = browser.js(CONTRAST)
        found += [f"{name}, dark: {b}" for b in bad]
        browser.js("document.documentElement.dataset.theme='light'")
        n_light, bad = browser.js(CONTRAST)
        found += [f"{name}, light: {b}" for b in bad]
        browser.js("document.documentElement.dataset.theme='dark'")
        browser.width(DESKTOP)
        found += [f"{name}: too wide for a desktop: {w}" for w in browser.js(TOO_WIDE)]
        if name not in ("search.html",) and (n < 5 or n_light < 5):
            found.append(f"{name}: only {n} texts were found on the page")
    return found


@pytest.mark.browser
def test_every_page_of_the_small_book(browser, small_url, small):
    assert len(pages(small[1])) == 7
    assert look_at_every_page(browser, small_url, small[1]) == []


@pytest.mark.browser
@pytest.mark.parametrize("part", range(4))
def test_every_page_of_the_book(browser, real_url, real, part):
    if part == 0:
        assert check_site.check_site(real)[0] == []
        assert len(pages(real)) >= len(offline_site.contents().pages)
    assert look_at_every_page(browser, real_url, real, part, 4) == []


#: pages that axe reads in both themes; ALL_PAGES=1 in the environment: every page
SOME_PAGES = (
    "index.html",
    "nbs/optimization/10_maml.html",
    "nbs/appendices/notation.html",
    "references.html",
    "search.html",
)
AXE = """
const done = arguments[arguments.length - 1];
axe.run({exclude: [["mjx-math"], ["mjx-assistive-mml"]]}, \
{resultTypes: ["violations"]}).then(r => done(\
r.violations.filter(v => ["serious", "critical"].includes(v.impact))
  .flatMap(v => v.nodes.slice(0, 3).map(n => \
`${v.id}: ${n.target.join(" ")}: \
${(n.any[0] || n.all[0] || n.none[0]).message}`.slice(0, 300)))));
"""


STILL = (
    "document.head.insertAdjacentHTML('beforeend', '<style>*, *::before, *::after "
    "{ transition: none !important; animation: none !important }</style>')"
)


@pytest.mark.browser
def test_axe_finds_nothing_serious(browser, real_url, real):
    axe = pytest.importorskip(
        "axe_core_python", reason="needs axe-core-python (pip install axe-core-python)"
    )
    program = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    found = []
    for name in pages(real) if os.environ.get("ALL_PAGES") else SOME_PAGES:
        browser.open(real_url + name)
        browser.js(program)
        browser.js(STILL)  # colours are those at the end of a change of themes
        browser.driver.set_script_timeout(120)
        for theme in ("light", "dark"):
            browser.js(f"document.documentElement.dataset.theme='{theme}'")
            found += [
                f"{name}, {theme}: {v}"
                for v in browser.driver.execute_async_script(AXE)
            ]
    assert found == []


@pytest.mark.browser
def test_axe_sees_what_is_wrong(browser, small_url):
    axe = pytest.importorskip(
        "axe_core_python", reason="needs axe-core-python (pip install axe-core-python)"
    )
    browser.open(small_url + "index.html")
    browser.js((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    browser.js("document.querySelector('.bd-article p').style.color='#bbb'")
    assert any(
        v.startswith("color-contrast") for v in browser.driver.execute_async_script(AXE)
    )


@pytest.mark.browser
def test_88_columns_of_code_on_a_desktop(browser, real_url):
    browser.open(real_url + "nbs/optimization/10_maml.html")
    columns = browser.js("""
const pre = document.querySelector(".cell_input pre"), \
style = getComputedStyle(pre), line = document.createElement("span");
line.textContent = "x".repeat(88); line.style.whiteSpace = "pre"; pre.append(line);
const width = line.getBoundingClientRect().width; line.remove();
return 88 * (pre.clientWidth - parseFloat(style.paddingLeft) \
- parseFloat(style.paddingRight)) / width;""")
    assert columns >= 88


@pytest.mark.browser
@pytest.mark.parametrize("width, height", [(DESKTOP, 800), (PHONE, 844)])
def test_the_way_in_is_above_the_fold(browser, real_url, width, height):
    browser.open(real_url + "index.html", width)
    low = browser.js(
        "return Object.fromEntries(['h1', '.front p', '.front-ways a:last-child', "
        "'.highlight-python pre', '.highlight-text pre'].map("
        "s => [s, document.querySelector('.bd-article').querySelector(s)"
        ".getBoundingClientRect().bottom]))"
    )
    assert max(low.values()) < height, low


@pytest.mark.browser
def test_mathematics_is_typeset_with_local_fonts(browser, small_url):
    browser.open(small_url + "nbs/optimization/10_maml.html")
    assert (
        browser.js(
            "return [...document.querySelectorAll("
            "'mjx-container[display=true]')].length"
        )
        >= 2
    )
    assert (
        browser.js(
            "return document.querySelectorAll("
            "'mjx-container[display=true] mjx-labels').length"
        )
        == 3
    )
    assert browser.js(
        "return document.fonts.ready.then(()=>[...document.fonts].some("
        "f=>/MJX/.test(f.family)&&f.status==='loaded'))"
    )


@pytest.mark.browser
def test_old_addresses_lead_on(browser, small_url):
    browser.open(small_url + "nbs/optimization/01_maml.html#the-meta-gradient")
    for _ in range(50):
        address = browser.js("return location.href")
        if "10_maml" in address:
            break
        time.sleep(0.1)
    assert address.endswith("nbs/optimization/10_maml.html#the-meta-gradient")


@pytest.mark.browser
def test_search_finds_a_word(browser, small_url):
    browser.open(small_url + "search.html?q=zyzzyva")
    for _ in range(50):
        hits = browser.js(
            "return [...document.querySelectorAll('#search-results li a')]"
            ".map(a=>a.getAttribute('href'))"
        )
        if hits:
            break
        time.sleep(0.1)
    assert any("20_tasks.html" in h for h in hits)


def state(browser, k):
    return browser.js(
        (
            "const f=document.querySelectorAll('.book-slider')[arguments[0]];"
            "return [f.querySelector('.v .c0').getAttribute('d'), "
            "f.querySelector('output').textContent, f.querySelector('input').value]"
        ),
        k,
    )


@pytest.mark.browser
def test_the_slider_moves_by_keyboard_and_by_mouse(browser, small_url):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    errors, _ = browser.open(small_url + "nbs/optimization/10_maml.html")
    first, other = browser.driver.find_elements("css selector", ".book-slider input")
    start, untouched = state(browser, 0), state(browser, 1)
    assert start[1:] == ["1.25", "5"] and errors == []
    first.send_keys(Keys.ARROW_RIGHT)
    by_key = state(browser, 0)
    assert by_key[1:] == ["1.40", "6"] and by_key[0] != start[0]
    first.send_keys(Keys.HOME)
    assert state(browser, 0)[1:] == ["0.50", "0"]
    browser.js("arguments[0].scrollIntoView({block:'center'})", first)
    ActionChains(browser.driver).move_to_element_with_offset(
        first, first.size["width"] // 2 - 3, 0
    ).click().perform()
    by_mouse = state(browser, 0)
    assert by_mouse[1:] == ["2.00", "10"] and by_mouse[0] != start[0]
    assert (
        browser.js("return arguments[0].getAttribute('aria-valuetext')", first)
        == "2.00"
    )
    assert state(browser, 1) == untouched
    assert other.get_attribute("aria-valuetext") == "1.25"


@pytest.mark.browser
def test_colours_of_the_slider_follow_the_theme(browser, small_url):
    look = (
        "const f=document.querySelector('.book-slider'),"
        "s=e=>getComputedStyle(f.querySelector(e));"
        "return [s('.v .c0').stroke,s('.v text').fill,s('.v .a').stroke]"
    )
    browser.open(small_url + "nbs/optimization/10_maml.html", theme="light")
    light = browser.js(look)
    browser.open(small_url + "nbs/optimization/10_maml.html", theme="dark")
    dark = browser.js(look)
    assert all(a != b for a, b in zip(light, dark, strict=True))
