"""Weighted histograms and free energies against densities known in closed form.

Cannot detect: a bias of the weights themselves; they are taken as given.
"""

import numpy as np
import pytest
import torch

from gencg.analysis import free_energy_surface, weighted_histogram
from gencg.analysis.histogram import normalised_weights, wrap
from gencg.units import BOLTZMANN_CONSTANT

TEMPERATURE = 300.0
KT = BOLTZMANN_CONSTANT * TEMPERATURE


def von_mises(n: int, seed: int, kappa: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Uniform angles with log weights that make them von Mises distributed."""
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, n)
    return angles, kappa * np.cos(angles)


def test_without_weights_it_is_a_histogram() -> None:
    x = np.random.default_rng(0).uniform(-np.pi, np.pi, (1000, 2))
    ours = weighted_histogram(x, bins=7)
    edges = np.linspace(-np.pi, np.pi, 8)
    np.testing.assert_allclose(
        ours.probabilities, np.histogram2d(*x.T, [edges, edges])[0] / 1000, atol=1e-15
    )
    np.testing.assert_allclose(ours.probabilities.sum(), 1.0)
    np.testing.assert_allclose(ours.n_effective, 1000 * ours.probabilities, atol=1e-9)


def test_angles_live_on_the_circle() -> None:
    x = np.random.default_rng(1).uniform(-np.pi, np.pi, 500)
    here, turned = weighted_histogram(x, bins=9), weighted_histogram(x + 4 * np.pi, bins=9)
    np.testing.assert_allclose(here.probabilities, turned.probabilities, atol=1e-2)
    assert wrap(np.pi) == -np.pi


def test_errors_are_the_spread_over_repetitions() -> None:
    """200 repetitions know a standard deviation to 5 %; 4 standard errors are allowed."""
    runs = [weighted_histogram(*von_mises(500, seed), bins=8) for seed in range(200)]
    spread = np.std([run.probabilities for run in runs], axis=0)
    stated = np.mean([run.errors for run in runs], axis=0)
    np.testing.assert_allclose(stated, spread, rtol=0.2)


def test_a_sample_that_is_not_finite_or_outside_lies_in_no_cell() -> None:
    x = np.array([0.1, np.nan, 5.0, 0.9])
    assert weighted_histogram(x, bins=2, ranges=[(0, 1)]).probabilities.sum() == 0.5
    angles = np.array([0.1, np.nan, np.inf, 0.9])
    assert weighted_histogram(angles, bins=2).probabilities.sum() == 0.5


def test_weights_of_zero_do_not_count() -> None:
    x, log_weights = np.array([0.1, 0.2, 0.8]), torch.tensor([0.0, -np.inf, 0.0])
    histogram = weighted_histogram(x, log_weights, bins=2, ranges=[(0, 1)])
    np.testing.assert_allclose(histogram.probabilities, [0.5, 0.5])


def test_the_free_energy_of_a_known_density() -> None:
    """Cells within 4.5 standard errors of the exact values, errors neither too large nor small."""
    n_bins = 24
    angles, log_weights = von_mises(40_000, 3)
    surface = free_energy_surface(angles, log_weights, temperature=TEMPERATURE, bins=n_bins)
    fine = np.linspace(-np.pi, np.pi, 100 * n_bins + 1)
    p = np.exp(1.5 * np.cos((fine[1:] + fine[:-1]) / 2)).reshape(n_bins, -1).sum(1)
    exact = -KT * np.log(p / p.sum())
    ours = surface.values + (exact.mean() - surface.values.mean())
    z = (ours - exact) / surface.errors
    assert np.abs(z).max() < 4.5
    assert 0.6 < z.std() < 1.4
    assert np.nanmin(surface.values) == 0.0
    assert abs(surface.minimum[0]) < 2 * np.pi / n_bins * 1.5


def test_cells_without_enough_samples_are_masked() -> None:
    x = np.concatenate([np.full(50, 0.1), [0.6, 0.6]])
    surface = free_energy_surface(x, temperature=300.0, bins=2, ranges=[(0, 1)])
    assert np.isfinite(surface.values[0])
    assert np.isnan(surface.values[1])
    assert np.isnan(surface.errors[1])
    # One heavy sample among light ones is one sample
    heavy = np.concatenate([np.zeros(50), [30.0, 0.0]])
    with pytest.raises(ValueError, match="draw more samples"):
        free_energy_surface(np.full(52, 0.1), heavy, temperature=300.0, bins=2, ranges=[(0, 1)])


def test_in_two_dimensions_independent_coordinates_add_up() -> None:
    x = np.stack([von_mises(50_000, seed)[0] for seed in (5, 6)], 1)
    log_weights = np.cos(x[:, 0]) + 0.5 * np.cos(x[:, 1])
    both = free_energy_surface(x, log_weights, temperature=300.0, bins=6)
    one = [free_energy_surface(x[:, k], log_weights, temperature=300.0, bins=6) for k in range(2)]
    difference = both.values - (one[0].values[:, None] + one[1].values[None])
    assert np.abs(difference - difference.mean()).max() < 5 * both.errors.max()


@pytest.mark.parametrize(
    "values, options, match",
    [
        (np.zeros((5, 3)), {}, r"`values` must have shape"),
        (np.zeros(0), {}, r"`values` must have shape"),
        (np.zeros(5), {"bins": 0}, "`bins` must be positive, got 0"),
        (np.zeros(5), {"ranges": [(1, 0)]}, "`ranges` must hold 1 pairs"),
        (np.zeros(5), {"log_weights": np.zeros(4)}, r"`log_weights` must have shape \(5,\)"),
        (np.zeros(2), {"log_weights": np.full(2, -np.inf)}, "at least one finite"),
        (np.zeros(2), {"log_weights": np.array([0.0, np.nan])}, "must be finite or -inf"),
    ],
)
def test_refusals(values, options, match) -> None:
    with pytest.raises(ValueError, match=match):
        weighted_histogram(values, **options)


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        free_energy_surface(np.zeros(5), temperature=-1.0)


def test_weights_sum_to_one() -> None:
    assert normalised_weights(np.array([800.0, 900.0]), 2).sum() == 1.0
    np.testing.assert_allclose(normalised_weights(None, 4), 0.25)
