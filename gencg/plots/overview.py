"""The figures of a run, in the order of its report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from gencg.analysis.assessment import Assessment
from gencg.analysis.free_energy import free_energy_surface
from gencg.analysis.histogram import Array, to_array, weighted_histogram, weighted_window
from gencg.analysis.torsions import residue_pairs
from gencg.ensemble import Ensemble
from gencg.plots.density import plot_density, plot_density_map
from gencg.plots.energy import plot_energy_histogram
from gencg.plots.free_energy import (
    plot_free_energy,
    plot_free_energy_error,
    plot_free_energy_profile,
)
from gencg.plots.populations import plot_populations
from gencg.plots.ramachandran import plot_ramachandran
from gencg.plots.style import new_figure, style, symbol
from gencg.plots.training import plot_ess, plot_loss, plot_temperature
from gencg.plots.weights import plot_weights
from gencg.systems.base import System
from gencg.units import BOLTZMANN_CONSTANT

MAX_RESIDUES = 6
"""Residues with maps of their own; a page of more is no overview."""
MIN_SAMPLES = 3.0
"""Effective samples a cell of a free-energy surface needs to be shown."""


@dataclass(frozen=True)
class Panel:
    """A figure of a report.

    Attributes:
        name: Name of the file, without its ending.
        title: Heading above it.
        caption: What it shows and how to read it.
        figure: The figure.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def overview(
    system: System, ensemble: Ensemble, assessment: Assessment, *, history: Sequence[Any] = ()
) -> Iterator[Panel]:
    """Draw the figures of a run one by one.

    Args:
        system: What was sampled.
        ensemble: Its samples.
        assessment: From `gencg.analysis.assess`.
        history: Log lines of the training; none leaves its figure out.
    """
    with style():
        if assessment.torsions.labels:
            yield from _torsion_panels(ensemble, assessment)
        elif ensemble.y.shape[1] == 2:
            yield from _plane_panels(system, ensemble, assessment)
        if system.molecule is None:
            yield from _line_panels(system, ensemble, assessment)
        if assessment.reweighted:
            yield _populations_panel(assessment)
        yield _energy_panel(ensemble, assessment)
        if history:
            yield _training_panel(history, ensemble)


def _torsion_panels(ensemble: Ensemble, assessment: Assessment) -> Iterator[Panel]:
    torsions = assessment.torsions
    pairs = {f"({k})": (f"phi({k})", f"psi({k})") for k in residue_pairs(torsions)}
    if not pairs and len(torsions.labels) > 1:
        pairs = {"": (torsions.labels[0], torsions.labels[1])}
    for place, labels in list(pairs.items())[:MAX_RESIDUES]:
        angles = np.stack([torsions[label] for label in labels], 1)
        yield _ramachandran_panel(angles, ensemble, assessment, labels, place)
        surface = _surface_panel(angles, ensemble, labels, place)
        if surface is not None:
            yield surface


def _ramachandran_panel(
    angles: Array, ensemble: Ensemble, assessment: Assessment, labels: tuple[str, str], place: str
) -> Panel:
    figure, (left, right) = new_figure(2, width=4.9)
    plot_ramachandran(
        angles, assessment.raw_log_weights, labels=labels, title="raw", colorbar=False, ax=left
    )
    plot_ramachandran(
        angles, ensemble.log_weights, labels=labels, title="reweighted", shared=(left, right),
        ax=right,
    )  # fmt: skip
    caption = (
        "Density of the two torsions as the generator drew them, and reweighted to the Boltzmann "
        "distribution. The closer the two, the better the generator; the right one counts. "
        "Grey: no sample."
    )
    title = f"Ramachandran map {place}" if place else "Map of the two softest torsions"
    return Panel(_file_name("ramachandran", place), title.strip(), caption, figure)


def _surface_panel(
    angles: Array, ensemble: Ensemble, labels: tuple[str, str], place: str
) -> Panel | None:
    """The surface and its error; None where no cell holds enough samples."""
    bins = surface_bins(ensemble)
    cells = weighted_histogram(angles, ensemble.log_weights, bins=bins)
    if cells.n_effective.max() < MIN_SAMPLES:
        return None
    surface = free_energy_surface(
        angles,
        ensemble.log_weights,
        temperature=ensemble.temperature,
        bins=bins,
        min_samples=MIN_SAMPLES,
    )
    figure, (left, right) = new_figure(2)
    plot_free_energy(surface, labels=labels, title="free energy", ax=left)
    plot_free_energy_error(surface, labels=labels, title="its standard error", ax=right)
    at = ", ".join(f"{np.degrees(v):.0f}" for v in surface.minimum)
    caption = (
        f"F = -kT log p of the reweighted samples at {ensemble.temperature:g} K, zero at its "
        f"minimum at ({at}) deg, contours every 5 kJ/mol. Grey: fewer than three effective samples "
        "in the cell, so that neither value nor error is known there."
    )
    title = f"Free-energy surface {place}".strip()
    return Panel(_file_name("free_energy", place), title, caption, figure)


def _plane_panels(system: System, ensemble: Ensemble, assessment: Assessment) -> Iterator[Panel]:
    labels = (symbol(system.coordinates.names[0]), symbol(system.coordinates.names[1]))
    beta = 1 / (BOLTZMANN_CONSTANT * ensemble.temperature)

    def reduced(points: Array) -> Array:
        return to_array(beta * system.energy.energy(torch.from_numpy(points)))

    figure, (left, right) = new_figure(2)
    points = to_array(ensemble.y)
    ranges = [weighted_window(points[:, k], ensemble.log_weights) for k in range(2)]
    for ax, weights, title in (
        (left, assessment.raw_log_weights, "raw"),
        (right, ensemble.log_weights, "reweighted"),
    ):
        plot_density_map(
            points, weights, energy=reduced, labels=labels, ranges=ranges, title=title, ax=ax
        )
    caption = (
        "Density as the generator drew it, and reweighted to the Boltzmann distribution, on a "
        "logarithmic scale. Lines: the energy, every 2 kT from its minimum. Grey: no sample."
    )
    yield Panel("density_map", "Density", caption, figure)


