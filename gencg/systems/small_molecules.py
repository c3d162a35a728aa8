"""Organic molecules with the Merck force field: from RDKit's molecule to a system."""

import logging
from collections.abc import Iterable
from typing import Any

from gencg.energies.mmff import MMFF
from gencg.molecule import Molecule
from gencg.systems.assembly import Bond, assemble
from gencg.systems.base import System
from gencg.systems.conformers import atom_names, isomeric_smiles, reference_structure

logger = logging.getLogger("gencg")

MINIMUM_ATOMS = 3
"""Of internal coordinates."""

MMFF_MAX_BARRIER = 60.0
"""Torsion barrier in kJ/mol above which a bond is stiff: amides have 78 and more.

More than for other force fields: MMFF's torsions also make up for its repulsion between the ends,
so that the barrier of an enamine is 35 where its torsions alone have 58.
"""


def mmff_system(
    mol: Any,
    *,
    source: str,
    variant: str,
    temperature: float,
    seed: int,
    soft_bonds: Iterable[Bond] | None,
    fold_rotors: bool,
    max_barrier: float,
    name: str,
) -> System:
    """System of an RDKit molecule with MMFF.

    Args:
        mol: Sanitised; hydrogens are added where they are missing, coordinates in space are kept.
        source: What the molecule came from, for messages.
        variant: As in `from_smiles`, like all that follow.
        temperature: In K.
        seed: Chooses the conformers that the reference is taken from.
        soft_bonds: Bonds that turn, whatever their barrier.
        fold_rotors: Whether equal turns of a rotor count as one.
        max_barrier: Barrier above which a bond is stiff, in kJ/mol.
        name: Of the system.

    Raises:
        ValueError: If it is no single molecule of at least three atoms that MMFF has types for,
            or has no structure that keeps its stereo.
    """
    mol = _whole_molecule(mol, source)
    try:
        energy = MMFF(mol, variant=variant)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    mol, positions = reference_structure(mol, variant=variant, seed=seed, source=source)
    # Hydrogens are there: angles and lengths need not tell
    molecule = Molecule(to_topology(mol), positions, check=False)
    return assemble(
        energy,
        molecule,
        temperature=temperature,
        soft_bonds=soft_bonds,
        fold_rotors=fold_rotors,
        max_barrier=max_barrier,
        name=name,
        description=f"{isomeric_smiles(mol)}, {variant} in vacuum",
    )


def check_seed(seed: int) -> None:
    """Refuse a seed that RDKit does not take.

    Raises:
        ValueError: If it is no whole number of 31 bits.
    """
    if not (isinstance(seed, int) and 0 <= seed < 2**31):
        raise ValueError(f"`seed` must be a whole number from 0 to 2**31 - 1, got {seed!r}")


def _whole_molecule(mol: Any, source: str) -> Any:
    """One molecule with all its hydrogens."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        whole = Chem.AddHs(mol, addCoords=True)
        parts = Chem.GetMolFrags(whole, asMols=True)
    if len(parts) > 1:
        large = {isomeric_smiles(part) for part in parts if part.GetNumAtoms() >= MINIMUM_ATOMS}
        raise ValueError(
            f"{source} holds {len(parts)} molecules, and gencg samples one at a time; give "
            + (f"one of: {', '.join(sorted(large))}" if large else "a molecule")
        )
    n_atoms = whole.GetNumAtoms()
    if n_atoms < MINIMUM_ATOMS:
        raise ValueError(
            f"{source} must be a molecule of at least {MINIMUM_ATOMS} atoms, got {n_atoms} with "
            "hydrogens; there is nothing to sample in a smaller one"
        )
    n_added = n_atoms - mol.GetNumAtoms()
    if n_added and mol.GetNumConformers():
        logger.info("%s lacks %d hydrogens; they are added", source, n_added)
    return whole


def to_topology(mol: Any) -> Any:
    """MDTraj topology of one residue MOL, atoms named by `atom_names`, with bond orders."""
    import mdtraj
    from mdtraj.core.element import get_by_symbol
    from mdtraj.core.topology import Aromatic, Double, Single, Triple
    from rdkit.Chem import BondType

    kinds = {
        BondType.SINGLE: (Single, 1),
        BondType.DOUBLE: (Double, 2),
        BondType.TRIPLE: (Triple, 3),
        BondType.AROMATIC: (Aromatic, None),
    }
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain(), resSeq=1)
    atoms = [
        topology.add_atom(name, get_by_symbol(atom.GetSymbol()), residue)
        for name, atom in zip(atom_names(mol), mol.GetAtoms(), strict=True)
    ]
    for bond in mol.GetBonds():
        kind, order = kinds.get(bond.GetBondType(), (None, None))
        ends = atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()]
        topology.add_bond(*ends, type=kind, order=order)
    return topology
