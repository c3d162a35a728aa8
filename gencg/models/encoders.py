"""Encoders r(z|x): collective variables as functions of the configuration."""

from collections.abc import Sequence

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.nn import functional

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.networks import MLP
from gencg.distributions.torus import WrappedNormal
from gencg.models.base import ConditionalDistribution
from gencg.models.two_block import SoftSpace
from gencg.models.unimodal import winding


class GaussianEncoder(ConditionalDistribution):
    r"""Diagonal Gaussian :math:`r(z|y) = N(\mu(y), \sigma(y)^2)`, the encoder of 2020.

    It sees periodic coordinates by cosine and sine, the others as standard deviations from the
    reference. Its mean is the collective variable.

    Args:
        coordinates: Gives which coordinates are periodic, centre and scale.
        n_cvs: Number of collective variables.
        hidden: Hidden widths.
    """

    angles: Tensor
    lines: Tensor
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
        self.register_buffer("angles", coordinates.periodic.nonzero()[:, 0])
        self.register_buffer("lines", (~coordinates.periodic).nonzero()[:, 0])
        self.register_buffer("centre", coordinates.centre[self.lines].float())
        self.register_buffer("scale", coordinates.scale[self.lines].float())
        n_features = 2 * len(self.angles) + len(self.lines)
        self.net = MLP(n_features, 2 * n_cvs, hidden=hidden, activation=torch.nn.Tanh)

    def forward(self, context: Tensor) -> TorchDistribution:
        angle = context[..., self.angles]
        line = (context[..., self.lines] - self.centre) / self.scale
        features = torch.cat([angle.cos(), angle.sin(), line], dim=-1)
        loc, log_scale = self.net(features).chunk(2, dim=-1)
        return Normal(loc, log_scale.exp()).to_event(1)


class SoftEncoder(ConditionalDistribution):
    r"""Normal of bounded width :math:`r(z|y) = N(\mu(s), \sigma(s)^2)` that sees soft s alone.

    For periodic z it is wrapped, and :math:`\mu` is the torsions that z winds around, moved by a
    network. On the line :math:`\mu` is linear plus a network. Its mean is the collective variable.

    Args:
        coordinates: Gives which coordinates are soft, and whether they are angles.
        n_cvs: Number of collective variables.
        periodic: Whether they are angles.
        hidden: Hidden widths.

    Raises:
        ValueError: If periodic z have nothing to wind around (`winding`).
    """

    axes: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int,
        periodic: bool,
        hidden: Sequence[int] = (100, 100),
    ) -> None:
        super().__init__()
        self.space, self.periodic = SoftSpace(coordinates), periodic
        self.net = MLP(self.space.n_features, 2 * n_cvs, hidden=hidden)
        if periodic:
            self.register_buffer("axes", winding(self.space, n_cvs))
        else:
            self.axes = torch.nn.Parameter(torch.zeros(self.space.n_features, n_cvs))

    def forward(self, context: Tensor) -> TorchDistribution:
        s = context[..., self.space.soft_index]
        features = self.space.features(s)
        loc, narrow = self.net(features).chunk(2, dim=-1)
        # At most 1, where five images of the wrapped normal are exact
        scale = torch.exp(-functional.softplus(narrow))
        if self.periodic:
            return WrappedNormal(loc + s @ self.axes, scale)
        return Normal(loc + features @ self.axes, scale).to_event(1)
