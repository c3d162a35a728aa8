"""The generator's last soft coordinates, and what losses learn of them at no energy call."""

from typing import Any

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.objectives.base import Evaluation


class SoftMemory:
    r"""The last samples' soft coordinates s, and by their weights the forward KL of the soft block.

    Sample i counts as drawn from :math:`m_i`, the generator at its time, with :math:`w_i =
    \tilde p_\beta(y_i) / m_i(y_i)`. Weights are cut at :math:`\sqrt n` times the mean
    :math:`\bar w`. The gradient of the forward KL is
    :math:`-E_m[(w / \bar w) \nabla_\theta \log q_\theta(s)]`; with the mean score of m taken off
    it is

    .. math:: -E_m\left[(w / \bar w - 1)\, \nabla_\theta \log q_\theta(s)\right]
              = \nabla_\theta \left[\mathrm{KL}(p \| q_\theta) - \mathrm{KL}(m \| q_\theta)\right]

    which has no noise where all weights are equal. At :math:`q_\theta = m` it is the gradient of
    the forward KL; while the generator moves it leads from where the generator was to the target,
    a feedback with the delay of the memory, which ends as the learning rate does. What there is
    too little of and what there is too much of have the same mass c; they are drawn in proportion
    to :math:`\max(0, w_i / \bar w - 1)` and :math:`\max(0, 1 - w_i / \bar w)`, which brings down
    the noise where most weights are near the mean.

    For another loss, each sample's weight says what the log-density of its soft coordinates should
    be (`draw_any`).

    Args:
        capacity: Samples kept; the oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Coordinates, energy, log-weight at beta zero, and log-density of the soft block
        self._kept: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept[0])

    def add(self, s: Tensor, fresh: Evaluation, beta: float, *, log_soft: Tensor) -> None:
        """Keep the finite ones of fresh samples drawn at inverse temperature `beta`.

        Args:
            s: Their coordinates, or those that count, ``(n, d)``.
            fresh: The samples.
            beta: Inverse temperature in mol/kJ.
            log_soft: Log-density of `s` they were drawn with, ``(n,)``; anything finite where
                `draw_any` is not asked.
        """
        parts: tuple[Tensor, ...] = (
            s,
            fresh.energy,
            fresh.log_weights + beta * fresh.energy,
            log_soft,
        )
        finite = torch.stack([torch.isfinite(part.reshape(len(s), -1)).all(1) for part in parts])
        parts = tuple(part[finite.all(0)] for part in parts)
        if self._kept is not None:
            parts = tuple(map(torch.cat, zip(self._kept, parts, strict=True)))
        # Copies: a view would be saved with all that it is a view of
        self._kept = tuple(part[-self.capacity :].clone() for part in parts)

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        return {} if self._kept is None else dict(zip(_STATE, self._kept, strict=True))

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self._kept = None
        if content:
            # A version that did not keep it did not ask for it either
            older = {"log_soft": torch.zeros_like(content["energy"])}
            self._kept = tuple((older | content)[name] for name in _STATE)

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
        s, energy, log_rest, _ = self._kept
        excess = truncated(log_rest - beta * energy) * len(s) - 1
        kinds = excess.clamp(min=0), (-excess).clamp(min=0)
        mass = float(kinds[0].mean())
        # Rounding may leave one kind without any
        if not all(bool(kind.sum() > 0) for kind in kinds):
            return s[:0], s[:0], 0.0
        little, much = (s[torch.multinomial(kind, n, replacement=True)] for kind in kinds)
        return little, much, mass

    def draw_any(self, n: int, beta: float) -> tuple[Tensor, Tensor]:
        r"""Draw with replacement from all that is kept.

        Args:
            n: How many.
            beta: Inverse temperature in mol/kJ.

        Returns:
            Soft coordinates ``(n, n_soft)``, and an estimate each of
            :math:`\log \tilde p_\beta(s)`, ``(n,)``: by the stiff coordinates drawn with them.
        """
        assert self._kept is not None
        s, energy, log_rest, log_soft = self._kept
        index = torch.randint(len(s), (n,), device=s.device)
        return s[index], log_rest[index] - beta * energy[index] + log_soft[index]


_STATE = ("s", "energy", "log_rest", "log_soft")
