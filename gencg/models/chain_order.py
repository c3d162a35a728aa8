"""Where coordinates sit along a molecule: one number each, near for neighbours by bonds."""

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.molecule import Molecule


def chain_positions(coordinates: CoordinateMap) -> Tensor:
    """Place of each coordinate along the molecule, ``(dim,)`` float64.

    For internal coordinates the mean rank of the two to four atoms of a coordinate in
    `cuthill_mckee`; for other maps, which know no bonds, their number.
    """
    if not isinstance(coordinates, InternalCoordinates):
        return torch.arange(coordinates.dim, dtype=torch.float64)
    z = coordinates.zmatrix
    atoms: list[tuple[int, ...]] = [(k, z.parent[k]) for k in z.atoms[1:]]
    atoms += [z.angle(k) for k in z.atoms[2:]]
    atoms += [z.quad(k) for k in z.torsion_atoms]
    rank = cuthill_mckee(coordinates.molecule)
    means = [sum(rank[i] for i in group) / len(group) for group in atoms]
    return torch.tensor(means, dtype=torch.float64)


def cuthill_mckee(molecule: Molecule) -> list[int]:
    """Rank of each atom in an order that keeps bonded atoms near each other.

    Breadth first from an atom at an end, neighbours of low degree first. In a chain the ranks of
    bonded atoms differ by at most the number of atoms at two adjacent distances from the end,
    whatever its length.

    References:
        | Reducing the bandwidth of sparse symmetric matrices (Cuthill, McKee, 1969)
        | An algorithm for reducing the bandwidth and profile of a sparse matrix (Gibbs, Poole,
          Stockmeyer, 1976): an end is what is farthest from what is farthest from anywhere
    """
    order = _breadth_first(molecule, 0)
    order = _breadth_first(molecule, order[-1])
    order = _breadth_first(molecule, order[-1])
    rank = [0] * molecule.n_atoms
    for place, atom in enumerate(order):
        rank[atom] = place
    return rank


def _breadth_first(molecule: Molecule, start: int) -> list[int]:
    neighbours = molecule.neighbours
    order, seen = [start], {start}
    for atom in order:
        new = sorted(set(neighbours[atom]) - seen, key=lambda k: (len(neighbours[k]), k))
        seen.update(new)
        order += new
    return order
