"""What a labelled molecule keeps and what it repeats: handedness, flat bonds, symmetric rotors."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gencg.coordinates.zmatrix import ZMatrix
from gencg.geometry import dihedrals
from gencg.molecule import Molecule

# Longest bonds, in nm, that count as double or amide between two flat atoms
_FLAT_BONDS = {"CC": 0.1410, "CN": 0.1400, "NN": 0.1350}
_BENT_BONDS = {"CC": 0.1390, "CN": 0.1330, "NN": 0.1300}


@dataclass(frozen=True)
class Rotor:
    r"""Equivalent terminal atoms around a soft axis, n-fold symmetric (CH3, NH3+, CF3, COO-).

    Attributes:
        atoms: The n atoms in the cyclic order of the reference structure (rising torsion), the
            one that carries the torsion of the axis in front.
        axis: The two atoms of the axis, the one that holds the rotor in front.
    """

    atoms: tuple[int, ...]
    axis: tuple[int, int]

    @property
    def n(self) -> int:
        """Order of the rotor: 2 or 3 in most molecules."""
        return len(self.atoms)


def find_rotors(
    molecule: Molecule, zmatrix: ZMatrix, soft: set[tuple[int, int]]
) -> tuple[Rotor, ...]:
    r"""Rotors on the soft bonds: ends whose substituents are terminal atoms of one element.

    They must be spread evenly, within 30 degrees of multiples of :math:`2\pi/n`: turning the two
    hydrogens of a pyramidal NH2 by half a circle swaps them only together with an inversion, so
    it is no rotor.
    """
    found = []
    for k in zmatrix.atoms[2:]:
        p, g = zmatrix.parent[k], zmatrix.grandparent[k]
        if zmatrix.first[k] != k or k == zmatrix.third or (min(p, g), max(p, g)) not in soft:
            continue
        ends = [k, *(j for j in molecule.neighbours[p] if j not in (k, g))]
        kinds = {(molecule.elements[j], len(molecule.neighbours[j])) for j in ends}
        if len(ends) < 2 or len(kinds) > 1 or next(iter(kinds))[1] != 1:
            continue
        quads = torch.tensor([(j, p, g, zmatrix.reference[k]) for j in ends])
        torsion = dihedrals(torch.as_tensor(molecule.positions), quads).numpy()
        turned = np.mod(torsion - torsion[0] + 1e-9, 2 * np.pi)
        order = np.argsort(turned)
        uneven = turned[order] - 2 * np.pi * np.arange(len(ends)) / len(ends)
        if np.abs(uneven).max() < np.pi / 6:
            found.append(Rotor(tuple(ends[i] for i in order), (p, g)))
    return tuple(found)


def relabelled(x: Tensor, copies: Tensor, rotors: tuple[Rotor, ...]) -> Tensor:
    """Positions with the atoms of each rotor relabelled cyclically.

    Atom j of a rotor takes the place of its atom j + copies, which turns the rotor by
    ``copies`` times 2 pi / n and leaves every symmetric energy as it is.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``.
        copies: Integers, shape ``(*batch, n_rotors)``.
        rotors: The rotors.
    """
    if not rotors:
        return x
    batch, n_atoms = x.shape[:-2], x.shape[-2]
    kw = {"device": x.device}
    atoms = torch.tensor([i for r in rotors for i in r.atoms], **kw)
    owner = torch.tensor([n for n, r in enumerate(rotors) for _ in r.atoms], **kw)
    place = torch.tensor([j for r in rotors for j in range(r.n)], **kw)
    order = torch.tensor([r.n for r in rotors], **kw)[owner]
    taken = (place + copies[..., owner]) % order - place + torch.arange(len(atoms), **kw)
    source = torch.arange(n_atoms, **kw).expand(*batch, n_atoms)
    source = source.index_copy(-1, atoms, atoms[taken])
    return x.gather(-2, source[..., None].expand(x.shape))


def signed_volumes(x: Tensor, quads: Tensor) -> Tensor:
    r"""Volumes :math:`(a - d) \cdot (b - d) \times (c - d)`, which change sign on reflection.

    Args:
        x: Positions, shape ``(*batch, n_atoms, 3)``, in nm.
        quads: Atom indices (a, b, c, d), shape ``(n, 4)``.

    Returns:
        Shape ``(*batch, n)``, in nm^3.
    """
    a, b, c, d = (x[..., i, :] for i in quads.unbind(1))
    return ((a - d) * torch.linalg.cross(b - d, c - d)).sum(-1)


def four_coordinated(molecule: Molecule) -> list[tuple[int, ...]]:
    """The four neighbours of every atom that has exactly four and is not flat."""
    centres = [bonded for bonded in molecule.neighbours if len(bonded) == 4]
    x = torch.as_tensor(molecule.positions)
    volumes = signed_volumes(x, torch.tensor(centres, dtype=torch.long).reshape(-1, 4))
    return [bonded for bonded, v in zip(centres, volumes.tolist(), strict=True) if abs(v) > 1e-4]


def planar_bonds(molecule: Molecule) -> list[tuple[int, int]]:
    """Acyclic double and amide bonds, read from the reference structure.

    Short for their elements (C, N), with flat ends, and with the neighbours on either side in
    one plane to 35 degrees. A force field's own barriers are a better judge where they are known.
    """
    found = []
    for i, j in molecule.rotatable_bonds():
        kind = "".join(sorted(molecule.elements[i] + molecule.elements[j]))
        ends = [len(molecule.neighbours[i]), len(molecule.neighbours[j])]
        if kind not in _FLAT_BONDS or max(ends) > 3:
            continue
        longest = _FLAT_BONDS[kind] if min(ends) == 3 else _BENT_BONDS[kind]
        length = np.linalg.norm(molecule.positions[i] - molecule.positions[j])
        if length <= longest and _twist(molecule, i, j) < np.sin(np.radians(35.0)):
            found.append((i, j))
    return found


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
