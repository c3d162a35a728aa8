"""Reverse Kullback-Leibler divergence of the generator from the Boltzmann distribution."""

import math
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import ImproperUniform, TorchDistribution
from scipy.optimize import brentq
from torch import Tensor
from torch.distributions.constraints import real_vector

from gencg import parallel
from gencg.energies.regularize import compress
from gencg.importance import effective_sample_size, truncated
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import gradients_at_seam
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.path import PathDistribution, frozen_twin
from gencg.target import BoltzmannTarget

LEAST_ESS = 0.3
"""Effective sample size, as a share, that the weights of a gradient of some order have at least."""


class ReverseKL(Objective):
    r"""The bound of 2020, per sample of the generator.

    .. math:: L = E_{z \sim q(z),\, y \sim q(y|z)}\left[\beta U(x(y))
              - \log\left|\det \frac{\partial x}{\partial y}\right|
              + \log q(y|z) + \log q(z) - \log r(z|y)\right] \ge -\log Z_\beta

    In Pyro's words the *guide* is our generator q(z)q(y|z), what is drawn, and the *model* is the
    target :math:`e^{-\beta U}` with the encoder r(z|y), what scores. To a reader of the paper the
    roles look swapped: there the generator is called the model.

    Energies far above the reference structure are log-compressed, and the worst samples of each
    batch are dropped, so that a clash does not decide a step; both are counted. With `drop_worst`
    above zero the loss is therefore no bound: it may lie below :math:`-\log Z_\beta`.

    **Order.** The bound forgives a state that the generator thins out or tears a gap into: where
    q has no density, nothing is drawn. With `order` :math:`\alpha > 0` the gradient is that of
    Rényi's divergence, which does not forgive it,

    .. math:: \nabla_\theta\, \frac{1}{\alpha (\alpha - 1)} \log \int p^\alpha q_\theta^{1-\alpha}
              = \frac{E_q\big[w^\alpha\, (\partial_\theta f_\theta)^T\,
              \nabla_y \log (q_\theta/p)\big]}{E_q[w^\alpha]}

    the same path gradients with weights :math:`w^\alpha` in place of equal ones, cut at
    :math:`\sqrt n` times their mean. 0 is the reverse KL, 1 the forward KL. Where a few samples
    have all the weight, as while rings do not close yet, there would be no gradient for the others:
    the order of a step is lowered until its weights have an ESS of `LEAST_ESS`. The value of the
    loss is the bound at every order.

    With weights, a state that the generator draws and fits badly is hardly trained, since its
    samples have low weights, and it fits ever worse. A lower `stiff_order` trains the stiff block
    of a two-block generator there as well: with :math:`g_i` the path gradient of sample i, its
    parameters have :math:`\sum_i w_i^{\alpha_v} g_i` and those of the soft block
    :math:`\sum_i w_i^\alpha g_i`, each over the sum of its weights. Either order is lowered by
    itself where few samples have all the weight.

    Args:
        target: The Boltzmann density.
        n_samples: Configurations per evaluation, one energy call each.
        order: Order :math:`\alpha` of the gradient.
        stiff_order: Order :math:`\alpha_v` of that of the stiff block; None is `order`.
        path_gradient: Score q with detached parameters (`PathDistribution`); lower variance for
            one more inverse pass where the flow is not `Scored`. False gives the plain
            reparametrised estimator.
        compress_above: Reduced energy above the reference from which on it is compressed.
        drop_worst: Share of each batch with the highest loss that is left out.
        clip_above: A sample's path gradient by y, measured in the coordinates' scales, is
            shortened to this many times the median of the batch. An exact generator has none at
            all, so that the optimum stays where it is; on the way the estimate is biased.
            Without path gradients nothing is clipped. Gradients are clipped as weighted by
            `stiff_order`.

    Raises:
        ValueError: If `n_samples` is below 2, `order` outside [0, 2] or above 0 without path
            gradients, `stiff_order` outside [0, order], `compress_above` or `clip_above` not
            positive, or `drop_worst` outside [0, 1).

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl et al., 2020), https://arxiv.org/abs/2002.10148
        | Rényi divergence variational inference (Li, Turner, 2016),
          https://arxiv.org/abs/1602.02311
        | Fast and unified path gradient estimators for normalizing flows (Vaitl et al., 2024),
          https://arxiv.org/abs/2403.15881
    """

    rounds = True

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        n_samples: int = 512,
        order: float = 0.0,
        stiff_order: float | None = None,
        path_gradient: bool = True,
        compress_above: float = 1e3,
        drop_worst: float = 0.02,
        clip_above: float = math.inf,
    ) -> None:
        if n_samples < 2:
            raise ValueError(f"`n_samples` must be at least 2, got {n_samples}")
        if not 0 <= order <= 2:
            raise ValueError(f"`order` must lie in [0, 2], got {order}")
        if order > 0 and not path_gradient:
            raise ValueError(f"`order` must be 0 without path gradients, got {order}")
        if stiff_order is not None and not 0 <= stiff_order <= order:
            raise ValueError(
                f"`stiff_order` must lie in [0, {order:g}], up to `order`, got {stiff_order}"
            )
        if not compress_above > 0:
            raise ValueError(f"`compress_above` must be positive, got {compress_above}")
        if not clip_above > 0:
            raise ValueError(f"`clip_above` must be positive, got {clip_above}")
        if not 0 <= drop_worst < 1:
            raise ValueError(f"`drop_worst` must lie in [0, 1), got {drop_worst}")
        self.target = target
        self.n_samples = n_samples
        self.order = order
        self.stiff_order = order if stiff_order is None else stiff_order
        self.path_gradient = path_gradient
        self.compress_above = compress_above
        self.drop_worst = drop_worst
        self.clip_above = clip_above
        self._twin: CoarseGrainedModel | None = None
        self._of_soft: Tensor | None = None
        self._reference_energy: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient."""
        names = (
            "order",
            "stiff_order",
            "path_gradient",
            "compress_above",
            "drop_worst",
            "clip_above",
        )
        return {name: getattr(self, name) for name in names}

    def guide(self, generator: CoarseGrainedModel, beta: float) -> None:
        """Sample z ~ q(z), y ~ q(y|z)."""
        n = parallel.n_rows(self.n_samples)
        rows = generator.rows(n)
        with pyro.plate("configurations", n):
            if not self.path_gradient:
                z = pyro.sample("z", generator.prior(rows))
                pyro.sample("y", generator.decoder(z))
                return
            self._twin = twin = frozen_twin(generator, self._twin)
            z = pyro.sample("z", PathDistribution(generator.prior(rows), twin.prior(rows)))
            pyro.sample("y", PathDistribution(generator.decoder(z), twin.decoder(z)))

    def model(self, generator: CoarseGrainedModel, beta: float) -> None:
        """Score y by its Boltzmann density and z by r(z|y)."""
        n = parallel.n_rows(self.n_samples)
        with pyro.plate("configurations", n):
            # A flat density: the Boltzmann factor enters as a factor of its own
            flat: TorchDistribution = _Flat(real_vector, (n,), (self.target.coordinates.dim,))
            y = pyro.sample("y", flat)
            energy, log_det = self.target.energy_and_log_det(y)
            pyro.deterministic("energy", energy, event_dim=0)
            pyro.deterministic("log_det", log_det, event_dim=0)
            u, touched = self._compress(beta * energy, beta)
            pyro.deterministic("touched", touched, event_dim=0)
            pyro.deterministic("excess", (beta * energy - u).detach(), event_dim=0)
            pyro.factor("boltzmann", log_det - u)
            pyro.sample("z", generator.encoder(y))

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        """Loss and samples at inverse temperature `beta` in mol/kJ.

        Raises:
            ValueError: If `order` is above 0 for a model with collective variables, whose encoder
                would not follow it, or `stiff_order` is another for a model without two blocks.
        """
        if self.order > 0 and model.n_cvs:
            raise ValueError(
                f"`order` must be 0 for a model with collective variables, got {self.order}"
            )
        apart = self.stiff_order != self.order
        if apart and not isinstance(model.decoder, TwoBlockDecoder):
            raise ValueError(
                "`stiff_order` needs a decoder of two blocks, got "
                f"{type(model.decoder).__name__}; leave it out"
            )
        # A sample that is not finite is counted below; Pyro would stop the run for it
        with ExitStack() as stack:
            stack.enter_context(pyro.validation_enabled(False))
            if apart:
                stack.enter_context(gradients_at_seam(self._to_soft_block))
            with parallel.whole_batch(self.n_samples):
                guide = poutine.trace(self.guide).get_trace(model, beta)
            drawn = guide.nodes["y"]["value"]
            if self.path_gradient and drawn.requires_grad and math.isfinite(self.clip_above):
                drawn.register_hook(self._clipped)
            scored = poutine.trace(poutine.replay(self.model, trace=guide)).get_trace(model, beta)
            losses = _log_prob(guide) - _log_prob(scored)
        everyone = self._gather(losses.detach())
        kept, n_dropped, n_invalid = self._kept(everyone)
        y, energy, log_det, excess, touched = (
            self._gather(scored.nodes[name]["value"].detach())
            for name in ("y", "energy", "log_det", "excess", "touched")
        )
        log_weights = -everyone - excess
        loss = self._weighted(losses, everyone, log_weights, kept)
        return Evaluation(
            loss=loss,
            y=y,
            energy=energy,
            log_det=log_det,
            log_weights=log_weights,
            n_compressed=int(touched.sum()),
            n_dropped=n_dropped,
            n_invalid=n_invalid,
        )

    def _weighted(
        self, losses: Tensor, everyone: Tensor, log_weights: Tensor, kept: Tensor
    ) -> Tensor:
        """The bound over kept samples of all processes; its gradient has the weights of `order`."""
        if not kept.any():
            return parallel.summed(0.0 * losses.sum()) + float("nan")
        own = parallel.share(self.n_samples)
        equal = kept.to(everyone) / kept.sum()
        bound = torch.where(kept, equal * everyone, 0.0).sum()
        log_weights = torch.where(kept, log_weights, -torch.inf)

        def weights(order: float) -> Tensor:
            return weights_of_order(order, log_weights) if order > 0 else equal

        share = weights(self.stiff_order)
        if self.stiff_order != self.order:
            self._of_soft = torch.where(share > 0, weights(self.order) / share, 0.0)[own]
        # Not a product: what was left out may be no number, and so would be its gradient
        terms = torch.where(kept[own], losses, torch.zeros_like(losses)) * share[own]
        pull = parallel.summed(terms.sum())
        return pull - pull.detach() + bound

    def _to_soft_block(self, gradient: Tensor) -> Tensor:
        """Gradients by soft coordinates ``(n, n_soft)`` with the weights of the soft block."""
        assert self._of_soft is not None
        return gradient * self._of_soft.to(gradient).unsqueeze(-1)

    def _clipped(self, gradient: Tensor) -> Tensor:
        """Rows ``(n, dim)``, none longer than `clip_above` times the median length."""
        length = (gradient * self.target.coordinates.scale.to(gradient)).norm(dim=-1)
        everyone = self._gather(length)
        # What was dropped has no gradient, what is broken none that counts
        counted = everyone[(everyone > 0) & torch.isfinite(everyone)]
        if not len(counted):
            return gradient
        longest = self.clip_above * counted.median()
        clipped: Tensor = gradient * (longest / length.clamp_min(longest)).unsqueeze(-1)
        return clipped

    def _gather(self, rows: Tensor) -> Tensor:
        """Of the whole batch: what is dropped and logged is decided over all processes."""
        return parallel.gather(rows, self.n_samples)

    def _kept(self, losses: Tensor) -> tuple[Tensor, int, int]:
        finite = torch.isfinite(losses)
        n_invalid = int((~finite).sum())
        n_dropped = max(int(self.drop_worst * len(losses)) - n_invalid, 0)
        kept = finite
        if n_dropped:
            worst = torch.where(finite, losses, -torch.inf).topk(n_dropped).indices
            kept = finite.clone()
            kept[worst] = False
        return kept, n_dropped, n_invalid

    def _compress(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        if self._reference_energy is None:
            centre = self.target.coordinates.centre.to(u)
            x, _ = self.target.coordinates.inverse(centre[None])
            with torch.no_grad():
                self._reference_energy = float(self.target.energy(x))
        reference = beta * self._reference_energy
        compressed, touched = compress(u - reference, self.compress_above)
        return compressed + reference, touched


def weights_of_order(order: float, log_weights: Tensor) -> Tensor:
    """Weights of power `order`, or of the highest below that leaves an ESS of `LEAST_ESS`."""
    order = order_that_is_borne(order, log_weights)
    return truncated(torch.where(torch.isfinite(log_weights), order * log_weights, log_weights))


def order_that_is_borne(order: float, log_weights: Tensor) -> float:
    """`order`, or the highest power of the weights below that leaves an ESS of `LEAST_ESS`."""
    some = log_weights[torch.isfinite(log_weights)].double()

    def spare(log_power: float) -> float:
        return float(effective_sample_size(math.exp(log_power) * some)) - LEAST_ESS

    if spare(math.log(order)) >= 0:
        return order
    # Clashes have weights of any size
    lowest = -math.log(1 + float(some.max() - some.min()))
    return math.exp(brentq(spare, lowest, math.log(order), xtol=1e-6))


class _Flat(ImproperUniform):  # type: ignore[misc]
    """`ImproperUniform` whose log-density, zero, is on the device of the value."""

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_zeros(value.shape[: value.ndim - self.event_dim])


def _log_prob(trace: poutine.Trace) -> Tensor:
    """Sum over the sites, per configuration."""
    trace.compute_log_prob()
    total: Tensor = sum(
        node["log_prob"]
        for node in trace.nodes.values()
        if node["type"] == "sample" and isinstance(node.get("log_prob"), Tensor)
    )
    return total
