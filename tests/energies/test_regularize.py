"""Compression of large reduced energies.

Cannot detect: a threshold so low that it bends the energies which matter.
"""

import pytest
import torch
from torch.testing import assert_close

from gencg.energies.regularize import compress


def test_below_the_threshold_nothing_changes() -> None:
    u = torch.linspace(-500, 1000, 50)
    compressed, touched = compress(u, 1000.0)
    assert torch.equal(compressed, u)
    assert not touched.any()


def test_above_the_threshold_the_growth_is_logarithmic() -> None:
    u = torch.tensor([1001.0, 1e6, 1e300])
    compressed, touched = compress(u, 1000.0)
    assert_close(compressed, 1000 + torch.log(1 + u - 1000))
    assert touched.all()


def test_value_and_slope_are_continuous_at_the_threshold() -> None:
    u = torch.tensor([5 - 1e-7, 5.0, 5 + 1e-7], requires_grad=True)
    compressed, _ = compress(u, 5.0)
    (slope,) = torch.autograd.grad(compressed.sum(), u)
    assert_close(compressed, torch.full((3,), 5.0), atol=2e-7, rtol=0)
    assert_close(slope, torch.ones(3), atol=2e-7, rtol=0)


def test_the_order_of_energies_is_kept() -> None:
    u = torch.cat([torch.linspace(-10, 10, 100), torch.logspace(1.1, 30, 100)])
    assert (compress(u, 3.0)[0].diff() > 0).all()


def test_infinite_energies_stay_finite_and_nan_stays_nan() -> None:
    u = torch.tensor([float("inf"), float("nan"), 1.0], requires_grad=True)
    compressed, touched = compress(u, 10.0)
    assert compressed.isfinite().tolist() == [True, False, True]
    assert touched.tolist() == [True, False, False]
    (slope,) = torch.autograd.grad(compressed.nansum(), u)
    assert slope[[0, 2]].isfinite().all()


def test_the_threshold_must_be_finite() -> None:
    with pytest.raises(ValueError, match="`threshold` must be finite, got nan"):
        compress(torch.zeros(1), float("nan"))
