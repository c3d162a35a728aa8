"""Finite differences against solvable potentials. Cannot detect what moves outside of the box."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.analysis import ExactSlowFunctions
from gencg.energies.toy import ButaneTorsion, CurvedWells, DoubleWell, MuellerBrown, Toy
from gencg.units import inverse_temperature

TOYS = {
    "double well": (DoubleWell(), 1.0, (-4.6, -5.5), (4.6, 5.5)),
    "Müller-Brown": (MuellerBrown(), inverse_temperature(300), (-1.9, -0.9), (1.5, 2.5)),
    "curved wells": (CurvedWells(), 1.0, (-2.4, -2.5), (6.5, 2.5)),
}


class Harmonic(Toy):
    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x[..., 0] ** 2 + 2.0 * x[..., 1] ** 2

    def states(self, x):
        raise NotImplementedError

    def nodes(self):
        raise NotImplementedError


def test_a_harmonic_well_has_the_eigenvalues_of_ornstein_and_uhlenbeck() -> None:
    # E[|∇f|²] of the Hermite polynomials of x1 at beta U = x1²/2: 1, 2, 3, ...
    exact = ExactSlowFunctions(Harmonic(), 1.0, (-7, -4), (7, 4), n=160)
    assert_close(exact.eigenvalues, torch.tensor([1.0, 2.0, 3.0]), rtol=4e-3, atol=0)
    x = exact.points[:, 0]
    assert exact.correlation(x) == pytest.approx(1, abs=1e-5)
    assert exact.correlation(x**2 + 7, 1) == pytest.approx(1, abs=1e-4)
    assert exact.correlation(x**2, 0) == pytest.approx(0, abs=1e-9)
    assert_close(exact.weights @ exact.functions**2, torch.ones(3))
    assert_close(exact.weights @ exact.functions, torch.zeros(3))


@pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS.keys())
def test_the_slowest_eigenvalue_is_converged(toy) -> None:
    coarse, fine = (ExactSlowFunctions(*toy, n=n, n_functions=1).eigenvalues for n in (100, 200))
    assert_close(coarse, fine, rtol=6e-3, atol=0)


def test_samples_have_the_populations_of_quadrature() -> None:
    energy, beta, low, high = TOYS["Müller-Brown"]
    x = ExactSlowFunctions(energy, beta, low, high).sample(40_000)
    # Standard error below 0.0025, and the cells of the grid straddle the borders
    found = {name: float(mask.double().mean()) for name, mask in energy.states(x).items()}
    assert found == pytest.approx(energy.populations(beta), abs=0.01)


def test_variables_are_worth_the_slowest_of_their_functions() -> None:
    # No function of a straight coordinate is as slow as the slow one, which is bent
    exact = ExactSlowFunctions(*TOYS["curved wells"], n=120, n_functions=2)
    x1 = exact.points[:, 0]
    slowest = exact.eigenvalues[0]
    along = exact.best_of(exact.functions[:, :1], n_functions=1)[0]
    straight = exact.best_of(x1[:, None], n_functions=1)[0]
    assert slowest - 1e-9 <= along <= 1.001 * slowest
    assert straight > 1.3 * slowest

    # More variables are never worth less, and a shift or scale of one changes nothing
    assert exact.best_of(exact.points)[0] < straight
    moved = exact.best_of(7 - 3 * x1[:, None], n_functions=1)[0]
    assert_close(moved, straight)

    with pytest.raises(ValueError, match="`z` must have shape"):
        exact.best_of(x1)


def test_refuses_a_line() -> None:
    with pytest.raises(ValueError, match="`energy` must be one of 2 coordinates, got"):
        ExactSlowFunctions(ButaneTorsion(), 1.0, (-math.pi,), (math.pi,))
