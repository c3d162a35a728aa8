"""Exploring a result: structures at points of the free-energy surface, along paths, of states."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from gencg import html
from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array
from gencg.ensemble import Ensemble
from gencg.fit import FitResult
from gencg.importance import log_partition
from gencg.notebook import display
from gencg.notebook.figures import explorer_figure
from gencg.notebook.places import checked_point, decoded, free_energy_at, near
from gencg.notebook.route import Route, line_through, route_along
from gencg.notebook.saving import write_route, write_selection, write_surface
from gencg.notebook.selection import Selection, k_t, select
from gencg.notebook.source import KnownState, Source, source_of, told
from gencg.notebook.surface import Surface, surface_of
from gencg.notebook.viewer import view3d
from gencg.run import RunFolder
from gencg.systems.base import System


def explore(
    source: FitResult | Ensemble | RunFolder | str | Path,
    *,
    over: Sequence[str] | None = None,
    axes: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    system: System | None = None,
    n_samples: int = 10_000,
    seed: int = 0,
) -> "Explorer":
    """Explore a result: click on the free-energy surface and see the structures there.

    In a notebook the returned object shows a panel to click and slide in; everywhere else its
    methods give the same as data, figures and files.

    Args:
        source: The folder of a finished run, an ensemble, or the result of `fit`, of which samples
            are then drawn.
        over: Coordinates to explore over in place of the collective variables, such as
            ``("phi(ALA2)", "psi(ALA2)")``; None takes the collective variables, or the first two
            torsions of a model without.
        axes: Which two variables the surface is over, counted from 0; None: the first two.
        names: Names of the collective variables of a `FitResult` or an ensemble, such as
            ``slow.names``; a run knows its own.
        system: What an ensemble was drawn of, which names its coordinates.
        n_samples: Samples drawn of a `FitResult`, one energy call each.
        seed: Decides everything random.

    Raises:
        ValueError: If there is nothing to explore, or no such coordinate.
    """
    found = source_of(source, over=over, names=names, system=system, n_samples=n_samples, seed=seed)
    return Explorer(found, axes=axes, seed=seed)


class Explorer:
    """The surface of a result with the structures behind it; made by `explore`.

    Every method is plain: it gives data, a figure or files, and needs no widget. Nothing is
    decoded, and no energy call spent, unless ``decode`` asks for it.

    Args:
        source: What is explored.
        axes: Which two variables the surface is over; None: the first two.
        seed: Decides everything random.

    Raises:
        ValueError: If there are no such variables.
    """

    def __init__(
        self, source: Source, *, axes: tuple[int, int] | None = None, seed: int = 0
    ) -> None:
        d = len(source.names)
        chosen = tuple(range(min(d, 2))) if axes is None else tuple(axes)
        if axes is not None and (
            len(set(chosen)) != 2 or not all(0 <= k < d for k in chosen) or d < 2
        ):
            raise ValueError(f"`axes` must be two of 0 to {d - 1}, the variables, got {axes}")
        self.source = source
        self.axes = chosen
        self.seed = seed
        self.selected: Selection | Route | None = None

    @property
    def ensemble(self) -> Ensemble:
        """The weighted samples that are explored."""
        return self.source.ensemble

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return self.source.names

    @property
    def periodic(self) -> bool:
        """Whether the variables are angles in radians."""
        return self.source.periodic

    @cached_property
    def surface(self) -> Surface:
        """The free energy over the one or two variables that are shown."""
        return surface_of(
            self.ensemble, self.source.values[:, list(self.axes)],
            names=[self.names[k] for k in self.axes], periodic=self.periodic,
        )  # fmt: skip

    @cached_property
    def states(self) -> tuple[KnownState, ...]:
        """States, the most populated first: metastable ones of a run, basins of others."""
        return self.source.find()

    def at(self, z: Sequence[float] | float, *, decode: int = 0) -> Selection:
        """The weighted structures at a point of the surface.

        Args:
            z: Value of each variable that is shown, or of all of them; angles in rad.
            decode: Structures to decode anew with the model, one energy call each; 0 takes the
                samples near, which costs none.

        Raises:
            ValueError: If z has another length or is not finite, no sample is near, or there is no
                model to decode with.
        """
        point = checked_point(self.source, self.surface, z)
        given = self._columns(point)
        names = tuple(self.names[k] for k in given)
        where = ", ".join(
            f"{shorter(name)} {told(float(v), self.periodic)}"
            for name, v in zip(names, point, strict=True)
        )
        if decode:
            ensemble = decoded(self.source, point[None], decode, seed=self.seed)
            log_z, relative = (float(v) for v in log_partition(ensemble.log_weights))
            number = ensemble.ess * ensemble.n_samples
        else:
            found = near(self.source, self.surface, point, self.axes)
            ensemble, relative, number = found.ensemble, found.relative_error, found.n_effective
            log_z = ensemble.log_z
        selection = select(
            ensemble, title=f"structures at {where}", z=point, names=names, periodic=self.periodic,
            free_energy=free_energy_at(self.source, self.surface, log_z, relative, len(point)),
            n_effective=number, decoded=bool(decode), seed=self.seed,
        )  # fmt: skip
        self.selected = selection
        return selection

    def state(self, k: int | str) -> Selection:
        """The weighted structures of a state.

        Args:
            k: Its number from 1, as the figures count, its name or its only basin.

        Raises:
            ValueError: If there is no such state.
        """
        j = self._number(k)
        state, log_weights = self.states[j], self.ensemble.log_weights
        members = torch.from_numpy(state.members) & torch.isfinite(log_weights)
        title = f"state {j + 1}: {state.basin or state.name}"
        best, (p, error), kt = self.states[0].population[0], state.population, k_t(self.ensemble)
        above = (-kt * float(np.log(p / best)), kt * error / p) if j else (0.0, 0.0)
        selection = select(
            self.ensemble.select(members), title=title, z=np.asarray(state.centre),
            names=self.names, periodic=self.periodic, population=state.population,
            free_energy=above, state=j, doubts=state.doubts, seed=self.seed,
        )  # fmt: skip
        self.selected = selection
        return selection

    def path(
        self,
        points: Sequence[Sequence[float] | float | int],
        *,
        straight: bool = False,
        n_points: int = 30,
        decode: int = 0,
    ) -> Route:
        """The structures along a path through points, to be played.

        Args:
            points: Two points or more, each a value of each variable that is shown, or of all.
            straight: Go straight from each point to the next; else along the path of least
                resistance between them.
            n_points: Points of the path, at equal distances.
            decode: Structures to decode anew at each point, one energy call each; 0 takes the
                samples near.

        Raises:
            ValueError: If there are fewer than two points or `n_points` below 3, a point is not
                one, or no structures are found at one.
        """
        if len(points) < 2:
            raise ValueError(f"`points` must be at least two, got {len(points)}")
        if n_points < 3:
            raise ValueError(f"`n_points` must be at least 3, got {n_points}")
        given = [checked_point(self.source, self.surface, point) for point in points]
        if len({len(point) for point in given}) > 1:
            raise ValueError("`points` must all give the same variables, some give fewer")
        columns = self._columns(given[0])
        line = line_through(
            self.source, np.stack(given), columns, straight=straight, n_points=n_points,
            seed=self.seed,
        )  # fmt: skip
        route = route_along(
            self.source, self.surface, line, columns, decode=decode, axes=self.axes, seed=self.seed
        )
        self.selected = route
        return route

    def between(
        self, start: int | str, end: int | str, *, n_points: int = 30, decode: int = 0
    ) -> Route:
        """The structures along the path of least resistance between two states.

        Args:
            start: A state as in `state`.
            end: Another one.
            n_points: As in `path`.
            decode: As in `path`.

        Raises:
            ValueError: As `state` and `path` do, or if both are one state.
        """
        first, last = self._number(start), self._number(end)
        if first == last:
            raise ValueError(f"a path leads from one state to another, got {first + 1} twice")
        ends = [self.states[j].centre for j in (first, last)]
        if not decode:
            ends = [tuple(centre[k] for k in self.axes) for centre in ends]
        return self.path(ends, n_points=n_points, decode=decode)

    def figure(
        self, what: Selection | Route | None = None, *, frame: int | None = None, turn: float = 0.0
    ) -> Figure:
        """The surface with its states, and what was selected: marked there, its structures beside.

        Args:
            what: A selection or a path; None takes the last one, or the states if there is none.
            frame: Point of a path to stand on, counted from 0; None draws several.
            turn: Angle in degrees by which structures are turned about the vertical.
        """
        return explorer_figure(self, what or self.selected, frame=frame, turn=turn)

    def save(self, folder: str | Path, what: Selection | Route | None = None) -> list[Path]:
        """Write what was selected: structures with weights, numbers, pictures.

        Of a selection ``samples.h5``, ``samples.xtc`` with ``frames.csv`` (the weight of each
        frame) and ``topology.pdb``, ``representative.pdb``, ``structures.pdb`` (of equal weight,
        laid on it); of a path ``path.pdb``, ``path.xtc`` and ``path.gif``; of both
        ``selection.json`` and ``selection.png``. Without a selection the surface and its states.

        Args:
            folder: Where to write; made if missing.
            what: What to write; None takes what was selected last.

        Returns:
            The files.
        """
        chosen = what or self.selected
        if isinstance(chosen, Selection):
            return write_selection(folder, chosen, self.figure(chosen))
        if isinstance(chosen, Route):
            return write_route(folder, chosen, self.figure(chosen), self.ensemble.molecule)
        return write_surface(folder, self.surface, self.states, self.figure())

    def view3d(
        self, what: Selection | Route | None = None, *, width: int = 480, height: int = 380
    ) -> Any:
        """A view to turn with the mouse, of what was selected; its script comes from the network.

        Args:
            what: A selection or a path, which is played; None takes what was selected last, or the
                first state.
            width: Pixels.
            height: Pixels.

        Returns:
            A ``py3Dmol.view``, or None where py3Dmol is missing.

        Raises:
            ValueError: If there is no molecule.
        """
        chosen = what or self.selected or self.state(1)
        return view3d(chosen, self.ensemble.molecule, width=width, height=height)

    def show(self) -> None:
        """Show the panel to click in; without widgets the figure, and once what to install."""
        display.show(self)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values for readers."""
        e = self.ensemble
        rows = [
            ("variables", ", ".join(map(shorter, self.names))),
            ("samples", f"{e.n_samples:,}"),
            ("ESS", f"{e.ess:.3f}"),
            ("log Z", html.measured(e.log_z, e.log_z_error)),
            ("Pareto k", f"{e.pareto_k:.2f}"),
            ("structures anew", "by decoding" if self.source.model else "no, from the samples"),
        ]
        if self.source.n_drawn_calls:
            rows.append(("energy calls", f"{self.source.n_drawn_calls:,} for these samples"))
        return rows

    def __repr__(self) -> str:
        return (
            f"Explorer({self.source.label}; {', '.join(self.names)}; "
            f"{self.ensemble.n_samples} samples, ess={self.ensemble.ess:.3g})"
        )

    def _repr_html_(self) -> str:
        return html.card(
            f"Exploring {self.source.label}", self.facts, verdicts=self.ensemble.verdicts
        )

    def _ipython_display_(self) -> None:
        self.show()

    def _columns(self, point: Array) -> list[int]:
        n = len(point)
        return list(self.axes) if n == len(self.axes) else list(range(len(self.names)))

    def _number(self, k: int | str) -> int:
        states = self.states
        keys = [{str(j + 1), s.name, s.basin} - {""} for j, s in enumerate(states)]
        hits = [j for j, names in enumerate(keys) if str(k).strip() in names]
        if len(hits) != 1:
            known = "; ".join(
                f"{j + 1}: {s.name}" + (f" ({s.basin})" if s.basin else "")
                for j, s in enumerate(states)
            )
            raise ValueError(f"`k` must be one of the states {known}; got {k!r}")
        return hits[0]
