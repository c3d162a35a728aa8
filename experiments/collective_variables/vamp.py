"""VAMP-2 scores of Markov models on held-out trajectories, and their errors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]
States = NDArray[np.int64]


MOST_LEFT_OUT = 0.05
"""Share of held-out pairs outside of the connected states that may be left out."""


def pair_counts(states: States, lag: int, n_states: int) -> Array:
    """Pairs (state, state `lag` frames later) of each replica, ``(n_replicas, k, k)``.

    Args:
        states: State of every frame, ``(n_replicas, n_frames)``.
        lag: Frames between the two.
        n_states: Number k of states.

    Raises:
        ValueError: If the replicas are not longer than `lag`.
    """
    n_replicas, n_frames = states.shape
    if not 0 < lag < n_frames:
        raise ValueError(f"`lag` must lie in [1, {n_frames}), got {lag}")
    pairs = states[:, :-lag] * n_states + states[:, lag:]
    pairs = pairs + np.arange(n_replicas)[:, None] * n_states**2
    found = np.bincount(pairs.ravel(), minlength=n_replicas * n_states**2)
    return found.reshape(n_replicas, n_states, n_states).astype(np.float64)


@dataclass(frozen=True)
class SingularFunctions:
    """Leading singular functions of a Markov model, as values on its states.

    Attributes:
        left: Of the state now, ``(k, m)``; zero on states that were never left.
        right: Of the state later, ``(k, m)``.
        values: Singular values, falling; the first is 1, of the constant. ``(m,)``.
    """

    left: Array
    right: Array
    values: Array

    @classmethod
    def of(cls, counts: Array, n_functions: int) -> "SingularFunctions":
        r"""Those of :math:`C_{00}^{-1/2} C_{01} C_{11}^{-1/2}` of counts ``(k, k)``."""
        joint = counts / counts.sum()
        now, later = _inverse_root(joint.sum(1)), _inverse_root(joint.sum(0))
        u, s, v = np.linalg.svd(now[:, None] * joint * later)
        m = min(n_functions, len(s))
        return cls(now[:, None] * u[:, :m], later[:, None] * v[:m].T, s[:m])

    def moments(self, counts: Array) -> Array:
        r"""Covariances :math:`U^T C_{00} U`, :math:`U^T C_{01} V`, :math:`V^T C_{11} V` of counts.

        Args:
            counts: Of each replica, ``(n, k, k)``.

        Returns:
            Sums over pairs, not divided by their number, ``(n, 3, m, m)``.
        """
        u, v = self.left, self.right
        now = np.einsum("na,ai,aj->nij", counts.sum(2), u, u, optimize=True)
        later = np.einsum("nb,bi,bj->nij", counts.sum(1), v, v, optimize=True)
        joint = np.einsum("nab,ai,bj->nij", counts, u, v, optimize=True)
        return np.stack([now, joint, later], 1)


def vamp2(moments: Array) -> Array:
    r"""VAMP-2 score of functions with given covariances, the constant included.

    .. math:: R_2 = \bigl\| (U^T C_{00} U)^{-1/2} \, U^T C_{01} V \, (V^T C_{11} V)^{-1/2}
                    \bigr\|_F^2

    Functions chosen on other data than the covariances are of give at most the sum of squares of
    as many singular values of the dynamics, but for noise.

    Args:
        moments: As from `SingularFunctions.moments`, summed over replicas, ``(*batch, 3, m, m)``.

    Returns:
        Shape ``(*batch,)``.

    References:
        | Variational approach for learning Markov processes from time series data (Wu, Noé, 2020),
          eq. (33), https://arxiv.org/abs/1707.04659
    """
    now, joint, later = np.moveaxis(moments, -3, 0)
    # A function that is nowhere on the data has no part in the score
    now, later = (np.linalg.pinv(c, rcond=1e-10, hermitian=True) for c in (now, later))
    return np.asarray(np.einsum("...ij,...jk,...kl,...il->...", now, joint, later, joint))


def largest_connected(counts: Array) -> NDArray[np.bool_]:
    """States ``(k,)`` of the strongly connected set that holds most counts ``(k, k)``."""
    n, label = connected_components(counts > 0, directed=True, connection="strong")
    held = [counts[np.ix_(label == c, label == c)].sum() for c in range(n)]
    return np.asarray(label == int(np.argmax(held)))


def bootstrap_weights(n_replicas: int, n_draws: int, *, seed: int) -> Array:
    """How often each replica is drawn: once each in the first row, at random in the others."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_replicas, np.full(n_replicas, 1 / n_replicas), size=n_draws)
    return np.concatenate([np.ones((1, n_replicas)), drawn])


def held_out_scores(
    states: States, train: NDArray[np.bool_], *, lag: int, n_states: int, n_functions: int,
    weights: Array,
) -> Array:  # fmt: skip
    """VAMP-2 of the Markov model of some replicas on all the others.

    As is usual for Markov models, only the largest set of states counts that are connected both
    ways in the replicas trained on: of what does not exchange, dynamics say nothing. A replica in a
    state that none enters or leaves would take one of the functions to itself, for a constant
    on the others.

    Args:
        states: State of every frame, ``(n_replicas, n_frames)``.
        train: Replicas that the singular functions are taken from, ``(n_replicas,)``.
        lag: In frames.
        n_states: Number of states.
        n_functions: Leading singular functions that are scored, the constant one of them.
        weights: How often each of the other replicas counts, ``(n_draws, n_held_out)``.

    Returns:
        Shape ``(n_draws,)``.

    Raises:
        ValueError: If more than `MOST_LEFT_OUT` of the held-out pairs are left out by this.
    """
    counts = pair_counts(states, lag, n_states)
    inside = largest_connected(counts[train].sum(0))
    all_held_out = counts[~train].sum()
    counts = counts * (inside[:, None] & inside)
    left_out = 1 - counts[~train].sum() / all_held_out
    if left_out > MOST_LEFT_OUT:
        raise ValueError(
            f"{left_out:.0%} of the held-out pairs lie in states that the dynamics do not connect, "
            f"more than {MOST_LEFT_OUT:.0%}: scores would be of other data for each choice of CVs; "
            "make the dynamics longer or take fewer clusters"
        )
    functions = SingularFunctions.of(counts[train].sum(0), n_functions)
    moments = functions.moments(counts[~train])
    return vamp2(np.tensordot(weights, moments, 1))


def _inverse_root(p: Array) -> Array:
    return np.where(p > 0, 1 / np.sqrt(np.where(p > 0, p, 1.0)), 0.0)
