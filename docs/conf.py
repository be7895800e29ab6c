"""The documentation's site: `make docs` builds it from the pages of this folder, and a warning ends it.

Links between pages and to their headings are resolved by MyST, which warns where one leads nowhere. Nothing is fetched.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "Switchboard"
html_title = "Switchboard"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]

# Headings get the anchors that links to them have where the pages are read without the site.
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def leave_out_absent_pages(app: Sphinx, page: str, text: list[str]) -> None:
    """The contents name every page in its place, those of a checkout that has not all of them included."""
    if page == "index":
        absent = [name for name in re.findall(r"^[a-z-]+$", text[0], re.MULTILINE) if not is_page(app, name)]
        text[0] = re.sub(rf"^(?:{'|'.join(absent)})$\n", "", text[0], flags=re.MULTILINE) if absent else text[0]


def is_page(app: Sphinx, name: str) -> bool:
    """Whether the folder has it."""
    return Path(app.srcdir, f"{name}.md").exists()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", leave_out_absent_pages)
