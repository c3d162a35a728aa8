"""Metastable states of a finished run: populations, structures, names, a picture."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gencg import html
from gencg.analysis.collective import torsions_beside
from gencg.analysis.histogram import Array
from gencg.analysis.metastable import CRISP, MetastableStates, metastable_states
from gencg.analysis.representatives import Representative, circle_features, representative
from gencg.analysis.state_names import Marks, basin_names, tell_apart
from gencg.analysis.states import states as named_basins
from gencg.analysis.torsions import ensemble_torsions, residue_pairs
from gencg.checkpoint import load_checkpoint
from gencg.discover import SlowCVs, restore_slow
from gencg.discover.slow_cvs import MIN_POPULATION
from gencg.ensemble import Ensemble
from gencg.export.structures import write_structures
from gencg.export.trajectory import read_samples
from gencg.files import write_atomically
from gencg.molecule import Molecule
from gencg.objectives.dirichlet import GAP
from gencg.plots.states import states_figure
from gencg.report.pieces import percent
from gencg.run.folder import RunFolder
from gencg.run.record import write_json
from gencg.systems.base import System
from gencg.units import BOLTZMANN_CONSTANT

FEW = 50.0
"""Effective samples of a state below which its numbers are not to be relied on."""
HEAD = ("state", "population (%)", "raw (%)", "free energy (kJ/mol)", "samples", "where")
"""Columns of the table of states."""


@dataclass(frozen=True)
class State:
    """One metastable state; energies in kJ/mol, deviations in nm, angles in rad.

    Attributes:
        name: The coordinates that tell it apart with their values, angles in degrees.
        basin: Names of Ramachandran basins or rotamers that hold it, "" where there are none.
        population: Reweighted probability, and its standard error.
        raw: Share of the samples as drawn, and its standard error.
        free_energy: That of the state minus that of the most populated one, and its standard error.
        raw_free_energy: The same of the samples as drawn.
        crispness: 1 where configurations are in the state or out of it; see `MetastableStates`.
        n_effective: Effective number of samples in it.
        cvs: Collective variables where its density is highest.
        sample: Number of the representative sample in samples.h5.
        rmsd: Mean deviation of its structures from the representative, hydrogens on carbon left
            out; None for a toy.
        structure: File of the representative in the folder of the states.
        doubts: Reasons not to rely on it, in words.
    """

    name: str
    basin: str
    population: tuple[float, float]
    raw: tuple[float, float]
    free_energy: tuple[float, float]
    raw_free_energy: tuple[float, float]
    crispness: float
    n_effective: float
    cvs: tuple[float, ...]
    sample: int
    rmsd: float | None
    structure: str | None
    doubts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RunStates:
    """The states of a run and what they were found with.

    Attributes:
        states: The states, the most populated first.
        found: Memberships and corners.
        marks: The coordinates that tell them apart.
        slow: The slow functions.
        ensemble: The weighted samples of the run.
        system: What was sampled.
        n_rare: Slow processes that move less than `MIN_POPULATION`, and so make no state.
    """

    states: tuple[State, ...]
    found: MetastableStates
    marks: Marks
    slow: SlowCVs
    ensemble: Ensemble
    system: System
    n_rare: int

    def number(self, state: str) -> int:
        """Index of a state given by its number from 1, its name or its only basin.

        Raises:
            ValueError: If there is no such state, or more than one.
        """
        keys = [(str(j + 1), s.name, s.basin) for j, s in enumerate(self.states)]
        hits = [j for j, key in enumerate(keys) if state.strip() in key]
        if not hits:
            hits = [j for j, s in enumerate(self.states) if state in s.basin.split(" + ")]
        if len(hits) == 1:
            return hits[0]
        known = "; ".join(
            f"{j + 1}: {s.name}" + (f" ({s.basin})" if s.basin else "")
            for j, s in enumerate(self.states)
        )
        what = "more than one state" if hits else "no state"
        raise ValueError(f"{state!r} is {what} of this run; its states are {known}")

    def __str__(self) -> str:
        """A table of the states, and what to know about them."""
        rows = [HEAD, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(w.ljust(n) for w, n in zip(r, widths, strict=True)) for r in rows]
        return "\n".join(line.rstrip() for line in [*lines, *self.remarks])

    def _repr_html_(self) -> str:
        remarks = html.table(("",), [(remark,) for remark in self.remarks]) if self.remarks else ""
        return html.table(HEAD, self.rows) + remarks

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A row of the table for each state, under `HEAD`."""
        rows: list[tuple[str, ...]] = []
        for j, s in enumerate(self.states, 1):
            where = f"{s.name} ({s.basin})" if s.basin else s.name
            free = "0" if j == 1 else f"{s.free_energy[0]:.2f} ± {s.free_energy[1]:.2f}"
            shares = percent(*s.population), percent(*s.raw)
            rows.append((str(j), *shares, free, f"{s.n_effective:,.0f}", where))
        return rows

    @property
    def remarks(self) -> list[str]:
        """What to know beside the numbers, a sentence each."""
        lines = [f"state {j}: {d}" for j, s in enumerate(self.states, 1) for d in s.doubts]
        if self.n_rare:
            lines.append(
                f"{self.n_rare} slow process{'es' * (self.n_rare > 1)} passed over: they move less "
                f"than {100 * MIN_POPULATION:g} %"
            )
        return lines

    def numbers(self) -> dict[str, Any]:
        """Everything for scripts."""
        return {
            "n_states": len(self.states),
            "cv_names": list(self.slow.names),
            "temperature": self.ensemble.temperature,
            "marks": list(self.marks.labels),
            "rare_processes": self.n_rare,
            "states": [asdict(state) for state in self.states],
        }


