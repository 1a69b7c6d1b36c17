"""Reading and writing notebooks, the lists of chapters and of worked solutions, and the
project's settings, for the other tools."""

from __future__ import annotations

import configparser
import difflib
import importlib.util
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "metalearn_book"


def settings(root: Path = ROOT) -> dict[str, str]:
    "What settings.ini says, and `url`, the address of the repository."
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    if not parser.read(root / "settings.ini", encoding="utf-8"):
        raise FileNotFoundError(f"{root / 'settings.ini'} is missing")
    found = dict(parser["DEFAULT"])
    return {**found, "url": f"https://github.com/{found['user']}/{found['repo']}"}


def source(cell: dict) -> str:
    "The text of a cell."
    return "".join(cell["source"])


def read(path: Path) -> dict:
    "A notebook as a dict; ValueError where the file is no notebook."
    try:
        nb = json.loads(path.read_text(encoding="utf-8"))
        nb["cells"], nb["metadata"]
    except (json.JSONDecodeError, KeyError, TypeError) as e:
        raise ValueError(
            f"{path} is not a notebook ({type(e).__name__}: {e}); "
            f"restore it with: git checkout {path}"
        ) from e
    return nb


def text(nb: dict) -> str:
    "A notebook as nbdev writes it: sorted keys, indent 1, a newline at the end."
    return json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def clean(nb: dict) -> dict:
    "The notebook as `nbdev_clean` leaves it, and without live widgets."
    from nbdev.clean import clean_nb

    nb = json.loads(text(nb))
    clean_nb(nb)
    for cell in nb["cells"]:  # a live widget is dead in a file
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if not is_widget(o)]
    return nb


def is_widget(output: dict) -> bool:
    "Is a stored output a live widget of ipywidgets?"
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def write_atomically(path: Path, content: str) -> None:
    """Write beside the file, then rename: whoever is killed in the middle leaves the
    old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def absolute_environment() -> dict[str, str]:
    """The environment with the folders that it names as absolute paths, for processes
    that run elsewhere; an error where one has to exist and does not.

    The package's own function, of a file that needs nothing else, so that the tools go
    with the sources beside them, whatever is installed.
    """
    path = ROOT / PACKAGE / "data" / "files.py"
    if not path.exists():
        return dict(os.environ)
    spec = importlib.util.spec_from_file_location("_files_of_the_book", path)
    spec.loader.exec_module(files := importlib.util.module_from_spec(spec))
    return files.absolute_environment()


def is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code" and bool(source(cell).strip())


def chapter_files(root: Path = ROOT) -> list[Path]:
    """All notebooks of the book, in the order of `_quarto.yml`; one that it does not
    list comes last."""
    listed = re.findall(
        r"nbs/[\w./-]+\.ipynb", (root / "_quarto.yml").read_text(encoding="utf-8")
    )
    there = [
        p
        for p in sorted((root / "nbs").rglob("*.ipynb"))
        if not any(part[0] in "._" for part in p.relative_to(root).parts)
    ]
    order = {name: i for i, name in enumerate(listed)}
    return sorted(
        there, key=lambda p: order.get(p.relative_to(root).as_posix(), len(order))
    )


def exercise_files(root: Path = ROOT) -> list[Path]:
    """The notebooks of worked solutions, `exercises/<part>/<nn_name>.ipynb`, each
    named as its chapter."""
    return [
        p
        for p in sorted((root / "exercises").rglob("*.ipynb"))
        if not any(part[0] in "._" for part in p.relative_to(root).parts)
    ]


def exercises(root: Path = ROOT) -> list[str]:
    "Names of the notebooks of worked solutions: `exercises/metric/10_prototypes`."
    return [
        p.relative_to(root).with_suffix("").as_posix() for p in exercise_files(root)
    ]


def notebook_path(name: str, root: Path = ROOT) -> Path:
    "The file of a chapter, or of its worked solutions, from its name."
    folder = root if name.startswith("exercises/") else root / "nbs"
    return folder / f"{name}.ipynb"


def chapter_name(path: Path, root: Path = ROOT) -> str:
    "`nbs/optimization/10_maml.ipynb` -> `optimization/10_maml`."
    return path.relative_to(root / "nbs").with_suffix("").as_posix()


def chapters(root: Path = ROOT) -> list[str]:
    "Names of the chapters that have code to run, in order."
    return [
        chapter_name(p, root)
        for p in chapter_files(root)
        if any(map(is_code, read(p)["cells"]))
    ]


def find_chapter(name: str, root: Path = ROOT) -> str:
    """The full name of a chapter, from `optimization/10_maml`, `10_maml`, `maml` or its
    file; ValueError with the nearest name."""
    wanted = re.sub(r"^nbs/|\.ipynb$", "", name.strip("/"))
    known = chapters(root)
    short = {
        key: c
        for c in known
        for key in (c, c.split("/")[-1], re.sub(r"^\d+_", "", c.split("/")[-1]))
    }
    if wanted in short:
        return short[wanted]
    near = difflib.get_close_matches(wanted, list(short), n=1, cutoff=0.4)
    hint = f"; did you mean {short[near[0]]}?" if near else ""
    raise ValueError(
        f"no chapter is called {name!r}{hint} There are: {', '.join(known)}"
    )


def module_of(nb: dict) -> str | None:
    "What `#| default_exp` names, or None."
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and (
            m := re.search(r"^#\|\s*default_exp\s+([\w.]+)", source(cell), re.M)
        ):
            return m[1]
    return None


def title_of(nb: dict) -> tuple[str, str]:
    "The heading and the sentence below it, from the first cell."
    first = source(nb["cells"][0]) if nb["cells"] else ""
    heading = re.search(r"^# (.+)$", first, re.M)
    sentence = re.search(r"^> (.+)$", first, re.M)
    return (
        heading[1].strip() if heading else "",
        sentence[1].strip() if sentence else "",
    )


def filled(text: str, blocks: dict, page: str, root: Path = ROOT) -> str:
    """A page with every block between `<!-- made: NAME -->` and `<!-- end -->` as
    `blocks[NAME](root)` makes it; ValueError for a name that is not known."""

    def block(m: re.Match) -> str:
        if m[1] not in blocks:
            raise ValueError(f"{page} asks for {m[1]!r}; there are {', '.join(blocks)}")
        return f"<!-- made: {m[1]} -->\n\n{blocks[m[1]](root)}\n\n<!-- end -->"

    return re.sub(r"<!-- made: ([\w ]+) -->\n.*?<!-- end -->", block, text, flags=re.S)
