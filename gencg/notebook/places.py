"""Structures at points of the surface: from the samples near, or decoded by the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array, to_array, wrap
from gencg.ensemble import Ensemble
from gencg.notebook.selection import k_t
from gencg.notebook.source import Source, told
from gencg.notebook.surface import Surface, log_kernel, widths_of


@dataclass(frozen=True, eq=False)
class Near:
    """Samples near a point.

    Attributes:
        ensemble: The samples, weighed down with their distance.
        relative_error: Standard error of the density at the point over the density.
        widened: Whether none was within reach, and these lie farther away: they then tell no
            density at the point.
    """

    ensemble: Ensemble
    relative_error: float
    widened: bool

    @property
    def n_effective(self) -> float:
        """Effective number of samples."""
        return 1 / self.relative_error**2


def checked_point(source: Source, surface: Surface, z: Sequence[float] | float) -> Array:
    """A point as an array, of the shown variables or of all of them; angles on [-pi, pi).

    Raises:
        ValueError: If it has another length or is not finite.
    """
    point = np.atleast_1d(np.asarray(z, dtype=np.float64))
    shown, d = surface.n_variables, len(source.names)
    if point.ndim != 1 or len(point) not in (shown, d) or not np.isfinite(point).all():
        lengths = str(d) if shown == d else f"{shown} or {d}"
        unit = " in rad" if source.periodic else ""
        raise ValueError(
            f"`z` must be {lengths} finite numbers{unit}, for {', '.join(source.names)}; "
            f"got {np.asarray(z).tolist()}"
        )
    return wrap(point) if source.periodic else point


def near(
    source: Source, surface: Surface, point: Array, axes: Sequence[int], *, n_wider: int = 0
) -> Near:
    r"""The samples near a point, weighed down with their distance from it.

    .. math:: \log w_i + \log K_h(z_i - z), \qquad E[w K_h] = Z\, p_h(z)

    so that ``log_z`` of what is returned is the logarithm of :math:`Z` times the density at the
    point, smoothed as the surface is: the same as of a decoded ensemble.

    Args:
        source: What is explored.
        surface: Its surface.
        point: From `checked_point`.
        axes: The variables that are shown.
        n_wider: How often to double the widths where no sample is near.

    Raises:
        ValueError: If no sample with weight is near.
    """
    columns = list(axes) if len(point) == len(axes) else list(range(len(source.names)))
    log_w = to_array(source.ensemble.log_weights)
    values = source.values[:, columns]
    widths = widths_of(surface, source.values, log_w)[columns]
    for factor in 2.0 ** np.arange(n_wider + 1):
        kernel = log_kernel(values, point, factor * widths, periodic=source.periodic)
        total = log_w + kernel
        index = np.flatnonzero(np.isfinite(total))
        if len(index):
            break
    else:
        where = ", ".join(
            f"{shorter(source.names[c])} {told(float(v), source.periodic)}"
            for c, v in zip(columns, point, strict=True)
        )
        cure = " or decode there (decode=200)" if source.model is not None else ""
        raise ValueError(
            f"no sample with weight is near {where}; go where the surface is coloured{cure}"
        )
    chosen = source.ensemble.select(torch.from_numpy(index))
    # The mean is over the chosen now, and was over all
    log_weights = torch.from_numpy(total[index] + math.log(len(index) / len(log_w)))
    w = np.exp(total[index] - total[index].max())
    return Near(
        replace(chosen, log_weights=log_weights, n_energy_calls=0),
        relative_error=float(np.sqrt((w**2).sum()) / w.sum()),
        widened=bool(factor > 1),
    )


def decoded(source: Source, points: Array, n: int, *, seed: int) -> Ensemble:
    """Structures decoded at points ``(m, d)``, `n` each, those of one point after each other.

    Raises:
        ValueError: If nothing decodes these variables, a point does not give all of them, or no
            structure at one of them carries weight.
    """
    if source.model is None:
        raise ValueError(
            f"{source.label} has no model that decodes {', '.join(source.names)}; leave `decode` "
            "out to take the samples near"
        )
    if n < 10:
        raise ValueError(f"`decode` must be at least 10 structures, or 0 for samples, got {n}")
    if points.shape[1] != source.model.n_cvs:
        raise ValueError(
            f"`z` must give all of {', '.join(source.names)} to decode from, got "
            f"{points.shape[1]} numbers"
        )
    ensemble: Ensemble = source.model.decode(torch.from_numpy(points), n, seed=seed)
    told_at = torch.isfinite(ensemble.log_weights).reshape(len(points), n).any(1)
    if not bool(told_at.all()):
        where = points[~told_at.numpy()][0].tolist()
        raise ValueError(
            f"none of the {n} structures decoded at {where} carries weight: the generator does "
            "not reach there; go where the surface is coloured"
        )
    return ensemble


def free_energy_at(
    source: Source, surface: Surface, log_z: float, relative_error: float, n_given: int
) -> tuple[float, float] | None:
    r"""Free energy :math:`-k_BT \ln p(z)` above the minimum of the surface, and its error.

    Args:
        source: What is explored.
        surface: Its surface.
        log_z: Logarithm of Z times the density at the point.
        relative_error: Standard error of the density over the density.
        n_given: Number of variables of the point: a density over more than are shown has another
            unit, and no free energy on this surface.
    """
    if n_given != surface.n_variables:
        return None
    kt = k_t(source.ensemble)
    log_p = log_z - source.ensemble.log_z
    return -kt * (log_p - surface.log_density_at_minimum), kt * relative_error
