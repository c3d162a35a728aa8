"""Path gradients of alpha-divergences: reverse KL, forward KL and chi-square in one formula."""

from typing import Any

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.own_samples import OwnSamples, Path, trace_path
from gencg.objectives.replay import ReplayBuffer, Replaying
from gencg.target import BoltzmannTarget


class AlphaDivergence(Replaying):
    r"""Rényi's divergence of the target from the generator, on fresh and replayed samples.

    .. math:: L_\alpha = \frac{1}{\alpha (\alpha - 1)} \log \int p^\alpha q_\theta^{1-\alpha} dy

    is KL(q|p) for :math:`\alpha \to 0`, KL(p|q) for :math:`\alpha \to 1` and
    :math:`-\frac12 \log \mathrm{ESS}` at :math:`\alpha = 2`. With :math:`y = f_\theta(\epsilon)`
    its gradient needs no score of the parameters: integrating by parts,

    .. math:: \nabla_\theta L_\alpha = \frac{E_q\big[w^\alpha\,
              (\partial_\theta f_\theta)^T\, \nabla_y \log (q_\theta/p)\big]}{E_q[w^\alpha]},
              \qquad w = \tilde p / q_\theta

    On samples drawn from any m, :math:`w^\alpha` becomes
    :math:`\tilde p^\alpha q_\theta^{1-\alpha} / m`. The gradient of *every* sample vanishes where
    the generator is the target, which that of :math:`-w \log q_\theta` does not. On fresh samples
    it costs nothing beyond reverse KL; a replayed one costs a pass through the flow and its
    inverse, and no energy call, since the slope of the energy is kept with it. Weights above
    :math:`\sqrt n` times their mean are cut there, a bias that falls with the spread of w.

    Args:
        target: The Boltzmann density.
        alpha: The order; weights are the more uneven the higher it is.
        options: See `Replaying`.

    Raises:
        ValueError: If `alpha` is outside [0, 2], or as `Replaying`.

    References:
        | Doubly reparameterized gradient estimators (Tucker et al., 2019),
          https://arxiv.org/abs/1810.04152
        | Fast and unified path gradient estimators for normalizing flows (Vaitl et al., 2024),
          https://arxiv.org/abs/2403.15881
        | Rényi divergence variational inference (Li, Turner, 2016),
          https://arxiv.org/abs/1602.02311
    """

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        alpha: float = 1.0,
        **options: Any,
    ) -> None:
        if not 0 <= alpha <= 2:
            raise ValueError(f"`alpha` must lie in [0, 2], got {alpha}")
        super().__init__(target, **options)
        self.alpha = alpha

    def other(
        self, model: CoarseGrainedModel, path: Path, fresh: OwnSamples, beta: float
    ) -> Tensor:
        log_weights = torch.where(fresh.finite, fresh.log_weights(beta), -torch.inf)
        c = truncated(self.alpha * log_weights if self.alpha else _flat(log_weights))
        loss = path.pull(fresh.log_target_slope(beta), c)
        if not self.n_replayed or not len(self.buffer):
            return loss
        share = self.n_replayed / (self.n_replayed + self.n_samples)
        old = replayed(model, self.buffer, beta, alpha=self.alpha, n=self.n_replayed)
        return (1 - share) * loss + share * old


def replayed(
    model: CoarseGrainedModel, buffer: ReplayBuffer, beta: float, *, alpha: float, n: int
) -> Tensor:
    r"""Loss of order :math:`\alpha` on `n` samples of a buffer, in gradient; zero in value.

    Drawn by :math:`\pi`, they count
    :math:`c_i \propto \tilde p^\alpha q_\theta^{1-\alpha} / (m \pi)`.
    """
    samples, log_share = buffer.draw(n, beta)
    path = trace_path(model, samples.y)
    log_c = alpha * samples.log_target(beta) + (1 - alpha) * path.log_q - samples.log_drawn
    return path.pull(samples.log_target_slope(beta), truncated(log_c - log_share))


def _flat(log_weights: Tensor) -> Tensor:
    """Equal weights, for the order zero: zero times minus infinity is no number."""
    return torch.where(log_weights.isneginf(), log_weights, 0.0)
