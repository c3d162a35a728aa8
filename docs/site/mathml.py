r"""Formulas as MathML, which browsers show without scripts, fonts or a network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
# What the converter of docutils does not know, in words that it does
REWRITES = (
    (r"\\[Bb]ig/", "/"),
    (r"\\([Bb]ig)(?=\s*[(\[])", r"\\\1l"),
    (r"\\([Bb]ig)(?![a-zA-Z])", r"\\\1r"),
    (r"frac *(\d)(\d)(?!\d)", r"frac{\1}{\2}"),
    (r"°", r"^\\circ "),
    (r"\\dots(?![a-zA-Z])", r"\\ldots"),
    (r"\\textstyle(?![a-zA-Z])", ""),
    (r"\\mathrel\{([^}]*)\}", r"\1"),
)
# A little room around the name of a function, none before its bracket
NAME = re.compile(
    r"(<mi[^>]*>\w{2,}</mi>\s*)<mo>&ApplyFunction;</mo>(\s*<mo stretchy=\"false\">\()?"
)


def mathml(tex: str, *, display: bool = False) -> str:
    """A formula in LaTeX as a MathML element.

    Raises:
        MathError: If it cannot be converted.
    """
    for pattern, instead in REWRITES:
        tex = re.sub(pattern, instead, tex)
    return NAME.sub(_spaced, str(latex2mathml.tex2mathml(tex.strip(), as_block=display)))


def _spaced(found: re.Match[str]) -> str:
    name, bracket = found.groups()
    room = "0" if bracket else "0.167em"
    space = '<mspace width="0.167em"></mspace>'
    return f'{space}{name}<mo rspace="{room}">&ApplyFunction;</mo>{bracket or ""}'


def _write(translator: Any, node: nodes.Node, display: bool) -> None:
    try:
        text = mathml(node.astext(), display=display)
    except MathError as error:
        LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
        text = translator.encode(node.astext())
    translator.body.append(f'<div class="math">{text}</div>' if display else text)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: _write(translator, node, False), None),
        (lambda translator, node: _write(translator, node, True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
