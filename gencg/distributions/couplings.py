"""Coupling layers: some entries move, by a monotone map whose parameters the others choose."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.networks import MLP, harmonics
from gencg.distributions.spline import circular_spline, line_spline


class Transform(ABC):
    """A monotone map of one variable with `n_parameters` parameters, zero meaning identity."""

    n_parameters: int

    @abstractmethod
    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Transformed ``x``, ``(*batch,)``, and log slope, from ``(*batch, n_parameters)``."""

    def features(self, x: Tensor) -> Tensor:
        """What a network may see of variables of this kind, ``(*batch, d)`` to ``(*batch, f)``."""
        return x

    def n_features(self, d: int) -> int:
        """Number of features of `d` variables."""
        return d


class CircularSpline(Transform):
    """Rational-quadratic spline of the circle; see `circular_spline`."""

    def __init__(self, *, n_bins: int = 12) -> None:
        self.n_parameters = 3 * n_bins

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return circular_spline(x, parameters, inverse=inverse)

    def features(self, x: Tensor) -> Tensor:
        return harmonics(x)

    def n_features(self, d: int) -> int:
        return 4 * d


class LineSpline(Transform):
    """Rational-quadratic spline of an interval, the identity outside; see `line_spline`."""

    def __init__(self, *, n_bins: int = 12, bound: float = 5.0) -> None:
        self.n_parameters = 3 * n_bins - 1
        self.bound = bound

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return line_spline(x, parameters, bound=self.bound, inverse=inverse)


class Affine(Transform):
    r"""Shift and scale, :math:`y = e^{s} x + t` with :math:`s = b \tanh(\sigma / b)`.

    References:
        | Density estimation using real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
    """

    n_parameters = 2

    def __init__(self, *, bound: float = 1.5) -> None:
        self.bound = bound

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, scale = parameters.unbind(-1)
        log_scale = self.bound * torch.tanh(scale / self.bound)
        if inverse:
            return (x - shift) * torch.exp(-log_scale), -log_scale
        return x * torch.exp(log_scale) + shift, log_scale


class Coupling(Flow):  # type: ignore[misc]
    r"""Coupling layer :math:`y_A = x_A,\; y_B = T(x_B;\, h(x_A, c))`.

    Args:
        transform: The monotone map T.
        moved: Which entries are in B, ``(dim,)`` bool; all of them may be.
        n_context: Number of context features c.
        hidden: Hidden widths of the network h.

    References:
        | NICE (Dinh et al., 2015), https://arxiv.org/abs/1410.8516
    """

    kept: Tensor
    moved: Tensor
    order: Tensor

    def __init__(
        self, transform: Transform, moved: Tensor, *, n_context: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        if not moved.any():
            raise ValueError("`moved` must mark at least one entry, got none")
        self.transform = transform
        kept_index, moved_index = (~moved).nonzero()[:, 0], moved.nonzero()[:, 0]
        self.register_buffer("kept", kept_index)
        self.register_buffer("moved", moved_index)
        self.register_buffer("order", torch.argsort(torch.cat([kept_index, moved_index])))
        self.net = MLP(
            transform.n_features(len(kept_index)) + n_context,
            len(moved_index) * transform.n_parameters,
            hidden=hidden,
        )

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(y, context, inverse=True)

    def _apply_transform(
        self, x: Tensor, context: Tensor, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, self.kept], x[:, self.moved]
        parameters = self.net(torch.cat([self.transform.features(kept), context], dim=-1))
        parameters = parameters.reshape(*moved.shape, self.transform.n_parameters)
        moved, log_slope = self.transform(moved, parameters, inverse=inverse)
        return torch.cat([kept, moved], dim=-1)[:, self.order], log_slope.sum(-1)


class Rotation(Flow):  # type: ignore[misc]
    """Turn every angle by a fixed amount, so that the seams of the splines do not coincide."""

    angle: Tensor

    def __init__(self, angle: Tensor) -> None:
        super().__init__()
        self.register_buffer("angle", angle)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return _wrap(x + self.angle), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return _wrap(y - self.angle), y.new_zeros(y.shape[0])


class ConditionalAffine(Flow):  # type: ignore[misc]
    r"""Shift and scale of all entries by the context, :math:`y = e^{s(c)} x + t(c)`."""

    def __init__(self, dim: int, *, n_context: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.transform = Affine()
        self.net = MLP(n_context, 2 * dim, hidden=hidden)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        y, log_slope = self.transform(x, self.net(context).reshape(*x.shape, 2), inverse=False)
        return y, log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transform(y, self.net(context).reshape(*y.shape, 2), inverse=True)
        return x, log_slope.sum(-1)


class UnitTriangular(Flow):  # type: ignore[misc]
    """One linear map with unit lower-triangular matrix: correlations at no change of volume."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.entries = torch.nn.Parameter(torch.zeros(dim, dim))

    @property
    def matrix(self) -> Tensor:
        """The matrix L, shape ``(dim, dim)``."""
        eye = torch.eye(len(self.entries), dtype=self.entries.dtype, device=self.entries.device)
        return self.entries.tril(-1) + eye

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.T, x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.linalg.solve_triangular(self.matrix, y.T, upper=False, unitriangular=True)
        return x.T, y.new_zeros(y.shape[0])


def _wrap(angle: Tensor) -> Tensor:
    """The angle on [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
