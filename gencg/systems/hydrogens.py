"""Missing hydrogens, by OpenMM's rules for amino acids and nucleotides."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def with_hydrogens(
    topology: Any,
    positions: Array,
    *,
    ph: float = 7.0,
    variants: Sequence[str | None] | None = None,
) -> tuple[Any, Array]:
    """Add the hydrogens that are missing (OpenMM's ``Modeller.addHydrogens``).

    The same input gives the same positions: OpenMM draws where it begins to look for them, here
    always from the same seed.

    Args:
        topology: OpenMM topology with bonds.
        positions: Shape ``(n_atoms, 3)``, in nm.
        ph: Chooses the state of protonation of ASP, GLU, HIS, LYS and CYS.
        variants: OpenMM's name of the state of each residue instead; None lets `ph` choose.

    Returns:
        The new topology, and positions ``(n_atoms, 3)`` in nm.

    Raises:
        ValueError: If `ph` is not a finite number.
    """
    import openmm
    from openmm import app, unit

    if not np.isfinite(ph):
        raise ValueError(f"`ph` must be finite, got {ph}")
    modeller = app.Modeller(topology, positions * unit.nanometer)
    state = random.getstate()
    random.seed(0)
    try:
        modeller.addHydrogens(
            pH=ph,
            variants=None if variants is None else list(variants),
            platform=openmm.Platform.getPlatformByName("Reference"),
        )
    finally:
        random.setstate(state)
    found = modeller.positions.value_in_unit(unit.nanometer)
    return modeller.topology, np.array(found, dtype=np.float64)


def hydrogens_in_words(before: Any, after: Any) -> str:
    """How many hydrogens were added between two topologies, and to which residues."""
    pairs = zip(before.residues(), after.residues(), strict=True)
    added = {
        f"{new.name} {new.id}": len(list(new.atoms())) - len(list(old.atoms()))
        for old, new in pairs
    }
    added = {residue: n for residue, n in added.items() if n}
    if not added:
        return "no hydrogens were missing"
    shown = ", ".join(f"{n} to {residue}" for residue, n in added.items())
    return f"added {sum(added.values())} hydrogens: {shown}"
