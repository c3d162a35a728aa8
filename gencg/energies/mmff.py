"""MMFF94 and MMFF94s: the Merck molecular force field, with RDKit's atom types and parameters."""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.bonded import FourierTorsions
from gencg.energies.forcefield import ForceField
from gencg.energies.mmff_terms import (
    BufferedCoulomb,
    BufferedVanDerWaals,
    CubicAngles,
    LinearAngles,
    QuarticBonds,
    StretchBends,
    WilsonAngles,
)
from gencg.energies.reader import columns

VARIANTS = ("MMFF94", "MMFF94s")
"""The force field of 1996, and its static variant with flatter nitrogens (1999)."""

KCAL, ANGSTROM = 4.184, 0.1
"""kcal/mol in kJ/mol, and Å in nm."""
FORCE_CONSTANT = 143.9325 * KCAL
"""1 mdyn Å, the unit of MMFF's force constants, in kJ/mol."""
COULOMB_CONSTANT = 332.0716 * KCAL * ANGSTROM
"""Coulomb's constant in kJ nm/mol/e², with MMFF's digits."""
SCALE_14 = 0.75
"""Of the Coulomb energy of atoms three bonds apart."""
LINEAR_TYPES = frozenset({4, 53, 61})
"""Atom types with a linear geometry: sp carbon, and =N= and nitrilium nitrogen."""

Array = NDArray[np.float64]


class MMFF(ForceField):
    r"""The Merck molecular force field of a molecule in vacuum.

    .. math:: U = \sum U_\text{bonds} + U_\text{angles} + U_\text{stretch-bends}
              + U_\text{out-of-plane} + U_\text{torsions} + U_\text{van der Waals}
              + U_\text{electrostatics}

    For drug-like organic molecules with H, C, N, O, F, Si, P, S, Cl, Br and I. Atom types, charges
    and parameters are RDKit's, and so is the energy, to 1e-9 kcal/mol. All pairs of atoms three
    and more bonds apart interact; there is no cutoff, and the dielectric constant is 1: the
    molecule is in vacuum, where charged groups attract each other far more than in water.

    `terms` names them ``bonds``, ``angles``, ``linear_angles`` (at sp atoms), ``stretch_bends``,
    ``out_of_plane``, ``torsions``, ``van_der_waals`` and ``electrostatics``; those that the
    molecule does not have are left out. How it is evaluated stands at `ForceField`.

    Args:
        mol: RDKit molecule with all its hydrogens as atoms; it is left as it is. Conformers are
            not looked at.
        variant: ``"MMFF94"``, or ``"MMFF94s"`` with nitrogens that are flat on average.
        chunk_size: See `ForceField`.
        compile: See `ForceField`.

    Raises:
        ValueError: If the variant is unknown, hydrogens are missing, the molecule has unpaired
            electrons or an atom that MMFF has no type for, or RDKit is not installed.

    References:
        | Merck molecular force field, I to V (Halgren, 1996)
        | MMFF VI: MMFF94s option for energy minimization studies (Halgren, 1999)
        | Bringing the MMFF force field to the RDKit (Tosco, Stiefl, Landrum, 2014)
        | https://doi.org/10.1186/s13321-014-0037-3
    """

    def __init__(
        self,
        mol: Any,
        *,
        variant: str = "MMFF94",
        chunk_size: int | None = None,
        compile: bool = True,
    ) -> None:
        check_variant(variant)
        _check_molecule(mol, variant)
        terms = read_terms(mol, variant)
        super().__init__(terms, mol.GetNumAtoms(), chunk_size=chunk_size, compile=compile)
        self.variant = variant
        self._mol: Any = mol.ToBinary()

    def by_rdkit(self, x: Tensor) -> Tensor:
        """What RDKit itself finds, one configuration at a time, ``(n,)`` in kJ/mol.

        Args:
            x: Configurations, ``(n, n_atoms, 3)`` in nm.
        """
        from rdkit import Chem
        from rdkit.Chem import rdForceFieldHelpers

        mol = Chem.Mol(self._mol)
        mol.RemoveAllConformers()
        mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
        parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=self.variant)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, parameters)
        rows = (x.detach().double() / ANGSTROM).flatten(1).tolist()
        return torch.tensor([field.CalcEnergy(row) for row in rows], dtype=torch.float64) * KCAL

    def __repr__(self) -> str:
        names = ", ".join(self.modules)
        return f"MMFF(n_atoms={self.event_shape[0]}, variant={self.variant!r}, terms=[{names}])"


def check_variant(variant: str) -> str:
    """Return the variant of MMFF, or raise `ValueError` if there is none of this name."""
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, got {variant!r}")
    return variant


