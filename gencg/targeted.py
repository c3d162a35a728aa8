"""Targeted perturbation: samples moved to where another energy wants them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.energies.base import Energy
from gencg.energies.minimum import nearest_minimum


@dataclass(frozen=True)
class Shift:
    r"""The map :math:`y \mapsto y + d` of coordinates, which takes configurations along.

    A sample keeps its weight where it goes to, up to the change of the volume element. Two energies
    that differ in the lengths and angles they find right meet in it, at no other cost.

    Args:
        coordinates: Map between configurations and coordinates.
        displacement: d, shape ``(dim,)``.

    Raises:
        ValueError: If d has another shape or is not finite.

    References:
        | Targeted free energy perturbation (Jarzynski, 2002),
          https://doi.org/10.1103/PhysRevE.65.046122
    """

    coordinates: CoordinateMap
    displacement: Tensor

    def __post_init__(self) -> None:
        d = self.displacement
        if tuple(d.shape) != (self.coordinates.dim,) or not bool(torch.isfinite(d).all()):
            raise ValueError(
                f"`displacement` must be finite, of shape ({self.coordinates.dim},), got "
                f"{tuple(d.shape)}"
            )

    def __call__(self, y: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        r"""Where coordinates ``(n, dim)`` go, what that looks like, and what the volume does.

        Args:
            y: Coordinates of the samples.
            seed: Seed of the copies of symmetric rotors, one of which each sample becomes.

        Returns:
            :math:`y' = y + d`; :math:`x' = x(y')`, ``(n, *event_shape)``; and
            :math:`\log |\det \partial x/\partial y|` there less that at y, ``(n,)``.
        """
        moved = y + self.displacement.to(y)
        x, log_det = self.coordinates.inverse(moved)
        _, before = self.coordinates.inverse(y)
        copies = getattr(self.coordinates, "random_copies", None)
        if copies is not None:
            x = copies(x, generator=torch.Generator().manual_seed(seed))
        return moved, x, log_det - before


def stiff_shift(coordinates: CoordinateMap, energy: Energy) -> Shift:
    """The shift of stiff coordinates from the reference structure to the minimum of an energy.

    Soft coordinates stay where they are. The minimum is that next to the reference structure; what
    it says of lengths and angles is taken for all conformations.

    Args:
        coordinates: Their centre is the reference structure, a minimum of the first energy.
        energy: The second energy; some 20 to 100 of its gradients are asked for.

    Raises:
        ValueError: If the energy has no minimum near the reference structure.
    """
    x, _ = coordinates.inverse(coordinates.centre)
    # Good to a tenth of a width; soft coordinates would go on for long
    minimum = torch.as_tensor(nearest_minimum(energy, x.double().numpy(), tolerance=30.0))
    y, _ = coordinates.forward(minimum)
    return Shift(coordinates, torch.where(coordinates.soft, 0.0, y - coordinates.centre))
