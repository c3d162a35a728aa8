"""Free energy along one or two coordinates of a weighted sample."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gencg.analysis.histogram import Array, Ranges, weighted_histogram
from gencg.units import BOLTZMANN_CONSTANT, check_temperature


@dataclass(frozen=True)
class FreeEnergySurface:
    """Free energy on a regular grid, zero at its minimum.

    Attributes:
        values: Free energy in kJ/mol, ``(bins,)`` or ``(bins, bins)`` (first coordinate first);
            NaN where too few samples tell it.
        errors: Standard error of each value in kJ/mol, of the cell alone (the zero of the scale
            is taken as given); NaN in the same cells.
        edges: Edges of the cells along each coordinate, ``(bins + 1,)`` each.
        temperature: Temperature in K.
    """

    values: Array
    errors: Array
    edges: tuple[Array, ...]
    temperature: float

    @property
    def centres(self) -> tuple[Array, ...]:
        """Middle of the cells along each coordinate, ``(bins,)`` each."""
        return tuple((edge[1:] + edge[:-1]) / 2 for edge in self.edges)

    @property
    def minimum(self) -> tuple[float, ...]:
        """Where the free energy is lowest, in the coordinates' own units."""
        index = np.unravel_index(int(np.nanargmin(self.values)), self.values.shape)
        return tuple(float(c[i]) for c, i in zip(self.centres, index, strict=True))


def free_energy_surface(
    values: Any,
    log_weights: Any = None,
    *,
    temperature: float,
    bins: int = 60,
    ranges: Ranges | None = None,
    min_samples: float = 3.0,
) -> FreeEnergySurface:
    r"""Free energy of the cells of a grid over one or two coordinates.

    .. math:: F_c = -k_B T \ln p_c - \min_c, \qquad \sigma(F_c) = k_B T\, \sigma(p_c) / p_c

    with :math:`\sigma(p_c)` of `weighted_histogram`.

    Args:
        values: Coordinates of the samples, ``(n,)`` or ``(n, 2)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        temperature: Temperature in K.
        bins: Cells along each coordinate.
        ranges: Lowest and highest value along each coordinate; None: angles in radians on the
            circle.
        min_samples: A cell with fewer effective samples is masked: its error bar would be a
            guess too.

    Raises:
        ValueError: If the samples or weights are not usable, or no cell has enough samples.

    Two states, the second of a third of the weight of the first, lie :math:`k_B T \ln 3` apart:

    >>> values, log_weights = [-1.0] * 50 + [1.0] * 50, [0.0] * 50 + [-math.log(3)] * 50
    >>> surface = free_energy_surface(values, log_weights, temperature=300.0, bins=2)
    >>> surface.values.round(2)
    array([0.  , 2.74])
    """
    k_t = BOLTZMANN_CONSTANT * check_temperature(temperature)
    histogram = weighted_histogram(values, log_weights, bins=bins, ranges=ranges)
    told = histogram.n_effective >= min_samples
    if not told.any():
        raise ValueError(
            f"no cell of the {bins}-bin grid holds {min_samples} effective samples; "
            "use fewer bins or draw more samples"
        )
    p = np.where(told, histogram.probabilities, np.nan)
    free_energy = -k_t * np.log(p)
    errors = k_t * np.where(told, histogram.errors, np.nan) / p
    return FreeEnergySurface(
        free_energy - np.nanmin(free_energy), errors, histogram.edges, float(temperature)
    )
