"""Paths of least free energy between two points of the collective variables, and along one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from gencg.analysis.histogram import Array, normalised_weights, to_array, wrap
from gencg.analysis.smooth_density import SmoothDensity, smooth_density

IntArray = NDArray[np.int64]

_FINE = 40
"""Points of a drawn piece for each step of a path."""
STENCIL = 4
"""Longest step on the grid in cells; directions are exact to 4 degrees or so."""
N_NODES, N_NEIGHBOURS = 2000, 12
"""Nodes and neighbours of each of the graph for three or more variables."""
BACK = 1e6
"""How much dearer a step back is on the way along a variable."""
SAMPLES_PER_NODE = 20_000
"""Samples that the density at the nodes is summed over."""


@dataclass(frozen=True, eq=False)
class CVPath:
    """A curve in the space of the collective variables.

    Attributes:
        points: Points along it, ``(n, n_cvs)``; angles in [-pi, pi).
        periodic: Whether the variables are angles in radians.
        closed: Whether it comes back to where it began, once around the torus.
    """

    points: Array
    periodic: bool
    closed: bool = False

    @property
    def unwrapped(self) -> Array:
        """Points of a curve without jumps, ``(n, n_cvs)``."""
        if not self.periodic:
            return self.points
        steps = wrap(np.diff(self.points, axis=0))
        return np.vstack([self.points[:1], self.points[:1] + np.cumsum(steps, 0)])

    @property
    def pieces(self) -> list[Array]:
        """The curve for drawing: of angles in [-pi, pi), in parts that end at the seam."""
        if not self.periodic or len(self.points) < 2:
            return [self.points]
        at = np.linspace(0, len(self.points) - 1, _FINE * (len(self.points) - 1) + 1)
        curve = [np.interp(at, np.arange(len(self.points)), column) for column in self.unwrapped.T]
        fine = wrap(np.stack(curve, 1))
        jump = np.abs(np.diff(fine, axis=0)).max(1) > np.pi
        return list(np.split(fine, np.flatnonzero(jump) + 1))

    @property
    def arc(self) -> Array:
        """Length up to each point, ``(n,)``, in rad or units of the variables."""
        steps = np.linalg.norm(np.diff(self.unwrapped, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def resample(self, n: int) -> "CVPath":
        """`n` points at equal distances along it.

        Raises:
            ValueError: If `n` is below 2.
        """
        if n < 2:
            raise ValueError(f"`n` must be at least 2 points, got {n}")
        arc, points = self.arc, self.unwrapped
        at = np.linspace(0, arc[-1], n)
        columns = [np.interp(at, arc, column) for column in points.T]
        return self._moved(np.stack(columns, 1))

    def smooth(self, width: float) -> "CVPath":
        """The curve averaged over a Gaussian of this length along itself; its ends stay."""
        fine = self.resample(max(4 * len(self.points), 200))
        arc, points = fine.arc, fine.unwrapped
        if arc[-1] <= 0:
            return self
        straight = points[0] + (points[-1] - points[0]) * (arc / arc[-1])[:, None]
        rest = points - straight  # zero at both ends, and odd beyond them
        step = arc[-1] / (len(arc) - 1)
        beyond = np.vstack([-rest[:0:-1], rest, -rest[-2::-1]])
        if self.closed:
            beyond = np.vstack([rest[:-1], rest, rest[1:]])
        offsets = np.arange(-int(4 * width / step) - 1, int(4 * width / step) + 2)
        offsets = offsets[np.abs(offsets) < len(arc) - 1]
        kernel = np.exp(-0.5 * (offsets * step / width) ** 2)
        index = np.arange(len(rest))[:, None] + len(rest) - 1 + offsets
        return fine._moved(straight + np.einsum("ijk,j->ik", beyond[index], kernel) / kernel.sum())

    def _moved(self, points: Array) -> "CVPath":
        return CVPath(wrap(points) if self.periodic else points, self.periodic, self.closed)


def free_energy_path(
    z: Any,
    log_weights: Any = None,
    *,
    start: Sequence[float],
    end: Sequence[float],
    periodic: bool,
    bins: int = 72,
    n_points: int = 60,
    seed: int = 0,
) -> CVPath:
    r"""The path of least resistance between two points.

    .. math:: \min_{\text{path}} \int e^{\beta F(z)}\, |dz|

    the MaxFlux path: of all tubes of one width the one that carries most overdamped flux, so that
    its passes are the low ones, and where the surface is flat it goes straight. Found by
    Dijkstra's algorithm, on a grid over the smoothed density for one or two variables, on a
    graph of samples (each joined to its `N_NEIGHBOURS` nearest) for more. Angles go around where
    that is shorter.

    Args:
        z: Collective variables of the samples, ``(n, n_cvs)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        start: Where it begins, ``(n_cvs,)``.
        end: Where it ends.
        periodic: Whether the variables are angles in radians.
        bins: Cells along each variable of the grid.
        n_points: Points of the path.
        seed: Decides which samples are nodes.

    Raises:
        ValueError: If z is not of shape ``(n, n_cvs)`` and finite where there is weight, or the
            ends have another length, are one point, or lie where no sample is.

    References:
        | The MaxFlux algorithm for calculating variationally optimized reaction paths (Huo,
          Straub, 1997), https://doi.org/10.1063/1.474863
    """
    z, log_w = _checked(z, log_weights, periodic)
    ends = np.stack([_point(p, name, z, periodic) for name, p in (("start", start), ("end", end))])
    if np.allclose(ends[0], ends[1]):
        raise ValueError("`start` and `end` are one point: there is no path between them")
    nodes, _, graph, spacing = _graph(z, log_w, periodic, bins, seed, ends)
    first, last = (int(np.argmin(np.linalg.norm(_away(nodes, e, periodic), axis=1))) for e in ends)
    cost, before = dijkstra(graph, indices=first, return_predecessors=True)
    if not np.isfinite(cost[last]):
        raise ValueError("no samples join `start` and `end`; draw more, or use fewer variables")
    inner = nodes[_trace(before, first, last)][1:-1]
    return CVPath(np.vstack([ends[:1], inner, ends[1:]]), periodic).smooth(spacing).resample(
        n_points
    )  # fmt: skip


def path_along(
    z: Any,
    log_weights: Any = None,
    *,
    cv: int,
    periodic: bool,
    bins: int = 72,
    n_points: int = 60,
    share: float = 1e-3,
    seed: int = 0,
) -> CVPath:
    r"""The path of least resistance :math:`\int e^{\beta F} |dz|` along one variable.

    It never moves back in this variable (where there is another way), the others are free: around
    the whole circle and back to its beginning, the minimum of the free energy, for an angle; over
    all but `share` of the weight on each side on the line.

    Args:
        z: Collective variables of the samples, ``(n, n_cvs)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        cv: Which variable, counted from 0.
        periodic: Whether the variables are angles in radians.
        bins: Cells along each variable of the grid.
        n_points: Points of the path.
        share: Weight left out at each end of a line.
        seed: Decides which samples are points to pass through, for three or more variables.

    Raises:
        ValueError: If z is not usable or has no such variable.
    """
    z, log_w = _checked(z, log_weights, periodic)
    d = z.shape[1]
    if not 0 <= cv < d:
        raise ValueError(f"`cv` must lie between 0 and {d - 1}, got {cv}")
    nodes, free_energy, graph, spacing = _graph(z, log_w, periodic, bins, seed)
    if periodic:
        first = int(np.argmin(free_energy))
        last = len(nodes)  # the same point, one turn later
    else:
        low, high = _quantiles(z[:, cv], log_w, share)
        at_end = [np.abs(nodes[:, cv] - edge) <= spacing for edge in (low, high)]
        first, last = (int(np.argmin(np.where(end, free_energy, np.inf))) for end in at_end)
        if first == last:
            raise ValueError(f"`cv` {cv} hardly varies: there is nothing to walk along")
    turned = _forward(graph, nodes[:, cv], first, periodic)
    cost, before = dijkstra(turned, indices=first, return_predecessors=True)
    if not np.isfinite(cost[last]):
        raise ValueError(f"no samples join both ends of `cv` {cv}; draw more")
    points = np.vstack([nodes, nodes[first]])[_trace(before, first, last)]
    path = CVPath(points, periodic, closed=periodic)
    return path.smooth(spacing).resample(n_points)


def _graph(
    z: Array,
    log_w: Array | None,
    periodic: bool,
    bins: int,
    seed: int,
    ends: Array | None = None,
) -> tuple[Array, Array, Any, float]:
    """Points, their free energy in kT, the cost of the way between near ones, and their spacing."""
    if z.shape[1] <= 2:
        density = smooth_density(z, log_w, periodic=periodic, bins=bins)
        free_energy = density.reduced_free_energy.ravel()
        spacing = max(float(edge[1] - edge[0]) for edge in density.edges)
        return density.points, free_energy, _grid_graph(density, free_energy), spacing
    nodes = _spread_out(z, N_NODES, periodic, seed)
    nodes = nodes if ends is None else np.vstack([ends, nodes])
    free_energy = _free_energy(nodes, z, log_w, periodic, seed)
    return nodes, free_energy, *_neighbour_graph(nodes, free_energy, periodic)


def _forward(graph: Any, values: Array, first: int, periodic: bool) -> Any:
    """The graph with steps back in a variable made dear; on the circle cut open at its beginning.

    There its steps over the cut are left out, but for those into the beginning itself, which lead
    to one more node, the beginning after one turn.
    """
    edges = graph.tocoo()
    rows, columns, costs = edges.row, edges.col, edges.data.copy()
    n = len(values)
    if not periodic:
        costs[values[columns] < values[rows] - 1e-9] *= BACK
        return sparse.csr_matrix((costs, (rows, columns)), shape=(n, n))
    along = (values - values[first]) % (2 * np.pi)
    along[along > 2 * np.pi - 1e-9] = 0.0
    step = wrap(values[columns] - values[rows])
    over = np.abs(along[columns] - along[rows] - step) > 1e-6
    home = (columns == first) & (step > 0) & over
    columns = np.where(home, n, columns)
    costs[(step < -1e-9) & ~over] *= BACK
    kept = ~over | home
    return sparse.csr_matrix((costs[kept], (rows[kept], columns[kept])), shape=(n + 1, n + 1))


def _trace(before: Any, first: int, last: int) -> list[int]:
    """Nodes from the first to the last, by each one's predecessor."""
    chain = [last]
    while chain[-1] != first:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def _grid_graph(density: SmoothDensity, free_energy: Array) -> Any:
    """Cells joined to those within `STENCIL` steps, at the cost of the way between them.

    The resistance of a longer step is summed over the cells that it passes.
    """
    shape = density.probabilities.shape
    widths = np.array([edge[1] - edge[0] for edge in density.edges])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    index = index.reshape(-1, len(shape))
    resistance = np.exp(free_energy).reshape(shape)
    rows, columns, costs = [], [], []
    for step in product(range(-STENCIL, STENCIL + 1), repeat=len(shape)):
        if np.gcd.reduce(np.abs(step)) != 1:
            continue
        there = index + step
        if density.periodic:
            there, kept = there % shape, np.ones(len(index), dtype=bool)
        else:
            kept = np.asarray(((there >= 0) & (there < shape)).all(1))
        n = 2 * int(np.abs(step).max())
        mean = np.zeros(len(index))
        for k in range(n + 1):
            between = np.round(index + np.array(step) * (k / n)).astype(int)
            between = (
                between % shape if density.periodic else np.clip(between, 0, np.array(shape) - 1)
            )
            mean += (0.5 if k in (0, n) else 1.0) / n * resistance[tuple(between.T)]
        start = np.asarray(np.ravel_multi_index(tuple(index.T), shape))
        rows.append(start[kept])
        columns.append(np.asarray(np.ravel_multi_index(tuple(there[kept].T), shape)))
        costs.append(mean[kept] * float(np.linalg.norm(np.array(step) * widths)))
    n_cells = int(np.prod(shape))
    entries = (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(n_cells, n_cells))


