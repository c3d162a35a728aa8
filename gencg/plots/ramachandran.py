"""The Ramachandran map: density of two torsions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from gencg.analysis.histogram import weighted_histogram
from gencg.plots.style import MASKED, axes_or_new, degrees_axis, symbol


def plot_ramachandran(
    angles: Any,
    log_weights: Any = None,
    *,
    labels: tuple[str, str] = ("phi", "psi"),
    bins: int = 72,
    decades: float = 4.0,
    title: str = "",
    colorbar: bool = True,
    shared: Sequence[Axes] = (),
    ax: Axes | None = None,
) -> Axes:
    """Probability density of two torsions per square degree, on a logarithmic colour scale.

    Args:
        angles: Two torsions in radians, ``(n, 2)``.
        log_weights: Log weights, ``(n,)``; None draws the sample as it is.
        labels: Names of the torsions.
        bins: Cells along each torsion.
        decades: Powers of ten that the colour scale spans below 0.001 per square degree; fixed,
            so that maps can be compared.
        title: Title of the axes.
        colorbar: Whether to draw the colour scale.
        shared: Axes that the colour scale stands for, for maps side by side.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    histogram = weighted_histogram(angles, log_weights, bins=bins)
    density = histogram.probabilities / (360 / bins) ** 2
    norm = LogNorm(1e-3 * 10**-decades, 1e-3, clip=True)
    edges = [np.degrees(edge) for edge in histogram.edges]
    mesh = ax.pcolormesh(
        *edges, np.ma.masked_equal(density.T, 0), norm=norm, cmap="viridis", rasterized=True
    )
    ax.set_facecolor(MASKED)
    ax.set_aspect("equal")
    degrees_axis(ax, "x", symbol(labels[0]))
    degrees_axis(ax, "y", symbol(labels[1]))
    ax.set_title(title)
    if colorbar:
        share = list(shared) or [ax]
        ax.figure.colorbar(mesh, ax=share, label="density (deg$^{-2}$)", shrink=0.9)
    return ax
