"""A choice of weighted structures: those at a point of the surface, those of a state."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg import html
from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.representatives import circle_features, representative
from gencg.analysis.torsions import torsion_angles
from gencg.ensemble import Ensemble
from gencg.molecule import Molecule
from gencg.notebook.source import FEW, told
from gencg.run.states import masses_without_ch
from gencg.units import BOLTZMANN_CONSTANT

MOST = 2000
"""Structures that a selection keeps, chosen by weight."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Weighted structures and the one that stands for them; energies in kJ/mol, lengths in nm.

    Attributes:
        title: What was selected, in words.
        z: Where, ``(d,)``; angles in rad.
        names: Names of the variables.
        periodic: Whether they are angles.
        ensemble: The structures with their weights.
        free_energy: Above the minimum of the surface, and its standard error; None where it is not
            told.
        population: Probability and standard error; None at a point.
        n_effective: Effective number of structures.
        representative: Which of the structures stands for all.
        spread: Mean deviation of the others from it after superposition, hydrogens on carbon left
            out; None for a toy.
        decoded: Whether the structures were decoded anew, and not taken from the samples.
        state: Number of the state from 0; None at a point.
        doubts: Reasons not to rely on it, in words.
    """

    title: str
    z: tuple[float, ...]
    names: tuple[str, ...]
    periodic: bool
    ensemble: Ensemble
    free_energy: tuple[float, float] | None
    population: tuple[float, float] | None
    n_effective: float
    representative: int
    spread: float | None
    decoded: bool = False
    state: int | None = None
    doubts: tuple[str, ...] = ()

    @property
    def structure(self) -> Tensor:
        """The representative, ``(n_atoms, 3)`` in nm, or ``(dim,)`` for a toy."""
        return self.ensemble.x[self.representative]

    @property
    def n_energy_calls(self) -> int:
        """Energy calls that the selection cost: one for each decoded structure."""
        return self.ensemble.n_energy_calls if self.decoded else 0

    def structures(self, n: int = 20, *, seed: int = 0) -> Tensor:
        """Structures of equal weight, ``(n, *event_shape)``, the representative first.

        Args:
            n: Their number.
            seed: Decides which are drawn.
        """
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}")
        first = self.structure[None]
        return first if n == 1 else torch.cat([first, self.ensemble.resample(n - 1, seed).x])

    def numbers(self) -> dict[str, Any]:
        """Everything for scripts."""
        return {
            "title": self.title,
            "z": dict(zip(self.names, self.z, strict=True)),
            "free_energy": None if self.free_energy is None else self.free_energy[0],
            "free_energy_error": None if self.free_energy is None else self.free_energy[1],
            "population": None if self.population is None else self.population[0],
            "population_error": None if self.population is None else self.population[1],
            "n_effective": self.n_effective,
            "n_structures": self.ensemble.n_samples,
            "representative": self.representative,
            "spread": self.spread,
            "decoded": self.decoded,
            "energy_calls": self.n_energy_calls,
            "doubts": list(self.doubts),
        }

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values for readers."""
        rows = [
            (shorter(name), told(z, self.periodic))
            for name, z in zip(self.names, self.z, strict=True)
        ]
        if self.free_energy is not None and self.free_energy[1] == 0:
            rows.append(("free energy", f"{self.free_energy[0]:.2f} kJ/mol, the reference"))
        elif self.free_energy is not None:
            rows.append(("free energy", f"{html.measured(*self.free_energy)} kJ/mol"))
        if self.population is not None:
            p, error = (100 * part for part in self.population)
            rows.append(("population", f"{html.measured(p, error)} %"))
        how = "decoded anew" if self.decoded else "of the samples near"
        rows.append(("structures", f"{self.ensemble.n_samples:,} {how}"))
        rows.append(("effective", f"{self.n_effective:,.0f}"))
        if self.spread is not None:
            rows.append(("spread", f"{self.spread:.3f} nm around the representative"))
        if self.decoded:
            rows.append(("energy calls", f"{self.n_energy_calls:,}"))
        return rows

    @property
    def verdict(self) -> tuple[str, str]:
        """Level and words: whether there are enough structures to rely on."""
        if self.doubts:
            return ("poor" if self.n_effective < FEW / 5 else "fair"), "; ".join(self.doubts)
        return "good", f"{self.n_effective:,.0f} effective structures carry these averages"

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = [self.title, *(f"  {name}: {value}" for name, value in self.facts)]
        return "\n".join([*lines, *(f"  doubt: {doubt}" for doubt in self.doubts)])

    def __repr__(self) -> str:
        return f"Selection({self.title!r}, n_effective={self.n_effective:.3g})"

    def _repr_html_(self) -> str:
        return html.card(self.title, self.facts, verdicts=[self.verdict])


