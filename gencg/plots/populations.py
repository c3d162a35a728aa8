"""Populations of basins, raw and reweighted, with errors."""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from gencg.plots.style import EXACT, RAW, REWEIGHTED, axes_or_new, symbol

Population = tuple[float, float]


def plot_populations(
    raw: Mapping[str, Population],
    reweighted: Mapping[str, Population],
    *,
    exact: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Bars of the populations on a logarithmic scale, with two standard errors.

    Args:
        raw: Value and standard error by basin, of the sample as drawn.
        reweighted: The same, reweighted.
        exact: Known values by basin, drawn as a line over the bars.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax, width=max(5.2, 0.9 * len(reweighted) + 2))
    names = list(reweighted)
    at = np.arange(len(names))
    values = [v for part in (raw, reweighted) for v, _ in part.values() if v > 0]
    floor = 10 ** np.floor(np.log10(min([*values, 0.1]) / 2))
    for data, colour, label, shift in (
        (raw, RAW, "raw", -0.2),
        (reweighted, REWEIGHTED, "reweighted", 0.2),
    ):
        height = np.array([data[name][0] for name in names])
        error = 2 * np.array([data[name][1] for name in names])
        down = np.minimum(error, np.maximum(height - floor, 0))
        ax.bar(at + shift, height, 0.38, color=colour, alpha=0.85, label=label, yerr=[down, error],
               error_kw={"capsize": 3, "lw": 1.2, "ecolor": EXACT})  # fmt: skip
    known = [k for k, name in enumerate(names) if name in (exact or {})]
    for k in known:
        label = "exact" if k == known[0] else "_exact"
        value = (exact or {})[names[k]]
        ax.hlines(value, k - 0.42, k + 0.42, color=EXACT, ls="--", lw=1.4, label=label)
    ax.set_yscale("log")
    ax.set_ylim(floor, 1.6)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    labels = [fill(symbol(name), 24) for name in names]
    ax.set_xticks(at, labels)
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    if len(names) > 6 or longest > 12:
        ax.tick_params(axis="x", rotation=90)
    ax.set_ylabel("population (%)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax
