"""Langevin dynamics of many replicas side by side, in place."""

import math
from typing import Any

import torch
from torch import Tensor

from gencg.energies.base import Energy
from gencg.units import BOLTZMANN_CONSTANT


class Langevin:
    r"""Independent replicas of :math:`m \ddot x = -\nabla U - \gamma m \dot x + \text{noise}`.

    A step is kick, half a drift, friction and noise, half a drift, with one gradient:

    .. math::
        v &\leftarrow v - \tfrac{h}{m} \nabla U(x) \\
        x &\leftarrow x + \tfrac{h}{2} v \\
        v &\leftarrow e^{-\gamma h} v + \sqrt{(1 - e^{-2 \gamma h})\, k_B T / m}\; \eta \\
        x &\leftarrow x + \tfrac{h}{2} v

    Positions are those of BAOAB, whose velocities are half a kick further: for a harmonic well the
    positions have the exact variance at every h below 2 over its frequency. OpenMM calls it
    LangevinMiddle.

    Args:
        energy: Potential energy in kJ/mol, of many configurations at once.
        positions: Start, ``(n_replicas, n_atoms, 3)`` in nm; kept in its dtype.
        masses: In amu, ``(n_atoms,)``.
        temperature: In K.
        time_step: In ps.
        friction: In 1/ps.
        seed: Of velocities and noise.

    Raises:
        ValueError: If shapes differ or a number is not positive.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler, Matthews, 2013), https://doi.org/10.1093/amrx/abs010
        | Unified efficient thermostat scheme (Zhang et al., 2019),
          https://doi.org/10.1021/acs.jpca.9b02771
    """

    def __init__(
        self,
        energy: Energy,
        positions: Tensor,
        masses: Tensor,
        *,
        temperature: float,
        time_step: float = 1e-3,
        friction: float = 1.0,
        seed: int = 0,
    ) -> None:
        if positions.ndim != 3 or tuple(positions.shape[1:]) != (len(masses), 3):
            raise ValueError(
                f"`positions` must have shape (n_replicas, {len(masses)}, 3), "
                f"got {tuple(positions.shape)}"
            )
        for name, value in (
            ("temperature", temperature), ("time_step", time_step), ("friction", friction),
        ):  # fmt: skip
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        self.energy, self.half = energy, 0.5 * time_step
        self.generator = torch.Generator().manual_seed(seed)
        self.x = positions.detach().clone().contiguous()
        mass = masses.to(self.x)[:, None].expand(-1, 3).contiguous()
        thermal = (BOLTZMANN_CONSTANT * temperature / mass).sqrt()
        self.keep = math.exp(-friction * time_step)
        # A constant in the place of -h / m and of the noise's width: one operation each
        self.kick = -time_step / mass
        self.spread = math.sqrt(1 - self.keep**2) * thermal
        self.noise = torch.empty_like(self.x)
        self.v = thermal * self.noise.normal_(generator=self.generator)
        self.n_steps = 0

    def run(self, n_steps: int) -> None:
        """Go so many steps on."""
        x, v, noise, energy = self.x, self.v, self.noise, self.energy
        for _ in range(n_steps):
            v.addcmul_(energy.energy_and_gradient(x)[1], self.kick)
            x.add_(v, alpha=self.half)
            v.mul_(self.keep)
            v.addcmul_(noise.normal_(generator=self.generator), self.spread)
            x.add_(v, alpha=self.half)
        energy.n_energy_calls += n_steps * len(x)
        energy.n_gradient_calls += n_steps * len(x)
        self.n_steps += n_steps

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        generator = self.generator.get_state()
        return {"x": self.x, "v": self.v, "generator": generator, "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.x.copy_(state["x"])
        self.v.copy_(state["v"])
        self.generator.set_state(state["generator"])
        self.n_steps = state["n_steps"]
