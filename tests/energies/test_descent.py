"""Descent ends at a minimum, and says where it cannot begin.

Cannot detect: whether the minimum is the lowest one.
"""

import numpy as np
import pytest
import torch
from openmm_systems import build_system, distorted

from gencg.energies.descent import descend
from gencg.energies.openmm import read_system
from gencg.energies.toy import DoubleWell


def test_descent_ends_where_the_gradient_vanishes() -> None:
    energy = read_system(build_system("dipeptide"), compile=False)
    start = distorted("dipeptide", 3)[2].numpy()
    before = start.copy()
    x = descend(energy, start, tolerance=0.5)
    value, gradient = energy.energy_and_gradient(torch.tensor(x)[None])
    assert gradient.abs().max() <= 0.5
    assert value < energy.energy(torch.tensor(start)[None])
    assert energy.n_energy_calls == energy.n_gradient_calls == 0
    assert np.array_equal(start, before)
    # From a minimum there is nowhere to go
    assert np.array_equal(descend(energy, x, tolerance=0.5), x)


def test_descent_goes_to_the_nearest_well() -> None:
    left, right = (descend(DoubleWell(), np.array([x, 0.3]))[0] for x in (-1.0, 1.5))
    assert left == pytest.approx(-2.53, abs=0.2)
    assert right == pytest.approx(2.36, abs=0.2)


def test_a_start_without_energy_is_refused() -> None:
    with pytest.raises(ValueError, match="`positions` could not be minimised"):
        descend(DoubleWell(), np.array([np.nan, 0.0]))
