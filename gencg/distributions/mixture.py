"""Mixtures of flows, with exact densities."""

from collections.abc import Sequence

import torch
from normflows.flows import Flow
from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from gencg.distributions.flow import same_sample


class FlowMixture(TorchDistribution):  # type: ignore[misc]
    r"""Mixture of what several flows make of one base.

    .. math:: q(y|c) = \sum_k a_k\, b\big(f_k^{-1}(y; c)\big)
              \left|\det \partial f_k^{-1} / \partial y\right|

    Each row is drawn from one flow, chosen by chance. With the shares held fixed a sample is as
    good a function of the parameters as one of a single flow. Of a drawn sample the density of its
    own flow is kept, as `FlowDistribution` does; that of the others takes their inverse.

    Args:
        base: Distribution of :math:`\epsilon`, batch shape ``(n,)``, event shape ``(dim,)``.
        flows: Invertible maps with ``forward(eps, context)`` and ``inverse(y, context)``.
        log_shares: :math:`\log a_k`, one for each flow.
        context: One row per sample, ``(n, n_context)``.
    """

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        base: TorchDistribution,
        flows: Sequence[Flow],
        log_shares: Tensor,
        context: Tensor,
    ) -> None:
        self.base, self.flows = base, list(flows)
        self.log_shares, self.context = log_shares, context
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        """Draw one sample per row of the context, ``(n, dim)``."""
        if tuple(sample_shape) != ():
            raise ValueError(
                "FlowMixture draws one sample per row of the batch; expand `base` and `context` "
                f"instead of passing sample_shape={tuple(sample_shape)}"
            )
        eps: Tensor = self.base.rsample()
        edges = self.log_shares.double().exp().cumsum(0)[:-1]
        # A row for each sample, so that several processes draw what one would
        chosen = torch.bucketize(self.context.new_empty(len(eps)).uniform_().double(), edges)
        rows = [(chosen == k).nonzero()[:, 0] for k in range(len(self.flows))]
        drawn = [
            flow(eps[own], self.context[own])
            for flow, own in zip(self.flows, rows, strict=True)
            if len(own)
        ]
        if not drawn:
            return eps
        order = torch.argsort(torch.cat(rows))
        y: Tensor = torch.cat([part for part, _ in drawn])[order]
        log_det = torch.cat([part for _, part in drawn])[order]
        self._drawn = y, self.base.log_prob(eps) - log_det, chosen
        return y

    def log_prob(self, y: Tensor) -> Tensor:
        """Exact log-density, ``(n,)``."""
        own, chosen = self._known(y)
        terms = []
        for k, flow in enumerate(self.flows):
            log_q, rows = own, (chosen != k).nonzero()[:, 0]
            if len(rows):
                eps, log_det = flow.inverse(y[rows], self.context[rows])
                log_q = own.index_put((rows,), self.base.log_prob(eps) + log_det)
            terms.append(self.log_shares[k] + log_q)
        return torch.logsumexp(torch.stack(terms), 0)

    def _known(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """For each row the log-density of the flow it was drawn from and which that is, or -1."""
        if self._drawn is not None and same_sample(y, self._drawn[0]):
            _, own, chosen = self._drawn
            # Drawn without a graph, the density may still be asked for with one
            if own.requires_grad or not torch.is_grad_enabled():
                return own, chosen
        return y.new_zeros(len(y)), torch.full((len(y),), -1, device=y.device)
