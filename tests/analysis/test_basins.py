"""Basins of weighted samples: known wells, known shares, on the torus and on the line.

Cannot detect: whether a basin is a state a chemist would name.
"""

import math

import numpy as np
import pytest

from gencg.analysis.basins import find_basins
from gencg.analysis.cv_names import cv_label, cv_terms, is_coordinate
from gencg.analysis.smooth_density import smooth_density

# A dipeptide's four basins, one of them across the seam and one rare
CENTRES = np.radians([[-150, 170], [-70, 145], [-75, -20], [55, 45]])
SHARES = np.array([0.45, 0.2, 0.348, 0.002])
WIDTHS = np.radians([[14, 14], [10, 12], [12, 14], [10, 12]])


def torus_samples(n: int = 40_000, *, flattening: float = 0.3) -> tuple[np.ndarray, ...]:
    """Samples of a flattened mixture of wrapped normals, with weights that restore it."""
    rng = np.random.default_rng(1)
    q = SHARES**flattening / (SHARES**flattening).sum()
    component = rng.choice(len(q), size=n, p=q)
    z = CENTRES[component] + WIDTHS[component] * rng.normal(size=(n, 2))
    z = (z + np.pi) % (2 * np.pi) - np.pi
    return z, np.log(SHARES / q)[component], component


def distance(a: object, b: object) -> float:
    offset = (np.asarray(a) - np.asarray(b) + np.pi) % (2 * np.pi) - np.pi
    return float(np.degrees(np.abs(offset).max()))


def test_wells_of_a_torus_are_found_with_their_shares() -> None:
    z, log_weights, component = torus_samples()
    basins = find_basins(z, log_weights, periodic=True)

    assert len(basins) == 4
    order = np.argsort(-SHARES)
    for basin, k in zip(basins, order, strict=True):
        # The wells overlap a little: 1 % of a neighbour may lie across the pass
        assert abs(basin.population - SHARES[k]) < 4 * basin.error + 0.01 * SHARES[k] + 1e-4
        assert distance(basin.centre, CENTRES[k]) < 3
        assert np.mean(component[basin.mask] == k) > 0.97
        assert basin.mask[basin.representative]
        assert distance(z[basin.representative], CENTRES[k]) < 5

    # Every sample is in exactly one basin
    assert np.array_equal(np.sum([b.mask for b in basins], 0), np.ones(len(z)))
    assert math.isclose(sum(b.population for b in basins), 1.0)


def test_errors_are_the_spread_over_independent_samples() -> None:
    z, log_weights, _ = torus_samples()
    parts = np.arange(len(z)).reshape(20, -1)
    found = [find_basins(z[p], log_weights[p], periodic=True) for p in parts]
    values = np.array([f[0].population for f in found])
    expected = np.mean([f[0].error for f in found])
    # 19 degrees of freedom: the ratio of spreads leaves (0.6, 1.5) once in 300 draws
    assert 0.55 < values.std(ddof=1) / expected < 1.55


def test_a_turn_of_the_torus_turns_the_basins() -> None:
    z, log_weights, _ = torus_samples(20_000)
    shift = np.radians([35.0, -80.0])  # whole cells
    here = find_basins(z, log_weights, periodic=True)
    there = find_basins(z + shift, log_weights, periodic=True)
    for a, b in zip(here, there, strict=True):
        assert math.isclose(a.population, b.population, abs_tol=1e-9)
        assert distance(np.add(a.centre, shift), b.centre) < 1e-6


def test_samples_without_weight_do_not_matter() -> None:
    z, log_weights, _ = torus_samples(5000)
    before = find_basins(z, log_weights, periodic=True)
    junk = np.full((300, 2), np.nan)
    after = find_basins(
        np.concatenate([z, junk]), np.append(log_weights, np.full(300, -np.inf)), periodic=True
    )
    assert [b.population for b in after] == pytest.approx([b.population for b in before])
    assert not any(b.mask[5000:].any() for b in after)


@pytest.mark.parametrize("share, n_basins", [(0.0006, 1), (0.003, 2)])
def test_a_basin_below_the_smallest_population_joins_its_neighbour(share, n_basins) -> None:
    rng = np.random.default_rng(2)
    rare = np.arange(20_000) < 4000
    z = np.where(rare, 1.0, -1.5)[:, None] + 0.2 * rng.normal(size=(20_000, 1))
    log_weights = np.log(np.where(rare, share / 0.2, (1 - share) / 0.8))
    basins = find_basins(z, log_weights, periodic=True)
    assert len(basins) == n_basins


