"""Normalizing flows as Pyro distributions with exact densities."""

import torch
from normflows.flows import Flow
from pyro.distributions import TorchDistribution
from torch import Size, Tensor


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

    The density of a drawn sample is kept, because Pyro asks for the density of that very
    tensor; for any other tensor the inverse runs.
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

    def log_prob(self, y: Tensor) -> Tensor:
        """Exact log-density, ``(n,)``."""
        if self._drawn is not None and y is self._drawn[0]:
            return self._drawn[1]
        eps, log_det = self.flow.inverse(y, self.context)
        log_prob: Tensor = self.base.log_prob(eps) + log_det
        return log_prob
