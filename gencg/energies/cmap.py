"""Torsion-torsion correction maps: periodic cubic splines of a tabulated energy."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from gencg.energies.bonded import Dihedrals, Indices
from gencg.energies.frame import Frame

Array = NDArray[np.float64]


class CorrectionMaps(nn.Module):
    r"""Correction maps :math:`U(\varphi, \psi)` by bicubic interpolation of tables.

    In each patch of the table, with :math:`s, t \in [0, 1)` the position inside it,

    .. math:: U = \sum_{k,l=0}^{3} c_{kl} s^k t^l,

    where values, slopes and the cross slope at the four corners are those of periodic cubic
    splines through rows and columns (Mackerell, Feig, Brooks, 2004; OpenMM does the same).

    Args:
        maps: Tables in kJ/mol; ``table[a, b]`` is the energy at
            :math:`\varphi = 2\pi a/N, \psi = 2\pi b/N`. They may differ in size.
        index: Which map each pair of torsions uses, shape ``(m,)``.
        atoms: The two quadruples of each, shape ``(m, 8)``.
        n_atoms: Number of atoms of the molecule.
    """

    def __init__(self, maps: list[Array], index: Indices, *, atoms: Indices, n_atoms: int) -> None:
        super().__init__()
        self.first = Dihedrals(np.asarray(atoms)[:, :4], n_atoms)
        self.second = Dihedrals(np.asarray(atoms)[:, 4:], n_atoms)
        sizes = np.array([len(table) for table in maps])
        starts = np.concatenate([[0], np.cumsum(sizes**2)[:-1]])
        coefficients = np.concatenate([patch_coefficients(table).reshape(-1, 16) for table in maps])
        self.register_buffer("size", torch.as_tensor(sizes[index])[:, None])
        self.register_buffer("start", torch.as_tensor(starts[index])[:, None])
        self.register_buffer("coefficients", torch.as_tensor(coefficients))

    def forward(self, frame: Frame) -> Tensor:
        a, s = self.locate(self.first, frame)
        b, t = self.locate(self.second, frame)
        c = self.coefficients[self.start + a * self.size + b].unflatten(-1, (4, 4))  # [m, n, 4, 4]
        t, s = t[..., None], s
        row = c[..., 0] + t * (c[..., 1] + t * (c[..., 2] + t * c[..., 3]))
        return (row[..., 0] + s * (row[..., 1] + s * (row[..., 2] + s * row[..., 3]))).sum(0)

    def locate(self, dihedrals: Dihedrals, frame: Frame) -> tuple[Tensor, Tensor]:
        """Patch number along one axis and the position in it, each ``(m, n)``."""
        cosine, sine = dihedrals(frame)
        place = torch.atan2(sine, cosine) * (self.size / (2 * torch.pi))
        patch = torch.floor(place.detach())
        return torch.remainder(patch.long(), self.size), place - patch


def patch_coefficients(table: Array) -> Array:
    """Coefficients ``(N, N, 4, 4)`` of the bicubic patches of a periodic table ``(N, N)``."""
    n = len(table)
    along_a, along_b = slopes(table, 0), slopes(table, 1)
    corners = np.stack(
        [np.stack([table, along_b], -1), np.stack([along_a, slopes(along_a, 1)], -1)], -2
    )  # [a, b, derivative along a, derivative along b], per grid step
    after_a, after_b = np.roll(corners, -1, 0), np.roll(corners, -1, 1)
    after_both = np.roll(after_a, -1, 1)
    g = np.empty((n, n, 4, 4))  # value here, value next, slope here, slope next: along a, along b
    g[..., 0::2, 0::2], g[..., 0::2, 1::2] = corners, after_b
    g[..., 1::2, 0::2], g[..., 1::2, 1::2] = after_a, after_both
    hermite = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]], float)
    return np.einsum("ki,abij,lj->abkl", hermite, g, hermite)


def slopes(table: Array, axis: int) -> Array:
    """Derivative per grid step of the periodic cubic spline along one axis."""
    closed = np.concatenate([table, np.take(table, [0], axis)], axis)
    closed_end = np.arange(len(table) + 1)
    spline = CubicSpline(closed_end, closed, axis=axis, bc_type="periodic")
    return np.asarray(spline(closed_end[:-1], 1))
