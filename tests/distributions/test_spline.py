"""Splines: monotone maps with exact slopes. Cannot detect a poor choice of bins."""

import math

import pytest
import torch
from normflows.utils import splines as reference
from torch.testing import assert_close

from gencg.distributions.spline import MIN_SHARE, MIN_SLOPE, circular_spline, line_spline

N_BINS = 7


def _circular(x, parameters, inverse=False):
    return circular_spline(x, parameters, inverse=inverse)


def _line(x, parameters, inverse=False):
    return line_spline(x, parameters, bound=3.0, inverse=inverse)


SPLINES = {"circle": (_circular, 3 * N_BINS, math.pi), "line": (_line, 3 * N_BINS - 1, 3.0)}


@pytest.mark.parametrize("name", SPLINES)
def test_every_spline(name) -> None:
    spline, n_parameters, bound = SPLINES[name]
    x = (2 * torch.rand(50, 4) - 1) * bound
    parameters = 2 * torch.randn(50, 4, n_parameters)

    # The inverse undoes the map and its log slope
    y, log_slope = spline(x, parameters)
    back, back_slope = spline(y, parameters, inverse=True)
    assert_close(back, x)
    assert_close(back_slope, -log_slope)

    # The slope is the derivative, of the map and of its inverse
    slope = torch.func.vmap(torch.func.grad(lambda a, p: spline(a, p)[0]))
    assert_close(
        slope(x.reshape(-1), parameters.reshape(-1, n_parameters)).log(), log_slope.reshape(-1)
    )
    inverse_slope = torch.func.vmap(torch.func.grad(lambda a, p: spline(a, p, inverse=True)[0]))
    assert_close(
        inverse_slope(y.reshape(-1), parameters.reshape(-1, n_parameters)).log(),
        back_slope.reshape(-1),
    )

    # Zero parameters are the identity
    same, zero = spline(x, torch.zeros_like(parameters))
    assert_close(same, x)
    assert_close(zero, torch.zeros_like(x))

    # The interval maps onto itself
    ends, _ = spline(torch.tensor([-bound, bound - 1e-12]), parameters[0, :2])
    assert_close(ends, torch.tensor([-bound, bound]), atol=1e-9, rtol=0)


def test_the_line_spline_is_the_one_of_normflows() -> None:
    x = (2 * torch.rand(200) - 1) * 4
    parameters = torch.randn(200, 3 * N_BINS - 1)
    widths, heights, slopes = parameters.split([N_BINS, N_BINS, N_BINS - 1], dim=-1)
    shift = math.log(math.expm1(1 - MIN_SLOPE))
    for inverse in (False, True):
        expected = reference.unconstrained_rational_quadratic_spline(
            x,
            widths,
            heights,
            slopes + shift,
            inverse=inverse,
            tails="linear",
            tail_bound=3.0,
            min_bin_width=MIN_SHARE,
            min_bin_height=MIN_SHARE,
            min_derivative=MIN_SLOPE,
        )
        assert_close(line_spline(x, parameters, bound=3.0, inverse=inverse), expected)


def test_the_circle_closes_with_equal_slopes() -> None:
    parameters = torch.randn(20, 3 * N_BINS)
    left = circular_spline(torch.full((20,), -math.pi), parameters)[1]
    right = circular_spline(torch.full((20,), math.pi - 1e-13), parameters)[1]
    assert_close(left, right, atol=1e-8, rtol=0)


def test_single_precision_is_inverted_to_single_precision() -> None:
    x = (2 * torch.rand(10_000) - 1).float() * math.pi
    parameters = torch.randn(10_000, 36).float()
    y, _ = circular_spline(x, parameters)
    back, _ = circular_spline(y, parameters, inverse=True)
    assert (back - x).abs().max() < 2e-3
    assert (back - x).abs().median() < 1e-6