def find_states(folder: RunFolder, *, n_states: int | None = None, seed: int = 0) -> RunStates:
    """Find the metastable states of a finished run from its slow functions and samples.

    Args:
        folder: A finished run with slow collective variables.
        n_states: Their number; None: one more than the slow processes before the gap.
        seed: Decides which members representatives are chosen from.

    Raises:
        ValueError: If the run is not finished or has no slow collective variables, or `n_states`
            is out of range.
    """
    if folder.summary is None:
        raise ValueError(f"run {folder.path} is not finished; finish it with `gencg run`")
    if not (folder.config.discovers and folder.cvs.exists()):
        raise ValueError(
            f"run {folder.path} has no slow functions to find states by; make one with "
            "`gencg run --cvs auto`"
        )
    system, ensemble = folder.system(), read_samples(folder.path)
    slow = restore_slow(load_checkpoint(folder.cvs)["slow"])
    values = slow_values(system, ensemble, slow)
    found = metastable_states(
        values, ensemble.log_weights, n_states=n_states, min_population=MIN_POPULATION
    )
    torsions, angles = torsions_beside(system, ensemble, (), n_max=10_000)
    marks = tell_apart(torsions, angles, found.labels, ensemble.weights, n_states=found.n_states)
    n_rare = _passed_over(slow)
    basins = _basins(system, ensemble, marks, found)
    features = circle_features(torsions.values, angles)
    cvs = _cv_features(ensemble, slow)
    states = []
    for j in range(found.n_states):
        mine = found.labels == j
        at = representative(
            features, ensemble.log_weights, mine, x=_structures(ensemble), seed=seed,
            masses=None if ensemble.molecule is None else masses_without_ch(ensemble.molecule),
        )  # fmt: skip
        top = representative(cvs, ensemble.log_weights, mine, width=0.2, seed=seed).sample
        states.append(_state(j, found, marks, ensemble, basins[j], at, ensemble.z[top]))
    return RunStates(tuple(states), found, marks, slow, ensemble, system, n_rare)


def write_states(found: RunStates, folder: str | Path) -> list[Path]:
    """Write states.json, states.png and a structure each, ``state1.pdb`` and so on.

    Args:
        found: From `find_states`.
        folder: Where to write; made if missing.
    """
    folder = Path(folder)
    samples = [state.sample for state in found.states]
    files = write_structures(folder, found.ensemble, samples, stem="state")
    path = folder / "states.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found.numbers())
    picture = folder / "states.png"
    save_figure(picture, draw_states(found))
    return [path, picture, *files]


def draw_states(found: RunStates) -> Figure:
    """The picture of `write_states`."""
    ensemble = found.ensemble
    return states_figure(
        ensemble.z,
        ensemble.log_weights,
        found.found.labels,
        names=[state.name for state in found.states],
        basins=[state.basin for state in found.states],
        populations=[state.population for state in found.states],
        raw=[state.raw for state in found.states],
        centres=[state.cvs for state in found.states],
        structures=None
        if ensemble.molecule is None
        else ensemble.x[[s.sample for s in found.states]],
        molecule=ensemble.molecule,
        cv_names=found.slow.names,
        periodic=found.slow.map.periodic,
        temperature=ensemble.temperature,
    )


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    write_atomically(path, buffer.getvalue())


