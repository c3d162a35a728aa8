"""Molecules from SMILES, with the Merck force field."""

import logging
from collections.abc import Iterable
from typing import Any

from gencg.energies.mmff import check_rdkit, check_variant
from gencg.systems.assembly import Bond, check_settings
from gencg.systems.base import System
from gencg.systems.small_molecules import MMFF_MAX_BARRIER, check_seed, mmff_system

logger = logging.getLogger("gencg")


def from_smiles(
    smiles: str,
    *,
    variant: str = "MMFF94",
    temperature: float = 300.0,
    seed: int = 0,
    soft_bonds: Iterable[Bond] | None = None,
    fold_rotors: bool = True,
    max_barrier: float = MMFF_MAX_BARRIER,
    name: str | None = None,
) -> System:
    """Build a system from a SMILES: RDKit's structure, and MMFF in vacuum.

    RDKit adds the hydrogens, embeds conformers and minimises them; the lowest is the reference.
    Stereo that the SMILES specifies is kept; stereo that it leaves open is chosen by the
    embedding, and a warning names it: one stereoisomer is sampled. So is one protonation state,
    the one that is written. MMFF is evaluated in vacuum, at a dielectric constant of 1, where
    charged groups attract each other far more than in water.

    Atoms are numbered as in the SMILES, the hydrogens after them, and named C1, C2, N1, ...

    Args:
        smiles: One molecule of at least three atoms, hydrogens counted.
        variant: ``"MMFF94"``, or ``"MMFF94s"`` with nitrogens that are flat on average.
        temperature: Default temperature in K.
        seed: Of the embedding.
        soft_bonds: Bonds (i, j) about which the molecule turns; by default all rotatable ones
            with a torsion barrier up to `max_barrier`. Double bonds never turn.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff: amides are.
        name: Name of the system; by default the SMILES.

    Raises:
        ValueError: If the SMILES is wrong, holds several molecules or fewer than three atoms, has
            unpaired electrons or an atom that MMFF has no type for, or no structure in space; if
            another argument is wrong, or RDKit is not installed.
    """
    check_settings(temperature=temperature, max_barrier=max_barrier)
    check_variant(variant)
    check_seed(seed)
    return mmff_system(
        parse_smiles(smiles),
        source=f"`smiles` {smiles!r}",
        variant=variant,
        temperature=temperature,
        seed=seed,
        soft_bonds=soft_bonds,
        fold_rotors=fold_rotors,
        max_barrier=max_barrier,
        name=name or smiles,
    )


def parse_smiles(smiles: str) -> Any:
    """RDKit's molecule of a SMILES.

    Raises:
        ValueError: If it is empty, holds spaces, or RDKit cannot read it; with RDKit's reason.
    """
    check_rdkit()
    from rdkit import Chem, rdBase

    if not isinstance(smiles, str) or not smiles.strip():
        raise ValueError(f"`smiles` must be a SMILES such as 'CC(=O)NC', got {smiles!r}")
    if len(smiles.split()) > 1 or smiles != smiles.strip():
        raise ValueError(f"`smiles` must be one SMILES without spaces, got {smiles!r}")
    with rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"`smiles` {smiles!r} cannot be read: {_reason(log.messages)}")
    if lost := _lost_marks(smiles):
        logger.warning(
            "`smiles` %r marks stereo at %s, where RDKit knows none (small rings hold Z alone): "
            "the mark is left out",
            smiles,
            ", ".join(lost),
        )
    return mol


def _lost_marks(smiles: str) -> list[str]:
    """Atoms and double bonds whose marks (@, /) are gone once RDKit has understood a SMILES."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        raw, mol = Chem.MolFromSmiles(smiles, sanitize=False), Chem.MolFromSmiles(smiles)
    if raw.GetNumAtoms() != mol.GetNumAtoms():
        # Hydrogens that are written become implicit
        mol = Chem.Mol(raw)
        Chem.SanitizeMol(mol)
        Chem.AssignStereochemistry(mol, cleanIt=True)
    unmarked = Chem.ChiralType.CHI_UNSPECIFIED
    lost = [
        f"{atom.GetSymbol()} (atom {atom.GetIdx() + 1})"
        for atom in raw.GetAtoms()
        if atom.GetChiralTag() != unmarked
        and mol.GetAtomWithIdx(atom.GetIdx()).GetChiralTag() == unmarked
    ]
    for bond in raw.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        marked = all(
            any(near.GetBondDir() != Chem.BondDir.NONE for near in end.GetBonds()) for end in ends
        )
        stereo = mol.GetBondWithIdx(bond.GetIdx()).GetStereo()
        double = bond.GetBondType() == Chem.BondType.DOUBLE
        if double and marked and stereo == Chem.BondStereo.STEREONONE:
            names = "=".join(end.GetSymbol() for end in ends)
            lost.append(f"{names} (atoms {ends[0].GetIdx() + 1} and {ends[1].GetIdx() + 1})")
    return lost


def _reason(messages: str) -> str:
    """The first of RDKit's lines without its time stamp and the SMILES itself."""
    line = messages.strip().splitlines()[0] if messages.strip() else "RDKit gives no reason"
    line = line.split("] ", 1)[-1].removeprefix("SMILES Parse Error: ")
    return line.split(" for input")[0].split(" while parsing")[0]
