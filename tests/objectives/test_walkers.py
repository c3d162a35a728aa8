"""Walkers leave the Boltzmann density as it is, whatever completes their moves.

Statistical tests state their standard error and rate of failure; their seed is fixed. Cannot
detect: a state so far that no move of a few coordinates reaches it.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.energies.toy import DoubleWell
from gencg.geometry import wrap
from gencg.importance import truncated
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.models.encoders import GaussianEncoder
from gencg.models.priors import GaussianPrior
from gencg.objectives.base import Evaluation
from gencg.objectives.build import build_objective
from gencg.objectives.covering_kl import BEYOND, MOST_PULLED, CoveringKL, _log_mean
from gencg.objectives.memory import SoftMemory
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import (
    MOST_MISSED,
    WIDE,
    Meeting,
    Walkers,
    _log_normals,
    log_soft,
    two_blocks,
)
from gencg.systems import alanine_dipeptide
from gencg.target import BoltzmannTarget
from gencg.units import temperature_of

BETA = 1.0
RIGHT = 0.00835
"""Mass of the double well's right well, by quadrature."""


class Angles(Energy):
    """A steep double well in the first angle, which the second follows."""

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x):
        well = 4 * (2 * x[..., 0]).cos() + 0.7 * x[..., 0].sin()
        return well - 3 * (x[..., 1] - x[..., 0]).cos()


def _target(energy: Energy, *, periodic: bool = False) -> BoltzmannTarget:
    coordinates = Cartesian(2, periodic=periodic)
    return BoltzmannTarget(energy, coordinates, temperature_of(BETA))


def _model(
    *, soft: tuple[bool, bool] = (True, True), periodic: bool = False, std: float = 0.2
) -> CoarseGrainedModel:
    """A generator that knows nothing of the target."""
    coordinates = Cartesian(2, periodic=periodic)
    coordinates.soft = torch.tensor(soft)
    torch.manual_seed(0)
    decoder = SplineDecoder(
        coordinates, n_soft_layers=2, n_bins=4, soft_hidden=(8,), n_stiff_layers=2,
        stiff_hidden=(8,),
    )  # fmt: skip
    model = CoarseGrainedModel(decoder).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def _started(model: CoarseGrainedModel, target: BoltzmannTarget, n: int) -> Walkers:
    walkers = Walkers(n)
    fresh = ReverseKL(target, n_samples=4 * n, drop_worst=0.0).evaluate(model, BETA)
    walkers.start(fresh, two_blocks(model))
    return walkers


def _put(walkers: Walkers, target: BoltzmannTarget, y: torch.Tensor) -> None:
    walkers.y = y
    walkers.energy, walkers.log_det = target.energy_and_log_det(y)


@pytest.mark.parametrize("soft", [(True, True), (True, False)])
@pytest.mark.parametrize("meets", [False, True])
def test_walkers_in_the_wrong_well_find_the_right_populations(soft, meets) -> None:
    # 1000 walkers, 10 readings, half of them independent: the standard error of a mass of 0.00835
    # is below sqrt(0.00835 / 5000) = 1.3e-3
    target, model = _target(DoubleWell()), _model(soft=soft, std=0.05)
    flow, walkers = two_blocks(model), _started(model, target, 1000)
    _put(walkers, target, torch.tensor([2.3, 0.0], dtype=torch.float64) + torch.zeros(1000, 2))
    masses, squares = [], []
    for k in range(300):
        walkers.move(flow, target, BETA, 1000, tame_above=1e3)
        if meets:
            fresh = ReverseKL(target, n_samples=200, drop_worst=0.0).evaluate(model, BETA)
            walkers.meet(model, fresh, BETA, 200)
        if k >= 200 and k % 10 == 0:
            masses.append((walkers.y[:, 0] > 0).double().mean())
            squares.append(walkers.y[:, 1].square().mean())
    assert abs(torch.stack(masses).mean() - RIGHT) < 4.5 * 1.3e-3
    # x2 is a standard normal: the mean square has error sqrt(2 / 5000)
    assert abs(torch.stack(squares).mean() - 1) < 4.5 * 0.02


