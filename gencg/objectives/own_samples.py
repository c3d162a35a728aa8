"""Samples of the generator with what a later loss asks of them: energies, densities, slopes."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gencg.distributions.flow import FlowDistribution, Scored
from gencg.distributions.networks import pullback
from gencg.energies.regularize import compress
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.target import BoltzmannTarget


@dataclass(frozen=True)
class OwnSamples:
    r"""Samples y with what decides their weight, and their pull on y, at any temperature.

    .. math:: \log \tilde p_\beta = \log\left|\det \frac{\partial x}{\partial y}\right| - \beta U,
              \qquad \log w_\beta = \log \tilde p_\beta - \log m

    None of the fields knows :math:`\beta`: at another temperature they cost no energy call.

    Args:
        y: Coordinates, ``(n, dim)``.
        energy: U in kJ/mol, ``(n,)``.
        log_det: :math:`\log|\det \partial x/\partial y|`, ``(n,)``.
        log_drawn: Log-density :math:`\log m` they count as drawn with, ``(n,)``.
        energy_slope: :math:`\nabla_y U`, ``(n, dim)``.
        log_det_slope: :math:`\nabla_y \log|\det \partial x/\partial y|`, ``(n, dim)``.
    """

    y: Tensor
    energy: Tensor
    log_det: Tensor
    log_drawn: Tensor
    energy_slope: Tensor
    log_det_slope: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor | slice) -> "OwnSamples":
        return OwnSamples(*(tensor[index] for tensor in self.tensors()))

    def where(self, taken: Tensor, other: "OwnSamples") -> "OwnSamples":
        """Samples of `other` where ``taken``, ``(n,)`` bool, and one's own elsewhere."""
        pairs = zip(other.tensors(), self.tensors(), strict=True)
        return OwnSamples(
            *(torch.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs)
        )

    def log_target(self, beta: float) -> Tensor:
        r""":math:`\log \tilde p_\beta`, ``(n,)``."""
        return self.log_det - beta * self.energy

    def log_target_slope(self, beta: float) -> Tensor:
        r""":math:`\nabla_y \log \tilde p_\beta`, ``(n, dim)``."""
        return self.log_det_slope - beta * self.energy_slope

    def log_weights(self, beta: float) -> Tensor:
        r""":math:`\log w_\beta`, ``(n,)``."""
        return self.log_target(beta) - self.log_drawn

    @property
    def finite(self) -> Tensor:
        """Samples without an infinity or nan, ``(n,)`` bool."""
        every = [torch.isfinite(t).reshape(len(self), -1).all(-1) for t in self.tensors()]
        return torch.stack(every).all(0)

    def tensors(self) -> list[Tensor]:
        """All fields in their order."""
        return [getattr(self, field.name) for field in fields(self)]


def joined(parts: list[OwnSamples]) -> OwnSamples:
    """Samples of several batches as one."""
    return OwnSamples(*map(torch.cat, zip(*(part.tensors() for part in parts), strict=True)))


@dataclass(frozen=True)
class Path:
    r"""Coordinates that carry gradient to the parameters, and the slope of their log-density.

    Args:
        y: :math:`f_\theta(\epsilon)` with a graph, ``(n, dim)``.
        score: :math:`\nabla_y \log q_\theta` at fixed parameters, ``(n, dim)``.
        log_q: :math:`\log q_\theta(y)`, ``(n,)``, detached.
    """

    y: Tensor
    score: Tensor
    log_q: Tensor

    def pull(self, log_target_slope: Tensor, weights: Tensor) -> Tensor:
        r"""Zero in value, shape ``()``; its gradient is the weighted path gradient.

        .. math:: \sum_i c_i \left(\frac{\partial f_\theta(\epsilon_i)}{\partial\theta}\right)^T
                  \nabla_y \log \frac{q_\theta(y_i)}{\tilde p(y_i)}

        Args:
            log_target_slope: :math:`\nabla_y \log \tilde p`, ``(n, dim)``.
            weights: :math:`c_i`, ``(n,)``; where one is zero, a slope may be anything.
        """
        slope = weights[:, None] * (self.score - log_target_slope)
        slope = torch.where(weights[:, None] == 0, 0.0, slope).detach()
        return ((self.y - self.y.detach()) * slope).sum()


def draw_path(model: CoarseGrainedModel, n: int) -> Path:
    """Draw `n` samples of a generator without collective variables.

    Raises:
        ValueError: If the model has collective variables or its decoder is no scored flow.
    """
    q = flow_of(model, n)
    y, score, _ = q.rsample_with_score()
    return Path(y, score, q.log_prob(y).detach())


def trace_path(model: CoarseGrainedModel, y: Tensor) -> Path:
    r"""The path of given coordinates: :math:`\epsilon = f_\theta^{-1}(y)`, then :math:`f_\theta`.

    Args:
        model: Generator without collective variables.
        y: Coordinates, ``(n, dim)``.

    Raises:
        ValueError: If the model has collective variables or its decoder is no scored flow.
    """
    q = flow_of(model, len(y))
    with torch.no_grad():
        eps, log_det = q.flow.inverse(y, q.context)
        log_q = q.base.log_prob(eps) + log_det
    score = pullback(q.base.log_prob, eps, torch.ones_like(log_q))
    again, _, score, _ = q.flow.forward_with_score(eps, q.context, score)
    return Path(again, score, log_q)


def ask_energy(target: BoltzmannTarget, y: Tensor, log_drawn: Tensor) -> OwnSamples:
    """Energies and slopes at coordinates ``(n, dim)``: one energy and gradient call each."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        energy, log_det = target.energy_and_log_det(y)
        (energy_slope,) = torch.autograd.grad(energy.sum(), y, retain_graph=True)
        # Cartesian coordinates have a constant
        log_det_slope = torch.zeros_like(y)
        if log_det.requires_grad:
            (log_det_slope,) = torch.autograd.grad(log_det.sum(), y)
    return OwnSamples(
        y.detach(), energy.detach(), log_det.detach(), log_drawn, energy_slope, log_det_slope
    )


def tame(samples: OwnSamples, beta: float, *, above: float) -> tuple[OwnSamples, Tensor]:
    """Slopes of energies far above the lowest as if these were log-compressed (`compress`).

    Returns:
        The samples with tamed slopes, and which were touched, ``(n,)`` bool.
    """
    u = beta * samples.energy
    lowest = torch.where(torch.isfinite(u), u, torch.inf).min()
    with torch.enable_grad():
        excess = (u - lowest).requires_grad_()
        tamed, touched = compress(excess, above)
        (factor,) = torch.autograd.grad(tamed.sum(), excess)
    slope = torch.where(touched[:, None], factor[:, None], 1.0) * samples.energy_slope
    return replace(samples, energy_slope=slope), touched


def flow_of(model: CoarseGrainedModel, n: int) -> FlowDistribution:
    """The distribution of `n` samples of a generator without collective variables.

    Raises:
        ValueError: If the model has collective variables or its decoder is no scored flow.
    """
    if model.n_cvs:
        raise ValueError(
            f"`model` must have no collective variables for replayed samples, got {model.n_cvs}; "
            "train the generator first, or use ReverseKL"
        )
    q = model.decoder(model.rows(n))
    if not (isinstance(q, FlowDistribution) and isinstance(q.flow, Scored)):
        raise ValueError(
            f"`model` must have a flow that carries its score, got {type(model.decoder).__name__}; "
            "use a TwoBlockDecoder, or ReverseKL"
        )
    return q
