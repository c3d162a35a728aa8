"""The functional forms of MMFF94: bonds to fourth order, coupled angles, buffered pairs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.bonded import TINY, angle_between
from gencg.energies.frame import Components, Frame, cross, dot, incidence_matrix

CUBIC_STRETCH = -20.0
"""Coefficient of a stretched bond's cubic term, in 1/nm: -2 per Å."""

QUARTIC_STRETCH = 7 / 12 * CUBIC_STRETCH**2
"""Coefficient of its quartic term, in 1/nm²."""

CUBIC_BEND = -0.006981317 * 180 / np.pi
"""Coefficient of a bent angle's cubic term, in 1/rad: -0.4, by the digits per degree."""

BUFFER = 0.005
"""What is added to a distance before charges interact, in nm."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class QuarticBonds(nn.Module):
    r"""Bonds to fourth order, a Morse potential's beginning.

    .. math:: U = \tfrac{1}{2} k\, d^2 \left(1 + c\, d + \tfrac{7}{12} c^2 d^2\right), \quad
              d = r - r_0, \quad c = -20\ \mathrm{nm}^{-1}

    Args:
        atoms: Pairs of atoms, shape ``(m, 2)``.
        length: :math:`r_0` in nm, shape ``(m,)``.
        k: Force constants in kJ/mol/nm², shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    bond: Tensor
    length: Tensor
    half_k: Tensor

    def __init__(self, atoms: Indices, length: Array, *, k: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        i, j = torch.as_tensor(atoms).T
        self.register_buffer("bond", incidence_matrix(i, j, n_atoms))
        self.register_buffer("length", torch.as_tensor(length)[:, None])
        self.register_buffer("half_k", 0.5 * torch.as_tensor(k)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        d = norm(frame.difference(self.bond)) - self.length
        shape = 1 + d * (CUBIC_STRETCH + QUARTIC_STRETCH * d)
        return (self.half_k * d.square() * shape).sum(0)


class Legs(nn.Module):
    """The two vectors from the apex of an angle to its ends.

    Args:
        atoms: Triples of atoms, the apex in the middle, shape ``(m, 3)``.
        n_atoms: Number of atoms of the molecule.
    """

    first: Tensor
    second: Tensor

    def __init__(self, atoms: Indices, n_atoms: int) -> None:
        super().__init__()
        i, j, k = torch.as_tensor(atoms).T
        self.register_buffer("first", incidence_matrix(j, i, n_atoms))
        self.register_buffer("second", incidence_matrix(j, k, n_atoms))

    def forward(self, frame: Frame) -> tuple[Components, Components]:
        """Components, each of shape ``(m, n)``."""
        return frame.difference(self.first), frame.difference(self.second)


class CubicAngles(nn.Module):
    r"""Angles to third order.

    .. math:: U = \tfrac{1}{2} k\, \delta^2 (1 - 0.4\, \delta), \quad \delta = \theta - \theta_0

    Args:
        atoms: Triples of atoms, the apex in the middle, shape ``(m, 3)``.
        angle: :math:`\theta_0` in rad, shape ``(m,)``.
        k: Force constants in kJ/mol/rad², shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    angle: Tensor
    half_k: Tensor

    def __init__(self, atoms: Indices, angle: Array, *, k: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.legs = Legs(atoms, n_atoms)
        self.register_buffer("angle", torch.as_tensor(angle)[:, None])
        self.register_buffer("half_k", 0.5 * torch.as_tensor(k)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        bend = angle_between(*self.legs(frame)) - self.angle
        return (self.half_k * bend.square() * (1 + CUBIC_BEND * bend)).sum(0)


class LinearAngles(nn.Module):
    r"""Angles at linear atoms, :math:`U = k (1 + \cos\theta)`, smooth where they are straight.

    Args:
        atoms: Triples of atoms, the apex in the middle, shape ``(m, 3)``.
        k: Force constants in kJ/mol, shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    k: Tensor

    def __init__(self, atoms: Indices, *, k: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.legs = Legs(atoms, n_atoms)
        self.register_buffer("k", torch.as_tensor(k)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        u, v = self.legs(frame)
        cosine = dot(u, v) * torch.rsqrt(dot(u, u) * dot(v, v) + TINY)
        return (self.k * (1 + cosine)).sum(0)


class StretchBends(nn.Module):
    r"""Coupling of an angle to its two bonds.

    .. math:: U = \bigl(k_1 (r_1 - r_{10}) + k_2 (r_2 - r_{20})\bigr) (\theta - \theta_0)

    Args:
        atoms: Triples of atoms, the apex in the middle, shape ``(m, 3)``.
        angle: :math:`\theta_0` in rad, shape ``(m,)``.
        lengths: :math:`r_{10}, r_{20}` of first and last atom to the apex, in nm, ``(m, 2)``.
        k: :math:`k_1, k_2` in kJ/mol/nm/rad, shape ``(m, 2)``.
        n_atoms: Number of atoms of the molecule.
    """

    angle: Tensor
    lengths: Tensor
    k: Tensor

    def __init__(
        self, atoms: Indices, angle: Array, *, lengths: Array, k: Array, n_atoms: int
    ) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.legs = Legs(atoms, n_atoms)
        self.register_buffer("angle", torch.as_tensor(angle)[:, None])
        self.register_buffer("lengths", torch.as_tensor(lengths).T[:, :, None])
        self.register_buffer("k", torch.as_tensor(k).T[:, :, None])

    def forward(self, frame: Frame) -> Tensor:
        u, v = self.legs(frame)
        pull = self.k[0] * (norm(u) - self.lengths[0]) + self.k[1] * (norm(v) - self.lengths[1])
        return (pull * (angle_between(u, v) - self.angle)).sum(0)


class WilsonAngles(nn.Module):
    r"""Out-of-plane bends :math:`\tfrac{1}{2} k \chi^2` at atoms with three neighbours.

    :math:`\chi` is Wilson's angle between the bond j-l and the plane i-j-k,

    .. math:: \tan\chi = \frac{\mathbf{n} \cdot \mathbf{l}}{|\mathbf{n} \times \mathbf{l}|}, \quad
              \mathbf{n} = (\mathbf{x}_i - \mathbf{x}_j) \times (\mathbf{x}_k - \mathbf{x}_j), \quad
              \mathbf{l} = \mathbf{x}_l - \mathbf{x}_j.

    Args:
        atoms: Quadruples (i, j, k, l), the centre second, shape ``(m, 4)``.
        k: Force constants in kJ/mol/rad², shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    out: Tensor
    half_k: Tensor

    def __init__(self, atoms: Indices, *, k: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.plane = Legs(self.atoms[:, :3], n_atoms)
        _, j, _, l = torch.as_tensor(atoms).T  # noqa: E741
        self.register_buffer("out", incidence_matrix(j, l, n_atoms))
        self.register_buffer("half_k", 0.5 * torch.as_tensor(k)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        normal, out = cross(*self.plane(frame)), frame.difference(self.out)
        chi = torch.atan2(dot(normal, out), norm(cross(normal, out)))
        return (self.half_k * chi.square()).sum(0)


class BufferedVanDerWaals(nn.Module):
    r"""Halgren's buffered 14-7 potential of all pairs, finite where atoms meet.

    .. math:: U = \sum_{i<j} \epsilon_{ij} \left(\frac{1.07}{q + 0.07}\right)^{\!7}
              \left(\frac{1.12}{q^7 + 0.12} - 2\right), \quad q = r_{ij} / R_{ij}

    Args:
        radius: :math:`R_{ij}`, near which the energy is least, in nm, symmetric,
            ``(n_atoms, n_atoms)``; anything positive where there is no interaction.
        depth: :math:`\epsilon_{ij}` in kJ/mol, likewise; 0 where there is none.
    """

    inverse_radius: Tensor
    depth: Tensor

    def __init__(self, radius: Array, *, depth: Array) -> None:
        super().__init__()
        self.register_buffer("inverse_radius", torch.as_tensor(1 / radius)[:, :, None])
        self.register_buffer("depth", torch.as_tensor(halved(depth))[:, :, None])

    def forward(self, frame: Frame) -> Tensor:
        q = torch.sqrt(frame.squared_distances) * self.inverse_radius
        inner = 1.12 / (seventh(q) + 0.12) - 2
        return (self.depth * seventh(1.07 / (q + 0.07)) * inner).sum((0, 1))


class BufferedCoulomb(nn.Module):
    r"""Charges of all pairs in vacuum, a little apart at least.

    .. math:: U = \sum_{i<j} \frac{C_{ij}}{r_{ij} + 0.005\ \mathrm{nm}}

    Args:
        charges: :math:`C_{ij} = q_i q_j / 4 \pi \epsilon_0` in kJ/mol nm, scaled for neighbours,
            symmetric, shape ``(n_atoms, n_atoms)``.
    """

    charges: Tensor

    def __init__(self, charges: Array) -> None:
        super().__init__()
        self.register_buffer("charges", torch.as_tensor(halved(charges))[:, :, None])

    def forward(self, frame: Frame) -> Tensor:
        return (self.charges / (torch.sqrt(frame.squared_distances) + BUFFER)).sum((0, 1))


def halved(table: Array) -> Array:
    """A table of pairs in which every pair is met twice and the diagonal is no pair."""
    return 0.5 * (1 - np.eye(len(table))) * table


def norm(vector: Components) -> Tensor:
    """Length of component triples, with a finite gradient at zero."""
    return torch.sqrt(dot(vector, vector) + TINY)


def seventh(x: Tensor) -> Tensor:
    """The seventh power."""
    square = x * x
    return square * square * square * x
