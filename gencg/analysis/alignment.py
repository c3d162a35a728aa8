"""Structures laid over each other: mass-weighted deviations after the best rotation."""

import torch
from torch import Tensor


def rmsd_matrix(a: Tensor, b: Tensor, masses: Tensor) -> Tensor:
    r"""Root-mean-square deviation of every pair after the best translation and rotation.

    .. math:: d^2 = \frac{1}{M} \min_R \sum_k m_k |R\, a_k - b_k|^2
              = \frac{1}{M} \Big(\sum_k m_k (|a_k|^2 + |b_k|^2) - 2 (\sigma_1 + \sigma_2
              \pm \sigma_3)\Big)

    with the singular values of :math:`\sum_k m_k a_k b_k^T` of the centred structures and the sign
    of its determinant.

    Args:
        a: Positions ``(n, n_atoms, 3)``.
        b: Positions ``(m, n_atoms, 3)``.
        masses: Weights of the atoms, ``(n_atoms,)``; 0 leaves one out.

    Returns:
        ``(n, m)`` in the unit of the positions.

    References:
        | A solution for the best rotation to relate two sets of vectors (Kabsch, 1976),
          https://doi.org/10.1107/S0567739476001873
    """
    m = (masses / masses.sum()).to(a)
    a, b = centred(a, m), centred(b, m)
    covariance = torch.einsum("k,ika,jkb->ijab", m, a, b)
    singular = torch.linalg.svdvals(covariance)
    sign = torch.linalg.det(covariance).sign()
    overlap = singular[..., 0] + singular[..., 1] + sign * singular[..., 2]
    sizes = [torch.einsum("k,nka->n", m, part**2) for part in (a, b)]
    square = sizes[0][:, None] + sizes[1] - 2 * overlap
    distance: Tensor = square.clamp_min(0).sqrt()
    return distance


def superposed(x: Tensor, reference: Tensor, masses: Tensor) -> Tensor:
    """Structures ``(n, n_atoms, 3)`` moved and turned onto a reference ``(n_atoms, 3)``."""
    m = (masses / masses.sum()).to(x)
    middle = torch.einsum("k,ka->a", m, reference)
    moved = centred(x, m)
    covariance = torch.einsum("k,nka,kb->nab", m, moved, reference - middle)
    u, _, vt = torch.linalg.svd(covariance)
    sign = torch.linalg.det(u @ vt)
    u = torch.cat([u[..., :2], u[..., 2:] * sign[:, None, None]], -1)
    laid: Tensor = moved @ (u @ vt) + middle
    return laid


def centred(x: Tensor, masses: Tensor) -> Tensor:
    """Positions with the centre of normalised masses at the origin."""
    return x - torch.einsum("k,...ka->...a", masses, x)[..., None, :]
