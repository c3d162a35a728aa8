"""The energy of a structure as it is given, term by term, beside OpenMM's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gencg.energies.forcefield import ForceField
from gencg.systems.force_fields import create_system, load_force_field
from gencg.systems.registry import STRUCTURES, TOYS, default_force_field, load
from gencg.systems.structure import is_structure_path, read_structure
from gencg.systems.targets import is_mmff_target


def structure_energy(target: str, *, forcefield: Sequence[str] = ()) -> dict[str, Any]:
    """Energy of a target's structure in kJ/mol, in float64.

    Args:
        target: Name of a ready-made system, ``smiles:...``, or path of a structure file.
        forcefield: OpenMM force-field files, or a variant of MMFF; none takes the target's own.

    Returns:
        ``total``, ``terms`` by name (empty where OpenMM alone can evaluate), and ``openmm``, the
        total by OpenMM's Reference platform; for a toy or with MMFF that of the reference, which
        is minimised, and None.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the target is unknown or structure and force field do not fit.
    """
    from gencg.energies.openmm import OpenMMEnergy, energy_from_system

    is_file = is_structure_path(target) or target in STRUCTURES
    if target in TOYS or is_mmff_target(target) or not is_file:
        own = load(target, forcefield=forcefield)
        x, _ = own.coordinates.inverse(own.coordinates.centre[None])
        total = float(own.energy(x))
        return {"total": total, "terms": _terms(own.energy, x) or {own.name: total}, "openmm": None}
    path = STRUCTURES.get(target, Path(target))
    loaded = load_force_field(tuple(forcefield) or default_force_field(target))
    topology, positions = read_structure(path)
    system = create_system(loaded, topology, source=str(path))
    energy, x = energy_from_system(system), torch.from_numpy(positions)[None]
    return {
        "total": float(energy(x)),
        "terms": _terms(energy, x),
        "openmm": float(OpenMMEnergy(system)(x)),
    }


def _terms(energy: Any, x: torch.Tensor) -> dict[str, float]:
    """Energy of each term in kJ/mol; none where the energy does not know its terms."""
    if not isinstance(energy, ForceField):
        return {}
    return {name: float(value) for name, value in energy.terms(x).items()}
