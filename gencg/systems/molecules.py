"""Molecules with a force field: from a structure file, or from an OpenMM system."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from gencg.energies.forcefield import ForceField
from gencg.molecule import Molecule
from gencg.systems.assembly import MAX_BARRIER, Bond, assemble, check_settings
from gencg.systems.base import System
from gencg.systems.files import check_n_atoms
from gencg.systems.force_fields import create_system, force_field_words, load_force_field
from gencg.systems.hydrogens import (
    added_atoms,
    hydrogens_in_words,
    settle_hydrogens,
    with_hydrogens,
)
from gencg.systems.parametrised import Parametrised
from gencg.systems.serialized import read_objects
from gencg.systems.structure import read_structure

logger = logging.getLogger("gencg")

DEFAULT_FORCE_FIELD = ("amber14-all.xml", "implicit/obc2.xml")
DIPEPTIDE_FORCE_FIELD = ("amber96.xml", "implicit/obc1.xml")
DIPEPTIDE_KNOWN = {
    "log_z": -178.685, "log_z_error": 0.01, "source": "reweighted samples, ESS 0.92",
}  # fmt: skip
"""Of its force field at 300 K."""
PEPTIDE_FORCE_FIELD = ("amber99sbildn.xml", "amber99_obc.xml")
DATA = Path(__file__).parent / "data"


def alanine_dipeptide(
    *,
    forcefield: Sequence[str] = DIPEPTIDE_FORCE_FIELD,
    temperature: float = 300.0,
    fold_rotors: bool = True,
) -> System:
    """N-acetyl-L-alanine-N-methylamide, all 22 atoms.

    With the default force field at 300 K, log Z is known to 0.01, from reweighted samples of an
    ESS of 0.92. It is that of unfolded rotors, which folding leaves as it is
    (`InternalCoordinates`).

    Args:
        forcefield: OpenMM force-field files.
        temperature: Temperature in K.
        fold_rotors: See `InternalCoordinates`.
    """
    forcefield = (forcefield,) if isinstance(forcefield, str) else tuple(forcefield)
    is_known = forcefield == DIPEPTIDE_FORCE_FIELD and temperature == 300.0
    return from_pdb(
        DATA / "alanine_dipeptide.pdb",
        forcefield=forcefield,
        temperature=temperature,
        fold_rotors=fold_rotors,
        name="alanine-dipeptide",
        known=DIPEPTIDE_KNOWN if is_known else {},
    )


def alanine_tetrapeptide(
    *, forcefield: Sequence[str] = PEPTIDE_FORCE_FIELD, temperature: float = 300.0
) -> System:
    """N-acetyl-(L-alanine)3-N-methylamide, all 42 atoms.

    Args:
        forcefield: OpenMM force-field files.
        temperature: Temperature in K.
    """
    return _ready_made("alanine-tetrapeptide", forcefield, temperature)


def alanine_hexapeptide(
    *, forcefield: Sequence[str] = PEPTIDE_FORCE_FIELD, temperature: float = 300.0
) -> System:
    """N-acetyl-(L-alanine)5-N-methylamide, all 62 atoms.

    Arguments as of `alanine_tetrapeptide`.
    """
    return _ready_made("alanine-hexapeptide", forcefield, temperature)


def _ready_made(name: str, forcefield: Sequence[str], temperature: float) -> System:
    path = DATA / f"{name.replace('-', '_')}.pdb"
    return from_pdb(path, forcefield=forcefield, temperature=temperature, name=name)


class SystemOptions(TypedDict, total=False):
    """Options of every loader, as of `from_system`.

    Attributes:
        temperature: Default temperature in K, 300 K where none is given.
        soft_bonds: Bonds (i, j) about which the molecule turns.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff.
        name: Name of the system; by default that of its file.
        known: Known answers.
    """

    temperature: float
    soft_bonds: Iterable[Bond] | None
    fold_rotors: bool
    max_barrier: float
    name: str | None
    known: Mapping[str, Any] | None


def from_pdb(
    path: str | Path,
    *,
    forcefield: Sequence[str] = DEFAULT_FORCE_FIELD,
    add_hydrogens: bool = False,
    ph: float = 7.0,
    **options: Unpack[SystemOptions],
) -> System:
    """Build a system from a PDB or mmCIF file and OpenMM force-field files.

    The file holds one molecule with all its heavy atoms. Its structure is minimised first; the
    result is the reference, with the handedness and double bonds of the file.

    Args:
        path: Structure file.
        forcefield: OpenMM force-field files, implicit solvent included: no box, no cutoff.
        add_hydrogens: Add the hydrogens that the file lacks, of amino acids and nucleotides, by
            OpenMM's ``Modeller.addHydrogens``; which residues got some is logged.
        ph: Chooses the state of protonation of added hydrogens; those of the file stay.
        **options: See `SystemOptions`.

    Raises:
        FileNotFoundError: If the structure or a force-field file does not exist.
        ValueError: If the file cannot be read or is too large, a chain has a gap, a residue fits
            no template; and as of `from_system`.
    """
    check_settings(
        temperature=options.get("temperature", 300.0),
        max_barrier=options.get("max_barrier", MAX_BARRIER),
    )
    parts = read_pdb(path, forcefield=forcefield, add_hydrogens=add_hydrogens, ph=ph)
    return build(parts, Path(path).stem, **options)


def read_pdb(
    path: str | Path,
    *,
    forcefield: Sequence[str] = DEFAULT_FORCE_FIELD,
    add_hydrogens: bool = False,
    ph: float = 7.0,
) -> Parametrised:
    """A structure file with its force field; arguments and errors as of `from_pdb`."""
    given, positions = read_structure(path)
    loaded = load_force_field(forcefield)
    topology = given
    if add_hydrogens:
        topology, positions = with_hydrogens(given, positions, ph=ph)
        logger.warning("%s: %s", path, hydrogens_in_words(given, topology))
    system = create_system(loaded, topology, source=str(path), is_protonated=add_hydrogens)
    if added := added_atoms(given, topology):
        positions = settle_hydrogens(system, positions, added)
    words = force_field_words(forcefield)
    return Parametrised(system, topology, positions, words, is_rough=bool(added))


def from_system(
    system: Any,
    topology: Any,
    positions: Any = None,
    *,
    temperature: float = 300.0,
    soft_bonds: Iterable[Bond] | None = None,
    fold_rotors: bool = True,
    max_barrier: float = MAX_BARRIER,
    name: str | None = None,
    description: str = "",
    known: Mapping[str, Any] | None = None,
) -> System:
    """Build a system from an OpenMM ``System``, as made by any of OpenMM's readers.

    The objects may be files: ``from_system("system.xml", "structure.pdb")``.

    Args:
        system: OpenMM ``System`` with constraints=None, rigidWater=False, NoCutoff, or the path
            of one in XML (``openmm.XmlSerializer``).
        topology: OpenMM ``Topology`` with bonds, or the path of a PDB or mmCIF file with the same
            atoms in the same order.
        positions: Positions ``(n_atoms, 3)`` in nm, or an OpenMM quantity; those of the file
            where `topology` is one.
        temperature: Default temperature in K.
        soft_bonds: Bonds (i, j) about which the molecule turns; by default all rotatable ones
            with a torsion barrier up to `max_barrier`.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff.
        name: Name of the system; by default that of the XML file, or "molecule".
        description: One line about it.
        known: Known answers.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is of another kind or of other atoms, the system has constraints,
            virtual sites, a box or a cutoff, the molecule is disconnected, larger than
            `gencg.systems.files.MAX_ATOMS` or has coordinates that are not finite, or the
            temperature is not positive and finite.
    """
    import mdtraj

    from gencg.energies.openmm import energy_from_system, minimise

    check_settings(temperature=temperature, max_barrier=max_barrier)
    name = name or (Path(system).stem if isinstance(system, str | Path) else "molecule")
    system, topology, positions = read_objects(system, topology, positions)
    check_n_atoms("`topology`", topology.getNumAtoms())
    given = Molecule(mdtraj.Topology.from_openmm(topology), _in_nanometers(positions))
    energy = energy_from_system(system)
    # A centre of the coordinates needs no more; a large molecule would take minutes
    minimum = minimise(system, given.positions, tolerance=1.0, max_iterations=2000)
    return assemble(
        energy,
        given.with_positions(minimum),
        temperature=temperature,
        soft_bonds=soft_bonds,
        fold_rotors=fold_rotors,
        max_barrier=max_barrier,
        name=name,
        description=description or name,
        known=known,
    )


def build(parts: Parametrised, stem: str, **options: Unpack[SystemOptions]) -> System:
    """System of a molecule that has been read.

    Args:
        parts: What a reader gave.
        stem: Its name where the options give none.
        **options: See `SystemOptions`.

    Raises:
        ValueError: As `from_system`.
    """
    options["name"] = options.get("name") or stem
    positions = parts.positions
    if parts.is_rough:
        # Hundreds of steps, for which OpenMM takes long in implicit solvent
        positions = _relaxed(parts)
    return from_system(
        parts.system,
        parts.topology,
        positions,
        description=f"{options['name']}, {parts.force_field}",
        **options,
    )


def _relaxed(parts: Parametrised) -> NDArray[np.float64]:
    from gencg.energies.descent import descend
    from gencg.energies.openmm import energy_from_system

    energy = energy_from_system(parts.system)
    return descend(energy, parts.positions) if isinstance(energy, ForceField) else parts.positions


def _in_nanometers(positions: Any) -> NDArray[np.float64]:
    if hasattr(positions, "value_in_unit"):
        from openmm import unit

        positions = positions.value_in_unit(unit.nanometer)
    return np.array(positions, dtype=np.float64)
