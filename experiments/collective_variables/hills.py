"""Well-tempered metadynamics of many replicas: each its own bias, on a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from gencg.units import BOLTZMANN_CONSTANT

POINTS_PER_WIDTH = 4
"""Grid points in a width of the hills: the bias is then exact to some 1e-5 of a hill."""


@dataclass(frozen=True)
class Axis:
    """A variable that is biased.

    Attributes:
        width: Standard deviation of the hills.
        low: Lowest value of the grid.
        high: Highest; where the circle closes, of an angle.
        periodic: Whether it is an angle.
    """

    width: float
    low: float = -math.pi
    high: float = math.pi
    periodic: bool = True

    @property
    def n_points(self) -> int:
        """Points of the grid; an angle has the last one twice, and keeps one of them."""
        return math.ceil(POINTS_PER_WIDTH * (self.high - self.low) / self.width) + (
            not self.periodic
        )

    @property
    def spacing(self) -> float:
        """Between two points."""
        return (self.high - self.low) / (self.n_points - (not self.periodic))

    def hill(self, centre: Tensor) -> Tensor:
        r"""A Gaussian and its slope at the points, ``(n, n_points, 2)`` of centres ``(n,)``.

        Of an angle's images the nearest counts.
        """
        points = self.low + self.spacing * torch.arange(self.n_points, dtype=centre.dtype)
        offset = points - centre[:, None]
        if self.periodic:
            turn = self.high - self.low
            offset = offset - turn * torch.round(offset / turn)
        value = torch.exp(-0.5 * (offset / self.width) ** 2)
        return torch.stack([value, -offset / self.width**2 * value], dim=-1)


class Hills:
    r"""Well-tempered bias of each replica.

    .. math::
        V(z) \leftarrow V(z) + h\, e^{-V(z_t) / k_B \Delta T}
        \prod_i e^{-(z_i - z_{t,i})^2 / 2 \sigma_i^2}, \qquad \Delta T = (\gamma - 1) T

    It tends to :math:`-\frac{\gamma - 1}{\gamma} F(z)`. On a grid stand values and all mixed first
    derivatives of the hills, which are exact there; in between are cubic polynomials, so that the
    force has no jump and is the slope of the bias.

    Args:
        axes: One or more.
        n_replicas: Number of replicas.
        height: Of the first hill, h in kJ/mol.
        bias_factor: :math:`\gamma > 1`.
        temperature: T in K.
        dtype: Of the grid.

    Raises:
        ValueError: If there is no axis, or a number is out of its range.

    References:
        | Well-tempered metadynamics: a smoothly converging and tunable free-energy method
          (Barducci, Bussi, Parrinello, 2008), https://doi.org/10.1103/PhysRevLett.100.020603
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        n_replicas: int,
        *,
        height: float,
        bias_factor: float,
        temperature: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not axes:
            raise ValueError("`axes` must hold one axis or more, got none")
        for name, value, least in (
            ("height", height, 0.0), ("bias_factor", bias_factor, 1.0),
            ("temperature", temperature, 0.0),
        ):  # fmt: skip
            if not least < value < math.inf:
                raise ValueError(f"`{name}` must be above {least:g} and finite, got {value}")
        self.axes, self.height, self.bias_factor = tuple(axes), height, bias_factor
        self.kt = BOLTZMANN_CONSTANT * temperature
        self.shape = tuple(axis.n_points for axis in axes)
        # Derivatives last: bit i of their number says whether by z_i
        self.grid = torch.zeros(n_replicas, math.prod(self.shape), 2 ** len(axes), dtype=dtype)
        self._low = torch.tensor([axis.low for axis in axes], dtype=dtype)
        self._spacing = torch.tensor([axis.spacing for axis in axes], dtype=dtype)
        self._sizes = torch.tensor(self.shape)
        # Of an angle the last point is the one before the first
        self._last = torch.tensor([axis.n_points - 1 + axis.periodic for axis in axes], dtype=dtype)
        self._lines = torch.tensor([not axis.periodic for axis in axes])
        self._all_periodic = all(axis.periodic for axis in axes)
        strides = [math.prod(self.shape[i + 1 :]) for i in range(len(axes))]
        self._strides = torch.tensor(strides)
        self._corners = torch.tensor(list(product((0, 1), repeat=len(axes))))
        d = len(axes)
        self._paired = [axis for i in range(d) for axis in (1 + i, 2 * d - i)]

    def add(self, z: Tensor) -> None:
        """A hill at z ``(n_replicas, d)``, lower where the bias is high."""
        z = z.to(self.grid)
        bias, _ = self(z)
        scale = self.height * torch.exp(-bias / (self.kt * (self.bias_factor - 1)))
        # [replica, points so far, derivatives so far]
        hill = scale[:, None, None]
        for axis, centre in zip(self.axes, z.unbind(1), strict=True):
            hill = torch.einsum("npa,nqb->npqba", hill, axis.hill(centre))
            hill = hill.reshape(len(z), -1, hill.shape[-1] * hill.shape[-2])
        self.grid += hill

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Bias in kJ/mol ``(n,)`` and its slopes ``(n, d)`` at z ``(n, d)``.

        Args:
            z: As many rows as replicas, or a whole multiple of them, all of the first first.
        """
        d, n = len(self.axes), len(z)
        points, value, slope = self._cells(z)
        n_replicas, n_points, _ = self.grid.shape
        first = torch.arange(0, n_replicas * n_points, n_points)
        if n != n_replicas:
            first = first.repeat_interleave(n // n_replicas)
        # [row, corner]
        place = first[:, None] + (points * self._strides).sum(-1)
        table = self.grid.view(-1, 2**d).index_select(0, place.flatten())
        # Corners (z_1, z_2, ...) and derivatives (..., z_2, z_1), paired by axis
        table = table.view(n, *[2] * (2 * d)).permute(0, *self._paired).reshape(n, *[4] * d)
        found = []
        for steep in (-1, *range(d)):
            part = table
            for i in range(d):
                weight = (slope if i == steep else value)[:, i]
                part = (weight.view(n, 4, *[1] * (d - 1 - i)) * part).sum(1)
            found.append(part)
        return found[0], torch.stack(found[1:], dim=-1)

    def _cells(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Corners ``(n, 2^d, d)``, and what they count for value and slope, ``(n, d, 4)`` each.

        Cubic Hermite polynomials, in the order of lower value, lower slope, upper value, upper
        slope. Beyond the ends of an axis that is no angle, the value is that of the end and the
        slope zero.
        """
        place = (z.to(self.grid) - self._low) / self._spacing
        inside: Tensor | float = 1.0
        if self._all_periodic:
            lower = place.floor()
        else:
            held = torch.minimum(place.clamp(min=0), self._last)
            inside = ((place == held) | ~self._lines).to(place)[..., None]
            place = torch.where(self._lines, held, place)
            lower = place.floor()
            lower = torch.where(self._lines, torch.minimum(lower, self._last - 1), lower)
        t, h = place - lower, self._spacing
        points = (lower.long()[:, None] + self._corners) % self._sizes
        u = 1 - t
        tu = t * u
        value = [u * u * (1 + 2 * t), h * tu * u, t * t * (3 - 2 * t), -h * tu * t]
        steep = 6 * tu / h
        slope = [-steep, u * (1 - 3 * t), steep, t * (3 * t - 2)]
        return points, torch.stack(value, -1), inside * torch.stack(slope, -1)

    def log_weights(self, z: Tensor) -> Tensor:
        r"""What undoes the bias of now, :math:`V(z)/k_B T`, ``(n_replicas, t)``.

        Args:
            z: What each replica has seen, ``(n_replicas, t, d)``.

        References:
            | Metadynamics with adaptive Gaussians (Branduardi, Bussi, Parrinello, 2012)
            | https://doi.org/10.1021/ct3002464
        """
        bias, _ = self(z.flatten(0, 1))
        return bias.reshape(z.shape[:2]) / self.kt

    def free_energy(self) -> Tensor:
        r"""Free energies :math:`-\frac{\gamma}{\gamma - 1} V` at the points, in kJ/mol.

        ``(n_replicas, *shape)``, up to a constant of each replica.
        """
        ratio = self.bias_factor / (self.bias_factor - 1)
        return -ratio * self.grid[..., 0].reshape(len(self.grid), *self.shape)

    def points(self) -> Tensor:
        """Values of the variables at all points, ``(prod(shape), d)``."""
        lines = [
            (axis.low + axis.spacing * torch.arange(axis.n_points)).tolist() for axis in self.axes
        ]
        return torch.tensor(list(product(*lines)), dtype=self.grid.dtype)
