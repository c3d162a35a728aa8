"""The contract of every model part: context in, Pyro distribution out."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution
from torch import Tensor, nn


class ConditionalDistribution(nn.Module, ABC):
    """A module whose forward returns a Pyro distribution with exact ``log_prob``."""

    @abstractmethod
    def forward(self, context: Tensor) -> TorchDistribution:
        """Distribution with batch shape ``(n,)`` from a context of n rows."""


class Empty(ConditionalDistribution):
    """The distribution of no variables: prior and encoder of a model without CVs."""

    def forward(self, context: Tensor) -> TorchDistribution:
        from pyro.distributions import Normal

        zero = context.new_zeros(context.shape[0], 0)
        return Normal(zero, zero + 1).to_event(1)
