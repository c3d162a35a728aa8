"""How many slow processes there are, which angles carry them, and how finely they are resolved.

Cannot detect samples that miss a state: the form knows what was drawn.
"""

import math

import pytest
import torch

from gencg.discover.choose import (
    MIN_TRANSITION,
    ORDERS,
    choose_on_torus,
    slowest_pair,
    torus_order,
)
from gencg.objectives.dirichlet import SoftSamples, spectral_gap


def _wells(n: int, barriers: tuple[float, ...], *, flat: float = 0.0) -> SoftSamples:
    r"""Samples of :math:`p \propto \exp(-\sum_i b_i (1 + \cos 2 s_i) / 2)`, unit metric.

    A share `flat` is uniform on the torus; the weights are exact.
    """
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    angles, log_weights = [], torch.zeros(n, dtype=torch.float64)
    uniform = torch.arange(n) < flat * n
    log_q = torch.full((2, n), math.log(flat) if flat else -math.inf, dtype=torch.float64)
    log_q[1] = math.log1p(-flat)
    for b in barriers:
        log_p = -b * (1 + torch.cos(2 * grid)) / 2
        log_z = torch.logsumexp(log_p, 0) + math.log(2 * math.pi / 4000)
        index = torch.multinomial(log_p.exp(), n, replacement=True, generator=generator)
        index[uniform] = torch.randint(4000, (int(uniform.sum()),), generator=generator)
        s = grid[index]
        angles.append(s)
        log_weights += -b * (1 + torch.cos(2 * s)) / 2 - log_z
        log_q[0] -= math.log(2 * math.pi)
        log_q[1] += -b * (1 + torch.cos(2 * s)) / 2 - log_z
    order = torch.randperm(n, generator=generator)
    s = torch.stack(angles, -1)
    metric = torch.eye(len(barriers), dtype=torch.float64).expand(n, -1, -1)
    return SoftSamples(s, metric, log_weights - torch.logsumexp(log_q, 0), True).take(order)


def test_the_order_falls_where_samples_miss_the_barrier() -> None:
    few, _ = torus_order(_wells(4000, (9.0,)), torch.eye(1), 1e-3)
    many, found = torus_order(_wells(4000, (9.0,), flat=0.5), torch.eye(1), 1e-3)
    assert many == ORDERS[1][0]
    assert few < many
    assert found.n_transition[0] >= MIN_TRANSITION


def test_a_barrier_without_samples_is_read_at_the_lowest_order() -> None:
    order, _ = torus_order(_wells(2000, (16.0,)), torch.eye(1), 1e-3)
    assert order == ORDERS[1][-1]


@pytest.mark.parametrize(("n_cvs", "expected"), [("auto", {1, 2}), (1, {2})])
def test_the_angles_with_the_highest_barriers_are_chosen(n_cvs: int | str, expected: set) -> None:
    samples = _wells(6000, (0.5, 3.0, 7.0), flat=0.4)
    choice = choose_on_torus(samples, n_cvs, 1e-3)
    assert choice.n_processes == 3  # over either barrier, and their product
    assert choice.n_cvs == len(expected)
    assert set(choice.matrix[: len(expected)].argmax(1).tolist()) == expected
    pair = slowest_pair(samples)
    assert pair.sum(0).tolist() == [0.0, 1.0, 1.0]


def test_a_very_slow_process_does_not_hide_slow_ones() -> None:
    populations = torch.full((6,), 0.1)
    eigenvalues = torch.tensor([0.05, 1.9, 3.0, 33.0, 60.0, 80.0])
    assert spectral_gap(eigenvalues, populations) == (3, pytest.approx(11.0))
    assert spectral_gap(torch.tensor([5.0, 6.0, 33.0, 80.0, 90.0]), populations[:5])[0] == 2
    # No ratio is a gap: the largest stands for it
    assert spectral_gap(torch.tensor([1.0, 2.0, 3.0, 5.0]), populations[:4])[0] == 1
