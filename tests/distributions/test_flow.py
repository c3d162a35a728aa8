"""Flow layers and distributions: exact densities. Cannot detect a flow that is hard to train."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.distributions.couplings import (
    Affine,
    CircularSpline,
    ConditionalAffine,
    Coupling,
    LineSpline,
    Rotation,
    UnitTriangular,
)
from gencg.distributions.flow import Chain, FlowDistribution
from gencg.distributions.torus import TorusNormal

MOVED = torch.tensor([True, False, True])
OPTIONS = {"n_context": 2, "hidden": (8,)}
ANGLES, LINES = True, False
LAYERS = {
    "circular spline": (lambda: Coupling(CircularSpline(n_bins=5), MOVED, **OPTIONS), ANGLES),
    "circular, all moved": (
        lambda: Coupling(CircularSpline(n_bins=5), torch.ones(3, dtype=torch.bool), **OPTIONS),
        ANGLES,
    ),
    "line spline": (lambda: Coupling(LineSpline(n_bins=5), MOVED, **OPTIONS), LINES),
    "affine": (lambda: Coupling(Affine(), MOVED, **OPTIONS), LINES),
    "rotation": (lambda: Rotation(torch.tensor([1.0, 2.0, 3.0])), ANGLES),
    "conditional affine": (lambda: ConditionalAffine(3, **OPTIONS), LINES),
    "triangular": (lambda: UnitTriangular(3), LINES),
}


def _shaken(build):
    """The layer with random parameters; as built it is the identity."""
    layer = build()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name) -> None:
    build, angles = LAYERS[name]
    layer = _shaken(build)
    x = (2 * torch.rand(9, 3) - 1) * math.pi if angles else torch.randn(9, 3)
    context = torch.randn(9, 2)

    # Inverse after forward is the identity
    y, log_det = layer(x, context)
    back, back_log_det = layer.inverse(y, context)
    assert_close(back, x)
    assert_close(back_log_det, -log_det)

    # The log-determinant is that of the autograd Jacobian
    for i in range(3):
        jacobian = torch.func.jacrev(lambda a, i=i: layer(a[None], context[i : i + 1])[0][0])(x[i])
        assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i])


def _plane_flow() -> tuple[Chain, TorusNormal]:
    moved = torch.tensor([True, False])
    layers = []
    for k in range(4):
        layers.append(
            _shaken(
                lambda k=k: Coupling(
                    CircularSpline(n_bins=6), moved if k % 2 else ~moved, n_context=0, hidden=(8,)
                )
            )
        )
        layers.append(Rotation(torch.full((2,), 2.0)))
    return Chain(layers)


def test_a_torus_flow_integrates_to_one() -> None:
    n = 400
    grid = (torch.arange(n) + 0.5) / n * 2 * math.pi - math.pi
    y = torch.cartesian_prod(grid, grid)
    context = torch.zeros(len(y), 0)
    flow = FlowDistribution(TorusNormal(2, 0, like=context), _plane_flow(), context)
    mass = flow.log_prob(y).exp().sum() * (2 * math.pi / n) ** 2
    assert_close(mass, torch.tensor(1.0), atol=2e-3, rtol=0)


def test_the_kept_density_is_the_one_of_the_inverse_pass() -> None:
    context = torch.zeros(100, 0)
    flow = FlowDistribution(TorusNormal(2, 0, like=context), _plane_flow(), context)
    y = flow.rsample()
    assert_close(flow.log_prob(y), flow.log_prob(y.clone()))


def test_a_flow_distribution_refuses_a_sample_shape() -> None:
    context = torch.zeros(3, 0)
    flow = FlowDistribution(TorusNormal(2, 0, like=context), _plane_flow(), context)
    with pytest.raises(ValueError, match=r"one sample per row.*sample_shape=\(5,\)"):
        flow.rsample((5,))


def test_torus_normal_is_uniform_times_normal() -> None:
    base = TorusNormal(2, 1, like=torch.zeros(4, 0))
    x = base.rsample()
    assert (x[:, :2].abs() <= math.pi).all()
    expected = torch.distributions.Normal(0, 1).log_prob(x[:, 2]) - 2 * math.log(2 * math.pi)
    assert_close(base.log_prob(x), expected)


def test_a_coupling_needs_something_to_move() -> None:
    with pytest.raises(ValueError, match="`moved` must mark at least one entry"):
        Coupling(Affine(), torch.zeros(3, dtype=torch.bool), n_context=0, hidden=(4,))
