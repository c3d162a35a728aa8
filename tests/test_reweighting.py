"""Two levels: Gaussians whose free-energy difference and overlap are known, and real molecules.

Cannot detect: a state of the second energy in which the first one has no sample.
"""

import copy
import dataclasses
import math

import openmm
import pytest
import torch
from molecules import MOLECULES
from torch.testing import assert_close

import gencg
from gencg.checkpoint import CheckpointError
from gencg.coordinates.base import Cartesian
from gencg.coordinates.internal import InternalCoordinates
from gencg.energies.base import Energy
from gencg.ensemble import Ensemble
from gencg.reweighting import reweight
from gencg.targeted import Shift, stiff_shift
from gencg.tempering import NoTempering
from gencg.training import Optimisation
from gencg.units import temperature_of

UNIT = temperature_of(1.0)


class Well(Energy):
    """U = k |x - shift|^2 / 2 + constant in kJ/mol; log Z = d log(2 pi / k) / 2 - constant."""

    def __init__(self, dim: int = 3, *, k: float = 1.0, shift: float = 0.0, constant: float = 0.0):
        super().__init__((dim,))
        self.k, self.shift, self.constant = k, shift, constant

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.k * ((x - self.shift) ** 2).sum(-1) + self.constant


def sampled(n: int, dim: int = 3, *, width: float = 1.0, seed: int = 0) -> Ensemble:
    """Samples of N(0, width^2) weighted for `Well(dim)` at beta = 1."""
    x = width * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    log_q = -0.5 * ((x / width) ** 2).sum(-1) - dim * math.log(width * math.sqrt(2 * math.pi))
    energy = Well(dim).energy(x)
    return Ensemble(
        x=x,
        y=x,
        z=x.new_zeros(n, 0),
        energy=energy,
        log_weights=-energy - log_q,
        valid=torch.ones(n, dtype=torch.bool),
        temperature=UNIT,
        name="well",
    )


LOG_Z = 1.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("width", [1.0, 1.2])
@pytest.mark.parametrize("n_samples", [None, 20_000])
def test_a_shifted_stiffer_well(width, n_samples) -> None:
    k, shift, constant, d = 1.4, 0.4, -3.0, 3
    found = reweight(
        sampled(50_000, width=width),
        Well(k=k, shift=shift, constant=constant),
        n_samples=n_samples,
    )
    exact = -0.5 * d * math.log(k) - constant
    value, error = found.log_z_difference
    # 4 standard errors: each fails for 1 seed in 16,000
    assert abs(value - exact) < 4 * error < 0.05
    assert abs(found.ensemble.log_z - LOG_Z - exact) < 4 * found.log_z_error
    assert found.free_energy_difference == pytest.approx((-value, error))
    mean, error = found.ensemble.expectation(lambda x: x)
    assert ((mean - shift).abs() < 4 * error).all()

    # E[r^2] of r = exp(-(U' - U)) is a Gaussian integral of stiffness 2k - 1
    log_r2 = -0.5 * d * math.log(2 * k - 1) + d * (k * shift) ** 2 * 2 / (2 * k - 1)
    log_r2 += -d * k * shift**2
    log_r = -0.5 * d * math.log(k)
    assert found.overlap == pytest.approx(math.exp(2 * log_r - log_r2), rel=0.05)
    if width == 1.0:
        assert found.ensemble.ess == pytest.approx(found.overlap)
    assert found.ensemble.n_energy_calls == (n_samples or 50_000)
    assert found.n_failed == 0


def test_ess_falls_exponentially_with_the_number_of_shifted_coordinates() -> None:
    for d in (1, 4):
        found = reweight(sampled(100_000, d), Well(d, shift=0.5))
        assert found.ensemble.ess == pytest.approx(math.exp(-d * 0.5**2), rel=0.05)


