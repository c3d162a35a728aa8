"""Soft coordinates of the generator's last samples, drawn again by their weight."""

from typing import Any

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.objectives.base import Evaluation


class SoftMemory:
    r"""The last samples' soft coordinates s with what their weight needs at any temperature.

    Sample i counts as drawn from :math:`m_i`, the generator at its time, with :math:`w_i =
    \tilde p_\beta(y_i) / m_i(y_i)`, cut at :math:`\sqrt n` times the mean :math:`\bar w`. The
    gradient of the forward KL by likelihoods, with the mean score, which is zero, taken off, is

    .. math:: -E_m\left[(w / \bar w - 1)\, \nabla_\theta \log q_\theta(s)\right]

    It has no noise where all weights are equal. What there is too little of and what there is too
    much of have the same mass c, and are drawn with probabilities in proportion to
    :math:`\max(0, w_i / \bar w - 1)` and :math:`\max(0, 1 - w_i / \bar w)`.

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

    def draw(self, n: int, beta: float) -> tuple[Tensor, Tensor, float]:
        """Draw with replacement what there was too little of, and too much.

        Args:
            n: How many of each.
            beta: Inverse temperature in mol/kJ.

        Returns:
            Soft coordinates ``(n, n_soft)`` of either kind, and the mass c of each; none and zero
            where all weights are equal.
        """
        assert self._kept is not None
        s, energy, log_rest = self._kept
        share = truncated(log_rest - beta * energy)
        excess = share * len(share) - 1
        mass = float(excess.clamp(min=0).mean())
        if not mass > 0:
            return s[:0], s[:0], 0.0
        little, much = (
            s[torch.multinomial(kind.clamp(min=0), n, replacement=True)]
            for kind in (excess, -excess)
        )
        return little, much, mass

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        return {} if self._kept is None else dict(zip(_STATE, self._kept, strict=True))

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        if content:
            s, energy, log_rest = (content[name] for name in _STATE)
            self._kept = s, energy, log_rest


_STATE = ("s", "energy", "log_rest")
