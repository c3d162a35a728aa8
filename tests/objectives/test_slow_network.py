"""Networks against what a linear basis can and cannot hold.

Cannot detect what neither of them finds.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.objectives.dirichlet import SoftSamples, aligned_correlation, spectrum
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.slow_network import SlowNetwork, _Scene, network_check


def _samples(log_p: torch.Tensor, s: torch.Tensor) -> SoftSamples:
    return SoftSamples(s, torch.eye(s.shape[1]).expand(len(s), -1, -1), log_p, True)


def _check(log_p: torch.Tensor, s: torch.Tensor, n: int):
    samples = _samples(log_p, s)
    basis = PairBasis([4] * s.shape[1])
    found = spectrum(samples, basis, n_bootstraps=0)
    return network_check(samples, found, torch.arange(n), n_folds=2, n_steps=120, batch_size=3000)


def test_a_network_finds_a_slow_sum_of_two_angles() -> None:
    # Two wells along s0 + s1: no function of one angle is slow, and the basis has no products
    s = (2 * torch.rand(8000, 2) - 1) * math.pi
    check = _check(3.5 * torch.cos(2 * s.sum(1)), s, 1)
    assert check.gain > 1.5


def test_it_finds_nothing_where_the_angles_are_independent() -> None:
    s = (2 * torch.rand(8000, 2) - 1) * math.pi
    check = _check(1.5 * torch.cos(2 * s[:, 0]) + 2.0 * torch.cos(2 * s[:, 1]), s, 2)
    # Their product has the sum of both eigenvalues, and is projected out
    assert 0.99 < check.gain < 1.1
    assert (check.agreement > 0.99).all()


def exact_rate(energy: torch.Tensor, spacing: float) -> float:
    """Slowest rate of overdamped motion on a line of points, by finite differences."""
    p = torch.softmax(-energy, 0)
    flow = (p[1:] * p[:-1]).sqrt() / spacing**2
    matrix = torch.zeros(len(p), len(p), dtype=torch.float64)
    matrix.diagonal(1).copy_(-flow)
    matrix.diagonal(-1).copy_(-flow)
    matrix.diagonal().copy_(-matrix.sum(1))
    root = p.rsqrt()
    return float(torch.linalg.eigvalsh(root[:, None] * matrix * root)[1])


def test_a_slow_distance_is_found_by_networks_that_see_it() -> None:
    # Angles turn nearly freely; the distance has two wells at 0.4 and 0.6 nm, 3 kT apart
    n, width = 5000, 0.1
    s = (2 * torch.rand(n, 2) - 1) * math.pi
    u = 3.6 * torch.rand(n) - 1.8

    def well(u: torch.Tensor) -> torch.Tensor:
        return 3.0 * (u**2 - 1) ** 2

    log_p = -well(u) + 0.3 * torch.cos(s).sum(1)
    joint = torch.diag(torch.tensor([1.0, 1.0, width**2])).expand(n, -1, -1)
    samples = SoftSamples(
        s, joint[:, :2, :2], log_p, True, (0.5 + width * u)[:, None], joint.contiguous()
    )
    found = spectrum(samples, PairBasis([4, 4]), n_bootstraps=0)
    check = {
        word: network_check(
            samples, found, torch.arange(1), n_folds=2, n_steps=100, batch_size=1500,
            descriptors=word,
        )
        for word in ("torsions", "distances", "both")
    }  # fmt: skip
    line = torch.linspace(-1.8, 1.8, 400).double()
    exact = exact_rate(well(line), 3.6 / 399)
    assert exact < 0.4
    assert check["torsions"].gain < 1.05
    for word in ("distances", "both"):
        assert check[word].descriptors == word
        # Held out, so never far below; statistics of some hundred samples on the barrier
        assert float(check[word].network[0]) == pytest.approx(exact, rel=0.2)
        assert check[word].gain > 2
    with pytest.raises(ValueError, match="`descriptors` must be one of torsions, distances, both"):
        network_check(samples, found, torch.arange(1), descriptors="none")


def test_correlation_does_not_mind_order_and_rotation_within_a_group() -> None:
    eigenvalues = torch.tensor([1.0, 1.1, 5.0])
    c, d = math.cos(0.7), math.sin(0.7)
    rotated = torch.tensor([[c, d, 0.0], [-d, c, 0.0], [0.0, 0.0, -1.0]])
    torch.testing.assert_close(aligned_correlation(rotated, eigenvalues), torch.ones(3))
    swapped = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        aligned_correlation(swapped, eigenvalues), torch.tensor([1.0, 0.0, 0.0])
    )


@pytest.mark.parametrize("scale", [1e-1, 1e-2, 1e-4])
def test_free_functions_that_fade_gain_nothing(scale: float) -> None:
    s = (2 * torch.rand(4000, 2) - 1) * math.pi
    samples = _samples(1.5 * torch.cos(2 * s[:, 0]) + 2.0 * torch.cos(2 * s[:, 1]), s)
    found = spectrum(samples, PairBasis([4, 4]), n_bootstraps=0)
    f, slopes = found.functions[:, :2].float(), found.slopes[:, :2].float()
    none = torch.zeros(len(s), 0), torch.zeros(len(s), 0, 2)
    scene = _Scene(samples, f, slopes, *(part.float() for part in none), 0.3)
    net = SlowNetwork(2, 2, periodic=True).float()
    every = torch.arange(len(s))
    before = float(scene.loss(net, every).detach()), scene.ritz(net, every)[0]
    with torch.no_grad():
        net.net.layers[-1].weight[2:] *= scale
        net.net.layers[-1].bias[2:] *= scale
    assert float(scene.loss(net, every).detach()) > before[0] - 1e-3
    assert_close(scene.ritz(net, every)[0], before[1], rtol=0.02, atol=0)
