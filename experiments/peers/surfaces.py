"""Free-energy surfaces over two torsions, and how far one is from another.

All surfaces are free energies of the cells of one grid over the circle times the circle, in kJ/mol,
shape ``(cells, cells)``, NaN for a cell that nothing is known of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gencg.analysis.histogram import Array, weighted_histogram
from gencg.units import BOLTZMANN_CONSTANT

CELLS = 24
"""Cells along each torsion, 15 degrees each."""
DEPTH = 20.0
"""Free energy of the reference in kJ/mol above its minimum up to which cells are compared."""
BLOCKS = 20
"""Parts of the reference, in its order, that its errors are read from."""


@dataclass(frozen=True)
class Reference:
    """A converged surface.

    Attributes:
        surface: Free energy, zero at its minimum.
        errors: Standard errors from the scatter of blocks, of the cell alone.
        n_samples: Samples behind it.
        temperature: Temperature in K.
    """

    surface: Array
    errors: Array
    n_samples: int
    temperature: float

    @property
    def compared(self) -> Any:
        """Which cells lie below `DEPTH`."""
        with np.errstate(invalid="ignore"):
            return self.surface < DEPTH

    def __repr__(self) -> str:
        errors = self.errors[self.compared]
        return (
            f"Reference({self.n_samples} samples, {self.compared.sum()} of {CELLS}x{CELLS} cells "
            f"below {DEPTH:g} kJ/mol, errors {rms(errors):.3f} rms, {errors.max():.3f} largest)"
        )


@dataclass(frozen=True)
class Deviation:
    """Distance of a surface from the reference in kJ/mol, over the cells below `DEPTH`.

    Attributes:
        rms: Root mean square.
        largest: Largest absolute one; infinite where a cell of the reference is not known.
    """

    rms: float
    largest: float


def rms(values: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def deviation(surface: Array, reference: Reference) -> Deviation:
    r"""Distance from the reference, both surfaces known up to a constant.

    .. math:: d_c = F_c - F^\mathrm{ref}_c - \langle F - F^\mathrm{ref} \rangle

    Args:
        surface: Free energy of the cells in kJ/mol.
        reference: What to hold it against.

    Raises:
        ValueError: If the grids differ.
    """
    if surface.shape != reference.surface.shape:
        raise ValueError(
            f"`surface` must have the cells of the reference, {reference.surface.shape}, "
            f"got {surface.shape}"
        )
    difference = (surface - reference.surface)[reference.compared]
    if not np.isfinite(difference).all():
        return Deviation(np.inf, np.inf)
    difference = difference - difference.mean()
    return Deviation(rms(difference), float(np.abs(difference).max()))


def sample_surface(
    torsions: Array, log_weights: Any = None, *, temperature: float, cells: int = CELLS
) -> Array:
    """Surface of weighted samples ``(n, 2)`` in rad."""
    histogram = weighted_histogram(torsions, log_weights, bins=cells)
    return _free_energy(histogram.probabilities, temperature)


def grid_surface(free_energy: Array, *, temperature: float, cells: int = CELLS) -> Array:
    r"""Surface of the cells from values at the points of a finer grid.

    .. math:: F_c = -k_B T \ln \frac{1}{|c|} \int_c e^{-F/k_B T}

    by the trapezoidal rule.

    Args:
        free_energy: Values in kJ/mol at ``m * cells + 1`` points from -pi to pi along each torsion.
        temperature: Temperature in K.
        cells: Cells along each torsion.

    Raises:
        ValueError: If the points do not divide into cells.
    """
    per_cell, rest = divmod(len(free_energy) - 1, cells)
    if rest or free_energy.shape != (len(free_energy),) * 2 or per_cell < 1:
        raise ValueError(
            f"`free_energy` must have m * {cells} + 1 points along each torsion, "
            f"got {free_energy.shape}"
        )
    p = np.exp(-(free_energy - free_energy.min()) / (BOLTZMANN_CONSTANT * temperature))
    middle = (p[1:] + p[:-1]) / 2
    middle = (middle[:, 1:] + middle[:, :-1]) / 2
    blocks = middle.reshape(cells, per_cell, cells, per_cell)
    return _free_energy(blocks.mean((1, 3)), temperature)


def read_reference(path: str | Path, *, temperature: float, pair: int = 0) -> Reference:
    """Surface of the samples in a file, with its errors.

    Args:
        path: An .npz file with phi and psi in turn: either `torsions` ``(n, 2 * pairs)`` in rad, in
            the order they were drawn in, with `log_weights` ``(n,)`` where they have weights; or
            `steps` ``(n_chains, n, 2 * pairs)`` in 16-bit fractions of a turn, as parallel
            tempering writes them.
        temperature: Their temperature in K.
        pair: Which phi and psi.
    """
    with np.load(path) as content:
        if "steps" in content:
            # Chain after chain: a block is then one chain or more
            torsions = content["steps"].reshape(-1, content["steps"].shape[-1]) * (np.pi / 2**15)
        else:
            torsions = content["torsions"]
        log_weights = content.get("log_weights")
    torsions = torsions[:, 2 * pair : 2 * pair + 2]
    return reference_surface(torsions, log_weights, temperature=temperature)


def reference_surface(torsions: Array, log_weights: Any = None, *, temperature: float) -> Reference:
    """Surface of samples ``(n, 2)`` with errors from the scatter of `BLOCKS` of them."""
    weights = np.zeros(len(torsions)) if log_weights is None else np.asarray(log_weights)
    parts = zip(np.array_split(torsions, BLOCKS), np.array_split(weights, BLOCKS), strict=True)
    shares = np.stack([weighted_histogram(t, w, bins=CELLS).probabilities for t, w in parts])
    whole = weighted_histogram(torsions, weights, bins=CELLS).probabilities
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = shares.std(0, ddof=1) / np.sqrt(BLOCKS) / whole
    errors = BOLTZMANN_CONSTANT * temperature * relative
    return Reference(_free_energy(whole, temperature), errors, len(torsions), temperature)


def kept_from(errors: Sequence[float], tolerance: float) -> int | None:
    """First index from which on all errors are at most `tolerance`; None if the last is not."""
    index = None
    for k in reversed(range(len(errors))):
        if not errors[k] <= tolerance:
            break
        index = k
    return index


def _free_energy(probabilities: Array, temperature: float) -> Array:
    p = np.where(probabilities > 0, probabilities, np.nan)
    free_energy = -BOLTZMANN_CONSTANT * temperature * np.log(p)
    return np.asarray(free_energy - np.nanmin(free_energy))