def _neighbour_graph(nodes: Array, free_energy: Array, periodic: bool) -> tuple[Any, float]:
    """Nodes joined to their nearest, and the usual distance of neighbours.

    Far apart nodes are joined until all of them hang together.
    """
    tree = cKDTree(nodes % (2 * np.pi), boxsize=2 * np.pi) if periodic else cKDTree(nodes)
    asked = nodes % (2 * np.pi) if periodic else nodes
    resistance = np.exp(free_energy - free_energy.min())
    k = min(N_NEIGHBOURS, len(nodes) - 1)
    while True:
        distance, near = tree.query(asked, k + 1)
        rows, columns = np.repeat(np.arange(len(nodes)), k), near[:, 1:].ravel()
        costs = 0.5 * distance[:, 1:].ravel() * (resistance[rows] + resistance[columns])
        graph = sparse.csr_matrix((costs, (rows, columns)), shape=(len(nodes),) * 2)
        graph = graph.maximum(graph.T)
        parts = sparse.csgraph.connected_components(graph, directed=False)[0]
        if parts == 1 or k >= len(nodes) - 1:
            return graph, float(np.median(distance[:, 1]))
        k = min(2 * k, len(nodes) - 1)


def _spread_out(z: Array, n: int, periodic: bool, seed: int) -> Array:
    """Samples far from each other, wherever there are any: each the farthest from those before."""
    few = z[np.random.default_rng(seed).permutation(len(z))[:SAMPLES_PER_NODE]]
    if len(few) <= n:
        return few
    flat = torch.from_numpy(_embedded(few, periodic))
    size = flat.square().sum(1)
    chosen, nearest = [0], torch.full((len(few),), torch.inf, dtype=flat.dtype)
    while len(chosen) < n:
        last = chosen[-1]
        nearest = torch.minimum(nearest, size - 2 * (flat @ flat[last]) + size[last])
        chosen.append(int(nearest.argmax()))
    return np.asarray(few[chosen])


