"""The picture of variables on toys in the plane: the best straight one, ours, the exact one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from experiments.slow_functions.worth import PROCESSES, exact_of
from gencg.analysis import ExactSlowFunctions
from gencg.plots.style import EXACT, RAW, REWEIGHTED, new_figure, style
from gencg.systems import System

Array = NDArray[np.float64]
N_GRID = 97
"""Points of the picture along each side."""
HIGHEST = 10.0
"""Free energy in kT up to which the plane is painted."""


def painted(system: System) -> tuple[ExactSlowFunctions, Tensor]:
    """Exact slow functions on the grid of the picture, and which of its points are painted."""
    exact = exact_of(system, n=N_GRID)
    return exact, exact.weights > np.exp(-HIGHEST) * exact.weights.max()


def draw(system: System, shown: Mapping[str, Any], path: Path) -> None:
    """Level lines of each variable over the energy, and what every straight direction keeps.

    Args:
        system: A toy.
        shown: ``cvs`` at the painted points, one list for each; ``kept`` of the straight
            directions of ``angles`` in degrees; ``ours``, what the CVs keep.
        path: PNG to write.
    """
    exact, likely = painted(system)
    kept = np.array(shown["kept"])
    angle = np.radians(shown["angles"][int(kept.argmax())])
    points, n, m = exact.points[likely].numpy(), len(shown["cvs"]), min(PROCESSES[system.name], 2)
    found = "one CV" if n == 1 else f"{n} CVs"
    columns = [
        (f"best straight line, keeps {kept.max():.2f}", points @ [np.cos(angle), np.sin(angle)])
    ]
    for k, values in enumerate(shown["cvs"]):
        title = f"gencg, one CV, keeps {shown['ours']:.2f}"
        if n > 1:
            title = f"gencg, CV {k + 1} of {n}, which keep {shown['ours']:.2f}"
        columns.append((title, np.array(values)))
    slow = exact.functions[likely].numpy()
    for k in range(m):
        columns.append((f"exact slow function{'' if m == 1 else f' {k + 1}'}", slow[:, k]))
    weights = exact.weights[likely].numpy()
    with style():
        figure, axes = new_figure(len(columns) + 1, width=3.6, height=3.5)
        for ax, (title, values) in zip(axes, columns, strict=False):
            sign = _sign(values, slow[:, :m], weights)
            paths = _paint(ax, points, sign * values, -np.log(weights / weights.max()))
            ax.set_title(title, fontsize=11)
        axes[0].set_ylabel("$x_2$")
        figure.colorbar(
            paths, ax=axes[len(columns) - 1], label="rank of the value", ticks=[0, 0.5, 1]
        )
        _directions(axes[-1], shown["angles"], kept, shown["ours"], found)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80)


def _sign(values: Array, slow: Array, weights: Array) -> float:
    """Sign with which a variable rises with the slow function that it goes with most."""
    centred = values - weights @ values / weights.sum()
    along = (weights * centred) @ slow
    return float(np.sign(along[np.abs(along).argmax()]) or 1)


def _paint(ax: Axes, points: Array, values: Array, energy: Array) -> Any:
    """Rank of the values as colours with level lines, and lines of the energy every 2 kT."""
    x, y = (np.unique(points[:, k]) for k in (0, 1))
    at = np.searchsorted(x, points[:, 0]), np.searchsorted(y, points[:, 1])
    fields = []
    for column in (np.argsort(np.argsort(values)) / (len(values) - 1), energy):
        field = np.full((len(x), len(y)), np.nan)
        field[at] = column
        fields.append(field.T)
    levels = np.linspace(0, 1, 13)
    paths = ax.contourf(x, y, fields[0], levels, cmap="viridis")
    ax.contour(x, y, fields[1], np.arange(1, HIGHEST, 2), colors="white", linewidths=0.8)
    ax.set_xlabel("$x_1$")
    return paths


def _directions(ax: Axes, angles: Sequence[float], kept: Array, ours: float, found: str) -> None:
    ax.plot([*angles, 180], [*kept, kept[0]], color=RAW, label="straight lines")
    ax.axhline(ours, color=REWEIGHTED, label=f"gencg, {found}")
    ax.axhline(1.0, color=EXACT, ls="--", lw=1.2, label="exact")
    ax.set_xlim(0, 180)
    ax.set_xticks([0, 45, 90, 135, 180])
    ax.set_ylim(0, 1.5)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_xlabel("direction (deg)")
    ax.set_title("share of the slow times kept", fontsize=11)
    ax.legend(fontsize=9, loc="upper left")
