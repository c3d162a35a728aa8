"""How many slow processes there are, which angles carry them, and how finely they are resolved.

Cannot detect samples that miss a state: the form knows what was drawn.
"""

import pytest
import torch
from angle_wells import wells

from gencg.analysis import ExactSlowFunctions
from gencg.discover.choose import choose_on_line, choose_on_torus
from gencg.discover.processes import MIN_TRANSITION, ORDERS, torus_order
from gencg.energies.toy import GaussianMixture
from gencg.objectives.dirichlet import SoftSamples, spectral_gap


def test_the_order_falls_where_samples_miss_the_barrier() -> None:
    few, _ = torus_order(wells(4000, (9.0,)), [0], 1e-3)
    many, found = torus_order(wells(4000, (9.0,), flat=0.5), [0], 1e-3)
    assert many == ORDERS[1][0]
    assert few < many
    assert found.n_transition[0] >= MIN_TRANSITION


def test_a_barrier_without_samples_is_read_at_the_lowest_order() -> None:
    order, _ = torus_order(wells(2000, (16.0,)), [0], 1e-3)
    assert order == ORDERS[1][-1]


@pytest.mark.parametrize(("n_cvs", "expected"), [("auto", {1, 2}), (1, {2})])
def test_the_angles_with_the_highest_barriers_are_chosen(n_cvs: int | str, expected: set) -> None:
    samples = wells(6000, (0.5, 3.0, 7.0), flat=0.4)
    choice = choose_on_torus(samples, n_cvs, 1e-3)
    assert choice.n_processes == 2  # over either barrier; their product is none of its own
    assert choice.n_cvs == len(expected)
    assert set(choice.matrix[: len(expected)].argmax(1).tolist()) == expected


def test_a_very_slow_process_does_not_hide_slow_ones() -> None:
    populations = torch.full((6,), 0.1)
    eigenvalues = torch.tensor([0.05, 1.9, 3.0, 33.0, 60.0, 80.0])
    assert spectral_gap(eigenvalues, populations) == (3, pytest.approx(11.0))
    assert spectral_gap(torch.tensor([5.0, 6.0, 33.0, 80.0, 90.0]), populations[:5])[0] == 2
    # No ratio is a gap: the largest stands for it
    assert spectral_gap(torch.tensor([1.0, 2.0, 3.0, 5.0]), populations[:4])[0] == 1


def test_directions_on_the_line_are_along_slow_processes_and_as_many_as_they_need() -> None:
    exact = ExactSlowFunctions(GaussianMixture(n_per_side=3), 1.0, (-3.6, -3.6), (3.6, 3.6), n=90)
    metric = torch.eye(2).expand(8000, 2, 2)
    samples = SoftSamples(exact.sample(8000), metric, torch.zeros(8000), False)
    # Over the barriers of either direction; along the diagonal both are seen, neither is slow
    assert choose_on_line(samples, "auto", 1e-3).n_cvs == 2
    one = choose_on_line(samples, 1, 1e-3)
    assert one.n_cvs == 1
    assert float(one.matrix[0].abs().max()) > 0.99
