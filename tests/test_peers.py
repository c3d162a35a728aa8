"""The peers that gencg is held against, and the measures they are held against it by.

Cannot detect: whether a peer could do better with other settings, or any of the numbers reported;
those take the runs themselves.
"""

import importlib
import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gencg
from gencg.coordinates.base import Cartesian
from gencg.tempering import NoTempering
from gencg.units import BOLTZMANN_CONSTANT

ROOT = Path(__file__).parents[1]
KT = BOLTZMANN_CONSTANT * 300.0
MODULES = ["clock", "compare", "generator", "metadynamics", "plain_flow", "spline_flow", "surfaces"]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT))
    found = {name: importlib.import_module(f"experiments.peers.{name}") for name in MODULES}
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def dipeptide() -> gencg.System:
    return gencg.systems.load("alanine-dipeptide")


@pytest.mark.parametrize("script", ["run", "plain_flow", "metadynamics", "generator", "compare"])
def test_every_script_starts(script: str) -> None:
    command = [sys.executable, "-m", f"experiments.peers.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage")


def shaken(flow):
    for parameter in flow.double().parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return flow


def test_density_of_the_plain_flow_is_that_of_its_jacobian(peers, dipeptide) -> None:
    small = {"n_layers": 4, "hidden": 8}
    flow = shaken(peers.spline_flow.PlainSplineFlow(dipeptide.coordinates, **small))
    _, y, log_q = flow.sample(50)
    assert log_q.dtype == torch.float64
    assert_close(flow.log_prob(y), log_q)

    # Base density and Jacobian by hand
    eps, log_det = flow.inverse(y)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow(row[None])[0][0], eps[0])
    assert_close(torch.linalg.slogdet(jacobian)[1], -log_det[0])
    line = ~dipeptide.coordinates.periodic
    cut_off = math.log(math.erf(5 / math.sqrt(2)))
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(eps[0, line]) - cut_off
    by_hand = normal.sum() - 5 * math.log(2 * math.pi) + log_det[0]
    assert_close(by_hand, log_q[0])

    # Every angle stays on its circle
    assert bool((y[:, ~line].abs() <= math.pi).all())


def test_density_of_the_plain_flow_integrates_to_one_on_the_torus(peers) -> None:
    torus = Cartesian(2, periodic=True)
    flow = shaken(peers.spline_flow.PlainSplineFlow(torus, n_layers=4, hidden=8))
    n = 200
    angle = (torch.arange(n) + 0.5) * 2 * math.pi / n - math.pi
    density = flow.log_prob(torch.cartesian_prod(angle, angle)).exp()
    assert_close(density.mean() * (2 * math.pi) ** 2, torch.tensor(1.0), atol=1e-3, rtol=0)


def plain_training(peers, system, *, seed=3):
    return peers.plain_flow.Training(
        system,
        calls=64,
        batch_size=8,
        rate=1e-3,
        drop_worst=0.1,
        tempering=NoTempering(),
        seed=seed,
    )


def test_a_plain_flow_goes_on_from_its_checkpoint_as_if_never_stopped(peers, tmp_path) -> None:
    torch.set_default_dtype(torch.float32)
    system = gencg.systems.load("double-well")
    straight, first, second = (plain_training(peers, system) for _ in range(3))
    assert straight.n_steps == 8
    clock = peers.clock.Clock()
    path = tmp_path / "plain.json"
    whole = peers.plain_flow.train(straight, clock, tmp_path / "whole.json", test_samples=10)
    assert whole["tests"][-1]["calls"] == 64

    # Stopped after four steps, with all that a kill would leave
    while first.step < 4:
        first.advance()
    content = {"record": '{"tests": []}', "seconds": 1.0}
    gencg.checkpoint.save_checkpoint(path.with_suffix(".pt"), first.state_dict() | content)
    peers.plain_flow.train(second, clock, path, test_samples=10)
    with pytest.raises(ValueError, match="belongs to a training with settings"):
        plain_training(peers, system, seed=4).load_state_dict(first.state_dict())
    for a, b in zip(straight.average.parameters(), second.average.parameters(), strict=True):
        assert_close(a, b)


def test_the_clock_leaves_out_what_it_is_told_to(peers) -> None:
    clock = peers.clock.Clock()

    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    clock.start(5.0)
    work(0.05)
    with clock.paused():
        work(0.2)
    assert 5.05 <= clock.seconds < 5.15


def reference_of(peers, surface):
    return peers.surfaces.Reference(surface, np.zeros_like(surface), 1, 300.0)


def test_a_constant_is_no_deviation_and_a_known_one_is_found(peers) -> None:
    rng = np.random.default_rng(0)
    surface = rng.uniform(0, 40, (24, 24))
    surface[0, 0] = 0.0
    reference = reference_of(peers, surface)
    compared = surface < 20.0
    assert np.array_equal(reference.compared, compared)
    same = peers.surfaces.deviation(surface + 7.3, reference)
    assert same.rms < 1e-12
    assert same.largest < 1e-12

    added = rng.normal(size=(24, 24))
    added -= added[compared].mean()
    found = peers.surfaces.deviation(surface + added - 2.0, reference)
    assert found.rms == pytest.approx(np.sqrt((added[compared] ** 2).mean()))
    assert found.largest == pytest.approx(np.abs(added[compared]).max())

    # What lies above is not compared; what is not known below is infinitely far
    high = np.where(compared, surface, np.nan)
    assert peers.surfaces.deviation(high, reference).rms == 0.0
    high[0, 0] = np.nan
    assert peers.surfaces.deviation(high, reference).largest == math.inf
    with pytest.raises(ValueError, match=r"`surface` must have the cells of the reference"):
        peers.surfaces.deviation(surface[:12], reference)


