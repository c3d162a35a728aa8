"""Walkers: Markov chains whose moves the generator completes, so that no barrier holds them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.distributions.flow import FlowDistribution
from gencg.geometry import wrap
from gencg.importance import truncated
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import SoftSpace, StiffBlock, TwoBlockFlow, log_normal
from gencg.objectives.base import Evaluation
from gencg.objectives.own_samples import OwnSamples, ask_energy, tame
from gencg.target import BoltzmannTarget

N_MOVED = (1, 2, 2, 3)
"""How many soft coordinates a move redraws, with equal chances; symmetric rotors go alone."""
N_REMEMBERED = 256
"""Soft coordinates of a hotter stage that moves take their values from."""
SPREAD = 0.25
"""Width around a remembered value, in rad or in scales of the coordinate."""
WIDE = 0.1
"""Share of redrawn values from anywhere: the whole circle, or a width of WIDER on the line."""
WIDER = 2.0
HOT = 3.0
"""Values are renewed as long as the temperature is this factor above the target's."""
COOLED = 0.8
"""Where training begins cooler, until this power of its first factor."""
REFLECTED = 0.25
"""Share of moves, but for nudges, that mirror angles, as a right helix to a left one."""
NUDGED = 0.5
"""Share of moves that change coordinates a little."""
WIDTHS = (0.02, 0.3)
"""Least and largest width of these in the scales of the soft coordinates, rad for angles."""
REDRAWN = (0.01, 0.5)
"""Least and largest share r² of the latent variance of stiff coordinates that they draw anew."""
ROTORS = 0.1
"""Share of moves of a symmetric rotor, which has one state."""
MOST_MISSED = 20.0
"""Walkers prefer where density is missing, at most by this factor."""
REMEMBER_EVERY, N_RENEWED = 20, 64


def two_blocks(model: CoarseGrainedModel) -> TwoBlockFlow | None:
    """The flow of a generator that walkers can use, or None.

    It has no collective variables, and soft coordinates apart from the stiff ones.
    """
    if model.n_cvs or not isinstance(model.decoder, TwoBlockDecoder):
        return None
    flow = model.decoder.flow
    return flow if flow.stiff.space.n_soft else None


@dataclass(frozen=True)
class Move:
    """What becomes of some walkers in a move.

    Args:
        pull: Zero in value; its gradient is the path gradient of the stiff block.
        accepted: Whether each moved, ``(n,)`` bool.
    """

    pull: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class Meeting:
    r"""Walkers as they were before fresh samples were offered to them.

    Args:
        y: Where they stood, ``(n, dim)``.
        log_weights: :math:`\log p_\beta/q` there, ``(n,)``; high where density is missing.
    """

    y: Tensor
    log_weights: Tensor