def _free_energy(nodes: Array, z: Array, log_w: Array | None, periodic: bool, seed: int) -> Array:
    """Free energy at nodes in kT by a Gaussian kernel of Scott's width, on circles von Mises'."""
    few = np.random.default_rng(seed).permutation(len(z))[:SAMPLES_PER_NODE]
    w = torch.from_numpy(normalised_weights(None if log_w is None else log_w[few], len(few)))
    flat, at = (torch.from_numpy(_embedded(part, periodic)) for part in (z[few], nodes))
    spread = (w @ (flat - w @ flat).square()).sum().div(z.shape[1]).sqrt()
    width = float(spread * w.square().sum() ** (1 / (z.shape[1] + 4)))
    p = torch.cat(
        [
            torch.exp(-0.5 * torch.cdist(part, flat).square() / width**2) @ w
            for part in at.split(200)  # type: ignore[no-untyped-call]
        ]
    )
    return np.asarray(-torch.log((p / p.max()).clamp_min(1e-12)).numpy())


def _embedded(z: Array, periodic: bool) -> Array:
    """Angles as points of circles of radius 1."""
    return np.hstack([np.cos(z), np.sin(z)]) if periodic else z


def _checked(z: Any, log_weights: Any, periodic: bool) -> tuple[Array, Array | None]:
    z = to_array(z)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"`z` must have shape (n, n_cvs) with at least one CV, got {z.shape}")
    alive = normalised_weights(log_weights, len(z)) > 0
    if not np.isfinite(z[alive]).all():
        raise ValueError("`z` must be finite for every sample with weight; mark the others invalid")
    log_w = None if log_weights is None else to_array(log_weights)[alive]
    return wrap(z[alive]) if periodic else z[alive], log_w


def _point(point: Sequence[float], name: str, z: Array, periodic: bool) -> Array:
    out = np.asarray(point, dtype=np.float64)
    if out.shape != (z.shape[1],) or not np.isfinite(out).all():
        raise ValueError(f"`{name}` must be {z.shape[1]} finite numbers, got {out.tolist()}")
    if periodic:
        return wrap(out)
    low, high = z.min(0), z.max(0)
    if ((out < low) | (out > high)).any():
        raise ValueError(
            f"`{name}` must lie where samples are, from {low.tolist()} to {high.tolist()}, "
            f"got {out.tolist()}"
        )
    return out


def _away(z: Array, point: Array, periodic: bool) -> Array:
    return wrap(z - point) if periodic else np.asarray(z - point)


def _quantiles(values: Array, log_w: Array | None, share: float) -> tuple[float, float]:
    w = normalised_weights(log_w, len(values))
    order = np.argsort(values)
    at = np.searchsorted(np.cumsum(w[order]), [share, 1 - share]).clip(0, len(values) - 1)
    low, high = values[order][at]
    return float(low), float(high)
