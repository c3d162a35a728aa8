"""Soft coordinates of the generator's last samples, and what the forward KL needs of them."""

from typing import Any

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.objectives.base import Evaluation


class SoftMemory:
    r"""The last samples' soft coordinates s, with which the forward KL of the soft block is known.

    Sample i counts as drawn from :math:`m_i`, the generator at its time, with :math:`w_i =
    \tilde p_\beta(y_i) / m_i(y_i)`, cut at :math:`\sqrt n` times the mean :math:`\bar w`. The
    gradient of the forward KL by likelihoods, with the mean score, which is zero, taken off, is

    .. math:: -E_m\left[\left(\frac{w}{\bar w} - \frac{q_\theta(s)}{m(s)}\right)
              \nabla_\theta \log q_\theta(s)\right]

    It has no noise where generator, target and memory are one.

    Args:
        capacity: Samples kept; the oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Soft coordinates, their log-density, energy, and log-weight at beta zero
        self._kept: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept[0])

    def add(self, s: Tensor, log_m: Tensor, fresh: Evaluation, beta: float) -> None:
        r"""Keep the finite ones of fresh samples drawn at inverse temperature `beta`.

        Args:
            s: Their soft coordinates, ``(n, n_soft)``.
            log_m: :math:`\log m(s)`, ``(n,)``.
            fresh: The samples.
            beta: Inverse temperature in mol/kJ.
        """
        parts = s, log_m, fresh.energy, fresh.log_weights + beta * fresh.energy
        finite = torch.stack([torch.isfinite(part.reshape(len(s), -1)).all(1) for part in parts])
        kept = finite.all(0)
        s, log_m, energy, log_rest = (part[kept] for part in parts)
        if self._kept is not None:
            old = self._kept
            s, log_m = torch.cat([old[0], s]), torch.cat([old[1], log_m])
            energy, log_rest = torch.cat([old[2], energy]), torch.cat([old[3], log_rest])
        n = self.capacity
        # Copies: a view would be saved with all that it is a view of
        self._kept = s[-n:].clone(), log_m[-n:].clone(), energy[-n:].clone(), log_rest[-n:].clone()

    def draw(self, n: int, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw with replacement, one half by weight and the other evenly.

        Args:
            n: How many.
            beta: Inverse temperature in mol/kJ.

        Returns:
            Soft coordinates ``(n, n_soft)``, :math:`\log m(s)` and :math:`w / \bar w`, ``(n,)``;
            sample i is drawn in proportion to :math:`w_i / \bar w + 1`.
        """
        assert self._kept is not None
        s, log_m, energy, log_rest = self._kept
        weights = truncated(log_rest - beta * energy) * len(s)
        index = torch.multinomial(weights + 1, n, replacement=True)
        return s[index], log_m[index], weights[index]

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        return {} if self._kept is None else dict(zip(_STATE, self._kept, strict=True))

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self._kept = None
        if content:
            s, log_m, energy, log_rest = (content[name] for name in _STATE)
            self._kept = s, log_m, energy, log_rest


_STATE = ("s", "log_m", "energy", "log_rest")
