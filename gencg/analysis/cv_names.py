"""Names of collective variables: which coordinates they combine."""

import re
from collections.abc import Callable

_TERM = re.compile(r"(?:^|(?<= ))([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?) ")


def cv_terms(name: str) -> tuple[tuple[float, str], ...]:
    """Coefficients and coordinates of a CV's name.

    "phi(ALA2)" is one coordinate, "1 phi(ALA2) -1 psi(ALA2)" the difference of two.
    """
    parts = _TERM.split(name)
    if len(parts) == 1:
        return ((1.0, name),)
    return tuple(
        (float(c), coordinate.strip())
        for c, coordinate in zip(parts[1::2], parts[2::2], strict=True)
    )


def is_coordinate(name: str, coordinate: str) -> bool:
    """Whether a CV is a coordinate itself, up to its sign."""
    terms = cv_terms(name)
    return len(terms) == 1 and terms[0][1] == coordinate and abs(terms[0][0]) == 1


def cv_label(name: str, spell: Callable[[str], str] = str) -> str:
    """A CV's name for readers: "phi(ALA2) − psi(ALA2)".

    Args:
        name: As in `SlowCVs.names`.
        spell: How to write a coordinate.
    """
    text = ""
    for c, coordinate in cv_terms(name):
        sign = ("−" if c < 0 else "") if not text else (" − " if c < 0 else " + ")
        text += sign + ("" if abs(c) == 1 else f"{abs(c):g} ") + spell(coordinate)
    return text