@pytest.mark.parametrize("soft", [(True, True), (True, False)])
def test_nudges_leave_the_target_as_it_is(soft) -> None:
    # Exact samples to begin with, 4000 walkers, nothing but nudges: x2 is a standard normal, and
    # the mean square of all has error sqrt(2 / 4000) = 0.022
    target, model = _target(DoubleWell()), _model(soft=soft, std=0.3)
    flow, walkers = two_blocks(model), Walkers(4000, nudges=1.0)
    walkers.start(ReverseKL(target, n_samples=100).evaluate(model, BETA), flow)
    axis = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    log_p = -BETA * target.energy(torch.stack([axis, torch.zeros_like(axis)], 1))
    first = axis[torch.multinomial(torch.softmax(log_p, 0), 4000, replacement=True)]
    y = torch.stack([first, torch.randn(4000, dtype=torch.float64)], 1)
    _put(walkers, target, y.clone())
    accepted = [
        walkers.move(flow, target, BETA, 4000, tame_above=1e3).accepted.double().mean()
        for _ in range(100)
    ]
    assert 0.3 < torch.stack(accepted).mean() < 0.999
    assert abs(walkers.y[:, 1].square().mean() - 1) < 4.5 * 0.022
    p = torch.softmax(log_p, 0)
    mean, square = (p * axis).sum(), (p * axis.square()).sum()
    error = ((square - mean**2) / 4000).sqrt()
    assert abs(walkers.y[:, 0].mean() - mean) < 4.5 * error
    # They are no longer where they were
    assert (walkers.y[:, 1] * y[:, 1]).mean() < 0.8


def test_a_nudge_is_a_small_move() -> None:
    target, model = _target(DoubleWell()), _model(soft=(True, False), std=0.05)
    flow = two_blocks(model)
    far = {}
    for nudges in (0.0, 1.0):
        walkers = Walkers(500, nudges=nudges)
        walkers.start(ReverseKL(target, n_samples=500).evaluate(model, BETA), flow)
        before = walkers.y.clone()
        walkers.move(flow, target, BETA, 500, tame_above=1e3)
        moved = (walkers.y - before).abs()
        far[nudges] = moved[moved[:, 0] > 0].median(0).values
    assert (far[1.0] < 0.5 * far[0.0]).all()


def test_walkers_on_the_torus_find_the_right_populations() -> None:
    # 10 readings of 1000 walkers, half of them independent: error below sqrt(0.25 / 5000) = 7e-3
    target, model = _target(Angles(), periodic=True), _model(periodic=True)
    flow, walkers = two_blocks(model), _started(model, target, 1000)
    _put(walkers, target, torch.full((1000, 2), 0.5 * math.pi, dtype=torch.float64))
    right, together = [], []
    for k in range(200):
        walkers.move(flow, target, BETA, 1000, tame_above=1e3)
        if k >= 100 and k % 10 == 0:
            right.append((walkers.y[:, 0].sin() > 0).double().mean())
            together.append((walkers.y[:, 1] - walkers.y[:, 0]).cos().mean())
    axis = torch.linspace(-math.pi, math.pi, 401, dtype=torch.float64)[:-1]
    y = torch.cartesian_prod(axis, axis)
    p = torch.softmax(-target.energy(y), 0)
    assert abs(torch.stack(right).mean() - p[y[:, 0].sin() > 0].sum()) < 4.5 * 7e-3
    expected = (p * (y[:, 1] - y[:, 0]).cos()).sum()
    assert abs(torch.stack(together).mean() - expected) < 4.5 * 7e-3
    assert (walkers.y.abs() <= math.pi).all()


