"""Structure files: topology and positions of one molecule, or a line that says what is wrong."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.systems.files import (
    MAX_ATOMS,
    check_file,
    check_n_atoms,
    check_no_solvent,
    one_line,
    read_text,
)

logger = logging.getLogger("gencg")

PDB_SUFFIXES = (".pdb", ".ent")
CIF_SUFFIXES = (".cif", ".mmcif", ".pdbx")
LONGEST_LINK = 0.25
"""Bonds between residues of a whole chain are shorter than this in nm."""


def read_structure(path: str | Path) -> tuple[Any, NDArray[np.float64]]:
    """Read the first model of a PDB or mmCIF file.

    Of alternate locations the first is taken; both choices are logged as a warning.

    Args:
        path: A file of one molecule.

    Returns:
        OpenMM topology, and positions ``(n_atoms, 3)`` in nm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, too large or of another kind, holds a coordinate that is
            no number, or water or ions beside the molecule, or a chain has a gap.
    """
    path = Path(path)
    words = {"kind": "structure", "suffixes": "a .pdb or .cif"}
    if path.exists() and path.suffix.lower() not in PDB_SUFFIXES + CIF_SUFFIXES:
        raise ValueError(f"a structure must be a .pdb or .cif file, got {path}")
    text = read_text(check_file(path, **words), **words)
    is_pdb = path.suffix.lower() in PDB_SUFFIXES
    if is_pdb:
        _check_pdb_lines(path, text)
    else:
        _check_cif(path, text)
    structure = _parse(path, is_pdb)
    if structure.getNumFrames() > 1:
        logger.warning("%s holds %d models, the first is used", path, structure.getNumFrames())
    positions = np.array(structure.getPositions(asNumpy=True)._value, dtype=np.float64)
    if len(positions) == 0:
        raise ValueError(f"{path} holds no atoms; give a PDB or mmCIF file with all atoms")
    check_no_solvent(path, structure.topology)
    _check_gaps(path, structure.topology, positions)
    return structure.topology, positions


def _parse(path: Path, is_pdb: bool) -> Any:
    from openmm import app

    try:
        return app.PDBFile(str(path)) if is_pdb else app.PDBxFile(str(path))
    except Exception as error:  # OpenMM's parsers raise whatever they stumble over
        kind = "PDB" if is_pdb else "mmCIF"
        raise ValueError(
            f"{path} is not a {kind} file that OpenMM can read: {one_line(error)}"
        ) from error


def _check_pdb_lines(path: Path, text: str) -> None:
    """Refuse a PDB file without atoms or with a coordinate that is no number; note what is left."""
    atoms, n_first = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("ATOM", "HETATM")):
            atoms.append((number, line))
        if line.startswith("ENDMDL") and not n_first:
            n_first = len(atoms)
    if not atoms:
        raise ValueError(f"{path} is not a PDB file: it has no ATOM or HETATM lines")
    check_n_atoms(path, n_first or len(atoms))
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


def _check_cif(path: Path, text: str) -> None:
    """Refuse another file than mmCIF, or one of too many atoms; note what is left."""
    if "_atom_site." not in text:
        raise ValueError(f"{path} is not an mmCIF file: it has no _atom_site lines")
    check_n_atoms(path, _cif_atoms(text))
    tags, rows = _cif_rows(text)
    column = "_atom_site.label_alt_id"
    if column in tags:
        place = tags.index(column)
        words = (row.split() for row in rows)
        found = [each[place] for each in words if len(each) == len(tags)]
        if n_alternate := sum(each not in (".", "?", "A", "1") for each in found):
            logger.warning("%s holds %d alternate locations, the first is used", path, n_alternate)


def _cif_rows(text: str) -> tuple[list[str], list[str]]:
    """Names of the columns of the atoms of an mmCIF file, and their lines."""
    tags: list[str] = []
    rows: list[str] = []
    for line in text.splitlines():
        if line.startswith("_atom_site."):
            tags.append(line.split()[0])
        elif line.startswith(("ATOM", "HETATM")):
            rows.append(line)
    return tags, rows


def _cif_atoms(text: str) -> int:
    """Atoms in the first model of an mmCIF file, without reading it whole."""
    tags, rows = _cif_rows(text)
    column = "_atom_site.pdbx_PDB_model_num"
    if len(rows) <= MAX_ATOMS or column not in tags:
        return len(rows)
    # Counted from the end: words in quotes stand before
    place = tags.index(column) - len(tags)
    models = [(line.split() or [""])[place] for line in rows if len(line.split()) >= -place]
    return models.count(models[0]) if models else len(rows)


def _check_gaps(path: Path, topology: Any, positions: NDArray[np.float64]) -> None:
    """Refuse chains in which a reader has bonded residues across a gap."""
    for a, b in topology.bonds():
        if a.residue is b.residue:
            continue
        length = float(np.linalg.norm(positions[a.index] - positions[b.index]))
        if length > LONGEST_LINK:
            before, after = sorted((a, b), key=lambda atom: atom.index)
            raise ValueError(
                f"chain {a.residue.chain.id} of {path} has a gap: {_shown(before)} and "
                f"{_shown(after)} are {length:.2f} nm apart{_missing(before, after)}; build the "
                "missing residues (PDBFixer: findMissingResidues, addMissingAtoms)"
            )


def _shown(atom: Any) -> str:
    return f"{atom.name} of {atom.residue.name} {atom.residue.id}"


def _missing(before: Any, after: Any) -> str:
    """Numbers of the residues between two that should be neighbours."""
    first, last = before.residue.id, after.residue.id
    if not (first.lstrip("-").isdecimal() and last.lstrip("-").isdecimal()):
        return ""
    gap = [str(number) for number in range(int(first) + 1, int(last))]
    if not gap:
        return ""
    words = gap[0] if len(gap) == 1 else f"{gap[0]} to {gap[-1]}"
    return f", without residue{'s' * (len(gap) > 1)} {words}"


def _is_finite(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
