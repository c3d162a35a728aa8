"""Clashes: atoms far apart along the bonds that sit on top of each other."""

import torch
from torch import Tensor

from gencg.molecule import Molecule

CLOSEST = 0.12
"""Atoms more than three bonds apart are never closer than this (nm) in a molecule at rest."""


def distant_pairs(molecule: Molecule) -> Tensor:
    """Pairs i < j of atoms more than three bonds apart (beyond 1-4), ``(n_pairs, 2)`` int."""
    n = molecule.n_atoms
    bonded = torch.eye(n, dtype=torch.bool)
    i, j = torch.as_tensor(molecule.bonds).unbind(1)
    bonded[i, j] = bonded[j, i] = True
    step = bonded.double()
    near = (step @ step @ step) > 0
    return torch.triu(~near, diagonal=1).nonzero()


def clashes(x: Tensor, pairs: Tensor, *, closest: float = CLOSEST) -> Tensor:
    """Which configurations ``(n, n_atoms, 3)`` have a pair closer than `closest`, ``(n,)`` bool."""
    if not len(pairs):
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    i, j = pairs.to(x.device).unbind(1)
    # In parts: a long chain has many pairs
    parts = [(p[:, i] - p[:, j]).square().sum(-1).amin(-1) for p in torch.split(x, 2000)]
    return torch.cat(parts) < closest**2
