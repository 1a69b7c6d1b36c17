"""The parts of the landing page that are made: the motif, the map of methods, the table
of numbers.

python tools/front_page.py --write   put them into index.qmd
python tools/front_page.py --check   exit status 1 if index.qmd has old ones

Each stands between two lines `<!-- made: NAME -->` and `<!-- end -->`. The map is drawn
from the data of the first chapter's own figure, the numbers are read from `results/`;
nothing of them is typed here.
"""

from __future__ import annotations

import ast
import html
import json
import re
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS / "theme")]
import ending
import cover
from notebooks import ROOT, filled, is_code, read, settings, source, write_atomically
from quarto_filter import all_tags, anchor, options, split_directives, unquote
from reached import without_magics

CHAPTER = "nbs/foundations/10_learning_to_learn"


# ------------------------------------------------------------------ the map


def map_data(root: Path = ROOT) -> tuple[dict, list, str]:
    """Nodes, arrows and alternative text of the map, as the first chapter's cells
    define them."""
    cells = [source(c) for c in read(root / f"{CHAPTER}.ipynb")["cells"] if is_code(c)]
    values = {}
    for node in (n for c in cells for n in ast.parse(without_magics(c)).body):
        name = (
            getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
        )
        if name in ("nodes", "arrows"):
            values[name] = ast.literal_eval(node.value)
    figure = next(c for c in cells if "#| label: fig-ltl-map" in c)
    alternative = unquote(options(split_directives(figure)[0])["fig-alt"])
    return values["nodes"], values["arrows"], alternative


GREEK = {r"\phi": "φ", r"\lambda": "λ", r"\theta": "θ"}


def plain(text: str) -> str:
    "The label without its TeX, to measure it: `$D_{train}$` -> `Dtrain`."
    for tex, letter in GREEK.items():
        text = text.replace(tex, letter)
    return re.sub(r"[$_{}]", "", text)


def spans(text: str) -> str:
    "A label in SVG: mathematics in italics, subscripts lower and smaller."
    for tex, letter in GREEK.items():
        text = text.replace(tex, letter)

    def maths(m: re.Match) -> str:
        inner = re.sub(
            r"_\{?(\w+)\}?", r'<tspan dy="4" font-size="75%">\1</tspan>', m[1]
        )
        return (
            f'<tspan class="m">{inner}</tspan><tspan dy="-4">\u200b</tspan>'
            if "_" in m[1]
            else f'<tspan class="m">{inner}</tspan>'
        )

    return re.sub(r"\$([^$]*)\$", maths, html.escape(text, quote=False))


def _lines(x: float, y: float, text: str, size: int) -> str:
    rows = text.split("\n")
    top = y - (len(rows) - 1) * size * 0.6 + size * 0.35
    return "".join(
        f'<text x="{x:.0f}" y="{top + k * size * 1.2:.0f}">{spans(row)}</text>'
        for k, row in enumerate(rows)
    )


def _edge(at: tuple, to: tuple, half: tuple) -> tuple[float, float]:
    "Where the line from the middle of a box towards `to` leaves the box."
    dx, dy = to[0] - at[0], to[1] - at[1]
    t = min(half[0] / abs(dx) if dx else 9, half[1] / abs(dy) if dy else 9)
    return at[0] + t * dx, at[1] + t * dy


DASHES = {"-": "", "--": "7 4", ":": "2 4", "-.": "8 3 2 3"}


