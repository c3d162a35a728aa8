"""Soft blocks that move one coordinate after the other: their factors, defaults and older files.

Cannot detect a density that is wrong both ways; tests of flows and scores hold it to the Jacobian.
"""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.distributions.autoregressive import ROWS, Autoregressive
from gencg.distributions.couplings import CircularSpline, LineSpline
from gencg.distributions.networks import products_in
from gencg.models.build import build_model, choices_of, with_contacts
from gencg.models.decoders import SplineDecoder
from gencg.models.two_block import SoftBlock
from gencg.systems import load

SMALL = {"n_bins": 5, "soft_hidden": (7,), "n_stiff_layers": 2, "stiff_hidden": (8,)}


def _soft(coordinates, **options) -> SoftBlock:
    torch.manual_seed(0)
    decoder = SplineDecoder(coordinates, autoregressive=True, **SMALL, **options).double()
    for parameter in decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return decoder.flow.soft


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n_cvs", [0, 2])
def test_each_coordinate_depends_on_those_before_it_alone(periodic, n_cvs) -> None:
    n = 4
    soft = _soft(Cartesian(n, periodic=periodic), n_cvs=n_cvs)
    eps, context = torch.rand(n, dtype=torch.float64), torch.randn(1, n_cvs, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda e: soft(e[None], context)[0][0], eps)
    upper = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
    assert (jacobian[upper] == 0).all()
    assert (jacobian[upper.T].abs() > 1e-6).all()
    _, log_det = soft(eps[None], context)
    assert_close(log_det[0], jacobian.diagonal().log().sum())


def test_the_order_is_that_of_the_chain() -> None:
    coordinates = load("alanine-tetrapeptide").coordinates
    decoder = SplineDecoder(coordinates, **SMALL)
    space, layers = decoder.flow.stiff.space, decoder.flow.soft.chain.layers
    first, _, second = layers
    assert (space.soft_position[first.order].diff() >= 0).all()
    assert torch.equal(second.order, first.order)


@pytest.mark.parametrize("transform", [CircularSpline(n_bins=5), LineSpline(n_bins=5, bound=4.0)])
@pytest.mark.parametrize("n_context", [0, 2])
def test_all_at_once_is_one_after_the_other(transform, n_context) -> None:
    torch.manual_seed(0)
    position = torch.tensor([2.0, 0.0, 3.0, 1.0])
    layer = Autoregressive(transform, position, n_context=n_context, hidden=(7, 6)).double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = 3 * torch.rand(ROWS + 5, 4, dtype=torch.float64) - 1.5
    context = torch.randn(len(x), n_context, dtype=torch.float64)
    with torch.no_grad():
        y, log_det = layer(x, context)
        again, back = layer.inverse(y, context)
    assert_close(again, x)
    assert_close(back, -log_det)
    assert_close(layer.inverse(y, context), (again, back))
    # What a network does not see has weights, for a batched product, and they do nothing
    layer.net.weights[0].data += (1 - layer.sees) * torch.randn_like(layer.net.weights[0])
    assert_close(layer(x, context)[0], y)
    assert_close(layer.inverse(y, context)[0], x)


def test_rounded_densities_are_near_and_have_gradients() -> None:
    torch.manual_seed(0)
    layer = Autoregressive(CircularSpline(n_bins=6), torch.arange(5.0), n_context=0, hidden=(9, 9))
    for parameter in layer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    y, context = 6 * torch.rand(40, 5) - 3, torch.zeros(40, 0)

    def of_parameters() -> tuple[Tensor, Tensor]:
        _, log_det = layer.inverse(y, context)
        return log_det, torch.cat(
            [g.flatten() for g in torch.autograd.grad(log_det.sum(), list(layer.parameters()))]
        )

    exact, gradient = of_parameters()
    with products_in(torch.float32):
        assert_close(of_parameters(), (exact, gradient), atol=1e-4, rtol=1e-4)
    with products_in(torch.bfloat16):
        rounded, of_rounded = of_parameters()
    assert 0 < (rounded - exact).abs().max() < 0.1
    assert (of_rounded - gradient).norm() < 0.02 * gradient.norm()


def test_another_order_is_refused() -> None:
    one, other = (
        Autoregressive(CircularSpline(n_bins=4), position, n_context=0, hidden=(5,))
        for position in (torch.arange(3.0), -torch.arange(3.0))
    )
    with pytest.raises(ValueError, match="of entries in another order"):
        other.load_state_dict(one.state_dict())


def test_torsions_in_one_window_are_taken_one_by_one() -> None:
    def is_autoregressive(coordinates, **options) -> bool:
        model = build_model(coordinates, **options)
        return choices_of(model.state_dict())["autoregressive"]

    coordinates = load("alanine-dipeptide").coordinates
    assert is_autoregressive(coordinates)
    assert not is_autoregressive(coordinates, autoregressive=False)
    assert not is_autoregressive(Cartesian(1, periodic=True))
    assert not is_autoregressive(Cartesian(12))
    assert not is_autoregressive(Cartesian(21, periodic=True))
    assert is_autoregressive(Cartesian(20, periodic=True))
    # A number of coupling layers is about couplings
    coupled = SplineDecoder(Cartesian(12, periodic=True), n_soft_layers=3)
    assert len(coupled.flow.soft.chain.layers) == 5
    for n, options in ((1, {}), (25, {}), (12, {"n_soft_layers": 3})):
        with pytest.raises(ValueError, match=f"`autoregressive` is for two .* got {n} in"):
            SplineDecoder(Cartesian(n, periodic=True), autoregressive=True, **options)
    # Without windows at all it may be asked for
    wide = SplineDecoder(Cartesian(25, periodic=True), autoregressive=True, locality=None)
    assert len(wide.flow.soft.chain.layers) == 3


@pytest.mark.parametrize("contacts", [True, False])
@pytest.mark.parametrize("autoregressive", [True, False])
def test_parameters_say_how_their_model_was_built(contacts, autoregressive) -> None:
    coordinates = load("alanine-tetrapeptide").coordinates
    chosen = {"contacts": contacts, "autoregressive": autoregressive}
    model = build_model(coordinates, **chosen)
    # Networks start at zero, all models with the same density
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    assert choices_of(model.state_dict()) == chosen
    again = build_model(coordinates, **choices_of(model.state_dict()))
    again.load_state_dict(model.state_dict())
    grown = with_contacts(model, coordinates)
    assert choices_of(grown.state_dict()) == {"contacts": True, "autoregressive": autoregressive}
    torch.manual_seed(0)
    _, y, log_q = model.sample(3)
    assert_close(grown.decoder(grown.rows(3)).log_prob(y), log_q, rtol=1e-5, atol=1e-3)
