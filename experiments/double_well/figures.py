"""The figures of 2020 for the double well, both ways side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, new_figure, style
from gencg.units import temperature_of

Array = NDArray[np.float64]
Curves = Mapping[tuple[str, int], Mapping[str, Any]]
"""Curves by method and seed, as `paper.one` returns them."""
COLOURS = {"gaussian decoder": RAW, "gencg": REWEIGHTED}
LABELS = {"gaussian decoder": "2020: Gaussian decoder", "gencg": "gencg"}
DPI = 80


def draw_all(curves: Curves, x1: Array, folder: Path) -> None:
    """Write ``double-well-tempering.png``, ``-divergences.png`` and ``-latent.png``.

    Args:
        curves: Of every method and seed.
        x1: Grid of the densities before every second point was taken, ``(n,)``.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        _tempering(curves, x1[::2], folder / "double-well-tempering.png")
        _divergences(curves, folder / "double-well-divergences.png")
        _latent(curves, x1, folder / "double-well-latent.png")


def _seeds(curves: Curves, method: str) -> list[Mapping[str, Any]]:
    return [found for (name, _), found in sorted(curves.items()) if name == method]


def _tempering(curves: Curves, x1: Array, path: Path) -> None:
    """Densities of x1 along the ladder, of the first seed, beside the exact ones."""
    figure, axes = new_figure(4, 2, width=3.4, height=2.7)
    for row, method in enumerate(LABELS):
        densities = _seeds(curves, method)[0]["densities"]
        chosen = _spread([one["beta"] for one in densities], 4)
        for ax, k in zip(axes[4 * row : 4 * row + 4], chosen, strict=True):
            one = densities[k]
            ax.plot(x1, np.maximum(one["exact"], 1e-9), color=EXACT, ls="--", label="exact")
            ax.plot(x1, np.maximum(one["model"], 1e-9), color=COLOURS[method], label=LABELS[method])
            ax.set_yscale("log")
            ax.set_ylim(1e-5, 2)
            ax.set_xlim(-6, 6)
            ax.set_title(f"{temperature_of(one['beta']):.0f} K", fontsize=11)
            ax.set_xlabel("$x_1$")
        axes[4 * row].set_ylabel("density of $x_1$")
        axes[4 * row].legend(fontsize=9, loc="lower center")
    figure.savefig(path, dpi=DPI)


def _spread(betas: Sequence[float], n: int) -> list[int]:
    """Places of `n` temperatures about evenly apart on a logarithmic scale, the last the end."""
    heights = np.log(betas)
    wanted = np.linspace(heights[0], heights[-1], n)
    places = [int(np.abs(heights - height).argmin()) for height in wanted[:-1]]
    return [*places, len(betas) - 1]


def _divergences(curves: Curves, path: Path) -> None:
    """Both divergences and the right well against energy calls, all seeds."""
    figure, axes = new_figure(3, width=4.4, height=3.5)
    titles = (
        ("reverse", "KL(q | p) at the ladder's temperature"),
        ("forward", "KL(p | q) at the ladder's temperature"),
        ("right", "mass of the right well"),
    )
    for ax, (name, title) in zip(axes, titles, strict=True):
        for method, colour in COLOURS.items():
            for k, found in enumerate(_seeds(curves, method)):
                curve = found["curves"]
                ax.plot(
                    np.array(curve["calls"]) / 1e3,
                    np.maximum(curve[name], 1e-7),
                    color=colour,
                    lw=1.2,
                    label=LABELS[method] if k == 0 else None,
                )
                if name == "right" and k == 0:
                    calls = np.array(curve["calls"]) / 1e3
                    ax.plot(calls, curve["right_exact"], color=colour, ls=":", lw=1.5)
        ax.set_yscale("log")
        ax.set_xlabel("energy calls (thousands)")
        ax.set_title(title)
    axes[2].plot([], [], color=EXACT, ls=":", label="exact, same ladder")
    axes[0].legend(fontsize=9)
    axes[2].legend(fontsize=9)
    figure.savefig(path, dpi=DPI)


def _latent(curves: Curves, x1: Array, path: Path) -> None:
    """What the variable is as a function of x1, and what the decoder of 2020 makes of z."""
    figure, axes = new_figure(3, width=4.4, height=3.5)
    inside = np.abs(x1) < 4.5
    for k, found in enumerate(_seeds(curves, "gaussian decoder")):
        axes[0].plot(x1[inside], np.array(found["latent"])[inside], color=RAW, lw=1.3)
        z, x, width = (np.array(found[name]) for name in ("z", "x1_of_z", "width_of_z"))
        axes[1].plot(z, x, color=RAW, lw=1.3, label="mean" if k == 0 else None)
        if k == 0:
            axes[1].fill_between(z, x - width, x + width, color=RAW, alpha=0.2, label="width")
    for k, found in enumerate(_seeds(curves, "gencg")):
        values = np.array(found["latent"])[inside]
        sign = np.sign(values[-1] - values[0])
        labels = ("CV", "slow function of it") if k == 0 else (None, None)
        axes[2].plot(x1[inside], sign * values, color=REWEIGHTED, lw=1.3, label=labels[0])
        g = np.array(found["slow_function"])[inside]
        g = (g - g[0]) / (g[-1] - g[0]) * 4 - 2
        axes[2].plot(x1[inside], g, color=ACCENT, lw=1.3, label=labels[1])
    _named(axes[0], "$x_1$", "mean of $r(z|x)$ at $x_2 = 0$", "2020: encoder")
    _named(axes[1], "$z$", "$x_1$", "2020: decoder, prior N(0, 1)")
    _named(axes[2], "$x_1$", "value (sign and scale chosen)", "gencg: CV found after training")
    axes[1].legend(fontsize=9)
    axes[2].legend(fontsize=9)
    figure.savefig(path, dpi=DPI)


def _named(ax: Axes, x: str, y: str, title: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title)
