"""Molecules from Amber: a prmtop file and its coordinates."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from gencg.systems.base import System
from gencg.systems.files import check_n_atoms, check_no_solvent, one_line, read_text
from gencg.systems.implicit import solvent_name
from gencg.systems.molecules import SystemOptions, build
from gencg.systems.parametrised import Parametrised
from gencg.systems.positions import (
    AMBER_SUFFIXES,
    STRUCTURE_SUFFIXES,
    coordinates_beside,
    read_positions,
)

logger = logging.getLogger("gencg")

PRMTOP_SUFFIXES = (".prmtop", ".parm7")
BESIDE = (*AMBER_SUFFIXES, *STRUCTURE_SUFFIXES)


def from_prmtop(
    prmtop: str | Path,
    coordinates: str | Path | None = None,
    *,
    implicit_solvent: str | None = None,
    **options: Unpack[SystemOptions],
) -> System:
    """Build a system from an Amber topology (prmtop, parm7) and coordinates (inpcrd, rst7).

    OpenMM's `AmberPrmtopFile` reads the parameters, without constraints and cutoff; a box and
    velocities are left out. The structure is minimised as by `from_pdb`.

    Args:
        prmtop: Amber topology of one molecule, without water and ions.
        coordinates: Amber coordinates, or a PDB or mmCIF file with the same atoms in the same
            order; by default the file of the same stem beside `prmtop`.
        implicit_solvent: "HCT", "OBC1", "OBC2", "GBn" or "GBn2" (igb = 1, 2, 5, 7, 8), with the
            radii of the topology and OpenMM's surface term (ACE); none is vacuum.
        **options: See `SystemOptions`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is of another kind or of another molecule, water or ions are there,
            or the solvent is unknown; and as of `from_system`.
    """
    parts = read_prmtop(prmtop, coordinates, implicit_solvent=implicit_solvent)
    return build(parts, Path(prmtop).stem, **options)


def read_prmtop(
    prmtop: str | Path,
    coordinates: str | Path | None = None,
    *,
    implicit_solvent: str | None = None,
) -> Parametrised:
    """What OpenMM makes of an Amber topology; arguments and errors as of `from_prmtop`."""
    from openmm import app

    path = Path(prmtop)
    solvent = None if implicit_solvent is None else solvent_name(implicit_solvent)
    text = read_text(path, kind="topology", suffixes="a .prmtop or .parm7")
    if not is_prmtop(text):
        raise ValueError(
            f"{path} is not an Amber topology: it does not begin with %VERSION; give a .prmtop or "
            ".parm7 file, a GROMACS topology as .top"
        )
    check_n_atoms(path, _n_atoms(text))
    with _warnings_logged(path):
        loaded = _read(path, lambda: app.AmberPrmtopFile(str(path)))
        check_no_solvent(path, loaded.topology)
        system = _read(path, lambda: loaded.createSystem(
            nonbondedMethod=app.NoCutoff,
            constraints=None,
            rigidWater=False,
            implicitSolvent=None if solvent is None else getattr(app, solvent),
        ))  # fmt: skip
    positions = read_positions(
        coordinates or coordinates_beside(path, BESIDE), loaded.topology, source=path
    )
    words = "Amber topology" + (f" + {solvent}" if solvent else "")
    return Parametrised(system, loaded.topology, positions, words)


def is_prmtop(text: str) -> bool:
    """Whether a text is an Amber topology: GROMACS' have the same suffix, .top."""
    return text.lstrip().startswith(("%VERSION", "%FLAG", "%COMMENT"))


def _n_atoms(text: str) -> int:
    """Number of atoms from the head of the file, so that a box of water is refused at once."""
    match = re.search(r"%FLAG POINTERS\s*\n(?:%COMMENT.*\n)*%FORMAT.*\n\s*(\d+)", text)
    return int(match[1]) if match else 0


def _read(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # OpenMM's parser raises whatever it stumbles over
        raise ValueError(
            f"{path} is not an Amber topology that OpenMM can use: {one_line(error)}"
        ) from error


@contextmanager
def _warnings_logged(path: Path) -> Iterator[None]:
    """OpenMM's warnings as lines of the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in sorted({one_line(warning.message) for warning in caught}):
        logger.warning("%s: %s", path, message)
