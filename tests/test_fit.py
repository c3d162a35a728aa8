"""Training: resume bit for bit, broken gradients, budgets. Full-size runs live in experiments."""

import math
import signal
from itertools import pairwise

import pytest
import torch

from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gencg.coordinates.base import Cartesian
from gencg.energies.toy import DoubleWell
from gencg.ensemble import draw
from gencg.fit import fit
from gencg.models.build import build_model, choices_of
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.build import samples_kept
from gencg.objectives.covering_kl import CoveringKL
from gencg.systems import alanine_dipeptide, double_well
from gencg.systems.base import System
from gencg.tempering import (
    ESSTempering,
    GeometricLadder,
    KLTempering,
    NoTempering,
    TemperingSchedule,
    TemperingState,
)
from gencg.training import Optimisation, StepInfo, TrainingError
from gencg.units import temperature_of


def _small_model() -> CoarseGrainedModel:
    torch.manual_seed(11)
    return CoarseGrainedModel(
        SplineDecoder(Cartesian(2, scale=3.0), n_soft_layers=2, n_bins=6, soft_hidden=(16,))
    )


class _Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


TEMPERINGS = {"ladder": lambda: None, "ESS": ESSTempering, "KL": KLTempering}


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_a_resumed_run_ends_bit_for_bit_like_one_without_a_stop(tmp_path, tempering) -> None:
    def run(checkpoint, reporters=()):
        return fit(
            double_well(),
            energy_calls=64 * 40,
            batch_size=64,
            tempering=TEMPERINGS[tempering](),
            model=_small_model(),
            checkpoint=checkpoint,
            checkpoint_seconds=0.0,
            reporters=reporters,
            seed=4,
        )

    def kill(info: StepInfo) -> None:
        if info.step == 23:
            raise _Killed

    whole = run(tmp_path / "whole.pt")
    with pytest.raises(_Killed):
        run(tmp_path / "cut.pt", [kill])
    resumed = run(tmp_path / "cut.pt")

    # The resumed run asks once more for the energy of the reference structure
    assert resumed.energy_calls == whole.energy_calls + 1
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    for key, value in whole.state.model.state_dict().items():
        assert torch.equal(value, resumed.state.model.state_dict()[key]), key
    assert [i.loss for i in whole.history] == [i.loss for i in resumed.history]


def test_a_training_that_an_earlier_version_began_ends_without_what_it_had_not(tmp_path) -> None:
    def run(checkpoint, reporters=(), **options):
        return fit(double_well(), energy_calls=64 * 20, batch_size=64, model=_small_model(),
                   checkpoint=checkpoint, checkpoint_seconds=0.0, reporters=reporters, seed=4,
                   **options)  # fmt: skip

    def kill(info: StepInfo) -> None:
        if info.step == 10:
            raise _Killed

    def kill_later(info: StepInfo) -> None:
        if info.step == 15:
            raise _Killed

    options = {"n_samples": 64, "n_kept": samples_kept(64, 20)}
    before = {"variance": 0.0, "nudges": 0.0, "stiff_order": 0.5}
    options |= before
    target = run(None).target
    whole = run(tmp_path / "whole.pt", objective=CoveringKL(target, **options))
    with pytest.raises(_Killed):
        run(tmp_path / "cut.pt", [kill], objective=CoveringKL(target, **options))
    content = load_checkpoint(tmp_path / "cut.pt")
    assert {name: content["settings"].pop(name) for name in before} == before
    assert (content["objective"]["memory"].pop("log_soft") == 0).all()
    save_checkpoint(tmp_path / "cut.pt", content)
    # It may be interrupted again, and its end is read as it is
    with pytest.raises(_Killed):
        run(tmp_path / "cut.pt", [kill_later])
    run(tmp_path / "cut.pt")
    resumed = run(tmp_path / "cut.pt")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    assert before.items() <= load_checkpoint(tmp_path / "cut.pt")["settings"].items()
    # What is begun now has all of it
    now = {"variance": 1.0, "nudges": 0.5, "stiff_order": 0.25}
    assert now.items() <= run(None).state.settings.items()


def test_the_model_of_a_checkpoint_is_built_as_it_was(tmp_path) -> None:
    system = alanine_dipeptide()
    couplings = build_model(system.coordinates, autoregressive=False)
    words = {"energy_calls": 64, "batch_size": 16, "checkpoint": tmp_path / "a.pt"}
    before = fit(system, model=couplings, **words)
    again = fit(system, **words)
    assert not choices_of(again.model.state_dict())["autoregressive"]
    for key, value in before.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


