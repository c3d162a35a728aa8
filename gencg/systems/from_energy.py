"""Molecules with any energy, such as a quantum-chemical one."""

import numpy as np

from gencg.coordinates.internal import InternalCoordinates
from gencg.energies.base import Energy
from gencg.energies.minimum import nearest_minimum
from gencg.molecule import Molecule
from gencg.systems.base import System
from gencg.units import check_temperature

MOST_CHANGED = 1.3
"""Factor by which a bond may become longer or shorter in minimising; more is another molecule."""


def from_energy(
    molecule: Molecule,
    energy: Energy,
    *,
    temperature: float = 300.0,
    stiff_bonds: list[tuple[int, int]] | None = None,
    soft_bonds: list[tuple[int, int]] | None = None,
    fold_rotors: bool = True,
    name: str = "molecule",
    description: str = "",
) -> System:
    """Build a system from a molecule and an energy of its atoms, in the same order.

    The structure is minimised first; the result is the reference, with the handedness and double
    bonds of the molecule.

    Args:
        molecule: Bonds and a structure to begin with.
        energy: Potential energy in kJ/mol, such as a `TbliteEnergy`.
        temperature: Default temperature in K.
        stiff_bonds: See `InternalCoordinates`.
        soft_bonds: See `InternalCoordinates`.
        fold_rotors: See `InternalCoordinates`.
        name: Name of the system.
        description: One line about it.

    Raises:
        ValueError: If energy and molecule have different numbers of atoms, the energy has no
            minimum near the structure or one with other bonds, or the temperature is not
            positive and finite.
    """
    check_temperature(temperature)
    if energy.event_shape != (molecule.n_atoms, 3):
        raise ValueError(
            f"`energy` takes configurations of shape {energy.event_shape}, `molecule` has "
            f"{molecule.n_atoms} atoms; build both from one molecule"
        )
    reference = molecule.with_positions(nearest_minimum(energy, molecule.positions))
    _check_bonds(molecule, reference)
    return System(
        name=name,
        energy=energy,
        coordinates=InternalCoordinates(
            reference, stiff_bonds=stiff_bonds, soft_bonds=soft_bonds, fold_rotors=fold_rotors
        ),
        temperature=temperature,
        molecule=reference,
        description=description or f"{name}, {energy!r}",
    )


def _check_bonds(given: Molecule, found: Molecule) -> None:
    i, j = given.bonds.T
    lengths = [np.linalg.norm(m.positions[i] - m.positions[j], axis=1) for m in (given, found)]
    ratio = lengths[1] / lengths[0]
    worst = int(np.argmax(np.abs(np.log(ratio))))
    if not 1 / MOST_CHANGED < ratio[worst] < MOST_CHANGED:
        names = f"{given.names[i[worst]]} - {given.names[j[worst]]}"
        raise ValueError(
            f"bond {names} goes from {lengths[0][worst]:.3f} to {lengths[1][worst]:.3f} nm in the "
            "minimum: for this energy the molecule is another one; give that"
        )
