"""Pictures of single things: the structures of a selection, the frames of a path, a movie."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image

from gencg.analysis.histogram import Array, to_array
from gencg.molecule import Molecule
from gencg.notebook.route import Route
from gencg.notebook.selection import Selection
from gencg.plots.states import state_colour
from gencg.plots.structures import ensemble_picture, frame_pictures
from gencg.plots.style import ACCENT, new_figure, style
from gencg.report import write_atomically

HAZE = 24
"""Structures drawn with the representative, itself included."""


def selection_png(selection: Selection, *, turn: float = 0.0, pixels: int = 420) -> bytes:
    """The structures of a selection as a PNG with a clear ground; of a toy a scatter of them.

    Args:
        selection: What to draw.
        turn: Angle in degrees about the vertical.
        pixels: Pixels along the longer side.
    """
    molecule = selection.ensemble.molecule
    if molecule is None:
        with style():
            figure, (ax,) = new_figure(width=4.2, height=3.4)
            plot_toy(selection, ax)
        return figure_png(figure, dpi=100)
    picture, _ = ensemble_picture(
        selection.structures(HAZE), molecule, colour=selection_colour(selection), turn=turn,
        pixels=pixels,
    )  # fmt: skip
    return _png(picture)


def frame_pngs(
    route: Route, molecule: Molecule, *, turn: float = 0.0, pixels: int = 360
) -> list[bytes]:
    """Every frame of a path as a PNG, all of one view.

    Args:
        route: The path.
        molecule: Topology of its frames.
        turn: Angle in degrees about the vertical.
        pixels: Pixels along the longer side.
    """
    pictures, _ = frame_pictures(route.frames, molecule, turn=turn, pixels=pixels)
    return [_png(picture) for picture in pictures]


def write_movie(
    path: Path, route: Route, molecule: Molecule, *, turn: float = 0.0, pixels: int = 480
) -> None:
    """A path as a GIF that goes forth and back, on white; it is whole or not there.

    Args:
        path: File to write.
        route: The path.
        molecule: Topology of its frames.
        turn: Angle in degrees about the vertical.
        pixels: Pixels along the longer side.
    """
    pictures, _ = frame_pictures(route.frames, molecule, turn=turn, pixels=pixels)
    frames = []
    for picture in pictures:
        white = picture[..., :3] * picture[..., 3:] + 1 - picture[..., 3:]
        frames.append(Image.fromarray((255 * np.clip(white, 0, 1)).astype(np.uint8)))
    played = [*frames, *frames[-2:0:-1]]
    buffer = io.BytesIO()
    played[0].save(
        buffer, format="gif", save_all=True, append_images=played[1:], duration=90, loop=0
    )
    write_atomically(path, buffer.getvalue())


def figure_png(figure: Figure, *, dpi: int = 160) -> bytes:
    """A figure as a PNG.

    Args:
        figure: The figure.
        dpi: Pixels per inch.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def plot_toy(selection: Selection, ax: Axes) -> None:
    """Configurations of a toy as points in its own coordinates.

    Args:
        selection: What to draw.
        ax: Axes to draw on.
    """
    x = to_array(selection.ensemble.resample(400, 0).x).reshape(400, -1)
    front = to_array(selection.structure).ravel()
    if x.shape[1] == 1:
        ax.hist(x[:, 0], bins=40, color=selection_colour(selection) or ACCENT, alpha=0.6)
        ax.set_xlabel("$x_1$")
        ax.set_ylabel("structures")
        return
    ax.scatter(x[:, 0], x[:, 1], s=9, color=selection_colour(selection) or ACCENT, alpha=0.4, lw=0)
    ax.scatter([front[0]], [front[1]], s=80, color="#222222", edgecolors="white", zorder=4)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")


def selection_colour(selection: Selection) -> str | None:
    """Colour of the state that was selected; None at a point.

    Args:
        selection: What was selected.
    """
    return None if selection.state is None else state_colour(selection.state)


def _png(picture: Array) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.clip(picture, 0, 1), format="png")
    return buffer.getvalue()
