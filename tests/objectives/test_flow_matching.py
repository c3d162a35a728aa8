"""Flow matching on own weighted samples. Cannot detect a ladder too short for a molecule."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from gencg.checkpoint import CheckpointError
from gencg.coordinates.base import Cartesian
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.solvers import FixedSteps
from gencg.distributions.velocity import VelocityField
from gencg.ensemble import draw
from gencg.fit import fit
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.decoders import SplineDecoder
from gencg.objectives.build import build_objective
from gencg.objectives.covering_kl import ORDER
from gencg.objectives.flow_matching import FlowMatching, matching_losses
from gencg.objectives.memory import WeightedMemory
from gencg.objectives.reverse_kl import LEAST_ESS, ReverseKL
from gencg.systems import double_well
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


def test_the_memory_draws_by_weight_or_by_what_its_samples_bear() -> None:
    def filled(log_weights: torch.Tensor) -> WeightedMemory:
        memory = WeightedMemory(1000)
        fresh = SimpleNamespace(energy=torch.zeros(len(log_weights)), log_weights=log_weights)
        memory.add(torch.arange(len(log_weights))[:, None].double(), fresh, 1.0)
        return memory

    # Half of the samples has twice the weight: an ESS of 0.9 leaves it as it is
    log_weights = torch.cat([torch.zeros(500), torch.full((500,), math.log(2))])
    drawn = filled(log_weights).draw(60_000, 1.0)[:, 0]
    share = (drawn >= 500).double().mean()
    assert share == pytest.approx(2 / 3, abs=5 * math.sqrt(2 / 9 / 60_000))

    # Wild weights are taken to the power that leaves the least effective sample size
    wild = 10 * torch.randn(1000)
    drawn = filled(wild).draw(200_000, 1.0)[:, 0].long()
    counts = torch.bincount(drawn, minlength=1000).double()
    assert float(effective_sample_size(counts.log())) == pytest.approx(LEAST_ESS, abs=0.02)
    assert wild[counts.topk(20).indices].min() > wild.quantile(0.9)


def test_matching_asks_for_energies_alone_and_then_gives_way() -> None:
    model, target = _model(), _target()
    after = ReverseKL(target, n_samples=32)
    objective = FlowMatching(target, after=after, n_samples=32, n_matching=2, n_matched=64)
    for k in range(3):
        before = target.energy.n_energy_calls, target.energy.n_gradient_calls
        evaluation = objective.evaluate(model, target.beta)
        model.zero_grad()
        evaluation.loss.backward()
        spent = target.energy.n_energy_calls - before[0]
        slopes = target.energy.n_gradient_calls - before[1]
        assert spent == 32 + (k == 2)  # the reference energy of reverse KL
        assert slopes == (0 if k < 2 else 32)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert any(g.abs().max() > 0 for g in grads)
        log_weights = evaluation.log_weights[torch.isfinite(evaluation.log_weights)]
        if k < 2:
            assert_close(evaluation.loss.detach(), -log_weights.median())
    assert len(objective.memory) == 0


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
    spline = CoarseGrainedModel(SplineDecoder(Cartesian(2), n_soft_layers=2, soft_hidden=(8,)))
    with pytest.raises(ValueError, match=r"must have a FlowMatchingDecoder.*got SplineDecoder"):
        FlowMatching(target, after=after, n_matching=3).evaluate(spline, 1.0)
