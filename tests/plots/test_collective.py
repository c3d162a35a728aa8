"""Figures of collective variables: what is hollow, marked, masked, numbered.

Cannot detect: whether a picture is any good to look at.
"""

import numpy as np
import pytest
import torch
from cv_samples import made_up_cvs, made_up_ensemble
from matplotlib.collections import QuadMesh

from gencg import plots
from gencg.analysis import find_basins, free_energy_surface, slow_function_maps
from gencg.analysis.collective import torsions_beside
from gencg.plots.collective import cv_symbol
from gencg.plots.cv_overview import cv_panels
from gencg.plots.style import new_figure
from gencg.systems import alanine_dipeptide, double_well

VALUES = np.array([0.2, 0.5, 4.0, 9.0])
ERRORS = np.array([0.02, 0.05, 0.3, np.nan])
SHARES = np.array([0.35, 0.0002, 0.002, 0.2])
NAMES = ("phi(ALA2)", "psi(ALA2)")


@pytest.fixture(scope="module")
def dipeptide():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    system = alanine_dipeptide()
    ensemble = made_up_ensemble(system)
    return system, ensemble, made_up_cvs(system, ensemble)


def test_the_spectrum_marks_gap_and_rare_processes() -> None:
    figure, (ax,) = new_figure()
    assert plots.plot_spectrum(VALUES, ERRORS, SHARES, n_processes=2, ax=ax) is ax
    figure.canvas.draw()
    assert ax.get_yscale() == "log"
    assert "nm" in ax.get_ylabel()

    # The rare process does not count: the two slow ones are 1 and 3, the gap follows these
    texts = {text.get_text() for text in ax.texts}
    assert texts == {"gap: × 2.2", "0.02 %"}
    assert len(ax.get_legend().get_texts()) == 3
    points = {tuple(line.get_xdata()): line for line in ax.lines if line.get_marker() == "o"}
    assert set(points) == {(1, 3), (4,), (2,)}
    assert points[(2,)].get_markerfacecolor() == "white"


