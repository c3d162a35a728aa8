"""Missing hydrogens, by OpenMM's rules for amino acids and nucleotides."""

import copy
import random
from collections.abc import Collection, Sequence
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


def settle_hydrogens(
    system: Any, positions: Array, moving: Collection[int], *, max_iterations: int = 500
) -> Array:
    """Minimise the energy over some atoms while the others stay, without implicit solvent.

    Hydrogens as they are added only keep their bond length, and their distance from all others.

    Args:
        system: OpenMM ``System``; it is left as it is.
        positions: Shape ``(n_atoms, 3)``, in nm.
        moving: The atoms that move.
        max_iterations: Most steps to take.

    Returns:
        Shape ``(n_atoms, 3)``, in nm.
    """
    import openmm

    system = copy.deepcopy(system)
    for k in reversed(range(system.getNumForces())):
        if isinstance(system.getForce(k), openmm.GBSAOBCForce | openmm.CustomGBForce):
            system.removeForce(k)
    for i in set(range(system.getNumParticles())) - set(moving):
        system.setParticleMass(i, 0.0)
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, max_iterations)
    found = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
    still = np.setdiff1d(np.arange(len(found)), list(moving))
    found[still] = positions[still]
    return found


def added_atoms(before: Any, after: Any) -> list[int]:
    """Indices of the atoms of a topology that another, with the same residues, does not have."""
    return [
        atom.index
        for old, new in zip(before.residues(), after.residues(), strict=True)
        for atom in new.atoms()
        if atom.name not in {a.name for a in old.atoms()}
    ]


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
