"""Exact slow functions of potentials in the plane, by finite differences."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from torch import Tensor

from gencg.energies.base import Energy
from gencg.objectives.dirichlet import moved_population

FLOOR = 1e-13
"""Cells below this share of the highest density are left out."""
LEAST_CARRIED = 1e-9
"""Functions of collective variables that hold less of the probability are left out."""

INDEPENDENT = 1e-9
"""Share of its own variance that a function has to have beyond the others."""


class ExactSlowFunctions:
    r"""Lowest functions of the Dirichlet form on a grid, unit masses, slowest first.

    .. math:: E_p[|\nabla f|^2] \approx \sum_{\text{edges } ij} \sqrt{p_i p_j}\,
              \frac{(f_i - f_j)^2}{h^2} \Big/ \sum_i p_i

    with free borders, second order in the spacing h: from 110 to 220 points per side the slowest
    eigenvalue of the toys moves by less than 0.3 %, from 220 to 440 by less than 0.1 %.

    Args:
        energy: Energy of two coordinates.
        beta: Inverse temperature in mol/kJ.
        low: Lower corner of the box.
        high: Upper corner. What moves outside of the box is not seen.
        n: Points per side.
        n_functions: How many functions.

    Attributes:
        points: Cells of the grid that hold weight, ``(n_points, 2)``.
        weights: Their probabilities, ``(n_points,)``.
        eigenvalues: ``(n_functions,)``.
        functions: Of mean 0 and variance 1, ``(n_points, n_functions)``.
        populations: Probability each process moves, as in `Spectrum`, ``(n_functions,)``.

    Raises:
        ValueError: If `energy` is not one of two coordinates.

    References:
        | A square root approximation of transition rates for a Markov state model
          (Lie, Fackeldey, Weber, 2013)
        | https://doi.org/10.1137/120899959
    """

    def __init__(
        self,
        energy: Energy,
        beta: float,
        low: Sequence[float],
        high: Sequence[float],
        *,
        n: int = 220,
        n_functions: int = 3,
    ) -> None:
        if tuple(energy.event_shape) != (2,):
            raise ValueError(f"`energy` must be one of 2 coordinates, got {energy.event_shape}")
        axes = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        u = energy.energy(torch.from_numpy(points)).numpy()
        p = np.exp(-beta * (u - u.min()))
        kept = p > FLOOR
        spacing = np.array([axis[1] - axis[0] for axis in axes])
        form = _form(p, spacing, n)[kept][:, kept]
        self._form = form / p.sum()
        scale = sparse.diags(1 / np.sqrt(p[kept]))
        found, vectors = eigsh(
            (scale @ form @ scale).tocsc(), k=n_functions + 1, sigma=-1e-4, which="LM"
        )
        order = np.argsort(found)[1:]  # the first is the constant
        self.spacing = torch.from_numpy(spacing)
        self.points = torch.from_numpy(points[kept])
        self.weights = torch.from_numpy(p[kept] / p[kept].sum())
        self.eigenvalues = torch.from_numpy(found[order])
        functions = torch.from_numpy(scale @ vectors[:, order])
        functions = functions - self.weights @ functions
        self.functions = functions * (self.weights @ functions**2).rsqrt()
        self.populations = moved_population(self.weights @ self.functions**4)

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Samples of the Boltzmann distribution ``(n, 2)``, uniform within a cell of the grid."""
        generator = torch.Generator().manual_seed(seed)
        cell = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        offset = torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5
        return self.points[cell] + self.spacing * offset

    def correlation(self, values: Tensor, k: int = 0) -> float:
        """Boltzmann-weighted correlation of values at `points` with the k-th function, unsigned."""
        centred = values.double() - self.weights @ values.double()
        covariance = self.weights @ (centred * self.functions[:, k])
        return float(covariance.abs() / (self.weights @ centred**2).sqrt())

    def best_of(self, z: Tensor, *, n_functions: int = 3, n_knots: int = 0) -> Tensor:
        r"""Lowest eigenvalues among functions of collective variables z, ``(n_functions,)``.

        The Dirichlet form is minimised over :math:`f(z) = \sum_c a_c\, \varphi_c(z)` with products
        of hat functions :math:`\varphi_c` between the extremes of each z, so that what comes out is
        what the variables are worth, whoever found them: never below `eigenvalues`, and equal to
        them where the slow functions are functions of z.

        Args:
            z: Values at `points`, ``(n_points, n_cvs)``.
            n_functions: How many eigenvalues.
            n_knots: Hat functions along each variable; 60 for one and 32 for each of two by
                default.

        Raises:
            ValueError: If `z` has not one row for each point, or more than two columns.
        """
        if z.ndim != 2 or len(z) != len(self.points) or z.shape[1] not in (1, 2):
            raise ValueError(
                f"`z` must have shape ({len(self.points)}, 1 or 2), got {tuple(z.shape)}"
            )
        n_knots = n_knots or (60 if z.shape[1] == 1 else 32)
        basis = _hats(z[:, 0], n_knots)
        for column in z.T[1:]:
            basis = _products(basis, _hats(column, n_knots))
        mass = (basis.T @ sparse.diags(self.weights.numpy()) @ basis).toarray()
        kept = mass.diagonal() > LEAST_CARRIED
        unit = np.diag(mass.diagonal()[kept] ** -0.5)
        # Where z leaps, neighbouring hats see the same few points
        values, vectors = eigh(unit @ mass[kept][:, kept] @ unit)
        apart = values > INDEPENDENT
        whiten = unit @ vectors[:, apart] * values[apart] ** -0.5
        form = (basis.T @ self._form @ basis).toarray()[kept][:, kept]
        found = eigh(whiten.T @ form @ whiten, eigvals_only=True)
        return torch.from_numpy(found[1 : n_functions + 1])


def _hats(values: Tensor, n: int) -> sparse.csr_matrix:
    """Hat functions on even knots between the extremes, ``(n_points, n)``; they sum to one."""
    v = values.double().numpy()
    place = (v - v.min()) / max(v.max() - v.min(), 1e-300) * (n - 1)
    left = np.minimum(place.astype(np.int64), n - 2)
    share = place - left
    rows = np.arange(len(v))
    entries = np.concatenate([1 - share, share])
    at = (np.concatenate([rows, rows]), np.concatenate([left, left + 1]))
    return sparse.csr_matrix((entries, at), shape=(len(v), n))


def _products(a: sparse.csr_matrix, b: sparse.csr_matrix) -> sparse.csr_matrix:
    """All products of a column of `a` with one of `b`, row by row."""
    columns = [sparse.diags(a[:, [j]].toarray()[:, 0]) @ b for j in range(a.shape[1])]
    return sparse.hstack(columns).tocsr()


def _form(p: NDArray[np.float64], spacing: NDArray[np.float64], n: int) -> sparse.csr_matrix:
    """Matrix of the Dirichlet form on all cells, unnormalised."""
    index = np.arange(n * n).reshape(n, n)
    form = sparse.csr_matrix((n * n, n * n))
    for i, j, h in ((index[:-1], index[1:], spacing[0]), (index[:, :-1], index[:, 1:], spacing[1])):
        w = (np.sqrt(p[i] * p[j]) / h**2).ravel()
        w[(p[i] <= FLOOR).ravel() | (p[j] <= FLOOR).ravel()] = 0.0
        edges = sparse.csr_matrix((w, (i.ravel(), j.ravel())), shape=form.shape)
        both = edges + edges.T
        form = form + sparse.diags(np.asarray(both.sum(1)).ravel()) - both
    return form
