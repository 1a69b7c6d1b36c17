"""A table that a reader sorts and filters: without a kernel, a library or a network."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Collection, Iterable, Mapping

from .display import Displayable, format_value, show_table

__all__ = ["sortable_table"]

_STYLE = """\
#@ID@{overflow-x:auto;max-width:100%;max-height:36em;overflow-y:auto}
#@ID@ table{border-collapse:separate;border-spacing:0;font-size:.85em;margin:0}
#@ID@ th,#@ID@ td{padding:.25em .6em;white-space:nowrap;text-align:right;color:inherit;\
border-bottom:1px solid rgba(128,128,128,.35)}
#@ID@ thead th{position:sticky;top:0;z-index:1;background:var(--sort-bg,Canvas)}
#@ID@ th:first-child,#@ID@ td:first-child{text-align:left;position:sticky;left:0;\
background:var(--sort-bg,Canvas);z-index:1;max-width:14em;overflow:hidden;\
text-overflow:ellipsis}
#@ID@ thead th:first-child{z-index:2}
#@ID@ button{font:inherit;font-weight:600;border:0;background:none;color:inherit;\
padding:0;cursor:pointer}
#@ID@ button::after{content:" \\2195";opacity:.45}
#@ID@ th[aria-sort=ascending] button::after{content:" \\2191";opacity:1}
#@ID@ th[aria-sort=descending] button::after{content:" \\2193";opacity:1}
@media(max-width:600px){#@ID@ td:first-child,#@ID@ th:first-child{max-width:8.5em}}
"""

# Sorting is stable, numbers go by value and empty cells stay last in both directions.
_SCRIPT = """\
(()=>{const box=document.getElementById("@ID@");if(!box||box.dataset.ready)return;
box.dataset.ready=1;const table=box.querySelector("table"),body=table.tBodies[0];
let back=box.parentElement,color="";
while(back&&!color){const c=getComputedStyle(back).backgroundColor;
if(c&&c!=="transparent"&&!c.endsWith(", 0)"))color=c;back=back.parentElement}
if(color)box.style.setProperty("--sort-bg",color);
const field=document.getElementById("@ID@-filter"),
said=document.getElementById("@ID@-said");
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
said.textContent=n+" of "+body.rows.length+" rows"})})();"""


def _number(value) -> float | None:
    "What a column is sorted by; None for a text."
    if hasattr(value, "ci95"):
        return float(value.mean)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _cell(value, text: str, is_numeric: bool) -> str:
    number = _number(value)
    by = "" if number is None or number != number else repr(number)
    key = f' data-v="{by}"' if is_numeric else ""
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
    `-word` leaves rows out. ValueError for what `show_table` refuses, and for two rows
    of one name.
    """
    rows = [dict(row) for row in rows]
    plain = show_table(rows, caption, percent=percent, digits=digits)
    names = list(dict.fromkeys(n for row in rows for n in row))
    percent = {percent} if isinstance(percent, str) else set(percent)
    first, tags = [str(row.get(names[0])) for row in rows], dict(tags or {})
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
    digest = hashlib.sha256(json.dumps([names, shown]).encode()).hexdigest()
    ident = f"sort-{digest[:8]}"
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(n)}'
        f"{' (%)' if n in percent else ''}</button></th>"
        for n in names
    )
    lines = []
    for name, row, texts in zip(first, rows, shown):
        every = html.escape(" ".join([*texts, tags.get(name, "")]).lower())
        cells = "".join(_cell(row.get(n), t, numeric[n]) for n, t in zip(names, texts))
        lines.append(f'<tr data-all="{every}">{cells}</tr>')
    top = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    text = (
        f"<style>{_STYLE}</style>\n"
        '<p><label>Rows with <input id="@ID@-filter" type="search" '
        'placeholder="words, -without"></label> '
        f'<span id="@ID@-said" role="status">{len(rows)} of {len(rows)} rows</span>'
        "</p>\n"
        f'<div id="@ID@" tabindex="0" role="region" aria-label="Table, scrolls">\n'
        f"<table>{top}<thead><tr>{heads}</tr></thead><tbody>\n"
        + "\n".join(lines)
        + f"\n</tbody></table></div>\n<script>{_SCRIPT}</script>"
    ).replace("@ID@", ident)
    return Displayable(
        text_html=text,
        text_markdown=plain.data["text/markdown"],
        text_plain=plain.data["text/plain"],
    )
