"""Structures as pictures: side by side in one common view, or an ensemble laid over itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from gencg.analysis.alignment import superposed
from gencg.analysis.histogram import to_array
from gencg.molecule import Molecule
from gencg.plots.render import Frame, Style, blend, over, render
from gencg.plots.style import axes_or_new

MOST_DRAWN = 30
"""Structures of an ensemble that are drawn behind the first."""
_FEW_ATOMS = 60
"""Atoms up to which balls are drawn; beyond, sticks alone."""


def plot_structures(
    x: Any,
    molecule: Molecule,
    axes: Sequence[Axes],
    *,
    titles: Sequence[str] = (),
    colours: Sequence[str] = (),
    font: float = 12.0,
) -> None:
    """Draw structures as balls and sticks, superposed onto the first and seen from one side.

    Hydrogens on carbon are left out. All axes get the same limits, in nm.

    Args:
        x: Structures ``(n, n_atoms, 3)`` in nm.
        molecule: Their topology.
        axes: Axes for each.
        titles: Title of each.
        colours: Colour of each one's title.
        font: Size of the titles.
    """
    shown, elements, bonds = _drawn(molecule)
    seen = seen_together(x, molecule)[:, shown]
    frame = Frame.around(seen)
    for k, ax in enumerate(axes[: len(seen)]):
        _show(ax, render(seen[k], elements, bonds, frame, style=_style(molecule)), frame)
        if titles:
            colour = colours[k] if colours else "#222222"
            ax.set_title(titles[k], color=colour, fontweight="bold", fontsize=font)


def plot_ensemble(
    x: Any,
    molecule: Molecule,
    *,
    weights: Any = None,
    colour: str | None = None,
    turn: float = 0.0,
    frame: Frame | None = None,
    pixels: int = 520,
    ax: Axes | None = None,
) -> Axes:
    """The first structure as balls and sticks, the others as a haze of sticks behind it.

    The haze is the denser the more weight there is; hydrogens on carbon are left out.

    Args:
        x: Structures ``(n, n_atoms, 3)`` in nm, the one to draw in front first; of the others
            `MOST_DRAWN` at most are drawn.
        molecule: Their topology.
        weights: Weights of the others, ``(n - 1,)``; None: all the same, such as of structures
            drawn by weight.
        colour: Colour of carbon; None takes its own.
        turn: Angle in degrees by which the view is turned about the vertical.
        frame: What part of the plane is shown; None holds everything, for every turn.
        pixels: Pixels along the longer side.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    picture, frame = ensemble_picture(
        x, molecule, weights=weights, colour=colour, turn=turn, frame=frame, pixels=pixels
    )
    _show(ax, picture, frame)
    return ax


def ensemble_picture(
    x: Any,
    molecule: Molecule,
    *,
    weights: Any = None,
    colour: str | None = None,
    turn: float = 0.0,
    frame: Frame | None = None,
    pixels: int = 520,
) -> tuple[NDArray[np.float64], Frame]:
    """The picture of `plot_ensemble` as red, green, blue and opacity, and what it shows.

    Arguments are those of `plot_ensemble`.

    Raises:
        ValueError: If there are not as many weights as structures behind the first, or these have
            no weight.
    """
    shown, elements, bonds = _drawn(molecule)
    structures = to_array(x)[: MOST_DRAWN + 1]
    share = np.ones(len(structures) - 1)
    if weights is not None:
        share = to_array(weights)
        if share.shape != (len(to_array(x)) - 1,) or (len(share) and not share.sum() > 0):
            raise ValueError(
                f"`weights` must be {len(to_array(x)) - 1} numbers with a positive sum, one for "
                f"each structure behind the first, got shape {share.shape}"
            )
        share = share[:MOST_DRAWN]
    seen = turned(seen_together(structures, molecule)[:, shown], turn)
    frame = frame or _frame_of_turns(seen)
    style = _style(molecule, carbon=colour, pixels=pixels)
    picture = render(seen[0], elements, bonds, frame, style=style)
    if len(seen) > 1:
        thin = Style(carbon=colour, balls=0.0, sticks=0.6, pixels=pixels, oversampling=1)
        haze = [render(y, elements, bonds, frame, style=thin) for y in seen[1:]]
        # Nearly opaque where all of them lie
        opacity = 1 - 0.5 ** (7 * share / max(float(share.sum()), 1e-300))
        picture = over(picture, blend(haze, opacity))
    return picture, frame


