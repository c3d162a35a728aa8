"""Slow processes of many angles against independent wells, whose spectrum is known.

Cannot detect samples that miss a state: the form knows what was drawn.
"""

import math

import pytest
import torch
from angle_wells import wells
from torch.testing import assert_close

from gencg.discover.choose import choose_on_torus
from gencg.discover.covering import flat_groups
from gencg.discover.processes import couplings, find_processes
from gencg.objectives.dirichlet import SoftSamples

SLOW, FAST = 3.0, 0.2


@pytest.fixture(scope="module")
def many() -> SoftSamples:
    """Eight angles, of which the third and the sixth have a barrier."""
    torch.set_default_dtype(torch.float64)
    barriers = [FAST] * 8
    barriers[2] = barriers[5] = SLOW
    barriers[5] += 1.0
    return wells(12_000, tuple(barriers), flat=0.4)


def test_products_of_independent_processes_are_not_counted(many: SoftSamples) -> None:
    found = find_processes(many, 1e-3, n_bootstraps=20)
    assert found.n == 2
    assert found.support > 0.9
    assert_close(found.shares.sum(1), torch.ones(len(found.shares)))
    assert found.shares[found.slow].argmax(1).tolist() == [5, 2]
    assert (found.shares[found.slow].max(1).values > 0.95).all()
    assert (found.spectrum.agreement[found.slow] > 0.99).all()


def test_independent_angles_are_not_coupled(many: SoftSamples) -> None:
    assert couplings(many, 1e-3)[0] == []


def test_the_two_slow_angles_of_eight_are_chosen_and_spread_evenly(many: SoftSamples) -> None:
    choice = choose_on_torus(many, "auto", 1e-3)
    assert choice.matrix[:2].argmax(1).tolist() == [5, 2]
    assert choice.n_cvs == 2
    assert choice.frequency.tolist() == [1.0, 1.0]
    (rows, *_) = flat_groups(many, 1e-3)
    assert rows.sum(0).tolist() == [0, 0, 1, 0, 0, 1, 0, 0]


def test_angles_that_are_slow_only_together_are_a_pair() -> None:
    # p depends on the sum of the first two: each alone is free
    s = (2 * torch.rand(15_000, 4) - 1) * math.pi
    log_p = 2.5 * torch.cos(2 * (s[:, 0] + s[:, 1]))
    samples = SoftSamples(s, torch.eye(4).expand(len(s), -1, -1), log_p, True)
    (pair, *others), _ = couplings(samples, 1e-3)
    assert pair.pair == (0, 1)
    assert not others
    assert choose_on_torus(samples, "auto", 1e-3).matrix[:2].sum(0).tolist() == [1, 1, 0, 0]
