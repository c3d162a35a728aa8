"""The energy histogram, raw and reweighted."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gencg.analysis.histogram import normalised_weights, to_array
from gencg.plots.style import RAW, REWEIGHTED, axes_or_new


def plot_energy_histogram(
    energy: Any,
    log_weights: Any,
    *,
    bins: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Density of the potential energy as drawn and as reweighted.

    The window holds 99 % of the drawn energies and all but a thousandth of the weight.

    Args:
        energy: Energies, ``(n,)``; those that are not finite are left out.
        log_weights: Log weights, ``(n,)``.
        bins: Number of bins.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    u = to_array(energy)
    w = normalised_weights(log_weights, len(u))
    finite = np.isfinite(u)
    u, w = u[finite], w[finite]
    held = np.sort(u)[
        np.searchsorted(np.cumsum(w[np.argsort(u)]), [0.0005, 0.9995]).clip(0, len(u) - 1)
    ]
    low, high = min(np.quantile(u, 0.001), held[0]), max(np.quantile(u, 0.99), held[1])
    pad = 0.03 * (high - low) or 1.0
    window = np.linspace(low - pad, high + pad, bins + 1)
    raw = np.histogram(u, window)[0] / (len(u) * np.diff(window))
    reweighted = np.histogram(u, window, weights=w)[0] / np.diff(window)
    ax.stairs(raw, window, fill=True, color=RAW, alpha=0.25)
    ax.stairs(raw, window, color=RAW, lw=1.6, label="raw")
    ax.stairs(reweighted, window, color=REWEIGHTED, lw=1.8, label="reweighted")
    ax.set_xlim(window[0], window[-1])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("potential energy $U$ (kJ/mol)")
    ax.set_ylabel("density (mol/kJ)")
    ax.legend()
    return ax
