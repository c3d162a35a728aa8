"""Continuous flows: densities up to the solver's error, and its order.

Cannot detect a velocity that is hard to train.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.flow import FlowDistribution
from gencg.distributions.gated_field import GatedField, legendre
from gencg.distributions.networks import MLP, harmonics
from gencg.distributions.solvers import AdaptiveSteps, FixedSteps
from gencg.distributions.torus import TorusNormal
from gencg.distributions.velocity import HutchinsonField, VelocityField, exact_divergence
from gencg.geometry import wrap

MIXED = torch.tensor([True, False, True, False])


class _Deep(VelocityField):
    """Two hidden layers: no cheap trace, so that the exact one of the base class is used."""

    def __init__(self, periodic: Tensor) -> None:
        super().__init__(periodic)
        angles = int(periodic.sum())
        self.net = MLP(4 * angles + len(periodic) - angles + 3, len(periodic), hidden=(9, 8))

    def coefficients(self, context: Tensor) -> Tensor:
        return context

    def forward(self, t: Tensor, x: Tensor, k: Tensor) -> Tensor:
        features = [harmonics(x[:, self.periodic]), x[:, ~self.periodic], k]
        return self.net(torch.cat([*features, t.expand(len(x), 1)], dim=-1))


FIELDS = {
    "gated": lambda: GatedField(MIXED, n_context=2, n_units=11, hidden=(8,)),
    "gated, angles": lambda: GatedField(
        torch.ones(3, dtype=torch.bool), n_context=2, n_units=11, n_harmonics=3, hidden=(8,)
    ),
    "gated, lines": lambda: GatedField(
        torch.zeros(3, dtype=torch.bool), n_context=2, n_units=11, n_gate_times=2, hidden=(8,)
    ),
    "deep": lambda: _Deep(MIXED),
}


def _shaken(name: str, std: float = 0.3) -> VelocityField:
    field = FIELDS[name]()
    for parameter in field.parameters():
        parameter.data += std * torch.randn_like(parameter)
    return field


@pytest.mark.parametrize("name", FIELDS)
def test_every_field(name: str) -> None:
    field, t = _shaken(name), torch.tensor(0.3)
    x, c, v = torch.randn(5, field.dim), torch.randn(5, 2), torch.randn(5, field.dim)
    k = field.coefficients(c)
    u, divergence = field.with_divergence(t, x, k)

    # The divergence is the trace of the Jacobian
    for i in range(5):
        jacobian = torch.func.jacrev(lambda a, i=i: field(t, a[None], k[i : i + 1])[0])(x[i])
        assert_close(divergence[i], jacobian.trace())
    assert_close(u, field(t, x, k))
    assert_close(u, field(t.expand(5, 1), x, k))

    # The pullback is that of velocity and trace
    def total(x, k):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda a, b: field(t, a[None], b[None])[0]))
        traces = jacobian(x, k).diagonal(dim1=-2, dim2=-1)
        return (field(t, x, k) * v).sum() + traces.sum()

    _, _, of_x, of_k = field.with_pullback(t, x, k, v)
    by_x, by_k = torch.func.grad(total, argnums=(0, 1))(x, k.detach())
    assert_close(of_x.detach(), by_x)
    assert_close(of_k.detach(), by_k)
    for alone, together in zip(
        field.with_slope(t, x, k, v), field.with_pullback(t, x, k, v)[:3], strict=True
    ):
        assert_close(alone, together)

    # Where angles live, a turn is no way
    turned = x + 2 * math.pi * field.periodic
    assert_close(field(t, turned, k), field(t, x, k))


def test_a_field_without_context_is_the_same_for_all() -> None:
    field = GatedField(MIXED, n_units=7)
    for parameter in field.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x, t = torch.randn(6, 4), torch.tensor(0.8)
    k = field.coefficients(x[:, :0])
    assert len(k) == 1
    _, divergence = field.with_divergence(t, x, k)
    assert_close(divergence, exact_divergence(field, t, x, k)[1])
    ours = field.with_pullback(t, x, k, x.cos())
    for own, automatic in zip(
        ours, VelocityField.with_pullback(field, t, x, k, x.cos()), strict=True
    ):
        assert_close(own.detach(), automatic)


@pytest.mark.parametrize("name", FIELDS)
def test_every_continuous_flow(name: str) -> None:
    flow = ContinuousFlow(_shaken(name, 0.1), solver=FixedSteps(12))
    periodic = flow.field.periodic
    x, context = torch.randn(2, flow.field.dim), torch.randn(2, 2)
    y, log_det = flow(x, context)
    assert (y - x).abs().max() > 0.05

    # The log-determinant is that of the autograd Jacobian
    for i in range(2):
        jacobian = torch.func.jacrev(lambda a, i=i: flow(a[None], context[i : i + 1])[0][0])(x[i])
        assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i], atol=1e-5, rtol=0)

    # Inverse after forward is the identity
    back, back_log_det = flow.inverse(y, context)
    gone = torch.where(periodic, wrap(back - x), back - x)
    assert_close(gone, torch.zeros_like(x), atol=1e-5, rtol=0)
    assert_close(back_log_det, -log_det, atol=1e-5, rtol=0)

    # The gradients of the log-density are those through the inverse
    base = TorusNormal(0, flow.field.dim, like=context)
    _, _, score, of_context = flow.forward_with_score(x, context, -x)
    y, c = y.detach().requires_grad_(), context.clone().requires_grad_()
    eps, inverse_log_det = flow.inverse(y, c)
    # Unwrapped: the normal base of this test is no function of an angle
    log_q = base.log_prob(x + eps - eps.detach()) + inverse_log_det
    by_y, by_context = torch.autograd.grad(log_q.sum(), (y, c))
    assert_close(score, by_y, atol=1e-5, rtol=0)
    assert_close(of_context, by_context, atol=1e-5, rtol=0)


ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}


@pytest.mark.parametrize("method", ORDERS)
def test_the_density_converges_with_the_order_of_the_method(method: str) -> None:
    field = _shaken("gated", 0.1)
    x, context = torch.randn(20, 4), torch.randn(20, 2)
    _, exact = ContinuousFlow(field, solver=AdaptiveSteps(rtol=1e-11, atol=1e-11))(x, context)
    errors = []
    for n in (8, 16):
        _, log_det = ContinuousFlow(field, solver=FixedSteps(n, method))(x, context)
        errors.append(float((log_det - exact).detach().abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.5)


def test_a_density_on_circle_and_line_integrates_to_one() -> None:
    field = GatedField(torch.tensor([True, False]), n_units=9)
    for parameter in field.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    n = 120
    angle = (torch.arange(n) + 0.5) / n * 2 * math.pi - math.pi
    line = ((torch.arange(n) + 0.5) / n * 2 - 1) * 8
    y = torch.cartesian_prod(angle, line)
    rows = torch.zeros(len(y), 0)
    flow = FlowDistribution(TorusNormal(1, 1, like=rows), ContinuousFlow(field), rows)
    with torch.no_grad():
        mass = flow.log_prob(y).exp().sum() * (2 * math.pi / n) * (16 / n)
    assert_close(mass, torch.tensor(1.0), atol=2e-3, rtol=0)


def test_the_trace_estimate_is_exact_on_average_and_kept_along_the_path() -> None:
    field = _shaken("deep", 0.2)
    x, context = torch.randn(3, 4), torch.randn(3, 2)
    _, exact = ContinuousFlow(field)(x, context)
    n = 2000
    many = ContinuousFlow(HutchinsonField(field))
    _, estimates = many(x.repeat(n, 1), context.repeat(n, 1))
    estimates = estimates.view(n, 3).detach()
    error = estimates.std(0) / math.sqrt(n)
    # Five standard errors: fails once in two million
    assert ((estimates.mean(0) - exact.detach()).abs() < 5 * error).all()
    # The same signs all along: the steps do not change the estimate, beyond their own error
    fine = ContinuousFlow(HutchinsonField(field), solver=FixedSteps(16))
    torch.manual_seed(1)
    _, one_path = many(x, context)
    torch.manual_seed(1)
    assert_close(fine(x, context)[1], one_path, atol=1e-4, rtol=0)
    # A sign for each entry: of one entry the trace is exact
    single = GatedField(torch.tensor([False]), n_units=5)
    for parameter in single.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    one, nothing = torch.randn(4, 1), torch.zeros(4, 0)
    assert_close(
        ContinuousFlow(HutchinsonField(single))(one, nothing)[1],
        ContinuousFlow(single)(one, nothing)[1],
    )


def test_times_are_orthogonal_polynomials() -> None:
    t = (torch.arange(4000) + 0.5) / 4000
    values = legendre(t[:, None], 5)
    gram = values.T @ values / len(t)
    assert_close(
        gram, torch.diag(1 / (2 * torch.arange(5.0, dtype=t.dtype) + 1)), atol=1e-4, rtol=0
    )
    assert_close(legendre(t[7], 5), values[7])


def test_bad_solvers_are_refused() -> None:
    with pytest.raises(ValueError, match="`n_steps` must be at least 1, got 0"):
        FixedSteps(0)
    with pytest.raises(ValueError, match=r"`method` must be one of euler.*got 'dopri5'.*Adaptive"):
        FixedSteps(4, "dopri5")
    for name in ("rtol", "atol"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive, got 0"):
            AdaptiveSteps(**{name: 0})
    with pytest.raises(ValueError, match="`n_units` must be at least 1, got 0"):
        GatedField(MIXED, n_units=0)
    with pytest.raises(ValueError, match="`n_gate_times` must be at most n_times=2, got 3"):
        GatedField(MIXED, n_times=2, n_gate_times=3)
    with pytest.raises(ValueError, match="`sharpness` must be positive, got 0"):
        GatedField(MIXED, sharpness=0)
    with pytest.raises(ValueError, match=r"`method` must be one of dopri5.*got 'rk4'.*FixedSteps"):
        AdaptiveSteps(method="rk4")


class _Still(VelocityField):
    """The same velocity everywhere."""

    def coefficients(self, context: Tensor) -> Tensor:
        return context

    def forward(self, t: Tensor, x: Tensor, k: Tensor) -> Tensor:
        return torch.full_like(x, 0.4)


@pytest.mark.parametrize("wrapped", [lambda f: f, HutchinsonField])
def test_angles_cross_the_seam(wrapped) -> None:
    flow = ContinuousFlow(wrapped(_Still(torch.tensor([True, False]))))
    x, nothing = torch.tensor([[3.0, 3.0]]), torch.zeros(1, 0)
    y, log_det = flow(x, nothing)
    assert_close(y, torch.tensor([[3.4 - 2 * math.pi, 3.4]]))
    assert_close(flow.inverse(y, nothing)[0], x)
    # It is the same everywhere: nothing is stretched
    assert_close(log_det, torch.zeros(1))


def test_a_flow_keeps_its_dtype() -> None:
    flow = ContinuousFlow(_shaken("gated", 0.1)).float()
    x, context = torch.randn(3, 4).float(), torch.randn(3, 2).float()
    for part in (*flow(x, context), *flow.forward_with_score(x, context, x)):
        assert part.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fixed_steps_are_as_many_as_asked_for(dtype: torch.dtype) -> None:
    asked: list[float] = []

    def rate(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        asked.append(float(t))
        return (-state[0],)

    for n in (3, 6, 7):
        for ends in ((0.0, 1.0), (1.0, 0.0)):
            asked.clear()
            (x,) = FixedSteps(n).solve(rate, (torch.ones(1, 1, dtype=dtype),), *ends)
            # Four evaluations in each step of fourth order
            assert len(asked) == 4 * n
            assert float(x) == pytest.approx(math.exp(ends[0] - ends[1]), rel=1e-3)