def test_a_fine_grid_and_samples_give_the_surface_of_the_cells(peers) -> None:
    # p is proportional to 1 + cos(phi) / 2
    edges = np.linspace(-np.pi, np.pi, 25)
    mass = np.diff(edges + 0.5 * np.sin(edges))
    exact = -KT * np.log(mass / mass.max())
    points = np.linspace(-np.pi, np.pi, 24 * 8 + 1)
    fine = -KT * np.log(1 + 0.5 * np.cos(points))[:, None] + np.zeros(len(points))
    found = peers.surfaces.grid_surface(fine, temperature=300.0)
    assert np.abs(found - exact[:, None]).max() < 1e-3

    # Even samples with weights: the error of a cell is kT / sqrt(278), the largest of 576 below 5
    torsions = np.random.default_rng(0).uniform(-np.pi, np.pi, (160_000, 2))
    log_weights = np.log(1 + 0.5 * np.cos(torsions[:, 0]))
    sampled = peers.surfaces.sample_surface(torsions, log_weights, temperature=300.0)
    difference = sampled - exact[:, None]
    assert np.abs(difference - difference.mean()).max() < 5 * KT / math.sqrt(278)

    with pytest.raises(ValueError, match=r"must have m \* 24 \+ 1 points"):
        peers.surfaces.grid_surface(np.zeros((24, 24)), temperature=300.0)


def test_errors_of_the_reference_are_those_of_its_counts(peers, tmp_path) -> None:
    torsions = np.random.default_rng(0).uniform(-np.pi, np.pi, (100_000, 4))
    np.savez(tmp_path / "reference.npz", torsions=torsions)
    reference = peers.surfaces.read_reference(tmp_path / "reference.npz", temperature=300.0, pair=1)
    steps = np.round(torsions * 2**15 / np.pi).clip(-(2**15), 2**15 - 1).astype(np.int16)
    np.savez(tmp_path / "chains.npz", steps=steps.reshape(20, 5000, 4))
    chains = peers.surfaces.read_reference(tmp_path / "chains.npz", temperature=300.0, pair=1)
    assert peers.surfaces.deviation(chains.surface, reference).largest < 0.1 * KT
    expected = KT / math.sqrt(100_000 / 576)
    assert reference.n_samples == 100_000
    # 576 cells with 19 degrees of freedom each: known to 1 / sqrt(2 * 19 * 576), 0.7 %
    assert np.sqrt((reference.errors**2).mean()) == pytest.approx(expected, rel=0.03)
    flat = peers.surfaces.deviation(np.zeros((24, 24)), reference)
    assert flat.rms == pytest.approx(expected, rel=0.1)
    assert "576 of 24x24 cells" in repr(reference)


def test_reached_is_what_is_kept(peers) -> None:
    kept_from = peers.surfaces.kept_from
    assert kept_from([3.0, 0.5, 2.0, 0.9, 1.0], 1.0) == 3
    assert kept_from([0.5, 0.5], 1.0) == 0
    assert kept_from([0.5, math.inf], 1.0) is None
    assert kept_from([0.5, math.nan], 1.0) is None
    found = [peers.surfaces.Deviation(r, 2 * r) for r in (2.0, 0.8, 0.6)]
    row = peers.compare.surface_row("a", [10, 20, 30], [1.0, 2.0, 3.0], found)
    assert (row["rms_calls"], row["rms_seconds"], row["largest_calls"]) == (20, 2.0, None)


def test_ess_between_two_tests_is_on_the_line_and_none_after_the_last(peers) -> None:
    tests = [{"calls": 100, "ess": 0.2}, {"calls": 200, "ess": 0.4}]
    between = peers.compare.between
    assert between(tests, "calls", 150) == pytest.approx(0.3)
    assert between(tests, "calls", 50) == pytest.approx(0.1)
    assert between(tests, "calls", 300) is None


def test_metadynamics_has_the_potential_of_gencg_and_ends_where_it_began(peers, dipeptide) -> None:
    simulation = peers.metadynamics.Simulation(
        dipeptide.molecule,
        temperature=300.0,
        sigma=0.35,
        height=1.2,
        bias_factor=10.0,
        stride=0.03,
        step=0.003,
        hydrogen_mass=3.0,
        platform="Reference",
        forcefield=peers.metadynamics.FORCE_FIELDS["alanine-dipeptide"],
        seed=0,
    )
    x = torch.as_tensor(dipeptide.molecule.positions)[None]
    assert simulation.potential_energy == pytest.approx(float(dipeptide.energy(x)), abs=1e-4)

    simulation.run(3)
    assert simulation.calls == 30
    bias, reweighted = simulation.surfaces().values()
    # Of three hills, the one highest point is where they are
    cells = np.floor((np.array(simulation.torsions) / np.pi + 1) * 12).astype(int)
    lowest = np.unravel_index(np.argmin(bias), bias.shape)
    assert np.abs(cells - lowest).max() <= 1
    assert np.isfinite(reweighted[tuple(cells[-1])])
    assert np.isfinite(reweighted).sum() <= 3
