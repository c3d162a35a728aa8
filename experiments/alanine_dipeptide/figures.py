"""The figures of 2020 for the dipeptide: latent plane, torsions over it, structures, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from gencg.analysis import ramachandran_basins, weighted_histogram
from gencg.analysis.histogram import weighted_window
from gencg.plots import plot_ramachandran, plot_structures
from gencg.plots.style import (
    EXACT,
    RAW,
    REWEIGHTED,
    degrees_axis,
    new_figure,
    style,
    symbol,
)

if TYPE_CHECKING:
    from experiments.alanine_dipeptide.paper import Shown
    from experiments.alanine_dipeptide.reference import Frames

Array = NDArray[np.float64]
COLOURS = {"beta": "#0072B2", "PPII": "#56B4E9", "alpha_R": "#D55E00", "alpha_L": "#009E73"}
DPI = 75
BINS = 60


def draw_all(
    shown: Shown,
    reference: Frames,
    own: Mapping[str, Array],
    other: Mapping[str, Array],
    bonds: Sequence[str],
    plane: tuple[Array, Array, Array],
    path: tuple[Array, Tensor],
    *,
    folder: Path,
    name: str,
) -> None:
    """Write ``NAME-plane.png``, ``NAME-structures.png`` and ``NAME-histograms.png``.

    Args:
        shown: The generator.
        reference: Samples of the truth.
        own: Descriptors of its samples.
        other: Descriptors of the reference's frames.
        bonds: Which of them are drawn, beside radius of gyration and RMSD.
        plane: From `paper.over_the_plane`.
        path: From `paper.along_a_path`.
        folder: Where to.
        name: Beginning of the file names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        _plane(shown, plane, path[0], folder / f"{name}-plane.png")
        _structures(shown, path, folder / f"{name}-structures.png")
        _histograms(shown, reference, own, other, bonds, folder / f"{name}-histograms.png")


def _plane(shown: Shown, plane: tuple[Array, Array, Array], path: Array, file: Path) -> None:
    """Samples in the latent plane by conformation, and phi, psi of decoded structures over it."""
    figure, axes = new_figure(3, width=4.3, height=3.7)
    n = 6000
    kept = shown.ensemble.resample(n) if _enough(shown) else None
    ensemble = kept or shown.ensemble.select(torch.arange(min(n, len(shown.ensemble))))
    basins = ramachandran_basins(*shown.angles(ensemble.x).T)
    z = np.degrees(ensemble.z) if shown.periodic else ensemble.z.double().numpy()
    for state, mask in basins.items():
        ax = axes[0]
        label = symbol(state) if mask.any() else None
        ax.scatter(*np.asarray(z)[mask].T, s=3, color=COLOURS[state], rasterized=True)
        ax.plot([], [], "o", color=COLOURS[state], ms=6, label=label)
    # A path goes on over the seam, the plane does not
    turned = (_degrees(path) + 180) % 360 - 180 if shown.periodic else path
    axes[0].plot(*turned.T, "o", color=EXACT, ms=6, mfc="white", mew=1.5, label="path")
    # Where the dipeptide has next to nothing in phi, psi
    axes[0].legend(fontsize=9, loc="center right" if shown.periodic else "best")
    axes[0].set_title("reweighted samples" if kept else "samples as drawn")
    _, angles, lines = plane
    shape = (lines.shape[1],) * 2
    edges = np.degrees(lines) if shown.periodic else lines
    for ax, k, label in ((axes[1], 0, r"$\phi$"), (axes[2], 1, r"$\psi$")):
        values = np.degrees(angles[:, k]).reshape(shape)
        mesh = ax.pcolormesh(*edges, values.T, cmap="twilight", vmin=-180, vmax=180)
        figure.colorbar(mesh, ax=ax, label=f"{label} (deg)")
        ax.set_title(f"{label} of decoded structures")
    for ax in axes:
        if shown.periodic:
            degrees_axis(ax, "x", symbol(shown.names[0], plain=True))
            degrees_axis(ax, "y", symbol(shown.names[1], plain=True))
        else:
            ax.set_xlabel(shown.names[0])
            ax.set_ylabel(shown.names[1])
    figure.suptitle(f"{shown.title}, {shown.ensemble.temperature:.0f} K")
    figure.savefig(file, dpi=DPI)


def _enough(shown: Shown) -> bool:
    """Whether weights leave samples to show."""
    return shown.ensemble.ess * len(shown.ensemble) > 50


def _degrees(angles: Array) -> Array:
    return np.degrees((angles + np.pi) % (2 * np.pi) - np.pi)


def _structures(shown: Shown, path: tuple[Array, Tensor], file: Path) -> None:
    """Decoded structures at the points of the path."""
    z, x = path
    figure, axes = new_figure(len(x), width=2.4, height=2.4)
    values = _degrees(z) if shown.periodic else z
    names = [symbol(name, plain=True) for name in shown.names]
    form = "{} {:.0f}°" if shown.periodic else "{} {:.2f}"
    titles = [", ".join(map(form.format, names, row)) for row in values]
    plot_structures(x, shown.molecule, axes, titles=titles, font=9)
    figure.savefig(file, dpi=DPI)


def _histograms(
    shown: Shown,
    reference: Frames,
    own: Mapping[str, Array],
    other: Mapping[str, Array],
    bonds: Sequence[str],
    file: Path,
) -> None:
    """Ramachandran maps, then radius of gyration, RMSD and bond lengths."""
    ensemble = shown.ensemble
    log_weights = ensemble.log_weights.double().numpy()
    raw = np.where(ensemble.valid.numpy(), 0.0, -np.inf)
    figure, axes = new_figure(3, 3, width=3.9, height=3.1)
    angles = shown.angles(ensemble.x)
    maps: tuple[tuple[str, Any, Any], ...] = (
        ("as drawn", angles, raw),
        ("reweighted", angles, log_weights),
        ("reference", reference.angles, None),
    )
    for ax, (title, values, weights) in zip(axes, maps, strict=False):
        plot_ramachandran(values, weights, title=title, colorbar=False, ax=ax)
    names = ["radius of gyration", "RMSD", *bonds]
    for ax, name in zip(axes[3:], names, strict=True):
        weights = log_weights if _enough(shown) else None
        _histogram(ax, name, own[name], other[name], raw, weights)
    axes[3].legend(fontsize=8)
    for ax in (axes[3], axes[6]):
        ax.set_ylabel("density (1/nm)")
    figure.suptitle(f"{shown.title}, {ensemble.temperature:.0f} K, ESS {ensemble.ess:.3g}")
    figure.savefig(file, dpi=DPI)


def _histogram(
    ax: Axes, name: str, own: Array, other: Array, raw: Array, log_weights: Array | None
) -> None:
    window = [weighted_window(other, None)]
    kinds: tuple[tuple[str, Array, Any, str, str], ...] = (
        ("as drawn", own, raw, RAW, "-"),
        ("reweighted", own, log_weights, REWEIGHTED, "-"),
        ("reference", other, None, EXACT, "--"),
    )
    for label, values, weights, colour, line in kinds:
        if label == "reweighted" and log_weights is None:
            continue
        histogram = weighted_histogram(values, weights, bins=BINS, ranges=window)
        density = histogram.probabilities / histogram.volume
        ax.plot(histogram.centres[0], density, line, color=colour, label=label, lw=1.4)
    ax.set_xlabel(f"{name.replace('ALA2-', '')} (nm)")
