"""Names of collective variables: which coordinates they combine."""

import re
from collections.abc import Callable

from gencg.models.cv_map import BENT

_TERM = re.compile(r"(?:^|(?<= ))([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?) ")


def cv_terms(name: str) -> tuple[tuple[float, str], ...]:
    """Coefficients and coordinates of a CV's name.

    "phi(ALA2)" is one coordinate, "1 phi(ALA2) -1 psi(ALA2)" the difference of two; of a bent one
    they are those of the straight combination.
    """
    name = name.removeprefix(BENT)
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
    return (
        not name.startswith(BENT)
        and len(terms) == 1
        and terms[0][1] == coordinate
        and abs(terms[0][0]) == 1
    )


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
    return f"{BENT}{text}" if name.startswith(BENT) else text


_LONE = "MOL1"
"""The residue of a molecule that has no others."""
_TORSION = re.compile(r"torsion\((\w+)-(\S+), \1-(\S+), \1-(\S+), \1-(\S+)\)")
_ROTOR = re.compile(rf"rotor\({_LONE}-(\S+)\)")


def shorter(text: str) -> str:
    """Torsions within one residue in the short form, wherever they are in a text.

    "torsion(MOL1-C1, MOL1-C2, MOL1-C4, MOL1-C5)" becomes "C1–C2–C4–C5", and "rotor(MOL1-C3)"
    "rotor C3"; a residue of a name of its own follows in parentheses.
    """

    def atoms(found: re.Match[str]) -> str:
        residue, *names = found.groups()
        return "–".join(names) + ("" if residue == _LONE else f" ({residue})")

    return _ROTOR.sub(r"rotor \1", _TORSION.sub(atoms, text))
