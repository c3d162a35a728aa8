"""Pairs of atoms whose distances describe a molecule."""

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.coordinates.internal import InternalCoordinates
from gencg.molecule import Molecule

FARTHEST = 4
"""Bonds between two atoms from which on their distance is more than one torsion."""
POLAR = ("N", "O", "S")
"""Elements whose hydrogens take part in hydrogen bonds."""
MAX_DISTANCES = 16
"""Most distances that stand for all."""

IntArray = NDArray[np.int64]
Pair = tuple[int, int]


def far_pairs(coordinates: InternalCoordinates, *, polar: bool = False) -> list[Pair]:
    """Pairs of atoms four bonds apart or more; atoms that trade places are left out.

    Args:
        coordinates: Of the molecule.
        polar: Of heavy atoms and hydrogens on nitrogen, oxygen and sulphur; else of heavy ones.
    """
    molecule = coordinates.molecule
    steps = bonds_between(molecule)
    equal = {k for rotor in coordinates.rotors for orbit in rotor.orbits for k in orbit}

    def counts(k: int) -> bool:
        if molecule.elements[k] != "H":
            return True
        return polar and any(molecule.elements[j] in POLAR for j in molecule.neighbours[k])

    atoms = [k for k in range(molecule.n_atoms) if counts(k) and k not in equal]
    return [pair for pair in combinations(atoms, 2) if steps[pair] >= FARTHEST]


def describing_pairs(coordinates: InternalCoordinates, *, n: int = MAX_DISTANCES) -> Tensor:
    """Of these pairs at most `n`, spread over the molecule, ``(d, 2)`` int.

    The first is the one with the most bonds between its atoms, each further one the farthest from
    those before, by the bonds from its atoms to theirs.
    """
    pairs = far_pairs(coordinates)
    if not pairs:
        return torch.zeros(0, 2, dtype=torch.long)
    steps = bonds_between(coordinates.molecule)
    i, j = np.array(pairs).T
    chosen = [int(steps[i, j].argmax())]
    nearest = np.full(len(pairs), np.iinfo(np.int64).max)
    while len(chosen) < min(n, len(pairs)):
        a, b = pairs[chosen[-1]]
        straight, crossed = steps[i, a] + steps[j, b], steps[i, b] + steps[j, a]
        nearest = np.minimum(nearest, np.minimum(straight, crossed))
        chosen.append(int(nearest.argmax()))
    return torch.tensor([pairs[k] for k in sorted(chosen)])


def bonds_between(molecule: Molecule) -> IntArray:
    """Number of bonds on the shortest way between any two atoms, ``(n_atoms, n_atoms)``."""
    steps = np.full((molecule.n_atoms, molecule.n_atoms), molecule.n_atoms, dtype=np.int64)
    for start in range(molecule.n_atoms):
        steps[start, start] = 0
        queue = [start]
        for k in queue:
            for j in molecule.neighbours[k]:
                if steps[start, j] == molecule.n_atoms and j != start:
                    steps[start, j] = steps[start, k] + 1
                    queue.append(j)
    return steps
