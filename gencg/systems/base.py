"""A system: everything that defines a problem before a model is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gencg.coordinates.base import CoordinateMap
from gencg.energies.base import Energy
from gencg.units import check_temperature

if TYPE_CHECKING:
    from gencg.molecule import Molecule


@dataclass(frozen=True)
class System:
    """An energy, its coordinates and, for a molecule, its topology.

    Args:
        name: Short name, used in folders and reports.
        energy: Potential energy in kJ/mol.
        coordinates: Map between configurations and coordinates.
        temperature: Default temperature in K.
        molecule: Topology, masses and reference structure; None for toys.
        description: One line: what it is and which force field.
        known: Known answers by name (``log_z``, ``populations``, ...), with their source.
        settings: Recommended settings of `fit` that differ from the general defaults.

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    name: str
    energy: Energy
    coordinates: CoordinateMap
    temperature: float = 300.0
    molecule: Molecule | None = None
    description: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
