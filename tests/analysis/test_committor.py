"""The committor against its exact integral, its symmetry, and the variational principle.

Cannot detect: a metric that is wrong; it is given here.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencg.analysis.committor import (
    MappedBasis,
    ball,
    committor,
    core,
    transition_states,
)
from gencg.analysis.metastable import metastable_states
from gencg.objectives.dirichlet import FourierBasis, KernelBasis, SoftSamples, spectrum

CENTRES = torch.linspace(-1.2, 1.2, 25, dtype=torch.float64)[:, None]


def potential(x: Tensor) -> Tensor:
    """A double well in kT."""
    return 4 * (x**2 - 1) ** 2 + 0.5 * x


def line(n: int = 6000, *, metric: float = 1.0) -> SoftSamples:
    """Covering samples of the double well: evenly spaced, weighted."""
    x = torch.linspace(-2, 2, n)[torch.randperm(n)][:, None]
    return SoftSamples(x, metric * torch.ones(n, 1, 1), -potential(x[:, 0]), False)


def below(edge: float):
    return lambda s: (s[:, 0] - edge, torch.ones_like(s))


def above(edge: float):
    return lambda s: (edge - s[:, 0], -torch.ones_like(s))


def exact(a: float, b: float) -> tuple[Tensor, Tensor, float]:
    """Points between a and b, the committor there, and the flux 1 / (Z int exp(U))."""
    x, every = torch.linspace(a, b, 20_001), torch.linspace(-2, 2, 20_001)
    rise = torch.cumulative_trapezoid(potential(x).exp(), x)
    z = torch.trapezoid((-potential(every)).exp(), every)
    q = torch.cat([torch.zeros(1), rise]) / rise[-1]
    return x, q, float(1 / (z * rise[-1]))


def test_committor_and_flux_of_a_double_well_are_the_exact_integrals() -> None:
    x, q, flux = exact(-0.9, 0.8)
    found = committor(line(), KernelBasis(CENTRES, width=0.15), below(-0.9), above(0.8))
    assert torch.allclose(found(x[:, None]), q, atol=1e-3)
    assert found.flux == pytest.approx(flux, rel=2e-3)
    # Of coefficients of other samples it is higher: their noise costs flux
    assert found.flux < found.held_out < 1.03 * flux

    # 0 and 1 hold exactly on the sets, and all around them
    assert not found(torch.linspace(-2, -0.9, 50)[:, None]).any()
    assert (found(torch.linspace(0.8, 2, 50)[:, None]) == 1).all()

    # In a double well both rates add up to the slowest eigenvalue, to a few per cent
    slowest = spectrum(
        line(), KernelBasis(torch.linspace(-2, 2, 40)[:, None], width=0.15), n_bootstraps=0
    ).eigenvalues[0]
    assert found.rate_ab + found.rate_ba == pytest.approx(float(slowest), rel=0.05)
    assert "transition samples" in repr(found)


def test_time_has_the_unit_of_the_metric() -> None:
    basis = KernelBasis(CENTRES, width=0.15)
    one, three = (
        committor(line(2000, metric=m), basis, below(-0.9), above(0.8), n_bootstraps=0)
        for m in (1.0, 3.0)
    )
    assert three.flux == pytest.approx(3 * one.flux)
    assert math.isnan(one.error)


def test_the_error_of_the_flux_is_its_spread() -> None:
    basis = KernelBasis(CENTRES[::3], width=0.3)
    fluxes, errors = [], []
    for seed in range(12):
        torch.manual_seed(seed)
        x = torch.rand(1500, 1) * 4 - 2
        samples = SoftSamples(x, torch.ones(1500, 1, 1), -potential(x[:, 0]), False)
        found = committor(samples, basis, below(-0.9), above(0.8), n_bootstraps=40)
        fluxes.append(found.flux)
        errors.append(found.error)
    assert np.std(fluxes) == pytest.approx(np.mean(errors), rel=0.6)


def test_a_resampling_without_a_sample_between_the_sets_has_no_flux() -> None:
    # All that lie between are in one block of forty, which two resamplings of five leave out
    x = torch.cat(
        [torch.full((390,), -1.5), torch.linspace(-0.5, 0.5, 10), torch.full((400,), 1.5)]
    )
    samples = SoftSamples(x[:, None], torch.ones(800, 1, 1), torch.zeros(800), False)
    basis = KernelBasis(torch.linspace(-1, 1, 5)[:, None], width=0.5)
    found = committor(samples, basis, below(-1.0), above(1.0))
    alone = committor(samples, basis, below(-1.0), above(1.0), n_bootstraps=0)
    assert found.flux == alone.flux > 0
    # Blocks of equal mass: their number in a resampling is Poisson's, of variance one
    assert found.error == pytest.approx(found.flux, rel=0.3)


def test_nested_states_have_a_smaller_flux() -> None:
    basis, samples = KernelBasis(CENTRES, width=0.15), line(4000)
    fluxes = [
        committor(samples, basis, below(-0.9), above(edge), n_bootstraps=0).flux
        for edge in (0.7, 0.9, 1.1)
    ]
    assert fluxes == sorted(fluxes, reverse=True)


def torus(n: int = 3000) -> SoftSamples:
    """Samples on the torus with their mirror images in the first angle, and a mirrored density."""
    half = torch.rand(n, 2) * 2 * torch.pi - torch.pi
    s = torch.cat([half, half * torch.tensor([-1.0, 1.0])])
    log_w = -2 * (2 * s[:, 0]).cos() - s[:, 1].cos() * (1 + s[:, 0].cos())
    return SoftSamples(s, torch.eye(2).expand(2 * n, 2, 2), log_w, True)


def test_the_committor_of_a_symmetric_system_is_one_half_on_its_plane() -> None:
    samples = torus()
    a, b = (ball(torch.tensor([x, 0.5]), 0.6, periodic=True) for x in (-torch.pi / 2, torch.pi / 2))
    found = committor(samples, FourierBasis(torch.eye(2), order=4), a, b, n_bootstraps=0)
    n = len(samples.s) // 2
    assert torch.allclose(found.values[:n] + found.values[n:], torch.ones(n), atol=1e-6)
    plane = torch.tensor([[0.0, 0.3], [0.0, -2.0], [torch.pi, 1.0], [-torch.pi, 2.5]])
    assert torch.allclose(found(plane), torch.full((4,), 0.5), atol=1e-6)
    assert found.mean == pytest.approx(0.5, abs=1e-6)

    # The flux is shared out among the samples, most of it near the plane
    assert float(found.density.sum()) == pytest.approx(1)

    # The transition states are the samples there, by weight
    top = transition_states(found.values, samples.log_weights, half_width=0.1)
    assert ((found.values[top.index] - 0.5).abs() <= 0.1).all()
    assert 1 < top.n_effective <= len(top.index)
    assert set(top.draw(50).tolist()) <= set(top.index.tolist())


def test_the_best_basis_on_held_out_samples_is_taken() -> None:
    coarse, fine = (KernelBasis(CENTRES[::step], width=0.1 * step) for step in (12, 2))
    found = committor(line(), [coarse, fine], below(-0.9), above(0.8), n_bootstraps=0)
    assert found.basis is fine


class _Map(nn.Module):
    """The difference of two angles as a collective variable."""

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        return s[:, :1] - s[:, 1:], s[:, 1:]


def test_a_mapped_basis_has_the_slopes_of_the_chain_rule() -> None:
    basis = MappedBasis(_Map(), FourierBasis(torch.eye(1), order=3))
    s = torch.rand(5, 2, requires_grad=True)
    values, slopes = basis(s)
    direct = FourierBasis(torch.tensor([[1.0, -1.0]]), order=3)(s)
    assert torch.allclose(values, direct[0])
    assert torch.allclose(slopes, direct[1])


def test_cores_of_states_have_the_slopes_of_their_memberships() -> None:
    def functions(s: Tensor) -> Tensor:
        return (3 * s).tanh()

    samples = line(2000)
    states = metastable_states(functions(samples.s).numpy(), samples.log_weights.numpy())
    s = torch.linspace(-0.6, 0.6, 7)[:, None].requires_grad_()
    regions = [core(functions, states, j) for j in (0, 1)]
    for j, region in enumerate(regions):
        level, slope = region(s)
        assert np.allclose(0.8 - level.numpy(), states.at(functions(s))[:, j])
        step = 1e-6
        ahead, behind = (region(s.detach() + sign * step)[0] for sign in (1, -1))
        assert torch.allclose(slope[:, 0], (ahead - behind) / (2 * step), atol=1e-4)
    found = committor(samples, KernelBasis(CENTRES, width=0.15), *regions, n_bootstraps=0)
    assert 0 < found.flux < 1

    with pytest.raises(ValueError, match="`state` must lie between 0 and 1, got 2"):
        core(functions, states, 2)
    with pytest.raises(ValueError, match=r"`membership` must lie in \(0.5, 1\), got 0.4"):
        core(functions, states, 0, membership=0.4)


def test_refusals() -> None:
    samples, basis = line(500), KernelBasis(CENTRES, width=0.15)
    with pytest.raises(ValueError, match="`a` and `b` overlap"):
        committor(samples, basis, below(0.5), above(0.0))
    with pytest.raises(ValueError, match="`b` holds no sample with weight"):
        committor(samples, basis, below(-0.9), above(3.0))
    with pytest.raises(ValueError, match="no sample lies between `a` and `b`"):
        committor(samples, basis, below(-1e-9), above(1e-9))
    q = torch.linspace(0, 0.2, 500)
    with pytest.raises(ValueError, match=r"no sample has a committor within 0\.1 of 1/2"):
        transition_states(q, samples.log_weights)
    with pytest.raises(ValueError, match=r"`half_width` must lie in \(0, 0.5\), got 0.7"):
        transition_states(q, samples.log_weights, half_width=0.7)
