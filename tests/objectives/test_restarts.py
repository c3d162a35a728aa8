"""Restarts and clones of walkers: who, where, how many, and that an exact generator feels nothing.

Statistical tests state their standard error; 4.5 of them fail 1 in 1e5. Cannot detect: whether
restarts find the states that a generator of a large molecule has lost.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.objectives.covering_kl import CoveringKL
from gencg.objectives.restarts import BURN_IN, HOT, N_GATHERED, N_KEPT, WARM, Restarts
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import CLONED, HOLE, MOST_MISSED, Walkers, two_blocks
from gencg.target import BoltzmannTarget
from gencg.units import temperature_of

BETA = 1.0
DOUBLE = torch.float64
COLD = torch.tensor(1e3, dtype=DOUBLE)
"""A mean weight so high that density is missing nowhere."""


class Harmonic(Energy):
    """U = |x|² / 2, on the circle 1 - cos of the first in its place."""

    def __init__(self, periodic: bool) -> None:
        super().__init__((2,))
        self.periodic = periodic

    def energy(self, x):
        if self.periodic:
            return 2 - x.cos().sum(-1)
        return 0.5 * x.square().sum(-1)


def _target(periodic: bool = False) -> BoltzmannTarget:
    coordinates = Cartesian(2, periodic=periodic)
    return BoltzmannTarget(Harmonic(periodic), coordinates, temperature_of(BETA))


def _model(periodic: bool = False, *, std: float = 0.05) -> CoarseGrainedModel:
    """One soft coordinate and one stiff, but for the circle, where both are soft."""
    coordinates = Cartesian(2, periodic=periodic)
    coordinates.soft = torch.tensor([True, periodic])
    torch.manual_seed(0)
    decoder = SplineDecoder(
        coordinates, n_soft_layers=2, n_bins=4, soft_hidden=(8,), n_stiff_layers=2,
        stiff_hidden=(8,),
    )  # fmt: skip
    model = CoarseGrainedModel(decoder).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def _walkers(n: int, *, periodic: bool = False, **options):
    """Walkers with five rows of 3 in their reservoir, the target, and the generator."""
    target, model = _target(periodic), _model(periodic)
    walkers = Walkers(n, **options)
    fresh = ReverseKL(target, n_samples=n, drop_worst=0.0).evaluate(model, BETA)
    walkers.start(fresh, two_blocks(model))
    walkers.restarts.kept = torch.full((5, 2 if periodic else 1), 3.0, dtype=DOUBLE)
    return walkers, target, model


def _move(walkers, target, model, n: int | None = None, *, log_z=COLD, beta: float = BETA):
    n = walkers.n if n is None else n
    return walkers.move(two_blocks(model), target, beta, n, tame_above=1e3, log_z=log_z)


def _between(values: torch.Tensor, share: float) -> torch.Tensor:
    """Halfway between two neighbours of different values, which rounding cannot move it over."""
    values = values.unique()
    k = int(share * len(values))
    return (values[k - 1] + values[k]) / 2


@pytest.mark.parametrize("periodic", [False, True])
def test_walkers_restart_at_what_is_kept_with_energies_of_where_they_are(periodic) -> None:
    walkers, target, model = _walkers(2000, periodic=periodic, nudges=0.0, restarts=0.5)
    _move(walkers, target, model, 1500)
    new = walkers.restarts.burn_in == BURN_IN
    # 1500 of 2000 are asked, one in 30: 50, with standard error 7
    assert abs(int(new.sum()) - 50) < 4.5 * 7
    assert (walkers.restarts.burn_in[~new] == 0).all()
    assert (walkers.y[new][:, two_blocks(model).stiff.space.soft_index] == 3.0).all()
    if not periodic:
        # Stiff coordinates are drawn, each its own
        assert len(walkers.y[new, 1].unique()) == new.sum()
    energy, log_det = target.energy_and_log_det(walkers.y)
    assert_close(walkers.energy, energy)
    assert_close(walkers.log_det, log_det)


def test_in_the_long_run_the_share_asked_for_is_in_its_burn_in() -> None:
    # Each of 2000 walkers makes 120 moves, four burn-ins, in the 240 readings: at least as good as
    # four independent ones, so that the error is below sqrt(0.24 / 8000) = 5.5e-3
    restarts = Restarts(0.4)
    restarts.start(2000, torch.zeros(1, 1))
    restarts.kept = torch.zeros(5, 1)
    torch.manual_seed(0)
    shares = []
    for k in range(12 * BURN_IN):
        chosen = torch.randperm(2000)[:1000]
        restarts.count(chosen, restarts.begin_anew(chosen, 1.0)[0])
        if k >= 4 * BURN_IN:
            shares.append((restarts.burn_in > 0).double().mean())
    assert abs(torch.stack(shares).mean() - 0.4) < 4.5 * 5.5e-3


def test_a_burn_in_is_as_many_moves_of_the_walker_itself() -> None:
    walkers, target, model = _walkers(100)
    walkers.restarts.share = 0.0
    walkers.restarts.burn_in[:] = 2
    before = walkers.y.clone()
    asked = _move(walkers, target, model, 30)
    assert len(asked.accepted) == 30
    assert (walkers.restarts.burn_in == 1).sum() == 30
    assert (walkers.restarts.burn_in == 2).sum() == 70
    assert torch.equal(
        walkers.y[walkers.restarts.burn_in == 2], before[walkers.restarts.burn_in == 2]
    )
    for left in (1, 0, 0):
        _move(walkers, target, model)
        assert (walkers.restarts.burn_in <= left).all()


@pytest.mark.parametrize(
    "log_z, some", [(1e3, True), (-0.5 * HOLE, False), (-3 * HOLE, True)], ids=str
)
def test_an_undersampled_walker_does_not_restart_and_one_in_a_hole_does(log_z, some) -> None:
    walkers, target, model = _walkers(500, restarts=1 - 1e-9)
    _move(walkers, target, model, log_z=torch.tensor(log_z, dtype=DOUBLE))
    assert (walkers.restarts.burn_in == BURN_IN * some).all()


def test_restarts_begin_where_it_is_cool_and_rows_are_kept_where_it_is_hotter() -> None:
    target, model = _target(), _model()
    for heat, new, more in ((WARM - 0.01, True, 0), (WARM + 0.01, False, N_GATHERED)):
        objective = CoveringKL(target, n_samples=400, restarts=1 - 1e-9)
        beta = target.beta / heat
        objective.evaluate(model, beta)
        restarts = objective.walkers.restarts
        restarts.kept = torch.full((5, 1), 3.0, dtype=DOUBLE)
        objective.evaluate(model, beta)
        assert bool((restarts.burn_in > 0).any()) == new
        assert len(restarts.kept) == 5 + more


def test_no_sample_takes_the_place_of_a_walker_in_its_burn_in() -> None:
    walkers, target, model = _walkers(1000, clones=0.0)
    walkers.restarts.burn_in[::2] = 1
    fresh = ReverseKL(target, n_samples=1000, drop_worst=0.0).evaluate(model, BETA)
    # So heavy that every sample would be taken
    fresh, before = replace(fresh, log_weights=fresh.log_weights + 1e3), walkers.y.clone()
    walkers.meet(model, fresh, BETA, 1000)
    moved = (walkers.y != before).any(-1)
    assert moved[1::2].all()
    assert not moved[::2].any()


def test_a_walker_in_its_burn_in_pulls_only_where_it_is_undersampled() -> None:
    walkers, target, model = _walkers(1000, clones=0.0)
    walkers.restarts.burn_in[::2] = 1
    fresh = ReverseKL(target, n_samples=1000, drop_worst=0.0).evaluate(model, BETA)
    fresh = replace(fresh, log_weights=fresh.log_weights - 1e3)
    with torch.no_grad():
        log_q = model.decoder(model.rows(1000)).log_prob(walkers.y)
    exact = walkers.log_det - BETA * walkers.energy - log_q
    middle = _between(exact, 0.5)
    torch.manual_seed(2)
    chosen = torch.randperm(1000)
    torch.manual_seed(2)
    found = walkers.meet(model, fresh, BETA, 1000, log_z=middle - math.log(MOST_MISSED))
    quiet = (exact <= middle) & (walkers.restarts.burn_in > 0)
    assert 100 < quiet.sum() < 400
    assert_close(found.log_weights, torch.where(quiet, -torch.inf, exact)[chosen])


def test_nothing_is_learned_from_the_step_that_restarts() -> None:
    walkers, target, model = _walkers(500, restarts=1 - 1e-9)
    stiff = two_blocks(model).stiff
    for some in (False, True):
        model.zero_grad()
        move = _move(walkers, target, model)
        assert bool((walkers.restarts.burn_in == BURN_IN).all()) != some
        move.pull.backward()
        gradients = [p.grad for p in stiff.parameters() if p.grad is not None]
        assert gradients
        assert any((g != 0).any() for g in gradients) == some


def test_a_generator_that_is_the_target_learns_nothing_from_walkers_anywhere() -> None:
    # The generator of no parameters but zeros is the standard normal; walkers a long way out,
    # half of them in their burn-in, and clones of one another
    target, model = _target(), _model(std=0.0)
    flow, objective = two_blocks(model), CoveringKL(target, n_samples=400, n_walkers=200)
    objective.evaluate(model, BETA)
    walkers = objective.walkers
    walkers.y = (3 * torch.randn(100, 2, dtype=DOUBLE)).repeat(2, 1)
    walkers.energy, walkers.log_det = target.energy_and_log_det(walkers.y)
    walkers.restarts.burn_in[::2] = 1
    fresh = objective.reverse.evaluate(model, BETA)
    log_z = fresh.log_weights.mean()
    meeting = walkers.meet(model, fresh, BETA, 200, log_z=log_z)
    pulls = (
        objective._missing(flow, meeting, fresh),
        _move(walkers, target, model, log_z=log_z).pull,
    )
    for pull in pulls:
        model.zero_grad()
        pull.backward()
        assert all(p.grad.abs().max() < 1e-10 for p in model.parameters() if p.grad is not None)


def test_undersampled_walkers_are_cloned_in_place_of_others() -> None:
    walkers, *_ = _walkers(1000)
    every = torch.arange(1000)
    undersampled, unmoved = every % 5 == 0, every % 7 != 1
    walkers.restarts.burn_in[every % 3 == 0] = 4
    rows, counts = torch.stack([every, -every], 1).double(), []
    for _ in range(100):
        walkers.y, walkers.energy, walkers.log_det = rows.clone(), every.double(), -every.double()
        walkers._clone(every, undersampled, unmoved)
        new = walkers.y[:, 0] != every
        counts.append(new.sum())
        assert (unmoved & ~undersampled & (walkers.restarts.burn_in == 0))[new].all()
        source = walkers.y[new, 0].long()
        assert (undersampled & unmoved)[source].all()
        assert torch.equal(walkers.y[new], rows[source])
        assert torch.equal(walkers.energy[new].long(), source)
        assert torch.equal(walkers.log_det[new].long(), -source)
    # 171 of them, each with its chance: the mean of 100 numbers has this standard error
    n = float((undersampled & unmoved).sum())
    error = math.sqrt(n * CLONED * (1 - CLONED) / 100)
    assert abs(torch.stack(counts).double().mean() - n * CLONED) < 4.5 * error


@pytest.mark.parametrize("clones, enough", [(0.0, False), (1.0, True)])
def test_none_is_cloned_where_none_is_to_be_or_a_quarter_is_undersampled(clones, enough) -> None:
    walkers, *_ = _walkers(1000, clones=clones)
    every = torch.arange(1000)
    before = walkers.y.clone()
    walkers._clone(every, every % (4 if enough else 5) == 0, every >= 0)
    assert torch.equal(walkers.y, before)


def test_a_meeting_clones_where_density_is_missing() -> None:
    for clones in (0.0, 1.0):
        walkers, target, model = _walkers(1000, clones=clones)
        fresh = ReverseKL(target, n_samples=1000, drop_worst=0.0).evaluate(model, BETA)
        fresh = replace(fresh, log_weights=fresh.log_weights - 1e3)
        with torch.no_grad():
            log_q = model.decoder(model.rows(1000)).log_prob(walkers.y)
        log_w = walkers.log_det - BETA * walkers.energy - log_q
        # One in five is undersampled, and without a mean weight none is
        before, fifth = walkers.y.clone(), _between(log_w, 0.8)
        expected = clones * int((log_w > fifth).sum())
        assert 180 * clones <= expected <= 220
        log_z = fifth - math.log(MOST_MISSED)
        walkers.meet(model, fresh, BETA, 1000)
        assert torch.equal(walkers.y, before)
        walkers.meet(model, fresh, BETA, 1000, log_z=log_z)
        assert int((walkers.y != before).any(-1).sum()) == expected


def test_what_is_kept_is_an_even_sample_of_what_was_offered_between_hot_and_cool() -> None:
    # 4096 of 16,000, even in steps 0 to 1999: the mean has the error 577 / 64 of independent ones
    # at most; the standard deviation, of an even distribution, 577 * sqrt(0.2 / 4096)
    restarts = Restarts()
    restarts.start(300, torch.zeros(1, 2))
    for heat in (WARM - 0.01, HOT + 0.01):
        restarts.offer(torch.zeros(300, 2), heat)
    assert restarts.kept.shape == (0, 2)
    torch.manual_seed(0)
    for k in range(2000):
        restarts.offer(torch.full((300, 2), float(k)), WARM + (HOT - WARM) * k / 2000)
    assert restarts.kept.shape == (N_KEPT, 2)
    even = 2000 / math.sqrt(12)
    assert abs(restarts.kept[:, 0].mean() - 999.5) < 4.5 * even / math.sqrt(N_KEPT)
    assert abs(restarts.kept[:, 1].std() - even) < 4.5 * even * math.sqrt(0.2 / N_KEPT)


def test_without_them_no_random_number_is_drawn() -> None:
    walkers, *_ = _walkers(200, restarts=0.0, clones=0.0)
    every = torch.arange(200)
    before = torch.get_rng_state()
    anew, rows = walkers.restarts.begin_anew(every, 1.0)
    walkers.restarts.offer(walkers.y[:, :1], 2.0)
    walkers._clone(every, every % 5 == 0, every >= 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert rows is None
    assert not anew.any()
    walkers.restarts.share = walkers.clones = 0.5
    for draw in (
        lambda: walkers.restarts.begin_anew(every, 1.0),
        lambda: walkers.restarts.offer(walkers.y[:, :1], 2.0),
        lambda: walkers._clone(every, every % 5 == 0, every >= 0),
    ):
        before = torch.get_rng_state()
        draw()
        assert not torch.equal(torch.get_rng_state(), before)


def test_they_go_on_from_their_state() -> None:
    walkers, target, model = _walkers(300, restarts=0.9, clones=1.0)
    restarts = walkers.restarts
    rows = torch.randn(300, 1, dtype=DOUBLE)
    for _ in range(N_KEPT // N_GATHERED + 10):
        restarts.offer(rows, 2.0)
    _move(walkers, target, model)
    state = walkers.state_dict()
    kept, burn_in = restarts.kept.clone(), restarts.burn_in.clone()
    assert burn_in.any()
    ends = []
    for again in (walkers, Walkers(300, restarts=0.9, clones=1.0)):
        if again is not walkers:
            # What the first did since left the state as it was
            assert torch.equal(state["restarts"]["kept"], kept)
            assert torch.equal(state["restarts"]["burn_in"], burn_in)
            again.load_state_dict(state)
        torch.manual_seed(1)
        fresh = ReverseKL(target, n_samples=300, drop_worst=0.0).evaluate(model, BETA)
        light = replace(fresh, log_weights=fresh.log_weights - 1e3)
        n_cloned = 0
        for _ in range(40):
            _move(again, target, model)
            with torch.no_grad():
                log_q = model.decoder(model.rows(300)).log_prob(again.y)
            log_w = again.log_det - BETA * again.energy - log_q
            n_before = len(again.y.unique(dim=0))
            again.meet(model, light, BETA, 300, log_z=_between(log_w, 0.85) - math.log(MOST_MISSED))
            n_cloned += n_before - len(again.y.unique(dim=0))
            again.restarts.offer(again.y[:, :1], 2.0)
        assert n_cloned > 100
        n_seen = torch.tensor(again.restarts.n_seen)
        tensors = again.y, again.energy, again.log_det, again.restarts.kept, again.restarts.burn_in
        ends.append((*tensors, n_seen))
    assert not torch.equal(ends[0][3], kept)
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)
