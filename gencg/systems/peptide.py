"""Structures of peptides: all atoms from residues and backbone torsions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.geometry import place_atoms
from gencg.systems.files import check_n_atoms
from gencg.systems.hydrogens import with_hydrogens
from gencg.systems.residues import Residue
from gencg.systems.side_chains import CHI1, CHI2, SIDE_CHAINS, TETRAHEDRAL_CHI2

Array = NDArray[np.float64]
Atoms = dict[str, Array]

STRAND = (-120.0, 130.0)
"""Default phi and psi in degrees: extended, with room for every side chain."""
PROLINE = (-65.0, 140.0)
PROLINE_PHI = (-100.0, -35.0)
"""Range of phi in degrees that the ring of an L-proline allows."""
ROOM = 0.34
"""Distance in nm between heavy atoms that leaves room for their hydrogens."""
NEAREST = 0.2
"""Heavy atoms more than three bonds apart are no nearer than this in nm."""


def build_peptide(
    residues: Sequence[Residue], *, phi_psi: Sequence[tuple[float, float]] | None = None
) -> tuple[Any, Array]:
    """All atoms of a peptide with given backbone torsions and trans amide bonds.

    Bond lengths and angles are ideal ones, side chains take the most frequent torsions that have
    room, and hydrogens are OpenMM's (`Modeller.addHydrogens`).

    Args:
        residues: As of `parse_sequence`.
        phi_psi: Pairs (phi, psi) in degrees, one for each amino acid, or one for all; by default
            an extended strand. At a free end phi does not exist, and psi ends at an oxygen.

    Returns:
        OpenMM topology, and positions ``(n_atoms, 3)`` in nm.

    Raises:
        ValueError: If the number of pairs is another one, an angle is not finite or out of a
            proline's reach, or atoms would lie on top of each other.
    """
    torsions = _backbone_torsions(residues, phi_psi)
    chain = _backbone(residues, torsions)
    _place_side_chains(chain, residues)
    topology, positions = _heavy_atoms(residues, chain)
    check_n_atoms("`sequence`", len(positions))
    _check_room(topology, positions)
    topology, positions = _protonated(topology, positions, residues)
    check_n_atoms("`sequence`", len(positions))
    return topology, positions


def _backbone_torsions(
    residues: Sequence[Residue], phi_psi: Sequence[tuple[float, float]] | None
) -> list[tuple[float, float]]:
    """Phi and psi of every residue, caps included, in degrees."""
    amino_acids = [residue for residue in residues if not residue.is_cap]
    pairs: list[tuple[float, float]] = []
    if phi_psi is not None:
        given = np.asarray(phi_psi, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != 2 or len(given) not in (1, len(amino_acids)):
            raise ValueError(
                f"`phi_psi` must hold a pair for each of the {len(amino_acids)} amino acids, or "
                f"one for all, got shape {given.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"`phi_psi` must be finite, in degrees, got {given.tolist()}")
        wrapped = (given + 180.0) % 360.0 - 180.0
        pairs = [(phi, psi) for phi, psi in np.broadcast_to(wrapped, (len(amino_acids), 2))]
    else:
        for residue in amino_acids:
            phi, psi = PROLINE if residue.name == "PRO" else STRAND
            pairs.append((-phi, -psi) if residue.is_dextro else (phi, psi))
    _check_prolines(amino_acids, pairs)
    rest = iter(pairs)
    return [STRAND if residue.is_cap else next(rest) for residue in residues]


def _check_prolines(amino_acids: list[Residue], pairs: list[tuple[float, float]]) -> None:
    low, high = PROLINE_PHI
    for number, (residue, (phi, _)) in enumerate(zip(amino_acids, pairs, strict=True), 1):
        if residue.name == "PRO" and not low <= (-phi if residue.is_dextro else phi) <= high:
            bounds = (-high, -low) if residue.is_dextro else (low, high)
            between = " and ".join(f"{bound:g}" for bound in bounds)
            raise ValueError(
                f"`phi_psi` must keep phi of amino acid {number}, {residue.pdb_name}, between "
                f"{between} degrees, where its ring closes, got {phi:g}"
            )


def _place(
    bonded: Array, second: Array, third: Array, *, length: float, angle: float, torsion: float
) -> Array:
    numbers = torch.tensor([length, np.radians(angle), np.radians(torsion)], dtype=torch.float64)
    points = [torch.as_tensor(x) for x in (bonded, second, third)]
    return np.asarray(place_atoms(*numbers, bonded=points[0], second=points[1], third=points[2]))


def _backbone(residues: Sequence[Residue], torsions: Sequence[tuple[float, float]]) -> list[Atoms]:
    """Atoms N, CA, C, O, CB and those of the caps, and the second oxygen of a free end."""
    # N, CA and C of the residue before; at the start three points stand for it
    before = np.array([[0.1, 0.1, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0]])
    psi_before = 180.0
    chain: list[Atoms] = []
    for residue, (phi, psi) in zip(residues, torsions, strict=True):
        if residue.name == "ACE":
            chain.append({"CH3": before[1], "C": before[2]} | _oxygen("O", before, 0.0))
            continue
        atoms = _amide(residue, before, psi_before)
        if not residue.is_cap:
            atoms |= _amino_acid(residue, atoms, before[2], (phi, psi))
            before = np.array([atoms[name] for name in ("N", "CA", "C")])
        chain.append(atoms)
        psi_before = psi
    if not residues[-1].is_cap:
        chain[-1] |= _oxygen("OXT", before, psi_before)
    return chain


def _oxygen(name: str, carbonyl: Array, torsion: float) -> Atoms:
    n, ca, c = carbonyl
    return {name: _place(c, ca, n, length=0.123, angle=120.5, torsion=torsion)}


def _amide(residue: Residue, before: Array, psi: float) -> Atoms:
    """N behind the carbonyl before, and the carbon that it carries, trans."""
    n_before, ca_before, c_before = before
    n = _place(c_before, ca_before, n_before, length=0.1335, angle=116.6, torsion=psi)
    if residue.name == "NH2":
        return {"N": n}
    carbon = _place(n, c_before, ca_before, length=0.1449, angle=121.9, torsion=180.0)
    return {"N": n, "C" if residue.name == "NME" else "CA": carbon}


def _amino_acid(
    residue: Residue, atoms: Atoms, c_before: Array, phi_psi: tuple[float, float]
) -> Atoms:
    """C, O, CB and a proline's ring, on N and CA."""
    n, ca = atoms["N"], atoms["CA"]
    phi, psi = phi_psi
    hand = 1.0 if residue.is_dextro else -1.0
    c = _place(ca, n, c_before, length=0.1525, angle=111.0, torsion=phi)
    more = {"C": c} | _oxygen("O", np.array([n, ca, c]), psi + 180.0)
    if residue.name != "GLY":
        more["CB"] = _place(ca, n, c, length=0.153, angle=110.4, torsion=122.5 * hand)
    if residue.name == "PRO":
        more |= _proline_ring(atoms | more, phi, hand)
    return more


