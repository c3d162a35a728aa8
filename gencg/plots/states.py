"""Metastable states: where they lie, what they hold, and a structure of each."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter

from gencg.analysis.histogram import Array, normalised_weights, to_array
from gencg.analysis.smooth_density import SmoothDensity, smooth_density
from gencg.molecule import Molecule
from gencg.plots.collective import cv_symbol
from gencg.plots.structures import plot_structures
from gencg.plots.style import EXACT, RAW, REWEIGHTED, degrees_axis, new_figure, style, symbol
from gencg.units import BOLTZMANN_CONSTANT, check_temperature

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4C9E", "#8C6D31")
"""One for each state, tellable apart by colour-blind readers."""
MOST_DRAWN = 6
"""States with a structure in the figure, the most populated."""
HIGHEST = 35.0
"""Free energy in kJ/mol above which the map stays white."""


def state_colour(j: int) -> str:
    """Colour of the j-th state, 0 the most populated."""
    return COLOURS[j % len(COLOURS)]


def plot_state_map(
    z: Any,
    log_weights: Any,
    labels: Any,
    *,
    cv_names: Sequence[str],
    periodic: bool,
    temperature: float,
    centres: Sequence[Sequence[float]] = (),
    bins: int = 90,
    ax: Axes,
) -> Axes:
    """States over the first one or two collective variables: a colour each, darker where F is low.

    Contours are the free energy every 5 kJ/mol; a cell has the colour of the state that most of
    its samples belong to. White: above `HIGHEST` or no sample near.

    Args:
        z: Collective variables of the samples, ``(n, n_cvs)``.
        log_weights: Log weights, ``(n,)``.
        labels: State of each sample, ``(n,)``.
        cv_names: Names of the variables.
        periodic: Whether they are angles in radians.
        temperature: Temperature in K.
        centres: Where each state is numbered.
        bins: Cells along each variable.
        ax: Axes to draw on.
    """
    k_t = BOLTZMANN_CONSTANT * check_temperature(temperature)
    z, state = to_array(z)[:, :2], np.asarray(labels)
    w = normalised_weights(log_weights, len(z))
    alive = (w > 0) & (state >= 0) & np.isfinite(z).all(1)
    z, state, log_w = z[alive], state[alive], np.log(w[alive])
    density = smooth_density(z, log_w, periodic=periodic, bins=bins)
    free_energy = k_t * density.reduced_free_energy
    scale = 180 / np.pi if periodic else 1.0
    owner, seen = _owners(z, state, density)
    if z.shape[1] == 1:
        _profile(ax, density, free_energy, owner, scale)
    else:
        _map(ax, density, free_energy, owner, seen, scale)
    for j, centre in enumerate(centres):
        at = [c * scale for c in centre[:2]]
        if len(at) == 1:
            cell = int(np.argmin(np.abs(density.centres[0] * scale - at[0])))
            at.append(float(free_energy[cell]) + 0.06 * HIGHEST)
        number_state(ax, j, at[0], at[1])
    names = [cv_symbol(name) for name in cv_names]
    for which, name in zip("xy", names, strict=False):
        if periodic:
            degrees_axis(ax, which, name)
        else:
            (ax.xaxis if which == "x" else ax.yaxis).set_label_text(name)
    if z.shape[1] == 1:
        ax.set_ylabel("free energy (kJ/mol)")
    elif periodic:
        ax.set_aspect("equal")
    return ax


def number_state(ax: Axes, j: int, x: float, y: float) -> None:
    """A state's number in a disc of its colour."""
    ax.scatter([x], [y], s=260, color="white", edgecolors=state_colour(j), linewidths=2.4, zorder=8)
    ax.annotate(str(j + 1), (x, y), ha="center", va="center", fontsize=12, fontweight="bold",
                color=EXACT, zorder=9)  # fmt: skip


