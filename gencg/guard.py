"""Whether training has lost ground: the generator against itself some steps ago."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.objectives.base import Evaluation

MOST_LOST, N_ERRORS = 1.0, 5.0
"""Ground that a step may lose: this many kT, and so many standard errors."""
FARTHEST = 30.0
"""A sample counts as no farther above the median of its batch than this, in kT."""


@dataclass(frozen=True)
class Standing:
    r"""How well samples of a generator do at any temperature: how high their :math:`-\log w` are.

    The mean of :math:`-\log w = \beta U - \log|\det| + \log q` is the bound of reverse KL,
    :math:`\mathrm{KL}(q \| p_\beta) - \log Z_\beta`. At another temperature the same samples have
    :math:`-\log w + (\beta' - \beta) U`, so that the bound of an earlier generator is known at the
    temperature of now: what it says there, training should say as low, also while the temperature
    falls and all bounds rise. Clashes have values of any size, and samples that are not finite
    none: a sample counts as at most `FARTHEST` above the median.

    Args:
        beta: Inverse temperature in mol/kJ.
        energy: Energies in kJ/mol, ``(n,)``.
        log_weights: Log importance weights at `beta`, ``(n,)``.
    """

    beta: float
    energy: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, evaluation: Evaluation, beta: float) -> "Standing":
        """Of the samples of a step at inverse temperature `beta`."""
        return cls(beta, evaluation.energy.cpu(), evaluation.log_weights.cpu())

    def bound(self, beta: float) -> tuple[float, float]:
        """The bound at inverse temperature `beta`, and its standard error; NaN without samples."""
        height = -self.log_weights.double() + (beta - self.beta) * self.energy.double()
        finite = torch.isfinite(height)
        if not bool(finite.any()):
            return math.nan, math.nan
        most = height[finite].median() + FARTHEST
        height = torch.where(finite, height, most).clamp(max=most)
        return float(height.mean()), float(height.std(correction=0)) / math.sqrt(len(height))


def has_lost_ground(now: Standing, before: Standing) -> bool:
    r"""Whether a generator is worse than it was, by more than chance.

    .. math:: B_\text{now}(\beta) - B_\text{before}(\beta) >
              \Delta + k \sqrt{\sigma_\text{now}^2 + \sigma_\text{before}^2}

    with the bounds B at the temperature of now, their standard errors, and :math:`\Delta` and k of
    `MOST_LOST` and `N_ERRORS`. A batch without a finite sample is no matter of ground.
    """
    (bound, error), (bound_before, error_before) = now.bound(now.beta), before.bound(now.beta)
    return bound - bound_before > MOST_LOST + N_ERRORS * math.hypot(error, error_before)
