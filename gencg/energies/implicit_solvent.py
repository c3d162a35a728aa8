"""Generalised Born solvation: HCT, OBC, GBn and GBn2 with the ACE surface area."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.frame import Frame
from gencg.energies.nonbonded import COULOMB_CONSTANT

Array = NDArray[np.float64]

MINIMUM_INVERSE_RADIUS = 0.01
"""In 1/nm. HCT has no bound of its own and turns negative in impossible geometries."""


@dataclass(frozen=True)
class BornParameters:
    r"""What a generalised Born model takes, arrays of shape ``(n_atoms,)``.

    Args:
        charge: Partial charges in e.
        offset_radius: :math:`\rho_i` = radius less the dielectric offset, in nm.
        scaled_radius: Screened offset radius :math:`s_i` of an atom as a descreener, in nm.
        radius: Intrinsic radius :math:`R_i` in nm.
        tanh: Coefficients of :math:`\psi, \psi^2, \psi^3` inside the tanh, shape
            ``(3, n_atoms)``; None for HCT, which has no tanh.
        neck: Depth and position of the neck integral, two tables ``(n_atoms, n_atoms)``, already
            scaled; None without necks.
        neck_cut: How far beyond contact the neck reaches, in nm.
        buried: Whether an atom inside its descreener gets OBC's correction.
        solute_dielectric: Dielectric constant inside.
        solvent_dielectric: Dielectric constant outside.
        kappa: Inverse Debye length in 1/nm.
        surface_tension: Factor of the ACE surface term in kJ/mol/nm², 0 to leave it out.
        probe: Probe radius of the surface term in nm.
        coulomb: Coulomb's constant in kJ nm/mol/e².
    """

    charge: Array
    offset_radius: Array
    scaled_radius: Array
    radius: Array
    tanh: Array | None = None
    neck: tuple[Array, Array] | None = None
    neck_cut: float = 0.0
    buried: bool = False
    solute_dielectric: float = 1.0
    solvent_dielectric: float = 78.5
    kappa: float = 0.0
    surface_tension: float = 0.0
    probe: float = 0.14
    coulomb: float = COULOMB_CONSTANT


class GeneralizedBorn(nn.Module):
    r"""Generalised Born energy with pairwise descreening.

    .. math::
        I_i &= \sum_{j \ne i} H(r_{ij}; \rho_i, s_j) + \text{neck}_{ij} \\
        1/B_i &= 1/\rho_i - \tanh(\alpha\psi - \beta\psi^2 + \gamma\psi^3)/R_i,
            \quad \psi = I_i \rho_i \\
        U &= -\frac{k}{2} \sum_{ij} \Bigl(\frac{1}{\epsilon_\text{in}}
            - \frac{e^{-\kappa f}}{\epsilon_\text{out}}\Bigr) \frac{q_i q_j}{f},
            \quad f^2 = r^2 + B_i B_j e^{-r^2/4 B_i B_j} \\
        U_\text{ACE} &= \gamma_s \sum_i (R_i + r_\text{probe})^2 (R_i/B_i)^6

    References:
        | Pairwise solute descreening of solute charges from a dielectric medium
          (Hawkins, Cramer, Truhlar, 1995)
        | Exploring protein native states and large-scale conformational changes with a modified
          generalized Born model (Onufriev, Bashford, Case, 2004)
        | Generalized Born model with a simple, robust molecular volume correction
          (Mongan, Simmerling, McCammon, Case, Onufriev, 2007)
        | Improved generalized Born solvent model parameters for protein simulations
          (Nguyen, Roe, Simmerling, 2013)

    Args:
        parameters: See `BornParameters`.
    """

    charge: Tensor
    charges: Tensor
    rho: Tensor
    inverse_rho: Tensor
    inverse_radius: Tensor
    scaled: Tensor
    surface: Tensor
    tanh: Tensor
    neck_depth: Tensor
    neck_position: Tensor
    neck_reach: Tensor
    others: Tensor
    itself: Tensor

    def __init__(self, parameters: BornParameters) -> None:
        super().__init__()
        p = parameters
        itself = np.eye(len(p.charge))
        self.has_tanh, self.has_neck, self.buried = p.tanh is not None, p.neck is not None, p.buried
        self.has_surface, self.kappa = p.surface_tension != 0, p.kappa
        self.inside, self.outside = 1 / p.solute_dielectric, 1 / p.solvent_dielectric
        surface = p.surface_tension * (p.radius + p.probe) ** 2 * p.radius**6
        neck_depth, neck_position = p.neck if p.neck is not None else (itself, itself)
        tables = {
            "charge": p.coulomb**0.5 * p.charge,
            "charges": 0.5 * p.coulomb * p.charge[:, None] * p.charge,
            "rho": p.offset_radius,
            "inverse_rho": 1 / p.offset_radius,
            "inverse_radius": 1 / p.radius,
            "scaled": p.scaled_radius,
            "surface": surface,
            "tanh": p.tanh if p.tanh is not None else np.zeros((3, len(itself))),
            "neck_depth": (1 - itself) * neck_depth,
            "neck_position": neck_position,
            "neck_reach": p.radius[:, None] + p.radius + p.neck_cut,
            "others": 1 - itself,
            "itself": itself,
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.as_tensor(np.array(table, float))[..., None])

    def forward(self, frame: Frame) -> Tensor:
        inverse_born = self.inverse_born_radii(frame)
        born = 1 / inverse_born
        product = born[:, None] * born[None]
        # The diagonal of the distances is 1; r = 0 there makes the self energy one of the pairs
        r2 = frame.squared_distances - self.itself
        f2 = r2 + product * torch.exp(-0.25 * r2 * (inverse_born[:, None] * inverse_born[None]))
        inverse_f = torch.rsqrt(f2)
        screening = self.inside - self.outside * (
            torch.exp(-self.kappa * f2 * inverse_f) if self.kappa else 1.0
        )
        energy = -(screening * self.charges * inverse_f).sum((0, 1))
        if self.has_surface:
            energy = energy + (self.surface * (inverse_born.square() * inverse_born).square()).sum(
                0
            )
        return energy

    def inverse_born_radii(self, frame: Frame) -> Tensor:
        """Inverse Born radii in 1/nm, shape ``(n_atoms, n)``."""
        integral = self.descreening(frame)
        if not self.has_tanh:
            return (self.inverse_rho - integral).clamp_min(MINIMUM_INVERSE_RADIUS)
        psi = integral * self.rho
        alpha, beta, gamma = self.tanh
        argument = psi * (alpha + psi * (beta + psi * gamma))
        return self.inverse_rho - torch.tanh(argument) * self.inverse_radius

    def descreening(self, frame: Frame) -> Tensor:
        """Sum over the other atoms of the descreening integral, ``(n_atoms, n)`` in 1/nm."""
        r2 = frame.squared_distances
        inverse = torch.rsqrt(r2)
        r = r2 * inverse
        rho, scaled = self.rho[:, None], self.scaled[None]
        upper = r + scaled
        touching = upper > rho
        lower = torch.maximum(rho, (r - scaled).abs())
        # Without contact the integral is zero; so it is between equal limits
        upper = torch.where(touching, upper, lower)
        u, l = 1 / upper, 1 / lower  # noqa: E741
        integral = 0.5 * (l - u) + 0.125 * (r - scaled.square() * inverse) * (u * u - l * l)
        integral = integral + 0.25 * torch.log(lower * u) * inverse
        if self.buried:
            inside = rho < scaled - r
            integral = integral + torch.where(inside, self.inverse_rho[:, None] - l, 0.0)
        total = (torch.where(touching, integral, 0.0) * self.others).sum(1)
        return total + self.necks(r) if self.has_neck else total

    def necks(self, r: Tensor) -> Tensor:
        """Sum over the other atoms of the neck integral, ``(n_atoms, n)`` in 1/nm."""
        d2 = (r - self.neck_position).square()
        neck = self.neck_depth / (1 + 100 * d2 + 3e5 * d2 * d2 * d2)
        return torch.where(r < self.neck_reach, neck, 0.0).sum(1)
