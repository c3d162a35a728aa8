r"""Whether weighted samples at two temperatures belong to one energy: the ratio of their energies.

For Boltzmann samples at :math:`\beta` and :math:`\beta'` the energies obey, whatever the system,

.. math:: \log \frac{p_{\beta'}(E)}{p_\beta(E)} = a - (\beta' - \beta) E.

The slope is found by maximum likelihood: which of two equal heaps a sample of energy E comes from
is a logistic regression with the energy as its only feature.

References:
    | Simple quantitative tests to validate sampling from thermodynamic ensembles (Shirts, 2013)
    | https://doi.org/10.1021/ct300688p
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_STEPS = 100


@dataclass(frozen=True)
class EnergyRatio:
    r"""Slope of the ratio of two energy distributions.

    Args:
        slope: Of :math:`\log p'(E) / p(E)` in mol/kJ; to be :math:`-(\beta' - \beta)`.
        error: Its standard error.
        expected: What it is to be.
    """

    slope: float
    error: float
    expected: float

    @property
    def deviation(self) -> float:
        """Difference from what it is to be, in standard errors."""
        return abs(self.slope - self.expected) / self.error


def energy_ratio(
    energy: Tensor,
    log_weights: Tensor,
    other_energy: Tensor,
    other_log_weights: Tensor,
    *,
    expected: float,
) -> EnergyRatio:
    r"""Slope of :math:`\log p'(E)/p(E)` by maximum likelihood, with its standard error.

    .. math:: \max_{a, s} \sum_i w_i \log \sigma(-a - s E_i) + \sum_j w'_j \log \sigma(a + s E_j)

    with weights that sum to one in each heap. The error is the sandwich
    :math:`H^{-1} (\sum w^2 g g^T) H^{-1}`, which holds for unequal weights.

    Args:
        energy: Energies of the first heap, ``(n,)`` in kJ/mol.
        log_weights: Their log weights; -inf leaves one out.
        other_energy: Energies of the second, independent of the first.
        other_log_weights: Their log weights.
        expected: What the slope is to be.

    Raises:
        ValueError: If a heap has no sample with weight, or the heaps do not overlap.
    """
    e = torch.cat([energy, other_energy]).double()
    weights = torch.cat([_normalised(log_weights), _normalised(other_log_weights)])
    label = torch.cat([torch.zeros(len(energy)), torch.ones(len(other_energy))]).double()
    used = weights > 0
    e, weights, label = e[used], weights[used], label[used]
    centre, scale = (weights * e).sum() / 2, _spread(e, weights)
    features = torch.stack([torch.ones_like(e), (e - centre) / scale], -1)  # [n, (1, E)]
    theta = torch.zeros(2, dtype=torch.float64)
    for _ in range(MAX_STEPS):
        p = torch.sigmoid(features @ theta)
        gradient = features.T @ (weights * (label - p))
        hessian = (features * (weights * p * (1 - p))[:, None]).T @ features
        if not bool(torch.linalg.det(hessian) > 1e-12):
            raise ValueError("the energies of the two heaps do not overlap; bring them nearer")
        step = torch.linalg.solve(hessian, gradient)
        theta = theta + step
        if float(step.abs().max()) < 1e-10:
            break
    p = torch.sigmoid(features @ theta)
    scores = features * (weights * (label - p))[:, None]
    inverse = torch.linalg.inv((features * (weights * p * (1 - p))[:, None]).T @ features)
    covariance = inverse @ (scores.T @ scores) @ inverse
    return EnergyRatio(
        slope=float(theta[1] / scale),
        error=float(covariance[1, 1].sqrt() / scale),
        expected=expected,
    )


def _normalised(log_weights: Tensor) -> Tensor:
    if not bool(torch.isfinite(log_weights).any()):
        raise ValueError("`log_weights` must hold a sample with weight")
    return torch.softmax(log_weights.double(), 0)


def _spread(e: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    mean = (weights * e).sum() / total
    return ((weights * (e - mean).square()).sum() / total).sqrt().clamp_min(1e-12)
