"""Pages at the old addresses of chapters, which lead to the new ones, in both editions.

A chapter that got another number leads to itself; one that was divided leads to the
chapter that has the wanted heading or equation now, and otherwise to its first part.
The first part does the same for what it no longer has: it may have been divided later,
under the address that it still has.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import quarto_filter as qf
from notebooks import ROOT, read, source, write_atomically

#: old chapter -> the chapters that it became, first where its bare address leads to
MOVED = {
    "foundations/01_learning_to_learn": [
        "foundations/10_learning_to_learn",
        "foundations/18_project",
        "foundations/15_paradigms",
        "foundations/13_next_token",
    ],
    "foundations/02_tasks": ["foundations/20_tasks"],
    "foundations/03_bilevel": [
        "foundations/30_bilevel",
        "foundations/40_task_models",
        "foundations/50_inner_loop",
    ],
    "foundations/04_training": ["foundations/60_training", "foundations/58_measuring"],
    "foundations/05_encoders": [
        "foundations/70_encoders",
        "foundations/80_fine_tuning",
    ],
    "optimization/01_maml": ["optimization/10_maml"],
    "optimization/02_reptile": ["optimization/20_reptile"],
    "optimization/03_what_to_adapt": ["optimization/30_what_to_adapt"],
    "optimization/04_implicit": ["optimization/40_implicit"],
    "optimization/05_latent": ["optimization/50_latent"],
    "optimization/06_learned_optimizer": ["optimization/60_learned_optimizer"],
    "metric/01_prototypes": ["metric/10_prototypes"],
    "metric/02_closed_form": ["metric/40_closed_form"],
    "case_studies/01_text_classification": [
        "case_studies/10_text_classification",
        "case_studies/15_text_meta_training",
        "case_studies/18_calibration",
        "case_studies/20_few_shot_classifier",
        "foundations/90_estimators",
    ],
    "case_studies/02_ner": [
        "case_studies/30_entities",
        "case_studies/25_sequence_labels",
        "case_studies/27_word_vectors",
        "case_studies/28_tuned_taggers",
        "case_studies/33_words_and_marks",
        "case_studies/35_few_shot_tagger",
    ],
}


def anchors(chapter: str, root: Path = ROOT) -> list[str]:
    "The anchors of a chapter's headings and numbered equations."
    cells = read(root / "nbs" / f"{chapter}.ipynb")["cells"]
    texts = [source(c) for c in cells if c["cell_type"] == "markdown"]
    headings = [qf.slug(title) for t in texts for _, title in qf.headings(t)]
    return headings + [qf.anchor(tag) for t in texts for tag in qf.tags_in(t)]


def addresses(new: list[str], folder: str) -> dict[str, str]:
    "Where each part is, seen from a folder."
    return {c: posixpath.relpath(c, folder) + ".html" for c in new}


def elsewhere(new: list[str], folder: str, root: Path = ROOT) -> str:
    "Anchor -> address of what the first part does not have, as JSON."
    address, known = addresses(new, folder), set(anchors(new[0], root))
    others = {
        a: address[c]
        for c in reversed(new[1:])
        for a in anchors(c, root)
        if a not in known
    }
    return json.dumps(others, sort_keys=True)


def page(old: str, new: list[str], root: Path = ROOT) -> str:
    "The page at the old address."
    folder = posixpath.dirname(old)
    address = addresses(new, folder)
    first, places = address[new[0]], elsewhere(new, folder, root)
    listed = "".join(
        f'<li><a href="{address[c]}">{html.escape(title(c, root))}</a></li>'
        for c in new
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<title>Moved: {html.escape(title(new[0], root))}</title>
<meta name="robots" content="noindex">
<link rel="canonical" href="{first}">
<script>
const places = {places};
const to = places[decodeURIComponent(location.hash.slice(1))] || "{first}";
location.replace(to + location.hash);
</script>
<noscript><meta http-equiv="refresh" content="3; url={first}"></noscript>
</head><body><h1>This chapter has moved</h1><ul>{listed}</ul></body></html>
"""


LEADS_ON = re.compile(r'<script id="leads-on">.*?</script>\n', re.S)


def leads_on(text: str, new: list[str], root: Path = ROOT) -> str:
    "The rendered first part, with a script that leads to what other parts have."
    places = elsewhere(new, posixpath.dirname(new[0]), root)
    script = f"""<script id="leads-on">
document.addEventListener("DOMContentLoaded", () => {{
const places = {places};
const name = decodeURIComponent(location.hash.slice(1));
if (places[name] && !document.getElementById(name)) {{
location.replace(places[name] + location.hash);
}}}});
</script>
"""
    return LEADS_ON.sub("", text).replace("</head>", f"{script}</head>", 1)


def title(chapter: str, root: Path = ROOT) -> str:
    "The title of a chapter."
    first = source(read(root / "nbs" / f"{chapter}.ipynb")["cells"][0])
    return re.search(r"^# (.+)$", first, re.M)[1]


def write(site: Path, root: Path = ROOT) -> list[Path]:
    """Write the pages into a rendered site, and into its first parts what leads on; the
    paths of the pages."""
    made = []
    for old, new in MOVED.items():
        if all((root / "nbs" / f"{c}.ipynb").is_file() for c in new):
            made.append(site / "nbs" / f"{old}.html")
            write_atomically(made[-1], page(old, new, root))
            first = site / "nbs" / f"{new[0]}.html"
            if len(new) > 1 and first.is_file():
                text = first.read_text(encoding="utf-8")
                write_atomically(first, leads_on(text, new, root))
    return made
