"""The documentation's site: `make docs` builds it from the pages of this folder, and a warning ends it.

Links between pages and to their headings are resolved by MyST, which warns where one leads nowhere. Nothing is fetched.
"""

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
