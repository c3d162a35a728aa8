"""Peptides from their sequence: a structure built, a force field laid on."""

from collections.abc import Collection, Sequence
from typing import Any, Unpack

import numpy as np

from gencg.systems.base import System
from gencg.systems.force_fields import create_system, force_field_words, load_force_field
from gencg.systems.hydrogens import settle_hydrogens
from gencg.systems.molecules import DEFAULT_FORCE_FIELD, SystemOptions, build
from gencg.systems.parametrised import Parametrised
from gencg.systems.peptide import build_peptide
from gencg.systems.residues import parse_sequence
from gencg.units import check_temperature


def from_sequence(
    sequence: str,
    *,
    forcefield: Sequence[str] = DEFAULT_FORCE_FIELD,
    caps: bool = False,
    phi_psi: Sequence[tuple[float, float]] | None = None,
    **options: Unpack[SystemOptions],
) -> System:
    """Build a peptide from its sequence, in three-letter names or the one-letter code.

    The molecule is what is written, nothing more: ``"ACE-ALA-ALA-NME"`` has its two caps,
    ``"AA"`` and ``"ALA-ALA"`` are the zwitterion, with charged ends. `caps` adds ACE and NME.

    * Amino acids: the twenty, and HID, HIE, HIP (HIS is HIE), ASH, GLH, LYN, CYM.
    * D forms: ``D-ALA`` or DAL, a small letter in the one-letter code (``"AaA"``).
    * Caps: ACE in front; NME or NH2 (NHE) behind.

    The structure is an extended strand with ideal bond lengths and angles and trans amides, or has
    the given backbone torsions; it is minimised as by `from_pdb`, and may relax.

    Where the force field has correction maps for L residues (CMAP of ff19SB, CHARMM), those of D
    residues are the mirror images, so that mirrored molecules have equal energies.

    Args:
        sequence: The sequence.
        forcefield: OpenMM force-field files, implicit solvent included.
        caps: Add ACE and NME where no cap is written.
        phi_psi: Pairs (phi, psi) in degrees, one for each amino acid, or one for all.
        **options: See `SystemOptions`.

    Raises:
        FileNotFoundError: If a force-field file does not exist.
        ValueError: If the sequence cannot be read, the angles do not fit it, or the force field
            lacks a residue; and as of `from_system`.
    """
    check_temperature(options.get("temperature", 300.0))
    parts = read_sequence(sequence, forcefield=forcefield, caps=caps, phi_psi=phi_psi)
    return build(parts, sequence.strip(), **options)


def read_sequence(
    sequence: str,
    *,
    forcefield: Sequence[str] = DEFAULT_FORCE_FIELD,
    caps: bool = False,
    phi_psi: Sequence[tuple[float, float]] | None = None,
) -> Parametrised:
    """A built peptide with its force field; arguments and errors as of `from_sequence`."""
    residues = parse_sequence(sequence, caps=caps)
    loaded = load_force_field(forcefield)
    topology, positions = build_peptide(residues, phi_psi=phi_psi)
    source = f"`sequence` {sequence!r}"
    system = create_system(loaded, topology, source=source, is_protonated=True)
    built = zip(topology.residues(), residues, strict=True)
    dextro = [ours for ours, residue in built if residue.is_dextro]
    mirror_maps(system, {a.index for ours in dextro for a in ours.atoms() if a.name == "CA"})
    hydrogens = [a.index for a in topology.atoms() if a.element.symbol == "H"]
    positions = settle_hydrogens(system, positions, hydrogens)
    words = force_field_words(forcefield)
    return Parametrised(system, topology, positions, words, is_rough=True)


def mirror_maps(system: Any, centres: Collection[int]) -> None:
    r"""Give residues of D form the mirror images of their correction maps.

    .. math:: U_D(\phi, \psi) = U_L(-\phi, -\psi)

    All other terms of the usual force fields are even in their torsions.

    Args:
        system: OpenMM ``System``; it is changed.
        centres: The CA atoms of the residues.
    """
    import openmm

    for force in system.getForces():
        if not isinstance(force, openmm.CMAPTorsionForce):
            continue
        mirrored: dict[int, int] = {}
        for k in range(force.getNumTorsions()):
            which, *atoms = force.getTorsionParameters(k)
            # phi is C-N-CA-C
            if atoms[2] not in centres:
                continue
            if which not in mirrored:
                size, energies = force.getMapParameters(which)
                grid = np.array(energies._value).reshape(size, size)
                back = -np.arange(size) % size
                mirrored[which] = force.addMap(size, grid[np.ix_(back, back)].ravel().tolist())
            force.setTorsionParameters(k, mirrored[which], *atoms)
