"""Toy systems: what the fits are compared with.

Cannot detect: whether a fit finds the answers; that is `tests/test_fit.py`.
"""

import math

import pytest
import torch

from gencg.systems import butane, curved_wells, double_well, gaussian_mixture, mueller_brown
from gencg.target import BoltzmannTarget

TOYS = {
    "double-well": double_well,
    "mueller-brown": mueller_brown,
    "curved-wells": curved_wells,
    "gaussian-mixture": gaussian_mixture,
    "butane": butane,
}


@pytest.mark.parametrize("name, build", TOYS.items(), ids=TOYS.keys())
def test_every_toy_system(name, build) -> None:
    system = build()
    assert system.name == name
    assert system.molecule is None
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)

    # The scale reaches the mass: a normal of that width has an ESS above 1/1000
    y = torch.randn(20_000, system.coordinates.dim) * system.coordinates.scale
    q = torch.distributions.Normal(system.coordinates.centre, system.coordinates.scale)
    log_w = target.log_density(y) - q.log_prob(y).sum(-1)
    if not system.coordinates.periodic.all():
        log_z = torch.logsumexp(log_w, 0) - math.log(20_000)
        assert float(log_z) == pytest.approx(system.known["log_z"], abs=0.3)


def test_the_papers_beta_of_one() -> None:
    system = double_well()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    assert target.beta == pytest.approx(1)
    assert system.temperature == pytest.approx(120.27, abs=0.01)
    assert system.known["log_z"] == pytest.approx(12.0649, abs=5e-5)
    assert gaussian_mixture().known["log_z"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [-1.0, 0.0, math.nan, math.inf])
def test_refuses_a_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="`temperature` must be positive and finite"):
        butane(temperature=temperature)
