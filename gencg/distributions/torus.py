"""Distributions on the product of circles and lines."""

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from gencg.geometry import wrap


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


class WrappedNormal(TorchDistribution):  # type: ignore[misc]
    r"""Normal distribution wound around the circle, independent in each entry.

    .. math:: p(z) = \sum_{k=-2}^{2} N(z + 2 \pi k;\, \mu, \sigma^2), \qquad z \in [-\pi, \pi)

    The sum of five images is the density to machine precision for :math:`\sigma \le 1`.

    Args:
        loc: Centre :math:`\mu` in rad, ``(*batch, d)``.
        scale: Width :math:`\sigma` in rad, broadcast to `loc`.

    References:
        | Directional statistics (Mardia, Jupp, 2000), section 3.5.7
    """

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale.expand_as(loc)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The centre, as an angle."""
        return wrap(self.loc)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        """Draw angles on :math:`[-\\pi, \\pi)`."""
        noise = self.loc.new_empty(*sample_shape, *self.loc.shape).normal_()
        return wrap(self.loc + self.scale * noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, summed over the entries."""
        offset = wrap(value - self.loc)
        images = 2 * math.pi * torch.arange(-2, 3, dtype=offset.dtype, device=offset.device)
        u = (offset[..., None] + images) / self.scale[..., None]
        log_density = torch.logsumexp(-0.5 * u.square(), -1) - self.scale.log()
        total: Tensor = (log_density - 0.5 * math.log(2 * math.pi)).sum(-1)
        return total
