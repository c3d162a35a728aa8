"""Structures side by side: sticks in one common view, what is near drawn over what is far."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from gencg.analysis.alignment import superposed
from gencg.analysis.histogram import to_array
from gencg.molecule import Molecule

_COLOURS = {
    "H": "#D9D9D9", "C": "#4D4D4D", "N": "#3366CC", "O": "#CC3333", "S": "#D6A400",
    "F": "#55AA55", "Cl": "#55AA55", "Br": "#884422", "I": "#663399", "P": "#E07000",
}  # fmt: skip


def plot_structures(
    x: Any,
    molecule: Molecule,
    axes: Sequence[Axes],
    *,
    titles: Sequence[str] = (),
    colours: Sequence[str] = (),
    font: float = 12.0,
) -> None:
    """Draw structures as sticks, superposed onto the first and seen from one side.

    Hydrogens on carbon are left out. All axes get the same limits, in nm.

    Args:
        x: Structures ``(n, n_atoms, 3)`` in nm.
        molecule: Their topology.
        axes: Axes for each.
        titles: Title of each.
        colours: Colour of each one's title.
        font: Size of the titles.
    """
    shown = [k for k in range(molecule.n_atoms) if not _on_carbon(molecule, k)]
    flat = seen_together(x, molecule)
    low, high = flat[:, shown, :2].min((0, 1)) - 0.05, flat[:, shown, :2].max((0, 1)) + 0.05
    depth = flat[:, shown, 2]
    for k, ax in enumerate(axes[: len(flat)]):
        _sticks(ax, flat[k], molecule, shown, float(depth.min()), float(depth.max()))
        ax.set_aspect("equal")
        ax.axis("off")
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        if titles:
            colour = colours[k] if colours else "#222222"
            ax.set_title(titles[k], color=colour, fontweight="bold", fontsize=font)


def seen_together(x: Any, molecule: Molecule) -> NDArray[np.float64]:
    """Structures superposed and turned so that together they are widest in the first two axes."""
    positions = torch.from_numpy(to_array(x))
    heavy = torch.tensor([float(element != "H") for element in molecule.elements])
    weights = heavy.double() if float(heavy.sum()) > 2 else torch.ones_like(heavy).double()
    # Onto the middle one of the backbone: flexible ends then swing around it
    laid = to_array(superposed(positions, positions[0], weights))
    laid = laid - laid[:, weights.numpy() > 0].mean((0, 1))
    flat = laid[:, weights.numpy() > 0].reshape(-1, 3)
    turn = np.linalg.svd(flat, full_matrices=False)[2]
    turn[2] *= np.sign(np.linalg.det(turn))
    return np.asarray(laid @ turn.T)


def _sticks(
    ax: Axes,
    x: NDArray[np.float64],
    molecule: Molecule,
    shown: Sequence[int],
    low: float,
    high: float,
) -> None:
    """Bonds in halves of their atoms' colours, paler with depth, with a white rim."""
    near = (x[:, 2] - low) / max(high - low, 1e-9)
    visible = set(shown)
    halves = []
    for i, j in molecule.bonds.tolist():
        if i in visible and j in visible:
            middle = 0.5 * (x[i] + x[j])
            halves += [(x[i], middle, i), (middle, x[j], j)]
    for start, end, atom in sorted(halves, key=lambda h: float(h[0][2] + h[1][2])):
        z = 1 + 0.5 * float(start[2] + end[2])
        colour = _faded(_COLOURS.get(molecule.elements[atom], "#999999"), float(near[atom]))
        xs, ys = [start[0], end[0]], [start[1], end[1]]
        width = 4.0 if molecule.elements[atom] != "H" else 2.6
        ax.plot(xs, ys, color="white", lw=width + 2.4, solid_capstyle="butt", zorder=z)
        ax.plot(xs, ys, color=colour, lw=width, solid_capstyle="round", zorder=z + 1e-4)
    for k in shown:
        element = molecule.elements[k]
        if element in ("H", "C"):
            continue
        colour = _faded(_COLOURS.get(element, "#999999"), float(near[k]))
        ax.scatter(x[k, 0], x[k, 1], s=60, color=colour, edgecolors="white", linewidths=0.8,
                   zorder=1 + x[k, 2] + 2e-4)  # fmt: skip


def _faded(colour: str, near: float) -> tuple[float, ...]:
    share = 0.45 * (1 - min(max(near, 0.0), 1.0))
    return tuple((1 - share) * c + share for c in to_rgb(colour))


def _on_carbon(molecule: Molecule, k: int) -> bool:
    near = molecule.neighbours[k]
    return molecule.elements[k] == "H" and all(molecule.elements[j] == "C" for j in near)