def slow_values(system: System, ensemble: Ensemble, slow: SlowCVs) -> Array:
    """Slow functions at the samples of an ensemble, ``(n, m)``."""
    s = ensemble.y[:, system.coordinates.soft].to(slow.map.matrix)
    with torch.no_grad():
        parts: Sequence[Tensor] = s.split(20_000)  # type: ignore[no-untyped-call]
        return np.concatenate([slow.functions(part).double().numpy() for part in parts])


def _state(
    j: int,
    found: MetastableStates,
    marks: Marks,
    ensemble: Ensemble,
    basin: str,
    at: Representative,
    z: Tensor,
) -> State:
    mine = torch.from_numpy(found.labels == j)
    first = torch.from_numpy(found.labels == 0)
    pair = [ensemble.populations({"p": mine}, raw=raw)["p"] for raw in (False, True)]
    difference = [_difference(ensemble, first, mine, raw=raw) for raw in (False, True)]
    return State(
        name=marks.names[j],
        basin=basin,
        population=pair[0],
        raw=pair[1],
        free_energy=difference[0] if j else (0.0, 0.0),
        raw_free_energy=difference[1] if j else (0.0, 0.0),
        crispness=float(found.crispness[j]),
        n_effective=float(found.n_effective[j]),
        cvs=tuple(z.tolist()),
        sample=at.sample,
        rmsd=at.rmsd if ensemble.molecule is not None else None,
        structure=f"state{j + 1}.pdb" if ensemble.molecule is not None else None,
        doubts=tuple(_doubts(j, found, marks)),
    )


def _difference(
    ensemble: Ensemble, first: Tensor, mine: Tensor, *, raw: bool
) -> tuple[float, float]:
    """Free-energy difference with its error; infinite where nothing was drawn of a state."""
    try:
        return ensemble.free_energy_difference(first, mine, raw=raw)
    except ValueError:
        return float("inf"), float("inf")


def _doubts(j: int, found: MetastableStates, marks: Marks) -> list[str]:
    doubts = []
    if found.n_effective[j] < FEW:
        doubts.append(
            f"rests on {found.n_effective[j]:.0f} effective samples; draw more with `gencg sample`"
        )
    if found.populations[j] < MIN_POPULATION:
        doubts.append(f"holds less than {100 * MIN_POPULATION:g} %")
    if found.crispness[j] < CRISP:
        doubts.append(
            f"crispness {found.crispness[j]:.2f}: many configurations lie between it and another, "
            "it is no well of its own"
        )
    closest = np.delete(marks.separation[j], j)
    if closest.min() < 0.5:
        other = int(np.argsort(marks.separation[j])[1])
        doubts.append(f"no single coordinate tells it from state {other + 1}")
    return doubts


def _passed_over(slow: SlowCVs) -> int:
    """Processes before the gap that move too little to count."""
    found = slow.spectrum
    last = float(found.eigenvalues[max(slow.places)])
    rare = found.populations < MIN_POPULATION
    return int((rare & (found.eigenvalues < GAP * last)).sum())


def _basins(
    system: System, ensemble: Ensemble, marks: Marks, found: MetastableStates
) -> tuple[str, ...]:
    """Names of basins; of a longer peptide those of the residues that the marks are of."""
    torsions = ensemble_torsions(ensemble, system.coordinates)
    masks = named_basins(system, ensemble, torsions)
    if ensemble.molecule is not None and not residue_pairs(torsions):
        return ("",) * found.n_states  # rotamers say the same as the name
    if len(residue_pairs(torsions)) > 1:
        marked = [label.partition("(")[2].rstrip(")") for label in marks.labels]
        masks = {k: mask for k, mask in masks.items() if k.partition(" ")[0] in marked}
    if not masks:
        return ("",) * found.n_states
    return basin_names(masks, found.labels, ensemble.weights, n_states=found.n_states)


def _cv_features(ensemble: Ensemble, slow: SlowCVs) -> Array:
    z = ensemble.z.double()
    return circle_features(z, [slow.map.periodic] * z.shape[1])


def _structures(ensemble: Ensemble) -> Tensor | None:
    return None if ensemble.molecule is None else ensemble.x


def masses_without_ch(molecule: Molecule) -> Tensor:
    """Masses, 0 for hydrogens on carbon, whose labels in a methyl group are drawn at random."""
    masses = torch.as_tensor(molecule.masses.copy())
    for k, element in enumerate(molecule.elements):
        if element == "H" and all(molecule.elements[i] == "C" for i in molecule.neighbours[k]):
            masses[k] = 0.0
    return masses


def k_t(ensemble: Ensemble) -> float:
    """Thermal energy of an ensemble in kJ/mol."""
    return BOLTZMANN_CONSTANT * ensemble.temperature
