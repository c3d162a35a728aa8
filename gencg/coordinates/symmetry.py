"""What a labelled molecule keeps and what it repeats: handedness, flat bonds, symmetric rotors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from gencg.coordinates.zmatrix import ZMatrix, equal_ends
from gencg.geometry import dihedrals
from gencg.molecule import Molecule

# Longest bonds, in nm, that count as double or amide between two flat atoms
_FLAT_BONDS = {"CC": 0.1410, "CN": 0.1400, "NN": 0.1350}
NEARLY_FLAT = 340.0
"""Sum of the angles of nitrogen with two equal ends, in degrees, from which on it turns over."""
_BENT_BONDS = {"CC": 0.1390, "CN": 0.1330, "NN": 0.1300}


@dataclass(frozen=True)
class Rotor:
    r"""Equivalent groups around a soft axis, n-fold symmetric.

    Single atoms (CH3, NH3+, CF3, COO-) or whole branches (tert-butyl, the two sides of a phenyl).

    Attributes:
        orbits: Atoms that trade places, n each, in the cyclic order of the reference structure
            (rising torsion); first the atoms next to the axis, the one that carries the torsion
            of the axis in front.
        axis: The two atoms of the axis, the one that holds the rotor in front.
    """

    orbits: tuple[tuple[int, ...], ...]
    axis: tuple[int, int]

    @property
    def atoms(self) -> tuple[int, ...]:
        """The n atoms next to the axis."""
        return self.orbits[0]

    @property
    def n(self) -> int:
        """Order of the rotor: 2 or 3 in most molecules."""
        return len(self.atoms)


def find_rotors(
    molecule: Molecule, zmatrix: ZMatrix, soft: set[tuple[int, int]]
) -> tuple[Rotor, ...]:
    r"""Rotors on the soft bonds: ends whose substituents are equivalent.

    They must be spread evenly, within 30 degrees of multiples of :math:`2\pi/n`: turning the two
    hydrogens of a pyramidal NH2 by half a circle swaps them only together with an inversion, so
    it is no rotor. Branches of several atoms must be carried onto each other by a symmetry of the
    bonds that leaves the rest of the molecule and every hand as they are.
    """
    found = []
    classes = molecule.equivalence_classes()
    for k in zmatrix.leading:
        p, g = zmatrix.parent[k], zmatrix.grandparent[k]
        ends = [k, *(j for j in molecule.neighbours[p] if j not in (k, g))]
        alike = len(ends) > 1 and len({int(classes[j]) for j in ends}) == 1
        if zmatrix.axis(k) not in soft or not alike:
            continue
        if any(zmatrix.first[j] != k for j in ends[1:]):
            continue
        quads = torch.tensor([(j, p, g, zmatrix.reference[k]) for j in ends])
        torsion = dihedrals(torch.as_tensor(molecule.positions), quads).numpy()
        turned = np.mod(torsion - torsion[0] + 1e-9, 2 * np.pi)
        order = np.argsort(turned)
        uneven = turned[order] - 2 * np.pi * np.arange(len(ends)) / len(ends)
        if np.abs(uneven).max() >= np.pi / 6:
            continue
        heads = tuple(ends[i] for i in order)
        orbits = (heads,) if equal_ends(molecule, p, g) else _orbits(molecule, heads, p, g, classes)
        if orbits:
            found.append(Rotor(orbits, (p, g)))
    return tuple(found)


def _orbits(
    molecule: Molecule, heads: tuple[int, ...], p: int, g: int, classes: np.ndarray
) -> tuple[tuple[int, ...], ...]:
    """Atoms of the branches at p that trade places, none if the branches are no copies."""
    others = [_matched(molecule, heads[0], head, p, g, classes) for head in heads[1:]]
    if any(other is None for other in others):
        return ()
    branch = [k for k in others[0] or {} if (others[0] or {})[k] != k]
    orbits = tuple((k, *((other or {}).get(k, -1) for other in others)) for k in branch)
    moved = [k for orbit in orbits for k in orbit]
    if len(set(moved)) < len(moved):
        return ()
    image = list(range(molecule.n_atoms))
    for orbit in orbits:
        for k, to in zip(orbit, orbit[1:] + orbit[:1], strict=True):
            image[k] = to
    bonds = {(i, j) for i, j in molecule.bonds.tolist()}
    if {tuple(sorted((image[i], image[j]))) for i, j in bonds} != bonds:
        return ()
    groups = torch.tensor(handed_atoms(molecule), dtype=torch.long).reshape(-1, 4)
    x = torch.as_tensor(molecule.positions)
    hands = signed_volumes(x, groups).sign()
    return orbits if bool((signed_volumes(x[image], groups).sign() == hands).all()) else ()


def _matched(
    molecule: Molecule, head: int, other: int, p: int, g: int, classes: np.ndarray
) -> dict[int, int] | None:
    """Atom of the branch at `other` for each of the branch at `head`, from the bonds outwards.

    Neighbours of one class are paired by their torsions. Atoms that both branches share, as in a
    ring, are their own partners.
    """
    came = {head: (p, g), other: (p, g)}
    partner, queue = {head: other}, [head]
    for u in queue:
        v = partner[u]
        if u == v:
            continue
        sides = [[k for k in molecule.neighbours[w] if k != came[w][0]] for w in (u, v)]
        for label in {int(classes[k]) for k in sides[0] + sides[1]}:
            left, right = ([k for k in side if classes[k] == label] for side in sides)
            if len(left) != len(right):
                return None
            for k, to in _paired(molecule, (u, *came[u]), left, (v, *came[v]), right):
                if partner.setdefault(k, to) != to:
                    return None
                if k not in came:
                    queue.append(k)
                came.setdefault(k, (u, came[u][0]))
                came.setdefault(to, (v, came[v][0]))
    return partner


def _paired(
    molecule: Molecule,
    at: tuple[int, int, int],
    left: list[int],
    to: tuple[int, int, int],
    right: list[int],
) -> list[tuple[int, int]]:
    """Neighbours of two atoms paired so that their torsions about the bonds before agree best."""
    if len(left) < 2:
        return list(zip(left, right, strict=True))
    x = torch.as_tensor(molecule.positions)
    sides = []
    for atoms, end in ((left, at), (right, to)):
        torsion = dihedrals(x, torch.tensor([(k, *end) for k in atoms])).numpy()
        order = np.argsort(torsion)
        sides.append(([atoms[i] for i in order], torsion[order]))
    (left, ours), (right, theirs) = sides
    shifts = range(len(left))
    misfit = [float(np.cos(ours - np.roll(theirs, -shift)).sum()) for shift in shifts]
    best = int(np.argmax(misfit))
    return list(zip(left, right[best:] + right[:best], strict=True))


def relabelled(x: Tensor, copies: Tensor, rotors: tuple[Rotor, ...]) -> Tensor:
    """Positions with the atoms of each rotor relabelled cyclically.

    Atom j of an orbit takes the place of its atom j + copies, which turns the rotor by
    ``copies`` times 2 pi / n and leaves every symmetric energy as it is.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``.
        copies: Integers, shape ``(*batch, n_rotors)``.
        rotors: The rotors, no atom in two of them (`disjoint`).
    """
    if not rotors:
        return x
    orbits = [(n, orbit) for n, rotor in enumerate(rotors) for orbit in rotor.orbits]
    atoms = torch.tensor([i for _, orbit in orbits for i in orbit], device=x.device)
    owner = torch.tensor([n for n, orbit in orbits for _ in orbit]).to(x.device)
    place = torch.tensor([j for _, orbit in orbits for j in range(len(orbit))], device=x.device)
    order = torch.tensor([rotor.n for rotor in rotors], device=x.device)[owner]
    begin = torch.arange(len(atoms), device=x.device) - place
    return _taken(x, atoms, atoms[begin + (place + copies[..., owner]) % order])


def disjoint(rotors: Sequence[Rotor], quads: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of the rotors in groups, from the root outwards, that do not touch each other.

    A rotor that carries another, or an atom that the torsion of another is measured from, comes
    before it.

    Args:
        rotors: In order of placement.
        quads: Atoms of the torsion of each.
    """
    groups: list[list[int]] = []
    moved: set[int] = set()
    for n, rotor in enumerate(rotors):
        atoms = {k for orbit in rotor.orbits for k in orbit}
        if groups and not moved & (atoms | set(quads[n])):
            groups[-1].append(n)
            moved |= atoms
        else:
            groups.append([n])
            moved = atoms
    return groups


