"""Modes seen hot but lost cold: does the ensemble hold what the tempering ladder showed?

The effective sample size of an ensemble knows only where the ensemble is: a well the generator
dropped on its way down the ladder leaves it high. The hotter stages were there. Reweighted to
the target temperature, as far as that can be done, they say how much of each bin of each soft
torsion there should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gencg.analysis.histogram import (
    Array,
    Ranges,
    normalised_weights,
    to_array,
    weighted_histogram,
)
from gencg.units import temperature_of

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
        checked: False where the run kept no samples of hotter stages.
        lost: Bins that got lost, the most populated first.
        n_bins: Bins that the hot stages could vouch for.
        n_effective: Effective number of hot samples after reweighting, in the groups used.
        hottest: Highest temperature in K that still told something at the target; 0 for none.
    """

    checked: bool
    lost: tuple[LostBin, ...] = ()
    n_bins: int = 0
    n_effective: float = 0.0
    hottest: float = 0.0


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
    min_samples: float = 10.0,
    ranges: Ranges | None = None,
    angles: Sequence[bool] | None = None,
) -> Coverage:
    r"""Compare an ensemble's soft coordinates with those of its own hotter stages.

    A stage at :math:`\beta_s` with log weights :math:`\log w` is reweighted by
    :math:`-(\beta - \beta_s) U`. Neighbouring stages form a group, whose populations are averaged
    by their effective numbers. A bin is lost when by any group its population, less two standard
    errors, exceeds `threshold`, and the ensemble holds less than the share `kept` of that.

    Far hotter stages say little: reweighting thirty atoms from 600 to 300 K leaves one sample in
    ten thousand. A group with fewer than ten times `min_samples` effective samples is left out,
    and `Coverage.hottest` says how far the check reached.

    Args:
        soft: Soft coordinates of the ensemble, ``(n, n_soft)``.
        log_weights: Log weights of the ensemble, ``(n,)``.
        ladder: Stages of the run, hottest first; None where none were kept.
        beta: Target inverse temperature in mol/kJ.
        names: Names of the soft coordinates.
        bins: Bins along each coordinate.
        threshold: Smallest population worth a warning.
        kept: Share of the expected population that counts as still there.
        min_samples: Effective hot samples a bin needs for its population to be believed.
        ranges: Lowest and highest value of each coordinate; None: angles in radians.
        angles: Which coordinates are angles, for printing; None: all of them.
    """
    stages = [stage for stage in ladder or () if stage[0] < 0.98 * beta]
    if not stages:
        return Coverage(checked=False)
    groups = [_reweighted(group, beta) for group in _groups(stages)]
    used = [g for g in groups if g.n_effective >= 10 * min_samples]
    here = to_array(soft)
    lost: dict[tuple[int, int], LostBin] = {}
    vouched: set[tuple[int, int]] = set()
    for group in used:
        for k, name in enumerate(names):
            window = None if ranges is None else [ranges[k]]
            expected, errors, n = group.populations(k, bins=bins, ranges=window)
            found = weighted_histogram(here[:, k], log_weights, bins=bins, ranges=window)
            sure = np.where(n >= min_samples, expected - 2 * errors, 0.0)
            vouched |= {(k, c) for c in np.flatnonzero(sure > threshold).tolist()}
            p, edges = found.probabilities, found.edges[0]
            for c in np.flatnonzero((sure > threshold) & (p < kept * sure)).tolist():
                limits = float(edges[c]), float(edges[c + 1])
                angle = angles is None or angles[k]
                told = float(expected[c]), float(errors[c]), float(p[c])
                bin_ = LostBin(name, *limits, *told, angle)
                if (k, c) not in lost or lost[k, c].expected < bin_.expected:
                    lost[k, c] = bin_
    return Coverage(
        checked=True,
        lost=tuple(sorted(lost.values(), key=lambda b: -b.expected)),
        n_bins=len(vouched),
        n_effective=sum(g.n_effective for g in used),
        hottest=max((temperature_of(g.beta) for g in used), default=0.0),
    )


@dataclass(frozen=True)
class _Group:
    """Neighbouring stages: soft coordinates and log weights at the target, stage by stage."""

    beta: float
    stages: tuple[tuple[Array, Array, float], ...]

    @property
    def n_effective(self) -> float:
        return sum(n for _, _, n in self.stages)

    def populations(
        self, k: int, *, bins: int, ranges: Ranges | None
    ) -> tuple[Array, Array, Array]:
        """Populations of the bins of coordinate k, errors, effective numbers of samples."""
        mean, variance, number = np.zeros(bins), np.zeros(bins), np.zeros(bins)
        for y, log_weights, n in self.stages:
            part = weighted_histogram(y[:, k], log_weights, bins=bins, ranges=ranges)
            share = n / self.n_effective
            mean += share * part.probabilities
            variance += (share * part.errors) ** 2
            number += part.n_effective
        return mean, np.sqrt(variance), number


def _groups(stages: Sequence[Stage], *, n_groups: int = 8) -> list[list[Stage]]:
    """Stages sorted by beta, cut into groups of equal ratio of temperatures."""
    ordered = sorted(stages, key=lambda stage: stage[0])
    log_beta = np.log([stage[0] for stage in ordered])
    span = log_beta[-1] - log_beta[0]
    index = ((log_beta - log_beta[0]) / (span or 1.0) * n_groups).astype(int)
    index = np.minimum(index, n_groups - 1)
    return [[s for s, i in zip(ordered, index, strict=True) if i == g] for g in np.unique(index)]


def _reweighted(stages: Sequence[Stage], beta: float) -> _Group:
    """Move stages to `beta`; those without a finite weight drop out."""
    parts = []
    for beta_s, y, energy, log_w in stages:
        log_weights = to_array(log_w) - (beta - beta_s) * to_array(energy)
        log_weights = np.where(log_weights < np.inf, log_weights, -np.inf)  # NaN: no weight
        if np.isfinite(log_weights).any():
            w = normalised_weights(log_weights, len(log_weights))
            parts.append((to_array(y), log_weights, float(1.0 / (w**2).sum())))
    return _Group(min(stage[0] for stage in stages), tuple(parts))
