"""Schedules for the inverse temperature: from hot, where wells merge, to the target."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from gencg.importance import effective_sample_size


@dataclass(frozen=True)
class TemperingState:
    """What a schedule may look at.

    Args:
        progress: Share of the training budget that is spent, in [0, 1].
        energy: Energies in kJ/mol of recent samples of the model, shape ``(n,)``.
        log_weights: Their log importance weights at the present beta, shape ``(n,)``.
    """

    progress: float
    energy: Tensor
    log_weights: Tensor


class TemperingSchedule(ABC):
    """Rule for the next inverse temperature in mol/kJ.

    Attributes:
        start: Temperature factor of the start, ``T_start / T_target``.
        interval: Number of training steps between two questions.
    """

    start: float
    interval: int = 10

    @abstractmethod
    def next(self, beta: float, state: TemperingState, *, target: float) -> float:
        """The next inverse temperature, at least `beta` and at most `target`."""


class NoTempering(TemperingSchedule):
    """Train at the target temperature from the first step."""

    start = 1.0

    def next(self, beta: float, state: TemperingState, *, target: float) -> float:
        return target


class GeometricLadder(TemperingSchedule):
    r"""Temperature falls geometrically with the budget spent.

    .. math:: \beta(p) = \beta_\mathrm{target}\, s^{\,\min(p/f, 1) - 1}

    Args:
        start: Temperature factor s of the start.
        fraction: Share f of the budget after which the target is reached.

    Raises:
        ValueError: If `start` is below 1 or `fraction` outside (0, 1).
    """

    interval = 1

    def __init__(self, *, start: float = 4.0, fraction: float = 0.5) -> None:
        self.start = _check_start(start)
        if not 0 < fraction < 1:
            raise ValueError(f"`fraction` must lie in (0, 1), got {fraction}")
        self.fraction = fraction

    def next(self, beta: float, state: TemperingState, *, target: float) -> float:
        rung = min(state.progress / self.fraction, 1.0)
        return max(beta, target if rung == 1.0 else target * self.start ** (rung - 1))


class ESSTempering(TemperingSchedule):
    r"""The largest step whose reweighting keeps the asked effective sample size.

    The next :math:`\beta'` satisfies

    .. math:: \mathrm{ESS}\left(w_i e^{-(\beta'-\beta) U_i}\right)
              = a\, \mathrm{ESS}(w_i)

    with weights w at the present beta, and the target is reached by `deadline` at the latest:
    once the geometric ladder to the deadline is ahead of the rule, the ladder leads.

    Args:
        min_ess: Share a of the effective sample size that one step keeps.
        start: Temperature factor of the start.
        deadline: Share of the budget at which the target is reached in any case.
        weighted: Start from the weights w; without, from equal weights (samples taken as they
            are), which is what the closed form of the harmonic well describes.

    Raises:
        ValueError: If `min_ess` or `deadline` is outside (0, 1), or `start` below 1.

    References:
        | An adaptive sequential Monte Carlo sampler (Fearnhead, Taylor, 2013),
          https://arxiv.org/abs/1005.1193
    """

    def __init__(
        self,
        *,
        min_ess: float = 0.99,
        start: float = 4.0,
        deadline: float = 0.6,
        weighted: bool = False,
    ) -> None:
        if not 0 < min_ess < 1:
            raise ValueError(f"`min_ess` must lie in (0, 1), got {min_ess}")
        self.start = _check_start(start)
        self.min_ess = min_ess
        self.weighted = weighted
        self._ladder = GeometricLadder(start=start, fraction=deadline)

    def next(self, beta: float, state: TemperingState, *, target: float) -> float:
        energy, log_weights = _usable(state)
        if not self.weighted:
            log_weights = torch.zeros_like(log_weights)
        base = float(effective_sample_size(log_weights)) if len(energy) else 0.0

        def excess(candidate: float) -> float:
            moved = log_weights - (candidate - beta) * energy
            return float(effective_sample_size(moved)) - self.min_ess * base

        if len(energy) == 0:
            step = beta
        elif excess(target) >= 0:
            step = target
        else:
            step = float(brentq(excess, beta, target, xtol=1e-12))
        return max(step, self._ladder.next(beta, state, target=target))


class KLTempering(TemperingSchedule):
    r"""The rule of 2020: the largest step that raises the KL divergence by a bounded share.

    .. math:: \frac{K_{\beta'} - K_\beta}{K_\beta} \le c, \qquad
              K_\beta = \mathrm{KL}(q \,\|\, p_\beta) = \log Z_\beta - E_q[\log w_\beta]

    with :math:`\log Z` estimated from the same importance weights.

    Args:
        max_increase: The share c.
        start: Temperature factor of the start.
        min_step: Smallest step as a share of the target, so that the ladder ends.
        max_step: Largest step as a share of the target.
        deadline: Share of the budget at which the target is reached in any case.

    Raises:
        ValueError: If `max_increase` is not positive, steps are not ``0 < min_step <= max_step``,
            `deadline` is outside (0, 1), or `start` below 1.

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl et al., 2020), https://arxiv.org/abs/2002.10148
    """

    def __init__(
        self,
        *,
        max_increase: float = 0.1,
        start: float = 4.0,
        min_step: float = 1e-4,
        max_step: float = 0.05,
        deadline: float = 0.6,
    ) -> None:
        if not max_increase > 0:
            raise ValueError(f"`max_increase` must be positive, got {max_increase}")
        if not 0 < min_step <= max_step:
            raise ValueError(
                f"`min_step` and `max_step` must satisfy 0 < min_step <= max_step, "
                f"got {min_step} and {max_step}"
            )
        self.start = _check_start(start)
        self.max_increase, self.min_step, self.max_step = max_increase, min_step, max_step
        self._ladder = GeometricLadder(start=start, fraction=deadline)

    def next(self, beta: float, state: TemperingState, *, target: float) -> float:
        energy, log_weights = _usable(state)
        low, high = (min(target, beta + s * target) for s in (self.min_step, self.max_step))
        ladder = self._ladder.next(beta, state, target=target)
        if len(energy) == 0:
            return max(beta, ladder)

        def divergence(candidate: float) -> float:
            moved = log_weights - (candidate - beta) * energy
            log_z = torch.logsumexp(moved, 0) - math.log(len(moved))
            return float(log_z - moved.mean())

        bound = (1 + self.max_increase) * divergence(beta)
        if divergence(high) <= bound:
            step = high
        elif divergence(low) >= bound:
            step = low
        else:
            step = float(brentq(lambda b: divergence(b) - bound, low, high, xtol=1e-12))
        return max(step, ladder)


def _usable(state: TemperingState) -> tuple[Tensor, Tensor]:
    finite = torch.isfinite(state.energy) & torch.isfinite(state.log_weights)
    return state.energy[finite].double(), state.log_weights[finite].double()


def _check_start(start: float) -> float:
    if not (math.isfinite(start) and start >= 1):
        raise ValueError(f"`start` must be a temperature factor of at least 1, got {start}")
    return float(start)
