"""The potential energy: a batched, differentiable, counted callable."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Energy(ABC):
    r"""Potential energy :math:`U(x)` in kJ/mol of a batch of configurations in nm.

    Calling an energy with ``x`` of shape ``(*batch, *event_shape)`` returns ``(*batch,)``. When
    `x` asks for a gradient, energy and gradient are computed together in one pass and both are
    counted; otherwise the energy alone is. Dtype and device are those of `x`. The gradient is a
    constant to autograd: second derivatives through a call are not supported and would come out
    as zero or as an error; differentiate `energy` for them.

    A member implements `energy`, in plain torch; one that knows a faster way to value and
    gradient overrides `energy_and_gradient` too.

    Attributes:
        event_shape: Shape of one configuration, ``(n_atoms, 3)`` for a molecule.
        n_energy_calls: Configurations whose energy was computed so far.
        n_gradient_calls: Configurations whose gradient was computed so far.
    """

    event_shape: tuple[int, ...]

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        self.event_shape = tuple(event_shape)
        self.n_energy_calls = 0
        self.n_gradient_calls = 0

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Energy of ``x``, shape ``(n, *event_shape)`` to ``(n,)``, differentiable, not counted."""

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Energies ``(n,)`` and gradients :math:`\nabla U`, ``(n, *event_shape)``; not counted."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.energy(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    def __call__(self, x: Tensor) -> Tensor:
        n_event = len(self.event_shape)
        if tuple(x.shape[x.ndim - n_event :]) != self.event_shape:
            expected = ", ".join(["*batch", *map(str, self.event_shape)])
            raise ValueError(f"`x` must have shape ({expected}), got {tuple(x.shape)}")
        batch = x.shape[: x.ndim - n_event]
        flat = x.reshape(-1, *self.event_shape)
        self.n_energy_calls += flat.shape[0]
        if flat.requires_grad and torch.is_grad_enabled():
            self.n_gradient_calls += flat.shape[0]
            return _Evaluate.apply(flat, self).reshape(batch)  # type: ignore[no-untyped-call,no-any-return]
        return self.energy(flat).detach().reshape(batch)


class _Evaluate(torch.autograd.Function):
    """Value now, gradient kept for the backward pass: one evaluation, never two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, energy: Energy) -> Tensor:
        value, gradient = energy.energy_and_gradient(x)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        weight = grad_outputs[0].reshape(-1, *[1] * (gradient.ndim - 1))
        # A configuration left out of the loss has weight 0: its gradient may be infinite
        return torch.where(weight == 0, torch.zeros_like(gradient), weight * gradient), None
