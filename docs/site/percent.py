"""Tutorials in percent format (`# %%` cells) as pages: text cells as Markdown, others as code."""

import re
from typing import Any

from docutils import nodes
from myst_parser.sphinx_ import Parser

CELL = re.compile(r"^# %%[ \t]*(\[markdown\])?.*$", re.MULTILINE)


def to_markdown(script: str) -> str:
    """The cells of a script as one Markdown text; what stands before the first is code, too."""
    before, *rest = CELL.split(script)
    cells = [(None, before), *zip(rest[::2], rest[1::2], strict=True)]
    return "\n\n".join(
        _cell(kind is not None, text.strip()) for kind, text in cells if text.strip()
    )


def _cell(is_text: bool, text: str) -> str:
    if not is_text:
        return f"```python\n{text}\n```"
    return "\n".join(re.sub(r"^# ?", "", line) for line in text.splitlines())


class PercentParser(Parser):  # type: ignore[misc]
    """Reads a tutorial as the Markdown page it amounts to."""

    supported = ("percent",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        super().parse(to_markdown(inputstring), document)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_source_suffix(".py", "percent")
    app.add_source_parser(PercentParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
