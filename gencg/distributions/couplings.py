"""Coupling layers: some entries move, by a monotone map whose parameters the others choose."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from normflows.flows import Flow
from torch import Tensor, nn

from gencg.distributions.native import MAX_BINS, NativeMove, has_machine_code
from gencg.distributions.networks import MLP, harmonics, pull_harmonics
from gencg.distributions.spline import circular_spline, line_spline


class Transform(ABC):
    """A monotone map of one variable with `n_parameters` parameters, zero meaning identity."""

    n_parameters: int
    kind: str | None = None
    """Name of its machine code (`native.KINDS`), if it has some."""
    bound: float = 0.0

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

    def pull_features(self, features: Tensor, v: Tensor) -> Tensor:
        r""":math:`v^T \partial\,\mathrm{features} / \partial x` where they are `features`."""
        return v

    def n_features(self, d: int) -> int:
        """Number of features of `d` variables."""
        return d


class CircularSpline(Transform):
    """Rational-quadratic spline of the circle; see `circular_spline`."""

    bound = math.pi

    def __init__(self, *, n_bins: int = 12) -> None:
        self.n_parameters = 3 * n_bins
        self.kind = "circle" if n_bins <= MAX_BINS else None

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return circular_spline(x, parameters, inverse=inverse)

    def features(self, x: Tensor) -> Tensor:
        return harmonics(x)

    def pull_features(self, features: Tensor, v: Tensor) -> Tensor:
        return pull_harmonics(features, v)

    def n_features(self, d: int) -> int:
        return 4 * d


class LineSpline(Transform):
    """Rational-quadratic spline of an interval, the identity outside; see `line_spline`."""

    def __init__(self, *, n_bins: int = 12, bound: float = 5.0) -> None:
        self.n_parameters = 3 * n_bins - 1
        self.kind = "line" if n_bins <= MAX_BINS else None
        self.bound = bound

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return line_spline(x, parameters, bound=self.bound, inverse=inverse)


class Affine(Transform):
    r"""Shift and scale, :math:`y = e^{s} x + t` with :math:`s = b \tanh(\sigma / b)`.

    References:
        | Density estimation using real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
    """

    n_parameters = 2
    kind = "affine"

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


class Move(nn.Module):
    """The transform of some entries of a row, the others kept: machine code where there is some.

    Args:
        transform: The monotone map.
        index: Entries that move, ``(n_moved,)``, sorted.
        dim: Number of entries.
    """

    index: Tensor
    order: Tensor
    kept: Tensor

    def __init__(self, transform: Transform, index: Tensor, *, dim: int) -> None:
        super().__init__()
        self.transform, self.dim = transform, dim
        moved = torch.zeros(dim, dtype=torch.bool)
        moved[index] = True
        kept = (~moved).nonzero()[:, 0]
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("kept", kept, persistent=False)
        order = torch.argsort(torch.cat([kept, index]))
        self.register_buffer("order", order, persistent=False)
        self._native: NativeMove | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_native": None}

    def forward(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Rows ``(n, dim)`` with entries moved, and log-determinants ``(n,)``.

        Args:
            x: Rows, ``(n, dim)``.
            parameters: Of all moved entries, ``(n, n_moved * n_parameters)``.
            inverse: Apply the inverse map.
        """
        if native := self._machine_code(x):
            return native(x, parameters, inverse=inverse)
        moved, log_slope = self.transform(x[:, self.index], self._rows(parameters), inverse=inverse)
        return self._together(x[:, self.kept], moved), log_slope.sum(-1)

    @torch.no_grad()
    def push_score(self, x: Tensor, parameters: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """`Transform.push_score` for rows: scores ``(n, dim)``, and what the parameters add."""
        if native := self._machine_code(x):
            return native.push_score(x, parameters, score)
        pushed, added = self.transform.push_score(
            x[:, self.index], self._rows(parameters), score[:, self.index]
        )
        return self._together(score[:, self.kept], pushed), added.flatten(1)

    def _rows(self, parameters: Tensor) -> Tensor:
        return parameters.reshape(len(parameters), -1, self.transform.n_parameters)

    def _together(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([kept, moved], dim=-1)[:, self.order]

    def _machine_code(self, x: Tensor) -> NativeMove | None:
        if self.transform.kind is None or not has_machine_code(x):
            return None
        if self._native is None:
            self._native = NativeMove(
                self.transform.kind,
                n_parameters=self.transform.n_parameters,
                bound=self.transform.bound,
                moved=self.index,
                dim=self.dim,
            )
        return self._native


class Coupling(Flow):  # type: ignore[misc]
    r"""Coupling layer :math:`y_A = x_A,\; y_B = T(x_B;\, h(x_A, c))`.

    Args:
        transform: The monotone map T.
        moved: Which entries are in B, ``(dim,)`` bool; all of them may be.
        n_context: Number of context features c.
        hidden: Hidden widths of the network h.

    Raises:
        ValueError: If no entry moves; on loading, if the parameters are those of other entries.

    References:
        | NICE (Dinh et al., 2015), https://arxiv.org/abs/1410.8516
    """

    kept: Tensor

    def __init__(
        self, transform: Transform, moved: Tensor, *, n_context: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        if not moved.any():
            raise ValueError("`moved` must mark at least one entry, got none")
        self.transform = transform
        kept_index, moved_index = (~moved).nonzero()[:, 0], moved.nonzero()[:, 0]
        self.register_buffer("kept", kept_index)
        self.move = Move(transform, moved_index, dim=len(moved))
        self.net = MLP(
            transform.n_features(len(kept_index)) + n_context,
            len(moved_index) * transform.n_parameters,
            hidden=hidden,
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse the parameters of a layer that moves other entries, in words."""
        given = state_dict.get(f"{prefix}kept")
        if given is not None and not torch.equal(given.to(self.kept), self.kept):
            raise ValueError("the parameters are those of couplings that move other entries")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(y, context, inverse=True)

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        features = self.transform.features(x.index_select(1, self.kept))
        parameters, pull = self.net.with_pullback(torch.cat([features, context], dim=-1))
        y, log_det = self.move(x, parameters, inverse=False)
        with torch.no_grad():
            score, of_parameters = self.move.push_score(x, parameters, score)
            added = pull(of_parameters)
            n = features.shape[-1]
            score.index_add_(1, self.kept, self.transform.pull_features(features, added[:, :n]))
        return y, log_det, score, added[:, n:]

    def _apply_transform(
        self, x: Tensor, context: Tensor, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        features = self.transform.features(x.index_select(1, self.kept))
        parameters = self.net(torch.cat([features, context], dim=-1))
        return self.move(x, parameters, inverse=inverse)  # type: ignore[no-any-return]


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
        self.move = Move(Affine(), torch.arange(dim), dim=dim)
        self.net = MLP(n_context, 2 * dim, hidden=hidden)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.move(x, self.net(context), inverse=False)  # type: ignore[no-any-return]

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        parameters, pull = self.net.with_pullback(context)
        y, log_det = self.move(x, parameters, inverse=False)
        score, of_parameters = self.move.push_score(x, parameters, score)
        return y, log_det, score, pull(of_parameters)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.move(y, self.net(context), inverse=True)  # type: ignore[no-any-return]


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
