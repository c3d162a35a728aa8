"""Build pentapeptide.pdb: LYS-MET-GLU-HIS-ARG with charged ends, minimised with amber14 and OBC2.

Charges of both signs, a ring, sulfur and carboxylates: what the dipeptide lacks.
Run as ``python build_pentapeptide.py``.
"""

from pathlib import Path

import numpy as np
import openmm.app as app
from numpy.typing import NDArray
from openmm import unit

from gencg.energies.openmm import minimise

# atom: (three atoms before it, bond in nm, angle and dihedral in degrees)
SIDE_CHAINS = {
    "LYS": [
        "CG N CA CB .153 114 180", "CD CA CB CG .153 111 180", "CE CB CG CD .153 111 180",
        "NZ CG CD CE .149 112 180",
    ],
    "MET": ["CG N CA CB .153 114 -65", "SD CA CB CG .181 112 180", "CE CB CG SD .178 100 70"],
    "GLU": [
        "CG N CA CB .153 114 180", "CD CA CB CG .152 113 65", "OE1 CB CG CD .125 118 0",
        "OE2 CB CG CD .125 118 180",
    ],
    "HIS": [
        "CG N CA CB .150 114 -60", "ND1 CA CB CG .138 123 90", "CD2 CA CB CG .136 131 -90",
        "CE1 CB CG ND1 .132 109 180", "NE2 CB CG CD2 .137 107 180",
    ],
    "ARG": [
        "CG N CA CB .153 114 180", "CD CA CB CG .153 111 180", "NE CB CG CD .146 112 180",
        "CZ CG CD NE .133 124 180", "NH1 CD NE CZ .133 120 0", "NH2 CD NE CZ .133 120 180",
    ],
}  # fmt: skip


def place(
    a: NDArray, b: NDArray, c: NDArray, *, bond: float, angle: float, dihedral: float
) -> NDArray:
    """Position bonded to c with the given bond, angle (b, c, .) and dihedral (a, b, c, .)."""
    theta, phi = np.radians([angle, dihedral])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    local = [-np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)]
    return c + bond * np.array(local) @ np.array([axis, np.cross(normal, axis), normal])


def build() -> tuple[app.Topology, NDArray]:
    """Heavy atoms of an extended, slightly twisted chain of L residues."""
    topology, positions = app.Topology(), []
    chain = topology.addChain("A")
    a, b, c = np.eye(3) * [[0.1], [0.1], [0.0]]
    psi = 140.0
    for number, (name, sides) in enumerate(SIDE_CHAINS.items(), start=1):
        residue = topology.addResidue(name, chain, str(number))
        atoms = {}
        atoms["N"] = place(a, b, c, bond=0.1335, angle=116.6, dihedral=psi)
        atoms["CA"] = place(b, c, atoms["N"], bond=0.1449, angle=121.9, dihedral=180)
        phi, psi = -90.0 + 10 * number, 140.0 - 15 * number
        atoms["C"] = place(c, atoms["N"], atoms["CA"], bond=0.1522, angle=111, dihedral=phi)
        atoms["CB"] = place(c, atoms["N"], atoms["CA"], bond=0.1530, angle=110, dihedral=phi - 120)
        a, b, c = atoms["N"], atoms["CA"], atoms["C"]
        atoms["O"] = place(a, b, c, bond=0.123, angle=120.4, dihedral=psi + 180)
        for side in sides:
            atom, i, j, k, bond, angle, dihedral = side.split()
            atoms[atom] = place(
                atoms[i], atoms[j], atoms[k],
                bond=float(bond), angle=float(angle), dihedral=float(dihedral),
            )  # fmt: skip
        if number == len(SIDE_CHAINS):
            atoms["OXT"] = place(a, b, c, bond=0.125, angle=117, dihedral=psi)
        for atom, position in atoms.items():
            topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
            positions.append(position)
    topology.createStandardBonds()
    return topology, np.array(positions)


if __name__ == "__main__":
    topology, positions = build()
    forcefield = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.addHydrogens(forcefield, pH=7.0)
    system = forcefield.createSystem(modeller.topology, constraints=None)
    minimum = minimise(system, modeller.positions.value_in_unit(unit.nanometer))
    minimum -= minimum.mean(0)
    with (Path(__file__).parent / "pentapeptide.pdb").open("w") as file:
        app.PDBFile.writeFile(modeller.topology, minimum * unit.nanometer, file, keepIds=True)
