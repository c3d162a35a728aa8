"""Ideal geometry of the amino acids: how each side-chain atom hangs on three others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """One atom of a side chain, placed from three others.

    Attributes:
        atom: Its name.
        bonded: The atom it is bonded to.
        second: That atom's neighbour.
        third: The neighbour's neighbour.
        length: Bond length in nm.
        angle: Bond angle in degrees.
        torsion: Torsion in degrees of an L residue, from `chi` where there is one.
        chi: Number of the side-chain torsion that turns this atom, or 0.
    """

    atom: str
    bonded: str
    second: str
    third: str
    length: float
    angle: float
    torsion: float
    chi: int = 0


# atom, the three atoms before it, bond (nm), angle and torsion (degrees)
_ROWS = {
    "VAL": "CG1 CB CA N .152 110.9 chi1; CG2 CB CA N .152 110.9 chi1+122",
    "LEU": "CG CB CA N .153 115.0 chi1; CD1 CG CB CA .152 110.7 chi2; "
           "CD2 CG CB CA .152 110.7 chi2+122",
    "ILE": "CG1 CB CA N .153 110.4 chi1; CG2 CB CA N .152 110.5 chi1-122; "
           "CD1 CG1 CB CA .152 113.8 chi2",
    "SER": "OG CB CA N .142 111.1 chi1",
    "THR": "OG1 CB CA N .143 109.6 chi1; CG2 CB CA N .152 111.1 chi1-121",
    "CYS": "SG CB CA N .181 113.8 chi1",
    "MET": "CG CB CA N .152 114.1 chi1; SD CG CB CA .181 112.7 chi2; "
           "CE SD CG CB .179 100.8 chi3",
    "PHE": "CG CB CA N .151 113.8 chi1; CD1 CG CB CA .139 120.0 chi2; "
           "CD2 CG CB CA .139 120.0 chi2+180; CE1 CD1 CG CB .139 120.0 180; "
           "CE2 CD2 CG CB .139 120.0 180; CZ CE1 CD1 CG .139 120.0 0",
    "TYR": "CG CB CA N .151 113.8 chi1; CD1 CG CB CA .139 120.0 chi2; "
           "CD2 CG CB CA .139 120.0 chi2+180; CE1 CD1 CG CB .139 120.0 180; "
           "CE2 CD2 CG CB .139 120.0 180; CZ CE1 CD1 CG .139 120.0 0; "
           "OH CZ CE1 CD1 .138 120.0 180",
    "TRP": "CG CB CA N .150 113.6 chi1; CD1 CG CB CA .137 126.9 chi2; "
           "CD2 CG CB CA .143 126.8 chi2+180; NE1 CD1 CG CB .137 110.2 180; "
           "CE2 CD2 CG CB .141 107.2 180; CE3 CD2 CG CB .140 133.9 0; "
           "CZ2 CE2 CD2 CG .139 122.4 180; CZ3 CE3 CD2 CG .138 118.6 180; "
           "CH2 CZ2 CE2 CD2 .137 117.5 0",
    "HIS": "CG CB CA N .150 113.8 chi1; ND1 CG CB CA .138 122.7 chi2; "
           "CD2 CG CB CA .136 131.2 chi2+180; CE1 ND1 CG CB .132 109.0 180; "
           "NE2 CD2 CG CB .137 107.2 180",
    "ASP": "CG CB CA N .152 112.6 chi1; OD1 CG CB CA .125 118.4 chi2; "
           "OD2 CG CB CA .125 118.4 chi2+180",
    "ASN": "CG CB CA N .152 112.6 chi1; OD1 CG CB CA .123 120.8 chi2; "
           "ND2 CG CB CA .133 116.4 chi2+180",
    "GLU": "CG CB CA N .152 114.1 chi1; CD CG CB CA .152 112.6 chi2; "
           "OE1 CD CG CB .125 118.4 chi3; OE2 CD CG CB .125 118.4 chi3+180",
    "GLN": "CG CB CA N .152 114.1 chi1; CD CG CB CA .152 112.6 chi2; "
           "OE1 CD CG CB .123 120.8 chi3; NE2 CD CG CB .133 116.4 chi3+180",
    "LYS": "CG CB CA N .152 114.1 chi1; CD CG CB CA .152 111.3 chi2; "
           "CE CD CG CB .152 111.3 chi3; NZ CE CD CG .149 111.9 chi4",
    "ARG": "CG CB CA N .152 114.1 chi1; CD CG CB CA .152 111.3 chi2; "
           "NE CD CG CB .146 112.0 chi3; CZ NE CD CG .133 124.2 chi4; "
           "NH1 CZ NE CD .133 120.0 0; NH2 CZ NE CD .133 119.7 180",
}  # fmt: skip

SIDE_CHAINS: dict[str, tuple[Placement, ...]] = {"GLY": (), "ALA": (), "PRO": ()}
"""Atoms beyond CB, in an order in which each finds its three others placed."""

CHI1 = (-65.0, 180.0, 60.0)
"""First torsions to choose from in degrees, the most frequent one first."""
CHI2 = {
    "PHE": (90.0, 60.0, 120.0), "TYR": (90.0, 60.0, 120.0), "TRP": (95.0, -95.0, 0.0),
    "HIS": (-80.0, 80.0, 180.0), "ASP": (0.0, 60.0, -60.0), "ASN": (-20.0, 60.0, 180.0),
}  # fmt: skip
"""Second torsions of flat side chains, likewise."""
TETRAHEDRAL_CHI2 = (180.0, 65.0, -65.0)
"""Second torsions of the other ones; later torsions are trans."""


def _placement(row: str) -> Placement:
    atom, bonded, second, third, length, angle, torsion = row.split()
    chi = 0
    if torsion.startswith("chi"):
        chi, torsion = int(torsion[3]), torsion[4:] or "0"
    return Placement(
        atom, bonded, second, third, length=float(length), angle=float(angle),
        torsion=float(torsion), chi=chi,
    )  # fmt: skip


SIDE_CHAINS |= {
    name: tuple(_placement(row) for row in rows.split(";")) for name, rows in _ROWS.items()
}
