"""OpenMM systems from files: XML of a ``System``, with a structure file beside it."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from gencg.systems.files import check_order, one_line, read_text
from gencg.systems.parametrised import Parametrised
from gencg.systems.positions import STRUCTURE_SUFFIXES, coordinates_beside
from gencg.systems.structure import read_structure

XML_SUFFIXES = (".xml",)


def read_serialized(system: str | Path, coordinates: str | Path | None = None) -> Parametrised:
    """A serialized ``System`` with its structure; errors as of `gencg.systems.from_system`.

    Args:
        system: XML file.
        coordinates: PDB or mmCIF file; by default that of the same stem beside `system`.
    """
    found = read_system_xml(system)
    structure = coordinates or coordinates_beside(system, STRUCTURE_SUFFIXES)
    topology, positions = read_structure(structure)
    _check_masses(found, topology, system, structure)
    return Parametrised(found, topology, positions, Path(system).name)


def read_objects(system: Any, topology: Any, positions: Any) -> tuple[Any, Any, Any]:
    """OpenMM's system, topology and positions, each read where it is the path of a file.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is of another kind, there are no positions, or system and topology
            do not have the same atoms in the same order.
    """
    names = [str(x) if isinstance(x, str | Path) else "" for x in (system, topology)]
    if names[0]:
        system = read_system_xml(names[0])
    if names[1]:
        topology, found = read_structure(names[1])
        positions = found if positions is None else positions
    if positions is None:
        raise ValueError("`positions` must be given where `topology` is no file")
    _check_masses(system, topology, names[0] or "`system`", names[1] or "`topology`")
    return system, topology, positions


def read_system_xml(path: str | Path) -> Any:
    """OpenMM ``System`` from XML.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no XML, or XML of something else.
    """
    import openmm

    text = read_text(path, kind="system", suffixes="an .xml")
    tag = re.search(r"<([A-Za-z]\w*)", text)
    if tag and tag[1] == "ForceField":
        raise ValueError(
            f"{path} is a force field, not a system; give a structure file, and it as forcefield "
            "(--forcefield)"
        )
    try:
        system = openmm.XmlSerializer.deserialize(text)
    except Exception as error:  # the XML parser and OpenMM's own checks
        raise ValueError(
            f"{path} is not a system that OpenMM can read: {one_line(error)}"
        ) from error
    if not isinstance(system, openmm.System):
        raise ValueError(
            f"{path} holds a serialized {type(system).__name__}; give the one of the System "
            "(openmm.XmlSerializer.serialize)"
        )
    return system


def _check_masses(system: Any, topology: Any, source: str | Path, other: str | Path) -> None:
    """Refuse a system whose atoms are those of the topology in another order."""
    from openmm import unit

    n_atoms = system.getNumParticles()
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(n_atoms)]
    theirs = [
        atom.element.mass.value_in_unit(unit.dalton) if atom.element else 0.0
        for atom in topology.atoms()
    ]
    rounded = [np.rint(column).astype(int).tolist() for column in (masses, theirs)]
    check_order(source, rounded[0], other=other, expected=rounded[1])
