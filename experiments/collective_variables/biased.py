"""Variables that are functions of torsions, and dynamics of many replicas under their bias."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from experiments.collective_variables.hills import Axis, Hills
from gencg.energies.base import Energy
from gencg.geometry import dihedrals

Function = Callable[[Tensor], Tensor]


class Variables:
    """Variables z of positions, through torsions.

    Args:
        name: Of a row of the table.
        quads: Atoms of each torsion.
        axes: An axis for each variable.
        function: Differentiable, from torsions ``(n, n_torsions)`` in rad to z ``(n, d)``; None
            where z are the torsions.

    Raises:
        ValueError: If there is no torsion.
    """

    def __init__(
        self,
        name: str,
        quads: Sequence[Sequence[int]],
        axes: Sequence[Axis],
        *,
        function: Function | None = None,
    ) -> None:
        if not quads:
            raise ValueError(f"`quads` of {name} must name the atoms of a torsion, got none")
        self.name, self.axes, self.function = name, tuple(axes), function
        self.quads = torch.tensor([list(quad) for quad in quads], dtype=torch.long)

    def __call__(self, x: Tensor) -> Tensor:
        """Values ``(n, d)`` at positions ``(n, n_atoms, 3)`` in nm."""
        with torch.no_grad():
            torsions = dihedrals(x, self.quads)
            return torsions if self.function is None else self.function(torsions)

    def bias(self, x: Tensor, hills: Hills) -> tuple[Tensor, Tensor]:
        """Bias ``(n,)`` in kJ/mol and its gradient ``(n, n_atoms, 3)`` in kJ/mol/nm."""
        torsions, arms = torsion_slopes(x, self.quads)
        if self.function is None:
            value, slope = hills(torsions)
        else:
            with torch.enable_grad():
                torsions.requires_grad_()
                z = self.function(torsions)
                value, of_z = hills(z.detach())
                (slope,) = torch.autograd.grad(z, torsions, of_z)
        gradient = torch.zeros_like(x)
        pulls = slope[:, :, None, None] * arms
        return value, gradient.index_add_(1, self.quads.flatten(), pulls.flatten(1, 2))


def torsion_slopes(x: Tensor, quads: Tensor) -> tuple[Tensor, Tensor]:
    r"""Torsions ``(n, k)`` and their gradients by their own four atoms ``(n, k, 4, 3)``.

    With :math:`F = x_i - x_j, G = x_j - x_k, H = x_l - x_k, A = F \times G, B = H \times G`

    .. math::
        \nabla_i \phi = -\frac{|G|}{A^2} A, \quad
        \nabla_j \phi = \frac{|G|}{A^2} A + \frac{F \cdot G}{A^2 |G|} A
                        - \frac{H \cdot G}{B^2 |G|} B, \quad
        \nabla_l \phi = \frac{|G|}{B^2} B

    and :math:`\nabla_k` minus the sum of these.

    References:
        | New formulation for derivatives of torsion angles and improper torsion angles in
          molecular mechanics (Blondel, Karplus, 1996)
    """
    i, j, k, last = x[:, quads.T].unbind(1)
    f, g, h = i - j, j - k, last - k
    a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
    length = torch.linalg.vector_norm(g, dim=-1)
    sine = (torch.linalg.cross(b, a) * g).sum(-1) / length
    angle = torch.atan2(sine, (a * b).sum(-1))
    a = a * (1 / (a * a).sum(-1))[..., None]
    b = b * (1 / (b * b).sum(-1))[..., None]
    along = ((f * g).sum(-1) / length)[..., None] * a - ((h * g).sum(-1) / length)[..., None] * b
    a, b = length[..., None] * a, length[..., None] * b
    return angle, torch.stack([-a, a + along, -b - along, b], dim=-2)


class BiasedEnergy(Energy):
    """Potential energy with the bias of each replica; row r of a batch is replica r.

    Args:
        energy: The potential without.
        variables: What is biased.
        hills: The bias.
        every: Steps of dynamics between two kicks of the bias, each as strong as so many: the
            bias is smooth where bonds are stiff. The first call of `energy_and_gradient` has one.

    References:
        | Accurate multiple time step in biased molecular simulations
          (Ferrarotti, Bottaro, Perez-Villa, Bussi, 2015), https://doi.org/10.1021/ct5007086
    """

    def __init__(
        self, energy: Energy, variables: Variables, hills: Hills, *, every: int = 1
    ) -> None:
        super().__init__(energy.event_shape)
        self.unbiased, self.variables, self.hills = energy, variables, hills
        self.every, self.n_steps = every, 0

    def energy(self, x: Tensor) -> Tensor:
        return self.unbiased.energy(x) + self.variables.bias(x, self.hills)[0]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.unbiased.energy_and_gradient(x)
        self.n_steps += 1
        if (self.n_steps - 1) % self.every:
            return value, gradient
        bias, pull = self.variables.bias(x, self.hills)
        return value + bias, gradient.add_(pull, alpha=self.every)


def heavier_hydrogens(masses: Tensor, elements: Sequence[str], neighbours: Sequence[Sequence[int]],
                      *, hydrogen_mass: float | None) -> Tensor:  # fmt: skip
    """Masses with that of the hydrogens raised, taken from the atom each is bonded to.

    Averages of positions stay as they are, and the steps may be longer.

    Raises:
        ValueError: If an atom would be left with no mass.
    """
    masses = torch.as_tensor(masses).clone()
    if hydrogen_mass is None:
        return masses
    for i, element in enumerate(elements):
        if element == "H":
            masses[neighbours[i][0]] -= hydrogen_mass - masses[i]
            masses[i] = hydrogen_mass
    if not bool((masses > 0).all()):
        raise ValueError(
            f"`hydrogen_mass` must leave mass to heavy atoms, got {hydrogen_mass}; 3 suits most"
        )
    return masses
