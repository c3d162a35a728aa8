"""Theorems of the geometry functions.

Cannot detect: a wrong sign convention shared with MDTraj.
"""

import math

import mdtraj
import pytest
import torch
from molecules import alkane
from torch.testing import assert_close

from gencg.geometry import angles, dihedrals, distances, place_atoms, wrap

PAIRS = torch.tensor([[0, 1], [2, 5], [3, 8]])
TRIPLES = torch.tensor([[0, 1, 2], [4, 2, 6], [9, 3, 1]])
QUADS = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [4, 7, 2, 9]])
FUNCTIONS = {
    "distances": (distances, PAIRS, mdtraj.compute_distances),
    "angles": (angles, TRIPLES, mdtraj.compute_angles),
    "dihedrals": (dihedrals, QUADS, mdtraj.compute_dihedrals),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_geometry_is_that_of_mdtraj(name: str) -> None:
    function, indices, reference = FUNCTIONS[name]
    molecule = alkane()
    x = torch.randn(5, molecule.n_atoms, 3)
    expected = reference(molecule.to_mdtraj(x.numpy()), indices.numpy(), periodic=False)
    assert_close(function(x, indices), torch.as_tensor(expected).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_geometry_does_not_see_rigid_motion_and_is_differentiable(name: str) -> None:
    function, indices, _ = FUNCTIONS[name]
    x = torch.randn(2, 3, 10, 3)
    rotation = torch.linalg.qr(torch.randn(3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation)
    value = function(x, indices)
    assert value.shape == (2, 3, 3)
    assert_close(function(x @ rotation.T + torch.randn(3), indices), value)
    assert torch.autograd.gradcheck(lambda x: function(x, indices), x[0].requires_grad_())


def test_reflection_changes_the_sign_of_dihedrals_only() -> None:
    x = torch.randn(4, 10, 3)
    assert_close(angles(-x, TRIPLES), angles(x, TRIPLES))
    assert_close(dihedrals(-x, QUADS), -dihedrals(x, QUADS))


@pytest.mark.parametrize("step", [1.0, -1.0])
def test_gradients_stay_finite_for_collinear_and_planar_atoms(step: float) -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1 + step, 0, 0], [1 + 2 * step, 0, 0]])
    flat = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [1, step, 0]])
    for x in (line, flat):
        for function, indices in ((angles, [[0, 1, 2]]), (dihedrals, [[0, 1, 2, 3]])):
            x = x.detach().clone().requires_grad_()
            value = function(x, torch.tensor(indices))
            value.sum().backward()
            assert torch.isfinite(value).all()
            assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrap_lands_in_one_turn_and_keeps_the_direction(dtype: torch.dtype) -> None:
    angle = torch.cat([torch.linspace(-20, 20, 1001), math.pi * torch.arange(-5, 6)]).to(dtype)
    angle.requires_grad_()
    wrapped = wrap(angle)
    limit = torch.tensor(math.pi, dtype=dtype)
    assert (wrapped >= -limit).all()
    assert (wrapped < limit).all()
    assert_close(torch.cos(wrapped), torch.cos(angle), atol=1e-5, rtol=0)
    assert_close(torch.sin(wrapped), torch.sin(angle), atol=1e-5, rtol=0)
    assert_close(torch.autograd.grad(wrapped.sum(), angle)[0], torch.ones_like(angle))


def test_a_placed_atom_has_the_length_angle_and_torsion_it_was_given() -> None:
    third, second, bonded = torch.randn(3, 20, 3)
    r, theta, phi = 0.1 + torch.rand(20), 0.2 + 2 * torch.rand(20), wrap(7 * torch.randn(20))
    placed = place_atoms(r, theta, phi, bonded=bonded, second=second, third=third)
    x = torch.stack([placed, bonded, second, third], -2)
    assert_close(distances(x, torch.tensor([[0, 1]]))[:, 0], r)
    assert_close(angles(x, torch.tensor([[0, 1, 2]]))[:, 0], theta)
    assert_close(dihedrals(x, torch.tensor([[0, 1, 2, 3]]))[:, 0], phi)
