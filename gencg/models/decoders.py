"""Decoders q(y|z): from collective variables to all coordinates of the molecule."""

import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.couplings import (
    Affine,
    CircularSpline,
    ConditionalAffine,
    Coupling,
    LineSpline,
    Rotation,
    Transform,
    UnitTriangular,
)
from gencg.distributions.flow import Chain, FlowDistribution
from gencg.distributions.networks import MLP
from gencg.distributions.torus import TorusNormal
from gencg.models.base import ConditionalDistribution


class SplineDecoder(ConditionalDistribution):
    r"""Two-block spline flow: soft coordinates first, everything stiff given them.

    .. math:: q(y|z) = q(s|z)\, q(v|s,z)

    The soft block starts uniform on the torus (normal on the line for toys) and passes
    rational-quadratic coupling layers; the stiff block starts normal and passes affine coupling
    layers, one triangular matrix, and a shift and scale chosen by the soft coordinates, around
    the reference structure.

    Args:
        coordinates: Gives the number of coordinates, which are soft, centre and scale.
        n_cvs: Number of collective variables z, may be zero.
        n_soft_layers: Coupling layers of the soft block.
        n_bins: Bins of each spline.
        soft_hidden: Hidden widths in the soft block.
        n_stiff_layers: Coupling layers of the stiff block.
        stiff_hidden: Hidden widths in the stiff block.
        seed: Chooses the fixed permutations.
    """

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int = 0,
        n_soft_layers: int = 6,
        n_bins: int = 12,
        soft_hidden: Sequence[int] = (64, 64),
        n_stiff_layers: int = 10,
        stiff_hidden: Sequence[int] = (160, 160),
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.n_cvs = n_cvs
        self.flow = _TwoBlockFlow(
            coordinates,
            n_cvs=n_cvs,
            n_soft_layers=n_soft_layers,
            n_bins=n_bins,
            soft_hidden=soft_hidden,
            n_stiff_layers=n_stiff_layers,
            stiff_hidden=stiff_hidden,
            generator=generator,
        )

    def forward(self, context: Tensor) -> TorchDistribution:
        base = TorusNormal(self.flow.n_angles, self.flow.n_normal, like=context)
        return FlowDistribution(base, self.flow, context)


class _TwoBlockFlow(Flow):  # type: ignore[misc]
    order: Tensor
    index: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int,
        n_soft_layers: int,
        n_bins: int,
        soft_hidden: Sequence[int],
        n_stiff_layers: int,
        stiff_hidden: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        soft, stiff = coordinates.soft.nonzero()[:, 0], (~coordinates.soft).nonzero()[:, 0]
        periodic = bool(coordinates.periodic[soft].all()) and len(soft) > 0
        if not periodic and coordinates.periodic[soft].any():
            raise ValueError(
                "soft coordinates must be all periodic or all on the line, got a mixture: "
                f"{coordinates.periodic[soft].tolist()}"
            )
        self.n_angles = len(soft) if periodic else 0
        self.n_normal = coordinates.dim - self.n_angles
        self.n_soft = len(soft)
        self.soft_transform = (
            CircularSpline(n_bins=n_bins) if periodic else LineSpline(n_bins=n_bins)
        )
        self.register_buffer("order", torch.argsort(torch.cat([soft, stiff])))
        self.register_buffer("index", torch.cat([soft, stiff]))
        scale = coordinates.scale.clone()
        if periodic:
            scale[coordinates.soft] = 1.0
        centre = torch.where(coordinates.soft & coordinates.periodic, 0.0, coordinates.centre)
        self.register_buffer("centre", centre[self.index].float())
        self.register_buffer("scale", scale[self.index].float())
        self.log_volume = float(scale.log().sum())

        self.soft = Chain(
            _soft_layers(self.n_soft, self.soft_transform, n_soft_layers, n_cvs, soft_hidden)
        )
        n_context = self.soft_transform.n_features(self.n_soft) + n_cvs
        self.stiff = Chain(
            _stiff_layers(len(stiff), n_stiff_layers, n_context, stiff_hidden, generator)
        )

    def forward(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        s, v = eps[:, : self.n_soft], eps[:, self.n_soft :]
        s, log_det_soft = self.soft(s, z)
        v, log_det_stiff = self.stiff(v, torch.cat([self.soft_transform.features(s), z], dim=-1))
        y = torch.cat([s, v], dim=-1) * self.scale + self.centre
        return y[:, self.order], log_det_soft + log_det_stiff + self.log_volume

    def inverse(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        y = (y[:, self.index] - self.centre) / self.scale
        s, v = y[:, : self.n_soft], y[:, self.n_soft :]
        v, log_det_stiff = self.stiff.inverse(
            v, torch.cat([self.soft_transform.features(s), z], dim=-1)
        )
        s, log_det_soft = self.soft.inverse(s, z)
        return torch.cat([s, v], dim=-1), log_det_soft + log_det_stiff - self.log_volume


def _soft_layers(
    dim: int, transform: Transform, n_layers: int, n_context: int, hidden: Sequence[int]
) -> list[Flow]:
    if dim == 0:
        return []
    layers: list[Flow] = []
    for k in range(n_layers):
        moved = (torch.arange(dim) + k) % 2 == 0 if dim > 1 else torch.ones(1, dtype=torch.bool)
        layers.append(Coupling(transform, moved, n_context=n_context, hidden=hidden))
        if isinstance(transform, CircularSpline) and k + 1 < n_layers:
            # The golden angle never brings a seam back to where it was
            layers.append(Rotation(torch.full((dim,), math.pi * (3 - math.sqrt(5)))))
    return layers


def _stiff_layers(
    dim: int,
    n_layers: int,
    n_context: int,
    hidden: Sequence[int],
    generator: torch.Generator,
) -> list[Flow]:
    if dim == 0:
        return []
    layers: list[Flow] = []
    moved = torch.zeros(dim, dtype=torch.bool)
    for k in range(n_layers):
        if k % 2 == 0:
            moved = torch.zeros(dim, dtype=torch.bool)
            moved[torch.randperm(dim, generator=generator)[: dim // 2]] = True
        else:
            moved = ~moved
        if moved.any():
            layers.append(Coupling(Affine(), moved, n_context=n_context, hidden=hidden))
    layers.append(UnitTriangular(dim))
    layers.append(ConditionalAffine(dim, n_context=n_context, hidden=hidden))
    return layers


class GaussianDecoder(ConditionalDistribution):
    r"""Diagonal Gaussian :math:`q(y|z) = N(\mu(z), \sigma(z)^2)`, the decoder of 2020.

    Unimodal for each z, so that z has to carry what is multimodal.

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl et al., 2020), https://arxiv.org/abs/2002.10148
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int,
        hidden: Sequence[int] = (100, 100, 100),
    ) -> None:
        super().__init__()
        self.net = MLP(n_cvs, 2 * coordinates.dim, hidden=hidden, activation=torch.nn.Tanh)
        self.register_buffer("centre", coordinates.centre.float())
        self.register_buffer("scale", coordinates.scale.float())

    def forward(self, context: Tensor) -> TorchDistribution:
        loc, log_scale = self.net(context).chunk(2, dim=-1)
        return Normal(self.centre + self.scale * loc, self.scale * log_scale.exp()).to_event(1)