def test_a_product_between_slow_processes_is_none_of_them() -> None:
    ax = plots.plot_spectrum(VALUES, ERRORS, [0.5] * 4, n_processes=2, processes=[0, 2])
    points = {tuple(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"}
    assert points == {(1, 3), (2, 4)}
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["slow process", "faster, or a product"]
    assert not any("gap" in text.get_text() for text in ax.texts)
    # The same as the lowest two where nothing lies between
    ax = plots.plot_spectrum(VALUES, ERRORS, [0.5] * 4, n_processes=2, processes=[0, 1])
    assert any("gap" in text.get_text() for text in ax.texts)


def test_a_spectrum_without_gap_or_with_a_zero_is_drawn() -> None:
    near = plots.plot_spectrum([1.0, 1.1], [0.1, 0.1], [0.5, 0.1], n_processes=1)
    assert not any("gap" in text.get_text() for text in near.texts)
    ax = plots.plot_spectrum([1.0, -1e-14], [0.1, 0.1], [0.5, 0.1], n_processes=2, unit="")
    assert not ax.texts
    assert ax.get_ylabel() == r"eigenvalue $\lambda$"
    with pytest.raises(ValueError, match="`eigenvalues` must hold a positive value"):
        plots.plot_spectrum([], [], [], n_processes=1)


def test_basins_are_numbered_where_they_are(dipeptide) -> None:
    _, ensemble, _ = dipeptide
    basins = find_basins(ensemble.z, ensemble.log_weights, periodic=True)
    surface = free_energy_surface(ensemble.z, ensemble.log_weights, temperature=300.0, bins=24)
    ax = plots.plot_cv_surface(surface, names=NAMES, angles=True, basins=basins)
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3", "4"]
    for text, basin in zip(ax.texts, basins, strict=True):
        assert text.xy == pytest.approx(np.degrees(basin.centre))
    assert ax.get_xlabel() == r"$\phi$ ALA2 (deg)"

    profile = free_energy_surface(
        ensemble.z[:, 0], ensemble.log_weights, temperature=300.0, bins=40
    )
    line = find_basins(ensemble.z[:, :1], ensemble.log_weights, periodic=True)
    ax = plots.plot_cv_surface(profile, names=NAMES[:1], angles=True, basins=line)
    assert len(ax.texts) == len(line) == 3


def test_slow_functions_are_shown_where_there_is_probability(dipeptide) -> None:
    _, ensemble, slow = dipeptide
    maps = slow_function_maps(
        slow, ensemble.z, ensemble.log_weights, temperature=300.0, bins=24, highest=15.0
    )
    assert maps.values.shape == (2, 24, 24)
    hidden = np.isnan(maps.values[0])
    assert 0.1 < hidden.mean() < 0.9
    assert not np.isfinite(maps.values[:, maps.free_energy > 15.0]).any()

    # Nor far from every sample, whatever the smoothed free energy says
    z = torch.cat([0.1 * torch.randn(50, 2), torch.zeros(50, 2) + 2.0])
    few = slow_function_maps(slow, z, temperature=300.0, highest=1e3)
    shown = np.stack(np.meshgrid(*few.centres, indexing="ij"), -1)[np.isfinite(few.values[0])]
    offset = (shown[:, None] - z.numpy() + np.pi) % (2 * np.pi) - np.pi
    nearest = np.linalg.norm(offset, axis=-1).min(1)
    assert len(shown) > 30
    assert nearest.max() < 1.5

    # The values are the functions' own
    points = np.stack(np.meshgrid(*maps.centres, indexing="ij"), -1)[~hidden]
    expected = slow.functions.of_cvs(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(maps.values[:, ~hidden].T, expected)

    figure, (ax,) = new_figure()
    assert plots.plot_slow_function(maps, 0, names=NAMES, angles=True, ax=ax) is ax
    figure.canvas.draw()
    (mesh,) = [item for item in ax.collections if isinstance(item, QuadMesh)]
    assert mesh.norm.vmin == -mesh.norm.vmax  # zero in the middle of a diverging scale
    assert mesh.get_cmap().name == "RdBu_r"


def test_of_three_variables_the_average_over_the_third_is_shown(dipeptide) -> None:
    system, ensemble, slow = dipeptide
    maps = slow_function_maps(slow, ensemble.z, ensemble.log_weights, temperature=300.0)
    three = made_up_ensemble(system, n_cvs=3)
    names = (*NAMES, "rotor(ACE1-CH3)")
    averaged = slow_function_maps(
        made_up_cvs(system, three, names=names), three.z, three.log_weights, temperature=300.0
    )
    # Over the wells both agree up to the sign: the third variable has nothing to say
    wells = (maps.free_energy < 8.0) & (averaged.free_energy < 8.0)
    one, other = maps.values[0][wells], averaged.values[0][wells]
    assert abs(np.corrcoef(one, other)[0, 1]) > 0.98


def test_one_slow_function_of_one_variable_is_a_curve(dipeptide) -> None:
    system, _, _ = dipeptide
    ensemble = made_up_ensemble(system, n_cvs=1)
    slow = made_up_cvs(system, ensemble, names=NAMES[:1])
    maps = slow_function_maps(slow, ensemble.z, ensemble.log_weights, temperature=300.0)
    ax = plots.plot_slow_function(maps, 1, names=NAMES[:1], angles=True)
    assert ax.get_ylabel() == "slow function $g_{2}$"
    assert not ax.collections


def test_a_variable_against_a_torsion_has_the_torsion_along_x() -> None:
    z, torsion = np.full(9, -2.0), np.full(9, 1.0)
    ax = plots.plot_cv_against_torsion(z, torsion, names=("1 a +1 b", "phi(A)"), bins=36)
    (mesh,) = [item for item in ax.collections if isinstance(item, QuadMesh)]
    filled = np.argwhere(~np.ma.getmaskarray(mesh.get_array()).reshape(36, 36))
    assert filled.tolist() == [[int((np.degrees(-2.0) + 180) / 10), 23]]
    assert ax.get_xlabel() == r"$\phi$ A (deg)"
    assert ax.get_ylabel() == "a + b (deg)"

    line = np.random.default_rng(0).normal(size=(2, 500))
    ax = plots.plot_cv_against_torsion(*line, names=("u", "x1"), angles=(False, False))
    assert ax.get_xlabel() == "$x_1$"


def test_the_bound_gap_by_number_of_samples() -> None:
    figure, (ax,) = new_figure()
    plots.plot_bound_gap({1: 0.1, 4: 0.05}, lower=0.04, upper=0.05, error=0.002, ax=ax)
    figure.canvas.draw()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "4"]
    assert "kT" in ax.get_ylabel()


def test_torsions_that_are_variables_or_rotors_are_left_out(dipeptide) -> None:
    system, ensemble, _ = dipeptide
    assert torsions_beside(system, ensemble, NAMES)[0].labels == ()
    assert torsions_beside(system, ensemble, ("psi(ALA2)",))[0].labels == ("phi(ALA2)",)
    torsions, angles = torsions_beside(system, ensemble, ("1 phi(ALA2) +1 psi(ALA2)",))
    assert torsions.labels == NAMES
    assert angles == (True, True)
    # phi from the positions is the coordinate itself
    index = system.coordinates.names.index("phi(ALA2)")
    offset = torsions["phi(ALA2)"] - ensemble.y[:, index].numpy()
    assert np.abs((offset + np.pi) % (2 * np.pi) - np.pi).max() < 1e-6


def test_a_toy_is_held_against_its_coordinates() -> None:
    system = double_well()
    y = torch.randn(50, 2)

    class Samples:
        n_samples, molecule, x = 50, None, y

    samples = Samples()
    samples.y = y
    torsions, angles = torsions_beside(system, samples, ("0.9 x1 +0.2 x2",))
    assert torsions.labels == ("x1", "x2")
    assert angles == (False, False)


def test_the_panels_come_one_by_one(dipeptide) -> None:
    system, ensemble, slow = dipeptide
    panels = list(cv_panels(system, ensemble, slow))
    assert [p.name for p in panels] == ["cv_free_energy", "slow_functions", "cv_spectrum"]
    for panel in panels:
        assert panel.caption.endswith(".")


def test_names_of_variables_become_symbols() -> None:
    assert cv_symbol("1 phi(ALA2) -1 psi(ALA2)") == r"$\phi$ ALA2 − $\psi$ ALA2"
    assert cv_symbol("0.95 x1 +0.3 x2") == "0.95 $x_1$ + 0.3 $x_2$"
