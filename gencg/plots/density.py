"""Densities of toy problems, whose answer is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from gencg.analysis.histogram import (
    Array,
    Ranges,
    to_array,
    weighted_histogram,
    weighted_window,
)
from gencg.plots.style import EXACT, MASKED, RAW, REWEIGHTED, axes_or_new, degrees_axis


def plot_density(
    values: Any,
    log_weights: Any,
    *,
    exact: tuple[Any, Any] | None = None,
    label: str = "$x_1$",
    angles: bool = False,
    bins: int = 100,
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Density along one coordinate, raw and reweighted, beside the exact one.

    Args:
        values: Coordinate of the samples, ``(n,)``.
        log_weights: Log weights, ``(n,)``.
        exact: Coordinate and its exact density.
        label: Name of the coordinate.
        angles: Whether it is an angle in radians, to be drawn in degrees.
        bins: Number of bins.
        log: Whether the density's scale is logarithmic, so that rare states show.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    ranges = None if angles else [weighted_window(values, log_weights)]
    scale = 180 / np.pi if angles else 1.0
    top = 0.0
    for weights, colour, name in ((None, RAW, "raw"), (log_weights, REWEIGHTED, "reweighted")):
        histogram = weighted_histogram(values, weights, bins=bins, ranges=ranges)
        density = histogram.probabilities / (histogram.volume * scale)
        top = max(top, density.max())
        shown = np.where(density > 0, density, np.nan) if log else density
        ax.plot(histogram.centres[0] * scale, shown, color=colour, label=name)
    if exact is not None:
        x, p = to_array(exact[0]) * scale, to_array(exact[1]) / scale
        ax.plot(x, p, "--", color=EXACT, label="exact", lw=1.4)
    if log:
        ax.set_yscale("log")
        ax.set_ylim(top * 1e-5, top * 3)
    else:
        ax.set_ylim(bottom=0)
    ax.set_ylabel("density" + (" (deg$^{-1}$)" if angles else ""))
    if angles:
        degrees_axis(ax, "x", label)
    else:
        ax.set_xlabel(label)
        ax.set_xlim(*ranges[0])  # type: ignore[index]
    ax.legend()
    return ax


def plot_density_map(
    values: Any,
    log_weights: Any = None,
    *,
    energy: Callable[[Array], Array] | None = None,
    labels: tuple[str, str] = ("$x_1$", "$x_2$"),
    ranges: Ranges | None = None,
    bins: int = 90,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Density of two coordinates of a toy on a logarithmic scale, with contours of its energy.

    Args:
        values: Coordinates of the samples, ``(n, 2)``.
        log_weights: Log weights, ``(n,)``; None draws the sample as it is.
        energy: Energy in units of kT of points ``(m, 2)``, for contours every two kT.
        labels: Names of the coordinates.
        ranges: Lowest and highest value along each coordinate; None holds nearly all the weight.
        bins: Cells along each coordinate.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    x = to_array(values)
    if ranges is None:
        ranges = [weighted_window(x[:, k], log_weights) for k in range(2)]
    histogram = weighted_histogram(x, log_weights, bins=bins, ranges=ranges)
    density = histogram.probabilities / histogram.volume
    mesh = ax.pcolormesh(
        *histogram.edges,
        np.ma.masked_equal(density.T, 0),
        norm=LogNorm(density.max() * 1e-5, density.max(), clip=True),
        cmap="viridis",
        rasterized=True,
    )
    ax.set_facecolor(MASKED)
    ax.figure.colorbar(mesh, ax=ax, label="density", shrink=0.9)
    if energy is not None:
        grid = np.stack(np.meshgrid(*histogram.centres, indexing="ij"), -1)
        u = energy(grid.reshape(-1, 2)).reshape(bins, bins)
        lines: dict[str, Any] = {
            "colors": EXACT,
            "linewidths": 0.6,
            "alpha": 0.6,
            "linestyles": "solid",
        }
        levels = np.nanmin(u) + np.arange(1, 14, 2.0)
        ax.contour(*histogram.centres, u.T, levels=levels, **lines)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.set_title(title)
    return ax
