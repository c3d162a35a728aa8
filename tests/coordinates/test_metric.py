"""The mass metric of angles and distances against atoms moved by brute force.

Cannot detect: a wrong mass in the topology, which both sides share.
"""

import pytest
import torch
from torch.testing import assert_close

import gencg
from gencg.coordinates.metric import mass_metric
from gencg.coordinates.pairs import FARTHEST, bonds_between, describing_pairs, far_pairs
from gencg.discover import find_slow_cvs
from gencg.discover.covering import soft_samples
from gencg.fit import as_result
from gencg.geometry import distances
from gencg.models.build import build_model
from gencg.objectives.dirichlet import SoftSamples


@pytest.fixture(scope="module")
def dipeptide() -> gencg.System:
    return gencg.systems.load("alanine-dipeptide")


def test_gradients_of_any_function_have_the_length_that_the_metric_says(dipeptide) -> None:
    r"""Of f(s, d): :math:`\nabla f^T G \nabla f = \sum_a |\nabla_a f|^2 / m_a`."""
    coordinates, molecule = dipeptide.coordinates, dipeptide.molecule
    soft = coordinates.soft.nonzero()[:, 0]
    pairs, masses = describing_pairs(coordinates, n=5), torch.as_tensor(molecule.masses)
    x = torch.as_tensor(molecule.positions) + 0.01 * torch.randn(4, 22, 3)
    metric = mass_metric(coordinates, x, soft, masses=masses, pairs=pairs)
    k = len(soft)
    assert metric.shape == (4, k + 5, k + 5)
    assert_close(metric[:, :k, :k], mass_metric(coordinates, x, soft, masses=masses))

    def described(x: torch.Tensor) -> torch.Tensor:
        y, _ = coordinates.forward(x)
        return torch.cat([y[:, soft], distances(x, pairs)], dim=1)

    # In mass-weighted positions the metric is a plain product of gradients
    root = masses.sqrt()[:, None]
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda w: described(w[None] / root)[0], one)
            for one in x * root
        ]
    ).flatten(2)
    assert_close(metric, jacobian @ jacobian.mT)

    direction = torch.randn(k + 5, 3)
    x.requires_grad_()
    u = described(x)
    f = (u @ direction).sin().prod(1)
    (by_atoms,) = torch.autograd.grad(f.sum(), x, retain_graph=True)
    (by_descriptors,) = torch.autograd.grad(f.sum(), u)
    moved = (by_atoms.square().sum(2) / masses).sum(1)
    assert_close(torch.einsum("ni,nij,nj->n", by_descriptors, metric, by_descriptors), moved)
    # Distances alone have the two inverse masses on the diagonal
    i, j = pairs.T
    diagonal = metric.diagonal(dim1=1, dim2=2)[:, k:]
    assert_close(diagonal, (1 / masses[i] + 1 / masses[j]).expand(4, -1))


def test_describing_pairs_are_far_apart_and_spread() -> None:
    coordinates = gencg.systems.load("alanine-tetrapeptide").coordinates
    every, chosen = far_pairs(coordinates), describing_pairs(coordinates).tolist()
    assert len(chosen) == 16 < len(every)
    assert {tuple(pair) for pair in chosen} < set(every)
    steps = bonds_between(coordinates.molecule)
    apart = [steps[i, j] for i, j in chosen]
    assert min(apart) >= FARTHEST
    # The two ends are among them
    assert max(apart) == max(steps[pair] for pair in every)
    assert len({i for pair in chosen for i in pair}) >= 10
    elements = coordinates.molecule.elements
    assert all(elements[i] != "H" for pair in chosen for i in pair)
    assert len(describing_pairs(coordinates, n=3)) == 3


def test_samples_carry_their_distances(dipeptide) -> None:
    coordinates = dipeptide.coordinates
    target = gencg.BoltzmannTarget(dipeptide.energy, coordinates, 300.0)
    torch.manual_seed(0)
    result = as_result(dipeptide, build_model(coordinates), target=target)
    ensemble = gencg.draw(result.model, target, 60, molecule=dipeptide.molecule)
    pairs = describing_pairs(coordinates)
    samples = soft_samples(dipeptide, ensemble, pairs=pairs)
    bare = soft_samples(dipeptide, ensemble)
    assert bare.distances is None
    assert_close(samples.metric, bare.metric)
    kept = torch.isfinite(ensemble.log_weights)
    assert_close(samples.distances, distances(ensemble.x[kept], pairs))

    some = torch.tensor([5, 2])
    both = SoftSamples.join([samples, samples.take(some)], torch.zeros(len(samples.s) + 2))
    assert_close(both.distances[-2:], samples.distances[some])
    assert_close(both.joint_metric[-1], samples.joint_metric[2])
    wide = both.with_distances()
    assert wide.s.shape[1] == samples.n_soft + len(pairs) == wide.metric.shape[1]
    assert samples.project([0]).distances is None
    with pytest.raises(ValueError, match="`samples` must have distances"):
        bare.with_distances()
    with pytest.raises(ValueError, match="`descriptors` must be one of torsions, distances, both"):
        find_slow_cvs(result, descriptors="angles")
    toy = gencg.systems.load("double-well")
    plain = gencg.BoltzmannTarget(toy.energy, toy.coordinates, toy.temperature)
    flat = as_result(toy, build_model(toy.coordinates), target=plain)
    with pytest.raises(ValueError, match="needs distances, and double-well has no internal"):
        find_slow_cvs(flat, descriptors="both")
