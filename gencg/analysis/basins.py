"""Basins of the free energy over collective variables, found from a weighted sample."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.analysis.histogram import Array, normalised_weights, to_array, wrap
from gencg.analysis.smooth_density import SmoothDensity, smooth_density

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Basin:
    """The surroundings of a minimum of the free energy.

    Attributes:
        centre: Where the density is highest, ``(n_cvs,)``.
        population: Probability of the basin.
        error: Its standard error.
        n_effective: Effective number of samples it rests on.
        mask: Which samples lie in it, ``(n,)`` bool.
        representative: Index of a sample near the centre that carries weight.
    """

    centre: tuple[float, ...]
    population: float
    error: float
    n_effective: float
    mask: BoolArray
    representative: int


def find_basins(
    z: Any,
    log_weights: Any = None,
    *,
    periodic: bool,
    bins: int = 72,
    smoothing: float | None = None,
    min_barrier: float = 1.0,
    min_population: float = 1e-3,
) -> tuple[Basin, ...]:
    r"""Cut the space of the collective variables into basins of the free energy.

    The cells of a smoothed histogram are visited from the highest density down. A cell without
    visited neighbours starts a basin; any other joins the basin of its highest neighbour. Where
    two basins meet, the shallower one goes into the other if its depth, the logarithm of the
    ratio of the densities at its minimum and at the pass, is below `min_barrier`. At the end a
    basin below `min_population` joins the one behind its lowest pass. Every sample with weight is
    in exactly one basin.

    With three or more variables the basins are those of the first two.

    Args:
        z: Collective variables of the samples, ``(n, n_cvs)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        periodic: Whether they are angles in radians.
        bins: Cells along each variable.
        smoothing: Width of the smoothing; see `smooth_density`.
        min_barrier: Smallest depth of a basin, in kT.
        min_population: Smallest population of a basin.

    Returns:
        The basins, the most populated first.

    Raises:
        ValueError: If z is not of shape ``(n, n_cvs)`` or not finite where there is weight.

    References:
        | Persistence-based clustering in Riemannian manifolds (Chazal et al., 2013),
          https://doi.org/10.1145/2535927
    """
    z = to_array(z)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"`z` must have shape (n, n_cvs) with at least one CV, got {z.shape}")
    w = normalised_weights(log_weights, len(z))
    alive = w > 0
    if not np.isfinite(z[alive]).all():
        raise ValueError("`z` must be finite for every sample with weight; mark the others invalid")
    z = wrap(z) if periodic else z
    density = smooth_density(
        z[:, :2], log_weights, periodic=periodic, bins=bins, smoothing=smoothing
    )
    cell = _cells(z[:, :2], density)
    populations = to_array(np.bincount(cell[alive], w[alive], density.probabilities.size))
    labels = cell_basins(
        density, populations, min_barrier=min_barrier, min_population=min_population
    )
    found = [
        _basin(z, w, alive & (labels[cell] == k), _highest(density, labels == k), density)
        for k in np.unique(labels)
    ]
    return tuple(sorted(found, key=lambda basin: -basin.population))


def cell_basins(
    density: SmoothDensity, populations: Array, *, min_barrier: float, min_population: float
) -> IntArray:
    """Basin that each cell of a grid belongs to, as the number of its highest cell, ``(n_cells,)``.

    Args:
        density: Smoothed density of the samples.
        populations: Weight in each cell, ``(n_cells,)``.
        min_barrier: Smallest depth of a basin, in kT.
        min_population: Smallest population of a basin.
    """
    return _merge_small(*_watershed(density, min_barrier), populations, min_population)


def _cells(z: Array, density: SmoothDensity) -> IntArray:
    """Number of the cell of each sample; beyond the ends of a line the outermost one."""
    cell = np.zeros(len(z), dtype=np.int64)
    for k, edge in enumerate(density.edges):
        bins = len(edge) - 1
        position = (np.nan_to_num(z[:, k]) - edge[0]) / (edge[-1] - edge[0]) * bins
        cell = cell * bins + np.clip(np.floor(position), 0, bins - 1).astype(np.int64)
    return cell


Passes = dict[tuple[int, int], float]


def _watershed(density: SmoothDensity, min_barrier: float) -> tuple[IntArray, Passes]:
    """Peak that each cell belongs to, and the log density at the pass between two peaks."""
    log_p = np.log(density.probabilities).ravel()
    neighbours = _neighbours(density.probabilities.shape, periodic=density.periodic)
    parent: dict[int, int] = {}

    def peak_of(c: int) -> int:
        while parent[c] != c:
            c = parent[c]
        return c

    label = np.full(log_p.size, -1, dtype=np.int64)
    passes: Passes = {}
    for c in np.argsort(-log_p, kind="stable").tolist():
        visited = [n for n in neighbours[c] if label[n] >= 0]
        if not visited:
            label[c] = parent[c] = c
            continue
        label[c] = label[max(visited, key=lambda n: log_p[n])]
        met = sorted({peak_of(int(label[n])) for n in visited}, key=lambda p: -log_p[p])
        for peak in met[1:]:
            if log_p[peak] - log_p[c] < min_barrier:
                parent[peak] = met[0]
        deep = sorted({peak_of(p) for p in met})
        for i, a in enumerate(deep):
            for b in deep[i + 1 :]:
                passes.setdefault((a, b), float(log_p[c]))
    return np.array([peak_of(int(p)) for p in label]), passes


def _neighbours(shape: tuple[int, ...], *, periodic: bool) -> list[list[int]]:
    index = np.arange(int(np.prod(shape))).reshape(shape)
    mode: Any = "wrap" if periodic else "constant"
    padded = np.pad(index, 1, mode=mode, **({} if periodic else {"constant_values": -1}))
    steps = [s for s in product((0, 1, 2), repeat=len(shape)) if s != (1,) * len(shape)]
    windows = [padded[tuple(slice(a, a + n) for a, n in zip(s, shape, strict=True))] for s in steps]
    table = np.stack(windows, -1).reshape(index.size, -1)
    return [[n for n in row if n >= 0] for row in table.tolist()]


def _merge_small(
    labels: IntArray, passes: Passes, populations: Array, min_population: float
) -> IntArray:
    """Give each basin that holds too little to the one behind its lowest pass."""
    labels = labels.copy()
    while True:
        peaks = np.unique(labels)
        shares = {int(p): float(populations[labels == p].sum()) for p in peaks}
        least = min(shares, key=lambda p: shares[p])
        if len(peaks) == 1 or shares[least] >= min_population:
            return labels
        ways = {sum(pair) - least: level for pair, level in passes.items() if least in pair}
        into = max(ways, key=lambda p: ways[p])
        labels[labels == least] = into
        passes = {pair: level for pair, level in passes.items() if least not in pair}
        for other, level in ways.items():
            if other != into:
                pair = (min(other, into), max(other, into))
                passes[pair] = max(level, passes.get(pair, -np.inf))


def _highest(density: SmoothDensity, cells: BoolArray) -> Array:
    inside = np.where(cells, density.probabilities.ravel(), 0.0)
    return np.asarray(density.points[int(inside.argmax())], dtype=np.float64)


def _basin(z: Array, w: Array, mask: BoolArray, peak: Array, density: SmoothDensity) -> Basin:
    members = np.flatnonzero(mask)
    weights = w[members]
    population, squares = float(weights.sum()), float((weights**2).sum())
    # Delta method for a ratio of sums, as in `weighted_histogram`
    rest = float((w**2).sum()) - squares
    error = np.sqrt(squares * (1 - population) ** 2 + population**2 * max(rest, 0.0))
    widths = np.full(z.shape[1], density.widths[-1])
    widths[: len(density.widths)] = density.widths
    centre = _centre(z[members], weights, peak, widths, density.periodic)
    # A sample of little weight would show a strained structure
    heavy = members[weights >= 0.5 * squares / population]
    offset = _offset(z[heavy], centre, density.periodic) / widths
    return Basin(
        centre=tuple(centre.tolist()),
        population=population,
        error=float(error),
        n_effective=population**2 / squares,
        mask=mask,
        representative=int(heavy[np.argmin((offset**2).sum(1))]),
    )


def _centre(z: Array, w: Array, start: Array, widths: Array, periodic: bool) -> Array:
    """Mean shift from the cell of highest density: where a Gaussian window is its own mean."""
    if periodic:
        mean = np.angle((w[:, None] * np.exp(1j * z)).sum(0))
    else:
        mean = (w[:, None] * z).sum(0) / w.sum()
    centre = np.concatenate([start, mean[len(start) :]])
    for _ in range(20):
        offset = _offset(z, centre, periodic)
        near = w * np.exp(-0.5 * ((offset / widths) ** 2).sum(1))
        if near.sum() <= 0:
            break
        centre = centre + (near[:, None] * offset).sum(0) / near.sum()
    return wrap(centre) if periodic else centre


def _offset(z: Array, centre: Array, periodic: bool) -> Array:
    return wrap(z - centre) if periodic else np.asarray(z - centre, dtype=np.float64)
