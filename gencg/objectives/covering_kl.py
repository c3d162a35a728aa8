"""Reverse KL that keeps every state: walkers show the generator where it has too little density."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from gencg import parallel
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.two_block import TwoBlockFlow
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.memory import SoftMemory
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import NUDGED, Meeting, Walkers, log_soft, two_blocks
from gencg.target import BoltzmannTarget

ORDER = 0.5
"""Order of the path gradients; see `ReverseKL`."""
STIFF_ORDER = 0.25
"""Order of those of the stiff block, which is to fit what is drawn where it weighs little, too."""
BEYOND = 1.5
"""Deviation of a log-density from which on it counts linearly in place of squared."""
MOST_PULLED = 5.0
"""A walker pulls by p/q - 1, with p/q cut here."""
AS_BEGUN = "as_begun"
"""Among the settings of a training: the names of those that its version had not yet."""
_LATER = {"variance", "nudges", "stiff_order"}


class CoveringKL(Objective):
    r"""Reverse KL of an order, and likelihoods of the soft block where its populations are wrong.

    .. math:: L = L_\alpha(q)
              + \lambda\, \mathrm{KL}(p(s) \| q(s))
              - \lambda\, E_{y \sim \text{walkers}}\left[
                \max\{0, \min\{p/q, c\} - 1\} \log q(s)\right]
              + \nu\, E_m\left[h\big(\log q(s) - \log \hat p(s) - b\big)\right]
              + \frac{n_m}{n_f}\, L_\text{moves}

    The first term is `ReverseKL` at `order`. It moves probability along paths, hardly from one
    state to another that nothing joins, and tears gaps into the density where paths part. The
    second is the forward KL of the soft block on the last samples by their weights
    (`SoftMemory`): it sets populations right and closes gaps, at no energy call.

    Neither sees states that are rare when hot and grow when cold, as where two residues take up a
    left-handed helix together. `Walkers`, Markov chains whose moves the generator completes, reach
    them, and the soft block learns from walkers where density is missing. The noise of both
    likelihoods fades with the error of the generator, as that of path gradients does.

    The fourth term looks at each remembered sample by itself: its weight says what the log-density
    of its soft coordinates should be, :math:`\log \hat p(s) = \log w + \log m(s)` with the
    generator m that drew it, but for a constant, b, the median of the batch. h is half the square,
    and linear beyond 1.5. One sample says more so than by its likelihood, and says it of places
    where there is too much, too; what it says is off by the error of the stiff block at s. The last
    term is the path gradient of the stiff block at the soft coordinates that moves try, each move
    weighted with its probability of being accepted.

    At :math:`q = p` the gradients of the walkers' terms vanish for each walker, wherever it stands
    (but for moves to energies so high that they are tamed), and with a memory of samples of q the
    gradients of the other terms have zero mean. Where the stiff block is off at s, p/q exceeds one
    now and then though q(s) is right, and the soft block is drawn towards the walkers by the excess
    p/q - 1, so that they should be samples of their density. While networks are rounded in
    training, log-densities found on the way forward and back differ by about 0.01 to 0.04, and
    walkers follow theirs as nearly. The value of the loss is the bound of `ReverseKL` on the fresh
    samples. Energy calls: ``n_samples`` an evaluation, of which the share `moves` is for walkers.

    Args:
        target: The Boltzmann density.
        n_samples: Configurations per evaluation, one energy call each.
        order: See `ReverseKL`.
        stiff_order: See `ReverseKL`; `order` where that is lower.
        weight: Weight :math:`\lambda` of the likelihoods.
        variance: Weight :math:`\nu` of the deviations of log-densities.
        moves: Share of the configurations that are walkers' moves; 0 leaves walkers out, and so
            does a batch too small for every process to have some.
        nudges: Share of those that change coordinates only a little; see `Walkers`.
        n_walkers: Number of walkers; two batches by default.
        n_kept: Samples remembered; forty batches by default.
        options: See `ReverseKL`.

    Raises:
        ValueError: If `moves` is outside [0, 1) or leaves less than two fresh samples, `nudges` is
            outside [0, 1], `weight` or `variance` is negative or infinite, `n_walkers` is below the
            number of moves, `n_kept` below 1, or as `ReverseKL`.
    """

    rounds = True

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        n_samples: int = 512,
        order: float = ORDER,
        stiff_order: float = STIFF_ORDER,
        weight: float = 1.0,
        variance: float = 1.0,
        moves: float = 0.25,
        nudges: float = NUDGED,
        n_walkers: int | None = None,
        n_kept: int | None = None,
        **options: Any,
    ) -> None:
        if not 0 <= moves < 1:
            raise ValueError(f"`moves` must lie in [0, 1), got {moves}")
        if not 0 <= nudges <= 1:
            raise ValueError(f"`nudges` must lie in [0, 1], got {nudges}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"`weight` must not be negative or infinite, got {weight}")
        if not 0 <= variance < math.inf:
            raise ValueError(f"`variance` must not be negative or infinite, got {variance}")
        self.target, self.n_samples, self.weight, self.moves = target, n_samples, weight, moves
        self.variance = variance
        self.n_moves = int(moves * n_samples)
        if self.n_moves and min(self.n_moves, n_samples // 4) < parallel.size():
            # Too few to be shared
            self.n_moves = 0
        if n_samples - self.n_moves < 2:
            raise ValueError(
                f"`n_samples` must leave two fresh samples, got {n_samples} with moves={moves}"
            )
        n_walkers = 2 * n_samples if n_walkers is None else n_walkers
        if n_walkers < max(self.n_moves, 1):
            raise ValueError(
                f"`n_walkers` must be at least {max(self.n_moves, 1)}, got {n_walkers}"
            )
        n_kept = 40 * n_samples if n_kept is None else n_kept
        if n_kept < 1:
            raise ValueError(f"`n_kept` must be at least 1, got {n_kept}")
        self.reverse = ReverseKL(
            target,
            n_samples=n_samples - self.n_moves,
            order=order,
            stiff_order=min(stiff_order, order),
            **options,
        )
        self.walkers, self.memory = Walkers(n_walkers, nudges=nudges), SoftMemory(n_kept)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient."""
        own = {
            "weight": self.weight,
            "variance": self.variance,
            "moves": self.moves,
            "nudges": self.walkers.nudges,
            "n_walkers": self.walkers.n,
            "n_kept": self.memory.capacity,
        }
        return self.reverse.settings | own

    def end_as_begun(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what a training with these settings did not have yet.

        Args:
            settings: Those of a training that an earlier version may have begun.

        Returns:
            Settings of now that are others by that.
        """
        lacked = set(settings.get(AS_BEGUN, ())) | (_LATER - set(settings))
        changed: dict[str, Any] = {}
        if "variance" in lacked:
            changed["variance"] = self.variance = 0.0
        if "nudges" in lacked:
            changed["nudges"] = self.walkers.nudges = 0.0
        if "stiff_order" in lacked:
            changed["stiff_order"] = self.reverse.stiff_order = self.reverse.order
        # Kept with the training, which may go on more than once
        return changed | {AS_BEGUN: sorted(lacked)} if lacked else changed

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        """Loss and samples at inverse temperature `beta` in mol/kJ.

        Raises:
            ValueError: If the model has no two blocks that walkers can use.
        """
        flow = two_blocks(model)
        if flow is None:
            raise ValueError(
                "`model` must have a TwoBlockDecoder with soft coordinates and no collective "
                "variables for walkers; use ReverseKL"
            )
        found = self.reverse.evaluate(model, beta)
        s = found.y[:, flow.stiff.space.soft_index]
        self.memory.add(s, found, beta, log_soft=self._drawn_with(flow, s))
        pull = found.loss.new_zeros(())
        if self.n_moves:
            pull = pull + self._walk(model, flow, found, beta)
        if self.weight > 0 and len(self.memory):
            pull = pull + self.weight * self._remembered(flow, beta)
        if self.variance > 0 and len(self.memory):
            pull = pull + self.variance * self._apart(flow, beta)
        # No number on one process is none on all, which then skip the step together
        pull = parallel.summed(pull)
        # In this order: a clash in the memory makes the value of a pull large
        return replace(found, loss=found.loss + (pull - pull.detach()))

    def state_dict(self) -> dict[str, Any]:
        return {"walkers": self.walkers.state_dict(), "memory": self.memory.state_dict()}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        self.walkers.load_state_dict(content.get("walkers", {}))
        self.memory.load_state_dict(content.get("memory", {}))

    def _remembered(self, flow: TwoBlockFlow, beta: float) -> Tensor:
        """From the soft coordinates there is too much of to those there is too little of."""
        n = max(self.n_samples // 4, parallel.size())
        little, much, mass = self.memory.draw(n, beta)
        if mass == 0:
            return little.new_zeros(())
        own = parallel.share(n)
        log_q = log_soft(flow, torch.cat([little[own], much[own]]))
        share = torch.full_like(log_q, mass)
        share[len(log_q) // 2 :] = -mass
        return -_where_finite(share, log_q).sum() / n

    def _drawn_with(self, flow: TwoBlockFlow, s: Tensor) -> Tensor:
        """Log-density of the soft coordinates of all processes, if it will be asked for."""
        if self.variance == 0:
            return s.new_zeros(len(s))
        with torch.no_grad():
            return parallel.gather(log_soft(flow, s[parallel.share(len(s))]), len(s))

    def _apart(self, flow: TwoBlockFlow, beta: float) -> Tensor:
        """How far log-densities of the soft block are from what weights say they should be."""
        n = max(self.n_samples // 4, parallel.size())
        s, log_p = self.memory.draw_any(n, beta)
        own = parallel.share(n)
        apart = log_soft(flow, s[own]) - log_p[own]
        offset = parallel.gather(apart.detach(), n).nanmedian()
        apart = _where_finite(torch.ones_like(apart), apart - offset)
        return huber_loss(apart, torch.zeros_like(apart), reduction="sum", delta=BEYOND) / n

    def _walk(
        self, model: CoarseGrainedModel, flow: TwoBlockFlow, fresh: Evaluation, beta: float
    ) -> Tensor:
        """Move walkers, and what the blocks learn from them; zero in value but for a constant."""
        walkers = self.walkers
        if not walkers.started:
            walkers.start(fresh, flow)
        if not walkers.started:
            return fresh.loss.new_zeros(())
        log_z = _log_mean(fresh.log_weights)
        move = walkers.move(
            flow,
            self.target,
            beta,
            self.n_moves,
            tame_above=self.reverse.compress_above,
            log_z=log_z,
        )
        meeting = walkers.meet(model, fresh, beta, max(self.n_samples // 4, 1), log_z=log_z)
        walkers.remember(flow, self.target.beta / beta)
        pull = self.n_moves / self.reverse.n_samples * move.pull
        return pull + self.weight * self._missing(flow, meeting, fresh)

    def _missing(self, flow: TwoBlockFlow, meeting: Meeting, fresh: Evaluation) -> Tensor:
        """Cross entropy of the soft block at walkers where the generator has too little density."""
        n = len(meeting.y)
        too_little = meeting.log_weights - _log_mean(fresh.log_weights)
        share = too_little.clamp(max=math.log(MOST_PULLED)).exp().nan_to_num(1.0) - 1
        share = share.clamp(min=0)
        own = parallel.share(n)
        s = meeting.y[own][:, flow.stiff.space.soft_index]
        return -_where_finite(share[own], log_soft(flow, s)).sum() / n


def _where_finite(share: Tensor, log_q: Tensor) -> Tensor:
    """Product, zero where the likelihood is no number."""
    good = torch.isfinite(share) & torch.isfinite(log_q.detach())
    return torch.where(good, share, 0.0) * torch.where(good, log_q, torch.zeros_like(log_q))


def _log_mean(log_weights: Tensor) -> Tensor:
    r"""Log of the mean weight, none above :math:`\sqrt n` times the mean before the cut."""
    finite = torch.where(torch.isfinite(log_weights), log_weights, -torch.inf)
    log_n = math.log(len(log_weights))
    most = torch.logsumexp(finite, 0) - log_n + 0.5 * log_n
    return torch.logsumexp(finite.clamp(max=most), 0) - log_n
