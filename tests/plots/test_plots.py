"""Every figure: draws on the axes it is given, names its quantities with units, leaves pyplot be.

Cannot detect: whether a picture is any good to look at.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from gencg import plots
from gencg.analysis import free_energy_surface
from gencg.plots.overview import exact_marginal
from gencg.plots.style import new_figure, style, symbol
from gencg.plots.training import running_median
from gencg.systems import butane, double_well
from gencg.units import inverse_temperature

RNG = np.random.default_rng(0)
N = 3000
ANGLES = RNG.vonmises([-1.5, 2.5], [2.0, 3.0], (N, 2))
LOG_WEIGHTS = np.where(RNG.random(N) < 0.01, -np.inf, RNG.normal(0, 0.5, N))
ENERGY = RNG.gamma(20, 3, N)
HISTORY = [
    SimpleNamespace(
        energy_calls=512 * k,
        loss=5 + 100 / (k + 1),
        ess=k / 60,
        temperature=300 * 4 ** (1 - k / 60),
    )
    for k in range(60)
]
SHARES = {"alpha_L": (0.01, 0.002), "beta": (0.99, 0.002), "left": (0.0, 0.0)}


def surface(dim: int) -> object:
    return free_energy_surface(ANGLES[:, :dim], LOG_WEIGHTS, temperature=300.0, bins=12)


FIGURES: dict[str, tuple[Callable[..., Axes], str, str]] = {
    "Ramachandran map": (
        lambda **k: plots.plot_ramachandran(ANGLES, LOG_WEIGHTS, **k), "phi", "psi",
    ),
    "free energy": (lambda **k: plots.plot_free_energy(surface(2), **k), "(deg)", "(deg)"),
    "its error": (lambda **k: plots.plot_free_energy_error(surface(2), **k), "(deg)", "(deg)"),
    "profile": (
        lambda **k: plots.plot_free_energy_profile(surface(1), exact=([0, 1], [0, 1]), **k),
        "(deg)", "free energy (kJ/mol)",
    ),
    "profile of a length": (
        lambda **k: plots.plot_free_energy_profile(surface(1), label="r (nm)", angles=False, **k),
        "r (nm)", "free energy (kJ/mol)",
    ),
    "energies": (
        lambda **k: plots.plot_energy_histogram(ENERGY, LOG_WEIGHTS, **k), "(kJ/mol)", "(mol/kJ)",
    ),
    "weights": (lambda **k: plots.plot_weights(LOG_WEIGHTS, **k), "weight", "share"),
    "loss": (lambda **k: plots.plot_loss(HISTORY, bound=4.0, **k), "energy calls", "loss"),
    "ESS": (lambda **k: plots.plot_ess(HISTORY, **k), "energy calls", "effective sample size"),
    "temperature": (lambda **k: plots.plot_temperature(HISTORY, **k), "energy calls", "(K)"),
    "populations": (
        lambda **k: plots.plot_populations(SHARES, SHARES, exact={"beta": 0.98}, **k),
        "", "population (%)",
    ),
    "density": (
        lambda **k: plots.plot_density(ANGLES[:, 0], LOG_WEIGHTS, exact=([0, 1], [1, 1]), **k),
        "x_1", "density",
    ),
    "density on the circle": (
        lambda **k: plots.plot_density(ANGLES[:, 0], LOG_WEIGHTS, angles=True, label="t", **k),
        "t (deg)", "(deg$^{-1}$)",
    ),
    "density map": (
        lambda **k: plots.plot_density_map(ANGLES, LOG_WEIGHTS, energy=lambda x: x[:, 0], **k),
        "x_1", "x_2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(name: str) -> None:
    draw, x_label, y_label = FIGURES[name]
    before = dict(matplotlib.rcParams)

    # It draws on the axes it is given, and makes its own where there are none
    figure, (ax,) = new_figure()
    assert draw(ax=ax) is ax
    assert ax.has_data()
    assert draw().figure is not figure

    # Quantities and units are on the axes
    assert x_label in ax.get_xlabel()
    assert y_label in ax.get_ylabel()

    # Text fits: drawing warns otherwise, and warnings are errors
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not _pyplot_figures()


def _pyplot_figures() -> list[int]:
    from matplotlib import pyplot

    return pyplot.get_fignums()


@pytest.mark.parametrize("name", [k for k in FIGURES if "map" in k or k == "free energy"])
def test_maps_survive_colour_blindness(name: str) -> None:
    ax = FIGURES[name][0]()
    (mesh,) = [item for item in ax.collections if isinstance(item, QuadMesh)]
    assert mesh.get_cmap().name in ("viridis", "cividis")


def test_a_map_has_the_first_coordinate_along_x() -> None:
    point = np.array([[1.0, -2.0]] * 5)
    ax = plots.plot_ramachandran(point, bins=36)
    (mesh,) = ax.collections
    row, column = np.argwhere(~np.ma.getmaskarray(mesh.get_array()).reshape(36, 36))[0]
    assert column == int((np.degrees(1.0) + 180) / 10)
    assert row == int((np.degrees(-2.0) + 180) / 10)


def test_labels_of_bars_turn_where_a_line_of_them_is_long() -> None:
    def turned(*names: str) -> bool:
        bars = dict.fromkeys(names, (0.5, 0.01))
        return any(t.get_rotation() for t in plots.plot_populations(bars, bars).get_xticklabels())

    assert not turned()
    # Two lines of twelve letters each
    assert not turned("abcdefghijkl mnopqrstuvwx")
    assert turned("abcdefghijklm")


def test_the_style_ends_with_its_block() -> None:
    before = matplotlib.rcParams["font.size"]
    with style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert matplotlib.rcParams["font.size"] == before


def test_names_become_symbols() -> None:
    assert symbol("phi(ALA2)") == r"$\phi$ ALA2"
    assert symbol("phi(ALA2)", plain=True) == r"$\phi$"
    assert symbol("ALA2 alpha_L") == r"ALA2 $\alpha_L$"
    assert symbol("torsion 1-2") == "torsion 1-2"


LONG = ("torsion(MOL1-H1, MOL1-O1, MOL1-C1, MOL1-C2)", "torsion(ALA1-C, ALA2-N, ALA2-CA, ALA2-C)")


def test_long_names_stay_legible() -> None:
    assert symbol(f"{LONG[0]} gauche+") == "H1–O1–C1–C2 gauche+"
    with style():
        left = plots.plot_ramachandran(np.zeros((1, 2)), labels=LONG)
        bars = {f"{name} {state}": (0.5, 0.01) for name in LONG for state in ("trans", "gauche+")}
        right = plots.plot_populations(bars, bars)
        left.figure.draw_without_rendering()
        right.figure.draw_without_rendering()
    # Axis labels stay beside their axes, labels of bars beside each other
    box = left.get_window_extent()
    for label, side in ((left.xaxis.label, "width"), (left.yaxis.label, "height")):
        assert getattr(label.get_window_extent(), side) < 1.05 * getattr(box, side)
    boxes = [label.get_window_extent() for label in right.get_xticklabels()]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


@pytest.mark.parametrize("rising", [False, True])
def test_the_bound_of_the_loss_does_not_hide_its_legend(rising: bool) -> None:
    steps = [SimpleNamespace(energy_calls=k, loss=k if rising else -k) for k in range(50)]
    bound = 51.0 if rising else -51.0
    ax = plots.plot_loss(steps, bound=bound)
    ax.figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert not box.y0 < ax.transData.transform((0, bound))[1] < box.y1


@pytest.mark.parametrize("build", [double_well, butane])
def test_the_exact_marginal_of_a_toy_is_normalised(build) -> None:
    system = build()
    values = np.random.default_rng(0).uniform(-5, 5, 1000)
    x, p = exact_marginal(system, values, system.temperature)
    assert np.trapezoid(p, x) == pytest.approx(1.0, abs=4e-3)
    # Its log ratios along the first coordinate are those of the energy
    u = [float(system.energy.energy(_point(system, v))) for v in x[[150, 220]]]
    beta = inverse_temperature(system.temperature)
    assert np.log(p[150] / p[220]) == pytest.approx(-beta * (u[0] - u[1]), abs=1e-6)


def _point(system, value):
    import torch

    return torch.tensor([[value] + [0.0] * (system.coordinates.dim - 1)])


def test_a_running_median_follows_a_step_and_drops_a_spike() -> None:
    values = np.r_[np.zeros(40), 50.0, np.zeros(40), np.ones(80)]
    smooth = running_median(values)
    assert len(smooth) == len(values)
    assert smooth.max() == 1.0
    assert smooth[:60].max() == 0.0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="`history` must hold at least one log line"):
        plots.plot_loss([])
    with pytest.raises(ValueError, match="`log_weights` must hold a finite weight"):
        plots.plot_weights(np.full(3, -np.inf))
    with pytest.raises(ValueError, match="`surface` must be over two coordinates, got 1"):
        plots.plot_free_energy(surface(1))
