"""The navigation: sections and the pages in them, in the order of reading.

A page that is not there yet is passed over; one that is in no section fails the build.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

SECTIONS = {
    "Begin": ["getting_started", "first_molecule", "choosing", "exploring", "tutorials/*"],
    "Use": [
        "command_line",
        "collective_variables",
        "explaining",
        "states",
        "exports",
        "two_levels",
        "never_lost",
        "parallel",
    ],
    "Judge": [
        "troubleshooting",
        "sharp_bits",
        "results",
        "molecules",
        "papers",
        "../experiments/*",
    ],
    "Look up": ["notation", "units", "reproducibility"],
    "API": ["api/*"],
    "Build on it": ["extending", "design", "flow_matching", "../CONTRIBUTING", "../CHANGELOG"],
}
PAGES = [
    "docs/*.md",
    "docs/tutorials/*.md",
    "experiments/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
"""Files of the repository that are pages, as patterns from its top."""


def matching(pattern: str, pages: Iterable[str]) -> list[str]:
    """Pages, named from the top of the repository without their endings, that a pattern means."""
    pattern = pattern[3:] if pattern.startswith("../") else f"docs/{pattern}"
    return sorted(page for page in pages if fnmatch(page, pattern))


def trees(pages: Iterable[str]) -> str:
    """The sections as hidden tables of contents, for the end of the first page."""
    pages, text = list(pages), ""
    for name, patterns in SECTIONS.items():
        there = [f"/{page}" for pattern in patterns for page in matching(pattern, pages)]
        head = f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n:caption: {name}\n"
        text += "\n".join(["", head, *there, "```", ""])
    return text


def _append(app: Any, docname: str, source: list[str]) -> None:
    # A reader of the repository sees a page without directives
    if docname == app.config.root_doc:
        source[0] += trees(app.env.found_docs)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
