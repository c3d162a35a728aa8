"""The distribution of the importance weights."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gencg.analysis.histogram import to_array
from gencg.plots.style import EXACT, REWEIGHTED, axes_or_new


def plot_weights(log_weights: Any, *, bins: int = 80, ax: Axes | None = None) -> Axes:
    """Histogram of the weights over their mean, on logarithmic axes.

    A good generator has all of them near 1; single samples far to the right carry averages alone.

    Args:
        log_weights: Log weights, ``(n,)``; -inf (samples without weight) counts in the mean only.
        bins: Number of bins.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    log_w = to_array(log_weights)
    n = len(log_w)
    alive = log_w[np.isfinite(log_w)]
    if len(alive) == 0:
        raise ValueError("`log_weights` must hold a finite weight, got none")
    ratio = alive - (np.logaddexp.reduce(alive) - np.log(n))
    low, high = max(ratio.min(), -12.0), max(ratio.max(), 0.5)
    edges = np.linspace(low, high + 1e-6, bins + 1)
    counts = np.histogram(ratio, edges)[0]
    ax.stairs(counts / n, np.exp(edges), fill=True, color=REWEIGHTED, alpha=0.75)
    ax.axvline(1.0, ls="--", color=EXACT, lw=1.2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"weight over its mean, $w / \langle w \rangle$")
    ax.set_ylabel("share of samples")
    dead = n - len(alive)
    if dead:
        ax.set_title(f"{dead:,} of {n:,} samples without weight", fontsize=11)
    return ax
