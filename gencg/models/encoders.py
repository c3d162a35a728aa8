"""Encoders r(z|x): collective variables as functions of the configuration."""

from collections.abc import Sequence

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.networks import MLP
from gencg.models.base import ConditionalDistribution


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