def check_rdkit() -> None:
    """Raise `ValueError` with the cure if RDKit is not installed, or too old."""
    try:
        from rdkit import rdBase
    except ImportError as error:
        raise ValueError(
            "MMFF and molecules from SMILES, SDF or MOL files need RDKit, which is not installed; "
            "pip install 'gencg[mol]'"
        ) from error
    if not hasattr(rdBase, "CaptureErrorLog"):
        raise ValueError(
            f"RDKit must be of 2026.03 or newer, got {rdBase.rdkitVersion}; "
            "pip install --upgrade 'gencg[mol]'"
        )


# --- What MMFF can describe -----------------------------------------------------------------------

ELEMENTS = frozenset({"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"})
"""Elements that MMFF has types for, bare ions apart."""


def _check_molecule(mol: Any, variant: str) -> None:
    check_rdkit()
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdForceFieldHelpers

    if not isinstance(mol, Chem.Mol):
        raise ValueError(
            f"`mol` must be an RDKit molecule with all its hydrogens, got {mol!r:.40}; "
            "gencg.systems.from_smiles and from_sdf make one"
        )
    with rdBase.BlockLogs():
        n_missing = Chem.AddHs(mol).GetNumAtoms() - mol.GetNumAtoms()
    if n_missing:
        raise ValueError(f"`mol` lacks {n_missing} hydrogens; add them with Chem.AddHs(mol)")
    radicals = [a for a in mol.GetAtoms() if a.GetNumRadicalElectrons()]
    if radicals:
        raise ValueError(
            f"molecule must have no unpaired electrons, got a radical at {_named(radicals)}; "
            f"{variant} describes closed shells: add the missing bond, hydrogen or charge"
        )
    strange = [a for a in mol.GetAtoms() if a.GetSymbol() not in ELEMENTS]
    if strange:
        raise ValueError(
            f"{variant} has no type for {_named(strange)}; it knows "
            f"{', '.join(sorted(ELEMENTS))}: leave the group out, or give a .pdb file and a force "
            "field that has it"
        )
    with rdBase.BlockLogs():
        typed = rdForceFieldHelpers.MMFFHasAllMoleculeParams(Chem.Mol(mol))
    if not typed:
        raise ValueError(
            f"{variant} has no type for some atom of {Chem.MolToSmiles(Chem.RemoveHs(mol))}, whose "
            "elements it knows in other bonds or charges only; check valences and formal "
            "charges, or give a .pdb file and a force field that has it"
        )


def _named(atoms: list[Any]) -> str:
    shown = [f"{a.GetSymbol()} (atom {a.GetIdx() + 1})" for a in atoms[:4]]
    more = f" and {len(atoms) - 4} more" if len(atoms) > 4 else ""
    return ", ".join(shown) + more


# --- RDKit's parameters as rows, rows as terms ----------------------------------------------------

Rows = Iterator[tuple[Any, ...]]


def read_terms(mol: Any, variant: str) -> dict[str, nn.Module]:
    """Terms of MMFF by name, those without any interaction left out.

    Args:
        mol: RDKit molecule with hydrogens, every atom of which has a type.
        variant: ``"MMFF94"`` or ``"MMFF94s"``.
    """
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    # Typing rewrites aromatic bonds in place
    mol = Chem.Mol(mol)
    parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    n = mol.GetNumAtoms()
    terms: dict[str, nn.Module] = {}
    if rows := list(read_bonds(mol, parameters)):
        atoms, length, k = columns(rows)
        terms["bonds"] = QuarticBonds(atoms, length, k=k, n_atoms=n)
    if rows := list(read_angles(mol, parameters)):
        atoms, angle, k = columns(rows)
        terms["angles"] = CubicAngles(atoms, angle, k=k, n_atoms=n)
    if rows := list(read_linear_angles(mol, parameters)):
        atoms, k = columns(rows)
        terms["linear_angles"] = LinearAngles(atoms, k=k, n_atoms=n)
    if rows := list(read_stretch_bends(mol, parameters)):
        atoms, angle, lengths, k = columns(rows)
        terms["stretch_bends"] = StretchBends(atoms, angle, lengths=lengths, k=k, n_atoms=n)
    if rows := list(read_out_of_plane(mol, parameters)):
        atoms, k = columns(rows)
        terms["out_of_plane"] = WilsonAngles(atoms, k=k, n_atoms=n)
    if rows := list(read_torsions(mol, parameters)):
        atoms, cosines = columns(rows)
        sines = np.zeros_like(cosines.T)
        terms["torsions"] = FourierTorsions(atoms, cosines.T, sines=sines, n_atoms=n)
    radius, depth, charges = read_pairs(mol, parameters)
    terms["van_der_waals"] = BufferedVanDerWaals(radius, depth=depth)
    terms["electrostatics"] = BufferedCoulomb(charges)
    return terms


def read_bonds(mol: Any, parameters: Any) -> Rows:
    """Length and force constant of every bond."""
    for bond in mol.GetBonds():
        atoms = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        if found := parameters.GetMMFFBondStretchParams(mol, *atoms):
            yield atoms, ANGSTROM * found[2], FORCE_CONSTANT / ANGSTROM**2 * found[1]


