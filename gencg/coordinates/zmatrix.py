"""The Z-matrix: a spanning tree of the bonds, in which every atom is placed from three others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path

from gencg.molecule import Molecule

_LARGEST_ANGLE = np.radians(170.0)
_SMALLEST_ANGLE = np.radians(10.0)


@dataclass(frozen=True)
class ZMatrix:
    r"""Order of placement and the three atoms that place each atom.

    The root bond A - B lies in the middle. Atom k is placed from its parent p in the tree, its
    grandparent g, and a reference atom that sets the zero of the torsion about p - g: the parent
    of g, or the third atom C where g is A or B. Of the children of p one carries the torsion of
    the axis p - g (``first``) and the others follow it.

    Attributes:
        atoms: All atoms in order of placement: A, B, the atoms with children level by level, then
            the atoms without.
        levels: Atoms with children beyond A and B, by level; a level is placed in one go.
        leaves: Atoms without children, placed in one go at the end.
        parent: Parent of each atom, by atom; -1 for A.
        grandparent: Grandparent by atom (A for children of B, B for children of A); -1 for A, B.
        reference: Reference atom of the torsion, by atom; -1 for A, B and C.
        first: The sibling with the torsion of the axis, by atom (itself if it is that one; C for
            children of B); -1 for A and B.
    """

    atoms: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    leaves: tuple[int, ...]
    parent: tuple[int, ...]
    grandparent: tuple[int, ...]
    reference: tuple[int, ...]
    first: tuple[int, ...]

    @property
    def third(self) -> int:
        """The third atom C, first child of B, whose torsion is zero by definition."""
        return next(k for k in self.atoms[2:] if self.reference[k] < 0)

    @property
    def torsion_atoms(self) -> tuple[int, ...]:
        """Atoms with a torsion, in order of placement: all but A, B and C."""
        return tuple(k for k in self.atoms[2:] if self.reference[k] >= 0)

    @property
    def leading(self) -> tuple[int, ...]:
        """Atoms which carry the torsion of their axis."""
        return tuple(k for k in self.torsion_atoms if self.first[k] == k)

    def axis(self, atom: int) -> tuple[int, int]:
        """The bond i < j about which the torsion of `atom` turns."""
        p, g = self.parent[atom], self.grandparent[atom]
        return (min(p, g), max(p, g))

    def quad(self, atom: int) -> tuple[int, int, int, int]:
        """Atoms of the torsion of `atom`: with its reference, or its leading sibling."""
        leads = self.first[atom] == atom
        last = self.reference[atom] if leads else self.first[atom]
        return (atom, self.parent[atom], self.grandparent[atom], last)


def build_zmatrix(molecule: Molecule) -> ZMatrix:
    """Z-matrix of a connected molecule from its bonds.

    A breadth-first tree from a central bond: few levels, and ring-closing bonds left out. In a
    peptide the root is a backbone bond, so that every backbone torsion appears as itself; the
    torsion of an axis is carried by the backbone, else by the heaviest branch.

    Raises:
        ValueError: If there are fewer than three atoms, or three atoms that place a fourth are
            collinear in the reference structure.
    """
    if molecule.n_atoms < 3:
        raise ValueError(
            f"internal coordinates need at least 3 atoms, got {molecule.n_atoms}; describe a "
            "smaller system with gencg.coordinates.Cartesian"
        )
    a, b = _root_bond(molecule)
    order, children = _tree(molecule, a, b)
    third = children[b][0]
    parent, grandparent, reference, first = ([-1] * molecule.n_atoms for _ in range(4))
    up = [-1] * molecule.n_atoms
    up[a], up[b] = b, a
    for p in order:
        for k in children[p]:
            up[k] = parent[k] = p
            grandparent[k] = up[p]
            reference[k] = third if p in (a, b) else up[up[p]]
            first[k] = children[p][0]
    parent[b], reference[third] = a, -1
    levels, level = [], [*children[a], *children[b]]
    while level:
        if inner := tuple(k for k in level if children[k]):
            levels.append(inner)
        level = [k for p in level for k in children[p]]
    inner_atoms = [k for level in levels for k in level]
    leaves = tuple(k for k in range(molecule.n_atoms) if not children[k] and k not in (a, b))
    zmatrix = ZMatrix(
        (a, b, *inner_atoms, *leaves),
        tuple(levels),
        leaves,
        *map(tuple, (parent, grandparent, reference, first)),
    )
    _check_angles(molecule, zmatrix)
    return zmatrix


def _root_bond(molecule: Molecule) -> tuple[int, int]:
    """The bond from which the farthest atom is nearest, between atoms with other neighbours.

    Backbone bonds go first. It is oriented so that a group of equal terminal atoms (CH3) sits on
    A, where it counts as the rotor of the axis.
    """
    degree = np.array([len(bonded) for bonded in molecule.neighbours])
    i, j = molecule.bonds.T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(molecule.n_atoms, molecule.n_atoms))
    steps = shortest_path(graph, directed=False, unweighted=True)
    nearest = np.minimum(steps[i], steps[j])
    backbone = np.all(np.isin(molecule.bonds, molecule.backbone()), axis=1)
    inner = (degree[i] > 1) & (degree[j] > 1)
    best = min(
        range(len(i)),
        key=lambda n: (not inner[n], not backbone[n], nearest[n].max(), nearest[n].sum(), n),
    )
    a, b = int(i[best]), int(j[best])
    ends = [len(molecule.neighbours[k]) * equal_ends(molecule, k, a + b - k) for k in (a, b)]
    swap = degree[b] == 1 or (ends[1] > ends[0] and degree[a] > 1)
    return (b, a) if swap else (a, b)


def equal_ends(molecule: Molecule, atom: int, other: int) -> bool:
    """Whether the neighbours of `atom` besides `other`, two or more, end the molecule alike.

    Terminal atoms of one element on one atom are equivalent under a graph automorphism.
    """
    ends = [k for k in molecule.neighbours[atom] if k != other]
    kinds = {(molecule.elements[k], len(molecule.neighbours[k])) for k in ends}
    return len(ends) > 1 and len(kinds) == 1 and all(n == 1 for _, n in kinds)


def _tree(molecule: Molecule, a: int, b: int) -> tuple[list[int], list[list[int]]]:
    """Breadth-first order and children of each atom, the one with the torsion in front."""
    children: list[list[int]] = [[] for _ in range(molecule.n_atoms)]
    queue, seen = [b, a], {a, b}
    for p in queue:
        for k in molecule.neighbours[p]:
            if k not in seen:
                seen.add(k)
                queue.append(k)
                children[p].append(k)
    heavy = [int(element != "H") for element in molecule.elements]
    for p in reversed(queue):
        heavy[p] += sum(heavy[k] for k in children[p])
    backbone = set(molecule.backbone())
    for branch in children:
        branch.sort(key=lambda k: (k not in backbone, -heavy[k], k))
    return queue, children


def _check_angles(molecule: Molecule, zmatrix: ZMatrix) -> None:
    for k in zmatrix.atoms[2:]:
        p, g = zmatrix.parent[k], zmatrix.grandparent[k]
        angle = _angle(molecule, (k, p, g))
        if not _SMALLEST_ANGLE < angle < _LARGEST_ANGLE:
            names = " - ".join(molecule.names[i] for i in (k, p, g))
            raise ValueError(
                f"angles must lie between 10 and 170 degrees in the reference structure, got "
                f"{np.degrees(angle):.1f} for {names}; linear groups have no torsion and are not "
                "supported yet"
            )


def _angle(molecule: Molecule, triple: Sequence[int]) -> float:
    i, j, k = molecule.positions[list(triple)]
    return float(np.arctan2(np.linalg.norm(np.cross(i - j, k - j)), np.dot(i - j, k - j)))
