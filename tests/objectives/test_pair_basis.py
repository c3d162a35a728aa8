"""Harmonics and products of pairs. Cannot detect a coupling of three angles: the basis has none."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.objectives.dirichlet import FourierBasis, SoftSamples, spectrum
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.subsets import Forms


def _angles(n: int, k: int) -> torch.Tensor:
    return (2 * torch.rand(n, k) - 1) * math.pi


def test_gradients_are_those_of_the_values() -> None:
    basis = PairBasis([3, 0, 2, 1], [(0, 2), (3, 1)], [2, 3])
    s = _angles(5, 4).requires_grad_()
    values, gradients = basis(s)
    assert values.shape == (5, len(basis))
    for f in range(len(basis)):
        (expected,) = torch.autograd.grad(values[:, f].sum(), s, retain_graph=True)
        assert_close(gradients[:, f], expected)


def test_of_two_angles_it_spans_what_the_fourier_basis_does() -> None:
    s = _angles(4000, 2)
    metric = torch.tensor([[1.0, 0.3], [0.3, 2.0]]).expand(len(s), 2, 2)
    samples = SoftSamples(s, metric, s[:, 0].cos() * s[:, 1].sin(), True)
    one = spectrum(samples, FourierBasis(torch.eye(2), order=3), n_bootstraps=0)
    two = spectrum(samples, PairBasis([3, 3], [(0, 1)], [3]), n_bootstraps=0)
    assert_close(one.eigenvalues, two.eigenvalues, rtol=1e-7, atol=1e-9)


def test_a_part_of_the_angles_has_their_functions() -> None:
    basis = PairBasis([3, 2, 4], [(0, 1), (2, 0)], [2, 1])
    part = basis.restrict([2, 0])
    assert (part.orders, part.pairs, part.pair_orders) == ((4, 3), ((0, 1),), (1,))
    s = _angles(6, 3)
    whole = torch.cat([basis(s)[0][:, 10:18], basis(s)[0][:, :6]], 1)
    assert_close(part(s[:, [2, 0]])[0][:, :14], whole)
    assert basis.capped(1).orders == (1, 1, 1)
    assert len(basis) == 2 * 9 + 4 * (4 + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2, 2], [(0, 0)], [1]), "`pairs` must name two of 2 angles each"),
        (([2, 2], [(0, 2)], [1]), "`pairs` must name two of 2 angles each"),
        (([2, 2], [(0, 1)], []), "`pair_orders` must hold one order for each of 1 pairs, got 0"),
        (([2, -1],), "`orders` must not be negative"),
        (([2, 2], [(0, 1)], [0]), "`pair_orders` be 1 or more"),
        (([0, 0],), "`orders` must leave one function at least"),
    ],
)
def test_what_is_no_basis_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairBasis(*arguments)


def test_parts_of_forms_are_the_forms_of_parts() -> None:
    s = _angles(3000, 3)
    metric = torch.tensor([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 1.5]])
    log_weights = s[:, 0].cos() * s[:, 1].sin() + 0.5 * (2 * s[:, 2]).cos()
    samples = SoftSamples(s, metric.expand(len(s), 3, 3), log_weights, True)
    basis = PairBasis([3, 2, 2], [(0, 1), (2, 1)], [2, 1])
    forms = Forms.of(samples, basis)
    for index in ([0, 1], [2], [2, 1], [0, 1, 2]):
        one = spectrum(samples.project(index), basis.restrict(index), n_modes=5, n_bootstraps=0)
        eigenvalues, f, populations = forms.slowest(index, 5)
        m = len(one.eigenvalues)
        assert_close(eigenvalues, one.eigenvalues, rtol=1e-7, atol=1e-9)
        assert_close(populations, one.populations, rtol=1e-5, atol=1e-7)
        assert_close(f.abs(), one.functions.abs(), rtol=1e-4, atol=1e-5)
        assert f.shape == (3000, m)