def test_walkers_prefer_where_density_is_missing() -> None:
    # 10 readings of 1000 walkers, half of them independent: error below sqrt(0.25 / 5000) = 7e-3
    target, model = _target(Angles(), periodic=True), _model(periodic=True, std=0.3)
    flow, walkers = two_blocks(model), _started(model, target, 1000)
    axis = torch.linspace(-math.pi, math.pi, 401, dtype=torch.float64)[:-1]
    grid = torch.cartesian_prod(axis, axis)
    log_z = torch.logsumexp(-BETA * target.energy(grid), 0) + 2 * math.log(2 * math.pi / 400)
    with torch.no_grad():
        log_q = model.decoder(model.rows(len(grid))).log_prob(grid)
    log_p = -BETA * target.energy(grid) - log_z
    preference = (log_p - log_q).clamp(0, math.log(MOST_MISSED))
    assert preference.max() > 0.5
    density = torch.softmax(log_p + preference, 0)
    missing = preference > 0.3
    found = []
    for k in range(200):
        walkers.move(flow, target, BETA, 1000, tame_above=1e3, log_z=log_z)
        fresh = ReverseKL(target, n_samples=200, drop_worst=0.0).evaluate(model, BETA)
        walkers.meet(model, fresh, BETA, 200, log_z=log_z)
        if k >= 100 and k % 10 == 0:
            cell = ((walkers.y + math.pi) / (2 * math.pi) * 400).round().long() % 400
            found.append(missing[cell[:, 0] * 400 + cell[:, 1]].double().mean())
    fair = torch.softmax(log_p, 0)[missing].sum()
    assert density[missing].sum() > fair + 0.05
    assert abs(torch.stack(found).mean() - density[missing].sum()) < 4.5 * 7e-3


@pytest.mark.parametrize("periodic", [False, True])
def test_moves_are_drawn_from_the_density_they_are_weighed_with(periodic) -> None:
    target, model = _target(Angles(), periodic=periodic), _model(periodic=periodic)
    flow, walkers = two_blocks(model), _started(model, target, 500)
    n = 40_000
    s = torch.zeros(n, 2, dtype=torch.float64)
    moved = torch.tensor([True, False]).expand(n, 2)
    new = walkers._drawn(flow, s, moved)
    assert torch.equal(new[:, 1], s[:, 1])
    edges = torch.linspace(-math.pi, math.pi, 25, dtype=torch.float64)
    middle = torch.stack([0.5 * (edges[1:] + edges[:-1]), torch.zeros(24)], -1)
    # The density within a cell, by ten points
    inside = middle[:, None] + torch.linspace(-0.45, 0.45, 10)[:, None] * torch.tensor(
        [float(edges[1] - edges[0]), 0.0]
    )
    log_g = walkers._log_g(flow, inside.reshape(-1, 2), moved[:240])
    share = log_g.exp().reshape(24, 10).mean(1) * (edges[1] - edges[0])
    counts = torch.histogram(new[:, 0], bins=edges).hist / n
    # 4.5 standard errors of a binomial, and the quadrature
    assert ((counts - share).abs() < 4.5 * (share / n).sqrt() + 2e-4).all()
    if periodic:
        assert_close(share.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-3, atol=0.0)


def test_distances_are_normal_densities() -> None:
    apart = torch.randn(5, 3, 1, dtype=torch.float64)
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(5, 3)
    normal = torch.distributions.Normal(torch.zeros(3), scale)
    expected = (normal.log_prob(apart[..., 0]) * weight).sum(-1)
    assert_close(_log_normals(apart, scale[:, None], weight[..., None]), expected)


def test_rows_that_redraw_different_numbers_have_each_its_density() -> None:
    system = alanine_dipeptide()
    flow = two_blocks(build_model(system.coordinates).double())
    assert flow is not None
    walkers, k = Walkers(64), flow.stiff.space.n_soft
    walkers.remembered = 2 * math.pi * torch.rand(40, k, dtype=torch.float64) - math.pi
    s = 2 * math.pi * torch.rand(6, k, dtype=torch.float64) - math.pi
    moved = torch.tensor([[(row + i) % (row % 3 + 2) == 0 for i in range(k)] for row in range(6)])
    assert len(set(moved.sum(1).tolist())) > 1
    scale = walkers._scale(flow)
    for row in range(6):
        which = moved[row]
        apart = wrap(s[row] - walkers.remembered)[:, which] / scale[which]
        each = (-0.5 * apart.square()).exp() / (scale[which] * math.sqrt(2 * math.pi))
        density = (1 - WIDE) * each.prod(1).mean() + WIDE / (2 * math.pi) ** int(which.sum())
        assert_close(walkers._log_g(flow, s, moved)[row], density.log())


