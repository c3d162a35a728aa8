"""Covering samples flattened along an angle: density, flatness and weights.

Cannot detect a covering density that misses a state: cells without candidates stay empty.
"""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.models.flattened import FlattenedModel, balanced
from gencg.models.mixture import CoveringModel

SMALL = {
    "n_soft_layers": 2,
    "n_bins": 4,
    "soft_hidden": (8,),
    "n_stiff_layers": 1,
    "stiff_hidden": (8,),
}
ROWS = torch.tensor([[1.0, 1.0], [0.0, 1.0]])


def _shaken(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data += 0.6 * torch.randn(p.shape, generator=generator).to(p)


def _models(rows: torch.Tensor = ROWS, n_bins: int = 12) -> tuple[CoveringModel, FlattenedModel]:
    torch.manual_seed(1)
    model = CoarseGrainedModel(SplineDecoder(Cartesian(2, periodic=True), **SMALL)).double()
    _shaken(model, 0)
    other = copy.deepcopy(model)
    _shaken(other, 1)
    covering = CoveringModel(model, [other.decoder.flow.soft.state_dict()]).double()
    return covering, FlattenedModel(covering, rows, n_bins=n_bins, n_candidates=100_000)


def test_the_flattened_density_integrates_to_one() -> None:
    covering, flat = _models()
    axis = torch.linspace(-math.pi, math.pi, 301, dtype=torch.float64)[:-1] + 1e-3
    s = torch.cartesian_prod(axis, axis)
    density = (covering.log_soft(s) + flat.log_ratio(s)).exp()
    # The acceptance is known to about 1 / sqrt(100,000)
    assert_close(density.mean() * (2 * math.pi) ** 2, torch.tensor(1.0).double(), atol=2e-2, rtol=0)


def test_samples_carry_the_density_they_are_drawn_from() -> None:
    covering, flat = _models()
    z, y, log_q = flat.sample(4000)
    assert z.shape == (4000, 0)
    assert_close(log_q, covering.log_soft(y) + flat.log_ratio(y), atol=1e-9, rtol=0)
    # A density on the same support seen through the samples: E[1 / (q V)] is its volume share
    axis = torch.linspace(-math.pi, math.pi, 301, dtype=torch.float64)[:-1] + 1e-3
    grid = torch.cartesian_prod(axis, axis)
    support = torch.isfinite(flat.log_ratio(grid)).double().mean() * (2 * math.pi) ** 2
    inverse = (-log_q).exp()
    error = inverse.std() / math.sqrt(4000)
    assert (inverse.mean() - support).abs() < 4 * error + 0.02 * support


def test_cells_are_filled_more_evenly_than_before() -> None:
    covering, flat = _models(ROWS[:1])
    spread = []
    for s in (covering.sample_soft(20_000), flat.sample(20_000)[1]):
        u = torch.remainder(s.sum(1), 2 * math.pi)
        counts = torch.histc(u, 12, 0, 2 * math.pi)
        spread.append(float(counts.std() / counts.mean()))
    assert spread[1] < 0.5 * spread[0]


def test_balanced_weights_of_both_samples_average_the_cold_density() -> None:
    covering, flat = _models()
    n = 20_000
    s = torch.cat([covering.sample_soft(n), flat.sample(n)[1]])
    log_weights = covering.log_cold(s) - covering.log_soft(s)
    weights = balanced(log_weights, [flat.log_ratio(s)], [0.5]).exp()
    error = weights.std() / math.sqrt(2 * n)
    assert (weights.mean() - 1).abs() < 4 * error + 0.01
    assert weights.max() <= 2 / 0.5 * 1.0001  # at least half of the covering density below


def test_two_flattened_models_share_one_mixture() -> None:
    covering, flat = _models()
    other = FlattenedModel(covering, ROWS[:1], n_bins=6)
    n = 10_000
    s = torch.cat([covering.sample_soft(2 * n), flat.sample(n)[1], other.sample(n)[1]])
    log_weights = covering.log_cold(s) - covering.log_soft(s)
    ratios = [flat.log_ratio(s), other.log_ratio(s)]
    weights = balanced(log_weights, ratios, [0.25, 0.25]).exp()
    assert (weights.mean() - 1).abs() < 4 * weights.std() / math.sqrt(4 * n) + 0.01
    # With nothing from the first, as if it were not there
    alone = balanced(log_weights, ratios[1:], [0.25])
    assert_close(balanced(log_weights, ratios, [1e-12, 0.25]), alone)


def test_cells_of_high_free_energy_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gencg.models.flattened.HIGHEST", 1.5)
    covering, flat = _models()
    s = torch.rand(20_000, 2, dtype=torch.float64) * 2 * math.pi - math.pi
    out = torch.isneginf(flat.log_ratio(s))
    cold = covering.log_cold(s)
    assert out.any()
    assert cold[out].exp().mean() < math.exp(-1.5) * cold.exp().max()
    assert cold[~out].exp().mean() > cold[out].exp().mean()


def test_on_the_line_the_density_integrates_to_one_and_tails_are_kept() -> None:
    torch.manual_seed(2)
    model = CoarseGrainedModel(SplineDecoder(Cartesian(2), **SMALL)).double()
    _shaken(model, 0)
    other = copy.deepcopy(model)
    _shaken(other, 1)
    covering = CoveringModel(model, [other.decoder.flow.soft.state_dict()]).double()
    flat = FlattenedModel(covering, torch.eye(2)[:1], n_candidates=100_000)
    s = covering.sample_soft(40_000)
    ratio = flat.log_ratio(s).exp()
    # E under the covering density of q / q_c is the integral of q
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / 200 + 0.01
    far = torch.tensor([[-1e3, 0.0], [1e3, 0.0]], dtype=torch.float64)
    ends = torch.stack([flat.low, flat.low + 0.999 * flat.width])
    assert_close(flat.log_ratio(far), flat.log_ratio(torch.cat([ends, ends], 1)))


def test_every_process_draws_its_own_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    _, flat = _models()
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr("gencg.parallel.rank", lambda rank=rank: rank)
        torch.manual_seed(7)
        drawn.append((flat.sample(50)[1], torch.rand(3)))
    assert not torch.isin(drawn[0][0], drawn[1][0]).any()
    # The common stream goes on alike in all of them
    assert torch.equal(drawn[0][1], drawn[1][1])
