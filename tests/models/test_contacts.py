"""Contacts of a stiff block: exact densities and scores, and generators that had none.

Cannot detect contacts that say nothing about the stiff coordinates.
"""

import copy
import math

import pytest
import torch
from molecules import dipeptide, ethane, proline
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


def _decoder(coordinates: InternalCoordinates, n_cvs: int = 0) -> SplineDecoder:
    torch.manual_seed(0)
    decoder = SplineDecoder(
        coordinates, n_cvs=n_cvs, contacts=True, stiff_hidden=(16, 16), **SMALL
    ).double()
    for parameter in decoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return decoder


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
    near = torch.exp(-(distances(x, contacts.pairs.T).square() + 1e-6).sqrt() / LENGTH)
    expected = 4 * torch.tanh((near - contacts.middle) / (4 * contacts.spread))
    assert_close(contacts.scaled(s), expected, rtol=0, atol=1e-6)


def test_hydrogen_bonds_are_seen_and_hydrogens_of_methyl_are_not(coordinates) -> None:
    elements, pairs = coordinates.molecule.elements, Contacts(coordinates).pairs.T.tolist()
    neighbours = coordinates.molecule.neighbours
    hydrogens = {k for pair in pairs for k in pair if elements[k] == "H"}
    assert any({elements[i], elements[j]} == {"H", "O"} for i, j in pairs)
    assert all(any(elements[j] == "N" for j in neighbours[k]) for k in hydrogens)


@pytest.mark.parametrize("n_cvs", [0, 2])
@pytest.mark.parametrize("molecule", [dipeptide, proline])
def test_density_and_score_are_exact(molecule, n_cvs: int) -> None:
    coordinates = InternalCoordinates(molecule())
    decoder = _decoder(coordinates, n_cvs)
    flow, z = decoder.flow, torch.randn(6, n_cvs, dtype=torch.float64)
    torch.manual_seed(1)
    y, score, of_z = decoder(z).rsample_with_score()
    y, z = y.detach().requires_grad_(), z.requires_grad_()
    by_hand = torch.autograd.grad(decoder(z).log_prob(y).sum(), (y, z), allow_unused=True)
    assert_close(score, by_hand[0], rtol=1e-8, atol=1e-8)
    if n_cvs:
        assert_close(of_z, by_hand[1], rtol=1e-8, atol=1e-8)
    eps = decoder(z).base.sample()[:1]
    jacobian = torch.autograd.functional.jacobian(lambda e: flow(e[None], z[:1])[0][0], eps[0])
    y, log_det = flow(eps, z[:1])
    assert_close(log_det[0], jacobian.slogdet()[1], rtol=0, atol=1e-9)
    back, log_det_back = flow.inverse(y, z[:1])
    assert_close(back, eps, rtol=0, atol=1e-8)
    assert_close(log_det_back, -log_det, rtol=0, atol=1e-8)


def test_gradients_of_parameters_are_those_of_the_plain_way(coordinates) -> None:
    model = CoarseGrainedModel(_decoder(coordinates))
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
    before = build_model(coordinates, contacts=False).double()
    for parameter in before.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    grown = with_contacts(before, coordinates)
    assert sees_contacts(grown.state_dict())
    assert not sees_contacts(before.state_dict())
    assert with_contacts(grown, coordinates) is grown
    with torch.no_grad():
        _, y, log_q = before.sample(32)
        rows = grown.rows(32)
        assert_close(grown.decoder(rows).log_prob(y), log_q, rtol=0, atol=1e-9)
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
    with pytest.raises(ValueError, match="`contacts` are for coordinates of a molecule, got True"):
        SplineDecoder(Cartesian(3), contacts=True)
    coordinates = alanine_dipeptide().coordinates
    with pytest.raises(
        ValueError, match=r"`contacts` are for layers .* in one window, got 3 windows"
    ):
        SplineDecoder(coordinates, contacts=True, locality=Locality(whole=12, stiff=20))
    with pytest.raises(
        ValueError, match="`coordinates` must have soft torsions and two atoms four"
    ):
        Contacts(InternalCoordinates(ethane()))


def test_parameters_of_the_other_kind_are_refused_with_the_cure(coordinates) -> None:
    one, other = (SplineDecoder(coordinates, contacts=c, **SMALL) for c in (True, False))
    with pytest.raises(ValueError, match="block with contacts; build it with contacts=True"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="block without contacts; build it with contacts=False"):
        one.load_state_dict(other.state_dict())


def test_a_generator_keeps_its_reference_structure(coordinates) -> None:
    """Another conformer of the same molecule does not change the density of a stored one."""
    stored, fresh = _decoder(coordinates), _decoder(coordinates)
    s = torch.rand(4, int(coordinates.soft.sum()), dtype=torch.float64)
    near = stored.flow.stiff.contacts(s)
    fresh.flow.stiff.contacts.centre += 0.1
    assert not torch.allclose(fresh.flow.stiff.contacts(s), near)
    fresh.load_state_dict(stored.state_dict())
    assert torch.equal(fresh.flow.stiff.contacts(s), near)


def test_other_networks_begin_alike_with_and_without(coordinates) -> None:
    found = []
    for contacts in (True, False):
        torch.manual_seed(0)
        found.append(SplineDecoder(coordinates, contacts=contacts, **SMALL).flow.soft.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_training_asks_for_no_gradient_of_soft_coordinates_that_are_given(coordinates) -> None:
    contacts = Contacts(coordinates)
    s = torch.rand(4, int(coordinates.soft.sum()))
    out, _ = contacts.with_pullback(s)
    out.sum().backward()
    assert s.grad is None
    assert all(p.grad is not None for p in contacts.net.parameters())
    free = s.clone().requires_grad_()
    contacts.with_pullback(free)[0].sum().backward()
    plain = s.clone().requires_grad_()
    contacts(plain).sum().backward()
    assert_close(free.grad, plain.grad, rtol=1e-4, atol=1e-4)
