"""Molecules with any energy, such as a quantum-chemical one."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from gencg.coordinates.internal import InternalCoordinates
from gencg.energies.base import Energy
from gencg.molecule import Molecule
from gencg.systems.base import System
from gencg.units import check_temperature

Array = NDArray[np.float64]

STEP = 0.002
"""Unit of length in nm in which a bond has a force constant of about one kJ/mol."""
HUGE = 1e10
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


def nearest_minimum(
    energy: Energy, positions: Array, *, tolerance: float = 1.0, max_iterations: int = 2000
) -> Array:
    """The nearest minimum of an energy, by L-BFGS.

    Args:
        energy: The energy; its calls are counted.
        positions: Where to start, shape ``(n_atoms, 3)``, in nm.
        tolerance: Root mean square force to reach, in kJ/mol/nm.
        max_iterations: Most steps to take.

    Raises:
        ValueError: If the energy is not finite there, or no minimum is found.
    """
    shape = positions.shape

    def value_and_slope(flat: Array) -> tuple[float, Array]:
        x = torch.as_tensor(STEP * flat.reshape(1, *shape)).requires_grad_()
        value = energy(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        # A step too long ends where there is no energy: as high as can be, to turn back
        value = value.detach().nan_to_num(nan=HUGE, posinf=HUGE)
        return float(value), STEP * slope.nan_to_num(0.0).numpy().ravel()

    start = float(energy(torch.as_tensor(positions)))
    if not math.isfinite(start):
        raise ValueError(f"`energy` of the given structure must be finite, got {start}")
    found = minimize(
        value_and_slope,
        positions.ravel() / STEP,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "gtol": 0.3 * STEP * tolerance, "ftol": 0.0},
    )
    slope = float(np.sqrt(np.mean(np.square(found.jac / STEP))))
    if not slope <= tolerance:
        raise ValueError(
            f"`energy` has no minimum near the given structure: after {found.nit} steps the root "
            f"mean square force is {slope:.3g} kJ/mol/nm; give a better structure"
        )
    minimum: Array = STEP * found.x.reshape(shape)
    return minimum


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
