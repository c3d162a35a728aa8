"""Training curves: loss, effective sample size and temperature against energy calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

from gencg.analysis.histogram import Array
from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, axes_or_new


def plot_loss(
    history: Sequence[Any], *, bound: float | None = None, ax: Axes | None = None
) -> Axes:
    """Loss of each logged step and its running median; axis cut at the upper five percent.

    Args:
        history: Log lines with `loss`, `beta` and `energy_calls`.
        bound: Lowest value the loss can reach at the target temperature, -log Z.
        ax: Axes to draw on.
    """
    ax = _start(ax)
    calls, loss = _series(history, "loss")
    ax.plot(calls, loss, color=RAW, alpha=0.35, lw=0.8)
    ax.plot(calls, running_median(loss), color=RAW)
    if bound is not None and np.isfinite(bound):
        ax.axhline(bound, ls="--", color=EXACT, lw=1.2, label=r"bound, $-\log Z$ at the target")
    finite = loss[np.isfinite(loss)]
    if len(finite):
        low = min(finite.min(), finite.min() if bound is None else bound)
        high = np.quantile(finite, 0.95) if len(finite) > 40 else finite.max()
        pad = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - pad, high + pad)
    if bound is not None and np.isfinite(bound):
        # Away from the line itself
        ax.legend(loc="upper right" if bound < np.mean(ax.get_ylim()) else "lower right")
    ax.set_ylabel("loss (dimensionless)")
    return ax


def plot_ess(history: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Effective sample size of each logged step at its own temperature."""
    ax = _start(ax)
    calls, ess = _series(history, "ess")
    ax.plot(calls, ess, color=REWEIGHTED, alpha=0.35, lw=0.8)
    ax.plot(calls, running_median(ess), color=REWEIGHTED)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("effective sample size")
    return ax


def plot_temperature(history: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Temperature of the tempering ladder, on a logarithmic scale."""
    ax = _start(ax)
    calls, temperature = _series(history, "temperature")
    ax.plot(calls, temperature, color=ACCENT)
    low, high = temperature.min(), temperature.max()
    if high > 1.05 * low:
        ax.set_yscale("log")
        ax.set_yticks(_round_between(low, high))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_ticks([], minor=True)
    ax.set_ylabel("temperature $T$ (K)")
    return ax


def running_median(values: Array, *, window: int = 25) -> Array:
    """Median over a window centred on each value, shorter at the ends."""
    half = max(1, min(window, len(values) // 4)) // 2
    return np.asarray(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def _round_between(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about a factor 1.5 apart; the ends at least."""
    decade = 10.0 ** np.floor(np.log10(low))
    steps = [decade * 10**k * m for k in range(4) for m in (1, 1.5, 2, 3, 4, 6, 8)]
    inside = [t for t in steps if low * 0.999 <= t <= high * 1.001]
    return inside if len(inside) > 1 else [low, high]


def _series(history: Sequence[Any], name: str) -> tuple[Array, Array]:
    if not history:
        raise ValueError("`history` must hold at least one log line, got none")
    calls = np.asarray([info.energy_calls for info in history], dtype=np.float64)
    return calls, np.asarray([getattr(info, name) for info in history], dtype=np.float64)


def _start(ax: Axes | None) -> Axes:
    ax = axes_or_new(ax)
    ax.set_xlabel("energy calls")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    return ax
