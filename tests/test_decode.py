"""Encoding trajectories and decoding CV values: exact answers on toys, MDTraj on a molecule.

Cannot detect a poor encoder or decoder: the models here are not trained.
"""

import copy
import math

import mdtraj
import numpy as np
import pytest
import torch
from pyro.distributions import Independent, Normal
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.coordinates.clashes import distant_pairs
from gencg.energies.base import Energy
from gencg.ensemble import decode, draw
from gencg.fit import FitResult, fit
from gencg.models.base import ConditionalDistribution
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import collective_model
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.systems import alanine_dipeptide, double_well
from gencg.systems.base import System
from gencg.target import BoltzmannTarget
from gencg.units import temperature_of


class _Linear(ConditionalDistribution):
    """N(slope * context, width^2) in one dimension; the context may be empty."""

    def __init__(self, slope: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.slope, self.width = slope, width

    def forward(self, context: torch.Tensor) -> Independent:
        loc = self.slope * context if context.shape[1] else context.new_zeros(len(context), 1)
        return Normal(loc, self.width).to_event(1)


class _Harmonic(Energy):
    def __init__(self) -> None:
        super().__init__((1,))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x[..., 0] ** 2


def _linear(decoder: _Linear) -> tuple[CoarseGrainedModel, BoltzmannTarget]:
    model = CoarseGrainedModel(decoder, prior=_Linear(), encoder=_Linear(0.6, 0.8), n_cvs=1)
    return model.double(), BoltzmannTarget(_Harmonic(), Cartesian(1), temperature_of(1.0))


def _log_marginal(z: float) -> float:
    """log of Z p(z): y ~ N(0, 1) seen through N(0.6 y, 0.8^2) is N(0, 1)."""
    return 0.5 * math.log(2 * math.pi) - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)


@pytest.fixture(scope="module")
def dipeptide() -> tuple[System, CoarseGrainedModel]:
    torch.manual_seed(3)
    system = alanine_dipeptide()
    generator = CoarseGrainedModel(
        SplineDecoder(
            system.coordinates,
            n_soft_layers=2,
            n_bins=4,
            soft_hidden=(8,),
            n_stiff_layers=2,
            stiff_hidden=(8,),
        )
    )
    cv_map = CollectiveMap(torch.eye(5), n_cvs=2, periodic=True)
    model = collective_model(generator, cv_map).double()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    model.attach(
        coordinates=system.coordinates,
        molecule=system.molecule,
        decode=lambda model, z, n_samples, seed: decode(
            model, target, z, n_samples, molecule=system.molecule, seed=seed, name="ala2"
        ),
    )
    return system, model


def _angle(a, b) -> np.ndarray:
    return np.abs((np.asarray(a) - np.asarray(b) + np.pi) % (2 * np.pi) - np.pi)


def _phi_psi(trajectory: mdtraj.Trajectory) -> np.ndarray:
    return np.hstack([mdtraj.compute_phi(trajectory)[1], mdtraj.compute_psi(trajectory)[1]])


def _permuted(trajectory: mdtraj.Trajectory, order: np.ndarray) -> mdtraj.Trajectory:
    old, new = trajectory.topology, mdtraj.Topology()
    chain = new.add_chain()
    residues = [new.add_residue(r.name, chain, resSeq=r.resSeq) for r in old.residues]
    place = {}
    for i in order.tolist():
        atom = old.atom(i)
        place[i] = new.add_atom(atom.name, atom.element, residues[atom.residue.index])
    for a, b in old.bonds:
        new.add_bond(place[a.index], place[b.index])
    return mdtraj.Trajectory(trajectory.xyz[:, order], new)


# Encode


def test_cvs_of_a_trajectory_in_another_order_are_the_torsions_mdtraj_finds(dipeptide) -> None:
    system, model = dipeptide
    with torch.no_grad():
        _, y, _ = model.sample(40)
    x, _ = system.coordinates.inverse(y)
    trajectory = system.molecule.to_mdtraj(x)
    z = model.encode(_permuted(trajectory, np.random.default_rng(0).permutation(22)))
    assert z.shape == (40, 2)
    assert z.dtype == np.float64
    assert ((z >= -np.pi) & (z < np.pi)).all()
    # MDTraj works in single precision
    assert _angle(z, _phi_psi(trajectory)).max() < 2e-3
    # And all the torus is visited
    assert z.min(0).max() < -1
    assert z.max(0).min() > 1

    # In single precision, as trained models are, to its digits
    assert _angle(copy.deepcopy(model).float().encode(x), model.encode(x)).max() < 1e-5

    # Positions without a topology are taken as they are
    assert _angle(model.encode(x), z).max() < 2e-3
    assert_close(model.encode(x.numpy()), model.encode(x))


def test_hydrogens_of_the_other_hand_change_nothing_and_are_not_strange(dipeptide, caplog) -> None:
    system, model = dipeptide
    molecule = system.molecule
    names = {name: i for i, name in enumerate(molecule.names)}
    order = np.arange(22)
    order[[names["ALA2-HB1"], names["ALA2-HB2"]]] = names["ALA2-HB2"], names["ALA2-HB1"]
    x = np.stack([molecule.positions, molecule.positions[order]])
    z = model.encode(molecule.to_mdtraj(x))
    assert _angle(z[0], z[1]).max() < 1e-5
    assert caplog.text == ""


