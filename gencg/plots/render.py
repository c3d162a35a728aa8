"""Molecules as shaded balls and sticks: a small renderer of its own, drawn into an array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from gencg.analysis.histogram import Array

COLOURS = {
    "H": "#E8E8E8", "C": "#7A7F87", "N": "#3A66D6", "O": "#D93A3A", "S": "#E0B000",
    "F": "#55AA55", "Cl": "#3DA65A", "Br": "#9A4B22", "I": "#7A3FA0", "P": "#E8801A",
}  # fmt: skip
"""Colour of each element; a name that is none of them is grey."""
_RADII = {"H": 0.024, "C": 0.036, "N": 0.037, "O": 0.037}
_OTHER_RADIUS, _STICK = 0.044, 0.0165
_LIGHT = np.array([-0.45, 0.55, 0.70]) / np.linalg.norm([-0.45, 0.55, 0.70])
_HALF = (_LIGHT + np.array([0.0, 0.0, 1.0])) / np.linalg.norm(_LIGHT + np.array([0.0, 0.0, 1.0]))
_FOG, _EDGE = 0.38, 0.035
_NOTHING = -1e6


@dataclass(frozen=True)
class Frame:
    """What part of the plane a picture shows.

    Attributes:
        low: Lower left corner in nm.
        high: Upper right corner in nm.
        near: Depth in nm that is drawn in full colour.
        far: Depth in nm that is palest.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    near: float
    far: float

    @classmethod
    def around(cls, x: Array, *, margin: float = 0.06) -> "Frame":
        """A frame that holds all of the positions ``(..., 3)``."""
        flat = x.reshape(-1, 3)
        low, high = flat.min(0), flat.max(0)
        return cls(
            (float(low[0] - margin), float(low[1] - margin)),
            (float(high[0] + margin), float(high[1] + margin)),
            float(high[2]),
            float(low[2]),
        )

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top in nm, as `imshow` takes them."""
        return self.low[0], self.high[0], self.low[1], self.high[1]


@dataclass(frozen=True)
class Style:
    """How structures are drawn.

    Attributes:
        carbon: Colour of carbon; None takes its own.
        balls: Size of the balls, 1 for balls and sticks, 0 for sticks alone.
        sticks: Thickness of the sticks, 1 as usual.
        pixels: Pixels along the longer side of the picture.
        oversampling: Rays along each side of a pixel.
    """

    carbon: str | None = None
    balls: float = 1.0
    sticks: float = 1.0
    pixels: int = 480
    oversampling: int = 2


def render(
    x: Array,
    elements: Sequence[str],
    bonds: NDArray[np.int64],
    frame: Frame,
    *,
    style: Style | None = None,
) -> Array:
    """A picture of one structure, seen along the third axis from above.

    Spheres and cylinders are intersected with parallel rays, one for each pixel, and shaded by one
    light, with a highlight, a thin dark edge, and paler colours the farther they lie.

    Args:
        x: Positions ``(n_atoms, 3)`` in nm, of the atoms to draw.
        elements: Their elements.
        bonds: Pairs of them that a stick joins, ``(n_bonds, 2)``.
        frame: What part of the plane is shown.
        style: Colours and sizes.

    Returns:
        Red, green, blue and opacity, ``(height, width, 4)`` in [0, 1], the top row first.
    """
    style = style or Style()
    canvas = _Canvas(frame, style.pixels, style.oversampling)
    colours = [np.array(_colour(element, style)) for element in elements]
    stick = _STICK * style.sticks
    for i, j in bonds.tolist():
        middle = 0.5 * (x[i] + x[j])
        canvas.cylinder(x[i], middle, stick, colours[i])
        canvas.cylinder(middle, x[j], stick, colours[j])
    for k, element in enumerate(elements):
        radius = style.balls * _RADII.get(element, _OTHER_RADIUS)
        canvas.sphere(x[k], max(radius, stick), colours[k])
    return canvas.image()


def blend(pictures: Sequence[Array], opacities: Array) -> Array:
    r"""Pictures laid over each other whatever their order.

    .. math:: \alpha = 1 - \prod_k (1 - a_k \alpha_k), \qquad
              c = \frac{\sum_k a_k \alpha_k c_k}{\sum_k a_k \alpha_k}

    Args:
        pictures: From `render`, of one frame.
        opacities: :math:`a_k` of each, ``(n,)``.
    """
    clear = np.ones(pictures[0].shape[:2])
    colour, total = np.zeros((*clear.shape, 3)), np.zeros(clear.shape)
    for picture, opacity in zip(pictures, opacities, strict=True):
        share = opacity * picture[..., 3]
        clear *= 1 - share
        colour += share[..., None] * picture[..., :3]
        total += share
    colour /= np.maximum(total, 1e-12)[..., None]
    return np.concatenate([colour, (1 - clear)[..., None]], -1)


def over(front: Array, back: Array) -> Array:
    """One picture in front of another."""
    a, b = front[..., 3:], back[..., 3:] * (1 - front[..., 3:])
    total = a + b
    colour = (a * front[..., :3] + b * back[..., :3]) / np.maximum(total, 1e-12)
    return np.concatenate([colour, total], -1)


def _colour(element: str, style: Style) -> tuple[float, float, float]:
    if element == "C" and style.carbon is not None:
        return to_rgb(style.carbon)
    return to_rgb(COLOURS.get(element, "#999999"))


class _Canvas:
    """A grid of rays with the nearest surface on each: depth, normal, colour."""

    def __init__(self, frame: Frame, pixels: int, oversampling: int) -> None:
        size = np.subtract(frame.high, frame.low)
        self.frame, self.oversampling = frame, oversampling
        self.scale = oversampling * pixels / float(size.max())
        # Whole blocks of rays, to be averaged
        width, height = (
            oversampling * max(1, round(float(side) * self.scale / oversampling)) for side in size
        )
        self.shape = (height, width)
        self.depth = np.full(self.shape, _NOTHING)
        self.normal = np.zeros((*self.shape, 3))
        self.colour = np.zeros((*self.shape, 3))
        self.xs = frame.low[0] + (np.arange(width) + 0.5) / self.scale
        self.ys = frame.low[1] + (np.arange(height) + 0.5) / self.scale

    def sphere(self, centre: Array, radius: float, colour: Array) -> None:
        rows, columns, dx, dy = self._patch(centre[None], radius)
        rest = radius**2 - dx**2 - dy**2
        height = np.sqrt(np.maximum(rest, 0.0))
        normal = np.stack([dx + 0 * height, dy + 0 * height, height], -1) / radius
        self._put(rows, columns, rest > 0, centre[2] + height, normal, colour)

    def cylinder(self, start: Array, end: Array, radius: float, colour: Array) -> None:
        axis = end - start
        length = float(np.linalg.norm(axis))
        if length <= 0:
            return
        u = axis / length
        rows, columns, dx, dy = self._patch(np.stack([start, end]), radius)
        dx, dy = np.broadcast_arrays(dx, dy)
        # |p - (p.u) u|^2 = radius^2 along p = (dx, dy, t), quadratic in t
        along = dx * u[0] + dy * u[1]
        a = 1 - u[2] ** 2
        if a < 1e-9:
            return
        b = -2 * along * u[2]
        c = dx**2 + dy**2 - along**2 - radius**2
        root = b**2 - 4 * a * c
        t = (-b + np.sqrt(np.maximum(root, 0.0))) / (2 * a)
        at = along + t * u[2]
        point = np.stack([dx, dy, t], -1)
        normal = (point - at[..., None] * u) / radius
        hit = (root > 0) & (at >= 0) & (at <= length)
        self._put(rows, columns, hit, start[2] + t, normal, colour)

    def image(self) -> Array:
        """Shaded, averaged over blocks of pixels, top row first."""
        seen = self.depth > _NOTHING
        normal, depth = self.normal[seen], self.depth[seen]
        shade = 0.50 + 0.58 * np.clip(normal @ _LIGHT, 0, 1)
        highlight = 0.35 * np.clip(normal @ _HALF, 0, 1) ** 40
        colour = np.clip(self.colour[seen] * shade[:, None] + highlight[:, None], 0, 1)
        span = max(self.frame.near - self.frame.far, 1e-6)
        fog = _FOG * np.clip((self.frame.near - depth) / span, 0, 1)[:, None]
        colour = colour * (1 - fog) + fog
        colour[self._edges()[seen]] *= 0.45
        whole = np.zeros((*self.shape, 4))
        whole[seen] = np.concatenate([colour, np.ones((len(colour), 1))], 1)
        n = self.oversampling
        height, width = (size // n for size in self.shape)
        mean = whole.reshape(height, n, width, n, 4).mean((1, 3))
        mean[..., :3] /= np.maximum(mean[..., 3:], 1e-12)
        return np.asarray(np.clip(mean[::-1], 0, 1), dtype=np.float64)

    def _edges(self) -> NDArray[np.bool_]:
        """Where a step in depth is, on its lower side, and the outer rim of everything."""
        depth = np.pad(self.depth, 1, constant_values=_NOTHING)
        middle = depth[1:-1, 1:-1]
        edge = np.zeros(self.shape, dtype=bool)
        for other in (depth[2:, 1:-1], depth[:-2, 1:-1], depth[1:-1, 2:], depth[1:-1, :-2]):
            edge |= (other - middle > _EDGE) | (other <= _NOTHING)
        return edge

    def _patch(self, points: Array, radius: float) -> tuple[slice, slice, Array, Array]:
        """The pixels around points, and their offsets from the first in nm."""
        low, high = points.min(0) - radius, points.max(0) + radius
        bounds = []
        for k, values in enumerate((self.xs, self.ys)):
            at = np.searchsorted(values, [low[k], high[k]])
            bounds.append(slice(max(int(at[0]) - 1, 0), int(at[1]) + 1))
        columns, rows = bounds
        dx = self.xs[columns][None, :] - points[0, 0]
        dy = self.ys[rows][:, None] - points[0, 1]
        return rows, columns, dx, dy

    def _put(
        self,
        rows: slice,
        columns: slice,
        hit: NDArray[np.bool_],
        depth: Array,
        normal: Array,
        colour: Array,
    ) -> None:
        nearer = hit & (depth > self.depth[rows, columns])
        self.depth[rows, columns] = np.where(nearer, depth, self.depth[rows, columns])
        self.normal[rows, columns] = np.where(nearer[..., None], normal, self.normal[rows, columns])
        self.colour[rows, columns] = np.where(nearer[..., None], colour, self.colour[rows, columns])
