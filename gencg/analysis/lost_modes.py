"""Lost modes: what probes find and the generator does not draw.

A probe knows the population of every window of the soft coordinates, each alone and in pairs,
and log Z, without asking the generator. Where it finds more than one in a thousand and the
generator's samples next to nothing, a mode was lost; where its log Z is larger, the generator
misses part of the density, wherever that is.

Cannot see: a mode that differs from populated ones only in three or more coordinates at once and
is too small to show in log Z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg.analysis.histogram import Array, Ranges, normalised_weights, to_array, wrap
from gencg.analysis.probes import Probe
from gencg.importance import log_partition

BINS, WIDEST = 12, 4
"""Bins of 30 degrees, windows of one to four of them: every well fits into one of its own."""
MIN_EFFECTIVE = 5.0
"""Effective samples of a probe that make a window real, not an outlier."""
MIN_EXPECTED = 25.0
"""Effective samples of the ensemble that a window must be due, for their absence to mean it."""
KEPT = 0.2
"""Share of the population due that counts as still there."""
FEW_EFFECTIVE = 30.0
"""Effective samples of a probe below which it sees only what is large."""


@dataclass(frozen=True)
class LostWindow:
    """A window of one or two soft coordinates that a probe fills and the ensemble does not.

    Attributes:
        names: The coordinates.
        low: Lower edges, in rad (or the coordinate's own unit).
        high: Upper edges, beyond π where the window goes round.
        expected: Population by the probe.
        expected_error: Its standard error.
        found: Population in the ensemble, reweighted.
        raw: Population in the ensemble, as drawn.
        angle: Whether the coordinates are angles, to be printed in degrees.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    expected: float
    expected_error: float
    found: float
    raw: float
    angle: bool

    def __str__(self) -> str:
        scale, unit = (180 / np.pi, " deg") if self.angle else (1.0, "")
        where = ", ".join(
            f"{name} {low * scale:.3g} to {high * scale:.3g}{unit}"
            for name, low, high in zip(self.names, self.low, self.high, strict=True)
        )
        few = " on a few heavy samples" if self.found >= KEPT * self.expected else ""
        return (
            f"{where} (expected {self.expected:.2g} ± {self.expected_error:.1g}, "
            f"found {self.found:.2g}{few})"
        )


@dataclass(frozen=True)
class ModeCheck:
    """What one probe says about an ensemble.

    Attributes:
        name: Where the probe comes from.
        n_effective: Effective number of its samples.
        log_z: Its log partition function.
        log_z_error: The standard error.
        log_z_excess: `log_z` less that of the ensemble: -log(1 - p) where a mode of population p
            is lost.
        log_z_excess_error: The standard error.
        lost: Windows that got lost, the most populated first, one for each set of coordinates.
        n_windows: Windows that the probe could vouch for.
        n_energy_calls: Energy calls spent on it.
    """

    name: str
    n_effective: float
    log_z: float
    log_z_error: float
    log_z_excess: float
    log_z_excess_error: float
    lost: tuple[LostWindow, ...]
    n_windows: int
    n_energy_calls: int

    @property
    def misses_density(self) -> bool:
        """Whether the ensemble's log Z is too small by a thousandth, beyond four errors."""
        return self.log_z_excess - 4 * self.log_z_excess_error > 1e-3

    @property
    def blind(self) -> bool:
        """Whether the probe has too few effective samples, or a log Z that shows it did not settle.

        Half of the density that the ensemble has is then unknown to the probe.
        """
        late = self.log_z_excess + 3 * self.log_z_excess_error < -np.log(2)
        return bool(self.n_effective < FEW_EFFECTIVE or late or self.n_windows == 0)


def check_modes(
    probe: Probe,
    soft: Tensor,
    log_weights: Tensor,
    *,
    names: Sequence[str],
    periodic: bool,
    threshold: float = 1e-3,
) -> ModeCheck:
    r"""Compare the populations and log Z of an ensemble with those of a probe.

    A window is lost where the probe has at least `MIN_EFFECTIVE` effective samples in it and the
    population may exceed `threshold`, :math:`p + 2\,\mathrm{se}`, while the ensemble holds less
    than the share `KEPT` of :math:`p - 2\,\mathrm{se}`, or holds it on fewer than
    `MIN_EFFECTIVE` effective samples where it is due `MIN_EXPECTED`. The number and lower limit
    of the probe are those of truncated weights, which err on the safe side.

    Args:
        probe: From `probe_modes`.
        soft: Soft coordinates of the ensemble, ``(n, n_soft)``.
        log_weights: Its log weights, ``(n,)``.
        names: Names of the soft coordinates.
        periodic: Whether they are angles.
        threshold: Smallest population worth an alarm.

    Raises:
        ValueError: If no sample of the ensemble or of the probe has weight.
    """
    ranges = _ranges((soft, log_weights), (probe.soft, probe.log_weights), periodic=periodic)
    options: dict[str, Any] = {"ranges": ranges, "periodic": periodic, "threshold": threshold}
    here = _Cells(soft, log_weights, **options)
    there = _Cells(probe.soft, probe.log_weights, **options)
    lost, n_windows = [], 0
    singles, pairs = ((k,) for k in range(len(names))), combinations(range(len(names)), 2)
    for index in (*singles, *pairs):
        window, n = _worst_window(there, here, index, names, threshold)
        n_windows += n
        lost += [] if window is None else [window]
    log_z, error = log_partition(probe.log_weights)
    own, own_error = log_partition(log_weights)
    return ModeCheck(
        name=probe.name,
        n_effective=there.n_effective,
        log_z=float(log_z),
        log_z_error=float(error),
        log_z_excess=float(log_z - own),
        log_z_excess_error=float(torch.hypot(error, own_error)),
        lost=tuple(sorted(lost, key=lambda w: (len(w.names), -w.expected))),
        n_windows=n_windows,
        n_energy_calls=probe.n_energy_calls,
    )


class _Cells:
    """Samples sorted into `BINS` cells along each soft coordinate.

    Besides the weights, weights truncated at a fifth of the threshold (Ionides 2008): a few
    heavy samples then cannot make a population, nor hide the many light ones beside them.
    """

    def __init__(
        self,
        soft: Tensor,
        log_weights: Tensor,
        *,
        ranges: Ranges,
        periodic: bool,
        threshold: float,
    ) -> None:
        alive = to_array(log_weights) > -np.inf
        w = normalised_weights(log_weights, len(alive))[alive]
        x = to_array(soft)[alive]
        low, high = np.asarray(ranges, dtype=np.float64).T
        position = ((wrap(x) if periodic else x) - low) / (high - low) * BINS
        self.cells = np.clip(position.astype(np.int64), 0, BINS - 1)
        held = np.minimum(w, threshold / MIN_EFFECTIVE)
        share = np.full(len(w), 1 / len(alive))
        self.weights = np.stack([w, w**2, share, held, held**2])
        self.ranges, self.periodic = ranges, periodic

    @property
    def n_effective(self) -> float:
        """Effective number of samples."""
        return float(1 / self.weights[1].sum())

    def sums(self, index: tuple[int, ...]) -> Array:
        """Weight, squared weight, share of samples, truncated weight and its square by cell."""
        shape = (BINS,) * len(index)
        cell = np.ravel_multi_index(tuple(self.cells[:, k] for k in index), shape)
        rows = [np.bincount(cell, w, BINS ** len(index)).reshape(shape) for w in self.weights]
        return np.stack(rows)

    def windows(self, sums: Array, width: int) -> Array:
        """The same over all windows of `width` cells along each coordinate."""
        for axis in range(1, sums.ndim):
            if self.periodic:
                sums = np.sum([np.roll(sums, -k, axis) for k in range(width)], axis=0)
            else:
                n = BINS - width + 1
                parts = [np.take(sums, range(k, k + n), axis) for k in range(width)]
                sums = np.sum(parts, axis=0)
        return sums

    def errors(self, sums: Array) -> Array:
        """Standard errors of the populations, by the delta method."""
        p, p2 = sums[:2]
        rest = np.maximum(1 / self.n_effective - p2, 0.0)
        return np.asarray(np.sqrt(p2 * (1 - p) ** 2 + p**2 * rest))

    def at_least(self, sums: Array) -> tuple[Array, Array]:
        """Two standard errors below the truncated populations; whether enough samples count."""
        p, p2 = sums[3:]
        return p - 2 * np.sqrt(p2), p**2 >= MIN_EFFECTIVE * p2


def _worst_window(
    there: _Cells, here: _Cells, index: tuple[int, ...], names: Sequence[str], threshold: float
) -> tuple[LostWindow | None, int]:
    """The lost window of the largest population, and the number of those that could be told."""
    worst, n_windows = None, 0
    expected, found = there.sums(index), here.sums(index)
    for width in range(1, WIDEST + 1):
        sums, own = there.windows(expected, width), here.windows(found, width)
        p, error = sums[0], there.errors(sums)
        sure, real = there.at_least(sums)
        told = real & (p + 2 * error > threshold) & (sure * here.n_effective >= MIN_EXPECTED)
        n_windows += int(told.sum())
        gone = told & ((own[0] < KEPT * sure) | (own[0] ** 2 < MIN_EFFECTIVE * own[1]))
        if not gone.any():
            continue
        at = np.unravel_index(np.where(gone, p, 0.0).argmax(), p.shape)
        # A wider window has to hold clearly more to be the better description
        if worst is None or p[at] > 1.1 * worst.expected:
            ranges = [there.ranges[k] for k in index]
            steps = [(high - low) / BINS for low, high in ranges]
            lows = [r[0] + c * step for r, c, step in zip(ranges, at, steps, strict=True)]
            worst = LostWindow(
                names=tuple(names[k] for k in index),
                low=tuple(map(float, lows)),
                high=tuple(float(a + width * step) for a, step in zip(lows, steps, strict=True)),
                expected=float(p[at]),
                expected_error=float(error[at]),
                found=float(own[0][at]),
                raw=float(own[2][at]),
                angle=there.periodic,
            )
    return worst, n_windows


def _ranges(*samples: tuple[Tensor, Tensor], periodic: bool) -> Ranges:
    """The circle, or for each coordinate the span of all samples with weight."""
    reach = [to_array(soft)[to_array(log_w) > -np.inf] for soft, log_w in samples]
    n_soft = reach[0].shape[1]
    if periodic:
        return [(-np.pi, np.pi)] * n_soft
    x = np.concatenate(reach)
    return [(float(low), float(high)) for low, high in zip(x.min(0), x.max(0) + 1e-9, strict=True)]
