"""The figures of an exploration: the surface beside what was selected on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gencg.analysis.histogram import Array
from gencg.analysis.path import CVPath
from gencg.notebook.pictures import HAZE, plot_toy, selection_colour
from gencg.notebook.route import Route
from gencg.notebook.selection import Selection
from gencg.notebook.source import told
from gencg.notebook.surface import Surface
from gencg.plots.collective import cv_symbol
from gencg.plots.exploration import (
    heights_on,
    plot_numbered,
    plot_point,
    plot_route,
    plot_smooth_surface,
)
from gencg.plots.states import state_colour, state_symbol
from gencg.plots.structures import plot_ensemble, plot_structures
from gencg.plots.style import new_figure, style
from gencg.plots.walk import plot_path

if TYPE_CHECKING:
    from gencg.notebook.explorer import Explorer

N_SHOWN = 5
"""Structures of a path, or states, that stand beside each other."""


def explorer_figure(
    explorer: "Explorer",
    what: Selection | Route | None,
    *,
    frame: int | None = None,
    turn: float = 0.0,
) -> Figure:
    """The figure of `Explorer.figure`, whose arguments these are."""
    with style():
        if isinstance(what, Selection):
            return _selection_figure(explorer, what, turn)
        if isinstance(what, Route):
            if frame is not None and not 0 <= frame < what.n_points:
                raise ValueError(f"`frame` must lie in [0, {what.n_points}), got {frame}")
            return _route_figure(explorer, what, frame, turn)
        return _states_figure(explorer, turn)


def surface_axes(
    explorer: "Explorer", ax: Axes, *, active: int | None = None, colorbar: bool = True
) -> Axes:
    """The surface with the numbers of its states.

    Args:
        explorer: What is explored.
        ax: Axes to draw on.
        active: State whose number is larger.
        colorbar: Whether to draw the colour scale.
    """
    surface = explorer.surface
    plot_smooth_surface(
        surface.free_energy, surface.density.edges, seen=surface.seen, names=surface.names,
        angles=surface.periodic, colorbar=colorbar, ax=ax,
    )  # fmt: skip
    centres = [[s.centre[k] for k in explorer.axes] for s in explorer.states]
    plot_numbered(
        centres, angles=surface.periodic, heights=_heights(surface, centres), active=active, ax=ax
    )
    return ax


def _selection_figure(explorer: "Explorer", selection: Selection, turn: float) -> Figure:
    figure, (left, right) = new_figure(2, width=5.8, height=4.6, width_ratios=[1.15, 1.0])
    surface_axes(explorer, left, active=selection.state)
    surface = explorer.surface
    point = _shown(explorer, selection.z)
    if selection.state is None:
        plot_point(
            point, surface.widths, angles=surface.periodic,
            height=(_heights(surface, [point]) or [0.0])[0], ax=left,
        )  # fmt: skip
    molecule = selection.ensemble.molecule
    if molecule is None:
        plot_toy(selection, right)
    else:
        plot_ensemble(
            selection.structures(HAZE), molecule, colour=selection_colour(selection), turn=turn,
            ax=right,
        )  # fmt: skip
    right.set_title(_caption(selection), fontsize=11)
    return figure


def _caption(selection: Selection) -> str:
    lines, second = [_spelled(selection)], []
    if selection.population is not None:
        second.append(f"population {100 * selection.population[0]:.3g} %")
    if selection.free_energy is not None:
        value, error = selection.free_energy
        # z: no minus before what rounds to zero
        second.append(f"{value:z.1f} ± {error:.1f} kJ/mol" if error > 0 else f"{value:z.1f} kJ/mol")
    third = [f"{selection.n_effective:,.0f} effective structures"]
    if selection.spread is not None:
        third.append(f"spread {selection.spread:.3f} nm")
    return "\n".join([*lines, ", ".join(second), ", ".join(third)])


def _spelled(selection: Selection) -> str:
    """Title with symbols: the name of a state, or the values of the variables."""
    head, _, name = selection.title.partition(": ")
    if selection.state is not None:
        return f"{head}: {state_symbol(name)}"
    return ", ".join(
        f"{cv_symbol(name)} {told(z, selection.periodic).replace('-', '−')}"
        for name, z in zip(selection.names, selection.z, strict=True)
    )


def _route_figure(explorer: "Explorer", route: Route, frame: int | None, turn: float) -> Figure:
    molecule = explorer.ensemble.molecule
    figure, _ = new_figure(width=11.5, height=7.2 if molecule is not None else 4.8)
    figure.clf()
    rows = figure.add_gridspec(
        1 if molecule is None else 2, 1, height_ratios=None if molecule is None else [2.6, 1]
    )
    top = rows[0].subgridspec(1, 2, width_ratios=[1.1, 1.0])
    left, right = (figure.add_subplot(top[k]) for k in range(2))
    surface_axes(explorer, left)
    n = route.n_points
    marked = [frame] if frame is not None else _evenly(n)
    if len(route.names) == explorer.surface.n_variables == 1:
        heights = heights_on(route.path.points.tolist(), explorer.surface.density.edges[0],
                             explorer.surface.free_energy)  # fmt: skip
        scale = 180 / np.pi if route.path.periodic else 1.0
        left.scatter(route.path.points[:, 0] * scale, heights, c=np.arange(n), cmap="plasma", s=30,
                     edgecolors="white", linewidths=0.6, zorder=7)  # fmt: skip
    else:
        plot_path(_on_axes(explorer, route), marked=[] if frame is not None else marked, ax=left)
    if frame is not None:
        point = _shown(explorer, route.path.points[frame])
        surface = explorer.surface
        plot_point(point, surface.widths, angles=surface.periodic,
                   height=(_heights(surface, [point]) or [0.0])[0], ax=left)  # fmt: skip
    plot_route(route.path.arc, route.free_energy, route.errors, angles=route.path.periodic,
               at=frame, ax=right)  # fmt: skip
    if molecule is not None:
        below = rows[1].subgridspec(1, len(marked))
        axes = [figure.add_subplot(below[k]) for k in range(len(marked))]
        titles = [chr(ord("a") + k) for k in range(len(marked))]
        titles = titles if frame is None else [f"point {frame + 1}"]
        plot_structures(route.frames[marked], molecule, axes, titles=titles)
    return figure


def _states_figure(explorer: "Explorer", turn: float) -> Figure:
    molecule, states = explorer.ensemble.molecule, explorer.states[:N_SHOWN]
    figure, _ = new_figure(width=11.0, height=4.8)
    figure.clf()
    grid = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.15])
    surface_axes(explorer, figure.add_subplot(grid[0]))
    kept = explorer.selected
    chosen = [explorer.state(j + 1) for j in range(len(states))]
    explorer.selected = kept
    columns = 1 if len(chosen) == 1 else 2
    below = grid[1].subgridspec(-(-len(chosen) // columns), columns)
    for j, selection in enumerate(chosen):
        ax = figure.add_subplot(below[j // columns, j % columns])
        if molecule is None:
            plot_toy(selection, ax)
        else:
            plot_ensemble(
                selection.structures(HAZE), molecule, colour=state_colour(j), turn=turn, pixels=360,
                ax=ax,
            )  # fmt: skip
        p, error = (100 * v for v in states[j].population)
        ax.set_title(f"{j + 1}: {p:.3g} ± {error:.1g} %", fontsize=11, color=state_colour(j),
                     fontweight="bold")  # fmt: skip
    return figure


def _shown(explorer: "Explorer", z: Sequence[float] | Array) -> list[float]:
    """The variables that are shown of a point that may give all."""
    values = [float(v) for v in z]
    n = len(explorer.axes)
    return values if len(values) == n else [values[k] for k in explorer.axes]


def _on_axes(explorer: "Explorer", route: Route) -> CVPath:
    points = np.array([_shown(explorer, p) for p in route.path.points])
    return CVPath(points, route.path.periodic, route.path.closed)


def _heights(surface: Surface, centres: Sequence[Sequence[float]]) -> list[float]:
    if surface.n_variables == 2:
        return []
    return heights_on(centres, surface.density.edges[0], surface.free_energy)


def _evenly(n: int) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(0, n - 1, min(N_SHOWN + 1, n)).round())]
