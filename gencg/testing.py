"""Public checks: what every member of a family has to satisfy, for your own ones too."""

import torch
from torch import Tensor
from torch.testing import assert_close

from gencg.coordinates.base import CoordinateMap
from gencg.energies.base import Energy
from gencg.geometry import distances, wrap


def check_coordinate_map(
    coordinates: CoordinateMap, x: Tensor, *, atol: float = 1e-9, n_jacobians: int = 3
) -> None:
    r"""Check the theorems of a `CoordinateMap` at given configurations.

    `forward` and `inverse` undo each other, up to rigid motion and equal labels; their log_det
    are opposite; `forward` does not see rigid motion; a batch gives what its members give; and
    log_det is the logarithm of the determinant of the autograd Jacobian, for molecules bordered
    by the rigid motions,

    .. math:: \bigl|\det (\partial x / \partial y, \; e_a, \; e_a \times x_i)\bigr|, \quad
              a = 1, 2, 3,

    and times the number n of equal copies for a rotor folded n times.

    Args:
        coordinates: The map.
        x: Valid configurations, shape ``(n, *event_shape)``, float64.
        atol: Absolute tolerance.
        n_jacobians: For how many of them to compare the Jacobian.

    Raises:
        AssertionError: If one of them fails.
    """
    molecular = len(coordinates.event_shape) == 2
    _check_labels(coordinates)
    y, log_det = coordinates.forward(x)
    assert y.shape == (*x.shape[: -len(coordinates.event_shape)], coordinates.dim)
    assert log_det.shape == y.shape[:-1]
    assert torch.isfinite(y).all()
    assert (y[..., coordinates.periodic].abs() <= torch.pi).all()
    assert coordinates.valid(x).all()

    back, log_det_back = coordinates.inverse(y)
    assert back.shape == x.shape
    assert_close(log_det_back, -log_det, rtol=0, atol=atol)
    again, log_det_again = coordinates.forward(back)
    assert_close(_difference(coordinates, again, y), torch.zeros_like(y), rtol=0, atol=atol)
    assert_close(log_det_again, log_det, rtol=0, atol=atol)
    assert_close(_invariants(back, molecular), _invariants(x, molecular), rtol=0, atol=atol)
    if molecular:
        moved, _ = coordinates.forward(_moved(x))
        assert_close(_difference(coordinates, moved, y), torch.zeros_like(y), rtol=0, atol=atol)

    assert_close(coordinates.forward(x[0])[0], y[0], rtol=0, atol=atol)
    assert_close(coordinates.inverse(y[0])[0], back[0], rtol=0, atol=atol)
    assert_close(coordinates.inverse(y[None])[0], back[None], rtol=0, atol=atol)
    assert coordinates.forward(x.float())[0].dtype == torch.float32
    assert coordinates.inverse(y.float())[0].dtype == torch.float32

    for one, value in zip(y[:n_jacobians], log_det_back[:n_jacobians], strict=True):
        assert_close(_log_volume(coordinates, one), value, rtol=0, atol=atol)


def _check_labels(coordinates: CoordinateMap) -> None:
    assert len(coordinates.names) == coordinates.dim
    assert len(set(coordinates.names)) == coordinates.dim
    for label in ("periodic", "soft", "centre", "scale"):
        assert getattr(coordinates, label).shape == (coordinates.dim,), label
    assert (coordinates.soft | ~coordinates.periodic).all()
    assert (coordinates.scale > 0).all()


def _log_volume(coordinates: CoordinateMap, y: Tensor) -> Tensor:
    """Log of the volume element of the inverse at one point, by automatic differentiation."""
    columns: Tensor = torch.func.jacrev(lambda v: coordinates.inverse(v)[0])(y).flatten(0, -2)
    if len(columns) > coordinates.dim:
        x = coordinates.inverse(y)[0]
        axes = torch.eye(3, dtype=x.dtype)
        shifts = [axis.expand_as(x).flatten() for axis in axes]
        turns = [torch.linalg.cross(axis.expand_as(x), x).flatten() for axis in axes]
        columns = torch.cat([columns, torch.stack(shifts + turns, 1)], 1)
    copies = getattr(coordinates, "fold", torch.ones(coordinates.dim))
    log_volume: Tensor = torch.linalg.slogdet(columns).logabsdet
    return log_volume + copies.to(y.dtype).log().sum()


