"""The search for slow CVs as a whole, on the generator of the dipeptide that comes with gencg, and
the bent map on a torus whose slow direction is bent.

Cannot detect whether the functions are converged: three thousand samples are far too few for that.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gencg import pretrained
from gencg.coordinates.pairs import describing_pairs
from gencg.discover import SlowCVs, find_slow_cvs
from gencg.models.cv_map import CollectiveMap
from gencg.objectives.dirichlet import FourierBasis, SoftSamples, spectrum
from gencg.objectives.slow_modes import solve_heads, train_cv_map

N_SAMPLES = 3000
BARRIER, BEND = 4.0, 0.7


@pytest.fixture(scope="module")
def slow() -> SlowCVs:
    """One CV of the dipeptide, checked by networks of torsions and distances; 18 CPU seconds."""
    torch.set_default_dtype(torch.float32)
    result = pretrained.load("alanine-dipeptide")
    return find_slow_cvs(result, n_cvs=1, n_samples=N_SAMPLES, descriptors="both")


def test_one_cv_of_the_dipeptide_is_phi_or_psi(slow: SlowCVs) -> None:
    assert slow.n_cvs == 1
    assert slow.names[0] in ("phi(ALA2)", "psi(ALA2)")
    assert slow.n_energy_calls == N_SAMPLES
    assert slow.network is not None
    assert slow.network.descriptors == "both"
    assert torch.isfinite(slow.eigenvalues).all()
    # Variational: what the CV alone reaches is no slower than functions of all soft torsions
    assert float(slow.spectrum.eigenvalues[slow.places[0]]) > 0.9 * float(slow.reference[0])


def test_its_samples_keep_their_own_distances(slow: SlowCVs) -> None:
    """Two draws are joined and shuffled: distances and metrics stay with their torsions."""
    samples = slow.samples
    assert samples is not None
    assert samples.distances is not None
    assert samples.joint_metric is not None
    system = pretrained.load("alanine-dipeptide").system
    n_pairs, k = len(describing_pairs(system.coordinates)), samples.n_soft
    n = len(samples.s)
    assert 0.99 * N_SAMPLES < n <= N_SAMPLES
    assert samples.distances.shape == (n, n_pairs)
    assert samples.joint_metric.shape == (n, k + n_pairs, k + n_pairs)
    assert_close(samples.joint_metric[:, :k, :k], samples.metric)
    # Most of the variance of each distance is that of a smooth function of phi and psi
    angles = FourierBasis(torch.eye(2), order=3)(samples.s[:, :2])[0]
    centred = [part.double() - part.double().mean(0) for part in (angles, samples.distances)]

    def explained(f: Tensor, r: Tensor) -> Tensor:
        left = r - f @ torch.linalg.lstsq(f, r).solution
        return 1 - left.square().sum(0) / r.square().sum(0)

    assert float(explained(*centred).min()) > 0.5
    assert float(explained(centred[0], centred[1].roll(1, 0)).max()) < 0.1


def bent_wells(n: int, seed: int) -> SoftSamples:
    r"""Uniform on the torus with weights :math:`\exp(-b (1 + \cos 2u) / 2)`, u = a - c sin b."""
    generator = torch.Generator().manual_seed(seed)
    s = (2 * torch.rand(n, 2, generator=generator) - 1) * math.pi
    return _weighted(s)


def _weighted(s: Tensor) -> SoftSamples:
    u = s[:, 0] - BEND * s[:, 1].sin()
    log_p = -BARRIER * (1 + torch.cos(2 * u)) / 2
    return SoftSamples(s, torch.eye(2).expand(len(s), 2, 2), log_p, True)


def test_a_bent_map_of_angles_finds_a_bent_slow_direction() -> None:
    line = torch.linspace(-math.pi, math.pi, 121)[:-1]
    exact = spectrum(
        _weighted(torch.cartesian_prod(line, line)),
        FourierBasis(torch.eye(2), order=8),
        n_bootstraps=0,
    ).eigenvalues[0]
    train, held_out = bent_wells(4000, 0), bent_wells(4000, 1)
    found = {}
    for n_steps in (0, 1):
        cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=True, n_steps=n_steps).double()
        if n_steps:
            train_cv_map(cv_map, 1, train, held_out, n_steps=150, batch_size=2000)
        values = solve_heads(cv_map, train, held_out, 1, n_bootstraps=0)[2]
        found[n_steps] = float(values[0] / exact)
    # The straight angle sees the barrier smeared; the bent one is the slow direction itself
    assert found[0] > 2.0
    assert 0.9 < found[1] < 1.15
    with torch.no_grad():
        xi = cv_map(held_out.s)[0][:, 0]
    off = torch.exp(1j * (xi - held_out.s[:, 0] + BEND * held_out.s[:, 1].sin()))
    assert float((held_out.weights * off).sum().abs()) > 0.98
