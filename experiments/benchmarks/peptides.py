"""Poly-alanine of any length from ideal geometry: ACE-(ALA)n-NME has 12 + 10 n atoms."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from openmm import app
from torch import Tensor

from gencg.geometry import place_atoms

PHI, PSI = -65, -40
"""A right-handed helix: compact at every length, and no two atoms clash."""

# atom, the atoms from which bond, angle and torsion are measured, nm, degrees; "-" is the residue
# before. The first three atoms of all are placed by hand.
RESIDUES = {
    "ACE": (
        "HH31", "CH3", "C", "O C CH3 HH31 .123 120.5 0", "HH32 CH3 C HH31 .109 109.5 120",
        "HH33 CH3 C HH31 .109 109.5 -120",
    ),
    "ALA": (
        "N -C -O -{before} .1335 123 180", "H N -C -O .101 120 180", "CA N -C -O .1449 122 0",
        f"C CA N -C .1522 111 {PHI}", f"O C CA N .123 120.4 {PSI + 180}",
        f"CB CA N -C .153 110 {PHI - 120}", f"HA CA N -C .109 109 {PHI + 120}",
        "HB1 CB CA N .109 109.5 60", "HB2 CB CA N .109 109.5 180", "HB3 CB CA N .109 109.5 -60",
    ),
    "NME": (
        "N -C -O -{before} .1335 123 180", "H N -C -O .101 120 180", "CH3 N -C -O .1449 122 0",
        "HH31 CH3 N -C .109 109.5 60", "HH32 CH3 N -C .109 109.5 180",
        "HH33 CH3 N -C .109 109.5 -60",
    ),
}  # fmt: skip
START = {"HH31": (0.109, 0.0, 0.0), "CH3": (0.0, 0.0, 0.0), "C": (-0.0508, 0.1435, 0.0)}


def polyalanine(n: int) -> tuple[Any, NDArray[np.float64]]:
    """OpenMM topology of ACE-(ALA)n-NME, and its positions ``(12 + 10 n, 3)`` in nm."""
    topology, atoms, x = app.Topology(), dict[tuple[int, str], Any](), dict[Any, Tensor]()
    chain, before = topology.addChain(), ""
    for number, residue_name in enumerate(["ACE", *["ALA"] * n, "NME"]):
        residue = topology.addResidue(residue_name, chain)
        for row in RESIDUES[residue_name]:
            name, *recipe = row.format(before=before).split()
            atom = topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
            atoms[number, name] = atom
            if not recipe:
                x[atom] = torch.tensor(START[name], dtype=torch.float64)
                continue
            origin = [atoms[number - (a[0] == "-"), a.lstrip("-")] for a in recipe[:3]]
            topology.addBond(atom, origin[0])
            x[atom] = place([x[a] for a in origin], *map(float, recipe[3:]))
        before = "CH3" if residue_name == "ACE" else "CA"
    for name in ("HH31", "C"):
        topology.addBond(atoms[0, name], atoms[0, "CH3"])
    return topology, torch.stack(list(x.values())).numpy()


def place(origin: list[Tensor], length: float, angle: float, torsion: float) -> Tensor:
    """Position at a length in nm, an angle and a torsion in degrees from three atoms."""
    r, theta, phi = torch.tensor([length, np.radians(angle), np.radians(torsion)]).double()
    return place_atoms(r, theta, phi, bonded=origin[0], second=origin[1], third=origin[2])