def test_a_finished_run_is_not_trained_again(tmp_path) -> None:
    options = {"energy_calls": 640, "batch_size": 64, "checkpoint": tmp_path / "c.pt"}
    first = fit(double_well(), model=_small_model(), **options)
    seen: list[StepInfo] = []
    again = fit(double_well(), model=_small_model(), reporters=[seen.append], **options)
    assert seen == []
    assert again.energy_calls == first.energy_calls


def test_the_seed_decides_everything() -> None:
    def run(seed):
        return fit(double_well(), energy_calls=640, batch_size=64, seed=seed).state.history[-1].loss

    assert run(1) == run(1) != run(2)


def test_energy_calls_are_counted_and_stay_in_the_budget() -> None:
    system = double_well()
    result = fit(system, energy_calls=1000, batch_size=64, model=_small_model())
    # One more for the energy of the reference structure
    assert result.energy_calls == system.energy.n_energy_calls == 15 * 64 + 1
    assert result.gradient_calls == system.energy.n_gradient_calls == 15 * 64
    assert result.history[-1].step == 15


def test_training_ends_at_the_target_temperature() -> None:
    system = double_well()
    result = fit(system, energy_calls=3200, batch_size=64, model=_small_model())
    assert result.history[-1].beta == result.target.beta
    assert result.history[0].temperature == pytest.approx(4 * system.temperature, rel=0.01)
    betas = [rung.beta for rung in result.ladder]
    assert betas == sorted(betas)
    # A quarter of the configurations are walkers' moves
    assert result.ladder[0].y.shape == (48, 2)


class _Watching(TemperingSchedule):
    """Cool at every question, and keep what was shown."""

    start, interval = 4.0, 3

    def __init__(self) -> None:
        self.shown: list[tuple[float, TemperingState]] = []

    def next(self, beta, state, *, target):
        self.shown.append((beta, state))
        return min(1.1 * beta, target)


def test_a_schedule_sees_weights_at_the_present_beta() -> None:
    schedule = _Watching()
    fit(
        double_well(), energy_calls=64 * 12, batch_size=64, model=_small_model(),
        tempering=schedule,
    )  # fmt: skip
    # Six batches are shown, three of them for the second time and after a change of beta
    (beta_1, first), (beta_2, second) = schedule.shown[2:4]
    assert beta_2 == 1.1 * beta_1
    n = 3 * 48
    assert len(second.energy) == 2 * n
    again = first.log_weights[n:] - (beta_2 - beta_1) * first.energy[n:]
    assert torch.equal(first.energy[n:], second.energy[:n])
    torch.testing.assert_close(second.log_weights[:n], again)


class _Fixed(Objective):
    """Two good samples, one that is not finite, one without weight."""

    def evaluate(self, model, beta):
        loss = sum(p.square().sum() for p in model.parameters())
        weights = torch.tensor([0.0, math.nan, 0.0, -math.inf])
        zero = torch.zeros(4)
        return Evaluation(loss, torch.zeros(4, 2), energy=zero, log_det=zero, log_weights=weights)


def test_the_ess_of_a_batch_counts_broken_samples_as_drawn() -> None:
    result = fit(
        double_well(), energy_calls=640, batch_size=64, model=_small_model(), objective=_Fixed()
    )
    assert {info.ess for info in result.history} == {0.5}


