"""Exact slow functions of plane potentials by finite differences, and a curved two-well toy."""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import eigsh

from gencg.energies.base import Energy


class CurvedWells(Energy):
    r"""Two wells along a bent coordinate, :math:`U = 3 (u^2 - 1)^2 + 2 x_2^2, u = x_1 - x_2^2`.

    No linear function of x separates them well: the slow function has curved level sets.
    """

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        u = x[..., 0] - x[..., 1] ** 2
        return 3.0 * (u**2 - 1) ** 2 + 2.0 * x[..., 1] ** 2

    def sample(self, n: int) -> torch.Tensor:
        """Exact samples at beta 1: u by inversion on a grid, x2 normal."""
        grid = torch.linspace(-2.5, 2.5, 5001)
        density = torch.exp(-3.0 * (grid**2 - 1) ** 2)
        u = grid[torch.multinomial(density, n, replacement=True)]
        v = torch.randn(n) / 2.0
        return torch.stack([u + v**2, v], dim=-1)


class ExactSlowFunctions:
    r"""Lowest functions of the Dirichlet form on a grid, unit masses.

    The form is :math:`\sum_{\text{edges}} \sqrt{p_i p_j} (f_i - f_j)^2 / h^2`, second order in
    the spacing; cells with less than 1e-13 of the top density are left out.
    """

    def __init__(self, energy: Energy, beta: float, low, high, *, n: int = 220, m: int = 3) -> None:
        axes = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        u = energy.energy(torch.tensor(points)).numpy()
        p = np.exp(-beta * (u - u.min()))
        kept = p > 1e-13
        number = np.full(n * n, -1)
        number[kept] = np.arange(kept.sum())
        rows, columns, values = [], [], []
        index = np.arange(n * n).reshape(n, n)
        for a, b, h in (
            (index[:-1], index[1:], axes[0][1] - axes[0][0]),
            (index[:, :-1], index[:, 1:], axes[1][1] - axes[1][0]),
        ):
            i, j = a.ravel(), b.ravel()
            both = kept[i] & kept[j]
            i, j = i[both], j[both]
            w = np.sqrt(p[i] * p[j]) / h**2
            i, j = number[i], number[j]
            for r, c, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                rows.append(r), columns.append(c), values.append(sign * w)
        size = int(kept.sum())
        form = sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size)
        )
        scale = sparse.diags(1 / np.sqrt(p[kept]))
        found, vectors = eigsh((scale @ form @ scale).tocsc(), k=m + 1, sigma=-1e-4, which="LM")
        order = np.argsort(found)[1:]
        self.eigenvalues = found[order]
        self.points = torch.tensor(points[kept])
        self.weights = torch.tensor(p[kept] / p[kept].sum())
        self.functions = torch.tensor(scale @ vectors[:, order])

    def correlation(self, values: torch.Tensor, k: int = 0) -> float:
        """Weighted correlation of values at `points` with the k-th function, without sign."""
        centred = [a - (self.weights * a).sum() for a in (values.double(), self.functions[:, k])]
        products = [(self.weights * a * b).sum() for a in centred for b in centred]
        return float(products[1].abs() / (products[0] * products[3]).sqrt())
