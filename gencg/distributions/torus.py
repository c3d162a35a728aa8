"""Distributions on the product of circles and lines."""

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor


class TorusNormal(TorchDistribution):  # type: ignore[misc]
    r"""Uniform on the first entries, angles on :math:`[-\pi,\pi)`; standard normal on the rest.

    Args:
        n_angles: Number of angles.
        n_normal: Number of normal entries.
        like: Tensor ``(n, ...)`` that gives the number of samples, dtype and device.
    """

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(self, n_angles: int, n_normal: int, *, like: Tensor) -> None:
        self.n_angles, self.n_normal, self.like = n_angles, n_normal, like
        super().__init__(like.shape[:1], Size([n_angles + n_normal]), validate_args=False)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        """Draw one sample per row of `like`."""
        shape = (*sample_shape, *self.batch_shape)
        angles = self.like.new_empty(*shape, self.n_angles).uniform_(-math.pi, math.pi)
        normal = self.like.new_empty(*shape, self.n_normal).normal_()
        return torch.cat([angles, normal], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, summed over the entries."""
        normal = value[..., self.n_angles :]
        constant = self.n_angles * math.log(2 * math.pi) + 0.5 * self.n_normal * math.log(
            2 * math.pi
        )
        return -0.5 * normal.square().sum(-1) - constant
