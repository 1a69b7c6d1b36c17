"""A page in the folder of each part: what lives there, from the chapters' titles.

python tools/part_pages.py --write   write nbs/<part>/README.md
python tools/part_pages.py --check   exit status 1 and a list if one is not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ending
from export import chapter_list
from front_page import AFTER
from notebooks import PACKAGE, ROOT, write_atomically


def page(part: str, chapters: list[dict[str, str]]) -> str:
    "The page of one part."
    rows = [f"# {chapters[0]['part']}", "", AFTER[part], ""]
    rows += ["| chapter | what it builds | module |", "|:--|:--|:--|"]
    for c in chapters:
        name = c["chapter"].split("/")[1]
        module = c["module"]
        source = f"../../{module.replace('.', '/')}.py"
        rows.append(
            f"| [{c['title']}]({name}.ipynb) | {c['about']} | [`{module}`]({source}) |"
        )
    below = "Each chapter uses what stands above it in this list and in earlier parts."
    made = f"The modules of `{PACKAGE}/{part}` are exported from these notebooks."
    return "\n".join([*rows, "", f"{below} {made}", ""])


def pages(root: Path = ROOT) -> dict[Path, str]:
    "Path -> text, for every part that has a chapter."
    parts: dict[str, list[dict[str, str]]] = {}
    for c in chapter_list(root):
        parts.setdefault(c["chapter"].split("/")[0], []).append(c)
    return {
        root / "nbs" / p / "README.md": page(p, found) for p, found in parts.items()
    }


def old(root: Path = ROOT) -> list[Path]:
    "The pages that are not as they should be."
    return [
        path
        for path, text in pages(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str], root: Path = ROOT) -> int:
    if arguments not in (["--write"], ["--check"]):
        print(__doc__)
        return 2
    found = old(root)
    if arguments == ["--write"]:
        for path in found:
            write_atomically(path, pages(root)[path])
        return 0
    for path in found:
        print(f"{path.relative_to(root)} is not up to date; run: make export")
    print(f"pages of parts: {len(found)} of {len(pages(root))} are old")
    return bool(found)


if __name__ == "__main__":
    ending.run(main, sys.argv[1:])
