"""The energy of a structure as it is given, term by term, beside OpenMM's."""

from typing import Any

import torch

from gencg.energies.forcefield import ForceField
from gencg.energies.mmff import MMFF
from gencg.systems.base import System
from gencg.systems.registry import load, read


def structure_energy(target: str, **options: Any) -> dict[str, Any]:
    """Energy of a target's structure in kJ/mol, in float64.

    Args:
        target: Name of a ready-made system, path of a file, or a sequence, as of `load`.
        **options: Options of its loader, as of `load`; none takes the target's own.

    Returns:
        ``total``, ``terms`` by name (empty where OpenMM alone can evaluate), and ``openmm``, the
        total by OpenMM's Reference platform; for what OpenMM does not know its energy at the
        reference, and None.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the target is unknown or structure and force field do not fit.
    """
    from gencg.energies.openmm import OpenMMEnergy, energy_from_system

    parts = read(target, **options)
    if parts is None:
        system = load(target, **options)
        x, _ = system.coordinates.inverse(system.coordinates.centre[None])
        total = float(system.energy(x))
        terms = _terms(system.energy, x) or {system.name: total}
        return {"total": total, "terms": terms, "openmm": None}
    energy, x = energy_from_system(parts.system), torch.from_numpy(parts.positions)[None]
    return {
        "total": float(energy(x)),
        "terms": _terms(energy, x),
        "openmm": float(OpenMMEnergy(parts.system)(x)),
    }


def program_energies(
    system: System, target: str, x: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, str]:
    """Energies of configurations by the program whose force field it is, and its name.

    Args:
        system: The loaded target.
        target: As of `load`.
        x: Configurations, ``(n, n_atoms, 3)`` in nm; of a toy ``(n, dim)``.
        **options: As of `load`, ``kept`` too.

    Returns:
        Energies ``(n,)`` in kJ/mol, by OpenMM or RDKit; of a toy, which no other program knows,
        by its own formula.
    """
    from gencg.energies.openmm import OpenMMEnergy

    if isinstance(system.energy, MMFF):
        return system.energy.by_rdkit(x), "RDKit"
    parts = read(target, **options)
    if parts is None:
        return system.energy(x), "its formula"
    return OpenMMEnergy(parts.system)(x), "OpenMM"


def _terms(energy: Any, x: torch.Tensor) -> dict[str, float]:
    """Energy of each term in kJ/mol; none where the energy does not know its terms."""
    if not isinstance(energy, ForceField):
        return {}
    return {name: float(value) for name, value in energy.terms(x).items()}
