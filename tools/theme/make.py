"""Makes what the look of the book needs from code: Quarto's themes and scripts, icon,
cover, card.

python tools/theme/make.py           write the files beside this one
python tools/theme/make.py --check   exit status 1 and their names if they are not what
                                     the code makes
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parent),
    str(Path(__file__).resolve().parent.parent),
]
import cover
import numpy as np
from notebooks import write_atomically

HERE = Path(__file__).resolve().parent


def tokens(theme: str) -> dict[str, str]:
    """The colours of one theme, 'light' or 'dark', from tokens.css: name without
    `--book-` -> hex."""
    text = (HERE / "tokens.css").read_text(encoding="utf-8")
    found = re.search(rf"/\* {theme} \*/[^{{]*{{([^}}]*)}}", text)
    if found is None:
        raise ValueError(f"tokens.css has no block that begins with /* {theme} */")
    return dict(re.findall(r"--book-([\w-]+):\s*(#[0-9a-f]{6});", found[1]))


def font(name: str) -> str:
    "A list of fonts from tokens.css on one line."
    text = (HERE / "tokens.css").read_text(encoding="utf-8")
    return " ".join(re.search(rf"--book-{name}:([^;]*);", text)[1].split())


def scss(theme: str) -> str:
    """The Quarto theme: the tokens as values of Bootstrap's variables, over its own
    base."""
    c = tokens(theme)
    values = {
        "web-font-path": "false",
        "font-family-sans-serif": font("serif"),
        "headings-font-family": font("serif"),
        "font-family-monospace": font("mono"),
        "font-size-root": "16px",
        "headings-font-weight": "600",
        "body-bg": c["ground"],
        "body-color": c["ink"],
        "body-secondary": c["muted"],
        "text-muted": c["muted"],
        "link-color": c["link"],
        "link-hover-color": c["hover"],
        "primary": c["link"],
        "secondary": c["muted"],
        "success": c["tip"],
        "info": c["note"],
        "warning": c["warning"],
        "danger": c["mistake"],
        "border-color": c["border"],
        "light": c["surface"],
        "dark": c["ink"],
        "code-color": c["ink"],
        "code-bg": c["surface"],
        "code-block-bg": c["surface"],
        "code-block-border-left": "false",
        "table-color": c["ink"],
        "table-bg": "transparent",
        "navbar-bg": c["surface"],
        "navbar-fg": c["ink"],
        "navbar-hl": c["link"],
        "sidebar-bg": c["surface"],
        "sidebar-fg": c["ink"],
        "sidebar-hl": c["link"],
        "footer-bg": c["ground"],
        "footer-fg": c["muted"],
        "toc-color": c["link"],
        "input-bg": c["ground"],
        "input-color": c["ink"],
        "input-border-color": c["muted"],
        "input-placeholder-color": c["muted"],
        "dropdown-bg": c["ground"],
        "dropdown-color": c["ink"],
        "dropdown-link-color": c["ink"],
        "popover-bg": c["ground"],
        "callout-color-note": c["note"],
        "callout-color-tip": c["tip"],
        "callout-color-warning": c["warning"],
        "callout-color-important": c["important"],
        "callout-color-caution": c["mistake"],
    }
    lines = [f"${name}: {value};" for name, value in values.items()]
    return (
        "/*-- scss:defaults --*/\n// Written by tools/theme/make.py from tokens.css.\n"
        + "\n".join(lines)
        + "\n"
    )


def scripts() -> str:
    "The script of the pages as Quarto includes it."
    return "<script>\n" + (HERE / "book.js").read_text(encoding="utf-8") + "</script>\n"


def made() -> dict[str, bytes]:
    "Every made file: name -> content."
    return {
        "light.scss": scss("light").encode(),
        "dark.scss": scss("dark").encode(),
        "scripts.html": scripts().encode(),
        "favicon.svg": cover.favicon().encode(),
        "cover.png": cover.cover(),
        "card.png": cover.card(),
    }


def same(name: str, old: bytes, new: bytes) -> bool:
    """Equal text; pictures may differ a little, as another version of the libraries
    draws them."""
    if not name.endswith(".png"):
        return old == new
    from PIL import Image

    a, b = (
        np.asarray(Image.open(io.BytesIO(v)).convert("RGB"), dtype=int)
        for v in (old, new)
    )
    return a.shape == b.shape and float(np.abs(a - b).mean()) < 2


def differences() -> list[str]:
    "Names of the files that are missing, or not what the code makes."
    return [
        name
        for name, content in made().items()
        if not (HERE / name).exists()
        or not same(name, (HERE / name).read_bytes(), content)
    ]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        changed = differences()
        print(
            "not what the code makes; run python tools/theme/make.py: "
            + ", ".join(changed)
            if changed
            else "theme: all files are what the code makes"
        )
        return 1 if changed else 0
    if arguments:
        print(__doc__)
        return 2
    for name, content in made().items():
        path = HERE / name
        if name.endswith(".png"):
            path.write_bytes(content)
        else:
            write_atomically(path, content.decode())
        print(f"tools/theme/{name}: {len(content) / 1000:.1f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
