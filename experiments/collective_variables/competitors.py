"""Collective variables that compete: fixed functions, and those fitted to some of the dynamics."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Competitor(ABC):
    """Collective variables of all frames, as some of the replicas say.

    Args:
        name: Of a row of the table.
        n_cvs: Their number.
        periodic: Whether they are angles in rad.
        by_lag: Whether they are fitted anew for each lag.
        data: What they are computed from, ``(n_replicas, n_frames, d)``.
    """

    def __init__(self, name: str, n_cvs: int, *, periodic: bool, by_lag: bool, data: Array) -> None:
        self.name, self.n_cvs, self.periodic, self.by_lag = name, n_cvs, periodic, by_lag
        self.data = data

    @abstractmethod
    def values(self, train: Mask, lag: int) -> Array:
        """Values of all frames, ``(n_replicas, n_frames, n_cvs)``, fitted to replicas `train`."""


class Fixed(Competitor):
    """Collective variables that do not look at the dynamics, given by their values."""

    def __init__(self, name: str, z: Array, *, periodic: bool) -> None:
        super().__init__(name, z.shape[-1], periodic=periodic, by_lag=False, data=z)

    def values(self, train: Mask, lag: int) -> Array:
        return self.data


class PrincipalComponents(Competitor):
    """Directions of the largest variance of features ``(n_replicas, n_frames, d)``."""

    def __init__(self, name: str, features: Array, n_cvs: int) -> None:
        super().__init__(name, n_cvs, periodic=False, by_lag=False, data=features)

    def values(self, train: Mask, lag: int) -> Array:
        rows = self.data[train].reshape(-1, self.data.shape[-1])
        _, vectors = np.linalg.eigh(np.cov(rows.T))
        return np.asarray(self.data @ vectors[:, ::-1][:, : self.n_cvs])


class TimeLagged(Competitor):
    """TICA or VAMP of features ``(n_replicas, n_frames, d)`` at the lag they are scored at.

    By deeptime; both are linear in the features and the best linear ones for the dynamics they
    are fitted to. The constant is not counted as a CV.
    """

    def __init__(self, method: str, name: str, features: Array, n_cvs: int) -> None:
        super().__init__(name, n_cvs, periodic=False, by_lag=True, data=features)
        self.method = method

    def values(self, train: Mask, lag: int) -> Array:
        try:
            from deeptime import decomposition
        except ImportError as error:
            raise ImportError("TICA and VAMP need deeptime; pip install 'gencg[eval]'") from error
        estimator = getattr(decomposition, self.method)(lagtime=lag, dim=self.n_cvs, scaling=None)
        model = estimator.fit_from_timeseries(list(self.data[train])).fetch_model()
        flat = self.data.reshape(-1, self.data.shape[-1])
        z = np.asarray(model.transform(flat))
        return z.reshape(*self.data.shape[:2], -1)


def random_combinations(features: Array, n_cvs: int, *, seed: int) -> Array:
    """Random directions, standard normal in standardised features, ``(..., n_cvs)``."""
    spread = features.std((0, 1))
    weights = np.random.default_rng(seed).standard_normal((features.shape[-1], n_cvs))
    return np.asarray(features @ (weights / np.where(spread > 0, spread, 1.0)[:, None]))


def linear_competitors(features: dict[str, Array], n_cvs: int) -> list[Competitor]:
    """TICA and VAMP of each set of features, and principal components of the first."""
    found: list[Competitor] = [
        TimeLagged(method, f"{method} of {name}", values, n_cvs)
        for name, values in features.items()
        for method in ("TICA", "VAMP")
    ]
    name, values = next(iter(features.items()))
    return [*found, PrincipalComponents(f"PCA of {name}", values, n_cvs)]


def hand_chosen(labels: tuple[str, ...], angles: Array, n_cvs: int) -> list[Competitor]:
    """phi and psi of all residues, or phi of all, where the number is that of the CVs.

    Args:
        labels: Such as "phi(ALA2)".
        angles: Their values, ``(n_replicas, n_frames, n)``.
        n_cvs: Number of CVs.
    """
    choices: dict[str, Any] = {
        "phi, psi": list(range(len(labels))),
        "phi of all": [k for k, label in enumerate(labels) if label.startswith("phi")],
    }
    return [
        Fixed(name, angles[..., chosen], periodic=True)
        for name, chosen in choices.items()
        if len(chosen) == n_cvs
    ]
