"""A walk in the collective variables: the path on the map, the free energy along it, structures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from gencg.analysis.histogram import Array, to_array
from gencg.analysis.path import CVPath
from gencg.molecule import Molecule
from gencg.plots.collective import cv_symbol
from gencg.plots.states import number_state, plot_state_map
from gencg.plots.structures import plot_structures
from gencg.plots.style import ACCENT, EXACT, REWEIGHTED, new_figure, style

N_SHOWN = 6
"""Structures drawn below."""


def plot_path(path: CVPath, *, marked: Sequence[int] = (), ax: Axes) -> Axes:
    """A path over the first two collective variables, on a map of them; cut at the seam.

    Args:
        path: The path; of one variable it is drawn along the bottom.
        marked: Points to letter.
        ax: Axes to draw on.
    """
    scale = 180 / np.pi if path.periodic else 1.0
    points = path.points * scale
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    points = points[:, :2]
    for piece in path.pieces:
        x = piece[:, 0] * scale
        y = piece[:, 1] * scale if piece.shape[1] > 1 else np.zeros_like(x)
        ax.plot(x, y, color="white", lw=5.0, zorder=5, solid_capstyle="round")
        ax.plot(x, y, color=EXACT, lw=2.4, zorder=6, solid_capstyle="round")
    ax.scatter(
        points[:, 0], points[:, 1], c=np.arange(len(points)), cmap="plasma", s=26,
        edgecolors="white", linewidths=0.6, zorder=7,
    )  # fmt: skip
    for n, k in enumerate(marked):
        ax.annotate(
            chr(ord("a") + n), points[k], xytext=(10, 9), textcoords="offset points",
            fontsize=12, fontweight="bold", color=EXACT, zorder=10,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
    return ax


def plot_along_path(
    path: CVPath,
    free_energy: Any,
    errors: Any,
    *,
    committor: Any = None,
    along: tuple[int, str] | None = None,
    marked: Sequence[int] = (),
    ends: tuple[int, int] | None = None,
    ax: Axes,
) -> Axes:
    """Free energy along a path with a band of two standard errors, and the committor.

    Args:
        path: The path.
        free_energy: In kJ/mol, ``(n_points,)``.
        errors: Standard errors.
        committor: Mean and standard deviation at each point, ``(n_points, 2)``.
        along: The variable that the path follows, counted from 0, and its name: the abscissa, the
            length of the path, then has the ticks of this variable.
        marked: Points to letter.
        ends: States it leads from and to, counted from 0.
        ax: Axes to draw on.
    """
    f, error = to_array(free_energy), to_array(errors)
    scale = 180 / np.pi if path.periodic else 1.0
    x = path.arc * scale
    unit = " (deg)" if path.periodic else ""
    ax.fill_between(x, f - 2 * error, f + 2 * error, color=REWEIGHTED, alpha=0.25, lw=0)
    ax.plot(x, f, color=REWEIGHTED, zorder=3)
    ax.scatter(x, f, c=np.arange(len(x)), cmap="plasma", s=26, edgecolors="white", linewidths=0.6,
               zorder=4)  # fmt: skip
    span = float(np.nanmax(f + 2 * error)) or 1.0
    ax.set_ylim(min(0.0, float(np.nanmin(f - 2 * error))) - 0.06 * span, 1.18 * span)
    for n, k in enumerate(marked):
        ax.annotate(chr(ord("a") + n), (x[k], f[k] + 2 * error[k]), xytext=(0, 5),
                    textcoords="offset points", ha="center", fontsize=12, fontweight="bold",
                    color=EXACT)  # fmt: skip
    for j, k in zip(ends or (), (0, -1), strict=False):
        number_state(ax, j, float(x[k]), 1.1 * span)
    ax.set_xlabel(f"distance along the path{unit}")
    if along is not None:
        _ticks_of_variable(ax, path.unwrapped[:, along[0]] * scale, x, path.periodic)
        ax.set_xlabel(f"{cv_symbol(along[1])}{unit}, along the path")
    ax.set_ylabel("free energy (kJ/mol)", color=REWEIGHTED)
    ax.margins(x=0.04)
    if committor is not None:
        _committor(ax, x, to_array(committor))
    return ax


def walk_figure(
    z: Any,
    log_weights: Any,
    labels: Any,
    path: CVPath,
    *,
    free_energy: Any,
    errors: Any,
    committor: Any = None,
    frames: Any = None,
    molecule: Molecule | None = None,
    cv_names: Sequence[str],
    cv: int | None = None,
    ends: tuple[int, int] | None = None,
    centres: Sequence[Sequence[float]] = (),
    temperature: float,
) -> Figure:
    """The path on the map of the states, the free energy along it, and some of its structures.

    Args:
        z: Collective variables of the run's samples, ``(n, n_cvs)``.
        log_weights: Their log weights, ``(n,)``.
        labels: State of each sample, ``(n,)``.
        path: The path.
        free_energy: Along it, in kJ/mol, ``(n_points,)``.
        errors: Standard errors.
        committor: Mean and standard deviation at each point, ``(n_points, 2)``.
        frames: Structures ``(n_points, n_atoms, 3)`` in nm.
        molecule: Their topology.
        cv_names: Names of the variables.
        cv: The variable that the path follows; None between states.
        ends: States it leads from and to.
        centres: Where each state is numbered.
        temperature: Temperature in K.
    """
    n = len(path.points)
    with_structures = molecule is not None and frames is not None
    marked = _marked(to_array(free_energy), closed=path.closed) if with_structures else []
    with style():
        figure, _ = new_figure(width=11.5, height=7.0 if with_structures else 4.8)
        figure.clf()
        rows = figure.add_gridspec(
            2 if with_structures else 1, 1, height_ratios=[2.9, 1] if with_structures else None
        )
        top = rows[0].subgridspec(1, 2, width_ratios=[1, 1.15])
        left, right = (figure.add_subplot(top[k]) for k in range(2))
        plot_state_map(
            z, log_weights, labels, cv_names=cv_names, periodic=path.periodic,
            temperature=temperature, centres=centres, ax=left,
        )  # fmt: skip
        plot_path(path, marked=marked, ax=left)
        along = None if cv is None else (cv, cv_names[cv])
        plot_along_path(
            path, free_energy, errors, committor=committor, along=along, marked=marked, ends=ends,
            ax=right,
        )  # fmt: skip
        if with_structures and molecule is not None:
            below = rows[1].subgridspec(1, len(marked))
            axes = [figure.add_subplot(below[k]) for k in range(len(marked))]
            colours = [_progress(k / (n - 1)) for k in marked]
            titles = [chr(ord("a") + i) for i in range(len(marked))]
            plot_structures(frames[marked], molecule, axes, titles=titles, colours=colours)
    return figure


def _marked(free_energy: Array, *, closed: bool) -> list[int]:
    """Evenly spaced points, the nearest of them moved onto the top."""
    n = len(free_energy)
    last = n - 1 if not closed else n - 1 - n // N_SHOWN
    picked = np.unique(np.linspace(0, last, min(N_SHOWN, n)).round().astype(int))
    top = int(np.nanargmax(free_energy))
    if 0 < top < last:
        inner = picked[1:-1]
        if len(inner):
            picked[1 + int(np.argmin(np.abs(inner - top)))] = top
    return [int(k) for k in np.unique(picked)]


def _ticks_of_variable(ax: Axes, values: Array, x: Array, periodic: bool) -> None:
    """Ticks where the variable passes round values; it may stand still where the others move."""
    forward = np.maximum.accumulate(values) + 1e-9 * np.arange(len(values))
    if periodic:
        ticks = np.arange(np.ceil(forward[0] / 60) * 60, forward[-1] + 1e-6, 60)
        names = [f"{(t + 180) % 360 - 180:.0f}" for t in ticks]
    else:
        ticks = np.linspace(forward[0], forward[-1], 5)
        names = [f"{t:.2g}" for t in ticks]
    ax.set_xticks(np.interp(ticks, forward, x), names)


def _committor(ax: Axes, x: Array, q: Array) -> None:
    twin = ax.twinx()
    low, high = np.clip(q[:, 0] - q[:, 1], 0, 1), np.clip(q[:, 0] + q[:, 1], 0, 1)
    twin.fill_between(x, low, high, color=ACCENT, alpha=0.15, lw=0)
    twin.plot(x, q[:, 0], color=ACCENT, ls="--")
    twin.axhline(0.5, color=ACCENT, lw=0.8, alpha=0.5)
    twin.set_ylim(-0.06 / 1.24, 1.18)
    twin.set_yticks([0, 0.25, 0.5, 0.75, 1])
    twin.set_ylabel("committor, mean ± spread", color=ACCENT)
    twin.spines["right"].set_visible(True)


def _progress(share: float) -> str:
    red, green, blue, _ = colormaps["plasma"](0.85 * share)
    return f"#{int(255 * red):02x}{int(255 * green):02x}{int(255 * blue):02x}"
