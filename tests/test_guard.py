"""Lost ground: what the comparison says, and that a planted divergence is left and noise is not.

The double well in float64. Cannot detect: whether the limits suit a molecule; experiments do.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

import gencg.training
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.coordinates.base import Cartesian
from gencg.ensemble import draw
from gencg.fit import FitResult, fit
from gencg.guard import FARTHEST, MOST_LOST, Standing, has_lost_ground
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.objectives.base import Evaluation, Objective
from gencg.optimisers import MuonAdam
from gencg.run.metrics import MetricsWriter, read_metrics
from gencg.systems import double_well
from gencg.training import Optimisation, StepInfo

N_STEPS, BATCH = 120, 64


def _normal(n: int, *, beta: float, q: float, seed: int = 0) -> Standing:
    """Samples of N(0, 1/q) with energy y²/2, weighted to an inverse temperature."""
    y = torch.randn(n, generator=torch.Generator().manual_seed(seed)) / math.sqrt(q)
    energy = y.square() / 2
    return Standing(beta, energy, (q - beta) * energy - 0.5 * math.log(q / (2 * math.pi)))


def test_the_bound_at_another_temperature_is_that_of_the_same_samples_weighted_there() -> None:
    hot, cold = _normal(500, beta=0.5, q=0.7), _normal(500, beta=1.25, q=0.7)
    assert hot.bound(1.25) == pytest.approx(cold.bound(1.25), rel=1e-12)
    # KL(q | p) - log Z of two normals, in closed form
    beta, q = 1.25, 0.7
    exact = 0.5 * (beta / q - 1 + math.log(q / (2 * math.pi)))
    bound, error = _normal(200_000, beta=0.5, q=q).bound(beta)
    assert error == pytest.approx(math.sqrt(0.5) * abs(beta / q - 1) / math.sqrt(200_000), rel=0.02)
    assert abs(bound - exact) < 4 * error


@pytest.mark.parametrize("height", [1e3, 1e12, math.inf, math.nan])
def test_a_sample_counts_as_no_farther_than_the_limit_above_the_median(height: float) -> None:
    weights = torch.zeros(10)
    weights[3] = -height
    bound, _ = Standing(1.0, torch.zeros(10), weights).bound(1.0)
    assert bound == pytest.approx(FARTHEST / 10)


def test_cooling_alone_loses_no_ground_and_a_worse_generator_does() -> None:
    before = _normal(400, beta=0.25, q=0.25, seed=1)
    assert not has_lost_ground(_normal(400, beta=1.0, q=0.25, seed=2), before)
    # The bound of the earlier samples is lower by the ground that is lost
    for lost, there in ((MOST_LOST / 2, False), (3 * MOST_LOST, True)):
        now = _normal(400, beta=1.0, q=0.25, seed=2)
        worse = replace(now, log_weights=now.log_weights - lost)
        assert has_lost_ground(worse, before) is there


def test_without_a_finite_sample_nothing_is_said() -> None:
    good, none = (
        _normal(9, beta=1.0, q=1.0),
        Standing(1.0, torch.zeros(9), torch.full((9,), -math.inf)),
    )
    assert not has_lost_ground(none, good)
    assert not has_lost_ground(good, none)


def _model() -> CoarseGrainedModel:
    torch.manual_seed(11)
    return CoarseGrainedModel(
        SplineDecoder(Cartesian(2, scale=3.0), n_soft_layers=2, n_bins=6, soft_hidden=(16,))
    )


class Leaping(MuonAdam):
    """One step a thousand times too long."""

    def __init__(self, model, *, lr: float, n: int, done: int) -> None:
        super().__init__(model, lr=lr)
        self.n, self.done = n, done

    def step(self, closure=None) -> None:
        self.done += 1
        if self.done == self.n:
            for group in self.param_groups:
                group["lr"] *= 1000
        super().step()


@dataclass(frozen=True)
class Leap(Optimisation):
    """A leap in the n-th step of the optimiser, of which some are done."""

    n: int = 0
    done: int = 0

    def build(self, model):
        return Leaping(model, lr=self.learning_rate, n=self.n, done=self.done)


def _fit(**options) -> FitResult:
    # Also where a fixture of the whole file asks
    torch.set_default_dtype(torch.float64)
    return fit(
        double_well(), energy_calls=N_STEPS * BATCH, batch_size=BATCH, model=_model(), **options
    )


def _log_z(result: FitResult) -> tuple[float, float]:
    ensemble = draw(result.model, result.target, 20_000, seed=1)
    return ensemble.log_z, ensemble.ess


LEAP = Leap(learning_rate=1e-2, n=35)
PLAIN = Leap(learning_rate=1e-2)
EXACT = 12.0649


@pytest.fixture(scope="module")
def plain() -> FitResult:
    """A training without a leap."""
    return _fit(optimisation=PLAIN)


@pytest.fixture(scope="module")
def leapt(tmp_path_factory) -> tuple[FitResult, list[StepInfo]]:
    """One with, and its table."""
    path = tmp_path_factory.mktemp("leap") / "metrics.csv"
    with MetricsWriter(path) as metrics:
        result = _fit(optimisation=LEAP, reporters=[metrics])
    return result, read_metrics(path)


def test_a_planted_leap_is_left_and_the_end_is_as_good_as_without(plain, leapt) -> None:
    result, _ = leapt
    assert (plain.state.n_restored, result.state.n_restored) == (0, 1)
    (log_z, ess), (log_z_plain, ess_plain) = _log_z(result), _log_z(plain)
    assert abs(log_z - EXACT) < 0.05
    assert abs(log_z_plain - EXACT) < 0.05
    # Twenty steps of 120 are lost, and others go at half the rate
    assert ess > 0.6 * ess_plain
    # Calls of the steps that were lost are counted
    assert result.energy_calls == plain.energy_calls
    assert result.state.step == N_STEPS


def test_what_the_guard_does_is_seen_when_it_is_off(monkeypatch) -> None:
    monkeypatch.setattr(gencg.training, "MAX_WORSE", N_STEPS)
    result = _fit(optimisation=LEAP)
    assert result.state.n_restored == 0
    assert _log_z(result)[1] < 0.2


def test_a_restored_step_is_seen_in_the_log_and_the_rate_recovers(leapt) -> None:
    result, lines = leapt
    assert [line.step for line in lines] == list(range(1, N_STEPS + 1))
    (first,) = [b for a, b in pairwise(lines) if b.n_restored > a.n_restored]
    assert math.isnan(first.gradient_norm)
    factors = [i.learning_rate / LEAP.rate(i.step - 1, N_STEPS) for i in lines[first.step :]]
    assert factors[0] == 0.5
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(1.0)
    # The history kept is that of the state returned to, and of what came after
    assert len(result.history) < N_STEPS


class _Noisy(Objective):
    """A generator that stays as it is; the heights of its samples have tails without a mean."""

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def evaluate(self, model, beta):
        loss = sum(p.square().sum() for p in model.parameters() if p.numel())
        height = self.spread * torch.randn(BATCH) / torch.rand(BATCH).sqrt()
        energy = torch.randn(BATCH).square()
        weights = -height - beta * energy
        return Evaluation(loss, torch.zeros(BATCH, 2), energy, torch.zeros(BATCH), weights)


@pytest.mark.parametrize("spread", [0.1, 3.0, 100.0])
def test_noise_alone_is_never_restored(spread: float) -> None:
    seen: list[int] = []
    result = _fit(objective=_Noisy(spread), reporters=[lambda i: seen.append(i.n_restored)])
    assert seen[-1] == result.state.n_restored == 0


def test_small_noisy_batches_of_a_true_training_are_never_restored() -> None:
    result = fit(
        double_well(), energy_calls=8 * 120, batch_size=8, model=_model(),
        optimisation=Optimisation(learning_rate=1e-2),
    )  # fmt: skip
    assert result.state.n_restored == 0


class _Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("killed_at", [45, 70], ids=["amid", "after"])
def test_a_run_killed_around_a_divergence_ends_bit_for_bit_like_one_without_a_stop(
    leapt, tmp_path, killed_at: int, monkeypatch
) -> None:
    def kill(info: StepInfo) -> None:
        if info.step == killed_at:
            raise _Killed

    whole, _ = leapt
    cut = tmp_path / "cut.pt"
    with pytest.raises(_Killed):
        _fit(optimisation=LEAP, checkpoint=cut, checkpoint_seconds=0.0, reporters=[kill])
    done = load_checkpoint(cut)["step"]
    assert done == killed_at - 1
    # The leap is of the optimiser of this test: it does not know what was done
    monkeypatch.setattr(Leap, "build", lambda self, model: Leaping(model, lr=1e-2, n=35, done=done))
    resumed = _fit(optimisation=LEAP, checkpoint=cut)
    assert resumed.state.n_restored == whole.state.n_restored == 1
    for a, b in ((resumed.model, whole.model), (resumed.state.model, whole.state.model)):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key
    assert [str(i.loss) for i in resumed.history] == [str(i.loss) for i in whole.history]


def test_the_guard_leaves_a_training_without_divergence_bit_for_bit(plain, monkeypatch) -> None:
    monkeypatch.setattr(gencg.training, "has_lost_ground", lambda now, before: False)
    unguarded = _fit(optimisation=PLAIN)
    for a, b in zip(plain.model.parameters(), unguarded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_before_the_guard_goes_on(plain, tmp_path) -> None:
    path = tmp_path / "c.pt"

    def kill(info: StepInfo) -> None:
        if info.step == 20:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(optimisation=PLAIN, checkpoint=path, checkpoint_seconds=0.0, reporters=[kill])
    content = load_checkpoint(path)
    for part in (content, content["good"]):
        del part["n_worse"]
    del content["good"]["standing"]
    for line in content["history"]:
        del line["n_restored"]
    save_checkpoint(path, content)
    resumed = _fit(optimisation=PLAIN, checkpoint=path)
    for a, b in zip(resumed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)