def select(
    ensemble: Ensemble,
    *,
    title: str,
    z: Array,
    names: tuple[str, ...],
    periodic: bool,
    free_energy: tuple[float, float] | None = None,
    population: tuple[float, float] | None = None,
    n_effective: float | None = None,
    decoded: bool = False,
    state: int | None = None,
    doubts: tuple[str, ...] = (),
    seed: int = 0,
) -> Selection:
    """Choose the representative of weighted structures and measure how far they spread.

    Args:
        ensemble: The structures, some of them with weight.
        title: What they are.
        z: Where, ``(d,)``.
        names: Names of the variables.
        periodic: Whether they are angles.
        free_energy: As in `Selection`.
        population: As in `Selection`.
        n_effective: Effective number of structures; None: that of the weights.
        decoded: As in `Selection`.
        state: As in `Selection`.
        doubts: As in `Selection`.
        seed: Decides which structures are looked at.
    """
    if n_effective is None:
        n_effective = ensemble.ess * ensemble.n_samples
    if ensemble.n_samples > MOST:
        ensemble = replace(ensemble.thin(MOST, seed), n_energy_calls=ensemble.n_energy_calls)
    molecule = ensemble.molecule
    alive = torch.isfinite(ensemble.log_weights).numpy()
    at = representative(
        structure_features(ensemble), ensemble.log_weights, alive,
        x=None if molecule is None else ensemble.x,
        masses=None if molecule is None else masses_without_ch(molecule), seed=seed,
    )  # fmt: skip
    if n_effective < FEW and not doubts:
        doubts = (f"rests on {n_effective:.0f} effective structures",)
    return Selection(
        title=title, z=tuple(z.tolist()), names=names, periodic=periodic, ensemble=ensemble,
        free_energy=free_energy, population=population, n_effective=float(n_effective),
        representative=at.sample, spread=None if molecule is None else at.rmsd, decoded=decoded,
        state=state, doubts=doubts,
    )  # fmt: skip


def structure_features(ensemble: Ensemble) -> Array:
    """What makes structures alike: torsions about bonds of heavy atoms; a toy's own coordinates.

    A molecule without such bonds is compared by the distances of its atoms.
    """
    molecule = ensemble.molecule
    if molecule is None:
        flat = to_array(ensemble.x.reshape(ensemble.n_samples, -1))
        return circle_features(flat, [False] * flat.shape[1])
    quads = heavy_torsions(molecule)
    if quads:
        return circle_features(torsion_angles(ensemble.x, quads), [True] * len(quads))
    heavy = [k for k, element in enumerate(molecule.elements) if element != "H"]
    atoms = heavy if len(heavy) > 1 else list(range(molecule.n_atoms))
    i, j = np.triu_indices(len(atoms), 1)
    x = to_array(ensemble.x)[:, atoms]
    return np.asarray(np.linalg.norm(x[:, i] - x[:, j], axis=-1) / 0.05)


def heavy_torsions(molecule: Molecule) -> list[tuple[int, int, int, int]]:
    """A torsion about each bond that can turn and has heavy atoms, or such hydrogens, at its ends.

    Hydrogens count on atoms other than carbon alone: those of CH3 groups are all the same.
    """
    quads = []
    for j, k in molecule.rotatable_bonds():
        ends = [_end(molecule, j, k), _end(molecule, k, j)]
        if ends[0] is not None and ends[1] is not None:
            quads.append((ends[0], j, k, ends[1]))
    return quads


def _end(molecule: Molecule, atom: int, other: int) -> int | None:
    """A neighbour to measure a torsion from, heavy where there is one."""
    near = [k for k in molecule.neighbours[atom] if k != other]
    heavy = [k for k in near if molecule.elements[k] != "H"]
    if heavy:
        return heavy[0]
    return near[0] if molecule.elements[atom] != "C" and near else None


def k_t(ensemble: Ensemble) -> float:
    """Thermal energy in kJ/mol."""
    return BOLTZMANN_CONSTANT * ensemble.temperature
