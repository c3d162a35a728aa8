"""Metastable states from slow functions: corners of a simplex, found where weight is scarce."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg import html
from gencg.analysis.histogram import Array, normalised_weights, to_array

IntArray = NDArray[np.int64]

FEWEST_EFFECTIVE = 5.0
"""Effective samples that the surroundings of a corner must hold."""
REACH = 0.25
"""Surroundings of a corner, as a share of its distance from what is known already."""
CRISP = 0.9
"""Crispness below which a state is no well of its own: free diffusion on a line reaches 0.89."""


@dataclass(frozen=True, eq=False)
class MetastableStates:
    r"""States as the corners of a simplex in the space of the slow functions.

    Attributes:
        corners: Values of the slow functions in each state, ``(n_states, n_states - 1)``, the most
            populated state first.
        memberships: How much each sample belongs to each state, ``(n, n_states)``, in [0, 1] with
            sum 1; 0 everywhere for a sample without finite values.
        labels: State of each sample, the one it belongs to most, ``(n,)``; -1 without finite
            values.
        populations: Weight of each state by `labels`, ``(n_states,)``.
        crispness: Mean membership of a state's own samples, :math:`E_p[\chi_j | j]`,
            ``(n_states,)``: 1 where all of them are in it, less where many are on their way, as
            for a slow process that is no exchange of states.
        n_effective: Effective number of samples in each state, ``(n_states,)``.
    """

    corners: Array
    memberships: Array
    labels: IntArray
    populations: Array
    crispness: Array
    n_effective: Array

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.corners)

    def at(self, functions: Any) -> Array:
        """Memberships ``(n, n_states)`` of other values of the slow functions, ``(n, m)``."""
        return _memberships(to_array(functions), self.corners)

    def _repr_html_(self) -> str:
        columns = (self.populations, self.crispness, self.n_effective)
        rows = [
            (str(j + 1), f"{100 * p:.3g}", f"{crisp:.2f}", f"{n:,.0f}")
            for j, (p, crisp, n) in enumerate(zip(*columns, strict=True))
        ]
        return html.table(("state", "population (%)", "crispness", "effective samples"), rows)

    def __repr__(self) -> str:
        shares = ", ".join(f"{100 * p:.3g} %" for p in self.populations)
        return f"MetastableStates({self.n_states}: {shares})"


def metastable_states(
    functions: Any,
    log_weights: Any = None,
    *,
    n_states: int | None = None,
    min_population: float = 1e-3,
    n_rounds: int = 50,
) -> MetastableStates:
    r"""Metastable states of weighted samples, from their slow functions.

    A slow function of reversible dynamics is constant in a metastable state, so that samples of
    m + 1 states fill a simplex with m + 1 corners in the space of m functions, and membership is
    linear in them (PCCA+):

    .. math:: \chi = A^{-1} \begin{pmatrix} 1 \\ g \end{pmatrix}, \qquad
              A_{\cdot j} = \begin{pmatrix} 1 \\ c_j \end{pmatrix}

    A state of weight p lies :math:`\sqrt{(1 - p)/p}` away from the mean, so that rare states are
    the easiest corners to see, and the first to be lost: to clustering, which minimises a variance
    that they have no part in, and to the plain extremes of PCCA+, which are outliers of no weight.
    Here

    1. corners are sought from the farthest sample inwards, each the mean of surroundings that hold
       at least a quarter of `min_population` and `FEWEST_EFFECTIVE` effective samples;
    2. memberships are filled from the rarest state, which lies farthest, to the most populated,
       each getting what is left of one: a function that is noisy on a rare state, where it costs
       nothing, cannot take it away;
    3. corners move to the average of their own samples until nothing changes.

    Only values enter: any number of collective variables, of any kind.

    Args:
        functions: Slow functions at the samples, of mean 0 and variance 1, slowest first,
            ``(n, m)``.
        log_weights: Unnormalised log weights, ``(n,)``; None: equal weights.
        n_states: Number of states; None: m + 1, or fewer where fewer hold `min_population`. A
            smaller number takes the slowest functions.
        min_population: Smallest population of a state that is looked for.
        n_rounds: Rounds of step 3 at most.

    Raises:
        ValueError: If `functions` are not of shape ``(n, m)``, `n_states` is not between 2 and
            m + 1, or the samples show fewer states.

    References:
        | Robust Perron cluster analysis in conformation dynamics (Deuflhard, Weber, 2005),
          https://doi.org/10.1016/j.laa.2004.10.026
        | Fuzzy spectral clustering by PCCA+ (Röblitz, Weber, 2013),
          https://doi.org/10.1007/s11634-013-0134-6
    """
    g = to_array(functions)
    if g.ndim != 2 or 0 in g.shape:
        raise ValueError(f"`functions` must have shape (n, m) with m at least 1, got {g.shape}")
    most = g.shape[1] + 1
    if n_states is not None and not 2 <= n_states <= most:
        raise ValueError(
            f"`n_states` must lie between 2 and {most}, one more than the {most - 1} slow "
            f"function{'s' * (most > 2)}, got {n_states}"
        )
    if not 0 < min_population < 0.5:
        raise ValueError(f"`min_population` must lie in (0, 0.5), got {min_population}")
    w = normalised_weights(log_weights, len(g))
    alive = (w > 0) & np.isfinite(g).all(1)
    if not alive.any():
        raise ValueError("`functions` are finite for no sample with weight")
    for n in range(n_states or most, 1, -1):
        used, weights = g[alive][:, : n - 1], w[alive] / w[alive].sum()
        corners = _corners(used, weights, min_population)
        corners = None if corners is None else _settled(corners, used, weights, n_rounds)
        if corners is not None:
            return _described(corners, g, w)
        if n_states is not None:
            break
    raise ValueError(
        f"the samples do not show {n_states or 2} states that hold {100 * min_population:g} % "
        "each; ask for fewer, or draw more samples"
    )


def _corners(g: Array, w: Array, min_population: float) -> Array | None:
    """Corners ``(m + 1, m)`` of functions ``(n, m)``, the farthest last; None if there are fewer.

    The first m span the space together with the mean; the last lies farthest from their plane.
    """
    m = g.shape[1]
    mean = w @ g
    found: list[Array] = []
    free = np.ones(len(g), dtype=bool)
    for _ in range(m):
        corner = _farthest(g, w, mean, np.reshape(found, (-1, m)) - mean, free, min_population)
        if corner is None:
            return None
        found.append(corner)
        # What lies beyond half of the way to a corner is its own, however far it strays sideways
        way = corner - mean
        free &= (g - mean) @ way < 0.5 * way @ way
    plane = np.array(found[1:]) - found[0] if m > 1 else np.zeros((0, m))
    last = _farthest(g, w, found[0], plane, free, min_population)
    return None if last is None else np.array([last, *found[::-1]])


def _farthest(
    g: Array, w: Array, origin: Array, spanned: Array, free: Any, min_population: float
) -> Array | None:
    """Mean of the farthest surroundings that hold weight, away from a plane through `origin`."""
    offset = g - origin
    if len(spanned):
        basis = np.linalg.qr(spanned.T)[0]
        offset = offset - (offset @ basis) @ basis.T
    distance = np.linalg.norm(offset, axis=1)
    left = free.copy()
    while left.any():
        far = int(np.argmax(np.where(left, distance, -1.0)))
        if distance[far] <= 0:
            return None
        near = np.linalg.norm(offset - offset[far], axis=1) <= REACH * distance[far]
        near &= free
        mass, squares = float(w[near].sum()), float((w[near] ** 2).sum())
        if mass >= 0.25 * min_population and mass**2 >= FEWEST_EFFECTIVE * squares:
            return np.asarray(w[near] @ g[near] / mass)
        # Close to an outlier of no weight there are others; half of the surroundings is passed by
        left &= np.linalg.norm(offset - offset[far], axis=1) > 0.5 * REACH * distance[far]
    return None


def _settled(corners: Array, g: Array, w: Array, n_rounds: int) -> Array | None:
    """Corners as the means of their own samples; None where one loses all of them."""
    labels = np.full(len(g), -1)
    for _ in range(n_rounds):
        if np.linalg.cond(_system(corners)) > 1e8:
            return None
        now = _memberships(g, corners).argmax(1)
        mass = np.bincount(now, w, len(corners))
        if (mass <= 0).any():
            return None
        order = np.argsort(mass, kind="stable")[::-1]
        if np.array_equal(now, labels) and np.array_equal(order, np.arange(len(corners))):
            break
        sums = np.stack([np.bincount(now, w * column, len(corners)) for column in g.T], 1)
        corners, labels = (sums / mass[:, None])[order], np.argsort(order)[now]
    return corners


def _system(corners: Array) -> Array:
    return np.vstack([np.ones(len(corners)), corners.T])


def _memberships(g: Array, corners: Array) -> Array:
    """Barycentric coordinates within [0, 1], the last corner filled first."""
    g = g[:, : corners.shape[1]]
    finite = np.asarray(np.isfinite(g).all(1))
    rows = np.vstack([np.ones(len(g)), np.where(finite[:, None], g, 0.0).T])
    chi = np.linalg.solve(_system(corners), rows).T
    left = np.where(finite, 1.0, 0.0)
    for j in range(len(corners) - 1, 0, -1):
        chi[:, j] = np.clip(chi[:, j], 0.0, left)
        left = left - chi[:, j]
    chi[:, 0] = left
    return np.asarray(chi)


def _described(corners: Array, g: Array, w: Array) -> MetastableStates:
    chi = _memberships(g, corners)
    labels = np.where(chi.sum(1) > 0, chi.argmax(1), -1).astype(np.int64)
    inside = labels >= 0
    mass, squares = (np.bincount(labels[inside], v[inside], len(corners)) for v in (w, w**2))
    own = np.bincount(labels[inside], (w * chi.max(1))[inside], len(corners))
    return MetastableStates(
        corners=corners,
        memberships=chi,
        labels=labels,
        populations=mass / mass.sum(),
        crispness=own / np.maximum(mass, 1e-300),
        n_effective=mass**2 / np.maximum(squares, 1e-300),
    )
