"""The documentation site (Sphinx, MyST): `make docs`. A broken link, or a page that no other names, fails."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modelcar.version import version as _version

project = "Modelcars on KServe"
version = release = _version()
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["outputs.schema.json"]
html_show_copyright = False
# Nothing is loaded from elsewhere: the site works offline, and tells nobody who reads it.
html_theme_options = {"footer_icons": []}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build"]
# Its colours, and those of the dark one, have a contrast of 4.5 at least (WCAG AA).
pygments_style = "a11y-light"
pygments_dark_style = "monokai"
suppress_warnings: list[str] = []