@pytest.mark.parametrize("n_samples", [None, 300])
def test_errors_of_log_z_are_their_spread(n_samples) -> None:
    results = []
    for seed in range(300):
        ensemble = sampled(1500, width=1.15, seed=seed)
        found = reweight(ensemble, Well(k=1.3, shift=0.3), n_samples=n_samples, seed=seed)
        results.append([*found.log_z_difference, found.ensemble.log_z, found.log_z_error])
    difference, difference_error, log_z, log_z_error = torch.tensor(results).unbind(1)
    # The spread of 300 is known to 4.1 %: 4 standard errors, fails for 1 seed in 16,000
    assert_close(difference_error.mean(), difference.std(), rtol=0.17, atol=0)
    assert_close(log_z_error.mean(), log_z.std(), rtol=0.17, atol=0)


def test_reweighting_to_itself_changes_nothing() -> None:
    ensemble = sampled(1000, width=1.3)
    found = reweight(ensemble, Well())
    assert_close(found.ensemble.log_weights, ensemble.log_weights, rtol=0, atol=1e-12)
    assert torch.equal(found.ensemble.energy, ensemble.energy)
    assert found.overlap == pytest.approx(1)
    assert found.log_z_difference == pytest.approx((0, 0), abs=1e-12)
    assert found.log_z_error == pytest.approx(ensemble.log_z_error)

    # Thinned, equal weights stay equal
    found = reweight(sampled(1000), Well(), n_samples=100)
    assert found.ensemble.ess == pytest.approx(1)
    assert found.ensemble.log_z == pytest.approx(LOG_Z)


def test_the_temperature_is_that_of_the_ensemble() -> None:
    ensemble = dataclasses.replace(sampled(1000), temperature=2 * UNIT)
    found = reweight(ensemble, Well(constant=1.0))
    assert found.log_z_difference[0] == pytest.approx(-0.5)
    assert found.free_energy_difference[0] == pytest.approx(1.0)


def test_a_shift_takes_samples_to_the_other_well() -> None:
    energy, there = Well(k=1.4, shift=0.8), torch.full((3,), 0.8)
    shift = Shift(Cartesian(3), there)
    ensemble = sampled(50_000, width=1.2)
    found = reweight(ensemble, energy, shift=shift)
    exact = -1.5 * math.log(1.4)
    value, error = found.log_z_difference
    assert abs(value - exact) < 4 * error
    assert_close(found.ensemble.x, ensemble.x + 0.8)
    assert_close(found.ensemble.y, found.ensemble.x)
    assert_close(found.ensemble.energy, energy(found.ensemble.x))
    # What remains is the difference in stiffness: E[r]^2/E[r^2] of each coordinate
    assert found.overlap == pytest.approx((math.sqrt(2 * 1.4 - 1) / 1.4) ** 3, rel=0.02)

    # Two wells of one shape have one ensemble, thinned or not
    for n_samples in (None, 100):
        found = reweight(sampled(500), Well(shift=0.8), shift=shift, n_samples=n_samples)
        assert found.ensemble.ess == pytest.approx(1)
        assert found.log_z_difference == pytest.approx((0, 0), abs=1e-12)


class Bonds(Energy):
    """Water with harmonic bonds and angle; log Z by quadrature."""

    WIDTH = torch.tensor([0.004, 0.004, 0.06])

    def __init__(self, coordinates: InternalCoordinates, length: float, angle: float) -> None:
        super().__init__((3, 3))
        self.coordinates, self.at = coordinates, torch.tensor([length, length, angle])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (((self.coordinates.forward(x)[0] - self.at) / self.WIDTH) ** 2).sum(-1)

    def log_z(self) -> float:
        """At beta = 1: the volume element is r^2 of each bond and the sine of the angle."""
        t = torch.linspace(-8, 8, 4001)
        gauss = torch.exp(-0.5 * t**2)
        r, theta = self.at[0] + self.WIDTH[0] * t, self.at[2] + self.WIDTH[2] * t
        bond = torch.trapezoid(gauss * r**2, r)
        return float(2 * bond.log() + torch.trapezoid(gauss * theta.sin(), theta).log())


