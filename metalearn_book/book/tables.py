"""A table that a reader sorts and filters: without a kernel, a library or a network."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Collection, Iterable, Mapping

from .display import Displayable, _plain_number, _unit, format_value, show_table

__all__ = ["sortable_table"]

# Cells that stay in sight cover what scrolls behind them, so they need the ground of
# the page: of the book's editions, of JupyterLab, Colab or VS Code, by their own names.
_STYLE = """\
#@ID@{--sort-bg:var(--book-ground,var(--jp-layout-color0,\
var(--colab-primary-surface-color,var(--vscode-editor-background,Canvas))));\
overflow-x:auto;max-width:100%;max-height:36em;overflow-y:auto}
#@ID@ table{border-collapse:separate;border-spacing:0;font-size:.85em;margin:0}
#@ID@ th,#@ID@ td{padding:.25em .6em;white-space:nowrap;text-align:right;color:inherit;\
border-bottom:1px solid rgba(128,128,128,.35)}
#@ID@ thead th{position:sticky;top:0;z-index:1;background:var(--sort-bg)}
#@ID@ th:first-child,#@ID@ td:first-child{text-align:left;position:sticky;left:0;\
background:var(--sort-bg);z-index:1;white-space:normal;min-width:8em;max-width:22em}
#@ID@ thead th:first-child{z-index:2}
#@ID@ button{font:inherit;font-weight:600;border:0;background:none;color:inherit;\
padding:0;cursor:pointer}
#@ID@ button::after{content:" \\2195";opacity:.45}
#@ID@ th[aria-sort=ascending] button::after{content:" \\2191";opacity:1}
#@ID@ th[aria-sort=descending] button::after{content:" \\2193";opacity:1}
@media(max-width:600px){#@ID@ td:first-child,#@ID@ th:first-child{min-width:6em;\
max-width:9em}}
"""

# Sorting is stable, numbers go by value and empty cells stay last in both directions.
_SCRIPT = """\
document.querySelectorAll('[id="@ID@"]').forEach(box=>{if(box.dataset.ready)return;
box.dataset.ready=1;const table=box.querySelector("table"),body=table.tBodies[0];
const top=box.previousElementSibling,field=top.querySelector("input"),
said=top.querySelector("[role=status]");
const heads=[...table.tHead.rows[0].cells];
const key=(row,i)=>{const v=row.cells[i].dataset.v;
if(v===undefined)return row.cells[i].textContent.toLowerCase();return v===""?null:+v};
heads.forEach((head,i)=>head.querySelector("button").addEventListener("click",()=>{
const up=head.getAttribute("aria-sort")!=="ascending";
heads.forEach(h=>h.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",up?"ascending":"descending");
[...body.rows].sort((a,b)=>{const x=key(a,i),y=key(b,i);
if(x===null||y===null)return(x===null)-(y===null);
return(x<y?-1:x>y?1:0)*(up?1:-1)}).forEach(r=>body.append(r))}));
field.addEventListener("input",()=>{
const words=field.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const r of body.rows){const t=r.dataset.all;
const on=words.every(w=>w[0]==="-"&&w.length>1?!t.includes(w.slice(1)):t.includes(w));
r.style.display=on?"":"none";n+=on}
said.textContent=n+" of "+body.rows.length+" rows"})});"""


def _number(value) -> int | float | None:
    "What a column is sorted by; None for a text."
    value = value.mean if hasattr(value, "ci95") else value
    value = _plain_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value


def _cell(value, text: str, is_numeric: bool) -> str:
    "A cell with its key, `data-v`: empty for one that stays last; texts have none."
    number, key = _number(value), ""
    if value is None or (is_numeric and number != number):
        key = ' data-v=""'
    elif is_numeric:  # as JavaScript reads it
        key = f' data-v="{number!r}"'.replace("inf", "Infinity")
    return f"<td{key}>{html.escape(text)}</td>"


def sortable_table(
    rows: Iterable[Mapping],
    caption: str | None = None,
    *,
    percent: Collection[str] = (),
    digits: int = 4,
    tags: Mapping[str, str] | None = None,
) -> Displayable:
    """A table as of `show_table` whose headings sort it and whose field filters it.

    rows, caption, percent, digits: as in `show_table`, whose table is shown where
    scripts don't run. The first column names the rows and stays in sight on a narrow
    page. tags: row name -> more words that the field finds, such as the kind of a
    method. In the field, words that a row must hold are separated by spaces, and
    `-word` leaves rows out. ValueError for what `show_table` refuses, for two rows of
    one name, and for tags that are no texts.
    """
    rows = [dict(row) for row in rows]
    if rows and not any(rows):
        raise ValueError("the rows have no columns; the first one names the rows")
    plain = show_table(rows, caption, percent=percent, digits=digits)
    names = list(dict.fromkeys(n for row in rows for n in row))
    percent = {percent} if isinstance(percent, str) else set(percent)
    first, tags = [str(row.get(names[0])) for row in rows], dict(tags or {})
    if wrong := [t for t in tags.values() if not isinstance(t, str)]:
        raise ValueError(f"tags are texts of words, got {wrong[0]!r}")
    if len(set(first)) < len(first):
        twice = next(n for n in first if first.count(n) > 1)
        raise ValueError(
            f"the first column names the rows, and two are called {twice!r}"
        )
    numeric = {
        n: all(row.get(n) is None or _number(row[n]) is not None for row in rows)
        for n in names
    }
    shown = [
        [
            format_value(
                row.get(n),
                percent=n in percent and _number(row.get(n)) is not None,
                digits=digits,
            )
            for n in names
        ]
        for row in rows
    ]
    units = {n: f" ({_unit(rows, n)})" for n in names if n in percent}
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(str(n))}'
        f"{units.get(n, '')}</button></th>"
        for n in names
    )
    lines = []
    for name, row, texts in zip(first, rows, shown):
        every = html.escape(" ".join([*texts, tags.get(name, "")]).lower())
        cells = "".join(_cell(row.get(n), t, numeric[n]) for n, t in zip(names, texts))
        lines.append(f'<tr data-all="{every}">{cells}</tr>')
    top = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    inside = f"{top}<thead><tr>{heads}</tr></thead><tbody>\n" + "\n".join(lines)
    # of all that the table holds, so that two of a page don't share a name
    ident = f"sort-{hashlib.sha256(inside.encode()).hexdigest()[:8]}"
    text = (
        f"<style>{_STYLE}</style>\n"
        '<p><label>Rows with <input id="@ID@-filter" type="search" '
        'placeholder="words, -without"></label> '
        f'<span id="@ID@-said" role="status">{len(rows)} of {len(rows)} rows</span>'
        "</p>\n"
        '<div id="@ID@" class="book-sort" tabindex="0" role="region" '
        'aria-label="Table, scrolls">\n'
        f"<table>@INSIDE@\n</tbody></table></div>\n<script>{_SCRIPT}</script>"
    )
    return Displayable(
        text_html=text.replace("@ID@", ident).replace("@INSIDE@", inside),
        text_markdown=plain.data["text/markdown"],
        text_plain=plain.data["text/plain"],
    )
