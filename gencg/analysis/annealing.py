r"""Annealed importance sampling: chains that start anywhere and are weighed exactly.

A generator cannot tell what it never proposes. Chains that start from a base which knows nothing
of the wells can: whatever they find carries a weight that does not depend on the generator's
opinion of it.
"""

import math

import torch
from torch import Tensor

from gencg import parallel
from gencg.distributions.torus import TorusNormal
from gencg.ensemble import weigh
from gencg.geometry import wrap
from gencg.models.two_block import TwoBlockFlow
from gencg.target import BoltzmannTarget

POWER = 2.0
r"""Exponent of the schedule :math:`\lambda_t = (t/T)^2`: more steps go where clashes dissolve."""
SHORTEST = 0.03
"""Shortest step; lengths are drawn log-uniformly from here to 1, which is a fresh draw."""


def anneal(
    flow: TwoBlockFlow,
    target: BoltzmannTarget,
    *,
    n_chains: int,
    n_steps: int,
    like: Tensor,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Weighted samples of the target from chains that start at samples of a flow.

    In the latent space of the flow :math:`y = f(\epsilon)`, with base density b, the chains pass

    .. math:: \pi_t(\epsilon) \propto b(\epsilon)\, w(\epsilon)^{\lambda_t}, \qquad
              w = \tilde p(f(\epsilon))\, |\det \partial f/\partial\epsilon| / b(\epsilon), \qquad
              \log W = \sum_t (\lambda_t - \lambda_{t-1}) \log w(\epsilon_{t-1}),

    so that :math:`E[W h(\epsilon_T)] = Z\, E_p[h]` for any h and any number of steps. Proposals
    leave b as it is (:math:`\epsilon' = \sqrt{1-a^2}\,\epsilon + a\,\xi`, rotations of angles), and
    are taken with probability :math:`(w'/w)^{\lambda}`: no gradient, no step size to tune. Soft
    coordinates, some of them, and stiff ones move in turn.

    Args:
        flow: Where chains start; its stiff block carries the stiff coordinates along.
        target: Boltzmann density.
        n_chains: Independent chains.
        n_steps: Steps of each, one energy call per chain and step.
        like: Tensor that gives dtype and device of the flow.
        seed: Seed; the global random state is left as it was.

    Returns:
        Final coordinates ``(n_chains, dim)`` and log weights ``(n_chains,)``, float64 on the CPU.

    References:
        | Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        | MCMC methods for functions (Cotter et al., 2013), https://arxiv.org/abs/1202.0709
    """
    # Each process walks its chains
    rows = like.new_zeros(parallel.n_rows(n_chains), 0)
    base = TorusNormal(flow.n_angles, flow.n_normal, like=rows)
    with torch.no_grad(), torch.random.fork_rng(), parallel.whole_batch(n_chains):
        torch.manual_seed(seed)
        eps = base.rsample()
        y, log_w = _place(flow, base, target, eps, rows)
        total, before = torch.zeros_like(log_w), 0.0
        for step in range(n_steps):
            power = ((step + 1) / n_steps) ** POWER
            total, before = total + (power - before) * log_w, power
            moved = _propose(eps, flow, stiff=step % 2 == 1)
            y_moved, log_w_moved = _place(flow, base, target, moved, rows)
            # From one point without weight to another: nan, not taken
            taken = torch.rand_like(log_w).log() < power * (log_w_moved - log_w)
            eps = torch.where(taken[:, None].to(eps.device), moved, eps)
            y = torch.where(taken[:, None], y_moved, y)
            log_w = torch.where(taken, log_w_moved, log_w)
    return parallel.gather(y, n_chains), parallel.gather(total, n_chains)


def _place(
    flow: TwoBlockFlow, base: TorusNormal, target: BoltzmannTarget, eps: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Coordinates and log w of latent points."""
    y, log_det = flow(eps, rows)
    log_q = base.log_prob(eps) - log_det
    _, y, _, _, log_w, _, _ = weigh(target, rows, y, log_q, torch.zeros_like(log_q))
    return y, log_w


def _propose(eps: Tensor, flow: TwoBlockFlow, *, stiff: bool) -> Tensor:
    """A move of the stiff entries, or of some of the soft ones, that leaves the base as it is."""
    n, dim = eps.shape
    n_soft, n_angles = flow.stiff.space.n_soft, flow.n_angles
    length = torch.exp(math.log(SHORTEST) * torch.rand_like(eps[:, :1]))
    noise = torch.randn_like(eps)
    turned = wrap(eps[:, :n_angles] + math.pi * length * noise[:, :n_angles])
    mixed = (1 - length**2).sqrt() * eps[:, n_angles:] + length * noise[:, n_angles:]
    chosen = torch.zeros(n, dim, dtype=torch.bool, device=eps.device)
    if stiff and n_soft < dim:
        chosen[:, n_soft:] = True
    else:
        # From one coordinate to all of them
        share = torch.rand(n, 1, device=eps.device)
        chosen[:, :n_soft] = torch.rand(n, n_soft, device=eps.device) < share
        chosen.scatter_(1, torch.randint(n_soft, (n, 1), device=eps.device), True)
    return torch.where(chosen, torch.cat([turned, mixed], dim=-1), eps)
