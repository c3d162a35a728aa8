"""The look of every figure: sizes for a talk, colours that survive colour blindness."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gencg.analysis.cv_names import shorter

RAW = "#D55E00"
"""Vermillion: what the generator drew."""
REWEIGHTED = "#0072B2"
"""Blue: the same, reweighted to the Boltzmann distribution."""
EXACT = "#222222"
"""Near black, dashed: a known answer."""
ACCENT = "#009E73"
"""Green: a third quantity."""
MASKED = "#E6E6E6"
"""Light grey: no data."""
_LONGEST = 32
"""Letters of the largest size that fit along an axis."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.9,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 160,
    "image.cmap": "viridis",
}


class ShownFigure(Figure):
    """A figure that notebooks show as a PNG, whatever backend they have set up."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this to get the package's look; outside, matplotlib's settings stay as set."""
    with rc_context(RC):  # type: ignore[arg-type]
        yield


def new_figure(
    n_columns: int = 1, n_rows: int = 1, *, width: float = 5.2, height: float = 4.2, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure without a window, and its axes, row by row.

    Args:
        n_columns: Axes beside each other.
        n_rows: Axes below each other.
        width: Of one of them, in inches.
        height: Of one of them, in inches.
        kwargs: As of `matplotlib.figure.Figure.subplots`.
    """
    figure = ShownFigure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **kwargs)
    return figure, list(np.ravel(axes))


def axes_or_new(ax: Axes | None, *, width: float = 5.2, height: float = 4.2) -> Axes:
    """`ax`, or the axes of a new figure."""
    return new_figure(width=width, height=height)[1][0] if ax is None else ax


def degrees_axis(ax: Axes, which: str, label: str) -> None:
    """Make the x or y axis one of angles in degrees over the whole circle."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_ticks([-180, -90, 0, 90, 180])
    (ax.set_xlim if which == "x" else ax.set_ylim)(-180, 180)
    text = f"{label} (deg)"
    # A torsion between residues has a name that is longer than its axis
    size = min(1.0, _LONGEST / len(text)) * float(RC["axes.labelsize"])
    axis.set_label_text(text, fontsize=size)


_GREEK = {
    "phi": r"$\phi$", "psi": r"$\psi$", "omega": r"$\omega$",
    "alpha_L": r"$\alpha_L$", "alpha_R": r"$\alpha_R$", "beta": r"$\beta$",
    **{f"chi{k}": rf"$\chi_{k}$" for k in range(1, 6)},
    **{f"x{k}": rf"$x_{k}$" for k in range(1, 10)},
}  # fmt: skip


def symbol(name: str, *, plain: bool = False) -> str:
    """Greek letters in a torsion's or a state's name: "phi(ALA2)" becomes φ ALA2; see `shorter`.

    Args:
        name: As in the code.
        plain: Leave the residue out, for a figure that names it in its title.
    """
    words = [word for word in re.split(r"[ ()]+", shorter(name)) if word]
    if plain and "(" in name:
        words = words[:1]
    return " ".join(_GREEK.get(word, word) for word in words)
