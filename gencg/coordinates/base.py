"""Coordinate maps: configurations x to coordinates y and back, with the Jacobian."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class CoordinateMap(ABC):
    r"""One-to-one map between configurations x (up to rigid motion) and coordinates y.

    Attributes:
        event_shape: Shape of one configuration x.
        dim: Number of coordinates y.
        names: A name for each coordinate, ``dim`` of them.
        periodic: Which coordinates are angles on the whole circle [-pi, pi), ``(dim,)`` bool.
        soft: Which coordinates move far or between wells (rotatable bonds), ``(dim,)`` bool;
            a decoder models them first and everything else given them.
        centre: Where a narrow coordinate sits (the reference structure), ``(dim,)`` float64.
        scale: How far a narrow coordinate strays, ``(dim,)`` float64.
        fold: Order n of the symmetric rotor at each coordinate, 1 elsewhere, ``(dim,)`` int.
    """

    event_shape: tuple[int, ...]
    dim: int
    names: tuple[str, ...]
    periodic: Tensor
    soft: Tensor
    centre: Tensor
    scale: Tensor
    fold: Tensor

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Coordinates ``(*batch, dim)`` of x and :math:`\log|\det \partial y / \partial x|`."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Configurations ``(*batch, *event_shape)``, :math:`\log|\det \partial x/\partial y|`."""

    def fence(self, y: Tensor) -> Tensor | None:
        """What a training target takes off its log-density outside the room that y is meant to
        fill, ``(*batch,)``, zero inside; None where there is no such room."""
        return None

    def valid(self, x: Tensor) -> Tensor:
        """Which configurations belong to the described molecule, ``(*batch,)`` bool.

        Finite here; a molecule adds handedness and double-bond geometry.
        """
        n_event = len(self.event_shape)
        return torch.isfinite(x).flatten(x.ndim - n_event).all(-1)


class Cartesian(CoordinateMap):
    """The identity, for toy problems whose configuration is a plain vector.

    Args:
        dim: Number of coordinates.
        periodic: Whether they are angles on the circle.
        scale: How far they reach around zero.
    """

    def __init__(self, dim: int, *, periodic: bool = False, scale: float = 1.0) -> None:
        self.event_shape = (dim,)
        self.dim = dim
        self.names = tuple(f"x{i + 1}" for i in range(dim))
        self.periodic = torch.full((dim,), periodic)
        self.soft = torch.ones(dim, dtype=torch.bool)
        self.centre = torch.zeros(dim, dtype=torch.float64)
        self.scale = torch.full((dim,), scale, dtype=torch.float64)
        self.fold = torch.ones(dim, dtype=torch.long)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y, y.new_zeros(y.shape[:-1])
