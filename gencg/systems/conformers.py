"""The reference structure of an RDKit molecule: conformers, their minima, the stereo they keep."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("gencg")

N_CONFORMERS = 20
"""Structures that are embedded and minimised; the lowest is the reference."""

SMALLEST_ALKYNE = 140.0
"""Angle in degrees at a triple bond below which there is no such molecule; cyclooctyne has 158."""

DEGENERATE = 0.01
"""Energies that are less apart, in kcal/mol, are equal."""

Array = NDArray[np.float64]


def reference_structure(mol: Any, *, variant: str, seed: int, source: str) -> tuple[Any, Array]:
    """The lowest minimum of MMFF among some conformers, or that next to given coordinates.

    Stereo that the molecule specifies is kept, and checked. Stereo that it leaves open is that of
    the reference, which a warning names: the molecule that is sampled is one stereoisomer.

    Args:
        mol: RDKit molecule with hydrogens. If it has a conformer in space, that one is minimised;
            otherwise `N_CONFORMERS` are embedded.
        variant: Of MMFF.
        seed: Of the embedding.
        source: What the molecule came from, for messages.

    Returns:
        The molecule with its stereo assigned, and positions ``(n_atoms, 3)`` in nm.

    Raises:
        ValueError: If no structure can be embedded, or none keeps the stereo.
    """
    given = mol.GetNumConformers() > 0 and not is_drawing(mol)
    if mol.GetNumConformers() and not given:
        logger.info("%s has no coordinates in space; conformers are embedded", source)
    started = shaken(mol, seed) if given else embedded(mol, seed=seed, source=source)
    candidates = minimised(started, variant)
    wanted = stereo(mol)
    for positions in candidates:
        isomer = with_stereo(mol, positions)
        if keeps(isomer, wanted):
            _tell_open_stereo(isomer, wanted, source)
            return isomer, 0.1 * positions
    raise ValueError(
        f"{source}: none of {len(candidates)} minimised structures has the stereo that is "
        "specified, which is too strained for MMFF; check its @ and / marks, or leave them out"
    )


def is_drawing(mol: Any) -> bool:
    """Whether the coordinates are a drawing, or none at all.

    An atom with four neighbours is not flat, one with three not straight; hydrogens are counted.
    """
    conformer = mol.GetConformer()
    x = conformer.GetPositions()
    rank = np.linalg.matrix_rank(x - x.mean(0), tol=0.1)
    return not conformer.Is3D() or bool(rank < max(a.GetDegree() for a in mol.GetAtoms()) - 1)


def shaken(mol: Any, seed: int) -> Any:
    """A copy of the molecule with its atoms moved by 0.01 Å, so that flat saddles are left."""
    from rdkit import Chem

    copy = Chem.Mol(mol)
    x = copy.GetConformer().GetPositions()
    noise = np.random.default_rng(seed).normal(scale=0.01, size=x.shape)
    copy.GetConformer().SetPositions(x + noise)
    return copy


def embedded(mol: Any, *, seed: int, source: str) -> Any:
    """A copy of the molecule with conformers by distance geometry (ETKDG).

    Raises:
        ValueError: If there is no structure with these bonds and this stereo.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    mol = Chem.Mol(mol)
    parameters: Any = rdDistGeom.ETKDGv3()
    # RDKit multiplies the seed by the number of the conformer
    parameters.randomSeed = seed + 1
    parameters.numThreads = 1
    with rdBase.BlockLogs():
        # Strained rings, such as with a triple bond, have angles that are not the usual ones
        for random_start, usual_angles in ((False, True), (True, True), (True, False)):
            parameters.useRandomCoords = random_start
            parameters.useBasicKnowledge = usual_angles
            # One alone tells an impossible molecule in a twentieth of the time
            if rdDistGeom.EmbedMolecule(mol, parameters) >= 0:
                rdDistGeom.EmbedMultipleConfs(mol, N_CONFORMERS, parameters)
                if usual_angles or not _bent_triple_bonds(mol):
                    return mol
    raise ValueError(
        f"{source} could not be embedded in space; are its rings and its @ and / marks "
        "possible together? give an .sdf file with 3D coordinates instead"
    )


