r"""Annealed importance sampling with Hamiltonian Monte Carlo in the latent space of a flow.

There the generator is a fixed simple base b, and the densities on the way from it to
:math:`\tilde p^\gamma q^{1-\gamma}` are :math:`b\, w^{\lambda\gamma}`: about as wide in every
direction, whatever the widths of bonds and torsions, once the flow has learned them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gencg.distributions.flow import FlowDistribution
from gencg.objectives.own_samples import OwnSamples, ask_energy, tame
from gencg.target import BoltzmannTarget


@dataclass(frozen=True)
class LatentPoint:
    r"""Chains at one moment.

    Args:
        eps: Latent coordinates, ``(n, dim)``.
        samples: What they are as coordinates y; drawn, they would have :math:`\log q`.
        log_b: Log-density of the base, ``(n,)``.
        slope_b: :math:`\nabla_\epsilon \log b`, ``(n, dim)``.
        log_w: :math:`\log \tilde p - \log q`, ``(n,)``.
        slope_w: :math:`\nabla_\epsilon \log w`, ``(n, dim)``, that of clashes weakened.
    """

    eps: Tensor
    samples: OwnSamples
    log_b: Tensor
    slope_b: Tensor
    log_w: Tensor
    slope_w: Tensor

    def where(self, taken: Tensor, other: "LatentPoint") -> "LatentPoint":
        """The chains of `other` where ``taken``, ``(n,)`` bool, and one's own elsewhere."""
        samples = self.samples.where(taken, other.samples)

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return LatentPoint(
            choose(other.eps, self.eps),
            samples,
            choose(other.log_b, self.log_b),
            choose(other.slope_b, self.slope_b),
            choose(other.log_w, self.log_w),
            choose(other.slope_w, self.slope_w),
        )


class LatentAIS:
    r"""Chains from the generator q to :math:`g = \tilde p^\gamma q^{1-\gamma}`.

    Chain i passes :math:`q\, w^{\lambda_t \gamma}`, :math:`\lambda_t = t / (T + 1)`, with one
    trajectory of HMC at each of the T densities between, and carries

    .. math:: \log W = \gamma \sum_t (\lambda_t - \lambda_{t-1}) \log w(\epsilon_{t-1}),
              \qquad E[W h] = \int g\, h\, dy

    for any h, any T and any step, which follows the acceptance by itself. One energy and gradient
    call per chain and leapfrog step.

    Args:
        target: The Boltzmann density.
        power: The exponent :math:`\gamma`.
        n_between: Densities T.
        n_leapfrog: Leapfrog steps of a trajectory.
        compress_above: See `Replaying`.
        acceptance: Share of trajectories to be accepted.

    References:
        | Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        | MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
    """

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        power: float = 2.0,
        n_between: int = 1,
        n_leapfrog: int = 2,
        compress_above: float = 1e3,
        acceptance: float = 0.65,
    ) -> None:
        self.target, self.power = target, power
        self.n_between, self.n_leapfrog = n_between, n_leapfrog
        self.compress_above, self.acceptance = compress_above, acceptance
        self.step = 0.1

    def run(self, q: FlowDistribution, start: OwnSamples, beta: float) -> OwnSamples:
        """Chains from samples of q, as samples that count as drawn with the density g / W."""
        with torch.no_grad():
            eps, _ = q.flow.inverse(start.y, q.context)
        point = self._at(q, eps, beta, start)
        total, before = torch.zeros_like(point.log_w), 0.0
        for t in range(1, self.n_between + 2):
            now = self.power * t / (self.n_between + 1)
            total, before = total + (now - before) * point.log_w, now
            if t <= self.n_between:
                point = self._move(q, point, beta, now)
        ended = point.samples
        log_g = ended.log_drawn + self.power * point.log_w
        return replace(ended, log_drawn=log_g - total)

    def _move(
        self, q: FlowDistribution, point: LatentPoint, beta: float, power: float
    ) -> LatentPoint:
        r"""One trajectory that leaves :math:`b\, w^\mathrm{power}` as it is."""
        momentum = torch.randn_like(point.eps)
        moved, p = point, momentum
        for _ in range(self.n_leapfrog):
            p = p + 0.5 * self.step * (moved.slope_b + power * moved.slope_w)
            moved = self._at(q, moved.eps + self.step * p, beta)
            p = p + 0.5 * self.step * (moved.slope_b + power * moved.slope_w)
        gain = moved.log_b - point.log_b + power * (moved.log_w - point.log_w)
        gain = gain - 0.5 * (p.square().sum(-1) - momentum.square().sum(-1))
        # A gain that is no number is not taken
        taken = (torch.rand_like(gain).log() < gain) & moved.samples.finite
        rate = float(taken.double().mean())
        self.step *= 1.05 if rate > self.acceptance else 1 / 1.05
        return point.where(taken, moved)

    def _at(
        self, q: FlowDistribution, eps: Tensor, beta: float, known: OwnSamples | None = None
    ) -> LatentPoint:
        with torch.enable_grad():
            eps = eps.detach().requires_grad_()
            y, log_det = q.flow(eps, q.context)
            log_b = q.base.log_prob(eps)
            samples = known or ask_energy(self.target, y, (log_b - log_det).detach())
            tamed, _ = tame(samples, beta, above=self.compress_above)
            (slope_b,) = torch.autograd.grad(log_b.sum(), eps, retain_graph=True)
            pulled = (y * tamed.log_target_slope(beta)).sum() + log_det.sum()
            (slope,) = torch.autograd.grad(pulled, eps)
        log_w = samples.log_weights(beta)
        return LatentPoint(eps.detach(), tamed, log_b.detach(), slope_b, log_w, slope - slope_b)
