"""A walk through the collective variables of a finished run: structures along a path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gencg.analysis.chain import laid_on_each_other, smoothest_chain
from gencg.analysis.histogram import Array
from gencg.analysis.path import CVPath, free_energy_path, path_along
from gencg.coordinates.internal import InternalCoordinates
from gencg.ensemble import Ensemble
from gencg.export.trajectory import save_trajectory, write_samples
from gencg.files import replacing
from gencg.importance import (
    effective_sample_size,
    log_partition,
    resample_indices,
    weighted_average,
)
from gencg.plots.walk import walk_figure
from gencg.run.folder import RunFolder
from gencg.run.record import write_json
from gencg.run.states import RunStates, find_states, k_t, masses_without_ch, save_figure
from gencg.run.transition import Transition, transition_between
from gencg.run.use import CollectiveRun, with_cvs

CANDIDATES = 60
"""Structures drawn by weight at each point, out of which the smoothest chain takes one."""
FEW_ESS = 10.0
"""Effective structures at a point below which its free energy is not to be relied on."""


@dataclass(frozen=True, eq=False)
class Walk:
    """Weighted structures along a path in the collective variables.

    Attributes:
        path: The points.
        ensemble: `per_point` structures at each point in turn; weights compare across points.
        per_point: Their number.
        free_energy: Free energy of each point in kJ/mol, zero at the lowest, ``(n_points,)``.
        errors: Standard errors, of each point alone.
        ess: Effective number of structures at each point.
        chosen: The structure of each point in the trajectory, as an index of `ensemble`.
        frames: Trajectory ``(n_points, n_atoms, 3)``: the chosen ones, each laid on the one before
            it, hydrogens of CH3 groups relabelled so that they turn least; None for a toy.
        steps: Deviation of each frame from the one before it, in nm.
        cv_names: Names of the collective variables.
        found: The states of the run.
        ends: The states it leads from and to, counted from 0; None along a variable.
        cv: The variable it leads along; None between states.
        committor: Mean committor at each point and its standard deviation among the structures
            there, ``(n_points, 2)``; None where not asked for.
        transition: What the committor rests on.
    """

    path: CVPath
    ensemble: Ensemble
    per_point: int
    free_energy: Array
    errors: Array
    ess: Array
    chosen: tuple[int, ...]
    frames: Tensor | None
    steps: tuple[float, ...]
    cv_names: tuple[str, ...]
    found: RunStates
    ends: tuple[int, int] | None = None
    cv: int | None = None
    committor: Array | None = None
    transition: Transition | None = None

    @property
    def n_energy_calls(self) -> int:
        """Energy calls of the structures and of the committor."""
        more = 0 if self.transition is None else self.transition.n_energy_calls
        return self.ensemble.n_energy_calls + more

    @property
    def barrier(self) -> tuple[int, float, float]:
        """The highest point: its number from 0, its free energy above the first, and the error."""
        top = int(np.nanargmax(self.free_energy))
        error = float(np.hypot(self.errors[top], self.errors[0])) if top else 0.0
        return top, float(self.free_energy[top] - self.free_energy[0]), error

    def __str__(self) -> str:
        """What was found, in a few lines."""
        top, height, error = self.barrier
        what = f"along {self.cv_names[self.cv or 0]}"
        if self.ends is not None:
            names = [f"state {j + 1} ({self.found.states[j].name})" for j in self.ends]
            what = f"from {names[0]} to {names[1]}"
        lines = [
            f"{len(self.path.points)} points {what}, {self.per_point} structures each",
            f"highest at point {top + 1}: {height:.1f} ± {error:.1f} kJ/mol above the first",
        ]
        if self.steps:
            lines.append(f"frames differ by {max(self.steps):.3f} nm at most")
        weak = np.flatnonzero(self.ess < FEW_ESS) + 1
        if len(weak):
            listed = ", ".join(map(str, weak))
            lines.append(f"fewer than {FEW_ESS:g} effective structures at points {listed}")
        if self.transition is not None:
            q, states = self.transition.committor, self.transition.states
            lines += [
                str(q),
                f"relative overdamped rates: {q.rate_ab:.3g} forth, {q.rate_ba:.3g} back",
                f"transition states: {0 if states is None else states.n_effective:.0f} effective",
            ]
        return "\n".join([*lines, f"{self.n_energy_calls:,} energy calls"])

    def numbers(self) -> dict[str, Any]:
        """Everything for scripts."""
        out: dict[str, Any] = {
            "cv_names": list(self.cv_names),
            "from": None if self.ends is None else self.found.states[self.ends[0]].name,
            "to": None if self.ends is None else self.found.states[self.ends[1]].name,
            "cv": None if self.cv is None else self.cv_names[self.cv],
            "n_points": len(self.path.points),
            "per_point": self.per_point,
            "energy_calls": self.n_energy_calls,
            "highest": dict(zip(("point", "free_energy", "error"), self.barrier, strict=True)),
            "points": self.path.points.tolist(),
            "arc": self.path.arc.tolist(),
            "free_energy": self.free_energy.tolist(),
            "free_energy_error": self.errors.tolist(),
            "effective_structures": self.ess.tolist(),
            "sample": list(self.chosen),
            "step_rmsd": list(self.steps),
        }
        if self.committor is not None and self.transition is not None:
            q = self.transition.committor
            out["committor"] = {
                "mean": self.committor[:, 0].tolist(),
                "spread": self.committor[:, 1].tolist(),
                "flux": q.flux,
                "flux_error": q.error,
                "held_out_flux": q.held_out,
                "relative_rate_forth": q.rate_ab,
                "relative_rate_back": q.rate_ba,
                "transition_samples": q.n_transition,
                "transition_states": 0.0
                if self.transition.states is None
                else self.transition.states.n_effective,
                "energy_calls": self.transition.n_energy_calls,
            }
        return out


def walk_run(
    folder: RunFolder,
    *,
    cv: str | None = None,
    start: str | None = None,
    end: str | None = None,
    n_states: int | None = None,
    n_points: int = 30,
    per_point: int = 200,
    committor_calls: int = 0,
    seed: int = 0,
) -> Walk:
    """A walk given in words: along a variable, or from one state to another.

    Args:
        folder: A finished run with slow collective variables.
        cv: Number of a collective variable from 1, or its name.
        start: Number of a state from 1, its name, or the name of its basin.
        end: The same.
        n_states: Number of states; None as in `find_states`.
        n_points: Points of the path.
        per_point: Structures decoded at each, one energy call each.
        committor_calls: Energy calls for the committor between the states, 0 for none.
        seed: Seed of the draw.

    Raises:
        ValueError: If neither or both kinds of a walk are asked for, or there is no such variable
            or state.
    """
    if (cv is None) == (start is None and end is None):
        raise ValueError("a walk goes along --cv, or --from one state --to another: give either")
    if cv is None and (start is None or end is None):
        raise ValueError("`walk` between states needs both --from and --to")
    if cv is not None and committor_calls:
        raise ValueError("`committor` is between two states; give --from and --to in place of --cv")
    _check(n_points, per_point)
    found = find_states(folder, n_states=n_states)
    if cv is not None:
        return walk_along(
            folder, found, _variable(cv, found.slow.names), n_points=n_points,
            per_point=per_point, seed=seed,
        )  # fmt: skip
    return walk_between(
        folder, found, found.number(str(start)), found.number(str(end)), n_points=n_points,
        per_point=per_point, committor_calls=committor_calls, seed=seed,
    )  # fmt: skip


def _variable(cv: str, names: tuple[str, ...]) -> int:
    keys = {str(k + 1): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    if cv not in keys:
        listed = ", ".join(f"{k + 1}: {name}" for k, name in enumerate(names))
        raise ValueError(f"`cv` must be one of {listed}; got {cv!r}")
    return keys[cv]


def walk_between(
    folder: RunFolder,
    found: RunStates,
    start: int,
    end: int,
    *,
    n_points: int = 30,
    per_point: int = 200,
    committor_calls: int = 0,
    seed: int = 0,
) -> Walk:
    """Structures along the path of least free energy between two states.

    Args:
        folder: The run.
        found: Its states, from `find_states`.
        start: State it begins in, counted from 0.
        end: State it ends in.
        n_points: Points of the path.
        per_point: Structures decoded at each, one energy call each.
        committor_calls: Energy calls for the committor, 0 for none.
        seed: Seed of the draw.

    Raises:
        ValueError: If both are one state, or a number is too small.
    """
    if start == end:
        raise ValueError(f"a walk leads from one state to another, got state {start + 1} twice")
    _check(n_points, per_point)
    model = with_cvs(found.system, folder)
    ends = [found.states[j].cvs for j in (start, end)]
    path = free_energy_path(
        found.ensemble.z, found.ensemble.log_weights, start=ends[0], end=ends[1],
        periodic=model.periodic, n_points=n_points, seed=seed,
    )  # fmt: skip
    transition = None
    if committor_calls:
        transition = transition_between(
            folder, found, start, end, n_calls=committor_calls, seed=seed
        )
    return _walk(
        model, found, path, per_point, seed=seed, ends=(start, end), cv=None, transition=transition
    )


def walk_along(
    folder: RunFolder,
    found: RunStates,
    cv: int,
    *,
    n_points: int = 30,
    per_point: int = 200,
    seed: int = 0,
) -> Walk:
    """Structures along one collective variable, the others where the free energy is least.

    Args:
        folder: The run.
        found: Its states, from `find_states`.
        cv: Which variable, counted from 0.
        n_points: Points of the path.
        per_point: Structures decoded at each, one energy call each.
        seed: Seed of the draw.

    Raises:
        ValueError: If there is no such variable, or a number is too small.
    """
    _check(n_points, per_point)
    model = with_cvs(found.system, folder)
    path = path_along(
        found.ensemble.z, found.ensemble.log_weights, cv=cv, periodic=model.periodic,
        n_points=n_points, seed=seed,
    )  # fmt: skip
    return _walk(model, found, path, per_point, seed=seed, ends=None, cv=cv, transition=None)


def write_walk(walk: Walk, folder: str | Path, *, formats: tuple[str, ...] = ()) -> list[Path]:
    """Write walk.json, walk.png, walk.pdb (a model per point) and samples.h5 (all structures).

    With the committor, ``transition_states/`` holds the weighted structures where it is near 1/2.

    Args:
        walk: From `walk_between` or `walk_along`.
        folder: Where to write; made if missing.
        formats: Any of "xtc", "dcd": the trajectory and all structures in these, too.
    """
    folder = Path(folder)
    written = write_samples(folder, walk.ensemble, formats=("h5", *formats))
    molecule = walk.ensemble.molecule
    if molecule is not None and walk.frames is not None:
        frames = molecule.to_mdtraj(walk.frames)
        for suffix in ("pdb", *formats):
            if suffix == "h5":
                continue
            written.append(folder / f"walk.{suffix}")
            with replacing(written[-1]) as draft:
                save_trajectory(frames, draft)
    top = None if walk.transition is None else walk.transition.states
    if walk.transition is not None and top is not None:
        chosen = walk.transition.samples.select(top.index)
        written += write_samples(folder / "transition_states", chosen, formats=("h5", *formats))
    write_json(folder / "walk.json", walk.numbers())
    save_figure(folder / "walk.png", draw_walk(walk))
    return [folder / "walk.json", folder / "walk.png", *written]


def draw_walk(walk: Walk) -> Figure:
    """The picture of `write_walk`."""
    found = walk.found
    return walk_figure(
        found.ensemble.z,
        found.ensemble.log_weights,
        found.found.labels,
        walk.path,
        free_energy=walk.free_energy,
        errors=walk.errors,
        committor=walk.committor,
        frames=walk.frames,
        molecule=walk.ensemble.molecule,
        cv_names=walk.cv_names,
        cv=walk.cv,
        ends=walk.ends,
        centres=[state.cvs for state in found.states],
        temperature=walk.ensemble.temperature,
    )


def _walk(
    model: CollectiveRun,
    found: RunStates,
    path: CVPath,
    per_point: int,
    *,
    seed: int,
    ends: tuple[int, int] | None,
    cv: int | None,
    transition: Transition | None,
) -> Walk:
    points = torch.from_numpy(path.points)
    ensemble: Ensemble = model.result.model.decode(points, per_point, seed=seed)
    rows = ensemble.log_weights.reshape(len(points), per_point)
    told = torch.isfinite(rows).any(1)
    if not bool(told.all()):
        where = points[~told][0].tolist()
        raise ValueError(
            f"none of {per_point} structures at {where} carries weight: the generator does not "
            "reach there; decode more with -n, or walk elsewhere"
        )
    log_z, error = (torch.stack(part) for part in zip(*map(log_partition, rows), strict=True))
    energy = -k_t(ensemble) * (log_z - log_z.max())
    chosen, frames, steps = _frames(ensemble, found, rows, seed)
    q = None
    if transition is not None:
        q = _committor_at(ensemble, found, transition, rows)
    return Walk(
        path=path,
        ensemble=ensemble,
        per_point=per_point,
        free_energy=energy.numpy(),
        errors=k_t(ensemble) * error.numpy(),
        ess=per_point * torch.stack([effective_sample_size(row) for row in rows]).numpy(),
        chosen=chosen,
        frames=frames,
        steps=steps,
        cv_names=model.names,
        found=found,
        ends=ends,
        cv=cv,
        committor=q,
        transition=transition,
    )


def _frames(
    ensemble: Ensemble, found: RunStates, rows: Tensor, seed: int
) -> tuple[tuple[int, ...], Tensor | None, tuple[float, ...]]:
    """One structure per point, drawn by weight, so that neighbours differ least."""
    per_point = rows.shape[1]
    drawn = [
        k * per_point + torch.unique(resample_indices(row, CANDIDATES, seed))
        for k, row in enumerate(rows)
    ]
    if ensemble.molecule is None:
        return tuple(int(index[0]) for index in drawn), None, ()
    masses = masses_without_ch(ensemble.molecule)
    chain, steps = smoothest_chain([ensemble.x[index] for index in drawn], masses)
    chosen = [int(index[i]) for index, i in zip(drawn, chain, strict=True)]
    coordinates = found.system.coordinates
    frames = laid_on_each_other(
        ensemble.x[chosen],
        masses,
        coordinates if isinstance(coordinates, InternalCoordinates) else None,
    )
    return tuple(chosen), frames, tuple(steps)


def _committor_at(
    ensemble: Ensemble, found: RunStates, transition: Transition, rows: Tensor
) -> Array:
    """Mean and standard deviation of the committor at each point, ``(n_points, 2)``."""
    finite = torch.isfinite(ensemble.log_weights)
    q = torch.zeros(ensemble.n_samples, dtype=torch.float64)
    q[finite] = transition.committor(ensemble.y[finite][:, found.system.coordinates.soft])
    out = []
    for row, values in zip(rows, q.reshape(rows.shape), strict=True):
        mean = weighted_average(values, row)[0]
        spread = weighted_average((values - mean) ** 2, row)[0].sqrt()
        out.append([float(mean), float(spread)])
    return np.asarray(out)


def _check(n_points: int, per_point: int) -> None:
    if n_points < 3:
        raise ValueError(f"`points` must be at least 3, got {n_points}")
    if per_point < 10:
        raise ValueError(f"`n` must be at least 10 structures per point, got {per_point}")
