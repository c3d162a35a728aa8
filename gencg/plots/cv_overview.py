"""The figures of a run's collective variables, in the order of its report."""

from collections.abc import Iterator, Sequence

from gencg.analysis.basins import Basin
from gencg.analysis.collective import slow_function_maps, torsions_beside
from gencg.analysis.free_energy import free_energy_surface
from gencg.analysis.histogram import to_array, weighted_histogram, weighted_window
from gencg.discover import SlowCVs
from gencg.discover.slow_cvs import MIN_POPULATION
from gencg.ensemble import Ensemble
from gencg.objectives.bound_gap import BoundGap
from gencg.plots.collective import (
    RATE_UNIT,
    cv_symbol,
    plot_bound_gap,
    plot_cv_against_torsion,
    plot_cv_surface,
    plot_slow_function,
    plot_spectrum,
)
from gencg.plots.free_energy import plot_free_energy_error
from gencg.plots.overview import MIN_SAMPLES, Panel, surface_bins
from gencg.plots.style import new_figure, style
from gencg.systems.base import System

MAX_FUNCTIONS = 3
"""Slow functions drawn; further ones are in the table of the report."""

MAX_BINS = 40
"""Cells along each of two variables: finer ones than the encoder's blur only add noise."""


def cv_panels(
    system: System,
    ensemble: Ensemble,
    slow: SlowCVs,
    gap: BoundGap | None = None,
    *,
    basins: Sequence[Basin] = (),
) -> Iterator[Panel]:
    """Draw the figures of the collective variables one by one.

    Args:
        system: What was sampled.
        ensemble: Samples of the joint model, with z.
        slow: The collective variables.
        gap: What the encoder costs.
        basins: From `find_basins`, to be numbered on the surface.
    """
    with style():
        surface = _surface_panel(ensemble, slow, basins)
        if surface is not None:
            yield surface
        yield _functions_panel(ensemble, slow)
        yield _spectrum_panel(system, slow, gap)
        torsions = _torsions_panel(system, ensemble, slow)
        if torsions is not None:
            yield torsions


def _surface_panel(ensemble: Ensemble, slow: SlowCVs, basins: Sequence[Basin]) -> Panel | None:
    """The surface and its error; None where no cell holds enough samples."""
    z, angles = to_array(ensemble.z)[:, :2], slow.map.periodic
    bins = min(surface_bins(ensemble), MAX_BINS) if z.shape[1] == 2 else 72
    ranges = None
    if not angles:
        ranges = [weighted_window(z[:, k], ensemble.log_weights) for k in range(z.shape[1])]
    cells = weighted_histogram(z, ensemble.log_weights, bins=bins, ranges=ranges)
    if cells.n_effective.max() < MIN_SAMPLES:
        return None
    surface = free_energy_surface(
        z,
        ensemble.log_weights,
        temperature=ensemble.temperature,
        bins=bins,
        ranges=ranges,
        min_samples=MIN_SAMPLES,
    )
    figure, axes = new_figure(min(z.shape[1], 2), width=5.2 if z.shape[1] > 1 else 6.4)
    plot_cv_surface(surface, names=slow.names, angles=angles, basins=basins, ax=axes[0])
    caption = f"F = -kT log p of the reweighted samples at {ensemble.temperature:g} K"
    if z.shape[1] == 2:
        axes[0].set_title("free energy")
        labels = tuple(cv_symbol(name) for name in slow.names)
        plot_free_energy_error(
            surface, labels=labels, angles=angles, title="its standard error", ax=axes[1]
        )
        caption += ", contours every 5 kJ/mol. Grey: fewer than three effective samples in a cell"
    else:
        caption += ", with a band of two standard errors"
    caption += ". Numbers: the basins of the table, at their centres." if basins else "."
    if slow.n_cvs > 2:
        caption += f" The first two of {slow.n_cvs} variables."
    return Panel("cv_free_energy", "Free energy over the collective variables", caption, figure)


def _functions_panel(ensemble: Ensemble, slow: SlowCVs) -> Panel:
    maps = slow_function_maps(
        slow, ensemble.z, ensemble.log_weights, temperature=ensemble.temperature
    )
    n = min(len(maps.values), MAX_FUNCTIONS)
    figure, axes = new_figure(n)
    for k, ax in enumerate(axes):
        rare = float(slow.spectrum.populations[k]) < MIN_POPULATION
        title = f"process {k + 1}{' (rare)' if rare else ''}"
        plot_slow_function(maps, k, names=slow.names, angles=slow.map.periodic, title=title, ax=ax)
    caption = (
        "What each slow process exchanges: regions of opposite colour or sign. A function of mean "
        "0 and variance 1 is large on a rare state. "
    )
    if maps.free_energy.ndim == 2:
        caption += (
            "The colour scale is linear near zero and logarithmic beyond; lines: the smoothed free "
            "energy at 10, 20 and 30 kJ/mol; grey: above 40, or no sample near."
        )
    return Panel("slow_functions", "Slow functions", caption.strip(), figure)


def _spectrum_panel(system: System, slow: SlowCVs, gap: BoundGap | None) -> Panel:
    found = slow.spectrum
    figure, axes = new_figure(1 if gap is None else 2, width=5.6)
    plot_spectrum(
        found.eigenvalues,
        found.errors,
        found.populations,
        n_processes=slow.n_processes,
        processes=slow.places,
        min_population=MIN_POPULATION,
        unit="" if system.molecule is None else RATE_UNIT,
        ax=axes[0],
    )
    caption = (
        "Lowest eigenvalues of the Dirichlet form within functions of the collective variables, "
        "with two standard errors: overdamped rates up to a common factor. Hollow: processes that "
        "move too little to count."
    )
    if gap is not None:
        axes[0].set_title("spectrum")
        axes[1].set_title("what the encoder costs")
        plot_bound_gap(gap.bounds, lower=gap.lower, upper=gap.upper, error=gap.error, ax=axes[1])
        caption = f"Left: {caption[0].lower()}{caption[1:]}"
        caption += " Right: how far the joint bound lies above the all-atom one."
    return Panel("cv_spectrum", "Spectrum", caption, figure)


def _torsions_panel(system: System, ensemble: Ensemble, slow: SlowCVs) -> Panel | None:
    """Each variable against the torsions that are no variable; None where there are none."""
    torsions, are_angles = torsions_beside(system, ensemble, slow.names)
    if not torsions.labels:
        return None
    z = to_array(ensemble.z)
    n = len(torsions.labels)
    shape = (n, slow.n_cvs) if n > 1 else (slow.n_cvs, 1)
    figure, axes = new_figure(*shape, width=4.3, height=3.9)
    for at, ax in enumerate(axes):
        k, j = divmod(at, n)
        plot_cv_against_torsion(
            z[:, k],
            torsions.values[:, j],
            ensemble.log_weights,
            names=(slow.names[k], torsions.labels[j]),
            angles=(slow.map.periodic, are_angles[j]),
            colorbar=(at + 1) % shape[0] == 0,
            ax=ax,
        )
    caption = (
        "Reweighted density, on a logarithmic scale. Where it is a thin line, the variable follows "
        "this coordinate."
    )
    others = "torsions" if all(are_angles) else "coordinates"
    return Panel("cv_torsions", f"Collective variables against {others}", caption, figure)
