"""Monotone rational-quadratic splines, on the circle and on the line, without masks."""

import math

import torch
from torch import Tensor
from torch.nn import functional

MIN_SHARE = 1e-3
"""Smallest width and height of a bin, as a share of the whole interval."""
MIN_SLOPE = 1e-3
"""Smallest slope at a knot."""

_UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))  # softplus(_UNIT_SLOPE) + MIN_SLOPE = 1


def circular_spline(
    x: Tensor, parameters: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Spline of the circle :math:`[-\pi, \pi)` onto itself, its end points fixed.

    The slope at :math:`-\pi` equals the slope at :math:`\pi`, so that density and gradient
    close over the seam. Zero parameters give the identity.

    Args:
        x: Angles in rad, shape ``(*batch,)``.
        parameters: Unnormalised widths, heights and slopes, shape ``(*batch, 3 * n_bins)``.
        inverse: Apply the inverse map.

    Returns:
        Transformed angles and log slopes of the map applied, both ``(*batch,)``.

    References:
        | Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
        | Normalizing flows on tori and spheres (Rezende et al., 2020),
          https://arxiv.org/abs/2002.02428
    """
    n_bins = parameters.shape[-1] // 3
    widths, heights, slopes = torch.split(_bins_first(parameters), n_bins)
    slopes = functional.softplus(slopes + _UNIT_SLOPE) + MIN_SLOPE
    slopes = torch.cat([slopes, slopes[:1]])
    return _rational_quadratic(x, widths, heights, slopes, bound=math.pi, inverse=inverse)


def line_spline(
    x: Tensor, parameters: Tensor, *, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Spline of :math:`[-b, b]` onto itself, the identity outside.

    Args:
        x: Values, shape ``(*batch,)``.
        parameters: Unnormalised widths, heights and inner slopes, shape
            ``(*batch, 3 * n_bins - 1)``; the outer slopes are one.
        bound: Half-width :math:`b` of the interval.
        inverse: Apply the inverse map.

    Returns:
        Transformed values and log slopes of the map applied, both ``(*batch,)``.
    """
    n_bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = torch.split(_bins_first(parameters), [n_bins, n_bins, n_bins - 1])
    slopes = functional.softplus(slopes + _UNIT_SLOPE) + MIN_SLOPE
    end = torch.ones_like(widths[:1])
    slopes = torch.cat([end, slopes, end])
    inside = (x > -bound) & (x < bound)
    clamped = torch.where(inside, x, torch.zeros_like(x))
    y, log_slope = _rational_quadratic(
        clamped, widths, heights, slopes, bound=bound, inverse=inverse
    )
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def _bins_first(parameters: Tensor) -> Tensor:
    """``(n_bins, *batch)``: sums over bins run along the batch, many times faster on a CPU."""
    return parameters.movedim(-1, 0).contiguous()


def _rational_quadratic(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, *, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    x_left, width, y_left, height, slope_left, slope_right = _bin_of(
        x, widths, heights, slopes, bound=bound, inverse=inverse
    )
    s = height / width
    c = slope_left + slope_right - 2 * s
    if inverse:
        offset = x - y_left
        # eqs. 6-8 of Durkan et al.: the root of a quadratic that lies in [0, 1]
        a = offset * c + height * (s - slope_left)
        b = height * slope_left - offset * c
        discriminant = (b.square() + 4 * a * s * offset).clamp_min(0)
        xi = 2 * s * offset / (b + discriminant.sqrt())
    else:
        xi = (x - x_left) / width
    xi = xi.clamp(0, 1)
    xi_mixed = xi * (1 - xi)
    denominator = s + c * xi_mixed
    slope = (
        s.square()
        * (slope_right * xi.square() + 2 * s * xi_mixed + slope_left * (1 - xi).square())
        / denominator.square()
    )
    if inverse:
        return xi * width + x_left, -slope.log()
    return y_left + height * (s * xi.square() + slope_left * xi_mixed) / denominator, slope.log()


def _bin_of(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, *, bound: float, inverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Left knot, width, left value, height and both slopes of the bin that holds each x."""
    n_bins = len(widths)
    share = 1 - MIN_SHARE * n_bins
    widths = 2 * bound * (MIN_SHARE + share * functional.softmax(widths, dim=0))
    heights = 2 * bound * (MIN_SHARE + share * functional.softmax(heights, dim=0))
    x_left = widths.cumsum(0) - widths - bound
    y_left = heights.cumsum(0) - heights - bound
    knots = y_left if inverse else x_left
    # The number of inner knots at or below x is the index of its bin
    index = (x >= knots[1:]).sum(0, keepdim=True)
    gathered = [
        torch.gather(values, 0, index)[0]
        for values in (x_left, widths, y_left, heights, slopes[:-1], slopes[1:])
    ]
    return gathered[0], gathered[1], gathered[2], gathered[3], gathered[4], gathered[5]
