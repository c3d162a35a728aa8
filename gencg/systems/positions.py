"""Coordinate files: the positions that go with a topology of another program."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.systems.files import check_file, check_order, one_line
from gencg.systems.structure import CIF_SUFFIXES, PDB_SUFFIXES, read_structure

Array = NDArray[np.float64]

AMBER_SUFFIXES = (".inpcrd", ".rst7", ".rst", ".restrt", ".crd", ".ncrst")
GRO_SUFFIXES = (".gro",)
STRUCTURE_SUFFIXES = PDB_SUFFIXES + CIF_SUFFIXES


def coordinates_beside(topology: str | Path, suffixes: Sequence[str]) -> Path:
    """The coordinate file of the same stem in the same folder.

    Args:
        topology: The topology file.
        suffixes: What to look for, the best first.

    Raises:
        FileNotFoundError: If there is none.
    """
    candidates = [Path(topology).with_suffix(suffix) for suffix in suffixes]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no coordinates beside {topology}: none of {', '.join(p.name for p in candidates)} is "
        "there; give a file with coordinates (--coordinates)"
    )


def read_positions(path: str | Path, topology: Any, *, source: str | Path) -> Array:
    """Positions of the atoms of a topology.

    Args:
        path: Amber's inpcrd or rst7, GROMACS' gro, or a PDB or mmCIF file.
        topology: OpenMM ``Topology`` with the same atoms in the same order.
        source: File of the topology, for messages.

    Returns:
        Shape ``(n_atoms, 3)``, in nm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds other atoms or another order.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    known = (*AMBER_SUFFIXES, *GRO_SUFFIXES, *STRUCTURE_SUFFIXES)
    if suffix not in known:
        raise ValueError(f"`coordinates` must be one of {', '.join(known)} files, got {path}")
    names = [atom.name for atom in topology.atoms()]
    if suffix in STRUCTURE_SUFFIXES:
        theirs, positions = read_structure(path)
        check_order(path, [atom.name for atom in theirs.atoms()], other=source, expected=names)
        return positions
    check_file(path, kind="coordinate", suffixes="an .inpcrd, .rst7, .gro or .pdb")
    try:
        positions, found = _read_gro(path) if suffix in GRO_SUFFIXES else _read_amber(path)
    except Exception as error:  # OpenMM's parsers raise whatever they stumble over
        raise ValueError(
            f"{path} is not a coordinate file that OpenMM can read: {one_line(error)}"
        ) from error
    check_order(path, found or [""] * len(positions), other=source, expected=names)
    if not np.isfinite(positions).all():
        row = int(np.flatnonzero(~np.isfinite(positions).all(1))[0])
        raise ValueError(
            f"coordinates must be finite numbers, got {positions[row].tolist()} for atom {row + 1} "
            f"({names[row]}) in {path}; repair the file"
        )
    return positions


def _read_amber(path: Path) -> tuple[Array, list[str]]:
    from openmm import app

    positions = app.AmberInpcrdFile(str(path)).getPositions(asNumpy=True)
    return np.array(positions._value, dtype=np.float64), []


def _read_gro(path: Path) -> tuple[Array, list[str]]:
    """First frame of a GROMACS file, written with any number of decimals (OpenMM reads three)."""
    lines = path.read_text().splitlines()
    n_atoms = int(lines[1])
    rows = lines[2 : 2 + n_atoms]
    if len(rows) < n_atoms:
        raise ValueError(f"it should hold {n_atoms} atoms and ends after {len(rows)}")
    positions, names = [], []
    for row in rows:
        first = row.index(".", 20)
        width = row.index(".", first + 1) - first
        positions.append([float(row[20 + k * width : 20 + (k + 1) * width]) for k in range(3)])
        names.append(row[10:15].strip())
    return np.array(positions, dtype=np.float64), names
