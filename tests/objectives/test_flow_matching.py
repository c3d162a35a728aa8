"""Flow matching on own weighted samples. Cannot detect a ladder too short for a molecule."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.checkpoint import CheckpointError
from gencg.config import RunConfig
from gencg.coordinates.base import Cartesian
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.solvers import AdaptiveSteps, FixedSteps
from gencg.distributions.velocity import VelocityField
from gencg.ensemble import draw
from gencg.fit import fit
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder, fewer_steps
from gencg.models.decoders import SplineDecoder
from gencg.objectives.build import build_objective
from gencg.objectives.covering_kl import ORDER
from gencg.objectives.flow_matching import STEEPEST, FlowMatching, _shortened
from gencg.objectives.matching import Spread, matching_losses
from gencg.objectives.matching_memory import Drawn, MatchingMemory
from gencg.objectives.own_samples import OwnSamples
from gencg.objectives.reverse_kl import LEAST_ESS, ReverseKL
from gencg.systems import alanine_dipeptide, double_well
from gencg.target import BoltzmannTarget
from gencg.tempering import GeometricLadder
from gencg.training import Optimisation

SMALL = {
    "n_soft_units": 24,
    "n_stiff_units": 8,
    "hidden": (8,),
    "soft_solver": FixedSteps(4),
    "stiff_solver": FixedSteps(2),
}


def _model() -> CoarseGrainedModel:
    torch.manual_seed(2)
    return CoarseGrainedModel(FlowMatchingDecoder(double_well().coordinates, **SMALL))


def _target() -> BoltzmannTarget:
    system = double_well()
    return BoltzmannTarget(system.energy, system.coordinates, system.temperature)


class _Constant(VelocityField):
    """The same velocity everywhere."""

    def __init__(self, periodic: bool, way: float) -> None:
        super().__init__(torch.tensor([periodic]))
        self.way = way

    def coefficients(self, context):
        return context

    def forward(self, t, x, k):
        return torch.full_like(x, self.way)


def test_an_angle_goes_the_shorter_way_around(monkeypatch) -> None:
    # From 3 to -3 over the seam it is 0.28, back around it would be -6
    over_the_seam = 2 * math.pi - 6.0
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5 * (1 + 3 / math.pi)))
    end, nothing = torch.tensor([[-3.0]]), torch.zeros(1, 0)
    right = matching_losses(ContinuousFlow(_Constant(True, over_the_seam)), end, nothing)
    wrong = matching_losses(ContinuousFlow(_Constant(True, -6.0)), end, nothing)
    assert_close(right, torch.zeros(1), atol=1e-12, rtol=0)
    assert wrong[0] > 30


def test_matching_is_least_for_the_velocity_of_the_optimal_gaussian_flow() -> None:
    # N(0, 1) to N(0, s^2), independent ends: u(t, x) = x d/dt log sqrt((1-t)^2 + s^2 t^2)
    s, n = 0.4, 40_000

    class Linear(VelocityField):
        factor = 1.0

        def coefficients(self, context):
            return context

        def forward(self, t, x, k):
            width = (1 - t).square() + (s * t).square()
            return self.factor * x * (s**2 * t - (1 - t)) / width

    field = Linear(torch.tensor([False]))
    x1, nothing = s * torch.randn(n, 1), torch.zeros(n, 0)

    def losses(factor: float) -> torch.Tensor:
        field.factor = factor
        torch.manual_seed(1)
        return matching_losses(ContinuousFlow(field), x1, nothing)

    for factor in (0.8, 1.2):
        worse = losses(factor) - losses(1.0)
        # The same noise on both sides; four standard errors fail once in 30,000
        assert worse.mean() > 4 * worse.std() / math.sqrt(n)


def test_with_slopes_nothing_is_left_to_chance_for_a_normal_density() -> None:
    # u(t, x) = mean + A_t (x - t mean), A_t = (t S - (1 - t)) ((1 - t)^2 + t^2 S)^-1
    dim, n = 3, 50
    root = torch.randn(dim, dim)
    covariance, mean = root @ root.T / dim + 0.1 * torch.eye(dim), torch.randn(dim)
    variances, axes = torch.linalg.eigh(covariance)

    class Exact(VelocityField):
        def coefficients(self, context):
            return context

        def forward(self, t, x, k):
            slope = (t * variances - (1 - t)) / ((1 - t).square() + t.square() * variances)
            return mean + (slope * ((x - t * mean) @ axes)) @ axes.T

    x1, nothing = mean + torch.randn(n, dim) @ root.T, torch.zeros(n, 0)
    slopes = -(x1 - mean) @ torch.linalg.inv(covariance)
    flow = ContinuousFlow(Exact(torch.zeros(dim, dtype=torch.bool)))
    losses = matching_losses(flow, x1, nothing, slopes=slopes, spread=Spread(variances, axes))
    assert_close(losses, torch.zeros(n), atol=1e-18, rtol=0)
    # x1 need not even be of the density: its slopes say what is
    assert float(matching_losses(flow, x1, nothing).mean()) > 0.5


def test_slopes_change_the_noise_and_not_the_mean() -> None:
    # log p = -x^4/4 + 3 x^2/2: two peaks, and any covariance
    grid = torch.linspace(-4, 4, 4001)
    share = torch.softmax(-(grid**4) / 4 + 1.5 * grid**2, 0)
    n = 200_000
    x1 = grid[torch.multinomial(share, n, replacement=True)][:, None]
    slopes, nothing = 3 * x1 - x1**3, torch.zeros(n, 0)

    class Seen(VelocityField):
        """Keeps where it was asked, and answers what it is told to."""

        answer = 0.0

        def coefficients(self, context):
            return context

        def forward(self, t, x, k):
            self.t, self.x = t, x
            return torch.full_like(x, self.answer)

    field = Seen(torch.tensor([False]))

    def estimates(**more) -> torch.Tensor:
        squares = []
        for field.answer in (0.0, 1.0):
            torch.manual_seed(4)
            squares.append(matching_losses(ContinuousFlow(field), x1, nothing, **more))
        # u^2 - (1 - u)^2 = 2 u - 1
        return (squares[0] - squares[1] + 1) / 2

    plain = estimates()
    with_slopes = estimates(slopes=slopes, spread=Spread(torch.tensor([0.3]), torch.eye(1)))
    t, x = field.t[:, 0], field.x[:, 0]
    for test in (torch.ones(n), x, x.sin() * t, (3 * x).cos(), (x > 0.5) * (t > 0.5) * 1.0):
        value = (with_slopes - plain) * test
        # Four standard errors fail once in 15,000
        assert abs(float(value.mean())) < 4 * float(value.std()) / math.sqrt(n)
    late = t > 0.7
    assert with_slopes[late].var() < 0.7 * plain[late].var()


def test_the_spread_is_the_covariance_of_a_normal_density() -> None:
    covariance = torch.tensor([[0.5, 0.2], [0.2, 2.0]])
    slopes = -torch.randn(100_000, 2) @ torch.linalg.inv(torch.linalg.cholesky(covariance))
    spread = Spread.of_slopes(slopes, torch.full((100_000,), 1e-5))
    found = spread.axes @ spread.variances.diag() @ spread.axes.T
    assert_close(found, covariance, atol=0.02, rtol=0.02)
    # Of one sample it is between its own and the unit matrix, and never without bound
    one = Spread.of_slopes(torch.tensor([[1e3, 0.0]]), torch.ones(1))
    assert_close(one.variances, torch.tensor([1.5, 3 / 1e6]), atol=1e-6, rtol=1e-3)
    assert (
        Spread.of_slopes(torch.zeros(10_000, 2), torch.full((10_000,), 1e-4)).variances.max() <= 10
    )


def _drawn(log_weights: torch.Tensor, log_soft: torch.Tensor | None = None) -> Drawn:
    n = len(log_weights)
    y, zero = torch.arange(n)[:, None].double(), torch.zeros(n)
    samples = OwnSamples(y, zero, log_weights, zero, torch.ones(n, 1), torch.full((n, 1), 4.0))
    return Drawn(samples, torch.full((n, 1), -8.0), zero if log_soft is None else log_soft)


def test_the_memory_aims_by_weight_or_by_what_its_samples_bear() -> None:
    def aim(log_weights: torch.Tensor, beta: float = 1.0):
        memory = MatchingMemory(1000)
        memory.add(_drawn(log_weights))
        return memory.aim(beta)

    # Half of the samples has twice the weight: an ESS of 0.9 leaves it as it is
    even = aim(torch.cat([torch.zeros(500), torch.full((500,), math.log(2))]))
    assert float(even.share[500:].sum()) == pytest.approx(2 / 3)
    assert_close(even.slopes, torch.full((1000, 1), 3.0))

    # Wild weights are taken to the power that leaves the least effective sample size, and the
    # slope is that of the density which these powers are weights of
    wild = 10 * torch.randn(1000)
    borne = aim(wild)
    assert float(effective_sample_size(borne.share.log())) == pytest.approx(LEAST_ESS, abs=0.01)
    there = (borne.share > 0) & (borne.share < borne.share.max())
    logs, given = borne.share[there].log(), wild[there]
    power = float(
        (logs - logs.mean()) @ (given - given.mean()) / (given - given.mean()).norm() ** 2
    )
    assert 0 < power < 1
    assert_close(borne.slopes, torch.full((1000, 1), power * 3.0 - (1 - power) * 8.0))


def test_a_share_of_the_samples_is_of_the_flattened_density() -> None:
    log_soft = torch.cat([torch.zeros(900), torch.full((100,), -4.0)])
    memory = MatchingMemory(1000, flattened=0.2)
    memory.add(_drawn(torch.zeros(1000), log_soft))
    # The square root: e^2 times as much where the density is e^-4
    rare = 100 * math.exp(2) / (900 + 100 * math.exp(2))
    assert float(memory.aim(1.0).share[900:].sum()) == pytest.approx(0.8 * 0.1 + 0.2 * rare)
    again = MatchingMemory(1000, flattened=0.2)
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again.aim(1.0).share, memory.aim(1.0).share)


def test_the_memory_keeps_the_last_finite_samples() -> None:
    memory = MatchingMemory(5)
    memory.add(_drawn(torch.zeros(4)))
    broken = _drawn(torch.zeros(5))
    broken.samples.log_det[1] = math.nan
    broken.score[3] = math.inf
    broken.log_soft[4] = -math.inf
    memory.add(broken)
    assert memory.state_dict()["y"][:, 0].tolist() == [1, 2, 3, 0, 2]
    memory.clear()
    assert memory.state_dict() == {}


def test_matching_asks_for_forces_once_and_then_gives_way() -> None:
    model, target = _model(), _target()
    after = ReverseKL(target, n_samples=32)
    objective = FlowMatching(target, after=after, n_samples=32, n_matching=2, n_matched=64)
    for k in range(3):
        before = target.energy.n_energy_calls, target.energy.n_gradient_calls
        evaluation = objective.evaluate(model, target.beta)
        model.zero_grad()
        evaluation.loss.backward()
        spent = target.energy.n_energy_calls - before[0]
        assert spent == 32 + (k == 2)  # the reference energy of reverse KL
        assert target.energy.n_gradient_calls - before[1] == 32
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert any(g.abs().max() > 0 for g in grads)
        log_weights = evaluation.log_weights[torch.isfinite(evaluation.log_weights)]
        if k < 2:
            assert_close(evaluation.loss.detach(), -log_weights.median())
    assert len(objective.memory) == 0


def _dipeptide(n_steps: int) -> tuple[CoarseGrainedModel, BoltzmannTarget]:
    """A shaken model of what has stiff coordinates, which the toys have not."""
    system, steps = alanine_dipeptide(), FixedSteps(n_steps)
    torch.manual_seed(2)
    options = SMALL | {"soft_solver": steps, "stiff_solver": steps}
    model = CoarseGrainedModel(FlowMatchingDecoder(system.coordinates, **options))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model, BoltzmannTarget(system.energy, system.coordinates, system.temperature)


def test_draws_of_matching_have_the_density_that_they_say() -> None:
    model, target = _dipeptide(24)
    objective = FlowMatching(target, after=ReverseKL(target), n_samples=16, n_matching=2)
    drawn, space = objective._draw(model, model.decoder), model.decoder.flow.stiff.space
    y = drawn.samples.y.clone().requires_grad_()
    log_q = model.decoder(model.rows(16)).log_prob(y)
    log_soft = model.decoder.flow.soft.log_prob(y[:, space.soft_index], y[:, :0])
    (slope,) = torch.autograd.grad((log_q - log_soft).sum(), y)
    # The inverse takes steps of its own
    assert_close(log_q.detach(), drawn.samples.log_drawn, atol=1e-4, rtol=0)
    assert_close(log_soft.detach(), drawn.log_soft, atol=1e-4, rtol=0)
    assert_close(slope[:, space.stiff_index], drawn.score, atol=1e-3, rtol=1e-3)


def test_the_stiff_block_is_matched_with_the_slopes_of_its_samples(monkeypatch) -> None:
    model, target = _dipeptide(4)
    stiff = model.decoder.flow.stiff
    objective = FlowMatching(
        target, after=ReverseKL(target), n_samples=16, n_matching=2, n_matched=8
    )
    seen = []

    def spy(flow, x1, context, *, slopes=None, spread=None):
        seen.append((x1, context, slopes))
        return matching_losses(flow, x1, context, slopes=slopes, spread=spread)

    monkeypatch.setattr("gencg.objectives.flow_matching.matching_losses", spy)
    monkeypatch.setattr("gencg.objectives.flow_matching.STEEPEST", 1e9)
    # So hot that all weights are equal: what is aimed at is p itself
    monkeypatch.setattr("gencg.objectives.matching_memory.order_that_is_borne", lambda *_: 1.0)
    objective.evaluate(model, target.beta)
    (_, _, none), (x1, context, slopes) = seen
    assert none is None
    kept = objective.memory.state_dict()["y"]
    features = stiff.space.features(kept[:, stiff.space.soft_index])
    rows = torch.cdist(features, context).argmin(0)
    v = x1.clone().requires_grad_()
    parts = [kept[rows][:, stiff.space.soft_index], v * stiff.scale + stiff.centre]
    log_p = target.log_density(torch.cat(parts, dim=-1)[:, stiff.space.order])
    (expected,) = torch.autograd.grad(log_p.sum(), v)
    assert_close(slopes, expected, atol=1e-2, rtol=1e-3)


def test_slopes_of_clashes_are_shortened_and_those_of_explosions_gone() -> None:
    slopes = torch.tensor([[3.0, 4.0], [300.0, 400.0], [1e38, 1e38]], dtype=torch.float32)
    short = _shortened(slopes)
    longest = STEEPEST * 2**0.5
    assert_close(short[0], slopes[0])
    assert_close(short[1], slopes[1] * longest / 500)
    assert torch.equal(short[2], torch.zeros(2))


def test_draws_of_matching_take_half_of_the_steps(monkeypatch) -> None:
    model, target = _model(), _target()
    taken, solve = [], FixedSteps.solve

    def spy(self, *args):
        taken.append(self.n_steps)
        return solve(self, *args)

    monkeypatch.setattr(FixedSteps, "solve", spy)
    objective = FlowMatching(target, after=ReverseKL(target), n_samples=16, n_matching=2)
    objective._draw(model, model.decoder)
    assert set(taken) == {2}
    layer = model.decoder.flow.soft.chain.layers[0]
    assert layer.solver == FixedSteps(4)
    layer.solver = AdaptiveSteps()
    with fewer_steps(model.decoder):
        assert layer.solver == AdaptiveSteps()


def test_what_is_matched_learns_faster() -> None:
    def rate(model, **options) -> float:
        result = fit(double_well(), energy_calls=64, batch_size=16, model=model, **options)
        return result.state.settings["learning_rate"]

    assert rate(_model()) == pytest.approx(9e-3)
    trained = _model()
    trained.decoder.flow.soft.chain.layers[0].field.net.layers[-1].bias.data[3] = 0.1
    assert rate(trained) == 3e-3
    assert rate(_model(), objective=ReverseKL(_target(), n_samples=16)) == 3e-3
    config = RunConfig("double-well", decoder="flow-matching", learning_rate=2e-3)
    assert config.optimisation().learning_rate == pytest.approx(6e-3)
    assert RunConfig("double-well").optimisation().learning_rate == 3e-3


def test_the_decoder_decides_what_trains_it() -> None:
    model, target = _model(), _target()
    options = {"n_samples": 64, "n_steps": 100}
    matched = build_objective("covering", model, target, **options, matching=0.5)
    assert isinstance(matched, FlowMatching)
    assert isinstance(matched.after, ReverseKL)
    assert matched.after.order == ORDER
    assert matched.n_matching == 50
    assert model.decoder.at_rest
    # A model that is trained on is not matched again
    model.decoder.flow.soft.chain.layers[0].field.net.layers[-1].bias.data[3] = 0.1
    assert not model.decoder.at_rest
    assert isinstance(build_objective("path", model, target, **options, matching=0.5), ReverseKL)
    spline = CoarseGrainedModel(SplineDecoder(Cartesian(2), n_soft_layers=2, soft_hidden=(8,)))
    other = build_objective("path", spline, target, **options, matching=0.5)
    assert isinstance(other, ReverseKL)


def test_a_double_well_is_matched_from_its_own_samples() -> None:
    system = double_well()
    model, target = _model().float(), _target()
    # Nothing after: what matching does by itself
    objective = FlowMatching(
        target,
        after=ReverseKL(target),
        n_samples=256,
        n_matching=150,
        n_matched=1024,
        n_remembered=2560,
    )
    result = fit(
        system, energy_calls=256 * 150, batch_size=256, model=model, objective=objective,
        tempering=GeometricLadder(start=4.0), optimisation=Optimisation(learning_rate=1e-2), seed=3,
    )  # fmt: skip
    ensemble = draw(result.model, result.target, 20_000, seed=1)
    assert ensemble.ess > 0.5
    assert ensemble.log_z == pytest.approx(12.0649, abs=0.05)
    # The right well holds 0.8 %
    right = ensemble.x[:, 0] > 1.0
    assert right.double().mean() > 0.002
    assert float(ensemble.weights[right].sum()) == pytest.approx(0.00835, abs=0.004)


def test_a_resumed_matching_ends_bit_for_bit_like_one_without_a_stop(tmp_path) -> None:
    class Killed(BaseException):
        pass

    def run(checkpoint, reporters=()):
        return fit(
            double_well(), energy_calls=16 * 8, batch_size=16, model=_model(), seed=4,
            checkpoint=checkpoint, checkpoint_seconds=0.0, reporters=reporters,
            # Batches of before the stop are drawn from after it
            objective=FlowMatching(
                _target(), after=ReverseKL(_target(), n_samples=16), n_samples=16, n_matching=6,
                n_matched=64, n_remembered=64,
            ),
        )  # fmt: skip

    whole = run(tmp_path / "whole.pt")
    for step in (2, 6):
        path = tmp_path / f"{step}.pt"

        def kill(info, step=step):
            if info.step == step:
                raise Killed

        with pytest.raises(Killed):
            run(path, [kill])
        again = run(path)
        for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_return_to_an_earlier_state_does_not_match_for_longer() -> None:
    target = _target()
    objective = FlowMatching(target, after=ReverseKL(target), n_samples=16, n_matching=5)
    objective.evaluate(_model(), target.beta)
    good = objective.state_dict()
    for _ in range(3):
        objective.evaluate(_model(), target.beta)
    objective.load_state_dict(good)
    assert objective.n_done == 4
    assert len(objective.memory) == 16


def test_a_checkpoint_of_other_steps_is_refused(tmp_path) -> None:
    path = tmp_path / "one.pt"
    options = {"energy_calls": 64, "batch_size": 16, "checkpoint": path}
    fit(double_well(), model=_model(), **options)
    other = _model()
    other.decoder.flow.soft.chain.layers[0].solver = FixedSteps(5)
    with pytest.raises(
        CheckpointError, match=r"solvers=FixedSteps\(n_steps=4.*FixedSteps\(n_steps=5"
    ):
        fit(double_well(), model=other, **options)


def test_bad_matchings_are_refused() -> None:
    target = _target()
    after = ReverseKL(target)
    with pytest.raises(ValueError, match="`n_samples` must be at least 2, got 1"):
        FlowMatching(target, after=after, n_samples=1, n_matching=3)
    with pytest.raises(ValueError, match="`n_matching` must not be negative, got -1"):
        FlowMatching(target, after=after, n_matching=-1)
    with pytest.raises(ValueError, match="`n_matched` must be at least 1, got 0"):
        FlowMatching(target, after=after, n_matching=3, n_matched=0)
    with pytest.raises(ValueError, match="`n_remembered` must be at least 1, got 0"):
        FlowMatching(target, after=after, n_matching=3, n_remembered=0)
    with pytest.raises(ValueError, match=r"`flattened` must lie in \[0, 1\), got 1"):
        FlowMatching(target, after=after, n_matching=3, flattened=1)
    flow, x = ContinuousFlow(_Constant(True, 1.0)), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="`slopes` and `spread` go together"):
        matching_losses(flow, x, x[:, :0], slopes=x)
    spread = Spread(torch.ones(1), torch.eye(1))
    with pytest.raises(ValueError, match="`slopes` are for lines"):
        matching_losses(flow, x, x[:, :0], slopes=x, spread=spread)
    spline = CoarseGrainedModel(SplineDecoder(Cartesian(2), n_soft_layers=2, soft_hidden=(8,)))
    with pytest.raises(ValueError, match=r"must have a FlowMatchingDecoder.*got SplineDecoder"):
        FlowMatching(target, after=after, n_matching=3).evaluate(spline, 1.0)
