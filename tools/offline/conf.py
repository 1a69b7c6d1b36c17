"""Sphinx's settings for the offline edition; tools/offline_site.py runs it and hands
over title and repository."""

import json
import os

from sphinx.environment.collectors.toctree import TocTreeCollector

_book = json.loads(os.environ["BOOK_SETTINGS"])
project, author, html_title = _book["project"], _book["author"], _book["html_title"]
extensions = ["myst_nb", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["_build"]
numfig = True
numfig_format = {"figure": "Figure %s"}
numfig_secnum_depth = 1

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_number_source_lines = False
myst_enable_extensions = [
    "dollarmath",
    "amsmath",
    "colon_fence",
    "attrs_inline",
    "attrs_block",
    "deflist",
]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["mystnb.unknown_mime_type"]

mathjax_path = "mathjax/tex-chtml-full.js"
mathjax3_config = {
    "chtml": {"mtextInheritFont": True, "scale": 0.95},
    "options": {"enableMenu": False},
}

html_theme = "sphinx_book_theme"
html_static_path = [
    "static",
    *(
        f"../theme/{name}"
        for name in ("tokens.css", "book.css", "book.js", "favicon.svg", "card.png")
    ),
]
html_css_files = ["tokens.css", "book.css", "sphinx.css"]
html_js_files = ["book.js"]
html_last_updated_fmt = None
html_show_sphinx = False
html_copy_source = True
html_sourcelink_suffix = ""
html_favicon = "../theme/favicon.svg"
html_logo = "../theme/favicon.svg"
html_context = {"default_mode": "auto"}
html_show_copyright = False
html_theme_options = {
    "logo": {"text": _book["project"], "alt_text": ""},
    "navbar_persistent": [],
    "extra_footer": "Code: Apache-2.0. Text and figures: CC BY 4.0.",
    "repository_url": _book["repository"],
    "repository_branch": _book["branch"],
    "path_to_docs": "",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"


def _number_through(self, env):
    """Chapters are numbered through all parts: for the numbering, the lists of the
    parts count as one."""
    from sphinx import addnodes

    get_doctree = env.get_doctree

    def merged(docname):
        tree = get_doctree(docname)
        lists = [n for n in tree.findall(addnodes.toctree) if n.get("numbered")]
        for other in lists[1:]:
            lists[0]["entries"] = [*lists[0]["entries"], *other["entries"]]
            other["numbered"] = 0
        return tree

    env.get_doctree = merged
    try:
        return _assign_section_numbers(self, env)
    finally:
        del env.get_doctree


if not hasattr(TocTreeCollector, "_numbered_through"):
    _assign_section_numbers = TocTreeCollector.assign_section_numbers
    TocTreeCollector.assign_section_numbers = _number_through
    TocTreeCollector._numbered_through = True


def _plain_equations(app, doctree):
    r"""Equations reach MathJax as they are written: Sphinx would put those with a line
    break into `split`, where \tag is an error."""
    from docutils import nodes

    for node in doctree.findall(nodes.math_block):
        if not node.get("no-wrap", node.get("nowrap", False)):
            node[:] = [nodes.Text(rf"\[{node.astext()}\]")]
            node["no-wrap"] = node["nowrap"] = True


def setup(app):
    app.connect("doctree-read", _plain_equations)
