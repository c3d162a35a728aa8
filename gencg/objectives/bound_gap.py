"""What an inexact encoder costs: the gap between the joint bound and the all-atom divergence."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.models.coarse_grained import CoarseGrainedModel


@dataclass(frozen=True)
class BoundGap:
    r"""Estimate of :math:`E_{q(y)}[\mathrm{KL}(q(z|y) \,\|\, r(z|y))]`, in units of kT.

    The gap lies between `lower` and `upper` on average; they meet as the number of samples grows.

    Args:
        lower: Lower estimate.
        upper: Upper estimate.
        error: Standard error of each, the larger one.
        n_inner: Encoder samples per configuration.
        bounds: Upper estimate for fewer encoder samples, by their number: how tight the
            multi-sample bound is.
    """

    lower: float
    upper: float
    error: float
    n_inner: int
    bounds: dict[int, float]

    @property
    def verdict(self) -> str:
        """The gap in words."""
        size = max(self.upper, 0.0)
        if size < 0.05:
            return "the encoder is exact for practical purposes"
        if size < 0.3:
            return "the encoder costs a little: joint weights are slightly wider"
        return "the encoder does not fit the generator: use the all-atom weights"


def bound_gap(
    model: CoarseGrainedModel, *, n_samples: int = 2000, n_inner: int = 32, seed: int = 0
) -> BoundGap:
    r"""Sandwich the gap by multi-sample estimates of :math:`\log q(y)`.

    With :math:`z_1 \sim q(z|y)`, the z the sample was decoded from, and
    :math:`z_2, \dots, z_{K+1} \sim r(z|y)`,

    .. math:: E \log \frac{1}{K} \sum_{k=2}^{K+1} \frac{q(z_k, y)}{r(z_k|y)} \le \log q(y) \le
              E \log \frac{1}{K} \sum_{k=1}^{K} \frac{q(z_k, y)}{r(z_k|y)}

    and the gap is :math:`E[\log q(z_1, y) - \log r(z_1|y) - \log q(y)]`. No energy is needed.

    Args:
        model: Joint model; without CVs the gap is zero.
        n_samples: Configurations y.
        n_inner: Encoder samples K.
        seed: Seed; the global random state is left as it was.

    Raises:
        ValueError: If `n_samples` is below 2 or `n_inner` below 1.

    References:
        | Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
        | Sandwiching the marginal likelihood (Grosse et al., 2015),
          https://arxiv.org/abs/1511.02543
    """
    if n_samples < 2:
        raise ValueError(f"`n_samples` must be at least 2, got {n_samples}")
    if n_inner < 1:
        raise ValueError(f"`n_inner` must be at least 1, got {n_inner}")
    if model.n_cvs == 0:
        return BoundGap(0.0, 0.0, 0.0, n_inner, {1: 0.0})
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        z, y, log_q = model.sample(n_samples)
        joint = (log_q - model.log_encoder(z, y)).double()
        terms = [joint]
        for _ in range(n_inner):
            z_k = model.encoder(y).rsample()
            terms.append((model.log_prob(z_k, y) - model.log_encoder(z_k, y)).double())
    ratios = torch.stack(terms)  # [1 + n_inner, n_samples]
    below = joint - _log_mean(ratios[1:])
    above = joint - _log_mean(ratios[:-1])
    bounds = {1 << i: 0.0 for i in range(n_inner.bit_length()) if 1 << i <= n_inner}
    for k in bounds:
        bounds[k] = float((joint - _log_mean(ratios[1 : k + 1])).mean())
    errors = [float(part.std() / n_samples**0.5) for part in (below, above)]
    return BoundGap(float(above.mean()), float(below.mean()), max(errors), n_inner, bounds)


def _log_mean(ratios: Tensor) -> Tensor:
    return torch.logsumexp(ratios, 0) - torch.log(torch.tensor(float(len(ratios))))
