"""Molecules with a force field: from a structure file, or from an OpenMM system."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.molecule import Molecule
from gencg.systems.assembly import MAX_BARRIER, Bond, assemble, check_settings
from gencg.systems.base import System
from gencg.systems.force_fields import create_system, load_force_field
from gencg.systems.structure import read_structure

DEFAULT_FORCE_FIELD = ("amber14-all.xml", "implicit/obc2.xml")
DIPEPTIDE_FORCE_FIELD = ("amber96.xml", "implicit/obc1.xml")
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
    known: dict[str, Any] = {}
    if forcefield == DIPEPTIDE_FORCE_FIELD and temperature == 300.0:
        known = {"log_z": -178.685, "log_z_error": 0.01, "source": "reweighted samples, ESS 0.92"}
    return from_pdb(
        DATA / "alanine_dipeptide.pdb",
        forcefield=forcefield,
        temperature=temperature,
        fold_rotors=fold_rotors,
        name="alanine-dipeptide",
        known=known,
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
    """N-acetyl-(L-alanine)5-N-methylamide, all 62 atoms; arguments as `alanine_tetrapeptide`."""
    return _ready_made("alanine-hexapeptide", forcefield, temperature)


def _ready_made(name: str, forcefield: Sequence[str], temperature: float) -> System:
    path = DATA / f"{name.replace('-', '_')}.pdb"
    return from_pdb(path, forcefield=forcefield, temperature=temperature, name=name)


def from_pdb(
    path: str | Path,
    *,
    forcefield: Sequence[str] = DEFAULT_FORCE_FIELD,
    temperature: float = 300.0,
    soft_bonds: Iterable[Bond] | None = None,
    fold_rotors: bool = True,
    max_barrier: float = MAX_BARRIER,
    name: str | None = None,
    known: Mapping[str, Any] | None = None,
) -> System:
    """Build a system from a PDB or mmCIF file and OpenMM force-field files.

    The file holds one molecule with all its hydrogens. Its structure is minimised first; the
    result is the reference, with the handedness and double bonds of the file.

    Args:
        path: Structure file.
        forcefield: OpenMM force-field files, implicit solvent included: no box, no cutoff.
        temperature: Default temperature in K.
        soft_bonds: See `from_system`.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: See `from_system`.
        name: Name of the system; by default that of the file.
        known: Known answers.

    Raises:
        FileNotFoundError: If the structure or a force-field file does not exist.
        ValueError: If the file cannot be read, a residue fits no template, the molecule is
            disconnected or has coordinates that are not finite, or the temperature is not
            positive and finite.
    """
    check_settings(temperature=temperature, max_barrier=max_barrier)
    forcefield = (forcefield,) if isinstance(forcefield, str) else tuple(forcefield)
    loaded = load_force_field(forcefield)
    topology, positions = read_structure(path)
    return from_system(
        create_system(loaded, topology, source=str(path)),
        topology,
        positions,
        temperature=temperature,
        soft_bonds=soft_bonds,
        fold_rotors=fold_rotors,
        max_barrier=max_barrier,
        name=name or Path(path).stem,
        description=f"{name or Path(path).stem}, {' + '.join(forcefield)}",
        known=known,
    )


def from_system(
    system: Any,
    topology: Any,
    positions: Any,
    *,
    temperature: float = 300.0,
    soft_bonds: Iterable[Bond] | None = None,
    fold_rotors: bool = True,
    max_barrier: float = MAX_BARRIER,
    name: str = "molecule",
    description: str = "",
    known: Mapping[str, Any] | None = None,
) -> System:
    """Build a system from an OpenMM ``System``, as made by any of OpenMM's readers.

    Args:
        system: OpenMM ``System`` with constraints=None, rigidWater=False, NoCutoff.
        topology: OpenMM ``Topology`` with bonds.
        positions: Positions ``(n_atoms, 3)`` in nm, or an OpenMM quantity.
        temperature: Default temperature in K.
        soft_bonds: Bonds (i, j) about which the molecule turns; by default all rotatable ones
            with a torsion barrier up to `max_barrier`.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff.
        name: Name of the system.
        description: One line about it.
        known: Known answers.

    Raises:
        ValueError: If the system has constraints, virtual sites, a box or a cutoff, the molecule
            is disconnected or has coordinates that are not finite, or the temperature is not
            positive and finite.
    """
    import mdtraj

    from gencg.energies.openmm import energy_from_system, minimise

    check_settings(temperature=temperature, max_barrier=max_barrier)
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


def _in_nanometers(positions: Any) -> NDArray[np.float64]:
    if hasattr(positions, "value_in_unit"):
        from openmm import unit

        positions = positions.value_in_unit(unit.nanometer)
    return np.array(positions, dtype=np.float64)
