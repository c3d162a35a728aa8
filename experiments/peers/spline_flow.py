"""The all-atom neural spline flow of the literature, from the layers of normflows."""

import math

import torch
from normflows.flows import CircularCoupledRationalQuadraticSpline, PeriodicShift
from normflows.utils.masks import create_random_binary_mask
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap

TAIL = 5.0
"""Half-width of the splines on the line, in units of the coordinate's scale."""


class PlainSplineFlow(nn.Module):
    r"""Spline couplings over all internal coordinates at once, half of them moved at random.

    Bonds, angles and stiff torsions start from a normal distribution around the reference
    structure, cut off at `TAIL` scales; soft torsions start uniform on the circle and are turned
    by a random angle after every second layer. Zero output of the networks is the identity, with
    which training starts.

    The size is that of *Flow annealed importance sampling bootstrap* for alanine dipeptide: 12
    layers, a residual network of width 256 each, 8 bins; 4.0e6 parameters. Temperature-annealed
    Boltzmann generators use 16 layers of five times 256. Their coordinates are normalised and
    their rotors are not folded; here they are those of gencg.

    normflows maps what lies outside a spline's interval to zero where lines and circles are mixed,
    so the base is cut off and rounding errors are brought back inside.

    Args:
        coordinates: Gives the number of coordinates, which are periodic, centre and scale.
        n_layers: Coupling layers.
        hidden: Width of the networks.
        n_bins: Bins of each spline.
        seed: Chooses masks and turns.

    References:
        | Flow annealed importance sampling bootstrap (Midgley et al., 2023),
          https://arxiv.org/abs/2208.01893, and its configuration of alanine dipeptide
        | Temperature-annealed Boltzmann generators (Schopmans, Friederich, 2025),
          https://arxiv.org/abs/2501.19077
    """

    bound: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_layers: int = 12,
        hidden: int = 256,
        n_bins: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dim = coordinates.dim
        self.circles = coordinates.periodic.nonzero()[:, 0].tolist()
        self.lines = (~coordinates.periodic).nonzero()[:, 0].tolist()
        bound = torch.full((self.dim,), TAIL)
        bound[self.circles] = math.pi
        centre, scale = coordinates.centre.float(), coordinates.scale.float()
        self.register_buffer("bound", bound)
        self.register_buffer("centre", torch.where(coordinates.periodic, 0.0, centre))
        self.register_buffer("scale", torch.where(coordinates.periodic, 1.0, scale))
        self.layers = nn.ModuleList()
        for k, mask in enumerate(_masks(self.dim, n_layers, seed)):
            self.layers.append(
                CircularCoupledRationalQuadraticSpline(
                    self.dim, 1, hidden, self.circles, num_bins=n_bins, tail_bound=bound, mask=mask
                )
            )
            if k % 2 == 1 and k + 1 < n_layers and self.circles:
                self.layers.append(self._turn(seed + k))

    def forward(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates ``(n, dim)`` from the base and log-determinant ``(n,)``."""
        # normflows adds log-determinants up in float32 whatever the model is
        log_det = eps.new_zeros(len(eps)) + self.scale.log().sum()
        for layer in self.layers:
            eps, step = layer(eps)
            eps, log_det = self._inside(eps), log_det + step
        return eps * self.scale + self.centre, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, backwards."""
        eps = (y - self.centre) / self.scale
        log_det = y.new_zeros(len(y)) - self.scale.log().sum()
        for layer in reversed(self.layers):
            eps, step = layer.inverse(self._inside(eps))  # type: ignore[operator]
            log_det = log_det + step
        return eps, log_det

    def log_prob(self, y: Tensor) -> Tensor:
        """Log-density of coordinates inside the intervals of the splines, ``(n,)``."""
        eps, log_det = self.inverse(y)
        return self._log_base(eps) + log_det

    def sample(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw z (empty), y ``(n, dim)`` and :math:`\log q(y)` ``(n,)``, as `gencg.draw` asks."""
        eps = torch.empty(n, self.dim).to(self.scale)
        nn.init.trunc_normal_(eps, a=-TAIL, b=TAIL)
        eps[:, self.circles] = eps.new_empty(n, len(self.circles)).uniform_(-math.pi, math.pi)
        y, log_det = self(eps)
        return y[:, :0], y, self._log_base(eps) - log_det

    def log_encoder(self, z: Tensor, y: Tensor) -> Tensor:
        """Zero: there are no collective variables."""
        return y.new_zeros(len(y))

    def _log_base(self, eps: Tensor) -> Tensor:
        share = math.erf(TAIL / math.sqrt(2))
        line = 0.5 * math.log(2 * math.pi) + math.log(share)
        constant = len(self.lines) * line + len(self.circles) * math.log(2 * math.pi)
        return -0.5 * eps[:, self.lines].square().sum(-1) - constant

    def _inside(self, eps: Tensor) -> Tensor:
        return torch.clamp(eps, -self.bound, self.bound)

    def _turn(self, seed: int) -> PeriodicShift:
        half_to_three_halves = torch.rand([], generator=torch.Generator().manual_seed(seed)) + 0.5
        return PeriodicShift(self.circles, bound=math.pi, shift=half_to_three_halves * math.pi)


def _masks(dim: int, n: int, seed: int) -> list[Tensor]:
    """Random halves; every second one is the other half of the one before."""
    drawn = [create_random_binary_mask(dim, seed=seed + k) for k in range(0, n + 1, 2)]
    pairs = [mask for half in drawn for mask in (half, 1 - half)]
    return pairs[:n]
