"""Windows along a molecule: which layers a block of many coordinates is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.couplings import Affine, Transform
from gencg.distributions.local import BlockTriangular, LocalCoupling


@dataclass(frozen=True)
class Locality:
    """How the blocks of a long molecule are cut into windows along the chain.

    A small block is one window: full layers, in which every entry sees all. Beyond, parameters,
    memory and time grow linearly, the width of the networks with the chain.

    Args:
        whole: Largest stiff block that is one window, in coordinates.
        stiff: Stiff coordinates in a window.
        soft: Soft coordinates in a window.
        reach: How many windows' worth of neighbours a window sees.
        hidden: Hidden widths of the network of one window of the stiff block.
        n_summary: Entries of the sums that all windows of a layer share.
        triangle: Stiff coordinates in a block of the triangular matrices.

    Raises:
        ValueError: If a window or `reach` is not positive, or `n_summary` is negative.
    """

    whole: int = 200
    stiff: int = 28
    soft: int = 10
    reach: float = 3.0
    hidden: Sequence[int] = (72, 72)
    n_summary: int = 8
    triangle: int = 64

    def __post_init__(self) -> None:
        for name in ("whole", "stiff", "soft", "reach", "triangle"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.n_summary < 0:
            raise ValueError(f"`n_summary` must not be negative, got {self.n_summary}")

    def n_stiff_windows(self, n: int) -> int:
        """Number of windows of `n` stiff coordinates."""
        return 1 if n <= self.whole else math.ceil(n / self.stiff)

    def n_soft_windows(self, n: int) -> int:
        """Number of windows of `n` soft coordinates; two windows' worth are one."""
        return 1 if n <= 2 * self.soft else math.ceil(n / self.soft)

    def soft_coupling(
        self,
        transform: Transform,
        moved: Tensor,
        *,
        position: Tensor,
        n_context: int,
        hidden: Sequence[int],
    ) -> LocalCoupling:
        """Coupling of soft coordinates at `position`; every window sees the whole context."""
        return LocalCoupling(
            transform,
            moved,
            position=position,
            context_position=_everywhere(n_context),
            n_windows=self.n_soft_windows(len(moved)),
            reach=self.reach,
            hidden=hidden,
            n_summary=self.n_summary,
        )

    def stiff_layers(
        self,
        halves: Sequence[Tensor],
        *,
        position: Tensor,
        feature_position: Tensor,
        n_context: int,
    ) -> list[Flow]:
        """Layers of the stiff block: couplings, triangular blocks, shift and scale.

        Args:
            halves: Which entries each coupling moves, ``(dim,)`` bool.
            position: Where each entry sits, ``(dim,)``.
            feature_position: The same of each feature of the soft coordinates.
            n_context: Number of context features that every window sees.
        """

        def coupling(moved: Tensor) -> LocalCoupling:
            return LocalCoupling(
                Affine(),
                moved,
                position=position,
                context_position=torch.cat([feature_position, _everywhere(n_context)]),
                n_windows=self.n_stiff_windows(len(position)),
                reach=self.reach,
                hidden=self.hidden,
                n_summary=self.n_summary,
            )

        return [
            *map(coupling, halves),
            BlockTriangular(position, block=self.triangle),
            BlockTriangular(position, block=self.triangle, shift=self.triangle // 2),
            coupling(torch.ones(len(position), dtype=torch.bool)),
        ]


def _everywhere(n: int) -> Tensor:
    return torch.full((n,), math.nan, dtype=torch.float64)