def _proline_ring(atoms: Atoms, phi: float, hand: float) -> Atoms:
    """CD opposite to the carbonyl before, CG where it closes the ring, out of its plane."""
    n, ca, c, cb = (atoms[name] for name in ("N", "CA", "C", "CB"))
    cd = _place(n, ca, c, length=0.1473, angle=111.8, torsion=phi + 180.0)
    middle, across = (cb + cd) / 2, (cd - cb) / np.linalg.norm(cd - cb)
    out = middle - (n + ca) / 2
    out -= across * np.dot(out, across)
    out /= np.linalg.norm(out)
    height = np.sqrt(max(0.1505**2 - np.dot(cd - cb, cd - cb) / 4, 0.0))
    tilt = np.radians(30.0 * hand)
    cg = middle + height * (np.cos(tilt) * out + np.sin(tilt) * np.cross(across, out))
    return {"CG": cg, "CD": cd}


def _place_side_chains(chain: list[Atoms], residues: Sequence[Residue]) -> None:
    """Give every side chain the most frequent torsions that have room, or the roomiest ones.

    Each is chosen anew once all others are there.
    """
    backbones = [dict(atoms) for atoms in chain]
    for _ in range(2):
        for i, residue in enumerate(residues):
            if SIDE_CHAINS.get(residue.name):
                chain[i] = _roomiest(backbones[i], chain[:i] + chain[i + 1 :], residue)