def _difference(coordinates: CoordinateMap, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(coordinates.periodic, wrap(a - b), a - b)


def _invariants(x: Tensor, molecular: bool) -> Tensor:
    """What rigid motion and a relabelling leave as it is."""
    if not molecular:
        return x
    return distances(x, torch.triu_indices(x.shape[-2], x.shape[-2], 1).T).sort(-1).values


def _moved(x: Tensor) -> Tensor:
    """The same configurations, rotated and shifted at random."""
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=x.dtype))
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    moved: Tensor = x @ rotation + torch.randn(3, dtype=x.dtype)
    return moved


def check_energy(
    energy: Energy, x: Tensor, *, atol: float = 1e-6, rtol: float = 1e-6, step: float = 1e-5
) -> None:
    r"""Check the theorems of an `Energy` at given configurations.

    One number per configuration, the same alone and in a batch; the gradient is that of the
    value, by central differences along random directions v,

    .. math:: v \cdot \nabla U = \frac{U(x + hv) - U(x - hv)}{2h} + O(h^2);

    energies and gradients are counted apart; dtype kept; a batch may be empty.

    Args:
        energy: The energy; its counters go on counting.
        x: Configurations, shape ``(n, *event_shape)``, float64.
        atol: Absolute tolerance.
        rtol: Relative tolerance, of derivatives with respect to the norm of the gradient.
        step: Length h of the central differences.

    Raises:
        AssertionError: If one of them fails.
    """
    x, n = x.detach(), len(x)
    values = energy(x)
    _assert(values.shape == (n,), f"energy of {tuple(x.shape)} has shape {tuple(values.shape)}")
    _assert(not values.requires_grad, "energy without gradient hangs on a graph")
    for one, value in zip(x, values, strict=True):
        _assert_near(energy(one), value, "one configuration alone", atol=atol, rtol=rtol)
    _assert_near(energy(x[:, None]), values[:, None], "another batch shape", atol=atol, rtol=rtol)
    _assert(energy(x.float()).dtype == torch.float32, "the energy of float32 is not float32")
    _assert(energy(x[:0]).shape == (0,), "an empty batch has energies")

    with_gradient = x.clone().requires_grad_()
    total = energy(with_gradient)
    _assert_near(total.detach(), values, "the energy beside its gradient", atol=atol, rtol=rtol)
    (gradient,) = torch.autograd.grad(total.sum(), with_gradient)
    direction = torch.randn_like(x)
    direction = direction / _norm(direction)
    difference = (energy(x + step * direction) - energy(x - step * direction)) / (2 * step)
    slope = (gradient * direction).flatten(1).sum(1)
    error = (difference - slope).abs() / (atol / step + rtol * gradient.flatten(1).norm(dim=1))
    _assert(bool((error <= 1).all()), f"the gradient is {float(error.max()):.1e} tolerances off")

    before = energy.n_energy_calls, energy.n_gradient_calls
    energy(x)
    energy(x.clone().requires_grad_())
    counted = energy.n_energy_calls - before[0], energy.n_gradient_calls - before[1]
    _assert(counted == (2 * n, n), f"{counted} calls are counted where {(2 * n, n)} were made")


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm.reshape(-1, *[1] * (x.ndim - 1))


def _assert(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def _assert_near(a: Tensor, b: Tensor, what: str, *, atol: float, rtol: float) -> None:
    assert_close(a, b, atol=atol, rtol=rtol, msg=lambda text: f"{what} differs: {text}")