def test_a_shift_of_lengths_and_angles_knows_the_volume() -> None:
    molecule = MOLECULES["water"]()
    coordinates = InternalCoordinates(molecule)
    first = Bonds(coordinates, 0.096, 1.82)
    y = first.at + first.WIDTH * torch.randn(5000, 3)
    x, log_det = coordinates.inverse(y)
    ensemble = Ensemble(
        x=x,
        y=y,
        z=y[:, :0],
        energy=first.energy(x),
        log_weights=log_det,
        valid=coordinates.valid(x),
        temperature=UNIT,
    )
    second = Bonds(coordinates, 0.106, 2.0)
    shift = stiff_shift(coordinates, second)
    assert_close(coordinates.centre + shift.displacement, second.at, rtol=0, atol=1e-4)
    shift = Shift(coordinates, second.at - first.at)
    found = reweight(ensemble, second, shift=shift)
    value, error = found.log_z_difference
    assert abs(value - (second.log_z() - first.log_z())) < 4 * error < 0.01
    assert found.overlap > 0.95
    assert reweight(ensemble, second).overlap < 0.02
    assert_close(coordinates.forward(found.ensemble.x)[0], found.ensemble.y)


def test_rotors_get_new_copies_and_stereo_is_checked_after_a_shift() -> None:
    molecule = MOLECULES["1-fluoroethanol"]()
    coordinates = InternalCoordinates(molecule)
    y = coordinates.centre + 0.1 * coordinates.scale * torch.randn(50, coordinates.dim)
    x, _ = coordinates.inverse(y)
    flat = Flat((molecule.n_atoms, 3))
    ensemble = Ensemble(x, y, y[:, :0], flat(x), flat(x), coordinates.valid(x), UNIT)
    nowhere = torch.zeros(coordinates.dim)
    found = reweight(ensemble, flat, shift=Shift(coordinates, nowhere), seed=3)
    assert found.ensemble.ess == pytest.approx(1)
    copies = (found.ensemble.x - x).abs().amax((1, 2)) > 1e-6
    assert 20 < int(copies.sum()) < 46
    again = reweight(ensemble, flat, shift=Shift(coordinates, nowhere), seed=3)
    assert torch.equal(again.ensemble.x, found.ensemble.x)

    # An improper torsion on the other side is another hand: no weight
    other = nowhere.clone()
    names = [k for k, name in enumerate(coordinates.names) if name.startswith("improper")]
    other[names[0]] = -2 * float(coordinates.centre[names[0]])
    found = reweight(ensemble, flat, shift=Shift(coordinates, other))
    assert found.ensemble.log_weights.isneginf().all()
    assert found.log_z_difference == (-math.inf, math.inf)