def plot_state_populations(
    populations: Sequence[tuple[float, float]], raw: Sequence[tuple[float, float]], *, ax: Axes
) -> Axes:
    """Populations as points with two standard errors on a logarithmic scale, raw beside reweighted.

    Args:
        populations: Reweighted value and standard error of each state.
        raw: The same of the sample as drawn.
        ax: Axes to draw on.
    """
    at = np.arange(len(populations))
    rows = ((raw, RAW, "raw", 0.16, "s"), (populations, REWEIGHTED, "reweighted", -0.16, "o"))
    lowest = 1.0
    for data, colour, label, shift, marker in rows:
        p, error = np.array(data).T
        shown = p > 0
        down = np.minimum(2 * error, 0.9 * p)
        lowest = min(lowest, float((p - down)[shown].min()))
        ax.errorbar(
            p[shown], (at + shift)[shown], xerr=[down[shown], 2 * error[shown]], fmt=marker, ms=8,
            color=colour, capsize=4, elinewidth=1.6, label=label,
        )  # fmt: skip
    for k, (p, error) in enumerate(populations):
        ax.annotate(
            _percent(p, error), (p, k - 0.16), xytext=(0, 9), textcoords="offset points",
            ha="right" if p > 0.2 else "center", fontsize=10, color=REWEIGHTED,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(lowest / 2.5, 1.4)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(at, [str(k + 1) for k in at])
    for k, tick in enumerate(ax.get_yticklabels()):
        tick.set(color=state_colour(k), fontweight="bold", fontsize=14)
    ax.set_ylim(len(populations) - 0.4, -0.7)
    ax.set_ylabel("state")
    ax.set_xlabel("population (%)")
    ax.legend(loc="lower right")
    return ax


def states_figure(
    z: Any,
    log_weights: Any,
    labels: Any,
    *,
    names: Sequence[str],
    basins: Sequence[str],
    populations: Sequence[tuple[float, float]],
    raw: Sequence[tuple[float, float]],
    centres: Sequence[Sequence[float]],
    structures: Any,
    molecule: Molecule | None,
    cv_names: Sequence[str],
    periodic: bool,
    temperature: float,
) -> Figure:
    """Map, populations and structures of the states of a run in one figure.

    Args:
        z: Collective variables of the samples, ``(n, n_cvs)``.
        log_weights: Log weights, ``(n,)``.
        labels: State of each sample, ``(n,)``.
        names: Name of each state.
        basins: Its basins, or "".
        populations: Reweighted value and standard error of each state.
        raw: The same of the sample as drawn.
        centres: Where each state is numbered on the map.
        structures: A structure each, ``(n_states, n_atoms, 3)`` in nm; None for a toy.
        molecule: Their topology.
        cv_names: Names of the variables.
        periodic: Whether they are angles in radians.
        temperature: Temperature in K.
    """
    n = len(names)
    few = min(n, MOST_DRAWN)
    titles = []
    for j in range(few):
        per_line = 2 if few < 4 else 1
        lines = [f"{j + 1}: {_broken(names[j], per_line)}", _broken(basins[j], per_line)]
        titles.append("\n".join(line for line in lines if line))
    font = 12 if few < 4 else 8
    room = max(title.count("\n") for title in titles) * font * 1.3 / 72
    with style():
        below = 0.0 if molecule is None else 2.0 + room
        figure, _ = new_figure(width=11.0, height=5.0 + below)
        figure.clf()
        rows = figure.add_gridspec(1 if molecule is None else 2, 1, height_ratios=None if molecule
                                   is None else [5.0, below])  # fmt: skip
        top = rows[0].subgridspec(1, 2, width_ratios=[1.15, 1])
        left, right = (figure.add_subplot(top[k]) for k in range(2))
        plot_state_map(
            z, log_weights, labels, cv_names=cv_names, periodic=periodic, temperature=temperature,
            centres=centres, ax=left,
        )  # fmt: skip
        plot_state_populations(populations, raw, ax=right)
        if molecule is not None:
            row = rows[1].subgridspec(1, few)
            axes = [figure.add_subplot(row[k]) for k in range(few)]
            plot_structures(structures[:few], molecule, axes, titles=titles, font=font,
                            colours=[state_colour(j) for j in range(few)])  # fmt: skip
        else:
            right.set_yticks(range(n), [f"{j + 1}\n{names[j]}" for j in range(n)])
            right.set_ylabel("")
            for k, tick in enumerate(right.get_yticklabels()):
                tick.set(color=state_colour(k), fontweight="bold", fontsize=11)
    return figure


def state_symbol(name: str) -> str:
    """A state's or basin's name with symbols: "phi(ALA2) +55, psi(ALA2) +40" becomes φ +55°, ..."""
    parts = []
    for part in _parts(name):
        label, _, value = part.rpartition(" ")
        number = value.lstrip("+-").replace(".", "").isdigit()
        if label and number and ("(" in label or "–" in label):
            parts.append(f"{symbol(label)} {value.replace('-', '−')}°")
        else:
            parts.append(" + ".join(symbol(word) for word in part.split(" + ")))
    return ", ".join(parts)


def _parts(name: str) -> list[str]:
    """Coordinates of a name; a torsion has commas of its own in its parentheses."""
    return re.split(r", (?![^()]*\))", name)


def _broken(name: str, per_line: int) -> str:
    """A name on lines of few coordinates."""
    parts = [state_symbol(part) for part in _parts(name)]
    return "\n".join(", ".join(parts[k : k + per_line]) for k in range(0, len(parts), per_line))


def _owners(z: Array, state: Any, density: SmoothDensity) -> tuple[Array, Array]:
    """State that most samples near each cell belong to, and whether any sample is near."""
    bins = len(density.centres[0])
    ranges = [(float(edge[0]), float(edge[-1])) for edge in density.edges]
    counts = []
    for j in range(int(state.max()) + 1):
        mine = z[state == j]
        near = smooth_density(
            mine, periodic=density.periodic, bins=bins, smoothing=0.012, ranges=ranges
        ).probabilities
        counts.append(len(mine) * near)
    stacked = np.stack(counts)
    return stacked.argmax(0).astype(np.float64), stacked.sum(0) > 0.02


def _profile(
    ax: Axes, density: SmoothDensity, free_energy: Array, owner: Array, scale: float
) -> None:
    x = density.centres[0] * scale
    shown = free_energy <= HIGHEST
    for j in np.unique(owner).astype(int):
        ax.fill_between(x, 0, np.where(shown, free_energy, HIGHEST), where=(owner == j) & shown,
                        color=state_colour(j), alpha=0.35, lw=0, step=None)  # fmt: skip
    ax.plot(x[shown], free_energy[shown], color=EXACT)
    ax.set_ylim(-1.0, 1.1 * float(free_energy[shown].max()) + 2)


def _map(
    ax: Axes,
    density: SmoothDensity,
    free_energy: Array,
    owner: Array,
    seen: Array,
    scale: float,
) -> None:
    shown = (free_energy <= HIGHEST) & seen.astype(bool)
    depth = np.clip(free_energy / HIGHEST, 0, 1)[..., None]
    palette = np.array([to_rgb(state_colour(int(j))) for j in range(int(owner.max()) + 1)])
    colour = palette[owner.astype(int)]
    pale = 0.12 + 0.8 * depth
    image = np.where(shown[..., None], colour * (1 - pale) + pale, 1.0)
    edges = [edge * scale for edge in density.edges]
    ax.imshow(
        image.transpose(1, 0, 2), origin="lower", aspect="auto", interpolation="nearest",
        extent=(edges[0][0], edges[0][-1], edges[1][0], edges[1][-1]),
    )  # fmt: skip
    centres = [centre * scale for centre in density.centres]
    lines = np.ma.masked_where(~shown, free_energy).T
    drawn = ax.contour(*centres, lines, levels=np.arange(5, HIGHEST, 5), colors=EXACT,
                       linewidths=0.7, alpha=0.6)  # fmt: skip
    texts = ax.clabel(drawn, levels=[10, 20, 30], fmt="%g", fontsize=8)
    for text in texts or ():
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _percent(p: float, error: float) -> str:
    """Per cent with two digits of the error."""
    if error <= 0:
        return f"{100 * p:.3g} %"
    digits = int(np.clip(1 - np.floor(np.log10(float(f"{100 * error:.1e}"))), 0, 5))
    return f"{100 * p:.{digits}f} ± {100 * error:.{digits}f} %"