def read_angles(mol: Any, parameters: Any) -> Rows:
    """Angle and force constant at every atom that is not linear."""
    for atoms in _angles(mol, parameters, linear=False):
        if found := parameters.GetMMFFAngleBendParams(mol, *atoms):
            yield atoms, np.radians(found[2]), FORCE_CONSTANT * found[1]


def read_linear_angles(mol: Any, parameters: Any) -> Rows:
    """Force constant at linear atoms."""
    for atoms in _angles(mol, parameters, linear=True):
        if found := parameters.GetMMFFAngleBendParams(mol, *atoms):
            yield atoms, FORCE_CONSTANT * found[1]


def read_stretch_bends(mol: Any, parameters: Any) -> Rows:
    """Angle, both lengths and both constants of every angle but the linear ones."""
    for i, j, k in _angles(mol, parameters, linear=False):
        if found := parameters.GetMMFFStretchBendParams(mol, i, j, k):
            angle = np.radians(parameters.GetMMFFAngleBendParams(mol, i, j, k)[2])
            bonds = [parameters.GetMMFFBondStretchParams(mol, *bond) for bond in ((i, j), (j, k))]
            lengths = [ANGSTROM * bond[2] for bond in bonds]
            yield (i, j, k), angle, lengths, FORCE_CONSTANT / ANGSTROM * np.array(found[1:])


def read_out_of_plane(mol: Any, parameters: Any) -> Rows:
    """Force constant of each bond of an atom with three, out of the plane of the other two."""
    for atom in mol.GetAtoms():
        if atom.GetDegree() == 3:
            j, (a, b, c) = atom.GetIdx(), _neighbours(atom)
            # A constant of zero is one, too
            found = parameters.GetMMFFOopBendParams(mol, a, j, b, c)
            if found is not None:
                for plane in ((a, j, b, c), (a, j, c, b), (b, j, c, a)):
                    yield plane, FORCE_CONSTANT * found


def read_torsions(mol: Any, parameters: Any) -> Rows:
    r"""Fourier series of :math:`\tfrac12 \sum_{n=1}^3 V_n (1 - (-1)^n \cos n\varphi)`."""
    for bond in mol.GetBonds():
        if not (_turns(bond.GetBeginAtom()) and _turns(bond.GetEndAtom())):
            continue
        j, k = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        ends = product(_neighbours(bond.GetBeginAtom()), _neighbours(bond.GetEndAtom()))
        for i, l in ends:  # noqa: E741
            # Two atoms of a three-membered ring have one third atom, and no torsion
            if i in (k, l) or l == j:
                continue
            if found := parameters.GetMMFFTorsionParams(mol, i, j, k, l):
                v1, v2, v3 = 0.5 * KCAL * np.array(found[1:])
                yield (i, j, k, l), [v1 + v2 + v3, v1, -v2, v3]


def read_pairs(mol: Any, parameters: Any) -> tuple[Array, Array, Array]:
    """Tables of radius, depth and scaled charges of atoms three and more bonds apart."""
    from rdkit import Chem

    n = mol.GetNumAtoms()
    n_bonds = Chem.GetDistanceMatrix(mol)
    radius, depth = np.full((n, n), ANGSTROM), np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        if n_bonds[i, j] > 2 and (found := parameters.GetMMFFVdWParams(i, j)):
            # With the rule for donors and acceptors of hydrogen bonds
            radius[i, j] = radius[j, i] = ANGSTROM * found[2]
            depth[i, j] = depth[j, i] = KCAL * found[3]
    charge = np.array([parameters.GetMMFFPartialCharge(i) for i in range(n)])
    scale = np.where(n_bonds > 3, 1.0, np.where(n_bonds > 2, SCALE_14, 0.0))
    return radius, depth, COULOMB_CONSTANT * scale * charge[:, None] * charge


def _angles(mol: Any, parameters: Any, *, linear: bool) -> list[tuple[int, int, int]]:
    """Angles (i, j, k) at all linear or all other atoms j."""
    return [
        (i, atom.GetIdx(), k)
        for atom in mol.GetAtoms()
        if (parameters.GetMMFFAtomType(atom.GetIdx()) in LINEAR_TYPES) == linear
        for i, k in combinations(_neighbours(atom), 2)
    ]


def _neighbours(atom: Any) -> list[int]:
    return [other.GetIdx() for other in atom.GetNeighbors()]


def _turns(atom: Any) -> bool:
    """Whether RDKit looks for torsions at the bonds of an atom: sp2 or sp3, no triple bond."""
    from rdkit.Chem import BondType, HybridizationType

    return atom.GetHybridization() in (HybridizationType.SP2, HybridizationType.SP3) and all(
        bond.GetBondType() != BondType.TRIPLE for bond in atom.GetBonds()
    )
