"""The Z-matrix: a spanning tree of the bonds, in which every atom is placed from three others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path

from gencg.molecule import Molecule

Quad = tuple[int, int, int, int]

_SMALLEST_ANGLE, _LARGEST_ANGLE = np.radians(10.0), np.radians(170.0)
_STRAIGHT = np.radians(165.0)


@dataclass(frozen=True)
class ZMatrix:
    r"""Order of placement and the atoms that place each atom.

    The root bond A - B lies in the middle. Atom k is placed from its parent p in the tree, its
    grandparent g, and an atom that sets the zero of the torsion about p - g: the parent of g, or
    the third atom C where g is A or B. Of the children of p one carries the torsion of the axis
    p - g (``first`` is itself) and the others follow it. Two kinds of atoms differ:

    - An atom that **closes** a ring lies at the end of two bonds, to its parent a and to the end
      b of the other branch. It is placed by both lengths and by its dihedral angle about the line
      a - b; what hangs on a, b and on the atom itself is measured from the ring.
    - An atom on a **linear** angle p - g has no torsion, and is placed by two bends of its bond
      against the one before.

    Attributes:
        atoms: All atoms in order of placement: A, B, those that others are placed from, block by
            block, then the rest.
        blocks: Atoms beyond A and B that others are placed from; a block is of one kind and is
            placed in one go.
        leaves: Atoms that no other is placed from, placed in one go at the end.
        parent: Parent of each atom, by atom; -1 for A.
        grandparent: Grandparent by atom (A for children of B, B for children of A); -1 for A, B.
        reference: Atom that the torsion of the axis or of the ring is measured from, or towards
            which the first bend of a linear atom goes, by atom; -1 for A, B and C.
        first: The sibling, ring atom or ring end that the torsion is relative to, by atom (itself
            if it carries the torsion of its axis; C for children of B); -1 for A and B.
        closes: The end b of the second bond of an atom that closes a ring, -1 for others.
        linear: Whether an atom is placed by two bends.
    """

    atoms: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    leaves: tuple[int, ...]
    parent: tuple[int, ...]
    grandparent: tuple[int, ...]
    reference: tuple[int, ...]
    first: tuple[int, ...]
    closes: tuple[int, ...]
    linear: tuple[bool, ...]

    @property
    def third(self) -> int:
        """The third atom C, first child of B, whose torsion is zero by definition."""
        return next(k for k in self.atoms[2:] if self.reference[k] < 0)

    @property
    def torsion_atoms(self) -> tuple[int, ...]:
        """Atoms with a torsion or a second bend, in order of placement: all but A, B and C."""
        return tuple(k for k in self.atoms[2:] if self.reference[k] >= 0)

    @property
    def leading(self) -> tuple[int, ...]:
        """Atoms which carry the torsion of their axis."""
        return tuple(k for k in self.torsion_atoms if self.turns(k))

    @property
    def relative(self) -> tuple[int, ...]:
        """Atoms whose torsion is relative to another neighbour of their parent."""
        return tuple(k for k in self.torsion_atoms if self.first[k] != k)

    @property
    def closing(self) -> tuple[int, ...]:
        """Atoms which close a ring out of a plane: all that do but C."""
        return tuple(k for k in self.torsion_atoms if self.closes[k] >= 0)

    def kind(self, atom: int) -> int:
        """How an atom is placed: 0 by angle and torsion, 1 closing a ring, 2 linear."""
        return _kind(atom in self.closing, self.linear[atom])

    def turns(self, atom: int) -> bool:
        """Whether an atom carries the torsion of its axis."""
        return self.first[atom] == atom and self.closes[atom] < 0 and not self.linear[atom]

    def axis(self, atom: int) -> tuple[int, int]:
        """The bond i < j about which the torsion of `atom` turns."""
        p, g = self.parent[atom], self.grandparent[atom]
        return (min(p, g), max(p, g))

    def quad(self, atom: int) -> Quad:
        """Atoms of the torsion of `atom`.

        With its reference or what it is relative to; about the line through its two ring
        neighbours for one that closes a ring.
        """
        p = self.parent[atom]
        if self.closes[atom] >= 0:
            return (atom, p, self.closes[atom], self.reference[atom])
        last = self.reference[atom] if self.first[atom] == atom else self.first[atom]
        return (atom, p, self.grandparent[atom], last)

    def angle(self, atom: int) -> tuple[int, ...]:
        """Atoms of the second coordinate of `atom`: an angle, or a length that closes a ring."""
        if self.closes[atom] >= 0:
            return (atom, self.closes[atom])
        return (atom, self.parent[atom], self.grandparent[atom])


def build_zmatrix(molecule: Molecule) -> ZMatrix:
    """Z-matrix of a connected molecule from its bonds.

    A breadth-first tree from a central bond: few levels. In a peptide the root is a backbone bond,
    so that every backbone torsion appears as itself; the torsion of an axis is carried by the
    backbone, else by the heaviest branch. Of the two ends of a bond that is not in the tree the
    later one closes the ring. In a cage some bonds remain whose length is a consequence.

    Raises:
        ValueError: If there are fewer than three atoms, no bond can be the root because the
            molecule is straight, or three atoms that place a fourth are collinear in the
            reference structure.
    """
    if molecule.n_atoms < 3:
        raise ValueError(
            f"internal coordinates need at least 3 atoms, got {molecule.n_atoms}; describe a "
            "smaller system with gencg.coordinates.Cartesian"
        )
    tree = _Tree(molecule, *_root_bond(molecule))
    closes = tree.ring_ends()
    while True:
        columns = tree.columns(closes)
        blocks, leaves, stuck = _schedule(tree, columns)
        if not stuck:
            break
        # A cage: one length fewer among the coordinates
        del closes[next(k for k in reversed(tree.order) if k in closes and k in stuck)]
    inner = [k for block in blocks for k in block]
    atoms = (tree.a, tree.b, *inner, *leaves)
    zmatrix = ZMatrix(atoms, blocks, leaves, *columns, linear=tuple(tree.linear))
    _check_angles(molecule, zmatrix)
    return zmatrix


class _Columns(NamedTuple):
    """Columns of a `ZMatrix`, by atom."""

    parent: tuple[int, ...]
    grandparent: tuple[int, ...]
    reference: tuple[int, ...]
    first: tuple[int, ...]
    closes: tuple[int, ...]


class _Tree:
    """Breadth-first tree from a root bond, and what places each atom."""

    def __init__(self, molecule: Molecule, a: int, b: int) -> None:
        self.molecule, self.a, self.b = molecule, a, b
        self.order, self.children = _tree(molecule, a, b)
        self.third = self.children[b][0]
        self.up = [-1] * molecule.n_atoms
        self.up[a], self.up[b] = b, a
        for p in self.order:
            for k in self.children[p]:
                self.up[k] = p
        self.place = {k: i for i, k in enumerate(self.order)}
        self.linear = [
            k not in (a, b) and _straight(molecule, k, self.up[k], self.up[self.up[k]])
            for k in range(molecule.n_atoms)
        ]

    def ring_ends(self) -> dict[int, int]:
        """Atoms that close a ring, with the end of their second bond."""
        closes: dict[int, int] = {}
        for bond in self.molecule.bonds.tolist():
            i, j = sorted(bond, key=self.place.__getitem__)
            if self.up[i] == j or self.up[j] == i:
                continue
            for k, end in ((j, i), (i, j)):
                if k not in closes and self._can_close(k, end):
                    closes[k] = end
                    break
        return closes

    def _can_close(self, k: int, end: int) -> bool:
        if k in (self.a, self.b) or self.linear[k]:
            return False
        if k == self.third:
            return end == self.a
        angle = _angle(self.molecule, (self.up[k], k, end))
        return _SMALLEST_ANGLE < angle < _STRAIGHT and self._ring_reference(k, end) >= 0

    def _ring_reference(self, k: int, end: int) -> int:
        """Atom off the line through the two ring neighbours of `k`, -1 if there is none."""
        a = self.up[k]
        for c in (self.up[a], self.up[end], self.third, self.a, self.b):
            if c not in (k, a, end) and self.up[c] != k:
                angle = _angle(self.molecule, (c, a, end))
                if _SMALLEST_ANGLE < angle < np.pi - _SMALLEST_ANGLE:
                    return c
        return -1

    def columns(self, closes: dict[int, int]) -> _Columns:
        """What places each atom, given those that close a ring and where."""
        n, up = self.molecule.n_atoms, self.up
        # What the torsions of the children of an atom are measured from, where it is in a ring
        ring: dict[int, int] = {}
        for k in self.order:
            if k in closes and k != self.third:
                ring[k] = closes[k]
                ring.setdefault(up[k], k)
                ring.setdefault(closes[k], k)
        parent, grandparent, reference, first = ([-1] * n for _ in range(4))
        toward = [-1] * n  # the atom on whose side the frame of an atom lies
        toward[self.a] = toward[self.b] = self.third
        for p in self.order:
            for k in self.children[p]:
                parent[k], grandparent[k] = p, up[p]
                toward[k] = toward[p] if self.linear[k] else up[p]
                reference[k] = toward[p]
                first[k] = self.children[p][0]
                if k in closes and k != self.third:
                    reference[k], first[k] = self._ring_reference(k, closes[k]), k
                elif self.linear[k]:
                    first[k] = k
                elif p in ring and closes.get(ring[p]) == k:
                    # On B the torsion of the axis is zero by definition, that of C
                    first[k] = first[k] if p == self.b else k
                elif p in ring and k != self.third:
                    reference[k] = first[k] = ring[p]
        parent[self.b], reference[self.third] = self.a, -1
        second = (closes.get(k, -1) for k in range(n))
        return _Columns(*map(tuple, (parent, grandparent, reference, first, second)))


def _schedule(
    tree: _Tree, columns: _Columns
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...], set[int]]:
    """Blocks in order of placement, leaves, and the atoms that wait for each other."""
    parent, _, reference, first, closes = columns
    root, linear = (tree.a, tree.b), tree.linear

    def from_start(k: int) -> bool:
        """Whether an atom is measured from C on A or B, whose frames lie towards C."""
        return reference[k] == tree.third and parent[k] in root

    def needs(k: int) -> Iterator[int]:
        yield parent[k]
        if closes[k] >= 0:
            yield from (j for j in (closes[k], reference[k]) if j >= 0)
        elif linear[k] or (first[k] == reference[k] >= 0 and not from_start(k)):
            yield reference[k]

    needed = {k: set(needs(k)) for k in tree.order if k not in root}
    inner = {j for others in needed.values() for j in others}
    level = {tree.a: 0, tree.b: 0}
    waiting = [k for k in tree.order if k in needed]
    while waiting:
        ready = [k for k in waiting if needed[k] <= level.keys()]
        if not ready:
            return (), (), set(waiting)
        for k in ready:
            level[k] = 1 + max(level[j] for j in needed[k])
        waiting = [k for k in waiting if k not in level]
    # Breadth first, the children of A before those of B
    walk = _walk(tree)
    kinds: dict[tuple[int, int], list[int]] = {}
    leaves = []
    for k in walk:
        kind = _kind(closes[k] >= 0 and k != tree.third, linear[k])
        if k in inner or kind:
            kinds.setdefault((level[k], kind), []).append(k)
        else:
            leaves.append(k)
    blocks = tuple(tuple(kinds[key]) for key in sorted(kinds))
    return blocks, tuple(sorted(leaves)), set()


def _kind(closes: bool, linear: bool) -> int:
    return 1 if closes else 2 if linear else 0


def _walk(tree: _Tree) -> list[int]:
    """All atoms but A and B, level by level."""
    found: list[int] = []
    level = [*tree.children[tree.a], *tree.children[tree.b]]
    while level:
        found += level
        level = [k for p in level for k in tree.children[p]]
    return found


def _straight(molecule: Molecule, i: int, j: int, k: int) -> bool:
    """Whether the angle i - j - k is straight in the reference structure, and j ends there."""
    return len(molecule.neighbours[j]) == 2 and _angle(molecule, (i, j, k)) >= _STRAIGHT


def _root_bond(molecule: Molecule) -> tuple[int, int]:
    """The bond from which the farthest atom is nearest, between atoms with other neighbours.

    Backbone bonds go first. It is oriented so that a group of equal atoms or branches (CH3,
    phenyl) sits on A, where it counts as the rotor of the axis.
    """
    degree = np.array([len(bonded) for bonded in molecule.neighbours])
    i, j = molecule.bonds.T
    graph = csr_matrix((np.ones(len(i)), (i, j)), shape=(molecule.n_atoms, molecule.n_atoms))
    steps = shortest_path(graph, directed=False, unweighted=True)
    nearest = np.minimum(steps[i], steps[j])
    backbone = np.all(np.isin(molecule.bonds, molecule.backbone()), axis=1)
    inner = (degree[i] > 1) & (degree[j] > 1)
    bent = [(_bends(molecule, p, q), _bends(molecule, q, p)) for p, q in molecule.bonds.tolist()]
    best = min(
        range(len(i)),
        key=lambda n: (
            not any(bent[n]), not inner[n], not backbone[n],
            nearest[n].max(), nearest[n].sum(), n,
        ),
    )  # fmt: skip
    if not any(bent[best]):
        raise ValueError(
            f"{molecule!r} is straight, which internal coordinates cannot describe; a molecule "
            "must have an angle below 165 degrees"
        )
    a, b = int(i[best]), int(j[best])
    ends = [len(molecule.neighbours[k]) * _alike(molecule, k, a + b - k) for k in (a, b)]
    swap = not bent[best][0] or (ends[1] > ends[0] and bent[best][1])
    return (b, a) if swap else (a, b)


def _bends(molecule: Molecule, a: int, b: int) -> bool:
    """Whether a third atom on b can set the plane of the root bond a - b."""
    return any(k != a and not _straight(molecule, k, b, a) for k in molecule.neighbours[b])


def _alike(molecule: Molecule, atom: int, other: int) -> bool:
    """Whether the neighbours of `atom` besides `other`, two or more, are equivalent."""
    classes = molecule.equivalence_classes()
    kinds = {int(classes[k]) for k in molecule.neighbours[atom] if k != other}
    return len(molecule.neighbours[atom]) > 2 and len(kinds) == 1


def equal_ends(molecule: Molecule, atom: int, other: int) -> bool:
    """Whether the neighbours of `atom` besides `other`, two or more, end the molecule alike.

    Terminal atoms of one element on one atom are equivalent under a graph automorphism.
    """
    ends = [k for k in molecule.neighbours[atom] if k != other]
    kinds = {(molecule.elements[k], len(molecule.neighbours[k])) for k in ends}
    return len(ends) > 1 and len(kinds) == 1 and all(n == 1 for _, n in kinds)


def _tree(molecule: Molecule, a: int, b: int) -> tuple[list[int], list[list[int]]]:
    """Breadth-first order and children of each atom, the one with the torsion in front.

    A straight group is one step, so that a ring is never left open in the middle of it.
    """
    children: list[list[int]] = [[] for _ in range(molecule.n_atoms)]
    queue, seen = [b, a], {a, b}
    for p in queue:
        for k in molecule.neighbours[p]:
            last = p
            while k not in seen:
                seen.add(k)
                queue.append(k)
                children[last].append(k)
                ends = [j for j in molecule.neighbours[k] if j != last]
                if not ends or not _straight(molecule, last, k, ends[0]):
                    break
                last, k = k, ends[0]
    heavy = [int(element != "H") for element in molecule.elements]
    for p in reversed(queue):
        heavy[p] += sum(heavy[k] for k in children[p])
    backbone = set(molecule.backbone())
    for branch in children:
        branch.sort(key=lambda k: (k not in backbone, -heavy[k], k))
    return queue, children


def _check_angles(molecule: Molecule, zmatrix: ZMatrix) -> None:
    for k in zmatrix.atoms[2:]:
        if zmatrix.closes[k] >= 0 or zmatrix.linear[k]:
            continue
        p, g = zmatrix.parent[k], zmatrix.grandparent[k]
        angle = _angle(molecule, (k, p, g))
        if not _SMALLEST_ANGLE < angle < _LARGEST_ANGLE:
            names = " - ".join(molecule.names[i] for i in (k, p, g))
            raise ValueError(
                f"angles must lie between 10 and 170 degrees in the reference structure, got "
                f"{np.degrees(angle):.1f} for {names}; straight angles are supported at atoms with "
                "two bonds only"
            )


def _angle(molecule: Molecule, triple: Sequence[int]) -> float:
    i, j, k = molecule.positions[list(triple)]
    return float(np.arctan2(np.linalg.norm(np.cross(i - j, k - j)), np.dot(i - j, k - j)))
