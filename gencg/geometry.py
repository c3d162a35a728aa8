"""Distances, angles, dihedrals and atom placement: pure functions over batches."""

import math

import torch
from torch import Tensor


def wrap(angle: Tensor) -> Tensor:
    r"""Angle in rad brought to :math:`[-\pi, \pi)`, with derivative one."""
    wrapped = angle - 2 * math.pi * torch.floor((angle + math.pi) / (2 * math.pi))
    # Rounding can leave an angle just outside at either end
    wrapped = torch.where(wrapped < -math.pi, wrapped + 2 * math.pi, wrapped)
    return torch.where(wrapped >= math.pi, wrapped - 2 * math.pi, wrapped)


def distances(x: Tensor, pairs: Tensor) -> Tensor:
    r"""Distances :math:`|x_i - x_j|`.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``, in nm.
        pairs: Atom indices (i, j), shape ``(n, 2)``.

    Returns:
        Shape ``(*batch, n)``, in nm.
    """
    i, j = pairs.unbind(1)
    r: Tensor = torch.linalg.vector_norm(x[..., i, :] - x[..., j, :], dim=-1)
    return r


def angles(x: Tensor, triples: Tensor) -> Tensor:
    r"""Angles i-j-k at the middle atom, from the vectors a to i and b to k.

    .. math:: \theta = \mathrm{atan2}(|a \times b|, \; a \cdot b) \in [0, \pi]

    The gradient is finite for collinear atoms (zero there), where the arccos loses it.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``, in nm.
        triples: Atom indices (i, j, k), shape ``(n, 3)``.

    Returns:
        Shape ``(*batch, n)``, in rad.
    """
    i, j, k = triples.unbind(1)
    a = x[..., i, :] - x[..., j, :]
    b = x[..., k, :] - x[..., j, :]
    sine = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return _atan2(sine, (a * b).sum(-1))


def dihedrals(x: Tensor, quads: Tensor) -> Tensor:
    r"""Dihedral angles i-j-k-l, zero when cis, with the sign of IUPAC and MDTraj.

    With :math:`b_1 = x_j - x_i, b_2 = x_k - x_j, b_3 = x_l - x_k`

    .. math::
        \phi = \mathrm{atan2}\bigl(|b_2| \, b_1 \cdot (b_2 \times b_3), \;
               (b_1 \times b_2) \cdot (b_2 \times b_3)\bigr) \in [-\pi, \pi]

    Where three neighbours are collinear the angle is undefined; zero with zero gradient there.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``, in nm.
        quads: Atom indices (i, j, k, l), shape ``(n, 4)``.

    Returns:
        Shape ``(*batch, n)``, in rad.

    A quarter turn:

    >>> x = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])
    >>> torch.rad2deg(dihedrals(x, torch.tensor([[0, 1, 2, 3]])))
    tensor([90.])
    """
    i, j, k, l = quads.unbind(1)  # noqa: E741
    b1 = x[..., j, :] - x[..., i, :]
    b2 = x[..., k, :] - x[..., j, :]
    b3 = x[..., l, :] - x[..., k, :]
    c23 = torch.linalg.cross(b2, b3)
    sine = torch.linalg.vector_norm(b2, dim=-1) * (b1 * c23).sum(-1)
    return _atan2(sine, (torch.linalg.cross(b1, b2) * c23).sum(-1))


def place_atoms(
    length: Tensor,
    angle: Tensor,
    torsion: Tensor,
    *,
    bonded: Tensor,
    second: Tensor,
    third: Tensor,
) -> Tensor:
    r"""Positions of atoms at given bond length, angle and torsion from three placed atoms.

    With :math:`e` along second → bonded, :math:`n` normal to the plane of the three, and
    :math:`m = n \times e` (the side on which `third` lies)

    .. math:: x = x_b + r (-\cos\theta \, e + \sin\theta \cos\phi \, m + \sin\theta \sin\phi \, n)

    Args:
        length: :math:`r`, shape ``(*batch)``, in nm.
        angle: :math:`\theta` at the bonded atom, shape ``(*batch)``, in rad.
        torsion: :math:`\phi` about second - bonded, shape ``(*batch)``, in rad.
        bonded: Position of the bonded atom, shape ``(*batch, 3)``.
        second: Position of its neighbour, shape ``(*batch, 3)``.
        third: Position of the neighbour's neighbour, not collinear, shape ``(*batch, 3)``.

    Returns:
        Shape ``(*batch, 3)``, in nm.

    References:
        | Practical conversion from torsion space to Cartesian space for in silico protein
          synthesis (Parsons et al., 2005)
        | https://doi.org/10.1002/jcc.20237
    """
    e = torch.nn.functional.normalize(bonded - second, dim=-1)
    n = torch.nn.functional.normalize(torch.linalg.cross(second - third, e), dim=-1)
    m = torch.linalg.cross(n, e)
    r, theta, phi = length[..., None], angle[..., None], torsion[..., None]
    side = torch.cos(phi) * m + torch.sin(phi) * n
    x: Tensor = bonded + r * (torch.sin(theta) * side - torch.cos(theta) * e)
    return x


def _atan2(sine: Tensor, cosine: Tensor) -> Tensor:
    """`torch.atan2` with zero value and zero gradient at the origin."""
    undefined = (sine == 0) & (cosine == 0)
    return torch.atan2(sine, torch.where(undefined, 1.0, cosine))
