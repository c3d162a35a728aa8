"""Velocity fields of continuous flows on circles and lines, and their divergence."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class VelocityField(nn.Module, ABC):
    r"""A velocity :math:`u_\theta(t, x; c)` for times :math:`t \in [0, 1]`.

    What depends on the context alone, :math:`k = k_\theta(c)`, is computed once for a whole path.

    Args:
        periodic: Which entries of x are angles, ``(dim,)`` bool.
    """

    periodic: Tensor

    def __init__(self, periodic: Tensor) -> None:
        super().__init__()
        self.register_buffer("periodic", periodic.clone())

    @property
    def dim(self) -> int:
        """Number of entries of x."""
        return len(self.periodic)

    @property
    def moves(self) -> bool:
        """Whether there may be a velocity: false for a field that was not trained yet."""
        return True

    @abstractmethod
    def coefficients(self, context: Tensor) -> Tensor:
        """k of a context ``(n, n_context)``: ``(n, m)``, or ``(1, m)`` if the same for all."""

    @abstractmethod
    def forward(self, t: Tensor, x: Tensor, k: Tensor) -> Tensor:
        """The velocity ``(n, dim)``.

        Args:
            t: Time, shape ``()``, or ``(n, 1)`` for a time of its own in each row.
            x: Where, ``(n, dim)``.
            k: The coefficients, ``(n, m)`` or ``(1, m)``.
        """

    def with_divergence(self, t: Tensor, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        r"""The velocity, and :math:`\nabla \cdot u` of shape ``(n,)``.

        Here exact, by `dim` backward passes; a field that knows better says so.
        """
        return exact_divergence(self, t, x, k)

    def with_pullback(
        self, t: Tensor, x: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Velocity, divergence, and the gradients of :math:`u \cdot v + \nabla\cdot u`; no graph.

        Args:
            t: Time, shape ``()``.
            x: Where, ``(n, dim)``.
            k: The coefficients.
            v: Held fixed, ``(n, dim)``.

        Returns:
            u, its divergence, and the gradients by x and by k.
        """
        with torch.enable_grad():
            x, k = x.detach().requires_grad_(), k.detach().requires_grad_()
            u, divergence = self.with_divergence(t, x, k)
            total = (u * v).sum() + divergence.sum()
            of_x, of_k = torch.autograd.grad(total, [x, k], materialize_grads=True)
        return u.detach(), divergence.detach(), of_x, of_k

    def with_slope(
        self, t: Tensor, x: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `with_pullback`, without the gradient by k, which may cost more than all the rest."""
        return self.with_pullback(t, x, k, v)[:3]


def exact_divergence(
    field: VelocityField, t: Tensor, x: Tensor, k: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Velocity and :math:`\sum_i \partial u_i / \partial x_i`, a backward pass for each entry."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        u = field(t, x, k)
        total = u.new_zeros(len(u))
        for i in range(u.shape[-1] if u.requires_grad else 0):
            (row,) = torch.autograd.grad(
                u[:, i].sum(), x, create_graph=graph, retain_graph=True, materialize_grads=True
            )
            total = total + row[:, i]
    return (u, total) if graph else (u.detach(), total.detach())


class HutchinsonField(VelocityField):
    r"""A field whose divergence is estimated by one backward pass (Hutchinson).

    .. math:: \nabla \cdot u \approx \eta^T \frac{\partial u}{\partial x}\, \eta, \qquad
              E[\eta \eta^T] = 1

    One :math:`\eta` of signs is drawn for each row and kept along the path, so that the estimate
    of the log-density is unbiased. **The weights are not**: they are the exponential of it. An
    estimate of variance :math:`s^2` multiplies every weight by a factor of mean
    :math:`e^{s^2/2}` and costs an effective sample size of about :math:`e^{-s^2}`; where
    :math:`s^2` differs from place to place, averages are biased. For generators too large for the
    exact trace in training; the final weights should have the exact one.

    Args:
        field: The field.

    References:
        | FFJORD (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367
    """

    def __init__(self, field: VelocityField) -> None:
        super().__init__(field.periodic)
        self.field = field

    def coefficients(self, context: Tensor) -> Tensor:
        """Those of the field, and the signs, ``(n, m + dim)``."""
        k = self.field.coefficients(context).expand(len(context), -1)
        signs = torch.randint(0, 2, (len(k), self.dim), device=k.device).to(k) * 2 - 1
        return torch.cat([k, signs], dim=-1)

    def forward(self, t: Tensor, x: Tensor, k: Tensor) -> Tensor:
        u: Tensor = self.field(t, x, k[:, : -self.dim])
        return u

    def with_divergence(self, t: Tensor, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        graph, signs = torch.is_grad_enabled(), k[:, -self.dim :]
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            u = self(t, x, k)
            total = u.new_zeros(len(u))
            if u.requires_grad:
                (row,) = torch.autograd.grad(
                    (u * signs).sum(), x, create_graph=graph, materialize_grads=True
                )
                total = (row * signs).sum(-1)
        return (u, total) if graph else (u.detach(), total.detach())
