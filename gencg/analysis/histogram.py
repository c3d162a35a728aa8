"""Histograms of weighted samples, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ranges = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Histogram:
    """Probabilities of the cells of a grid in one or two dimensions.

    Attributes:
        probabilities: Probability of each cell, ``(bins,)`` or ``(bins, bins)``; they sum to the
            share of the weight that lies inside the ranges.
        errors: Standard errors of the probabilities; 0 for a cell without samples, which says
            nothing about what it could hold.
        n_effective: Effective number of samples in each cell, (Σw)² / Σw².
        edges: Edges of the cells along each dimension, ``(bins + 1,)`` each.
    """

    probabilities: Array
    errors: Array
    n_effective: Array
    edges: tuple[Array, ...]

    @property
    def centres(self) -> tuple[Array, ...]:
        """Middle of the cells along each dimension, ``(bins,)`` each."""
        return tuple((edge[1:] + edge[:-1]) / 2 for edge in self.edges)

    @property
    def volume(self) -> float:
        """Volume of one cell."""
        return float(np.prod([edge[1] - edge[0] for edge in self.edges]))


def to_array(values: Any) -> Array:
    """Float64 array of a tensor (any device, with or without gradient) or of anything like one."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def normalised_weights(log_weights: Any, n_samples: int) -> Array:
    """Weights that sum to one, ``(n,)``, of log weights; None gives every sample the same.

    Raises:
        ValueError: If the number differs from the samples', one is NaN or +inf, or all are -inf.
    """
    if log_weights is None:
        return np.full(n_samples, 1.0 / n_samples)
    log_w = to_array(log_weights)
    if log_w.shape != (n_samples,):
        raise ValueError(f"`log_weights` must have shape ({n_samples},), got {log_w.shape}")
    if np.isnan(log_w).any() or not np.isfinite(log_w.max()):
        raise ValueError(
            "`log_weights` must be finite or -inf with at least one finite, "
            f"got a largest value of {log_w.max()}"
        )
    w = np.exp(log_w - log_w.max())
    return np.asarray(w / w.sum(), dtype=np.float64)


def wrap(angles: Any) -> Array:
    r"""Angles in radians brought into :math:`[-\pi, \pi)`."""
    with np.errstate(invalid="ignore"):  # a broken sample's angle stays NaN
        return np.asarray((to_array(angles) + np.pi) % (2 * np.pi) - np.pi, dtype=np.float64)


def weighted_histogram(
    values: Any, log_weights: Any = None, *, bins: int = 60, ranges: Ranges | None = None
) -> Histogram:
    r"""Probability of each cell of a regular grid.

    .. math::

        p_c = \sum_i \tilde w_i 1_c(i), \qquad
        \sigma^2(p_c) = \sum_i \tilde w_i^2\, (1_c(i) - p_c)^2

    with the normalised weights :math:`\tilde w`: the delta method for a ratio of sums.

    Args:
        values: Samples, ``(n,)`` or ``(n, 1)`` or ``(n, 2)``.
        log_weights: Unnormalised log weights, ``(n,)``, -inf for none; None: equal weights.
        bins: Cells along each dimension.
        ranges: Lowest and highest value along each dimension; samples outside count in the total
            weight only. None: angles in radians, brought into [-pi, pi).

    Raises:
        ValueError: If `values` has the wrong shape, `bins` is not positive, or the weights are
            not usable.
    """
    x = to_array(values)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.shape[1] not in (1, 2) or len(x) == 0:
        raise ValueError(f"`values` must have shape (n,), (n, 1) or (n, 2), got {x.shape}")
    if bins < 1:
        raise ValueError(f"`bins` must be positive, got {bins}")
    n, dim = x.shape
    w = normalised_weights(log_weights, n)
    if ranges is None:
        x, ranges = wrap(x), [(-np.pi, np.pi)] * dim
    if len(ranges) != dim or any(not low < high for low, high in ranges):
        raise ValueError(f"`ranges` must hold {dim} pairs (low, high), got {ranges}")

    edges = tuple(np.linspace(low, high, bins + 1) for low, high in ranges)
    cell = np.zeros(n, dtype=np.int64)
    inside = np.ones(n, dtype=bool)
    for k, (low, high) in enumerate(ranges):
        # NaN fails both comparisons and stays outside
        inside &= (x[:, k] >= low) & (x[:, k] <= high)
        position = np.where(inside, (x[:, k] - low) / (high - low), 0.0) * bins
        cell = cell * bins + np.minimum(position.astype(np.int64), bins - 1)

    shape = (bins,) * dim
    sums = [np.bincount(cell[inside], v[inside], bins**dim).reshape(shape) for v in (w, w**2)]
    p, p2 = sums
    variance = p2 * (1 - p) ** 2 + p**2 * np.maximum((w**2).sum() - p2, 0.0)
    n_effective = np.divide(p**2, p2, out=np.zeros_like(p), where=p2 > 0)
    return Histogram(p, np.sqrt(variance), n_effective, edges)


def weighted_window(values: Any, log_weights: Any) -> tuple[float, float]:
    """An interval that holds all but two ten-thousandths of the weight, with a margin."""
    x = to_array(values)
    w = normalised_weights(log_weights, len(x))
    keep = np.isfinite(x) & (w > 0)
    x, w = x[keep], w[keep]
    order = np.argsort(x)
    at = np.searchsorted(np.cumsum(w[order]), [1e-4, 1 - 1e-4]).clip(0, len(x) - 1)
    low, high = x[order][at]
    margin = 0.1 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
