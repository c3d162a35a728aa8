"""A system: everything that defines a problem before a model is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gencg import html
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

    def _repr_html_(self) -> str:
        coordinates = self.coordinates
        soft = [name for name, is_soft in zip(coordinates.names, coordinates.soft, strict=True)
                if is_soft]  # fmt: skip
        shown = ", ".join(soft[:6]) + (f" and {len(soft) - 6} more" if len(soft) > 6 else "")
        rows = [
            ("what", self.description),
            ("energy", type(self.energy).__name__),
            ("temperature", f"{self.temperature:g} K"),
            ("coordinates", f"{coordinates.dim}, of which {len(soft)} soft"),
            ("soft", shown),
        ]
        if self.molecule is not None:
            rows.insert(1, ("atoms", str(self.molecule.n_atoms)))
        return html.card(f"System {self.name}", [row for row in rows if row[1]])