def test_the_other_hand_is_encoded_with_a_warning(dipeptide, caplog) -> None:
    system, model = dipeptide
    mirrored = system.molecule.positions * [1, 1, -1]
    z = model.encode(system.molecule.to_mdtraj(np.stack([mirrored, system.molecule.positions])))
    assert _angle(z[0], -z[1]).max() < 1e-5
    assert "1 of 2 frames have another handedness or a turned double bond" in caplog.text


def test_a_trajectory_of_something_else_is_refused(dipeptide) -> None:
    system, model = dipeptide
    heavy = [i for i, e in enumerate(system.molecule.elements) if e != "H"]
    with pytest.raises(ValueError, match="lacks 12 of the 12 hydrogens"):
        model.encode(system.molecule.to_mdtraj().atom_slice(heavy))
    with pytest.raises(ValueError, match=r"have shape \(n, 22, 3\), got \(4, 10, 3\)"):
        model.encode(torch.zeros(4, 10, 3))
    with pytest.raises(ValueError, match=r"have shape \(n, 22, 3\), got \(0, 22, 3\)"):
        model.encode(torch.zeros(0, 22, 3))
    with pytest.raises(ValueError, match="nan or inf in 1 frames, the first at 1"):
        model.encode(torch.tensor([1.0, math.nan])[:, None, None].expand(2, 22, 3))


def test_the_encoder_of_a_toy_is_its_mean() -> None:
    model = build_model(Cartesian(2), n_cvs=1).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.attach(coordinates=Cartesian(2))
    x = torch.randn(7, 2)
    assert_close(torch.as_tensor(model.encode(x)), model.encoder(x).mean.detach())
    with pytest.raises(ValueError, match=r"a toy has no atoms to match; give .* \(n, 2\)"):
        model.encode(alanine_dipeptide().molecule.to_mdtraj())


# Decode


@pytest.mark.parametrize("z", [-1.0, 0.0, 1.7])
def test_the_mean_weight_is_the_marginal_at_z(z) -> None:
    model, target = _linear(_Linear(0.5, 1.0))
    ensemble = decode(model, target, [z], 40_000)
    assert 0.5 < ensemble.ess < 0.999
    # Four standard errors: fails for 1 seed in 16,000
    assert abs(ensemble.log_z - _log_marginal(z)) < 4 * ensemble.log_z_error
    # Averages are those of p(y|z) = N(0.6 z, 0.8^2)
    mean, error = ensemble.expectation(lambda x: x[:, 0])
    assert abs(float(mean) - 0.6 * z) < 4 * float(error)


def test_the_posterior_as_decoder_has_constant_weights() -> None:
    model, target = _linear(_Linear(0.6, 0.8))
    ensemble = decode(model, target, torch.tensor([[0.3], [-2.0]]), 50, batch_size=30)
    assert ensemble.n_samples == ensemble.n_energy_calls == 100
    expected = torch.tensor([_log_marginal(0.3), _log_marginal(-2.0)]).repeat_interleave(50)
    assert_close(ensemble.log_weights, expected)
    assert_close(ensemble.z[:, 0], torch.tensor([0.3, -2.0]).repeat_interleave(50))


def test_weights_of_the_molecule_term_by_term(dipeptide) -> None:
    system, model = dipeptide
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    z = torch.tensor([-1.2, 2.5])
    ensemble = model.decode(z, 60, seed=1)
    assert ensemble.name == "ala2"
    assert ensemble.molecule is system.molecule
    assert_close(ensemble.z, z.expand(60, 2))
    y = ensemble.y
    with torch.no_grad():
        log_q = model.decoder(ensemble.z).log_prob(y)
        log_r = model.encoder(y).log_prob(ensemble.z)
    expected = target.log_density(y) + log_r - log_q
    assert ensemble.valid.any()
    assert_close(ensemble.log_weights[ensemble.valid], expected[ensemble.valid])
    assert ensemble.log_weights[~ensemble.valid].isneginf().all()
    assert torch.equal(ensemble.valid, system.coordinates.valid(ensemble.x))

    # What comes out encodes to where it came from, within six widths of the encoder
    assert _angle(model.encode(ensemble.x), z).max() < 6 * 0.1
    assert _angle(model.encode(ensemble.to_mdtraj()), z).max() < 6 * 0.1


def test_angles_of_z_may_lie_on_any_turn(dipeptide) -> None:
    _, model = dipeptide
    z = torch.tensor([3.0, -0.5])
    first, second = model.decode(z, 5), model.decode(z + 2 * math.pi * torch.tensor([1, -2]), 5)
    assert_close(first.z, second.z)
    assert_close(first.x, second.x)
    assert_close(first.log_weights, second.log_weights, rtol=1e-6, atol=1e-6)


