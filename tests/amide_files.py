"""N-methylformamide in the files of Amber, GROMACS and OpenMM, one force field in all of them.

The parameters are of the usual size, in the form of Amber's force fields, and of no published one.
Units here are Amber's: kcal/mol, Å, degrees, e.
"""

from itertools import chain, combinations
from pathlib import Path

import numpy as np

# name, element number, type, mass, charge
ATOMS = [
    ("HF", 1, "h5", 1.008, 0.05), ("C", 6, "c", 12.01, 0.55), ("O", 8, "o", 16.00, -0.56),
    ("N", 7, "n", 14.01, -0.45), ("H", 1, "hn", 1.008, 0.29), ("CM", 6, "c3", 12.01, -0.06),
    ("H1", 1, "h1", 1.008, 0.06), ("H2", 1, "h1", 1.008, 0.06), ("H3", 1, "h1", 1.008, 0.06),
]  # fmt: skip
POSITIONS = np.array([
    [-2.083, -0.590, 0.100], [-1.140, -0.022, 0.000], [-1.120, 1.210, 0.000],
    [0.000, -0.740, 0.000], [-0.040, -1.750, 0.000], [1.320, -0.130, 0.000],
    [1.240, 0.960, 0.050], [1.870, -0.440, -0.890], [1.860, -0.460, 0.890],
])  # fmt: skip
RESIDUE = "NMF"
BONDS = {
    (0, 1): (350.0, 1.10), (1, 2): (580.0, 1.23), (1, 3): (480.0, 1.34), (3, 4): (430.0, 1.01),
    (3, 5): (330.0, 1.45), (5, 6): (340.0, 1.09), (5, 7): (340.0, 1.09), (5, 8): (340.0, 1.09),
}  # fmt: skip
SIGMA_EPSILON = {
    "h5": (2.4, 0.015), "c": (3.4, 0.09), "o": (3.0, 0.20), "n": (3.2, 0.17), "hn": (1.1, 0.015),
    "c3": (3.4, 0.11), "h1": (2.5, 0.015),
}  # fmt: skip
FUDGE = (1.2, 2.0)
"""What 1-4 Coulomb and Lennard-Jones energies are divided by."""
KCAL = 4.184


def neighbours(i: int) -> list[int]:
    return sorted({j for bond in BONDS for j in bond if i in bond} - {i})


ANGLES = {
    (i, j, k): (50.0, 120.0 if j in (1, 3) else 109.5)
    for j in range(len(ATOMS)) for i, k in combinations(neighbours(j), 2)
}  # fmt: skip
# (periodicity, barrier / 2, phase); the amide of O and H has two terms
AMIDE, METHYL = [(2, 2.5, 180.0)], [(3, 0.05, 0.0)]
PROPERS = {
    (i, j, k, m): (METHYL if k == 5 else AMIDE + [(1, 2.0, 0.0)] * ((i, m) == (2, 4)))
    for j, k in ((1, 3), (3, 5)) for i in neighbours(j) if i != k for m in neighbours(k) if m != j
}  # fmt: skip
# The third atom is the central one
IMPROPERS = {(0, 3, 1, 2): [(2, 10.5, 180.0)], (1, 5, 3, 4): [(2, 1.1, 180.0)]}


