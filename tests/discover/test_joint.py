"""The joint model without its training: prior and decoder are fitted, no energy is asked for.

Cannot detect how well the fit went; that takes steps and an energy.
"""

from types import SimpleNamespace

import torch

from gencg.coordinates.base import Cartesian
from gencg.discover import fit_joint
from gencg.fit import FitResult, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.systems import double_well


def _generator() -> FitResult:
    torch.manual_seed(3)
    decoder = SplineDecoder(Cartesian(2, scale=3.0), n_soft_layers=2, n_bins=4, soft_hidden=(8,))
    return fit(
        double_well(), energy_calls=128, batch_size=64, model=CoarseGrainedModel(decoder)
    )  # fmt: skip


def test_no_budget_leaves_the_joint_training_out(tmp_path) -> None:
    result = _generator()
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
