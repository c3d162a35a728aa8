"""Batched geometry of one evaluation: atoms first, configurations last."""

import torch
from torch import Tensor

Components = tuple[Tensor, Tensor, Tensor]

MINIMUM_DISTANCE = 2e-3
"""Distances below this, in nm, are taken as this: far inside any wall, finite in float32."""


class Frame:
    """Positions of a batch, with what several terms need of them computed once.

    The configurations are the last, contiguous axis, so that one instruction serves many.

    Args:
        positions: Shape ``(n_atoms, 3, n)``, in nm.
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions
        self._squared_distances: Tensor | None = None

    @property
    def squared_distances(self) -> Tensor:
        """Squared distances of all pairs, ``(n_atoms, n_atoms, n)`` in nm²; 1 on the diagonal."""
        if self._squared_distances is None:
            x, y, z = self.positions.unbind(1)
            squared = (
                (x[:, None] - x[None]).square()
                + (y[:, None] - y[None]).square()
                + (z[:, None] - z[None]).square()
            )
            itself = torch.eye(x.shape[0], dtype=x.dtype, device=x.device)[:, :, None]
            floor = MINIMUM_DISTANCE**2
            self._squared_distances = squared.clamp_min(floor) + (1 - floor) * itself
        return self._squared_distances

    def difference(self, incidence: Tensor) -> Components:
        """Components ``(m, n)`` of m difference vectors, from an incidence matrix ``(m, n_atoms)``.

        A matrix product with entries 0, 1, -1 costs less than a gather and its scatter backwards.
        """
        n_atoms, _, n = self.positions.shape
        vectors = incidence @ self.positions.reshape(n_atoms, 3 * n)
        x, y, z = vectors.reshape(len(incidence), 3, n).unbind(1)
        return x, y, z


def incidence_matrix(tails: Tensor, heads: Tensor, n_atoms: int) -> Tensor:
    """Matrix ``(m, n_atoms)`` whose product with the positions is head minus tail of each row."""
    rows = torch.arange(len(tails))
    matrix = torch.zeros(len(tails), n_atoms, dtype=torch.float64)
    matrix[rows, heads] += 1
    matrix[rows, tails] -= 1
    return matrix


def dot(a: Components, b: Components) -> Tensor:
    """Scalar product of two component triples."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Components, b: Components) -> Components:
    """Vector product of two component triples."""
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