def map_svg(root: Path = ROOT) -> str:
    """The map as inline SVG; a label with an equation leads to it, colours follow the
    page."""
    nodes, arrows, alternative = map_data(root)
    tags = all_tags(root)
    at = {
        name: (104 + 58 * x, 24 + (4.5 - y) * 84) for name, (x, y, *_) in nodes.items()
    }
    half = {
        name: (
            max(map(len, plain(text).split("\n"))) * 3.5 + 12,
            10 + 9 * len(text.split("\n")),
        )
        for name, (_, _, text, _) in nodes.items()
    }
    lines, labels, boxes = [], [], []
    for a, b, text, style, colour in arrows:
        x1, y1 = _edge(at[a], at[b], half[a])
        x2, y2 = _edge(at[b], at[a], tuple(h + 3 for h in half[b]))
        dash = f' stroke-dasharray="{DASHES[style]}"' if DASHES[style] else ""
        lines.append(
            f'<path class="c{colour}" d="M{x1:.0f},{y1:.0f}L{x2:.0f},{y2:.0f}"{dash} '
            f'marker-end="url(#map-c{colour})"/>'
        )
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        rows = plain(text).split("\n")
        wide, high = max(map(len, rows)) * 6.6 + 6, 17 * len(rows)
        label = (
            f'<rect class="gap" x="{x - wide / 2:.0f}" y="{y - high / 2:.0f}" '
            f'width="{wide:.0f}" height="{high}"/>' + _lines(x, y, text, 13)
        )
        if tag := re.search(r"\((LTL-\d+)\)", text):
            page = tags[tag[1]].removesuffix(".ipynb")
            label = f'<a href="{page}.html#{anchor(tag[1])}">{label}</a>'
        labels.append(label)
    for name, (_, _, text, is_data) in nodes.items():
        (x, y), (w, h) = at[name], half[name]
        boxes.append(
            f'<rect class="{"data" if is_data else "box"}" x="{x - w:.0f}" '
            f'y="{y - h:.0f}" width="{2 * w:.0f}" height="{2 * h:.0f}" '
            f'rx="{0 if is_data else 12}"/>' + _lines(x, y, text, 14)
        )
    heads = "".join(
        f'<marker id="map-c{k}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto">'
        f'<path class="c{k} head" d="M0,0L8,4L0,8z"/></marker>'
        for k in sorted({a[4] for a in arrows})
    )
    return (
        '<div class="method-map" tabindex="0" role="group" '
        f'aria-label="{html.escape(alternative)}">'
        f'<svg viewBox="0 0 800 424" width="800" height="424"><defs>{heads}</defs>'
        + "".join(lines + labels + boxes)
        + "</svg></div>"
    )


def raw(markup: str) -> str:
    "Markup that neither edition reads as Markdown."
    return f"```{{=html}}\n{markup}\n```"


def map_block(root: Path = ROOT) -> str:
    return raw(map_svg(root))


# ------------------------------------------------------------------ the motif


def motif_block(root: Path = ROOT) -> str:
    "The motif beside the first sentence; decoration, which a screen reader skips."
    colours = [f"var(--motif-{k})" for k in range(7)]
    return raw(
        '<svg class="front-motif" viewBox="0 0 300 300" aria-hidden="true">'
        f"{cover.svg_motif(300, 300, 118, 2.2, colours)}</svg>"
    )


# ------------------------------------------------------------------ the numbers

#: what is measured: (where, learner: path in the results, ...), a file of `results/`
NUMBERS = [
    (
        "CLINC150: intents never trained on, 5 classes, 1 example each; word features",
        "foundations/10_learning_to_learn",
        {
            "no learning": "first/no learning: prototypes on raw features",
            "transfer": "first/transfer, then prototypes",
            "meta-learned": "first/meta-learned, then prototypes",
        },
    ),
    (
        "The same kind of task on a frozen pretrained encoder",
        "optimization/10_maml",
        {
            "class means": "heads/nearest prototypes, 1-shot",
            "head by MAML": "heads/MAML, linear, 1-shot",
        },
    ),
    (
        "Omniglot: letters never seen, 20 classes, 1 example each",
        "metric/10_prototypes",
        {
            "pixels": "omniglot/pixels, 20, 1",
            "untrained network": "omniglot/untrained network, 20, 1",
            "prototypical network": "omniglot/prototypical network, 20, 1",
        },
    ),
    (
        "Banking77: all 77 intents at once, 10 examples each; frozen encoder",
        "case_studies/10_text_classification",
        {
            "ridge": "full_way_frozen/banking77, 10/ridge",
            "class means": "full_way_frozen/banking77, 10/prototype",
            "logistic regression": "full_way_frozen/banking77, 10/logistic",
        },
    ),
]


def number(chapter: str, path: str, root: Path = ROOT) -> str:
    "A mean and its 95 % half-width in percent, from the results at book scale."
    stored = json.loads(
        (root / "results" / f"{chapter}.json").read_text(encoding="utf-8")
    )
    found = stored["book"]["numbers"]
    for key in path.split("/"):
        if key not in found:
            raise KeyError(
                f"results/{chapter}.json has no {path!r}: {key!r} is none of "
                f"{', '.join(found)}"
            )
        found = found[key]
    return f"{100 * found['mean']:.1f} ± {100 * found['ci95']:.1f}"


