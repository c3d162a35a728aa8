"""Contacts of a stiff block: exact densities and scores, and generators that had none.

Cannot detect contacts that say nothing about the stiff coordinates.
"""

import copy
import math

import pytest
import torch
from molecules import ethane
from torch.testing import assert_close

import gencg
from gencg.coordinates.base import Cartesian
from gencg.coordinates.internal import InternalCoordinates
from gencg.deadline import TimeIsUp
from gencg.geometry import distances
from gencg.models.build import build_model, sees_contacts, with_contacts
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.contacts import LENGTH, Contacts, has_contacts
from gencg.models.decoders import SplineDecoder
from gencg.models.locality import Locality
from gencg.systems import alanine_dipeptide, alanine_tetrapeptide, load

SMALL = {"n_soft_layers": 4, "n_bins": 4, "soft_hidden": (6,), "n_stiff_layers": 3}


@pytest.fixture(scope="module")
def coordinates() -> InternalCoordinates:
    found = alanine_dipeptide().coordinates
    assert isinstance(found, InternalCoordinates)
    return found


def _model(coordinates: InternalCoordinates) -> CoarseGrainedModel:
    torch.manual_seed(0)
    decoder = SplineDecoder(coordinates, contacts=True, stiff_hidden=(16, 16), **SMALL)
    model = CoarseGrainedModel(decoder).double()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def _contacts(model: CoarseGrainedModel) -> Contacts:
    found = model.decoder.flow.stiff.contacts
    assert isinstance(found, Contacts)
    return found


def test_they_are_distances_of_the_reference_structure_turned(coordinates) -> None:
    contacts = Contacts(coordinates).double()
    s = 2 * math.pi * torch.rand(5, int(coordinates.soft.sum()), dtype=torch.float64)
    y = coordinates.centre.repeat(5, 1)
    y[:, coordinates.soft] = s
    x, _ = coordinates.inverse(y)
    near = torch.exp(-distances(x, contacts.pairs.T) / LENGTH)
    expected = 4 * torch.tanh((near - contacts.middle) / (4 * contacts.spread))
    assert_close(contacts.contacts(s), expected, rtol=0, atol=1e-4)


def test_hydrogen_bonds_are_seen_and_hydrogens_of_methyl_are_not(coordinates) -> None:
    elements, pairs = coordinates.molecule.elements, Contacts(coordinates).pairs.T.tolist()
    neighbours = coordinates.molecule.neighbours
    hydrogens = {k for pair in pairs for k in pair if elements[k] == "H"}
    assert any({elements[i], elements[j]} == {"H", "O"} for i, j in pairs)
    assert all(any(elements[j] == "N" for j in neighbours[k]) for k in hydrogens)


@pytest.mark.parametrize("which", ["score", "density"])
def test_density_and_score_are_exact(coordinates, which: str) -> None:
    model = _model(coordinates)
    flow, rows = model.decoder.flow, model.rows(6)
    if which == "score":
        torch.manual_seed(1)
        y, score, _ = model.decoder(rows).rsample_with_score()
        y = y.detach().requires_grad_()
        (by_hand,) = torch.autograd.grad(model.decoder(rows).log_prob(y).sum(), y)
        assert_close(score, by_hand, rtol=1e-8, atol=1e-8)
        return
    eps = model.decoder(rows).base.sample()[:1]
    jacobian = torch.autograd.functional.jacobian(lambda e: flow(e[None], rows[:1])[0][0], eps[0])
    y, log_det = flow(eps, rows[:1])
    assert_close(log_det[0], jacobian.slogdet()[1], rtol=0, atol=1e-9)
    back, log_det_back = flow.inverse(y, rows[:1])
    assert_close(back, eps, rtol=0, atol=1e-8)
    assert_close(log_det_back, -log_det, rtol=0, atol=1e-8)


