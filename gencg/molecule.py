"""The molecule: topology, reference structure, and what its bonds alone say."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gencg import html
from gencg.matching import match_positions

Quad = tuple[int, int, int, int]

_SHORTEST_BOND, _LONGEST_BOND = 0.02, 0.4
_SIDE_CHAIN = (
    ("chi1", ("N",), ("CA",), ("CB",), ("CG", "CG1", "OG", "OG1", "SG")),
    ("chi2", ("CA",), ("CB",), ("CG", "CG1"), ("CD", "CD1", "OD1", "ND1", "SD")),
    ("chi3", ("CB",), ("CG",), ("CD", "SD"), ("NE", "OE1", "CE")),
    ("chi4", ("CG",), ("CD",), ("NE", "CE"), ("CZ", "NZ")),
    ("chi5", ("CD",), ("NE",), ("CZ",), ("NH1",)),
)


@dataclass(frozen=True, eq=False, repr=False)
class Molecule:
    """One connected molecule with all its atoms and a reference structure.

    Args:
        topology: MDTraj topology with bonds.
        positions: Reference structure, shape ``(n_atoms, 3)``, in nm. Handedness and double
            bonds are read from it.
        check: Refuse a reference structure whose bonds are too long or whose carbons, nitrogens
            or oxygens obviously lack hydrogens. Switch off for united atoms.

    Raises:
        ValueError: If the positions have another shape or are not finite, the topology has no
            bonds or several parts, or the check above fails.
    """

    topology: Any
    positions: NDArray[np.float64]
    check: bool = True

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=np.float64)
        if positions.shape != (self.n_atoms, 3):
            raise ValueError(
                f"`positions` must have shape ({self.n_atoms}, 3), one row per atom of "
                f"`topology`, got {positions.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(positions).all(1))
        if bad.size:
            raise ValueError(
                f"`positions` must be finite, got {positions[bad[0]].tolist()} for atom "
                f"{self.names[bad[0]]} (number {bad[0]}); repair the structure file"
            )
        object.__setattr__(self, "positions", positions)
        self._check_connected()
        if self.check:
            self._check_bond_lengths()
            self._check_hydrogens()

    @classmethod
    def from_mdtraj(cls, trajectory: Any, frame: int = 0, *, check: bool = True) -> "Molecule":
        """Molecule of an MDTraj trajectory, with one of its frames as the reference."""
        return cls(trajectory.topology, trajectory.xyz[frame], check)

    def to_mdtraj(self, x: ArrayLike | None = None) -> Any:
        """MDTraj trajectory of positions ``(n, n_atoms, 3)`` in nm (default: the reference).

        MDTraj keeps float32; no unit cell.
        """
        import mdtraj

        xyz = self.positions if x is None else np.asarray(x)
        return mdtraj.Trajectory(xyz.reshape(-1, self.n_atoms, 3), self.topology)

    def match(self, trajectory: Any) -> NDArray[np.float64]:
        """Positions of an MDTraj trajectory of this molecule, in this molecule's order of atoms.

        Atoms are matched by residue and name, by bonds where names differ, and checked by
        elements and bonds; other molecules beside it (solvent, ions) are left out.

        Returns:
            Shape ``(n_frames, n_atoms, 3)``, in nm.

        Raises:
            ValueError: If the trajectory is of another molecule, lacks hydrogens, holds the
                molecule more than once, is ambiguous, not finite, or cut by its unit cell.
        """
        return match_positions(self.topology, trajectory)

    def with_positions(self, positions: ArrayLike) -> "Molecule":
        """The same molecule in another conformation, shape ``(n_atoms, 3)`` in nm."""
        return Molecule(self.topology, np.asarray(positions, dtype=np.float64), check=False)

    def __repr__(self) -> str:
        residues = [str(residue) for residue in self.topology.residues]
        shown = residues if len(residues) < 6 else [*residues[:3], "...", residues[-1]]
        return f"Molecule(n_atoms={self.n_atoms}, residues={'-'.join(shown)})"

    def _repr_html_(self) -> str:
        counts = {e: self.elements.count(e) for e in sorted(set(self.elements))}
        # Carbon first, then hydrogen, as chemists write them
        order = sorted(counts, key=lambda e: (e != "C", e != "H", e))
        formula = "".join(e + (str(counts[e]) if counts[e] > 1 else "") for e in order)
        residues = [str(residue) for residue in self.topology.residues]
        rows = [
            ("formula", formula),
            ("atoms", str(self.n_atoms)),
            ("residues", "-".join(residues[:12]) + ("-..." if len(residues) > 12 else "")),
            ("bonds", f"{len(self.bonds)}, of which {len(self.rotatable_bonds())} may turn"),
            ("stereocentres", str(len(self.stereocentres()))),
        ]
        return html.card("Molecule", rows)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return int(self.topology.n_atoms)

    @cached_property
    def _atoms(self) -> list[Any]:
        # By index: the iterator of MDTraj goes by residue
        return [self.topology.atom(i) for i in range(self.n_atoms)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Atom names such as "ALA2-CA", with the chain or the number where needed."""
        atoms = self._atoms
        names = [str(atom) for atom in atoms]
        if len(set(names)) < len(names):
            names = [
                f"{a.residue.chain.index}:{name}" for a, name in zip(atoms, names, strict=True)
            ]
        if len(set(names)) < len(names):
            names = [f"{name}#{i}" for i, name in enumerate(map(str, atoms))]
        return tuple(names)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Element symbols."""
        return tuple(a.element.symbol if a.element else "VS" for a in self._atoms)

    @cached_property
    def masses(self) -> NDArray[np.float64]:
        """Masses, shape ``(n_atoms,)``, in amu."""
        return np.array([a.element.mass if a.element else 0.0 for a in self._atoms])

    @cached_property
    def bonds(self) -> NDArray[np.int64]:
        """Bonded pairs i < j, sorted, shape ``(n_bonds, 2)``."""
        pairs = {tuple(sorted((b[0].index, b[1].index))) for b in self.topology.bonds}
        return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Atoms bonded to each atom, in ascending order."""
        bonded: list[list[int]] = [[] for _ in range(self.n_atoms)]
        for i, j in self.bonds.tolist():
            bonded[i].append(j)
            bonded[j].append(i)
        return tuple(tuple(sorted(atoms)) for atoms in bonded)

    @cached_property
    def ring_bonds(self) -> NDArray[np.bool_]:
        """Which bonds close a cycle, shape ``(n_bonds,)``; the others are bridges."""
        parent, depth = self._spanning_tree()
        in_ring: set[tuple[int, int]] = set()
        for i, j in self.bonds.tolist():
            if parent[i] == j or parent[j] == i:
                continue
            in_ring.add((i, j))
            a, b = i, j
            while a != b:  # up to the common ancestor
                if depth[a] < depth[b]:
                    a, b = b, a
                in_ring.add((min(a, parent[a]), max(a, parent[a])))
                a = parent[a]
        return np.array([bond in in_ring for bond in map(tuple, self.bonds.tolist())], dtype=bool)

    def rotatable_bonds(self) -> list[tuple[int, int]]:
        """Acyclic bonds i < j between atoms with further neighbours, not marked as multiple.

        XH3 groups are included. Amides and double bonds without a mark are included too: the
        geometry (`gencg.coordinates.symmetry.planar_bonds`) or the force field tells them apart.
        """
        multiple = self.multiple_bonds()
        return [
            (i, j)
            for (i, j), ring in zip(self.bonds.tolist(), self.ring_bonds, strict=True)
            if not ring
            and min(len(self.neighbours[i]), len(self.neighbours[j])) > 1
            and (i, j) not in multiple
        ]

    def multiple_bonds(self) -> set[tuple[int, int]]:
        """Bonds i < j that the topology marks as double, triple, aromatic or amide."""
        marked = (
            sorted((b[0].index, b[1].index))
            for b in self.topology.bonds
            if (getattr(b, "order", None) or 1) > 1
            or str(getattr(b, "type", None)) in ("Double", "Triple", "Aromatic", "Amide")
        )
        return {(i, j) for i, j in marked}

    def equivalence_classes(self) -> NDArray[np.int64]:
        """Class of each atom under topological symmetry, shape ``(n_atoms,)``.

        Colour refinement of the bond graph, from the elements: atoms in different classes differ
        for certain; atoms in one class are equivalent in all but a few highly regular graphs.
        """
        colours = np.unique(self.elements, return_inverse=True)[1]
        n_classes = 0
        while n_classes < len(set(colours.tolist())):
            n_classes = len(set(colours.tolist()))
            keys = [
                (int(colours[i]), *sorted(int(colours[j]) for j in self.neighbours[i]))
                for i in range(self.n_atoms)
            ]
            index = {key: n for n, key in enumerate(sorted(set(keys)))}
            colours = np.array([index[key] for key in keys])
        return colours.astype(np.int64)

    def stereocentres(self) -> list[tuple[int, Quad, int]]:
        """Atoms with four different neighbours, as (atom, neighbours, handedness).

        The handedness is the sign of the volume spanned by the neighbours in ascending order, in
        the reference structure.
        """
        classes = self.equivalence_classes()
        centres = []
        for atom, bonded in enumerate(self.neighbours):
            if len(bonded) == 4 and len({int(classes[j]) for j in bonded}) == 4:
                a, b, c, d = self.positions[list(bonded)]
                sign = int(np.sign(np.dot(a - d, np.cross(b - d, c - d))))
                centres.append((atom, (bonded[0], bonded[1], bonded[2], bonded[3]), sign))
        return centres

    def backbone(self) -> tuple[int, ...]:
        """Atoms N, CA, C of every amino-acid residue, in order of the topology."""
        return tuple(sorted(i for residue in self._residues() for i in residue.values()))

    def named_torsions(self) -> list[tuple[str, Quad]]:
        """Torsions with a chemical name, as (label, atoms): phi, psi, omega, chi1 to chi5.

        Found from residue and atom names and the bonds between residues, so that caps (ACE, NME)
        count as neighbours.
        """
        return list(self._named_torsions())

    def phi_psi(self) -> list[tuple[str, Quad]]:
        """The backbone torsions phi and psi of every residue that has them, as (label, atoms)."""
        return [item for item in self.named_torsions() if item[0].startswith(("phi", "psi"))]

    def _named_torsions(self) -> Iterator[tuple[str, Quad]]:
        for residue, atoms in zip(self._residue_list(), self._residues(), strict=True):
            n, ca, c = atoms["N"], atoms["CA"], atoms["C"]
            before = self._bonded_named(n, ("C",), own=False)
            after = self._bonded_named(c, ("N",), own=False)
            if before is not None:
                yield f"phi({residue})", (before, n, ca, c)
            if after is not None:
                yield f"psi({residue})", (n, ca, c, after)
                end = self._bonded_named(after, ("CA", "CH3", "C"), own=True)
                if end is not None:
                    yield f"omega({residue})", (ca, c, after, end)
            by_name = {a.name: a.index for a in residue.atoms}
            for label, *names in _SIDE_CHAIN:
                quad = [next((by_name[n] for n in group if n in by_name), -1) for group in names]
                if min(quad) >= 0 and all(b in self.neighbours[a] for a, b in pairwise(quad)):
                    yield f"{label}({residue})", (quad[0], quad[1], quad[2], quad[3])

    def _residue_list(self) -> list[Any]:
        wanted = {"N", "CA", "C"}
        return [r for r in self.topology.residues if wanted <= {a.name for a in r.atoms}]

    def _residues(self) -> list[dict[str, int]]:
        return [
            {a.name: a.index for a in residue.atoms if a.name in ("N", "CA", "C")}
            for residue in self._residue_list()
        ]

    def _bonded_named(self, atom: int, names: tuple[str, ...], *, own: bool) -> int | None:
        """Neighbour of `atom` with one of these names, in its own or in another residue."""
        residue = self.topology.atom(atom).residue.index
        for name in names:
            for j in self.neighbours[atom]:
                other = self.topology.atom(j)
                if other.name == name and (other.residue.index == residue) == own:
                    return j
        return None

    def _spanning_tree(self) -> tuple[list[int], list[int]]:
        parent, depth = [-1] * self.n_atoms, [0] * self.n_atoms
        queue, seen = [0], {0}
        for i in queue:
            for j in self.neighbours[i]:
                if j not in seen:
                    seen.add(j)
                    parent[j], depth[j] = i, depth[i] + 1
                    queue.append(j)
        return parent, depth

    def _check_connected(self) -> None:
        if not len(self.bonds) and self.n_atoms > 1:
            raise ValueError(
                f"`topology` has no bonds between its {self.n_atoms} atoms; gencg builds its "
                "coordinates from them: add CONECT records or call create_standard_bonds()"
            )
        i, j = self.bonds.T
        graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(self.n_atoms, self.n_atoms))
        n_parts, labels = connected_components(graph, directed=False)
        if n_parts > 1:
            sizes = [str(size) for size in np.bincount(labels)]
            first = [self.names[np.flatnonzero(labels == part)[0]] for part in range(n_parts)]
            raise ValueError(
                f"molecule has {n_parts} disconnected parts, of {_listed(sizes)} atoms, starting "
                f"at {_listed(first)}; gencg samples one molecule at a time; give them separately"
            )

    def _check_bond_lengths(self) -> None:
        i, j = self.bonds.T
        lengths = np.linalg.norm(self.positions[i] - self.positions[j], axis=1)
        for bond in (int(np.argmax(lengths)), int(np.argmin(lengths))):
            if not _SHORTEST_BOND < lengths[bond] < _LONGEST_BOND:
                a, b = self.names[i[bond]], self.names[j[bond]]
                raise ValueError(
                    f"bonds must be {_SHORTEST_BOND} to {_LONGEST_BOND} nm long, got "
                    f"{lengths[bond]:.3f} nm for {a} - {b}; give `positions` in nm and the "
                    "molecule whole"
                )

    def _check_hydrogens(self) -> None:
        missing = [atom for atom in range(self.n_atoms) if self._lacks_hydrogen(atom)]
        if missing:
            shown = _listed([self.names[i] for i in missing[:4]])
            raise ValueError(
                f"hydrogens seem to be missing at {shown} ({len(missing)} atoms in all); add them "
                "(OpenMM's Modeller.addHydrogens, PDBFixer, RDKit's AddHs), or pass check=False "
                "for a united-atom molecule"
            )

    def _lacks_hydrogen(self, atom: int) -> bool:
        """Whether bonds and shape leave no closed-shell reading without another hydrogen.

        A carbon that is bent with two or pyramidal with three neighbours; a single bond to a
        nitrogen or oxygen that has no other. Doubtful cases pass: force-field templates see them.
        """
        element, bonded = self.elements[atom], self.neighbours[atom]
        arms = self.positions[list(bonded)] - self.positions[atom]
        lengths = np.linalg.norm(arms, axis=1)
        arms = arms / lengths[:, None]
        if element == "C" and len(bonded) in (2, 3):
            cosines = (arms @ arms.T)[np.triu_indices(len(bonded), 1)]
            total = np.degrees(np.arccos(np.clip(cosines, -1, 1))).sum()
            return bool(total < (150.0 if len(bonded) == 2 else 338.0))
        if len(bonded) == 1 and self.elements[bonded[0]] in ("C", "N") and self.n_atoms > 2:
            longest = {"C": 0.125, "N": 0.138, "O": 0.139}.get(element, np.inf)
            return bool(lengths[0] > longest)
        return False


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
