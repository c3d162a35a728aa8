"""Figures of an exploration: a smooth surface with marks, a path over it, structures beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke

from gencg.analysis.histogram import Array, to_array
from gencg.plots.collective import cv_symbol
from gencg.plots.style import ACCENT, EXACT, MASKED, RAW, REWEIGHTED, axes_or_new, degrees_axis


def plot_smooth_surface(
    free_energy: Any,
    edges: Sequence[Any],
    *,
    seen: Any,
    names: Sequence[str],
    angles: bool,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Smoothed free energy over one or two variables, contours every 5 kJ/mol.

    Grey or left out where no sample tells it.

    Args:
        free_energy: In kJ/mol, ``(bins,)`` or ``(bins, bins)``, first variable first.
        edges: Edges of the cells along each variable.
        seen: Which cells to show, of the same shape.
        names: Names of the variables.
        angles: Whether they are angles in radians, to be drawn in degrees.
        colorbar: Whether to draw the colour scale.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    scale = 180 / np.pi if angles else 1.0
    values, shown = to_array(free_energy), np.asarray(seen, dtype=bool)
    centres = [0.5 * (edge[1:] + edge[:-1]) * scale for edge in map(to_array, edges)]
    labels = [cv_symbol(name) for name in names]
    top = max(5 * np.ceil(float(values[shown].max()) / 5), 5.0)
    if values.ndim == 1:
        line = np.where(shown, values, np.nan)
        ax.fill_between(centres[0], line, top, color=REWEIGHTED, alpha=0.10, lw=0)
        ax.plot(centres[0], line, color=REWEIGHTED)
        ax.set_ylim(-0.06 * top, 1.04 * top)
        ax.set_ylabel("free energy (kJ/mol)")
        _axis(ax, "x", labels[0], angles)
        if not angles:
            ax.set_xlim(centres[0][shown].min(), centres[0][shown].max())
        return ax
    mesh = ax.pcolormesh(
        *[to_array(edge) * scale for edge in edges], np.ma.masked_where(~shown, values).T,
        cmap="viridis", vmin=0, vmax=top, rasterized=True,
    )  # fmt: skip
    levels = np.arange(5.0, top, 5.0)
    if len(levels):
        ax.contour(*centres, np.ma.masked_where(~shown, values).T, levels=levels, colors="white",
                   linewidths=0.8, alpha=0.8)  # fmt: skip
    ax.set_facecolor(MASKED)
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax, label="free energy (kJ/mol)", shrink=0.9)
    _axis(ax, "x", labels[0], angles)
    _axis(ax, "y", labels[1], angles)
    if angles:
        ax.set_aspect("equal")
    return ax


def plot_point(
    point: Sequence[float], widths: Sequence[float], *, angles: bool, height: float = 0.0, ax: Axes
) -> Axes:
    """A point with an ellipse that holds the samples near it, on a surface; a dot on a profile.

    Args:
        point: One or two variables.
        widths: How near is near, one standard deviation along each.
        angles: Whether they are angles in radians, drawn in degrees.
        height: Free energy there, for a profile.
        ax: Axes to draw on.
    """
    scale = 180 / np.pi if angles else 1.0
    at = [float(p) * scale for p in point[:2]]
    if len(at) == 1:
        ax.axvspan(at[0] - widths[0] * scale, at[0] + widths[0] * scale, color=RAW, alpha=0.2, lw=0)
        ax.scatter([at[0]], [height], s=120, color=RAW, edgecolors="white", linewidths=1.6,
                   zorder=9)  # fmt: skip
        return ax
    size = [4 * w * scale for w in widths[:2]]
    for colour, width in (("white", 4.0), (RAW, 2.2)):
        ax.add_patch(
            Ellipse((at[0], at[1]), size[0], size[1], fill=False, ec=colour, lw=width, zorder=8)
        )
    ax.scatter([at[0]], [at[1]], s=46, color=RAW, edgecolors="white", linewidths=1.2, zorder=9)
    return ax


def plot_numbered(
    centres: Sequence[Sequence[float]],
    *,
    angles: bool,
    heights: Sequence[float] = (),
    active: int | None = None,
    ax: Axes,
) -> Axes:
    """Numbers of the states where they are densest.

    Args:
        centres: Variables of each; one or two are drawn.
        angles: Whether they are angles in radians, drawn in degrees.
        heights: Free energy of each, for a profile.
        active: A state to draw larger, counted from 0.
        ax: Axes to draw on.
    """
    scale = 180 / np.pi if angles else 1.0
    for j, centre in enumerate(centres):
        x = float(centre[0]) * scale
        y = float(centre[1]) * scale if not len(heights) else float(heights[j])
        size = 17 if j == active else 13
        ax.annotate(
            str(j + 1), (x, y), xytext=(0, 14 if len(heights) else 0), ha="center", va="center",
            textcoords="offset points", fontsize=size, fontweight="bold", zorder=10,
            color=RAW if j == active else EXACT,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
    return ax


def plot_route(
    arc: Any,
    free_energy: Any,
    errors: Any,
    *,
    angles: bool,
    at: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Free energy along a path with a band of two standard errors, and where one stands on it.

    Args:
        arc: Length up to each point, ``(n,)``.
        free_energy: In kJ/mol, ``(n,)``.
        errors: Standard errors.
        angles: Whether the length is one in radians, drawn in degrees.
        at: The point that is played.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    x = to_array(arc) * (180 / np.pi if angles else 1.0)
    f, error = to_array(free_energy), to_array(errors)
    if np.isfinite(f).any():
        ax.fill_between(x, f - 2 * error, f + 2 * error, color=REWEIGHTED, alpha=0.25, lw=0)
        ax.plot(x, f, color=REWEIGHTED, zorder=3)
        if at is not None:
            ax.scatter([x[at]], [f[at]], s=90, color=RAW, edgecolors="white", zorder=5)
        ax.set_ylabel("free energy (kJ/mol)")
    else:
        ax.plot(x, np.zeros_like(x), color=ACCENT)
        ax.set_yticks([])
    ax.set_xlabel("distance along the path" + (" (deg)" if angles else ""))
    return ax


def heights_on(centres: Sequence[Sequence[float]], edges: Any, free_energy: Array) -> list[float]:
    """Free energy of a profile at values of its variable.

    Args:
        centres: The values, the first of each.
        edges: Edges of the cells.
        free_energy: In each cell.
    """
    middle = 0.5 * (to_array(edges)[1:] + to_array(edges)[:-1])
    return [float(np.interp(centre[0], middle, free_energy)) for centre in centres]


def _axis(ax: Axes, which: str, label: str, angle: bool) -> None:
    if angle:
        degrees_axis(ax, which, label)
    else:
        (ax.xaxis if which == "x" else ax.yaxis).set_label_text(label)
