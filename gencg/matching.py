"""Which atom of a trajectory is which atom of a molecule: by names, elements and bonds."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("gencg")

LONGEST_BOND = 0.3
"""A bond longer than this (nm) means a molecule cut by its unit cell."""
_ALIASES = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "HIS"),
    **{"CYX": "CYS", "CYM": "CYS", "ASH": "ASP", "GLH": "GLU", "LYN": "LYS", "NMA": "NME"},
}

Colours = list[int]


class Atoms:
    """Names, elements, residues and bonds of some atoms of an MDTraj topology, counted from 0.

    Args:
        topology: The topology.
        index: Which of its atoms, all by default.
    """

    def __init__(self, topology: Any, index: Sequence[int] | None = None) -> None:
        self.topology = topology
        self.index = list(range(topology.n_atoms)) if index is None else list(index)
        self.atoms = [topology.atom(i) for i in self.index]

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def elements(self) -> list[str]:
        """Element symbols."""
        return [a.element.symbol if a.element else "VS" for a in self.atoms]

    @cached_property
    def residues(self) -> list[str]:
        """Names of the residues, in order, under their common name."""
        return [_common(r.name) for r in self._residues]

    @cached_property
    def keys(self) -> list[tuple[int, str]]:
        """Position of the residue among these, and name, of each atom."""
        place = {r.index: n for n, r in enumerate(self._residues)}
        return [(place[a.residue.index], a.name.upper()) for a in self.atoms]

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """Bonded atoms of each atom."""
        place = {i: n for n, i in enumerate(self.index)}
        bonded: list[set[int]] = [set() for _ in self.index]
        for bond in self.topology.bonds:
            i, j = (place.get(bond[k].index, -1) for k in (0, 1))
            if min(i, j) >= 0:
                bonded[i].add(j)
                bonded[j].add(i)
        return [sorted(others) for others in bonded]

    @cached_property
    def bonds(self) -> set[tuple[int, int]]:
        """Bonded pairs i < j."""
        return {(i, j) for i, others in enumerate(self.neighbours) for j in others if i < j}

    @property
    def formula(self) -> str:
        """Such as "C6H12N2O2 (ACE-ALA-NME)"."""
        counts = Counter(self.elements)
        order = sorted(counts, key=lambda e: ("CH".find(e) % 3, e))
        text = "".join(f"{e}{counts[e] if counts[e] > 1 else ''}" for e in order)
        residues = [r.name for r in self._residues]
        shown = residues if len(residues) < 6 else [*residues[:3], "...", residues[-1]]
        return f"{text} ({'-'.join(shown)})"

    def components(self) -> list["Atoms"]:
        """Parts that hang together by bonds."""
        seen: set[int] = set()
        parts = []
        for start in range(len(self)):
            if start in seen:
                continue
            queue = [start]
            seen.add(start)
            for i in queue:
                new = [j for j in self.neighbours[i] if j not in seen]
                seen.update(new)
                queue.extend(new)
            parts.append(Atoms(self.topology, sorted(self.index[i] for i in queue)))
        return parts

    def windows(self, residues: Sequence[str]) -> list["Atoms"]:
        """Atoms of each run of residues with these names."""
        n, names = len(residues), self.residues
        members: dict[int, list[int]] = {}
        for a in self.atoms:
            members.setdefault(a.residue.index, []).append(a.index)
        found = []
        for start in range(len(names) - n + 1):
            if names[start : start + n] == list(residues):
                run = self._residues[start : start + n]
                found.append(Atoms(self.topology, sorted(i for r in run for i in members[r.index])))
        return found

    @cached_property
    def _residues(self) -> list[Any]:
        return sorted({a.residue.index: a.residue for a in self.atoms}.values(), key=_number)


def match_positions(topology: Any, trajectory: Any) -> NDArray[np.float64]:
    """Positions ``(n_frames, n_atoms, 3)`` in nm of a trajectory, in the order of `topology`.

    Args:
        topology: MDTraj topology of the molecule.
        trajectory: MDTraj trajectory of it, in any order of atoms, with or without others.

    Raises:
        ValueError: If the trajectory has no frames, is not of this molecule (`match_atoms`), is
            not finite, or cut by its unit cell.
    """
    if not hasattr(trajectory, "topology") or not hasattr(trajectory, "xyz"):
        raise ValueError(
            f"`trajectory` must be an MDTraj trajectory, got {type(trajectory).__name__}; "
            "load it with mdtraj.load"
        )
    index = match_atoms(topology, trajectory.topology)
    xyz: NDArray[np.float64] = np.asarray(trajectory.xyz[:, index], dtype=np.float64)
    if not len(xyz):
        raise ValueError("`trajectory` has no frames")
    bad = np.argwhere(~np.isfinite(xyz).all(-1))
    if len(bad):
        frame, atom = bad[0]
        raise ValueError(
            f"`trajectory` must be finite, got {xyz[frame, atom].tolist()} at frame {frame}, atom "
            f"{topology.atom(atom)}; leave the frame out"
        )
    pairs = np.array(sorted(Atoms(topology).bonds), dtype=np.int64).reshape(-1, 2)
    lengths = np.linalg.norm(xyz[:, pairs[:, 0]] - xyz[:, pairs[:, 1]], axis=-1)
    if (lengths > LONGEST_BOND).any():
        frame, bond = np.argwhere(lengths > LONGEST_BOND)[0]
        i, j = (topology.atom(k) for k in pairs[bond])
        cure = (
            "the molecule is cut by the unit cell: call trajectory.make_molecules_whole() or "
            "image_molecules()"
            if trajectory.unitcell_lengths is not None
            else "give positions in nm and the molecule whole (image_molecules() with a unit cell)"
        )
        raise ValueError(
            f"`trajectory` frame {frame}: bond {i} - {j} is {lengths[frame, bond]:.2f} nm long, "
            f"over {LONGEST_BOND} nm; {cure}"
        )
    return xyz


def match_atoms(topology: Any, other: Any) -> NDArray[np.int64]:
    """Number in `other` of each atom of `topology`, both MDTraj topologies.

    The molecule is found among the parts of `other` by its composition, its residues told apart
    by their order. Atoms go by residue and name; where names differ (other programs number
    hydrogens otherwise), by the bonds: colour refinement from elements and from the names that
    agree. Equal terminal atoms on one atom, such as the hydrogens of a CH2, are then taken in the
    order of their names; `InternalCoordinates.match_labels` gives them the right hand.

    Raises:
        ValueError: If `other` holds another molecule, lacks hydrogens, holds the molecule more
            than once, or leaves open which atom is which.
    """
    own = Atoms(topology)
    part = _find(own, Atoms(other))
    if len(part) < other.n_atoms:
        rest = set(range(other.n_atoms)) - set(part.index)
        kinds = sorted({other.atom(i).residue.name for i in rest})
        logger.info(
            "matched the molecule's %d of %d atoms of the trajectory; left out: %s",
            len(part),
            other.n_atoms,
            ", ".join(kinds[:6]),
        )
    ambiguous: list[int] = []
    for anchors in _anchors(own, part):
        if len(set(anchors.values())) == len(own):
            matched = [anchors[i] for i in range(len(own))]
        else:
            found = _by_bonds(own, part, anchors)
            if isinstance(found, int):
                ambiguous += [found] * (found >= 0)
                continue
            matched = found
        if _same_bonds(own, part, matched):
            return np.array([part.index[j] for j in matched], dtype=np.int64)
    if ambiguous:
        raise ValueError(
            f"atoms cannot be told apart by bonds: {own.atoms[ambiguous[0]]} and its like have "
            "other names in `trajectory`; name its atoms as in the molecule"
        )
    raise ValueError(_unlike(own, part))


def _find(own: Atoms, other: Atoms) -> Atoms:
    """The part of `other` that has the composition of the molecule."""
    wanted = Counter(own.elements)
    windows = other.windows(own.residues)
    for stage in range(3):
        # Components only where residues do not help: a box of water has many
        parts = windows if stage == 0 else other.components() if stage == 1 else [other]
        same = [part for part in parts if Counter(part.elements) == wanted]
        if len(same) > 1:
            raise ValueError(
                f"`trajectory` holds the molecule {len(same)} times; keep one with "
                "trajectory.atom_slice"
            )
        if same:
            return same[0]
    # None: say what is there instead
    part = windows[0] if windows else max(other.components(), key=len)
    if len(part) == 1:
        part = other
    missing = wanted - Counter(part.elements)
    if set(missing) == {"H"} and not Counter(part.elements) - wanted:
        names = set(part.keys)
        lost = [a for a, key in zip(own.atoms, own.keys, strict=True) if key not in names]
        lost = [a for a in lost if a.element.symbol == "H"] or lost
        raise ValueError(
            f"`trajectory` lacks {missing['H']} of the {wanted['H']} hydrogens, such as "
            f"{lost[0]}; all atoms are needed: write the trajectory with them"
        )
    raise ValueError(
        f"`trajectory` is not of this molecule: it holds {part.formula}, the molecule is "
        f"{own.formula}; load a trajectory of the molecule"
    )


def _anchors(own: Atoms, part: Atoms) -> Iterator[dict[int, int]]:
    """Atoms to trust by their names: all that agree, the heavy ones, none."""
    if own.residues == part.residues and len(set(part.keys)) == len(part):
        place = {key: j for j, key in enumerate(part.keys)}
        named = {i: place[key] for i, key in enumerate(own.keys) if key in place}
        named = {i: j for i, j in named.items() if own.elements[i] == part.elements[j]}
        yield named
        yield {i: j for i, j in named.items() if own.elements[i] != "H"}
    yield {}


def _by_bonds(own: Atoms, part: Atoms, anchors: dict[int, int]) -> list[int] | int:
    """Match from anchors and bonds; else an atom that is ambiguous, or -1 where none fits."""
    first: list[Colours] = [[0] * len(own), [0] * len(part)]
    kinds = {e: n for n, e in enumerate(sorted(set(own.elements)))}
    for colours, atoms in zip(first, (own, part), strict=True):
        colours[:] = [kinds[e] for e in atoms.elements]
    for n, (i, j) in enumerate(anchors.items()):
        first[0][i] = first[1][j] = len(kinds) + n
    mine, theirs = _refined(own, part, *first)
    if Counter(mine) != Counter(theirs):
        return -1
    matched = [-1] * len(own)
    for colour in set(mine):
        a = sorted((i for i, c in enumerate(mine) if c == colour), key=lambda i: _natural(own, i))
        b = sorted(
            (j for j, c in enumerate(theirs) if c == colour), key=lambda j: _natural(part, j)
        )
        # Equal terminal atoms on one atom may trade places; others may not
        if len(a) > 1 and (
            len({tuple(own.neighbours[i]) for i in a}) > 1 or own.neighbours[a[0]][1:]
        ):
            return a[0]
        for i, j in zip(a, b, strict=True):
            matched[i] = j
    return matched


def _refined(own: Atoms, part: Atoms, mine: Colours, theirs: Colours) -> tuple[Colours, Colours]:
    """Colours split by the colours of the neighbours until nothing changes, in both at once."""
    n_colours = 0
    while len({*mine, *theirs}) > n_colours:
        n_colours = len({*mine, *theirs})
        keys = [
            [(c, *sorted(colours[j] for j in atoms.neighbours[i])) for i, c in enumerate(colours)]
            for atoms, colours in ((own, mine), (part, theirs))
        ]
        number = {key: n for n, key in enumerate(sorted({*keys[0], *keys[1]}))}
        mine, theirs = ([number[key] for key in row] for row in keys)
    return mine, theirs


def _same_bonds(own: Atoms, part: Atoms, matched: list[int]) -> bool:
    """Whether no bond speaks against the match; a topology may have none, or not all."""
    bonds = {(min(i, j), max(i, j)) for i, j in ((matched[a], matched[b]) for a, b in own.bonds)}
    if part.bonds - bonds:
        return False
    return part.bonds == bonds or len(part.components()) > 1


def _unlike(own: Atoms, part: Atoms) -> str:
    if not part.bonds:
        names = set(part.keys)
        odd = next(a for a, key in zip(own.atoms, own.keys, strict=True) if key not in names)
        return (
            f"`trajectory` has no atom named {odd} and no bonds to find it by; load it with a "
            "topology that has bonds (prmtop, PDB with CONECT) or name its atoms as in the molecule"
        )
    return (
        f"`trajectory` is another isomer or protonation state of {own.formula}: its bonds differ "
        "from the molecule's; load a trajectory of the molecule"
    )


def _common(name: str) -> str:
    name = name.upper()
    # AMBER writes terminal residues as NALA, CALA
    name = name[1:] if len(name) == 4 and name[0] in "NC" else name
    return _ALIASES.get(name, name)


def _natural(atoms: Atoms, i: int) -> tuple[str, int, str]:
    name = atoms.atoms[i].name
    digits = re.findall(r"\d+", name)
    return re.sub(r"\d", "", name), int(digits[-1]) if digits else 0, name


def _number(residue: Any) -> int:
    return int(residue.index)
