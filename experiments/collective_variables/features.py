"""Torsions of a molecule that dynamics are looked at through."""

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.geometry import dihedrals
from gencg.molecule import Molecule, Quad
from gencg.systems import System

STRAIGHT = np.radians(170.0)
"""Bond angle of the reference structure from which on an atom ends no torsion."""


def heavy_torsions(molecule: Molecule) -> list[Quad]:
    """All torsions along three bonds between atoms that are no hydrogens."""
    heavy = [symbol != "H" for symbol in molecule.elements]
    around = [[k for k in atoms if heavy[k]] for atoms in molecule.neighbours]
    found = []
    for j, k in molecule.bonds.tolist():
        if heavy[j] and heavy[k]:
            ends = product(around[j], around[k])
            found += [(i, j, k, m) for i, m in ends if i != k and m != j and i != m]
    return [quad for quad in found if not _is_straight(molecule.positions, quad)]


def _is_straight(positions: NDArray[np.float64], quad: Quad) -> bool:
    for i, j, k in (quad[:3], quad[1:]):
        a, b = positions[i] - positions[j], positions[k] - positions[j]
        cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
        if np.arccos(np.clip(cosine, -1, 1)) > STRAIGHT:
            return True
    return False


def soft_torsions(system: System, x: Tensor) -> Tensor:
    """Soft coordinates of positions in rad, ``(n, n_soft)``; rotors of equal atoms folded."""
    coordinates = system.coordinates
    match_labels = getattr(coordinates, "match_labels", None)
    with torch.no_grad():
        y, _ = coordinates.forward(x if match_labels is None else match_labels(x))
    return y[:, coordinates.soft]


def quad_torsions(quads: list[Quad], x: Tensor) -> Tensor:
    """Torsions of quadruples of atoms in rad, ``(n, len(quads))``."""
    return dihedrals(x, torch.tensor(quads, dtype=torch.long).reshape(-1, 4))
