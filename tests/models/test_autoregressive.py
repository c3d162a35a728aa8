"""Soft blocks that move one coordinate after the other: their factors, defaults and older files.

Cannot detect a density that is wrong both ways; tests of flows and scores hold it to the Jacobian.
"""

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.distributions.couplings import CircularSpline, Coupling
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
    moved = [int(layer.move.index[0]) for layer in layers if isinstance(layer, Coupling)]
    position = space.soft_position[moved[: space.n_soft]]
    assert sorted(moved[: space.n_soft]) == list(range(space.n_soft))
    assert (position.diff() >= 0).all()
    assert moved[space.n_soft :] == moved[: space.n_soft]
    for k, layer in enumerate(layers[: space.n_soft]):
        assert sorted(layer.kept.tolist()) == sorted(moved[:k])


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
    assert len(wide.flow.soft.chain.layers) == 51


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


def test_a_layer_sees_what_it_is_told_to_and_not_what_moves() -> None:
    transform = CircularSpline(n_bins=4)
    moved, seen = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    layer = Coupling(transform, moved, n_context=0, hidden=(5,), seen=seen)
    torch.nn.init.normal_(layer.net.layers[-1].weight)
    x = torch.rand(6, 3)
    other = x.clone()
    other[:, 1] += 0.5
    (y, log_det), (z, same) = (layer(each, x[:, :0]) for each in (x, other))
    assert torch.equal(y[:, 0], z[:, 0])
    assert torch.equal(log_det, same)
    assert torch.equal(z[:, 1:], other[:, 1:])
    with pytest.raises(ValueError, match=r"`seen` must mark no entry that moves, got \[0\]"):
        Coupling(transform, moved, n_context=0, hidden=(5,), seen=~seen)
