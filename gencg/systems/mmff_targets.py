"""Targets that mean a molecule with the Merck force field: SMILES, SDF and MOL files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gencg.energies.mmff import VARIANTS
from gencg.systems.base import System
from gencg.systems.kinds import Kind
from gencg.systems.sdf import SDF_SUFFIXES, from_sdf, read_blocks
from gencg.systems.smiles import from_smiles

PREFIX = "smiles:"
_NUMBERED = re.compile(r"(.*)#(\d+)")
DEFAULT_VARIANT = (VARIANTS[0],)
_CURES = {
    "implicit_solvent": "MMFF94 describes molecules in vacuum; for solvent give a .pdb file",
}


def _variant(forcefield: Sequence[str]) -> str:
    forcefield = tuple(forcefield)
    if len(forcefield) != 1 or forcefield[0] not in VARIANTS:
        raise ValueError(
            f"`forcefield` must be {' or '.join(VARIANTS)} for a SMILES, SDF or MOL file, got "
            f"{' '.join(forcefield)}; for OpenMM's force fields give a .pdb file"
        )
    return forcefield[0]


def _load_smiles(
    target: str, *, forcefield: Sequence[str] = DEFAULT_VARIANT, **options: Any
) -> System:
    return from_smiles(target.removeprefix(PREFIX), variant=_variant(forcefield), **options)


def _load_sdf(
    target: str, *, forcefield: Sequence[str] = DEFAULT_VARIANT, **options: Any
) -> System:
    path, index = _split(target)
    name = _sdf_name(target)
    return from_sdf(path, index=index, variant=_variant(forcefield), name=name, **options)


def _sdf_name(target: str) -> str:
    path, _, number = target.rpartition("#") if _NUMBERED.fullmatch(target) else (target, "", "")
    return f"{Path(path).stem}-{number}" if number else Path(path).stem


def _is_sdf(target: str) -> bool:
    return Path(_NUMBERED.sub(r"\1", target)).suffix.lower() in SDF_SUFFIXES


def _block(target: str, options: Mapping[str, Any]) -> bytes:
    """The one molecule of a file that a target means."""
    path, index = _split(target)
    blocks = read_blocks(path)
    return (blocks[min(index or 0, len(blocks) - 1)] + "$$$$\n").encode()


def _split(target: str) -> tuple[str, int | None]:
    """Path and number of FILE#NUMBER; no number in another target.

    The copy that a run keeps of one molecule has a number in its name, and is read whole.
    """
    found = _NUMBERED.fullmatch(target)
    if found is None or Path(target).is_file():
        return target, None
    return found[1], int(found[2])


MMFF_KINDS = (
    Kind(
        "the SMILES",
        lambda target: target.startswith(PREFIX),
        ("forcefield",),
        load=_load_smiles,
        name=lambda target: target.removeprefix(PREFIX),
        forcefield=DEFAULT_VARIANT,
        cures=_CURES | {"coordinates": "its conformer is embedded; give an .sdf file as target"},
    ),
    Kind(
        "the SDF or MOL file",
        _is_sdf,
        ("forcefield",),
        load=_load_sdf,
        name=_sdf_name,
        forcefield=DEFAULT_VARIANT,
        contents=_block,
        cures=_CURES | {"coordinates": "it holds them"},
    ),
)
"""Kinds of molecules that RDKit reads."""
