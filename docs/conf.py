"""Sphinx's settings: `make docs` builds the site from the Markdown of this folder.

The pages stay plain Markdown that reads as well without a site. What is not in this folder (the
README, the job scripts', the agreement's) or is made from the sources (policies, API) is written to
`generated/` by `scripts.site_pages` as a build begins.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hvdfilter.version import __version__  # noqa: E402
from scripts import site_pages  # noqa: E402

project, author, copyright = "hvdfilter", "the hvdfilter authors", "the hvdfilter authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
root_doc = "index"

html_theme = "furo"
html_title = f"hvdfilter {release}"
html_copy_source = False
highlight_language = "bash"
myst_heading_anchors = 3

default_role = "code"  # docstrings write names as in Markdown, between single backticks
napoleon_use_rtype, napoleon_use_ivar = False, True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"


def setup(app):
    """Write the generated pages, give the first page its contents, mend links and docstrings."""
    site_pages.write(Path(app.srcdir) / "generated")
    app.connect("source-read", lambda app, page, text: site_pages.read(page, text))
    app.connect("autodoc-process-docstring", lambda *args: site_pages.docstring(args[-1]))
