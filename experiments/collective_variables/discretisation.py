"""Clusters of collective variables, found on some replicas and applied to all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

N_FITTED = 10_000
"""Frames that clusters are fitted to, spread evenly."""


def embedded(z: Array, *, periodic: bool) -> Array:
    """Angles ``(..., d)`` as cosines and sines ``(..., 2 d)``; other variables as they are."""
    return np.concatenate([np.cos(z), np.sin(z)], -1) if periodic else z


@dataclass(frozen=True)
class Discretisation:
    """The nearest of some centres.

    Attributes:
        centres: In units of `scale`, ``(k, d)``.
        scale: Of each variable, ``(d,)``.
    """

    centres: Array
    scale: Array

    @classmethod
    def fit(
        cls, values: Array, n_clusters: int, *, standardise: bool, seed: int = 0
    ) -> "Discretisation":
        """k-means of values ``(n, d)``, begun by k-means++.

        Args:
            values: What to cluster; `N_FITTED` of them are looked at.
            n_clusters: Number of clusters.
            standardise: Whether to divide each variable by its standard deviation.
            seed: Of the beginning.
        """
        scale = values.std(0) if standardise else np.ones(values.shape[1])
        some = values[:: max(1, len(values) // N_FITTED)] / scale
        generator = np.random.default_rng(seed)
        centres, _ = kmeans2(some, n_clusters, iter=30, minit="++", rng=generator)
        return cls(np.asarray(centres), scale)

    def states(self, values: Array) -> NDArray[np.int64]:
        """Number of the nearest centre, ``(...,)`` of values ``(..., d)``."""
        return np.asarray(cKDTree(self.centres).query(values / self.scale)[1], dtype=np.int64)
