"""What one explores: weighted samples over variables, and the model that decodes these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.analysis.basins import find_basins
from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array, to_array, wrap
from gencg.analysis.torsions import ensemble_torsions
from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.ensemble import Ensemble, draw
from gencg.export.trajectory import read_samples
from gencg.fit import FitResult
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.run import CollectiveRun, RunFolder, find_states, with_cvs
from gencg.systems.base import System

FEW = 50.0
"""Effective samples below which a state is told to rest on few."""


@dataclass(frozen=True, eq=False)
class KnownState:
    """A state of an ensemble.

    Attributes:
        name: What tells it apart.
        basin: Named basins that hold it, or "".
        population: Reweighted probability and its standard error.
        members: Which samples are in it, ``(n,)`` bool.
        centre: Variables where it is densest.
        doubts: Reasons not to rely on it.
    """

    name: str
    basin: str
    population: tuple[float, float]
    members: NDArray[np.bool_]
    centre: tuple[float, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """Samples over variables.

    Attributes:
        ensemble: The samples.
        values: Their variables, ``(n, d)``; angles in [-pi, pi).
        names: Names of the variables.
        periodic: Whether they are angles in radians.
        find: Finds the states, the most populated first.
        model: What decodes values of the variables; None where they are no CVs of a model.
        coordinates: Map of the samples; None where it is not known.
        label: What it is, in a few words.
        n_drawn_calls: Energy calls spent on drawing the samples to explore.
    """

    ensemble: Ensemble
    values: Array
    names: tuple[str, ...]
    periodic: bool
    find: Callable[[], tuple[KnownState, ...]]
    model: CoarseGrainedModel | None
    coordinates: CoordinateMap | None
    label: str
    n_drawn_calls: int = 0


def source_of(
    source: FitResult | Ensemble | RunFolder | str | Path,
    *,
    over: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    system: System | None = None,
    n_samples: int = 10_000,
    seed: int = 0,
) -> Source:
    """What there is to explore in a result, an ensemble or a run; arguments as of `explore`."""
    if isinstance(source, str | Path):
        source = RunFolder.open(source)
    if isinstance(source, RunFolder):
        return _of_run(source, over)
    if isinstance(source, FitResult):
        if n_samples < 100:
            raise ValueError(f"`n_samples` must be at least 100, got {n_samples}")
        system = source.system
        ensemble = draw(
            source.model, source.target, n_samples, molecule=system.molecule, seed=seed,
            name=system.name,
        )  # fmt: skip
        calls = ensemble.n_energy_calls
        return _of_ensemble(ensemble, over, names, source.model, system.coordinates, calls)
    if isinstance(source, Ensemble):
        coordinates = None if system is None else system.coordinates
        return _of_ensemble(source, over, names, None, coordinates)
    raise ValueError(
        "`source` must be a FitResult, an Ensemble or the folder of a run, got "
        f"{type(source).__name__}"
    )


def _of_run(folder: RunFolder, over: Sequence[str] | None) -> Source:
    if folder.summary is None:
        raise ValueError(f"run {folder.path} is not finished; finish it with `gencg run`")
    ensemble, system = read_samples(folder.path), folder.system()
    if over is not None or ensemble.z.shape[1] == 0:
        return _of_ensemble(ensemble, over, None, None, system.coordinates)
    run: CollectiveRun = with_cvs(system, folder)
    values, periodic = _wrapped(to_array(ensemble.z), run.periodic), run.periodic

    def find() -> tuple[KnownState, ...]:
        if run.slow is None:
            return basins_of(ensemble, values, run.names, periodic)
        try:
            found = find_states(folder)
        except ValueError as error:
            doubt = f"a basin, since metastable states were not found: {error}"
            basins = basins_of(ensemble, values, run.names, periodic)
            return tuple(replace(basin, doubts=(*basin.doubts, doubt)) for basin in basins)
        return tuple(
            KnownState(s.name, s.basin, s.population, found.found.labels == j, s.cvs, s.doubts)
            for j, s in enumerate(found.states)
        )

    return Source(
        ensemble, values, run.names, periodic, find, run.result.model, system.coordinates,
        f"run {folder.path}",
    )  # fmt: skip


def _of_ensemble(
    ensemble: Ensemble,
    over: Sequence[str] | None,
    cv_names: Sequence[str] | None,
    model: CoarseGrainedModel | None,
    coordinates: CoordinateMap | None,
    n_drawn_calls: int = 0,
) -> Source:
    if not bool(torch.isfinite(ensemble.log_weights).any()):
        raise ValueError("`source` holds no sample with weight: there is nothing to explore")
    n_cvs = ensemble.z.shape[1]
    if over is None and n_cvs:
        values = to_array(ensemble.z)
        names = tuple(cv_names or (f"z{k + 1}" for k in range(n_cvs)))
        if len(names) != n_cvs:
            raise ValueError(f"`names` must be {n_cvs}, one for each variable, got {len(names)}")
        # An ensemble alone does not say; a variable on a line leaves the circle sooner or later
        periodic = model.periodic_cvs if model is not None else bool((abs(values) <= np.pi).all())
        model = None if model is None or model.n_cvs == 0 else model
    else:
        values, names, periodic = _coordinates_over(ensemble, over, coordinates)
        model = None
    values = _wrapped(values, periodic)
    return Source(
        ensemble, values, names, periodic, lambda: basins_of(ensemble, values, names, periodic),
        model, coordinates, ensemble.name or "ensemble", n_drawn_calls,
    )  # fmt: skip


def _coordinates_over(
    ensemble: Ensemble, over: Sequence[str] | None, coordinates: CoordinateMap | None
) -> tuple[Array, tuple[str, ...], bool]:
    """Named coordinates, or the first two: phi and psi, soft torsions, a toy's own."""
    torsions = ensemble_torsions(ensemble, coordinates)
    known = {label: (torsions[label], True) for label in torsions.labels}
    if coordinates is not None:
        for i in torch.nonzero(coordinates.soft).ravel().tolist():
            y = to_array(ensemble.y[:, i])
            known.setdefault(coordinates.names[i], (y, bool(coordinates.periodic[i])))
    elif ensemble.molecule is None:
        flat = to_array(ensemble.x.reshape(ensemble.n_samples, -1))
        known = {f"x{k + 1}": (column, False) for k, column in enumerate(flat.T)}
    if not known:
        raise ValueError(
            "`source` has no torsions to explore over; an Ensemble alone does not know its "
            "coordinates: give `system` too, or a FitResult or a run"
        )
    alike = [name for name in known if known[name][1] == next(iter(known.values()))[1]]
    chosen = alike[:2] if over is None else list(over)
    if missing := [name for name in chosen if name not in known]:
        raise ValueError(f"`over` must be among {', '.join(known)}; got {missing[0]!r}")
    if not chosen:
        raise ValueError("`over` must name at least one coordinate, got none")
    kinds = {known[name][1] for name in chosen}
    if len(kinds) > 1:
        raise ValueError(f"`over` must be all angles or all lengths, got {', '.join(chosen)}")
    return np.stack([known[name][0] for name in chosen], 1), tuple(chosen), kinds.pop()