def test_a_move_costs_one_call_and_a_meeting_none() -> None:
    energy = DoubleWell()
    target, model = _target(energy), _model()
    walkers = _started(model, target, 100)
    fresh = ReverseKL(target, n_samples=64).evaluate(model, BETA)
    before = energy.n_energy_calls, energy.n_gradient_calls
    walkers.meet(model, fresh, BETA, 64)
    assert (energy.n_energy_calls, energy.n_gradient_calls) == before
    walkers.move(two_blocks(model), target, BETA, 30, tame_above=1e3)
    assert (energy.n_energy_calls, energy.n_gradient_calls) == (before[0] + 30, before[1] + 30)


def test_energies_stay_those_of_the_walkers() -> None:
    target, model = _target(DoubleWell()), _model(soft=(True, False))
    walkers = _started(model, target, 200)
    for _ in range(20):
        walkers.move(two_blocks(model), target, BETA, 150, tame_above=1e3)
        fresh = ReverseKL(target, n_samples=64).evaluate(model, BETA)
        walkers.meet(model, fresh, BETA, 64)
    energy, log_det = target.energy_and_log_det(walkers.y)
    assert_close(walkers.energy, energy)
    assert_close(walkers.log_det, log_det)


def test_what_is_not_finite_is_never_accepted() -> None:
    class Wall(DoubleWell):
        def energy_and_gradient(self, x):
            value, gradient = super().energy_and_gradient(x)
            return torch.where(x[..., 0] > -2.5, torch.nan, value), gradient

    target, model = _target(Wall()), _model()
    walkers = _started(model, target, 200)
    _put(walkers, target, torch.tensor([-3.0, 0.0], dtype=torch.float64).repeat(200, 1))
    for _ in range(10):
        move = walkers.move(two_blocks(model), target, BETA, 200, tame_above=1e3)
        assert torch.isfinite(move.pull)
    assert (walkers.y[:, 0] <= -2.5).all()
    assert torch.isfinite(walkers.energy).all()


def test_walkers_go_on_from_their_state() -> None:
    target, model = _target(DoubleWell()), _model()
    walkers, again = _started(model, target, 100), Walkers(100)
    again.load_state_dict(walkers.state_dict())
    ends = []
    for each in (walkers, again):
        torch.manual_seed(1)
        each.move(two_blocks(model), target, BETA, 80, tame_above=1e3)
        ends.append(each.y)
    assert again.y is not walkers.y
    assert torch.equal(*ends)
    assert Walkers(100).state_dict() == {}
    # A state of before the start is that of new ones
    walkers.load_state_dict({})
    assert not walkers.started
    assert (walkers.n_meetings, walkers.hottest) == (0, 1.0)


@pytest.mark.parametrize("start, least", [(4.0, 3.0), (2.0, 2**0.8), (1.2, 1.2**0.8)])
def test_values_are_remembered_while_it_is_hot(start, least) -> None:
    model = _model()
    walkers = _started(model, _target(DoubleWell()), 300)
    flow, before = two_blocks(model), walkers.remembered.clone()
    walkers.remember(flow, start)
    for heat in (least - 0.01, 1.0):
        for _ in range(100):
            walkers.remember(flow, heat)
        assert torch.equal(walkers.remembered, before)
    again = Walkers(300)
    again.load_state_dict(walkers.state_dict())
    for _ in range(100):
        again.remember(flow, least + 0.01)
    assert not torch.equal(again.remembered, before)
    new = again.remembered[(again.remembered != before).any(-1)]
    assert all((value == again.y).all(-1).any() for value in new)


def test_values_stay_where_it_never_is_hot() -> None:
    model = _model()
    walkers = _started(model, _target(DoubleWell()), 300)
    before = walkers.remembered.clone()
    for _ in range(100):
        walkers.remember(two_blocks(model), 1.0)
    assert torch.equal(walkers.remembered, before)


def test_the_value_is_the_bound_and_calls_are_those_asked_for() -> None:
    energy, model = DoubleWell(), _model()
    objective = CoveringKL(_target(energy), n_samples=64)
    alone = ReverseKL(_target(DoubleWell()), n_samples=48, order=0.5)
    for _ in range(3):
        before = energy.n_energy_calls
        torch.manual_seed(4)
        found = objective.evaluate(model, BETA)
        torch.manual_seed(4)
        assert_close(found.loss, alone.evaluate(model, BETA).loss)
        before += objective.reverse._reference_energy is None
        assert energy.n_energy_calls - before in (64, 65)
    assert energy.n_energy_calls == 3 * 64 + 1


