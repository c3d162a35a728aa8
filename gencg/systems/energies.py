"""The energy of a structure as it is given, term by term, beside OpenMM's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gencg.systems.force_fields import create_system, load_force_field
from gencg.systems.registry import STRUCTURES, TOYS, default_force_field, load
from gencg.systems.structure import is_structure_path, read_structure


def structure_energy(target: str, *, forcefield: Sequence[str] = ()) -> dict[str, Any]:
    """Energy of a target's structure in kJ/mol, in float64.

    Args:
        target: Name of a ready-made system, or path of a structure file.
        forcefield: OpenMM force-field files; none takes the target's own.

    Returns:
        ``total``, ``terms`` by name (empty where OpenMM alone can evaluate), and ``openmm``, the
        total by OpenMM's Reference platform; for a toy its energy at the reference, and None.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the target is unknown or structure and force field do not fit.
    """
    from gencg.energies.openmm import OpenMMEnergy, energy_from_system

    if target in TOYS or not (is_structure_path(target) or target in STRUCTURES):
        system = load(target, forcefield=forcefield)
        x, _ = system.coordinates.inverse(system.coordinates.centre[None])
        total = float(system.energy(x))
        return {"total": total, "terms": {system.name: total}, "openmm": None}
    path = STRUCTURES.get(target, Path(target))
    loaded = load_force_field(tuple(forcefield) or default_force_field(target))
    topology, positions = read_structure(path)
    system = create_system(loaded, topology, source=str(path))
    energy, x = energy_from_system(system), torch.from_numpy(positions)[None]
    terms = {name: float(v) for name, v in getattr(energy, "terms", lambda x: {})(x).items()}
    return {
        "total": float(energy(x)),
        "terms": terms,
        "openmm": float(OpenMMEnergy(system)(x)),
    }
