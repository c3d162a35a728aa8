"""Torsions and distances as simulation programs compute them: NumPy, slopes by formula.

An independent check of exports: nothing here is shared with `gencg.geometry`.
"""

from collections.abc import Sequence

import mdtraj
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def torsion(x: Array, atoms: Sequence[int]) -> tuple[Array, Array]:
    r"""Dihedral angles and their gradients.

    With :math:`F = x_i - x_j, G = x_j - x_k, H = x_l - x_k, A = F \times G, B = H \times G`

    .. math::
        \phi &= \mathrm{atan2}\bigl((B \times A) \cdot G / |G|,\; A \cdot B\bigr) \\
        \nabla_i \phi &= -\frac{|G|}{A^2} A, \qquad \nabla_l \phi = \frac{|G|}{B^2} B \\
        \nabla_j \phi &= -\nabla_i \phi + t, \qquad \nabla_k \phi = -\nabla_l \phi - t, \qquad
        t = \frac{F \cdot G}{A^2 |G|} A - \frac{H \cdot G}{B^2 |G|} B

    Args:
        x: Positions ``(n, n_atoms, 3)`` in nm.
        atoms: i, j, k, l.

    Returns:
        Angles ``(n,)`` in rad and gradients ``(n, n_atoms, 3)`` in rad/nm.

    References:
        | New formulation for derivatives of torsion angles and improper torsion angles in
          molecular mechanics (Blondel, Karplus, 1996)
        | https://doi.org/10.1002/(SICI)1096-987X(19960715)17:9<1132::AID-JCC5>3.0.CO;2-T
    """
    i, j, k, last = atoms
    f, g, h = x[:, i] - x[:, j], x[:, j] - x[:, k], x[:, last] - x[:, k]
    a, b = np.cross(f, g), np.cross(h, g)
    length = np.linalg.norm(g, axis=1, keepdims=True)
    sine = (np.cross(b, a) * g).sum(1) / length[:, 0]
    angle = np.arctan2(sine, (a * b).sum(1))
    a2, b2 = (a * a).sum(1, keepdims=True), (b * b).sum(1, keepdims=True)
    first, final = -length / a2 * a, length / b2 * b
    fg, hg = (f * g).sum(1, keepdims=True), (h * g).sum(1, keepdims=True)
    t = fg / (a2 * length) * a - hg / (b2 * length) * b
    gradient = np.zeros_like(x)
    for atom, part in ((i, first), (j, t - first), (k, -final - t), (last, final)):
        gradient[:, atom] += part
    return angle, gradient


def distance(x: Array, atoms: Sequence[int]) -> tuple[Array, Array]:
    """Distances ``(n,)`` in nm between two atoms, and their gradients ``(n, n_atoms, 3)``."""
    i, j = atoms
    arm = x[:, i] - x[:, j]
    r = np.linalg.norm(arm, axis=1)
    gradient = np.zeros_like(x)
    gradient[:, i] += arm / r[:, None]
    gradient[:, j] -= arm / r[:, None]
    return r, gradient


def mdtraj_descriptors(
    x: Array, quads: Sequence[Sequence[int]], pairs: Sequence[Sequence[int]]
) -> Array:
    """Torsions in rad, then distances in nm, by MDTraj in single precision, ``(n, n_args)``."""
    trajectory = mdtraj.Trajectory(x.astype(np.float32), None)
    parts = [np.zeros((len(x), 0))]
    if quads:
        parts.append(mdtraj.compute_dihedrals(trajectory, np.array(quads), periodic=False))
    if pairs:
        parts.append(mdtraj.compute_distances(trajectory, np.array(pairs), periodic=False))
    return np.concatenate(parts, axis=1)
