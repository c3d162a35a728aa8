"""The mass metric: how far atoms move when a coordinate does."""

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.geometry import distances


def mass_metric(
    coordinates: CoordinateMap,
    x: Tensor,
    index: Tensor,
    *,
    masses: Tensor | None = None,
    pairs: Tensor | None = None,
) -> Tensor:
    r"""Inverse mass matrix of the coordinates at `index`, and of distances.

    .. math:: G_{ij}(x) = \sum_a \frac{1}{m_a} \nabla_a y_i \cdot \nabla_a y_j

    A function f of these coordinates has :math:`\sum_a |\nabla_a f|^2 / m_a = \nabla f^T G
    \nabla f`: no second derivative of the geometry is needed.

    Args:
        coordinates: Map from x to y.
        x: Configurations, ``(n, *event_shape)`` in nm.
        index: Which coordinates, ``(k,)`` int.
        masses: Atomic masses in amu, ``(n_atoms,)``; one everywhere by default, as for toys.
        pairs: Atoms whose distances follow the coordinates, ``(d, 2)`` int.

    Returns:
        Metric ``(n, k + d, k + d)``, symmetric, in 1/(amu nm²) between angles, 1/amu between
        distances.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y, _ = coordinates.forward(x)
        rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in index.tolist()]
        if pairs is not None:
            r = distances(x, pairs)
            rows += [torch.autograd.grad(d.sum(), x, retain_graph=True)[0] for d in r.unbind(1)]
    gradient = torch.stack(rows, dim=1).flatten(2)  # [n, k, 3 * n_atoms]
    if masses is not None:
        weight = masses.to(gradient).rsqrt()
        gradient = gradient * weight.repeat_interleave(gradient.shape[-1] // len(weight))
    return gradient @ gradient.mT
