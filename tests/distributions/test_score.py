"""Gradients of the log-density carried through a flow, against those through its inverse.

Cannot detect a density that is wrong both ways; test_flow.py holds it to the Jacobian.
"""

import copy

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian, CoordinateMap
from gencg.distributions.couplings import CircularSpline, Coupling, LineSpline
from gencg.distributions.flow import FlowDistribution, Scored
from gencg.distributions.torus import TorusNormal
from gencg.models.decoders import SplineDecoder
from gencg.objectives.path import PathDistribution
from gencg.systems import alanine_dipeptide

SMALL = {
    "n_soft_layers": 3,
    "n_bins": 5,
    "soft_hidden": (9, 8),
    "n_stiff_layers": 3,
    "stiff_hidden": (8, 9),
}


def _decoder(
    coordinates: CoordinateMap, n_cvs: int, *, autoregressive: bool = False
) -> SplineDecoder:
    torch.manual_seed(0)
    options = SMALL | {"autoregressive": autoregressive}
    if autoregressive:
        options["n_soft_layers"] = None
    decoder = SplineDecoder(coordinates, n_cvs=n_cvs, **options).double()
    for p in decoder.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return decoder


SPACES = {
    "torus": (lambda: Cartesian(3, periodic=True), 2),
    "line": (lambda: Cartesian(3), 2),
    "molecule": (lambda: alanine_dipeptide().coordinates, 2),
    "molecule without CVs": (lambda: alanine_dipeptide().coordinates, 0),
}


@pytest.mark.parametrize("autoregressive", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_the_score_is_the_gradient_through_the_inverse(name: str, autoregressive: bool) -> None:
    coordinates, n_cvs = SPACES[name][0](), SPACES[name][1]
    decoder = _decoder(coordinates, n_cvs, autoregressive=autoregressive)
    context = torch.randn(7, n_cvs, dtype=torch.float64)
    drawn = decoder(context)
    assert isinstance(drawn.flow, Scored)
    y, of_y, of_context = drawn.rsample_with_score()
    y_leaf, c_leaf = y.detach().requires_grad_(), context.clone().requires_grad_()
    log_q = decoder(c_leaf).log_prob(y_leaf)
    assert_close(drawn.log_prob(y), log_q)
    by_y, by_context = torch.autograd.grad(
        log_q.sum(), (y_leaf, c_leaf), allow_unused=True, materialize_grads=True
    )
    scale = 1 + by_y.abs().max()
    assert_close(of_y / scale, by_y / scale, atol=1e-9, rtol=1e-7)
    assert_close(of_context, by_context, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("transform", [CircularSpline(n_bins=4), LineSpline(n_bins=4)])
def test_one_coupling_of_all_entries(transform) -> None:
    torch.manual_seed(1)
    everything = torch.ones(2, dtype=torch.bool)
    layer = Coupling(transform, everything, n_context=1, hidden=(6,)).double()
    for p in layer.parameters():
        p.data += 0.4 * torch.randn_like(p)
    context = torch.randn(5, 1, dtype=torch.float64)
    angles = 2 if isinstance(transform, CircularSpline) else 0
    base = TorusNormal(angles, 2 - angles, like=context)
    y, of_y, of_context = FlowDistribution(base, layer, context).rsample_with_score()
    y_leaf, c_leaf = y.detach().requires_grad_(), context.clone().requires_grad_()
    log_q = FlowDistribution(base, layer, c_leaf).log_prob(y_leaf)
    by_y, by_context = torch.autograd.grad(log_q.sum(), (y_leaf, c_leaf))
    assert_close(of_y, by_y, atol=1e-8, rtol=1e-7)
    assert_close(of_context, by_context, atol=1e-8, rtol=1e-7)


def test_the_path_estimator_is_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = _decoder(Cartesian(3, periodic=True), 1)
    frozen = copy.deepcopy(decoder).requires_grad_(False)
    gradients = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr("gencg.objectives.path.FlowDistribution", type(None))
        torch.manual_seed(5)
        context = torch.randn(9, 1, dtype=torch.float64, requires_grad=True)
        path = PathDistribution(decoder(context), frozen(context))
        y = path.rsample()
        loss = (path.log_prob(y) + y.cos().sum(-1)).mean()
        gradients.append(torch.autograd.grad(loss, [context, *decoder.parameters()]))
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-6)


def test_a_detached_sample_is_not_taken_for_the_one_drawn() -> None:
    decoder = _decoder(Cartesian(3), 1)
    context = torch.randn(6, 1, dtype=torch.float64)
    drawn = decoder(context)
    y = drawn.rsample()
    first = next(decoder.parameters())

    def gradient(log_q: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(log_q.sum(), first, retain_graph=True)[0]

    # Through the sample and through the parameters alone are two gradients
    fresh = gradient(decoder(context).log_prob(y.detach()))
    assert_close(gradient(drawn.log_prob(y.detach())), fresh)
    assert not torch.allclose(gradient(drawn.log_prob(y)), fresh)
    leaf = y.detach().requires_grad_()
    assert torch.autograd.grad(drawn.log_prob(leaf).sum(), leaf)[0].abs().max() > 0
    # Drawn without a graph, scored with one
    sample = drawn.sample()
    assert_close(gradient(drawn.log_prob(sample)), gradient(decoder(context).log_prob(sample)))
