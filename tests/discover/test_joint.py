"""The joint model without its training: prior and decoder are fitted, no energy is asked for.

Cannot detect how well the fit went; that takes steps and an energy.
"""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from gencg.checkpoint import CheckpointError, load_checkpoint
from gencg.coordinates.base import Cartesian
from gencg.deadline import TimeIsUp
from gencg.discover import REFIT, fit_joint
from gencg.discover import refit as refitting
from gencg.discover.refit import log_ratio, refit_soft, soft_ess
from gencg.distributions.solvers import FixedSteps
from gencg.fit import FitResult, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import collective_model
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.systems import double_well
from gencg.training import MAX_SKIPPED, TrainingError

STEPS = FixedSteps(3)
DECODERS = {
    "spline": lambda c: SplineDecoder(c, n_soft_layers=2, n_bins=4, soft_hidden=(8,)),
    "flow matching": lambda c: FlowMatchingDecoder(
        c, n_soft_units=8, hidden=(8,), soft_solver=STEPS, stiff_solver=STEPS
    ),
}


def _generator(decoder: str) -> FitResult:
    torch.manual_seed(3)
    model = CoarseGrainedModel(DECODERS[decoder](Cartesian(2, scale=3.0)))
    return fit(double_well(), energy_calls=128, batch_size=64, model=model)


@pytest.mark.parametrize("decoder", DECODERS)
def test_no_budget_leaves_the_joint_training_out(tmp_path, decoder) -> None:
    result = _generator(decoder)
    cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=False, n_steps=0).double()
    slow = SimpleNamespace(map=cv_map)
    path, steps, calls = tmp_path / "joint.pt", [], result.system.energy.n_energy_calls

    def run() -> FitResult:
        return fit_joint(
            result, slow, energy_calls=0, n_refit_steps=2, checkpoint=path, reporters=[steps.append]
        )

    joint = run()
    assert (joint.state.step, joint.state.n_steps, joint.energy_calls) == (0, 0, 0)
    assert steps == []
    assert result.system.energy.n_energy_calls == calls
    z, y, _ = joint.model.sample(5)
    assert (z.shape, y.shape) == ((5, 1), (5, 2))

    # The second time the model is read from the file
    again = run()
    for key, value in joint.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key

    # Its own resolution counts, in the decoder too
    other = fit_joint(result, slow, energy_calls=0, resolution=0.3, checkpoint=path)
    assert other.model.decoder.flow.resolution == pytest.approx(0.1)
    assert float(other.model.encoder.resolution) == pytest.approx(0.1)


def _bent() -> FitResult:
    """The same with a soft block that is far from a normal density."""
    result = _generator("spline")
    torch.manual_seed(1)
    for parameter in result.model.decoder.flow.soft.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return result


def _joint(result: FitResult) -> CoarseGrainedModel:
    torch.manual_seed(0)
    cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=False, n_steps=0)
    model = result.model
    with torch.no_grad():
        cv_map.standardise(model.sample(2000)[1].float())
    return collective_model(model, cv_map, width=16).to(model.rows(0).dtype)


def test_fit_of_the_variance_leaves_less_of_it() -> None:
    result = _bent()
    generator = result.model
    spread, left, ess = {}, {}, {}
    for finish in (0.0, 0.5):
        model = _joint(result)
        refit_soft(model, generator, n_steps=100, batch_size=200, finish=finish)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            ratio = log_ratio(model, generator, 8000)
        spread[finish], left[finish] = float(ratio.std()), float(ratio.mean())
        ess[finish] = soft_ess(model, generator, 8000)
        # Both densities are normalised: E_q0 [ q / q0 ] = 1; standard error 0.002
        assert float((-ratio).exp().mean()) == pytest.approx(1.0, abs=0.01)
        # Weights of variance s² have an ESS of 1 / (1 + s²) or so
        assert ess[finish] == pytest.approx(1 / (1 + spread[finish] ** 2), abs=0.02)
        assert left[finish] < 0.03
    assert spread[0.5] < spread[0.0]
    assert ess[0.5] > ess[0.0]


def test_refit_takes_either_optimiser_and_refuses_others() -> None:
    result = _bent()
    found = {}
    for optimiser in ("adam", "muon"):
        model = _joint(result)
        before = float(log_ratio(model, result.model, 2000).mean().detach())
        found[optimiser] = refit_soft(
            model, result.model, n_steps=40, batch_size=200, optimiser=optimiser
        )
        assert found[optimiser] < 0.3 * before
    assert found["adam"] != found["muon"]
    with pytest.raises(ValueError, match="`optimiser` must be adam or muon, got 'sgd'"):
        refit_soft(model, result.model, optimiser="sgd")
    with pytest.raises(ValueError, match=r"`finish` must lie in \[0, 1\], got 2"):
        refit_soft(model, result.model, finish=2)


def _same(one: CoarseGrainedModel, other: CoarseGrainedModel) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_fit_in_slices_is_the_whole_one(tmp_path, optimiser) -> None:
    result, path = _bent(), tmp_path / REFIT
    options = {"n_steps": 12, "batch_size": 50, "optimiser": optimiser}
    whole = _joint(result)
    left = refit_soft(whole, result.model, **options)
    # Stopped on the way through the divergence, then through the variance; then killed
    for step, more in ((4, 4), (9, 5)):
        stop = iter([False] * more + [True]).__next__
        words = f"time is up at step {step} of 12 .* prior and decoder, which goes on from .*refit"
        with pytest.raises(TimeIsUp, match=words):
            refit_soft(_joint(result), result.model, checkpoint=path, stop=stop, **options)

    def killed() -> bool:
        if load_checkpoint(path)["step"] == 10:
            raise KeyboardInterrupt
        return False

    refit = partial(refit_soft, checkpoint=path, checkpoint_seconds=0.0, **options)
    with pytest.raises(KeyboardInterrupt):
        refit(_joint(result), result.model, stop=killed)
    sliced = _joint(result)
    assert not _same(sliced, whole)
    assert refit(sliced, result.model) == left
    assert _same(sliced, whole)
    # Once more nothing is left to do, and nothing is written
    written = path.stat().st_mtime_ns
    again = _joint(result)
    assert refit(again, result.model) == left
    assert _same(again, whole)
    assert path.stat().st_mtime_ns == written


