"""A path over the surface and the structures along it, to be played."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg import html
from gencg.analysis.chain import laid_on_each_other, smoothest_chain
from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array, wrap
from gencg.analysis.path import CVPath, free_energy_path
from gencg.ensemble import Ensemble
from gencg.importance import effective_sample_size, log_partition, resample_indices
from gencg.notebook.places import decoded, free_energy_at, near
from gencg.notebook.source import Source, methyl_rotors, told
from gencg.notebook.surface import Surface
from gencg.run.states import masses_without_ch
from gencg.run.walk import CANDIDATES, FEW_ESS

KEPT = 200
"""Structures kept at each point, chosen by weight."""
MOST_WIDER = 4
"""How often the reach is doubled at a point without samples near; its structures are farther."""


@dataclass(frozen=True, eq=False)
class Route:
    """Structures along a path; energies in kJ/mol, lengths in nm.

    Attributes:
        path: The points.
        names: Names of the variables.
        ensembles: Weighted structures at each point.
        chosen: The structure of each point that is played, an index of its ensemble: of those
            drawn by weight the chain in which neighbours differ least.
        frames: These, ``(n_points, n_atoms, 3)``, each laid on the one before it, hydrogens of CH3
            groups relabelled so that they turn least; ``(n_points, dim)`` of a toy.
        steps: Deviation of each frame from the one before it; empty for a toy.
        free_energy: At each point above the minimum of the surface, ``(n_points,)``; NaN where
            no sample is near, or points are of more variables than the surface.
        errors: Standard errors, of each point alone.
        ess: Effective number of structures at each point; 0 where no sample is near and the
            structures lie farther away.
        decoded: Whether the structures were decoded anew.
    """

    path: CVPath
    names: tuple[str, ...]
    ensembles: tuple[Ensemble, ...]
    chosen: tuple[int, ...]
    frames: Tensor
    steps: tuple[float, ...]
    free_energy: Array
    errors: Array
    ess: Array
    decoded: bool

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.chosen)

    @property
    def n_energy_calls(self) -> int:
        """Energy calls of the structures: one for each decoded one."""
        return sum(e.n_energy_calls for e in self.ensembles) if self.decoded else 0

    @property
    def barrier(self) -> tuple[int, float, float] | None:
        """The highest point, its free energy above the first, the error; None if not told."""
        if not np.isfinite(self.free_energy).any() or not np.isfinite(self.free_energy[0]):
            return None
        top = int(np.nanargmax(self.free_energy))
        error = float(np.hypot(self.errors[top], self.errors[0])) if top else 0.0
        return top, float(self.free_energy[top] - self.free_energy[0]), error

    @property
    def doubts(self) -> tuple[str, ...]:
        """Points that rest on few structures, in words."""
        empty = np.flatnonzero(self.ess == 0)
        weak = np.flatnonzero((self.ess < FEW_ESS) & (self.ess > 0))
        said = []
        if len(empty):
            said.append(
                f"no sample is near points {_listed(empty)}: their structures lie farther away, "
                "and a barrier there is not told"
            )
        if len(weak):
            said.append(f"fewer than {FEW_ESS:g} effective structures at points {_listed(weak)}")
        return tuple(said)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values for readers."""
        periodic = self.path.periodic
        ends = [", ".join(told(float(v), periodic) for v in self.path.points[k]) for k in (0, -1)]
        rows = [
            ("over", ", ".join(map(shorter, self.names))),
            ("from", ends[0]),
            ("to", ends[1]),
            ("points", str(self.n_points)),
        ]
        if self.barrier is not None:
            top, height, error = self.barrier
            rows.append(
                ("highest", f"point {top + 1}, {html.measured(height, error)} kJ/mol above start")
            )
        if self.steps:
            rows.append(("frames differ by", f"{max(self.steps):.3f} nm at most"))
        if self.decoded:
            rows.append(("energy calls", f"{self.n_energy_calls:,}"))
        return rows

    def numbers(self) -> dict[str, Any]:
        """Everything for scripts."""
        return {
            "names": list(self.names),
            "points": self.path.points.tolist(),
            "arc": self.path.arc.tolist(),
            "free_energy": self.free_energy.tolist(),
            "free_energy_error": self.errors.tolist(),
            "effective_structures": self.ess.tolist(),
            "step_rmsd": list(self.steps),
            "decoded": self.decoded,
            "energy_calls": self.n_energy_calls,
            "doubts": list(self.doubts),
        }

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = ["a path", *(f"  {name}: {value}" for name, value in self.facts)]
        return "\n".join([*lines, *(f"  doubt: {doubt}" for doubt in self.doubts)])

    def __repr__(self) -> str:
        return f"Route({self.n_points} points over {', '.join(self.names)})"

    def _repr_html_(self) -> str:
        words = [("fair", doubt) for doubt in self.doubts]
        good = [("good", "every point rests on enough structures")]
        return html.card("A path", self.facts, verdicts=words or good)


