"""Coupling layers: some entries move, by a monotone map whose parameters the others choose."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.networks import MLP, harmonics, pullback
from gencg.distributions.spline import circular_spline, line_spline


class Transform(ABC):
    """A monotone map of one variable with `n_parameters` parameters, zero meaning identity."""

    n_parameters: int

    @abstractmethod
    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Transformed ``x``, ``(*batch,)``, and log slope, from ``(*batch, n_parameters)``."""

    def push_score(self, x: Tensor, parameters: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        r"""Gradient of the log-density after the map, and what the parameters h add to it.

        .. math:: \nabla_y \log q = \frac{\nabla_x \log q - \partial_x \log y'}{y'}, \qquad
                  -\nabla_y \log q\, \frac{\partial y}{\partial h}
                  - \frac{\partial \log y'}{\partial h}

        Args:
            x: Variables before the map, ``(*batch,)``.
            parameters: Parameters h, ``(*batch, n_parameters)``.
            score: :math:`\nabla_x \log q`, ``(*batch,)``.
        """
        with torch.enable_grad():
            x, parameters = x.detach().requires_grad_(), parameters.detach().requires_grad_()
            y, log_slope = self(x, parameters, inverse=False)
            (curvature,) = torch.autograd.grad(log_slope.sum(), x, retain_graph=True)
            score = (score - curvature) * torch.exp(-log_slope.detach())
            (added,) = torch.autograd.grad((score * y).sum() + log_slope.sum(), parameters)
        return score, -added

    def features(self, x: Tensor) -> Tensor:
        """What a network may see of variables of this kind, ``(*batch, d)`` to ``(*batch, f)``."""
        return x

    def pull_features(self, x: Tensor, v: Tensor) -> Tensor:
        r""":math:`v^T \partial\,\mathrm{features} / \partial x`."""
        return v

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

    def pull_features(self, x: Tensor, v: Tensor) -> Tensor:
        return pullback(harmonics, x, v)

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

    def push_score(self, x: Tensor, parameters: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        bounded = torch.tanh(parameters[..., 1] / self.bound)
        pushed = score * torch.exp(-self.bound * bounded)
        of_scale = -(score * x + 1) * (1 - bounded.square())
        return pushed, torch.stack([-pushed, of_scale], dim=-1)


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

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        kept, moved = x[:, self.kept], x[:, self.moved]
        features = self.transform.features(kept)
        parameters, pull = self.net.with_pullback(torch.cat([features, context], dim=-1))
        parameters = parameters.reshape(*moved.shape, self.transform.n_parameters)
        out, log_slope = self.transform(moved, parameters, inverse=False)
        with torch.no_grad():
            of_moved, of_parameters = self.transform.push_score(
                moved, parameters, score[:, self.moved]
            )
            added = pull(of_parameters.flatten(1))
            n = features.shape[-1]
            of_kept = score[:, self.kept] + self.transform.pull_features(kept, added[:, :n])
            score = torch.cat([of_kept, of_moved], dim=-1)[:, self.order]
        y = torch.cat([kept, out], dim=-1)[:, self.order]
        return y, log_slope.sum(-1), score, added[:, n:]

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

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        return *self(x, context), score, torch.zeros_like(context)

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

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        parameters, pull = self.net.with_pullback(context)
        parameters = parameters.reshape(*x.shape, 2)
        y, log_slope = self.transform(x, parameters, inverse=False)
        with torch.no_grad():
            score, of_parameters = self.transform.push_score(x, parameters, score)
            added = pull(of_parameters.flatten(1))
        return y, log_slope.sum(-1), score, added

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

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        with torch.no_grad():
            solved = torch.linalg.solve_triangular(
                self.matrix.T, score.T, upper=True, unitriangular=True
            )
        return *self(x, context), solved.T, torch.zeros_like(context)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.linalg.solve_triangular(self.matrix, y.T, upper=False, unitriangular=True)
        return x.T, y.new_zeros(y.shape[0])


def _wrap(angle: Tensor) -> Tensor:
    """The angle on [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
