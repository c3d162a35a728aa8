"""Slow processes of many angles against independent wells, whose spectrum is known.

Cannot detect samples that miss a state: the form knows what was drawn.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from angle_wells import wells
from torch import Tensor
from torch.testing import assert_close

from gencg.discover.choose import choose_on_torus
from gencg.discover.covering import flat_groups
from gencg.discover.processes import MAX_FUNCTIONS, ORDERS, Coupling, couplings, find_processes
from gencg.objectives.dirichlet import GAP, FourierBasis, SoftSamples, spectrum

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


def _exact(log_p: Callable[..., Tensor], k: int, *, n_grid: int, order: int) -> Tensor:
    """Eigenvalues of a density of one or two angles on a grid, whose weights are exact."""
    line = torch.linspace(-math.pi, math.pi, n_grid + 1)[:-1]
    s = torch.cartesian_prod(*[line] * k).reshape(-1, k)
    samples = SoftSamples(s, torch.eye(k).expand(len(s), k, k), log_p(*s.T), True)
    return spectrum(samples, FourierBasis(torch.eye(k), order=order), n_bootstraps=0).eigenvalues


def _well(s: Tensor, barrier: float) -> Tensor:
    return -barrier * (1 + torch.cos(2 * s)) / 2


def _aligned_wells(a: Tensor, b: Tensor) -> Tensor:
    """Double wells of two angles that prefer to be on the same side."""
    return _well(a, 3.0) + _well(b, 3.0) + 2 * a.sin() * b.sin()


def test_slow_ones_among_twenty_angles_are_found_in_order_with_a_small_basis() -> None:
    """Fifteen CPU seconds; a product basis would have 25 to the power 20 functions."""
    n, flat = 5_000, 0.4
    barriers = [0.2 + 0.02 * (i % 10) for i in range(18)]
    barriers[6], barriers[11] = 7.0, 4.0
    others = wells(n, tuple(barriers), flat=flat)
    line = torch.linspace(-math.pi, math.pi, 301)[:-1]
    grid = torch.cartesian_prod(line, line)
    p = torch.softmax(_aligned_wells(*grid.T), 0)
    q = (1 - flat) * p + flat / len(grid)
    generator = torch.Generator().manual_seed(1)
    at = torch.multinomial(q, n, replacement=True, generator=generator)
    # The pair takes places 3 and 16; barriers of 7 and 4 are then at 7 and 12
    columns = [others.s[:, :3], grid[at, :1], others.s[:, 3:15], grid[at, 1:], others.s[:, 15:]]
    log_weights = others.log_weights + (p / q).log()[at]
    samples = SoftSamples(torch.cat(columns, 1), torch.eye(20).expand(n, -1, -1), log_weights, True)

    choice = choose_on_torus(samples, "auto", 1e-3)
    found = choice.processes
    assert found is not None
    exact = [
        float(_exact(partial(_well, barrier=7.0), 1, n_grid=500, order=16)[0]),
        float(_exact(_aligned_wells, 2, n_grid=120, order=8)[0]),
        float(_exact(partial(_well, barrier=4.0), 1, n_grid=500, order=16)[0]),
    ]
    assert exact == sorted(exact)
    # The pair's other process, at 0.64, is as fast as the rest: the gap is before it
    assert found.n == 3
    assert found.gap > GAP
    assert found.eigenvalues.tolist() == pytest.approx(exact, rel=0.2)
    shares = found.shares[found.slow]
    assert (shares[[0, 1, 2, 1], [7, 3, 12, 16]] > torch.tensor([0.95, 0.4, 0.95, 0.4])).all()
    assert found.basis.pairs == ((3, 16),)
    assert len(found.basis) <= 2 * 20 * max(ORDERS[1]) + 4 * max(ORDERS[2]) ** 2
    assert set(choice.matrix[: choice.n_cvs].argmax(1).tolist()) == {3, 7, 12, 16}
    assert int(choice.matrix[0].argmax()) == 7
