"""Slopes in internal coordinates from the forces and torques on all that hangs on a bond."""

import torch
from torch import Tensor

from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.placement import absolute_torsions


class Torques:
    r"""Slopes of an energy and of the volume in y, from the slope :math:`g = \nabla_x U`.

    Moving coordinate k moves the atoms :math:`D_k` of the tree beyond it as one body. With the bond
    :math:`e_k` from the parent p to k, the bond :math:`e_p` before it, and

    .. math::
        G_k = \sum_{i \in D_k} g_i, \qquad
        \tau_k = \sum_{i \in D_k} (x_i - x_p) \times g_i, \qquad
        n_k = \frac{e_p \times e_k}{\sin\theta_k}

    the slopes are

    .. math::
        \frac{\partial U}{\partial r_k} = e_k \cdot G_k, \qquad
        \frac{\partial U}{\partial \theta_k} = -n_k \cdot \tau_k, \qquad
        \frac{\partial U}{\partial \phi_k} = e_p \cdot \tau_k.

    The same as automatic differentiation through the placement, at a third of its time.

    Args:
        coordinates: The internal coordinates.

    References:
        | Rapid calculation of first and second derivatives of conformational energy with respect
          to dihedral angles for proteins (Abe, Braun, Noguti, Go, 1984)
        | https://doi.org/10.1016/0097-8485(84)85015-9
    """

    def __init__(self, coordinates: InternalCoordinates) -> None:
        z, n = coordinates.zmatrix, coordinates.event_shape[0]
        a, b = z.atoms[:2]
        self.n_atoms = n
        self.atoms = torch.tensor(z.atoms[1:])
        self.parents = torch.tensor([z.parent[k] for k in z.atoms[1:]])
        place = {k: i for i, k in enumerate(z.atoms[1:])}
        # The bond before that of a child of A is the first one, backwards
        before = [place[b] if z.parent[k] == a else place[z.parent[k]] for k in z.atoms[2:]]
        self.before = torch.tensor(before)
        sign = [-1.0 if z.parent[k] == a else 1.0 for k in z.atoms[2:]]
        self.sign = torch.tensor(sign, dtype=torch.float32)[:, None]
        beyond = torch.zeros(n - 1, n, dtype=torch.float32)
        for i in range(n):
            k = i
            while k != a:
                beyond[place[k], i] = 1.0
                k = z.parent[k]
        self.beyond = beyond
        tables = coordinates._tables
        rows = torch.cat([torch.zeros(n - 3, 1), torch.eye(n - 3)], 1).double()
        turned = absolute_torsions(rows, tables)
        # [torsion rows, placed atoms]: what a row adds to each absolute torsion
        self.shares = (turned[:, 1:] - turned[:, :1]).T.float().contiguous()

    def __call__(self, y: Tensor, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes of energy and log_det.

        Args:
            y: Coordinates, ``(n, dim)`` float32.
            x: Their positions, ``(n, n_atoms, 3)``, as from `InternalCoordinates.inverse`.
            gradient: Slope of the energy in x, of the same shape.

        Returns:
            Both of shape ``(n, dim)``.
        """
        n = self.n_atoms
        r, theta = y.T[: n - 1], y.T[n - 1 : 2 * n - 3]
        x, g = x.permute(2, 1, 0).contiguous(), gradient.permute(2, 1, 0).contiguous()
        origin = x.index_select(1, self.parents)
        e = (x.index_select(1, self.atoms) - origin) / r
        force = self.beyond @ g
        torque = (self.beyond @ cross(x, g))[:, 1:] - cross(origin[:, 1:], force[:, 1:])
        axis = self.sign * e.index_select(1, self.before)
        sine, cosine = torch.sin(theta), torch.cos(theta)
        by_angle = -(cross(axis, e[:, 1:]) * torque).sum(0) / sine
        by_torsion = self.shares @ (axis * torque).sum(0)
        slope = torch.cat([(e * force).sum(0), by_angle, by_torsion])
        volume = torch.cat([2 / r, cosine / sine, torch.zeros_like(by_torsion)])
        return slope.T.contiguous(), volume.T.contiguous()


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis."""
    (ax, ay, az), (bx, by, bz) = a.unbind(0), b.unbind(0)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
