"""Collective variables: their spectrum, their surface, their slow functions, what they follow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LogNorm
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from gencg.analysis.basins import Basin
from gencg.analysis.collective import SlowMaps
from gencg.analysis.cv_names import cv_label, shorter
from gencg.analysis.free_energy import FreeEnergySurface
from gencg.analysis.histogram import to_array, weighted_histogram, weighted_window
from gencg.plots.free_energy import plot_free_energy, plot_free_energy_profile
from gencg.plots.style import (
    ACCENT,
    EXACT,
    MASKED,
    RAW,
    REWEIGHTED,
    axes_or_new,
    degrees_axis,
    symbol,
)

RATE_UNIT = "amu$^{-1}$ nm$^{-2}$"
LEAST_GAP = 1.5
"""Ratio of eigenvalues from which a gap is drawn."""


def plot_spectrum(
    eigenvalues: Any,
    errors: Any,
    populations: Any,
    *,
    n_processes: int,
    processes: Sequence[int] | None = None,
    min_population: float = 1e-3,
    unit: str = RATE_UNIT,
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalues of the Dirichlet form on a logarithmic scale, with the gap after the slow ones.

    Args:
        eigenvalues: Slowest first, ``(m,)``.
        errors: Their standard errors; two are drawn, none where NaN.
        populations: Probability that each process moves, ``(m,)``.
        n_processes: Number of slow processes, those below `min_population` not counted.
        processes: Their places in the spectrum, where others, such as products of slower ones,
            lie between them; the gap is then marked only where it is in this spectrum.
        min_population: Processes that move less are drawn hollow.
        unit: Unit of the eigenvalues; "" for a toy.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    values, share = to_array(eigenvalues), to_array(populations)
    at = np.arange(1, len(values) + 1)
    error = 2 * np.nan_to_num(to_array(errors))
    shown = values > 0  # rounding may leave a zero below zero
    if not shown.any():
        raise ValueError(f"`eigenvalues` must hold a positive value, got {values.tolist()}")
    down = np.clip(error, 0, 0.9 * np.maximum(values, 0))
    rare = share < min_population
    wanted = np.flatnonzero(~rare)
    slow = np.isin(at - 1, wanted[:n_processes] if processes is None else list(processes))
    between = bool((~slow & ~rare)[: int(at[slow].max(initial=0))].any())
    styles = [
        (slow, REWEIGHTED, REWEIGHTED, "slow process"),
        (~slow & ~rare, EXACT, EXACT, "faster, or a product" if between else "faster"),
        (rare, RAW, "white", f"rare: moves less than {100 * min_population:g} %"),
    ]
    for kind, edge, face, label in styles:
        mask = kind & shown
        if mask.any():
            ax.errorbar(
                at[mask], values[mask], yerr=[down[mask], error[mask]], fmt="o", ms=9, mew=1.8,
                color=edge, mfc=face, capsize=4, elinewidth=1.4, label=label, zorder=3,
            )  # fmt: skip
    for k in np.flatnonzero(rare & shown):
        ax.annotate(
            f"{100 * share[k]:.1g} %", (at[k], values[k] - down[k]), xytext=(0, -9),
            textcoords="offset points", ha="center", va="top", fontsize=9, color=RAW,
        )  # fmt: skip
    ax.set_yscale("log")
    low, high = float((values - down)[shown].min()), float((values + error)[shown].max())
    ax.set_ylim(low / 1.6, high * 1.6)
    if not between and n_processes < len(wanted) and shown[wanted[n_processes - 1]]:
        _mark_gap(ax, *values[wanted[n_processes - 1 : n_processes + 1]])
    _few_decimals(ax)
    ax.set_xlim(0.4, len(values) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    ax.set_xlabel("process")
    ax.set_ylabel(r"eigenvalue $\lambda$" + (f" ({unit})" if unit else ""))
    ax.legend(loc="lower right")
    return ax


def _mark_gap(ax: Axes, below: float, above: float) -> None:
    # Where processes were told apart in another spectrum, this one may hold no gap
    if above < LEAST_GAP * below:
        return
    ax.axhspan(below, above, color=ACCENT, alpha=0.12, lw=0, zorder=0)
    ax.annotate(
        f"gap: × {above / below:.2g}", (0.02, np.sqrt(below * above)), color=ACCENT,
        xycoords=("axes fraction", "data"), va="center", fontweight="bold",
    )  # fmt: skip


def _few_decimals(ax: Axes) -> None:
    """Ticks at 1, 2, 5 times powers of ten; at 1 alone where the scale spans many."""
    low, high = ax.get_ylim()
    steps = (1, 2, 5) if high < 300 * low else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [10.0**d * s for d in decades for s in steps]
    ax.yaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def plot_cv_surface(
    surface: FreeEnergySurface,
    *,
    names: Sequence[str],
    angles: bool,
    basins: Sequence[Basin] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Free energy over one or two collective variables, the basins numbered.

    Args:
        surface: From `free_energy_surface` on the first one or two variables.
        names: Names of the variables.
        angles: Whether they are angles in radians, to be drawn in degrees.
        basins: From `find_basins`, the most populated first.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    labels = tuple(cv_symbol(name) for name in names)
    scale = 180 / np.pi if angles else 1.0
    if surface.values.ndim == 1:
        ax = plot_free_energy_profile(surface, label=labels[0], angles=angles, title=title, ax=ax)
        for k, basin in enumerate(basins, 1):
            x = basin.centre[0]
            cell = int(np.argmin(np.abs(surface.centres[0] - x)))
            y = surface.values[cell]
            _number(ax, k, x * scale, float(y) if np.isfinite(y) else 0.0, lift=14)
        return ax
    ax = plot_free_energy(surface, labels=labels, angles=angles, title=title, ax=ax)
    for k, basin in enumerate(basins, 1):
        _number(ax, k, basin.centre[0] * scale, basin.centre[1] * scale)
    return ax


def _number(ax: Axes, k: int, x: float, y: float, *, lift: float = 0.0) -> None:
    ax.annotate(
        str(k), (x, y), xytext=(0, lift), textcoords="offset points", ha="center", va="center",
        fontsize=13, fontweight="bold", color=EXACT,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip


def plot_slow_function(
    maps: SlowMaps,
    k: int,
    *,
    names: Sequence[str],
    angles: bool,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One slow function over the collective variables: states of opposite sign exchange slowly.

    Grey or left out where the free energy is high or no sample came near. Two variables: a map,
    white where the function is zero, on a scale linear near zero and
    logarithmic far from it, since the function is large on rare states; lines are the free
    energy every 10 kJ/mol. One variable: a curve.

    Args:
        maps: From `slow_function_maps`.
        k: Which function, 0 the slowest.
        names: Names of the variables.
        angles: Whether they are angles in radians, to be drawn in degrees.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    labels = [cv_symbol(name) for name in names]
    scale = 180 / np.pi if angles else 1.0
    values, name = maps.values[k], f"slow function $g_{{{k + 1}}}$"
    reach = max(float(maps.reach[k]), 1e-6)
    ax.set_title(title)
    if values.ndim == 1:
        ax.axhline(0, color=MASKED, lw=1.2, zorder=0)
        ax.plot(maps.centres[0] * scale, values, color=REWEIGHTED)
        ax.set_ylim(*_curve_limits(values, reach))
        ax.set_ylabel(name)
        _axis(ax, "x", labels[0], angles)
        return ax
    linear = min(0.5, reach / 3)
    norm = AsinhNorm(linear_width=linear, vmin=-reach, vmax=reach)
    mesh = ax.pcolormesh(
        *[edge * scale for edge in maps.edges], np.ma.masked_invalid(values.T), norm=norm,
        cmap="RdBu_r", rasterized=True,
    )  # fmt: skip
    free_energy = np.ma.masked_invalid(np.where(np.isfinite(values), maps.free_energy, np.nan))
    ax.contour(
        *[centre * scale for centre in maps.centres], free_energy.T, levels=[10, 20, 30],
        colors=EXACT, linewidths=0.7, alpha=0.55,
    )  # fmt: skip
    ax.set_facecolor(MASKED)
    bar = ax.figure.colorbar(mesh, ax=ax, label=name, shrink=0.9, ticks=_both_signs(reach, linear))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.minorticks_off()
    if angles:
        ax.set_aspect("equal")
    _axis(ax, "x", labels[0], angles)
    _axis(ax, "y", labels[1], angles)
    return ax


def plot_cv_against_torsion(
    z: Any,
    torsion: Any,
    log_weights: Any = None,
    *,
    names: tuple[str, str],
    angles: tuple[bool, bool] = (True, True),
    bins: int = 60,
    decades: float = 4.0,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Weighted density of a collective variable and another coordinate, on a logarithmic scale.

    Args:
        z: Collective variable, ``(n,)``.
        torsion: The other coordinate, ``(n,)``.
        log_weights: Log weights, ``(n,)``; None draws the sample as it is.
        names: Names of both.
        angles: Whether each is an angle in radians, to be drawn in degrees.
        bins: Cells along each.
        decades: Powers of ten that the colour scale spans below its largest value.
        colorbar: Whether to draw the colour scale.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    values = np.stack([to_array(torsion), to_array(z)], 1)
    scales = [180 / np.pi if angle else 1.0 for angle in angles[::-1]]
    ranges = [
        (-np.pi, np.pi) if angle else weighted_window(values[:, i], log_weights)
        for i, angle in enumerate(angles[::-1])
    ]
    histogram = weighted_histogram(values, log_weights, bins=bins, ranges=ranges)
    density = histogram.probabilities / histogram.probabilities.max()
    mesh = ax.pcolormesh(
        *[edge * scale for edge, scale in zip(histogram.edges, scales, strict=True)],
        np.ma.masked_equal(density.T, 0), norm=LogNorm(10**-decades, 1, clip=True), cmap="viridis",
        rasterized=True,
    )  # fmt: skip
    ax.set_facecolor(MASKED)
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax, label="density over its maximum", shrink=0.9)
    _axis(ax, "x", cv_symbol(names[1]), angles[1])
    _axis(ax, "y", cv_symbol(names[0]), angles[0])
    if all(angles):
        ax.set_aspect("equal")
    return ax


def plot_bound_gap(
    bounds: dict[int, float],
    *,
    lower: float,
    upper: float,
    error: float,
    ax: Axes | None = None,
) -> Axes:
    """What the encoder costs, by how many of its samples estimate it, and the interval left.

    Args:
        bounds: Upper estimate in kT by the number of encoder samples.
        lower: Lower estimate in kT with the most samples.
        upper: Upper estimate in kT with the most samples.
        error: Their standard error.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    numbers = sorted(bounds)
    values = [bounds[n] for n in numbers]
    ax.axhspan(lower, max(upper, lower), color=ACCENT, alpha=0.25, lw=0, label="gap lies here")
    ax.errorbar(
        numbers, values, yerr=2 * error, fmt="o-", color=REWEIGHTED, capsize=3, elinewidth=1.2,
        label="upper estimate, ± 2 standard errors",
    )  # fmt: skip
    ax.axhline(0, ls="--", color=EXACT, lw=1.2, label="exact encoder")
    ax.set_xscale("log", base=2)
    ax.set_xticks(numbers, [str(n) for n in numbers])
    ax.xaxis.set_minor_formatter(NullFormatter())
    top = max(*values, upper, 0.01) + 2 * error
    ax.set_ylim(min(0.0, lower - 2 * error) - 0.06 * top, 1.45 * top)
    ax.set_xlabel("encoder samples per configuration")
    ax.set_ylabel("bound gap ($kT$)")
    ax.legend(loc="upper right")
    return ax


def cv_symbol(name: str) -> str:
    """A collective variable's name with symbols: "1 phi(A) -1 psi(A)" becomes φ A − ψ A."""
    return cv_label(shorter(name), symbol)


def _axis(ax: Axes, which: str, label: str, angle: bool) -> None:
    if angle:
        degrees_axis(ax, which, label)
    else:
        (ax.xaxis if which == "x" else ax.yaxis).set_label_text(label)


def _both_signs(reach: float, linear: float) -> list[float]:
    """Ticks for a scale that is linear below `linear`: 0, ±0.3, ±1, ±3, ..."""
    steps = [10.0**d * s for d in range(-4, 5) for s in (1, 3)]
    inside = [s for s in steps if 0.6 * linear <= s <= reach * 1.001] or [reach]
    return [-s for s in reversed(inside)] + [0.0] + inside


def _curve_limits(values: Any, reach: float) -> tuple[float, float]:
    """Limits that hold the function where there is weight, and not its tails."""
    low = max(float(np.nanmin(values)), -1.1 * reach)
    high = min(float(np.nanmax(values)), 1.1 * reach)
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad
