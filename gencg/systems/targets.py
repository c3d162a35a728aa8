"""Targets of the command line that mean a molecule with the Merck force field."""

from collections.abc import Sequence
from pathlib import Path

from gencg.energies.mmff import VARIANTS
from gencg.systems.base import System
from gencg.systems.sdf import SDF_SUFFIXES, from_sdf
from gencg.systems.smiles import from_smiles

PREFIX = "smiles:"
DEFAULT_VARIANT = (VARIANTS[0],)


def is_mmff_target(target: str) -> bool:
    """Whether a target is ``smiles:...``, or the path of an SDF or MOL file, FILE#NUMBER too."""
    return target.startswith(PREFIX) or Path(_split(target)[0]).suffix.lower() in SDF_SUFFIXES


def load_mmff_target(
    target: str,
    *,
    forcefield: Sequence[str] = DEFAULT_VARIANT,
    temperature: float = 300.0,
    structure: str | Path | None = None,
) -> System:
    """Build the system that such a target means; arguments as in `gencg.systems.load`.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the force field is no variant of MMFF, or as in `from_smiles` and
            `from_sdf`.
    """
    forcefield = tuple(forcefield)
    if len(forcefield) != 1 or forcefield[0] not in VARIANTS:
        raise ValueError(
            f"`forcefield` must be {' or '.join(VARIANTS)} for a SMILES, SDF or MOL file, got "
            f"{' '.join(forcefield)}; for OpenMM's force fields give a .pdb file"
        )
    variant = forcefield[0]
    if target.startswith(PREFIX):
        return from_smiles(target.removeprefix(PREFIX), variant=variant, temperature=temperature)
    path, index = _split(target)
    name = Path(path).stem if index is None else f"{Path(path).stem}-{index}"
    return from_sdf(
        structure or path, index=index, variant=variant, temperature=temperature, name=name
    )


def _split(target: str) -> tuple[str, int | None]:
    """Path and number of a molecule in FILE#NUMBER; no number in another target."""
    path, mark, number = target.rpartition("#")
    return (path, int(number)) if mark and number.isdigit() else (target, None)