def _roomiest(own: Atoms, others: list[Atoms], residue: Residue) -> Atoms:
    rows = SIDE_CHAINS[residue.name]
    # Its own carbonyl is near whatever the side chain does
    placed = [own[name] for name in ("O", "OXT") if name in own]
    placed += [x for atoms in others for x in atoms.values()]
    best, widest = own, -1.0
    for chis in _rotamers(residue):
        atoms = _side_chain(own, residue, chis)
        new = np.array([atoms[row.atom] for row in rows])
        room = float(np.linalg.norm(new[:, None] - np.array(placed), axis=-1).min())
        if room > widest + 1e-6:
            best, widest = atoms, room
        if room > ROOM:
            break
    return best


def _rotamers(residue: Residue) -> list[tuple[float, float]]:
    has_chi2 = any(row.chi == 2 for row in SIDE_CHAINS[residue.name])
    second = CHI2.get(residue.name, TETRAHEDRAL_CHI2) if has_chi2 else (180.0,)
    return [(chi1, chi2) for chi2 in second for chi1 in CHI1]


def _side_chain(own: Atoms, residue: Residue, chis: tuple[float, float]) -> Atoms:
    atoms = dict(own)
    sign = -1.0 if residue.is_dextro else 1.0
    turned = (0.0, *chis, 180.0, 180.0)
    for row in SIDE_CHAINS[residue.name]:
        atoms[row.atom] = _place(
            atoms[row.bonded], atoms[row.second], atoms[row.third],
            length=row.length, angle=row.angle, torsion=sign * (turned[row.chi] + row.torsion),
        )  # fmt: skip
    return atoms


def _heavy_atoms(residues: Sequence[Residue], chain: list[Atoms]) -> tuple[Any, Array]:
    """OpenMM topology of the atoms placed so far, with their bonds."""
    from openmm import app

    topology = app.Topology()
    ours = topology.addChain("A")
    for number, (residue, atoms) in enumerate(zip(residues, chain, strict=True), 1):
        its = topology.addResidue(residue.name, ours, str(number))
        for name in atoms:
            topology.addAtom(name, app.Element.getBySymbol(name[0]), its)
    topology.createStandardBonds()
    return topology, np.array([x for atoms in chain for x in atoms.values()])


def _check_room(topology: Any, positions: Array) -> None:
    n = len(positions)
    step = np.eye(n)
    for a, b in topology.bonds():
        step[a.index, b.index] = step[b.index, a.index] = 1
    apart = (step @ step @ step) == 0
    r = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.where(apart, 0.0, np.inf)
    i, j = np.unravel_index(np.argmin(r), r.shape) if n > 1 else (0, 0)
    if r[i, j] < NEAREST:
        atoms = list(topology.atoms())
        names = [f"{a.residue.name}{a.residue.id}-{a.name}" for a in (atoms[i], atoms[j])]
        raise ValueError(
            f"`phi_psi` folds the chain onto itself: {names[0]} and {names[1]} would be "
            f"{r[i, j]:.3f} nm apart; choose other angles"
        )


def _protonated(topology: Any, positions: Array, residues: Sequence[Residue]) -> tuple[Any, Array]:
    """Add the hydrogens of each residue's state of protonation, and give D residues their names."""
    topology, positions = with_hydrogens(
        topology, positions, variants=[residue.variant for residue in residues]
    )
    for its, residue in zip(topology.residues(), residues, strict=True):
        its.name = residue.pdb_name
    return topology, positions
