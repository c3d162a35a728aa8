"""Heavy atoms that a standard residue should have and a structure lacks."""

from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_END = "OXT"


@cache
def standard_atoms() -> dict[str, frozenset[str]]:
    """Heavy atoms of the amino acids and nucleotides by residue name, from OpenMM's own list.

    Those of the start and the end of a chain are among them.
    """
    from openmm import app

    tree = ElementTree.parse(Path(app.__file__).parent / "data" / "residues.xml")
    return {
        residue.attrib["name"]: frozenset(
            name
            for bond in residue.findall("Bond")
            for name in (bond.attrib["from"], bond.attrib["to"])
            if not name.startswith(("-", "+", "H"))
        )
        for residue in tree.getroot().findall("Residue")
    }


def missing_atoms(topology: Any) -> str:
    """Which residues lack which heavy atoms, in words; empty where none does.

    An amino acid at the end of a chain that nothing follows needs its second oxygen, OXT.
    """
    found = []
    for chain in topology.chains():
        residues = list(chain.residues())
        for residue in residues:
            lacking = _lacking(residue, is_last=residue is residues[-1])
            if lacking:
                found.append(f"{residue.name} {residue.id} of chain {chain.id} lacks {lacking}")
    return "; ".join(found[:4]) + ("; and others" if len(found) > 4 else "")


def _lacking(residue: Any, *, is_last: bool) -> str:
    standard = standard_atoms().get(residue.name, frozenset())
    # Phosphates stand at one end of a nucleic acid only
    optional = {"OXT", "P", "OP1", "OP2", "OP3"} - ({_END} if is_last else set())
    here = {atom.name for atom in residue.atoms()}
    # Another naming altogether is no lack of atoms
    if len(standard & here) < len(standard) / 2:
        return ""
    return ", ".join(sorted(standard - here - optional))
