"""From an energy and a minimised molecule to a system: what is soft, what is stiff."""

from collections.abc import Iterable, Mapping
from typing import Any

from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.symmetry import turning_bonds
from gencg.energies.base import Energy
from gencg.energies.forcefield import ForceField
from gencg.molecule import Molecule
from gencg.systems.base import System
from gencg.units import check_temperature

Bond = tuple[int, int]

MAX_BARRIER = 40.0
"""Torsion barrier in kJ/mol above which a bond is stiff: 16 k_B T at 300 K; amides have 80."""


def check_settings(*, temperature: float, max_barrier: float) -> None:
    """Refuse settings of a molecule that are none, before any work.

    Raises:
        ValueError: If the temperature is not positive and finite, or the barrier not positive.
    """
    check_temperature(temperature)
    if not max_barrier > 0:
        raise ValueError(f"`max_barrier` must be positive, in kJ/mol, got {max_barrier}")


def assemble(
    energy: Energy,
    molecule: Molecule,
    *,
    temperature: float,
    soft_bonds: Iterable[Bond] | None,
    fold_rotors: bool,
    max_barrier: float,
    name: str,
    description: str,
    known: Mapping[str, Any] | None = None,
) -> System:
    """System of a molecule in internal coordinates, centred on its structure.

    Args:
        energy: Potential energy in kJ/mol.
        molecule: Its structure is a minimum of the energy.
        temperature: Default temperature in K.
        soft_bonds: Bonds (i, j) about which the molecule turns; None takes all rotatable ones
            with a torsion barrier up to `max_barrier`.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff.
        name: Name of the system.
        description: One line about it.
        known: Known answers.

    Raises:
        ValueError: If the molecule has no internal coordinates, or a soft bond cannot turn.
    """
    stiff_bonds = (
        None if soft_bonds is not None else stiff_by_barrier(energy, molecule, max_barrier)
    )
    return System(
        name=name,
        energy=energy,
        coordinates=InternalCoordinates(
            molecule,
            stiff_bonds=stiff_bonds,
            soft_bonds=soft_bonds,
            fold_rotors=fold_rotors,
        ),
        temperature=temperature,
        molecule=molecule,
        description=description,
        known=known or {},
    )


def stiff_by_barrier(energy: Energy, molecule: Molecule, max_barrier: float) -> list[Bond] | None:
    """Bonds of `turning_bonds` with a torsion barrier above `max_barrier` in kJ/mol.

    None if the energy does not know its torsion terms: the geometry then has to tell.
    """
    if not isinstance(energy, ForceField):
        return None
    bonds = turning_bonds(molecule)
    barriers = energy.torsion_barriers(molecule.positions, bonds)
    return [bond for bond, barrier in zip(bonds, barriers, strict=True) if barrier > max_barrier]