class Walkers:
    r"""Markov chains in the Boltzmann density, drawn to where the generator lacks density.

    They leave :math:`\pi = p_\beta \min\{c, \max\{1, p_\beta / q\}\}` as it is: p where there
    is density enough, and up to c times as many walkers where it is missing, so that a state of
    one in a thousand is not left to one walker.

    A *move* redraws a few soft coordinates that are neighbours along the molecule, :math:`s_B`,
    from a fixed density g, and all stiff coordinates from the generator, :math:`v' \sim q(v|s')`.
    It is accepted with probability

    .. math:: \min\left\{1,\;
        \frac{\pi(s', v')\, q(v|s)\, g(s_B)}{\pi(s, v)\, q(v'|s')\, g(s'_B)}\right\}

    The soft coordinates are torsions next to each other, or a value each; a share of the moves
    takes angles to their mirror image, :math:`s'_B = -s_B` with some noise, where g cancels:
    staggered to staggered, right-handed to left-handed helix. The stiff coordinates come relaxed,
    so that a torsion can flip in one move of one energy call, and the better the generator, the
    closer a move comes to one in the free energy of s alone. A narrow state, such as a turn that
    hydrogen bonds hold, is hardly hit so, and gone into step by step: a share of the moves are
    *nudges*, which change a few neighbouring soft coordinates or all of them a little,
    :math:`s' = s + \sigma \xi`, and the stiff ones in the latent space of the generator,
    :math:`\epsilon' = \sqrt{1 - r^2}\, \epsilon + r \xi`, which leaves their base density as it
    is; the ratio is the same without g. A *meeting* offers a fresh sample of
    the generator, whose energy is known, to a walker as it is,
    :math:`\min\{1, w(y') / w(y)\}` with :math:`w = \pi / q`: no energy call at all.

    g is a sum of normals around values that walkers had when it was hot, and a share that comes
    from anywhere. While it is hot g follows the walkers, so that they are Markov chains from then
    on only; where training never is hot, the values are those of the first samples. Every process
    holds all walkers; each computes its rows of a move.

    Args:
        n: Number of walkers.
        nudges: Share of the moves that are nudges.

    References:
        | Adaptive Monte Carlo augmented with normalizing flows (Gabrié, Rotskoff, Vanden-Eijnden,
          2022), https://doi.org/10.1073/pnas.2109420119
        | MCMC methods for functions (Cotter, Roberts, Stuart, White, 2013),
          https://doi.org/10.1214/13-STS421
        | The pseudo-marginal approach for efficient Monte Carlo computations (Andrieu, Roberts,
          2009), https://doi.org/10.1214/07-AOS574
    """

    y: Tensor
    energy: Tensor
    log_det: Tensor
    remembered: Tensor

    def __init__(self, n: int, *, nudges: float = NUDGED) -> None:
        self.n, self.nudges = n, nudges
        self.started = False
        self.n_meetings = 0
        self.hottest = 1.0

    def start(self, fresh: Evaluation, flow: TwoBlockFlow) -> None:
        """Begin at fresh samples, drawn by their weights; not before one has weight."""
        finite = torch.isfinite(fresh.log_weights)
        if not bool(finite.any()):
            return
        log_weights = torch.where(finite, fresh.log_weights, -torch.inf)
        index = torch.multinomial(truncated(log_weights), self.n, replacement=True)
        self.y, self.energy = fresh.y[index].clone(), fresh.energy[index].clone()
        self.log_det = fresh.log_det[index].clone()
        soft = fresh.y[finite][:, flow.stiff.space.soft_index]
        self.remembered = soft[torch.arange(N_REMEMBERED, device=soft.device) % len(soft)].clone()
        self.started = True

    def move(
        self,
        flow: TwoBlockFlow,
        target: BoltzmannTarget,
        beta: float,
        n: int,
        *,
        tame_above: float,
        log_z: Tensor | None = None,
    ) -> Move:
        """Ask `n` walkers to move; as many energy and gradient calls.

        Args:
            flow: Completes the moves.
            target: The Boltzmann density.
            beta: Inverse temperature in mol/kJ.
            n: How many, at most the number of walkers.
            tame_above: Reduced energy above the lowest from which on its pull weakens.
            log_z: Log of the mean weight of the generator, to tell where density is missing; None
                leaves p as it is.
        """
        space, own = flow.stiff.space, parallel.share(n)
        # All processes draw the whole, which is cheap, so that their streams stay the same
        chosen = torch.randperm(self.n, device=self.y.device)[:n]
        s = self.y[chosen][:, space.soft_index]
        moved = _neighbours(space, n, device=s.device)
        new = self._drawn(flow, s, moved)
        log_g = self._log_g(flow, new, moved) - self._log_g(flow, s, moved)
        if space.periodic:
            reflected = torch.rand(n, device=s.device) < REFLECTED
            mirror = wrap(-s + self._scale(flow) * torch.randn_like(s))
            new = torch.where(reflected[:, None], torch.where(moved, mirror, s), new)
            log_g = torch.where(reflected, 0.0, log_g)
        redrawn = s.new_ones(n, 1)
        if self.nudges:
            nudged = torch.rand(n, 1, device=s.device) < self.nudges
            new = torch.where(nudged, self._nudged(flow, s, moved), new)
            log_g = torch.where(nudged[:, 0], 0.0, log_g)
            redrawn = torch.where(nudged, _between(REDRAWN, n, s), redrawn)
        noise = torch.randn(n, space.n_stiff, dtype=s.dtype, device=s.device)

        s, new, noise, log_g, redrawn = (part[own] for part in (s, new, noise, log_g, redrawn))
        rows = s.new_zeros(len(s), 0)
        with torch.no_grad():
            _, back, log_det_back = flow.stiff.inverse(self.y[chosen[own]], rows)
            noise = (1 - redrawn).sqrt() * back.nan_to_num(0.0) + redrawn.sqrt() * noise
        y, log_det, score, _, _ = flow.stiff.forward_with_score(noise, new, rows, -noise)
        log_q = (log_normal(noise) - log_det).detach()
        asked, _ = tame(ask_energy(target, y, log_q), beta, above=tame_above)
        with torch.no_grad():
            log_q_here = log_normal(back) + log_det_back
            here = self.log_det[chosen[own]] - beta * self.energy[chosen[own]] - log_q_here
            there = asked.log_weights(beta)
            ratio = there - here - log_g
            if log_z is not None:
                ratio = ratio + _preference(there - log_soft(flow, new) - log_z)
                ratio = ratio - _preference(here - log_soft(flow, s) - log_z)
            ratio = torch.where(asked.finite & ~ratio.isnan(), ratio, -torch.inf)
            accepted = parallel.gather(ratio, n) > torch.rand(n, device=s.device).log()
            self._settle(chosen[accepted], self._gathered(asked, n, accepted))
            share = ratio.clamp(max=0).exp() / n
        pull = _pull(flow.stiff, y, score, asked.log_target_slope(beta), share)
        return Move(pull, accepted)

    def meet(
        self,
        model: CoarseGrainedModel,
        fresh: Evaluation,
        beta: float,
        n: int,
        *,
        log_z: Tensor | None = None,
    ) -> Meeting:
        """Offer `n` fresh samples to as many walkers.

        Args:
            model: The generator of the fresh samples.
            fresh: Fresh samples.
            beta: Inverse temperature in mol/kJ.
            n: How many, at most the number of walkers and of fresh samples.
            log_z: See `move`.
        """
        n = min(n, self.n, len(fresh.y))
        own = parallel.share(n)
        chosen = torch.randperm(self.n, device=self.y.device)[:n]
        y = self.y[chosen]
        with torch.no_grad():
            q = model.decoder(model.rows(len(chosen[own])))
            assert isinstance(q, FlowDistribution)
            log_q = parallel.gather(q.log_prob(y[own]), n)
            here = self.log_det[chosen] - beta * self.energy[chosen] - log_q
            offered = fresh.log_weights[:n]
            ratio = offered - here
            if log_z is not None:
                ratio = ratio + _preference(offered - log_z) - _preference(here - log_z)
            ratio = torch.where(torch.isfinite(offered), ratio, -torch.inf)
            # A walker that the generator cannot have drawn lets nothing pass
            accepted = torch.where(ratio.isnan(), -torch.inf, ratio) > torch.rand_like(ratio).log()
            taken = fresh.y[:n], fresh.energy[:n], fresh.log_det[:n]
            self._settle(chosen[accepted], tuple(tensor[accepted] for tensor in taken))
        return Meeting(y, here)

    def remember(self, flow: TwoBlockFlow, heat: float) -> None:
        """Renew, now and then, some of the values that moves come from, while it is hot.

        Args:
            flow: Says which coordinates are soft.
            heat: Temperature over the target's.
        """
        self.n_meetings += 1
        self.hottest = max(self.hottest, heat)
        hot = heat > 1 and heat >= min(HOT, self.hottest**COOLED)
        if not hot or self.n_meetings % REMEMBER_EVERY:
            return
        device = self.y.device
        place = torch.randperm(N_REMEMBERED, device=device)[:N_RENEWED]
        of = torch.randint(self.n, (N_RENEWED,), device=device)
        self.remembered[place] = self.y[of][:, flow.stiff.space.soft_index]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; empty before the start."""
        if not self.started:
            return {}
        # Copies: walkers move in place
        tensors = {name: getattr(self, name).clone() for name in _TENSORS}
        return tensors | {"n_meetings": self.n_meetings, "hottest": self.hottest}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self.started = bool(content)
        self.n_meetings = 0
        # What an earlier version began renews as it did
        self.hottest = HOT ** (1 / COOLED) if content else 1.0
        for name, value in content.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)

    def _settle(self, index: Tensor, taken: tuple[Tensor, ...]) -> None:
        self.y[index], self.energy[index], self.log_det[index] = taken

    def _gathered(self, asked: OwnSamples, n: int, kept: Tensor) -> tuple[Tensor, ...]:
        parts = asked.y, asked.energy, asked.log_det
        return tuple(parallel.gather(part, n)[kept] for part in parts)

    def _scale(self, flow: TwoBlockFlow) -> Tensor:
        """Width around a remembered value, ``(n_soft,)``."""
        return SPREAD * flow.stiff.space.soft_scale

    def _drawn(self, flow: TwoBlockFlow, s: Tensor, moved: Tensor) -> Tensor:
        """Soft coordinates ``(n, n_soft)`` with those `moved` drawn from g."""
        n, device = len(s), s.device
        around = self.remembered[torch.randint(len(self.remembered), (n,), device=device)]
        noise, scale = torch.randn_like(s), self._scale(flow)
        near, anywhere = around + scale * noise, around + WIDER / SPREAD * scale * noise
        wide = torch.rand(n, 1, device=device) < WIDE
        if flow.stiff.space.periodic:
            anywhere = 2 * math.pi * torch.rand_like(s)
        new = torch.where(wide, anywhere, near)
        new = wrap(new) if flow.stiff.space.periodic else new
        return torch.where(moved, new, s)

    def _nudged(self, flow: TwoBlockFlow, s: Tensor, moved: Tensor) -> Tensor:
        """Soft coordinates ``(n, n_soft)`` a little elsewhere, half of the rows those `moved`."""
        space = flow.stiff.space
        every = torch.rand(len(s), 1, device=s.device) < 0.5
        step = _between(WIDTHS, len(s), s) * space.soft_scale * torch.randn_like(s)
        new = torch.where(moved | every, s + step, s)
        return wrap(new) if space.periodic else new

    def _log_g(self, flow: TwoBlockFlow, s: Tensor, moved: Tensor) -> Tensor:
        """Log-density of the coordinates `moved`, ``(n,)``."""
        periodic = flow.stiff.space.periodic
        # Of the others nothing is asked: each row looks at its own few
        weight, index = moved.to(s).topk(int(moved.sum(1).max()), dim=1)
        scale, weight = self._scale(flow)[index][..., None], weight[..., None]
        apart = s.gather(1, index)[..., None] - self.remembered.T[index]
        apart = wrap(apart) if periodic else apart
        near = _log_normals(apart, scale, weight)
        if periodic:
            anywhere = -moved.sum(-1) * math.log(2 * math.pi)
        else:
            anywhere = _log_normals(apart, WIDER / SPREAD * scale, weight)
        return torch.logaddexp(math.log(1 - WIDE) + near, math.log(WIDE) + anywhere)


def _between(ends: tuple[float, float], n: int, like: Tensor) -> Tensor:
    """Numbers ``(n, 1)`` between two ends, evenly on a logarithmic scale."""
    low, high = (math.log(end) for end in ends)
    u = torch.rand(n, 1, dtype=like.dtype, device=like.device)
    return (low + (high - low) * u).exp()


_TENSORS = ("y", "energy", "log_det", "remembered")


def _preference(log_weights: Tensor) -> Tensor:
    """Log of how much walkers prefer a place of these log-weights to a fair share."""
    return log_weights.nan_to_num(0.0).clamp(min=0.0, max=math.log(MOST_MISSED))


def log_soft(flow: TwoBlockFlow, s: Tensor) -> Tensor:
    """Log-density of the soft block without context, ``(n,)``."""
    log_q: Tensor = flow.soft.log_prob(s, s.new_zeros(len(s), 0))
    return log_q


def _neighbours(space: SoftSpace, n: int, *, device: torch.device) -> Tensor:
    """Coordinates that `n` moves redraw, ``(n, n_soft)`` bool: one at random and its nearest.

    A share of the moves redraws one symmetric rotor; the others leave rotors alone.
    """
    counts = torch.tensor(N_MOVED, device=device)[torch.randint(len(N_MOVED), (n,), device=device)]
    rotor = torch.zeros(space.n_soft, dtype=torch.bool, device=device)
    rotor[space.folded] = True
    share = float(rotor.any()) if bool(rotor.all()) else ROTORS * float(rotor.any())
    of_rotor = torch.rand(n, device=device) < share
    # Equally near ones in random order
    order = torch.rand(n, space.n_soft, device=device)
    candidate = rotor == of_rotor[:, None]
    centre = torch.where(candidate, order, -1.0).argmax(1)
    position = space.soft_position.to(order)
    distance = (position - position[centre][:, None]).abs() + 1e-3 * order
    distance[torch.arange(n, device=device), centre] = -1.0
    distance = torch.where(candidate, distance, torch.inf)
    counts = torch.where(of_rotor, 1, counts)
    return candidate & (distance.argsort(1).argsort(1) < counts[:, None])


def _log_normals(apart: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Log of the mean normal density at ``(n, k, m)`` distances from m values, ``(n,)``.

    Coordinates of weight zero, ``(n, k, 1)``, do not count. On the circle the tails beyond half a
    turn are cut, which is the same both ways of a move.
    """
    each = -0.5 * (apart / scale).square() - (scale * math.sqrt(2 * math.pi)).log()
    total = (each * weight).sum(1)
    return torch.logsumexp(total, 1) - math.log(total.shape[1])


def _pull(stiff: StiffBlock, y: Tensor, score: Tensor, slope: Tensor, share: Tensor) -> Tensor:
    """Zero in value; in gradient the path gradients by stiff coordinates, weighted."""
    index = stiff.space.stiff_index
    pull = share[:, None] * (score - slope[:, index])
    pull = torch.where(share[:, None] > 0, pull, 0.0).detach()
    v = y[:, index]
    return ((v - v.detach()) * pull).sum()
