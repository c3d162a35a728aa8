"""Theorems of ensembles, on generators whose weights are known in closed form.

Cannot detect: an error shared by `importance` and the exact answers here; those have tests of
their own. Statistical tests state their standard error and rate of failure; seeds are fixed.
"""

import math

import pytest
import torch
from pyro.distributions import Independent, Normal
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.ensemble import Ensemble, draw
from gencg.models.base import ConditionalDistribution
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.systems import double_well
from gencg.target import BoltzmannTarget
from gencg.units import BOLTZMANN_CONSTANT, temperature_of

N = 5000


class Linear(ConditionalDistribution):
    """N(loc + slope * mean of the context, width^2) in `dim` dimensions."""

    def __init__(self, dim: int, *, slope: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.dim, self.slope, self.width = dim, slope, width
        self.register_buffer("loc", torch.zeros(dim))

    def forward(self, context: torch.Tensor) -> Independent:
        rows = context.new_zeros(context.shape[0], self.dim) + self.loc
        if self.slope:
            rows = rows + self.slope * context.mean(-1, keepdim=True)
        return Normal(rows, self.width).to_event(1)


class Harmonic(Energy):
    """U = x^2/2 in kJ/mol; log Z = log(2 pi)/2 per dimension at beta = 1."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__((dim,))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (x**2).sum(-1)


class Broken(Cartesian):
    """Coordinates that call x1 > 0 another molecule and make x1 > `broken` nan."""

    def __init__(self, dim: int, *, broken: float = math.inf) -> None:
        super().__init__(dim)
        self.broken = broken

    def inverse(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, log_det = super().inverse(y)
        return torch.where(y[..., :1] > self.broken, math.nan, x), log_det

    def valid(self, x: torch.Tensor) -> torch.Tensor:
        return super().valid(x) & (x[..., 0] <= 0)


def harmonic(dim: int = 1) -> BoltzmannTarget:
    return BoltzmannTarget(Harmonic(dim), Cartesian(dim), temperature_of(1.0))


def test_a_perfect_generator_has_constant_weights() -> None:
    target = harmonic()
    ensemble = draw(CoarseGrainedModel(Linear(1)), target, N, batch_size=700)
    assert_close(ensemble.log_weights, torch.full((N,), 0.5 * math.log(2 * math.pi)))
    assert ensemble.ess == pytest.approx(1)
    assert ensemble.log_z == pytest.approx(0.5 * math.log(2 * math.pi))
    assert ensemble.log_z_error == pytest.approx(0, abs=1e-6)
    assert ensemble.verdict.startswith("good")
    assert ensemble.x.shape == ensemble.y.shape == (N, 1)
    assert ensemble.z.shape == (N, 0)
    assert ensemble.n_energy_calls == target.energy.n_energy_calls == N


def test_joint_weights_with_the_exact_encoder_are_the_marginal_weights() -> None:
    # z ~ N(0, 1), y|z ~ N(0.6 z, 0.8^2): q(y) = N(0, 1) and q(z|y) = N(0.6 y, 0.8^2)
    parts = {"prior": Linear(1), "encoder": Linear(1, slope=0.6, width=0.8), "n_cvs": 1}
    model = CoarseGrainedModel(Linear(1, slope=0.6, width=0.8), **parts)
    ensemble = draw(model, harmonic(), N)
    assert ensemble.z.shape == (N, 1)
    assert_close(ensemble.log_weights, torch.full((N,), 0.5 * math.log(2 * math.pi)))


def test_any_encoder_leaves_the_mean_weight_at_z() -> None:
    parts = {"prior": Linear(1), "encoder": Linear(1, slope=0.3, width=1.1), "n_cvs": 1}
    model = CoarseGrainedModel(Linear(1, slope=0.6, width=0.9), **parts)
    ensemble = draw(model, harmonic(), 40_000)
    assert ensemble.ess < 0.95
    # 4 standard errors: fails for 1 seed in 16,000
    exact = 0.5 * math.log(2 * math.pi)
    assert abs(ensemble.log_z - exact) < 4 * ensemble.log_z_error


def test_double_well_from_a_wide_normal() -> None:
    system = double_well()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    ensemble = draw(CoarseGrainedModel(Linear(2, width=2.5)), target, 200_000, name="double-well")
    known = system.known

    # 4 standard errors each: one fails for 1 seed in 4000
    assert abs(ensemble.log_z - known["log_z"]) < 4 * ensemble.log_z_error
    masks = system.energy.states(ensemble.x)
    for name, (value, error) in ensemble.populations(masks).items():
        assert abs(value - known["populations"][name]) < 4 * error
        assert error < 0.001
    mean, error = ensemble.expectation(lambda x: x)
    assert ((mean - torch.tensor(known["mean"])).abs() < 4 * error).all()

    # Raw populations are the proposal's own: the barrier is 0.067 widths right of its centre
    raw, error = ensemble.populations(masks, raw=True)["right"]
    exact = 0.5 * math.erfc(system.energy.barrier / 2.5 / math.sqrt(2))
    assert abs(raw - exact) < 4 * error

    # Free energies follow from the populations
    difference, error = ensemble.free_energy_difference(masks["left"], masks["right"])
    p = known["populations"]
    assert abs(difference + math.log(p["right"] / p["left"])) < 4 * error
    free = ensemble.free_energies(masks)
    assert free["right"][0] - free["left"][0] == pytest.approx(difference)
    # One state is rare: its own relative error is nearly all of the difference's
    assert error == pytest.approx(free["right"][1], rel=0.02)


def test_free_energy_error_is_the_spread_over_repetitions() -> None:
    target = harmonic()
    results = []
    for seed in range(300):
        ensemble = draw(CoarseGrainedModel(Linear(1, width=1.4)), target, 1000, seed=seed)
        x = ensemble.x[:, 0]
        results.append(ensemble.free_energy_difference(x < 0.5, x > 1.0))
    values, errors = torch.tensor(results).unbind(1)
    # The spread of 300 is known to 4.1 %: 17 % is 4 standard errors, fails for 1 seed in 16,000
    assert_close(errors.mean(), values.std(), rtol=0.17, atol=0)


def test_one_seed_one_ensemble_and_the_global_state_untouched() -> None:
    model, target = CoarseGrainedModel(Linear(2, width=1.3)), harmonic(2)
    before = torch.get_rng_state()
    first = draw(model, target, 100, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draw(model, target, 100, seed=5).x, first.x)
    assert not torch.equal(draw(model, target, 100, seed=6).x, first.x)
    assert model.training


def test_a_float32_model_gives_float64_weights() -> None:
    model = CoarseGrainedModel(Linear(2, width=1.3)).float()
    ensemble = draw(model, harmonic(2), 100)
    for name in ("x", "y", "energy", "log_weights"):
        assert getattr(ensemble, name).dtype == torch.float64
    # The energy is that of the written positions, to the last digit
    assert_close(Harmonic(2)(ensemble.x), ensemble.energy, rtol=1e-15, atol=0)


def test_invalid_samples_have_no_weight() -> None:
    target = BoltzmannTarget(Harmonic(), Broken(1), temperature_of(1.0))
    ensemble = draw(CoarseGrainedModel(Linear(1)), target, 40_000)
    assert torch.equal(ensemble.valid, ensemble.x[:, 0] <= 0)
    assert ensemble.log_weights[~ensemble.valid].isneginf().all()
    assert ensemble.n_invalid == int((ensemble.x > 0).sum())
    # Half of the mass: log Z falls by log 2; raw averages leave the invalid out as well
    exact = 0.5 * math.log(2 * math.pi) - math.log(2)
    assert abs(ensemble.log_z - exact) < 4 * ensemble.log_z_error
    x = ensemble.x[:, 0]
    assert ensemble.populations({"left": x < 0}, raw=True)["left"] == (1.0, 0.0)


def test_nan_is_not_a_sample() -> None:
    target = BoltzmannTarget(Harmonic(), Broken(1, broken=1.0), temperature_of(1.0))
    ensemble = draw(CoarseGrainedModel(Linear(1)), target, 1000)
    assert ensemble.x.isnan().any()
    assert ensemble.log_weights.isnan().sum() == 0
    assert ensemble.expectation(lambda x: x)[0].isfinite()
    assert not ensemble.valid[ensemble.x[:, 0].isnan()].any()

    target = BoltzmannTarget(Harmonic(), Broken(1, broken=-1.0), temperature_of(1.0))
    with pytest.raises(RuntimeError, match=r"8\d\d of 1000 samples are not finite.*checkpoint"):
        draw(CoarseGrainedModel(Linear(1)), target, 1000)


def test_an_infinite_energy_is_a_weight_of_zero() -> None:
    class Wall(Harmonic):
        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[..., 0] > -1, math.inf, super().energy(x))

    target = BoltzmannTarget(Wall(), Cartesian(1), temperature_of(1.0))
    ensemble = draw(CoarseGrainedModel(Linear(1)), target, 1000)
    assert ensemble.n_invalid == 0
    assert ensemble.populations({"left": ensemble.x[:, 0] < -1})["left"][0] == pytest.approx(1)


def test_folded_rotors_are_drawn_as_any_of_their_copies() -> None:
    class Folded(Cartesian):
        def random_copies(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 - 2 * torch.randint(2, x.shape).to(x))

    target = BoltzmannTarget(Harmonic(), Folded(1), temperature_of(1.0))
    ensemble = draw(CoarseGrainedModel(Linear(1)), target, 1000)
    assert torch.equal(ensemble.x.abs(), ensemble.y.abs())
    assert 400 < int((ensemble.x == ensemble.y).sum()) < 600
    assert ensemble.ess == pytest.approx(1)


def test_resampling_keeps_averages_and_log_z() -> None:
    ensemble = draw(CoarseGrainedModel(Linear(1, width=1.4)), harmonic(), 20_000)
    equal = ensemble.resample(8000, seed=1)
    assert equal.n_samples == len(equal) == 8000
    assert equal.ess == pytest.approx(1)
    assert equal.log_z == pytest.approx(ensemble.log_z)
    (a, da), (b, db) = (e.expectation(lambda x: x[:, 0] ** 2) for e in (ensemble, equal))
    assert abs(a - b) < 4 * math.hypot(da, db)


def test_repr_tells_what_one_has() -> None:
    ensemble = draw(CoarseGrainedModel(Linear(1, width=1.4)), harmonic(), 1000)
    text = repr(ensemble)
    assert text.startswith("Ensemble(n=1000, ess=0.")
    for word in ("log_partition=0.9", " ± 0.0", "k_hat=", "n_energy_calls=1e+03"):
        assert word in text


def test_states_without_samples() -> None:
    ensemble = draw(CoarseGrainedModel(Linear(1)), harmonic(), 100)
    x = ensemble.x[:, 0]
    assert ensemble.populations({"far": x > 50})["far"] == (0.0, 0.0)
    assert ensemble.free_energies({"far": x > 50})["far"] == (math.inf, math.inf)
    kt = BOLTZMANN_CONSTANT * ensemble.temperature
    assert ensemble.free_energies({"half": x > 0})["half"][0] == pytest.approx(
        -kt * math.log(float((x > 0).double().mean()))
    )
    with pytest.raises(ValueError, match="`mask_b` holds no sample with weight"):
        ensemble.free_energy_difference(x < 0, x > 50)


def test_refusals() -> None:
    model, target = CoarseGrainedModel(Linear(1)), harmonic()
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        draw(model, target, 0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got -1"):
        draw(model, target, 10, batch_size=-1)
    ensemble = draw(model, target, 10)
    with pytest.raises(ValueError, match=r"bool of shape \(10,\), got torch.float64"):
        ensemble.populations({"all": torch.ones(10)})
    with pytest.raises(ValueError, match=r"bool of shape \(10,\), got torch.bool of shape \(9,\)"):
        ensemble.populations({"all": torch.ones(9, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no molecule"):
        ensemble.to_mdtraj()

    fields = {n: getattr(ensemble, n) for n in ("x", "y", "z", "energy", "log_weights", "valid")}
    with pytest.raises(ValueError, match="`energy` must hold 10 samples as `x` does, got 9"):
        Ensemble(**(fields | {"energy": ensemble.energy[:9]}), temperature=300.0)
    with pytest.raises(ValueError, match="`log_weights` of valid samples must be finite or -inf"):
        Ensemble(**(fields | {"log_weights": ensemble.energy / 0}), temperature=300.0)
    with pytest.raises(ValueError, match=r"`temperature` must be positive.*got nan"):
        Ensemble(**fields, temperature=math.nan)