def test_a_checkpoint_of_another_fit_is_refused(tmp_path) -> None:
    result, path = _bent(), tmp_path / REFIT
    options = {"n_steps": 2, "batch_size": 50, "checkpoint": path}
    refit_soft(_joint(result), result.model, **options)
    for other in (
        {"n_steps": 3},
        {"batch_size": 60},
        {"learning_rate": 0.1},
        {"optimiser": "adam"},
        {"finish": 0.0},
        {"seed": 1},
    ):
        ((name, value),) = other.items()
        words = rf"refit.pt is of a fit with {name}=.*, asked is {value}; remove that file alone"
        with pytest.raises(CheckpointError, match=words):
            refit_soft(_joint(result), result.model, **options | other)
    # Of the same shapes, and another fit
    turned = collective_model(
        result.model, CollectiveMap(torch.eye(2).flip(0), n_cvs=1, periodic=False, n_steps=0)
    )
    with pytest.raises(CheckpointError, match="around another CV map or generator; remove that"):
        refit_soft(turned.double(), result.model, **options)
    own = _joint(result).decoder.flow.map
    wider = collective_model(result.model, own, width=24)
    with pytest.raises(CheckpointError, match=r"refit.pt does not fit this model \(.*begins again"):
        refit_soft(wider.double(), result.model, **options)


def _planted(monkeypatch: pytest.MonkeyPatch, broken: set[int]) -> None:
    """NaN in the log ratios of some steps."""
    calls = iter(range(10**6))

    def ratio(*args) -> torch.Tensor:
        found = log_ratio(*args)
        return found * torch.nan if next(calls) in broken else found

    monkeypatch.setattr(refitting, "log_ratio", ratio)


def test_a_step_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _bent()
    before = _joint(result)
    _planted(monkeypatch, {0, 1})
    model = _joint(result)
    assert math.isnan(refit_soft(model, result.model, n_steps=2, batch_size=50))
    assert _same(model, before)
    _planted(monkeypatch, {1, 3})
    assert math.isfinite(refit_soft(model, result.model, n_steps=4, batch_size=50))
    assert not _same(model, before)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_too_many_in_a_row_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    result, path = _bent(), tmp_path / REFIT
    _planted(monkeypatch, set(range(3, 3 + MAX_SKIPPED)))
    refit = partial(refit_soft, n_steps=40, batch_size=50, checkpoint=path, checkpoint_seconds=0.0)
    words = (
        f"fit of prior and decoder .* in {MAX_SKIPPED} steps in a row, up to step 23 of 40; lower"
    )
    with pytest.raises(TrainingError, match=words):
        refit(_joint(result), result.model)
    # The file holds the steps up to the last one; how many were skipped is not forgotten
    assert load_checkpoint(path)["n_skipped"] == MAX_SKIPPED - 1
    _planted(monkeypatch, {0})
    with pytest.raises(TrainingError):
        refit(_joint(result), result.model)


@pytest.mark.parametrize("energy_calls", [0, 64])
def test_the_forward_fit_is_kept_until_the_joint_model_is(tmp_path, energy_calls) -> None:
    result = _generator("spline")
    cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=False, n_steps=0).double()
    joint = partial(
        fit_joint, result, SimpleNamespace(map=cv_map), energy_calls=energy_calls, batch_size=16,
        n_refit_steps=3,
    )  # fmt: skip
    folder, path = tmp_path / "run", tmp_path / "run" / "joint.pt"
    folder.mkdir()
    with pytest.raises(TimeIsUp, match="at step 2 of 3 in the fit of prior and decoder"):
        joint(checkpoint=path, stop=iter([False, False, True]).__next__)
    assert [file.name for file in folder.iterdir()] == [REFIT]
    found = joint(checkpoint=path)
    assert [file.name for file in folder.iterdir()] == ["joint.pt"]
    assert _same(found.model, joint(checkpoint=tmp_path / "joint.pt").model)
    # One that a kill left goes with the next start
    (folder / REFIT).touch()
    joint(checkpoint=path)
    assert [file.name for file in folder.iterdir()] == ["joint.pt"]


def test_around_a_continuous_flow_the_joint_model_trains_on() -> None:
    result = _generator("flow matching")
    cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=False, n_steps=0).double()
    joint = fit_joint(
        result, SimpleNamespace(map=cv_map), energy_calls=64, n_refit_steps=2, batch_size=16
    )
    assert joint.energy_calls >= 64
    assert joint.state.step == 4
    # As it is built, the velocity of the coordinates beside the CVs is zero
    (layer,) = joint.model.decoder.flow.rest.layers
    assert layer.field.net.layers[-1].weight.abs().max() > 0
    z, y, log_q = joint.model.sample(6)
    assert torch.isfinite(joint.model.log_prob(z, y) + joint.model.log_encoder(z, y) + log_q).all()
