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
from gencg.distributions.networks import multiplies_bfloat16, products_in
from gencg.models.build import build_model, choices_of, with_contacts
from gencg.models.decoders import SplineDecoder
from gencg.models.two_block import SoftBlock
from gencg.optimisers import MuonAdam
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
    flow = SplineDecoder(coordinates, **SMALL).flow
    first, _, second = flow.soft.chain.layers
    for layer in (first, second):
        assert (flow.stiff.space.soft_position[layer.order].diff() >= 0).all()
    assert (first.order.diff() < 0).any()


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
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None], context[:1])[0][0], x[0])
    assert torch.equal(jacobian != 0, position <= position[:, None])
    # What a network does not see has weights, for a batched product, and they do nothing
    layer.net.weights[0].data += (1 - layer.sees) * torch.randn_like(layer.net.weights[0])
    assert_close(layer(x, context)[0], y)
    assert_close(layer.inverse(y, context)[0], x)


def test_networks_begin_as_if_they_had_what_they_see_alone() -> None:
    layer = Autoregressive(CircularSpline(n_bins=4), torch.arange(5.0), n_context=3, hidden=(64,))
    for k, weight in enumerate(layer.net.weights[0]):
        n_seen = 3 + 4 * k
        assert 0.9 < weight[:, :n_seen].abs().max() * n_seen**0.5 <= 1
        assert (weight[:, n_seen:] == 0).all()


def _rounded() -> Autoregressive:
    torch.manual_seed(0)
    layer = Autoregressive(
        CircularSpline(n_bins=8), torch.arange(5.0), n_context=0, hidden=(32, 32)
    )
    for parameter in layer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    layer.net.weights[0].data *= layer.sees
    return layer


def test_rounded_densities_are_near_and_have_gradients() -> None:
    layer = _rounded()
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
    assert (of_rounded - gradient).norm() < 0.06 * gradient.norm()


@pytest.mark.skipif(
    not multiplies_bfloat16(torch.device("cpu")), reason="elsewhere products may round twice"
)
def test_densities_rounded_there_and_back_agree() -> None:
    layer = _rounded()
    x, context = 6 * torch.rand(200, 5) - 3, torch.zeros(200, 0)
    _, exact = layer(x, context)
    with products_in(torch.bfloat16):
        y, log_det, *_ = layer.forward_with_score(x, context, torch.zeros_like(x))
        again, same = layer(x, context)
        _, back = layer.inverse(y, context)
        with torch.no_grad():
            _, without_graph = layer.inverse(y, context)
    assert_close((again, same), (y, log_det))
    far = (log_det - exact).std()
    assert (log_det + back).std() < 0.1 * far
    assert (log_det + without_graph).std() < 0.1 * far


def test_what_is_not_seen_gets_no_weight_in_training() -> None:
    layer = _rounded()
    before = layer.net.weights[0].detach().clone()
    optimiser = MuonAdam(layer, lr=0.1)
    x, context = 6 * torch.rand(20, 5) - 3, torch.zeros(20, 0)
    y, log_det = layer(x, context)
    (y.square().sum() - log_det.sum() + layer.inverse(x, context)[1].sum()).backward()
    optimiser.step()
    after = layer.net.weights[0].detach()
    seen = layer.sees.expand_as(after) == 1
    assert (after[~seen] == 0).all()
    assert (after != before)[seen].all()


def test_no_rows_and_too_few_entries() -> None:
    layer = _rounded()
    nothing = torch.zeros(0, 5)
    for each in (layer, layer.inverse, lambda x, c: layer.forward_with_score(x, c, x)):
        assert each(nothing, nothing[:, :0])[0].shape == (0, 5)
    with pytest.raises(ValueError, match="`position` must be of two entries or more, got 1"):
        Autoregressive(CircularSpline(n_bins=4), torch.zeros(1), n_context=0, hidden=(5,))


def test_another_order_is_refused() -> None:
    one, other = (
        Autoregressive(CircularSpline(n_bins=4), position, n_context=0, hidden=(5,))
        for position in (torch.arange(3.0), -torch.arange(3.0))
    )
    with pytest.raises(ValueError, match=r"the order \[0, 1, 2\], this layer has \[2, 1, 0\]"):
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
