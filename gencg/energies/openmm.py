"""OpenMM as the source of force fields, as evaluator of the rest, and as minimiser."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg.energies.base import Energy
from gencg.energies.openmm_values import UnreadableForceError
from gencg.energies.reader import check_system
from gencg.energies.reader import read_system as read_system

logger = logging.getLogger("gencg")


def energy_from_system(system: Any) -> Energy:
    """A `ForceField` if every force of the system has a batched form, else an `OpenMMEnergy`."""
    try:
        return read_system(system)
    except UnreadableForceError as error:
        logger.warning("OpenMM evaluates this system, since %s has no batched form", error)
        return OpenMMEnergy(system)


class OpenMMEnergy(Energy):
    def __init__(self, system: Any, *, platform: str = "Reference") -> None:
        import openmm

        check_system(system)
        super().__init__((system.getNumParticles(), 3))
        self.context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(platform)
        )

    def energy(self, x: Tensor) -> Tensor:
        return self.energy_and_gradient(x)[0]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = [], []
        for positions in x.detach().double().cpu().numpy():
            self.context.setPositions(positions)
            state = self.context.getState(energy=True, forces=True)
            values.append(state.getPotentialEnergy()._value)
            gradients.append(-state.getForces(asNumpy=True)._value)
        return (
            torch.as_tensor(np.array(values)).to(x),
            torch.as_tensor(np.array(gradients).reshape(x.shape)).to(x),
        )
