"""Body-fixed Cartesian coordinates, the coordinates of Schöberl et al. (2020)."""

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.molecule import Molecule

SCALE = 0.1
"""Reach of a Cartesian component in nm, about a bond length."""


class BodyFrame(CoordinateMap):
    r"""Cartesian coordinates in a frame fixed to three bonded atoms A, B, C, 3n-6 in all.

    A is the origin, B lies on the x axis and C in the xy plane with positive y, so that
    :math:`y = (x_B, x_C, y_C, \text{all three components of the others})`. The volume element is

    .. math:: \log|\det \partial x / \partial y| = 2 \log x_B + \log y_C

    with the rigid motions (:math:`8\pi^2 V`) divided out as in `InternalCoordinates`: log Z is
    the same over both maps. Nothing is periodic and nothing narrow: the baseline's coordinates,
    in which bonds couple all components.

    Args:
        molecule: Bonds and reference structure; A, B, C are the first atoms of its Z-matrix.

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl et al., 2020)
        | https://arxiv.org/abs/2002.10148
    """

    def __init__(self, molecule: Molecule) -> None:
        self.molecule = molecule
        self._internal = InternalCoordinates(molecule)
        a, b, c = (*self._internal.zmatrix.atoms[:2], self._internal.zmatrix.third)
        n = molecule.n_atoms
        self.event_shape, self.dim = (n, 3), 3 * n - 6
        others = [i for i in range(n) if i not in (a, b, c)]
        self._order = torch.tensor([a, b, c, *others])
        # Flat components of the reordered positions that are coordinates, not the frame
        self._free = torch.tensor([3, 6, 7, *range(9, 3 * n)])
        components = [f"{axis}({name})" for name in molecule.names for axis in "xyz"]
        flat = (3 * self._order[:, None] + torch.arange(3)).flatten()[self._free]
        self.names = tuple(components[i] for i in flat.tolist())
        self.periodic = torch.zeros(self.dim, dtype=torch.bool)
        self.soft = torch.ones(self.dim, dtype=torch.bool)
        self.centre, _ = self.forward(torch.as_tensor(molecule.positions))
        self.scale = torch.full((self.dim,), SCALE, dtype=torch.float64)
        self.fold = torch.ones(self.dim, dtype=torch.long)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates ``(*batch, dim)`` of ``x`` in nm and log|det dy/dx|."""
        x = x[..., self._order.to(x.device), :]
        x = x - x[..., :1, :]
        ex = torch.nn.functional.normalize(x[..., 1, :], dim=-1)
        ez = torch.nn.functional.normalize(torch.linalg.cross(ex, x[..., 2, :]), dim=-1)
        frame = torch.stack([ex, torch.linalg.cross(ez, ex), ez], -1)  # [..., xyz, axis]
        y = (x @ frame).flatten(-2)[..., self._free.to(x.device)]
        return y, -_log_volume(y)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Configurations ``(*batch, n_atoms, 3)`` of ``y`` in nm and log|det dx/dy|."""
        if y.shape[-1:] != (self.dim,):
            raise ValueError(f"`y` must have shape (*batch, {self.dim}), got {tuple(y.shape)}")
        flat = y.new_zeros(*y.shape[:-1], 3 * self.event_shape[0])
        flat = flat.index_copy(-1, self._free.to(y.device), y)
        undo = torch.argsort(self._order).to(y.device)
        return flat.reshape(*y.shape[:-1], *self.event_shape)[..., undo, :], _log_volume(y)

    def valid(self, x: Tensor) -> Tensor:
        """Finite, with the handedness and the double bonds of the reference, ``(*batch,)`` bool."""
        return self._internal.valid(x)


def _log_volume(y: Tensor) -> Tensor:
    return 2 * y[..., 0].abs().log() + y[..., 2].abs().log()
