"""Schedules: closed forms and bounds. Cannot detect a ladder that is too fast for a model."""

import math

import pytest
import torch

from gencg.importance import effective_sample_size
from gencg.tempering import (
    ESSTempering,
    GeometricLadder,
    KLTempering,
    NoTempering,
    TemperingState,
)

SCHEDULES = {
    "none": NoTempering,
    "geometric": GeometricLadder,
    "ESS": ESSTempering,
    "KL": KLTempering,
}


def _harmonic(beta: float, n: int = 200_000) -> torch.Tensor:
    """Energies x²/2 of exact quantiles of the harmonic well, no sampling error."""
    p = (torch.arange(n) + 0.5) / n
    x = math.sqrt(2 / beta) * torch.erfinv(2 * p - 1)
    return 0.5 * x.square()


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_climbs_to_the_target(name) -> None:
    schedule, target = SCHEDULES[name](), 2.0
    beta, betas = target / schedule.start, []
    for k in range(101):
        energy = _harmonic(beta, 2000)
        state = TemperingState(progress=k / 100, energy=energy, log_weights=torch.randn(2000) * 0.1)
        beta = schedule.next(beta, state, target=target)
        betas.append(beta)
    assert betas == sorted(betas)
    assert betas[-1] == target
    assert max(betas) <= target


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_survives_samples_that_are_not_finite(name) -> None:
    schedule = SCHEDULES[name]()
    state = TemperingState(
        progress=0.01,
        energy=torch.tensor([math.nan, math.inf]),
        log_weights=torch.tensor([0.0, -math.inf]),
    )
    beta = schedule.next(0.5, state, target=2.0)
    assert 0.5 <= beta <= 2.0


def test_the_ess_step_has_the_asked_ess_in_closed_form() -> None:
    # Harmonic well, beta -> beta (1 + d): ESS = sqrt(1 + 2 d) / (1 + d)
    beta, min_ess = 1.0, 0.9
    schedule = ESSTempering(min_ess=min_ess, start=100.0, deadline=0.99)
    energy = _harmonic(beta)
    state = TemperingState(progress=0.0, energy=energy, log_weights=torch.zeros_like(energy))
    d = schedule.next(beta, state, target=100.0) / beta - 1
    assert math.sqrt(1 + 2 * d) / (1 + d) == pytest.approx(min_ess, abs=1e-4)


def test_the_weighted_ess_step_keeps_its_share() -> None:
    schedule = ESSTempering(min_ess=0.8, start=100.0, deadline=0.99, weighted=True)
    energy, log_weights = _harmonic(1.0, 5000), torch.randn(5000)
    state = TemperingState(progress=0.0, energy=energy, log_weights=log_weights)
    beta = schedule.next(1.0, state, target=100.0)
    moved = effective_sample_size(log_weights - (beta - 1.0) * energy)
    assert float(moved / effective_sample_size(log_weights)) == pytest.approx(0.8, abs=1e-6)


def test_the_kl_step_raises_the_divergence_by_the_asked_share() -> None:
    # q is N(0, 1/b), p_beta the harmonic well: KL = (r - 1 - log r) / 2 with r = beta / b
    b, beta, share = 2.0, 3.0, 0.2
    n = 400_000
    x = torch.erfinv(2 * (torch.arange(n) + 0.5) / n - 1) * math.sqrt(2 / b)
    energy = 0.5 * x.square()
    state = TemperingState(progress=0.0, energy=energy, log_weights=-(beta - b) * energy)

    def divergence(beta: float) -> float:
        return 0.5 * (beta / b - 1 - math.log(beta / b))

    schedule = KLTempering(max_increase=share, start=100.0, max_step=0.5, deadline=0.99)
    found = schedule.next(beta, state, target=100.0)
    assert divergence(found) / divergence(beta) - 1 == pytest.approx(share, abs=2e-3)


def test_the_geometric_ladder_is_geometric() -> None:
    schedule = GeometricLadder(start=4.0, fraction=0.5)
    empty = torch.zeros(0)
    found = [
        schedule.next(0.0, TemperingState(progress=p, energy=empty, log_weights=empty), target=1.0)
        for p in (0.0, 0.125, 0.25, 0.5, 0.9)
    ]
    assert found == pytest.approx([0.25, 4**-0.75, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: ESSTempering(min_ess=1.5), r"`min_ess` must lie in \(0, 1\), got 1.5"),
        (lambda: ESSTempering(deadline=0.0), r"`fraction` must lie in \(0, 1\), got 0.0"),
        (lambda: GeometricLadder(start=0.5), "`start` must be a temperature factor of at least 1"),
        (lambda: GeometricLadder(start=math.nan), "`start` must be a temperature factor"),
        (lambda: GeometricLadder(fraction=1.0), r"`fraction` must lie in \(0, 1\), got 1.0"),
        (lambda: KLTempering(max_increase=0), "`max_increase` must be positive, got 0"),
        (lambda: KLTempering(min_step=0.2, max_step=0.1), "0 < min_step <= max_step"),
    ],
)
def test_bad_schedules_are_refused(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()
