"""Free energies: the surface over two coordinates, its error, the profile along one."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gencg.analysis.free_energy import FreeEnergySurface
from gencg.plots.style import EXACT, MASKED, REWEIGHTED, axes_or_new, degrees_axis, symbol

Labels = tuple[str, ...]


def plot_free_energy(
    surface: FreeEnergySurface,
    *,
    labels: Labels = ("phi", "psi"),
    angles: bool = True,
    highest: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Free energy over two coordinates, contours every 5 kJ/mol; grey where no sample tells it.

    Args:
        surface: From `free_energy_surface` on two coordinates.
        labels: Names of the coordinates.
        angles: Whether they are torsions in radians, to be drawn in degrees.
        highest: Upper end of the colour scale in kJ/mol; None takes the largest value, up to 40.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    top = min(5 * np.ceil(np.nanmax(surface.values) / 5), 40.0) if highest is None else highest
    ax = _map(surface, surface.values, "free energy (kJ/mol)", (0, top), "viridis", angles, ax)
    centres = [np.degrees(c) if angles else c for c in surface.centres]
    levels = np.arange(5.0, top, 5.0)
    # A contour through cells of larger error would draw noise
    sure = np.where(surface.errors < 0.6, surface.values, np.nan)
    levels = levels[levels < np.max(sure, initial=0.0, where=np.isfinite(sure))]
    if len(levels):
        lines = np.ma.masked_invalid(sure.T)
        ax.contour(*centres, lines, levels=levels, colors="white", linewidths=0.8, alpha=0.8)
    return _label(ax, labels, angles, title)


def plot_free_energy_error(
    surface: FreeEnergySurface,
    *,
    labels: Labels = ("phi", "psi"),
    angles: bool = True,
    highest: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Standard error of the free energy over two coordinates.

    Args:
        surface: From `free_energy_surface` on two coordinates.
        labels: Names of the coordinates.
        angles: Whether they are torsions in radians, to be drawn in degrees.
        highest: Upper end of the colour scale in kJ/mol; None takes the largest error.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    top = float(np.nanmax(surface.errors)) if highest is None else highest
    name = "standard error (kJ/mol)"
    ax = _map(surface, surface.errors, name, (0, max(top, 1e-3)), "cividis", angles, ax)
    return _label(ax, labels, angles, title)


def plot_free_energy_profile(
    surface: FreeEnergySurface,
    *,
    label: str = "phi",
    angles: bool = True,
    exact: Any = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Free energy along one coordinate with a band of two standard errors.

    Args:
        surface: From `free_energy_surface` on one coordinate.
        label: Name of the coordinate.
        angles: Whether it is a torsion in radians, to be drawn in degrees.
        exact: Pair of arrays (coordinate, free energy in kJ/mol) of a known answer.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    scale = 180 / np.pi if angles else 1.0
    x, f, error = surface.centres[0] * scale, surface.values, surface.errors
    ax.fill_between(x, f - 2 * error, f + 2 * error, color=REWEIGHTED, alpha=0.25, lw=0)
    ax.plot(x, f, color=REWEIGHTED, label="reweighted, ± 2 standard errors")
    if exact is not None:
        ax.plot(np.asarray(exact[0]) * scale, exact[1], "--", color=EXACT, label="exact")
    ax.set_ylabel("free energy (kJ/mol)")
    ax.set_ylim(min(0.0, float(np.nanmin(f - 2 * error))), 1.35 * float(np.nanmax(f + 2 * error)))
    ax.set_title(title)
    ax.legend(frameon=True, framealpha=0.85, edgecolor="none", loc="upper center")
    if angles:
        degrees_axis(ax, "x", symbol(label))
    else:
        shown = surface.edges[0][:-1][np.isfinite(f)]
        margin = 0.08 * (shown[-1] - shown[0]) or 1.0
        ax.set_xlim(shown[0] - margin, shown[-1] + margin)
        ax.set_xlabel(label)
    return ax


def _map(
    surface: FreeEnergySurface,
    values: Any,
    name: str,
    limits: tuple[float, float],
    cmap: str,
    angles: bool,
    ax: Axes | None,
) -> Axes:
    if values.ndim != 2:
        raise ValueError(f"`surface` must be over two coordinates, got {values.ndim}")
    ax = axes_or_new(ax)
    edges = [np.degrees(edge) if angles else edge for edge in surface.edges]
    mesh = ax.pcolormesh(
        *edges, np.ma.masked_invalid(values.T), cmap=cmap, vmin=limits[0], vmax=limits[1],
        rasterized=True,
    )  # fmt: skip
    ax.set_facecolor(MASKED)
    over = "max" if np.nanmax(values) > limits[1] else "neither"
    ax.figure.colorbar(mesh, ax=ax, label=name, extend=over, shrink=0.9)
    return ax


def _label(ax: Axes, labels: Labels, angles: bool, title: str) -> Axes:
    ax.set_title(title)
    if angles:
        ax.set_aspect("equal")
        degrees_axis(ax, "x", symbol(labels[0]))
        degrees_axis(ax, "y", symbol(labels[1]))
    else:
        ax.set_xlabel(labels[0])
        ax.set_ylabel(labels[1])
    return ax
