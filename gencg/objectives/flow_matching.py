"""Conditional flow matching on the generator's own weighted samples."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.geometry import wrap
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.memory import WeightedMemory
from gencg.target import BoltzmannTarget


class FlowMatching(Objective):
    r"""Flow matching along the ladder, and another objective after it, through the equation.

    The training set is the generator's own: every evaluation draws ``n_samples``, asks the force
    field for their energies (no forces), and keeps them. A larger batch drawn from what is kept,
    by its weights at the temperature of now, is what the velocities of both blocks are matched to,

    .. math:: \min_\theta\; E_{t,\, x_0,\, x_1}\left|u_\theta(t, x_t; c)
              - \log_{x_0} x_1\right|^2, \qquad x_t = \exp_{x_0}(t \log_{x_0} x_1)

    on geodesics of circles and lines: an angle goes the shorter way around, also across
    :math:`\pm\pi`. The soft block is matched to soft coordinates, the stiff block to stiff ones
    given the soft ones of the same sample. No equation is solved for the gradient. While weights
    are uneven they are taken to a power (`WeightedMemory`), so that each round is a step from the
    generator towards the target that its samples can bear.

    Matching leaves errors that cost weight in sixty dimensions at once; the objective `after`,
    with path gradients, removes them. The value of the loss is the median of :math:`-\log w` while
    matching, and that of `after` then.

    Args:
        target: The Boltzmann density.
        after: What trains when matching is done.
        n_samples: Configurations per evaluation, one energy call each.
        n_matching: Evaluations that match.
        n_matched: Samples that velocities are matched to in each.
        n_remembered: Samples kept.

    Raises:
        ValueError: If `n_samples` is below 2, `n_matching` negative, or `n_matched` or
            `n_remembered` below 1.

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
        n_matched: int = 2048,
        n_remembered: int = 20_480,
    ) -> None:
        if n_samples < 2:
            raise ValueError(f"`n_samples` must be at least 2, got {n_samples}")
        if n_matching < 0:
            raise ValueError(f"`n_matching` must not be negative, got {n_matching}")
        for name, value in (("n_matched", n_matched), ("n_remembered", n_remembered)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        self.target, self.after, self.n_samples = target, after, n_samples
        self.rounds = after.rounds
        self.n_matching, self.n_matched = n_matching, n_matched
        self.memory = WeightedMemory(n_remembered)
        self.n_done = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient."""
        own = {
            "n_matching": self.n_matching,
            "n_matched": self.n_matched,
            "n_remembered": self.memory.capacity,
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
            self.memory = WeightedMemory(self.memory.capacity)
            return self.after.evaluate(model, beta)
        fresh = self._draw(model, beta)
        self.memory.add(fresh.y, fresh, beta)
        if not len(self.memory):
            return fresh
        y = self.memory.draw(self.n_matched, beta)
        with parallel.whole_batch(self.n_matched):
            losses = blocks_losses(decoder, y[parallel.share(self.n_matched)])
        loss = parallel.summed(losses.sum() / self.n_matched)
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

    def _draw(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        with torch.no_grad():
            with parallel.whole_batch(self.n_samples):
                _, y, log_q = model.sample(parallel.n_rows(self.n_samples))
            energy, log_det = self.target.energy_and_log_det(y)
        y, energy, log_det, log_q = (
            parallel.gather(part, self.n_samples) for part in (y, energy, log_det, log_q)
        )
        log_weights = log_det - beta * energy - log_q
        finite = torch.isfinite(log_weights)
        # The median: a clash does not decide what the log says
        loss = -log_weights[finite].median() if finite.any() else log_weights.new_tensor(torch.nan)
        return Evaluation(
            loss=loss, y=y, energy=energy, log_det=log_det, log_weights=log_weights,
            n_invalid=int((~finite).sum()),
        )  # fmt: skip


def blocks_losses(decoder: FlowMatchingDecoder, y: Tensor) -> Tensor:
    """Matching losses of both blocks on samples y ``(n, dim)``, added, shape ``(n,)``."""
    soft, stiff = decoder.flow.soft, decoder.flow.stiff
    s, v = y[:, stiff.space.soft_index], y[:, stiff.space.stiff_index]
    losses = y.new_zeros(len(y))
    for layer in soft.chain.layers:
        assert isinstance(layer, ContinuousFlow)
        losses = losses + matching_losses(layer, (s - soft.centre) / soft.scale, y[:, :0])
    for layer in stiff.chain.layers:
        assert isinstance(layer, ContinuousFlow)
        context = stiff.space.features(s)
        losses = losses + matching_losses(layer, (v - stiff.centre) / stiff.scale, context)
    return losses


def matching_losses(flow: ContinuousFlow, x1: Tensor, context: Tensor) -> Tensor:
    r""":math:`|u_\theta(t, x_t; c) - \log_{x_0} x_1|^2` of each sample, ``(n,)``.

    :math:`x_0` is uniform in angles and standard normal on lines, t uniform on [0, 1].

    Args:
        flow: The flow whose velocity is matched.
        x1: Samples to end at, ``(n, dim)``.
        context: Their context, ``(n, n_context)``.
    """
    field = flow.field
    x0 = torch.where(field.periodic, torch.pi * (2 * torch.rand_like(x1) - 1), torch.randn_like(x1))
    way = torch.where(field.periodic, wrap(x1 - x0), x1 - x0)
    t = torch.rand_like(x1[:, :1])
    u: Tensor = field(t, x0 + t * way, field.coefficients(context))
    return (u - way).square().sum(-1)
