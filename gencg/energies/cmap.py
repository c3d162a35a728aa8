"""Torsion-torsion correction maps: periodic cubic splines of a tabulated energy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.bonded import Dihedrals, Indices
from gencg.energies.frame import Frame

Array = NDArray[np.float64]


class CorrectionMaps(nn.Module):
    r"""Correction maps :math:`U(\varphi, \psi)` by bicubic interpolation of tables.

    In each patch of the table, with :math:`s, t \in [0, 1)` the position inside it,

    .. math:: U = \sum_{k,l=0}^{3} c_{kl} s^k t^l,

    where values, slopes and the cross slope at the four corners are those of periodic cubic
    splines through rows and columns.

    References:
        | Extending the treatment of backbone energetics in protein force fields
          (Mackerell, Feig, Brooks, 2004)
        | https://doi.org/10.1002/jcc.20065

    Args:
        maps: Tables in kJ/mol; ``table[a, b]`` is the energy at
            :math:`\varphi = 2\pi a/N, \psi = 2\pi b/N`. They may differ in size.
        index: Which map each pair of torsions uses, shape ``(m,)``.
        atoms: The two quadruples of each, shape ``(m, 8)``.
        n_atoms: Number of atoms of the molecule.
    """

    size: Tensor
    per_radian: Tensor
    start: Tensor
    coefficients: Tensor

    def __init__(self, maps: list[Array], index: Indices, *, atoms: Indices, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.first = Dihedrals(self.atoms[:, :4], n_atoms)
        self.second = Dihedrals(self.atoms[:, 4:], n_atoms)
        sizes = np.array([len(table) for table in maps])
        starts = np.concatenate([[0], np.cumsum(sizes**2)[:-1]])
        coefficients = np.concatenate([patch_coefficients(table).reshape(-1, 16) for table in maps])
        self.register_buffer("size", torch.as_tensor(sizes[index])[:, None])
        self.register_buffer("per_radian", torch.as_tensor(sizes[index] / (2 * np.pi))[:, None])
        self.register_buffer("start", torch.as_tensor(starts[index])[:, None])
        self.register_buffer("coefficients", torch.as_tensor(coefficients.T.copy()))

    def forward(self, frame: Frame) -> Tensor:
        a, s = self.locate(self.first, frame)
        b, t = self.locate(self.second, frame)
        c = self.coefficients[:, self.start + a * self.size + b]  # [16, m, n]
        rows = [c[k] + t * (c[k + 1] + t * (c[k + 2] + t * c[k + 3])) for k in (0, 4, 8, 12)]
        return (rows[0] + s * (rows[1] + s * (rows[2] + s * rows[3]))).sum(0)

    def locate(self, dihedrals: Dihedrals, frame: Frame) -> tuple[Tensor, Tensor]:
        """Patch number along one axis and the position in it, each ``(m, n)``."""
        cosine, sine = dihedrals(frame)
        place = torch.atan2(sine, cosine) * self.per_radian
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
    return np.asarray(np.einsum("ki,abij,lj->abkl", hermite, g, hermite))


def slopes(table: Array, axis: int) -> Array:
    r"""Derivative per grid step of the periodic cubic spline along one axis.

    The second derivatives :math:`m` solve
    :math:`m_{j-1} + 4 m_j + m_{j+1} = 6 (f_{j-1} - 2 f_j + f_{j+1})` around the circle.
    """
    n = len(table)
    ahead, behind = np.roll(table, -1, axis), np.roll(table, 1, axis)
    matrix = 4 * np.eye(n) + np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)
    differences = np.moveaxis(6 * (ahead - 2 * table + behind), axis, 0)
    second = np.moveaxis(np.linalg.solve(matrix, differences), 0, axis)
    return np.asarray(ahead - table - second / 3 - np.roll(second, -1, axis) / 6)
