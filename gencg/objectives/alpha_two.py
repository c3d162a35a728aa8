"""Flow annealed importance sampling bootstrap: the divergence of order two, sampled where it is."""

from typing import Any

from torch import Tensor

from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.alpha_divergence import replayed
from gencg.objectives.latent_hmc import LatentAIS
from gencg.objectives.own_samples import OwnSamples, Path, flow_of
from gencg.objectives.replay import Replaying
from gencg.target import BoltzmannTarget


class AlphaTwo(Replaying):
    r"""Divergence of order two on samples annealed to :math:`p^2/q`, kept in a buffer (FAB).

    .. math:: L = (1 - a)\, \mathrm{KL}(q \| p) + \frac{a}{2} \log \int \frac{p^2}{q_\theta} dy

    The integrand of the second part, whose minimum is the highest ESS there is, lives where the
    generator has too little density; samples of the generator are few there. Chains of `LatentAIS`
    take the fresh samples to it, and the buffer keeps their ends, drawn by weight and corrected
    for the generator of today. Path gradients as in `AlphaDivergence`.

    An evaluation costs ``n_samples * (1 + n_between * n_leapfrog)`` energy calls: give `fit` that
    number as its ``batch_size``, which decides how many steps a budget allows. The chains' step
    length and the buffer are no part of a checkpoint and are found again after a resume.

    Args:
        target: The Boltzmann density.
        n_samples: Chains per evaluation, from fresh samples.
        n_between: Densities between q and :math:`p^2/q` that the chains stop at.
        n_leapfrog: Steps of the trajectory there.
        mix: Share a of the divergence of order two; 1 is FAB as published.
        options: See `Replaying`.

    Raises:
        ValueError: If `n_between` or `n_leapfrog` is below 1, `n_replayed` below 2, or as
            `Replaying`.

    References:
        | Flow annealed importance sampling bootstrap (Midgley et al., 2023),
          https://arxiv.org/abs/2208.01893
    """

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        n_samples: int = 128,
        n_between: int = 1,
        n_leapfrog: int = 3,
        mix: float = 0.5,
        **options: Any,
    ) -> None:
        if n_between < 1 or n_leapfrog < 1:
            raise ValueError(
                f"`n_between` and `n_leapfrog` must be at least 1, got {n_between} and {n_leapfrog}"
            )
        super().__init__(target, n_samples=n_samples, mix=mix, **options)
        if self.n_replayed < 2:
            raise ValueError(f"`n_replayed` must be at least 2, got {self.n_replayed}")
        self.chains = LatentAIS(
            target,
            n_between=n_between,
            n_leapfrog=n_leapfrog,
            compress_above=self.compress_above,
        )

    @property
    def calls_per_step(self) -> int:
        """Energy calls of an evaluation."""
        return self.n_samples * (1 + self.chains.n_between * self.chains.n_leapfrog)

    def keep(self, model: CoarseGrainedModel, fresh: OwnSamples, beta: float) -> None:
        """Anneal the fresh samples and keep the ends of the chains."""
        finite = fresh[fresh.finite]
        self.buffer.add(self.chains.run(flow_of(model, len(finite)), finite, beta))

    def other(
        self, model: CoarseGrainedModel, path: Path, fresh: OwnSamples, beta: float
    ) -> Tensor:
        return replayed(model, self.buffer, beta, alpha=2.0, n=self.n_replayed)