def swapped(x: Tensor, pairs: Tensor, where: Tensor) -> Tensor:
    """Positions with the atoms of each pair ``(n, 2)`` swapped `where`, ``(*batch, n)`` bool."""
    i, j = pairs.to(x.device).unbind(1)
    source = torch.cat([torch.where(where, j, i), torch.where(where, i, j)], -1)
    return _taken(x, torch.cat([i, j]), source)


def _taken(x: Tensor, atoms: Tensor, source: Tensor) -> Tensor:
    """Positions with those of `atoms` taken from `source`, ``(*batch, len(atoms))``."""
    every = torch.arange(x.shape[-2], device=x.device).expand(x.shape[:-1])
    every = every.index_copy(-1, atoms, source)
    return x.gather(-2, every[..., None].expand(x.shape))


def equivalent_pair(molecule: Molecule, atoms: Sequence[int]) -> tuple[int, int] | None:
    """Two of the neighbours of an atom that are terminal and of one element, if there are."""
    ends = [k for k in atoms if len(molecule.neighbours[k]) == 1]
    pairs = [p for p in combinations(ends, 2) if len({molecule.elements[k] for k in p}) == 1]
    return pairs[-1] if pairs else None


def signed_volumes(x: Tensor, quads: Tensor) -> Tensor:
    r"""Volumes :math:`(a - d) \cdot (b - d) \times (c - d)`, which change sign on reflection.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``, in nm.
        quads: Atom indices (a, b, c, d), shape ``(n, 4)``.

    Returns:
        Shape ``(*batch, n)``, in nm^3.
    """
    a, b, c, d = (x[..., i, :] for i in quads.unbind(1))
    volumes: Tensor = ((a - d) * torch.linalg.cross(b - d, c - d)).sum(-1)
    return volumes