def numbers_block(root: Path = ROOT) -> str:
    "The table of numbers, each row with its chapter."
    rows = ["| task | accuracy in percent | measured in |", "|:--|:--|:--|"]
    for task, chapter, learners in NUMBERS:
        values = "<br>".join(
            f"{name} {number(chapter, path, root)}" for name, path in learners.items()
        )
        title = re.search(
            r"^# (.+)$", source(read(root / f"nbs/{chapter}.ipynb")["cells"][0]), re.M
        )[1]
        rows.append(f"| {task} | {values} | [{title}](nbs/{chapter}.ipynb) |")
    return "\n".join(rows)


# ------------------------------------------------------------ the parts

#: what a reader can do after a part, by its folder
AFTER = {
    "foundations": "Draw tasks without leaks, differentiate through an inner loop, "
    "train so that a killed run resumes, report intervals, embed text without a GPU.",
    "optimization": "Learn a start, or what may change: MAML, Reptile, ANIL and BOIL, "
    "implicit gradients, LEO, a learned optimizer. Know what each costs.",
    "metric": "Classify without any inner step: prototypes, attention over examples, "
    "learned comparisons, heads with a closed form, and labels that spread.",
    "model_based": "Adapt by one pass through a network: one that remembers what it "
    "read, or one that answers with a distribution, held against the exact posterior.",
    "language_models": "Pretrain a small language model on two cores, compare it in "
    "bits per byte, steer what it writes, and see what fine-tuning forgets.",
    "case_studies": "Take a few labelled texts to a classifier or a tagger that knows "
    "when to decline, and choose between methods on your own data.",
    "practice": "Read a table of thirty methods without being fooled, know where "
    "meta-learning pays, and choose a method for data of your own.",
}


def parts_block(root: Path = ROOT) -> str:
    "The table of the parts, each with the numbers of its chapters."
    chapters: dict[str, list[str]] = {}
    listed = re.findall(
        r"- (nbs/(\w+)/\d+_\w+\.ipynb)", (root / "_quarto.yml").read_text()
    )
    for number, (path, part) in enumerate(listed, 1):
        chapters.setdefault(part, []).append(f"[{number}]({path})")
    if missing := set(chapters) - set(AFTER):
        raise ValueError(
            f"front_page.AFTER says nothing of: {', '.join(sorted(missing))}"
        )
    names = {part: part.replace("_", " ").capitalize() for part in chapters}
    rows = ["| part | what you can do after it | chapters |", "|:--|:--|:--|"]
    for part, links in chapters.items():
        rows.append(f"| **{names[part]}** | {AFTER[part]} | {' '.join(links)} |")
    return "\n".join(rows)


# ------------------------------------------------------------ links with the version


def links_block(root: Path = ROOT) -> str:
    "The three ways in. Colab opens the first chapter at the tag of this version."
    cfg = settings(root)
    colab = (
        "https://colab.research.google.com/github/"
        f"{cfg['url'].removeprefix('https://github.com/')}/blob/v{cfg['version']}/"
        f"{CHAPTER}.ipynb"
    )
    return f"[Read]({CHAPTER}.ipynb) [Run on Colab]({colab}) [Import](#import)"


def install_block(root: Path = ROOT) -> str:
    cfg = settings(root)
    return (
        "```sh\n"
        f'pip install "metalearn_book[offline] @ git+{cfg["url"]}@v{cfg["version"]}"\n'
        "```"
    )


BLOCKS = {
    "motif": motif_block,
    "ways in": links_block,
    "install": install_block,
    "map": map_block,
    "numbers": numbers_block,
    "parts": parts_block,
}


def fill(text: str, root: Path = ROOT) -> str:
    "The page with every made block as it should be."
    return filled(text, BLOCKS, "index.qmd", root)


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments not in (["--write"], ["--check"]):
        print(__doc__)
        return 2
    path = root / "index.qmd"
    old = path.read_text(encoding="utf-8")
    new = fill(old, root)
    if old != new and arguments == ["--check"]:
        print("index.qmd is not what tools/front_page.py makes of it; run: make export")
        return 1
    if old != new:
        write_atomically(path, new)
    print("front page: its made parts are up to date")
    return 0


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