def test_one_seed_one_ensemble(dipeptide) -> None:
    _, model = dipeptide
    before = torch.get_rng_state()
    first = model.decode([0.0, 0.0], 5, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.decode([0.0, 0.0], 5, seed=2).y, first.y)
    assert not torch.equal(model.decode([0.0, 0.0], 5, seed=3).y, first.y)


def test_clashes_are_pairs_beyond_1_4(dipeptide) -> None:
    system, model = dipeptide
    pairs = {tuple(p) for p in distant_pairs(system.molecule).tolist()}
    near = {(i, j) for i in range(22) for j in range(i + 1, 22)} - pairs
    # By walking: within three bonds
    walked = set()
    for i in range(22):
        shell = {i}
        for _ in range(3):
            shell |= {k for j in shell for k in system.molecule.neighbours[j]}
        walked |= {(i, j) for j in shell if i < j}
    assert near == walked

    ensemble = model.decode([0.0, 0.0], 40)
    i, j = torch.tensor(sorted(pairs)).unbind(1)
    closest = (ensemble.x[:, i] - ensemble.x[:, j]).norm(dim=-1).amin(1)
    assert torch.equal(ensemble.clashes, closest < 0.12)
    assert 0 < ensemble.n_clashes == int((closest < 0.12).sum())  # phi = psi = 0: O on H
    model_toy, target = _linear(_Linear())
    assert decode(model_toy, target, [0.0], 5).n_clashes == 0


def test_bad_values_of_z_are_refused(dipeptide) -> None:
    _, model = dipeptide
    for z, shape in (([0.0], r"\(1,\)"), (np.zeros((2, 3)), r"\(2, 3\)"), (0.0, r"\(\)")):
        with pytest.raises(ValueError, match=rf"`z` must have shape \(2,\) or \(m, 2\).*{shape}"):
            model.decode(z, 5)
    with pytest.raises(ValueError, match=r"\(m, 2\).*got \(0, 2\)"):
        model.decode(np.zeros((0, 2)), 5)
    with pytest.raises(ValueError, match="`z` must be finite, got"):
        model.decode([0.0, math.nan], 5)
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        model.decode([0.0, 0.0], 0)
    toy, target = _linear(_Linear())
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        decode(toy, target, [0.0], 5, batch_size=0)
    with pytest.raises(ValueError, match="no collective variables to decode from"):
        decode(build_model(Cartesian(1)), target, [0.0], 5)


# Attachment


def test_a_model_alone_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="no collective variables to encode; fit it with n_cvs"):
        build_model(Cartesian(2)).encode(torch.zeros(1, 2))
    model = build_model(Cartesian(2), n_cvs=1)
    with pytest.raises(ValueError, match="does not know its molecule, which encode needs"):
        model.encode(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"which decode needs; .* model\.attach\("):
        model.decode([0.0], 1)
    model.attach(coordinates=Cartesian(2))
    with pytest.raises(ValueError, match="attached without `decode`"):
        model.decode([0.0], 1)


def _fitted(checkpoint=None) -> FitResult:
    return fit(double_well(), n_cvs=1, energy_calls=640, batch_size=64, checkpoint=checkpoint)


def test_a_fitted_model_encodes_and_decodes_also_after_a_resume(tmp_path) -> None:
    result = _fitted(tmp_path / "c.pt")
    ensemble = result.model.decode([[0.5], [1.0]], 20)
    assert ensemble.n_samples == 40
    assert ensemble.name == "double-well"
    z = result.model.encode(ensemble.x)
    assert z.shape == (40, 1)
    assert_close(
        z,
        result.model.encoder(ensemble.y).mean.detach().double().numpy(),
        atol=1e-6,
        rtol=0,
    )

    again = _fitted(tmp_path / "c.pt").model
    assert torch.equal(again.decode([[0.5], [1.0]], 20).log_weights, ensemble.log_weights)
    assert np.array_equal(again.encode(ensemble.x), z)


def test_a_copy_shares_what_the_model_describes() -> None:
    result = _fitted()
    twin = copy.deepcopy(result.model)
    assert twin._attachment is result.model._attachment
    assert twin.state_dict().keys() == build_model(Cartesian(2), n_cvs=1).state_dict().keys()
    calls = result.target.energy.n_energy_calls
    with torch.no_grad():
        for parameter in twin.decoder.parameters():
            parameter += 0.1
    moved = twin.decode([0.5], 10)
    # The same energy counts, other parameters decode
    assert result.target.energy.n_energy_calls == calls + 10
    assert not torch.equal(moved.y, result.model.decode([0.5], 10).y)


def test_decoding_at_samples_of_the_prior_is_drawing() -> None:
    model, target = _linear(_Linear(0.5, 1.0))
    drawn = draw(model, target, 500)
    at = decode(model, target, drawn.z, 40)
    # E_z[w(z)] / q(z) averages to Z: the two estimates of one integral, four errors apart
    log_w = at.log_weights - model.prior(model.rows(len(at))).log_prob(at.z)
    value = torch.logsumexp(log_w, 0) - math.log(len(log_w))
    spread = (log_w - value).exp().reshape(500, 40).mean(1).std() / math.sqrt(500)
    assert abs(float(value) - 0.5 * math.log(2 * math.pi)) < 4 * float(spread)
