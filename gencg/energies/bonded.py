"""Bonds, angles and torsions of a molecular force field."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.frame import Components, Frame, cross, dot, incidence_matrix

TINY = 1e-24
"""Added to a squared sine before its root: finite gradients for collinear atoms."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class HarmonicBonds(nn.Module):
    r"""Harmonic bonds :math:`\tfrac{1}{2} k (r - r_0)^2`; Urey-Bradley terms have this form too.

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
        d = frame.difference(self.bond)
        r = torch.sqrt(dot(d, d) + TINY)
        return (self.half_k * (r - self.length).square()).sum(0)


class HarmonicAngles(nn.Module):
    r"""Harmonic angles :math:`\tfrac{1}{2} k (\theta - \theta_0)^2`.

    Args:
        atoms: Triples of atoms, the apex in the middle, shape ``(m, 3)``.
        angle: :math:`\theta_0` in rad, shape ``(m,)``.
        k: Force constants in kJ/mol/rad², shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    first: Tensor
    second: Tensor
    angle: Tensor
    half_k: Tensor

    def __init__(self, atoms: Indices, angle: Array, *, k: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        i, j, l = torch.as_tensor(atoms).T  # noqa: E741
        self.register_buffer("first", incidence_matrix(j, i, n_atoms))
        self.register_buffer("second", incidence_matrix(j, l, n_atoms))
        self.register_buffer("angle", torch.as_tensor(angle)[:, None])
        self.register_buffer("half_k", 0.5 * torch.as_tensor(k)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        theta = angle_between(frame.difference(self.first), frame.difference(self.second))
        return (self.half_k * (theta - self.angle).square()).sum(0)


def angle_between(u: Components, v: Components) -> Tensor:
    """Angles of component triples, in rad, with a finite gradient where they are collinear."""
    normal = cross(u, v)
    # atan2 keeps its precision near pi, where arccos of the cosine loses it
    return torch.atan2(torch.sqrt(dot(normal, normal) + TINY), dot(u, v))


class Dihedrals(nn.Module):
    """Cosine and sine of the dihedral angles of quadruples of atoms.

    Args:
        atoms: Quadruples of atoms, shape ``(m, 4)``.
        n_atoms: Number of atoms of the molecule.
    """

    first: Tensor
    axis: Tensor
    last: Tensor

    def __init__(self, atoms: Indices, n_atoms: int) -> None:
        super().__init__()
        i, j, k, l = torch.as_tensor(atoms).T  # noqa: E741
        self.register_buffer("first", incidence_matrix(i, j, n_atoms))
        self.register_buffer("axis", incidence_matrix(j, k, n_atoms))
        self.register_buffer("last", incidence_matrix(k, l, n_atoms))

    def cosine(self, frame: Frame) -> Tensor:
        """Cosines, shape ``(m, n)``."""
        axis = frame.difference(self.axis)
        m, n, inverse = self._normals(frame, axis)
        return dot(m, n) * inverse

    def forward(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each of shape ``(m, n)``."""
        axis = frame.difference(self.axis)
        m, n, inverse = self._normals(frame, axis)
        length = torch.sqrt(dot(axis, axis) + TINY)
        return dot(m, n) * inverse, dot(frame.difference(self.first), n) * length * inverse

    def _normals(self, frame: Frame, axis: Components) -> tuple[Components, Components, Tensor]:
        """Normals of the planes (ijk) and (jkl), and the inverse product of their lengths."""
        m = cross(frame.difference(self.first), axis)
        n = cross(axis, frame.difference(self.last))
        return m, n, torch.rsqrt(dot(m, m) * dot(n, n) + TINY)


class FourierTorsions(nn.Module):
    r"""Torsions as Fourier series, evaluated without the angle itself.

    .. math:: U(\varphi) = \sum_{n=0}^{N} a_n \cos n\varphi + b_n \sin n\varphi

    From :math:`\cos\varphi` and :math:`\sin\varphi` by Clenshaw's recursion. A phase of 0 or
    :math:`\pi` leaves no sine, and a polynomial in the cosine has finite gradients at planar
    geometries. Periodic and Ryckaert-Bellemans torsions are of this form.

    Args:
        atoms: Quadruples of atoms, shape ``(m, 4)``.
        cosines: :math:`a_n` in kJ/mol, shape ``(N + 1, m)``.
        sines: :math:`b_n` in kJ/mol, shape ``(N + 1, m)``.
        n_atoms: Number of atoms of the molecule.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, atoms: Indices, cosines: Array, *, sines: Array, n_atoms: int) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.dihedrals = Dihedrals(atoms, n_atoms)
        self.register_buffer("cosines", torch.as_tensor(cosines)[:, :, None])
        self.register_buffer("sines", torch.as_tensor(sines)[:, :, None])
        self.has_sines = bool(np.any(sines))

    def forward(self, frame: Frame) -> Tensor:
        if not self.has_sines:
            return self.series(self.dihedrals.cosine(frame), None).sum(0)
        return self.series(*self.dihedrals(frame)).sum(0)

    def series(self, cosine: Tensor, sine: Tensor | None) -> Tensor:
        """Energy of every torsion, ``(m, n)``, at given cosines and sines."""
        b1, b2 = clenshaw(self.cosines, cosine)
        energy = self.cosines[0] + cosine * b1 - b2
        if sine is None:
            return energy
        return energy + sine * clenshaw(self.sines, cosine)[0]


def clenshaw(coefficients: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    r"""Clenshaw's :math:`b_1, b_2` with :math:`b_n = a_n + 2 \cos\varphi\, b_{n+1} - b_{n+2}`.

    :math:`\sum_n a_n \cos n\varphi = a_0 + \cos\varphi\, b_1 - b_2` and
    :math:`\sum_n a_n \sin n\varphi = \sin\varphi\, b_1`.
    """
    b1, b2 = torch.zeros_like(cosine), torch.zeros_like(cosine)
    for a in coefficients[1:].flip(0):
        b1, b2 = a + 2 * cosine * b1 - b2, b1
    return b1, b2


class HarmonicTorsions(nn.Module):
    r"""Harmonic torsions :math:`k (\varphi - \varphi_0)^2`, CHARMM's impropers.

    Args:
        atoms: Quadruples of atoms, shape ``(m, 4)``.
        angle: :math:`\varphi_0` in rad, shape ``(m,)``.
        k: Force constants in kJ/mol/rad², shape ``(m,)``.
        wrapped: Whether the difference is taken on the circle, shape ``(m,)``.
        n_atoms: Number of atoms of the molecule.
    """

    angle: Tensor
    k: Tensor
    turn: Tensor

    def __init__(
        self, atoms: Indices, angle: Array, *, k: Array, wrapped: NDArray[np.bool_], n_atoms: int
    ) -> None:
        super().__init__()
        self.atoms = np.asarray(atoms)
        self.dihedrals = Dihedrals(atoms, n_atoms)
        self.register_buffer("angle", torch.as_tensor(angle)[:, None])
        self.register_buffer("k", torch.as_tensor(k)[:, None])
        self.register_buffer("turn", torch.as_tensor(2 * np.pi * wrapped)[:, None])

    def forward(self, frame: Frame) -> Tensor:
        cosine, sine = self.dihedrals(frame)
        difference = torch.atan2(sine, cosine) - self.angle
        difference = difference - self.turn * torch.round(difference / (2 * torch.pi))
        return (self.k * difference.square()).sum(0)
