"""What parallel tempering moves and counts: configurations of all ladders, and their slopes."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from experiments.peptides.torques import Torques
from gencg.coordinates.internal import InternalCoordinates
from gencg.systems import System

Slopes = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Replicas:
    """Configurations of all ladders, ``(n_rungs, n_ladders, ...)``, with what a step needs.

    Attributes:
        y: Coordinates; ``(..., dim)``.
        energy: U in kJ/mol.
        log_det: log|det dx/dy|.
        energy_slope: dU/dy, ``(..., dim)``.
        log_det_slope: dlog|det dx/dy|/dy, ``(..., dim)``.
    """

    y: Tensor
    energy: Tensor
    log_det: Tensor
    energy_slope: Tensor
    log_det_slope: Tensor

    def each(self, change: Callable[..., Tensor], *others: "Replicas") -> "Replicas":
        """`change` of each tensor and those of the others."""
        every = (self, *others)
        return Replicas(*(change(*(getattr(r, f.name) for r in every)) for f in fields(self)))


@dataclass
class Counts:
    """What happened since the last clearing, by rung: shares of the ladders, summed over sweeps.

    Attributes:
        sweeps: Number of sweeps.
        accepted: Accepted trajectories, ``(n_rungs,)``.
        outside: Trajectories turned down because they left the domain, ``(n_rungs,)``.
        exchanged: Exchanges with the rung above, ``(n_rungs - 1,)``.
        tried: Sweeps in which these were tried, ``(n_rungs - 1,)``.
        round_trips: Ways of a walker up from the coldest rung and back, all ladders together.
    """

    sweeps: int
    accepted: Tensor
    outside: Tensor
    exchanged: Tensor
    tried: Tensor
    round_trips: int

    @classmethod
    def none(cls, n_rungs: int) -> "Counts":
        """Nothing yet."""
        a, b, c, d = (torch.zeros(n_rungs - k, dtype=torch.float64) for k in (0, 0, 1, 1))
        return cls(0, a, b, c, d, 0)

    @property
    def exchange_rates(self) -> Tensor:
        """Share of the exchanges tried that were accepted, ``(n_rungs - 1,)``."""
        return self.exchanged / self.tried.clamp(min=1)


def taken(values: Tensor, source: Tensor) -> Tensor:
    """Rows ``(n_rungs, n_ladders, ...)`` taken from the rungs in `source`, ladder by ladder."""
    return values[source, torch.arange(source.shape[1])]


def slopes_of(system: System) -> Slopes:
    """Function of ``y``, ``(n, dim)``: positions, energy, log_det, and the slopes of these two."""
    coordinates, energy = system.coordinates, system.energy
    if isinstance(coordinates, InternalCoordinates):
        torques = Torques(coordinates)

        def by_torques(y: Tensor) -> tuple[Tensor, ...]:
            x, log_det = coordinates.inverse(y)
            energy.n_energy_calls += len(y)
            energy.n_gradient_calls += len(y)
            value, gradient = energy.energy_and_gradient(x)
            return x, value, log_det, *torques(y, x, gradient)

        return by_torques

    def by_differentiation(y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            y = y.requires_grad_()
            x, log_det = coordinates.inverse(y)
            # The volume of a toy does not depend on y
            log_det, value = log_det + 0.0 * y.sum(-1), energy(x)
            (volume_slope,) = torch.autograd.grad(log_det.sum(), y, retain_graph=True)
            (energy_slope,) = torch.autograd.grad(value.sum(), y)
        return tuple(v.detach() for v in (x, value, log_det, energy_slope, volume_slope))

    return by_differentiation
