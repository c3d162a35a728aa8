"""The joint model without its training: prior and decoder are fitted, no energy is asked for.

Cannot detect how well the fit went; that takes steps and an energy.
"""

from types import SimpleNamespace

import pytest
import torch

from gencg.coordinates.base import Cartesian
from gencg.discover import fit_joint
from gencg.distributions.solvers import FixedSteps
from gencg.fit import FitResult, fit
from gencg.models.coarse_grained import CoarseGrainedModel
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
