"""Forward ESS: near one for a generator that is right, near zero for one that lost a well.

Cannot detect: correlated frames, whose errors are those of their blocks.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gencg.analysis import forward_ess
from gencg.fit import FitResult, fit
from gencg.systems import double_well


def frames(n: int, seed: int = 0) -> torch.Tensor:
    """Exact samples of the double well, the first coordinate from a fine grid."""
    rng = np.random.default_rng(seed)
    energy = double_well().energy
    x1 = np.linspace(-5, 5, 4001)
    x = np.stack([x1, np.zeros_like(x1)], -1)
    p = np.exp(-energy.energy(torch.as_tensor(x)).numpy())
    first = rng.choice(x1, n, p=p / p.sum()) + rng.uniform(-0.00125, 0.00125, n)
    return torch.as_tensor(np.stack([first, rng.normal(size=n)], -1))


@pytest.fixture(scope="module")
def result() -> FitResult:
    torch.set_default_dtype(torch.float64)
    return fit(double_well(), energy_calls=60_000, batch_size=512, seed=0)


def test_frames_of_the_target_give_its_log_z(result) -> None:
    check = forward_ess(result, frames(20_000))
    assert check.n_frames == 20_000
    assert check.n_left_out == 0
    assert 0 < check.ess <= 1
    assert check.log_z == pytest.approx(12.0649, abs=5 * check.log_z_error + 0.01)


def test_a_lost_well_brings_the_forward_ess_down(result) -> None:
    x = frames(20_000)
    whole = forward_ess(result, x)
    lost = forward_ess(_Squeezed.of(result), x)
    assert lost.ess < 0.5 * whole.ess


class _Squeezed:
    """The same generator, asked about points beyond the barrier as if they were far out."""

    @staticmethod
    def of(result: FitResult) -> FitResult:
        model = result.model

        class Model(type(model)):  # type: ignore[misc]
            def log_prob(self, z, y):
                right = y[:, 0] > 0.17
                return torch.where(right, super().log_prob(z, y) - 20.0, super().log_prob(z, y))

        squeezed = Model.__new__(Model)
        squeezed.__dict__ = model.__dict__
        return replace(result, model=squeezed)


def test_too_few_frames_and_models_with_cvs_are_refused(result) -> None:
    with pytest.raises(ValueError, match="at least 40 frames of the molecule, got 10"):
        forward_ess(result, frames(10))
    with_cvs = fit(double_well(), n_cvs=1, energy_calls=128, batch_size=64)
    with pytest.raises(ValueError, match="without CVs"):
        forward_ess(with_cvs, frames(100))
    assert math.isfinite(forward_ess(result, frames(100)).log_z)
