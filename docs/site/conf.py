"""Settings of the documentation site: `make docs` builds it into build/docs."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from navigation import PAGES  # noqa: E402

project = "gencg"
author = "The gencg developers"
copyright = "the gencg developers, MIT licence"
release = version = version_of("gencg")

# Pages lie where a reader of the repository finds them, and link to each other as there
include_patterns = [*PAGES, "docs/api/*.rst", "docs/tutorials/*.py"]
exclude_patterns = ["build", "dist", "gencg", "runs", "tests", "**/.*"]
root_doc = "docs/index"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "api",
    "navigation",
    "references",
    "percent",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "named"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

# Nothing of a built page comes from a network
html_theme = "furo"
html_title = f"gencg {release}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]
html_copy_source = False
html_domain_indices = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7ab8e0", "color-brand-content": "#7ab8e0"},
}
