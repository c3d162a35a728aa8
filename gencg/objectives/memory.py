"""Soft coordinates of the generator's last samples, drawn again by their weight."""

from typing import Any

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.objectives.base import Evaluation


class SoftMemory:
    r"""The last samples' soft coordinates s with what their weight needs at any temperature.

    Sample i counts as drawn from :math:`m_i`, the generator at its time, with :math:`w_i =
    \tilde p_\beta(y_i) / m_i(y_i)`, cut at :math:`\sqrt n` times the mean :math:`\bar w`. What the
    generator had too little of is drawn again, with probability :math:`\pi_i \propto
    \max(0, w_i / \bar w - 1)`.

    Args:
        capacity: Samples kept; the oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Soft coordinates, energy, and log-weight at beta zero
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept[0])

    def add(self, fresh: Evaluation, soft_index: Tensor, beta: float) -> None:
        """Keep the finite ones of fresh samples drawn at inverse temperature `beta`."""
        kept = torch.isfinite(fresh.log_weights) & torch.isfinite(fresh.energy)
        energy = fresh.energy[kept]
        s, log_rest = fresh.y[kept][:, soft_index], fresh.log_weights[kept] + beta * energy
        if self._kept is not None:
            old_s, old_energy, old_rest = self._kept
            s, energy = torch.cat([old_s, s]), torch.cat([old_energy, energy])
            log_rest = torch.cat([old_rest, log_rest])
        n = self.capacity
        self._kept = s[-n:], energy[-n:], log_rest[-n:]

    def draw(self, n: int, beta: float) -> tuple[Tensor, float]:
        r"""Draw with replacement what there was too little of.

        Args:
            n: How many.
            beta: Inverse temperature in mol/kJ.

        Returns:
            Soft coordinates ``(n, n_soft)``, and the mean of :math:`\max(0, w_i / \bar w - 1)`;
            no coordinates and zero where all weights are equal.
        """
        assert self._kept is not None
        s, energy, log_rest = self._kept
        share = truncated(log_rest - beta * energy)
        missing = (share * len(share) - 1).clamp(min=0)
        mean = float(missing.mean())
        if not mean > 0:
            return s[:0], 0.0
        return s[torch.multinomial(missing, n, replacement=True)], mean

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        return {} if self._kept is None else dict(zip(_STATE, self._kept, strict=True))

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        if content:
            s, energy, log_rest = (content[name] for name in _STATE)
            self._kept = s, energy, log_rest


_STATE = ("s", "energy", "log_rest")
