"""Theorems of the toy energies.

Cannot detect: a wrong convention shared by `energy` and the exact answers, except where a number
from the literature stands beside it.
"""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gencg.energies import toy
from gencg.energies.toy import (
    ButaneTorsion,
    CurvedWells,
    DoubleWell,
    GaussianMixture,
    MuellerBrown,
    Toy,
)
from gencg.units import inverse_temperature

TOYS = {
    "double well": (DoubleWell, 1.0),
    "Müller-Brown": (MuellerBrown, inverse_temperature(300)),
    "curved wells": (CurvedWells, 1.0),
    "Gaussian mixture": (GaussianMixture, 1.0),
    "butane": (ButaneTorsion, inverse_temperature(300)),
}


@pytest.mark.parametrize("build, beta", TOYS.values(), ids=TOYS.keys())
def test_every_toy(build: type[Toy], beta: float) -> None:
    energy = build()
    x = torch.randn(3, 4, *energy.event_shape)

    # One number per configuration, the same alone and in a batch, counted
    values = energy(x)
    assert values.shape == (3, 4)
    assert energy.n_energy_calls == 12
    assert_close(energy(x[1, 2]), values[1, 2])
    assert_close(energy(x.float()), values.float(), rtol=1e-4, atol=1e-4)

    # The gradient is the derivative
    assert torch.autograd.gradcheck(energy, x.requires_grad_())

    # States are apart and cover everything
    masks = torch.stack(list(energy.states(x).values()))
    assert (masks.sum(0) == 1).all()
    populations = energy.populations(beta)
    assert populations.keys() == energy.states(x).keys()
    assert sum(populations.values()) == pytest.approx(1)


@pytest.mark.parametrize("build, beta", TOYS.values(), ids=TOYS.keys())
@pytest.mark.parametrize("heat", [1, 8])
def test_exact_answers_are_converged(build, beta, heat, monkeypatch) -> None:
    energy, beta = build(), beta / heat
    log_z, populations = energy.log_partition(beta), energy.populations(beta)
    coarse = toy._panels
    monkeypatch.setattr(toy, "_panels", lambda edges: coarse(edges, n=48))
    assert log_z == pytest.approx(energy.log_partition(beta), abs=1e-9)
    assert populations == pytest.approx(energy.populations(beta), abs=1e-9)


@pytest.mark.parametrize("build, beta", TOYS.values(), ids=TOYS.keys())
def test_mean_energy_is_the_slope_of_log_z(build: type[Toy], beta: float) -> None:
    energy, step = build(), 1e-4 * beta
    slope = (energy.log_partition(beta + step) - energy.log_partition(beta - step)) / (2 * step)
    assert energy.mean_energy(beta) == pytest.approx(-slope, rel=1e-6)


def test_double_well_has_the_published_answers() -> None:
    energy = DoubleWell()
    assert energy.log_partition(1.0) == pytest.approx(12.0649, abs=5e-5)
    assert energy.populations(1.0)["right"] == pytest.approx(0.00835, abs=5e-6)
    assert energy.mean(1.0) == pytest.approx([-2.4411, 0], abs=5e-5)
    assert energy.variance(1.0) == pytest.approx([0.2724, 1], abs=5e-5)
    assert energy.mean_energy(1.0) == pytest.approx(-10.4279, abs=5e-5)


def test_mueller_brown_has_the_published_stationary_points() -> None:
    energy = MuellerBrown(scale=1.0)
    points = {
        "reactant": (-0.558, 1.442, -146.70),
        "intermediate": (-0.050, 0.467, -80.77),
        "product": (0.623, 0.028, -108.17),
    }
    for name, (x1, x2, value) in points.items():
        x = torch.tensor([x1, x2])
        assert energy.states(x)[name]
        assert float(energy(x)) == pytest.approx(value, abs=0.02)
    saddles = torch.tensor(MuellerBrown.SADDLES, requires_grad=True)
    values = energy(saddles)
    assert_close(values.detach(), torch.tensor([-40.66, -72.25]), atol=0.01, rtol=0)
    values.sum().backward()
    assert saddles.grad is not None
    assert saddles.grad.abs().max() < 1e-4

    # Three basins one can see at 300 K
    populations = MuellerBrown().populations(inverse_temperature(300))
    assert min(populations.values()) > 0.03


def test_curved_wells_are_two_integrals_over_a_line() -> None:
    # In (u, x2) the two coordinates are independent and the area is kept: x2 has variance 1/4
    energy = CurvedWells()
    u = torch.linspace(-3, 3, 60_001)
    density = torch.exp(-3 * (u**2 - 1) ** 2)
    log_z = math.log(float(torch.trapezoid(density, u)) * math.sqrt(math.pi / 2))
    assert energy.log_partition(1.0) == pytest.approx(log_z, abs=1e-9)
    assert energy.populations(1.0)["right"] == pytest.approx(0.5)
    assert energy.mean(1.0) == pytest.approx([0.25, 0], abs=1e-9)


def test_mixture_is_normalised_with_its_own_weights_and_moments() -> None:
    energy = GaussianMixture()
    assert energy.log_partition(1.0) == pytest.approx(0, abs=1e-12)
    assert energy.mean(1.0) == pytest.approx(energy.weights @ energy.means)
    spread = energy.weights @ energy.means**2 - (energy.weights @ energy.means) ** 2
    assert energy.variance(1.0) == pytest.approx(spread + energy.width**2)
    # Cells hold their mode up to the 0.4 % beyond each border, 2.86 widths away
    populations = np.array(list(energy.populations(1.0).values()))
    assert populations == pytest.approx(energy.weights, rel=0.02)


def test_butane_has_the_published_population_and_rates() -> None:
    energy, beta = ButaneTorsion(), inverse_temperature(300)
    assert energy.populations(beta)["trans"] == pytest.approx(0.650, abs=5e-4)
    assert float(energy(torch.tensor([math.pi]))) == pytest.approx(0, abs=1e-12)
    assert_close(energy(torch.tensor([[1.1], [-1.1]])).diff(), torch.zeros(1))

    # Overdamped with D = 1 rad^2/ps: slow rates of the Smoluchowski operator in Fourier modes
    phi = torch.arange(256) * 2 * math.pi / 256
    p = torch.exp(-beta * energy(phi[:, None]))
    order = torch.arange(1, 25)[:, None]
    one = torch.ones(1, 256)
    basis = torch.cat([one, torch.cos(order * phi), torch.sin(order * phi)])
    slope = torch.cat([0 * one, -order * torch.sin(order * phi), order * torch.cos(order * phi)])
    stiffness, mass = (slope * p) @ slope.T, (basis * p) @ basis.T
    rates = torch.linalg.eigvals(torch.linalg.solve(mass, stiffness)).real.sort().values
    assert_close(rates[1:3], torch.tensor([0.0713, 0.1107]), atol=5e-5, rtol=0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`scale` must be positive and finite.*got -1"):
        MuellerBrown(scale=-1.0)
    with pytest.raises(ValueError, match="`n_per_side` must be at least 1, got 0"):
        GaussianMixture(n_per_side=0)
    with pytest.raises(ValueError, match="`spacing` and `width` must be positive"):
        GaussianMixture(width=0.0)
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="`beta` must be positive and finite"):
            DoubleWell().log_partition(beta)