def test_gradients_of_parameters_are_those_of_the_plain_way(coordinates) -> None:
    model = _model(coordinates)
    eps, rows = model.decoder(model.rows(4)).base.sample(), model.rows(4)
    flow, found = model.decoder.flow, []
    for scored in (False, True):
        model.zero_grad()
        y, log_det = flow.forward_with_score(eps, rows, -eps)[:2] if scored else flow(eps, rows)
        (y.square().sum() + log_det.sum()).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    assert any(name.startswith("decoder.flow.stiff.contacts.net") for name in found[0])
    for name, gradient in found[0].items():
        assert_close(found[1][name], gradient, rtol=1e-7, atol=1e-9)
        if name.startswith("decoder.flow.stiff.contacts.net"):
            assert gradient.abs().max() > 0


def test_a_generator_without_them_keeps_its_density_and_can_learn_from_them() -> None:
    coordinates = alanine_tetrapeptide().coordinates
    torch.manual_seed(0)
    before = build_model(coordinates, contacts=False)
    for parameter in before.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    grown = with_contacts(before, coordinates)
    assert sees_contacts(grown.state_dict())
    assert not sees_contacts(before.state_dict())
    assert with_contacts(grown, coordinates) is grown
    with torch.no_grad():
        _, y, log_q = before.sample(32)
        rows = grown.rows(32)
        assert_close(grown.decoder(rows).log_prob(y), log_q, rtol=0, atol=2e-3)
    grown.decoder(rows).log_prob(y).sum().backward()
    first = next(p for n, p in grown.named_parameters() if "stiff.chain" in n and p.ndim == 2)
    n_seen = _contacts(grown).n_out
    assert first.grad[:, -n_seen:].abs().max() > 0


def test_larger_molecules_have_them_and_others_have_none() -> None:
    large, small = alanine_tetrapeptide().coordinates, alanine_dipeptide().coordinates
    assert sees_contacts(build_model(large).state_dict())
    assert not sees_contacts(build_model(small).state_dict())
    assert not sees_contacts(build_model(load("double-well").coordinates).state_dict())
    windows = SplineDecoder(large, locality=Locality(whole=12, stiff=40))
    assert windows.flow.stiff.contacts is None
    assert not has_contacts(InternalCoordinates(ethane()))


def test_a_copy_shares_the_coordinates_and_no_parameter(coordinates) -> None:
    contacts = Contacts(coordinates)
    twin = copy.deepcopy(contacts)
    s = torch.rand(3, int(coordinates.soft.sum()))
    assert torch.equal(twin(s), contacts(s))
    with torch.no_grad():
        twin.net.layers[-1].bias += 1
    assert torch.equal(twin(s), contacts(s) + 1)
    assert twin._coordinates is contacts._coordinates


def test_a_training_of_before_goes_on_without_them(tmp_path, monkeypatch) -> None:
    system, path = alanine_tetrapeptide(), tmp_path / "checkpoint.pt"
    settings = {"energy_calls": 96, "batch_size": 24, "seed": 3}
    monkeypatch.setattr("gencg.models.decoders.has_contacts", lambda coordinates: False)
    whole = gencg.fit(system, **settings)
    with pytest.raises(TimeIsUp):
        gencg.fit(system, **settings, checkpoint=path, stop=lambda: True)
    monkeypatch.undo()
    rest = gencg.fit(system, **settings, checkpoint=path)
    theirs, ours = whole.model.state_dict(), rest.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert not sees_contacts(ours)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)


def test_they_are_refused_where_there_can_be_none() -> None:
    with pytest.raises(ValueError, match="`contacts` must be left out for coordinates that are no"):
        SplineDecoder(Cartesian(3), contacts=True)
    coordinates = alanine_dipeptide().coordinates
    with pytest.raises(ValueError, match="`contacts` must be None where the block has several"):
        SplineDecoder(coordinates, contacts=True, locality=Locality(whole=12, stiff=20))
    with pytest.raises(ValueError, match="`coordinates` must let atoms come near each other"):
        Contacts(InternalCoordinates(ethane()))
