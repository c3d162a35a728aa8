"""The reference sampler draws exact distributions, and goes on exactly where it stopped.

Cannot detect: states that no replica ever reaches, at any temperature and from any start.
"""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gencg.analysis import torsion_angles
from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.systems import System, load

ROOT = Path(__file__).parents[1]
SCRIPTS = ["peptides.reference", "peptides.ramachandran"]


@pytest.fixture(autouse=True)
def _experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def peptides(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.peptides.{name}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_scripts_start(script: str) -> None:
    command = [sys.executable, "-m", f"experiments.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage")


class Harmonic(Energy):
    """U = x A x / 2."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__((len(matrix),))
        self.matrix = matrix

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.einsum("ni,ij,nj->n", x, self.matrix.to(x), x)


def means(sampler, observe, *, n_sweeps: int) -> torch.Tensor:
    """Means of an observable of the coldest replicas by ladder, ``(n_ladders, ...)``."""
    total = 0.0
    for _ in range(n_sweeps):
        sampler.sweep()
        total = total + observe(sampler.replicas.y[: sampler.n_cold].double()).double().mean(0)
    return total / n_sweeps


def within(values: torch.Tensor, exact: torch.Tensor, errors: float = 5.0) -> None:
    """The mean over independent ladders is the exact value, to so many standard errors."""
    deviation = (values.mean(0) - exact).abs()
    assert (deviation < errors * values.std(0) / len(values) ** 0.5).all(), (values.mean(0), exact)


def test_a_harmonic_system_has_its_exact_moments_in_every_rung() -> None:
    root = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, -3.0, 10.0]])
    system = System("harmonic", Harmonic(root @ root.T), Cartesian(3), temperature=300.0)
    sampler = peptides("parallel_tempering").ParallelTempering(
        system, [300.0, 300.0, 500.0, 1000.0], n_ladders=64
    )
    sampler.tune(70)
    found = means(sampler, lambda y: y[..., :, None] * y[..., None, :], n_sweeps=200)
    kt = 1 / sampler.beta[0]
    within(found.flatten(1), (kt * torch.linalg.inv(root @ root.T)).flatten())
    # Equipartition, of the energies as they are kept
    assert_close(sampler.replicas.energy, system.energy(sampler.replicas.y))


def test_a_rare_well_holds_its_population() -> None:
    system = load("double-well")
    hot = np.geomspace(system.temperature, 8 * system.temperature, 4).tolist()
    sampler = peptides("parallel_tempering").ParallelTempering(system, hot, n_ladders=128)
    sampler.tune(70)
    means(sampler, lambda y: y[..., 0], n_sweeps=100)
    found = means(sampler, lambda y: y[..., 0] > 0, n_sweeps=400)
    within(found, system.known["populations"]["right"])


def test_a_torsion_has_the_populations_of_quadrature() -> None:
    system = load("butane")
    sampler = peptides("parallel_tempering").ParallelTempering(
        system, [300.0, 600.0, 1200.0], n_ladders=128
    )
    sampler.tune(70)
    names = list(system.known["populations"])

    def observe(y: torch.Tensor) -> torch.Tensor:
        masks = system.energy.states(y)
        return torch.stack([masks[name] for name in names], -1)

    found = means(sampler, observe, n_sweeps=300)
    within(found, torch.tensor([system.known["populations"][name] for name in names]))


@pytest.mark.parametrize("name", ["alanine-dipeptide", "alanine-tetrapeptide"])
def test_torques_are_the_slopes_of_automatic_differentiation(name: str) -> None:
    system = load(name)
    c = system.coordinates
    width = torch.where(c.periodic, 1.0, 0.02 * c.scale)
    y = (c.centre + width * torch.randn(5, c.dim)).float().double().requires_grad_()
    x, log_det = c.inverse(y)
    loose = torch.randn(x.shape)
    (by_x,) = torch.autograd.grad((x * loose).sum(), y, retain_graph=True)
    (volume,) = torch.autograd.grad(log_det.sum(), y)
    torques = peptides("torques").Torques(c)
    found = torques(*(v.detach().float() for v in (y, x, loose)))
    assert_close(found[0].double(), by_x, rtol=1e-4, atol=1e-4)
    assert_close(found[1].double(), volume, rtol=1e-4, atol=1e-4)


def test_atoms_obey_the_virial_theorem_of_cartesian_space(tmp_path: Path) -> None:
    # It sees the volume of the lengths; the fluctuations are too large for that of the angles
    recording = small(tmp_path, block=2, thin=2, ladders=128, tune=70, burn_in=40)
    for _ in range(100):
        recording.block()
    about = recording.reference().about
    assert about["virial"]["error"] < 0.05
    assert abs(about["virial"]["mean"] - 1.0) < 4 * about["virial"]["error"]


def small(folder: Path, **settings):
    module = peptides("recording")
    given = {"rungs": 3, "hottest": 450.0, "cold": 2, "ladders": 8, "tune": 14, "burn_in": 4}
    given |= {"block": 4} | settings
    return module.Recording(folder, module.Settings("alanine-dipeptide", **given))


def test_a_resumed_reference_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = small(tmp_path / "whole")
    for _ in range(4):
        whole.block()

    first = small(tmp_path / "parts")
    for _ in range(2):
        first.block()
    # What a kill left behind the last checkpoint does not count
    with open(tmp_path / "parts" / "torsions.bin", "ab") as file:
        file.write(b"half a block")
    again = small(tmp_path / "parts")
    for _ in range(2):
        again.block()

    assert np.array_equal(again.reference().steps, whole.reference().steps)
    one, other = whole.reference().about, again.reference().about
    assert {**one, "cpu_seconds": 0} == {**other, "cpu_seconds": 0}
    with pytest.raises(ValueError, match="other settings"):
        small(tmp_path / "parts", ladders=9)


def test_what_is_recorded_are_phi_and_psi_of_the_positions(tmp_path: Path) -> None:
    recording = small(tmp_path, thin=4, cold=1)
    for _ in range(2):
        recording.block()
    assert recording.reference().steps.shape == (8, 1, 2)
    y = recording.sampler.replicas.y[:1]
    quads = [quad for _, quad in recording.system.molecule.phi_psi()]
    angles = torsion_angles(recording.system.coordinates.inverse(y)[0][0], quads)
    module = peptides("recorded")
    steps = module.to_steps(y[0][:, recording.columns])
    off = (module.to_radians(steps) - angles + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(off).max() < 1e-3


def test_sixteen_bits_hold_one_turn() -> None:
    module = peptides("recorded")
    angles = np.linspace(-3 * np.pi, 3 * np.pi, 1001)
    off = module.to_radians(module.to_steps(angles)) - angles
    assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).max() <= np.pi / 2**16 + 1e-12


def test_temperatures_must_rise() -> None:
    make = peptides("parallel_tempering").ParallelTempering
    for wrong in ([300.0], [300.0, 300.0], [300.0, 500.0, 500.0], [500.0, 300.0]):
        with pytest.raises(ValueError, match="must rise"):
            make(load("butane"), wrong)
    with pytest.raises(ValueError, match="`n_ladders` must be positive, got 0"):
        make(load("butane"), [300.0, 600.0], n_ladders=0)


def test_respaced_temperatures_share_the_barrier_evenly() -> None:
    respaced = peptides("parallel_tempering").respaced
    beta = torch.tensor([4.0, 4.0, 3.0, 1.0])
    even = respaced(beta, torch.tensor([1.0, 0.5, 0.5]), n_cold=2)
    assert_close(even, beta)
    # Three quarters of the rejections between 4 and 3
    moved = respaced(beta, torch.tensor([1.0, 0.4, 0.8]), n_cold=2)
    assert_close(moved[2], torch.tensor(4.0 - 2 / 3))
    assert moved[[0, 1, 3]].tolist() == [4.0, 4.0, 1.0]


def test_errors_from_ladders_know_the_correlation_within_them() -> None:
    module = peptides("recorded")
    # Each sample ten times over, in 2000 ladders
    values = np.repeat(np.random.default_rng(0).normal(size=(2000, 30)), 10, axis=1)
    reference = module.Reference("toy", ("phi(A1)", "psi(A1)"), np.zeros((2000, 300, 2), np.int16))
    found = reference.average(values.reshape(-1))
    assert found["inefficiency"] == pytest.approx(10, rel=0.15)
    assert found["error"] == pytest.approx((1 / 60000) ** 0.5, rel=0.1)


def test_a_reference_comes_back_from_its_file_and_knows_its_noise(tmp_path: Path) -> None:
    module = peptides("recorded")
    angles = np.random.default_rng(0).normal(scale=0.5, size=(40, 500, 2))
    reference = module.Reference("toy", ("phi(A1)", "psi(A1)"), module.to_steps(angles), {"a": 1})
    reference.write(tmp_path / "reference.npz")
    again = module.Reference.read(tmp_path / "reference.npz")
    assert np.array_equal(again.steps, reference.steps)
    assert dataclasses.replace(again, steps=reference.steps) == reference

    # Independent samples count in full
    (row,) = again.self_distance(bins=(24,))["A1"]
    assert row["effective_samples"] == pytest.approx(20000, rel=0.3)
    errors = again.cell_errors("A1", bins=24)
    expected = 0.5 * np.sqrt(2 / np.pi) * errors.sum()
    assert row["noise"] == pytest.approx(expected, rel=0.2)


def test_a_sample_of_the_reference_lies_as_far_off_as_expected() -> None:
    recorded, ramachandran = peptides("recorded"), peptides("ramachandran")
    random = np.random.default_rng(0)
    labels = ("phi(A1)", "psi(A1)")
    angles = random.normal(scale=0.5, size=(40, 2000, 2))
    reference = recorded.Reference("toy", labels, recorded.to_steps(angles))
    # Drawn wider and weighed back
    wide = 0.6 * random.normal(size=(40000, 2))
    log_weights = -0.5 * (wide**2).sum(1) * (1 / 0.5**2 - 1 / 0.6**2)
    drawn = ramachandran.Drawn(
        ramachandran.Torsions(labels, wide),
        {"raw": np.zeros(len(wide)), "reweighted": log_weights},
    )
    row = ramachandran.compare_maps(drawn, reference, "A1", 36)
    assert row["reweighted"]["distance"] == pytest.approx(row["reweighted"]["expected"], rel=0.15)
    assert row["raw"]["distance"] > 3 * row["raw"]["expected"]
    found = ramachandran.compare_left_handed(drawn, reference)["A1"]
    assert abs(found["reweighted_deviation"]) < 4
    assert found["reference"][0] == pytest.approx(0.5, abs=0.01)
