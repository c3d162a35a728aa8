"""Reverse KL that keeps every state: walkers show the generator where it has too little density."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.two_block import TwoBlockFlow
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import Meeting, Walkers, two_blocks
from gencg.target import BoltzmannTarget


class CoveringKL(Objective):
    r"""Reverse KL of an order on fresh samples, forward KL of the soft block on walkers.

    .. math:: L = L_\alpha(q)
              - \lambda\, E_{(s, v) \sim \text{walkers}}\left[\max(0, 1 - q/p) \log q(s)\right]
              + \frac{n_m}{n_f}\, E_{s' \sim \text{moves}}\left[a\, \mathrm{KL}(q(v|s') \| p(v|s'))\right]

    The first term is `ReverseKL` at `order`. It cannot bring back a state that is no longer drawn,
    and it is blind to states that are rare when hot and grow when cold, as where two residues take
    up a left-handed helix together. `Walkers`, Markov chains whose moves the generator completes,
    reach these states and hold them. Where the generator has less density than the target, and
    only there, the soft block learns from them by maximum likelihood: their numbers are noisier
    than the weights of fresh samples, which know the rest better. The stiff block relaxes around the soft coordinates that moves try,
    each with its probability a of being accepted.

    All terms are zero in gradient at :math:`q = p`, in the mean. The value of the loss is the
    bound of `ReverseKL` on the fresh samples. Energy calls: ``n_samples`` an evaluation, of which
    the share `moves` is for walkers.

    Args:
        target: The Boltzmann density.
        n_samples: Configurations per evaluation, one energy call each.
        order: See `ReverseKL`.
        moves: Share of the configurations that are walkers' moves.
        weight: Weight :math:`\lambda` of the forward KL.
        n_walkers: Number of walkers; two batches by default.
        options: See `ReverseKL`.

    Raises:
        ValueError: If `moves` is outside (0, 1) or leaves less than one move or two fresh samples,
            `weight` is negative, `n_walkers` is below the number of moves, or as `ReverseKL`.
    """

    rounds = True

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        n_samples: int = 512,
        order: float = 0.5,
        moves: float = 0.25,
        weight: float = 1.0,
        n_walkers: int | None = None,
        **options: Any,
    ) -> None:
        if not 0 < moves < 1:
            raise ValueError(f"`moves` must lie in (0, 1), got {moves}")
        if not weight >= 0:
            raise ValueError(f"`weight` must not be negative, got {weight}")
        self.target, self.n_samples, self.weight = target, n_samples, weight
        self.n_moves = int(moves * n_samples)
        if self.n_moves < 1 or n_samples - self.n_moves < 2:
            raise ValueError(
                f"`n_samples` must leave a move and two fresh samples, got {n_samples} with "
                f"moves={moves}"
            )
        n_walkers = 2 * n_samples if n_walkers is None else n_walkers
        if n_walkers < self.n_moves:
            raise ValueError(f"`n_walkers` must be at least {self.n_moves}, got {n_walkers}")
        self.moves = moves
        self.reverse = ReverseKL(
            target, n_samples=n_samples - self.n_moves, order=order, **options
        )
        self.walkers = Walkers(n_walkers)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient."""
        own = {"moves": self.moves, "weight": self.weight, "n_walkers": self.walkers.n}
        return self.reverse.settings | own

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        flow, walkers = two_blocks(model), self.walkers
        if flow is None:
            raise ValueError(
                "`model` must have a SplineDecoder with soft coordinates and no collective "
                "variables for walkers; use ReverseKL"
            )
        found = self.reverse.evaluate(model, beta)
        if not walkers.started:
            walkers.start(found, flow)
        if not walkers.started:
            return found
        move = walkers.move(
            flow, self.target, beta, self.n_moves, tame_above=self.reverse.compress_above
        )
        meeting = walkers.meet(model, found, beta, self.n_samples // 2)
        walkers.remember(flow, self.target.beta / beta)
        pull = self.n_moves / self.reverse.n_samples * move.pull
        if self.weight > 0:
            pull = pull + self.weight * self._missing(flow, meeting, found)
        return replace(found, loss=found.loss + pull - pull.detach())

    def state_dict(self) -> dict[str, Any]:
        return self.walkers.state_dict()

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.walkers.load_state_dict(content)

    def _missing(self, flow: TwoBlockFlow, meeting: Meeting, fresh: Evaluation) -> Tensor:
        """Cross entropy of the soft block at walkers where the generator has too little density."""
        n = len(meeting.y)
        too_little = (_log_mean(fresh.log_weights) - meeting.log_weights).exp()
        share = (1 - too_little).nan_to_num(0.0).clamp(min=0)
        own = parallel.share(n)
        s = meeting.y[own][:, flow.stiff.space.soft_index]
        log_q: Tensor = flow.soft.log_prob(s, s.new_zeros(len(s), 0))
        return -(share[own] * log_q).sum() / n


def _log_mean(log_weights: Tensor) -> Tensor:
    r"""Log of the mean weight, none above :math:`\sqrt n` times the mean before the cut."""
    finite = torch.where(torch.isfinite(log_weights), log_weights, -torch.inf)
    log_n = math.log(len(log_weights))
    most = torch.logsumexp(finite, 0) - log_n + 0.5 * log_n
    return torch.logsumexp(finite.clamp(max=most), 0) - log_n
