"""Annealed chains are exact, lost modes are found, kept modes are not accused.

Cannot detect: how long chains must be for a molecule; the figures for alanine dipeptide stand in
docs/design.md.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gencg.analysis import assess, check_modes
from gencg.analysis.annealing import anneal
from gencg.analysis.probes import CHAINS, COVERING, Probe, probe_modes
from gencg.analysis.verdict import judge_modes, overall
from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.energies.toy import DoubleWell
from gencg.ensemble import draw
from gencg.fit import FitResult, fit
from gencg.importance import log_partition, weighted_average
from gencg.models.two_block import SoftBlock, SoftSpace, StiffBlock, TwoBlockFlow
from gencg.systems import System, butane, double_well, gaussian_mixture, mueller_brown
from gencg.target import BoltzmannTarget


class _Molecule(Cartesian):
    """Two torsions, and three stiff coordinates around a centre."""

    def __init__(self) -> None:
        super().__init__(5)
        self.soft = torch.tensor([True, True, False, False, False])
        self.periodic = self.soft
        self.scale = torch.full((5,), 0.1, dtype=torch.float64)


class _TwoTorsions(Energy):
    """A deep and a shallow well on the torus; stiff coordinates follow the first torsion.

    The shallow one, around (2, 1), holds 1 to 2 % at 300 K.
    """

    def __init__(self, *, wall: float = 0.0) -> None:
        super().__init__((5,))
        self.wall = wall

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        a, b, v = x[..., 0], x[..., 1], x[..., 2:]
        deep = torch.exp(3 * (torch.cos(a + 1) + torch.cos(b + 1) - 2))
        shallow = torch.exp(5 * (torch.cos(a - 2) + torch.cos(b - 1) - 2))
        stiff = 250 * (v - 0.05 * torch.sin(a)[..., None]).square().sum(-1)
        return -24 * deep - 15.5 * shallow + stiff + self.wall * shallow


def two_torsions(*, wall: float = 0.0) -> System:
    return System("two torsions", _TwoTorsions(wall=wall), _Molecule(), 300.0)


def _flow(system: System) -> TwoBlockFlow:
    """What the chains start from before any training."""
    space = SoftSpace(system.coordinates)
    generator = torch.Generator().manual_seed(0)
    stiff = StiffBlock(system.coordinates, space, generator=generator)
    return TwoBlockFlow(SoftBlock(space, n_layers=0), stiff)


def _log_z(system: System) -> float:
    """By quadrature over the torsions; the stiff coordinates are normal given them."""
    beta = BoltzmannTarget(system.energy, system.coordinates, system.temperature).beta
    grid = torch.linspace(-math.pi, math.pi, 241)[:-1]
    x = torch.zeros(240, 240, 5)
    x[..., 0], x[..., 1] = torch.meshgrid(grid, grid, indexing="ij")
    x[..., 2:] = 0.05 * torch.sin(x[..., :1])
    log_cell = 2 * math.log(2 * math.pi / 240) + 1.5 * math.log(math.pi / (250 * beta))
    return float(torch.logsumexp(-beta * system.energy.energy(x).flatten(), 0)) + log_cell


@pytest.mark.parametrize(
    "make", [double_well, mueller_brown, gaussian_mixture, butane, two_torsions]
)
@pytest.mark.parametrize("n_steps", [10, 40])
def test_chains_give_log_z_and_populations_whatever_their_length(make, n_steps) -> None:
    """Six comparisons at four standard errors: a false failure in some thousand seeds."""
    system = make()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    y, log_weights = anneal(
        _flow(system), target, n_chains=4000, n_steps=n_steps, like=torch.zeros(0), seed=1
    )
    log_z, error = log_partition(log_weights)
    exact = system.known.get("log_z", None)
    exact = _log_z(system) if exact is None else exact
    assert abs(float(log_z) - exact) < 4 * float(error) < 1.0
    if system.known:
        masks = system.energy.states(system.coordinates.inverse(y)[0])
        for name, population in system.known["populations"].items():
            value, error = weighted_average(masks[name], log_weights)
            assert abs(float(value) - population) < 4 * float(error) + 1e-3, name


def test_chains_count_their_calls_and_leave_the_random_state() -> None:
    system = butane()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    state = torch.random.get_rng_state()
    options = {"n_chains": 30, "n_steps": 7, "like": torch.zeros(0)}
    first = anneal(_flow(system), target, seed=3, **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert system.energy.n_energy_calls == 30 * 8
    assert system.energy.n_gradient_calls == 0
    again = anneal(_flow(system), target, seed=3, **options)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


# Exact samples in place of a generator


def _wells(n: int, seed: int, *, minor: float, dim: int = 3) -> torch.Tensor:
    """Torsions at -1.5 in all wells but the minor one, where the first is at 1.5."""
    rng = np.random.default_rng(seed)
    angle = rng.normal(-1.5, 0.3, (n, dim))
    angle[rng.random(n) < minor, 0] += 3.0
    return torch.as_tensor(angle)


def _check(minor: float, found: float, *, seed: int = 0, n: int = 20_000, n_probe: int = 8_000):
    probe = Probe("exact", _wells(n_probe, 100 + seed, minor=minor), torch.zeros(n_probe), 0)
    return check_modes(
        probe, _wells(n, seed, minor=found), torch.zeros(n), names=["a", "b", "c"], periodic=True
    )


def test_a_lost_mode_is_named_with_its_population() -> None:
    check = _check(0.01, 0.0)
    assert judge_modes(check).level == "poor"
    first = check.lost[0]
    assert first.names == ("a",)
    assert first.expected == pytest.approx(0.01, abs=4 * first.expected_error)
    assert first.found == first.raw == 0
    assert first.low[0] < 1.5 < first.high[0]
    assert "Lost: a " in judge_modes(check).text
    assert "deg (expected 0.0" in str(first)


@pytest.mark.parametrize("seed", range(20))
def test_a_kept_mode_is_not_accused(seed) -> None:
    check = _check(0.01, 0.01, seed=seed)
    assert check.lost == ()
    assert not check.misses_density
    assert judge_modes(check).level == "good"


def test_a_mode_all_but_lost_is_lost_although_its_weights_are_right() -> None:
    soft = _wells(20_000, 0, minor=0.0)
    log_weights = torch.zeros(20_000)
    soft[0, 0], log_weights[0] = 1.5, math.log(200.0)
    probe = Probe("exact", _wells(8_000, 1, minor=0.01), torch.zeros(8_000), 0)
    check = check_modes(probe, soft, log_weights, names=["a", "b", "c"], periodic=True)
    assert check.lost[0].found == pytest.approx(0.01, rel=0.02)
    assert check.lost[0].raw == pytest.approx(5e-5)


def test_a_mode_below_a_thousandth_is_not_reported() -> None:
    assert _check(2e-4, 0.0).lost == ()


def test_too_few_samples_accuse_nobody() -> None:
    assert _check(0.01, 0.0, n_probe=300).lost == ()
    assert _check(0.01, 0.0, n=500).lost == ()
    few = _check(0.01, 0.0, n_probe=20)
    assert few.blind
    assert judge_modes(few).level == "open"
    assert "--coverage-calls" in judge_modes(few).text


def test_a_log_z_too_small_fails_although_no_window_is_empty() -> None:
    probe = Probe("exact", _wells(8_000, 1, minor=0.0), torch.full((8_000,), 0.2), 0)
    log_weights = 0.1 * torch.randn(20_000)
    check = check_modes(
        probe, _wells(20_000, 0, minor=0.0), log_weights, names=["a", "b", "c"], periodic=True
    )
    assert check.lost == ()
    assert check.misses_density
    assert "misses 0.18 of the density" in judge_modes(check).text


def test_windows_on_the_line_do_not_go_round() -> None:
    soft = torch.randn(20_000, 1)
    probe = Probe("exact", torch.cat([torch.randn(4_000, 1), torch.full((60, 1), 9.0)]),
                  torch.zeros(4_060), 0)  # fmt: skip
    check = check_modes(probe, soft, torch.zeros(20_000), names=["x1"], periodic=False)
    (window,) = check.lost
    assert window.low[0] > 5
    assert window.high[0] == pytest.approx(9.0)
    assert "deg" not in str(window)


# Planted failures: trained with a forbidden basin


class _OneWell(DoubleWell):
    """The double well with a wall in its right half."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return super().energy(x) + 50 * torch.relu(x[..., 0] - self.barrier) ** 2


