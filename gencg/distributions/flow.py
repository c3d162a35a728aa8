"""Normalizing flows as Pyro distributions with exact densities."""

from typing import Protocol, runtime_checkable

import torch
from normflows.flows import Flow
from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from gencg.distributions.networks import pullback


@runtime_checkable
class Scored(Protocol):
    r"""A flow that carries the gradient of the log-density along while it is drawn from.

    A layer :math:`y = f(x; c)` turns the gradients of the log-density of its input into those of
    its output, :math:`\log q(y|c) = \log q(x|c) - \log|\det J|`, the parameters held fixed as the
    path-gradient estimator wants them:

    .. math:: \nabla_y \log q = J^{-T}\, \nabla_x (\log q - \log|\det J|), \qquad
              \nabla_c \log q\,|_y = \nabla_c(\log q - \log|\det J|)\,|_x
              - \big(\tfrac{\partial y}{\partial c}\big)^T\, \nabla_y \log q

    It shares the networks' activations with the draw, where the density of the sample itself
    would take a pass through the inverse.

    References:
        | Fast and unified path gradient estimators for normalizing flows (Vaitl et al., 2024),
          https://arxiv.org/abs/2403.15881
    """

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Output ``(n, dim)``, log-determinant ``(n,)``, and two gradients without a graph.

        Args:
            x: Input, ``(n, dim)``.
            context: Context c, ``(n, n_context)``.
            score: :math:`\nabla_x \log q`, ``(n, dim)``.

        Returns:
            y, its log-determinant, :math:`\nabla_y \log q`, and what the flow adds to
            :math:`\nabla_c \log q`.
        """


class Chain(Flow):  # type: ignore[misc]
    """Layers one after another; log-determinants are summed in the dtype of the variables."""

    def __init__(self, layers: list[Flow]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, step = layer(x, context)
            log_det = log_det + step
        return x, log_det

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        log_det, of_context = x.new_zeros(x.shape[0]), torch.zeros_like(context)
        for layer in self.layers:
            x, step, score, added = layer.forward_with_score(x, context, score)  # type: ignore[operator]
            log_det, of_context = log_det + step, of_context + added
        return x, log_det, score, of_context

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(y.shape[0])
        for layer in reversed(self.layers):
            y, step = layer.inverse(y, context)  # type: ignore[operator]
            log_det = log_det + step
        return y, log_det


class FlowDistribution(TorchDistribution):  # type: ignore[misc]
    r"""Distribution of :math:`y = f(\epsilon; c)` with :math:`\epsilon` from a simple base.

    .. math:: \log q(y|c) = \log b(\epsilon) - \log|\det \partial f / \partial \epsilon|

    Args:
        base: Distribution of :math:`\epsilon`, batch shape ``(n,)``, event shape ``(dim,)``.
        flow: Invertible map with ``forward(eps, context)`` and ``inverse(y, context)``.
        context: One row per sample, ``(n, n_context)``.

    The density of a drawn sample is kept, because Pyro asks for the density of those very
    values; for any other tensor the inverse runs.
    """

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(self, base: TorchDistribution, flow: Flow, context: Tensor) -> None:
        self.base, self.flow, self.context = base, flow, context
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        """Draw one sample per row of the context, ``(n, dim)``."""
        if tuple(sample_shape) != ():
            raise ValueError(
                "FlowDistribution draws one sample per row of the batch; expand `base` and "
                f"`context` instead of passing sample_shape={tuple(sample_shape)}"
            )
        eps = self.base.rsample()
        y, log_det = self.flow(eps, self.context)
        self._drawn = y, self.base.log_prob(eps) - log_det
        drawn: Tensor = y
        return drawn

    def rsample_with_score(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""A sample, and :math:`\nabla_y \log q`, :math:`\nabla_c \log q` at fixed parameters.

        Raises:
            TypeError: If the flow cannot; see `Scored`.
        """
        if not isinstance(self.flow, Scored):
            raise TypeError(f"{type(self.flow).__name__} has no `forward_with_score`")
        eps = self.base.rsample()
        score = pullback(self.base.log_prob, eps, torch.ones(len(eps)).to(eps))
        y, log_det, score, of_context = self.flow.forward_with_score(eps, self.context, score)
        self._drawn = y, self.base.log_prob(eps) - log_det
        return y, score, of_context

    def log_prob(self, y: Tensor) -> Tensor:
        """Exact log-density, ``(n,)``."""
        if self._drawn is not None and same_sample(y, self._drawn[0]):
            log_q = self._drawn[1]
            # Drawn without a graph, the density may still be asked for with one
            if log_q.requires_grad or not torch.is_grad_enabled():
                return log_q
        eps, log_det = self.flow.inverse(y, self.context)
        log_prob: Tensor = self.base.log_prob(eps) + log_det
        return log_prob


def same_sample(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, or one a full view of the other as a Pyro plate returns it.

    A detached copy shares the memory, but not the way its gradient goes.
    """
    same_memory = a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
    return same_memory and a.requires_grad == b.requires_grad and a.is_leaf == b.is_leaf
