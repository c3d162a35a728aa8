"""Slow functions over the collective variables, and the coordinates to hold these against."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.analysis.cv_names import is_coordinate
from gencg.analysis.histogram import Array, normalised_weights, to_array, wrap
from gencg.analysis.smooth_density import SmoothDensity, smooth_density
from gencg.analysis.torsions import Torsions, ensemble_torsions
from gencg.discover import SlowCVs
from gencg.ensemble import Ensemble
from gencg.systems.base import System
from gencg.units import BOLTZMANN_CONSTANT, check_temperature

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SlowMaps:
    """Slow functions on a grid over the first one or two collective variables.

    Attributes:
        values: Functions, ``(m, bins)`` or ``(m, bins, bins)``; NaN where the free energy is
            above the limit or no sample came near.
        free_energy: Smoothed free energy in kJ/mol, ``(bins,)`` or ``(bins, bins)``.
        reach: Largest absolute value of each function within all but a ten-thousandth of the
            weight, ``(m,)``.
        edges: Edges of the cells along each variable.
    """

    values: Array
    free_energy: Array
    reach: Array
    edges: tuple[Array, ...]

    @property
    def centres(self) -> tuple[Array, ...]:
        """Middle of the cells along each variable, ``(bins,)`` each."""
        return tuple((edge[1:] + edge[:-1]) / 2 for edge in self.edges)


def slow_function_maps(
    slow: SlowCVs,
    z: Any,
    log_weights: Any = None,
    *,
    temperature: float,
    bins: int = 72,
    highest: float = 40.0,
) -> SlowMaps:
    r"""Slow functions :math:`g_k(z)` where there is any probability to speak of.

    With three or more variables it is the average :math:`E_p[g_k \mid z_1, z_2]`, smoothed as the
    free energy is.

    Args:
        slow: The slow collective variables.
        z: Their values for the samples, ``(n, n_cvs)``.
        log_weights: Unnormalised log weights, ``(n,)``.
        temperature: Temperature in K.
        bins: Cells along each variable.
        highest: Free energy in kJ/mol above which nothing is shown.
    """
    k_t = BOLTZMANN_CONSTANT * check_temperature(temperature)
    z = to_array(z)
    alive = normalised_weights(log_weights, len(z)) > 0
    z = z[alive]
    log_w = None if log_weights is None else to_array(log_weights)[alive]
    density = smooth_density(z[:, :2], log_w, periodic=slow.map.periodic, bins=bins)
    free_energy = k_t * density.reduced_free_energy
    at_samples = _evaluate(slow, z)
    if z.shape[1] <= 2:
        values = _evaluate(slow, density.points).T.reshape(-1, *free_energy.shape)
    else:
        values = _cell_means(at_samples, z[:, :2], log_w, density)
    values = np.where((free_energy <= highest) & _visited(z[:, :2], density), values, np.nan)
    w = normalised_weights(log_w, len(z))
    reach = [_upper(np.abs(g), w) for g in at_samples.T]
    return SlowMaps(values, free_energy, np.asarray(reach), density.edges)


def torsions_beside(
    system: System, ensemble: Ensemble, names: tuple[str, ...], *, n_max: int = 4
) -> tuple[Torsions, tuple[bool, ...]]:
    """Up to `n_max` coordinates to hold collective variables against, and which are angles.

    phi and psi come first, then the other soft coordinates. Left out are those that are a
    collective variable themselves, and methyl rotors.

    Args:
        system: What was sampled.
        ensemble: Its samples.
        names: Names of the collective variables.
        n_max: Coordinates at most.
    """
    known = ensemble_torsions(ensemble, system.coordinates)
    found = {label: (known[label], True) for label in known.labels}
    for i in torch.nonzero(system.coordinates.soft).ravel().tolist():
        angle, y = bool(system.coordinates.periodic[i]), to_array(ensemble.y[:, i])
        found.setdefault(system.coordinates.names[i], (wrap(y) if angle else y, angle))
    chosen = [
        label
        for label in found
        if not label.startswith("rotor") and not any(is_coordinate(n, label) for n in names)
    ][:n_max]
    columns = [found[label][0] for label in chosen]
    values = np.stack(columns, 1) if columns else np.zeros((ensemble.n_samples, 0))
    return Torsions(tuple(chosen), values), tuple(found[label][1] for label in chosen)


def _evaluate(slow: SlowCVs, z: Array) -> Array:
    with torch.no_grad():
        parts = torch.from_numpy(z).split(20_000)  # type: ignore[no-untyped-call]
        return np.concatenate([to_array(slow.functions.of_cvs(part)) for part in parts])


def _visited(z: Array, density: SmoothDensity) -> BoolArray:
    """Cells within two kernel widths of a sample; the functions are guesses elsewhere."""
    ranges = [(float(edge[0]), float(edge[-1])) for edge in density.edges]
    shares = [w / (high - low) for w, (low, high) in zip(density.widths, ranges, strict=True)]
    bins = len(density.centres[0])
    counts = (
        len(z)
        * smooth_density(
            z, periodic=density.periodic, bins=bins, smoothing=shares[0], ranges=ranges
        ).probabilities
    )
    one = np.prod([1 / (share * bins * np.sqrt(2 * np.pi)) for share in shares])
    return np.asarray(counts >= np.exp(-2.0) * one, dtype=np.bool_)


def _cell_means(g: Array, z: Array, log_w: Array | None, density: SmoothDensity) -> Array:
    """Averages of functions ``(n, m)`` around each cell, with the kernel of the density."""
    w = normalised_weights(log_w, len(z))
    ranges = [(float(edge[0]), float(edge[-1])) for edge in density.edges]
    bins, smoothing = len(density.centres[0]), density.widths[0] / (ranges[0][1] - ranges[0][0])
    out = []
    for values in g.T:
        shifted = values - values.min() + 1.0  # positive: it multiplies the weights
        part = smooth_density(
            z, np.log(w * shifted), periodic=density.periodic, bins=bins, smoothing=smoothing,
            ranges=ranges,
        )  # fmt: skip
        mean = part.probabilities * (w * shifted).sum() / density.probabilities
        out.append(mean + values.min() - 1.0)
    return np.stack(out)


def _upper(values: Array, w: Array, share: float = 1e-4) -> float:
    """Value that all but this share of the weight stays below."""
    order = np.argsort(values)
    at = int(np.searchsorted(np.cumsum(w[order]), 1 - share).clip(0, len(order) - 1))
    return float(values[order[at]])