def test_small_basins_that_join_have_the_centre_of_the_deeper_one() -> None:
    rng = np.random.default_rng(6)
    which = rng.choice(3, size=20_000, p=[0.8, 0.1, 0.1])
    z = np.array([-2.0, 0.6, 1.8])[which][:, None]
    z = z + np.array([0.25, 0.25, 0.08])[which][:, None] * rng.normal(size=z.shape)
    log_weights = np.log(np.array([0.9985 / 0.8, 8e-3, 7e-3])[which])
    basins = find_basins(z, log_weights, periodic=True)
    assert len(basins) == 2
    assert basins[1].population == pytest.approx(0.0015, rel=0.1)
    # The rarer well is the narrower one, and the denser
    assert basins[1].centre[0] == pytest.approx(1.8, abs=0.05)


def test_shallow_wells_are_one_basin_on_the_line() -> None:
    rng = np.random.default_rng(3)
    side = rng.random(30_000) < 0.3
    # Two normals of width 1: two maxima from a distance of 2 on, 1 kT deep from about 3.3 on
    for separation, n_basins in ((2.4, 1), (6.0, 2)):
        z = side[:, None] * separation + rng.normal(size=(30_000, 1))
        assert len(find_basins(z, periodic=False)) == n_basins

    deep = find_basins(z, periodic=False)
    assert deep[1].population == pytest.approx(0.3, abs=0.012)
    assert deep[0].centre[0] == pytest.approx(0.0, abs=0.1)
    assert deep[1].centre[0] == pytest.approx(6.0, abs=0.1)
    assert abs(z[deep[1].representative, 0] - 6.0) < 0.15


def test_the_third_variable_has_a_centre_too() -> None:
    z, log_weights, component = torus_samples(8000)
    third = 3.0 + 0.3 * np.random.default_rng(4).normal(size=8000) - (component == 0)
    basins = find_basins(np.column_stack([z, third]), log_weights, periodic=True)
    assert len(basins) == 4
    assert distance(basins[0].centre[2], 2.0) < 3
    assert distance(basins[1].centre[2], 3.0) < 3


def test_a_light_sample_does_not_represent_a_basin() -> None:
    rng = np.random.default_rng(5)
    z = 0.5 + 0.2 * rng.normal(size=(2000, 1))
    log_weights = np.zeros(2000)
    z[7], log_weights[7] = 0.5, -6.0
    (basin,) = find_basins(z, log_weights, periodic=True)
    assert basin.representative != 7


def test_what_is_no_set_of_variables_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`z` must have shape \(n, n_cvs\)"):
        find_basins(np.zeros((5, 0)), periodic=True)
    with pytest.raises(ValueError, match="`z` must be finite for every sample with weight"):
        find_basins(np.full((5, 1), np.nan), periodic=True)


def test_smoothing_keeps_the_weight_and_leaves_no_cell_empty() -> None:
    z, log_weights, _ = torus_samples(500)
    for periodic in (True, False):
        density = smooth_density(z, log_weights, periodic=periodic)
        assert density.probabilities.shape == (72, 72)
        assert density.probabilities.sum() == pytest.approx(1.0)
        assert density.probabilities.min() > 0
        assert density.reduced_free_energy.min() == 0


@pytest.mark.parametrize(
    "name, terms, label",
    [
        ("phi(ALA2)", ((1.0, "phi(ALA2)"),), "phi(ALA2)"),
        ("-1 x1", ((-1.0, "x1"),), "−x1"),
        (
            "1 phi(ALA2) -1 psi(ALA2)",
            ((1.0, "phi(ALA2)"), (-1.0, "psi(ALA2)")),
            "phi(ALA2) − psi(ALA2)",
        ),
        ("0.95 x1 +0.3 x2", ((0.95, "x1"), (0.3, "x2")), "0.95 x1 + 0.3 x2"),
        ("5.2e-05 x1 +1 x2", ((5.2e-5, "x1"), (1.0, "x2")), "5.2e-05 x1 + x2"),
    ],
)
def test_names_of_variables(name, terms, label) -> None:
    assert cv_terms(name) == terms
    assert cv_label(name) == label
    assert is_coordinate(name, terms[0][1]) == (len(terms) == 1)
