"""Structure files: topology and positions of one molecule, or a line that says what is wrong."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("gencg")

PDB_SUFFIXES = (".pdb", ".ent")
CIF_SUFFIXES = (".cif", ".mmcif", ".pdbx")
WATER = {"HOH", "WAT", "H2O", "TIP", "TIP3", "SOL"}
IONS = {"NA", "NA+", "SOD", "K", "K+", "POT", "CL", "CL-", "CLA", "MG", "CA", "ZN"}
"""Residue names of what a structure file often holds beside the molecule."""


def is_structure_path(target: str) -> bool:
    """Whether a name means a file: by its suffix, or because there is one."""
    return Path(target).suffix.lower() in PDB_SUFFIXES + CIF_SUFFIXES or Path(target).is_file()


def read_structure(path: str | Path) -> tuple[Any, NDArray[np.float64]]:
    """Read the first model of a PDB or mmCIF file.

    Of alternate locations the first is taken; both choices are logged as a warning.

    Args:
        path: A file with all atoms, hydrogens included.

    Returns:
        OpenMM topology, and positions ``(n_atoms, 3)`` in nm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, of another kind, holds a coordinate that is no number,
            or water or ions beside the molecule.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no structure file at {path}; give the path of a .pdb or .cif")
    if path.suffix.lower() not in PDB_SUFFIXES + CIF_SUFFIXES or not path.is_file():
        raise ValueError(f"a structure must be a .pdb or .cif file, got {path}")
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file; give a .pdb or .cif file") from error
    if not text.strip():
        raise ValueError(f"{path} is empty; give a PDB or mmCIF file with all atoms")
    is_pdb = path.suffix.lower() in PDB_SUFFIXES
    if is_pdb:
        _check_pdb_lines(path, text)
    structure = _parse(path, is_pdb)
    if structure.getNumFrames() > 1:
        logger.warning("%s holds %d models, the first is used", path, structure.getNumFrames())
    positions = np.array(structure.getPositions(asNumpy=True)._value, dtype=np.float64)
    if len(positions) == 0:
        raise ValueError(f"{path} holds no atoms; give a PDB or mmCIF file with all atoms")
    _check_no_solvent(path, structure.topology)
    return structure.topology, positions


def _check_no_solvent(path: Path, topology: Any) -> None:
    names = [residue.name.upper() for residue in topology.residues()]
    n_solvent = sum(name in WATER | IONS for name in names)
    if n_solvent and len(names) > 1:
        raise ValueError(
            f"{path} holds {n_solvent} water molecules or ions; gencg describes one molecule in "
            "vacuum or implicit solvent: remove them (Modeller.deleteWater)"
        )


def _parse(path: Path, is_pdb: bool) -> Any:
    from openmm import app

    try:
        return app.PDBFile(str(path)) if is_pdb else app.PDBxFile(str(path))
    except Exception as error:  # OpenMM's parsers raise whatever they stumble over
        kind = "PDB" if is_pdb else "mmCIF"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a {kind} file that OpenMM can read: {reason}") from error


def _check_pdb_lines(path: Path, text: str) -> None:
    """Refuse a PDB file without atoms or with a coordinate that is no number; note what is left."""
    atoms = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.startswith(("ATOM", "HETATM"))
    ]
    if not atoms:
        raise ValueError(f"{path} is not a PDB file: it has no ATOM or HETATM lines")
    for number, line in atoms:
        for column in (30, 38, 46):
            word = line[column : column + 8]
            if not _is_finite(word):
                atom = f"{line[17:20].strip()}{line[22:26].strip()}-{line[12:16].strip()}"
                raise ValueError(
                    f"coordinates must be finite numbers in columns 31 to 54, got {word.strip()!r} "
                    f"for atom {atom} in line {number} of {path}; repair the file"
                )
    n_alternate = sum(line[16] not in " A1" for _, line in atoms)
    if n_alternate:
        logger.warning("%s holds %d alternate locations, the first is used", path, n_alternate)


def _is_finite(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
