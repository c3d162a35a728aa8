"""The bound gap on linear-Gaussian models, whose posterior is known.

Cannot detect an encoder that misses a mode of the posterior which its own samples never visit.
"""

import math
from itertools import pairwise

import pytest
import torch
from pyro.distributions import Independent, Normal

from gencg.coordinates.base import Cartesian
from gencg.models.base import ConditionalDistribution
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.bound_gap import BoundGap, bound_gap

SLOPE, WIDTH = 0.8, 0.5
# z ~ N(0, 1), y|z ~ N(SLOPE z, WIDTH^2): the posterior is N(GAIN y, SPREAD^2)
VARIANCE = SLOPE**2 + WIDTH**2
GAIN, SPREAD = SLOPE / VARIANCE, WIDTH / math.sqrt(VARIANCE)


class _Linear(ConditionalDistribution):
    def __init__(self, slope: float, width: float) -> None:
        super().__init__()
        self.slope, self.width = slope, width

    def forward(self, context: torch.Tensor) -> Independent:
        loc = self.slope * context if context.shape[1] else context.new_zeros(len(context), 1)
        return Normal(loc, self.width).to_event(1)


def _model(gain: float, spread: float) -> CoarseGrainedModel:
    return CoarseGrainedModel(
        _Linear(SLOPE, WIDTH), prior=_Linear(0.0, 1.0), encoder=_Linear(gain, spread), n_cvs=1
    )


def _exact(gain: float, spread: float) -> float:
    """E KL(N(GAIN y, SPREAD^2) || N(gain y, spread^2)) with E y^2 = VARIANCE."""
    moved = SPREAD**2 + (GAIN - gain) ** 2 * VARIANCE
    return math.log(spread / SPREAD) + moved / (2 * spread**2) - 0.5


ENCODERS = {
    "shifted": (GAIN + 0.15, SPREAD),
    "wide": (GAIN, 1.5 * SPREAD),
    "narrow": (GAIN, 0.7 * SPREAD),
    "both": (GAIN - 0.2, 1.2 * SPREAD),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_sandwich_holds_the_exact_divergence(name) -> None:
    encoder = ENCODERS[name]
    gap = bound_gap(_model(*encoder), n_samples=20_000, n_inner=32)
    exact = _exact(*encoder)
    # Four standard errors on either side: fails for 1 seed in 16,000
    assert gap.lower <= gap.upper
    assert gap.lower - 4 * gap.error < exact < gap.upper + 4 * gap.error
    assert gap.upper - gap.lower < 0.03
    # More encoder samples tighten the bound; with one it is twice a divergence or more
    values = list(gap.bounds.values())
    assert list(gap.bounds) == [1, 2, 4, 8, 16, 32]
    assert all(b < a + 4 * gap.error for a, b in pairwise(values))
    assert gap.bounds[32] == pytest.approx(gap.upper)


def test_one_encoder_sample_gives_both_divergences() -> None:
    # E_q log q/r - E_r log q/r: the forward and the backward divergence
    gain, spread = ENCODERS["wide"]
    gap = bound_gap(_model(gain, spread), n_samples=40_000, n_inner=1)
    ratio = (spread / SPREAD) ** 2
    backward = -math.log(spread / SPREAD) + ratio / 2 - 0.5
    assert abs(gap.upper - _exact(gain, spread) - backward) < 4 * gap.error
    # And the z it was made of gives nothing
    assert gap.lower == 0.0


def test_the_exact_encoder_has_no_gap() -> None:
    gap = bound_gap(_model(GAIN, SPREAD), n_samples=500, n_inner=8)
    for value in (gap.lower, gap.upper, gap.error, *gap.bounds.values()):
        assert value == pytest.approx(0, abs=1e-12)
    assert "exact" in gap.verdict


def test_without_cvs_there_is_no_gap() -> None:
    gap = bound_gap(build_model(Cartesian(2)), n_inner=4)
    assert (gap.lower, gap.upper, gap.error) == (0.0, 0.0, 0.0)


def test_one_seed_one_gap_and_the_global_state_untouched() -> None:
    model, before = _model(*ENCODERS["wide"]), torch.get_rng_state()
    first = bound_gap(model, n_samples=100, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert bound_gap(model, n_samples=100, seed=3) == first
    assert bound_gap(model, n_samples=100, seed=4) != first


def test_the_verdict_follows_the_size() -> None:
    for upper, words in {0.01: "exact", 0.1: "costs a little", 1.0: "does not fit"}.items():
        assert words in BoundGap(0.0, upper, 0.0, 1, {}).verdict


def test_bad_numbers_are_refused() -> None:
    model = _model(GAIN, SPREAD)
    with pytest.raises(ValueError, match="`n_samples` must be at least 2, got 1"):
        bound_gap(model, n_samples=1)
    with pytest.raises(ValueError, match="`n_inner` must be at least 1, got 0"):
        bound_gap(model, n_inner=0)
