"""Conditional flow matching on the generator's own weighted samples, with their forces."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.flow import Chain
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder, draw_stiff, fewer_steps
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.matching import Spread, matching_losses
from gencg.objectives.matching_memory import Aim, Drawn, MatchingMemory
from gencg.objectives.own_samples import ask_energy, flow_of
from gencg.target import BoltzmannTarget

FLATTENED = 0.05
"""Share of the flattened density among the samples that are matched to."""
STEEPEST = 5.0
"""Slopes are at most this long, for each root of a dimension, in scales of the coordinates:
four times as long as those of a molecule at 300 K. Longer ones are of clashes, which have no
weight; slopes grow as the root of 1/T, so that below about 20 K those of all would be cut."""


class FlowMatching(Objective):
    r"""Flow matching along the ladder, and another objective after it, through the equation.

    The training set is the generator's own: every evaluation draws ``n_samples``, asks the force
    field for their energies and forces, and keeps them. Samples drawn from what is kept, by their
    weights at the temperature of now, are what the velocities of both blocks are matched to,

    .. math:: \min_\theta\; E_{t,\, x_0,\, x_1}\left|u_\theta(t, x_t; c) - \hat u\right|^2

    on geodesics of circles and lines: an angle goes the shorter way around, also across
    :math:`\pm\pi`. The soft block is matched to soft coordinates, the stiff block to stiff ones
    given the soft ones of the same sample, and with the forces there, which take most of the noise
    off :math:`\hat u` (`matching_losses`). No equation is solved for the gradient, and the draws
    are solved with half of the steps. While weights are uneven they are taken to a power, and for
    rims of states a share of the samples is of a flattened density (`MatchingMemory`).

    Matching leaves errors that cost weight in all dimensions at once; the objective `after`,
    with path gradients, lessens them. The value of the loss is the median of :math:`-\log w` while
    matching, and that of `after` then.

    Args:
        target: The Boltzmann density; its energy must be differentiable.
        after: What trains when matching is done.
        n_samples: Configurations per evaluation, one energy and gradient call each.
        n_matching: Evaluations that match.
        n_matched: Samples that the velocity of the stiff block is matched to in each; the soft
            block has twice as many.
        n_remembered: Samples kept.
        flattened: Share of the flattened density.

    Raises:
        ValueError: If `n_samples` is below 2, `n_matching` negative, `n_matched` or
            `n_remembered` below 1, or `flattened` outside [0, 1).

    References:
        | Flow matching for generative modeling (Lipman et al., 2023),
          https://arxiv.org/abs/2210.02747
        | Flow matching on general geometries (Chen, Lipman, 2024),
          https://arxiv.org/abs/2302.03660
    """

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        after: Objective,
        n_samples: int = 512,
        n_matching: int,
        n_matched: int = 1024,
        n_remembered: int = 10_240,
        flattened: float = FLATTENED,
    ) -> None:
        if n_samples < 2:
            raise ValueError(f"`n_samples` must be at least 2, got {n_samples}")
        if n_matching < 0:
            raise ValueError(f"`n_matching` must not be negative, got {n_matching}")
        for name, value in (("n_matched", n_matched), ("n_remembered", n_remembered)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if not 0 <= flattened < 1:
            raise ValueError(f"`flattened` must lie in [0, 1), got {flattened}")
        self.target, self.after, self.n_samples = target, after, n_samples
        self.rounds = after.rounds
        self.n_matching, self.n_matched = n_matching, n_matched
        self.memory = MatchingMemory(n_remembered, flattened=flattened)
        self.n_done = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient."""
        own = {
            "n_matching": self.n_matching,
            "n_matched": self.n_matched,
            "n_remembered": self.memory.capacity,
            "flattened": self.memory.flattened,
        }
        return self.after.settings | own

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        """Loss and samples at inverse temperature `beta` in mol/kJ.

        Raises:
            ValueError: If the model has no flow-matching decoder, or collective variables.
        """
        decoder = model.decoder
        if not isinstance(decoder, FlowMatchingDecoder) or model.n_cvs:
            raise ValueError(
                "`model` must have a FlowMatchingDecoder and no collective variables, got "
                f"{type(decoder).__name__} with n_cvs={model.n_cvs}"
            )
        self.n_done += 1
        if self.n_done > self.n_matching:
            self.memory.clear()
            return self.after.evaluate(model, beta)
        drawn = self._draw(model, decoder)
        self.memory.add(drawn)
        fresh = _evaluation(drawn, beta)
        if not len(self.memory):
            return fresh
        aim = self.memory.aim(beta)
        loss = parallel.summed(self._soft_loss(decoder, aim) + self._stiff_loss(decoder, aim))
        # Without a finite sample there still are those of before to learn from
        return replace(fresh, loss=fresh.loss.nan_to_num(0.0) + loss - loss.detach())

    def state_dict(self) -> dict[str, Any]:
        return {
            "n_done": self.n_done,
            "memory": self.memory.state_dict(),
            "after": self.after.state_dict(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        # A return to an earlier state is no reason to match for longer: the steps go on
        self.n_done = max(self.n_done, int(content.get("n_done", 0)))
        self.memory.load_state_dict(content.get("memory", {}))
        self.after.load_state_dict(content.get("after", {}))

    @torch.no_grad()
    def _draw(self, model: CoarseGrainedModel, decoder: FlowMatchingDecoder) -> Drawn:
        soft, stiff = decoder.flow.soft, decoder.flow.stiff
        n_soft = stiff.space.n_soft
        with parallel.whole_batch(self.n_samples):
            q = flow_of(model, parallel.n_rows(self.n_samples))
            eps = q.base.rsample()
            with fewer_steps(decoder):
                s, log_det = soft(eps[:, :n_soft], q.context)
                log_soft = soft.log_base(eps[:, :n_soft]) - log_det
                y, log_stiff, score = draw_stiff(stiff, eps[:, n_soft:], s)
        samples = ask_energy(self.target, y, log_soft + log_stiff)
        index = stiff.space.stiff_index
        samples = replace(
            samples,
            energy_slope=samples.energy_slope[:, index],
            log_det_slope=samples.log_det_slope[:, index],
        )
        return Drawn(samples, score, log_soft).gathered(self.n_samples)

    def _soft_loss(self, decoder: FlowMatchingDecoder, aim: Aim) -> Tensor:
        soft, n = decoder.flow.soft, 2 * self.n_matched
        rows = torch.multinomial(aim.share, n, replacement=True)[parallel.share(n)]
        s = aim.y[rows][:, decoder.flow.stiff.space.soft_index]
        if not s.shape[-1]:
            return aim.y.new_zeros(())
        with parallel.whole_batch(n):
            losses = matching_losses(_only(soft.chain), (s - soft.centre) / soft.scale, s[:, :0])
        return losses.sum() / n

    def _stiff_loss(self, decoder: FlowMatchingDecoder, aim: Aim) -> Tensor:
        stiff, n = decoder.flow.stiff, self.n_matched
        if not aim.slopes.shape[-1]:
            return aim.y.new_zeros(())
        slopes = _shortened(aim.slopes * stiff.scale)
        spread = Spread.of_slopes(slopes, aim.share)
        rows = torch.multinomial(aim.share, n, replacement=True)[parallel.share(n)]
        y = aim.y[rows]
        context = stiff.space.features(y[:, stiff.space.soft_index])
        x1 = (y[:, stiff.space.stiff_index] - stiff.centre) / stiff.scale
        with parallel.whole_batch(n):
            losses = matching_losses(
                _only(stiff.chain), x1, context, slopes=slopes[rows], spread=spread
            )
        return losses.sum() / n


def _shortened(slopes: Tensor) -> Tensor:
    """Slopes ``(n, dim)`` of samples that clash, as long as those of rare ones that do not."""
    longest = STEEPEST * max(slopes.shape[-1], 1) ** 0.5
    # The factor first: a length may be infinite, and then it is zero
    shortened: Tensor = slopes * (longest / slopes.norm(dim=-1, keepdim=True).clamp_min(longest))
    return shortened


def _evaluation(drawn: Drawn, beta: float) -> Evaluation:
    samples = drawn.samples
    log_weights = samples.log_weights(beta)
    finite = torch.isfinite(log_weights)
    # The median: a clash does not decide what the log says
    loss = -log_weights[finite].median() if finite.any() else log_weights.new_tensor(torch.nan)
    return Evaluation(
        loss=loss, y=samples.y, energy=samples.energy, log_det=samples.log_det,
        log_weights=log_weights, n_invalid=int((~finite).sum()),
    )  # fmt: skip


def _only(chain: Chain) -> ContinuousFlow:
    (layer,) = chain.layers
    assert isinstance(layer, ContinuousFlow)
    return layer