def handed_atoms(molecule: Molecule) -> list[tuple[int, ...]]:
    """Four atoms, in or around each atom that keeps its hand, whose volume has a fixed sign.

    The neighbours of an atom with four of them; the three neighbours and the atom itself for a
    pyramidal sulfur or phosphorus. Flat atoms have no hand, and amines invert.
    """
    groups: list[tuple[int, ...]] = []
    for atom, bonded in enumerate(molecule.neighbours):
        if len(bonded) == 4:
            groups.append(bonded)
        elif len(bonded) == 3 and molecule.elements[atom] in ("S", "P"):
            groups.append((*bonded, atom))
    x = torch.as_tensor(molecule.positions)
    volumes = signed_volumes(x, torch.tensor(groups, dtype=torch.long).reshape(-1, 4))
    return [group for group, v in zip(groups, volumes.tolist(), strict=True) if abs(v) > 1e-4]


def turning_bonds(molecule: Molecule) -> list[tuple[int, int]]:
    """Bonds about which the molecule may turn: the rotatable ones and those of rings that pucker.

    Amides and double bonds outside rings are among them (`Molecule.rotatable_bonds`).
    """
    return sorted([*molecule.rotatable_bonds(), *puckering_bonds(molecule)])


def planar_bonds(molecule: Molecule) -> list[tuple[int, int]]:
    """Acyclic double and amide bonds, read from the reference structure.

    Short for their elements (C, N), with flat ends, and with the neighbours on either side in
    one plane to 35 degrees. A force field's own barriers are a better judge where they are known.
    """
    return [bond for bond in molecule.rotatable_bonds() if _is_planar(molecule, *bond)]


def puckering_bonds(molecule: Molecule) -> list[tuple[int, int]]:
    """Bonds of rings about which a ring can pucker, read from the reference structure.

    In rings of four atoms or more: those that are neither marked as multiple nor planar
    (`planar_bonds`), and belong to no flat ring without sp3 atoms.
    """
    marked = molecule.multiple_bonds()
    found = []
    for i, j in molecule.bonds[molecule.ring_bonds].tolist():
        ring = shortest_ring(molecule, i, j)
        rigid = len(ring) < 4 or (i, j) in marked or _is_planar(molecule, i, j)
        if not rigid and not _is_flat(molecule, ring):
            found.append((i, j))
    return found


def shortest_ring(molecule: Molecule, *path: int) -> list[int]:
    """Atoms of the shortest ring along two or three bonded atoms, in order; empty without one."""
    first, last, barred = path[-1], path[0], set(path[1:-1])
    came = {first: -1}
    queue = [first]
    for atom in queue:
        for k in molecule.neighbours[atom]:
            bond_itself = len(path) == 2 and {atom, k} == set(path)
            if k in came or k in barred or bond_itself:
                continue
            came[k] = atom
            queue.append(k)
    if last not in came:
        return []
    ring = [last]
    while ring[-1] != first:
        ring.append(came[ring[-1]])
    return [*ring, *reversed(path[1:-1])]


