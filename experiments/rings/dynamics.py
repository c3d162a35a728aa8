"""Replica-exchange Langevin dynamics of one molecule, for evaluation only."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from gencg.energies.base import Energy
from gencg.units import BOLTZMANN_CONSTANT


class ReplicaExchange:
    r"""Many independent ladders of Langevin dynamics, neighbours of which swap configurations.

    Steps of BAOAB (half a kick, half a drift, friction and noise, half a drift, half a kick), one
    gradient each. Configurations i and j of neighbouring temperatures trade places with
    probability :math:`\min\{1, e^{(\beta_i - \beta_j)(U_i - U_j)}\}`.

    Args:
        energy: Potential energy in kJ/mol, of many configurations at once.
        positions: Start of all replicas, ``(n_atoms, 3)`` in nm.
        masses: In amu, ``(n_atoms,)``.
        temperatures: Of the ladder in K, rising; the first is the one that is read.
        n_ladders: Number of independent ladders.
        time_step: In ps.
        friction: In 1/ps.
        exchange_every: Steps between exchanges.
        seed: Of everything random.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler, Matthews, 2013), https://doi.org/10.1093/amrx/abs010
        | Replica-exchange molecular dynamics method for protein folding (Sugita, Okamoto, 1999),
          https://doi.org/10.1016/S0009-2614(99)01123-9
    """

    def __init__(
        self,
        energy: Energy,
        positions: Tensor,
        masses: Tensor,
        *,
        temperatures: list[float],
        n_ladders: int,
        time_step: float = 5e-4,
        friction: float = 2.0,
        exchange_every: int = 100,
        seed: int = 0,
    ) -> None:
        self.energy, self.n_ladders, self.n_rungs = energy, n_ladders, len(temperatures)
        self.time_step, self.exchange_every = time_step, exchange_every
        self.generator = torch.Generator().manual_seed(seed)
        self.kt = BOLTZMANN_CONSTANT * torch.tensor(temperatures)
        n = n_ladders * self.n_rungs
        # Replicas of a ladder lie next to each other
        self.x = positions.float().repeat(n, 1, 1)
        self.mass = masses.float()[None, :, None]
        self.spread = (self.kt.repeat(n_ladders)[:, None, None] / self.mass).sqrt()
        self.v = self.spread * self._noise()
        self.keep = math.exp(-friction * time_step)
        self.force, self.u = self._ask()
        self.n_calls, self.n_tried, self.n_swapped = n, 0, 0

    def run(self, seconds: float) -> Iterator[Tensor]:
        """Configurations of the lowest rung, ``(n_ladders, n_atoms, 3)``, after every exchange."""
        end = time.monotonic() + seconds
        parity = 0
        while time.monotonic() < end:
            for _ in range(self.exchange_every):
                self._step()
            self._exchange(parity)
            parity = 1 - parity
            yield self.x[:: self.n_rungs].clone()

    def _step(self) -> None:
        dt = self.time_step
        self.v += 0.5 * dt * self.force / self.mass
        self.x += 0.5 * dt * self.v
        noise = math.sqrt(1 - self.keep**2) * self.spread * self._noise()
        self.v = self.keep * self.v + noise
        self.x += 0.5 * dt * self.v
        self.force, self.u = self._ask()
        self.v += 0.5 * dt * self.force / self.mass
        self.n_calls += len(self.x)

    def _exchange(self, parity: int) -> None:
        rungs = torch.arange(parity, self.n_rungs - 1, 2)
        if not len(rungs):
            return
        first = (torch.arange(self.n_ladders)[:, None] * self.n_rungs + rungs).flatten()
        beta = 1 / self.kt.repeat(self.n_ladders)
        gain = (beta[first] - beta[first + 1]) * (self.u[first] - self.u[first + 1])
        uniform = torch.rand(len(first), generator=self.generator)
        swapped = first[gain > uniform.log()]
        self.n_tried, self.n_swapped = self.n_tried + len(first), self.n_swapped + len(swapped)
        ratio = (beta[swapped] / beta[swapped + 1]).sqrt()[:, None, None]
        for value in (self.x, self.force, self.u):
            value[swapped], value[swapped + 1] = value[swapped + 1], value[swapped].clone()
        low, high = self.v[swapped].clone(), self.v[swapped + 1].clone()
        self.v[swapped], self.v[swapped + 1] = high / ratio, low * ratio

    def _ask(self) -> tuple[Tensor, Tensor]:
        x = self.x.detach().requires_grad_()
        u = self.energy(x)
        (slope,) = torch.autograd.grad(u.sum(), x)
        return -slope, u.detach()

    def _noise(self) -> Tensor:
        return torch.randn(self.x.shape, generator=self.generator)
