"""Machine code of the couplings against the torch functions of the same maps.

Cannot detect: an error which both share; test_flow.py and test_spline.py hold those to Jacobians.
"""

import logging
import math

import pytest
import torch
from torch.testing import assert_close

from gencg.distributions import couplings, native
from gencg.distributions.couplings import Affine, CircularSpline, Coupling, LineSpline, Move
from gencg.distributions.networks import MLP, harmonics, products_in, pull_harmonics, pullback

DIM, INDEX = 5, torch.tensor([0, 2, 3])
MAPS = {
    "circle": (CircularSpline(n_bins=7), math.pi),
    # Half of the entries are outside
    "line": (LineSpline(n_bins=6, bound=1.5), 3.0),
    "affine": (Affine(), 3.0),
}


def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couplings, "has_machine_code", lambda x: False)


def _inputs(name: str, n: int = 37) -> tuple[Move, torch.Tensor, torch.Tensor]:
    transform, reach = MAPS[name]
    x = (2 * torch.rand(n, DIM) - 1) * reach
    parameters = 1.5 * torch.randn(n, len(INDEX) * transform.n_parameters)
    return Move(transform, INDEX, dim=DIM), x, parameters


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_values_and_gradients(name: str, inverse: bool, monkeypatch) -> None:
    move, x, parameters = _inputs(name)
    weights = torch.randn(len(x), DIM), torch.randn(len(x))

    def everything() -> list[torch.Tensor]:
        leaves = x.clone().requires_grad_(), parameters.clone().requires_grad_()
        y, log_det = move(*leaves, inverse=inverse)
        total = (y * weights[0]).sum() + (log_det * weights[1]).sum()
        return [y, log_det, *torch.autograd.grad(total, leaves)]

    ours = everything()
    assert move._native is not None
    _torch_alone(monkeypatch)
    for a, b in zip(ours, everything(), strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_scores(name: str, monkeypatch) -> None:
    move, x, parameters = _inputs(name)
    score = torch.randn(len(x), DIM)
    ours = move.push_score(x, parameters, score)
    _torch_alone(monkeypatch)
    for a, b in zip(ours, move.push_score(x, parameters, score), strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_single_precision(name: str) -> None:
    move, x, parameters = _inputs(name)
    x, parameters = x.float(), parameters.float()
    y, log_det = move(x, parameters, inverse=False)
    assert y.dtype == log_det.dtype == torch.float32
    exact, exact_log_det = move(x.double(), parameters.double(), inverse=False)
    assert_close(y.double(), exact, atol=5e-6, rtol=1e-5)
    assert_close(log_det.double(), exact_log_det, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_a_value_that_is_not_a_number_stays_in_its_row(name: str) -> None:
    move, x, parameters = _inputs(name)
    x[7, 3] = x[9, 0] = 0.5  # where the spline of the line is no identity
    clean, clean_log_det = move(x, parameters, inverse=False)
    x[4, 2] = parameters[7, -1] = parameters[9, 0] = math.nan
    y, log_det = move(x, parameters, inverse=False)
    assert y[4, 2].isnan()
    assert y[7, 3].isnan()
    assert y[9, 0].isnan()
    assert log_det[[7, 9]].isnan().all()
    rest = torch.tensor([i not in (4, 7, 9) for i in range(len(x))])
    assert torch.equal(y[rest], clean[rest])
    assert torch.equal(log_det[rest], clean_log_det[rest])


def test_more_bins_than_the_machine_code_has_go_through_torch() -> None:
    moved = torch.tensor([True, False])
    layer = Coupling(CircularSpline(n_bins=65), moved, n_context=0, hidden=(4,))
    y, log_det = layer(torch.rand(3, 2), torch.zeros(3, 0))
    assert layer.move._native is None
    assert_close(layer.inverse(y, torch.zeros(3, 0))[1], -log_det)


def test_without_a_compiler_one_warning_and_the_same_numbers(caplog, monkeypatch) -> None:
    def broken(source: object) -> None:
        raise RuntimeError("no C++ compiler found")

    move, x, parameters = _inputs("circle")
    ours = move(x, parameters, inverse=False)
    monkeypatch.setattr(native, "load_library", broken)
    monkeypatch.setattr(native, "_missing", [])
    with caplog.at_level(logging.WARNING, "gencg"):
        for _ in range(2):
            plain = move(x, parameters, inverse=False)
    assert [r.message for r in caplog.records] == [
        "The flow runs uncompiled, about half as fast: no C++ compiler found"
    ]
    for a, b in zip(ours, plain, strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-9)


# --- Networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [torch.nn.SiLU, torch.nn.Tanh])
def test_a_pass_with_pullback_is_that_of_autograd(activation) -> None:
    net = MLP(3, 4, hidden=(6, 5), activation=activation)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    x, v = torch.randn(8, 3, requires_grad=True), torch.randn(8, 4)
    out, pull = net.with_pullback(x)
    assert_close(out, net(x))
    expected = torch.autograd.grad(net(x), [x, *net.parameters()], v)
    assert_close(pull(v), expected[0])
    for a, b in zip(torch.autograd.grad(out, [x, *net.parameters()], v), expected, strict=True):
        assert_close(a, b)


def test_rounded_products_are_those_of_the_rounded_network() -> None:
    net = MLP(3, 4, hidden=(16, 16)).float()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(64, 3).float().requires_grad_()
    v = torch.randn(64, 4).float()
    exact, exact_pull = net.with_pullback(x)
    with products_in(torch.bfloat16):
        out, pull = net.with_pullback(x)
    assert out.dtype == pull(v).dtype == torch.float32
    # Eight bits of mantissa, three layers
    for a, b in ((out, exact), (pull(v), exact_pull(v))):
        assert 1e-5 < (a - b).norm() / b.norm() < 2e-2
    gradient = torch.autograd.grad(out, list(net.parameters()), v)
    for a, b in zip(gradient, torch.autograd.grad(exact, list(net.parameters()), v), strict=True):
        assert (a - b).norm() / b.norm() < 2e-2
    # Outside of training nothing is rounded
    assert torch.equal(net.with_pullback(x)[0], exact)


def test_harmonics_are_pulled_back() -> None:
    angle, v = torch.randn(6, 3), torch.randn(6, 12)
    assert_close(pull_harmonics(harmonics(angle), v), pullback(harmonics, angle, v))
