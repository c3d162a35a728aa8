"""A weighted sample as a smooth density on a grid, positive everywhere."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gencg.analysis.histogram import (
    Array,
    Ranges,
    normalised_weights,
    to_array,
    weighted_histogram,
    weighted_window,
)


@dataclass(frozen=True)
class SmoothDensity:
    """Probabilities of the cells of a grid after smoothing.

    Attributes:
        probabilities: ``(bins,)`` or ``(bins, bins)``, first coordinate first; all positive.
        edges: Edges of the cells along each coordinate, ``(bins + 1,)`` each.
        widths: Standard deviation of the kernel along each coordinate.
        periodic: Whether the coordinates are angles.
    """

    probabilities: Array
    edges: tuple[Array, ...]
    widths: tuple[float, ...]
    periodic: bool

    @property
    def centres(self) -> tuple[Array, ...]:
        """Middle of the cells along each coordinate, ``(bins,)`` each."""
        return tuple((edge[1:] + edge[:-1]) / 2 for edge in self.edges)

    @property
    def reduced_free_energy(self) -> Array:
        """Free energy in kT, zero at its minimum."""
        log_p = np.log(self.probabilities)
        return np.asarray(log_p.max() - log_p, dtype=np.float64)

    @property
    def points(self) -> Array:
        """Centres of all cells, ``(n_cells, dim)``, the last coordinate running fastest."""
        grid = np.stack(np.meshgrid(*self.centres, indexing="ij"), -1)
        return np.asarray(grid.reshape(-1, len(self.edges)), dtype=np.float64)


def smooth_density(
    values: Any,
    log_weights: Any = None,
    *,
    periodic: bool,
    bins: int = 72,
    smoothing: float | None = None,
    ranges: Ranges | None = None,
) -> SmoothDensity:
    r"""Weighted histogram, smoothed by a Gaussian kernel.

    .. math:: p_c = \sum_{c'} K_{c c'} h_{c'}, \qquad
              K_{c c'} \propto e^{-|c - c'|^2 / 2 \sigma^2} + 10^{-9} \times \text{a wide kernel}

    The wide kernel makes the free energy rise away from the samples instead of ending in empty
    cells. Each column of K sums to one, so that no weight is lost at the ends of a line.

    Args:
        values: Samples, ``(n,)``, ``(n, 1)`` or ``(n, 2)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        periodic: Whether the coordinates are angles in radians.
        bins: Cells along each coordinate.
        smoothing: Width of the kernel as a share of the grid. None takes 1/60 (6 degrees)
            for one coordinate and 1/36 (10 degrees) for two, where there are 20,000 effective
            samples or more; it grows with the power 1/5 or 1/6 for fewer, up to 1/15.
        ranges: Ends of the grid on the line; None spans nearly all the weight.
    """
    x = to_array(values)
    x = x[:, None] if x.ndim == 1 else x
    w = normalised_weights(log_weights, len(x))
    if smoothing is None:
        n_effective = 1 / float((w**2).sum())
        smallest, power = {1: (1 / 60, 1 / 5), 2: (1 / 36, 1 / 6)}[x.shape[1]]
        smoothing = min(smallest * max(20_000 / n_effective, 1.0) ** power, 1 / 15)
    if periodic:
        ranges = None
    elif ranges is None:
        ranges = [weighted_window(x[:, k], log_weights) for k in range(x.shape[1])]
    histogram = weighted_histogram(x, log_weights, bins=bins, ranges=ranges)
    kernel = _kernel(bins, smoothing, periodic=periodic)
    p = histogram.probabilities
    for axis in range(p.ndim):
        p = np.moveaxis(np.tensordot(kernel, p, axes=(1, axis)), 0, axis)
    widths = tuple(smoothing * float(edge[-1] - edge[0]) for edge in histogram.edges)
    return SmoothDensity(p / p.sum(), histogram.edges, widths, periodic)


def _kernel(bins: int, smoothing: float, *, periodic: bool) -> Array:
    distance = np.abs(np.arange(bins)[:, None] - np.arange(bins)) / bins
    if periodic:
        distance = np.minimum(distance, 1 - distance)
    parts = [np.exp(-0.5 * (distance / width) ** 2) for width in (smoothing, 0.15)]
    narrow, wide = (part / part.sum(0) for part in parts)
    return np.asarray(narrow + 1e-9 * wide, dtype=np.float64)