def inverting_atoms(molecule: Molecule) -> list[int]:
    """Nitrogen atoms with three neighbours that can pass through their plane to the other side.

    Pyramidal in the reference structure. One whose two hydrogens are equivalent has the same
    structure on the other side, and counts only where it is nearly flat. In a ring of three, and in
    the corner of a cage, where any two bonds are in a ring of up to eight atoms, it stays.
    """
    found = []
    for atom, total in _nitrogens(molecule):
        bonded = molecule.neighbours[atom]
        least = NEARLY_FLAT if equivalent_pair(molecule, bonded) else 0.0
        rings = [shortest_ring(molecule, i, atom, j) for i, j in combinations(bonded, 2)]
        caged = all(0 < len(ring) <= 8 for ring in rings)
        strained = any(len(ring) == 3 for ring in rings)
        if least < total < 355.0 and not caged and not strained:
            found.append(atom)
    return found


def mirrored_atoms(molecule: Molecule) -> list[int]:
    """Nitrogen of aliphatic amines, beyond whose plane is the same structure, two labels swapped.

    With two equal ends on a carbon of four neighbours. What is conjugated, as in aniline, crosses
    its plane too easily to be held on one side.
    """
    found = []
    for atom, total in _nitrogens(molecule):
        bonded = molecule.neighbours[atom]
        pair = equivalent_pair(molecule, bonded)
        rest = set(bonded) - set(pair or ())
        aliphatic = any(
            molecule.elements[k] == "C" and len(molecule.neighbours[k]) == 4 for k in rest
        )
        if pair and aliphatic and total <= NEARLY_FLAT:
            found.append(atom)
    return found


def _nitrogens(molecule: Molecule) -> list[tuple[int, float]]:
    """Nitrogen atoms with three neighbours, and the sum of their angles in degrees."""
    found = []
    for atom, bonded in enumerate(molecule.neighbours):
        if molecule.elements[atom] != "N" or len(bonded) != 3:
            continue
        arms = molecule.positions[list(bonded)] - molecule.positions[atom]
        arms /= np.linalg.norm(arms, axis=1, keepdims=True)
        cosines = np.clip((arms @ arms.T)[np.triu_indices(3, 1)], -1, 1)
        found.append((atom, float(np.degrees(np.arccos(cosines)).sum())))
    return found


def _is_planar(molecule: Molecule, i: int, j: int) -> bool:
    kind = "".join(sorted(molecule.elements[i] + molecule.elements[j]))
    ends = [len(molecule.neighbours[i]), len(molecule.neighbours[j])]
    if kind not in _FLAT_BONDS or max(ends) > 3:
        return False
    longest = _FLAT_BONDS[kind] if min(ends) == 3 else _BENT_BONDS[kind]
    length = np.linalg.norm(molecule.positions[i] - molecule.positions[j])
    return bool(length <= longest and _twist(molecule, i, j) < np.sin(np.radians(35.0)))


def _is_flat(molecule: Molecule, ring: Sequence[int]) -> bool:
    """Whether no atom of a ring has four neighbours and all its torsions are below 15 degrees."""
    if max(len(molecule.neighbours[k]) for k in ring) > 3:
        return False
    n = len(ring)
    quads = torch.tensor([[ring[(k + step) % n] for step in range(4)] for k in range(n)])
    return bool(dihedrals(torch.as_tensor(molecule.positions), quads).abs().max() < math.pi / 12)


def _twist(molecule: Molecule, i: int, j: int) -> float:
    """Largest |sin| of the dihedral angles about i - j."""
    x = molecule.positions
    axis = (x[j] - x[i]) / np.linalg.norm(x[j] - x[i])

    def sides(atom: int, other: int) -> np.ndarray:
        arms = np.array([x[k] - x[atom] for k in molecule.neighbours[atom] if k != other])
        arms = arms - np.outer(arms @ axis, axis)
        return np.asarray(arms / np.linalg.norm(arms, axis=1, keepdims=True))

    crossed = np.cross(sides(i, j)[:, None], sides(j, i)[None])
    return float(np.linalg.norm(crossed, axis=-1).max())
