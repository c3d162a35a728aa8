"""Modes seen hot but lost cold: does the ensemble hold what the tempering ladder showed?

The effective sample size of an ensemble knows only where the ensemble is: a well the generator
dropped on its way down the ladder leaves it high. The hotter stages were there. Reweighted to
the target temperature, they say how much of each bin of each soft torsion there should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gencg.analysis.histogram import (
    Array,
    Histogram,
    Ranges,
    normalised_weights,
    to_array,
    weighted_histogram,
)

Stage = tuple[float, Any, Any, Any]
"""A stage of the ladder: beta in mol/kJ, soft coordinates (n, n_soft), energies, log weights."""


@dataclass(frozen=True)
class LostBin:
    """A bin of a soft coordinate that the hot stages fill and the ensemble does not.

    Attributes:
        name: Name of the coordinate.
        low: Lower edge, in rad (or the coordinate's own unit).
        high: Upper edge.
        expected: Population by the hot stages, reweighted to the target temperature.
        expected_error: Its standard error.
        found: Population in the ensemble, reweighted.
        angle: Whether the coordinate is an angle, to be printed in degrees.
    """

    name: str
    low: float
    high: float
    expected: float
    expected_error: float
    found: float
    angle: bool = True

    def __str__(self) -> str:
        scale, unit = (180 / np.pi, " deg") if self.angle else (1.0, "")
        return (
            f"{self.name} {self.low * scale:.3g} to {self.high * scale:.3g}{unit} "
            f"(expected {self.expected:.2g} ± {self.expected_error:.1g}, found {self.found:.2g})"
        )


@dataclass(frozen=True)
class Coverage:
    """What became of the modes that the hot stages saw.

    Attributes:
        checked: False where the run kept no samples of its ladder.
        lost: Bins that got lost.
        n_bins: Bins with an expected population above the threshold.
        n_effective: Effective number of hot samples after reweighting, all stages together.
    """

    checked: bool
    lost: tuple[LostBin, ...] = ()
    n_bins: int = 0
    n_effective: float = 0.0


def check_coverage(
    soft: Any,
    log_weights: Any,
    ladder: Sequence[Stage] | None,
    *,
    beta: float,
    names: Sequence[str],
    bins: int = 24,
    threshold: float = 1e-3,
    kept: float = 0.2,
    ranges: Ranges | None = None,
    angles: Sequence[bool] | None = None,
) -> Coverage:
    r"""Compare an ensemble's soft coordinates with those of its own hotter stages.

    A stage at :math:`\beta_s` with log weights :math:`\log w` is reweighted by
    :math:`-(\beta - \beta_s) U`. The stages' populations of a bin are averaged by their
    effective numbers. A bin is lost when its expected population, less two standard errors,
    exceeds `threshold`, and the ensemble holds less than the share `kept` of that.

    Args:
        soft: Soft coordinates of the ensemble, ``(n, n_soft)``.
        log_weights: Log weights of the ensemble, ``(n,)``.
        ladder: Stages of the run, hottest first; None where none were kept.
        beta: Target inverse temperature in mol/kJ.
        names: Names of the soft coordinates.
        bins: Bins along each coordinate.
        threshold: Smallest population worth a warning.
        kept: Share of the expected population that counts as still there.
        ranges: Lowest and highest value of each coordinate; None: angles in radians.
        angles: Which coordinates are angles, for printing; None: all of them.
    """
    stages = [_reweighted(stage, beta) for stage in ladder or ()]
    if not stages:
        return Coverage(checked=False)
    found = to_array(soft)
    lost: list[LostBin] = []
    n_bins = 0
    for k, name in enumerate(names):
        window = None if ranges is None else [ranges[k]]
        expected, errors = _average(
            [weighted_histogram(y[:, k], w, bins=bins, ranges=window) for y, w, _ in stages],
            [n for _, _, n in stages],
        )
        here = weighted_histogram(found[:, k], log_weights, bins=bins, ranges=window)
        sure = expected - 2 * errors
        n_bins += int((sure > threshold).sum())
        gone = (sure > threshold) & (here.probabilities < kept * sure)
        edges = here.edges[0]
        for c in np.flatnonzero(gone):
            low, high, population = (
                float(v) for v in (edges[c], edges[c + 1], here.probabilities[c])
            )
            wanted, error = float(expected[c]), float(errors[c])
            angle = angles is None or angles[k]
            lost.append(LostBin(name, low, high, wanted, error, population, angle))
    return Coverage(True, tuple(lost), n_bins, float(sum(n for _, _, n in stages)))


def _reweighted(stage: Stage, beta: float) -> tuple[Array, Array, float]:
    """Soft coordinates, log weights at `beta`, and the effective number of samples they have."""
    beta_s, y, energy, log_w = stage
    log_weights = to_array(log_w) - (beta - beta_s) * to_array(energy)
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)
    w = normalised_weights(log_weights, len(log_weights))
    return to_array(y), log_weights, float(1.0 / (w**2).sum())


def _average(parts: list[Histogram], numbers: list[float]) -> tuple[Array, Array]:
    """Average of the stages' histograms, each counting by its effective number of samples."""
    share = np.asarray(numbers) / np.sum(numbers)
    mean = sum(s * part.probabilities for s, part in zip(share, parts, strict=True))
    variance = sum((s * part.errors) ** 2 for s, part in zip(share, parts, strict=True))
    return np.asarray(mean), np.sqrt(variance)
