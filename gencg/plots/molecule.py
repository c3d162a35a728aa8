"""A molecule as a drawing: its reference structure seen where it is widest, bonds that turn."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from gencg.molecule import Molecule
from gencg.plots.style import ACCENT, RAW, axes_or_new

_COLOURS = {
    "H": "#FFFFFF", "C": "#4D4D4D", "N": "#3366CC", "O": "#CC3333", "S": "#D6A400",
    "F": "#55AA55", "Cl": "#55AA55", "Br": "#884422", "I": "#663399", "P": "#E07000",
}  # fmt: skip
_SIZES = {"H": 40.0}


def plot_molecule(
    molecule: Molecule,
    bonds: Mapping[str, tuple[int, int]] | None = None,
    *,
    halos: Mapping[int, float] | None = None,
    links: Sequence[tuple[int, int]] = (),
    hydrogens: bool = True,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """The reference structure in the plane in which it is widest, with labelled bonds.

    Args:
        molecule: What to draw.
        bonds: Label of each bond to mark, such as the number of its torsion; several labels on
            one bond stand together.
        halos: Atoms to mark and how much, in (0, 1]; they are drawn in any case.
        links: Pairs of atoms to join by a dashed line, such as a distance.
        hydrogens: Draw hydrogens on carbon, too.
        title: Title of the axes.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax, width=7.0, height=5.0)
    bonds, halos = dict(bonds or {}), dict(halos or {})
    flat, depth = _projected(molecule)
    shown = [
        k for k in range(molecule.n_atoms) if hydrogens or k in halos or not _on_carbon(molecule, k)
    ]
    marked: dict[tuple[int, int], list[str]] = {}
    for label, (i, j) in bonds.items():
        marked.setdefault((min(i, j), max(i, j)), []).append(label)
    for i, j in molecule.bonds.tolist():
        if i in shown and j in shown:
            of_turn = (i, j) in marked
            ax.plot(*flat[[i, j]].T, color=ACCENT if of_turn else "#888888",
                    lw=4.0 if of_turn else 1.6, solid_capstyle="round", zorder=1)  # fmt: skip
    for k, share in halos.items():
        ax.scatter(flat[k, 0], flat[k, 1], s=150 + 550 * share, color=RAW, alpha=0.15 + 0.4 * share,
                   linewidths=0, zorder=0.5)  # fmt: skip
    for i, j in links:
        ax.plot(*flat[[i, j]].T, color=RAW, lw=1.6, ls=(0, (4, 3)), zorder=1.5)
    # What lies behind is drawn first
    for k in sorted(shown, key=lambda k: depth[k]):
        element = molecule.elements[k]
        size, colour = _SIZES.get(element, 110.0), _COLOURS.get(element, "#999999")
        ax.scatter(flat[k, 0], flat[k, 1], s=size, color=colour, edgecolors="#333333",
                   linewidths=0.8, zorder=2)  # fmt: skip
    taken = [*flat[shown]]
    halo = [withStroke(linewidth=3.0, foreground="white")]
    for (i, j), labels in marked.items():
        middle = flat[[i, j]].mean(0)
        across = np.array([flat[j, 1] - flat[i, 1], flat[i, 0] - flat[j, 0]])
        across = across / max(float(np.linalg.norm(across)), 1e-6)
        # On the emptier side
        sides = [middle + 0.045 * across, middle - 0.045 * across]
        gaps = [np.linalg.norm(np.array(taken) - side, axis=1).min() for side in sides]
        taken.append(sides[int(np.argmax(gaps))])
        ax.annotate(", ".join(labels), taken[-1], ha="center", va="center",
                    color=RAW, weight="bold", path_effects=halo, zorder=4)  # fmt: skip
    for k in shown:
        if molecule.elements[k] not in ("C", "H"):
            ax.annotate(molecule.elements[k], flat[k], ha="center", va="center", fontsize=8,
                        color="white", weight="bold", zorder=3)  # fmt: skip
    ax.set_aspect("equal")
    ax.axis("off")
    ax.margins(0.08)
    ax.set_title(title)
    return ax


def _projected(molecule: Molecule) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions in the plane of a view, ``(n_atoms, 2)``, and along it.

    Of many views, turned about the direction in which the molecule is longest and tilted, the one
    that shows heavy atoms farthest apart.
    """
    x = molecule.positions - molecule.positions.mean(0)
    x = x @ np.linalg.svd(x, full_matrices=False)[2].T
    heavy = [k for k, element in enumerate(molecule.elements) if element != "H"]
    heavy = heavy if len(heavy) > 1 else list(range(molecule.n_atoms))
    i, j = np.triu_indices(len(heavy), 1)

    def view(turn: float, tilt: float) -> NDArray[np.float64]:
        about, across = np.cos([turn, tilt]), np.sin([turn, tilt])
        first = np.array([[1, 0, 0], [0, about[0], -across[0]], [0, across[0], about[0]]])
        second = np.array([[about[1], 0, across[1]], [0, 1, 0], [-across[1], 0, about[1]]])
        return np.asarray(x @ first.T @ second.T)

    def spread(seen: NDArray[np.float64]) -> float:
        flat = seen[heavy, :2]
        return float(np.minimum(np.linalg.norm(flat[i] - flat[j], axis=1), 0.12).mean())

    turns = np.linspace(0, np.pi, 18, endpoint=False)
    views = [view(turn, tilt) for tilt in (0.0, 0.35, -0.35) for turn in turns]
    best = max(views, key=spread)
    return best[:, :2], best[:, 2]


def _on_carbon(molecule: Molecule, k: int) -> bool:
    near = molecule.neighbours[k]
    return molecule.elements[k] == "H" and all(molecule.elements[j] == "C" for j in near)