def write_amber(folder: Path, *, residue: str = RESIDUE, radii: bool = True) -> Path:
    """Write amide.prmtop and amide.rst7; returns the path of the first."""
    types = sorted(SIGMA_EPSILON)
    bonds, angles = list(BONDS.items()), list(ANGLES.items())
    torsions = [
        (atoms, term, improper, repeated > 0)
        for group, improper in ((PROPERS, False), (IMPROPERS, True))
        for atoms, terms in group.items()
        for repeated, term in enumerate(terms)
    ]
    pairs = [(types[i], types[j]) for j in range(len(types)) for i in range(j + 1)]
    excluded = [[j + 1 for j in range(i + 1, len(ATOMS)) if _apart(i, j) <= 3] or [0]
                for i in range(len(ATOMS))]  # fmt: skip
    rows = {
        "bonds": [[3 * i, 3 * j, n] for n, ((i, j), _) in enumerate(bonds, 1)],
        "angles": [[3 * i, 3 * j, 3 * k, n] for n, ((i, j, k), _) in enumerate(angles, 1)],
        "torsions": [
            [3 * a[0], 3 * a[1], 3 * a[2] * (-1 if again or improper else 1),
             3 * a[3] * (-1 if improper else 1), n]
            for n, (a, _, improper, again) in enumerate(torsions, 1)
        ],
    }  # fmt: skip
    parts = {
        name: ([r for r in group if has_h(r)], [r for r in group if not has_h(r)])
        for name, group in rows.items()
    }
    n_types = len(types)
    counts = [
        len(ATOMS), n_types, *(len(part) for both in parts.values() for part in both),
    ]  # fmt: skip
    pointers = [
        *counts, 0, 0, sum(map(len, excluded)), 1, *(len(parts[k][1]) for k in parts),
        len(bonds), len(angles), len(torsions), n_types, *[0] * 9, len(ATOMS), 0, 0,
    ]  # fmt: skip
    mixed = [_lennard_jones(a, b) for a, b in pairs]
    index = [pairs.index(tuple(sorted((a, b)))) + 1 for a in types for b in types]
    sections = {
        "TITLE": ("20a4", ["amide"]),
        "POINTERS": ("10I8", pointers),
        "ATOM_NAME": ("20a4", [a[0] for a in ATOMS]),
        "CHARGE": ("5E16.8", [18.2223 * a[4] for a in ATOMS]),
        "ATOMIC_NUMBER": ("10I8", [a[1] for a in ATOMS]),
        "MASS": ("5E16.8", [a[3] for a in ATOMS]),
        "ATOM_TYPE_INDEX": ("10I8", [types.index(a[2]) + 1 for a in ATOMS]),
        "NUMBER_EXCLUDED_ATOMS": ("10I8", list(map(len, excluded))),
        "NONBONDED_PARM_INDEX": ("10I8", index),
        "RESIDUE_LABEL": ("20a4", [residue]),
        "RESIDUE_POINTER": ("10I8", [1]),
        "BOND_FORCE_CONSTANT": ("5E16.8", [k for _, (k, _) in bonds]),
        "BOND_EQUIL_VALUE": ("5E16.8", [r for _, (_, r) in bonds]),
        "ANGLE_FORCE_CONSTANT": ("5E16.8", [k for _, (k, _) in angles]),
        "ANGLE_EQUIL_VALUE": ("5E16.8", [np.radians(t) for _, (_, t) in angles]),
        "DIHEDRAL_FORCE_CONSTANT": ("5E16.8", [t[1][1] for t in torsions]),
        "DIHEDRAL_PERIODICITY": ("5E16.8", [float(t[1][0]) for t in torsions]),
        "DIHEDRAL_PHASE": ("5E16.8", [np.radians(t[1][2]) for t in torsions]),
        "SCEE_SCALE_FACTOR": ("5E16.8", [FUDGE[0]] * len(torsions)),
        "SCNB_SCALE_FACTOR": ("5E16.8", [FUDGE[1]] * len(torsions)),
        "SOLTY": ("5E16.8", [0.0] * n_types),
        "LENNARD_JONES_ACOEF": ("5E16.8", [a for a, _ in mixed]),
        "LENNARD_JONES_BCOEF": ("5E16.8", [b for _, b in mixed]),
        "BONDS_INC_HYDROGEN": ("10I8", list(chain(*parts["bonds"][0]))),
        "BONDS_WITHOUT_HYDROGEN": ("10I8", list(chain(*parts["bonds"][1]))),
        "ANGLES_INC_HYDROGEN": ("10I8", list(chain(*parts["angles"][0]))),
        "ANGLES_WITHOUT_HYDROGEN": ("10I8", list(chain(*parts["angles"][1]))),
        "DIHEDRALS_INC_HYDROGEN": ("10I8", list(chain(*parts["torsions"][0]))),
        "DIHEDRALS_WITHOUT_HYDROGEN": ("10I8", list(chain(*parts["torsions"][1]))),
        "EXCLUDED_ATOMS_LIST": ("10I8", list(chain(*excluded))),
        "HBOND_ACOEF": ("5E16.8", []),
        "HBOND_BCOEF": ("5E16.8", []),
        "HBCUT": ("5E16.8", []),
        "AMBER_ATOM_TYPE": ("20a4", [a[2] for a in ATOMS]),
    }
    if radii:
        radius = {1: 1.3, 6: 1.7, 7: 1.55, 8: 1.5}
        screen = {1: 0.85, 6: 0.72, 7: 0.79, 8: 0.85}
        sections["RADIUS_SET"] = ("1a80", ["own"])
        sections["RADII"] = ("5E16.8", [radius[a[1]] for a in ATOMS])
        sections["SCREEN"] = ("5E16.8", [screen[a[1]] for a in ATOMS])
    text = "%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/26  00:00:00\n"
    path = folder / "amide.prmtop"
    path.write_text(text + "".join(_section(name, *s) for name, s in sections.items()))
    _write_restart(folder / "amide.rst7")
    return path


