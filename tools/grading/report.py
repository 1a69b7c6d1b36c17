"""What comes out of grading: Gradescope's JSON, a line of CSV, a page of HTML. Texts of
student code are cut, cleaned and escaped."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from itertools import islice

from grading.grade import Result

MOST_NOTES = 30  # on cells that failed: a notebook may have many
COLUMNS = ["submission", "assignment", "points", "of", "seconds", "seed", "warnings"]


def clean(text: str, most: int = 1500) -> str:
    "Without control characters, also those that turn the direction of a text."
    text = re.sub(r"[^\x20-\x7e\n\t\u00a0-\ud7ff\ue000-\uffff]", "?", text[: 4 * most])
    text = re.sub(r"[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", "?", text)
    return text if len(text) <= most else text[:most] + " ..."


def gradescope(result: Result, made_from: str = "") -> dict:
    "The content of results.json, as Gradescope reads it."
    tests = []
    for m in result.marks:
        said = m.message + (f"\n\nYour code printed:\n{m.printed}" if m.printed else "")
        tests.append(
            {
                "name": m.title,
                "score": m.points,
                "max_score": m.of,
                "status": "passed" if m.points == m.of else "failed",
                "output": clean(said),
                "output_format": "text",
                "visibility": "visible",
            }
        )
    notes = [f"{cell}: {why}" for cell, why in result.cells.items()]
    return {
        "score": result.points,
        "max_score": result.of,
        "execution_time": round(result.seconds, 1),
        "visibility": "visible",
        "output": clean("\n".join([*result.warnings, *notes])),
        "output_format": "text",
        "tests": tests,
        "extra_data": {"digest": made_from},
    }


def _cell(value) -> str:
    "For a table: what a spreadsheet would take for a formula is made a text."
    text = clean(str(value), 300).replace("\n", " ").replace("\t", " ")
    if _number(text):
        return text
    # also behind what another program may take for the end of a cell
    return re.sub(
        r"(^|[;,|])(\s*[\"']?)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])", r"\1'\2", text
    )


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+(\.\d+)?", text))


def csv_table(rows: list[dict]) -> str:
    "One line for each submission, with the points of each question."
    names = list(dict.fromkeys(n for row in rows for n in row if n not in COLUMNS))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*COLUMNS, *map(_cell, names)])
    for row in rows:
        table.writerow([_cell(row.get(n, "")) for n in [*COLUMNS, *names]])
    return out.getvalue()


def csv_row(name: str, result: Result) -> dict:
    return {
        "submission": name,
        "assignment": result.assignment,
        "points": f"{result.points:g}",
        "of": f"{result.of:g}",
        "seconds": f"{result.seconds:.1f}",
        "seed": str(result.seed),
        "warnings": "; ".join(result.warnings),
        **{m.name: f"{m.points:g}" for m in result.marks},
    }


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;
padding:0 1rem;color:#1a1a1a;background:#fff}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;
border-bottom:1px solid #bbb}
td.n{white-space:nowrap}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}
@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}}"""


def page(name: str, result: Result) -> str:
    "The report for the student."
    said = lambda text: html.escape(clean(text))
    rows = []
    for m in result.marks:
        printed = m.printed and f"<pre>Your code printed:\n{said(m.printed)}</pre>"
        rows.append(
            f"<tr><td>{said(m.title)}</td><td class='n'>{m.points:g} of {m.of:g}</td>"
            f"<td><pre>{said(m.message)}</pre>{printed}</td></tr>"
        )
    notes = [f"{c}: {why}" for c, why in islice(result.cells.items(), MOST_NOTES)]
    if (more := len(result.cells) - MOST_NOTES) > 0:
        notes.append(f"and {more} other cells that failed")
    notes = "".join(f"<li>{said(n)}</li>" for n in [*result.warnings, *notes])
    notes = notes and f"<h2>Notes</h2><ul>{notes}</ul>"
    title = f"{said(result.assignment)}: {said(name)}"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<h1>{title}</h1><p><strong>{result.points:g} of {result.of:g} points</strong>"
        f", graded in {result.seconds:.1f} s on inputs drawn for this grading.</p>"
        "<table><thead><tr><th>Question</th><th>Points</th><th>What was found</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>{notes}</body></html>\n"
    )


def gradescope_text(result: Result, made_from: str = "") -> str:
    told = gradescope(result, made_from)
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
