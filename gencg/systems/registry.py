"""Systems by name, as the command line asks for them."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gencg.systems.base import System
from gencg.systems.molecules import (
    DATA,
    DEFAULT_FORCE_FIELD,
    DIPEPTIDE_FORCE_FIELD,
    PEPTIDE_FORCE_FIELD,
    alanine_dipeptide,
    alanine_hexapeptide,
    alanine_tetrapeptide,
    from_pdb,
)
from gencg.systems.structure import is_structure_path
from gencg.systems.targets import DEFAULT_VARIANT, is_mmff_target, load_mmff_target
from gencg.systems.toys import (
    butane,
    curved_wells,
    double_well,
    gaussian_mixture,
    mueller_brown,
)

SYSTEMS: dict[str, Callable[..., System]] = {
    "double-well": double_well,
    "mueller-brown": mueller_brown,
    "curved-wells": curved_wells,
    "gaussian-mixture": gaussian_mixture,
    "butane": butane,
    "alanine-dipeptide": alanine_dipeptide,
    "alanine-tetrapeptide": alanine_tetrapeptide,
    "alanine-hexapeptide": alanine_hexapeptide,
}
"""Ready-made systems by name; the first line of each docstring describes it."""

FORCE_FIELDS = {
    "alanine-dipeptide": DIPEPTIDE_FORCE_FIELD,
    "alanine-tetrapeptide": PEPTIDE_FORCE_FIELD,
    "alanine-hexapeptide": PEPTIDE_FORCE_FIELD,
}
"""Force field of each ready-made molecule, that of its literature."""

STRUCTURES = {name: DATA / f"{name.replace('-', '_')}.pdb" for name in FORCE_FIELDS}
"""Structure file of each ready-made molecule."""

TOYS = ("double-well", "mueller-brown", "curved-wells", "gaussian-mixture", "butane")


def describe(name: str) -> str:
    """One line about a ready-made system."""
    return (SYSTEMS[name].__doc__ or "").splitlines()[0]


def default_force_field(target: str) -> tuple[str, ...]:
    """Force-field files that a target is given where none are named; none for a toy."""
    if target in TOYS:
        return ()
    if is_mmff_target(target):
        return DEFAULT_VARIANT
    return FORCE_FIELDS.get(target, DEFAULT_FORCE_FIELD)


def load(
    target: str,
    *,
    forcefield: Sequence[str] | None = None,
    temperature: float | None = None,
    structure: str | Path | None = None,
) -> System:
    """Build the system that a name or a path means.

    Args:
        target: A name of `SYSTEMS`, ``smiles:...``, or the path of a PDB, mmCIF, SDF or MOL file.
        forcefield: OpenMM force-field files, or a variant of MMFF for a SMILES, SDF or MOL file;
            None or none takes the default.
        temperature: Temperature in K; None takes the default.
        structure: File to read in the place of a `target` that is a path, such as a copy of it;
            the name stays.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the name is unknown, or a force field is given for a toy.
    """
    options: dict[str, Any] = {}
    if forcefield:
        options["forcefield"] = tuple(forcefield)
    if temperature is not None:
        options["temperature"] = temperature
    if target in TOYS and forcefield:
        raise ValueError(f"`forcefield` does not apply to the toy {target!r}; leave it out")
    if target in SYSTEMS:
        return SYSTEMS[target](**options)
    if is_mmff_target(target):
        return load_mmff_target(target, structure=structure, **options)
    if structure is not None or is_structure_path(target):
        return from_pdb(structure or target, name=Path(target).stem, **options)
    near = difflib.get_close_matches(target, SYSTEMS, n=1)
    hint = f"did you mean {near[0]}? known" if near else "known"
    raise ValueError(
        f"`target` {target!r} is neither a ready-made system nor a .pdb or .cif file; "
        f"{hint} are {', '.join(SYSTEMS)}"
    )
