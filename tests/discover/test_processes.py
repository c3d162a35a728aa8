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
from gencg.discover.processes import MAX_FUNCTIONS, Coupling, couplings, find_processes
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


def test_a_process_behind_a_product_of_slower_ones_has_its_cv() -> None:
    # Two slow processes whose product is slower than the third: U couples the first two
    s = (2 * torch.rand(12_000, 3) - 1) * math.pi
    a, b, c = s.T
    energy = 2 * torch.cos(2 * a - torch.sin(b)) + 1.9 * torch.cos(2 * b) + torch.cos(2 * c)
    samples = SoftSamples(s, torch.eye(3).expand(len(s), -1, -1), -energy, True)
    assert find_processes(samples, 1e-3, n_bootstraps=0).n == 3
    assert choose_on_torus(samples, "auto", 1e-3).n_cvs == 3


def test_equally_slow_angles_are_all_spread_evenly() -> None:
    samples = wells(8_000, (3.0, 3.0, 3.0, 3.0), flat=0.4)
    assert torch.cat(flat_groups(samples, 1e-3)).sum(0).tolist() == [1, 1, 1, 1]


def test_where_every_process_is_rare_a_cv_is_chosen_all_the_same() -> None:
    samples = wells(4_000, (3.0, 2.0), flat=0.4)
    assert choose_on_torus(samples, "auto", 0.49).n_cvs >= 1


def test_the_basis_of_many_pairs_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = wells(3_000, (2.0,) * 6, flat=0.5)
    every = [Coupling((i, j), 0.5, 1.0) for i in range(6) for j in range(i)][:12]
    monkeypatch.setattr("gencg.discover.processes.couplings", lambda *_: (every, [1.0] * 6))
    basis = find_processes(samples, 1e-3, n_modes=4, n_bootstraps=0).basis
    assert 4 * sum(n * n for n in basis.pair_orders) <= MAX_FUNCTIONS
    assert basis.pair_orders[0] >= basis.pair_orders[-1]
    assert basis.pairs[0] == every[0].pair