def _listed(points: Any) -> str:
    """Numbers of points from 1, the first eight of them."""
    shown = ", ".join(str(k + 1) for k in points[:8].tolist())
    return f"{shown} ..." if len(points) > 8 else shown


def line_through(
    source: Source,
    points: Array,
    columns: Sequence[int],
    *,
    straight: bool,
    n_points: int,
    seed: int,
) -> CVPath:
    """The curve through points: of least resistance between them, or straight.

    Args:
        source: What is explored.
        points: The points, ``(m, d)``.
        columns: Which variables these are.
        straight: Whether to go straight from each to the next.
        n_points: Points of the curve, at equal distances.
        seed: Decides which samples are nodes, for three or more variables.
    """
    if straight:
        steps = np.diff(points, axis=0)
        steps = wrap(steps) if source.periodic else steps
        line = np.vstack([points[:1], points[:1] + np.cumsum(steps, 0)])
        path = CVPath(wrap(line) if source.periodic else line, source.periodic)
        return path.resample(n_points)
    values = source.values[:, list(columns)]
    pieces = [
        free_energy_path(
            values, source.ensemble.log_weights, start=a, end=b, periodic=source.periodic,
            seed=seed,
        ).points
        for a, b in pairwise(points.tolist())
    ]  # fmt: skip
    joined = np.vstack([pieces[0], *(piece[1:] for piece in pieces[1:])])
    return CVPath(joined, source.periodic).resample(n_points)


def route_along(
    source: Source,
    surface: Surface,
    path: CVPath,
    columns: Sequence[int],
    *,
    decode: int,
    axes: Sequence[int],
    seed: int,
) -> Route:
    """Structures along a path, and the chain of them to play.

    Args:
        source: What is explored.
        surface: Its surface.
        path: The points.
        columns: Which variables the points are of.
        decode: Structures to decode at each point; 0 takes the samples near.
        axes: The variables that are shown.
        seed: Seed of the draw.
    """
    points = path.points
    n_given = points.shape[1]
    if decode:
        whole = decoded(source, points, decode, seed=seed)
        rows = torch.arange(whole.n_samples).reshape(len(points), decode)
        ensembles = [whole.select(row) for row in rows]
        share = whole.n_energy_calls // len(points)
        ensembles = [replace(e, n_energy_calls=share) for e in ensembles]
        told_z = [[float(v) for v in log_partition(e.log_weights)] for e in ensembles]
        ess = [e.n_samples * float(effective_sample_size(e.log_weights)) for e in ensembles]
    else:
        found = [near(source, surface, point, axes, n_wider=MOST_WIDER) for point in points]
        ensembles = [part.ensemble for part in found]
        told_z = [[part.ensemble.log_z, part.relative_error] for part in found]
        ess = [0.0 if part.widened else part.n_effective for part in found]
    energies = [
        free_energy_at(source, surface, z, e, n_given) if n else None
        for (z, e), n in zip(told_z, ess, strict=True)
    ]
    pairs = np.array([(np.nan, np.nan) if e is None else e for e in energies])
    if not decode:
        ensembles = [part.thin(KEPT, seed) for part in ensembles]
    chosen, frames, steps = _chain(source, ensembles, seed)
    return Route(
        path=path, names=tuple(source.names[c] for c in columns), ensembles=tuple(ensembles),
        chosen=chosen, frames=frames, steps=steps, free_energy=pairs[:, 0], errors=pairs[:, 1],
        ess=np.asarray(ess), decoded=bool(decode),
    )  # fmt: skip


def _chain(
    source: Source, ensembles: Sequence[Ensemble], seed: int
) -> tuple[tuple[int, ...], Tensor, tuple[float, ...]]:
    """One structure per point, drawn by weight, so that neighbours differ least."""
    drawn = [torch.unique(resample_indices(e.log_weights, CANDIDATES, seed)) for e in ensembles]
    molecule = source.ensemble.molecule
    if molecule is None:
        chosen = tuple(int(index[len(index) // 2]) for index in drawn)
        frames = torch.stack([e.x[k] for e, k in zip(ensembles, chosen, strict=True)])
        return chosen, frames, ()
    masses = masses_without_ch(molecule)
    groups = [e.x[index] for e, index in zip(ensembles, drawn, strict=True)]
    picked, steps = smoothest_chain(groups, masses)
    chosen = tuple(int(index[i]) for index, i in zip(drawn, picked, strict=True))
    x = torch.stack([e.x[k] for e, k in zip(ensembles, chosen, strict=True)])
    return chosen, laid_on_each_other(x, masses, methyl_rotors(source.coordinates)), tuple(steps)
