"""From a place on the picture of the surface to values of the variables, and back."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from gencg.notebook.figures import surface_axes
from gencg.notebook.route import Route
from gencg.plots.style import new_figure, style

if TYPE_CHECKING:
    from gencg.notebook.explorer import Explorer


class OnPicture:
    """Where on the picture of the surface which values lie.

    Args:
        figure: The picture, its first axes the surface.
        scale: What variables are multiplied by on the axes.
        profile: Variable and free energy of a surface over one variable; None over two.
    """

    def __init__(self, figure: Figure, scale: float, profile: Any) -> None:
        figure.canvas.draw()
        # Laid out once: again, while the picture is saved, it would move under the marks
        figure.set_layout_engine("none")
        ax = figure.axes[0]
        box = ax.get_window_extent().transformed(figure.transFigure.inverted())
        self.box = (float(box.x0), float(box.y0), float(box.width), float(box.height))
        self.x, self.y = ([float(v) for v in ends] for ends in (ax.get_xlim(), ax.get_ylim()))
        self.scale, self.profile = scale, profile

    def to_data(self, x: float, y: float) -> list[float] | None:
        """Variables at a place of the picture; None outside of the axes.

        Args:
            x: Share of the width, from the left.
            y: Share of the height, from the top.
        """
        left, bottom, width, height = self.box
        across, up = (x - left) / width, (1 - y - bottom) / height
        if not (0 <= across <= 1 and 0 <= up <= 1):
            return None
        z = [(self.x[0] + across * (self.x[1] - self.x[0])) / self.scale]
        if self.profile is None:
            z.append((self.y[0] + up * (self.y[1] - self.y[0])) / self.scale)
        return z

    def to_picture(self, z: list[float]) -> tuple[float, float]:
        """Shares of width and height, from the top left, at one or two variables.

        Args:
            z: The variables.
        """
        left, bottom, width, height = self.box
        values = [float(v) * self.scale for v in z[:2]]
        if self.profile is not None:
            values = [values[0], float(np.interp(z[0], *self.profile))]
        across = (values[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (values[1] - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * width, 1 - (bottom + up * height)

    def lines(self, route: Route, explorer: "Explorer") -> list[list[list[float]]]:
        """A path over the picture, cut where it goes round.

        Args:
            route: The path.
            explorer: What is explored.
        """
        axes = list(explorer.axes)
        return [
            [list(self.to_picture((p if len(p) <= len(axes) else p[axes]).tolist())) for p in piece]
            for piece in route.path.pieces
        ]


def surface_picture(explorer: "Explorer") -> tuple[Figure, OnPicture]:
    """The surface as a figure, and where on it which values lie.

    Args:
        explorer: What is explored.
    """
    surface = explorer.surface
    with style():
        figure, (ax,) = new_figure(width=5.4, height=4.6)
        surface_axes(explorer, ax)
        profile = None
        if surface.n_variables == 1:
            profile = (surface.density.centres[0], surface.free_energy)
        place = OnPicture(figure, 180 / np.pi if explorer.periodic else 1.0, profile)
    return figure, place
