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
        self._s: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self._s is None else len(self._s)

    def add(self, fresh: Evaluation, soft_index: Tensor, beta: float) -> None:
        """Keep the finite ones of fresh samples drawn at inverse temperature `beta`."""
        kept = torch.isfinite(fresh.log_weights) & torch.isfinite(fresh.energy)
        energy = fresh.energy[kept]
        parts = fresh.y[kept][:, soft_index], energy, fresh.log_weights[kept] + beta * energy
        if self._s is not None:
            old = self._s, self._energy, self._log_rest
            parts = tuple(torch.cat(pair) for pair in zip(old, parts, strict=True))  # type: ignore[assignment]
        self._s, self._energy, self._log_rest = (part[-self.capacity :] for part in parts)

    def draw(self, n: int, beta: float) -> tuple[Tensor, float]:
        r"""Draw with replacement what there was too little of.

        Args:
            n: How many.
            beta: Inverse temperature in mol/kJ.

        Returns:
            Soft coordinates ``(n, n_soft)``, and the mean of :math:`\max(0, w_i / \bar w - 1)`;
            no coordinates and zero where all weights are equal.
        """
        assert self._s is not None
        share = truncated(self._log_rest - beta * self._energy)
        missing = (share * len(share) - 1).clamp(min=0)
        mean = float(missing.mean())
        if not mean > 0:
            return self._s[:0], 0.0
        return self._s[torch.multinomial(missing, n, replacement=True)], mean

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        if self._s is None:
            return {}
        return {"s": self._s, "energy": self._energy, "log_rest": self._log_rest}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        if content:
            self._s, self._energy = content["s"], content["energy"]
            self._log_rest = content["log_rest"]