class Flat(Energy):
    """U = 0."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), dtype=x.dtype)


class Holes(Well):
    """A well that has no energy above `nan` in x1, and an infinite one below `wall`."""

    def __init__(self, *, nan: float = math.inf, wall: float = -math.inf) -> None:
        super().__init__()
        self.nan, self.wall = nan, wall

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.where(x[..., 0] > self.nan, math.nan, super().energy(x))
        return torch.where(x[..., 0] < self.wall, math.inf, value)


def test_samples_without_an_energy_have_no_weight_and_are_counted() -> None:
    ensemble = sampled(20_000)
    found = reweight(ensemble, Holes(nan=1.0, wall=-1.0))
    x = ensemble.x[:, 0]
    assert found.n_failed == int((x > 1).sum())
    assert found.failed_weight == pytest.approx(float((x > 1).double().mean()))
    # An infinite energy is an answer
    assert torch.equal(found.ensemble.valid, x <= 1)
    assert found.ensemble.log_weights[(x > 1) | (x < -1)].isneginf().all()
    share = math.erf(1 / math.sqrt(2))
    assert found.log_z_difference[0] == pytest.approx(math.log(share), abs=0.02)
    with pytest.raises(RuntimeError, match=r"samples have no energy: check what .* charge"):
        reweight(ensemble, Holes(nan=-0.5))


def test_what_had_no_weight_gets_none_and_invalid_samples_are_not_asked() -> None:
    ensemble = sampled(1000)
    energy = torch.where(ensemble.x[:, 0] > 1, math.inf, ensemble.energy)
    valid = ensemble.x[:, 0] > -1
    log_weights = torch.where(energy.isinf(), -math.inf, ensemble.log_weights)
    given = dataclasses.replace(ensemble, energy=energy, log_weights=log_weights, valid=valid)
    asked = Holes(wall=-0.5)
    found = reweight(given, asked)
    assert asked.n_energy_calls == int(valid.sum())
    assert found.ensemble.energy[~valid].isnan().all()
    assert found.n_failed == 0
    assert torch.equal(
        found.ensemble.log_weights.isneginf(), (ensemble.x[:, 0] > 1) | (ensemble.x[:, 0] < -0.5)
    )


class Interrupted(Well):
    """A well at which Ctrl-C is pressed after some calls."""

    def __init__(self, after: int) -> None:
        super().__init__(shift=0.3)
        self.after = after

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        if self.n_energy_calls > self.after:
            raise KeyboardInterrupt
        return super().energy(x)


def test_an_interrupted_reweighting_goes_on(tmp_path) -> None:
    ensemble, file, seen = sampled(1000), tmp_path / "new" / "energies.pt", []
    options = {"n_samples": 500, "batch_size": 50, "checkpoint": file}
    with pytest.raises(KeyboardInterrupt):
        reweight(ensemble, Interrupted(220), **options)
    energy = Well(shift=0.3)
    found = reweight(ensemble, energy, **options, reporters=[lambda *n: seen.append(n)])
    expected = reweight(ensemble, Well(shift=0.3), n_samples=500)
    assert torch.equal(found.ensemble.log_weights, expected.ensemble.log_weights)
    assert seen == [(n, 500) for n in range(250, 501, 50)]
    # Those that were there, one to see that the energy is the same, and the rest
    assert energy.n_energy_calls == 1 + 300
    assert found.ensemble.n_energy_calls == 200 + 1 + 300

    # What is done is not done again
    again = reweight(ensemble, energy, **options)
    assert torch.equal(again.ensemble.log_weights, expected.ensemble.log_weights)
    assert energy.n_energy_calls == 1 + 300 + 1


def test_a_checkpoint_of_something_else_is_refused(tmp_path) -> None:
    ensemble, file = sampled(100), tmp_path / "energies.pt"
    reweight(ensemble, Well(shift=0.3), n_samples=50, checkpoint=file)
    before = file.read_bytes()
    for options in ({"n_samples": 50, "seed": 1}, {"n_samples": 49}, {}):
        with pytest.raises(CheckpointError, match="not of these samples"):
            reweight(ensemble, Well(shift=0.3), **options, checkpoint=file)
    with pytest.raises(CheckpointError, match=r"of another energy: .* kJ/mol there, .* here"):
        reweight(ensemble, Well(shift=0.4), n_samples=50, checkpoint=file)
    assert file.read_bytes() == before
    file.write_bytes(before[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        reweight(ensemble, Well(shift=0.3), n_samples=50, checkpoint=file)


def test_refusals() -> None:
    ensemble = sampled(10)
    with pytest.raises(ValueError, match=r"`energy` takes .* shape \(2,\), `ensemble` has \(3,\)"):
        reweight(ensemble, Well(2))
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        reweight(ensemble, Well(), n_samples=0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        reweight(ensemble, Well(), batch_size=0)
    for coordinates in (Cartesian(2), InternalCoordinates(MOLECULES["water"]())):
        with pytest.raises(ValueError, match=r"`shift` has other coordinates than .* drawn in"):
            reweight(ensemble, Well(), shift=Shift(coordinates, torch.zeros(coordinates.dim)))
    for wrong in (torch.zeros(2), torch.full((3,), math.nan)):
        with pytest.raises(ValueError, match=r"`displacement` must be finite, of shape \(3,\)"):
            Shift(Cartesian(3), wrong)
    nothing = dataclasses.replace(ensemble, log_weights=torch.full((10,), -math.inf))
    with pytest.raises(ValueError, match="no sample with weight"):
        reweight(nothing, Well())


def test_repr_and_numbers_tell_what_one_has() -> None:
    found = reweight(sampled(1000), Well(constant=2.0, shift=0.3))
    for word in ("n=1000", "ess=0.7", "free_energy_difference=2.0", "n_failed=0", " ± 0.0"):
        assert word in repr(found)
    numbers = found.numbers()
    assert numbers["ess"] == found.ensemble.ess
    assert numbers["free_energy_difference"] == found.free_energy_difference[0]
    assert numbers["energy_calls"] == 1000


# --- A molecule ---------------------------------------------------------------------------------


def springs() -> gencg.System:
    """Water with harmonic bonds and angle, as flexible force fields have it."""
    molecule, system = MOLECULES["water"](), openmm.System()
    for mass in molecule.masses:
        system.addParticle(mass)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for hydrogen in (1, 2):
        bonds.addBond(0, hydrogen, 0.0985, 4.5e5)
    angles.addAngle(1, 0, 2, math.radians(101.0), 400.0)
    system.addForce(bonds)
    system.addForce(angles)
    return gencg.systems.from_system(
        system, molecule.topology.to_openmm(), molecule.positions, name="water"
    )


def test_water_of_springs_becomes_quantum_chemical_water() -> None:
    pytest.importorskip("tblite")
    system = springs()
    small = {"batch_size": 64, "optimisation": Optimisation(warm_up=10)}
    result = gencg.fit(system, energy_calls=3000, **small)
    ensemble = gencg.draw(result.model, result.target, 2000, molecule=system.molecule)
    gfn2 = gencg.TbliteEnergy(system.molecule)
    found = gencg.reweight(ensemble, gfn2, n_samples=300)
    assert 0.02 < found.ensemble.ess < 0.7
    assert found.ensemble.n_energy_calls == gfn2.n_energy_calls == 300
    assert math.isfinite(found.log_z_difference[0])
    shifted = gencg.reweight(
        ensemble, gfn2, n_samples=300, shift=stiff_shift(system.coordinates, gfn2)
    )
    assert shifted.ensemble.ess > 0.9

    # Trained on from there, in a copy, without going through the heat again
    before = copy.deepcopy(result.model.state_dict())
    fine = gencg.fit(
        dataclasses.replace(system, energy=gfn2, known={}),
        model=copy.deepcopy(result.model),
        tempering=NoTempering(),
        energy_calls=3000,
        **small,
    )
    assert all(torch.equal(v, before[k]) for k, v in result.model.state_dict().items())
    tuned = gencg.draw(fine.model, fine.target, 1000, molecule=system.molecule)
    assert tuned.ess > found.ensemble.ess
    # Two ways to one number: 4 standard errors, fails for 1 seed in 16,000
    error = math.hypot(tuned.log_z_error, found.log_z_error)
    assert abs(tuned.log_z - found.ensemble.log_z) < 4 * error


def test_a_rotor_is_trained_on_quantum_chemistry_from_the_start() -> None:
    pytest.importorskip("tblite")
    molecule = MOLECULES["methylamine"]()
    system = gencg.systems.from_energy(molecule, gencg.TbliteEnergy(molecule), name="methylamine")
    assert system.energy(torch.as_tensor(system.molecule.positions)) < 0
    result = gencg.fit(system, energy_calls=256, batch_size=64)
    # And one for the reference that energies are compressed above
    assert result.energy_calls == 256 + 1
    assert result.gradient_calls == 256
    assert all(math.isfinite(info.loss) for info in result.history)
