"""The joint model without its training: prior and decoder are fitted, no energy is asked for.

Cannot detect how well the fit went; that takes steps and an energy.
"""

from types import SimpleNamespace

import pytest
import torch

from gencg.coordinates.base import Cartesian
from gencg.discover import fit_joint
from gencg.discover.refit import log_ratio, refit_soft, soft_ess
from gencg.distributions.solvers import FixedSteps
from gencg.fit import FitResult, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import collective_model
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.systems import double_well

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