def test_the_soft_block_learns_from_walkers_where_it_has_too_little_density() -> None:
    target, model = _target(DoubleWell()), _model(soft=(True, False))
    flow, objective = two_blocks(model), CoveringKL(target, n_samples=64)
    fresh = ReverseKL(target, n_samples=500, drop_worst=0.0).evaluate(model, BETA)
    y, log_z = fresh.y[:20], _log_mean(fresh.log_weights)
    assert log_z <= torch.logsumexp(fresh.log_weights, 0) - math.log(500) + 1e-12
    log_q = flow.soft.log_prob(y[:, :1], y[:, :0])
    # Density enough, half of what is asked for, next to nothing, and no number
    cases = (-1.0, 0.0), (math.log(2), 1.0), (50.0, MOST_PULLED - 1), (math.nan, 0.0)
    for excess, share in cases:
        meeting = Meeting(y, log_z.detach() + torch.full((20,), excess))
        found = objective._missing(flow, meeting, fresh)
        assert_close(found, -share * log_q.mean(), rtol=0.05, atol=1e-9)


def test_a_generator_that_is_the_target_stays() -> None:
    # 40 evaluations at q = p: every mean is within 4.5 standard errors of zero, which fails 1 in
    # 1e5 for each entry; walkers are independent of one another
    target, model = _target(Harmonic()), _model(soft=(True, False), std=0.0)
    gradients = []
    for _ in range(40):
        objective = CoveringKL(target, n_samples=256, n_walkers=256, drop_worst=0.0)
        objective.evaluate(model, BETA)
        _put(objective.walkers, target, torch.randn(256, 2, dtype=torch.float64))
        model.zero_grad()
        objective.loss(model, BETA).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    stacked = torch.stack(gradients)
    error = stacked.std(0) / math.sqrt(40)
    assert (stacked.mean(0).abs() <= 4.5 * error + 1e-12).all()


def _remembering(objective: CoveringKL, model: CoarseGrainedModel, n: int, beta: float = BETA):
    fresh = ReverseKL(objective.target, n_samples=n, drop_worst=0.0).evaluate(model, beta)
    flow = two_blocks(model)
    s = fresh.y[:, flow.stiff.space.soft_index]
    objective.memory.add(s, fresh, beta, log_soft=log_soft(flow, s).detach())
    return fresh


def test_memory_draws_what_there_is_too_little_and_too_much_of() -> None:
    # 40,000 draws from 30,000 samples of a shaken flow: x1 beyond zero within 4.5 standard errors
    target, model = _target(DoubleWell()), _model()
    objective = CoveringKL(target, n_samples=64, n_kept=40_000)
    fresh = _remembering(objective, model, 30_000, beta=0.5)
    for beta in (0.5, 1.0):
        weights = truncated(fresh.log_weights - (beta - 0.5) * fresh.energy) * 30_000
        *both, mass = objective.memory.draw(40_000, beta)
        for s, excess in zip(both, (weights - 1, 1 - weights), strict=True):
            share = excess.clamp(min=0)
            assert mass == pytest.approx(float(share.mean()))
            expected = (share * (fresh.y[:, 0] > 0)).sum() / share.sum()
            found = (s[:, 0] > 0).double().mean()
            assert abs(found - expected) < 4.5 * (expected * (1 - expected) / 40_000).sqrt() + 1e-6


class Harmonic(Energy):
    """U = |x|² / 2."""

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x):
        return 0.5 * x.square().sum(-1)


@pytest.mark.parametrize("drawn_by", ["itself", "another"])
def test_the_likelihood_of_the_memory_leads_from_it_to_the_target(drawn_by) -> None:
    # The gradient of KL(p|q) - KL(m|q) by quadrature; the second is zero where m = q. The mean over
    # 30 memories of 20,000 is within 4.5 standard errors of it in each of 200 entries, which fails
    # 1 in 700
    target, model, found = _target(Harmonic()), _model(std=0.15), []
    then = model if drawn_by == "itself" else _model(std=0.1)
    flow = two_blocks(model)
    for _ in range(30):
        objective = CoveringKL(target, n_samples=40_000, n_kept=20_000)
        _remembering(objective, then, 20_000)
        model.zero_grad()
        objective._remembered(flow, BETA).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    stacked = torch.stack(found)
    axis = torch.linspace(-8, 8, 321)
    y = torch.cartesian_prod(axis, axis)
    p = torch.softmax(target.log_density(y), 0)
    with torch.no_grad():
        m = then.decoder(then.rows(len(y))).log_prob(y).exp() * 0.05**2
    model.zero_grad()
    ((m - p) * model.decoder(model.rows(len(y))).log_prob(y)).sum().backward()
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    slack = 4.5 * stacked.std(0) / math.sqrt(30) + 0.01 * exact.abs().max()
    assert ((stacked.mean(0) - exact).abs() <= slack).all()


