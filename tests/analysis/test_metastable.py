"""Metastable states: the corners of a simplex, rare ones too, named by what tells them apart.

Cannot detect: whether slow functions are right; here they are made up or exact.
"""

import math

import numpy as np
import pytest
import torch

from gencg.analysis.exact_slow import ExactSlowFunctions
from gencg.analysis.metastable import CRISP, metastable_states
from gencg.analysis.representatives import circle_features, representative
from gencg.analysis.state_names import basin_names, tell_apart
from gencg.analysis.torsions import Torsions
from gencg.energies.toy import DoubleWell, MuellerBrown
from gencg.units import BOLTZMANN_CONSTANT

SHARES = {
    "one rare": (0.7, 0.298, 0.002),
    "two rare": (0.9, 0.0966, 0.002, 0.0014),
    "all alike": (0.25, 0.25, 0.25, 0.25),
    "seven": (0.4, 0.25, 0.15, 0.1, 0.06, 0.038, 0.002),
}


def slow_samples(
    shares: tuple[float, ...], *, n: int = 20_000, noise: float = 0.05, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slow functions of ideal states, blurred, drawn evenly and weighted: g, log weights, state.

    Orthonormal functions that are constant on every state; 2 % of the samples lie between two
    states and weigh little, and 20 have no weight and wild values.
    """
    rng = np.random.default_rng(seed)
    p, k = np.array(shares), len(shares)
    basis = np.linalg.qr(np.column_stack([np.sqrt(p), rng.normal(size=(k, k - 1))]))[0]
    corners = basis[:, 1:] / np.sqrt(p)[:, None]
    state = rng.integers(k, size=n)
    g = corners[state]
    # Noise as large as costs a function little: more where the state is rare
    g = g + noise * rng.normal(size=g.shape) / np.sqrt(p)[state, None] ** 0.5
    log_w = np.log(p[state])
    between = rng.random(n) < 0.02
    other = rng.integers(k, size=n)
    share = rng.random(n)[:, None]
    g[between] = (share * corners[state] + (1 - share) * corners[other])[between]
    log_w[between] -= 8
    wild = rng.choice(n, 20, replace=False)
    g[wild] *= 40
    log_w[wild] -= 25
    state[between | (log_w < -20)] = -1
    return g, log_w, state


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES.keys())
def test_states_are_found_with_their_populations(shares: tuple[float, ...]) -> None:
    g, log_w, state = slow_samples(shares)
    found = metastable_states(g, log_w)

    assert found.n_states == len(shares)
    # Drawn evenly: the error of a share p is sqrt(p (1 - p) ...) / sqrt(n / k), below 2 %
    assert np.allclose(found.populations, sorted(shares, reverse=True), rtol=0.06)
    order = np.argsort(-np.array(shares), kind="stable")
    inside = state >= 0
    if shares != SHARES["all alike"]:
        assert np.mean(found.labels[inside] == np.argsort(order)[state[inside]]) > 0.995

    # Memberships are a partition of unity
    assert np.allclose(found.memberships.sum(1), 1)
    assert found.memberships.min() >= 0
    assert (found.crispness > 0.9).all()


def test_populations_do_not_depend_on_scale_sign_or_order_of_the_samples() -> None:
    g, log_w, _ = slow_samples(SHARES["one rare"])
    found = metastable_states(g, log_w)
    turn = np.random.default_rng(1).permutation(len(g))
    again = metastable_states(g[turn] * [-1, 1], log_w[turn] + 7.0)
    assert np.allclose(again.populations, found.populations, rtol=1e-10)
    assert np.array_equal(again.labels, found.labels[turn])


def test_errors_of_populations_hold_the_spread_of_the_whole_procedure() -> None:
    from gencg.importance import weighted_average

    values, errors = [], []
    for seed in range(24):
        g, log_w, _ = slow_samples(SHARES["one rare"], n=3000, seed=seed)
        found = metastable_states(g, log_w)
        values.append(found.populations[2])
        mask = torch.from_numpy(found.labels == 2)
        errors.append(float(weighted_average(mask, torch.from_numpy(log_w))[1]))
    # 24 values: the spread is known to 15 %
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.5)


def test_exact_slow_functions_of_the_toys_give_their_own_states() -> None:
    beta = 1 / (BOLTZMANN_CONSTANT * 300)
    well = ExactSlowFunctions(DoubleWell(), 1.0, (-5, -5), (5, 5), n=90, n_functions=1)
    found = metastable_states(well.functions.numpy(), well.weights.log().numpy())
    exact = DoubleWell().populations(1.0)
    assert found.populations[1] == pytest.approx(exact["right"], rel=0.03)

    brown = MuellerBrown()
    slow = ExactSlowFunctions(brown, beta, (-1.8, -0.6), (1.4, 2.2), n=90, n_functions=2)
    found = metastable_states(slow.functions.numpy(), slow.weights.log().numpy())
    exact = brown.populations(beta)
    assert found.n_states == 3
    assert found.populations[:1] == pytest.approx(max(exact.values()), rel=0.05)


def test_fewer_states_on_request_join_what_exchanges_fast() -> None:
    g, log_w, _ = slow_samples((0.6, 0.398, 0.002), noise=0.01)
    two = metastable_states(g, log_w, n_states=2)
    assert two.n_states == 2
    assert two.populations.sum() == pytest.approx(1)


def test_a_process_of_no_states_is_not_crisp() -> None:
    x = np.linspace(0, np.pi, 4000)
    g = math.sqrt(2) * np.cos(x)[:, None]
    assert metastable_states(g).crispness.max() < CRISP


def test_refusals() -> None:
    g, log_w, _ = slow_samples(SHARES["one rare"], n=500)
    with pytest.raises(ValueError, match=r"`functions` must have shape \(n, m\)"):
        metastable_states(g[:, 0], log_w)
    with pytest.raises(ValueError, match="`n_states` must lie between 2 and 3"):
        metastable_states(g, log_w, n_states=5)
    with pytest.raises(ValueError, match="`min_population` must lie in"):
        metastable_states(g, log_w, min_population=0.9)
    with pytest.raises(ValueError, match="do not show 3 states"):
        metastable_states(np.ones((50, 2)), n_states=3)


def test_states_are_named_by_the_fewest_coordinates_that_tell_them_apart() -> None:
    rng = np.random.default_rng(0)
    centres = np.radians([[-110, 150, 60], [-75, -30, 60], [55, 0, 60]])
    state = rng.integers(3, size=6000)
    angles = (centres[state] + 0.2 * rng.normal(size=(6000, 3)) + np.pi) % (2 * np.pi) - np.pi
    labels = ("phi(ALA2)", "psi(ALA2)", "chi1(ALA2)")
    w = np.full(6000, 1 / 6000)
    marks = tell_apart(Torsions(labels, angles), (True,) * 3, state, w, n_states=3)
    assert marks.labels == ("phi(ALA2)", "psi(ALA2)")
    assert marks.names == (
        "phi(ALA2) -110, psi(ALA2) +150",
        "phi(ALA2) -75, psi(ALA2) -30",
        "phi(ALA2) +55, psi(ALA2) 0",
    )
    masks = {"alpha_L": angles[:, 0] > 0, "PPII": (angles[:, 0] < 0) & (angles[:, 1] > 1)}
    assert basin_names(masks, state, w, n_states=3) == ("PPII", "", "alpha_L")

    with pytest.raises(ValueError, match="`coordinates` must hold at least one"):
        tell_apart(Torsions((), angles[:, :0]), (), state, w, n_states=3)
    with pytest.raises(ValueError, match="state 4 has no sample with weight"):
        tell_apart(Torsions(labels, angles), (True,) * 3, state, w, n_states=4)


def test_the_representative_is_a_heavy_sample_at_the_densest_place() -> None:
    rng = np.random.default_rng(0)
    angle = np.concatenate([0.2 * rng.normal(size=900) + 3.1, np.linspace(-1, 1, 100)])
    log_w = torch.zeros(1000)
    log_w[np.argmin(np.abs(angle - 3.1))] = -30.0
    at = representative(circle_features(angle[:, None], [True]), log_w, np.ones(1000, dtype=bool))
    assert abs(angle[at.sample] - 3.1) < 0.1
    assert log_w[at.sample] == 0
    assert math.isnan(at.rmsd)
    with pytest.raises(ValueError, match="`members` hold no sample with weight"):
        representative(angle[:, None], log_w, np.zeros(1000, dtype=bool))
