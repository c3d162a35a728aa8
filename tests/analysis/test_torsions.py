"""Torsions against MDTraj, states as partitions, total variation distances with known values.

Cannot detect: whether the borders of the basins suit a molecule other than small peptides.
"""

import mdtraj
import numpy as np
import pytest
import torch

from gencg.analysis import (
    Torsions,
    ensemble_torsions,
    ramachandran_basins,
    ramachandran_total_variation,
    rotamer_basins,
    states,
    torsion_angles,
)
from gencg.analysis.torsions import residue_pairs
from gencg.coordinates.base import Cartesian
from gencg.ensemble import Ensemble
from gencg.systems import alanine_dipeptide, butane, double_well


def flat_ensemble(x: torch.Tensor, molecule=None) -> Ensemble:
    n = len(x)
    return Ensemble(
        x=x, y=x.reshape(n, -1), z=torch.zeros(n, 0), energy=torch.zeros(n),
        log_weights=torch.zeros(n), valid=torch.ones(n, dtype=torch.bool), temperature=300.0,
        molecule=molecule,
    )  # fmt: skip


def test_phi_and_psi_are_those_of_mdtraj() -> None:
    system = alanine_dipeptide()
    x = torch.as_tensor(system.molecule.positions) + 0.02 * torch.randn(20, 22, 3)
    torsions = ensemble_torsions(flat_ensemble(x, system.molecule))
    trajectory = mdtraj.Trajectory(x.numpy(), system.molecule.topology)
    assert torsions.labels == ("phi(ALA2)", "psi(ALA2)")
    for label, compute in (("phi", mdtraj.compute_phi), ("psi", mdtraj.compute_psi)):
        theirs = compute(trajectory)[1][:, 0]
        np.testing.assert_allclose(torsions[f"{label}(ALA2)"], theirs, atol=2e-5)
    assert list(residue_pairs(torsions)) == ["ALA2"]


def test_without_a_molecule_the_periodic_coordinates_stand_in() -> None:
    ensemble = flat_ensemble(torch.tensor([[4.0], [-1.0]]))
    torsions = ensemble_torsions(ensemble, Cartesian(1, periodic=True))
    np.testing.assert_allclose(torsions.values[:, 0], [4.0 - 2 * np.pi, -1.0])
    assert ensemble_torsions(ensemble, Cartesian(1)).labels == ()
    assert ensemble_torsions(ensemble).labels == ()


@pytest.mark.parametrize("build", [ramachandran_basins, lambda phi, psi: rotamer_basins(phi)])
def test_every_angle_is_in_exactly_one_state(build) -> None:
    angles = np.random.default_rng(0).uniform(-10, 10, (2, 5000))
    edges = np.radians([-180.0, -120.0, -110.0, 0.0, 50.0, 120.0, 126.0, 180.0])
    angles = np.concatenate([angles, np.stack(np.meshgrid(edges, edges)).reshape(2, -1)], 1)
    masks = build(*angles)
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)
    broken = build(np.array([np.nan]), np.array([np.nan]))
    assert not any(mask.any() for mask in broken.values())


def test_the_basins_hold_their_textbook_conformations() -> None:
    # Right- and left-handed helix, antiparallel sheet, polyproline II
    phi, psi = np.radians([[-57, 57, -139, -75], [-47, 47, 135, 145]])
    names = list(ramachandran_basins(phi, psi))
    found = [[k for k in names if ramachandran_basins(phi, psi)[k][i]] for i in range(4)]
    assert found == [["alpha_R"], ["alpha_L"], ["beta"], ["PPII"]]


def test_states_of_several_residues_carry_their_names() -> None:
    labels = ("phi(ALA2)", "psi(ALA2)", "phi(GLY3)", "psi(GLY3)")
    torsions = Torsions(labels, np.zeros((3, 4)))
    found = states(_Plain(), None, torsions)
    assert list(found)[:2] == ["ALA2 alpha_L", "ALA2 alpha_R"]
    assert len(found) == 8
    one = states(_Plain(), None, Torsions(labels[:2], np.zeros((3, 2))))
    assert list(one) == ["alpha_L", "alpha_R", "PPII", "beta"]


def test_states_of_other_molecules_are_rotamers() -> None:
    torsions = Torsions(("torsion C1-C2", "torsion C2-C3", "rotor"), np.zeros((3, 3)))
    found = states(_Plain(), None, torsions)
    assert next(iter(found)) == "torsion C1-C2 trans"
    assert len(found) == 6


@pytest.mark.parametrize("build", [double_well, butane])
def test_a_toy_brings_its_own_states(build) -> None:
    system = build()
    x = torch.randn(50, *system.energy.event_shape)
    found = states(system, flat_ensemble(x), Torsions((), np.zeros((50, 0))))
    assert set(found) == set(system.known["populations"])
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in found.values()), 1)


class _Plain:
    energy = None


def test_total_variation_of_equal_and_of_disjoint_samples() -> None:
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (500, 2))
    assert ramachandran_total_variation(angles, angles)[0] == 0.0
    left, right = np.full((10, 2), -1.0), np.full((20, 2), 1.0)
    assert ramachandran_total_variation(left, right)[0] == pytest.approx(1.0)
    # Weights can move all of one sample onto the other
    both, log_weights = np.concatenate([left, right]), np.repeat([0.0, -np.inf], [10, 20])
    assert ramachandran_total_variation(both, left, log_weights=log_weights)[0] == pytest.approx(0)


def test_the_floor_is_what_two_equal_samples_show() -> None:
    """Mean of 20 pairs within 4 % of the stated floor, some four standard errors."""
    rng = np.random.default_rng(1)
    pairs = [
        ramachandran_total_variation(
            rng.vonmises(0, 1, (4000, 2)), rng.vonmises(0, 1, (3000, 2)), bins=10
        )
        for _ in range(20)
    ]
    found, floor = np.mean(pairs, axis=0)
    assert found == pytest.approx(floor, rel=0.04)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`positions` must have shape \(n, n_atoms, 3\)"):
        torsion_angles(torch.zeros(4, 3), [(0, 1, 2, 3)])
    with pytest.raises(ValueError, match="`quads` must name atoms below 4"):
        torsion_angles(torch.zeros(2, 4, 3), [(0, 1, 2, 4)])
    with pytest.raises(ValueError, match="same number of torsions"):
        ramachandran_total_variation(np.zeros((5, 2)), np.zeros(5))