def turned(x: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    """Positions ``(..., 3)`` turned about the second axis by an angle in degrees."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.asarray(x @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]))


def seen_together(x: Any, molecule: Molecule) -> NDArray[np.float64]:
    """Structures superposed and turned so that together they are widest in the first two axes."""
    positions = torch.from_numpy(to_array(x))
    heavy = torch.tensor([float(element != "H") for element in molecule.elements])
    weights = heavy.double() if float(heavy.sum()) > 2 else torch.ones_like(heavy).double()
    # Onto the middle one of the backbone: flexible ends then swing around it
    laid = to_array(superposed(positions, positions[0], weights))
    return _turned_widest(laid, weights.numpy() > 0)


def frame_pictures(
    x: Any, molecule: Molecule, *, turn: float = 0.0, pixels: int = 360
) -> tuple[list[NDArray[np.float64]], Frame]:
    """A picture of each structure as it lies, all of one view, to be played.

    Args:
        x: Structures ``(n, n_atoms, 3)`` in nm, laid on each other already.
        molecule: Their topology.
        turn: Angle in degrees by which the view is turned about the vertical.
        pixels: Pixels along the longer side.

    Returns:
        Red, green, blue and opacity of each, and what they show.
    """
    shown, elements, bonds = _drawn(molecule)
    heavy = np.array([element != "H" for element in molecule.elements])
    heavy = heavy if heavy.sum() > 2 else np.ones_like(heavy)
    seen = turned(_turned_widest(to_array(x), heavy)[:, shown], turn)
    frame, style = _frame_of_turns(seen), _style(molecule, pixels=pixels)
    return [render(y, elements, bonds, frame, style=style) for y in seen], frame


def _turned_widest(x: NDArray[np.float64], counted: Any) -> NDArray[np.float64]:
    """Structures turned so that together they are widest in the first two axes."""
    x = x - x[:, counted].mean((0, 1))
    flat = x[:, counted].reshape(-1, 3)
    turn = np.linalg.svd(flat, full_matrices=False)[2]
    turn[2] *= np.sign(np.linalg.det(turn))
    return np.asarray(x @ turn.T)


def _drawn(molecule: Molecule) -> tuple[list[int], list[str], NDArray[np.int64]]:
    """Atoms that are drawn, their elements, and their bonds by place among them."""
    shown = [k for k in range(molecule.n_atoms) if not _on_carbon(molecule, k)]
    # Methane and the like would be a single ball
    shown = shown if len(shown) > 1 else list(range(molecule.n_atoms))
    place = {k: i for i, k in enumerate(shown)}
    pairs = [(place[i], place[j]) for i, j in molecule.bonds.tolist() if i in place and j in place]
    return shown, [molecule.elements[k] for k in shown], np.array(pairs).reshape(-1, 2)


def _style(molecule: Molecule, *, carbon: str | None = None, pixels: int = 480) -> Style:
    few = molecule.n_atoms <= _FEW_ATOMS
    return Style(
        carbon=carbon, balls=1.0 if few else 0.0, sticks=1.0 if few else 1.3, pixels=pixels
    )


def _frame_of_turns(seen: NDArray[np.float64]) -> Frame:
    """A frame that holds the structures however they are turned about the vertical."""
    reach = float(np.hypot(seen[..., 0], seen[..., 2]).max())
    low, high = float(seen[..., 1].min()), float(seen[..., 1].max())
    corners = np.array([[-reach, low, -reach], [reach, high, reach]])
    return Frame.around(corners)


def _show(ax: Axes, picture: NDArray[np.float64], frame: Frame) -> None:
    ax.imshow(picture, extent=frame.extent, aspect="equal", interpolation="antialiased")
    ax.axis("off")
    ax.set_xlim(frame.low[0], frame.high[0])
    ax.set_ylim(frame.low[1], frame.high[1])


def _on_carbon(molecule: Molecule, k: int) -> bool:
    near = molecule.neighbours[k]
    return molecule.elements[k] == "H" and all(molecule.elements[j] == "C" for j in near)
