"""Small molecules built by hand, from rows of (atom, bonded, r, second, angle, third, torsion)."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files

import mdtraj
import numpy as np
import torch
from mdtraj.core.element import get_by_symbol

from gencg.geometry import place_atoms
from gencg.molecule import Molecule

Row = tuple[object, ...]


def build(
    rows: Sequence[Row], *, closures: Sequence[tuple[int, int]] = (), check: bool = True
) -> Molecule:
    """Molecule from a Z-matrix in nm and degrees; an atom is "C" or "ALA-CA"."""
    topology = mdtraj.Topology()
    chain, residues = topology.add_chain(), {}
    x = torch.zeros(len(rows), 3, dtype=torch.float64)
    for i, (label, *rest) in enumerate(rows):
        residue, _, name = str(label).rpartition("-")
        residue = residue or "MOL"
        if residue not in residues:
            residues[residue] = topology.add_residue(residue, chain, resSeq=len(residues) + 1)
        symbol = name.rstrip("0123456789")[:1]
        topology.add_atom(
            name if "-" in str(label) else f"{name}{i}", get_by_symbol(symbol), residues[residue]
        )
        if rest:
            r, *angles = (float(value) for value in rest[1::2])
            p, *others = (int(index) for index in rest[0::2])
            topology.add_bond(topology.atom(i), topology.atom(p))
            if i == 1:
                x[1, 0] = r
                continue
            theta, phi = np.radians([*angles, 0.0])[:2]
            third = x[others[1]] if len(others) > 1 else torch.tensor([5.0, 7.0, 0.0]).to(x)
            x[i] = place_atoms(
                torch.tensor(r).to(x),
                torch.tensor(theta),
                torch.tensor(phi),
                bonded=x[p],
                second=x[others[0]],
                third=third,
            )
    for i, j in closures:
        topology.add_bond(topology.atom(i), topology.atom(j))
    return Molecule(topology, x.numpy(), check)


def methyl(carbon: int, second: int, third: int, *, start: float = 60.0) -> list[Row]:
    return [("H", carbon, 0.109, second, 110, third, start + 120 * k) for k in range(3)]


def methylene(carbon: int, second: int, other: int) -> list[Row]:
    """Two hydrogens on a carbon between two neighbours."""
    return [("H", carbon, 0.109, second, 109, other, turn) for turn in (120, -120)]


def water() -> Molecule:
    return build([("O",), ("H", 0, 0.096), ("H", 0, 0.096, 1, 104.5)])


def peroxide() -> Molecule:
    return build(
        [("O",), ("O", 0, 0.146), ("H", 0, 0.097, 1, 100), ("H", 1, 0.097, 0, 100, 2, 112)]
    )


def methane() -> Molecule:
    first = [("C",), ("H", 0, 0.109), ("H", 0, 0.109, 1, 109.5)]
    return build([*first, *(("H", 0, 0.109, 1, 109.5, 2, t) for t in (120, -120))])


def ethane() -> Molecule:
    first: list[Row] = [("C",), ("C", 0, 0.153), ("H", 0, 0.109, 1, 110)]
    others = [("H", 0, 0.109, 1, 110, 2, t) for t in (120, -120)]
    return build([*first, *others, *methyl(1, 0, 2)])


def alkane(n: int = 4) -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.153), ("C", 1, 0.153, 0, 112)]
    rows += [("C", i - 1, 0.153, i - 2, 112, i - 3, 180) for i in range(3, n)]
    rows += methyl(0, 1, 2)
    for i in range(1, n - 1):
        rows += methylene(i, i - 1, i + 1)
    return build([*rows, *methyl(n - 1, n - 2, n - 3)])


def neopentane() -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.153), ("C", 0, 0.153, 1, 109.5)]
    rows += [("C", 0, 0.153, 1, 109.5, 2, t) for t in (120, -120)]
    for carbon in (1, 2, 3, 4):
        rows += methyl(carbon, 0, 1 if carbon > 1 else 2)
    return build(rows)


def cyclohexane() -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.153), ("C", 1, 0.153, 0, 111.4)]
    rows += [("C", i - 1, 0.153, i - 2, 111.4, i - 3, 55 * (-1) ** i) for i in range(3, 6)]
    for i in range(6):
        rows += methylene(i, (i + 1) % 6, (i - 1) % 6)
    return build(rows, closures=[(5, 0)])


def benzene() -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.139), ("C", 1, 0.139, 0, 120)]
    rows += [("C", i - 1, 0.139, i - 2, 120, i - 3, 0) for i in range(3, 6)]
    rows += [("H", i, 0.108, (i + 1) % 6, 120, (i + 2) % 6, 180) for i in range(6)]
    return build(rows, closures=[(5, 0)])


def butene(torsion: float = 180.0) -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.150), ("C", 1, 0.134, 0, 124)]
    rows += [("C", 2, 0.150, 1, 124, 0, torsion)]
    rows += [("H", 1, 0.108, 2, 119, 3, torsion + 180), ("H", 2, 0.108, 1, 119, 0, torsion + 180)]
    return build([*rows, *methyl(0, 1, 2, start=0), *methyl(3, 2, 1, start=0)])


def glycine() -> Molecule:
    """The zwitterion: NH3+ and a carboxylate."""
    rows: list[Row] = [("GLY-N",), ("GLY-CA", 0, 0.149), ("GLY-C", 1, 0.153, 0, 112)]
    rows += [("GLY-O", 2, 0.125, 1, 117, 0, 20), ("GLY-OXT", 2, 0.125, 1, 117, 0, 200)]
    rows += [(f"GLY-H{k}", 0, 0.103, 1, 110, 2, 60 + 120 * k) for k in (1, 2, 3)]
    rows += [(f"GLY-HA{k}", 1, 0.109, 0, 109, 2, s) for k, s in ((2, 120), (3, -120))]
    return build(rows)


def acetamide() -> Molecule:
    rows: list[Row] = [
        ("C",),
        ("C", 0, 0.152),
        ("O", 1, 0.123, 0, 121),
        ("N", 1, 0.135, 0, 116, 2, 180),
    ]
    rows += [("H", 3, 0.101, 1, 120, 0, t) for t in (180, 0)]
    return build([*rows, *methyl(0, 1, 3)])


def methylamine() -> Molecule:
    """A pyramidal NH2."""
    rows: list[Row] = [
        ("N",),
        ("C", 0, 0.147),
        ("H", 0, 0.101, 1, 111),
        ("H", 0, 0.101, 1, 111, 2, 120),
    ]
    return build([*rows, *methyl(1, 0, 2)])


def trifluoroethane() -> Molecule:
    rows: list[Row] = [("C",), ("C", 0, 0.150), ("F", 0, 0.134, 1, 111)]
    rows += [("F", 0, 0.134, 1, 111, 2, t) for t in (120, -120)]
    return build([*rows, *methyl(1, 0, 2)])


def fluoroethanol(hand: int = 1) -> Molecule:
    """A stereocentre."""
    rows: list[Row] = [("C",), ("C", 0, 0.152), ("F", 0, 0.139, 1, 109.5)]
    rows += [("O", 0, 0.141, 1, 109.5, 2, 120 * hand), ("H", 0, 0.109, 1, 109.5, 2, -120 * hand)]
    rows += [("H", 3, 0.096, 0, 108, 1, 70), *methyl(1, 0, 2)]
    return build(rows)


def proline() -> Molecule:
    """ACE-PRO-NME."""
    rows: list[Row] = [("ACE-CH3",), ("ACE-C", 0, 0.152), ("ACE-O", 1, 0.123, 0, 121)]
    rows += [("PRO-N", 1, 0.135, 0, 117, 2, 180), ("PRO-CA", 3, 0.146, 1, 121, 0, 180)]
    rows += [("PRO-CD", 3, 0.147, 1, 126, 0, 0), ("PRO-CB", 4, 0.153, 3, 103, 1, 165)]
    rows += [("PRO-CG", 6, 0.150, 4, 104, 3, 30), ("PRO-C", 4, 0.153, 3, 111, 1, -75)]
    rows += [("PRO-O", 8, 0.123, 4, 120, 3, -40), ("NME-N", 8, 0.1335, 4, 116, 3, 140)]
    rows += [("NME-C", 10, 0.146, 8, 122, 4, 180), ("NME-H", 10, 0.101, 8, 119, 4, 0)]
    rows += [("PRO-HA", 4, 0.109, 3, 109, 1, 45)]
    for name, k, p, g, t in (("B", 6, 4, 3, 30), ("G", 7, 6, 4, -35), ("D", 5, 3, 4, -10)):
        rows += [(f"PRO-H{name}{n}", k, 0.109, p, 110, g, t + s) for n, s in ((2, 120), (3, -120))]
    rows += [(f"ACE-H{k}", 0, 0.109, 1, 110, 3, 120 * k) for k in (1, 2, 3)]
    rows += [(f"NME-H{k}", 11, 0.109, 10, 110, 8, 120 * k) for k in (1, 2, 3)]
    return build(rows, closures=[(7, 5)])


def dipeptide() -> Molecule:
    path = files("gencg.systems") / "data" / "alanine_dipeptide.pdb"
    return Molecule.from_mdtraj(mdtraj.load(str(path)))


MOLECULES: dict[str, Callable[[], Molecule]] = {
    "water": water,
    "hydrogen peroxide": peroxide,
    "methane": methane,
    "ethane": ethane,
    "butane": alkane,
    "dodecane": partial(alkane, 12),
    "neopentane": neopentane,
    "cyclohexane": cyclohexane,
    "benzene": benzene,
    "(E)-2-butene": butene,
    "(Z)-2-butene": partial(butene, 0.0),
    "glycine zwitterion": glycine,
    "acetamide": acetamide,
    "methylamine": methylamine,
    "trifluoroethane": trifluoroethane,
    "1-fluoroethanol": fluoroethanol,
    "ACE-PRO-NME": proline,
    "alanine dipeptide": dipeptide,
}