def test_log_densities_of_the_soft_block_are_drawn_to_those_of_the_weights() -> None:
    # All coordinates are soft: a weight says what the log-density should be, but for a constant
    target, model = _target(DoubleWell()), _model()
    flow, objective = two_blocks(model), CoveringKL(target, n_samples=40_000, n_kept=20_000)
    _remembering(objective, model, 20_000, beta=0.5)
    s, log_p = objective.memory.draw_any(500, BETA)
    exact = target.log_density(s, beta=BETA)
    assert_close(log_p - log_p[0], exact - exact[0], rtol=0, atol=1e-9)
    s = objective.memory.state_dict()["s"]

    def losses() -> torch.Tensor:
        apart = (log_soft(flow, s) - target.log_density(s, beta=BETA)).detach()
        apart = (apart - apart.median()).abs()
        return torch.where(apart < BEYOND, apart.square() / 2, BEYOND * (apart - BEYOND / 2))

    before = losses()
    # 10,000 draws of a mean, whose median is that of the draws: within 4.5 standard errors and 1 %
    found, slack = objective._apart(flow, BETA), 4.5 * before.std() / 100 + 0.01 * before.mean()
    assert abs(found - before.mean()) < slack
    # Down the slope they come closer
    for _ in range(20):
        model.zero_grad()
        objective._apart(flow, BETA).backward()
        for p in flow.soft.parameters():
            p.data -= 0.02 * p.grad
    assert losses().mean() < before.mean() - slack


def test_a_clash_in_the_memory_leaves_the_value_of_the_loss() -> None:
    objective, model = CoveringKL(_target(DoubleWell()), n_samples=64), _model().float()
    clash = ReverseKL(objective.target, n_samples=64, drop_worst=0.0).evaluate(model, BETA)
    clash = replace(clash, energy=clash.energy + 1e12, log_weights=clash.log_weights - BETA * 1e12)
    objective.memory.add(clash.y, clash, BETA, log_soft=torch.zeros(64))
    torch.manual_seed(4)
    alone = ReverseKL(objective.target, n_samples=48, order=0.5).evaluate(model, BETA)
    torch.manual_seed(4)
    found = objective.evaluate(model, BETA)
    assert_close(found.loss, alone.loss)
    found.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_nothing_is_wrong_where_all_weights_are_equal_or_nearly() -> None:
    n = torch.zeros(500, dtype=torch.float32)
    for one in (0.0, 2e-7):
        memory, log_weights = SoftMemory(1000), n.clone()
        log_weights[0] = one
        fresh = Evaluation(n.sum(), torch.randn(500, 2), n, n, log_weights)
        memory.add(fresh.y[:, :1], fresh, BETA, log_soft=n)
        little, much, mass = memory.draw(7, BETA)
        assert len(little) == len(much)
        assert mass < 1e-6


def test_one_broken_sample_changes_nothing() -> None:
    target, model = _target(DoubleWell()), _model()
    flow, walkers, memory = two_blocks(model), Walkers(64), SoftMemory(1000)
    fresh = ReverseKL(target, n_samples=64).evaluate(model, BETA)
    for broken in (math.nan, math.inf):
        y, log_weights = fresh.y.clone(), fresh.log_weights.clone()
        y[0], log_weights[0] = math.nan, broken
        spoilt = replace(fresh, y=y, log_weights=log_weights)
        walkers.start(spoilt, flow)
        assert torch.isfinite(walkers.y).all()
        assert torch.isfinite(walkers.remembered).all()
        memory.add(y, spoilt, BETA, log_soft=torch.zeros(64))
    assert len(memory) == 2 * int(torch.isfinite(fresh.log_weights[1:]).sum())


