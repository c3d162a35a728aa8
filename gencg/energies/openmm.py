"""OpenMM beside gencg: reading its systems, evaluating what else they hold, minimising."""

import copy
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.energies.base import Energy
from gencg.energies.openmm_checks import check_system
from gencg.energies.openmm_values import (
    UnreadableForceError,
    build_evaluator,
    create_context,
    evaluate,
    to_xml,
    type_name,
)
from gencg.energies.reader import read_system as read_system
from gencg.energies.workers import Workers

logger = logging.getLogger("gencg")

Array = NDArray[np.float64]


def energy_from_system(system: Any) -> Energy:
    """A `ForceField` if every force of the system has a batched form, else an `OpenMMEnergy`.

    Args:
        system: An `openmm.System` without constraints, virtual sites, cutoffs or periodicity.

    Raises:
        ValueError: If the system is constrained, periodic or otherwise no plain molecule.
    """
    try:
        return read_system(system)
    except UnreadableForceError as error:
        logger.warning(
            "OpenMM evaluates this system one configuration at a time, since there is no batched "
            "form of its force %s",
            error,
        )
        return OpenMMEnergy(system)


class OpenMMEnergy(Energy):
    """Any OpenMM system, evaluated by OpenMM in double precision, forces as the gradient.

    One configuration at a time: for a dipeptide some 50 µs each in vacuum and 1500 µs in implicit
    solvent, beside 1 µs of a `ForceField`.

    Args:
        system: An `openmm.System` without constraints, virtual sites, cutoffs or periodicity.
        platform: Name of the OpenMM platform. Reference is exact and, for small molecules, the
            fastest on a CPU.
        n_processes: How many processes share a batch; 1 evaluates in this one. With more, a
            script needs ``if __name__ == "__main__":`` around what it does.

    Raises:
        ValueError: If the system is constrained, periodic or otherwise no plain molecule, or
            the platform is not there.
    """

    def __init__(self, system: Any, *, platform: str = "Reference", n_processes: int = 1) -> None:
        check_system(system)
        if n_processes < 1:
            raise ValueError(f"`n_processes` must be positive, got {n_processes}")
        super().__init__((system.getNumParticles(), 3))
        self.context = create_context(system, platform)
        self.workers = None
        if n_processes > 1:
            self.workers = Workers("OpenMM", n_processes, build_evaluator, to_xml(system), platform)

    def energy(self, x: Tensor) -> Tensor:
        return self._evaluate(x, gradient=False)[0]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(x, gradient=True)

    def _evaluate(self, x: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
        positions = x.detach().double().cpu().numpy()
        if self.workers is None:
            values, gradients = evaluate(self.context, positions, gradient)
        else:
            values, gradients = self.workers(positions, gradient)
        return (
            torch.as_tensor(values).to(dtype=x.dtype, device=x.device),
            torch.as_tensor(gradients).to(dtype=x.dtype, device=x.device),
        )


def minimise(
    system: Any, positions: Array, *, tolerance: float = 0.01, max_iterations: int = 0
) -> Array:
    """The nearest minimum of the energy, by OpenMM's L-BFGS in double precision.

    Args:
        system: An `openmm.System`.
        positions: Where to start, shape ``(n_atoms, 3)``, in nm.
        tolerance: Root mean square force to reach, in kJ/mol/nm.
        max_iterations: Most steps to take; 0 for no bound.

    Returns:
        Positions in nm, shape ``(n_atoms, 3)``.

    Raises:
        ValueError: If the positions have the wrong shape, are not finite, or lead nowhere.
    """
    import openmm

    context = create_context(system, "Reference")
    context.setPositions(checked_positions(system, positions))
    openmm.LocalEnergyMinimizer.minimize(context, tolerance, max_iterations)
    state = context.getState(positions=True, energy=True)
    if not np.isfinite(state.getPotentialEnergy()._value):
        raise ValueError("`positions` could not be minimised; do atoms lie on top of each other?")
    return np.array(state.getPositions(asNumpy=True)._value)


def openmm_energy_terms(system: Any, positions: Array) -> dict[str, float]:
    """Energy of each term in kJ/mol as OpenMM has it, under the names of `ForceField.terms`.

    Args:
        system: An `openmm.System`; it is left as it is.
        positions: Shape ``(n_atoms, 3)``, in nm.

    Raises:
        ValueError: If the positions have the wrong shape or are not finite.
    """
    positions = checked_positions(system, positions)
    system = copy.deepcopy(system)
    groups: dict[str, int] = {}
    for force in system.getForces():
        if type_name(force) != "CMMotionRemover":
            name = TERM_NAMES.get(type_name(force), force.getName())
            force.setForceGroup(groups.setdefault(name, len(groups)))
    context = create_context(system, "Reference")
    context.setPositions(positions)
    return {
        name: float(context.getState(energy=True, groups={group}).getPotentialEnergy()._value)
        for name, group in groups.items()
    }


TERM_NAMES = {
    "HarmonicBondForce": "bonds",
    "HarmonicAngleForce": "angles",
    "PeriodicTorsionForce": "torsions",
    "RBTorsionForce": "rb_torsions",
    "CustomTorsionForce": "impropers",
    "CMAPTorsionForce": "cmap",
    "NonbondedForce": "nonbonded",
    "CustomNonbondedForce": "nonbonded",
    "CustomBondForce": "nonbonded",
    "GBSAOBCForce": "implicit_solvent",
    "CustomGBForce": "implicit_solvent",
}


def checked_positions(system: Any, positions: Array) -> Array:
    """Positions as an array, or `ValueError` for a wrong shape or a number that is none."""
    positions = np.asarray(positions, dtype=np.float64)
    expected = (system.getNumParticles(), 3)
    if positions.shape != expected:
        raise ValueError(f"`positions` must have shape {expected}, got {positions.shape}")
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise ValueError(f"`positions` must be finite, in nm; atom {atom} (from 0) is not")
    return positions
