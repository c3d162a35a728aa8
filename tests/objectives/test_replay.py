"""Objectives on replayed samples: exact gradients by quadrature, weights, and what they cost.

Cannot detect: whether they train better than reverse KL; `experiments/ablation` measures that.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg import fit
from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.energies.toy import DoubleWell
from gencg.ensemble import draw
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.objectives.alpha_divergence import AlphaDivergence, replayed
from gencg.objectives.alpha_two import AlphaTwo
from gencg.objectives.forward_kl import WeightedForwardKL
from gencg.objectives.latent_hmc import LatentAIS
from gencg.objectives.log_variance import LogVariance
from gencg.objectives.own_samples import ask_energy, draw_path, flow_of, tame, trace_path
from gencg.objectives.replay import ReplayBuffer
from gencg.objectives.reverse_kl import ReverseKL
from gencg.systems import alanine_dipeptide, double_well
from gencg.target import BoltzmannTarget
from gencg.units import temperature_of

BETA = 1.0


class Harmonic(Energy):
    r"""U = |x|² / 2."""

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x):
        return 0.5 * x.square().sum(-1)


def _target(energy: Energy) -> BoltzmannTarget:
    return BoltzmannTarget(energy, Cartesian(*energy.event_shape), temperature_of(BETA))


HARMONIC, WELLS = _target(Harmonic()), _target(DoubleWell())


def _model(*, std: float = 0.0, seed: int = 0) -> CoarseGrainedModel:
    """A flow that is the standard normal, or one shaken away from it."""
    torch.manual_seed(seed)
    decoder = SplineDecoder(Cartesian(2), n_soft_layers=2, n_bins=4, soft_hidden=(8,))
    model = CoarseGrainedModel(decoder).double()
    if std:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return model


def _samples(model: CoarseGrainedModel, target: BoltzmannTarget, n: int):
    with torch.no_grad():
        path = draw_path(model, n)
    return ask_energy(target, path.y, path.log_q)


def _gradient(loss: torch.Tensor, model: CoarseGrainedModel) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


OBJECTIVES = {
    "alpha 0": (AlphaDivergence, {"alpha": 0.0, "mix": 1.0}),
    "alpha 1/2, fresh": (AlphaDivergence, {"alpha": 0.5, "mix": 1.0, "n_replayed": 0}),
    "forward KL": (WeightedForwardKL, {}),
    "log variance": (LogVariance, {}),
    "alpha 2": (AlphaTwo, {}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_sample_has_a_gradient_where_the_model_is_the_target(name) -> None:
    # q = N(0, I) and U = |x|²/2 at beta 1, fresh and replayed
    model = _model()
    kind, options = OBJECTIVES[name]
    objective = kind(HARMONIC, **({"n_samples": 50, "n_replayed": 50} | options))
    for _ in range(3):
        found = objective.evaluate(model, BETA)
        assert _gradient(found.loss, model).abs().max() < 1e-10
    assert_close(found.loss.detach(), torch.tensor(-math.log(2 * math.pi)))


def test_weights_at_another_beta_are_those_computed_directly() -> None:
    model = _model(std=0.3)
    samples = _samples(model, WELLS, 40)
    for beta in (0.3, 1.0, 2.5):
        direct = WELLS.log_density(samples.y, beta=beta) - model.decoder(model.rows(40)).log_prob(
            samples.y
        )
        assert_close(samples.log_weights(beta), direct.detach())
        # And so are the forces
        y = samples.y.clone().requires_grad_()
        u = -beta * WELLS.energy.energy(y)
        assert_close(samples.log_target_slope(beta), torch.autograd.grad(u.sum(), y)[0])


def test_a_molecule_has_its_forces_in_its_own_coordinates() -> None:
    system = alanine_dipeptide()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    y = system.coordinates.centre.double() + 0.01 * torch.randn(3, system.coordinates.dim)
    samples = ask_energy(target, y, torch.zeros(3))
    leaf = y.clone().requires_grad_()
    direct = torch.autograd.grad(target.log_density(leaf).sum(), leaf)[0]
    assert_close(samples.log_target_slope(target.beta), direct)


def test_the_path_of_a_sample_is_the_one_it_was_drawn_on() -> None:
    model = _model(std=0.3)
    path = draw_path(model, 20)
    again = trace_path(model, path.y.detach())
    assert_close(again.y, path.y)
    assert_close(again.score, path.score)
    assert_close(again.log_q, path.log_q)


def _exact_gradient(model: CoarseGrainedModel, alpha: float) -> torch.Tensor:
    r"""Of :math:`\log \int \tilde p^\alpha q^{1-\alpha} / (\alpha (\alpha - 1))`, by quadrature."""
    axis = torch.linspace(-8, 8, 321)
    y = torch.cartesian_prod(axis, axis)
    log_q = model.decoder(model.rows(len(y))).log_prob(y)
    log_p = HARMONIC.log_density(y)
    if alpha == 0:
        loss = (log_q.exp() * (log_q - log_p)).sum() * 0.05**2
    elif alpha == 1:
        loss = -(log_p.exp() * log_q).sum() * 0.05**2 / (2 * math.pi)
    else:
        loss = torch.logsumexp(alpha * log_p + (1 - alpha) * log_q, 0) / (alpha * (alpha - 1))
    return _gradient(loss, model)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["fresh", "replayed", "an order of reverse KL"])
def test_gradients_are_those_of_the_divergence(alpha, kind) -> None:
    # 30 batches of 20,000: their mean is within 4.5 standard errors in each of 200 entries, which
    # fails 1 in 700; the bias of truncation and of self-normalisation gets a hundredth of the norm
    model, drawn_by = _model(std=0.15), _model(std=0.15, seed=1)
    exact, found = _exact_gradient(model, alpha), []
    for _ in range(30):
        if kind == "fresh":
            objective = AlphaDivergence(
                HARMONIC, alpha=alpha, mix=1.0, n_replayed=0, n_samples=20_000
            )
            loss = objective.loss(model, BETA)
        elif kind == "an order of reverse KL":
            objective = ReverseKL(HARMONIC, order=alpha, n_samples=20_000, drop_worst=0.0)
            loss = objective.loss(model, BETA)
        else:
            buffer = ReplayBuffer(20_000)
            buffer.add(_samples(drawn_by, HARMONIC, 20_000))
            loss = replayed(model, buffer, BETA, alpha=alpha, n=20_000)
        found.append(_gradient(loss, model))
    stacked = torch.stack(found)
    error = stacked.std(0) / math.sqrt(len(found))
    slack = 4.5 * error + 0.01 * exact.abs().max()
    assert ((stacked.mean(0) - exact).abs() <= slack).all()


def test_the_log_variance_has_its_gradient() -> None:
    # Of half the variance of log w over fixed samples, by automatic differentiation
    model = _model(std=0.3)
    objective = LogVariance(HARMONIC, mix=1.0, n_samples=64, n_replayed=64, largest=1e9)
    objective.buffer.add(_samples(_model(std=0.3, seed=1), HARMONIC, 64))
    torch.manual_seed(3)
    loss = objective.other(model, None, None, BETA)
    found = _gradient(loss, model)

    torch.manual_seed(3)
    samples, _ = objective.buffer.draw(64, BETA)
    log_w = samples.log_target(BETA) - model.decoder(model.rows(64)).log_prob(samples.y)
    assert_close(found, _gradient(0.5 * log_w.var(correction=0), model))


@pytest.mark.parametrize("n_between", [1, 3])
def test_annealed_weights_integrate_to_the_squared_target(n_between) -> None:
    # log of the integral of p²/q by quadrature; the mean weight is within 4.5 standard errors
    model = _model(std=0.1)
    axis = torch.linspace(-9, 9, 361)
    y = torch.cartesian_prod(axis, axis)
    n, chains = 20_000, LatentAIS(HARMONIC, n_between=n_between)
    with torch.no_grad():
        log_q = model.decoder(model.rows(len(y))).log_prob(y)
        exact = torch.exp(2 * HARMONIC.log_density(y) - log_q).sum() * 0.05**2
    ends = chains.run(flow_of(model, n), _samples(model, HARMONIC, n), BETA)
    with torch.no_grad():
        log_q = model.decoder(model.rows(n)).log_prob(ends.y)
    weights = torch.exp(2 * ends.log_target(BETA) - log_q - ends.log_drawn)
    assert abs(weights.mean() - exact) < 4.5 * weights.std() / math.sqrt(n)
    # Averages too: the first coordinate squared
    log_g = 2 * HARMONIC.log_density(y) - model.decoder(model.rows(len(y))).log_prob(y).detach()
    share = torch.softmax(log_g, 0)
    square = (share * y[:, 0].square()).sum()
    deviation = weights * (ends.y[:, 0].square() - square)
    assert abs(deviation.mean()) < 4.5 * deviation.std() / math.sqrt(n)


def test_chains_cost_what_they_say_and_replay_costs_nothing() -> None:
    model = _model(std=0.1)
    energy = Harmonic()
    fab = AlphaTwo(_target(energy), n_samples=16, n_between=2, n_leapfrog=3)
    fab.evaluate(model, BETA)
    assert energy.n_energy_calls == energy.n_gradient_calls == fab.calls_per_step == 16 * 7

    energy = Harmonic()
    forward = WeightedForwardKL(_target(energy), n_samples=16, n_replayed=100)
    for _ in range(3):
        forward.evaluate(model, BETA)
    assert energy.n_energy_calls == energy.n_gradient_calls == 48


def test_the_buffer_keeps_the_latest_and_nothing_infinite() -> None:
    samples = _samples(_model(), HARMONIC, 30)
    samples.energy[3] = math.inf
    buffer = ReplayBuffer(20)
    for part in (slice(0, 8), slice(8, 16), slice(16, 30)):
        buffer.add(samples[part])
    assert len(buffer) == 20
    assert_close(buffer.samples.y, samples.y[10:])
    buffer = ReplayBuffer(100)
    buffer.add(samples)
    assert len(buffer) == 29


def test_samples_are_drawn_again_by_weight() -> None:
    # Frequencies of 40 samples in 40,000 draws, within 4.5 standard errors
    buffer = ReplayBuffer(40)
    samples = _samples(_model(std=0.3), WELLS, 40)
    buffer.add(samples)
    drawn, log_share = buffer.draw(40_000, 0.5)
    weights = torch.softmax(samples.log_weights(0.5), 0).clamp(max=math.sqrt(40) / 40)
    share = weights / weights.sum()
    counts = (drawn.energy[:, None] == samples.energy).double().mean(0)
    assert ((counts - share).abs() < 4.5 * (share / 40_000).sqrt() + 1e-4).all()
    assert_close(log_share[:1].exp(), share[samples.energy == drawn.energy[0]])


def test_only_clashes_are_tamed() -> None:
    samples = _samples(_model(), HARMONIC, 6)
    samples.energy[2] = samples.energy.min() + 1e6
    tamed, touched = tame(samples, BETA, above=1e3)
    assert touched.tolist() == [False, False, True, False, False, False]
    assert_close(tamed.energy_slope[~touched], samples.energy_slope[~touched])
    assert tamed.energy_slope[2].norm() < 1e-5 * samples.energy_slope[2].norm()


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    class Holed(Harmonic):
        def energy(self, x):
            return torch.where(x[:, 0] > 1.0, torch.nan, super().energy(x))

    model = _model(std=0.1)
    for build in (WeightedForwardKL, LogVariance, AlphaTwo):
        found = build(_target(Holed()), n_samples=200, n_replayed=50).evaluate(model, BETA)
        assert 0 < found.n_invalid < 100
        assert torch.isfinite(_gradient(found.loss, model)).all()


TOYS = {
    "alpha 1/2": (AlphaDivergence, {"alpha": 0.5, "mix": 1.0, "n_replayed": 0}),
    "forward KL": (WeightedForwardKL, {"n_replayed": 256}),
    "log variance": (LogVariance, {"n_replayed": 256}),
    "alpha 2": (AlphaTwo, {"n_samples": 64, "n_replayed": 256}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_a_short_training_finds_both_wells(name) -> None:
    # 5e4 calls, a twelfth of what the system recommends; log Z within 4.5 standard errors
    kind, options = TOYS[name]
    torch.set_default_dtype(torch.float32)
    system = double_well()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    objective = kind(target, **({"n_samples": 256} | options))
    calls = getattr(objective, "calls_per_step", 256)
    result = fit(system, energy_calls=5e4, batch_size=calls, objective=objective)
    assert result.energy_calls <= 5e4
    ensemble = draw(result.model, target, 20_000)
    exact = system.energy.log_partition(target.beta)
    assert ensemble.ess > 0.5
    assert abs(ensemble.log_z - exact) < 4.5 * ensemble.log_z_error
    right = {"right": ensemble.x[:, 0] > system.energy.barrier}
    raw, reweighted = (ensemble.populations(right, raw=r)["right"][0] for r in (True, False))
    assert 0.003 < raw < 0.03
    assert 0.003 < reweighted < 0.03


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (WeightedForwardKL, {"n_samples": 1}, "`n_samples` must be at least 2, got 1"),
        (WeightedForwardKL, {"mix": 1.5}, r"`mix` must lie in \[0, 1\], got 1.5"),
        (WeightedForwardKL, {"n_replayed": -1}, "`n_replayed` must not be negative, got -1"),
        (WeightedForwardKL, {"capacity": 0}, "`capacity` must be at least 1, got 0"),
        (WeightedForwardKL, {"compress_above": 0}, "`compress_above` must be positive, got 0"),
        (WeightedForwardKL, {"drop_worst": 1.0}, r"`drop_worst` must lie in \[0, 1\), got 1.0"),
        (AlphaDivergence, {"alpha": 3.0}, r"`alpha` must lie in \[0, 2\], got 3.0"),
        (LogVariance, {"largest": 0.0}, "`largest` must be positive, got 0.0"),
        (LogVariance, {"n_replayed": 1}, "`n_replayed` must be at least 2, got 1"),
        (AlphaTwo, {"n_replayed": 0}, "`n_replayed` must be at least 2, got 0"),
        (AlphaTwo, {"n_between": 0}, "`n_between` and `n_leapfrog` must be at least 1, got 0 and"),
    ],
)
def test_settings_out_of_range_are_refused(kind, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(HARMONIC, **options)


def test_models_without_a_path_are_refused() -> None:
    joint = build_model(Cartesian(2), n_cvs=1)
    with pytest.raises(ValueError, match="no collective variables for replayed samples, got 1"):
        WeightedForwardKL(HARMONIC).evaluate(joint, BETA)
    gaussian = CoarseGrainedModel(GaussianDecoder(Cartesian(2), n_cvs=0))
    with pytest.raises(ValueError, match="a flow that carries its score, got GaussianDecoder"):
        WeightedForwardKL(HARMONIC).evaluate(gaussian, BETA)


@pytest.mark.parametrize(
    "ours, theirs, drop_worst",
    [
        ({"order": 0.0}, {"mix": 0.0}, 0.05),
        ({"order": 0.1}, {"alpha": 0.1, "mix": 1.0, "n_replayed": 0}, 0.0),
    ],
)
def test_fresh_samples_alone_are_reverse_kl_of_an_order(ours, theirs, drop_worst) -> None:
    model = _model(std=0.3)
    both = []
    for objective in (
        ReverseKL(WELLS, n_samples=64, drop_worst=drop_worst, **ours),
        AlphaDivergence(WELLS, n_samples=64, drop_worst=drop_worst, **theirs),
    ):
        torch.manual_seed(1)
        found = objective.evaluate(model, BETA)
        both.append((found.loss.detach(), _gradient(found.loss, model), found.log_weights))
    for a, b in zip(*both, strict=True):
        assert_close(a, b)