def test_memory_keeps_the_latest_and_goes_on_from_its_state() -> None:
    target, model = _target(DoubleWell()), _model()
    memory, again = SoftMemory(100), SoftMemory(100)
    assert memory.state_dict() == {}
    assert len(memory) == 0
    batches = [ReverseKL(target, n_samples=60).evaluate(model, BETA) for _ in range(3)]
    for fresh in batches:
        memory.add(fresh.y, fresh, BETA, log_soft=torch.zeros(60))
    latest = torch.cat([batches[1].y[-40:], batches[2].y])
    assert torch.equal(memory.state_dict()["s"], latest)
    again.load_state_dict(memory.state_dict())
    draws = []
    for each in (memory, again):
        torch.manual_seed(0)
        draws.append(each.draw(50, 0.7)[0])
    assert torch.equal(*draws)
    # That of a version that kept no densities of the soft block draws the same
    again.load_state_dict({k: v for k, v in memory.state_dict().items() if k != "log_soft"})
    torch.manual_seed(0)
    assert torch.equal(again.draw(50, 0.7)[0], draws[0])
    with pytest.raises(KeyError, match="energy"):
        again.load_state_dict({"s": draws[0]})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"moves": 1.0}, r"`moves` must lie in \[0, 1\), got 1.0"),
        ({"n_samples": 8, "moves": 0.9}, "`n_samples` must leave two fresh samples, got 8"),
        ({"nudges": 1.5}, r"`nudges` must lie in \[0, 1\], got 1.5"),
        ({"weight": -1.0}, "`weight` must not be negative or infinite, got -1.0"),
        ({"variance": -1.0}, "`variance` must not be negative or infinite, got -1.0"),
        ({"n_walkers": 3}, "`n_walkers` must be at least 128, got 3"),
        ({"n_kept": 0}, "`n_kept` must be at least 1, got 0"),
        ({"order": 3.0}, r"`order` must lie in \[0, 2\], got 3.0"),
    ],
)
def test_bad_settings_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        CoveringKL(_target(DoubleWell()), **options)


def test_models_without_two_blocks_take_reverse_kl() -> None:
    coordinates, target = Cartesian(2), _target(DoubleWell())
    gaussian = CoarseGrainedModel(
        GaussianDecoder(coordinates, n_cvs=1, hidden=(8,)),
        prior=GaussianPrior(1),
        encoder=GaussianEncoder(coordinates, n_cvs=1, hidden=(8,)),
        n_cvs=1,
    )
    assert isinstance(
        build_objective("covering", _model(), target, n_samples=8, n_steps=9), CoveringKL
    )
    for name in ("covering", "path", "plain"):
        built = build_objective(name, gaussian, target, n_samples=8, n_steps=9)
        assert isinstance(built, ReverseKL)
        assert built.path_gradient == (name != "plain")
    with pytest.raises(ValueError, match="use ReverseKL"):
        CoveringKL(target, n_samples=8).evaluate(gaussian, BETA)
    with pytest.raises(ValueError, match="`estimator` must be one of covering, path, plain"):
        build_objective("reinforce", gaussian, target, n_samples=8, n_steps=9)


def test_a_torsion_of_a_molecule_flips_in_one_move() -> None:
    system = alanine_dipeptide()
    target = BoltzmannTarget(system.energy, system.coordinates, 300.0)
    torch.manual_seed(0)
    decoder = SplineDecoder(system.coordinates, n_soft_layers=2, n_stiff_layers=2)
    model = CoarseGrainedModel(decoder).float()
    walkers, beta = Walkers(64), target.beta / 8
    fresh = ReverseKL(target, n_samples=64).evaluate(model, beta)
    walkers.start(fresh, two_blocks(model))
    start = system.coordinates.centre.float().repeat(64, 1)
    _put(walkers, target, start)
    n_accepted = 0
    for _ in range(30):
        move = walkers.move(two_blocks(model), target, beta, 64, tame_above=1e3)
        n_accepted += int(move.accepted.sum())
    assert n_accepted > 0
    x, _ = system.coordinates.inverse(walkers.y)
    assert bool(system.coordinates.valid(x).all())
    assert_close(walkers.energy, target.energy(x), rtol=1e-4, atol=1e-2)
