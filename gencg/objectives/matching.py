"""The loss of flow matching, on circles and lines, with forces where they are known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.geometry import wrap

WIDEST = 10.0
"""Largest variance that is believed, in squared units of a normal base."""


@dataclass(frozen=True)
class Spread:
    r"""A covariance :math:`\Sigma = Q\, \mathrm{diag}(\lambda)\, Q^T` on lines.

    Args:
        variances: :math:`\lambda`, ``(dim,)``.
        axes: Columns Q, ``(dim, dim)``.
    """

    variances: Tensor
    axes: Tensor

    @classmethod
    def of_slopes(cls, slopes: Tensor, share: Tensor) -> "Spread":
        r"""The inverse of :math:`E[g g^T] = -E[\nabla^2 \log p]`: widths within states.

        Of few samples the expectation is drawn towards the unit matrix, as if there were `dim`
        samples of a standard normal, too.

        Args:
            slopes: :math:`g = \nabla \log p`, ``(n, dim)``.
            share: Weights of the samples, ``(n,)``, with sum one.
        """
        dim = slopes.shape[-1]
        n = 1 / share.double().square().sum()
        g = slopes.double()
        matrix = (n * (g * share.double()[:, None]).T @ g + dim * torch.eye(dim).to(g)) / (n + dim)
        stiffness, axes = torch.linalg.eigh(matrix)
        variances = (1 / stiffness.clamp_min(1 / WIDEST)).to(slopes)
        return cls(variances, axes.to(slopes))


def matching_losses(
    flow: ContinuousFlow,
    x1: Tensor,
    context: Tensor,
    *,
    slopes: Tensor | None = None,
    spread: Spread | None = None,
) -> Tensor:
    r""":math:`|u_\theta(t, x_t; c) - \hat u|^2` of each sample, ``(n,)``.

    :math:`x_0` is uniform in angles and standard normal on lines, t uniform on [0, 1],
    :math:`x_t = \exp_{x_0}(t \log_{x_0} x_1)` on the geodesic, and :math:`\hat u = \log_{x_0} x_1`.
    With slopes :math:`g = \nabla_{x_1} \log p(x_1|c)` on lines the same expectation has another
    estimate,

    .. math:: \hat u = x_1 + (1-t)\, \Sigma_t^{-1} \left[(t \Sigma - (1-t))\, x_0 + \Sigma\, g
              \right], \qquad \Sigma_t = (1-t)^2 + t^2 \Sigma

    which has no noise at all where p is normal with covariance :math:`\Sigma`, and the right mean
    for any p and :math:`\Sigma`: two estimates of the score of :math:`x_t`, by the noise and by
    the slope of the target, are mixed by matrices that cancel what they do not share.

    Args:
        flow: The flow whose velocity is matched.
        x1: Samples to end at, ``(n, dim)``.
        context: Their context, ``(n, n_context)``.
        slopes: g, ``(n, dim)``.
        spread: :math:`\Sigma`.

    Raises:
        ValueError: If there are slopes and angles, or only one of `slopes` and `spread`.

    References:
        | Target score matching (De Bortoli et al., 2024), https://arxiv.org/abs/2402.08667
        | Laplace-Fisher gate identities for optimal matrix-gated blended score estimation (Duston
          et al., 2026), https://arxiv.org/abs/2606.25169
    """
    field = flow.field
    if (slopes is None) != (spread is None):
        raise ValueError("`slopes` and `spread` go together; give both or none")
    if slopes is not None and bool(field.periodic.any()):
        raise ValueError("`slopes` are for lines, and the flow has angles; leave them out")
    x0 = torch.where(field.periodic, torch.pi * (2 * torch.rand_like(x1) - 1), torch.randn_like(x1))
    way = torch.where(field.periodic, wrap(x1 - x0), x1 - x0)
    t = torch.rand_like(x1[:, :1])
    at = x0 + t * way
    if slopes is not None and spread is not None:
        way = _with_slopes(x0, x1, t, slopes, spread)
    u: Tensor = field(t, at, field.coefficients(context))
    return (u - way).square().sum(-1)


def _with_slopes(x0: Tensor, x1: Tensor, t: Tensor, slopes: Tensor, spread: Spread) -> Tensor:
    variances, left = spread.variances, 1 - t
    mixed = (t * variances - left) * (x0 @ spread.axes) + variances * (slopes @ spread.axes)
    mixed = left / (left.square() + t.square() * variances) * mixed
    return x1 + mixed @ spread.axes.T