class _Breaking(DoubleWell):
    """Not finite anywhere from its n-th batch on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.batches, self.first, self.last = 0, first, math.inf

    def energy_and_gradient(self, x):
        value, gradient = super().energy_and_gradient(x)
        self.batches += 1
        if self.first <= self.batches <= self.last:
            value = torch.full_like(value, math.nan)
        return value, gradient


def _breaking_system(energy: DoubleWell) -> System:
    return System("breaking", energy, Cartesian(2, scale=3.0), temperature_of(1.0))


def test_a_run_that_cannot_recover_stops_and_keeps_its_last_good_checkpoint(tmp_path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(TrainingError, match=r"not finite.*last good state at step \d+ in .*c\.pt"):
        fit(
            _breaking_system(_Breaking(10)),
            energy_calls=64 * 400,
            batch_size=64,
            model=_small_model(),
            checkpoint=path,
        )
    content = load_checkpoint(path)
    assert content["step"] <= 9
    for part in ("model", "average"):
        assert all(torch.isfinite(v).all() for v in content[part].values())


def test_no_checkpoint_is_written_while_gradients_are_not_finite(tmp_path) -> None:
    path = tmp_path / "c.pt"
    steps = []

    def report(info: StepInfo) -> None:
        steps.append(load_checkpoint(path)["step"] if path.exists() else 0)
        if info.step == 25:
            raise _Killed

    with pytest.raises(_Killed):
        fit(
            _breaking_system(_Breaking(10)), energy_calls=64 * 40, batch_size=64,
            model=_small_model(), estimator="path", checkpoint=path, checkpoint_seconds=0.0,
            reporters=[report],
        )  # fmt: skip
    assert steps[8:10] == [8, 9]
    assert set(steps[10:]) == {9}


def test_samples_of_the_ladder_carry_the_beta_they_were_drawn_at() -> None:
    energy = _Breaking(10)
    energy.last = 35
    result = fit(
        _breaking_system(energy), energy_calls=64 * 60, batch_size=64, model=_small_model(),
        estimator="path",
    )  # fmt: skip
    # Step 29, the twentieth to fail, returned to a hotter state after it had drawn its samples
    betas = {info.step: info.beta for info in result.history}
    assert betas[29] == pytest.approx(result.target.beta * 4 ** (28 / 30 - 1))
    assert [rung.beta for rung in result.ladder] == list(betas.values())


@pytest.mark.parametrize("estimator, batches_per_step", [("path", 1), ("covering", 2)])
def test_a_run_recovers_from_a_bad_stretch(estimator, batches_per_step) -> None:
    energy = _Breaking(10)
    energy.last = 9 + 26 * batches_per_step
    result = fit(
        _breaking_system(energy), energy_calls=64 * 60, batch_size=64, model=_small_model(),
        estimator=estimator,
    )  # fmt: skip
    assert result.state.n_restored == 1
    # Half the rate at first, and the whole again before the end
    factors = [i.learning_rate / Optimisation().rate(i.step - 1, 60) for i in result.history]
    first = next(k for k, info in enumerate(result.history) if info.n_restored)
    assert factors[first : first + 2] == [1.0, 0.5]
    assert all(a <= b for a, b in pairwise(factors[first + 1 :]))
    assert result.state.rate_factor == 1.0
    assert result.state.step == 60
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


def test_a_resumed_run_returns_to_the_same_good_state(tmp_path) -> None:
    def run(name, energy, reporters=()):
        return fit(
            _breaking_system(energy),
            energy_calls=16 * 200,
            batch_size=16,
            model=_small_model(),
            estimator="path",
            tempering=ESSTempering(),
            checkpoint=tmp_path / name,
            checkpoint_seconds=0.0,
            reporters=reporters,
        )

    def bad_stretch(done: int) -> _Breaking:
        energy = _Breaking(12)
        energy.batches, energy.last = done, 36
        return energy

    def kill(info: StepInfo) -> None:
        if info.step == 20:
            raise _Killed

    whole = run("whole.pt", bad_stretch(0))
    with pytest.raises(_Killed):
        run("cut.pt", bad_stretch(0), [kill])
    # The good state is older than the checkpoint: it is kept every third step
    content = load_checkpoint(tmp_path / "cut.pt")
    assert (content["step"], content["good"]["step"]) == (11, 8)
    resumed = run("cut.pt", bad_stretch(11))

    assert whole.state.n_restored == resumed.state.n_restored == 1
    for key, value in whole.state.model.state_dict().items():
        assert torch.equal(value, resumed.state.model.state_dict()[key]), key
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    # Losses that are not finite are not equal to themselves
    assert [str(i.loss) for i in whole.history] == [str(i.loss) for i in resumed.history]
    assert [rung.beta for rung in whole.ladder] == [rung.beta for rung in resumed.ladder]


class _HalfBroken(Objective):
    """A finite loss over the few samples of each batch that are finite."""

    def __init__(self, n_invalid: int) -> None:
        self.n_invalid = n_invalid

    def evaluate(self, model, beta):
        loss = sum(p.square().sum() for p in model.parameters())
        zero = torch.zeros(10)
        return Evaluation(loss, torch.zeros(10, 2), zero, zero, zero, n_invalid=self.n_invalid)


def test_a_run_whose_samples_are_mostly_broken_stops(tmp_path) -> None:
    def run(n_invalid):
        return fit(
            double_well(), energy_calls=64 * 40, batch_size=64, model=_small_model(),
            objective=_HalfBroken(n_invalid), checkpoint=tmp_path / f"{n_invalid}.pt",
        )  # fmt: skip

    assert run(5).state.step == 40
    with pytest.raises(TrainingError, match=r"60% of the samples were not finite.*state at step 0"):
        run(6)


def test_an_interrupted_run_goes_on_after_its_last_whole_step(tmp_path) -> None:
    def run(reporters=()):
        return fit(
            double_well(), energy_calls=640, batch_size=64, model=_small_model(),
            checkpoint=tmp_path / "c.pt", reporters=reporters,
        )  # fmt: skip

    def interrupt(info: StepInfo) -> None:
        if info.step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run([interrupt])
    assert load_checkpoint(tmp_path / "c.pt")["step"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen: list[StepInfo] = []
    run([seen.append])
    assert [info.step for info in seen] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"temperature": 100.0}, "temperature=120.2.*, asked is 100.0"),
        ({"batch_size": 32, "energy_calls": 320}, "batch_size=64, asked is 32"),
        ({"tempering": NoTempering()}, "tempering=GeometricLadder, asked is NoTempering"),
        ({"tempering": GeometricLadder(start=2.0)}, "start=4.0, asked is 2.0"),
        ({"estimator": "path"}, "objective=CoveringKL, asked is ReverseKL"),
        ({"objective": _Fixed()}, "objective=CoveringKL, asked is _Fixed"),
        ({"optimisation": Optimisation(learning_rate=0.1)}, "learning_rate=0.003, asked is 0.1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change, words) -> None:
    options = {"energy_calls": 640, "batch_size": 64, "checkpoint": tmp_path / "c.pt"}
    with pytest.raises(_Killed):
        fit(double_well(), model=_small_model(), reporters=[_kill_at_once], **options)
    with pytest.raises(CheckpointError, match=f"belongs to a run with {words}; use another"):
        fit(double_well(), model=_small_model(), **(options | change))


def _kill_at_once(_: StepInfo) -> None:
    raise _Killed


def test_a_checkpoint_of_another_run_is_refused(tmp_path) -> None:
    path = tmp_path / "c.pt"
    fit(double_well(), energy_calls=640, batch_size=64, model=_small_model(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="run with seed=0, asked is 1"):
        fit(double_well(), energy_calls=640, batch_size=64, checkpoint=path, seed=1)
    with pytest.raises(ValueError, match="run with n_steps=10, asked is 20"):
        fit(double_well(), energy_calls=1280, batch_size=64, checkpoint=path)
    with pytest.raises(ValueError, match="does not fit this model"):
        fit(double_well(), energy_calls=640, batch_size=64, checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_without_its_parts_is_refused(tmp_path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"seed": 0, "n_steps": 10})
    with pytest.raises(ValueError, match="does not fit this model"):
        fit(double_well(), energy_calls=640, batch_size=64, checkpoint=path)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: fit(double_well(), energy_calls=100), "must allow two steps of batch_size=512"),
        (lambda: fit(double_well(), energy_calls=math.nan), "`energy_calls` must be a positive"),
        (lambda: fit(double_well(), temperature=-1.0), "`temperature` must be positive"),
        (lambda: fit(double_well(), temperature=math.nan), "`temperature` must be positive"),
        (lambda: Optimisation(learning_rate=0.0), "`learning_rate` must be positive, got 0.0"),
        (lambda: Optimisation(warm_up=-1), "`warm_up` must not be negative, got -1"),
        (lambda: Optimisation(max_gradient_norm=0), "`max_gradient_norm` must be positive"),
        (lambda: Optimisation(averaging=1.0), r"`averaging` must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_refused(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
def test_the_double_well_is_solved_with_its_rare_well() -> None:
    system = double_well()
    result = fit(system, energy_calls=3e5, batch_size=512)
    ensemble = draw(result.model, result.target, 200_000)
    assert abs(ensemble.log_z - 12.0649) < 0.02
    right = ensemble.populations({"right": ensemble.x[:, 0] > 0})["right"]
    # Two standard errors of the reweighted share on top of the bar
    assert abs(right[0] - 0.00835) < 0.003


def test_the_soft_block_is_kept_at_hotter_stages() -> None:
    result = fit(double_well(), energy_calls=64 * 60, batch_size=64, model=_small_model())
    betas = [beta for beta, _ in result.state.snapshots]
    assert len(betas) == 3
    for beta, factor in zip(betas, (3.0, 2.0, 1.4), strict=True):
        assert result.target.beta / factor <= beta < 1.2 * result.target.beta / factor
    own = result.model.decoder.flow.soft.state_dict()
    assert result.snapshots[0].keys() == own.keys()
    assert any(not torch.equal(result.snapshots[0][k], own[k]) for k in own)


@pytest.mark.parametrize("start, n_snapshots", [(3.0, 2), (1.5, 1), (1.0, 0)])
def test_no_untrained_soft_block_is_kept(start, n_snapshots) -> None:
    result = fit(
        double_well(), energy_calls=64 * 20, batch_size=64, model=_small_model(),
        tempering=GeometricLadder(start=start),
    )  # fmt: skip
    assert len(result.snapshots) == n_snapshots
    betas = [beta for beta, _ in result.state.snapshots]
    assert all(beta > result.target.beta / start for beta in betas)
