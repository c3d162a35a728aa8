"""Continuous normalizing flows: samples and densities by solving a differential equation."""

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.networks import pullback
from gencg.distributions.solvers import FixedSteps, Solver
from gencg.distributions.velocity import VelocityField
from gencg.geometry import wrap

DEFAULT_SOLVER = FixedSteps()


class ContinuousFlow(Flow):  # type: ignore[misc]
    r"""The map from t = 0 to t = 1 along a velocity field, on a product of circles and lines.

    .. math:: \frac{dx}{dt} = u_\theta(t, x; c), \qquad
              \log\left|\det \frac{\partial x_1}{\partial x_0}\right|
              = \int_0^1 \nabla \cdot u_\theta(t, x_t; c)\, dt

    Both are solved together; the density is exact but for the error of the solver, which
    ``experiments/flow_matching`` shows against the number of steps. It stands wherever a layer
    stands. Angles travel any way around and are wrapped at the end.

    Path gradients: :math:`\lambda = \nabla_x \log q_t(x_t)` follows

    .. math:: \frac{d\lambda}{dt} = -\left(\frac{\partial u}{\partial x}\right)^T \lambda
              - \nabla_x (\nabla \cdot u)

    and the gradient by the coefficients of the context the same with :math:`\partial / \partial k`.

    Args:
        field: The velocity.
        solver: How the equation is solved.

    References:
        | FFJORD (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367
        | Neural ordinary differential equations on manifolds (Falorsi, Forré, 2020),
          https://arxiv.org/abs/2006.06663
        | Path-gradient estimators for continuous normalizing flows (Vaitl et al., 2022),
          https://arxiv.org/abs/2206.09016
    """

    field: VelocityField

    def __init__(self, field: VelocityField, *, solver: Solver = DEFAULT_SOLVER) -> None:
        super().__init__()
        self.field, self.solver = field, solver

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._move(x, context, 0.0, 1.0)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._move(y, context, 1.0, 0.0)

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`.

        y carries a graph to the parameters, the log-determinant none.
        """
        k = self.field.coefficients(context)
        (y,) = self.solver.solve(lambda t, state: (self.field(t, state[0], k),), (x,), 0.0, 1.0)
        if not context.shape[-1]:
            _, log_det, score = self._scored(k, x, score)
            return self._wrapped(y), log_det, score, torch.zeros_like(context)

        def rate(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            u, divergence, of_x, of_k = self.field.with_pullback(t, state[0], k, state[2])
            return u, divergence, -of_x, -of_k

        with torch.no_grad():
            state = x.detach(), x.new_zeros(len(x)), score, torch.zeros_like(k)
            _, log_det, score, of_k = self.solver.solve(rate, state, 0.0, 1.0)
        return self._wrapped(y), log_det, score, pullback(self.field.coefficients, context, of_k)

    def draw_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward_with_score`, without a graph and without the gradient by the context."""
        return self._scored(self.field.coefficients(context), x, score)

    @torch.no_grad()
    def _scored(self, k: Tensor, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def rate(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            u, divergence, of_x = self.field.with_slope(t, state[0], k, state[2])
            return u, divergence, -of_x

        state = x.detach(), x.new_zeros(len(x)), score
        y, log_det, score = self.solver.solve(rate, state, 0.0, 1.0)
        return self._wrapped(y), log_det, score

    def _move(self, x: Tensor, context: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        k = self.field.coefficients(context)

        def rate(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return self.field.with_divergence(t, state[0], k)

        moved, log_det = self.solver.solve(rate, (x, x.new_zeros(len(x))), start, end)
        return self._wrapped(moved), log_det

    def _wrapped(self, x: Tensor) -> Tensor:
        return torch.where(self.field.periodic, wrap(x), x)
