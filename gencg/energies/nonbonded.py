"""Coulomb and Lennard-Jones energy of all pairs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.frame import Frame

COULOMB_CONSTANT = 138.93545764438198
r"""Coulomb's constant :math:`1 / 4 \pi \epsilon_0` in kJ nm/mol/e², as OpenMM has it."""

Array = NDArray[np.float64]


class PairTable(nn.Module):
    r"""Coulomb and Lennard-Jones energy with a table entry for every pair.

    .. math:: U = \sum_{i<j} \frac{k q_{ij}}{r} + \frac{A_{ij}}{r^{12}} - \frac{B_{ij}}{r^6}

    Exceptions (excluded and scaled neighbours), combination rules and pair-specific parameters
    are all in the table, so that there is one loop and no special case.

    Args:
        charges: Products :math:`q_{ij}` in e², symmetric, shape ``(n_atoms, n_atoms)``.
        a: :math:`A_{ij} = 4 \epsilon \sigma^{12}` in kJ/mol nm¹², likewise.
        b: :math:`B_{ij} = 4 \epsilon \sigma^6` in kJ/mol nm⁶, likewise.
    """

    charges: Tensor
    a: Tensor
    b: Tensor

    def __init__(self, charges: Array, *, a: Array, b: Array) -> None:
        super().__init__()
        # Every pair is met twice in the square table; the diagonal is no pair
        half = 0.5 * (1 - np.eye(len(charges)))
        for name, table in (("charges", COULOMB_CONSTANT * charges), ("a", a), ("b", b)):
            self.register_buffer(name, torch.as_tensor(half * table)[:, :, None])

    def forward(self, frame: Frame) -> Tensor:
        inverse = torch.rsqrt(frame.squared_distances)
        r2 = inverse.square()
        r6 = r2 * r2 * r2
        return (self.charges * inverse + r6 * (self.a * r6 - self.b)).sum((0, 1))


def lennard_jones_tables(sigma: Array, epsilon: Array) -> tuple[Array, Array]:
    r"""Tables :math:`4\epsilon\sigma^{12}` and :math:`4\epsilon\sigma^6` by Lorentz-Berthelot."""
    mean = 0.5 * (sigma[:, None] + sigma)
    depth = np.sqrt(epsilon[:, None] * epsilon)
    return 4 * depth * mean**12, 4 * depth * mean**6
