"""What of a molecule is sampled, what is held, and why: a table to read before training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.symmetry import (
    handed_atoms,
    shortest_ring,
    turning_bonds,
)
from gencg.energies.forcefield import ForceField
from gencg.geometry import angles, dihedrals
from gencg.molecule import Molecule
from gencg.systems.base import System

Bond = tuple[int, int]

_NO_SIDE = 150.0
"""Angle in degrees at a multiple bond beyond which it has no sides, as a triple bond."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Name of the coordinate, or of the bond or atom.
        kind: What it is: torsion, rotor, ring, nitrogen, bond, stereocentre, ...
        sampled: Whether it moves between states.
        reason: Why it is sampled or held.
        bond: The two atoms of its axis, where it has one.
    """

    name: str
    kind: str
    sampled: bool
    reason: str
    bond: Bond | None = None


@dataclass(frozen=True)
class Description:
    """A system in words.

    Attributes:
        name: Of the system.
        summary: One line: atoms, bonds, rings, coordinates.
        rows: What is sampled, then what is held.
        notes: What a user should know beside it.
    """

    name: str
    summary: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def sampled(self) -> list[Row]:
        """Rows of what moves between states."""
        return [row for row in self.rows if row.sampled]

    def __str__(self) -> str:
        cells = [("", "coordinate", "kind", "why")]
        n = 0
        for row in self.rows:
            n += row.sampled
            cells.append((str(n) if row.sampled else "-", row.name, row.kind, row.reason))
        widths = [max(len(line[k]) for line in cells) for k in range(3)]
        lines = [
            "  ".join((line[0].rjust(widths[0]), line[1].ljust(widths[1]),
                       line[2].ljust(widths[2]), line[3])).rstrip()
            for line in cells
        ]  # fmt: skip
        return "\n".join([self.summary, "", *lines, "", *self.notes]).rstrip()


def describe_system(system: System) -> Description:
    """What of a system's coordinates is sampled and what is held, with the reason of each.

    Args:
        system: A toy or a molecule in internal coordinates.

    Returns:
        Soft coordinates first, in the order of the decoder; then stiff bonds, rigid rings,
        stereocentres and double bonds that stay as they are, and lengths that are consequences.
    """
    coordinates = system.coordinates
    if system.molecule is None or not isinstance(coordinates, InternalCoordinates):
        names = [n for n, yes in zip(coordinates.names, coordinates.soft, strict=True) if yes]
        rows = [Row(name, "coordinate", True, "all of a toy are sampled") for name in names]
        return Description(system.name, f"{system.name}: {coordinates.dim} coordinates", rows)
    molecule = system.molecule
    barriers = _barriers(system)
    n_soft = int(coordinates.soft.sum())
    n_rings = len(molecule.bonds) - molecule.n_atoms + 1
    heavy = sum(element != "H" for element in molecule.elements)
    summary = (
        f"{system.name}: {molecule.n_atoms} atoms ({heavy} heavy), {len(molecule.bonds)} bonds, "
        f"{n_rings} rings; {coordinates.dim} coordinates, of which {n_soft} are sampled between "
        f"states and {coordinates.dim - n_soft} vibrate around the reference structure"
    )
    rows = [*_soft_rows(coordinates, barriers), *_held_rows(coordinates, barriers)]
    return Description(system.name, summary, rows, _notes(coordinates))


def _barriers(system: System) -> dict[Bond, float]:
    """Torsion barriers in kJ/mol where the energy knows them."""
    molecule, energy = system.molecule, system.energy
    assert molecule is not None
    if not isinstance(energy, ForceField):
        return {}
    bonds = turning_bonds(molecule)
    heights = energy.torsion_barriers(molecule.positions, bonds)
    return dict(zip(bonds, heights.tolist(), strict=True))


def _soft_rows(coordinates: InternalCoordinates, barriers: dict[Bond, float]) -> list[Row]:
    z, molecule = coordinates.zmatrix, coordinates.molecule
    rotor_of = {rotor.atoms[0]: rotor for rotor in coordinates.rotors}
    atom_of = {2 * molecule.n_atoms - 3 + i: k for i, k in enumerate(z.torsion_atoms)}
    rows = []
    for i in coordinates.soft.nonzero()[:, 0].tolist():
        k, name = atom_of[i], coordinates.names[i]
        bond = z.axis(k)
        high = f"barrier of {barriers[bond]:.0f} kJ/mol" if bond in barriers else "bond turns"
        if z.closes[k] >= 0:
            ring = shortest_ring(molecule, z.parent[k], k, z.closes[k])
            reason = f"ring of {len(ring)} puckers"
            rows.append(Row(name, "ring", True, reason, _pair(k, z.parent[k])))
        elif k in rotor_of:
            rotor = rotor_of[k]
            what = "groups" if len(rotor.orbits) > 1 else "atoms"
            reason = f"{high}; {rotor.n} equivalent {what}, folded"
            rows.append(Row(name, "rotor", True, reason, bond))
        elif not z.turns(k):
            reason = "pyramidal nitrogen turns over"
            rows.append(Row(name, "nitrogen", True, reason, _pair(k, z.parent[k])))
        else:
            ring = shortest_ring(molecule, *bond)
            reason = f"ring of {len(ring)} puckers, {high}" if ring else high
            rows.append(Row(name, "ring" if ring else "torsion", True, reason, bond))
    return rows


def _held_rows(coordinates: InternalCoordinates, barriers: dict[Bond, float]) -> list[Row]:
    z, molecule = coordinates.zmatrix, coordinates.molecule
    label = molecule.names
    first = 2 * molecule.n_atoms - 3
    soft = {
        z.axis(k)
        for i, k in enumerate(z.torsion_atoms)
        if coordinates.soft[first + i] and z.turns(k)
    }
    straight = {_pair(*pair) for k in z.atoms if z.linear[k]
                for pair in (z.angle(k)[:2], z.angle(k)[1:])}  # fmt: skip
    rows = []
    for bond in molecule.rotatable_bonds():
        # Torsions reach across straight groups
        if bond not in soft | straight and bond in _turned(coordinates):
            high = barriers.get(bond)
            reason = (
                "flat double or amide bond by its length"
                if high is None
                else f"barrier of {high:.0f} kJ/mol"
            )
            reason = ", ".join(filter(None, (reason, _side(molecule, bond))))
            rows.append(Row(_names(label, bond), "stiff bond", False, reason, bond))
    # Double bonds of small rings cannot turn
    for bond in sorted(b for b in molecule.multiple_bonds() if not _in_small_ring(molecule, b)):
        if bond not in barriers and min(len(molecule.neighbours[i]) for i in bond) > 1:
            reason = _side(molecule, bond) or "marked as such"
            rows.append(Row(_names(label, bond), "multiple bond", False, reason, bond))
    for ring in _rigid_rings(molecule):
        name = "-".join(label[k].split("-")[-1] for k in ring)
        reason = "three atoms cannot pucker" if len(ring) == 3 else "flat, of stiff bonds"
        rows.append(Row(name, f"ring of {len(ring)}", False, reason))
    for atom in _stereocentres(molecule):
        rows.append(Row(label[atom], "stereocentre", False, "hand of the reference is kept"))
    for k in z.atoms:
        if z.linear[k]:
            name = " - ".join(label[i] for i in z.angle(k))
            rows.append(Row(name, "straight angle", False, "bends in two directions"))
    for bond in _consequences(coordinates):
        rows.append(Row(_names(label, bond), "length", False, "follows from the cage", bond))
    return rows


def _notes(coordinates: InternalCoordinates) -> list[str]:
    z, molecule = coordinates.zmatrix, coordinates.molecule
    notes = []
    n_handed = len(handed_atoms(molecule))
    if n_handed:
        notes.append(
            f"Every atom with four neighbours, and pyramidal sulfur and phosphorus ({n_handed} in "
            "all), keeps the hand of the reference; a sample of another hand has weight zero."
        )
    flat = [k for k, near in enumerate(molecule.neighbours)
            if molecule.elements[k] == "N" and len(near) == 3]  # fmt: skip
    turning = {z.parent[k] for k in _turning_over(coordinates)}
    still = [molecule.names[k] for k in flat if k not in turning]
    if still:
        notes.append(
            f"Nitrogen that does not turn over: {', '.join(still)} (flat, NH2, or held by rings)."
        )
    return notes


def _turning_over(coordinates: InternalCoordinates) -> list[int]:
    """Atoms on nitrogen whose torsion relative to another is soft."""
    z, first = coordinates.zmatrix, 2 * coordinates.molecule.n_atoms - 3
    soft = [k for i, k in enumerate(z.torsion_atoms) if coordinates.soft[first + i]]
    return [k for k in soft if not z.turns(k) and z.closes[k] < 0]


def _turned(coordinates: InternalCoordinates) -> set[Bond]:
    """Axes that a torsion of the Z-matrix turns about."""
    z = coordinates.zmatrix
    return {z.axis(k) for k in z.leading} | {_pair(*z.atoms[:2])}


def _rigid_rings(molecule: Molecule) -> list[list[int]]:
    """Shortest rings none of whose bonds turns."""
    turning = set(turning_bonds(molecule))
    found: dict[frozenset[int], list[int]] = {}
    for i, j in molecule.bonds[molecule.ring_bonds].tolist():
        ring = shortest_ring(molecule, i, j)
        bonds = zip(ring, ring[1:] + ring[:1], strict=True)
        if not any(_pair(*bond) in turning for bond in bonds):
            found[frozenset(ring)] = ring
    return list(found.values())


def _in_small_ring(molecule: Molecule, bond: Bond) -> bool:
    return 0 < len(shortest_ring(molecule, *bond)) < 8


def _stereocentres(molecule: Molecule) -> list[int]:
    """Atoms whose hand makes another molecule: four different neighbours, or sides of one ring."""
    found = {atom for atom, _, _ in molecule.stereocentres()}
    classes = molecule.equivalence_classes()
    on_rings: dict[frozenset[int], list[int]] = {}
    for atom, near in enumerate(molecule.neighbours):
        kinds = [int(classes[k]) for k in near]
        twins = [k for k in near if kinds.count(int(classes[k])) == 2]
        if len(near) != 4 or len(twins) != 2 or len(set(kinds)) != 3:
            continue
        if ring := shortest_ring(molecule, twins[0], atom, twins[1]):
            on_rings.setdefault(frozenset(ring), []).append(atom)
    found |= {atom for atoms in on_rings.values() if len(atoms) > 1 for atom in atoms}
    return sorted(found)


def _angle(molecule: Molecule, i: int, j: int, k: int) -> float:
    x = torch.as_tensor(molecule.positions)
    return math.degrees(float(angles(x, torch.tensor([(i, j, k)]))))


def _side(molecule: Molecule, bond: Bond) -> str:
    """Which of the heaviest neighbours are cis or trans, where each end has one; else nothing."""
    ends = []
    for atom, other in (bond, bond[::-1]):
        near = [k for k in molecule.neighbours[atom] if k != other]
        near.sort(key=lambda k: -molecule.masses[k])
        alike = len(near) > 1 and len({int(molecule.equivalence_classes()[k]) for k in near}) == 1
        if not near or alike:
            return ""
        if _angle(molecule, near[0], atom, other) > _NO_SIDE:
            return ""
        ends.append(near[0])
    quad = torch.tensor([(ends[0], *bond, ends[1])])
    angle = float(dihedrals(torch.as_tensor(molecule.positions), quad))
    side = "cis" if abs(angle) < math.pi / 2 else "trans"
    return f"{molecule.names[ends[0]]} and {molecule.names[ends[1]]} stay {side}"


def _consequences(coordinates: InternalCoordinates) -> list[Bond]:
    z = coordinates.zmatrix
    known = {_pair(k, z.parent[k]) for k in z.atoms[1:]}
    known |= {_pair(k, end) for k, end in enumerate(z.closes) if end >= 0}
    bonds: list[list[int]] = coordinates.molecule.bonds.tolist()
    return [(i, j) for i, j in bonds if (i, j) not in known]


def _names(label: Sequence[str], bond: Bond) -> str:
    return f"{label[bond[0]]} - {label[bond[1]]}"


def _pair(i: int, j: int) -> Bond:
    return (min(i, j), max(i, j))