def has_h(row: list[int]) -> bool:
    return any(ATOMS[abs(i) // 3][1] == 1 for i in row[:-1])


def _apart(i: int, j: int) -> int:
    near, steps = {i}, 0
    while j not in near:
        near, steps = near | {k for m in near for k in neighbours(m)}, steps + 1
    return steps


def _lennard_jones(a: str, b: str) -> tuple[float, float]:
    (s1, e1), (s2, e2) = SIGMA_EPSILON[a], SIGMA_EPSILON[b]
    sigma, epsilon = (s1 + s2) / 2, np.sqrt(e1 * e2)
    return 4 * epsilon * sigma**12, 4 * epsilon * sigma**6


def _section(name: str, form: str, values: list) -> str:
    per_line = int(form.split("a")[0].split("I")[0].split("E")[0])
    if "a" in form:
        width = int(form.split("a")[1])
        words = [f"{value:<{width}}" for value in values]
    else:
        words = [f"{v:8d}" if "I" in form else f"{v:16.8E}" for v in values]
    lines = ["".join(words[i : i + per_line]) for i in range(0, len(words), per_line)] or [""]
    return f"%FLAG {name}\n%FORMAT({form})\n" + "\n".join(lines) + "\n"


def _write_restart(path: Path) -> None:
    numbers = [f"{x:12.7f}" for x in POSITIONS.ravel()]
    lines = ["".join(numbers[i : i + 6]) for i in range(0, len(numbers), 6)]
    path.write_text("amide\n" + f"{len(ATOMS):5d}\n" + "\n".join(lines) + "\n")


def write_gromacs(
    folder: Path, *, include: str = "field.itp", rule: int = 2, extra: str = "", residue=RESIDUE
) -> Path:
    """Write amide.top, which includes the atom types, and amide.gro; returns the first."""
    nm, kj = 0.1, KCAL
    itp = ["[ atomtypes ]"]
    for name, (s, e) in SIGMA_EPSILON.items():
        atom = next(a for a in ATOMS if a[2] == name)
        v, w = s * nm, e * kj
        if rule == 1:
            v, w = 4 * e * kj * (s * nm) ** 6, 4 * e * kj * (s * nm) ** 12
        itp.append(f"{name} {name} {atom[1]} {atom[3]} 0.0 A {v:.8g} {w:.8g}")
    (folder / include).parent.mkdir(exist_ok=True)
    (folder / include).write_text("\n".join(itp) + "\n")
    top = ["; amide", "[ defaults ]", f"1 {rule} yes {1 / FUDGE[1]:.12g} {1 / FUDGE[0]:.12g}",
           f'#include "{include}"', "[ moleculetype ]", f"{residue} 3", "[ atoms ]"]  # fmt: skip
    for i, (name, _, kind, mass, charge) in enumerate(ATOMS, 1):
        top.append(f"{i} {kind} 1 {residue} {name} {i} {charge} {mass}")
    top.append("[ bonds ]")
    for (i, j), (k, r) in BONDS.items():
        top.append(f"{i + 1} {j + 1} 1 {r * nm:.8g} {2 * k * kj / nm**2:.8g}")
    top.append("[ pairs ]")
    top += [f"{i + 1} {m + 1} 1" for i, _, _, m in PROPERS]
    top.append("[ angles ]")
    for (i, j, k), (stiffness, angle) in ANGLES.items():
        top.append(f"{i + 1} {j + 1} {k + 1} 1 {angle} {2 * stiffness * kj:.8g}")
    top.append("[ dihedrals ]")
    for group, function in ((PROPERS, 9), (IMPROPERS, 4)):
        for atoms, terms in group.items():
            for n, k, phase in terms:
                ids = " ".join(str(i + 1) for i in atoms)
                top.append(f"{ids} {function} {phase} {k * kj:.8g} {n}")
    top += [extra, "#ifdef POSRES", '#include "posre.itp"', "#endif",
            "[ system ]", "amide", "[ molecules ]", f"{residue} 1"]  # fmt: skip
    path = folder / "amide.top"
    path.write_text("\n".join(top) + "\n")
    rows = [
        f"{1:5d}{residue:<5}{atom[0]:>5}{i:5d}" + "".join(f"{x * nm:10.5f}" for x in xyz)
        for i, (atom, xyz) in enumerate(zip(ATOMS, POSITIONS, strict=True), 1)
    ]
    box = "   3.00000   3.00000   3.00000"
    (folder / "amide.gro").write_text("\n".join(["amide", f"{len(ATOMS)}", *rows, box]) + "\n")
    return path