def _bent_triple_bonds(mol: Any) -> bool:
    """Whether a ring is too small for its triple bond, in a minimum of the force field."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers, rdMolTransforms

    copy = Chem.Mol(mol)
    rdForceFieldHelpers.MMFFOptimizeMolecule(copy, maxIters=2000)
    conformer = copy.GetConformer()
    for bond in copy.GetBonds():
        if bond.GetBondType() != Chem.BondType.TRIPLE:
            continue
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        for atom, other in (ends, ends[::-1]):
            for near in atom.GetNeighbors():
                triple = near.GetIdx(), atom.GetIdx(), other.GetIdx()
                if near.GetIdx() != other.GetIdx() and (
                    rdMolTransforms.GetAngleDeg(conformer, *triple) < SMALLEST_ALKYNE
                ):
                    return True
    return False


def minimised(mol: Any, variant: str) -> list[Array]:
    """Minima of MMFF from all conformers, in Å, the lowest first and fully converged."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdForceFieldHelpers

    # Typing rewrites aromatic bonds in place
    mol = Chem.Mol(mol)
    with rdBase.BlockLogs():
        parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
        found = []
        for conformer in mol.GetConformers():
            field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
                mol, parameters, confId=conformer.GetId()
            )
            field.Initialize()
            field.Minimize(maxIts=500)
            found.append((field.CalcEnergy(), field, conformer))
        # Of mirror images the first, which is the same on every machine
        lowest = min(energy for energy, _, _ in found)
        found.sort(key=lambda each: max(each[0] - lowest, DEGENERATE))
        for _ in range(10):
            if found[0][1].Minimize(maxIts=1000, forceTol=1e-5, energyTol=1e-9) == 0:
                break
    return [conformer.GetPositions() for _, _, conformer in found]


# --- Stereo ---------------------------------------------------------------------------------------

Centre = tuple[str, int]


def stereo(mol: Any) -> dict[Centre, str | None]:
    """Descriptor of every possible stereo atom ("Atom_...") and bond; None where left open.

    Nitrogen with three neighbours inverts and is no centre.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        found = Chem.FindPotentialStereo(Chem.Mol(mol))
    descriptors: dict[Centre, str | None] = {}
    for info in found:
        centre = (str(info.type), int(info.centeredOn))
        if centre[0].startswith("Atom"):
            atom = mol.GetAtomWithIdx(centre[1])
            if atom.GetSymbol() == "N" and atom.GetDegree() == 3:
                continue
        specified = info.specified == Chem.StereoSpecified.Specified
        descriptors[centre] = str(info.descriptor) if specified else None
    return descriptors


def with_stereo(mol: Any, positions: Array) -> Any:
    """A copy of the molecule with these positions in Å and the stereo that they have."""
    from rdkit import Chem, rdBase

    copy = Chem.Mol(mol)
    copy.RemoveAllConformers()
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions))
    conformer.Set3D(True)
    copy.AddConformer(conformer)
    with rdBase.BlockLogs():
        Chem.AssignStereochemistryFrom3D(copy)
    return copy


def keeps(isomer: Any, wanted: dict[Centre, str | None]) -> bool:
    """Whether no centre has another descriptor than the wanted one."""
    got = stereo(isomer)
    return all(wish is None or got.get(centre) in (None, wish) for centre, wish in wanted.items())


def _tell_open_stereo(isomer: Any, wanted: dict[Centre, str | None], source: str) -> None:
    labels = stereo_labels(isomer, [key for key, wish in wanted.items() if wish is None])
    if labels:
        logger.warning(
            "%s leaves the stereo of %s open; one isomer is sampled: %s",
            source,
            ", ".join(labels),
            isomeric_smiles(isomer),
        )


def stereo_labels(isomer: Any, centres: list[Centre]) -> list[str]:
    """Stereo atoms and bonds by name with what they are, such as "C2 (R)" and "C3=C4 (E)".

    Left out are those without a label, that have no isomers: in a cumulene, in a cage, or where
    resonance makes neighbours equal.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdCIPLabeler

    isomer, names = Chem.Mol(isomer), atom_names(isomer)
    with rdBase.BlockLogs():
        rdCIPLabeler.AssignCIPLabels(isomer)
    labels = []
    for kind, index in centres:
        if kind.startswith("Atom"):
            place = isomer.GetAtomWithIdx(index)
            name = names[index]
        else:
            place = isomer.GetBondWithIdx(index)
            name = f"{names[place.GetBeginAtomIdx()]}={names[place.GetEndAtomIdx()]}"
        if place.HasProp("_CIPCode"):
            labels.append(f"{name} ({place.GetProp('_CIPCode')})")
    return labels


def atom_names(mol: Any) -> list[str]:
    """Element and number within the element, from 1: unique names that fit into a PDB file."""
    count: dict[str, int] = {}
    names = []
    for atom in mol.GetAtoms():
        symbol = atom.GetSymbol()
        count[symbol] = count.get(symbol, 0) + 1
        names.append(f"{symbol}{count[symbol]}")
    return names


def isomeric_smiles(mol: Any) -> str:
    """Canonical SMILES with stereo, without the hydrogens."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))
