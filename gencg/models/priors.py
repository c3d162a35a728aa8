"""Priors q(z) of the collective variables."""

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from gencg.models.base import ConditionalDistribution


class GaussianPrior(ConditionalDistribution):
    """Standard normal prior of `n_cvs` variables (2020); one row per row of the context."""

    loc: Tensor

    def __init__(self, n_cvs: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(n_cvs))

    def forward(self, context: Tensor) -> TorchDistribution:
        loc = self.loc.to(context.dtype).expand(context.shape[0], -1)
        return Normal(loc, torch.ones_like(loc)).to_event(1)