def _line_panels(system: System, ensemble: Ensemble, assessment: Assessment) -> Iterator[Panel]:
    angle = bool(system.coordinates.periodic[0])
    label = "torsion" if angle else symbol(system.coordinates.names[0])
    values = to_array(ensemble.y)[:, 0]
    grid, density = exact_marginal(system, values, ensemble.temperature)
    k_t = BOLTZMANN_CONSTANT * ensemble.temperature
    figure, (left, right) = new_figure(2)
    weights = ensemble.log_weights
    alive = np.isfinite(assessment.raw_log_weights)
    plot_density(
        values[alive], to_array(weights)[alive], exact=(grid, density), label=label, angles=angle,
        ax=left,
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        free_energy = -k_t * np.log(density / density.max())
    surface = free_energy_surface(
        values, weights, temperature=ensemble.temperature, bins=80,
        ranges=None if angle else [(float(grid[0]), float(grid[-1]))],
    )  # fmt: skip
    plot_free_energy_profile(
        surface, label=label, angles=angle, exact=(grid, free_energy), ax=right
    )
    caption = (
        "Left: density along the first coordinate beside the exact one, on a logarithmic scale so "
        "that rare states show. Right: free energy with a band of two standard errors; a gap is a "
        "place without enough samples."
    )
    yield Panel("profile", "Along the first coordinate", caption, figure)


def exact_marginal(system: System, values: Any, temperature: float) -> tuple[Array, Array]:
    """Exact density of the first coordinate of a toy in one or two dimensions, by quadrature.

    Returns:
        400 points that span all but the outermost thousandths of `values`, and the density.
    """
    x = to_array(values)
    beta = 1 / (BOLTZMANN_CONSTANT * temperature)
    circle = bool(system.coordinates.periodic[0])
    low, high = (-np.pi, np.pi) if circle else np.quantile(x[np.isfinite(x)], [5e-4, 1 - 5e-4])
    pad = 0.0 if circle else 0.15 * (high - low)
    first = np.linspace(low - pad, high + pad, 400)
    dim = system.coordinates.dim
    reach = 6.0 * float(system.coordinates.scale.max())
    rest = np.linspace(-reach, reach, 1200) if dim == 2 else np.zeros(1)
    grid = np.stack(np.meshgrid(first, rest, indexing="ij"), -1)[..., :dim]
    u = to_array(system.energy.energy(torch.from_numpy(grid.reshape(-1, dim))))
    log_z = system.energy.log_partition(beta) if hasattr(system.energy, "log_partition") else None
    p = np.exp(-beta * u.reshape(len(first), -1) - (log_z or 0.0)).sum(1)
    p = p * (rest[1] - rest[0] if dim == 2 else 1.0)
    return first, p if log_z is not None else p / (p.sum() * (first[1] - first[0]))


def _populations_panel(assessment: Assessment) -> Panel:
    n = len(assessment.reweighted)
    long = max(len(symbol(name)) for name in assessment.reweighted) > 12
    height = 4.2 + max(1.4 * long, 0.6 * (n > 6))
    figure, (ax,) = new_figure(width=min(max(6.0, 0.75 * n + 2), 14), height=height)
    plot_populations(assessment.raw, assessment.reweighted, exact=assessment.exact or None, ax=ax)
    caption = (
        "Share of each state, on a logarithmic scale, with two standard errors. Raw: as drawn; "
        "reweighted: the Boltzmann population."
    )
    return Panel("populations", "Populations", caption, figure)


def _energy_panel(ensemble: Ensemble, assessment: Assessment) -> Panel:
    figure, (left, right) = new_figure(2)
    alive = np.isfinite(assessment.raw_log_weights)
    log_weights = to_array(ensemble.log_weights)
    plot_energy_histogram(to_array(ensemble.energy)[alive], log_weights[alive], ax=left)
    plot_weights(log_weights, ax=right)
    caption = (
        "Left: potential energy as drawn and reweighted. Right: importance weights over their "
        "mean, on logarithmic axes; a perfect generator has them all at 1, and a long tail to the "
        "right means that few samples carry the averages."
    )
    return Panel("energy_and_weights", "Energies and weights", caption, figure)


def _training_panel(history: Sequence[Any], ensemble: Ensemble) -> Panel:
    figure, axes = new_figure(3, width=4.5, height=3.7)
    plot_loss(history, bound=-ensemble.log_z, ax=axes[0])
    plot_ess(history, ax=axes[1])
    plot_temperature(history, ax=axes[2])
    caption = (
        "Loss, effective sample size of the training batches at their own temperature, and "
        "temperature, against the energy calls spent. Thin: each logged step; thick: running "
        "median. Dashed: -log Z, the bound of the loss at the final temperature; the loss may lie "
        "just below, since it leaves the worst samples of each batch out."
    )
    return Panel("training", "Training", caption, figure)


def surface_bins(ensemble: Ensemble) -> int:
    """Cells along a torsion that leave enough samples in each: 6 degrees from 36,000 on."""
    return int(np.clip(np.sqrt(ensemble.n_samples * ensemble.ess / 10), 18, 60))


def _file_name(stem: str, place: str) -> str:
    tail = "".join(c for c in place if c.isalnum())
    return f"{stem}_{tail}" if tail else stem
