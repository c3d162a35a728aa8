"""The log-variance divergence on replayed samples."""

from typing import Any

from torch import Tensor

from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.own_samples import OwnSamples, Path
from gencg.objectives.replay import Replaying
from gencg.target import BoltzmannTarget


class LogVariance(Replaying):
    r"""Variance of the log weights over replayed samples, mixed with reverse KL on fresh ones.

    .. math:: L = (1 - a)\, \mathrm{KL}(q \| p)
              + \frac{a}{2} \mathrm{Var}_{y \sim m}\left[\log \tilde p_\beta(y)
              - \log q_\theta(y)\right]

    The samples may come from anywhere, so that old ones need no weights, and the gradient goes
    through :math:`\log q_\theta` alone. It is the trajectory-balance loss of generative flow
    networks with the log Z that is best for each batch; at m = q its gradient is that of reverse
    KL. Where the generator is the target every sample's gradient vanishes. Deviations from the
    mean beyond `largest` pull no stronger than that, since those of clashes run into thousands.

    Here m are samples of the buffer drawn by their weights, about the target itself.

    Args:
        target: The Boltzmann density.
        largest: Deviation in kT that is the largest to pull.
        mix: Share of this loss, as of any `Replaying`.
        options: See `Replaying`.

    Raises:
        ValueError: If `largest` is not positive or `n_replayed` is below 2, or as `Replaying`.

    References:
        | VarGrad: a low-variance gradient estimator for variational inference (Richter et al.,
          2020), https://arxiv.org/abs/2010.10436
        | Improved off-policy training of diffusion samplers (Sendera et al., 2024),
          https://arxiv.org/abs/2402.05098
    """

    def __init__(
        self, target: BoltzmannTarget, *, largest: float = 10.0, mix: float = 0.3, **options: Any
    ) -> None:
        if not largest > 0:
            raise ValueError(f"`largest` must be positive, got {largest}")
        super().__init__(target, mix=mix, **options)
        if self.n_replayed < 2:
            raise ValueError(f"`n_replayed` must be at least 2, got {self.n_replayed}")
        self.largest = largest

    def other(
        self, model: CoarseGrainedModel, path: Path, fresh: OwnSamples, beta: float
    ) -> Tensor:
        samples, _ = self.buffer.draw(self.n_replayed, beta)
        log_q = model.decoder(model.rows(len(samples))).log_prob(samples.y)
        deviation = (samples.log_target(beta) - log_q).detach()
        deviation = (deviation - deviation.mean()).clamp(-self.largest, self.largest)
        loss: Tensor = -(deviation * log_q).mean()
        return loss
