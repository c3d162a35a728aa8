"""The free energy over the variables that one explores, as smooth as the samples allow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gencg.analysis.histogram import Array, normalised_weights, weighted_window, wrap
from gencg.analysis.smooth_density import SmoothDensity, smooth_density
from gencg.ensemble import Ensemble
from gencg.units import BOLTZMANN_CONSTANT

HIGHEST = 30.0
"""Free energy in kJ/mol above which the surface is left blank."""
BINS = 90
REACH = 3.0
"""Widths of the kernel beyond which a sample is not near."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Free energy over one or two variables of an ensemble.

    Attributes:
        density: The smoothed density it comes from.
        free_energy: In kJ/mol, zero at its minimum, ``(bins,)`` or ``(bins, bins)``.
        seen: Whether any sample is near each cell and its free energy below `HIGHEST`.
        names: Names of the variables.
    """

    density: SmoothDensity
    free_energy: Array
    seen: NDArray[np.bool_]
    names: tuple[str, ...]

    @property
    def periodic(self) -> bool:
        """Whether the variables are angles in radians."""
        return self.density.periodic

    @property
    def n_variables(self) -> int:
        """One or two."""
        return len(self.density.edges)

    @property
    def widths(self) -> tuple[float, ...]:
        """Width of the kernel along each variable: how near is near."""
        return self.density.widths

    @property
    def log_density_at_minimum(self) -> float:
        """Logarithm of the largest density, per rad or unit of each variable."""
        volume = np.prod([edge[1] - edge[0] for edge in self.density.edges])
        return float(np.log(self.density.probabilities.max() / volume))

    @property
    def minimum(self) -> tuple[float, ...]:
        """Where the free energy is lowest."""
        return tuple(self.density.points[int(self.free_energy.argmin())].tolist())


def surface_of(
    ensemble: Ensemble, values: Array, *, names: Sequence[str], periodic: bool
) -> Surface:
    """The surface of an ensemble over one or two variables.

    Args:
        ensemble: Samples with weights.
        values: The variables, ``(n, 1)`` or ``(n, 2)``.
        names: Their names.
        periodic: Whether they are angles in radians.
    """
    alive = normalised_weights(ensemble.log_weights, len(values)) > 0
    x, log_w = values[alive], ensemble.log_weights.numpy()[alive]
    density = smooth_density(x, log_w, periodic=periodic, bins=BINS)
    free_energy = BOLTZMANN_CONSTANT * ensemble.temperature * density.reduced_free_energy
    ranges = [(float(edge[0]), float(edge[-1])) for edge in density.edges]
    near = smooth_density(x, None, periodic=periodic, bins=BINS, smoothing=0.016, ranges=ranges)
    seen = (len(x) * near.probabilities > 0.02) & (free_energy <= HIGHEST)
    return Surface(density, free_energy, seen, tuple(names))


def log_kernel(values: Array, at: Array, widths: Array, *, periodic: bool) -> Array:
    r"""Logarithm of a normalised Gaussian around a point, -inf beyond `REACH` widths, ``(n,)``.

    Args:
        values: Variables, ``(n, d)``.
        at: The point, ``(d,)``.
        widths: Standard deviations, ``(d,)``.
        periodic: Whether the variables are angles in radians.
    """
    offset = wrap(values - at) if periodic else values - at
    square = ((offset / widths) ** 2).sum(1)
    log_norm = float(np.log(widths).sum()) + 0.5 * len(widths) * np.log(2 * np.pi)
    return np.asarray(np.where(square <= REACH**2, -0.5 * square, -np.inf) - log_norm)


def widths_of(surface: Surface, values: Array, log_weights: Array) -> Array:
    """Width of the kernel along every variable, those that are not shown included, ``(d,)``."""
    shown = surface.widths
    if surface.periodic:
        return np.full(values.shape[1], shown[0])
    edge = surface.density.edges[0]
    share = shown[0] / float(edge[-1] - edge[0])
    spans = [weighted_window(column, log_weights) for column in values.T]
    return np.array([share * (high - low) for low, high in spans])
