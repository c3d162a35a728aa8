"""Distributions on circles: exact densities. Cannot detect a width that is a bad choice."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.distributions.torus import TorusNormal, WrappedNormal


@pytest.mark.parametrize("scale", [0.05, 0.35, 1.0])
def test_the_wrapped_normal(scale) -> None:
    loc = torch.tensor([[3.0], [-0.5], [9.0]])
    wrapped = WrappedNormal(loc, torch.tensor(scale))
    n = 4000
    z = ((torch.arange(n) + 0.5) / n * 2 - 1) * math.pi

    # It is the sum over many turns, seam or not
    density = WrappedNormal(loc.expand(3, 1), torch.tensor(scale)).log_prob(z[:, None, None]).exp()
    turns = 2 * math.pi * torch.arange(-12, 13)
    images = torch.distributions.Normal(0, scale).log_prob(
        z[:, None, None] - loc[:, 0, None] + turns
    )
    assert_close(density, images.exp().sum(-1), atol=1e-12, rtol=1e-9)

    # It integrates to one and repeats every turn
    assert_close(density.sum(0) * 2 * math.pi / n, torch.ones(3))
    assert_close(wrapped.log_prob(loc + 0.3), wrapped.log_prob(loc + 0.3 + 4 * math.pi))

    # Samples lie on the circle, and their resultant is that of the density
    x = WrappedNormal(loc[:1].expand(20_000, 1), torch.tensor(scale)).rsample()
    assert ((x >= -math.pi) & (x < math.pi)).all()
    resultant = math.exp(-(scale**2) / 2)
    # Each mean has an error below 0.7 / sqrt(n): five of them
    assert abs(float((x - 3.0).cos().mean()) - resultant) < 5 * 0.7 / math.sqrt(20_000)
    assert abs(float((x - 3.0).sin().mean())) < 5 * 0.7 / math.sqrt(20_000)
    assert_close(wrapped.mean[2], torch.tensor([9.0 - 2 * math.pi]))


def test_independent_entries_multiply() -> None:
    loc, scale = torch.randn(4, 2), torch.tensor([0.2, 0.7])
    z = torch.randn(4, 2)
    parts = [WrappedNormal(loc[:, [i]], scale[i]).log_prob(z[:, [i]]) for i in range(2)]
    assert_close(WrappedNormal(loc, scale).log_prob(z), sum(parts))


def test_uniform_angles_and_normal_lines() -> None:
    base = TorusNormal(2, 1, like=torch.zeros(500, 0))
    x = base.rsample()
    assert x.shape == (500, 3)
    assert (x[:, :2].abs() <= math.pi).all()
    expected = -2 * math.log(2 * math.pi) + torch.distributions.Normal(0, 1).log_prob(x[:, 2])
    assert_close(base.log_prob(x), expected)