def _trained(
    system: System, seed: int, *, energy: Energy | None = None, calls: float, batch_size: int = 512
) -> FitResult:
    """Trained with one energy, to be weighed with the true one."""
    with_energy = system if energy is None else replace(system, energy=energy)
    result = fit(with_energy, energy_calls=calls, seed=seed, batch_size=batch_size)
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    return replace(result, system=system, target=target)


def _levels(result: FitResult, seed: int) -> dict[str, str]:
    ensemble = draw(result.model, result.target, 20_000, seed=seed)
    probes = probe_modes(result, 60_000, seed=seed + 2)
    assert sum(p.n_energy_calls for p in probes) <= 60_000
    assessment = assess(result.system, ensemble, probes=probes)
    levels = {v.name: v.level for v in assessment.verdicts}
    return levels | {"Overall": overall(assessment.verdicts).level}


# Systems, what forbids their basin, and steps enough to empty it
PLANTED = {
    "double well": (double_well, _OneWell, {"calls": 2e5}),
    "two torsions": (
        two_torsions,
        lambda: _TwoTorsions(wall=200.0),
        {"calls": 1.5e5, "batch_size": 256},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_basin_forbidden_in_training_fails_the_verdict(name) -> None:
    make, forbidden, steps = PLANTED[name]
    levels = _levels(_trained(make(), 0, energy=forbidden(), **steps), 0)
    assert levels[CHAINS] == "poor"
    assert levels["Overall"] == "poor"


@pytest.mark.slow
def test_a_good_generator_is_not_accused() -> None:
    levels = _levels(_trained(two_torsions(), 0, calls=1.5e5), 0)
    assert levels[CHAINS] == levels[COVERING] == "good"


def test_a_model_without_soft_block_is_not_probed() -> None:
    result = fit(double_well(), n_cvs=1, energy_calls=1024)
    assert probe_modes(result, 10_000) == ()