def basins_of(
    ensemble: Ensemble, values: Array, names: Sequence[str], periodic: bool
) -> tuple[KnownState, ...]:
    """Basins of the free energy as states, for samples without slow functions.

    Args:
        ensemble: The samples.
        values: The variables, ``(n, d)``.
        names: Their names.
        periodic: Whether they are angles in radians.
    """
    finite = np.isfinite(values).all(1)
    log_weights = np.where(finite, to_array(ensemble.log_weights), -np.inf)
    found = find_basins(values, log_weights, periodic=periodic)
    return tuple(
        KnownState(
            name=", ".join(
                f"{shorter(name)} {told(value, periodic)}"
                for name, value in zip(names, basin.centre, strict=True)
            ),
            basin="",
            population=(basin.population, basin.error),
            members=basin.mask,
            centre=basin.centre,
            doubts=(f"rests on {basin.n_effective:.0f} effective samples; draw more",)
            if basin.n_effective < FEW
            else (),
        )
        for basin in found
    )


def told(value: float, periodic: bool) -> str:
    """A value of a variable for readers: degrees for angles."""
    return f"{np.degrees(value):+.0f}°" if periodic else f"{value:+.3g}"


def methyl_rotors(coordinates: CoordinateMap | None) -> InternalCoordinates | None:
    """Coordinates that can relabel equal hydrogens; None where they are none of a molecule."""
    return coordinates if isinstance(coordinates, InternalCoordinates) else None


def _wrapped(values: Array, periodic: bool) -> Array:
    return wrap(values) if periodic else np.asarray(values, dtype=np.float64)
